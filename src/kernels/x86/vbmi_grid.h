/*
 * The codebook types with VBMI: rows of codebooks by lookups in registers. vpermi2b takes 64 bytes
 * from a table of 128 at once, where loads take one row each; vbmi_tables.h has the codebooks in
 * few bits, half a row in a byte. So 64 codes (four of each of 16 rows) cost two lookups in a table
 * of 256 to 2048 bytes, and vpmultishiftqb and vpermb spread the bits and turn them into levels.
 *
 * Signs are masks of 64 bits as they lie in the panel. All quants are made unsigned by adding 64.
 * Part of vnni_low.h.
 */
#ifndef PONDER_KERNELS_X86_VBMI_GRID_H
#define PONDER_KERNELS_X86_VBMI_GRID_H

#include "kernels/x86/vbmi_tables.h"

static const uint64_t grid_bit0 = 0x1111111111111111u; /* of each row's nibble in a word */

KERN_INLINE bool grid_is_iq1(enum low t)
{
    return t == LOW_IQ1_S || t == LOW_IQ1_M;
}

KERN_INLINE bool grid_is_iq3(enum low t)
{
    return t == LOW_IQ3_S || t == LOW_IQ3_XXS;
}

/* Whether the last of eight signs makes their number even. */
KERN_INLINE bool grid_is_even(enum low t)
{
    return t == LOW_IQ2_XXS || t == LOW_IQ3_XXS || t == LOW_IQ2_XS;
}

/* log2 of the rows of a codebook. */
KERN_INLINE unsigned grid_bits(enum low t)
{
    return grid_is_iq1(t) ? 11 : t == LOW_IQ2_S ? 10 : t == LOW_IQ2_XS || t == LOW_IQ3_S ? 9 : 8;
}

KERN_INLINE const uint8_t *grid_table(enum low t, int half)
{
    return t == LOW_IQ2_XXS   ? iq2_xxs_codes[half]
           : t == LOW_IQ2_XS  ? iq2_xs_codes[half]
           : t == LOW_IQ2_S   ? iq2_s_codes[half]
           : t == LOW_IQ3_XXS ? iq3_xxs_codes[half]
           : t == LOW_IQ3_S   ? iq3_s_codes[half]
                              : iq1_codes[half];
}

KERN_INLINE uint64_t word_at(const uint8_t *words, unsigned i)
{
    uint64_t v;
    __builtin_memcpy(&v, words + 8 * i, 8);
    return v;
}

/* Where the words of sub-block s begin: of signs, of IQ1 upper bits. */
KERN_INLINE const uint8_t *grid_words(enum low t, const uint8_t *w, unsigned s)
{
    return w + (grid_is_iq3(t) ? 1024 : 512) + s * (grid_is_iq1(t) ? 32 : 64);
}

/* What stands in place of the eighth signs: bit 4 r + g from group g of row r. */
KERN_INLINE uint64_t grid_fourths(const uint8_t *words)
{
    return (word_at(words, 1) >> 3 & grid_bit0) | (word_at(words, 3) >> 2 & grid_bit0 << 1) |
           (word_at(words, 5) >> 1 & grid_bit0 << 2) | (word_at(words, 7) & grid_bit0 << 3);
}

/* ---- codes
 * ------------------------------------------------------------------------------------------ */

/* Entries of a table of 256 bytes; bit7: the upper bits of the codes. */
KERN_INLINE __m512i look_256(const uint8_t *table, __m512i code, __mmask64 bit7)
{
    __m512i a = _mm512_permutex2var_epi8(load(table), code, load(table + 64));
    __m512i b = _mm512_permutex2var_epi8(load(table + 128), code, load(table + 192));
    return _mm512_mask_blend_epi8(bit7, a, b);
}

KERN_INLINE __m512i look_512(const uint8_t *table, __m512i code, __mmask64 bit7, uint64_t bit8)
{
    return _mm512_mask_blend_epi8(bit8, look_256(table, code, bit7),
                                  look_256(table + 256, code, bit7));
}

KERN_INLINE __m512i look_1024(const uint8_t *table, __m512i code, __mmask64 bit7,
                              const uint64_t top[3])
{
    return _mm512_mask_blend_epi8(top[1], look_512(table, code, bit7, top[0]),
                                  look_512(table + 512, code, bit7, top[0]));
}

/* Entries of a table of 2^bits bytes; bits from the eighth on are the masks of top. */
KERN_INLINE __m512i look_up(const uint8_t *table, unsigned bits, __m512i code, __mmask64 bit7,
                            const uint64_t top[3])
{
    if (bits == 8)
        return look_256(table, code, bit7);
    if (bits == 9)
        return look_512(table, code, bit7, top[0]);
    if (bits == 10)
        return look_1024(table, code, bit7, top);
    return _mm512_mask_blend_epi8(top[2], look_1024(table, code, bit7, top),
                                  look_1024(table + 1024, code, bit7, top));
}

