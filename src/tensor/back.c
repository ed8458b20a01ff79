/*
 * Backward passes of ops without a matrix product. See tape_impl.h.
 *
 *   rmsnorm   y = x r w,  r = (mean x² + eps)^−½:
 *             dx = r (w dy − x r² · mean(w dy x)),  dw = Σ dy x r over rows
 *   rope      a rotation (times a magnitude) by an angle; its transpose turns by the negative one
 *   glu       y = silu(g) u, silu(g) = g σ(g):  dg = dy u σ (1 + g (1 − σ)),  du = dy g σ
 */
#include "tensor/dropout.h"
#include "tensor/tape_impl.h"

#include "base/num.h"

#include <string.h>

/* ---- rows of a table ------------------------------------------------------------------------- */

struct embed_job {
    const struct op_record *r;
    const float *dy;
    float *grad;
};

/* Columns [c0, c1) of all tokens, in their order: a token may come more than once. */
static void embed_columns(const void *arg, size_t c0, size_t c1, int worker)
{
    const struct embed_job *j = arg;
    size_t cols = j->r->out.cols;
    (void)worker;
    for (size_t t = 0; t < j->r->out.rows; t++) {
        size_t row = (size_t)j->r->ids[t];
        float *g = j->grad + row / KERN_ROWS * KERN_ROWS * cols + row % KERN_ROWS;
        for (size_t c = c0; c < c1; c++)
            g[c * KERN_ROWS] += j->dy[t * cols + c];
    }
}

void back_embed(struct tape *t, const struct op_record *r)
{
    const struct weight_param *p = r->w[0]->param;
    if (!p)
        return;
    struct embed_job j = {r, tape_given(t, r->out), p->grad};
    tape_rows(t, r->out.cols, r->out.rows, (struct tape_job){embed_columns, &j});
}

struct pick_job {
    const struct op_record *r;
    const float *dy;
    float *dx;
};

static void pick_columns(const void *arg, size_t c0, size_t c1, int worker)
{
    const struct pick_job *j = arg;
    size_t cols = j->r->out.cols;
    (void)worker;
    for (size_t i = 0; i < j->r->out.rows; i++)
        for (size_t c = c0; c < c1; c++)
            j->dx[j->r->rows[i] * cols + c] += j->dy[i * cols + c];
}

void back_rows(struct tape *t, const struct op_record *r)
{
    struct pick_job j = {r, tape_given(t, r->out), tape_grad(t, r->in[0])};
    tape_rows(t, r->out.cols, r->out.rows, (struct tape_job){pick_columns, &j});
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* `heads` pieces of d values of each row, `ld` values apart from the next row's. */
struct norm_job {
    const struct kern *kern;
    const float *x, *dy, *w;
    float *dx, *dw, *rs; /* rs: r of each piece */
    size_t rows, heads, d, ld;
    float eps;
};

static void norm_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct norm_job *j = arg;
    (void)worker;
    for (size_t i = r0 * j->heads; i < r1 * j->heads; i++) {
        size_t at = i / j->heads * j->ld + i % j->heads * j->d;
        j->rs[i] = j->kern->rmsnorm_back(j->dx + at, j->dy + at, j->x + at, j->w, j->d, j->eps);
    }
}

static void norm_columns(const void *arg, size_t c0, size_t c1, int worker)
{
    const struct norm_job *j = arg;
    (void)worker;
    for (size_t i = 0; i < j->rows * j->heads; i++) {
        size_t at = i / j->heads * j->ld + i % j->heads * j->d;
        j->kern->scaled(j->dw + c0, j->dy + at + c0, j->x + at + c0, j->rs[i], c1 - c0);
    }
}

static void norm_run(struct tape *t, struct norm_job *j, const struct weight *w)
{
    j->kern = t->c->kern;
    j->w = w->vec;
    j->rs = tape_alloc(t, j->rows * j->heads * sizeof *j->rs);
    if (!j->rs)
        return;
    tape_rows(t, j->rows, 4 * j->heads * j->d, (struct tape_job){norm_rows, j});
    if (!w->param)
        return;
    j->dw = w->param->grad;
    tape_rows(t, j->d, 2 * j->rows * j->heads, (struct tape_job){norm_columns, j});
}

void back_norm(struct tape *t, const struct op_record *r)
{
    struct norm_job j = {.x = r->in[0].data,
                         .dy = tape_given(t, r->out),
                         .dx = tape_grad(t, r->in[0]),
                         .rows = r->out.rows,
                         .heads = r->kind == OP_HEAD_NORM ? r->heads : 1,
                         .ld = r->out.cols,
                         .eps = r->eps};
    j.d = j.ld / j.heads;
    norm_run(t, &j, r->w[0]);
}

/* ---- rotation -------------------------------------------------------------------------------- */

struct turn_job {
    const struct kern *kern;
    const float *dy, *table;
    float *dx, *tmp; /* tmp: per worker, a row of the table and rotated values */
    size_t ld, heads, d, at, d_rope;
    bool half, others; /* others: what is not rotated is passed on */
};

