/*
 * Loading: every weight of a model into panels, or left where it lies.
 *
 * Loading itself reads nothing of the matrices that lie in the mapping as they are: they become
 * pending, and the first passes pack them (weight_later). MODEL_PACKED packs them at the end.
 * Panels of a packed file are used where they lie (weight_mapped).
 *
 * Checking and loading walk the same tables (arch.h), so what is inspected is what is loaded. What
 * does not fit into memory stays in the mapped files: first the experts, of which a token reads a
 * few in a hundred, then everything; their rows are packed when a product needs them, with the same
 * bits.
 */
#include "model/arch.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>

struct load {
    struct model *m;
    struct op_ctx *c;
    const struct model_load_opts *o;
    size_t store_bytes, expert_bytes; /* packed: without experts; the experts */
    uint64_t panel_bytes;             /* of panels in the files */
    bool pack, pack_experts;
    bool spills;        /* panels of the files are more than fits into memory */
    bool own;           /* the weight in hand is to be F32 that may change */
    bool *used;         /* modules of the adapter that have found their weight */
    struct arena pairs; /* matrices of the adapter until they are packed */
    uint64_t done, total;
};

static bool load_trains(const struct load *l)
{
    return l->o && l->o->train;
}

/* Does the weight get BF16 copies for its products? Not tables, and not routers, whose choice a
 * rounding would change. */
static bool load_halves(const struct load *l, const struct model_tensor *row, size_t layer)
{
    bool lookup = (row->flags & TENSOR_LOOKUP) && !(layer == SIZE_MAX && l->m->cfg.tied);
    bool router = layer != SIZE_MAX && row->offset == BLOCK(router);
    return load_trains(l) && l->o->bf16 && row->rows != DIM_ONE && !lookup && !router;
}

/* From here on it is about this weight. */
static void load_turn_to(struct load *l, const struct model_tensor *row, size_t layer, size_t index)
{
    l->own = load_trains(l) || model_adapt_own(l->m, l->o, row, layer, index);
}

/* The adapter that becomes part of weights or of their products at load; NULL: none. */
static const struct adapter *load_adapter(const struct load *l)
{
    return l->o && !l->o->adapt ? l->o->adapter : NULL;
}

/* A matrix that is only looked up row by row needs no panels, unless it is the head as well or its
 * values may change. */
static bool load_looked_up(const struct load *l, const struct model_tensor *row)
{
    if (l->own)
        return false;
    bool top = row == &model_top_group.row[MODEL_TOP_EMBED];
    return (row->flags & TENSOR_LOOKUP) && !(top && l->m->cfg.tied);
}

/* ---- rows of a weight -------------------------------------------------------------------------
 */

static void rows_of_parts(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride)
{
    source_rows(arg, r, n, dst, stride);
}

/* A transposed slice: rows [row0, row0 + n) of t are the weight's columns. */
struct load_turned {
    const struct source_tensor *t;
    uint64_t row0;
    size_t n, width; /* width: values of a row of t */
    size_t row_bytes;
};

enum {
    LOAD_WIDTH_MAX = 8192,    /* values of a row that is transposed: kv_lora */
    LOAD_ROW_MAX = 1 << 17,   /* bytes of a row that an adapter is merged into */
    LOAD_ARENA_MAX = 1 << 29, /* arrays of weights: 12 MB for R1; adapters may take more */
};

/* Values are copied as they are when the type has one value a block, else decoded to F32. */
static void rows_turned(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride)
{
    const struct load_turned *j = arg;
    const struct quant_type *t = j->t->type;
    bool copy = t->block == 1;
    uint8_t row[LOAD_WIDTH_MAX * 8]; /* the longest block is 8 bytes a value (F64) */
    float value[LOAD_WIDTH_MAX];
    for (size_t c = 0; c < j->n; c++) {
        source_rows(j->t, j->row0 + c, 1, row, j->row_bytes);
        if (!copy)
            t->decode(value, row, j->width);
        for (size_t i = 0; i < n; i++)
            if (copy)
                memcpy(dst + i * stride + c * t->bytes, row + (r + i) * t->bytes, t->bytes);
            else
                memcpy(dst + i * stride + c * sizeof(float), &value[r + i], sizeof(float));
    }
}

