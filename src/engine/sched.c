/*
 * The scheduler: who waits, who runs, who has to go. See sched.h for the idea, sched_impl.h for the
 * parts.
 *
 * Admission. The first in order is admitted when there is a place (opts.seqs) and memory: pages for
 * its timeline and SCHED_GROWTH tokens more, beside what those that run still need for theirs. So
 * preemption is rare, and who was preempted does not come back only to be preempted again. Nobody
 * overtakes the first in order; it is let in by ending others when its priority is higher than
 * theirs. With nobody running there is always room: a sample alone may have the whole cache.
 *
 * Beginnings. A sample takes what the prefix cache has of its timeline; when the disk has more, it
 * steps aside until that is read, and others may go first. Pages that only the cache holds count as
 * room: they are evicted when a step needs them. So preempting costs little while memory lasts.
 *
 * Fairness (Sheng et al. 2024, virtual token counters): an owner is charged a token for each of a
 * prompt and two for each of an answer; among equal priorities the least charged one's request is
 * next. Who comes back after a pause starts where the least charged of those present is, so that
 * pauses save nothing up.
 *
 * Locks. `lock` guards what submitting threads touch: the list of new requests, counts, a snapshot
 * of statistics. It is never held while something is computed or an event delivered. The bell has a
 * lock and a life of its own, so that a request may be cancelled at any time.
 */
#include "engine/sched_impl.h"

#include "base/clock.h"
#include "base/num.h"
#include "engine/engine_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- the bell ------------------------------------------------------------------------------- */

static void bell_ring(struct bell *b)
{
    pthread_mutex_lock(&b->lock);
    if (b->ring)
        b->ring(b->arg);
    pthread_mutex_unlock(&b->lock);
}

static void bell_unref(struct bell *b)
{
    if (!b || atomic_fetch_sub(&b->refs, 1) > 1)
        return;
    pthread_mutex_destroy(&b->lock);
    free(b);
}

/* ---- life ----------------------------------------------------------------------------------- */

void sched_opts_init(struct sched_opts *o)
{
    *o = (struct sched_opts){.prefix = true};
}

/* pooling_type as llama.cpp numbers it: 0 none, 1 mean, 2 the first token's, 3 the last's. */
static int sched_pooling(const struct engine *g)
{
    char key[128];
    snprintf(key, sizeof key, "%s.pooling_type", g->info.arch);
    const struct source_value *v = source_value(g->src, key);
    uint64_t type = v && (v->type == SOURCE_UINT || v->type == SOURCE_INT) ? v->u : 1;
    return type == 2 ? POOL_FIRST : type == 3 ? POOL_LAST : POOL_MEAN;
}

static void sched_ring(void *arg)
{
    struct sched *s = arg;
    bell_ring(s->bell);
}

static int sched_prefix(struct sched *s, struct err *e)
{
    struct prefix_opts o = {.disk = s->o.disk,
                            .disk_bytes = s->o.disk_bytes,
                            .wake = sched_ring,
                            .wake_arg = s,
                            .log = s->o.log};
    struct err why;
    if (!s->o.prefix)
        return 0;
    if (!o.disk || !prefix_new(&s->prefix, s->g, &o, &why))
        return o.disk ? 0 : prefix_new(&s->prefix, s->g, &o, e);
    /* A folder that can't be used costs time after a restart, and is no reason not to serve. */
    log_line(s->o.log, LOG_WARN, "beginnings of prompts are not kept on disk: %s", why.text);
    o.disk = s->o.disk = NULL;
    return prefix_new(&s->prefix, s->g, &o, e);
}

static int sched_memory(struct sched *s, struct err *e)
{
    size_t n = s->o.seqs;
    s->room_draw = n + SCHED_SAMPLES_MAX * n;
    s->run = calloc(n, sizeof(void *));
    s->of = calloc(n, sizeof(void *));
    s->part = calloc(n, sizeof *s->part);
    s->draw = calloc(s->room_draw, sizeof(void *));
    s->owner = calloc(SCHED_OWNERS_MAX, sizeof(void *));
    s->bell = calloc(1, sizeof *s->bell);
    if (!s->run || !s->of || !s->part || !s->draw || !s->owner || !s->bell)
        return err_nomem(e, SCHED_OWNERS_MAX * sizeof(void *), "the scheduler");
    atomic_init(&s->bell->refs, 1);
    pthread_mutex_init(&s->bell->lock, NULL);
    s->bell->ring = s->o.wake;
    s->bell->arg = s->o.wake_arg;
    return 0;
}

