/* From the options of stages (train/options.h) to those of data sets. */
#ifndef PONDER_TRAIN_DATA_OPTIONS_H
#define PONDER_TRAIN_DATA_OPTIONS_H

#include "base/arena.h"
#include "train/data.h"
#include "train/options.h"

/* FILE or FILE:WEIGHT each; the list lies in the arena. */
int data_options_sources(struct data_options *d, const struct opt_list *files, struct arena *a,
                         struct err *e);

/*
 * What the options say of records, sequences and order. Sources, model, batch and the side of the
 * split stay the caller's.
 */
void data_options_take(struct data_options *d, const struct train_options *o, enum data_use use);

#endif
