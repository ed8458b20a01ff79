/*
 * inspect: what is in a model's files. Everything from a file is cleaned before it is shown.
 *
 * A file that claims to be a whole model is also checked as one, with the same function that
 * loading uses, so that inspect refuses what run would refuse. Tokenizers and single .safetensors
 * files without a configuration are only listed.
 */
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "format/meta_json.h"
#include "model/model.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    INSPECT_SHORT = 6,
    INSPECT_JSON_SHORT = 64,
    INSPECT_STRING = 300,
    INSPECT_NAME_MAX = 60,
    INSPECT_EXPERT_NAME = 256,
    INSPECT_CHUNK = 1 << 16,
    INSPECT_ROWS = 16
};

struct inspect_options {
    int json, raw, full;
    const char *tensor;
};

#define AT(field) offsetof(struct inspect_options, field)
// clang-format off
static const struct opt inspect_rows[] = {
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "full", .kind = OPT_FLAG, .offset = AT(full), .help = "do not shorten long texts and arrays, list every expert"},
    {.name = "tensor", .kind = OPT_STRING, .arg = "NAME", .offset = AT(tensor), .help = "only this tensor"},
    {.name = "raw", .kind = OPT_FLAG, .offset = AT(raw),
     .help = "with --tensor: write its values to standard output as float32, little-endian"},
};
// clang-format on
#undef AT

static const struct opt_group inspect_groups[] = {
    {"Options", inspect_rows, NUM_COUNT(inspect_rows), 0},
};

static const char *inspect_kind(const struct source *s)
{
    static const char *const names[] = {
        [SOURCE_GGUF] = "gguf", [SOURCE_HF] = "safetensors", [SOURCE_TOKENIZER] = "tokenizer"};
    return names[source_kind(s)];
}

/* Whether the files claim to be a whole model: a GGUF file may also say that it is something else,
 * like an adapter or an importance matrix. */
static bool inspect_is_model(const struct source *s)
{
    const struct source_value *type = source_value(s, "general.type");
    if (source_kind(s) == SOURCE_GGUF && type && type->type == SOURCE_STRING &&
        (type->s.n != 5 || memcmp(type->s.p, "model", 5)))
        return false;
    return source_kind(s) == SOURCE_GGUF ||
           (source_kind(s) == SOURCE_HF && file_kind(source_path(s)) == FILE_DIR);
}

/* ---- values
 * -------------------------------------------------------------------------------------- */

/* With the digits that tell it from its neighbours: 1e-05 and not 9.99999975e-06 where the file has
   a float32. */
static int inspect_text_float(struct buf *b, double f, struct err *e)
{
    char text[40] = "";
    bool single = (double)(float)f == f;
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, f);
        double back = strtod(text, NULL);
        if (back == f || (single && (float)back == (float)f))
            break;
    }
    return buf_puts(b, text, e);
}

static int inspect_text_scalar(struct buf *b, const struct source_value *v, bool full,
                               struct err *e)
{
    switch (v->type) {
    case SOURCE_INT:
        return buf_printf(b, e, "%lld", (long long)v->i);
    case SOURCE_UINT:
        return buf_printf(b, e, "%llu", (unsigned long long)v->u);
    case SOURCE_FLOAT:
        return inspect_text_float(b, v->f, e);
    case SOURCE_BOOL:
        return buf_puts(b, v->b ? "true" : "false", e);
    case SOURCE_STRING: {
        size_t n = full ? v->s.n : num_min(v->s.n, INSPECT_STRING);
        int rc = term_clean(b, v->s.p, n, true, e);
        if (!rc && n < v->s.n)
            rc = buf_printf(b, e, "… (%zu bytes)", v->s.n);
        return rc;
    }
    default:
        return buf_puts(b, meta_type_name(v->type), e);
    }
}

