/*
 * Products by float activations with AVX-512: of F32, F16, BF16, and of codes of floats with a
 * scale per block: FP8, I8, NF4, FP4. An output is one chain of FMAs over K (or a block), so speed
 * comes from many chains at once: panels side by side for one column, tiles of 2 panels × up to 6
 * columns for several.
 *
 * For several columns, weights are widened to float once per step of K, in a scratch that stays in
 * the first cache; F32 is read where it lies. A step of codes is a block: its sums start at 0 and
 * are scaled at its end.
 */
#include "kernels/x86/avx512_blocks.h"

enum {
    STEP = 64,         /* values of K of a step of floats */
    STEP_MAX = 128,    /* of any step */
    PART_STEPS = 8,    /* of floats: activations of NB columns of a part of K are 192 KiB */
    PART_VALUES = 512, /* the same in values */
    CODES_FP8 = KERN_FLOAT_COUNT,
    CODES_I8,
    CODES_NF4,
    CODES_FP4,
};

/* Value i of the 16 rows of a panel. */
KERN_INLINE __m512 widen(int t, const uint8_t *w, size_t i)
{
    if (t == KERN_F32)
        return _mm512_load_ps(w + 64 * i);
    if (t == KERN_F16)
        return _mm512_cvtph_ps(_mm256_load_si256((const void *)(w + 32 * i)));
    __m512i pair = _mm512_load_si512(w + 64 * (i / 2));
    return _mm512_castsi512_ps(i % 2 ? _mm512_and_si512(pair, _mm512_set1_epi32(-65536))
                                     : _mm512_slli_epi32(pair, 16));
}

KERN_INLINE void gemv(int t, int G, __m512 f[GEMV_PANELS], const uint8_t *w, size_t panel, size_t k,
                      const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead() / GEMV_PANELS,
                 line = t == KERN_F32 ? 1 : 2; /* values in 64 bytes */
    const float *a = x->f + col * x->ldf;
#pragma GCC unroll 4
    for (size_t i = 0; i < k; i += line) {
        size_t n = line < k - i ? line : k - i;
#pragma GCC unroll 4
        for (int g = 0; g < G && t != KERN_F32; g++) /* F32: no gain measured */
            _mm_prefetch((const char *)w + (size_t)g * panel + i * (64 / line) + ahead,
                         _MM_HINT_T0);
#pragma GCC unroll 2
        for (size_t j = 0; j < line; j++) {
            if (j >= n)
                break;
            __m512 v = _mm512_set1_ps(a[i + j]);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                f[g] = _mm512_fmadd_ps(widen(t, w + (size_t)g * panel, i + j), v, f[g]);
        }
    }
}

/* n values of K of two panels (16 floats a value) and C columns. d: scales of the panels, or NULL
   to add to f as it is. */
KERN_INLINE void tile(int C, float (*f)[2][16], const float *w0, const float *w1, size_t n,
                      const float *a, size_t lda, const __m512 *d)
{
    __m512 acc[2][TILE_COLS];
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        acc[0][c] = d ? _mm512_setzero_ps() : _mm512_load_ps(f[c][0]);
        acc[1][c] = d ? _mm512_setzero_ps() : _mm512_load_ps(f[c][1]);
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
    tile_end(C, f, acc, d);
}

#define TILE(C)                                                                               \
    static __attribute__((noinline)) void tile_##C(float(*f)[2][16], const float *w0,         \
                                                   const float *w1, size_t n, const float *a, \
                                                   size_t lda, const __m512 *d)               \
    {                                                                                         \
        tile(C, f, w0, w1, n, a, lda, d);                                                     \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static void (*const tiles[])(float (*f)[2][16], const float *w0, const float *w1, size_t n,
                             const float *a, size_t lda,
                             const __m512 *d) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

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
        size_t next = next_step(w0, w1, 0, STEP * size, s, s0, s1);
        for (size_t g = 0, c = 0, m; g < groups; g++, c += m) {
            m = (cols - c) / (groups - g);
            if (t != KERN_F32) /* F32 is a plain stream, which the processor foresees */
                fetch_next(w0 + next, w1 + next, STEP * size, g, groups);
            tiles[m - 1](f + c, v0, v1, n, x->f + (col + c) * x->ldf + i, x->ldf, NULL);
        }
    }
}