int sched_new(struct sched **out, struct engine *g, const struct sched_opts *o, struct err *e)
{
    *out = NULL;
    struct sched *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, sizeof *s, "the scheduler");
    s->g = g;
    s->o = *o;
    s->o.seqs = num_min(o->seqs ? o->seqs : 32, num_min(g->info.want, g->info.step));
    s->o.budget = num_min(o->budget ? o->budget : g->info.step, g->info.step);
    s->o.budget = num_max(s->o.budget, s->o.seqs);
    s->o.queue = o->queue ? o->queue : 512;
    s->o.step_seconds = o->step_seconds > 0 ? o->step_seconds : 0.15;
    s->vocab = g->tok ? num_min(g->info.vocab, tokenizer_count(g->tok)) : g->info.vocab;
    s->pages = kv_pool_pages(g->kv);
    s->pool = sched_pooling(g);
    s->pace.busy = s->pace.alone = 128;
    pthread_mutex_init(&s->lock, NULL);
    int rc = sched_memory(s, e);
    rc = rc ? rc : sched_prefix(s, e);
    if (rc)
        sched_free(s);
    else
        *out = s;
    return rc;
}

/* What came since the last step. */
static void sched_collect(struct sched *s);

static void sched_fail_all(struct sched *s, const struct err *e)
{
    sched_collect(s);
    while (s->all)
        request_fail(s, s->all, e);
}

void sched_free(struct sched *s)
{
    if (!s)
        return;
    struct err e;
    err_set(&e, ERR_CANCELLED, "the model is being unloaded");
    if (s->bell) {
        sched_fail_all(s, &e);
        prefix_free(s->prefix);
        pthread_mutex_lock(&s->bell->lock);
        s->bell->ring = NULL;
        pthread_mutex_unlock(&s->bell->lock);
        bell_unref(s->bell);
    }
    for (size_t i = 0; i < s->n_owner; i++)
        free(s->owner[i]);
    pthread_mutex_destroy(&s->lock);
    free(s->run);
    free(s->of);
    free(s->part);
    free(s->draw);
    free(s->owner);
    free(s);
}

/* ---- requests ------------------------------------------------------------------------------- */

void request_params_init(struct request_params *p)
{
    *p = (struct request_params){.n = 1, .logprobs = -1, .prompt_logprobs = -1};
    sampler_params_init(&p->sampling);
    answer_params_init(&p->answer);
}

static void request_release(struct request *r)
{
    for (size_t i = 0; i < r->n && r->sample; i++) {
        answer_free(r->sample[i].answer);
        free(r->sample[i].ids);
        free(r->sample[i].sum);
    }
    bell_unref(r->bell);
    pthread_mutex_destroy(&r->lock);
    free(r->sample);
    free(r->prompt);
    free(r->rows);
    free(r);
}

void request_unref(struct request *r)
{
    if (r && atomic_fetch_sub(&r->refs, 1) == 1)
        request_release(r);
}

void request_free(struct request *r)
{
    request_unref(r);
}

void request_cancel(struct request *r)
{
    atomic_store(&r->cancelled, true);
    bell_ring(r->bell);
}

