/*
 * Backward pass of attention. See tape_impl.h.
 *
 * For one query i of a head, over the positions j ≤ i, with s_ij = scale q_i · k_j, p = softmax s:
 *   dp_ij = do_i · v_j,   ds_ij = p_ij (dp_ij − D_i),   D_i = do_i · o_i
 *   dq_i = scale Σ_j ds_ij k_j,   dk_j = scale Σ_i ds_ij q_i,   dv_j = Σ_i p_ij do_i
 * (Dao et al., "FlashAttention", 2022, appendix B.2). Probabilities are computed again: nothing of
 * the size of a context squared is ever kept. Latents are keys whose front is the value: both
 * gradients go to the same rows.
 *
 * A task is one sequence and one KV head; it walks the query heads that share it, each in blocks of
 * 64 queries with all positions before their end. So every sum is a chain of a fixed order: dq over
 * positions, dk and dv over heads and queries, ascending. All five products are the kernels'
 * product over panels (kern.gemm): of keys and values turned around, whose lanes are positions, for
 * s and dp; of keys, queries and do as they lie, whose lanes are their values, for the gradients.
 */
#include "tensor/tape_impl.h"

#include "base/num.h"

#include <string.h>

enum { BACK_BLOCK = 64 };

struct attn_back {
    const struct kern *kern;
    const struct attention_args *a;
    const struct batch *b;
    struct tensor q, k, v, o;
    const float *d_o;
    float *dq, *dk, *dv;
    size_t ldv, group; /* of v and dv; query heads of a KV head */
    float *scratch;
    size_t scratch_floats, longest; /* of a worker; positions of the longest run, padded */
};

/* One worker's memory. Panels are (…, 16), one behind the other. */
struct attn_mem {
    float *k;       /* keys by value: (d_k / 16, n, 16) */
    float *kt, *vt; /* keys and values by position: (n / 16, d, 16); of latents the same */
    float *q, *d_o; /* a block's by value: (d / 16, block, 16); do over the sum of weights */
    float *p, *ds;  /* (block, longest) weights before they are divided by their sum; dp, then ds */
};

static size_t attn_back_floats(const struct attn_back *j)
{
    size_t dk = num_round_up(j->a->d_k, 16), dv = num_round_up(j->a->d_v, 16);
    return j->longest * (2 * dk + dv) + BACK_BLOCK * (dk + dv + 2 * j->longest);
}

static struct attn_mem attn_back_mem(const struct attn_back *j, int worker)
{
    size_t dk = num_round_up(j->a->d_k, 16), dv = num_round_up(j->a->d_v, 16);
    struct attn_mem m = {.k = j->scratch + (size_t)worker * j->scratch_floats};
    m.kt = m.k + j->longest * dk;
    m.vt = m.kt + j->longest * dk;
    m.q = m.vt + j->longest * dv;
    m.d_o = m.q + BACK_BLOCK * dk;
    m.p = m.d_o + BACK_BLOCK * dv;
    m.ds = m.p + BACK_BLOCK * j->longest;
    return m;
}

/* n rows of d values, `ld` apart, as panels by value, each row times scale[row] (NULL: as it is).
 */
static void attn_by_value(float *to, const float *x, size_t ld, size_t n, size_t d,
                          const float *scale)
{
    for (size_t at = 0; at < d; at += 16)
        for (size_t i = 0; i < n; i++, to += 16) {
            const float *row = x + i * ld + at;
            size_t have = num_min(16, d - at);
            if (have < 16)
                memset(to, 0, 16 * sizeof *to);
            memcpy(to, row, have * sizeof *to);
            for (size_t e = 0; scale && e < 16; e++)
                to[e] *= scale[i];
        }
}

/* The same by row: lanes are rows, the last panel is filled up with zeros. */
static void attn_by_row(const struct kern *kern, float *to, const float *x, size_t ld, size_t n,
                        size_t d)
{
    for (size_t i = 0; i < n; i += 16, to += 16 * d)
        for (size_t at = 0; at < d; at += 16) {
            size_t rows = num_min(16, n - i), cols = num_min(16, d - at);
            if (rows == 16 && cols == 16) {
                kern->transpose(to + at * 16, 16, x + i * ld + at, ld);
                continue;
            }
            float part[256] = {0}, turned[256];
            for (size_t r = 0; r < rows; r++)
                memcpy(part + r * 16, x + (i + r) * ld + at, cols * sizeof *part);
            kern->transpose(turned, 16, part, 16);
            memcpy(to + at * 16, turned, cols * 16 * sizeof *to);
        }
}

