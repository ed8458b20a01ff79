/*
 * Products of the types with few bits and blocks of 256: IQ4_XS, Q3_K, Q2_K, TQ and, with VBMI, the
 * codebook types (vbmi_grid.h). The loops around are those of avx512_blocks.h, the forms of
 * activations those of all K-quants.
 *
 * Few columns: quants are unpacked in registers, 32 values of a panel at a time, and the integer
 * scale of the sub-block multiplies each dot.
 *
 * Several columns: a step of 256 values of two panels is unpacked to bytes once. Where quant ×
 * scale fits into a byte the bytes hold that product, and a step is nothing but 64 vpdpbusd a
 * column and panel ("flat"): TQ has no scales; Q2_K has 0..3 × 0..15; Q3_K has (−4..3) × (−32..31),
 * in −124..128, which 127 makes unsigned. Other types multiply the dot of each sub-block by its
 * scale in 32 bits.
 *
 * Sums stay below 2^31 in all forms: |Σ| ≤ 8 × 32 × 32 × 255 × 127 < 2^28.
 */
#ifndef PONDER_KERNELS_X86_VNNI_LOW_H
#define PONDER_KERNELS_X86_VNNI_LOW_H

#include "kernels/x86/vnni_gemm.h"
#include "kernels/x86/vnni_gemv.h"

enum low {
    LOW_IQ4_XS,
    LOW_Q3_K,
    LOW_Q2_K,
    LOW_TQ2_0,
    LOW_TQ1_0,
    LOW_IQ2_XXS, /* from here on codebooks */
    LOW_IQ3_XXS,
    LOW_IQ2_XS,
    LOW_IQ2_S,
    LOW_IQ3_S,
    LOW_IQ1_S,
    LOW_IQ1_M,
};

/* Bytes of a block of 16 rows. */
KERN_INLINE size_t low_bytes(enum low t)
{
    static const uint16_t bytes[] = {2176, 1728, 1344, 1024, 832, 1024,
                                     1536, 1152, 1280, 1728, 768, 896};
    return bytes[t];
}

KERN_INLINE bool low_is_grid(enum low t)
{
    return t >= LOW_IQ2_XXS;
}

KERN_INLINE bool low_is_ternary(enum low t)
{
    return t == LOW_TQ2_0 || t == LOW_TQ1_0;
}

/* Whether d lies in front of all blocks of a panel. */
KERN_INLINE bool low_has_head(enum low t)
{
    return t != LOW_IQ4_XS && t != LOW_Q2_K && t != LOW_IQ1_M;
}

KERN_INLINE bool low_has_min(enum low t)
{
    return t == LOW_Q2_K;
}

/* Whether a step's bytes hold quant × scale. */
KERN_INLINE bool low_is_flat(enum low t)
{
    return t == LOW_Q3_K || t == LOW_Q2_K || low_is_ternary(t);
}

/* Values that share a scale. */
KERN_INLINE int low_sub(enum low t)
{
    return t == LOW_Q3_K || t == LOW_Q2_K || t == LOW_IQ2_XS || t == LOW_IQ2_S || t == LOW_IQ1_M
               ? 16
               : 32;
}

/* What was added to make the bytes of a step unsigned. */
KERN_INLINE int low_offset(enum low t)
{
    return t == LOW_IQ4_XS  ? 128
           : t == LOW_Q3_K  ? 127
           : t == LOW_Q2_K  ? 0
           : low_is_grid(t) ? 64
                            : 1;
}

#ifdef __AVX512VBMI__
#include "kernels/x86/vbmi_grid.h"
#else
/* Without VBMI codebooks are left to AVX2; these stand for functions that nobody calls. */
KERN_INLINE void grid_unpack(enum low t, const uint8_t *w, unsigned s, __m512i v[8])
{
}

KERN_INLINE void grid_scales(enum low t, const uint8_t *w, __m512i sc[4])
{
}

KERN_INLINE __m512 grid_d(enum low t, const uint8_t *w, const uint8_t *head)
{
    return _mm512_setzero_ps();
}
#endif

