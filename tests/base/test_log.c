#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void lines_below_the_level_are_written(void **state)
{
    char *text = NULL;
    size_t n = 0;
    struct log l = {.out = open_memstream(&text, &n), .level = LOG_INFO};
    assert_non_null(l.out);
    log_line(&l, LOG_ERROR, "e%d", 1);
    log_line(&l, LOG_WARN, "w");
    log_line(&l, LOG_INFO, "i");
    log_line(&l, LOG_DEBUG, "d");
    log_bare(&l, "bare %d\n", 7); /* without a name, at any level, and still one line */
    fclose(l.out);
    assert_string_equal(text, "ponder: e1\nponder: warning: w\nponder: i\nbare 7 \n");
    free(text);
    log_line(NULL, LOG_ERROR, "nothing");
    log_line(&(struct log){0}, LOG_ERROR, "nothing");
}

static void hostile_text_stays_one_line(void **state)
{
    char *text = NULL, big[10000];
    size_t n = 0;
    struct log l = {.out = open_memstream(&text, &n), .level = LOG_DEBUG};
    assert_non_null(l.out);
    log_line(&l, LOG_INFO, "name %s", "a\nb\x1b]0;x\a");
    memset(big, 'y', sizeof big - 1);
    big[sizeof big - 1] = 0;
    log_line(&l, LOG_INFO, "%s", big);
    fclose(l.out);
    assert_int_equal(strncmp(text, "ponder: name a b ]0;x \n", 23), 0);
    assert_string_equal(text + strlen(text) - 5, "y...\n"); /* cut, and says so */
    free(text);
}

static void levels_have_names(void **state)
{
    enum log_level l;
    assert_int_equal(log_level_parse(&l, "error"), 0);
    assert_int_equal(l, LOG_ERROR);
    assert_int_equal(log_level_parse(&l, "warn"), 0);
    assert_int_equal(l, LOG_WARN);
    assert_int_equal(log_level_parse(&l, "info"), 0);
    assert_int_equal(l, LOG_INFO);
    assert_int_equal(log_level_parse(&l, "debug"), 0);
    assert_int_equal(l, LOG_DEBUG);
    assert_int_equal(log_level_parse(&l, "loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_below_the_level_are_written),
        cmocka_unit_test(hostile_text_stays_one_line),
        cmocka_unit_test(levels_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