static int inspect_text_value(struct buf *b, const struct source *s, const struct source_value *v,
                              bool full, struct err *e)
{
    char n[32];
    if (v->type != SOURCE_ARRAY)
        return inspect_text_scalar(b, v, full, e);
    bool readable = v->item != SOURCE_ARRAY;
    uint64_t shown = !readable                  ? 0
                     : full                     ? v->count
                     : v->count < INSPECT_SHORT ? v->count
                                                : INSPECT_SHORT;
    int rc = buf_putc(b, '[', e);
    for (uint64_t i = 0; !rc && i < shown; i++) {
        struct source_value x;
        if ((rc = source_array_get(s, v, i, &x, e)) || (i && (rc = buf_puts(b, ", ", e))))
            break;
        rc = inspect_text_scalar(b, &x, full, e);
    }
    if (!rc && shown < v->count)
        rc = buf_printf(b, e, "%s… %s %ss", shown ? ", " : "", term_group(n, sizeof n, v->count),
                        meta_type_name(v->item));
    return rc ? rc : buf_putc(b, ']', e);
}

/* ---- tensors
 * ------------------------------------------------------------------------------------- */

static int inspect_shape(struct buf *b, const struct source_tensor *t, struct err *e)
{
    int rc = t->dims ? 0 : buf_puts(b, "scalar", e);
    for (int i = 0; !rc && i < t->dims; i++)
        rc = buf_printf(b, e, "%s%llu", i ? " × " : "", (unsigned long long)t->shape[i]);
    return rc;
}

static json_t *inspect_tensor_json(const struct source_tensor *t)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->dims; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->shape[i]));
    return json_pack("{so ss so sI si sI}", "name", meta_json_string(t->name, strlen(t->name)),
                     "type", t->dtype, "shape", shape, "bytes", (json_int_t)source_stored_bytes(t),
                     "file", t->file, "offset", (json_int_t)t->offset);
}

static uint64_t inspect_elements(const struct source_tensor *t)
{
    uint64_t n = 1;
    for (int i = 0; i < t->dims; i++)
        n *= t->shape[i]; /* fits: the source has checked the bytes */
    return n;
}

static uint64_t inspect_bytes(const struct source *s)
{
    uint64_t n = 0;
    for (size_t i = 0; i < source_tensor_count(s); i++)
        n += source_stored_bytes(source_tensor_at(s, i));
    return n;
}

/* ---- experts that are tensors of their own
 * ------------------------------------------------------ */

/* The tensor's expert, where it has a number: "….experts.17.…", at [*at, *end) of the name. */
static bool expert_number(const char *name, size_t *at, size_t *end, size_t *number)
{
    const char *p = strstr(name, ".experts.");
    if (!p || strlen(name) >= INSPECT_EXPERT_NAME)
        return false;
    *at = (size_t)(p - name) + strlen(".experts.");
    *end = *at + strspn(name + *at, "0123456789");
    if (*end == *at || *end - *at > 9 || name[*end] != '.')
        return false;
    *number = strtoul(name + *at, NULL, 10);
    return true;
}

/* The same tensor of expert `number`, if it looks the same. */
static const struct source_tensor *expert_other(const struct source *s,
                                                const struct source_tensor *t, size_t at,
                                                size_t end, size_t number)
{
    char name[INSPECT_EXPERT_NAME + 24];
    snprintf(name, sizeof name, "%.*s%zu%s", (int)at, t->name, number, t->name + end);
    const struct source_tensor *o = source_tensor(s, name);
    return o && o->dims == t->dims && strcmp(o->dtype, t->dtype) == 0 &&
                   memcmp(o->shape, t->shape, sizeof o->shape) == 0 &&
                   source_stored_bytes(o) == source_stored_bytes(t)
               ? o
               : NULL;
}

/* Of the n experts' tensors that are alike the first one has the line. How many it stands for; 0:
   another one has the line. `name` becomes what to call them. */
