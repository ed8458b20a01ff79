/*
 * Products by float activations with AVX-512: of F32, F16, BF16, and of codes of floats with a
 * scale per block: FP8, I8, NF4, FP4. An output is one chain of FMAs over K (or a block), so speed
 * comes from many chains at once: panels side by side for one column, tiles of 2 panels × up to 6
 * columns for several.
 *
 * BF16 and FP8 also by BF16 activations, for processors without vdpbf16ps: both sides of a pair
 * change places when they are widened, which costs little beside the products, and FMAs under DAZ
 * and FTZ then follow the chain that kern.h defines.
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
    PAIRS_BF16, /* the weights of KERN_BF16 and CODES_FP8 by BF16 activations */
    PAIRS_FP8,
};

KERN_INLINE bool by_pairs(int t)
{
    return t == PAIRS_BF16 || t == PAIRS_FP8;
}

/* Where value i of K comes in its chain: the second of a pair first. */
KERN_INLINE size_t turn(int t, size_t i)
{
    return by_pairs(t) ? i ^ 1 : i;
}

/* How many of n values enter the chain: whole pairs, the last one filled with zeros. */
KERN_INLINE size_t whole(int t, size_t n)
{
    return by_pairs(t) ? (n + 1) & ~(size_t)1 : n;
}

/* n values, from value `at` of K on, of m columns from col on, in the order of the chain; columns
   lie *lda apart. BF16 is widened into buf; `at` is a multiple of 32. */
KERN_INLINE const float *inputs(int t, float (*buf)[STEP_MAX], const struct kern_x *x, size_t col,
                                size_t m, size_t at, size_t n, size_t *lda)
{
    *lda = by_pairs(t) ? STEP_MAX : x->ldf;
    if (!by_pairs(t))
        return x->f + col * x->ldf + at;
    for (size_t c = 0; c < m; c++)
        for (size_t i = 0; i < n; i += 32) {
            const uint16_t *h = x->h + ((at + i) / 32 * x->cols + col + c) * 32;
            __m512i v = _mm512_rol_epi32(_mm512_load_si512(h), 16);
            __m512i lo = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(v));
            __m512i hi = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(v, 1));
            _mm512_store_si512(buf[c] + i, _mm512_slli_epi32(lo, 16));
            _mm512_store_si512(buf[c] + i + 16, _mm512_slli_epi32(hi, 16));
        }
    return buf[0];
}

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

/* f += n values of G panels × C columns, `lda` apart. */
KERN_INLINE void gemv_step(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w,
                           size_t panel, size_t n, const float *a, size_t lda)
{
    const size_t ahead = fetch_ahead() / (size_t)G,
                 line = t == KERN_F32 ? 1 : 2; /* values in 64 bytes */
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i += line) {
#pragma GCC unroll 4
        for (int g = 0; g < G && t != KERN_F32; g++) /* F32: no gain measured */
            _mm_prefetch((const char *)w + (size_t)g * panel + i * (64 / line) + ahead,
                         _MM_HINT_T0);
#pragma GCC unroll 2
        for (size_t j = 0; j < line; j++) {
            __m512 v[GEMV_PANELS];
            if (i + j >= n)
                break;
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                v[g] = widen(t, w + (size_t)g * panel, turn(t, i + j));
#pragma GCC unroll 4
            for (int c = 0; c < C; c++)
#pragma GCC unroll 4
                for (int g = 0; g < G; g++)
                    f[g][c] =
                        _mm512_fmadd_ps(v[g], _mm512_set1_ps(a[(size_t)c * lda + i + j]), f[g][c]);
        }
    }
}

KERN_INLINE void gemv(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w,
                      size_t panel, size_t k, const struct kern_x *x, size_t col)
{
    const size_t part = by_pairs(t) ? STEP_MAX : k;
    for (size_t at = 0, n, lda; at < k; at += n, w += n * (t == KERN_F32 ? 64 : 32)) {
        _Alignas(64) float buf[THIN][STEP_MAX];
        n = whole(t, part < k - at ? part : k - at);
        const float *a = inputs(t, buf, x, col, (size_t)C, at, n, &lda);
        gemv_step(t, G, C, f, w, panel, n, a, lda);
    }
}

/* n values of K of two panels (16 floats a value) by columns `lda` apart. d: scales of the panels,
   or NULL to add to f as it is. */
struct tile_args {
    float (*f)[2][16];
    const float *w[2];
    size_t n;
    const float *x;
    size_t lda;
    const __m512 *d;
};

