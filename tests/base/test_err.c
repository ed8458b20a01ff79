#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void context_goes_in_front(void **state)
{
    struct err e;
    assert_int_equal(err_set(&e, ERR_FORMAT, "bad magic %d", 7), ERR_FORMAT);
    assert_int_equal(err_ctx(&e, "blk.%d", 3), ERR_FORMAT);
    assert_int_equal(err_ctx(&e, "model.gguf"), ERR_FORMAT);
    assert_string_equal(e.text, "model.gguf: blk.3: bad magic 7");
}

static void long_texts_lose_their_end(void **state)
{
    struct err e;
    char big[3 * ERR_TEXT_MAX];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = 0;
    err_set(&e, ERR_LIMIT, "%s", big);
    assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
    assert_int_equal(err_ctx(&e, "name"), ERR_LIMIT);
    assert_int_equal(strncmp(e.text, "name: aaa", 9), 0);
    assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
    err_ctx(&e, "%s", big);
    assert_int_equal(strlen(e.text), ERR_TEXT_MAX - 1);
    assert_int_equal(e.code, ERR_LIMIT);
}

static void texts_are_one_printable_line(void **state)
{
    struct err e;
    err_set(&e, ERR_FORMAT, "key '%s'", "a\nb\x1b[31m\x7f\tü");
    assert_string_equal(e.text, "key 'a b [31m  ü'");
    err_ctx(&e, "file\r\n");
    assert_int_equal(strncmp(e.text, "file  : ", 8), 0);
}

static void system_errors_have_words(void **state)
{
    struct err e;
    errno = ENOENT;
    assert_int_equal(err_errno(&e, "%s", "x.gguf"), ERR_IO);
    assert_string_equal(e.text, "x.gguf: No such file or directory");
    errno = ENOMEM;
    assert_int_equal(err_errno(&e, "x"), ERR_NOMEM);
    assert_int_equal(err_nomem(&e, 123, "the cache"), ERR_NOMEM);
    assert_string_equal(e.text, "no memory for the cache (123 bytes)");
}

static void no_place_for_text_is_fine(void **state)
{
    assert_int_equal(err_set(NULL, ERR_USAGE, "x"), ERR_USAGE);
    assert_true(err_ctx(NULL, "x") != 0);
    assert_int_equal(err_nomem(NULL, 1, "x"), ERR_NOMEM);
    errno = EIO;
    assert_int_equal(err_errno(NULL, "x"), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(context_goes_in_front),        cmocka_unit_test(long_texts_lose_their_end),
        cmocka_unit_test(texts_are_one_printable_line), cmocka_unit_test(system_errors_have_words),
        cmocka_unit_test(no_place_for_text_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
