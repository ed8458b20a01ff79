/*
 * A job's way: see job.h.
 *
 *   job_run ─ hub_get ─ job_ready: prompt, parameters ─ hub_submit … events … job_finish
 *
 * Threads: job_run and job_ready run in a worker of the HTTP server or in the loading thread of the
 * hub; events come from compute threads; job_gone from the HTTP server's watcher. Whoever takes
 * `pending` to 0 finishes the job. The sink is only called under the lock, or by the finisher.
 */
#include "server/job.h"

#include "base/clock.h"
#include "server/job_impl.h"
#include "text/grammar.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { JOB_WINDOW = 16 }; /* inputs of one job that wait or run at the same time */

void job_spec_init(struct job_spec *s)
{
    memset(s, 0, sizeof *s);
    s->answer = HTTP_WHOLE;
    s->sampling = (struct sampler_params){
        .temperature = NAN,
        .top_k = INT_MIN,
        .top_p = NAN,
        .min_p = NAN,
        .typical_p = NAN,
        .repetition_penalty = NAN,
        .frequency_penalty = NAN,
        .presence_penalty = NAN,
        .penalty_last = INT_MIN,
    };
    s->parallel = true;
    s->choice = JOB_TOOL_AUTO;
    s->n = 1;
    s->think_max = -1;
    s->logprobs = s->prompt_logprobs = -1;
    s->keep_alive = NAN;
}

/* ---- the end -------------------------------------------------------------------------------- */

static const char *job_why(const struct job *j)
{
    if (j->gone || j->err.code == ERR_CANCELLED)
        return "abort";
    if (j->err.code)
        return "error";
    return j->end == REQUEST_STOP ? "stop" : j->end == REQUEST_CANCELLED ? "abort" : "length";
}

/* 'prompt 812 (768 cached)  answer 341 (reasoning 288)  first token 0.31 s  24 tok/s' */
static void job_note(const struct job *j)
{
    const struct request_stats *s = &j->sum;
    char cached[40] = "", thought[40] = "", answer[120] = "";
    double took = j->last - j->first;
    if (s->cached_tokens)
        snprintf(cached, sizeof cached, " (%zu cached)", s->cached_tokens);
    if (s->thought_tokens)
        snprintf(thought, sizeof thought, " (reasoning %zu)", s->thought_tokens);
    if (s->answer_tokens) {
        int n = snprintf(answer, sizeof answer, "  answer %zu%s", s->answer_tokens, thought);
        if (j->first > 0)
            n += snprintf(answer + n, sizeof answer - (size_t)n, "  first token %.2f s",
                          j->first - j->started);
        double speed = took > 0 ? (double)(s->answer_tokens - 1) / took : 0;
        if (speed > 0)
            snprintf(answer + n, sizeof answer - (size_t)n,
                     speed < 100 ? "  %.3g tok/s" : "  %.0f tok/s", speed);
    }
    http_note(j->x, "prompt %zu%s%s", s->prompt_tokens, cached, answer);
}

