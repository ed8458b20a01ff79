/* See trainer.h. */
#include "train/trainer.h"

#include "base/num.h"
#include "engine/parts.h"
#include "tensor/kv.h"
#include "tensor/loss.h"
#include "tensor/tape.h"

#include <stdlib.h>
#include <string.h>

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
    struct kv_pool *kv;
    struct kv_seq *seq;     /* (most) */
    struct batch_run *runs; /* (most) */
    size_t *row;            /* (most + 1) */
    int32_t *ids, *next;    /* (room) tokens, and those after them */
    uint32_t *pos, *want;   /* (room); want: every row */
    size_t most, room, pages;
    double balance;
};

static size_t pages_of(size_t tokens)
{
    return (tokens + KV_PAGE - 1) / KV_PAGE;
}

static int trainer_memory(struct trainer *t, struct err *e)
{
    const struct trainer_opts *o = &t->opts;
    struct kv_shape shape;
    size_t longest = num_max(o->longest, KV_PAGE);
    model_kv_shape(t->parts.model, &shape);
    shape.type = QUANT_F32;
    /* Short sequences fill half a page on average; a pair has to fit. */
    t->pages = num_max(2 * pages_of(o->pass_tokens), 2 * pages_of(longest));
    t->most = t->pages;
    t->room = num_max(o->pass_tokens, 2 * longest);
    int rc = kv_pool_new(&t->kv, &shape, t->pages, e);
    if (rc)
        return rc;
    t->seq = calloc(t->most, sizeof *t->seq);
    t->runs = calloc(t->most, sizeof *t->runs);
    t->row = calloc(t->most + 1, sizeof *t->row);
    t->ids = calloc(t->room, sizeof *t->ids);
    t->next = calloc(t->room, sizeof *t->next);
    t->pos = calloc(t->room, sizeof *t->pos);
    t->want = calloc(t->room, sizeof *t->want);
    if (!t->seq || !t->runs || !t->row || !t->ids || !t->next || !t->pos || !t->want)
        return err_nomem(e, t->room * sizeof *t->ids, "a batch");
    for (size_t i = 0; i < t->most; i++)
        if ((rc = kv_seq_init(&t->seq[i], t->kv, t->room, e)))
            return rc;
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
        rc = params_init(&t->params, t->parts.model, o->choose, o->choose_arg, e);
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
    for (size_t i = 0; t->seq && i < t->most; i++)
        if (t->seq[i].pool)
            kv_seq_release(&t->seq[i]);
    kv_pool_free(t->kv);
    tape_free(t->tape);
    op_ctx_release(&t->ops);
    free(t->seq);
    free(t->runs);
    free(t->row);
    free(t->ids);
    free(t->next);
    free(t->pos);
    free(t->want);
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

struct engine *trainer_engine(const struct trainer *t)
{
    return t->opts.engine;
}

uint64_t trainer_bytes(const struct trainer *t)
{
    struct kv_shape shape = *kv_pool_shape(t->kv);
    return t->pages * kv_page_bytes(&shape) +
           (uint64_t)(t->levels + 2) * t->params.total * sizeof(float) +
           t->params.n_extra * sizeof(float) + t->ops.cap;
}

/* ---- a pass ---------------------------------------------------------------------------------- */

/* The sequences as one batch; each begins at position 0. */
static int pass_gather(struct trainer *t, const struct train_pass *p, struct batch *b,
                       struct err *e)
{
    size_t at = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct data_seq *s = &p->seq[i];
        int rc = kv_seq_reserve(&t->seq[i], 0, 0, s->n, e);
        if (rc)
            return rc;
        t->runs[i] = (struct batch_run){.seq = &t->seq[i], .row = at, .n = s->n};
        t->row[i] = at;
        for (size_t k = 0; k < s->n; k++) {
            t->ids[at + k] = s->ids[k];
            t->next[at + k] = s->ids[k + 1 < s->n ? k + 1 : k];
            t->pos[at + k] = (uint32_t)k;
            t->want[at + k] = (uint32_t)(at + k);
        }
        at += s->n;
    }
    t->row[p->n] = at;
    *b = (struct batch){.n = at,
                        .ids = t->ids,
                        .pos = t->pos,
                        .want = t->want,
                        .n_want = at,
                        .runs = t->runs,
                        .n_runs = p->n};
    return 0;
}

static void pass_forward(struct trainer *t, struct train_pass *p, const struct batch *b)
{
    p->hidden = model_states(t->parts.model, &t->ops, b);
    if (!t->opts.mtp)
        return;
    struct batch ahead = *b;
    ahead.ids = t->next;
    p->ahead = model_states_mtp(t->parts.model, &t->ops, &ahead, p->hidden);
}

