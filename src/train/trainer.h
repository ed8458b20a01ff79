/*
 * The trainer: one model, its gradients and its optimizer, and a step over a batch of sequences
 * with any loss.
 *
 * A step's batch comes in DATA_SHARDS shards (train/data.h). Each rank takes its share of them, one
 * after the other; a shard's sequences go through the model in passes of at most `pass_tokens`
 * tokens, with a tape. What a pass computes is the model's own forward function; the loss gets the
 * states after the last norm and gives their gradient; the walk back adds to the shard's gradients.
 * The shards' gradients are added in a fixed binary tree, first inside a rank, then over ranks
 * (comm/comm.h), and the optimizer takes its step. How a shard is cut into passes changes no bit,
 * nor does the number of threads or ranks.
 *
 * Memory: the tape of a pass; log2(shards of a rank) + 1 slabs of gradients (params.h), two of
 * moments.
 *
 * Threads: one caller.
 */
#ifndef PONDER_TRAIN_TRAINER_H
#define PONDER_TRAIN_TRAINER_H

#include "comm/comm.h"
#include "engine/engine.h"
#include "tensor/loss.h"
#include "train/data.h"
#include "train/optim.h"

struct trainer;

struct trainer_opts {
    struct engine *engine; /* opened with `train` or `adapt`; outlives the trainer */
    struct comm *comm;
    size_t pass_tokens;    /* of one pass, at most (a sequence may be longer); 0: 4096 */
    size_t longest;        /* tokens of a sequence, at most */
    bool recompute;        /* gradient checkpointing: less memory, a third more work */
    bool mtp;              /* the prediction layer takes part (it has to be there) */
    float balance;         /* factor of the sequence-wise balance loss; 0: none */
    float dropout;         /* of adapters' inputs, in steps; 0: none */
    uint64_t seed;         /* of dropout */
    params_choose *choose; /* which weights are trained; NULL: all */
    void *choose_arg;
    const struct model_param *extra; /* a vector beside the model that is trained too, or NULL */
    struct optim_opts optim;
};

int trainer_new(struct trainer **out, const struct trainer_opts *o, struct err *e);
void trainer_free(struct trainer *t);

struct params *trainer_params(struct trainer *t);
struct optim *trainer_optim(struct trainer *t);

/* What a trainer needs beside the weights, in bytes, little of which it has taken when it is new.
 */
struct trainer_memory {
    uint64_t state;  /* gradients and moments, and the values once more while they are saved */
    uint64_t cache;  /* keys and values of a pass */
    uint64_t values; /* activations of a pass and their gradients */
};
/* Of a pass over `tokens` of sequences that have at most `longest`; `recompute` instead of what the
   trainer was made with. */
void trainer_need(struct trainer *t, size_t tokens, size_t longest, bool recompute,
                  struct trainer_memory *out);

/* Sequences that go through the model together. */
struct train_pass {
    struct trainer *t;
    const struct data_seq *seq; /* (n) */
    size_t n, first;            /* first: number of seq[0] in the batch */
    size_t shard;
    const size_t *row;    /* (n + 1) first row of each sequence; its token i is row + i */
    struct tensor hidden; /* (tokens, d_model) after the last norm */
    struct tensor ahead;  /* the same of the prediction layer: row i of a sequence is of the token
                             after the next, the last two say nothing; no data without */
    float *dhidden, *dahead; /* their gradients, to be added to; NULL in a pass without gradients */
};

enum { TRAIN_STATS = 24 };

/* A loss. Whatever it sums goes into stat[shard], so that sums have one order; the loss first. */
struct train_loss {
    int (*pass)(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);
    void *arg;
    bool pairs; /* sequences come in pairs that stay together */
};

struct train_result {
    double stat[TRAIN_STATS]; /* summed over shards, in order */
    double norm;              /* of the gradient, before clipping */
    double balance;           /* the balance loss, summed */
    size_t tokens;            /* of this step, all ranks */
};

/* One step of the optimizer. On an error nothing has changed; out->norm is not finite when a loss
   or a gradient that is not was the reason (set it to 0 before). */
int trainer_step(struct trainer *t, const struct data_batch *b, const struct train_loss *loss,
                 double lr, struct train_result *out, struct err *e);

/* The loss's pass over a batch without gradients (dhidden is NULL): for evaluation, or for
   log-probabilities. */
int trainer_look(struct trainer *t, const struct data_batch *b, const struct train_loss *loss,
                 struct train_result *out, struct err *e);

/* Values were changed by somebody else than the optimizer: what is made from them is made anew. */
void trainer_changed(struct trainer *t);

/* Of one rank: the gradient of the last step before clipping, laid out as slabs are (params.h). */
const float *trainer_gradient(const struct trainer *t);

/* The head over rows of a pass: see loss_head. `skip` (rows) may be NULL. */
void train_head(struct train_pass *p, const bool *skip, loss_row *fn, void *arg);
/* The same over the prediction layer's rows. */
void train_head_ahead(struct train_pass *p, const bool *skip, loss_row *fn, void *arg);

/* What row functions need. */
const struct kern *trainer_kern(const struct trainer *t);

#endif
