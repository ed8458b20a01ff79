/*
 * Unpacked types: F32, F16, BF16, F64. A block is one value. Importance means nothing here.
 */
#include "quant/q_impl.h"

void q_f32_decode(float *dst, const void *src, size_t n)
{
    if (n)
        memcpy(dst, src, n * sizeof(*dst));
}

void q_f32_encode(void *dst, const float *src, size_t n, const float *importance)
{
    if (n)
        memcpy(dst, src, n * sizeof(*src));
}

void q_f16_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = q_f16_to_f32(q_get16(p + 2 * i));
}

void q_f16_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        q_put16(p + 2 * i, q_f32_to_f16(src[i]));
}

void q_bf16_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++)
        dst[i] = q_bf16_to_f32(q_get16(p + 2 * i));
}

void q_bf16_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++)
        q_put16(p + 2 * i, q_f32_to_bf16(src[i]));
}

void q_f64_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + 8 * i, sizeof(v));
        dst[i] = (float)v;
    }
}

void q_f64_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i < n; i++) {
        double v = src[i];
        memcpy(p + 8 * i, &v, sizeof(v));
    }
}
