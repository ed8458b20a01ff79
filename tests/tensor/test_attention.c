/* Attention against the plain formula in double precision, for GQA, MQA and latents, all
 * cache types. */
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

struct shape {
    size_t heads, kv_heads, d_k, d_v, n;
    bool latent; /* the value is the front of the key */
};

static float *noise(size_t n, uint64_t stream)
{
    struct rng r;
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    rng_init(&r, 5, stream);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)rng_normal(&r);
    return p;
}

/* softmax(q kᵀ / sqrt(d)) v for one head of one token. */
static void plain(double *out, const float *q, const float *k, const float *v, size_t t,
                  const struct shape *s, size_t kv_head)
{
    double w[512], max = -INFINITY, sum = 0;
    for (size_t j = 0; j <= t; j++) {
        w[j] = 0;
        for (size_t d = 0; d < s->d_k; d++)
            w[j] += (double)q[d] * k[(j * s->kv_heads + kv_head) * s->d_k + d];
        w[j] /= sqrt((double)s->d_k);
        max = fmax(max, w[j]);
    }
    for (size_t j = 0; j <= t; j++)
        sum += w[j] = exp(w[j] - max);
    memset(out, 0, s->d_v * sizeof *out);
    for (size_t j = 0; j <= t; j++)
        for (size_t d = 0; d < s->d_v; d++)
            out[d] += w[j] / sum * v[(j * s->kv_heads + kv_head) * s->d_v + d];
}

/*
 * Largest error over all tokens and heads. `pieces` cuts the sequence into that many batches.
 */
static double worst(const struct shape *s, enum quant_id type, size_t pieces)
{
    struct err e = {0};
    struct kern kern;
    struct team *team;
    struct op_ctx c;
    struct kv_pool *pool;
    struct kv_seq seq;
    kern_init(&kern, cpu_best());
    assert_int_equal(team_new(&team, 2, &e), 0);
    op_ctx_init(&c, &kern, team);
    assert_int_equal(op_ctx_reserve(&c, 64 << 20, &e), 0);
    struct kv_shape shape = {1, s->kv_heads, s->d_k, s->d_v, type, s->latent};
    assert_int_equal(kv_pool_new(&pool, &shape, 8, &e), 0);
    assert_int_equal(kv_seq_init(&seq, pool, 512, &e), 0);
    assert_int_equal(kv_seq_reserve(&seq, 0, 0, s->n, &e), 0);
    float *q = noise(s->n * s->heads * s->d_k, 1), *k = noise(s->n * s->kv_heads * s->d_k, 2);
    float *v = noise(s->n * s->kv_heads * s->d_v, 3);
    for (size_t t = 0; s->latent && t < s->n; t++)
        memcpy(v + t * s->d_v, k + t * s->d_k, s->d_v * sizeof *v);
    double diff = 0, *ref = malloc(s->d_v * sizeof *ref);
    for (size_t p = 0, at = 0; p < pieces; p++) {
        size_t n = (s->n - at) / (pieces - p);
        struct batch_run run = {.seq = &seq, .n = n, .pos = at};
        struct batch b = {.n = n, .runs = &run, .n_runs = 1};
        struct attention_args a = {.n_head = s->heads,
                                   .n_kv_head = s->kv_heads,
                                   .d_k = s->d_k,
                                   .d_v = s->d_v,
                                   .scale = 1 / sqrtf((float)s->d_k)};
        struct tensor tq = {q + at * s->heads * s->d_k, n, s->heads * s->d_k};
        struct tensor tk = {k + at * s->kv_heads * s->d_k, n, s->kv_heads * s->d_k};
        struct tensor tv = {v + at * s->kv_heads * s->d_v, n, s->kv_heads * s->d_v};
        if (s->latent)
            tv = (struct tensor){0};
        struct tensor y = op_attention(&c, tq, tk, tv, &a, &b);
        for (size_t t = 0; t < n; t++)
            for (size_t h = 0; h < s->heads; h++) {
                plain(ref, tq.data + (t * s->heads + h) * s->d_k, k, v, at + t, s,
                      h / (s->heads / s->kv_heads));
                for (size_t d = 0; d < s->d_v; d++)
                    diff = fmax(diff, fabs(ref[d] - y.data[t * y.cols + h * s->d_v + d]));
            }
        c.used = 0;
        at += n;
    }
    free(ref);
    free(q);
    free(k);
    free(v);
    kv_seq_release(&seq);
    kv_pool_free(pool);
    op_ctx_release(&c);
    team_free(team);
    return diff;
}

static const struct shape shapes[] = {
    {9, 3, 64, 64, 200},  /* SmolLM2 */
    {14, 2, 64, 64, 130}, /* Qwen 0.5B */
    {4, 4, 128, 128, 70}, /* MHA */
    {6, 1, 40, 24, 150},  /* MQA, odd sizes, keys and values differ */
    {2, 1, 12, 12, 65},        {16, 1, 576, 512, 66, true}, /* the latents of MLA */
    {5, 1, 26, 24, 140, true},
};

/* Errors: rounding of about 10 float operations a term for F32; half a unit in the last place of
   keys and values (|x| up to about 5) for the others, which scores carry into weights. */
static void check(enum quant_id type, double bound)
{
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (type == QUANT_Q8_0 && (shapes[i].d_k % 4 || shapes[i].d_v % 4))
            continue;
        for (size_t pieces = 1; pieces <= 3; pieces++) {
            double d = worst(&shapes[i], type, pieces);
            if (!(d <= bound))
                fail_msg("shape %zu in %zu pieces: off by %g", i, pieces, d);
        }
        double d = worst(&shapes[i], type, shapes[i].n);
        if (!(d <= bound))
            fail_msg("shape %zu token by token: off by %g", i, d);
    }
}

static void test_f32(void **state)
{
    (void)state;
    check(QUANT_F32, 2e-5);
}

static void test_f16(void **state)
{
    (void)state;
    check(QUANT_F16, 1e-2);
}

static void test_bf16(void **state)
{
    (void)state;
    check(QUANT_BF16, 8e-2);
}

static void test_q8_0(void **state)
{
    (void)state;
    check(QUANT_Q8_0, 8e-2);
}

static void test_fp8(void **state)
{
    (void)state;
    check(QUANT_E4M3, 0.4);
}

static void test_fp8_e5m2(void **state)
{
    (void)state;
    check(QUANT_E5M2, 0.8); /* one bit less */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f32),  cmocka_unit_test(test_f16), cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_q8_0), cmocka_unit_test(test_fp8), cmocka_unit_test(test_fp8_e5m2),
    };
    return cmocka_run_group_tests_name("tensor/attention", tests, NULL, NULL);
}
