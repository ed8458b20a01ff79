/*
 * One answer as it grows: which token comes next, what text it makes, and when it ends.
 *
 * The part of generating that does not compute: sampler, grammar mask, thinking budget, loop
 * detector, detokenizer, stop strings, think/tool parser. `generate` runs one of them on a session,
 * the scheduler (engine/sched.h) one for every sequence.
 *
 *   logits ─ answer_choose ─ id ─ answer_accept ─ pieces of text
 *                ↑ forced tokens (end of a thought), grammar mask (after the thought)
 *
 * An answer belongs to one sequence; calls on it come one after another, from any thread.
 */
#ifndef PONDER_ENGINE_ANSWER_H
#define PONDER_ENGINE_ANSWER_H

#include "engine/sampler.h"
#include "text/parse.h"
#include "text/tokenizer.h"

struct answer;
struct grammar;
struct grammar_vocab;

struct answer_params {
    const char *const *stop; /* stop strings; the text before one is emitted */
    size_t n_stop;
    bool stop_shown; /* the stop string too */
    const int32_t *stop_id;
    size_t n_stop_id;
    const char *const *ban; /* words that may not come: engine/ban.h */
    size_t n_ban;
    bool ignore_end;    /* end tokens do not end it */
    size_t max_tokens;  /* 0: no bound */
    size_t min_tokens;  /* no end before: end and stop tokens are masked, stop strings are text */
    bool thinking_open; /* the prompt ended inside <think> */
    bool thinking_may;  /* the model may open a thought in front of the grammar's text */
    bool raw;           /* no parsing of tags: everything is PARSE_CONTENT */
    bool no_calls;      /* there is nothing to call: what looks like a call is text */
    bool special;       /* control tokens are shown */
    bool stream_calls;  /* tool calls come in pieces too: parser_stream_calls */
    int64_t
        think_max;    /* tokens of a thought, then it is closed by "\n</think>\n\n"; -1: no bound */
    bool think_loops; /* a thought that repeats itself is closed the same way */
    struct grammar *grammar; /* of the answer after the thought, or NULL; a reference is taken */
};

void answer_params_init(struct answer_params *p); /* no bounds, parsing on */

enum answer_end {
    ANSWER_GOES_ON,
    ANSWER_END,    /* an end token, the grammar allows nothing more, or calls run in a circle */
    ANSWER_STRING, /* a stop string */
    ANSWER_TOKEN,  /* a stop token of the caller's */
    ANSWER_LENGTH, /* max_tokens */
};

/* `v` may be NULL without a grammar. Everything in p and s is copied. */
int answer_new(struct answer **out, const struct tokenizer *tok, struct grammar_vocab *v,
               size_t n_vocab, const struct sampler_params *s, const struct answer_params *p,
               struct err *e);
void answer_free(struct answer *a);

/* Tokens of the prompt: history for the penalties. */
int answer_prompt(struct answer *a, const int32_t *ids, size_t n, struct err *e);

/* The next token: forced, or drawn from the logits (vocab floats, not changed). */
int answer_choose(struct answer *a, const float *logits, int32_t *id, struct err *e);

typedef int answer_emit(void *arg, enum parse_event ev, const char *s, size_t n);

/* The token becomes part of the answer: text that is certain goes to `emit`, whose non-zero return
   stops with that code. An end token, and a token that completes a stop string, are not part of the
   timeline (*kept = false). */
int answer_accept(struct answer *a, int32_t id, answer_emit *emit, void *arg, bool *kept,
                  struct err *e);
enum answer_end answer_ended(const struct answer *a);
/* The stop string, or NULL; the stop token, or -1. */
const char *answer_stop(const struct answer *a, int32_t *id);

/* No more tokens will come: text that is held back goes out. */
int answer_finish(struct answer *a, answer_emit *emit, void *arg, struct err *e);

size_t answer_tokens(const struct answer *a);
size_t answer_thought(const struct answer *a); /* of these, tokens of thought */
bool answer_thinking(const struct answer *a);  /* inside a thought now */
bool answer_cut(const struct answer *a);       /* a thought was closed by budget or loop */

#endif
