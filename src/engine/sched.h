/*
 * The scheduler: many requests on one engine at once (continuous batching).
 *
 * Each step is one pass over the weights with a budget of tokens: first one token of every sequence
 * that decodes, then pieces of prompts with what is left (after vLLM's scheduler). While sequences
 * decode, the piece of prompt is kept so short (by measured speed) that a step stays near
 * `step_seconds`. Because results do not depend on how tokens are cut into steps, none of this
 * changes what anybody reads: a request's answer is, to the bit, what it would be alone.
 *
 * Waiting requests are ordered by priority, then by the owner that was served least (tokens, after
 * "Fairness in Serving Large Language Models", Sheng et al. 2024), then by arrival. Pages of the KV
 * cache that are full are shared by all sequences with the same beginning and salt, and stay when a
 * request ends (engine/prefix.h). When pages run out, the last admitted request of the lowest
 * priority gives its pages back and waits; it goes on later where it was, by computing them again.
 *
 * Threads: one thread calls sched_step; every other function may be called by any thread and never
 * waits for a step. Events are delivered by the stepping thread or by the engine's compute threads,
 * one at a time for each request, and must not block.
 */
#ifndef PONDER_ENGINE_SCHED_H
#define PONDER_ENGINE_SCHED_H

#include "engine/answer.h"
#include "engine/engine.h"

struct sched;
struct request;

/* What one step did, in tokens. */
struct sched_work {
    size_t computed; /* of prompts and answers */
    size_t prompt;   /* of prompts that it completed, cached beginnings too */
    size_t answer;   /* that were added to answers */
};

struct sched_opts {
    size_t seqs;         /* sequences that compute at the same time, at most; 0 = 32. Not more than
                            the engine gives logits for in a step (engine_opts.want) */
    size_t budget;       /* tokens of a step, at most; 0 = the engine's */
    size_t queue;        /* requests that wait, at most; 0 = 512 */
    double step_seconds; /* aim for steps while others decode; 0 = 0.15 */
    bool prefix;         /* keep and share beginnings */
    const char *disk;    /* folder where they outlive the process, or NULL */
    uint64_t disk_bytes; /* at most */
    /* Called, from whatever thread, when sched_step has something to do again. */
    void (*wake)(void *arg);
    void *wake_arg;
    /* Called by sched_step when a step has computed something. Or NULL. */
    void (*step)(void *arg, const struct sched_work *w);
    void *step_arg;
    const struct log *log;
};

void sched_opts_init(struct sched_opts *o);
int sched_new(struct sched **out, struct engine *g, const struct sched_opts *o, struct err *e);
void sched_free(struct sched *s); /* requests still there fail first */

/* One step. *idle when there is nothing to do until `wake`. Errors of single requests are theirs;
   this one fails only when the engine can no longer compute. */
int sched_step(struct sched *s, bool *idle, struct err *e);

enum request_end {
    REQUEST_STOP,      /* end token, stop string or token: see request_done */
    REQUEST_LENGTH,    /* max_tokens */
    REQUEST_CONTEXT,   /* the context is full */
    REQUEST_CANCELLED, /* request_cancel */
    REQUEST_DEADLINE,
};

/* A token of a prompt or an answer with its log-probability (of the raw logits). */
struct token_prob {
    int32_t id;
    float logprob;
    uint32_t rank; /* 1 = the likeliest */
};
struct token_info {
    struct token_prob self;
    const struct token_prob *top; /* (n_top) the likeliest, falling */
    size_t n_top;
};

struct request_stats {
    size_t prompt_tokens, cached_tokens; /* cached: found in the prefix cache */
    size_t answer_tokens, thought_tokens;
    double queue_seconds;  /* from submit to the first step */
    double prompt_seconds; /* from there to the first token */
    double answer_seconds; /* from there to the end */
    uint32_t preemptions;
};