static void job_free(struct job *j)
{
    for (size_t i = 0; i < j->n_part; i++)
        ids_release(&j->part[i].prompt);
    free(j->part);
    free(j->bias);
    free(j->stop_id);
    grammar_unref(j->grammar);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

/* Nothing of it runs any more. */
static void job_finish(struct job *j)
{
    struct server *s = j->server;
    struct http_exchange *x = j->x;
    struct err e = {0};
    http_on_gone(x, NULL, NULL); /* from here on nobody else knows of it */
    if (j->model) {
        struct metrics_request m = {
            .model = hub_info(j->model)->name,
            .why = job_why(j),
            .stats = j->sum.prompt_tokens ? &j->sum : NULL,
            .e2e_seconds = clock_seconds() - j->started,
            .first_seconds = j->first > 0 ? j->first - j->started : -1,
            .n = j->spec->n ? j->spec->n : 1,
            .max_tokens = j->params.answer.max_tokens,
        };
        metrics_request(s->metrics, &m);
        if (j->sum.prompt_tokens)
            job_note(j);
    }
    if (!j->err.code) {
        struct request_event ev = {
            .kind = REQUEST_DONE, .end = j->end, .stop_id = -1, .stats = &j->sum};
        if (j->sink.event(j->arg, j, &ev, &e))
            j->err = e;
    }
    if (j->err.code)
        j->sink.fail(j->arg, j, &j->err);
    if (j->has_use)
        hub_put(&j->use, j->spec->keep_alive);
    if (j->at_desk)
        job_desk_leave(s->desk, http_owner(x));
    j->sink.free(j->arg);
    job_free(j);
    http_drop(x);
}

/* ---- under the lock ------------------------------------------------------------------------- */

/* The first error counts; what still runs is told to end. */
static void job_cut(struct job *j, int code, const struct err *e)
{
    if (!j->err.code) {
        j->err = *e;
        j->err.code = code;
    }
    if (j->cut)
        return;
    j->cut = true;
    for (size_t i = 0; i < j->n_part; i++)
        if (j->part[i].live)
            request_cancel(j->part[i].handle);
}

static void job_begin(struct job *j)
{
    struct err e = {0};
    if (j->begun || j->err.code)
        return;
    j->begun = true;
    int rc = j->sink.begin(j->arg, j, &e);
    if (rc)
        job_cut(j, rc, &e);
}

static void job_unlock(struct job *j, bool finish)
{
    pthread_mutex_unlock(&j->lock);
    if (finish)
        job_finish(j);
}

/* ---- events --------------------------------------------------------------------------------- */

static void job_submit_more(struct job *j);

static void job_count(struct job *j, const struct request_stats *s)
{
    j->sum.prompt_tokens += s->prompt_tokens;
    j->sum.cached_tokens += s->cached_tokens;
    j->sum.answer_tokens += s->answer_tokens;
    j->sum.thought_tokens += s->thought_tokens;
    j->sum.queue_seconds = fmax(j->sum.queue_seconds, s->queue_seconds);
    j->sum.prompt_seconds = fmax(j->sum.prompt_seconds, s->prompt_seconds);
    j->sum.answer_seconds = fmax(j->sum.answer_seconds, s->answer_seconds);
    j->sum.preemptions += s->preemptions;
}

static void job_time(struct job *j, const struct request_event *ev)
{
    double now = clock_seconds();
    if (j->first > 0)
        metrics_gap(j->server->metrics, hub_info(j->model)->name, now - j->last);
    else
        j->first = now;
    j->last = now;
}

/* To the sink, as an event of the whole job. */
static void job_pass(struct job *j, struct job_part *p, const struct request_event *from)
{
    struct request_event ev = *from;
    struct err e = {0};
    ev.sample += p->index * (j->spec->n ? j->spec->n : 1);
    if (ev.kind == REQUEST_PIECE)
        job_time(j, &ev);
    if (ev.kind == REQUEST_SAMPLE)
        j->end = ev.end;
    int rc = j->sink.event(j->arg, j, &ev, &e);
    if (rc)
        job_cut(j, rc, &e);
}

static void job_event(void *arg, const struct request_event *ev)
{
    struct job_part *p = arg;
    struct job *j = p->j;
    bool last = ev->kind == REQUEST_DONE || ev->kind == REQUEST_FAILED;
    pthread_mutex_lock(&j->lock);
    if (ev->kind == REQUEST_FAILED) {
        job_cut(j, ev->error->code, ev->error);
    } else {
        job_begin(j);
        if (ev->kind == REQUEST_DONE)
            job_count(j, ev->stats);
        else if (!j->err.code)
            job_pass(j, p, ev);
    }
    if (!last) {
        pthread_mutex_unlock(&j->lock);
        return;
    }
    p->done = true;
    p->live = false;
    j->live--;
    pthread_mutex_unlock(&j->lock);
    request_free(p->handle);
    job_submit_more(j);
    pthread_mutex_lock(&j->lock);
    job_unlock(j, !--j->pending);
}

/* ---- submitting ----------------------------------------------------------------------------- */

/* Hands part k over. Called with the lock, which is released meanwhile; false when the queue is
   full and another part will end. */
static bool job_submit(struct job *j, size_t k)
{
    struct job_part *p = &j->part[k];
    struct request_params params = j->params;
    struct err e = {0};
    params.prompt = p->prompt.v;
    params.n_prompt = p->prompt.n;
    params.answer.thinking_open = p->thinking_open;
    params.sampling.seed += k * params.n;
    params.event = job_event;
    params.arg = p;
    j->live++;
    j->pending++;
    pthread_mutex_unlock(&j->lock);
    int rc = hub_submit(&j->use, &params, &p->handle, &e);
    pthread_mutex_lock(&j->lock);
    if (!rc) {
        p->live = !p->done;
        if (p->live && j->cut)
            request_cancel(p->handle);
        job_begin(j);
        return true;
    }
    j->live--;
    j->pending--; /* never to 0: the caller counts */
    if (rc == ERR_BUSY && j->live)
        return false;
    job_cut(j, rc, &e);
    return true;
}

static void job_submit_more(struct job *j)
{
    pthread_mutex_lock(&j->lock);
    if (!j->submitting) {
        j->submitting = true;
        while (j->next < j->n_part && j->live < JOB_WINDOW && !j->err.code) {
            if (!job_submit(j, j->next))
                break;
            j->next++;
        }
        j->submitting = false;
    }
    pthread_mutex_unlock(&j->lock);
}

static void job_ready(void *arg, const struct hub_use *u, const struct err *why)
{
    struct job *j = arg;
    struct err e = {0};
    int rc = 0;
    pthread_mutex_lock(&j->lock);
    bool left = j->gone;
    pthread_mutex_unlock(&j->lock);
    if (u) {
        j->use = *u;
        j->has_use = true;
        rc = left ? ERR_CANCELLED : job_prompt(j, &e);
        if (!rc)
            rc = job_params(j, &e);
    } else {
        e = *why;
        rc = e.code;
    }
    pthread_mutex_lock(&j->lock);
    if (rc)
        job_cut(j, rc, &e);
    else if (j->spec->count)
        job_begin(j);
    j->sum.prompt_tokens = j->spec->count ? job_prompt_tokens(j) : 0;
    pthread_mutex_unlock(&j->lock);
    if (!rc && !j->spec->count)
        job_submit_more(j);
    pthread_mutex_lock(&j->lock);
    job_unlock(j, !--j->pending);
}

static void job_gone(void *arg)
{
    static const struct err left = {ERR_CANCELLED, "the client has left"};
    struct job *j = arg;
    pthread_mutex_lock(&j->lock);
    j->gone = true;
    job_cut(j, ERR_CANCELLED, &left);
    pthread_mutex_unlock(&j->lock);
}

/* ---- the beginning -------------------------------------------------------------------------- */

/* Words for a request that is refused before there is a job. */
static void job_refuse(struct server *s, struct http_exchange *x, const struct job_sink *sink,
                       void *arg)
{
    http_set(x, "Retry-After", "1");
    http_error(x, 429, NULL, "rate_limit_exceeded", NULL,
               "this key has as many requests at the same time as it may");
    sink->free(arg);
}

void job_run(struct server *s, struct http_exchange *x, const struct job_spec *spec,
             const struct job_sink *sink, void *arg)
{
    struct timespec now;
    struct err e = {0};
    uint64_t owner = http_owner(x);
    struct job *j = calloc(1, sizeof *j);
    if (!j) {
        err_nomem(&e, sizeof *j, "a request");
        http_error_from(x, &e);
        sink->free(arg);
        return;
    }
    if (!job_desk_enter(s->desk, owner, owner ? s->o.owner_jobs : 0)) {
        free(j);
        job_refuse(s, x, sink, arg);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &now);
    pthread_mutex_init(&j->lock, NULL);
    j->server = s;
    j->x = x;
    j->spec = spec;
    j->sink = *sink;
    j->arg = arg;
    j->at_desk = true;
    j->created = (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
    j->started = http_started(x);
    j->pending = 1;
    http_keep(x);
    int think = -1;
    int rc = hub_find(s->hub, spec->model, &j->model, &think, &e);
    j->think = spec->think != JOB_THINK_DEFAULT ? spec->think
               : think < 0                      ? JOB_THINK_DEFAULT
               : think                          ? JOB_THINK_ON
                                                : JOB_THINK_OFF;
    if (rc) {
        j->err = e;
        job_finish(j);
        return;
    }
    http_about(x, hub_info(j->model)->name);
    http_on_gone(x, job_gone, j);
    http_await(x, spec->answer); /* a model may take minutes to load */
    hub_get(s->hub, j->model, spec->ctx, job_ready, j);
}

/* ---- what a sink may ask -------------------------------------------------------------------- */

struct http_exchange *job_exchange(const struct job *j)
{
    return j->x;
}

const struct hub_use *job_use(const struct job *j)
{
    return j->has_use ? &j->use : NULL;
}

const struct hub_info *job_model(const struct job *j)
{
    return j->model ? hub_info(j->model) : NULL;
}

const char *job_name(const struct job *j)
{
    return j->spec->model;
}

double job_created(const struct job *j)
{
    return j->created;
}

size_t job_prompt_tokens(const struct job *j)
{
    size_t n = 0;
    for (size_t i = 0; i < j->n_part; i++)
        n += j->part[i].prompt.n;
    return n;
}

const int32_t *job_prompt_ids(const struct job *j, size_t input, size_t *n)
{
    *n = input < j->n_part ? j->part[input].prompt.n : 0;
    return input < j->n_part ? j->part[input].prompt.v : NULL;
}

bool job_thinking_open(const struct job *j)
{
    return j->n_part && j->part[0].thinking_open;
}
