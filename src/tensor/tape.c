/*
 * The tape: records, gradients by tensor, and the walk back. See tape.h.
 *
 * Gradients are found by the data pointer of their tensor, in a hash table with linear probing.
 * What a recomputed block takes (scratch of the context, gradients inside of it, its records) is
 * given back when its input's gradient is there: gradients leave the table in the reverse order of
 * their coming, so nothing that stays has been probed past a place that is free again.
 */
#include "tensor/tape_impl.h"

#include "tensor/gemm.h"

#include "base/num.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    TAPE_BLOCK = 16 << 20, /* bytes of the first block */
    TAPE_HUGE = 2 << 20,
    TAPE_SERIAL = 32768, /* fewer values than this are the caller's work */
};

/* ---- memory ---------------------------------------------------------------------------------- */

/* A pass goes through much memory once: small pages would cost it misses in their tables. */
static void tape_huge(uint8_t *p, size_t bytes)
{
    size_t skip = -(uintptr_t)p & (TAPE_HUGE - 1);
    if (p && bytes >= skip + TAPE_HUGE)
        (void)madvise(p + skip, (bytes - skip) / TAPE_HUGE * TAPE_HUGE, MADV_HUGEPAGE);
}

static bool tape_block_add(struct tape *t, size_t bytes)
{
    struct tape_block *b = realloc(t->block, (t->n_block + 1) * sizeof *b);
    if (!b)
        return false;
    t->block = b;
    size_t last = t->n_block ? b[t->n_block - 1].cap : TAPE_BLOCK / 2;
    size_t cap = num_round_up(num_max(bytes, 2 * last), 4096);
    uint8_t *mem = aligned_alloc(64, cap);
    if (!mem && cap > bytes) { /* less ahead then */
        cap = num_round_up(bytes, 4096);
        mem = aligned_alloc(64, cap);
    }
    if (!mem)
        return false;
    tape_huge(mem, cap);
    b[t->n_block++] = (struct tape_block){mem, cap, 0};
    return true;
}

void *tape_alloc(struct tape *t, size_t bytes)
{
    size_t n = num_round_up(num_max(bytes, 1), 64);
    if (n < bytes || t->failed) {
        t->failed = true;
        return NULL;
    }
    while (t->at < t->n_block && t->block[t->at].cap - t->block[t->at].used < n) {
        t->at++;
        if (t->at < t->n_block)
            t->block[t->at].used = 0;
    }
    if (t->at == t->n_block && !tape_block_add(t, n)) {
        t->failed = true;
        return NULL;
    }
    struct tape_block *b = &t->block[t->at];
    void *p = b->mem + b->used;
    b->used += n;
    return p;
}

struct tape_mark tape_mark(const struct tape *t)
{
    return (struct tape_mark){t->at, t->at < t->n_block ? t->block[t->at].used : 0, t->n_grad};
}

/* ---- gradients ------------------------------------------------------------------------------- */

static size_t grad_place(const struct tape *t, const float *data)
{
    uint64_t h = (uint64_t)((uintptr_t)data / 64) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> 20) & (t->n_slot - 1);
    while (t->slot[i] && t->grad[t->slot[i] - 1].data != data)
        i = (i + 1) & (t->n_slot - 1);
    return i;
}

/* The table twice as large; gradients come in their order. */
static bool grad_grow(struct tape *t)
{
    size_t cap = t->cap_grad ? 2 * t->cap_grad : 1024;
    struct tape_grad *g = realloc(t->grad, cap * sizeof *g);
    if (!g)
        return false;
    t->grad = g;
    uint32_t *slot = calloc(4 * cap, sizeof *slot);
    if (!slot)
        return false;
    free(t->slot);
    t->slot = slot;
    t->n_slot = 4 * cap;
    t->cap_grad = cap;
    for (size_t i = 0; i < t->n_grad; i++)
        t->slot[grad_place(t, t->grad[i].data)] = (uint32_t)i + 1;
    return true;
}

/* Forgets gradients of tensors whose scratch, from `from` on, others will take. */
static void grad_forget(struct tape *t, const uint8_t *from)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_grad; i++)
        if ((const uint8_t *)t->grad[i].data < from ||
            (const uint8_t *)t->grad[i].data >= t->c->mem + t->c->cap)
            t->grad[n++] = t->grad[i];
    t->n_grad = n;
    memset(t->slot, 0, t->n_slot * sizeof *t->slot);
    for (size_t i = 0; i < n; i++)
        t->slot[grad_place(t, t->grad[i].data)] = (uint32_t)i + 1;
}

