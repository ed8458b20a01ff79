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
#include "format/source.h"
#include "tensor/kv.h"
#include "tensor/ops.h"

enum model_rope_scaling { ROPE_NONE, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN };

struct model_config {
    const struct model_arch *arch; /* row of arch.def; name: model_arch_name */
    size_t n_layer;
    size_t d_model; /* width of the residual stream */
    size_t n_head, n_kv_head;
    size_t d_head;  /* of q and k (and v here) */
    size_t d_ff;    /* width of the feed-forward part */
    size_t n_vocab; /* rows of the embedding */
    size_t ctx_train;
    double rms_eps;
    bool tied;      /* the head is the embedding */
    bool rope_half; /* pairs (i, i + d/2), else (2i, 2i + 1): how the file's rows are ordered */
    size_t d_rope;  /* rotated values of a head (d_head here) */
    double rope_theta;
    enum model_rope_scaling rope_scaling;
    double rope_factor, rope_low, rope_high, rope_ctx; /* llama3, linear and yarn parameters */
    double rope_beta_fast, rope_beta_slow;             /* yarn */
    float attn_scale;        /* of the attention scores: 1 / sqrt(d_head) */
    double rope_attn_factor; /* on cos and sin: yarn's magnitude correction, 1 otherwise */
};

struct model;
struct model_arch;

/* "llama", "qwen2", …: the name of an architecture's row. */
const char *model_arch_name(const struct model_arch *a);

/* Reads and checks hyperparameters and every tensor's presence, type and shape; loads nothing. */
int model_check(const struct source *src, struct model_config *out, struct err *e);

/*
 * Loads weights into the kernels' layout, tensor by tensor, with the whole team. `cfg` is what
 * model_check found in `src`, which must outlive the model (embedding rows are read in place).
 * progress may be NULL.
 */
int model_load(struct model **out, const struct source *src, const struct model_config *cfg,
               struct op_ctx *c, void (*progress)(void *arg, uint64_t done, uint64_t total),
               void *arg, struct err *e);
void model_free(struct model *m);

const struct model_config *model_config(const struct model *m);
uint64_t model_params(const struct model *m);
uint64_t model_weight_bytes(const struct model *m);
uint64_t model_token_bytes(const struct model *m);
void model_macs(const struct model *m, uint64_t *layers, uint64_t *head);
void model_kv_shape(const struct model *m, struct kv_shape *out);

/*
 * The name that GGUF files give a matrix of this model, whatever files it came from ("blk.0.
 * attn_q.weight"): into out, false when `w` is none of its matrices. A tied head is the embedding.
 */
bool model_gguf_name(const struct model *m, const struct weight *w, char *out, size_t cap);

/*
 * The forward pass over a batch: logits (F32) of the tokens that batch->want marks, in order, one
 * row each. KV of all tokens is written into their sequences. With c->dry set nothing is computed:
 * it only measures memory.
 */
struct tensor model_forward(struct model *m, struct op_ctx *c, const struct batch *b);

#endif
