/*
 * Learning from texts: `pretrain` (all of a text) and `sft` (completions, given prompts).
 *
 * One loss (loss_ce.h), two sets of defaults: TRL's for sft; for pretrain DeepSeek-V3's optimizer
 * (section 4.2), packed texts, and the prediction layer where the model has one.
 */
#include "base/num.h"
#include "engine/parts.h"
#include "train/loop.h"
#include "train/loss_ce.h"

#include <math.h>

static int ce_aim(void *arg, const struct data *data, struct data_batch *b, struct err *e)
{
    (void)data, (void)e;
    loss_ce_aim(arg, b);
    return 0;
}

static void ce_add(void *arg, struct loop *l, const struct train_result *r)
{
    const struct loss_ce *ce = arg;
    const double *s = r->stat;
    double n = fmax(s[CE_TOKENS], 1);
    l->last_loss = s[CE_LOSS] / n;
    loop_add(l, "loss", s[CE_LOSS] / n, 1);
    loop_add(l, "mean_token_accuracy", s[CE_CORRECT], s[CE_TOKENS]);
    loop_add(l, "entropy", s[CE_ENTROPY], s[CE_TOKENS]);
    if (ce->mtp_weight > 0) {
        loop_add(l, "mtp_loss", s[CE_AHEAD], s[CE_AHEAD_TOKENS]);
        loop_add(l, "mtp_accuracy", s[CE_AHEAD_CORRECT], s[CE_AHEAD_TOKENS]);
    }
    if (l->o->balance > 0)
        loop_add(l, "balance_loss", r->balance, 1);
}

static size_t ce_eval(void *arg, const double s[TRAIN_STATS], double batches, struct run_value v[8])
{
    const struct loss_ce *ce = arg;
    double n = fmax(s[CE_TOKENS], 1);
    size_t k = 0;
    (void)batches;
    v[k++] = (struct run_value){"eval_loss", s[CE_LOSS] / n};
    v[k++] = (struct run_value){"eval_mean_token_accuracy", s[CE_CORRECT] / n};
    v[k++] = (struct run_value){"eval_entropy", s[CE_ENTROPY] / n};
    if (ce->mtp_weight > 0)
        v[k++] = (struct run_value){"eval_mtp_loss", s[CE_AHEAD] / fmax(s[CE_AHEAD_TOKENS], 1)};
    return k;
}

static int sft_stage(const struct train_env *env, const struct train_options *o,
                     const struct train_stage *stage, struct err *e)
{
    struct loop l;
    struct data *train = NULL, *test = NULL;
    struct loss_ce ce;
    loss_ce_init(&ce, o->mtp_weight);
    struct loop_opts lo = {.longest = (size_t)o->max_length, .mtp = o->mtp_weight > 0};
    int rc = loop_open(&l, env, o, stage, &lo, e);
    rc = rc ? rc : loop_data(&train, &test, &l, DATA_LEARN, e);
    struct loop_loss loss = {.loss = {.pass = loss_ce_pass, .arg = &ce},
                             .aim = ce_aim,
                             .add = ce_add,
                             .eval = ce_eval,
                             .arg = &ce};
    rc = rc ? rc : loop_supervised(&l, train, test, &loss, e);
    loss_ce_release(&ce);
    data_free(train);
    data_free(test);
    loop_close(&l);
    return rc;
}

#define CE_GROUPS                                                                  \
    {                                                                              \
        TRAIN_GROUP_MODEL, TRAIN_GROUP_DATA, TRAIN_GROUP_STEPS, TRAIN_GROUP_OPTIM, \
            TRAIN_GROUP_DEEPSEEK, TRAIN_GROUP_LORA, TRAIN_GROUP_LOG                \
    }
const struct opt_group train_groups_sft[] = CE_GROUPS, train_groups_pretrain[] = CE_GROUPS;

static int sft_run(const struct train_env *env, const struct train_options *o, struct err *e);
static int pretrain_run(const struct train_env *env, const struct train_options *o, struct err *e);

static const char *const sft_defaults[] = {"learning-rate", "2e-5", NULL};

const struct train_stage train_stage_sft = {
    .name = "sft",
    .help = "learn completions: prompt and completion, messages, or text",
    .spec = {train_groups_sft, NUM_COUNT(train_groups_sft)},
    .defaults = sft_defaults,
    .run = sft_run,
};

static const char *const pretrain_defaults[] = {"learning-rate",
                                                "1e-3",
                                                "lr-scheduler-type",
                                                "cosine_with_min_lr",
                                                "lr-scheduler-kwargs",
                                                "{\"min_lr_rate\": 0.1}",
                                                "warmup-ratio",
                                                "0.02",
                                                "weight-decay",
                                                "0.1",
                                                "adam-beta2",
                                                "0.95",
                                                "packing",
                                                "wrapped",
                                                "num-train-epochs",
                                                "1",
                                                NULL};

const struct train_stage train_stage_pretrain = {
    .name = "pretrain",
    .help = "learn texts from the first token to the last",
    .spec = {train_groups_pretrain, NUM_COUNT(train_groups_pretrain)},
    .defaults = pretrain_defaults,
    .run = pretrain_run,
};

static int sft_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    return sft_stage(env, o, &train_stage_sft, e);
}

static int pretrain_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    return sft_stage(env, o, &train_stage_pretrain, e);
}
