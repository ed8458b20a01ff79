/*
 * Products of the way back. Both are the kernels' one product over panels, differently packed:
 *
 *   input   dx = dy W: lanes are inputs, the chain goes over outputs. Panels of W, whose lanes are
 *           outputs, are turned around into scratch first, GEMM_DEPTH rows at a time: rows × cols
 *           moves for rows × cols × n multiplications. Other weights than F32 are decoded there.
 *   weight  dW = dyᵀ x: lanes are outputs, so dy lies right as it is; it is only copied, a block of
 *           tokens at a time, to lie without gaps. The gradient is made of panels as the weight is.
 *
 * For weights with copies in BF16 (weight_halve) both are products of BF16 pairs: of outputs, and
 * of tokens. The chain of such a product takes the second of a pair, then the first
 * (kernels/kern.h), so the later token is put first: then a gradient is one chain over ascending
 * tokens whatever pairs they make, and calls may begin anywhere. What an odd last token is paired
 * with adds −0, which changes nothing, not even a zero.
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
    bool pairs;
    struct gemm_rows dx, dy;
    size_t n, r0, rows; /* rows [r0, r0 + rows) of w are turned around */
    size_t tokens;      /* of a chunk */
    float *turned;      /* (panels of columns, `rows` rounded up to 16, 16), or pairs of rows */
    uint32_t *halves;   /* per worker: pairs of a chunk's dy (tokens, GEMM_DEPTH / 2) */
    uint8_t *made;      /* per worker: a row in its type's form, and decoded */
    size_t made_bytes, row_bytes;
};

static size_t input_step(const struct input_job *j)
{
    return num_round_up(j->rows, KERN_ROWS) * KERN_ROWS / (j->pairs ? 2 : 1);
}

/* Columns [k, k + 16) of a panel of 16 rows. */
static void input_turn_square(const struct input_job *j, float *to, const float *from)
{
    float rows[GEMM_SQUARE];
    if (!j->pairs) {
        j->kern->transpose(to, 16, from, KERN_ROWS);
        return;
    }
    j->kern->transpose(rows, 16, from, KERN_ROWS);
    for (size_t i = 0; i < KERN_ROWS; i += 2, to += 16)
        j->kern->pairs((uint32_t *)(void *)to, rows + i * 16, rows + (i + 1) * 16, 16);
}

/* 16 rows of F32 panels. */
static void input_turn_panel(const struct input_job *j, const float *panels, size_t r)
{
    size_t cols = j->w->cols, whole = cols / 16 * 16;
    const float *panel = panels + (j->r0 + r) * cols;
    float *to = j->turned + r * KERN_ROWS / (j->pairs ? 2 : 1);
    for (size_t k = 0; k < whole; k += 16, to += input_step(j))
        input_turn_square(j, to, panel + k * KERN_ROWS);
    if (whole < cols) {
        float last[GEMM_SQUARE] = {0};
        memcpy(last, panel + whole * KERN_ROWS, (cols - whole) * KERN_ROWS * sizeof *last);
        input_turn_square(j, to, last);
    }
}

