/*
 * Adapters that are trained (Hu et al., "LoRA", 2021): which modules, their matrices, and modules
 * whose weights lie in memory in parts.
 *
 * A module is a tensor of the Hugging Face folder, W (rows, cols), with A (rank, cols) and B (rows,
 * rank): what is computed is W + scale × B A, while W stays as it is. Where W is one weight of the
 * model, its products get those of A and B added (struct weight_lora). kv_b_proj lies in memory as
 * slices of heads, partly transposed, and experts share their inputs: of these the sum itself is
 * kept, as F32. model_lora_merge makes it anew when A or B have changed, and model_lora_back turns
 * its gradient G into those of both: dA = scale × Bᵀ G, dB = scale × G Aᵀ.
 *
 * Fresh matrices are PEFT's: A uniform within ±1 / sqrt(cols), B zero.
 */
#include "model/arch.h"

#include "base/num.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A weight that is a part of a module, as the sum. */
struct lora_part {
    struct model_param place;
    float *base; /* its values without the adapter */
    struct weight_param param;
};

struct model_lora {
    struct model_param first; /* of the module's weights */
    struct weight_lora pair;
    struct lora_part *part; /* (n_part), or none: the weight has `lora` */
    size_t n_part;
};

struct adapt {
    struct model *m;
    struct op_ctx *c;
    const struct model_load_opts *o;
    struct err *e;
    size_t bytes, modules;
    struct model_lora *now; /* the module whose parts come */
    bool *used;             /* modules of the adapter's file */
};

static bool adapt_parted(const struct model_tensor *row)
{
    return row->flags & (TENSOR_HEADS | TENSOR_EXPERTS);
}

/* Is the weight's module one of those that are adapted? */
static bool adapt_wants(const struct model *m, const struct model_load_opts *o,
                        const struct model_tensor *row, size_t layer, size_t index)
{
    struct model_name name;
    const char *s = row->hf;
    bool top = layer == SIZE_MAX;
    if (!o || !o->adapt || row->rows == DIM_ONE || (row->flags & TENSOR_LOOKUP) ||
        (!top && row->offset == BLOCK(router)))
        return false;
    if (o->adapter)
        return model_lora_rank(o->adapter, row, layer, index) != 0;
    if (!o->adapt->choose)
        return !top && layer < m->cfg.n_layer && !(row->flags & TENSOR_EXPERTS);
    if (!model_name_next(&name, &s, layer, index))
        return false;
    size_t n = strlen(name.text), k = strlen(".weight");
    if (n > k && !strcmp(name.text + n - k, ".weight"))
        name.text[n - k] = 0;
    return o->adapt->choose(o->adapt->arg, name.text);
}

bool model_adapt_own(const struct model *m, const struct model_load_opts *o,
                     const struct model_tensor *row, size_t layer, size_t index)
{
    return adapt_parted(row) && adapt_wants(m, o, row, layer, index);
}

/* The rank of a module, and the factor of its product. */
static size_t adapt_rank(const struct adapt *a, const struct model_param *p)
{
    return a->o->adapter ? model_lora_rank(a->o->adapter, p->row, p->layer, p->index)
                         : a->o->adapt->rank;
}

/* Tells modules by their first weight. */
static bool adapt_first(const struct model_param *p)
{
    return !adapt_parted(p->row) || (p->row->flags & TENSOR_EXPERTS) ||
           (p->index == 0 && p->transposed);
}

static int adapt_count(void *arg, const struct model_param *p)
{
    struct adapt *a = arg;
    if (p->same || !adapt_wants(a->m, a->o, p->row, p->layer, p->index))
        return 0;
    const struct quant_type *t = quant_by_id(QUANT_F32);
    size_t rank = adapt_rank(a, p), n = weight_values(p->weight) * sizeof(float), pair = 0;
    if (adapt_first(p)) {
        a->modules++;
        pair = weight_matrix_bytes(a->c->kern, t, rank, p->cols) +
               weight_matrix_bytes(a->c->kern, t, p->rows, rank);
    }
    if (!num_add(&a->bytes, a->bytes, pair) ||
        (adapt_parted(p->row) && !num_add(&a->bytes, a->bytes, 2 * num_round_up(n, 64))))
        return err_set(a->e, ERR_LIMIT, "the adapter does not fit into memory");
    return 0;
}

