/*
 * Matrix products: op_linear, op_linears, op_linear_heads, op_swiglu.
 *
 * One parallel region computes all matrices that share an input. The input is prepared once (int8
 * per 32 or 256 values, BF16, or as it is), then chunks of rows go to the team; within a chunk the
 * kernel runs over all columns, so a chunk's weights are read from memory once. Which rows form a
 * chunk is a pure speed choice: each output is one chain over K (kernels/kern.h).
 *
 * Weights that are not packed: with a kernel, 16 rows at a time are packed into the worker's
 * scratch, or into the store where they belong (weight_panel), and the kernel runs over them, the
 * same bits as packed. Types without a kernel of their
 * own are decoded 16 rows at a time to an F32 panel, then the F32 kernel runs: slow for one column.
 */
#include "base/num.h"
#include "tensor/linear_impl.h"

#include <string.h>

enum {
    LINEAR_ROWS_MAX = 256, /* rows a chunk at most; a multiple of 16 */
    LINEAR_PAIRS = 32,     /* columns whose pairs are computed together */
    LINEAR_FEW = 8,        /* columns up to which memory is the limit, not arithmetic */
    SWIGLU_ROWS = 32,      /* of gate and of up: a chunk of op_swiglu with many columns */
};

/* ---- rows times columns ---------------------------------------------------------------------- */

enum kern_act linear_act(const struct kern *k, const struct weight *w, bool floats)
{
    enum kern_act act = k->mul[w->type->id].act;
    return act == KERN_ACT_NONE || (floats && act == KERN_ACT_BF16) ? KERN_ACT_F32 : act;
}

unsigned linear_form(const struct kern *k, const struct weight *w, bool floats)
{
    return 1u << linear_act(k, w, floats);
}

/* Floats of 16 rows in file form, when they have to be made first. */
static size_t linear_made_floats(const struct weight *w)
{
    return w->from.at ? 0 : num_round_up(w->row_bytes * KERN_ROWS, 64) / sizeof(float);
}

size_t linear_scratch(const struct kern *k, const struct weight *w)
{
    if (w->panels)
        return 0;
    size_t made = linear_made_floats(w);
    if (weight_has_kernel(k, w->type))
        return made + num_round_up(k->mul[w->type->id].panel_bytes(w->cols), 64) / sizeof(float);
    return made + 2 * num_round_up(w->cols, 16) * KERN_ROWS;
}

/*
 * The product with columns that come in pairs: y = value + remainder. In blocks of columns, whose
 * results fit on the stack.
 */
static void linear_pairs(const struct kern_mul *m, float *y, size_t ldy, const uint8_t *panels,
                         size_t rows, size_t k, const struct kern_x *x, size_t col0, size_t cols)
{
    float part[2 * LINEAR_PAIRS * LINEAR_ROWS_MAX];
    for (size_t c = 0; c < cols; c += LINEAR_PAIRS) {
        size_t n = num_min(LINEAR_PAIRS, cols - c);
        kern_product(m, part, rows, panels, rows, k, x, 2 * (col0 + c), 2 * n);
        for (size_t i = 0; i < n; i++)
            for (size_t r = 0; r < rows; r++)
                y[(c + i) * ldy + r] = part[2 * i * rows + r] + part[(2 * i + 1) * rows + r];
    }
}

/* Packed rows times columns; at most LINEAR_ROWS_MAX rows. */
static void linear_mul(const struct kern_mul *m, const struct linear_x *x, float *y, size_t ldy,
                       const uint8_t *panels, size_t rows, size_t k, size_t col0, size_t cols)
{
    const struct kern_x *form = &x->form[m->act - 1];
    if (x->floats && m->act == KERN_ACT_BF16)
        m->mul_f32(y, ldy, panels, rows, k, &x->form[KERN_ACT_F32 - 1], col0, cols);
    else if (x->fine && m->act != KERN_ACT_F32)
        linear_pairs(m, y, ldy, panels, rows, k, form, col0, cols);
    else
        kern_product(m, y, ldy, panels, rows, k, form, col0, cols);
}

/* One panel of a type with a kernel: packed where it was not at load. */
static void linear_lazy(const struct kern_mul *m, const struct linear_x *x, size_t col0,
                        size_t cols, const struct weight *w, size_t r, size_t n, float *y,
                        size_t ldy, float *scratch)
{
    const uint8_t *panel =
        weight_panel(w, m, r, n, (uint8_t *)scratch, (uint8_t *)(scratch + linear_made_floats(w)));
    linear_mul(m, x, y, ldy, panel, n, w->cols, col0, cols);
}

