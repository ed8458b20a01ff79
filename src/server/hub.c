/*
 * The threads of a hub: see hub.h.
 *
 * Two locks, so that the computing thread never waits for anything slow. `lock` guards states, uses
 * and waiting lists; it is held for moments and never while a scheduler is called. `beat` is what
 * schedulers take to say that they have work (`wake`), and what the computing thread looks at
 * between steps; nothing is locked inside it.
 *
 * Room for a model is made by unloading others that nobody uses, the least recently used first.
 * When all are in use, the least recently used one takes no new uses from then on ("leaving"): who
 * needs it waits until it has been unloaded and loaded again. So a busy model cannot keep another
 * one out for ever.
 */
#include "server/hub.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/quota.h"
#include "server/hub_impl.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    HUB_CTX = 32768, /* what an engine takes at most when nobody asks for more */
    HUB_SEQS = 32,   /* the scheduler's own bound */
};

void hub_opts_init(struct hub_opts *o)
{
    memset(o, 0, sizeof *o);
    engine_opts_init(&o->engine);
    sched_opts_init(&o->sched);
    o->keep_alive = 300;
}

/* ---- computing ------------------------------------------------------------------------------ */

static void hub_wake(void *arg)
{
    struct hub_model *m = arg;
    struct hub *h = m->hub;
    pthread_mutex_lock(&h->beat);
    m->awake = true;
    pthread_cond_broadcast(&h->work);
    pthread_mutex_unlock(&h->beat);
}

static void hub_step(void *arg, const struct sched_work *w)
{
    struct hub_model *m = arg;
    const struct hub_opts *o = &m->hub->o;
    if (o->step)
        o->step(o->step_arg, hub_info(m)->name, w);
}

/* Its engine can no longer compute: the loading thread ends its requests. */
static void hub_break(struct hub_model *m, const struct err *why)
{
    struct hub *h = m->hub;
    log_line(h->o.log, LOG_ERROR, "%s: %s", hub_info(m)->name, why->text);
    pthread_mutex_lock(&h->lock);
    if (m->state == HUB_READY)
        m->state = HUB_BROKEN;
    pthread_cond_broadcast(&h->change);
    pthread_mutex_unlock(&h->lock);
}

/* One step of every model that has work; false when none has. Called with `beat` held. */
static bool hub_round(struct hub *h)
{
    bool any = false;
    for (size_t i = 0; i < h->n; i++) {
        struct hub_model *m = h->model[i];
        if (!m->steps || !m->awake)
            continue;
        struct err e = {0};
        bool idle = false;
        any = true;
        m->awake = false;
        m->stepping = true;
        pthread_mutex_unlock(&h->beat);
        int rc = sched_step(m->sched, &idle, &e);
        if (rc)
            hub_break(m, &e);
        pthread_mutex_lock(&h->beat);
        m->stepping = false;
        if (rc)
            m->steps = false;
        else if (!idle)
            m->awake = true;
        if (!m->steps)
            pthread_cond_broadcast(&h->work);
    }
    return any;
}

static void *hub_compute(void *arg)
{
    struct hub *h = arg;
    pthread_mutex_lock(&h->beat);
    while (!h->ending)
        if (!hub_round(h) && !h->ending)
            pthread_cond_wait(&h->work, &h->beat);
    pthread_mutex_unlock(&h->beat);
    return NULL;
}

/* ---- loading and unloading ------------------------------------------------------------------ */

/* The scheduler goes; what it has fails. */
static void hub_close_sched(struct hub_model *m)
{
    struct hub *h = m->hub;
    pthread_mutex_lock(&h->beat);
    m->steps = m->awake = false;
    while (m->stepping)
        pthread_cond_wait(&h->work, &h->beat);
    pthread_mutex_unlock(&h->beat);
    pthread_rwlock_wrlock(&m->door);
    struct sched *s = m->sched;
    m->sched = NULL;
    pthread_rwlock_unlock(&m->door);
    sched_free(s);
}

/* An adapter has its weights no longer. Called with `lock` held. */
static void hub_release(struct hub_model *m)
{
    double keep = m->hub->o.keep_alive;
    m->uses--;
    m->used = clock_seconds();
    m->expires = keep < 0 ? INFINITY : m->used + keep;
}

