/*
 * Attention over int8 pages, the parts over `struct lanes` (vec_impl.h): a row to int8, and
 * the weights of a page to integers. Definitions: scalar/page.c.
 */
#ifndef PONDER_KERNELS_X86_PAGE_IMPL_H
#define PONDER_KERNELS_X86_PAGE_IMPL_H

#include "kernels/x86/vec_impl.h"

static float to_i8(int8_t *q, const float *x, size_t n, int32_t *sum)
{
    struct lanes_bits max = lanes_bits_zero();
    size_t i = 0, left = n % LANES;
    for (; i + LANES <= n; i += LANES)
        max = lanes_abs_max_bits(max, lanes_load(x + i));
    float rest[LANES] = {0}, inv;
    memcpy(rest, x + i, left * sizeof *rest);
    max = lanes_abs_max_bits(max, lanes_load(rest));
    float d = block_scale(max, &inv);
    struct lanes v = lanes_set(inv);
    *sum = 0;
    for (i = 0; i + LANES <= n; i += LANES) {
        __m128i b = quantize_16(x + i, v);
        _mm_storeu_si128((__m128i *)(q + i), b);
        *sum += byte_sum(b);
    }
    if (left) {
        int8_t bytes[LANES];
        __m128i b = quantize_16(rest, v);
        _mm_storeu_si128((__m128i *)bytes, b);
        memcpy(q + i, bytes, left);
        for (size_t k = 0; k < left; k++)
            *sum += bytes[k];
    }
    return d;
}

static void page_weights(uint8_t *q, float *d, const float *p, const float *scale, bool two)
{
    const struct lanes zero = lanes_set(0.0f), most = lanes_set(127.0f);
    const struct lanes magic = lanes_set(KERN_EXP_MAGIC);
    struct lanes w[4], top = zero;
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        w[i] = lanes_mul(lanes_load(p + i * LANES), lanes_load(scale + i * LANES));
        top = lanes_max(w[i], top);
    }
    float m = lanes_largest(top), inv = 127.0f / m;
    inv = inv <= FLT_MAX ? inv : 0.0f;
    d[0] = m / 127.0f;
    const struct lanes by = lanes_set(inv);
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++)
        w[i] = lanes_min(lanes_max(lanes_mul(w[i], by), zero), most);
    if (!two) {
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            _mm_storeu_si128((__m128i *)(q + i * LANES), lanes_to_i8(w[i]));
        return;
    }
    d[1] = d[0] / 127.0f;
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        struct lanes first = lanes_sub(w[i], lanes_set(0.5f));
        first = lanes_sub(lanes_add(first, magic), magic);
        _mm_storeu_si128((__m128i *)(q + i * LANES), lanes_to_i8(first));
        struct lanes rest = lanes_mul(lanes_sub(w[i], first), most);
        _mm_storeu_si128((__m128i *)(q + KERN_PAGE_ROWS + i * LANES), lanes_to_i8(rest));
    }
}

KERN_INLINE void page_init(struct kern *k)
{
    k->to_i8 = to_i8;
    k->page_weights = page_weights;
}

#endif
