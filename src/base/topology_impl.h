/* Private to base/: the sources of a topology, apart for tests. */
#ifndef PONDER_BASE_TOPOLOGY_IMPL_H
#define PONDER_BASE_TOPOLOGY_IMPL_H

#include "base/topology.h"

#include <stdbool.h>

enum { TOPOLOGY_CPUS = 1 << 16 }; /* more than any machine has; what a source may list at most */

/* Processors as a source lists them; node, cache and core in its own numbers. */
struct topology_list {
    struct topology_cpu *cpu;
    size_t n, room;
};

int topology_add(struct topology_list *l, const struct topology_cpu *cpu, struct err *e);

/*
 * All processors that hwloc knows: of this machine, or of a description of one ("pack:2 [numa] l3:2
 * core:4 pu:2", hwloc's words). ERR_UNSUPPORTED where hwloc was not built in or finds nothing.
 */
int topology_hwloc(struct topology_list *l, const char *synthetic, char source[32], struct err *e);

/* The same from /sys under `root`, for the processors of the list, whose other fields it sets. */
void topology_sysfs(struct topology_list *l, const char *root, char source[32]);

/*
 * Takes the processors of `l` that `may` allows and puts them in order. The result owns its memory
 * and has at least one processor, or it is an error.
 */
int topology_order(struct topology **out, const struct topology_list *l,
                   bool (*may)(const void *arg, unsigned os), const void *arg, double quota,
                   const char *source, struct err *e);

#endif
