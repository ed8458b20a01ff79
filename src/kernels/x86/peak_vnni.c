/* Peak loop for AVX-512 VNNI (see peak.h). */
#include "kernels/x86/peak_isa.h"

#include <immintrin.h>

PEAK_STEPS(int8_zmm, __m512i, "v", _mm512_set1_epi8(3), _mm512_set1_epi8(5),
           _mm512_dpbusd_epi32(sum[i], a, b), 128)

const struct peak_isa peak_vnni = {NULL, int8_zmm, NULL, peak_bf16};
