/* The page pool: limits, reuse, and that a used page comes back clean. */
#include "support/fail_alloc.h"
#include "tensor/kv.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <string.h>

static const struct kv_shape shape = {2, 2, 64, 64, QUANT_F16};

static void test_pages(void **state)
{
    (void)state;
    struct err e = {0};
    struct kv_pool *p;
    struct kv_seq a, b;
    assert_int_equal(kv_page_bytes(&shape), 2 * 2 * (64 + 64) * KV_PAGE * 2);
    assert_int_equal(kv_pool_new(&p, &shape, 4, &e), 0);
    assert_int_equal(kv_seq_init(&a, p, 256, &e), 0);
    assert_int_equal(kv_seq_init(&b, p, 128, &e), 0);
    assert_int_equal(kv_seq_reserve(&a, 65, &e), 0);
    assert_int_equal(kv_seq_reserve(&a, 128, &e), 0);
    assert_int_equal(kv_pool_unused(p), 2);
    assert_int_equal(kv_seq_reserve(&b, 128, &e), 0);
    assert_int_equal(kv_pool_unused(p), 0);
    /* The pool is full; then the sequence is. */
    assert_int_equal(kv_seq_reserve(&a, 129, &e), ERR_LIMIT);
    assert_int_equal(kv_seq_reserve(&b, 129, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "128"));
    /* Heads, layers and pages do not overlap. */
    memset(kv_k(&a, 1, 1, 1), 0x7f, 64 * 64 * 2);
    assert_int_equal(*kv_v(&a, 1, 1, 0), 0);
    assert_int_equal(*kv_k(&a, 1, 1, 0), 0);
    assert_int_equal(*kv_k(&b, 0, 1, 1), 0);
    kv_seq_truncate(&a, 64);
    assert_int_equal(kv_pool_unused(p), 1);
    kv_seq_truncate(&b, 1);
    assert_int_equal(kv_pool_unused(p), 2);
    /* A page that was used comes back as zeros. */
    assert_int_equal(kv_seq_reserve(&a, 192, &e), 0);
    for (size_t i = 1; i < 3; i++)
        for (size_t n = 0; n < 64 * 64 * 2; n++)
            assert_int_equal(kv_k(&a, i, 1, 1)[n], 0);
    kv_seq_release(&a);
    kv_seq_release(&b);
    assert_int_equal(kv_pool_unused(p), 4);
    kv_pool_free(p);
}

static void test_refused(void **state)
{
    (void)state;
    struct err e = {0};
    struct kv_pool *p;
    struct kv_shape s = shape;
    s.type = QUANT_Q4_0;
    assert_int_equal(kv_pool_new(&p, &s, 4, &e), ERR_USAGE);
    s.type = QUANT_Q8_0;
    s.d_k = 42;
    assert_int_equal(kv_pool_new(&p, &s, 4, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "42"));
    s = shape;
    assert_int_equal(kv_pool_new(&p, &s, 0, &e), ERR_LIMIT);
    assert_int_equal(kv_pool_new(&p, &s, (size_t)1 << 50, &e), ERR_LIMIT);
    s.n_layer = (size_t)1 << 60;
    assert_int_equal(kv_page_bytes(&s), 0);
    assert_int_equal(kv_pool_new(&p, &s, 1, &e), ERR_LIMIT);
}

static void test_no_memory(void **state)
{
    (void)state;
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct kv_pool *p = NULL;
        struct kv_seq a = {0};
        fail_alloc_at(n);
        int rc = kv_pool_new(&p, &shape, 4, &e);
        if (!rc)
            rc = kv_seq_init(&a, p, 256, &e);
        bool failed = fail_alloc_stop();
        kv_seq_release(&a);
        kv_pool_free(p);
        if (!failed)
            break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_true(n < 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("tensor/kv", tests, NULL, NULL);
}