/* One panel of a type without a kernel: decoded to F32. */
static void linear_decoded(const struct kern *k, const struct kern_x *x, size_t col0, size_t cols,
                           const struct weight *w, size_t r, size_t n, float *y, size_t ldy,
                           float *scratch)
{
    const struct kern_mul *m = &k->mul[QUANT_F32];
    float *row = scratch + linear_made_floats(w);
    float *panel = row + num_round_up(w->cols, 16) * KERN_ROWS;
    weight_see(w, r, n, (uint8_t *)scratch);
    for (size_t i = 0; i < n; i++)
        weight_row(w, r + i, row + i * w->cols, (uint8_t *)scratch);
    m->pack((uint8_t *)panel, (const uint8_t *)row, w->cols * sizeof(float), n, w->cols);
    kern_product(m, y, ldy, (const uint8_t *)panel, n, w->cols, x, col0, cols);
}

void linear_rows(const struct kern *k, const struct linear_x *x, size_t col0, size_t cols,
                 const struct weight *w, size_t r0, size_t r1, float *y, size_t ldy, float *scratch)
{
    const struct kern_mul *m = &k->mul[w->type->id];
    const struct kern_x *form = &x->form[linear_act(k, w, x->floats) - 1];
    const uint8_t *panels = weight_panels(w);
    if (panels) {
        for (size_t r = r0; r < r1; r += LINEAR_ROWS_MAX)
            linear_mul(m, x, y + (r - r0), ldy, panels + r / KERN_ROWS * w->panel_bytes,
                       num_min(LINEAR_ROWS_MAX, r1 - r), w->cols, col0, cols);
        return;
    }
    weight_prefault(w, r0, r1);
    for (size_t r = r0; r < r1; r += KERN_ROWS) {
        size_t n = num_min(KERN_ROWS, r1 - r);
        if (m->act != KERN_ACT_NONE)
            linear_lazy(m, x, col0, cols, w, r, n, y + (r - r0), ldy, scratch);
        else
            linear_decoded(k, form, col0, cols, w, r, n, y + (r - r0), ldy, scratch);
    }
}

struct prepare_job {
    const struct kern *kern;
    struct kern_x *x;
    const float *data;
    size_t ldx, cols, per; /* columns of the input, and of a chunk */
    enum kern_act form;
    float *rest; /* (threads, k) for pairs; NULL: one column each */
};

static void prepare_quantize(const struct prepare_job *j, const float *data, size_t ldx,
                             size_t col0, size_t cols)
{
    if (j->form == KERN_ACT_Q32)
        j->kern->quantize_q32(j->x, data, ldx, col0, cols);
    else if (j->form == KERN_ACT_Q256)
        j->kern->quantize_q256(j->x, data, ldx, col0, cols);
    else
        j->kern->quantize_bf16(j->x, data, ldx, col0, cols);
}

/* What the int8 column `col` leaves of x. */
static void prepare_rest(const struct prepare_job *j, const float *x, size_t col, float *rest)
{
    size_t scaled = j->form == KERN_ACT_Q32 ? 1 : 8; /* blocks of 32 that share a scale */
    for (size_t b = 0; b * 32 < j->x->k; b++) {
        const int8_t *q = j->x->q + (b * j->x->cols + col) * 32;
        float d = j->x->d[b / scaled * j->x->cols + col];
        size_t n = num_min(32, j->x->k - b * 32);
        for (size_t i = 0; i < n; i++)
            rest[b * 32 + i] = x[b * 32 + i] - d * (float)q[i];
    }
}

/* As pairs: column 2c is column c of the input in int8, column 2c + 1 what rounding left of it. */
static void prepare_chunk(void *arg, size_t chunk, int worker)
{
    const struct prepare_job *j = arg;
    size_t c0 = chunk * j->per, n = num_min(j->per, j->cols - c0);
    if (!j->rest) {
        prepare_quantize(j, j->data, j->ldx, c0, n);
        return;
    }
    float *rest = j->rest + (size_t)worker * j->x->k;
    for (size_t c = c0; c < c0 + n; c++) {
        const float *x = j->data + c * j->ldx;
        prepare_quantize(j, x, 0, 2 * c, 1);
        prepare_rest(j, x, 2 * c, rest);
        prepare_quantize(j, rest, 0, 2 * c + 1, 1);
    }
}

