/* The page pool: limits, reuse, that a used page comes back clean, and pages that several hold. */
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
    assert_int_equal(kv_seq_reserve(&a, 0, 0, 65, &e), 0);
    assert_int_equal(kv_seq_reserve(&a, 0, 0, 128, &e), 0);
    assert_int_equal(kv_pool_unused(p), 2);
    assert_int_equal(kv_seq_reserve(&b, 0, 0, 128, &e), 0);
    assert_int_equal(kv_pool_unused(p), 0);
    /* The pool is full; then the sequence is. */
    assert_int_equal(kv_seq_reserve(&a, 0, 0, 129, &e), ERR_LIMIT);
    assert_int_equal(kv_seq_reserve(&b, 0, 0, 129, &e), ERR_LIMIT);
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
    assert_int_equal(kv_seq_reserve(&a, 0, 0, 192, &e), 0);
    for (size_t i = 1; i < 3; i++)
        for (size_t n = 0; n < 64 * 64 * 2; n++)
            assert_int_equal(kv_k(&a, i, 1, 1)[n], 0);
    kv_seq_release(&a);
    kv_seq_release(&b);
    assert_int_equal(kv_pool_unused(p), 4);
    kv_pool_free(p);
}

/* A page is unused again when its last holder lets it go. */
static void test_holders(void **state)
{
    (void)state;
    struct err e = {0};
    struct kv_pool *p;
    struct kv_seq a, b;
    uint32_t page;
    assert_int_equal(kv_pool_new(&p, &shape, 4, &e), 0);
    assert_int_equal(kv_pool_pages(p), 4);
    assert_int_equal(kv_seq_init(&a, p, 256, &e), 0);
    assert_int_equal(kv_seq_init(&b, p, 128, &e), 0);
    assert_int_equal(kv_seq_reserve(&a, 0, 0, 192, &e), 0);
    assert_int_equal(kv_seq_share(&b, a.page, 3, &e), ERR_LIMIT);
    assert_int_equal(b.n_page, 0);
    assert_int_equal(kv_seq_share(&b, a.page, 2, &e), 0);
    assert_int_equal(kv_pool_unused(p), 1);
    assert_int_equal(kv_page_holders(p, a.page[0]), 2);
    assert_int_equal(kv_page_holders(p, a.page[2]), 1);
    assert_ptr_equal(kv_k(&a, 1, 1, 1), kv_k(&b, 1, 1, 1));
    assert_ptr_equal(kv_page_data(p, a.page[1]), kv_k(&b, 1, 0, 0));
    kv_seq_truncate(&a, 64);
    assert_int_equal(kv_pool_unused(p), 2);
    kv_seq_release(&a);
    assert_int_equal(kv_pool_unused(p), 2);
    /* One taken without a sequence, put in the place of another. */
    assert_true(kv_page_take(p, &page));
    assert_int_equal(kv_page_holders(p, page), 1);
    kv_seq_swap(&b, 1, page);
    assert_int_equal(kv_pool_unused(p), 2);
    assert_ptr_equal(kv_page_data(p, page), kv_k(&b, 1, 0, 0));
    kv_page_drop(p, page);
    kv_page_hold(p, b.page[0]);
    kv_seq_release(&b);
    assert_int_equal(kv_pool_unused(p), 3);
    /* Kept in case somebody wants it: idle when nobody does. */
    assert_true(kv_page_take(p, &page));
    assert_int_equal(kv_pool_idle(p), 0);
    kv_page_keep(p, page);
    assert_int_equal(kv_pool_idle(p), 0);
    kv_page_drop(p, page);
    assert_int_equal(kv_pool_idle(p), 1);
    assert_int_equal(kv_pool_unused(p), 2);
    assert_int_equal(kv_seq_init(&a, p, 256, &e), 0);
    assert_int_equal(kv_seq_share(&a, &page, 1, &e), 0);
    assert_int_equal(kv_pool_idle(p), 0);
    assert_int_equal(kv_seq_need(&a, 3, 10), 1); /* it is not for writing */
    kv_seq_release(&a);
    assert_int_equal(kv_pool_idle(p), 1);
    kv_page_forget(p, page);
    assert_int_equal(kv_pool_idle(p), 0);
    assert_int_equal(kv_pool_unused(p), 3);
    for (int i = 0; i < 3; i++)
        assert_true(kv_page_take(p, &page));
    assert_false(kv_page_take(p, &page));
    kv_pool_free(p);
}

/* Bytes of an element, and where position `at` of the e-th value of a key or value lies, by the
   layouts of kv.h and kern.h. */
