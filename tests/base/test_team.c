#include "base/team.h"

#include "base/clock.h"
#include "base/topology.h"
#include "support/fail_alloc.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum { CHUNKS_MAX = 5000 };

/* Plain memory on purpose: a chunk run twice, or a region that returns early, is a race that
   ThreadSanitizer sees and a wrong count that everybody sees. */
struct region {
    struct region *self;
    int threads;
    unsigned runs[CHUNKS_MAX];
    unsigned by_worker[TEAM_MAX];
    unsigned wrong;
};

static void count(void *arg, size_t chunk, int worker)
{
    struct region *r = arg;
    if (r->self != r || worker < 0 || worker >= r->threads)
        __builtin_trap();
    r->runs[chunk]++;
    r->by_worker[worker]++;
}

static void region_begin(struct team *t, struct region *r)
{
    memset(r, 0, sizeof *r);
    r->self = r;
    r->threads = team_threads(t);
}

static void region_end(struct region *r, size_t chunks)
{
    size_t sum = 0;
    for (int i = 0; i < r->threads; i++)
        sum += r->by_worker[i];
    assert_int_equal(sum, chunks);
    for (size_t i = 0; i < CHUNKS_MAX; i++)
        assert_int_equal(r->runs[i], i < chunks);
    r->self = NULL; /* a worker that still has the old region would trap */
}

static void run_and_check(struct team *t, struct region *r, size_t chunks, bool near)
{
    region_begin(t, r);
    (near ? team_run_near : team_run)(t, count, r, chunks);
    region_end(r, chunks);
}

struct second {
    struct region *first, own;
    size_t expect;
};

/* Reads plain memory that the first stage wrote. */
static void count_after(void *arg, size_t chunk, int worker)
{
    struct second *s = arg;
    for (size_t i = 0; i < s->expect; i++)
        if (s->first->runs[i] != 1)
            __builtin_trap();
    count(&s->own, chunk, worker);
}

static void a_second_stage_waits_for_the_first(void **state)
{
    static struct region first;
    static struct second then;
    static const size_t chunks[] = {0, 1, 2, 3, 7, 32, 500};
    for (int threads = 1; threads <= 5; threads++) {
        struct team *t;
        assert_int_equal(team_new(&t, threads, NULL), 0);
        for (int round = 0; round < 4; round++)
            for (size_t i = 0; i < 49; i++) {
                size_t a = chunks[i / 7], b = chunks[i % 7];
                region_begin(t, &first);
                region_begin(t, &then.own);
                then.own.self = &then.own;
                then.first = &first;
                then.expect = a;
                uint64_t before = team_regions(t);
                team_run_after(t, &(struct team_work){count, &first, a, false},
                               &(struct team_work){count_after, &then, b, round % 2});
                region_end(&first, a);
                region_end(&then.own, b);
                assert_true(team_regions(t) - before <= 1);
                if (threads > 1 && (a > 1 || b > 1))
                    assert_int_equal(team_regions(t) - before, 1);
            }
        team_free(t);
    }
}

static void mask_of(void *arg, size_t chunk, int worker)
{
    cpu_set_t *sets = arg;
    sched_getaffinity(0, sizeof *sets, &sets[worker]);
    usleep(2000); /* so that others come too */
}

static void bound_threads_stay_and_the_caller_is_let_go(void **state)
{
    struct topology *o;
    struct team *t;
    struct err e;
    static cpu_set_t before, after, sets[TEAM_MAX];
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    assert_int_equal(topology_new(&o, &e), 0);
    int n = o->n < 4 ? (int)o->n : 4;
    for (enum team_pin pin = TEAM_PIN_NODE; pin <= TEAM_PIN_CPU; pin++) {
        assert_int_equal(team_new_on(&t, n, o, pin, &e), 0);
        for (int round = 0; round < 20; round++)
            team_run(t, mask_of, sets, 2 * (size_t)n);
        cpu_set_t all;
        CPU_ZERO(&all);
        for (int i = 0; i < n; i++) {
            if (!CPU_COUNT(&sets[i]))
                continue; /* a worker that never came */
            if (pin == TEAM_PIN_CPU)
                assert_int_equal(CPU_COUNT(&sets[i]), 1);
            if (pin == TEAM_PIN_NODE && o->nodes == 1)
                assert_int_equal(CPU_COUNT(&sets[i]), o->n);
            cpu_set_t both;
            CPU_AND(&both, &all, &sets[i]);
            if (pin == TEAM_PIN_CPU)
                assert_int_equal(CPU_COUNT(&both), 0);
            CPU_OR(&all, &all, &sets[i]);
        }
        assert_true(CPU_COUNT(&sets[0]) > 0);
        team_free(t);
        assert_int_equal(sched_getaffinity(0, sizeof after, &after), 0);
        assert_true(CPU_EQUAL(&before, &after));
        memset(sets, 0, sizeof sets);
    }
    if (o->n < TEAM_MAX) {
        assert_int_equal(team_new_on(&t, (int)o->n + 1, o, TEAM_PIN_CPU, &e), ERR_USAGE);
        assert_null(t);
        assert_int_equal(team_new_on(&t, (int)o->n + 1, o, TEAM_PIN_NODE, &e), 0);
        team_free(t);
    }
    topology_free(o);
}

