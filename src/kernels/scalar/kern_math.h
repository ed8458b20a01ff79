/*
 * exp, and what every instruction set has to repeat of it.
 *
 * exp(x) = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2 (Cody and Waite's reduction):
 *  1. x is clamped to where the result is 0 or infinity anyway, so that n stays small.
 *  2. n by adding and subtracting 1.5 · 2^23 inside one FMA: rounds to nearest even, and the low
 *     bits of the sum are n as an integer.
 *  3. r = x − n·ln 2 in two FMAs; the high part of ln 2 has 15 bits, so that its product and the
 *     first difference are exact and only one rounding reaches r.
 *  4. e^r = 1 + r + r²·q(r), q of degree 4, minimax for the relative error (3.1e-9, or 0.05 ulp),
 *     by Horner in FMAs. With the roundings of r and of the last step: under 1 ulp in all.
 *  5. Times 2^n as two powers of two, each a normal number. The first product is exact, so a
 *     subnormal result is rounded once, and overflow becomes infinity by itself.
 * exp(−inf) = 0 exactly, NaN gives NaN. Vector versions do the same IEEE operations in the same
 * order; the bits are the same, except that which NaN comes out is left open.
 *
 * The constants are here once; the vector files use them too.
 */
#ifndef PONDER_KERNELS_SCALAR_KERN_MATH_H
#define PONDER_KERNELS_SCALAR_KERN_MATH_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define KERN_EXP_MIN (-104.0f) /* e^-104 < 2^-150: rounds to 0 */
#define KERN_EXP_MAX 89.0f     /* e^89 > 2^128: infinity */
#define KERN_EXP_LOG2E 0x1.715476p+0f
#define KERN_EXP_MAGIC 0x1.8p+23f
#define KERN_EXP_LN2_HI 0x1.62e4p-1f
#define KERN_EXP_LN2_LO 0x1.7f7d1cp-20f
#define KERN_EXP_C2 0x1.fffffcp-2f
#define KERN_EXP_C3 0x1.555492p-3f
#define KERN_EXP_C4 0x1.5558f2p-5f
#define KERN_EXP_C5 0x1.1239f4p-7f
#define KERN_EXP_C6 0x1.6a2416p-10f

static inline uint32_t kern_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float kern_float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* 2^n for n in [-126, 127]; any other n (from a NaN) gives some float. */
static inline float kern_pow2(int32_t n)
{
    return kern_float_of((uint32_t)(n + 127) << 23);
}

static inline float kern_exp(float x)
{
    x = x < KERN_EXP_MIN ? KERN_EXP_MIN : x; /* a NaN passes both lines */
    x = x > KERN_EXP_MAX ? KERN_EXP_MAX : x;
    float t = fmaf(x, KERN_EXP_LOG2E, KERN_EXP_MAGIC);
    float n = t - KERN_EXP_MAGIC;
    float r = fmaf(-n, KERN_EXP_LN2_HI, x);
    r = fmaf(-n, KERN_EXP_LN2_LO, r);
    float q = KERN_EXP_C6;
    q = fmaf(q, r, KERN_EXP_C5);
    q = fmaf(q, r, KERN_EXP_C4);
    q = fmaf(q, r, KERN_EXP_C3);
    q = fmaf(q, r, KERN_EXP_C2);
    q = fmaf(q, r, 1.0f);
    q = fmaf(q, r, 1.0f);
    int32_t i = (int32_t)(kern_bits(t) - kern_bits(KERN_EXP_MAGIC));
    int32_t h = i >> 1;
    return q * kern_pow2(h) * kern_pow2((int32_t)((uint32_t)i - (uint32_t)h));
}

/* x · sigmoid(x). −inf gives NaN, as the formula does. */
static inline float kern_silu(float x)
{
    return x / (1.0f + kern_exp(-x));
}

/* The tree that ends every sum over 16 virtual lanes. */
static inline float kern_lanes_sum(float l[16])
{
    for (size_t step = 8; step > 0; step /= 2)
        for (size_t i = 0; i < step; i++)
            l[i] += l[i + step];
    return l[0];
}

/* ---- chains of BF16 pairs (kern.h) ---- */

static inline float kern_flush(float v)
{
    return fabsf(v) < FLT_MIN ? copysignf(0, v) : v;
}

/* The step of such a chain: w and a are flushed. Whether a result of the least normal number came
   by rounding up from below shows when the same is computed where nothing is subnormal; its parts
   are small then, or it is exact. */
static inline float kern_step_flushed(float w, float a, float f)
{
    float v = fmaf(w, a, f);
    if (fabsf(v) == FLT_MIN && fabsf(fmaf(w * 0x1p64f, a, f * 0x1p64f)) < FLT_MIN * 0x1p64f)
        return copysignf(0, v);
    return kern_flush(v);
}

#endif
