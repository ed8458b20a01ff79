/*
 * Reward models: a scalar head on a language model, learned from pairs (which answer is better) or
 * from labels (is this one wanted?). loss_score.h has the losses.
 *
 * All weights are trained but the head over the vocabulary, which has no part in a score. The
 * result is the model's folder with score.weight, and a config.json that calls it a sequence
 * classifier with one label; the head over the vocabulary stays in it, as it was. With an adapter
 * (--use-peft) the scalar head is trained whole, and is one of the adapter's tensors.
 */
#include "base/num.h"
#include "train/loop.h"
#include "train/loss_score.h"

#include <math.h>
#include <string.h>

struct reward_stage {
    struct loop l;
    struct loss_score loss;
    struct data *train, *test;
};

static bool reward_choose(void *arg, const struct model_param *p)
{
    (void)arg;
    return strcmp(p->name, "lm_head.weight") != 0;
}

static int reward_aim(void *arg, const struct data *data, struct data_batch *b, struct err *e)
{
    struct reward_stage *r = arg;
    r->loss.count = (double)b->n / (r->loss.pairwise ? 2 : 1);
    for (size_t i = 0; i < b->n && !r->loss.pairwise; i++) {
        char where[256];
        if (b->seq[i].label < 0)
            return err_set(e, ERR_FORMAT,
                           "%s: a record without \"label\" (true or false): --loss-type pointwise "
                           "learns from labels",
                           data_where(data, b->seq[i].record, where, sizeof where));
    }
    return 0;
}

static double deviation(const double *s)
{
    double n = fmax(s[SCORE_SEQS], 1), mean = s[SCORE_SUM] / n;
    return sqrt(fmax(s[SCORE_SQUARE] / n - mean * mean, 0));
}

/* How far apart the two kinds are. */
static double margin(const struct reward_stage *r, const double *s)
{
    double yes = s[SCORE_YES_COUNT], no = s[SCORE_SEQS] - yes;
    if (r->loss.pairwise)
        return s[SCORE_MARGIN] / fmax(s[SCORE_COUNT], 1);
    return yes > 0 && no > 0 ? s[SCORE_YES] / yes - (s[SCORE_SUM] - s[SCORE_YES]) / no : NAN;
}

static void reward_add(void *arg, struct loop *l, const struct train_result *t)
{
    const struct reward_stage *r = arg;
    const double *s = t->stat;
    double n = fmax(s[SCORE_COUNT], 1), apart = margin(r, s);
    l->last_loss = s[SCORE_LOSS] / n;
    loop_add(l, "loss", l->last_loss, 1);
    loop_add(l, "accuracy", s[SCORE_RIGHT], n);
    loop_add(l, "mean_reward", s[SCORE_SUM], s[SCORE_SEQS]);
    loop_add(l, "reward_std", deviation(s), 1);
    if (!isnan(apart))
        loop_add(l, "margin", apart, 1);
}

static size_t reward_eval(void *arg, const double s[TRAIN_STATS], double batches,
                          struct run_value v[8])
{
    const struct reward_stage *r = arg;
    double n = fmax(s[SCORE_COUNT], 1), apart = margin(r, s);
    size_t k = 0;
    (void)batches;
    v[k++] = (struct run_value){"eval_loss", s[SCORE_LOSS] / n};
    v[k++] = (struct run_value){"eval_accuracy", s[SCORE_RIGHT] / n};
    v[k++] = (struct run_value){"eval_mean_reward", s[SCORE_SUM] / fmax(s[SCORE_SEQS], 1)};
    if (!isnan(apart))
        v[k++] = (struct run_value){"eval_margin", apart};
    return k;
}

static int reward_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    struct reward_stage r = {.l = {.env = env}};
    struct loop_opts lo = {
        .longest = (size_t)o->max_length, .choose = reward_choose, .score = true};
    r.loss.pairwise = !strcmp(o->reward_loss, "pairwise");
    r.loss.center = o->center;
    int rc = loop_open(&r.l, env, o, &train_stage_reward, &lo, e);
    rc = rc ? rc : loop_data(&r.train, &r.test, &r.l, r.loss.pairwise ? DATA_PAIRS : DATA_LEARN, e);
    r.loss.score = r.l.score;
    struct loop_loss loss = {
        .loss = {.pass = loss_score_pass, .arg = &r.loss, .pairs = r.loss.pairwise},
        .aim = reward_aim,
        .add = reward_add,
        .eval = reward_eval,
        .arg = &r};
    rc = rc ? rc : loop_supervised(&r.l, r.train, r.test, &loss, e);
    data_free(r.train);
    data_free(r.test);
    loop_close(&r.l);
    return rc;
}

const struct opt_group train_groups_reward[] = {
    TRAIN_GROUP_MODEL, TRAIN_GROUP_PAIRS, TRAIN_GROUP_REWARD_MODEL, TRAIN_GROUP_STEPS,
    TRAIN_GROUP_OPTIM, TRAIN_GROUP_LORA,  TRAIN_GROUP_LOG};

static const char *const reward_defaults[] = {"learning-rate", "1e-4", NULL};

const struct train_stage train_stage_reward = {
    .name = "reward",
    .help = "learn a reward model: a score, from pairs or labels",
    .spec = {train_groups_reward, NUM_COUNT(train_groups_reward)},
    .defaults = reward_defaults,
    .run = reward_run,
};
