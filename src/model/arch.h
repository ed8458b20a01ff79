/*
 * What an architecture says about itself: for model/, and for convert/ which translates names.
 *
 * All architectures are pre-norm decoders (decoder.c): a block is norm, attention, norm,
 * feed-forward part. They differ in the attention (gqa.c, mla.c), in the feed-forward part (ffn.c:
 * dense or experts) and in names. A row of arch.def names one `struct model_arch`; it lists groups
 * of tensors. A group is a table: where a weight goes in struct model_block, how it is called in
 * GGUF and in Hugging Face files, its shape in terms of the configuration, and which layers have
 * it. Checking, loading, listing and converting follow from the tables.
 *
 * A name may have alternatives, separated by '|'; the first is the one that ponder writes. %zu
 * stands for the layer, a second one for the expert. A name without a second %zu, of a weight that
 * every expert (or head) has, is one tensor with the experts' matrices one after another. What
 * follows a '#' says which part of the tensor is meant:
 *
 *   #0/2, #1/2  the first or second half of the rows (of each expert): gate and up in one tensor
 *
 *   #k          of kv_b_proj, d_nope + d_v rows for each head: the first d_nope, transposed
 *
 *   #kt         the same, not transposed
 *
 *   #v          the last d_v rows of each head
 *
 *   #t          each head's matrix transposed
 */
#ifndef PONDER_MODEL_ARCH_H
#define PONDER_MODEL_ARCH_H

#include "base/arena.h"
#include "format/adapter.h"
#include "model/model.h"

enum model_dim {
    DIM_ONE,
    DIM_MODEL,
    DIM_Q,  /* n_head × d_head */
    DIM_KV, /* n_kv_head × d_head */
    DIM_O,  /* n_head × d_v */
    DIM_HEAD,
    DIM_FF,
    DIM_VOCAB,
    DIM_Q_LORA,
    DIM_KV_LORA,
    DIM_LATENT, /* kv_lora + d_rope */
    DIM_NOPE,
    DIM_V,
    DIM_EXPERTS,
    DIM_FF_EXPERT,
    DIM_FF_SHARED, /* n_shared × d_ff_expert */
    DIM_TWICE,     /* 2 × d_model */
};

enum model_tensor_flags {
    TENSOR_OPTIONAL = 1, /* may be missing */
    TENSOR_HEAD = 2,     /* may be missing when the head is tied to the embedding */
    TENSOR_LOOKUP = 4,   /* read row by row: not packed, unless it is the tied head */
    TENSOR_EXPERTS = 8,  /* the field points to n_expert weights */
    TENSOR_HEADS = 16,   /* the field points to n_head weights */
};

/* Which layers of which models have a tensor. */
enum model_when {
    WHEN_ALWAYS,
    WHEN_DENSE,   /* layers before n_dense */
    WHEN_EXPERTS, /* layers from n_dense on */
    WHEN_SHARED,  /* these, when there are shared experts */
    WHEN_BIAS,    /* these, when the router has a bias */
    WHEN_Q_LORA,
    WHEN_NO_Q_LORA,
    WHEN_EXPANDED, /* latent attention that also has the expanded form */
    WHEN_MTP,      /* layers from n_layer on */
};

struct model_tensor {
    size_t offset;             /* of the weight (or pointer) in struct model_block or model_top */
    const char *gguf, *hf;     /* names */
    enum model_dim rows, cols; /* rows = DIM_ONE: a vector of cols */
    unsigned flags;
    enum model_when when;
};

struct model_group {
    const struct model_tensor *row;
    size_t n;
};

/* Weights outside the blocks, the same for all architectures. */
struct model_top {
    struct weight embed, norm, head;
};

/* The weights of one block; what an architecture or a layer lacks is empty. */
struct model_block {
    struct weight attn_norm, ffn_norm; /* (d_model) */

    /* gqa.c */
    struct weight q, k, v, o; /* (heads × d_head, d_model); o: (d_model, n_head × d_v) */
    struct weight q_bias, k_bias, v_bias, o_bias;
    struct weight q_norm, k_norm; /* (d_head) */

    /* mla.c; q as above when there is no bottleneck */
    struct weight q_a, q_a_norm, q_b; /* (q_lora, d_model), (q_lora), (n_head × d_head, q_lora) */
    struct weight kv_a, kv_a_norm;    /* (kv_lora + d_rope, d_model), (kv_lora) */
    struct weight *k_b;               /* n_head × (kv_lora, d_nope) */
    struct weight *v_b;               /* n_head × (d_v, kv_lora) */
    struct weight *k_up;              /* n_head × (d_nope, kv_lora): k_b transposed */

