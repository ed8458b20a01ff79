/*
 * The vector kernels over 16 float lanes, written once for all x86 instruction sets.
 *
 * A file of an instruction set defines `struct lanes` (16 floats: two ymm or one zmm) with the
 * small operations below and then includes this file; everything is static and inlined, so the
 * code of one set never reaches the other. What is computed, in which order and with which
 * roundings, is defined in scalar/vec.c; the 16 lanes are those of its reductions.
 *
 * Needed before inclusion (n is 1..15; loads of n lanes touch nothing beyond and give +0 there):
 *   lanes_load, lanes_load_n, lanes_store, lanes_store_n, lanes_set
 *   lanes_add, lanes_sub, lanes_mul, lanes_div
 *   lanes_fma   a·b + c            lanes_fnma  −(a·b) + c
 *   lanes_max, lanes_min           a NaN in either operand gives the second (maxps)
 *   lanes_neg                      sign bit flipped
 *   lanes_first(a, b, n)           lanes 0..n−1 of a, the others of b
 *   lanes_sum                      the tree + 8, + 4, + 2, + 1
 *   lanes_largest                  maximum over the lanes; no NaN
 *   lanes_scale(q, t, n)           q · 2^n, where n is integral and t = n + KERN_EXP_MAGIC
 *   lanes_pairs(p, &even, &odd)    32 floats from p, split
 *   lanes_rotate(x, cs)            8 pairs (a, b) by (cos, sin), as in kern.h
 *   lanes_abs_max_bits(m, v)       m and the magnitudes of v, compared as integers, lane by lane
 *   lanes_largest_bits(m)          largest of 16 such integers, as a float
 *   lanes_to_i8(v)                 16 bytes, nearest even; within ±127
 *   lanes_to_f16, lanes_to_bf16    16 halves in a __m256i
 */
#ifndef PONDER_KERNELS_X86_VEC_IMPL_H
#define PONDER_KERNELS_X86_VEC_IMPL_H

#include "base/num.h"
#include "kernels/x86/exp_impl.h"

#include <float.h>

enum { LANES = KERN_ROWS };

/* ---- activations to int8 ---- */

/* Sums of bytes 0..7 and 8..15, both plus 1024, in the two halves: psadbw knows only unsigned. */
KERN_INLINE __m128i byte_sums(__m128i q)
{
    return _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8((char)0x80)), _mm_setzero_si128());
}

KERN_INLINE int32_t byte_sum(__m128i q)
{
    __m128i s = byte_sums(q);
    return _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 2048;
}

KERN_INLINE float block_scale(struct lanes_bits max, float *inv)
{
    float m = lanes_largest_bits(max), v = 127.0f / m;
    *inv = v <= FLT_MAX ? v : 0.0f;
    return m / 127.0f;
}

KERN_INLINE __m128i quantize_16(const float *x, struct lanes inv)
{
    struct lanes v = lanes_mul(lanes_load(x), inv);
    v = lanes_max(v, lanes_set(-127.0f));
    v = lanes_min(v, lanes_set(127.0f));
    return lanes_to_i8(v);
}

KERN_INLINE void quantize_block_32(struct kern_x *out, size_t at, const float *x)
{
    struct lanes_bits max = lanes_abs_max_bits(lanes_bits_zero(), lanes_load(x));
    max = lanes_abs_max_bits(max, lanes_load(x + 16));
    float inv, d = block_scale(max, &inv);
    struct lanes v = lanes_set(inv);
    __m128i a = quantize_16(x, v), b = quantize_16(x + 16, v);
    _mm_store_si128((__m128i *)(out->q + at * 32), a);
    _mm_store_si128((__m128i *)(out->q + at * 32 + 16), b);
    __m128i s = _mm_add_epi32(byte_sums(a), byte_sums(b));
    int32_t sum = _mm_cvtsi128_si32(s) + _mm_extract_epi16(s, 4) - 4096;
    out->d[at] = d;
    out->sum[at] = sum;
    out->s[at] = d * (float)sum;
}