static void rows_of_compact(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride)
{
    source_compact_rows(arg, r, n, dst, stride);
}

/*
 * A smaller form of the weight whose columns are in another order: products take it. Not for
 * weights that are read otherwise: experts (their products share inputs), slices, tables, and what
 * an adapter is merged into.
 */
static const struct source_compact *
view_compact(const struct load *l, const struct model_tensor *row, const struct model_view *v)
{
    bool merges = load_adapter(l) && l->o->merge;
    if (merges || l->own || (row->flags & (TENSOR_EXPERTS | TENSOR_HEADS | TENSOR_LOOKUP)))
        return NULL;
    return source_compact(v->t);
}

/* The type of what view_rows gives. */
static const struct quant_type *view_rows_type(const struct model_view *v)
{
    return v->transposed && v->t->type->block != 1 ? quant_by_id(QUANT_F32) : v->t->type;
}

/* The type that a view's weight has. */
static const struct quant_type *view_type(const struct load *l, const struct model_tensor *row,
                                          const struct model_view *v)
{
    if (l->own)
        return quant_by_id(QUANT_F32);
    const struct source_compact *compact = view_compact(l, row, v);
    if (compact)
        return compact->type;
    return view_rows_type(v);
}

/* Panels of the file that the weight can use as they are; NULL: it has to be packed. */
static const uint8_t *view_panels(const struct load *l, const struct model_tensor *row,
                                  const struct model_view *v)
{
    if (v->transposed || row->rows == DIM_ONE || load_looked_up(l, row) || l->own ||
        !weight_has_kernel(l->c->kern, v->t->type))
        return NULL;
    return source_panels(v->t, v->row0, v->rows);
}

/* What is read of it, for the progress. */
static uint64_t view_bytes(const struct load *l, const struct model_tensor *row,
                           const struct model_view *v)
{
    const struct quant_type *t = view_type(l, row, v);
    return (uint64_t)v->rows * v->cols / t->block * t->bytes;
}

static int view_rows(struct weight_rows *out, struct arena *arena, const struct model_view *v,
                     struct err *e)
{
    *out = (struct weight_rows){.row0 = v->row0};
    size_t width = (size_t)v->t->shape[v->t->dims - 1], row_bytes;
    if (!quant_size(v->t->type, width, &row_bytes))
        return err_set(e, ERR_FORMAT,
                       "tensor \"%s\": rows of %zu values are no multiple of %s's block of %u",
                       v->t->name, width, v->t->type->name, v->t->type->block);
    if (v->transposed) {
        struct load_turned *j = arena_alloc(arena, sizeof *j, e);
        if (!j)
            return ERR_NOMEM;
        if (width > LOAD_WIDTH_MAX)
            return err_set(e, ERR_LIMIT, "tensor \"%s\": latents of %zu values, at most %d",
                           v->t->name, width, LOAD_WIDTH_MAX);
        *j = (struct load_turned){v->t, v->row0, v->cols, width, row_bytes};
        *out = (struct weight_rows){.make = rows_turned, .arg = j};
    } else if (v->t->data) {
        *out = (struct weight_rows){.at = v->t->data + v->row0 * row_bytes};
    } else {
        *out = (struct weight_rows){.make = rows_of_parts, .arg = v->t, .row0 = v->row0};
    }
    return 0;
}

/* ---- adapters ---------------------------------------------------------------------------------
 */

/* A weight with an adapter's product (of rank 0: nothing) added to it, as F32. */
struct load_merged {
    struct weight base; /* lazy */
    struct lora_pair pair;
};

static void rows_merged(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride)
{
    const struct load_merged *j = arg;
    uint8_t tmp[LOAD_ROW_MAX];
    for (size_t i = 0; i < n; i++) {
        float *row = (float *)(void *)(dst + i * stride);
        weight_row(&j->base, (size_t)r + i, row, tmp);
        model_lora_add(&j->pair, (size_t)r + i, row, j->base.cols);
    }
}

