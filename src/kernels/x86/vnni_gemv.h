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
    const size_t ahead = fetch_ahead();
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
                fetch_part(p + ahead, unit_bytes(t), half, 2);
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

/* acc += scales × dots of sub-block s of 32. */
KERN_INLINE __m512i gemv_sub(enum kind t, __m512i acc, const uint8_t *w, const int8_t *a,
                             unsigned s)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i v[8];
    unpack_sub(t, w, s, v);
    if (t != Q6_K)
        return _mm512_add_epi32(acc, _mm512_mullo_epi32(dot(zero, v, a, 8), k_scale(w, s)));
    __m512i sc = load(w + 3072 + 64 * (s / 2));
    __m512i s0 = signed_byte_of(sc, s % 2 * 2), s1 = signed_byte_of(sc, s % 2 * 2 + 1);
    acc = _mm512_add_epi32(acc, _mm512_mullo_epi32(dot(zero, v, a, 4), s0));
    return _mm512_add_epi32(acc, _mm512_mullo_epi32(dot(zero, v + 4, a + 16, 4), s1));
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

/* The panels take turns every 32 values, so that their streams stay side by side. */
KERN_INLINE void gemv_q256(enum kind t, int G, __m512 f[GEMV_PANELS], const uint8_t *w,
                           size_t panel, size_t k, const struct kern_x *x, size_t col)
{
    const size_t ahead = fetch_ahead();
    const uint8_t *body = w + (t == Q6_K ? (k / 256 * 32 + 63) / 64 * 64 : 0);
    for (size_t i = 0; i < k / 256; i++, body += unit_bytes(t)) {
        size_t at = i * x->cols + col;
        __m512i acc[GEMV_PANELS];
#pragma GCC unroll 4
        for (int g = 0; g < G; g++)
            acc[g] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (unsigned s = 0; s < 8; s++) {
            const int8_t *a = x->q + ((8 * i + s) * x->cols + col) * 32;
#pragma GCC unroll 4
            for (int g = 0; g < G; g++) {
                fetch_part(body + (size_t)g * panel + ahead, unit_bytes(t), s, 8);
                acc[g] = gemv_sub(t, acc[g], body + (size_t)g * panel, a, s);
            }
        }
#pragma GCC unroll 4
        for (int g = 0; g < G; g++) {
            const uint8_t *p = body + (size_t)g * panel;
            if (t == Q6_K)
                f[g] = gemv_q6_end(f[g], acc[g], p, w + (size_t)g * panel + 32 * i, x, at);
            else
                f[g] = gemv_k45_end(f[g], acc[g], p, x, at);
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
