/* Options that several commands share: the engine's and those of sampling, and what they become. */
#ifndef PONDER_CLI_OPTIONS_H
#define PONDER_CLI_OPTIONS_H

#include "base/log.h"
#include "base/opt.h"
#include "engine/engine.h"

struct engine_options {
    int64_t threads, ctx, batch;
    const char *pin, *isa, *kv_type, *weights, *activations, *draft, *mla, *template_file, *log;
    struct opt_list lora; /* one; serve takes more, with names */
    int lora_merge;
};

/* The first OPTIONS_OWN_N rows are --threads and --ctx: commands with their own meaning of these
   leave them out. */
enum { OPTIONS_OWN_N = 2, OPTIONS_ENGINE_N = 14, OPTIONS_SAMPLING_N = 13 };
extern const struct opt options_engine[OPTIONS_ENGINE_N];

struct sampling_options {
    double temperature, top_p, min_p, typical_p;
    double repeat_penalty, frequency_penalty, presence_penalty;
    int64_t top_k, repeat_last_n, seed, max_tokens;
    struct opt_list logit_bias, stop;
};

extern const struct opt options_sampling[OPTIONS_SAMPLING_N];

/*
 * Opening a model with these options, with a progress bar on a terminal. template_text (a buffer
 * that the caller releases) holds the text of --template. `log` must outlive the engine.
 */
struct engine_request {
    const char *path;
    const struct engine_options *o;
    struct log *log;
    struct buf template_text;
    enum quant_id kv_type; /* when --kv-type is not given */
    enum engine_act act;   /* when --activations is not given */
    bool mtp;              /* load the prediction layer in any case */
    size_t ctx;            /* when --ctx is not given; 0 = the engine's choice */
    size_t ctx_max;        /* bound on that choice; 0 = the engine's */
    size_t want;           /* rows of logits computed together; 0 = the engine's choice */
    size_t cache;          /* tokens of all sessions together; 0 = of one */
};

/* Only what the engine is opened with; `path` is not read. */
int options_engine_opts(struct engine_opts *out, struct engine_request *r, struct err *e);
int options_open(struct engine **out, struct engine_request *r, struct err *e);

/* What the model recommends, changed by what the user gave. bias has room for OPT_LIST_MAX; its
   rows are checked against the vocabulary. A seed that was not given is drawn from the system. */
int options_sampling_params(const struct sampling_options *o, const struct engine *g,
                            struct sampler_params *out, struct sampler_bias *bias, struct err *e);

#endif
