/* See rollout.h. */
#include "train/rollout.h"

#include "base/buf.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

enum { ROLLOUT_STREAM = 0x726f6c6c };

struct rollout {
    struct rollout_opts o;
    struct many *many;
    struct rollout_group *group; /* (room) */
    struct many_prompt *prompt;  /* (room) */
    size_t room;
};

int rollout_new(struct rollout **out, const struct rollout_opts *o, struct err *e)
{
    *out = NULL;
    struct rollout *r = calloc(1, sizeof *r);
    if (!r)
        return err_nomem(e, sizeof *r, "rollouts");
    r->o = *o;
    struct many_opts mo = {.engine = o->engine,
                           .seqs = o->seqs,
                           .n = o->generations,
                           .max_tokens = o->longest,
                           .policy = true,
                           .ignore_end = o->ignore_end};
    sampler_params_init(&mo.sampling);
    mo.sampling.temperature = o->temperature;
    int rc = many_new(&r->many, &mo, e);
    if (rc) {
        rollout_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

void rollout_free(struct rollout *r)
{
    if (!r)
        return;
    many_free(r->many);
    free(r->group);
    free(r->prompt);
    free(r);
}

/* Samples of a prompt draw from streams seed, seed + 1, …: far apart for different prompts. */
static uint64_t rollout_seed(const struct rollout *r, uint64_t step, size_t g)
{
    uint32_t w[4];
    rng_block(r->o.seed ^ step << 20, ROLLOUT_STREAM, g, w);
    return (uint64_t)w[0] << 32 | w[1];
}

/* ---- between ranks --------------------------------------------------------------------------- */

static void rank_part(const struct comm *c, size_t n, int rank, size_t *from, size_t *to)
{
    *from = n * (size_t)rank / (size_t)comm_size(c);
    *to = n * (size_t)(rank + 1) / (size_t)comm_size(c);
}

/* Completions as bytes: for each its length, then ids, logp, entropy. */
static int rollout_pack(const struct many_sample *s, size_t n, struct buf *out, struct err *e)
{
    int rc = 0;
    for (size_t k = 0; !rc && k < n; k++) {
        uint32_t len = (uint32_t)s[k].n;
        rc = buf_append(out, &len, sizeof len, e);
        rc = rc ? rc : buf_append(out, s[k].ids, len * sizeof *s[k].ids, e);
        rc = rc ? rc : buf_append(out, s[k].logp, len * sizeof *s[k].logp, e);
        rc = rc ? rc : buf_append(out, s[k].entropy, len * sizeof *s[k].entropy, e);
    }
    return rc;
}

static int rollout_unpack(struct rollout *r, size_t from, size_t to, const char *p, size_t bytes,
                          struct err *e)
{
    size_t at = 0;
    int rc = 0;
    for (size_t k = from * r->o.generations; !rc && k < to * r->o.generations; k++) {
        uint32_t n;
        if (bytes - at < sizeof n)
            return err_set(e, ERR_FORMAT, "completions of another rank are damaged");
        memcpy(&n, p + at, sizeof n);
        at += sizeof n;
        size_t run = n * sizeof(float);
        if (n > r->o.longest || bytes - at < 3 * run)
            return err_set(e, ERR_FORMAT, "completions of another rank are damaged");
        const char *q = p + at; /* lengths and arrays are of four bytes each: aligned */
        rc = many_put(r->many, k, (const int32_t *)(const void *)q,
                      (const float *)(const void *)(q + run),
                      (const float *)(const void *)(q + 2 * run), n, e);
        at += 3 * run;
    }
    return rc;
}

static int rollout_share(struct rollout *r, size_t n, struct many_sample **sample, struct err *e)
{
    struct comm *c = r->o.comm;
    struct buf mine;
    size_t from, to, bytes[COMM_MAX], at = 0;
    void *all = NULL;
    if (comm_size(c) == 1)
        return 0;
    buf_init(&mine, SIZE_MAX / 2);
    rank_part(c, n, comm_rank(c), &from, &to);
    int rc = rollout_pack(*sample, (to - from) * r->o.generations, &mine, e);
    rc = rc ? rc : comm_all(c, mine.data, mine.len, &all, bytes, e);
    rc = rc ? rc : many_room(r->many, n, e);
    for (int k = 0; !rc && k < comm_size(c); k++) {
        rank_part(c, n, k, &from, &to);
        rc = rollout_unpack(r, from, to, (const char *)all + at, bytes[k], e);
        at += bytes[k];
    }
    free(all);
    buf_release(&mine);
    return rc ? rc : many_texts(r->many, n, sample, e);
}

int rollout_run(struct rollout *r, const struct data_seq *prompt, size_t n, uint64_t step,
                bool (*tick)(void *arg, size_t done, size_t all), void *arg,
                struct rollout_group **out, struct err *e)
{
    size_t from, to;
    struct many_sample *sample = NULL;
    if (n > r->room) {
        free(r->group);
        free(r->prompt);
        r->room = 0;
        r->group = calloc(n, sizeof *r->group);
        r->prompt = calloc(n, sizeof *r->prompt);
        if (!r->group || !r->prompt)
            return err_nomem(e, n * sizeof *r->group, "prompts");
        r->room = n;
    }
    for (size_t i = 0; i < n; i++)
        r->prompt[i] = (struct many_prompt){prompt[i].ids, prompt[i].n, rollout_seed(r, step, i)};
    rank_part(r->o.comm, n, comm_rank(r->o.comm), &from, &to);
    int rc = many_run(r->many, r->prompt + from, to - from, tick, arg, &sample, e);
    rc = rc ? rc : rollout_share(r, n, &sample, e);
    for (size_t i = 0; i < n; i++)
        r->group[i] = (struct rollout_group){&prompt[i], sample + i * r->o.generations};
    *out = r->group;
    return rc;
}
