/* See trainer.h. */
#include "train/trainer.h"

#include "base/num.h"
#include "base/rng.h"
#include "engine/parts.h"
#include "tensor/loss.h"
#include "tensor/tape.h"
#include "train/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRAINER_DROPOUT = 0x64726f70 }; /* purpose of random numbers */
enum { TRAINER_PASS = 4096, TRAINER_LEVELS = 4 /* log2(COMM_MAX) + 1 */ };
_Static_assert((int)COMM_MAX == (int)DATA_SHARDS && 1 << (TRAINER_LEVELS - 1) == COMM_MAX,
               "a batch has as many shards as there may be ranks");

struct trainer {
    struct trainer_opts opts;
    struct engine_parts parts;
    struct op_ctx ops;
    struct tape *tape;
    struct params params;
    struct optim optim;
    float *slab[TRAINER_LEVELS]; /* sums of subtrees; [0] is the last one */
    size_t levels;

    /* Of a pass. */
    struct pass pass;
    uint64_t *key; /* (rows of the pass) for dropout */
    struct op_dropout dropout;
    double balance;
};

static int trainer_memory(struct trainer *t, struct err *e)
{
    const struct trainer_opts *o = &t->opts;
    int rc = pass_init(&t->pass, t->parts.model, o->pass_tokens, o->longest, e);
    if (rc)
        return rc;
    if (o->dropout > 0 && !(t->key = calloc(t->pass.room, sizeof *t->key)))
        return err_nomem(e, t->pass.room * sizeof *t->key, "a batch");
    size_t local = DATA_SHARDS / (size_t)comm_size(o->comm);
    for (t->levels = 1; local > 1; local /= 2)
        t->levels++;
    for (size_t i = 0; i < t->levels; i++)
        if (!(t->slab[i] = params_slab(&t->params, e)))
            return ERR_NOMEM;
    return 0;
}

