/*
 * The rewards of a run: rules (grade/reward.def), reward models and a program of one's own, with
 * which weights, on completions of records of a data set.
 *
 * What was asked comes from the record: "id" of r1-gym makes its problem again, whose verifier then
 * judges; else "gold", "solution" or "answer" is the right answer; "language" is what the thought
 * is expected in. R = Σ w_k r_k over the parts that apply (TRL's sum_then_normalize); a completion
 * that no part applies to has none (NaN).
 *
 * Every rank computes rules and models; rank 0 runs the program, and tells what it said.
 */
#ifndef PONDER_TRAIN_REWARDS_H
#define PONDER_TRAIN_REWARDS_H

#include "grade/reward.h"
#include "train/options.h"
#include "train/rollout.h"

enum { REWARDS_MAX = 16 };

struct reward_model;
struct command_reward;

struct rewards_part {
    char name[48];
    double weight;
    int64_t after;             /* steps without it at the beginning of a run */
    const struct reward *rule; /* one of these three */
    struct reward_model *model;
    struct command_reward *command;
};

struct rewards {
    struct rewards_part part[REWARDS_MAX];
    size_t n;
    struct reward_options opts;
    struct comm *comm;
    int64_t step; /* that the completions are for; set by the stage */
};

/* Of the options; `log` hears what could not be had. Release in any case. */
int rewards_open(struct rewards *r, const struct train_options *o, struct comm *comm,
                 const struct log *log, struct err *e);
void rewards_release(struct rewards *r);

/* Of n completions of one prompt: total (n), and each part (n, r->n) or NULL; why (n, r->n) or
   NULL. */
int rewards_group(const struct rewards *r, const struct data *d, const struct rollout_group *g,
                  size_t n, double *total, float *part, struct reward_why *why, struct err *e);

#endif
