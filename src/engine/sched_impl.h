/*
 * The inside of the scheduler.
 *
 *   request   what was submitted: one prompt, one or more samples
 *   sample    one sequence: a timeline of tokens (prompt and answer), of which its session has
 *             computed a part; what is left is next: all of a prompt, or the last token chosen
 *   owner     whose fair share it is
 *
 * A sample HELD waits for the first one of its request to compute the prompt. One that WAITS has no
 * session: it is new, or it was preempted and its timeline will be computed again. So there is one
 * rule for everything: a sample that RUNS computes what its session lacks, and when it lacks
 * nothing the logits say what comes next.
 *
 * sched.c      who waits, who runs, who has to go
 * sched_step.c what a step computes
 * sched_out.c  what becomes of it: tokens, log-probabilities, events, ends
 */
#ifndef PONDER_ENGINE_SCHED_IMPL_H
#define PONDER_ENGINE_SCHED_IMPL_H

#include "engine/prefix.h"
#include "engine/sched.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    SCHED_GROWTH = 256,   /* tokens of an answer that admission leaves room for */
    SCHED_PIECE_MIN = 16, /* tokens of a prompt in a step, at least */
    SCHED_TOP_MAX = 20,   /* log-probabilities shown with a token */
    SCHED_SAMPLES_MAX = 128,
    SCHED_OWNERS_MAX = 4096,
};

enum sample_state { SAMPLE_HELD, SAMPLE_WAITS, SAMPLE_RUNS, SAMPLE_ENDED };

struct token_row { /* one token's log-probabilities */
    struct token_prob self;
    struct token_prob top[SCHED_TOP_MAX];
};

struct sample {
    struct request *r;
    size_t index;
    enum sample_state state;
    struct answer *answer; /* NULL: an embedding */
    int32_t *ids;          /* (cap + 1) the timeline; one more for a token that is not kept */
    size_t n, cap;
    size_t told;             /* ids before it were delivered */
    struct session *session; /* while it runs */
    struct sample *next;     /* of those that wait */
    bool asked;              /* the disk, for the beginning of its timeline */
    uint64_t ticket;         /* of what it said */

    /* In a step. */
    size_t take;         /* tokens that it computes */
    const float *logits; /* of the last one; for samples HELD those of the first sample */
    struct token_row row;
    size_t upto; /* ids before it may be delivered */
    size_t grew; /* tokens that its answer got */
    struct err err;

    double *sum; /* (d_model) of states: embeddings */
    enum request_end end;
    struct request_stats stats;
    double first; /* when its first token came */
};

struct owner {
    uint64_t id;
    double served; /* tokens */
    size_t live;   /* requests */
};

struct request {
    struct bell *bell;
    atomic_int refs; /* the caller's and the scheduler's */
    atomic_bool cancelled;
    pthread_mutex_t lock;    /* one event at a time */
    struct request_params p; /* of pointers only `prompt` (a copy), `event` and `arg` are valid */
    int32_t *prompt;
    struct sample *sample; /* (n) */
    size_t n, live;        /* live: not ended */
    uint64_t number;       /* order of arrival */
    struct owner *owner;   /* once it is known to the stepping thread */
    bool started, prompted;
    double submitted, begun;
    struct request_stats stats;  /* of samples that have ended */
    struct token_row *rows;      /* (n_prompt - 1) with prompt_logprobs; row i is of token i + 1 */
    struct request *next, *prev; /* of all that live */
};

/* What wakes the stepping thread; outlives the scheduler while requests do. */
struct bell {
    atomic_int refs;
    pthread_mutex_t lock;
    void (*ring)(void *arg); /* NULL: nobody listens any more */
    void *arg;
};

struct sched {
    struct engine *g;
    struct sched_opts o;
    struct bell *bell;
    size_t vocab;          /* tokens to choose from */
    struct prefix *prefix; /* or NULL */
    size_t pages;          /* of the cache */
    enum { POOL_MEAN, POOL_FIRST, POOL_LAST } pool;

    pthread_mutex_t lock; /* of the following, which all threads use */
    struct request *new_first, *new_last;
    size_t queued; /* requests that were not admitted yet */
    uint64_t arrivals;
    struct sched_stats stats; /* as of the last step */
    struct err broken;        /* what sched_step failed with */

    /* Of the stepping thread alone. */
    struct request *all;
    struct sample *waiting; /* in no order */
    struct sample **run;    /* (seqs) by priority, then by admission: the last has to go first */
    size_t n_run, n_wait;
    struct owner **owner; /* (n_owner) also of requests before */
    size_t n_owner;
    struct session_part *part; /* (seqs) */
    struct sample **of;        /* (seqs) whose part it is */
    size_t n_part, takes;      /* takes: unused pages, all parts together */
    struct sample **draw;      /* (room_draw) those whose next token the step decides */
    size_t n_draw, room_draw;
    struct sched_stats tally;
    struct sched_work work; /* of this step */
    struct pace {
        double busy, alone;    /* tokens of prompts in a step, beside others that decode or not */
        double decode_seconds; /* of steps that only decode */
    } pace;
    double prompt_tokens, prompt_seconds, answer_tokens, answer_seconds; /* of late: fading sums */
};

/* ---- sched.c ----------------------------------------------------------------------------------
 */

/* Unused pages and those that can be made so. */
size_t sched_room(const struct sched *s);
/* Who comes first: by priority, then by the owner's share, then by arrival. */
bool sched_before(const struct sample *a, const struct sample *b);
/* The sample gives its session back and waits. */
void sched_preempt(struct sched *s, struct sample *x);
/* It takes a session: a new one, or a fork of `from`. False when there is no room. */
bool sched_start(struct sched *s, struct sample *x, struct session *from);
/* It waits for a place. */
void sched_wait(struct sched *s, struct sample *x);
/* A sample leaves whatever list it is in, and gives its session back. */
void sched_leave(struct sched *s, struct sample *x);
/* Its memory for tokens, when it needs that for the first time. */
int sample_timeline(struct sched *s, struct sample *x, struct err *e);
/* A request leaves, after its last event. */
void sched_forget(struct sched *s, struct request *r);

/* ---- sched_step.c -----------------------------------------------------------------------------
 */

/* Chooses what the next step computes: s->part. */
void sched_plan(struct sched *s);
int sched_compute(struct sched *s, struct err *e);

/* ---- sched_out.c ------------------------------------------------------------------------------
 */

/* What the step gave: states, log-probabilities of prompts, next tokens, ends. */
void sched_deliver(struct sched *s);
void request_tell(struct request *r, struct request_event *ev);
/* Delivers the text that was still held back. On an error the request is to fail. */
int sample_flush(struct sample *x, struct err *e);
/* The sample, whose text was delivered, ends; the request too when it was the last. */
void sample_finish(struct sched *s, struct sample *x, enum request_end end);
void request_fail(struct sched *s, struct request *r, const struct err *e);
void request_unref(struct request *r);

#endif
