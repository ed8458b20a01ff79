/*
 * Composing logical tensors: which tensors are the mark of which scheme, and the bookkeeping that
 * schemes share. See parts.h.
 *
 * FP8 and bitsandbytes describe themselves and are composed wherever they are found. The sizes of
 * GPTQ and AWQ can be read in more than one way, so these need the "quantization_config" of a
 * config.json. A tensor that no scheme claims stays what it is, so biases, norms and what
 * "modules_to_not_convert" names need no rules.
 */
#include "format/parts.h"

#include "base/num.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_PLAIN, STATE_PART, STATE_MADE };

/* The end of the mark's name, behind that of the weight without ".weight". */
static const struct {
    const char *suffix;
    int (*make)(struct compose *c, struct stem stem, struct err *e);
} marks[] = {
    {".weight_scale_inv", compose_scaled},
    {".weight_scale", compose_scaled},
    {".SCB", compose_scb},
    {".qweight", compose_packed},
    {".weight.quant_state.bitsandbytes__nf4", compose_nf4},
    {".weight.quant_state.bitsandbytes__fp4", compose_fp4},
};

/* Values of quantization_config.quant_method that the schemes above cover; first those with scales.
 */
enum { METHODS_SCALED = 3 };
static const char *const methods[] = {"fp8",  "fbgemm_fp8", "compressed-tensors",
                                      "gptq", "awq",        "bitsandbytes"};

/* Values of its "format" in compressed-tensors; others pack their weights. */
static const char *const formats[] = {"float-quantized", "int-quantized", "naive-quantized"};

/* ---- for schemes --------------------------------------------------------------------------------
 */

const struct source_tensor *compose_part(struct compose *c, struct stem stem, const char *suffix)
{
    size_t n = strlen(suffix), i;

    if (stem.n + n > SOURCE_MAX_NAME)
        return NULL;
    memcpy(c->name, stem.mark->name, stem.n);
    memcpy(c->name + stem.n, suffix, n);
    i = names_find(&c->s->names, c->name, stem.n + n);
    return i == SIZE_MAX ? NULL : &c->s->tensors[i];
}

int compose_need(const struct source_tensor **out, struct compose *c, struct stem stem,
                 const char *suffix, struct err *e)
{
    *out = compose_part(c, stem, suffix);
    if (*out)
        return 0;
    return err_set(e, ERR_FORMAT,
                   "it needs a tensor '%s%s', which is missing: download all files of the model",
                   name_show(stem.mark->name, stem.n).text, suffix);
}

int compose_shape(const struct source_tensor *part, const char *dtype, int dims, uint64_t rows,
                  uint64_t cols, struct err *e)
{
    struct shown name = name_show(part->name, strlen(part->name));

    if (dtype && strcmp(part->dtype, dtype) != 0)
        return err_set(e, ERR_FORMAT, "'%s' has to be %s, it is %s", name.text, dtype, part->dtype);
    if (part->dims != dims)
        return err_set(e, ERR_FORMAT, "'%s' has %d dimensions, not %d", name.text, part->dims,
                       dims);
    if (part->shape[0] != rows || (dims > 1 && part->shape[1] != cols))
        return err_set(
            e, ERR_FORMAT, "'%s' is %llu × %llu, but the sizes of the weight ask for %llu × %llu",
            name.text, (unsigned long long)part->shape[0], (unsigned long long)part->shape[1],
            (unsigned long long)rows, (unsigned long long)(dims > 1 ? cols : 1));
    return 0;
}

static int compose_take(struct compose *c, const struct source_tensor *part, int state,
                        struct err *e)
{
    size_t i = (size_t)(part - c->s->tensors);

    if (c->state[i] != STATE_PLAIN)
        return err_set(e, ERR_FORMAT, "'%s' belongs to two weights or schemes",
                       name_show(part->name, strlen(part->name)).text);
    c->state[i] = (uint8_t)state;
    return 0;
}

int compose_put(struct compose *c, struct stem stem, const struct source_parts *parts,
                const struct quant_type *type, const char *dtype, int dims, const uint64_t *shape,
                struct err *e)
{
    const struct source_tensor *main = parts->part[0];
    struct source_tensor t = {.type = type, .dtype = dtype, .dims = dims};
    struct source_parts *kept = arena_alloc(&c->s->arena, sizeof *kept, e);
    char *name = arena_alloc(&c->s->arena, stem.n + sizeof ".weight", e);
    size_t rows = 1;
    int rc = kept && name ? compose_take(c, main, STATE_MADE, e) : ERR_NOMEM;

    for (int i = 1; !rc && i < PARTS_MAX && parts->part[i]; i++)
        rc = compose_take(c, parts->part[i], STATE_PART, e);
    if (rc)
        return rc;
    for (int i = 0; i < SOURCE_DIMS; i++)
        t.shape[i] = i < dims ? shape[i] : 1;
    for (int i = 0; i + 1 < dims; i++)
        if (!num_mul(&rows, rows, shape[i]))
            return err_set(e, ERR_FORMAT, "the product of its dimensions overflows");
    if (!quant_size(type, (size_t)t.shape[dims - 1], &t.bytes) || !num_mul(&t.bytes, t.bytes, rows))
        return err_set(e, ERR_FORMAT, "its size as %s overflows", type->name);
    memcpy(name, stem.mark->name, stem.n);
    memcpy(name + stem.n, ".weight", sizeof ".weight");
    *kept = *parts;
    t.name = name;
    t.file = main->file;
    t.offset = main->offset;
    t.parts = kept;
    c->out[main - c->s->tensors] = t;
    return 0;
}

