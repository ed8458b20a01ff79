/*
 * Writing weights: the reference bytes where a format has reference bytes, errors within bounds
 * elsewhere, and sense for every odd input.
 */
#include "quant/quant.h"

#include "support/golden.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 2048 };

/*
 * What to expect of each type that can be written. rmse: of ggml's own encoder on the golden input;
 * relative: RMS error over RMS of Gaussian values (measured, plus a few percent);
 * searches: importance has an effect.
 */
static const struct expectation {
    enum quant_id id;
    double rmse, relative;
    bool searches;
} expected[] = {
    {QUANT_F32, 0, 0, false},
    {QUANT_F64, 0, 0, false},
    {QUANT_F16, 1e-3, 3e-4, false},
    {QUANT_BF16, 1e-2, 2e-3, false},
    {QUANT_Q4_0, 0.178636, 0.090, true},
    {QUANT_Q4_1, 0.151115, 0.085, true},
    {QUANT_Q5_0, 0.0975124, 0.047, true},
    {QUANT_Q5_1, 0.073896, 0.039, true},
    {QUANT_Q8_0, 0.0128891, 0.0058, false},
    {QUANT_Q2_K, 0.516757, 0.290, true},
    {QUANT_Q3_K, 0.276412, 0.155, true},
    {QUANT_Q4_K, 0.14189, 0.075, true},
    {QUANT_Q5_K, 0.0707284, 0.037, true},
    {QUANT_Q6_K, 0.0368023, 0.019, true},
    {QUANT_IQ1_S, 0.987215, 0.47, true},
    {QUANT_IQ1_M, 1.08682, 0.445, true},
    {QUANT_IQ2_XXS, 0.8184, 0.35, true},
    {QUANT_IQ2_XS, 0.662065, 0.31, true},
    {QUANT_IQ2_S, 0.624606, 0.26, true},
    {QUANT_IQ3_XXS, 0.429488, 0.196, true},
    {QUANT_IQ3_S, 1.02903, 0.142, true},
    {QUANT_IQ4_NL, 0.157218, 0.080, true},
    {QUANT_IQ4_XS, 0.158547, 0.080, true},
    {QUANT_TQ1_0, 1.47335, 0.95, false},
    {QUANT_TQ2_0, 1.47335, 0.95, false},
    {QUANT_MXFP4, 0.248923, 0.125, true},
    {QUANT_NVFP4, 0.172714, 0.1, true},
    {QUANT_E4M3, 0.08, 0.7, false}, /* without a scale: 1e-3 is below its range, 1000 above */
    {QUANT_E5M2, 0.15, 0.06, false},
    {QUANT_FP8, 0.08, 0.03, false},
    {QUANT_I8, 0.03, 0.008, false},
    {QUANT_Q4Z, 0.178636, 0.095, false},
    {QUANT_Q8Z, 0.0128891, 0.006, false},
    {QUANT_NF4, 0.25, 0.11, false},
    {QUANT_FP4, 0.35, 0.19, false},
};

enum { COUNT = sizeof(expected) / sizeof(expected[0]) };

static uint64_t random_state;

static float uniform(void) /* (0, 1) */
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return ((float)(random_state >> 41) + 0.5f) * 0x1p-23f;
}

static float gaussian(void)
{
    return sqrtf(-2 * logf(uniform())) * cosf(6.2831853f * uniform());
}

/* n values through a type and back. Buffers have the exact size, at an odd address. */
static void round_trip(const struct quant_type *t, float *back, const float *x, size_t n,
                       const float *importance)
{
    size_t size;
    assert_true(quant_size(t, n, &size));
    uint8_t *bytes = malloc(size + 1);
    assert_non_null(bytes);
    memset(bytes, 0xA5, size + 1);
    t->encode(bytes + 1, x, n, importance);
    t->decode(back, bytes + 1, n);
    free(bytes);
}

static double error(const float *a, const float *b, const float *weight, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (weight ? (double)weight[i] : 1) * pow((double)a[i] - (double)b[i], 2);
    return sqrt(sum / (double)n);
}

static void every_writable_type_is_tested(void **state)
{
    size_t types, writable = 0;
    const struct quant_type *const *all = quant_all(&types);
    for (size_t i = 0; i < types; i++)
        writable += all[i]->encode != NULL;
    assert_int_equal(writable, COUNT);
}

static void golden_input_gives_the_reference_bytes(void **state)
{
    static const char *const names[] = {"Q4_0", "Q4_1",  "Q5_0",  "Q5_1", "Q8_0",
                                        "BF16", "TQ1_0", "TQ2_0", "MXFP4"};
    struct golden *g = golden_load("quant/ggml_quantize.safetensors");
    struct golden_tensor in = golden_get(g, "input");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const struct quant_type *t = quant_by_name(names[i]);
        struct golden_tensor want = golden_get(g, "%s.bytes", names[i]);
        uint8_t *got = malloc(want.bytes);
        t->encode(got, in.f32, in.count, NULL);
        for (size_t k = 0; k < want.bytes; k++)
            if (got[k] != want.u8[k])
                fail_msg("%s byte %zu: %02x, not %02x", names[i], k, got[k], want.u8[k]);
        free(got);
    }
    golden_free(g);
}