/* ---- codes of floats ---- */

KERN_INLINE bool nibbles(int t)
{
    return t == CODES_NF4 || t == CODES_FP4;
}

KERN_INLINE size_t code_block(int t)
{
    return nibbles(t) ? 64 : 128;
}

/* Values of K in 64 bytes of a panel. */
KERN_INLINE size_t code_line(int t)
{
    return nibbles(t) ? 8 : 4;
}

/* Bytes of a block of a panel. */
KERN_INLINE size_t code_group(int t)
{
    return 64 + code_block(t) / code_line(t) * 64;
}

/* The values of all nibbles, for the types that need them. */
KERN_INLINE __m512 code_levels(int t)
{
    if (!nibbles(t))
        return _mm512_setzero_ps();
    return _mm512_loadu_ps(quant_levels(t == CODES_NF4 ? QUANT_NF4 : QUANT_FP4));
}

/* Values i and i + 1 (i even) of the 16 rows. */
KERN_INLINE void widen_codes(int t, __m512 levels, const uint8_t *codes, size_t i, __m512 v[2])
{
    const uint8_t *p = codes + i * 64 / code_line(t);
    if (nibbles(t)) { /* the permutation reads the low four bits of an index */
        __m512i b = _mm512_cvtepu8_epi32(_mm_load_si128((const void *)p));
        v[0] = _mm512_permutexvar_ps(_mm512_srli_epi32(b, 4), levels);
        v[1] = _mm512_permutexvar_ps(b, levels);
        return;
    }
    /* 16 pairs to 16 first values and 16 second ones */
    __m256i values = _mm256_load_si256((const void *)p);
    values =
        _mm256_shuffle_epi8(values, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                        0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
    values = _mm256_permute4x64_epi64(values, 0xd8);
    if (t == CODES_FP8) { /* the sign, spread by the widening, must leave bit 14 */
        __m512i h = _mm512_cvtepi8_epi16(values);
        h = _mm512_and_si512(_mm512_slli_epi16(h, 7), _mm512_set1_epi16((short)0xbf80));
        v[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(h));
        v[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1));
        return;
    }
    v[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(values)));
    v[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(values, 1)));
}

KERN_INLINE __m512 code_scale(int t, const uint8_t *w)
{
    __m512 d = _mm512_load_ps(w);
    return t == CODES_FP8 ? _mm512_mul_ps(d, _mm512_set1_ps(256)) : d;
}

/* s[g] += values i, i + 1 of G panels × a[i], a[i + 1]; without the second of them if it is `one`.
 */
KERN_INLINE void gemv_pair(int t, int G, __m512 s[GEMV_PANELS], __m512 levels, const uint8_t *codes,
                           size_t panel, size_t i, const float *a, bool one)
{
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
        __m512 v[2];
        widen_codes(t, levels, codes + (size_t)g * panel, i, v);
        s[g] = _mm512_fmadd_ps(v[0], _mm512_set1_ps(a[i]), s[g]);
        if (!one)
            s[g] = _mm512_fmadd_ps(v[1], _mm512_set1_ps(a[i + 1]), s[g]);
    }
}

