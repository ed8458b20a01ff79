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
 * 64 queries, each block over blocks of 64 positions. So the order of every sum is fixed. Products
 * are the strided kernels that the forward pass uses, over keys and values as they lie in the
 * batch.
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

/* One worker's memory: probabilities of a block of queries, and what goes between products. */
struct attn_mem {
    float *p;        /* (64, longest) */
    float *ds;       /* (64, 64): dp, then ds */
    float *pt, *dst; /* (64, 64), by position */
    float *rows;     /* (64, d) products before they are added */
    float sum[BACK_BLOCK];
};

static size_t attn_back_floats(const struct attn_back *j)
{
    size_t d = num_round_up(num_max(j->a->d_k, j->a->d_v), 16);
    return BACK_BLOCK * (j->longest + 3 * BACK_BLOCK + d);
}

/* y[c × ldy + r] = row r of w · row c of x, d values. */
static void attn_dots(const struct attn_back *j, const float *w, size_t ldw, size_t rows,
                      const float *x, size_t ldx, size_t cols, size_t d, float *y, size_t ldy)
{
    j->kern->dots[KERN_F32](&(struct kern_dots){w, w, ldw, rows, d, x, ldx, cols, y, ldy});
}

/* dst (cols rows, `ldd` apart) += scale × Σ over k rows of w: x[c × ldx + k] w[k × ldw + …], d
 * values each. */
static void attn_add(const struct attn_back *j, const struct attn_mem *m, float *dst, size_t ldd,
                     float scale, const float *w, size_t ldw, size_t k, const float *x, size_t ldx,
                     size_t cols, size_t d)
{
    j->kern->tile[KERN_F32](&(struct kern_tile){w, NULL, 16, ldw, d, k, x, ldx, cols, m->rows, d});
    for (size_t c = 0; c < cols; c++)
        j->kern->axpy(dst + c * ldd, scale, m->rows + c * d, d);
}

/* 64 × 64 values the other way; what lies beyond the ones in use is any memory of the block's. */
static void attn_turn_block(const struct kern *k, float *to, const float *from, size_t ld)
{
    for (size_t r = 0; r < BACK_BLOCK; r += 16)
        for (size_t c = 0; c < BACK_BLOCK; c += 16)
            k->transpose(to + r * BACK_BLOCK + c, BACK_BLOCK, from + c * ld + r, ld);
}

/* Queries [t0, t1) of head h over positions [p0, p1), whose probabilities are there. */
static void attn_positions(const struct attn_back *j, const struct batch_run *r, size_t h,
                           size_t t0, size_t t1, size_t p0, size_t p1, struct attn_mem *m)
{
    const struct attention_args *a = j->a;
    size_t n = t1 - t0, np = p1 - p0, kv = h / j->group, dk = a->d_k, dv = a->d_v;
    size_t q0 = (r->row + t0) * j->q.cols + h * dk, o0 = (r->row + t0) * j->o.cols + h * dv;
    size_t k0 = (r->row + p0) * j->k.cols + kv * dk, v0 = (r->row + p0) * j->ldv + kv * dv;
    const float *q = j->q.data + q0, *d_o = j->d_o + o0, *k = j->k.data + k0;
    const float *v = (j->v.data ? j->v.data : j->k.data) + v0;
    attn_dots(j, v, j->ldv, np, d_o, j->o.cols, n, dv, m->ds, BACK_BLOCK);
    for (size_t i = 0; i < n; i++)
        j->kern->softmax_back(m->ds + i * BACK_BLOCK, m->p + i * j->longest + p0, np, m->sum[i], 1);
    attn_turn_block(j->kern, m->dst, m->ds, BACK_BLOCK);
    attn_turn_block(j->kern, m->pt, m->p + p0, j->longest);
    attn_add(j, m, j->dq + q0, j->q.cols, a->scale, k, j->k.cols, np, m->ds, BACK_BLOCK, n, dk);
    attn_add(j, m, j->dk + k0, j->k.cols, a->scale, q, j->q.cols, n, m->dst, BACK_BLOCK, np, dk);
    attn_add(j, m, j->dv + v0, j->ldv, 1, d_o, j->o.cols, n, m->pt, BACK_BLOCK, np, dv);
}

/* The probabilities of queries [t0, t1) of head h, zero behind each query's position. */
static void attn_probs(const struct attn_back *j, const struct batch_run *r, size_t h, size_t t0,
                       size_t t1, struct attn_mem *m)
{
    size_t dk = j->a->d_k, kv = h / j->group;
    attn_dots(j, j->k.data + r->row * j->k.cols + kv * dk, j->k.cols, t1,
              j->q.data + (r->row + t0) * j->q.cols + h * dk, j->q.cols, t1 - t0, dk, m->p,
              j->longest);
    for (size_t t = t0; t < t1; t++) {
        float *p = m->p + (t - t0) * j->longest, sum;
        j->kern->softmax_part(p, t + 1, j->a->scale, &sum);
        for (size_t i = 0; i <= t; i++)
            p[i] /= sum;
        memset(p + t + 1, 0, (t1 - t - 1) * sizeof *p);
        size_t at = (r->row + t) * j->o.cols + h * j->a->d_v;
        m->sum[t - t0] = j->kern->dot(j->d_o + at, j->o.data + at, j->a->d_v);
    }
}

static void attn_back_task(void *arg, size_t task, int worker)
{
    const struct attn_back *j = arg;
    const struct batch_run *r = &j->b->runs[task / j->a->n_kv_head];
    size_t kv = task % j->a->n_kv_head;
    struct attn_mem m;
    m.p = j->scratch + (size_t)worker * j->scratch_floats;
    m.ds = m.p + BACK_BLOCK * j->longest;
    m.pt = m.ds + BACK_BLOCK * BACK_BLOCK;
    m.dst = m.pt + BACK_BLOCK * BACK_BLOCK;
    m.rows = m.dst + BACK_BLOCK * BACK_BLOCK;
    for (size_t h = kv * j->group; h < (kv + 1) * j->group; h++)
        for (size_t t = 0, t1; t < r->n; t = t1) {
            t1 = num_min(r->n, t + BACK_BLOCK);
            attn_probs(j, r, h, t, t1, &m);
            for (size_t p = 0; p < t1; p += BACK_BLOCK)
                attn_positions(j, r, h, t, t1, p, num_min(t1, p + BACK_BLOCK), &m);
        }
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
    j.longest = num_round_up(j.longest, BACK_BLOCK);
    j.scratch_floats = attn_back_floats(&j);
    j.scratch = tape_alloc(t, (size_t)team_threads(t->c->team) * j.scratch_floats * sizeof(float));
    if (j.scratch && j.dq && j.dk && j.dv)
        team_run(t->c->team, attn_back_task, &j, j.b->n_runs * j.a->n_kv_head);
}
