/*
 * Load on a server, driven by libcurl's multi interface: see load.h.
 *
 * The server often runs on the same cores, so what the clients take it lacks. An epoll set says
 * which connections have something to read, and only these are looked at (libcurl's own poll loop
 * looks at all of them each time).
 */
#include "cli/load.h"

#ifdef PONDER_CURL

#include "base/buf.h"
#include "base/clock.h"

#include <curl/curl.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { GAPS_MAX = 1 << 22, EVENT_MAX = 8 << 20, LOAD_EVENTS = 64 };

struct load;

/* One client: a request that runs. */
struct client {
    struct load *l;
    CURL *curl;
    struct buf in;   /* bytes of an event that is not complete */
    struct buf body; /* of an answer that is no success */
    char *request;
    struct load_sample s;
    double last; /* when the last piece of text came */
    size_t pieces;
    bool ended, refused;
    struct client *next, *other; /* idle ones; all */
};

struct load {
    const struct load_opts *o;
    struct load_result *r;
    CURLM *multi;
    int poll_fd;     /* epoll: what libcurl waits for */
    double deadline; /* when libcurl wants to be called without an event; < 0: never */
    struct curl_slist *headers;
    char url[1024], model[256];
    double begin;
    size_t begun, running, cap_gap;
    size_t writing;        /* clients between their first piece and the end */
    double full;           /* since when all of `concurrency` are; < 0: they are not */
    size_t full_pieces;    /* that came meanwhile */
    size_t pieces, tokens; /* of answers that are complete */
    struct client *idle, *all;
    struct rng arrivals;
    double due; /* of the next request, in the open loop */
};

/* ---- what comes ----------------------------------------------------------------------------- */

static bool has_text(const json_t *o, const char *key)
{
    return json_string_length(json_object_get(o, key)) > 0;
}

/* One client more, or less, is being answered: is everybody? */
static void writes(struct load *l, bool more, double now)
{
    l->writing += more ? 1 : (size_t)-1;
    bool full = l->o->concurrency && l->writing == l->o->concurrency;
    if (!full && l->full >= 0)
        l->r->full_seconds += now - l->full;
    l->full = full ? now : -1;
}

static void came(struct client *c, double now)
{
    struct load_result *r = c->l->r;
    c->l->full_pieces += c->l->full >= 0;
    if (!c->pieces++) {
        c->s.first = now;
        writes(c->l, true, now);
    } else if (r->n_gap < c->l->cap_gap) {
        r->gap[r->n_gap++] = (float)(now - c->last);
    }
    c->last = now;
}

static void read_usage(struct client *c, const json_t *u)
{
    if (!json_is_object(u))
        return;
    c->s.prompt_tokens = (size_t)json_integer_value(json_object_get(u, "prompt_tokens"));
    c->s.answer_tokens = (size_t)json_integer_value(json_object_get(u, "completion_tokens"));
    c->s.cached_tokens = (size_t)json_integer_value(
        json_object_get(json_object_get(u, "prompt_tokens_details"), "cached_tokens"));
}

/* One JSON object of the stream. */
static void read_event(struct client *c, const char *s, size_t n, double now)
{
    json_t *o = json_loadb(s, n, JSON_ALLOW_NUL, NULL);
    if (!o) {
        c->refused = true;
    } else if (json_object_get(o, "error")) {
        c->refused = true;
        (void)buf_append(&c->body, s, n, NULL);
    } else if (c->l->o->api == LOAD_OLLAMA) {
        const json_t *m = json_object_get(o, "message");
        if (has_text(m, "content") || has_text(m, "thinking"))
            came(c, now);
        if (json_is_true(json_object_get(o, "done"))) {
            c->ended = true;
            c->s.prompt_tokens =
                (size_t)json_integer_value(json_object_get(o, "prompt_eval_count"));
            c->s.answer_tokens = (size_t)json_integer_value(json_object_get(o, "eval_count"));
        }
    } else {
        const json_t *choice = json_array_get(json_object_get(o, "choices"), 0);
        const json_t *d = json_object_get(choice, "delta");
        if (has_text(d, "content") || has_text(d, "reasoning_content") ||
            has_text(d, "reasoning") || has_text(choice, "text") ||
            json_array_size(json_object_get(d, "tool_calls")))
            came(c, now);
        read_usage(c, json_object_get(o, "usage"));
    }
    json_decref(o);
}

