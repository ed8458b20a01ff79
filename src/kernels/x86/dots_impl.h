/*
 * Dot products of rows with columns, written once for all x86 instruction sets over `struct lanes`
 * (vec_impl.h): the scores of attention where a position's key lies in one piece, as latents do.
 *
 * A register tile is R rows × C columns, each with 16 partial sums of its own; both sides are
 * loaded along k, so nothing has to be transposed. What that costs is a reduction for each output,
 * four at a time, against k / 16 FMAs: little where k is in the hundreds.
 *
 * Needed before inclusion, beside what tile_impl.h needs: lanes_sum, lanes_sums4 (the trees of four
 * as a __m128), DOTS_ROWS and DOTS_COLS (2 × 2 or 4 × 4).
 */
#ifndef PONDER_KERNELS_X86_DOTS_IMPL_H
#define PONDER_KERNELS_X86_DOTS_IMPL_H

#include "base/num.h"
#include "kernels/x86/tile_impl.h"

/* The last n (1..15) values of a row, zeros behind. */
KERN_INLINE struct lanes dots_load_n(const void *w, size_t at, size_t n, enum kern_float type)
{
    if (type == KERN_F32)
        return lanes_load_n((const float *)w + at, n);
    uint16_t rest[16] = {0};
    memcpy(rest, (const uint16_t *)w + at, n * sizeof *rest);
    return type == KERN_F16 ? lanes_load_f16(rest) : lanes_load_bf16(rest);
}

/* What to prefetch while R rows are read: those two groups further on, or of what comes next. */
KERN_INLINE const char *dots_ahead(const struct kern_dots *t, size_t row, size_t R, size_t size)
{
    if (row + 2 * R < t->rows)
        return (const char *)t->w + (row + 2 * R) * t->step * size;
    return t->ahead ? (const char *)t->ahead + (row + 2 * R - t->rows) * t->step * size : NULL;
}

KERN_INLINE void dots_core(const struct kern_dots *t, size_t row, size_t col, enum kern_float type,
                           size_t R, size_t C)
{
    struct lanes acc[DOTS_ROWS][DOTS_COLS], w[DOTS_ROWS];
    const float *x = t->x + col * t->ldx;
    size_t from = row * t->step, k = 0, left = t->k % 16, size = type == KERN_F32 ? 4 : 2;
    const char *ahead = dots_ahead(t, row, R, size);
    if (col > 0 || !ahead)
        ahead = (const char *)t->w + from * size; /* nothing new */
#pragma GCC unroll 4
    for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            acc[r][c] = lanes_set(0.0f);
    for (; k + 16 <= t->k; k += 16) {
        for (size_t i = 0; i < R * 16 * size; i += 64)
            _mm_prefetch(ahead + k * R * size + i, _MM_HINT_T0);
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++)
            w[r] = tile_load(t->w, from + r * t->step + k, type);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            struct lanes v = lanes_load(x + c * t->ldx + k);
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++)
                acc[r][c] = lanes_fma(w[r], v, acc[r][c]);
        }
    }
    if (left) {
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++)
            w[r] = dots_load_n(t->w, from + r * t->step + k, left, type);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            struct lanes v = lanes_load_n(x + c * t->ldx + k, left);
#pragma GCC unroll 4
            for (size_t r = 0; r < R; r++)
                acc[r][c] = lanes_fma(w[r], v, acc[r][c]);
        }
    }
    float *y = t->y + col * t->ldy + row;
    if (R == 4) {
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            _mm_storeu_ps(y + c * t->ldy,
                          lanes_sums4(acc[0][c], acc[1][c], acc[R - 2][c], acc[R - 1][c]));
    } else if (R == 2 && C == 2) {
        __m128 s = lanes_sums4(acc[0][0], acc[1][0], acc[0][1], acc[1][1]);
        _mm_storel_pi((__m64 *)(void *)y, s);
        _mm_storeh_pi((__m64 *)(void *)(y + t->ldy), s);
    } else {
#pragma GCC unroll 4
        for (size_t r = 0; r < R; r++)
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                y[c * t->ldy + r] = lanes_sum(acc[r][c]);
    }
}

/* Columns col..col + C, all rows. */
KERN_INLINE void dots_cols(const struct kern_dots *t, size_t col, enum kern_float type, size_t C)
{
    size_t r = 0;
    for (; r + DOTS_ROWS <= t->rows; r += DOTS_ROWS)
        dots_core(t, r, col, type, DOTS_ROWS, C);
    for (; r < t->rows; r++)
        dots_core(t, r, col, type, 1, C);
}

KERN_INLINE void dots_run(const struct kern_dots *t, enum kern_float type)
{
    size_t groups = (t->cols + DOTS_COLS - 1) / DOTS_COLS;
    for (size_t c = 0, n; c < t->cols; c += n, groups--) {
        n = (t->cols - c + groups - 1) / groups; /* even groups */
        if (n == 1)
            dots_cols(t, c, type, 1);
        else if (n == 2)
            dots_cols(t, c, type, 2);
#if DOTS_COLS == 4
        else if (n == 3)
            dots_cols(t, c, type, 3);
        else
            dots_cols(t, c, type, 4);
#endif
    }
}

static void dots_f32(const struct kern_dots *t)
{
    dots_run(t, KERN_F32);
}

static void dots_f16(const struct kern_dots *t)
{
    dots_run(t, KERN_F16);
}

static void dots_bf16(const struct kern_dots *t)
{
    dots_run(t, KERN_BF16);
}

KERN_INLINE void dots_init(struct kern *k)
{
    k->dots[KERN_F32] = dots_f32;
    k->dots[KERN_F16] = dots_f16;
    k->dots[KERN_BF16] = dots_bf16;
}

#endif