float part_float(const struct source_tensor *t, size_t i)
{
    float f;

    t->type->decode(&f, t->data + i * t->type->bytes, 1);
    return f;
}

static const struct source_value *config_value(const struct source *s, const char *key)
{
    char full[128];

    snprintf(full, sizeof full, "quantization_config.%s", key);
    return source_value(s, full);
}

bool compose_config_int(const struct source *s, const char *key, int64_t *out)
{
    const struct source_value *v = config_value(s, key);

    if (!v || v->type != SOURCE_INT)
        return false;
    *out = v->i;
    return true;
}

bool compose_config_is(const struct source *s, const char *key, const char *text)
{
    const struct source_value *v = config_value(s, key);

    return v && v->type == SOURCE_STRING && v->s.n == strlen(text) &&
           memcmp(v->s.p, text, v->s.n) == 0;
}

/* ---- all ----------------------------------------------------------------------------------------
 */

/* FP8 of a model that says it has scales: without them the weights mean something else. */
static int check_bare(const struct compose *c, struct err *e)
{
    bool scaled = false;

    for (size_t i = 0; i < METHODS_SCALED; i++)
        scaled |= compose_config_is(c->s, "quant_method", methods[i]);
    if (!scaled)
        return 0;
    for (size_t i = 0; i < c->s->n_tensors; i++) {
        const struct source_tensor *t = &c->s->tensors[i];
        if (c->state[i] == STATE_PLAIN && t->dims > 1 && t->type &&
            (t->type->id == QUANT_E4M3 || t->type->id == QUANT_E5M2))
            return err_set(e, ERR_FORMAT,
                           "%s: tensor '%s' is FP8, but its scales are missing: "
                           "download all files of the model",
                           source_where(c->s, t), name_show(t->name, strlen(t->name)).text);
    }
    return 0;
}

static int compose_all(struct compose *c, struct err *e)
{
    struct source *s = c->s;

    for (size_t i = 0; i < s->n_tensors; i++)
        for (size_t m = 0; m < NUM_COUNT(marks); m++) {
            const struct source_tensor *mark = &s->tensors[i];
            size_t n = strlen(mark->name), k = strlen(marks[m].suffix);
            if (n <= k || !path_ends(mark->name, marks[m].suffix))
                continue;
            if (marks[m].make(c, (struct stem){mark, n - k}, e))
                return err_ctx(e, "%s: tensor '%s'", source_where(s, mark),
                               name_show(mark->name, n).text);
            break;
        }
    return check_bare(c, e);
}

/* The logical tensors instead of those of the files. */
static void replace(struct compose *c)
{
    struct source *s = c->s;
    size_t n = 0;

    for (size_t i = 0; i < s->n_tensors; i++)
        if (c->state[i] != STATE_PART)
            c->out[n++] = c->out[i];
    s->raw = s->tensors;
    s->tensors = c->out;
    s->n_tensors = n;
    c->out = NULL;
}

int compose(struct source *s, struct err *e)
{
    struct compose c = {.s = s};
    size_t bytes = s->n_tensors * sizeof *c.out; /* as much as s->tensors takes */
    bool any = false;
    int rc;

    if (s->n_tensors == 0)
        return 0;
    c.out = malloc(bytes);
    c.state = calloc(s->n_tensors, 1);
    c.name = malloc(SOURCE_MAX_NAME + 1);
    if (!c.out || !c.state || !c.name) {
        rc = err_nomem(e, bytes, "the table of a model's tensors");
        goto done;
    }
    memcpy(c.out, s->tensors, bytes);
    rc = compose_all(&c, e);
    for (size_t i = 0; i < s->n_tensors; i++)
        any |= c.state[i] != STATE_PLAIN;
    if (!rc && any)
        replace(&c);
done:
    free(c.out);
    free(c.state);
    free(c.name);
    return rc;
}

int source_quant_check(const struct source *s, struct err *e)
{
    const struct source_value *v = config_value(s, "quant_method");
    char known[128];
    size_t at = 0;

    if (!v)
        return 0;
    if (compose_config_is(s, "quant_method", "compressed-tensors")) {
        for (size_t i = 0; i < NUM_COUNT(formats); i++)
            if (compose_config_is(s, "format", formats[i]))
                return 0;
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: compressed-tensors are supported with one-byte weights "
                       "(\"format\": \"%s\" or \"%s\"), not as this model has them",
                       formats[0], formats[1]);
    }
    for (size_t i = 0; i < NUM_COUNT(methods); i++) {
        if (compose_config_is(s, "quant_method", methods[i]))
            return 0;
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", methods[i]);
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "config.json: weights quantized by \"%s\" are not supported (%s are); get the "
                   "model in one of these, unquantized, or as GGUF",
                   v->type == SOURCE_STRING ? name_show(v->s.p, v->s.n).text : "?", known);
}
