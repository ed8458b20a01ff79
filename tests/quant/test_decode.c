/*
 * The meaning of each weight type: golden rows decode to the expected bits, the table is
 * consistent, and any bytes decode.
 */
#include "quant/quant.h"

#include "support/golden.h"

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
        if (t->id == QUANT_F32 || t->id == QUANT_F64) /* no golden: see the next test */
            continue;
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
    assert_int_equal(tested, types - 2);
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_rows_decode_to_the_same_bits),
        cmocka_unit_test(plain_floats_decode),
        cmocka_unit_test(any_bytes_decode_at_any_alignment),
        cmocka_unit_test(rows_are_found),
        cmocka_unit_test(sizes_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
