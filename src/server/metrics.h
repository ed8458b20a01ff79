/*
 * Counters and histograms for /metrics, in Prometheus' text format, under the names that vLLM's
 * dashboards read (`vllm:*`) with the same buckets. Any thread adds; nothing allocates when adding.
 */
#ifndef PONDER_SERVER_METRICS_H
#define PONDER_SERVER_METRICS_H

#include "base/buf.h"
#include "engine/sched.h"

struct metrics;
struct server;

int metrics_new(struct metrics **out, struct err *e);
void metrics_free(struct metrics *m);

/* A request of `model` ended. `why`: "stop", "length", "abort", "error". */
struct metrics_request {
    const char *model, *why;
    const struct request_stats *stats; /* may be NULL: refused before it ran */
    double e2e_seconds, first_seconds; /* first_seconds < 0: there was no token */
    size_t n, max_tokens;
};
void metrics_request(struct metrics *m, const struct metrics_request *r);
/* A step of `model` was computed; `m` a struct metrics. */
void metrics_step(void *m, const char *model, const struct sched_work *w);
/* A token came `seconds` after the one before it. */
void metrics_gap(struct metrics *m, const char *model, double seconds);

/* Everything as text: these, the hub's and the HTTP server's numbers. */
int metrics_write(struct server *s, struct buf *out, struct err *e);

#endif
