/*
 * The backward pass of every op against central differences of its definition in double, written
 * plainly here: every value of every input and weight. A loss is a fixed sum of the op's outputs.
 */
#include "base/num.h"
#include "base/rng.h"
#include "support/fail_alloc.h"
#include "tensor/logprob.h"
#include "tensor/loss.h"
#include "tensor/tape.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { VARS = 12, VALUES = 4096, SEQS = 3, TOKENS = 192 };

enum var_kind { VAR_TENSOR, VAR_MATRIX, VAR_VECTOR };

/* Something that an op reads: the same values in double and as the op has them. */
struct var {
    enum var_kind kind;
    size_t rows, cols;
    double v[VALUES];
    struct tensor x;
    struct weight *w, own;
    struct weight_param param;
};

struct env {
    struct kern kern;
    struct team *team;
    struct op_ctx c;
    struct tape *tape;
    struct tape_opts opts;
    struct weight_store store;
    struct kv_pool *kv;
    struct kv_seq seq[SEQS];
    struct batch_run run[SEQS];
    struct batch b;
    struct var var[VARS];
    size_t n_var, n_y;
    double y[16384], extra; /* the definition's outputs; what it adds to the loss beside them */
    struct rng rng;
};

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static void env_init(struct env *f, uint64_t seed)
{
    struct err e = {0};
    memset(f, 0, sizeof *f);
    kern_init(&f->kern, cpu_best());
    die(team_new(&f->team, 2, &e), &e);
    op_ctx_init(&f->c, &f->kern, f->team);
    die(op_ctx_reserve(&f->c, 64 << 20, &e), &e);
    die(weight_store_init(&f->store, 8 << 20, &e), &e);
    rng_init(&f->rng, 11, seed);
}

static void env_release(struct env *f)
{
    for (size_t i = 0; i < f->n_var; i++)
        free(f->var[i].param.grad);
    for (size_t i = 0; i < f->b.n_runs; i++)
        kv_seq_release(&f->seq[i]);
    kv_pool_free(f->kv);
    weight_store_release(&f->store);
    tape_free(f->tape);
    op_ctx_release(&f->c);
    team_free(f->team);
}

/* ---- variables ------------------------------------------------------------------------------- */

static struct var *var_new(struct env *f, enum var_kind kind, size_t rows, size_t cols)
{
    assert_in_range(f->n_var, 0, VARS - 1);
    assert_in_range(rows * cols, 1, VALUES);
    struct var *v = &f->var[f->n_var++];
    v->kind = kind;
    v->rows = rows;
    v->cols = cols;
    for (size_t i = 0; i < rows * cols; i++) /* floats, so that both sides have the same */
        v->v[i] = (double)(float)(0.6 * rng_normal(&f->rng) + (kind == VAR_VECTOR ? 1 : 0));
    return v;
}

static struct tensor tensor_var(struct env *f, size_t rows, size_t cols)
{
    struct var *v = var_new(f, VAR_TENSOR, rows, cols);
    v->x = op_tensor(&f->c, rows, cols);
    for (size_t i = 0; i < rows * cols; i++)
        v->x.data[i] = (float)v->v[i];
    return v->x;
}

/* A weight at `w` (which does not move), with a gradient. */
static void weight_var_at(struct env *f, struct weight *w, size_t rows, size_t cols)
{
    struct err e = {0};
    struct var *v = var_new(f, rows == 1 ? VAR_VECTOR : VAR_MATRIX, rows, cols);
    float *values = malloc(rows * cols * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < rows * cols; i++)
        values[i] = (float)v->v[i];
    struct weight_rows from = {.at = (const uint8_t *)values};
    const struct quant_type *t = quant_by_id(QUANT_F32);
    if (rows == 1)
        die(weight_vector(w, "w", t, cols, &from, &f->store, &e), &e);
    else
        die(weight_matrix(w, "w", t, rows, cols, &from, &f->kern, f->team, &f->store, &e), &e);
    w->from.at = NULL;
    free(values);
    v->w = w;
    v->param.n = weight_values(w);
    v->param.value = w->own;
    v->param.grad = calloc(v->param.n, sizeof(float));
    assert_non_null(v->param.grad);
    w->param = &v->param;
}

static struct weight *weight_var(struct env *f, size_t rows, size_t cols)
{
    struct weight *w = &f->var[f->n_var].own;
    weight_var_at(f, w, rows, cols);
    return w;
}

