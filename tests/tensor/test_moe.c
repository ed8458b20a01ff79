/* The router against its definition in double; the mixture against double and, bit for bit,
 * against the same experts one token at a time by op_swiglu and op_linear. */
#include "base/num.h"
#include "base/rng.h"
#include "tensor/ops.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D_MAX = 256, TOKENS_MAX = 700, EXPERTS_MAX = 256 };

/* ---- the router ------------------------------------------------------------------------------ */

struct bench {
    struct kern kern;
    struct team *team;
    struct op_ctx c;
};

static void bench_init(struct bench *b, enum cpu_isa isa, int threads)
{
    struct err e = {0};
    kern_init(&b->kern, isa);
    assert_int_equal(team_new(&b->team, threads, &e), 0);
    op_ctx_init(&b->c, &b->kern, b->team);
    assert_int_equal(op_ctx_reserve(&b->c, 64 << 20, &e), 0);
}

static void bench_release(struct bench *b)
{
    op_ctx_release(&b->c);
    team_free(b->team);
}

static const struct router_args routers[] = {
    /* R1 and V3; V2; V2-Lite */
    {256, 8, 8, 4, ROUTER_SIGMOID, true, true, 2.5f, NULL},
    {160, 6, 8, 3, ROUTER_SOFTMAX, false, false, 16.0f, NULL},
    {64, 6, 1, 1, ROUTER_SOFTMAX, false, false, 1.0f, NULL},
    /* other mixes, and the ends */
    {12, 4, 3, 2, ROUTER_SOFTMAX, true, true, 1.5f, NULL},
    {12, 4, 3, 2, ROUTER_SIGMOID, false, false, 1.0f, NULL},
    {12, 12, 3, 3, ROUTER_SIGMOID, true, true, 2.5f, NULL},
    {8, 2, 8, 2, ROUTER_SIGMOID, true, false, 1.0f, NULL},
    {7, 7, 0, 0, ROUTER_SOFTMAX, false, true, 1.0f, NULL},
    {1, 1, 1, 1, ROUTER_SIGMOID, true, true, 2.5f, NULL},
    {1, 1, 0, 0, ROUTER_SOFTMAX, false, false, 1.0f, NULL},
};

/* Marks the `k` best of v: the largest, again and again; the first of equals. */
static void best(const double *v, size_t n, size_t k, bool *in)
{
    memset(in, 0, n * sizeof *in);
    for (size_t j = 0; j < k; j++) {
        size_t at = n;
        for (size_t i = 0; i < n; i++)
            if (!in[i] && (at == n || v[i] > v[at]))
                at = i;
        in[at] = true;
    }
}

/* The definition: weight of each expert, 0 for those that are not chosen. */
static void route_double(const struct router_args *a, const float *logits, bool *in, double *w)
{
    size_t n = a->n_expert;
    double s[EXPERTS_MAX], v[EXPERTS_MAX], worth[EXPERTS_MAX], sum = 0, max = -INFINITY;
    bool kept[EXPERTS_MAX];
    for (size_t i = 0; i < n; i++)
        max = fmax(max, logits[i]);
    for (size_t i = 0; i < n; i++) {
        s[i] = a->score == ROUTER_SOFTMAX ? exp(logits[i] - max) : 1 / (1 + exp(-logits[i]));
        sum += s[i];
    }
    for (size_t i = 0; i < n; i++) {
        s[i] /= a->score == ROUTER_SOFTMAX ? sum : 1;
        v[i] = s[i] + (a->bias ? a->bias->vec[i] : 0);
    }
    if (a->n_group > 1) {
        size_t size = n / a->n_group;
        for (size_t g = 0; g < a->n_group; g++) {
            bool top[EXPERTS_MAX];
            best(v + g * size, size, num_min(size, a->group_top2 ? 2 : 1), top);
            worth[g] = 0;
            for (size_t i = 0; i < size; i++)
                worth[g] += top[i] ? v[g * size + i] : 0;
        }
        best(worth, a->n_group, a->n_group_used, kept);
        for (size_t i = 0; i < n; i++)
            v[i] = kept[i / size] ? v[i] : -INFINITY;
    }
    best(v, n, a->n_used, in);
    sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += in[i] ? s[i] : 0;
    for (size_t i = 0; i < n; i++)
        w[i] = in[i] ? s[i] / (a->norm ? sum + 1e-20 : 1) * a->scale : 0;
}

