/*
 * Rejection sampling (DeepSeek-R1, section 2.3.3): completions of a model, graded, and the good
 * ones as data to learn from.
 *
 * For each prompt G completions are sampled; one is good when every reward reaches its threshold.
 * At most --keep good ones of a prompt are written to RUN/samples.jsonl, as prompt and completion
 * in messages, with the record's other columns; of more than that the shortest, a random choice, or
 * the first. The log says how many were good, and by which rule the others fell.
 *
 * A run goes on where it was: each batch of prompts is a step, a function of seed and number, and
 * samples.jsonl is cut back to the last whole one.
 */
#include "base/num.h"
#include "base/rng.h"
#include "train/loop_impl.h"
#include "train/rewards.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REJECTION_STREAM = 0x72656a65 };

struct rejection {
    struct loop l; /* engine and run alone */
    const struct train_options *o;
    struct data *data;
    struct rollout *rollout;
    struct rewards rewards;
    double least[REWARDS_MAX];
    struct data_batch prompts;
    double *total; /* (G) */
    float *part;   /* (G, rules) */
    size_t *good;  /* (G) numbers of good completions */
    double sampled, right, kept, answered, fell[REWARDS_MAX];
    char key[REWARDS_MAX][64];
};

static int rejection_thresholds(struct rejection *x, struct err *e)
{
    const char *s = x->o->thresholds;
    for (size_t k = 0; k < x->rewards.n; k++)
        x->least[k] = 1;
    for (size_t k = 0; s && *s; k++) {
        char *end;
        double v = strtod(s, &end);
        if (k == x->rewards.n || end == s || (*end && *end != ','))
            return err_set(e, ERR_USAGE, "--reward-thresholds %s: a number for each of %zu rewards",
                           x->o->thresholds, x->rewards.n);
        x->least[k] = v;
        s = *end ? end + 1 : end;
    }
    return 0;
}

static int rejection_open(struct rejection *x, const struct train_env *env, struct err *e)
{
    const struct train_options *o = x->o;
    size_t ctx = num_round_up((size_t)(o->max_length + o->max_completion), 64);
    size_t seqs = num_min((size_t)(o->batch * o->generations), (size_t)o->max_seqs);
    struct engine_opts eo;
    if (!o->model || (!o->output && !o->dry_run))
        return err_set(e, ERR_USAGE, "give --model and --output-dir");
    engine_opts_init(&eo);
    eo.threads = (int)o->threads;
    eo.log = env->log;
    eo.ctx = ctx;
    eo.cache = seqs * ctx;
    eo.want = seqs;
    int rc = cpu_isa_parse(&eo.isa, o->isa, e);
    rc = rc ? rc : engine_open(&x->l.engine, o->model, &eo, e);
    rc = rc ? rc : loop_prompts(&x->data, &x->l, (size_t)o->batch, e);
    if (rc)
        return rc;
    struct rollout_opts ro = {.engine = x->l.engine,
                              .comm = env->comm,
                              .seqs = seqs,
                              .generations = (size_t)o->generations,
                              .longest = (size_t)o->max_completion,
                              .temperature = (float)o->temperature,
                              .seed = (uint64_t)o->seed};
    rc = rollout_new(&x->rollout, &ro, e);
    size_t g = (size_t)o->generations;
    x->total = calloc(g, sizeof *x->total);
    x->part = calloc(g * x->rewards.n, sizeof *x->part);
    x->good = calloc(g, sizeof *x->good);
    if (!rc && (!x->total || !x->part || !x->good))
        rc = err_nomem(e, g * sizeof *x->total, "rewards");
    for (size_t k = 0; k < x->rewards.n; k++)
        snprintf(x->key[k], sizeof x->key[k], "fell/%s", x->rewards.part[k].name);
    return rc;
}

/* ---- which are kept -------------------------------------------------------------------------- */

