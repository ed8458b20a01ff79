/* Peak loops for AVX-512 (see peak.h). Without VNNI the integer products are those of AVX2. */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

PEAK_LOADS(read_zmm, __m512i, "v", _mm512_load_si512)
PEAK_STEPS(f32_zmm, __m512, "v", _mm512_set1_ps(0.5f), _mm512_set1_ps(1.0f),
           _mm512_fmadd_ps(sum[i], a, b), 32)

const struct peak_isa peak_avx512 = {read_zmm, NULL, f32_zmm, NULL};
