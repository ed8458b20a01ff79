/*
 * Preference losses over pairs of a chosen and a rejected completion (DPO and its kin).
 *
 * With s = Σ (lp − lp_ref) over a completion's tokens, n of them, and Δ = s⁺ − s⁻:
 *
 *   sigmoid       −(1 − ε) log σ(βΔ) − ε log σ(−βΔ)                (ε: label smoothing, cDPO)
 *   robust        (−(1 − ε) log σ(βΔ) + ε log σ(−βΔ)) / (1 − 2ε)
 *   hinge         max(0, 1 − βΔ)                                   (SLiC)
 *   ipo           (Δ' − 1 / (2β))²,  Δ' = s⁺/n⁺ − s⁻/n⁻
 *   sigmoid_norm  −log σ(βΔ')
 *
 * Sources: Rafailov et al. 2023 (DPO, eq. 7), Mitchell 2023 (cDPO), Chowdhury et al. 2024 (robust
 * DPO), Zhao et al. 2023 (SLiC-HF), Azar et al. 2023 (IPO, eq. 17, on means as TRL has it); TRL's
 * names and defaults. The mean is taken over the pairs of a step; a record's weight is a factor.
 *
 * Log-probabilities of the whole vocabulary at temperature 1. The head is computed twice: once for
 * the sums, once with the gradients that follow from them.
 */
#ifndef PONDER_TRAIN_LOSS_PAIRS_H
#define PONDER_TRAIN_LOSS_PAIRS_H

#include "train/logp.h"

enum pairs_kind { PAIRS_SIGMOID, PAIRS_ROBUST, PAIRS_HINGE, PAIRS_IPO, PAIRS_SIGMOID_NORM };

struct pairs_opts {
    enum pairs_kind kind;
    double beta, smoothing;
};

bool pairs_kind_parse(enum pairs_kind *out, const char *name); /* as above */

/* One side of a pair: log-probabilities summed over n tokens. */
struct pairs_side {
    double logp, ref;
    size_t n;
};
/* The loss of a pair; *chosen and *rejected: its derivatives by each one's `logp`. */
double pairs_loss(const struct pairs_opts *o, const struct pairs_side *yes,
                  const struct pairs_side *no, double *chosen, double *rejected);

/* What is summed into stat[]. */
enum {
    PAIRS_LOSS, /* Σ w × loss */
    PAIRS_COUNT,
    PAIRS_CHOSEN,   /* Σ β s⁺: rewards */
    PAIRS_REJECTED, /* Σ β s⁻ */
    PAIRS_RIGHT,    /* pairs whose chosen one has the larger reward */
    PAIRS_LOGP_CHOSEN,
    PAIRS_LOGP_REJECTED,
    PAIRS_TOKENS_CHOSEN,
    PAIRS_TOKENS_REJECTED,
    PAIRS_ENTROPY, /* of all tokens of the completions */
    PAIRS_STATS
};

struct loss_pairs {
    struct pairs_opts opts;
    struct logp logp;
    float *const *ref; /* of the reference, by number of the sequence in the batch */
    double pairs;      /* of the step */
};

/* A train_loss's pass, with `pairs` set; arg is a struct loss_pairs. */
int loss_pairs_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);
void loss_pairs_release(struct loss_pairs *l);

#endif