static void check_route(const struct router_args *a, const float *logits, const struct routing *r,
                        size_t t)
{
    bool in[EXPERTS_MAX];
    double w[EXPERTS_MAX];
    size_t m = 0;
    route_double(a, logits, in, w);
    for (size_t i = 0; i < a->n_expert; i++) {
        if (!in[i])
            continue;
        size_t at = t * a->n_used + m++;
        assert_int_equal(r->expert[at], i);
        /* the sum of a softmax: n roundings; the rest: some more */
        double bound = fabs(w[i]) * ((double)a->n_expert + 16) * 6e-8;
        if (!(fabs(r->weight[at] - w[i]) <= bound))
            fail_msg("token %zu, expert %zu: %.9g, want %.9g", t, i, r->weight[at], w[i]);
    }
    assert_int_equal(m, a->n_used);
}

static void fill(float *x, size_t n, uint64_t stream)
{
    struct rng r;
    rng_init(&r, 5, stream);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&r);
}

static void test_route(void **state)
{
    (void)state;
    enum { N = 40 };
    static float logits[N * EXPERTS_MAX], bias[EXPERTS_MAX];
    struct weight b = {.name = "b", .rows = 1, .vec = bias};
    struct bench f;
    bench_init(&f, cpu_best(), 2);
    for (size_t i = 0; i < 2 * NUM_COUNT(routers); i++) {
        struct router_args a = routers[i / 2];
        fill(logits, N * a.n_expert, i);
        fill(bias, a.n_expert, i + 100);
        b.cols = a.n_expert;
        a.bias = i % 2 ? &b : NULL;
        assert_int_equal(router_check(&a, NULL), 0);
        struct routing r = op_route(&f.c, (struct tensor){logits, N, a.n_expert}, &a);
        assert_int_equal(r.n, N);
        assert_int_equal(r.n_used, a.n_used);
        for (size_t t = 0; t < N; t++)
            check_route(&a, logits + t * a.n_expert, &r, t);
        f.c.used = 0;
    }
    bench_release(&f);
}

/* The same bits at every instruction set, in any cut, by any number of threads. */
static void test_route_bits(void **state)
{
    (void)state;
    enum { N = 70 };
    static float logits[N * EXPERTS_MAX], bias[EXPERTS_MAX];
    struct weight b = {.name = "b", .rows = 1, .vec = bias};
    struct bench one;
    bench_init(&one, CPU_SCALAR, 1);
    for (size_t i = 0; i < NUM_COUNT(routers); i++) {
        struct router_args a = routers[i];
        fill(logits, N * a.n_expert, i);
        fill(bias, a.n_expert, i + 100);
        b.cols = a.n_expert;
        a.bias = i % 2 ? NULL : &b;
        struct routing want = op_route(&one.c, (struct tensor){logits, N, a.n_expert}, &a);
        for (int isa = CPU_SCALAR; isa <= (int)cpu_best(); isa++) {
            struct bench f;
            bench_init(&f, (enum cpu_isa)isa, 1 + isa % 3);
            for (size_t t = 0, n = 1; t < N; t += n, n = num_min(2 * n, N - t)) {
                struct routing r =
                    op_route(&f.c, (struct tensor){logits + t * a.n_expert, n, a.n_expert}, &a);
                size_t at = t * a.n_used, bytes = n * a.n_used * 4;
                assert_memory_equal(r.expert, want.expert + at, bytes);
                assert_memory_equal(r.weight, want.weight + at, bytes);
            }
            bench_release(&f);
        }
        one.c.used = 0;
    }
    bench_release(&one);
}

static void expect_experts(struct bench *f, const struct router_args *a, float *logits,
                           const uint32_t *want)
{
    f->c.used = 0;
    struct routing r = op_route(&f->c, (struct tensor){logits, 1, a->n_expert}, a);
    assert_memory_equal(r.expert, want, a->n_used * sizeof *want);
}

