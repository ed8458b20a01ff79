/*
 * bench: how fast a model is here, and how far that is from what the machine can do.
 *
 * Prefill (p) appends tokens at once, decode (n) one after the other; both behind `depth` tokens,
 * which are not timed. With several sequences (nNxB) each has its own context, and all decode
 * together, a token of each in one pass over the weights. Times are those of the model alone,
 * without sampling; a rate is that of all sequences together.
 *
 * The machine's limits are measured before and after every test, with the same number of threads
 * while the engine's sleep, and a test is held against the better of the two: on shared machines
 * the limits themselves change from minute to minute.
 *
 * What counts:
 *   bytes       of decode: the weights as they are stored, once a step, without the embedding of
 *               which rows are looked up; of routed experts those that are chosen, with several
 *               sequences as many different ones as B independent choices of k among E make on
 *               average, E (1 - (1 - k/E)^B); and keys and values of the context, at its mean
 *               length. Not the activations.
 *   operations  two per multiply-add of the linear layers: all weights of layers for each token (of
 *               experts, the chosen ones), the head where logits are computed. Not attention, which
 *               depends on depth, nor norms. Attention's time is in the rate all the same, so with
 *               depth the shares fall.
 */
#include "base/clock.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/rng.h"
#include "base/team.h"
#include "cli/bench_report.h"
#include "cli/bench_sched.h"
#include "cli/command.h"
#include "cli/lines.h"
#include "cli/locate.h"
#include "cli/machine.h"
#include "cli/options.h"
#include "format/meta_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BENCH_REPEAT_MAX = 1000,
    BENCH_LIST_MAX = 16,
    BENCH_TOKENS_MAX = 1 << 24,
    BENCH_SEQUENCES_MAX = 1024,
    BENCH_CTX_MIN = 64, /* what warming up needs */
};

struct bench_options {
    const char *prefill, *decode, *depth, *parallel, *threads;
    int64_t repeat;
    int json, markdown, scheduler;
    struct engine_options engine;
};

#define AT(field) offsetof(struct bench_options, field)
// clang-format off
static const struct opt bench_rows[] = {
    {.name = "prefill", .brief = 'p', .kind = OPT_STRING, .arg = "LIST", .value = "512", .offset = AT(prefill),
     .help = "tokens of a prompt, also several like 128,512; 0 leaves this out"},
    {.name = "decode", .brief = 'n', .kind = OPT_STRING, .arg = "LIST", .value = "128", .offset = AT(decode),
     .help = "tokens of an answer; 0 leaves this out"},
    {.name = "depth", .brief = 'd', .kind = OPT_STRING, .arg = "LIST", .value = "0", .offset = AT(depth),
     .help = "tokens that are in the context before, like 0,4096"},
    {.name = "parallel", .alias = "sequences", .kind = OPT_STRING, .arg = "LIST", .value = "1", .offset = AT(parallel),
     .help = "sequences that decode together, like 1,8,32"},
    {.name = "scheduler", .kind = OPT_FLAG, .offset = AT(scheduler),
     .help = "answers also through the scheduler, as a server gives them: sampled, as text (n…s)"},
    {.name = "repeat", .brief = 'r', .kind = OPT_INT, .arg = "N", .min = 1, .max = BENCH_REPEAT_MAX, .value = "5", .offset = AT(repeat),
     .help = "how often each is measured"},
    {.name = "threads", .brief = 't', .kind = OPT_STRING, .arg = "LIST", .shown = "one for each core that this process may use",
     .env = "PONDER_THREADS", .offset = AT(threads), .help = "compute threads, also several like 1,2,4"},
    {.name = "markdown", .kind = OPT_FLAG, .offset = AT(markdown), .help = "print a Markdown table"},
    {.name = "json", .kind = OPT_FLAG, .offset = AT(json), .help = "print one JSON object, with every sample"},
};
// clang-format on
#undef AT

static const struct opt_group bench_groups[] = {
    {"Options", bench_rows, NUM_COUNT(bench_rows), 0},
    {"Engine", options_engine + OPTIONS_OWN_N, OPTIONS_ENGINE_N - OPTIONS_OWN_N,
     offsetof(struct bench_options, engine)},
};

struct bench_list {
    size_t v[BENCH_LIST_MAX], n, most;
};

struct bench {
    const struct bench_options *o;
    struct bench_list prefill, decode, depth, parallel, threads;
    struct bench_results out;
    struct progress bar;
    uint64_t done;
    size_t ctx;   /* of a sequence */
    int32_t *ids; /* (ctx + sequences) random tokens; sequence q begins at q */
    struct machine *machine;
    struct engine *g;
    struct session **s;         /* (sequences) */
    struct session_part *parts; /* (sequences) */
    json_t *model;              /* what was measured, for the report */
    char head[512];
};

