/*
 * A model that only looks: reward models and teachers. An engine of its own (any files, any types
 * of weights), through which sequences go in passes without gradients.
 *
 * Threads: one caller; the engine has a team of its own, which sleeps while nothing is asked.
 */
#ifndef PONDER_TRAIN_FROZEN_H
#define PONDER_TRAIN_FROZEN_H

#include "base/log.h"
#include "engine/engine.h"
#include "tensor/loss.h"
#include "train/data.h"

struct frozen;

struct frozen_opts {
    const char *path, *isa;
    const char *adapter; /* whose products are added, or NULL */
    int threads;
    const struct log *log;
    size_t pass_tokens, longest; /* as the trainer's */
};

int frozen_open(struct frozen **out, const struct frozen_opts *o, struct err *e);
void frozen_free(struct frozen *f); /* NULL is fine */
struct engine *frozen_engine(const struct frozen *f);
const struct kern *frozen_kern(const struct frozen *f);

/* States after the last norm of a pass's sequences, row by row; sequence i begins at row[i]. Valid
   until the next call. */
struct frozen_states {
    struct tensor hidden;
    const size_t *row; /* (n + 1) */
};
/* Of n sequences that fit into one pass. */
int frozen_look(struct frozen *f, const struct data_seq *seq, size_t n, struct frozen_states *out,
                struct err *e);
/* How many sequences from `first` on fit. */
int frozen_cut(const struct frozen *f, const struct data_batch *b, size_t first, size_t *n,
               struct err *e);
/* The head over rows of the last look: see loss_head. */
void frozen_head(struct frozen *f, struct tensor hidden, const bool *skip, loss_row *fn, void *arg);

#endif
