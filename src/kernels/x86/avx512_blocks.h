/*
 * The loops around the products of all AVX-512 levels: how rows, columns and K are cut. The
 * arithmetic comes as functions that are inlined.
 *
 * One column of floats: GEMV_PANELS panels side by side, for as many chains of FMAs. Up to THIN
 * columns of quantized types (up to twice as many in two halves): one panel after the other,
 * straight from its bytes. Both are to read at the speed of memory.
 *
 * Several columns, outside in: blocks of up to NB columns; parts of K, so that the activations of a
 * part stay in the second cache; pairs of panels, so that a broadcast activation feeds 32 rows. The
 * chain of an output rests in `f` within a part and in y between parts: both exact.
 */
#ifndef PONDER_KERNELS_X86_AVX512_BLOCKS_H
#define PONDER_KERNELS_X86_AVX512_BLOCKS_H

#include "kernels/kern_internal.h"

#include <immintrin.h>

enum {
    THIN = 4, /* columns that go straight from packed bytes, at most */
    THIN_BYTES = 384 << 10,
    GEMV_PANELS = 4,
    TILE_COLS = 6,  /* columns of a tile of 2 panels: 12 accumulators */
    NB = 96,        /* f is 12 KiB */
    FEW = 24,       /* columns whose activations stay in the second cache for any K */
    FLUSH = 0x8040, /* FTZ and DAZ of MXCSR: what chains of BF16 pairs need around FMAs */
};

/* The arguments of kern_mul.mul; `panel` is the size of one. */
struct mul_args {
    float *y;
    size_t ldy;
    const uint8_t *w;
    size_t panel, rows, k;
    const struct kern_x *x;
    size_t col0, cols;
};

/* The same four bytes in all lanes. */
KERN_INLINE __m512i spread(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, 4);
    return _mm512_set1_epi32(v);
}

/*
 * How far ahead of the loads a stream of panels is fetched. With arithmetic between the loads the
 * window of the processor is too short to keep memory busy, and its prefetchers do not make up for
 * it: Zen 5 reads Q4_K at 0.5 of a plain read without, 0.75 from 2.3 KB ahead, 0.94 from 6.9 KB and
 * more. Sapphire Rapids gained a third from four streams fetched 1.1 KB ahead; this distance has
 * not been measured there. Zen 4 keeps up alone and only lost, so there the line that is loaded
 * next anyway is named.
 */
KERN_INLINE size_t fetch_ahead(void)
{
    bool zen4 = __builtin_cpu_is("amd") && !__builtin_cpu_supports("avx512vp2intersect");
    return zen4 ? 0 : 9216;
}

/* Fetches part i of n of the `bytes` bytes at p. */
KERN_INLINE void fetch_part(const uint8_t *p, size_t bytes, size_t i, size_t n)
{
    for (size_t b = bytes * i / n / 64 * 64; b < bytes * (i + 1) / n / 64 * 64; b += 64)
        _mm_prefetch((const char *)p + b, _MM_HINT_T0);
}

/* Adds the product of a panel and C columns from col on to f. */
#define THIN_FN(name)                                                                              \
    void (*name)(int t, int C, __m512 f[THIN], const uint8_t *w, size_t k, const struct kern_x *x, \
                 size_t col)

KERN_INLINE void thin_columns(int t, int C, THIN_FN(fn), const struct mul_args *m, size_t c0)
{
    const uint8_t *w = m->w;
    for (size_t r = 0; r < m->rows; r += 16, w += m->panel) {
        __m512 f[THIN];
        __mmask16 valid = (__mmask16)(m->rows - r < 16 ? (1u << (m->rows - r)) - 1 : 0xffff);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            f[c] = _mm512_setzero_ps();
        fn(t, C, f, w, m->k, m->x, m->col0 + c0);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            _mm512_mask_storeu_ps(m->y + (c0 + (size_t)c) * m->ldy + r, valid, f[c]);
    }
}

