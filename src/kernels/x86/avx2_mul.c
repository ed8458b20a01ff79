/*
 * Products of quantized weights on AVX2, also what AVX-512 machines without VNNI use. The bits are
 * those of scalar/mul.c, the panels those of panel.h; a zmm vector of a panel is two ymm halves of
 * 8 rows here.
 *
 * The work horse is vpmaddubsw: unsigned weight bytes × signed activation bytes, pairs added into
 * int16 with saturation. Weights are brought into a form in which no sum can saturate, so that
 * every integer is exact (activations are within ±127):
 *   4 bits (0..15)  16 products a lane: 16 · 15 · 127 = 30480   one vpmaddwd per 8 vpmaddubsw
 *   5 bits (0..31, MXFP4 too)   8 products a lane:  8 · 31 · 127 = 31496   one per 4
 *   6 bits (0..63)   4 products a lane:  4 · 63 · 127 = 32004   one per 2
 *   8 bits, signed   |w| · sign(w)·a: 2 · 128 · 127 = 32512, one vpmaddwd for each
 * vpmaddwd multiplies by the block scale (or 1) and widens to int32. An offset (q − 8 and the like)
 * is taken off by the sums of the activations.
 *
 * Two forms of every kernel, with the same core (dot_32):
 *  - direct, up to 4 columns (Q5_K and Q6_K 1): quants are unpacked in registers on their way to
 * the product;
 *  - wide, more columns: 256 values of the panel are unpacked to bytes once, into 4 KiB of stack
 *    that stay in the first-level cache, and all columns pass over them in register tiles of 16
 *    rows × 2..4 columns. Sums of up to 64 columns wait on the stack as well. Signed types have
 *    little to unpack and stay direct, 4 columns at a time.
 * Activation bytes of consecutive columns lie 32 bytes apart, which both forms rely on.
 *
 * Both ask for the panel's bytes far ahead of their use, a few lines between products: see
 * prefetch.
 */
#include "kernels/kern_internal.h"

#include "base/num.h"
#include "kernels/x86/avx2_dot.h"

#include <string.h>

enum {
    GROUP = 8, /* blocks of 32 that are unpacked at once */
};

/* Where weight bytes come from. */
enum form { DIRECT, WIDE };

/* ---- types: constants that fold away ---- */

KERN_INLINE bool is_signed(enum quant_id t)
{
    return t == QUANT_Q8_0 || t == QUANT_IQ4_NL || t == QUANT_Q8Z;
}

KERN_INLINE bool has_min(enum quant_id t)
{
    return t == QUANT_Q4_1 || t == QUANT_Q5_1 || t == QUANT_Q4Z || t == QUANT_Q8Z;
}

/* Whether the minimum is stored as a zero point z: −(d × z). */
KERN_INLINE bool has_zero(enum quant_id t)
{
    return t == QUANT_Q4Z || t == QUANT_Q8Z;
}

KERN_INLINE bool has_fifth(enum quant_id t)
{
    return t == QUANT_Q5_0 || t == QUANT_Q5_1;
}

/* How many vpmaddubsw results an int16 lane holds. */
KERN_INLINE int chain_of(enum quant_id t)
{
    if (t == QUANT_Q6_K)
        return 2;
    return has_fifth(t) || t == QUANT_Q5_K || t == QUANT_MXFP4 ? 4 : 8;
}

/* log2 of what the weights of a block of 32 are too large by; 0 where they are right. */
KERN_INLINE int offset_bits(enum quant_id t)
{
    return t == QUANT_Q4_0 ? 3 : t == QUANT_Q5_0 || t == QUANT_MXFP4 ? 4 : 0;
}

/* ---- quants of blocks of 32 ---- */

/* A block of 32 in a panel: its quants and where d is (m lies 32 bytes behind). */
struct place {
    const uint8_t *q, *d;
};

