/* See rewards.h. */
#include "train/rewards.h"

#include "grade/gym_data.h"

#include <math.h>
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

int rewards_parse(struct rewards *r, const char *rules, const char *weights, struct err *e)
{
    struct span name;
    *r = (struct rewards){.n = 0};
    reward_options_init(&r->opts);
    while (list_next(&rules, &name)) {
        if (r->n == REWARDS_MAX)
            return err_set(e, ERR_USAGE, "more than %d rewards", REWARDS_MAX);
        r->rule[r->n] = reward_find(name);
        r->weight[r->n] = 1;
        if (!r->rule[r->n++]) {
            char all[512] = "";
            for (size_t i = 0; i < reward_count(); i++) {
                size_t k = strlen(all);
                snprintf(all + k, sizeof all - k, "%s%s", i ? ", " : "", reward_name(reward_at(i)));
            }
            return err_set(e, ERR_USAGE, "there is no reward \"%.*s\"; there are %s", (int)name.n,
                           name.s, all);
        }
    }
    if (!r->n)
        return err_set(e, ERR_USAGE, "--reward-funcs is empty");
    size_t i = 0;
    for (; weights && list_next(&weights, &name); i++) {
        char text[32], *end;
        snprintf(text, sizeof text, "%.*s", (int)name.n, name.s);
        double w = strtod(text, &end);
        if (i == r->n || end == text || *end || !isfinite(w))
            return err_set(e, ERR_USAGE,
                           "--reward-weights: \"%s\" (there are %zu rewards, each needs a number)",
                           text, r->n);
        r->weight[i] = w;
    }
    if (i && i != r->n)
        return err_set(e, ERR_USAGE, "--reward-weights has %zu numbers for %zu rewards", i, r->n);
    return 0;
}

int rewards_group(const struct rewards *r, const struct data *d, const struct rollout_group *g,
                  size_t n, double *total, float *part, struct reward_why *why, struct err *e)
{
    json_t *record = NULL;
    struct reward_source from;
    struct reward_problem p;
    struct reward_sample *s = calloc(n, sizeof *s);
    float *out = calloc(n, sizeof *out);
    struct reward_why *words = why ? calloc(n, sizeof *words) : NULL;
    int rc = !s || !out || (why && !words) ? err_nomem(e, n * sizeof *s, "rewards")
                                           : data_record(d, g->prompt->record, &record, e);
    rc = rc ? rc : reward_problem_read(&p, &from, record, e);
    if (rc)
        goto out;
    p.thinking_open = g->prompt->thinking;
    for (size_t i = 0; i < n; i++) {
        s[i] = (struct reward_sample){.text = {g->sample[i].text, g->sample[i].n_text},
                                      .tokens = g->sample[i].n,
                                      .ids = g->sample[i].ids};
        total[i] = NAN;
    }
    for (size_t k = 0; !rc && k < r->n; k++) {
        rc = reward_group(r->rule[k], &r->opts, &p, s, n, out, words, e);
        for (size_t i = 0; !rc && i < n; i++) {
            if (part)
                part[i * r->n + k] = out[i];
            if (why)
                why[i * r->n + k] = words[i];
            if (!isnan(out[i]))
                total[i] = (isnan(total[i]) ? 0 : total[i]) + r->weight[k] * (double)out[i];
        }
    }
out:
    json_decref(record);
    free(words);
    free(out);
    free(s);
    return rc;
}
