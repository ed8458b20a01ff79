/*
 * Weights by name: from rows of the tables (arch.h) to rows of tensors in a source, checked.
 *
 * One tensor may hold many weights (the experts of a layer, the heads of kv_b_proj) and one weight
 * may be spelled in several ways; a view says where it is after all that.
 */
#include "model/arch.h"

#include "base/num.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

size_t model_dim(const struct model_config *f, enum model_dim d)
{
    const size_t size[] = {
        [DIM_ONE] = 1,
        [DIM_MODEL] = f->d_model,
        [DIM_Q] = f->n_head * f->d_head,
        [DIM_KV] = f->n_kv_head * f->d_head,
        [DIM_O] = f->n_head * f->d_v,
        [DIM_HEAD] = f->d_head,
        [DIM_FF] = f->d_ff,
        [DIM_VOCAB] = f->n_vocab,
        [DIM_Q_LORA] = f->q_lora,
        [DIM_KV_LORA] = f->kv_lora,
        [DIM_LATENT] = f->kv_lora + f->d_rope,
        [DIM_NOPE] = f->d_nope,
        [DIM_V] = f->d_v,
        [DIM_EXPERTS] = f->n_expert,
        [DIM_FF_EXPERT] = f->d_ff_expert,
        [DIM_FF_SHARED] = f->n_shared * f->d_ff_expert,
        [DIM_TWICE] = 2 * f->d_model,
    };
    return size[d];
}

bool model_has(const struct model_config *f, const struct model_tensor *row, size_t layer)
{
    bool experts = layer >= f->n_dense;
    switch (row->when) {
    case WHEN_ALWAYS:
        return true;
    case WHEN_DENSE:
        return !experts;
    case WHEN_EXPERTS:
        return experts;
    case WHEN_SHARED:
        return experts && f->n_shared;
    case WHEN_BIAS:
        return experts && f->router_bias;
    case WHEN_Q_LORA:
        return f->q_lora != 0;
    case WHEN_NO_Q_LORA:
        return f->q_lora == 0;
    case WHEN_EXPANDED:
        return f->mla_expanded;
    case WHEN_MTP:
        return layer >= f->n_layer;
    }
    return false;
}

size_t model_count(const struct model_config *f, const struct model_tensor *row)
{
    return row->flags & TENSOR_EXPERTS ? f->n_expert : row->flags & TENSOR_HEADS ? f->n_head : 1;
}

/* ---- names ------------------------------------------------------------------------------------
 */

bool model_name_next(struct model_name *out, const char **s, size_t layer, size_t index)
{
    static const struct {
        const char *suffix;
        enum model_part part;
    } parts[] = {{"#0/2", PART_FIRST}, {"#1/2", PART_SECOND}, {"#kt", PART_KT},
                 {"#k", PART_K},       {"#v", PART_V},        {"#t", PART_T}};
    const char *p = *s, *end = strchr(p, '|');
    size_t at = 0, holes = 0;
    if (!end)
        end = p + strlen(p);
    *s = *end ? end + 1 : end;
    out->part = PART_ALL;
    while (p < end && *p != '#') {
        if (end - p >= 3 && !memcmp(p, "%zu", 3)) {
            at += (size_t)snprintf(out->text + at, sizeof out->text - at, "%zu",
                                   holes++ ? index : layer);
            p += 3;
        } else if (at + 1 < sizeof out->text) {
            out->text[at++] = *p++;
        } else {
            return false;
        }
        if (at >= sizeof out->text)
            return false;
    }
    out->text[at] = 0;
    out->each = holes > 1;
    for (size_t i = 0; p < end && i < NUM_COUNT(parts); i++)
        if ((size_t)(end - p) == strlen(parts[i].suffix) &&
            !memcmp(p, parts[i].suffix, (size_t)(end - p)))
            out->part = parts[i].part;
    return true;
}

bool model_tensor_name(char *out, size_t n, const struct model_tensor *row, bool gguf, size_t layer,
                       size_t index)
{
    struct model_name name;
    const char *s = gguf ? row->gguf : row->hf;
    if (!model_name_next(&name, &s, layer, index) || strlen(name.text) >= n)
        return false;
    memcpy(out, name.text, strlen(name.text) + 1);
    return true;
}

/* ---- shapes -----------------------------------------------------------------------------------
 */

static int bind_shape_error(const struct source_tensor *t, size_t count, size_t rows, size_t cols,
                            struct err *e)
{
    char got[96];
    int at = 0;
    got[0] = 0;
    for (int d = 0; d < t->dims && at < 80; d++)
        at +=
            snprintf(got + at, sizeof got - (size_t)at, "%s%" PRIu64, d ? " x " : "", t->shape[d]);
    if (rows == 1 && count == 1)
        return err_set(e, ERR_FORMAT, "tensor \"%s\" has shape %s, want %zu", t->name, got, cols);
    if (count == 1)
        return err_set(e, ERR_FORMAT, "tensor \"%s\" has shape %s, want %zu x %zu", t->name, got,
                       rows, cols);
    return err_set(e, ERR_FORMAT, "tensor \"%s\" has shape %s, want %zu x %zu x %zu", t->name, got,
                   count, rows, cols);
}

