/*
 * Products of BF16 and FP8 weights with the dot products of AVX-512 BF16 (vdpbf16ps): both values
 * of a pair, 16 rows, one instruction. It reads and writes numbers below the normal ones as zero
 * whatever MXCSR says, and takes the second value of a pair first: kern.h defines the chain so.
 *
 * BF16 goes straight from its panels. FP8 (e4m3 × 2^-8, exact in BF16) is widened by moving its
 * bits; its subnormal codes, which BF16 has as normal numbers, come from a table. Up to THIN
 * columns widen in registers, more of them a block of two panels at a time into 8 KiB of stack. A
 * block's sums start at 0 and enter the output's chain by an FMA, which MXCSR makes flush as well.
 *
 * A dot product takes six cycles and two can begin in one, so twelve chains are wanted, and more
 * let the processor look ahead: tiles of 2 panels × 6 to 8 columns, and several panels side by side
 * when columns are few.
 */
#include "kernels/x86/avx512_blocks.h"

enum {
    BLOCK = 128,       /* values of K of a step: a block of FP8 */
    PAIRS = BLOCK / 2, /* of a step */
    WIDE_COLS = 8,     /* columns of a tile */
    PART_STEPS = 8,    /* activations of NB columns of a part of K are 192 KiB */
    FP8_GROUP = 64 + BLOCK * 16,
    BF16_GROUP = BLOCK * 32,
};

enum weights { W_BF16, W_FP8 };

KERN_INLINE size_t group_bytes(int t)
{
    return t == W_FP8 ? FP8_GROUP : BF16_GROUP;
}

/* Pair i of a group of a panel, 16 rows. */
KERN_INLINE __m512i pair_at(int t, const uint8_t *w, size_t i)
{
    if (t == W_BF16)
        return _mm512_load_si512(w + 64 * i);
    /* m × 2^-17 */
    const __m512i small = _mm512_castsi128_si512(
        _mm_setr_epi16(0, 0x3700, 0x3780, 0x37c0, 0x3800, 0x3820, 0x3840, 0x3860));
    __m512i h = _mm512_cvtepi8_epi16(_mm256_load_si256((const void *)(w + 64 + 32 * i)));
    __m512i v = _mm512_and_si512(_mm512_slli_epi16(h, 4), _mm512_set1_epi16(0x7f0));
    v = _mm512_add_epi16(v, _mm512_set1_epi16(0x3800));
    v = _mm512_mask_permutexvar_epi16(v, _mm512_testn_epi16_mask(h, _mm512_set1_epi16(0x78)), h,
                                      small);
    return _mm512_ternarylogic_epi32(h, _mm512_set1_epi16((short)0x8000), v, 0xea); /* a & b | c */
}

KERN_INLINE __m512 scale_of(const uint8_t *w)
{
    return _mm512_mul_ps(_mm512_load_ps(w), _mm512_set1_ps(256));
}

KERN_INLINE __m512 dot(__m512 f, __m512i w, __m512i x)
{
    return _mm512_dpbf16_ps(f, (__m512bh)w, (__m512bh)x);
}

/* ---- few columns ---- */

/* s += n pairs of a group of G panels × C columns; at most 16 pairs, of one block of columns. */
KERN_INLINE void thin_pairs(int t, int G, int C, __m512 s[GEMV_PANELS][THIN], const uint8_t *w,
                            size_t panel, size_t i0, size_t n, const uint16_t *x, size_t ahead)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < n; i++) {
        __m512i v[GEMV_PANELS];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
            const uint8_t *p = w + (size_t)g * panel;
            v[g] = pair_at(t, p, i0 + i);
            if (t == W_BF16 || i % 2 == 0)
                _mm_prefetch((const char *)p + (t == W_BF16 ? 64 : 32) * (i0 + i) + ahead,
                             _MM_HINT_T0);
        }
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
            __m512i a = spread(x + 32 * c + 2 * i);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++)
                s[g][c] = dot(s[g][c], v[g], a);
        }
    }
}

KERN_INLINE void thin_group(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w,
                            size_t panel, size_t pairs, const uint16_t *x, size_t step)
{
    const size_t ahead = fetch_ahead() / (size_t)G;
    __m512 s[GEMV_PANELS][THIN];
#pragma GCC unroll 4
    for (int g = 0; g < G; g++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            s[g][c] = t == W_FP8 ? _mm512_setzero_ps() : f[g][c];
    for (size_t i = 0; i < pairs; i += 16, x += step)
        if (pairs - i >= 16)
            thin_pairs(t, G, C, s, w, panel, i, 16, x, ahead);
        else
            thin_pairs(t, G, C, s, w, panel, i, pairs - i, x, ahead);
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) {
        __m512 d = t == W_FP8 ? scale_of(w + (size_t)g * panel) : _mm512_setzero_ps();
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            f[g][c] = t == W_FP8 ? _mm512_fmadd_ps(s[g][c], d, f[g][c]) : s[g][c];
    }
}

