/* See many.h. */
#include "engine/many.h"

#include "base/buf.h"
#include "base/num.h"
#include "engine/sched.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MANY_TEXT_MAX = 1 << 30, MANY_QUEUE = 1 << 20 };

/* A prompt while it is answered. */
struct many_job {
    struct many *m;
    struct request *request;
    size_t at;
};

struct many {
    struct many_opts o;
    struct sched *sched;
    /* Sample k of prompt p has place p × n + k. */
    struct many_sample *sample;
    struct many_job *job;
    int32_t *ids;          /* (places, max_tokens) */
    float *logp, *entropy; /* the same */
    size_t room;           /* prompts */
    struct buf text;
    _Atomic size_t done; /* completions */
    _Atomic size_t left; /* requests */
    struct err failed;   /* of the first that did */
    _Atomic int failures;
};

int many_new(struct many **out, const struct many_opts *o, struct err *e)
{
    *out = NULL;
    struct many *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "completions");
    m->o = *o;
    buf_init(&m->text, MANY_TEXT_MAX);
    struct sched_opts so;
    sched_opts_init(&so);
    so.seqs = o->seqs;
    so.queue = MANY_QUEUE;
    so.step_seconds = 3600; /* nobody is waiting for a next word */
    so.prefix = o->prefix;
    int rc = sched_new(&m->sched, o->engine, &so, e);
    if (rc) {
        many_free(m);
        return rc;
    }
    *out = m;
    return 0;
}

static void many_forget(struct many *m)
{
    free(m->sample);
    free(m->job);
    free(m->ids);
    free(m->logp);
    free(m->entropy);
    m->sample = NULL;
    m->job = NULL;
    m->ids = NULL;
    m->logp = m->entropy = NULL;
    m->room = 0;
}

void many_free(struct many *m)
{
    if (!m)
        return;
    sched_free(m->sched);
    many_forget(m);
    buf_release(&m->text);
    free(m);
}

int many_room(struct many *m, size_t n, struct err *e)
{
    size_t places, tokens;
    if (!num_mul(&places, n, m->o.n) || !num_mul(&tokens, places, m->o.max_tokens))
        return err_set(e, ERR_LIMIT, "%zu prompts are too many", n);
    if (n > m->room) {
        many_forget(m);
        m->job = calloc(n, sizeof *m->job);
        m->sample = calloc(places, sizeof *m->sample);
        m->ids = calloc(tokens, sizeof *m->ids);
        m->logp = calloc(tokens, sizeof *m->logp);
        m->entropy = calloc(tokens, sizeof *m->entropy);
        if (!m->job || !m->sample || !m->ids || !m->logp || !m->entropy)
            return err_nomem(e, tokens * 12, "completions; give a smaller --max-completion-length");
        m->room = n;
    }
    memset(m->sample, 0, places * sizeof *m->sample);
    memset(m->job, 0, n * sizeof *m->job);
    return 0;
}

int many_put(struct many *m, size_t place, const int32_t *ids, const float *logp,
             const float *entropy, size_t n, struct err *e)
{
    size_t at = place * m->o.max_tokens;
    if (place >= m->room * m->o.n || n > m->o.max_tokens)
        return err_set(e, ERR_FORMAT, "a completion has no place");
    memcpy(m->ids + at, ids, n * sizeof *ids);
    memcpy(m->logp + at, logp, n * sizeof *logp);
    memcpy(m->entropy + at, entropy, n * sizeof *entropy);
    m->sample[place].n = n;
    return 0;
}

/* ---- sampling -------------------------------------------------------------------------------- */

static void many_add(struct many_job *j, const struct request_event *ev, int32_t id)
{
    struct many *m = j->m;
    size_t place = j->at * m->o.n + ev->sample, at = place * m->o.max_tokens;
    struct many_sample *s = &m->sample[place];
    if (s->n == m->o.max_tokens)
        return;
    m->ids[at + s->n] = id;
    m->logp[at + s->n] = ev->logprob;
    m->entropy[at + s->n++] = ev->entropy;
}

static void many_event(void *arg, const struct request_event *ev)
{
    struct many_job *j = arg;
    struct many *m = j->m;
    switch (ev->kind) {
    case REQUEST_CHOSEN:
        many_add(j, ev, ev->id);
        break;
    case REQUEST_SAMPLE:
        atomic_fetch_add(&m->done, 1);
        break;
    case REQUEST_FAILED:
        if (atomic_fetch_add(&m->failures, 1) == 0)
            m->failed = *ev->error;
        atomic_fetch_sub(&m->left, 1);
        break;
    case REQUEST_DONE:
        atomic_fetch_sub(&m->left, 1);
        break;
    default:
        break;
    }
}