static void no_worse_than_the_reference(void **state)
{
    struct golden *g = golden_load("quant/ggml_quantize.safetensors");
    struct golden_tensor in = golden_get(g, "input");
    float *back = malloc(in.bytes);
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        round_trip(t, back, in.f32, in.count, NULL);
        double e = error(back, in.f32, NULL, in.count);
        if (e > expected[i].rmse)
            fail_msg("%s: rmse %g, reference %g", t->name, e, expected[i].rmse);
    }
    free(back);
    golden_free(g);
}

static void error_is_bounded_at_every_scale(void **state)
{
    float x[N], back[N];
    /* down to 1e-3: the halves that scale smaller weights lose precision by themselves */
    const float scales[] = {1e-3f, 0.02f, 1, 1000};
    random_state = 7;
    for (size_t i = 0; i < COUNT; i++)
        for (size_t s = 0; s < 4; s++) {
            const struct quant_type *t = quant_by_id(expected[i].id);
            if (t->id == QUANT_NVFP4 && scales[s] < 1)
                continue; /* its scales are too coarse; a tensor of such values has one of its own
                           */
            for (size_t k = 0; k < N; k++)
                x[k] = gaussian() * scales[s];
            round_trip(t, back, x, N, NULL);
            double e = error(back, x, NULL, N) / (double)scales[s];
            if (e > expected[i].relative)
                fail_msg("%s at scale %g: relative error %g, expected %g", t->name,
                         (double)scales[s], e, expected[i].relative);
        }
}

static void constants_are_exact_enough(void **state)
{
    const float values[] = {0, 0.25f, -0.25f, 1, -1, 0x1p-6f};
    float x[N], back[N];
    for (size_t i = 0; i < COUNT; i++)
        for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
            const struct quant_type *t = quant_by_id(expected[i].id);
            for (size_t k = 0; k < N; k++)
                x[k] = values[v];
            round_trip(t, back, x, N, NULL);
            for (size_t k = 0; k < N; k++)
                if (!(fabsf(back[k] - x[k]) <= 1e-2f * fabsf(x[k])))
                    fail_msg("%s: %g became %g", t->name, (double)x[k], (double)back[k]);
        }
}

static void odd_values_give_sensible_results(void **state)
{
    float x[N], back[N], importance[N];
    random_state = 9;
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        for (int kind = 0; kind < 5; kind++) {
            const float *w = kind & 1 ? importance : NULL;
            for (size_t k = 0; k < N; k++) {
                float r = gaussian();
                importance[k] = uniform();
                x[k] = kind == 0   ? r * 1e30f
                       : kind == 1 ? copysignf(FLT_MAX, r)
                       : kind == 2 ? r * 1e-40f
                       : kind == 3 ? r * 1e-9f
                                   : (k % 64 == 5 ? 1e4f : 1e-4f) * r;
            }
            round_trip(t, back, x, N, w);
            double most = 0;
            for (size_t k = 0; k < N; k++) {
                /* F16 keeps infinities; all others saturate */
                if (t->id != QUANT_F16 && t->id != QUANT_BF16 && !isfinite(back[k]))
                    fail_msg("%s: %g became %g", t->name, (double)x[k], (double)back[k]);
                most = fmax(most, fabs((double)back[k]));
            }
            if ((kind == 2 || kind == 3) && most > 1e-6)
                fail_msg("%s: values of 1e-9 became %g", t->name, most);
            if (kind == 4 && error(back, x, NULL, N) > 1e4)
                fail_msg("%s: outliers spoil the rest", t->name);
        }
    }
}

static void input_that_is_not_finite_does_no_harm(void **state)
{
    const float special[] = {NAN, INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 0, -0.0f, FLT_MIN, 1};
    float x[N], back[N], importance[N];
    random_state = 11;
    for (size_t i = 0; i < COUNT; i++)
        for (int round = 0; round < 20; round++) {
            for (size_t k = 0; k < N; k++) {
                x[k] = round == 0 ? NAN : special[(size_t)(uniform() * 9)];
                importance[k] = round & 1 ? special[(size_t)(uniform() * 9)] : 1;
            }
            round_trip(quant_by_id(expected[i].id), back, x, N, importance);
            round_trip(quant_by_id(expected[i].id), back, x, N, NULL);
        }
}

static void importance_lowers_the_weighted_error(void **state)
{
    float x[N], importance[N], plain[N], weighted[N];
    random_state = 13;
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        double with = 0, without = 0;
        for (int round = 0; round < 8; round++) {
            for (size_t k = 0; k < N; k++) {
                float r = gaussian();
                x[k] = gaussian() * 0.05f;
                importance[k] = r * r * r * r + 0.01f;
            }
            round_trip(t, plain, x, N, NULL);
            round_trip(t, weighted, x, N, importance);
            without += error(plain, x, importance, N);
            with += error(weighted, x, importance, N);
        }
        if (expected[i].searches ? with > 0.98 * without : with != without)
            fail_msg("%s: weighted error %g with importance, %g without", t->name, with, without);
    }
}