KERN_INLINE size_t pair_bytes(enum quant_id t)
{
    return t == QUANT_Q8_0   ? 1088
           : t == QUANT_Q5_0 ? 704
           : t == QUANT_Q4_1 ? 640
           : t == QUANT_Q4Z  ? 640
           : t == QUANT_Q5_1 ? 768
           : t == QUANT_Q8Z  ? 1152
                             : 576;
}

KERN_INLINE struct place place_of(enum quant_id t, const uint8_t *panel, size_t b)
{
    if (has_min(t)) { /* each block by itself */
        const uint8_t *p = panel + b * (pair_bytes(t) / 2);
        return (struct place){p + 64, p};
    }
    const uint8_t *p = panel + b / 2 * pair_bytes(t);
    return (struct place){p + 64 + b % 2 * (pair_bytes(t) / 2 - 32),
                          p + b % 2 * (t == QUANT_MXFP4 ? 16 : 32)};
}

/* Scales of the rows of half h. */
KERN_INLINE __m256 scales(enum quant_id t, struct place p, size_t h)
{
    if (t != QUANT_MXFP4)
        return halves(p.d + 16 * h);
    /* half of 2^(e - 127): the exponent e - 1, or a subnormal where that is not positive */
    __m256i e = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p.d + 8 * h)));
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, is_small));
}

/* Minima of the rows of half h, whose scales are d. */
KERN_INLINE __m256 minima(enum quant_id t, struct place p, size_t h, __m256 d)
{
    __m256 m = halves(p.d + 32 + 16 * h);
    return has_zero(t) ? _mm256_xor_ps(_mm256_mul_ps(d, m), _mm256_set1_ps(-0.0f)) : m;
}

