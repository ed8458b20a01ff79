/* See topology.h. */
#include "base/topology_impl.h"

#include "base/num.h"
#include "base/quota.h"

#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int topology_add(struct topology_list *l, const struct topology_cpu *cpu, struct err *e)
{
    if (l->n == TOPOLOGY_CPUS)
        return err_set(e, ERR_LIMIT, "more than %d processors", TOPOLOGY_CPUS);
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 64;
        struct topology_cpu *more = realloc(l->cpu, room * sizeof *more);
        if (!more)
            return err_nomem(e, room * sizeof *more, "the topology of the machine");
        l->cpu = more;
        l->room = room;
    }
    l->cpu[l->n++] = *cpu;
    return 0;
}

/* ---- sysfs ----------------------------------------------------------------------------------- */

/* The first number of a file that holds a list like "3,35-40"; `other` when there is none. */
static unsigned sysfs_first(const char *root, const char *fmt, unsigned cpu, unsigned other)
{
    char path[PATH_MAX], rest[64];
    unsigned v;
    int n = snprintf(rest, sizeof rest, fmt, cpu);
    int m = snprintf(path, sizeof path, "%s/sys/devices/system/%s", root, rest);
    FILE *f = n > 0 && (size_t)n < sizeof rest && m > 0 && (size_t)m < sizeof path
                  ? fopen(path, "re")
                  : NULL;
    if (!f)
        return other;
    bool got = fscanf(f, "%u", &v) == 1;
    fclose(f);
    return got ? v : other;
}

/* The node whose list has the processor, of the nodes that are there. */
static void sysfs_nodes(struct topology_list *l, const char *root)
{
    enum { NODES = 1024 };
    for (unsigned node = 0; node < NODES; node++) {
        char path[PATH_MAX];
        int n =
            snprintf(path, sizeof path, "%s/sys/devices/system/node/node%u/cpulist", root, node);
        FILE *f = n > 0 && (size_t)n < sizeof path ? fopen(path, "re") : NULL;
        unsigned from, to;
        while (f && fscanf(f, "%u", &from) == 1) {
            if (fscanf(f, "-%u", &to) != 1)
                to = from;
            for (size_t i = 0; i < l->n; i++)
                if (l->cpu[i].os >= from && l->cpu[i].os <= to)
                    l->cpu[i].node = node;
            if (fgetc(f) != ',')
                break;
        }
        if (f)
            fclose(f);
    }
}

void topology_sysfs(struct topology_list *l, const char *root, char source[32])
{
    bool known = false;
    for (size_t i = 0; i < l->n; i++) {
        struct topology_cpu *c = &l->cpu[i];
        unsigned core =
            sysfs_first(root, "cpu/cpu%u/topology/thread_siblings_list", c->os, UINT_MAX);
        known |= core != UINT_MAX;
        c->core = core == UINT_MAX ? c->os : core;
        c->node = 0;
    }
    sysfs_nodes(l, root);
    for (size_t i = 0; i < l->n; i++) /* without a third level, what a node is */
        l->cpu[i].cache = sysfs_first(root, "cpu/cpu%u/cache/index3/shared_cpu_list", l->cpu[i].os,
                                      TOPOLOGY_CPUS + l->cpu[i].node);
    snprintf(source, 32, "%s", known ? "sysfs" : "affinity mask");
}

/* ---- order ----------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const struct topology_cpu *x = a, *y = b;
    if (x->node != y->node)
        return x->node < y->node ? -1 : 1;
    if (x->cache != y->cache)
        return x->cache < y->cache ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    return (x->os > y->os) - (x->os < y->os);
}

/* A processor and its ranks: which cache of its node, which core of its cache. */
struct ranked {
    struct topology_cpu cpu;
    unsigned cache, core;
};

static int by_turn(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    if (x->cpu.sibling != y->cpu.sibling)
        return x->cpu.sibling < y->cpu.sibling ? -1 : 1;
    if (x->core != y->core)
        return x->core < y->core ? -1 : 1;
    if (x->cache != y->cache)
        return x->cache < y->cache ? -1 : 1;
    return by_place(&x->cpu, &y->cpu);
}

/* Sorted by place: numbers from 0, siblings and ranks. */
static void topology_rank(struct topology *t, struct ranked *r)
{
    struct topology_cpu last = {0}, now = {0};
    unsigned cache = 0, core = 0;
    for (size_t i = 0; i < t->n; i++) {
        struct topology_cpu c = t->cpu[i];
        bool node = i == 0 || c.node != last.node, new_cache = node || c.cache != last.cache;
        bool new_core = new_cache || c.core != last.core;
        if (i) {
            now.node += node;
            now.cache += new_cache;
            now.core += new_core;
        }
        now.sibling = new_core ? 0 : now.sibling + 1;
        cache = node ? 0 : cache + new_cache;
        core = new_cache ? 0 : core + new_core;
        now.os = c.os;
        r[i] = (struct ranked){now, cache, core};
        t->cores += new_core;
        t->nodes += node;
        last = c;
    }
    qsort(r, t->n, sizeof *r, by_turn);
    for (size_t i = 0; i < t->n; i++)
        t->cpu[i] = r[i].cpu;
}

