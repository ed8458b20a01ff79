/*
 * Policy-gradient losses: GRPO and its family, on given log-probabilities.
 *
 * Of each prompt G completions are sampled from the policy of that moment ("old"), rewarded, and
 * compared among themselves: A = (r − mean) / (std + 1e-4). With ρ = exp(lp − lp_old), a token's
 * loss is
 *   grpo, bnpo, dr_grpo, dapo   −min(ρA, clip(ρ, 1 − ε, 1 + ε_high) A), ρ ≤ δ in the first
 *   cispo                       −min(ρ, ε_high) A lp, the factor held constant
 * plus β k3, k3 = e^d − d − 1, d = lp_ref − lp. On the level of sequences (GSPO) ρ is one number,
 * the exp of the mean of a completion's lp − lp_old. The losses differ in what divides the sum:
 *   grpo     each completion by its length, then by the number of completions
 *   dapo     by the tokens of the whole step; cispo the same
 *   bnpo     by the tokens of the rows given (of a device, with others; here a step's)
 *   dr_grpo  by completions × the longest completion there may be
 * Sources: Shao et al. 2024 (DeepSeekMath, eq. 3 and 4), Yu et al. 2025 (DAPO), Liu et al. 2025
 * (Dr. GRPO), Zheng et al. 2025 (GSPO), MiniMax 2025 (CISPO); TRL's names, defaults and rounding of
 * corner cases, held to TRL's own numbers in tests/train/test_policy.c.
 *
 * Log-probabilities are those of the distribution that was sampled: with the temperature in them.
 * Rows are independent once the divisor is known, so a step may be computed in pieces.
 *
 * Threads: pure functions.
 */
#ifndef PONDER_TRAIN_POLICY_H
#define PONDER_TRAIN_POLICY_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum policy_kind { POLICY_GRPO, POLICY_BNPO, POLICY_DR_GRPO, POLICY_DAPO, POLICY_CISPO };

/* "grpo", "bnpo", "dr_grpo", "dapo", "cispo"; false when unknown. */
bool policy_kind_parse(enum policy_kind *out, const char *name);

struct policy_opts {
    enum policy_kind kind;
    bool sequence;       /* importance sampling on the level of sequences */
    double epsilon;      /* lower clip */
    double epsilon_high; /* upper clip; of cispo the cap itself */
    double delta;        /* cap on ρ for negative advantages; 0: none */
    double beta;         /* of the KL term; 0: no reference is needed */
    bool kl_corrected;   /* k3 × ρ: the unbiased gradient off policy (DeepSeek-V3.2) */
    size_t longest;      /* max_completion_length, for dr_grpo */
    double rows, tokens; /* of the whole step: completions, and their active tokens */
};

void policy_opts_init(struct policy_opts *o); /* TRL's defaults: dapo, 0.2, 0.2, β = 0 */

/* One completion: (n) of each. */
struct policy_row {
    size_t n;
    const float *logp, *old; /* old NULL: logp itself (on policy) */
    const float *ref;        /* NULL when β is 0 */
    const uint8_t *mask;     /* 0: the token does not count; NULL: all count */
    const uint8_t *drop;     /* 1: no loss, though it counts in the divisor; NULL: none */
    double advantage;
    float *grad; /* d loss / d logp, written */
};

/* Sums, so that pieces can be added; the means are these over `tokens`. */
struct policy_stats {
    double loss;                /* divided as the kind says */
    double tokens, rows;        /* that counted */
    double kl;                  /* Σ k3 */
    double clip_low, clip_high; /* tokens (GSPO: rows) whose gradient was clipped */
    double ratio, ratio_max;    /* Σ ρ, max ρ */
};

void policy_loss(const struct policy_opts *o, const struct policy_row *row,
                 struct policy_stats *add);

enum policy_scale {
    POLICY_SCALE_GROUP, /* by the standard deviation of the group (n − 1) */
    POLICY_SCALE_BATCH, /* of all rewards */
    POLICY_SCALE_NONE,
};
bool policy_scale_parse(enum policy_scale *out, const char *name); /* "group", "batch", "none" */

/*
 * Advantages of n rewards, groups of `group` one after another. A NaN reward (no verdict) is left
 * out of its group's mean and gets 0. *dead (may be NULL): groups whose rewards are all equal.
 */
void policy_advantages(double *out, const double *reward, size_t n, size_t group,
                       enum policy_scale scale, size_t *dead);

#endif