static bool grad_add(struct tape *t, const float *data, float *grad, size_t bytes)
{
    if (!grad || (t->n_grad == t->cap_grad && !grad_grow(t))) {
        t->failed = true;
        return false;
    }
    t->grad[t->n_grad] = (struct tape_grad){data, grad, bytes};
    t->slot[grad_place(t, data)] = (uint32_t)++t->n_grad;
    return true;
}

const float *tape_given(const struct tape *t, struct tensor y)
{
    uint32_t i = t->n_slot ? t->slot[grad_place(t, y.data)] : 0;
    return i ? t->grad[i - 1].grad : NULL;
}

/*
 * The gradient of what an op made is of no use once the op has passed it on. The next gradient of
 * the size takes its memory, the last one first: it is still in cache.
 */
static void grad_served(struct tape *t, struct tensor y)
{
    struct tape_grad *g = &t->grad[t->slot[grad_place(t, y.data)] - 1];
    if (t->n_spare < TAPE_SPARES)
        t->spare[t->n_spare++] = (struct tape_spare){g->grad, g->bytes};
    g->grad = NULL;
}

static float *grad_spare(struct tape *t, size_t bytes)
{
    for (size_t i = t->n_spare; i-- > 0;)
        if (t->spare[i].bytes == bytes) {
            float *mem = t->spare[i].mem;
            t->spare[i] = t->spare[--t->n_spare];
            return mem;
        }
    return NULL;
}

float *tape_grad(struct tape *t, struct tensor y)
{
    uint32_t i = t->n_slot ? t->slot[grad_place(t, y.data)] : 0;
    if (i)
        return t->grad[i - 1].grad;
    size_t bytes = y.rows * y.cols * sizeof(float);
    float *g = grad_spare(t, bytes);
    if (!g)
        g = tape_alloc(t, bytes);
    if (!grad_add(t, y.data, g, bytes))
        return NULL;
    memset(g, 0, bytes);
    return g;
}

void tape_back_to(struct tape *t, struct tape_mark m)
{
    while (t->n_grad > m.n_grad)
        t->slot[grad_place(t, t->grad[--t->n_grad].data)] = 0;
    t->at = m.at;
    if (t->at < t->n_block)
        t->block[t->at].used = m.used;
}

/* ---- records --------------------------------------------------------------------------------- */

static const void *tape_copy(struct tape *t, const void *p, size_t bytes)
{
    void *copy = p ? tape_alloc(t, bytes) : NULL;
    return copy ? memcpy(copy, p, bytes) : NULL;
}

static const struct batch *tape_batch(struct tape *t, const struct batch *b)
{
    struct batch copy = {0};
    if (!b)
        return NULL;
    copy.n = b->n;
    copy.n_runs = b->n_runs;
    copy.runs = tape_copy(t, b->runs, b->n_runs * sizeof *b->runs);
    return tape_copy(t, &copy, sizeof copy);
}

static void tape_record(void *arg, const struct op_record *r)
{
    struct tape *t = arg;
    if (t->failed)
        return;
    if (t->n == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 1024;
        struct op_record *p = realloc(t->record, cap * sizeof *p);
        if (!p) {
            t->failed = true;
            return;
        }
        t->record = p;
        t->cap = cap;
    }
    struct op_record *own = &t->record[t->n++];
    *own = *r;
    own->ids = tape_copy(t, r->ids, r->out.rows * sizeof *r->ids);
    own->rows = tape_copy(t, r->rows, r->out.rows * sizeof *r->rows);
    own->attention = tape_copy(t, r->attention, sizeof *r->attention);
    own->batch = tape_batch(t, r->batch);
    own->router.batch = tape_batch(t, r->router.batch);
    if (r->body) {
        struct op_body body = *r->body;
        body.arg = tape_copy(t, body.arg, body.bytes);
        own->body = tape_copy(t, &body, sizeof body);
    }
}

int tape_new(struct tape **out, struct op_ctx *c, const struct tape_opts *o, struct err *e)
{
    struct tape *t = *out = calloc(1, sizeof *t);
    if (!t)
        return err_nomem(e, sizeof *t, "a tape");
    t->c = c;
    t->o = *o;
    t->used0 = c->used;
    t->op =
        (struct op_tape){.record = tape_record, .arg = t, .keep = true, .recompute = o->recompute};
    return 0;
}

void tape_free(struct tape *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n_block; i++)
        free(t->block[i].mem);
    free(t->block);
    free(t->record);
    free(t->grad);
    free(t->slot);
    free(t->balance);
    free(t);
}

void tape_start(struct tape *t)
{
    t->n = 0;
    t->failed = false;
    t->n_balance = 0;
    t->n_spare = 0;
    tape_back_to(t, (struct tape_mark){0});
    t->c->used = t->used0;
    t->c->tape = &t->op;
    tape_huge(t->c->mem, t->c->cap);
}