static size_t key_at(const struct kv_shape *s, size_t value, size_t at)
{
    size_t bytes = quant_by_id(s->type)->bytes;
    if (s->type == QUANT_Q8_0)
        return (value / 4 * KV_PAGE + at) * 4 + value % 4;
    return (s->latent ? at * s->d_k + value : value * KV_PAGE + at) * bytes;
}

static size_t value_at(const struct kv_shape *s, size_t value, size_t at)
{
    if (s->type == QUANT_Q8_0)
        return (value / 4 * KV_PAGE + at) * 4 + value % 4;
    return (at * ((s->d_v + 15) / 16 * 16) + value) * quant_by_id(s->type)->bytes;
}

/* Who writes to a page that others hold gets a copy: what it keeps is there, the rest is zeros, and
   the others see nothing of it. */
static void test_copy_on_write(void **state)
{
    (void)state;
    static const struct kv_shape shapes[] = {
        {2, 2, 64, 24, QUANT_F16, false}, {2, 2, 32, 32, QUANT_F32, false},
        {2, 1, 40, 32, QUANT_BF16, true}, {2, 2, 64, 64, QUANT_Q8_0, false},
        {2, 1, 96, 64, QUANT_Q8_0, true}, {2, 2, 16, 16, QUANT_E5M2, false},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const struct kv_shape *s = &shapes[i];
        struct err e = {0};
        struct kv_pool *p;
        struct kv_seq a, b;
        assert_int_equal(kv_pool_new(&p, s, 5, &e), 0);
        assert_int_equal(kv_seq_init(&a, p, 256, &e), 0);
        assert_int_equal(kv_seq_init(&b, p, 256, &e), 0);
        assert_int_equal(kv_seq_reserve(&a, 0, 0, 128, &e), 0);
        memset(kv_k(&a, 1, 0, 0), 0x7f, kv_page_bytes(s)); /* NaN in most types */
        assert_int_equal(kv_seq_share(&b, a.page, 2, &e), 0);
        assert_int_equal(kv_seq_need(&b, 100, 130), 2);
        assert_int_equal(kv_seq_need(&b, 128, 130), 1);
        assert_int_equal(kv_seq_need(&b, 60, 61), 1);
        assert_int_equal(kv_seq_need(&b, 128, 128), 0);
        assert_int_equal(kv_seq_reserve(&b, 100, 100, 130, &e), 0);
        assert_int_equal(kv_pool_unused(p), 1);
        assert_ptr_equal(kv_k(&a, 0, 0, 0), kv_k(&b, 0, 0, 0));
        assert_ptr_not_equal(kv_k(&a, 1, 0, 0), kv_k(&b, 1, 0, 0));
        for (size_t n = 0; n < kv_page_bytes(s); n++)
            assert_int_equal(kv_k(&a, 1, 0, 0)[n], 0x7f);
        for (size_t layer = 0; layer < 2; layer++)
            for (size_t h = 0; h < s->n_kv_head; h++)
                for (size_t at = 0; at < KV_PAGE; at++) {
                    int want = at < 36 ? 0x7f : 0;
                    for (size_t v = 0; v < s->d_k; v++)
                        assert_int_equal(kv_k(&b, 1, layer, h)[key_at(s, v, at)], want);
                    for (size_t v = 0; v < s->d_v && !s->latent; v++)
                        assert_int_equal(kv_v(&b, 1, layer, h)[value_at(s, v, at)], want);
                    /* Scales follow the integers: one of every block, of every position. */
                    if (s->type == QUANT_Q8_0)
                        assert_int_equal(kv_k(&b, 1, layer, h)[s->d_k * KV_PAGE + at * 4], want);
                }
        /* Its own now: written in place. And there is one page for two that are wanted. */
        uint32_t page = b.page[1];
        assert_int_equal(kv_seq_reserve(&b, 70, 70, 190, &e), 0);
        assert_int_equal(b.page[1], page);
        assert_int_equal(kv_seq_reserve(&b, 10, 10, 250, &e), ERR_LIMIT);
        assert_ptr_equal(kv_k(&a, 0, 0, 0), kv_k(&b, 0, 0, 0));
        assert_int_equal(b.n_page, 3);
        /* Once the other has let it go, so is the first. */
        kv_seq_release(&a);
        assert_int_equal(kv_seq_need(&b, 10, 20), 0);
        kv_seq_release(&b);
        assert_int_equal(kv_pool_unused(p), 5);
        kv_pool_free(p);
    }
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
        cmocka_unit_test(test_pages),         cmocka_unit_test(test_holders),
        cmocka_unit_test(test_copy_on_write), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("tensor/kv", tests, NULL, NULL);
}
