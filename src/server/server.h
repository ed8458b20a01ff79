/*
 * The server: what its parts share. http.h carries bytes, hub.h keeps models, job.h runs requests,
 * and each API is a file of handlers with rows in route.def.
 */
#ifndef PONDER_SERVER_SERVER_H
#define PONDER_SERVER_SERVER_H

#include "server/http.h"
#include "server/hub.h"
#include "server/metrics.h"

enum server_reasoning { SERVER_REASONING_CONTENT, SERVER_REASONING, SERVER_REASONING_BOTH };
enum server_think { SERVER_THINK_AUTO, SERVER_THINK_INLINE, SERVER_THINK_OFF };

struct server_opts {
    struct http_opts http; /* without routes and arg */
    struct hub_opts hub;
    enum server_reasoning reasoning; /* name of the field in OpenAI's answers */
    enum server_think ollama_think;  /* when a request to /api/ says nothing of thinking */
    int64_t think_max;               /* default thinking budget; -1: none */
    bool think_loops;                /* close thoughts that repeat themselves */
    size_t max_tokens;               /* default of an answer; 0: what the context holds */
    size_t n_max;                    /* samples of a request, at most */
    double request_seconds;          /* wall limit of a request; 0: none */
    size_t owner_jobs;               /* at the same time for one key; 0: no bound */
    bool seed_given;
    uint64_t seed; /* of requests that give none, when seed_given; else each has its own */
    const char *chat_template; /* text that replaces the models' templates, or NULL */
};

struct server {
    struct server_opts o;
    struct http *http;
    struct hub *hub;
    struct metrics *metrics;
    struct job_desk *desk; /* job.h */
};

void server_opts_init(struct server_opts *o);
/* Listens and returns. */
int server_new(struct server **out, const struct server_opts *o, struct err *e);
/* No new connections; waits until requests have ended or `now` becomes true. */
void server_drain(struct server *s, bool (*now)(void *arg), void *arg);
void server_free(struct server *s);

#endif