KERN_INLINE void thin_some(int t, THIN_FN(fn), const struct mul_args *m, size_t c0, size_t cols)
{
    switch (cols) {
    case 1:
        thin_columns(t, 1, fn, m, c0);
        break;
    case 2:
        thin_columns(t, 2, fn, m, c0);
        break;
    case 3:
        thin_columns(t, 3, fn, m, c0);
        break;
    default:
        thin_columns(t, 4, fn, m, c0);
    }
}

/* Up to `most` columns, at most twice THIN, go in two halves when the panels stay in the second
   cache between them. */
KERN_INLINE bool thin_suits(const struct mul_args *m, size_t most)
{
    return m->cols <= THIN || (m->cols <= most && (m->rows + 15) / 16 * m->panel <= THIN_BYTES);
}

/* The product with columns that thin_suits. */
KERN_INLINE void thin_rows(int t, THIN_FN(fn), const struct mul_args *m)
{
    size_t first = m->cols <= THIN ? m->cols : (m->cols + 1) / 2;
    thin_some(t, fn, m, 0, first);
    if (first < m->cols)
        thin_some(t, fn, m, first, m->cols - first);
}

/* Adds the product of G panels, `panel` bytes apart, and C columns from col on to f. */
#define GEMV_FN(name)                                                                              \
    void (*name)(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w, size_t panel, \
                 size_t k, const struct kern_x *x, size_t col)

KERN_INLINE void gemv_panels(int t, int G, int C, GEMV_FN(fn), const struct mul_args *m, size_t r)
{
    __m512 f[GEMV_PANELS][THIN];
#pragma GCC unroll 4
    for (int g = 0; g < G; g++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            f[g][c] = _mm512_setzero_ps();
    fn(t, G, C, f, m->w + r / 16 * m->panel, m->panel, m->k, m->x, m->col0);
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
        size_t row = r + 16 * (size_t)g;
        __mmask16 valid = (__mmask16)(m->rows - row < 16 ? (1u << (m->rows - row)) - 1 : 0xffff);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            _mm512_mask_storeu_ps(m->y + (size_t)c * m->ldy + row, valid, f[g][c]);
    }
}

/* All rows, G panels side by side. */
KERN_INLINE void gemv_rows(int t, int G, int C, GEMV_FN(fn), const struct mul_args *m)
{
    size_t r = 0;
    for (; r + 16 * (size_t)(G - 1) < m->rows; r += 16 * (size_t)G)
        gemv_panels(t, G, C, fn, m, r);
    for (; r < m->rows; r += 16)
        gemv_panels(t, 1, C, fn, m, r);
}

/* Up to THIN columns, with as many chains of sums as there are registers for. */
KERN_INLINE void gemv_some(int t, GEMV_FN(fn), const struct mul_args *m)
{
    switch (m->cols) {
    case 1:
        gemv_rows(t, 4, 1, fn, m);
        break;
    case 2:
        gemv_rows(t, 4, 2, fn, m);
        break;
    case 3:
        gemv_rows(t, 2, 3, fn, m);
        break;
    default:
        gemv_rows(t, 2, 4, fn, m);
    }
}

/* f from y or to y: `rows` rows (at most 32 count) of n columns. */
KERN_INLINE void rest(bool store, float (*f)[2][16], float *y, size_t ldy, size_t rows, size_t n)
{
    __mmask16 m0 = (__mmask16)(rows < 16 ? (1u << rows) - 1 : 0xffff);
    __mmask16 m1 = (__mmask16)(rows <= 16 ? 0 : rows < 32 ? (1u << (rows - 16)) - 1 : 0xffff);
    for (size_t c = 0; c < n; c++, y += ldy) {
        if (store) {
            _mm512_mask_storeu_ps(y, m0, _mm512_load_ps(f[c][0]));
            _mm512_mask_storeu_ps(y + 16, m1, _mm512_load_ps(f[c][1]));
        } else {
            _mm512_store_ps(f[c][0], _mm512_maskz_loadu_ps(m0, y));
            _mm512_store_ps(f[c][1], _mm512_maskz_loadu_ps(m1, y + 16));
        }
    }
}

/* A tile for each number of columns, and the table of them: `call` with its arguments at a and its
   number of columns as COLS. Not inlined, so that each has the registers to itself. */