enum request_event_kind {
    REQUEST_STARTED,  /* admitted: computing begins */
    REQUEST_PROGRESS, /* a piece of the prompt is done: `done` of `total` tokens */
    REQUEST_PROMPT,   /* the prompt is done; with prompt_logprobs: `info` for its tokens from the
                         second on, `ids` too */
    REQUEST_PIECE,    /* text, or with logprobs tokens whose text is held back (n = 0) */
    REQUEST_CHOSEN,   /* with `chosen`: `id` was drawn, an end token too; with `policy` also its
                         log-probability and the entropy of what it was drawn from */
    REQUEST_SAMPLE,   /* a sample ended: `end`, `stop`, `stop_id`, `thought_cut`, `stats` of this
                         sample; `ids` that no piece had, since their text came to nothing */
    REQUEST_EMBEDDED, /* `vector` */
    REQUEST_DONE,     /* the last event, when all samples have ended; `stats` of all together */
    REQUEST_FAILED,   /* the last event instead: `error` */
};

/* Everything is valid during the call only. */
struct request_event {
    enum request_event_kind kind;
    size_t sample; /* below n */
    enum parse_event piece;
    const char *text;
    size_t n;
    const int32_t *ids; /* (n_info) tokens of this piece and, without logprobs, those before it
                           whose text was held back; `info` the same with logprobs, else NULL. Of
                           several pieces of one token the first has it */
    const struct token_info *info;
    size_t n_info;
    size_t done, total;
    enum request_end end;
    const char *stop; /* the stop string that was met, or NULL */
    int32_t stop_id;  /* the stop token, or -1 */
    bool thought_cut; /* budget or loop closed the thought */
    int32_t id;       /* REQUEST_CHOSEN, with the next two */
    float logprob, entropy;
    const float *vector; /* (d_model) */
    size_t n_vector;
    const struct request_stats *stats;
    const struct err *error;
};

struct request_params {
    const int32_t *prompt; /* copied; at least one */
    size_t n_prompt;
    bool embed; /* no answer: the mean over positions of the last layer's normed states, or what the
                   model's files say (pooling_type), scaled to length 1 */
    struct sampler_params sampling; /* sample i draws from the stream of seed + i */
    struct answer_params answer;
    size_t n;            /* samples of one prompt; 0 = 1 */
    int logprobs;        /* likeliest tokens shown with each, 0 to 20; -1: none */
    int prompt_logprobs; /* the same for the prompt; -1 */
    bool chosen;         /* tell each token as REQUEST_CHOSEN */
    bool policy;         /* with log-probabilities of the distribution
                            that was drawn from (tensor/logprob.h), with sampling.temperature above
                            0 and nothing else that changes it. For learning from samples */
    int priority;        /* lower first */
    uint64_t owner;      /* whose fair share it uses (a key); 0: nobody's in particular */
    uint64_t salt[2];    /* beginnings are shared among requests of equal salt */
    double deadline;     /* clock_seconds() at which it ends with what there is; 0: none */
    void (*event)(void *arg, const struct request_event *ev);
    void *arg;
};

void request_params_init(struct request_params *p);

/*
 * Queues a request. ERR_BUSY when too many wait, ERR_LIMIT when the prompt does not fit into the
 * context or could never fit into the cache, ERR_USAGE for impossible parameters: then no event
 * comes. Else exactly one last event (REQUEST_DONE or REQUEST_FAILED) comes; *out is set before the
 * first. The handle is the caller's until request_free, which is for after the last event (or
 * inside it).
 */
int sched_submit(struct sched *s, const struct request_params *p, struct request **out,
                 struct err *e);
void request_cancel(struct request *r); /* ends within one step; REQUEST_DONE follows */
void request_free(struct request *r);

/* A snapshot for metrics. */
struct sched_stats {
    size_t running, waiting;                /* sequences; requests */
    size_t pages, pages_used, pages_cached; /* of 64 tokens; cached: held by nobody but the cache */
    uint64_t prompt_tokens, answer_tokens, steps, preemptions;
    uint64_t prefix_queries, prefix_hits, disk_hits; /* tokens */
    uint64_t disk_bytes;
    double prompt_speed, answer_speed; /* tokens a second, of late */
};
void sched_stats(struct sched *s, struct sched_stats *out);

#endif
