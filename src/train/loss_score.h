/*
 * Losses of a reward model, on the scores r of whole sequences (score.h).
 *
 *   pairwise    −log σ(r⁺ − r⁻ − m) + c (r⁺ + r⁻)²      m: the record's margin, c: centering
 *   pointwise   −y log σ(r) − (1 − y) log σ(−r)         y: the record's label
 *
 * Means over the pairs (sequences) of a step; a record's weight is a factor. Bradley and Terry
 * 1952; Touvron et al. 2023 (Llama 2, margins); Eisenstein et al. 2023 (centering); TRL's names.
 * DeepSeek-R1 trains helpfulness by pairs and safety by labels (its section 3.1).
 */
#ifndef PONDER_TRAIN_LOSS_SCORE_H
#define PONDER_TRAIN_LOSS_SCORE_H

#include "train/score.h"
#include "train/trainer.h"

/* What is summed into stat[]. */
enum {
    SCORE_LOSS,  /* Σ w × loss */
    SCORE_COUNT, /* pairs, or sequences */
    SCORE_RIGHT, /* of them, on the right side */
    SCORE_SUM,   /* of the scores */
    SCORE_SQUARE,
    SCORE_SEQS,
    SCORE_MARGIN, /* Σ r⁺ − r⁻ */
    SCORE_YES,    /* pointwise: scores of those with label 1, and how many */
    SCORE_YES_COUNT,
    SCORE_STATS
};

struct loss_score {
    const struct score *score;
    bool pairwise;
    double center; /* c */
    double count;  /* of the step: pairs, or sequences */
};

/* A train_loss's pass (`pairs` as `pairwise`); arg is a struct loss_score. */
int loss_score_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);

/* −log σ(x), and its derivative. */
double loss_softminus(double x, double *by);

#endif