/* What cannot be computed is refused. */
static int request_check(const struct sched *s, const struct request_params *p, struct err *e)
{
    const struct engine_info *i = &s->g->info;
    if (!p->n_prompt)
        return err_set(e, ERR_USAGE, "the prompt is empty");
    if (!s->g->tok && !p->embed)
        return err_set(e, ERR_UNSUPPORTED, "the model has no tokenizer to write text with");
    if (p->n_prompt > i->ctx)
        return err_set(e, ERR_LIMIT,
                       "the prompt has %zu tokens and the context is %zu: shorten it, or give a "
                       "larger context",
                       p->n_prompt, i->ctx);
    if (p->n_prompt > s->pages * KV_PAGE)
        return err_set(e, ERR_LIMIT, "the prompt has %zu tokens and the KV cache holds %zu",
                       p->n_prompt, s->pages * KV_PAGE);
    for (size_t k = 0; k < p->n_prompt; k++)
        if (p->prompt[k] < 0 || (size_t)p->prompt[k] >= i->vocab)
            return err_set(e, ERR_USAGE, "token id %d is not in the model's vocabulary of %zu",
                           (int)p->prompt[k], i->vocab);
    if (p->n > SCHED_SAMPLES_MAX)
        return err_set(e, ERR_USAGE, "n is %zu: at most %d answers to one prompt", p->n,
                       SCHED_SAMPLES_MAX);
    const struct sampler_params *m = &p->sampling;
    bool plain = m->temperature > 0 && !m->top_k && m->top_p >= 1 && m->min_p <= 0 &&
                 m->typical_p >= 1 && m->repetition_penalty == 1 && m->frequency_penalty == 0 &&
                 m->presence_penalty == 0 && !m->n_bias && !p->answer.grammar;
    if (p->policy && !plain)
        return err_set(
            e, ERR_USAGE,
            "samples to learn from are drawn with a temperature above 0 and nothing else: "
            "no top-k, top-p, min-p, penalties or grammar");
    if (p->logprobs > SCHED_TOP_MAX || p->prompt_logprobs > SCHED_TOP_MAX)
        return err_set(e, ERR_USAGE, "log-probabilities of at most %d tokens are shown",
                       SCHED_TOP_MAX);
    return 0;
}

static int sample_init(struct sched *s, struct request *r, size_t index,
                       const struct request_params *p, struct grammar_vocab *v, struct err *e)
{
    struct sample *x = &r->sample[index];
    x->r = r;
    x->index = index;
    x->state = index ? SAMPLE_HELD : SAMPLE_WAITS;
    x->stats.prompt_tokens = p->n_prompt;
    if (p->embed) {
        size_t d = model_config(s->g->model)->d_model;
        x->sum = calloc(d, sizeof *x->sum);
        return x->sum ? 0 : err_nomem(e, d * sizeof *x->sum, "an embedding");
    }
    struct sampler_params sampling = p->sampling;
    sampling.seed += index;
    int rc = answer_new(&x->answer, s->g->tok, v, s->vocab, &sampling, &p->answer, e);
    return rc ? rc : answer_prompt(x->answer, p->prompt, p->n_prompt, e);
}

static int request_new(struct request **out, struct sched *s, const struct request_params *p,
                       struct err *e)
{
    struct request *r = calloc(1, sizeof *r);
    struct grammar_vocab *v = NULL;
    *out = NULL;
    if (!r)
        return err_nomem(e, sizeof *r, "a request");
    atomic_init(&r->refs, 2);
    atomic_init(&r->cancelled, false);
    pthread_mutex_init(&r->lock, NULL);
    r->bell = s->bell;
    atomic_fetch_add(&s->bell->refs, 1);
    r->p = *p;
    r->n = p->embed || !p->n ? 1 : p->n;
    r->live = r->n;
    r->prompt = malloc(p->n_prompt * sizeof *r->prompt);
    r->sample = calloc(r->n, sizeof *r->sample);
    if (p->prompt_logprobs >= 0 && !p->embed)
        r->rows = calloc(p->n_prompt, sizeof *r->rows);
    int rc = r->prompt && r->sample && (r->rows || p->prompt_logprobs < 0 || p->embed)
                 ? 0
                 : err_nomem(e, p->n_prompt * sizeof *r->prompt, "a request");
    if (!rc) {
        memcpy(r->prompt, p->prompt, p->n_prompt * sizeof *r->prompt);
        r->p.prompt = r->prompt;
    }
    if (!rc && p->answer.grammar && !p->embed)
        rc = engine_grammar_vocab(s->g, &v, e);
    for (size_t i = 0; i < r->n && !rc; i++)
        rc = sample_init(s, r, i, p, v, e);
    if (rc)
        request_release(r);
    else
        *out = r;
    return rc;
}

int sched_submit(struct sched *s, const struct request_params *p, struct request **out,
                 struct err *e)
{
    struct request *r;
    *out = NULL;
    int rc = request_check(s, p, e);
    rc = rc ? rc : request_new(&r, s, p, e);
    if (rc)
        return rc;
    r->submitted = clock_seconds();
    *out = r;
    pthread_mutex_lock(&s->lock);
    if (s->broken.code) {
        *e = s->broken;
        rc = e->code;
    } else if (s->queued >= s->o.queue) {
        rc = err_set(e, ERR_BUSY, "%zu requests are waiting already", s->queued);
    } else {
        s->queued++;
        r->number = s->arrivals++;
        r->prev = s->new_last;
        *(s->new_last ? &s->new_last->next : &s->new_first) = r;
        s->new_last = r;
    }
    pthread_mutex_unlock(&s->lock);
    if (!rc) {
        bell_ring(s->bell);
        return 0;
    }
    *out = NULL;
    request_release(r);
    return rc;
}

