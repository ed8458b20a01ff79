/* Models: the check of a source, and the facts of a loaded model. */
#include "model/arch.h"

#include <string.h>

/* The head is the embedding when the file has none of its own (or says so). */
static int model_tied(struct model_config *cfg, const struct source *src, struct err *e)
{
    const struct model_tensor *head = &model_top_group.row[MODEL_TOP_HEAD];
    bool gguf = source_kind(src) == SOURCE_GGUF;
    bool there = source_tensor(src, gguf ? head->gguf : head->hf) != NULL;
    const struct source_value *v = gguf ? NULL : source_value(src, "tie_word_embeddings");
    if (v && v->type != SOURCE_BOOL)
        return err_set(e, ERR_FORMAT, "tie_word_embeddings is not true or false");
    cfg->tied = gguf ? !there : v && v->b;
    return 0;
}

static int check_one(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                     const struct model_view *v, struct err *e)
{
    (void)arg, (void)row, (void)layer, (void)index, (void)v, (void)e;
    return 0;
}

int model_config_check(const struct source *src, struct model_config *out, struct err *e)
{
    int rc = model_config_read(out, src, e);
    return rc ? rc : model_tied(out, src, e);
}

int model_check(const struct source *src, struct model_config *out, struct err *e)
{
    int rc = model_config_check(src, out, e);
    return rc ? rc : model_walk(src, out, true, check_one, NULL, e);
}

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
    return m->store.used + m->store.top + m->panel_bytes;
}

uint64_t model_mapped_bytes(const struct model *m)
{
    return m->mapped_bytes;
}

uint64_t model_token_bytes(const struct model *m)
{
    return m->layer_bytes + m->head_bytes;
}

const struct model_counts *model_counts(const struct model *m)
{
    return &m->counts;
}

void model_kv_shape(const struct model *m, struct kv_shape *out)
{
    const struct model_config *f = &m->cfg;
    *out = (struct kv_shape){.n_layer = m->n_block,
                             .n_kv_head = f->kv_lora ? 1 : f->n_kv_head,
                             .d_k = f->kv_lora ? f->kv_lora + f->d_rope : f->d_head,
                             .d_v = f->kv_lora ? f->kv_lora : f->d_v,
                             .latent = f->kv_lora != 0,
                             .type = QUANT_F16};
}

/* The row of the group whose field (or array of `n` weights behind it) holds `w`. */
static const struct model_tensor *model_row_of(const struct model *m, const struct model_group *g,
                                               const void *base, const struct weight *w,
                                               size_t *index)
{
    for (size_t i = 0; i < g->n; i++) {
        const struct model_tensor *row = &g->row[i];
        const char *field = (const char *)base + row->offset;
        const struct weight *first = (const struct weight *)(const void *)field;
        if (row->flags & (TENSOR_EXPERTS | TENSOR_HEADS))
            memcpy(&first, field, sizeof first);
        size_t n = model_count(&m->cfg, row);
        if (first && (uintptr_t)w >= (uintptr_t)first && (uintptr_t)w < (uintptr_t)(first + n)) {
            *index = (size_t)(w - first);
            return row;
        }
    }
    return NULL;
}

bool model_gguf_name(const struct model *m, const struct weight *w, char *out, size_t cap,
                     size_t *index)
{
    *index = 0;
    if (w == &m->top.head && m->cfg.tied)
        w = &m->top.embed;
    const struct model_tensor *row = model_row_of(m, &model_top_group, &m->top, w, index);
    if (row)
        return model_tensor_name(out, cap, row, true, 0, 0);
    for (size_t l = 0; l < m->n_block; l++)
        for (const struct model_group *const *g = m->cfg.arch->groups; *g; g++)
            if ((row = model_row_of(m, *g, &m->block[l], w, index)))
                return model_tensor_name(out, cap, row, true, l, *index);
    return false;
}
