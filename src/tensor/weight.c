/*
 * Weights: packing into panels at load, in parallel, one matrix at a time.
 *
 * Packing reads the mapped file once and writes the panels once. While a row's block is in cache
 * its scales are looked at: a NaN or infinity anywhere would spread silently through every later
 * answer, so it is refused here with the tensor's name and row.
 */
#include "tensor/weight.h"

#include "base/num.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { WEIGHT_HUGE = 2 << 20 };

int weight_store_init(struct weight_store *s, size_t bytes, struct err *e)
{
    size_t n;
    memset(s, 0, sizeof *s);
    if (!num_add(&n, bytes, 2 * (size_t)WEIGHT_HUGE))
        return err_set(e, ERR_LIMIT, "weights of %zu bytes do not fit into memory", bytes);
    void *m =
        mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m == MAP_FAILED)
        return err_nomem(e, n, "the weights");
    /* Give back what lies before the first 2 MiB boundary, so that huge pages fit from the start.
     */
    uint8_t *p = m;
    size_t skip = (size_t)WEIGHT_HUGE - ((uintptr_t)p & (WEIGHT_HUGE - 1));
    if (skip == WEIGHT_HUGE)
        skip = 0;
    if (skip)
        munmap(p, skip);
    s->mem = p + skip;
    s->cap = n - skip;
    (void)madvise(s->mem, s->cap / WEIGHT_HUGE * WEIGHT_HUGE, MADV_HUGEPAGE);
    return 0;
}

void weight_store_release(struct weight_store *s)
{
    if (s->mem)
        munmap(s->mem, s->cap);
    memset(s, 0, sizeof *s);
}

static void *store_take(struct weight_store *s, size_t bytes)
{
    size_t n = num_round_up(bytes, KERN_ALIGN);
    if (n < bytes || s->cap - s->used < n)
        return NULL;
    void *p = s->mem + s->used;
    s->used += n;
    return p;
}

size_t weight_matrix_bytes(const struct kern *k, const struct quant_type *t, size_t rows,
                           size_t cols)
{
    const struct kern_mul *m = &k->mul[t->id];
    if (m->act == KERN_ACT_NONE)
        return 0;
    return num_round_up(m->panel_bytes(cols), KERN_ALIGN) *
           (num_round_up(rows, KERN_ROWS) / KERN_ROWS);
}

size_t weight_vector_bytes(size_t n)
{
    return num_round_up(n * sizeof(float), KERN_ALIGN);
}

/* Where the fp16 scales of a block are; types without one (or without fp16) are not listed. */
static const struct {
    uint8_t id, n, at[2];
} weight_scales[] = {
    {QUANT_Q4_0, 1, {0, 0}},   {QUANT_Q4_1, 2, {0, 2}},    {QUANT_Q5_0, 1, {0, 0}},
    {QUANT_Q5_1, 2, {0, 2}},   {QUANT_Q8_0, 1, {0, 0}},    {QUANT_Q2_K, 2, {80, 82}},
    {QUANT_Q3_K, 1, {108, 0}}, {QUANT_Q4_K, 2, {0, 2}},    {QUANT_Q5_K, 2, {0, 2}},
    {QUANT_Q6_K, 1, {208, 0}}, {QUANT_IQ2_XXS, 1, {0, 0}}, {QUANT_IQ2_XS, 1, {0, 0}},
    {QUANT_IQ2_S, 1, {0, 0}},  {QUANT_IQ3_XXS, 1, {0, 0}}, {QUANT_IQ3_S, 1, {0, 0}},
    {QUANT_IQ1_S, 1, {0, 0}},  {QUANT_IQ4_NL, 1, {0, 0}},  {QUANT_IQ4_XS, 1, {0, 0}},
    {QUANT_F16, 1, {0, 0}},
};

static bool finite_f32(const uint8_t *p, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + 4 * i, 4);
        bad |= (v & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

/* 16-bit fields `step` bytes apart whose exponent is all ones under `mask`. */
static bool finite_u16(const uint8_t *p, size_t n, size_t step, uint16_t mask)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, p + step * i, 2);
        bad |= (v & mask) == mask;
    }
    return !bad;
}

