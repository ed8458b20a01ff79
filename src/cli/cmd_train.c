/*
 * train: a stage of training in a run folder.
 *
 * Commands are made from train/stage.def: `train sft`, `train grpo`, … A bar shows where the run
 * is; Ctrl-C ends it after the step, with a checkpoint, and the same command goes on from there.
 */
#include "base/num.h"
#include "base/progress.h"
#include "cli/command.h"
#include "cli/locate.h"
#include "train/plot.h"
#include "train/stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VIEW_POINTS = 96, VIEW_TREND = 12 };

struct train_view {
    struct cli *cli;
    struct log log;
    bool tty, drawn, quiet;
    bool stopping; /* it was said that the run will stop */
    double last;
    double point[VIEW_POINTS]; /* reward or loss of every `every`-th step */
    size_t points;
    int64_t every, seen;
    struct buf trend;
    struct progress reading;
};

static void view_clear(struct train_view *v)
{
    if (v->drawn)
        fputs("\r\033[K", stderr);
    v->drawn = false;
}

/* "2 h 05 min", "3 min 20 s", "12 s". */
static const char *view_time(char *out, size_t cap, double s)
{
    long t = (long)(s + 0.5);
    if (t >= 3600)
        snprintf(out, cap, "%ld h %02ld min", t / 3600, t / 60 % 60);
    else if (t >= 60)
        snprintf(out, cap, "%ld min %02ld s", t / 60, t % 60);
    else
        snprintf(out, cap, "%ld s", t);
    return out;
}

/* Data are being read. */
static void view_reading(struct train_view *v, const struct train_report *r)
{
    if (!v->reading.label || v->reading.total != r->records)
        progress_init(&v->reading, stderr, "reading", PROGRESS_COUNT, r->records);
    if (r->read >= r->records)
        progress_finish(&v->reading);
    else
        progress_update(&v->reading, r->read);
}

/* " · loss 2.3104 · lr 1.00e-03": what a stage has of it. */
static void view_values(char *out, size_t cap, const struct train_report *r, const char *sign)
{
    size_t n = 0;
    *out = 0;
    struct {
        const char *name, *form;
        double x;
        bool on;
    } v[] = {{"loss ", "%.4f", r->loss, !isnan(r->loss)},
             {"reward ", "%.3f", r->reward, !isnan(r->reward)},
             {"kept ", "%.0f", r->kept, r->kept > 0},
             {"lr ", "%.2e", r->lr, !isnan(r->lr)}};
    for (size_t i = 0; i < NUM_COUNT(v) && n < cap; i++)
        if (v[i].on) {
            n += (size_t)snprintf(out + n, cap - n, "%s%s", sign, v[i].name);
            if (n < cap)
                n += (size_t)snprintf(out + n, cap - n, v[i].form, v[i].x);
        }
    if (r->tokens_second > 0 && n < cap)
        snprintf(out + n, cap - n, "%s%.0f tok/s", sign, r->tokens_second);
}

/* How the reward, or else the loss, has gone so far. */
static void view_trend(struct train_view *v, const struct train_report *r)
{
    double x = isnan(r->reward) ? r->loss : r->reward;
    if (isnan(x) || (v->points && r->step == v->seen))
        return;
    v->seen = r->step;
    if (v->points == VIEW_POINTS) { /* every other one is enough from now on */
        for (size_t i = 0; i < VIEW_POINTS / 2; i++)
            v->point[i] = v->point[2 * i + 1];
        v->points = VIEW_POINTS / 2;
        v->every *= 2;
    }
    if (r->step % v->every == 0)
        v->point[v->points++] = x;
    buf_clear(&v->trend);
    plot_spark(&v->trend, v->point, v->points, VIEW_TREND, NULL);
}

