/*
 * A new model with random weights, for training from scratch, tests and benchmarks: all tensors
 * that the architecture's tables list for a configuration, under their Hugging Face names.
 *
 * Matrices are normally distributed around 0 with the configuration's initializer_range, as
 * Hugging Face's models are; norms are 1, biases and the router's correction 0. Embedding and head
 * of a prediction layer are left out: the main ones serve.
 */
#include "base/hash.h"
#include "base/num.h"
#include "convert/plan.h"
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { INIT_NAME = 192 };

struct init {
    struct convert_plan *p;
    double deviation;
    const struct quant_type *type;
};

/* Tensors that the tables call optional, because files differ: which architectures have them. */
static bool init_has(const struct convert_plan *p, const struct model_tensor *row)
{
    const char *arch = p->cfg.arch->name;
    const struct source_value *v = source_value(p->src, "attention_bias");
    bool bias = v && v->type == SOURCE_BOOL && v->b;
    if (row->offset == BLOCK(q_bias) || row->offset == BLOCK(k_bias) ||
        row->offset == BLOCK(v_bias))
        return bias || strcmp(arch, "qwen2") == 0;
    if (row->offset == BLOCK(o_bias))
        return bias && strcmp(arch, "qwen2") != 0;
    if (row->offset == BLOCK(q_norm) || row->offset == BLOCK(k_norm))
        return strcmp(arch, "qwen3") == 0;
    return row->offset == BLOCK(mtp_norm);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), k = strlen(end);
    return n >= k && strcmp(s + n - k, end) == 0;
}

static int init_tensor(struct init *in, const char *name, size_t rows, size_t cols, struct err *e)
{
    struct convert_tensor *t = plan_add(in->p, name, e);
    if (!t)
        return ERR_NOMEM;
    bool bias = ends_with(name, "bias");
    t->dims = rows ? 2 : 1;
    for (int i = 0; i < SOURCE_DIMS; i++)
        t->shape[i] = 1;
    if (rows)
        t->shape[0] = rows;
    t->shape[t->dims - 1] = cols;
    t->from = "random";
    t->mean = rows || bias ? 0 : 1;
    t->deviation = rows ? in->deviation : 0;
    t->stream = hash_fnv1a(name, strlen(name), HASH_FNV1A);
    t->type = ends_with(name, "e_score_correction_bias") ? quant_by_id(QUANT_F32) : in->type;
    return 0;
}

static int init_row(struct init *in, const struct model_tensor *row, size_t layer, struct err *e)
{
    const struct model_config *f = &in->p->cfg;
    char name[INIT_NAME];
    bool each = row->flags & TENSOR_EXPERTS;
    size_t rows = row->rows == DIM_ONE ? 0 : model_dim(f, row->rows),
           cols = model_dim(f, row->cols);
    int rc = 0;
    if (strstr(row->hf, "#v")) /* in one tensor with "#k" */
        return 0;
    if (strstr(row->hf, "#k")) {
        rows = f->n_head * (f->d_nope + f->d_v);
        cols = f->kv_lora;
    }
    for (size_t i = 0; !rc && i < (each ? f->n_expert : 1); i++) {
        if (!model_tensor_name(name, sizeof name, row, false, layer, i))
            return err_set(e, ERR_LIMIT, "the name of a tensor is too long");
        rc = init_tensor(in, name, rows, cols, e);
    }
    return rc;
}

static int init_tensors(struct init *in, struct err *e)
{
    const struct model_config *f = &in->p->cfg;
    int rc = 0;
    for (size_t i = 0; !rc && i < model_top_group.n; i++)
        if (!(model_top_group.row[i].flags & TENSOR_HEAD) || !f->tied)
            rc = init_row(in, &model_top_group.row[i], 0, e);
    for (size_t l = 0; l < f->n_layer + f->n_mtp; l++)
        for (const struct model_group *const *g = f->arch->groups; *g; g++)
            for (size_t i = 0; !rc && i < (*g)->n; i++) {
                const struct model_tensor *row = &(*g)->row[i];
                if (model_has(f, row, l) &&
                    (!(row->flags & TENSOR_OPTIONAL) || init_has(in->p, row)))
                    rc = init_row(in, row, l, e);
            }
    return rc;
}

static int init_tokenizer(struct convert_plan *p, struct err *e)
{
    struct tokenizer *t;
    if (!p->tokenizer)
        return 0;
    int rc = tokenizer_new(&t, p->tokenizer, e);
    if (!rc && tokenizer_count(t) > p->cfg.n_vocab)
        rc =
            err_set(e, ERR_USAGE,
                    "%.200s: has %zu tokens, but the model's vocab_size is %zu: make that at least "
                    "as many",
                    source_path(p->tokenizer), tokenizer_count(t), p->cfg.n_vocab);
    tokenizer_free(t);
    return rc;
}

int convert_init_new(struct convert_plan **out, struct source *config, struct source *tokenizer,
                     const struct convert_init *o, struct err *e)
{
    const struct source_value *v = source_value(config, "initializer_range");
    struct convert_plan *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_nomem(e, sizeof *p, "the plan");
    arena_init(&p->arena, PLAN_MAX);
    p->src = config;
    p->o = (struct convert_options){.format = CONVERT_HF, .mix = o->mix, .split = o->split};
    p->init = p->is_model = true;
    p->seed = o->seed;
    p->tokenizer = tokenizer;
    struct init in = {
        .p = p, .deviation = o->deviation, .type = quant_by_id(o->mix ? o->mix->type : QUANT_BF16)};
    if (!(in.deviation > 0))
        in.deviation = v && v->type == SOURCE_FLOAT && v->f > 0 && v->f < 100 ? v->f : 0.02;
    int rc =
        in.type->safetensors && in.type->id < QUANT_INNER
            ? model_config_check(config, &p->cfg, e)
            : err_set(e, ERR_USAGE, "--type %s: a new model is F32, F16 or BF16", in.type->name);
    if (!rc)
        rc = init_tokenizer(p, e);
    if (!rc)
        rc = init_tensors(&in, e);
    if (!rc)
        rc = plan_sizes(p, e);
    if (rc) {
        convert_plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}
