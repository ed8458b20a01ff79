/*
 * Answers to problems that have right ones: pass@1, pass@k, cons@k.
 *
 * Each problem is answered k times. pass@1 is the share of right answers (DeepSeek-R1, section 3:
 * the mean over k samples with a temperature, not one greedy answer); pass@k the unbiased chance
 * that at least one of k' ≤ k is right, 1 − C(k − c, k') / C(k, k') (Chen et al. 2021), here k' =
 * k; cons@k whether the answer that most samples gave is right (the first of equals). Errors are
 * standard errors over problems, which are the independent ones.
 *
 * Problems are records as training has them: a prompt, and what grade/gym_data.h reads from them.
 * They are counted by "task" and "language" when they have these.
 */
#ifndef PONDER_EVAL_ANSWERS_H
#define PONDER_EVAL_ANSWERS_H

#include "engine/engine.h"

#include <jansson.h>

struct answers_params {
    struct engine *engine;
    const json_t *records; /* array */
    size_t k, max_tokens;
    size_t seqs;                    /* that compute at the same time; at most engine_opts.want */
    struct sampler_params sampling; /* with the seed */
    /* May be NULL; false stops it. */
    bool (*progress)(void *arg, size_t done, size_t all);
    /* Each answer as it was judged, in order; may be NULL. The object is borrowed. */
    int (*answer)(void *arg, const json_t *answer, struct err *e);
    void *arg;
};

struct answers_row {
    char name[96]; /* "arithmetic en"; "all" */
    size_t problems;
    double pass1, pass1_error, passk, consk;
    double unparsed; /* share of answers in which nothing could be read */
    double format;   /* share with <think>thought</think> and an answer */
    double language; /* mean share of the expected language's words in thoughts */
    double tokens;   /* mean of an answer with its thought */
    double cut;      /* share that reached max_tokens */
};

enum { ANSWERS_ROWS = 64 };

struct answers {
    struct answers_row row[ANSWERS_ROWS]; /* the last one is of all */
    size_t n;
    size_t answers, tokens;
    size_t tight; /* problems for whose answers the context leaves less than max_tokens */
    double seconds;
};

/* ERR_CANCELLED when progress said so; ERR_FORMAT names the record that cannot be asked. */
int answers_run(struct answers *out, const struct answers_params *p, struct err *e);

#endif
