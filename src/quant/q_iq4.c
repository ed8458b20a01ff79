/*
 * IQ4_NL and IQ4_XS: four bits choose one of 16 unevenly spaced levels, denser near zero where
 * weights are.
 *
 *   IQ4_NL  d 2 | 16 bytes: value j in the low, value j + 16 in the high nibble (32 values)
 *   IQ4_XS  d 2 | high pairs of bits of 8 scales u16 | low nibbles of the scales 4 | 8 × 16 bytes
 *           as in IQ4_NL (256 values); scales are biased by 32
 */
#include "quant/q_impl.h"

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