int trainer_new(struct trainer **out, const struct trainer_opts *o, struct err *e)
{
    *out = NULL;
    struct trainer *t = calloc(1, sizeof *t);
    if (!t)
        return err_nomem(e, sizeof *t, "the trainer");
    t->opts = *o;
    if (!t->opts.pass_tokens)
        t->opts.pass_tokens = TRAINER_PASS;
    engine_parts(o->engine, &t->parts);
    op_ctx_init(&t->ops, t->parts.kern, t->parts.team);
    struct tape_opts tape = {.recompute = o->recompute, .balance = o->balance};
    int rc = tape_new(&t->tape, &t->ops, &tape, e);
    if (!rc)
        rc = params_init(&t->params, t->parts.model, o->choose, o->choose_arg, o->extra, e);
    if (!rc)
        rc = trainer_memory(t, e);
    if (!rc)
        rc = optim_init(&t->optim, &o->optim, &t->params, t->parts.kern, t->parts.team, o->comm, e);
    if (rc) {
        trainer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void trainer_free(struct trainer *t)
{
    if (!t)
        return;
    optim_release(&t->optim);
    for (size_t i = 0; i < t->levels; i++)
        params_slab_free(&t->params, t->slab[i]);
    params_release(&t->params);
    pass_release(&t->pass);
    tape_free(t->tape);
    op_ctx_release(&t->ops);
    free(t->key);
    free(t);
}

struct params *trainer_params(struct trainer *t)
{
    return &t->params;
}

struct optim *trainer_optim(struct trainer *t)
{
    return &t->optim;
}

const struct kern *trainer_kern(const struct trainer *t)
{
    return t->parts.kern;
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static void trainer_forward(struct trainer *t, struct train_pass *p, const struct batch *b)
{
    p->hidden = model_states(t->parts.model, &t->ops, b);
    if (!t->opts.mtp)
        return;
    struct batch ahead = *b;
    ahead.ids = t->pass.next;
    p->ahead = model_states_mtp(t->parts.model, &t->ops, &ahead, p->hidden);
}

/* Keys of the pass's rows, for dropout. */
static void trainer_keys(struct trainer *t, const struct train_pass *p, const struct batch *b)
{
    t->dropout.rows = b->n;
    for (size_t i = 0; t->key && i < p->n; i++)
        for (size_t k = 0; k < p->seq[i].n; k++)
            t->key[t->pass.row[i] + k] = (uint64_t)(p->first + i) << 32 | k;
}

/* Scratch that the batch takes, by a dry run of it. */
static size_t trainer_dry(struct trainer *t, const struct batch *b, bool grads, bool recompute)
{
    float any = 0; /* its place is enough: nothing is computed */
    struct train_pass p = {.t = t};
    struct op_tape keeps = {.keep = true, .recompute = recompute};
    t->ops.tape = grads ? &keeps : NULL;
    t->ops.dropout = grads && t->opts.dropout > 0 ? &t->dropout : NULL;
    t->ops.dry = true;
    t->ops.used = t->ops.peak = 0;
    trainer_forward(t, &p, b);
    loss_head(&t->ops, p.hidden, model_head(t->parts.model), NULL, NULL, NULL, grads ? &any : NULL);
    t->ops.tape = NULL;
    t->ops.dry = false;
    t->ops.used = 0;
    return t->ops.peak;
}

/*
 * Gradients live no longer than what they belong to: together they take about as much as a layer's
 * activations, or half of it more where experts are copied (0.8 to 1.3 of it was measured).
 */
void trainer_need(struct trainer *t, size_t tokens, size_t longest, bool recompute,
                  struct trainer_memory *out)
{
    struct batch_run run = {.n = tokens};
    struct batch b = {.n = tokens, .n_want = tokens, .runs = &run, .n_runs = 1};
    uint64_t all = trainer_dry(t, &b, true, false);
    uint64_t kept = recompute ? trainer_dry(t, &b, true, true) : all;
    t->ops.dropout = NULL;
    *out = (struct trainer_memory){
        .state = ((uint64_t)(t->levels + 3) * t->params.total + t->params.n_extra) * sizeof(float),
        .cache = pass_cache_bytes(&t->pass, tokens, longest),
        .values = kept + all * 3 / (2 * num_max(model_config(t->parts.model)->n_layer, 1))};
}

static int trainer_pass(struct trainer *t, struct train_pass *p, const struct train_loss *loss,
                        double *stat, bool grads, struct err *e)
{
    struct batch b;
    int rc = pass_gather(&t->pass, p->seq, p->n, &b, e);
    if (rc)
        goto out;
    trainer_keys(t, p, &b);
    rc = op_ctx_reserve(&t->ops, trainer_dry(t, &b, grads, t->opts.recompute), e);
    if (rc)
        goto out;
    if (grads)
        tape_start(t->tape);
    trainer_forward(t, p, &b);
    p->row = t->pass.row;
    if (grads) {
        p->dhidden = tape_grad(t->tape, p->hidden);
        p->dahead = t->opts.mtp ? tape_grad(t->tape, p->ahead) : NULL;
        if (!p->dhidden || (t->opts.mtp && !p->dahead)) {
            rc = err_nomem(e, p->hidden.rows * p->hidden.cols * sizeof(float), "gradients");
            goto out;
        }
    }
    rc = loss->pass(loss->arg, p, stat, e);
    if (!rc && grads) {
        rc = tape_backward(t->tape, e);
        t->balance = tape_balance(t->tape, t->balance);
    }
out:
    if (grads)
        tape_stop(t->tape);
    t->ops.dropout = NULL;
    t->ops.used = 0;
    pass_done(&t->pass, p->n);
    return rc;
}

static int shard_run(struct trainer *t, const struct data_batch *b, size_t shard,
                     const struct train_loss *loss, double *stat, bool grads, struct err *e)
{
    size_t end = b->shard[shard + 1];
    for (size_t first = b->shard[shard], n; first < end; first += n) {
        int rc = pass_cut(&t->pass, b, first, end, loss->pairs ? 2 : 1, &n, e);
        if (rc)
            return rc;
        struct train_pass p = {
            .t = t, .seq = b->seq + first, .n = n, .first = first, .shard = shard};
        rc = trainer_pass(t, &p, loss, stat, grads, e);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- a step ---------------------------------------------------------------------------------- */

static void shards_of(const struct trainer *t, size_t *from, size_t *to)
{
    size_t local = DATA_SHARDS / (size_t)comm_size(t->opts.comm);
    *from = (size_t)comm_rank(t->opts.comm) * local;
    *to = *from + local;
}

/* What the shards summed, from all ranks, added in order of shards. */
static int result_sum(struct trainer *t, double stat[DATA_SHARDS][TRAIN_STATS + 1],
                      const struct data_batch *b, struct train_result *out, struct err *e)
{
    int rc = comm_sum(t->opts.comm, stat[0], DATA_SHARDS * (TRAIN_STATS + 1), e);
    *out = (struct train_result){.tokens = b->tokens};
    for (size_t s = 0; s < DATA_SHARDS; s++) {
        for (size_t i = 0; i < TRAIN_STATS; i++)
            out->stat[i] += stat[s][i];
        out->balance += stat[s][TRAIN_STATS];
    }
    return rc;
}

int trainer_look(struct trainer *t, const struct data_batch *b, const struct train_loss *loss,
                 struct train_result *out, struct err *e)
{
    double stat[DATA_SHARDS][TRAIN_STATS + 1] = {{0}};
    size_t from, to;
    shards_of(t, &from, &to);
    for (size_t s = from; s < to; s++) {
        int rc = shard_run(t, b, s, loss, stat[s], false, e);
        if (rc)
            return rc;
    }
    return result_sum(t, stat, b, out, e);
}

/* Which values are dropped is a function of the seed, the step, the sequence's number in it, the
 * position, the module and the column. */
static void dropout_begin(struct trainer *t)
{
    uint32_t w[4];
    rng_block(t->opts.seed, TRAINER_DROPOUT, t->optim.steps, w);
    t->dropout = (struct op_dropout){
        .p = t->opts.dropout, .seed = (uint64_t)w[0] << 32 | w[1], .row = t->key};
}

int trainer_step(struct trainer *t, const struct data_batch *b, const struct train_loss *loss,
                 double lr, struct train_result *out, struct err *e)
{
    double stat[DATA_SHARDS][TRAIN_STATS + 1] = {{0}};
    size_t from, to, level = 0;
    shards_of(t, &from, &to);
    dropout_begin(t);
    for (size_t s = from; s < to; s++) {
        t->balance = 0;
        params_aim(&t->params, t->parts.team, t->slab[level]);
        int rc = shard_run(t, b, s, loss, stat[s], true, e);
        if (rc)
            return rc;
        stat[s][TRAIN_STATS] = t->balance;
        model_lora_back(t->parts.model, &t->ops);
        params_fold(&t->params, t->slab[level]);
        /* As carries of a binary counter: subtrees of the same size are added, left to right. */
        for (size_t k = s - from + 1; k % 2 == 0; k /= 2, level--)
            params_add(&t->params, t->parts.team, t->parts.kern, t->slab[level - 1],
                       t->slab[level]);
        level++;
    }
    int rc = result_sum(t, stat, b, out, e);
    size_t a, z;
    if (!rc && !isfinite(out->stat[0])) {
        out->norm = NAN;
        rc = err_set(e, ERR_LIMIT,
                     "the loss is %s: nothing was changed by this step. Try a smaller "
                     "--learning-rate",
                     isnan(out->stat[0]) ? "NaN" : "infinite");
    }
    if (!rc)
        rc = comm_scatter_sum(t->opts.comm, t->slab[0], t->params.total, PARAMS_UNIT, &a, &z, e);
    rc = rc ? rc : optim_step(&t->optim, t->slab[0], lr, &out->norm, e);
    if (!rc)
        trainer_changed(t);
    return rc;
}

void trainer_changed(struct trainer *t)
{
    model_refresh(t->parts.model, &t->ops);
    model_lora_merge(t->parts.model, &t->ops);
}

const float *trainer_gradient(const struct trainer *t)
{
    return t->slab[0];
}

/* ---- the head -------------------------------------------------------------------------------- */

void train_head(struct train_pass *p, const bool *skip, loss_row *fn, void *arg)
{
    loss_head(&p->t->ops, p->hidden, model_head(p->t->parts.model), skip, fn, arg, p->dhidden);
}

void train_head_ahead(struct train_pass *p, const bool *skip, loss_row *fn, void *arg)
{
    loss_head(&p->t->ops, p->ahead, model_head_mtp(p->t->parts.model), skip, fn, arg, p->dahead);
}
