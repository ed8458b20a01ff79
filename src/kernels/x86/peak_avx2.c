/* Peak loops for AVX2 (see peak.h). */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

PEAK_LOADS(read_ymm, __m256i, "x", _mm256_load_si256)
PEAK_STEPS(int8_ymm, __m256i, "x", _mm256_set1_epi8(3), _mm256_set1_epi8(5),
           _mm256_add_epi16(sum[i], _mm256_maddubs_epi16(a, b)), 64)
PEAK_STEPS(f32_ymm, __m256, "x", _mm256_set1_ps(0.5f), _mm256_set1_ps(1.0f),
           _mm256_fmadd_ps(sum[i], a, b), 16)

const struct peak_isa peak_avx2 = {read_ymm, int8_ymm, f32_ymm, NULL};
