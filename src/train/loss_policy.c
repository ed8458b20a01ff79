/* See loss_policy.h. */
#include "train/loss_policy.h"

#include "tensor/logprob.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A row of the head: the token that comes next. */
struct pg_row {
    int32_t id;
    float weight; /* d loss / d log p */
    float bonus;  /* d loss / d entropy */
    struct logprob lp;
};

struct pg_job {
    const struct kern *kern;
    struct pg_row *row;
    float temperature;
    size_t vocab;
    bool grads;
};

/* logits become d loss / d logit_j = (w (1[j = y] − p_j) − b p_j (log p_j + H)) / T. */
static void pg_row(void *arg, size_t row, float *logits, size_t n)
{
    const struct pg_job *j = arg;
    struct pg_row *r = &j->row[row];
    logprob_softmax(j->kern, logits, j->vocab, j->temperature, r->id, &r->lp);
    if (!j->grads)
        return;
    float scale = (float)(1 / r->lp.sum), over = 1 / j->temperature;
    float log_sum = (float)log(r->lp.sum);
    for (size_t i = 0; i < j->vocab; i++) {
        float p = logits[i] * scale, g = -r->weight * p;
        if (r->bonus != 0 && p > 0)
            g -= r->bonus * p * (logf(logits[i]) - log_sum + r->lp.entropy);
        logits[i] = g * over;
    }
    logits[r->id] += r->weight * over;
    for (size_t i = j->vocab; i < n; i++) /* what fills up the vocabulary is never drawn */
        logits[i] = 0;
}

static int pg_room(struct loss_policy *l, size_t rows, struct err *e)
{
    if (rows <= l->room)
        return 0;
    loss_policy_release(l);
    l->rows = calloc(rows, sizeof *l->rows);
    l->skip = calloc(rows, sizeof *l->skip);
    l->logp = calloc(rows, sizeof *l->logp);
    l->grad = calloc(rows, sizeof *l->grad);
    if (!l->rows || !l->skip || !l->logp || !l->grad)
        return err_nomem(e, rows * sizeof *l->rows, "losses");
    l->room = rows;
    return 0;
}

void loss_policy_release(struct loss_policy *l)
{
    free(l->rows);
    free(l->skip);
    free(l->logp);
    free(l->grad);
    l->rows = NULL;
    l->skip = NULL;
    l->logp = l->grad = NULL;
    l->room = 0;
}

/* The row from which the first token of completion s is predicted. */
static size_t pg_first(const struct train_pass *p, size_t s, size_t n)
{
    return p->row[s] + p->seq[s].n - n - 1;
}

static void pg_fill(struct loss_policy *l, const struct train_pass *p)
{
    memset(l->skip, 1, p->row[p->n] * sizeof *l->skip);
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        size_t first = pg_first(p, s, r->n), at = p->seq[s].n - r->n;
        for (size_t i = 0; i < r->n; i++) {
            l->skip[first + i] = false;
            l->rows[first + i] = (struct pg_row){.id = p->seq[s].ids[at + i]};
        }
    }
}

/* Losses and their gradients from l->logp, into l->grad and the rows. */
static void pg_losses(struct loss_policy *l, const struct train_pass *p, struct policy_stats *sum)
{
    double tokens = l->opts.tokens > 0 ? l->opts.tokens : 1;
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        size_t first = pg_first(p, s, r->n);
        struct policy_row row = {.n = r->n,
                                 .logp = l->logp + first,
                                 .old = r->old,
                                 .ref = r->ref,
                                 .mask = r->mask,
                                 .drop = r->drop,
                                 .advantage = r->advantage,
                                 .grad = l->grad + first};
        policy_loss(&l->opts, &row, sum);
        for (size_t i = 0; i < r->n; i++) {
            bool on = !r->mask || r->mask[i];
            l->rows[first + i].weight = l->grad[first + i];
            l->rows[first + i].bonus = on ? (float)(-l->entropy_coef / tokens) : 0;
        }
    }
}

static void pg_copy(const struct loss_policy *l, const struct train_pass *p, bool old)
{
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        size_t first = pg_first(p, s, r->n);
        for (size_t i = 0; i < r->n; i++)
            l->logp[first + i] = old ? r->old[i] : l->rows[first + i].lp.value;
    }
}

/* The bits that were sampled with are the bits that are learned from. */
static int pg_check(const struct loss_policy *l, const struct train_pass *p, double *checked,
                    struct err *e)
{
    for (size_t s = 0; s < p->n; s++) {
        const struct loss_policy_row *r = &l->row[p->first + s];
        size_t first = pg_first(p, s, r->n);
        for (size_t i = 0; i < r->n; i++) {
            float is = l->rows[first + i].lp.value;
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
    stat[PG_LOSS] += s->loss;
    stat[PG_TOKENS] += s->tokens;
    stat[PG_ROWS] += s->rows;
    stat[PG_KL] += s->kl;
    stat[PG_CLIP_LOW] += s->clip_low;
    stat[PG_CLIP_HIGH] += s->clip_high;
    stat[PG_RATIO] += s->ratio;
    for (size_t k = 0; k < p->n; k++) {
        const struct loss_policy_row *r = &l->row[p->first + k];
        size_t first = pg_first(p, k, r->n);
        for (size_t i = 0; i < r->n; i++)
            if (!r->mask || r->mask[i])
                stat[PG_ENTROPY] += (double)l->rows[first + i].lp.entropy;
    }
}

int loss_policy_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_policy *l = arg;
    int rc = pg_room(l, p->row[p->n], e);
    if (rc)
        return rc;
    struct policy_stats sum = {0};
    struct pg_job j = {trainer_kern(p->t), l->rows, l->temperature, l->vocab, false};
    struct train_pass look = *p;
    look.dhidden = NULL;
    pg_fill(l, p);
    if (!l->on_policy)
        train_head(&look, l->skip, pg_row, &j);
    pg_copy(l, p, l->on_policy);
    pg_losses(l, p, &sum);
    j.grads = p->dhidden != NULL;
    train_head(p, l->skip, pg_row, &j);
    if (l->on_policy)
        rc = pg_check(l, p, &stat[PG_CHECKED], e);
    pg_sum(l, p, &sum, stat);
    return rc;
}

/* ---- log-probabilities alone ------------------------------------------------------------------
 */

int loss_logp_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_logp *l = arg;
    (void)stat;
    int rc = pg_room(&l->pass, p->row[p->n], e);
    if (rc)
        return rc;
    struct pg_job j = {trainer_kern(p->t), l->pass.rows, l->temperature, l->vocab, false};
    memset(l->pass.skip, 1, p->row[p->n] * sizeof *l->pass.skip);
    for (size_t s = 0; s < p->n; s++) {
        size_t n = l->n[p->first + s], first = pg_first(p, s, n), at = p->seq[s].n - n;
        for (size_t i = 0; i < n; i++) {
            l->pass.skip[first + i] = false;
            l->pass.rows[first + i] = (struct pg_row){.id = p->seq[s].ids[at + i]};
        }
    }
    train_head(p, l->pass.skip, pg_row, &j);
    for (size_t s = 0; s < p->n; s++) {
        size_t n = l->n[p->first + s], first = pg_first(p, s, n);
        for (size_t i = 0; i < n; i++)
            l->out[p->first + s][i] = l->pass.rows[first + i].lp.value;
    }
    return 0;
}

void loss_logp_release(struct loss_logp *l)
{
    loss_policy_release(&l->pass);
}
