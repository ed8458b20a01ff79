/*
 * 4-bit weights as bitsandbytes keeps them (Dettmers et al. 2023, "QLoRA"): for a weight X the
 * codes of NF4's 16 levels, two a byte, and beside them X.absmax (a scale for 64 values),
 * X.quant_map (the levels) and X.quant_state.bitsandbytes__nf4 (the shape, as JSON). Without double
 * quantization.
 *
 * Linear weights with rows of whole blocks get them, the others stay as they are.
 */
#include "base/num.h"
#include "convert/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NF4_BLOCK = 64, NF4_BYTES = 36, NF4_LEVELS = 16 };

bool nf4_takes(const struct convert_tensor *t)
{
    return fp8_takes(t) && t->shape[1] % NF4_BLOCK == 0 && t->shape[1] > 0;
}

/* A tensor "NAME suffix" behind the others; *t, which may move, is found again by its number. */
static struct convert_tensor *nf4_add(struct convert_plan *p, size_t i, const char *suffix,
                                      struct err *e)
{
    char name[300];
    if (snprintf(name, sizeof name, "%s%s", p->tensors[i].name, suffix) >= (int)sizeof name) {
        err_set(e, ERR_LIMIT, "tensor \"%.80s…\": its name is too long", p->tensors[i].name);
        return NULL;
    }
    return plan_add(p, name, e);
}

static int nf4_parts(struct convert_plan *p, size_t i, const float *levels, struct err *e)
{
    struct convert_tensor *s = nf4_add(p, i, ".absmax", e);
    if (!s)
        return e->code;
    const char *name = s->name;
    const struct convert_tensor t = p->tensors[i];
    *s = t;
    s->name = name;
    s->type = quant_by_id(QUANT_F32);
    s->scheme = SCHEME_NF4_ABSMAX;
    s->of[0] = t.shape[0];
    s->of[1] = t.shape[1];
    s->shape[1] = t.shape[1] / NF4_BLOCK;

    s = nf4_add(p, i, ".quant_map", e);
    if (!s)
        return e->code;
    s->type = quant_by_id(QUANT_F32);
    s->from = t.from;
    s->dims = 1;
    s->shape[0] = NF4_LEVELS;
    s->values = levels;

    s = nf4_add(p, i, ".quant_state.bitsandbytes__nf4", e);
    if (!s)
        return e->code;
    char text[160];
    int n = snprintf(text, sizeof text,
                     "{\"quant_type\": \"nf4\", \"blocksize\": %d, \"dtype\": \"bfloat16\", "
                     "\"shape\": [%" PRIu64 ", %" PRIu64 "]}",
                     NF4_BLOCK, t.shape[0], t.shape[1]);
    char *raw = arena_strndup(&p->arena, text, (size_t)n, e);
    if (!raw)
        return ERR_NOMEM;
    s->type = quant_by_id(QUANT_E4M3); /* a byte each; the file says U8 */
    s->from = t.from;
    s->dims = 1;
    s->shape[0] = (uint64_t)n;
    s->raw = (const uint8_t *)raw;
    return 0;
}

int nf4_tensors(struct convert_plan *p, struct err *e)
{
    size_t n = p->n;
    float *levels = arena_array(&p->arena, NF4_LEVELS, sizeof *levels, e);
    uint8_t block[NF4_BYTES] = {0};
    float one = 1, value[NF4_BLOCK];
    if (!levels)
        return ERR_NOMEM;
    memcpy(block, &one, sizeof one);
    for (size_t i = 0; i < NF4_LEVELS; i++) {
        block[4] = (uint8_t)(i << 4);
        quant_by_id(QUANT_NF4)->decode(value, block, NF4_BLOCK);
        levels[i] = value[0];
    }
    for (size_t i = 0; i < n; i++) {
        if (p->tensors[i].type->id != QUANT_NF4)
            continue;
        p->tensors[i].scheme = SCHEME_NF4_CODES;
        int rc = nf4_parts(p, i, levels, e);
        if (rc)
            return rc;
    }
    return 0;
}

size_t nf4_scratch(const struct convert_tensor *t)
{
    return t->scheme == SCHEME_NF4_ABSMAX ? (size_t)t->of[1] : 0;
}

void nf4_absmax(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
                float *out, float *scratch)
{
    struct convert_tensor w = *t;
    uint8_t block[NF4_BYTES];
    w.scheme = SCHEME_NONE;
    w.shape[0] = t->of[0];
    w.shape[1] = t->of[1];
    for (size_t r = r0; r < r0 + n; r++) {
        plan_rows(p, &w, r, 1, scratch, scratch + nf4_scratch(t));
        for (size_t k = 0; k < t->of[1]; k += NF4_BLOCK) {
            quant_by_id(QUANT_NF4)->encode(block, scratch + k, NF4_BLOCK, NULL);
            memcpy(out++, block, sizeof *out);
        }
    }
}

void nf4_codes(uint8_t *out, const float *v, size_t n)
{
    uint8_t block[NF4_BYTES];
    for (size_t i = 0; i < n; i += NF4_BLOCK, out += NF4_BLOCK / 2) {
        quant_by_id(QUANT_NF4)->encode(block, v + i, NF4_BLOCK, NULL);
        memcpy(out, block + 4, NF4_BLOCK / 2);
    }
}

const char *convert_dtype(const struct convert_tensor *t, int *dims, uint64_t shape[SOURCE_DIMS])
{
    *dims = t->dims;
    memcpy(shape, t->shape, sizeof t->shape);
    if (t->scheme == SCHEME_NF4_CODES) {
        *dims = 2;
        shape[0] = t->shape[0] * t->shape[1] / 2;
        shape[1] = 1;
    } else if (t->scheme == SCHEME_NF4_ABSMAX) {
        *dims = 1;
        shape[0] = t->shape[0] * t->shape[1];
    }
    return t->scheme == SCHEME_NF4_CODES || t->raw ? "U8" : t->type->safetensors;
}
