/*
 * Row forms of weights that safetensors files hold in several tensors, and bare FP8.
 *
 *   E4M3  1 byte a value                     OFP8 e4m3
 *   E5M2  1 byte a value                     OFP8 e5m2
 *   FP8   d float 4 | 128 e4m3               d × q
 *   I8    d float 4 | 128 int8               d × q
 *   Q4Z   d half 2 | z half 2 | 16 bytes     d × (q − z); nibbles in the order of Q4_0, z is 0..16
 *   Q8Z   d half 2 | z half 2 | 32 int8      d × (q − z); z is −128..128
 *   NF4   a float 4 | 32 bytes               a × level[q]; the first value in the high nibble
 *   FP4   a float 4 | 32 bytes               likewise
 *
 * Each has the scale of its checkpoints in full precision, so format/ can bring their bits into
 * these forms without rounding: d × (q − z) is exact in float32, as half × integer of nine bits.
 * A row may end in a part of a block; what is missing of it are zero bytes.
 *
 * Levels of NF4: quantiles of a normal distribution (Dettmers et al. 2023, "QLoRA", appendix E), of
 * FP4: a sign, two bits of exponent and one of mantissa, divided by 12; both in the order and with
 * the rounding of the bitsandbytes library.
 */
#include "quant/q_impl.h"
#include "quant/q_search.h"

#include <math.h>

static inline size_t block_part(size_t n, size_t block)
{
    return n < block ? n : block;
}

/* ---- decoding -------------------------------------------------------------------------------- */

void q_e4m3_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = q_e4m3_to_f32(p[i]);
}

void q_e5m2_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = q_f16_to_f32((uint16_t)(p[i] << 8)); /* the upper byte of a half */
}

void q_fp8_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t k; n; n -= k, p += 132, dst += k) {
        float d = q_get_f32(p);
        k = block_part(n, 128);
        for (size_t i = 0; i < k; i++)
            dst[i] = d * q_e4m3_to_f32(p[4 + i]);
    }
}

void q_i8_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t k; n; n -= k, p += 132, dst += k) {
        float d = q_get_f32(p);
        k = block_part(n, 128);
        for (size_t i = 0; i < k; i++)
            dst[i] = d * (float)(int8_t)p[4 + i];
    }
}

void q_q4z_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t k; n; n -= k, p += 20, dst += k) {
        float d = q_half(p), z = q_half(p + 2), w[32];
        k = block_part(n, 32);
        for (int i = 0; i < 16; i++) {
            w[i] = d * ((float)(p[4 + i] & 15) - z);
            w[i + 16] = d * ((float)(p[4 + i] >> 4) - z);
        }
        memcpy(dst, w, k * sizeof(*w));
    }
}

void q_q8z_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t k; n; n -= k, p += 36, dst += k) {
        float d = q_half(p), z = q_half(p + 2);
        k = block_part(n, 32);
        for (size_t i = 0; i < k; i++)
            dst[i] = d * ((float)(int8_t)p[4 + i] - z);
    }
}

static const float nf4_levels[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static const float fp4_levels[16] = {
    0.0f,
    0.0052083334885537624f,
    0.6666666865348816f,
    1.0f,
    0.3333333432674408f,
    0.5f,
    0.1666666716337204f,
    0.25f,
    0.0f,
    -0.0052083334885537624f,
    -0.6666666865348816f,
    -1.0f,
    -0.3333333432674408f,
    -0.5f,
    -0.1666666716337204f,
    -0.25f,
};

static void levels_decode(const float level[16], float *dst, const uint8_t *p, size_t n)
{
    for (size_t k; n; n -= k, p += 36, dst += k) {
        float a = q_get_f32(p), w[64];
        k = block_part(n, 64);
        for (int i = 0; i < 32; i++) {
            w[2 * i] = level[p[4 + i] >> 4] * a;
            w[2 * i + 1] = level[p[4 + i] & 15] * a;
        }
        memcpy(dst, w, k * sizeof(*w));
    }
}

void q_nf4_decode(float *dst, const void *src, size_t n)
{
    levels_decode(nf4_levels, dst, src, n);
}

void q_fp4_decode(float *dst, const void *src, size_t n)
{
    levels_decode(fp4_levels, dst, src, n);
}

const float *quant_levels(enum quant_id id)
{
    return id == QUANT_NF4 ? nf4_levels : id == QUANT_FP4 ? fp4_levels : NULL;
}

/* ---- encoding -------------------------------------------------------------------------------- */

/*
 * The largest magnitude maps to the end of the range, the rest to the nearest code. Importance is
 * not used: these forms are for reading, and have rounding of their own where they are written.
 */

/* Largest magnitude; at most 2^127, so that no product of scale and code overflows. */
static float largest(const float *src, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
    return most < 0x1p127f ? most : 0x1p127f;
}

/* x within ±most; 0 for NaN. */
static inline float within(float x, float most)
{
    return x != x ? 0 : x > most ? most : x < -most ? -most : x;
}

void q_e4m3_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        p[i] = quant_f32_to_e4m3(within(src[i], 448));
}

