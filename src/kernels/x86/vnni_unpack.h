/*
 * Unpacking panels of the quantized types to unsigned bytes for vpdpbusd (unsigned weight × signed
 * activation), lanes are rows. Shared by the one-column and the many-column products, so that a
 * type's bit layout is written once per instruction set.
 *
 * Signed weights get an offset that makes them unsigned (Q8_0, Q8Z and IQ4_NL 128, Q4_0 8, Q5_0 and
 * MXFP4 16, Q6_K 32); the products take offset × Σ activations off again, in integers.
 */
#ifndef PONDER_KERNELS_X86_VNNI_UNPACK_H
#define PONDER_KERNELS_X86_VNNI_UNPACK_H

#include "kernels/x86/avx512_blocks.h"

enum kind { Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, Q4Z, Q8Z, Q4_K, Q5_K, Q6_K };

/* Bytes of a pair of blocks of 32, or of a block of 256. */
KERN_INLINE size_t unit_bytes(enum kind t)
{
    static const uint16_t bytes[] = {1088, 576, 640,  704,  768,  576,
                                     576,  640, 1152, 2304, 2816, 3328};
    return bytes[t];
}

/* What was added to make weights unsigned. */
KERN_INLINE int unsign(enum kind t)
{
    static const uint8_t offset[] = {128, 8, 0, 16, 0, 128, 16, 0, 128, 0, 0, 32};
    return offset[t];
}

KERN_INLINE bool has_min(enum kind t)
{
    return t == Q4_1 || t == Q5_1 || t == Q4Z || t == Q8Z || t == Q4_K || t == Q5_K;
}

/* From one block of a pair to the other: of scales and, in types that have them, minima. */
KERN_INLINE size_t half_step(enum kind t)
{
    return has_min(t) ? unit_bytes(t) / 2 : t == MXFP4 ? 16 : 32;
}

KERN_INLINE __m512i load(const void *p)
{
    return _mm512_load_si512(p);
}

KERN_INLINE __m512i ones8(int v)
{
    return _mm512_set1_epi8((char)v);
}

/* (a & b) | c */
KERN_INLINE __m512i and_or(__m512i a, __m512i b, __m512i c)
{
    return _mm512_ternarylogic_epi32(a, b, c, 0xEA);
}

KERN_INLINE __m512i low4(__m512i v)
{
    return _mm512_and_si512(v, ones8(15));
}

KERN_INLINE __m512i high4(__m512i v)
{
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), ones8(15));
}

KERN_INLINE __m512 half16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_load_si256((const void *)p));
}

/* The levels of IQ4_NL and IQ4_XS plus 128, by code. */
KERN_INLINE __m512i iq4_levels(void)
{
    return _mm512_broadcast_i32x4(_mm_setr_epi8(
        -127 + 128, -104 + 128, -83 + 128, -65 + 128, -49 + 128, -35 + 128, -22 + 128, -10 + 128,
        (char)(1 + 128), (char)(13 + 128), (char)(25 + 128), (char)(38 + 128), (char)(53 + 128),
        (char)(69 + 128), (char)(89 + 128), (char)(113 + 128)));
}

/* ---- blocks of 32: block `half` of the pair at w
 * -------------------------------------------------- */

/* v[i]: values 4i..4i+3. */
KERN_INLINE void unpack32(enum kind t, const uint8_t *w, size_t half, __m512i v[8])
{
    /* one with a minimum is a half of its pair; else the scales of both lie in front */
    const uint8_t *q = w + 64 + (has_min(t) ? half_step(t) : unit_bytes(t) / 2 - 32) * half;
    if (t == Q8_0 || t == Q8Z) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            v[i] = _mm512_xor_si512(load(q + 64 * i), ones8(-128));
        return;
    }
    if (t == Q5_0 || t == Q5_1)
        q += 64;
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        __m512i x = load(q + 64 * i);
        v[i] = low4(x);
        v[4 + i] = high4(x);
    }
    if (t == IQ4_NL) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            v[i] = _mm512_shuffle_epi8(iq4_levels(), v[i]);
    }
    if (t == MXFP4) { /* doubled */
        const __m512i table = _mm512_broadcast_i32x4(
            _mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            v[i] = _mm512_shuffle_epi8(table, v[i]);
    }
    if (t == Q5_0 || t == Q5_1) {
        __m512i h = load(q - 64), bit4 = ones8(0x10);
#pragma GCC unroll 4
        for (unsigned i = 0; i < 4; i++) {
            v[i] = and_or(_mm512_slli_epi32(h, 4 - i), bit4, v[i]);
            v[4 + i] = and_or(_mm512_srli_epi32(h, i), bit4, v[4 + i]);
        }
    }
}

