/*
 * Products of the types with few bits and blocks of 256 on AVX2: IQ4_XS, Q3_K, Q2_K, TQ and the
 * codebook types. The bits are those of scalar/mul.c, the way of exact integers is that of
 * avx2_mul.c: weights become unsigned bytes so small that sums of vpmaddubsw results fit into
 * int16, and vpmaddwd multiplies those by the scale of the sub-block.
 *
 *   TQ 0..2, Q2_K 0..3, Q3_K 0..7   8 products a lane: 8 · 7 · 127 = 7112 (TQ 16: 4064)
 *   IQ1 7..25, IQ3_S 1..31 (+ 16)   8 products a lane: 8 · 31 · 127 = 31496
 *   IQ2 21..107, IQ3_XXS 2..126 (+ 64)  2 products a lane: 2 · 126 · 127 = 32004
 *   IQ4_XS                 two planes of 4 bits, w + 128 = 16·hi + lo, 16 products a lane:
 *                          16 · 15 · 127 = 30480; the upper plane's scale is 16 times the lower's
 *
 * Up to 4 columns of IQ4_XS go straight from the panel, with |w| and the sign on the activation.
 * Else 256 values of a panel are unpacked once, into at most 8 KiB of stack, and all columns pass
 * over them in register tiles of 16 rows × 1..4 columns. Sums of up to 64 columns wait on the
 * stack. Codebook rows are loaded one by one: a gather costs as much or more.
 */
#include "kernels/x86/avx2_dot.h"

#include "base/num.h"
#include "quant/q_iq_tables.h"

#include <string.h>

/* ---- types: constants that fold away ---- */

KERN_INLINE bool is_ternary(enum quant_id t)
{
    return t == QUANT_TQ1_0 || t == QUANT_TQ2_0;
}

KERN_INLINE bool is_iq1(enum quant_id t)
{
    return t == QUANT_IQ1_S || t == QUANT_IQ1_M;
}

/* log2 of what weights are too large by; Q2_K has none. */
KERN_INLINE int offset_bits(enum quant_id t)
{
    return t == QUANT_IQ4_XS               ? 7
           : t == QUANT_Q3_K               ? 2
           : is_ternary(t)                 ? 0
           : is_iq1(t) || t == QUANT_IQ3_S ? 4
                                           : 6;
}

KERN_INLINE int planes(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 2 : 1;
}

/* Values that share a scale. */
KERN_INLINE size_t sub_of(enum quant_id t)
{
    return t == QUANT_Q2_K || t == QUANT_Q3_K || t == QUANT_IQ2_XS || t == QUANT_IQ2_S ||
                   t == QUANT_IQ1_M
               ? 16
               : 32;
}

/* How many vpmaddubsw results an int16 lane holds; those of a sub-block at most. */
KERN_INLINE int chain_of(enum quant_id t)
{
    if (t == QUANT_IQ4_XS || is_ternary(t))
        return 8;
    return t == QUANT_Q2_K || t == QUANT_Q3_K || is_iq1(t) || t == QUANT_IQ3_S ? 4 : 1;
}

KERN_INLINE size_t block_bytes(enum quant_id t)
{
    switch (t) {
    case QUANT_IQ4_XS:
        return 2176;
    case QUANT_Q3_K:
        return 1728;
    case QUANT_Q2_K:
        return 1344;
    case QUANT_TQ2_0:
        return 1024;
    case QUANT_TQ1_0:
        return 832;
    case QUANT_IQ2_XXS:
        return 1024;
    case QUANT_IQ3_XXS:
        return 1536;
    case QUANT_IQ2_XS:
        return 1152;
    case QUANT_IQ2_S:
        return 1280;
    case QUANT_IQ3_S:
        return 1728;
    case QUANT_IQ1_S:
        return 768;
    default:
        return 896; /* IQ1_M */
    }
}

/* Whether d lies in front of all blocks, and what it is multiplied by. */
KERN_INLINE bool has_head(enum quant_id t)
{
    return t != QUANT_IQ4_XS && t != QUANT_Q2_K && t != QUANT_IQ1_M;
}

KERN_INLINE float unit_of(enum quant_id t)
{
    if (t == QUANT_IQ3_XXS)
        return 0.25f;
    return is_iq1(t) || t == QUANT_IQ2_XXS || t == QUANT_IQ2_XS || t == QUANT_IQ2_S ? 0.125f : 1;
}