/* Values 4i..4i+3 of the rows of half h: unsigned, or signed for the signed types. */
KERN_INLINE __m256i fetch_32(enum quant_id t, const uint8_t *q, size_t i, size_t h)
{
    q += 32 * h;
    if (t == QUANT_Q8_0 || t == QUANT_Q8Z)
        return load(q + 64 * i);
    if (has_fifth(t))
        q += 64;
    __m256i v = nibble(load(q + 64 * (i % 4)), i / 4);
    if (t == QUANT_IQ4_NL) {
        const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(
            -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
        return _mm256_shuffle_epi8(table, v);
    }
    if (t == QUANT_MXFP4) { /* doubled, plus 16 */
        const __m256i table = _mm256_broadcastsi128_si256(
            _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
        return _mm256_shuffle_epi8(table, v);
    }
    if (has_fifth(t)) {
        __m256i bits = load(q - 64);
        bits =
            i < 4 ? _mm256_slli_epi16(bits, (int)(4 - i)) : _mm256_srli_epi16(bits, (int)(i - 4));
        v = _mm256_or_si256(v, _mm256_and_si256(bits, _mm256_set1_epi8(16)));
    }
    return v;
}

/* ---- quants of blocks of 256 ---- */

/*
 * Sub-blocks of 32 are visited as an outer and a fixed inner number, so that shifts are constants
 * while the code stays small: block_no says which one that is.
 */
KERN_INLINE size_t inner_count(enum quant_id t)
{
    return t == QUANT_Q4_K ? 2 : 4;
}

KERN_INLINE size_t block_no(enum quant_id t, size_t outer, size_t inner)
{
    if (t == QUANT_Q5_K) /* inner / 2: which half of the bits of qh, and so the shift's direction */
        return inner / 2 * 4 + 2 * outer + inner % 2;
    return outer * inner_count(t) + inner;
}

/* Values 4i..4i+3 of a sub-block, unsigned; w points to the block's quants (K types: ql or qs). */
KERN_INLINE __m256i fetch_256(enum quant_id t, const uint8_t *w, size_t outer, size_t inner,
                              size_t i, size_t h)
{
    size_t b = block_no(t, outer, inner);
    w += 32 * h + 64 * i;
    if (t == QUANT_Q6_K) { /* 128 values: 16 vectors of low bits, 8 of high bits */
        __m256i v = nibble(load(w + outer * 1024 + inner % 2 * 512), inner / 2);
        __m256i u = load(w + 2048 + outer * 512);
        if (inner == 0)
            u = _mm256_slli_epi16(u, 4);
        else if (inner == 1)
            u = _mm256_slli_epi16(u, 2);
        else if (inner == 3)
            u = _mm256_srli_epi16(u, 2);
        return _mm256_or_si256(v, _mm256_and_si256(u, _mm256_set1_epi8(0x30)));
    }
    __m256i v = nibble(load(w + b / 2 * 512), inner % 2);
    if (t == QUANT_Q5_K) { /* bit b of qh, which lies in front of qs */
        __m256i u = load(w - 512), n = _mm256_set1_epi32((int)(2 * outer + inner % 2));
        u = inner < 2 ? _mm256_sllv_epi32(u, _mm256_sub_epi32(_mm256_set1_epi32(4), n))
                      : _mm256_srlv_epi32(u, n);
        v = _mm256_or_si256(v, _mm256_and_si256(u, _mm256_set1_epi8(16)));
    }
    return v;
}

/* Everything of a block of 256 but its quants. */
struct head {
    __m256i scale[16][2]; /* int16, twice in each dword: 8 sub-blocks of 32, Q6_K 16 of 16 */
    __m256i pair[8][2];   /* two int16 a dword: 4 × minima, Q6_K 8 × scales */
    __m256 d[2], dmin[2];
};

/* Q4_K and Q5_K: d|dmin, then 12 bytes of 6-bit scales and minima in three dwords. */
KERN_INLINE void head_k45(struct head *hd, const uint8_t *w)
{
    const __m256i m6 = _mm256_set1_epi8(63), m4 = _mm256_set1_epi8(15), top = _mm256_set1_epi8(48);
    for (size_t h = 0; h < 2; h++, w += 32) {
        __m256i dd = load(w), a = load(w + 64), b = load(w + 128), c = load(w + 192);
        __m256i s[2] = {_mm256_and_si256(a, m6), _mm256_and_si256(_mm256_srli_epi16(a, 2), top)};
        __m256i m[2] = {_mm256_and_si256(b, m6), _mm256_and_si256(_mm256_srli_epi16(b, 2), top)};
        s[1] = _mm256_or_si256(s[1], _mm256_and_si256(c, m4));
        m[1] = _mm256_or_si256(m[1], _mm256_and_si256(_mm256_srli_epi16(c, 4), m4));
        hd->d[h] = low_halves(dd);
        hd->dmin[h] = low_halves(_mm256_srli_epi32(dd, 16));
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++)
            hd->scale[i][h] = twice(s[i / 4], i % 4);
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            hd->pair[i][h] = couple(m[i / 2], i % 2 * 2);
    }
}

/* Q6_K: signed bytes; the shuffles put them into the upper byte, the shift extends the sign. */
KERN_INLINE void head_k6(struct head *hd, const uint8_t *scales, const uint8_t *d)
{
    for (size_t h = 0; h < 2; h++) {
        hd->d[h] = halves(d + 16 * h);
#pragma GCC unroll 4
        for (size_t v = 0; v < 4; v++) {
            __m256i s = load(scales + 64 * v + 32 * h);
#pragma GCC unroll 4
            for (size_t i = 0; i < 4; i++)
                hd->scale[4 * v + i][h] = twice_signed(s, i);
            hd->pair[2 * v][h] = couple_signed(s, 0);
            hd->pair[2 * v + 1][h] = couple_signed(s, 2);
        }
    }
}

KERN_INLINE size_t bytes_256(enum quant_id t)
{
    return t == QUANT_Q4_K ? 2304 : t == QUANT_Q5_K ? 2816 : 3328;
}

/* Block `b` of a panel: head into *hd; returns where its quants begin. */
KERN_INLINE const uint8_t *open_256(struct head *hd, enum quant_id t, const uint8_t *panel,
                                    size_t blocks, size_t b)
{
    if (t == QUANT_Q6_K) {
        const uint8_t *w = panel + num_round_up(blocks * 32, KERN_ALIGN) + b * bytes_256(t);
        head_k6(hd, w + 3072, panel + b * 32);
        return w;
    }
    const uint8_t *w = panel + b * bytes_256(t);
    head_k45(hd, w);
    return w + (t == QUANT_Q4_K ? 256 : 768);
}

/* ---- the core ---- */

KERN_INLINE __m256i fetch(enum quant_id t, enum form form, const uint8_t *w, size_t outer,
                          size_t inner, size_t i, size_t h)
{
    return form == WIDE                         ? load(w + 64 * i + 32 * h)
           : t >= QUANT_Q4_K && t <= QUANT_Q6_K ? fetch_256(t, w, outer, inner, i, h)
                                                : fetch_32(t, w, i, h);
}

/*
 * acc[h][c] += Σ over 32 values of scale · quant · activation, for 16 rows and C columns 32 bytes
 * apart.
 */
KERN_INLINE void dot_32(__m256i acc[2][TILE_COLS], enum quant_id t, enum form form,
                        const uint8_t *w, size_t outer, size_t inner, const __m256i (*scale)[2],
                        const int8_t *x, size_t C)
{
    __m256i sum[2][TILE_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m256i v[2] = {fetch(t, form, w, outer, inner, (size_t)i, 0),
                        fetch(t, form, w, outer, inner, (size_t)i, 1)};
        dot_part(acc, sum, i, chain_of(t), v, scale[0], x, C);
    }
}

/* The same where a sum is of two products (Q6_K): column by column, so that the accumulators are
   what stays in registers. scale[n][h] belongs to the n-th 16 values. */
KERN_INLINE void dot_32_pairs(__m256i acc[2][TILE_COLS], enum quant_id t, enum form form,
                              const uint8_t *w, size_t outer, size_t inner,
                              const __m256i (*scale)[2], const int8_t *x, size_t C)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 8; i += 2) {
        __m256i v[2][2];
#pragma GCC unroll 4
        for (size_t n = 0; n < 4; n++)
            v[n / 2][n % 2] = fetch(t, form, w, outer, inner, i + n / 2, n % 2);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256i a = splat(x + 32 * c + 4 * i), b = splat(x + 32 * c + 4 * i + 4);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i p = _mm256_add_epi16(_mm256_maddubs_epi16(v[0][h], a),
                                             _mm256_maddubs_epi16(v[1][h], b));
                p = _mm256_madd_epi16(p, scale[i / 4][h]);
                acc[h][c] = keep(_mm256_add_epi32(acc[h][c], p));
            }
        }
    }
}

