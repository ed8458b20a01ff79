/*
 * The IQ types of one to three bits, decoding: groups of 8 (or 4) values are a signed row of a
 * codebook (q_iq_tables.h), scaled per 16 or 32 values and once per 256. Layouts in bytes:
 *
 *   IQ2_XXS  d 2 | 8 × (4 codes of 8 bits, u32: 4 × 7 bits of signs, 4 of scale)
 *   IQ2_XS   d 2 | 32 × u16 (9 bits of code, 7 of signs) | 8 scales, two nibbles each
 *   IQ2_S    d 2 | 32 low bytes of codes | 32 of signs | 8 high pairs of bits | 8 scales
 *   IQ3_XXS  d 2 | 64 codes for 4 values each | 8 × u32 (4 × 7 signs, 4 of scale)
 *   IQ3_S    d 2 | 64 low bytes of codes | 8 high bits | 32 of signs | 4 scales
 *   IQ1_S    d 2 | 32 low bytes of codes | 8 × u16 (4 × 3 high bits, 3 of scale, sign of the shift)
 *   IQ1_M    32 low bytes | 16 × two nibbles (3 high bits, sign of the shift) | 4 × u16 (4 × 3 bits
 *            of scale; the top nibbles make up d)
 *
 * Seven sign bits stand for eight: the eighth makes the number of minus signs even. IQ1 adds ±1/8
 * to a codebook of −1, 0, 1. The order of the multiplications is that of the reference
 * implementations, so that results agree to the bit.
 *
 * Encoding: q_iq_encode.c.
 */
#include "quant/q_impl.h"
#include "quant/q_iq_tables.h"

/* Eight sign bits from seven. */
static inline uint8_t even_signs(uint32_t seven)
{
    return (uint8_t)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

/* n (4 or 8) values of a codebook row with the signs of the low bits of `signs`. */
static inline void put_signed(float *dst, float scale, uint64_t row, unsigned signs, int n)
{
    for (int i = 0; i < n; i++) {
        float sign = (float)(1 - 2 * (int)(signs >> i & 1));
        dst[i] = scale * (float)(uint8_t)(row >> 8 * i) * sign;
    }
}

void q_iq2_xxs_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 66) {
        float d = q_half(p);
        for (int s = 0; s < 8; s++) {
            const uint8_t *codes = p + 2 + 8 * s;
            uint32_t aux = q_get32(codes + 4);
            float db = d * (0.5f + (float)(aux >> 28)) * 0.25f;
            for (int g = 0; g < 4; g++, dst += 8)
                put_signed(dst, db, q_iq2_xxs_grid[codes[g]], even_signs(aux >> 7 * g & 127), 8);
        }
    }
}

void q_iq2_xs_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 74) {
        float d = q_half(p);
        for (int g = 0; g < 32; g++, dst += 8) {
            unsigned scale = p[66 + g / 4] >> 4 * (g / 2 % 2) & 15;
            float db = d * (0.5f + (float)scale) * 0.25f;
            uint16_t q = q_get16(p + 2 + 2 * g);
            put_signed(dst, db, q_iq2_xs_grid[q & 511], even_signs(q >> 9), 8);
        }
    }
}

void q_iq2_s_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 82) {
        const uint8_t *low = p + 2, *signs = p + 34, *high = p + 66, *scales = p + 74;
        float d = q_half(p);
        for (int g = 0; g < 32; g++, dst += 8) {
            unsigned scale = scales[g / 4] >> 4 * (g / 2 % 2) & 15;
            float db = d * (0.5f + (float)scale) * 0.25f;
            unsigned code = low[g] | (high[g / 4] >> 2 * (g % 4) & 3u) << 8;
            put_signed(dst, db, q_iq2_s_grid[code], signs[g], 8);
        }
    }
}

void q_iq3_xxs_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 98) {
        float d = q_half(p);
        for (int s = 0; s < 8; s++) {
            const uint8_t *codes = p + 2 + 8 * s;
            uint32_t aux = q_get32(p + 66 + 4 * s);
            float db = d * (0.5f + (float)(aux >> 28)) * 0.5f;
            for (int g = 0; g < 4; g++, dst += 8) {
                unsigned signs = even_signs(aux >> 7 * g & 127);
                put_signed(dst, db, q_iq3_xxs_grid[codes[2 * g]], signs, 4);
                put_signed(dst + 4, db, q_iq3_xxs_grid[codes[2 * g + 1]], signs >> 4, 4);
            }
        }
    }
}

void q_iq3_s_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 110) {
        const uint8_t *low = p + 2, *high = p + 66, *signs = p + 74, *scales = p + 106;
        float d = q_half(p);
        for (int g = 0; g < 64; g++, dst += 4) {
            int s = g / 8;
            float db = d * (float)(1 + 2 * (scales[s / 2] >> 4 * (s & 1) & 15));
            unsigned code = low[g] | (high[s] >> g % 8 & 1u) << 8;
            put_signed(dst, db, q_iq3_s_grid[code], signs[g / 2] >> 4 * (g & 1), 4);
        }
    }
}

/* Eight values of an IQ1 codebook row, shifted. */
static inline void put_shifted(float *dst, float scale, uint64_t row, float delta)
{
    for (int i = 0; i < 8; i++)
        dst[i] = scale * ((float)(int8_t)(row >> 8 * i) + delta);
}

void q_iq1_s_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 50) {
        float d = q_half(p);
        for (int s = 0; s < 8; s++) {
            uint16_t aux = q_get16(p + 34 + 2 * s);
            float dl = d * (float)(2 * (aux >> 12 & 7) + 1);
            float delta = aux & 0x8000 ? -0.125f : 0.125f;
            for (int g = 0; g < 4; g++, dst += 8) {
                unsigned code = p[2 + 4 * s + g] | (aux >> 3 * g & 7u) << 8;
                put_shifted(dst, dl, q_iq1_grid[code], delta);
            }
        }
    }
}

void q_iq1_m_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= Q_SUPER; n -= Q_SUPER, p += 56) {
        const uint8_t *scales = p + 48;
        unsigned half = 0;
        for (int i = 0; i < 4; i++)
            half |= (unsigned)(scales[2 * i + 1] >> 4) << 4 * i;
        float d = quant_f16_to_f32((uint16_t)half);
        for (int g = 0; g < 32; g++, dst += 8) {
            int s = g / 2; /* sub-block of 16 */
            unsigned scale = q_get16(scales + 2 * (s / 4)) >> 3 * (s % 4) & 7u;
            unsigned high = p[32 + s] >> 4 * (g & 1) & 15u;
            unsigned code = p[g] | (high & 7) << 8;
            float dl = d * (float)(2 * scale + 1);
            put_shifted(dst, dl, q_iq1_grid[code], high & 8 ? -0.125f : 0.125f);
        }
    }
}
