/*
 * IQ4_NL and IQ4_XS: four bits choose one of 16 unevenly spaced levels, denser near zero where
 * weights are.
 *
 *   IQ4_NL  d 2 | 16 bytes: value j in the low, value j + 16 in the high nibble (32 values)
 *   IQ4_XS  d 2 | high pairs of bits of 8 scales u16 | low nibbles of the scales 4 | 8 × 16 bytes
 *           as in IQ4_NL (256 values); scales are biased by 32
 */
#include "quant/q_impl.h"
#include "quant/q_search.h"

const int8_t q_iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                 1,    13,   25,  38,  53,  69,  89,  113};

static inline void put_levels(float *dst, float d, const uint8_t q[16])
{
    for (int i = 0; i < 16; i++) {
        dst[i] = d * (float)q_iq4_levels[q[i] & 15];
        dst[i + 16] = d * (float)q_iq4_levels[q[i] >> 4];
    }
}

void q_iq4_nl_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 18, dst += 32)
        put_levels(dst, q_half(p), p + 2);
}

void q_iq4_xs_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 136) {
        float d = q_half(p);
        uint16_t high = q_get16(p + 2);
        for (int s = 0; s < 8; s++, dst += 32) {
            int low = p[4 + s / 2] >> 4 * (s & 1) & 15;
            int scale = (low | (high >> 2 * s & 3) << 4) - 32;
            put_levels(dst, d * (float)scale, p + 8 + 16 * s);
        }
    }
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* Which level is nearest, by ⌊2v⌋ + 256: the borders lie at half integers. */
static const uint8_t nearest[512] = {
    [0 ... 24] = 0,     [25 ... 68] = 1,    [69 ... 107] = 2,   [108 ... 141] = 3,
    [142 ... 171] = 4,  [172 ... 198] = 5,  [199 ... 223] = 6,  [224 ... 246] = 7,
    [247 ... 269] = 8,  [270 ... 293] = 9,  [294 ... 318] = 10, [319 ... 346] = 11,
    [347 ... 377] = 12, [378 ... 413] = 13, [414 ... 457] = 14, [458 ... 511] = 15,
};

static inline uint8_t nearest_level(float v)
{
    v = v > -127 ? v : -127;
    v = v < 127 ? v : 127;
    return nearest[(int)(2 * v + 256)];
}

static struct q_sums sums_levels(const struct q_symmetric *g, const float *x, const float *w, int n,
                                 float inverse)
{
    float xq[2] = {0, 0}, qq[2] = {0, 0};
    for (int i = 0; i < n; i += 2)
        for (int k = 0; k < 2; k++) {
            float q = q_iq4_levels[nearest_level(x[i + k] * inverse)], wq = w[i + k] * q;
            xq[k] += wq * x[i + k];
            qq[k] += wq * q;
        }
    return (struct q_sums){xq[0] + xq[1], qq[0] + qq[1]};
}

static const struct q_symmetric iq4_nl = {
    .n = 32, .lo = -127, .hi = 113, .step = 3, .steps = 6, .sums = sums_levels};
static const struct q_symmetric iq4_xs = {.n = 32,
                                          .subs = 8,
                                          .lo = -127,
                                          .hi = 113,
                                          .scale_lo = -32,
                                          .scale_hi = 31,
                                          .step = 3,
                                          .steps = 6,
                                          .sums = sums_levels};

static void pack_levels(uint8_t q[16], const float *x, float inverse)
{
    for (int i = 0; i < 16; i++)
        q[i] = (uint8_t)(nearest_level(x[i] * inverse) | nearest_level(x[i + 16] * inverse) << 4);
}

void q_iq4_nl_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i + 32 <= n; i += 32, p += 18) {
        struct q_block b;
        uint16_t half = 0;
        q_block_load(&b, src + i, importance ? importance + i : NULL, 32);
        float d = 0;
        if (b.unit != 0)
            d = q_block_half(&b, q_symmetric_scale(&iq4_nl, b.x, b.w), &half);
        q_put16(p, half);
        pack_levels(p + 2, b.x, q_inverse(d));
    }
}

void q_iq4_xs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i + Q_SUPER <= n; i += Q_SUPER, p += 136) {
        struct q_block b;
        int scale[Q_SUBS_MAX];
        uint16_t half, high = 0;
        memset(p, 0, 136);
        q_block_load(&b, src + i, importance ? importance + i : NULL, Q_SUPER);
        if (b.unit == 0)
            continue;
        float d = q_symmetric_super(&iq4_xs, &b, scale, &half);
        for (int s = 0; s < 8; s++) {
            unsigned v = (unsigned)(scale[s] + 32);
            p[4 + s / 2] |= (uint8_t)((v & 15) << 4 * (s & 1));
            high |= (uint16_t)(v >> 4 << 2 * s);
            pack_levels(p + 8 + 16 * s, b.x + 32 * s, q_inverse(d * (float)scale[s]));
        }
        q_put16(p, half);
        q_put16(p + 2, high);
    }
}