static double var_gradient(struct env *f, const struct var *v, size_t r, size_t c)
{
    if (v->kind == VAR_TENSOR) {
        float *g = tape_grad(f->tape, v->x);
        assert_non_null(g);
        return (double)g[r * v->cols + c];
    }
    return (double)v->param.grad[v->kind == VAR_VECTOR ? c : (r / 16 * v->cols + c) * 16 + r % 16];
}

/* ---- the check ------------------------------------------------------------------------------- */

static double coefficient(size_t i)
{
    return (double)(float)(sin((double)i * 1.7 + 0.3) + 0.2);
}

/* An op's definition: from f->var[].v into f->y, n_y values. */
typedef void definition(struct env *f);

static double loss_of(struct env *f, definition *def)
{
    double sum = 0;
    f->extra = 0;
    def(f);
    for (size_t i = 0; i < f->n_y; i++)
        sum += coefficient(i) * f->y[i];
    return sum + f->extra;
}

static void begin(struct env *f)
{
    struct err e = {0};
    die(tape_new(&f->tape, &f->c, &f->opts, &e), &e);
    tape_start(f->tape);
}

/* Walks back from y and compares. */
static void check(struct env *f, const char *what, struct tensor y, definition *def)
{
    struct err e = {0};
    loss_of(f, def);
    assert_int_equal(y.rows * y.cols, f->n_y);
    for (size_t i = 0; i < f->n_y; i++)
        if (!(fabs((double)y.data[i] - f->y[i]) <= 2e-5 * (1 + fabs(f->y[i]))))
            fail_msg("%s: output %zu is %.8g, want %.8g", what, i, (double)y.data[i], f->y[i]);
    float *dy = tape_grad(f->tape, y);
    assert_non_null(dy);
    for (size_t i = 0; i < f->n_y; i++)
        dy[i] = (float)coefficient(i);
    die(tape_backward(f->tape, &e), &e);
    double extra = f->extra;
    assert_true(fabs(tape_balance(f->tape, 0) - extra) <= 1e-6 * (1 + fabs(extra)));
    for (size_t i = 0; i < f->n_var; i++) {
        struct var *v = &f->var[i];
        double largest = 0;
        for (size_t k = 0; k < v->rows * v->cols; k++) {
            double was = v->v[k], step = 1e-5;
            v->v[k] = was + step;
            double up = loss_of(f, def);
            v->v[k] = was - step;
            double want = (up - loss_of(f, def)) / (2 * step);
            v->v[k] = was;
            double got = var_gradient(f, v, k / v->cols, k % v->cols);
            largest = fmax(largest, fabs(want));
            if (!(fabs(got - want) <= 3e-5 + 1e-4 * fabs(want)))
                fail_msg("%s: variable %zu, value %zu: %.8g, want %.8g", what, i, k, got, want);
        }
        assert_true(largest > 1e-3); /* the test looks at something */
    }
    env_release(f);
}

/* ---- definitions ----------------------------------------------------------------------------- */

static void d_norm(double *y, const double *x, const double *w, size_t n, double eps)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] / sqrt(sum / (double)n + eps) * w[i];
}

static void d_linear(double *y, const double *x, const double *w, size_t rows, size_t cols)
{
    for (size_t r = 0; r < rows; r++) {
        y[r] = 0;
        for (size_t c = 0; c < cols; c++)
            y[r] += w[r * cols + c] * x[c];
    }
}

static double d_silu(double x)
{
    return x / (1 + exp(-x));
}

/* Rotates n values in place by position `pos`; angles pos × freq[i]. */
static const double freqs[8] = {1, 0.6, 0.31, 0.17, 0.09, 0.05, 0.02, 0.01};

static void d_rope(double *x, size_t n, size_t pos, bool half, double scale)
{
    double y[64];
    for (size_t i = 0; i < n / 2; i++) {
        size_t a = half ? i : 2 * i, b = half ? i + n / 2 : 2 * i + 1;
        double c = cos((double)pos * freqs[i]) * scale, s = sin((double)pos * freqs[i]) * scale;
        y[a] = x[a] * c - x[b] * s;
        y[b] = x[a] * s + x[b] * c;
    }
    memcpy(x, y, n * sizeof *x);
}

static const uint32_t positions[] = {0, 1, 2, 3, 4, 5, 6, 7};

static struct tensor rope_table(struct env *f, size_t n, size_t d, float scale)
{
    return op_rope_table(&f->c, positions, n, freqs, d, scale);
}

