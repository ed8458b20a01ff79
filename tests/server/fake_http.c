/* See fake_http.h. */
#include "fake_http.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct metrics {
    pthread_mutex_t lock;
    struct fake_metrics count;
};

void metrics_request(struct metrics *m, const struct metrics_request *r)
{
    pthread_mutex_lock(&m->lock);
    m->count.requests++;
    snprintf(m->count.why, sizeof m->count.why, "%s", r->why);
    pthread_mutex_unlock(&m->lock);
}

void metrics_gap(struct metrics *m, const char *model, double seconds)
{
    pthread_mutex_lock(&m->lock);
    m->count.gaps += model && seconds >= 0;
    pthread_mutex_unlock(&m->lock);
}

struct fake_metrics fake_counts(const struct server *s)
{
    pthread_mutex_lock(&s->metrics->lock);
    struct fake_metrics c = s->metrics->count;
    pthread_mutex_unlock(&s->metrics->lock);
    return c;
}

struct server *fake_server(const char *folder, const struct server_opts *more)
{
    struct server *s = calloc(1, sizeof *s);
    struct err e;
    assert_non_null(s);
    if (more)
        s->o = *more;
    else
        s->o.think_max = -1;
    hub_opts_init(&s->o.hub);
    s->o.hub.dir = folder;
    s->o.hub.engine.threads = 1;
    s->o.hub.engine.ctx = 1024;
    s->o.hub.engine.cache = 8192;
    if (!s->o.n_max)
        s->o.n_max = 16;
    s->metrics = calloc(1, sizeof *s->metrics);
    assert_non_null(s->metrics);
    pthread_mutex_init(&s->metrics->lock, NULL);
    if (job_desk_new(&s->desk, &e) || hub_new(&s->hub, &s->o.hub, &e))
        fail_msg("%s", e.text);
    return s;
}

void fake_stop(struct server *s)
{
    hub_free(s->hub);
    job_desk_free(s->desk);
    free(s->metrics);
    free(s);
}

/* ---- the test's side ------------------------------------------------------------------------ */

static struct http_exchange *fake_vsend(struct server *s,
                                        void (*fn)(void *arg, struct http_exchange *x),
                                        const char *body, va_list args)
{
    struct http_exchange *x = calloc(1, sizeof *x);
    assert_non_null(x);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->cond, NULL);
    buf_init(&x->out, 64 << 20);
    x->refs = 1;
    x->started = clock_seconds();
    if (body) {
        char *text;
        json_error_t je;
        assert_true(vasprintf(&text, body, args) >= 0);
        x->body = json_loads(text, JSON_ALLOW_NUL, &je);
        if (!x->body)
            fail_msg("%s in %s", je.text, text);
        free(text);
    }
    fn(s, x);
    return x;
}

struct http_exchange *fake_send(struct server *s, void (*fn)(void *arg, struct http_exchange *x),
                                const char *body, ...)
{
    va_list args;
    va_start(args, body);
    struct http_exchange *x = fake_vsend(s, fn, body, args);
    va_end(args);
    return x;
}

/* Until the answer is whole and nobody else holds the exchange. */
void fake_wait(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    while (!(x->ended || x->left) || x->refs > 1)
        pthread_cond_wait(&x->cond, &x->lock);
    pthread_mutex_unlock(&x->lock);
}

void fake_leave(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool tell = !x->left && !x->ended && x->gone;
    x->left = true;
    /* Who takes it back waits for the end of it; but it may itself wait for somebody who writes. */
    if (tell) {
        x->telling = true;
        x->teller = pthread_self();
        pthread_mutex_unlock(&x->lock);
        x->gone(x->gone_arg);
        pthread_mutex_lock(&x->lock);
        x->telling = false;
        pthread_cond_broadcast(&x->cond);
    }
    pthread_mutex_unlock(&x->lock);
}

void fake_free(struct http_exchange *x)
{
    fake_wait(x);
    json_decref(x->body);
    buf_release(&x->out);
    free(x);
}

json_t *fake_ask(struct server *s, void (*fn)(void *arg, struct http_exchange *x), int *status,
                 const char *body, ...)
{
    va_list args;
    va_start(args, body);
    struct http_exchange *x = fake_vsend(s, fn, body, args);
    va_end(args);
    fake_wait(x);
    *status = x->status;
    json_t *o = json_loadb(x->out.data, x->out.len, JSON_ALLOW_NUL, NULL);
    if (!o)
        fail_msg("no JSON: %s", x->out.data);
    fake_free(x);
    return o;
}

/* ---- the handlers' side --------------------------------------------------------------------- */

uint64_t http_owner(const struct http_exchange *x)
{
    return x->owner;
}

double http_started(const struct http_exchange *x)
{
    return x->started;
}

const char *http_rest(const struct http_exchange *x)
{
    return x->rest;
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    (void)x;
    (void)name;
    return NULL;
}

