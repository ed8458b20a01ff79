/* See convert_files.h. */
#include "cli/convert_files.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/team.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "convert/convert.h"
#include "format/meta_json.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SHAPE_WIDTH = 22 };

#define AT(field) offsetof(struct convert_files_options, field)
// clang-format off
const struct opt convert_files_rows[CONVERT_FILES_N] = {
    {.name = "type", .kind = OPT_STRING, .arg = "T", .shown = "types stay as they are", .offset = AT(type),
     .help = "type of the weights: a mix like Q4_K_M (see docs/formats.md for all)"},
    {.name = "tensor-type", .kind = OPT_LIST, .arg = "REGEX=T", .offset = AT(rules),
     .help = "type of the tensors whose names match, like attn_v=Q8_0; the first match counts; may be repeated"},
    {.name = "imatrix", .kind = OPT_STRING, .arg = "FILE", .offset = AT(imatrix),
     .help = "importance of weights (a GGUF imatrix or an older .dat): much better below 4 bits"},
    {.name = "lora", .alias = "adapter", .kind = OPT_STRING, .arg = "PATH", .offset = AT(lora),
     .help = "LoRA adapter to merge into the weights: a PEFT folder or a GGUF file"},
    {.name = "pure", .kind = OPT_FLAG, .offset = AT(pure),
     .help = "one type for all matrices instead of the mix"},
    {.name = "packed", .kind = OPT_FLAG, .offset = AT(packed),
     .help = "matrices in the order of ponder's kernels: starts at once and shares memory between processes; no other program reads it"},
    {.name = "format", .kind = OPT_ENUM, .arg = "F", .choices = "gguf|safetensors", .shown = "gguf when OUT ends in .gguf", .offset = AT(format),
     .help = "write one GGUF file, or a Hugging Face folder"},
    {.name = "split-size", .kind = OPT_STRING, .arg = "SIZE", .offset = AT(split),
     .help = "write several files of at most this much, like 5G or 500M"},
    {.name = "name", .alias = "model-name", .kind = OPT_STRING, .arg = "TEXT", .shown = "what the source says", .offset = AT(name),
     .help = "name of the model in its metadata"},
    {.name = "dry-run", .kind = OPT_FLAG, .offset = AT(dry_run),
     .help = "only print what would be written, with sizes"},
    {.name = "force", .brief = 'f', .kind = OPT_FLAG, .offset = AT(force),
     .help = "replace OUT when it is there"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = TEAM_MAX,
     .shown = "one for each core that this process may use", .env = "PONDER_THREADS", .offset = AT(threads),
     .help = "compute threads; the result is the same for any number"},
};
// clang-format on
#undef AT

/* "5G", "500M", "2.5g": bytes. */
static int parse_size(const char *s, uint64_t *out, struct err *e)
{
    static const char units[] = "kmgt";
    char *end;
    double v = strtod(s, &end), scale = 1;
    const char *unit = *end ? strchr(units, tolower((unsigned char)*end)) : NULL;
    for (const char *u = units; unit && u <= unit; u++)
        scale *= 1000;
    end += unit != NULL;
    end += *end == 'B' || *end == 'b';
    if (end == s || *end || !(v * scale >= 1e5 && v * scale < 1e18))
        return err_set(e, ERR_USAGE,
                       "--split-size %.30s: must be a size like 5G or 500M, at least 100K", s);
    *out = (uint64_t)(v * scale);
    return 0;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), k = strlen(suffix);
    return n >= k && strcasecmp(s + n - k, suffix) == 0;
}

static int files_options(struct convert_options *out, const struct convert_files_options *o,
                         const char *path, struct err *e)
{
    *out = (struct convert_options){.pure = o->pure,
                                    .rules = o->rules.v,
                                    .n_rules = o->rules.n,
                                    .imatrix = o->imatrix,
                                    .adapter = o->lora,
                                    .name = o->name,
                                    .packed = o->packed,
                                    .force = o->force};
    out->format = o->format ? (strcmp(o->format, "gguf") == 0 ? CONVERT_GGUF : CONVERT_HF)
                  : !path || ends_with(path, ".gguf") ? CONVERT_GGUF
                                                      : CONVERT_HF;
    if (o->type && !(out->mix = mix_find(o->type)))
        return mix_unknown(o->type, e);
    return o->split ? parse_size(o->split, &out->split, e) : 0;
}

