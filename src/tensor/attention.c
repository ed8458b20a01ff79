/*
 * Causal attention over paged keys and values, for GQA, MHA, MQA and latents.
 *
 * Definition, for one query and one head (Milakov and Gimelshein, "Online normalizer calculation
 * for softmax", 2018; Dao et al., "FlashAttention", 2022): the context is cut into pages of 64
 * positions, fixed from position 0, and into stretches of 4 pages. A page gives m = max of the
 * scaled scores, p = exp(s − m), l = Σ p and o = Σ p v (ascending position). Two such results are
 * folded by m' = max(m, mᵢ);  l' = l·e^(m−m') + lᵢ·e^(mᵢ−m');  o likewise: the pages of a stretch
 * in ascending order, starting with its first, then the stretches in ascending order. The result is
 * o / l. Nothing in this depends on which other queries are computed beside it, how the prompt was
 * cut, or which thread does it: the bits of a token are the same always.
 *
 * Columns of the two small matrix products of a page (scores = K q, whose rows are positions, and
 * o = Vᵀ p, whose rows are value elements) are queries of heads that share a KV head: a slice.
 * Prompts: a task is a slice of about 64 columns, which walks the pages. Decoding: few queries,
 * many pages, so a task is a slice and a stretch, and leaves (m, l, o). Slices are cut smaller
 * while stretches are fewer than threads want. Tasks of the same rows of the result (a *unit*: a
 * block of queries of a prompt, or a run that decodes) are counted: whoever finishes the last of
 * them folds what stretches left, in ascending order, and prepares the rows for the product that
 * reads them.
 *
 * All of it is one region: its first stage norms, rotates and stores keys and values.
 */
#include "base/num.h"
#include "tensor/attention_impl.h"
#include "tensor/linear_impl.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum {
    ATTN_COLS = 64,   /* columns of a slice of a prompt, at least one query of a head */
    ATTN_SPLIT = 4,   /* queries of a run up to which stretches are tasks */
    ATTN_STRETCH = 4, /* pages */
    ATTN_HEADS = 4,   /* heads that a slice of a split run has at least */
    ATTN_STORE = 32,  /* tokens of a storing task */
    ATTN_ALONE = 8,   /* tokens up to which storing is not worth waking anybody */
};

struct attn_job {
    const struct op_ctx *c;
    const struct attention_args *a;
    const struct batch *b;
    struct tensor q, k, v, out;
    const struct kv_shape *shape;
    size_t group;  /* query heads of a KV head */
    size_t dv_pad; /* row of V in elements (float types) */
    size_t *task0; /* (n_runs + 1) first task of each run */
    size_t *part0; /* (n_runs + 1) first column of results of each run, over its stretches */
    float *part;   /* results of stretches: (columns, d_v + 2), those of a slice by attn_part */
    size_t *unit0; /* (n_runs) first unit of each run */
    _Atomic uint32_t *left;   /* (units) tasks that are not finished */
    const struct linear_x *x; /* NULL, or where the result goes in `forms` */
    unsigned forms;
    float *scratch; /* per worker: a slice's, then what rounding leaves of a row */
    size_t scratch_floats, rest;
};

/* Queries [t0, t1) of a run and heads [g0, g1) of a KV head: column (t − t0) × (g1 − g0) + g − g0.
 */
struct attn_slice {
    const struct batch_run *r;
    size_t t0, t1, h, g0, g1;
};

/* ---- storing -------------------------------------------------------------------------------- */

/* Float types of one byte. */
static bool attn_byte(enum quant_id type)
{
    return type == QUANT_E4M3 || type == QUANT_E5M2;
}

/* n values to elements `at`… of a float type. */
static void attn_convert(const struct kern *kern, enum quant_id type, void *to, size_t at,
                         const float *x, size_t n)
{
    if (type == QUANT_F32)
        memcpy((float *)to + at, x, n * sizeof *x);
    else if (attn_byte(type))
        for (size_t i = 0; i < n; i++) { /* beyond them there is only NaN, or infinity */
            float most = type == QUANT_E4M3 ? 448 : 57344;
            float v = x[i] > most ? most : x[i] < -most ? -most : x[i];
            ((uint8_t *)to)[at + i] =
                type == QUANT_E4M3 ? quant_f32_to_e4m3(v) : quant_f32_to_e5m2(v);
        }
    else
        (type == QUANT_F16 ? kern->f32_to_f16 : kern->f32_to_bf16)((uint16_t *)to + at, x, n);
}

