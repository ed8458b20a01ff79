/* What a load asks for: lengths as they are written, prompts from files and from a seed. */
#include "cli/load.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_lengths(void **state)
{
    (void)state;
    static const char *const good[] = {"128", "64-512", "normal:256:64", "lognormal:200:0.8",
                                       "exp:200"};
    static const double mean[] = {128, 288, 256, 275, 200}; /* exp(0.8²/2) · 200 = 275 */
    for (size_t i = 0; i < 5; i++) {
        struct load_length l;
        struct err e = {0};
        struct rng r;
        double sum = 0;
        assert_int_equal(load_length_parse(&l, good[i], &e), 0);
        rng_init(&r, 1, 2);
        for (int k = 0; k < 20000; k++)
            sum += (double)load_length_draw(&l, &r, 1, 1 << 20);
        assert_true(sum / 20000 > mean[i] * 0.95 && sum / 20000 < mean[i] * 1.05);
    }
    static const char *const bad[] = {"", "x", "0", "-5", "9-3", "normal:5", "1e9", "12 ", "nan"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct load_length l;
        struct err e = {0};
        assert_int_equal(load_length_parse(&l, bad[i], &e), ERR_USAGE);
    }
}

static void test_made_prompts(void **state)
{
    (void)state;
    struct load_data_opts o = {.prefix = 20, .seed = 3};
    struct load_data *d;
    struct err e = {0};
    load_length_parse(&o.prompt, "50-90", &e);
    load_length_parse(&o.answer, "7", &e);
    assert_int_equal(load_data_new(&d, &o, &e), 0);
    json_t *a, *b, *c;
    size_t n;
    assert_int_equal(load_data_get(d, 0, &a, &n, &e), 0);
    assert_int_equal(n, 7);
    assert_int_equal(load_data_get(d, 0, &b, &n, &e), 0);
    assert_int_equal(load_data_get(d, 1, &c, &n, &e), 0);
    assert_true(json_equal(a, b)); /* the i-th is always the same */
    assert_false(json_equal(a, c));
    const char *s = json_string_value(json_object_get(json_array_get(a, 0), "content"));
    const char *t = json_string_value(json_object_get(json_array_get(c, 0), "content"));
    size_t same = 0, words = 0;
    while (s[same] == t[same])
        words += s[same++] == ' ';
    assert_true(words >= 20 && words < 25); /* the prefix, and then another text */
    json_decref(a);
    json_decref(b);
    json_decref(c);
    load_data_free(d);
}

static const char lines[] =
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": "
    "\"b\"}]}\n"
    "\n"
    "{\"prompt\": \"p\", \"output_len\": 33}\n"
    "{\"messages\": [{\"role\": \"user\", \"content\": \"m\"}], \"more\": 1}\n"
    "{\"nothing\": 0}\n";

static int open_lines(const char *text, struct load_data **d, struct err *e)
{
    char path[] = "/tmp/ponder-load-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    struct load_data_opts o = {.file = path};
    load_length_parse(&o.prompt, "5", e);
    load_length_parse(&o.answer, "9", e);
    int rc = load_data_new(d, &o, e);
    unlink(path);
    return rc;
}

static void test_files(void **state)
{
    (void)state;
    struct load_data *d;
    struct err e = {0};
    static const char *const content[] = {"a", "p", "m", "a"};
    static const size_t len[] = {9, 33, 9, 9};
    assert_int_equal(open_lines(lines, &d, &e), 0);
    for (size_t i = 0; i < 4; i++) {
        json_t *m;
        size_t n;
        assert_int_equal(load_data_get(d, i, &m, &n, &e), 0);
        assert_int_equal(json_array_size(m), 1); /* the answer of the file is not asked for */
        assert_string_equal(json_string_value(json_object_get(json_array_get(m, 0), "content")),
                            content[i]);
        assert_int_equal(n, len[i]);
        json_decref(m);
    }
    load_data_free(d);
    assert_int_equal(open_lines("{\"prompt\": \"p\"}\n{oops\n", &d, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, ":2:"));
    assert_int_equal(open_lines("{}\n", &d, &e), ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_made_prompts),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
