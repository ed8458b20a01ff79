/*
 * The rewards of a run: which rules (grade/reward.def), with which weights, on completions of
 * records of a data set.
 *
 * What was asked comes from the record: "id" of r1-gym makes its problem again, whose verifier then
 * judges; else "gold", "solution" or "answer" is the right answer; "language" is what the thought
 * is expected in. R = Σ w_k r_k over the rules that apply (TRL's sum_then_normalize); a completion
 * that no rule applies to has none (NaN).
 */
#ifndef PONDER_TRAIN_REWARDS_H
#define PONDER_TRAIN_REWARDS_H

#include "grade/reward.h"
#include "train/rollout.h"

enum { REWARDS_MAX = 16 };

struct rewards {
    const struct reward *rule[REWARDS_MAX];
    double weight[REWARDS_MAX];
    size_t n;
    struct reward_options opts;
};

/* "accuracy,format,language" and "1,0.2,1" (NULL: 1 each). */
int rewards_parse(struct rewards *r, const char *rules, const char *weights, struct err *e);

/* Of n completions of one prompt: total (n), and each rule's part (n, r->n) or NULL; why (n, r->n)
   or NULL. */
int rewards_group(const struct rewards *r, const struct data *d, const struct rollout_group *g,
                  size_t n, double *total, float *part, struct reward_why *why, struct err *e);

#endif
