/* See rollout.h. */
#include "train/rollout.h"

#include "base/buf.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/sched.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { ROLLOUT_STREAM = 0x726f6c6c, ROLLOUT_TEXT_MAX = 1 << 30 };

/* A prompt while it is answered. */
struct rollout_job {
    struct rollout *r;
    struct request *request;
    size_t group;
};

struct rollout {
    struct rollout_opts o;
    struct sched *sched;
    /* Of the groups of a run; sample k of group g has place g × G + k. */
    struct rollout_group *group;
    struct rollout_sample *sample;
    struct rollout_job *job;
    int32_t *ids;          /* (places, longest) */
    float *logp, *entropy; /* the same */
    size_t room;           /* groups */
    struct buf text;
    _Atomic size_t done; /* completions */
    _Atomic size_t left; /* requests */
    struct err failed;   /* of the first that did */
    _Atomic int failures;
};

int rollout_new(struct rollout **out, const struct rollout_opts *o, struct err *e)
{
    *out = NULL;
    struct rollout *r = calloc(1, sizeof *r);
    if (!r)
        return err_nomem(e, sizeof *r, "rollouts");
    r->o = *o;
    buf_init(&r->text, ROLLOUT_TEXT_MAX);
    struct sched_opts so;
    sched_opts_init(&so);
    so.seqs = o->seqs;
    so.queue = 1 << 20;
    so.step_seconds = 3600; /* nobody is waiting for a next word */
    so.prefix = false;      /* weights change between runs: nothing may be kept */
    int rc = sched_new(&r->sched, o->engine, &so, e);
    if (rc) {
        rollout_free(r);
        return rc;
    }
    *out = r;
    return 0;
}

static void rollout_forget(struct rollout *r)
{
    free(r->group);
    free(r->sample);
    free(r->job);
    free(r->ids);
    free(r->logp);
    free(r->entropy);
    r->group = NULL;
    r->sample = NULL;
    r->job = NULL;
    r->ids = NULL;
    r->logp = r->entropy = NULL;
    r->room = 0;
}

void rollout_free(struct rollout *r)
{
    if (!r)
        return;
    sched_free(r->sched);
    rollout_forget(r);
    buf_release(&r->text);
    free(r);
}

static int rollout_room(struct rollout *r, size_t n, struct err *e)
{
    size_t places, tokens;
    if (n <= r->room)
        return 0;
    rollout_forget(r);
    if (!num_mul(&places, n, r->o.generations) || !num_mul(&tokens, places, r->o.longest))
        return err_set(e, ERR_LIMIT, "%zu prompts are too many", n);
    r->group = calloc(n, sizeof *r->group);
    r->job = calloc(n, sizeof *r->job);
    r->sample = calloc(places, sizeof *r->sample);
    r->ids = calloc(tokens, sizeof *r->ids);
    r->logp = calloc(tokens, sizeof *r->logp);
    r->entropy = calloc(tokens, sizeof *r->entropy);
    if (!r->group || !r->job || !r->sample || !r->ids || !r->logp || !r->entropy)
        return err_nomem(e, tokens * 12, "completions; give a smaller --max-completion-length");
    r->room = n;
    return 0;
}

/* ---- sampling -------------------------------------------------------------------------------- */

static void rollout_event(void *arg, const struct request_event *ev)
{
    struct rollout_job *j = arg;
    struct rollout *r = j->r;
    size_t place = j->group * r->o.generations + ev->sample;
    struct rollout_sample *s = &r->sample[place];
    switch (ev->kind) {
    case REQUEST_CHOSEN:
        if (s->n == r->o.longest)
            break;
        r->ids[place * r->o.longest + s->n] = ev->id;
        r->logp[place * r->o.longest + s->n] = ev->logprob;
        r->entropy[place * r->o.longest + s->n++] = ev->entropy;
        break;
    case REQUEST_SAMPLE:
        atomic_fetch_add(&r->done, 1);
        break;
    case REQUEST_FAILED:
        if (atomic_fetch_add(&r->failures, 1) == 0)
            r->failed = *ev->error;
        atomic_fetch_sub(&r->left, 1);
        break;
    case REQUEST_DONE:
        atomic_fetch_sub(&r->left, 1);
        break;
    default:
        break;
    }
}