/* ---- unpacking ---- */

/* A block of 256 of 16 rows; the last index is the half of the rows. */
struct block {
    _Alignas(64) uint8_t q[2][8][512]; /* plane, sub-block of 32 */
    __m256i scale[2][16][2];           /* plane, sub-block: int16, twice in each dword */
    __m256i pair[8][2]; /* scales (for the offset) or minima of two sub-blocks in a dword */
    __m256 d[2], dmin[2];
};

/* Sub-blocks 4 v .. 4 v + 3: their scales (signed bytes) and what meets the sums of activations. */
KERN_INLINE void put_scales(struct block *o, enum quant_id t, size_t v, size_t h, __m256i sc,
                            __m256i met)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        __m256i s = twice_signed(sc, i);
        o->scale[0][4 * v + i][h] = s;
        if (planes(t) == 2)
            o->scale[1][4 * v + i][h] = _mm256_slli_epi16(s, 4);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++)
        o->pair[2 * v + i][h] = couple_signed(met, 2 * i);
}

KERN_INLINE __m256i or_bits(__m256i v, __m256i bits, __m256i mask)
{
    return _mm256_or_si256(v, _mm256_and_si256(bits, mask));
}

KERN_INLINE __m256i iq4_levels(void)
{
    return _mm256_broadcastsi128_si256(
        _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}

/* All but the quants. */
KERN_INLINE void head_iq4_xs(struct block *o, const uint8_t *w)
{
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    for (size_t h = 0; h < 2; h++) {
        __m256i head = load(w + 32 * h), nibbles = load(w + 64 + 32 * h);
        o->d[h] = low_halves(head);
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            __m256i n = _mm256_shuffle_epi8(_mm256_srli_epi32(nibbles, 16 * v), spread);
            __m256i pairs = _mm256_srli_epi32(head, 16 + 8 * v);
            n = nibble(_mm256_or_si256(n, _mm256_slli_epi32(n, 4)), 0);
#pragma GCC unroll 4
            for (int b = 0; b < 4; b++)
                n = or_bits(n, _mm256_slli_epi32(pairs, 4 + 6 * b),
                            _mm256_set1_epi32(0x30 << 8 * b));
            n = _mm256_sub_epi8(n, _mm256_set1_epi8(32));
            put_scales(o, QUANT_IQ4_XS, (size_t)v, h, n, n);
        }
    }
}

KERN_INLINE void unpack_iq4_xs(struct block *o, const uint8_t *w)
{
    const __m256i levels = _mm256_xor_si256(_mm256_set1_epi8(-128), iq4_levels());
    const __m256i low = nibble(levels, 0), high = nibble(levels, 1);
    head_iq4_xs(o, w);
    for (size_t s = 0; s < 8; s++)
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            __m256i x = load(w + 128 + 256 * s + 32 * i);
            __m256i lo = nibble(x, 0), hi = nibble(x, 1);
            _mm256_store_si256((__m256i *)(o->q[0][s] + 32 * i), _mm256_shuffle_epi8(low, lo));
            _mm256_store_si256((__m256i *)(o->q[1][s] + 32 * i), _mm256_shuffle_epi8(high, lo));
            _mm256_store_si256((__m256i *)(o->q[0][s] + 256 + 32 * i),
                               _mm256_shuffle_epi8(low, hi));
            _mm256_store_si256((__m256i *)(o->q[1][s] + 256 + 32 * i),
                               _mm256_shuffle_epi8(high, hi));
        }
}

/* Two bits of each value at q and, where `high` is not NULL, a third one. */
KERN_INLINE void unpack_bits(struct block *o, const uint8_t *q, const uint8_t *high)
{
    const __m256i two = _mm256_set1_epi8(3), third = _mm256_set1_epi8(4);
    for (size_t i = 0; i < 16; i++) { /* half vectors of 32 values */
        __m256i h = high ? load(high + 32 * i) : two;
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            __m256i x = load(q + 512 * half + 32 * i);
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++) {
                __m256i v = _mm256_and_si256(_mm256_srli_epi16(x, 2 * s), two);
                int bit = 4 * (int)half + s;
                if (high)
                    v = or_bits(
                        v, bit < 2 ? _mm256_slli_epi16(h, 2 - bit) : _mm256_srli_epi16(h, bit - 2),
                        third);
                _mm256_store_si256((__m256i *)(o->q[0][bit] + 32 * i), v);
            }
        }
    }
}

