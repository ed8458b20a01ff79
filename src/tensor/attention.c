/*
 * Causal attention over paged keys and values, for GQA, MHA and MQA.
 *
 * Definition, for one query and one head (Milakov and Gimelshein, "Online normalizer calculation
 * for softmax", 2018; Dao et al., "FlashAttention", 2022): the context is cut into pages of 64
 * positions, fixed from position 0. A page gives m = max of the scaled scores, p = exp(s − m), l =
 * Σ p and o = Σ p v (ascending position). Pages are folded together in ascending order, starting
 * from (−∞, 0, 0): m' = max(m, mᵢ);  l = l·e^(m−m') + lᵢ·e^(mᵢ−m');  o likewise and the result is o
 * / l. Nothing in this depends on which other queries are computed beside it, how the prompt was
 * cut, or which thread does it: the bits of a token are the same always.
 *
 * All query heads that share a KV head, of up to 16 tokens, are the columns of two small matrix
 * products per page: scores = K q (rows are positions) and o = Vᵀ p (rows are value elements).
 * Prompts: a task is a KV head and a block of queries, which walks the pages. Decoding: few
 * queries, many pages, so a task is a KV head and a range of pages; it leaves each page's (m, l,
 * o), and the fold runs afterwards in the same order.
 */
#include "base/num.h"
#include "tensor/attention_impl.h"

#include <math.h>
#include <string.h>

enum {
    ATTN_COLS = 64,  /* columns (queries × heads of a group) of a task, at least one query */
    ATTN_SPLIT = 4,  /* queries of a run up to which pages are split between tasks */
    ATTN_RANGE = 4,  /* pages of such a task */
    ATTN_STORE = 32, /* tokens of a storing task */
};

struct attn_job {
    const struct op_ctx *c;
    const struct attention_args *a;
    const struct batch *b;
    struct tensor q, k, v, out;
    const struct kv_shape *shape;
    size_t group;   /* query heads of a KV head */
    size_t dv_pad;  /* row of V in elements (float types) */
    size_t *task0;  /* (n_runs + 1) first task of each run */
    size_t *part0;  /* (n_runs + 1) first page part of each run, in units of one head's page */
    float *part;    /* page parts: (pages, n_head × n, d_v + 2) */
    float *scratch; /* per worker */
    size_t scratch_floats;
};

/* ---- storing -------------------------------------------------------------------------------- */

/* One head's key and value of one position into its page. */
static void attn_store_one(const struct attn_job *j, const struct batch_run *r, size_t t, size_t h)
{
    const struct kern *kern = j->c->kern;
    size_t dk = j->a->d_k, dv = j->a->d_v, pos = r->pos + t, at = pos % KV_PAGE;
    const float *k = j->k.data + (r->row + t) * j->k.cols + h * dk;
    const float *v = j->shape->latent ? NULL : j->v.data + (r->row + t) * j->v.cols + h * dv;
    const struct quant_type *type = quant_by_id(j->shape->type);
    uint8_t *kp = kv_k(r->seq, pos / KV_PAGE, j->a->layer, h);
    if (j->shape->latent) {
        type->encode(kp + at * (dk / type->block * type->bytes), k, dk, NULL);
        return;
    }
    uint8_t *vp = kv_v(r->seq, pos / KV_PAGE, j->a->layer, h);
    if (type->id == QUANT_Q8_0) {
        size_t kb = dk / 32 * type->bytes, vb = dv / 32 * type->bytes;
        type->encode(kp + at * kb, k, dk, NULL);
        type->encode(vp + at * vb, v, dv, NULL);
    } else if (type->id == QUANT_F32) {
        float *kd = (float *)(void *)kp + at / 16 * 16 * dk + at % 16;
        for (size_t d = 0; d < dk; d++)
            kd[d * 16] = k[d];
        memcpy(vp + at * j->dv_pad * 4, v, dv * 4);
    } else {
        void (*cvt)(uint16_t *, const float *, size_t) =
            type->id == QUANT_F16 ? kern->f32_to_f16 : kern->f32_to_bf16;
        uint16_t tmp[64];
        uint16_t *kd = (uint16_t *)(void *)kp + at / 16 * 16 * dk + at % 16;
        for (size_t d = 0; d < dk; d += 64) {
            size_t n = num_min(64, dk - d);
            cvt(tmp, k + d, n);
            for (size_t i = 0; i < n; i++)
                kd[(d + i) * 16] = tmp[i];
        }
        cvt((uint16_t *)(void *)vp + at * j->dv_pad, v, dv);
    }
}