int topology_order(struct topology **out, const struct topology_list *l,
                   bool (*may)(const void *arg, unsigned os), const void *arg, double quota,
                   const char *source, struct err *e)
{
    int rc = 0;
    *out = NULL;
    struct topology *t = calloc(1, sizeof *t);
    struct ranked *r = calloc(l->n + 1, sizeof *r);
    if (t)
        t->cpu = calloc(l->n + 1, sizeof *t->cpu);
    if (!t || !r || !t->cpu) {
        rc = err_nomem(e, l->n * sizeof *r, "the topology of the machine");
        goto out;
    }
    for (size_t i = 0; i < l->n; i++)
        if (!may || may(arg, l->cpu[i].os))
            t->cpu[t->n++] = l->cpu[i];
    if (!t->n) {
        rc = err_set(e, ERR_UNSUPPORTED, "%s knows none of the processors of this process", source);
        goto out;
    }
    snprintf(t->source, sizeof t->source, "%s", source);
    t->quota = quota;
    qsort(t->cpu, t->n, sizeof *t->cpu, by_place);
    topology_rank(t, r);
out:
    free(r);
    if (rc)
        topology_free(t);
    else
        *out = t;
    return rc;
}

void topology_places(const struct topology *t, size_t n, size_t place[])
{
    n = num_min(n, t->n);
    for (size_t i = 0; i < n; i++) /* by insertion: n is at most some hundreds */
        for (size_t k = i + 1; k-- > 0;) {
            if (k && by_place(&t->cpu[place[k - 1]], &t->cpu[i]) > 0) {
                place[k] = place[k - 1];
                continue;
            }
            place[k] = i;
            break;
        }
}

/* ---- this machine -----------------------------------------------------------------------------
 */

struct mask {
    cpu_set_t *set; /* NULL: not known */
    size_t bytes, n;
};

/* Processors that this thread may run on. */
static void mask_read(struct mask *m)
{
    for (m->n = 1024; m->n <= TOPOLOGY_CPUS; m->n *= 4) {
        m->set = CPU_ALLOC(m->n);
        m->bytes = CPU_ALLOC_SIZE(m->n);
        if (!m->set)
            return;
        if (sched_getaffinity(0, m->bytes, m->set) == 0 && CPU_COUNT_S(m->bytes, m->set) > 0)
            return;
        int no = errno;
        CPU_FREE(m->set);
        m->set = NULL;
        if (no != EINVAL) /* EINVAL: the machine has more processors than the set */
            return;
    }
}

static bool mask_may(const void *arg, unsigned os)
{
    const struct mask *m = arg;
    return !m->set || (os < m->n && CPU_ISSET_S(os, m->bytes, m->set));
}

/* Every processor of the mask a core. */
static int mask_list(const struct mask *m, struct topology_list *l, struct err *e)
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    size_t n = m->set ? m->n : online > 0 ? (size_t)online : 1;
    int rc = 0;
    l->n = 0;
    for (unsigned i = 0; i < n && !rc; i++)
        if (mask_may(m, i))
            rc = topology_add(l, &(struct topology_cpu){.os = i, .core = i}, e);
    return rc;
}

int topology_new(struct topology **out, struct err *e)
{
    struct topology_list l = {0};
    struct mask m = {0};
    char source[32] = "";
    struct err none;
    double quota = quota_cpus("");
    *out = NULL;
    mask_read(&m);
    int rc = topology_hwloc(&l, NULL, source, &none);
    if (!rc)
        rc = topology_order(out, &l, mask_may, &m, quota, source, &none);
    if (rc) {
        rc = mask_list(&m, &l, e);
        if (!rc) {
            topology_sysfs(&l, "", source);
            rc = topology_order(out, &l, NULL, NULL, quota, source, e);
        }
    }
    if (m.set)
        CPU_FREE(m.set);
    free(l.cpu);
    return rc;
}

void topology_free(struct topology *t)
{
    if (!t)
        return;
    free(t->cpu);
    free(t);
}

/* A part of a CPU counts as one: less would leave some of the quota unused. */
static size_t topology_within(const struct topology *t, size_t n)
{
    if (t->quota > 0 && t->quota < (double)n)
        n = (size_t)t->quota + (t->quota > (double)(size_t)t->quota);
    return num_max(n, 1);
}

size_t topology_threads(const struct topology *t)
{
    return topology_within(t, t->cores);
}

size_t topology_most(const struct topology *t)
{
    return topology_within(t, t->n);
}

static const char *topology_s(size_t n)
{
    return n == 1 ? "" : "s";
}

void topology_describe(const struct topology *t, char *out, size_t cap)
{
    char more[64] = "", quota[48] = "";
    if (t->n != t->cores)
        snprintf(more, sizeof more, " with %zu threads", t->n);
    if (t->quota > 0 && t->quota < (double)t->n)
        snprintf(quota, sizeof quota, ", a quota of %.3g", t->quota);
    snprintf(out, cap, "%zu core%s%s, %zu memory node%s%s (%s)", t->cores, topology_s(t->cores),
             more, t->nodes, topology_s(t->nodes), quota, t->source);
}
