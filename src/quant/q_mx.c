/*
 * Four-bit floats with shared scales. A code is e2m1 of the OCP microscaling specification: ±0,
 * 0.5, 1, 1.5, 2, 3, 4, 6. The tables hold twice these values, the scales half, so that all factors
 * are integers times a scale.
 *
 *   MXFP4  scale e8m0 1 | 16 bytes: value j in the low, j + 16 in the high nibble (32 values)
 *   NVFP4  4 scales e4m3 (without sign) | 4 × 8 bytes, as above within 16 values (64 values)
 */
#include "quant/q_impl.h"

static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e − 127). 255 has no special meaning here: it is 2^127. */
static inline float half_e8m0(uint8_t e)
{
    uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* Half of an e4m3 scale; the sign bit is ignored, and 0x7F (NaN in e4m3) is 0. */
static inline float half_ue4m3(uint8_t v)
{
    int e = v >> 3 & 15, m = v & 7;
    if (v == 0x7F)
        return 0;
    float raw = e ? (1.0f + (float)m / 8) * (float)(1 << e) * 0x1p-7f : (float)m * 0x1p-9f;
    return raw * 0.5f;
}

void q_mxfp4_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 17, dst += 32) {
        float d = half_e8m0(p[0]);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)e2m1_doubled[p[1 + i] & 15];
            dst[i + 16] = d * (float)e2m1_doubled[p[1 + i] >> 4];
        }
    }
}

void q_nvfp4_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 64; n -= 64, p += 36) {
        for (int s = 0; s < 4; s++, dst += 16) {
            float d = half_ue4m3(p[s]);
            const uint8_t *q = p + 4 + 8 * s;
            for (int i = 0; i < 8; i++) {
                dst[i] = d * (float)e2m1_doubled[q[i] & 15];
                dst[i + 8] = d * (float)e2m1_doubled[q[i] >> 4];
            }
        }
    }
}
