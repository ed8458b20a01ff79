/* See loss_policy.h. */
#include "train/loss_policy.h"

#include <stdlib.h>
#include <string.h>

static int pg_room(struct loss_policy *l, size_t rows, struct err *e)
{
    if (rows <= l->room)
        return 0;
    free(l->at);
    free(l->grad);
    l->room = 0;
    l->at = calloc(rows, sizeof *l->at);
    l->grad = calloc(rows, sizeof *l->grad);
    if (!l->at || !l->grad)
        return err_nomem(e, rows * sizeof *l->at, "losses");
    l->room = rows;
    return 0;
}

void loss_policy_release(struct loss_policy *l)
{
    logp_release(&l->logp);
    free(l->at);
    free(l->grad);
    l->at = l->grad = NULL;
    l->room = 0;
}

/* Losses, and their gradients as weights of the rows. On policy they are known before the head. */
static void pg_losses(struct loss_policy *l, const struct train_pass *p, struct policy_stats *sum)
{
    double tokens = l->opts.tokens > 0 ? l->opts.tokens : 1;
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        struct logp_row *to = logp_rows(&l->logp, p, s);
        for (size_t i = 0; i < r->n; i++)
            l->at[i] = l->on_policy ? r->old[i] : to[i].lp.value;
        struct policy_row row = {.n = r->n,
                                 .logp = l->at,
                                 .old = r->old,
                                 .ref = r->ref,
                                 .mask = r->mask,
                                 .drop = r->drop,
                                 .advantage = r->advantage,
                                 .grad = l->grad};
        policy_loss(&l->opts, &row, sum);
        for (size_t i = 0; i < r->n; i++) {
            bool on = !r->mask || r->mask[i];
            to[i].weight = l->grad[i];
            to[i].bonus = on ? (float)(-l->entropy_coef / tokens) : 0;
        }
    }
}

/* The bits that were sampled with are the bits that are learned from. */
static int pg_check(const struct loss_policy *l, const struct train_pass *p, double *checked,
                    struct err *e)
{
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        const struct logp_row *row = logp_rows(&l->logp, p, s);
        for (size_t i = 0; i < r->n; i++) {
            float is = row[i].lp.value;
            if (memcmp(&is, &r->old[i], sizeof is) != 0)
                return err_set(e, ERR_FORMAT,
                               "token %zu of completion %zu has log-probability %.9g in training "
                               "and %.9g in sampling: they must be the same bits. This is a bug of "
                               "ponder; please report it",
                               i, p->first + s, (double)is, (double)r->old[i]);
        }
        *checked += (double)r->n;
    }
    return 0;
}

static void pg_sum(const struct loss_policy *l, const struct train_pass *p,
                   const struct policy_stats *s, double stat[TRAIN_STATS])
{
    stat[PG_LOSS] = s->loss;
    stat[PG_TOKENS] = s->tokens;
    stat[PG_ROWS] = s->rows;
    stat[PG_KL] = s->kl;
    stat[PG_CLIP_LOW] = s->clip_low;
    stat[PG_CLIP_HIGH] = s->clip_high;
    stat[PG_RATIO] = s->ratio;
    for (size_t k = 0; k < p->n; k++) {
        const struct loss_policy_row *r = &l->row[p->first + k];
        const struct logp_row *row = logp_rows(&l->logp, p, k);
        for (size_t i = 0; i < r->n; i++)
            if (!r->mask || r->mask[i])
                stat[PG_ENTROPY] += (double)row[i].lp.entropy;
    }
}

int loss_policy_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_policy *l = arg;
    int rc = pg_room(l, p->row[p->n], e);
    if (rc)
        return rc;
    if ((rc = logp_begin(&l->logp, p, e)))
        return rc;
    /* Sums go on from the passes before: their bits do not depend on where a shard was cut. */
    struct policy_stats sum = {.loss = stat[PG_LOSS],
                               .tokens = stat[PG_TOKENS],
                               .rows = stat[PG_ROWS],
                               .kl = stat[PG_KL],
                               .clip_low = stat[PG_CLIP_LOW],
                               .clip_high = stat[PG_CLIP_HIGH],
                               .ratio = stat[PG_RATIO]};
    if (!l->on_policy)
        logp_head(&l->logp, p, false);
    pg_losses(l, p, &sum);
    logp_head(&l->logp, p, true);
    if (l->on_policy)
        rc = pg_check(l, p, &stat[PG_CHECKED], e);
    pg_sum(l, p, &sum, stat);
    return rc;
}
