/*
 * bench: how fast a model is here, and how far that is from what the machine can do.
 *
 * Prefill (pN) appends N tokens at once, decode (nN) one after the other, both behind `depth`
 * tokens. Times are those of the model alone, without sampling. The limits are measured in the same
 * run with the same threads: decode reads every weight once a token, so it is held against reading
 * memory; prefill multiplies, so it is held against int8 products from registers.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/team.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/machine.h"
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BENCH_REPEAT_MAX = 1000, BENCH_THREADS_MAX = 16 };

struct bench_options {
    int64_t prefill, decode, depth, repeat;
    const char *threads;
    int json;
    struct engine_options engine;
};

#define AT(field) offsetof(struct bench_options, field)
// clang-format off
static const struct opt bench_rows[] = {
    {.name = "prefill", .brief = 'p', .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 24, .value = "512", .offset = AT(prefill),
     .help = "tokens of a prompt; 0 leaves this out"},
    {.name = "decode", .brief = 'n', .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 24, .value = "128", .offset = AT(decode),
     .help = "tokens of an answer; 0 leaves this out"},
    {.name = "depth", .brief = 'd', .kind = OPT_SIZE, .arg = "N", .min = 0, .max = 1 << 24, .value = "0", .offset = AT(depth),
     .help = "tokens that are in the context before"},
    {.name = "repeat", .brief = 'r', .kind = OPT_INT, .arg = "N", .min = 1, .max = BENCH_REPEAT_MAX, .value = "5", .offset = AT(repeat),
     .help = "how often each is measured"},
    {.name = "threads", .brief = 't', .kind = OPT_STRING, .arg = "LIST", .shown = "all processors that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "compute threads, also several like 1,2,4"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object"},
};
// clang-format on
#undef AT

static const struct opt_group bench_groups[] = {
    {"Options", bench_rows, NUM_COUNT(bench_rows), 0},
    {"Engine", options_engine + OPTIONS_OWN_N, OPTIONS_ENGINE_N - OPTIONS_OWN_N,
     offsetof(struct bench_options, engine)},
};

/* One measured thing. */
struct bench_result {
    bool decode;
    int threads;
    size_t tokens, depth;
    double median, best;          /* tokens a second */
    double bytes, ops;            /* a second, at the median; bytes = 0 for prefill */
    double read_limit, ops_limit; /* of the machine; 0 = not known */
};

struct bench {
    struct cli *cli;
    const struct bench_options *o;
    struct bench_result rows[2 * BENCH_THREADS_MAX];
    size_t n;
    struct progress bar;
    uint64_t done;
    int32_t *ids;  /* (depth + prefill or decode) random tokens */
    json_t *model; /* what was measured, for the report */
    char head[512];
};

static int bench_threads(const char *s, int64_t out[BENCH_THREADS_MAX], size_t *n, struct err *e)
{
    *n = 0;
    if (!s) {
        out[(*n)++] = OPT_UNSET;
        return 0;
    }
    for (;;) {
        char *end;
        long v = strtol(s, &end, 10);
        if (end == s || v < 1 || v > TEAM_MAX || (*end && *end != ','))
            return err_set(e, ERR_USAGE,
                           "--threads %.40s: must be numbers from 1 to %d, like 1,2,4", s,
                           TEAM_MAX);
        if (*n == BENCH_THREADS_MAX)
            return err_set(e, ERR_USAGE, "--threads: at most %d numbers", BENCH_THREADS_MAX);
        out[(*n)++] = v;
        if (!*end)
            return 0;
        s = end + 1;
    }
}

