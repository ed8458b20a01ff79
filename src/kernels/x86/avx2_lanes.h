/*
 * Lane operations of AVX2 with FMA and F16C: 16 lanes are two ymm registers.
 * What each does is told in vec_impl.h.
 */
#ifndef PONDER_KERNELS_X86_AVX2_LANES_H
#define PONDER_KERNELS_X86_AVX2_LANES_H

#include "kernels/kern_internal.h"
#include "kernels/scalar/kern_math.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

struct lanes {
    __m256 lo, hi;
};

/* 16 magnitudes as integers. */
struct lanes_bits {
    __m256i v;
};

/* mask + 16 − n begins with n set lanes. */
static const int32_t first_mask[32] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                       -1, -1, -1, -1, -1, 0,  0,  0,  0,  0,  0,
                                       0,  0,  0,  0,  0,  0,  0,  0,  0,  0};

KERN_INLINE __m256i mask_at(size_t n, size_t half)
{
    return _mm256_loadu_si256((const __m256i *)(first_mask + 16 - n + half * 8));
}

KERN_INLINE struct lanes lanes_load(const float *p)
{
    return (struct lanes){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

KERN_INLINE struct lanes lanes_load_n(const float *p, size_t n)
{
    return (struct lanes){_mm256_maskload_ps(p, mask_at(n, 0)),
                          n > 8 ? _mm256_maskload_ps(p + 8, mask_at(n, 1)) : _mm256_setzero_ps()};
}

KERN_INLINE void lanes_store(float *p, struct lanes a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}

KERN_INLINE void lanes_store_n(float *p, struct lanes a, size_t n)
{
    _mm256_maskstore_ps(p, mask_at(n, 0), a.lo);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, mask_at(n, 1), a.hi);
}

KERN_INLINE struct lanes lanes_load_f16(const uint16_t *p)
{
    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                          _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

KERN_INLINE __m256 widen_bf16(const uint16_t *p)
{
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

KERN_INLINE struct lanes lanes_load_bf16(const uint16_t *p)
{
    return (struct lanes){widen_bf16(p), widen_bf16(p + 8)};
}

KERN_INLINE struct lanes lanes_set(float f)
{
    return (struct lanes){_mm256_set1_ps(f), _mm256_set1_ps(f)};
}

#define LANES_2(name, op)                                         \
    KERN_INLINE struct lanes name(struct lanes a, struct lanes b) \
    {                                                             \
        return (struct lanes){op(a.lo, b.lo), op(a.hi, b.hi)};    \
    }
#define LANES_3(name, op)                                                         \
    KERN_INLINE struct lanes name(struct lanes a, struct lanes b, struct lanes c) \
    {                                                                             \
        return (struct lanes){op(a.lo, b.lo, c.lo), op(a.hi, b.hi, c.hi)};        \
    }
LANES_2(lanes_add, _mm256_add_ps)
LANES_2(lanes_sub, _mm256_sub_ps)
LANES_2(lanes_mul, _mm256_mul_ps)
LANES_2(lanes_div, _mm256_div_ps)
LANES_2(lanes_max, _mm256_max_ps)
LANES_2(lanes_min, _mm256_min_ps)
LANES_3(lanes_fma, _mm256_fmadd_ps)
LANES_3(lanes_fnma, _mm256_fnmadd_ps)

KERN_INLINE struct lanes lanes_neg(struct lanes a)
{
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (struct lanes){_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}

KERN_INLINE struct lanes lanes_first(struct lanes a, struct lanes b, size_t n)
{
    __m256 lo = _mm256_castsi256_ps(mask_at(n, 0)), hi = _mm256_castsi256_ps(mask_at(n, 1));
    return (struct lanes){_mm256_blendv_ps(b.lo, a.lo, lo), _mm256_blendv_ps(b.hi, a.hi, hi)};
}

KERN_INLINE float lanes_sum(struct lanes a)
{
    __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}

/* The same tree for four at once. */
KERN_INLINE __m128 lanes_sums4(struct lanes a, struct lanes b, struct lanes c, struct lanes d)
{
    __m256 sa = _mm256_add_ps(a.lo, a.hi), sb = _mm256_add_ps(b.lo, b.hi);
    __m256 sc = _mm256_add_ps(c.lo, c.hi), sd = _mm256_add_ps(d.lo, d.hi);
    __m256 ab =
        _mm256_add_ps(_mm256_permute2f128_ps(sa, sb, 0x20), _mm256_permute2f128_ps(sa, sb, 0x31));
    __m256 cd =
        _mm256_add_ps(_mm256_permute2f128_ps(sc, sd, 0x20), _mm256_permute2f128_ps(sc, sd, 0x31));
    /* [a c | b d], two partial sums of each */
    __m256 s = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    s = _mm256_add_ps(s, _mm256_permute_ps(s, 0xb1));
    __m128 ac = _mm256_castps256_ps128(s), bd = _mm256_extractf128_ps(s, 1);
    return _mm_unpacklo_ps(_mm_shuffle_ps(ac, ac, 0x88), _mm_shuffle_ps(bd, bd, 0x88));
}

KERN_INLINE float lanes_largest(struct lanes a)
{
    __m256 s = _mm256_max_ps(a.lo, a.hi);
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}

/* As kern_exp does it: two powers of two, so that the last product rounds subnormals once. */
KERN_INLINE __m256 scale_8(__m256 q, __m256 t)
{
    const __m256i bias = _mm256_set1_epi32(127);
    __m256i magic = _mm256_castps_si256(_mm256_set1_ps(KERN_EXP_MAGIC));
    __m256i i = _mm256_sub_epi32(_mm256_castps_si256(t), magic), h = _mm256_srai_epi32(i, 1);
    __m256i a = _mm256_slli_epi32(_mm256_add_epi32(h, bias), 23);
    __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(i, h), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(q, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
}

KERN_INLINE struct lanes lanes_scale(struct lanes q, struct lanes t, struct lanes n)
{
    (void)n;
    return (struct lanes){scale_8(q.lo, t.lo), scale_8(q.hi, t.hi)};
}

KERN_INLINE void split_16(const float *p, __m256 *even, __m256 *odd)
{
    __m256 a = _mm256_loadu_ps(p), b = _mm256_loadu_ps(p + 8);
    __m256 lo = _mm256_permute2f128_ps(a, b, 0x20), hi = _mm256_permute2f128_ps(a, b, 0x31);
    *even = _mm256_shuffle_ps(lo, hi, 0x88);
    *odd = _mm256_shuffle_ps(lo, hi, 0xdd);
}

KERN_INLINE void lanes_pairs(const float *p, struct lanes *even, struct lanes *odd)
{
    split_16(p, &even->lo, &odd->lo);
    split_16(p + 16, &even->hi, &odd->hi);
}

/* Even lanes a·cos − b·sin, odd lanes a·sin + b·cos. */
KERN_INLINE __m256 rotate_8(__m256 x, __m256 cs)
{
    __m256 t = _mm256_mul_ps(_mm256_movehdup_ps(x), _mm256_permute_ps(cs, 0xb1));
    return _mm256_fmaddsub_ps(_mm256_moveldup_ps(x), cs, t);
}

KERN_INLINE struct lanes lanes_rotate(struct lanes x, struct lanes cs)
{
    return (struct lanes){rotate_8(x.lo, cs.lo), rotate_8(x.hi, cs.hi)};
}

KERN_INLINE struct lanes_bits lanes_bits_zero(void)
{
    return (struct lanes_bits){_mm256_setzero_si256()};
}

KERN_INLINE struct lanes_bits lanes_bits_max(struct lanes_bits a, struct lanes_bits b)
{
    return (struct lanes_bits){_mm256_max_epi32(a.v, b.v)};
}

KERN_INLINE struct lanes_bits lanes_abs_max_bits(struct lanes_bits m, struct lanes a)
{
    const __m256i abs = _mm256_set1_epi32(0x7fffffff);
    __m256i lo = _mm256_and_si256(_mm256_castps_si256(a.lo), abs);
    __m256i hi = _mm256_and_si256(_mm256_castps_si256(a.hi), abs);
    return (struct lanes_bits){_mm256_max_epi32(m.v, _mm256_max_epi32(lo, hi))};
}

KERN_INLINE float lanes_largest_bits(struct lanes_bits m)
{
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(m.v), _mm256_extracti128_si256(m.v, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(t));
}

KERN_INLINE __m128i lanes_to_i8(struct lanes a)
{
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
    w = _mm256_permute4x64_epi64(w, 0xd8);
    return _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
}

KERN_INLINE __m256i lanes_to_f16(struct lanes a)
{
    return _mm256_setr_m128i(_mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT),
                             _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}

/* Adds half of the dropped part, minus one bit if the kept part is even; NaN keeps its top. */
KERN_INLINE __m256i round_bf16(__m256 a)
{
    __m256i v = _mm256_castps_si256(a), top = _mm256_srli_epi32(v, 16);
    __m256i odd = _mm256_and_si256(top, _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(v, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    __m256i quiet = _mm256_or_si256(top, _mm256_set1_epi32(0x40));
    return _mm256_blendv_epi8(_mm256_srli_epi32(r, 16), quiet, nan);
}

KERN_INLINE __m256i lanes_to_bf16(struct lanes a)
{
    __m256i w = _mm256_packus_epi32(round_bf16(a.lo), round_bf16(a.hi));
    return _mm256_permute4x64_epi64(w, 0xd8);
}

#endif
