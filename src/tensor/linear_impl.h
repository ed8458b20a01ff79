/*
 * The inside of matrix products: private to tensor/.
 *
 * An input is prepared once per form that its weights read (int8 per 32 or per 256 values, or
 * floats as they are); a product is then rows of a weight times a range of columns of the input,
 * whoever cuts the work and however.
 */
#ifndef PONDER_TENSOR_LINEAR_IMPL_H
#define PONDER_TENSOR_LINEAR_IMPL_H

#include "tensor/ops.h"

/* Columns of activations in the forms that products read. */
struct linear_x {
    struct kern_x form[KERN_ACT_BF16]; /* by kern_act, minus one; unprepared ones are empty */
    bool fine;   /* int8 forms have two columns for each: values, then what rounding left of them */
    bool floats; /* the float form stands for BF16 */
};

/* The form of the input that the weight's products read; `floats` as in linear_x. */
enum kern_act linear_act(const struct kern *k, const struct weight *w, bool floats);

/* Bit (1 << kern_act) of the form. */
unsigned linear_form(const struct kern *k, const struct weight *w, bool floats);

/*
 * Prepares `cols` columns of k values, column c at data + c × ldx, in the forms whose bits are set.
 * Memory comes from the context. Runs on the team when there is much of it. Also to be called in a
 * dry run.
 */
void linear_prepare(struct op_ctx *c, struct linear_x *x, const float *data, size_t ldx, size_t k,
                    size_t cols, unsigned forms);

/* Scratch that linear_rows needs of one worker for this weight, in floats; a multiple of 16. */
size_t linear_scratch(const struct kern *k, const struct weight *w);

/*
 * y[(c - col0) × ldy + r - r0] for rows [r0, r1) of w and columns [col0, col0 + cols) of x. r0 is a
 * multiple of 16. Each output is one chain over K (kernels/kern.h).
 */
void linear_rows(const struct kern *k, const struct linear_x *x, size_t col0, size_t cols,
                 const struct weight *w, size_t r0, size_t r1, float *y, size_t ldy,
                 float *scratch);

/* Rows of a chunk of work when `rows` in all, times `cols` columns, are to be shared out: small
 * enough that threads finish together, large enough to be worth taking. A multiple of 32, at most
 * 256. */
size_t linear_rows_chunk(const struct op_ctx *c, size_t rows, size_t cols);

#endif
