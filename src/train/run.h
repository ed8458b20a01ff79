/*
 * A run folder: everything that one training stage leaves behind.
 *
 *     RUN/config.json      options, seeds, version, identity of the model: what the run is
 *     RUN/log.jsonl        one object a logged step: {"step":10,"loss":2.31,"learning_rate":0.0002}
 *     RUN/timings.jsonl    the same for what differs from run to run: seconds, tokens a second
 *     RUN/samples.jsonl    prompts, completions and their rewards
 *     RUN/metrics.sqlite   log and timings as a table, for queries (when SQLite was built in)
 *     RUN/checkpoints/     see train/checkpoint.h
 *     RUN/model/           the result
 *     RUN/plots/           curves
 *     RUN/.lock            held while a process writes here
 *
 * The same run has the same log.jsonl and samples.jsonl byte for byte, also after kill -9 and
 * resume: they hold no times, numbers are written in their shortest exact form, each line with one
 * call, and run_rewind cuts what came after the checkpoint that a run goes on from. The rule for
 * that: the line of step n is written before the checkpoint of step n, and run_sync between them.
 *
 * metrics.sqlite is made from the two logs and made anew by run_rewind, so it can be deleted.
 * A line that cannot be written whole (a full disk) is taken back, and the error says so.
 *
 * One process holds a run: flock on .lock, which the system lets go when its holder dies. One
 * thread at a time.
 */
#ifndef PONDER_TRAIN_RUN_H
#define PONDER_TRAIN_RUN_H

#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { RUN_PATH_MAX = 4096, RUN_VALUES_MAX = 512, RUN_KEY_MAX = 128 };

enum run_mode {
    RUN_NEW,       /* ERR_USAGE when the folder holds a run already */
    RUN_RESUME,    /* goes on with what is there, if there is something */
    RUN_OVERWRITE, /* removes what a run has left there, and only that */
};

struct run;

struct run_value {
    const char *key; /* TRL's names: "loss", "rewards/accuracy/mean" */
    double value;    /* NaN and infinities are written as null: JSON has none */
};

/*
 * Makes the folder (and those above it) when it is missing, takes the lock, opens the files. A new
 * run writes `config`, an object, to config.json; a resumed one leaves config.json as it is
 * (run_config reads it, run_config_same compares). ERR_BUSY: another process, which is named, is
 * writing there.
 */
int run_open(struct run **out, const char *dir, enum run_mode mode, const json_t *config,
             struct err *e);
void run_free(struct run *r); /* closes and lets go of the lock; NULL is fine */

bool run_resumed(const struct run *r); /* the folder held a run when it was opened */

/* {"step":N,KEY:VALUE,…} to log.jsonl. Steps never go back; several lines may have the same. */
int run_log(struct run *r, int64_t step, const struct run_value *v, size_t n, struct err *e);
/* The same to timings.jsonl. */
int run_timing(struct run *r, int64_t step, const struct run_value *v, size_t n, struct err *e);
/* {"step":N, members of `o`} to samples.jsonl. */
int run_sample(struct run *r, int64_t step, const json_t *o, struct err *e);

/* What was logged so far survives a power cut. Before a checkpoint is saved. */
int run_sync(struct run *r, struct err *e);

/*
 * Goes back to the end of step `step` (-1: to the beginning): later lines are cut off, also one
 * that was not written to its end. *dropped, if not NULL, is how many lines of log.jsonl those
 * were.
 */
int run_rewind(struct run *r, int64_t step, size_t *dropped, struct err *e);

/* config.json of a folder; a new reference. */
int run_config(json_t **out, const char *dir, struct err *e);

/*
 * Whether a run may go on with other options: 0, or ERR_USAGE that names the first member (a path
 * like "train.seed") that differs. `free` lists members that may, ended by NULL: "threads", ….
 */
int run_config_same(const json_t *was, const json_t *is, const char *const *free, struct err *e);

/* Whether a process of this machine is writing the run. */
bool run_active(const char *dir);

bool run_has_sqlite(void); /* whether this build writes metrics.sqlite */

#endif
