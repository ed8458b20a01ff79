/*
 * Distillation from a teacher's distributions (loss_distill.h). R1's own distillation is on texts:
 * that is `sft` on what the teacher has written.
 *
 * A step is on policy with the chance --lmbda: then the student answers the batch's prompts itself,
 * and is taught what the teacher would have said at every token (Agarwal et al. 2024, GKD). Which
 * steps are is a function of seed and step. Evaluation is on the data's own completions.
 *
 * Student and teacher must have the same tokens; how many rows their heads have may differ.
 */
#include "base/num.h"
#include "base/rng.h"
#include "tensor/kv.h"
#include "train/loop.h"
#include "train/loss_distill.h"
#include "train/rollout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DISTILL_STREAM = 0x64697374 };

struct distill {
    struct loop l;
    const struct train_options *o;
    struct data *train, *test;
    struct frozen *teacher;
    struct loss_distill loss;
    struct rollout *rollout; /* NULL: never on policy */
    bool on_policy;          /* this step */
    /* What the student has written. */
    struct data_seq *prompt;
    size_t *from; /* sequences of the batch that the prompts are of */
    size_t room;
    int32_t *ids;
    uint8_t *target;
};

/* ---- on policy ------------------------------------------------------------------------------- */

static int distill_room(struct distill *d, size_t n, struct err *e)
{
    if (n <= d->room)
        return 0;
    size_t each = (size_t)(d->o->max_length + d->o->max_new_tokens);
    free(d->prompt);
    free(d->from);
    free(d->ids);
    free(d->target);
    d->room = 0;
    d->prompt = calloc(n, sizeof *d->prompt);
    d->from = calloc(n, sizeof *d->from);
    d->ids = calloc(n * each, sizeof *d->ids);
    d->target = calloc(n * each, sizeof *d->target);
    if (!d->prompt || !d->from || !d->ids || !d->target)
        return err_nomem(e, n * each * 5, "samples");
    d->room = n;
    return 0;
}

static bool distill_draws(const struct distill *d)
{
    uint32_t w[4];
    rng_block((uint64_t)d->o->seed, DISTILL_STREAM, (uint64_t)d->l.step, w);
    return d->rollout && (double)w[0] * 0x1p-32 < d->o->lmbda;
}

/* The student's completions in the place of the data's. */
static int distill_sample(struct distill *d, struct data_batch *b, struct err *e)
{
    struct rollout_group *group;
    size_t n = 0, each = (size_t)(d->o->max_length + d->o->max_new_tokens);
    int rc = distill_room(d, b->n, e);
    for (size_t i = 0; !rc && i < b->n; i++)
        if (b->seq[i].prompt && b->seq[i].prompt < b->seq[i].n) {
            d->prompt[n] = b->seq[i];
            d->prompt[n].n = b->seq[i].prompt;
            d->from[n++] = i;
        }
    rc = rc || !n
             ? rc
             : rollout_run(d->rollout, d->prompt, n, (uint64_t)d->l.step, NULL, NULL, &group, e);
    for (size_t k = 0; !rc && k < n; k++) {
        const struct many_sample *s = &group[k].sample[0];
        struct data_seq *q = &b->seq[d->from[k]];
        int32_t *ids = d->ids + k * each;
        uint8_t *target = d->target + k * each;
        memcpy(ids, q->ids, q->prompt * sizeof *ids);
        memcpy(ids + q->prompt, s->ids, s->n * sizeof *ids);
        memset(target, 0, q->prompt);
        memset(target + q->prompt, 1, s->n);
        b->tokens = b->tokens - q->n + q->prompt + s->n;
        q->ids = ids;
        q->target = target;
        q->n = q->prompt + s->n;
    }
    return rc;
}

static int distill_aim(void *arg, const struct data *data, struct data_batch *b, struct err *e)
{
    struct distill *d = arg;
    d->on_policy = data == d->train && distill_draws(d);
    int rc = d->on_policy ? distill_sample(d, b, e) : 0;
    loss_distill_aim(&d->loss, b);
    return rc;
}

/* ---- the log --------------------------------------------------------------------------------- */

static void distill_add(void *arg, struct loop *l, const struct train_result *r)
{
    const struct distill *d = arg;
    const double *s = r->stat;
    l->last_loss = s[DISTILL_LOSS] / fmax(s[DISTILL_TOKENS], 1);
    loop_add(l, "loss", l->last_loss, 1);
    loop_add(l, "entropy", s[DISTILL_ENTROPY], s[DISTILL_TOKENS]);
    loop_add(l, "teacher_entropy", s[DISTILL_TEACHER], s[DISTILL_TOKENS]);
    loop_add(l, "on_policy", d->on_policy, 1);
}

static size_t distill_eval(void *arg, const double s[TRAIN_STATS], double batches,
                           struct run_value v[8])
{
    (void)arg, (void)batches;
    double n = fmax(s[DISTILL_TOKENS], 1);
    v[0] = (struct run_value){"eval_loss", s[DISTILL_LOSS] / n};
    v[1] = (struct run_value){"eval_entropy", s[DISTILL_ENTROPY] / n};
    return 2;
}

/* ---- the stage ------------------------------------------------------------------------------- */

