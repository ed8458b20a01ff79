/*
 * LoRA adapters on the weights of a model (format/adapter.h): which module belongs to which weight,
 * and its two matrices in the order of that weight's rows.
 *
 * An adapter's file and the model's may differ in spelling, and in the order of rows: GGUF files of
 * llama have the rows of q and k of a head in pairs (first half and second half interleaved),
 * Hugging Face's have the halves one after the other. Slices of kv_b_proj take their rows of B;
 * where the slice is transposed, so is the product: (B A)ᵀ = Aᵀ Bᵀ.
 */
#include "model/arch.h"

#include "base/num.h"

#include <string.h>

/* Which rows of an adapter's matrix are taken: from row0 on, those of a head of `turn` rows (0: as
 * they are) in the other order. */
struct lora_rows {
    size_t row0, n, turn;
    bool to_pairs;
};

size_t model_turned_row(size_t r, size_t d, bool to_pairs)
{
    size_t head = r / d * d, i = r % d;
    return head + (to_pairs ? i % 2 * (d / 2) + i / 2 : i % (d / 2) * 2 + i / (d / 2));
}

/* Rows of a matrix as F32: (n, columns of t), or transposed. */
static float *lora_floats(const struct source_tensor *t, const struct lora_rows *take,
                          bool transposed, struct arena *arena, struct err *e)
{
    size_t cols = (size_t)t->shape[1], n;
    if (!num_mul(&n, take->n, cols)) {
        err_set(e, ERR_LIMIT, "tensor \"%s\" is too large", t->name);
        return NULL;
    }
    float *out = arena_array(arena, n, sizeof *out, e);
    float *value = out ? arena_array(arena, cols, sizeof *value, e) : NULL;
    uint8_t *row = value ? arena_alloc(arena, source_row_bytes(t), e) : NULL;
    if (!row)
        return NULL;
    for (size_t r = 0; r < take->n; r++) {
        size_t from = take->turn ? model_turned_row(r, take->turn, take->to_pairs) : r;
        source_rows(t, take->row0 + from, 1, row, source_row_bytes(t));
        t->type->decode(value, row, cols);
        for (size_t c = 0; c < cols; c++)
            out[transposed ? c * take->n + r : r * cols + c] = value[c];
    }
    return out;
}

int model_lora_whole(struct lora_pair *out, const struct adapter_module *m, struct arena *arena,
                     struct err *e)
{
    struct lora_rows of_a = {.n = (size_t)m->a->shape[0]}, of_b = {.n = (size_t)m->b->shape[0]};
    out->rank = of_a.n;
    out->a = lora_floats(m->a, &of_a, false, arena, e);
    out->b = out->a ? lora_floats(m->b, &of_b, false, arena, e) : NULL;
    out->scale = (float)m->scale;
    return out->b ? 0 : e ? e->code : ERR_NOMEM;
}

/* The module that any spelling of the row's name means. */
static const struct adapter_module *lora_module(const struct adapter *a,
                                                const struct model_tensor *row, size_t layer,
                                                size_t index, struct model_name *name)
{
    const char *s = adapter_is_gguf(a) ? row->gguf : row->hf;
    while (*s && model_name_next(name, &s, layer, index)) {
        size_t n = strlen(name->text), k = strlen(".weight");
        if (n > k && !strcmp(name->text + n - k, ".weight"))
            name->text[n - k] = 0;
        const struct adapter_module *m = adapter_find(a, name->text);
        if (m)
            return m;
    }
    return NULL;
}

size_t model_lora_rank(const struct adapter *a, const struct model_tensor *row, size_t layer,
                       size_t index)
{
    struct model_name name;
    const struct adapter_module *m = lora_module(a, row, layer, index, &name);
    return m ? (size_t)m->a->shape[0] : 0;
}

int model_lora_pair(struct lora_pair *out, const struct adapter *a, const struct source *src,
                    const struct model_config *f, const struct model_tensor *row, size_t layer,
                    size_t index, const struct model_view *v, struct arena *arena, struct err *e)
{
    struct model_name name;
    *out = (struct lora_pair){.rank = 0};
    const struct adapter_module *m =
        row->rows == DIM_ONE ? NULL : lora_module(a, row, layer, index, &name);
    if (!m)
        return 0;
    size_t heads = model_count(f, row), wide = v->cols, tall = v->rows, row0 = 0, all;
    if (name.part == PART_K || name.part == PART_KT || name.part == PART_V) {
        tall = f->d_nope + f->d_v;
        wide = f->kv_lora;
        row0 = index * tall + (name.part == PART_V ? f->d_nope : 0);
        all = heads * tall;
    } else if (name.part == PART_ALL && (name.each || heads == 1)) {
        all = tall;
    } else {
        return err_set(e, ERR_UNSUPPORTED, "%s: module '%s' covers several matrices",
                       adapter_path(a), m->name);
    }
    if (m->a->shape[1] != wide || m->b->shape[0] != all)
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s' is for a matrix of %llu x %llu, the model has %zu x %zu",
                       adapter_path(a), m->name, (unsigned long long)m->b->shape[0],
                       (unsigned long long)m->a->shape[1], all, wide);
    bool base_gguf = source_kind(src) == SOURCE_GGUF, turned = name.part == PART_K;
    struct lora_rows of_a = {.n = (size_t)m->a->shape[0]};
    struct lora_rows of_b = {.row0 = row0, .n = turned ? v->cols : v->rows, .to_pairs = base_gguf};
    if (base_gguf != adapter_is_gguf(a) && !f->arch->gguf_rope_half && !f->arch->mla &&
        (row->offset == BLOCK(q) || row->offset == BLOCK(k)))
        of_b.turn = f->d_head;
    float *ma = lora_floats(m->a, &of_a, turned, arena, e);
    float *mb = ma ? lora_floats(m->b, &of_b, turned, arena, e) : NULL;
    if (!mb)
        return e ? e->code : ERR_NOMEM;
    /* The weight's columns are rows of B when it is a transposed slice: (B A)ᵀ = Aᵀ Bᵀ. */
    *out = (struct lora_pair){.rank = of_a.n,
                              .a = turned ? mb : ma,
                              .b = turned ? ma : mb,
                              .scale = (float)m->scale,
                              .module = (size_t)(m - adapter_at(a, 0))};
    return 0;
}

int model_lora_module(struct lora_pair *out, const struct adapter *a, const struct model_param *p,
                      struct arena *arena, struct err *e)
{
    struct model_name name;
    const struct adapter_module *m = lora_module(a, p->row, p->layer, p->index, &name);
    if (!m || adapter_is_gguf(a))
        return err_set(e, ERR_UNSUPPORTED,
                       "%s: an adapter of %s can be trained on in PEFT's form only",
                       adapter_path(a), p->name);
    if (m->a->shape[1] != p->cols || m->b->shape[0] != p->rows)
        return err_set(e, ERR_FORMAT,
                       "%s: module '%s' is for a matrix of %llu x %llu, the model has %zu x %zu",
                       adapter_path(a), m->name, (unsigned long long)m->b->shape[0],
                       (unsigned long long)m->a->shape[1], p->rows, p->cols);
    out->module = (size_t)(m - adapter_at(a, 0));
    return model_lora_whole(out, m, arena, e);
}

void model_lora_add(const struct lora_pair *p, size_t r, float *row, size_t cols)
{
    for (size_t k = 0; k < p->rank; k++) {
        float b = p->scale * p->b[r * p->rank + k];
        const float *a = p->a + k * cols;
        for (size_t c = 0; c < cols; c++)
            row[c] += b * a[c];
    }
}
