/*
 * Ranks: processes that work on one training run, and what they tell each other.
 *
 * One process is a world of one rank, and every call below is then nothing or a copy. Started under
 * `mpirun -n N` (with Open MPI built in) there are N, a power of two, at most COMM_MAX.
 *
 * Sums have one order, whatever N is. A step's work is cut into COMM_MAX virtual shards (a power of
 * two), rank r has the r-th N-th of them, and the sum over all shards is a balanced binary tree:
 * ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)). A rank adds up its own subtree; comm_scatter_sum adds
 * the levels above it, neighbours first.
 *
 * Threads: one thread calls, the same always. A rank that dies ends the others with an error that
 * says so (comm_* return ERR_IO).
 */
#ifndef PONDER_COMM_COMM_H
#define PONDER_COMM_COMM_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct comm;

enum { COMM_MAX = 8 };

/* Joins the world that the process was started in. ERR_USAGE for a number of ranks that is no power
   of two or above COMM_MAX; ERR_UNSUPPORTED when started by mpirun without Open MPI built in. */
int comm_open(struct comm **out, struct err *e);
/* Lets go of it; a process may open it again. `failed`: all ranks end, at once. */
void comm_close(struct comm *c, int failed);
/* Before the process ends: launchers want to be told. Nothing without one. */
void comm_end(void);

int comm_rank(const struct comm *c);
int comm_size(const struct comm *c);
int comm_here(const struct comm *c); /* ranks that share this machine's memory */

/*
 * x (n) of all ranks summed in the order above. Afterwards x[*from, *to) holds the sums, the rest
 * is void: each rank has a part, cut at multiples of `unit` (a power of two).
 */
int comm_scatter_sum(struct comm *c, float *x, size_t n, size_t unit, size_t *from, size_t *to,
                     struct err *e);
/* The parts that comm_scatter_sum leaves with each rank. */
void comm_part(const struct comm *c, size_t n, size_t unit, size_t *from, size_t *to);
/* Every rank has its part of x: afterwards all of it. */
int comm_gather(struct comm *c, float *x, size_t n, size_t unit, struct err *e);

/* Of each x[i] the sum over ranks; exact when all but one rank have 0. */
int comm_sum(struct comm *c, double *x, size_t n, struct err *e);

/* Blocks of bytes of different lengths, rank by rank, to all: *out (n[0] + … bytes, malloc) and
   n[size]. */
int comm_all(struct comm *c, const void *mine, size_t bytes, void **out, size_t *n, struct err *e);

/* bytes of rank 0 to all. */
int comm_tell(struct comm *c, void *x, size_t bytes, struct err *e);

#endif
