/*
 * Dropout in front of adapters: op_dropout, and its way back (Srivastava et al. 2014; in front of A
 * alone, as PEFT does).
 *
 * Whether a value is dropped is a pure function of the seed, its row's key, the module and the
 * column, by counter-based random numbers. So a mask is never stored: the way back, and a block
 * that is computed again, find the same one; threads and passes do not matter.
 */
#include "tensor/dropout.h"
#include "base/num.h"
#include "base/rng.h"

#include <assert.h>

struct dropout_job {
    const struct op_dropout *d;
    uint32_t module, below; /* a word below it drops */
    float scale;
    const float *x;
    float *y;
    size_t cols;
    bool add;
};

static void dropout_row(void *arg, size_t r, int worker)
{
    const struct dropout_job *j = arg;
    const float *x = j->x + r * j->cols;
    float *y = j->y + r * j->cols;
    (void)worker;
    for (size_t c = 0; c < j->cols; c += 4) {
        uint32_t w[4];
        rng_block(j->d->seed, j->d->row[r], (uint64_t)j->module << 32 | c / 4, w);
        for (size_t i = 0; i < 4 && c + i < j->cols; i++) {
            float v = w[i] < j->below ? 0 : x[c + i] * j->scale;
            y[c + i] = j->add ? y[c + i] + v : v;
        }
    }
}

static struct dropout_job dropout_job(const struct op_ctx *c, uint32_t module, size_t cols)
{
    double p = (double)c->dropout->p;
    return (struct dropout_job){.d = c->dropout,
                                .module = module,
                                .below = (uint32_t)(p * 0x1p32),
                                .scale = (float)(1 / (1 - p)),
                                .cols = cols};
}

struct tensor op_dropout(struct op_ctx *c, struct tensor x, const struct weight *w)
{
    struct tensor y = op_tensor(c, x.rows, x.cols);
    if (c->dry || !x.rows)
        return y;
    assert(x.rows == c->dropout->rows);
    struct dropout_job j = dropout_job(c, w->lora->module, x.cols);
    j.x = x.data;
    j.y = y.data;
    team_run(c->team, dropout_row, &j, x.rows);
    op_record(c, &(struct op_record){.kind = OP_DROPOUT, .out = y, .in = {x}, .w = {w}});
    return y;
}

void dropout_back(const struct op_ctx *c, float *dx, const float *dy, size_t rows,
                  const struct weight *w)
{
    struct dropout_job j = dropout_job(c, w->lora->module, w->lora->a.cols);
    j.x = dy;
    j.y = dx;
    j.add = true;
    team_run(c->team, dropout_row, &j, rows);
}