KERN_INLINE void unpack_q3_k(struct block *o, const uint8_t *w)
{
    const __m256i top = _mm256_set1_epi8(0x30);
    for (size_t h = 0; h < 2; h++) {
        __m256i low[2] = {load(w + 1536 + 32 * h), load(w + 1600 + 32 * h)};
        __m256i high = load(w + 1664 + 32 * h);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i u =
                v < 2 ? _mm256_slli_epi16(high, 4 - 2 * v) : _mm256_srli_epi16(high, 2 * v - 4);
            __m256i s = or_bits(nibble(low[v % 2], (size_t)v / 2), u, top);
            s = _mm256_sub_epi8(s, _mm256_set1_epi8(32));
            put_scales(o, QUANT_Q3_K, (size_t)v, h, s, s);
        }
    }
    unpack_bits(o, w + 512, w);
}

KERN_INLINE void unpack_q2_k(struct block *o, const uint8_t *w)
{
    for (size_t h = 0; h < 2; h++) {
        __m256i dd = load(w + 1280 + 32 * h);
        o->d[h] = low_halves(dd);
        o->dmin[h] = low_halves(_mm256_srli_epi32(dd, 16));
        for (size_t v = 0; v < 4; v++) {
            __m256i s = load(w + 64 * v + 32 * h);
            put_scales(o, QUANT_Q2_K, v, h, nibble(s, 0), nibble(s, 1));
        }
    }
    unpack_bits(o, w + 256, NULL);
}

/* Ternary digits plus 1 have no scales but d. */
KERN_INLINE void unpack_ternary(struct block *o, enum quant_id t, const uint8_t *w)
{
    const __m256i one = _mm256_set1_epi8(1);
    for (size_t v = 0; v < 2; v++)
        for (size_t h = 0; h < 2; h++)
            put_scales(o, t, v, h, one, one);
    if (t == QUANT_TQ2_0) {
        unpack_bits(o, w, NULL);
        return;
    }
    /* Bytes are fractions of base-3 digits: the whole part of three times the fraction is the next
       digit. Runs of 8, 4 and 1 vectors with 5, 5 and 4 digits. */
    for (size_t i = 0; i < 13; i++)
        for (size_t h = 0; h < 2; h++) {
            __m256i x = load(w + 64 * i + 32 * h);
            size_t run = i < 8 ? 8 : i < 12 ? 4 : 1, first = i < 8 ? i : i < 12 ? 32 + i : 48 + i;
            for (size_t k = 0; k < (i < 12 ? 5 : 4); k++) {
                size_t at = first + k * run; /* vector of values 4 at .. 4 at + 3 */
                __m256i ge1 = _mm256_cmpeq_epi8(_mm256_max_epu8(x, _mm256_set1_epi8(86)), x);
                __m256i ge2 = _mm256_cmpeq_epi8(_mm256_max_epu8(x, _mm256_set1_epi8((char)171)), x);
                __m256i v = _mm256_add_epi8(_mm256_and_si256(ge1, one), _mm256_and_si256(ge2, one));
                _mm256_store_si256((__m256i *)(o->q[0][at / 8] + at % 8 * 64 + 32 * h), v);
                x = _mm256_add_epi8(x, _mm256_add_epi8(x, x));
            }
        }
}

/* ---- codebooks ---- */

KERN_INLINE uint64_t word_at(const uint8_t *words, size_t i)
{
    uint64_t v;
    memcpy(&v, words + 8 * i, 8);
    return v;
}

/* Nibble r of the half h of a word, of 8 rows, as dwords. */
KERN_INLINE __m256i nibbles_of(uint64_t word, size_t h)
{
    __m256i v = _mm256_set1_epi32((int)(word >> 32 * h));
    v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    return _mm256_and_si256(v, _mm256_set1_epi32(15));
}

/* All ones in the bytes whose bits are set: bit 4 r + b for byte b of dword r. */
KERN_INLINE __m256i bytes_of(uint64_t word, size_t h)
{
    const __m256i at = _mm256_setr_epi32(0, 0, 0x01010101, 0x01010101, 0x02020202, 0x02020202,
                                         0x03030303, 0x03030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)(word >> 32 * h)), at);
    return _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
}