/* One head's key and value of one position into its page. */
static void attn_store_one(const struct attn_job *j, const struct batch_run *r, size_t t, size_t h)
{
    const struct kern *kern = j->c->kern;
    size_t dk = j->a->d_k, dv = j->a->d_v, pos = r->pos + t, at = pos % KV_PAGE;
    const float *k = j->k.data + (r->row + t) * j->k.cols + h * dk;
    const float *v = j->shape->latent ? NULL : j->v.data + (r->row + t) * j->v.cols + h * dv;
    const struct quant_type *type = quant_by_id(j->shape->type);
    uint8_t *kp = kv_k(r->seq, pos / KV_PAGE, j->a->layer, h);
    if (type->id == QUANT_Q8_0) {
        struct kern_page_shape ks = kv_int8_k(j->shape), vs = kv_int8_v(j->shape);
        kv_int8_store(kern, &ks, kp, at, k);
        if (v)
            kv_int8_store(kern, &vs, kv_v(r->seq, pos / KV_PAGE, j->a->layer, h), at, v);
        return;
    }
    uint16_t tmp[64];
    for (size_t d = 0; d < dk; d += 64) {
        size_t n = num_min(64, dk - d);
        if (j->shape->latent) {
            attn_convert(kern, type->id, kp, at * dk + d, k + d, n);
        } else if (type->id == QUANT_F32) {
            for (size_t i = 0; i < n; i++)
                ((float *)(void *)kp)[(d + i) * KV_PAGE + at] = k[d + i];
        } else {
            attn_convert(kern, type->id, tmp, 0, k + d, n);
            for (size_t i = 0; i < n; i++)
                if (attn_byte(type->id))
                    kp[(d + i) * KV_PAGE + at] = ((const uint8_t *)tmp)[i];
                else
                    ((uint16_t *)(void *)kp)[(d + i) * KV_PAGE + at] = tmp[i];
        }
    }
    if (v)
        attn_convert(kern, type->id, kv_v(r->seq, pos / KV_PAGE, j->a->layer, h), at * j->dv_pad, v,
                     dv);
}

/* What the arguments want done with row `row` of q and k. */
static void attn_turn(const struct attn_job *j, size_t row)
{
    const struct attention_args *a = j->a;
    const struct kern *kern = j->c->kern;
    const float *cs = a->rope.data + row * a->rope.cols;
    float *q = j->q.data + row * j->q.cols, *k = j->k.data + row * j->k.cols;
    if (a->latent_norm) {
        kern->rmsnorm(k, k, a->latent_norm->vec, a->latent_norm->cols, a->eps);
        kern->rope(k + a->latent_norm->cols, cs, a->rope.cols, a->half);
        return;
    }
    for (size_t h = 0; h < a->n_head + a->n_kv_head; h++) {
        bool key = h >= a->n_head;
        float *x = key ? k + (h - a->n_head) * a->d_k : q + h * a->d_k;
        const struct weight *norm = key ? a->k_norm : a->q_norm;
        if (norm)
            kern->rmsnorm(x, x, norm->vec, a->d_k, a->eps);
        kern->rope(x, cs, a->rope.cols, a->half);
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
        for (size_t t = t0; t < t1; t++) {
            if (j->a->rope.cols)
                attn_turn(j, r->row + t);
            for (size_t h = 0; h < j->a->n_kv_head; h++)
                attn_store_one(j, r, t, h);
        }
    }
}

/* Storing, in one piece where waking others is not worth it. */
static struct team_work attn_store_work(struct attn_job *j)
{
    size_t n = j->b->n <= ATTN_ALONE ? 1 : (j->b->n + ATTN_STORE - 1) / ATTN_STORE;
    return (struct team_work){attn_store_chunk, j, n, false};
}

void attn_store(struct op_ctx *c, struct tensor k, struct tensor v, const struct attention_args *a,
                const struct batch *b)
{
    struct attn_job j = {
        .c = c, .a = a, .b = b, .k = k, .v = v, .shape = kv_pool_shape(b->runs[0].seq->pool)};
    j.dv_pad = num_round_up(a->d_v, 16);
    struct team_work w = attn_store_work(&j);
    team_run(c->team, w.fn, w.arg, w.chunks);
}

