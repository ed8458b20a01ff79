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
 * Waiting: workers look at `left` for `spin` seconds, then count themselves in `sleepers` and sleep
 * on `epoch`, which each region steps. Either the caller sees the sleeper and wakes it or the
 * worker sees the new epoch (both sides are sequentially consistent: Dekker). The caller waits for
 * `done` in the same way, and sleeps on `caller_asleep`.
 *
 * Cache lines: what a claim touches is one line; `done` and the sleeping words have their own.
 */
#include "base/team.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/quota.h"

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

/* Longer than the serial parts of a token, of which sampling is the longest (0.1 to 0.4 ms with
   top-p over 49,000 to 152,000 tokens). With more threads than CPUs a spinning thread keeps the one
   from running that it waits for. */
static const double spin_seconds = 500e-6, spin_seconds_crowded = 2e-6;
/* The other side may be waiting for this CPU; but to yield is to give a neighbour's process its
   whole slice, some milliseconds, and most waits end before. */
static const double spin_yield_seconds = 50e-6;

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

    _Alignas(LINE) _Atomic uint32_t epoch; /* futex word of the workers: regions so far */
    _Atomic int sleepers;
    _Atomic bool stop;

    struct range {
        _Alignas(LINE) _Atomic size_t next; /* chunk of the range that nobody has taken */
    } range[TEAM_MAX];                      /* of team_run_near: one for each worker */

    int threads; /* with the caller */
    double spin;
    bool crowded; /* more threads than CPUs */
    struct worker workers[TEAM_MAX];
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
    if (now - s->start >= (t->crowded ? 0 : spin_yield_seconds))
        sched_yield();
    return now - s->start <= t->spin;
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

void team_run(struct team *t, team_fn *fn, void *arg, size_t chunks)
{
    if (t->threads == 1 || chunks <= 1) {
        for (size_t i = 0; i < chunks; i++)
            fn(arg, i, 0);
        return;
    }
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
    team_fn *fn;
    void *arg;
    size_t chunks;
};

static size_t near_begin(const struct near *n, size_t range)
{
    return n->chunks * range / (size_t)n->team->threads;
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
            n->fn(n->arg, i, worker);
            return;
        }
    }
}

void team_run_near(struct team *t, team_fn *fn, void *arg, size_t chunks)
{
    struct near n = {t, fn, arg, chunks};
    if (t->threads == 1 || chunks <= 1) {
        team_run(t, fn, arg, chunks);
        return;
    }
    for (int r = 0; r < t->threads; r++)
        atomic_store_explicit(&t->range[r].next, near_begin(&n, (size_t)r), memory_order_relaxed);
    team_run(t, near_chunk, &n, chunks);
}

/* CPUs that this process may run on, at least 1. */
static int allowed_cpus(void)
{
    for (size_t n = 1024; n <= 1 << 18; n *= 4) {
        cpu_set_t *set = CPU_ALLOC(n);
        if (!set)
            return 1;
        size_t bytes = CPU_ALLOC_SIZE(n);
        int rc = sched_getaffinity(0, bytes, set), no = errno;
        int count = rc == 0 ? CPU_COUNT_S(bytes, set) : 0;
        CPU_FREE(set);
        if (rc == 0)
            return count > 0 ? count : 1;
        if (no != EINVAL) /* EINVAL: the machine has more CPUs than the set */
            break;
    }
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n < INT_MAX ? (int)n : 1;
}

int team_default_threads(void)
{
    int n = allowed_cpus();
    double quota = quota_cpus("");
    /* A part of a CPU counts as one: less would leave some of the quota unused. */
    if (quota > 0 && quota < n)
        n = (int)quota + (quota > (int)quota);
    return n < 1 ? 1 : n > TEAM_MAX ? TEAM_MAX : n;
}

static void stop_workers(struct team *t, int last)
{
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->epoch, 1);
    futex_wake(&t->epoch, INT_MAX);
    for (int i = 1; i < last; i++)
        pthread_join(t->workers[i].thread, NULL);
}

int team_new(struct team **out, int threads, struct err *e)
{
    *out = NULL;
    int sensible = team_default_threads();
    if (threads == 0)
        threads = sensible;
    if (threads < 1 || threads > TEAM_MAX)
        return err_set(e, ERR_USAGE, "%d threads: from 1 to %d make sense", threads, TEAM_MAX);
    struct team *t = aligned_alloc(LINE, num_round_up(sizeof *t, LINE));
    if (!t)
        return err_nomem(e, sizeof *t, "the thread team");
    *t = (struct team){.threads = threads,
                       .crowded = threads > sensible,
                       .spin = threads > sensible ? spin_seconds_crowded : spin_seconds};
    /* Signals are the main thread's business. */
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int no = 0, i = 1;
    for (; i < threads; i++) {
        t->workers[i] = (struct worker){.team = t, .index = i};
        no = pthread_create(&t->workers[i].thread, NULL, worker_main, &t->workers[i]);
        if (no)
            break;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (no) {
        stop_workers(t, i);
        free(t);
        errno = no;
        return err_errno(e, "thread %d of %d cannot be started", i + 1, threads);
    }
    *out = t;
    return 0;
}

void team_free(struct team *t)
{
    if (!t)
        return;
    stop_workers(t, t->threads);
    free(t);
}

int team_threads(const struct team *t)
{
    return t->threads;
}
