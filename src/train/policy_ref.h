/*
 * The reference: the policy as it was, which KL terms and preference losses compare with.
 *
 * It is a slab of values (params.h) that change places with the policy's for a pass, so it takes
 * one number for each trained one and shares everything else: an adapter's reference is the size of
 * the adapter. It may follow the policy (policy_ref_follow).
 *
 * Threads: one caller. While a pass runs, the model is the reference.
 */
#ifndef PONDER_TRAIN_POLICY_REF_H
#define PONDER_TRAIN_POLICY_REF_H

#include "train/trainer.h"

struct policy_ref {
    struct trainer *t; /* NULL: there is no reference */
    struct comm *comm;
    float *values; /* slab; what a checkpoint keeps */
};

/* The values as they are now. */
int policy_ref_init(struct policy_ref *r, struct trainer *t, struct comm *comm, struct err *e);
void policy_ref_release(
    struct policy_ref *r); /* before the trainer; without a reference: nothing */

/*
 * Log-probabilities of the completions of all sequences of the batch, on all ranks: out[i]
 * (logp_count of sequence i). `temperature` and `vocab` as in logp.h.
 */
int policy_ref_logps(struct policy_ref *r, const struct data_batch *b, float temperature,
                     size_t vocab, float *const *out, struct err *e);

/* reference = alpha × policy + (1 − alpha) × reference */
void policy_ref_follow(struct policy_ref *r, double alpha);

#endif