/* The same for signed weights, straight from the panel: the sign goes to the activation. */
KERN_INLINE void dot_32_signed(__m256i acc[2][TILE_COLS], enum quant_id t, const uint8_t *w,
                               const int8_t *x, size_t C)
{
    const __m256i one = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++) {
        __m256i v[2] = {fetch_32(t, w, i, 0), fetch_32(t, w, i, 1)};
        __m256i size[2] = {_mm256_abs_epi8(v[0]), _mm256_abs_epi8(v[1])};
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256i a = splat(x + 32 * c + 4 * i);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i p = _mm256_maddubs_epi16(size[h], _mm256_sign_epi8(a, v[h]));
                acc[h][c] = keep(_mm256_add_epi32(acc[h][c], _mm256_madd_epi16(p, one)));
            }
        }
    }
}

/* ---- blocks of 32 ---- */

/* Eight unpacked blocks. */
struct wide_32 {
    _Alignas(64) uint8_t q[GROUP][512];
    __m256 d[GROUP][2], m[GROUP][2];
};

KERN_INLINE void unpack_32(struct wide_32 *o, enum quant_id t, const uint8_t *panel, size_t b0,
                           size_t n)
{
    for (size_t b = 0; b < n; b++) {
        struct place p = place_of(t, panel, b0 + b);
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++)
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++)
                _mm256_store_si256((__m256i *)(o->q[b] + 64 * i + 32 * h), fetch_32(t, p.q, i, h));
        for (size_t h = 0; h < 2; h++) {
            o->d[b][h] = scales(t, p, h);
            if (has_min(t))
                o->m[b][h] = minima(t, p, h, o->d[b][h]);
        }
    }
}

