/* See loss_pairs.h. */
#include "train/loss_pairs.h"

#include "base/num.h"
#include "train/loss_score.h"

#include <math.h>
#include <string.h>

bool pairs_kind_parse(enum pairs_kind *out, const char *name)
{
    static const char *const names[] = {
        [PAIRS_SIGMOID] = "sigmoid",
        [PAIRS_ROBUST] = "robust",
        [PAIRS_HINGE] = "hinge",
        [PAIRS_IPO] = "ipo",
        [PAIRS_SIGMOID_NORM] = "sigmoid_norm",
    };
    for (size_t i = 0; i < NUM_COUNT(names); i++)
        if (!strcmp(name, names[i])) {
            *out = (enum pairs_kind)i;
            return true;
        }
    return false;
}

double pairs_loss(const struct pairs_opts *o, const struct pairs_side *yes,
                  const struct pairs_side *no, double *chosen, double *rejected)
{
    bool mean = o->kind == PAIRS_IPO || o->kind == PAIRS_SIGMOID_NORM;
    double n1 = mean ? fmax((double)yes->n, 1) : 1, n0 = mean ? fmax((double)no->n, 1) : 1;
    double d = (yes->logp - yes->ref) / n1 - (no->logp - no->ref) / n0, x = o->beta * d;
    double eps = o->smoothing, loss = 0, by = 0, up, down, less, more;
    switch (o->kind) {
    case PAIRS_SIGMOID:
    case PAIRS_SIGMOID_NORM:
    case PAIRS_ROBUST:
        up = loss_softminus(x, &more);
        down = loss_softminus(-x, &less); /* d/dx of it is −less */
        if (o->kind == PAIRS_ROBUST) {
            loss = ((1 - eps) * up - eps * down) / (1 - 2 * eps);
            by = o->beta * ((1 - eps) * more + eps * less) / (1 - 2 * eps);
        } else {
            loss = (1 - eps) * up + eps * down;
            by = o->beta * ((1 - eps) * more - eps * less);
        }
        break;
    case PAIRS_HINGE:
        loss = fmax(0, 1 - x);
        by = x < 1 ? -o->beta : 0;
        break;
    case PAIRS_IPO:
        loss = (d - 1 / (2 * o->beta)) * (d - 1 / (2 * o->beta));
        by = 2 * (d - 1 / (2 * o->beta));
        break;
    }
    *chosen = by / n1;
    *rejected = -by / n0;
    return loss;
}

static struct pairs_side pairs_side(const struct loss_pairs *l, const struct train_pass *p,
                                    size_t s)
{
    const struct logp_row *row = logp_rows(&l->logp, p, s);
    const float *ref = l->ref[p->first + s];
    struct pairs_side r = {.n = logp_count(&p->seq[s])};
    for (size_t i = 0; i < r.n; i++) {
        r.logp += (double)row[i].lp.value;
        r.ref += (double)ref[i];
    }
    return r;
}

/* Every token of sequence s has the same share in its sum; returns the sum of entropies. */
static double pairs_weigh(const struct loss_pairs *l, const struct train_pass *p, size_t s,
                          double weight)
{
    struct logp_row *row = logp_rows(&l->logp, p, s);
    double entropy = 0;
    for (size_t i = 0; i < logp_count(&p->seq[s]); i++) {
        row[i].weight = (float)weight;
        entropy += (double)row[i].lp.entropy;
    }
    return entropy;
}

int loss_pairs_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_pairs *l = arg;
    int rc = logp_begin(&l->logp, p, e);
    if (rc)
        return rc;
    logp_head(&l->logp, p, false);
    for (size_t s = 0; s + 1 < p->n; s += 2) {
        struct pairs_side yes = pairs_side(l, p, s), no = pairs_side(l, p, s + 1);
        double up, down, w = (double)p->seq[s].weight, share = w / l->pairs;
        stat[PAIRS_LOSS] += w * pairs_loss(&l->opts, &yes, &no, &up, &down);
        stat[PAIRS_ENTROPY] += pairs_weigh(l, p, s, share * up);
        stat[PAIRS_ENTROPY] += pairs_weigh(l, p, s + 1, share * down);
        double r1 = l->opts.beta * (yes.logp - yes.ref), r0 = l->opts.beta * (no.logp - no.ref);
        stat[PAIRS_COUNT]++;
        stat[PAIRS_CHOSEN] += r1;
        stat[PAIRS_REJECTED] += r0;
        stat[PAIRS_RIGHT] += r1 > r0;
        stat[PAIRS_LOGP_CHOSEN] += yes.logp;
        stat[PAIRS_LOGP_REJECTED] += no.logp;
        stat[PAIRS_TOKENS_CHOSEN] += (double)yes.n;
        stat[PAIRS_TOKENS_REJECTED] += (double)no.n;
    }
    if (p->dhidden)
        logp_head(&l->logp, p, true);
    return 0;
}

void loss_pairs_release(struct loss_pairs *l)
{
    logp_release(&l->logp);
}
