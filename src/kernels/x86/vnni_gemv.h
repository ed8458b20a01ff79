/*
 * One column (decoding), straight from the packed bytes of G panels side by side. Dots are split
 * over several accumulators, for the instruction's latency; they are integers, so the bits stay the
 * same.
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

KERN_INLINE void gemv_q32(enum kind t, int G, __m512 f[GEMV_PANELS], const uint8_t *w, size_t panel,
                          size_t k, const struct kern_x *x, size_t col)
{
    for (size_t i = 0; i < (k + 63) / 64; i++, w += unit_bytes(t)) {
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            size_t at = (2 * i + half) * x->cols + col;
            __m512i start = _mm512_set1_epi32(-unsign(t) * x->sum[at]);
            __m512 xd = _mm512_set1_ps(x->d[at]);
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) {
                const uint8_t *p = w + (size_t)g * panel;
                __m512i v[8];
                unpack32(t, p, half, v);
                __m512i sum = dot(start, v, x->q + at * 32, 8);
                __m512 d = _mm512_mul_ps(scale32(t, p, half), xd);
                f[g] = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sum), f[g]);
                if (has_min(t))
                    f[g] = _mm512_fmadd_ps(min32(t, p, half), _mm512_set1_ps(x->s[at]), f[g]);
            }
        }
    }
}

/* One block of 256 of Q4_K or Q5_K. */
KERN_INLINE __m512 gemv_k45(enum kind t, __m512 f, const uint8_t *w, const struct kern_x *x,
                            const int8_t *a, size_t at)
{
    size_t step = x->cols * 32;
    __m512i sc[2], mn[2], v[16], heads = load(w);
    __m512i acc = _mm512_setzero_si512(), mins = acc;
    __m512 xd = _mm512_set1_ps(x->d[at]);
    k_scales(w, sc, mn);
#pragma GCC unroll 4
    for (unsigned u = 0; u < 4; u++) {
        unpack64(t, w, u, v);
#pragma GCC unroll 2
        for (unsigned h = 0; h < 2; h++) {
            __m512i sum = dot(_mm512_setzero_si512(), v + 8 * h, a + (2 * u + h) * step, 8);
            __m512i s = byte_of(sc[u / 2], u % 2 * 2 + h);
            acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(sum, s));
        }
        mins = _mm512_dpwssd_epi32(mins, byte_pair(mn[u / 2], u % 2),
                                   spread(x->sum32 + at * 8 + 2 * u));
    }
    f = _mm512_fmadd_ps(_mm512_mul_ps(half_of(heads, 0), xd), _mm512_cvtepi32_ps(acc), f);
    return _mm512_fnmadd_ps(_mm512_mul_ps(half_of(heads, 1), xd), _mm512_cvtepi32_ps(mins), f);
}

/* One block of 256 of Q6_K, whose d lies apart. */
KERN_INLINE __m512 gemv_q6(__m512 f, const uint8_t *w, const uint8_t *head, const struct kern_x *x,
                           const int8_t *a, size_t at)
{
    size_t step = x->cols * 32;
    __m512i v[16], acc = _mm512_setzero_si512(), offset = acc;
#pragma GCC unroll 4
    for (unsigned u = 0; u < 4; u++) {
        __m512i sc = load(w + 3072 + 64 * u);
        unpack64(Q6_K, w, u, v);
#pragma GCC unroll 4
        for (unsigned n = 0; n < 4; n++) {
            __m512i sum =
                dot(_mm512_setzero_si512(), v + 4 * n, a + (2 * u + n / 2) * step + n % 2 * 16, 4);
            acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(sum, signed_byte_of(sc, n)));
        }
#pragma GCC unroll 2
        for (unsigned p = 0; p < 2; p++)
            offset = _mm512_dpwssd_epi32(offset, signed_pair(sc, (int)p),
                                         spread(x->sum16 + at * 16 + 4 * u + 2 * p));
    }
    acc = _mm512_sub_epi32(acc, _mm512_slli_epi32(offset, 5));
    __m512 d = _mm512_mul_ps(half16(head), _mm512_set1_ps(x->d[at]));
    return _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(acc), f);
}

KERN_INLINE void gemv_q256(enum kind t, int G, __m512 f[GEMV_PANELS], const uint8_t *w,
                           size_t panel, size_t k, const struct kern_x *x, size_t col)
{
    const uint8_t *body = w + (t == Q6_K ? (k / 256 * 32 + 63) / 64 * 64 : 0);
    for (size_t i = 0; i < k / 256; i++, body += unit_bytes(t)) {
        size_t at = i * x->cols + col;
        const int8_t *a = x->q + (8 * i * x->cols + col) * 32;
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
            const uint8_t *p = body + (size_t)g * panel;
            if (t == Q6_K)
                f[g] = gemv_q6(f[g], p, w + (size_t)g * panel + 32 * i, x, a, at);
            else
                f[g] = gemv_k45(t, f[g], p, x, a, at);
        }
    }
}

/* The product of G panels and one column: a GEMV_FN. */
KERN_INLINE void gemv(int type, int G, __m512 f[GEMV_PANELS], const uint8_t *w, size_t panel,
                      size_t k, const struct kern_x *x, size_t col)
{
    const enum kind t = (enum kind)type;
    if (t >= Q4_K)
        gemv_q256(t, G, f, w, panel, k, x, col);
    else
        gemv_q32(t, G, f, w, panel, k, x, col);
}

#endif
