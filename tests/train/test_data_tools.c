/* Files of training data into others: weights to the line, splits, decontamination, texts. */
#include "train/data_tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"

static char dir[64];

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static int setup(void **state)
{
    strcpy(dir, "/tmp/ponder-tools-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static const char *const names[] = {"a.jsonl",   "b.jsonl", "out.jsonl", "test.jsonl",
                                    "a.jsonl:2", "c.txt",   "none.jsonl"};

static const char *path_of(const char *name)
{
    static char path[sizeof names / sizeof *names][128];
    size_t i = 0;
    while (strcmp(names[i], name) != 0)
        i++;
    snprintf(path[i], sizeof path[i], "%s/%s", dir, name);
    return path[i];
}

static int teardown(void **state)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(path_of(names[i]));
    return rmdir(dir);
}

static const char *write_text(const char *name, const char *text)
{
    const char *path = path_of(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
    return path;
}

static char *read_text(const char *name)
{
    struct buf b;
    struct err e = {0};
    buf_init(&b, 1 << 20);
    good(file_read(&b, path_of(name), &e), &e);
    return b.data;
}

static size_t count(const char *text, const char *word)
{
    size_t n = 0;
    for (const char *s = text; (s = strstr(s, word)); s++)
        n++;
    return n;
}

static void test_parse(void **state)
{
    struct data_source s;
    struct arena a;
    struct err e = {0};
    arena_init(&a, 1 << 16);
    good(data_source_parse(&s, "x.jsonl", &a, &e), &e);
    assert_string_equal(s.path, "x.jsonl");
    assert_true(s.weight == 1);
    good(data_source_parse(&s, "x.jsonl:0.25", &a, &e), &e);
    assert_string_equal(s.path, "x.jsonl");
    assert_true(s.weight == 0.25);
    good(data_source_parse(&s, "x:y.jsonl", &a, &e), &e);
    assert_string_equal(s.path, "x:y.jsonl");
    good(data_source_parse(&s, "c:/x", &a, &e), &e);
    assert_string_equal(s.path, "c:/x");
    assert_int_equal(data_source_parse(&s, "x.jsonl:0", &a, &e), ERR_USAGE);
    assert_int_equal(data_source_parse(&s, "x.jsonl:-1", &a, &e), ERR_USAGE);
    /* a file that is called so */
    const char *odd = write_text("a.jsonl:2", "{}");
    good(data_source_parse(&s, odd, &a, &e), &e);
    assert_string_equal(s.path, odd);
    arena_release(&a);
}

static void test_mix(void **state)
{
    struct err e = {0};
    uint64_t lines;
    char text[4096] = "";
    for (int i = 0; i < 40; i++)
        snprintf(text + strlen(text), 32, "{\"a\":  %d}\r\n", i);
    struct data_source s[] = {{write_text("a.jsonl", text), 0.5},
                              {write_text("b.jsonl", "{\"b\":1}\n{\"b\":2}"), 3}};
    good(data_mix(s, 2, 7, false, path_of("out.jsonl"), &lines, &e), &e);
    char *first = read_text("out.jsonl");
    assert_int_equal(lines, 26);
    assert_int_equal(count(first, "{\"a\":  "), 20); /* as it was written */
    assert_int_equal(count(first, "{\"b\":1}\n"), 3);
    assert_int_equal(count(first, "{\"b\":2}\n"), 3);
    assert_int_equal(count(first, "\n"), 26);
    good(data_mix(s, 2, 7, false, path_of("out.jsonl"), &lines, &e), &e);
    char *again = read_text("out.jsonl");
    assert_string_equal(first, again);
    good(data_mix(s, 2, 8, false, path_of("out.jsonl"), &lines, &e), &e);
    char *other = read_text("out.jsonl");
    assert_string_not_equal(first, other);
    s[0].weight = s[1].weight = 1;
    good(data_mix(s, 2, 7, true, path_of("out.jsonl"), &lines, &e), &e);
    char *plain = read_text("out.jsonl");
    assert_true(strncmp(plain, "{\"a\":  0}\n{\"a\":  1}\n", 20) == 0);
    assert_int_equal(lines, 42);
    free(first);
    free(again);
    free(other);
    free(plain);
    unlink(path_of("out.jsonl"));
    s[1].path = path_of("none.jsonl");
    assert_int_equal(data_mix(s, 2, 7, true, path_of("out.jsonl"), &lines, &e), ERR_IO);
    assert_int_equal(file_kind(path_of("out.jsonl")), FILE_NONE);
}

static void test_split(void **state)
{
    struct err e = {0};
    char text[16384] = "";
    for (int i = 0; i < 300; i++)
        snprintf(text + strlen(text), 64, "{\"prompt\": \"q %d\", \"n\": %d}\n", i / 2, i);
    struct data_split s = {.path = write_text("a.jsonl", text),
                           .train = path_of("out.jsonl"),
                           .test = path_of("test.jsonl"),
                           .test_size = 0.3};
    good(data_split(&s, &e), &e);
    assert_int_equal(s.n_train + s.n_test, 300);
    assert_true(s.n_test > 45 && s.n_test < 135); /* 90; pairs, so four standard errors are 45 */
    assert_int_equal(s.n_test % 2, 0);            /* the same question is on the same side */
    char *train = read_text("out.jsonl"), *test = read_text("test.jsonl");
    assert_int_equal(count(train, "\n"), s.n_train);
    assert_int_equal(count(test, "\n"), s.n_test);
    for (int i = 0; i < 300; i++) {
        char word[32];
        snprintf(word, sizeof word, "\"n\": %d}", i);
        assert_int_equal(count(train, word) + count(test, word), 1);
    }
    free(train);
    free(test);
    unlink(s.train);
    unlink(s.test);
    s.path = write_text("a.jsonl", "{\"prompt\": \"x\"}\n{\n");
    assert_int_equal(data_split(&s, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "line 2"));
    assert_int_equal(file_kind(s.train), FILE_NONE);
    assert_int_equal(file_kind(s.test), FILE_NONE);
    s.test = s.train;
    assert_int_equal(data_split(&s, &e), ERR_USAGE);
}

static void note_line(void *arg, uint64_t line)
{
    *(uint64_t *)arg |= 1ull << line;
}

static void test_decontaminate(void **state)
{
    struct err e = {0};
    uint64_t lines = 0;
    const char *bench = write_text(
        "b.jsonl", "{\"problem\": \"Find the sum of all primes below one hundred now.\"}\n"
                   "{\"question\": \"2 + 2 = ?\"}\n"
                   "{\"problem\": \"小明有十二个苹果，又买了三个\"}\n");
    struct data_clean c = {
        .path = write_text(
            "a.jsonl",
            "{\"prompt\": \"Please:  FIND the sum\\nof all primes below one thousand.\"}\n" /* 8 */
            "{\"prompt\": \"the sum of all primes below one million\"}\n"                   /* 7 */
            "{\"prompt\": [{\"role\": \"user\", \"content\": \"2 + 2 = ?\"}]}\n"
            "{\"prompt\": \"2 + 2 = ? 4\"}\n"
            "{\"text\": \"昨天小明有十二个苹果。\"}\n"
            "{\"text\": \"小红有十二个梨。\"}\n"
            "{\"other\": 1}\n"),
        .out = path_of("out.jsonl"),
        .against = &bench,
        .n_against = 1,
        .ngram = 8,
        .gone = note_line,
        .arg = &lines};
    good(data_decontaminate(&c, &e), &e);
    assert_int_equal(lines, 1 << 1 | 1 << 3 | 1 << 5);
    assert_int_equal(c.removed, 3);
    assert_int_equal(c.kept, 4);
    char *text = read_text("out.jsonl");
    assert_int_equal(count(text, "\n"), 4);
    assert_int_equal(count(text, "one million"), 1);
    free(text);
    c.ngram = 0;
    assert_int_equal(data_decontaminate(&c, &e), ERR_USAGE);
    c.ngram = 8;
    c.against = &c.out;
    c.path = path_of("none.jsonl");
    assert_int_equal(data_decontaminate(&c, &e), ERR_IO);
}

static int take_text(void *arg, const char *s, size_t n, struct err *e)
{
    int rc = buf_append(arg, s, n, e);
    return rc ? rc : buf_putc(arg, '|', e);
}

static void test_texts(void **state)
{
    struct err e = {0};
    struct buf b;
    buf_init(&b, 1 << 16);
    const char *rows = write_text(
        "a.jsonl", "{\"prompt\": [{\"role\": \"user\", \"content\": \"q\"}], \"completion\": "
                   "[{\"role\": \"assistant\", \"content\": \"a\", \"reasoning_content\": \"r\"}], "
                   "\"gold\": \"no\"}\n"
                   "{\"text\": \"t\"}\n"
                   "{\"conversations\": [{\"from\": \"human\", \"value\": \"v\"}]}\n");
    good(data_texts(rows, take_text, &b, &e), &e);
    assert_string_equal(b.data, "q|a|r|t||v|");
    buf_clear(&b);
    good(data_texts(write_text("c.txt", "{plain}\nlines"), take_text, &b, &e), &e);
    assert_string_equal(b.data, "{plain}\nlines|");
    buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse), cmocka_unit_test(test_mix),
        cmocka_unit_test(test_split), cmocka_unit_test(test_decontaminate),
        cmocka_unit_test(test_texts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