/* Called with `lock` held, which is released meanwhile. */
static void hub_unload_now(struct hub_model *m)
{
    struct hub *h = m->hub;
    struct engine *g = m->engine;
    bool holds = m->base != NULL;
    m->state = HUB_CLOSING;
    m->engine = NULL;
    pthread_mutex_unlock(&h->lock);
    hub_close_sched(m);
    engine_free(g);
    log_line(h->o.log, LOG_INFO, "%s: unloaded", hub_info(m)->name);
    pthread_mutex_lock(&h->lock);
    m->state = HUB_OFF;
    m->leaving = false;
    m->bytes = 0;
    m->asked = 0;
    if (holds)
        hub_release(m->base);
}

/* A context that somebody asks for, within bounds. */
static size_t hub_ctx(const struct hub_model *m, size_t ctx)
{
    const struct engine_opts *o = &m->hub->o.engine;
    if (hub_info(m)->ctx_train)
        ctx = num_min(ctx, hub_info(m)->ctx_train);
    return o->ctx ? num_min(ctx, o->ctx) : ctx;
}

/* The largest one that a waiting use asks for. */
static size_t hub_asked(const struct hub_model *m)
{
    size_t ctx = 0;
    for (const struct hub_wait *w = m->first; w; w = w->next)
        ctx = num_max(ctx, hub_ctx(m, w->ctx));
    return ctx;
}

/* Whether somebody asks for more than the engine takes by itself, where that is not fixed. */
static bool hub_more(const struct hub_model *m, size_t ctx)
{
    const struct engine_opts *o = &m->hub->o.engine;
    return !o->ctx && ctx > num_min(hub_info(m)->ctx_train, o->ctx_max ? o->ctx_max : HUB_CTX);
}

/* The context to load for; 0: what the engine takes by itself is enough. */
static size_t hub_wanted(const struct hub_model *m)
{
    size_t ctx = hub_asked(m);
    return hub_more(m, ctx) ? ctx : 0;
}

/* Refuses a context that can't be had, before anything is unloaded for it. */
static int hub_ctx_fits(const struct hub_model *m, size_t ctx, struct err *e)
{
    uint64_t token = m->head.kv_token_bytes, have = m->hub->memory;
    if (!hub_more(m, ctx) || !token || ctx <= have / token)
        return 0;
    return err_set(e, ERR_LIMIT,
                   "a context of %zu tokens needs %.1f GB of KV cache, the server's models may "
                   "take %.1f GB: ask for a shorter one",
                   ctx, (double)ctx * (double)token / 1e9, (double)have / 1e9);
}

/* Tokens that all sequences of a model may hold: as said; else of all sequences that compute at the
   same time, as far as an eighth of the memory goes, and a whole context at least. */
static size_t hub_cache(const struct hub_model *m, size_t ctx)
{
    const struct hub_opts *o = &m->hub->o;
    size_t own = num_min(hub_info(m)->ctx_train, o->engine.ctx_max ? o->engine.ctx_max : HUB_CTX);
    size_t one = ctx ? ctx : o->engine.ctx ? o->engine.ctx : own, all;
    if (o->engine.cache)
        return num_max(o->engine.cache, one);
    uint64_t room = m->hub->memory / 8 / num_max((size_t)m->head.kv_token_bytes, 1);
    if (!num_mul(&all, one, o->sched.seqs ? o->sched.seqs : HUB_SEQS))
        all = SIZE_MAX;
    return num_max(one, num_min(all, room > SIZE_MAX ? SIZE_MAX : (size_t)room));
}

/* About what a model will take. */
static uint64_t hub_estimate(const struct hub_model *m, size_t ctx)
{
    uint64_t weights = m->base ? 0 : hub_info(m)->bytes + hub_info(m)->bytes / 20;
    return weights + m->head.kv_token_bytes * hub_cache(m, ctx);
}

static int hub_open(struct hub_model *m, size_t ctx, struct engine **g, struct sched **s,
                    struct err *e)
{
    struct engine_opts o = m->hub->o.engine;
    struct sched_opts so = m->hub->o.sched;
    o.cache = hub_cache(m, ctx);
    if (ctx)
        o.ctx = ctx;
    if (m->base) {
        o.adapter = m->adapter;
        o.base = m->base->engine; /* it has a use of that */
    }
    so.wake = hub_wake;
    so.wake_arg = m;
    so.step = hub_step;
    so.step_arg = m;
    int rc = engine_open(g, m->path, &o, e);
    if (!rc && engine_fingerprint(*g) != m->head.identity)
        rc = err_set(e, ERR_BUSY, "%s: is being replaced", m->path);
    if (!rc)
        rc = engine_chat(*g) ? sched_new(s, *g, &so, e)
                             : err_set(e, ERR_UNSUPPORTED,
                                       "%s: has no tokenizer, so it can't read text: put "
                                       "tokenizer.json beside the weights",
                                       m->path);
    if (rc) {
        engine_free(*g);
        *g = NULL;
    }
    return rc;
}