static void turn_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct turn_job *j = arg;
    size_t pad = num_round_up(j->d_rope, 16);
    float *cs = j->tmp + (size_t)worker * 2 * pad, *v = cs + pad;
    for (size_t r = r0; r < r1; r++) {
        for (size_t i = 0; i < j->d_rope; i++)
            cs[i] = i % 2 ? -j->table[r * j->d_rope + i] : j->table[r * j->d_rope + i];
        for (size_t h = 0; h < j->heads; h++) {
            const float *dy = j->dy + r * j->ld + h * j->d;
            float *dx = j->dx + r * j->ld + h * j->d;
            memcpy(v, dy + j->at, j->d_rope * sizeof *v);
            j->kern->rope(v, cs, j->d_rope, j->half);
            j->kern->add(dx + j->at, v, j->d_rope);
            if (!j->others)
                continue;
            j->kern->add(dx, dy, j->at);
            size_t end = j->at + j->d_rope;
            j->kern->add(dx + end, dy + end, j->d - end);
        }
    }
}

static void turn_run(struct tape *t, const struct op_record *r, struct turn_job *j)
{
    j->kern = t->c->kern;
    j->dy = tape_given(t, r->out);
    j->dx = tape_grad(t, r->in[0]);
    j->table = r->in[1].data;
    j->d_rope = r->in[1].cols;
    j->ld = r->out.cols;
    j->half = r->half;
    j->tmp = tape_alloc(t, (size_t)team_threads(t->c->team) * 2 * num_round_up(j->d_rope, 16) *
                               sizeof(float));
    if (j->tmp)
        tape_rows(t, r->out.rows, 2 * j->ld, (struct tape_job){turn_rows, j});
}

void back_rope(struct tape *t, const struct op_record *r)
{
    struct turn_job j = {
        .heads = r->heads, .d = r->out.cols / r->heads, .at = r->at, .others = true};
    turn_run(t, r, &j);
}

void back_latent(struct tape *t, const struct op_record *r)
{
    struct turn_job j = {.heads = 1, .d = r->out.cols, .at = r->w[0]->cols};
    turn_run(t, r, &j);
    struct norm_job n = {.x = r->in[0].data,
                         .dy = tape_given(t, r->out),
                         .dx = tape_grad(t, r->in[0]),
                         .rows = r->out.rows,
                         .heads = 1,
                         .d = r->w[0]->cols,
                         .ld = r->out.cols,
                         .eps = r->eps};
    norm_run(t, &n, r->w[0]);
}

/* ---- side by side, sums ---------------------------------------------------------------------- */

void back_concat(struct tape *t, const struct op_record *r)
{
    const float *dy = tape_given(t, r->out);
    struct tensor x = r->in[0], y = r->in[1];
    tape_add(t, tape_grad(t, x), x.cols, dy, r->out.cols, x.rows, x.cols);
    tape_add(t, tape_grad(t, y), y.cols, dy + x.cols, r->out.cols, y.rows, y.cols);
}

void back_add(struct tape *t, const struct op_record *r)
{
    const float *dy = tape_given(t, r->out);
    for (size_t i = 0; i < 2; i++) {
        struct tensor x = r->in[i];
        tape_add(t, tape_grad(t, x), x.cols, dy, x.cols, x.rows, x.cols);
    }
}

/* ---- gated units ----------------------------------------------------------------------------- */

struct glu_job {
    const struct kern *kern;
    struct tensor gate, up;
    const float *dy;
    float *dgate, *dup, *tmp;
    size_t pad;
};

static void glu_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct glu_job *j = arg;
    size_t n = j->gate.cols;
    float *g = j->tmp + (size_t)worker * 2 * j->pad, *u = g + j->pad;
    for (size_t r = r0; r < r1; r++) {
        j->kern->swiglu_back(g, u, j->dy + r * n, j->gate.data + r * n, j->up.data + r * n, n);
        j->kern->add(j->dgate + r * n, g, n);
        j->kern->add(j->dup + r * n, u, n);
    }
}

void back_glu(struct tape *t, const struct op_record *r)
{
    struct glu_job j = {.kern = t->c->kern,
                        .gate = r->in[0],
                        .up = r->in[1],
                        .dy = tape_given(t, r->out),
                        .dgate = tape_grad(t, r->in[0]),
                        .dup = tape_grad(t, r->in[1]),
                        .pad = num_round_up(r->out.cols, 16)};
    j.tmp = tape_alloc(t, (size_t)team_threads(t->c->team) * 2 * j.pad * sizeof(float));
    if (j.tmp)
        tape_rows(t, r->out.rows, 8 * r->out.cols, (struct tape_job){glu_rows, &j});
}

/* ---- adapters -------------------------------------------------------------------------------- */

struct scale_job {
    const struct kern *kern;
    const float *dy;
    float *dx, scale;
    size_t cols;
};

static void scale_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct scale_job *j = arg;
    (void)worker;
    for (size_t r = r0; r < r1; r++)
        j->kern->axpy(j->dx + r * j->cols, j->scale, j->dy + r * j->cols, j->cols);
}

/* y += scale × add: y's own gradient stays what it is for the product below. */
void back_lora(struct tape *t, const struct op_record *r)
{
    struct scale_job j = {t->c->kern, tape_given(t, r->out), tape_grad(t, r->in[0]),
                          r->w[0]->lora->scale, r->out.cols};
    tape_rows(t, r->out.rows, r->out.cols, (struct tape_job){scale_rows, &j});
}

void back_dropout(struct tape *t, const struct op_record *r)
{
    float *dx = tape_grad(t, r->in[0]);
    if (dx)
        dropout_back(t->c, dx, tape_given(t, r->out), r->out.rows, r->w[0]);
}
