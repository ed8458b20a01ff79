/* See loss_score.h. */
#include "train/loss_score.h"

#include <math.h>

double loss_softminus(double x, double *by)
{
    double t = exp(-fabs(x));
    *by = x > 0 ? -t / (1 + t) : -1 / (1 + t);
    return log1p(t) + (x > 0 ? 0 : -x);
}

static size_t last_row(const struct train_pass *p, size_t s)
{
    return (p->row[s] + p->seq[s].n - 1) * p->hidden.cols;
}

static double score_seq(const struct loss_score *l, const struct train_pass *p, size_t s,
                        double stat[TRAIN_STATS])
{
    double r = score_of(l->score, p->hidden.data + last_row(p, s));
    stat[SCORE_SUM] += r;
    stat[SCORE_SQUARE] += r * r;
    stat[SCORE_SEQS]++;
    return r;
}

static void back(const struct loss_score *l, const struct train_pass *p, size_t s, double by)
{
    size_t at = last_row(p, s);
    if (p->dhidden)
        score_back(l->score, p->hidden.data + at, by, p->dhidden + at);
}

static void pair(const struct loss_score *l, const struct train_pass *p, size_t s,
                 double stat[TRAIN_STATS])
{
    double yes = score_seq(l, p, s, stat), no = score_seq(l, p, s + 1, stat), by;
    double w = (double)p->seq[s].weight, share = w / l->count, both = yes + no;
    double loss = loss_softminus(yes - no - (double)p->seq[s].margin, &by);
    stat[SCORE_LOSS] += w * (loss + l->center * both * both);
    stat[SCORE_COUNT]++;
    stat[SCORE_RIGHT] += yes > no;
    stat[SCORE_MARGIN] += yes - no;
    back(l, p, s, share * (by + 2 * l->center * both));
    back(l, p, s + 1, share * (-by + 2 * l->center * both));
}

static void point(const struct loss_score *l, const struct train_pass *p, size_t s,
                  double stat[TRAIN_STATS])
{
    double r = score_seq(l, p, s, stat), by, sign = p->seq[s].label ? 1 : -1;
    double w = (double)p->seq[s].weight, loss = loss_softminus(sign * r, &by);
    stat[SCORE_LOSS] += w * loss;
    stat[SCORE_COUNT]++;
    stat[SCORE_RIGHT] += sign * r > 0;
    stat[SCORE_YES] += sign > 0 ? r : 0;
    stat[SCORE_YES_COUNT] += sign > 0;
    back(l, p, s, w / l->count * by * sign);
}

int loss_score_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    const struct loss_score *l = arg;
    (void)e;
    for (size_t s = 0; s < p->n; s += l->pairwise ? 2 : 1)
        if (l->pairwise)
            pair(l, p, s, stat);
        else
            point(l, p, s, stat);
    return 0;
}
