/*
 * What the backward passes of ops share: private to tensor/.
 *
 * A backward of an op adds to the gradients of the op's inputs and weights what its output's
 * gradient gives. Rows of a tensor are the work's unit where each gives its own; sums over rows go
 * by columns, each a chain over ascending rows. Both cuts are free: no bit depends on them.
 */
#ifndef PONDER_TENSOR_TAPE_IMPL_H
#define PONDER_TENSOR_TAPE_IMPL_H

#include "tensor/tape.h"

/* Memory that grows by blocks, which stay for the next pass. */
struct tape_block {
    uint8_t *mem;
    size_t cap, used;
};

struct tape_grad {
    const float *data; /* of the tensor */
    float *grad;       /* NULL: it has served */
    size_t bytes;
};

/* Memory of a gradient that has served. */
struct tape_spare {
    float *mem;
    size_t bytes;
};
enum { TAPE_SPARES = 64 };

struct tape {
    struct op_tape op;
    struct op_ctx *c;
    struct tape_opts o;
    size_t used0; /* of the context's scratch */
    bool running, failed;

    struct op_record *record;
    size_t n, cap;

    struct tape_block *block;
    size_t n_block, at; /* blocks there are; the one that memory comes from */

    struct tape_grad *grad; /* in the order they were asked for */
    size_t n_grad, cap_grad;
    uint32_t *slot; /* (n_slot, a power of two) one more than the number of a gradient; 0: none */
    size_t n_slot;

    struct tape_spare spare[TAPE_SPARES];
    size_t n_spare;

    double *balance; /* (n_balance) balance loss of each sequence of the pass, all its layers */
    size_t n_balance, cap_balance;
};

/* A state to come back to: what was taken since is free again. */
struct tape_mark {
    size_t at, used, n_grad;
};
struct tape_mark tape_mark(const struct tape *t);
void tape_back_to(struct tape *t, struct tape_mark m);

/* Memory of the tape, aligned to 64, not cleared. NULL when there is none: then the tape has
 * failed. */
void *tape_alloc(struct tape *t, size_t bytes);

/* The gradient of a tensor if anybody has asked for it; else NULL: nothing depends on it. */
const float *tape_given(const struct tape *t, struct tensor y);

/* fn(arg, r0, r1, worker) over pieces of [0, rows); `cost`: values that a row takes. */
struct tape_job {
    void (*fn)(const void *arg, size_t r0, size_t r1, int worker);
    const void *arg;
};
void tape_rows(struct tape *t, size_t rows, size_t cost, struct tape_job j);

/* dst += src, both (rows, cols), rows `ldd` and `lds` apart. */
void tape_add(struct tape *t, float *dst, size_t ldd, const float *src, size_t lds, size_t rows,
              size_t cols);

/* sum[c] += Σ of y[r × ld + c] over ascending rows. */
void tape_sum(struct tape *t, float *sum, const float *y, size_t ld, size_t rows, size_t cols);

/* gemm_back_input and gemm_back_weight with scratch of the tape; the latter for weights that are
 * trained, no more than that for others. */
void tape_back_input(struct tape *t, float *dx, size_t lddx, const float *dy, size_t lddy, size_t n,
                     const struct weight *w);
void tape_back_weight(struct tape *t, const struct weight *w, const float *dy, size_t lddy,
                      const float *x, size_t ldx, size_t n);

/* One for each kind of op. */
void back_embed(struct tape *t, const struct op_record *r);
void back_rows(struct tape *t, const struct op_record *r);
void back_norm(struct tape *t, const struct op_record *r); /* of rows, or of heads */
void back_rope(struct tape *t, const struct op_record *r);
void back_latent(struct tape *t, const struct op_record *r);
void back_concat(struct tape *t, const struct op_record *r);
void back_add(struct tape *t, const struct op_record *r);
void back_glu(struct tape *t, const struct op_record *r);
void back_lora(struct tape *t, const struct op_record *r);
void back_dropout(struct tape *t, const struct op_record *r);
void back_linear(struct tape *t, const struct op_record *r);
void back_linear_heads(struct tape *t, const struct op_record *r);
void back_attention(struct tape *t, const struct op_record *r);
void back_route(struct tape *t, const struct op_record *r);
void back_moe(struct tape *t, const struct op_record *r);

#endif