/* Columns that go through K together: what lies side by side in `out` is written together. */
enum { QUANTIZE_COLS = 8 };

static void quantize_q32(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    size_t whole = out->k / 32, blocks = num_round_up(out->k, 64) / 32;
    x += col0 * ldx;
    for (size_t c0 = 0, n; c0 < cols; c0 += n, x += n * ldx) {
        n = num_min(QUANTIZE_COLS, cols - c0);
        size_t at = col0 + c0;
        for (size_t b = 0; b < whole; b++, at += out->cols)
            for (size_t c = 0; c < n; c++)
                quantize_block_32(out, at + c, x + c * ldx + b * 32);
        for (size_t b = whole; b < blocks; b++, at += out->cols)
            for (size_t c = 0; c < n; c++) {
                float rest[32] = {0};
                if (b == whole)
                    memcpy(rest, x + c * ldx + b * 32, out->k % 32 * sizeof *rest);
                quantize_block_32(out, at + c, rest);
            }
    }
}

KERN_INLINE void quantize_block_256(struct kern_x *out, size_t b, size_t c, const float *x)
{
    size_t at = b * out->cols + c;
    struct lanes_bits max = lanes_bits_zero(), max2 = max;
    for (size_t i = 0; i < 256; i += 32) {
        max = lanes_abs_max_bits(max, lanes_load(x + i));
        max2 = lanes_abs_max_bits(max2, lanes_load(x + i + 16));
    }
    float inv;
    out->d[at] = block_scale(lanes_bits_max(max, max2), &inv);
    struct lanes v = lanes_set(inv);
    for (size_t i = 0; i < 8; i++) {
        int8_t *q = out->q + ((b * 8 + i) * out->cols + c) * 32;
        __m128i lo = quantize_16(x + 32 * i, v), hi = quantize_16(x + 32 * i + 16, v);
        _mm_store_si128((__m128i *)q, lo);
        _mm_store_si128((__m128i *)(q + 16), hi);
        int32_t s0 = byte_sum(lo), s1 = byte_sum(hi);
        out->sum16[at * 16 + 2 * i] = (int16_t)s0;
        out->sum16[at * 16 + 2 * i + 1] = (int16_t)s1;
        out->sum32[at * 8 + i] = (int16_t)(s0 + s1);
    }
}

static void quantize_q256(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    size_t whole = out->k / 256, left = out->k % 256;
    x += col0 * ldx;
    for (size_t c0 = 0, n; c0 < cols; c0 += n, x += n * ldx) {
        n = num_min(QUANTIZE_COLS, cols - c0);
        for (size_t b = 0; b < whole; b++)
            for (size_t c = 0; c < n; c++)
                quantize_block_256(out, b, col0 + c0 + c, x + c * ldx + b * 256);
        for (size_t c = 0; c < n && left; c++) {
            float rest[256] = {0};
            memcpy(rest, x + c * ldx + whole * 256, left * sizeof *rest);
            quantize_block_256(out, whole, col0 + c0 + c, rest);
        }
    }
}

/* ---- rows ---- */

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    struct lanes l = lanes_set(0.0f);
    size_t i = 0, left = n % LANES;
    for (; i + LANES <= n; i += LANES) {
        struct lanes v = lanes_load(x + i);
        l = lanes_fma(v, v, l);
    }
    if (left) {
        struct lanes v = lanes_load_n(x + i, left);
        l = lanes_fma(v, v, l);
    }
    float scale = 1.0f / sqrtf(lanes_sum(l) / (float)n + eps);
    struct lanes s = lanes_set(scale);
    for (i = 0; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_mul(lanes_mul(lanes_load(x + i), s), lanes_load(w + i)));
    if (left) {
        struct lanes v = lanes_mul(lanes_load_n(x + i, left), s);
        lanes_store_n(y + i, lanes_mul(v, lanes_load_n(w + i, left)), left);
    }
}

