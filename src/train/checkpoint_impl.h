/* What saving and loading of checkpoints share. */
#ifndef PONDER_TRAIN_CHECKPOINT_IMPL_H
#define PONDER_TRAIN_CHECKPOINT_IMPL_H

#include "base/file.h"
#include "train/checkpoint.h"

enum { CHECKPOINT_PATH = 4096 };

int checkpoint_inside(char out[CHECKPOINT_PATH], const char *dir, const char *name, struct err *e);

/* The checksum of a file. */
void checkpoint_sum(char out[17], const struct file_map *m);

/* The manifest of a step, checked in itself and against the sizes of the files; a new reference. */
int checkpoint_manifest(json_t **out, const char *run, int64_t step, double *metric, struct err *e);

#endif