static size_t expert_count(const struct source *s, const struct source_tensor *t, size_t n,
                           char name[static INSPECT_EXPERT_NAME])
{
    size_t at, end, number, count = 1;
    if (!expert_number(t->name, &at, &end, &number) || number >= n)
        return 1;
    if (number)
        return expert_other(s, t, at, end, 0) ? 0 : 1;
    for (size_t i = 1; i < n; i++)
        count += expert_other(s, t, at, end, i) != NULL;
    if (count > 1)
        snprintf(name, INSPECT_EXPERT_NAME, "%.*s*%s", (int)at, t->name, t->name + end);
    return count;
}

/* Spaces that fill `width` columns behind the text. */
static int inspect_pad(const struct buf *b, size_t width)
{
    size_t n = 0;
    for (size_t i = 0; i < b->len; i++)
        n += ((unsigned char)b->data[i] & 0xc0) != 0x80;
    return n < width ? (int)(width - n) : 0;
}

/* The column of names: as wide as the longest, within reason. */
static size_t inspect_name_width(const struct source *s)
{
    size_t w = 20;
    for (size_t i = 0; i < source_tensor_count(s); i++)
        w = num_max(w, strlen(source_tensor_at(s, i)->name));
    return num_min(w, INSPECT_NAME_MAX);
}

/* A line for the tensor, or for `count` that differ in the number of the expert only, under `name`.
 */
static int inspect_tensor_line(const struct source_tensor *t, const char *name, size_t count,
                               size_t width, struct buf *b, struct err *e)
{
    struct buf shape;
    char size[32], times[40] = "";
    buf_init(&shape, 256);
    buf_clear(b);
    int rc = inspect_shape(&shape, t, e);
    if (!rc)
        rc = term_clean(b, name, strlen(name), true, e);
    if (count > 1)
        snprintf(times, sizeof times, "  %zu tensors", count);
    if (!rc)
        printf("  %s%*s  %-7s  %s%*s %10s%s\n", b->data, inspect_pad(b, width), "", t->dtype,
               shape.data, inspect_pad(&shape, 18), "",
               progress_bytes(size, sizeof size, (double)source_stored_bytes(t) * (double)count),
               times);
    buf_release(&shape);
    return rc;
}

/* A tensor as it lies in the file, from first to last value. */
static int inspect_raw_plain(const struct source_tensor *t, struct err *e)
{
    uint64_t n = inspect_elements(t);
    size_t step = num_round_up(INSPECT_CHUNK, t->type->block);
    float *y = malloc(step * sizeof *y);
    if (!y)
        return err_nomem(e, step * sizeof *y, "a tensor");
    int rc = 0;
    for (uint64_t i = 0; !rc && i < n; i += step) {
        size_t k = n - i < step ? (size_t)(n - i) : step;
        t->type->decode(y, t->data + i / t->type->block * t->type->bytes, k);
        if (fwrite(y, sizeof *y, k, stdout) != k)
            rc = err_errno(e, "cannot write the output");
    }
    free(y);
    return rc;
}

/* A composed tensor, some rows at a time. */
static int inspect_raw_rows(const struct source_tensor *t, struct err *e)
{
    uint64_t rows = source_row_count(t);
    size_t cols = (size_t)t->shape[t->dims - 1], row = source_row_bytes(t), want = 0, bytes = 0;
    size_t step = num_max(INSPECT_CHUNK / num_max(cols, 1), INSPECT_ROWS);
    float *y = NULL;
    uint8_t *raw = NULL;
    int rc = 0;
    if (!num_mul(&want, step * sizeof *y, cols) || !num_mul(&bytes, step, row) ||
        !(y = malloc(num_max(want, 1))) || !(raw = malloc(num_max(bytes, 1))))
        rc = err_nomem(e, want, "rows of a tensor");
    for (uint64_t r = 0; !rc && cols && r < rows; r += step) {
        size_t k = rows - r < step ? (size_t)(rows - r) : step;
        source_rows(t, r, k, raw, row);
        for (size_t i = 0; i < k; i++)
            t->type->decode(y + i * cols, raw + i * row, cols);
        if (fwrite(y, sizeof *y, k * cols, stdout) != k * cols)
            rc = err_errno(e, "cannot write the output");
    }
    free(raw);
    free(y);
    return rc;
}