/* Bit 3 of each nibble of *word becomes the sign that makes the number of signs of it and `first`
   even; returns what stood there as bit 0. */
KERN_INLINE uint64_t even_signs(uint64_t first, uint64_t *word)
{
    const uint64_t low = 0x1111111111111111u;
    uint64_t bit = *word >> 3 & low, v = *word & 7 * low, x = first ^ v;
    x ^= x >> 2;
    x ^= x >> 1;
    *word = v | (x & low) << 3;
    return bit;
}

/* Sixteen scales 2 x + 1 of bytes x. */
KERN_INLINE __m256i odd(__m256i x)
{
    return _mm256_or_si256(_mm256_add_epi8(x, x), _mm256_set1_epi8(1));
}

/* Scales in the nibbles of n dwords: 8 of each. */
KERN_INLINE void scales_of_nibbles(struct block *o, enum quant_id t, const uint8_t *w, size_t n)
{
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    for (size_t v = 0; v < 2 * n; v++)
        for (size_t h = 0; h < 2; h++) {
            __m256i x = load(w + v / 2 * 64 + 32 * h);
            x = _mm256_shuffle_epi8(v % 2 ? _mm256_srli_epi32(x, 16) : x, spread);
            x = odd(nibble(_mm256_or_si256(x, _mm256_slli_epi32(x, 4)), 0));
            put_scales(o, t, v, h, x, x);
        }
}

/* Bytes of a codebook row, and the values of a row. */
KERN_INLINE bool row_is_8(enum quant_id t)
{
    return t != QUANT_IQ3_XXS && t != QUANT_IQ3_S;
}

KERN_INLINE const void *grid_of(enum quant_id t)
{
    return t == QUANT_IQ2_XXS   ? (const void *)q_iq2_xxs_grid
           : t == QUANT_IQ2_XS  ? (const void *)q_iq2_xs_grid
           : t == QUANT_IQ2_S   ? (const void *)q_iq2_s_grid
           : t == QUANT_IQ3_XXS ? (const void *)q_iq3_xxs_grid
           : t == QUANT_IQ3_S   ? (const void *)q_iq3_s_grid
                                : (const void *)q_iq1_grid;
}

/* Rows of a codebook of 8 panel rows: v[0] values 0..3, v[1], where rows have 8, values 4..7. */
KERN_INLINE void look_up(enum quant_id t, const uint32_t code[8], __m256i v[2])
{
    if (!row_is_8(t)) {
        const int32_t *g = grid_of(t);
        v[0] = _mm256_setr_epi32(g[code[0]], g[code[1]], g[code[2]], g[code[3]], g[code[4]],
                                 g[code[5]], g[code[6]], g[code[7]]);
        return;
    }
    const int64_t *g = grid_of(t);
    __m256 a =
        _mm256_castsi256_ps(_mm256_setr_epi64x(g[code[0]], g[code[1]], g[code[4]], g[code[5]]));
    __m256 b =
        _mm256_castsi256_ps(_mm256_setr_epi64x(g[code[2]], g[code[3]], g[code[6]], g[code[7]]));
    v[0] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88));
    v[1] = _mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xDD));
}

/* What unpack_group needs of 8 values. */
struct group {
    const uint8_t *low; /* vectors of low bytes of codes, four in each dword */
    uint64_t top[2][3]; /* upper bits of each code in bits 0 of nibbles */
    size_t bits;        /* how many of them */
    uint64_t sign[2];   /* or, of IQ1, [0] the shift's sign in bits 0 of nibbles */
};