void linear_prepare(struct op_ctx *c, struct linear_x *x, const float *data, size_t ldx, size_t k,
                    size_t cols, unsigned forms)
{
    memset(x, 0, sizeof *x);
    x->fine = x->floats = c->fine;
    x->form[KERN_ACT_F32 - 1] = (struct kern_x){.k = k, .cols = cols, .f = data, .ldf = ldx};
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_BF16; form++) {
        if (!(forms & 1u << form))
            continue;
        size_t wide = c->fine ? 2 * cols : cols;
        void *mem = op_alloc(c, kern_x_bytes((enum kern_act)form, k, wide));
        size_t mark = c->used;
        struct prepare_job j = {.kern = c->kern,
                                .x = &x->form[form - 1],
                                .data = data,
                                .ldx = ldx,
                                .cols = cols,
                                .per = cols,
                                .form = (enum kern_act)form};
        if (c->fine)
            j.rest = op_alloc(c, (size_t)team_threads(c->team) * k * sizeof(float));
        c->used = mark;
        if (c->dry || cols == 0) /* 0: a chunk of a prompt whose logits nobody wants */
            continue;
        kern_x_place(j.x, j.form, k, wide, mem);
        if (cols * k >= 32768)
            j.per = num_max(1, cols / ((size_t)team_threads(c->team) * 4));
        team_run(c->team, prepare_chunk, &j, (cols + j.per - 1) / j.per);
    }
}

/* With few columns chunks are larger: what a kernel fetches ahead of a chunk's end belongs to
   another thread. */
size_t linear_rows_chunk(const struct op_ctx *c, size_t rows, size_t cols)
{
    size_t per = rows / ((size_t)team_threads(c->team) * (cols <= LINEAR_FEW ? 4 : 8));
    per = num_round_up(num_max(per, 1), 2 * KERN_ROWS);
    return num_min(per, LINEAR_ROWS_MAX);
}

/* ---- ops --------------------------------------------------------------------------------------
 */

struct linear_mat {
    const struct weight *w;
    const struct linear_x *x;
    const float *bias; /* (rows) or NULL */
    float *y;
    size_t ldy;
    size_t chunk0; /* number of the matrix's first chunk */
};

struct linear_job {
    const struct kern *kern;
    size_t cols, rows_chunk, n;
    struct linear_mat *mat;
    float *scratch;
    size_t scratch_floats; /* of one worker */
};

static void linear_chunk(void *arg, size_t chunk, int worker)
{
    const struct linear_job *j = arg;
    size_t lo = 0, hi = j->n; /* the last matrix whose chunk0 ≤ chunk */
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        *(j->mat[mid].chunk0 <= chunk ? &lo : &hi) = mid;
    }
    const struct linear_mat *m = &j->mat[lo];
    size_t r0 = (chunk - m->chunk0) * j->rows_chunk;
    size_t r1 = num_min(m->w->rows, r0 + j->rows_chunk);
    linear_rows(j->kern, m->x, 0, j->cols, m->w, r0, r1, m->y + r0, m->ldy,
                j->scratch + (size_t)worker * j->scratch_floats);
    if (m->bias)
        for (size_t c = 0; c < j->cols; c++)
            j->kern->add(m->y + c * m->ldy + r0, m->bias + r0, r1 - r0);
}