static struct hub_wait *hub_take_waits(struct hub_model *m)
{
    struct hub_wait *w = m->first;
    m->first = NULL;
    m->last = &m->first;
    m->n_wait = 0;
    return w;
}

static void hub_answer(struct hub_wait *w, struct hub_model *m, struct engine *g,
                       const struct err *e)
{
    while (w) {
        struct hub_wait *next = w->next;
        struct hub_use u = {m, g, clock_seconds() - w->since};
        w->ready(w->arg, e ? NULL : &u, e);
        free(w);
        w = next;
    }
}

/* Whether a loaded model's context is too small, and loading it again would help. */
static bool hub_small(const struct hub_model *m, size_t ctx)
{
    return ctx > engine_info(m->engine)->ctx && ctx > m->asked;
}

/* Those of the list that the model serves as it is, each with a use. Who came while it was loaded
   and wants more context waits on. */
static struct hub_wait *hub_serve(struct hub_model *m, struct hub_wait *w)
{
    struct hub_wait *served = NULL, **end = &served;
    while (w) {
        struct hub_wait *next = w->next;
        bool small = hub_small(m, w->ctx);
        w->next = NULL;
        if (small) {
            *m->last = w;
            m->last = &w->next;
            m->n_wait++;
            m->turn = m->hub->turns++;
            m->leaving = true;
        } else {
            *end = w;
            end = &w->next;
            m->uses++;
        }
        w = next;
    }
    return served;
}

/* There was no memory for a context that somebody asks for: says so to those of the list who ask
   for more than the engine takes by itself, and returns them. The others wait for another try. */
static struct hub_wait *hub_too_long(struct hub_model *m, struct hub_wait *w, size_t ctx,
                                     struct err *e)
{
    struct hub_wait *refused = NULL, **end = &refused;
    for (struct hub_wait *next; w; w = next) {
        next = w->next;
        w->next = NULL;
        if (hub_more(m, w->ctx)) {
            *end = w;
            end = &w->next;
        } else {
            *m->last = w;
            m->last = &w->next;
            m->n_wait++;
            m->turn = m->hub->turns++;
        }
    }
    struct err why = *e;
    err_set(e, ERR_LIMIT, "no memory for a context of %zu tokens: ask for a shorter one (%.300s)",
            ctx, why.text);
    return refused;
}

/* Called with `lock` held, which is released meanwhile. *e: why not. */
static int hub_load(struct hub_model *m, struct err *e)
{
    struct hub *h = m->hub;
    struct engine *g = NULL;
    struct sched *s = NULL;
    size_t ctx = hub_wanted(m), asked = hub_asked(m);
    double t = clock_seconds();
    m->state = HUB_LOADING;
    m->bytes = hub_estimate(m, ctx);
    if (m->base)
        m->base->uses++;
    pthread_mutex_unlock(&h->lock);
    int rc = hub_open(m, ctx, &g, &s, e);
    if (rc)
        hub_fault(m, e);
    t = clock_seconds() - t;
    if (rc)
        log_line(h->o.log, LOG_ERROR, "%s: not loaded: %s", hub_info(m)->name, e->text);
    else
        log_line(h->o.log, LOG_INFO, "%s: loaded in %.1f s, context %zu", hub_info(m)->name, t,
                 engine_info(g)->ctx);
    pthread_mutex_lock(&h->lock);
    m->leaving = false;
    m->state = rc ? HUB_OFF : HUB_READY;
    m->bytes = 0;
    if (!rc) {
        const struct engine_info *i = engine_info(g);
        m->engine = g;
        m->asked = asked; /* where memory gave less, asking again gives no more */
        m->bytes = i->weight_bytes + i->kv_token_bytes * i->cache + i->scratch_bytes;
        if (!m->base) /* else those of the base */
            m->bytes += i->mapped_bytes;
        m->used = clock_seconds();
        m->expires = h->o.keep_alive < 0 ? INFINITY : m->used + h->o.keep_alive;
        pthread_rwlock_wrlock(&m->door);
        m->sched = s;
        pthread_rwlock_unlock(&m->door);
        pthread_mutex_lock(&h->beat);
        m->steps = m->awake = true;
        pthread_cond_broadcast(&h->work);
        pthread_mutex_unlock(&h->beat);
    }
    if (rc && m->base)
        hub_release(m->base);
    struct hub_wait *w = hub_take_waits(m);
    if (!rc)
        w = hub_serve(m, w);
    else if (rc == ERR_NOMEM && ctx)
        w = hub_too_long(m, w, ctx, e);
    pthread_mutex_unlock(&h->lock);
    hub_answer(w, m, g, rc ? e : NULL);
    pthread_mutex_lock(&h->lock);
    return rc;
}