static void rope_half(float *x, const float *cs, size_t pairs)
{
    float *y = x + pairs;
    size_t i = 0;
    for (; i + LANES <= pairs; i += LANES) {
        struct lanes a = lanes_load(x + i), b = lanes_load(y + i), c, s;
        lanes_pairs(cs + 2 * i, &c, &s);
        lanes_store(x + i, lanes_fma(a, c, lanes_neg(lanes_mul(b, s))));
        lanes_store(y + i, lanes_fma(a, s, lanes_mul(b, c)));
    }
    for (; i < pairs; i++) {
        float a = x[i], b = y[i], c = cs[2 * i], s = cs[2 * i + 1];
        x[i] = fmaf(a, c, -(b * s));
        y[i] = fmaf(a, s, b * c);
    }
}

static void rope(float *x, const float *cs, size_t n, int half)
{
    if (half) {
        rope_half(x, cs, n / 2);
        return;
    }
    size_t i = 0;
    for (n -= n % 2; i + LANES <= n; i += LANES)
        lanes_store(x + i, lanes_rotate(lanes_load(x + i), lanes_load(cs + i)));
    if (n -= i) {
        struct lanes v = lanes_rotate(lanes_load_n(x + i, n), lanes_load_n(cs + i, n));
        lanes_store_n(x + i, v, n);
    }
}

/* Largest p[i] × scale, −inf for n = 0. Four chains: the order of a maximum is free. */
static float largest(const float *p, size_t n, float scale)
{
    const struct lanes s = lanes_set(scale);
    struct lanes m0 = lanes_set(-INFINITY), m1 = m0, m2 = m0, m3 = m0;
    size_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
        m0 = lanes_max(lanes_mul(lanes_load(p + i), s), m0);
        m1 = lanes_max(lanes_mul(lanes_load(p + i + LANES), s), m1);
        m2 = lanes_max(lanes_mul(lanes_load(p + i + 2 * LANES), s), m2);
        m3 = lanes_max(lanes_mul(lanes_load(p + i + 3 * LANES), s), m3);
    }
    for (; i + LANES <= n; i += LANES)
        m0 = lanes_max(lanes_mul(lanes_load(p + i), s), m0);
    if (n -= i)
        m1 = lanes_first(lanes_max(lanes_mul(lanes_load_n(p + i, n), s), m1), m1, n);
    return lanes_largest(lanes_max(lanes_max(m0, m1), lanes_max(m2, m3))) + 0.0f;
}

static void exp_all(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_exp(lanes_load(x + i)));
    if (n -= i)
        lanes_store_n(y + i, lanes_exp(lanes_load_n(x + i, n)), n);
}

static float softmax_part(float *p, size_t n, float scale, float *sum)
{
    float m = largest(p, n, scale);
    const struct lanes shift = lanes_set(m == -INFINITY ? 0.0f : m), s = lanes_set(scale);
    struct lanes l = lanes_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        struct lanes e = lanes_exp(lanes_sub(lanes_mul(lanes_load(p + i), s), shift));
        lanes_store(p + i, e);
        l = lanes_add(l, e);
    }
    if (n -= i) {
        struct lanes e = lanes_exp(lanes_sub(lanes_mul(lanes_load_n(p + i, n), s), shift));
        lanes_store_n(p + i, e, n);
        l = lanes_first(lanes_add(l, e), l, n);
    }
    *sum = lanes_sum(l);
    return m;
}

static void softmax(float *p, size_t n)
{
    float sum;
    softmax_part(p, n, 1.0f, &sum);
    const struct lanes inv = lanes_set(1.0f / sum);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(p + i, lanes_mul(lanes_load(p + i), inv));
    if (n -= i)
        lanes_store_n(p + i, lanes_mul(lanes_load_n(p + i, n), inv), n);
}

KERN_INLINE struct lanes gated(struct lanes g, struct lanes u)
{
    struct lanes e = lanes_exp(lanes_neg(g));
    return lanes_mul(lanes_div(g, lanes_add(lanes_set(1.0f), e)), u);
}

