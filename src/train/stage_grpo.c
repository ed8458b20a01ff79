/*
 * Group relative policy optimization: sample, reward, compare, learn (policy.h has the losses).
 *
 * A *generation* samples G completions for each of its prompts from the weights as they are, and is
 * learned from in --steps-per-generation steps, --num-iterations times. A step has
 * per-device-train-batch-size × gradient-accumulation-steps completions, whole groups of them. With
 * one step and one iteration everything is on policy: ratios are 1, and the loss's value is 0 (for
 * most kinds) while its gradient is not.
 *
 * Dynamic sampling (DAPO, section 3.2): groups whose rewards are all equal teach nothing; with
 * --dynamic-sampling further prompts are sampled in their place, up to --dynamic-rounds times.
 *
 * The reference of the KL term is the policy that the run began with; with --sync-ref-model it
 * moves to α policy + (1 − α) reference every --ref-model-sync-steps steps (R1: α = 1 and 400).
 *
 * Everything is a function of seed and step, of what a checkpoint has (values, moments, reference)
 * and of how many prompts were used so far.
 */
#include "base/num.h"
#include "train/loop_impl.h"
#include "train/loss_policy.h"
#include "train/policy_ref.h"
#include "train/rewards.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A completion that is learned from. */
struct grpo_sample {
    struct data_seq seq;         /* prompt and completion */
    int32_t *ids;                /* its tokens; owned */
    float *logp, *ref, *entropy; /* (n), ref and entropy where they are needed; owned */
    uint8_t *mask, *drop;        /* (n) or NULL; owned */
    size_t n;                    /* tokens of the completion */
    double advantage;
};

struct grpo {
    struct loop l;
    const struct train_options *o;
    struct data *data;
    struct rollout *rollout;
    struct rewards rewards;
    struct loss_policy loss;
    struct data_batch prompts;
    struct policy_ref reference; /* of the KL term, if there is one */
    size_t step_groups;          /* of a step */
    size_t groups;               /* of a generation */
    uint64_t cursor;             /* batches of prompts that were used so far */
    /* The generation that is learned from. */
    struct grpo_sample *sample;              /* (groups × G) */
    double *reward, *advantage;              /* (groups × G) */
    float *part;                             /* (groups × G, rules) */
    size_t n;                                /* samples there are */
    int64_t at;                              /* step of the generation, from 0 */
    double ended, shortest, longest, tokens; /* of its completions */
    double dead, sampled;      /* groups without a difference, of all that were sampled */
    char key[REWARDS_MAX][64]; /* of the log */
};

/* ---- a generation ---------------------------------------------------------------------------- */

static void grpo_forget(struct grpo *g)
{
    for (size_t i = 0; i < g->n; i++) {
        struct grpo_sample *s = &g->sample[i];
        free(s->ids);
        free(s->logp);
        free(s->ref);
        free(s->entropy);
        free(s->mask);
        free(s->drop);
    }
    g->n = 0;
}

static int grpo_take(struct grpo *g, const struct rollout_group *from, size_t k, struct err *e)
{
    const struct many_sample *r = &from->sample[k];
    const struct data_seq *p = from->prompt;
    const struct train_options *o = g->o;
    struct grpo_sample *s = &g->sample[g->n++];
    size_t n = p->n + r->n;
    bool cut = o->mask_truncated && !r->ended;
    *s = (struct grpo_sample){.n = r->n};
    s->ids = calloc(n, sizeof *s->ids);
    s->logp = calloc(r->n, sizeof *s->logp);
    s->ref = o->kl_beta != 0 ? calloc(r->n, sizeof *s->ref) : NULL;
    s->entropy = o->top_entropy < 1 ? calloc(r->n, sizeof *s->entropy) : NULL;
    s->drop = o->top_entropy < 1 ? calloc(r->n, 1) : NULL;
    s->mask = cut ? calloc(r->n, 1) : NULL; /* all zero */
    if (!s->ids || !s->logp || (o->kl_beta != 0 && !s->ref) ||
        (o->top_entropy < 1 && (!s->drop || !s->entropy)) || (cut && !s->mask))
        return err_nomem(e, n * 16, "completions");
    memcpy(s->ids, p->ids, p->n * sizeof *s->ids);
    memcpy(s->ids + p->n, r->ids, r->n * sizeof *s->ids);
    memcpy(s->logp, r->logp, r->n * sizeof *s->logp);
    if (s->entropy)
        memcpy(s->entropy, r->entropy, r->n * sizeof *s->entropy);
    s->seq = (struct data_seq){.ids = s->ids, .n = n, .prompt = p->n, .weight = 1};
    g->ended += r->ended;
    g->tokens += (double)r->n;
    g->shortest = fmin(g->shortest, (double)r->n);
    g->longest = fmax(g->longest, (double)r->n);
    return 0;
}

