/*
 * Models: binding tensors by name and shape, loading them, the facts of a loaded model.
 *
 * Checking and loading walk the same tables (arch.h), so what is inspected is what is loaded.
 */
#include "model/arch.h"

#include "base/num.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// clang-format off
const struct model_tensor model_top_tensors[] = {
    {offsetof(struct model_top, embed), "token_embd.weight",  "model.embed_tokens.weight", DIM_VOCAB, DIM_MODEL, TENSOR_LOOKUP},
    {offsetof(struct model_top, norm),  "output_norm.weight", "model.norm.weight",         DIM_ONE, DIM_MODEL, 0},
    {offsetof(struct model_top, head),  "output.weight",      "lm_head.weight",            DIM_VOCAB, DIM_MODEL, TENSOR_HEAD},
};
// clang-format on

size_t model_dim(const struct model_config *f, enum model_dim d)
{
    switch (d) {
    case DIM_ONE:
        return 1;
    case DIM_MODEL:
        return f->d_model;
    case DIM_Q:
        return f->n_head * f->d_head;
    case DIM_KV:
        return f->n_kv_head * f->d_head;
    case DIM_HEAD:
        return f->d_head;
    case DIM_FF:
        return f->d_ff;
    case DIM_VOCAB:
        return f->n_vocab;
    }
    return 0;
}

/* A name of a table, its hole filled with the layer. */
static void model_name(char *out, size_t cap, const char *fmt, size_t layer)
{
    const char *hole = strstr(fmt, "%zu");
    if (hole)
        snprintf(out, cap, "%.*s%zu%s", (int)(hole - fmt), fmt, layer, hole + 3);
    else
        snprintf(out, cap, "%s", fmt);
}

int model_tensor_find(const struct source_tensor **out, const struct source *src,
                      const struct model_config *cfg, const struct model_tensor *row, size_t layer,
                      struct err *e)
{
    char name[128];
    model_name(name, sizeof name, source_kind(src) == SOURCE_GGUF ? row->gguf : row->hf, layer);
    const struct source_tensor *t = *out = source_tensor(src, name);
    if (!t && ((row->flags & TENSOR_OPTIONAL) || ((row->flags & TENSOR_HEAD) && cfg->tied)))
        return 0;
    if (!t)
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\" is missing: the file is not whole, or not a %s model", name,
                       cfg->arch->name);
    size_t rows = model_dim(cfg, row->rows), cols = model_dim(cfg, row->cols);
    bool vector = row->rows == DIM_ONE;
    if (!t->type)
        return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\" has a type that weights cannot have",
                       name);
    if (vector ? t->dims != 1 || t->shape[0] != cols
               : t->dims != 2 || t->shape[0] != rows || t->shape[1] != cols) {
        char got[96];
        int at = 0;
        for (int d = 0; d < t->dims && at < 80; d++)
            at += snprintf(got + at, sizeof got - (size_t)at, "%s%" PRIu64, d ? " x " : "",
                           t->shape[d]);
        if (vector)
            return err_set(e, ERR_FORMAT, "tensor \"%s\" has shape %s, want %zu", name, got, cols);
        return err_set(e, ERR_FORMAT, "tensor \"%s\" has shape %s, want %zu x %zu", name, got, rows,
                       cols);
    }
    if (!t->data && t->bytes)
        return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\" is %s, which is not supported here", name,
                       t->dtype);
    if (vector && t->type->block != 1)
        return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\": a vector of type %s is not supported",
                       name, t->type->name);
    return 0;
}

/* Calls fn for every tensor that the model has, in file-independent order: top, then layers. */
static int model_walk(const struct source *src, const struct model_config *cfg,
                      int (*fn)(void *arg, const struct model_tensor *row, size_t layer,
                                const struct source_tensor *t, struct err *e),
                      void *arg, struct err *e)
{
    const struct source_tensor *t;
    int rc = 0;
    for (size_t i = 0; i < MODEL_TOP_TENSORS && !rc; i++) {
        rc = model_tensor_find(&t, src, cfg, &model_top_tensors[i], 0, e);
        if (!rc && t)
            rc = fn(arg, &model_top_tensors[i], SIZE_MAX, t, e);
    }
    for (size_t l = 0; l < cfg->n_layer && !rc; l++)
        for (size_t i = 0; i < cfg->arch->n_layer_tensors && !rc; i++) {
            const struct model_tensor *row = &cfg->arch->layer[i];
            rc = model_tensor_find(&t, src, cfg, row, l, e);
            if (!rc && t)
                rc = fn(arg, row, l, t, e);
        }
    return rc;
}