static void attn_store_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct attn_job *j = arg;
    size_t lo = chunk * ATTN_STORE, hi = lo + ATTN_STORE;
    for (size_t i = 0; i < j->b->n_runs; i++) {
        const struct batch_run *r = &j->b->runs[i];
        size_t t0 = lo > r->row ? lo - r->row : 0;
        size_t t1 = hi > r->row ? num_min(r->n, hi - r->row) : 0;
        for (size_t t = t0; t < t1; t++)
            for (size_t h = 0; h < j->a->n_kv_head; h++)
                attn_store_one(j, r, t, h);
    }
}

void attn_store(struct op_ctx *c, struct tensor k, struct tensor v, const struct attention_args *a,
                const struct batch *b)
{
    struct attn_job j = {
        .c = c, .a = a, .b = b, .k = k, .v = v, .shape = kv_pool_shape(b->runs[0].seq->pool)};
    j.dv_pad = num_round_up(a->d_v, 16);
    team_run(c->team, attn_store_chunk, &j, (b->n + ATTN_STORE - 1) / ATTN_STORE);
}

/* ---- one page -------------------------------------------------------------------------------- */

static size_t attn_work_floats(const struct attention_args *a, size_t cols)
{
    size_t n = cols * (a->d_k + KV_PAGE + 2 * a->d_v + 6) + 16 * 11;
    size_t row = num_max(a->d_k, num_round_up(a->d_v, 16)); /* of a decoded page */
    return num_round_up(n + KV_PAGE * (a->d_k + row) + 32, 16);
}

static struct attn_work attn_work_at(const struct attention_args *a, size_t cols, float *p)
{
    struct attn_work w;
    w.q = p;
    w.s = w.q + num_round_up(cols * a->d_k, 16);
    w.o = w.s + cols * KV_PAGE;
    w.acc = w.o + num_round_up(cols * a->d_v, 16);
    w.m = w.acc + num_round_up(cols * a->d_v, 16);
    w.l = w.m + num_round_up(cols, 16);
    w.pm = w.l + num_round_up(cols, 16);
    w.pl = w.pm + num_round_up(cols, 16);
    w.f = w.pl + num_round_up(cols, 16);
    w.kd = w.f + num_round_up(2 * cols, 16);
    w.vd = w.kd + KV_PAGE * a->d_k;
    return w;
}

/* Queries t0..t1 of a run and the heads of one KV head: column (t − t0) × group + g. */
static void attn_gather(const struct attn_job *j, const struct batch_run *r, size_t t0, size_t t1,
                        size_t h, float *q)
{
    size_t row = j->group * j->a->d_k;
    for (size_t t = t0; t < t1; t++)
        memcpy(q + (t - t0) * row, j->q.data + (r->row + t) * j->q.cols + h * row,
               row * sizeof(float));
}

void attn_decode_k(const struct quant_type *t, const uint8_t *rows, size_t seen, size_t dk,
                   float *kd, float *vd)
{
    for (size_t p = 0; p < seen; p++)
        t->decode(vd + p * dk, rows + p * dk / t->block * t->bytes, dk);
    for (size_t p = 0; p < seen; p += 16) {
        const float *src = vd + p * dk;
        float *dst = kd + p * dk;
        size_t n = num_min(16, seen - p);
        for (size_t d = 0; d < dk; d++)
            for (size_t i = 0; i < n; i++)
                dst[d * 16 + i] = src[i * dk + d];
    }
}

void attn_weights(const struct kern *kern, struct attn_work *w, size_t c, size_t n, size_t seen,
                  float scale)
{
    float *s = w->s + c * KV_PAGE;
    w->pm[c] = kern->softmax_part(s, n, scale, &w->pl[c]);
    for (size_t i = n; i < seen; i++)
        s[i] = 0;
}

/*
 * m, l, o of page `page` for the gathered columns, into w->pm, w->pl, w->o. Columns that see
 * nothing of the page get pl = 0 and pm = −∞.
 */