static int distill_same(const struct tokenizer *a, const struct tokenizer *b, struct err *e)
{
    if (!a || !b)
        return err_set(e, ERR_USAGE, "a model without a tokenizer cannot be distilled");
    size_t n = num_min(tokenizer_count(a), tokenizer_count(b));
    for (size_t i = 0; i < n; i++) {
        size_t x, y;
        const char *s = tokenizer_bytes(a, (int32_t)i, &x), *t = tokenizer_bytes(b, (int32_t)i, &y);
        if (x != y || (x && memcmp(s, t, x) != 0))
            return err_set(e, ERR_USAGE,
                           "the teacher has other tokens: %zu is \"%.*s\", the student's \"%.*s\". "
                           "Let it write texts, and learn from these (ponder train sft)",
                           i, (int)num_min(y, 40), t, (int)num_min(x, 40), s);
    }
    return 0;
}

static int distill_teacher(struct distill *d, struct err *e)
{
    const struct train_options *o = d->o;
    if (!o->teacher)
        return err_set(e, ERR_USAGE, "who teaches? Give --teacher-model");
    struct frozen_opts fo = {.path = o->teacher,
                             .isa = o->isa,
                             .threads = (int)o->threads,
                             .log = d->l.env->log,
                             .pass_tokens = (size_t)o->pass_tokens,
                             .longest = (size_t)(o->max_length + o->max_new_tokens)};
    int rc = frozen_open(&d->teacher, &fo, e);
    if (rc)
        return rc;
    struct engine *s = d->l.engine, *t = frozen_engine(d->teacher);
    size_t a = engine_info(s)->vocab, b = engine_info(t)->vocab;
    rc = distill_same(engine_tokenizer(s), engine_tokenizer(t), e);
    if (rc)
        return rc;
    d->loss.teacher = d->teacher;
    d->loss.beta = o->distill_beta;
    d->loss.temperature = (float)o->distill_temperature;
    d->loss.vocab = a == b ? a
                           : num_min(num_min(a, b), num_min(tokenizer_count(engine_tokenizer(s)),
                                                            tokenizer_count(engine_tokenizer(t))));
    return 0;
}

static int distill_open(struct distill *d, const struct train_env *env, struct err *e)
{
    const struct train_options *o = d->o;
    bool samples = o->lmbda > 0;
    if (samples && o->packing && strcmp(o->packing, "none") != 0)
        return err_set(
            e, ERR_USAGE,
            "samples of the student (--lmbda %g) need whole prompts: leave --packing off",
            o->lmbda);
    size_t longest = (size_t)(o->max_length + o->max_new_tokens);
    size_t ctx = num_round_up(longest, KV_PAGE);
    size_t seqs = num_min((size_t)(o->batch * o->accumulation), (size_t)o->max_seqs);
    struct loop_opts lo = {.longest = longest};
    if (samples) {
        lo.ctx = ctx;
        lo.cache = seqs * ctx;
        lo.want = seqs;
    }
    int rc = loop_open(&d->l, env, o, &train_stage_distill, &lo, e);
    rc = rc ? rc : distill_teacher(d, e);
    rc = rc ? rc : loop_data(&d->train, &d->test, &d->l, DATA_LEARN, e);
    if (rc || !samples)
        return rc;
    struct rollout_opts ro = {.engine = d->l.engine,
                              .comm = env->comm,
                              .seqs = seqs,
                              .generations = 1,
                              .longest = (size_t)o->max_new_tokens,
                              .temperature = (float)o->distill_temperature,
                              .seed = (uint64_t)o->seed};
    return rollout_new(&d->rollout, &ro, e);
}

static int distill_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    struct distill d = {.o = o, .l = {.env = env}};
    int rc = distill_open(&d, env, e);
    struct loop_loss loss = {.loss = {.pass = loss_distill_pass, .arg = &d.loss},
                             .aim = distill_aim,
                             .add = distill_add,
                             .eval = distill_eval,
                             .arg = &d,
                             .grows = o->lmbda > 0 ? (size_t)o->max_new_tokens : 0};
    rc = rc ? rc : loop_supervised(&d.l, d.train, d.test, &loss, e);
    rollout_free(d.rollout);
    loss_distill_release(&d.loss);
    frozen_free(d.teacher);
    free(d.prompt);
    free(d.from);
    free(d.ids);
    free(d.target);
    data_free(d.train);
    data_free(d.test);
    loop_close(&d.l);
    return rc;
}

const struct opt_group train_groups_distill[] = {
    TRAIN_GROUP_MODEL, TRAIN_GROUP_DATA,  TRAIN_GROUP_DISTILL, TRAIN_GROUP_LORA,
    TRAIN_GROUP_STEPS, TRAIN_GROUP_OPTIM, TRAIN_GROUP_LOG};

static const char *const distill_defaults[] = {"learning-rate", "2e-5", "lora-dropout", "0", NULL};

const struct train_stage train_stage_distill = {
    .name = "distill",
    .help = "learn a teacher's distributions, token by token",
    .spec = {train_groups_distill, NUM_COUNT(train_groups_distill)},
    .defaults = distill_defaults,
    .run = distill_run,
};
