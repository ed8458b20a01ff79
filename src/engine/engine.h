/*
 * The narrow waist: what commands, servers and trainers see of a model.
 *
 *   engine    a loaded model with its tokenizer, template, threads and memory plan
 *   session   one timeline of tokens with its KV cache and the logits after its last token
 *   generate  prompt in, pieces of thought and answer out (engine/generate.h)
 *
 * Nothing above this header knows about tensors or kernels. An engine may have several sessions;
 * calls on an engine and its sessions come from one thread at a time (the compute threads are
 * inside).
 */
#ifndef PONDER_ENGINE_ENGINE_H
#define PONDER_ENGINE_ENGINE_H

#include "base/cpu.h"
#include "base/err.h"
#include "base/log.h"
#include "base/team.h"
#include "base/topology.h"
#include "engine/sampler.h"
#include "quant/quant.h"
#include "text/chat.h"
#include "text/tokenizer.h"

#include <stdbool.h>
#include <stdint.h>

struct engine;
struct model_adapt;   /* model/model.h */
struct grammar_vocab; /* text/grammar.h */
struct grammar_cache; /* text/grammar_cache.h */
struct session;

/* Where the weights are kept. */
enum engine_place {
    ENGINE_AUTO,   /* in memory, packed by the first tokens that read them; what does not fit stays
                      in the files: experts first, then all */
    ENGINE_PACKED, /* in memory, in the kernels' order, before the first token */
    ENGINE_MAPPED, /* in the files, read when used */
};

/* What products with quantized weights read. */
enum engine_act {
    ENGINE_ACT_AUTO,  /* int16 for models of less than 300 million weights, else int8 */
    ENGINE_ACT_INT8,  /* a byte a value, BF16 for weights in BF16 and FP8: fast */
    ENGINE_ACT_INT16, /* two bytes: the value, and what rounding left of it; float for BF16, FP8 */
    ENGINE_ACT_F32,   /* float: weights are decoded, slow */
};

/* The arithmetic of a product, by the type of its weights. */
enum engine_math {
    ENGINE_MATH_INT8,
    ENGINE_MATH_INT16, /* int8 twice (ENGINE_ACT_INT16) */
    ENGINE_MATH_BF16,  /* weights whose codes are exact in BF16: BF16, FP8 */
    ENGINE_MATH_F32,
    ENGINE_MATH_COUNT,
};

/* Threads stay on the memory node where they began when the machine has several, else they go
   wherever the process may. */
#define ENGINE_PIN_AUTO (-1)

/* F16; Q8_0 for latents when products read int8. */
#define ENGINE_KV_AUTO QUANT_ID_MAX

/* "auto", "f16", "f32", "bf16", "q8_0", "fp8" (= "fp8_e4m3"), "fp8_e5m2"; also "float16",
   "bfloat16" and so on. False: unknown. */
bool engine_kv_parse(enum quant_id *out, const char *name);

struct engine_opts {
    int threads;      /* 0 = as many as there are cores for this process */
    int pin;          /* an enum team_pin or ENGINE_PIN_AUTO; TEAM_PIN_NONE by default */
    enum cpu_isa isa; /* from cpu_isa_parse */
    size_t ctx;       /* tokens of a session; 0 = what the model was trained for, at most ctx_max */
    size_t ctx_max;   /* bound on the default; 0 = 4096 × 8 or what memory allows */
    size_t batch;     /* tokens of a prefill chunk; 0 = 512 */
    size_t want;      /* rows of logits that are computed together, at most; 0 = 16 */
    size_t cache;     /* tokens that the sessions hold together, at most; 0 = ctx: one full session.
                         Each session takes whole pages of 64 */
    const char *ctx_less;  /* what makes them smaller, in the words of who has other options than
                              --ctx: for errors; or NULL */
    enum quant_id kv_type; /* by engine_kv_parse */
    enum engine_place place;
    enum engine_act act;
    bool mtp;            /* load the multi-token prediction layer and draft tokens with it */
    const char *adapter; /* LoRA adapter to apply (PEFT folder or GGUF file), or NULL */
    bool adapter_merge;  /* keep sums instead of adding products */
    /* With `adapter`: an engine of the same files and options without one, whose weights and open
       files are shared: those at the path are not opened again. It may be freed first; what is
       shared stays as long as anybody has it. Engines that share weights are opened and compute in
       one thread at a time */
    struct engine *base;
    bool mla_expanded; /* latent attention: expanded form for long chunks; else one exact form */
    const struct model_adapt *adapt; /* train an adapter over weights that stay (model/model.h);
                                        NULL: none */
    bool train; /* weights in float, in memory that a trainer may change (engine/parts.h); the
                   prediction layer too, where there is one. Takes no adapter_merge */
    bool bf16;  /* with `train`: products read copies rounded to BF16 (model_refresh) */
    bool tokenizer_only;       /* do not load weights: tokenizer and template only */
    const char *template_text; /* replaces the file's template, or NULL */
    const struct log *log;     /* may be NULL */
    /* Called now and then while loading with bytes done and in total; may be NULL. */
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};