static bool view_report(void *arg, const struct train_report *r)
{
    struct train_view *v = arg;
    bool stop = interrupt_pending(v->cli->interrupt);
    if (stop && !v->stopping && !v->quiet) {
        view_clear(v);
        fprintf(stderr, "%s: stopping%s; another Ctrl-C ends it at once\n", r->stage,
                r->records ? "" : " after this step, with a checkpoint");
        v->stopping = true;
    }
    if (v->quiet || r->quiet)
        return !stop;
    if (r->records) {
        view_reading(v, r);
        return !stop;
    }
    char left[32] = "", values[160];
    if (!isnan(r->seconds_left))
        view_time(left, sizeof left, r->seconds_left);
    double share = (double)r->step / (double)(r->steps ? r->steps : 1);
    if (r->event) {
        view_clear(v);
        fprintf(stderr, "%s: %s\n", r->stage, r->event);
    } else if (v->tty) {
        char bar[25];
        size_t n = (size_t)(share * 24);
        memset(bar, ' ', 24);
        memset(bar, '#', n);
        bar[24] = 0;
        view_values(values, sizeof values, r, " · ");
        view_trend(v, r);
        fprintf(stderr, "\r\033[K%s [%s] %lld/%lld%s %s%s%s", r->stage, bar, (long long)r->step,
                (long long)r->steps, values, v->trend.data, *left ? " · left " : "", left);
        v->drawn = true;
    } else if (share >= v->last + 0.05 || r->step == r->steps) {
        v->last = share;
        view_values(values, sizeof values, r, " ");
        fprintf(stderr, "%s %lld/%lld%s\n", r->stage, (long long)r->step, (long long)r->steps,
                values);
    }
    return !stop;
}

static void view_plan(void *arg, const char *key, const char *value)
{
    struct train_view *v = arg;
    if (!v->quiet)
        printf("%-9s %s\n", key, value);
}

static int train_run(struct cli *c, const char *name, const void *opts, struct err *e)
{
    struct train_options o = *(const struct train_options *)opts;
    const struct train_stage *stage = train_stage_find(name);
    struct train_view view = {
        .cli = c, .every = 1, .log = {stderr, LOG_WARN}, .tty = c->term.err_tty};
    struct train_env env = {
        .log = &view.log, .report = view_report, .plan = view_plan, .arg = &view};
    char model[LOCATE_MAX];
    buf_init(&view.trend, 256);
    int rc = train_stage_fill(stage, &o, e);
    if (!rc && o.model && !(rc = locate_model(o.model, model, e)))
        o.model = model;
    if (rc)
        return rc;
    interrupt_guard(c->interrupt);
    rc = comm_open(&env.comm, e);
    if (!rc) {
        view.quiet = comm_rank(env.comm) != 0;
        rc = stage->run(&env, &o, e);
        view_clear(&view);
        if (!rc && !o.dry_run && !view.quiet)
            fprintf(stderr, "%s: done, the result is %s/%s\n", name, o.output,
                    stage->result ? stage->result : "model");
        comm_close(env.comm, rc && rc != ERR_CANCELLED);
    }
    interrupt_unguard(c->interrupt);
    buf_release(&view.trend);
    return rc;
}

#define STAGE(stage, n, what, differs)                                                             \
    static int run_##stage(struct cli *c, const void *opts, struct err *e)                         \
    {                                                                                              \
        return train_run(c, #stage, opts, e);                                                      \
    }                                                                                              \
    const struct command cmd_train_##stage = {                                                     \
        .name = "train " #stage,                                                                   \
        .args = "-m MODEL -d FILE -o RUN",                                                         \
        .summary = what,                                                                           \
        .about = "Everything that the run leaves is in RUN: config.json, log.jsonl, checkpoints, " \
                 "and the result in RUN/model. The same command goes on from the newest "          \
                 "checkpoint, with the bits that an uninterrupted run has. The result does not "   \
                 "depend on threads, ranks (mpirun -n N ponder train …) or --pass-tokens.\n\n"   \
                 "Defaults of this stage: " differs,                                               \
        .examples = "# see what would be done\n"                                                   \
                    "ponder train " #stage " -m model -d data.jsonl --dry-run\n"                   \
                    "# do it\n"                                                                    \
                    "ponder train " #stage " -m model -d data.jsonl -o runs/" #stage,              \
        .spec = {train_groups_##stage, n},                                                         \
        .opts_size = sizeof(struct train_options),                                                 \
        .max_args = 0,                                                                             \
        .run = run_##stage,                                                                        \
    };
#include "train/stage.def"
#undef STAGE