/* ---- owners --------------------------------------------------------------------------------- */

/* A place for another owner: a new one, or that of the least served who has nothing here. */
static struct owner *owner_place(struct sched *s)
{
    struct owner *best = NULL;
    if (s->n_owner < SCHED_OWNERS_MAX) {
        best = calloc(1, sizeof *best);
        if (best)
            s->owner[s->n_owner++] = best;
        return best;
    }
    for (size_t i = 0; i < s->n_owner; i++)
        if (!s->owner[i]->live && (!best || s->owner[i]->served < best->served))
            best = s->owner[i];
    if (best)
        *best = (struct owner){0};
    return best;
}

/* The owner of a request that arrives; NULL (served like one who was never served) without memory.
 */
static struct owner *sched_owner(struct sched *s, uint64_t id)
{
    struct owner *found = NULL;
    double least = -1;
    for (size_t i = 0; i < s->n_owner; i++) {
        struct owner *o = s->owner[i];
        if (o->id == id)
            found = o;
        if (o->live && (least < 0 || o->served < least))
            least = o->served;
    }
    if (!found && (found = owner_place(s)))
        found->id = id;
    if (found && !found->live++ && found->served < least)
        found->served = least;
    return found;
}

static double owner_served(const struct request *r)
{
    return r->owner ? r->owner->served : 0;
}

bool sched_before(const struct sample *a, const struct sample *b)
{
    const struct request *p = a->r, *q = b->r;
    if (p->p.priority != q->p.priority)
        return p->p.priority < q->p.priority;
    /* What was begun goes on before anything else begins. */
    if (p->started != q->started)
        return p->started;
    if (owner_served(p) != owner_served(q))
        return owner_served(p) < owner_served(q);
    return p->number != q->number ? p->number < q->number : a->index < b->index;
}

/* ---- coming and going ----------------------------------------------------------------------- */

void sched_wait(struct sched *s, struct sample *x)
{
    x->state = SAMPLE_WAITS;
    x->next = s->waiting;
    s->waiting = x;
    s->n_wait++;
}

static void sched_collect(struct sched *s)
{
    pthread_mutex_lock(&s->lock);
    struct request *r = s->new_first;
    s->new_first = s->new_last = NULL;
    pthread_mutex_unlock(&s->lock);
    while (r) {
        struct request *next = r->next;
        r->prev = NULL;
        r->next = s->all;
        if (s->all)
            s->all->prev = r;
        s->all = r;
        r->owner = sched_owner(s, r->p.owner);
        sched_wait(s, &r->sample[0]);
        r = next;
    }
}

static void sched_unqueue(struct sched *s)
{
    pthread_mutex_lock(&s->lock);
    s->queued--;
    pthread_mutex_unlock(&s->lock);
}

void sched_forget(struct sched *s, struct request *r)
{
    if (r->prev)
        r->prev->next = r->next;
    else
        s->all = r->next;
    if (r->next)
        r->next->prev = r->prev;
    if (r->owner)
        r->owner->live--;
    if (!r->started)
        sched_unqueue(s);
    request_unref(r);
}

/* Out of the list that it is in. */
static void sched_unlist(struct sched *s, struct sample *x)
{
    if (x->state == SAMPLE_WAITS) {
        struct sample **at = &s->waiting;
        while (*at != x)
            at = &(*at)->next;
        *at = x->next;
        s->n_wait--;
    } else if (x->state == SAMPLE_RUNS) {
        size_t i = 0;
        while (s->run[i] != x)
            i++;
        s->n_run--;
        memmove(s->run + i, s->run + i + 1, (s->n_run - i) * sizeof(void *));
    }
    x->next = NULL;
}

void sched_leave(struct sched *s, struct sample *x)
{
    sched_unlist(s, x);
    session_free(x->session);
    x->session = NULL;
}

void sched_preempt(struct sched *s, struct sample *x)
{
    sched_leave(s, x);
    sched_wait(s, x);
    if (x->sum) /* its states will be computed, and added, again */
        memset(x->sum, 0, model_config(s->g->model)->d_model * sizeof *x->sum);
    x->asked = false;
    x->stats.preemptions++;
    s->tally.preemptions++;
}

