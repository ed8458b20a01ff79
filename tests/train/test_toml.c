/* TOML as JSON: what each form means, what the specification forbids, and errors that say where. */
#include "base/num.h"
#include "support/fail_alloc.h"
#include "train/config.h"
#include "train/toml.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void assert_json(const char *text, const char *json)
{
    json_t *v, *want = json_loads(json, 0, NULL);
    struct err e = {0};
    if (toml_parse(&v, text, strlen(text), &e))
        fail_msg("%s\n%s", e.text, text);
    if (!want || !json_equal(v, want))
        fail_msg("%s\nis %s, not %s", text, json_dumps(v, JSON_COMPACT), json);
    json_decref(v);
    json_decref(want);
}

static void test_values(void **state)
{
    static const char *const cases[][2] = {
        {"", "{}"},
        {"# nothing\n\n  \t# here", "{}"},
        {"a = 1", "{\"a\": 1}"},
        {"\xef\xbb\xbf"
         "a=1\r\nb=2\r\n",
         "{\"a\": 1, \"b\": 2}"},
        {"a = -0\nb = +99\nc = 1_000_000\nd = 9223372036854775807\ne = -9223372036854775808",
         "{\"a\": 0, \"b\": 99, \"c\": 1000000, \"d\": 9223372036854775807, \"e\": "
         "-9223372036854775808}"},
        {"a = 0xDEAD_beef\nb = 0o755\nc = 0b1101", "{\"a\": 3735928559, \"b\": 493, \"c\": 13}"},
        {"a = 1.5\nb = -0.25\nc = 5e+22\nd = 1E0_6\ne = 6.626e-3\nf = 1_2.3_4",
         "{\"a\": 1.5, \"b\": -0.25, \"c\": 5e22, \"d\": 1e6, \"e\": 6.626e-3, \"f\": 12.34}"},
        {"a = true\nb = false", "{\"a\": true, \"b\": false}"},
        {"a = \"x\\t\\\"\\\\\\u00e9\\U0001F600\\n\" # c", "{\"a\": \"x\\t\\\"\\\\é😀\\n\"}"},
        {"a = 'C:\\no\\escape \"'", "{\"a\": \"C:\\\\no\\\\escape \\\"\"}"},
        {"a = \"\"\"\none\r\ntwo \\\n   three \"\" \"\"\"\"\"",
         "{\"a\": \"one\\ntwo three \\\"\\\" \\\"\\\"\"}"},
        {"a = '''\n\\x\n'it''s'''''", "{\"a\": \"\\\\x\\n'it''s''\"}"},
        {"a = \"\"\nb = ''\nc = \"\"\"\"\"\"", "{\"a\": \"\", \"b\": \"\", \"c\": \"\"}"},
        {"a = []\nb = [ 1, # one\n 'x',\n\n [true] , ]", "{\"a\": [], \"b\": [1, \"x\", [true]]}"},
        {"a = { }\nb = {x = 1, 'y z' = {w = 2}, v.u = 3}",
         "{\"a\": {}, \"b\": {\"x\": 1, \"y z\": {\"w\": 2}, \"v\": {\"u\": 3}}}"},
        {"\"计算\" = 1\n1-2_a = 2\n3.14 = 'pi'",
         "{\"计算\": 1, \"1-2_a\": 2, \"3\": {\"14\": \"pi\"}}"},
    };
    for (size_t i = 0; i < NUM_COUNT(cases); i++)
        if (cases[i][1])
            assert_json(cases[i][0], cases[i][1]);
}

static void test_tables(void **state)
{
    assert_json("a.b.c = 1\na.b.d = 2\na . \"e\" = 3",
                "{\"a\": {\"b\": {\"c\": 1, \"d\": 2}, \"e\": 3}}");
    assert_json("x = 0\n[a]\nb = 1\n[ c . d ]\ne = 2\n[c]\nf = 3",
                "{\"x\": 0, \"a\": {\"b\": 1}, \"c\": {\"d\": {\"e\": 2}, \"f\": 3}}");
    assert_json(
        "[[s]]\nk = 1\n[s.t]\nu = 2\n[[s]]\n[[s.r]]\nn = 'a'\n[[s.r]]\n[[s]]\nk = 3",
        "{\"s\": [{\"k\": 1, \"t\": {\"u\": 2}}, {\"r\": [{\"n\": \"a\"}, {}]}, {\"k\": 3}]}");
    assert_json("[f]\na.b = 1\na.c.d = 2\n[f.a.t]\nx = 1",
                "{\"f\": {\"a\": {\"b\": 1, \"c\": {\"d\": 2}, \"t\": {\"x\": 1}}}}");
}

