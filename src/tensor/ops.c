/*
 * Ops without a matrix product, and the context: scratch, scopes, tape. See ops.h.
 *
 * Scratch is a bump allocator over one reservation whose size a dry run found. Small ops run in the
 * caller: waking the team costs more than they do.
 */
#include "tensor/ops.h"

#include "base/num.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Below this many values an elementwise op is not worth a parallel region. */
enum { OP_SERIAL = 16384 };

void op_ctx_init(struct op_ctx *c, const struct kern *kern, struct team *team)
{
    memset(c, 0, sizeof *c);
    c->kern = kern;
    c->team = team;
}

void op_ctx_release(struct op_ctx *c)
{
    if (c->mem)
        munmap(c->mem, c->cap);
    c->mem = NULL;
    c->cap = c->used = 0;
}

int op_ctx_reserve(struct op_ctx *c, size_t bytes, struct err *e)
{
    assert(c->used == 0);
    if (bytes <= c->cap)
        return 0;
    bytes = num_round_up(bytes, 1 << 16);
    void *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (m == MAP_FAILED)
        return err_nomem(e, bytes, "activations; give a smaller --batch or --ctx");
    op_ctx_release(c);
    c->mem = m;
    c->cap = bytes;
    return 0;
}

size_t op_begin(struct op_ctx *c)
{
    return c->used;
}

void op_end(struct op_ctx *c, size_t mark)
{
    if (!c->tape || !c->tape->keep)
        c->used = mark;
}

void *op_alloc(struct op_ctx *c, size_t bytes)
{
    size_t at = c->used;
    c->used = at + num_round_up(bytes, 64);
    if (c->used > c->peak)
        c->peak = c->used;
    if (c->dry)
        return NULL;
    /* A run that needs more than its dry run said is a bug of an op, not of the input. */
    if (c->used > c->cap)
        abort();
    return c->mem + at;
}

struct tensor op_tensor(struct op_ctx *c, size_t rows, size_t cols)
{
    return (struct tensor){op_alloc(c, rows * cols * sizeof(float)), rows, cols};
}

void op_record(struct op_ctx *c, const struct op_record *r)
{
    if (c->tape && !c->dry)
        c->tape->record(c->tape->arg, r);
}

struct tensor op_embed(struct op_ctx *c, const struct weight *w, const int32_t *ids, size_t n)
{
    struct tensor y = op_tensor(c, n, w->cols);
    size_t mark = c->used;
    uint8_t *row = op_alloc(c, w->row_bytes);
    c->used = mark;
    if (c->dry)
        return y;
    for (size_t i = 0; i < n; i++)
        weight_row(w, (size_t)ids[i], y.data + i * y.cols, row);
    op_record(c, &(struct op_record){.kind = OP_EMBED, .out = y, .w = {w}, .ids = ids});
    return y;
}

struct tensor op_rows(struct op_ctx *c, struct tensor x, const uint32_t *rows, size_t n)
{
    struct tensor y = op_tensor(c, n, x.cols);
    if (c->dry)
        return y;
    for (size_t i = 0; i < n; i++)
        memcpy(y.data + i * y.cols, x.data + rows[i] * x.cols, x.cols * sizeof(float));
    op_record(c, &(struct op_record){.kind = OP_ROWS, .out = y, .in = {x}, .rows = rows});
    return y;
}

/* ---- ops that go row by row ----------------------------------------------------------------- */

struct row_job {
    const struct kern *kern;
    struct tensor x, y;
    const float *w;
    float eps;
    size_t heads, d, at, d_rope;
    const float *table;
    int half;
    size_t per; /* rows a chunk */
    void (*fn)(const struct row_job *j, size_t row);
};

static void row_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct row_job *j = arg;
    size_t end = num_min(j->x.rows, (chunk + 1) * j->per);
    for (size_t r = chunk * j->per; r < end; r++)
        j->fn(j, r);
}

static void row_run(struct op_ctx *c, struct row_job *j)
{
    j->kern = c->kern;
    j->per = j->x.rows;
    if (j->x.rows * j->x.cols >= OP_SERIAL)
        j->per = num_max(1, j->x.rows / ((size_t)team_threads(c->team) * 4));
    if (j->x.rows)
        team_run(c->team, row_chunk, j, (j->x.rows + j->per - 1) / j->per);
}

static void row_norm(const struct row_job *j, size_t r)
{
    for (size_t h = 0; h < j->heads; h++) {
        size_t at = r * j->x.cols + h * j->d;
        j->kern->rmsnorm(j->y.data + at, j->x.data + at, j->w, j->d, j->eps);
    }
}

struct tensor op_rmsnorm(struct op_ctx *c, struct tensor x, const struct weight *w, float eps)
{
    struct tensor y = op_tensor(c, x.rows, x.cols);
    if (c->dry)
        return y;
    struct row_job j = {
        .x = x, .y = y, .w = w->vec, .eps = eps, .heads = 1, .d = x.cols, .fn = row_norm};
    row_run(c, &j);
    op_record(c,
              &(struct op_record){.kind = OP_RMSNORM, .out = y, .in = {x}, .w = {w}, .eps = eps});
    return y;
}

/* Where a result may take its input's place. */
static struct tensor op_inplace(struct op_ctx *c, struct tensor x)
{
    return c->tape && c->tape->keep ? op_tensor(c, x.rows, x.cols) : x;
}

