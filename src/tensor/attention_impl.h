/* What both forms of attention share: private to tensor/. */
#ifndef PONDER_TENSOR_ATTENTION_IMPL_H
#define PONDER_TENSOR_ATTENTION_IMPL_H

#include "tensor/kv_int8.h"
#include "tensor/ops.h"

/* Columns (queries of heads) on their way over the pages: a worker's memory. */
struct attn_work {
    float *q, *s;             /* (cols, d_k), (cols, 64) */
    float *o, *acc, *sum;     /* (cols, d_v): of a page, a stretch, all */
    float *pm, *m, *sm;       /* (cols) maxima of them */
    float *pl, *l, *sl;       /* (cols) and sums of the weights */
    float *f;                 /* (2 × cols) factors of a fold */
    float *kd;                /* keys of a page: (4, d_k, 16); expanded latents only */
    uint16_t *half;           /* a page of an FP8 cache: (64, d_k or d_v padded) */
    float *int8;              /* what `cols` lies in */
    struct kv_int8_cols cols; /* of an int8 cache, instead of q */
};

/*
 * Folds (pm, pl, o) into (m, l, acc), for all columns. The factors of all columns are computed
 * together: 2 × cols values at f.
 */
void attn_fold(const struct kern *kern, float *f, size_t cols, size_t dv, float *m, float *l,
               float *acc, const float *pm, const float *pl, const float *o);

/* Turns the scores of a column with a page, of which it sees n of `seen` positions, into weights;
   returns their m, and their sum. */
float attn_weights(const struct kern *kern, float *s, size_t n, size_t seen, float scale,
                   float *sum);

/* y = acc / l */
void attn_result(float *y, const float *acc, float l, size_t dv);

/* Writes keys and values (v empty: latents) of a batch into its sequences' pages. */
void attn_store(struct op_ctx *c, struct tensor k, struct tensor v, const struct attention_args *a,
                const struct batch *b);

#endif
