/* See rewards.h. */
#include "train/rewards.h"

#include "grade/gym_data.h"
#include "train/command.h"
#include "train/reward_model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The next piece of a list; false at its end. */
static bool list_next(const char **list, struct span *out)
{
    const char *s = *list;
    if (!s || !*s)
        return false;
    const char *comma = strchr(s, ',');
    out->s = s;
    out->n = comma ? (size_t)(comma - s) : strlen(s);
    *out = span_trim(*out);
    *list = comma ? comma + 1 : s + strlen(s);
    return true;
}

static struct rewards_part *part_new(struct rewards *r, struct err *e)
{
    if (r->n == REWARDS_MAX) {
        err_set(e, ERR_USAGE, "more than %d rewards", REWARDS_MAX);
        return NULL;
    }
    struct rewards_part *p = &r->part[r->n++];
    p->weight = 1;
    return p;
}

static int rules_read(struct rewards *r, const char *rules, const char *weights, struct err *e)
{
    struct span name;
    while (list_next(&rules, &name)) {
        struct rewards_part *p = part_new(r, e);
        if (!p)
            return ERR_USAGE;
        p->rule = reward_find(name);
        if (!p->rule) {
            char all[512] = "";
            for (size_t i = 0; i < reward_count(); i++) {
                size_t k = strlen(all);
                snprintf(all + k, sizeof all - k, "%s%s", i ? ", " : "", reward_name(reward_at(i)));
            }
            return err_set(e, ERR_USAGE, "there is no reward \"%.*s\"; there are %s", (int)name.n,
                           name.s, all);
        }
        snprintf(p->name, sizeof p->name, "%s", reward_name(p->rule));
    }
    size_t i = 0;
    for (; weights && list_next(&weights, &name); i++) {
        char text[32], *end;
        snprintf(text, sizeof text, "%.*s", (int)name.n, name.s);
        double w = strtod(text, &end);
        if (i == r->n || end == text || *end || !isfinite(w))
            return err_set(e, ERR_USAGE,
                           "--reward-weights: \"%s\" (there are %zu rewards, each needs a number)",
                           text, r->n);
        r->part[i].weight = w;
    }
    if (i && i != r->n)
        return err_set(e, ERR_USAGE, "--reward-weights has %zu numbers for %zu rewards", i, r->n);
    return 0;
}

static int models_open(struct rewards *r, const struct train_options *o, const struct log *log,
                       struct err *e)
{
    struct frozen_opts fo = {.isa = o->isa,
                             .threads = (int)o->threads,
                             .log = log,
                             .pass_tokens = 4096,
                             /* it may have other tokens */
                             .longest = 2 * (size_t)(o->max_length + o->max_completion) + 256};
    int rc = 0;
    for (size_t i = 0; !rc && i < o->reward_models.n; i++) {
        struct rewards_part *p = part_new(r, e);
        if (!p)
            return ERR_USAGE;
        p->after = o->reward_model_after;
        rc = reward_model_open(&p->model, o->reward_models.v[i], &fo, p->name, &p->weight, e);
        for (size_t k = 0; k + 1 < r->n; k++) /* names are keys of the log */
            if (!strcmp(r->part[k].name, p->name))
                snprintf(p->name, sizeof p->name, "model_%zu", i + 1);
    }
    return rc;
}

static int program_open(struct rewards *r, const struct train_options *o, const struct log *log,
                        struct err *e)
{
    if (!o->reward_command)
        return 0;
    if (!o->allow_commands)
        return err_set(e, ERR_USAGE,
                       "--reward-command starts a program with what the model has written: say "
                       "--allow-commands if that is meant");
    struct rewards_part *p = part_new(r, e);
    if (!p)
        return ERR_USAGE;
    snprintf(p->name, sizeof p->name, "command");
    p->weight = o->command_weight;
    if (log)
        log_line(log, LOG_WARN, "rewards come from a program: %s", o->reward_command);
    return command_reward_open(&p->command, o->reward_command, o->command_seconds, log, e);
}

int rewards_open(struct rewards *r, const struct train_options *o, struct comm *comm,
                 const struct log *log, struct err *e)
{
    *r = (struct rewards){.comm = comm};
    reward_options_init(&r->opts);
    r->opts.max_completion_len = (size_t)o->max_completion;
    r->opts.soft_punish_cache = (size_t)o->soft_cache;
    int rc = rules_read(r, o->rewards, o->reward_weights, e);
    rc = rc ? rc : models_open(r, o, log, e);
    rc = rc ? rc : program_open(r, o, log, e);
    if (!rc && !r->n)
        rc = err_set(e, ERR_USAGE, "--reward-funcs is empty, and there is no --reward-model");
    return rc;
}

