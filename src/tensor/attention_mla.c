/*
 * Latent attention in the expanded form: keys and values of every head are made from the cached
 * latents, for long chunks of a prompt (DeepSeek-V2, section 2.1.2; model/mla.c has the other
 * form).
 *
 * The context goes by in blocks of pages. For a block, K (d_nope) and V (d_v) of all heads come
 * from the latents by two regions of matrix products; then each head takes its queries over the
 * block's pages, by the same page, weights and fold as tensor/attention.c, from the state that the
 * last block left. What a block is does not show in the result.
 */
#include "base/num.h"
#include "tensor/attention_impl.h"

#include <math.h>
#include <string.h>

enum {
    MLA_BLOCK = 4 * KV_PAGE, /* positions that are expanded together */
    MLA_COLS = 64,           /* queries of a head that go over a page together */
};

struct mla_job {
    const struct op_ctx *c;
    const struct mla_args *a;
    const struct batch_run *r;
    struct tensor q, latent; /* (n, n_head × (d_nope + d_rope)); (block, kv_lora + d_rope) */
    struct tensor k, v;      /* (block, n_head × d_nope), (block, n_head × d_v) */
    size_t pos, n;           /* positions of the block: [pos, pos + n) */
    float *acc, *m, *l;      /* state: (n_head, queries, d_v), (n_head, queries) */
    float *scratch;
    size_t scratch_floats;
    struct tensor out;
};

/* A worker's memory: a page's keys as panels, and MLA_COLS columns. */
static struct attn_work mla_work(const struct mla_args *a, float *p)
{
    size_t dk = a->d_nope + a->d_rope;
    struct attn_work w = {.kd = p};
    w.q = w.kd + KV_PAGE * dk;
    w.s = w.q + MLA_COLS * dk;
    w.o = w.s + MLA_COLS * KV_PAGE;
    w.pm = w.o + MLA_COLS * num_round_up(a->d_v, 16);
    w.pl = w.pm + MLA_COLS;
    w.f = w.pl + MLA_COLS;
    return w;
}

static size_t mla_work_floats(const struct mla_args *a)
{
    size_t dk = a->d_nope + a->d_rope;
    return num_round_up(KV_PAGE * dk + MLA_COLS * (dk + KV_PAGE + num_round_up(a->d_v, 16) + 4),
                        16);
}

/* Keys of one head and page as panels of 16 positions: d_nope of its own, d_rope that all share. */
static void mla_keys(const struct mla_job *j, size_t h, size_t first, size_t seen, float *kd)
{
    const struct mla_args *a = j->a;
    size_t dk = a->d_nope + a->d_rope;
    for (size_t i = 0; i < seen; i++) {
        const float *k = j->k.data + (first + i) * j->k.cols + h * a->d_nope;
        const float *rope = j->latent.data + (first + i) * j->latent.cols + a->kv_lora;
        float *dst = kd + i / 16 * 16 * dk + i % 16;
        for (size_t d = 0; d < a->d_nope; d++)
            dst[d * 16] = k[d];
        for (size_t d = 0; d < a->d_rope; d++)
            dst[(a->d_nope + d) * 16] = rope[d];
    }
}

/* Queries [t0, t1) of a head over one page, whose keys are in w->kd. */
static void mla_page(const struct mla_job *j, size_t h, size_t first, size_t seen, size_t t0,
                     size_t t1, struct attn_work *w)
{
    const struct kern *kern = j->c->kern;
    const struct mla_args *a = j->a;
    size_t dk = a->d_nope + a->d_rope, cols = t1 - t0, at = h * j->r->n + t0;
    for (size_t t = t0; t < t1; t++)
        memcpy(w->q + (t - t0) * dk, j->q.data + (j->r->row + t) * j->q.cols + h * dk,
               dk * sizeof(float));
    struct kern_tile tile = {.w = w->kd,
                             .panel_step = 16 * dk,
                             .k_step = 16,
                             .rows = seen,
                             .k = dk,
                             .x = w->q,
                             .ldx = dk,
                             .cols = cols,
                             .y = w->s,
                             .ldy = KV_PAGE};
    kern->tile[KERN_F32](&tile);
    for (size_t c = 0; c < cols; c++) {
        size_t last = j->r->pos + t0 + c, from = j->pos + first;
        size_t n = last < from ? 0 : num_min(seen, last - from + 1);
        w->pm[c] = attn_weights(kern, w->s + c * KV_PAGE, n, seen, a->scale, &w->pl[c]);
    }
    tile = (struct kern_tile){.w = j->v.data + first * j->v.cols + h * a->d_v,
                              .panel_step = 16,
                              .k_step = j->v.cols,
                              .rows = a->d_v,
                              .k = seen,
                              .x = w->s,
                              .ldx = KV_PAGE,
                              .cols = cols,
                              .y = w->o,
                              .ldy = a->d_v};
    kern->tile[KERN_F32](&tile);
    attn_fold(kern, w->f, cols, a->d_v, j->m + at, j->l + at, j->acc + at * a->d_v, w->pm, w->pl,
              w->o);
}

