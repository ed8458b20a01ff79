/*
 * Which tensors the output has: the source's own when the kind of files stays the same, else those
 * of the architecture's tables (model/arch.h) under their other names.
 *
 * What differs between the two kinds besides names:
 *   - GGUF files of llama and the first DeepSeek hold the rotated rows of q and k in pairs, Hugging
 *     Face's in halves (model_arch.gguf_rope_half, hf_rope_pairs);
 *   - GGUF stacks the experts of a layer into one tensor, Hugging Face has a tensor for each;
 *   - Hugging Face's kv_b_proj of a latent attention is attn_k_b (transposed) and attn_v_b in GGUF;
 *   - llama 3's scaling of the rotation is a tensor of factors in GGUF.
 */
#include "base/num.h"
#include "convert/plan.h"

#include <string.h>

enum { NAME_MAX_BYTES = 192 };

static int no_type(const struct source_tensor *s, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\" has the type %s, which cannot be converted",
                   s->name, s->dtype);
}

/* The tensor as it is. */
static int add_whole(struct convert_plan *p, const struct source_tensor *s, struct err *e)
{
    if (!s->type)
        return no_type(s, e);
    struct convert_tensor *t = plan_add(p, s->name, e);
    struct convert_run *u = t ? plan_runs(p, 1, e) : NULL;
    if (!u)
        return ERR_NOMEM;
    t->dims = s->dims;
    memcpy(t->shape, s->shape, sizeof t->shape);
    t->from = s->dtype;
    t->runs = u;
    t->n_runs = 1;
    *u = (struct convert_run){.t = s, .rows = plan_height(t)};
    return 0;
}

static int add_same(struct convert_plan *p, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < source_tensor_count(p->src); i++)
        rc = add_whole(p, source_tensor_at(p->src, i), e);
    return rc;
}

/* ---- with the other names ---------------------------------------------------------------------
 */

static void set_shape(struct convert_tensor *t, size_t outer, size_t rows, size_t cols)
{
    size_t dim[] = {outer, rows, cols};
    int skip = outer ? 0 : rows ? 1 : 2;
    t->dims = 3 - skip;
    for (int i = 0; i < SOURCE_DIMS; i++)
        t->shape[i] = i < t->dims ? dim[i + skip] : 1;
}

/* A tensor for `runs` runs, of `outer` matrices (0: a plain one; rows = 0: a vector). */
static struct convert_tensor *add_tensor(struct convert_plan *p, const char *name,
                                         const struct source_tensor *s, size_t runs, size_t outer,
                                         size_t rows, size_t cols, struct err *e)
{
    struct convert_tensor *t = plan_add(p, name, e);
    struct convert_run *u = t ? plan_runs(p, runs, e) : NULL;
    if (!u)
        return NULL;
    set_shape(t, outer, rows, cols);
    t->from = s->dtype;
    t->runs = u;
    return t;
}

static void add_run(struct convert_tensor *t, struct convert_run run)
{
    struct convert_run *u = t->runs;
    u[t->n_runs++] = run;
}

/* A bias in another order: its values are its rows. */
static int add_vector(struct convert_plan *p, const char *name, const struct source_tensor *s,
                      enum convert_how how, struct err *e)
{
    size_t n = (size_t)s->shape[0], d = p->cfg.d_head;
    struct convert_tensor *t = plan_add(p, name, e);
    float *v = t ? arena_array(&p->arena, n, sizeof *v, e) : NULL;
    float *in = v ? arena_array(&p->arena, n, sizeof *in, e) : NULL;
    if (!in)
        return ERR_NOMEM;
    s->type->decode(in, s->data, n);
    for (size_t i = 0; i < n; i++)
        v[i] = in[plan_row_order(how, d, i)];
    set_shape(t, 0, 0, n);
    t->from = s->dtype;
    t->values = v;
    return 0;
}

/* How the rows of q and k change their order between the kinds of files. */
static enum convert_how rotated_how(const struct convert_plan *p, const struct model_tensor *row,
                                    bool top)
{
    const struct model_arch *a = p->cfg.arch;
    bool rotated = row->offset == BLOCK(q) || row->offset == BLOCK(k) ||
                   row->offset == BLOCK(q_bias) || row->offset == BLOCK(k_bias);
    if (top || !rotated || a->gguf_rope_half == !a->hf_rope_pairs)
        return RUN_PLAIN;
    return (p->o.format == CONVERT_GGUF) == a->gguf_rope_half ? RUN_TO_HALVES : RUN_TO_PAIRS;
}

