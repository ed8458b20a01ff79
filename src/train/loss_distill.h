/*
 * Distillation: a student's distributions drawn to a teacher's, token by token.
 *
 * With p the teacher's distribution, q the student's (both at temperature T), m = β p + (1 − β) q:
 *
 *   β = 0         KL(p ‖ q), forward: the usual distillation
 *   0 < β < 1     β KL(p ‖ m) + (1 − β) KL(q ‖ m), generalised Jensen-Shannon
 *   β = 1         KL(q ‖ p), reverse
 *
 * meaned over the targets of a step. The gradient by the student's logit i is q_i (g_i − Σ q g) / T
 * with g = (1 − β) log(q / m), and log(q / p) for β = 1; for β = 0 it is (q_i − p_i) / T.
 * Hinton et al. 2015; Agarwal et al. 2024 (GKD, eq. 1), with TRL's definition and names.
 *
 * The teacher (frozen.h) sees the same pass. Its log-probabilities are held for a few rows at a
 * time (DISTILL_BYTES), then the student's head runs over these rows: nobody has all logits.
 */
#ifndef PONDER_TRAIN_LOSS_DISTILL_H
#define PONDER_TRAIN_LOSS_DISTILL_H

#include "train/frozen.h"
#include "train/trainer.h"

/* What is summed into stat[]. */
enum {
    DISTILL_LOSS, /* Σ w × divergence */
    DISTILL_TOKENS,
    DISTILL_ENTROPY, /* of the student */
    DISTILL_TEACHER, /* entropy of the teacher */
    DISTILL_STATS
};

struct distill_row;

struct loss_distill {
    struct frozen *teacher;
    double beta;
    float temperature;
    size_t vocab;  /* that both have */
    double tokens; /* targets of the step: set by loss_distill_aim */
    size_t bytes;  /* of the teacher's rows; 0: 64 MiB */
    /* Of a pass. */
    struct distill_row *row; /* (room) */
    bool *skip;              /* (room) */
    float *logp;             /* (rows of a chunk, vocab) */
    size_t room, chunk;
};

void loss_distill_aim(struct loss_distill *l, const struct data_batch *b);
/* A train_loss's pass; arg is a struct loss_distill. */
int loss_distill_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);
void loss_distill_release(struct loss_distill *l);

/*
 * One row: logits (n) of the student at temperature T, the teacher's log-probabilities in `teacher`
 * (n, scratch afterwards). Logits become weight × d divergence / d logit. Returns the divergence.
 */
double distill_divergence(const struct kern *k, float *logits, float *teacher, size_t n,
                          double beta, float temperature, float weight, double *entropy);

#endif