/* ---- simple ops ------------------------------------------------------------------------------ */

static const int32_t some_ids[] = {3, 17, 3, 0, 18, 17};

static void def_embed(struct env *f)
{
    f->n_y = 6 * 5;
    for (size_t i = 0; i < 6; i++)
        for (size_t c = 0; c < 5; c++)
            f->y[i * 5 + c] = f->var[0].v[(size_t)some_ids[i] * 5 + c];
}

static struct env f;

static void test_embed(void **state)
{
    (void)state;
    env_init(&f, 1);
    struct weight *w = weight_var(&f, 19, 5);
    begin(&f);
    check(&f, "embed", op_embed(&f.c, w, some_ids, 6), def_embed);
}

static const uint32_t some_rows[] = {4, 1, 4, 0};

static void def_rows(struct env *g)
{
    g->n_y = 4 * 7;
    for (size_t i = 0; i < 4; i++)
        memcpy(g->y + i * 7, g->var[0].v + some_rows[i] * 7, 7 * sizeof *g->y);
}

static void test_rows(void **state)
{
    (void)state;
    env_init(&f, 2);
    struct tensor x = tensor_var(&f, 5, 7);
    begin(&f);
    check(&f, "rows", op_rows(&f.c, x, some_rows, 4), def_rows);
}

static void def_rmsnorm(struct env *g)
{
    g->n_y = 5 * 21;
    for (size_t r = 0; r < 5; r++)
        d_norm(g->y + r * 21, g->var[0].v + r * 21, g->var[1].v, 21, 1e-3);
}

static void def_head_norm(struct env *g)
{
    g->n_y = 3 * 4 * 6;
    for (size_t r = 0; r < 12; r++)
        d_norm(g->y + r * 6, g->var[0].v + r * 6, g->var[1].v, 6, 1e-4);
}

static void test_norms(void **state)
{
    (void)state;
    env_init(&f, 3);
    struct tensor x = tensor_var(&f, 5, 21);
    struct weight *w = weight_var(&f, 1, 21);
    begin(&f);
    check(&f, "rmsnorm", op_rmsnorm(&f.c, x, w, 1e-3f), def_rmsnorm);
    env_init(&f, 4);
    x = tensor_var(&f, 3, 24);
    w = weight_var(&f, 1, 6);
    begin(&f);
    check(&f, "head norm", op_head_norm(&f.c, x, 4, w, 1e-4f), def_head_norm);
}

static bool turn_half;

/* Two heads of 9: values 2 to 7 of each are rotated. */
static void def_rope(struct env *g)
{
    g->n_y = 4 * 18;
    memcpy(g->y, g->var[0].v, g->n_y * sizeof *g->y);
    for (size_t t = 0; t < 4; t++)
        for (size_t h = 0; h < 2; h++)
            d_rope(g->y + t * 18 + h * 9 + 2, 6, t, turn_half, (double)1.25f);
}

static void def_latent(struct env *g)
{
    g->n_y = 4 * 15;
    for (size_t t = 0; t < 4; t++) {
        double *y = g->y + t * 15;
        memcpy(y, g->var[0].v + t * 15, 15 * sizeof *y);
        d_norm(y, g->var[0].v + t * 15, g->var[1].v, 11, 1e-3);
        d_rope(y + 11, 4, t, turn_half, 1);
    }
}

static void test_turns(void **state)
{
    (void)state;
    for (int half = 0; half < 2; half++) {
        turn_half = half;
        env_init(&f, 5);
        struct tensor x = tensor_var(&f, 4, 18), table = rope_table(&f, 4, 6, 1.25f);
        begin(&f);
        check(&f, "rope", op_rope(&f.c, x, 2, 2, table, half), def_rope);
        env_init(&f, 6);
        x = tensor_var(&f, 4, 15);
        struct weight *w = weight_var(&f, 1, 11);
        table = rope_table(&f, 4, 4, 1);
        begin(&f);
        check(&f, "latent", op_latent(&f.c, x, w, 1e-3f, table, half), def_latent);
    }
}

/* [x ; y] + [y ; x]: both ops, and tensors that are read twice. */
static void def_concat(struct env *g)
{
    g->n_y = 3 * 10;
    for (size_t r = 0; r < 3; r++)
        for (size_t c = 0; c < 5; c++) {
            double x = g->var[0].v[r * 5 + c], y = g->var[1].v[r * 5 + c];
            g->y[r * 10 + c] = g->y[r * 10 + 5 + c] = x + y;
        }
}