static void test_ties(void **state)
{
    (void)state;
    struct bench f;
    bench_init(&f, cpu_best(), 1);
    struct router_args a = {8, 3, 1, 1, ROUTER_SIGMOID, true, true, 1, NULL};
    expect_experts(&f, &a, (float[8]){0}, (uint32_t[]){0, 1, 2});
    expect_experts(&f, &a, (float[8]){0, 1, 0, 2, 0, 2, 0, 0}, (uint32_t[]){1, 3, 5});
    expect_experts(&f, &a, (float[8]){0, 0, 1, 0, 1, 1, 1, 1}, (uint32_t[]){2, 4, 5});
    /* groups that tie: the first ones stay */
    struct router_args g = {8, 3, 4, 2, ROUTER_SIGMOID, true, true, 1, NULL};
    expect_experts(&f, &g, (float[8]){0}, (uint32_t[]){0, 1, 2});
    expect_experts(&f, &g, (float[8]){0, 0, 3, 0, 0, 0, 0, 3}, (uint32_t[]){2, 3, 7});
    expect_experts(&f, &g, (float[8]){0, 0, 1, 2, 2, 1, 1, 2}, (uint32_t[]){2, 3, 4});
    /* V3's and V2's idea of a good group differ: one star, or two good ones */
    float star[8] = {4, -9, 1, 1, 0, 0, 0, 0};
    struct router_args s = {8, 2, 4, 1, ROUTER_SIGMOID, true, false, 1, NULL};
    expect_experts(&f, &s, star, (uint32_t[]){2, 3});
    s.group_top2 = false;
    expect_experts(&f, &s, star, (uint32_t[]){0, 1});
    /* a group whose scores with bias are below 0 still wins over one that lost */
    float low[8] = {-2, -2, -2, -2, -1, -1, -1, -1};
    struct weight b = {.name = "b", .rows = 1, .cols = 8, .vec = low};
    struct router_args m = {8, 3, 2, 1, ROUTER_SIGMOID, true, false, 1, &b};
    expect_experts(&f, &m, (float[8]){0}, (uint32_t[]){4, 5, 6});
    bench_release(&f);
}

/* Whatever the logits are, n_used different experts in ascending order come out. */
static void test_hostile_logits(void **state)
{
    (void)state;
    static const float odd[] = {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 0, 1, -NAN};
    static float logits[EXPERTS_MAX], bias[EXPERTS_MAX];
    struct weight b = {.name = "b", .rows = 1, .vec = bias};
    struct rng r;
    struct bench f;
    rng_init(&r, 3, 3);
    bench_init(&f, cpu_best(), 1);
    for (size_t i = 0; i < 2000; i++) {
        struct router_args a = routers[i % NUM_COUNT(routers)];
        size_t kinds = 1 + rng_u32(&r) % NUM_COUNT(odd), from = rng_u32(&r);
        for (size_t j = 0; j < a.n_expert; j++) {
            logits[j] = odd[(from + rng_u32(&r) % kinds) % NUM_COUNT(odd)];
            bias[j] = odd[rng_u32(&r) % NUM_COUNT(odd)];
        }
        b.cols = a.n_expert;
        a.bias = i % 3 ? NULL : &b;
        f.c.used = 0;
        struct routing got = op_route(&f.c, (struct tensor){logits, 1, a.n_expert}, &a);
        for (size_t j = 0; j < a.n_used; j++) {
            assert_true(got.expert[j] < a.n_expert);
            assert_true(j == 0 || got.expert[j - 1] < got.expert[j]);
        }
    }
    bench_release(&f);
}

static void test_router_check(void **state)
{
    (void)state;
    float v[8] = {0};
    struct weight b = {.name = "blk.3.exp_probs_b.bias", .rows = 1, .cols = 8, .vec = v};
    const struct router_args good = {16, 2, 4, 2, ROUTER_SIGMOID, true, true, 2.5f, NULL};
    struct router_args bad[12];
    struct err e = {0};
    size_t n = 0;
    assert_int_equal(router_check(&good, &e), 0);
    for (size_t i = 0; i < NUM_COUNT(bad); i++)
        bad[i] = good;
    bad[n++].n_expert = 0;
    bad[n++].n_expert = SIZE_MAX;
    bad[n++].n_used = 0;
    bad[n++].n_used = 17;
    bad[n++].n_group = 3;
    bad[n++].n_group = 32;
    bad[n++].n_group = SIZE_MAX;
    bad[n++].n_group_used = 0;
    bad[n++].n_group_used = 5;
    bad[n++].n_used = 9; /* two groups of four have eight */
    bad[n++].scale = NAN;
    bad[n++].bias = &b;
    assert_int_equal(n, NUM_COUNT(bad));
    for (size_t i = 0; i < n; i++)
        assert_int_equal(router_check(&bad[i], &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, b.name));
}

