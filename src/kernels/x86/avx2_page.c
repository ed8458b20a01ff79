/*
 * Attention over int8 pages with AVX2 (definitions: scalar/page.c; the layout's turn:
 * vnni_page.c).
 *
 * vpmaddubsw adds two products of an unsigned and a signed byte to 16 bits. Scores take |k| and q
 * with the sign of k; neither is ever −128, so 2 · 127² fits. Weights are at most 127.
 */
#include "base/num.h"
#include "kernels/kern_internal.h"

#include <immintrin.h>
#include <string.h>

enum { COLS = 4, ROWS = KERN_PAGE_ROWS };

KERN_INLINE __m256i four(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Positions [r, r + 16). */
KERN_INLINE void scores(const struct kern_page_scores *t, size_t r, size_t c0, size_t C)
{
    const __m256i ones = _mm256_set1_epi16(1);
    size_t blocks = kern_page_blocks(&t->shape);
    const int8_t *q = t->q + c0 * t->shape.d;
    for (size_t b = 0, at = 0, end; b < blocks; b++, at = end) {
        __m256i acc[2][COLS];
        end = kern_page_end(&t->shape, at);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
            acc[0][c] = acc[1][c] = _mm256_setzero_si256();
        for (size_t d = at; d < end; d += 4) {
            const int8_t *row = t->k + d * ROWS + r * 4;
            __m256i k0 = _mm256_loadu_si256((const __m256i *)row);
            __m256i k1 = _mm256_loadu_si256((const __m256i *)(row + 32));
            __m256i a0 = _mm256_abs_epi8(k0), a1 = _mm256_abs_epi8(k1);
            if (c0 == 0)
                _mm_prefetch((const char *)t->ahead + d * ROWS + r * 4, _MM_HINT_T1);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++) {
                __m256i v = four(q + c * t->shape.d + d);
                __m256i m0 = _mm256_maddubs_epi16(a0, _mm256_sign_epi8(v, k0));
                __m256i m1 = _mm256_maddubs_epi16(a1, _mm256_sign_epi8(v, k1));
                acc[0][c] = _mm256_add_epi32(acc[0][c], _mm256_madd_epi16(m0, ones));
                acc[1][c] = _mm256_add_epi32(acc[1][c], _mm256_madd_epi16(m1, ones));
            }
        }
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256 d = _mm256_set1_ps(t->qd[(c0 + c) * blocks + b]);
#pragma GCC unroll 2
            for (size_t p = 0; p < 2; p++) {
                float *s = t->s + (c0 + c) * ROWS + r + p * 8;
                __m256 f = b ? _mm256_loadu_ps(s) : _mm256_setzero_ps();
                __m256 m = _mm256_mul_ps(_mm256_loadu_ps(t->scale + b * ROWS + r + p * 8), d);
                _mm256_storeu_ps(s, _mm256_fmadd_ps(m, _mm256_cvtepi32_ps(acc[p][c]), f));
            }
        }
    }
}

static void page_scores(const struct kern_page_scores *t)
{
    size_t groups = (t->cols + COLS - 1) / COLS;
    for (size_t c = 0, n; c < t->cols; c += n, groups--) {
        n = (t->cols - c + groups - 1) / groups;
        for (size_t r = 0; r < ROWS; r += 16) {
            if (n == 1)
                scores(t, r, c, 1);
            else if (n == 2)
                scores(t, r, c, 2);
            else if (n == 3)
                scores(t, r, c, 3);
            else
                scores(t, r, c, 4);
        }
    }
}

/* Values [at, at + 8) of all positions, by 4 positions. */
KERN_INLINE void turn(int8_t *to, const int8_t *k)
{
    const __m256i bytes = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (size_t g = 0; g < ROWS / 8; g++) {
        __m256i a = _mm256_loadu_si256((const __m256i *)(k + g * 32));
        __m256i b = _mm256_loadu_si256((const __m256i *)(k + (ROWS + g * 8) * 4));
        a = _mm256_shuffle_epi8(a, bytes);
        b = _mm256_shuffle_epi8(b, bytes);
        int8_t *p = to + g * 2 * KERN_PAGE_BLOCK * 4;
        _mm256_store_si256((__m256i *)p, _mm256_permute2x128_si256(a, b, 0x20));
        _mm256_store_si256((__m256i *)(p + KERN_PAGE_BLOCK * 4),
                           _mm256_permute2x128_si256(a, b, 0x31));
    }
}

/* 16 values from `at` of the block (the last may have fewer), for columns c0… */
KERN_INLINE void values(const struct kern_page_values *t, const int8_t *v, size_t at, size_t c0,
                        size_t C)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i acc[2][COLS];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_si256();
    const uint8_t *q = t->q + c0 * ROWS;
    for (size_t r = 0; r < ROWS; r += 4) {
        const int8_t *row = v + (r * (KERN_PAGE_BLOCK / 4) + at) * 4;
        __m256i w0 = _mm256_load_si256((const __m256i *)row);
        __m256i w1 = _mm256_load_si256((const __m256i *)(row + 32));
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256i x = four(q + c * ROWS + r);
            __m256i m0 = _mm256_maddubs_epi16(x, w0), m1 = _mm256_maddubs_epi16(x, w1);
            acc[0][c] = _mm256_add_epi32(acc[0][c], _mm256_madd_epi16(m0, ones));
            acc[1][c] = _mm256_add_epi32(acc[1][c], _mm256_madd_epi16(m1, ones));
        }
    }
    size_t n = num_min(16, t->n - at);
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++) {
        float *o = t->o + t->to[c0 + c] * t->ldo + t->at + at, tmp[16] = {0};
        bool add = c0 + c > 0 && t->to[c0 + c] == t->to[c0 + c - 1];
        float *y = n == 16 ? o : tmp;
        if (n < 16 && add)
            memcpy(tmp, o, n * sizeof *tmp);
        __m256 d = _mm256_set1_ps(t->d[c0 + c]);
#pragma GCC unroll 2
        for (size_t p = 0; p < 2; p++) {
            __m256 f = add ? _mm256_loadu_ps(y + p * 8) : _mm256_setzero_ps();
            _mm256_storeu_ps(y + p * 8, _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(acc[p][c]), f));
        }
        if (n < 16)
            memcpy(o, tmp, n * sizeof *tmp);
    }
}

static void page_values(const struct kern_page_values *t)
{
    _Alignas(32) int8_t v[ROWS * KERN_PAGE_BLOCK];
    for (size_t d = 0; d < t->n; d += 8) {
        for (size_t i = 0; t->ahead && i < 8 * ROWS; i += 64)
            _mm_prefetch(t->ahead + d * ROWS + i, _MM_HINT_T1);
        turn(v + d * 4, t->k + (t->at + d) * ROWS);
    }
    size_t groups = (t->cols + COLS - 1) / COLS;
    for (size_t c = 0, n; c < t->cols; c += n, groups--) {
        n = (t->cols - c + groups - 1) / groups;
        for (size_t d = 0; d < t->n; d += 16) {
            if (n == 1)
                values(t, v, d, c, 1);
            else if (n == 2)
                values(t, v, d, c, 2);
            else if (n == 3)
                values(t, v, d, c, 3);
            else
                values(t, v, d, c, 4);
        }
    }
}

void kern_init_avx2_page(struct kern *k)
{
    k->page_scores = page_scores;
    k->page_values = page_values;
}
