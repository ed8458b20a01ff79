#include "base/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A bar on a file that pretends to be a terminal; its clock starts `ago` seconds back. */
static char *drawn(enum progress_unit unit, uint64_t total, uint64_t done, double ago, bool finish)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    struct progress p;
    progress_init(&p, f, "quantizing", unit, total);
    assert_false(p.tty); /* a file is no terminal */
    p.tty = true;
    p.started -= ago;
    progress_update(&p, done);
    p.last_draw += 60; /* too soon after the first, however slow the machine: not drawn */
    progress_update(&p, done);
    if (finish)
        progress_finish(&p);
    long n = ftell(f);
    assert_true(n >= 0);
    char *text = calloc(1, (size_t)n + 1);
    assert_non_null(text);
    rewind(f);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    fclose(f);
    return text;
}

static void check(enum progress_unit unit, uint64_t total, uint64_t done, double ago,
                  const char *want)
{
    char *text = drawn(unit, total, done, ago, false);
    assert_string_equal(text, want);
    free(text);
}

static void bars_show_share_amount_rate_and_time(void **state)
{
    check(PROGRESS_BYTES, 15900000000, 6800000000, 3400,
          "\rquantizing  ▕███████▊          ▏ 42%  6.8/15.9 GB  2.0 MB/s  1:15:50 left\033[K");
    check(PROGRESS_COUNT, 12130, 5218, 99.7,
          "\rquantizing  ▕███████▊          ▏ 43%  5,218/12,130  52/s  2:12 left\033[K");
    check(PROGRESS_COUNT, 4, 4, 10,
          "\rquantizing  ▕██████████████████▏ 100%  4/4  0.4/s  0:00 left\033[K");
    check(PROGRESS_COUNT, 4, 0, 10, "\rquantizing  ▕                  ▏ 0%  0/4  0.0/s\033[K");
    check(PROGRESS_COUNT, 100, 50, 7230,
          "\rquantizing  ▕█████████         ▏ 50%  50/100  145 s each  2:00:30 left\033[K");
}

static void the_total_may_be_unknown_or_wrong(void **state)
{
    check(PROGRESS_BYTES, 0, 2500000, 2, "\rquantizing  2.5 MB  1.2 MB/s\033[K");
    check(PROGRESS_COUNT, 0, 42, 4, "\rquantizing  42  10/s\033[K");
    char *text = drawn(PROGRESS_COUNT, 10, 30, 3, false);
    assert_non_null(strstr(text, "██████████████████▏ 100%"));
    free(text);
}

static void short_work_draws_nothing(void **state)
{
    check(PROGRESS_COUNT, 10, 5, 0.1, "");
    struct progress p;
    progress_init(&p, stderr, "x", PROGRESS_COUNT, 10);
    p.tty = false;
    p.started -= 10;
    progress_update(&p, 5); /* not on a terminal */
    assert_false(p.drawn);
    progress_finish(&p);
}

static void finishing_erases_the_bar(void **state)
{
    char *text = drawn(PROGRESS_COUNT, 10, 5, 1, true);
    assert_string_equal(text + strlen(text) - 4, "\r\033[K");
    free(text);
}

static void bytes_in_words(void **state)
{
    static const struct {
        double bytes;
        const char *text;
    } cases[] = {
        {0, "0 B"},        {17, "17 B"},         {999, "999 B"},      {1000, "1.0 KB"},
        {430e3, "430 KB"}, {99.94e3, "99.9 KB"}, {99.96e3, "100 KB"}, {999.96e3, "1.0 MB"},
        {1.9e9, "1.9 GB"}, {1.5e12, "1.5 TB"},   {-1, "0 B"},         {3e21, "3000000 PB"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[32];
        assert_string_equal(progress_bytes(out, sizeof out, cases[i].bytes), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_show_share_amount_rate_and_time),
        cmocka_unit_test(the_total_may_be_unknown_or_wrong),
        cmocka_unit_test(short_work_draws_nothing),
        cmocka_unit_test(finishing_erases_the_bar),
        cmocka_unit_test(bytes_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