/* f (C × 16 sums) over one block; `at` is the place of its first column in the arrays of x. */
KERN_INLINE void finish_32(float *f, enum quant_id t, const __m256i acc[2][TILE_COLS],
                           const __m256 d[2], const __m256 m[2], const struct kern_x *x, size_t at,
                           size_t C)
{
    const int bits = offset_bits(t);
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++) {
        __m256 xd = _mm256_set1_ps(x->d[at + c]);
        __m256i off = _mm256_setzero_si256();
        if (bits)
            off = _mm256_slli_epi32(splat(x->sum + at + c), bits);
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256i dot = _mm256_sub_epi32(acc[h][c], off);
            __m256 y = _mm256_load_ps(f + 16 * c + 8 * h);
            y = _mm256_fmadd_ps(_mm256_mul_ps(d[h], xd), _mm256_cvtepi32_ps(dot), y);
            if (has_min(t))
                y = _mm256_fmadd_ps(m[h], _mm256_set1_ps(x->s[at + c]), y);
            _mm256_store_ps(f + 16 * c + 8 * h, y);
        }
    }
}

KERN_INLINE void block_32(float *f, enum quant_id t, enum form form, const uint8_t *q,
                          const __m256 d[2], const __m256 m[2], const struct kern_x *x, size_t at,
                          size_t C)
{
    const __m256i ones[1][2] = {{_mm256_set1_epi16(1), _mm256_set1_epi16(1)}};
    const int8_t *xq = x->q + at * 32;
    __m256i acc[2][TILE_COLS];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_si256();
    if (is_signed(t))
        dot_32_signed(acc, t, q, xq, C);
    else
        dot_32(acc, t, form, q, 0, 0, ones, xq, C);
    finish_32(f, t, (const __m256i(*)[TILE_COLS])acc, d, m, x, at, C);
}

KERN_INLINE void direct_32(float *f, enum quant_id t, const uint8_t *panel, const struct kern_x *x,
                           size_t blocks, size_t col, size_t C)
{
    for (size_t b = 0; b < blocks; b++) {
        struct place p = place_of(t, panel, b);
        __m256 d[2], m[2];
        prefetch(panel + b / 2 * pair_bytes(t), pair_bytes(t), b % 2, 2);
        for (size_t h = 0; h < 2; h++) {
            d[h] = scales(t, p, h);
            m[h] = has_min(t) ? minima(t, p, h, d[h]) : d[h];
        }
        block_32(f, t, DIRECT, p.q, d, m, x, b * x->cols + col, C);
    }
}

/* n unpacked blocks from block b0 over C columns. */
KERN_INLINE void tile_32(float *f, enum quant_id t, const struct wide_32 *w, size_t b0, size_t n,
                         const struct kern_x *x, size_t col, size_t C)
{
    for (size_t b = 0; b < n; b++)
        block_32(f, t, WIDE, w->q[b], w->d[b], w->m[b], x, (b0 + b) * x->cols + col, C);
}

/* ---- blocks of 256 ---- */

struct wide_256 {
    _Alignas(64) uint8_t q[8][512];
    struct head head;
};

KERN_INLINE void unpack_256(struct wide_256 *o, enum quant_id t, const uint8_t *panel,
                            size_t blocks, size_t b)
{
    const uint8_t *w = open_256(&o->head, t, panel, blocks, b);
    const size_t inner = inner_count(t);
    for (size_t j = 0; j < 8 / inner; j++)
#pragma GCC unroll 4
        for (size_t s = 0; s < inner; s++)
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
#pragma GCC unroll 2
                for (size_t h = 0; h < 2; h++)
                    _mm256_store_si256((__m256i *)(o->q[block_no(t, j, s)] + 64 * i + 32 * h),
                                       fetch_256(t, w, j, s, i, h));
}