    /* ffn.c */
    struct weight gate, up, down;                      /* (d_ff, d_model); (d_model, d_ff) */
    struct weight router, router_bias;                 /* (n_expert, d_model), (n_expert) */
    struct weight *gate_exps, *up_exps, *down_exps;    /* n_expert × (d_ff_expert, d_model) … */
    struct weight gate_shared, up_shared, down_shared; /* (n_shared × d_ff_expert, d_model) … */

    /* mtp.c */
    struct weight mtp_proj, mtp_embed_norm, mtp_hidden_norm; /* (d_model, 2 d_model), (d_model) */
    struct weight mtp_embed, mtp_norm, mtp_head;
};

#define BLOCK(field) offsetof(struct model_block, field)

struct model_arch {
    const char *name;                    /* general.architecture of GGUF files */
    const char *hf[3];                   /* model_types of config.json */
    const struct model_group *groups[6]; /* NULL-terminated */
    bool mla, moe;                       /* which hyperparameters it has */
    bool mtp;                            /* may have a prediction layer */
    bool gguf_rope_half;                 /* order of rotated rows in GGUF files */
    bool hf_rope_pairs;                  /* the same in Hugging Face files: half as a rule */
    /* x (n, d_model) → x + what its norm gives, (n, d_model) */
    struct tensor (*attention)(const struct model *m, struct op_ctx *c, const struct model_block *l,
                               size_t layer, struct tensor x, struct tensor rope,
                               const struct batch *b);
};

extern const struct model_group model_top_group; /* of struct model_top */
extern const struct model_group model_norm_group, model_gqa_group, model_mla_group, model_ffn_group,
    model_moe_group, model_mtp_group;
enum { MODEL_TOP_EMBED, MODEL_TOP_NORM, MODEL_TOP_HEAD }; /* rows of model_top_group */

struct model {
    struct model_config cfg;
    const struct source *src;
    struct model *base; /* whose weights most of these are, or NULL */
    struct model_top top;
    struct model_block *block; /* n_layer, and the MTP layer behind them when it is loaded */
    size_t n_block;
    double *rope; /* (d_rope / 2) angles per position */
    struct weight_store store, lora_store;
    struct model_lora *lora; /* modules that are trained (adapt.c); in the arena */
    size_t n_lora;
    struct arena arena; /* arrays of weights, and what makes rows of weights */
    uint64_t params, panel_bytes, mapped_bytes, layer_bytes, head_bytes;
    struct model_counts counts;
};

/* ---- forward (decoder.c, gqa.c, mla.c, ffn.c, mtp.c) ------------------------------------------
 */

struct tensor model_gqa(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, struct tensor rope, const struct batch *b);
struct tensor model_mla(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, struct tensor rope, const struct batch *b);
/* The same of the feed-forward part, dense or experts. */
struct tensor model_ffn(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, const struct batch *b);
/* One block: x (n, d_model) → (n, d_model). */
struct tensor model_block_forward(const struct model *m, struct op_ctx *c, size_t layer,
                                  struct tensor x, struct tensor rope, const struct batch *b);

/* ---- configuration (config.c, rope.c) ---------------------------------------------------------
 */

/* The row for a source; an error names the architecture and lists the known ones. */
const struct model_arch *model_arch_find(const struct source *src, struct err *e);

/* Reads and checks the hyperparameters. */
int model_config_read(struct model_config *cfg, const struct source *src, struct err *e);

/* The same and whether the head is the embedding; nothing about tensors. */
int model_config_check(const struct source *src, struct model_config *cfg, struct err *e);

/* A number of the configuration with its keys: GGUF's is put behind "ARCH.", a NULL key is one that
   the kind of files does not have. */
struct model_key {
    const char *gguf, *hf;
    bool real;
    double value;
};

/* All numbers that the architecture has, as they were read or derived; returns how many (at most
   MODEL_KEYS). Those of the rotation's scaling are left out where there is none. */
enum { MODEL_KEYS = 64 };
size_t model_config_keys(const struct model_config *cfg, struct model_key out[MODEL_KEYS]);

/* "linear", "yarn", …: as both kinds of files call it. */
const char *model_rope_scaling_name(enum model_rope_scaling s);

/* The size that a table's dimension stands for. */
size_t model_dim(const struct model_config *cfg, enum model_dim d);

/* Angles per position with the model's scaling; out: d_rope / 2 values. */
int model_rope_freqs(double *out, const struct model_config *cfg, const struct source *src,
                     struct err *e);