/* ---- one page -------------------------------------------------------------------------------- */

static bool attn_int8(const struct attn_job *j)
{
    return j->shape->type == QUANT_Q8_0;
}

static size_t attn_work_floats(const struct attention_args *a, size_t cols)
{
    return num_round_up(cols * (a->d_k + KV_PAGE + 3 * a->d_v + 8) + 16 * 11, 16) +
           num_round_up(kv_int8_floats(a->d_k, cols), 16) +
           KV_PAGE / 2 * num_max(a->d_k, num_round_up(a->d_v, 16)) + 16;
}

static struct attn_work attn_work_at(const struct attention_args *a, size_t cols, float *p)
{
    struct attn_work w;
    size_t n = num_round_up(cols, 16), o = num_round_up(cols * a->d_v, 16);
    w.q = p;
    w.s = w.q + num_round_up(cols * a->d_k, 16);
    w.o = w.s + cols * KV_PAGE;
    w.acc = w.o + o;
    w.sum = w.acc + o;
    w.m = w.sum + o;
    w.l = w.m + n;
    w.pm = w.l + n;
    w.pl = w.pm + n;
    w.sm = w.pl + n;
    w.sl = w.sm + n;
    w.f = w.sl + n;
    w.int8 = w.f + num_round_up(2 * cols, 16);
    w.half = (uint16_t *)(w.int8 + num_round_up(kv_int8_floats(a->d_k, cols), 16));
    return w;
}

static size_t attn_slice_cols(const struct attn_slice *s)
{
    return (s->t1 - s->t0) * (s->g1 - s->g0);
}

/* Queries of the slice: as they are, or in int8. */
static void attn_gather(const struct attn_job *j, const struct attn_slice *s, struct attn_work *w)
{
    size_t dk = j->a->d_k, heads = s->g1 - s->g0;
    if (attn_int8(j))
        kv_int8_place(&w->cols, j->shape, attn_slice_cols(s), w->int8);
    for (size_t t = s->t0; t < s->t1; t++) {
        const float *q = j->q.data + (s->r->row + t) * j->q.cols + (s->h * j->group + s->g0) * dk;
        size_t c = (t - s->t0) * heads;
        if (!attn_int8(j))
            memcpy(w->q + c * dk, q, heads * dk * sizeof(float));
        else
            for (size_t g = 0; g < heads; g++)
                kv_int8_query(j->c->kern, &w->cols, c + g, q + g * dk);
    }
}

float attn_weights(const struct kern *kern, float *s, size_t n, size_t seen, float scale,
                   float *sum)
{
    float m = kern->softmax_part(s, n, scale, sum);
    for (size_t i = n; i < seen; i++)
        s[i] = 0;
    return m;
}

static enum kern_float attn_float(enum quant_id type)
{
    return type == QUANT_F16 || attn_byte(type) ? KERN_F16
           : type == QUANT_BF16                 ? KERN_BF16
                                                : KERN_F32;
}

static size_t attn_pages(size_t tokens)
{
    return (tokens + KV_PAGE - 1) / KV_PAGE;
}

static size_t attn_stretches(size_t tokens)
{
    return (attn_pages(tokens) + ATTN_STRETCH - 1) / ATTN_STRETCH;
}

/* A page of bytes as halves, of other types as it is. `n`: its values that are read. */
static const void *attn_floats(const struct attn_job *j, const uint8_t *page, size_t n,
                               struct attn_work *w)
{
    if (!attn_byte(j->shape->type))
        return page;
    if (j->shape->type == QUANT_E4M3)
        j->c->kern->e4m3_to_f16(w->half, page, n);
    else /* e5m2 is the upper byte of a half */
        for (size_t i = 0; i < n; i++)
            w->half[i] = (uint16_t)(page[i] << 8);
    return w->half;
}

