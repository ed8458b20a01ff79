/*
 * The meaning of each weight type: golden rows decode to the expected bits, the table is
 * consistent, and any bytes decode.
 */
#include "quant/quant.h"

#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void golden_rows_decode_to_the_same_bits(void **state)
{
    struct golden *g = golden_load("quant/ggml_dequant.safetensors");
    size_t types, tested = 0;
    const struct quant_type *const *all = quant_all(&types);
    for (size_t i = 0; i < types; i++) {
        const struct quant_type *t = all[i];
        if (t->id == QUANT_F32 || t->id == QUANT_F64 || t->id >= QUANT_INNER)
            continue; /* no golden: see the next tests */
        struct golden_tensor bytes = golden_get(g, "%s.bytes", t->name);
        struct golden_tensor want = golden_get(g, "%s.expected", t->name);
        size_t size;
        assert_true(quant_size(t, want.count, &size));
        assert_int_equal(size, bytes.bytes);
        float *got = malloc(want.bytes);
        t->decode(got, bytes.data, want.count);
        for (size_t k = 0; k < want.count; k++)
            if (memcmp(&got[k], &want.f32[k], sizeof(float)))
                fail_msg("%s value %zu: %.9g, not %.9g", t->name, k, (double)got[k],
                         (double)want.f32[k]);
        free(got);
        tested++;
    }
    assert_int_equal(tested, types - 2 - 8);
    golden_free(g);
}

static void plain_floats_decode(void **state)
{
    const float want[3] = {1.5f, -0.0f, 3e38f};
    const double wide[3] = {1.5, -0.0, 3e38f};
    float got[3];
    quant_by_id(QUANT_F32)->decode(got, want, 3);
    assert_memory_equal(got, want, sizeof(want));
    quant_by_id(QUANT_F64)->decode(got, wide, 3);
    assert_memory_equal(got, want, sizeof(want));
}

