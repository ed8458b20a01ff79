/*
 * Generation: from a prompt to pieces of thought and answer. The loop of one session; what becomes
 * of its logits is engine/answer.h. Many at once are the scheduler's (engine/sched.h).
 */
#ifndef PONDER_ENGINE_GENERATE_H
#define PONDER_ENGINE_GENERATE_H

#include "engine/answer.h"
#include "engine/engine.h"

enum generate_stop {
    GENERATE_END,       /* an end token */
    GENERATE_STRING,    /* a stop string */
    GENERATE_LENGTH,    /* max_tokens */
    GENERATE_CONTEXT,   /* the context is full */
    GENERATE_CANCELLED, /* the caller said so */
};

struct generate_params {
    struct sampler_params sampling;
    struct answer_params
        answer; /* of answer_params_init; max_tokens 0: until the context is full */
    bool (*keep_going)(void *arg); /* asked after every token and prefill chunk; may be NULL */
    /* Pieces of text as they become certain. A non-zero return stops with that code. */
    answer_emit *emit;
    void *arg;
};

struct generate_stats {
    size_t prompt_tokens, reused_tokens;    /* reused ones were still in the cache */
    size_t answer_tokens, reasoning_tokens; /* reasoning ones are among the answer tokens */
    bool thought_cut; /* the thinking budget or the loop detector closed a thought */
    double prompt_seconds, answer_seconds, first_token_seconds;
    enum generate_stop stop;
};

const char *generate_stop_name(enum generate_stop s); /* "stop", "length", "context", "cancelled" */

/*
 * Runs one answer. The session's timeline becomes prompt + answer (without the end token), so that
 * a next turn reuses it. On ERR_CANCELLED what was generated stays in the timeline.
 */
int generate(struct session *s, const int32_t *prompt, size_t n, const struct generate_params *p,
             struct generate_stats *st, struct err *e);

#endif
