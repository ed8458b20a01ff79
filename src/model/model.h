/*
 * Models: hyperparameters, weights by name, and one forward function per architecture.
 *
 * Each architecture is one file and one row in arch.def: it says how it is called in GGUF files and
 * in config.json, which tensors it has under both spellings with which shapes, and runs its forward
 * pass as calls of ops. The same forward serves generation, scoring, evaluation and training.
 */
#ifndef PONDER_MODEL_MODEL_H
#define PONDER_MODEL_MODEL_H

#include "base/team.h"
#include "format/adapter.h"
#include "format/source.h"
#include "tensor/kv.h"
#include "tensor/ops.h"

enum model_rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct model_config {
    const struct model_arch *arch; /* row of arch.def; name: model_arch_name */
    size_t n_layer;
    size_t d_model; /* width of the residual stream */
    size_t n_head, n_kv_head;
    size_t d_head;  /* of q and k; MLA: d_nope + d_rope */
    size_t d_v;     /* of v; without MLA d_head */
    size_t d_ff;    /* width of the dense feed-forward part */
    size_t n_vocab; /* rows of the embedding */
    size_t ctx_train;
    double rms_eps;
    bool tied;      /* the head is the embedding */
    bool rope_half; /* pairs (i, i + d/2), else (2i, 2i + 1): how the file's rows are ordered */
    size_t d_rope;  /* rotated values of a head */
    double rope_theta;
    enum model_rope_scaling rope_scaling;
    double rope_factor, rope_low, rope_high, rope_ctx; /* llama3, linear and yarn parameters */
    double rope_beta_fast, rope_beta_slow;             /* yarn */
    double rope_mscale,
        rope_mscale_all;     /* yarn of DeepSeek: config.json's mscale, mscale_all_dim */
    double rope_log_mul;     /* the same in GGUF: 0.1 × mscale_all_dim */
    double rope_attn_factor; /* on cos and sin: yarn's magnitude correction, 1 otherwise */
    float attn_scale; /* of the attention scores: 1 / sqrt(d_head), MLA: × yarn's correction² */

    /* Multi-head latent attention (DeepSeek-V2, V3). 0: grouped-query attention. */
    size_t kv_lora;    /* width of the latent that keys and values come from */
    size_t q_lora;     /* width of the query's bottleneck; 0: none */
    size_t d_nope;     /* values of a head of q and k that are not rotated */
    bool mla_expanded; /* long chunks take the expanded form (mla.c); set by model_load */

    /* Mixture of experts: in layers from n_dense on. n_expert = 0: none. */
    size_t n_dense; /* leading layers with a dense feed-forward part */
    size_t n_expert, n_expert_used, n_shared;
    size_t d_ff_expert;           /* width of one expert */
    size_t n_group, n_group_used; /* groups that the router chooses among; 1, 1: none */
    bool router_sigmoid;          /* scores by sigmoid (V3), else softmax */
    bool router_bias;             /* a correction bias steers the choice (V3) */
    bool expert_norm;             /* weights of the chosen over their sum */
    double expert_scale;          /* on the weights of the chosen */

    size_t n_mtp; /* multi-token prediction layers after the n_layer ones: 0 or 1 */
};

struct model;
struct model_arch;

/* "llama", "qwen2", …: the name of an architecture's row. */
const char *model_arch_name(const struct model_arch *a);

/* Where the weights of a model are kept. */
enum model_place {
    MODEL_AUTO,   /* packed; what does not fit stays in the files: experts first, then all */
    MODEL_PACKED, /* all in memory, in the kernels' order */
    MODEL_MAPPED, /* all in the files: read when used */
};

/*
 * An adapter to be trained over weights that stay as they are: what model_params_each tells then is
 * its matrices, under PEFT's names. Its products are added to those of the base; parts of kv_b_proj
 * and experts hold the sum as F32 (model_lora_merge, model_lora_back).
 */
