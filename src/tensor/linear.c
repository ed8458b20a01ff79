/*
 * Matrix products, alone and with what goes before and after them: op_linears, op_linear_heads,
 * op_swiglu, op_norm_linears, op_linear_add, op_ffn.
 *
 * One parallel region computes all matrices that share an input. The input is prepared once (int8
 * per 32 or 256 values, BF16, or as it is), then chunks of rows go to the team; within a chunk the
 * kernel runs over all columns, so a chunk's weights are read from memory once. Which rows form a
 * chunk is a pure speed choice: each output is one chain over K (kernels/kern.h).
 *
 * Preparing the input (linear_fill.c) is the first stage of the region, and may take the norm with
 * it. A product that is added to something never exists whole: a chunk computes a block of columns
 * into the worker's scratch and adds them.
 *
 * Weights that are not packed: with a kernel, 16 rows at a time are packed into the worker's
 * scratch, or into the store where they belong (weight_panel), and the kernel runs over them, the
 * same bits as packed. Types without a kernel of their
 * own are decoded 16 rows at a time to an F32 panel, then the F32 kernel runs: slow for one column.
 */
#include "base/num.h"
#include "tensor/dropout.h"
#include "tensor/linear_impl.h"

#include <string.h>

enum {
    LINEAR_ROWS_MAX = 256, /* rows a chunk at most; a multiple of 16 */
    LINEAR_PAIRS = 32,     /* columns whose pairs are computed together */
    LINEAR_FEW = 8,        /* columns up to which memory is the limit, not arithmetic */
    LINEAR_COLS = 96,      /* columns of a product that is not kept: they stay in cache */
    LINEAR_TILE = 12,      /* columns of whole register tiles, of 4, 6 or 12 */
    FFN_ROWS = 256,        /* of gate and of up: a chunk that quantizes what it makes */
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
    if (w->panels || (w->pending && w->pending->mapped))
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
    const uint8_t *panels = weight_panels_of(w, r0, r1);
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

/* With few columns chunks are larger: what a kernel fetches ahead of a chunk's end belongs to
   another thread. */
size_t linear_rows_chunk(const struct op_ctx *c, size_t rows, size_t cols)
{
    size_t per = rows / ((size_t)team_threads(c->team) * (cols <= LINEAR_FEW ? 4 : 16));
    per = num_round_up(num_max(per, 1), 2 * KERN_ROWS);
    return num_min(per, LINEAR_ROWS_MAX);
}

/* ---- ops --------------------------------------------------------------------------------------
 */

struct linear_mat {
    const struct weight *w;
    const struct linear_x *x;
    const float *bias; /* (rows) or NULL */
    float *y;          /* the product, or NULL when it goes nowhere but into `sum` */
    size_t ldy;        /* of y, sum and total */
    float *sum;        /* sum += product, or NULL */
    float *total;      /* then total += sum, or NULL */
    size_t chunk0;     /* number of the matrix's first chunk */
};

struct linear_job {
    const struct kern *kern;
    size_t cols, rows_chunk, n;
    struct linear_mat *mat;
    float *scratch;
    size_t scratch_floats, products; /* of one worker; where products begin that are not kept */
};

/* Where block i of `blocks` blocks of columns begins: in even blocks of whole tiles, but for the
   last. None has more than cols / blocks rounded up to whole tiles. */
static size_t linear_block(size_t cols, size_t i, size_t blocks)
{
    return i < blocks ? num_min(cols, num_round_up(cols * i / blocks, LINEAR_TILE)) : cols;
}

/* Rows [r0, r1) of a product into its sums, at most `most` columns at a time. */
static void linear_chunk_sum(const struct linear_job *j, const struct linear_mat *m, size_t r0,
                             size_t r1, size_t most, float *scratch)
{
    float *part = scratch + j->products;
    size_t rows = r1 - r0, blocks = (j->cols + most - 1) / most;
    for (size_t b = 0, c0 = 0, n; b < blocks; b++, c0 += n) {
        n = linear_block(j->cols, b + 1, blocks) - c0;
        linear_rows(j->kern, m->x, c0, n, m->w, r0, r1, part, rows, scratch);
        for (size_t c = 0; c < n; c++) {
            float *sum = m->sum + (c0 + c) * m->ldy + r0;
            if (m->bias)
                j->kern->add(part + c * rows, m->bias + r0, rows);
            j->kern->add(sum, part + c * rows, rows);
            if (m->total)
                j->kern->add(m->total + (c0 + c) * m->ldy + r0, sum, rows);
        }
    }
}

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
    size_t r1 = num_min(m->w->rows, r0 + j->rows_chunk), rows = r1 - r0;
    float *scratch = j->scratch + (size_t)worker * j->scratch_floats;
    if (m->y) {
        linear_rows(j->kern, m->x, 0, j->cols, m->w, r0, r1, m->y + r0, m->ldy, scratch);
        for (size_t c = 0; c < j->cols && m->bias; c++)
            j->kern->add(m->y + c * m->ldy + r0, m->bias + r0, rows);
        return;
    }
    /* Rows that are not packed are packed by each product of them: once for many columns. */
    bool packed = weight_panels(m->w) != NULL;
    size_t step = packed ? rows : KERN_ROWS;
    size_t most = packed ? LINEAR_COLS : (size_t)LINEAR_COLS * LINEAR_ROWS_MAX / KERN_ROWS;
    for (size_t r = r0; r < r1; r += step)
        linear_chunk_sum(j, m, r, num_min(r1, r + step), most, scratch);
}

