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
        for (int i = 0; i < Q_SUPER; i++) {
            int v = p[32 * (i / 128) + i % 32] >> 2 * (i / 32 % 4) & 3;
            dst[i] = d * (float)(v - 1);
        }
    }
}
