/*
 * Answers: what handlers call, from whatever thread.
 *
 * They fill the exchange, and http_wake lets the network thread take it from there. Only the pieces
 * of a stream would make too many wake-ups (one for each token of each client; the cores have
 * better things to do): once the head is sent and the network thread finds nothing more, it leaves
 * the connection suspended, and who writes a piece puts it into the socket at once, as a chunk of
 * its own. What the socket does not take waits in `out` until the watcher sees room. The end is the
 * network thread's again. TLS has no such way: its records are the library's.
 */
#include "server/http_private.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* ---- references ------------------------------------------------------------------------------ */

void http_keep(struct http_exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
}

static void exchange_free(struct http_exchange *x)
{
    if (x->log_later)
        http_log(x);
    atomic_fetch_sub(&x->h->bodies, x->counted);
    buf_release(&x->body);
    buf_release(&x->fields);
    buf_release(&x->out);
    buf_release(&x->piece);
    free(x->field);
    free(x->text);
    free(x->target_text);
    pthread_mutex_destroy(&x->lock);
    pthread_cond_destroy(&x->told);
    http_unref(x->h);
    free(x);
}

void http_drop(struct http_exchange *x)
{
    int refs = atomic_load(&x->refs);
    do {
        /* The one that stays is the connection's: nobody else can answer now. */
        if (refs == 2)
            http_orphan(x);
    } while (!atomic_compare_exchange_weak(&x->refs, &refs, refs - 1));
    if (refs == 1)
        exchange_free(x);
}

void http_orphan(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool open = x->c && !x->whole && !x->ended && !x->gone;
    pthread_mutex_unlock(&x->lock);
    if (open)
        http_error(x, 500, NULL, NULL, NULL, "the request was dropped without an answer");
}

