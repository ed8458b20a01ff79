/*
 * An HTTP server with handlers that a test drives: POST /v1/job, /api/job and /job wait for what
 * the test says with job_take; the other routes answer by themselves.
 */
#ifndef PONDER_TESTS_SERVER_HTTP_FIXTURE_H
#define PONDER_TESTS_SERVER_HTTP_FIXTURE_H

#include "server/client.h"
#include "server/http.h"

#include <pthread.h>

struct fixture {
    struct http *http;
    int port;
    struct log log;
    char *log_text;
    size_t log_n;
    size_t fds; /* when it began */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct http_exchange *job; /* not yet taken */
    int gone;                  /* how many were told that their client left */
    int quick;                 /* requests that /quick has answered */
};

extern const struct http_opts fixture_opts; /* routes, short times */
void fixture_start(struct fixture *f, const struct http_opts *o);
/* Stops it; checks that no descriptor and no exchange is left. */
void fixture_stop(struct fixture *f);

/* The exchange of the next job, once it has arrived; NULL after 10 s. Give it back by http_drop. */
struct http_exchange *job_take(struct fixture *f);
/* Waits until `n` clients have left; false after `seconds`. */
bool job_gone(struct fixture *f, int n, double seconds);
/* Waits until http_active is `n`; false after 10 s. */
bool active_is(struct fixture *f, size_t n);
void nap(double seconds);
double seconds_now(void);
size_t count_fds(void);

#endif