static void test_concat(void **state)
{
    (void)state;
    env_init(&f, 7);
    struct tensor x = tensor_var(&f, 3, 5), y = tensor_var(&f, 3, 5);
    begin(&f);
    struct tensor a = op_concat(&f.c, x, y), b = op_concat(&f.c, y, x);
    check(&f, "concat, add", op_add(&f.c, a, b), def_concat);
}

/* ---- products -------------------------------------------------------------------------------- */

static void def_linear(struct env *g)
{
    g->n_y = 5 * 19;
    for (size_t r = 0; r < 5; r++) {
        d_linear(g->y + r * 19, g->var[0].v + r * 13, g->var[1].v, 19, 13);
        for (size_t i = 0; i < 19; i++)
            g->y[r * 19 + i] += g->var[2].v[i];
    }
}

static void test_linear(void **state)
{
    (void)state;
    env_init(&f, 8);
    struct tensor x = tensor_var(&f, 5, 13);
    struct weight *w = weight_var(&f, 19, 13), *b = weight_var(&f, 1, 19);
    begin(&f);
    check(&f, "linear", op_linear(&f.c, x, w, b), def_linear);
}

/* A fixed weight gives its input a gradient through the values that its codes stand for. */
static float q8_values[8 * 32];

static void def_quantized(struct env *g)
{
    double w[8 * 32];
    for (size_t i = 0; i < NUM_COUNT(w); i++)
        w[i] = (double)q8_values[i];
    g->n_y = 3 * 8;
    for (size_t r = 0; r < 3; r++)
        d_linear(g->y + r * 8, g->var[0].v + r * 32, w, 8, 32);
}

static void test_quantized(void **state)
{
    (void)state;
    struct err e = {0};
    const struct quant_type *t = quant_by_id(QUANT_Q8_0);
    size_t bytes;
    struct weight w;
    env_init(&f, 9);
    kern_float(&f.kern);
    struct tensor x = tensor_var(&f, 3, 32);
    assert_true(quant_size(t, 32, &bytes));
    uint8_t rows[8 * 64];
    for (size_t r = 0; r < 8; r++) {
        float v[32];
        for (size_t i = 0; i < 32; i++)
            v[i] = (float)rng_normal(&f.rng);
        t->encode(rows + r * bytes, v, 32, NULL);
        t->decode(q8_values + r * 32, rows + r * bytes, 32);
    }
    struct weight_rows from = {.at = rows};
    die(weight_matrix(&w, "q", t, 8, 32, &from, &f.kern, f.team, &f.store, &e), &e);
    assert_null(w.own);
    begin(&f);
    check(&f, "quantized", op_linear(&f.c, x, &w, NULL), def_quantized);
}

/* y = W x + 0.7 B (A x) */
static void def_lora(struct env *g)
{
    double low[3], add[18];
    g->n_y = 4 * 18;
    for (size_t r = 0; r < 4; r++) {
        const double *x = g->var[0].v + r * 9;
        d_linear(g->y + r * 18, x, g->var[1].v, 18, 9);
        d_linear(low, x, g->var[2].v, 3, 9);
        d_linear(add, low, g->var[3].v, 18, 3);
        for (size_t i = 0; i < 18; i++)
            g->y[r * 18 + i] += (double)0.7f * add[i];
    }
}

static void test_lora(void **state)
{
    (void)state;
    static struct weight_lora l;
    env_init(&f, 10);
    struct tensor x = tensor_var(&f, 4, 9);
    struct weight *w = weight_var(&f, 18, 9);
    l.scale = 0.7f;
    weight_var_at(&f, &l.a, 3, 9);
    weight_var_at(&f, &l.b, 18, 3);
    w->lora = &l;
    begin(&f);
    check(&f, "lora", op_linear(&f.c, x, w, NULL), def_lora);
}

/* Two heads of 7 + 4 values to 5 + 4: a product each, and 4 values that are rotated. */
static void def_heads(struct env *g)
{
    g->n_y = 3 * 18;
    for (size_t t = 0; t < 3; t++)
        for (size_t h = 0; h < 2; h++) {
            const double *x = g->var[0].v + t * 22 + h * 11;
            double *y = g->y + t * 18 + h * 9;
            d_linear(y, x, g->var[1 + h].v, 5, 7);
            memcpy(y + 5, x + 7, 4 * sizeof *y);
            d_rope(y + 5, 4, t, true, 1);
        }
}

