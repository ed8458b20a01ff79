/*
 * A plan: what will be written, from headers alone. Tensors and the rows they are made of come from
 * names.c, types from types.c.
 */
#include "convert/plan.h"

#include "base/num.h"
#include "convert/imatrix.h"
#include "format/packed.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void plan_note(struct convert_plan *p, const char *fmt, ...)
{
    char text[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    char *copy = arena_strndup(&p->arena, text, strlen(text), NULL);
    if (copy && p->n_notes < PLAN_NOTES)
        p->notes[p->n_notes++] = copy;
}

struct convert_tensor *plan_add(struct convert_plan *p, const char *name, struct err *e)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 512;
        struct convert_tensor *v = arena_array(&p->arena, cap, sizeof *v, e);
        if (!v)
            return NULL;
        if (p->n)
            memcpy(v, p->tensors, p->n * sizeof *v);
        p->tensors = v;
        p->cap = cap;
    }
    char *copy = arena_strndup(&p->arena, name, strlen(name), e);
    if (!copy)
        return NULL;
    struct convert_tensor *t = &p->tensors[p->n++];
    *t = (struct convert_tensor){.name = copy};
    return t;
}

struct convert_run *plan_runs(struct convert_plan *p, size_t n, struct err *e)
{
    return arena_array(&p->arena, n, sizeof(struct convert_run), e);
}

/* Tensors go into files in order; a file ends before the tensor that would make it too large. */
static void plan_split(struct convert_plan *p)
{
    uint64_t in_file = 0;
    p->files = 1;
    for (size_t i = 0; i < p->n; i++) {
        if (p->o.split && in_file && in_file + p->tensors[i].bytes > p->o.split) {
            p->files++;
            in_file = 0;
        }
        in_file += p->tensors[i].bytes;
        p->tensors[i].file = p->files - 1;
    }
}

int plan_sizes(struct convert_plan *p, struct err *e)
{
    for (size_t i = 0; i < p->n; i++) {
        struct convert_tensor *t = &p->tensors[i];
        size_t row, height = plan_height(t), cols = plan_cols(t);
        if (t->scheme == SCHEME_NF4_CODES)
            row = cols / 2;
        else if (!quant_size(t->type, cols, &row))
            row = SIZE_MAX;
        if (row == SIZE_MAX || !num_mul(&t->bytes, row, height) ||
            (t->packed && !packed_size(t->type, t->dims, t->shape, &t->bytes)))
            return err_set(e, ERR_LIMIT, "tensor \"%s\": rows of %zu values do not fit the type %s",
                           t->name, cols, t->type->name);
        p->bytes += t->bytes;
        if (t->scheme != SCHEME_FP8_SCALES && t->scheme != SCHEME_NF4_ABSMAX)
            p->values += (uint64_t)height * cols;
    }
    plan_split(p);
    return 0;
}

static int plan_check(const struct convert_plan *p, struct err *e)
{
    const struct convert_options *o = &p->o;
    if (source_kind(p->src) == SOURCE_TOKENIZER || !source_tensor_count(p->src))
        return err_set(e, ERR_USAGE, "no weights are here, nothing to convert");
    if (o->format == CONVERT_GGUF && o->mix && o->mix->type >= QUANT_INNER)
        return err_set(e, ERR_USAGE,
                       "GGUF files cannot hold %s: write a folder, or give another type",
                       o->mix->name);
    if (o->format == CONVERT_HF && o->mix && o->mix->type != QUANT_NF4 &&
        !quant_by_id(o->mix->type)->safetensors)
        return err_set(
            e, ERR_USAGE,
            "safetensors files cannot hold %s: give --type F32, F16, BF16, FP8 or NF4, or write a "
            ".gguf file",
            o->mix->name);
    if (o->format == CONVERT_HF && o->packed)
        return err_set(e, ERR_USAGE, "--packed is for GGUF output: give OUT a name in .gguf");
    if (o->format == CONVERT_HF && (o->n_rules || o->imatrix))
        return err_set(e, ERR_USAGE, "--tensor-type and --imatrix are for GGUF output");
    return 0;
}

