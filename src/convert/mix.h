/*
 * Mixes: which weight type each tensor of a model gets for one `--type`.
 *
 * A mix is a default type and rules for the tensors that deserve more or fewer bits (rows of
 * mix.def). The names, their numbers in general.file_type and the choices are those of llama.cpp's
 * quantize program, so that files of both programs are alike; the r1-* mixes are this program's
 * own. Names of tensors are GGUF's.
 */
#ifndef PONDER_CONVERT_MIX_H
#define PONDER_CONVERT_MIX_H

#include "base/err.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mix {
    const char *name, *alias; /* alias: other spellings, separated by spaces, or NULL */
    uint32_t ftype;           /* general.file_type */
    enum quant_id type;       /* of matrices without a rule */
    const char *about;
};

/* By name or alias, letters of any case; NULL when unknown. */
const struct mix *mix_find(const char *name);
const struct mix *mix_all(size_t *n);

/* ERR_USAGE that names the nearest known ones. */
int mix_unknown(const char *name, struct err *e);

/* What the rules look at. */
struct mix_model {
    bool wide;       /* an 80-layer llama or qwen2: many heads share each attn_v */
    bool has_output; /* the head is a tensor of its own */
    bool imatrix;    /* importance is known */
    size_t n_layer, n_expert, n_head, n_kv_head;
    size_t n_attn_v; /* tensors of the kind attn_v */
};

struct mix_state {
    const struct mix *mix;
    struct mix_model model;
    size_t i_attn_v, i_down; /* how many there were so far */
};

/* What a tensor is. */
struct mix_tensor {
    const char *name;
    int dims;
    uint64_t cols, outer; /* length of a row; matrices of a 3-D tensor, 1 otherwise */
};

/* Whether a tensor is quantized at all: matrices called "…weight" that are no norm or router. */
bool mix_quantizes(const struct mix_tensor *t);

/*
 * The type of a tensor. Tensors have to come in the order that mix_before gives, because some rules
 * count. Not yet fitted to the row's length.
 */
const struct quant_type *mix_type(struct mix_state *s, const struct mix_tensor *t);
bool mix_is_attn_v(const char *name);

/* Blocks in ascending order, tensors outside of blocks first; by name within. */
int mix_order(const char *a, const char *b);

/* The type that stands in for one whose block does not divide the row; itself where it does. */
const struct quant_type *mix_fit(const struct quant_type *t, uint64_t cols);

/* Types so coarse that without importance the result is poor. */
bool mix_wants_imatrix(const struct mix *m, const struct quant_type *t);

#endif