static void test_heads(void **state)
{
    (void)state;
    static struct weight w[2];
    env_init(&f, 11);
    struct tensor x = tensor_var(&f, 3, 22), table = rope_table(&f, 3, 4, 1);
    weight_var_at(&f, &w[0], 5, 7);
    weight_var_at(&f, &w[1], 5, 7);
    begin(&f);
    check(&f, "linear heads", op_linear_heads(&f.c, x, 2, w, table, true), def_heads);
}

static void def_swiglu(struct env *g)
{
    double a[18], b[18];
    g->n_y = 4 * 18;
    for (size_t r = 0; r < 4; r++) {
        d_linear(a, g->var[0].v + r * 6, g->var[1].v, 18, 6);
        d_linear(b, g->var[0].v + r * 6, g->var[2].v, 18, 6);
        for (size_t i = 0; i < 18; i++)
            g->y[r * 18 + i] = d_silu(a[i]) * b[i];
    }
}

static void test_swiglu(void **state)
{
    (void)state;
    env_init(&f, 12);
    struct tensor x = tensor_var(&f, 4, 6);
    struct weight *gate = weight_var(&f, 18, 6), *up = weight_var(&f, 18, 6);
    begin(&f);
    check(&f, "swiglu", op_swiglu(&f.c, x, gate, up), def_swiglu);
}

/* ---- attention ------------------------------------------------------------------------------- */

static struct attention_args heads;
static size_t lengths[SEQS];
static bool latent;

static void def_attention(struct env *g)
{
    size_t dk = heads.d_k, dv = heads.d_v, nq = heads.n_head, nk = heads.n_kv_head, row = 0;
    size_t ldv = latent ? dk : nk * dv;
    const double *v = latent ? g->var[1].v : g->var[2].v;
    for (size_t s = 0; s < g->b.n_runs; row += lengths[s++])
        for (size_t i = 0; i < lengths[s]; i++)
            for (size_t h = 0; h < nq; h++) {
                size_t kv = h / (nq / nk);
                double p[TOKENS], sum = 0, *y = g->y + (row + i) * nq * dv + h * dv;
                for (size_t j = 0; j <= i; j++) {
                    double dot = 0;
                    for (size_t d = 0; d < dk; d++)
                        dot += g->var[0].v[(row + i) * nq * dk + h * dk + d] *
                               g->var[1].v[(row + j) * nk * dk + kv * dk + d];
                    sum += p[j] = exp(dot * (double)heads.scale);
                }
                for (size_t d = 0; d < dv; d++)
                    y[d] = 0;
                for (size_t j = 0; j <= i; j++)
                    for (size_t d = 0; d < dv; d++)
                        y[d] += p[j] / sum * v[(row + j) * ldv + kv * dv + d];
            }
    g->n_y = row * nq * dv;
}

static void check_attention(const char *what, size_t n_head, size_t n_kv, size_t dk, size_t dv)
{
    struct err e = {0};
    size_t n = 0, runs = 0;
    heads = (struct attention_args){
        .n_head = n_head, .n_kv_head = n_kv, .d_k = dk, .d_v = dv, .scale = 0.4f};
    env_init(&f, 20);
    struct kv_shape shape = {1, n_kv, dk, dv, QUANT_F32, latent};
    die(kv_pool_new(&f.kv, &shape, 8, &e), &e);
    for (; runs < SEQS && lengths[runs]; runs++) {
        die(kv_seq_init(&f.seq[runs], f.kv, TOKENS, &e), &e);
        die(kv_seq_reserve(&f.seq[runs], 0, 0, lengths[runs], &e), &e);
        f.run[runs] = (struct batch_run){.seq = &f.seq[runs], .row = n, .n = lengths[runs]};
        n += lengths[runs];
    }
    f.b = (struct batch){.n = n, .runs = f.run, .n_runs = runs};
    struct tensor q = tensor_var(&f, n, n_head * dk), k = tensor_var(&f, n, n_kv * dk), v = {0};
    if (!latent)
        v = tensor_var(&f, n, n_kv * dv);
    begin(&f);
    check(&f, what, op_attention(&f.c, q, k, v, &heads, &f.b), def_attention);
}

