#include "eval/cells.h"

#include <math.h>

/* The log-probability of a cell whose probability is too small for a float. */
static const float cells_floor = -104;

/* Sum in a fixed order: four chains, then one. */
static double cells_sum(const float *p, size_t n)
{
    double s[4] = {0};
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (size_t k = 0; k < 4; k++)
            s[k] += p[i + k];
    for (; i < n; i++)
        s[0] += p[i];
    return (s[0] + s[2]) + (s[1] + s[3]);
}

static uint32_t cells_best(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return (uint32_t)best;
}

/* w->tmp = exp(logits - max); returns ln Σ exp(logits), NAN when there is none. */
static double cells_lse(const struct cells_work *w, const float *logits, float *max)
{
    *max = logits[cells_best(logits, w->vocab)];
    if (!isfinite(*max))
        return NAN;
    for (size_t i = 0; i < w->vocab; i++)
        w->tmp[i] = logits[i] - *max;
    engine_exp(w->g, w->tmp, w->tmp, w->vocab);
    double sum = cells_sum(w->tmp, w->vocab);
    return isfinite(sum) ? *max + log(sum) : NAN;
}

static float cells_lp(float logit, double lse)
{
    double lp = logit - lse;
    return lp < cells_floor ? cells_floor : (float)lp;
}

/* What is left of w->tmp without the cells' tokens, as a log-probability. */
static float cells_rest(const struct cells_work *w, const uint32_t *ids, size_t top, uint32_t right,
                        float max, double lse)
{
    size_t left = w->vocab - top;
    bool among = false;
    for (size_t i = 0; i < top; i++) {
        w->tmp[ids[i]] = 0;
        among |= ids[i] == right;
    }
    w->tmp[right] = 0;
    if (left == 0 || (left == 1 && !among))
        return -INFINITY;
    double rest = cells_sum(w->tmp, w->vocab);
    double lp = rest > 0 ? log(rest) + max - lse : cells_floor;
    return lp < cells_floor ? cells_floor : (float)lp;
}

double cells_nll(const struct cells_work *w, const float *logits, uint32_t right)
{
    float max;
    double lse = cells_lse(w, logits, &max);
    return isnan(lse) ? NAN : -cells_lp(logits[right], lse);
}

/* a is less likely than b. */
static bool cells_less(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] < logits[b] || (logits[a] == logits[b] && a > b);
}

/* Moves v[at] of a heap whose root is the least likely down to its place. */
static void cells_sift(const float *logits, uint32_t *v, size_t n, size_t at)
{
    for (;;) {
        size_t k = 2 * at + 1;
        if (k >= n)
            return;
        if (k + 1 < n && cells_less(logits, v[k + 1], v[k]))
            k++;
        if (!cells_less(logits, v[k], v[at]))
            return;
        uint32_t t = v[at];
        v[at] = v[k];
        v[k] = t;
        at = k;
    }
}

/* The `top` likeliest ids, in order: a heap of the best so far, sorted at the end. */
static void cells_select(const float *logits, size_t vocab, uint32_t *ids, size_t top)
{
    for (size_t i = 0; i < top; i++)
        ids[i] = (uint32_t)i;
    for (size_t i = top / 2; i-- > 0;)
        cells_sift(logits, ids, top, i);
    for (size_t i = top; top && i < vocab; i++)
        if (logits[i] > logits[ids[0]]) { /* an equal one has the higher id: it stays out */
            ids[0] = (uint32_t)i;
            cells_sift(logits, ids, top, 0);
        }
    for (size_t n = top; n > 1; n--) {
        uint32_t t = ids[0];
        ids[0] = ids[n - 1];
        ids[n - 1] = t;
        cells_sift(logits, ids, n - 1, 0);
    }
}

double cells_make(const struct cells_work *w, const float *logits, uint32_t right, size_t top,
                  struct cells *c)
{
    float max;
    double lse = cells_lse(w, logits, &max);
    if (isnan(lse))
        return NAN;
    cells_select(logits, w->vocab, c->ids, top);
    for (size_t i = 0; i < top; i++)
        c->lp[i] = cells_lp(logits[c->ids[i]], lse);
    c->right = cells_lp(logits[right], lse);
    c->rest = cells_rest(w, c->ids, top, right, max, lse);
    return -c->right;
}

static double cells_term(float p, float q)
{
    return p == -INFINITY ? 0 : exp(p) * ((double)p - (double)q);
}

void cells_compare(const struct cells_work *w, const float *logits, uint32_t right, size_t top,
                   const struct cells *p, struct cells_diff *out)
{
    float max;
    double lse = cells_lse(w, logits, &max);
    bool among = false;
    *out = (struct cells_diff){.nll = NAN};
    if (isnan(lse))
        return;
    for (size_t i = 0; i < top; i++) {
        out->kl += cells_term(p->lp[i], cells_lp(logits[p->ids[i]], lse));
        among |= p->ids[i] == right;
    }
    float q = cells_lp(logits[right], lse);
    if (!among)
        out->kl += cells_term(p->right, q);
    out->kl += cells_term(p->rest, cells_rest(w, p->ids, top, right, max, lse));
    out->nll = -q;
    out->dp = exp(q) - exp(p->right);
    out->same = top && cells_best(logits, w->vocab) == p->ids[0];
}
