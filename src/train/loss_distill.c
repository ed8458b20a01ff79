/* See loss_distill.h. */
#include "train/loss_distill.h"

#include "base/num.h"
#include "tensor/logprob.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DISTILL_BYTES = 64 << 20, DISTILL_PIECE = 512 };

struct distill_row {
    float weight;
    size_t slot; /* of the chunk */
    double loss, entropy, teacher;
};

/* logits become log softmax(logits / T). */
static void log_softmax(const struct kern *k, float *logits, size_t n, float temperature,
                        double *entropy)
{
    struct logprob lp;
    float scale = 1 / temperature;
    logprob_of(k, logits, n, temperature, 0, &lp);
    double shift = (double)lp.value - (double)(logits[0] * scale);
    for (size_t i = 0; i < n; i++)
        logits[i] = (float)((double)(logits[i] * scale) + shift);
    *entropy = (double)lp.entropy;
}

/* Divergence and g (in place of lq) of a piece; q comes into the place of lp. */
static double piece(const struct kern *k, float *lq, float *lp, size_t n, double beta, double *mean)
{
    float p[DISTILL_PIECE], q[DISTILL_PIECE];
    double sum = 0;
    k->exp(p, lp, n);
    k->exp(q, lq, n);
    for (size_t i = 0; i < n; i++) {
        double dp = (double)p[i], dq = (double)q[i], a = (double)lp[i], b = (double)lq[i];
        double g;
        if (beta <= 0) {
            sum += dp * (a - b);
            g = dq - dp;
        } else if (beta >= 1) {
            sum += dq * (b - a);
            g = b - a;
        } else {
            double m = beta * dp + (1 - beta) * dq;
            double lm = m > 0 ? log(m) : 0;
            g = dq > 0 ? (1 - beta) * (b - lm) : 0;
            sum += (dp > 0 ? beta * dp * (a - lm) : 0) + dq * g;
        }
        *mean += dq * g;
        lq[i] = (float)g;
        lp[i] = q[i];
    }
    return sum;
}

double distill_divergence(const struct kern *k, float *logits, float *teacher, size_t n,
                          double beta, float temperature, float weight, double *entropy)
{
    double sum = 0, mean = 0;
    log_softmax(k, logits, n, temperature, entropy);
    for (size_t at = 0; at < n; at += DISTILL_PIECE)
        sum += piece(k, logits + at, teacher + at, num_min(DISTILL_PIECE, n - at), beta, &mean);
    double scale = (double)weight / (double)temperature;
    for (size_t i = 0; i < n; i++) {
        double g = (double)logits[i];
        logits[i] = (float)(scale * (beta <= 0 ? g : (double)teacher[i] * (g - mean)));
    }
    return sum;
}

/* ---- a pass ---------------------------------------------------------------------------------- */

static void teacher_row(void *arg, size_t row, float *logits, size_t n)
{
    struct loss_distill *l = arg;
    struct distill_row *r = &l->row[row];
    (void)n;
    log_softmax(frozen_kern(l->teacher), logits, l->vocab, l->temperature, &r->teacher);
    memcpy(l->logp + r->slot * l->vocab, logits, l->vocab * sizeof *logits);
}

struct student {
    struct loss_distill *l;
    const struct kern *kern;
};

static void student_row(void *arg, size_t row, float *logits, size_t n)
{
    const struct student *s = arg;
    struct distill_row *r = &s->l->row[row];
    size_t v = s->l->vocab;
    r->loss = distill_divergence(s->kern, logits, s->l->logp + r->slot * v, v, s->l->beta,
                                 s->l->temperature, r->weight, &r->entropy);
    for (size_t i = v; i < n; i++) /* what the teacher has not */
        logits[i] = 0;
}

static int distill_room(struct loss_distill *l, size_t rows, struct err *e)
{
    if (!l->logp) {
        size_t bytes = l->bytes ? l->bytes : DISTILL_BYTES;
        l->chunk = num_max(bytes / (l->vocab * sizeof(float)), 1);
        l->logp = calloc(l->chunk * l->vocab, sizeof *l->logp);
        if (!l->logp)
            return err_nomem(e, l->chunk * l->vocab * sizeof *l->logp, "the teacher's rows");
    }
    if (rows <= l->room)
        return 0;
    free(l->row);
    free(l->skip);
    l->room = 0;
    l->row = calloc(rows, sizeof *l->row);
    l->skip = calloc(rows, sizeof *l->skip);
    if (!l->row || !l->skip)
        return err_nomem(e, rows * sizeof *l->row, "losses");
    l->room = rows;
    return 0;
}

void loss_distill_release(struct loss_distill *l)
{
    free(l->row);
    free(l->skip);
    free(l->logp);
    l->row = NULL;
    l->skip = NULL;
    l->logp = NULL;
    l->room = 0;
}

/* Row r of a pass is of sequence *s (which moves along): is its next token a target? */
static bool wanted(const struct train_pass *p, size_t r, size_t *s)
{
    while (r >= p->row[*s + 1])
        ++*s;
    size_t i = r - p->row[*s];
    return i + 1 < p->seq[*s].n && p->seq[*s].target[i + 1];
}

int loss_distill_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e)
{
    struct loss_distill *l = arg;
    struct frozen_states states;
    struct student student = {l, trainer_kern(p->t)};
    size_t rows = p->row[p->n];
    int rc = distill_room(l, rows, e);
    rc = rc ? rc : frozen_look(l->teacher, p->seq, p->n, &states, e);
    for (size_t from = 0, to, s = 0; !rc && from < rows; from = to) {
        size_t n = 0;
        memset(l->skip, 1, rows * sizeof *l->skip);
        for (to = from; to < rows && n < l->chunk; to++) {
            if (!wanted(p, to, &s))
                continue;
            l->skip[to] = false;
            l->row[to] = (struct distill_row){
                .slot = n++, .weight = (float)((double)p->seq[s].weight / l->tokens)};
        }
        if (!n)
            break;
        frozen_head(l->teacher, states.hidden, l->skip, teacher_row, l);
        train_head(p, l->skip, student_row, &student);
        for (size_t r = from; r < to; r++)
            if (!l->skip[r]) {
                stat[DISTILL_LOSS] += (double)l->row[r].weight * l->tokens * l->row[r].loss;
                stat[DISTILL_TOKENS]++;
                stat[DISTILL_ENTROPY] += l->row[r].entropy;
                stat[DISTILL_TEACHER] += l->row[r].teacher;
            }
    }
    return rc;
}

void loss_distill_aim(struct loss_distill *l, const struct data_batch *b)
{
    l->tokens = 0;
    for (size_t s = 0; s < b->n; s++)
        for (size_t i = 1; i < b->seq[s].n; i++)
            l->tokens += b->seq[s].target[i];
    l->tokens = l->tokens > 0 ? l->tokens : 1;
}
