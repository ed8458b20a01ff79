/*
 * The models of a server: which there are, which are loaded, and the thread that computes.
 *
 * One thread steps the schedulers of all loaded models in turn, so models never fight for cores. A
 * second thread loads. Nobody else waits for either: who needs a model says what to call when it is
 * there. A loaded model stays for its keep-alive after its last use; when another one needs its
 * memory, the least recently used one without requests goes.
 *
 * An adapter is a model of its own, with its own scheduler and cache, that takes its weights from
 * the model that it is for (engine_opts.base), which stays loaded as long as the adapter is.
 */
#ifndef PONDER_SERVER_HUB_H
#define PONDER_SERVER_HUB_H

#include "engine/sched.h"

struct hub;
struct hub_model;

struct hub_adapter {
    const char *name, *path;
};

struct hub_opts {
    const char *const *path; /* models given by name: files or folders */
    size_t n_path;
    const char *dir; /* all models in it (files *.gguf, folders with config.json), or NULL */
    const char *const *served; /* names of the first model instead of its own; the first is shown */
    size_t n_served;
    const struct hub_adapter *adapter; /* models that are the first one with an adapter */
    size_t n_adapter;
    struct engine_opts engine;
    struct sched_opts sched;
    /* Called by the computing thread after a step of a model. Or NULL. */
    void (*step)(void *arg, const char *model, const struct sched_work *w);
    void *step_arg;
    double keep_alive; /* seconds after the last use; negative: for ever */
    uint64_t memory; /* budget of all loaded models together; 0 = three quarters of what is free */
    size_t loaded;   /* models at the same time, at most; 0 = no bound */
    const struct log *log; /* written by the computing thread, too: log_writer_start */
};

void hub_opts_init(struct hub_opts *o);
/* Finds the models and starts the threads; loads none. */
int hub_new(struct hub **out, const struct hub_opts *o, struct err *e);
/* Ends the threads; requests that wait or run fail, and so does whoever asks from now on. */
void hub_stop(struct hub *h);
void hub_free(struct hub *h); /* after the last hub_put */

/* ---- names ---------------------------------------------------------------------------------- */

/* What is known without loading (from the file's head). It stays while the hub lives; a model whose
   files are replaced has another one, with the same name and path, when it is loaded again. */
struct hub_info {
    const char *name; /* as listed: of the file, "qwen2.5-coder-0.5b-instruct-q4_k_m", or the
                         first of `served`; Ollama's API adds ":latest" */
    const char *path;
    const char *adapter, *parent; /* of a model with an adapter: its path, the name of the model
                                     without it; else NULL */
    const char *digest; /* 64 hex digits: SHA-256 over the names, types, shapes and samples of all
                           tensors, the size and the template. No checksum: weights are not read */
    const char *arch, *file_type, *size_label; /* "qwen2", "Q4_K_M", "494.03M" */
    uint64_t bytes, params;
    double modified; /* seconds since 1970 */
    size_t ctx_train, d_model, vocab;
    bool thinks, tools, fim; /* by its template and vocabulary; for "capabilities" */
};
size_t hub_count(const struct hub *h);
const struct hub_info *hub_info(const struct hub_model *m);
struct hub_model *hub_model(const struct hub *h, size_t i);
/* All names that a model answers to, the listed one first; NULL after the last. */
const char *hub_name(const struct hub_model *m, size_t i);

/* *e is why a model's files could not be read. Whoever asked for it is told that they are gone, or,
   with another code, that it is no fault of the request. */
void hub_fault(const struct hub_model *m, struct err *e);

/* A name as clients write it: with or without ":latest", case-insensitive, an alias
   ("deepseek-reasoner", "deepseek-chat": the first reasoning model, with *think 1 or 0; where none
   reasons, the first model; *think is -1 otherwise). Empty: ERR_USAGE. ERR_NOTFOUND names what
   there is. */
int hub_find(const struct hub *h, const char *name, struct hub_model **out, int *think,
             struct err *e);

/* ---- use ------------------------------------------------------------------------------------ */

/* A model while it is loaded; it stays loaded until hub_put. */
struct hub_use {
    struct hub_model *model;
    struct engine *engine; /* info, tokenizer, chat: constant, any thread. Never step it */
    double load_seconds;   /* that this use waited for loading */
};
/*
 * Calls `ready` with a use (the caller's, to be given back by hub_put) or with an error: at once,
 * in the caller's thread, when the model is loaded, else later in a thread of the hub that may do
 * work of some milliseconds. `ctx` > 0 asks for at least that context, bounded by what the model
 * was trained for and by what the engine's options say: a loaded model with a smaller one is loaded
 * again when its requests have ended. ERR_BUSY when as many wait for it as a scheduler lets wait.
 */
void hub_get(struct hub *h, struct hub_model *m, size_t ctx,
             void (*ready)(void *arg, const struct hub_use *u, const struct err *e), void *arg);
/* keep_alive: seconds, negative for ever, 0: unload now (when nobody else uses it), NAN: default.
 */
void hub_put(const struct hub_use *u, double keep_alive);
/* sched_submit to the scheduler of the model; ERR_CANCELLED when the server stops. */
int hub_submit(const struct hub_use *u, const struct request_params *p, struct request **out,
               struct err *e);
/* Unloads when its requests have ended. False: was not loaded. */
bool hub_unload(struct hub *h, struct hub_model *m);

/* Loaded models for /api/ps and /metrics. `expires`: seconds since 1970, INFINITY: never. `bytes`:
   of memory, as the budget counts it. */
void hub_loaded(struct hub *h,
                void (*fn)(void *arg, const struct hub_info *i, const struct engine_info *ei,
                           const struct sched_stats *st, double expires, uint64_t bytes),
                void *arg);

#endif