static int inspect_raw(const struct source_tensor *t, struct err *e)
{
    if (!t->type || !t->type->decode)
        return err_set(e, ERR_UNSUPPORTED, "tensor \"%s\" has a type that can't be decoded",
                       t->name);
    return t->parts ? inspect_raw_rows(t, e) : inspect_raw_plain(t, e);
}

static const char *inspect_name_at(const void *arg, size_t i)
{
    const struct source_tensor *t = i < source_tensor_count(arg) ? source_tensor_at(arg, i) : NULL;
    return t ? t->name : NULL;
}

static int inspect_one(const struct cli *c, const struct source *s, const struct inspect_options *o,
                       struct err *e)
{
    const struct source_tensor *t = source_tensor(s, o->tensor);
    struct buf b;
    if (!t) {
        const char *near = opt_nearest(o->tensor, inspect_name_at, s);
        return near ? err_set(e, ERR_FORMAT, "no tensor \"%.100s\"; did you mean \"%s\"?",
                              o->tensor, near)
                    : err_set(e, ERR_FORMAT, "no tensor \"%.100s\" among %zu", o->tensor,
                              source_tensor_count(s));
    }
    if (o->raw && c->term.out_tty)
        return err_set(e, ERR_USAGE, "--raw writes bytes: send them to a file or a pipe");
    if (o->raw)
        return inspect_raw(t, e);
    if (o->json) {
        json_t *j = inspect_tensor_json(t);
        int rc = j ? lines_print_json(j, true, e) : err_nomem(e, 0, "the output");
        json_decref(j);
        return rc;
    }
    buf_init(&b, 1 << 20);
    int rc = inspect_tensor_line(t, t->name, 1, 0, &b, e);
    buf_release(&b);
    return rc;
}

/* ---- the whole
 * ----------------------------------------------------------------------------------- */

static json_t *inspect_model_json(const struct model_config *m)
{
    static const char *const scaling[] = {[ROPE_NONE] = "none",
                                          [ROPE_LINEAR] = "linear",
                                          [ROPE_LLAMA3] = "llama3",
                                          [ROPE_YARN] = "yarn"};
    json_t *latent = NULL, *experts = NULL;
    if (m->kv_lora)
        latent = json_pack("{sI sI}", "keys_values", (json_int_t)m->kv_lora, "queries",
                           (json_int_t)m->q_lora);
    if (m->n_expert)
        experts =
            json_pack("{sI sI sI sI sI}", "count", (json_int_t)m->n_expert, "used",
                      (json_int_t)m->n_expert_used, "shared", (json_int_t)m->n_shared, "width",
                      (json_int_t)m->d_ff_expert, "dense_layers", (json_int_t)m->n_dense);
    return json_pack("{ss sI sI sI sI sI sI sI sI sf sb s{sf ss sf} so* so* sI}", "architecture",
                     model_arch_name(m->arch), "layers", (json_int_t)m->n_layer, "width",
                     (json_int_t)m->d_model, "heads", (json_int_t)m->n_head, "kv_heads",
                     (json_int_t)m->n_kv_head, "head_width", (json_int_t)m->d_head, "feed_forward",
                     (json_int_t)m->d_ff, "vocabulary", (json_int_t)m->n_vocab, "context",
                     (json_int_t)m->ctx_train, "rms_eps", (double)m->rms_eps, "tied", m->tied,
                     "rope", "theta", m->rope_theta, "scaling", scaling[m->rope_scaling], "factor",
                     m->rope_factor, "latent", latent, "experts", experts, "prediction_layers",
                     (json_int_t)m->n_mtp);
}

