/*
 * Stages: what `ponder train` can do, a row of stage.def and a file each.
 *
 * A stage has options (groups of train/options.h and defaults of its own) and runs in an
 * environment that somebody else made: threads, ranks, who is told of progress. It prints nothing.
 */
#ifndef PONDER_TRAIN_STAGE_H
#define PONDER_TRAIN_STAGE_H

#include "base/log.h"
#include "comm/comm.h"
#include "train/options.h"

#include <stdbool.h>
#include <stdint.h>

/* Where a run is, for people. */
struct train_report {
    const char *stage;
    int64_t step, steps; /* done, of */
    double loss, lr, norm;
    double reward; /* NaN: none */
    double tokens_second;
    double seconds_left;    /* NaN: not known yet */
    bool quiet;             /* only asks whether to stop */
    uint64_t read, records; /* records > 0: data are being read, so many of them; no step yet */
    double kept;            /* completions that were kept; rejection only, else 0 */
    const char *event;      /* NULL, or what has happened: "checkpoint 500 saved" */
};

struct train_env {
    const struct log *log;
    struct comm *comm;
    bool (*report)(void *arg, const struct train_report *r); /* false: stop, whole */
    void *arg;
    /* A line of a dry run's plan. */
    void (*plan)(void *arg, const char *key, const char *value);
};

struct train_stage {
    const char *name, *help;
    struct opt_spec spec;        /* over struct train_options */
    const char *const *defaults; /* name, value, …, NULL: of options that were not given */
    int (*run)(const struct train_env *env, const struct train_options *o, struct err *e);
    const char *result; /* what a run leaves, in its folder; NULL: "model" */
};

#define STAGE(name, n, help, about)                     \
    extern const struct train_stage train_stage_##name; \
    extern const struct opt_group train_groups_##name[n];
#include "train/stage.def"
#undef STAGE

size_t train_stage_count(void);
const struct train_stage *train_stage_at(size_t i);
const struct train_stage *train_stage_find(const char *name); /* NULL: none */

/* Gives options that were not given the stage's defaults, else TRL's. */
int train_stage_fill(const struct train_stage *s, struct train_options *o, struct err *e);

#endif
