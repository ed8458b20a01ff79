/*
 * The two products of the way back against sums in double, over sizes around the blocks that they
 * are cut into and weights of several types, with BF16 copies and without; and their bits, which
 * neither threads, nor instruction sets, nor the number of calls may change.
 */
#include "base/num.h"
#include "base/rng.h"
#include "tensor/gemm.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct size {
    size_t rows, cols, n;
};

/* Rows around 512 (a block of the input's product), 64 and 16; columns around 16 and 128; tokens
   around 96 and 256. */
static const struct size sizes[] = {{1, 1, 1},     {16, 16, 96},   {17, 33, 7},   {64, 128, 256},
                                    {530, 37, 20}, {70, 140, 300}, {512, 15, 97}, {33, 256, 257}};

struct run {
    float *dx, *grad;
};

static float *noise(size_t n, uint64_t stream)
{
    struct rng r;
    float *p = malloc(num_round_up(n * sizeof *p, 64));
    assert_non_null(p);
    rng_init(&r, 21, stream);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(&r);
    return p;
}

/* Rows of dy and x are further apart than they are long; both sums go on from what was there. */
static struct run run(enum quant_id type, bool halve, const struct size *s, enum cpu_isa isa,
                      int threads, size_t calls, const float *values)
{
    struct err e = {0};
    struct kern kern;
    struct team *team;
    struct op_ctx c;
    struct weight_store store;
    struct weight w;
    const struct quant_type *t = quant_by_id(type);
    size_t bytes, panels = num_round_up(s->rows, KERN_ROWS), ldy = s->rows + 3, ldx = s->cols + 5;
    kern_init(&kern, isa);
    assert_int_equal(team_new(&team, threads, &e), 0);
    op_ctx_init(&c, &kern, team);
    assert_int_equal(weight_store_init(&store, 4 << 20, &e), 0);
    assert_true(quant_size(t, s->rows * s->cols, &bytes));
    uint8_t *raw = malloc(bytes);
    assert_non_null(raw);
    if (type == QUANT_F32)
        memcpy(raw, values, bytes);
    else
        t->encode(raw, values, s->rows * s->cols, NULL);
    struct weight_rows from = {.at = raw};
    assert_int_equal(weight_matrix(&w, "w", t, s->rows, s->cols, &from, &kern, team, &store, &e),
                     0);
    float *dy = noise(s->n * ldy, 1), *x = noise(s->n * ldx, 2);
    struct run out = {noise(s->n * ldx, 3), noise(panels * s->cols, 4)};
    struct weight_param param = {.grad = out.grad};
    w.param = &param;
    if (halve)
        assert_int_equal(weight_halve(&w, &kern, team, &store, &e), 0);
    struct gemm_rows dys = {dy, ldy}, xs = {x, ldx}, dxs = {out.dx, ldx};
    c.dry = true;
    gemm_back_input(&c, dxs, dys, s->n, &w);
    gemm_back_weight(&c, &w, dys, xs, s->n);
    c.dry = false;
    assert_int_equal(c.used, 0);
    assert_int_equal(op_ctx_reserve(&c, c.peak, &e), 0);
    for (size_t i = 0, at = 0, n; i < calls; i++, at += n) {
        n = (s->n - at) / (calls - i);
        dys.data = dy + at * ldy;
        xs.data = x + at * ldx;
        dxs.data = out.dx + at * ldx;
        gemm_back_input(&c, dxs, dys, n, &w);
        gemm_back_weight(&c, &w, dys, xs, n);
    }
    free(dy);
    free(x);
    free(raw);
    weight_store_release(&store);
    op_ctx_release(&c);
    team_free(team);
    return out;
}

static void release(struct run *r)
{
    free(r->dx);
    free(r->grad);
}

/* |got − want| ≤ terms × eps / 2 × Σ |products|. */
static void near(const char *what, float got, double want, double size, size_t terms)
{
    if (!(fabs((double)got - want) <= (double)(terms + 1) * FLT_EPSILON / 2 * size))
        fail_msg("%s is %.9g, not %.9g", what, (double)got, want);
}

static void round_all(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = quant_bf16_to_f32(quant_f32_to_bf16(p[i]));
}

