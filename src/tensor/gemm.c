/* Matrix products of the way back, in plain loops over the vector kernels. See gemm.h. */
#include "tensor/gemm.h"

#include "base/num.h"

#include <string.h>

struct input_job {
    const struct op_ctx *c;
    float *scratch;
    size_t n, per, scratch_floats;
    struct gemm_rows dx, dy;
    const struct weight *w;
};

static size_t gemm_worker_floats(const struct weight *w)
{
    return num_round_up(w->cols * KERN_ROWS + (w->row_bytes + 3) / 4, 16);
}

static void input_chunk(void *arg, size_t chunk, int worker)
{
    const struct input_job *j = arg;
    const struct weight *w = j->w;
    size_t t0 = chunk * j->per, t1 = num_min(j->n, t0 + j->per);
    float *rows = j->scratch + (size_t)worker * j->scratch_floats;
    for (size_t r = 0; r < w->rows; r += KERN_ROWS) {
        size_t n = num_min(KERN_ROWS, w->rows - r);
        for (size_t i = 0; i < n; i++)
            weight_row(w, r + i, rows + i * w->cols, (uint8_t *)(rows + KERN_ROWS * w->cols));
        for (size_t t = t0; t < t1; t++)
            for (size_t i = 0; i < n; i++)
                j->c->kern->axpy(j->dx.data + t * j->dx.ld, j->dy.data[t * j->dy.ld + r + i],
                                 rows + i * w->cols, w->cols);
    }
}

void gemm_back_input(struct op_ctx *c, struct gemm_rows dx, struct gemm_rows dy, size_t n,
                     const struct weight *w)
{
    size_t threads = (size_t)team_threads(c->team), mark = c->used;
    struct input_job j = {.c = c,
                          .n = n,
                          .per = num_max(1, (n + threads - 1) / threads),
                          .scratch_floats = gemm_worker_floats(w),
                          .dx = dx,
                          .dy = dy,
                          .w = w};
    j.scratch = op_alloc(c, threads * j.scratch_floats * sizeof(float));
    if (!c->dry)
        team_run(c->team, input_chunk, &j, (n + j.per - 1) / j.per);
    c->used = mark;
}

struct weight_job {
    float *grad;
    size_t rows, cols, n;
    struct gemm_rows dy, x;
};

/* One panel. */
static void weight_chunk(void *arg, size_t panel, int worker)
{
    const struct weight_job *j = arg;
    size_t r = panel * KERN_ROWS, lanes = num_min(KERN_ROWS, j->rows - r);
    (void)worker;
    for (size_t i = 0; i < j->cols; i++) {
        float sum[KERN_ROWS] = {0}, *g = j->grad + r * j->cols + i * KERN_ROWS;
        memcpy(sum, g, lanes * sizeof *g);
        for (size_t t = 0; t < j->n; t++) {
            const float *dy = j->dy.data + t * j->dy.ld + r;
            float x = j->x.data[t * j->x.ld + i];
            for (size_t l = 0; l < lanes; l++)
                sum[l] += dy[l] * x;
        }
        memcpy(g, sum, lanes * sizeof *g);
    }
}

void gemm_back_weight(struct op_ctx *c, float *grad, size_t rows, size_t cols, struct gemm_rows dy,
                      struct gemm_rows x, size_t n)
{
    if (c->dry)
        return;
    struct weight_job j = {grad, rows, cols, n, dy, x};
    team_run(c->team, weight_chunk, &j, (rows + KERN_ROWS - 1) / KERN_ROWS);
}