static int inspect_json(const struct source *s, const struct model_config *m, bool full,
                        struct err *e)
{
    json_t *meta = json_object(), *tensors = json_array(), *all = NULL;
    bool bad = !meta || !tensors;
    for (size_t i = 0; !bad && i < source_value_count(s); i++) {
        const struct source_value *v;
        const char *key = source_value_at(s, i, &v);
        json_t *k = meta_json_string(key, strlen(key));
        json_t *x = meta_json(s, v, full ? UINT64_MAX : INSPECT_JSON_SHORT, INSPECT_SHORT);
        bad = !k || json_object_set_new_nocheck(meta, json_string_value(k), x);
        json_decref(k);
    }
    for (size_t i = 0; !bad && i < source_tensor_count(s); i++)
        bad = json_array_append_new(tensors, inspect_tensor_json(source_tensor_at(s, i))) != 0;
    if (!bad)
        all = json_pack("{ss so sI so* sO sO}", "kind", inspect_kind(s), "path",
                        meta_json_string(source_path(s), strlen(source_path(s))), "tensor_bytes",
                        (json_int_t)inspect_bytes(s), "model", m ? inspect_model_json(m) : NULL,
                        "metadata", meta, "tensors", tensors);
    int rc = all ? lines_print_json(all, true, e) : err_nomem(e, 0, "the output");
    json_decref(all);
    json_decref(meta);
    json_decref(tensors);
    return rc;
}

static void inspect_model_text(const struct model_config *m)
{
    char a[32], b[32];
    printf(
        "Model\n  architecture   %s\n  layers         %zu\n  width          %zu, feed-forward %zu\n"
        "  heads          %zu of %zu, %zu for keys and values\n  vocabulary     %s tokens%s\n"
        "  trained for    %s tokens of context\n",
        model_arch_name(m->arch), m->n_layer, m->d_model, m->d_ff, m->n_head, m->d_head,
        m->n_kv_head, term_group(a, sizeof a, m->n_vocab),
        m->tied ? ", the head is the embedding" : "", term_group(b, sizeof b, m->ctx_train));
    if (m->kv_lora)
        printf("  latent         %zu + %zu rotated for keys and values", m->kv_lora, m->d_rope);
    if (m->kv_lora && m->q_lora)
        printf(", %zu for queries", m->q_lora);
    if (m->kv_lora)
        printf("\n");
    if (m->n_expert)
        printf("  experts        %zu of width %zu, %zu for each token, %zu shared; %zu dense "
               "layer%s before\n",
               m->n_expert, m->d_ff_expert, m->n_expert_used, m->n_shared, m->n_dense,
               m->n_dense == 1 ? "" : "s");
    if (m->n_mtp)
        printf("  prediction     %zu layer for tokens ahead (--draft mtp)\n", m->n_mtp);
}

/* How many tensors and bytes there are of each type. */
static void inspect_types(const struct source *s)
{
    struct {
        const struct quant_type *type;
        uint64_t n, bytes, elements;
    } kinds[QUANT_ID_MAX] = {0};
    char size[32];
    uint64_t elements = 0;
    for (size_t i = 0; i < source_tensor_count(s); i++) {
        const struct source_tensor *t = source_tensor_at(s, i);
        if (!t->type || t->type->id >= QUANT_ID_MAX)
            continue;
        kinds[t->type->id].type = t->type;
        kinds[t->type->id].n++;
        kinds[t->type->id].bytes += source_stored_bytes(t);
        kinds[t->type->id].elements += inspect_elements(t);
        elements += inspect_elements(t);
    }
    printf("Tensors: %zu, %s", source_tensor_count(s),
           progress_bytes(size, sizeof size, (double)inspect_bytes(s)));
    if (elements)
        printf(", %s values, %.2f bits each", term_group(size, sizeof size, elements),
               8 * (double)inspect_bytes(s) / (double)elements);
    printf("\n");
    for (size_t i = 0; i < QUANT_ID_MAX; i++)
        if (kinds[i].n)
            printf("  %-8s %5llu tensors %10s\n", kinds[i].type->name,
                   (unsigned long long)kinds[i].n,
                   progress_bytes(size, sizeof size, (double)kinds[i].bytes));
}

