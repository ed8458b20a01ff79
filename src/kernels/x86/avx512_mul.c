/*
 * Products of the float types with AVX-512: F32, F16, BF16. An output is one chain of FMAs over K,
 * so speed comes from many chains at once: panels side by side for one column, tiles of 2 panels ×
 * up to 6 columns for several.
 *
 * For several columns, two-byte weights are widened to float once per step of K, in a scratch that
 * stays in the first cache; F32 is read where it lies.
 */
#include "kernels/x86/avx512_blocks.h"

enum {
    STEP = 64,      /* values of K of a step */
    PART_STEPS = 8, /* activations of NB columns of a part of K: 192 KiB */
};

/* Value i of the 16 rows of a panel. */
KERN_INLINE __m512 widen(int t, const uint8_t *w, size_t i)
{
    if (t == KERN_F32)
        return _mm512_load_ps(w + 64 * i);
    __m256i h = _mm256_load_si256((const void *)(w + 32 * i));
    if (t == KERN_F16)
        return _mm512_cvtph_ps(h);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

KERN_INLINE void gemv(int t, int G, __m512 f[GEMV_PANELS], const uint8_t *w, size_t panel, size_t k,
                      const struct kern_x *x, size_t col)
{
    const float *a = x->f + col * x->ldf;
#pragma GCC unroll 4
    for (size_t i = 0; i < k; i++) {
        __m512 v = _mm512_set1_ps(a[i]);
#pragma GCC unroll 4
        for (int g = 0; g < G; g++)
            f[g] = _mm512_fmadd_ps(widen(t, w + (size_t)g * panel, i), v, f[g]);
    }
}

/* n values of K of two panels (16 floats a value) and C columns. */
KERN_INLINE void tile(int C, float (*f)[2][16], const float *w0, const float *w1, size_t n,
                      const float *a, size_t lda)
{
    __m512 acc[2][TILE_COLS];
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        acc[0][c] = _mm512_load_ps(f[c][0]);
        acc[1][c] = _mm512_load_ps(f[c][1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i++) {
        __m512 v0 = _mm512_load_ps(w0 + 16 * i), v1 = _mm512_load_ps(w1 + 16 * i);
#pragma GCC unroll 6
        for (int c = 0; c < C; c++) {
            __m512 v = _mm512_set1_ps(a[(size_t)c * lda + i]);
            acc[0][c] = _mm512_fmadd_ps(v0, v, acc[0][c]);
            acc[1][c] = _mm512_fmadd_ps(v1, v, acc[1][c]);
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        _mm512_store_ps(f[c][0], acc[0][c]);
        _mm512_store_ps(f[c][1], acc[1][c]);
    }
}

#define TILE(C)                                                                                   \
    static __attribute__((noinline)) void tile_##C(                                               \
        float(*f)[2][16], const float *w0, const float *w1, size_t n, const float *a, size_t lda) \
    {                                                                                             \
        tile(C, f, w0, w1, n, a, lda);                                                            \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static void (*const tiles[])(float (*f)[2][16], const float *w0, const float *w1, size_t n,
                             const float *a,
                             size_t lda) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

KERN_INLINE void gemm_pair(int t, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1, size_t k,
                           size_t s0, size_t s1, const struct kern_x *x, size_t col, size_t cols)
{
    _Alignas(64) float wide[2][STEP][16];
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    size_t size = t == KERN_F32 ? 64 : 32; /* bytes of a value of 16 rows */
    for (size_t s = s0; s < s1; s++) {
        size_t i = s * STEP, n = k - i < STEP ? k - i : STEP;
        const float *v0 = (const float *)(const void *)w0 + 16 * i;
        const float *v1 = (const float *)(const void *)w1 + 16 * i;
        if (t != KERN_F32) {
            for (size_t j = 0; j < n; j++) {
                _mm512_store_ps(wide[0][j], widen(t, w0, i + j));
                _mm512_store_ps(wide[1][j], widen(t, w1, i + j));
            }
            v0 = wide[0][0];
            v1 = wide[1][0];
        }
        for (size_t g = 0, c = 0, m; g < groups; g++, c += m) {
            m = (cols - c) / (groups - g);
            if (t != KERN_F32) /* F32 is a plain stream, which the processor foresees */
                fetch_next(w0 + (i + n) * size, w1 + (i + n) * size, STEP * size, g, groups);
            tiles[m - 1](f + c, v0, v1, n, x->f + (col + c) * x->ldf + i, x->ldf);
        }
    }
}

#define MUL(name, t, layout)                                                              \
    static void mul_##name(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        struct mul_args m = {y, ldy, w, layout.bytes(k), rows, k, x, col0, cols};         \
        if (cols == 1)                                                                    \
            gemv_rows(t, gemv, &m);                                                       \
        else                                                                              \
            gemm_blocks(t, gemm_pair, &m, (k + STEP - 1) / STEP, PART_STEPS);             \
    }

MUL(f32, KERN_F32, panel_f32)
MUL(f16, KERN_F16, panel_f16)
MUL(bf16, KERN_BF16, panel_f16)

void kern_init_avx512_mul(struct kern *k)
{
    k->mul[QUANT_F32].mul = mul_f32;
    k->mul[QUANT_F16].mul = mul_f16;
    k->mul[QUANT_BF16].mul = mul_bf16;
}