/* What is measured together. */
struct bench_test {
    bool decode;
    size_t tokens, depth, sequences;
    bool sched; /* through the scheduler */
};

static int bench_list(struct bench_list *l, const char *name, const char *s, size_t min, size_t max,
                      struct err *e)
{
    for (*l = (struct bench_list){.n = 0};;) {
        char *end;
        unsigned long long v = *s >= '0' && *s <= '9' ? strtoull(s, &end, 10) : max + 1ull;
        if (v <= max && (*end == 'k' || *end == 'K'))
            v *= 1024, end++;
        if (v < min || v > max || (*end && *end != ','))
            return err_set(e, ERR_USAGE, "--%s: must be numbers from %zu to %zu, like 1,2,4", name,
                           min, max);
        if (l->n == BENCH_LIST_MAX)
            return err_set(e, ERR_USAGE, "--%s: at most %d numbers", name, BENCH_LIST_MAX);
        l->v[l->n++] = (size_t)v;
        l->most = num_max(l->most, (size_t)v);
        if (!*end)
            return 0;
        s = end + 1;
    }
}

static int bench_lists(struct bench *b, struct err *e)
{
    const struct bench_options *o = b->o;
    int rc = bench_list(&b->prefill, "prefill", o->prefill, 0, BENCH_TOKENS_MAX, e);
    if (!rc)
        rc = bench_list(&b->decode, "decode", o->decode, 0, BENCH_TOKENS_MAX, e);
    if (!rc)
        rc = bench_list(&b->depth, "depth", o->depth, 0, BENCH_TOKENS_MAX, e);
    if (!rc)
        rc = bench_list(&b->parallel, "parallel", o->parallel, 1, BENCH_SEQUENCES_MAX, e);
    b->threads = (struct bench_list){.n = 1};
    if (!rc && o->threads)
        rc = bench_list(&b->threads, "threads", o->threads, 1, TEAM_MAX, e);
    if (!rc && !b->prefill.most && !b->decode.most)
        return err_set(e, ERR_USAGE, "nothing to measure: --prefill and --decode are both 0");
    if (!rc && o->json && o->markdown)
        return err_set(e, ERR_USAGE, "--json and --markdown exclude each other");
    return rc;
}

/* Calls fn for every test of one number of threads; stops at an error. */
static int bench_each(struct bench *b,
                      int (*fn)(struct bench *, const struct bench_test *t, struct err *e),
                      struct err *e)
{
    int rc = 0;
    for (size_t d = 0; d < b->depth.n; d++) {
        for (size_t i = 0; i < b->prefill.n && !rc; i++) {
            struct bench_test t = {false, b->prefill.v[i], b->depth.v[d], 1};
            rc = t.tokens ? fn(b, &t, e) : 0;
        }
        for (size_t i = 0; i < b->decode.n; i++)
            for (size_t q = 0; q < b->parallel.n && !rc; q++) {
                struct bench_test t = {true, b->decode.v[i], b->depth.v[d], b->parallel.v[q]};
                rc = t.tokens ? fn(b, &t, e) : 0;
                t.sched = true;
                if (t.tokens && b->o->scheduler && !rc)
                    rc = fn(b, &t, e);
            }
    }
    return rc;
}

/* Tokens that a test computes: for the progress. */
static int bench_expect(struct bench *b, const struct bench_test *t, struct err *e)
{
    b->bar.total += (t->depth + t->tokens * (uint64_t)b->o->repeat) * t->sequences;
    return 0;
}

/* ---- measuring --------------------------------------------------------------------------------
 */

/* The better of what was known and what is measured now. */
static void bench_probe(struct bench *b, double limit[PEAK_KIND_COUNT])
{
    for (int k = 0; k < PEAK_KIND_COUNT; k++) {
        double v = machine_measure(b->machine, (enum peak_kind)k, k == PEAK_READ ? 0.25 : 0.06);
        limit[k] = v > limit[k] ? v : limit[k];
    }
}

/* Brings the sequences of a test to its depth, and gives back what others had. */
static int bench_begin(struct bench *b, const struct bench_test *t, struct err *e)
{
    int rc = 0;
    for (size_t q = 0; q < b->parallel.most; q++)
        session_truncate(b->s[q], q < t->sequences && !t->sched ? t->depth : 0);
    for (size_t q = 0; q < t->sequences && !rc && !t->sched; q++) {
        size_t have = session_len(b->s[q]);
        rc = session_append(b->s[q], b->ids + q + have, t->depth - have, e);
        b->done += t->depth;
        progress_update(&b->bar, b->done);
    }
    return rc;
}