/* ---- what is shown ----------------------------------------------------------------------------
 */

static double files_bits(const struct convert_plan *p)
{
    uint64_t n = convert_plan_values(p);
    return n ? 8 * (double)convert_plan_bytes(p) / (double)n : 0;
}

static void shape_text(char *out, size_t cap, const struct convert_tensor *t)
{
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < t->dims && at < cap; i++)
        at += (size_t)snprintf(out + at, cap - at, "%s%llu", i ? " × " : "",
                               (unsigned long long)t->shape[i]);
}

/* Bytes of a shape beyond its columns: each × has two. */
static int num_signs(const struct convert_tensor *t)
{
    return t->dims > 1 ? t->dims - 1 : 0;
}

static json_t *files_json(const struct convert_plan *p, const char *path, double seconds)
{
    json_t *tensors = json_array();
    for (size_t i = 0; tensors && i < convert_plan_count(p); i++) {
        const struct convert_tensor *t = convert_plan_tensor(p, i);
        json_t *shape = json_array();
        for (int d = 0; d < t->dims; d++)
            json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
        json_array_append_new(tensors, json_pack("{so ss ss so sI}", "name",
                                                 meta_json_string(t->name, strlen(t->name)), "type",
                                                 t->type->name, "from", t->from, "shape", shape,
                                                 "bytes", (json_int_t)t->bytes));
    }
    json_t *notes = json_array();
    for (size_t i = 0; convert_plan_note(p, i); i++)
        json_array_append_new(
            notes, meta_json_string(convert_plan_note(p, i), strlen(convert_plan_note(p, i))));
    return json_pack("{so sI sI sf si sf so so}", "output",
                     path ? meta_json_string(path, strlen(path)) : json_null(), "bytes",
                     (json_int_t)convert_plan_bytes(p), "values",
                     (json_int_t)convert_plan_values(p), "bits", files_bits(p), "files",
                     convert_plan_files(p), "seconds", seconds, "notes", notes, "tensors", tensors);
}

static int print_json(const struct convert_plan *p, const char *path, double seconds, struct err *e)
{
    json_t *v = files_json(p, path, seconds);
    int rc = v ? lines_print_json(v, true, e) : err_nomem(e, 0, "the output");
    json_decref(v);
    return rc;
}

static int print_plan(const struct convert_plan *p, struct err *e)
{
    char size[32], shape[96];
    struct buf b;
    int rc = 0;
    buf_init(&b, 1 << 20);
    for (size_t i = 0; !rc && i < convert_plan_count(p); i++) {
        const struct convert_tensor *t = convert_plan_tensor(p, i);
        buf_clear(&b);
        rc = term_clean(&b, t->name, strlen(t->name), true, e);
        shape_text(shape, sizeof shape, t);
        if (!rc)
            printf("%-40s %-*s %-8s %-8s %10s\n", b.data, SHAPE_WIDTH + num_signs(t), shape,
                   t->from, t->type->name, progress_bytes(size, sizeof size, (double)t->bytes));
    }
    buf_release(&b);
    return rc;
}

/* "Q4_K, Q6_K, F32": the types of the output, those with most bytes first. */
static void types_text(char *out, size_t cap, const struct convert_plan *p)
{
    uint64_t bytes[QUANT_ID_MAX] = {0};
    size_t at = 0;
    for (size_t i = 0; i < convert_plan_count(p); i++)
        bytes[convert_plan_tensor(p, i)->type->id] += convert_plan_tensor(p, i)->bytes;
    out[0] = 0;
    for (int left = 5; left--;) {
        size_t best = 0;
        for (size_t i = 1; i < QUANT_ID_MAX; i++)
            best = bytes[i] > bytes[best] ? i : best;
        if (!bytes[best] || at >= cap)
            return;
        at += (size_t)snprintf(out + at, cap - at, "%s%s", at ? ", " : "",
                               quant_by_id((uint32_t)best)->name);
        bytes[best] = 0;
    }
}