/* The upper bits of four codes of each row: those of dword vector n of the sub-block. */
KERN_INLINE void grid_top(enum low t, const uint8_t *w, unsigned s, unsigned n, uint64_t top[3])
{
    if (t == LOW_IQ2_XS) {
        top[0] = grid_fourths(grid_words(t, w, s));
    } else if (t == LOW_IQ2_S) {
        top[0] = word_at(w + 1024, 2 * s);
        top[1] = word_at(w + 1024, 2 * s + 1);
    } else if (t == LOW_IQ3_S) {
        top[0] = word_at(w + 1536, 2 * s + n);
    } else if (grid_is_iq1(t)) {
        for (unsigned e = 0; e < 3; e++)
            top[e] = word_at(grid_words(t, w, s), e);
    }
}

/* Levels plus 64, by the low bits of a byte; IQ1 plus 65. */
KERN_INLINE __m512i grid_levels(enum low t)
{
    if (t == LOW_IQ3_XXS)
        return _mm512_broadcast_i32x4(
            _mm_setr_epi8(68, 76, 84, 92, 100, 108, 116, 126, 68, 76, 84, 92, 100, 108, 116, 126));
    if (t == LOW_IQ3_S)
        return _mm512_broadcast_i32x4(
            _mm_setr_epi8(65, 67, 69, 71, 73, 75, 77, 79, 65, 67, 69, 71, 73, 75, 77, 79));
    if (grid_is_iq1(t))
        return _mm512_set1_epi32(65 | 73 << 8 | 57 << 16);
    return _mm512_set1_epi32(72 | 89 << 8 | 107 << 16);
}

/* Codes of four values: 4 bits each, the halves of a row in two vectors. */
KERN_INLINE void grid_iq3(enum low t, const uint8_t *w, unsigned s, __m512i v[8])
{
    const __m512i spread4 = _mm512_set1_epi64(0x3430242014100400);
    _Alignas(64) static const uint8_t both[64] = {
#define BOTH(r) 4 * (r), 4 * (r), 4 * (r) + 64, 4 * (r) + 64
        BOTH(0), BOTH(1), BOTH(2),  BOTH(3),  BOTH(4),  BOTH(5),  BOTH(6),  BOTH(7),
        BOTH(8), BOTH(9), BOTH(10), BOTH(11), BOTH(12), BOTH(13), BOTH(14), BOTH(15)};
#undef BOTH
#pragma GCC unroll 2
    for (unsigned n = 0; n < 2; n++) {
        __m512i code = load(w + 128 * s + 64 * n);
        __mmask64 bit7 = _mm512_movepi8_mask(code);
        uint64_t top[3] = {0};
        grid_top(t, w, s, n, top);
        __m512i a = look_up(grid_table(t, 0), grid_bits(t), code, bit7, top);
        __m512i b = look_up(grid_table(t, 1), grid_bits(t), code, bit7, top);
#pragma GCC unroll 4
        for (unsigned g = 0; g < 4; g++) {
            __m512i at = _mm512_add_epi8(load(both), ones8((int)g));
            __m512i x = _mm512_permutex2var_epi8(a, at, b);
            x = _mm512_multishift_epi64_epi8(spread4, x);
            v[4 * n + g] = _mm512_permutexvar_epi8(x, grid_levels(t));
        }
    }
}

/* Codes of eight values: 2 bits each, the halves of a row in two vectors. */
KERN_INLINE void grid_eights(enum low t, const uint8_t *w, unsigned s, __m512i v[8])
{
    __m512i code = load(w + 64 * s);
    __mmask64 bit7 = _mm512_movepi8_mask(code);
    uint64_t top[3] = {0};
    grid_top(t, w, s, 0, top);
    __m512i a = look_up(grid_table(t, 0), grid_bits(t), code, bit7, top);
    __m512i b = look_up(grid_table(t, 1), grid_bits(t), code, bit7, top);
#pragma GCC unroll 4
    for (unsigned g = 0; g < 4; g++) {
        const __m512i spread2 =
            _mm512_add_epi8(_mm512_set1_epi64(0x2624222006040200), ones8((int)(8 * g)));
        v[2 * g] =
            _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(spread2, a), grid_levels(t));
        v[2 * g + 1] =
            _mm512_permutexvar_epi8(_mm512_multishift_epi64_epi8(spread2, b), grid_levels(t));
    }
}

