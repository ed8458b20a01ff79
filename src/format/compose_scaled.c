/*
 * Weights of one byte with scales: FP8 (X.weight F8_E4M3 with X.weight_scale_inv or
 * X.weight_scale) and int8 (X.weight I8 with X.weight_scale, or with bitsandbytes' X.SCB).
 *
 * The weight is code × scale, "inv" or not. Scales are for the whole tensor, for each row, or for
 * blocks of rows and columns ("weight_block_size", 128 × 128 unless config.json says otherwise);
 * the last block of a row or column may be smaller. Which of them it is the shape of the scales
 * says. bitsandbytes stores the largest magnitude of each row, 127 times the scale (Dettmers et al.
 * 2022, "LLM.int8()").
 *
 * The row forms FP8 and I8 have a scale for 128 columns; where blocks are no multiple of that, and
 * for e5m2 codes, rows are given as F32.
 */
#include "format/parts.h"

#include "base/num.h"

#include <string.h>

enum { SCALED_BLOCK = 128, SCALED_BYTES = 4 + SCALED_BLOCK };

static float int8_value(uint8_t code)
{
    return (float)(int8_t)code;
}

static const struct {
    const char *dtype; /* of the weight */
    const char *name;  /* of the logical tensor */
    enum quant_id form;
    float (*value)(uint8_t code);
} codes[] = {
    {"F8_E4M3", "FP8", QUANT_FP8, quant_e4m3_to_f32},
    {"F8_E5M2", "FP8-E5M2", QUANT_F32, quant_e5m2_to_f32},
    {"I8", "INT8", QUANT_I8, int8_value},
};

static float scale_at(const struct source_parts *p, uint64_t row, size_t col)
{
    const struct parts_scaled *s = &p->scaled;
    size_t i = (size_t)(row / s->block_rows) * s->scale_cols + col / s->block_cols;

    return part_float(p->part[1], i) / s->divisor;
}

/* Rows as FP8 or I8: the codes as they are, the scale in front of 128 of them. */
static void rows_bytes(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                       size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t cols = (size_t)t->shape[1];

    for (size_t i = 0; i < n; i++) {
        const uint8_t *code = p->part[0]->data + (size_t)(r0 + i) * cols;
        uint8_t *to = dst + i * stride;
        for (size_t k = 0; k < cols; k += SCALED_BLOCK, to += SCALED_BYTES) {
            size_t take = num_min(cols - k, SCALED_BLOCK);
            float d = scale_at(p, r0 + i, k);
            memcpy(to, &d, sizeof d);
            memcpy(to + 4, code + k, take);
            memset(to + 4 + take, 0, SCALED_BLOCK - take);
        }
    }
}

static void rows_f32(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                     size_t stride)
{
    const struct source_parts *p = t->parts;
    size_t cols = (size_t)t->shape[1];

    for (size_t i = 0; i < n; i++) {
        const uint8_t *code = p->part[0]->data + (size_t)(r0 + i) * cols;
        for (size_t k = 0; k < cols; k++) {
            float w = p->scaled.value(code[k]) * scale_at(p, r0 + i, k);
            memcpy(dst + i * stride + 4 * k, &w, sizeof w);
        }
    }
}

static size_t blocks_of(uint64_t n, size_t block)
{
    return (size_t)(n / block + (n % block != 0));
}

static int block_size(const struct source *s, size_t block[2], struct err *e)
{
    const struct source_value *v = source_value(s, "quantization_config.weight_block_size");

    block[0] = block[1] = SCALED_BLOCK;
    if (!v || v->type == SOURCE_NULL)
        return 0;
    for (uint64_t i = 0; i < 2; i++) {
        struct source_value x;
        if (v->type != SOURCE_ARRAY || v->count != 2 || source_array_get(s, v, i, &x, NULL) ||
            x.type != SOURCE_INT || x.i < 1 || x.i > 1 << 30)
            return err_set(e, ERR_FORMAT,
                           "config.json: weight_block_size has to be two whole numbers of 1 or "
                           "more");
        block[i] = (size_t)x.i;
    }
    return 0;
}