static void print_summary(const struct convert_plan *p, const char *path, double seconds)
{
    char size[32], types[120], parts[32] = "";
    unsigned s = (unsigned)(seconds + 0.5);
    types_text(types, sizeof types, p);
    if (convert_plan_files(p) > 1)
        snprintf(parts, sizeof parts, " in %d files", convert_plan_files(p));
    progress_bytes(size, sizeof size, (double)convert_plan_bytes(p));
    if (path)
        printf("wrote %s: %s%s, %.2f bits a weight (%s), %u:%02u\n", path, size, parts,
               files_bits(p), types, s / 60, s % 60);
    else
        printf("%zu tensors, %s%s, %.2f bits a weight (%s)\n", convert_plan_count(p), size, parts,
               files_bits(p), types);
}

/* ---- running ----------------------------------------------------------------------------------
 */

/* Notes that were not printed yet. */
static void print_notes(const struct convert_plan *p, size_t *noted)
{
    for (; convert_plan_note(p, *noted); ++*noted)
        fprintf(stderr, "ponder: note: %s\n", convert_plan_note(p, *noted));
}

struct files_watch {
    const struct convert_plan *plan;
    size_t *noted; /* NULL: no notes */
    struct progress bar;
    const struct interrupt *interrupt;
};

static bool files_progress(void *arg, uint64_t done, uint64_t total, size_t tensors)
{
    struct files_watch *w = arg;
    (void)tensors;
    if (w->noted) /* once the output is known to be possible */
        print_notes(w->plan, w->noted);
    w->bar.total = total;
    progress_update(&w->bar, done);
    return !interrupt_pending(w->interrupt);
}

int convert_files_write(struct cli *c, struct convert_plan *p, const char *path, int64_t threads,
                        const char *verb, size_t *noted, struct err *e)
{
    struct files_watch watch = {.plan = p, .noted = noted, .interrupt = c->interrupt};
    struct team *team = NULL;
    int rc = team_new(&team, threads == OPT_UNSET ? 0 : (int)threads, e);
    if (rc)
        return rc;
    progress_init(&watch.bar, stderr, verb, PROGRESS_BYTES, convert_plan_bytes(p));
    rc = convert_write(p, path, team, files_progress, &watch, e);
    progress_finish(&watch.bar);
    team_free(team);
    return rc;
}

static int files_write(struct cli *c, struct convert_plan *p, const char *path,
                       const struct convert_files_options *o, const char *verb, struct err *e)
{
    size_t noted = 0;
    double started = clock_seconds();
    interrupt_guard(c->interrupt);
    interrupt_prompt(c->interrupt, true);
    int rc = convert_files_write(c, p, path, o->threads, verb, o->json ? NULL : &noted, e);
    interrupt_prompt(c->interrupt, false);
    double seconds = clock_seconds() - started;
    if (rc == ERR_CANCELLED)
        fprintf(stderr, "ponder: stopped; nothing was written to %s\n", path);
    if (!rc && o->json)
        rc = print_json(p, path, seconds, e);
    else if (!rc)
        print_summary(p, path, seconds);
    if (!rc && !o->json)
        print_notes(p, &noted); /* what came up only while writing */
    interrupt_unguard(c->interrupt);
    return rc;
}

int convert_files(struct cli *c, const struct convert_files_options *o, const char *verb,
                  struct err *e)
{
    const char *to = c->n_args > 1 ? c->args[1] : NULL;
    char path[LOCATE_MAX];
    struct convert_options options;
    struct convert_plan *p = NULL;
    struct source *src = NULL;
    int rc = files_options(&options, o, to, e);
    if (!rc && !to && !o->dry_run)
        rc = err_set(e, ERR_USAGE, "name the output as well (or give --dry-run): ponder %s %s",
                     c->command->name, c->command->args);
    if (!rc)
        rc = locate_model(c->args[0], path, e);
    if (!rc)
        rc = source_open(&src, path, e);
    if (!rc)
        rc = convert_plan_new(&p, src, &options, e);
    size_t noted = 0;
    if (!rc && !o->dry_run) {
        rc = files_write(c, p, to, o, verb, e);
    } else if (!rc && o->json) {
        rc = print_json(p, to, 0, e);
    } else if (!rc && !(rc = print_plan(p, e))) {
        print_notes(p, &noted);
        print_summary(p, NULL, 0);
    }
    convert_plan_free(p);
    source_free(src);
    return rc;
}
