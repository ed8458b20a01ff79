/*
 * Jinja against the answers of jinja2 (tests/golden/chat): small templates, and what this program
 * adds to the language: provenance of bytes, bounds on everything, clean failure without memory.
 */
#include "support/fail_alloc.h"
#include "support/golden.h"
#include "text/jinja.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const time_t frozen = 1722006245; /* 2024-07-26 15:04:05 UTC */
static const size_t text_max = (size_t)64 << 20;

/* Renders text[0..n); the result is initialized in any case. */
static int render_n(const char *text, size_t n, const json_t *context,
                    const struct jinja_limits *limits, struct jinja_result *r, struct err *e)
{
    struct jinja *j;
    *e = (struct err){0};
    jinja_result_init(r, text_max);
    int code = jinja_new(&j, text, n, e);
    if (!code)
        code = jinja_render(j, context, limits, r, e);
    jinja_free(j);
    return code;
}

static int render(const char *text, const char *context, const struct jinja_limits *limits,
                  struct jinja_result *r, struct err *e)
{
    json_t *c = json_loads(context, 0, NULL);
    assert_non_null(c);
    int code = render_n(text, strlen(text), c, limits, r, e);
    json_decref(c);
    return code;
}

/* ---- goldens --------------------------------------------------------------------------------- */

static void check_row(const json_t *template, const json_t *context, const json_t *expected,
                      const char *kind, const char *message, size_t number)
{
    struct jinja_limits limits = {.now = frozen};
    struct jinja_result r;
    struct err e;
    const char *text = json_string_value(template);
    int code = render_n(text, json_string_length(template), context, &limits, &r, &e);
    if (expected) {
        if (code)
            fail_msg("row %zu %s: %s", number, text, e.text);
        size_t n = json_string_length(expected);
        if (r.text.len != n || memcmp(r.text.data, json_string_value(expected), n) != 0)
            fail_msg("row %zu %s:\n  want %s\n  got  %s", number, text, json_string_value(expected),
                     r.text.data);
        assert_int_equal(r.trusted.len, r.text.len);
    } else {
        if (!code)
            fail_msg("row %zu %s: no error but %s", number, text, r.text.data);
        assert_int_equal(e.code, ERR_FORMAT);
        assert_int_equal(r.raised, strcmp(kind, "raise_exception") == 0);
        if (r.raised && message)
            assert_string_equal(e.text, message);
        if (!r.raised && strncmp(e.text, "line ", 5) != 0)
            fail_msg("row %zu %s: the error names no line: %s", number, text, e.text);
    }
    jinja_result_release(&r);
}

