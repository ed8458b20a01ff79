/*
 * The thread team.
 *
 * One signed counter, `left`, is the whole protocol of a region: the caller stores the number of
 * chunks there, and whoever subtracts 1 and finds a positive number has claimed a chunk. A worker
 * that comes late finds zero or less and goes back to waiting, or it finds the chunks of a newer
 * region and may take one of those: it never has to know which region it belongs to.
 *
 *   Why a claim is safe: fn, arg and chunks are plain memory that is read only after a claim. The
 *   caller writes them before its release store of `left`, each subtraction continues that release
 *   sequence, so a claimer sees them. A region is over when `done` equals its chunks, and a
 *   claimer adds to `done` only after its last use of them; so they cannot change under a claimer,
 *   and the caller needs to wait for claimed chunks alone, not for workers.
 *
 * Two stages in one region (team_run_after): chunks of the second wait for `first_done`, which the
 * first ones raise. Chunks are claimed in order, so those that are waited for are running.
 *
 * Waiting: workers look at `left` for a while, then count themselves in `sleepers` and sleep
 * on `epoch`, which each region steps. Either the caller sees the sleeper and wakes it or the
 * worker sees the new epoch (both sides are sequentially consistent: Dekker). The caller waits for
 * `done` in the same way, and sleeps on `caller_asleep`.
 *
 * Cache lines: what a claim touches is one line; `done` and the sleeping words have their own.
 */
#include "base/team.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/topology.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LINE = 64, SPINS_PER_LOOK = 32 };

/*
 * How long a thread looks for what it waits for before it offers its CPU to others, and before it
 * sleeps. The second is longer than the serial parts of a token, of which sampling is the longest
 * (0.1 to 0.4 ms with top-p over 49,000 to 152,000 tokens). To yield is to give a neighbour's
 * process its whole slice, some milliseconds, and most waits end before. With more threads than
 * CPUs a spinning thread keeps the one from running that it waits for.
 */
struct patience {
    double yield, sleep; /* seconds */
};
static const struct patience patience_alone = {50e-6, 500e-6}, patience_crowded = {0, 2e-6};

typedef void team_fn(void *arg, size_t chunk, int worker);

struct worker {
    struct team *team;
    pthread_t thread;
    int index;
};

struct team {
    _Alignas(LINE) _Atomic int64_t left; /* chunks not yet claimed; below 0 after vain tries */
    team_fn *fn;
    void *arg;
    size_t chunks;

    _Alignas(LINE) _Atomic size_t done; /* chunks finished */
    _Atomic uint32_t caller_asleep;     /* futex word of the caller */
    _Atomic size_t first_done;          /* of team_run_after: chunks of its first stage */

    _Alignas(LINE) _Atomic uint32_t epoch; /* futex word of the workers: regions so far */
    _Atomic int sleepers;
    _Atomic bool stop;

    struct range {
        _Alignas(LINE) _Atomic size_t next; /* chunk of the range that nobody has taken */
    } range[TEAM_MAX];                      /* of team_run_near: one for each worker */

    int threads; /* with the caller */
    struct patience patience;
    uint64_t regions;
    struct worker workers[TEAM_MAX];

