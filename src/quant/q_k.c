/*
 * K-quants, decoding: super-blocks of 256 values in 16 sub-blocks of 16 (Q2_K, Q3_K, Q6_K) or 8 of
 * 32 (Q4_K, Q5_K). Each sub-block has a small integer scale (and a minimum), which one half per
 * super-block turns into a float:
 *
 *   Q2_K  scales[16] (low nibble scale, high nibble minimum), q2[64], d, dmin
 *   Q3_K  high bit[32], q2[64], scales[12] (six bits, biased by 32), d
 *   Q4_K  d, dmin, scales[12] (six bits each of scale and minimum), q4[128]
 *   Q5_K  d, dmin, scales[12], high bit[32], q4[128]
 *   Q6_K  low nibble[128], high two bits[64], int8 scales[16], d
 *
 * Low bits come in runs of 32 bytes: byte j of a run serves value j of successive groups of 32 by
 * rising bit position. (Q6_K's low nibbles are runs of 64 bytes.) A value is (d × scale) × q, or
 * (d × scale) × q − (dmin × minimum), rounded after each operation: this order is that of the
 * reference implementations, so that results agree to the bit.
 *
 * Encoding is in q_k_encode.c.
 */
#include "quant/q_impl.h"

void q_q2_k_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 84, dst += Q_SUPER) {
        const uint8_t *scales = p, *q = p + 16;
        float d = q_half(p + 80), dmin = q_half(p + 82);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)(scales[s] & 15), ml = dmin * (float)(scales[s] >> 4);
            const uint8_t *b = q + 32 * (s / 8) + 16 * (s & 1);
            int shift = 2 * (s / 2 % 4);
            for (int i = 0; i < 16; i++)
                dst[16 * s + i] = dl * (float)(b[i] >> shift & 3) - ml;
        }
    }
}

/* Scale s (0..15) of Q3_K, −32..31: low nibbles in 8 bytes, high pairs of bits in 4. */
static inline int q3_k_scale(const uint8_t p[12], int s)
{
    int low = p[s % 8] >> 4 * (s / 8) & 15;
    int high = p[8 + s % 4] >> 2 * (s / 4) & 3;
    return (low | high << 4) - 32;
}

void q_q3_k_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 110, dst += Q_SUPER) {
        const uint8_t *high = p, *q = p + 32;
        float d = q_half(p + 108);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)q3_k_scale(p + 96, s);
            const uint8_t *b = q + 32 * (s / 8) + 16 * (s & 1);
            const uint8_t *h = high + 16 * (s & 1);
            int shift = 2 * (s / 2 % 4);
            for (int i = 0; i < 16; i++) {
                int v = (b[i] >> shift & 3) + (h[i] >> (s / 2) & 1) * 4 - 4;
                dst[16 * s + i] = dl * (float)v;
            }
        }
    }
}

void q_q4_k_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 144, dst += Q_SUPER) {
        float d = q_half(p), dmin = q_half(p + 2);
        for (int s = 0; s < 8; s++) {
            uint8_t scale, min;
            q_k_scale_min(p + 4, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *b = p + 16 + 32 * (s / 2);
            int shift = 4 * (s & 1);
            for (int i = 0; i < 32; i++)
                dst[32 * s + i] = dl * (float)(b[i] >> shift & 15) - ml;
        }
    }
}

void q_q5_k_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 176, dst += Q_SUPER) {
        const uint8_t *high = p + 16;
        float d = q_half(p), dmin = q_half(p + 2);
        for (int s = 0; s < 8; s++) {
            uint8_t scale, min;
            q_k_scale_min(p + 4, s, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *b = p + 48 + 32 * (s / 2);
            int shift = 4 * (s & 1);
            for (int i = 0; i < 32; i++) {
                int v = (b[i] >> shift & 15) | (high[i] >> s & 1) << 4;
                dst[32 * s + i] = dl * (float)v - ml;
            }
        }
    }
}

void q_q6_k_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 210, dst += Q_SUPER) {
        const uint8_t *low = p, *high = p + 128;
        float d = q_half(p + 208);
        for (int s = 0; s < 16; s++) {
            float dl = d * (float)(int8_t)p[192 + s];
            int group = s / 2; /* of 32 values */
            const uint8_t *b = low + 64 * (group / 4) + 32 * (group & 1) + 16 * (s & 1);
            const uint8_t *h = high + 32 * (group / 4) + 16 * (s & 1);
            int low_shift = 4 * (group / 2 % 2), high_shift = 2 * (group % 4);
            for (int i = 0; i < 16; i++) {
                int v = (b[i] >> low_shift & 15) | (h[i] >> high_shift & 3) << 4;
                dst[16 * s + i] = dl * (float)(v - 32);
            }
        }
    }
}
