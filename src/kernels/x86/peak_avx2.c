/* Peak loops for AVX2 (see peak.h). */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

/* Loads alone: a prefetch ahead of them gained nothing. */
static uint64_t read_ymm(const void *buf, size_t n)
{
    const char *p = buf;
    for (size_t i = 0; i + 256 <= n; i += 256) {
#pragma GCC unroll 8
        for (size_t j = 0; j < 256; j += 32) {
            __m256i v = _mm256_load_si256((const __m256i *)(p + i + j));
            __asm__ volatile("" : : "x"(v));
        }
    }
    return n / 256 * 256;
}

static uint64_t int8_ymm(size_t rounds)
{
    __m256i sum[PEAK_CHAINS], a = _mm256_set1_epi8(3), b = _mm256_set1_epi8(5);
#pragma GCC unroll 16
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = a;
    for (size_t n = 0; n < rounds; n++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_CHAINS; i++) {
            __asm__("" : "+x"(a));
            __m256i t = _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(a, b));
            __asm__ volatile("" : "+x"(t));
            sum[i] = t;
        }
    return (uint64_t)rounds * PEAK_CHAINS * 64;
}

static uint64_t f32_ymm(size_t rounds)
{
    __m256 sum[PEAK_CHAINS], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1.0f);
#pragma GCC unroll 16
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = b;
    for (size_t n = 0; n < rounds; n++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_CHAINS; i++) {
            __m256 t = _mm256_fmadd_ps(sum[i], a, b);
            __asm__ volatile("" : "+x"(t));
            sum[i] = t;
        }
    return (uint64_t)rounds * PEAK_CHAINS * 16;
}

const struct peak_isa peak_avx2 = {read_ymm, int8_ymm, f32_ymm};