/* True when the sum of weight and adapter is kept instead of both. */
static bool load_merges(const struct load *l, const struct model_tensor *row)
{
    return l->o->merge || l->o->train ||
           (row->flags & (TENSOR_EXPERTS | TENSOR_HEADS | TENSOR_LOOKUP));
}

/* Rows of `from`, of type *type, as F32 with the adapter's product added. */
static int load_sum(struct load *l, const struct model_view *v, const struct lora_pair *pair,
                    struct weight_rows *from, const struct quant_type **type, struct err *e)
{
    struct load_merged *j = arena_alloc(&l->m->arena, sizeof *j, e);
    if (!j)
        return ERR_NOMEM;
    j->pair = *pair;
    int rc = weight_matrix(&j->base, v->t->name, *type, v->rows, v->cols, from, l->c->kern,
                           l->c->team, NULL, e);
    if (!rc && j->base.row_bytes > LOAD_ROW_MAX)
        rc = err_set(e, ERR_LIMIT, "tensor \"%s\": its rows are too long to be decoded at load",
                     v->t->name);
    *from = (struct weight_rows){.make = rows_merged, .arg = j};
    *type = quant_by_id(QUANT_F32);
    return rc;
}

/* A matrix of floats as a packed weight, which does not need them any more. */
static int load_floats(struct load *l, struct weight *w, const char *name, size_t rows, size_t cols,
                       const float *v, struct err *e)
{
    struct weight_rows from = {.at = (const uint8_t *)v};
    int rc = weight_matrix(w, name, quant_by_id(QUANT_F32), rows, cols, &from, l->c->kern,
                           l->c->team, &l->m->store, e);
    w->from = (struct weight_rows){.at = NULL}; /* F32 is always packed */
    return rc;
}

/*
 * Applies the adapter to a weight that `from` gives: the weight is changed to the sum (then *from
 * and *type change), or *lora becomes what is added to its products.
 */
static int load_adapt(struct load *l, const struct model_tensor *row, size_t layer, size_t index,
                      const struct model_view *v, struct weight_rows *from,
                      const struct quant_type **type, const struct weight_lora **lora,
                      struct err *e)
{
    struct model *m = l->m;
    struct lora_pair pair;
    *lora = NULL;
    bool merges = load_merges(l, row);
    int rc = model_lora_pair(&pair, l->o->adapter, m->src, &m->cfg, row, layer, index, v,
                             merges ? &m->arena : &l->pairs, e);
    if (rc || !pair.rank)
        return rc;
    l->used[pair.module] = true;
    if (merges)
        return load_sum(l, v, &pair, from, type, e);
    struct weight_lora *w = arena_alloc(&m->arena, sizeof *w, e);
    if (!w)
        return ERR_NOMEM;
    w->scale = pair.scale;
    rc = load_floats(l, &w->a, v->t->name, pair.rank, v->cols, pair.a, e);
    if (!rc)
        rc = load_floats(l, &w->b, v->t->name, v->rows, pair.rank, pair.b, e);
    arena_release(&l->pairs);
    *lora = w;
    return rc;
}

/* Every module has to belong to the model. */
static int load_adapter_check(const struct load *l, struct err *e)
{
    const struct adapter *a = l->o ? l->o->adapter : NULL;
    for (size_t i = 0; a && i < adapter_count(a); i++)
        if (!l->used[i])
            return err_set(e, ERR_FORMAT, "%s: the model has no matrix for module '%s'",
                           adapter_path(a), adapter_at(a, i)->name);
    return 0;
}

/* The same weight of the model that others are taken from; NULL: it has none, or it is made anew
 * because it holds the sum with the adapter's product. */
