/* eval answers: how often a model is right, on problems with known answers. */
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "eval/answers.h"
#include "train/jsonl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWERS_MAX = 1 << 20 };

struct answers_options {
    int64_t threads, k, max_tokens, seed, limit, seqs;
    double temperature, top_p;
    const char *save;
    int json, markdown;
    struct engine_options engine;
};

#define AT(field) offsetof(struct answers_options, field)
// clang-format off
static const struct opt answers_rows[] = {
    {.name = "samples", .brief = 'k', .alias = "num-generations", .kind = OPT_INT, .arg = "K", .min = 1, .max = 128, .value = "4", .offset = AT(k),
     .help = "answers to each problem"},
    {.name = "temperature", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 10, .value = "0.6", .offset = AT(temperature),
     .help = "of sampling; 0: the likeliest token always"},
    {.name = "top-p", .kind = OPT_FLOAT, .arg = "X", .min = 0.01, .max = 1, .value = "0.95", .offset = AT(top_p),
     .help = "sample from the likeliest tokens that have this much together"},
    {.name = "max-tokens", .alias = "max-completion-length", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .value = "512", .offset = AT(max_tokens),
     .help = "of an answer with its thought (R1: 32768)"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "42", .offset = AT(seed),
     .help = "the same seed gives the same answers"},
    {.name = "limit", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1e9, .shown = "all", .offset = AT(limit),
     .help = "only the first N problems"},
    {.name = "max-num-seqs", .kind = OPT_INT, .arg = "N", .min = 1, .max = 4096, .value = "64", .offset = AT(seqs),
     .help = "answers that are computed at the same time; they do not depend on it"},
    {.name = "save", .kind = OPT_STRING, .arg = "FILE", .offset = AT(save),
     .help = "every answer with its verdict, as JSON lines"},
    {.name = "markdown", .kind = OPT_FLAG, .offset = AT(markdown), .help = "print a Markdown table"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = 256, .shown = "one for each core that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "compute threads; answers are the same for any number"},
};
// clang-format on
#undef AT

static const struct opt_group answers_groups[] = {
    {"Options", answers_rows, NUM_COUNT(answers_rows), 0},
    {"Engine", options_engine + OPTIONS_OWN_N, OPTIONS_ENGINE_N - OPTIONS_OWN_N,
     offsetof(struct answers_options, engine)},
};

struct answers_watch {
    struct cli *cli;
    struct progress bar;
    FILE *save;
};

static bool watch_progress(void *arg, size_t done, size_t all)
{
    struct answers_watch *w = arg;
    w->bar.total = all;
    progress_update(&w->bar, done);
    return !interrupt_pending(w->cli->interrupt);
}

static int watch_answer(void *arg, const json_t *answer, struct err *e)
{
    struct answers_watch *w = arg;
    if (!w->save)
        return 0;
    bool ok = !json_dumpf(answer, w->save, JSON_COMPACT) && fputc('\n', w->save) != EOF;
    return ok ? 0 : err_errno(e, "the file of answers");
}

static int answers_read(json_t **out, const char *path, int64_t limit, struct err *e)
{
    struct jsonl *j = NULL;
    int rc = jsonl_open(&j, path, e);
    *out = json_array();
    uint64_t n = rc ? 0 : jsonl_count(j);
    if (limit != OPT_UNSET && n > (uint64_t)limit)
        n = (uint64_t)limit;
    if (!rc && n > ANSWERS_MAX)
        rc = err_set(e, ERR_LIMIT, "%s: more than %d problems", path, ANSWERS_MAX);
    for (uint64_t i = 0; !rc && i < n; i++) {
        json_t *o = NULL;
        rc = jsonl_object(j, i, &o, e);
        if (rc)
            rc = jsonl_at(j, i, e);
        else if (json_array_append_new(*out, o))
            rc = err_nomem(e, 256, "problems");
    }
    jsonl_free(j);
    return rc;
}

/* ---- printing -------------------------------------------------------------------------------- */

static void print_table(const struct answers *a, int64_t k, bool markdown)
{
    const char *bar = markdown ? "| " : "";
    char head[2][24];
    snprintf(head[0], sizeof head[0], "pass@%" PRId64, k);
    snprintf(head[1], sizeof head[1], "cons@%" PRId64, k);
    printf("%s%-18s%s%9s %s%14s %s%8s %s%8s %s%8s %s%8s %s%8s %s%6s%s\n", bar, "", bar, "problems",
           bar, "pass@1", bar, head[0], bar, head[1], bar, "format", bar, "language", bar, "tokens",
           bar, "cut", markdown ? " |" : "");
    if (markdown)
        puts("|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for (size_t i = 0; i < a->n; i++) {
        const struct answers_row *r = &a->row[i];
        char pass[32], language[16] = "-";
        snprintf(pass, sizeof pass, "%.1f%% ±%.1f", 100 * r->pass1,
                 isnan(r->pass1_error) ? 0 : 100 * r->pass1_error);
        if (!isnan(r->language))
            snprintf(language, sizeof language, "%.1f%%", 100 * r->language);
        printf("%s%-18s%s%9zu %s%15s %s%7.1f%% %s%7.1f%% %s%7.1f%% %s%8s %s%8.1f %s%5.1f%%%s\n",
               bar, r->name, bar, r->problems, bar, pass, bar, 100 * r->passk, bar, 100 * r->consk,
               bar, 100 * r->format, bar, language, bar, r->tokens, bar, 100 * r->cut,
               markdown ? " |" : "");
    }
}

static int print_json(const struct answers *a, int64_t k, struct err *e)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < a->n; i++) {
        const struct answers_row *r = &a->row[i];
        json_t *o = json_pack("{s:s,s:I,s:f,s:f,s:f,s:f,s:f,s:f,s:f}", "name", r->name, "problems",
                              (json_int_t)r->problems, "pass@1", r->pass1, "pass@k", r->passk,
                              "cons@k", r->consk, "format", r->format, "unparsed", r->unparsed,
                              "tokens", r->tokens, "cut", r->cut);
        if (o && !isnan(r->pass1_error))
            json_object_set_new(o, "pass@1_error", json_real(r->pass1_error));
        if (o && !isnan(r->language))
            json_object_set_new(o, "language", json_real(r->language));
        json_array_append_new(rows, o);
    }
    json_t *all =
        json_pack("{s:I,s:I,s:I,s:f,s:o}", "k", (json_int_t)k, "answers", (json_int_t)a->answers,
                  "tokens", (json_int_t)a->tokens, "seconds", a->seconds, "rows", rows);
    int rc = all ? lines_print_json(all, true, e) : err_nomem(e, 4096, "the result");
    json_decref(all);
    return rc;
}

