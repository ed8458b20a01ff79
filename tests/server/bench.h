/* A whole server over small models, on a port of its own: what tests over real sockets share. */
#ifndef PONDER_TESTS_SERVER_BENCH_H
#define PONDER_TESTS_SERVER_BENCH_H

#include "server/client.h"
#include "server/server.h"

struct bench {
    char *folder; /* of models "plain", "always" (it thinks) and "strict" (roles take turns) */
    struct server_opts o;
    struct server *s; /* NULL: was freed */
    int port;
    struct log log;
    char *text;
    size_t text_n, fds;
};

void bench_begin(struct bench *b, const char *const *key, size_t n_key);
/* The same with a KV cache of so many tokens; at least 1024, a context. */
void bench_begin_kv(struct bench *b, size_t tokens);
/* The same with options as `change` leaves them. */
void bench_begin_with(struct bench *b, void (*change)(struct bench *b));
/* Stops it; checks that no descriptor is left. */
void bench_end(struct bench *b);

/* `more`: header lines. */
void bench_ask(struct bench *b, const char *method, const char *path, const char *more,
               const char *body, struct reply *r);
/* Negative when the answer broke off. */
int bench_status(struct bench *b, const char *method, const char *path, const char *body);

#endif