static void input_turn(void *arg, size_t chunk, int worker)
{
    const struct input_job *j = arg;
    size_t r = chunk * KERN_ROWS, cols = j->w->cols;
    if (j->pairs || (j->w->type->id == QUANT_F32 && j->w->panels)) {
        input_turn_panel(j, j->pairs ? j->w->own : (const float *)(const void *)j->w->panels, r);
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

/* Rows [t, t + n) of dy in pairs of outputs. */
static const uint32_t *input_halves(const struct input_job *j, size_t t, size_t n, int worker)
{
    uint32_t *first = j->halves + (size_t)worker * j->tokens * (GEMM_DEPTH / 2), *to = first;
    for (size_t end = t + n; t < end; t++, to += GEMM_DEPTH / 2) {
        uint16_t *half = (uint16_t *)(void *)to;
        j->kern->f32_to_bf16(half, j->dy.data + t * j->dy.ld + j->r0, j->rows);
        if (j->rows % 2)
            half[j->rows] = 0;
    }
    return first;
}

static void input_tokens(void *arg, size_t chunk, int worker)
{
    const struct input_job *j = arg;
    size_t t = chunk * j->tokens;
    struct kern_gemm g = {.w = j->turned,
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
                          .more = true};
    if (!j->pairs) {
        j->kern->gemm(&g);
        return;
    }
    g.x = input_halves(j, t, g.cols, worker);
    g.x_col = GEMM_DEPTH / 2;
    g.k = (j->rows + 1) / 2;
    j->kern->gemm_pairs(&g);
}

void gemm_back_input(struct op_ctx *c, struct gemm_rows dx, struct gemm_rows dy, size_t n,
                     const struct weight *w)
{
    size_t mark = c->used, deep = num_round_up(num_min(w->rows, GEMM_DEPTH), KERN_ROWS);
    size_t threads = (size_t)team_threads(c->team);
    struct input_job j = {
        .kern = c->kern, .w = w, .pairs = weight_halved(w), .dx = dx, .dy = dy, .n = n};
    j.row_bytes = num_round_up(w->row_bytes, 64);
    j.made_bytes = j.row_bytes + num_round_up(w->cols, 16) * sizeof(float);
    j.made = op_alloc(c, j.made_bytes * threads);
    j.turned = op_alloc(c, deep * num_round_up(w->cols, 16) * sizeof(float));
    /* Small batches still give each thread something. */
    j.tokens = num_min(GEMM_TOKENS, num_round_up((n + 4 * threads - 1) / (4 * threads), 12));
    if (j.pairs)
        j.halves = op_alloc(c, threads * j.tokens * (GEMM_DEPTH / 2) * sizeof *j.halves);
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
    void (*gemm)(const struct kern_gemm *g);
    const struct weight *w;
    size_t n; /* tokens, or pairs of them */
    struct gemm_rows dy, x;
    size_t per_rows, per_cols, across; /* of a chunk; chunks of the columns */

    struct gemm_rows from[2]; /* what pairs are made of: dy, x */
    uint32_t *half[2];        /* (n, width): they */
    size_t tokens, width[2], per;
};

/* Rows a and b (NULL: there is none), which follow one another, as pairs; `pad` instead of b. */
static void weight_pair(const struct kern *k, uint32_t *to, const float *a, const float *b,
                        size_t n, uint32_t pad)
{
    k->pairs(to, b ? b : a, b ? a : NULL, n);
    for (size_t i = 0; i < n && !b; i++)
        to[i] = to[i] << 16 | pad;
}

/* The first stage with pairs. */
static void weight_halves(void *arg, size_t chunk, int worker)
{
    const struct weight_job *j = arg;
    const size_t have[2] = {j->w->rows, j->w->cols};
    (void)worker;
    for (size_t p = chunk * j->per, end = num_min(j->n, p + j->per); p < end; p++)
        for (int i = 0; i < 2; i++) {
            const float *a = j->from[i].data + 2 * p * j->from[i].ld;
            const float *b = 2 * p + 1 < j->tokens ? a + j->from[i].ld : NULL;
            weight_pair(j->kern, j->half[i] + p * j->width[i], a, b, have[i], i ? 0 : 0x8000);
        }
}

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
    size_t rows = num_min(j->per_rows, j->w->rows - r), cols = num_min(j->per_cols, j->w->cols - c);
    for (size_t t = 0, n; t < j->n; t += n) {
        n = num_min(GEMM_DEEP, j->n - t);
        weight_pack(dy, j->dy.data + t * j->dy.ld + r, j->dy.ld, rows, n);
        j->gemm(&(struct kern_gemm){.w = dy,
                                    .w_panel = n * KERN_ROWS,
                                    .x = j->x.data + t * j->x.ld + c,
                                    .x_col = 1,
                                    .x_step = j->x.ld,
                                    .y = j->w->param->grad + r * j->w->cols + c * KERN_ROWS,
                                    .y_panel = j->w->cols * KERN_ROWS,
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

/* Room for pairs, which then stand for dy and x. */
static struct team_work weight_pairs(struct op_ctx *c, struct weight_job *j)
{
    j->gemm = c->kern->gemm_pairs;
    j->tokens = j->n;
    j->n = (j->n + 1) / 2;
    j->per = num_round_up(num_max(1, j->n / (4 * (size_t)team_threads(c->team))), 8);
    struct gemm_rows *rows[2] = {&j->dy, &j->x};
    for (int i = 0; i < 2; i++) {
        j->width[i] = num_round_up(i ? j->w->cols : j->w->rows, 16);
        j->half[i] = op_alloc(c, j->n * j->width[i] * sizeof *j->half[i]);
        j->from[i] = *rows[i];
        *rows[i] = (struct gemm_rows){(float *)(void *)j->half[i], j->width[i]};
    }
    return (struct team_work){weight_halves, j, (j->n + j->per - 1) / j->per, false};
}

void gemm_back_weight(struct op_ctx *c, const struct weight *w, struct gemm_rows dy,
                      struct gemm_rows x, size_t n)
{
    size_t mark = c->used;
    struct weight_job j = {
        .kern = c->kern, .gemm = c->kern->gemm, .w = w, .n = n, .dy = dy, .x = x};
    struct team_work first = {0};
    if (weight_halved(w))
        first = weight_pairs(c, &j);
    if (!c->dry && n && w->param) {
        j.per_rows = weight_part(w->rows, GEMM_ROWS, KERN_ROWS);
        j.per_cols = weight_part(w->cols, GEMM_COLS, 12);
        j.across = (w->cols + j.per_cols - 1) / j.per_cols;
        size_t chunks = (w->rows + j.per_rows - 1) / j.per_rows * j.across;
        team_run_after(c->team, &first, &(struct team_work){weight_chunk, &j, chunks, false});
    }
    c->used = mark;
}
