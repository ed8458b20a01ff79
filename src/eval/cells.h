/*
 * Distributions over a vocabulary in few cells, and the divergence between two of them.
 *
 * A reference distribution P is kept as its `top` likeliest tokens, the right token (which may be
 * among them) and one cell for all the rest:
 *
 *     KL' = Σ over cells c of P(c) · ln(P(c) / Q(c))
 *
 * Q's cells are made from its full logits over the same partition. By the log-sum inequality KL'
 * never exceeds the KL divergence over single tokens; what is lost is the divergence inside the
 * rest, weighted by the rest's probability. With top = the vocabulary it is the full one.
 *
 * Log-probabilities are natural logarithms, rounded to float in both distributions before they are
 * compared, so that a model against itself gives exactly 0.
 */
#ifndef PONDER_EVAL_CELLS_H
#define PONDER_EVAL_CELLS_H

#include "engine/engine.h"

/* A distribution in cells. */
struct cells {
    uint32_t *ids; /* (top) distinct, likeliest first; equal ones by id */
    float *lp;     /* (top) their log-probabilities */
    float right;   /* of the right token */
    float rest;    /* of all others together; -INFINITY when there are none */
};

/* Where a worker computes: vocab floats. */
struct cells_work {
    const struct engine *g;
    size_t vocab;
    float *tmp; /* (vocab) */
};

/* -ln of the right token's probability under `logits`. NAN when the logits are no numbers. */
double cells_nll(const struct cells_work *w, const float *logits, uint32_t right);

/* Fills c with `top` ≤ vocab tokens; returns what cells_nll does. */
double cells_make(const struct cells_work *w, const float *logits, uint32_t right, size_t top,
                  struct cells *c);

struct cells_diff {
    double nll; /* of the right token under `logits` */
    double kl;  /* of the reference to them */
    double dp;  /* probability of the right token, less the reference's */
    bool same;  /* the likeliest token is the reference's */
};

/* Holds logits (Q) against a reference (P); nll = NAN when the logits are no numbers. All ids of p
   and `right` are below vocab. */
void cells_compare(const struct cells_work *w, const float *logits, uint32_t right, size_t top,
                   const struct cells *p, struct cells_diff *out);

#endif