static void only_ratios_of_importance_count(void **state)
{
    float x[N], importance[N], scaled[N], one[N], a[N], b[N];
    random_state = 17;
    for (size_t k = 0; k < N; k++) {
        x[k] = gaussian();
        importance[k] = uniform();
        scaled[k] = importance[k] * 0x1p60f;
        one[k] = 0; /* says nothing about any value */
    }
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        round_trip(t, a, x, N, importance);
        round_trip(t, b, x, N, scaled);
        assert_memory_equal(a, b, sizeof(a));
        round_trip(t, b, x, N, one);
        assert_true(error(b, x, NULL, N) <= expected[i].relative);
    }
}

static void rows_are_encoded_block_by_block(void **state)
{
    float x[N];
    random_state = 19;
    for (size_t k = 0; k < N; k++)
        x[k] = gaussian();
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        size_t size, at = 0;
        assert_true(quant_size(t, N, &size));
        uint8_t *whole = malloc(size), *parts = malloc(size);
        t->encode(whole, x, N, NULL);
        for (size_t k = 0; k < N; k += t->block, at += t->bytes)
            t->encode(parts + at, x + k, t->block, NULL);
        assert_memory_equal(whole, parts, size);
        free(whole);
        free(parts);
    }
}

/* Values that a block can hold exactly come back almost so: the codebooks are searched right. */
static void what_a_block_can_hold_comes_back(void **state)
{
    static const enum quant_id ids[] = {QUANT_IQ1_S, QUANT_IQ1_M,   QUANT_IQ2_XXS, QUANT_IQ2_XS,
                                        QUANT_IQ2_S, QUANT_IQ3_XXS, QUANT_IQ3_S};
    float x[256], back[256];
    random_state = 23;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        const struct quant_type *t = quant_by_id(ids[i]);
        double off = 0, all = 0;
        for (int round = 0; round < 40; round++) {
            uint8_t bytes[128];
            for (size_t k = 0; k < t->bytes; k++)
                bytes[k] = (uint8_t)(uniform() * 256);
            /* the half: in the first two bytes, or in the top nibbles of the last eight */
            bytes[0] = 0x55, bytes[1] = 0x2A;
            for (size_t k = 0; k < 4 && t->id == QUANT_IQ1_M; k++)
                bytes[49 + 2 * k] = (uint8_t)((bytes[49 + 2 * k] & 15) | (k == 3 ? 0x20 : 0x50));
            t->decode(x, bytes, 256);
            round_trip(t, back, x, 256, NULL);
            off += pow(error(back, x, NULL, 256), 2);
            for (size_t k = 0; k < 256; k++)
                all += (double)x[k] * (double)x[k] / 256;
        }
        if (sqrt(off / all) > 0.05)
            fail_msg("%s: relative error %g", t->name, sqrt(off / all));
    }
}

/* Blocks of few values: whatever is written is no worse than zeros. */
static void sparse_blocks_are_no_worse_than_zeros(void **state)
{
    float x[N], back[N], zero[N] = {0}, importance[N];
    random_state = 29;
    for (size_t i = 0; i < COUNT; i++) {
        const struct quant_type *t = quant_by_id(expected[i].id);
        for (size_t every = 1; every <= 256; every *= 2) {
            for (size_t k = 0; k < N; k++) {
                x[k] = k % every == (every > 3 ? 3 : 0) ? gaussian() : 0;
                importance[k] = x[k] != 0 || k % 3 ? 0 : 1; /* says the wrong thing */
            }
            round_trip(t, back, x, N, NULL);
            if (error(back, x, NULL, N) > error(zero, x, NULL, N))
                fail_msg("%s: one value in %zu: error %g, zeros %g", t->name, every,
                         error(back, x, NULL, N), error(zero, x, NULL, N));
            round_trip(t, back, x, N, importance);
            for (size_t k = 0; k < N; k++)
                assert_true(isfinite(back[k]));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_writable_type_is_tested),
        cmocka_unit_test(golden_input_gives_the_reference_bytes),
        cmocka_unit_test(no_worse_than_the_reference),
        cmocka_unit_test(error_is_bounded_at_every_scale),
        cmocka_unit_test(constants_are_exact_enough),
        cmocka_unit_test(odd_values_give_sensible_results),
        cmocka_unit_test(input_that_is_not_finite_does_no_harm),
        cmocka_unit_test(importance_lowers_the_weighted_error),
        cmocka_unit_test(only_ratios_of_importance_count),
        cmocka_unit_test(rows_are_encoded_block_by_block),
        cmocka_unit_test(what_a_block_can_hold_comes_back),
        cmocka_unit_test(sparse_blocks_are_no_worse_than_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
