/*
 * Attention over int8 pages with VNNI (definitions: scalar/page.c).
 *
 * vpdpbusd multiplies unsigned by signed bytes: scores take keys + 128 and begin with
 * −128 · Σ q; weights are never negative, so values need no such thing. Both products hold 64 rows
 * (positions, or value elements) by up to 4 columns in registers.
 *
 * Keys lie by 4 values of a position, values are wanted by 4 positions of a value: blocks of 16
 * positions × 16 values are turned by byte shuffles inside of 128 bits and a transpose of 128-bit
 * pieces, once per page and block for all columns.
 */
#include "base/num.h"
#include "kernels/kern_internal.h"

#include <immintrin.h>
#include <string.h>

enum { COLS = 4, ROWS = KERN_PAGE_ROWS };

KERN_INLINE __m512i four(const void *p)
{
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

KERN_INLINE void scores(const struct kern_page_scores *t, size_t c0, size_t C)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80);
    size_t blocks = kern_page_blocks(&t->shape);
    const int8_t *q = t->q + c0 * t->shape.d;
    for (size_t b = 0, at = 0, end; b < blocks; b++, at = end) {
        __m512i acc[4][COLS], k[4];
        end = kern_page_end(&t->shape, at);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++)
#pragma GCC unroll 4
            for (size_t p = 0; p < 4; p++)
                acc[p][c] = _mm512_set1_epi32(-128 * t->qsum[(c0 + c) * blocks + b]);
        for (size_t d = at; d < end; d += 4) {
            const int8_t *row = t->k + d * ROWS;
#pragma GCC unroll 4
            for (size_t p = 0; p < 4; p++)
                k[p] = _mm512_xor_si512(_mm512_loadu_si512(row + p * 64), flip);
            if (c0 == 0) {
#pragma GCC unroll 4
                for (size_t p = 0; p < 4; p++)
                    _mm_prefetch((const char *)t->ahead + d * ROWS + p * 64, _MM_HINT_T1);
            }
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++) {
                __m512i v = four(q + c * t->shape.d + d);
#pragma GCC unroll 4
                for (size_t p = 0; p < 4; p++)
                    acc[p][c] = _mm512_dpbusd_epi32(acc[p][c], k[p], v);
            }
        }
#pragma GCC unroll 4
        for (size_t p = 0; p < 4; p++) {
            __m512 scale = _mm512_loadu_ps(t->scale + b * ROWS + p * 16);
#pragma GCC unroll 4
            for (size_t c = 0; c < C; c++) {
                float *s = t->s + (c0 + c) * ROWS + p * 16;
                __m512 f = b ? _mm512_loadu_ps(s) : _mm512_setzero_ps();
                __m512 m = _mm512_mul_ps(scale, _mm512_set1_ps(t->qd[(c0 + c) * blocks + b]));
                _mm512_storeu_ps(s, _mm512_fmadd_ps(m, _mm512_cvtepi32_ps(acc[p][c]), f));
            }
        }
    }
}

static void page_scores(const struct kern_page_scores *t)
{
    size_t groups = (t->cols + COLS - 1) / COLS;
    for (size_t c = 0, n; c < t->cols; c += n, groups--) {
        n = (t->cols - c + groups - 1) / groups;
        if (n == 1)
            scores(t, c, 1);
        else if (n == 2)
            scores(t, c, 2);
        else if (n == 3)
            scores(t, c, 3);
        else
            scores(t, c, 4);
    }
}