/* A line of NDJSON, or of an event stream. */
static void read_line(struct client *c, const char *s, size_t n, double now)
{
    static const char data[] = "data:", done[] = "[DONE]";
    if (c->l->o->api != LOAD_OLLAMA) {
        if (n < sizeof data - 1 || memcmp(s, data, sizeof data - 1))
            return;
        s += sizeof data - 1;
        n -= sizeof data - 1;
    }
    while (n && (*s == ' ' || s[n - 1] == '\r')) {
        s += *s == ' ';
        n--;
    }
    if (n == sizeof done - 1 && !memcmp(s, done, n))
        c->ended = true;
    else if (n)
        read_event(c, s, n, now);
}

static size_t on_data(char *p, size_t size, size_t n, void *arg)
{
    struct client *c = arg;
    double now = clock_seconds() - c->l->begin;
    long status = 0;
    n *= size;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (c->body.len < 4096)
            (void)buf_append(&c->body, p, n < 4096 ? n : 4096, NULL);
        return n;
    }
    if (buf_append(&c->in, p, n, NULL))
        return 0;
    char *end;
    size_t used = 0;
    while ((end = memchr(c->in.data + used, '\n', c->in.len - used))) {
        read_line(c, c->in.data + used, (size_t)(end - c->in.data) - used, now);
        used = (size_t)(end - c->in.data) + 1;
    }
    c->in.len -= used;
    memmove(c->in.data, c->in.data + used, c->in.len);
    return n;
}

/* ---- what is sent --------------------------------------------------------------------------- */

static char *make_body(const struct load *l, json_t *messages, size_t answer)
{
    const struct load_opts *o = l->o;
    json_t *b = json_pack("{ss sb}", "model", l->model, "stream", 1);
    if (o->api == LOAD_OLLAMA) {
        json_t *options = json_pack("{sI}", "num_predict", (json_int_t)answer);
        if (o->has_temperature)
            json_object_set_new(options, "temperature", json_real(o->temperature));
        json_object_set_new(b, "options", options);
        json_object_set(b, "messages", messages);
    } else {
        json_object_set_new(b, "max_tokens", json_integer((json_int_t)answer));
        json_object_set_new(b, "stream_options", json_pack("{sb}", "include_usage", 1));
        if (o->ignore_end)
            json_object_set_new(b, "ignore_eos", json_true());
        if (o->has_temperature)
            json_object_set_new(b, "temperature", json_real(o->temperature));
        if (o->api == LOAD_CHAT)
            json_object_set(b, "messages", messages);
        else
            json_object_set(b, "prompt",
                            json_object_get(json_array_get(messages, json_array_size(messages) - 1),
                                            "content"));
    }
    if (o->extra)
        json_object_update(b, o->extra);
    char *text = json_dumps(b, JSON_COMPACT);
    json_decref(b);
    return text;
}

static struct client *client_new(struct load *l, struct err *e)
{
    struct client *c = calloc(1, sizeof *c);
    if (c)
        c->curl = curl_easy_init();
    if (!c || !c->curl) {
        free(c);
        (void)err_nomem(e, sizeof *c, "a client");
        return NULL;
    }
    c->l = l;
    c->other = l->all;
    l->all = c;
    buf_init(&c->in, EVENT_MAX);
    buf_init(&c->body, EVENT_MAX);
    curl_easy_setopt(c->curl, CURLOPT_URL, l->url);
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, l->headers);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->curl, CURLOPT_PRIVATE, c);
    curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c->curl, CURLOPT_NOPROXY, "*");
    if (l->o->timeout > 0)
        curl_easy_setopt(c->curl, CURLOPT_TIMEOUT_MS, (long)(l->o->timeout * 1e3));
    return c;
}

static void client_free(struct client *c)
{
    curl_easy_cleanup(c->curl);
    buf_release(&c->in);
    buf_release(&c->body);
    free(c->request);
    free(c);
}

static int client_begin(struct load *l, double due, struct err *e)
{
    struct client *c = l->idle;
    json_t *messages;
    size_t answer;
    if (c)
        l->idle = c->next;
    else if (!(c = client_new(l, e)))
        return e->code;
    int rc = load_data_get(l->o->data, l->begun, &messages, &answer, e);
    if (!rc) {
        free(c->request);
        c->request = make_body(l, messages, answer);
        json_decref(messages);
        rc = c->request ? 0 : err_nomem(e, 0, "a request");
    }
    if (rc)
        return rc;
    buf_clear(&c->in);
    buf_clear(&c->body);
    c->pieces = 0;
    c->ended = c->refused = false;
    c->s = (struct load_sample){.start = due, .first = -1};
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, c->request);
    curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(c->request));
    curl_multi_add_handle(l->multi, c->curl);
    l->begun++;
    l->running++;
    return 0;
}

