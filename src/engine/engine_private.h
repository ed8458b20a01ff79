/* The inside of an engine: private to engine/. */
#ifndef PONDER_ENGINE_ENGINE_PRIVATE_H
#define PONDER_ENGINE_ENGINE_PRIVATE_H

#include "engine/engine.h"
#include "model/model.h"

enum { ENGINE_WANT = 16 }; /* rows of logits in one forward pass, when nobody says */

struct engine {
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct tokenizer *tok;
    struct chat *chat;
    struct model *model;
    struct kv_pool *kv;
    size_t batch; /* tokens of a prefill chunk */
    size_t want;  /* rows of logits in one forward pass, at most */
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

#endif