struct tensor op_head_norm(struct op_ctx *c, struct tensor x, size_t heads, const struct weight *w,
                           float eps)
{
    struct tensor y = op_inplace(c, x);
    if (c->dry)
        return y;
    struct row_job j = {.x = x,
                        .y = y,
                        .w = w->vec,
                        .eps = eps,
                        .heads = heads,
                        .d = x.cols / heads,
                        .fn = row_norm};
    row_run(c, &j);
    op_record(c,
              &(struct op_record){
                  .kind = OP_HEAD_NORM, .out = y, .in = {x}, .w = {w}, .heads = heads, .eps = eps});
    return y;
}

static void row_add(const struct row_job *j, size_t r)
{
    j->kern->add(j->y.data + r * j->x.cols, j->x.data + r * j->x.cols, j->x.cols);
}

struct tensor op_add(struct op_ctx *c, struct tensor x, struct tensor y)
{
    struct tensor z = op_inplace(c, x);
    if (c->dry)
        return z;
    if (z.data != x.data)
        memcpy(z.data, x.data, x.rows * x.cols * sizeof(float));
    struct row_job j = {.x = y, .y = z, .fn = row_add};
    row_run(c, &j);
    op_record(c, &(struct op_record){.kind = OP_ADD, .out = z, .in = {x, y}});
    return z;
}

struct tensor op_rope_table(struct op_ctx *c, const uint32_t *pos, size_t n, const double *freq,
                            size_t d, float scale)
{
    struct tensor t = op_tensor(c, n, d);
    if (c->dry)
        return t;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < d / 2; k++) {
            double a = pos[i] * freq[k];
            t.data[i * d + 2 * k] = (float)cos(a) * scale;
            t.data[i * d + 2 * k + 1] = (float)sin(a) * scale;
        }
    return t;
}

static void row_rope(const struct row_job *j, size_t r)
{
    for (size_t h = 0; h < j->heads; h++)
        j->kern->rope(j->y.data + r * j->y.cols + h * j->d + j->at, j->table + r * j->d_rope,
                      j->d_rope, j->half);
}

struct tensor op_rope(struct op_ctx *c, struct tensor x, size_t heads, size_t at,
                      struct tensor table, bool half)
{
    struct tensor y = op_inplace(c, x);
    if (c->dry)
        return y;
    if (y.data != x.data)
        memcpy(y.data, x.data, x.rows * x.cols * sizeof(float));
    struct row_job j = {.x = x,
                        .y = y,
                        .heads = heads,
                        .d = x.cols / heads,
                        .at = at,
                        .d_rope = table.cols,
                        .table = table.data,
                        .half = half,
                        .fn = row_rope};
    row_run(c, &j);
    op_record(
        c,
        &(struct op_record){
            .kind = OP_ROPE, .out = y, .in = {x, table}, .heads = heads, .at = at, .half = half});
    return y;
}

static void row_latent(const struct row_job *j, size_t r)
{
    float *y = j->y.data + r * j->y.cols;
    j->kern->rmsnorm(y, j->x.data + r * j->x.cols, j->w, j->d, j->eps);
    j->kern->rope(y + j->d, j->table + r * j->d_rope, j->d_rope, j->half);
}

struct tensor op_latent(struct op_ctx *c, struct tensor x, const struct weight *w, float eps,
                        struct tensor table, bool half)
{
    struct tensor y = op_inplace(c, x);
    if (c->dry)
        return y;
    if (y.data != x.data)
        memcpy(y.data, x.data, x.rows * x.cols * sizeof(float));
    struct row_job j = {.x = x,
                        .y = y,
                        .w = w->vec,
                        .eps = eps,
                        .d = w->cols,
                        .d_rope = table.cols,
                        .table = table.data,
                        .half = half,
                        .fn = row_latent};
    row_run(c, &j);
    op_record(
        c, &(struct op_record){
               .kind = OP_LATENT, .out = y, .in = {x, table}, .w = {w}, .half = half, .eps = eps});
    return y;
}

struct tensor op_concat(struct op_ctx *c, struct tensor x, struct tensor y)
{
    struct tensor z = op_tensor(c, x.rows, x.cols + y.cols);
    if (c->dry)
        return z;
    for (size_t r = 0; r < x.rows; r++) {
        memcpy(z.data + r * z.cols, x.data + r * x.cols, x.cols * sizeof(float));
        memcpy(z.data + r * z.cols + x.cols, y.data + r * y.cols, y.cols * sizeof(float));
    }
    op_record(c, &(struct op_record){.kind = OP_CONCAT, .out = z, .in = {x, y}});
    return z;
}

struct tensor op_block(struct op_ctx *c, struct tensor x, const struct op_body *body)
{
    struct op_tape *tape = c->tape;
    if (!tape || !tape->keep || !tape->recompute)
        return body->fn(body->arg, c, x);
    struct tensor y = op_tensor(c, x.rows, x.cols);
    size_t mark = c->used;
    if (c->dry) { /* what the way back takes to do it again */
        struct op_tape again = {.keep = true};
        c->tape = &again;
        body->fn(body->arg, c, x);
        c->used = mark;
    } else {
        memcpy(y.data, x.data, x.rows * x.cols * sizeof *x.data); /* x is kept */
    }
    c->tape = NULL;
    struct tensor z = body->fn(body->arg, c, y);
    if (z.data != y.data)
        memcpy(y.data, z.data, y.rows * y.cols * sizeof *y.data);
    c->tape = tape;
    c->used = mark;
    op_record(c, &(struct op_record){.kind = OP_BLOCK, .out = y, .in = {x}, .body = body});
    return y;
}