KERN_INLINE void gemv_codes(int t, int G, __m512 f[GEMV_PANELS], const uint8_t *w, size_t panel,
                            size_t k, const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead() / GEMV_PANELS, block = code_block(t), line = code_line(t);
    const __m512 levels = code_levels(t);
    const float *a = x->f + col * x->ldf;
    for (size_t at = 0; at < k; at += block, a += block, w += code_group(t)) {
        size_t n = k - at < block ? k - at : block, i = 0;
        __m512 s[GEMV_PANELS];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
            s[g] = _mm512_setzero_ps();
            _mm_prefetch((const char *)w + (size_t)g * panel + ahead, _MM_HINT_T0);
        }
        for (const uint8_t *p = w + 64 + ahead; i + line <= n; i += line, p += 64) {
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                _mm_prefetch((const char *)p + (size_t)g * panel, _MM_HINT_T0);
#pragma GCC unroll 4
            for (size_t j = 0; j < line; j += 2)
                gemv_pair(t, G, s, levels, w + 64, panel, i + j, a, false);
        }
        for (; i < n; i += 2)
            gemv_pair(t, G, s, levels, w + 64, panel, i, a, i + 1 == n);
#pragma GCC unroll 4
        for (int g = 0; g < G; g++)
            f[g] = _mm512_fmadd_ps(s[g], code_scale(t, w + (size_t)g * panel), f[g]);
    }
}

KERN_INLINE void gemm_codes(int t, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1,
                            size_t k, size_t s0, size_t s1, const struct kern_x *x, size_t col,
                            size_t cols)
{
    _Alignas(64) float wide[2][STEP_MAX][16];
    const size_t block = code_block(t), group = code_group(t);
    const __m512 levels = code_levels(t);
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    for (size_t s = s0; s < s1; s++) {
        const uint8_t *p[2] = {w0 + s * group, w1 + s * group};
        size_t i = s * block, n = k - i < block ? k - i : block;
        size_t next = next_step(w0, w1, 0, group, s, s0, s1);
        __m512 d[2], v[2];
        for (int g = 0; g < 2; g++) {
            for (size_t j = 0; j < n; j += 2) {
                widen_codes(t, levels, p[g] + 64, j, v);
                _mm512_store_ps(wide[g][j], v[0]);
                _mm512_store_ps(wide[g][j + 1], v[1]);
            }
            d[g] = code_scale(t, p[g]);
        }
        for (size_t g = 0, c = 0, m; g < groups; g++, c += m) {
            m = (cols - c) / (groups - g);
            fetch_next(w0 + next, w1 + next, group, g, groups);
            tiles[m - 1](f + c, wide[0][0], wide[1][0], n, x->f + (col + c) * x->ldf + i, x->ldf,
                         d);
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

#define MUL_CODES(name, t, layout)                                                        \
    static void mul_##name(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        struct mul_args m = {y, ldy, w, layout.bytes(k), rows, k, x, col0, cols};         \
        if (cols == 1)                                                                    \
            gemv_rows(t, gemv_codes, &m);                                                 \
        else                                                                              \
            gemm_blocks(t, gemm_codes, &m, (k + code_block(t) - 1) / code_block(t),       \
                        PART_VALUES / code_block(t));                                     \
    }

MUL(f32, KERN_F32, panel_f32)
MUL(f16, KERN_F16, panel_f16)
MUL(bf16, KERN_BF16, panel_bf16)
MUL_CODES(fp8, CODES_FP8, panel_code8)
MUL_CODES(i8, CODES_I8, panel_code8)
MUL_CODES(nf4, CODES_NF4, panel_code4)
MUL_CODES(fp4, CODES_FP4, panel_code4)

void kern_init_avx512_mul(struct kern *k)
{
    k->mul[QUANT_F32].mul = mul_f32;
    k->mul[QUANT_F16].mul = mul_f16;
    k->mul[QUANT_BF16].mul_f32 = mul_bf16;
    k->mul[QUANT_FP8].mul_f32 = mul_fp8;
    k->mul[QUANT_I8].mul = mul_i8;
    k->mul[QUANT_NF4].mul = mul_nf4;
    k->mul[QUANT_FP4].mul = mul_fp4;
}
