/*
 * Decoding as a server does it: requests that run together in the scheduler, with the model's
 * recommended sampling and text from tokens. Private to `ponder bench`.
 */
#ifndef PONDER_CLI_BENCH_SCHED_H
#define PONDER_CLI_BENCH_SCHED_H

#include "engine/engine.h"

/* `sequences` requests with prompts of `depth` tokens (at least one; request q's begins at ids[q])
   and answers of n tokens. *rate: tokens a second of all, once every prompt has been read. */
int bench_sched(struct engine *g, const int32_t *ids, size_t depth, size_t n, size_t sequences,
                double *rate, struct err *e);

#endif