void engine_opts_init(struct engine_opts *o);

/* Opens MODEL (a path). Errors name the file, the fault and the remedy. */
int engine_open(struct engine **out, const char *path, const struct engine_opts *o, struct err *e);
void engine_free(struct engine *g);

/* Packs all weights that ENGINE_AUTO has left for the first tokens: before speed is measured. */
int engine_settle(struct engine *g, struct err *e);

struct engine_info {
    const char *name;             /* general.name or the file's name without its ending */
    const char *arch;             /* "llama", "qwen2", … */
    const char *file_type;        /* "Q4_K_M", "BF16", … (best guess of the mix) */
    uint64_t params;              /* number of weights */
    uint64_t weight_bytes;        /* in memory as the kernels read them */
    uint64_t mapped_bytes;        /* of weights left in the files */
    uint64_t token_bytes;         /* of weights that one decoded token reads */
    uint64_t expert_bytes;        /* of all routed experts; a token reads used / count of them */
    size_t experts, experts_used; /* of a layer; 0: none */
    /* Multiply-adds for one token by what multiplies them: of the linear layers without the head,
       and of the output head. */
    uint64_t token_macs[ENGINE_MATH_COUNT], head_macs[ENGINE_MATH_COUNT];
    uint64_t kv_token_bytes; /* of the KV cache, a token */
    uint64_t scratch_bytes;  /* of activations, at the largest batch */
    size_t ctx_train, ctx, vocab, layers;
    size_t cache;      /* tokens that all sessions hold together, at most */
    size_t step, want; /* of engine_step: tokens, and rows of logits, at most */
    int threads;
    enum team_pin pin;
    const struct topology *topology; /* where they run; the engine's */
    enum cpu_isa isa;
    enum quant_id kv_type;
    bool r1_family; /* recommended sampling differs: temperature 0.6, top-p 0.95 */
};

const struct engine_info *engine_info(const struct engine *g);
uint64_t engine_regions(const struct engine *g); /* parallel regions so far */
struct source *engine_source(struct engine *g);
const struct tokenizer *engine_tokenizer(const struct engine *g);
const struct chat *engine_chat(const struct engine *g); /* NULL without a tokenizer */
/* The vocabulary for grammars, made at the first call (from any thread); the engine keeps it. */
int engine_grammar_vocab(struct engine *g, struct grammar_vocab **out, struct err *e);
/* Grammars that were compiled for this model; NULL without a tokenizer. */
struct grammar_cache *engine_grammars(struct engine *g);

/* Sampling that suits the model: from general.sampling.* or generation_config.json where the files
   have it, else 0.6 / 0.95 for the R1 family, else 0.8, top-k 40, top-p 0.9. Read by engine_open.
 */
void engine_sampling(const struct engine *g, struct sampler_params *out);

/*
 * What goes into the matrix products of an engine's sessions, matrix by matrix: `rows` inputs of
 * `cols` values. Matrices that share an input report it each. A stack of experts (or of heads) is
 * one name with `mats` matrices, of which this is number `mat`, with the inputs routed to it.
 * Everything is valid during the call only.
 */
struct engine_input {
    const char *name; /* of the weight as GGUF files call it, whatever files the model came from */
    size_t cols, rows, mat, mats;
    const float *x; /* row r: cols values at x + (index ? index[r] : r) * ld */
    size_t ld;
    const uint32_t *index; /* (rows) or NULL */
};

