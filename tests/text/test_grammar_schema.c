/*
 * JSON schemas: texts that the masks lead to are valid for a small validator that shares nothing
 * with the compiler; texts that are valid in the expected form are taken, others are not; schemas
 * that cannot be held are refused in words that name keyword and place, hostile ones in time.
 */
#include "base/clock.h"
#include "support/golden.h"
#include "text/grammar_walk.h"

#include <jansson.h>
#include <math.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab small;

static int setup(void **state)
{
    small = vocab_open(GOLDEN_DIR "/models/qwen2_tied");
    return 0;
}

static int teardown(void **state)
{
    vocab_close(&small);
    return 0;
}

/* ---- a validator ---------------------------------------------------------------------------- */

static bool valid(const json_t *root, const json_t *s, const json_t *v);

static bool has_type(const char *name, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return !strcmp(name, "null");
    case JSON_TRUE:
    case JSON_FALSE:
        return !strcmp(name, "boolean");
    case JSON_INTEGER:
        return !strcmp(name, "integer") || !strcmp(name, "number");
    case JSON_REAL:
        return !strcmp(name, "number") ||
               (!strcmp(name, "integer") && floor(json_real_value(v)) == json_real_value(v));
    case JSON_STRING:
        return !strcmp(name, "string");
    case JSON_ARRAY:
        return !strcmp(name, "array");
    default:
        return !strcmp(name, "object");
    }
}

static bool matches(const char *pattern, const json_t *v)
{
    int code;
    size_t at;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_DOLLAR_ENDONLY, &code, &at, NULL);
    assert_non_null(re);
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    int n = pcre2_match(re, (PCRE2_SPTR)json_string_value(v), json_string_length(v), 0, 0, m, NULL);
    pcre2_match_data_free(m);
    pcre2_code_free(re);
    return n >= 0;
}

static size_t characters(const json_t *v)
{
    size_t n = 0;
    for (size_t i = 0; i < json_string_length(v); i++)
        n += (json_string_value(v)[i] & 0xc0) != 0x80;
    return n;
}

static bool holds_number(const json_t *s, const json_t *v)
{
    double x = json_number_value(v);
    const json_t *b;
    return (!(b = json_object_get(s, "minimum")) || x >= json_number_value(b)) &&
           (!(b = json_object_get(s, "maximum")) || x <= json_number_value(b)) &&
           (!(b = json_object_get(s, "exclusiveMinimum")) || x > json_number_value(b)) &&
           (!(b = json_object_get(s, "exclusiveMaximum")) || x < json_number_value(b));
}

static bool holds_string(const json_t *s, const json_t *v)
{
    static const char *const formats[][2] = {
        {"date", "^\\d{4}-\\d\\d-\\d\\d$"},
        {"time", "^\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"},
        {"date-time", "^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d(\\.\\d+)?(Z|[+-]\\d\\d:\\d\\d)$"},
        {"uuid", "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
        {"email", "^[^@\\s]+@[^@\\s]+$"},
        {"ipv4", "^\\d{1,3}(\\.\\d{1,3}){3}$"},
        {"ipv6", "^[0-9a-fA-F:]+$"},
        {"uri", "^[a-zA-Z][a-zA-Z0-9+.-]*:\\S+$"},
        {"hostname", "^[a-zA-Z0-9.-]+$"},
        {"duration", "^P\\S+$"},
    };
    const json_t *b;
    if ((b = json_object_get(s, "minLength")) && (double)characters(v) < json_number_value(b))
        return false;
    if ((b = json_object_get(s, "maxLength")) && (double)characters(v) > json_number_value(b))
        return false;
    if ((b = json_object_get(s, "pattern")) && !matches(json_string_value(b), v))
        return false;
    for (size_t i = 0; (b = json_object_get(s, "format")) && i < sizeof formats / sizeof *formats;
         i++)
        if (!strcmp(json_string_value(b), formats[i][0]) && !matches(formats[i][1], v))
            return false;
    return true;
}

static bool holds_array(const json_t *root, const json_t *s, const json_t *v)
{
    const json_t *b, *prefix = json_object_get(s, "prefixItems"),
                     *items = json_object_get(s, "items");
    size_t n = json_array_size(v);
    if ((b = json_object_get(s, "minItems")) && (double)n < json_number_value(b))
        return false;
    if ((b = json_object_get(s, "maxItems")) && (double)n > json_number_value(b))
        return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *of = i < json_array_size(prefix) ? json_array_get(prefix, i) : items;
        if (of && !valid(root, of, json_array_get(v, i)))
            return false;
    }
    return true;
}

