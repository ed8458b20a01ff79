/*
 * The softmax of a row of logits, its log-probabilities and its entropy: one definition, used by
 * whoever samples and by whoever learns from samples, so that both have the same bits.
 *
 *   z_i = l_i / T − max      e_i = exp(z_i)      S = Σ e_i
 *   log p(k) = z_k − log S   H = log S − Σ e_i z_i / S
 *
 * z and e in float (1 / T is rounded once; exp is the kernels'), both sums in double over 8 chains:
 * element i belongs to chain i % 8, chains are added as ((0+4)+(2+6)) + ((1+5)+(3+7)).
 */
#ifndef PONDER_TENSOR_LOGPROB_H
#define PONDER_TENSOR_LOGPROB_H

#include "kernels/kern.h"

struct logprob {
    float value;   /* log p(id); NaN when there are NaNs among the logits */
    float entropy; /* in nats */
    double sum;    /* S */
    bool best;     /* id has the largest logit */
};

/* Logits (n) become e in place; p_i = e_i / sum. id < n. */
void logprob_softmax(const struct kern *k, float *logits, size_t n, float temperature, int32_t id,
                     struct logprob *out);

/* The same, leaving the logits as they are. */
void logprob_of(const struct kern *k, const float *logits, size_t n, float temperature, int32_t id,
                struct logprob *out);

#endif