static int bench_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double bench_median(double *v, size_t n)
{
    qsort(v, n, sizeof *v, bench_order);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* One pass over `n` tokens behind `depth`; seconds in *took. */
static int bench_pass(struct bench *b, struct session *s, bool decode, size_t n, double *took,
                      struct err *e)
{
    size_t depth = (size_t)b->o->depth;
    int rc = 0;
    session_truncate(s, depth);
    double t0 = clock_seconds();
    if (!decode)
        rc = session_append(s, b->ids + depth, n, e);
    for (size_t i = 0; decode && !rc && i < n; i++) {
        rc = session_append(s, b->ids + depth + i, 1, e);
        progress_update(&b->bar, b->done + i);
    }
    *took = clock_seconds() - t0;
    b->done += n;
    progress_update(&b->bar, b->done);
    return rc;
}

static int bench_measure(struct bench *b, struct engine *g, struct session *s, bool decode,
                         struct err *e)
{
    const struct engine_info *i = engine_info(g);
    size_t n = (size_t)(decode ? b->o->decode : b->o->prefill), repeat = (size_t)b->o->repeat;
    double took[BENCH_REPEAT_MAX], warm;
    if (!n)
        return 0;
    uint64_t done = b->done;
    int rc = bench_pass(b, s, decode, num_min(n, decode ? 4 : 64), &warm, e);
    b->done = done;
    for (size_t k = 0; !rc && k < repeat; k++)
        rc = bench_pass(b, s, decode, n, &took[k], e);
    if (rc)
        return rc;
    double median = bench_median(took, repeat);
    struct bench_result *r = &b->rows[b->n++];
    *r = (struct bench_result){.decode = decode, .threads = i->threads, .tokens = n};
    r->depth = (size_t)b->o->depth;
    r->median = (double)n / median;
    r->best = (double)n / took[0];
    double heads = decode ? (double)n : 1;
    r->ops = 2 * ((double)n * (double)i->token_macs + heads * (double)i->head_macs) / median;
    if (decode) {
        double kv = (double)i->kv_token_bytes * ((double)r->depth + (double)n / 2);
        r->bytes = (double)n * ((double)i->token_bytes + kv) / median;
    }
    return 0;
}

static int bench_describe(struct bench *b, const struct engine *g, struct err *e)
{
    const struct engine_info *i = engine_info(g);
    char size[32], params[32], cpu[128];
    if (b->model)
        return 0;
    cpu_model_name(cpu, sizeof cpu);
    struct buf name;
    buf_init(&name, 1024);
    int rc = term_clean(&name, i->name, strlen(i->name), true, e);
    if (!rc)
        snprintf(b->head, sizeof b->head, "%s, %s, %s parameters, %s; %s, %s", name.data,
                 i->file_type, term_group(params, sizeof params, i->params),
                 progress_bytes(size, sizeof size, (double)i->weight_bytes), cpu,
                 cpu_isa_name(i->isa));
    buf_release(&name);
    if (rc)
        return rc;
    b->model =
        json_pack("{so ss ss sI sI sI ss so ss}", "name", lines_string(i->name, strlen(i->name)),
                  "architecture", i->arch, "type", i->file_type, "parameters",
                  (json_int_t)i->params, "weight_bytes", (json_int_t)i->weight_bytes, "token_bytes",
                  (json_int_t)i->token_bytes, "isa", cpu_isa_name(i->isa), "cpu",
                  lines_string(cpu, strlen(cpu)), "kv_type", quant_by_id(i->kv_type)->name);
    return b->model ? 0 : err_nomem(e, 0, "the report");
}

/* Everything with one number of threads. */
static int bench_engine(struct bench *b, const char *path, int64_t threads, struct err *e)
{
    const struct bench_options *o = b->o;
    struct engine_options eo = o->engine;
    struct log log = {stderr, LOG_WARN};
    struct engine *g = NULL;
    struct session *s = NULL;
    size_t most = (size_t)(o->prefill > o->decode ? o->prefill : o->decode), first = b->n;
    eo.threads = threads;
    eo.ctx = OPT_UNSET;
    struct engine_request r = {.path = path, .o = &eo, .log = &log, .kv_type = QUANT_F16};
    r.ctx = (size_t)o->depth + num_max(most, 64);
    int rc = options_open(&g, &r, e);
    if (!rc)
        rc = bench_describe(b, g, e);
    if (!rc)
        rc = session_new(&s, g, e);
    size_t vocab = rc ? 1 : engine_info(g)->vocab;
    struct rng rng;
    rng_init(&rng, 1, 0);
    for (size_t i = 0; !rc && i < r.ctx; i++)
        b->ids[i] = (int32_t)(rng_u32(&rng) % vocab);
    if (!rc && o->depth)
        rc = session_append(s, b->ids, (size_t)o->depth, e);
    if (!rc)
        rc = bench_measure(b, g, s, false, e);
    if (!rc)
        rc = bench_measure(b, g, s, true, e);
    int n = rc ? 1 : engine_info(g)->threads;
    enum cpu_isa isa = rc ? CPU_SCALAR : engine_info(g)->isa;
    session_free(s);
    engine_free(g); /* its threads would disturb the measurement of the limits */
    buf_release(&r.template_text);
    if (rc || b->n == first)
        return rc;
    double read = machine_bandwidth(n, 0.5), ops = machine_int8(n, isa, 0.3);
    for (size_t i = first; i < b->n; i++) {
        b->rows[i].read_limit = read;
        b->rows[i].ops_limit = ops;
    }
    return 0;
}

/* "25.1 | 88%" into out, "– | –" when there is no value. */
static void bench_cell(char *out, size_t cap, double v, double limit)
{
    if (v <= 0)
        snprintf(out, cap, "%8s | %5s", "-", "-");
    else if (limit <= 0)
        snprintf(out, cap, "%8.1f | %5s", v / 1e9, "-");
    else
        snprintf(out, cap, "%8.1f | %4.0f%%", v / 1e9, 100 * v / limit);
}

static void bench_limits(const struct bench_result *r)
{
    printf("this machine with %d thread%s: reads %.1f GB/s", r->threads, r->threads == 1 ? "" : "s",
           r->read_limit / 1e9);
    if (r->ops_limit > 0)
        printf(", %.0f GOP/s of int8", r->ops_limit / 1e9);
    printf("\n");
}

static void bench_table(const struct bench *b)
{
    char a[64], c[64];
    printf("%s\n\n", b->head);
    printf("| test    | threads | depth |    tok/s |     best |     GB/s |  read |    GOP/s |  "
           "int8 |\n"
           "|---------|--------:|------:|---------:|---------:|---------:|------:|---------:|------"
           ":|\n");
    for (size_t i = 0; i < b->n; i++) {
        const struct bench_result *r = &b->rows[i];
        bench_cell(a, sizeof a, r->bytes, r->read_limit);
        bench_cell(c, sizeof c, r->ops, r->ops_limit);
        printf("| %c%-6zu | %7d | %5zu | %8.2f | %8.2f | %s | %s |\n", r->decode ? 'n' : 'p',
               r->tokens, r->threads, r->depth, r->median, r->best, a, c);
    }
    printf("\n");
    for (size_t i = 0; i < b->n; i++)
        if (!i || b->rows[i].threads != b->rows[i - 1].threads)
            bench_limits(&b->rows[i]);
}

static int bench_json(const struct bench *b, struct err *e)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < b->n; i++) {
        const struct bench_result *r = &b->rows[i];
        json_array_append_new(rows, json_pack("{ss sI sI si sf sf sf sf sf sf}", "test",
                                              r->decode ? "decode" : "prefill", "tokens",
                                              (json_int_t)r->tokens, "depth", (json_int_t)r->depth,
                                              "threads", r->threads, "tokens_per_second", r->median,
                                              "best_tokens_per_second", r->best, "bytes_per_second",
                                              r->bytes, "ops_per_second", r->ops,
                                              "machine_read_bytes_per_second", r->read_limit,
                                              "machine_int8_ops_per_second", r->ops_limit));
    }
    json_t *all = json_pack("{sO so}", "model", b->model, "results", rows);
    int rc = all ? lines_print_json(all, true, e) : err_nomem(e, 0, "the report");
    json_decref(all);
    return rc;
}