static void client_end(struct load *l, struct client *c, CURLcode code)
{
    struct load_result *r = l->r;
    long status = 0;
    c->s.end = clock_seconds() - l->begin;
    if (c->pieces)
        writes(l, false, c->s.end);
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    c->s.status = (int)status;
    c->s.ok = code == CURLE_OK && status == 200 && c->ended && !c->refused;
    if (!c->s.ok) {
        r->failed++;
        if (!*r->error && code != CURLE_OK)
            snprintf(r->error, sizeof r->error, "%s", curl_easy_strerror(code));
        else if (!*r->error)
            snprintf(r->error, sizeof r->error, "status %ld%s%.180s", status,
                     c->body.len ? ": " : ", the answer is not complete",
                     c->body.len ? c->body.data : "");
    }
    if (c->s.ok) {
        l->pieces += c->pieces;
        l->tokens += c->s.answer_tokens;
    }
    r->sample[r->n++] = c->s;
    curl_multi_remove_handle(l->multi, c->curl);
    l->running--;
    c->next = l->idle;
    l->idle = c;
}

/* ---- waiting -------------------------------------------------------------------------------- */

static int on_socket(CURL *curl, curl_socket_t fd, int what, void *arg, void *known)
{
    struct load *l = arg;
    struct epoll_event ev = {.data.fd = fd};
    ev.events = (what & CURL_POLL_IN ? EPOLLIN : 0) | (what & CURL_POLL_OUT ? EPOLLOUT : 0);
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(l->poll_fd, EPOLL_CTL_DEL, fd, NULL);
    } else if (epoll_ctl(l->poll_fd, EPOLL_CTL_MOD, fd, &ev) && errno == ENOENT &&
               epoll_ctl(l->poll_fd, EPOLL_CTL_ADD, fd, &ev)) {
        return -1;
    }
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    struct load *l = arg;
    l->deadline = ms < 0 ? -1 : clock_seconds() + (double)ms * 1e-3;
    return 0;
}

/* Lets libcurl go on with what has come within `ms` milliseconds. */
static void load_wait(struct load *l, int ms)
{
    struct epoll_event ev[LOAD_EVENTS];
    int active;
    if (l->deadline >= 0) {
        double left = l->deadline - clock_seconds();
        ms = left <= 0 ? 0 : (int)fmin(ms, left * 1e3 + 1);
    }
    int n = epoll_wait(l->poll_fd, ev, LOAD_EVENTS, ms);
    for (int i = 0; i < n; i++) {
        int mask = (ev[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) |
                   (ev[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                   (ev[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
        curl_multi_socket_action(l->multi, ev[i].data.fd, mask, &active);
    }
    if (l->deadline >= 0 && clock_seconds() >= l->deadline) {
        l->deadline = -1;
        curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &active);
    }
}

/* ---- the run -------------------------------------------------------------------------------- */

/* Begins what is due; *wait: milliseconds until there is more. */
static int begin_due(struct load *l, double now, int *wait, struct err *e)
{
    const struct load_opts *o = l->o;
    bool late = o->seconds > 0 && now >= o->seconds;
    int rc = 0;
    *wait = 200;
    while (!rc && !late && l->begun < o->requests) {
        if (o->concurrency && l->running >= o->concurrency)
            return 0;
        if (o->rate <= 0) {
            rc = client_begin(l, now, e);
            continue;
        }
        if (l->due > now) {
            *wait = (int)fmin(200, (l->due - now) * 1e3) + 1;
            return 0;
        }
        rc = client_begin(l, l->due, e);
        l->due -= log(1 - rng_uniform(&l->arrivals)) / o->rate;
    }
    return rc;
}

static void reap(struct load *l)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(l->multi, &left)))
        if (m->msg == CURLMSG_DONE) {
            char *c = NULL;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &c);
            client_end(l, (struct client *)(void *)c, code);
        }
}

static int run(struct load *l, struct err *e)
{
    const struct load_opts *o = l->o;
    int rc = 0, wait;
    l->begin = clock_seconds();
    for (;;) {
        double now = clock_seconds() - l->begin;
        if ((rc = begin_due(l, now, &wait, e)))
            return rc;
        reap(l);
        bool more = l->begun < o->requests && !(o->seconds > 0 && now >= o->seconds);
        if (!l->running && !more)
            break;
        if (o->going && !o->going(o->arg, l->r->n, l->r->failed, l->running))
            return err_set(e, ERR_CANCELLED, "stopped");
        load_wait(l, wait);
    }
    l->r->seconds = clock_seconds() - l->begin;
    if (l->pieces) /* a piece is a token, or a few */
        l->r->full_tokens = (double)l->full_pieces * (double)l->tokens / (double)l->pieces;
    return 0;
}