/* f (C × 16 sums) over one block; `at` is the place of its first column in x->d. */
KERN_INLINE void finish_256(float *f, enum quant_id t, const __m256i acc[2][TILE_COLS],
                            const struct head *hd, const struct kern_x *x, size_t at, size_t C)
{
    const size_t pairs = t == QUANT_Q6_K ? 8 : 4;
    const int16_t *sums = t == QUANT_Q6_K ? x->sum16 + at * 16 : x->sum32 + at * 8;
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++, sums += 2 * pairs) {
        __m256 xd = _mm256_set1_ps(x->d[at + c]);
        __m256i off[2];
#pragma GCC unroll 8
        for (size_t i = 0; i < pairs; i++) {
            __m256i s = splat(sums + 2 * i);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i p = _mm256_madd_epi16(hd->pair[i][h], s);
                off[h] = i ? _mm256_add_epi32(off[h], p) : p;
            }
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256 y = _mm256_load_ps(f + 16 * c + 8 * h), d = _mm256_mul_ps(hd->d[h], xd);
            __m256i sum = acc[h][c];
            if (t == QUANT_Q6_K)
                sum = _mm256_sub_epi32(sum, _mm256_slli_epi32(off[h], 5));
            y = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sum), y);
            if (t != QUANT_Q6_K) {
                __m256 dm = _mm256_mul_ps(hd->dmin[h], xd);
                y = _mm256_fnmadd_ps(dm, _mm256_cvtepi32_ps(off[h]), y);
            }
            _mm256_store_ps(f + 16 * c + 8 * h, y);
        }
    }
}

KERN_INLINE void block_256(float *f, enum quant_id t, enum form form, const uint8_t *q,
                           const struct head *hd, const struct kern_x *x, size_t b, size_t col,
                           size_t C)
{
    const size_t inner = form == WIDE ? 1 : inner_count(t), scales = t == QUANT_Q6_K ? 2 : 1;
    const int8_t *xq = x->q + (b * 8 * x->cols + col) * 32;
    const size_t step = x->cols * 32;
    __m256i acc[2][TILE_COLS];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_si256();
    size_t groups = 8 / inner;
    __asm__("" : "+r"(groups)); /* else gcc unrolls all of it: a third slower with one column */
    for (size_t j = 0; j < groups; j++)
#pragma GCC unroll 4
        for (size_t s = 0; s < inner; s++) {
            size_t n = form == WIDE ? j : block_no(t, j, s);
            if (form == DIRECT) {
                /* else gcc keeps what sub-blocks share (bytes that hold bits of several) on the
                   stack, and gathers the fetches in one place */
                __asm__("" : "+r"(q), "+x"(acc[0][0]));
                prefetch(q, bytes_256(t), j * inner + s, 8);
            }
            (t == QUANT_Q6_K ? dot_32_pairs : dot_32)(acc, t, form, form == WIDE ? q + n * 512 : q,
                                                      j, s, hd->scale + n * scales, xq + n * step,
                                                      C);
        }
    finish_256(f, t, (const __m256i(*)[TILE_COLS])acc, hd, x, b * x->cols + col, C);
}

KERN_INLINE void direct_256(float *f, enum quant_id t, const uint8_t *panel, const struct kern_x *x,
                            size_t blocks, size_t col, size_t C)
{
    for (size_t b = 0; b < blocks; b++) {
        struct head hd;
        const uint8_t *q = open_256(&hd, t, panel, blocks, b);
        if (t == QUANT_Q6_K && b == 0)
            prefetch(panel, num_round_up(blocks * 32, 64), 0, 1); /* d of all blocks */
        block_256(f, t, DIRECT, q, &hd, x, b, col, C);
    }
}

/* ---- one panel over all columns ---- */

union wide {
    struct wide_32 b32;
    struct wide_256 b256;
};

