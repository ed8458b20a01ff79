/*
 * Lane operations of AVX-512 (F, BW, DQ, VL): 16 lanes are one zmm register.
 * What each does is told in vec_impl.h.
 */
#ifndef PONDER_KERNELS_X86_AVX512_LANES_H
#define PONDER_KERNELS_X86_AVX512_LANES_H

#include "kernels/kern_internal.h"
#include "kernels/scalar/kern_math.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

struct lanes {
    __m512 v;
};

/* 16 magnitudes as integers. */
struct lanes_bits {
    __m512i v;
};

KERN_INLINE __mmask16 mask_of(size_t n)
{
    return (__mmask16)((1u << n) - 1);
}

KERN_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){_mm512_loadu_ps(p)};
}

KERN_INLINE struct lanes lanes_load_n(const float *p, size_t n)
{
    return (struct lanes){_mm512_maskz_loadu_ps(mask_of(n), p)};
}

KERN_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm512_storeu_ps(p, a.v);
}

KERN_INLINE void lanes_store_n(float *p, struct lanes a, size_t n)
{
    _mm512_mask_storeu_ps(p, mask_of(n), a.v);
}

KERN_INLINE struct lanes lanes_load_f16(const uint16_t *p)
{
    return (struct lanes){_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p))};
}

KERN_INLINE struct lanes lanes_load_bf16(const uint16_t *p)
{
    __m512i v = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (struct lanes){_mm512_castsi512_ps(_mm512_slli_epi32(v, 16))};
}

KERN_INLINE struct lanes lanes_set(float f)
{
    return (struct lanes){_mm512_set1_ps(f)};
}

#define LANES_2(name, op)                                         \
    KERN_INLINE struct lanes name(struct lanes a, struct lanes b) \
    {                                                             \
        return (struct lanes){op(a.v, b.v)};                      \
    }
#define LANES_3(name, op)                                                         \
    KERN_INLINE struct lanes name(struct lanes a, struct lanes b, struct lanes c) \
    {                                                                             \
        return (struct lanes){op(a.v, b.v, c.v)};                                 \
    }
LANES_2(lanes_add, _mm512_add_ps)
LANES_2(lanes_sub, _mm512_sub_ps)
LANES_2(lanes_mul, _mm512_mul_ps)
LANES_2(lanes_div, _mm512_div_ps)
LANES_2(lanes_max, _mm512_max_ps)
LANES_2(lanes_min, _mm512_min_ps)
LANES_3(lanes_fma, _mm512_fmadd_ps)
LANES_3(lanes_fnma, _mm512_fnmadd_ps)

KERN_INLINE struct lanes lanes_neg(struct lanes a)
{
    return (struct lanes){_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))};
}

KERN_INLINE struct lanes lanes_first(struct lanes a, struct lanes b, size_t n)
{
    return (struct lanes){_mm512_mask_blend_ps(mask_of(n), b.v, a.v)};
}

KERN_INLINE float lanes_sum(struct lanes a)
{
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

/* The same tree for four at once: registers that hold half, then a quarter of each of them. */
KERN_INLINE __m128 lanes_sums4(struct lanes a, struct lanes b, struct lanes c, struct lanes d)
{
    __m512 ab =
        _mm512_add_ps(_mm512_shuffle_f32x4(a.v, b.v, 0x44), _mm512_shuffle_f32x4(a.v, b.v, 0xee));
    __m512 cd =
        _mm512_add_ps(_mm512_shuffle_f32x4(c.v, d.v, 0x44), _mm512_shuffle_f32x4(c.v, d.v, 0xee));
    __m512 s =
        _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0x4e));
    s = _mm512_add_ps(s, _mm512_permute_ps(s, 0xb1));
    const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm512_castps512_ps128(_mm512_permutexvar_ps(first, s));
}

KERN_INLINE float lanes_largest(struct lanes a)
{
    return _mm512_reduce_max_ps(a.v);
}

/* vscalefps rounds q · 2^n once, as the two products of kern_exp do. */
KERN_INLINE struct lanes lanes_scale(struct lanes q, struct lanes t, struct lanes n)
{
    (void)t;
    return (struct lanes){_mm512_scalef_ps(q.v, n.v)};
}

KERN_INLINE void lanes_pairs(const float *p, struct lanes *even, struct lanes *odd)
{
    const __m512i e = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i o = _mm512_add_epi32(e, _mm512_set1_epi32(1));
    __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
    even->v = _mm512_permutex2var_ps(a, e, b);
    odd->v = _mm512_permutex2var_ps(a, o, b);
}

/* Even lanes a·cos − b·sin, odd lanes a·sin + b·cos. */
KERN_INLINE struct lanes lanes_rotate(struct lanes x, struct lanes cs)
{
    __m512 t = _mm512_mul_ps(_mm512_movehdup_ps(x.v), _mm512_permute_ps(cs.v, 0xb1));
    return (struct lanes){_mm512_fmaddsub_ps(_mm512_moveldup_ps(x.v), cs.v, t)};
}

KERN_INLINE struct lanes_bits lanes_bits_zero(void)
{
    return (struct lanes_bits){_mm512_setzero_si512()};
}

KERN_INLINE struct lanes_bits lanes_bits_max(struct lanes_bits a, struct lanes_bits b)
{
    return (struct lanes_bits){_mm512_max_epi32(a.v, b.v)};
}

KERN_INLINE struct lanes_bits lanes_abs_max_bits(struct lanes_bits m, struct lanes a)
{
    __m512i v = _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x7fffffff));
    return (struct lanes_bits){_mm512_max_epi32(m.v, v)};
}

KERN_INLINE float lanes_largest_bits(struct lanes_bits m)
{
    __m256i s = _mm256_max_epi32(_mm512_castsi512_si256(m.v), _mm512_extracti64x4_epi64(m.v, 1));
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(t));
}

KERN_INLINE __m128i lanes_to_i8(struct lanes a)
{
    return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v));
}

KERN_INLINE __m256i lanes_to_f16(struct lanes a)
{
    return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT);
}

/* Adds half of the dropped part, minus one bit if the kept part is even; NaN keeps its top. */
KERN_INLINE __m256i lanes_to_bf16(struct lanes a)
{
    __m512i v = _mm512_castps_si512(a.v), top = _mm512_srli_epi32(v, 16);
    __m512i odd = _mm512_and_si512(top, _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(v, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    r = _mm512_srli_epi32(r, 16);
    __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
    r = _mm512_mask_or_epi32(r, nan, top, _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(r);
}

#endif
