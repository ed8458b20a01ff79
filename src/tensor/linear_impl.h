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
 * Gives `cols` columns of k values their places in the forms whose bits are set; floats are column
 * c at data + c × ldx. Memory comes from the context. Also to be called in a dry run.
 */
void linear_place(struct op_ctx *c, struct linear_x *x, const float *data, size_t ldx, size_t k,
                  size_t cols, unsigned forms);

/*
 * Fills values [k0, k0 + n) of columns [col0, col0 + cols) of placed forms, value k0 of column
 * col0 + i at data + i × ldx. k0 is a multiple of 256, and so is n unless it ends the columns.
 * `rest`: n floats, where columns come in pairs (`fine`). Any thread.
 */
void linear_fill(const struct kern *kern, const struct linear_x *x, unsigned forms,
                 const float *data, size_t ldx, size_t col0, size_t cols, size_t k0, size_t n,
                 float *rest);

/* Columns of a chunk of filling: all, when waking others is not worth it. */
size_t linear_fill_columns(const struct op_ctx *c, size_t k, size_t cols);

/*
 * An input that is made on the way to its products: rows, or their norms. linear_fill_work places
 * `in` and readies the rest; the work is run by whoever reads the input, as the first stage of its
 * region. With 0 chunks there is nothing to do.
 */
struct fill_job {
    const struct kern *kern;
    const struct linear_x *x;
    unsigned forms;
    struct tensor in;
    const float *norm; /* (k), or NULL: as they are */
    float eps;
    float *keep;                 /* (rows, k) where the norms are wanted as floats, or NULL */
    size_t per;                  /* columns of a chunk */
    float *scratch;              /* per worker: what rounding leaves, then norms */
    size_t scratch_floats, rest; /* of a worker; of its first part */
};

struct team_work linear_fill_work(struct op_ctx *c, struct fill_job *j, struct linear_x *x);

/* Whether an op of these products may be fused: no tape sees what is inside of it, and its parts
   are plain products. A fused op in a dry run takes both ways, since a tape may come later. */
bool linear_fuses(const struct op_ctx *c, size_t count, const struct weight *const w[]);

/*
 * sum += x Wᵀ + b, then total += sum (both may be NULL); x is ready (then `first` is NULL), or what
 * `first` fills in the same region. Its scratch stays taken.
 */
void linear_sum(struct op_ctx *c, const struct linear_x *x, const struct team_work *first,
                const struct weight *w, const struct weight *b, struct tensor sum,
                const struct tensor *total);

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
