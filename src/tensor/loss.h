/*
 * The head of a model and a loss over its logits, a chunk of rows at a time: logits of all rows are
 * never held at once.
 *
 * For each row of hidden states, `fn` gets the row's logits and turns them in place into the
 * gradient of the loss by them (or leaves anything there, in a forward pass). Everything that looks
 * at logits is such a function: cross entropy, policy gradients, distillation. The logits have the
 * bits that inference computes.
 */
#ifndef PONDER_TENSOR_LOSS_H
#define PONDER_TENSOR_LOSS_H

#include "tensor/ops.h"

/* Called by any worker, each row once. `logits`: (n_vocab). */
typedef void loss_row(void *arg, size_t row, float *logits, size_t n_vocab);

/*
 * hidden (n, d_model). With dhidden (n, d_model; NULL: forward only) the gradient of the hidden
 * states is added to it and the head's to head->param. Rows with `skip[row]` (may be NULL) set have
 * no loss and cost nothing.
 */
void loss_head(struct op_ctx *c, struct tensor hidden, const struct weight *head, const bool *skip,
               loss_row *fn, void *arg, float *dhidden);

#endif