/* Words of signs with the eighth ones in place. */
KERN_INLINE __m512i grid_even_signs(__m512i words)
{
    const __m512i seven = _mm512_broadcast_i32x4(
        _mm_set_epi64x((long long)(7 * grid_bit0), (long long)(15 * grid_bit0)));
    words = _mm512_and_si512(words, seven);
    __m512i x = _mm512_xor_si512(words, _mm512_shuffle_epi32(words, _MM_PERM_BADC));
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 2));
    x = _mm512_xor_si512(x, _mm512_srli_epi64(x, 1));
    x = _mm512_maskz_slli_epi64(0xAA, _mm512_and_si512(x, _mm512_set1_epi64((long long)grid_bit0)),
                                3);
    return _mm512_or_si512(words, x);
}

KERN_INLINE void grid_unpack(enum low t, const uint8_t *w, unsigned s, __m512i v[8])
{
    const uint8_t *words = grid_words(t, w, s);
    _Alignas(64) uint8_t even[64];
    if (grid_is_iq3(t))
        grid_iq3(t, w, s, v);
    else
        grid_eights(t, w, s, v);
    if (grid_is_even(t)) {
        _mm512_store_si512(even, grid_even_signs(load(words)));
        __asm__("" : "+m"(even)); /* masks are loaded from memory, not taken out of the vector */
        words = even;
    }
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++) {
        if (grid_is_iq1(t)) { /* the shift: two less where it is negative */
            uint64_t bit = word_at(words, 3) >> (t == LOW_IQ1_S ? 3 : i / 2) & grid_bit0;
            v[i] = _mm512_mask_sub_epi8(v[i], 15 * bit, v[i], ones8(2));
        } else {
            v[i] = _mm512_mask_sub_epi8(v[i], word_at(words, i), ones8(-128), v[i]);
        }
    }
}

/* ---- scales
 * ----------------------------------------------------------------------------------------- */

/* Nibble r of a word as dword r. */
KERN_INLINE __m512i grid_nibbles(uint64_t word)
{
    __m512i v =
        _mm512_inserti64x4(_mm512_set1_epi32((int)word), _mm256_set1_epi32((int)(word >> 32)), 1);
    const __m512i at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    return _mm512_and_si512(_mm512_srlv_epi32(v, at), _mm512_set1_epi32(15));
}

/* 2 × scale + 1 as bytes (low_scales). */
KERN_INLINE void grid_scales(enum low t, const uint8_t *w, __m512i sc[4])
{
    const unsigned n = 64 / (unsigned)low_sub(t); /* vectors */
    const __m512i low2 = _mm512_broadcast_i32x4(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    const uint8_t *at = w + low_bytes(t) - 64 * n / 2; /* of those that have bytes of their own */
#pragma GCC unroll 4
    for (unsigned i = 0; i < n; i++) {
        if (t == LOW_IQ2_XXS || t == LOW_IQ3_XXS || t == LOW_IQ1_S) {
            sc[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (unsigned b = 0; b < 4; b++) {
                const uint8_t *words = grid_words(t, w, 4 * i + b);
                uint64_t x =
                    t == LOW_IQ1_S ? word_at(words, 3) & 7 * grid_bit0 : grid_fourths(words);
                sc[i] = _mm512_or_si512(sc[i], _mm512_slli_epi32(grid_nibbles(x), 8 * b));
            }
        } else {
            __m512i x = _mm512_srli_epi32(load(at + 64 * (i / 2)), 16 * (i % 2));
            if (t == LOW_IQ1_M) { /* four times 3 bits */
                sc[i] = _mm512_setzero_si512();
#pragma GCC unroll 4
                for (unsigned b = 0; b < 4; b++)
                    sc[i] =
                        and_or(_mm512_slli_epi32(x, 5 * b), _mm512_set1_epi32(7 << 8 * b), sc[i]);
            } else {
                x = _mm512_shuffle_epi8(x, low2);
                sc[i] = low4(_mm512_or_si512(x, _mm512_slli_epi32(x, 4)));
            }
        }
        sc[i] = _mm512_or_si512(_mm512_add_epi8(sc[i], sc[i]), ones8(1));
    }
}

KERN_INLINE __m512 grid_d(enum low t, const uint8_t *w, const uint8_t *head)
{
    if (t == LOW_IQ3_S)
        return half16(head);
    if (t == LOW_IQ3_XXS)
        return _mm512_mul_ps(half16(head), _mm512_set1_ps(0.25f));
    if (t != LOW_IQ1_M)
        return _mm512_mul_ps(half16(head), _mm512_set1_ps(0.125f));
    const __m512i four = _mm512_set1_epi32(15); /* IQ1_M: the top nibbles of four halves */
    __m512i d = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++) {
        __m512i x = _mm512_srli_epi32(load(w + 768 + 64 * (i / 2)), 12 + 16 * (i % 2));
        d = _mm512_or_si512(d, _mm512_slli_epi32(_mm512_and_si512(x, four), 4 * i));
    }
    return _mm512_mul_ps(half_of(d, 0), _mm512_set1_ps(0.125f));
}

#endif
