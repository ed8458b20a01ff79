#include "base/buf.h"

#include "support/fail_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void an_empty_buffer_is_a_string(void **state)
{
    struct buf b;
    struct err e;
    buf_init(&b, 10);
    assert_string_equal(b.data, "");
    assert_int_equal(buf_append(&b, NULL, 0, &e), 0);
    assert_int_equal(buf_puts(&b, "", &e), 0);
    assert_int_equal(buf_printf(&b, &e, "%s", ""), 0);
    buf_clear(&b);
    assert_string_equal(b.data, "");
    buf_release(&b);
    assert_string_equal(b.data, "");
}

static void bytes_add_up_and_stay_terminated(void **state)
{
    struct buf b;
    struct err e;
    buf_init(&b, SIZE_MAX);
    assert_int_equal(buf_append(&b, "a\0b", 3, &e), 0);
    assert_int_equal(buf_putc(&b, 'c', &e), 0);
    assert_int_equal(buf_puts(&b, "de", &e), 0);
    assert_int_equal(buf_printf(&b, &e, "<%d %s>", -7, "xyz"), 0);
    assert_int_equal(b.len, 14);
    assert_memory_equal(b.data, "a\0bcde<-7 xyz>", 15);
    buf_clear(&b);
    for (int i = 0; i < 100000; i++) {
        assert_int_equal(buf_putc(&b, (char)('a' + i % 26), &e), 0);
        assert_int_equal(b.data[b.len], 0);
    }
    for (int i = 0; i < 100000; i++)
        assert_int_equal(b.data[i], 'a' + i % 26);
    buf_release(&b);
    assert_int_equal(b.len, 0);
    assert_int_equal(buf_puts(&b, "again", &e), 0);
    buf_release(&b);
}

static void the_maximum_holds_and_nothing_is_lost(void **state)
{
    struct buf b;
    struct err e = {0};
    buf_init(&b, 10);
    assert_int_equal(buf_puts(&b, "12345678", &e), 0);
    assert_int_equal(buf_puts(&b, "abc", &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "10"));
    assert_int_equal(buf_printf(&b, &e, "%d", 123), ERR_LIMIT);
    assert_int_equal(buf_append(&b, "x", SIZE_MAX, &e), ERR_LIMIT);
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 7, &e), ERR_LIMIT);
    assert_string_equal(b.data, "12345678");
    assert_int_equal(buf_puts(&b, "90", &e), 0);
    assert_int_equal(buf_putc(&b, 'x', &e), ERR_LIMIT);
    assert_string_equal(b.data, "1234567890");
    buf_release(&b);

    buf_init(&b, 0);
    assert_int_equal(buf_putc(&b, 'x', &e), ERR_LIMIT);
    buf_release(&b);

    buf_init(&b, SIZE_MAX);
    assert_int_equal(buf_reserve(&b, SIZE_MAX, &e), ERR_LIMIT);
    fail_alloc_from(1);
    assert_int_equal(buf_reserve(&b, SIZE_MAX - 1, &e), ERR_NOMEM);
    fail_alloc_stop();
    buf_release(&b);
}

static void every_allocation_may_fail(void **state)
{
    for (size_t n = 1;; n++) {
        struct buf b;
        struct err e = {0};
        buf_init(&b, SIZE_MAX);
        fail_alloc_at(n);
        size_t kept = 0;
        for (int i = 0; i < 3000; i++) {
            int rc = i % 2 ? buf_puts(&b, "word", &e) : buf_printf(&b, &e, "%d", 1000 + i % 9000);
            kept += rc ? 0 : 4;
            assert_int_equal(b.len, kept);
            assert_int_equal(b.data[b.len], 0);
        }
        bool failed = fail_alloc_stop();
        assert_int_equal(kept, failed ? 2999 * 4 : 3000 * 4);
        buf_release(&b);
        if (!failed)
            break;
        assert_int_equal(e.code, ERR_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_buffer_is_a_string),
        cmocka_unit_test(bytes_add_up_and_stay_terminated),
        cmocka_unit_test(the_maximum_holds_and_nothing_is_lost),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