static void attn_page(const struct attn_job *j, const struct batch_run *r, size_t t0, size_t t1,
                      size_t h, size_t page, struct attn_work *w)
{
    const struct kern *kern = j->c->kern;
    size_t dk = j->a->d_k, dv = j->a->d_v, cols = (t1 - t0) * j->group;
    size_t first = page * KV_PAGE, seen = num_min(KV_PAGE, r->pos + t1 - first);
    const uint8_t *kp = kv_k(r->seq, page, j->a->layer, h);
    const uint8_t *vp = j->shape->latent ? NULL : kv_v(r->seq, page, j->a->layer, h);
    enum kern_float f = j->shape->type == QUANT_F16    ? KERN_F16
                        : j->shape->type == QUANT_BF16 ? KERN_BF16
                                                       : KERN_F32;
    size_t v_step = j->dv_pad;
    if (j->shape->latent || j->shape->type == QUANT_Q8_0) {
        const struct quant_type *t = quant_by_id(j->shape->type);
        attn_decode_k(t, kp, seen, dk, w->kd, w->vd);
        if (j->shape->latent)
            v_step = dk; /* the rows that attn_decode_k left */
        else
            for (size_t p = 0; p < seen; p++)
                t->decode(w->vd + p * j->dv_pad, vp + p * dv / t->block * t->bytes, dv);
        kp = (const uint8_t *)w->kd;
        vp = (const uint8_t *)w->vd;
        f = KERN_F32;
    }
    struct kern_tile tile = {.w = kp,
                             .panel_step = 16 * dk,
                             .k_step = 16,
                             .rows = seen,
                             .k = dk,
                             .x = w->q,
                             .ldx = dk,
                             .cols = cols,
                             .y = w->s,
                             .ldy = KV_PAGE};
    kern->tile[f](&tile);
    for (size_t c = 0; c < cols; c++) {
        size_t last = r->pos + t0 + c / j->group; /* position of the query */
        size_t n = last < first ? 0 : num_min(seen, last - first + 1);
        attn_weights(kern, w, c, n, seen, j->a->scale);
    }
    tile = (struct kern_tile){.w = vp,
                              .panel_step = 16,
                              .k_step = v_step,
                              .rows = dv,
                              .k = seen,
                              .x = w->s,
                              .ldx = KV_PAGE,
                              .cols = cols,
                              .y = w->o,
                              .ldy = dv};
    kern->tile[f](&tile);
}

void attn_fold(const struct kern *kern, struct attn_work *w, size_t cols, size_t dv,
               const float *pm, const float *pl, const float *o)
{
    float *a = w->f, *b = w->f + cols;
    for (size_t c = 0; c < cols; c++) {
        float top = w->m[c] > pm[c] ? w->m[c] : pm[c];
        a[c] = w->m[c] - top;
        b[c] = pm[c] - top;
    }
    kern->exp(w->f, w->f, 2 * cols);
    for (size_t c = 0; c < cols; c++) {
        if (pl[c] == 0 && pm[c] == -INFINITY)
            continue; /* the query does not see this page */
        kern->merge(w->acc + c * dv, a[c], o + c * dv, b[c], dv);
        w->l[c] = fmaf(w->l[c], a[c], pl[c] * b[c]);
        w->m[c] = w->m[c] > pm[c] ? w->m[c] : pm[c];
    }
}

void attn_start(struct attn_work *w, size_t cols, size_t dv)
{
    for (size_t c = 0; c < cols; c++) {
        w->m[c] = -INFINITY;
        w->l[c] = 0;
    }
    memset(w->acc, 0, cols * dv * sizeof(float));
}

static void attn_write(const struct attn_job *j, const struct batch_run *r, size_t t, size_t head,
                       const float *acc, float l)
{
    size_t dv = j->a->d_v;
    float *y = j->out.data + (r->row + t) * j->out.cols + head * dv, inv = 1 / l;
    for (size_t d = 0; d < dv; d++)
        y[d] = acc[d] * inv;
}

/* ---- tasks ------------------------------------------------------------------------------------
 */

static bool attn_split(const struct batch_run *r)
{
    return r->n <= ATTN_SPLIT;
}

static size_t attn_block(const struct attn_job *j)
{
    return num_max(1, ATTN_COLS / j->group);
}

static size_t attn_pages(const struct batch_run *r)
{
    return (r->pos + r->n + KV_PAGE - 1) / KV_PAGE;
}

/* Tasks of one KV head of a run. */
static size_t attn_tasks(const struct attn_job *j, const struct batch_run *r)
{
    if (attn_split(r))
        return (attn_pages(r) + ATTN_RANGE - 1) / ATTN_RANGE;
    return (r->n + attn_block(j) - 1) / attn_block(j);
}

/* A page's part of a split run: first m, l of all columns, then o. */
static float *attn_part(const struct attn_job *j, size_t run, size_t page, size_t h)
{
    const struct batch_run *r = &j->b->runs[run];
    size_t cols = r->n * j->group, per = cols * (j->a->d_v + 2);
    return j->part + (j->part0[run] * j->group * (j->a->d_v + 2)) +
           (page * j->a->n_kv_head + h) * per;
}

