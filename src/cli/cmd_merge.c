/*
 * merge: an adapter into the weights of its model, and what that changed.
 *
 * The merged model is written under another name first. Then base with adapter (products added, as
 * in training) and merged model compute the logits of some fixed texts, in float. A merge into
 * floats differs by what rounding the sums costs; one into a few bits may lose the adapter, because
 * what it adds is less than a step of the codes. So the difference is told, and above a bound
 * nothing is kept.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "cli/command.h"
#include "cli/convert_files.h"
#include "cli/interrupt.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "convert/convert.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MERGE_TOKENS = 64, MERGE_BOUND = 1024 };

struct merge_options {
    const char *out, *type;
    double tolerance;
    int force, json;
    int64_t threads;
};

#define AT(field) offsetof(struct merge_options, field)
// clang-format off
static const struct opt merge_rows[] = {
    {.name = "output", .brief = 'o', .kind = OPT_STRING, .arg = "OUT", .offset = AT(out),
     .help = "where the merged model goes: a .gguf file, or a Hugging Face folder"},
    {.name = "type", .kind = OPT_STRING, .arg = "T", .shown = "types stay as they are", .offset = AT(type),
     .help = "type of the merged weights: f16, bf16, Q8_0, Q4_K_M, …"},
    {.name = "tolerance", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 1e9, .value = "0.1", .offset = AT(tolerance),
     .help = "nothing is kept when logits differ by more than this on average"},
    {.name = "force", .brief = 'f', .kind = OPT_FLAG, .offset = AT(force),
     .help = "keep it all the same, and replace OUT when it is a file"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = TEAM_MAX, .shown = "one for each core that this process may use", .env = "PONDER_THREADS", .offset = AT(threads),
     .help = "compute threads; the result is the same for any number"},
};
// clang-format on
#undef AT

static const struct opt_group merge_groups[] = {{"Options", merge_rows, NUM_COUNT(merge_rows), 0}};

/* ---- logits ---------------------------------------------------------------------------------- */

static const char *const merge_texts[] = {
    "The capital of France is Paris, and the longest river of the country is the Loire.",
    "What is 47*6+128? First 47*6=282, then 282+128=410. The answer is \\boxed{410}.",
    "<think>\nLet me see. If x is even, then x squared is even too.\n</think>\n\nYes.",
    "def fib(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a\n",
    "\xe6\x98\x9f\xe6\x9c\x9f\xe4\xba\x94\xe4\xb9\x8b\xe5\x90\x8e"
    "25"
    "\xe5\xa4\xa9\xe6\x98\xaf\xe6\x98\x9f\xe6\x9c\x9f\xe5\x87\xa0\xef\xbc\x9f"
    "\xe7\xad\x94\xe6\xa1\x88\xe6\x98\xaf\xe6\x98\x9f\xe6\x9c\x9f\xe4\xba\x8c\xe3\x80\x82",
    "Once upon a time a small robot lived at the edge of a forest. Every morning it",
    "{\"name\": \"Ada\", \"born\": 1815, \"fields\": [\"mathematics\", \"computing\"]}",
    "To whom it may concern: I am writing to ask whether the position is still open.",
};

struct merge_texts {
    int32_t ids[NUM_COUNT(merge_texts)][MERGE_TOKENS];
    size_t n[NUM_COUNT(merge_texts)], tokens, vocab;
};

/* The texts' tokens; of a model without a tokenizer any. */
static int merge_tokens(struct merge_texts *t, const struct engine *g, struct err *e)
{
    const struct tokenizer *tok = engine_tokenizer(g);
    struct ids ids;
    int rc = 0;
    t->vocab = engine_info(g)->vocab;
    ids_init(&ids, 1 << 16);
    for (size_t i = 0; !rc && i < NUM_COUNT(merge_texts); i++) {
        ids.n = 0;
        if (tok)
            rc = tokenizer_encode(tok, merge_texts[i], strlen(merge_texts[i]), 0, NULL, &ids, e);
        t->n[i] = tok ? num_min(ids.n, MERGE_TOKENS) : MERGE_TOKENS;
        for (size_t k = 0; !rc && k < t->n[i]; k++) {
            uint32_t w[4];
            rng_block(i, 0, k, w);
            t->ids[i][k] = tok ? ids.v[k] : (int32_t)(w[0] % t->vocab);
        }
        t->tokens += t->n[i];
    }
    ids_release(&ids);
    return rc;
}

static int merge_logits(struct engine *g, const struct merge_texts *t, float *out, struct err *e)
{
    struct session *s = NULL;
    int rc = session_new(&s, g, e);
    for (size_t i = 0; !rc && i < NUM_COUNT(merge_texts); i++) {
        session_truncate(s, 0);
        rc = t->n[i] ? session_append_all(s, t->ids[i], t->n[i], out, e) : 0;
        out += t->n[i] * t->vocab;
    }
    session_free(s);
    return rc;
}

