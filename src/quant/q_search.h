/*
 * Inside quant/: the search for scales that encoders share.
 *
 * The error to minimize is the weighted sum of squares Σ w (x − x̂)². Two shapes of block occur:
 * `symmetric` x̂ = s·q and `affine` x̂ = s·q − m (m ≥ 0), q an integer of a few bits; in
 * super-blocks s and m are themselves small integers times a half.
 */
#ifndef PONDER_QUANT_Q_SEARCH_H
#define PONDER_QUANT_Q_SEARCH_H

#include "quant/q_impl.h"

enum { Q_SUBS_MAX = 16 };

/*
 * Values and weights of a block as the search wants them: n (a multiple of 8, up to Q_SUPER) values
 * divided by a power of two `unit` so that the largest lies in [0.5, 1), weights with mean 1. No
 * importance, or one that is unusable (all zero, not finite), gives equal weights. What is not
 * finite is made so. unit = 0: all values are too small for any scale in half precision.
 */
struct q_block {
    int n;
    float unit;
    float x[Q_SUPER], w[Q_SUPER];
};

void q_block_load(struct q_block *b, const float *src, const float *importance, int n);

/* A scale, in units of b->unit, as the half that is written: to nearest, never beyond the largest
   finite half, and not 0 unless s is. *half (if any) gets the code. */
float q_block_half(const struct q_block *b, float s, uint16_t *half);

/* A half that is nearest to f within the finite ones. */
uint16_t q_half_finite(float f);

/* Nearest integer of t within [lo, hi]; lo for NaN. |lo|, |hi| < 2^22. */
static inline float q_round(float t, float lo, float hi)
{
    t = t > lo ? t : lo;
    t = t < hi ? t : hi;
    return (t + 0x1.8p23f) - 0x1.8p23f;
}

/* 1/s; 0 for 0 and where the result would overflow. */
static inline float q_inverse(float s)
{
    return s > 0x1p-126f || s < -0x1p-126f ? 1 / s : 0;
}

/* Sums over a sub-block of which q are the levels nearest to x × inverse. */
struct q_sums {
    float xq, qq; /* Σ w x q, Σ w q² */
};

/* How symmetric blocks are made. Levels are the integers lo..hi, or a table's. */
struct q_symmetric {
    int n, subs;  /* values of a sub-block (multiple of 8), sub-blocks */
    float lo, hi; /* lowest and highest level; lo < 0 < hi */
    float step;   /* the fan: the largest value is mapped to lo + k·step and hi + k·step, */
    int steps;    /* −steps ≤ k ≤ steps */
    int scale_lo, scale_hi; /* integer scales of sub-blocks (super-blocks only) */
    struct q_sums (*sums)(const struct q_symmetric *g, const float *x, const float *w, int n,
                          float inverse);
};

struct q_sums q_sums_integers(const struct q_symmetric *g, const float *x, const float *w, int n,
                              float inverse);

/* The best scale found for one sub-block, any sign; 0 when nothing beats zeros. */
float q_symmetric_scale(const struct q_symmetric *g, const float *x, const float *w);

/* Super-block: integer scales of the sub-blocks and the half they are multiples of (returned as
   float, in units of b->unit). */
float q_symmetric_super(const struct q_symmetric *g, const struct q_block *b, int scale[Q_SUBS_MAX],
                        uint16_t *half);

/* How affine blocks are made. */
struct q_affine {
    int n, subs;
    float hi;     /* levels are 0..hi */
    float step;   /* the fan: the largest value is mapped to hi + k·step + shift, the smallest to
                     −shift, */
    int steps;    /* −steps ≤ k ≤ steps; */
    int shifts;   /* shift = 0, 1/4, … (so many of them) */
    int scale_hi; /* integer scales and minima are 0..scale_hi */
    bool any_min; /* m may be negative (blocks with a minimum of their own) */
};

/* The best scale (≥ 0) and minimum found for one sub-block. */
void q_affine_scale(const struct q_affine *g, const float *x, const float *w, float *scale,
                    float *min);

struct q_affine_fit {
    int scale[Q_SUBS_MAX], min[Q_SUBS_MAX];
    uint16_t d_half, dmin_half;
    float d, dmin; /* their values in units of b->unit */
};

void q_affine_super(const struct q_affine *g, const struct q_block *b, struct q_affine_fit *fit);

#endif
