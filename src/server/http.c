/*
 * The HTTP server: start and stop, the callbacks of libmicrohttpd, the pool of workers.
 *
 * One network thread (libmicrohttpd's, with epoll) reads and writes all connections. A request
 * becomes an exchange when its first line is there; http_head checks it; its body is collected;
 * then a quick route's handler runs right here, others in the pool. While there is no answer the
 * connection is suspended. What wakes it (http_answer.c) leaves the answer in the exchange, and the
 * network thread picks it up: a complete one is handed over, one in pieces is read by a callback
 * that suspends when there is nothing; from then on http_answer.c writes pieces to the socket.
 *
 * libmicrohttpd's own answers to what it cannot parse (400, 413, 414, 431, 505) are short HTML, not
 * JSON: it has no hook for them. They close the connection.
 */
#include "server/http_private.h"

#include "base/clock.h"
#include "base/file.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CONNECTIONS = 4096,
    FILES_SPARE = 256, /* descriptors for everything else: models, caches, epoll */
    PEM_MAX = 1 << 20,
    ANSWER_MAX = 1 << 30,
    FIELDS_MAX = 16 << 10,
    START_TEXT = 400,
};

/* ---- connections ----------------------------------------------------------------------------- */

void http_move(struct http *h, struct http_conn *k, enum http_state to)
{
    struct http_list *l = &h->list[k->state];
    *(k->prev ? &k->prev->next : &l->head) = k->next;
    *(k->next ? &k->next->prev : &l->tail) = k->prev;
    l = &h->list[to];
    k->prev = l->tail;
    k->next = NULL;
    *(k->prev ? &k->prev->next : &l->head) = k;
    l->tail = k;
    k->state = to;
    k->since = clock_seconds();
}

/* When places run out, the connection that has been idle longest makes room: it sees an end. */
static void conn_evict(struct http *h)
{
    struct http_conn *k = h->list[HTTP_IDLE].head;
    if (h->open > h->n_conn - h->n_conn / 16 - 1 && k && !k->left) {
        shutdown(k->fd, SHUT_RDWR);
        http_move(h, k, HTTP_IDLE); /* at the end: the next one is another one */
    }
}

static void on_connection(void *cls, struct MHD_Connection *c, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http *h = cls;
    struct http_conn *k = *context;
    pthread_mutex_lock(&h->lock);
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        conn_evict(h);
        k = h->list[HTTP_FREE].head; /* as many as libmicrohttpd allows connections */
        *context = k;
        k->fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
        k->x = NULL;
        k->left = k->linger = false;
        h->open++;
        http_move(h, k, HTTP_IDLE);
        http_watch_add(h, k);
    } else if (k) {
        if (k->linger && !k->left)
            http_watch_linger(h, k->fd);
        k->x = NULL;
        h->open--;
        http_move(h, k, HTTP_FREE);
        pthread_cond_broadcast(&h->changed);
    }
    pthread_mutex_unlock(&h->lock);
}

/* ---- exchanges ------------------------------------------------------------------------------- */