/* Numbers of the good completions of a group; how many. */
static size_t rejection_good(struct rejection *x, const struct rollout_group *g)
{
    size_t n = 0, rules = x->rewards.n;
    for (size_t i = 0; i < (size_t)x->o->generations; i++) {
        size_t k = 0;
        while (k < rules && (double)x->part[i * rules + k] >= x->least[k])
            k++;
        x->sampled++;
        if (k < rules)
            x->fell[k]++; /* NaN falls too: nobody could judge it */
        else if (g->sample[i].ended)
            x->good[n++] = i;
    }
    x->right += (double)n;
    x->answered += n > 0;
    return n;
}

/* Puts those to keep first; equal texts count once. */
static size_t rejection_choose(struct rejection *x, const struct rollout_group *g, size_t n,
                               uint64_t record)
{
    size_t keep = 0;
    bool shortest = !strcmp(x->o->keep_rule, "shortest");
    for (size_t want = (size_t)x->o->keep_each; keep < n && keep < want; keep++) {
        size_t best = keep;
        uint32_t w[4];
        rng_block((uint64_t)x->o->seed, REJECTION_STREAM + keep, record, w);
        if (!strcmp(x->o->keep_rule, "random"))
            best = keep + w[0] % (n - keep);
        for (size_t i = keep + 1; shortest && i < n; i++)
            if (g->sample[x->good[i]].n < g->sample[x->good[best]].n)
                best = i;
        size_t t = x->good[keep];
        x->good[keep] = x->good[best];
        x->good[best] = t;
        const struct many_sample *a = &g->sample[x->good[keep]];
        for (size_t i = keep + 1; i < n;) { /* the others that say the same are not wanted */
            const struct many_sample *b = &g->sample[x->good[i]];
            if (a->n_text == b->n_text && !memcmp(a->text, b->text, a->n_text))
                x->good[i] = x->good[--n];
            else
                i++;
        }
    }
    return keep;
}

static int rejection_write(struct rejection *x, const json_t *record, const struct rollout_group *g,
                           const struct many_sample *s, struct err *e)
{
    struct buf text;
    json_t *line = json_copy((json_t *)(uintptr_t)record);
    buf_init(&text, 1 << 26);
    int rc = g->prompt->thinking ? buf_puts(&text, "<think>\n", e) : 0;
    rc = rc ? rc : buf_append(&text, s->text, s->n_text, e);
    json_t *said = rc ? NULL : json_stringn(text.data, text.len);
    bool plain = json_is_string(json_object_get(record, "prompt"));
    if (!rc && !said) {
        rc = 0; /* not UTF-8: nothing to learn from */
    } else if (!rc) {
        json_t *c = plain ? json_incref(said)
                          : json_pack("[{s:s,s:O}]", "role", "assistant", "content", said);
        rc = line && c && !json_object_set(line, "completion", c)
                 ? run_sample(x->l.run, x->l.step, line, e)
                 : err_nomem(e, text.len, "a sample");
        json_decref(c);
        x->kept++;
    }
    json_decref(said);
    json_decref(line);
    buf_release(&text);
    return rc;
}

static int rejection_group(struct rejection *x, const struct rollout_group *g, struct err *e)
{
    json_t *record = NULL;
    int rc = rewards_group(&x->rewards, x->data, g, (size_t)x->o->generations, x->total, x->part,
                           NULL, e);
    size_t n = rc ? 0 : rejection_good(x, g);
    n = rejection_choose(x, g, n, g->prompt->record);
    if (n && x->l.run)
        rc = data_record(x->data, g->prompt->record, &record, e);
    for (size_t i = 0; !rc && i < n && x->l.run; i++)
        rc = rejection_write(x, record, g, &g->sample[x->good[i]], e);
    json_decref(record);
    return rc;
}

/* ---- the stage ------------------------------------------------------------------------------- */

