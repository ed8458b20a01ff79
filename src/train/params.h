/*
 * What is trained: the weights of a model as one row of numbers.
 *
 * Values stay where the forward pass reads them (weight->own). Gradients and the optimizer's
 * moments are slabs: one number for each value, parameter after parameter in the order of
 * model_params_each, each beginning at a multiple of 16. Slabs are what ranks add and share out,
 * and what checkpoints hold.
 *
 * Weights that share their values (a tied head) have a gradient each while a shard is computed,
 * since their sums run over different rows; params_fold adds them.
 *
 * Threads: one caller; work is shared by the team.
 */
#ifndef PONDER_TRAIN_PARAMS_H
#define PONDER_TRAIN_PARAMS_H

#include "base/team.h"
#include "model/model.h"

enum { PARAMS_UNIT = 4096 }; /* what ranks share out is cut at multiples of it */

struct param {
    struct model_param info;
    struct weight_param own; /* of the weight; grad points into the slab in use */
    size_t at;               /* of its numbers in a slab; same: in `extra` */
    bool decay;              /* weight decay: matrices, not norms and biases */
    bool same;               /* shares the values of an earlier one */
};

struct params {
    struct param *p;
    size_t n;
    size_t total; /* of a slab, a multiple of PARAMS_UNIT */
    size_t count; /* numbers that are trained, without what fills up */
    float *extra; /* gradients of those with `same` */
    size_t n_extra;
};

/* Which weights: called for each, NULL: all. */
typedef bool params_choose(void *arg, const struct model_param *p);

/* `extra` (may be NULL): one that is not the model's, behind the others. */
int params_init(struct params *s, struct model *m, params_choose *choose, void *arg,
                const struct model_param *extra, struct err *e);
/* Weights are fixed again. */
void params_release(struct params *s);

/* A slab of zeros (2 MiB pages where the system gives them); params_slab_free gives it back. */
float *params_slab(const struct params *s, struct err *e);
void params_slab_free(const struct params *s, float *slab);

/* From now on gradients are added to `slab`, which is cleared first. */
void params_aim(struct params *s, struct team *team, float *slab);
/* Adds gradients of shared values to where the others are. */
void params_fold(struct params *s, float *slab);
/* a += b */
void params_add(const struct params *s, struct team *team, const struct kern *k, float *a,
                const float *b);

/* Values [from, to) of all into a slab, and back. */
void params_get(const struct params *s, float *slab, size_t from, size_t to);
void params_set(struct params *s, const float *slab, size_t from, size_t to);
/* All values and a slab's change places. */
void params_swap(struct params *s, float *slab);

/* Whether all n numbers of a slab are finite. */
bool params_finite(const float *slab, size_t n);

/* The parameters that have numbers in [from, to): fn gets the piece [a, b) of `p` and where it is
   in a slab. */
void params_pieces(const struct params *s, size_t from, size_t to,
                   void (*fn)(void *arg, const struct param *p, size_t a, size_t b, size_t at),
                   void *arg);

#endif
