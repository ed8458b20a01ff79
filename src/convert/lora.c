/*
 * An adapter merged into what is converted: rows of the source get scale × B A added as they are
 * decoded, in float32, before they are encoded again.
 *
 * A module and a tensor of the same spelling belong together directly. Where the model's file and
 * the adapter's spell differently (a PEFT adapter for a GGUF model), the model's tables say what
 * belongs to what, and put rows into the file's order.
 */
#include "base/num.h"
#include "convert/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LORA_MAX_BYTES = 1 << 30 };

/* What is added to rows [row0, row0 + rows) of a tensor of the source. */
struct plan_part {
    const struct source_tensor *t;
    uint64_t row0, rows;
    struct lora_pair pair;
};

struct plan_lora {
    struct adapter *adapter;
    struct arena arena;
    struct plan_part *part;
    size_t n, cap;
    bool *used;
};

static int lora_add(struct plan_lora *l, const struct plan_part *part, struct err *e)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 256;
        struct plan_part *more = realloc(l->part, cap * sizeof *more);
        if (!more)
            return err_nomem(e, cap * sizeof *more, "the adapter");
        l->part = more;
        l->cap = cap;
    }
    l->part[l->n++] = *part;
    l->used[part->pair.module] = true;
    return 0;
}

/* Modules whose names are those of the source's tensors. */
static int lora_direct(struct plan_lora *l, const struct convert_plan *p, struct err *e)
{
    for (size_t i = 0; i < adapter_count(l->adapter); i++) {
        const struct adapter_module *m = adapter_at(l->adapter, i);
        char name[512];
        if (snprintf(name, sizeof name, "%s.weight", m->name) >= (int)sizeof name)
            continue;
        const struct source_tensor *t = source_tensor(p->src, name);
        if (!t)
            continue;
        if (t->dims != 2 || !t->type || t->shape[0] != m->b->shape[0] ||
            t->shape[1] != m->a->shape[1])
            return err_set(e, ERR_FORMAT, "%s: module '%s' does not fit the shape of its tensor",
                           adapter_path(l->adapter), m->name);
        struct plan_part part = {.t = t, .rows = t->shape[0], .pair = {.module = i}};
        int rc = model_lora_whole(&part.pair, m, &l->arena, e);
        if (!rc)
            rc = lora_add(l, &part, e);
        if (rc)
            return rc;
    }
    return 0;
}

struct lora_walk {
    struct plan_lora *l;
    const struct convert_plan *p;
    const struct model_config *cfg;
};

static int lora_view(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                     const struct model_view *v, struct err *e)
{
    struct lora_walk *w = arg;
    struct plan_part part = {.t = v->t, .row0 = v->row0, .rows = v->rows};
    if (v->transposed) /* its pair would be for rows that the file has as columns */
        return !model_lora_rank(w->l->adapter, row, layer, index)
                   ? 0
                   : err_set(e, ERR_UNSUPPORTED,
                             "tensor \"%s\": an adapter of another kind of file cannot be merged "
                             "into this layout; merge it into the original folder",
                             v->t->name);
    int rc = model_lora_pair(&part.pair, w->l->adapter, w->p->src, w->cfg, row, layer, index, v,
                             &w->l->arena, e);
    return rc || !part.pair.rank ? rc : lora_add(w->l, &part, e);
}

/* Modules found through the model's tables. */
static int lora_tables(struct plan_lora *l, const struct convert_plan *p, struct err *e)
{
    struct model_config cfg;
    int rc = model_check(p->src, &cfg, e);
    struct lora_walk w = {l, p, &cfg};
    return rc ? rc : model_walk(p->src, &cfg, true, lora_view, &w, e);
}

static int by_tensor(const void *a, const void *b)
{
    const struct plan_part *x = a, *y = b;
    if (x->t != y->t)
        return (uintptr_t)x->t < (uintptr_t)y->t ? -1 : 1;
    return (x->row0 > y->row0) - (x->row0 < y->row0);
}

int plan_lora_open(struct convert_plan *p, const char *path, struct err *e)
{
    struct plan_lora *l = p->lora = calloc(1, sizeof *l);
    if (!l)
        return err_nomem(e, sizeof *l, "the adapter");
    arena_init(&l->arena, LORA_MAX_BYTES);
    int rc = adapter_open(&l->adapter, path, e);
    if (!rc && !(l->used = calloc(adapter_count(l->adapter), sizeof *l->used)))
        rc = err_nomem(e, adapter_count(l->adapter), "the adapter");
    if (!rc && adapter_is_gguf(l->adapter) == (source_kind(p->src) == SOURCE_GGUF))
        rc = lora_direct(l, p, e);
    else if (!rc)
        rc = lora_tables(l, p, e);
    for (size_t i = 0; !rc && i < adapter_count(l->adapter); i++)
        if (!l->used[i])
            rc = err_set(e, ERR_FORMAT, "%s: there is no tensor for module '%s' to be merged into",
                         path, adapter_at(l->adapter, i)->name);
    if (!rc && l->n)
        qsort(l->part, l->n, sizeof *l->part, by_tensor);
    return rc;
}

int plan_lora_score(struct convert_plan *p, struct err *e)
{
    const struct source_tensor *t = adapter_score(p->lora->adapter);
    if (!t)
        return 0;
    if (p->o.format != CONVERT_HF)
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: is of a reward model; GGUF files have no place for its head: write a "
                       "folder",
                       adapter_path(p->lora->adapter));
    if (!t->type || t->dims != 2 || t->shape[0] != 1 || t->type->block != 1)
        return err_set(e, ERR_FORMAT, "%s: \"%s\" is not one row of floats",
                       adapter_path(p->lora->adapter), t->name);
    float *values = arena_array(&p->lora->arena, (size_t)t->shape[1], sizeof *values, e);
    uint8_t *row = values ? arena_alloc(&p->lora->arena, source_row_bytes(t), e) : NULL;
    if (!row)
        return ERR_NOMEM;
    source_rows(t, 0, 1, row, source_row_bytes(t));
    t->type->decode(values, row, (size_t)t->shape[1]);
    p->o.classifier = true;
    return convert_plan_add(p, "score.weight", 1, (size_t)t->shape[1], values, e);
}

void plan_lora_free(struct convert_plan *p)
{
    if (!p->lora)
        return;
    adapter_free(p->lora->adapter);
    arena_release(&p->lora->arena);
    free(p->lora->part);
    free(p->lora->used);
    free(p->lora);
}

/* The first part of a tensor; NULL when it has none. */
static const struct plan_part *lora_first(const struct convert_plan *p,
                                          const struct source_tensor *t)
{
    size_t lo = 0, hi = p->lora ? p->lora->n : 0;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((uintptr_t)p->lora->part[mid].t < (uintptr_t)t)
            lo = mid + 1;
        else
            hi = mid;
    }
    return p->lora && lo < p->lora->n && p->lora->part[lo].t == t ? &p->lora->part[lo] : NULL;
}

bool plan_adapted(const struct convert_plan *p, const struct source_tensor *t)
{
    return lora_first(p, t) != NULL;
}

void plan_adapt(const struct convert_plan *p, const struct source_tensor *t, uint64_t r, size_t n,
                float *rows, size_t cols)
{
    const struct plan_part *part = lora_first(p, t),
                           *end = p->lora ? p->lora->part + p->lora->n : NULL;
    for (; part && part < end && part->t == t; part++)
        for (size_t i = 0; i < n; i++)
            if (r + i >= part->row0 && r + i < part->row0 + part->rows)
                model_lora_add(&part->pair, (size_t)(r + i - part->row0), rows + i * cols, cols);
}
