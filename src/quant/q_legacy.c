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
