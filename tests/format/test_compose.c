/*
 * Composed tensors: the bits of their rows against goldens, and every size and index of their parts
 * set wrong once.
 */
#include "build.h"

#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct temp tmp;

static int setup(void **state)
{
    temp_new(&tmp);
    return 0;
}

static int teardown(void **state)
{
    temp_free(&tmp);
    return 0;
}

/* Adds a golden tensor under a name. */
static void add_golden(struct st *f, const struct golden *g, const char *from, const char *name)
{
    struct golden_tensor t = golden_get(g, "%s", from);
    uint64_t shape[SOURCE_DIMS];

    for (size_t i = 0; i < t.rank; i++)
        shape[i] = t.dim[i];
    st_add(f, name, strdup(t.dtype), (int)t.rank, shape, t.data, t.bytes);
}

/* Rows in all partitions give what `want` has, bit for bit (`eps`: or relative to it). */
static void assert_rows(const struct source_tensor *t, const float *want, double eps)
{
    size_t rows = (size_t)source_row_count(t), cols = (size_t)t->shape[t->dims - 1];
    size_t bytes = source_row_bytes(t), stride = bytes + 3;
    uint8_t *p = malloc(stride * rows + 1);
    float *got = malloc(cols * sizeof *got);

    assert_int_equal(t->bytes, bytes * rows);
    for (size_t step = 1; step <= rows; step = step * 3 + 1) {
        memset(p, 0xA5, stride * rows + 1);
        for (size_t r = 0; r < rows; r += step)
            source_rows(t, r, rows - r < step ? rows - r : step, p + 1 + r * stride, stride);
        for (size_t r = 0; r < rows; r++) {
            t->type->decode(got, p + 1 + r * stride, cols);
            for (size_t c = 0; c < cols; c++) {
                float w = want[r * cols + c];
                if (eps == 0 ? memcmp(&got[c], &w, 4) != 0 : fabs((double)got[c] - (double)w) > eps)
                    fail_msg("%s (%s): row %zu, column %zu is %.9g, not %.9g", t->name,
                             t->type->name, r, c, (double)got[c], (double)w);
            }
            if (r + 1 < rows)
                assert_memory_equal(p + 1 + r * stride + bytes, "\xA5\xA5\xA5", 3);
        }
    }
    free(got);
    free(p);
}

static const struct source_tensor *the_weight(const struct source *s, const char *type)
{
    const struct source_tensor *t = source_tensor(s, "x.weight");

    assert_non_null(t);
    assert_non_null(t->parts);
    assert_null(t->data);
    assert_string_equal(t->type->name, type);
    return t;
}

/* ---- FP8 and int8 -------------------------------------------------------------------------------
 */

static void test_fp8_golden(void **state)
{
    static const char *const cases[] = {"kv_a", "down"};
    struct golden *g = golden_load("quant/fp8.safetensors");

    for (size_t i = 0; i < 2; i++) {
        struct st f = {0};
        struct source *s;
        char name[64];
        snprintf(name, sizeof name, "%s.weight", cases[i]);
        add_golden(&f, g, name, "x.weight");
        snprintf(name, sizeof name, "%s.weight_scale_inv", cases[i]);
        add_golden(&f, g, name, "x.weight_scale_inv");
        s = open_ok(st_write(&f, &tmp, "m.safetensors"));
        assert_int_equal(source_tensor_count(s), 1);
        assert_rows(the_weight(s, "FP8"), golden_get(g, "%s.expected", cases[i]).f32, 0);
        source_tensor_drop(s, the_weight(s, "FP8"));
        assert_rows(the_weight(s, "FP8"), golden_get(g, "%s.expected", cases[i]).f32, 0);
        source_free(s);
    }
    golden_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fp8_golden, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