static void attn_chunk(void *arg, size_t chunk, int worker)
{
    const struct attn_job *j = arg;
    size_t run = 0;
    while (chunk >= j->task0[run + 1])
        run++;
    const struct batch_run *r = &j->b->runs[run];
    size_t per_head = attn_tasks(j, r), h = (chunk - j->task0[run]) / per_head;
    size_t part = (chunk - j->task0[run]) % per_head, dv = j->a->d_v;
    float *mem = j->scratch + (size_t)worker * j->scratch_floats;
    if (attn_split(r)) {
        size_t cols = r->n * j->group, end = num_min(attn_pages(r), (part + 1) * ATTN_RANGE);
        struct attn_work w = attn_work_at(j->a, cols, mem);
        attn_gather(j, r, 0, r->n, h, w.q);
        for (size_t p = part * ATTN_RANGE; p < end; p++) {
            float *out = attn_part(j, run, p, h);
            attn_page(j, r, 0, r->n, h, p, &w);
            memcpy(out, w.pm, cols * sizeof(float));
            memcpy(out + cols, w.pl, cols * sizeof(float));
            memcpy(out + 2 * cols, w.o, cols * dv * sizeof(float));
        }
        return;
    }
    /* Later blocks see more pages: taking them first lets the threads finish together. */
    size_t block = attn_block(j), t0 = (per_head - 1 - part) * block;
    size_t t1 = num_min(r->n, t0 + block), cols = (t1 - t0) * j->group;
    struct attn_work w = attn_work_at(j->a, cols, mem);
    attn_gather(j, r, t0, t1, h, w.q);
    attn_start(&w, cols, dv);
    for (size_t p = 0; p * KV_PAGE < r->pos + t1; p++) {
        attn_page(j, r, t0, t1, h, p, &w);
        attn_fold(j->c->kern, &w, cols, dv, w.pm, w.pl, w.o);
    }
    for (size_t c = 0; c < cols; c++)
        attn_write(j, r, t0 + c / j->group, h * j->group + c % j->group, w.acc + c * dv, w.l[c]);
}

/* Folds the parts of one split run and KV head. */
static void attn_finish(const struct attn_job *j, size_t run, size_t h)
{
    const struct batch_run *r = &j->b->runs[run];
    size_t cols = r->n * j->group, dv = j->a->d_v;
    struct attn_work w = attn_work_at(j->a, cols, j->scratch);
    attn_start(&w, cols, dv);
    for (size_t p = 0; p < attn_pages(r); p++) {
        const float *part = attn_part(j, run, p, h);
        attn_fold(j->c->kern, &w, cols, dv, part, part + cols, part + 2 * cols);
    }
    for (size_t c = 0; c < cols; c++)
        attn_write(j, r, c / j->group, h * j->group + c % j->group, w.acc + c * dv, w.l[c]);
}

struct tensor op_attention(struct op_ctx *c, struct tensor q, struct tensor k, struct tensor v,
                           const struct attention_args *a, const struct batch *b)
{
    struct tensor out = op_tensor(c, q.rows, a->n_head * a->d_v);
    struct attn_job j = {.c = c,
                         .a = a,
                         .b = b,
                         .q = q,
                         .k = k,
                         .v = v,
                         .out = out,
                         .group = a->n_head / a->n_kv_head,
                         .dv_pad = num_round_up(a->d_v, 16)};
    size_t mark = c->used, parts = 0, cols = 0;
    j.task0 = op_alloc(c, (b->n_runs + 1) * sizeof(size_t));
    j.part0 = op_alloc(c, (b->n_runs + 1) * sizeof(size_t));
    for (size_t i = 0; i < b->n_runs; i++) {
        const struct batch_run *r = &b->runs[i];
        cols = num_max(cols, (attn_split(r) ? r->n : num_min(r->n, attn_block(&j))) * j.group);
        if (!c->dry)
            j.part0[i] = parts;
        parts += attn_split(r) ? attn_pages(r) * a->n_kv_head * r->n : 0;
    }
    j.part = op_alloc(c, parts * j.group * (a->d_v + 2) * sizeof(float));
    j.scratch_floats = attn_work_floats(a, cols);
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (c->dry) {
        c->used = mark;
        return out;
    }
    j.shape = kv_pool_shape(b->runs[0].seq->pool);
    attn_store(c, k, v, a, b);
    j.task0[0] = 0;
    for (size_t i = 0; i < b->n_runs; i++)
        j.task0[i + 1] = j.task0[i] + attn_tasks(&j, &b->runs[i]) * a->n_kv_head;
    team_run(c->team, attn_chunk, &j, j.task0[b->n_runs]);
    for (size_t i = 0; i < b->n_runs; i++)
        for (size_t h = 0; attn_split(&b->runs[i]) && h < a->n_kv_head; h++)
            attn_finish(&j, i, h);
    op_record(c, &(struct op_record){.kind = OP_ATTENTION, .out = out, .in = {q, k, v}});
    c->used = mark;
    return out;
}
