/* See loop.h. This file: opening, the log, the order of a run. Checkpoints: loop_save.c. */
#include "train/loop.h"

#include "base/clock.h"
#include "base/num.h"
#include "train/data_options.h"
#include "train/loop_impl.h"
#include "train/lora.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening --------------------------------------------------------------------------------- */

static int loop_engine(struct loop *l, const struct loop_opts *lo, struct err *e)
{
    const struct train_options *o = l->o;
    struct engine_opts eo;
    engine_opts_init(&eo);
    eo.threads = (int)o->threads;
    eo.log = l->env->log;
    eo.ctx = lo->ctx ? lo->ctx : KV_PAGE;
    eo.cache = lo->cache;
    eo.ctx_less = "a smaller --max-num-seqs, or shorter prompts and completions";
    eo.want = lo->want;
    eo.batch = lo->ctx ? 0 : KV_PAGE;
    eo.kv_type = QUANT_F32; /* the trainer's: what is sampled has the bits that are learned from */
    eo.act = o->bf16 ? ENGINE_ACT_INT8 : ENGINE_ACT_F32; /* inputs as weights are, or in float */
    eo.bf16 = o->bf16;
    eo.place = ENGINE_PACKED;
    struct model_adapt adapt;
    struct lora_targets targets = {.n = 0};
    eo.train = !o->use_peft;
    if (o->bf16 && o->use_peft)
        return err_set(e, ERR_USAGE,
                       "--bf16 is for weights that are all trained: with --use-peft the model's "
                       "weights stay as they are in its files, so leave --bf16 out");
    int rc = cpu_isa_parse(&eo.isa, o->isa, e);
    if (!rc && o->use_peft) {
        rc = lora_options(&adapt, &targets, &l->adapter, o, e);
        eo.adapt = &adapt;
        eo.adapter = o->lora;
    }
    rc = rc ? rc : engine_open(&l->engine, o->model, &eo, e);
    return rc ? rc : lora_targets_check(&targets, e);
}

int loop_open(struct loop *l, const struct train_env *env, const struct train_options *o,
              const struct train_stage *stage, const struct loop_opts *lo, struct err *e)
{
    *l = (struct loop){
        .env = env, .o = o, .stage = stage, .last_eval = NAN, .eval_step = -1, .last_reward = NAN};
    if (!o->model)
        return err_set(e, ERR_USAGE, "what is to be trained? Give --model");
    if (!o->output && !o->dry_run)
        return err_set(e, ERR_USAGE, "where does the run go? Give --output-dir");
    int rc = loop_engine(l, lo, e);
    if (!rc && lo->score)
        rc = score_open(&l->score, l->engine, o->lora, e);
    if (rc)
        return rc;
    struct trainer_opts to = {.engine = l->engine,
                              .comm = env->comm,
                              .pass_tokens = (size_t)o->pass_tokens,
                              .longest = lo->longest,
                              .recompute = o->recompute,
                              .mtp = lo->mtp,
                              .balance = (float)o->balance,
                              .dropout = o->use_peft ? (float)o->lora_dropout : 0,
                              .seed = (uint64_t)o->seed,
                              .choose = lo->choose,
                              .choose_arg = lo->choose_arg,
                              .extra = l->score ? &l->score->param : NULL,
                              .optim = {.beta1 = o->beta1,
                                        .beta2 = o->beta2,
                                        .epsilon = o->epsilon,
                                        .weight_decay = o->weight_decay,
                                        .max_grad_norm = o->max_grad_norm,
                                        .router_rate = o->router_rate}};
    return trainer_new(&l->trainer, &to, e);
}

void loop_close(struct loop *l)
{
    run_free(l->run);
    trainer_free(l->trainer);
    score_free(l->score);
    engine_free(l->engine);
    json_decref(l->extra);
    json_decref(l->resumed);
    json_decref(l->adapter);
    *l = (struct loop){.env = NULL};
}

double loop_lr(const struct loop *l)
{
    return schedule_lr(&l->schedule, l->step);
}

static int loop_schedule(struct loop *l, int64_t steps, struct err *e)
{
    const struct train_options *o = l->o;
    json_error_t je;
    json_t *args = NULL;
    if (o->scheduler_args && !(args = json_loads(o->scheduler_args, 0, &je)))
        return err_set(e, ERR_USAGE, "--lr-scheduler-kwargs: %s", je.text);
    l->steps = steps;
    int rc =
        schedule_init(&l->schedule, o->scheduler, o->lr,
                      schedule_warmup(o->warmup_steps, o->warmup_ratio, steps), steps, args, e);
    json_decref(args);
    return rc;
}

