/*
 * The tape: what a forward pass did, and the walk back through it (reverse-mode differentiation).
 *
 * A tape attached to a context keeps every op_record of a pass, and the context keeps the tensors.
 * tape_backward visits the records from the last to the first; the row of the record's kind in a
 * table (tape.c) adds what the op's inputs and weights get from its output's gradient:
 *   - tensors: gradients live in the tape's memory, found by the tensor's data pointer
 *   - weights: gradients are added to weight->param->grad; weights without `param` are fixed, their
 *     inputs get gradients all the same (through the decoded values of quantized ones)
 * Sums over tokens are one chain in ascending order of rows that goes on from what `grad` holds, so
 * that cutting a batch of sequences into several passes does not change a bit (weights that two
 * places of a model share: model_params_each); nothing depends on the number of threads or the
 * instruction set.
 *
 * A pass that is recorded computes whole sequences, from position 0 on, over an F32 KV cache. Its
 * arguments (batch, runs, sequences) must stay as they are until tape_backward is done.
 *
 * Threads: as the context; the work of an op's backward is shared by the team.
 */
#ifndef PONDER_TENSOR_TAPE_H
#define PONDER_TENSOR_TAPE_H

#include "tensor/ops.h"

struct tape;

struct tape_opts {
    bool recompute; /* keep only what goes into blocks (op_block), and compute them again on the
                       way back: gradient checkpointing, same bits */
    float balance;  /* factor of each sequence's balance loss (DeepSeek-V3, equations 17 to 20, with
                       the experts that were chosen in equation 18); 0: none */
};

/*
 * How much scratch a pass needs while a tape records: attach op_tape { .keep = true, .recompute = …
 * } to a context with `dry` set, run the pass, and take its `peak` for op_ctx_reserve.
 */

int tape_new(struct tape **out, struct op_ctx *c, const struct tape_opts *o, struct err *e);
void tape_free(struct tape *t);

/* Forgets what was recorded, gives scratch back (the context's `used` is what it was at tape_new),
   and records what the context computes from now on. */
void tape_start(struct tape *t);

/* The gradient of a recorded tensor: as many values, zeros when first asked for. The loss writes
   here what tape_backward starts from. NULL when memory is gone (tape_backward will say so). */
float *tape_grad(struct tape *t, struct tensor y);

/*
 * Walks back and detaches the tape. ERR_NOMEM, or ERR_UNSUPPORTED for an op without a backward;
 * gradients of weights are void then. A router's bias that has a `param` gets counts in its place:
 * grad[e] += tokens that were sent to expert e.
 */
int tape_backward(struct tape *t, struct err *e);

/* Detaches without walking back. */
void tape_stop(struct tape *t);

/* After tape_backward: the balance losses of the pass, times the factor, added to `sum` sequence by
   sequence, so that its bits do not depend on which sequences share a pass. */
double tape_balance(const struct tape *t, double sum);

#endif