static void swiglu(float *y, const float *gate, const float *up, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, gated(lanes_load(gate + i), lanes_load(up + i)));
    if (n -= i)
        lanes_store_n(y + i, gated(lanes_load_n(gate + i, n), lanes_load_n(up + i, n)), n);
}

static void add(float *y, const float *x, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_add(lanes_load(y + i), lanes_load(x + i)));
    if (n -= i)
        lanes_store_n(y + i, lanes_add(lanes_load_n(y + i, n), lanes_load_n(x + i, n)), n);
}

static void merge(float *y, float a, const float *x, float b, size_t n)
{
    const struct lanes va = lanes_set(a), vb = lanes_set(b);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        struct lanes t = lanes_mul(lanes_load(x + i), vb);
        lanes_store(y + i, lanes_fma(lanes_load(y + i), va, t));
    }
    if (n -= i) {
        struct lanes t = lanes_mul(lanes_load_n(x + i, n), vb);
        lanes_store_n(y + i, lanes_fma(lanes_load_n(y + i, n), va, t), n);
    }
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    const struct lanes va = lanes_set(a);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        lanes_store(y + i, lanes_fma(va, lanes_load(x + i), lanes_load(y + i)));
    if (n -= i)
        lanes_store_n(y + i, lanes_fma(va, lanes_load_n(x + i, n), lanes_load_n(y + i, n)), n);
}

KERN_INLINE void convert(uint16_t *y, const float *x, size_t n, __m256i (*to)(struct lanes))
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_si256((__m256i *)(y + i), to(lanes_load(x + i)));
    if (n -= i) {
        uint16_t rest[LANES];
        _mm256_storeu_si256((__m256i *)rest, to(lanes_load_n(x + i, n)));
        memcpy(y + i, rest, n * sizeof *y);
    }
}

static void f32_to_f16(uint16_t *y, const float *x, size_t n)
{
    convert(y, x, n, lanes_to_f16);
}

static void f32_to_bf16(uint16_t *y, const float *x, size_t n)
{
    convert(y, x, n, lanes_to_bf16);
}

static void quantize_bf16(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    for (size_t c = col0; c < col0 + cols; c++)
        for (size_t i = 0; i < out->k; i += 32) {
            uint16_t *h = out->h + (i / 32 * out->cols + c) * 32;
            size_t n = num_min(32, out->k - i);
            convert(h, x + c * ldx + i, n, lanes_to_bf16);
            memset(h + n, 0, (32 - n) * sizeof *h);
        }
}

static void e4m3_to_f16(uint16_t *y, const uint8_t *x, size_t n)
{
    const __m256i most = _mm256_set1_epi16(0x3f80), nan = _mm256_set1_epi16(0x7e00);
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        __m256i v = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(x + i)));
        __m256i em = _mm256_and_si256(_mm256_slli_epi16(v, 7), most);
        __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(v, 7), 15);
        __m256i bad = _mm256_and_si256(_mm256_cmpeq_epi16(em, most), nan);
        em = _mm256_or_si256(_mm256_or_si256(em, sign), bad);
        _mm256_storeu_si256((__m256i *)(y + i), em);
    }
    for (; i < n; i++) {
        unsigned v = x[i], bad = (v & 0x7f) == 0x7f ? 0x7e00 : 0;
        y[i] = (uint16_t)((v & 0x80) << 8 | (v & 0x7f) << 7 | bad);
    }
}

KERN_INLINE void vec_init(struct kern *k)
{
    k->quantize_q32 = quantize_q32;
    k->quantize_q256 = quantize_q256;
    k->quantize_bf16 = quantize_bf16;
    k->rmsnorm = rmsnorm;
    k->rope = rope;
    k->exp = exp_all;
    k->softmax_part = softmax_part;
    k->softmax = softmax;
    k->swiglu = swiglu;
    k->add = add;
    k->merge = merge;
    k->axpy = axpy;
    k->f32_to_f16 = f32_to_f16;
    k->f32_to_bf16 = f32_to_bf16;
    k->e4m3_to_f16 = e4m3_to_f16;
}

#endif
