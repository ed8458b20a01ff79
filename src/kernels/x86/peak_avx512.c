/* Peak loops for AVX-512 (see peak.h). Without VNNI the integer products are those of AVX2. */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

static uint64_t read_zmm(const void *buf, size_t n)
{
    const char *p = buf;
    for (size_t i = 0; i + 256 <= n; i += 256)
#pragma GCC unroll 4
        for (size_t j = 0; j < 256; j += 64) {
            __m512i v = _mm512_load_si512(p + i + j);
            __asm__ volatile("" : : "v"(v));
        }
    return n / 256 * 256;
}

static uint64_t f32_zmm(size_t rounds)
{
    __m512 sum[PEAK_CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1.0f);
#pragma GCC unroll 16
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = b;
    for (size_t n = 0; n < rounds; n++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_CHAINS; i++) {
            __m512 t = _mm512_fmadd_ps(sum[i], a, b);
            __asm__ volatile("" : "+v"(t));
            sum[i] = t;
        }
    return (uint64_t)rounds * PEAK_CHAINS * 32;
}

const struct peak_isa peak_avx512 = {read_zmm, NULL, f32_zmm};