static void every_chunk_runs_once(void **state)
{
    static struct region r;
    static const size_t chunks[] = {0, 1, 2, 3, 4, 5, 7, 8, 31, 64, 100, 1000, CHUNKS_MAX};
    for (int threads = 1; threads <= 5; threads++) {
        struct team *t;
        struct err e;
        assert_int_equal(team_new(&t, threads, &e), 0);
        assert_int_equal(team_threads(t), threads);
        for (int round = 0; round < 3; round++)
            for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
                run_and_check(t, &r, chunks[i], false);
                run_and_check(t, &r, chunks[i], true);
            }
        team_free(t);
    }
}

static void touch(void *arg, size_t chunk, int worker)
{
    size_t *counts = *(size_t **)arg;
    counts[chunk]++;
}

/* Many tiny regions whose arguments live only as long as the region, back to back. */
static void tiny_regions_do_not_mix(void **state)
{
    for (int threads = 2; threads <= 5; threads++) {
        struct team *t;
        assert_int_equal(team_new(&t, threads, NULL), 0);
        for (size_t i = 0; i < 20000; i++) {
            size_t counts[8] = {0}, *p = counts, chunks = i % 8 + 1;
            team_run(t, touch, &p, chunks);
            for (size_t k = 0; k < 8; k++)
                if (counts[k] != (k < chunks))
                    fail_msg("region %zu: chunk %zu ran %zu times", i, k, counts[k]);
            p = NULL;
        }
        team_free(t);
    }
}

/* Pauses around the spin time: workers fall asleep at every possible moment. */
static void regions_between_sleeps(void **state)
{
    static struct region r;
    for (int threads = 2; threads <= 3; threads++) {
        struct team *t;
        assert_int_equal(team_new(&t, threads, NULL), 0);
        for (unsigned i = 0; i < 400; i++) {
            run_and_check(t, &r, i % 5 + 1, i % 2);
            struct timespec pause = {.tv_nsec = (long)(i * 7919 % 300) * 1000};
            nanosleep(&pause, NULL);
        }
        team_free(t);
    }
}

static void slow_chunk(void *arg, size_t chunk, int worker)
{
    double until = clock_seconds() + (worker == 0 ? 0 : 2e-3);
    while (clock_seconds() < until)
        ;
    ((unsigned *)arg)[chunk]++;
}

/* Long chunks of others: the caller sleeps and is woken. */
static void the_caller_waits_for_claimed_chunks(void **state)
{
    struct team *t;
    assert_int_equal(team_new(&t, 3, NULL), 0);
    for (int i = 0; i < 50; i++) {
        unsigned runs[3] = {0};
        team_run(t, slow_chunk, runs, 3);
        assert_true(runs[0] == 1 && runs[1] == 1 && runs[2] == 1);
    }
    team_free(t);
}

static void remember_thread(void *arg, size_t chunk, int worker)
{
    ((pthread_t *)arg)[chunk] = pthread_self();
}

static void one_chunk_or_thread_stays_in_the_caller(void **state)
{
    struct team *t;
    pthread_t who[3];
    assert_int_equal(team_new(&t, 4, NULL), 0);
    for (int i = 0; i < 100; i++) {
        team_run(t, remember_thread, who, 1);
        assert_true(pthread_equal(who[0], pthread_self()));
    }
    team_free(t);
    assert_int_equal(team_new(&t, 1, NULL), 0);
    team_run(t, remember_thread, who, 3);
    for (int i = 0; i < 3; i++)
        assert_true(pthread_equal(who[i], pthread_self()));
    team_free(t);
}

static double cpu_seconds(void)
{
    struct timespec c;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &c);
    return (double)c.tv_sec + 1e-9 * (double)c.tv_nsec;
}

static void an_idle_team_burns_nothing(void **state)
{
    static struct region r;
    struct team *t;
    assert_int_equal(team_new(&t, 4, NULL), 0);
    run_and_check(t, &r, 100, false);
    usleep(50000); /* all asleep */
    double before = cpu_seconds();
    usleep(200000);
    assert_true(cpu_seconds() - before < 0.05);
    team_free(t);
}

static void senseless_sizes_are_refused(void **state)
{
    struct err e;
    struct team *t = (struct team *)1;
    assert_int_equal(team_new(&t, -1, &e), ERR_USAGE);
    assert_null(t);
    assert_int_equal(team_new(&t, TEAM_MAX + 1, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "257"));
    team_free(NULL);
    struct topology *o;
    assert_int_equal(topology_new(&o, &e), 0);
    assert_int_equal(team_new(&t, 0, &e), 0);
    assert_int_equal(team_threads(t), topology_threads(o));
    team_free(t);
    topology_free(o);
}

static void no_memory_is_an_error(void **state)
{
    struct err e;
    struct team *t;
    struct topology *o;
    assert_int_equal(topology_new(&o, &e), 0);
    fail_alloc_at(1);
    int rc = team_new_on(&t, 2, o, TEAM_PIN_NONE, &e);
    assert_true(fail_alloc_stop());
    assert_int_equal(rc, ERR_NOMEM);
    assert_null(t);
    topology_free(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_chunk_runs_once),
        cmocka_unit_test(a_second_stage_waits_for_the_first),
        cmocka_unit_test(bound_threads_stay_and_the_caller_is_let_go),
        cmocka_unit_test(tiny_regions_do_not_mix),
        cmocka_unit_test(regions_between_sleeps),
        cmocka_unit_test(the_caller_waits_for_claimed_chunks),
        cmocka_unit_test(one_chunk_or_thread_stays_in_the_caller),
        cmocka_unit_test(an_idle_team_burns_nothing),
        cmocka_unit_test(senseless_sizes_are_refused),
        cmocka_unit_test(no_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
