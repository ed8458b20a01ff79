/*
 * Cross entropy of next tokens, and of those after the next where a prediction layer learns.
 *
 *   L = Σ w_i × −log p(t_{i+1} | t_0 … t_i) / n  +  λ Σ w_i × −log p'(t_{i+2} | …) / n'
 *
 * over the targets of a whole step (n of them, whatever the cut into passes), w the record's
 * weight. λ and p' are DeepSeek-V3's multi-token prediction, section 2.2.
 */
#ifndef PONDER_TRAIN_LOSS_CE_H
#define PONDER_TRAIN_LOSS_CE_H

#include "train/logp.h"

/* What is summed into stat[]. */
enum {
    CE_LOSS,    /* Σ w × −log p */
    CE_TOKENS,  /* targets */
    CE_CORRECT, /* of them, with the largest logit */
    CE_ENTROPY, /* Σ of the entropies of rows with a target */
    CE_AHEAD,   /* as CE_LOSS, of the prediction layer */
    CE_AHEAD_TOKENS,
    CE_AHEAD_CORRECT,
    CE_STATS
};

struct loss_ce {
    double targets, ahead_targets; /* of the step: set by loss_ce_aim */
    double mtp_weight;
    struct logp logp; /* temperature 1: loss_ce_init */
};

void loss_ce_init(struct loss_ce *l, double mtp_weight);
/* Before each step: counts the batch's targets. */
void loss_ce_aim(struct loss_ce *l, const struct data_batch *b);
/* A train_loss's pass; arg is a struct loss_ce. */
int loss_ce_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);
void loss_ce_release(struct loss_ce *l);

#endif
