/*
 * See machine.h. Memory: all threads read a buffer larger than the caches, in 2 MiB pages where the
 * system gives them, several times. Products: all threads multiply in registers. The best pass
 * counts, because on shared machines the others are disturbed ones.
 */
#include "cli/machine.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/quota.h"
#include "base/team.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MACHINE_CHUNK = 1 << 20,
    MACHINE_SMALL = 64 << 20,
    MACHINE_LARGE = 256 << 20,
    MACHINE_PASS_US = 2000, /* a pass of products takes at least so long */
};

struct machine {
    struct team *team;
    enum cpu_isa isa;
    uint8_t *buf; /* NULL until memory is measured */
    size_t chunks;
    size_t rounds[PEAK_KIND_COUNT]; /* of a thread in a pass of products; 0 = not yet known */
};

struct machine_job {
    enum peak_kind kind;
    enum cpu_isa isa;
    const uint8_t *buf;
    size_t work; /* of a chunk: bytes, or rounds */
    atomic_uint_least64_t done;
};

static void machine_touch(void *arg, size_t chunk, int worker)
{
    struct machine *m = arg;
    memset(m->buf + chunk * MACHINE_CHUNK, 1, MACHINE_CHUNK);
}

static void machine_work(void *arg, size_t chunk, int worker)
{
    struct machine_job *j = arg;
    const uint8_t *at = j->buf ? j->buf + chunk * MACHINE_CHUNK : NULL;
    atomic_fetch_add(&j->done, peak_run(j->kind, j->isa, at, j->work));
}

/* One pass over all chunks: what was done a second; the time in *took. */
static double machine_pass(struct machine *m, struct machine_job *j, size_t chunks, double *took)
{
    atomic_store(&j->done, 0);
    double t0 = clock_seconds();
    team_run(m->team, machine_work, j, chunks);
    *took = clock_seconds() - t0;
    return *took > 0 ? (double)atomic_load(&j->done) / *took : 0;
}

/* Four times the largest cache within the bounds, or at the least twice: a smaller buffer would
   measure the cache. 0 when that is more than a small part of what is free. */
static size_t machine_buffer(void)
{
    size_t cache = num_min(cpu_cache_bytes(), SIZE_MAX / 8), room = quota_memory("") / 8;
    size_t n = num_max(num_min(num_max(4 * cache, MACHINE_SMALL), MACHINE_LARGE), 2 * cache);
    n = num_round_up(n, MACHINE_CHUNK);
    if (n > room)
        n = num_round_up(num_max(2 * cache, MACHINE_SMALL / 4), MACHINE_CHUNK);
    return n <= room ? n : 0;
}

/* The buffer, touched by the threads that will read it. */
static bool machine_memory(struct machine *m)
{
    size_t n = m->buf ? 0 : machine_buffer();
    if (m->buf || !n)
        return m->buf != NULL;
    void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return false;
    madvise(p, n, MADV_HUGEPAGE);
    m->buf = p;
    m->chunks = n / MACHINE_CHUNK;
    team_run(m->team, machine_touch, m, m->chunks);
    return true;
}

static double machine_read(struct machine *m, double seconds)
{
    struct machine_job j = {.kind = PEAK_READ, .buf = m->buf, .work = MACHINE_CHUNK};
    double best = 0, took, end = clock_seconds() + seconds;
    for (int pass = 0; pass < 2 || clock_seconds() < end; pass++) {
        j.isa = pass % 2 && cpu_best() > CPU_AVX2 ? CPU_AVX2 : cpu_best();
        double rate = machine_pass(m, &j, m->chunks, &took);
        best = rate > best ? rate : best;
    }
    return best;
}

static double machine_products(struct machine *m, enum peak_kind kind, double seconds)
{
    struct machine_job j = {.kind = kind, .isa = m->isa, .work = num_max(m->rounds[kind], 1024)};
    size_t chunks = (size_t)team_threads(m->team);
    double best = 0, took = 0;
    if (!m->rounds[kind])
        while (machine_pass(m, &j, chunks, &took) > 0 && took < 1e-6 * MACHINE_PASS_US &&
               j.work < SIZE_MAX / 4)
            j.work *= 2;
    m->rounds[kind] = j.work;
    double end = clock_seconds() + seconds;
    do {
        double rate = machine_pass(m, &j, chunks, &took);
        best = rate > best ? rate : best;
    } while (clock_seconds() < end);
    return best;
}

double machine_measure(struct machine *m, enum peak_kind kind, double seconds)
{
    if (kind == PEAK_READ)
        return machine_memory(m) ? machine_read(m, seconds) : 0;
    return machine_products(m, kind, seconds);
}

int machine_new(struct machine **out, const struct machine_spec *s, struct err *e)
{
    *out = NULL;
    struct machine *m = calloc(1, sizeof *m);
    if (!m)
        return err_nomem(e, sizeof *m, "measuring the machine");
    m->isa = s->isa;
    int rc = team_new_on(&m->team, s->threads, s->topology, s->pin, e);
    if (rc)
        machine_free(m);
    else
        *out = m;
    return rc;
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    if (m->buf)
        munmap(m->buf, m->chunks * MACHINE_CHUNK);
    team_free(m->team);
    free(m);
}

double machine_bandwidth(const struct machine_spec *s, double seconds)
{
    struct machine *m;
    struct err e = {0};
    double v = machine_new(&m, s, &e) ? 0 : machine_measure(m, PEAK_READ, seconds);
    machine_free(m);
    return v;
}