KERN_INLINE void tile(int C, const struct tile_args *t)
{
    const float *w0 = t->w[0], *w1 = t->w[1], *x = t->x;
    const size_t n = t->n, lda = t->lda;
    __m512 acc[2][TILE_COLS];
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        acc[0][c] = t->d ? _mm512_setzero_ps() : _mm512_load_ps(t->f[c][0]);
        acc[1][c] = t->d ? _mm512_setzero_ps() : _mm512_load_ps(t->f[c][1]);
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i++) {
        __m512 v0 = _mm512_load_ps(w0 + 16 * i), v1 = _mm512_load_ps(w1 + 16 * i);
#pragma GCC unroll 6
        for (int c = 0; c < C; c++) {
            __m512 v = _mm512_set1_ps(x[(size_t)c * lda + i]);
            acc[0][c] = _mm512_fmadd_ps(v0, v, acc[0][c]);
            acc[1][c] = _mm512_fmadd_ps(v1, v, acc[1][c]);
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++)
        tile_end(t->f[c], acc[0][c], acc[1][c], t->d);
}

TILES(tiles, tile_args, tile(COLS, a))

/* All columns over one step, in groups of equal size. next0, next1: the `bytes` of the next step of
   both panels, or 0 of them. */
KERN_INLINE void step_columns(int t, struct tile_args *a, float (*f)[2][16], const struct kern_x *x,
                              size_t col, size_t cols, size_t at, const uint8_t *next0,
                              const uint8_t *next1, size_t bytes)
{
    _Alignas(64) float buf[TILE_COLS][STEP_MAX];
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    for (size_t g = 0, c = 0, m; g < groups; g++, c += m) {
        m = (cols - c) / (groups - g);
        fetch_next(next0, next1, bytes, g, groups);
        a->f = f + c;
        a->x = inputs(t, buf, x, col + c, m, at, a->n, &a->lda);
        tiles[m - 1](a);
    }
}

KERN_INLINE void gemm_pair(int t, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1, size_t k,
                           size_t s0, size_t s1, const struct kern_x *x, size_t col, size_t cols)
{
    _Alignas(64) float wide[2][STEP][16];
    const size_t size = t == KERN_F32 ? 64 : 32; /* bytes of a value of 16 rows */
    /* F32 is a plain stream, which the processor foresees */
    const size_t bytes = t == KERN_F32 ? 0 : STEP * size;
    for (size_t s = s0; s < s1; s++) {
        size_t i = s * STEP, next = next_step(w0, w1, 0, STEP * size, s, s0, s1);
        struct tile_args a = {.n = whole(t, k - i < STEP ? k - i : STEP)};
        a.w[0] = (const float *)(const void *)w0 + 16 * i;
        a.w[1] = (const float *)(const void *)w1 + 16 * i;
        if (t != KERN_F32) {
            for (size_t j = 0; j < a.n; j++) {
                _mm512_store_ps(wide[0][j], widen(t, w0, i + turn(t, j)));
                _mm512_store_ps(wide[1][j], widen(t, w1, i + turn(t, j)));
            }
            a.w[0] = wide[0][0];
            a.w[1] = wide[1][0];
        }
        step_columns(t, &a, f, x, col, cols, i, w0 + next, w1 + next, bytes);
    }
}

/* ---- codes of floats ---- */

KERN_INLINE bool nibbles(int t)
{
    return t == CODES_NF4 || t == CODES_FP4;
}

KERN_INLINE bool is_fp8(int t)
{
    return t == CODES_FP8 || t == PAIRS_FP8;
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
    if (is_fp8(t)) { /* the sign, spread by the widening, must leave bit 14 */
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
    return is_fp8(t) ? _mm512_mul_ps(d, _mm512_set1_ps(256)) : d;
}

/* s += values i, i + 1 of G panels × those of C columns, `lda` apart; without the second of them if
   it is `one`. */
KERN_INLINE void gemv_pair(int t, int G, int C, __m512 s[GEMV_PANELS][THIN], __m512 levels,
                           const uint8_t *codes, size_t panel, size_t i, const float *a, size_t lda,
                           bool one)
{
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
        __m512 v[2];
        widen_codes(t, levels, codes + (size_t)g * panel, i, v);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            const float *p = a + (size_t)c * lda + i;
            s[g][c] = _mm512_fmadd_ps(v[turn(t, 0)], _mm512_set1_ps(p[0]), s[g][c]);
            if (!one)
                s[g][c] = _mm512_fmadd_ps(v[turn(t, 1)], _mm512_set1_ps(p[1]), s[g][c]);
        }
    }
}