/* The head is the embedding when the file has none of its own (or says so). */
static int model_tied(struct model_config *cfg, const struct source *src, struct err *e)
{
    const struct model_tensor *head = &model_top_tensors[2];
    bool gguf = source_kind(src) == SOURCE_GGUF;
    bool there = source_tensor(src, gguf ? head->gguf : head->hf) != NULL;
    const struct source_value *v = gguf ? NULL : source_value(src, "tie_word_embeddings");
    if (v && v->type != SOURCE_BOOL)
        return err_set(e, ERR_FORMAT, "tie_word_embeddings is not true or false");
    cfg->tied = gguf ? !there : v && v->b;
    return 0;
}

static int check_one(void *arg, const struct model_tensor *row, size_t layer,
                     const struct source_tensor *t, struct err *e)
{
    (void)arg, (void)row, (void)layer, (void)t, (void)e;
    return 0;
}

int model_check(const struct source *src, struct model_config *out, struct err *e)
{
    int rc = model_config_read(out, src, e);
    if (!rc)
        rc = model_tied(out, src, e);
    return rc ? rc : model_walk(src, out, check_one, NULL, e);
}

/* ---- loading -----------------------------------------------------------------------------------
 */

struct load {
    struct model *m;
    struct op_ctx *c;
    size_t store_bytes;
    uint64_t done, total;
    void (*progress)(void *arg, uint64_t done, uint64_t total);
    void *progress_arg;
};

/* A matrix that is only looked up row by row needs no panels, unless it is the head as well. */
static bool load_packs(const struct load *l, const struct model_tensor *row)
{
    return row->rows != DIM_ONE && (!(row->flags & TENSOR_LOOKUP) || l->m->cfg.tied);
}

static int load_size(void *arg, const struct model_tensor *row, size_t layer,
                     const struct source_tensor *t, struct err *e)
{
    struct load *l = arg;
    size_t n = row->rows == DIM_ONE ? weight_vector_bytes((size_t)t->shape[0])
               : load_packs(l, row) ? weight_matrix_bytes(l->c->kern, t->type, (size_t)t->shape[0],
                                                          (size_t)t->shape[1])
                                    : 0;
    (void)layer;
    l->total += t->bytes;
    if (!num_add(&l->store_bytes, l->store_bytes, n))
        return err_set(e, ERR_LIMIT, "the weights do not fit into memory");
    return 0;
}

static int load_one(void *arg, const struct model_tensor *row, size_t layer,
                    const struct source_tensor *t, struct err *e)
{
    struct load *l = arg;
    struct model *m = l->m;
    uint8_t *base =
        layer == SIZE_MAX ? (uint8_t *)&m->top : m->layers + layer * m->cfg.arch->layer_size;
    struct weight *w = (struct weight *)(void *)(base + row->offset);
    size_t rows = row->rows == DIM_ONE ? 1 : (size_t)t->shape[0];
    size_t cols = (size_t)t->shape[row->rows == DIM_ONE ? 0 : 1];
    struct weight_rows from = {.at = t->data};
    int rc = 0;
    m->params += (uint64_t)rows * cols;
    if (row->rows == DIM_ONE)
        rc = weight_vector(w, t->name, t->type, cols, &from, &m->store, e);
    else if (load_packs(l, row))
        rc = weight_matrix(w, t->name, t->type, rows, cols, &from, l->c->kern, l->c->team,
                           &m->store, e);
    else
        rc = weight_matrix(w, t->name, t->type, rows, cols, &from, l->c->kern, l->c->team, NULL, e);
    if (rc)
        return rc;
    if (w->panels)
        source_tensor_drop(m->src, t);
    if (row->rows != DIM_ONE && layer != SIZE_MAX) {
        m->layer_macs += (uint64_t)rows * cols;
        m->layer_bytes += t->bytes;
    } else if (load_packs(l, row)) {
        m->head_macs = (uint64_t)rows * cols;
        m->head_bytes = t->bytes;
    }
    l->done += t->bytes;
    if (l->progress)
        l->progress(l->progress_arg, l->done, l->total);
    return 0;
}