/* Sends what waits; false when some of it still does. */
static bool push(struct http_exchange *x)
{
    while (x->sent < x->out.len) {
        ssize_t n = send(x->conn->fd, x->out.data + x->sent, x->out.len - x->sent,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n >= 0) {
            x->sent += (size_t)n;
            x->passed += (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            http_watch_room(x->h, x->conn);
            return false;
        } else if (errno != EINTR) {
            shutdown(x->conn->fd, SHUT_RDWR); /* the watcher will see that the client has left */
            return false;
        }
    }
    x->sent = 0;
    buf_clear(&x->out);
    return true;
}

void http_wake(struct http_exchange *x)
{
    if (!x->suspended || !x->c)
        return;
    if (x->direct && !x->gone && (!push(x) || !x->ended))
        return;
    x->suspended = false;
    MHD_resume_connection(x->c);
}

/* Calls the handler's function; the lock is held before and after, not meanwhile. */
static void gone_tell(struct http_exchange *x)
{
    void (*fn)(void *arg) = x->gone_fn;
    void *arg = x->gone_arg;
    if (!fn)
        return;
    x->gone_fn = NULL;
    x->telling = true;
    x->teller = pthread_self();
    pthread_mutex_unlock(&x->lock);
    fn(arg);
    pthread_mutex_lock(&x->lock);
    x->telling = false;
    pthread_cond_broadcast(&x->told);
}

void http_gone(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    /* After the end nobody is told; but what waits for room in the socket will find none. */
    bool ended = x->ended;
    if (!x->gone && !x->whole && (!ended || (x->direct && x->suspended))) {
        x->gone = true;
        buf_release(&x->out);
        x->sent = 0;
        http_wake(x);
        if (!ended)
            gone_tell(x);
    }
    pthread_mutex_unlock(&x->lock);
}

void http_on_gone(struct http_exchange *x, void (*gone)(void *arg), void *arg)
{
    pthread_mutex_lock(&x->lock);
    x->gone_fn = gone;
    x->gone_arg = arg;
    while (x->telling && !pthread_equal(x->teller, pthread_self()))
        pthread_cond_wait(&x->told, &x->lock);
    if (x->gone && !x->cut)
        gone_tell(x);
    pthread_mutex_unlock(&x->lock);
}

/* ---- what a request is ----------------------------------------------------------------------- */

const char *http_method(const struct http_exchange *x)
{
    return x->method;
}

const char *http_path(const struct http_exchange *x)
{
    return x->path;
}

const char *http_rest(const struct http_exchange *x)
{
    return x->rest ? x->rest : "";
}

const char *http_query(const struct http_exchange *x, const char *name)
{
    for (size_t i = 0; i < x->target.n_param; i++)
        if (!strcmp(x->target.param[i].name, name))
            return x->target.param[i].value;
    return NULL;
}

const char *http_header(const struct http_exchange *x, const char *name)
{
    for (size_t i = 0; i < x->n_field; i++)
        if (!strcasecmp(x->field[i].name, name))
            return x->field[i].value;
    return NULL;
}

const char *http_body(const struct http_exchange *x, size_t *n)
{
    if (n)
        *n = x->body.len;
    return x->body.data;
}

uint64_t http_owner(const struct http_exchange *x)
{
    return x->owner;
}

const char *http_id(const struct http_exchange *x)
{
    return x->id;
}

double http_started(const struct http_exchange *x)
{
    return x->started;
}

void *http_arg(const struct http_exchange *x)
{
    return x->h->o.arg;
}

/*
 * JSON as clients write it, beyond what jansson takes: whole numbers outside of 64 bits become
 * floats; U+0000 in the name of a member (which nothing here is called) becomes U+FFFD, and with it
 * all of this text. In values it stays.
 */
static json_t *json_take(const char *s, size_t n, json_error_t *bad)
{
    size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL;
    char *copy = NULL;
    json_t *v = json_loadb(s, n, flags, bad);
    for (int tries = 0; tries < 2 && !v; tries++) {
        if (json_error_code(bad) == json_error_numeric_overflow) {
            flags |= JSON_DECODE_INT_AS_REAL;
        } else if (json_error_code(bad) == json_error_null_byte_in_key && !copy) {
            copy = malloc(n);
            if (!copy)
                break;
            memcpy(copy, s, n);
            for (size_t i = 0; i + 6 <= n; i++)
                if (copy[i] == '\\' && !memcmp(copy + i, "\\u0000", 6))
                    memcpy(copy + i, "\\ufffd", 6);
                else if (copy[i] == '\\')
                    i++; /* what is escaped begins nothing */
        } else {
            break;
        }
        v = json_loadb(copy ? copy : s, n, flags, bad);
    }
    free(copy);
    return v;
}

json_t *http_json(struct http_exchange *x)
{
    struct err e = {0};
    json_error_t bad;
    const char *s = x->body.data;
    size_t n = x->body.len;
    if (n >= 3 && !memcmp(s, "\xef\xbb\xbf", 3)) { /* a byte order mark */
        s += 3;
        n -= 3;
    }
    if (n == 0)
        err_set(&e, ERR_FORMAT, "the body is empty: it must be a JSON object");
    else if (!utf8_valid(s, n))
        err_set(&e, ERR_FORMAT, "the body is not UTF-8");
    else
        http_json_bounds(s, n, &e);
    if (!e.code) {
        json_t *v = json_take(s, n, &bad);
        if (json_is_object(v))
            return v;
        if (v)
            err_set(&e, ERR_FORMAT, "the body must be a JSON object");
        else
            err_set(&e, ERR_FORMAT, "the body is not JSON: %.200s (line %d, column %d)", bad.text,
                    bad.line, bad.column);
        json_decref(v);
    }
    http_error(x, 400, NULL, NULL, NULL, e.text);
    return NULL;
}

/* ---- answers in one piece -------------------------------------------------------------------- */

void http_set(struct http_exchange *x, const char *name, const char *value)
{
    pthread_mutex_lock(&x->lock);
    if (!x->begun && !x->whole && http_is_token(name, strlen(name)) &&
        http_is_value(value, strlen(value)) &&
        !buf_append(&x->fields, name, strlen(name) + 1, NULL) &&
        buf_append(&x->fields, value, strlen(value) + 1, NULL))
        x->fields.len -= strlen(name) + 1; /* both or none */
    pthread_mutex_unlock(&x->lock);
}

/* Whether an answer may be begun; takes the lock if so. */
static bool answer_begin(struct http_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (!x->whole && !x->stream && !x->gone && !x->ended)
        return true;
    pthread_mutex_unlock(&x->lock);
    return false;
}

void http_send(struct http_exchange *x, int status, const char *type, const char *body, size_t n)
{
    if (!answer_begin(x))
        return;
    buf_clear(&x->out);
    x->status = buf_append(&x->out, body, n, NULL) ? 500 : status;
    snprintf(x->type, sizeof x->type, "%s", type ? type : "");
    x->whole = true;
    http_wake(x);
    pthread_mutex_unlock(&x->lock);
}

char *http_dump(const struct http_exchange *x, const json_t *v)
{
    return v ? json_dumps(v, JSON_COMPACT | JSON_REAL_PRECISION(15) |
                                 (x->h->o.ascii ? JSON_ENSURE_ASCII : 0))
             : NULL;
}

void http_send_json(struct http_exchange *x, int status, json_t *v)
{
    char *text = http_dump(x, v);
    if (text)
        http_send(x, status, "application/json", text, strlen(text));
    else
        http_error(x, 500, NULL, NULL, NULL, "no memory for the answer");
    free(text);
    json_decref(v);
}

/* What a status is called where nothing better is known. */
static void error_words(int status, const char **type, const char **code)
{
    static const struct {
        int status;
        const char *type, *code;
    } rows[] = {
        {400, "invalid_request_error", "invalid_request_error"},
        {401, "authentication_error", "invalid_api_key"},
        {403, "permission_error", "forbidden"},
        {404, "not_found_error", "not_found"},
        {405, "invalid_request_error", "method_not_allowed"},
        {413, "invalid_request_error", "request_too_large"},
        {415, "invalid_request_error", "unsupported_media_type"},
        {422, "invalid_request_error", "invalid_parameter"},
        {429, "rate_limit_error", "rate_limit_exceeded"},
        {501, "not_implemented_error", "not_implemented"},
        {503, "overloaded_error", "overloaded"},
        {504, "timeout_error", "timeout"},
    };
    const char *t = status < 500 ? "invalid_request_error" : "server_error";
    const char *c = status < 500 ? "invalid_request_error" : "internal_error";
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].status == status) {
            t = rows[i].type;
            c = rows[i].code;
        }
    *type = *type ? *type : t;
    *code = *code ? *code : c;
}