/* ---- tensors by name (bind.c) -----------------------------------------------------------------
 */

/* Where the values of one weight are: rows of a tensor. */
struct model_view {
    const struct source_tensor *t; /* NULL: missing, and may be */
    uint64_t row0;                 /* first row, over all leading dimensions of t */
    size_t rows, cols;             /* of the weight */
    bool transposed; /* its columns are the tensor's rows: cols of them, of rows values */
};

/* One spelling of a name. */
enum model_part { PART_ALL, PART_FIRST, PART_SECOND, PART_K, PART_KT, PART_V, PART_T };
struct model_name {
    char text[160];
    bool each; /* a tensor for each expert: the name has its number in it */
    enum model_part part;
};
/* Takes the alternative at *s, puts the numbers in, and moves *s behind it. False: too long. */
bool model_name_next(struct model_name *out, const char **s, size_t layer, size_t index);

/* True when a layer of the model has the tensor (layer: any for rows of model_top_group). */
bool model_has(const struct model_config *cfg, const struct model_tensor *row, size_t layer);
/* Weights behind one row: experts, heads or 1. */
size_t model_count(const struct model_config *cfg, const struct model_tensor *row);
/* Finds a weight and checks its tensor's type and shape. */
int model_view_find(struct model_view *out, const struct source *src,
                    const struct model_config *cfg, const struct model_tensor *row, size_t layer,
                    size_t index, struct err *e);
/* The name that ponder writes for a row: first alternative, with the layer (and the expert) put in.
 * `gguf` or Hugging Face. False when it is longer than n. */
bool model_tensor_name(char *out, size_t n, const struct model_tensor *row, bool gguf, size_t layer,
                       size_t index);

/* ---- adapters (lora.c) ------------------------------------------------------------------------
 */

/* What an adapter adds to one weight: scale × b a. */
struct lora_pair {
    size_t rank;  /* 0: nothing */
    float *a, *b; /* (rank, cols), (rows, rank) of the weight */
    float scale;
    size_t module; /* number of the adapter's module */
};
/* The rank that an adapter has for a weight; 0: it has nothing for it. */
size_t model_lora_rank(const struct adapter *a, const struct model_tensor *row, size_t layer,
                       size_t index);
/* Finds the module for a weight and makes its matrices, in the order of the weight's rows. */
int model_lora_pair(struct lora_pair *out, const struct adapter *a, const struct source *src,
                    const struct model_config *cfg, const struct model_tensor *row, size_t layer,
                    size_t index, const struct model_view *v, struct arena *arena, struct err *e);
/* The whole matrices of the module that a parameter is a part of, as the adapter has them. */
int model_lora_module(struct lora_pair *out, const struct adapter *a, const struct model_param *p,
                      struct arena *arena, struct err *e);
/* A module's matrices as they are; `module` stays. */
int model_lora_whole(struct lora_pair *out, const struct adapter_module *m, struct arena *arena,
                     struct err *e);
/* row (v->cols values of row r) += scale × b[r] a. */
void model_lora_add(const struct lora_pair *p, size_t r, float *row, size_t cols);

/* Rows of heads of d rows in the two orders of the rotation, pairs and halves: where row r of the
 * one order (pairs with `to_pairs`) is in the other. */
size_t model_turned_row(size_t r, size_t d, bool to_pairs);

/* What model_params_each tells of a model without an adapter that is trained. */
int model_weights_each(struct model *m, int (*fn)(void *arg, const struct model_param *p),
                       void *arg);

/* ---- adapters that are trained (adapt.c) ------------------------------------------------------
 */

struct model_lora;
/* True for weights that have to be F32 in memory because an adapter changes them. */
bool model_adapt_own(const struct model *m, const struct model_load_opts *o,
                     const struct model_tensor *row, size_t layer, size_t index);
/* Makes the modules of a loaded model; `used` marks those of o->adapter. */
int model_adapt_init(struct model *m, struct op_ctx *c, const struct model_load_opts *o, bool *used,
                     struct err *e);
int model_lora_each(struct model *m, int (*fn)(void *arg, const struct model_param *p), void *arg);

/* Gives the MTP layer weights of its own for those that it shares with the top (param.c). */
void model_share(struct model *m);

/* Calls fn for every weight that the model has: top, then layer by layer (with `mtp`, the MTP layer
 * too). Rows of the top have layer SIZE_MAX. Stops at the first error. */
int model_walk(const struct source *src, const struct model_config *cfg, bool mtp,
               int (*fn)(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                         const struct model_view *v, struct err *e),
               void *arg, struct err *e);

#endif