/* The first digit, 0..2, of base-3 fractions, whose k first digits are dropped before. */
KERN_INLINE __m512i ternary_digit(__m512i v, int k)
{
    for (int i = 0; i < k; i++)
        v = _mm512_add_epi8(v, _mm512_add_epi8(v, v));
    __m512i one = _mm512_maskz_mov_epi8(_mm512_cmpge_epu8_mask(v, ones8(86)), ones8(1));
    return _mm512_mask_mov_epi8(one, _mm512_cmpge_epu8_mask(v, ones8(171)), ones8(2));
}

/* Runs of 8, 4 and 1 vectors hold 5, 5 and 4 digits each. */
KERN_INLINE void unpack_tq1(const uint8_t *w, unsigned s, __m512i v[8])
{
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
        unsigned at = 8 * (s - 5) + i; /* behind the first run */
        if (s < 5)
            v[i] = ternary_digit(load(w + 64 * i), (int)s);
        else if (at < 20)
            v[i] = ternary_digit(load(w + 64 * (8 + at % 4)), (int)at / 4);
        else
            v[i] = ternary_digit(load(w + 64 * 12), (int)at - 20);
    }
}

/* Sub-block s (0..7) of 32 values, unsigned: IQ4_XS plus 128, Q3_K plus 4, others plus their
 * offset.
 */
KERN_INLINE void low_unpack(enum low t, const uint8_t *w, unsigned s, __m512i v[8])
{
    if (t == LOW_IQ4_XS) {
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            __m512i x = load(w + 128 + 256 * s + 64 * i);
            v[i] = _mm512_shuffle_epi8(iq4_levels(), low4(x));
            v[4 + i] = _mm512_shuffle_epi8(iq4_levels(), high4(x));
        }
        return;
    }
    if (low_is_grid(t)) {
        grid_unpack(t, w, s, v);
        return;
    }
    if (t == LOW_TQ1_0) {
        unpack_tq1(w, s, v);
        return;
    }
    const uint8_t *q = w + (t == LOW_Q3_K ? 512 : t == LOW_Q2_K ? 256 : 0) + 512 * (s / 4);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = _mm512_and_si512(_mm512_srli_epi32(load(q + 64 * i), 2 * (s % 4)), ones8(3));
        if (t == LOW_Q3_K) {
            __m512i h = load(w + 64 * i);
            h = s < 2 ? _mm512_slli_epi32(h, 2 - s) : _mm512_srli_epi32(h, s - 2);
            v[i] = and_or(h, ones8(4), v[i]);
        }
    }
}

/* Scales (signed) and minima of a block as bytes: sub-block i is byte i % 4 of the dwords of sc[i /
   4]. */
