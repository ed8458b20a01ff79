/* See bench_sched.h. */
#include "cli/bench_sched.h"

#include "base/clock.h"
#include "engine/sched.h"

#include <stdatomic.h>
#include <stdlib.h>

/* What all requests tell, some of them at the same time. */
struct bench_tally {
    atomic_size_t prompts, tokens, text;
    struct err err;
};

struct bench_client {
    struct bench_tally *tally;
    struct request *handle;
};

static void bench_event(void *arg, const struct request_event *ev)
{
    struct bench_client *c = arg;
    if (ev->kind == REQUEST_PROMPT)
        atomic_fetch_add(&c->tally->prompts, 1);
    if (ev->kind == REQUEST_PIECE || ev->kind == REQUEST_SAMPLE) {
        atomic_fetch_add(&c->tally->tokens, ev->n_info);
        atomic_fetch_add(&c->tally->text, ev->n);
    }
    if (ev->kind == REQUEST_FAILED)
        c->tally->err = *ev->error;
    if (ev->kind == REQUEST_FAILED || ev->kind == REQUEST_DONE)
        request_free(c->handle);
}

static int bench_requests(struct sched *s, struct engine *g, struct bench_client *c,
                          const int32_t *ids, size_t depth, size_t n, size_t sequences,
                          struct err *e)
{
    int rc = 0;
    for (size_t q = 0; q < sequences && !rc; q++) {
        struct request_params p;
        request_params_init(&p);
        engine_sampling(g, &p.sampling);
        p.sampling.seed = q;
        p.prompt = ids + q;
        p.n_prompt = depth ? depth : 1;
        p.answer.max_tokens = n;
        p.answer.ignore_end = p.answer.special = p.answer.raw = true;
        p.event = bench_event;
        p.arg = &c[q];
        rc = sched_submit(s, &p, &c[q].handle, e);
    }
    return rc;
}

int bench_sched(struct engine *g, const int32_t *ids, size_t depth, size_t n, size_t sequences,
                double *rate, struct err *e)
{
    struct bench_tally tally = {.err.code = 0};
    struct bench_client *c = calloc(sequences, sizeof *c);
    struct sched *s = NULL;
    struct sched_opts o;
    sched_opts_init(&o);
    o.seqs = o.queue = sequences;
    o.prefix = false;
    int rc = c ? sched_new(&s, g, &o, e) : err_nomem(e, sequences * sizeof *c, "requests");
    for (size_t q = 0; q < sequences && !rc; q++)
        c[q].tally = &tally;
    rc = rc ? rc : bench_requests(s, g, c, ids, depth, n, sequences, e);
    double begin = 0;
    size_t before = 0;
    for (bool idle = false; !idle && !rc;) {
        rc = sched_step(s, &idle, e);
        if (begin == 0 && tally.prompts == sequences) {
            begin = clock_seconds();
            before = tally.tokens;
        }
    }
    if (!rc && tally.err.code) {
        *e = tally.err;
        rc = e->code;
    }
    double took = clock_seconds() - begin;
    *rate = took > 0 ? (double)(tally.tokens - before) / took : 0;
    sched_free(s);
    free(c);
    return rc;
}
