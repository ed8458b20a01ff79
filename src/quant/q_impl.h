/*
 * Inside quant/: the functions of the rows of quant.def, and what the families share.
 *
 * Multi-byte fields of a block are little-endian and may lie at any address.
 */
#ifndef PONDER_QUANT_Q_IMPL_H
#define PONDER_QUANT_Q_IMPL_H

#include "quant/q_codes.h"
#include "quant/quant.h"

#include <endian.h>
#include <stdint.h>
#include <string.h>

enum { Q_SUPER = 256 }; /* values of a super-block (K, IQ and TQ families) */

#define q_declare_decode(name) void name(float *dst, const void *src, size_t n)
#define q_declare_encode(name) \
    void name(void *dst, const float *src, size_t n, const float *importance)

/* Every decode of the table is declared by its row; encoders below, since some rows have none. */
#define ROW(id, name, safetensors, block, bytes, decode, encode) q_declare_decode(decode);
#include "quant/quant.def"
#undef ROW

q_declare_encode(q_f32_encode);
q_declare_encode(q_f16_encode);
q_declare_encode(q_bf16_encode);
q_declare_encode(q_f64_encode);
q_declare_encode(q_q4_0_encode);
q_declare_encode(q_q4_1_encode);
q_declare_encode(q_q5_0_encode);
q_declare_encode(q_q5_1_encode);
q_declare_encode(q_q8_0_encode);
q_declare_encode(q_q2_k_encode);
q_declare_encode(q_q3_k_encode);
q_declare_encode(q_q4_k_encode);
q_declare_encode(q_q5_k_encode);
q_declare_encode(q_q6_k_encode);
q_declare_encode(q_iq4_nl_encode);
q_declare_encode(q_iq4_xs_encode);
q_declare_encode(q_iq2_xxs_encode);
q_declare_encode(q_iq2_xs_encode);
q_declare_encode(q_iq2_s_encode);
q_declare_encode(q_iq3_xxs_encode);
q_declare_encode(q_iq3_s_encode);
q_declare_encode(q_iq1_s_encode);
q_declare_encode(q_iq1_m_encode);
q_declare_encode(q_tq1_0_encode);
q_declare_encode(q_tq2_0_encode);
q_declare_encode(q_mxfp4_encode);
q_declare_encode(q_nvfp4_encode);
q_declare_encode(q_e4m3_encode);
q_declare_encode(q_e5m2_encode);
q_declare_encode(q_fp8_encode);
q_declare_encode(q_i8_encode);
q_declare_encode(q_q4z_encode);
q_declare_encode(q_q8z_encode);
q_declare_encode(q_nf4_encode);
q_declare_encode(q_fp4_encode);

static inline uint16_t q_get16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static inline uint32_t q_get32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline void q_put16(uint8_t *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void q_put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static inline float q_get_f32(const uint8_t *p)
{
    return q_from_bits(q_get32(p));
}

static inline void q_put_f32(uint8_t *p, float f)
{
    q_put32(p, q_bits(f));
}

/* The half-precision scale at p. */
static inline float q_half(const uint8_t *p)
{
    return q_f16_to_f32(q_get16(p));
}

/* Scale and minimum i (0..7) of the 12 bytes of Q4_K and Q5_K: six bits each, the upper two of the
   last four pairs parked in the top bits of the first eight bytes. */
static inline void q_k_scale_min(const uint8_t p[12], int i, uint8_t *scale, uint8_t *min)
{
    if (i < 4) {
        *scale = p[i] & 63;
        *min = p[i + 4] & 63;
    } else {
        *scale = (uint8_t)((p[i + 4] & 15) | (p[i - 4] >> 6) << 4);
        *min = (uint8_t)((p[i + 4] >> 4) | (p[i] >> 6) << 4);
    }
}

/* The 16 levels of IQ4_NL and IQ4_XS. */
extern const int8_t q_iq4_levels[16];

#endif