/* Group g of a sub-block, to vectors 2 g and 2 g + 1 of q. */
KERN_INLINE void unpack_group(uint8_t *q, enum quant_id t, const struct group *u, size_t g)
{
    const __m256i off = _mm256_set1_epi8((char)(1 << offset_bits(t))), one = _mm256_set1_epi32(1);
    const __m256i eights = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 8, 0, -8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)); /* by the low two bits */
    const size_t codes = row_is_8(t) ? 1 : 2;
    for (size_t h = 0; h < 2; h++) {
        __m256i v[2];
        for (size_t j = 0; j < codes; j++) {
            size_t at = codes * g + j;
            uint32_t code[8];
            __m256i c = load(u->low + at / 4 * 64 + 32 * h);
            c = _mm256_srl_epi32(c, _mm_cvtsi32_si128((int)(at % 4 * 8)));
            c = _mm256_and_si256(c, _mm256_set1_epi32(255));
            for (size_t e = 0; e < u->bits; e++) {
                __m256i b = _mm256_and_si256(nibbles_of(u->top[j][e], h), one);
                c = _mm256_or_si256(c, _mm256_slli_epi32(b, (int)(8 + e)));
            }
            _mm256_storeu_si256((__m256i *)code, c);
            look_up(t, code, v + j);
        }
        for (size_t i = 0; i < 2; i++) {
            if (is_iq1(t)) { /* the shift: 1 or, where the bit is set, all ones */
                __m256i b = _mm256_and_si256(nibbles_of(u->sign[0], h), one);
                b = _mm256_mullo_epi32(b, _mm256_set1_epi32(0xff));
                b = _mm256_shuffle_epi8(b,
                                        _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0,
                                                          0x04040404, 0x08080808, 0x0c0c0c0c));
                v[i] = _mm256_and_si256(v[i], _mm256_set1_epi8(3));
                v[i] = _mm256_add_epi8(_mm256_shuffle_epi8(eights, v[i]),
                                       _mm256_or_si256(b, _mm256_set1_epi8(1)));
            } else {
                __m256i m = bytes_of(u->sign[i], h);
                v[i] = _mm256_sub_epi8(_mm256_xor_si256(v[i], m), m);
            }
            _mm256_store_si256((__m256i *)(q + 64 * (2 * g + i) + 32 * h),
                               _mm256_add_epi8(v[i], off));
        }
    }
}

/* Sub-block s of 32 values of a block at w. Returns, by row, the scale of the types that have it
   among the signs or upper bits. */
KERN_INLINE uint64_t unpack_codes(struct block *o, enum quant_id t, const uint8_t *w, size_t s)
{
    const uint64_t low = 0x1111111111111111u;
    const uint8_t *words = w + (row_is_8(t) ? 512 : 1024) + s * (is_iq1(t) ? 32 : 64);
    struct group u = {.low = w + (row_is_8(t) ? 64 : 128) * s};
    uint64_t scale = is_iq1(t) ? word_at(words, 3) & 7 * low : 0;
    for (size_t g = 0; g < 4; g++) {
        if (is_iq1(t)) {
            u.bits = 3;
            for (size_t e = 0; e < 3; e++)
                u.top[0][e] = word_at(words, e) >> g;
            u.sign[0] = word_at(words, 3) >> (t == QUANT_IQ1_S ? 3 : g);
        } else {
            u.sign[0] = word_at(words, 2 * g);
            u.sign[1] = word_at(words, 2 * g + 1);
        }
        if (t == QUANT_IQ2_S) {
            u.bits = 2;
            for (size_t e = 0; e < 2; e++)
                u.top[0][e] = word_at(w + 1024 + 16 * s, e) >> g;
        } else if (t == QUANT_IQ3_S) {
            u.bits = 1;
            for (size_t j = 0; j < 2; j++)
                u.top[j][0] = word_at(w + 1536 + 16 * s, g / 2) >> (2 * g + j) % 4;
        } else if (!is_iq1(t)) {
            uint64_t bit = even_signs(u.sign[0], &u.sign[1]);
            u.bits = t == QUANT_IQ2_XS;
            u.top[0][0] = bit;
            scale |= bit << g;
        }
        unpack_group(o->q[0][s], t, &u, g);
    }
    return scale;
}

/* d and the scales of IQ1_M: halves of four scales of 3 bits and 4 bits of d. */
KERN_INLINE void head_iq1_m(struct block *o, const uint8_t *w)
{
    for (size_t h = 0; h < 2; h++) {
        __m256i d = _mm256_setzero_si256();
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i x = load(w + v / 2 * 64 + 32 * (int)h), sc = _mm256_setzero_si256();
            x = v % 2 ? _mm256_srli_epi32(x, 16) : x;
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                sc = or_bits(sc, _mm256_slli_epi32(x, 5 * i), _mm256_set1_epi32(7 << 8 * i));
            put_scales(o, QUANT_IQ1_M, (size_t)v, h, odd(sc), odd(sc));
            x = _mm256_and_si256(_mm256_srli_epi32(x, 12), _mm256_set1_epi32(15));
            d = _mm256_or_si256(d, _mm256_slli_epi32(x, 4 * v));
        }
        o->d[h] = _mm256_mul_ps(low_halves(d), _mm256_set1_ps(unit_of(QUANT_IQ1_M)));
    }
}