static void adapt_fresh(const struct adapt *a, const struct model_lora *l, struct lora_pair *pair)
{
    struct rng r;
    size_t rank = pair->rank, cols = l->first.cols;
    rng_init(&r, a->o->adapt->seed, (uint64_t)(l - a->m->lora));
    double most = 1 / sqrt((double)cols);
    for (size_t i = 0; i < rank * cols; i++)
        pair->a[i] = (float)((2 * rng_uniform(&r) - 1) * most);
    pair->scale =
        (float)(a->o->adapt->alpha / (a->o->adapt->rs ? sqrt((double)rank) : (double)rank));
}

/* The module's matrices: of the adapter, or fresh. */
static int adapt_pair(struct adapt *a, struct model_lora *l, struct arena *arena)
{
    const struct model_param *p = &l->first;
    struct lora_pair pair = {.rank = adapt_rank(a, p)};
    const struct quant_type *t = quant_by_id(QUANT_F32);
    int rc = 0;
    if (a->o->adapter) {
        struct model_view v = {.rows = p->rows, .cols = p->cols};
        rc = adapt_parted(p->row) ? model_lora_module(&pair, a->o->adapter, p, arena, a->e)
                                  : model_lora_pair(&pair, a->o->adapter, a->m->src, &a->m->cfg,
                                                    p->row, p->layer, p->index, &v, arena, a->e);
        if (!rc)
            a->used[pair.module] = true;
    } else {
        pair.a = arena_array(arena, pair.rank * p->cols, sizeof *pair.a, a->e);
        pair.b = pair.a ? arena_array(arena, p->rows * pair.rank, sizeof *pair.b, a->e) : NULL;
        if (!pair.b)
            return ERR_NOMEM;
        adapt_fresh(a, l, &pair);
    }
    l->pair.scale = pair.scale;
    l->pair.module = (uint32_t)(l - a->m->lora);
    struct weight_rows from = {.at = (const uint8_t *)pair.a};
    if (!rc)
        rc = weight_matrix(&l->pair.a, p->weight->name, t, pair.rank, p->cols, &from, a->c->kern,
                           a->c->team, &a->m->lora_store, a->e);
    from.at = (const uint8_t *)pair.b;
    if (!rc)
        rc = weight_matrix(&l->pair.b, p->weight->name, t, p->rows, pair.rank, &from, a->c->kern,
                           a->c->team, &a->m->lora_store, a->e);
    l->pair.a.from = l->pair.b.from = (struct weight_rows){.at = NULL};
    return rc;
}

static int adapt_part(struct adapt *a, struct model_lora *l, const struct model_param *p)
{
    struct weight *w = p->weight;
    size_t n = weight_values(w), most = p->row->flags & TENSOR_HEADS ? 2 * a->m->cfg.n_head : 1;
    if (!l->part)
        l->part = arena_array(&a->m->arena, most, sizeof *l->part, a->e);
    if (!l->part)
        return ERR_NOMEM;
    struct lora_part *q = &l->part[l->n_part++];
    q->place = *p;
    q->base = weight_store_floats(&a->m->lora_store, n);
    q->param = (struct weight_param){w->own, weight_store_floats(&a->m->lora_store, n), n};
    if (!q->base || !q->param.grad)
        return err_nomem(a->e, n * sizeof(float), "the adapter");
    memcpy(q->base, w->own, n * sizeof *q->base);
    w->param = &q->param;
    return 0;
}

static int adapt_one(void *arg, const struct model_param *p)
{
    struct adapt *a = arg;
    if (p->same || !adapt_wants(a->m, a->o, p->row, p->layer, p->index))
        return 0;
    if (adapt_first(p)) {
        struct arena floats;
        a->now = &a->m->lora[a->m->n_lora++];
        a->now->first = *p;
        arena_init(&floats, SIZE_MAX / 2);
        int rc = adapt_pair(a, a->now, &floats);
        arena_release(&floats);
        if (rc)
            return rc;
    }
    if (adapt_parted(p->row))
        return adapt_part(a, a->now, p);
    p->weight->lora = &a->now->pair;
    return 0;
}

