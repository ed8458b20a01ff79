/*
 * Learning rates over a run: Hugging Face's schedulers (transformers/optimization.py) under their
 * names, as pure functions of the step, so that nothing has to be saved to resume.
 *
 * Step 0 is the first optimizer step; schedule_lr(s, step) is the rate that it uses. With warm-up
 * the first step has rate 0, as in Hugging Face. "reduce_lr_on_plateau" is left out: it depends on
 * what was measured.
 */
#ifndef PONDER_TRAIN_SCHEDULE_H
#define PONDER_TRAIN_SCHEDULE_H

#include "base/buf.h"
#include "base/err.h"

#include <jansson.h>
#include <stdint.h>

struct schedule_kind;

/* Read-only; filled by schedule_init. */
struct schedule {
    const struct schedule_kind *kind;
    double lr;             /* the largest rate */
    int64_t warmup, total; /* steps */
    double num_cycles, min_lr, min_lr_rate, warmup_lr_rate, lr_end, power;
    int64_t timescale, num_decay_steps, num_stable_steps; /* -1: not given */
    int warmup_type, decay_type;                          /* enum schedule_shape */
};

enum { SCHEDULE_CHOICES_MAX = 256 };

/*
 * `name`: "linear", "cosine", "constant", …; `args`: an object of further settings under Hugging
 * Face's names (lr_scheduler_kwargs: min_lr, min_lr_rate, num_cycles, power, lr_end, …) or NULL.
 * ERR_USAGE names what is unknown, missing, or makes no sense.
 */
int schedule_init(struct schedule *s, const char *name, double lr, int64_t warmup, int64_t total,
                  const json_t *args, struct err *e);

double schedule_lr(const struct schedule *s, int64_t step);

/* Warm-up steps of a run: `steps` when there are any, else `ratio` of the total, rounded up. */
int64_t schedule_warmup(int64_t steps, double ratio, int64_t total);

/* All names in the order of the table, separated by '|': for option tables and errors. */
int schedule_names(struct buf *out, struct err *e);

#endif