KERN_INLINE void unpack_grid(struct block *o, enum quant_id t, const uint8_t *w)
{
    uint64_t scale[8];
#pragma GCC unroll 1
    for (size_t s = 0; s < 8; s++)
        scale[s] = unpack_codes(o, t, w, s);
    if (t == QUANT_IQ1_M)
        head_iq1_m(o, w + 768);
    else if (t == QUANT_IQ2_XS || t == QUANT_IQ2_S)
        scales_of_nibbles(o, t, w + (t == QUANT_IQ2_XS ? 1024 : 1152), 2);
    else if (t == QUANT_IQ3_S)
        scales_of_nibbles(o, t, w + 1664, 1);
    else
        for (size_t v = 0; v < 2; v++)
            for (size_t h = 0; h < 2; h++) {
                __m256i x = _mm256_setzero_si256();
#pragma GCC unroll 4
                for (size_t i = 0; i < 4; i++)
                    x = _mm256_or_si256(
                        x, _mm256_slli_epi32(nibbles_of(scale[4 * v + i], h), (int)(8 * i)));
                put_scales(o, t, v, h, odd(x), odd(x));
            }
}

/* Block b of a panel of n blocks. */
KERN_INLINE void unpack(struct block *o, enum quant_id t, const uint8_t *panel, size_t n, size_t b)
{
    const uint8_t *w = panel + (has_head(t) ? num_round_up(32 * n, KERN_ALIGN) : 0);
    w += b * block_bytes(t);
    for (size_t h = 0; h < 2 && has_head(t); h++)
        o->d[h] = _mm256_mul_ps(halves(panel + 32 * b + 16 * h), _mm256_set1_ps(unit_of(t)));
    if (t == QUANT_IQ4_XS)
        unpack_iq4_xs(o, w);
    else if (t == QUANT_Q3_K)
        unpack_q3_k(o, w);
    else if (t == QUANT_Q2_K)
        unpack_q2_k(o, w);
    else if (is_ternary(t))
        unpack_ternary(o, t, w);
    else
        unpack_grid(o, t, w);
}

/* ---- products ---- */

/* acc[h][c] += Σ over 32 values of scale · quant · activation of a plane; scale: that of the first
   16 or of all. */
KERN_INLINE void dot_32(__m256i acc[2][TILE_COLS], enum quant_id t, const uint8_t *w,
                        const __m256i (*scale)[2], const int8_t *x, size_t C)
{
    __m256i sum[2][TILE_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m256i v[2] = {load(w + 64 * i), load(w + 64 * i + 32)};
        dot_part(acc, sum, i, chain_of(t), v, scale[sub_of(t) == 16 ? i / 4 : 0], x, C);
    }
}

/* f (C × 16 sums) over the block whose first column is at `at` in x->d. */
KERN_INLINE void finish(float *f, enum quant_id t, const __m256i acc[2][TILE_COLS],
                        const struct block *o, const struct kern_x *x, size_t at, size_t C)
{
    const size_t pairs = 128 / sub_of(t);
    const int16_t *sums = sub_of(t) == 16 ? x->sum16 + at * 16 : x->sum32 + at * 8;
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++, sums += 2 * pairs) {
        __m256 xd = _mm256_set1_ps(x->d[at + c]);
        __m256i met[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8
        for (size_t i = 0; i < pairs; i++) {
            __m256i s = splat(sums + 2 * i);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++)
                met[h] = _mm256_add_epi32(met[h], _mm256_madd_epi16(o->pair[i][h], s));
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256 y = _mm256_load_ps(f + 16 * c + 8 * h);
            __m256i dot = acc[h][c];
            if (t != QUANT_Q2_K)
                dot = _mm256_sub_epi32(dot, _mm256_slli_epi32(met[h], offset_bits(t)));
            y = _mm256_fmadd_ps(_mm256_mul_ps(o->d[h], xd), _mm256_cvtepi32_ps(dot), y);
            if (t == QUANT_Q2_K)
                y = _mm256_fnmadd_ps(_mm256_mul_ps(o->dmin[h], xd), _mm256_cvtepi32_ps(met[h]), y);
            _mm256_store_ps(f + 16 * c + 8 * h, y);
        }
    }
}