static bool grpo_equal(const double *reward, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (!(reward[i] == reward[0]))
            return false;
    return true;
}

static int grpo_note(struct grpo *g, const struct rollout_group *group, const double *reward,
                     struct err *e)
{
    struct loop *l = &g->l;
    if (!l->run || !g->o->log_completions || (l->step % g->o->logging_steps) != 0)
        return 0;
    json_t *record = NULL;
    int rc = data_record(g->data, group->prompt->record, &record, e);
    for (size_t k = 0; !rc && k < (size_t)g->o->generations; k++) {
        const struct many_sample *s = &group->sample[k];
        json_t *text = json_stringn(s->text, s->n_text);
        if (!text) /* bytes that are no UTF-8 */
            text = json_string("(not UTF-8)");
        json_t *line =
            json_pack("{s:O?,s:o,s:f,s:I}", "prompt", json_object_get(record, "prompt"),
                      "completion", text, "reward", reward[k], "tokens", (json_int_t)s->n);
        /* Of the step that learns from it first: a resumed run samples it again. */
        rc = line ? run_sample(l->run, l->step + 1, line, e) : err_nomem(e, 256, "a sample");
        json_decref(line);
    }
    json_decref(record);
    return rc;
}

/* Rewards of new groups, and those that are to be learned from go into the generation. */
static int grpo_judge(struct grpo *g, const struct rollout_group *group, size_t n, struct err *e)
{
    size_t gs = (size_t)g->o->generations, rules = g->rewards.n;
    for (size_t i = 0; i < n; i++) {
        if (g->n == g->groups * gs)
            break;
        double *reward = g->reward + g->n;
        int rc = rewards_group(&g->rewards, g->data, &group[i], gs, reward, g->part + g->n * rules,
                               NULL, e);
        if (rc)
            return rc;
        bool dead = grpo_equal(reward, gs);
        g->dead += dead;
        g->sampled++;
        rc = grpo_note(g, &group[i], reward, e);
        if (dead && g->o->dynamic_sampling)
            continue;
        for (size_t k = 0; !rc && k < gs; k++)
            rc = grpo_take(g, &group[i], k, e);
        if (rc)
            return rc;
    }
    return 0;
}

static bool grpo_tick(void *arg, size_t done, size_t all)
{
    (void)done, (void)all;
    struct grpo *g = arg;
    const struct train_env *env = g->l.env;
    struct train_report r = {.stage = "grpo",
                             .step = g->l.step,
                             .steps = g->l.steps,
                             .loss = g->l.last_loss,
                             .norm = g->l.last_norm,
                             .reward = g->l.last_reward,
                             .seconds_left = NAN,
                             .quiet = true};
    return !env->report || comm_size(env->comm) > 1 || env->report(env->arg, &r);
}

