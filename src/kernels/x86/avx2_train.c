/*
 * Kernels of training for AVX2 with FMA and F16C: 16 lanes are two ymm registers. The kernels
 * themselves are in gemm_impl.h and train_impl.h.
 */
#include "kernels/x86/avx2_lanes.h"

/* 16 registers: up to 12 for sums, two for a panel, one value. */
#define GEMM_NEAR(X) \
    X(1, 1)          \
    X(1, 2)          \
    X(1, 3)          \
    X(1, 4)          \
    X(1, 5)          \
    X(1, 6)
#define GEMM_FAR(X) GEMM_NEAR(X)
#define GEMM_NEAR_COLS(P) 6
#define GEMM_FAR_COLS(P) 6
enum { GEMM_NEAR_PANELS = 1, GEMM_FAR_PANELS = 1, FLUSH = 0x8040 /* FTZ and DAZ of MXCSR */ };

#include "kernels/x86/gemm_impl.h"

KERN_INLINE struct lanes gemm_step_f32(struct lanes w, struct lanes x, struct lanes acc)
{
    return lanes_fma(w, x, acc);
}

KERN_INLINE __m256 high_8(__m256 a)
{
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)));
}

KERN_INLINE __m256 low_8(__m256 a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16));
}

KERN_INLINE struct lanes gemm_step_pairs(struct lanes w, struct lanes x, struct lanes acc)
{
    __m256 xh = high_8(x.lo), xl = low_8(x.lo); /* both halves of x are the same */
    acc.lo = _mm256_fmadd_ps(low_8(w.lo), xl, _mm256_fmadd_ps(high_8(w.lo), xh, acc.lo));
    acc.hi = _mm256_fmadd_ps(low_8(w.hi), xl, _mm256_fmadd_ps(high_8(w.hi), xh, acc.hi));
    return acc;
}

GEMM_KERNEL(gemm, F32)
GEMM_KERNEL(gemm_flushed, PAIRS)

static void gemm_pairs(const struct kern_gemm *g)
{
    unsigned csr = _mm_getcsr();
    _mm_setcsr(csr | FLUSH);
    gemm_flushed(g);
    _mm_setcsr(csr);
}

/* ---- packing, and the rest ---- */

KERN_INLINE void transpose_8(float *y, size_t ldy, const float *x, size_t ldx)
{
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++)
        a[i] = _mm256_loadu_ps(x + i * ldx);
#pragma GCC unroll 2
    for (size_t i = 0; i < 8; i += 4) {
        __m256 s = _mm256_unpacklo_ps(a[i], a[i + 1]), t = _mm256_unpackhi_ps(a[i], a[i + 1]);
        __m256 u = _mm256_unpacklo_ps(a[i + 2], a[i + 3]),
               v = _mm256_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm256_shuffle_ps(s, u, 0x44);
        b[i + 1] = _mm256_shuffle_ps(s, u, 0xee);
        b[i + 2] = _mm256_shuffle_ps(t, v, 0x44);
        b[i + 3] = _mm256_shuffle_ps(t, v, 0xee);
    }
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        _mm256_storeu_ps(y + j * ldy, _mm256_permute2f128_ps(b[j], b[4 + j], 0x20));
        _mm256_storeu_ps(y + (4 + j) * ldy, _mm256_permute2f128_ps(b[j], b[4 + j], 0x31));
    }
}

static void transpose(float *y, size_t ldy, const float *x, size_t ldx)
{
    for (size_t i = 0; i < 16; i += 8)
        for (size_t j = 0; j < 16; j += 8)
            transpose_8(y + i * ldy + j, ldy, x + j * ldx + i, ldx);
}

KERN_INLINE struct lanes lanes_sqrt(struct lanes a)
{
    return (struct lanes){_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
}

struct doubles {
    __m256d v[4];
};

KERN_INLINE struct doubles doubles_zero(void)
{
    __m256d z = _mm256_setzero_pd();
    return (struct doubles){{z, z, z, z}};
}

KERN_INLINE __m256d square_4(__m256d l, __m128 a)
{
    __m256d d = _mm256_cvtps_pd(a);
    return _mm256_fmadd_pd(d, d, l);
}

KERN_INLINE struct doubles doubles_square(struct doubles l, struct lanes a)
{
    l.v[0] = square_4(l.v[0], _mm256_castps256_ps128(a.lo));
    l.v[1] = square_4(l.v[1], _mm256_extractf128_ps(a.lo, 1));
    l.v[2] = square_4(l.v[2], _mm256_castps256_ps128(a.hi));
    l.v[3] = square_4(l.v[3], _mm256_extractf128_ps(a.hi, 1));
    return l;
}

KERN_INLINE double doubles_sum(struct doubles l)
{
    __m256d s = _mm256_add_pd(l.v[0], l.v[2]), t = _mm256_add_pd(l.v[1], l.v[3]);
    s = _mm256_add_pd(s, t);
    __m128d u = _mm_add_pd(_mm256_castpd256_pd128(s), _mm256_extractf128_pd(s, 1));
    return _mm_cvtsd_f64(_mm_add_sd(u, _mm_unpackhi_pd(u, u)));
}

#include "kernels/x86/train_impl.h"

void kern_init_avx2_train(struct kern *k)
{
    k->gemm = gemm;
    k->gemm_pairs = gemm_pairs;
    train_init(k);
}