static bool holds_object(const json_t *root, const json_t *s, const json_t *v)
{
    const json_t *props = json_object_get(s, "properties"),
                 *more = json_object_get(s, "additionalProperties"), *r;
    const json_t *names = json_object_get(s, "propertyNames");
    const char *key;
    json_t *x;
    size_t i;
    json_array_foreach(json_object_get(s, "required"), i,
                       r) if (!json_object_get(v, json_string_value(r))) return false;
    json_object_foreach((json_t *)(uintptr_t)v, key, x)
    {
        const json_t *of = json_object_get(props, key);
        json_t *name = json_string(key);
        bool ok = !names || valid(root, names, name);
        json_decref(name);
        if (!ok || !valid(root, of ? of : more ? more : json_true(), x))
            return false;
    }
    return true;
}

static bool combined(const json_t *root, const json_t *s, const json_t *v)
{
    const json_t *list, *x;
    size_t i, n = 0;
    json_array_foreach(json_object_get(s, "allOf"), i, x) if (!valid(root, x, v)) return false;
    list = json_object_get(s, "anyOf");
    json_array_foreach(list, i, x) n += valid(root, x, v);
    if (list && !n)
        return false;
    n = 0;
    list = json_object_get(s, "oneOf");
    json_array_foreach(list, i, x) n += valid(root, x, v);
    if (list && n != 1)
        return false;
    list = json_object_get(s, "enum");
    n = 0;
    json_array_foreach(list, i, x) n += json_equal(x, v) != 0;
    x = json_object_get(s, "const");
    return !(list && !n) && !(x && !json_equal(x, v));
}

static bool valid(const json_t *root, const json_t *s, const json_t *v)
{
    if (json_is_boolean(s))
        return json_is_true(s);
    const json_t *t = json_object_get(s, "type"), *x, *ref = json_object_get(s, "$ref");
    size_t i;
    if (json_is_true(json_object_get(s, "nullable")) && json_is_null(v))
        return true;
    if (ref) { /* "#" or "#/$defs/NAME" */
        const char *name = strrchr(json_string_value(ref), '/');
        if (!valid(root, name ? json_object_get(json_object_get(root, "$defs"), name + 1) : root,
                   v))
            return false;
    }
    if (json_is_string(t) && !has_type(json_string_value(t), v))
        return false;
    bool any = !json_is_array(t);
    json_array_foreach(t, i, x) any |= has_type(json_string_value(x), v);
    return any && combined(root, s, v) && (!json_is_number(v) || holds_number(s, v)) &&
           (!json_is_string(v) || holds_string(s, v)) &&
           (!json_is_array(v) || holds_array(root, s, v)) &&
           (!json_is_object(v) || holds_object(root, s, v));
}

/* ---- helpers -------------------------------------------------------------------------------- */

static json_t *parse(const char *text)
{
    json_error_t je;
    json_t *o = json_loads(text, JSON_DECODE_ANY, &je);
    if (!o)
        fail_msg("%s: %s", text, je.text);
    return o;
}

static struct grammar *compile(const char *text)
{
    struct err e = {0};
    struct grammar *g;
    json_t *o = parse(text);
    if (grammar_new_schema(&g, o, &e))
        fail_msg("%s: %s", text, e.text);
    json_decref(o);
    return g;
}

/* ---- walks ---------------------------------------------------------------------------------- */

