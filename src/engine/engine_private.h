/* The inside of an engine: private to engine/. */
#ifndef PONDER_ENGINE_ENGINE_PRIVATE_H
#define PONDER_ENGINE_ENGINE_PRIVATE_H

#include "engine/engine.h"
#include "model/model.h"

#include <stdatomic.h>

enum { ENGINE_WANT = 16 }; /* rows of logits in one forward pass, when nobody says */

/* Memory of a step: what its batch points to (step.c). */
struct engine_step {
    size_t rows; /* tokens, at most */
    int32_t *ids;
    uint32_t *pos, *want;
    struct batch_run *runs;
    float *hidden;         /* (rows, d_model), with the prediction layer or for who wants states */
    struct session **lent; /* (rows) whose logits are in scratch */
    size_t n_lent;
};

struct engine {
    struct kern kern;
    struct topology *topology;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct tokenizer *tok;
    struct chat *chat;
    _Atomic(struct grammar_vocab *) grammar_vocab; /* NULL: not made */
    struct grammar_cache *grammars;
    struct model *model;
    struct kv_pool *kv;
    enum engine_act act;
    char *adapter;          /* its path, or NULL */
    uint64_t adapter_stamp; /* engine_path_identity when it was read */
    struct engine *base;    /* whose weights most are, or NULL */
    atomic_size_t holders;  /* who has it or its weights: the last one frees */
    bool adapter_merge;
    size_t batch; /* tokens of a prefill chunk */
    bool mtp;     /* the prediction layer is loaded */
    size_t want;  /* rows of logits in one forward pass, at most */
    struct engine_step step;
    struct op_tape watch;
    void (*observer)(void *arg, const struct engine_input *in);
    void *observer_arg;
    struct engine_info info;
    struct sampler_params sampling; /* recommended */
    char name[128];
};

/* Recommended sampling, engine/sampling.c: without a model's word, and as its files say it. Values
   that make no sense are passed over with a line in the log; only missing memory is an error. */
void sampling_default(struct sampler_params *out);
int sampling_read(struct sampler_params *out, struct source *src, bool r1_family,
                  const struct log *log, struct err *e);

/* What the bits of the KV cache's pages depend on, tokens apart. */
void engine_identity(const struct engine *g, uint64_t out[2]);

struct session {
    struct engine *g;
    struct kv_seq seq;
    int32_t *ids; /* (ctx) the timeline */
    size_t n;     /* tokens in it, all in the cache */
    size_t reused;
    const float *logits; /* (vocab) after token n - 1, in scratch or in `kept`; NULL: none */
    float *kept;         /* (vocab) */

    /* With the prediction layer (session_mtp.c). */
    float *hidden; /* (step.rows, d_model) states of tokens [hidden_pos, + hidden_n) */
    size_t hidden_pos, hidden_n;
    size_t mtp_n; /* positions that the layer's cache has */
    bool ahead;   /* token n has been guessed and computed: */
    int32_t ahead_id;
    float *ahead_logits; /* (vocab) those after it */
    uint64_t drafted, accepted;
};

/* Scratch that a forward pass over the batch needs, and with the prediction layer a pass of it. */
size_t engine_dry(struct engine *g, const struct batch *b);

int engine_step_init(struct engine *g, struct err *e);
void engine_step_release(struct engine *g);

/* Before anything uses scratch: sessions whose logits lie there keep them. */
void engine_keep_logits(struct engine *g);

/* engine_step without its checks; *y becomes the logits of all parts, in scratch. */
int engine_forward(struct engine *g, struct session_part *part, size_t n, struct tensor *y,
                   struct err *e);

/* ERR_LIMIT or ERR_FORMAT when n more tokens do not fit or are no tokens. */
int session_check(const struct session *s, const int32_t *ids, size_t n, struct err *e);

/* Pages of its own for n more tokens, and for what the prediction layer still has to write. */
int session_reserve(struct session *s, size_t n, struct err *e);

/* Pages that the session will not write again unless it is cut back: others may hold them too. */
size_t session_full_pages(const struct session *s);

/* Makes a session without tokens the timeline ids[0..64 × n) without computing it: those `page`s
   hold it. ERR_LIMIT when it is longer than the context. */
int session_adopt(struct session *s, const uint32_t *page, const int32_t *ids, size_t n,
                  struct err *e);

/* Computes ids[0..n) behind the timeline; *y becomes the logits of the last `want` tokens, in
 * scratch: valid until the next step. */
int session_step(struct session *s, const int32_t *ids, size_t n, size_t want, struct tensor *y,
                 struct err *e);

/*
 * Runs the prediction layer over the positions it lacks, up to the one before the timeline's end,
 * or, with the token that comes `next` (else -1), the end itself. *y (may be NULL) becomes the
 * logits of the last `want` of them, and stays as it is when there was nothing to do.
 */
void session_catch_up(struct session *s, int32_t next, size_t want, struct tensor *y);

/* Appends one token and has the layer guess the next. */
int session_speculate(struct session *s, int32_t id, struct err *e);

#endif
