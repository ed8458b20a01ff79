/*
 * bitsandbytes, 4 bit (Dettmers et al. 2023, "QLoRA"): codes of 16 levels with a scale for each
 * block of the flattened weight, which may be quantized in turn ("double quantization").
 *
 *   X.weight                     two codes a byte, the first in the high nibble; any dtype
 *   X.weight.absmax              F32 [blocks], or U8 [blocks] when nested
 *   X.weight.quant_map           F32 [16]: the levels
 *   X.weight.nested_absmax       F32 [blocks of blocks]
 *   X.weight.nested_quant_map    F32 [256]
 *   X.weight.quant_state.bitsandbytes__nf4 (or fp4)   bytes of a JSON object: the shape, sizes of
 *                                blocks, and "nested_offset", the mean of the scales
 *
 * weight = level[code] × absmax, where a nested absmax is map[u8] × nested_absmax + offset, all in
 * float32. Rows have the form NF4 or FP4 where they consist of whole blocks of 64 and the levels
 * are the known ones, else F32.
 */
#include "format/jsonin.h"
#include "format/parts.h"

#include "base/num.h"

#include <string.h>

enum { LEVELS = 16, NESTED_LEVELS = 256, FORM_BLOCK = 64, FORM_BYTES = 36, STATE_MAX = 1 << 16 };

static const struct jsonin_limits state_limits = {.depth = 4, .containers = 64, .values = 256};

enum { PART_WEIGHT, PART_STATE, PART_ABSMAX, PART_MAP, PART_NESTED_ABSMAX, PART_NESTED_MAP };

static inline float f32_at(const struct source_tensor *t, size_t i)
{
    float f;

    memcpy(&f, t->data + 4 * i, sizeof f);
    return f;
}

/* The scale of value i of the flat tensor. */
static float absmax_at(const struct source_parts *p, size_t i)
{
    const struct parts_levels *l = &p->levels;
    size_t b = i / l->block;

    if (!p->part[PART_NESTED_ABSMAX])
        return f32_at(p->part[PART_ABSMAX], b);
    return f32_at(p->part[PART_NESTED_MAP], p->part[PART_ABSMAX]->data[b]) *
               f32_at(p->part[PART_NESTED_ABSMAX], b / l->nested_block) +
           l->nested_offset;
}

static void rows_levels(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                        size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t cols = (size_t)t->shape[t->dims - 1];

    for (size_t r = 0; r < n; r++) {
        size_t flat = (size_t)(r0 + r) * cols;
        uint8_t *to = dst + r * stride;
        for (size_t k = 0; k < cols; k += FORM_BLOCK, to += FORM_BYTES) {
            float a = absmax_at(p, flat + k);
            memcpy(to, &a, sizeof a);
            memcpy(to + 4, p->part[PART_WEIGHT]->data + (flat + k) / 2, FORM_BLOCK / 2);
        }
    }
}

static void rows_f32(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                     size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t cols = (size_t)t->shape[t->dims - 1];

    for (size_t r = 0; r < n; r++)
        for (size_t k = 0; k < cols; k++) {
            size_t i = (size_t)(r0 + r) * cols + k;
            uint8_t byte = p->part[PART_WEIGHT]->data[i / 2], code = i % 2 ? byte & 15 : byte >> 4;
            float w = f32_at(p->part[PART_MAP], code) * absmax_at(p, i);
            memcpy(dst + r * stride + 4 * k, &w, sizeof w);
        }
}

/* ---- opening ------------------------------------------------------------------------------------
 */

struct state {
    int dims;
    uint64_t shape[SOURCE_DIMS];
    size_t count; /* values */
    const char *type;
};

static int state_size(const json_t *state, const char *key, size_t *out, struct err *e)
{
    const json_t *v = json_object_get(state, key);

    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT32_MAX)
        return err_set(e, ERR_FORMAT, "'%s' has to be a whole number of 1 or more", key);
    *out = (size_t)json_integer_value(v);
    return 0;
}

static int state_shape(const json_t *state, struct state *st, struct err *e)
{
    const json_t *shape = json_object_get(state, "shape");
    size_t n = json_array_size(shape);

    if (n < 1 || n > SOURCE_DIMS)
        return err_set(e, ERR_FORMAT, "'shape' has to be an array of 1 to %d sizes", SOURCE_DIMS);
    st->dims = (int)n;
    st->count = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(shape, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0)
            return err_set(e, ERR_FORMAT, "dimension %zu of 'shape' is %s", i,
                           json_is_integer(v) ? "negative" : jsonin_kind(v));
        st->shape[i] = (uint64_t)json_integer_value(v);
        if (!num_mul(&st->count, st->count, (size_t)st->shape[i]))
            return err_set(e, ERR_FORMAT, "the product of 'shape' overflows");
    }
    return 0;
}