static int rejection_line(struct rejection *x, struct err *e)
{
    struct run_value v[REWARDS_MAX + 4];
    size_t n = 0;
    double sampled = fmax(x->sampled, 1);
    v[n++] = (struct run_value){"good", x->right / sampled};
    v[n++] = (struct run_value){"kept", x->kept};
    v[n++] = (struct run_value){"prompts_answered", x->answered / (double)x->prompts.n};
    for (size_t k = 0; k < x->rewards.n; k++)
        v[n++] = (struct run_value){x->key[k], x->fell[k] / sampled};
    x->l.tokens += x->kept;
    x->l.last_reward = x->right / sampled;
    x->sampled = x->right = x->kept = x->answered = 0;
    memset(x->fell, 0, sizeof x->fell);
    return x->l.run ? run_log(x->l.run, x->l.step, v, n, e) : 0;
}

static bool rejection_tell(struct rejection *x)
{
    struct train_report r = {.stage = "rejection",
                             .step = x->l.step,
                             .steps = x->l.steps,
                             .loss = NAN,
                             .lr = NAN,
                             .kept = x->l.tokens,
                             .reward = x->l.last_reward,
                             .seconds_left = NAN};
    return !x->l.env->report || x->l.env->report(x->l.env->arg, &r);
}

static int rejection_batch(struct rejection *x, struct err *e)
{
    struct rollout_group *group;
    uint64_t step = (uint64_t)x->l.step;
    int rc = data_batch(x->data, step, &x->prompts, e);
    rc = rc ? rc
            : rollout_run(x->rollout, x->prompts.seq, x->prompts.n, step, NULL, NULL, &group, e);
    x->l.step++;
    for (size_t i = 0; !rc && i < x->prompts.n; i++)
        rc = rejection_group(x, &group[i], e);
    rc = rc ? rc : rejection_line(x, e);
    rc = rc || !x->l.run ? rc : run_sync(x->l.run, e);
    int32_t stop = !rc && !rejection_tell(x) && x->l.step < x->l.steps;
    rc = rc ? rc : comm_tell(x->l.env->comm, &stop, sizeof stop, e);
    return rc      ? rc
           : !stop ? 0
                   : err_set(e, ERR_CANCELLED,
                             "stopped after batch %lld of %lld; the same command "
                             "goes on",
                             (long long)x->l.step, (long long)x->l.steps);
}

static int rejection_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    struct rejection x = {.o = o, .l = {.env = env, .o = o, .stage = &train_stage_rejection}};
    uint64_t batches = 0;
    data_batch_init(&x.prompts);
    int rc = rewards_open(&x.rewards, o, env->comm, env->log, e);
    rc = rc ? rc : rejection_thresholds(&x, e);
    rc = rc ? rc : rejection_open(&x, env, e);
    rc = rc ? rc : data_steps(x.data, 1, &batches, e);
    x.l.steps = o->max_steps > 0 ? o->max_steps : (int64_t)ceil(o->epochs * (double)batches);
    rc = rc ? rc : loop_folder_plain(&x.l, e);
    while (!rc && x.l.step < x.l.steps)
        rc = rejection_batch(&x, e);
    rewards_release(&x.rewards);
    rollout_free(x.rollout);
    data_batch_release(&x.prompts);
    data_free(x.data);
    free(x.total);
    free(x.part);
    free(x.good);
    loop_close(&x.l);
    return rc;
}

const struct opt_group train_groups_rejection[] = {TRAIN_GROUP_MODEL, TRAIN_GROUP_PROMPTS,
                                                   TRAIN_GROUP_SAMPLING, TRAIN_GROUP_REWARDS,
                                                   TRAIN_GROUP_REJECTION};

static const char *const rejection_defaults[] = {"num-train-epochs", "1", NULL};

const struct train_stage train_stage_rejection = {
    .name = "rejection",
    .help = "sample, grade, and keep what is good to learn from",
    .spec = {train_groups_rejection, NUM_COUNT(train_groups_rejection)},
    .defaults = rejection_defaults,
    .run = rejection_run,
    .result = "samples.jsonl",
};
