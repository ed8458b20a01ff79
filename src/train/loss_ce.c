/* See loss_ce.h. */
#include "train/loss_ce.h"

void loss_ce_init(struct loss_ce *l, double mtp_weight)
{
    *l = (struct loss_ce){.mtp_weight = mtp_weight, .logp = {.temperature = 1}};
}

void loss_ce_release(struct loss_ce *l)
{
    logp_release(&l->logp);
}

/* Wants the rows whose token `ahead` places further is a target; returns how many. A row's weight
   is d loss / d log p. */
static size_t ce_fill(struct logp *l, const struct train_pass *p, size_t ahead, double scale)
{
    size_t n = 0;
    for (size_t s = 0; s < p->n; s++) {
        const struct data_seq *q = &p->seq[s];
        for (size_t i = 0; i < q->n; i++) {
            size_t row = p->row[s] + i;
            bool on = i + ahead < q->n && q->target[i + ahead];
            l->skip[row] = !on;
            if (on)
                l->row[row] = (struct logp_row){.id = q->ids[i + ahead],
                                                .weight = (float)-((double)q->weight * scale)};
            n += on;
        }
    }
    return n;
}

static void ce_sum(const struct logp *l, const struct train_pass *p, double scale, double *loss,
                   double *correct, double *entropy)
{
    for (size_t r = 0; r < p->row[p->n]; r++) {
        if (l->skip[r])
            continue;
        *loss += (double)l->row[r].weight / scale * (double)l->row[r].lp.value;
        *correct += l->row[r].lp.best;
        if (entropy)
            *entropy += (double)l->row[r].lp.entropy;
    }
}

int loss_ce_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_ce *l = arg;
    int rc = logp_open(&l->logp, p, e);
    if (rc)
        return rc;
    double scale = 1 / (l->targets > 0 ? l->targets : 1);
    stat[CE_TOKENS] += (double)ce_fill(&l->logp, p, 1, scale);
    logp_head(&l->logp, p, true);
    ce_sum(&l->logp, p, scale, &stat[CE_LOSS], &stat[CE_CORRECT], &stat[CE_ENTROPY]);
    if (!p->ahead.data)
        return 0;
    scale = l->mtp_weight / (l->ahead_targets > 0 ? l->ahead_targets : 1);
    stat[CE_AHEAD_TOKENS] += (double)ce_fill(&l->logp, p, 2, scale);
    logp_head_ahead(&l->logp, p);
    ce_sum(&l->logp, p, scale, &stat[CE_AHEAD], &stat[CE_AHEAD_CORRECT], NULL);
    return 0;
}

void loss_ce_aim(struct loss_ce *l, const struct data_batch *b)
{
    l->targets = l->ahead_targets = 0;
    for (size_t s = 0; s < b->n; s++)
        for (size_t i = 1; i < b->seq[s].n; i++) {
            l->targets += b->seq[s].target[i];
            l->ahead_targets += i > 1 && b->seq[s].target[i];
        }
}