static const struct weight *load_shared(const struct load *l, const struct model_tensor *row,
                                        size_t layer, size_t index)
{
    const struct model *b = l->m->base;
    if (!b || (row->rows != DIM_ONE && load_merges(l, row) &&
               model_lora_rank(l->o->adapter, row, layer, index)))
        return NULL;
    const uint8_t *base =
        layer == SIZE_MAX ? (const uint8_t *)&b->top : (const uint8_t *)&b->block[layer];
    const void *at = base + row->offset;
    if (!(row->flags & (TENSOR_EXPERTS | TENSOR_HEADS)))
        return at;
    const struct weight *array;
    memcpy(&array, at, sizeof array);
    return array + index;
}

/* ---- the two walks ----------------------------------------------------------------------------
 */

static int load_size(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                     const struct model_view *v, struct err *e)
{
    struct load *l = arg;
    load_turn_to(l, row, layer, index);
    const uint8_t *panels = view_panels(l, row, v);
    size_t matrix = row->rows == DIM_ONE
                        ? 0
                        : weight_matrix_bytes(l->c->kern, view_type(l, row, v), v->rows, v->cols);
    bool shared = load_shared(l, row, layer, index) != NULL;
    size_t n = shared                             ? 0
               : row->rows == DIM_ONE             ? weight_vector_bytes(v->cols)
               : panels || load_looked_up(l, row) ? 0
                                                  : matrix;
    l->panel_bytes += panels && !shared ? matrix : 0;
    if (load_adapter(l) && row->rows != DIM_ONE) {
        size_t rank = model_lora_rank(l->o->adapter, row, layer, index);
        const struct quant_type *t = quant_by_id(QUANT_F32);
        if (rank && load_merges(l, row))
            n = weight_matrix_bytes(l->c->kern, t, v->rows, v->cols);
        else if (rank)
            n += weight_matrix_bytes(l->c->kern, t, rank, v->cols) +
                 weight_matrix_bytes(l->c->kern, t, v->rows, rank);
    }
    if (load_halves(l, row, layer))
        n += weight_matrix_bytes(l->c->kern, quant_by_id(QUANT_BF16), v->rows, v->cols);
    size_t *sum = row->flags & TENSOR_EXPERTS && !l->own ? &l->expert_bytes : &l->store_bytes;
    l->total += view_bytes(l, row, v);
    if (!num_add(sum, *sum, n))
        return err_set(e, ERR_LIMIT, "the weights do not fit into memory");
    return 0;
}

/* Where the weight is in the model's structs; arrays of experts and heads appear with the first. */
static struct weight *load_slot(struct load *l, const struct model_tensor *row, size_t layer,
                                size_t index, struct err *e)
{
    struct model *m = l->m;
    uint8_t *base = layer == SIZE_MAX ? (uint8_t *)&m->top : (uint8_t *)&m->block[layer];
    if (!(row->flags & (TENSOR_EXPERTS | TENSOR_HEADS)))
        return (struct weight *)(void *)(base + row->offset);
    struct weight **array = (struct weight **)(void *)(base + row->offset);
    if (!*array) {
        size_t n = model_count(&m->cfg, row);
        *array = arena_array(&m->arena, n, sizeof **array, e);
        if (*array)
            memset(*array, 0, n * sizeof **array);
    }
    return *array ? *array + index : NULL;
}

static enum model_math load_math(const struct kern *k, const struct weight *w)
{
    enum kern_act act = k->mul[w->type->id].act;
    if (act == KERN_ACT_Q32 || act == KERN_ACT_Q256)
        return MODEL_MATH_INT8;
    return act == KERN_ACT_BF16 ? MODEL_MATH_BF16 : MODEL_MATH_F32;
}