/* ---- the mixture ----------------------------------------------------------------------------- */

/* A matrix of each type and side; experts share them in many combinations. */
static const enum quant_id types[] = {QUANT_F32,  QUANT_BF16, QUANT_Q8_0,
                                      QUANT_Q5_0, QUANT_Q4_K, QUANT_IQ4_XS};
enum { TYPES = NUM_COUNT(types), FLOATS = 2 };

struct mix {
    size_t d, ff, n_types, n_expert;
    uint8_t *raw[TYPES][3];
    struct weight_store store;
    struct weight w[2 * TYPES][3]; /* by type and side; then lazy ones */
    struct weight gate[EXPERTS_MAX], up[EXPERTS_MAX], down[EXPERTS_MAX];
    float x[TOKENS_MAX * D_MAX];
};

static void mix_matrix(struct mix *m, size_t type, size_t side, const struct bench *f)
{
    const struct quant_type *t = quant_by_id(types[type]);
    size_t rows = side < 2 ? m->ff : m->d, cols = side < 2 ? m->d : m->ff, bytes;
    float *v = malloc(rows * cols * sizeof *v);
    assert_true(v && quant_size(t, rows * cols, &bytes));
    fill(v, rows * cols, 10 * type + side);
    for (size_t i = 0; i < rows * cols; i++)
        v[i] /= sqrtf((float)cols);
    uint8_t *raw = m->raw[type][side] = malloc(bytes);
    assert_non_null(raw);
    t->encode(raw, v, rows * cols, NULL);
    free(v);
    struct weight_rows from = {.at = raw};
    for (int lazy = 0; lazy < 2; lazy++)
        assert_int_equal(weight_matrix(&m->w[type + lazy * m->n_types][side], "w", t, rows, cols,
                                       &from, &f->kern, f->team, lazy ? NULL : &m->store, NULL),
                         0);
}

/* Experts of the first `n_types` types. Panels do not depend on the instruction set. */
static struct mix *mix_new(const struct bench *f, size_t d, size_t ff, size_t n_types,
                           size_t n_expert)
{
    struct mix *m = calloc(1, sizeof *m);
    assert_non_null(m);
    m->d = d;
    m->ff = ff;
    m->n_types = n_types;
    m->n_expert = n_expert;
    assert_int_equal(weight_store_init(&m->store, 16 << 20, NULL), 0);
    for (size_t i = 0; i < n_types; i++)
        for (size_t side = 0; side < 3; side++)
            mix_matrix(m, i, side, f);
    for (size_t e = 0; e < n_expert; e++) {
        m->gate[e] = m->w[e % (2 * n_types)][0];
        m->up[e] = m->w[e / 2 % (2 * n_types)][1];
        m->down[e] = m->w[(e + 1) % (2 * n_types)][2];
    }
    fill(m->x, TOKENS_MAX * D_MAX, 77);
    return m;
}

static void mix_free(struct mix *m)
{
    for (size_t i = 0; i < m->n_types; i++)
        for (size_t side = 0; side < 3; side++)
            free(m->raw[i][side]);
    weight_store_release(&m->store);
    free(m);
}

/* A routing of its own memory: k random experts a token; `few` sends most tokens to the same. */
static struct routing random_routing(size_t n, size_t n_expert, size_t k, bool few)
{
    struct routing r = {.n = n, .n_used = k};
    struct rng rng;
    bool in[EXPERTS_MAX];
    rng_init(&rng, 21, n_expert * 64 + k);
    r.expert = malloc((n * k + 1) * sizeof *r.expert);
    r.weight = malloc((n * k + 1) * sizeof *r.weight);
    assert_true(r.expert && r.weight);
    fill(r.weight, n * k, 31);
    for (size_t t = 0; t < n; t++) {
        size_t left = k, m = 0;
        memset(in, 0, sizeof in);
        for (size_t e = 0; few && t % 8 && left; e++, left--)
            in[e] = true;
        while (left) {
            size_t e = rng_u32(&rng) % n_expert;
            left -= !in[e];
            in[e] = true;
        }
        for (size_t e = 0; e < n_expert; e++)
            if (in[e])
                r.expert[t * k + m++] = (uint32_t)e;
    }
    return r;
}

