/* See policy_ref.h. */
#include "train/policy_ref.h"

#include "train/logp.h"

#include <stdlib.h>
#include <string.h>

int policy_ref_init(struct policy_ref *r, struct trainer *t, struct comm *comm, struct err *e)
{
    struct params *p = trainer_params(t);
    *r = (struct policy_ref){.t = t, .comm = comm, .values = params_slab(p, e)};
    if (!r->values)
        return ERR_NOMEM;
    params_get(p, r->values, 0, p->total);
    return 0;
}

void policy_ref_release(struct policy_ref *r)
{
    if (r->t)
        params_slab_free(trainer_params(r->t), r->values);
    *r = (struct policy_ref){.t = NULL};
}

/* What ranks found for the sequences of their shards, to all. */
static int policy_ref_share(const struct policy_ref *r, const struct data_batch *b,
                            float *const *out, struct err *e)
{
    size_t all = 0, at = 0;
    if (comm_size(r->comm) == 1)
        return 0;
    for (size_t i = 0; i < b->n; i++)
        all += logp_count(&b->seq[i]);
    double *x = calloc(all ? all : 1, sizeof *x);
    if (!x)
        return err_nomem(e, all * sizeof *x, "the reference");
    for (size_t i = 0; i < b->n; i++)
        for (size_t t = 0; t < logp_count(&b->seq[i]); t++)
            x[at++] = (double)out[i][t];
    int rc = comm_sum(r->comm, x, all, e);
    at = 0;
    for (size_t i = 0; i < b->n; i++)
        for (size_t t = 0; t < logp_count(&b->seq[i]); t++)
            out[i][t] = (float)x[at++];
    free(x);
    return rc;
}

int policy_ref_logps(struct policy_ref *r, const struct data_batch *b, float temperature,
                     size_t vocab, float *const *out, struct err *e)
{
    struct params *p = trainer_params(r->t);
    struct logp_look look = {.logp = {.temperature = temperature, .vocab = vocab}, .out = out};
    struct train_loss loss = {.pass = logp_look_pass, .arg = &look};
    struct train_result sums;
    for (size_t i = 0; i < b->n; i++) /* each rank fills in its own */
        memset(out[i], 0, logp_count(&b->seq[i]) * sizeof *out[i]);
    params_swap(p, r->values);
    trainer_changed(r->t);
    int rc = trainer_look(r->t, b, &loss, &sums, e);
    params_swap(p, r->values);
    trainer_changed(r->t);
    logp_release(&look.logp);
    return rc ? rc : policy_ref_share(r, b, out, e);
}

struct follow {
    float *values, alpha;
};

static void follow_piece(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct follow *f = arg;
    float *to = f->values + at;
    for (size_t i = a; i < b; i++, to++)
        *to = f->alpha * p->own.value[i] + (1 - f->alpha) * *to;
}

void policy_ref_follow(struct policy_ref *r, double alpha)
{
    const struct params *p = trainer_params(r->t);
    params_pieces(p, 0, p->total, follow_piece, &(struct follow){r->values, (float)alpha});
}
