/* Dropout in front of adapters: see dropout.c and op_ctx.dropout. */
#ifndef PONDER_TENSOR_DROPOUT_H
#define PONDER_TENSOR_DROPOUT_H

#include "tensor/ops.h"

/* x with some values zero and the others larger, for the adapter of w; a row of x is one of the
   context's `dropout`. */
struct tensor op_dropout(struct op_ctx *c, struct tensor x, const struct weight *w);
/* dx += what the gradient of its result gives x. */
void dropout_back(const struct op_ctx *c, float *dx, const float *dy, size_t rows,
                  const struct weight *w);

#endif