static void routing_free(struct routing *r)
{
    free(r->expert);
    free(r->weight);
}

static struct tensor run(struct bench *f, struct mix *m, const struct routing *r, size_t t,
                         size_t n)
{
    struct routing part = {n, r->n_used, r->expert + t * r->n_used, r->weight + t * r->n_used};
    return op_moe(&f->c, (struct tensor){m->x + t * m->d, n, m->d}, &part, m->gate, m->up, m->down,
                  m->n_expert);
}

/* One token by the ops that have no experts. */
static void by_hand(struct bench *f, struct mix *m, const struct routing *r, size_t t, float *y)
{
    struct tensor x = {m->x + t * m->d, 1, m->d};
    memset(y, 0, m->d * sizeof *y);
    for (size_t i = t * r->n_used; i < (t + 1) * r->n_used; i++) {
        size_t mark = f->c.used, e = r->expert[i];
        struct tensor h = op_swiglu(&f->c, x, &m->gate[e], &m->up[e]);
        struct tensor z = op_linear(&f->c, h, &m->down[e], NULL);
        for (size_t j = 0; j < m->d; j++)
            y[j] = fmaf(z.data[j], r->weight[i], y[j]);
        f->c.used = mark;
    }
}

/* Every shape and load: as if each token had been computed alone, expert by expert. */
static void test_moe_by_hand(void **state)
{
    (void)state;
    static const struct {
        size_t d, ff, n_types, n_expert, k, n;
        bool few;
    } cases[] = {
        {256, 256, TYPES, 24, 4, 1, false},
        {256, 256, TYPES, 24, 4, 2, false},
        {256, 256, TYPES, 24, 4, 9, false},
        {256, 256, TYPES, 24, 4, 130, true},
        {256, 256, TYPES, 256, 8, 33, false} /* R1's */,
        {96, 160, 4, 16, 3, 40, false},
        {70, 50, FLOATS, 9, 9, 12, false},
        {70, 50, FLOATS, 1, 1, 5, false},
        {256, 256, TYPES, 13, 13, 3, false},
        /* more slots than a piece has */
        {32, 32, 4, 64, 8, TOKENS_MAX, false},
        {32, 32, 4, 256, 200, 50, false},
    };
    struct bench f;
    bench_init(&f, cpu_best(), 2);
    for (size_t i = 0; i < NUM_COUNT(cases); i++) {
        size_t n = cases[i].n, d = cases[i].d;
        struct mix *m = mix_new(&f, d, cases[i].ff, cases[i].n_types, cases[i].n_expert);
        struct routing r = random_routing(n, m->n_expert, cases[i].k, cases[i].few);
        struct tensor y = run(&f, m, &r, 0, n);
        assert_int_equal(y.rows, n);
        assert_int_equal(y.cols, d);
        for (size_t t = 0; t < n; t++) {
            float want[D_MAX];
            by_hand(&f, m, &r, t, want);
            if (memcmp(want, y.data + t * d, d * sizeof *want) != 0)
                fail_msg("case %zu: token %zu depends on its company", i, t);
        }
        f.c.used = 0;
        routing_free(&r);
        mix_free(m);
    }
    bench_release(&f);
}

/* Bits at every instruction set, thread count and cut. */
static void test_moe_bits(void **state)
{
    (void)state;
    enum { N = 24, K = 5 };
    struct bench one;
    bench_init(&one, CPU_SCALAR, 1);
    struct mix *m = mix_new(&one, 256, 256, TYPES, 24);
    struct routing r = random_routing(N, m->n_expert, K, true);
    struct tensor want = run(&one, m, &r, 0, N);
    for (int isa = CPU_SCALAR; isa <= (int)cpu_best(); isa++)
        for (int threads = 1; threads <= 3; threads++) {
            struct bench f;
            if (isa == CPU_SCALAR && threads == 1)
                continue;
            bench_init(&f, (enum cpu_isa)isa, threads);
            size_t step = (size_t)(threads * threads * threads); /* 1, 8, 27 */
            for (size_t t = 0, n; t < N; t += n) {
                n = num_min(step, N - t);
                struct tensor y = run(&f, m, &r, t, n);
                assert_memory_equal(y.data, want.data + t * m->d, n * m->d * sizeof(float));
            }
            bench_release(&f);
        }
    routing_free(&r);
    mix_free(m);
    bench_release(&one);
}

