/*
 * Matrix products of the way back: what a linear layer y = x Wᵀ gives its input and its weight.
 *
 * Sums have one order whatever the cut: over outputs, ascending, for the input; over tokens,
 * ascending, for the weight. Each is one chain of fused multiply-adds that goes on from what dx or
 * the gradient holds: tokens may so come in any number of calls. Of weights with copies in BF16
 * both factors are rounded to BF16 first and the chain is that of BF16 products (kernels/kern.h),
 * still in ascending order, a product at a time.
 *
 * Scratch comes from the context (op_alloc) and is given back; in a dry run it is only counted.
 */
#ifndef PONDER_TENSOR_GEMM_H
#define PONDER_TENSOR_GEMM_H

#include "tensor/ops.h"

/* Rows of floats that lie `ld` apart: row r at data + r × ld. */
struct gemm_rows {
    float *data; /* of dy and x: only read */
    size_t ld;
};

/* dx (n, w->cols) += dy (n, w->rows) W, of any type, by its decoded values. */
void gemm_back_input(struct op_ctx *c, struct gemm_rows dx, struct gemm_rows dy, size_t n,
                     const struct weight *w);

/* w->param->grad (F32 panels) += dyᵀ x: dy (n, w->rows), x (n, w->cols). Of a weight without
 * `param` nothing. */
void gemm_back_weight(struct op_ctx *c, const struct weight *w, struct gemm_rows dy,
                      struct gemm_rows x, size_t n);

#endif