/* Samples of a prompt draw from streams seed, seed + 1, …: far apart for different prompts. */
static uint64_t rollout_seed(const struct rollout *r, uint64_t step, size_t g)
{
    uint32_t w[4];
    rng_block(r->o.seed ^ step << 20, ROLLOUT_STREAM, g, w);
    return (uint64_t)w[0] << 32 | w[1];
}

static int rollout_submit(struct rollout *r, const struct data_seq *prompt, size_t g, uint64_t step,
                          struct err *e)
{
    struct request_params p;
    request_params_init(&p);
    sampler_params_init(&p.sampling);
    answer_params_init(&p.answer);
    p.prompt = prompt->ids;
    p.n_prompt = prompt->n;
    p.sampling.temperature = r->o.temperature;
    p.sampling.seed = rollout_seed(r, step, g);
    p.answer.max_tokens = r->o.longest;
    p.answer.ignore_end = r->o.ignore_end;
    p.answer.raw = true;
    p.n = r->o.generations;
    p.policy = true;
    p.event = rollout_event;
    r->job[g] = (struct rollout_job){.r = r, .group = g};
    p.arg = &r->job[g];
    int rc = sched_submit(r->sched, &p, &r->job[g].request, e);
    if (!rc)
        atomic_fetch_add(&r->left, 1);
    return rc;
}

static int rollout_work(struct rollout *r, size_t all,
                        bool (*tick)(void *arg, size_t done, size_t all), void *arg, struct err *e)
{
    int rc = 0;
    bool idle = false, stopped = false;
    while (!rc && atomic_load(&r->left)) {
        rc = sched_step(r->sched, &idle, e);
        if (!rc && tick && !stopped && !tick(arg, atomic_load(&r->done), all)) {
            stopped = true;
            for (size_t g = 0; g < r->room; g++)
                if (r->job[g].request)
                    request_cancel(r->job[g].request);
        }
    }
    if (!rc && stopped)
        return err_set(e, ERR_CANCELLED, "stopped while sampling");
    if (!rc && atomic_load(&r->failures)) {
        *e = r->failed;
        return err_ctx(e, "sampling");
    }
    return rc;
}

/* ---- between ranks --------------------------------------------------------------------------- */

static void rank_part(const struct comm *c, size_t n, int rank, size_t *from, size_t *to)
{
    *from = n * (size_t)rank / (size_t)comm_size(c);
    *to = n * (size_t)(rank + 1) / (size_t)comm_size(c);
}

/* Completions of groups [from, to) as bytes: for each its length, then ids, logp, entropy. */
static int rollout_pack(const struct rollout *r, size_t from, size_t to, struct buf *out,
                        struct err *e)
{
    int rc = 0;
    size_t g = r->o.generations;
    for (size_t k = from * g; !rc && k < to * g; k++) {
        uint32_t n = (uint32_t)r->sample[k].n;
        size_t at = k * r->o.longest;
        rc = buf_append(out, &n, sizeof n, e);
        rc = rc ? rc : buf_append(out, r->ids + at, n * sizeof *r->ids, e);
        rc = rc ? rc : buf_append(out, r->logp + at, n * sizeof *r->logp, e);
        rc = rc ? rc : buf_append(out, r->entropy + at, n * sizeof *r->entropy, e);
    }
    return rc;
}

static int rollout_unpack(struct rollout *r, size_t from, size_t to, const char *p, size_t bytes,
                          struct err *e)
{
    size_t g = r->o.generations, at = 0;
    for (size_t k = from * g; k < to * g; k++) {
        uint32_t n;
        if (bytes - at < sizeof n)
            goto bad;
        memcpy(&n, p + at, sizeof n);
        at += sizeof n;
        size_t run = n * sizeof(float), place = k * r->o.longest;
        if (n > r->o.longest || bytes - at < 3 * run)
            goto bad;
        memcpy(r->ids + place, p + at, run);
        memcpy(r->logp + place, p + at + run, run);
        memcpy(r->entropy + place, p + at + 2 * run, run);
        at += 3 * run;
        r->sample[k].n = n;
    }
    return 0;
bad:
    return err_set(e, ERR_FORMAT, "completions of another rank are damaged");
}