static json_t *error_json(const struct http_exchange *x, const char *type, const char *code,
                          const char *param, const char *text)
{
    switch (x->api) {
    case HTTP_OPENAI:
        return json_pack("{s{ss ss ss? ss}}", "error", "message", text, "type", type, "param",
                         param, "code", code);
    case HTTP_ANTHROPIC:
        return json_pack("{ss s{ss ss} ss}", "type", "error", "error", "type", type, "message",
                         text, "request_id", x->id);
    default:
        return json_pack("{ss}", "error", text);
    }
}

/* A copy whose bytes are all UTF-8: texts of errors quote what came from outside. */
static void text_clean(char *out, size_t cap, const char *s)
{
    size_t n = strlen(s), used = 0;
    while (n && used + 4 < cap) {
        uint32_t cp;
        size_t took = utf8_next(s, n, &cp, NULL);
        used += utf8_put(out + used, cp);
        s += took;
        n -= took;
    }
    out[used] = 0;
}

/* The last event of a stream; where events have names, this one's is "error". */
static int http_write_error(struct http_exchange *x, const char *body, struct err *e)
{
    struct buf named;
    if (x->kind != HTTP_NAMED)
        return http_write(x, body, strlen(body), e);
    buf_init(&named, 4 * ERR_TEXT_MAX);
    int rc = buf_printf(&named, e, "error\n%s", body);
    if (!rc)
        rc = http_write(x, named.data, named.len, e);
    buf_release(&named);
    return rc;
}

/* The reason into the log's line, behind what was noted before; on one line whatever it quotes. */
static void note_reason(struct http_exchange *x, const char *text)
{
    pthread_mutex_lock(&x->lock);
    size_t n = strlen(x->note), cap = sizeof x->note;
    snprintf(x->note + n, cap - n, "%s%s", n ? "  " : "", text);
    n = strlen(x->note);
    n -= utf8_incomplete(x->note, n);
    x->note[n] = 0;
    for (unsigned char *s = (unsigned char *)x->note; *s; s++)
        if (*s < ' ' || *s == 0x7f)
            *s = ' ';
        else if (*s == 0xc2 && s[1] < 0xa0) /* U+0080 to U+009F control terminals too */
            s[0] = s[1] = ' ';
    pthread_mutex_unlock(&x->lock);
}

