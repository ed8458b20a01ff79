/*
 * Products of the way back. Both are the kernels' one product over panels, differently packed:
 *
 *   input   dx = dy W: lanes are inputs, the chain goes over outputs. Panels of W, whose lanes are
 *           outputs, are turned around into scratch first, GEMM_DEPTH rows at a time: rows × cols
 *           moves for rows × cols × n multiplications. Other weights than F32 are decoded there.
 *   weight  dW = dyᵀ x: lanes are outputs, so dy lies right as it is; it is only copied, a block of
 *           tokens at a time, to lie without gaps. The gradient is made of panels as the weight is.
 *
 * Threads: the input's product is cut by tokens, after all have turned the weight; the weight's by
 * rows and columns of the gradient, each with all tokens. A chunk's data are to stay in the second
 * cache, of which a thread may have half.
 */
#include "tensor/gemm.h"

#include "base/num.h"

#include <string.h>

enum {
    GEMM_DEPTH = 512,  /* rows of a weight that are turned around together */
    GEMM_TOKENS = 96,  /* of a chunk of the input's product */
    GEMM_ROWS = 64,    /* of a chunk of a gradient: panels of them stay on the stack */
    GEMM_COLS = 128,   /* the same */
    GEMM_DEEP = 256,   /* tokens of a block of it */
    GEMM_SQUARE = 256, /* floats of 16 × 16 */
};

/* ---- to the input ---------------------------------------------------------------------------- */

struct input_job {
    const struct kern *kern;
    const struct weight *w;
    struct gemm_rows dx, dy;
    size_t n, r0, rows; /* rows [r0, r0 + rows) of w are turned around */
    size_t tokens;      /* of a chunk */
    float *turned;      /* (panels of columns, `rows` rounded up to 16, 16) */
    uint8_t *made;      /* per worker: a row in its type's form, and decoded */
    size_t made_bytes, row_bytes;
};

static size_t input_step(const struct input_job *j)
{
    return num_round_up(j->rows, KERN_ROWS) * KERN_ROWS;
}

/* 16 rows of F32 panels. */
static void input_turn_panel(const struct input_job *j, size_t r)
{
    size_t cols = j->w->cols, whole = cols / 16 * 16;
    const float *panel =
        (const float *)(const void *)(j->w->panels + (j->r0 + r) / KERN_ROWS * j->w->panel_bytes);
    float *to = j->turned + r * KERN_ROWS;
    for (size_t k = 0; k < whole; k += 16, to += input_step(j))
        j->kern->transpose(to, 16, panel + k * KERN_ROWS, KERN_ROWS);
    if (whole < cols) {
        float last[GEMM_SQUARE] = {0};
        memcpy(last, panel + whole * KERN_ROWS, (cols - whole) * KERN_ROWS * sizeof *last);
        j->kern->transpose(to, 16, last, KERN_ROWS);
    }
}

static void input_turn(void *arg, size_t chunk, int worker)
{
    const struct input_job *j = arg;
    size_t r = chunk * KERN_ROWS, cols = j->w->cols;
    if (j->w->type->id == QUANT_F32 && j->w->panels) {
        input_turn_panel(j, r);
        return;
    }
    uint8_t *made = j->made + (size_t)worker * j->made_bytes;
    float *row = (float *)(void *)(made + j->row_bytes);
    for (size_t end = num_min(j->rows, r + KERN_ROWS); r < end; r++) {
        weight_row(j->w, j->r0 + r, row, made);
        float *to = j->turned + r * KERN_ROWS;
        for (size_t k = 0; k < cols; k += 16, to += input_step(j))
            memcpy(to, row + k, num_min(16, cols - k) * sizeof *to);
    }
}

static void input_tokens(void *arg, size_t chunk, int worker)
{
    const struct input_job *j = arg;
    (void)worker;
    size_t t = chunk * j->tokens;
    j->kern->gemm(&(struct kern_gemm){.w = j->turned,
                                      .w_panel = input_step(j),
                                      .x = j->dy.data + t * j->dy.ld + j->r0,
                                      .x_col = j->dy.ld,
                                      .x_step = 1,
                                      .y = j->dx.data + t * j->dx.ld,
                                      .y_panel = KERN_ROWS,
                                      .y_col = j->dx.ld,
                                      .rows = j->w->cols,
                                      .k = j->rows,
                                      .cols = num_min(j->tokens, j->n - t),
                                      .more = true});
}

