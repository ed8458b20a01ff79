/*
 * Blocks of 32 values with one scale (the first types of GGML).
 *
 *   Q4_0  d 2 | 16 bytes                 d × (q − 8)
 *   Q4_1  d 2 | m 2 | 16 bytes           d × q + m
 *   Q5_0  d 2 | high bits 4 | 16 bytes   d × (q − 16)
 *   Q5_1  d 2 | m 2 | high bits 4 | 16   d × q + m
 *   Q8_0  d 2 | 32 int8                  d × q
 *
 * d and m are halves. Value j has its low bits in the low nibble of byte j, value j + 16 in the
 * high nibble; bit j of the high bits belongs to value j.
 */
#include "quant/q_impl.h"
#include "quant/q_search.h"

#include <math.h>

void q_q4_0_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 18, dst += 32) {
        float d = q_half(p);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)((p[2 + i] & 15) - 8);
            dst[i + 16] = d * (float)((p[2 + i] >> 4) - 8);
        }
    }
}

void q_q4_1_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 20, dst += 32) {
        float d = q_half(p), m = q_half(p + 2);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)(p[4 + i] & 15) + m;
            dst[i + 16] = d * (float)(p[4 + i] >> 4) + m;
        }
    }
}

void q_q5_0_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 22, dst += 32) {
        float d = q_half(p);
        uint32_t high = q_get32(p + 2);
        for (int i = 0; i < 16; i++) {
            int lo = (p[6 + i] & 15) | (int)(high >> i & 1) << 4;
            int hi = (p[6 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
            dst[i] = d * (float)(lo - 16);
            dst[i + 16] = d * (float)(hi - 16);
        }
    }
}

void q_q5_1_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 24, dst += 32) {
        float d = q_half(p), m = q_half(p + 2);
        uint32_t high = q_get32(p + 4);
        for (int i = 0; i < 16; i++) {
            int lo = (p[8 + i] & 15) | (int)(high >> i & 1) << 4;
            int hi = (p[8 + i] >> 4) | (int)(high >> (i + 16) & 1) << 4;
            dst[i] = d * (float)lo + m;
            dst[i + 16] = d * (float)hi + m;
        }
    }
}

void q_q8_0_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 34, dst += 32) {
        float d = q_half(p);
        for (int i = 0; i < 32; i++)
            dst[i] = d * (float)(int8_t)p[2 + i];
    }
}

/* ---- encoding -------------------------------------------------------------------------------- */

/*
 * Without importance the bytes are those of the reference encoders: Q4_0 and Q5_0 map the value of
 * largest magnitude to the lowest level, Q4_1 and Q5_1 the smallest and largest value to the ends.
 * With importance the scale is searched (q_search.c). Q8_0 is fine enough to need no search.
 */

static const struct q_symmetric q4_0 = {
    .n = 32, .lo = -8, .hi = 7, .step = 0.2f, .steps = 8, .sums = q_sums_integers};
static const struct q_symmetric q5_0 = {
    .n = 32, .lo = -16, .hi = 15, .step = 0.3f, .steps = 8, .sums = q_sums_integers};
static const struct q_affine q4_1 = {
    .n = 32, .hi = 15, .step = 0.2f, .steps = 7, .shifts = 1, .any_min = true};
static const struct q_affine q5_1 = {
    .n = 32, .hi = 31, .step = 0.3f, .steps = 7, .shifts = 1, .any_min = true};

/* Rounds half up, as the reference does; the argument is ≥ 0 but for rounding. */
static inline uint8_t round_up(float t, float hi)
{
    t = t > 0 ? t : 0;
    return (uint8_t)(int)(t < hi + 0.5f ? t : hi);
}

/* Codes of 32 values as q - lo, the half for d. */
static uint16_t symmetric_codes(const struct q_symmetric *g, const float *src,
                                const float *importance, uint8_t code[32])
{
    float range = g->hi - g->lo;
    if (importance) {
        struct q_block b;
        uint16_t half = 0;
        q_block_load(&b, src, importance, 32);
        float d = b.unit != 0 ? q_block_half(&b, q_symmetric_scale(g, b.x, b.w), &half) : 0;
        float inverse = q_inverse(d);
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)(int)(q_round(b.x[i] * inverse, g->lo, g->hi) - g->lo);
        return half;
    }
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = fabsf(src[i]) > fabsf(most) ? src[i] : most;
    float d = most / g->lo, inverse = q_inverse(d);
    for (int i = 0; i < 32; i++)
        code[i] = round_up(src[i] * inverse + (0.5f - g->lo), range);
    return q_half_finite(d);
}