KERN_INLINE void low_scales(enum low t, const uint8_t *w, __m512i sc[4], __m512i mn[4])
{
    const __m512i bias = ones8(32), top = ones8(0x30);
    if (low_is_ternary(t))
        return;
    if (low_is_grid(t)) {
        grid_scales(t, w, sc);
        return;
    }
    if (t == LOW_IQ4_XS) { /* eight nibbles in a dword, eight pairs of bits in a half */
        const __m512i low2 = _mm512_broadcast_i32x4(
            _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
        __m512i high = _mm512_srli_epi32(load(w), 16), low = load(w + 64);
#pragma GCC unroll 2
        for (unsigned i = 0; i < 2; i++) {
            __m512i n = _mm512_shuffle_epi8(_mm512_srli_epi32(low, 16 * i), low2);
            __m512i h = _mm512_srli_epi32(high, 8 * i);
            n = low4(_mm512_or_si512(n, _mm512_slli_epi32(n, 4)));
#pragma GCC unroll 4
            for (unsigned b = 0; b < 4; b++)
                n = and_or(_mm512_slli_epi32(h, 4 + 6 * b), _mm512_set1_epi32(0x30 << 8 * b), n);
            sc[i] = _mm512_sub_epi8(n, bias);
        }
        return;
    }
    if (t == LOW_Q3_K) {
        __m512i a = load(w + 64 * 24), b = load(w + 64 * 25), c = load(w + 64 * 26);
        sc[0] = _mm512_sub_epi8(and_or(_mm512_slli_epi32(c, 4), top, low4(a)), bias);
        sc[1] = _mm512_sub_epi8(and_or(_mm512_slli_epi32(c, 2), top, low4(b)), bias);
        sc[2] = _mm512_sub_epi8(and_or(c, top, high4(a)), bias);
        sc[3] = _mm512_sub_epi8(and_or(_mm512_srli_epi32(c, 2), top, high4(b)), bias);
        return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i v = load(w + 64 * i);
        sc[i] = low4(v);
        mn[i] = high4(v);
    }
}

/* d of a block at w, whose place in the panel's head is `head`; dmin where there is one. */
KERN_INLINE __m512 low_d(enum low t, const uint8_t *w, const uint8_t *head)
{
    if (low_is_grid(t))
        return grid_d(t, w, head);
    if (low_has_head(t))
        return half16(head);
    return half_of(load(w + (t == LOW_Q2_K ? 64 * 20 : 0)), 0);
}

KERN_INLINE __m512 low_dmin(const uint8_t *w)
{
    return half_of(load(w + 64 * 20), 1);
}

/* Bytes in front of the blocks of a panel of n blocks. */
KERN_INLINE size_t low_head(enum low t, size_t n)
{
    return low_has_head(t) ? (32 * n + 63) / 64 * 64 : 0;
}

/* Signed byte b of each dword as the pair of words (byte, 0). */
KERN_INLINE __m512i low_word_of(__m512i v, unsigned b)
{
    const __m128i at = _mm_setr_epi8(-128, 0, -128, -128, -128, 4, -128, -128, -128, 8, -128, -128,
                                     -128, 12, -128, -128);
    v = _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_add_epi8(at, _mm_set1_epi8((char)b))));
    return _mm512_srai_epi16(v, 8);
}

/* Σ of 16 sub-blocks of (signed byte of v) × sum of activations. */
KERN_INLINE __m512i low_sums(const __m512i v[4], const int16_t *sum16)
{
    __m512i sum = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        sum = _mm512_dpwssd_epi32(sum, signed_pair(v[i / 2], i % 2), spread(sum16 + 2 * i));
    return sum;
}

/* ---- few columns
 * ----------------------------------------------------------------------------------- */

/* −offset × sum in all lanes. */
KERN_INLINE __m512i low_start(enum low t, int sum)
{
    return _mm512_set1_epi32(-low_offset(t) * sum);
}

/* acc + dot × scale b of the bytes of sc. */
KERN_INLINE __m512i low_scaled(__m512i acc, __m512i dot, __m512i sc, unsigned b)
{
    return _mm512_add_epi32(acc, _mm512_mullo_epi32(dot, signed_byte_of(sc, b)));
}

/* acc + scale × dot over sub-block s of 32, whose quants are v. at: place of the block's sums. */
KERN_INLINE __m512i low_sub_dot(enum low t, __m512i acc, const __m512i v[8], const __m512i sc[4],
                                const int8_t *a, unsigned s, const struct kern_x *x, size_t at)
{
    const __m512i zero = _mm512_setzero_si512();
    const int16_t *sum16 = x->sum16 + at * 16 + 2 * s, *sum32 = x->sum32 + at * 8 + s;
    const unsigned b = s % 2 * 2; /* first scale of 16 */
    if (low_is_ternary(t))
        return _mm512_add_epi32(acc, dot(low_start(t, *sum32), v, a, 8));
    if (low_sub(t) == 32)
        return low_scaled(acc, dot(low_start(t, *sum32), v, a, 8), sc[s / 4], s % 4);
    if (low_is_grid(t)) {
        acc = low_scaled(acc, dot(low_start(t, sum16[0]), v, a, 4), sc[s / 2], b);
        return low_scaled(acc, dot(low_start(t, sum16[1]), v + 4, a + 16, 4), sc[s / 2], b + 1);
    }
    /* dots of 16 fit into a word: 16 × 7 × 127 */
    acc = _mm512_dpwssd_epi32(acc, dot(zero, v, a, 4), low_word_of(sc[s / 2], b));
    return _mm512_dpwssd_epi32(acc, dot(zero, v + 4, a + 16, 4), low_word_of(sc[s / 2], b + 1));
}