void http_error(struct http_exchange *x, int status, const char *type, const char *code,
                const char *param, const char *text)
{
    char clean[2 * ERR_TEXT_MAX];
    struct err e;
    text_clean(clean, sizeof clean, text);
    note_reason(x, clean);
    error_words(status, &type, &code);
    json_t *v = error_json(x, type, code, param, clean);
    char *s = http_dump(x, v);
    const char *body = s ? s : "{\"error\":\"no memory\"}";
    json_decref(v);
    pthread_mutex_lock(&x->lock);
    bool late = x->begun;
    /* What was only announced may still become an error. */
    if (!late && !x->ended)
        x->stream = false;
    pthread_mutex_unlock(&x->lock);
    if (!late) {
        http_send(x, status, "application/json", body, strlen(body));
    } else if (!http_write_error(x, body, &e)) {
        http_end(x);
    }
    free(s);
}

void http_error_from(struct http_exchange *x, const struct err *e)
{
    int status = 500;
    switch (e->code) {
    case ERR_USAGE:
    case ERR_FORMAT:
    case ERR_LIMIT:
    case ERR_UNSUPPORTED: /* what this model can't do; others may */
        status = 400;
        break;
    case ERR_NOTFOUND:
        status = 404;
        break;
    case ERR_BUSY:
    case ERR_CANCELLED: /* not by the client: it stops, or unloads the model */
        status = 503;
        http_set(x, "Retry-After", "2");
        break;
    }
    http_error(x, status, NULL, NULL, NULL, e->text);
}

/* ---- answers in pieces ----------------------------------------------------------------------- */

static int stream_open(struct http_exchange *x, struct err *e)
{
    pthread_mutex_lock(&x->lock);
    if (!x->gone && !x->ended && x->stream)
        return 0;
    pthread_mutex_unlock(&x->lock);
    return err_set(e, ERR_CANCELLED, "the client has left");
}

/* Makes the answer a stream, of which nothing has to go out yet; takes the lock if it could. */
static int stream_take(struct http_exchange *x, enum http_stream kind, struct err *e)
{
    static const char *const types[] = {
        [HTTP_EVENTS] = "text/event-stream",
        [HTTP_NAMED] = "text/event-stream",
        [HTTP_LINES] = "application/x-ndjson",
        [HTTP_WHOLE] = "application/json",
    };
    if (kind != HTTP_WHOLE) {
        http_set(x, "Cache-Control", "no-cache");
        http_set(x, "X-Accel-Buffering", "no"); /* nginx would keep pieces back */
    }
    if (!answer_begin(x))
        return err_set(e, ERR_CANCELLED, "the client has left");
    x->stream = true;
    x->kind = kind;
    x->status = 200;
    x->silent = clock_seconds();
    buf_clear(&x->out);
    snprintf(x->type, sizeof x->type, "%s", types[kind]);
    return 0;
}

void http_await(struct http_exchange *x, enum http_stream kind)
{
    if (stream_take(x, kind, NULL))
        return;
    x->announced = true;
    pthread_mutex_unlock(&x->lock);
}

