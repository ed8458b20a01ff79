/*
 * Adapters in training: --use-peft and what goes with it, and the result in PEFT's layout.
 *
 * Names and defaults are TRL's and PEFT's, with one difference: without --lora-target-modules all
 * linear layers are adapted, for every architecture. An adapter that is gone on with (--lora) keeps
 * its configuration.
 */
#ifndef PONDER_TRAIN_LORA_H
#define PONDER_TRAIN_LORA_H

#include "model/model.h"
#include "train/options.h"
#include "train/params.h"

#include <jansson.h>

enum { LORA_TARGETS = 64 };

/* Which modules: --lora-target-modules cut into names. A module is meant by its name or by the end
   of it from a dot on, as PEFT does. */
struct lora_targets {
    const char *name[LORA_TARGETS]; /* in the option's text */
    size_t len[LORA_TARGETS];
    bool used[LORA_TARGETS];
    size_t n; /* 0: all-linear */
};

/* Checks the options; *out points into `t`, which outlives the opening of the model. *config: that
   of the adapter that is gone on with, a reference; NULL of a new one. */
int lora_options(struct model_adapt *out, struct lora_targets *t, json_t **config,
                 const struct train_options *o, struct err *e);
/* After the model was opened: every name has to mean something. */
int lora_targets_check(const struct lora_targets *t, struct err *e);

/* Writes the adapter, and the scalar head that is trained beside it, to a folder:
   adapter_model.safetensors, then adapter_config.json, after `config` if it is not NULL. */
int lora_write(const char *folder, const struct params *p, const json_t *config,
               const struct train_options *o, struct err *e);

#endif