/* What a block at w adds to f, whose integer dot is acc. */
KERN_INLINE __m512 low_end(enum low t, __m512 f, __m512i acc, const uint8_t *w, const uint8_t *head,
                           const __m512i sc[4], const __m512i mn[4], const struct kern_x *x,
                           size_t at)
{
    const int16_t *sum16 = x->sum16 + at * 16;
    __m512 xd = _mm512_set1_ps(x->d[at]);
    if (t == LOW_Q3_K)
        acc = _mm512_sub_epi32(acc, _mm512_slli_epi32(low_sums(sc, sum16), 2));
    f = _mm512_fmadd_ps(_mm512_mul_ps(low_d(t, w, head), xd), _mm512_cvtepi32_ps(acc), f);
    if (low_has_min(t))
        f = _mm512_fnmadd_ps(_mm512_mul_ps(low_dmin(w), xd),
                             _mm512_cvtepi32_ps(low_sums(mn, sum16)), f);
    return f;
}

/* The product of a panel and C columns: a THIN_FN. */
KERN_INLINE void low_thin(int type, int C, __m512 f[THIN], const uint8_t *w, size_t k,
                          const struct kern_x *x, size_t col)
{
    const enum low t = (enum low)type;
    const size_t ahead = fetch_ahead(), step = x->cols * 32;
    const uint8_t *body = w + low_head(t, k / 256);
    const int8_t *a = x->q + col * 32;
    __m512 sum[THIN];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        sum[c] = f[c];
#pragma GCC unroll 1
    for (size_t i = 0; i < k / 256; i++, body += low_bytes(t), a += 8 * step) {
        size_t at = i * x->cols + col;
        __m512i sc[4], mn[4], acc[THIN];
        low_scales(t, body, sc, mn);
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            acc[c] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (unsigned s = 0; s < 8; s++) {
            __m512i v[8];
            fetch_part(body + ahead, low_bytes(t), s, 8);
            low_unpack(t, body, s, v);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++)
                acc[c] = low_sub_dot(t, acc[c], v, sc, a + s * step + 32 * c, s, x, at + (size_t)c);
            if (low_is_grid(t) || s % 2) /* later loads stay behind, else registers spill */
                __asm__ volatile("" : : : "memory");
        }
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            sum[c] = low_end(t, sum[c], acc[c], body, w + 32 * i, sc, mn, x, at + (size_t)c);
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        f[c] = sum[c];
}

/* ---- several columns
 * ------------------------------------------------------------------------------- */

/* A step of 256 values of two panels. [..][2] is the panel. */
struct low_step {
    __m512i w[64][2];
    __m512i sc[16][2]; /* scales, of types that are not flat */
    __m512i mn[8][2];  /* minima as pairs of words */
    __m512 d[2], dmin[2];
};

/* 32 values of quants times their scales, which are bytes i and i + 1 of sc, as unsigned bytes.
   Only the low byte of each product counts, so words may carry anything above. */
KERN_INLINE void low_fold(enum low t, __m512i v[8], __m512i sc, unsigned i)
{
#pragma GCC unroll 2
    for (unsigned h = 0; h < 2; h++) {
        const __m512i at = _mm512_broadcast_i32x4(
            _mm_add_epi8(_mm_setr_epi8(0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12),
                         _mm_set1_epi8((char)(i + h))));
        __m512i s = _mm512_shuffle_epi8(sc, at), s2 = _mm512_add_epi8(s, s);
        __m512i add = _mm512_sub_epi8(ones8(low_offset(t)), _mm512_add_epi8(s2, s2));
#pragma GCC unroll 4
        for (unsigned j = 4 * h; j < 4 * h + 4; j++) {
            __m512i hi = _mm512_mullo_epi16(_mm512_srli_epi16(v[j], 8), s);
            v[j] = _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAA, _mm512_mullo_epi16(v[j], s),
                                          _mm512_slli_epi16(hi, 8));
            if (t == LOW_Q3_K) /* quants are too large by 4 */
                v[j] = _mm512_add_epi8(v[j], add);
        }
    }
}

