/*
 * See metrics.h. Names, labels and buckets are vLLM's, so that dashboards made for it show this
 * server. Tokens of prompts and answers count with the step that completed or made them; what is
 * said of whole requests, when they end.
 *
 * A model has a row with all its numbers; there are METRICS_MODELS rows, and models beyond share
 * the last one.
 */
#include "server/metrics.h"

#include "base/num.h"
#include "server/server.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { METRICS_MODELS = 64, METRICS_NAME = 200, METRICS_BOUNDS = 24 };

/* ---- histograms ------------------------------------------------------------------------------ */

struct bounds {
    double le[METRICS_BOUNDS];
    size_t n;
};

#define BOUNDS(...)                                               \
    {                                                             \
        {__VA_ARGS__}, NUM_COUNT(((const double[]){__VA_ARGS__})) \
    }
static const struct bounds bounds_first =
    BOUNDS(.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
           160, 640, 2560);
static const struct bounds bounds_gap =
    BOUNDS(.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80);
static const struct bounds bounds_whole = BOUNDS(.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40,
                                                 50, 60, 120, 240, 480, 960, 1920, 7680);
static const struct bounds bounds_tokens =
    BOUNDS(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000,
           200000, 500000, 1000000);
static const struct bounds bounds_step =
    BOUNDS(1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384);
static const struct bounds bounds_n = BOUNDS(1, 2, 5, 10, 20);

enum series {
    FIRST,
    GAP,
    GAP_OLD, /* the same numbers under the name of older dashboards */
    PER_TOKEN,
    WHOLE,
    QUEUE,
    INFERENCE,
    PREFILL,
    DECODE,
    PROMPT,
    ANSWER,
    ANSWER_MAX,
    SAMPLES,
    TOKENS_MAX,
    STEP,
    SERIES,
};

static const struct {
    const char *name, *help;
    const struct bounds *bounds;
} series_rows[SERIES] = {
    [FIRST] = {"time_to_first_token_seconds", "Time to the first token", &bounds_first},
    [GAP] = {"inter_token_latency_seconds", "Time between tokens", &bounds_gap},
    [GAP_OLD] = {"time_per_output_token_seconds", "Time between tokens (older name)", &bounds_gap},
    [PER_TOKEN] = {"request_time_per_output_token_seconds", "Mean time between tokens of a request",
                   &bounds_gap},
    [WHOLE] = {"e2e_request_latency_seconds", "From request to end of the answer", &bounds_whole},
    [QUEUE] = {"request_queue_time_seconds", "Time in the queue", &bounds_whole},
    [INFERENCE] = {"request_inference_time_seconds", "Time of computing", &bounds_whole},
    [PREFILL] = {"request_prefill_time_seconds", "Time of computing the prompt", &bounds_whole},
    [DECODE] = {"request_decode_time_seconds", "Time of computing the answer", &bounds_whole},
    [PROMPT] = {"request_prompt_tokens", "Tokens of prompts", &bounds_tokens},
    [ANSWER] = {"request_generation_tokens", "Tokens of answers", &bounds_tokens},
    [ANSWER_MAX] = {"request_max_num_generation_tokens", "Longest answer asked for",
                    &bounds_tokens},
    [SAMPLES] = {"request_params_n", "Samples asked for", &bounds_n},
    [TOKENS_MAX] = {"request_params_max_tokens", "max_tokens of requests", &bounds_tokens},
    [STEP] = {"iteration_tokens_total", "Tokens of a step", &bounds_step},
};

struct histogram {
    uint64_t count[METRICS_BOUNDS + 1]; /* the last: above all bounds */
    double sum;
};

