/*
 * HTTP/1.1 on libmicrohttpd: connections, limits, keys, CORS and Host rules; what a handler sees is
 * an exchange: a request that has arrived whole, and an answer that may come later from any thread.
 *
 * Threads. Network threads (libmicrohttpd's, with epoll) never compute and never wait: a quick
 * route is answered right there; others go to a small pool of workers (parsing, templates,
 * tokenizing). While an answer is awaited its connection is suspended; pieces of a stream go to the
 * socket from the thread that writes them. A watcher sees clients that leave, also while nothing is
 * being sent, and calls `gone`; it keeps silent connections alive (spaces before JSON and between
 * lines of NDJSON, comments in event streams) and goes on where a socket was full. A client that
 * closes its sending side while it waits has left, as for nginx and Go.
 *
 * An exchange is counted: the server holds it while the connection lives, a handler by http_keep.
 */
#ifndef PONDER_SERVER_HTTP_H
#define PONDER_SERVER_HTTP_H

#include "base/err.h"
#include "base/log.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http;
struct http_exchange;

enum http_api { HTTP_PLAIN, HTTP_OLLAMA, HTTP_OPENAI, HTTP_ANTHROPIC }; /* shape of errors */

enum http_kind {
    HTTP_QUICK, /* answered in a network thread: no model, no waiting */
    HTTP_WORK,  /* handled by the pool */
};

struct http_route {
    const char *method; /* "GET" (HEAD comes with it), "POST", "DELETE" */
    const char *path;   /* a star at the end stands for anything, slashes too */
    enum http_kind kind;
    enum http_api api;
    bool open;       /* needs no key */
    size_t body_max; /* 0: no body */
    void (*fn)(void *arg, struct http_exchange *x);
};

struct http_opts {
    const char *host;          /* "127.0.0.1", "0.0.0.0", "::1", or a path: a Unix socket */
    int port;                  /* 0: any free one (http_port) */
    int fd;                    /* a listening socket that was handed over (socket activation); -1 */
    const char *cert, *key;    /* PEM files for TLS, or NULL */
    const char *const *origin; /* further allowed origins; "*" for all */
    size_t n_origin;
    const char *const *api_key; /* in the clear; none and no file: no keys are asked for */
    size_t n_api_key;
    const char *key_file; /* lines "sha256hex [name]", or NULL */
    size_t connections;   /* at most; 0 = 4096, and what the system allows */
    int workers;          /* 0 = 4 */
    double alive_seconds; /* silence after which an answer that is awaited gives a sign; 0 = 10 */
    double head_seconds;  /* from the first byte of a request to the end of its head; 0 = 10 */
    double idle_seconds;  /* without a byte, between requests and inside of bodies; 0 = 60 */
    const struct http_route *route;
    size_t n_route;
    void *arg;             /* of handlers */
    const struct log *log; /* written by threads that must not wait: log_writer_start */
    bool access_log;
    bool ascii; /* JSON of answers without other characters: \uXXXX (http_dump) */
};

int http_new(struct http **out, const struct http_opts *o, struct err *e);
int http_port(const struct http *h);
size_t http_keys(const struct http *h);   /* that are asked for */
bool http_is_local(const struct http *h); /* bound to this machine alone */
/* Stops accepting; what runs goes on. */
void http_drain(struct http *h);
size_t http_active(struct http *h);             /* exchanges without a complete answer */
bool http_wait(struct http *h, double seconds); /* until there are none; false: time is over */
void http_free(struct http *h);                 /* ends what still runs */

/* ---- the request --------------------------------------------------------------------------- */

const char *http_method(const struct http_exchange *x);
const char *http_path(const struct http_exchange *x); /* decoded, checked, without the query */
const char *http_rest(const struct http_exchange *x); /* what the route's star stood for */
const char *http_query(const struct http_exchange *x, const char *name); /* decoded, or NULL */
const char *http_header(const struct http_exchange *x, const char *name);
const char *http_body(const struct http_exchange *x, size_t *n);
uint64_t http_owner(const struct http_exchange *x); /* of the key; 0 without keys */
const char *http_id(const struct http_exchange *x); /* X-Request-Id: the client's, or made here */
double http_started(const struct http_exchange *x); /* clock_seconds() */

/* The body as JSON: bounded depth (64) and size, duplicate keys: the last one counts; when it is
   none or no object an error of status 400 has been sent and NULL comes back. New reference. */
json_t *http_json(struct http_exchange *x);

void *http_arg(const struct http_exchange *x);

/* ---- the answer ---------------------------------------------------------------------------- */

void http_keep(struct http_exchange *x);
void http_drop(struct http_exchange *x);

/* Called once, from another thread, when the client has left before the answer was complete; at
   once when it has already. With NULL: takes it back; when this returns, `gone` does not run and
   will not be called. */
void http_on_gone(struct http_exchange *x, void (*gone)(void *arg), void *arg);

/* A header of the answer, before it begins. */
void http_set(struct http_exchange *x, const char *name, const char *value);

/* As text for an answer, which the caller frees; NULL: no memory, or no `v`. */
char *http_dump(const struct http_exchange *x, const json_t *v);

/* A complete answer. `v` is taken. */
void http_send_json(struct http_exchange *x, int status, json_t *v);
void http_send(struct http_exchange *x, int status, const char *type, const char *body, size_t n);

/* In the shape of the route's API. `type` and `code` may be NULL: made from the status. After a
   stream began: as its last event. */
void http_error(struct http_exchange *x, int status, const char *type, const char *code,
                const char *param, const char *text);
/* From a struct err: ERR_USAGE, ERR_FORMAT, ERR_LIMIT and ERR_UNSUPPORTED 400, ERR_NOTFOUND 404,
   ERR_BUSY and ERR_CANCELLED 503 with Retry-After, others 500. */
void http_error_from(struct http_exchange *x, const struct err *e);

/*
 * An answer in pieces; all three from any thread, none waits. A stream's pieces are whole events:
 * each is sent by one write where it fits. ERR_CANCELLED when the client has left, ERR_LIMIT when
 * it reads so slowly that more than 8 MiB wait (then it is cut off).
 */
enum http_stream {
    HTTP_EVENTS, /* text/event-stream; `data` is put between "data: " and an empty line */
    HTTP_NAMED,  /* the same; a piece is its event's name, a newline and the data */
    HTTP_LINES,  /* application/x-ndjson; a newline is added */
    HTTP_WHOLE,  /* application/json, one object at the end: kept alive by spaces meanwhile */
};
int http_stream(struct http_exchange *x, enum http_stream kind, struct err *e);
/* Announces such an answer, where it is not certain yet that there will be one: signs of life begin
   it when that takes long; an error before has its own status. http_stream, of this kind, or an
   error must follow. */
void http_await(struct http_exchange *x, enum http_stream kind);
int http_write(struct http_exchange *x, const char *data, size_t n, struct err *e);
void http_end(struct http_exchange *x);

/* For the access log: what the request is about (the model), between path and status. */
void http_about(struct http_exchange *x, const char *what);

/* For the access log, at the end of the line: "prompt 812 (768 cached)  answer 341 …". */
void http_note(struct http_exchange *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- counters for /metrics ------------------------------------------------------------------ */

/* Calls fn for every (handler, method, status) with its count. */
void http_counts(struct http *h,
                 void (*fn)(void *arg, const char *handler, const char *method, int status,
                            uint64_t count),
                 void *arg);

#endif