/* Scores of the gathered columns with the first `seen` positions of a page, into w->s. */
static void attn_scores(const struct attn_job *j, const uint8_t *page, const uint8_t *ahead,
                        size_t seen, size_t cols, struct attn_work *w)
{
    const struct kern *kern = j->c->kern;
    size_t dk = j->a->d_k;
    enum kern_float f = attn_float(j->shape->type);
    if (attn_int8(j)) {
        kv_int8_scores(kern, &w->cols, page, ahead, w->s);
    } else if (j->shape->latent) { /* by position */
        kern->dots[f](&(struct kern_dots){attn_floats(j, page, seen * dk, w), ahead, dk, seen, dk,
                                          w->q, dk, cols, w->s, KV_PAGE});
    } else {
        kern->tile[f](&(struct kern_tile){attn_floats(j, page, KV_PAGE * dk, w), ahead, 16, KV_PAGE,
                                          seen, dk, w->q, dk, cols, w->s, KV_PAGE});
    }
}

/* Values of the page by the weights in w->s, into o. */
static void attn_values(const struct attn_job *j, const uint8_t *page, const uint8_t *ahead,
                        size_t seen, size_t cols, struct attn_work *w, float *o)
{
    bool latent = j->shape->latent;
    size_t dv = j->a->d_v, step = latent ? j->a->d_k : j->dv_pad;
    /* Latents of bytes are there from attn_scores. */
    const void *v =
        latent && attn_byte(j->shape->type) ? w->half : attn_floats(j, page, seen * step, w);
    j->c->kern->tile[attn_float(j->shape->type)](
        &(struct kern_tile){v, ahead, 16, step, dv, seen, w->s, KV_PAGE, cols, o, dv});
}

/*
 * m, l, o of page `page` for the gathered columns. Columns that see nothing of the page get l = 0
 * and m = −∞. `ahead`: the keys that come next, or NULL.
 */
static void attn_page(const struct attn_job *j, const struct attn_slice *s, size_t page,
                      const uint8_t *ahead, struct attn_work *w, float *m, float *l, float *o)
{
    const struct batch_run *r = s->r;
    size_t cols = attn_slice_cols(s), heads = s->g1 - s->g0;
    size_t first = page * KV_PAGE, seen = num_min(KV_PAGE, r->pos + s->t1 - first);
    bool int8 = attn_int8(j);
    float unit = j->shape->type == QUANT_E4M3 ? 256 : 1; /* of a half as e4m3_to_f16 leaves it */
    const uint8_t *k = kv_k(r->seq, page, j->a->layer, s->h), *v = k;
    if (!j->shape->latent)
        v = kv_v(r->seq, page, j->a->layer, s->h);
    attn_scores(j, k, j->shape->latent ? ahead : v, seen, cols, w);
    for (size_t c = 0; c < cols; c++) {
        size_t last = r->pos + s->t0 + c / heads; /* position of the query */
        size_t n = last < first ? 0 : num_min(seen, last - first + 1);
        float *p = w->s + c * KV_PAGE;
        m[c] = attn_weights(j->c->kern, p, n, int8 ? KV_PAGE : seen, j->a->scale * unit, &l[c]);
        for (size_t i = 0; unit != 1 && i < seen; i++)
            p[i] *= unit;
    }
    if (int8) {
        kv_int8_values(j->c->kern, &w->cols, v, j->shape->latent ? NULL : ahead, w->s, l, o);
        return;
    }
    attn_values(j, v, j->shape->latent ? NULL : ahead, seen, cols, w, o);
}

/* A stretch's m, l, o into w->m, w->l, w->acc. `ahead`: the keys after it, or NULL. */
static void attn_stretch(const struct attn_job *j, const struct attn_slice *s, size_t stretch,
                         const uint8_t *ahead, struct attn_work *w)
{
    size_t first = stretch * ATTN_STRETCH;
    size_t end = num_min(attn_pages(s->r->pos + s->t1), first + ATTN_STRETCH);
    for (size_t p = first; p < end; p++) {
        const uint8_t *next = p + 1 < end ? kv_k(s->r->seq, p + 1, j->a->layer, s->h) : ahead;
        if (p == first) {
            attn_page(j, s, p, next, w, w->m, w->l, w->acc);
            continue;
        }
        attn_page(j, s, p, next, w, w->pm, w->pl, w->o);
        attn_fold(j->c->kern, w->f, attn_slice_cols(s), j->a->d_v, w->m, w->l, w->acc, w->pm, w->pl,
                  w->o);
    }
}