/* Queries [t0, t1) of head h: weights and their gradient. inv: 1 over the sum of weights. */
static void attn_weights_back(const struct attn_back *j, const struct batch_run *r, size_t h,
                              size_t t0, size_t t1, const struct attn_mem *m, float *inv)
{
    const struct attention_args *a = j->a;
    size_t n = t1 - t0;
    const float *q = j->q.data + (r->row + t0) * j->q.cols + h * a->d_k;
    size_t o0 = (r->row + t0) * j->o.cols + h * a->d_v;
    struct kern_gemm g = {.w = m->kt,
                          .w_panel = a->d_k * 16,
                          .x = q,
                          .x_col = j->q.cols,
                          .x_step = 1,
                          .y = m->p,
                          .y_panel = 16,
                          .y_col = j->longest,
                          .rows = t1,
                          .k = a->d_k,
                          .cols = n};
    j->kern->gemm(&g);
    g.w = m->vt;
    g.w_panel = (m->vt == m->kt ? a->d_k : a->d_v) * 16;
    g.x = j->d_o + o0;
    g.x_col = j->o.cols;
    g.y = m->ds;
    g.k = a->d_v;
    j->kern->gemm(&g);
    for (size_t i = 0; i < n; i++) {
        float *p = m->p + i * j->longest, *ds = m->ds + i * j->longest, sum;
        size_t seen = t0 + i + 1, at = o0 + i * j->o.cols;
        j->kern->softmax_part(p, seen, a->scale, &sum);
        inv[i] = 1.0f / sum;
        j->kern->softmax_back(ds, p, seen, j->kern->dot(j->d_o + at, j->o.data + at, a->d_v),
                              inv[i] * a->scale);
        memset(p + seen, 0, (t1 - seen) * sizeof *p);
        memset(ds + seen, 0, (t1 - seen) * sizeof *ds);
    }
}

/* Queries [t0, t1) of head h over all positions before t1. */
static void attn_block_back(const struct attn_back *j, const struct batch_run *r, size_t h,
                            size_t t0, size_t t1, const struct attn_mem *m)
{
    const struct attention_args *a = j->a;
    float inv[BACK_BLOCK];
    size_t n = t1 - t0, kv = h / j->group;
    size_t q0 = (r->row + t0) * j->q.cols + h * a->d_k;
    attn_weights_back(j, r, h, t0, t1, m, inv);
    struct kern_gemm g = {.w = m->k,
                          .w_panel = r->n * 16,
                          .x = m->ds,
                          .x_col = j->longest,
                          .x_step = 1,
                          .y = j->dq + q0,
                          .y_panel = 16,
                          .y_col = j->q.cols,
                          .rows = a->d_k,
                          .k = t1,
                          .cols = n,
                          .more = true};
    j->kern->gemm(&g);
    attn_by_value(m->q, j->q.data + q0, j->q.cols, n, a->d_k, NULL);
    g.w = m->q;
    g.w_panel = n * 16;
    g.x_col = 1;
    g.x_step = j->longest;
    g.y = j->dk + r->row * j->k.cols + kv * a->d_k;
    g.y_col = j->k.cols;
    g.k = n;
    g.cols = t1;
    j->kern->gemm(&g);
    attn_by_value(m->d_o, j->d_o + (r->row + t0) * j->o.cols + h * a->d_v, j->o.cols, n, a->d_v,
                  inv);
    g.w = m->d_o;
    g.x = m->p;
    g.y = j->dv + r->row * j->ldv + kv * a->d_v;
    g.y_col = j->ldv;
    g.rows = a->d_v;
    j->kern->gemm(&g);
}

static void attn_back_task(void *arg, size_t task, int worker)
{
    const struct attn_back *j = arg;
    const struct attention_args *a = j->a;
    const struct batch_run *r = &j->b->runs[task / a->n_kv_head];
    size_t kv = task % a->n_kv_head;
    struct attn_mem m = attn_back_mem(j, worker);
    const float *k = j->k.data + r->row * j->k.cols + kv * a->d_k;
    attn_by_value(m.k, k, j->k.cols, r->n, a->d_k, NULL);
    attn_by_row(j->kern, m.kt, k, j->k.cols, r->n, a->d_k);
    if (j->v.data)
        attn_by_row(j->kern, m.vt, j->v.data + r->row * j->ldv + kv * a->d_v, j->ldv, r->n, a->d_v);
    else
        m.vt = m.kt; /* the front of the keys */
    for (size_t h = kv * j->group; h < (kv + 1) * j->group; h++)
        for (size_t t = 0; t < r->n; t += BACK_BLOCK)
            attn_block_back(j, r, h, t, num_min(r->n, t + BACK_BLOCK), &m);
}

void back_attention(struct tape *t, const struct op_record *r)
{
    struct tensor v = r->in[2];
    struct attn_back j = {.kern = t->c->kern,
                          .a = r->attention,
                          .b = r->batch,
                          .q = r->in[0],
                          .k = r->in[1],
                          .v = v,
                          .o = r->out,
                          .d_o = tape_given(t, r->out),
                          .dq = tape_grad(t, r->in[0]),
                          .dk = tape_grad(t, r->in[1]),
                          .ldv = v.data ? v.cols : r->in[1].cols,
                          .group = r->attention->n_head / r->attention->n_kv_head};
    j.dv = v.data ? tape_grad(t, v) : j.dk;
    for (size_t i = 0; i < j.b->n_runs; i++)
        j.longest = num_max(j.longest, j.b->runs[i].n);
    j.longest = num_round_up(j.longest, 16);
    j.scratch_floats = attn_back_floats(&j);
    j.scratch = tape_alloc(t, (size_t)team_threads(t->c->team) * j.scratch_floats * sizeof(float));
    if (j.scratch && j.dq && j.dk && j.dv)
        team_run(t->c->team, attn_back_task, &j, j.b->n_runs * j.a->n_kv_head);
}