void tape_stop(struct tape *t)
{
    t->c->tape = NULL;
}

double tape_balance(const struct tape *t, double sum)
{
    for (size_t i = 0; i < t->n_balance; i++)
        sum += t->balance[i];
    return sum;
}

/* ---- what backward passes share -------------------------------------------------------------- */

struct rows_job {
    struct tape_job j;
    size_t rows, per;
};

static void rows_chunk(void *arg, size_t chunk, int worker)
{
    const struct rows_job *r = arg;
    r->j.fn(r->j.arg, chunk * r->per, num_min(r->rows, (chunk + 1) * r->per), worker);
}

void tape_rows(struct tape *t, size_t rows, size_t cost, struct tape_job j)
{
    struct rows_job r = {j, rows, rows};
    if (!rows)
        return;
    if (rows * cost >= TAPE_SERIAL)
        r.per = num_max(1, rows / ((size_t)team_threads(t->c->team) * 4));
    team_run(t->c->team, rows_chunk, &r, (rows + r.per - 1) / r.per);
}

struct add_job {
    const struct kern *kern;
    float *dst;
    const float *src;
    size_t ldd, lds, cols;
};

static void add_rows(const void *arg, size_t r0, size_t r1, int worker)
{
    const struct add_job *j = arg;
    (void)worker;
    for (size_t r = r0; r < r1; r++)
        j->kern->add(j->dst + r * j->ldd, j->src + r * j->lds, j->cols);
}

void tape_add(struct tape *t, float *dst, size_t ldd, const float *src, size_t lds, size_t rows,
              size_t cols)
{
    struct add_job j = {t->c->kern, dst, src, ldd, lds, cols};
    if (dst)
        tape_rows(t, rows, cols, (struct tape_job){add_rows, &j});
}

struct sum_job {
    const struct kern *kern;
    float *sum;
    const float *y;
    size_t ld, rows;
};

static void sum_columns(const void *arg, size_t c0, size_t c1, int worker)
{
    const struct sum_job *j = arg;
    (void)worker;
    for (size_t r = 0; r < j->rows; r++)
        j->kern->add(j->sum + c0, j->y + r * j->ld + c0, c1 - c0);
}

void tape_sum(struct tape *t, float *sum, const float *y, size_t ld, size_t rows, size_t cols)
{
    struct sum_job j = {t->c->kern, sum, y, ld, rows};
    tape_rows(t, cols, rows, (struct tape_job){sum_columns, &j});
}

/* Rows that are only read. */
static struct gemm_rows tape_rows_of(const float *data, size_t ld)
{
    return (struct gemm_rows){(float *)(uintptr_t)data, ld};
}

/* A context of its own over memory of the tape, as much as a dry one took. */
static bool tape_side(struct tape *t, const struct op_ctx *dry, struct op_ctx *out)
{
    *out = *dry;
    out->dry = false;
    out->used = 0;
    out->cap = dry->peak;
    out->mem = dry->peak ? tape_alloc(t, dry->peak) : NULL;
    return !t->failed;
}

void tape_back_input(struct tape *t, float *dx, size_t lddx, const float *dy, size_t lddy, size_t n,
                     const struct weight *w)
{
    struct tape_mark mark = tape_mark(t);
    struct gemm_rows to = {dx, lddx}, from = tape_rows_of(dy, lddy);
    struct op_ctx dry = {.kern = t->c->kern, .team = t->c->team, .dry = true}, c;
    gemm_back_input(&dry, to, from, n, w);
    if (tape_side(t, &dry, &c))
        gemm_back_input(&c, to, from, n, w);
    tape_back_to(t, mark);
}

void tape_back_weight(struct tape *t, const struct weight *w, const float *dy, size_t lddy,
                      const float *x, size_t ldx, size_t n)
{
    struct tape_mark mark = tape_mark(t);
    struct gemm_rows out = tape_rows_of(dy, lddy), in = tape_rows_of(x, ldx);
    struct op_ctx dry = {.kern = t->c->kern, .team = t->c->team, .dry = true}, c;
    if (!w->param)
        return;
    gemm_back_weight(&dry, w, out, in, n);
    if (tape_side(t, &dry, &c))
        gemm_back_weight(&c, w, out, in, n);
    tape_back_to(t, mark);
}

/* ---- the walk -------------------------------------------------------------------------------- */

static int tape_walk(struct tape *t, size_t from, struct err *e);