/* Runs all matrices of the job as one region, after `first` (may be NULL). In a dry run `mat` may
   have no memory. */
static void linear_run(struct op_ctx *c, struct linear_job *j, const struct team_work *first)
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
    struct team_work products = {linear_chunk, j, chunks, true};
    team_run_after(c->team, first ? first : &(struct team_work){0}, &products);
}

/* y += scale × b (a x), for a weight with an adapter, of which x may lose some values. */
static void linear_adapt(struct op_ctx *c, struct tensor x, const struct weight *w, struct tensor y)
{
    const struct weight_lora *l = w->lora;
    if (!l)
        return;
    size_t mark = op_begin(c);
    struct tensor in = c->dropout ? op_dropout(c, x, w) : x;
    struct tensor low = op_linear(c, in, &l->a, NULL);  /* (n, rank) */
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

bool linear_fuses(const struct op_ctx *c, size_t count, const struct weight *const w[])
{
    bool plain = !c->tape;
    for (size_t i = 0; i < count; i++)
        plain = plain && !w[i]->lora && !w[i]->order;
    return plain;
}

/* What `count` products of one input need of it, and their scratch. */
static unsigned linear_needs(const struct op_ctx *c, size_t count, const struct weight *const w[],
                             size_t *scratch)
{
    unsigned forms = 0;
    for (size_t i = 0; i < count; i++) {
        forms |= w[i]->order ? 0 : linear_form(c->kern, w[i], c->fine);
        *scratch = num_max(*scratch, linear_scratch(c->kern, w[i]));
    }
    return forms;
}

void op_linears(struct op_ctx *c, struct tensor x, size_t count, const struct weight *const w[],
                const struct weight *const b[], struct tensor y[])
{
    struct linear_mat mat[OP_LINEARS];
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = count, .mat = mat};
    struct linear_x in, own[OP_LINEARS];
    struct fill_job fill = {.in = x, .forms = linear_needs(c, count, w, &j.scratch_floats)};
    for (size_t i = 0; i < count; i++) {
        y[i] = op_tensor(c, x.rows, w[i]->rows);
        mat[i] = (struct linear_mat){.w = w[i],
                                     .x = w[i]->order ? &own[i] : &in,
                                     .bias = b && b[i] ? b[i]->vec : NULL,
                                     .y = y[i].data,
                                     .ldy = y[i].cols};
    }
    size_t mark = c->used;
    struct team_work first = linear_fill_work(c, &fill, &in);
    for (size_t i = 0; i < count; i++) {
        if (!w[i]->order)
            continue;
        struct tensor z = linear_ordered(c, x, w[i]->order);
        struct fill_job other = {.in = z, .forms = linear_form(c->kern, w[i], c->fine)};
        struct team_work work = linear_fill_work(c, &other, &own[i]);
        if (!c->dry)
            team_run(c->team, work.fn, work.arg, work.chunks);
    }
    linear_run(c, &j, &first);
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

/*
 * A dry run takes both ways of a fused op, for a tape may be attached later: it counts what the one
 * or the other takes while it runs (peak), and the more of what they leave in use.
 */
static struct tensor norm_linears_apart(struct op_ctx *c, const struct norm_input *in, size_t count,
                                        const struct weight *const w[],
                                        const struct weight *const b[], struct tensor y[])
{
    struct tensor h = op_rmsnorm(c, in->x, in->norm, in->eps);
    op_linears(c, h, count, w, b, y);
    return h;
}

struct tensor op_norm_linears(struct op_ctx *c, const struct norm_input *in, bool keep,
                              size_t count, const struct weight *const w[],
                              const struct weight *const b[], struct tensor y[])
{
    size_t mark = c->used, apart = mark;
    if (!linear_fuses(c, count, w) || c->dry) {
        struct tensor h = norm_linears_apart(c, in, count, w, b, y);
        if (!linear_fuses(c, count, w))
            return h;
        apart = c->used;
        c->used = mark;
    }
    struct linear_mat mat[OP_LINEARS];
    struct linear_job j = {.kern = c->kern, .cols = in->x.rows, .n = count, .mat = mat};
    struct linear_x prepared;
    struct fill_job fill = {.in = in->x,
                            .norm = in->norm->vec,
                            .eps = in->eps,
                            .forms = linear_needs(c, count, w, &j.scratch_floats)};
    struct tensor h = {NULL, in->x.rows, in->x.cols};
    if (keep || fill.forms & 1u << KERN_ACT_F32)
        h = op_tensor(c, h.rows, h.cols);
    fill.keep = h.data;
    for (size_t i = 0; i < count; i++) {
        y[i] = op_tensor(c, in->x.rows, w[i]->rows);
        mat[i] = (struct linear_mat){.w = w[i],
                                     .x = &prepared,
                                     .bias = b && b[i] ? b[i]->vec : NULL,
                                     .y = y[i].data,
                                     .ldy = y[i].cols};
    }
    size_t work = c->used;
    struct team_work first = linear_fill_work(c, &fill, &prepared);
    linear_run(c, &j, &first);
    c->used = work;
    c->used = num_max(c->used, apart);
    return h;
}

void linear_sum(struct op_ctx *c, const struct linear_x *x, const struct team_work *first,
                const struct weight *w, const struct weight *b, struct tensor sum,
                const struct tensor *total)
{
    struct linear_mat mat = {.w = w,
                             .x = x,
                             .bias = b ? b->vec : NULL,
                             .ldy = sum.cols,
                             .sum = sum.data,
                             .total = total ? total->data : NULL};
    struct linear_job j = {.kern = c->kern, .cols = sum.rows, .n = 1, .mat = &mat};
    j.products = num_round_up(linear_scratch(c->kern, w), 16);
    j.scratch_floats = j.products + (size_t)LINEAR_COLS * LINEAR_ROWS_MAX;
    linear_run(c, &j, first);
}

/* sum + (x Wᵀ + b), and total + that. */
static struct tensor linear_add_apart(struct op_ctx *c, struct tensor sum, struct tensor x,
                                      const struct weight *w, const struct weight *b,
                                      const struct tensor *total)
{
    sum = op_add(c, sum, op_linear(c, x, w, b));
    return total ? op_add(c, *total, sum) : sum;
}

static struct tensor linear_add(struct op_ctx *c, struct tensor sum, struct tensor x,
                                const struct weight *w, const struct weight *b,
                                const struct tensor *total)
{
    size_t mark = c->used, apart = mark;
    if (!linear_fuses(c, 1, &w) || c->dry) {
        struct tensor y = linear_add_apart(c, sum, x, w, b, total);
        if (!linear_fuses(c, 1, &w))
            return y;
        apart = c->used;
        c->used = mark;
    }
    struct linear_x in;
    struct fill_job fill = {.in = x, .forms = linear_form(c->kern, w, c->fine)};
    struct team_work first = linear_fill_work(c, &fill, &in);
    linear_sum(c, &in, &first, w, b, sum, total);
    c->used = mark;
    c->used = num_max(c->used, apart);
    return total ? *total : sum;
}

struct tensor op_linear_add(struct op_ctx *c, struct tensor sum, struct tensor x,
                            const struct weight *w, const struct weight *b)
{
    return linear_add(c, sum, x, w, b, NULL);
}

struct tensor op_linear_add_both(struct op_ctx *c, struct tensor total, struct tensor sum,
                                 struct tensor x, const struct weight *w)
{
    return linear_add(c, sum, x, w, NULL, &total);
}

/* Each head's part of the rows: prepared for its matrix, and what is carried over. */
struct heads_job {
    const struct kern *kern;
    struct tensor x, y, rope; /* rope.data NULL: carried over as it is */
    bool half;
    size_t heads, in, out, k, more;
    const struct weight *w;
    struct linear_x *xs;
    unsigned *forms;    /* (heads) */
    size_t per, blocks; /* rows of a chunk; chunks of a head */
    float *scratch;
    size_t scratch_floats;
};

static void heads_chunk(void *arg, size_t chunk, int worker)
{
    const struct heads_job *j = arg;
    size_t h = chunk / j->blocks, t0 = chunk % j->blocks * j->per;
    size_t n = num_min(j->per, j->x.rows - t0);
    linear_fill(j->kern, &j->xs[h], j->forms[h], j->x.data + t0 * j->x.cols + h * j->in, j->x.cols,
                t0, n, 0, j->k, j->scratch + (size_t)worker * j->scratch_floats);
    for (size_t t = t0; t < t0 + n && j->more; t++) {
        float *y = j->y.data + t * j->y.cols + h * j->out + j->out - j->more;
        memcpy(y, j->x.data + t * j->x.cols + h * j->in + j->k, j->more * sizeof *y);
        if (j->rope.data)
            j->kern->rope(y, j->rope.data + t * j->rope.cols, j->rope.cols, j->half);
    }
}

struct tensor op_linear_heads(struct op_ctx *c, struct tensor x, size_t heads,
                              const struct weight *w, struct tensor rope, bool half)
{
    size_t in = x.cols / heads, more = in - w->cols, out = w->rows + more;
    if (rope.cols && (c->tape || c->dry)) {
        x = op_rope(c, x, heads, w->cols, rope, half);
        rope = (struct tensor){0};
    }
    struct tensor y = op_tensor(c, x.rows, heads * out);
    size_t mark = c->used;
    struct linear_mat *mat = op_alloc(c, heads * sizeof *mat);
    struct linear_x *xs = op_alloc(c, heads * sizeof *xs), dry;
    unsigned *forms = op_alloc(c, heads * sizeof *forms);
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = heads, .mat = mat};
    for (size_t h = 0; h < heads; h++) {
        unsigned form = linear_form(c->kern, &w[h], c->fine);
        j.scratch_floats = num_max(j.scratch_floats, linear_scratch(c->kern, &w[h]));
        linear_place(c, c->dry ? &dry : &xs[h], c->dry ? NULL : x.data + h * in, x.cols, w->cols,
                     x.rows, form);
        if (c->dry)
            continue;
        forms[h] = form;
        mat[h] = (struct linear_mat){.w = &w[h], .x = &xs[h], .y = y.data + h * out, .ldy = y.cols};
    }
    struct heads_job p = {.kern = c->kern,
                          .x = x,
                          .y = y,
                          .rope = rope,
                          .half = half,
                          .heads = heads,
                          .in = in,
                          .out = out,
                          .k = w->cols,
                          .more = more,
                          .w = w,
                          .xs = xs,
                          .forms = forms,
                          .per = x.rows};
    /* Together they are one input, which is cut by heads first. */
    if (linear_fill_columns(c, x.cols, x.rows) < x.rows)
        p.per = num_min(x.rows, LINEAR_COLS);
    p.blocks = x.rows ? (x.rows + p.per - 1) / p.per : 0;
    p.scratch_floats = c->fine ? num_round_up(w->cols, 16) : 0;
    p.scratch = op_alloc(c, p.scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    struct team_work first = {heads_chunk, &p, p.blocks * heads, false};
    if (p.per == x.rows && linear_fill_columns(c, x.cols, x.rows) >= x.rows) {
        for (size_t i = 0; i < first.chunks && !c->dry; i++) /* not worth waking anybody */
            heads_chunk(&p, i, 0);
        first.chunks = 0;
    }
    linear_run(c, &j, &first);
    if (!c->dry && x.rows)
        op_record(c, &(struct op_record){
                         .kind = OP_LINEAR_HEADS, .out = y, .in = {x}, .w = {w}, .heads = heads});
    c->used = mark;
    return y;
}

struct tensor op_linear_each(struct op_ctx *c, struct tensor x, size_t heads,
                             const struct weight *w)
{
    struct tensor y = op_tensor(c, x.rows, heads * w->rows);
    size_t mark = c->used;
    struct linear_mat *mat = op_alloc(c, heads * sizeof *mat);
    struct linear_job j = {.kern = c->kern, .cols = x.rows, .n = heads, .mat = mat};
    struct linear_x in;
    struct fill_job fill = {.in = x};
    for (size_t h = 0; h < heads; h++) {
        fill.forms |= linear_form(c->kern, &w[h], c->fine);
        j.scratch_floats = num_max(j.scratch_floats, linear_scratch(c->kern, &w[h]));
        if (!c->dry)
            mat[h] =
                (struct linear_mat){.w = &w[h], .x = &in, .y = y.data + h * w->rows, .ldy = y.cols};
    }
    struct team_work first = linear_fill_work(c, &fill, &in);
    linear_run(c, &j, &first);
    c->used = mark;
    return y;
}

/*
 * silu(x Wgᵀ) ⊙ (x Wuᵀ). With many columns a chunk is some rows of both matrices times a block of
 * columns, and can leave its values as the next product reads them: floats of a prompt's hidden
 * layer, which do not fit into any cache, are never written. The blocks of some rows follow one
 * another, so that their weights are in cache. With fewer columns a chunk has all of them.
 */
struct swiglu_job {
    const struct kern *kern;
    const struct linear_x *x;
    size_t cols, rows_chunk, blocks; /* blocks of columns */
    const struct weight *gate, *up;
    struct tensor y;             /* data NULL: nobody wants floats */
    const struct linear_x *made; /* NULL, or where forms go */
    unsigned forms;
    float *scratch;
    size_t scratch_floats;
};

static void swiglu_chunk(void *arg, size_t chunk, int worker)
{
    const struct swiglu_job *j = arg;
    size_t per = j->rows_chunk, r0 = chunk / j->blocks * per, r1 = num_min(j->gate->rows, r0 + per);
    size_t block = chunk % j->blocks, rows = r1 - r0;
    size_t c0 = linear_block(j->cols, block, j->blocks);
    size_t cols = linear_block(j->cols, block + 1, j->blocks) - c0;
    float *g = j->scratch + (size_t)worker * j->scratch_floats;
    float *u = g + cols * per, *tmp = u + cols * per;
    linear_rows(j->kern, j->x, c0, cols, j->gate, r0, r1, g, per, tmp);
    linear_rows(j->kern, j->x, c0, cols, j->up, r0, r1, u, per, tmp);
    for (size_t c = 0; c < cols; c++) {
        float *y = j->y.data ? j->y.data + (c0 + c) * j->y.cols + r0 : g + c * per;
        j->kern->swiglu(y, g + c * per, u + c * per, rows);
    }
    if (j->made)
        linear_fill(j->kern, j->made, j->forms, g, per, c0, cols, r0, rows, u);
}

/* With adapters, or inputs in an order of their own, the two products are made whole before they
 * meet; and for a tape that keeps them. */
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

/* Scratch for the job and its region, which `first` leads. */
static void swiglu_run(struct op_ctx *c, struct swiglu_job *j, const struct team_work *first)
{
    j->kern = c->kern;
    j->rows_chunk = j->made ? FFN_ROWS : SWIGLU_ROWS;
    j->blocks = j->made ? (j->cols + LINEAR_COLS - 1) / LINEAR_COLS : 1;
    if (j->cols <= LINEAR_FEW)
        j->rows_chunk = linear_rows_chunk(c, j->gate->rows, j->cols);
    /* Never less than fewer columns take: a dry run plans with the most. */
    size_t most = num_max(j->cols * SWIGLU_ROWS, num_min(j->cols, (size_t)LINEAR_COLS) *
                                                     num_max(FFN_ROWS, LINEAR_ROWS_MAX));
    j->scratch_floats =
        2 * most + num_max(linear_scratch(c->kern, j->gate), linear_scratch(c->kern, j->up));
    j->scratch_floats = num_round_up(j->scratch_floats, 16);
    j->scratch = op_alloc(c, j->scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
    if (c->dry || !j->cols)
        return;
    size_t chunks = (j->gate->rows + j->rows_chunk - 1) / j->rows_chunk * j->blocks;
    team_run_after(c->team, first, &(struct team_work){swiglu_chunk, j, chunks, true});
}

struct tensor op_swiglu(struct op_ctx *c, struct tensor x, const struct weight *gate,
                        const struct weight *up)
{
    if (gate->lora || up->lora || gate->order || up->order || (c->tape && c->tape->keep))
        return swiglu_apart(c, x, gate, up);
    struct linear_x in;
    struct swiglu_job j = {
        .x = &in, .cols = x.rows, .gate = gate, .up = up, .y = op_tensor(c, x.rows, gate->rows)};
    size_t mark = c->used, unused = 0;
    struct fill_job fill = {.in = x};
    fill.forms = linear_needs(c, 2, (const struct weight *[]){gate, up}, &unused);
    struct team_work first = linear_fill_work(c, &fill, &in);
    swiglu_run(c, &j, &first);
    if (!c->dry && x.rows)
        op_record(c,
                  &(struct op_record){.kind = OP_SWIGLU, .out = j.y, .in = {x}, .w = {gate, up}});
    c->used = mark;
    return j.y;
}

static struct tensor ffn_apart(struct op_ctx *c, const struct norm_input *in,
                               const struct weight *gate, const struct weight *up,
                               const struct weight *down)
{
    struct tensor h = op_rmsnorm(c, in->x, in->norm, in->eps);
    return op_add(c, in->x, op_linear(c, op_swiglu(c, h, gate, up), down, NULL));
}

struct tensor op_ffn(struct op_ctx *c, const struct norm_input *in, const struct weight *gate,
                     const struct weight *up, const struct weight *down)
{
    const struct weight *w[] = {gate, up, down};
    size_t mark = c->used, apart = mark, unused = 0;
    if (!linear_fuses(c, 3, w) || c->dry) {
        struct tensor y = ffn_apart(c, in, gate, up, down);
        if (!linear_fuses(c, 3, w))
            return y;
        apart = c->used;
        c->used = mark;
    }
    struct linear_x prepared, hidden;
    struct fill_job fill = {.in = in->x, .norm = in->norm->vec, .eps = in->eps};
    fill.forms = linear_needs(c, 2, w, &unused);
    if (fill.forms & 1u << KERN_ACT_F32)
        fill.keep = op_tensor(c, in->x.rows, in->x.cols).data;
    struct team_work first = linear_fill_work(c, &fill, &prepared), then = {0};
    struct swiglu_job j = {.x = &prepared,
                           .cols = in->x.rows,
                           .gate = gate,
                           .up = up,
                           .y = {NULL, in->x.rows, gate->rows}};
    j.forms = linear_form(c->kern, down, c->fine);
    /* Floats: where `down` reads them, and where columns are not cut: too few, or rows that each
       block of columns would have to pack. */
    bool floats = j.forms & 1u << KERN_ACT_F32 || in->x.rows <= LINEAR_COLS ||
                  !weight_panels(gate) || !weight_panels(up);
    struct fill_job second = {.forms = j.forms};
    if (floats || c->dry) {
        j.y = op_tensor(c, floats ? in->x.rows : LINEAR_COLS, gate->rows);
        second.in = j.y;
        then = linear_fill_work(c, &second, &hidden);
    }
    if (!floats || c->dry) {
        linear_place(c, &hidden, NULL, 0, gate->rows, in->x.rows, j.forms);
        j.made = &hidden;
    }
    swiglu_run(c, &j, &first);
    linear_sum(c, &hidden, &then, down, NULL, in->x, NULL);
    c->used = num_max(mark, apart);
    return in->x;
}