static void golden_rows(const char *name, bool shared_context)
{
    size_t n, number = 0;
    char *file = golden_file(name, &n), *line = file;
    json_t *context = NULL;
    setenv("TZ", "UTC", 1);
    tzset();
    for (char *end; (end = strchr(line, '\n')); line = end + 1, number++) {
        json_t *row = json_loadb(line, (size_t)(end - line), JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        if (shared_context && !context) {
            context = row;
            continue;
        }
        const char *kind = json_string_value(json_object_get(row, shared_context ? "e" : "error"));
        check_row(json_object_get(row, shared_context ? "t" : "template"),
                  shared_context ? context : json_object_get(row, "context"),
                  json_object_get(row, shared_context ? "x" : "expected"), kind,
                  json_string_value(json_object_get(row, "message")), number);
        json_decref(row);
    }
    assert_true(number > 200);
    json_decref(context);
    free(file);
}

static void rows_of_reference(void **state)
{
    golden_rows("chat/jinja.jsonl", false);
}

static void more_rows_of_reference(void **state)
{
    golden_rows("chat/more.jsonl", true);
}

/* ---- provenance --------------------------------------------------------------------------------
 */

static const char user_context[] =
    "{\"u\":\"wxyzwxyz\",\"l\":[\"xw\",\"yz\"],\"d\":{\"zw\":\"yx\"},\"n\":1234,\"f\":true,"
    "\"uu\":\" é中zw \"}";

/* In these templates the letters w x y z, é and 中 and the digits 1 to 4 come from the context
 * only. */
static void text_of_the_context_is_never_trusted(void **state)
{
    static const char *const templates[] = {
        "<|a|>{{ u }}<|b|>",
        "{{ '<|a|>' + u + '<|b|>' }}",
        "{{ '<|' ~ u ~ '|>' ~ n }}",
        "{{ ('<|a|>' + u)[2:9] }}{{ ('<|a|>' + u)[::-1] }}{{ (u ~ 'aa')[::2] }}",
        "{{ u|replace('x', '<|a|>') }}{{ 'a_a'|replace('_', u) }}{{ ('a' + u).replace('a', u) }}",
        "{{ ('ab' + u + 'ba').split('b')|join('<|') }}{{ '|'.join(l) }}{{ l|join('<|a|>') }}",
        "{{ ('a' + u + 'A')|upper|lower }}{{ (u + ' a')|title|lower }}{{ uu|capitalize }}",
        "{{ u|tojson }}{{ d|tojson(indent=2) }}{{ {'a': u}|tojson }}{{ n|tojson }}",
        "{{ l }}{{ d }}{{ [u, 'a'] }}{{ ('a', u) }}{{ d.items()|list }}",
        "{{ '%s<|a|>%s' % (u, n) }}{{ '{}-{:>9}'.format(u, n) }}{{ '%07d' % n }}{{ '%r' % u }}",
        "{% set q %}<|{{ u }}|>{% endset %}{{ q }}{{ q|trim('<') }}{{ q|length > 3 and q }}",
        "{% macro m(a) %}<|{{ a }}{{ caller(a) }}|>{% endmacro %}{% call(b) m(u) %}-{{ b }}{% "
        "endcall %}",
        "{% filter upper|lower %}a{{ u }}{% endfilter %}{% for c in u %}{{ c }}{% endfor %}",
        "{% set ns = namespace(s='') %}{% for x in l %}{% set ns.s = ns.s + '<' + x %}{% endfor "
        "%}{{ ns.s }}",
        "{{ u|e }}{{ ('<' + u)|e }}{{ u|safe + '<' }}{{ u|center(20) }}{{ u|indent(9, true) }}",
        "{{ uu|trim }}{{ uu.strip() + 'a' }}{{ uu.split() }}{{ uu|list }}{{ uu|reverse }}",
        "{{ n + 0 }}{{ n * 10 // 10 }}{{ -n }}{{ n|string }}{{ n|float|int }}{{ [n]|sum }}{{ n|abs "
        "}}",
        "{{ u[0] }}{{ u|first }}{{ u|last }}{{ l|first }}{{ l|sort|join }}{{ u|batch(3)|list }}",
        "{{ (u ~ 'a') * 3 }}{{ [u] * 2 }}{{ u.ljust(12, '<') }}{{ u.partition('z') }}{{ "
        "l|map('upper')|map('lower')|join('a') }}",
        "{% generation %}{{ u }}{% endgeneration %}{{ u|truncate(5, true, '<|', 0) }}",
    };
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct jinja_result r;
        struct err e;
        if (render(templates[i], user_context, NULL, &r, &e))
            fail_msg("%s: %s", templates[i], e.text);
        size_t seen = 0;
        for (size_t k = 0; k < r.text.len; k++) {
            unsigned char c = (unsigned char)r.text.data[k];
            bool user = strchr("wxyz1234", c) || c >= 0x80;
            seen += user;
            if (user && r.trusted.data[k])
                fail_msg("%s: byte %zu of \"%s\" is trusted", templates[i], k, r.text.data);
        }
        assert_true(seen > 0);
        jinja_result_release(&r);
    }
}

static void text_of_the_template_is_trusted(void **state)
{
    static const struct {
        const char *template, *text, *mask;
    } rows[] = {
        {"<a>{{ u }}<b>", "<a>wxyzwxyz<b>", "111000000001 11"},
        {"{{ '<' + u[:2] + '>' }}", "<wx>", "1001"},
        {"{{ ('<' + u[:2] + '>')|upper }}", "<WX>", "1001"},
        {"{{ ('ab' + u[:2])|replace('b', '<') }}", "a<wx", "1100"},
        {"{{ ['<', u[:1], '>']|join('|') }}", "<|w|>", "11011"},
        {"{{ '%s|%s' % ('a', u[:1]) }}", "a|w", "110"},
        {"{% set q %}a{{ u[:1] }}b{% endset %}{{ q[1:] }}", "wb", "01"},
        {"{{ {'a': 1}|tojson }}", "{\"a\": 1}", "11111111"},
        {"{{ u|length }}{{ l|length + 1 }}", "83", "11"},
        {"{% for x in l %}{{ loop.index }}{% endfor %}", "12", "11"},
        {"{{ bos }}{{ u[:1] }}", "<s>w", "1110"},
    };
    json_t *globals = json_pack("{s:s, s:s}", "bos", "<s>", "u", "hidden by the context");
    struct jinja_limits limits = {.globals = globals};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct jinja_result r;
        struct err e;
        if (render(rows[i].template, user_context, &limits, &r, &e))
            fail_msg("%s: %s", rows[i].template, e.text);
        assert_string_equal(r.text.data, rows[i].text);
        const char *m = rows[i].mask;
        for (size_t k = 0; k < r.text.len; k++) {
            while (*m == ' ')
                m++;
            if (r.trusted.data[k] != *m++ - '0')
                fail_msg("%s: byte %zu", rows[i].template, k);
        }
        jinja_result_release(&r);
    }
    json_decref(globals);
}