    enum team_pin pin;
    const struct topology *topology; /* of a pinned team, else NULL */
    size_t place[TEAM_MAX];          /* of each thread: index into its processors */
    size_t set_cpus;                 /* that the sets below have room for */
    cpu_set_t *set, *before;         /* to bind with; where the caller might run before */
    pthread_t caller;                /* whom we bound as worker 0 */
    bool bound;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* Claims and runs chunks until none is left; returns how many, and adds them to done. */
static void work(struct team *t, int worker)
{
    size_t n = 0, chunks = 0;
    for (;;) {
        int64_t left = atomic_fetch_sub_explicit(&t->left, 1, memory_order_acq_rel);
        if (left <= 0)
            break;
        chunks = t->chunks;
        t->fn(t->arg, chunks - (size_t)left, worker);
        n++;
    }
    if (!n)
        return;
    size_t before = atomic_fetch_add(&t->done, n);
    /* From here on the region may be over: only atomics may be touched. */
    if (worker != 0 && before + n == chunks && atomic_load(&t->caller_asleep) &&
        atomic_exchange(&t->caller_asleep, 0))
        futex_wake(&t->caller_asleep, 1);
}

struct spin {
    unsigned looks;
    double start;
};

/* A moment between two looks; false when time is up. */
static bool spin_more(const struct team *t, struct spin *s)
{
    relax();
    if (++s->looks % SPINS_PER_LOOK)
        return true;
    double now = clock_seconds();
    if (s->start == 0)
        s->start = now;
    if (now - s->start >= t->patience.yield)
        sched_yield();
    return now - s->start <= t->patience.sleep;
}

/* Spins until there is a chunk to claim (true) or time is up (false). */
static bool spin_for_work(struct team *t)
{
    struct spin s = {0};
    do {
        if (atomic_load_explicit(&t->left, memory_order_relaxed) > 0 ||
            atomic_load_explicit(&t->stop, memory_order_relaxed))
            return true;
    } while (spin_more(t, &s));
    return false;
}

static void *worker_main(void *p)
{
    struct worker *w = p;
    struct team *t = w->team;
    while (!atomic_load_explicit(&t->stop, memory_order_acquire)) {
        uint32_t seen = atomic_load(&t->epoch);
        if (spin_for_work(t)) {
            work(t, w->index);
            continue;
        }
        atomic_fetch_add(&t->sleepers, 1);
        if (atomic_load(&t->epoch) == seen)
            futex_wait(&t->epoch, seen);
        atomic_fetch_sub(&t->sleepers, 1);
    }
    return NULL;
}

/* The caller has nothing more to claim: waits for what others have claimed. */
static void wait_done(struct team *t, size_t chunks)
{
    struct spin s = {0};
    do {
        if (atomic_load_explicit(&t->done, memory_order_acquire) == chunks)
            return;
    } while (spin_more(t, &s));
    for (;;) {
        atomic_store(&t->caller_asleep, 1);
        if (atomic_load(&t->done) == chunks)
            break;
        futex_wait(&t->caller_asleep, 1);
    }
    atomic_store(&t->caller_asleep, 0);
}

/* ---- binding --------------------------------------------------------------------------------- */

/* Where thread `worker` may run, into t->set: its processor, or those of its node. */
static void pin_set(struct team *t, int worker)
{
    const struct topology *o = t->topology;
    const struct topology_cpu *own = &o->cpu[t->place[worker]];
    size_t bytes = CPU_ALLOC_SIZE(t->set_cpus);
    CPU_ZERO_S(bytes, t->set);
    for (size_t i = 0; i < o->n; i++)
        if (&o->cpu[i] == own || (t->pin == TEAM_PIN_NODE && o->cpu[i].node == own->node))
            CPU_SET_S(o->cpu[i].os, bytes, t->set);
}

/*
 * Binds whoever calls a region as worker 0; the thread that made the team may not be the one that
 * computes. That it fails is no harm: the thread stays where it was.
 */
static void pin_caller(struct team *t)
{
    size_t bytes = CPU_ALLOC_SIZE(t->set_cpus);
    if (!t->topology || (t->bound && pthread_equal(t->caller, pthread_self())))
        return;
    t->caller = pthread_self();
    t->bound = pthread_getaffinity_np(t->caller, bytes, t->before) == 0;
    pin_set(t, 0);
    if (t->bound)
        pthread_setaffinity_np(t->caller, bytes, t->set);
}

static void pin_release(struct team *t)
{
    if (t->bound && pthread_equal(t->caller, pthread_self()))
        pthread_setaffinity_np(t->caller, CPU_ALLOC_SIZE(t->set_cpus), t->before);
    if (t->set)
        CPU_FREE(t->set);
    if (t->before)
        CPU_FREE(t->before);
}

static int pin_init(struct team *t, const struct topology *o, enum team_pin pin, struct err *e)
{
    if (pin == TEAM_PIN_NONE)
        return 0;
    if (pin == TEAM_PIN_CPU && (size_t)t->threads > o->n)
        return err_set(e, ERR_USAGE,
                       "%d threads cannot be bound to a processor each: this process may use %zu",
                       t->threads, o->n);
    t->pin = pin;
    t->topology = o;
    t->set_cpus = 1024;
    for (size_t i = 0; i < o->n; i++)
        t->set_cpus = num_max(t->set_cpus, o->cpu[i].os + 1);
    topology_places(o, (size_t)t->threads, t->place);
    for (size_t i = o->n; i < (size_t)t->threads; i++)
        t->place[i] = t->place[i - o->n];
    t->set = CPU_ALLOC(t->set_cpus);
    t->before = CPU_ALLOC(t->set_cpus);
    if (!t->set || !t->before)
        return err_nomem(e, CPU_ALLOC_SIZE(t->set_cpus), "binding threads");
    return 0;
}

static int pin_worker(struct team *t, int worker, struct err *e)
{
    if (!t->topology)
        return 0;
    pin_set(t, worker);
    int no = pthread_setaffinity_np(t->workers[worker].thread, CPU_ALLOC_SIZE(t->set_cpus), t->set);
    errno = no;
    return no ? err_errno(e, "thread %d cannot be bound to processor %u", worker + 1,
                          t->topology->cpu[t->place[worker]].os)
              : 0;
}

/* ---- regions --------------------------------------------------------------------------------- */

void team_run(struct team *t, team_fn *fn, void *arg, size_t chunks)
{
    pin_caller(t);
    if (t->threads == 1 || chunks <= 1) {
        for (size_t i = 0; i < chunks; i++)
            fn(arg, i, 0);
        return;
    }
    t->regions++;
    t->fn = fn;
    t->arg = arg;
    t->chunks = chunks;
    atomic_store_explicit(&t->done, 0, memory_order_relaxed);
    atomic_store_explicit(&t->left, (int64_t)chunks, memory_order_release);
    atomic_fetch_add(&t->epoch, 1);
    if (atomic_load(&t->sleepers) > 0)
        futex_wake(&t->epoch, (int)num_min(chunks - 1, TEAM_MAX));
    work(t, 0);
    wait_done(t, chunks);
}

struct near {
    struct team *team;
    struct team_work work;
};

static size_t near_begin(const struct near *n, size_t range)
{
    return n->work.chunks * range / (size_t)n->team->threads;
}

static void near_init(const struct near *n)
{
    for (int r = 0; r < n->team->threads; r++)
        atomic_store_explicit(&n->team->range[r].next, near_begin(n, (size_t)r),
                              memory_order_relaxed);
}

/*
 * The number that the counter gave is only a ticket: there are as many as chunks, so whoever holds
 * one finds a chunk in some range. A range that was seen empty stays so.
 */
static void near_chunk(void *arg, size_t ticket, int worker)
{
    const struct near *n = arg;
    (void)ticket;
    for (int k = 0, r = worker; k < n->team->threads;
         k++, r = r + 1 < n->team->threads ? r + 1 : 0) {
        size_t i = atomic_fetch_add_explicit(&n->team->range[r].next, 1, memory_order_relaxed);
        if (i < near_begin(n, (size_t)r + 1)) {
            n->work.fn(n->work.arg, i, worker);
            return;
        }
    }
}

void team_run_near(struct team *t, team_fn *fn, void *arg, size_t chunks)
{
    struct near n = {t, {fn, arg, chunks, true}};
    if (t->threads == 1 || chunks <= 1) {
        team_run(t, fn, arg, chunks);
        return;
    }
    near_init(&n);
    team_run(t, near_chunk, &n, chunks);
}

struct after {
    struct team *team;
    struct team_work first;
    struct near then;
};

static void after_chunk(void *arg, size_t chunk, int worker)
{
    struct after *a = arg;
    struct team *t = a->team;
    if (chunk < a->first.chunks) {
        a->first.fn(a->first.arg, chunk, worker);
        atomic_fetch_add_explicit(&t->first_done, 1, memory_order_release);
        return;
    }
    struct spin s = {0};
    while (atomic_load_explicit(&t->first_done, memory_order_acquire) < a->first.chunks)
        spin_more(t, &s);
    if (a->then.work.near)
        near_chunk(&a->then, 0, worker);
    else
        a->then.work.fn(a->then.work.arg, chunk - a->first.chunks, worker);
}

void team_run_after(struct team *t, const struct team_work *first, const struct team_work *then)
{
    struct after a = {t, *first, {t, *then}};
    if (t->threads == 1 || first->chunks <= 1) {
        team_run(t, first->fn, first->arg, first->chunks);
        (then->near ? team_run_near : team_run)(t, then->fn, then->arg, then->chunks);
        return;
    }
    near_init(&a.then);
    atomic_store_explicit(&t->first_done, 0, memory_order_relaxed);
    team_run(t, after_chunk, &a, first->chunks + then->chunks);
}

uint64_t team_regions(const struct team *t)
{
    return t->regions;
}

const char *team_pin_name(enum team_pin pin)
{
    static const char *const names[] = {[TEAM_PIN_NONE] = "not bound",
                                        [TEAM_PIN_NODE] = "bound to their memory nodes",
                                        [TEAM_PIN_CPU] = "bound to a processor each"};
    return names[pin];
}

/* ---- life ------------------------------------------------------------------------------------ */

static void stop_workers(struct team *t, int last)
{
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->epoch, 1);
    futex_wake(&t->epoch, INT_MAX);
    for (int i = 1; i < last; i++)
        pthread_join(t->workers[i].thread, NULL);
}

