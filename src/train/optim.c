/* See optim.h. */
#include "train/optim.h"

#include "base/num.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int optim_init(struct optim *o, const struct optim_opts *opts, struct params *params,
               const struct kern *kern, struct team *team, struct comm *comm, struct err *e)
{
    *o = (struct optim){.opts = *opts, .params = params, .team = team, .kern = kern, .comm = comm};
    comm_part(comm, params->total, PARAMS_UNIT, &o->from, &o->to);
    o->m = params_slab(params, e);
    o->v = o->m ? params_slab(params, e) : NULL;
    if (!o->v)
        goto fail;
    o->square = calloc(params->total / PARAMS_UNIT, sizeof *o->square);
    if (!o->square) {
        err_nomem(e, params->total / PARAMS_UNIT * sizeof *o->square, "the gradient's norm");
        goto fail;
    }
    return 0;
fail:
    optim_release(o);
    return ERR_NOMEM;
}

void optim_release(struct optim *o)
{
    if (!o->params)
        return;
    params_slab_free(o->params, o->m);
    params_slab_free(o->params, o->v);
    free(o->square);
    *o = (struct optim){.params = NULL};
}

/* ---- the norm -------------------------------------------------------------------------------- */

struct norm_job {
    struct optim *o;
    float *grad;
};

static void norm_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct norm_job *j = arg;
    size_t block = j->o->from / PARAMS_UNIT + chunk;
    j->o->square[block] = j->o->kern->squares(j->grad + block * PARAMS_UNIT, PARAMS_UNIT);
}

/* Counts are no gradients: they are taken out of the slab while it is measured. */
static void steer(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct norm_job *j = arg;
    if (!p->info.steers)
        return;
    /* A steering bias has no moments: their place is free. */
    memcpy(j->o->m + at, j->grad + at, (b - a) * sizeof(float));
    memset(j->grad + at, 0, (b - a) * sizeof(float));
}

static int optim_norm(struct optim *o, float *grad, double *norm, struct err *e)
{
    size_t n = o->params->total / PARAMS_UNIT;
    struct norm_job j = {o, grad};
    params_pieces(o->params, o->from, o->to, steer, &j);
    memset(o->square, 0, n * sizeof *o->square);
    if (o->to > o->from)
        team_run(o->team, norm_chunk, &j, (o->to - o->from) / PARAMS_UNIT);
    int rc = comm_sum(o->comm, o->square, n, e);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += o->square[i];
    *norm = sqrt(sum);
    return rc;
}

/* ---- the step -------------------------------------------------------------------------------- */

struct step_job {
    struct optim *o;
    const float *grad;
    struct kern_adamw a; /* but for the decay */
    float keep;          /* of values that decay */
};

static void adam(const struct step_job *j, const struct param *p, size_t a, size_t b, size_t at)
{
    struct kern_adamw args = j->a;
    args.keep = p->decay ? j->keep : 1;
    j->o->kern->adamw(p->own.value + a, j->o->m + at, j->o->v + at, j->grad + at, b - a, &args);
}

static void steps_bias(const struct optim *o, const struct param *p, size_t a, size_t b, size_t at)
{
    const float *count = o->m + at;
    double sum = 0;
    for (size_t i = a; i < b; i++)
        sum += (double)count[i - a];
    double mean = sum / (double)(b - a);
    for (size_t i = a; i < b; i++) {
        double d = mean - (double)count[i - a];
        p->own.value[i] += (float)(o->opts.router_rate * (d > 0 ? 1 : d < 0 ? -1 : 0));
    }
}

static void step_piece(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct step_job *j = arg;
    if (!p->info.steers)
        adam(j, p, a, b, at);
}

static void step_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct step_job *j = arg;
    size_t from = j->o->from + chunk * PARAMS_UNIT * 8;
    params_pieces(j->o->params, from, num_min(from + PARAMS_UNIT * 8, j->o->to), step_piece, j);
}

static void steer_piece(void *arg, const struct param *p, size_t a, size_t b, size_t at)
{
    const struct step_job *j = arg;
    if (p->info.steers && j->o->opts.router_rate != 0)
        steps_bias(j->o, p, a, b, at);
}

int optim_step(struct optim *o, float *grad, double lr, double *norm, struct err *e)
{
    int rc = optim_norm(o, grad, norm, e);
    if (rc)
        return rc;
    if (!isfinite(*norm))
        return err_set(e, ERR_LIMIT,
                       "the gradient's norm is %s: nothing was changed by this step. Try a smaller "
                       "--learning-rate or more --warmup-steps",
                       isnan(*norm) ? "NaN" : "infinite");
    const struct optim_opts *p = &o->opts;
    double t = (double)++o->steps;
    double clip = p->max_grad_norm > 0 ? fmin(1, p->max_grad_norm / (*norm + 1e-6)) : 1;
    struct step_job j = {.o = o,
                         .grad = grad,
                         .a = {.scale = (float)clip,
                               .new1 = (float)(1 - p->beta1),
                               .b2 = (float)p->beta2,
                               .new2 = (float)(1 - p->beta2),
                               .rate = (float)(lr / (1 - pow(p->beta1, t))),
                               .root = (float)(1 / sqrt(1 - pow(p->beta2, t))),
                               .eps = (float)p->epsilon},
                         .keep = (float)(1 - lr * p->weight_decay)};
    size_t unit = PARAMS_UNIT * 8;
    if (o->to > o->from)
        team_run(o->team, step_chunk, &j, (o->to - o->from + unit - 1) / unit);
    params_pieces(o->params, o->from, o->to, steer_piece, &j);
    if (comm_size(o->comm) == 1)
        return 0;
    /* Everybody's part to everybody: `grad` has served, and is where they meet. */
    params_get(o->params, grad, o->from, o->to);
    if ((rc = comm_gather(o->comm, grad, o->params->total, PARAMS_UNIT, e)))
        return rc;
    params_set(o->params, grad, 0, o->params->total);
    return 0;
}
