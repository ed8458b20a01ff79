/*
 * The weights of a model one by one: for training, and for writing what was trained.
 *
 * Weights lie in memory as products read them; a Hugging Face folder has them row by row, some cut
 * otherwise: kv_b_proj is the heads' k_b (transposed) and v_b one after the other. A weight so
 * knows its place in a tensor of the folder. Names and shapes come from the architecture's tables.
 */
#include "model/arch.h"

#include <string.h>

void model_share(struct model *m)
{
    for (size_t l = m->cfg.n_layer; l < m->n_block; l++) {
        struct model_block *b = &m->block[l];
        if (!b->mtp_embed.cols)
            b->mtp_embed = m->top.embed;
        if (!b->mtp_norm.cols)
            b->mtp_norm = m->top.norm;
        if (!b->mtp_head.cols)
            b->mtp_head = m->top.head;
    }
}

/* The weight of the top, told before, that has the same memory. */
static const struct weight *param_same(const struct model *m, const struct weight *w)
{
    const struct weight *top[] = {&m->top.embed, &m->top.norm, &m->top.head};
    for (size_t i = 0; i < sizeof top / sizeof *top; i++)
        if (w != top[i] && w->own && w->own == top[i]->own)
            return w == &m->top.embed ? NULL : top[i];
    return NULL;
}

static bool param_turned(const struct model_config *f, const struct model_tensor *row, size_t layer)
{
    bool rotated = row->offset == BLOCK(q) || row->offset == BLOCK(k) ||
                   row->offset == BLOCK(q_bias) || row->offset == BLOCK(k_bias);
    return layer != SIZE_MAX && rotated && !f->arch->mla && !f->arch->hf_rope_pairs &&
           !f->rope_half;
}

static int param_one(struct model *m, const struct model_tensor *row, size_t layer, size_t index,
                     struct weight *w, int (*fn)(void *arg, const struct model_param *p), void *arg)
{
    const struct model_config *f = &m->cfg;
    struct model_param p = {.weight = w, .row = row, .layer = layer, .index = index};
    struct model_name name;
    const char *s = row->hf;
    if (!model_name_next(&name, &s, layer, index))
        return ERR_LIMIT;
    memcpy(p.name, name.text, sizeof p.name);
    p.same = param_same(m, w);
    p.steers = layer != SIZE_MAX && row->offset == BLOCK(router_bias);
    p.turn = param_turned(f, row, layer) ? f->d_head : 0;
    p.rows = row->rows == DIM_ONE ? 0 : w->rows;
    p.cols = w->cols;
    if (name.part == PART_K || name.part == PART_V) {
        size_t head = f->d_nope + f->d_v;
        p.rows = f->n_head * head;
        p.cols = f->kv_lora;
        p.row0 = index * head + (name.part == PART_V ? f->d_nope : 0);
        p.transposed = name.part == PART_K;
    }
    return fn(arg, &p);
}

static int param_group(struct model *m, const struct model_group *g, void *base, size_t layer,
                       int (*fn)(void *arg, const struct model_param *p), void *arg)
{
    int rc = 0;
    for (size_t i = 0; i < g->n && !rc; i++) {
        const struct model_tensor *row = &g->row[i];
        void *field = (char *)base + row->offset;
        struct weight *w = field;
        size_t n = 1;
        if (row->flags & (TENSOR_EXPERTS | TENSOR_HEADS)) {
            memcpy(&w, field, sizeof w);
            n = w ? model_count(&m->cfg, row) : 0;
        }
        for (size_t k = 0; k < n && !rc; k++)
            if (w[k].cols)
                rc = param_one(m, row, layer, k, &w[k], fn, arg);
    }
    return rc;
}

int model_weights_each(struct model *m, int (*fn)(void *arg, const struct model_param *p),
                       void *arg)
{
    int rc = param_group(m, &model_top_group, &m->top, SIZE_MAX, fn, arg);
    for (size_t l = 0; l < m->n_block && !rc; l++)
        for (const struct model_group *const *g = m->cfg.arch->groups; *g && !rc; g++)
            rc = param_group(m, *g, &m->block[l], l, fn, arg);
    return rc;
}

static int param_refresh(void *arg, const struct model_param *p)
{
    const struct op_ctx *c = arg;
    if (!p->same)
        weight_refresh(p->weight, c->kern, c->team);
    return 0;
}

void model_refresh(struct model *m, const struct op_ctx *c)
{
    model_weights_each(m, param_refresh, (void *)(uintptr_t)c);
}

int model_params_each(struct model *m, int (*fn)(void *arg, const struct model_param *p), void *arg)
{
    return m->n_lora ? model_lora_each(m, fn, arg) : model_weights_each(m, fn, arg);
}

/* Where value (r, c) of the weight is in the tensor. */
static size_t param_at(const struct model_param *p, size_t r, size_t c)
{
    if (p->turn)
        r = model_turned_row(r, p->turn, true);
    return p->transposed ? (p->row0 + c) * p->cols + r : (p->row0 + r) * p->cols + c;
}

/* Where it is in the weight: panels of 16 rows, a lane a row. */
static size_t param_value(const struct weight *w, size_t r, size_t c)
{
    return (r / KERN_ROWS * w->cols + c) * KERN_ROWS + r % KERN_ROWS;
}

void model_param_to_rows(const struct model_param *p, const float *values, float *tensor)
{
    const struct weight *w = p->weight;
    for (size_t i = 0; i < w->cols && !p->rows; i++)
        tensor[p->turn ? model_turned_row(i, p->turn, true) : i] = values[i];
    for (size_t r = 0; r < w->rows && p->rows; r++)
        for (size_t c = 0; c < w->cols; c++)
            tensor[param_at(p, r, c)] = values[param_value(w, r, c)];
}

void model_param_from_rows(const struct model_param *p, const float *tensor, float *values)
{
    const struct weight *w = p->weight;
    for (size_t i = 0; i < w->cols && !p->rows; i++)
        values[i] = tensor[p->turn ? model_turned_row(i, p->turn, true) : i];
    for (size_t r = 0; r < w->rows && p->rows; r++)
        for (size_t c = 0; c < w->cols; c++)
            values[param_value(w, r, c)] = tensor[param_at(p, r, c)];
}