/* Scratch for the pass, by a dry run of it. */
static int pass_plan(struct trainer *t, struct train_pass *p, const struct batch *b, bool grads,
                     struct err *e)
{
    float any = 0; /* its place is enough: nothing is computed */
    struct op_tape keeps = {.keep = true, .recompute = t->opts.recompute};
    t->ops.tape = grads ? &keeps : NULL;
    t->ops.dry = true;
    t->ops.used = t->ops.peak = 0;
    pass_forward(t, p, b);
    loss_head(&t->ops, p->hidden, model_head(t->parts.model), NULL, NULL, NULL,
              grads ? &any : NULL);
    size_t need = t->ops.peak;
    t->ops.tape = NULL;
    t->ops.dry = false;
    t->ops.used = 0;
    return op_ctx_reserve(&t->ops, need, e);
}

static int pass_run(struct trainer *t, struct train_pass *p, const struct train_loss *loss,
                    double *stat, bool grads, struct err *e)
{
    struct batch b;
    int rc = pass_gather(t, p, &b, e);
    if (rc)
        goto out;
    rc = pass_plan(t, p, &b, grads, e);
    if (rc)
        goto out;
    if (grads)
        tape_start(t->tape);
    pass_forward(t, p, &b);
    p->row = t->row;
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
        t->balance += tape_balance(t->tape);
    }
out:
    if (grads)
        tape_stop(t->tape);
    t->ops.used = 0;
    for (size_t i = 0; i < p->n; i++)
        kv_seq_truncate(&t->seq[i], 0);
    return rc;
}

/* How many sequences from `first` on go into the next pass. */
static size_t pass_cut(const struct trainer *t, const struct data_batch *b, size_t first,
                       size_t end, bool pairs)
{
    size_t unit = pairs ? 2 : 1, n = 0, tokens = 0, pages = 0;
    while (first + n + unit <= end) {
        size_t more = 0, sheets = 0;
        for (size_t i = 0; i < unit; i++) {
            more += b->seq[first + n + i].n;
            sheets += pages_of(b->seq[first + n + i].n);
        }
        if (n && (tokens + more > t->opts.pass_tokens || pages + sheets > t->pages ||
                  n + unit > t->most))
            break;
        tokens += more;
        pages += sheets;
        n += unit;
    }
    return n;
}

static int shard_run(struct trainer *t, const struct data_batch *b, size_t shard,
                     const struct train_loss *loss, double *stat, bool grads, struct err *e)
{
    size_t end = b->shard[shard + 1];
    for (size_t first = b->shard[shard], n; first < end; first += n) {
        n = pass_cut(t, b, first, end, loss->pairs);
        if (!n)
            return err_set(e, ERR_USAGE, "a pair of the batch has one sequence");
        size_t longest = 0;
        for (size_t i = 0; i < n; i++)
            longest = num_max(longest, b->seq[first + i].n);
        if (longest > num_max(t->opts.longest, t->opts.pass_tokens))
            return err_set(e, ERR_LIMIT,
                           "a sequence of %zu tokens is longer than the %zu that memory was "
                           "planned for: give a larger --max-length",
                           longest, num_max(t->opts.longest, t->opts.pass_tokens));
        struct train_pass p = {
            .t = t, .seq = b->seq + first, .n = n, .first = first, .shard = shard};
        int rc = pass_run(t, &p, loss, stat, grads, e);
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

int trainer_step(struct trainer *t, const struct data_batch *b, const struct train_loss *loss,
                 double lr, struct train_result *out, struct err *e)
{
    double stat[DATA_SHARDS][TRAIN_STATS + 1] = {{0}};
    size_t from, to, level = 0;
    shards_of(t, &from, &to);
    for (size_t s = from; s < to; s++) {
        t->balance = 0;
        params_aim(&t->params, t->parts.team, t->slab[level]);
        int rc = shard_run(t, b, s, loss, stat[s], true, e);
        if (rc)
            return rc;
        stat[s][TRAIN_STATS] = t->balance;
        params_fold(&t->params, t->slab[level]);
        /* As carries of a binary counter: subtrees of the same size are added, left to right. */
        for (size_t k = s - from + 1; k % 2 == 0; k /= 2, level--)
            params_add(&t->params, t->parts.team, t->parts.kern, t->slab[level - 1],
                       t->slab[level]);
        level++;
    }
    int rc = result_sum(t, stat, b, out, e);
    size_t a, z;
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
