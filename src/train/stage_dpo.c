/*
 * Direct preference optimization: learn from pairs of a chosen and a rejected completion, beside
 * the policy that the run began with (loss_pairs.h has the losses).
 *
 * Before each step the reference says its log-probabilities of the batch. A pair's sequences are in
 * the same pass.
 */
#include "base/num.h"
#include "train/loop.h"
#include "train/loss_pairs.h"
#include "train/policy_ref.h"

#include <math.h>
#include <stdlib.h>

struct dpo {
    struct loss_pairs loss;
    struct policy_ref reference;
    float **ref; /* (room) into `logps` */
    float *logps;
    size_t room, tokens;
};

static int dpo_room(struct dpo *d, const struct data_batch *b, struct err *e)
{
    size_t tokens = 0;
    for (size_t i = 0; i < b->n; i++)
        tokens += logp_count(&b->seq[i]);
    if (b->n > d->room) {
        free(d->ref);
        d->room = 0;
        if (!(d->ref = calloc(b->n, sizeof *d->ref)))
            return err_nomem(e, b->n * sizeof *d->ref, "the reference");
        d->room = b->n;
    }
    if (tokens > d->tokens) {
        free(d->logps);
        d->tokens = 0;
        if (!(d->logps = calloc(tokens, sizeof *d->logps)))
            return err_nomem(e, tokens * sizeof *d->logps, "the reference");
        d->tokens = tokens;
    }
    return 0;
}

static int dpo_aim(void *arg, const struct data *data, struct data_batch *b, struct err *e)
{
    struct dpo *d = arg;
    (void)data;
    int rc = dpo_room(d, b, e);
    if (rc)
        return rc;
    float *at = d->logps;
    for (size_t i = 0; i < b->n; at += logp_count(&b->seq[i]), i++)
        d->ref[i] = at;
    d->loss.ref = d->ref;
    d->loss.pairs = (double)b->n / 2;
    return policy_ref_logps(&d->reference, b, 1, 0, d->ref, e);
}

static void dpo_add(void *arg, struct loop *l, const struct train_result *r)
{
    (void)arg;
    const double *s = r->stat;
    double n = s[PAIRS_COUNT], tokens = s[PAIRS_TOKENS_CHOSEN] + s[PAIRS_TOKENS_REJECTED];
    l->last_loss = s[PAIRS_LOSS] / fmax(n, 1);
    loop_add(l, "loss", l->last_loss, 1);
    loop_add(l, "rewards/chosen", s[PAIRS_CHOSEN], n);
    loop_add(l, "rewards/rejected", s[PAIRS_REJECTED], n);
    loop_add(l, "rewards/accuracies", s[PAIRS_RIGHT], n);
    loop_add(l, "rewards/margins", s[PAIRS_CHOSEN] - s[PAIRS_REJECTED], n);
    loop_add(l, "logps/chosen", s[PAIRS_LOGP_CHOSEN], n);
    loop_add(l, "logps/rejected", s[PAIRS_LOGP_REJECTED], n);
    loop_add(l, "entropy", s[PAIRS_ENTROPY], tokens);
}

static size_t dpo_eval(void *arg, const double s[TRAIN_STATS], double batches,
                       struct run_value v[8])
{
    (void)arg, (void)batches;
    double n = fmax(s[PAIRS_COUNT], 1);
    size_t k = 0;
    v[k++] = (struct run_value){"eval_loss", s[PAIRS_LOSS] / n};
    v[k++] = (struct run_value){"eval_rewards/chosen", s[PAIRS_CHOSEN] / n};
    v[k++] = (struct run_value){"eval_rewards/rejected", s[PAIRS_REJECTED] / n};
    v[k++] = (struct run_value){"eval_rewards/accuracies", s[PAIRS_RIGHT] / n};
    v[k++] = (struct run_value){"eval_rewards/margins", (s[PAIRS_CHOSEN] - s[PAIRS_REJECTED]) / n};
    return k;
}

static int dpo_opts(struct dpo *d, const struct train_options *o, struct err *e)
{
    struct pairs_opts *p = &d->loss.opts;
    *p = (struct pairs_opts){.beta = o->dpo_beta, .smoothing = o->label_smoothing};
    d->loss.logp.temperature = 1;
    if (!pairs_kind_parse(&p->kind, o->dpo_loss))
        return err_set(e, ERR_USAGE, "--loss-type %s", o->dpo_loss);
    if (p->smoothing != 0 && p->kind != PAIRS_SIGMOID && p->kind != PAIRS_ROBUST)
        return err_set(e, ERR_USAGE, "--label-smoothing is for --loss-type sigmoid and robust");
    return 0;
}

static int dpo_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    struct loop l = {.env = env};
    struct dpo d = {.ref = NULL};
    struct data *train = NULL, *test = NULL;
    struct loop_opts lo = {.longest = (size_t)o->max_length};
    int rc = dpo_opts(&d, o, e);
    rc = rc ? rc : loop_open(&l, env, o, &train_stage_dpo, &lo, e);
    rc = rc ? rc : loop_data(&train, &test, &l, DATA_PAIRS, e);
    rc = rc ? rc : policy_ref_init(&d.reference, l.trainer, env->comm, e);
    l.more = d.reference.values; /* part of checkpoints */
    struct loop_loss loss = {.loss = {.pass = loss_pairs_pass, .arg = &d.loss, .pairs = true},
                             .aim = dpo_aim,
                             .add = dpo_add,
                             .eval = dpo_eval,
                             .arg = &d};
    rc = rc ? rc : loop_supervised(&l, train, test, &loss, e);
    policy_ref_release(&d.reference);
    loss_pairs_release(&d.loss);
    free(d.ref);
    free(d.logps);
    data_free(train);
    data_free(test);
    loop_close(&l);
    return rc;
}

const struct opt_group train_groups_dpo[] = {TRAIN_GROUP_MODEL, TRAIN_GROUP_PAIRS, TRAIN_GROUP_DPO,
                                             TRAIN_GROUP_STEPS, TRAIN_GROUP_OPTIM, TRAIN_GROUP_LORA,
                                             TRAIN_GROUP_LOG};

static const char *const dpo_defaults[] = {"learning-rate", "1e-6", "lora-dropout", "0", NULL};

const struct train_stage train_stage_dpo = {
    .name = "dpo",
    .help = "learn from pairs: direct preference optimization",
    .spec = {train_groups_dpo, NUM_COUNT(train_groups_dpo)},
    .defaults = dpo_defaults,
    .run = dpo_run,
};