/* One head's part of kv_b_proj: d_nope rows of keys, then d_v rows of values. */
static int add_kv_b(struct convert_plan *p, const char *name, bool keys, size_t head,
                    const struct model_view *v, struct err *e)
{
    const struct model_config *f = &p->cfg;
    struct convert_tensor *t = NULL;
    if (keys && head == 0)
        t = add_tensor(p, name, v->t, 2 * f->n_head, 0, f->n_head * (f->d_nope + f->d_v),
                       f->kv_lora, e);
    for (size_t i = p->n; !t && i-- > 0;)
        if (strcmp(p->tensors[i].name, name) == 0)
            t = &p->tensors[i];
    if (!t || !t->runs)
        return e->code ? e->code : ERR_NOMEM;
    struct convert_run *u = t->runs;
    t->n_runs = 2 * f->n_head;
    if (keys && !v->transposed) /* the weight is (kv_lora, d_nope): its columns are our rows */
        u[2 * head] = (struct convert_run){.t = v->t,
                                           .row0 = (size_t)v->row0,
                                           .rows = f->d_nope,
                                           .how = RUN_TRANSPOSED,
                                           .group = f->kv_lora};
    else
        u[2 * head + !keys] = (struct convert_run){
            .t = v->t, .row0 = (size_t)v->row0, .rows = keys ? f->d_nope : f->d_v};
    return 0;
}

static int add_weight(void *arg, const struct model_tensor *row, size_t layer, size_t index,
                      const struct model_view *v, struct err *e)
{
    struct convert_plan *p = arg;
    char name[NAME_MAX_BYTES];
    bool gguf = p->o.format == CONVERT_GGUF, many = row->flags & (TENSOR_EXPERTS | TENSOR_HEADS);
    enum convert_how how = rotated_how(p, row, layer == SIZE_MAX);
    if ((row->flags & TENSOR_HEAD) && p->cfg.tied)
        return 0;
    if (!v->t->type)
        return no_type(v->t, e);
    if (!model_tensor_name(name, sizeof name, row, gguf, layer == SIZE_MAX ? 0 : layer, index))
        return err_set(e, ERR_LIMIT, "tensor \"%s\": its other name is too long", v->t->name);
    if (!gguf && strstr(row->hf, "#k"))
        return add_kv_b(p, name, true, index, v, e);
    if (!gguf && strstr(row->hf, "#v"))
        return add_kv_b(p, name, false, index, v, e);
    if (row->rows == DIM_ONE && how != RUN_PLAIN)
        return add_vector(p, name, v->t, how, e);
    struct convert_tensor *t = p->n ? &p->tensors[p->n - 1] : NULL;
    if (!index || !t || strcmp(t->name, name) != 0) {
        size_t count = many && gguf ? model_count(&p->cfg, row) : 0;
        t = add_tensor(p, name, v->t, count ? count : 1, count, row->rows == DIM_ONE ? 0 : v->rows,
                       v->cols, e);
        if (!t)
            return ERR_NOMEM;
    }
    add_run(t, (struct convert_run){.t = v->t,
                                    .row0 = (size_t)v->row0,
                                    .rows = v->rows,
                                    .how = v->transposed ? RUN_TRANSPOSED : how,
                                    .group = v->transposed ? v->cols : p->cfg.d_head});
    return 0;
}

/* llama 3's scaling is no key in GGUF: a factor for every pair, by which its frequency is divided.
 */
static int add_rope_factors(struct convert_plan *p, struct err *e)
{
    size_t n = p->cfg.d_rope / 2;
    struct model_config plain = p->cfg;
    double scaled[2048], base[2048];
    if (p->cfg.rope_scaling != ROPE_LLAMA3)
        return 0;
    if (n > NUM_COUNT(base))
        return err_set(e, ERR_LIMIT, "%zu rotated values in a head", 2 * n);
    plain.rope_scaling = ROPE_NONE;
    int rc = model_rope_freqs(scaled, &p->cfg, p->src, e);
    if (!rc)
        rc = model_rope_freqs(base, &plain, p->src, e);
    if (rc)
        return rc;
    struct convert_tensor *t = plan_add(p, "rope_freqs.weight", e);
    float *v = t ? arena_array(&p->arena, n, sizeof *v, e) : NULL;
    if (!v)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(base[i] / scaled[i]);
    set_shape(t, 0, 0, n);
    t->from = "config";
    t->values = v;
    return 0;
}

int plan_tensors(struct convert_plan *p, struct err *e)
{
    bool gguf = p->o.format == CONVERT_GGUF;
    if (gguf == (source_kind(p->src) == SOURCE_GGUF))
        return add_same(p, e);
    int rc = model_check(p->src, &p->cfg, e);
    p->is_model = !rc;
    if (!rc)
        rc = model_walk(p->src, &p->cfg, true, add_weight, p, e);
    return rc || !gguf ? rc : add_rope_factors(p, e);
}