/* What blocks the scales of a [rows, cols] weight are for, by their shape. */
static int scale_blocks(struct parts_scaled *p, const struct source *s,
                        const struct source_tensor *w, const struct source_tensor *scale,
                        struct err *e)
{
    uint64_t rows = w->shape[0], cols = w->shape[1], count = scale->bytes / scale->type->bytes;
    size_t block[2];
    int rc = block_size(s, block, e);

    if (rc)
        return rc;
    if (w->dims != 2)
        return err_set(e, ERR_UNSUPPORTED, "'%s' has %d dimensions, not 2",
                       name_show(w->name, strlen(w->name)).text, w->dims);
    p->block_rows = 1;
    p->block_cols = num_max((size_t)cols, 1);
    p->scale_cols = 1;
    if (count == 1 && scale->dims <= 2) {
        p->block_rows = num_max((size_t)rows, 1);
        return 0;
    }
    if (scale->dims == 1 || (scale->dims == 2 && scale->shape[0] == rows && scale->shape[1] == 1))
        return compose_shape(scale, NULL, scale->dims, rows, 1, e);
    p->block_rows = block[0];
    p->block_cols = block[1];
    p->scale_cols = blocks_of(cols, block[1]);
    return compose_shape(scale, NULL, 2, blocks_of(rows, block[0]), p->scale_cols, e);
}

static int put_scaled(struct compose *c, struct stem stem, const struct source_tensor *scale,
                      const char *name, struct source_parts *p, struct err *e)
{
    const struct source_tensor *w = p->part[0];
    enum quant_id form = QUANT_F32;
    size_t i = 0;

    while (i < NUM_COUNT(codes) && strcmp(codes[i].dtype, w->dtype) != 0)
        i++;
    if (i == NUM_COUNT(codes))
        return err_set(e, ERR_UNSUPPORTED, "scales of a weight of type %s", w->dtype);
    p->part[1] = scale;
    p->scaled.value = codes[i].value;
    if (p->scaled.block_cols % SCALED_BLOCK == 0 || p->scaled.block_cols >= w->shape[1])
        form = codes[i].form;
    p->rows = form == QUANT_F32 ? rows_f32 : rows_bytes;
    return compose_put(c, stem, p, quant_by_id(form), name ? name : codes[i].name, 2, w->shape, e);
}

/* X.weight_scale_inv or X.weight_scale. */
int compose_scaled(struct compose *c, struct stem stem, struct err *e)
{
    const struct source_tensor *scale = stem.mark, *w = compose_part(c, stem, ".weight");
    struct source_parts p = {.part = {w}, .scaled.divisor = 1};
    int rc;

    if (!w) /* of a scheme that is not known here, or the weight is in another file */
        return 0;
    if (!scale->type || scale->type->block != 1)
        return err_set(e, ERR_FORMAT, "scales have to be floats, they are %s", scale->dtype);
    if (compose_part(c, stem, ".weight_zero_point"))
        return err_set(e, ERR_UNSUPPORTED, "one-byte weights with zero points are not supported");
    rc = scale_blocks(&p.scaled, c->s, w, scale, e);
    return rc ? rc : put_scaled(c, stem, scale, NULL, &p, e);
}

/* X.SCB. */
int compose_scb(struct compose *c, struct stem stem, struct err *e)
{
    const struct source_tensor *w = compose_part(c, stem, ".weight");
    const struct source_tensor *layout = compose_part(c, stem, ".weight_format");
    struct source_parts p = {.part = {w},
                             .scaled = {.block_rows = 1, .scale_cols = 1, .divisor = 127}};
    int rc;

    if (!w)
        return 0;
    rc = compose_shape(w, "I8", 2, w->shape[0], w->shape[1], e);
    if (!rc)
        rc = compose_shape(stem.mark, "F32", 1, w->shape[0], 1, e);
    if (rc)
        return rc;
    if (layout && (layout->bytes != 1 || layout->data[0] != 0))
        return err_set(e, ERR_UNSUPPORTED,
                       "weight_format says that the matrix is not stored row by row");
    p.scaled.block_cols = num_max((size_t)w->shape[1], 1);
    p.part[2] = layout;
    return put_scaled(c, stem, stem.mark, "BNB-INT8", &p, e);
}
