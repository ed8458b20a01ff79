#include "server/http_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"

#include <dirent.h>

static void quick(void *arg, struct http_exchange *x)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    f->quick++;
    pthread_mutex_unlock(&f->lock);
    http_send_json(x, 200,
                   json_pack("{ss ss ss? si}", "path", http_path(x), "rest", http_rest(x), "name",
                             http_query(x, "name"), "owner", http_owner(x) != 0));
}

static void echo(void *arg, struct http_exchange *x)
{
    json_t *v = http_json(x);
    if (v)
        http_send_json(x, 200, v);
}

static void size(void *arg, struct http_exchange *x)
{
    size_t n;
    http_body(x, &n);
    http_send_json(x, 200, json_pack("{sI}", "size", (json_int_t)n));
}

static void silent(void *arg, struct http_exchange *x)
{
}

static void gone(void *arg)
{
    struct fixture *f = arg;
    pthread_mutex_lock(&f->lock);
    f->gone++;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void job(void *arg, struct http_exchange *x)
{
    struct fixture *f = arg;
    http_keep(x);
    http_on_gone(x, gone, f);
    pthread_mutex_lock(&f->lock);
    while (f->job)
        pthread_cond_wait(&f->changed, &f->lock);
    f->job = x;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static const struct http_route routes[] = {
    {"GET", "/health", HTTP_QUICK, HTTP_PLAIN, true, 0, quick},
    {"GET", "/quick", HTTP_QUICK, HTTP_PLAIN, false, 0, quick},
    {"GET", "/v1/models", HTTP_QUICK, HTTP_OPENAI, false, 0, quick},
    {"GET", "/v1/models/*", HTTP_QUICK, HTTP_OPENAI, false, 0, quick},
    {"POST", "/v1/echo", HTTP_WORK, HTTP_OPENAI, false, 1 << 20, echo},
    {"POST", "/api/echo", HTTP_WORK, HTTP_OLLAMA, false, 1 << 20, echo},
    {"DELETE", "/api/echo", HTTP_WORK, HTTP_OLLAMA, false, 1 << 20, echo},
    {"POST", "/v1/messages", HTTP_WORK, HTTP_ANTHROPIC, false, 1 << 20, echo},
    {"POST", "/size", HTTP_QUICK, HTTP_PLAIN, false, 8 << 20, size},
    {"POST", "/silent", HTTP_WORK, HTTP_OPENAI, false, 1 << 20, silent},
    {"POST", "/v1/job", HTTP_WORK, HTTP_OPENAI, false, 1 << 20, job},
    {"POST", "/api/job", HTTP_WORK, HTTP_OLLAMA, false, 1 << 20, job},
};

const struct http_opts fixture_opts = {
    .host = "127.0.0.1",
    .fd = -1,
    .alive_seconds = 0.2,
    .head_seconds = 1,
    .idle_seconds = 3,
    .route = routes,
    .n_route = sizeof routes / sizeof *routes,
    .access_log = true,
};

size_t count_fds(void)
{
    size_t n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

void fixture_start(struct fixture *f, const struct http_opts *o)
{
    struct http_opts mine = *o;
    struct err e = {0};
    *f = (struct fixture){.fds = count_fds()};
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
    f->log = (struct log){open_memstream(&f->log_text, &f->log_n), LOG_WARN};
    mine.arg = f;
    mine.log = &f->log;
    if (http_new(&f->http, &mine, &e))
        fail_msg("%s", e.text);
    f->port = http_port(f->http);
}

void fixture_stop(struct fixture *f)
{
    http_free(f->http);
    if (f->log.out)
        fclose(f->log.out);
    free(f->log_text);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    assert_int_equal(count_fds(), f->fds);
}

static struct timespec later(double seconds)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec += (time_t)seconds;
    t.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    if (t.tv_nsec >= 1000000000) {
        t.tv_nsec -= 1000000000;
        t.tv_sec++;
    }
    return t;
}

struct http_exchange *job_take(struct fixture *f)
{
    struct timespec end = later(10);
    pthread_mutex_lock(&f->lock);
    while (!f->job && !pthread_cond_timedwait(&f->changed, &f->lock, &end))
        ;
    struct http_exchange *x = f->job;
    f->job = NULL;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    return x;
}

bool job_gone(struct fixture *f, int n, double seconds)
{
    struct timespec end = later(seconds);
    pthread_mutex_lock(&f->lock);
    while (f->gone < n && !pthread_cond_timedwait(&f->changed, &f->lock, &end))
        ;
    bool ok = f->gone == n;
    pthread_mutex_unlock(&f->lock);
    return ok;
}

double seconds_now(void)
{
    return clock_seconds();
}

void nap(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&t, NULL);
}

bool active_is(struct fixture *f, size_t n)
{
    for (int i = 0; i < 1000; i++) {
        if (http_active(f->http) == n)
            return true;
        nap(0.01);
    }
    return false;
}