KERN_INLINE void gemv_codes(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w,
                            size_t panel, size_t k, const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead() / (size_t)G, block = code_block(t), line = code_line(t);
    const __m512 levels = code_levels(t);
    for (size_t at = 0, lda; at < k; at += block, w += code_group(t)) {
        _Alignas(64) float buf[THIN][STEP_MAX];
        size_t n = whole(t, k - at < block ? k - at : block), i = 0;
        const float *a = inputs(t, buf, x, col, (size_t)C, at, n, &lda);
        __m512 s[GEMV_PANELS][THIN];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
#pragma GCC unroll 4
            for (int c = 0; c < C; c++)
                s[g][c] = _mm512_setzero_ps();
            _mm_prefetch((const char *)w + (size_t)g * panel + ahead, _MM_HINT_T0);
        }
        for (const uint8_t *p = w + 64 + ahead; i + line <= n; i += line, p += 64) {
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                _mm_prefetch((const char *)p + (size_t)g * panel, _MM_HINT_T0);
#pragma GCC unroll 4
            for (size_t j = 0; j < line; j += 2)
                gemv_pair(t, G, C, s, levels, w + 64, panel, i + j, a, lda, false);
        }
        for (; i < n; i += 2)
            gemv_pair(t, G, C, s, levels, w + 64, panel, i, a, lda, i + 1 == n);
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
            __m512 d = code_scale(t, w + (size_t)g * panel);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++)
                f[g][c] = _mm512_fmadd_ps(s[g][c], d, f[g][c]);
        }
    }
}

KERN_INLINE void gemm_codes(int t, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1,
                            size_t k, size_t s0, size_t s1, const struct kern_x *x, size_t col,
                            size_t cols)
{
    _Alignas(64) float wide[2][STEP_MAX][16];
    const size_t block = code_block(t), group = code_group(t);
    const __m512 levels = code_levels(t);
    for (size_t s = s0; s < s1; s++) {
        const uint8_t *p[2] = {w0 + s * group, w1 + s * group};
        size_t i = s * block, next = next_step(w0, w1, 0, group, s, s0, s1);
        __m512 d[2], v[2];
        struct tile_args a = {.w = {wide[0][0], wide[1][0]}, .d = d};
        a.n = whole(t, k - i < block ? k - i : block);
        for (int g = 0; g < 2; g++) {
            for (size_t j = 0; j < a.n; j += 2) {
                widen_codes(t, levels, p[g] + 64, j, v);
                _mm512_store_ps(wide[g][j], v[turn(t, 0)]);
                _mm512_store_ps(wide[g][j + 1], v[turn(t, 1)]);
            }
            d[g] = code_scale(t, p[g]);
        }
        step_columns(t, &a, f, x, col, cols, i, w0 + next, w1 + next, group);
    }
}

/* Not inlined, as MXCSR changes around it. */
#define MUL(name, t, layout, few, pair, step, part)                                         \
    static __attribute__((noinline)) void run_##name(const struct mul_args *m)              \
    {                                                                                       \
        if (m->cols <= THIN)                                                                \
            gemv_some(t, few, m);                                                           \
        else                                                                                \
            gemm_blocks(t, pair, m, (m->k + (step)-1) / (step), part);                      \
    }                                                                                       \
    static void mul_##name(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,   \
                           const struct kern_x *x, size_t col0, size_t cols)                \
    {                                                                                       \
        unsigned csr = _mm_getcsr();                                                        \
        if (by_pairs(t))                                                                    \
            _mm_setcsr(csr | FLUSH);                                                        \
        run_##name(&(struct mul_args){y, ldy, w, layout.bytes(k), rows, k, x, col0, cols}); \
        if (by_pairs(t))                                                                    \
            _mm_setcsr(csr);                                                                \
    }
#define MUL_FLOAT(name, t, layout) MUL(name, t, layout, gemv, gemm_pair, STEP, PART_STEPS)
#define MUL_CODES(name, t, layout) \
    MUL(name, t, layout, gemv_codes, gemm_codes, code_block(t), PART_VALUES / code_block(t))

MUL_FLOAT(f32, KERN_F32, panel_f32)
MUL_FLOAT(f16, KERN_F16, panel_f16)
MUL_FLOAT(bf16, PAIRS_BF16, panel_bf16)
MUL_FLOAT(bf16_f32, KERN_BF16, panel_bf16)
MUL_CODES(fp8, PAIRS_FP8, panel_code8)
MUL_CODES(fp8_f32, CODES_FP8, panel_code8)
MUL_CODES(i8, CODES_I8, panel_code8)
MUL_CODES(nf4, CODES_NF4, panel_code4)
MUL_CODES(fp4, CODES_FP4, panel_code4)

void kern_init_avx512_mul(struct kern *k)
{
    k->mul[QUANT_F32].mul = mul_f32;
    k->mul[QUANT_F16].mul = mul_f16;
    k->mul[QUANT_BF16].mul = mul_bf16;
    k->mul[QUANT_BF16].mul_f32 = mul_bf16_f32;
    k->mul[QUANT_FP8].mul = mul_fp8;
    k->mul[QUANT_FP8].mul_f32 = mul_fp8_f32;
    k->mul[QUANT_I8].mul = mul_i8;
    k->mul[QUANT_NF4].mul = mul_nf4;
    k->mul[QUANT_FP4].mul = mul_fp4;
}
