/* What loop.c and loop_save.c share. */
#ifndef PONDER_TRAIN_LOOP_IMPL_H
#define PONDER_TRAIN_LOOP_IMPL_H

#include "engine/parts.h"
#include "train/loop.h"

/* The sums of a key; made when it is new. The key is a constant or lives as long as the loop. */
struct loop_value *loop_value(struct loop *l, const char *key);

/* The run's folder, and what its newest checkpoint says. */
int loop_folder(struct loop *l, struct err *e);
/* The same of a run without a trainer: back to its last whole step. */
int loop_folder_plain(struct loop *l, struct err *e);
/* A dry run: the plan goes to the environment. */
void loop_plan(struct loop *l, struct data *train, int64_t steps);

/* What goes through the model at once. */
struct loop_pass {
    size_t longest;     /* tokens of a sequence, at most */
    size_t unit;        /* sequences that stay together */
    size_t shard;       /* tokens of a shard of a step, at most */
    const char *option; /* which option bounds sequences */
};
/* Whether there is memory for it, before it is asked for: ERR_NOMEM with figures and ways out. A
   dry run gets a line with the figures too. */
int loop_fits(struct loop *l, const struct loop_pass *p, struct err *e);

/* One line of the plan. */
void loop_plan_line(const struct loop *l, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