/* The files of a model that is about to be loaded may have changed since they were looked at. When
   they cannot be served any more, those who wait are told, and the answer is false. Called with
   `lock` held, which is released meanwhile. */
static bool hub_look(struct hub_model *m)
{
    struct err e = {0};
    struct hub *h = m->hub;
    if (!(m->base && m->base->state == HUB_OFF && hub_renew(m->base, &e)) && !hub_renew(m, &e))
        return true;
    hub_fault(m, &e);
    struct hub_wait *w = hub_take_waits(m);
    pthread_mutex_unlock(&h->lock);
    log_line(h->o.log, LOG_ERROR, "%s: not loaded: %s", hub_info(m)->name, e.text);
    hub_answer(w, m, NULL, &e);
    pthread_mutex_lock(&h->lock);
    return false;
}

/* An adapter, for which its base has to be there first. Nothing happens while that is about to go.
 * Called with `lock` held, which is released meanwhile; false: nothing was done. */
static bool hub_load_adapter(struct hub_model *m)
{
    struct err e = {0};
    struct hub *h = m->hub;
    if (m->base->state == HUB_OFF && hub_load(m->base, &e)) {
        struct hub_wait *w = hub_take_waits(m);
        pthread_mutex_unlock(&h->lock);
        hub_answer(w, m, NULL, &e);
        pthread_mutex_lock(&h->lock);
        return true;
    }
    if (m->base->state != HUB_READY || m->base->leaving)
        return false;
    hub_load(m, &e);
    return true;
}

/* ---- the loading thread --------------------------------------------------------------------- */

/* Takes no new uses: it is to be unloaded, or what its weights are from. */
static bool hub_leaves(const struct hub_model *m)
{
    return m->leaving || (m->base && (m->base->leaving || m->base->state == HUB_BROKEN));
}

/* The next to be unloaded for its own reasons; *when: the time of the next one after that. */
static struct hub_model *hub_next_unload(const struct hub *h, double *when)
{
    double now = clock_seconds();
    *when = INFINITY;
    for (size_t i = 0; i < h->n; i++) {
        struct hub_model *m = h->model[i];
        if (m->uses || (m->state != HUB_READY && m->state != HUB_BROKEN))
            continue;
        if (m->state == HUB_BROKEN || hub_leaves(m) || now >= m->expires)
            return m;
        *when = fmin(*when, m->expires);
    }
    return NULL;
}

static struct hub_model *hub_next_load(const struct hub *h)
{
    struct hub_model *best = NULL;
    for (size_t i = 0; i < h->n; i++) {
        struct hub_model *m = h->model[i];
        if (m->state == HUB_OFF && m->first && (!best || m->turn < best->turn))
            best = m;
    }
    return best;
}

/* True when there is room for m. Else *victim is who can be unloaded now, or NULL: somebody was
   told to leave. */