/* Values [at, at + 16) of all positions, by 4 positions: to[i * 128 * 4], i < 16. */
KERN_INLINE void turn(int8_t *to, const int8_t *k)
{
    const __m512i bytes =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
#pragma GCC unroll 4
    for (size_t g = 0; g < 4; g++) {
        __m512i a[4];
#pragma GCC unroll 4
        for (size_t i = 0; i < 4; i++)
            a[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(k + (i * ROWS + g * 16) * 4), bytes);
        __m512i x = _mm512_shuffle_i32x4(a[0], a[1], 0x44);
        __m512i y = _mm512_shuffle_i32x4(a[2], a[3], 0x44);
        __m512i z = _mm512_shuffle_i32x4(a[0], a[1], 0xee);
        __m512i w = _mm512_shuffle_i32x4(a[2], a[3], 0xee);
        int8_t *p = to + g * 4 * KERN_PAGE_BLOCK * 4;
        _mm512_store_si512(p, _mm512_shuffle_i32x4(x, y, 0x88));
        _mm512_store_si512(p + 1 * KERN_PAGE_BLOCK * 4, _mm512_shuffle_i32x4(x, y, 0xdd));
        _mm512_store_si512(p + 2 * KERN_PAGE_BLOCK * 4, _mm512_shuffle_i32x4(z, w, 0x88));
        _mm512_store_si512(p + 3 * KERN_PAGE_BLOCK * 4, _mm512_shuffle_i32x4(z, w, 0xdd));
    }
}

/* P × 16 values from `at` of the block, for columns c0… */
KERN_INLINE void values(const struct kern_page_values *t, const int8_t *v, size_t at, size_t c0,
                        size_t P, size_t C)
{
    __m512i acc[4][COLS], w[4];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
#pragma GCC unroll 4
        for (size_t p = 0; p < P; p++)
            acc[p][c] = _mm512_setzero_si512();
    const uint8_t *q = t->q + c0 * ROWS;
    for (size_t r = 0; r < ROWS; r += 4) {
#pragma GCC unroll 4
        for (size_t p = 0; p < P; p++)
            w[p] = _mm512_load_si512(v + (r * (KERN_PAGE_BLOCK / 4) + at + p * 16) * 4);
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m512i x = four(q + c * ROWS + r);
#pragma GCC unroll 4
            for (size_t p = 0; p < P; p++)
                acc[p][c] = _mm512_dpbusd_epi32(acc[p][c], x, w[p]);
        }
    }
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++) {
        float *o = t->o + t->to[c0 + c] * t->ldo + t->at + at;
        __m512 d = _mm512_set1_ps(t->d[c0 + c]);
        bool add = c0 + c > 0 && t->to[c0 + c] == t->to[c0 + c - 1];
#pragma GCC unroll 4
        for (size_t p = 0; p < P; p++) {
            size_t n = num_min(16, t->n - at - p * 16);
            __mmask16 m = (__mmask16)((1u << n) - 1);
            __m512 y = add ? _mm512_maskz_loadu_ps(m, o + p * 16) : _mm512_setzero_ps();
            _mm512_mask_storeu_ps(o + p * 16, m,
                                  _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(acc[p][c]), y));
        }
    }
}

static void page_values(const struct kern_page_values *t)
{
    _Alignas(64) int8_t v[ROWS * KERN_PAGE_BLOCK];
    for (size_t d = 0; d < t->n; d += 16) {
        for (size_t i = 0; t->ahead && i < 16 * ROWS; i += 64)
            _mm_prefetch(t->ahead + d * ROWS + i, _MM_HINT_T1);
        turn(v + d * 4, t->k + (t->at + d) * ROWS);
    }
    size_t groups = (t->cols + COLS - 1) / COLS;
    for (size_t c = 0, n; c < t->cols; c += n, groups--) {
        n = (t->cols - c + groups - 1) / groups;
        for (size_t d = 0; d < t->n; d += 64) {
            bool all = t->n - d >= 64;
            for (size_t i = d; !all && i < t->n; i += 16)
                for (size_t j = 0; j < n; j++)
                    values(t, v, i, c + j, 1, 1);
            if (!all)
                break;
            if (n == 1)
                values(t, v, d, c, 4, 1);
            else if (n == 2)
                values(t, v, d, c, 4, 2);
            else if (n == 3)
                values(t, v, d, c, 4, 3);
            else
                values(t, v, d, c, 4, 4);
        }
    }
}

void kern_init_vnni_page(struct kern *k)
{
    k->page_scores = page_scores;
    k->page_values = page_values;
}