/* ---- the command ----------------------------------------------------------------------------- */

static int answers_open(struct engine **g, struct engine_request *r, const char *model,
                        struct err *e)
{
    char path[4096];
    int rc = locate_model(model, path, e);
    r->path = path;
    return rc ? rc : options_open(g, r, e);
}

static int answers_command(struct cli *c, const void *opts, struct err *e)
{
    const struct answers_options *o = opts;
    struct engine_options eo = o->engine;
    struct log log = {stderr, LOG_WARN};
    struct engine *g = NULL;
    json_t *records = NULL;
    struct answers *a = calloc(1, sizeof *a);
    struct answers_watch w = {.cli = c};
    size_t seqs = (size_t)o->seqs;
    eo.threads = o->threads;
    eo.ctx = OPT_UNSET;
    struct engine_request r = {.o = &eo, .log = &log, .want = seqs};
    struct answers_params p = {.k = (size_t)o->k,
                               .max_tokens = (size_t)o->max_tokens,
                               .seqs = seqs,
                               .progress = watch_progress,
                               .answer = watch_answer,
                               .arg = &w};
    int rc = a ? answers_read(&records, c->args[1], o->limit, e) : err_nomem(e, sizeof *a, "rows");
    r.ctx_max = (size_t)o->max_tokens + 2048;
    r.cache = r.ctx_max * num_min(seqs, 16); /* whoever finds no room waits */
    rc = rc ? rc : answers_open(&g, &r, c->args[0], e);
    if (!rc && o->save && !(w.save = fopen(o->save, "w")))
        rc = err_errno(e, "%s", o->save);
    if (!rc) {
        sampler_params_init(&p.sampling);
        p.sampling.temperature = (float)o->temperature;
        p.sampling.top_p = (float)o->top_p;
        p.sampling.seed = (uint64_t)o->seed;
        p.engine = g;
        p.records = records;
        interrupt_watch(c->interrupt);
        progress_init(&w.bar, stderr, "answers", PROGRESS_COUNT, 0);
        rc = answers_run(a, &p, e);
        progress_finish(&w.bar);
        interrupt_unwatch(c->interrupt);
    }
    if (w.save && fclose(w.save) && !rc)
        rc = err_errno(e, "%s", o->save);
    if (!rc && o->json)
        rc = print_json(a, o->k, e);
    else if (!rc) {
        print_table(a, o->k, o->markdown);
        fprintf(stderr, "%zu answers, %zu tokens in %.1f s (%.0f tokens/s)\n", a->answers,
                a->tokens, a->seconds, (double)a->tokens / fmax(a->seconds, 1e-9));
    }
    if (!rc && a->tight)
        log_line(&log, LOG_WARN,
                 "%zu problems leave less than --max-tokens %" PRId64
                 " of the context of %zu tokens that the model was trained for: their answers end "
                 "there at the latest",
                 a->tight, o->max_tokens, engine_info(g)->ctx);
    engine_free(g);
    buf_release(&r.template_text);
    json_decref(records);
    free(a);
    return rc;
}

const struct command cmd_eval_answers = {
    .name = "eval answers",
    .args = "MODEL FILE",
    .summary = "measure how often a model is right",
    .about =
        "FILE has a problem a line: \"prompt\" (a text or messages), and \"id\" (of ponder data "
        "r1-gym), \"gold\", \"solution\" or \"answer\"; \"task\" and \"language\" make rows of the "
        "table. Answers count by what is in their last \\boxed{}.\n\n"
        "pass@1 is the share of right answers over all samples, with its standard error over "
        "problems; pass@K the share of problems with a right one among K; cons@K those whose most "
        "frequent answer is right; language the share of the expected language's words in "
        "thoughts.",
    .examples = "ponder data r1-gym --split eval --count 200 --output eval.jsonl\n"
                "ponder eval answers model/ eval.jsonl\n"
                "# every answer, to look at\n"
                "ponder eval answers model/ eval.jsonl --limit 50 --save answers.jsonl",
    .spec = {answers_groups, NUM_COUNT(answers_groups)},
    .opts_size = sizeof(struct answers_options),
    .min_args = 2,
    .max_args = 2,
    .run = answers_command,
};
