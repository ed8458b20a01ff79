/*
 * Load on a server: many clients over HTTP at once, and when what came back.
 *
 *   closed loop   `concurrency` clients, each asks again when its answer is complete
 *   open loop     requests begin at random times, `rate` a second on average (Poisson arrivals),
 *                 whether or not earlier ones have ended; `concurrency` bounds them (0: it does
 * not)
 *
 * One thread drives all of them (libcurl's multi interface). Times are a client's: from the moment
 * a request is begun (or, in the open loop, was due) to the arrival of each piece of text.
 */
#ifndef PONDER_CLI_LOAD_H
#define PONDER_CLI_LOAD_H

#include "base/err.h"
#include "base/rng.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- what is asked -------------------------------------------------------------------------- */

/* "128", "64-512" (uniform), "normal:256:64", "lognormal:200:0.8" (median, sigma), "exp:200". */
struct load_length {
    enum { LENGTH_UNIFORM, LENGTH_NORMAL, LENGTH_LOGNORMAL, LENGTH_EXP } kind;
    double a, b;
};
int load_length_parse(struct load_length *out, const char *text, struct err *e);
size_t load_length_draw(const struct load_length *l, struct rng *r, size_t min, size_t max);

/* Prompts: from a file of JSON lines, or made of words. */
struct load_data;
struct load_data_opts {
    const char
        *file; /* {"conversations": [{"from", "value"}, …]} (ShareGPT), {"messages": […]} or
                  {"prompt": …} a line; "output_len" is taken where it is given. NULL: words */
    struct load_length prompt, answer; /* in tokens, about 1.3 a word */
    size_t prefix;                     /* words that all made prompts begin with */
    uint64_t seed;
};
int load_data_new(struct load_data **out, const struct load_data_opts *o, struct err *e);
void load_data_free(struct load_data *d);
/* Messages (new reference) and length of the i-th request: the same for the same seed. */
int load_data_get(const struct load_data *d, size_t i, json_t **messages, size_t *answer,
                  struct err *e);

/* ---- running -------------------------------------------------------------------------------- */

enum load_api { LOAD_CHAT, LOAD_COMPLETIONS, LOAD_OLLAMA };

struct load_opts {
    const char *url;   /* "http://127.0.0.1:11434" */
    const char *model; /* NULL: the server's first */
    const char *api_key;
    enum load_api api;
    size_t requests, concurrency;
    double rate;     /* a second; 0: closed loop */
    double seconds;  /* begin none after that; 0: no bound */
    double timeout;  /* of a request */
    bool ignore_end; /* answers are as long as asked for */
    bool has_temperature;
    double temperature;
    json_t *extra; /* members for every request, or NULL */
    uint64_t seed;
    const struct load_data *data;
    bool (*going)(void *arg, size_t done, size_t failed, size_t running); /* now and then */
    void *arg;
};

/* One request; times in seconds. */
struct load_sample {
    double start, first, end; /* since the run began; first < 0: no text came */
    size_t prompt_tokens, cached_tokens, answer_tokens;
    int status; /* of HTTP; 0: no answer */
    bool ok;
};

struct load_result {
    struct load_sample *sample; /* (n) in order of their end */
    size_t n, failed;
    float *gap; /* (n_gap) between pieces of text of one answer */
    size_t n_gap;
    double seconds;
    double full_seconds; /* while all of `concurrency` clients were being answered, and the tokens
                            that came then (from pieces, by what pieces have on average) */
    double full_tokens;
    char model[256];
    char error[256]; /* the first */
};

/* ERR_UNSUPPORTED in a build without libcurl; ERR_IO when the server does not answer at all. */
int load_run(struct load_result *out, const struct load_opts *o, struct err *e);
void load_result_release(struct load_result *r);

#endif