/* F32 and BF16 against double. */
static void test_moe_double(void **state)
{
    (void)state;
    enum { N = 12, K = 3, E = 8, WIDTH = 80, INNER = 48 };
    static float w[E][3][WIDTH * INNER];
    struct bench f;
    bench_init(&f, cpu_best(), 2);
    kern_float(&f.kern);
    struct mix *m = mix_new(&f, WIDTH, INNER, FLOATS, E);
    struct routing r = random_routing(N, E, K, false);
    struct tensor y = run(&f, m, &r, 0, N);
    for (size_t e = 0; e < E; e++) {
        const struct weight *of[] = {&m->gate[e], &m->up[e], &m->down[e]};
        for (size_t side = 0; side < 3; side++)
            for (size_t i = 0; i < of[side]->rows; i++)
                weight_row(of[side], i, w[e][side] + i * of[side]->cols, NULL);
    }
    for (size_t t = 0; t < N; t++) {
        double want[WIDTH] = {0}, size[WIDTH] = {0};
        for (size_t i = t * K; i < (t + 1) * K; i++) {
            float(*v)[WIDTH * INNER] = w[r.expert[i]];
            double h[INNER], h_size[INNER];
            for (size_t j = 0; j < INNER; j++) {
                double g = 0, u = 0, gs = 0, us = 0;
                for (size_t l = 0; l < WIDTH; l++) {
                    double x = m->x[t * WIDTH + l], a = v[0][j * WIDTH + l] * x,
                           b = v[1][j * WIDTH + l] * x;
                    g += a;
                    u += b;
                    gs += fabs(a);
                    us += fabs(b);
                }
                h[j] = g / (1 + exp(-g)) * u;
                h_size[j] = gs * us; /* |silu'| is at most 1.1 */
            }
            for (size_t j = 0; j < WIDTH; j++)
                for (size_t l = 0; l < INNER; l++) {
                    want[j] += r.weight[i] * v[2][j * INNER + l] * h[l];
                    size[j] += fabs((double)r.weight[i] * v[2][j * INNER + l]) * h_size[l];
                }
        }
        for (size_t j = 0; j < WIDTH; j++)
            if (!(fabs(y.data[t * WIDTH + j] - want[j]) <= (2 * WIDTH + INNER) * 6e-8 * size[j]))
                fail_msg("token %zu, value %zu: %g, want %g", t, j, y.data[t * WIDTH + j], want[j]);
    }
    routing_free(&r);
    mix_free(m);
    bench_release(&f);
}

/* A dry run says exactly what is needed, wherever tokens go, and more tokens never need less. */
static void check_dry_run(size_t width, size_t n_types, const size_t *counts, size_t n_counts)
{
    struct bench f;
    bench_init(&f, cpu_best(), 2);
    struct mix *m = mix_new(&f, width, width, n_types, 64);
    size_t before = 0;
    for (size_t i = 0; i < n_counts; i++) {
        size_t n = counts[i];
        struct op_ctx dry = f.c;
        struct router_args a = {64, 8, 8, 4, ROUTER_SIGMOID, true, true, 2.5f, NULL};
        dry.dry = true;
        dry.used = dry.peak = 0;
        struct tensor x = {NULL, n, m->d}, logits = {NULL, n, 64};
        struct routing d = op_route(&dry, logits, &a);
        struct tensor y = op_moe(&dry, x, &d, m->gate, m->up, m->down, 64);
        assert_null(y.data);
        assert_int_equal(y.rows, n);
        for (int few = 0; few < 2; few++) {
            f.c.used = f.c.peak = 0;
            logits.data = calloc(n * 64 + 1, sizeof(float));
            assert_non_null(logits.data);
            if (!few)
                fill(logits.data, n * 64, 41);
            x.data = m->x;
            struct routing r = op_route(&f.c, logits, &a);
            op_moe(&f.c, x, &r, m->gate, m->up, m->down, 64);
            assert_int_equal(f.c.peak, dry.peak);
            assert_int_equal(f.c.used, dry.used);
            free(logits.data);
        }
        assert_true(dry.peak >= before);
        before = dry.peak;
    }
    mix_free(m);
    bench_release(&f);
}

