/*
 * AdamW (Loshchilov and Hutter 2019) as PyTorch computes it, on the part of the parameters that a
 * rank owns; the clipping of the gradient's norm; and the step of DeepSeek-V3's router bias.
 *
 *   m = β1 m + (1 − β1) g        v = β2 v + (1 − β2) g²
 *   p = p (1 − lr wd) − lr / (1 − β1^t) × m / (√v / √(1 − β2^t) + ε)
 *
 * g is the gradient times min(1, max_norm / (norm + 1e-6)). A bias that steers a router has no
 * gradient but counts of tokens, c_i: b_i += γ sign(mean c − c_i) (DeepSeek-V3, section 2.1.2).
 *
 * Element by element: the bits do not depend on ranks or threads. The norm's sum runs over blocks
 * of PARAMS_UNIT numbers, in double, in ascending order.
 */
#ifndef PONDER_TRAIN_OPTIM_H
#define PONDER_TRAIN_OPTIM_H

#include "comm/comm.h"
#include "train/params.h"

struct optim_opts {
    double beta1, beta2, epsilon, weight_decay;
    double max_grad_norm; /* 0: no clipping */
    double router_rate;   /* γ; 0: router biases stay */
};

struct optim {
    struct optim_opts opts;
    struct params *params;
    struct team *team;
    const struct kern *kern;
    struct comm *comm;
    float *m, *v;   /* slabs, of which this rank keeps [from, to) up to date */
    double *square; /* sums of squares of blocks */
    size_t from, to;
    uint64_t steps; /* done: the t of the next one is this + 1 */
};

int optim_init(struct optim *o, const struct optim_opts *opts, struct params *params,
               const struct kern *kern, struct team *team, struct comm *comm, struct err *e);
void optim_release(struct optim *o);

/*
 * One step with the gradients in `grad`, of which this rank has the part that comm_part says.
 * Values of all ranks are up to date afterwards. *norm: of the gradient, before clipping. ERR_LIMIT
 * when it is NaN or infinite: nothing has changed then.
 */
int optim_step(struct optim *o, float *grad, double lr, double *norm, struct err *e);

#endif