/* Does the block again, now with all inside of it kept, and walks back through it. */
static int tape_again(struct tape *t, const struct op_record *r, struct err *e)
{
    struct op_ctx *c = t->c;
    struct op_body body = *r->body; /* the array of records may move */
    struct tensor x = r->in[0], y = r->out;
    const float *dy = tape_given(t, y);
    if (!dy || !tape_grad(t, x))
        return 0;
    /* What came behind the block has had its turn: its scratch is free. */
    c->used =
        (size_t)((uint8_t *)y.data - c->mem) + num_round_up(y.rows * y.cols * sizeof *y.data, 64);
    grad_forget(t, c->mem + c->used);
    struct tape_mark mark = tape_mark(t);
    size_t n = t->n;
    t->op.recompute = false;
    c->tape = &t->op;
    struct tensor z = body.fn(body.arg, c, x);
    c->tape = NULL;
    t->op.recompute = true;
    int rc = 0;
    t->n_spare = 0; /* they end with what they belong to */
    if (!t->failed && grad_add(t, z.data, (float *)(uintptr_t)dy, y.rows * y.cols * sizeof *dy))
        rc = tape_walk(t, n, e);
    t->n_spare = 0;
    t->n = n;
    tape_back_to(t, mark);
    return rc;
}

static void (*const backs[])(struct tape *t, const struct op_record *r) = {
    [OP_EMBED] = back_embed,
    [OP_RMSNORM] = back_norm,
    [OP_HEAD_NORM] = back_norm,
    [OP_LINEAR] = back_linear,
    [OP_LINEAR_HEADS] = back_linear_heads,
    [OP_LORA] = back_lora,
    [OP_DROPOUT] = back_dropout,
    [OP_ROPE] = back_rope,
    [OP_LATENT] = back_latent,
    [OP_CONCAT] = back_concat,
    [OP_ATTENTION] = back_attention,
    [OP_GLU] = back_glu,
    [OP_ROUTE] = back_route,
    [OP_MOE] = back_moe,
    [OP_ADD] = back_add,
    [OP_ROWS] = back_rows,
    [OP_BLOCK] = NULL,
};

static int tape_check(const struct op_record *r, struct err *e)
{
    if (r->kind == OP_ATTENTION_EXPANDED)
        return err_set(e, ERR_UNSUPPORTED,
                       "no gradients through the expanded form of latent attention: train with the "
                       "absorbed one (--mla absorbed)");
    if (r->kind != OP_BLOCK && ((size_t)r->kind >= NUM_COUNT(backs) || !backs[r->kind]))
        return err_set(e, ERR_UNSUPPORTED, "an operation of this model has no gradient");
    for (size_t i = 0; r->kind == OP_ATTENTION && i < r->batch->n_runs; i++) {
        const struct batch_run *run = &r->batch->runs[i];
        if (run->pos)
            return err_set(e, ERR_UNSUPPORTED,
                           "gradients need whole sequences: one begins at position %zu", run->pos);
        if (kv_pool_shape(run->seq->pool)->type != QUANT_F32)
            return err_set(e, ERR_UNSUPPORTED, "gradients need an F32 KV cache, this one is %s",
                           quant_by_id(kv_pool_shape(run->seq->pool)->type)->name);
    }
    return 0;
}

/* Tables of a rotation are no one's to change. */
static bool tape_turns(const struct op_record *r, size_t k)
{
    return k == 1 && (r->kind == OP_ROPE || r->kind == OP_LATENT);
}

/* From the last record to number `from`. */
static int tape_walk(struct tape *t, size_t from, struct err *e)
{
    int rc = 0;
    for (size_t i = t->n; i-- > from && !t->failed && !rc;) {
        const struct op_record r = t->record[i];
        struct tape_mark mark;
        if ((rc = tape_check(&r, e)))
            break;
        if (r.kind == OP_BLOCK) {
            t->n = i;
            rc = tape_again(t, &r, e);
            continue;
        }
        if (!tape_given(t, r.out) && r.kind != OP_ROUTE)
            continue;
        /* Inputs get their gradients first, so that what the op takes beside them is free after. */
        for (size_t k = 0; k < NUM_COUNT(r.in); k++)
            if (r.in[k].data && !tape_turns(&r, k))
                tape_grad(t, r.in[k]);
        mark = tape_mark(t);
        if (!t->failed)
            backs[r.kind](t, &r);
        tape_back_to(t, mark);
        if (!t->failed && r.kind != OP_LORA && tape_given(t, r.out)) /* that is another op's too */
            grad_served(t, r.out);
    }
    return rc;
}

int tape_backward(struct tape *t, struct err *e)
{
    size_t used = t->c->used;
    t->c->tape = NULL;
    int rc = t->failed ? 0 : tape_walk(t, 0, e);
    if (!rc && t->failed)
        rc = err_set(e, ERR_NOMEM,
                     "not enough memory for gradients of activations; smaller batches, or gradient "
                     "checkpointing, take less");
    t->c->used = used;
    return rc;
}