int team_new_on(struct team **out, int threads, const struct topology *o, enum team_pin pin,
                struct err *e)
{
    *out = NULL;
    int most = (int)num_min(topology_most(o), INT_MAX);
    if (threads == 0)
        threads = (int)num_min(topology_threads(o), TEAM_MAX);
    if (threads < 1 || threads > TEAM_MAX)
        return err_set(e, ERR_USAGE, "%d threads: from 1 to %d make sense", threads, TEAM_MAX);
    struct team *t = aligned_alloc(LINE, num_round_up(sizeof *t, LINE));
    if (!t)
        return err_nomem(e, sizeof *t, "the thread team");
    *t = (struct team){.threads = threads,
                       .patience = threads > most ? patience_crowded : patience_alone};
    int rc = pin_init(t, o, pin, e), no = 0, i = 1;
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (; i < threads && !rc; i++) {
        t->workers[i] = (struct worker){.team = t, .index = i};
        no = pthread_create(&t->workers[i].thread, NULL, worker_main, &t->workers[i]);
        errno = no;
        if (no) {
            rc = err_errno(e, "thread %d of %d cannot be started", i + 1, threads);
            break;
        }
        rc = pin_worker(t, i, e);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        stop_workers(t, i);
        pin_release(t);
        free(t);
        return rc;
    }
    *out = t;
    return 0;
}

int team_new(struct team **out, int threads, struct err *e)
{
    struct topology *o;
    *out = NULL;
    int rc = topology_new(&o, e);
    if (!rc)
        rc = team_new_on(out, threads, o, TEAM_PIN_NONE, e);
    topology_free(o);
    return rc;
}

void team_free(struct team *t)
{
    if (!t)
        return;
    stop_workers(t, t->threads);
    pin_release(t);
    free(t);
}

int team_threads(const struct team *t)
{
    return t->threads;
}