/* What a token reads and multiplies: of experts, the chosen share. */
static void load_count(struct load *l, const struct model_tensor *row, size_t layer,
                       const struct weight *w)
{
    struct model *m = l->m;
    uint64_t macs = (uint64_t)w->rows * w->cols, bytes = (uint64_t)w->rows * w->row_bytes;
    enum model_math math = load_math(l->c->kern, w);
    m->params += macs;
    if (layer != SIZE_MAX && layer >= m->cfg.n_layer)
        return; /* the MTP layer is not part of a token's way */
    if (row->rows == DIM_ONE || load_looked_up(l, row))
        return;
    if (layer == SIZE_MAX) {
        m->counts.head_macs[math] = macs;
        m->head_bytes = bytes;
    } else if (row->flags & TENSOR_EXPERTS) {
        /* n_expert equal shares of n_expert_used experts; rounding is of no matter here. */
        m->counts.layer_macs[math] += macs * m->cfg.n_expert_used / m->cfg.n_expert;
        m->counts.expert_bytes += bytes;
        m->layer_bytes += bytes * m->cfg.n_expert_used / m->cfg.n_expert;
    } else {
        m->counts.layer_macs[math] += macs;
        m->layer_bytes += bytes;
    }
}

/* The same values in the file as another of the model's weights has: one weight then. */
static bool load_same_view(const struct load *l, size_t top, const struct model_view *v)
{
    struct model_view main;
    const struct model_tensor *row = &model_top_group.row[top];
    if (model_view_find(&main, l->m->src, &l->m->cfg, row, 0, 0, NULL) || !main.t)
        return false;
    return main.t->type == v->t->type && main.t->data && v->t->data &&
           memcmp(main.t->data, v->t->data, v->rows * source_row_bytes(v->t)) == 0;
}

/* The MTP layer's head is a copy of the main one in checkpoints: shared then. So is its embedding,
 * which only matters where they are trained. */
static bool load_same_head(const struct load *l, const struct model_tensor *row, size_t layer,
                           const struct model_view *v)
{
    const struct weight *head = &l->m->top.head;
    const uint8_t *panels = view_panels(l, row, v);
    if (load_trains(l) && layer != SIZE_MAX && row->offset == BLOCK(mtp_embed))
        return load_same_view(l, MODEL_TOP_EMBED, v);
    if (load_trains(l) && layer != SIZE_MAX && row->offset == BLOCK(mtp_head))
        return load_same_view(l, l->m->cfg.tied ? MODEL_TOP_EMBED : MODEL_TOP_HEAD, v);
    if (layer == SIZE_MAX || row->offset != BLOCK(mtp_head) || head->type != v->t->type)
        return false;
    if (panels && head->pending && head->pending->mapped)
        return memcmp(head->pending->mapped, panels,
                      weight_matrix_bytes(l->c->kern, head->type, head->rows, head->cols)) == 0;
    return v->t->data && head->from.at &&
           memcmp(head->from.at, v->t->data, head->rows * head->row_bytes) == 0;
}

static void load_progress(void *arg, uint64_t bytes)
{
    struct load *l = arg;
    l->done += bytes;
    if (l->o && l->o->progress)
        l->o->progress(l->o->arg, l->done, l->total);
}

/* A weight's rows in the file, to be forgotten when they are packed. */
struct load_rows {
    const struct source *src;
    const struct source_tensor *t;
    uint64_t row0, rows;
};

static void load_drop(const void *arg)
{
    const struct load_rows *r = arg;
    source_rows_drop(r->src, r->t, r->row0, r->rows);
}

static int load_later(struct load *l, struct weight *w, const struct quant_type *type,
                      const struct model_view *v, const struct weight_rows *from, struct err *e)
{
    struct load_rows *r = arena_alloc(&l->m->arena, sizeof *r, e);
    if (!r)
        return ERR_NOMEM;
    *r = (struct load_rows){l->m->src, v->t, v->row0, v->rows};
    return weight_later(w, v->t->name, type, v->rows, v->cols, from, l->c->kern, &l->m->store,
                        (struct weight_done){load_drop, r}, e);
}

/* A weight of the base, with the adapter's product beside it if there is one. */
static int load_from_base(struct load *l, struct weight *w, const struct weight *shared,
                          const struct model_tensor *row, size_t layer, size_t index,
                          const struct model_view *v, struct err *e)
{
    struct weight_rows from = {.at = NULL};
    const struct quant_type *type = shared->type;
    *w = *shared;
    w->lora = NULL;
    load_count(l, row, layer, w);
    return row->rows == DIM_ONE ? 0
                                : load_adapt(l, row, layer, index, v, &from, &type, &w->lora, e);
}

