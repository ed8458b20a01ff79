/*
 * Matrix products: op_linear, op_linears, op_swiglu.
 *
 * One parallel region computes all matrices that share an input. The input is prepared once (int8
 * per 32 or 256 values, or as it is), then chunks of rows go to the team; within a chunk the kernel
 * runs over all columns, so a chunk's weights are read from memory once. Which rows form a chunk is
 * a pure speed choice: each output is one chain over K (kernels/kern.h).
 *
 * Types without a kernel of their own: 16 rows at a time are decoded to an F32 panel in the
 * worker's scratch, then the F32 kernel runs. Right everywhere, and slow for one column.
 */
#include "base/num.h"
#include "tensor/ops.h"

#include <string.h>

enum {
    LINEAR_ROWS_MAX = 256, /* rows a chunk at most; a multiple of 16 */
    SWIGLU_ROWS = 32,      /* of gate and of up: a chunk of op_swiglu */
};

struct linear_mat {
    const struct weight *w;
    const float *bias; /* (rows) or NULL */
    float *y;
    size_t ldy;
    size_t chunk0; /* number of the matrix's first chunk */
};

struct linear_job {
    const struct kern *kern;
    struct kern_x x[3]; /* by form: KERN_ACT_F32, Q32, Q256 (minus one) */
    size_t cols, rows_chunk, n;
    struct linear_mat mat[OP_LINEARS];
    float *scratch;        /* per worker: swiglu parts, decoded panels */
    size_t scratch_floats; /* of one worker */
    /* quantization of x */
    const float *xf;
    size_t ldx, per;
    int form;
};

static enum kern_act linear_act(const struct kern *k, const struct weight *w)
{
    return w->panels ? k->mul[w->type->id].act : KERN_ACT_F32;
}

/* rows [r0, r1) of w times all columns into y[c * ldy + r - r0]. r0 is a multiple of 16. */
static void linear_rows(const struct linear_job *j, const struct weight *w, size_t r0, size_t r1,
                        float *y, size_t ldy, float *scratch)
{
    if (w->panels) {
        const struct kern_mul *m = &j->kern->mul[w->type->id];
        m->mul(y, ldy, w->panels + r0 / KERN_ROWS * w->panel_bytes, r1 - r0, w->cols,
               &j->x[m->act - 1], 0, j->cols);
        return;
    }
    const struct kern_mul *m = &j->kern->mul[QUANT_F32];
    float *row = scratch, *panel = scratch + num_round_up(w->cols, 16) * KERN_ROWS;
    for (size_t r = r0; r < r1; r += KERN_ROWS) {
        size_t n = num_min(KERN_ROWS, r1 - r);
        for (size_t i = 0; i < n; i++)
            weight_row(w, r + i, row + i * w->cols);
        m->pack((uint8_t *)panel, (const uint8_t *)row, w->cols * sizeof(float), n, w->cols);
        m->mul(y + (r - r0), ldy, (const uint8_t *)panel, n, w->cols, &j->x[KERN_ACT_F32 - 1], 0,
               j->cols);
    }
}

static size_t linear_decode_floats(const struct weight *w)
{
    return w->panels ? 0 : num_round_up(w->cols, 16) * KERN_ROWS * 2;
}

static void linear_chunk(void *arg, size_t chunk, int worker)
{
    const struct linear_job *j = arg;
    size_t i = j->n - 1;
    while (chunk < j->mat[i].chunk0)
        i--;
    const struct linear_mat *m = &j->mat[i];
    size_t r0 = (chunk - m->chunk0) * j->rows_chunk;
    size_t r1 = num_min(m->w->rows, r0 + j->rows_chunk);
    linear_rows(j, m->w, r0, r1, m->y + r0, m->ldy,
                j->scratch + (size_t)worker * j->scratch_floats);
    if (m->bias)
        for (size_t c = 0; c < j->cols; c++)
            j->kern->add(m->y + c * m->ldy + r0, m->bias + r0, r1 - r0);
}

static void swiglu_chunk(void *arg, size_t chunk, int worker)
{
    const struct linear_job *j = arg;
    const struct weight *gate = j->mat[0].w, *up = j->mat[1].w;
    size_t r0 = chunk * SWIGLU_ROWS, r1 = num_min(gate->rows, r0 + SWIGLU_ROWS);
    float *g = j->scratch + (size_t)worker * j->scratch_floats;
    float *u = g + j->cols * SWIGLU_ROWS, *tmp = u + j->cols * SWIGLU_ROWS;
    linear_rows(j, gate, r0, r1, g, SWIGLU_ROWS, tmp);
    linear_rows(j, up, r0, r1, u, SWIGLU_ROWS, tmp);
    for (size_t c = 0; c < j->cols; c++)
        j->kern->swiglu(j->mat[0].y + c * j->mat[0].ldy + r0, g + c * SWIGLU_ROWS,
                        u + c * SWIGLU_ROWS, r1 - r0);
}

