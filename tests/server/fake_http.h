/*
 * http.h without a network, for tests of handlers and jobs: a request is an object made by the
 * test, and what is written to it is kept. Defines what http.c and metrics.c would.
 */
#ifndef PONDER_TESTS_SERVER_FAKE_HTTP_H
#define PONDER_TESTS_SERVER_FAKE_HTTP_H

#include "base/buf.h"
#include "server/job.h"
#include "server/server.h"

#include <pthread.h>

struct http_exchange {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    json_t *body;
    char *rest;
    uint64_t owner;
    double started;
    int refs, status;
    enum http_stream kind;
    bool stream, ended, left, telling;
    pthread_t teller;
    struct buf out; /* body, or pieces as they would go out: "data: …\n\n", "…\n" */
    char note[200];
    int events;      /* pieces written */
    int leave_after; /* > 0: the client leaves when that many pieces were written */
    void (*gone)(void *arg);
    void *gone_arg;
};

/* What metrics were told; "why" of the last request. */
struct fake_metrics {
    int requests, gaps;
    char why[32];
};

/* A server of the models in `folder`, without HTTP. */
struct server *fake_server(const char *folder, const struct server_opts *more);
void fake_stop(struct server *s);
struct fake_metrics fake_counts(const struct server *s);

/* A request with this body (JSON text; NULL: none), handed to fn. Free with fake_free. */
struct http_exchange *fake_send(struct server *s, void (*fn)(void *arg, struct http_exchange *x),
                                const char *body, ...) __attribute__((format(printf, 3, 4)));
/* Waits for the end of the answer. */
void fake_wait(struct http_exchange *x);
void fake_leave(struct http_exchange *x); /* the client goes */
void fake_free(struct http_exchange *x);

/* fake_send and fake_wait; the answer as JSON, status in *status. New reference. */
json_t *fake_ask(struct server *s, void (*fn)(void *arg, struct http_exchange *x), int *status,
                 const char *body, ...) __attribute__((format(printf, 4, 5)));

#endif