/* The JSON of the quantization state. */
static int read_state(const struct source_tensor *mark, bool nested, struct state *st,
                      struct parts_levels *l, struct err *e)
{
    json_t *state = NULL, *v;
    int rc;

    if (mark->bytes > STATE_MAX)
        return err_set(e, ERR_LIMIT, "a quantization state of %zu bytes", mark->bytes);
    rc = jsonin_object(&state, (const char *)mark->data, mark->bytes, &state_limits, true, e);
    if (!rc && (!json_is_string(v = json_object_get(state, "quant_type")) ||
                strcmp(json_string_value(v), st->type) != 0))
        rc = err_set(e, ERR_FORMAT, "'quant_type' has to be \"%s\"", st->type);
    if (!rc)
        rc = state_shape(state, st, e);
    if (!rc)
        rc = state_size(state, "blocksize", &l->block, e);
    if (!rc && nested) {
        rc = state_size(state, "nested_blocksize", &l->nested_block, e);
        v = json_object_get(state, "nested_offset");
        if (!rc && !json_is_number(v))
            rc = err_set(e, ERR_FORMAT, "'nested_offset' has to be a number, it is %s",
                         jsonin_kind(v));
        l->nested_offset = (float)json_number_value(v);
    }
    json_decref(state);
    return rc ? err_ctx(e, "the quantization state") : 0;
}

static size_t blocks_of(size_t n, size_t block)
{
    return n / block + (n % block != 0);
}

static int check_sizes(struct source_parts *p, const struct state *st, struct err *e)
{
    const struct source_tensor *nested = p->part[PART_NESTED_ABSMAX], *w = p->part[PART_WEIGHT];
    size_t blocks = blocks_of(st->count, p->levels.block);
    int rc = compose_shape(p->part[PART_ABSMAX], nested ? "U8" : "F32", 1, blocks, 1, e);

    if (!rc && w->bytes != st->count / 2 + st->count % 2)
        rc = err_set(e, ERR_FORMAT, "%zu bytes of codes for the %zu values of its shape", w->bytes,
                     st->count);
    if (!rc)
        rc = compose_shape(p->part[PART_MAP], "F32", 1, LEVELS, 1, e);
    if (!rc && nested)
        rc = compose_shape(nested, "F32", 1, blocks_of(blocks, p->levels.nested_block), 1, e);
    if (!rc && nested)
        rc = compose_shape(p->part[PART_NESTED_MAP], "F32", 1, NESTED_LEVELS, 1, e);
    return rc;
}

static int compose_levels(struct compose *c, struct stem stem, const char *type, enum quant_id form,
                          struct err *e)
{
    struct source_parts p = {.part = {compose_part(c, stem, ".weight"), stem.mark}};
    struct state st = {.type = type};
    const struct source_tensor *nested = compose_part(c, stem, ".weight.nested_absmax");
    int rc;

    if (!p.part[PART_WEIGHT])
        return 0; /* it is in another file */
    rc = read_state(stem.mark, nested != NULL, &st, &p.levels, e);
    if (!rc)
        rc = compose_need(&p.part[PART_ABSMAX], c, stem, ".weight.absmax", e);
    if (!rc)
        rc = compose_need(&p.part[PART_MAP], c, stem, ".weight.quant_map", e);
    p.part[PART_NESTED_ABSMAX] = nested;
    if (!rc && nested)
        rc = compose_need(&p.part[PART_NESTED_MAP], c, stem, ".weight.nested_quant_map", e);
    if (!rc)
        rc = check_sizes(&p, &st, e);
    if (rc)
        return rc;
    if (st.shape[st.dims - 1] % FORM_BLOCK || p.levels.block % FORM_BLOCK ||
        memcmp(p.part[PART_MAP]->data, quant_levels(form), LEVELS * sizeof(float)) != 0)
        form = QUANT_F32;
    p.rows = form == QUANT_F32 ? rows_f32 : rows_levels;
    return compose_put(c, stem, &p, quant_by_id(form), type[0] == 'n' ? "BNB-NF4" : "BNB-FP4",
                       st.dims, st.shape, e);
}

int compose_nf4(struct compose *c, struct stem stem, struct err *e)
{
    return compose_levels(c, stem, "nf4", QUANT_NF4, e);
}

int compose_fp4(struct compose *c, struct stem stem, struct err *e)
{
    return compose_levels(c, stem, "fp4", QUANT_FP4, e);
}
