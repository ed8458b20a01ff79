/*
 * The frame of the AVX2 products of quantized weights (avx2_mul.c, avx2_low.c): dot products of 32
 * values for 16 rows, in two halves, × up to TILE_COLS columns. `chain` vpmaddubsw results are
 * added in int16, as many as the type's weights leave room for; vpmaddwd then multiplies by the
 * scale.
 */
#ifndef PONDER_KERNELS_X86_AVX2_DOT_H
#define PONDER_KERNELS_X86_AVX2_DOT_H

#include "kernels/x86/avx2_util.h"

enum {
    TILE_COLS = 4,   /* columns of a register tile */
    CHUNK_COLS = 64, /* columns that share an unpacked block */
};

/* Values 4i..4i+3 of 32, whose unsigned weights are v, by C columns 32 bytes apart: into sum, and
   from there into acc at the end of a chain. */
KERN_INLINE void dot_part(__m256i acc[2][TILE_COLS], __m256i sum[2][TILE_COLS], int i, int chain,
                          const __m256i v[2], const __m256i scale[2], const int8_t *x, size_t C)
{
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++) {
        __m256i a = splat(x + 32 * c + 4 * i);
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256i p = _mm256_maddubs_epi16(v[h], a);
            sum[h][c] = keep(i % chain ? _mm256_add_epi16(sum[h][c], p) : p);
        }
    }
    if (i % chain == chain - 1)
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++)
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++)
                acc[h][c] =
                    keep(_mm256_add_epi32(acc[h][c], _mm256_madd_epi16(sum[h][c], scale[h])));
}

#endif
