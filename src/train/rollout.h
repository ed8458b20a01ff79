/*
 * Rollouts: completions that the policy samples, with what learning from them needs.
 *
 * The engine does the work (engine/many.h), on the very weights that are trained. Each token comes
 * with its log-probability and the entropy of its distribution as the sampler saw them; the
 * trainer's are the same bits.
 *
 * Random numbers: sample i of a prompt draws from a stream of (seed, step, number of the prompt in
 * its step, i), so what is sampled depends on no thread, rank or neighbour. Ranks share the prompts
 * out, and tell each other what they have sampled.
 *
 * Threads: one caller; the scheduler steps in it.
 */
#ifndef PONDER_TRAIN_ROLLOUT_H
#define PONDER_TRAIN_ROLLOUT_H

#include "comm/comm.h"
#include "engine/many.h"
#include "train/data.h"

struct rollout;

struct rollout_opts {
    struct engine *engine;
    struct comm *comm;
    size_t seqs;        /* that compute at the same time; at most engine_opts.want */
    size_t generations; /* G */
    size_t longest;     /* tokens of a completion */
    float temperature;
    uint64_t seed;
    bool ignore_end; /* end tokens do not end a completion: for measuring */
};

/* Valid until the next rollout_run. */
struct rollout_group {
    const struct data_seq *prompt;
    struct many_sample *sample; /* (generations) */
};

int rollout_new(struct rollout **out, const struct rollout_opts *o, struct err *e);
void rollout_free(struct rollout *r);

/*
 * Samples for n prompts. `step` is part of the random numbers' key, and the place in `prompt`.
 * `tick` (may be NULL) is asked now and then with completions done and in all; false stops:
 * ERR_CANCELLED. *out: n groups, in the order of the prompts, the same on all ranks.
 */
int rollout_run(struct rollout *r, const struct data_seq *prompt, size_t n, uint64_t step,
                bool (*tick)(void *arg, size_t done, size_t all), void *arg,
                struct rollout_group **out, struct err *e);

#endif
