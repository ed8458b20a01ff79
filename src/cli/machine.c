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
#include "kernels/peak.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
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
    enum peak_kind kind;
    enum cpu_isa isa;
    uint8_t *buf;
    size_t chunks;
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
    struct machine *m = arg;
    const uint8_t *at = m->buf ? m->buf + chunk * MACHINE_CHUNK : NULL;
    atomic_fetch_add(&m->done, peak_run(m->kind, m->isa, at, m->work));
}

/* One pass over all chunks: what was done a second; the time in *took. */
static double machine_pass(struct machine *m, double *took)
{
    atomic_store(&m->done, 0);
    double t0 = clock_seconds();
    team_run(m->team, machine_work, m, m->chunks);
    *took = clock_seconds() - t0;
    return *took > 0 ? (double)atomic_load(&m->done) / *took : 0;
}

static double machine_best(struct machine *m, double seconds)
{
    double best = 0, took, end = clock_seconds() + seconds;
    do {
        double rate = machine_pass(m, &took);
        best = rate > best ? rate : best;
    } while (clock_seconds() < end);
    return best;
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

double machine_bandwidth(int threads, double seconds)
{
    struct machine m = {.kind = PEAK_READ, .isa = cpu_best(), .work = MACHINE_CHUNK};
    double best = 0;
    size_t n = machine_buffer();
    if (!n)
        return 0;
    m.chunks = n / MACHINE_CHUNK;
    m.buf = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m.buf == MAP_FAILED)
        return 0;
    madvise(m.buf, n, MADV_HUGEPAGE);
    if (!team_new(&m.team, threads, NULL)) {
        team_run(m.team, machine_touch, &m, m.chunks);
        best = machine_best(&m, seconds);
    }
    team_free(m.team);
    munmap(m.buf, n);
    return best;
}

double machine_int8(int threads, enum cpu_isa isa, double seconds)
{
    struct machine m = {.kind = PEAK_INT8, .isa = isa, .work = 1024};
    double best = 0, took = 0;
    if (team_new(&m.team, threads, NULL))
        return 0;
    m.chunks = (size_t)team_threads(m.team);
    while (machine_pass(&m, &took) > 0 && took < 1e-6 * MACHINE_PASS_US && m.work < SIZE_MAX / 4)
        m.work *= 2;
    best = machine_best(&m, seconds);
    team_free(m.team);
    return best;
}
