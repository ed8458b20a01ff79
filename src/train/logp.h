/*
 * Log-probabilities of tokens, as a rule those of completions, and the way back from a loss of
 * them.
 *
 * A completion is what follows a sequence's prompt (where there is none, its first token is what is
 * given). Token i of it is predicted by the row before it: row i of the completion. Losses over
 * log-probabilities (policies, preferences) fill in each row's `weight` and let the head run again
 * with gradients: the logits of a pass are never kept.
 *
 *   d loss / d logit_j = (w (1[j = y] − p_j) − b p_j (log p_j + H)) / T
 *
 * w = d loss / d log p, b = d loss / d entropy, T the temperature.
 *
 * Threads: one caller; the head's rows are computed by the team.
 */
#ifndef PONDER_TRAIN_LOGP_H
#define PONDER_TRAIN_LOGP_H

#include "tensor/logprob.h"
#include "train/trainer.h"

struct logp_row {
    int32_t id;          /* the token that comes next */
    float weight, bonus; /* d loss / d log p, d loss / d entropy */
    struct logprob lp;
};

struct logp {
    float temperature;
    size_t vocab; /* tokens that could be drawn; 0: all of the head's */
    /* Of a pass. */
    struct logp_row *row;
    bool *skip;
    size_t room;
    const struct kern *kern;
    bool grads;
};

/* Tokens of a sequence's completion. */
size_t logp_count(const struct data_seq *s);
/* The rows of sequence s of a pass; logp_count of them. */
struct logp_row *logp_rows(const struct logp *l, const struct train_pass *p, size_t s);

/* Room for a pass's rows, none of which is wanted: who wants some fills in `id` and `weight` and
   takes them out of `skip`. */
int logp_open(struct logp *l, const struct train_pass *p, struct err *e);
/* The rows of all completions, their weights 0. */
int logp_begin(struct logp *l, const struct train_pass *p, struct err *e);
/* Fills in `lp` of all rows; with `grads` the weights go back into the model. */
void logp_head(struct logp *l, const struct train_pass *p, bool grads);
/* The same over the prediction layer's rows, with gradients where the pass has them. */
void logp_head_ahead(struct logp *l, const struct train_pass *p);
void logp_release(struct logp *l);

/*
 * Log-probabilities alone: a pass for trainer_look. out[i] (logp_count of sequence i of the batch)
 * is written.
 */
struct logp_look {
    struct logp logp;
    float *const *out;
};
int logp_look_pass(void *arg, struct train_pass *p, double stat[TRAIN_STATS], struct err *e);

#endif
