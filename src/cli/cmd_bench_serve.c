/*
 * bench serve: load on a server over HTTP, and what its users would feel.
 *
 *   first token   from the request (or from when it was due) to the first piece of text
 *   gap           between pieces of text of one answer
 *   per token     from the first piece to the last, by tokens after the first
 *   steady        answer tokens a second while all clients are being answered: what the server
 *                 decodes, without its waiting for prompts and for the last answers
 *
 * A table row for each concurrency or rate. Percentiles are of all requests that succeeded, gaps of
 * all pieces of all of them.
 */
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/load.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERVE_LIST_MAX = 16 };

struct serve_bench {
    const char *model, *api, *concurrency, *rate, *prompt, *answer, *data, *api_key, *extra;
    int64_t requests, seed, prefix;
    double seconds, timeout, temperature;
    int ignore_end, json, markdown;
};

#define AT(field) offsetof(struct serve_bench, field)
// clang-format off
static const struct opt serve_rows[] = {
    {.name = "model", .brief = 'm', .kind = OPT_STRING, .arg = "NAME", .shown = "the server's first", .offset = AT(model),
     .help = "name of the model as the server lists it"},
    {.name = "api", .kind = OPT_ENUM, .arg = "NAME", .choices = "chat|completions|ollama", .value = "chat", .offset = AT(api),
     .help = "/v1/chat/completions, /v1/completions or /api/chat"},
    {.name = "concurrency", .brief = 'c', .alias = "max-concurrency", .kind = OPT_STRING, .arg = "LIST", .shown = "8, or no bound with --rate", .offset = AT(concurrency),
     .help = "clients at the same time, also several like 1,8,32"},
    {.name = "rate", .alias = "request-rate", .kind = OPT_STRING, .arg = "LIST", .shown = "as fast as answers come", .offset = AT(rate),
     .help = "requests a second on average, at random times, also several like 0.5,1,2"},
    {.name = "requests", .brief = 'n', .alias = "num-prompts", .kind = OPT_INT, .arg = "N", .min = 1, .max = 1e7, .value = "64", .offset = AT(requests),
     .help = "requests of a row"},
    {.name = "seconds", .kind = OPT_FLOAT, .arg = "S", .min = 0, .max = 1e6, .value = "0", .shown = "no bound", .offset = AT(seconds),
     .help = "begin no request after that time"},
    {.name = "prompt-len", .alias = "input-len random-input-len", .kind = OPT_STRING, .arg = "LENGTH", .value = "128", .offset = AT(prompt),
     .help = "tokens of a made prompt, roughly: 128, 64-512, normal:256:64, lognormal:200:0.8, exp:200"},
    {.name = "output-len", .alias = "random-output-len", .kind = OPT_STRING, .arg = "LENGTH", .value = "64", .offset = AT(answer),
     .help = "tokens of an answer, in the same way"},
    {.name = "prefix", .alias = "random-prefix-len", .kind = OPT_INT, .arg = "N", .min = 0, .max = 1 << 20, .value = "0", .offset = AT(prefix),
     .help = "words that all made prompts begin with"},
    {.name = "data", .alias = "dataset-path", .kind = OPT_STRING, .arg = "FILE", .offset = AT(data),
     .help = "prompts from JSON lines: ShareGPT's \"conversations\", \"messages\" or \"prompt\"; \"output_len\" where given"},
    {.name = "ignore-eos", .kind = OPT_SWITCH, .value = "1", .offset = AT(ignore_end),
     .help = "answers are as long as asked for"},
    {.name = "temperature", .kind = OPT_FLOAT, .arg = "X", .min = 0, .max = 100, .shown = "the server's", .offset = AT(temperature),
     .help = "of all requests"},
    {.name = "extra", .alias = "extra-body", .kind = OPT_STRING, .arg = "JSON", .offset = AT(extra),
     .help = "an object whose members every request gets"},
    {.name = "api-key", .kind = OPT_STRING, .arg = "KEY", .env = "PONDER_API_KEY", .offset = AT(api_key),
     .help = "key of the server"},
    {.name = "timeout", .kind = OPT_FLOAT, .arg = "S", .min = 0, .max = 1e6, .value = "600", .offset = AT(timeout),
     .help = "a request that takes longer has failed"},
    {.name = "seed", .kind = OPT_INT, .arg = "N", .min = 0, .max = 9e18, .value = "0", .offset = AT(seed),
     .help = "the same seed gives the same prompts, lengths and arrivals"},
    {.name = "markdown", .kind = OPT_FLAG, .offset = AT(markdown), .help = "print a Markdown table"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object, with every request"},
};
// clang-format on
#undef AT

static const struct opt_group serve_groups[] = {
    {"Options", serve_rows, NUM_COUNT(serve_rows), 0},
};

/* ---- percentiles ---------------------------------------------------------------------------- */

struct series {
    double *v; /* ascending */
    size_t n;
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Linear between ranks. */
static double percentile(const struct series *s, double p)
{
    if (!s->n)
        return NAN;
    double at = p / 100 * (double)(s->n - 1);
    size_t i = (size_t)at;
    double rest = at - (double)i;
    return i + 1 < s->n ? s->v[i] * (1 - rest) + s->v[i + 1] * rest : s->v[i];
}

static double mean(const struct series *s)
{
    double sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->v[i];
    return s->n ? sum / (double)s->n : NAN;
}

/* What one row says. */
struct row {
    double concurrency, rate;
    struct load_result r;
    struct series first, gap, token, whole;
    double answer_tokens, prompt_tokens, cached;
};

static void row_release(struct row *w)
{
    free(w->first.v);
    free(w->gap.v);
    free(w->token.v);
    free(w->whole.v);
    load_result_release(&w->r);
}

static int row_make(struct row *w, struct err *e)
{
    const struct load_result *r = &w->r;
    struct series *all[] = {&w->first, &w->gap, &w->token, &w->whole};
    for (size_t i = 0; i < NUM_COUNT(all); i++) {
        size_t n = all[i] == &w->gap ? r->n_gap : r->n;
        all[i]->v = malloc((n + 1) * sizeof *all[i]->v);
        if (!all[i]->v)
            return err_nomem(e, n * sizeof *all[i]->v, "statistics");
    }
    for (size_t i = 0; i < r->n; i++) {
        const struct load_sample *s = &r->sample[i];
        if (!s->ok)
            continue;
        w->answer_tokens += (double)s->answer_tokens;
        w->prompt_tokens += (double)s->prompt_tokens;
        w->cached += (double)s->cached_tokens;
        w->whole.v[w->whole.n++] = s->end - s->start;
        if (s->first < 0)
            continue;
        w->first.v[w->first.n++] = s->first - s->start;
        if (s->answer_tokens > 1)
            w->token.v[w->token.n++] = (s->end - s->first) / (double)(s->answer_tokens - 1);
    }
    for (size_t i = 0; i < r->n_gap; i++)
        w->gap.v[w->gap.n++] = (double)r->gap[i];
    for (size_t i = 0; i < NUM_COUNT(all); i++)
        qsort(all[i]->v, all[i]->n, sizeof *all[i]->v, compare);
    return 0;
}

/* NAN when there was no such time, or too little. */
static double row_steady(const struct row *w)
{
    return w->r.full_seconds > 0.05 ? w->r.full_tokens / w->r.full_seconds : NAN;
}

/* ---- printing ------------------------------------------------------------------------------- */

static json_t *json_series(const struct series *s)
{
    return json_pack("{sf sf sf sf sf}", "mean", mean(s), "p50", percentile(s, 50), "p90",
                     percentile(s, 90), "p99", percentile(s, 99), "max", percentile(s, 100));
}

static json_t *json_row(const struct row *w)
{
    json_t *requests = json_array();
    for (size_t i = 0; i < w->r.n; i++) {
        const struct load_sample *s = &w->r.sample[i];
        json_array_append_new(requests, json_pack("{sf sf sf si sI sI sI sb}", "start", s->start,
                                                  "first", s->first, "end", s->end, "status",
                                                  s->status, "prompt_tokens",
                                                  (json_int_t)s->prompt_tokens, "cached_tokens",
                                                  (json_int_t)s->cached_tokens, "answer_tokens",
                                                  (json_int_t)s->answer_tokens, "ok", s->ok));
    }
    json_t *o = json_pack("{sf sf sI sI sf sf sf sf sf}", "concurrency", w->concurrency, "rate",
                          w->rate, "requests", (json_int_t)w->r.n, "failed",
                          (json_int_t)w->r.failed, "seconds", w->r.seconds, "answer_tokens",
                          w->answer_tokens, "prompt_tokens", w->prompt_tokens, "cached_tokens",
                          w->cached, "answer_tokens_per_second", w->answer_tokens / w->r.seconds);
    if (!isnan(row_steady(w)))
        json_object_set_new(o, "steady_tokens_per_second", json_real(row_steady(w)));
    if (w->first.n)
        json_object_set_new(o, "first_token_seconds", json_series(&w->first));
    if (w->gap.n)
        json_object_set_new(o, "gap_seconds", json_series(&w->gap));
    if (w->token.n)
        json_object_set_new(o, "per_token_seconds", json_series(&w->token));
    if (w->whole.n)
        json_object_set_new(o, "request_seconds", json_series(&w->whole));
    json_object_set_new(o, "samples", requests);
    return o;
}

static void print_head(bool markdown)
{
    static const char *const names[] = {"load",     "requests", "failed",    "req/s",    "answer/s",
                                        "steady/s", "prompt/s", "first p50", "p90",      "p99",
                                        "gap p50",  "p99",      "token p50", "whole p50"};
    for (size_t i = 0; i < NUM_COUNT(names); i++)
        printf(markdown ? "| %s " : i ? " %9s" : "%-9s", names[i]);
    printf(markdown ? "|\n" : "\n");
    for (size_t i = 0; markdown && i < NUM_COUNT(names); i++)
        printf(i ? "|--:" : "|---");
    if (markdown)
        printf("|\n");
}

/* A time with three digits: "12 ms", "1.23 s". */
static void print_time(double s, bool markdown)
{
    char text[32] = "-";
    if (isfinite(s) && s < 0.9995)
        snprintf(text, sizeof text,
                 s < 0.00995  ? "%.2f ms"
                 : s < 0.0995 ? "%.1f ms"
                              : "%.0f ms",
                 s * 1e3);
    else if (isfinite(s))
        snprintf(text, sizeof text, s < 9.995 ? "%.2f s" : s < 99.95 ? "%.1f s" : "%.0f s", s);
    printf(markdown ? "| %s " : " %9s", text);
}

static void print_row(const struct row *w, bool markdown)
{
    char load[32];
    if (w->rate > 0)
        snprintf(load, sizeof load, "%g/s", w->rate);
    else
        snprintf(load, sizeof load, "%g", w->concurrency);
    printf(markdown ? "| %s " : "%-9s", load);
    const double numbers[] = {(double)w->r.n,
                              (double)w->r.failed,
                              (double)w->whole.n / w->r.seconds,
                              w->answer_tokens / w->r.seconds,
                              row_steady(w),
                              (w->prompt_tokens - w->cached) / w->r.seconds};
    for (size_t i = 0; i < NUM_COUNT(numbers); i++)
        if (isnan(numbers[i]))
            printf(markdown ? "| %s " : " %9s", "-");
        else
            printf(markdown ? "| %.*f " : " %9.*f", i == 2 ? 2 : i > 2 ? 1 : 0, numbers[i]);
    const double times[] = {percentile(&w->first, 50), percentile(&w->first, 90),
                            percentile(&w->first, 99), percentile(&w->gap, 50),
                            percentile(&w->gap, 99),   percentile(&w->token, 50),
                            percentile(&w->whole, 50)};
    for (size_t i = 0; i < NUM_COUNT(times); i++)
        print_time(times[i], markdown);
    printf(markdown ? "|\n" : "\n");
    fflush(stdout);
}

/* ---- running -------------------------------------------------------------------------------- */

struct watch {
    struct progress bar;
    struct cli *c;
};

static bool watch_going(void *arg, size_t done, size_t failed, size_t running)
{
    struct watch *w = arg;
    (void)failed;
    (void)running;
    progress_update(&w->bar, done);
    return !interrupt_pending(w->c->interrupt);
}

static int one_row(struct cli *c, const struct serve_bench *o, struct load_opts *l, struct row *w,
                   struct err *e)
{
    struct watch watch = {.c = c};
    char label[64];
    l->concurrency = (size_t)w->concurrency;
    l->rate = w->rate;
    l->going = watch_going;
    l->arg = &watch;
    snprintf(label, sizeof label, w->rate > 0 ? "%g requests a second" : "%g clients",
             w->rate > 0 ? w->rate : w->concurrency);
    progress_init(&watch.bar, stderr, label, PROGRESS_COUNT, (uint64_t)o->requests);
    interrupt_watch(c->interrupt);
    int rc = load_run(&w->r, l, e);
    interrupt_unwatch(c->interrupt);
    progress_finish(&watch.bar);
    return rc ? rc : row_make(w, e);
}

/* "1,8,32" */
static int read_list(const char *text, const char *name, double *v, size_t *n, struct err *e)
{
    *n = 0;
    while (*text) {
        char *end;
        double x = strtod(text, &end);
        if (end == text || (*end && *end != ',') || !(x > 0 && x <= 1e6) || *n == SERVE_LIST_MAX)
            return err_set(e, ERR_USAGE, "--%s \"%.60s\": write numbers like 1,8,32", name, text);
        v[(*n)++] = x;
        text = end + (*end == ',');
    }
    return *n ? 0 : err_set(e, ERR_USAGE, "--%s is empty", name);
}

static int serve_data(const struct serve_bench *o, struct load_data **out, struct err *e)
{
    struct load_data_opts d = {
        .file = o->data, .prefix = (size_t)o->prefix, .seed = (uint64_t)o->seed};
    int rc = load_length_parse(&d.prompt, o->prompt, e);
    rc = rc ? rc : load_length_parse(&d.answer, o->answer, e);
    return rc ? rc : load_data_new(out, &d, e);
}

static int serve_run(struct cli *c, const void *opts, struct err *e)
{
    const struct serve_bench *o = opts;
    struct load_data *data = NULL;
    struct load_opts l = {
        .url = c->n_args ? c->args[0] : "http://127.0.0.1:11434",
        .model = o->model,
        .api_key = o->api_key,
        .api = !strcmp(o->api, "chat")     ? LOAD_CHAT
               : !strcmp(o->api, "ollama") ? LOAD_OLLAMA
                                           : LOAD_COMPLETIONS,
        .requests = (size_t)o->requests,
        .seconds = o->seconds,
        .timeout = o->timeout,
        .ignore_end = o->ignore_end,
        .has_temperature = !isnan(o->temperature),
        .temperature = o->temperature,
        .seed = (uint64_t)o->seed,
    };
    double list[SERVE_LIST_MAX], bound = 0;
    size_t n = 0, failed = 0;
    json_t *rows = json_array();
    int rc = serve_data(o, &data, e);
    l.data = data;
    if (!rc && o->rate) {
        rc = read_list(o->rate, "rate", list, &n, e);
        if (!rc && o->concurrency)
            rc = read_list(o->concurrency, "concurrency", &bound, &(size_t){0}, e);
    } else if (!rc) {
        rc = read_list(o->concurrency ? o->concurrency : "8", "concurrency", list, &n, e);
    }
    if (!rc && o->extra && !json_is_object(l.extra = json_loads(o->extra, 0, NULL)))
        rc = err_set(e, ERR_USAGE, "--extra is no JSON object");
    for (size_t i = 0; i < n && !rc; i++) {
        struct row w = {.concurrency = o->rate ? bound : list[i], .rate = o->rate ? list[i] : 0};
        rc = one_row(c, o, &l, &w, e);
        if (!rc && o->json)
            json_array_append_new(rows, json_row(&w));
        else if (!rc && !i) {
            printf("%s at %s\n%s", w.r.model, l.url, o->markdown ? "\n" : "");
            print_head(o->markdown);
        }
        if (!rc && !o->json)
            print_row(&w, o->markdown);
        if (!rc && w.r.failed)
            fprintf(stderr, "ponder: %zu of %zu requests failed; the first: %s\n", w.r.failed,
                    w.r.n, w.r.error);
        failed += w.r.failed;
        row_release(&w);
    }
    if (!rc && o->json) {
        json_t *all = json_pack("{ss sO}", "url", l.url, "rows", rows);
        rc = lines_print_json(all, true, e);
        json_decref(all);
    }
    if (!rc && failed)
        rc = err_set(e, ERR_IO, "%zu requests failed", failed);
    json_decref(rows);
    json_decref(l.extra);
    load_data_free(data);
    return rc;
}

const struct command cmd_bench_serve = {
    .name = "bench serve",
    .args = "[URL]",
    .summary = "measure a server under load",
    .about =
        "Asks a server (http://127.0.0.1:11434 unless told otherwise) many things at once, and "
        "says how long its users wait. Any server that speaks the OpenAI or the Ollama API can be "
        "measured.\n\n"
        "With --concurrency as many clients ask again as soon as they have their answer; with "
        "--rate requests come at random times whether or not the server keeps up, as users do.",
    .examples = "# eight clients\n"
                "ponder bench serve\n"
                "# what happens as load grows\n"
                "ponder bench serve --concurrency 1,8,32 --prompt-len 64-512 --output-len 128\n"
                "# two users a second, with questions of ShareGPT's\n"
                "ponder bench serve --rate 2 --data sharegpt.jsonl --requests 200\n"
                "# another server\n"
                "ponder bench serve http://10.0.0.7:8000 --model deepseek-r1 --api-key KEY\n",
    .spec = {serve_groups, NUM_COUNT(serve_groups)},
    .opts_size = sizeof(struct serve_bench),
    .max_args = 1,
    .run = serve_run,
};
