/*
 * Sampling: from a row of logits to a token id.
 *
 * Order of steps (llama.cpp's default order, "temp_last"): mask and logit bias; penalties over the
 * last `penalty_last` tokens; top-k; typical-p; top-p; min-p; temperature; draw. Formulas: each
 * step's comment in sampler.c. The random number for the n-th token of a sequence is number n of
 * the counter-based stream of the seed, so a run repeats exactly, whatever else the engine does.
 *
 * Candidates are selected without sorting the vocabulary: a threshold by partial selection.
 * One sampler per sequence; not thread-safe.
 */
#ifndef PONDER_ENGINE_SAMPLER_H
#define PONDER_ENGINE_SAMPLER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampler_bias {
    int32_t id;
    float bias; /* -INFINITY forbids */
};

struct sampler_params {
    float temperature; /* 0 = greedy: argmax after bias and penalties, lowest id at ties */
    int top_k;         /* 0 = off */
    float top_p, min_p, typical_p; /* 1, 0, 1 = off */
    float repetition_penalty;      /* 1 = off */
    float frequency_penalty, presence_penalty;
    int penalty_last; /* how many last tokens count; -1 = all, 0 = none */
    uint64_t seed;
    const struct sampler_bias *bias; /* copied by sampler_new */
    size_t n_bias;
};

/* Neutral values (temperature 1, everything off, penalty_last -1). */
void sampler_params_init(struct sampler_params *p);
/* ERR_USAGE naming the parameter, its value and its range. */
int sampler_params_check(const struct sampler_params *p, struct err *e);

struct sampler;

/* All memory is taken here, for a vocabulary of n_vocab. */
int sampler_new(struct sampler **out, const struct sampler_params *p, size_t n_vocab,
                struct err *e);
void sampler_free(struct sampler *s);

/* Tokens of the prompt and of the answer, in order: what the penalties look at. */
int sampler_accept(struct sampler *s, int32_t id, struct err *e);
void sampler_reset(struct sampler *s); /* forgets them; the draw counter goes on */

/*
 * From now on only tokens whose bit is set (bit id % 32 of word id / 32, for the whole vocabulary)
 * may be drawn; NULL: all. The mask stays the caller's, who may change it between draws.
 */
void sampler_mask(struct sampler *s, const uint32_t *bits);
/* These tokens cannot be drawn, until another call says otherwise (n = 0: none). Not copied. */
void sampler_forbid(struct sampler *s, const int32_t *ids, size_t n);

/* Probabilities after all steps: fills p[n_vocab], returns how many are > 0. For tests and
 * logprobs. */
size_t sampler_probs(struct sampler *s, const float *logits, float *p);

/* Draws the next token. ERR_FORMAT when logits hold NaN or everything is forbidden. */
int sampler_next(struct sampler *s, const float *logits, int32_t *id, struct err *e);

/* log of the sum of exp over the raw logits, in double precision; NAN when all are forbidden. */
double sampler_logsum(const float *logits, size_t n_vocab);
/* log softmax of the raw logits at one id, in double precision. */
double sampler_logprob(const float *logits, size_t n_vocab, int32_t id);

#endif
