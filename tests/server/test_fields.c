/* Members of JSON requests: null is absence, types and ranges are checked, errors name the member.
 */
#include "server/fields.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdlib.h>
#include <string.h>

static json_t *parse(const char *s)
{
    json_t *o = json_loads(s, JSON_ALLOW_NUL, NULL);
    assert_non_null(o);
    return o;
}

static void test_absent(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *o = parse("{\"a\": null}");
    struct fields f = fields_of(o, "", &e);
    bool b = true;
    int64_t i = 7;
    float x = 0.5f;
    const char *s = "s", *list[4];
    size_t n = 3;
    field_bool(&f, "a", &b);
    field_int(&f, "a", &i, 0, 1);
    field_int(&f, "missing", &i, 0, 1);
    field_float(&f, "a", &x, 2, 3);
    field_string(&f, "a", &s, NULL, 1);
    field_strings(&f, "a", list, &n, 4, 10);
    assert_int_equal(f.code, 0);
    assert_true(b && i == 7 && x == 0.5f && n == 3);
    assert_string_equal(s, "s");
    json_decref(o);
}

static void test_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        bool ok;
        int64_t v;
    } rows[] = {
        {"3", true, 3},      {"3.0", true, 3},    {"-2", true, -2},   {"3.5", false, 0},
        {"1e300", false, 0}, {"\"3\"", false, 0}, {"true", false, 0}, {"100", false, 0},
        {"-100", false, 0},  {"[]", false, 0},    {"1e18", false, 0}, {"-0.0", true, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[64];
        struct err e = {0};
        snprintf(text, sizeof text, "{\"k\": %s}", rows[i].json);
        json_t *o = parse(text);
        struct fields f = fields_of(o, "options.", &e);
        int64_t v = 55;
        field_int(&f, "k", &v, -10, 10);
        assert_int_equal(f.code == 0, rows[i].ok);
        assert_int_equal(v, rows[i].ok ? rows[i].v : 55);
        if (!rows[i].ok) {
            assert_non_null(strstr(e.text, "options.k"));
            assert_string_equal(f.param, "k");
        }
        json_decref(o);
    }
}

static void test_first_error_stays(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *o = parse("{\"a\": 1, \"b\": \"x\", \"c\": true}");
    struct fields f = fields_of(o, "", &e);
    bool b = false;
    int64_t i = 0;
    field_bool(&f, "a", &b);
    field_int(&f, "b", &i, 0, 9);
    field_bool(&f, "c", &b);
    assert_int_equal(f.code, ERR_USAGE);
    assert_non_null(strstr(e.text, "a must be true or false"));
    assert_false(b);
    json_decref(o);
}

static void test_strings(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *o =
        parse("{\"one\": \"x\", \"two\": [\"x\", \"y\"], \"none\": [], \"empty\": [\"\"], "
              "\"nul\": \"a\\u0000b\", \"long\": \"abcdef\", \"bad\": [1], \"word\": \"on\"}");
    const char *v[2], *s = NULL;
    size_t n = 9;
    struct fields f = fields_of(o, "", &e);
    field_strings(&f, "one", v, &n, 2, 4);
    assert_int_equal(n, 1);
    field_strings(&f, "two", v, &n, 2, 4);
    assert_int_equal(n, 2);
    assert_string_equal(v[1], "y");
    field_strings(&f, "none", v, &n, 2, 4);
    assert_int_equal(n, 0);
    field_string(&f, "nul", &s, &n, 10);
    assert_int_equal(n, 3);
    static const char *const words[] = {"off", "on"};
    int w = 0;
    field_word(&f, "word", &w, words, 2);
    assert_int_equal(w, 1);
    assert_int_equal(f.code, 0);
    static const char *const bad[] = {"empty", "nul", "long", "bad"};
    for (size_t i = 0; i < 4; i++) {
        f = fields_of(o, "", &e);
        field_strings(&f, bad[i], v, &n, 2, 4);
        assert_int_equal(f.code, ERR_USAGE);
        assert_non_null(strstr(e.text, bad[i]));
    }
    f = fields_of(o, "", &e);
    field_word(&f, "one", &w, words, 2);
    assert_non_null(strstr(e.text, "\"off\" or \"on\""));
    json_decref(o);
}

static void test_ids(void **state)
{
    (void)state;
    struct err e = {0};
    json_t *o =
        parse("{\"ok\": [1, 9], \"high\": [10], \"low\": [-1], \"real\": [1.5], \"n\": [1,2,3]}");
    struct fields f = fields_of(o, "", &e);
    int32_t *v = NULL;
    size_t n = 0;
    field_ids(&f, "ok", &v, &n, 2, 10);
    assert_int_equal(n, 2);
    assert_int_equal(v[1], 9);
    free(v);
    static const char *const bad[] = {"high", "low", "real", "n"};
    for (size_t i = 0; i < 4; i++) {
        f = fields_of(o, "", &e);
        v = NULL;
        field_ids(&f, bad[i], &v, &n, 2, 10);
        assert_int_equal(f.code, ERR_USAGE);
        assert_null(v);
    }
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_absent),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_first_error_stays),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