KERN_INLINE void low_step_unpack(enum low t, struct low_step *s, const uint8_t *w,
                                 const uint8_t *head, int g)
{
    __m512i sc[4], mn[4];
    low_scales(t, w, sc, mn);
#pragma GCC unroll 8
    for (unsigned u = 0; u < 8; u++) {
        __m512i v[8];
        low_unpack(t, w, u, v);
        if (low_is_flat(t) && !low_is_ternary(t))
            low_fold(t, v, sc[u / 2], u % 2 * 2);
#pragma GCC unroll 8
        for (unsigned i = 0; i < 8; i++)
            s->w[8 * u + i][g] = v[i];
    }
    if (!low_is_flat(t))
#pragma GCC unroll 16
        for (unsigned i = 0; i < 256 / (unsigned)low_sub(t); i++)
            s->sc[i][g] = signed_byte_of(sc[i / 4], i % 4);
    s->d[g] = low_d(t, w, head);
    if (low_has_min(t)) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            s->mn[i][g] = byte_pair(mn[i / 2], i % 2);
        s->dmin[g] = low_dmin(w);
    }
}

/* C columns from `col` on over a step, which is block `block` of 256. */
KERN_INLINE void low_tile(enum low t, int C, float f[][2][16], const struct low_step *s,
                          const struct kern_x *x, size_t block, size_t col)
{
    const bool flat = low_is_flat(t);
    const __m512i off = _mm512_set1_epi16((short)-low_offset(t));
    size_t at = block * x->cols + col;
    const int8_t *a = x->q + (8 * block * x->cols + col) * 32;
    __m512i acc[2][TILE_COLS];
    const int pieces = 32 / low_sub(t), n = 8 / pieces; /* of 32 values, dword vectors of each */
    _Alignas(64) int32_t start[TILE_COLS][16];          /* of sub-blocks: −offset × Σ a */
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        const int16_t *sum32 = x->sum32 + (at + (size_t)c) * 8;
        __m512i total = _mm512_setzero_si512();
        if (flat && low_offset(t))
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                total = _mm512_dpwssd_epi32(total, off, spread(sum32 + 2 * i));
        acc[0][c] = acc[1][c] = total;
        if (!flat && pieces == 1)
            _mm256_store_si256(
                (void *)start[c],
                _mm256_mullo_epi32(_mm256_cvtepi16_epi32(_mm_load_si128((const void *)sum32)),
                                   _mm256_set1_epi32(-low_offset(t))));
        if (!flat && pieces == 2)
            _mm512_store_si512(
                start[c], _mm512_mullo_epi32(_mm512_cvtepi16_epi32(_mm256_load_si256(
                                                 (const void *)(x->sum16 + (at + (size_t)c) * 16))),
                                             _mm512_set1_epi32(-low_offset(t))));
    }