/* Block b over C columns from `col` on. */
KERN_INLINE void tile(float *f, enum quant_id t, const struct block *o, size_t b,
                      const struct kern_x *x, size_t col, size_t C)
{
    const int8_t *xq = x->q + (b * 8 * x->cols + col) * 32;
    __m256i acc[2][TILE_COLS];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (size_t s = 0; s < 8; s++, xq += x->cols * 32) {
        size_t first = s * 32 / sub_of(t);
        dot_32(acc, t, o->q[0][s], o->scale[0] + first, xq, C);
        if (planes(t) == 2) {
            const int8_t *again = xq;
            __asm__("" : "+r"(again)); /* else gcc saves the broadcasts of the first plane */
            dot_32(acc, t, o->q[1][s], o->scale[1] + first, again, C);
        }
    }
    finish(f, t, (const __m256i(*)[TILE_COLS])acc, o, x, b * x->cols + col, C);
}

/* IQ4_XS and up to 4 columns, straight from the panel: |w| × activation with the sign of w. */
KERN_INLINE void direct_iq4_xs(float *f, const uint8_t *panel, const struct kern_x *x,
                               size_t blocks, size_t col, size_t C)
{
    const __m256i levels = iq4_levels();
    struct block o;
    for (size_t b = 0; b < blocks; b++) {
        const uint8_t *w = panel + b * block_bytes(QUANT_IQ4_XS);
        const int8_t *xq = x->q + (b * 8 * x->cols + col) * 32;
        __m256i acc[2][TILE_COLS];
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            acc[0][c] = acc[1][c] = _mm256_setzero_si256();
        head_iq4_xs(&o, w);
#pragma GCC unroll 1
        for (size_t s = 0; s < 8; s++, xq += x->cols * 32) {
            prefetch(w, block_bytes(QUANT_IQ4_XS), s, 8);
#pragma GCC unroll 8
            for (size_t i = 0; i < 8; i++)
#pragma GCC unroll 2
                for (size_t h = 0; h < 2; h++) {
                    __m256i v = load(w + 128 + 256 * s + 64 * (i % 4) + 32 * h);
                    v = _mm256_shuffle_epi8(levels, nibble(v, i / 4));
                    __m256i size = _mm256_abs_epi8(v), scale = o.scale[0][s][h];
#pragma GCC unroll 4
                    for (size_t c = 0; c < C; c++) {
                        __m256i a = _mm256_sign_epi8(splat(xq + 32 * c + 4 * i), v);
                        a = _mm256_madd_epi16(_mm256_maddubs_epi16(size, a), scale);
                        acc[h][c] = keep(_mm256_add_epi32(acc[h][c], a));
                    }
                }
        }
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256 xd = _mm256_set1_ps(x->d[b * x->cols + col + c]);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                float *at = f + 16 * c + 8 * h;
                __m256 sum = _mm256_cvtepi32_ps(acc[h][c]);
                _mm256_store_ps(
                    at, _mm256_fmadd_ps(_mm256_mul_ps(o.d[h], xd), sum, _mm256_load_ps(at)));
            }
        }
    }
}

#define DIRECT(C)                                                                                 \
    static void direct_##C(float *f, const uint8_t *panel, const struct kern_x *x, size_t blocks, \
                           size_t col)                                                            \
    {                                                                                             \
        direct_iq4_xs(f, panel, x, blocks, col, C);                                               \
    }
DIRECT(1)
DIRECT(2)
DIRECT(3)
DIRECT(4)

/* ---- loops ---- */

struct kernels {
    void (*unpack)(struct block *o, const uint8_t *panel, size_t n, size_t b);
    /* index C − 1 for the number of columns */
    void (*tile[TILE_COLS])(float *f, const struct block *o, size_t b, const struct kern_x *x,
                            size_t col);
    const struct panel_layout *layout;
};

static void panel_columns(const struct kernels *kn, float *f, const uint8_t *panel,
                          const struct kern_x *x, size_t blocks, size_t col, size_t cols)
{
    struct block o;
    size_t bytes = kn->layout->bytes(256), all = (cols + TILE_COLS - 1) / TILE_COLS;
    memset(f, 0, cols * 16 * sizeof *f);
    for (size_t b = 0; b < blocks; b++) {
        size_t tiles = all;
        kn->unpack(&o, panel, blocks, b);
        for (size_t c = 0; c < cols; tiles--) {
            size_t width = (cols - c + tiles - 1) / tiles; /* even, so that none is ragged */
            prefetch(panel + b * bytes, bytes, all - tiles, all);
            kn->tile[width - 1](f + 16 * c, &o, b, x, col + c);
            c += width;
        }
    }
}