/* Behind those of its priority. */
static void sched_run(struct sched *s, struct sample *x)
{
    size_t i = s->n_run++;
    sched_unlist(s, x);
    for (; i && s->run[i - 1]->r->p.priority > x->r->p.priority; i--)
        s->run[i] = s->run[i - 1];
    s->run[i] = x;
    x->state = SAMPLE_RUNS;
}

size_t sched_room(const struct sched *s)
{
    return s->prefix ? prefix_room(s->prefix) : engine_pages_unused(s->g);
}

/* Pages that a sample that runs will want soon. */
static size_t sample_wants(const struct sample *x)
{
    size_t to = num_min(x->cap, x->n + SCHED_GROWTH), have = session_len(x->session);
    return session_need(x->session, to > have ? to - have : 0);
}

int sample_timeline(struct sched *s, struct sample *x, struct err *e)
{
    const struct request_params *p = &x->r->p;
    size_t ctx = num_min(s->g->info.ctx, s->pages * KV_PAGE);
    if (x->ids)
        return 0;
    x->cap = p->embed ? p->n_prompt : ctx;
    if (!p->embed && p->answer.max_tokens && p->answer.max_tokens < ctx - p->n_prompt)
        x->cap = p->n_prompt + p->answer.max_tokens;
    x->ids = malloc((x->cap + 1) * sizeof *x->ids);
    if (!x->ids)
        return err_nomem(e, (x->cap + 1) * sizeof *x->ids, "a timeline");
    memcpy(x->ids, p->prompt, p->n_prompt * sizeof *x->ids);
    x->n = x->told = p->n_prompt;
    return 0;
}

static void request_begin(struct sched *s, struct request *r)
{
    if (r->started)
        return;
    r->started = true;
    r->begun = clock_seconds();
    sched_unqueue(s);
    for (size_t i = 0; i < r->n; i++)
        r->sample[i].stats.queue_seconds = r->begun - r->submitted;
    request_tell(r, &(struct request_event){.kind = REQUEST_STARTED});
}

/* Logits or states of all its tokens are wanted: none may come from the cache. */
static bool sample_computes_all(const struct sample *x)
{
    return !x->answer || x->r->rows;
}

/* Pages that nobody who runs will want soon. */
static size_t sched_spare(const struct sched *s)
{
    size_t room = sched_room(s), wanted = 0;
    for (size_t i = 0; i < s->n_run; i++)
        wanted += sample_wants(s->run[i]);
    return room > wanted ? room - wanted : 0;
}

/* Without a session: is it worth trying? */
static bool sample_may_fit(const struct sched *s, const struct sample *x)
{
    size_t pages = num_min(x->cap, x->n + SCHED_GROWTH) / KV_PAGE;
    if (s->prefix && !sample_computes_all(x))
        pages -= prefix_find(s->prefix, x->r->p.salt, x->ids, x->n) / KV_PAGE;
    return pages <= sched_spare(s);
}

static int sample_session(struct sched *s, struct sample *x, struct session *from, struct err *e)
{
    struct request *r = x->r;
    if (from)
        return session_fork(&x->session, from, e);
    int rc = session_new(&x->session, s->g, e);
    if (rc || !s->prefix || sample_computes_all(x))
        return rc;
    size_t have = prefix_attach(s->prefix, x->session, r->p.salt, x->ids, x->n);
    if (!r->started)
        x->stats.cached_tokens = have;
    return 0;
}

/* The disk may have more of its timeline: does it wait for that? */
static bool sample_fetches(struct sched *s, struct sample *x)
{
    struct err e;
    if (!s->prefix || !s->o.disk || sample_computes_all(x) || sample_timeline(s, x, &e))
        return false;
    if (!x->asked)
        x->ticket = prefix_fetch(s->prefix, x->r->p.salt, x->ids, x->n, sched_spare(s));
    x->asked = true;
    if (x->ticket && prefix_fetched(s->prefix, x->ticket))
        x->ticket = 0;
    return x->ticket;
}