/* With `halve` the sums are those of the factors rounded to BF16. */
static void check(const struct size *s, bool halve, const float *values, const struct run *r)
{
    size_t ldy = s->rows + 3, ldx = s->cols + 5;
    float *dy = noise(s->n * ldy, 1), *x = noise(s->n * ldx, 2), *dx = noise(s->n * ldx, 3);
    float *grad = noise(num_round_up(s->rows, KERN_ROWS) * s->cols, 4);
    float *w = malloc(s->rows * s->cols * sizeof *w);
    assert_non_null(w);
    memcpy(w, values, s->rows * s->cols * sizeof *w);
    if (halve) {
        round_all(dy, s->n * ldy);
        round_all(x, s->n * ldx);
        round_all(w, s->rows * s->cols);
    }
    for (size_t t = 0; t < s->n; t++)
        for (size_t k = 0; k < ldx; k++) {
            double sum = dx[t * ldx + k], size = fabs(sum);
            for (size_t i = 0; k < s->cols && i < s->rows; i++) {
                double v = (double)dy[t * ldy + i] * w[i * s->cols + k];
                sum += v;
                size += fabs(v);
            }
            near("dx", r->dx[t * ldx + k], sum, size, s->rows);
        }
    for (size_t i = 0; i < num_round_up(s->rows, KERN_ROWS); i++)
        for (size_t k = 0; k < s->cols; k++) {
            size_t at = (i / KERN_ROWS * s->cols + k) * KERN_ROWS + i % KERN_ROWS;
            double sum = grad[at], size = fabs(sum);
            for (size_t t = 0; i < s->rows && t < s->n; t++) {
                double v = (double)dy[t * ldy + i] * x[t * ldx + k];
                sum += v;
                size += fabs(v);
            }
            near("grad", r->grad[at], sum, size, s->n);
        }
    free(w);
    free(dy);
    free(x);
    free(dx);
    free(grad);
}

static void test_sums(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * NUM_COUNT(sizes); i++) {
        const struct size *s = &sizes[i / 2];
        float *w = noise(s->rows * s->cols, 5);
        struct run r = run(QUANT_F32, i % 2, s, cpu_best(), 2, 1, w);
        check(s, i % 2, w, &r);
        release(&r);
        free(w);
    }
}

/* Types with kernels and without, by their decoded values. */
static void test_types(void **state)
{
    (void)state;
    static const enum quant_id types[] = {QUANT_BF16, QUANT_F16, QUANT_Q8_0, QUANT_Q4_K, QUANT_F64};
    struct size s = {530, 256, 20};
    for (size_t i = 0; i < NUM_COUNT(types); i++) {
        const struct quant_type *t = quant_by_id(types[i]);
        size_t bytes;
        float *w = noise(s.rows * s.cols, 5);
        assert_true(quant_size(t, s.rows * s.cols, &bytes));
        uint8_t *raw = malloc(bytes);
        assert_non_null(raw);
        struct run r = run(types[i], false, &s, cpu_best(), 2, 1, w);
        t->encode(raw, w, s.rows * s.cols, NULL);
        t->decode(w, raw, s.rows * s.cols);
        check(&s, false, w, &r);
        release(&r);
        free(raw);
        free(w);
    }
}

static void test_bits(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * NUM_COUNT(sizes); i++) {
        const struct size *s = &sizes[i / 2];
        float *w = noise(s->rows * s->cols, 5);
        bool halve = i % 2;
        struct run want = run(QUANT_F32, halve, s, CPU_SCALAR, 1, 1, w);
        for (int isa = CPU_SCALAR; isa <= (int)cpu_best(); isa++)
            for (int threads = 1; threads <= 3; threads++) {
                size_t calls = num_min(s->n, (size_t)threads * 2 - 1);
                struct run got = run(QUANT_F32, halve, s, (enum cpu_isa)isa, threads, calls, w);
                assert_memory_equal(got.dx, want.dx, s->n * (s->cols + 5) * sizeof *got.dx);
                assert_memory_equal(got.grad, want.grad,
                                    num_round_up(s->rows, KERN_ROWS) * s->cols * sizeof *got.grad);
                release(&got);
            }
        release(&want);
        free(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
