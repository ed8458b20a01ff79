/*
 * Importance of weights: for each matrix and input column the mean square of the activations that
 * met it over some text. Encoders weigh their error with it.
 *
 * Two files hold it, both as llama.cpp writes them: a GGUF file of type "imatrix" (NAME.in_sum2 and
 * NAME.counts for each tensor), and the older .dat of names and sums.
 */
#ifndef PONDER_CONVERT_IMATRIX_H
#define PONDER_CONVERT_IMATRIX_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct imatrix;

/* Every value is finite and not negative. */
int imatrix_open(struct imatrix **out, const char *path, struct err *e);
void imatrix_free(struct imatrix *m); /* NULL is fine */

/* (matrices, columns) values of the tensor, *n in all; NULL when it is not in the file. */
const float *imatrix_find(const struct imatrix *m, const char *tensor, size_t *n);

size_t imatrix_count(const struct imatrix *m);
const char *imatrix_dataset(const struct imatrix *m); /* "" when the file does not say */
int64_t imatrix_chunks(const struct imatrix *m);      /* of text; -1 when the file does not say */

#endif
