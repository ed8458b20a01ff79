/*
 * The policy loss over completions of a step: policy.h on a batch that goes through the model.
 *
 * A batch's sequences are prompt and completion; row i has what the loss needs of completion i. On
 * policy (the weights have not changed since the completions were sampled) the trainer's
 * log-probabilities have to be the sampler's, bit by bit: loss_policy_pass compares them all and
 * fails when one differs. Then also the loss's gradients by log-probabilities are known before the
 * head, which is computed once; off policy it is computed twice.
 */
#ifndef PONDER_TRAIN_LOSS_POLICY_H
#define PONDER_TRAIN_LOSS_POLICY_H

#include "train/logp.h"
#include "train/policy.h"
#include "train/trainer.h"

/* What is summed into stat[]. */
enum {
    PG_LOSS,
    PG_TOKENS, /* that count */
    PG_ROWS,
    PG_KL,
    PG_CLIP_LOW,
    PG_CLIP_HIGH,
    PG_RATIO,
    PG_ENTROPY, /* Σ of the entropies of the policy that is trained */
    PG_CHECKED, /* log-probabilities that were compared with the sampler's */
    PG_STATS
};

struct loss_policy_row {
    const float *old;    /* (n) log-probabilities as sampled */
    const float *ref;    /* (n) of the reference, or NULL */
    const uint8_t *mask; /* (n) tokens that count, NULL: all */
    const uint8_t *drop; /* (n) tokens without a loss that count all the same, or NULL */
    double advantage;
    size_t n; /* tokens of the completion */
};

struct loss_policy {
    struct policy_opts opts; /* rows and tokens: of the whole step */
    struct logp logp;        /* temperature and vocabulary as sampled */
    double entropy_coef;     /* the loss is less by this times the mean entropy */
    bool on_policy;
    const struct loss_policy_row *row; /* by number of the sequence in the batch */
    /* Of a pass. */
    float *at, *grad; /* log-probabilities that the loss is computed at, and its gradients */
    size_t room;
};

/* A train_loss's pass; arg is a struct loss_policy. */
int loss_policy_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);
void loss_policy_release(struct loss_policy *l);

#endif