void attn_fold(const struct kern *kern, float *f, size_t cols, size_t dv, float *m, float *l,
               float *acc, const float *pm, const float *pl, const float *o)
{
    float *a = f, *b = f + cols;
    for (size_t c = 0; c < cols; c++) {
        float top = m[c] > pm[c] ? m[c] : pm[c];
        a[c] = m[c] - top;
        b[c] = pm[c] - top;
    }
    kern->exp(f, f, 2 * cols);
    for (size_t c = 0; c < cols; c++) {
        if (pl[c] == 0 && pm[c] == -INFINITY)
            continue; /* the query does not see this page */
        kern->merge(acc + c * dv, a[c], o + c * dv, b[c], dv);
        l[c] = fmaf(l[c], a[c], pl[c] * b[c]);
        m[c] = m[c] > pm[c] ? m[c] : pm[c];
    }
}

void attn_result(float *y, const float *acc, float l, size_t dv)
{
    float inv = 1 / l;
    for (size_t d = 0; d < dv; d++)
        y[d] = acc[d] * inv;
}

static void attn_write(const struct attn_job *j, const struct attn_slice *s, const float *acc,
                       const float *l)
{
    size_t heads = s->g1 - s->g0, dv = j->a->d_v;
    for (size_t c = 0; c < attn_slice_cols(s); c++) {
        size_t row = s->r->row + s->t0 + c / heads, head = s->h * j->group + s->g0 + c % heads;
        attn_result(j->out.data + row * j->out.cols + head * dv, acc + c * dv, l[c], dv);
    }
}

/* ---- tasks ------------------------------------------------------------------------------------
 */

static bool attn_split(const struct batch_run *r)
{
    return r->n <= ATTN_SPLIT;
}

/* Into how many slices the heads of a KV head are cut. */
static size_t attn_cuts(const struct attn_job *j, const struct batch_run *r)
{
    if (!attn_split(r))
        return (j->group + ATTN_COLS - 1) / ATTN_COLS;
    size_t threads = (size_t)team_threads(j->c->team), have = attn_stretches(r->pos + r->n);
    size_t want = threads == 1 ? 1 : 4 * threads / (have * j->a->n_kv_head);
    size_t least = (j->group * r->n + ATTN_COLS - 1) / ATTN_COLS;
    size_t most = num_max(1, j->group / ATTN_HEADS);
    return num_min(num_max(num_max(want, 1), least), most);
}

/* Queries of a slice. */
static size_t attn_queries(const struct attn_job *j, const struct batch_run *r)
{
    return attn_split(r) ? r->n : num_max(1, ATTN_COLS / j->group);
}

/* Parts of the result that a run's tasks make together: the run, or a block of its queries. */
static size_t attn_units(const struct attn_job *j, const struct batch_run *r)
{
    return attn_split(r) ? 1 : (r->n + attn_queries(j, r) - 1) / attn_queries(j, r);
}

/* Tasks of a run: for each stretch or block of queries, each KV head, each cut of its heads. */
static size_t attn_tasks(const struct attn_job *j, const struct batch_run *r)
{
    size_t outer = attn_split(r) ? attn_stretches(r->pos + r->n) : attn_units(j, r);
    return outer * j->a->n_kv_head * attn_cuts(j, r);
}

/* Slice i of a block of queries that begins with t0. */
static struct attn_slice attn_slice_at(const struct attn_job *j, const struct batch_run *r,
                                       size_t t0, size_t i)
{
    size_t cuts = attn_cuts(j, r), cut = i % cuts;
    return (struct attn_slice){.r = r,
                               .t0 = t0,
                               .t1 = num_min(r->n, t0 + attn_queries(j, r)),
                               .h = i / cuts,
                               .g0 = j->group * cut / cuts,
                               .g1 = j->group * (cut + 1) / cuts};
}

/* Results of a stretch for a slice of a split run: m and l of its columns, then o. */
static float *attn_part(const struct attn_job *j, const struct attn_slice *s, size_t stretch)
{
    size_t first = (stretch * j->a->n_head + s->h * j->group + s->g0) * s->r->n;
    return j->part + (j->part0[s->r - j->b->runs] + first) * (j->a->d_v + 2);
}

/* Keys of the task that this thread will probably take after task `task` of a split run. */
static const uint8_t *attn_next(const struct attn_job *j, const struct batch_run *r, size_t task)
{
    size_t slices = j->a->n_kv_head * attn_cuts(j, r);
    task += (size_t)team_threads(j->c->team);
    if (task >= attn_tasks(j, r))
        return NULL;
    return kv_k(r->seq, task / slices * ATTN_STRETCH, j->a->layer, task % slices / attn_cuts(j, r));
}