/* Two values of each row form, written out by hand, and the zero bytes of the rest. */
static void inner_types_decode(void **state)
{
    static const struct {
        enum quant_id id;
        uint8_t bytes[8];
        float want[3];
    } rows[] = {
        {QUANT_E4M3, {0x38, 0xFE, 0x01}, {1, -448, 0x1p-9f}},
        {QUANT_E5M2, {0x3C, 0xFB, 0x01}, {1, -57344, 0x1p-16f}},
        {QUANT_FP8, {0, 0, 0, 0x3F, 0x38, 0xFE, 0x40}, {0.5f, -224, 1}},
        {QUANT_I8, {0, 0, 0, 0x3F, 2, 0x80, 0x7F}, {1, -64, 63.5f}},
        {QUANT_Q4Z, {0, 0x38, 0, 0x4C, 0x0F, 0x01, 0xF0}, {-0.5f, -7.5f, -8}}, /* 0.5, 16 */
        {QUANT_Q8Z, {0, 0x38, 0, 0xD8, 0x80, 0x7F, 0}, {0, 127.5f, 64}},       /* 0.5, -128 */
        {QUANT_NF4, {0, 0, 0, 0x40, 0xF0, 0x70}, {2, -2, 0}},
        {QUANT_FP4, {0, 0, 0, 0x40, 0x3B, 0x50}, {2, -2, 1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct quant_type *t = quant_by_id(rows[i].id);
        uint8_t *p = calloc(1, t->bytes * (t->block == 1 ? 3 : 1));
        float got[3];
        memcpy(p, rows[i].bytes, t->block == 1 ? 3 : 8);
        t->decode(got, p, 3);
        if (memcmp(got, rows[i].want, sizeof got))
            fail_msg("%s: %g %g %g", t->name, (double)got[0], (double)got[1], (double)got[2]);
        free(p);
    }
}

static void rows_may_end_in_a_part_of_a_block(void **state)
{
    enum { N = 300 };
    float x[N], whole[N + 128] = {0}, part[N];
    size_t types;
    const struct quant_type *const *all = quant_all(&types);
    for (size_t i = 0; i < types; i++) {
        const struct quant_type *t = all[i];
        assert_int_equal(t->partial, t->id >= QUANT_INNER);
        if (!t->partial)
            continue;
        for (size_t n = 1; n <= N; n += n < 140 ? 1 : 17) {
            size_t size, full = (n + t->block - 1) / t->block * t->block;
            for (size_t k = 0; k < n; k++)
                x[k] = sinf((float)(k * k));
            assert_true(quant_size(t, n, &size));
            assert_int_equal(size, full / t->block * t->bytes);
            uint8_t *p = malloc(size);
            memset(p, 0xA5, size);
            t->encode(p, x, n, NULL);
            t->decode(part, p, n);
            t->decode(whole, p, full);
            assert_memory_equal(part, whole, n * sizeof *part);
            /* What the missing values would take at the end; halves of Q4Z's bytes lie apart. */
            size_t per_byte = t->block == 64 ? 2 : t->id == QUANT_Q4Z ? 100 : 1;
            for (size_t k = size - (full - n) / per_byte; k < size; k++)
                assert_int_equal(p[k], 0);
            for (size_t k = 0; k < n; k++)
                assert_true(fabsf(part[k] - x[k]) < 0.3f);
            free(p);
        }
    }
}

static void any_bytes_decode_at_any_alignment(void **state)
{
    enum { N = 2 * 256 };
    size_t types;
    const struct quant_type *const *all = quant_all(&types);
    uint64_t x = 1;
    for (size_t i = 0; i < types; i++) {
        const struct quant_type *t = all[i];
        size_t size;
        assert_true(quant_size(t, N, &size));
        for (int round = 0; round < 200; round++) {
            /* exactly as many bytes as the format needs: the sanitizer sees the first one beyond */
            uint8_t *block = malloc(size + 1);
            float *out = malloc(N * sizeof(*out));
            for (size_t k = 0; k <= size; k++) {
                x = x * 6364136223846793005u + 1442695040888963407u;
                block[k] = round == 0 ? 0xFF : round == 1 ? 0x7F : (uint8_t)(x >> 56);
            }
            t->decode(out, block + 1, N);
            free(out);
            free(block);
        }
        t->decode(NULL, NULL, 0);
    }
}

static void rows_are_found(void **state)
{
    size_t types;
    const struct quant_type *const *all = quant_all(&types);
    for (size_t i = 0; i < types; i++) {
        assert_ptr_equal(quant_by_id(all[i]->id), all[i]);
        assert_ptr_equal(quant_by_name(all[i]->name), all[i]);
        assert_true(256 % all[i]->block == 0);
    }
    assert_ptr_equal(quant_by_name("q4_k"), quant_by_id(QUANT_Q4_K));
    assert_ptr_equal(quant_by_safetensors("BF16"), quant_by_id(QUANT_BF16));
    assert_null(quant_by_safetensors("bf16"));
    assert_null(quant_by_safetensors(NULL));
    assert_null(quant_by_name("Q4"));
    assert_null(quant_by_name(NULL));
    assert_ptr_equal(quant_by_safetensors("F8_E4M3"), quant_by_id(QUANT_E4M3));
    assert_non_null(quant_levels(QUANT_NF4));
    assert_null(quant_levels(QUANT_Q4_0));
    assert_null(quant_by_id(4)); /* a type that was removed */
    assert_null(quant_by_id(QUANT_ID_MAX));
    assert_null(quant_by_id(UINT32_MAX));
}

static void sizes_are_checked(void **state)
{
    const struct quant_type *q4 = quant_by_id(QUANT_Q4_K), *f64 = quant_by_id(QUANT_F64);
    size_t size = 0;
    assert_true(quant_size(q4, 512, &size));
    assert_int_equal(size, 288);
    assert_true(quant_size(q4, 0, &size));
    assert_int_equal(size, 0);
    assert_false(quant_size(q4, 255, &size));
    assert_false(quant_size(q4, 257, &size));
    assert_true(quant_size(f64, SIZE_MAX / 8, &size));
    assert_false(quant_size(f64, SIZE_MAX / 8 + 1, &size));
    assert_true(quant_size(quant_by_id(QUANT_FP8), 129, &size));
    assert_int_equal(size, 264);
    assert_false(quant_size(quant_by_id(QUANT_FP8), SIZE_MAX, &size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_rows_decode_to_the_same_bits),
        cmocka_unit_test(plain_floats_decode),
        cmocka_unit_test(inner_types_decode),
        cmocka_unit_test(rows_may_end_in_a_part_of_a_block),
        cmocka_unit_test(any_bytes_decode_at_any_alignment),
        cmocka_unit_test(rows_are_found),
        cmocka_unit_test(sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
