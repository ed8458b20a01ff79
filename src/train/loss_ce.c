/* See loss_ce.h. */
#include "train/loss_ce.h"

#include "tensor/logprob.h"

#include <stdlib.h>
#include <string.h>

struct ce_row {
    int32_t id;
    float weight; /* d loss / d (−log p) */
    struct logprob lp;
};

struct ce_job {
    const struct kern *kern;
    struct ce_row *row;
    bool grads;
};

/* Logits become weight × (p − 1 at the target). */
static void ce_row(void *arg, size_t row, float *logits, size_t n)
{
    const struct ce_job *j = arg;
    struct ce_row *r = &j->row[row];
    logprob_softmax(j->kern, logits, n, 1, r->id, &r->lp);
    if (!j->grads)
        return;
    float scale = (float)(r->weight / r->lp.sum);
    for (size_t i = 0; i < n; i++)
        logits[i] *= scale;
    logits[r->id] -= r->weight;
}

static int ce_room(struct loss_ce *l, size_t rows, struct err *e)
{
    if (rows <= l->room)
        return 0;
    loss_ce_release(l);
    l->row = calloc(rows, sizeof *l->row);
    l->skip = calloc(rows, sizeof *l->skip);
    if (!l->row || !l->skip)
        return err_nomem(e, rows * sizeof *l->row, "losses");
    l->room = rows;
    return 0;
}

/* Rows whose token `ahead` places further is a target; returns how many. */
static size_t ce_fill(struct loss_ce *l, const struct train_pass *p, size_t ahead, double scale)
{
    size_t n = 0;
    for (size_t s = 0; s < p->n; s++) {
        const struct data_seq *q = &p->seq[s];
        for (size_t i = 0; i < q->n; i++) {
            size_t row = p->row[s] + i;
            bool on = i + ahead < q->n && q->target[i + ahead];
            l->skip[row] = !on;
            if (on)
                l->row[row] = (struct ce_row){.id = q->ids[i + ahead],
                                              .weight = (float)((double)q->weight * scale)};
            n += on;
        }
    }
    return n;
}

static void ce_sum(const struct loss_ce *l, const struct train_pass *p, double scale, double *loss,
                   double *correct, double *entropy)
{
    for (size_t r = 0; r < p->row[p->n]; r++) {
        if (l->skip[r])
            continue;
        *loss += (double)l->row[r].weight / scale * -(double)l->row[r].lp.value;
        *correct += l->row[r].lp.best;
        if (entropy)
            *entropy += (double)l->row[r].lp.entropy;
    }
}

int loss_ce_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_ce *l = arg;
    int rc = ce_room(l, p->row[p->n], e);
    if (rc)
        return rc;
    struct ce_job j = {trainer_kern(p->t), l->row, p->dhidden != NULL};
    double scale = 1 / (l->targets > 0 ? l->targets : 1);
    stat[CE_TOKENS] += (double)ce_fill(l, p, 1, scale);
    train_head(p, l->skip, ce_row, &j);
    ce_sum(l, p, scale, &stat[CE_LOSS], &stat[CE_CORRECT], &stat[CE_ENTROPY]);
    if (!p->ahead.data)
        return 0;
    scale = l->mtp_weight / (l->ahead_targets > 0 ? l->ahead_targets : 1);
    stat[CE_AHEAD_TOKENS] += (double)ce_fill(l, p, 2, scale);
    train_head_ahead(p, l->skip, ce_row, &j);
    ce_sum(l, p, scale, &stat[CE_AHEAD], &stat[CE_AHEAD_CORRECT], NULL);
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

void loss_ce_release(struct loss_ce *l)
{
    free(l->row);
    free(l->skip);
    l->row = NULL;
    l->skip = NULL;
    l->room = 0;
}