int loop_begin(struct loop *l, int64_t steps, struct err *e)
{
    if (steps < 1)
        return err_set(e, ERR_USAGE,
                       "no step to take: --num-train-epochs and --max-steps give %lld",
                       (long long)steps);
    int rc = loop_schedule(l, steps, e);
    rc = rc ? rc : loop_folder(l, e);
    l->first = l->step;
    l->started = l->window_start = clock_seconds();
    return rc;
}

/* ---- the log --------------------------------------------------------------------------------- */

struct loop_value *loop_value(struct loop *l, const char *key)
{
    size_t i = 0;
    while (i < l->n_values && strcmp(l->value[i].key, key) != 0)
        i++;
    assert(i < LOOP_VALUES); /* keys are constants of stages */
    if (i == l->n_values)
        l->value[l->n_values++] = (struct loop_value){.key = key};
    return &l->value[i];
}

void loop_add(struct loop *l, const char *key, double x, double count)
{
    struct loop_value *v = loop_value(l, key);
    v->sum += x;
    v->count += count;
}

void loop_set(struct loop *l, const char *key, double x)
{
    struct loop_value *v = loop_value(l, key);
    v->sum = x;
    v->count = 1;
}

static int loop_line(struct loop *l, double lr, struct err *e)
{
    struct run_value v[LOOP_VALUES + 2];
    size_t n = 0;
    for (size_t i = 0; i < l->n_values; i++) {
        struct loop_value *x = &l->value[i];
        if (x->count > 0)
            v[n++] = (struct run_value){x->key, x->sum / x->count};
        x->sum = x->count = 0;
    }
    v[n++] = (struct run_value){"learning_rate", lr};
    v[n++] = (struct run_value){"num_tokens", l->tokens};
    double now = clock_seconds();
    l->pace = l->window_tokens / fmax(now - l->window_start, 1e-9);
    struct run_value t[] = {{"seconds", now - l->started},
                            {"total_steps", (double)l->steps},
                            {"tokens_per_second", l->pace}};
    l->window_start = now;
    l->window_tokens = 0;
    if (!l->run)
        return 0;
    int rc = run_log(l->run, l->step, v, n, e);
    return rc ? rc : run_timing(l->run, l->step, t, NUM_COUNT(t), e);
}

int loop_note(struct loop *l, const struct run_value *v, size_t n, struct err *e)
{
    return l->run ? run_log(l->run, l->step, v, n, e) : 0;
}

static bool loop_tell(struct loop *l, const char *event)
{
    double now = clock_seconds(), done = (double)(l->step - l->first);
    struct train_report r = {
        .stage = l->stage->name,
        .step = l->step,
        .steps = l->steps,
        .loss = l->last_loss,
        .norm = l->last_norm,
        .reward = l->last_reward,
        .lr = l->step ? schedule_lr(&l->schedule, l->step - 1) : 0,
        .tokens_second =
            l->window_tokens > 0 ? l->window_tokens / fmax(now - l->window_start, 1e-9) : l->pace,
        .seconds_left = done > 0 ? (now - l->started) / done * (double)(l->steps - l->step) : NAN,
        .event = event};
    return !l->env->report || l->env->report(l->env->arg, &r);
}

int loop_stepped(struct loop *l, double lr, const struct train_result *r, struct err *e)
{
    l->step++;
    l->tokens += (double)r->tokens;
    l->window_tokens += (double)r->tokens;
    l->last_norm = r->norm;
    loop_add(l, "grad_norm", r->norm, 1);
    int rc = 0;
    bool last = l->step == l->steps;
    if (l->step % l->o->logging_steps == 0 || last)
        rc = loop_line(l, lr, e);
    /* Ranks stop together: rank 0 decides. */
    int32_t stop = !rc && !loop_tell(l, NULL);
    if (!rc)
        rc = comm_tell(l->env->comm, &stop, sizeof stop, e);
    l->stopping = l->stopping || stop;
    l->owed = l->owed || (l->o->save_steps && l->step % l->o->save_steps == 0);
    if (rc || last || l->hold)
        return rc;
    if (l->owed || l->stopping)
        rc = loop_save(l, e);
    if (!rc && l->owed) {
        char text[64];
        snprintf(text, sizeof text, "checkpoint %lld saved", (long long)l->step);
        loop_tell(l, text);
    }
    l->owed = false;
    return !rc && l->stopping ? loop_stopped(l, e) : rc;
}