/* Order is that of the file: stages run in it. */
static void test_order(void **state)
{
    static const char text[] = "z = 1\na = 2\nm = 3\n";
    json_t *v, *x;
    struct err e;
    const char *key;
    char got[8];
    size_t n = 0;
    assert_int_equal(toml_parse(&v, text, strlen(text), &e), 0);
    json_object_foreach(v, key, x)
    {
        got[n++] = *key;
    }
    assert_memory_equal(got, "zam", 3);
    json_decref(v);
}

static void test_errors(void **state)
{
    static const char *const cases[][2] = {
        {"a", "line 1, column 2: a key needs '='"},
        {"a = ", "line 1, column 5: a value is missing"},
        {"\na = 1 b = 2", "line 2, column 7: something follows"},
        {"a = 1\n  a = 2", "line 2, column 3: this key was given before"},
        {"[a]\n[a]", "line 2, column 1: this table was defined before"},
        {"a = 1\n[a]", "line 2, column 1: this table was defined before"},
        {"a = {b = 1}\n[a.c]", "line 2, column 1: this table lies in something"},
        {"a = {b = 1}\na.c = 2", "line 2, column 1: this key goes through"},
        {"[a]\nb.c = 1\n[a.b]", "line 3, column 1: this table was defined before"},
        {"[a.b.c]\nz = 9\n[a]\nb.c.t = 1", "line 4, column 1: this key goes through"},
        {"a = []\n[[a]]", "line 2, column 1: this was defined before, and not as an array"},
        {"a = [{b = 1}]\n[a.c]", "line 2, column 1: this table lies in"},
        {"[a]\n[[a]]", "line 2, column 1: this was defined before"},
        {"[[a]]\n[a]", "line 2, column 1: this table was defined before"},
        {"[a", "line 1, column 3: ']' is needed"},
        {"[[a]", "line 1, column 4: ']]' is needed"},
        {"[]", "line 1, column 2: a key is missing"},
        {"[a.]", "line 1, column 4: a key is missing"},
        {" = 1", "line 1, column 2: a key is missing"},
        {"计 = 1", "line 1, column 1: a key is missing"},
        {"'计' = 1 x", "line 1, column 9: something follows"},
        {"a = \"x\ny\"", "line 1, column 5: this text is not closed on its line"},
        {"a = \"\"\"x\ny\"\"", "line 1, column 5: this text is never closed"},
        {"a = \"\\q\"", "line 1, column 7: no such escape"},
        {"a = \"\\u12\"", "column 10: \\u needs four"},
        {"a = \"\\ud800\"", "no character"},
        {"a = \"\\u0000\"", "no character"},
        {"a = \"\x01\"", "control character"},
        {"# \x01", "line 1, column 3: a control character in a comment"},
        {"a = \"\xff\"", "line 1, column 6: not UTF-8"},
        {"\"\"\"a\"\"\" = 1", "a key cannot be"},
        {"a = [1, 2", "line 1, column 5: this array is never closed"},
        {"a = [1 2]", "line 1, column 8: ',' or ']'"},
        {"a = [,]", "a value is missing"},
        {"a = {b = 1,}", "a key is missing"},
        {"a = {b = 1\n}", "on the same line"},
        {"a = {b = 1, b = 2}", "line 1, column 13: this key was given before"},
        {"a = 01", "not a number"},
        {"a = 1__0", "not a number"},
        {"a = 1_", "not a number"},
        {"a = 1.", "not a number"},
        {"a = .5", "not a value"},
        {"a = 1e", "not a number"},
        {"a = 0x", "not a number"},
        {"a = -0x1", "not a number"},
        {"a = 9223372036854775808", "not a number"},
        {"a = 1e999", "too large"},
        {"a = yes", "not a value; texts stand in quotes"},
        {"a = inf", "inf and nan"},
        {"a = -nan", "inf and nan"},
        {"a = 1979-05-27T07:32:00Z", "dates and times"},
        {"a = 1979-05-27", "dates and times"},
        {"a = 07:32:00", "dates and times"},
        {"a = 1\rb = 2", "something follows"},
    };
    for (size_t i = 0; i < NUM_COUNT(cases); i++) {
        json_t *v;
        struct err e = {0};
        int rc = toml_parse(&v, cases[i][0], strlen(cases[i][0]), &e);
        if (rc != ERR_FORMAT || v || !strstr(e.text, cases[i][1]))
            fail_msg("%s\n%d %s, wanted %s", cases[i][0], rc, e.text, cases[i][1]);
    }
}