static bool weight_finite(const struct quant_type *t, const uint8_t *row, size_t cols)
{
    if (t->id == QUANT_F32)
        return finite_f32(row, cols);
    if (t->id == QUANT_BF16)
        return finite_u16(row, cols, 2, 0x7f80);
    for (size_t i = 0; i < NUM_COUNT(weight_scales); i++)
        if (weight_scales[i].id == t->id)
            for (int j = 0; j < weight_scales[i].n; j++)
                if (!finite_u16(row + weight_scales[i].at[j], cols / t->block, t->bytes, 0x7c00))
                    return false;
    return true;
}

enum { PACK_PANELS = 4 }; /* panels a chunk: 64 rows */

struct pack_job {
    struct weight *w;
    uint8_t *dst;
    const struct kern_mul *mul;
    _Atomic size_t bad_row; /* row + 1 of one that is not finite, 0 = none */
};

static void pack_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct pack_job *j = arg;
    const struct weight *w = j->w;
    size_t r0 = chunk * PACK_PANELS * KERN_ROWS;
    size_t r1 = num_min(w->rows, r0 + PACK_PANELS * KERN_ROWS);
    for (size_t r = r0; r < r1; r++)
        if (!weight_finite(w->type, w->raw + r * w->raw_stride, w->cols))
            atomic_store_explicit(&j->bad_row, r + 1, memory_order_relaxed);
    if (!j->dst)
        return;
    for (size_t r = r0; r < r1; r += KERN_ROWS)
        j->mul->pack(j->dst + r / KERN_ROWS * w->panel_bytes, w->raw + r * w->raw_stride,
                     w->raw_stride, num_min(KERN_ROWS, r1 - r), w->cols);
}

int weight_matrix(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const uint8_t *data, const struct kern *k, struct team *team,
                  struct weight_store *store, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->name = name;
    w->type = t;
    w->rows = rows;
    w->cols = cols;
    w->raw = data;
    if (!quant_size(t, cols, &w->raw_stride))
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": rows of %zu values are no multiple of %s's block of %u",
                       name, cols, t->name, t->block);
    struct pack_job j = {.w = w, .mul = &k->mul[t->id]};
    if (j.mul->act != KERN_ACT_NONE) {
        w->panel_bytes = j.mul->panel_bytes(cols);
        j.dst = store_take(store, weight_matrix_bytes(k, t, rows, cols));
        if (!j.dst)
            return err_nomem(e, weight_matrix_bytes(k, t, rows, cols), name);
    }
    size_t per = (size_t)PACK_PANELS * KERN_ROWS;
    team_run(team, pack_chunk, &j, (rows + per - 1) / per);
    size_t bad = atomic_load(&j.bad_row);
    if (bad)
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\", row %zu: a weight is NaN or infinite; the file is damaged, "
                       "get it again",
                       name, bad - 1);
    w->panels = j.dst;
    return 0;
}

int weight_vector(struct weight *w, const char *name, const struct quant_type *t, size_t n,
                  const uint8_t *data, struct weight_store *store, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->name = name;
    w->type = t;
    w->rows = 1;
    w->cols = n;
    float *v = store_take(store, weight_vector_bytes(n));
    if (!v)
        return err_nomem(e, weight_vector_bytes(n), name);
    if (!quant_size(t, n, &w->raw_stride))
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": %zu values are no multiple of %s's block of %u", name, n,
                       t->name, t->block);
    t->decode(v, data, n);
    if (!finite_f32((const uint8_t *)v, n))
        return err_set(
            e, ERR_FORMAT,
            "tensor \"%s\": a weight is NaN or infinite; the file is damaged, get it again", name);
    w->raw = data;
    w->vec = v;
    return 0;
}

void weight_row(const struct weight *w, size_t row, float *out)
{
    w->type->decode(out, w->raw + row * w->raw_stride, w->cols);
}