/* The kernels of one type; index C − 1 for the number of columns. Signed types are never wide. */
struct kernels {
    void (*direct[TILE_COLS])(float *f, const uint8_t *panel, const struct kern_x *x, size_t blocks,
                              size_t col);
    void (*unpack)(union wide *o, const uint8_t *panel, size_t blocks, size_t b, size_t n);
    void (*tile[TILE_COLS])(float *f, const union wide *w, size_t b, size_t n,
                            const struct kern_x *x, size_t col);
    const struct panel_layout *layout;
    size_t block, group; /* values of a block, blocks of an unpacking (256 values) */
    size_t direct_cols;  /* more columns are wide */
};

static void panel_direct(const struct kernels *kn, float *f, const uint8_t *panel,
                         const struct kern_x *x, size_t blocks, size_t col, size_t cols)
{
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    for (size_t c = 0; c < cols; groups--) {
        size_t width = (cols - c + groups - 1) / groups; /* even, so that none is ragged */
        kn->direct[width - 1](f + 16 * c, panel, x, blocks, col + c);
        c += width;
    }
}

static void panel_wide(const struct kernels *kn, float *f, const uint8_t *panel,
                       const struct kern_x *x, size_t blocks, size_t col, size_t cols)
{
    union wide w;
    size_t bytes = kn->layout->bytes(256), all = (cols + TILE_COLS - 1) / TILE_COLS;
    for (size_t b = 0, at = 0; b < blocks; b += kn->group, at += bytes) {
        size_t n = num_min(kn->group, blocks - b), tiles = all;
        kn->unpack(&w, panel, blocks, b, n);
        for (size_t c = 0; c < cols; tiles--) {
            size_t width = (cols - c + tiles - 1) / tiles;
            prefetch(panel + at, bytes, all - tiles, all);
            kn->tile[width - 1](f + 16 * c, &w, b, n, x, col + c);
            c += width;
        }
    }
}

/* Columns in chunks of even size whose activations stay in the second cache over all panels. */
static void mul(const struct kernels *kn, float *y, size_t ldy, const uint8_t *w, size_t rows,
                size_t k, const struct kern_x *x, size_t col0, size_t cols)
{
    _Alignas(64) float f[CHUNK_COLS * 16];
    size_t panel = kn->layout->bytes(k), chunks = (cols + CHUNK_COLS - 1) / CHUNK_COLS;
    size_t blocks = num_round_up(k, kn->block == 32 ? 64 : 256) / kn->block;
    for (size_t c = 0, m; c < cols; c += m, chunks--) {
        m = (cols - c + chunks - 1) / chunks;
        for (size_t r = 0; r < rows; r += 16) {
            memset(f, 0, m * 16 * sizeof *f);
            (kn->unpack && m > kn->direct_cols ? panel_wide : panel_direct)(
                kn, f, w + r / 16 * panel, x, blocks, col0 + c, m);
            store_sums(y + c * ldy + r, ldy, f, num_min(16, rows - r), m);
        }
    }
}

/* ---- the types ---- */

#define DIRECT_FN(name, size, id, C)                                                      \
    static void name##_direct_##C(float *f, const uint8_t *panel, const struct kern_x *x, \
                                  size_t blocks, size_t col)                              \
    {                                                                                     \
        direct_##size(f, id, panel, x, blocks, col, C);                                   \
    }
#define DIRECT_FNS(name, size, id) \
    DIRECT_FN(name, size, id, 1)   \
    DIRECT_FN(name, size, id, 2)   \
    DIRECT_FN(name, size, id, 3)   \
    DIRECT_FN(name, size, id, 4)
#define WIDE_FN(name, size, id, C)                                                 \
    static void name##_tile_##C(float *f, const union wide *w, size_t b, size_t n, \
                                const struct kern_x *x, size_t col)                \
    {                                                                              \
        TILE_##size(f, id, w, b, n, x, col, C);                                    \
    }