void q_e5m2_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        p[i] = quant_f32_to_e5m2(within(src[i], 57344));
}

void q_fp8_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t k; n; n -= k, p += 132, src += k) {
        k = block_part(n, 128);
        float d = largest(src, k) / 448;
        memset(p, 0, 132);
        q_put_f32(p, d);
        for (size_t i = 0; i < k && d > 0; i++)
            p[4 + i] = quant_f32_to_e4m3(within(src[i] / d, 448));
    }
}

void q_i8_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t k; n; n -= k, p += 132, src += k) {
        k = block_part(n, 128);
        float d = largest(src, k) / 127;
        memset(p, 0, 132);
        q_put_f32(p, d);
        for (size_t i = 0; i < k && d > 0; i++)
            p[4 + i] = (uint8_t)(int8_t)q_round(within(src[i] / d, 127), -127, 127);
    }
}

/* Scale, zero point and codes 0..hi of a block, whose range is made to include 0. */
static uint16_t zero_point_codes(const float *src, size_t n, float hi, float *zero, uint8_t *code)
{
    float least = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        least = src[i] < least ? src[i] : least;
        most = src[i] > most ? src[i] : most;
    }
    uint16_t half = q_half_finite((most - least) / hi);
    float d = quant_f16_to_f32(half);
    *zero = d > 0 ? q_round(-least / d, 0, hi) : 0;
    for (size_t i = 0; i < n; i++)
        code[i] = d > 0 ? (uint8_t)q_round(within(src[i] / d, 2 * hi) + *zero, 0, hi) : 0;
    return half;
}

void q_q4z_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t k; n; n -= k, p += 20, src += k) {
        uint8_t code[32] = {0};
        float zero;
        k = block_part(n, 32);
        q_put16(p, zero_point_codes(src, k, 15, &zero, code));
        q_put16(p + 2, quant_f32_to_f16(zero));
        for (int i = 0; i < 16; i++)
            p[4 + i] = (uint8_t)(code[i] | code[i + 16] << 4);
    }
}

void q_q8z_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t k; n; n -= k, p += 36, src += k) {
        uint8_t code[32];
        float zero;
        k = block_part(n, 32);
        memset(p, 0, 36);
        q_put16(p, zero_point_codes(src, k, 255, &zero, code));
        q_put16(p + 2, quant_f32_to_f16(zero - 128));
        for (size_t i = 0; i < k; i++)
            p[4 + i] = code[i] ^ 0x80; /* minus 128 */
    }
}

/* The code of the nearest level; the lower code at ties. */
static inline uint8_t nearest_level(const float level[16], float x)
{
    uint8_t best = 0;
    for (uint8_t c = 1; c < 16; c++)
        best = fabsf(level[c] - x) < fabsf(level[best] - x) ? c : best;
    return best;
}

static void levels_encode(const float level[16], uint8_t *p, const float *src, size_t n)
{
    for (size_t k; n; n -= k, p += 36, src += k) {
        k = block_part(n, 64);
        float a = largest(src, k);
        memset(p, 0, 36);
        q_put_f32(p, a);
        for (size_t i = 0; i < k; i++) {
            uint8_t c = nearest_level(level, a > 0 ? within(src[i] / a, 1) : 0);
            p[4 + i / 2] |= (uint8_t)(i % 2 ? c : c << 4);
        }
    }
}

void q_nf4_encode(void *dst, const float *src, size_t n, const float *importance)
{
    levels_encode(nf4_levels, dst, src, n);
}

void q_fp4_encode(void *dst, const float *src, size_t n, const float *importance)
{
    levels_encode(fp4_levels, dst, src, n);
}