static void histogram_add(struct histogram *h, const struct bounds *b, double v)
{
    size_t i = 0;
    while (i < b->n && v > b->le[i])
        i++;
    h->count[i]++;
    h->sum += v;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static const char *const reasons[] = {"stop", "length", "abort", "error"};

struct row {
    char model[METRICS_NAME];
    uint64_t prompt, asked, cached, answer, preemptions, ended[NUM_COUNT(reasons)];
    struct histogram h[SERIES];
};

struct metrics {
    pthread_mutex_t lock;
    double started; /* since 1970 */
    size_t n;
    struct row row[METRICS_MODELS];
};

int metrics_new(struct metrics **out, struct err *e)
{
    struct timespec t;
    struct metrics *m = *out = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "metrics");
    pthread_mutex_init(&m->lock, NULL);
    clock_gettime(CLOCK_REALTIME, &t);
    m->started = (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
    return 0;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    free(m);
}

static struct row *row_of(struct metrics *m, const char *model)
{
    for (size_t i = 0; i < m->n; i++)
        if (!strncmp(m->row[i].model, model, METRICS_NAME - 1))
            return &m->row[i];
    if (m->n == METRICS_MODELS)
        return &m->row[METRICS_MODELS - 1];
    struct row *r = &m->row[m->n++];
    snprintf(r->model, sizeof r->model, "%s", m->n == METRICS_MODELS ? "others" : model);
    return r;
}

static void row_add(struct row *r, enum series s, double v)
{
    histogram_add(&r->h[s], series_rows[s].bounds, v);
}

void metrics_request(struct metrics *m, const struct metrics_request *q)
{
    const struct request_stats *s = q->stats;
    pthread_mutex_lock(&m->lock);
    struct row *r = row_of(m, q->model);
    for (size_t i = 0; i < NUM_COUNT(reasons); i++)
        r->ended[i] += !strcmp(reasons[i], q->why);
    row_add(r, WHOLE, q->e2e_seconds);
    if (q->first_seconds >= 0)
        row_add(r, FIRST, q->first_seconds);
    if (s) {
        r->asked += s->prompt_tokens;
        r->cached += s->cached_tokens;
        r->preemptions += s->preemptions;
        row_add(r, QUEUE, s->queue_seconds);
        row_add(r, PREFILL, s->prompt_seconds);
        row_add(r, DECODE, s->answer_seconds);
        row_add(r, INFERENCE, s->prompt_seconds + s->answer_seconds);
        row_add(r, PROMPT, (double)s->prompt_tokens);
        row_add(r, ANSWER, (double)s->answer_tokens);
        row_add(r, ANSWER_MAX, (double)s->answer_tokens / (double)(q->n ? q->n : 1));
        row_add(r, SAMPLES, (double)q->n);
        if (q->max_tokens)
            row_add(r, TOKENS_MAX, (double)q->max_tokens);
        if (s->answer_tokens > 1)
            row_add(r, PER_TOKEN, s->answer_seconds / (double)(s->answer_tokens - 1));
    }
    pthread_mutex_unlock(&m->lock);
}

void metrics_step(void *arg, const char *model, const struct sched_work *w)
{
    struct metrics *m = arg;
    pthread_mutex_lock(&m->lock);
    struct row *r = row_of(m, model);
    r->prompt += w->prompt;
    r->answer += w->answer;
    row_add(r, STEP, (double)w->computed);
    pthread_mutex_unlock(&m->lock);
}

void metrics_gap(struct metrics *m, const char *model, double seconds)
{
    pthread_mutex_lock(&m->lock);
    struct row *r = row_of(m, model);
    row_add(r, GAP, seconds);
    row_add(r, GAP_OLD, seconds);
    pthread_mutex_unlock(&m->lock);
}

/* ---- text ------------------------------------------------------------------------------------ */

struct writer {
    struct buf *out;
    struct err *e;
    int rc;
};

static void put(struct writer *w, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct writer *w, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (!w->rc && n >= 0)
        w->rc = buf_append(w->out, text, num_min((size_t)n, sizeof text - 1), w->e);
}

static void put_head(struct writer *w, const char *prefix, const char *name, const char *type,
                     const char *help)
{
    put(w, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, type);
}

/* A label's value, escaped. */
static void put_label(struct writer *w, const char *name, const char *value)
{
    put(w, "%s=\"", name);
    for (; *value; value++)
        put(w, *value == '\n' ? "\\n" : *value == '"' || *value == '\\' ? "\\%c" : "%c", *value);
    put(w, "\"");
}

static void put_model(struct writer *w, const char *name, const char *model)
{
    put(w, "%s{engine=\"0\",", name);
    put_label(w, "model_name", model);
}

static void put_counter(struct writer *w, const struct metrics *m, const char *name,
                        const char *help, size_t offset)
{
    char full[100];
    snprintf(full, sizeof full, "vllm:%s", name);
    put_head(w, "", full, "counter", help);
    for (size_t i = 0; i < m->n; i++) {
        uint64_t v;
        memcpy(&v, (const char *)&m->row[i] + offset, sizeof v);
        put_model(w, full, m->row[i].model);
        put(w, "} %" PRIu64 "\n", v);
    }
}

static void put_series(struct writer *w, const struct metrics *m, enum series s)
{
    char name[100];
    const struct bounds *b = series_rows[s].bounds;
    put_head(w, "vllm:", series_rows[s].name, "histogram", series_rows[s].help);
    for (size_t i = 0; i < m->n; i++) {
        const struct histogram *h = &m->row[i].h[s];
        uint64_t sum = 0;
        snprintf(name, sizeof name, "vllm:%s_bucket", series_rows[s].name);
        for (size_t k = 0; k <= b->n; k++) {
            sum += h->count[k];
            put_model(w, name, m->row[i].model);
            if (k < b->n)
                put(w, ",le=\"%s%.10g%s\"} %" PRIu64 "\n", "", b->le[k],
                    b->le[k] == floor(b->le[k]) ? ".0" : "", sum);
            else
                put(w, ",le=\"+Inf\"} %" PRIu64 "\n", sum);
        }
        snprintf(name, sizeof name, "vllm:%s_sum", series_rows[s].name);
        put_model(w, name, m->row[i].model);
        put(w, "} %.9g\n", h->sum);
        snprintf(name, sizeof name, "vllm:%s_count", series_rows[s].name);
        put_model(w, name, m->row[i].model);
        put(w, "} %" PRIu64 "\n", sum);
    }
}

static void put_rows(struct writer *w, struct metrics *m)
{
    pthread_mutex_lock(&m->lock);
    put_counter(w, m, "prompt_tokens_total", "Tokens of prompts", offsetof(struct row, prompt));
    put_counter(w, m, "generation_tokens_total", "Tokens of answers", offsetof(struct row, answer));
    put_counter(w, m, "num_preemptions_total", "Requests that had to give their memory back",
                offsetof(struct row, preemptions));
    put_counter(w, m, "prefix_cache_queries_total", "Tokens looked up in the prefix cache",
                offsetof(struct row, asked));
    put_counter(w, m, "prefix_cache_hits_total", "Tokens found in the prefix cache",
                offsetof(struct row, cached));
    put_head(w, "vllm:", "request_success_total", "counter", "Requests by how they ended");
    for (size_t i = 0; i < m->n; i++)
        for (size_t k = 0; k < NUM_COUNT(reasons); k++) {
            put_model(w, "vllm:request_success_total", m->row[i].model);
            put(w, ",finished_reason=\"%s\"} %" PRIu64 "\n", reasons[k], m->row[i].ended[k]);
        }
    for (int s = 0; s < SERIES; s++)
        put_series(w, m, s);
    pthread_mutex_unlock(&m->lock);
}

/* ---- loaded models --------------------------------------------------------------------------- */

struct loaded {
    char model[METRICS_NAME];
    struct sched_stats st;
    uint64_t bytes;
};

struct loaded_list {
    struct loaded v[METRICS_MODELS];
    size_t n;
};

static void take_loaded(void *arg, const struct hub_info *i, const struct engine_info *ei,
                        const struct sched_stats *st, double expires, uint64_t bytes)
{
    struct loaded_list *l = arg;
    if (l->n == METRICS_MODELS)
        return;
    struct loaded *v = &l->v[l->n++];
    snprintf(v->model, sizeof v->model, "%s", i->name);
    v->st = *st;
    v->bytes = bytes;
}

static double gauge_of(const struct loaded *l, int which)
{
    size_t used = l->st.pages_used;
    switch (which) {
    case 0:
        return (double)l->st.running;
    case 1:
        return (double)l->st.waiting;
    case 2:
    case 3:
        return l->st.pages ? (double)used / (double)l->st.pages : 0;
    case 4:
        return (double)l->bytes;
    case 5:
        return (double)l->st.disk_bytes;
    case 6:
        return l->st.prompt_speed;
    default:
        return l->st.answer_speed;
    }
}

static void put_loaded(struct writer *w, struct hub *hub)
{
    static const struct {
        const char *name, *help;
    } rows[] = {
        {"vllm:num_requests_running", "Sequences that are computed"},
        {"vllm:num_requests_waiting", "Requests that wait"},
        {"vllm:kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1"},
        {"vllm:gpu_cache_usage_perc", "Share of the KV cache in use, 0 to 1 (older name)"},
        {"ponder:model_bytes", "Memory of a loaded model"},
        {"ponder:prefix_disk_bytes", "Size of the prefix cache on disk"},
        {"ponder:prompt_tokens_per_second", "Speed of prompts of late"},
        {"ponder:answer_tokens_per_second", "Speed of answers of late"},
    };
    struct loaded_list *l = calloc(1, sizeof *l);
    if (!l) {
        w->rc = w->rc ? w->rc : err_nomem(w->e, sizeof *l, "metrics");
        return;
    }
    hub_loaded(hub, take_loaded, l);
    for (size_t k = 0; k < NUM_COUNT(rows); k++) {
        put_head(w, "", rows[k].name, "gauge", rows[k].help);
        for (size_t i = 0; i < l->n; i++) {
            put_model(w, rows[k].name, l->v[i].model);
            put(w, "} %.9g\n", gauge_of(&l->v[i], (int)k));
        }
    }
    put_head(w, "vllm:", "cache_config_info", "gauge", "How the KV cache is laid out");
    for (size_t i = 0; i < l->n; i++) {
        put_model(w, "vllm:cache_config_info", l->v[i].model);
        put(w, ",block_size=\"64\",num_gpu_blocks=\"%zu\"} 1\n", l->v[i].st.pages);
    }
    free(l);
}

/* ---- HTTP and the process -------------------------------------------------------------------- */

static void put_count(void *arg, const char *handler, const char *method, int status,
                      uint64_t count)
{
    struct writer *w = arg;
    put(w, "http_requests_total{");
    put_label(w, "handler", handler);
    put(w, ",method=\"%s\",status=\"%d\"} %" PRIu64 "\n", method, status, count);
}

static void put_process(struct writer *w, const struct metrics *m)
{
    unsigned long pages = 0, resident = 0;
    struct timespec cpu = {0};
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%lu %lu", &pages, &resident) != 2)
        pages = resident = 0;
    if (f)
        fclose(f);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);
    put_head(w, "", "process_resident_memory_bytes", "gauge", "Resident memory");
    put(w, "process_resident_memory_bytes %lu\n", resident * page);
    put_head(w, "", "process_virtual_memory_bytes", "gauge", "Virtual memory");
    put(w, "process_virtual_memory_bytes %lu\n", pages * page);
    put_head(w, "", "process_cpu_seconds_total", "counter", "Processor time");
    put(w, "process_cpu_seconds_total %.3f\n", (double)cpu.tv_sec + 1e-9 * (double)cpu.tv_nsec);
    put_head(w, "", "process_start_time_seconds", "gauge", "Start, since 1970");
    put(w, "process_start_time_seconds %.3f\n", m->started);
}

int metrics_write(struct server *s, struct buf *out, struct err *e)
{
    struct writer w = {out, e, 0};
    put_loaded(&w, s->hub);
    put_rows(&w, s->metrics);
    put_head(&w, "", "http_requests_total", "counter", "Requests by route, method and status");
    http_counts(s->http, put_count, &w);
    put_process(&w, s->metrics);
    return w.rc;
}