static void test_attention(void **state)
{
    (void)state;
    memcpy(lengths, (size_t[]){7, 1, 12}, sizeof lengths);
    check_attention("attention", 4, 2, 6, 6);
    memcpy(lengths, (size_t[]){5, 3, 9}, sizeof lengths);
    check_attention("attention, values of another width", 3, 3, 5, 7);
    latent = true;
    check_attention("attention over latents", 4, 1, 10, 7);
    latent = false;
    /* more than a block of queries and positions */
    memcpy(lengths, (size_t[]){150, 0, 0}, sizeof lengths);
    check_attention("attention, long", 2, 1, 3, 2);
}

/* ---- experts --------------------------------------------------------------------------------- */

static struct router_args router;
static double balance;

/* The router's definition: the choice is read off the scores, which small steps do not change. */
static void d_route(struct env *g, const double *logits, double *s, size_t *chosen, double *w)
{
    size_t n = router.n_expert, k = router.n_used;
    double sum = 0;
    (void)g;
    for (size_t i = 0; i < n; i++) {
        s[i] = router.score == ROUTER_SOFTMAX ? exp(logits[i]) : 1 / (1 + exp(-logits[i]));
        sum += s[i];
    }
    for (size_t i = 0; i < n && router.score == ROUTER_SOFTMAX; i++)
        s[i] /= sum;
    bool in[16] = {false};
    for (size_t j = 0; j < k; j++) {
        size_t best = n;
        for (size_t i = 0; i < n; i++)
            if (!in[i] && (best == n || s[i] > s[best]))
                best = i;
        in[best] = true;
    }
    sum = 0;
    for (size_t i = 0, j = 0; i < n; i++)
        if (in[i]) {
            chosen[j] = i;
            sum += w[j++] = s[i];
        }
    for (size_t j = 0; j < k; j++)
        w[j] *= (double)router.scale / (router.norm ? sum : 1);
}

/* The balance loss of every sequence, equations 17 to 20 of DeepSeek-V3. */
static double d_balance(struct env *g)
{
    double loss = 0, s[16], w[16];
    size_t n = router.n_expert, k = router.n_used, chosen[16];
    for (size_t r = 0; r < g->b.n_runs; r++) {
        double count[16] = {0}, mean[16] = {0}, len = (double)g->run[r].n;
        for (size_t t = g->run[r].row; t < g->run[r].row + g->run[r].n; t++) {
            double sum = 0;
            d_route(g, g->var[0].v + t * n, s, chosen, w);
            for (size_t j = 0; j < k; j++)
                count[chosen[j]]++;
            for (size_t i = 0; i < n; i++)
                sum += s[i];
            for (size_t i = 0; i < n; i++)
                mean[i] += s[i] / sum / len;
        }
        for (size_t i = 0; i < n; i++)
            loss += balance * (double)n / ((double)k * len) * count[i] * mean[i];
    }
    return loss;
}

static void def_route(struct env *g)
{
    double s[16];
    size_t chosen[16];
    g->n_y = 9 * router.n_used;
    for (size_t t = 0; t < 9; t++)
        d_route(g, g->var[0].v + t * router.n_expert, s, chosen, g->y + t * router.n_used);
    g->extra = balance != 0 ? d_balance(g) : 0;
}

static void test_route(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        balance = i & 4 ? 0.75 : 0;
        router = (struct router_args){.n_expert = 6,
                                      .n_used = 3,
                                      .score = i & 1 ? ROUTER_SIGMOID : ROUTER_SOFTMAX,
                                      .norm = i & 2,
                                      .scale = 2.5f};
        env_init(&f, 30);
        f.opts.balance = (float)balance;
        f.run[0] = (struct batch_run){.row = 0, .n = 4};
        f.run[1] = (struct batch_run){.row = 4, .n = 5};
        f.b = (struct batch){.n = 9, .runs = f.run, .n_runs = 2};
        struct router_args a = router;
        a.batch = &f.b;
        struct tensor logits = tensor_var(&f, 9, 6);
        begin(&f);
        struct routing r = op_route(&f.c, logits, &a);
        check(&f, "route", (struct tensor){r.weight, r.n, r.n_used}, def_route);
    }
    balance = 0;
}

