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

/* Where the fp16 scales of a block are; types without one (or without fp16) are not listed: their
   checks follow in weight_finite. */
static const struct {
    uint8_t id, n, at[2];
} weight_scales[] = {
    {QUANT_Q4_0, 1, {0, 0}},   {QUANT_Q4_1, 2, {0, 2}},    {QUANT_Q5_0, 1, {0, 0}},
    {QUANT_Q5_1, 2, {0, 2}},   {QUANT_Q8_0, 1, {0, 0}},    {QUANT_Q2_K, 2, {80, 82}},
    {QUANT_Q3_K, 1, {108, 0}}, {QUANT_Q4_K, 2, {0, 2}},    {QUANT_Q5_K, 2, {0, 2}},
    {QUANT_Q6_K, 1, {208, 0}}, {QUANT_IQ2_XXS, 1, {0, 0}}, {QUANT_IQ2_XS, 1, {0, 0}},
    {QUANT_IQ2_S, 1, {0, 0}},  {QUANT_IQ3_XXS, 1, {0, 0}}, {QUANT_IQ3_S, 1, {0, 0}},
    {QUANT_IQ1_S, 1, {0, 0}},  {QUANT_IQ4_NL, 1, {0, 0}},  {QUANT_IQ4_XS, 1, {0, 0}},
    {QUANT_F16, 1, {0, 0}},    {QUANT_Q4Z, 2, {0, 2}},     {QUANT_Q8Z, 2, {0, 2}},
};

/* Floats `step` bytes apart. */
static bool finite_f32(const uint8_t *p, size_t n, size_t step)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t v;
        memcpy(&v, p + step * i, 4);
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

/* Bytes that have all bits of `mask`: NaN codes of e4m3, infinities and NaN of e5m2. */
static bool finite_u8(const uint8_t *p, size_t n, uint8_t mask)
{
    uint8_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= (p[i] & mask) == mask;
    return !bad;
}

static bool weight_finite(const struct quant_type *t, const uint8_t *row, size_t cols)
{
    size_t blocks = (cols + t->block - 1) / t->block;
    switch (t->id) {
    case QUANT_F32:
        return finite_f32(row, cols, 4);
    case QUANT_BF16:
        return finite_u16(row, cols, 2, 0x7f80);
    case QUANT_E4M3:
        return finite_u8(row, cols, 0x7f);
    case QUANT_E5M2:
        return finite_u8(row, cols, 0x7c);
    case QUANT_FP8: /* { float d; codes } */
        for (size_t i = 0; i < blocks; i++)
            if (!finite_u8(row + i * t->bytes + 4, t->block, 0x7f))
                return false;
        return finite_f32(row, blocks, t->bytes);
    case QUANT_I8:
    case QUANT_NF4:
    case QUANT_FP4:
        return finite_f32(row, blocks, t->bytes);
    default:
        break;
    }
    for (size_t i = 0; i < NUM_COUNT(weight_scales); i++)
        if (weight_scales[i].id == t->id)
            for (int j = 0; j < weight_scales[i].n; j++)
                if (!finite_u16(row + weight_scales[i].at[j], blocks, t->bytes, 0x7c00))
                    return false;
    return true;
}

bool weight_has_kernel(const struct kern *k, const struct quant_type *t)
{
    return k->mul[t->id].act != KERN_ACT_NONE;
}

const uint8_t *weight_rows_at(const struct weight *w, size_t r, size_t n, uint8_t *dst,
                              size_t *stride)
{
    *stride = w->row_bytes;
    if (w->from.at)
        return w->from.at + r * w->row_bytes;
    w->from.make(w->from.arg, w->from.row0 + r, n, dst, w->row_bytes);
    return dst;
}

enum { PACK_PANELS = 4 }; /* panels a chunk: 64 rows */

struct pack_job {
    struct weight *w;
    uint8_t *dst;
    uint8_t *made; /* per worker: room for the rows of a chunk, when rows are made */
    const struct kern_mul *mul;
    _Atomic size_t bad_row; /* row + 1 of one that is not finite, 0 = none */
};

static void pack_chunk(void *arg, size_t chunk, int worker)
{
    struct pack_job *j = arg;
    const struct weight *w = j->w;
    size_t r0 = chunk * PACK_PANELS * KERN_ROWS, stride;
    size_t r1 = num_min(w->rows, r0 + PACK_PANELS * KERN_ROWS);
    uint8_t *made =
        j->made ? j->made + (size_t)worker * PACK_PANELS * KERN_ROWS * w->row_bytes : NULL;
    const uint8_t *rows = weight_rows_at(w, r0, r1 - r0, made, &stride);
    for (size_t r = r0; r < r1; r++)
        if (!weight_finite(w->type, rows + (r - r0) * stride, w->cols))
            atomic_store_explicit(&j->bad_row, r + 1, memory_order_relaxed);
    if (!j->dst)
        return;
    for (size_t r = r0; r < r1; r += KERN_ROWS)
        j->mul->pack(j->dst + r / KERN_ROWS * w->panel_bytes, rows + (r - r0) * stride, stride,
                     num_min(KERN_ROWS, r1 - r), w->cols);
}

static int weight_init(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                       size_t cols, const struct weight_rows *from, struct err *e)
{
    memset(w, 0, sizeof *w);
    w->name = name;
    w->type = t;
    w->rows = rows;
    w->cols = cols;
    w->from = *from;
    if (!quant_size(t, cols, &w->row_bytes))
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": rows of %zu values are no multiple of %s's block of %u",
                       name, cols, t->name, t->block);
    return 0;
}

int weight_matrix(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const struct weight_rows *from, const struct kern *k,
                  struct team *team, struct weight_store *store, struct err *e)
{
    int rc = weight_init(w, name, t, rows, cols, from, e);
    if (rc || !store)
        return rc;
    struct pack_job j = {.w = w, .mul = &k->mul[t->id]};
    if (weight_has_kernel(k, t)) {
        w->panel_bytes = j.mul->panel_bytes(cols);
        j.dst = store_take(store, weight_matrix_bytes(k, t, rows, cols));
        if (!j.dst)
            return err_nomem(e, weight_matrix_bytes(k, t, rows, cols), name);
    }
    size_t per = (size_t)PACK_PANELS * KERN_ROWS, bytes;
    if (!from->at) {
        if (!num_mul(&bytes, w->row_bytes, per * (size_t)team_threads(team)))
            return err_set(e, ERR_LIMIT, "tensor \"%s\" is too large", name);
        j.made = malloc(bytes);
        if (!j.made)
            return err_nomem(e, bytes, name);
    }
    team_run(team, pack_chunk, &j, (rows + per - 1) / per);
    free(j.made);
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
                  const struct weight_rows *from, struct weight_store *store, struct err *e)
{
    int rc = weight_init(w, name, t, 1, n, from, e);
    if (rc)
        return rc;
    float *v = store_take(store, weight_vector_bytes(n));
    if (!v)
        return err_nomem(e, weight_vector_bytes(n), name);
    uint8_t *made = NULL;
    if (!from->at && !(made = malloc(w->row_bytes)))
        return err_nomem(e, w->row_bytes, name);
    weight_row(w, 0, v, made);
    free(made);
    if (!finite_f32((const uint8_t *)v, n, 4))
        return err_set(
            e, ERR_FORMAT,
            "tensor \"%s\": a weight is NaN or infinite; the file is damaged, get it again", name);
    w->vec = v;
    return 0;
}

void weight_row(const struct weight *w, size_t row, float *out, uint8_t *tmp)
{
    size_t stride;
    w->type->decode(out, weight_rows_at(w, row, 1, tmp, &stride), w->cols);
}