#define WIDE_FNS(name, size, id)                                                            \
    WIDE_FN(name, size, id, 1)                                                              \
    WIDE_FN(name, size, id, 2)                                                              \
    WIDE_FN(name, size, id, 3)                                                              \
    WIDE_FN(name, size, id, 4)                                                              \
    static void name##_unpack(union wide *o, const uint8_t *panel, size_t blocks, size_t b, \
                              size_t n)                                                     \
    {                                                                                       \
        UNPACK_##size(o, id, panel, blocks, b, n);                                          \
    }
#define TILE_32(f, id, w, b, n, x, col, C) tile_32(f, id, &(w)->b32, b, n, x, col, C)
#define TILE_256(f, id, w, b, n, x, col, C) \
    block_256(f, id, WIDE, (w)->b256.q[0], &(w)->b256.head, x, b, col, C)
#define UNPACK_32(o, id, panel, blocks, b, n) unpack_32(&(o)->b32, id, panel, b, n)
#define UNPACK_256(o, id, panel, blocks, b, n) unpack_256(&(o)->b256, id, panel, blocks, b)

#define MUL_FN(name)                                                                      \
    static void name##_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        mul(&name##_kernels, y, ldy, w, rows, k, x, col0, cols);                          \
    }

#define TYPE(name, size, id, direct_cols)                                     \
    DIRECT_FNS(name, size, id)                                                \
    WIDE_FNS(name, size, id)                                                  \
    static const struct kernels name##_kernels = {                            \
        {name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4}, \
        name##_unpack,                                                        \
        {name##_tile_1, name##_tile_2, name##_tile_3, name##_tile_4},         \
        &panel_##name,                                                        \
        size,                                                                 \
        256 / size,                                                           \
        direct_cols};                                                         \
    MUL_FN(name)

#define SIGNED_TYPE(name, id)                                                           \
    DIRECT_FNS(name, 32, id)                                                            \
    static const struct kernels name##_kernels = {                                      \
        .direct = {name##_direct_1, name##_direct_2, name##_direct_3, name##_direct_4}, \
        .layout = &panel_##name,                                                        \
        .block = 32};                                                                   \
    MUL_FN(name)

#define panel_iq4_nl panel_q4_0
#define panel_q4z panel_q4_1
SIGNED_TYPE(q8_0, QUANT_Q8_0)
SIGNED_TYPE(iq4_nl, QUANT_IQ4_NL)
SIGNED_TYPE(q8z, QUANT_Q8Z)
TYPE(q4_0, 32, QUANT_Q4_0, TILE_COLS)
TYPE(q4_1, 32, QUANT_Q4_1, TILE_COLS)
TYPE(q5_0, 32, QUANT_Q5_0, TILE_COLS)
TYPE(q5_1, 32, QUANT_Q5_1, TILE_COLS)
TYPE(mxfp4, 32, QUANT_MXFP4, TILE_COLS)
TYPE(q4z, 32, QUANT_Q4Z, TILE_COLS)
TYPE(q4_k, 256, QUANT_Q4_K, TILE_COLS)
TYPE(q5_k, 256, QUANT_Q5_K, 1)
TYPE(q6_k, 256, QUANT_Q6_K, 1)

void kern_init_avx2_mul(struct kern *k)
{
    k->mul[QUANT_Q8_0].mul = q8_0_mul;
    k->mul[QUANT_Q4_0].mul = q4_0_mul;
    k->mul[QUANT_Q4_1].mul = q4_1_mul;
    k->mul[QUANT_Q5_0].mul = q5_0_mul;
    k->mul[QUANT_Q5_1].mul = q5_1_mul;
    k->mul[QUANT_IQ4_NL].mul = iq4_nl_mul;
    k->mul[QUANT_MXFP4].mul = mxfp4_mul;
    k->mul[QUANT_Q4Z].mul = q4z_mul;
    k->mul[QUANT_Q8Z].mul = q8z_mul;
    k->mul[QUANT_Q4_K].mul = q4_k_mul;
    k->mul[QUANT_Q5_K].mul = q5_k_mul;
    k->mul[QUANT_Q6_K].mul = q6_k_mul;
}