/* Folds what the tasks of a split run left for slice i. */
static void attn_finish(const struct attn_job *j, const struct batch_run *r, size_t i, float *f)
{
    struct attn_slice s = attn_slice_at(j, r, 0, i);
    size_t cols = attn_slice_cols(&s), dv = j->a->d_v;
    float *sum = attn_part(j, &s, 0);
    for (size_t p = 1; p < attn_stretches(r->pos + r->n); p++) {
        const float *part = attn_part(j, &s, p);
        attn_fold(j->c->kern, f, cols, dv, sum, sum + cols, sum + 2 * cols, part, part + cols,
                  part + 2 * cols);
    }
    attn_write(j, &s, sum + 2 * cols, sum + cols);
}

/* A task of the unit is done; the last one ends it. */
static void attn_unit(const struct attn_job *j, const struct attn_slice *s, size_t unit, float *mem)
{
    const struct batch_run *r = s->r;
    if (atomic_fetch_sub_explicit(&j->left[j->unit0[r - j->b->runs] + unit], 1,
                                  memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; attn_split(r) && i < j->a->n_kv_head * attn_cuts(j, r); i++)
        attn_finish(j, r, i, mem);
    size_t row = r->row + s->t0;
    if (j->x)
        linear_fill(j->c->kern, j->x, j->forms, j->out.data + row * j->out.cols, j->out.cols, row,
                    s->t1 - s->t0, 0, j->out.cols, mem + j->rest);
}

static void attn_task(void *arg, size_t chunk, int worker)
{
    const struct attn_job *j = arg;
    size_t run = 0;
    while (chunk >= j->task0[run + 1])
        run++;
    const struct batch_run *r = &j->b->runs[run];
    size_t slices = j->a->n_kv_head * attn_cuts(j, r), outer = (chunk - j->task0[run]) / slices;
    size_t i = (chunk - j->task0[run]) % slices, dv = j->a->d_v;
    float *mem = j->scratch + (size_t)worker * j->scratch_floats;
    if (attn_split(r)) {
        struct attn_slice s = attn_slice_at(j, r, 0, i);
        size_t cols = attn_slice_cols(&s);
        struct attn_work w = attn_work_at(j->a, cols, mem);
        attn_gather(j, &s, &w);
        w.m = attn_part(j, &s, outer);
        w.l = w.m + cols;
        w.acc = w.l + cols;
        attn_stretch(j, &s, outer, attn_next(j, r, chunk - j->task0[run]), &w);
        attn_unit(j, &s, 0, mem);
        return;
    }
    /* Later blocks see more pages: taking them first lets the threads finish together. */
    size_t blocks = (j->task0[run + 1] - j->task0[run]) / slices;
    struct attn_slice s = attn_slice_at(j, r, (blocks - 1 - outer) * attn_queries(j, r), i);
    size_t cols = attn_slice_cols(&s), end = attn_stretches(r->pos + s.t1);
    struct attn_work w = attn_work_at(j->a, cols, mem), first;
    attn_gather(j, &s, &w);
    first = w;
    first.m = w.sm;
    first.l = w.sl;
    first.acc = w.sum;
    attn_stretch(j, &s, 0, NULL, &first);
    for (size_t p = 1; p < end; p++) {
        attn_stretch(j, &s, p, NULL, &w);
        attn_fold(j->c->kern, w.f, cols, dv, w.sm, w.sl, w.sum, w.m, w.l, w.acc);
    }
    attn_write(j, &s, w.sum, w.sl);
    attn_unit(j, &s, outer, mem);
}

/* The whole job, its result in j->out; in a dry run its memory. */
static void attn_run(struct op_ctx *c, struct attn_job *j)
{
    const struct attention_args *a = j->a;
    const struct batch *b = j->b;
    size_t parts = 0, cols = 0, units = 0;
    j->c = c;
    j->group = a->n_head / a->n_kv_head;
    j->dv_pad = num_round_up(a->d_v, 16);
    j->task0 = op_alloc(c, (b->n_runs + 1) * sizeof(size_t));
    j->part0 = op_alloc(c, (b->n_runs + 1) * sizeof(size_t));
    j->unit0 = op_alloc(c, b->n_runs * sizeof(size_t));
    for (size_t i = 0; i < b->n_runs; i++) {
        const struct batch_run *r = &b->runs[i];
        cols = num_max(cols, num_min(r->n, attn_queries(j, r)) * j->group);
        if (!c->dry) {
            j->part0[i] = parts;
            j->unit0[i] = units;
        }
        parts += attn_split(r) ? attn_stretches(r->pos + r->n) * a->n_head * r->n : 0;
        units += attn_units(j, r);
    }
    j->part = op_alloc(c, parts * (a->d_v + 2) * sizeof(float));
    j->left = op_alloc(c, units * sizeof *j->left);
    j->rest = attn_work_floats(a, cols);
    j->scratch_floats = j->rest + (c->fine ? num_round_up(j->out.cols, 16) : 0);
    j->scratch = op_alloc(c, j->scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (c->dry)
        return;
    j->shape = kv_pool_shape(b->runs[0].seq->pool);
    j->task0[0] = 0;
    for (size_t i = 0; i < b->n_runs; i++) {
        size_t tasks = attn_tasks(j, &b->runs[i]), n = attn_units(j, &b->runs[i]);
        j->task0[i + 1] = j->task0[i] + tasks;
        for (size_t u = 0; u < n; u++)
            atomic_init(&j->left[j->unit0[i] + u], (uint32_t)(tasks / n));
    }
    struct team_work store = attn_store_work(j), tasks = {attn_task, j, j->task0[b->n_runs], false};
    team_run_after(c->team, &store, &tasks);
}

/* With a tape, norms and turns are ops of their own. */
static void attn_apart(struct op_ctx *c, struct tensor *q, struct tensor *k,
                       const struct attention_args *a)
{
    if (a->latent_norm) {
        *k = op_latent(c, *k, a->latent_norm, a->eps, a->rope, a->half);
        return;
    }
    if (a->q_norm)
        *q = op_head_norm(c, *q, a->n_head, a->q_norm, a->eps);
    if (a->k_norm)
        *k = op_head_norm(c, *k, a->n_kv_head, a->k_norm, a->eps);
    *q = op_rope(c, *q, a->n_head, 0, a->rope, a->half);
    *k = op_rope(c, *k, a->n_kv_head, 0, a->rope, a->half);
}

struct tensor op_attention(struct op_ctx *c, struct tensor q, struct tensor k, struct tensor v,
                           const struct attention_args *a, const struct batch *b)
{
    struct attention_args plain = *a;
    if (a->rope.cols && c->tape) {
        attn_apart(c, &q, &k, a);
        plain.rope.cols = 0;
    }
    struct tensor out = op_tensor(c, q.rows, a->n_head * a->d_v);
    size_t mark = c->used;
    attn_run(c, &(struct attn_job){.a = &plain, .b = b, .q = q, .k = k, .v = v, .out = out});
    if (!c->dry)
        op_record(c, &(struct op_record){.kind = OP_ATTENTION,
                                         .out = out,
                                         .in = {q, k, v},
                                         .attention = &plain,
                                         .batch = b});
    c->used = mark;
    return out;
}

struct tensor op_attention_add(struct op_ctx *c, struct tensor x, struct tensor q, struct tensor k,
                               struct tensor v, const struct attention_args *a,
                               const struct batch *b, const struct weight *w,
                               const struct weight *bias)
{
    size_t mark = c->used, apart = mark;
    if (!linear_fuses(c, 1, &w) || c->dry) {
        struct tensor y = op_linear_add(c, x, op_attention(c, q, k, v, a, b), w, bias);
        if (!linear_fuses(c, 1, &w))
            return y;
        apart = c->used;
        c->used = mark;
    }
    struct linear_x in;
    struct attn_job j = {.a = a, .b = b, .q = q, .k = k, .v = v, .x = &in};
    j.out = op_tensor(c, q.rows, a->n_head * a->d_v);
    j.forms = linear_form(c->kern, w, c->fine);
    linear_place(c, &in, j.out.data, j.out.cols, j.out.cols, j.out.rows, j.forms);
    attn_run(c, &j);
    linear_sum(c, &in, NULL, w, bias, x, NULL);
    c->used = num_max(mark, apart);
    return x;
}