static void affine_codes(const struct q_affine *g, const float *src, const float *importance,
                         uint8_t code[32], uint16_t *d_half, uint16_t *m_half)
{
    if (importance) {
        struct q_block b;
        float d, m;
        *d_half = *m_half = 0;
        memset(code, 0, 32);
        q_block_load(&b, src, importance, 32);
        if (b.unit == 0)
            return;
        q_affine_scale(g, b.x, b.w, &d, &m);
        d = q_block_half(&b, d, d_half);
        *m_half = q_half_finite(-m * b.unit);
        m = quant_f16_to_f32(*m_half) / b.unit;
        float inverse = q_inverse(d);
        for (int i = 0; i < 32; i++)
            code[i] = (uint8_t)(int)q_round((b.x[i] - m) * inverse, 0, g->hi);
        return;
    }
    float lo = src[0], hi = src[0];
    for (int i = 1; i < 32; i++) {
        lo = src[i] < lo ? src[i] : lo;
        hi = src[i] > hi ? src[i] : hi;
    }
    float d = (hi - lo) / g->hi, inverse = q_inverse(d);
    for (int i = 0; i < 32; i++)
        code[i] = round_up((src[i] - lo) * inverse + 0.5f, g->hi);
    *d_half = q_half_finite(d);
    *m_half = q_half_finite(lo);
}

static void pack_nibbles(uint8_t *q, const uint8_t code[32])
{
    for (int i = 0; i < 16; i++)
        q[i] = (uint8_t)((code[i] & 15) | (code[i + 16] & 15) << 4);
}

static void pack_high_bits(uint8_t *p, const uint8_t code[32])
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++)
        bits |= (uint32_t)(code[i] >> 4) << i;
    q_put32(p, bits);
}

void q_q4_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst, code[32];
    for (size_t i = 0; i + 32 <= n; i += 32, p += 18) {
        q_put16(p, symmetric_codes(&q4_0, src + i, importance ? importance + i : NULL, code));
        pack_nibbles(p + 2, code);
    }
}

void q_q4_1_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst, code[32];
    for (size_t i = 0; i + 32 <= n; i += 32, p += 20) {
        uint16_t d, m;
        affine_codes(&q4_1, src + i, importance ? importance + i : NULL, code, &d, &m);
        q_put16(p, d);
        q_put16(p + 2, m);
        pack_nibbles(p + 4, code);
    }
}

void q_q5_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst, code[32];
    for (size_t i = 0; i + 32 <= n; i += 32, p += 22) {
        q_put16(p, symmetric_codes(&q5_0, src + i, importance ? importance + i : NULL, code));
        pack_high_bits(p + 2, code);
        pack_nibbles(p + 6, code);
    }
}

void q_q5_1_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst, code[32];
    for (size_t i = 0; i + 32 <= n; i += 32, p += 24) {
        uint16_t d, m;
        affine_codes(&q5_1, src + i, importance ? importance + i : NULL, code, &d, &m);
        q_put16(p, d);
        q_put16(p + 2, m);
        pack_high_bits(p + 4, code);
        pack_nibbles(p + 8, code);
    }
}

void q_q8_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i + 32 <= n; i += 32, p += 34) {
        float most = 0;
        for (int k = 0; k < 32; k++)
            most = fabsf(src[i + k]) > most ? fabsf(src[i + k]) : most;
        float d = most / 127, inverse = q_inverse(d);
        q_put16(p, q_half_finite(d));
        for (int k = 0; k < 32; k++) { /* to nearest, halves away from zero */
            float t = src[i + k] * inverse, r = q_round(t, -127, 127), rest = t - r;
            int up = rest == 0.5f && t > 0, down = rest == -0.5f && t < 0;
            p[2 + k] = (uint8_t)(int8_t)((int)r + up - down);
        }
    }
}
