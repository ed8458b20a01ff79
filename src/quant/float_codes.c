/*
 * Conversions between float32 and the short floating point codes: half, bfloat16, FP8 (OFP8 e4m3
 * and e5m2 of the Open Compute Project) and e8m0 (the power-of-two scale of its MX formats).
 *
 * Widening is exact: shift the fields into place and move the exponent by the difference of the
 * biases; subnormal codes are fixed-point numbers, which one float subtraction normalizes.
 * Narrowing rounds to nearest, ties to even: normal results by adding just under half a unit (plus
 * the last kept bit) before the shift, so that a carry runs into the exponent by itself; subnormal
 * results by adding a power of two whose unit in the last place is that of the target, so that the
 * adder rounds. Both assume the default rounding mode.
 */
#include "quant/quant.h"

#include "quant/q_codes.h"

float quant_f16_to_f32(uint16_t h)
{
    return q_f16_to_f32(h);
}

uint16_t quant_f32_to_f16(float f)
{
    return q_f32_to_f16(f);
}

float quant_bf16_to_f32(uint16_t b)
{
    return q_bf16_to_f32(b);
}

uint16_t quant_f32_to_bf16(float f)
{
    return q_f32_to_bf16(f);
}

float quant_e4m3_to_f32(uint8_t v)
{
    return q_e4m3_to_f32(v);
}

uint8_t quant_f32_to_e4m3(float f)
{
    uint32_t u = q_bits(f);
    uint32_t sign = u >> 24 & 0x80;
    u &= 0x7FFFFFFF;
    if (u > q_bits(464.0f)) /* 464 itself is a tie and goes to 448, whose code is even */
        return (uint8_t)(sign | 0x7F);
    if (u < q_bits(0x1p-6f)) /* unit of 2^14 is 2^-9 */
        return (uint8_t)(sign | (q_bits(q_from_bits(u) + 0x1p14f) - q_bits(0x1p14f)));
    u += 0x7FFFF + (u >> 20 & 1) - ((uint32_t)(127 - 7) << 23);
    return (uint8_t)(sign | u >> 20);
}

float quant_e5m2_to_f32(uint8_t v)
{
    return quant_f16_to_f32((uint16_t)(v << 8)); /* the upper byte of a half */
}

uint8_t quant_f32_to_e5m2(float f)
{
    uint32_t u = q_bits(f);
    uint32_t sign = u >> 24 & 0x80;
    u &= 0x7FFFFFFF;
    if (u > 0x7F800000)
        return (uint8_t)(sign | 0x7F);
    if (u >= q_bits(65536.0f))
        return (uint8_t)(sign | 0x7C);
    if (u < q_bits(0x1p-14f)) /* unit of 2^7 is 2^-16 */
        return (uint8_t)(sign | (q_bits(q_from_bits(u) + 0x1p7f) - q_bits(0x1p7f)));
    u += 0xFFFFF + (u >> 21 & 1) - ((uint32_t)(127 - 15) << 23);
    return (uint8_t)(sign | u >> 21);
}

float quant_e8m0_to_f32(uint8_t v)
{
    if (v == 0)
        return 0x1p-127f; /* a subnormal float */
    return q_from_bits(v == 255 ? 0x7FC00000 : (uint32_t)v << 23);
}