static bool hub_room(const struct hub *h, const struct hub_model *m, struct hub_model **victim)
{
    uint64_t total = hub_estimate(m, hub_wanted(m));
    size_t count = 1;
    struct hub_model *idle = NULL, *busy = NULL;
    bool leaving = false, alone = true;
    if (m->base && m->base->state == HUB_OFF)
        total += hub_estimate(m->base, hub_wanted(m->base));
    for (size_t i = 0; i < h->n; i++) {
        struct hub_model *x = h->model[i];
        if (x == m || x->state == HUB_OFF)
            continue;
        total += x->bytes;
        if (x == m->base) /* it has to be there */
            continue;
        alone = false;
        count += !x->base;
        leaving |= x->leaving;
        struct hub_model **best = x->uses ? &busy : &idle;
        if (x->state == HUB_READY && (!*best || x->used < (*best)->used))
            *best = x;
    }
    *victim = NULL;
    if (alone || (total <= h->memory && (!h->o.loaded || count <= h->o.loaded)))
        return true;
    if (idle)
        *victim = idle;
    else if (busy && !leaving)
        busy->leaving = true;
    return false;
}

static void hub_sleep(struct hub *h, double until)
{
    if (isinf(until)) {
        pthread_cond_wait(&h->change, &h->lock);
        return;
    }
    double wait = fmin(fmax(until - clock_seconds(), 0), 3600);
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t ns = t.tv_nsec + (int64_t)(wait * 1e9);
    t.tv_sec += ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    pthread_cond_timedwait(&h->change, &h->lock, &t);
}

