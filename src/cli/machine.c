/*
 * See machine.h. Memory: all threads sum a buffer larger than any cache, in 2 MiB pages where the
 * system gives them, several times; the best pass counts, because on shared machines the others are
 * disturbed ones.
 */
#include "cli/machine.h"

#include "base/clock.h"
#include "base/quota.h"
#include "base/team.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

enum { MACHINE_CHUNK = 4 << 20, MACHINE_SMALL = 64 << 20, MACHINE_LARGE = 512 << 20 };

typedef uint64_t machine_vec __attribute__((vector_size(64)));

struct machine_read {
    uint8_t *p;
    uint64_t sums[TEAM_MAX][8]; /* a cache line a worker; keeps the reads from being dropped */
};

static void machine_touch(void *arg, size_t chunk, int worker)
{
    struct machine_read *m = arg;
    memset(m->p + chunk * MACHINE_CHUNK, 1, MACHINE_CHUNK);
}

static void machine_sum(void *arg, size_t chunk, int worker)
{
    struct machine_read *m = arg;
    const machine_vec *v = (const machine_vec *)(const void *)(m->p + chunk * MACHINE_CHUNK);
    machine_vec a = {0}, b = {0}, c = {0}, d = {0};
    for (size_t i = 0; i < MACHINE_CHUNK / sizeof *v; i += 4) {
        a += v[i];
        b += v[i + 1];
        c += v[i + 2];
        d += v[i + 3];
    }
    a += b + c + d;
    m->sums[worker][0] += a[0] ^ a[7];
}

double machine_bandwidth(int threads, double seconds)
{
    struct machine_read m = {0};
    struct team *t = NULL;
    double best = 0;
    size_t n = MACHINE_LARGE;
    while (n > MACHINE_SMALL && n > quota_memory("") / 4)
        n /= 2;
    m.p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m.p == MAP_FAILED)
        return 0;
    madvise(m.p, n, MADV_HUGEPAGE);
    if (!team_new(&t, threads, NULL)) {
        team_run(t, machine_touch, &m, n / MACHINE_CHUNK);
        double end = clock_seconds() + seconds;
        do {
            double t0 = clock_seconds();
            team_run(t, machine_sum, &m, n / MACHINE_CHUNK);
            double rate = (double)n / (clock_seconds() - t0);
            best = rate > best ? rate : best;
        } while (clock_seconds() < end);
    }
    team_free(t);
    munmap(m.p, n);
    return best;
}

double machine_int8_macs(int threads, double seconds)
{
    return 0;
}