/* From now on `fn` sees every input, in the order of computation and in the caller's thread; NULL
   ends it. Results and memory are those without an observer. */
void engine_observe(struct engine *g, void (*fn)(void *arg, const struct engine_input *in),
                    void *arg);

/* A number that tells models apart: made of names, shapes, types and samples of all tensors. */
uint64_t engine_fingerprint(const struct engine *g);

/* y = exp(x) by the kernels' exp, whose bits are the same on every machine; y may be x. */
void engine_exp(const struct engine *g, float *y, const float *x, size_t n);

int session_new(struct session **out, struct engine *g, struct err *e);
void session_free(struct session *s);

/*
 * A second session that goes on where `from` is: the same timeline and logits, nothing is computed.
 * Both hold the pages of the cache together until one of them writes; a page is then copied.
 */
int session_fork(struct session **out, struct session *from, struct err *e);
/* Unused pages of 64 tokens, and how many n more tokens of the session would take. */
size_t engine_pages_unused(const struct engine *g);
size_t session_need(const struct session *s, size_t n);

/*
 * Makes the timeline exactly ids[0..n), n ≥ 1: keeps the longest prefix it already has (but
 * computes at least the last token) and prefills the rest in chunks. `progress` (may be NULL) is
 * called after each chunk and stops the work with ERR_CANCELLED when it returns false; what was
 * computed stays. ERR_LIMIT when n is more than the context.
 */
int session_feed(struct session *s, const int32_t *ids, size_t n,
                 bool (*progress)(void *arg, size_t done, size_t total), void *arg, struct err *e);
/* Adds tokens to the end: one for decoding. Logits of the last one follow. */
int session_append(struct session *s, const int32_t *ids, size_t n, struct err *e);
/* Logits of every token: writes n rows of vocab floats. For scoring; chunked like session_append.
 */
int session_append_all(struct session *s, const int32_t *ids, size_t n, float *logits,
                       struct err *e);
/*
 * Scoring: adds ids[0..n) and gives the logits after each of ids[from..n) to `row`, with the index
 * i in ids. The compute threads call it, several at a time, in any order, each i once; `worker` is
 * below the engine's number of threads. from = n wants none.
 */
int session_score(struct session *s, const int32_t *ids, size_t n, size_t from,
                  void (*row)(void *arg, size_t i, const float *logits, int worker), void *arg,
                  struct err *e);
void session_truncate(struct session *s, size_t n); /* forgets tokens from n on */

/*
 * What one session takes from a step: `n` ≥ 1 tokens at its end. Logits are computed for the last
 * `want` of them: 1 to go on from there, 0 in the middle of a prompt, more to check guesses.
 */
struct session_part {
    struct session *s;
    const int32_t *ids;
    size_t n, want;
    const float *logits; /* out: (want, vocab), valid until the engine computes again; else NULL */
    bool show;           /* the last layer's normed states are wanted too: */
    const float *states; /* out: (n, d_model), valid as long; else NULL */
};

/*
 * Adds tokens to several sessions of the engine in one pass over the weights: what decodes at the
 * same time, and pieces of prompts beside it. Each session then has the logits, to the bit, that
 * session_append would have given it. The parts are different sessions; together at most
 * engine_info()->step tokens, of which `want` at most ->want. An error leaves their
 * timelines as they were.
 */
int engine_step(struct engine *g, struct session_part *part, size_t n, struct err *e);

/*
 * The timeline continued by ids[0..n), and the logits of the prediction layer for its tokens: n - 1
 * rows of vocab floats, of which row j predicts token j + 2. `chunk` tokens at a time, at most. For
 * a new session of an engine with mtp.
 */
int session_mtp_all(struct session *s, const int32_t *ids, size_t n, size_t chunk, float *logits,
                    struct err *e);
/* Tokens guessed by the prediction layer so far, and how many of them were right. */
void session_drafts(const struct session *s, uint64_t *drafted, uint64_t *accepted);

struct engine *session_engine(const struct session *s);
/* Those after the last token: vocab floats, valid until the engine computes again (for whatever
   session); NULL when there are none. */
const float *session_logits(const struct session *s);
size_t session_len(const struct session *s);
size_t session_reused(const struct session *s); /* tokens that the last session_feed kept */
const int32_t *session_ids(const struct session *s);

#endif