/* One pass over n tokens of each sequence behind the depth; seconds in *took. */
static int bench_pass(struct bench *b, const struct bench_test *t, size_t n, double *took,
                      struct err *e)
{
    int rc = 0;
    if (t->sched) {
        double rate = 0;
        rc = bench_sched(b->g, b->ids, t->depth, n, t->sequences, &rate, e);
        *took = rate > 0 ? (double)(n * t->sequences) / rate : INFINITY;
        return rc;
    }
    for (size_t q = 0; q < t->sequences; q++)
        session_truncate(b->s[q], t->depth);
    double t0 = clock_seconds();
    if (!t->decode)
        rc = session_append(b->s[0], b->ids + t->depth, n, e);
    for (size_t i = 0; t->decode && !rc && i < n; i++) {
        const int32_t *at = b->ids + t->depth + i;
        for (size_t q = 0; q < t->sequences; q++)
            b->parts[q] = (struct session_part){.s = b->s[q], .ids = at + q, .n = 1, .want = 1};
        rc = t->sequences == 1 ? session_append(b->s[0], at, 1, e)
                               : engine_step(b->g, b->parts, t->sequences, e);
        progress_update(&b->bar, b->done + i * t->sequences);
    }
    *took = clock_seconds() - t0;
    return rc;
}

/* The counting rules: see the head of this file. */
static void bench_count(const struct bench *b, struct bench_result *r)
{
    const struct engine_info *i = engine_info(b->g);
    double n = (double)r->tokens, seqs = (double)r->sequences, heads = r->decode ? n : 1;
    for (int m = 0; m < ENGINE_MATH_COUNT; m++)
        r->ops[m] = 2 * seqs * (n * (double)i->token_macs[m] + heads * (double)i->head_macs[m]);
    if (!r->decode)
        return;
    double weights = (double)i->token_bytes, kv = (double)i->kv_token_bytes;
    if (i->experts) {
        double one = (double)i->experts_used / (double)i->experts;
        weights += (double)i->expert_bytes * (1 - pow(1 - one, seqs) - one);
    }
    r->bytes = n * (weights + seqs * kv * ((double)r->depth + n / 2));
}