static int many_submit(struct many *m, const struct many_prompt *prompt, size_t at, struct err *e)
{
    struct request_params p;
    request_params_init(&p);
    answer_params_init(&p.answer);
    p.prompt = prompt->ids;
    p.n_prompt = prompt->n;
    p.sampling = m->o.sampling;
    p.sampling.seed = prompt->seed;
    /* What does not fit into the context any more is not asked for. */
    size_t ctx = engine_info(m->o.engine)->ctx;
    p.answer.max_tokens = num_min(m->o.max_tokens, ctx > prompt->n ? ctx - prompt->n : 1);
    p.answer.ignore_end = m->o.ignore_end;
    p.answer.raw = true;
    p.n = m->o.n;
    p.chosen = true;
    p.policy = m->o.policy;
    p.event = many_event;
    m->job[at] = (struct many_job){.m = m, .at = at};
    p.arg = &m->job[at];
    int rc = sched_submit(m->sched, &p, &m->job[at].request, e);
    if (!rc)
        atomic_fetch_add(&m->left, 1);
    return rc;
}

static void many_cancel(struct many *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (m->job[i].request)
            request_cancel(m->job[i].request);
}

static int many_work(struct many *m, size_t n, bool (*tick)(void *arg, size_t done, size_t all),
                     void *arg, struct err *e)
{
    int rc = 0;
    bool idle = false, stopped = false;
    while (!rc && atomic_load(&m->left)) {
        rc = sched_step(m->sched, &idle, e);
        if (!rc && tick && !stopped && !tick(arg, atomic_load(&m->done), n * m->o.n)) {
            stopped = true;
            many_cancel(m, n);
        }
    }
    if (!rc && stopped)
        return err_set(e, ERR_CANCELLED, "stopped while sampling");
    if (!rc && atomic_load(&m->failures)) {
        *e = m->failed;
        return err_ctx(e, "sampling");
    }
    return rc;
}

int many_texts(struct many *m, size_t prompts, struct many_sample **out, struct err *e)
{
    const struct tokenizer *tok = engine_tokenizer(m->o.engine);
    size_t n = prompts * m->o.n, at = 0;
    int rc = 0;
    buf_clear(&m->text);
    for (size_t k = 0; !rc && k < n; k++) {
        struct many_sample *s = &m->sample[k];
        size_t begin = m->text.len;
        s->ids = m->ids + k * m->o.max_tokens;
        s->logp = m->logp + k * m->o.max_tokens;
        s->entropy = m->entropy + k * m->o.max_tokens;
        s->ended = s->n && tokenizer_is_end(tok, s->ids[s->n - 1]);
        for (size_t i = 0; !rc && i < s->n; i++) {
            size_t bytes;
            const char *p = tokenizer_bytes(tok, s->ids[i], &bytes);
            if (!tokenizer_is_special(tok, s->ids[i]))
                rc = buf_append(&m->text, p, bytes, e);
        }
        s->n_text = m->text.len - begin;
    }
    for (size_t k = 0; !rc && k < n; k++) { /* the buffer may have moved until now */
        m->sample[k].text = m->text.data + at;
        at += m->sample[k].n_text;
    }
    *out = m->sample;
    return rc;
}

int many_run(struct many *m, const struct many_prompt *prompt, size_t prompts,
             bool (*tick)(void *arg, size_t done, size_t all), void *arg, struct many_sample **out,
             struct err *e)
{
    int rc = many_room(m, prompts, e);
    if (rc)
        return rc;
    atomic_store(&m->done, 0);
    atomic_store(&m->failures, 0);
    for (size_t i = 0; !rc && i < prompts; i++)
        rc = many_submit(m, &prompt[i], i, e);
    if (!rc)
        rc = many_work(m, prompts, tick, arg, e);
    if (rc) { /* whoever is left ends before it is let go */
        bool idle = false;
        many_cancel(m, prompts);
        while (atomic_load(&m->left) && !sched_step(m->sched, &idle, NULL))
            ;
    }
    for (size_t i = 0; i < prompts; i++)
        if (m->job[i].request)
            request_free(m->job[i].request);
    memset(m->job, 0, prompts * sizeof *m->job);
    return rc ? rc : many_texts(m, prompts, out, e);
}