/* Counts for a bias that steers: no gradient, and none of the loss's either. */
static void test_steer(void **state)
{
    (void)state;
    struct err e = {0};
    env_init(&f, 31);
    struct tensor logits = tensor_var(&f, 9, 6);
    struct weight *bias = weight_var(&f, 1, 6);
    struct router_args a = {
        .n_expert = 6, .n_used = 2, .score = ROUTER_SIGMOID, .norm = true, .scale = 1};
    a.bias = bias;
    begin(&f);
    struct routing r = op_route(&f.c, logits, &a);
    float *dw = tape_grad(f.tape, (struct tensor){r.weight, r.n, r.n_used}), count[6] = {0};
    assert_non_null(dw);
    for (size_t i = 0; i < 18; i++) {
        dw[i] = 1;
        count[r.expert[i]]++;
    }
    for (int i = 0; i < 2; i++) /* a pass adds to what is there */
        die(tape_backward(f.tape, &e), &e);
    for (size_t i = 0; i < 6; i++)
        assert_true(f.var[1].param.grad[i] == 2 * count[i]);
    env_release(&f);
}

enum { E = 4, D = 5, FF = 18, T = 7 };

/* Tokens, their logits, then gate, up and down for even experts and for odd ones: two experts share
 * a weight, whose gradient is that of both. */
static void def_moe(struct env *g)
{
    double s[16], w[16], a[FF], b[FF], y[D];
    size_t chosen[16];
    g->n_y = T * D;
    for (size_t t = 0; t < T; t++) {
        const double *x = g->var[0].v + t * D;
        d_route(g, g->var[1].v + t * E, s, chosen, w);
        for (size_t i = 0; i < D; i++)
            g->y[t * D + i] = 0;
        for (size_t j = 0; j < router.n_used; j++) {
            size_t v = 2 + chosen[j] % 2 * 3;
            d_linear(a, x, g->var[v].v, FF, D);
            d_linear(b, x, g->var[v + 1].v, FF, D);
            for (size_t i = 0; i < FF; i++)
                a[i] = d_silu(a[i]) * b[i];
            d_linear(y, a, g->var[v + 2].v, D, FF);
            for (size_t i = 0; i < D; i++)
                g->y[t * D + i] += w[j] * y[i];
        }
    }
}

static void test_moe(void **state)
{
    (void)state;
    static struct weight gate[E], up[E], down[E];
    env_init(&f, 32);
    router = (struct router_args){
        .n_expert = E, .n_used = 2, .score = ROUTER_SIGMOID, .norm = true, .scale = 1.5f};
    struct tensor x = tensor_var(&f, T, D), logits = tensor_var(&f, T, E);
    for (size_t e = 0; e < 2; e++) {
        weight_var_at(&f, &gate[e], FF, D);
        weight_var_at(&f, &up[e], FF, D);
        weight_var_at(&f, &down[e], D, FF);
        gate[e + 2] = gate[e];
        up[e + 2] = up[e];
        down[e + 2] = down[e];
    }
    begin(&f);
    struct routing r = op_route(&f.c, logits, &router);
    check(&f, "moe", op_moe(&f.c, x, &r, gate, up, down, E), def_moe);
}

/* ---- the head -------------------------------------------------------------------------------- */

enum { ROWS = 300, VOCAB = 37, WIDTH = 6 };

struct ce {
    const struct kern *kern;
    double loss[ROWS];
    float logits[ROWS][VOCAB], logprob[ROWS];
};

static void ce_row(void *arg, size_t row, float *logits, size_t n)
{
    struct ce *c = arg;
    struct logprob lp;
    assert_int_equal(n, VOCAB);
    memcpy(c->logits[row], logits, sizeof c->logits[row]);
    logprob_of(c->kern, logits, n, 0.8f, (int32_t)(row % VOCAB), &lp);
    c->logprob[row] = lp.value;
    for (size_t i = 0; i < n; i++)
        logits[i] = (float)coefficient(row * VOCAB + i);
}

/* More rows than a chunk has, some left out: the logits are op_linear's, the gradients those of
 * op_linear's backward. */
