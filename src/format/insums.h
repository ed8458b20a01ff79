/*
 * Sums of inputs, "importance matrices": how large the inputs of every matrix are, column by
 * column, over a text. Quantization weighs errors by them.
 *
 * In memory: for each matrix (or stack of experts) the sums of squared inputs per column and how
 * many inputs there were, per expert. The file is llama.cpp's GGUF form:
 *   general.type = "imatrix", imatrix.datasets (strings), imatrix.chunk_count, imatrix.chunk_size;
 *   tensors NAME.in_sum2 (mats, cols) and NAME.counts (mats, 1), F32, NAME that of the weight in
 *   GGUF files.
 */
#ifndef PONDER_FORMAT_INSUMS_H
#define PONDER_FORMAT_INSUMS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct insums_entry {
    char *name;        /* of the weight, owned */
    size_t mats, cols; /* mats: experts, 1 for a plain matrix */
    double *sum2;      /* (mats, cols) */
    double *counts;    /* (mats) inputs that were summed */
};

struct insums {
    struct insums_entry *entries; /* owned, in the order they were added */
    size_t n, cap;
    size_t at; /* private: where the next name is likely */
    char **datasets;
    size_t n_datasets;
    uint64_t chunks;     /* of all texts together */
    uint32_t chunk_size; /* tokens of each; 0 = not known yet */
};

void insums_init(struct insums *m);
void insums_release(struct insums *m);

/* The entry of a name, made with zeros when there is none. ERR_FORMAT when it is there with another
   shape. Pointers to entries end with the next call. */
int insums_entry(struct insums_entry **out, struct insums *m, const char *name, size_t mats,
                 size_t cols, struct err *e);
const struct insums_entry *insums_find(const struct insums *m, const char *name);

/* Notes a text; one that is noted already is not noted again. */
int insums_dataset(struct insums *m, const char *name, size_t n, struct err *e);

/* Adds what a file has to `m`. Errors name the file; what was read before them stays in `m`. */
int insums_read(struct insums *m, const char *path, struct err *e);
/* Writes the file whole or not at all. */
int insums_write(const struct insums *m, const char *path, struct err *e);

#endif