void rewards_release(struct rewards *r)
{
    for (size_t i = 0; i < r->n; i++) {
        reward_model_free(r->part[i].model);
        command_reward_free(r->part[i].command);
    }
    r->n = 0;
}

/* ---- a group --------------------------------------------------------------------------------- */

/* The completions of a group, as all kinds of rewards take them. */
struct group {
    json_t *record;
    struct reward_problem problem;
    struct reward_source from;
    struct reward_sample *sample; /* (n) */
    struct span *text;            /* (n) */
    size_t n;
    bool thinking;
};

static int group_open(struct group *w, const struct data *d, const struct rollout_group *g,
                      size_t n, struct err *e)
{
    *w = (struct group){.n = n, .thinking = g->prompt->thinking};
    w->sample = calloc(n, sizeof *w->sample);
    w->text = calloc(n, sizeof *w->text);
    int rc = w->sample && w->text ? data_record(d, g->prompt->record, &w->record, e)
                                  : err_nomem(e, n * sizeof *w->sample, "rewards");
    rc = rc ? rc : reward_problem_read(&w->problem, &w->from, w->record, e);
    if (rc)
        return rc;
    w->problem.thinking_open = w->thinking;
    for (size_t i = 0; i < n; i++) {
        w->text[i] = (struct span){g->sample[i].text, g->sample[i].n_text};
        w->sample[i] = (struct reward_sample){
            .text = w->text[i], .tokens = g->sample[i].n, .ids = g->sample[i].ids};
    }
    return 0;
}

static void group_close(struct group *w)
{
    json_decref(w->record);
    free(w->sample);
    free(w->text);
}

/* Rank 0's program for all. */
static int by_program(const struct rewards *r, const struct rewards_part *p, const struct group *w,
                      float *out, struct reward_why *why, struct err *e)
{
    int32_t rc = 0;
    if (comm_rank(r->comm) == 0)
        rc = command_reward_group(p->command, w->record, w->text, w->n, out, why, e);
    if (comm_size(r->comm) == 1)
        return rc;
    int told = comm_tell(r->comm, &rc, sizeof rc, rc ? NULL : e);
    if (rc && comm_rank(r->comm) != 0)
        return err_set(e, rc, "--reward-command failed on rank 0");
    return rc || told ? (rc ? rc : told) : comm_tell(r->comm, out, w->n * sizeof *out, e);
}

static int part_group(const struct rewards *r, const struct rewards_part *p, const struct group *w,
                      float *out, struct reward_why *why, struct err *e)
{
    for (size_t i = 0; i < w->n; i++) {
        out[i] = NAN;
        if (why)
            why[i].text[0] = '\0';
    }
    if (r->step < p->after)
        return 0;
    if (p->rule)
        return reward_group(p->rule, &r->opts, &w->problem, w->sample, w->n, out, why, e);
    if (p->command)
        return by_program(r, p, w, out, why, e);
    return reward_model_group(p->model, w->record, w->thinking, w->text, w->n, out, e);
}

int rewards_group(const struct rewards *r, const struct data *d, const struct rollout_group *g,
                  size_t n, double *total, float *part, struct reward_why *why, struct err *e)
{
    struct group w;
    float *out = calloc(n, sizeof *out);
    struct reward_why *words = why ? calloc(n, sizeof *words) : NULL;
    int rc = group_open(&w, d, g, n, e);
    if (!rc && (!out || (why && !words)))
        rc = err_nomem(e, n * sizeof *out, "rewards");
    for (size_t i = 0; i < n; i++)
        total[i] = NAN;
    for (size_t k = 0; !rc && k < r->n; k++) {
        rc = part_group(r, &r->part[k], &w, out, words, e);
        for (size_t i = 0; !rc && i < n; i++) {
            if (part)
                part[i * r->n + k] = out[i];
            if (why)
                why[i * r->n + k] = words[i];
            if (!isnan(out[i]))
                total[i] = (isnan(total[i]) ? 0 : total[i]) + r->part[k].weight * (double)out[i];
        }
    }
    group_close(&w);
    free(words);
    free(out);
    return rc;
}