int model_load(struct model **out, const struct source *src, const struct model_config *cfg,
               struct op_ctx *c, void (*progress)(void *arg, uint64_t done, uint64_t total),
               void *arg, struct err *e)
{
    *out = NULL;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "the model");
    struct load l = {.m = m, .c = c, .progress = progress, .progress_arg = arg};
    int rc = 0;
    m->src = src;
    m->cfg = *cfg;
    m->layers = calloc(m->cfg.n_layer, m->cfg.arch->layer_size);
    m->rope = calloc(m->cfg.d_rope / 2, sizeof *m->rope);
    if (!m->layers || !m->rope) {
        rc = err_nomem(e, m->cfg.n_layer * m->cfg.arch->layer_size, "the model");
        goto out;
    }
    if ((rc = model_rope_freqs(m->rope, &m->cfg, src, e)) ||
        (rc = model_walk(src, &m->cfg, load_size, &l, e)) ||
        (rc = weight_store_init(&m->store, l.store_bytes, e)) ||
        (rc = model_walk(src, &m->cfg, load_one, &l, e)))
        goto out;
    if (m->cfg.tied)
        m->top.head = m->top.embed;
    *out = m;
    m = NULL;
out:
    model_free(m);
    return rc;
}

void model_free(struct model *m)
{
    if (!m)
        return;
    weight_store_release(&m->store);
    free(m->layers);
    free(m->rope);
    free(m);
}

/* ---- facts --------------------------------------------------------------------------------------
 */

const struct model_config *model_config(const struct model *m)
{
    return &m->cfg;
}

uint64_t model_params(const struct model *m)
{
    return m->params;
}

uint64_t model_weight_bytes(const struct model *m)
{
    return m->store.used;
}

uint64_t model_token_bytes(const struct model *m)
{
    return m->layer_bytes + m->head_bytes;
}

void model_macs(const struct model *m, uint64_t *layers, uint64_t *head)
{
    *layers = m->layer_macs;
    *head = m->head_macs;
}

void model_kv_shape(const struct model *m, struct kv_shape *out)
{
    *out = (struct kv_shape){.n_layer = m->cfg.n_layer,
                             .n_kv_head = m->cfg.n_kv_head,
                             .d_k = m->cfg.d_head,
                             .d_v = m->cfg.d_head,
                             .type = QUANT_F16};
}

bool model_gguf_name(const struct model *m, const struct weight *w, char *out, size_t cap)
{
    const struct model_arch *a = m->cfg.arch;
    const struct model_tensor *rows = model_top_tensors;
    uintptr_t at = (uintptr_t)w, top = (uintptr_t)&m->top, layers = (uintptr_t)m->layers;
    size_t n = MODEL_TOP_TENSORS, layer = 0, offset = 0;
    if (w == &m->top.head && m->cfg.tied) {
        offset = offsetof(struct model_top, embed);
    } else if (at >= top && at < top + sizeof m->top) {
        offset = at - top;
    } else if (at >= layers && at < layers + m->cfg.n_layer * a->layer_size) {
        layer = (at - layers) / a->layer_size;
        offset = (at - layers) % a->layer_size;
        rows = a->layer;
        n = a->n_layer_tensors;
    } else {
        return false;
    }
    for (size_t i = 0; i < n; i++)
        if (rows[i].offset == offset) {
            model_name(out, cap, rows[i].gguf, layer);
            return true;
        }
    return false;
}

struct tensor model_forward(struct model *m, struct op_ctx *c, const struct batch *b)
{
    return m->cfg.arch->forward(m, c, b);
}