static void quantize_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    struct linear_job *j = arg;
    struct kern_x *x = &j->x[j->form - 1];
    size_t c0 = chunk * j->per, n = num_min(j->per, x->cols - c0);
    (j->form == KERN_ACT_Q32 ? j->kern->quantize_q32 : j->kern->quantize_q256)(x, j->xf, j->ldx, c0,
                                                                               n);
}

/* Prepares the input in the forms that the weights read. Parallel when it is large. */
static void linear_input(struct op_ctx *c, struct linear_job *j, struct tensor x)
{
    bool need[4] = {false};
    for (size_t i = 0; i < j->n; i++)
        need[linear_act(c->kern, j->mat[i].w)] = true;
    j->x[0] = (struct kern_x){.k = x.cols, .cols = x.rows, .f = x.data, .ldf = x.cols};
    j->xf = x.data;
    j->ldx = x.cols;
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_Q256; form++) {
        if (!need[form])
            continue;
        void *mem = op_alloc(c, kern_x_bytes((enum kern_act)form, x.cols, x.rows));
        if (c->dry)
            continue;
        if (x.rows == 0) /* a chunk of a prompt whose logits nobody wants */
            continue;
        kern_x_place(&j->x[form - 1], (enum kern_act)form, x.cols, x.rows, mem);
        j->form = form;
        j->per = x.rows;
        if (x.rows * x.cols >= 32768)
            j->per = num_max(1, x.rows / ((size_t)team_threads(c->team) * 4));
        team_run(c->team, quantize_chunk, j, (x.rows + j->per - 1) / j->per);
    }
}

/* Rows of a chunk: small enough that threads finish together, large enough that a chunk is worth
 * taking. */
static size_t linear_rows_chunk(const struct op_ctx *c, size_t rows)
{
    size_t per = rows / ((size_t)team_threads(c->team) * 8);
    per = num_round_up(num_max(per, 1), 2 * KERN_ROWS);
    return num_min(per, LINEAR_ROWS_MAX);
}

void op_linears(struct op_ctx *c, struct tensor x, size_t count, const struct weight *const w[],
                const struct weight *const b[], struct tensor y[])
{
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = count};
    size_t rows = 0, chunks = 0;
    for (size_t i = 0; i < count; i++) {
        y[i] = op_tensor(c, x.rows, w[i]->rows);
        j.mat[i] = (struct linear_mat){
            .w = w[i], .bias = b && b[i] ? b[i]->vec : NULL, .y = y[i].data, .ldy = y[i].cols};
        rows += w[i]->rows;
        j.scratch_floats = num_max(j.scratch_floats, linear_decode_floats(w[i]));
    }
    size_t mark = c->used;
    linear_input(c, &j, x);
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    j.rows_chunk = linear_rows_chunk(c, rows);
    for (size_t i = 0; i < count; i++) {
        j.mat[i].chunk0 = chunks;
        chunks += (w[i]->rows + j.rows_chunk - 1) / j.rows_chunk;
    }
    if (!c->dry && x.rows) {
        team_run(c->team, linear_chunk, &j, chunks);
        for (size_t i = 0; i < count; i++)
            op_record(c,
                      &(struct op_record){
                          .kind = OP_LINEAR, .out = y[i], .in = {x}, .w = {w[i], b ? b[i] : NULL}});
    }
    c->used = mark; /* the prepared input is never part of a record */
}

struct tensor op_linear(struct op_ctx *c, struct tensor x, const struct weight *w,
                        const struct weight *b)
{
    struct tensor y;
    op_linears(c, x, 1, &w, &b, &y);
    return y;
}

struct tensor op_swiglu(struct op_ctx *c, struct tensor x, const struct weight *gate,
                        const struct weight *up)
{
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = 2};
    struct tensor y = op_tensor(c, x.rows, gate->rows);
    j.mat[0] = (struct linear_mat){.w = gate, .y = y.data, .ldy = y.cols};
    j.mat[1] = (struct linear_mat){.w = up};
    size_t mark = c->used;
    linear_input(c, &j, x);
    j.scratch_floats =
        2 * x.rows * SWIGLU_ROWS + num_max(linear_decode_floats(gate), linear_decode_floats(up));
    j.scratch_floats = num_round_up(j.scratch_floats, 16);
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (!c->dry && x.rows) {
        team_run(c->team, swiglu_chunk, &j, (gate->rows + SWIGLU_ROWS - 1) / SWIGLU_ROWS);
        op_record(c, &(struct op_record){.kind = OP_SWIGLU, .out = y, .in = {x}, .w = {gate, up}});
    }
    c->used = mark;
    return y;
}