/* ---- bounds ------------------------------------------------------------------------------------
 */

static void hostile_templates_meet_a_limit(void **state)
{
    static const char *const templates[] = {
        "{{ 'x' * 10**9 }}",
        "{{ ('x' * 10**8) * 10**8 }}",
        "{{ [1] * 10**12 }}",
        "{{ 'a'.center(10**12) }}",
        "{{ [[1]]|tojson(indent=10**9) }}",
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{{ a }} and {{ 'x' * 1000 }}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaa') }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor "
        "%}",
        "{% set n = namespace(x=[]) %}{% for i in range(999) %}{% set n.x = [n.x] %}{% endfor %}{{ "
        "n.x }}",
        "{% set n = namespace(x=[]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor "
        "%}{{ n.x|tojson }}",
        "{% set n = namespace() %}{% set n.me = n %}{{ n }}",
        "{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = n.x|select %}{% "
        "endfor %}{{ n.x|list }}",
        "{% set s = 'a' * 100000 %}{% for i in range(100000) %}{{ s.rfind('b' ~ s[:50000]) }}{% "
        "endfor %}",
        "{% set s = 'a' * 100000 %}{% for i in range(100000) %}{{ (s ~ i) in s }}{% endfor %}",
        "{{ [1]|slice(10**12)|list }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000) }}",
    };
    struct jinja_limits limits = {.steps = 2000000, .memory = 32 << 20, .output = 1 << 20};
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct jinja_result r;
        struct err e;
        int code = render(templates[i], "{}", &limits, &r, &e);
        if (code != ERR_LIMIT)
            fail_msg("%s: code %d, %s", templates[i], code, e.text);
        assert_true(r.text.len <= limits.output);
        assert_int_equal(e.code, ERR_LIMIT);
        jinja_result_release(&r);
    }
}

/* head, then `unit` n times, then tail. */
static char *repeated(const char *head, const char *unit, size_t n, const char *tail)
{
    size_t k = strlen(unit), h = strlen(head);
    char *s = malloc(h + k * n + strlen(tail) + 1);
    assert_non_null(s);
    memcpy(s, head, h);
    for (size_t i = 0; i < n; i++)
        memcpy(s + h + i * k, unit, k);
    strcpy(s + h + k * n, tail);
    return s;
}

