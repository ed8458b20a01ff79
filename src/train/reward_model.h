/*
 * Reward models as rewards: folders that `ponder train reward` (or transformers) has written, by
 * which completions are scored. The model has its own tokenizer and template: what it sees is the
 * prompt of the record and the completion, as its own training data have it.
 *
 * A folder may have an adapter and the head alone (train reward --use-peft): the model that it is
 * for is then the one that its configuration names.
 *
 * DeepSeek-R1's helpfulness model sees the answer behind the thought, its safety model the whole
 * output. A completion that never comes to an answer is scored as an empty one.
 *
 * Threads: one caller.
 */
#ifndef PONDER_TRAIN_REWARD_MODEL_H
#define PONDER_TRAIN_REWARD_MODEL_H

#include "grade/answer.h"
#include "train/frozen.h"

#include <jansson.h>

struct reward_model;

/* "DIR", "DIR:WEIGHT", "DIR:WEIGHT:answer" or "…:whole" (the default). `o`: all but the path. The
   name is that of the folder; of RUN/model, the run's. */
int reward_model_open(struct reward_model **out, const char *spec, const struct frozen_opts *o,
                      char name[48], double *weight, struct err *e);
void reward_model_free(struct reward_model *m); /* NULL is fine */

/* Scores of n completions of a record. `thinking`: they begin inside a thought. */
int reward_model_group(struct reward_model *m, const json_t *record, bool thinking,
                       const struct span *text, size_t n, float *out, struct err *e);

#endif