int loop_left(const struct loop *l, struct err *e)
{
    struct err was = *e;
    if (was.code == ERR_CANCELLED)
        return was.code;
    if (!l->saved)
        return err_set(e, was.code, "%.400s; no checkpoint was saved before", was.text);
    return err_set(e, was.code, "%.360s; the last good checkpoint is %.100s/checkpoints/step-%lld",
                   was.text, l->o->output, (long long)l->saved);
}

int loop_stopped(struct loop *l, struct err *e)
{
    int rc = l->saved == l->step ? 0 : loop_save(l, e);
    return rc ? rc
              : err_set(e, ERR_CANCELLED,
                        "stopped after step %lld of %lld; the same command goes on",
                        (long long)l->step, (long long)l->steps);
}

/* ---- supervised stages ------------------------------------------------------------------------
 */

enum { LOOP_PATHS = 4 << 20 };

static bool loop_reading(void *arg, uint64_t done, uint64_t total)
{
    const struct loop *l = arg;
    struct train_report r = {.stage = l->stage->name,
                             .loss = NAN,
                             .lr = NAN,
                             .reward = NAN,
                             .seconds_left = NAN,
                             .read = done,
                             .records = total};
    return !l->env->report || l->env->report(l->env->arg, &r);
}

static int loop_data_open(struct data **out, const struct loop *l, const struct opt_list *files,
                          enum data_use use, bool test, size_t items, struct err *e)
{
    const struct train_options *o = l->o;
    struct data_options d = {.tokenizer = engine_tokenizer(l->engine),
                             .chat = engine_chat(l->engine),
                             .batch = items,
                             .seed = (uint64_t)o->seed};
    struct engine_parts parts;
    struct arena a;
    engine_parts(l->engine, &parts);
    arena_init(&a, LOOP_PATHS);
    data_options_take(&d, o, use);
    if (files != &o->dataset)
        d.test_size = 0;
    d.test = test && files == &o->dataset; /* the other side of the split */
    if (test) {
        d.packing = DATA_UNPACKED;
        d.ordered = true;
    }
    int rc = data_options_sources(&d, files, &a, e);
    if (!rc && !d.tokenizer)
        rc = err_set(e, ERR_USAGE, "%s has no tokenizer", o->model);
    if (!rc)
        rc = data_open(out, &d, parts.team, loop_reading, (void *)(uintptr_t)l, e);
    arena_release(&a);
    return rc;
}

int loop_data(struct data **train, struct data **test, const struct loop *l, enum data_use use,
              struct err *e)
{
    const struct train_options *o = l->o;
    *train = *test = NULL;
    if (!o->dataset.n)
        return err_set(e, ERR_USAGE, "what is to be learned from? Give --dataset FILE.jsonl");
    size_t items = (size_t)(o->batch * o->accumulation), few = (size_t)o->eval_batch;
    int rc = loop_data_open(train, l, &o->dataset, use, false, items, e);
    if (!rc && o->eval_dataset.n)
        rc = loop_data_open(test, l, &o->eval_dataset, use, true, few, e);
    else if (!rc && o->test_size > 0)
        rc = loop_data_open(test, l, &o->dataset, use, true, few, e);
    return rc;
}

int loop_prompts(struct data **out, const struct loop *l, size_t items, struct err *e)
{
    if (!l->o->dataset.n)
        return err_set(e, ERR_USAGE, "what is to be answered? Give --dataset FILE.jsonl");
    return loop_data_open(out, l, &l->o->dataset, DATA_PROMPTS, false, items, e);
}

static int loop_eval(struct loop *l, struct data *test, const struct loop_loss *loss, struct err *e)
{
    struct data_batch b;
    struct train_result r;
    double stat[TRAIN_STATS] = {0};
    uint64_t steps, i = 0;
    data_batch_init(&b);
    int rc = data_steps(test, 1, &steps, e);
    for (; !rc && i < steps; i++) {
        rc = data_batch(test, i, &b, e);
        if (rc)
            break;
        rc = loss->aim ? loss->aim(loss->arg, test, &b, e) : 0;
        rc = rc ? rc : trainer_look(l->trainer, &b, &loss->loss, &r, e);
        for (size_t k = 0; !rc && k < TRAIN_STATS; k++)
            stat[k] += r.stat[k];
    }
    data_batch_release(&b);
    if (rc)
        return rc;
    struct run_value v[8];
    size_t n = loss->eval(loss->arg, stat, (double)steps, v);
    l->last_eval = v[0].value;
    l->eval_step = l->step;
    return loop_note(l, v, n, e);
}

