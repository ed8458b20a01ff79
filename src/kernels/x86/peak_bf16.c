/* Peak loop for AVX-512 BF16 (see peak.h): a product a lane of two pairs, both into a float. */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

PEAK_STEPS(bf16_zmm, __m512, "v", _mm512_set1_ps(0.5f), _mm512_set1_ps(1.0f),
           _mm512_dpbf16_ps(sum[i], (__m512bh)a, (__m512bh)b), 64)

uint64_t peak_bf16(size_t rounds)
{
    return bf16_zmm(rounds);
}