KERN_INLINE __m512 scale32(enum kind t, const uint8_t *w, size_t half)
{
    w += half_step(t) * half;
    if (t != MXFP4)
        return half16(w);
    /* half of 2^(e - 127): the exponent e - 1, or a subnormal where that is not positive */
    __m512i e = _mm512_cvtepu8_epi32(_mm_load_si128((const void *)w));
    __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(
        _mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x00200000), e));
}

KERN_INLINE __m512 min32(enum kind t, const uint8_t *w, size_t half)
{
    __m512 m = half16(w + 32 + half_step(t) * half);
    if (t == Q4Z || t == Q8Z) /* a zero point */
        return _mm512_xor_ps(_mm512_mul_ps(scale32(t, w, half), m), _mm512_set1_ps(-0.0f));
    return m;
}

/* ---- blocks of 256
 * ---------------------------------------------------------------------------------- */

/* Sub-block s (0..7) of 32 values: v[i] holds values 32 s + 4 i .. + 3. */
KERN_INLINE void unpack_sub(enum kind t, const uint8_t *w, unsigned s, __m512i v[8])
{
    /* Q6_K: halves of 128, four sub-blocks each: two of low, two of high nibbles of 512 bytes */
    const uint8_t *q = t == Q6_K ? w + 1024 * (s / 4) + 512 * (s % 2)
                                 : w + (t == Q5_K ? 768 : 256) + 512 * (s / 2);
    const uint8_t *h = t == Q6_K ? w + 2048 + 512 * (s / 4) : w + 256;
    const bool high = t == Q6_K ? s % 4 >= 2 : s % 2;
    /* the upper bits: 2 in bits 2 (s % 4) of a byte (Q6_K), 1 in bit s (Q5_K); they go to bit 4 */
    const unsigned from = t == Q6_K ? 2 * (s % 4) : s;
    const __m512i top = ones8(t == Q6_K ? 0x30 : 0x10);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i x = load(q + 64 * i);
        v[i] = high ? high4(x) : low4(x);
        if (t != Q4_K) {
            __m512i u = load(h + 64 * i);
            u = from < 4 ? _mm512_slli_epi32(u, 4 - from) : _mm512_srli_epi32(u, from - 4);
            v[i] = and_or(u, top, v[i]);
        }
    }
}

/* Scale of sub-block s of Q4_K and Q5_K. */
KERN_INLINE __m512i k_scale(const uint8_t *w, unsigned s)
{
    __m512i a = load(w + 64);
    if (s < 4)
        return _mm512_and_si512(_mm512_srli_epi32(a, 8 * s), _mm512_set1_epi32(63));
    __m512i c = _mm512_srli_epi32(load(w + 192), 8 * (s - 4));
    a = _mm512_srli_epi32(a, 8 * (s - 4) + 2);
    return and_or(a, _mm512_set1_epi32(0x30), _mm512_and_si512(c, _mm512_set1_epi32(15)));
}

/* Scales and minima of Q4_K and Q5_K as bytes: sc[h] holds those of sub-blocks 4h .. 4h + 3. */
KERN_INLINE void k_scales(const uint8_t *w, __m512i sc[2], __m512i mn[2])
{
    const __m512i m6 = ones8(63), m30 = ones8(0x30);
    __m512i a = load(w + 64), b = load(w + 128), c = load(w + 192);
    sc[0] = _mm512_and_si512(a, m6);
    mn[0] = _mm512_and_si512(b, m6);
    sc[1] = and_or(_mm512_srli_epi32(a, 2), m30, low4(c));
    mn[1] = and_or(_mm512_srli_epi32(b, 2), m30, high4(c));
}

/* Unsigned bytes 2p and 2p + 1 (p in 0, 1) of each dword as a pair of words. */
KERN_INLINE __m512i byte_pair(__m512i v, int p)
{
    const __m128i even = _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1);
    const __m128i odd = _mm_setr_epi8(2, -1, 3, -1, 6, -1, 7, -1, 10, -1, 11, -1, 14, -1, 15, -1);
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(p ? odd : even));
}

/* Signed bytes 2p and 2p + 1 of each dword as a pair of words. */
KERN_INLINE __m512i signed_pair(__m512i v, int p)
{
    return _mm512_srai_epi16(_mm512_slli_epi16(byte_pair(v, p), 8), 8);
}

/* Signed byte b of each dword. */
KERN_INLINE __m512i signed_byte_of(__m512i v, unsigned b)
{
    return _mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * b), 24);
}

/* The fp16 in the low (0) or high (1) half of each dword. */
KERN_INLINE __m512 half_of(__m512i v, int high)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(high ? _mm512_srli_epi32(v, 16) : v));
}

#endif