static void test_dry_run(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 1, 2, 7, 64, 511, 512, 513, 600, TOKENS_MAX};
    check_dry_run(32, 4, counts, NUM_COUNT(counts));
    check_dry_run(256, TYPES, counts, 5);
}

static void keep_record(void *arg, const struct op_record *r)
{
    struct op_record **at = arg;
    *(*at)++ = *r;
}

static void test_record(void **state)
{
    (void)state;
    struct op_record records[16], *at = records;
    struct op_tape tape = {keep_record, &at, true};
    struct bench f;
    float logits[3 * 8];
    bench_init(&f, cpu_best(), 1);
    f.c.tape = &tape;
    struct mix *m = mix_new(&f, 70, 50, FLOATS, 8);
    struct router_args a = {8, 2, 1, 1, ROUTER_SOFTMAX, false, true, 3.5f, NULL};
    fill(logits, NUM_COUNT(logits), 1);
    struct routing r = op_route(&f.c, (struct tensor){logits, 3, 8}, &a);
    struct tensor y = run(&f, m, &r, 0, 3);
    run(&f, m, &r, 0, 0); /* nothing to tell */
    assert_ptr_equal(at, records + 2);
    assert_int_equal(records[0].kind, OP_ROUTE);
    assert_ptr_equal(records[0].in[0].data, logits);
    assert_ptr_equal(records[0].out.data, r.weight);
    assert_true(records[0].router.scale == 3.5f);
    assert_int_equal(records[1].kind, OP_MOE);
    assert_ptr_equal(records[1].in[0].data, m->x);
    assert_ptr_equal(records[1].in[1].data, r.weight);
    assert_ptr_equal(records[1].routing.expert, r.expert);
    assert_ptr_equal(records[1].out.data, y.data);
    assert_ptr_equal(records[1].w[2], m->down);
    assert_int_equal(records[1].n_expert, 8);

    /* who watches is told each expert's inputs too */
    tape.keep = false;
    at = records;
    struct tensor again = run(&f, m, &r, 0, 3);
    assert_memory_equal(again.data, y.data, 3 * 70 * sizeof(float));
    size_t n = (size_t)(at - records), slots = 0;
    assert_int_equal(records[n - 1].kind, OP_MOE);
    for (size_t i = 0; i + 1 < n; i++) {
        const struct op_record *e = &records[i];
        assert_int_equal(e->kind, OP_EXPERT);
        assert_true(i == 0 || e[-1].expert < e->expert);
        assert_ptr_equal(e->w[1], &m->up[e->expert]);
        for (size_t j = 0; j < e->in[1].rows; j++, slots++) {
            /* nothing has been taken since: the scratch still holds what went in */
            struct tensor x = {e->in[0].data + e->rows[j] * 70, 1, 70};
            float want[50];
            struct bench g;
            bench_init(&g, CPU_SCALAR, 1);
            memcpy(want, op_swiglu(&g.c, x, e->w[0], e->w[1]).data, sizeof want);
            assert_memory_equal(e->in[1].data + j * 50, want, sizeof want);
            bench_release(&g);
        }
    }
    assert_int_equal(slots, 3 * 2);
    mix_free(m);
    bench_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route),        cmocka_unit_test(test_route_bits),
        cmocka_unit_test(test_ties),         cmocka_unit_test(test_hostile_logits),
        cmocka_unit_test(test_router_check), cmocka_unit_test(test_moe_by_hand),
        cmocka_unit_test(test_moe_bits),     cmocka_unit_test(test_moe_double),
        cmocka_unit_test(test_dry_run),      cmocka_unit_test(test_record),
    };
    return cmocka_run_group_tests_name("tensor/moe", tests, NULL, NULL);
}
