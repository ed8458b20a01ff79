/*
 * Collecting an importance matrix: the model reads a text in chunks, and what goes into each of its
 * matrix products is squared and summed per column (engine_observe).
 *
 * Chunks stand alone and begin with BOS where the model adds one, as for perplexity; every token
 * counts. Sums are in double, row after row, so that they do not depend on threads or batches.
 */
#ifndef PONDER_EVAL_IMATRIX_RUN_H
#define PONDER_EVAL_IMATRIX_RUN_H

#include "engine/engine.h"
#include "format/insums.h"

struct imatrix_params {
    size_t ctx;         /* tokens of a chunk, at most the engine's context */
    size_t skip, limit; /* chunks left out at the beginning; chunks at most, 0 = all */
    const int32_t *ids; /* (n) the text */
    size_t n;
    int32_t bos; /* takes the first token's place in each chunk; -1: nothing does */
    bool head;   /* also the output head, whose logits are then computed for every token */
    /* Called after each chunk, when m->chunks counts it; a non-zero return stops with it. */
    int (*progress)(void *arg, size_t done, size_t total, struct err *e);
    void *arg;
};

/* Chunks that the run will compute. ERR_LIMIT when the text has none. */
int imatrix_run_chunks(size_t *out, const struct imatrix_params *p, struct err *e);

/* Adds the text to `m`. After an error `m` holds whole chunks only up to the one that failed: do
   not save it, unless the error is that of `progress`. */
int imatrix_run(struct insums *m, struct engine *g, const struct imatrix_params *p, struct err *e);

#endif