#define TILE_FN(name, args, C, call)                                       \
    static __attribute__((noinline)) void name##_##C(const struct args *a) \
    {                                                                      \
        enum { COLS = C };                                                 \
        call;                                                              \
    }
#define TILES(name, args, call)                                                       \
    TILE_FN(name, args, 1, call)                                                      \
    TILE_FN(name, args, 2, call)                                                      \
    TILE_FN(name, args, 3, call)                                                      \
    TILE_FN(name, args, 4, call)                                                      \
    TILE_FN(name, args, 5, call)                                                      \
    TILE_FN(name, args, 6, call)                                                      \
    static void (*const name[])(const struct args *) = {name##_1, name##_2, name##_3, \
                                                        name##_4, name##_5, name##_6};

/* A column's sums of floats into f: scaled and added, or, where d is NULL, in its place. */
KERN_INLINE void tile_end(float f[2][16], __m512 sum0, __m512 sum1, const __m512 *d)
{
    _mm512_store_ps(f[0], d ? _mm512_fmadd_ps(sum0, d[0], _mm512_load_ps(f[0])) : sum0);
    _mm512_store_ps(f[1], d ? _mm512_fmadd_ps(sum1, d[1], _mm512_load_ps(f[1])) : sum1);
}

/* Fetches part i of n of the `bytes` bytes at p and at q: what the next step will read comes in
   during the arithmetic of this one, when nothing else would load it. */
KERN_INLINE void fetch_next(const uint8_t *p, const uint8_t *q, size_t bytes, size_t i, size_t n)
{
    for (size_t b = bytes * i / n / 64 * 64; b < bytes * (i + 1) / n; b += 64) {
        _mm_prefetch((const char *)p + b, _MM_HINT_T0);
        _mm_prefetch((const char *)q + b, _MM_HINT_T0);
    }
}

/* Where step i + 1 of both panels begins, from their beginnings; after the last step that is the
   first one of the next pair. */
KERN_INLINE size_t next_step(const uint8_t *w0, const uint8_t *w1, size_t head, size_t step,
                             size_t i, size_t s0, size_t s1)
{
    return i + 1 < s1 ? head + (i + 1) * step : 2 * (size_t)(w1 - w0) + head + s0 * step;
}

/* Adds steps [s0, s1) of K of panels w0 and w1 (the same one where a pair is not full) and columns
   [col, col + cols) to f. */
#define PAIR_FN(name)                                                                     \
    void (*name)(int t, float(*f)[2][16], const uint8_t *w0, const uint8_t *w1, size_t k, \
                 size_t s0, size_t s1, const struct kern_x *x, size_t col, size_t cols)

/* K is cut into `steps` steps, of which `part` make a part. */
KERN_INLINE void gemm_blocks(int t, PAIR_FN(fn), const struct mul_args *m, size_t steps,
                             size_t part)
{
    _Alignas(64) float f[NB][2][16];
    size_t blocks = (m->cols + NB - 1) / NB;
    if (m->cols <= FEW) /* all of their activations stay; memory is read panel by panel */
        part = steps;
    for (size_t b = 0, c = 0, n; b < blocks; b++, c += n) {
        n = (m->cols - c) / (blocks - b); /* whole tiles, but for the last */
        if (b + 1 < blocks)
            n = (n + TILE_COLS - 1) / TILE_COLS * TILE_COLS;
        for (size_t s = 0; s < steps; s += part)
            for (size_t r = 0; r < m->rows; r += 32) {
                float *y = m->y + c * m->ldy + r;
                const uint8_t *w0 = m->w + r / 16 * m->panel;
                const uint8_t *w1 = m->rows - r > 16 ? w0 + m->panel : w0;
                if (s)
                    rest(false, f, y, m->ldy, m->rows - r, n);
                else
                    __builtin_memset(f, 0, n * sizeof *f);
                fn(t, f, w0, w1, m->k, s, steps - s < part ? steps : s + part, m->x, m->col0 + c,
                   n);
                rest(true, f, y, m->ldy, m->rows - r, n);
            }
    }
}

#endif
