/*
 * Up to THIN columns (decoding, speculation, small batches), straight from the packed bytes of one
 * panel after the other. Dots are split over two accumulators, for the instruction's latency; they
 * are integers, so the bits stay the same.
 */
#ifndef PONDER_KERNELS_X86_VNNI_GEMV_H
#define PONDER_KERNELS_X86_VNNI_GEMV_H

#include "kernels/x86/vnni_unpack.h"

/* Σ over n (even) dword vectors of v[i] · a[i]. */
KERN_INLINE __m512i dot(__m512i start, const __m512i *v, const int8_t *a, int n)
{
    __m512i odd = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = 0; i < n; i += 2) {
        start = _mm512_dpbusd_epi32(start, v[i], spread(a + 4 * i));
        odd = _mm512_dpbusd_epi32(odd, v[i + 1], spread(a + 4 * i + 4));
    }
    return _mm512_add_epi32(start, odd);
}

KERN_INLINE void gemv_q32(enum kind t, int C, __m512 f[THIN], const uint8_t *w, size_t k,
                          const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead();
    __m512 acc[THIN];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        acc[c] = f[c];
    for (size_t i = 0; i < (k + 63) / 64; i++, w += unit_bytes(t)) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            size_t at = (2 * i + half) * x->cols + col;
            __m512i v[8];
            fetch_part(w + ahead, unit_bytes(t), half, 2);
            unpack32(t, w, half, v);
            __m512 d = scale32(t, w, half);
#pragma GCC unroll 4
            for (int c = 0; c < C; c++, at++) {
                __m512i start = _mm512_set1_epi32(-unsign(t) * x->sum[at]);
                __m512 sum = _mm512_cvtepi32_ps(dot(start, v, x->q + at * 32, 8));
                acc[c] = _mm512_fmadd_ps(_mm512_mul_ps(d, _mm512_set1_ps(x->d[at])), sum, acc[c]);
                if (has_min(t))
                    acc[c] = _mm512_fmadd_ps(min32(t, w, half), _mm512_set1_ps(x->s[at]), acc[c]);
            }
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        f[c] = acc[c];
}

/* acc[c] += scale × dot over sub-block s of 32. */
KERN_INLINE void gemv_sub(enum kind t, int C, __m512i acc[THIN], const uint8_t *w, const int8_t *a,
                          unsigned s)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i v[8], s0, s1;
    unpack_sub(t, w, s, v);
    if (t == Q6_K) {
        __m512i sc = load(w + 3072 + 64 * (s / 2));
        s0 = signed_byte_of(sc, s % 2 * 2);
        s1 = signed_byte_of(sc, s % 2 * 2 + 1);
    } else {
        s0 = s1 = k_scale(w, s);
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; c++, a += 32) {
        if (t != Q6_K) {
            acc[c] = _mm512_add_epi32(acc[c], _mm512_mullo_epi32(dot(zero, v, a, 8), s0));
            continue;
        }
        acc[c] = _mm512_add_epi32(acc[c], _mm512_mullo_epi32(dot(zero, v, a, 4), s0));
        acc[c] = _mm512_add_epi32(acc[c], _mm512_mullo_epi32(dot(zero, v + 4, a + 16, 4), s1));
    }
}

/* The order in which the sub-blocks of a block are read: those that share bytes one after the
   other. The sum is of integers. */
KERN_INLINE unsigned gemv_order(enum kind t, unsigned i)
{
    return t == Q6_K ? i / 4 * 4 + i % 4 / 2 + i % 2 * 2 : i;
}

/* What a block of 256 adds to f, whose integer dot is acc. at: place of the block's sums. */
KERN_INLINE __m512 gemv_k45_end(__m512 f, __m512i acc, const uint8_t *w, const struct kern_x *x,
                                size_t at)
{
    __m512i sc[2], mn[2], heads = load(w), mins = _mm512_setzero_si512();
    __m512 xd = _mm512_set1_ps(x->d[at]);
    k_scales(w, sc, mn);
#pragma GCC unroll 4
    for (unsigned i = 0; i < 4; i++)
        mins = _mm512_dpwssd_epi32(mins, byte_pair(mn[i / 2], i % 2),
                                   spread(x->sum32 + at * 8 + 2 * i));
    f = _mm512_fmadd_ps(_mm512_mul_ps(half_of(heads, 0), xd), _mm512_cvtepi32_ps(acc), f);
    return _mm512_fnmadd_ps(_mm512_mul_ps(half_of(heads, 1), xd), _mm512_cvtepi32_ps(mins), f);
}

/* The same for Q6_K, whose d lies at `head`. */
KERN_INLINE __m512 gemv_q6_end(__m512 f, __m512i acc, const uint8_t *w, const uint8_t *head,
                               const struct kern_x *x, size_t at)
{
    __m512i offset = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        offset = _mm512_dpwssd_epi32(offset, signed_pair(load(w + 3072 + 64 * (i / 2)), i % 2),
                                     spread(x->sum16 + at * 16 + 2 * i));
    acc = _mm512_sub_epi32(acc, _mm512_slli_epi32(offset, 5));
    __m512 d = _mm512_mul_ps(half16(head), _mm512_set1_ps(x->d[at]));
    return _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(acc), f);
}

KERN_INLINE void gemv_q256(enum kind t, int C, __m512 f[THIN], const uint8_t *w, size_t k,
                           const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead(), step = x->cols * 32;
    const uint8_t *body = w + (t == Q6_K ? (k / 256 * 32 + 63) / 64 * 64 : 0);
    const int8_t *a = x->q + col * 32;
    fetch_part(w + ahead, (size_t)(body - w), 0, 1); /* what lies in front of the next panel */
    __m512 sum[THIN];
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        sum[c] = f[c];
    for (size_t i = 0; i < k / 256; i++, body += unit_bytes(t), a += 8 * step) {
        size_t at = i * x->cols + col;
        __m512i acc[THIN];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++)
            acc[c] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (unsigned n = 0; n < 8; n++) {
            unsigned s = gemv_order(t, n);
            fetch_part(body + ahead, unit_bytes(t), n, 8);
            gemv_sub(t, C, acc, body, a + s * step, s);
            if (n % 2) /* later loads stay behind: all at once would spill registers */
                __asm__ volatile("" : : : "memory");
        }
#pragma GCC unroll 4
        for (int c = 0; c < C; c++, at++)
            sum[c] = t == Q6_K ? gemv_q6_end(sum[c], acc[c], body, w + 32 * i, x, at)
                               : gemv_k45_end(sum[c], acc[c], body, x, at);
    }
#pragma GCC unroll 4
    for (int c = 0; c < C; c++)
        f[c] = sum[c];
}

/* The product of a panel and C columns: a THIN_FN. */
KERN_INLINE void gemv(int type, int C, __m512 f[THIN], const uint8_t *w, size_t k,
                      const struct kern_x *x, size_t col)
{
    const enum kind t = (enum kind)type;
    if (t >= Q4_K)
        gemv_q256(t, C, f, w, k, x, col);
    else
        gemv_q32(t, C, f, w, k, x, col);
}

#endif
