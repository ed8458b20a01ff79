/*
 * What an architecture says about itself: private to model/.
 *
 * A row of arch.def names one `struct model_arch`. Its tensors are a table: where a weight goes in
 * the architecture's struct of one layer (or of the whole model), how it is called in GGUF and in
 * Hugging Face files, and its shape in terms of the configuration. Checking, loading and listing
 * follow from the table.
 */
#ifndef PONDER_MODEL_ARCH_H
#define PONDER_MODEL_ARCH_H

#include "model/model.h"

enum model_dim { DIM_ONE, DIM_MODEL, DIM_Q, DIM_KV, DIM_HEAD, DIM_FF, DIM_VOCAB };

enum model_tensor_flags {
    TENSOR_OPTIONAL = 1, /* may be missing */
    TENSOR_HEAD = 2,     /* may be missing when the head is tied to the embedding */
    TENSOR_LOOKUP = 4,   /* read row by row: not packed, unless it is the tied head */
};

struct model_tensor {
    size_t offset;             /* of the struct weight in the layer or model struct */
    const char *gguf, *hf;     /* names; %zu stands for the layer */
    enum model_dim rows, cols; /* rows = DIM_ONE: a vector of cols */
    unsigned flags;
};

/* Weights outside the layers, the same for all architectures so far. */
struct model_top {
    struct weight embed, norm, head;
};

struct model_arch {
    const char *name;                 /* general.architecture of GGUF files */
    const char *hf;                   /* model_type of config.json */
    const struct model_tensor *layer; /* tensors of a layer */
    size_t n_layer_tensors;
    size_t layer_size;   /* sizeof the struct of a layer */
    bool gguf_rope_half; /* order of rotated rows in GGUF files; Hugging Face's is always half */
    struct tensor (*forward)(struct model *m, struct op_ctx *c, const struct batch *b);
};

extern const struct model_tensor model_top_tensors[];
enum { MODEL_TOP_TENSORS = 3 };

struct model {
    struct model_config cfg;
    const struct source *src;
    struct model_top top;
    uint8_t *layers; /* n_layer structs of arch->layer_size */
    double *rope;    /* (d_rope / 2) angles per position */
    struct weight_store store;
    uint64_t params, packed_bytes, layer_macs, head_macs, layer_bytes, head_bytes;
};

/* The row for a source; an error names the architecture and lists the known ones. */
const struct model_arch *model_arch_find(const struct source *src, struct err *e);

/* Reads and checks the hyperparameters (model/config.c). */
int model_config_read(struct model_config *cfg, const struct source *src, struct err *e);

/* The size that a table's dimension stands for. */
size_t model_dim(const struct model_config *cfg, enum model_dim d);

/* The weight's tensor, checked for type and shape. *t = NULL when it is missing and may be. */
int model_tensor_find(const struct source_tensor **t, const struct source *src,
                      const struct model_config *cfg, const struct model_tensor *row, size_t layer,
                      struct err *e);

/* Angles per position with the model's scaling (model/rope.c); out: d_rope / 2 values. */
int model_rope_freqs(double *out, const struct model_config *cfg, const struct source *src,
                     struct err *e);

#endif
