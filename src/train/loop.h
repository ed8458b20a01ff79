/*
 * What every stage that takes optimizer steps shares: an engine and a trainer, the run folder, the
 * schedule, checkpoints, the log, the result; and the loop of supervised stages.
 *
 * A step n (from 0) uses the schedule's rate of n and the data's batch of n; what was learned after
 * it is "step n + 1" in the log and in checkpoints. Everything a step depends on is a function of
 * its number and of what a checkpoint holds, so a run that was killed goes on with the same bits.
 *
 * Under ranks everybody computes, rank 0 writes.
 */
#ifndef PONDER_TRAIN_LOOP_H
#define PONDER_TRAIN_LOOP_H

#include "train/checkpoint.h"
#include "train/run.h"
#include "train/schedule.h"
#include "train/score.h"
#include "train/stage.h"
#include "train/trainer.h"

enum { LOOP_VALUES = 48 };

/* Means that go into the log: sums over the steps since the last line. */
struct loop_value {
    const char *key;
    double sum, count; /* count 0: not in this line */
};

struct loop {
    const struct train_env *env;
    const struct train_options *o;
    const struct train_stage *stage;
    struct engine *engine;
    struct trainer *trainer;
    struct score *score; /* or NULL */
    struct run *run;     /* of rank 0, else NULL */
    struct schedule schedule;
    int64_t step, steps; /* done, of */
    struct loop_value value[LOOP_VALUES];
    size_t n_values;
    double tokens;    /* seen so far */
    double last_eval; /* of the step eval_step; NaN: none yet */
    int64_t eval_step;
    /* for people */
    double started, last_loss, last_norm, last_reward, window_tokens, window_start;
    double pace;         /* tokens/s up to the last line of the log */
    int64_t first;       /* step that this process began with */
    float *more;         /* a further slab of checkpoints, called "reference", or NULL */
    bool hold;           /* no checkpoint now: it comes with the next step that does not say so */
    bool owed, stopping; /* what waits for that */
    int64_t saved;       /* step of the newest checkpoint; 0: none */
    json_t *resumed;     /* holds the keys of values that came from a checkpoint */
    json_t *adapter;     /* configuration of the adapter that is gone on with, or NULL */
    json_t *extra;       /* what a stage adds to a checkpoint's state; owned, or NULL */
};

struct loop_opts {
    size_t ctx, cache, want; /* of the engine's own sessions; 0: as little as may be */
    size_t longest;          /* tokens of a sequence to train on */
    params_choose *choose;
    void *choose_arg;
    bool mtp;
    bool score; /* with a scalar head that is trained too, and part of the result */
};

/* Opens the engine and the trainer. loop_begin then fixes the number of steps, opens the run
   folder and goes back to its newest checkpoint. */
int loop_open(struct loop *l, const struct train_env *env, const struct train_options *o,
              const struct train_stage *stage, const struct loop_opts *lo, struct err *e);
int loop_begin(struct loop *l, int64_t steps, struct err *e);
void loop_close(struct loop *l);

double loop_lr(const struct loop *l);

/* Adds x (a sum over `count` things) to a value of the next line of the log. Keys are constants. */
void loop_add(struct loop *l, const char *key, double x, double count);
/* Its value is x, whatever was added. */
void loop_set(struct loop *l, const char *key, double x);

/*
 * After each step: counts it, writes a line when one is due, tells the environment, saves when due.
 * ERR_CANCELLED, with a checkpoint saved, when the environment says stop.
 */
int loop_stepped(struct loop *l, double lr, const struct train_result *r, struct err *e);

/* Adds to what went wrong after loop_begin which checkpoint there is. */
int loop_left(const struct loop *l, struct err *e);

/* Ends the run where it is, between steps: ERR_CANCELLED, with a checkpoint. */
int loop_stopped(struct loop *l, struct err *e);

/* A line with values of its own, now: evaluations. */
int loop_note(struct loop *l, const struct run_value *v, size_t n, struct err *e);

int loop_save(struct loop *l, struct err *e);
/* The result to RUN/model. */
int loop_finish(struct loop *l, struct err *e);

/* ---- supervised stages ------------------------------------------------------------------------
 */

struct loop_loss {
    struct train_loss loss;
    int (*aim)(void *arg, const struct data *d, struct data_batch *b,
               struct err *e); /* before each batch, or NULL */
    void (*add)(void *arg, struct loop *l, const struct train_result *r); /* to the log */
    /* values of an evaluation, of summed results; returns how many. v[0] is what "best" goes by,
       less is better */
    size_t (*eval)(void *arg, const double stat[TRAIN_STATS], double batches,
                   struct run_value v[8]);
    void *arg;
    size_t grows; /* tokens by which sequences of the data may become longer */
};

/* Data as the options say. `test`: the evaluation's, NULL when there is none. */
int loop_data(struct data **train, struct data **test, const struct loop *l, enum data_use use,
              struct err *e);
/* Prompts, `items` in a batch. */
int loop_prompts(struct data **out, const struct loop *l, size_t items, struct err *e);
int loop_supervised(struct loop *l, struct data *train, struct data *test,
                    const struct loop_loss *loss, struct err *e);

#endif
