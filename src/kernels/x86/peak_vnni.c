/* Peak loop for AVX-512 VNNI (see peak.h). */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

static uint64_t int8_zmm(size_t rounds)
{
    __m512i sum[PEAK_CHAINS], a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(5);
#pragma GCC unroll 16
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum[i] = a;
    for (size_t n = 0; n < rounds; n++)
#pragma GCC unroll 16
        for (int i = 0; i < PEAK_CHAINS; i++) {
            __m512i t = _mm512_dpbusd_epi32(sum[i], a, b);
            __asm__ volatile("" : "+v"(t));
            sum[i] = t;
        }
    return (uint64_t)rounds * PEAK_CHAINS * 128;
}

const struct peak_isa peak_vnni = {NULL, int8_zmm, NULL};