static int load_one(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                    const struct model_view *v, struct err *e)
{
    struct load *l = arg;
    struct model *m = l->m;
    struct weight *w = load_slot(l, row, layer, index, e);
    struct weight_rows from;
    load_turn_to(l, row, layer, index);
    if (!w)
        return ERR_NOMEM;
    const struct weight *shared = load_shared(l, row, layer, index);
    if (shared)
        return load_from_base(l, w, shared, row, layer, index, v, e);
    int rc = view_rows(&from, &m->arena, v, e);
    if (rc)
        return rc;
    if (load_same_head(l, row, layer, v))
        return 0;
    const struct source_compact *compact = view_compact(l, row, v);
    const struct quant_type *type = compact ? compact->type : view_rows_type(v);
    const struct weight_lora *lora = NULL;
    if (row->rows == DIM_ONE)
        type = v->t->type;
    if (compact)
        from = (struct weight_rows){.make = rows_of_compact, .arg = v->t};
    if (load_adapter(l))
        rc = load_adapt(l, row, layer, index, v, &from, &type, &lora, e);
    if (!rc && l->own && row->rows != DIM_ONE && type->id != QUANT_F32)
        rc = load_sum(l, v, &(struct lora_pair){.rank = 0}, &from, &type, e);
    if (rc)
        return rc;
    const uint8_t *panels = from.make == rows_of_parts ? view_panels(l, row, v) : NULL;
    bool pack = l->own || (!load_looked_up(l, row) &&
                           (row->flags & TENSOR_EXPERTS ? l->pack_experts : l->pack));
    /* Rows that are made out of panels are pending only where nothing has to be packed. */
    bool later = pack && row->rows != DIM_ONE && type == v->t->type && !l->own &&
                 (from.at || (v->t->panels && !weight_has_kernel(l->c->kern, type)));
    if (row->rows == DIM_ONE)
        rc = weight_vector(w, v->t->name, type, v->cols, &from, &m->store, e);
    else if (panels)
        rc = weight_mapped(w, v->t->name, type, v->rows, v->cols, &from, panels, l->c->kern,
                           &m->store, e);
    else if (later)
        rc = load_later(l, w, type, v, &from, e);
    else
        rc = weight_matrix(w, v->t->name, type, v->rows, v->cols, &from, l->c->kern, l->c->team,
                           pack ? &m->store : NULL, e);
    if (!rc && load_halves(l, row, layer))
        rc = weight_halve(w, l->c->kern, l->c->team, &m->store, e);
    if (rc)
        return rc;
    w->lora = lora;
    w->order = compact ? compact->order : NULL;
    load_count(l, row, layer, w);
    if (row->rows != DIM_ONE && !load_looked_up(l, row) && (panels ? l->spills : !pack))
        m->mapped_bytes += (uint64_t)w->rows * w->row_bytes;
    /* The file's pages go when the last weight in them is packed. */
    if (w->panels && type == v->t->type && index + 1 == model_count(&m->cfg, row))
        source_tensor_drop(m->src, v->t);
    if (panels && !l->spills)
        m->panel_bytes += weight_matrix_bytes(l->c->kern, type, v->rows, v->cols);
    if (!later && !panels)
        load_progress(l, view_bytes(l, row, v));
    return 0;
}

/* What is packed: all, all but the experts, or nothing. */
static int load_plan(struct load *l, struct err *e)
{
    enum model_place place = l->o && !l->o->train ? l->o->place : MODEL_PACKED;
    size_t all;
    if (!num_add(&all, l->store_bytes, l->expert_bytes))
        return err_set(e, ERR_LIMIT, "the weights do not fit into memory");
    l->pack = place == MODEL_PACKED || (place == MODEL_AUTO && l->store_bytes <= l->o->memory);
    l->pack_experts = place == MODEL_PACKED || (place == MODEL_AUTO && all <= l->o->memory);
    l->spills = place == MODEL_MAPPED || (place == MODEL_AUTO && l->panel_bytes > l->o->memory);
    return weight_store_init(&l->m->store, l->pack_experts ? all : l->store_bytes, e);
}