static void *hub_loader(void *arg)
{
    struct hub *h = arg;
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        double when;
        struct hub_model *m = hub_next_unload(h, &when), *victim = NULL;
        for (size_t i = 0; i < h->n && !m; i++)
            if (h->model[i]->state == HUB_BROKEN && h->model[i]->sched) {
                /* Its requests must end before it can go. */
                m = h->model[i];
                pthread_mutex_unlock(&h->lock);
                hub_close_sched(m);
                pthread_mutex_lock(&h->lock);
                break;
            }
        if (m) {
            if (!m->uses)
                hub_unload_now(m);
            continue;
        }
        m = hub_next_load(h);
        if (m && !hub_look(m))
            continue;
        bool room = m && hub_room(h, m, &victim);
        struct err e = {0};
        if (room && !m->base)
            hub_load(m, &e);
        else if (room && hub_load_adapter(m))
            continue;
        else if (victim)
            hub_unload_now(victim);
        else
            hub_sleep(h, when);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- use ------------------------------------------------------------------------------------ */

void hub_get(struct hub *h, struct hub_model *m, size_t ctx,
             void (*ready)(void *arg, const struct hub_use *u, const struct err *e), void *arg)
{
    struct err e = {0};
    struct hub_use u = {.model = m};
    int rc = 0;
    ctx = hub_ctx(m, ctx);
    pthread_mutex_lock(&h->lock);
    bool small = m->state == HUB_READY && hub_small(m, ctx);
    if (h->stopping) {
        rc = err_set(&e, ERR_CANCELLED, "the server is stopping");
    } else if (m->state == HUB_READY && !hub_leaves(m) && !small) {
        m->uses++;
        m->used = clock_seconds();
        u.engine = m->engine;
    } else if (hub_ctx_fits(m, ctx, &e)) {
        rc = e.code;
    } else if (m->n_wait >= (h->o.sched.queue ? h->o.sched.queue : HUB_WAITS)) {
        rc = err_set(&e, ERR_BUSY, "%zu requests are waiting for the model already", m->n_wait);
    } else {
        struct hub_wait *w = calloc(1, sizeof *w);
        if (w) {
            *w = (struct hub_wait){ready, arg, ctx, clock_seconds(), NULL};
            if (!m->first)
                m->turn = h->turns++;
            *m->last = w;
            m->last = &w->next;
            m->n_wait++;
            m->leaving |= small;
            pthread_cond_broadcast(&h->change);
        } else {
            rc = err_nomem(&e, sizeof *w, "a request");
        }
    }
    pthread_mutex_unlock(&h->lock);
    if (rc || u.engine)
        ready(arg, rc ? NULL : &u, rc ? &e : NULL);
}

void hub_put(const struct hub_use *u, double keep_alive)
{
    struct hub_model *m = u->model;
    struct hub *h = m->hub;
    double keep = isnan(keep_alive) ? h->o.keep_alive : keep_alive;
    pthread_mutex_lock(&h->lock);
    m->uses--;
    m->used = clock_seconds();
    m->expires = keep < 0 ? INFINITY : m->used + keep;
    pthread_cond_broadcast(&h->change);
    pthread_mutex_unlock(&h->lock);
}

int hub_submit(const struct hub_use *u, const struct request_params *p, struct request **out,
               struct err *e)
{
    struct hub_model *m = u->model;
    pthread_rwlock_rdlock(&m->door);
    int rc = m->sched ? sched_submit(m->sched, p, out, e)
                      : err_set(e, ERR_CANCELLED, "the model is being unloaded");
    pthread_rwlock_unlock(&m->door);
    return rc;
}

bool hub_unload(struct hub *h, struct hub_model *m)
{
    pthread_mutex_lock(&h->lock);
    bool loaded = m->state == HUB_READY;
    m->leaving |= loaded;
    pthread_cond_broadcast(&h->change);
    pthread_mutex_unlock(&h->lock);
    return loaded;
}

void hub_loaded(struct hub *h,
                void (*fn)(void *arg, const struct hub_info *i, const struct engine_info *ei,
                           const struct sched_stats *st, double expires, uint64_t bytes),
                void *arg)
{
    for (size_t i = 0; i < h->n; i++) {
        struct hub_model *m = h->model[i];
        struct sched_stats st = {0};
        struct timespec t;
        pthread_mutex_lock(&h->lock);
        struct engine *g = m->state == HUB_READY ? m->engine : NULL;
        double left = m->expires - clock_seconds();
        uint64_t bytes = m->bytes;
        m->uses += g != NULL;
        pthread_mutex_unlock(&h->lock);
        if (!g)
            continue;
        pthread_rwlock_rdlock(&m->door);
        if (m->sched)
            sched_stats(m->sched, &st);
        pthread_rwlock_unlock(&m->door);
        clock_gettime(CLOCK_REALTIME, &t);
        fn(arg, hub_info(m), engine_info(g), &st,
           (double)t.tv_sec + (double)t.tv_nsec * 1e-9 + fmax(left, 0), bytes);
        pthread_mutex_lock(&h->lock); /* no use that counts for its keep-alive */
        m->uses--;
        pthread_cond_broadcast(&h->change);
        pthread_mutex_unlock(&h->lock);
    }
}

/* ---- making and freeing --------------------------------------------------------------------- */

static int hub_threads(struct hub *h, struct err *e)
{
    if (!(errno = pthread_create(&h->computer, NULL, hub_compute, h)))
        h->has_computer = true;
    if (h->has_computer && !(errno = pthread_create(&h->loader, NULL, hub_loader, h)))
        h->has_loader = true;
    return h->has_loader ? 0 : err_errno(e, "a thread");
}

int hub_new(struct hub **out, const struct hub_opts *o, struct err *e)
{
    pthread_condattr_t attr;
    *out = NULL;
    struct hub *h = calloc(1, sizeof *h);
    if (!h)
        return err_nomem(e, sizeof *h, "the models");
    h->o = *o;
    size_t avail = quota_memory("");
    h->memory = o->memory ? o->memory : avail == SIZE_MAX ? UINT64_MAX : avail / 4 * 3;
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->beat, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&h->change, &attr);
    pthread_cond_init(&h->work, &attr);
    pthread_condattr_destroy(&attr);
    int rc = hub_scan(h, e);
    if (!rc)
        rc = hub_threads(h, e);
    if (rc)
        hub_free(h);
    else
        *out = h;
    return rc;
}

void hub_stop(struct hub *h)
{
    static const struct err stop = {ERR_CANCELLED, "the server is stopping"};
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_broadcast(&h->change);
    for (size_t i = 0; i < h->n; i++) {
        struct hub_wait *w = hub_take_waits(h->model[i]);
        pthread_mutex_unlock(&h->lock);
        hub_answer(w, h->model[i], NULL, &stop);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    pthread_mutex_lock(&h->beat);
    h->ending = true;
    pthread_cond_broadcast(&h->work);
    pthread_mutex_unlock(&h->beat);
    if (h->has_computer)
        pthread_join(h->computer, NULL);
    if (h->has_loader)
        pthread_join(h->loader, NULL);
    h->has_loader = h->has_computer = false;
    for (size_t i = 0; i < h->n; i++)
        hub_close_sched(h->model[i]);
}

void hub_free(struct hub *h)
{
    if (!h)
        return;
    hub_stop(h);
    for (size_t i = 0; i < h->n; i++) {
        engine_free(h->model[i]->engine);
        hub_model_free(h->model[i]);
    }
    free(h->model);
    pthread_cond_destroy(&h->change);
    pthread_cond_destroy(&h->work);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->beat);
    free(h);
}
