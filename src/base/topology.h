/*
 * Which processors this process may use, how they share cores, caches and memory, and in what
 * order compute threads take them.
 *
 * A *processor* is what the system schedules on: a hardware thread. Processors of one *core* share
 * its arithmetic units, so a second thread of a core adds little to products and takes from the
 * first: threads are by default as many as cores. Cores share a last-level *cache*; caches and a
 * part of the memory form a *node*.
 *
 * Order: first threads of all cores before second ones; among them, one of each node in turn, and
 * within a node one of each cache in turn. So few threads have all memory controllers and caches
 * to share between them. The threads that are chosen are then numbered node by node, so that
 * workers that follow one another, whose rows of a matrix do too (team_run_near), sit at the same
 * memory.
 *
 * Sources: hwloc where it was built in, else Linux' sysfs, else the affinity mask alone (every
 * processor a core). Left out: kinds of cores (performance, efficiency): chunks are handed out as
 * threads come, so the faster ones take more.
 */
#ifndef PONDER_BASE_TOPOLOGY_H
#define PONDER_BASE_TOPOLOGY_H

#include "base/err.h"

#include <stddef.h>

struct topology_cpu {
    unsigned os;      /* the system's number */
    unsigned node;    /* all three count from 0 in order of appearance */
    unsigned cache;   /* over all nodes */
    unsigned core;    /* over all nodes */
    unsigned sibling; /* which thread of its core, of those that may be used */
};

struct topology {
    char source[32];          /* who told: "hwloc", "sysfs", "affinity mask" */
    size_t n, cores, nodes;   /* that may be used */
    double quota;             /* CPUs' worth of time; 0: all of it */
    struct topology_cpu *cpu; /* (n) in the order in which threads take them */
};

/* What this process may use of this machine: affinity mask and control groups count. */
int topology_new(struct topology **out, struct err *e);
void topology_free(struct topology *t); /* NULL is fine */

/* How many threads make sense: cores, or as much of them as the quota gives, at least 1. */
size_t topology_threads(const struct topology *t);
/* And how many can run at the same time. */
size_t topology_most(const struct topology *t);

/* Places for threads [0, n), n ≤ t->n: indices into t->cpu, node by node. */
void topology_places(const struct topology *t, size_t n, size_t place[]);

/* One line: "16 cores with 32 threads, 2 memory nodes (hwloc)". */
void topology_describe(const struct topology *t, char *out, size_t cap);

#endif