/* Log-probabilities of all samples by the reference. */
static int grpo_reference(struct grpo *g, struct err *e)
{
    float **out = calloc(g->n + 1, sizeof *out);
    struct data_seq *seq = calloc(g->n + 1, sizeof *seq);
    int rc = seq && out ? 0 : err_nomem(e, g->n * sizeof *seq, "the reference");
    if (!rc) {
        struct data_batch b = {.seq = seq, .n = g->n};
        for (size_t i = 0; i < g->n; i++) {
            seq[i] = g->sample[i].seq;
            out[i] = g->sample[i].ref;
        }
        for (size_t s = 0; s <= DATA_SHARDS; s++)
            b.shard[s] = g->n * s / DATA_SHARDS;
        rc = policy_ref_logps(&g->reference, &b, g->loss.logp.temperature, g->loss.logp.vocab, out,
                              e);
    }
    free(out);
    free(seq);
    return rc;
}

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Only tokens with an entropy in the top share are learned from (Wang et al. 2025, "Beyond the
 * 80/20 Rule"). */
static int grpo_top(struct grpo *g, struct err *e)
{
    size_t all = 0, at = 0;
    for (size_t i = 0; i < g->n; i++)
        all += g->sample[i].n;
    float *v = calloc(all + 1, sizeof *v);
    if (!v)
        return err_nomem(e, all * sizeof *v, "entropies");
    for (size_t i = 0; i < g->n; i++) {
        memcpy(v + at, g->sample[i].entropy, g->sample[i].n * sizeof *v);
        at += g->sample[i].n;
    }
    qsort(v, all, sizeof *v, compare_floats);
    float least = v[num_min((size_t)((1 - g->o->top_entropy) * (double)all), all ? all - 1 : 0)];
    for (size_t i = 0; i < g->n; i++)
        for (size_t t = 0; t < g->sample[i].n; t++)
            g->sample[i].drop[t] = g->sample[i].entropy[t] < least;
    free(v);
    return 0;
}

static void grpo_logged(struct grpo *g)
{
    struct loop *l = &g->l;
    size_t gs = (size_t)g->o->generations, rules = g->rewards.n;
    double n = (double)g->n, sum = 0, count = 0, spread = 0;
    for (size_t i = 0; i < g->n; i++)
        if (!isnan(g->reward[i])) {
            sum += g->reward[i];
            count++;
        }
    for (size_t i = 0; i < g->n; i += gs) { /* mean of the groups' standard deviations */
        double m = 0, q = 0;
        for (size_t k = 0; k < gs; k++)
            m += g->reward[i + k] / (double)gs;
        for (size_t k = 0; k < gs; k++)
            q += (g->reward[i + k] - m) * (g->reward[i + k] - m);
        spread += isnan(q) ? 0 : sqrt(q / fmax((double)gs - 1, 1));
    }
    l->last_reward = sum / fmax(count, 1);
    loop_add(l, "reward", sum, count);
    loop_add(l, "reward_std", spread, n / (double)gs);
    for (size_t k = 0; k < rules; k++) {
        double s = 0, c = 0;
        for (size_t i = 0; i < g->n; i++)
            if (!isnan((double)g->part[i * rules + k])) {
                s += (double)g->part[i * rules + k];
                c++;
            }
        loop_add(l, g->key[k], s, c);
    }
    loop_add(l, "frac_reward_zero_std", g->dead, g->sampled);
    loop_add(l, "completions/mean_length", g->tokens, n);
    loop_add(l, "completions/min_length", g->shortest, 1);
    loop_add(l, "completions/max_length", g->longest, 1);
    loop_add(l, "completions/clipped_ratio", n - g->ended, n);
}

/* A new generation: prompts, completions, rewards, advantages, reference. */
static int grpo_generate(struct grpo *g, struct err *e)
{
    size_t gs = (size_t)g->o->generations, dead;
    int64_t rounds = g->o->dynamic_sampling ? g->o->dynamic_rounds : 1;
    enum policy_scale scale = POLICY_SCALE_GROUP;
    struct rollout_group *group;
    int rc = 0;
    grpo_forget(g);
    g->ended = g->tokens = g->longest = g->dead = g->sampled = 0;
    g->shortest = INFINITY;
    g->at = g->rewards.step = g->l.step;
    for (int64_t i = 0; !rc && i < rounds && g->n < g->groups * gs; i++) {
        rc = data_batch(g->data, g->cursor, &g->prompts, e);
        rc = rc ? rc
                : rollout_run(g->rollout, g->prompts.seq, g->prompts.n, g->cursor, grpo_tick, g,
                              &group, e);
        g->cursor++;
        rc = rc ? rc : grpo_judge(g, group, g->prompts.n, e);
    }
    if (!rc && !g->n)
        rc = err_set(
            e, ERR_LIMIT,
            "all completions of %.0f prompts have the same reward within their group: there "
            "is nothing to learn. Are the problems too easy, too hard, or the rewards "
            "wrong? (ponder train grpo --dry-run shows samples with every reward)",
            g->sampled);
    policy_scale_parse(&scale, g->o->scale_rewards);
    if (!rc)
        policy_advantages(g->advantage, g->reward, g->n, gs, scale, &dead);
    for (size_t i = 0; i < g->n; i++)
        g->sample[i].advantage = g->advantage[i];
    if (!rc && g->o->top_entropy < 1)
        rc = grpo_top(g, e);
    if (!rc && g->o->kl_beta != 0)
        rc = grpo_reference(g, e);
    if (!rc)
        grpo_logged(g);
    return rc;
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Groups [a, z) of the generation as a batch, cut into shards by groups. */
static void grpo_batch(struct grpo *g, size_t a, size_t z, struct data_batch *b,
                       struct data_seq *seq, struct loss_policy_row *row)
{
    size_t gs = (size_t)g->o->generations, n = (z - a) * gs;
    g->loss.opts.rows = (double)n;
    g->loss.opts.tokens = 0;
    *b = (struct data_batch){.seq = seq, .n = n};
    for (size_t i = 0; i < n; i++) {
        const struct grpo_sample *s = &g->sample[a * gs + i];
        seq[i] = s->seq;
        row[i] = (struct loss_policy_row){.old = s->logp,
                                          .ref = s->ref,
                                          .mask = s->mask,
                                          .drop = s->drop,
                                          .advantage = s->advantage,
                                          .n = s->n};
        b->tokens += s->seq.n;
        g->loss.opts.tokens += s->mask ? 0 : (double)s->n;
    }
    for (size_t s = 0; s <= DATA_SHARDS; s++)
        b->shard[s] = (z - a) * s / DATA_SHARDS * gs;
    g->loss.row = row;
}

static void grpo_step_logged(struct grpo *g, const struct train_result *r)
{
    struct loop *l = &g->l;
    const double *s = r->stat;
    double by = g->loss.opts.sequence ? s[PG_ROWS] : s[PG_TOKENS];
    l->last_loss = s[PG_LOSS];
    loop_add(l, "loss", s[PG_LOSS], 1);
    loop_add(l, "entropy", s[PG_ENTROPY], s[PG_TOKENS]);
    if (g->o->kl_beta != 0)
        loop_add(l, "kl", s[PG_KL], s[PG_TOKENS]);
    loop_add(l, "clip_ratio/low_mean", s[PG_CLIP_LOW], by);
    loop_add(l, "clip_ratio/high_mean", s[PG_CLIP_HIGH], by);
    loop_add(l, "clip_ratio/region_mean", s[PG_CLIP_LOW] + s[PG_CLIP_HIGH], by);
    if (!g->loss.on_policy)
        loop_add(l, "ratio_mean", s[PG_RATIO], s[PG_TOKENS]);
    loop_add(l, "logp_checked", s[PG_CHECKED], 1);
    loop_set(l, "epoch", g->prompts.progress);
}

/* The reference follows the policy. */
static void grpo_sync(struct grpo *g)
{
    if (g->o->kl_beta != 0 && g->o->sync_ref && (g->l.step + 1) % g->o->ref_steps == 0)
        policy_ref_follow(&g->reference, g->o->ref_alpha);
}

static int grpo_step(struct grpo *g, size_t a, size_t z, bool first, struct err *e)
{
    struct loop *l = &g->l;
    size_t n = (z - a) * (size_t)g->o->generations;
    struct data_seq *seq = calloc(n + 1, sizeof *seq);
    struct loss_policy_row *row = calloc(n + 1, sizeof *row);
    struct data_batch b;
    struct train_result r;
    double lr = loop_lr(l);
    struct train_loss loss = {.pass = loss_policy_pass, .arg = &g->loss};
    int rc = seq && row ? 0 : err_nomem(e, n * sizeof *seq, "a batch");
    if (!rc) {
        grpo_batch(g, a, z, &b, seq, row);
        g->loss.on_policy = first;
        rc = trainer_step(l->trainer, &b, &loss, lr, &r, e);
    }
    if (rc)
        err_ctx(e, "step %lld", (long long)l->step + 1);
    else
        grpo_step_logged(g, &r);
    free(row);
    free(seq);
    if (rc)
        return rc;
    grpo_sync(g); /* the reference of a checkpoint belongs to its step */
    json_decref(l->extra);
    l->extra = json_pack("{s:I}", "prompts", (json_int_t)g->cursor);
    return loop_stepped(l, lr, &r, e);
}

/* Steps of one generation. A run that goes on begins with a new one: checkpoints are only taken
   between generations. */
static int grpo_learn(struct grpo *g, struct err *e)
{
    size_t gs = (size_t)g->o->generations, have = g->n / gs;
    int rc = 0;
    bool first = true;
    for (int64_t i = 0; i < g->o->iterations; i++)
        for (size_t a = 0; !rc && a < have && g->l.step < g->l.steps; a += g->step_groups) {
            size_t z = num_min(a + g->step_groups, have);
            bool last = i + 1 == g->o->iterations && z == have;
            g->l.hold = !last;
            rc = grpo_step(g, a, z, first, e);
            first = false;
        }
    return rc;
}

/* ---- the stage ------------------------------------------------------------------------------- */

static int grpo_sizes(struct grpo *g, struct err *e)
{
    const struct train_options *o = g->o;
    int64_t step = o->batch * o->accumulation;
    if (step % o->generations != 0)
        return err_set(e, ERR_USAGE,
                       "a step of %lld completions (--per-device-train-batch-size × "
                       "--gradient-accumulation-steps) is no multiple of --num-generations %lld",
                       (long long)step, (long long)o->generations);
    if (o->top_p < 1 || o->top_k > 0 || o->min_p > 0)
        return err_set(e, ERR_USAGE,
                       "--top-p, --top-k and --min-p sample from another distribution than the one "
                       "that is learned: leave them at 1, 0 and 0");
    if (o->use_peft && o->lora_dropout > 0)
        return err_set(e, ERR_USAGE,
                       "--lora-dropout: completions are sampled without dropout, so their "
                       "log-probabilities would not be those that are learned from: leave it at 0");
    g->step_groups = (size_t)(step / o->generations);
    g->groups = g->step_groups * (size_t)o->steps_per_generation;
    return 0;
}

static int grpo_loss(struct grpo *g, struct err *e)
{
    const struct train_options *o = g->o;
    const struct engine_info *info = engine_info(g->l.engine);
    struct policy_opts *p = &g->loss.opts;
    policy_opts_init(p);
    if (!policy_kind_parse(&p->kind, o->loss_type))
        return err_set(e, ERR_USAGE, "--loss-type %s", o->loss_type);
    p->sequence = !strcmp(o->importance, "sequence");
    p->epsilon = o->epsilon_low;
    p->epsilon_high = isnan(o->epsilon_high) ? o->epsilon_low : o->epsilon_high;
    if (p->kind == POLICY_CISPO && isnan(o->epsilon_high))
        p->epsilon_high = 5;
    p->delta = isnan(o->delta) ? 0 : o->delta;
    p->beta = o->kl_beta;
    p->kl_corrected = o->kl_corrected;
    p->longest = (size_t)o->max_completion;
    g->loss.logp.temperature = (float)o->temperature;
    g->loss.entropy_coef = o->entropy_coef;
    g->loss.logp.vocab = num_min(info->vocab, tokenizer_count(engine_tokenizer(g->l.engine)));
    return 0;
}

static int grpo_memory(struct grpo *g, struct err *e)
{
    size_t n = g->groups * (size_t)g->o->generations, rules = g->rewards.n;
    for (size_t k = 0; k < rules; k++)
        snprintf(g->key[k], sizeof g->key[k], "rewards/%s/mean", g->rewards.part[k].name);
    g->sample = calloc(n, sizeof *g->sample);
    g->reward = calloc(n, sizeof *g->reward);
    g->advantage = calloc(n, sizeof *g->advantage);
    g->part = calloc(n * rules, sizeof *g->part);
    if (!g->sample || !g->reward || !g->advantage || !g->part)
        return err_nomem(e, n * sizeof *g->sample, "completions");
    if (g->o->kl_beta == 0)
        return 0;
    int rc = policy_ref_init(&g->reference, g->l.trainer, g->l.env->comm, e);
    g->l.more = g->reference.values; /* part of checkpoints */
    return rc;
}

/* Samples of some prompts with every reward and its reason. */
static int grpo_show(struct grpo *g, struct err *e)
{
    size_t gs = (size_t)g->o->generations, rules = g->rewards.n;
    double *total = calloc(gs, sizeof *total);
    float *part = calloc(gs * rules, sizeof *part);
    struct reward_why *why = calloc(gs * rules, sizeof *why);
    struct rollout_group *group;
    int rc = total && part && why ? data_batch(g->data, 0, &g->prompts, e)
                                  : err_nomem(e, gs * rules * sizeof *why, "rewards");
    size_t n = num_min(g->prompts.n, 4);
    for (size_t r = 0; r < rules; r++) {
        const struct rewards_part *k = &g->rewards.part[r];
        loop_plan_line(&g->l, "reward", "%s × %.2f%s%s", k->name, k->weight, k->rule ? ": " : "",
                       k->rule ? reward_about(k->rule) : "");
    }
    g->rewards.step = INT64_MAX; /* all of them */
    rc = rc ? rc : rollout_run(g->rollout, g->prompts.seq, n, 0, NULL, NULL, &group, e);
    for (size_t i = 0; !rc && i < n; i++) {
        char where[128];
        rc = rewards_group(&g->rewards, g->data, &group[i], gs, total, part, why, e);
        loop_plan_line(&g->l, "prompt", "%s",
                       data_where(g->data, group[i].prompt->record, where, sizeof where));
        for (size_t k = 0; !rc && k < gs && k < 4; k++) {
            const struct many_sample *s = &group[i].sample[k];
            loop_plan_line(&g->l, "sample", "%zu tokens%s, reward %.3f: %.*s", s->n,
                           s->ended ? "" : ", cut", total[k], (int)num_min(s->n_text, 400),
                           s->text);
            for (size_t r = 0; r < rules; r++)
                loop_plan_line(&g->l, "", "  %s %.3f × %.2f: %s", g->rewards.part[r].name,
                               (double)part[k * rules + r], g->rewards.part[r].weight,
                               why[k * rules + r].text);
        }
    }
    free(why);
    free(part);
    free(total);
    return rc;
}

static int grpo_open(struct grpo *g, const struct train_env *env, struct err *e)
{
    const struct train_options *o = g->o;
    size_t ctx = num_round_up((size_t)(o->max_length + o->max_completion), KV_PAGE);
    size_t seqs = num_min(g->groups * (size_t)o->generations, (size_t)o->max_seqs);
    struct loop_opts lo = {.ctx = ctx,
                           .cache = seqs * ctx,
                           .want = seqs,
                           .longest = (size_t)(o->max_length + o->max_completion)};
    int rc = loop_open(&g->l, env, o, &train_stage_grpo, &lo, e);
    rc = rc ? rc : loop_prompts(&g->data, &g->l, g->groups, e);
    if (rc)
        return rc;
    struct rollout_opts ro = {.engine = g->l.engine,
                              .comm = env->comm,
                              .seqs = seqs,
                              .generations = (size_t)o->generations,
                              .longest = (size_t)o->max_completion,
                              .temperature = (float)o->temperature,
                              .seed = (uint64_t)o->seed,
                              .ignore_end = o->ignore_end};
    rc = rollout_new(&g->rollout, &ro, e);
    rc = rc ? rc : grpo_loss(g, e);
    return rc ? rc : grpo_memory(g, e);
}

static int grpo_fits(struct grpo *g, struct err *e)
{
    struct data_stats s;
    data_stats(g->data, &s);
    size_t prompt = num_min(s.longest, (size_t)g->o->max_length);
    struct loop_pass p = {.longest = prompt + (size_t)g->o->max_completion,
                          .unit = 1,
                          .option = "--max-completion-length"};
    p.shard =
        (g->step_groups + DATA_SHARDS - 1) / DATA_SHARDS * (size_t)g->o->generations * p.longest;
    return loop_fits(&g->l, &p, e);
}

static int grpo_run(const struct train_env *env, const struct train_options *o, struct err *e)
{
    struct grpo g = {.o = o};
    uint64_t batches = 0;
    data_batch_init(&g.prompts);
    int rc = grpo_sizes(&g, e);
    rc = rc ? rc : rewards_open(&g.rewards, o, env->comm, env->log, e);
    rc = rc ? rc : grpo_open(&g, env, e);
    rc = rc ? rc : data_steps(g.data, 1, &batches, e);
    int64_t each = o->steps_per_generation * o->iterations;
    int64_t steps =
        o->max_steps > 0 ? o->max_steps : (int64_t)ceil(o->epochs * (double)batches) * each;
    if (!rc && o->dry_run) {
        loop_plan(&g.l, g.data, steps);
        rc = grpo_fits(&g, e);
        rc = rc ? rc : grpo_show(&g, e);
    } else {
        rc = rc ? rc : grpo_fits(&g, e);
        bool began = !rc && !(rc = loop_begin(&g.l, steps, e));
        if (!rc && g.l.extra)
            g.cursor = (uint64_t)json_integer_value(json_object_get(g.l.extra, "prompts"));
        while (!rc && g.l.step < g.l.steps) {
            rc = grpo_generate(&g, e);
            if (rc == ERR_CANCELLED)
                rc = loop_stopped(&g.l, e);
            rc = rc ? rc : grpo_learn(&g, e);
        }
        rc = rc ? rc : loop_finish(&g.l, e);
        rc = rc && began ? loop_left(&g.l, e) : rc;
    }
    grpo_forget(&g);
    rewards_release(&g.rewards);
    rollout_free(g.rollout);
    data_batch_release(&g.prompts);
    data_free(g.data);
    loss_policy_release(&g.loss);
    policy_ref_release(&g.reference);
    free(g.sample);
    free(g.reward);
    free(g.advantage);
    free(g.part);
    loop_close(&g.l);
    return rc;
}

const struct opt_group train_groups_grpo[] = {
    TRAIN_GROUP_MODEL,   TRAIN_GROUP_PROMPTS, TRAIN_GROUP_SAMPLING,
    TRAIN_GROUP_REWARDS, TRAIN_GROUP_GRPO,    TRAIN_GROUP_STEPS,
    TRAIN_GROUP_OPTIM,   TRAIN_GROUP_LORA,    TRAIN_GROUP_LOG};

static const char *const grpo_defaults[] = {
    "learning-rate", "1e-6", "num-train-epochs", "1", "lora-dropout", "0", NULL};

const struct train_stage train_stage_grpo = {
    .name = "grpo",
    .help = "learn from rewards: group relative policy optimization",
    .spec = {train_groups_grpo, NUM_COUNT(train_groups_grpo)},
    .defaults = grpo_defaults,
    .run = grpo_run,
};