/* Errors about the model name it; those about other files name theirs. */
static int plan_about(const struct convert_plan *p, int rc, struct err *e)
{
    return rc && rc != ERR_USAGE ? err_ctx(e, "%.300s", source_path(p->src)) : rc;
}

int convert_plan_new(struct convert_plan **out, struct source *src, const struct convert_options *o,
                     struct err *e)
{
    struct convert_plan *p = calloc(1, sizeof *p);
    *out = NULL;
    if (!p)
        return err_nomem(e, sizeof *p, "the plan");
    arena_init(&p->arena, PLAN_MAX);
    p->src = src;
    p->o = *o;
    int rc = plan_check(p, e);
    if (!rc && o->imatrix)
        rc = imatrix_open(&p->imatrix, o->imatrix, e);
    if (!rc)
        rc = plan_about(p, plan_tensors(p, e), e);
    if (!rc && o->adapter)
        rc = plan_lora_open(p, o->adapter, e);
    if (!rc)
        rc = plan_types(p, e);
    if (!rc)
        rc = plan_about(p, plan_sizes(p, e), e);
    if (!rc && o->adapter)
        rc = plan_lora_score(p, e);
    if (rc) {
        convert_plan_free(p);
        return rc;
    }
    *out = p;
    return 0;
}

void convert_plan_free(struct convert_plan *p)
{
    if (!p)
        return;
    imatrix_free(p->imatrix);
    plan_lora_free(p);
    arena_release(&p->arena);
    free(p);
}

size_t convert_plan_count(const struct convert_plan *p)
{
    return p->n;
}

const struct convert_tensor *convert_plan_tensor(const struct convert_plan *p, size_t i)
{
    return i < p->n ? &p->tensors[i] : NULL;
}

uint64_t convert_plan_bytes(const struct convert_plan *p)
{
    return p->bytes;
}

uint64_t convert_plan_values(const struct convert_plan *p)
{
    return p->values;
}

int convert_plan_files(const struct convert_plan *p)
{
    return p->files;
}

const char *convert_plan_note(const struct convert_plan *p, size_t i)
{
    return i < p->n_notes ? p->notes[i] : NULL;
}

size_t convert_plan_find(const struct convert_plan *p, const char *name)
{
    for (size_t i = 0; i < p->n; i++)
        if (!strcmp(p->tensors[i].name, name))
            return i;
    return SIZE_MAX;
}

int convert_plan_replace(struct convert_plan *p, size_t i, const float *values, size_t n,
                         struct err *e)
{
    struct convert_tensor *t = &p->tensors[i];
    if (plan_height(t) * plan_cols(t) != n)
        return err_set(e, ERR_USAGE, "tensor \"%s\" has %zu values, not %zu", t->name,
                       plan_height(t) * plan_cols(t), n);
    t->values = values;
    t->n_runs = 0;
    return 0;
}

int convert_plan_add(struct convert_plan *p, const char *name, size_t rows, size_t cols,
                     const float *values, struct err *e)
{
    size_t i = convert_plan_find(p, name);
    if (i != SIZE_MAX)
        return convert_plan_replace(p, i, values, rows * cols, e);
    struct convert_tensor *t = plan_add(p, name, e);
    if (!t)
        return ERR_NOMEM;
    t->type = quant_by_id(QUANT_F32);
    t->from = "F32";
    t->dims = 2;
    for (int d = 0; d < SOURCE_DIMS; d++)
        t->shape[d] = d == 0 ? rows : d == 1 ? cols : 1;
    t->bytes = rows * cols * sizeof *values;
    t->values = values;
    t->file = p->files - 1;
    p->bytes += t->bytes;
    p->values += rows * cols;
    return 0;
}
