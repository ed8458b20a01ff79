/*
 * The head and a loss, chunk by chunk of rows. See loss.h.
 *
 * A chunk's logits are one product, as inference computes it; then each row goes to the loss, and
 * what it left is the gradient that head and hidden states get. The gradient of the head is one
 * chain over all rows, so chunks do not show in it.
 */
#include "tensor/loss.h"

#include "base/num.h"
#include "tensor/dropout.h"
#include "tensor/gemm.h"

#include <math.h>
#include <string.h>

enum {
    LOSS_ROWS = 256,        /* rows of a chunk, as long as */
    LOSS_VALUES = 16 << 20, /* their logits are no more than this */
};

struct loss_job {
    struct tensor logits;
    const size_t *row; /* of the chunk's */
    loss_row *fn;
    void *arg;
};

static void loss_chunk(void *arg, size_t i, int worker)
{
    const struct loss_job *j = arg;
    (void)worker;
    j->fn(j->arg, j->row[i], j->logits.data + i * j->logits.cols, j->logits.cols);
}

/* What they give an adapter of the head: y = … + scale × B (A x). */
static void loss_lora(struct op_ctx *c, struct tensor x, struct tensor dy, struct tensor dx,
                      const struct weight *head)
{
    const struct weight_lora *l = head->lora;
    if (c->dropout)
        x = op_dropout(c, x, head);
    struct gemm_rows out = {dy.data, dy.cols}, in = {x.data, x.cols};
    struct tensor low = op_linear(c, x, &l->a, NULL), dlow = op_tensor(c, x.rows, low.cols);
    struct gemm_rows lows = {low.data, low.cols}, dlows = {dlow.data, dlow.cols};
    size_t n = low.rows * low.cols;
    for (size_t i = 0; i < n && !c->dry; i++) {
        low.data[i] *= l->scale;
        dlow.data[i] = 0;
    }
    gemm_back_weight(c, &l->b, out, lows, x.rows);
    gemm_back_input(c, dlows, out, x.rows, &l->b);
    for (size_t i = 0; i < n && !c->dry; i++)
        dlow.data[i] *= l->scale;
    gemm_back_weight(c, &l->a, dlows, in, x.rows);
    if (!c->dropout) {
        gemm_back_input(c, (struct gemm_rows){dx.data, dx.cols}, dlows, x.rows, &l->a);
        return;
    }
    struct tensor part = op_tensor(c, x.rows, x.cols);
    if (!c->dry)
        memset(part.data, 0, part.rows * part.cols * sizeof *part.data);
    gemm_back_input(c, (struct gemm_rows){part.data, part.cols}, dlows, x.rows, &l->a);
    if (!c->dry)
        dropout_back(c, dx.data, part.data, x.rows, head);
}

/* What the chunk's gradients of logits, dy, give. */
static void loss_back(struct op_ctx *c, struct tensor x, struct tensor dy, const size_t *row,
                      const struct weight *head, float *dhidden)
{
    struct gemm_rows out = {dy.data, dy.cols}, in = {x.data, x.cols};
    struct tensor dx = op_tensor(c, x.rows, x.cols);
    if (!c->dry)
        memset(dx.data, 0, dx.rows * dx.cols * sizeof *dx.data);
    gemm_back_input(c, (struct gemm_rows){dx.data, dx.cols}, out, x.rows, head);
    gemm_back_weight(c, head, out, in, x.rows);
    if (head->lora)
        loss_lora(c, x, dy, dx, head);
    for (size_t i = 0; i < x.rows && !c->dry; i++)
        c->kern->add(dhidden + row[i] * dx.cols, dx.data + i * dx.cols, dx.cols);
}

void loss_head(struct op_ctx *c, struct tensor hidden, const struct weight *head, const bool *skip,
               loss_row *fn, void *arg, float *dhidden)
{
    struct op_tape *tape = c->tape;
    const struct op_dropout *dropout = c->dropout;
    struct op_dropout chunk = dropout ? *dropout : (struct op_dropout){.p = 0};
    size_t d = hidden.cols, start = c->used;
    size_t most = num_min(hidden.rows, num_min(LOSS_ROWS, num_max(16, LOSS_VALUES / head->rows)));
    c->tape = NULL; /* its gradients are given here */
    size_t *row = op_alloc(c, most * sizeof *row);
    uint64_t *key = dropout ? op_alloc(c, most * sizeof *key) : NULL; /* of the chunk's rows */
    if (dropout) {
        chunk.row = key;
        c->dropout = &chunk;
    }
    struct tensor x = op_tensor(c, most, d);
    size_t mark = c->used;
    for (size_t r = 0, n = 0; r < hidden.rows; r++) {
        if (!c->dry && !(skip && skip[r])) {
            row[n] = r;
            if (key)
                key[n] = dropout->row[r];
            memcpy(x.data + n++ * d, hidden.data + r * d, d * sizeof *x.data);
        }
        if (n < most && r + 1 < hidden.rows)
            continue;
        x.rows = c->dry ? most : n;
        if (!x.rows)
            continue;
        chunk.rows = x.rows;
        struct loss_job j = {op_linear(c, x, head, NULL), row, fn, arg};
        if (!c->dry)
            team_run(c->team, loss_chunk, &j, n);
        if (dhidden || c->dry)
            loss_back(c, x, j.logits, row, head, dhidden);
        c->used = mark;
        n = 0;
    }
    c->tape = tape;
    c->dropout = dropout;
    c->used = start;
}