static void mla_head(void *arg, size_t h, int worker)
{
    const struct mla_job *j = arg;
    struct attn_work w = mla_work(j->a, j->scratch + (size_t)worker * j->scratch_floats);
    for (size_t p = 0; p < j->n; p += KV_PAGE) {
        size_t seen = num_min(KV_PAGE, j->n - p);
        mla_keys(j, h, p, seen, w.kd);
        for (size_t t = 0; t < j->r->n; t += MLA_COLS) {
            size_t end = num_min(j->r->n, t + MLA_COLS);
            if (j->r->pos + end > j->pos + p) /* queries before the page see nothing of it */
                mla_page(j, h, p, seen, t, end, &w);
        }
    }
}

static void mla_write(void *arg, size_t h, int worker)
{
    const struct mla_job *j = arg;
    size_t dv = j->a->d_v;
    (void)worker;
    for (size_t t = 0; t < j->r->n; t++) {
        const float *acc = j->acc + (h * j->r->n + t) * dv;
        float *y = j->out.data + (j->r->row + t) * j->out.cols + h * dv;
        attn_result(y, acc, j->l[h * j->r->n + t], dv);
    }
}

/* One sequence's tokens of the batch. */
static void mla_run(struct op_ctx *c, struct mla_job *j)
{
    const struct mla_args *a = j->a;
    size_t states = a->n_head * j->r->n, dk = a->kv_lora + a->d_rope;
    j->acc = op_alloc(c, states * a->d_v * sizeof(float));
    j->m = op_alloc(c, states * sizeof(float));
    j->l = op_alloc(c, states * sizeof(float));
    if (!c->dry) {
        memset(j->acc, 0, states * a->d_v * sizeof(float));
        memset(j->l, 0, states * sizeof(float));
        for (size_t i = 0; i < states; i++)
            j->m[i] = -INFINITY;
    }
    size_t end = c->dry ? MLA_BLOCK : j->r->pos + j->r->n, mark = c->used;
    for (j->pos = 0; j->pos < end; j->pos += MLA_BLOCK) {
        c->used = mark;
        j->n = num_min(MLA_BLOCK, end - j->pos);
        j->latent = op_tensor(c, j->n, dk);
        struct tensor front = op_tensor(c, j->n, a->kv_lora); /* without the rotated part */
        for (size_t p = 0; p < j->n && !c->dry; p += KV_PAGE) {
            const struct kv_shape *shape = kv_pool_shape(j->r->seq->pool);
            const struct quant_type *t = quant_by_id(shape->type);
            struct kern_page_shape int8 = kv_int8_k(shape);
            const uint8_t *rows = kv_k(j->r->seq, (j->pos + p) / KV_PAGE, a->layer, 0);
            for (size_t i = p; i < num_min(j->n, p + KV_PAGE); i++) {
                if (shape->type == QUANT_Q8_0)
                    kv_int8_load(&int8, rows, i - p, j->latent.data + i * dk);
                else
                    t->decode(j->latent.data + i * dk, rows + (i - p) * dk / t->block * t->bytes,
                              dk);
                memcpy(front.data + i * a->kv_lora, j->latent.data + i * dk,
                       a->kv_lora * sizeof(float));
            }
        }
        j->k = op_linear_each(c, front, a->n_head, a->k_up);
        j->v = op_linear_each(c, front, a->n_head, a->v_b);
        op_alloc(c, 64); /* tiles read up to 16 values behind the last row */
        if (!c->dry)
            team_run(c->team, mla_head, j, a->n_head);
    }
    if (!c->dry)
        team_run(c->team, mla_write, j, a->n_head);
}

struct tensor op_attention_expanded(struct op_ctx *c, struct tensor q, struct tensor latent,
                                    const struct mla_args *a, const struct batch *b)
{
    struct mla_job j = {.c = c, .a = a, .q = q, .out = op_tensor(c, q.rows, a->n_head * a->d_v)};
    struct attention_args store = {.layer = a->layer,
                                   .n_head = a->n_head,
                                   .n_kv_head = 1,
                                   .d_k = a->kv_lora + a->d_rope,
                                   .d_v = a->kv_lora};
    size_t mark = c->used;
    j.scratch_floats = mla_work_floats(a);
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (!c->dry)
        attn_store(c, latent, (struct tensor){0}, &store, b);
    size_t inner = c->used;
    for (size_t i = 0; i < b->n_runs; i++) {
        c->used = inner;
        j.r = &b->runs[i];
        mla_run(c, &j);
    }
    if (!c->dry)
        op_record(c,
                  &(struct op_record){
                      .kind = OP_ATTENTION_EXPANDED, .out = j.out, .in = {q, latent}, .batch = b});
    c->used = mark;
    return j.out;
}
