/*
 * A scalar head: how good a sequence is, as one number. score = w · h, h the state of the last
 * token after the final norm (w is "score.weight", (1, d_model), as transformers' sequence
 * classifiers have it). Reward models are a model and such a head.
 *
 * Products in float are summed in double in ascending order, rounded once.
 */
#ifndef PONDER_TRAIN_SCORE_H
#define PONDER_TRAIN_SCORE_H

#include "engine/engine.h"
#include "model/model.h"

struct score {
    struct weight w;
    float *value;             /* (d_model) */
    struct model_param param; /* for who trains it */
    bool found;               /* the model's files have one; else it begins as zero */
};

/* `adapter`: a folder whose head takes the place of the model's, or NULL. */
int score_open(struct score **out, struct engine *g, const char *adapter, struct err *e);
void score_free(struct score *s); /* NULL is fine */

double score_of(const struct score *s, const float *state);
/* Adds d loss / d score × d score / d …: to the head's gradient and the state's. */
void score_back(const struct score *s, const float *state, double by, float *dstate);

#endif