bool sched_start(struct sched *s, struct sample *x, struct session *from)
{
    struct err e;
    struct request *r = x->r;
    if (s->n_run == s->o.seqs)
        return false;
    int rc = sample_timeline(s, x, &e);
    if (!rc && s->n_run && !from && !sample_may_fit(s, x))
        return false;
    rc = rc ? rc : sample_session(s, x, from, &e);
    if (rc && s->n_run)
        return false; /* memory: perhaps later */
    if (rc) {
        request_fail(s, r, &e);
        return true;
    }
    if (s->n_run && sample_wants(x) > sched_spare(s)) {
        session_free(x->session);
        x->session = NULL;
        return false;
    }
    sched_run(s, x);
    request_begin(s, r);
    return true;
}

/* ---- a step --------------------------------------------------------------------------------- */

/* The first in order of those that do not wait for the disk. */
static struct sample *sched_next(struct sched *s)
{
    struct sample *best = NULL;
    for (struct sample *x = s->waiting; x; x = x->next) {
        if (x->ticket && prefix_fetched(s->prefix, x->ticket))
            x->ticket = 0;
        if (!x->ticket && (!best || sched_before(x, best)))
            best = x;
    }
    return best;
}

static void sched_admit(struct sched *s)
{
    for (struct sample *x; (x = sched_next(s));) {
        if (s->n_run < s->o.seqs && sample_fetches(s, x))
            continue;
        while (!sched_start(s, x, NULL)) {
            struct sample *worst = s->n_run ? s->run[s->n_run - 1] : NULL;
            if (!worst || worst->r->p.priority <= x->r->p.priority)
                return;
            sched_preempt(s, worst);
        }
    }
}

/* All samples end. The request is gone then: the last one's end, or a failure, is its own. */
static void request_cut(struct sched *s, struct request *r, enum request_end end)
{
    struct err e;
    for (size_t i = 0, live = r->live; live; i++) {
        struct sample *x = &r->sample[i];
        if (x->state == SAMPLE_ENDED)
            continue;
        if (sample_flush(x, &e)) {
            request_fail(s, r, &e);
            return;
        }
        live--;
        sample_finish(s, x, end);
    }
}

/* Ends what was cancelled or is out of time. */
static void sched_reap(struct sched *s)
{
    double now = clock_seconds();
    for (struct request *r = s->all, *next; r; r = next) {
        next = r->next;
        if (atomic_load(&r->cancelled))
            request_cut(s, r, REQUEST_CANCELLED);
        else if (r->p.deadline && now >= r->p.deadline)
            request_cut(s, r, REQUEST_DEADLINE);
    }
}

static void sched_count(struct sched *s)
{
    size_t room = sched_room(s), unused = engine_pages_unused(s->g);
    struct sched_stats *t = &s->tally;
    pthread_mutex_lock(&s->lock);
    t->running = s->n_run;
    t->waiting = s->queued;
    for (const struct sample *x = s->waiting; x; x = x->next)
        t->waiting += x->r->started;
    t->pages = s->pages;
    t->pages_used = s->pages - room;
    t->pages_cached = room - unused;
    if (s->prefix) {
        struct prefix_stats p;
        prefix_stats(s->prefix, &p);
        t->prefix_queries = p.asked;
        t->prefix_hits = p.hit;
        t->disk_hits = p.disk_hit;
        t->disk_bytes = p.disk_bytes;
    }
    t->prompt_speed = s->prompt_seconds > 0 ? s->prompt_tokens / s->prompt_seconds : 0;
    t->answer_speed = s->answer_seconds > 0 ? s->answer_tokens / s->answer_seconds : 0;
    s->stats = *t;
    pthread_mutex_unlock(&s->lock);
}

int sched_step(struct sched *s, bool *idle, struct err *e)
{
    int rc = 0;
    *idle = false;
    if (s->broken.code) {
        *e = s->broken;
        return e->code;
    }
    sched_collect(s);
    sched_reap(s);
    sched_admit(s);
    sched_plan(s);
    *idle = !s->n_part;
    if (s->n_part)
        rc = sched_compute(s, e);
    if (s->n_part && !rc)
        sched_deliver(s);
    if (rc) {
        pthread_mutex_lock(&s->lock);
        s->broken = *e;
        pthread_mutex_unlock(&s->lock);
        sched_fail_all(s, e);
    }
    sched_count(s);
    return rc;
}

void sched_stats(struct sched *s, struct sched_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    out->waiting = num_max(out->waiting, s->queued);
    pthread_mutex_unlock(&s->lock);
}