#pragma GCC unroll 1
    for (int b = 0; b < 8; b++, a += x->cols * 32) {
        if (flat) {
            tile_dot(C, acc, s->w + 8 * b, a, 8);
            continue;
        }
#pragma GCC unroll 2
        for (int p = 0; p < pieces; p++) {
            __m512i sum[2][TILE_COLS];
#pragma GCC unroll 6
            for (int c = 0; c < C; c++)
                sum[0][c] = sum[1][c] = _mm512_set1_epi32(start[c][pieces * b + p]);
            tile_dot(C, sum, s->w + 8 * b + n * p, a + 4 * n * p, n);
#pragma GCC unroll 6
            for (int c = 0; c < C; c++)
#pragma GCC unroll 2
                for (int g = 0; g < 2; g++)
                    acc[g][c] = _mm512_add_epi32(
                        acc[g][c], _mm512_mullo_epi32(sum[g][c], s->sc[pieces * b + p][g]));
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        __m512 xd = _mm512_set1_ps(x->d[at + (size_t)c]);
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            __m512 v = _mm512_load_ps(f[c][g]);
            v = _mm512_fmadd_ps(_mm512_mul_ps(s->d[g], xd), _mm512_cvtepi32_ps(acc[g][c]), v);
            if (low_has_min(t)) {
                __m512i mins = _mm512_setzero_si512();
#pragma GCC unroll 8
                for (int i = 0; i < 8; i++)
                    mins = _mm512_dpwssd_epi32(mins, s->mn[i][g],
                                               spread(x->sum16 + (at + (size_t)c) * 16 + 2 * i));
                v = _mm512_fnmadd_ps(_mm512_mul_ps(s->dmin[g], xd), _mm512_cvtepi32_ps(mins), v);
            }
            _mm512_store_ps(f[c][g], v);
        }
    }
}

struct low_args {
    float (*f)[2][16];
    const struct low_step *s;
    const struct kern_x *x;
    size_t block, col;
};

#define LOW_TILES(t) \
    TILES(t##_tiles, low_args, low_tile(t, COLS, a->f, a->s, a->x, a->block, a->col))

LOW_TILES(LOW_IQ4_XS)
LOW_TILES(LOW_Q3_K)
LOW_TILES(LOW_Q2_K)
LOW_TILES(LOW_TQ2_0)
LOW_TILES(LOW_IQ2_XXS)
LOW_TILES(LOW_IQ2_XS)

/* Codebook types differ only in the size of sub-blocks once they are unpacked. */
KERN_INLINE void (*const *low_tiles(enum low t))(const struct low_args *)
{
    if (low_is_grid(t))
        return low_sub(t) == 16 ? LOW_IQ2_XS_tiles : LOW_IQ2_XXS_tiles;
    return t == LOW_IQ4_XS ? LOW_IQ4_XS_tiles
           : t == LOW_Q3_K ? LOW_Q3_K_tiles
           : t == LOW_Q2_K ? LOW_Q2_K_tiles
                           : LOW_TQ2_0_tiles;
}

/* The product of a pair of panels: a PAIR_FN. */
KERN_INLINE void low_pair(int type, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1,
                          size_t k, size_t s0, size_t s1, const struct kern_x *x, size_t col,
                          size_t cols)
{
    const enum low t = (enum low)type;
    void (*const *tile)(const struct low_args *) = low_tiles(t);
    struct low_step s;
    struct low_args a = {.s = &s, .x = x};
    const size_t bytes = low_bytes(t), head = low_head(t, k / 256);
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    for (a.block = s0; a.block < s1; a.block++) {
        size_t here = head + a.block * bytes;
        size_t next = next_step(w0, w1, head, bytes, a.block, s0, s1);
        low_step_unpack(t, &s, w0 + here, w0 + 32 * a.block, 0);
        low_step_unpack(t, &s, w1 + here, w1 + 32 * a.block, 1);
        for (size_t i = 0, c = 0, n; i < groups; i++, c += n) {
            n = (cols - c) / (groups - i);
            fetch_next(w0 + next, w1 + next, bytes, i, groups);
            a.f = f + c;
            a.col = col + c;
            tile[n - 1](&a);
        }
    }
}

/* The kern_mul.mul of a type. */
#define LOW_MUL(t, layout)                                                                 \
    static void mul_LOW_##t(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                            const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                      \
        struct mul_args m = {y, ldy, w, layout.bytes(k), rows, k, x, col0, cols};          \
        if (cols <= THIN)                                                                  \
            thin_rows(LOW_##t, low_thin, &m);                                              \
        else                                                                               \
            gemm_blocks(LOW_##t, low_pair, &m, k / 256, PART_STEPS);                       \
    }

#endif