static void mul(const struct kernels *kn, float *y, size_t ldy, const uint8_t *w, size_t rows,
                size_t k, const struct kern_x *x, size_t col0, size_t cols)
{
    _Alignas(64) float f[CHUNK_COLS * 16];
    size_t panel = kn->layout->bytes(k), chunks = (cols + CHUNK_COLS - 1) / CHUNK_COLS;
    for (size_t c = 0, m; c < cols; c += m, chunks--) {
        m = (cols - c + chunks - 1) / chunks;
        for (size_t r = 0; r < rows; r += 16) {
            const uint8_t *p = w + r / 16 * panel;
            if (kn->layout == &panel_iq4_xs && m <= TILE_COLS) {
                static void (*const direct[])(float *, const uint8_t *, const struct kern_x *,
                                              size_t,
                                              size_t) = {direct_1, direct_2, direct_3, direct_4};
                memset(f, 0, m * 16 * sizeof *f);
                direct[m - 1](f, p, x, k / 256, col0 + c);
            } else {
                panel_columns(kn, f, p, x, k / 256, col0 + c, m);
            }
            store_sums(y + c * ldy + r, ldy, f, num_min(16, rows - r), m);
        }
    }
}

#define COLUMNS(name, id, C)                                                                       \
    static void name##_tile_##C(float *f, const struct block *o, size_t b, const struct kern_x *x, \
                                size_t col)                                                        \
    {                                                                                              \
        tile(f, id, o, b, x, col, C);                                                              \
    }
#define TYPE(name, id)                                                                    \
    COLUMNS(name, id, 1)                                                                  \
    COLUMNS(name, id, 2)                                                                  \
    COLUMNS(name, id, 3)                                                                  \
    COLUMNS(name, id, 4)                                                                  \
    static void name##_unpack(struct block *o, const uint8_t *panel, size_t n, size_t b)  \
    {                                                                                     \
        unpack(o, id, panel, n, b);                                                       \
    }                                                                                     \
    static const struct kernels name##_kernels = {                                        \
        name##_unpack,                                                                    \
        {name##_tile_1, name##_tile_2, name##_tile_3, name##_tile_4},                     \
        &panel_##name};                                                                   \
    static void name##_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        mul(&name##_kernels, y, ldy, w, rows, k, x, col0, cols);                          \
    }

TYPE(iq4_xs, QUANT_IQ4_XS)
TYPE(q3_k, QUANT_Q3_K)
TYPE(q2_k, QUANT_Q2_K)
TYPE(tq2_0, QUANT_TQ2_0)
TYPE(tq1_0, QUANT_TQ1_0)
TYPE(iq2_xxs, QUANT_IQ2_XXS)
TYPE(iq3_xxs, QUANT_IQ3_XXS)
TYPE(iq2_xs, QUANT_IQ2_XS)
TYPE(iq2_s, QUANT_IQ2_S)
TYPE(iq3_s, QUANT_IQ3_S)
TYPE(iq1_s, QUANT_IQ1_S)
TYPE(iq1_m, QUANT_IQ1_M)

void kern_init_avx2_low(struct kern *k)
{
    k->mul[QUANT_IQ4_XS].mul = iq4_xs_mul;
    k->mul[QUANT_Q3_K].mul = q3_k_mul;
    k->mul[QUANT_Q2_K].mul = q2_k_mul;
    k->mul[QUANT_TQ2_0].mul = tq2_0_mul;
    k->mul[QUANT_TQ1_0].mul = tq1_0_mul;
    k->mul[QUANT_IQ2_XXS].mul = iq2_xxs_mul;
    k->mul[QUANT_IQ3_XXS].mul = iq3_xxs_mul;
    k->mul[QUANT_IQ2_XS].mul = iq2_xs_mul;
    k->mul[QUANT_IQ2_S].mul = iq2_s_mul;
    k->mul[QUANT_IQ3_S].mul = iq3_s_mul;
    k->mul[QUANT_IQ1_S].mul = iq1_s_mul;
    k->mul[QUANT_IQ1_M].mul = iq1_m_mul;
}
