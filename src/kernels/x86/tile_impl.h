/*
 * The strided float product, and with it the matrix product of F32 and F16 weights, written once
 * for all x86 instruction sets over `struct lanes` (vec_impl.h).
 *
 * A register tile is P panels × C columns: P weight vectors are loaded (and widened) once per k and
 * used for all C columns, whose values are broadcast. A lane is a row and keeps one chain of FMAs
 * in ascending k, so neither P nor C nor the cut of k into chunks can be seen in the result.
 *
 * An instruction set that has no matrix product of its own for float weights takes tile_mul_init.
 *
 * Deep products (weights) are cut into chunks of k, so that the weights of a tile stay in the first
 * level cache while all columns pass over them; the sums wait in y in between.
 *
 * Needed before inclusion: struct lanes with lanes_load, lanes_load_n, lanes_store, lanes_store_n,
 * lanes_set, lanes_fma; lanes_load_f16, lanes_load_bf16 (16 halves, any alignment); and
 * TILE_SHAPES(X, name, type): X(name, type, P, C) for each register tile that fits, P in 1, 2, 4
 * and C in 1..6; with P × C also P × (C − 1), and 1 × 6 at least.
 */
#ifndef PONDER_KERNELS_X86_TILE_IMPL_H
#define PONDER_KERNELS_X86_TILE_IMPL_H

#include "base/num.h"

#include <stdbool.h>

enum {
    TILE_COLS = 6,
    TILE_DEPTH = 384,  /* panels × k of a chunk: F32 takes 24 KiB */
    TILE_AHEAD = 9216, /* bytes from what one column uses to what it fetches */
};

/* One register tile, `rows` of them valid (more than 16 · (panels − 1)). */
struct tile_part {
    const void *w;
    const char *ahead; /* to prefetch */
    const float *x;
    float *y;
    size_t panel_step, k_step, ahead_step, ldx, ldy;
    size_t rows, k;
    bool more; /* continue from y instead of 0 */
};

KERN_INLINE struct lanes tile_load(const void *w, size_t at, enum kern_float type)
{
    if (type == KERN_F32)
        return lanes_load((const float *)w + at);
    const uint16_t *h = (const uint16_t *)w + at;
    return type == KERN_F16 ? lanes_load_f16(h) : lanes_load_bf16(h);
}