static void deep_templates_are_refused(void **state)
{
    static const struct {
        const char *head, *unit, *tail;
    } rows[] = {
        {"{{ ", "(", ""},
        {"{{ ", "[", ""},
        {"{{ ", "-", "1 }}"},
        {"{{ ", "not ", "1 }}"},
        {"{{ 1", "+1", " }}"},
        {"{{ 1", "|abs", " }}"},
        {"{{ x", ".a", " }}"},
        {"{{ x", "[0]", " }}"},
        {"{{ x", "()", " }}"},
        {"{{ 1", " if 1", " }}"},
        {"{{ 1", " if 1 else 1", " }}"},
        {"", "{% if 1 %}", ""},
        {"", "{% for x in y %}", ""},
        {"", "{% set x %}", ""},
        {"{{ {1:", "{1:", ""},
        {"{{ 1", "**1", " }}"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct jinja_result r;
        struct err e;
        char *s = repeated(rows[i].head, rows[i].unit, 50000, rows[i].tail);
        int code = render(s, "{}", NULL, &r, &e);
        if (code != ERR_LIMIT && code != ERR_FORMAT)
            fail_msg("%s…: code %d", rows[i].unit, code);
        jinja_result_release(&r);
        free(s);
    }
    /* long is not deep */
    struct jinja_result r;
    struct err e;
    char *s = repeated("{{ 1", " ~ 1", 50000, " }}");
    assert_int_equal(render(s, "{}", NULL, &r, &e), 0);
    assert_int_equal(r.text.len, 50001);
    jinja_result_release(&r);
    free(s);
    s = repeated("", "a", 3 << 20, "");
    assert_int_equal(render(s, "{}", NULL, &r, &e), ERR_LIMIT);
    jinja_result_release(&r);
    free(s);
}

static void deep_data_is_refused(void **state)
{
    json_t *deep = json_array();
    for (int i = 0; i < 3000; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    json_t *context = json_object();
    json_object_set_new(context, "x", deep);
    struct jinja_result r;
    struct err e;
    assert_int_equal(render_n("a", 1, context, NULL, &r, &e), ERR_LIMIT);
    jinja_result_release(&r);
    json_decref(context);
}

static void integers_do_not_wrap(void **state)
{
    static const char *const templates[] = {
        "{{ 9223372036854775807 + 1 }}",
        "{{ -9223372036854775807 - 2 }}",
        "{{ 3037000500 * 3037000500 }}",
        "{{ 2 ** 63 }}",
        "{{ (-9223372036854775807 - 1)|abs }}",
        "{{ (-9223372036854775807 - 1) // -1 }}",
        "{{ '99999999999999999999'|int }}",
        "{{ 1e300|int }}",
        "{{ 99999999999999999999 }}",
        "{{ range(0, 9223372036854775807, 9223372036854775806)[::2] }}",
    };
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct jinja_result r;
        struct err e;
        int code = render(templates[i], "{}", NULL, &r, &e);
        if (code != ERR_FORMAT || !strstr(e.text, "64 bits"))
            fail_msg("%s: %s", templates[i], code ? e.text : r.text.data);
        jinja_result_release(&r);
    }
}

static void bytes_are_checked(void **state)
{
    struct jinja_result r;
    struct err e;
    json_t *empty = json_object();
    assert_int_equal(render_n("a\xff", 2, empty, NULL, &r, &e), ERR_FORMAT);
    jinja_result_release(&r);
    assert_int_equal(render_n("a\0b{{ '\0' }}", 12, empty, NULL, &r, &e), 0);
    assert_int_equal(r.text.len, 4);
    assert_memory_equal(r.text.data, "a\0b\0", 4);
    jinja_result_release(&r);
    assert_int_equal(render("a", "[]", NULL, &r, &e), ERR_USAGE);
    jinja_result_release(&r);
    json_decref(empty);
}

static void errors_say_where(void **state)
{
    static const struct {
        const char *template, *text;
    } rows[] = {
        {"a\nb\n{% endfor %}", "line 3: unexpected 'endfor'"},
        {"{% for x in y %}\n\n", "line 2: unexpected end of template: 'endfor' is missing"},
        {"\n{{ x.y }}", "line 2: 'x' is undefined"},
        {"\n\n{{ {}.a.b }}", "line 3: 'dict' object has no attribute 'a'"},
        {"{{ 1|nope }}", "line 1: no filter named 'nope'"},
        {"\n{% set x = [].append(1) %}",
         "line 2: access to attribute 'append' of 'list' object is unsafe"},
        {"{{ 1\n+ 'a' }}", "line 2: '+' not supported between 'int' and 'str'"},
        {"{{ 'a' }\n}", "line 1: unexpected '}'"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct jinja_result r;
        struct err e;
        assert_int_equal(render(rows[i].template, "{}", NULL, &r, &e), ERR_FORMAT);
        assert_string_equal(e.text, rows[i].text);
        assert_false(r.raised);
        jinja_result_release(&r);
    }
}

/* ---- memory -------------------------------------------------------------------------------------
 */

static const char everything[] =
    "{% macro m(a, b='z') %}<{{ a }}{{ b }}{{ caller(a) if caller }}>{% endmacro %}"
    "{% set ns = namespace(n=0) %}{% for x in l if x != 'q' %}{% set ns.n = ns.n + loop.index %}"
    "{{ m(x|upper) }}{{ loop.nextitem|default('-') }}{% else %}none{% endfor %}"
    "{% call(y) m(u) %}{{ y|replace('w', 'vv') }}{% endcall %}{{ d|tojson(indent=2) }}{{ "
    "d|dictsort }}"
    "{{ '%s %05.1f' % (u, 2.5) }}{{ '{:>9}'.format(u) }}{{ l|map('upper')|sort|join(', ') }}"
    "{% set t %}{{ u[::-1] }}{% endset %}{{ t }}{{ strftime_now('%Y') }}{{ u.split('x') }}{{ ns }}";

static void every_allocation_may_fail(void **state)
{
    json_t *context = json_loads(user_context, 0, NULL);
    size_t tries = 0;
    for (size_t n = 1;; n++, tries++) {
        struct jinja_result r;
        struct err e;
        fail_alloc_at(n);
        int code = render_n(everything, strlen(everything), context, NULL, &r, &e);
        bool failed = fail_alloc_stop();
        jinja_result_release(&r);
        if (!failed) {
            assert_int_equal(code, 0);
            break;
        }
        assert_int_equal(code, ERR_NOMEM);
        assert_int_equal(e.code, ERR_NOMEM);
    }
    assert_true(tries > 5);
    json_decref(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_reference),
        cmocka_unit_test(more_rows_of_reference),
        cmocka_unit_test(text_of_the_context_is_never_trusted),
        cmocka_unit_test(text_of_the_template_is_trusted),
        cmocka_unit_test(hostile_templates_meet_a_limit),
        cmocka_unit_test(deep_templates_are_refused),
        cmocka_unit_test(deep_data_is_refused),
        cmocka_unit_test(integers_do_not_wrap),
        cmocka_unit_test(bytes_are_checked),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