static const char *const schemas[] = {
    "true",
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"age\":{\"type\":"
    "\"integer\"}},"
    "\"required\":[\"name\",\"age\"],\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\"},\"b\":{\"type\":\"boolean\"},"
    "\"c\":{\"type\":"
    "\"null\"}},\"required\":[\"b\"]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"ab\":{\"type\":\"null\"}},"
    "\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"type\":\"object\",\"additionalProperties\":{\"type\":\"integer\"},\"required\":[\"x\"]}",
    "{\"type\":\"object\",\"propertyNames\":{\"pattern\":\"^[a-c]{2,3}$\"},"
    "\"additionalProperties\":{\"type\":"
    "\"string\"}}",
    "{\"enum\":[\"red\",\"gr\\u00e9en\",null,3,-1.5,{\"a\":[1,\"\\\"\"]},\"red wine\"]}",
    "{\"const\":{\"k\":[true,false,\"x\\ny\"]}}",
    "{\"type\":[\"string\",\"null\"],\"minLength\":2,\"maxLength\":5}",
    "{\"type\":\"string\",\"pattern\":\"^[A-Z][a-z]+( [A-Z]\\\\.)?$\"}",
    "{\"type\":\"string\",\"pattern\":\"\\\\d[\\\\w\\\\s\\\"\\\\\\\\]+|b*c\"}",
    "{\"type\":\"string\",\"pattern\":\"^(a+)+$\"}",
    "{\"type\":\"string\",\"pattern\":\"^[^a-z\\\\x00-\\\\x1f]{1,4}$\"}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":-12,\"maximum\":345},"
    "\"minItems\":2,\"maxItems\":"
    "4}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"},{\"type\":"
    "\"null\"}],\"minItems\":"
    "1,\"items\":{\"type\":\"boolean\"},\"maxItems\":5}",
    "{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\"},{\"type\":\"integer\"}],\"items\":"
    "false}",
    "{\"type\":\"array\",\"maxItems\":0}",
    "{\"anyOf\":[{\"type\":\"string\",\"format\":\"date\"},{\"type\":\"integer\","
    "\"exclusiveMinimum\":99}]}",
    "{\"oneOf\":[{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"a\"},\"n\":{\"type\":"
    "\"integer\"}},"
    "\"required\":[\"kind\",\"n\"]},{\"type\":\"object\",\"properties\":{\"kind\":{\"const\":\"b\"}"
    "},\"required\":["
    "\"kind\"]},{\"type\":\"array\",\"items\":{\"type\":\"null\"}}]}",
    "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":3}},"
    "\"required\":[\"a\"]},"
    "{\"properties\":{\"a\":{\"maximum\":7},\"b\":{\"type\":\"string\"}},\"required\":[\"b\"]}]}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],"
    "\"anyOf\":[{\"properties\":"
    "{\"b\":{\"const\":1}},\"required\":[\"b\"]},{\"properties\":{\"c\":{\"const\":2}},"
    "\"required\":[\"c\"]}]}",
    "{\"$ref\":\"#/$defs/"
    "node\",\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"type\":"
    "\"integer\"},"
    "\"next\":{\"anyOf\":[{\"$ref\":\"#/$defs/"
    "node\"},{\"type\":\"null\"}]}},\"required\":[\"value\",\"next\"],"
    "\"additionalProperties\":false}}}",
    "{\"type\":\"object\",\"properties\":{\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#"
    "\"}}},\"required\":["
    "\"children\"]}",
    "{\"$defs\":{\"s\":{\"type\":\"string\"}},\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":"
    "\"#/$defs/s\","
    "\"maxLength\":3,\"title\":\"X\"}},\"required\":[\"x\"]}",
    "{\"type\":\"number\",\"minimum\":0.25,\"maximum\":3.5}",
    "{\"type\":\"number\",\"exclusiveMinimum\":-2,\"exclusiveMaximum\":10}",
    "{\"type\":\"number\",\"minimum\":1.05,\"maximum\":1.0725}",
    "{\"type\":\"number\",\"maximum\":-0.5}",
    "{\"type\":\"integer\",\"minimum\":0}",
    "{\"type\":\"integer\",\"exclusiveMinimum\":-1000,\"maximum\":-7}",
    "{\"type\":\"integer\",\"minimum\":98,\"maximum\":100203}",
    "{\"properties\":{\"a\":{\"type\":\"string\",\"nullable\":true}},\"required\":[\"a\"]}",
    "{\"type\":\"string\",\"format\":\"date-time\"}",
    "{\"type\":\"string\",\"format\":\"time\"}",
    "{\"type\":\"string\",\"format\":\"uuid\"}",
    "{\"type\":\"string\",\"format\":\"email\"}",
    "{\"type\":\"string\",\"format\":\"ipv4\"}",
    "{\"type\":\"string\",\"format\":\"ipv6\"}",
    "{\"type\":\"string\",\"format\":\"uri\"}",
    "{\"type\":\"string\",\"format\":\"hostname\"}",
    "{\"type\":\"string\",\"format\":\"duration\"}",
};

static void walks_end_in_valid_texts(void **state)
{
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = compile(schemas[i]);
        json_t *schema = parse(schemas[i]);
        size_t ended = 0;
        for (uint64_t seed = 0; seed < 60; seed++) {
            struct buf text;
            json_error_t je;
            buf_init(&text, 1 << 20);
            bool end = grammar_walk(&small, g, GRAMMAR_THOUGHT_NONE, seed, &text);
            ended += end;
            json_t *v =
                end ? json_loadb(text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je) : NULL;
            if (end && !v && !strstr(je.text, "NUL"))
                fail_msg("%s gives %s: %s", schemas[i], text.data, je.text);
            if (v && !valid(schema, schema, v))
                fail_msg("%s gives %s", schemas[i], text.data);
            json_decref(v);
            buf_release(&text);
        }
        if (ended < 50)
            fail_msg("%s: only %zu walks came to an end", schemas[i], ended);
        json_decref(schema);
        grammar_unref(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_end_in_valid_texts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