int http_stream(struct http_exchange *x, enum http_stream kind, struct err *e)
{
    pthread_mutex_lock(&x->lock);
    bool announced = x->announced && x->kind == kind;
    x->announced = false;
    pthread_mutex_unlock(&x->lock);
    int rc = announced ? stream_open(x, e) : stream_take(x, kind, e);
    if (rc)
        return rc;
    /* One object may still turn into an error with its status, while nothing has gone out. */
    if (kind != HTTP_WHOLE && !x->begun) {
        x->begun = true;
        http_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
    return 0;
}

/* A piece in the stream's form. */
static int put_form(struct buf *out, enum http_stream kind, const char *data, size_t n,
                    struct err *e)
{
    static const char event[] = "event: ", mark[] = "data: ";
    bool events = kind == HTTP_EVENTS || kind == HTTP_NAMED;
    const char *line = kind == HTTP_NAMED ? memchr(data, '\n', n) : NULL;
    size_t head = line ? (size_t)(line + 1 - data) : 0;
    int rc = line ? buf_append(out, event, sizeof event - 1, e) : 0;
    if (!rc)
        rc = buf_append(out, data, head, e);
    if (!rc && events)
        rc = buf_append(out, mark, sizeof mark - 1, e);
    if (!rc)
        rc = buf_append(out, data + head, n - head, e);
    if (!rc && kind != HTTP_WHOLE)
        rc = buf_puts(out, events ? "\n\n" : "\n", e);
    return rc;
}

static int put_chunk(struct buf *out, const char *data, size_t n, struct err *e)
{
    char head[24];
    size_t h = (size_t)snprintf(head, sizeof head, "%zx\r\n", n);
    int rc = buf_reserve(out, h + n + 2, e);
    if (!rc)
        rc = buf_append(out, head, h, e);
    if (!rc)
        rc = buf_append(out, data, n, e);
    return rc ? rc : buf_append(out, "\r\n", 2, e);
}

/* Appends a piece; as chunks where nobody else will make them: of a long one several, since some
   clients take a chunk for a text. */
static int put_piece(struct http_exchange *x, const char *data, size_t n, struct err *e)
{
    if (!x->direct || !x->chunked)
        return put_form(&x->out, x->kind, data, n, e);
    buf_clear(&x->piece);
    int rc = put_form(&x->piece, x->kind, data, n, e);
    for (size_t at = 0; at < x->piece.len && !rc;) {
        const char *from = x->piece.data + at;
        size_t left = x->piece.len - at;
        size_t take = left > HTTP_BLOCK ? http_cut(from, left, HTTP_BLOCK) : left;
        rc = put_chunk(&x->out, from, take, e);
        at += take;
    }
    return rc;
}

/* Gives back the room of what was sent, when that is at least as much as what is moved for it: else
   a client that always has something to read would let `out` grow without end. */
static void out_compact(struct http_exchange *x)
{
    size_t left = x->out.len - x->sent;
    if (!x->sent || x->sent < left)
        return;
    memmove(x->out.data, x->out.data + x->sent, left);
    x->out.len = left;
    x->sent = 0;
}

int http_write(struct http_exchange *x, const char *data, size_t n, struct err *e)
{
    int rc = stream_open(x, e);
    if (rc)
        return rc;
    if (x->kind != HTTP_WHOLE && x->out.len - x->sent + n > HTTP_PENDING_MAX) {
        rc = err_set(e, ERR_LIMIT, "the client reads too slowly: more than %d MiB wait for it",
                     HTTP_PENDING_MAX >> 20);
    }
    out_compact(x);
    if (!rc)
        rc = put_piece(x, data, n, e);
    if (rc) { /* a piece that is not whole must not go out; the caller knows, so nobody is told */
        x->gone = x->cut = true;
        buf_release(&x->out);
        x->sent = 0;
    }
    x->silent = clock_seconds();
    if (x->begun || x->gone)
        http_wake(x);
    pthread_mutex_unlock(&x->lock);
    return rc;
}

void http_end(struct http_exchange *x)
{
    if (stream_open(x, NULL))
        return;
    if (x->begun)
        x->ended = true;
    else
        x->whole = true;
    http_wake(x);
    pthread_mutex_unlock(&x->lock);
}

/* A client that takes nothing for as long as it may be silent is cut off, as the library does it
   where it sends itself. */
static void stuck_check(struct http_exchange *x, double now)
{
    if (x->sent == x->out.len || x->passed != x->passed_then) {
        x->passed_then = x->passed;
        x->moved = now;
    } else if (!x->gone && !x->stuck && now - x->moved > x->h->o.idle_seconds) {
        x->stuck = true;
        shutdown(x->conn->fd, SHUT_RDWR); /* the watcher will see it */
    }
}

void http_alive(struct http_exchange *x, double now)
{
    static const char *const signs[] = {
        [HTTP_EVENTS] = ": keep-alive\n\n",
        [HTTP_NAMED] = ": keep-alive\n\n",
        [HTTP_LINES] = " ",
        [HTTP_WHOLE] = " ",
    };
    pthread_mutex_lock(&x->lock);
    if (x->direct && x->suspended)
        stuck_check(x, now);
    bool waits = x->stream && !x->whole && !x->ended && !x->gone;
    if (waits && now - x->silent >= x->h->o.alive_seconds && x->sent == x->out.len) {
        buf_clear(&x->out);
        x->sent = 0;
        if (x->direct && x->chunked)
            (void)put_chunk(&x->out, signs[x->kind], strlen(signs[x->kind]), NULL);
        else
            buf_puts(&x->out, signs[x->kind], NULL);
        x->begun = true;
        x->silent = now;
        http_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

/* ---- for the log ----------------------------------------------------------------------------- */

void http_about(struct http_exchange *x, const char *what)
{
    pthread_mutex_lock(&x->lock);
    snprintf(x->about, sizeof x->about, "%s", what);
    pthread_mutex_unlock(&x->lock);
}

void http_note(struct http_exchange *x, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&x->lock);
    vsnprintf(x->note, sizeof x->note, fmt, ap);
    pthread_mutex_unlock(&x->lock);
    va_end(ap);
}