struct model_adapt {
    size_t rank;
    double alpha;
    bool rs;       /* scale alpha / sqrt(rank), else alpha / rank */
    uint64_t seed; /* of A; B begins as zero */
    /* Called with each module's name ("model.layers.0.mlp.up_proj"): adapt it? NULL: all matrices
       of the layers but routers, routed experts and the prediction layer. */
    bool (*choose)(void *arg, const char *module);
    void *arg;
};

struct model_load_opts {
    enum model_place place;
    size_t memory;     /* bytes that packed weights may take with MODEL_AUTO */
    bool later;        /* pack in the first passes, not before: see model_pass */
    bool mla_expanded; /* expanded form of latent attention for long chunks */
    bool mtp;          /* load the multi-token prediction layer too */
    bool train;        /* all weights as F32 in memory, to be changed (model_params_each); an
                          adapter is merged */
    bool bf16;         /* with `train`: products read copies rounded to BF16 (model_refresh) */
    /*
     * An adapter to apply (NULL: none), which may be freed afterwards. Its products are added to
     * those of the base weights; with `merge`, and for experts and slices of kv_b_proj in any case,
     * the sum of both is kept as F32 instead.
     */
    const struct adapter *adapter;
    bool merge;
    const struct model_adapt *adapt; /* train an adapter: `adapter` if there is one, else a new one;
                                        NULL: none. Not with `train` */
    /*
     * A loaded model of the same files, not trained, which outlives this one: its weights are
     * taken, only what `adapter` changes is this model's own. Both are computed by one thread at a
     * time.
     */
    struct model *base;
    void (*progress)(void *arg, uint64_t done, uint64_t total); /* may be NULL */
    void *arg;
};

/* What multiplies a weight: int8 dot products; BF16 ones where the CPU has them, for weights whose
   codes are exact in BF16; float. */
enum model_math { MODEL_MATH_INT8, MODEL_MATH_BF16, MODEL_MATH_F32, MODEL_MATH_COUNT };

/* Multiply-adds for one token (of experts, the chosen ones), and what routed experts take. */
struct model_counts {
    uint64_t layer_macs[MODEL_MATH_COUNT], head_macs[MODEL_MATH_COUNT]; /* all but the head; it */
    uint64_t expert_bytes;                                              /* all routed experts */
};

/* Reads and checks hyperparameters and every tensor's presence, type and shape; loads nothing. */
int model_check(const struct source *src, struct model_config *out, struct err *e);

/*
 * Loads weights into the kernels' layout, tensor by tensor, with the whole team. cfg is what
 * model_check found in `src`, which must outlive the model (embedding rows and weights that are not
 * packed are read in place). `o` may be NULL: everything packed.
 */
int model_load(struct model **out, const struct source *src, const struct model_config *cfg,
               struct op_ctx *c, const struct model_load_opts *o, struct err *e);
void model_free(struct model *m);

/*
 * With `later`: model_pass before each forward pass over `tokens` tokens says that it may pack its
 * share of the weights (the first one nothing: it computes from the file), and model_sound after it
 * whether what it read was sound; ERR_FORMAT means that its results are void. model_settle packs
 * and checks all that is left.
 */
void model_pass(struct model *m, size_t tokens);
int model_sound(const struct model *m, struct err *e);
int model_settle(struct model *m, const struct op_ctx *c, struct err *e);

const struct model_config *model_config(const struct model *m);
uint64_t model_params(const struct model *m);
uint64_t model_weight_bytes(const struct model *m); /* packed, in memory or mapped */
uint64_t model_mapped_bytes(const struct model *m); /* left in the files, read when used */
uint64_t model_token_bytes(const struct model *m);  /* read for one token */
const struct model_counts *model_counts(const struct model *m);
void model_kv_shape(const struct model *m, struct kv_shape *out);

