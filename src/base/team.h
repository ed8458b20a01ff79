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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct team;
struct topology;

enum { TEAM_MAX = 256 };

/*
 * Where threads may run. Unbound ones are moved by the system when another process takes their
 * processor, which bound ones wait for; several programs that bind would all take the same
 * processors. So that is for a machine, or an affinity mask (taskset), of our own. With several
 * memory nodes a thread that moves leaves its weights behind: there it pays to stay on the node.
 */
enum team_pin {
    TEAM_PIN_NONE, /* wherever the process may */
    TEAM_PIN_NODE, /* on the processors of one memory node each */
    TEAM_PIN_CPU,  /* on one processor each */
};

const char *team_pin_name(enum team_pin pin); /* "not bound", "bound to their memory nodes", … */

/* threads = 0 takes as many as there are cores (topology_threads); 1 makes a team without workers.
   Not bound. Opaque, freed by team_free. */
int team_new(struct team **out, int threads, struct err *e);

/*
 * The same on processors that are known already; `o` outlives a bound team. Its workers are bound
 * at once, a thread that runs a region as worker 0 when it does so for the first time; team_free
 * lets it go again, when called by it.
 */
int team_new_on(struct team **out, int threads, const struct topology *o, enum team_pin pin,
                struct err *e);
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

/* Work of a region, or of a stage of it. */
struct team_work {
    void (*fn)(void *arg, size_t chunk, int worker);
    void *arg;
    size_t chunks;
    bool near; /* chunks in the order of team_run_near */
};

/*
 * Both as one region: no chunk of `then` begins before all of `first` are done. For a first stage
 * of short chunks, since who has none waits. `first` is handed out in its order.
 */
void team_run_after(struct team *t, const struct team_work *first, const struct team_work *then);

/* How many regions were shared between threads so far: of more than one chunk. */
uint64_t team_regions(const struct team *t);

#endif