/* Whatever is repeated a hundred thousand times ends in an error, not in the stack's end. */
static void test_deep(void **state)
{
    static const char *const units[][2] = {{"", "a."},  {"a = ", "["},    {"a = ", "{a="},
                                           {"[", "a."}, {"a = ", "[{a="}, {"[[", "a."}};
    enum { TIMES = 100000 };
    for (size_t i = 0; i < NUM_COUNT(units); i++) {
        size_t n = strlen(units[i][1]), at = strlen(units[i][0]);
        char *text = malloc(at + n * TIMES + 1);
        memcpy(text, units[i][0], at);
        for (size_t k = 0; k < TIMES; k++)
            memcpy(text + at + n * k, units[i][1], n);
        json_t *v;
        struct err e;
        assert_int_equal(toml_parse(&v, text, at + n * TIMES, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, "nested too deep"));
        free(text);
    }
}

static void test_memory(void **state)
{
    static const char text[] = "a.b = \"x\"\n[t]\nc = [1, {d = 2}]\n[[u]]\n[[u]]\nx = 'y'\n";
    for (size_t n = 1;; n++) {
        json_t *v;
        struct err e = {0};
        fail_alloc_at(n);
        int rc = toml_parse(&v, text, strlen(text), &e);
        bool hit = fail_alloc_stop();
        if (!hit) {
            assert_int_equal(rc, 0);
            json_decref(v);
            break;
        }
        assert_int_equal(rc, ERR_NOMEM);
        assert_null(v);
    }
}

static void test_files(void **state)
{
    char dir[] = "/tmp/ponder-config.XXXXXX", path[64];
    static const struct {
        const char *name, *text, *says;
    } cases[] = {
        {"a.toml", "a = 1\n", NULL},
        {"a.json", "{\"a\": 1}", NULL},
        {"recipe", " \n{\"a\": 1}", NULL},
        {"recipe", "a = 1", NULL},
        {"a.toml", "{\"a\": 1}", "a.toml: line 1, column 1: "},
        {"a.json", "a = 1", "a.json: not valid JSON"},
        {"a.json", "{\"a\": 1, \n\"a\": 2}", "line 2"},
    };
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < NUM_COUNT(cases); i++) {
        json_t *v;
        struct err e = {0};
        snprintf(path, sizeof path, "%s/%s", dir, cases[i].name);
        FILE *f = fopen(path, "w");
        fputs(cases[i].text, f);
        fclose(f);
        int rc = config_read(&v, path, &e);
        if (cases[i].says) {
            assert_int_equal(rc, ERR_FORMAT);
            assert_non_null(strstr(e.text, cases[i].says));
            assert_non_null(strstr(e.text, dir));
        } else {
            assert_int_equal(rc, 0);
            assert_int_equal(json_integer_value(json_object_get(v, "a")), 1);
            json_decref(v);
        }
        unlink(path);
    }
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values), cmocka_unit_test(test_tables), cmocka_unit_test(test_order),
        cmocka_unit_test(test_errors), cmocka_unit_test(test_deep),   cmocka_unit_test(test_memory),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