static void test_head(void **state)
{
    (void)state;
    static struct ce c;
    static bool skip[ROWS];
    static float dx[ROWS * WIDTH];
    struct err e = {0};
    env_init(&f, 40);
    c.kern = &f.kern;
    struct tensor x = tensor_var(&f, ROWS, WIDTH);
    struct weight *w = weight_var(&f, VOCAB, WIDTH);
    begin(&f);
    struct tensor y = op_linear(&f.c, x, w, NULL);
    float *dy = tape_grad(f.tape, y);
    assert_non_null(dy);
    for (size_t r = 0; r < ROWS; r++) {
        skip[r] = r % 5 == 3 || r < 2;
        for (size_t i = 0; i < VOCAB && !skip[r]; i++)
            dy[r * VOCAB + i] = (float)coefficient(r * VOCAB + i);
    }
    die(tape_backward(f.tape, &e), &e);
    const float *want = tape_grad(f.tape, x);
    struct weight_param *p = w->param;
    float *grad = malloc(p->n * sizeof *grad);
    assert_non_null(grad);
    memcpy(grad, p->grad, p->n * sizeof *grad);
    memset(p->grad, 0, p->n * sizeof *grad);
    loss_head(&f.c, x, w, skip, ce_row, &c, dx);
    for (size_t r = 0; r < ROWS; r++) {
        if (skip[r])
            continue;
        assert_memory_equal(c.logits[r], y.data + r * VOCAB, sizeof c.logits[r]);
        double sum = 0;
        for (size_t i = 0; i < VOCAB; i++)
            sum += exp((double)c.logits[r][i] / 0.8);
        double lp = (double)c.logits[r][r % VOCAB] / 0.8 - log(sum);
        assert_true(fabs((double)c.logprob[r] - lp) <= 2e-6 * (1 + fabs(lp)));
    }
    assert_memory_equal(dx, want, sizeof dx);
    for (size_t i = 0; i < p->n; i++) /* rows left out have added zeros above, and nothing here */
        assert_true(grad[i] == p->grad[i]);
    free(grad);
    env_release(&f);
}

/* ---- what has no gradient -------------------------------------------------------------------- */

/* The way back through attention over a cache of a type, of a sequence that begins at `pos`. */
static int back_through(enum quant_id type, size_t pos, struct err *e)
{
    env_init(&f, 50);
    heads = (struct attention_args){.n_head = 1, .n_kv_head = 1, .d_k = 4, .d_v = 4, .scale = 1};
    struct kv_shape shape = {1, 1, 4, 4, type, false};
    die(kv_pool_new(&f.kv, &shape, 2, e), e);
    die(kv_seq_init(&f.seq[0], f.kv, TOKENS, e), e);
    die(kv_seq_reserve(&f.seq[0], 0, 0, pos + 3, e), e);
    f.run[0] = (struct batch_run){.seq = &f.seq[0], .n = 3, .pos = pos};
    f.b = (struct batch){.n = 3, .runs = f.run, .n_runs = 1};
    struct tensor q = tensor_var(&f, 3, 4), k = tensor_var(&f, 3, 4), v = tensor_var(&f, 3, 4);
    begin(&f);
    struct tensor y = op_attention(&f.c, q, k, v, &heads, &f.b);
    assert_non_null(tape_grad(f.tape, y));
    int rc = tape_backward(f.tape, e);
    env_release(&f);
    return rc;
}

static void test_refused(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(back_through(QUANT_F32, 0, &e), 0);
    assert_int_equal(back_through(QUANT_F32, 2, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "position 2"));
    assert_int_equal(back_through(QUANT_F16, 0, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "F16"));
}

/* Memory may be gone at any moment: the walk says so, and nothing else happens. */
static void test_memory(void **state)
{
    (void)state;
    struct err e = {0};
    env_init(&f, 51);
    struct tensor x = tensor_var(&f, 5, 13);
    struct weight *w = weight_var(&f, 19, 13);
    size_t used = f.c.used, n = 1;
    for (bool failed = true; failed; n++) {
        struct tape *t;
        f.c.used = used;
        fail_alloc_from(n);
        int rc = tape_new(&t, &f.c, &(struct tape_opts){false, 0}, &e);
        if (!rc) {
            tape_start(t);
            struct tensor y = op_linear(&f.c, x, w, NULL);
            float *dy = tape_grad(t, y);
            if (dy)
                memset(dy, 0, y.rows * y.cols * sizeof *dy);
            rc = tape_backward(t, &e);
            tape_free(t);
        }
        failed = fail_alloc_stop();
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        assert_null(f.c.tape);
    }
    assert_in_range(n, 4, 20);
    env_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_embed),     cmocka_unit_test(test_rows),
        cmocka_unit_test(test_norms),     cmocka_unit_test(test_turns),
        cmocka_unit_test(test_concat),    cmocka_unit_test(test_linear),
        cmocka_unit_test(test_quantized), cmocka_unit_test(test_lora),
        cmocka_unit_test(test_heads),     cmocka_unit_test(test_swiglu),
        cmocka_unit_test(test_attention), cmocka_unit_test(test_route),
        cmocka_unit_test(test_steer),     cmocka_unit_test(test_moe),
        cmocka_unit_test(test_head),      cmocka_unit_test(test_refused),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
