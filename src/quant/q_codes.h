/*
 * Inside quant/: conversions of half, bfloat16 and e4m3 as inline code without branches, so that
 * loops over them become vector code. What they do is explained in float_codes.c, which exports
 * them.
 */
#ifndef PONDER_QUANT_Q_CODES_H
#define PONDER_QUANT_Q_CODES_H

#include <stdint.h>
#include <string.h>

static inline uint32_t q_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return u;
}

static inline float q_from_bits(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* c ? a : b by masks: with a conditional, compilers move the arithmetic into a branch. */
static inline uint32_t q_choose(int c, uint32_t a, uint32_t b)
{
    uint32_t m = 0u - (uint32_t)c;
    return (m & a) | (~m & b);
}

static inline float q_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, em = h & 0x7FFF, u = em << 13;
    uint32_t normal = u + (em >= 0x7C00 ? 224u << 23 : 112u << 23);
    uint32_t subnormal = q_bits(q_from_bits(u + (113u << 23)) - 0x1p-14f);
    return q_from_bits(q_choose(em < 0x0400, subnormal, normal) | sign);
}

static inline uint16_t q_f32_to_f16(float f)
{
    uint32_t u = q_bits(f), sign = u >> 16 & 0x8000;
    u &= 0x7FFFFFFF;
    uint32_t normal = (u + 0xFFF + (u >> 13 & 1) - (112u << 23)) >> 13;
    uint32_t subnormal = q_bits(q_from_bits(u) + 0.5f) - q_bits(0.5f); /* unit of 0.5 is 2^-24 */
    uint32_t r = q_choose(u < q_bits(0x1p-14f), subnormal, normal);
    r = q_choose(u >= q_bits(65536.0f), 0x7C00, r);
    r = q_choose(u > 0x7F800000, 0x7E00 | (u >> 13 & 0x3FF), r);
    return (uint16_t)(sign | r);
}

/* The fields of e4m3 are those of a half whose value is 2^8 times smaller, subnormals included. */
static inline float q_e4m3_to_f32(uint8_t v)
{
    uint32_t sign = (uint32_t)(v & 0x80) << 24, em = v & 0x7F;
    uint32_t value = q_bits(q_f16_to_f32((uint16_t)(em << 7)) * 256);
    return q_from_bits(q_choose(em == 0x7F, 0x7FC00000, value) | sign);
}

static inline float q_bf16_to_f32(uint16_t b)
{
    return q_from_bits((uint32_t)b << 16);
}

static inline uint16_t q_f32_to_bf16(float f)
{
    uint32_t u = q_bits(f);
    uint32_t quiet = u >> 16 | 0x40; /* so that no payload rounds to infinity */
    uint32_t nearest = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
    return (uint16_t)q_choose((u & 0x7FFFFFFF) > 0x7F800000, quiet, nearest);
}

#endif
