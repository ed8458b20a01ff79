/*
 * Checkpoints: RUN/checkpoints/step-N/, whole or not there.
 *
 *     manifest.json             step, metric, and bytes and XXH64 of every other file
 *     state.json                whatever a stage wants to have back: counters, data order, names
 *     PART.safetensors          named tensors: weights, the optimizer's moments, …
 *
 * A checkpoint is written to checkpoints/.step-N.new, every file synced, the manifest last, and
 * then renamed: kill -9 at any instant leaves the ones before it usable, and so does a full disk.
 * What a killed process left is removed by the next one that saves. Older ones are removed when the
 * new one has its name.
 *
 * Tensors are streamed: what is read through `read` is never in memory twice, a piece at a time.
 * Loading maps the files.
 *
 * Who calls these holds the run's lock (train/run.h). One thread.
 */
#ifndef PONDER_TRAIN_CHECKPOINT_H
#define PONDER_TRAIN_CHECKPOINT_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CHECKPOINT_DIMS = 4, CHECKPOINT_PIECE = 1 << 20, CHECKPOINT_PARTS_MAX = 16 };

struct checkpoint_tensor {
    const char *name;
    const char *dtype; /* of safetensors: "F32", "BF16", "I64", "U8", … */
    int dims;
    uint64_t shape[CHECKPOINT_DIMS]; /* outermost first */
    const void *data;                /* all of it, row-major; or NULL, and */
    /* writes bytes [offset, offset + n) of it to dst; asked in ascending order, tensor by tensor, n
       at most CHECKPOINT_PIECE and a multiple of 64 except at the end */
    int (*read)(void *arg, const struct checkpoint_tensor *t, uint64_t offset, void *dst, size_t n,
                struct err *e);
    void *arg;
};

struct checkpoint_part {
    const char *name; /* of the file, without ".safetensors": "model", "optimizer" */
    const struct checkpoint_tensor *tensors;
    size_t n;
};

struct checkpoint {
    int64_t step;
    const json_t *state; /* an object */
    double metric;       /* what "best" goes by; NaN: none */
    const struct checkpoint_part *parts;
    size_t n_parts;
};

struct checkpoint_keep {
    size_t last;  /* the newest so many stay (save_total_limit); 0: all do */
    bool best;    /* also the one with the best metric */
    bool greater; /* whether a greater metric is better */
};

/* Saves, then removes what `keep` (NULL: nothing is removed) lets go. One of the same step is
 * replaced. */
int checkpoint_save(const char *run, const struct checkpoint *c, const struct checkpoint_keep *keep,
                    struct err *e);

/* ---- what there is --------------------------------------------------------------------------- */

struct checkpoint_info {
    int64_t step;
    double metric; /* NaN: none */
    bool sound;    /* has a manifest that can be read, and files of the sizes that it tells */
};

/* In ascending order of steps; *v is the caller's (free). */
int checkpoint_list(const char *run, struct checkpoint_info **v, size_t *n, struct err *e);

/* Step of the best one by its metric; ERR_NOTFOUND when none has one. */
int checkpoint_best(const char *run, bool greater, int64_t *step, struct err *e);

/* checkpoints/step-N of a run; false when it does not fit. */
bool checkpoint_path(char *out, size_t cap, const char *run, int64_t step);

/* Removes all checkpoints of a run. */
int checkpoint_remove_all(const char *run, struct err *e);

/* ---- loading --------------------------------------------------------------------------------- */

struct checkpoint_in;

/*
 * Opens the newest checkpoint whose bytes are those that were written (step = -1), or the one of a
 * step. Newer ones that are damaged are passed over; `skipped`, if not NULL, gets a line for each:
 * which, and what is wrong with it. ERR_NOTFOUND: there is none.
 */
int checkpoint_open(struct checkpoint_in **out, const char *run, int64_t step, struct buf *skipped,
                    struct err *e);
void checkpoint_free(struct checkpoint_in *c); /* NULL is fine */

int64_t checkpoint_step(const struct checkpoint_in *c);
const json_t *checkpoint_state(const struct checkpoint_in *c); /* borrowed */
double checkpoint_metric(const struct checkpoint_in *c);
bool checkpoint_has_part(const struct checkpoint_in *c, const char *part);

/*
 * The data of a tensor in mapped memory (any alignment), valid until checkpoint_free. `t` says
 * which dtype and shape it has to have; only these and its name are read.
 */
int checkpoint_data(struct checkpoint_in *c, const char *part, const struct checkpoint_tensor *t,
                    const void **data, size_t *bytes, struct err *e);
/* Lets the system forget the pages of a part that was copied elsewhere. */
void checkpoint_drop(struct checkpoint_in *c, const char *part);

#endif
