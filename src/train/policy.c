/* See policy.h. All in double: rows are short, and the result is rounded once. */
#include "train/policy.h"

#include <math.h>
#include <string.h>

static const char *const policy_names[] = {
    [POLICY_GRPO] = "grpo", [POLICY_BNPO] = "bnpo",   [POLICY_DR_GRPO] = "dr_grpo",
    [POLICY_DAPO] = "dapo", [POLICY_CISPO] = "cispo",
};

bool policy_kind_parse(enum policy_kind *out, const char *name)
{
    for (size_t i = 0; i < sizeof policy_names / sizeof *policy_names; i++)
        if (!strcmp(name, policy_names[i])) {
            *out = (enum policy_kind)i;
            return true;
        }
    return false;
}

bool policy_scale_parse(enum policy_scale *out, const char *name)
{
    static const char *const names[] = {"group", "batch", "none"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(name, names[i])) {
            *out = (enum policy_scale)i;
            return true;
        }
    return false;
}

void policy_opts_init(struct policy_opts *o)
{
    *o = (struct policy_opts){.kind = POLICY_DAPO, .epsilon = 0.2, .epsilon_high = 0.2};
}

static bool counts(const struct policy_row *row, size_t t)
{
    return !row->mask || row->mask[t];
}

/* What one token's loss is and how it changes with ρ (or, for cispo, with lp). */
struct policy_token {
    double loss, by_ratio, by_logp;
    bool low, high; /* the gradient is cut off */
};

static struct policy_token policy_token(const struct policy_opts *o, double ratio, double a,
                                        double logp)
{
    struct policy_token r = {0};
    if (o->kind == POLICY_CISPO) {
        double cap = fmin(ratio, o->epsilon_high);
        r.loss = -cap * a * logp;
        r.by_logp = -cap * a;
        r.high = ratio > o->epsilon_high && a > 0;
        return r;
    }
    double free = o->delta > 0 ? fmin(ratio, o->delta) : ratio;
    double clipped = fmin(fmax(ratio, 1 - o->epsilon), 1 + o->epsilon_high);
    bool capped = o->delta > 0 && ratio > o->delta;
    r.low = ratio < 1 - o->epsilon && a < 0;
    r.high = ratio > 1 + o->epsilon_high && a > 0;
    if (free * a <= clipped * a) {
        r.loss = -free * a;
        r.by_ratio = capped ? 0 : -a;
    } else {
        r.loss = -clipped * a;
        r.by_ratio = 0; /* it is the clip's bound, a constant */
    }
    return r;
}

/* What divides the row's sum of losses. */
static double policy_divisor(const struct policy_opts *o, double active)
{
    switch (o->kind) {
    case POLICY_GRPO:
        return fmax(active, 1) * o->rows;
    case POLICY_DR_GRPO:
        return o->rows * (double)o->longest;
    case POLICY_BNPO:
    case POLICY_DAPO:
    case POLICY_CISPO:
        break;
    }
    return fmax(o->tokens, 1);
}

void policy_loss(const struct policy_opts *o, const struct policy_row *row,
                 struct policy_stats *add)
{
    double active = 0, drift = 0;
    for (size_t t = 0; t < row->n; t++) {
        row->grad[t] = 0;
        if (!counts(row, t))
            continue;
        active++;
        if (row->old)
            drift += (double)row->logp[t] - (double)row->old[t];
    }
    double divisor = policy_divisor(o, active), a = row->advantage;
    double level = exp(drift / fmax(active, 1)); /* ρ of the sequence */
    double shared = 0;                           /* d sum / d (mean of lp − lp_old) */
    bool clipped = false;
    for (size_t t = 0; t < row->n; t++) {
        if (!counts(row, t) || (row->drop && row->drop[t]))
            continue;
        double lp = row->logp[t], old = row->old ? (double)row->old[t] : lp;
        double ratio = o->sequence ? level : exp(lp - old);
        struct policy_token k = policy_token(o, ratio, a, lp);
        double loss = k.loss, grad = k.by_logp;
        if (o->sequence)
            shared += k.by_ratio * ratio;
        else
            grad += k.by_ratio * ratio;
        if (o->beta != 0) {
            double d = (double)row->ref[t] - lp, k3 = exp(d) - d - 1;
            double w = o->kl_corrected ? ratio : 1;
            loss += o->beta * k3 * w;
            grad += o->beta * (1 - exp(d)) * w;
            if (o->kl_corrected && o->sequence)
                shared += o->beta * k3 * ratio;
            else if (o->kl_corrected)
                grad += o->beta * k3 * ratio;
            add->kl += k3;
        }
        add->loss += loss / divisor;
        row->grad[t] = (float)(grad / divisor);
        add->ratio += ratio;
        add->ratio_max = fmax(add->ratio_max, ratio);
        clipped = clipped || k.low || k.high;
        if (!o->sequence) {
            add->clip_low += k.low;
            add->clip_high += k.high;
        }
    }
    if (o->sequence && active > 0) {
        for (size_t t = 0; t < row->n; t++)
            if (counts(row, t)) /* all of them make the mean */
                row->grad[t] = (float)((double)row->grad[t] + shared / active / divisor);
        add->clip_low += clipped && a < 0;
        add->clip_high += clipped && a > 0;
    }
    add->tokens += active;
    add->rows++;
}

/* Mean of the numbers among x[0..n), and their variance over n − 1. */
static double moments(const double *x, size_t n, double *variance)
{
    double sum = 0, square = 0, count = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i])) {
            sum += x[i];
            count++;
        }
    double mean = count ? sum / count : 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(x[i]))
            square += (x[i] - mean) * (x[i] - mean);
    *variance = count > 1 ? square / (count - 1) : 0;
    return mean;
}

void policy_advantages(double *out, const double *reward, size_t n, size_t group,
                       enum policy_scale scale, size_t *dead)
{
    double all;
    size_t equal = 0;
    moments(reward, n, &all);
    for (size_t g = 0; g < n; g += group) {
        size_t m = n - g < group ? n - g : group;
        double variance, mean = moments(reward + g, m, &variance), first = NAN;
        bool same = true;
        for (size_t i = 0; i < m; i++) {
            double r = reward[g + i];
            if (isnan(r))
                continue;
            if (isnan(first))
                first = r;
            same = same && r == first;
        }
        equal += same;
        double std = scale == POLICY_SCALE_GROUP   ? sqrt(variance) + 1e-4
                     : scale == POLICY_SCALE_BATCH ? sqrt(all) + 1e-4
                                                   : 1;
        for (size_t i = 0; i < m; i++) /* equal rewards: exactly 0, whatever the mean rounds to */
            out[g + i] = same || isnan(reward[g + i]) ? 0 : (reward[g + i] - mean) / std;
    }
    if (dead)
        *dead = equal;
}