KERN_INLINE void tile_core(const struct tile_part *t, enum kern_float type, size_t P, size_t C)
{
    struct lanes acc[4][TILE_COLS], w[4];
    size_t last = t->rows - (P - 1) * 16; /* rows of the last panel */
#pragma GCC unroll 4
    for (size_t p = 0; p < P; p++)
#pragma GCC unroll 6
        for (size_t c = 0; c < C; c++) {
            const float *y = t->y + c * t->ldy + p * 16;
            if (!t->more)
                acc[p][c] = lanes_set(0.0f);
            else if (p + 1 < P || last == 16)
                acc[p][c] = lanes_load(y);
            else
                acc[p][c] = lanes_load_n(y, last);
        }
    const float *x = t->x;
    const char *ahead = t->ahead;
    for (size_t k = 0, at = 0; k < t->k; k++, at += t->k_step, ahead += t->ahead_step) {
        for (size_t i = 0; i < P * 16 * (type == KERN_F32 ? 4 : 2); i += 64)
            _mm_prefetch(ahead + i, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t p = 0; p < P; p++)
            w[p] = tile_load(t->w, at + p * t->panel_step, type);
#pragma GCC unroll 6
        for (size_t c = 0; c < C; c++) {
            struct lanes v = lanes_set(x[c * t->ldx + k]);
#pragma GCC unroll 4
            for (size_t p = 0; p < P; p++)
                acc[p][c] = lanes_fma(w[p], v, acc[p][c]);
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < P; p++)
#pragma GCC unroll 6
        for (size_t c = 0; c < C; c++) {
            float *y = t->y + c * t->ldy + p * 16;
            if (p + 1 < P || last == 16)
                lanes_store(y, acc[p][c]);
            else
                lanes_store_n(y, acc[p][c], last);
        }
}

/* One function per type and shape; the shapes a set has are listed in TILE_SHAPES. */
#define TILE_FN(name, type, P, C)                           \
    static void name##_##P##x##C(const struct tile_part *t) \
    {                                                       \
        tile_core(t, type, P, C);                           \
    }
#define TILE_ENTRY(name, type, P, C) [type][P / 2][C - 1] = name##_##P##x##C,

TILE_SHAPES(TILE_FN, tile_f32, KERN_F32)
TILE_SHAPES(TILE_FN, tile_f16, KERN_F16)
TILE_SHAPES(TILE_FN, tile_bf16, KERN_BF16)

static void (*const tile_fn[KERN_FLOAT_COUNT][3][TILE_COLS])(const struct tile_part *) = {
    TILE_SHAPES(TILE_ENTRY, tile_f32, KERN_F32) TILE_SHAPES(TILE_ENTRY, tile_f16, KERN_F16)
        TILE_SHAPES(TILE_ENTRY, tile_bf16, KERN_BF16)};

/* All columns over one group of `panels` panels, in even groups so that no last one is ragged. */
static void tile_panels(const struct kern_tile *t, enum kern_float type, size_t panel,
                        size_t panels, size_t width)
{
    size_t size = type == KERN_F32 ? 4 : 2, row = panel * 16;
    size_t depth = width < t->cols ? TILE_DEPTH / panels : t->k, k0 = 0;
    struct tile_part part = {
        .panel_step = t->panel_step,
        .k_step = t->k_step,
        .ldx = t->ldx,
        .ldy = t->ldy,
        .rows = num_min(t->rows - row, panels * 16),
    };
    const char *ahead = t->ahead;
    if (ahead)
        ahead += panel * 16 * size * t->k;
    do {
        part.w = (const char *)t->w + (panel * t->panel_step + k0 * t->k_step) * size;
        part.ahead = part.w; /* nothing new */
        part.ahead_step = t->k_step * size;
        if (ahead) { /* as much as this group reads, while its first columns do */
            part.ahead = ahead + k0 * panels * 16 * size;
            part.ahead_step = panels * 16 * size;
        }
        part.k = num_min(depth, t->k - k0);
        part.more = k0 > 0;
        size_t groups = (t->cols + TILE_COLS - 1) / TILE_COLS;
        for (size_t c = 0, n; c < t->cols; c += n, groups--) {
            n = (t->cols - c + groups - 1) / groups; /* at most `width` */
            part.x = t->x + c * t->ldx + k0;
            part.y = t->y + c * t->ldy + row;
            tile_fn[type][panels / 2][n - 1](&part);
            part.ahead = part.w;
            part.ahead_step = t->k_step * size;
        }
        k0 += part.k;
    } while (k0 < t->k);
}

static void tile_run(const struct kern_tile *t, enum kern_float type)
{
    if (t->cols == 0)
        return;
    size_t groups = (t->cols + TILE_COLS - 1) / TILE_COLS;
    size_t width = (t->cols + groups - 1) / groups;
    size_t total = (t->rows + 15) / 16;
    for (size_t p = 0, n; p < total; p += n) {
        n = 4;
        while (n > total - p || !tile_fn[type][n / 2][width - 1])
            n /= 2;
        tile_panels(t, type, p, n, width);
    }
}

static void tile_f32(const struct kern_tile *t)
{
    tile_run(t, KERN_F32);
}

static void tile_f16(const struct kern_tile *t)
{
    tile_run(t, KERN_F16);
}

static void tile_bf16(const struct kern_tile *t)
{
    tile_run(t, KERN_BF16);
}

/* y = P panels of weights (`panel` bytes apart, `rows` rows, more than 16 · (P − 1)) · x. */
KERN_INLINE void tile_column(float *y, const char *w, size_t panel, size_t rows, size_t k,
                             const float *x, enum kern_float type, size_t P)
{
    const size_t step = 16 * (type == KERN_F32 ? 4 : 2), far = TILE_AHEAD / step;
    struct lanes acc[2];
    /* Each panel is fetched ahead; behind the end of these go the next P. */
    const char *ahead = w + TILE_AHEAD;
#pragma GCC unroll 2
    for (size_t p = 0; p < P; p++)
        acc[p] = lanes_set(0.0f);
    for (size_t i = 0, end = k > far ? k - far : 0; i < k; end = k, ahead += (P - 1) * panel)
        for (; i < end; i++)
#pragma GCC unroll 2
            for (size_t p = 0; p < P; p++) {
                const char *at = w + p * panel + i * step;
                _mm_prefetch(ahead + p * panel + i * step, _MM_HINT_T0);
                acc[p] = lanes_fma(tile_load(at, 0, type), lanes_set(x[i]), acc[p]);
            }
    if (P == 2)
        lanes_store(y, acc[0]);
    lanes_store_n(y + 16 * (P - 1), acc[P - 1], rows - 16 * (P - 1));
}

/* One column: a chain per row, so two panels side by side hide some of its latency. */
KERN_INLINE void tile_one(float *y, const char *w, size_t panel, size_t rows, size_t k,
                          const float *x, enum kern_float type)
{
    for (; rows > 16; rows -= num_min(rows, 32), y += 32, w += 2 * panel)
        tile_column(y, w, panel, num_min(rows, 32), k, x, type, 2);
    if (rows)
        tile_column(y, w, panel, rows, k, x, type, 1);
}

/* Weights of a float type: the panels of panel.h are tiles with k_step 16. */
KERN_INLINE void tile_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                          const struct kern_x *x, size_t col0, size_t cols, enum kern_float type)
{
    size_t size = type == KERN_F32 ? 4 : 2, panel = num_round_up(k * 16 * size, KERN_ALIGN);
    if (cols == 1) {
        tile_one(y, (const char *)w, panel, rows, k, x->f + col0 * x->ldf, type);
        return;
    }
    tile_run(&(struct kern_tile){.w = w,
                                 .ahead = w + 2 * panel,
                                 .panel_step = panel / size,
                                 .k_step = 16,
                                 .rows = rows,
                                 .k = k,
                                 .x = x->f + col0 * x->ldf,
                                 .ldx = x->ldf,
                                 .cols = cols,
                                 .y = y,
                                 .ldy = ldy},
             type);
}

static void mul_f32(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols)
{
    tile_mul(y, ldy, w, rows, k, x, col0, cols, KERN_F32);
}

static void mul_f16(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols)
{
    tile_mul(y, ldy, w, rows, k, x, col0, cols, KERN_F16);
}

KERN_INLINE void tile_init(struct kern *k)
{
    k->tile[KERN_F32] = tile_f32;
    k->tile[KERN_F16] = tile_f16;
    k->tile[KERN_BF16] = tile_bf16;
}

KERN_INLINE void tile_mul_init(struct kern *k)
{
    k->mul[QUANT_F32].mul = mul_f32;
    k->mul[QUANT_F16].mul = mul_f16;
}

#endif