static int loop_steps(const struct loop *l, struct data *train, int64_t *steps, struct err *e)
{
    uint64_t each;
    *steps = l->o->max_steps;
    if (*steps > 0)
        return 0;
    int rc = data_steps(train, 1, &each, e);
    *steps = (int64_t)ceil(l->o->epochs * (double)each);
    return rc;
}

/* Names the record of the batch whose loss is no number; nothing was learned from it. */
static void loop_blame(struct loop *l, const struct data *train, const struct data_batch *b,
                       const struct train_loss *loss, struct err *e)
{
    struct data_batch one = *b;
    struct train_result r;
    struct err ignored;
    char where[512];
    size_t unit = loss->pairs ? 2 : 1, bad = SIZE_MAX, n = 0;
    for (size_t i = 0; i + unit <= b->n; i += unit) {
        one.shard[0] = i; /* the first shard has this one, the others nothing */
        for (size_t s = 1; s <= DATA_SHARDS; s++)
            one.shard[s] = i + unit;
        if (trainer_look(l->trainer, &one, loss, &r, &ignored))
            return;
        if (!isfinite(r.stat[0])) {
            bad = bad == SIZE_MAX ? i : bad;
            n++;
        }
    }
    if (bad == SIZE_MAX)
        return;
    data_where(train, b->seq[bad].record, where, sizeof where);
    if (n == 1)
        err_ctx(e, "%s: its loss is no number", where);
    else
        err_ctx(e, "%s and %zu more of %zu: their losses are no numbers", where, n - 1,
                b->n / unit);
}

/* By the longest record that there is, not by what --max-length would allow. */
static int loop_data_fits(struct loop *l, struct data *train, const struct loop_loss *loss,
                          struct err *e)
{
    const struct train_options *o = l->o;
    struct data_stats s;
    data_stats(train, &s);
    size_t items = (size_t)(o->batch * o->accumulation);
    struct loop_pass p = {.longest = num_min(s.longest, (size_t)o->max_length) + loss->grows,
                          .unit = loss->loss.pairs ? 2 : 1,
                          .option = "--max-length"};
    bool packed = o->packing && strcmp(o->packing, "none") != 0;
    size_t item = packed ? (size_t)o->max_length : p.unit * p.longest;
    p.shard = (items + DATA_SHARDS - 1) / DATA_SHARDS * item;
    return loop_fits(l, &p, e);
}

int loop_supervised(struct loop *l, struct data *train, struct data *test,
                    const struct loop_loss *loss, struct err *e)
{
    struct data_batch b;
    struct train_result r;
    int64_t steps;
    data_batch_init(&b);
    int rc = loop_steps(l, train, &steps, e);
    if (!rc && l->o->dry_run)
        loop_plan(l, train, steps);
    rc = rc ? rc : loop_data_fits(l, train, loss, e);
    if (rc || l->o->dry_run)
        goto out;
    if ((rc = loop_begin(l, steps, e)))
        goto out;
    while (!rc && l->step < l->steps) {
        double lr = loop_lr(l);
        rc = data_batch(train, (uint64_t)l->step, &b, e);
        if (rc)
            break;
        rc = loss->aim ? loss->aim(loss->arg, train, &b, e) : 0;
        r.norm = 0;
        rc = rc ? rc : trainer_step(l->trainer, &b, &loss->loss, lr, &r, e);
        if (rc) {
            if (!isfinite(r.norm))
                loop_blame(l, train, &b, &loss->loss, e);
            err_ctx(e, "step %lld", (long long)l->step + 1);
            break;
        }
        loss->add(loss->arg, l, &r);
        loop_set(l, "epoch", b.progress);
        int64_t next = l->step + 1;
        if (test && (next == l->steps || (l->o->eval_steps && next % l->o->eval_steps == 0))) {
            l->step = next; /* the line of an evaluation is of the step that it follows */
            rc = loop_eval(l, test, loss, e);
            l->step = next - 1;
        }
        rc = rc ? rc : loop_stepped(l, lr, &r, e);
    }
    rc = rc ? rc : loop_finish(l, e);
    rc = rc ? loop_left(l, e) : 0;
out:
    data_batch_release(&b);
    return rc;
}