static size_t on_list(char *p, size_t size, size_t n, void *arg)
{
    return buf_append(arg, p, n * size, NULL) ? 0 : n * size;
}

/* The server answers, and which model is asked for. */
static int find_model(struct load *l, struct err *e)
{
    char url[1024];
    struct buf text;
    CURL *c = curl_easy_init();
    if (!c)
        return err_nomem(e, 0, "a client");
    buf_init(&text, EVENT_MAX);
    snprintf(url, sizeof url, "%.900s/v1/models", l->o->url);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, l->headers);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_list);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &text);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(c, CURLOPT_TIMEOUT, 30L);
    CURLcode code = curl_easy_perform(c);
    curl_easy_cleanup(c);
    int rc = 0;
    json_t *o = json_loadb(text.len ? text.data : "", text.len, 0, NULL);
    const char *id =
        json_string_value(json_object_get(json_array_get(json_object_get(o, "data"), 0), "id"));
    if (code != CURLE_OK)
        rc = err_set(e, ERR_IO, "%s: %s; is a server running there? \"ponder serve\" starts one",
                     l->o->url, curl_easy_strerror(code));
    else if (!l->o->model && !id)
        rc = err_set(e, ERR_IO, "%s lists no model: give --model", url);
    else
        snprintf(l->model, sizeof l->model, "%s", l->o->model ? l->o->model : id);
    json_decref(o);
    buf_release(&text);
    return rc;
}

static int prepare(struct load *l, struct err *e)
{
    static const char *const paths[] = {[LOAD_CHAT] = "/v1/chat/completions",
                                        [LOAD_COMPLETIONS] = "/v1/completions",
                                        [LOAD_OLLAMA] = "/api/chat"};
    const struct load_opts *o = l->o;
    char line[1200];
    size_t n = strlen(o->url);
    while (n && o->url[n - 1] == '/')
        n--;
    snprintf(l->url, sizeof l->url, "%.*s%s", (int)(n < 900 ? n : 900), o->url, paths[o->api]);
    l->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (o->api_key) {
        snprintf(line, sizeof line, "Authorization: Bearer %.1000s", o->api_key);
        l->headers = curl_slist_append(l->headers, line);
    }
    l->multi = curl_multi_init();
    l->poll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (l->multi && l->poll_fd >= 0) {
        curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
        curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
        curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, on_timer);
        curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    }
    l->cap_gap = GAPS_MAX;
    l->r->gap = malloc(l->cap_gap * sizeof *l->r->gap);
    l->r->sample = calloc(o->requests ? o->requests : 1, sizeof *l->r->sample);
    if (l->poll_fd < 0)
        return err_errno(e, "cannot watch connections");
    if (!l->headers || !l->multi || !l->r->gap || !l->r->sample)
        return err_nomem(e, l->cap_gap * sizeof *l->r->gap, "samples");
    rng_init(&l->arrivals, o->seed, 1);
    return find_model(l, e);
}

int load_run(struct load_result *out, const struct load_opts *o, struct err *e)
{
    struct load l = {.o = o, .r = out, .poll_fd = -1, .deadline = -1, .full = -1};
    memset(out, 0, sizeof *out);
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return err_nomem(e, 0, "clients");
    int rc = prepare(&l, e);
    rc = rc ? rc : run(&l, e);
    snprintf(out->model, sizeof out->model, "%s", l.model);
    for (struct client *c = l.all, *other; c; c = other) {
        other = c->other;
        curl_multi_remove_handle(l.multi, c->curl);
        client_free(c);
    }
    curl_slist_free_all(l.headers);
    if (l.multi)
        curl_multi_cleanup(l.multi);
    if (l.poll_fd >= 0)
        close(l.poll_fd);
    curl_global_cleanup();
    return rc;
}

#else

int load_run(struct load_result *out, const struct load_opts *o, struct err *e)
{
    (void)o;
    *out = (struct load_result){.n = 0};
    return err_set(e, ERR_UNSUPPORTED,
                   "this ponder was built without libcurl: install libcurl4-openssl-dev and build "
                   "again");
}

#endif

#include <stdlib.h>

void load_result_release(struct load_result *r)
{
    free(r->sample);
    free(r->gap);
    *r = (struct load_result){.n = 0};
}