/* A tensor of `count` matrices of rows × cols: as that many, or as one of count × rows rows. */
static bool bind_shape_is(const struct source_tensor *t, size_t count, size_t rows, size_t cols)
{
    if (t->dims == 3)
        return t->shape[0] == count && t->shape[1] == rows && t->shape[2] == cols;
    size_t all;
    return t->dims == 2 && num_mul(&all, count, rows) && t->shape[0] == all && t->shape[1] == cols;
}

static int bind_view(struct model_view *out, const struct source_tensor *t,
                     const struct model_name *name, const struct model_config *f,
                     const struct model_tensor *row, size_t index, struct err *e)
{
    size_t rows = model_dim(f, row->rows), cols = model_dim(f, row->cols);
    size_t count = name->each ? 1 : model_count(f, row);
    bool vector = row->rows == DIM_ONE;
    *out = (struct model_view){.t = t, .rows = rows, .cols = cols};
    if (!t->type)
        return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\" has a type that weights cannot have (%s)",
                       t->name, t->dtype);
    if (vector) {
        if (t->dims != 1 || t->shape[0] != cols)
            return bind_shape_error(t, 1, 1, cols, e);
        if (t->type->block != 1)
            return err_set(e, ERR_UNSUPPORTED,
                           "tensor \"%s\": a vector of type %s is not supported", t->name,
                           t->type->name);
        return 0;
    }
    size_t tall = rows, wide = cols; /* of one matrix in the tensor */
    if (name->part == PART_FIRST || name->part == PART_SECOND)
        tall = 2 * rows;
    else if (name->part == PART_T)
        tall = cols, wide = rows;
    else if (name->part >= PART_K)
        tall = f->d_nope + f->d_v, wide = f->kv_lora;
    if (name->each || count == 1 ? t->dims != 2 || !bind_shape_is(t, 1, tall, wide)
                                 : !bind_shape_is(t, count, tall, wide))
        return bind_shape_error(t, count, tall, wide, e);
    out->row0 = name->each ? 0 : (uint64_t)index * tall;
    if (name->part == PART_SECOND)
        out->row0 += rows;
    else if (name->part == PART_V)
        out->row0 += f->d_nope;
    out->transposed = name->part == PART_K || name->part == PART_T;
    return 0;
}

int model_view_find(struct model_view *out, const struct source *src, const struct model_config *f,
                    const struct model_tensor *row, size_t layer, size_t index, struct err *e)
{
    struct model_name name = {.text = ""}, first = {.text = ""};
    const char *s = source_kind(src) == SOURCE_GGUF ? row->gguf : row->hf;
    *out = (struct model_view){.t = NULL};
    while (*s) {
        if (!model_name_next(&name, &s, layer, index))
            return err_set(e, ERR_LIMIT, "the name of a tensor of layer %zu is too long", layer);
        if (!first.text[0])
            first = name;
        const struct source_tensor *t = source_tensor(src, name.text);
        if (t)
            return bind_view(out, t, &name, f, row, index, e);
    }
    if ((row->flags & TENSOR_OPTIONAL) || ((row->flags & TENSOR_HEAD) && f->tied))
        return 0;
    return err_set(e, ERR_FORMAT,
                   "tensor \"%s\" is missing: the file is not whole, or not a %s model", first.text,
                   f->arch->name);
}

/* ---- all of a model ---------------------------------------------------------------------------
 */

int model_walk(const struct source *src, const struct model_config *f, bool mtp,
               int (*fn)(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                         const struct model_view *v, struct err *e),
               void *arg, struct err *e)
{
    struct model_view v;
    int rc = 0;
    for (size_t i = 0; i < model_top_group.n && !rc; i++) {
        rc = model_view_find(&v, src, f, &model_top_group.row[i], 0, 0, e);
        if (!rc && v.t)
            rc = fn(arg, &model_top_group.row[i], SIZE_MAX, 0, &v, e);
    }
    for (size_t l = 0; l < f->n_layer + (mtp ? f->n_mtp : 0) && !rc; l++)
        for (const struct model_group *const *g = f->arch->groups; *g && !rc; g++)
            for (size_t i = 0; i < (*g)->n && !rc; i++) {
                const struct model_tensor *row = &(*g)->row[i];
                size_t n = model_has(f, row, l) ? model_count(f, row) : 0;
                for (size_t k = 0; k < n && !rc; k++) {
                    rc = model_view_find(&v, src, f, row, l, k, e);
                    if (!rc && v.t)
                        rc = fn(arg, row, l, k, &v, e);
                }
            }
    return rc;
}
