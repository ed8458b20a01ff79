/*
 * Backward passes of matrix products: op_linear, op_linear_heads. See tape_impl.h and gemm.h.
 *
 * y = x Wᵀ + b:  dx += dy W,  dW += dyᵀ x,  db += Σ dy over rows. Fixed weights of any type give
 * their inputs gradients through their decoded values. Where a weight's columns are in another
 * order, so is its input.
 */
#include "tensor/tape_impl.h"

#include <string.h>

/* The product alone: x (n, w->cols), dy (n, w->rows); x and dx are rows `ldx` apart. */
static void linear_one(struct tape *t, const struct weight *w, const float *x, float *dx,
                       size_t ldx, const float *dy, size_t ldy, size_t n)
{
    tape_back_input(t, dx, ldx, dy, ldy, n, w);
    tape_back_weight(t, w, dy, ldy, x, ldx, n);
}

/* By way of the input in the weight's order. */
static void linear_ordered_back(struct tape *t, const struct weight *w, struct tensor x, float *dx,
                                const float *dy, size_t ldy)
{
    size_t n = x.rows, k = x.cols;
    float *xo = tape_alloc(t, n * k * sizeof *xo), *d = tape_alloc(t, n * k * sizeof *d);
    if (!d)
        return;
    memset(d, 0, n * k * sizeof *d);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < k; i++)
            xo[r * k + i] = x.data[r * k + w->order[i]];
    linear_one(t, w, xo, d, k, dy, ldy, n);
    for (size_t r = 0; r < n; r++)
        for (size_t i = 0; i < k; i++)
            dx[r * k + w->order[i]] += d[r * k + i];
}

void back_linear(struct tape *t, const struct op_record *r)
{
    const struct weight *w = r->w[0], *b = r->w[1];
    struct tensor x = r->in[0];
    const float *dy = tape_given(t, r->out);
    float *dx = tape_grad(t, x);
    if (!dx)
        return;
    if (b && b->param)
        tape_sum(t, b->param->grad, dy, r->out.cols, r->out.rows, r->out.cols);
    if (w->order)
        linear_ordered_back(t, w, x, dx, dy, r->out.cols);
    else
        linear_one(t, w, x.data, dx, x.cols, dy, r->out.cols, x.rows);
}

void back_linear_heads(struct tape *t, const struct op_record *r)
{
    struct tensor x = r->in[0];
    size_t heads = r->heads, in = x.cols / heads, out = r->out.cols / heads;
    const float *dy = tape_given(t, r->out);
    float *dx = tape_grad(t, x);
    if (!dx)
        return;
    for (size_t h = 0; h < heads; h++) {
        const struct weight *w = &r->w[0][h];
        linear_one(t, w, x.data + h * in, dx + h * in, x.cols, dy + h * out, r->out.cols, x.rows);
        if (in > w->cols)
            tape_add(t, dx + h * in + w->cols, x.cols, dy + h * out + w->rows, r->out.cols, x.rows,
                     in - w->cols);
    }
}