/* Runs all matrices of the job as one region. In a dry run `mat` has no memory: `w` gives them. */
static void linear_run(struct op_ctx *c, struct linear_job *j)
{
    j->scratch = op_alloc(c, j->scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (c->dry || !j->cols)
        return;
    size_t rows = 0, chunks = 0;
    for (size_t i = 0; i < j->n; i++)
        rows += j->mat[i].w->rows;
    j->rows_chunk = linear_rows_chunk(c, rows, j->cols);
    for (size_t i = 0; i < j->n; i++) {
        j->mat[i].chunk0 = chunks;
        chunks += (j->mat[i].w->rows + j->rows_chunk - 1) / j->rows_chunk;
    }
    team_run_near(c->team, linear_chunk, j, chunks);
}

/* y += scale × b (a x), for a weight with an adapter. */
static void linear_adapt(struct op_ctx *c, struct tensor x, const struct weight *w, struct tensor y)
{
    const struct weight_lora *l = w->lora;
    if (!l)
        return;
    size_t mark = op_begin(c);
    struct tensor low = op_linear(c, x, &l->a, NULL);   /* (n, rank) */
    struct tensor add = op_linear(c, low, &l->b, NULL); /* (n, rows) */
    for (size_t r = 0; r < x.rows && !c->dry; r++)
        c->kern->merge(y.data + r * y.cols, 1, add.data + r * y.cols, l->scale, y.cols);
    if (!c->dry && x.rows)
        op_record(c, &(struct op_record){.kind = OP_LORA, .out = y, .in = {add}, .w = {w}});
    op_end(c, mark);
}

/* The input for a weight whose columns are in another order. */
static struct tensor linear_ordered(struct op_ctx *c, struct tensor x, const uint32_t *order)
{
    struct tensor y = op_tensor(c, x.rows, x.cols);
    for (size_t r = 0; r < x.rows && !c->dry; r++)
        for (size_t i = 0; i < x.cols; i++)
            y.data[r * x.cols + i] = x.data[r * x.cols + order[i]];
    return y;
}

void op_linears(struct op_ctx *c, struct tensor x, size_t count, const struct weight *const w[],
                const struct weight *const b[], struct tensor y[])
{
    struct linear_mat mat[OP_LINEARS];
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = count, .mat = mat};
    struct linear_x in, own[OP_LINEARS];
    unsigned forms = 0;
    for (size_t i = 0; i < count; i++) {
        y[i] = op_tensor(c, x.rows, w[i]->rows);
        mat[i] = (struct linear_mat){.w = w[i],
                                     .x = w[i]->order ? &own[i] : &in,
                                     .bias = b && b[i] ? b[i]->vec : NULL,
                                     .y = y[i].data,
                                     .ldy = y[i].cols};
        forms |= w[i]->order ? 0 : linear_form(c->kern, w[i], c->fine);
        j.scratch_floats = num_max(j.scratch_floats, linear_scratch(c->kern, w[i]));
    }
    size_t mark = c->used;
    linear_prepare(c, &in, x.data, x.cols, x.cols, x.rows, forms);
    for (size_t i = 0; i < count; i++) {
        if (!w[i]->order)
            continue;
        struct tensor z = linear_ordered(c, x, w[i]->order);
        linear_prepare(c, &own[i], z.data, z.cols, z.cols, z.rows,
                       linear_form(c->kern, w[i], c->fine));
    }
    linear_run(c, &j);
    for (size_t i = 0; i < count && !c->dry && x.rows; i++)
        op_record(c, &(struct op_record){
                         .kind = OP_LINEAR, .out = y[i], .in = {x}, .w = {w[i], b ? b[i] : NULL}});
    c->used = mark; /* the prepared input is never part of a record */
    for (size_t i = 0; i < count; i++)
        linear_adapt(c, x, w[i], y[i]);
}

struct tensor op_linear(struct op_ctx *c, struct tensor x, const struct weight *w,
                        const struct weight *b)
{
    struct tensor y;
    op_linears(c, x, 1, &w, &b, &y);
    return y;
}

struct tensor op_linear_heads(struct op_ctx *c, struct tensor x, size_t heads,
                              const struct weight *w)
{
    size_t in = x.cols / heads, more = in - w->cols, out = w->rows + more;
    struct tensor y = op_tensor(c, x.rows, heads * out);
    size_t mark = c->used;
    struct linear_mat *mat = op_alloc(c, heads * sizeof *mat);
    struct linear_x *xs = op_alloc(c, heads * sizeof *xs), dry;
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = heads, .mat = mat};
    for (size_t h = 0; h < heads; h++) {
        j.scratch_floats = num_max(j.scratch_floats, linear_scratch(c->kern, &w[h]));
        linear_prepare(c, c->dry ? &dry : &xs[h], c->dry ? NULL : x.data + h * in, x.cols, w->cols,
                       x.rows, linear_form(c->kern, &w[h], c->fine));
        if (c->dry)
            continue;
        mat[h] = (struct linear_mat){.w = &w[h], .x = &xs[h], .y = y.data + h * out, .ldy = y.cols};
        for (size_t t = 0; t < x.rows && more; t++)
            memcpy(y.data + t * y.cols + h * out + w->rows, x.data + t * x.cols + h * in + w->cols,
                   more * sizeof(float));
    }
    linear_run(c, &j);
    if (!c->dry && x.rows)
        op_record(c, &(struct op_record){
                         .kind = OP_LINEAR_HEADS, .out = y, .in = {x}, .w = {w}, .heads = heads});
    c->used = mark;
    return y;
}