static int rollout_share(struct rollout *r, size_t n, struct err *e)
{
    struct comm *c = r->o.comm;
    struct buf mine;
    size_t from, to, bytes[COMM_MAX], at = 0;
    void *all = NULL;
    if (comm_size(c) == 1)
        return 0;
    buf_init(&mine, SIZE_MAX / 2);
    rank_part(c, n, comm_rank(c), &from, &to);
    int rc = rollout_pack(r, from, to, &mine, e);
    rc = rc ? rc : comm_all(c, mine.data, mine.len, &all, bytes, e);
    for (int k = 0; !rc && k < comm_size(c); k++) {
        rank_part(c, n, k, &from, &to);
        rc = rollout_unpack(r, from, to, (const char *)all + at, bytes[k], e);
        at += bytes[k];
    }
    free(all);
    buf_release(&mine);
    return rc;
}

/* ---- texts ----------------------------------------------------------------------------------- */

static int rollout_texts(struct rollout *r, size_t n, struct err *e)
{
    const struct tokenizer *tok = engine_tokenizer(r->o.engine);
    buf_clear(&r->text);
    int rc = 0;
    for (size_t k = 0; !rc && k < n * r->o.generations; k++) {
        struct rollout_sample *s = &r->sample[k];
        size_t begin = r->text.len;
        s->ids = r->ids + k * r->o.longest;
        s->logp = r->logp + k * r->o.longest;
        s->entropy = r->entropy + k * r->o.longest;
        s->ended = s->n && tokenizer_is_end(tok, s->ids[s->n - 1]);
        for (size_t i = 0; !rc && i < s->n; i++) {
            size_t bytes;
            const char *p = tokenizer_bytes(tok, s->ids[i], &bytes);
            if (!tokenizer_is_special(tok, s->ids[i]))
                rc = buf_append(&r->text, p, bytes, e);
        }
        s->n_text = r->text.len - begin;
    }
    size_t at = 0; /* the buffer may have moved until now */
    for (size_t k = 0; !rc && k < n * r->o.generations; k++) {
        r->sample[k].text = r->text.data + at;
        at += r->sample[k].n_text;
    }
    return rc;
}

int rollout_run(struct rollout *r, const struct data_seq *prompt, size_t n, uint64_t step,
                bool (*tick)(void *arg, size_t done, size_t all), void *arg,
                struct rollout_group **out, struct err *e)
{
    size_t from, to, g = r->o.generations;
    int rc = rollout_room(r, n, e);
    if (rc)
        return rc;
    memset(r->sample, 0, n * g * sizeof *r->sample);
    memset(r->job, 0, r->room * sizeof *r->job);
    atomic_store(&r->done, 0);
    atomic_store(&r->failures, 0);
    rank_part(r->o.comm, n, comm_rank(r->o.comm), &from, &to);
    for (size_t i = from; !rc && i < to; i++)
        rc = rollout_submit(r, &prompt[i], i, step, e);
    if (!rc)
        rc = rollout_work(r, (to - from) * g, tick, arg, e);
    for (size_t i = from; i < to; i++)
        if (r->job[i].request && rc) /* whoever is left ends before it is let go */
            request_cancel(r->job[i].request);
    bool idle = false;
    while (rc && atomic_load(&r->left) && !sched_step(r->sched, &idle, NULL))
        ;
    for (size_t i = from; i < to; i++)
        if (r->job[i].request)
            request_free(r->job[i].request);
    rc = rc ? rc : rollout_share(r, n, e);
    rc = rc ? rc : rollout_texts(r, n, e);
    for (size_t i = 0; i < n; i++)
        r->group[i] = (struct rollout_group){&prompt[i], r->sample + i * g};
    *out = r->group;
    return rc;
}
