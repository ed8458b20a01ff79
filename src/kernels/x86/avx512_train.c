/*
 * Kernels of training for AVX-512 (F, BW, DQ, VL). The kernels themselves are in gemm_impl.h and
 * train_impl.h; pairs of BF16 are two FMAs here (bf16_train.c has the instruction for them).
 */
#include "kernels/x86/avx512_gemm.h"

enum { FLUSH = 0x8040 }; /* FTZ and DAZ of MXCSR */

KERN_INLINE struct lanes gemm_step_f32(struct lanes w, struct lanes x, struct lanes acc)
{
    return lanes_fma(w, x, acc);
}

KERN_INLINE struct lanes high(struct lanes a)
{
    __m512i v = _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(-65536));
    return (struct lanes){_mm512_castsi512_ps(v)};
}

KERN_INLINE struct lanes low(struct lanes a)
{
    __m512i v = _mm512_slli_epi32(_mm512_castps_si512(a.v), 16);
    return (struct lanes){_mm512_castsi512_ps(v)};
}

KERN_INLINE struct lanes gemm_step_pairs(struct lanes w, struct lanes x, struct lanes acc)
{
    return lanes_fma(low(w), low(x), lanes_fma(high(w), high(x), acc));
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

/* The product of F32 weights with several columns: their panels are packed as it wants them. */
static void mul_f32(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols)
{
    gemm(&(struct kern_gemm){.w = w,
                             .w_panel = k * KERN_ROWS,
                             .x = x->f + col0 * x->ldf,
                             .x_col = x->ldf,
                             .x_step = 1,
                             .y = y,
                             .y_panel = KERN_ROWS,
                             .y_col = ldy,
                             .rows = rows,
                             .k = k,
                             .cols = cols});
}

/* ---- packing, and the rest ---- */

/* Quarters of 4 × 4 squares, then squares. */
static void transpose(float *y, size_t ldy, const float *x, size_t ldx)
{
    __m512 a[16], b[16];
#pragma GCC unroll 16
    for (size_t i = 0; i < 16; i++)
        a[i] = _mm512_loadu_ps(x + i * ldx);
#pragma GCC unroll 4
    for (size_t i = 0; i < 16; i += 4) {
        __m512 s = _mm512_unpacklo_ps(a[i], a[i + 1]), t = _mm512_unpackhi_ps(a[i], a[i + 1]);
        __m512 u = _mm512_unpacklo_ps(a[i + 2], a[i + 3]),
               v = _mm512_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm512_shuffle_ps(s, u, 0x44);
        b[i + 1] = _mm512_shuffle_ps(s, u, 0xee);
        b[i + 2] = _mm512_shuffle_ps(t, v, 0x44);
        b[i + 3] = _mm512_shuffle_ps(t, v, 0xee);
    }
    /* b[4 q + j]: of rows 4 q…, column j of each square of four columns */
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
        __m512 s = _mm512_shuffle_f32x4(b[j], b[4 + j], 0x88);
        __m512 t = _mm512_shuffle_f32x4(b[j], b[4 + j], 0xdd);
        __m512 u = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0x88);
        __m512 v = _mm512_shuffle_f32x4(b[8 + j], b[12 + j], 0xdd);
        _mm512_storeu_ps(y + j * ldy, _mm512_shuffle_f32x4(s, u, 0x88));
        _mm512_storeu_ps(y + (4 + j) * ldy, _mm512_shuffle_f32x4(t, v, 0x88));
        _mm512_storeu_ps(y + (8 + j) * ldy, _mm512_shuffle_f32x4(s, u, 0xdd));
        _mm512_storeu_ps(y + (12 + j) * ldy, _mm512_shuffle_f32x4(t, v, 0xdd));
    }
}

KERN_INLINE struct lanes lanes_sqrt(struct lanes a)
{
    return (struct lanes){_mm512_sqrt_ps(a.v)};
}

struct doubles {
    __m512d lo, hi;
};

KERN_INLINE struct doubles doubles_zero(void)
{
    return (struct doubles){_mm512_setzero_pd(), _mm512_setzero_pd()};
}

KERN_INLINE struct doubles doubles_square(struct doubles l, struct lanes a)
{
    __m512d lo = _mm512_cvtps_pd(_mm512_castps512_ps256(a.v));
    __m512d hi = _mm512_cvtps_pd(_mm512_extractf32x8_ps(a.v, 1));
    return (struct doubles){_mm512_fmadd_pd(lo, lo, l.lo), _mm512_fmadd_pd(hi, hi, l.hi)};
}

KERN_INLINE double doubles_sum(struct doubles l)
{
    __m512d s = _mm512_add_pd(l.lo, l.hi);
    __m256d t = _mm256_add_pd(_mm512_castpd512_pd256(s), _mm512_extractf64x4_pd(s, 1));
    __m128d u = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(u, _mm_unpackhi_pd(u, u)));
}

#include "kernels/x86/train_impl.h"

void kern_init_avx512_train(struct kern *k)
{
    k->gemm = gemm;
    k->gemm_pairs = gemm_pairs;
    k->mul[QUANT_F32].mul_one = k->mul[QUANT_F32].mul;
    k->mul[QUANT_F32].mul = mul_f32;
    train_init(k);
}