struct swiglu_job {
    const struct kern *kern;
    const struct linear_x *x;
    size_t cols, rows_chunk;
    const struct weight *gate, *up;
    struct tensor y;
    float *scratch;
    size_t scratch_floats;
};

static void swiglu_chunk(void *arg, size_t chunk, int worker)
{
    const struct swiglu_job *j = arg;
    size_t per = j->rows_chunk, r0 = chunk * per, r1 = num_min(j->gate->rows, r0 + per);
    float *g = j->scratch + (size_t)worker * j->scratch_floats;
    float *u = g + j->cols * per, *tmp = u + j->cols * per;
    linear_rows(j->kern, j->x, 0, j->cols, j->gate, r0, r1, g, per, tmp);
    linear_rows(j->kern, j->x, 0, j->cols, j->up, r0, r1, u, per, tmp);
    for (size_t c = 0; c < j->cols; c++)
        j->kern->swiglu(j->y.data + c * j->y.cols + r0, g + c * per, u + c * per, r1 - r0);
}

struct tensor op_linear_each(struct op_ctx *c, struct tensor x, size_t heads,
                             const struct weight *w)
{
    struct tensor y = op_tensor(c, x.rows, heads * w->rows);
    size_t mark = c->used;
    struct linear_mat *mat = op_alloc(c, heads * sizeof *mat);
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = heads, .mat = mat};
    struct linear_x in;
    unsigned forms = 0;
    for (size_t h = 0; h < heads; h++) {
        forms |= linear_form(c->kern, &w[h], c->fine);
        j.scratch_floats = num_max(j.scratch_floats, linear_scratch(c->kern, &w[h]));
        if (!c->dry)
            mat[h] =
                (struct linear_mat){.w = &w[h], .x = &in, .y = y.data + h * w->rows, .ldy = y.cols};
    }
    linear_prepare(c, &in, x.data, x.cols, x.cols, x.rows, forms);
    linear_run(c, &j);
    c->used = mark;
    return y;
}

/* With adapters, or inputs in an order of their own, the two products are made whole before they
 * meet.
 */
static struct tensor swiglu_apart(struct op_ctx *c, struct tensor x, const struct weight *gate,
                                  const struct weight *up)
{
    const struct weight *w[] = {gate, up};
    struct tensor y = op_tensor(c, x.rows, gate->rows), part[2];
    size_t mark = op_begin(c);
    op_linears(c, x, 2, w, NULL, part);
    for (size_t r = 0; r < x.rows && !c->dry; r++)
        c->kern->swiglu(y.data + r * y.cols, part[0].data + r * y.cols, part[1].data + r * y.cols,
                        y.cols);
    if (!c->dry && x.rows)
        op_record(c, &(struct op_record){.kind = OP_GLU, .out = y, .in = {part[0], part[1]}});
    op_end(c, mark);
    return y;
}

struct tensor op_swiglu(struct op_ctx *c, struct tensor x, const struct weight *gate,
                        const struct weight *up)
{
    if (gate->lora || up->lora || gate->order || up->order)
        return swiglu_apart(c, x, gate, up);
    struct linear_x in;
    struct swiglu_job j = {.kern = c->kern,
                           .x = &in,
                           .cols = x.rows,
                           .rows_chunk = SWIGLU_ROWS,
                           .gate = gate,
                           .up = up,
                           .y = op_tensor(c, x.rows, gate->rows)};
    size_t mark = c->used;
    linear_prepare(c, &in, x.data, x.cols, x.cols, x.rows,
                   linear_form(c->kern, gate, c->fine) | linear_form(c->kern, up, c->fine));
    if (x.rows <= LINEAR_FEW)
        j.rows_chunk = linear_rows_chunk(c, gate->rows, x.rows);
    /* Never less than fewer columns take: a dry run plans with the most. */
    j.scratch_floats =
        2 * num_max(x.rows * SWIGLU_ROWS, num_min(x.rows, LINEAR_FEW) * LINEAR_ROWS_MAX) +
        num_max(linear_scratch(c->kern, gate), linear_scratch(c->kern, up));
    j.scratch_floats = num_round_up(j.scratch_floats, 16);
    j.scratch = op_alloc(c, j.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (!c->dry && x.rows) {
        team_run_near(c->team, swiglu_chunk, &j, (gate->rows + j.rows_chunk - 1) / j.rows_chunk);
        op_record(c,
                  &(struct op_record){.kind = OP_SWIGLU, .out = j.y, .in = {x}, .w = {gate, up}});
    }
    c->used = mark;
    return j.y;
}
