/*
 * What the AVX2 products share: loads, and taking pieces out of the dwords of a panel.
 */
#ifndef PONDER_KERNELS_X86_AVX2_UTIL_H
#define PONDER_KERNELS_X86_AVX2_UTIL_H

#include "kernels/kern_internal.h"

#include <immintrin.h>

KERN_INLINE __m256i load(const uint8_t *p)
{
    return _mm256_load_si256((const __m256i *)p);
}

enum { AHEAD = 9216 }; /* bytes from what is used to what is fetched */

/*
 * Fetches part i of n of the `bytes` bytes that lie AHEAD behind p. The hardware's streams end at
 * page borders and do not follow all orders, so this alone must keep enough lines on their way:
 * with one column 2 KiB ahead gave 0.6 to 0.8 of the machine's bandwidth, 9 to 32 KiB 0.9 to 1 (Zen
 * 5). A few lines at a time; a whole block's at once stall the loads behind them. Beyond the panel
 * lies the next one, or nothing, which does no harm.
 */
KERN_INLINE void prefetch(const uint8_t *p, size_t bytes, size_t i, size_t n)
{
    for (size_t b = bytes * i / n / 64 * 64; b < bytes * (i + 1) / n / 64 * 64; b += 64)
        _mm_prefetch((const char *)p + AHEAD + b, _MM_HINT_T0);
}

KERN_INLINE __m256i splat(const void *p)
{
    int32_t v;
    __builtin_memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

KERN_INLINE __m256 halves(const uint8_t *p)
{
    return _mm256_cvtph_ps(_mm_load_si128((const __m128i *)p));
}

/* Low 16 bits of each dword as fp16. */
KERN_INLINE __m256 low_halves(__m256i v)
{
    v = _mm256_packus_epi32(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)), _mm256_setzero_si256());
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(v, 0x08)));
}

KERN_INLINE __m256i nibble(__m256i v, size_t high)
{
    return _mm256_and_si256(high ? _mm256_srli_epi16(v, 4) : v, _mm256_set1_epi8(15));
}

/* Byte `b` of each dword as int16 in both halves of it; and bytes b, b + 1. */
KERN_INLINE __m256i twice(__m256i v, size_t b)
{
    const __m256i at = _mm256_setr_epi32(0, 0x00040004, 0x00080008, 0x000c000c, 0, 0x00040004,
                                         0x00080008, 0x000c000c);
    return _mm256_shuffle_epi8(v, _mm256_or_si256(at, _mm256_set1_epi16((short)(0x8000 | b))));
}

KERN_INLINE __m256i couple(__m256i v, size_t b)
{
    const __m256i at = _mm256_setr_epi32(0x00010000, 0x00050004, 0x00090008, 0x000d000c, 0x00010000,
                                         0x00050004, 0x00090008, 0x000d000c);
    return _mm256_shuffle_epi8(v, _mm256_add_epi16(at, _mm256_set1_epi16((short)(0x8000 | b))));
}

/* The same of signed bytes: they go to the upper halves, whence the shift extends the sign. */
KERN_INLINE __m256i twice_signed(__m256i v, size_t b)
{
    const __m256i at = _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400,
                                         0x08000800, 0x0c000c00);
    v = _mm256_shuffle_epi8(v, _mm256_or_si256(at, _mm256_set1_epi16((short)(b << 8 | 0x80))));
    return _mm256_srai_epi16(v, 8);
}

KERN_INLINE __m256i couple_signed(__m256i v, size_t b)
{
    const __m256i at = _mm256_setr_epi32(0x01000000, 0x05000400, 0x09000800, 0x0d000c00, 0x01000000,
                                         0x05000400, 0x09000800, 0x0d000c00);
    v = _mm256_shuffle_epi8(v, _mm256_add_epi16(at, _mm256_set1_epi16((short)(b << 8 | 0x80))));
    return _mm256_srai_epi16(v, 8);
}

/*
 * Emits v here. Without it gcc expands a chain of sums only where its end is used, after all its
 * products, and spills each of them: twice the time.
 */
KERN_INLINE __m256i keep(__m256i v)
{
    __asm__("" : "+x"(v));
    return v;
}

/* `rows` (at most 16) sums of each column to y. */
KERN_INLINE void store_sums(float *y, size_t ldy, const float *f, size_t rows, size_t cols)
{
    for (size_t c = 0; c < cols; c++, y += ldy, f += 16)
        if (rows < 16) {
            __builtin_memcpy(y, f, rows * sizeof *f);
        } else {
            _mm256_storeu_ps(y, _mm256_load_ps(f));
            _mm256_storeu_ps(y + 8, _mm256_load_ps(f + 8));
        }
}

#endif
