/* What both forms of attention share: private to tensor/. */
#ifndef PONDER_TENSOR_ATTENTION_IMPL_H
#define PONDER_TENSOR_ATTENTION_IMPL_H

#include "tensor/ops.h"

/* Columns (queries of heads) on their way over the pages: a worker's memory. */
struct attn_work {
    float *q, *s, *o, *acc; /* (cols, d_k), (cols, 64), (cols, d_v), (cols, d_v) */
    float *m, *l, *pm, *pl; /* (cols) running and of the page */
    float *f;               /* (2 × cols) factors of a fold */
    float *kd, *vd;         /* a decoded page: (4, d_k, 16), (64, d_k or d_v padded) */
};

/* Nothing seen yet: m = −∞, l = 0, acc = 0. */
void attn_start(struct attn_work *w, size_t cols, size_t dv);

/*
 * Folds a page's (pm, pl, o) into (m, l, acc), for all columns. The factors of all columns are
 * computed together: 2 × cols values of w->f.
 */
void attn_fold(const struct kern *kern, struct attn_work *w, size_t cols, size_t dv,
               const float *pm, const float *pl, const float *o);

/* Weights of a page for scores s (cols, 64): column c sees the first `n` of its positions. */
void attn_weights(const struct kern *kern, struct attn_work *w, size_t c, size_t n, size_t seen,
                  float scale);

/* Writes keys and values (v empty: latents) of a batch into its sequences' pages. */
void attn_store(struct op_ctx *c, struct tensor k, struct tensor v, const struct attention_args *a,
                const struct batch *b);

/* Rows [0, seen) of a page as F32 into vd (seen, d_k), and as panels of 16 positions into kd. */
void attn_decode_k(const struct quant_type *t, const uint8_t *rows, size_t seen, size_t dk,
                   float *kd, float *vd);

#endif