int model_load(struct model **out, const struct source *src, const struct model_config *cfg,
               struct op_ctx *c, const struct model_load_opts *o, struct err *e)
{
    *out = NULL;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "the model");
    struct load l = {.m = m, .c = c, .o = o};
    bool mtp = o && o->mtp;
    m->src = src;
    m->base = o ? o->base : NULL;
    /* What an adapter brings is bounded by its file, times the heads of kv_b_proj at most. */
    arena_init(&m->arena, o && o->adapter ? SIZE_MAX / 2 : LOAD_ARENA_MAX);
    arena_init(&l.pairs, SIZE_MAX / 2);
    int rc = 0;
    m->cfg = *cfg;
    m->cfg.mla_expanded = o && o->mla_expanded && cfg->arch->mla;
    if (mtp && !m->cfg.n_mtp) {
        rc = err_set(e, ERR_UNSUPPORTED,
                     "no multi-token prediction layer in this model: --draft mtp and --mtp need "
                     "DeepSeek-V3 or R1 with theirs");
        goto out;
    }
    if (m->base && (!o->adapter || o->merge || o->adapt || load_trains(&l))) {
        rc = err_set(e, ERR_USAGE, "weights are shared by models with adapters beside them only");
        goto out;
    }
    if (load_trains(&l) && o->adapt) {
        rc = err_set(e, ERR_USAGE, "either the weights are trained, or an adapter");
        goto out;
    }
    if (o && (o->train || o->adapt) && m->cfg.mla_expanded) {
        rc = err_set(e, ERR_UNSUPPORTED, "training takes the absorbed form of latent attention");
        goto out;
    }
    m->n_block = m->cfg.n_layer + (mtp ? m->cfg.n_mtp : 0);
    m->block = calloc(m->n_block, sizeof *m->block);
    m->rope = calloc(m->cfg.d_rope / 2, sizeof *m->rope);
    if (o && o->adapter)
        l.used = calloc(adapter_count(o->adapter), sizeof *l.used);
    if (!m->block || !m->rope || (o && o->adapter && !l.used)) {
        rc = err_nomem(e, m->n_block * sizeof *m->block, "the model");
        goto out;
    }
    if ((rc = model_rope_freqs(m->rope, &m->cfg, src, e)) ||
        (rc = model_walk(src, &m->cfg, mtp, load_size, &l, e)) || (rc = load_plan(&l, e)) ||
        (rc = model_walk(src, &m->cfg, mtp, load_one, &l, e)) ||
        (o && o->adapt && (rc = model_adapt_init(m, c, o, l.used, e))) ||
        (rc = load_adapter_check(&l, e)))
        goto out;
    if (!(o && o->later) &&
        (rc = weight_store_settle(&m->store, c->kern, c->team, load_progress, &l, e)))
        goto out;
    if (m->cfg.tied)
        m->top.head = m->top.embed;
    if (load_trains(&l))
        model_share(m);
    if (m->base)
        m->mapped_bytes = m->base->mapped_bytes;
    *out = m;
    m = NULL;
out:
    arena_release(&l.pairs);
    free(l.used);
    model_free(m);
    return rc;
}

void model_pass(struct model *m, size_t tokens)
{
    weight_store_pass(m->base ? &m->base->store : &m->store, tokens);
}

int model_sound(const struct model *m, struct err *e)
{
    return weight_store_check(m->base ? &m->base->store : &m->store, e);
}

int model_settle(struct model *m, const struct op_ctx *c, struct err *e)
{
    return weight_store_settle(m->base ? &m->base->store : &m->store, c->kern, c->team, NULL, NULL,
                               e);
}

void model_free(struct model *m)
{
    if (!m)
        return;
    weight_store_release(&m->store);
    weight_store_release(&m->lora_store);
    arena_release(&m->arena);
    free(m->block);
    free(m->rope);
    free(m);
}
