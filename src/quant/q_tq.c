/*
 * Ternary types: −d, 0 or d, 256 values a block.
 *
 *   TQ2_0  64 bytes, two bits each: byte j of a run of 32 serves values j, j + 32, j + 64, j + 96
 *          of 128 | d
 *   TQ1_0  48 bytes with five base-3 digits, 4 with four | d. Runs: bytes 0..31 hold values
 *          j + 32k (k < 5), bytes 32..47 values 160 + j + 16k (k < 5), bytes 48..51 values
 *          240 + j + 4k (k < 4)
 *
 * A TQ1_0 byte is the fixed-point fraction of its digits, ceil(256 · number / 243): multiplying by
 * 3 carries the first digit out into bit 8, so that a decoder needs no division.
 *
 * Encoding rounds x / max|x|; importance has nothing to weigh, as these types are for weights that
 * are ternary already.
 */
#include "quant/q_impl.h"
#include "quant/q_search.h"

#include <math.h>

static const struct run {
    int at, bytes, first, digits; /* offset, length, first value, values of a byte */
} tq1_runs[] = {{0, 32, 0, 5}, {32, 16, 160, 5}, {48, 4, 240, 4}};

void q_tq1_0_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 54, dst += Q_SUPER) {
        float d = q_half(p + 52);
        for (const struct run *r = tq1_runs; r < tq1_runs + 3; r++) {
            unsigned power = 1;
            for (int k = 0; k < r->digits; k++, power *= 3) {
                for (int j = 0; j < r->bytes; j++) {
                    uint8_t rest = (uint8_t)(p[r->at + j] * power);
                    dst[r->first + k * r->bytes + j] = d * (float)((rest * 3 >> 8) - 1);
                }
            }
        }
    }
}

void q_tq2_0_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 66, dst += Q_SUPER) {
        float d = q_half(p + 64);
        for (int group = 0; group < 8; group++) { /* of 32 values */
            const uint8_t *q = p + 32 * (group / 4);
            int shift = 2 * (group % 4);
            for (int i = 0; i < 32; i++)
                dst[32 * group + i] = d * (float)((q[i] >> shift & 3) - 1);
        }
    }
}

/* Digits 0..2 of a block: x / max|x| rounded half away from zero, plus 1. */
static uint16_t ternary_codes(const float *src, uint8_t code[Q_SUPER])
{
    float most = 0;
    for (int i = 0; i < Q_SUPER; i++)
        most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
    float inverse = q_inverse(most);
    for (int i = 0; i < Q_SUPER; i++) {
        float t = src[i] * inverse;
        code[i] = (uint8_t)(1 + (t >= 0.5f) - (t <= -0.5f));
    }
    return q_half_finite(most);
}

void q_tq1_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    static const uint8_t weight[5] = {81, 27, 9, 3, 1};
    uint8_t *p = dst, code[Q_SUPER];
    for (size_t i = 0; i + Q_SUPER <= n; i += Q_SUPER, p += 54) {
        q_put16(p + 52, ternary_codes(src + i, code));
        for (const struct run *r = tq1_runs; r < tq1_runs + 3; r++)
            for (int j = 0; j < r->bytes; j++) {
                unsigned number = 0;
                for (int k = 0; k < r->digits; k++)
                    number += (unsigned)weight[k] * code[r->first + k * r->bytes + j];
                p[r->at + j] = (uint8_t)((number * 256 + 242) / 243);
            }
    }
}

void q_tq2_0_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst, code[Q_SUPER];
    for (size_t i = 0; i + Q_SUPER <= n; i += Q_SUPER, p += 66) {
        q_put16(p + 64, ternary_codes(src + i, code));
        for (int j = 0; j < 64; j++) {
            const uint8_t *c = code + 128 * (j / 32) + j % 32;
            p[j] = (uint8_t)(c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6);
        }
    }
}