static int bench_order(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int bench_measure(struct bench *b, const struct bench_test *t, struct err *e)
{
    size_t repeat = (size_t)b->o->repeat;
    struct bench_result *row = realloc(b->out.row, (b->out.n + 1) * sizeof *row),
                        r = {.decode = t->decode};
    if (row)
        b->out.row = row;
    r.rate = row ? calloc(repeat, sizeof *r.rate) : NULL;
    if (!r.rate)
        return err_nomem(e, sizeof *row, "the results");
    r.threads = engine_info(b->g)->threads;
    r.tokens = t->tokens;
    r.depth = t->depth;
    r.sequences = t->sequences;
    r.sched = t->sched;
    r.samples = repeat;
    double took;
    int rc = bench_begin(b, t, e);
    if (!rc)
        bench_probe(b, r.limit);
    if (!rc)
        rc = bench_pass(b, t, num_min(t->tokens, t->decode ? 4 : BENCH_CTX_MIN), &took, e);
    uint64_t regions = engine_regions(b->g);
    for (size_t k = 0; !rc && k < repeat; k++) {
        rc = bench_pass(b, t, t->tokens, &took, e);
        r.rate[k] = (double)(t->tokens * t->sequences) / took;
        b->done += t->tokens * t->sequences;
        progress_update(&b->bar, b->done);
    }
    r.regions = (double)(engine_regions(b->g) - regions) / (double)repeat;
    if (!rc)
        bench_probe(b, r.limit);
    qsort(r.rate, repeat, sizeof *r.rate, bench_order);
    bench_count(b, &r);
    b->out.row[b->out.n++] = r;
    return rc;
}

/* ---- one number of threads --------------------------------------------------------------------
 */

static int bench_describe(struct bench *b, struct err *e)
{
    const struct engine_info *i = engine_info(b->g);
    char size[32], params[32], cpu[128], where[160];
    if (b->model)
        return 0;
    cpu_model_name(cpu, sizeof cpu);
    topology_describe(i->topology, where, sizeof where);
    struct buf name;
    buf_init(&name, 1024);
    int rc = term_clean(&name, i->name, strlen(i->name), true, e);
    if (!rc)
        snprintf(b->head, sizeof b->head, "%s, %s, %s parameters, %s; %s, %s; threads %s on %s",
                 name.data, i->file_type, term_group(params, sizeof params, i->params),
                 progress_bytes(size, sizeof size, (double)i->weight_bytes), cpu,
                 cpu_isa_name(i->isa), team_pin_name(i->pin), where);
    buf_release(&name);
    if (rc)
        return rc;
    b->model = json_pack(
        "{so ss ss sI sI sI ss so ss ss ss}", "name", meta_json_string(i->name, strlen(i->name)),
        "architecture", i->arch, "type", i->file_type, "parameters", (json_int_t)i->params,
        "weight_bytes", (json_int_t)i->weight_bytes, "token_bytes", (json_int_t)i->token_bytes,
        "isa", cpu_isa_name(i->isa), "cpu", meta_json_string(cpu, strlen(cpu)), "kv_type",
        quant_by_id(i->kv_type)->name, "topology", where, "pin", team_pin_name(i->pin));
    return b->model ? 0 : err_nomem(e, 0, "the report");
}

static int bench_sessions(struct bench *b, struct err *e)
{
    int rc = 0;
    for (size_t q = 0; q < b->parallel.most && !rc; q++)
        rc = session_new(&b->s[q], b->g, e);
    struct rng rng;
    rng_init(&rng, 1, 0);
    for (size_t i = 0; i < b->ctx + b->parallel.most; i++)
        b->ids[i] = (int32_t)(rng_u32(&rng) % engine_info(b->g)->vocab);
    return rc;
}

static int bench_machine(struct bench *b, struct err *e)
{
    const struct engine_info *i = engine_info(b->g);
    struct machine_spec s = {i->threads, i->topology, i->pin, i->isa};
    return machine_new(&b->machine, &s, e);
}

static int bench_engine(struct bench *b, const char *path, size_t threads, struct err *e)
{
    struct engine_options eo = b->o->engine;
    struct log log = {stderr, LOG_WARN};
    eo.threads = threads ? (int64_t)threads : OPT_UNSET;
    eo.ctx = OPT_UNSET;
    struct engine_request r = {.path = path, .o = &eo, .log = &log, .kv_type = ENGINE_KV_AUTO};
    r.ctx = b->ctx;
    r.want = num_max(b->parallel.most, 16);
    r.cache = b->parallel.most * num_round_up(b->ctx, 64);
    int rc = options_open(&b->g, &r, e);
    if (!rc)
        rc = engine_settle(b->g, e);
    if (!rc)
        rc = bench_describe(b, e);
    if (!rc)
        rc = bench_machine(b, e);
    if (!rc)
        rc = bench_sessions(b, e);
    if (!rc)
        rc = bench_each(b, bench_measure, e);
    for (size_t q = 0; q < b->parallel.most; q++) {
        session_free(b->s[q]);
        b->s[q] = NULL;
    }
    machine_free(b->machine);
    engine_free(b->g);
    b->machine = NULL;
    b->g = NULL;
    buf_release(&r.template_text);
    return rc;
}

static int bench_run(struct cli *c, const void *opts, struct err *e)
{
    struct bench b = {.o = opts};
    char path[LOCATE_MAX];
    int rc = bench_lists(&b, e);
    if (rc || (rc = locate_model(c->args[0], path, e)))
        return rc;
    size_t seqs = b.parallel.most;
    b.ctx = b.depth.most + num_max(num_max(b.prefill.most, b.decode.most), BENCH_CTX_MIN);
    b.ids = calloc(b.ctx + seqs, sizeof *b.ids);
    b.s = calloc(seqs, sizeof(void *));
    b.parts = calloc(seqs, sizeof *b.parts);
    if (!b.ids || !b.s || !b.parts)
        rc = err_nomem(e, b.ctx * sizeof *b.ids, "tokens");
    progress_init(&b.bar, stderr, "measuring", PROGRESS_COUNT, 0);
    bench_each(&b, bench_expect, e);
    b.bar.total *= b.threads.n;
    for (size_t i = 0; !rc && i < b.threads.n; i++)
        rc = bench_engine(&b, path, b.threads.v[i], e);
    progress_finish(&b.bar);
    if (!rc && b.o->json)
        rc = bench_print_json(&b.out, b.model, e);
    else if (!rc)
        bench_print(&b.out, b.head, b.o->markdown ? BENCH_MARKDOWN : BENCH_TABLE);
    bench_results_release(&b.out);
    json_decref(b.model);
    free(b.ids);
    free(b.s);
    free(b.parts);
    return rc;
}

const struct command cmd_bench = {
    .name = "bench",
    .args = "MODEL",
    .summary = "measure how fast a model is here",
    .about =
        "Measures reading a prompt (p) and writing an answer (n), also behind a context and for "
        "several sequences together, and what the machine could do at most with the same threads: "
        "reading memory, which bounds answers, and products from registers, which bound prompts.",
    .examples = "ponder bench model.gguf\n"
                "ponder bench model.gguf -p 512 -n 64 -d 0,4096 -t 1,2 --json\n"
                "ponder bench model.gguf -p 0 -n 64 --parallel 1,8,32 --markdown\n",
    .spec = {bench_groups, NUM_COUNT(bench_groups)},
    .opts_size = sizeof(struct bench_options),
    .min_args = 1,
    .max_args = 1,
    .run = bench_run,
};