/*
 * The name that GGUF files give a matrix of this model, whatever files it came from ("blk.0.
 * attn_q.weight"): into out, false when `w` is none of its matrices. A tied head is the embedding.
 * Experts and heads that lie in one tensor there have their number in *index, others 0.
 */
bool model_gguf_name(const struct model *m, const struct weight *w, char *out, size_t cap,
                     size_t *index);

/* One weight of a model for who trains it, or reads and writes all of them. */
struct model_param {
    struct weight *weight;
    const struct weight *same; /* a weight told before whose values it shares: the embedding of a
                                  tied head, and those of the top that the MTP layer uses; NULL */
    bool steers;               /* a router's bias: moved by counts of tokens, has no gradient */
    char name[160];            /* of the Hugging Face tensor that it is, or is a part of */
    size_t rows, cols;         /* of that tensor; a vector has rows = 0 */
    size_t row0;               /* where the part begins */
    bool transposed;           /* its columns are the tensor's rows */
    size_t turn;               /* heads of so many rows are in the other order of the rotation */
    const struct model_tensor *row; /* of the tables; layer SIZE_MAX: of the top */
    size_t layer, index;            /* index: of an expert or head */
};

/*
 * Calls fn for every weight of a model, in an order that depends on its shape alone: top, then
 * layer by layer. Parts of one tensor (the heads of kv_b_proj) follow one another. Stops when fn
 * gives something other than 0, and returns that.
 *
 * A weight of a model loaded with `train` is trained when fn sets weight->param, whose value is
 * weight->own, of weight_values(weight). One with `same` values may share the other's param; with a
 * gradient of its own (to be added to the other's) the sum does not depend on how batches were cut.
 */
int model_params_each(struct model *m, int (*fn)(void *arg, const struct model_param *p),
                      void *arg);

/* Of a model loaded with `bf16`, after its values have changed: rounds the copies anew. */
void model_refresh(struct model *m, const struct op_ctx *c);

/* Of a model loaded with `adapt`, after its matrices have changed; and, once gradients of a whole
 * batch are there, before they are read. They do nothing where no module lies in parts. */
void model_lora_merge(struct model *m, struct op_ctx *c);
void model_lora_back(struct model *m, struct op_ctx *c);

/* Values laid out as the parameter's (panels or a vector) to and from their place in the whole
 * tensor, row by row. */
void model_param_to_rows(const struct model_param *p, const float *values, float *tensor);
void model_param_from_rows(const struct model_param *p, const float *tensor, float *values);

/*
 * Tokens of a run from which latent attention takes the expanded form (mla_expanded), which needs
 * other memory than the absorbed one: who plans by dry runs looks at both sides of it.
 */
enum { MODEL_EXPAND = 64 };

/*
 * The forward pass over a batch: logits (F32) of the tokens that batch->want marks, in order, one
 * row each. KV of all tokens is written into their sequences. With c->dry set nothing is computed:
 * it only measures memory.
 */
struct tensor model_forward(struct model *m, struct op_ctx *c, const struct batch *b);

/* The same without the head: states after the last norm (n_want, d_model), for losses over rows
 * (tensor/loss.h); and the head, (n_vocab, d_model). */
struct tensor model_states(struct model *m, struct op_ctx *c, const struct batch *b);
const struct weight *model_head(const struct model *m);

/*
 * The multi-token prediction layer over a batch (the model was loaded with `mtp`): row i has the id
 * of token pos + 1 and the main model's hidden state of token pos (batch->hidden of a forward
 * pass); the logits predict token pos + 2. Keeps KV of its own in the same pages.
 */
struct tensor model_forward_mtp(struct model *m, struct op_ctx *c, const struct batch *b,
                                const float *hidden);

/* The same without its head, from states as a tensor (b->n, d_model) that a tape knows: rows of
 * what model_states gave. */
struct tensor model_states_mtp(struct model *m, struct op_ctx *c, const struct batch *b,
                               struct tensor hidden);
const struct weight *model_head_mtp(const struct model *m);

#endif