void gemm_back_input(struct op_ctx *c, struct gemm_rows dx, struct gemm_rows dy, size_t n,
                     const struct weight *w)
{
    size_t mark = c->used, deep = num_round_up(num_min(w->rows, GEMM_DEPTH), KERN_ROWS);
    size_t threads = (size_t)team_threads(c->team);
    struct input_job j = {.kern = c->kern, .w = w, .dx = dx, .dy = dy, .n = n};
    j.row_bytes = num_round_up(w->row_bytes, 64);
    j.made_bytes = j.row_bytes + num_round_up(w->cols, 16) * sizeof(float);
    j.made = op_alloc(c, j.made_bytes * threads);
    j.turned = op_alloc(c, deep * num_round_up(w->cols, 16) * sizeof(float));
    /* Small batches still give each thread something. */
    j.tokens = num_min(GEMM_TOKENS, num_round_up((n + 4 * threads - 1) / (4 * threads), 12));
    for (j.r0 = 0; j.r0 < w->rows && n && !c->dry; j.r0 += GEMM_DEPTH) {
        j.rows = num_min(GEMM_DEPTH, w->rows - j.r0);
        struct team_work turn = {input_turn, &j, (j.rows + KERN_ROWS - 1) / KERN_ROWS, false};
        struct team_work products = {input_tokens, &j, (n + j.tokens - 1) / j.tokens, false};
        team_run_after(c->team, &turn, &products);
    }
    c->used = mark;
}

/* ---- to the weight --------------------------------------------------------------------------- */

struct weight_job {
    const struct kern *kern;
    float *grad;
    size_t rows, cols, n;
    struct gemm_rows dy, x;
    size_t per_rows, per_cols, across; /* of a chunk; chunks of the columns */
};

/* `n` tokens of `rows` values as panels (rows / 16, n, 16). */
static void weight_pack(float *to, const float *dy, size_t ld, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r += KERN_ROWS) {
        const float *from = dy + r;
        if (rows - r >= KERN_ROWS)
            for (size_t t = 0; t < n; t++, from += ld, to += KERN_ROWS)
                memcpy(to, from, KERN_ROWS * sizeof *to);
        else
            for (size_t t = 0; t < n; t++, from += ld, to += KERN_ROWS) {
                memset(to, 0, KERN_ROWS * sizeof *to);
                memcpy(to, from, (rows - r) * sizeof *to);
            }
    }
}

static void weight_chunk(void *arg, size_t chunk, int worker)
{
    const struct weight_job *j = arg;
    (void)worker;
    _Alignas(64) float dy[GEMM_ROWS * GEMM_DEEP];
    size_t r = chunk / j->across * j->per_rows, c = chunk % j->across * j->per_cols;
    size_t rows = num_min(j->per_rows, j->rows - r), cols = num_min(j->per_cols, j->cols - c);
    for (size_t t = 0, n; t < j->n; t += n) {
        n = num_min(GEMM_DEEP, j->n - t);
        weight_pack(dy, j->dy.data + t * j->dy.ld + r, j->dy.ld, rows, n);
        j->kern->gemm(&(struct kern_gemm){.w = dy,
                                          .w_panel = n * KERN_ROWS,
                                          .x = j->x.data + t * j->x.ld + c,
                                          .x_col = 1,
                                          .x_step = j->x.ld,
                                          .y = j->grad + r * j->cols + c * KERN_ROWS,
                                          .y_panel = j->cols * KERN_ROWS,
                                          .y_col = KERN_ROWS,
                                          .rows = rows,
                                          .k = n,
                                          .cols = cols,
                                          .more = true});
    }
}

/* Even parts of at most `most`, each a multiple of `unit`. */
static size_t weight_part(size_t n, size_t most, size_t unit)
{
    size_t parts = num_max(1, (n + most - 1) / most);
    return num_max(unit, num_round_up((n + parts - 1) / parts, unit));
}

void gemm_back_weight(struct op_ctx *c, float *grad, size_t rows, size_t cols, struct gemm_rows dy,
                      struct gemm_rows x, size_t n)
{
    struct weight_job j = {
        .kern = c->kern, .grad = grad, .rows = rows, .cols = cols, .n = n, .dy = dy, .x = x};
    if (c->dry || !n)
        return;
    j.per_rows = weight_part(rows, GEMM_ROWS, KERN_ROWS);
    j.per_cols = weight_part(cols, GEMM_COLS, 12);
    j.across = (cols + j.per_cols - 1) / j.per_cols;
    team_run(c->team, weight_chunk, &j, (rows + j.per_rows - 1) / j.per_rows * j.across);
}