/* The tensor's line in the list, unless that of another expert stands for it. */
static int inspect_listed(const struct source *s, const struct source_tensor *t, size_t n_expert,
                          size_t width, struct buf *b, struct err *e)
{
    char name[INSPECT_EXPERT_NAME] = "";
    size_t count = expert_count(s, t, n_expert, name);
    return count ? inspect_tensor_line(t, *name ? name : t->name, count, width, b, e) : 0;
}

static int inspect_text(const struct source *s, const struct model_config *m, bool full,
                        struct err *e)
{
    struct buf b;
    size_t width = inspect_name_width(s);
    int rc = 0;
    buf_init(&b, (size_t)1 << 30);
    if (m)
        inspect_model_text(m);
    if (source_value_count(s))
        printf("Metadata\n");
    for (size_t i = 0; !rc && i < source_value_count(s); i++) {
        const struct source_value *v;
        const char *key = source_value_at(s, i, &v);
        buf_clear(&b);
        if ((rc = term_clean(&b, key, strlen(key), true, e)))
            break;
        printf("  %-44s ", b.data);
        buf_clear(&b);
        if (!(rc = inspect_text_value(&b, s, v, full, e)))
            printf("%s\n", b.data);
    }
    if (!rc)
        inspect_types(s);
    for (size_t i = 0; !rc && i < source_tensor_count(s); i++)
        rc = inspect_listed(s, source_tensor_at(s, i), full || !m ? 0 : m->n_expert, width, &b, e);
    buf_release(&b);
    return rc;
}

/* A model's tokenizer must be whole too; one of a kind that is not known yet is only noted. */
static int inspect_tokenizer(struct source *s, struct err *e)
{
    struct tokenizer *t = NULL;
    if (source_kind(s) == SOURCE_GGUF && !source_value(s, "tokenizer.ggml.tokens"))
        return 0;
    if (source_kind(s) == SOURCE_HF) {
        const char *text = NULL;
        size_t n = 0;
        int rc = source_text(s, "tokenizer.json", &text, &n, e);
        if (rc || !text)
            return rc;
    }
    int rc = tokenizer_new(&t, s, e);
    tokenizer_free(t);
    if (rc != ERR_UNSUPPORTED)
        return rc;
    fprintf(stderr, "ponder: note: %s\n", e->text);
    return 0;
}

static int inspect_run(struct cli *c, const void *opts, struct err *e)
{
    const struct inspect_options *o = opts;
    char path[LOCATE_MAX];
    struct source *s = NULL;
    struct model_config m;
    bool whole = false;
    if (o->raw && !o->tensor)
        return err_set(e, ERR_USAGE, "--raw needs --tensor NAME");
    int rc = locate_model(c->args[0], path, e);
    if (!rc)
        rc = source_open(&s, path, e);
    if (!rc && o->tensor) {
        rc = inspect_one(c, s, o, e);
    } else if (!rc) {
        whole = inspect_is_model(s);
        if (whole && !(rc = model_check(s, &m, e)))
            rc = inspect_tokenizer(s, e);
        if (rc)
            err_ctx(e, "%.300s", path);
        if (!rc)
            rc = o->json ? inspect_json(s, whole ? &m : NULL, o->full, e)
                         : inspect_text(s, whole ? &m : NULL, o->full, e);
    }
    source_free(s);
    return rc;
}

const struct command cmd_inspect = {
    .name = "inspect",
    .args = "FILE",
    .summary = "show what is in a model's files",
    .about =
        "Shows the metadata, the tensors with their types and shapes, and what the model is made "
        "of. FILE is a .gguf or .safetensors file, a Hugging Face folder, or a tokenizer. A "
        "model that could not be run is refused with the reason.",
    .examples = "ponder inspect model.gguf\n"
                "# one tensor's values, as float32\n"
                "ponder inspect model.gguf --tensor output_norm.weight --raw > norm.f32\n",
    .spec = {inspect_groups, NUM_COUNT(inspect_groups)},
    .opts_size = sizeof(struct inspect_options),
    .min_args = 1,
    .max_args = 1,
    .run = inspect_run,
};
