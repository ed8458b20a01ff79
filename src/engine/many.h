/*
 * Many completions of many prompts, at once: for those who want all of them and no stream
 * (evaluation, rollouts of a trainer). A scheduler on the engine does the work: everything is
 * submitted, a prompt is computed once for its samples, and whoever ends makes room for the next.
 *
 * Random numbers: sample i of prompt p draws from the stream seed[p] + i, so what comes out depends
 * on nothing else.
 *
 * Threads: one caller; the scheduler steps in it.
 */
#ifndef PONDER_ENGINE_MANY_H
#define PONDER_ENGINE_MANY_H

#include "engine/engine.h"

struct many;

struct many_opts {
    struct engine *engine;
    size_t seqs;                    /* that compute at the same time; at most engine_opts.want */
    size_t n;                       /* samples of a prompt */
    size_t max_tokens;              /* of a completion */
    struct sampler_params sampling; /* its seed is not used */
    bool policy;     /* tell log-probabilities and entropies (struct request_params) */
    bool ignore_end; /* end tokens do not end a completion */
    bool prefix;     /* keep beginnings between runs: not while weights change */
};

struct many_prompt {
    const int32_t *ids; /* (n) */
    size_t n;
    uint64_t seed;
};

struct many_sample {
    const int32_t *ids;          /* (n) the completion; the end token too */
    const float *logp, *entropy; /* (n) as they were drawn; zeros without `policy` */
    size_t n;
    bool ended;       /* by an end token; else it was cut */
    const char *text; /* without control tokens; n_text bytes, any */
    size_t n_text;
};

int many_new(struct many **out, const struct many_opts *o, struct err *e);
void many_free(struct many *m);

/*
 * Samples. `tick` (may be NULL) is asked now and then with completions done and in all; false
 * stops: ERR_CANCELLED. *out: (prompts × n), prompt by prompt, valid until the next run.
 */
int many_run(struct many *m, const struct many_prompt *prompt, size_t prompts,
             bool (*tick)(void *arg, size_t done, size_t all), void *arg, struct many_sample **out,
             struct err *e);

/* Room for `prompts` of which others have computed some: their samples are put in one by one, then
   many_texts makes their texts. For completions that come from other processes. */
int many_room(struct many *m, size_t prompts, struct err *e);
int many_put(struct many *m, size_t place, const int32_t *ids, const float *logp,
             const float *entropy, size_t n, struct err *e);
int many_texts(struct many *m, size_t prompts, struct many_sample **out, struct err *e);

#endif