int model_adapt_init(struct model *m, struct op_ctx *c, const struct model_load_opts *o, bool *used,
                     struct err *e)
{
    struct adapt a = {.m = m, .c = c, .o = o, .e = e, .used = used};
    if (!o->adapter && (!o->adapt->rank || o->adapt->rank > 4096))
        return err_set(e, ERR_USAGE, "a rank of %zu: an adapter has 1 to 4096", o->adapt->rank);
    int rc = model_weights_each(m, adapt_count, &a);
    if (rc)
        return rc;
    if (!a.modules)
        return err_set(e, ERR_USAGE, "no layer of this model is among those to be adapted");
    struct model_lora *l = arena_array(&m->arena, a.modules, sizeof *l, e);
    if (!l)
        return ERR_NOMEM;
    rc = weight_store_init(&m->lora_store, a.bytes, e);
    m->lora = l;
    if (!rc)
        rc = model_weights_each(m, adapt_one, &a);
    if (!rc)
        model_lora_merge(m, c);
    return rc;
}

int model_lora_each(struct model *m, int (*fn)(void *arg, const struct model_param *p), void *arg)
{
    int rc = 0;
    for (size_t i = 0; i < 2 * m->n_lora && !rc; i++) {
        struct model_lora *l = &m->lora[i / 2];
        bool b = i % 2;
        struct model_param p = l->first;
        size_t n = strlen(p.name), k = strlen(".weight");
        if (n > k && !strcmp(p.name + n - k, ".weight"))
            n -= k;
        int len = snprintf(p.name, sizeof p.name, "base_model.model.%.*s.lora_%c.weight", (int)n,
                           l->first.name, b ? 'B' : 'A');
        if (len < 0 || (size_t)len >= sizeof p.name)
            return ERR_LIMIT;
        p.weight = b ? &l->pair.b : &l->pair.a;
        p.rows = p.weight->rows;
        p.cols = p.weight->cols;
        p.row0 = 0;
        p.transposed = false;
        p.turn = b ? p.turn : 0;
        rc = fn(arg, &p);
    }
    return rc;
}

/* ---- weights in parts ------------------------------------------------------------------------ */

/* Value (r, c) of a weight that lies in panels. */
static size_t lora_at(const struct weight *w, size_t r, size_t c)
{
    return (r / KERN_ROWS * w->cols + c) * KERN_ROWS + r % KERN_ROWS;
}

static void lora_merge_one(void *arg, size_t i, int worker)
{
    const struct model_lora *l = &((const struct model *)arg)->lora[i];
    const struct weight *a = &l->pair.a, *b = &l->pair.b;
    (void)worker;
    for (size_t k = 0; k < l->n_part; k++) {
        const struct lora_part *q = &l->part[k];
        const struct weight *w = q->place.weight;
        bool t = q->place.transposed;
        for (size_t r = 0; r < w->rows; r++)
            for (size_t c = 0; c < w->cols; c++) {
                size_t row = q->place.row0 + (t ? c : r), col = t ? r : c, at = lora_at(w, r, c);
                float sum = 0;
                for (size_t d = 0; d < a->rows; d++)
                    sum += b->own[lora_at(b, row, d)] * a->own[lora_at(a, d, col)];
                w->own[at] = q->base[at] + l->pair.scale * sum;
            }
    }
}

void model_lora_merge(struct model *m, struct op_ctx *c)
{
    team_run(c->team, lora_merge_one, m, m->n_lora);
}

static void lora_back_one(void *arg, size_t i, int worker)
{
    const struct model_lora *l = &((const struct model *)arg)->lora[i];
    const struct weight *a = &l->pair.a, *b = &l->pair.b;
    (void)worker;
    for (size_t k = 0; k < l->n_part; k++) {
        const struct lora_part *q = &l->part[k];
        const struct weight *w = q->place.weight;
        bool t = q->place.transposed;
        for (size_t r = 0; r < w->rows; r++)
            for (size_t c = 0; c < w->cols; c++) {
                size_t row = q->place.row0 + (t ? c : r), col = t ? r : c;
                float g = l->pair.scale * q->param.grad[lora_at(w, r, c)];
                for (size_t d = 0; d < a->rows; d++) {
                    size_t at_a = lora_at(a, d, col), at_b = lora_at(b, row, d);
                    if (a->param)
                        a->param->grad[at_a] += b->own[at_b] * g;
                    if (b->param)
                        b->param->grad[at_b] += a->own[at_a] * g;
                }
            }
        memset(q->param.grad, 0, q->param.n * sizeof *q->param.grad);
    }
}

void model_lora_back(struct model *m, struct op_ctx *c)
{
    team_run(c->team, lora_back_one, m, m->n_lora);
}
