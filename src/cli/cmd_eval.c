/*
 * eval: how good a model is, as numbers. What is measured is the first argument, one row each in
 * eval_tasks.
 */
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/options.h"
#include "cli/text_ids.h"
#include "eval/perplexity.h"
#include "format/meta_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_CTX = 512, EVAL_WANT = 64, EVAL_IDS = 1 << 28 };

struct eval_options {
    int64_t threads, ctx, stride, chunks, top;
    const char *save_logits, *kl;
    int json;
    struct engine_options engine;
};

#define AT(field) offsetof(struct eval_options, field)
// clang-format off
static const struct opt eval_rows[] = {
    {.name = "ctx", .brief = 'c', .alias = "ctx-size", .kind = OPT_SIZE, .arg = "N", .min = 2, .max = 1 << 24, .shown = "512", .offset = AT(ctx),
     .help = "tokens of a window; published figures are for 512"},
    {.name = "stride", .alias = "ppl-stride", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 24, .offset = AT(stride),
     .help = "windows begin every N tokens and score what is new in them (Hugging Face's way); without it windows "
             "do not overlap and their second halves are scored (llama.cpp's way)"},
    {.name = "chunks", .kind = OPT_SIZE, .arg = "N", .min = 1, .max = 1 << 30, .shown = "all", .offset = AT(chunks),
     .help = "only the first N windows"},
    {.name = "save-logits", .kind = OPT_STRING, .arg = "FILE", .offset = AT(save_logits),
     .help = "keep this model's log-probabilities as a reference for --kl"},
    {.name = "top", .kind = OPT_SIZE, .arg = "K", .min = 1, .max = 1 << 24, .value = "256", .offset = AT(top),
     .help = "likeliest tokens that --save-logits keeps one by one; all others share a cell"},
    {.name = "kl", .alias = "kl-divergence", .kind = OPT_STRING, .arg = "FILE", .offset = AT(kl),
     .help = "hold the model against saved logits; the text, --ctx and --stride are in the file"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
    {.name = "threads", .brief = 't', .kind = OPT_INT, .arg = "N", .min = 1, .max = 256, .shown = "one for each core that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "compute threads; the figures are the same for any number"},
};
// clang-format on
#undef AT

static const struct opt_group eval_groups[] = {
    {"Options", eval_rows, NUM_COUNT(eval_rows), 0},
    {"Engine", options_engine + OPTIONS_OWN_N, OPTIONS_ENGINE_N - OPTIONS_OWN_N,
     offsetof(struct eval_options, engine)},
};

struct eval_watch {
    struct cli *cli;
    struct progress bar;
};

static bool eval_progress(void *arg, size_t done, size_t total)
{
    struct eval_watch *w = arg;
    w->bar.total = total;
    progress_update(&w->bar, done);
    return !interrupt_pending(w->cli->interrupt);
}

/* A model's name and type on one line, safe to show. */
static int eval_name(struct buf *out, const char *name, const char *type, struct err *e)
{
    int rc = term_clean(out, name, strlen(name), true, e);
    if (!rc)
        rc = buf_puts(out, ", ", e);
    return rc ? rc : term_clean(out, type, strlen(type), true, e);
}

static void eval_print(const char *name, const char *reference, const struct perplexity_params *p,
                       const struct perplexity *x)
{
    char a[32], b[32];
    size_t step = p->cut.stride ? p->cut.stride : p->cut.ctx;
    size_t covered = num_min(p->n, x->windows ? (x->windows - 1) * step + p->cut.ctx : 0);
    printf("%s: %s tokens in %zu windows of %zu", name, term_group(a, sizeof a, covered),
           x->windows, p->cut.ctx);
    if (p->cut.stride)
        printf(", one every %zu", p->cut.stride);
    printf("; %s scored", term_group(b, sizeof b, x->scored));
    if (x->unused)
        printf(", %zu at the end not used", x->unused);
    if (x->windows < x->of_windows)
        printf(" (stopped before window %zu of %zu)", x->windows + 1, x->of_windows);
    printf("\nperplexity    %.4f ± %.4f\nnll           %.5f ± %.5f a token\nspeed         %.1f "
           "tokens/s, %.1f s\n",
           x->ppl.value, x->ppl.error, x->nll.value, x->nll.error,
           x->seconds > 0 ? (double)x->tokens / x->seconds : 0, x->seconds);
    if (!reference)
        return;
    printf("\nagainst %s, perplexity %.4f ± %.4f\n"
           "ratio         %.5f ± %.5f of the perplexities\n"
           "KL            mean %.6f ± %.6f, median %.6f, 90%% %.6f, 99%% %.6f, largest %.6f\n"
           "right token   probability %+.4f%% ± %.4f%% on average, RMS %.4f%%\n"
           "best token    the same at %.3f%% ± %.3f%%\n",
           reference, x->reference_ppl.value, x->reference_ppl.error, x->ratio.value,
           x->ratio.error, x->kl.value, x->kl.error, x->kl_median, x->kl_p90, x->kl_p99, x->kl_max,
           100 * x->dp.value, 100 * x->dp.error, 100 * x->dp_rms, 100 * x->same.value,
           100 * x->same.error);
}

static json_t *eval_mean(struct mean m)
{
    json_t *v = json_object();
    json_object_set_new(v, "value", json_real(m.value));
    json_object_set_new(v, "error", isfinite(m.error) ? json_real(m.error) : json_null());
    return v;
}

static int eval_json(const struct engine *g, const struct perplexity_params *p,
                     const struct perplexity *x, struct err *e)
{
    const struct engine_info *i = engine_info(g);
    json_t *all =
        json_pack("{s{so ss} sI sI sI sI sI sI so so sf}", "model", "name",
                  meta_json_string(i->name, strlen(i->name)), "type", i->file_type, "ctx",
                  (json_int_t)p->cut.ctx, "stride", (json_int_t)p->cut.stride, "windows",
                  (json_int_t)x->windows, "tokens", (json_int_t)x->tokens, "scored",
                  (json_int_t)x->scored, "unused", (json_int_t)x->unused, "nll", eval_mean(x->nll),
                  "perplexity", eval_mean(x->ppl), "seconds", x->seconds);
    if (all && p->reference) {
        const struct reference_head *h = &p->reference->head;
        json_t *r =
            json_pack("{s{so so sI} so so s{so sf sf sf sf} s{so sf} so}", "reference", "name",
                      meta_json_string(h->name, strlen(h->name)), "type",
                      meta_json_string(h->type, strlen(h->type)), "top", (json_int_t)h->top,
                      "reference_perplexity", eval_mean(x->reference_ppl), "perplexity_ratio",
                      eval_mean(x->ratio), "kl", "mean", eval_mean(x->kl), "median", x->kl_median,
                      "p90", x->kl_p90, "p99", x->kl_p99, "max", x->kl_max, "right_token", "mean",
                      eval_mean(x->dp), "rms", x->dp_rms, "same_best", eval_mean(x->same));
        json_object_update(all, r);
        json_decref(r);
    }
    int rc = all ? lines_print_json(all, true, e) : err_nomem(e, 0, "the report");
    json_decref(all);
    return rc;
}

static int eval_report(struct cli *c, const struct eval_options *o, const struct engine *g,
                       const struct perplexity_params *p, const struct perplexity *x, struct err *e)
{
    const struct engine_info *i = engine_info(g);
    struct buf name, against;
    if (o->json)
        return eval_json(g, p, x, e);
    buf_init(&name, 4096);
    buf_init(&against, 4096);
    int rc = eval_name(&name, i->name, i->file_type, e);
    if (!rc && p->reference)
        rc = eval_name(&against, p->reference->head.name, p->reference->head.type, e);
    if (!rc)
        eval_print(name.data, p->reference ? against.data : NULL, p, x);
    buf_release(&name);
    buf_release(&against);
    return rc;
}

/* What the options and the reference say about windows. */
static void eval_cut(const struct eval_options *o, const struct reference *r, struct eval_cut *cut)
{
    *cut = (struct eval_cut){.ctx = EVAL_CTX};
    if (r)
        *cut = r->head.cut;
    if (o->ctx != OPT_UNSET)
        cut->ctx = (size_t)o->ctx;
    if (o->stride != OPT_UNSET)
        cut->stride = (size_t)o->stride;
    if (o->chunks != OPT_UNSET)
        cut->limit = (size_t)o->chunks;
}

static int eval_perplexity(struct cli *c, const struct eval_options *o, const char *model,
                           const char *text, struct err *e)
{
    struct log log = {stderr, LOG_WARN};
    char path[LOCATE_MAX];
    struct engine_options eo = o->engine;
    struct engine_request r = {.path = path, .o = &eo, .log = &log, .kv_type = ENGINE_KV_AUTO};
    struct perplexity_params p = {.save = o->save_logits, .top = (size_t)o->top};
    struct eval_watch watch = {.cli = c};
    struct reference ref = {0};
    struct engine *g = NULL;
    struct perplexity x;
    struct ids ids;
    ids_init(&ids, EVAL_IDS);
    int rc = locate_model(model, path, e);
    if (!rc && !text && !o->kl)
        rc = err_set(e, ERR_USAGE,
                     "eval perplexity: a text is missing: ponder eval perplexity "
                     "MODEL FILE, or - for standard input");
    if (!rc && o->kl)
        rc = reference_open(&ref, o->kl, e);
    eval_cut(o, !rc && o->kl ? &ref : NULL, &p.cut);
    eo.threads = o->threads;
    eo.ctx = OPT_UNSET;
    r.ctx = p.cut.ctx;
    r.want = EVAL_WANT;
    if (!rc)
        rc = options_open(&g, &r, e);
    if (!rc && text)
        rc = text_ids(&ids, g, text, e);
    if (!rc) {
        p.ids = text ? ids.v : ref.ids;
        p.n = text ? ids.n : ref.head.n_ids;
        p.bos = p.cut.stride ? -1 : text_bos(g);
        p.reference = o->kl ? &ref : NULL;
        p.progress = eval_progress;
        p.arg = &watch;
        progress_init(&watch.bar, stderr, "scoring", PROGRESS_COUNT, 0);
        interrupt_guard(c->interrupt);
        rc = perplexity_run(&x, g, &p, e);
        progress_finish(&watch.bar);
        struct err lost;
        if (!rc)
            rc = eval_report(c, o, g, &p, &x, e);
        else if (rc == ERR_CANCELLED && x.windows)
            eval_report(c, o, g, &p, &x, &lost);
        interrupt_unguard(c->interrupt);
    }
    engine_free(g);
    reference_release(&ref);
    buf_release(&r.template_text);
    ids_release(&ids);
    return rc;
}

static const struct {
    const char *name;
    int (*run)(struct cli *c, const struct eval_options *o, const char *model, const char *text,
               struct err *e);
} eval_tasks[] = {
    {"perplexity", eval_perplexity},
};

static int eval_run(struct cli *c, const void *opts, struct err *e)
{
    for (size_t i = 0; i < NUM_COUNT(eval_tasks); i++)
        if (!strcmp(c->args[0], eval_tasks[i].name))
            return eval_tasks[i].run(c, opts, c->args[1], c->n_args > 2 ? c->args[2] : NULL, e);
    return err_set(e, ERR_USAGE,
                   "eval: \"%.60s\" is nothing that can be measured; \"perplexity\" is",
                   c->args[0]);
}

const struct command cmd_eval = {
    .name = "eval",
    .args = "perplexity MODEL [TEXT]",
    .summary = "measure how well a model predicts a text",
    .about =
        "perplexity: how surprised the model is by a text, token by token; lower is better. TEXT "
        "is "
        "a file, or - for standard input. Figures are comparable only between models with the same "
        "tokenizer, over the same text and windows.\n\n"
        "To see what a quantization costs, save the logits of the exact model once and hold the "
        "others against them: KL divergence, the probability of the right token and how often the "
        "best token stays the same see what perplexity does not. The file keeps the --top "
        "likeliest "
        "tokens of each position one by one and the rest as one cell, so the KL divergence is a "
        "lower bound, close when the rest is small.",
    .examples = "ponder eval perplexity model.gguf wiki.test.raw\n"
                "ponder eval perplexity model-f16.gguf text.txt --save-logits ref.logits\n"
                "ponder eval perplexity model-q4.gguf --kl ref.logits\n",
    .spec = {eval_groups, NUM_COUNT(eval_groups)},
    .opts_size = sizeof(struct eval_options),
    .min_args = 2,
    .max_args = 3,
    .run = eval_run,
};