static int bench_run(struct cli *c, const void *opts, struct err *e)
{
    const struct bench_options *o = opts;
    struct bench b = {.cli = c, .o = o};
    int64_t threads[BENCH_THREADS_MAX];
    size_t n;
    char path[LOCATE_MAX];
    if (!o->prefill && !o->decode)
        return err_set(e, ERR_USAGE, "nothing to measure: --prefill and --decode are both 0");
    int rc = bench_threads(o->threads, threads, &n, e);
    if (!rc)
        rc = locate_model(c->args[0], path, e);
    size_t most = (size_t)(o->prefill > o->decode ? o->prefill : o->decode);
    b.ids = calloc((size_t)o->depth + num_max(most, 64), sizeof *b.ids);
    if (!rc && !b.ids)
        rc = err_nomem(e, most, "tokens");
    uint64_t each = (uint64_t)(o->prefill + o->decode) * (uint64_t)o->repeat;
    progress_init(&b.bar, stderr, "measuring", PROGRESS_COUNT, rc ? 0 : each * n);
    for (size_t i = 0; !rc && i < n; i++)
        rc = bench_engine(&b, path, threads[i], e);
    progress_finish(&b.bar);
    if (!rc && o->json)
        rc = bench_json(&b, e);
    else if (!rc)
        bench_table(&b);
    json_decref(b.model);
    free(b.ids);
    return rc;
}

const struct command cmd_bench = {
    .name = "bench",
    .args = "MODEL",
    .summary = "measure how fast a model is here",
    .about =
        "Measures reading a prompt (p) and writing an answer (n), and what the machine could do "
        "at most with the same threads: reading memory, which bounds answers, and int8 products, "
        "which bound prompts.",
    .examples = "ponder bench model.gguf\n"
                "ponder bench model.gguf -p 512 -n 64 -t 1,2 --json\n",
    .spec = {bench_groups, NUM_COUNT(bench_groups)},
    .opts_size = sizeof(struct bench_options),
    .min_args = 1,
    .max_args = 1,
    .run = bench_run,
};
