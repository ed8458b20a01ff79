/*
 * The thread team: fork-join regions in well under a microsecond.
 *
 * Workers wait on an epoch counter: they spin for a while (a token's serial parts are shorter than
 * a futex wake-up, about 60 us), then sleep in a futex, so that an idle program burns nothing. A
 * region hands out chunks from one atomic counter, because on shared machines the threads are never
 * equally fast. Results must not depend on which worker runs a chunk: each chunk writes its own
 * output, and reductions over chunks are done in chunk order by the caller (DESIGN: batch
 * invariance).
 *
 * The caller is worker 0 and takes part. Waiting for the last worker also spins, then sleeps.
 */
#ifndef PONDER_BASE_TEAM_H
#define PONDER_BASE_TEAM_H

#include "base/err.h"

struct team;

enum { TEAM_MAX = 256 };

/* How many threads make sense here: allowed CPUs (affinity), capped by the CPU quota of
   control groups v1 and v2. */
int team_default_threads(void);

/* threads = 0 takes the default; 1 makes a team without workers. Opaque, freed by team_free. */
int team_new(struct team **out, int threads, struct err *e);
void team_free(struct team *t); /* NULL is fine */
int team_threads(const struct team *t);

/*
 * Runs fn(arg, chunk, worker) for each chunk in [0, chunks), worker in [0, threads), and returns
 * when all are done. One chunk, or one thread, runs in the caller without waking anybody. Only one
 * region at a time per team, started by one thread at a time; fn must not call team_run on the same
 * team.
 */
void team_run(struct team *t, void (*fn)(void *arg, size_t chunk, int worker), void *arg,
              size_t chunks);

/*
 * The same, where chunks that follow one another are near in memory: each worker goes through a
 * range of its own from its beginning, and helps the others with theirs when it is done. So what a
 * worker fetched ahead at the end of a chunk is mostly what it takes next.
 */
void team_run_near(struct team *t, void (*fn)(void *arg, size_t chunk, int worker), void *arg,
                   size_t chunks);

#endif