static int merge_open(struct engine **g, const char *path, const char *adapter,
                      const struct merge_options *o, const struct log *log, struct err *e)
{
    struct engine_opts eo;
    engine_opts_init(&eo);
    eo.threads = o->threads == OPT_UNSET ? 0 : (int)o->threads;
    eo.act = ENGINE_ACT_F32;
    eo.kv_type = QUANT_F32;
    eo.ctx = MERGE_TOKENS;
    eo.adapter = adapter;
    eo.log = log;
    return engine_open(g, path, &eo, e);
}

/* ---- the difference -------------------------------------------------------------------------- */

struct merge_found {
    char from[64]; /* type of the base */
    char to[64];   /* of the merged model */
    bool original; /* the base's weights are floats */
    double max, mean, spread;
    size_t tokens, tops; /* tokens, and those of them where both have the same first choice */
};

static size_t merge_top(const float *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static void merge_compare(struct merge_found *f, const struct merge_texts *t, const float *a,
                          const float *b)
{
    double sum = 0, square = 0, all = (double)t->tokens * (double)t->vocab;
    for (size_t r = 0; r < t->tokens; r++, a += t->vocab, b += t->vocab) {
        double mean = 0;
        for (size_t i = 0; i < t->vocab; i++) {
            double d = fabs((double)a[i] - (double)b[i]);
            sum += d;
            f->max = d > f->max || isnan(d) ? d : f->max;
            mean += (double)a[i] / (double)t->vocab;
        }
        for (size_t i = 0; i < t->vocab; i++)
            square += ((double)a[i] - mean) * ((double)a[i] - mean);
        f->tops += merge_top(a, t->vocab) == merge_top(b, t->vocab);
    }
    f->tokens = t->tokens;
    f->mean = sum / fmax(all, 1);
    f->spread = sqrt(square / fmax(all, 1));
}

/* Both models' logits, one model after the other. */
static int merge_check(struct merge_found *f, const char *base, const char *adapter,
                       const char *merged, const struct merge_options *o, const struct log *log,
                       struct err *e)
{
    static const char *const floats[] = {"F32", "F16", "BF16"};
    struct merge_texts t = {.tokens = 0};
    struct engine *g = NULL;
    float *a = NULL, *b = NULL;
    size_t n = 0;
    int rc = merge_open(&g, base, adapter, o, log, e);
    rc = rc ? rc : merge_tokens(&t, g, e);
    if (!rc && (!num_mul(&n, t.tokens, t.vocab) || !(a = calloc(2 * n + 1, sizeof *a))))
        rc = err_nomem(e, 2 * n * sizeof *a, "the logits");
    b = a ? a + n : NULL;
    if (!rc) {
        snprintf(f->from, sizeof f->from, "%s", engine_info(g)->file_type);
        for (size_t i = 0; i < NUM_COUNT(floats); i++)
            f->original = f->original || !strcmp(f->from, floats[i]);
        rc = merge_logits(g, &t, a, e);
    }
    engine_free(g);
    g = NULL;
    rc = rc ? rc : merge_open(&g, merged, NULL, o, log, e);
    if (!rc) {
        snprintf(f->to, sizeof f->to, "%s", engine_info(g)->file_type);
        rc = merge_logits(g, &t, b, e);
    }
    if (!rc)
        merge_compare(f, &t, a, b);
    engine_free(g);
    free(a);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int merge_write(struct cli *c, struct source *src, const char *adapter, const char *path,
                       bool gguf, const struct merge_options *o, struct err *e)
{
    struct convert_options co = {.format = gguf ? CONVERT_GGUF : CONVERT_HF, .adapter = adapter};
    struct convert_plan *p = NULL;
    if (o->type && !(co.mix = mix_find(o->type)))
        return mix_unknown(o->type, e);
    int rc = convert_plan_new(&p, src, &co, e);
    interrupt_watch(c->interrupt);
    rc = rc ? rc : convert_files_write(c, p, path, o->threads, "merging", NULL, e);
    interrupt_unwatch(c->interrupt);
    for (size_t i = 0; !rc && !o->json && convert_plan_note(p, i); i++)
        fprintf(stderr, "ponder: note: %s\n", convert_plan_note(p, i));
    convert_plan_free(p);
    return rc;
}

static int merge_print(const struct merge_found *f, const char *base, const struct merge_options *o,
                       bool kept, struct err *e)
{
    if (o->json) {
        json_t *v = json_pack(
            "{s:s,s:s,s:s,s:s,s:s,s:f,s:f,s:f,s:I,s:I,s:f,s:b}", "output", o->out, "base", base,
            "base_weights", f->original ? "original" : "dequantized", "base_type", f->from,
            "output_type", f->to, "max_difference", f->max, "mean_difference", f->mean,
            "logit_deviation", f->spread, "tokens", (json_int_t)f->tokens, "same_first_choice",
            (json_int_t)f->tops, "tolerance", o->tolerance, "kept", kept);
        int rc = v ? lines_print_json(v, true, e) : err_nomem(e, 0, "the output");
        json_decref(v);
        return rc;
    }
    printf("base: %s, %s %s\n", base, f->original ? "original weights in" : "dequantized from",
           f->from);
    printf("logits of base and adapter against %s: differ by %.3g at most, %.3g on average "
           "(their standard deviation is %.3g); the same first choice for %zu of %zu tokens\n",
           f->to, f->max, f->mean, f->spread, f->tops, f->tokens);
    if (kept)
        printf("wrote %s\n", o->out);
    return 0;
}

/* Whether the output may go there: folders are never replaced, nor is the base. */
static int merge_free(const char *base, const struct merge_options *o, bool gguf, struct err *e)
{
    struct stat a, b;
    enum file_kind_id kind = file_kind(o->out);
    if (kind == FILE_NONE)
        return 0;
    if (!stat(base, &a) && !stat(o->out, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
        return err_set(e, ERR_USAGE, "%s: is the base itself; give another name", o->out);
    if (kind != FILE_REGULAR || !gguf)
        return err_set(e, ERR_USAGE, "%s: is there already; give another name", o->out);
    return o->force ? 0
                    : err_set(e, ERR_USAGE, "%s: is there already; --force replaces it", o->out);
}

/* The name until it is known to be good. */
static int merge_name(char *part, size_t cap, const struct merge_options *o, bool *gguf,
                      struct err *e)
{
    size_t n = o->out ? strlen(o->out) : 0;
    while (n > 1 && o->out[n - 1] == '/')
        n--;
    if (!n)
        return err_set(e, ERR_USAGE, "name the output: ponder merge BASE ADAPTER --output OUT");
    if (n >= LOCATE_MAX)
        return err_set(e, ERR_USAGE, "the name of the output is too long");
    *gguf = n > 5 && !strncasecmp(o->out + n - 5, ".gguf", 5);
    snprintf(part, cap, "%.*s.unchecked-%ld%s", (int)n, o->out, (long)getpid(),
             *gguf ? ".gguf" : "");
    return 0;
}

static int merge_run(struct cli *c, const void *opts, struct err *e)
{
    const struct merge_options *o = opts;
    struct log log = {stderr, LOG_ERROR};
    struct merge_found found = {.max = 0};
    struct source *src = NULL;
    char base[LOCATE_MAX], part[LOCATE_MAX + 64];
    bool gguf = false;
    int rc = merge_name(part, sizeof part, o, &gguf, e);
    rc = rc ? rc : locate_model(c->args[0], base, e);
    rc = rc ? rc : merge_free(base, o, gguf, e);
    if (rc)
        return rc;
    rc = source_open(&src, base, e);
    rc = rc ? rc : merge_write(c, src, c->args[1], part, gguf, o, e);
    rc = rc ? rc : merge_check(&found, base, c->args[1], part, o, &log, e);
    source_free(src);
    bool far = !rc && !(found.mean <= o->tolerance);
    if (!rc && (!far || o->force) && rename(part, o->out) != 0)
        rc = err_errno(e, "%s", o->out);
    if (rc || (far && !o->force))
        convert_remove(part);
    if (!rc)
        rc = merge_print(&found, base, o, !far || o->force, e);
    if (!rc && far && !o->force)
        rc =
            err_set(e, ERR_LIMIT,
                    "the merged logits differ by %.3g on average, more than --tolerance %g: "
                    "nothing was kept. %s; or serve the adapter unmerged (--lora), or give --force",
                    found.mean, o->tolerance,
                    found.original ? "Try --type f16 or f32"
                                   : "Merge into the original weights, or try --type f16");
    return rc;
}

const struct command cmd_merge = {
    .name = "merge",
    .args = "BASE ADAPTER --output OUT",
    .summary = "merge a LoRA adapter into its model, and measure what that changed",
    .about =
        "Adds a LoRA adapter (a PEFT folder, as `ponder train --use-peft` writes, or a GGUF file) "
        "to the weights of its model. Then base with adapter and merged model compute the logits "
        "of "
        "some fixed texts, and how far they differ is printed. Nothing is left when that is more "
        "than --tolerance: a merge into few bits may lose what the adapter has learned.",
    .examples = "ponder merge base/ run/model --output merged/\n"
                "ponder merge base-q8_0.gguf run/model --type f16 --output merged.gguf\n",
    .spec = {merge_groups, NUM_COUNT(merge_groups)},
    .opts_size = sizeof(struct merge_options),
    .min_args = 2,
    .max_args = 2,
    .run = merge_run,
};
