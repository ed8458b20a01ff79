/* See logp.h. */
#include "train/logp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void logp_row(void *arg, size_t row, float *logits, size_t n)
{
    const struct logp *l = arg;
    struct logp_row *r = &l->row[row];
    size_t vocab = l->vocab ? l->vocab : n;
    logprob_softmax(l->kern, logits, vocab, l->temperature, r->id, &r->lp);
    if (!l->grads)
        return;
    float over = 1 / l->temperature, scale = (float)(-(double)r->weight / r->lp.sum) * over;
    if (r->bonus != 0) {
        float log_sum = (float)log(r->lp.sum), share = (float)(1 / r->lp.sum) * r->bonus * over;
        for (size_t i = 0; i < vocab; i++) {
            float e = logits[i], h = e > 0 ? logf(e) - log_sum + r->lp.entropy : 0;
            logits[i] = e * (scale - share * h);
        }
    } else {
        for (size_t i = 0; i < vocab; i++)
            logits[i] *= scale;
    }
    logits[r->id] += r->weight * over;
    for (size_t i = vocab; i < n; i++) /* what fills up the vocabulary is never drawn */
        logits[i] = 0;
}

static int logp_room(struct logp *l, size_t rows, struct err *e)
{
    if (rows <= l->room)
        return 0;
    logp_release(l);
    l->row = calloc(rows, sizeof *l->row);
    l->skip = calloc(rows, sizeof *l->skip);
    if (!l->row || !l->skip)
        return err_nomem(e, rows * sizeof *l->row, "losses");
    l->room = rows;
    return 0;
}

void logp_release(struct logp *l)
{
    free(l->row);
    free(l->skip);
    l->row = NULL;
    l->skip = NULL;
    l->room = 0;
}

size_t logp_count(const struct data_seq *s)
{
    size_t given = s->prompt ? s->prompt : 1;
    return s->n > given ? s->n - given : 0;
}

struct logp_row *logp_rows(const struct logp *l, const struct train_pass *p, size_t s)
{
    return l->row + p->row[s] + p->seq[s].n - logp_count(&p->seq[s]) - 1;
}

int logp_open(struct logp *l, const struct train_pass *p, struct err *e)
{
    int rc = logp_room(l, p->row[p->n], e);
    if (rc)
        return rc;
    l->kern = trainer_kern(p->t);
    memset(l->skip, 1, p->row[p->n] * sizeof *l->skip);
    return 0;
}

int logp_begin(struct logp *l, const struct train_pass *p, struct err *e)
{
    int rc = logp_open(l, p, e);
    if (rc)
        return rc;
    for (size_t s = 0; s < p->n; s++) {
        size_t n = logp_count(&p->seq[s]);
        struct logp_row *r = logp_rows(l, p, s);
        for (size_t i = 0; i < n; i++) {
            l->skip[r - l->row + (ptrdiff_t)i] = false;
            r[i] = (struct logp_row){.id = p->seq[s].ids[p->seq[s].n - n + i]};
        }
    }
    return 0;
}

void logp_head(struct logp *l, const struct train_pass *p, bool grads)
{
    struct train_pass view = *p;
    if (!grads)
        view.dhidden = NULL;
    l->grads = view.dhidden != NULL;
    train_head(&view, l->skip, logp_row, l);
}

void logp_head_ahead(struct logp *l, const struct train_pass *p)
{
    struct train_pass view = *p;
    l->grads = p->dahead != NULL;
    train_head_ahead(&view, l->skip, logp_row, l);
}

int logp_look_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct logp_look *l = arg;
    (void)stat;
    int rc = logp_begin(&l->logp, p, e);
    if (rc)
        return rc;
    logp_head(&l->logp, p, false);
    for (size_t s = 0; s < p->n; s++) {
        const struct logp_row *r = logp_rows(&l->logp, p, s);
        for (size_t i = 0; i < logp_count(&p->seq[s]); i++)
            l->out[p->first + s][i] = r[i].lp.value;
    }
    return 0;
}