/* A GEMV_FN. */
KERN_INLINE void thin(int t, int G, int C, __m512 f[GEMV_PANELS][THIN], const uint8_t *w,
                      size_t panel, size_t k, const struct kern_x *x, size_t col)
{
    const size_t step = x->cols * 32;
    const uint16_t *h = x->h + col * 32;
    for (size_t at = 0; at < k; at += BLOCK, w += group_bytes(t), h += BLOCK / 32 * step) {
        size_t n = k - at < BLOCK ? k - at : BLOCK;
        thin_group(t, G, C, f, w, panel, (n + 1) / 2, h, step);
    }
}

/* ---- several columns ---- */

/* n pairs of two panels, which have 64 bytes each, by columns: blocks of 32 values of a column lie
   `step` apart. d: scales of the panels, or NULL to add to f as it is. */
struct tile_args {
    float (*f)[2][16];
    const uint8_t *w[2];
    size_t n;
    const uint16_t *x;
    size_t step;
    const __m512 *d;
};

KERN_INLINE void tile(int C, const struct tile_args *t)
{
    const uint8_t *w0 = t->w[0], *w1 = t->w[1];
    const uint16_t *x = t->x;
    const size_t n = t->n;
    __m512 acc[2][WIDE_COLS];
#pragma GCC unroll 8
    for (int c = 0; c < C; c++) {
        acc[0][c] = t->d ? _mm512_setzero_ps() : _mm512_load_ps(t->f[c][0]);
        acc[1][c] = t->d ? _mm512_setzero_ps() : _mm512_load_ps(t->f[c][1]);
    }
    for (size_t at = 0; at < n; at += 16, x += t->step)
#pragma GCC unroll 4
        for (size_t i = 0; i < (n - at < 16 ? n - at : 16); i++) {
            __m512i v0 = _mm512_load_si512(w0 + 64 * (at + i));
            __m512i v1 = _mm512_load_si512(w1 + 64 * (at + i));
#pragma GCC unroll 8
            for (int c = 0; c < C; c++) {
                __m512i a = spread(x + 32 * c + 2 * i);
                acc[0][c] = dot(acc[0][c], v0, a);
                acc[1][c] = dot(acc[1][c], v1, a);
            }
        }
#pragma GCC unroll 8
    for (int c = 0; c < C; c++)
        tile_end(t->f[c], acc[0][c], acc[1][c], t->d);
}

TILES(tiles, tile_args, tile(COLS, a))
TILE_FN(tiles, tile_args, 7, tile(COLS, a))
TILE_FN(tiles, tile_args, 8, tile(COLS, a))

static void tile_run(size_t cols, const struct tile_args *a)
{
    if (cols <= TILE_COLS)
        tiles[cols - 1](a);
    else
        (cols == 7 ? tiles_7 : tiles_8)(a);
}

KERN_INLINE void gemm_pair(int t, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1, size_t k,
                           size_t s0, size_t s1, const struct kern_x *x, size_t col, size_t cols)
{
    _Alignas(64) uint8_t wide[2][PAIRS * 64];
    const size_t group = group_bytes(t), groups = (cols + WIDE_COLS - 1) / WIDE_COLS;
    for (size_t s = s0; s < s1; s++) {
        struct tile_args a = {.w = {w0 + s * group, w1 + s * group}, .step = x->cols * 32};
        size_t next = next_step(w0, w1, 0, group, s, s0, s1);
        const uint16_t *h = x->h + (s * (BLOCK / 32) * x->cols + col) * 32;
        __m512 d[2];
        a.n = ((k - s * BLOCK < BLOCK ? k - s * BLOCK : BLOCK) + 1) / 2;
        a.d = t == W_FP8 ? d : NULL;
        for (int g = 0; g < 2 && t == W_FP8; g++) {
            for (size_t i = 0; i < a.n; i++)
                _mm512_store_si512(wide[g] + 64 * i, pair_at(t, a.w[g], i));
            d[g] = scale_of(a.w[g]);
            a.w[g] = wide[g];
        }
        for (size_t g = 0, c = 0, m; g < groups; g++, c += m) {
            m = (cols - c) / (groups - g);
            fetch_next(w0 + next, w1 + next, group, g, groups);
            a.f = f + c;
            a.x = h + c * 32;
            tile_run(m, &a);
        }
    }
}

/* ---- the types ---- */

KERN_INLINE void mul(int t, const struct mul_args *m)
{
    if (m->cols <= THIN)
        gemv_some(t, thin, m);
    else
        gemm_blocks(t, gemm_pair, m, (m->k + BLOCK - 1) / BLOCK, PART_STEPS);
}

/* Not inlined, as MXCSR changes around it. */
static __attribute__((noinline)) void mul_args_fp8(const struct mul_args *m)
{
    mul(W_FP8, m);
}

static void mul_fp8(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols)
{
    struct mul_args m = {y, ldy, w, panel_code8.bytes(k), rows, k, x, col0, cols};
    unsigned csr = _mm_getcsr();
    _mm_setcsr(csr | FLUSH);
    mul_args_fp8(&m);
    _mm_setcsr(csr);
}

static void mul_bf16(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                     const struct kern_x *x, size_t col0, size_t cols)
{
    struct mul_args m = {y, ldy, w, panel_bf16.bytes(k), rows, k, x, col0, cols};
    mul(W_BF16, &m);
}

void kern_init_bf16_mul(struct kern *k)
{
    k->mul[QUANT_BF16].mul = mul_bf16;
    k->mul[QUANT_FP8].mul = mul_fp8;
}