void http_unref(struct http *h)
{
    if (atomic_fetch_sub(&h->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    pthread_cond_destroy(&h->work);
    free(h->conn);
    free(h->count);
    free(h->key);
    free(h->unix_path);
    free(h->worker);
    free(h);
}

/* The first line is there. What it returns is *context of on_request. */
static void *on_target(void *cls, const char *target, struct MHD_Connection *c)
{
    struct http *h = cls;
    struct http_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    atomic_store(&x->refs, 1);
    atomic_fetch_add(&h->refs, 1);
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->told, NULL);
    buf_init(&x->body, 0);
    buf_init(&x->out, ANSWER_MAX);
    buf_init(&x->piece, ANSWER_MAX);
    buf_init(&x->fields, FIELDS_MAX);
    x->h = h;
    x->c = c;
    x->method = x->path = "?";
    x->target_text = strdup(target);
    /* Its own parsing of the query is not needed, and has no good end when its memory does not
       suffice (0.9.75): it finds none. The text is the connection's buffer. */
    char *query = strchr(target, '?');
    if (query && MHD_get_version()[0] == '0')
        query[1] = 0;
    x->started = clock_seconds();
    x->conn = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    pthread_mutex_lock(&h->lock);
    x->conn->linger = true;
    pthread_mutex_unlock(&h->lock);
    return x;
}

static void count_request(struct http *h, const struct http_exchange *x, int status)
{
    uint32_t route = (uint32_t)(x->route ? (size_t)(x->route - h->o.route) : h->o.n_route);
    /* Methods are constant texts: the first letters tell them apart. */
    const char *m = x->head ? "HEAD" : x->method;
    uint16_t method = (uint16_t)((unsigned char)m[0] << 8 | (unsigned char)m[m[0] ? 1 : 0]);
    for (size_t i = 0; i < h->n_count; i++) {
        struct http_count *c = &h->count[i];
        if (c->route == route && c->method == method && c->status == status) {
            c->count++;
            return;
        }
    }
    if (h->n_count == h->cap_count) {
        size_t cap = h->cap_count ? 2 * h->cap_count : 64;
        struct http_count *more =
            cap > HTTP_COUNTS_MAX ? NULL : realloc(h->count, cap * sizeof *more);
        if (!more)
            return;
        h->count = more;
        h->cap_count = cap;
    }
    h->count[h->n_count++] = (struct http_count){route, method, (uint16_t)status, 1};
}

static const char *method_name(uint16_t code)
{
    static const char *const names[] = {"GET",    "HEAD",    "POST",  "PUT",    "PATCH",
                                        "DELETE", "OPTIONS", "TRACE", "CONNECT"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (code == ((unsigned char)names[i][0] << 8 | (unsigned char)names[i][1]))
            return names[i];
    return "other";
}

void http_counts(struct http *h,
                 void (*fn)(void *arg, const char *handler, const char *method, int status,
                            uint64_t count),
                 void *arg)
{
    pthread_mutex_lock(&h->lock);
    for (size_t i = 0; i < h->n_count; i++) {
        const struct http_count *c = &h->count[i];
        fn(arg, c->route < h->o.n_route ? h->o.route[c->route].path : "none",
           method_name(c->method), c->status, c->count);
    }
    pthread_mutex_unlock(&h->lock);
}

void http_log(struct http_exchange *x)
{
    char line[1200];
    struct tm t;
    time_t now = time(NULL);
    localtime_r(&now, &t);
    int status = x->status ? x->status : 499;
    pthread_mutex_lock(&x->lock);
    const char *end = x->cut || x->stuck ? "  cut off: it read too slowly"
                      : x->heard         ? ""
                                         : "  the client left";
    snprintf(line, sizeof line, "%02d:%02d:%02d %s %.200s%s%s %d%s%s%s", t.tm_hour, t.tm_min,
             t.tm_sec, x->head ? "HEAD" : x->method, x->path, *x->about ? " " : "", x->about,
             status, *x->note ? "  " : "", x->note, end);
    pthread_mutex_unlock(&x->lock);
    log_bare(x->h->o.log, "%s", line);
}

/* The exchange is over, whether well or not. */
static void on_completed(void *cls, struct MHD_Connection *c, void **context,
                         enum MHD_RequestTerminationCode how)
{
    struct http *h = cls;
    struct http_exchange *x = *context;
    if (!x)
        return;
    *context = NULL;
    struct http_conn *k = x->conn;
    pthread_mutex_lock(&x->lock);
    x->suspended = false;
    x->c = NULL;
    bool sent = (how == MHD_REQUEST_TERMINATED_COMPLETED_OK && x->status && !x->gone) ||
                x->stage == HTTP_REFUSED;
    int status = x->status ? x->status : 499;
    pthread_mutex_unlock(&x->lock);
    x->heard = sent;
    http_gone(x);
    bool seen = x->stage != HTTP_AT_HEAD; /* else libmicrohttpd has refused it */
    /* Health checks that succeed would drown the rest. */
    bool quiet = x->route && x->route->open && status < 400;
    if (h->o.access_log && seen && !quiet) {
        if (sent)
            http_log(x);
        else /* the handler may have a word to say, when it has ended */
            x->log_later = true;
    }
    pthread_mutex_lock(&h->lock);
    if (seen)
        count_request(h, x, status);
    k->x = NULL;
    k->linger = !sent || x->close;
    http_move(h, k, HTTP_IDLE);
    http_watch_idle(k);
    /* The library may have missed the end, when it came together with the request. */
    if (k->left || atomic_load(&h->draining))
        shutdown(k->fd, SHUT_RD);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    http_drop(x);
}

/* ---- sending --------------------------------------------------------------------------------- */

static ssize_t on_piece(void *cls, uint64_t pos, char *to, size_t max)
{
    struct http_exchange *x = cls;
    ssize_t rc = 0;
    pthread_mutex_lock(&x->lock);
    size_t n = x->out.len - x->sent;
    if (x->gone) {
        /* With epoll libmicrohttpd (0.9.75) forgets a connection whose reader fails until all that
           have been idle for longer are gone; one whose write fails it closes at once. */
        shutdown(x->conn->fd, SHUT_RDWR);
        rc = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (n) {
        const char *from = x->out.data + x->sent;
        n = n > max ? http_cut(from, n, max) : n;
        memcpy(to, from, n);
        x->sent += n;
        if (x->sent == x->out.len) {
            buf_clear(&x->out);
            x->sent = 0;
        }
        rc = (ssize_t)n;
    } else if (x->ended) {
        rc = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        x->suspended = true;
        MHD_suspend_connection(x->c);
        if (!x->direct && !x->h->tls) {
            int on = 1; /* a piece does not wait for the next one; no use for Unix sockets */
            (void)setsockopt(x->conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            x->direct = true;
            x->moved = clock_seconds();
        }
    }
    pthread_mutex_unlock(&x->lock);
    return rc;
}

static void add_fields(struct http_exchange *x, struct MHD_Response *r)
{
    const char *s = x->fields.data, *end = s + x->fields.len;
    while (s < end) {
        const char *value = s + strlen(s) + 1;
        MHD_add_response_header(r, s, value);
        s = value + strlen(value) + 1;
    }
    if (*x->type)
        MHD_add_response_header(r, "Content-Type", x->type);
    MHD_add_response_header(r, "X-Request-Id", x->id);
    if (x->close || atomic_load(&x->h->draining))
        MHD_add_response_header(r, "Connection", "close");
}

/* Hands over the answer, or suspends until there is one. */
static enum MHD_Result proceed(struct http_exchange *x, struct MHD_Connection *c)
{
    struct MHD_Response *r = NULL;
    enum MHD_Result rc = MHD_NO;
    pthread_mutex_lock(&x->lock);
    int status = x->status;
    if (x->gone) {
        pthread_mutex_unlock(&x->lock);
        return MHD_NO;
    }
    if (x->whole) {
        bool own = x->out.cap > 0;
        r = MHD_create_response_from_buffer(x->out.len, x->out.data,
                                            own ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        if (r && own)
            buf_init(&x->out, ANSWER_MAX);
    } else if (x->begun) {
        r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, HTTP_BLOCK, on_piece, x, NULL);
    } else {
        x->suspended = true;
        MHD_suspend_connection(c);
        pthread_mutex_unlock(&x->lock);
        return MHD_YES;
    }
    if (r)
        add_fields(x, r);
    pthread_mutex_unlock(&x->lock);
    if (r) {
        rc = MHD_queue_response(c, (unsigned)status, r);
        MHD_destroy_response(r);
    }
    return rc;
}

/* ---- receiving ------------------------------------------------------------------------------- */

/* Room for n further bytes of the body; false when all bodies together are too many. */
static bool body_reserve(struct http_exchange *x, size_t n)
{
    size_t before = x->body.cap;
    if (buf_reserve(&x->body, n, NULL))
        return false;
    size_t more = x->body.cap - before;
    x->counted += more;
    return !more || atomic_fetch_add(&x->h->bodies, more) + more <= HTTP_BODIES_MAX;
}

/*
 * A body that was longer than announced anywhere: libmicrohttpd takes no answer now, only an end.
 * So this goes out beside it; it owns nothing of the connection that could be lost.
 */
static void refuse_midway(struct http_exchange *x, int status, const char *text)
{
    char head[400];
    http_error(x, status, NULL, NULL, NULL, text);
    x->close = true;
    x->stage = HTTP_REFUSED;
    if (x->h->tls)
        return;
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: application/json\r\n"
                     "X-Request-Id: %s\r\nContent-Length: %zu\r\n\r\n",
                     status, MHD_get_reason_phrase_for((unsigned)status), x->id, x->out.len);
    if (send(x->conn->fd, head, (size_t)n, MSG_NOSIGNAL | MSG_MORE) == n &&
        send(x->conn->fd, x->out.data, x->out.len, MSG_NOSIGNAL) < 0)
        return;
}

static enum MHD_Result receive(struct http_exchange *x, const char *data, size_t n)
{
    size_t max = x->discard ? HTTP_DISCARD_MAX : x->body_max;
    uint64_t got = atomic_fetch_add(&x->received, n) + n;
    if (got > max)
        refuse_midway(x, 413, "the body is longer than this path takes");
    else if (!x->discard && (!body_reserve(x, n) || buf_append(&x->body, data, n, NULL)))
        refuse_midway(x, 503, "too many large bodies at this moment");
    else
        return MHD_YES;
    return MHD_NO;
}

static void run(struct http_exchange *x)
{
    x->route->fn(x->h->o.arg, x);
}

/* The request is whole. */
static enum MHD_Result dispatch(struct http_exchange *x, struct MHD_Connection *c)
{
    struct http *h = x->h;
    struct http_conn *k = x->conn;
    bool work = !x->whole && x->route->kind == HTTP_WORK;
    pthread_mutex_lock(&h->lock);
    x->stage = HTTP_RUNS;
    http_move(h, k, HTTP_BUSY);
    bool refused = h->stopping || (work && k->left);
    if (!refused && work) {
        x->awaited = true;
        http_keep(x);
        *(h->queue_tail ? &h->queue_tail->next : &h->queue_head) = x;
        h->queue_tail = x;
        pthread_cond_signal(&h->work);
        if (h->lazy)
            http_watch_kick(h);
    }
    pthread_mutex_unlock(&h->lock);
    if (refused)
        return MHD_NO;
    if (!work && !x->whole) {
        run(x);
        if (atomic_load(&x->refs) == 1)
            http_orphan(x);
        pthread_mutex_lock(&h->lock);
        x->awaited = true;
        bool left = k->left;
        pthread_mutex_unlock(&h->lock);
        if (left)
            http_gone(x); /* unless it is answered already */
    }
    return proceed(x, c);
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *n, void **context)
{
    struct http *h = cls;
    struct http_exchange *x = *context;
    if (!x)
        return MHD_NO;
    switch (x->stage) {
    case HTTP_AT_HEAD:
        http_head(x, method, version);
        x->stage = HTTP_AT_BODY;
        pthread_mutex_lock(&h->lock);
        x->conn->x = x;
        http_move(h, x->conn, HTTP_BODY);
        pthread_mutex_unlock(&h->lock);
        return x->whole && x->close ? dispatch(x, c) : MHD_YES;
    case HTTP_AT_BODY:
        if (!*n)
            return dispatch(x, c);
        if (receive(x, data, *n) == MHD_NO)
            return MHD_NO;
        *n = 0;
        return MHD_YES;
    default:
        return proceed(x, c);
    }
}

/* ---- workers --------------------------------------------------------------------------------- */

static void *worker_main(void *arg)
{
    struct http *h = arg;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        struct http_exchange *x = h->queue_head;
        if (!x && h->stopping)
            break;
        if (!x) {
            pthread_cond_wait(&h->work, &h->lock);
            continue;
        }
        h->queue_head = x->next;
        if (!h->queue_head)
            h->queue_tail = NULL;
        pthread_mutex_unlock(&h->lock);
        pthread_mutex_lock(&x->lock);
        bool gone = x->gone;
        pthread_mutex_unlock(&x->lock);
        if (!gone)
            run(x);
        http_drop(x);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static int workers_start(struct http *h, struct err *e)
{
    int n = h->o.workers > 0 ? h->o.workers : 4;
    h->worker = calloc((size_t)n, sizeof *h->worker);
    if (!h->worker)
        return err_nomem(e, (size_t)n * sizeof *h->worker, "threads");
    for (; h->n_worker < n; h->n_worker++) {
        errno = pthread_create(&h->worker[h->n_worker], NULL, worker_main, h);
        if (errno)
            return err_errno(e, "cannot start a thread");
    }
    return 0;
}

/* ---- start and stop -------------------------------------------------------------------------- */

static void on_log(void *cls, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void on_log(void *cls, const char *fmt, va_list ap)
{
    struct http *h = cls;
    char text[START_TEXT];
    vsnprintf(text, sizeof text, fmt, ap);
    text[strcspn(text, "\n")] = 0;
    /* the library's own thread may have something to say already */
    if (pthread_equal(pthread_self(), h->starter) && h->start_text)
        snprintf(h->start_text, START_TEXT, "%s", text);
    log_line(h->o.log, LOG_DEBUG, "http: %s", text);
}

/* Targets are decoded by http_target_parse: in place a NUL would cut them. */
static size_t no_unescape(void *cls, struct MHD_Connection *c, char *s)
{
    return strlen(s);
}

static int conns_init(struct http *h, struct err *e)
{
    struct rlimit r;
    size_t n = h->o.connections ? h->o.connections : CONNECTIONS;
    if (!getrlimit(RLIMIT_NOFILE, &r) && r.rlim_cur != RLIM_INFINITY) {
        size_t room = r.rlim_cur > 2 * FILES_SPARE ? r.rlim_cur - FILES_SPARE : r.rlim_cur / 2;
        n = n < room ? n : room;
    }
    n = n < 2 ? 2 : n > 1 << 20 ? 1 << 20 : n;
    h->conn = calloc(n, sizeof *h->conn);
    if (!h->conn)
        return err_nomem(e, n * sizeof *h->conn, "connections");
    h->n_conn = n;
    struct http_list *l = &h->list[HTTP_FREE];
    for (size_t i = 0; i < n; i++) {
        h->conn[i].prev = i ? &h->conn[i - 1] : NULL;
        h->conn[i].next = i + 1 < n ? &h->conn[i + 1] : NULL;
    }
    l->head = h->conn;
    l->tail = h->conn + n - 1;
    return 0;
}

static int daemon_start(struct http *h, struct err *e)
{
    struct buf cert, key;
    char said[START_TEXT] = "";
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    buf_init(&cert, PEM_MAX);
    buf_init(&key, PEM_MAX);
    int rc = 0;
    if (h->tls) {
        flags |= MHD_USE_TLS;
        if (MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
            rc = err_set(e, ERR_UNSUPPORTED,
                         "this build of libmicrohttpd has no TLS: put a proxy in front");
        if (!rc)
            rc = file_read(&cert, h->o.cert, e);
        if (!rc)
            rc = file_read(&key, h->o.key, e);
    }
    if (!rc) {
        struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, cert.data},
                                       {MHD_OPTION_HTTPS_MEM_KEY, 0, key.data},
                                       {MHD_OPTION_END, 0, NULL}};
        h->starter = pthread_self();
        h->start_text = said;
        h->daemon = MHD_start_daemon(
            flags, 0, NULL, NULL, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_log, h,
            MHD_OPTION_LISTEN_SOCKET, h->listen_fd, MHD_OPTION_CONNECTION_LIMIT,
            (unsigned)h->n_conn, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_POOL,
            MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(h->o.idle_seconds + 0.999),
            MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_URI_LOG_CALLBACK, on_target,
            h, MHD_OPTION_UNESCAPE_CALLBACK, no_unescape, h, MHD_OPTION_ARRAY,
            h->tls ? tls : tls + 2, MHD_OPTION_END);
        h->start_text = NULL;
        if (!h->daemon)
            rc = h->tls ? err_set(e, ERR_FORMAT, "%.150s, %.150s: %s", h->o.cert, h->o.key,
                                  *said ? said : "no usable certificate and key")
                        : err_set(e, ERR_IO, "the HTTP server does not start: %s", said);
        else
            h->listen_fd = -1; /* is the daemon's */
    }
    memset(key.data, 0, key.len);
    buf_release(&cert);
    buf_release(&key);
    return rc;
}

int http_new(struct http **out, const struct http_opts *o, struct err *e)
{
    *out = NULL;
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        return err_nomem(e, sizeof *h, "the HTTP server");
    h->o = *o;
    h->o.alive_seconds = o->alive_seconds > 0 ? o->alive_seconds : 10;
    h->o.head_seconds = o->head_seconds > 0 ? o->head_seconds : 10;
    h->o.idle_seconds = o->idle_seconds > 0 ? o->idle_seconds : 60;
    h->tls = o->cert || o->key;
    h->listen_fd = h->watch_fd = h->kick_fd = -1;
    atomic_store(&h->refs, 1);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    pthread_cond_init(&h->work, NULL);
    int rc = 0;
    if (!o->cert != !o->key)
        rc = err_set(e, ERR_USAGE, "TLS needs both a certificate and its key");
    if (!rc)
        rc = http_rules_load(h, e);
    if (!rc)
        rc = conns_init(h, e);
    if (!rc)
        rc = http_listen(h, e);
    if (!rc)
        rc = http_watch_start(h, e);
    if (!rc)
        rc = workers_start(h, e);
    if (!rc)
        rc = daemon_start(h, e);
    if (rc)
        http_free(h);
    else
        *out = h;
    return rc;
}

int http_port(const struct http *h)
{
    return h->port;
}

size_t http_keys(const struct http *h)
{
    return h->n_key;
}

bool http_is_local(const struct http *h)
{
    return h->local || !h->port;
}

size_t http_active(struct http *h)
{
    size_t n = 0;
    pthread_mutex_lock(&h->lock);
    for (int s = HTTP_BODY; s <= HTTP_BUSY; s++)
        for (const struct http_conn *k = h->list[s].head; k; k = k->next)
            n++;
    pthread_mutex_unlock(&h->lock);
    return n;
}

bool http_wait(struct http *h, double seconds)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    double at = (double)end.tv_sec + 1e-9 * (double)end.tv_nsec + seconds;
    end.tv_sec = (time_t)at;
    end.tv_nsec = (long)((at - (double)end.tv_sec) * 1e9);
    pthread_mutex_lock(&h->lock);
    int rc = 0;
    while ((h->list[HTTP_BUSY].head || h->list[HTTP_BODY].head) && rc != ETIMEDOUT)
        rc = pthread_cond_timedwait(&h->changed, &h->lock, &end);
    pthread_mutex_unlock(&h->lock);
    return rc != ETIMEDOUT;
}

void http_drain(struct http *h)
{
    if (atomic_exchange(&h->draining, true) || !h->daemon)
        return;
    int fd = MHD_quiesce_daemon(h->daemon);
    if (fd >= 0)
        close(fd);
    pthread_mutex_lock(&h->lock);
    for (struct http_conn *k = h->list[HTTP_IDLE].head; k; k = k->next)
        shutdown(k->fd, SHUT_RD);
    pthread_mutex_unlock(&h->lock);
}

/* Ends all exchanges: libmicrohttpd may not be stopped while connections are suspended. */
static void end_all(struct http *h)
{
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_broadcast(&h->work);
    for (struct http_conn *k; (k = h->list[HTTP_BUSY].head);) {
        struct http_exchange *x = k->x;
        http_keep(x);
        shutdown(k->fd, SHUT_RDWR);
        pthread_mutex_unlock(&h->lock);
        http_gone(x);
        pthread_mutex_lock(&h->lock);
        while (k->x == x)
            pthread_cond_wait(&h->changed, &h->lock);
        pthread_mutex_unlock(&h->lock);
        http_drop(x);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
}

void http_free(struct http *h)
{
    if (!h)
        return;
    http_drain(h);
    end_all(h);
    for (int i = 0; i < h->n_worker; i++)
        pthread_join(h->worker[i], NULL);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    h->daemon = NULL;
    http_watch_stop(h);
    if (h->listen_fd >= 0)
        close(h->listen_fd);
    if (h->unix_path)
        unlink(h->unix_path);
    http_unref(h);
}