json_t *http_json(struct http_exchange *x)
{
    if (json_is_object(x->body))
        return json_incref(x->body);
    http_error(x, 400, NULL, NULL, NULL, "the body must be a JSON object");
    return NULL;
}

void http_keep(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->refs++;
    pthread_mutex_unlock(&x->lock);
}

void http_drop(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->refs--;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
}

void http_on_gone(struct http_exchange *x, void (*gone)(void *arg), void *arg)
{
    pthread_mutex_lock(&x->lock);
    x->gone = gone;
    x->gone_arg = arg;
    while (x->telling && !pthread_equal(x->teller, pthread_self()))
        pthread_cond_wait(&x->cond, &x->lock);
    bool now = x->left && gone;
    pthread_mutex_unlock(&x->lock);
    if (now)
        gone(arg);
}

char *http_dump(const struct http_exchange *x, const json_t *v)
{
    (void)x;
    return v ? json_dumps(v, JSON_COMPACT) : NULL;
}

void http_set(struct http_exchange *x, const char *name, const char *value)
{
    (void)x;
    assert_true(*name && *value);
}

static void http_whole(struct http_exchange *x, int status, const char *s, size_t n)
{
    pthread_mutex_lock(&x->lock);
    assert_false(x->ended);
    x->status = status;
    buf_append(&x->out, s, n, NULL);
    x->ended = true;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
}

void http_send_json(struct http_exchange *x, int status, json_t *v)
{
    assert_non_null(v);
    char *text = json_dumps(v, JSON_COMPACT);
    http_whole(x, status, text, strlen(text));
    free(text);
    json_decref(v);
}

void http_send(struct http_exchange *x, int status, const char *type, const char *body, size_t n)
{
    (void)type;
    http_whole(x, status, body, n);
}

void http_error(struct http_exchange *x, int status, const char *type, const char *code,
                const char *param, const char *text)
{
    json_t *o = json_pack("{s{ss ss? ss? ss?}}", "error", "message", text, "type", type, "param",
                          param, "code", code);
    if (!x->stream) {
        http_send_json(x, status, o);
        return;
    }
    char *s = json_dumps(o, JSON_COMPACT);
    http_write(x, s, strlen(s), NULL);
    free(s);
    json_decref(o);
    http_end(x);
}

void http_error_from(struct http_exchange *x, const struct err *e)
{
    int status = e->code == ERR_USAGE || e->code == ERR_FORMAT || e->code == ERR_LIMIT ||
                         e->code == ERR_UNSUPPORTED
                     ? 400
                 : e->code == ERR_NOTFOUND                         ? 404
                 : e->code == ERR_BUSY || e->code == ERR_CANCELLED ? 503
                                                                   : 500;
    http_error(x, status, NULL, NULL, NULL, e->text);
}

void http_await(struct http_exchange *x, enum http_stream kind)
{
    pthread_mutex_lock(&x->lock);
    x->kind = kind;
    pthread_mutex_unlock(&x->lock);
}

int http_stream(struct http_exchange *x, enum http_stream kind, struct err *e)
{
    (void)e;
    pthread_mutex_lock(&x->lock);
    assert_false(x->stream);
    assert_int_equal(x->kind, kind); /* as announced */
    x->stream = true;
    x->kind = kind;
    x->status = 200;
    pthread_mutex_unlock(&x->lock);
    return 0;
}

int http_write(struct http_exchange *x, const char *data, size_t n, struct err *e)
{
    pthread_mutex_lock(&x->lock);
    assert_false(x->ended);
    const char *name = x->kind == HTTP_NAMED ? memchr(data, '\n', n) : NULL;
    size_t head = name ? (size_t)(name + 1 - data) : 0;
    assert_true(name || x->kind != HTTP_NAMED);
    assert_null(memchr(data + head, '\n', n - head)); /* an event, or a line */
    bool left = x->left;
    if (!left) {
        x->events++;
        if (name)
            buf_printf(&x->out, NULL, "event: %.*s\n", (int)head - 1, data);
        if (name || x->kind == HTTP_EVENTS)
            buf_puts(&x->out, "data: ", NULL);
        buf_append(&x->out, data + head, n - head, NULL);
        if (x->kind != HTTP_WHOLE)
            buf_puts(&x->out, x->kind == HTTP_LINES ? "\n" : "\n\n", NULL);
    }
    if (x->leave_after && x->events >= x->leave_after)
        x->left = true;
    pthread_mutex_unlock(&x->lock);
    return left ? err_set(e, ERR_CANCELLED, "the client has left") : 0;
}

void http_end(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->ended = true;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
}

void http_about(struct http_exchange *x, const char *what)
{
    assert_non_null(what);
    (void)x;
}

void http_note(struct http_exchange *x, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(x->note, sizeof x->note, fmt, args);
    va_end(args);
}
