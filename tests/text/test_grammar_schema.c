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
    if ((b = json_object_get(s, "multipleOf"))) {
        double times = x / json_number_value(b);
        if (fabs(times - round(times)) > 1e-9 * fmax(1, fabs(times)))
            return false;
    }
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
        for (size_t k = 0; k < i && json_is_true(json_object_get(s, "uniqueItems")); k++)
            if (json_equal(json_array_get(v, k), json_array_get(v, i)))
                return false;
    }
    const json_t *contains = json_object_get(s, "contains"), *least, *most;
    size_t found = 0;
    for (size_t i = 0; contains && i < n; i++)
        found += valid(root, contains, json_array_get(v, i));
    least = json_object_get(s, "minContains");
    most = json_object_get(s, "maxContains");
    return !contains || ((double)found >= (least ? json_number_value(least) : 1) &&
                         (!most || (double)found <= json_number_value(most)));
}

static bool holds_dependents(const json_t *root, const json_t *s, const json_t *v)
{
    static const char *const keys[] = {"dependentRequired", "dependentSchemas", "dependencies"};
    const char *name;
    json_t *x, *r;
    size_t i;
    for (size_t k = 0; k < 3; k++)
        json_object_foreach(json_object_get(s, keys[k]), name, x)
        {
            if (!json_object_get(v, name))
                continue;
            json_array_foreach(x, i, r) if (!json_object_get(v, json_string_value(r))) return false;
            if (!json_is_array(x) && !valid(root, x, v))
                return false;
        }
    const json_t *b;
    size_t n = json_object_size(v);
    return (!(b = json_object_get(s, "minProperties")) || (double)n >= json_number_value(b)) &&
           (!(b = json_object_get(s, "maxProperties")) || (double)n <= json_number_value(b));
}

/* Do the patterns that have the name take the value? */
static bool holds_patterns(const json_t *root, const json_t *s, const json_t *name, const json_t *v,
                           bool *any)
{
    const char *re;
    json_t *of;
    json_object_foreach(json_object_get(s, "patternProperties"), re, of)
    {
        if (!matches(re, name))
            continue;
        *any = true;
        if (!valid(root, of, v))
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
        bool ok = !names || valid(root, names, name), any = of != NULL;
        ok = ok && holds_patterns(root, s, name, x, &any);
        json_decref(name);
        if (!ok || (of && !valid(root, of, x)) || (!any && more && !valid(root, more, x)))
            return false;
    }
    return holds_dependents(root, s, v);
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
    const json_t *no = json_object_get(s, "not"), *cond = json_object_get(s, "if");
    if (no && valid(root, no, v))
        return false;
    if (cond) {
        const json_t *then = json_object_get(s, valid(root, cond, v) ? "then" : "else");
        if (then && !valid(root, then, v))
            return false;
    }
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
    /* joined strings */
    "{\"type\":\"string\",\"pattern\":\"^[a-z]+[0-9]*$\",\"minLength\":3,\"maxLength\":6}",
    "{\"type\":\"string\",\"format\":\"email\",\"maxLength\":14}",
    "{\"allOf\":[{\"type\":\"string\",\"pattern\":\"^[a-m]+$\"},{\"pattern\":\"b\"},{\"pattern\":"
    "\"^.a\"},{\"minLength\":4}],\"maxLength\":20}",
    "{\"type\":\"string\",\"pattern\":\"^(ab|c)*$\",\"not\":{\"pattern\":\"cc\"},\"maxLength\":9}",
    "{\"type\":\"string\",\"not\":{\"enum\":[\"a\",\"ab\",\"\\u00e9\\n\"]},\"maxLength\":2}",
    "{\"type\":\"string\",\"not\":{\"minLength\":3}}",
    "{\"type\":\"string\",\"pattern\":\"^\\\\d+$\",\"format\":\"hostname\"}",
    "{\"enum\":[\"red\",\"green\",\"blue\",7,null],\"pattern\":\"e$\"}",
    "{\"enum\":[1,2.5,8,10],\"multipleOf\":2}",
    /* numbers */
    "{\"type\":\"integer\",\"multipleOf\":7}",
    "{\"type\":\"integer\",\"multipleOf\":25,\"minimum\":-60,\"maximum\":333}",
    "{\"type\":\"number\",\"multipleOf\":0.25,\"minimum\":-1,\"exclusiveMaximum\":3}",
    "{\"type\":\"number\",\"multipleOf\":0.01,\"minimum\":0,\"maximum\":20}",
    "{\"type\":\"number\",\"multipleOf\":10}",
    "{\"allOf\":[{\"type\":\"integer\",\"multipleOf\":4},{\"multipleOf\":6}]}",
    "{\"type\":\"integer\",\"not\":{\"enum\":[0,1,12]},\"minimum\":-3,\"maximum\":13}",
    "{\"type\":\"number\",\"not\":{\"const\":1.5},\"minimum\":1,\"maximum\":2}",
    "{\"type\":\"number\",\"not\":{\"minimum\":5}}",
    /* members */
    "{\"type\":\"object\",\"patternProperties\":{\"^x-[a-y]?$\":{\"type\":\"integer\"},\"^[a-x]?-?"
    "y$\":{\"type\":"
    "\"number\",\"maximum\":9}},\"additionalProperties\":false}",
    "{\"type\":\"object\",\"properties\":{\"x-a\":{\"maximum\":4},\"b\":{\"type\":\"null\"}},"
    "\"patternProperties\":{\"^x-\":{\"type\":\"integer\",\"minimum\":2}},\"required\":[\"x-a\","
    "\"x-q\"],\"additionalProperties\":{\"type\":\"boolean\"}}",
    "{\"type\":\"object\",\"properties\":{\"ab\":{\"type\":\"integer\"},\"zz\":{\"type\":"
    "\"integer\"}},\"propertyNames\":{\"pattern\":\"^[a-c]+$\",\"maxLength\":3},"
    "\"additionalProperties\":{\"type\":\"null\"},\"required\":[\"ab\"]}",
    "{\"type\":\"object\",\"propertyNames\":{\"enum\":[\"k\",\"kk\"]},\"additionalProperties\":{"
    "\"type\":\"integer\"}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    ",\"c\":{\"type\":\"integer\"}},\"minProperties\":2}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    ",\"c\":{\"type\":\"integer\"}},\"required\":[\"b\"],\"maxProperties\":2}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"additionalProperties\":{"
    "\"type\":\"null\"},\"minProperties\":1,\"maxProperties\":3}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    ",\"c\":{\"type\":\"integer\"}},\"dependentRequired\":{\"a\":[\"b\"],\"b\":[\"c\"]}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    "},\"dependentSchemas\":{\"a\":{\"properties\":{\"b\":{\"minimum\":7}},\"required\":[\"b\"]}}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    "},\"dependencies\":{\"a\":[\"b\"]}}",
    /* conditions */
    "{\"type\":\"object\",\"properties\":{\"kind\":{\"enum\":[\"a\",\"b\"]},\"n\":{\"type\":["
    "\"integer\",\"string\"]}},\"required\":[\"kind\",\"n\"],\"if\":{\"properties\":{\"kind\":{"
    "\"const\":\"a\"}}},\"then\":{\"properties\":{\"n\":{\"type\":\"integer\"}}},\"else\":{"
    "\"properties\":{\"n\":{\"type\":\"string\"}}}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"boolean\"},\"b\":{\"type\":\"null\"},"
    "\"c\":{\"type\":\"null\"}},\"if\":{\"properties\":{\"a\":{\"const\":true}},\"required\":["
    "\"a\"]},\"then\":{\"required\":[\"b\"]},\"else\":{\"required\":[\"c\"],\"not\":{\"required\":["
    "\"b\"]}}}",
    "{\"type\":[\"integer\",\"string\",\"null\"],\"not\":{\"type\":\"string\"}}",
    "{\"not\":{\"anyOf\":[{\"type\":\"object\"},{\"type\":\"array\"},{\"type\":\"string\"}]}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}"
    "},\"not\":{\"required\":[\"a\",\"b\"]}}",
    "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],"
    "\"not\":{\"properties\":{\"a\":{\"minimum\":0,\"maximum\":5}}}}",
    "{\"type\":[\"boolean\",\"null\"],\"not\":{\"const\":true}}",
    "{\"not\":{\"not\":{\"type\":\"integer\"}}}",
    "{\"anyOf\":[{\"type\":\"integer\"},{\"type\":\"string\"}],\"allOf\":[{\"anyOf\":[{\"minimum\":"
    "3},{\"type\":\"null\"}]}],\"not\":{\"type\":\"string\"}}",
    "{\"$ref\":\"#/$defs/"
    "p\",\"not\":{\"const\":2},\"$defs\":{\"p\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":3}}"
    "}",
    /* lists */
    "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\",3,null]},\"uniqueItems\":true,"
    "\"minItems\":2}",
    "{\"type\":\"array\",\"items\":{\"type\":\"boolean\"},\"uniqueItems\":true}",
    "{\"type\":\"array\",\"items\":{\"enum\":[1,2,3,4,5],\"minimum\":2},\"uniqueItems\":true,"
    "\"minItems\":1,\"maxItems\":3}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":100},"
    "\"maxItems\":4}",
    "{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":9},\"contains\":"
    "{\"maximum\":4},\"minContains\":2,\"maxContains\":3,\"minItems\":3}",
    "{\"type\":\"array\",\"items\":{\"enum\":[\"a\",\"b\"]},\"contains\":{\"const\":\"a\"},"
    "\"minContains\":0,\"maxContains\":1,\"maxItems\":5}",
    "{\"type\":\"array\",\"items\":[{\"type\":\"integer\"},{\"type\":\"null\"}],"
    "\"additionalItems\":false}",
    "{\"type\":\"string\",\"format\":\"uri-reference\"}",
    "{\"type\":\"string\",\"format\":\"json-pointer\"}",
    "{\"type\":\"string\",\"format\":\"relative-json-pointer\"}",
    "{\"type\":\"string\",\"format\":\"byte\"}",
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

/* ---- texts ---------------------------------------------------------------------------------- */

static void texts_in_the_expected_form_are_taken(void **state)
{
    static const struct {
        const char *schema;
        const char *yes[7], *no[9];
    } rows[] = {
        {"{\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"null\"}},\"required\":["
         "\"a\"]}",
         {"{\"a\":1}", "{\"a\": 1, \"b\": null}", "{\n  \"a\": 1,\n\t\"b\":null\n}"},
         {"{}", "{\"b\":null,\"a\":1}", "{\"a\":1,}", "{\"a\":1 ,\"b\":null}", "{\"a\":1,\"c\":2}",
          "{\"a\":1.0}", "{\"a\":01}", " {\"a\":1}", "{\"a\":1}\n"}},
        {"{\"type\":\"string\"}",
         {"\"\"", "\"é\\n\\u00e9\\ud83d\\ude00\\/\"", "\"\x7f\""},
         {"\"\n\"", "\"\\ud83d\"", "\"\\ude00\"", "\"\\ud83dx\"", "\"\xc3\"", "\"\\x\"",
          "\"\xed\xa0\x80\"", "\"\xc0\xaf\"", "\"\\u0000\""}},
        {"{\"type\":\"string\",\"minLength\":1,\"maxLength\":2}",
         {"\"😀\"", "\"\\ud83d\\ude00a\"", "\"\\n\\\"\""},
         {"\"\"", "\"abc\"", "\"😀😀😀\""}},
        {"{\"type\":\"number\"}",
         {"0", "-0.5", "12e+9", "3.25E-7"},
         {"00", ".5", "1.", "+1", "1e", "0x1", "1e999", "12345678901234567890"}},
        {"{\"type\":\"integer\",\"minimum\":-5,\"maximum\":120}",
         {"-5", "-1", "0", "7", "99", "120"},
         {"-6", "121", "1000", "-0", "-10", "07"}},
        {"{\"type\":\"number\",\"minimum\":0.5,\"exclusiveMaximum\":12.25}",
         {"0.5", "0.50", "1", "12.2499", "9.99", "12"},
         {"0.49", "0", "12.25", "12.250", "13", "-1", "0.4999"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"minItems\":1,\"maxItems\":3}",
         {"[1]", "[1,2]", "[1, 2, 3]", "[\n  1,\n  2\n]"},
         {"[]", "[1,2,3,4]", "[1,]", "[,1]"}},
        {"{\"additionalProperties\":{\"type\":\"integer\"},\"properties\":{\"ab\":{\"type\":"
         "\"null\"},\"é\":{"
         "\"type\":\"null\"}}}",
         {"{}", "{\"ab\":null,\"x\":1}", "{\"a\":1,\"abc\":2}", "{\"\":1}", "{\"é\":null}",
          "{\"\\n\":1}"},
         {"{\"ab\":1}", "{\"a\\u0062\":1}", "{\"\\u0061b\":1}", "{\"é\":1}", "{\"\\u00e9\":1}",
          "{\"x\":1,\"ab\":null}"}},
        {"{\"enum\":[\"a\\\"b\",1.5,[1,{}]]}",
         {"\"a\\\"b\"", "1.5", "[1,{}]"},
         {"\"a\"", "1", "[1]"}},
        {"{\"type\":\"string\",\"pattern\":\"^\\\\d+$\"}",
         {"\"12\""},
         {"\"\"", "\"a\"", "\"\\u0031\""}},
        {"{\"type\":\"string\",\"pattern\":\"b\"}",
         {"\"b\"", "\"abc\"", "\"é\\nb\""},
         {"\"\"", "\"ac\""}},
        {"{\"type\":\"string\",\"format\":\"date\"}",
         {"\"2024-02-29\"", "\"2000-02-29\"", "\"1999-12-31\""},
         {"\"2023-02-29\"", "\"1900-02-29\"", "\"2024-13-01\"", "\"2024-04-31\"", "\"24-01-01\""}},
        {"{\"type\":\"integer\",\"multipleOf\":15,\"minimum\":-20}",
         {"0", "15", "-15", "30", "999999999999999990"},
         {"1", "-30", "10", "15.0", "00", "-0"}},
        {"{\"type\":\"number\",\"multipleOf\":0.5}",
         {"0.5", "1", "-2.50", "7.0", "100"},
         {"0.25", "1.05", "0.3"}},
        {"{\"type\":\"string\",\"pattern\":\"^[a-z]+$\",\"minLength\":2,\"maxLength\":3}",
         {"\"ab\"", "\"abc\""},
         {"\"a\"", "\"abcd\"", "\"aB\""}},
        {"{\"type\":\"string\",\"not\":{\"enum\":[\"no\",\"never\"]}}",
         {"\"n\"", "\"not\"", "\"nev\"", "\"\"", "\"é\\n\""},
         {"\"no\"", "\"never\""}},
        {"{\"patternProperties\":{\"^n_\":{\"type\":\"integer\"},\"_s$\":{\"minimum\":5}},"
         "\"additionalProperties\":false}",
         {"{}", "{\"n_a\":1,\"n_s\":7}", "{\"a_s\":6.5}"},
         {"{\"n_s\":3}", "{\"n_a\":\"x\"}", "{\"b\":1}", "{\"\\u006e_a\":1}"}},
        {"{\"properties\":{\"a\":{\"type\":\"null\"}},\"patternProperties\":{\"b\":true},"
         "\"additionalProperties\":{\"type\":\"boolean\"}}",
         {"{\"a\":null,\"b\":[1],\"c\":true}", "{\"ab\":{}}"},
         {"{\"c\":1}", "{\"b\":1,\"a\":null}"}},
        {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"},\"c\":{\"type\":"
         "\"null\"}},\"minProperties\":2}",
         {"{\"a\":null,\"c\":null}", "{\"a\":null,\"b\":null,\"c\":null}"},
         {"{}", "{\"b\":null}"}},
        {"{\"properties\":{\"a\":{\"type\":\"null\"}},\"additionalProperties\":{\"type\":"
         "\"integer\"},\"maxProperties\":2,\"minProperties\":1}",
         {"{\"a\":null}", "{\"x\":1}", "{\"x\":1,\"y\":2}", "{\"a\":null,\"y\":2}"},
         {"{}", "{\"a\":null,\"x\":1,\"y\":2}"}},
        {"{\"properties\":{\"k\":{\"enum\":[\"a\",\"b\"]},\"n\":{\"type\":[\"integer\",\"null\"]}},"
         "\"required\":[\"k\"],\"if\":{\"properties\":{\"k\":{\"const\":\"a\"}}},\"then\":{"
         "\"required\":[\"n\"],\"properties\":{\"n\":{\"type\":\"integer\"}}}}",
         {"{\"k\":\"a\",\"n\":1}", "{\"k\":\"b\"}", "{\"k\":\"b\",\"n\":null}"},
         {"{\"k\":\"a\"}", "{\"k\":\"a\",\"n\":null}"}},
        {"{\"properties\":{\"a\":{\"type\":\"null\"},\"b\":{\"type\":\"null\"}},"
         "\"dependentRequired\":{\"a\":[\"b\"]}}",
         {"{}", "{\"b\":null}", "{\"a\":null,\"b\":null}"},
         {"{\"a\":null}"}},
        {"{\"type\":\"array\",\"items\":{\"enum\":[\"x\",\"y\",\"z\"]},\"uniqueItems\":true,"
         "\"minItems\":1}",
         {"[\"y\"]", "[\"z\", \"x\",\"y\"]"},
         {"[]", "[\"x\",\"x\"]", "[\"x\",\"y\",\"x\"]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":10},"
         "\"minItems\":2}",
         {"[1,10]", "[11,2]", "[1,2,30,4]"},
         {"[10]", "[1,2]", "[]"}},
        {"{\"type\":\"array\",\"items\":{\"type\":\"integer\"},\"contains\":{\"minimum\":10},"
         "\"maxContains\":1}",
         {"[10]", "[1,10,2]"},
         {"[]", "[10,11]", "[1]"}},
        {"{\"type\":[\"integer\",\"string\"],\"not\":{\"type\":\"string\"}}", {"3"}, {"\"a\""}},
        {"{\"enum\":[\"red\",\"green\",4,5,null],\"pattern\":\"^r\",\"minimum\":5}",
         {"\"red\"", "5", "null"},
         {"\"green\"", "4"}},
        {"{\"type\":\"array\",\"items\":[{\"type\":\"integer\"}],\"additionalItems\":{\"type\":"
         "\"null\"}}",
         {"[]", "[1]", "[1,null,null]"},
         {"[null]", "[1,2]"}},
        {"{\"type\":\"string\",\"format\":\"ipv6\"}",
         {"\"::\"", "\"::1\"", "\"2001:db8::ff00:42:8329\"", "\"1:2:3:4:5:6:7:8\""},
         {"\"1:2:3\"", "\":::\"", "\"1::2::3\"", "\"12345::\""}},
        {"{\"type\":\"string\",\"format\":\"uri\"}",
         {"\"https://example.org/a?b=c#d\"", "\"mailto:a@b.c\""},
         {"\"example.org\"", "\"http://a b\""}},
        {"{\"anyOf\":[{\"$ref\":\"#/$defs/"
         "a~1b\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}],\"$defs\":{\"a/b\":{"
         "\"type\":\"null\"}}}",
         {"null", "[]", "[[null],null,[]]"},
         {"[1]", "{}"}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g = compile(rows[i].schema);
        for (int k = 0; k < 7 && rows[i].yes[k]; k++)
            if (!grammar_takes(&small, g, rows[i].yes[k], strlen(rows[i].yes[k])))
                fail_msg("%s does not take %s", rows[i].schema, rows[i].yes[k]);
        for (int k = 0; k < 9 && rows[i].no[k]; k++)
            if (grammar_takes(&small, g, rows[i].no[k], strlen(rows[i].no[k])))
                fail_msg("%s takes %s", rows[i].schema, rows[i].no[k]);
        grammar_unref(g);
    }
}

/* Ranges are exact: against comparing every number around the bounds. */
static void ranges_are_exact(void **state)
{
    static const int bounds[] = {-1002, -100, -99, -10, -9, -1, 0, 1, 7, 10, 19, 99, 100, 111, 999};
    enum { N = sizeof bounds / sizeof *bounds };
    for (int i = 0; i < N; i++)
        for (int k = i; k < N; k += 1 + (i + k) % 3) {
            char text[128];
            snprintf(text, sizeof text, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}",
                     bounds[i], bounds[k]);
            struct grammar *g = compile(text);
            for (int x = -1010; x <= 1010;
                 x += abs(x - bounds[i]) < 12 || abs(x - bounds[k]) < 12 ? 1 : 11) {
                char number[16];
                snprintf(number, sizeof number, "%d", x);
                if (grammar_takes(&small, g, number, strlen(number)) !=
                    (x >= bounds[i] && x <= bounds[k]))
                    fail_msg("%s: %s", text, number);
            }
            grammar_unref(g);
        }
    static const char *const reals[] = {"-1.5", "-0.25", "0",    "0.1",   "0.105",
                                        "1",    "1.5",   "2.05", "10.001"};
    for (int i = 0; i < 9; i++)
        for (int k = i; k < 9; k++)
            for (int open = 0; open < 2 && (!open || i < k); open++) {
                char text[128];
                snprintf(text, sizeof text, "{\"type\":\"number\",\"%s\":%s,\"%s\":%s}",
                         open ? "exclusiveMinimum" : "minimum", reals[i],
                         open ? "exclusiveMaximum" : "maximum", reals[k]);
                struct grammar *g = compile(text);
                double lo = strtod(reals[i], NULL), hi = strtod(reals[k], NULL);
                for (int x = -1600; x <= 11000; x += x < 2200 ? 5 : 37) {
                    char number[32];
                    snprintf(number, sizeof number, "%s%d.%03d", x < 0 ? "-" : "", abs(x) / 1000,
                             abs(x) % 1000);
                    double v = strtod(number, NULL);
                    bool in = open ? v > lo && v < hi : v >= lo && v <= hi;
                    if (grammar_takes(&small, g, number, strlen(number)) != in)
                        fail_msg("%s: %s", text, number);
                }
                grammar_unref(g);
            }
}

/* ---- refusals ------------------------------------------------------------------------------- */

static void refusals_name_keyword_and_place(void **state)
{
    static const struct {
        const char *schema;
        int code;
        const char *words;
    } rows[] = {
        {"42", ERR_FORMAT, "has to be an object"},
        {"{\"type\":\"something\"}", ERR_FORMAT, "#/type: has to be"},
        {"{\"properties\":{\"a/b\":{\"not\":{\"items\":{}}}}}", ERR_UNSUPPORTED,
         "#/properties/a~1b/not: is not supported over \"items\""},
        {"{\"not\":{\"multipleOf\":3}}", ERR_UNSUPPORTED, "over \"multipleOf\""},
        {"{\"not\":{\"const\":{\"a\":1}}}", ERR_UNSUPPORTED, "lists and objects"},
        {"{\"not\":{\"$ref\":\"#\"}}", ERR_LIMIT, "nests too deeply"},
        {"{\"not\":{}}", ERR_FORMAT, "no text at all"},
        {"{\"not\":42}", ERR_FORMAT, "#/not"},
        {"{\"type\":\"integer\",\"multipleOf\":0}", ERR_FORMAT, "#/multipleOf"},
        {"{\"type\":\"integer\",\"multipleOf\":\"3\"}", ERR_FORMAT, "#/multipleOf"},
        {"{\"type\":\"integer\",\"multipleOf\":123456789}", ERR_UNSUPPORTED, "#/multipleOf"},
        {"{\"patternProperties\":[]}", ERR_FORMAT, "#/patternProperties"},
        {"{\"patternProperties\":{\"(?=a)\":true}}", ERR_UNSUPPORTED,
         "#/patternProperties/pattern: the expression"},
        {"{\"dependentRequired\":[]}", ERR_FORMAT, "#/dependentRequired"},
        {"{\"unevaluatedProperties\":false}", ERR_UNSUPPORTED, "#/unevaluatedProperties"},
        {"{\"$dynamicRef\":\"#a\"}", ERR_UNSUPPORTED, "#/$dynamicRef"},
        {"{\"type\":\"array\",\"contains\":{\"const\":1},\"prefixItems\":[{}]}", ERR_UNSUPPORTED,
         "#/contains"},
        {"{\"type\":\"array\",\"contains\":{\"const\":1},\"maxContains\":100000000}", ERR_LIMIT,
         "#/contains"},
        {"{\"type\":\"array\",\"uniqueItems\":true,\"items\":{\"type\":\"integer\"}}",
         ERR_UNSUPPORTED, "#/uniqueItems"},
        {"{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){14}\",\"maxLength\":99}", ERR_LIMIT,
         "states"},
        {"{\"minlength\":3}", ERR_UNSUPPORTED, "#/minlength"},
        {"{\"type\":\"array\",\"uniqueItems\":true}", ERR_UNSUPPORTED, "#/uniqueItems"},
        {"{\"type\":\"string\",\"format\":\"color\"}", ERR_UNSUPPORTED, "#/format"},
        {"{\"type\":\"string\",\"pattern\":\"(?=a)\"}", ERR_UNSUPPORTED,
         "#/pattern: the expression at byte"},
        {"{\"items\":{\"minItems\":-1,\"type\":\"array\"}}", ERR_FORMAT, "#/items/minItems"},
        {"{\"type\":\"string\",\"maxLength\":\"3\"}", ERR_FORMAT, "#/maxLength"},
        {"{\"type\":\"integer\",\"minimum\":\"x\"}", ERR_FORMAT, "#/minimum"},
        {"{\"required\":[1]}", ERR_FORMAT, "#/required"},
        {"{\"properties\":[]}", ERR_FORMAT, "#/properties"},
        {"{\"$ref\":\"#/$defs/none\"}", ERR_FORMAT, "no such place"},
        {"{\"$ref\":\"http://example.org/x\"}", ERR_UNSUPPORTED, "#/$ref"},
        {"{\"$ref\":\"#\"}", ERR_UNSUPPORTED, "begins with itself"},
        {"{\"anyOf\":[{\"$ref\":\"#\"},{\"type\":\"null\"}]}", ERR_UNSUPPORTED,
         "begins with itself"},
        {"{\"allOf\":[{\"$ref\":\"#\"}]}", ERR_LIMIT, "deeper than"},
        {"{\"allOf\":[42]}", ERR_FORMAT, "has to be an object"},
        {"{\"allOf\":[{\"multipleOf\":0.3},{\"multipleOf\":0.2}]}", ERR_UNSUPPORTED, "multipleOf"},
        {"{\"oneOf\":[{\"type\":\"integer\"},{\"type\":\"number\"}]}", ERR_UNSUPPORTED, "#/oneOf"},
        {"{\"enum\":[[1]],\"minItems\":1}", ERR_UNSUPPORTED, "#/enum"},
        {"{\"enum\":[\"a\"],\"minLength\":2}", ERR_FORMAT, "no text at all"},
        /* what admits nothing */
        {"false", ERR_FORMAT, "no text at all"},
        {"{\"enum\":[]}", ERR_FORMAT, "no text at all"},
        {"{\"anyOf\":[]}", ERR_FORMAT, "no text at all"},
        {"{\"type\":\"integer\",\"minimum\":3,\"maximum\":2}", ERR_FORMAT, "no text at all"},
        {"{\"type\":\"integer\",\"minimum\":0.2,\"maximum\":0.8}", ERR_FORMAT, "no text at all"},
        {"{\"type\":\"string\",\"minLength\":3,\"maxLength\":2}", ERR_FORMAT, "no text at all"},
        {"{\"type\":\"array\",\"items\":false,\"minItems\":1}", ERR_FORMAT, "no text at all"},
        {"{\"required\":[\"a\"],\"additionalProperties\":false}", ERR_FORMAT, "no text at all"},
        {"{\"properties\":{\"a\":{\"$ref\":\"#\"}},\"required\":[\"a\"]}", ERR_FORMAT,
         "no text at all"},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"integer\"}]}", ERR_FORMAT,
         "no text at all"},
        {"{\"type\":\"string\",\"enum\":[1,2]}", ERR_FORMAT, "no text at all"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e = {0};
        struct grammar *g = NULL;
        json_t *o = parse(rows[i].schema);
        int code = grammar_new_schema(&g, o, &e);
        if (code != rows[i].code || !strstr(e.text, rows[i].words))
            fail_msg("%s: %d, %s", rows[i].schema, code, e.text);
        assert_null(g);
        json_decref(o);
    }
}

/* ---- hostile schemas ------------------------------------------------------------------------ */

/* Compiles, and when that works takes one mask and the walk to a text's end. */
static int try(json_t *schema)
{
    struct err e = {0};
    struct grammar *g = NULL;
    struct grammar_state *s;
    const uint32_t *bits;
    int code = grammar_new_schema(&g, schema, &e);
    if (code)
        assert_true(strlen(e.text) > 10);
    if (!code && !(code = grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_NONE, &e))) {
        for (int32_t step = 0; step < 40 && !code && !(code = grammar_state_mask(s, &bits, &e));
             step++) {
            int32_t id = (step * 37) % 256;
            while (!mask_has(bits, id))
                id = (id + 1) % (int32_t)tokenizer_count(small.tok);
            if (tokenizer_is_end(small.tok, id))
                break;
            code = grammar_state_accept(s, id, &e);
        }
        grammar_state_free(s);
    }
    grammar_unref(g);
    json_decref(schema);
    return code;
}

static json_t *wide(int n, bool required, bool open)
{
    json_t *props = json_object(), *names = json_array();
    for (int i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "property_%d", i * 7919 % n);
        json_object_set_new(props, key, json_pack("{s:s}", "type", i % 2 ? "string" : "integer"));
        if (required)
            json_array_append_new(names, json_string(key));
    }
    return json_pack("{s:s,s:o,s:o,s:b}", "type", "object", "properties", props, "required", names,
                     "additionalProperties", open);
}

static json_t *nested(int depth, const char *key)
{
    json_t *o = json_pack("{s:s}", "type", "integer");
    for (int i = 0; i < depth; i++)
        o = json_pack("{s:s,s:o}", "type", "array", key, o);
    return o;
}

static void hostile_schemas_end_soon(void **state)
{
    double begin = clock_seconds();
    assert_int_equal(try(wide(10000, true, false)), 0);
    assert_int_equal(try(wide(10000, false, false)), 0);
    int code = try(wide(10000, false, true));
    assert_true(code == 0 || code == ERR_LIMIT);
    assert_int_equal(try(parse("{\"type\":\"array\",\"minItems\":1000000000}")), 0);
    assert_int_equal(
        try(parse(
            "{\"type\":\"array\",\"minItems\":1e18,\"items\":{\"type\":\"array\",\"maxItems\":"
            "99999999999}}")),
        0);
    assert_int_equal(
        try(parse("{\"type\":\"string\",\"minLength\":1000000,\"maxLength\":2000000}")), 0);
    assert_int_equal(try(parse("{\"type\":\"string\",\"pattern\":\"^(a+)+$\"}")), 0);
    assert_int_equal(
        try(parse("{\"type\":\"string\",\"pattern\":\"((((a?){100}){100}){100}){100}\"}")), 0);
    assert_int_equal(try(parse("{\"type\":\"string\",\"pattern\":\"(a|b)*a(a|b){20}c\"}")), 0);
    assert_int_equal(try(nested(150, "items")), 0);
    assert_int_equal(try(nested(5000, "items")), ERR_LIMIT);

    json_t *values = json_array(), *defs = json_object();
    for (int i = 0; i < 1000000; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        json_array_append_new(values, json_string(text));
    }
    assert_int_equal(try(json_pack("{s:o}", "enum", values)), ERR_LIMIT);
    values = json_array();
    for (int i = 0; i < 100000; i++)
        json_array_append_new(values, json_integer(i * 31));
    assert_int_equal(try(json_pack("{s:o}", "enum", values)), 0);

    for (int i = 0; i < 10000; i++) { /* a chain of references */
        char name[32], to[48];
        snprintf(name, sizeof name, "d%d", i);
        snprintf(to, sizeof to, "#/$defs/d%d", i + 1);
        json_object_set_new(
            defs, name,
            json_pack("{s:s,s:o}", "type", "array", "items", json_pack("{s:s}", "$ref", to)));
    }
    json_object_set_new(defs, "d10000", json_true());
    assert_int_equal(try(json_pack("{s:s,s:o}", "$ref", "#/$defs/d0", "$defs", defs)), 0);
    json_t *o = json_pack("{s:s}", "type", "array"); /* 10^12 schemas when written out */
    for (int i = 0; i < 12; i++) {
        json_t *any = json_array();
        for (int k = 0; k < 10; k++)
            json_array_append(any, o);
        json_decref(o);
        o = json_pack("{s:o,s:i}", "anyOf", any, "maxItems", i);
    }
    assert_int_equal(try(o), ERR_LIMIT);
    assert_true(clock_seconds() - begin < 120);
}

/* Sets of texts that are joined and turned round: as many states as are allowed, and no more. */
static void hostile_conditions_end_soon(void **state)
{
    double begin = clock_seconds();
    (void)state;
    json_t *props = json_object(), *patterns = json_object(), *list = json_array(),
           *dependent = json_object(), *values = json_array();
    for (int i = 0; i < 1000; i++) {
        char key[40], re[60];
        snprintf(key, sizeof key, "p%d", i);
        snprintf(re, sizeof re, "(a|b)*a(a|b){%d}", i % 12);
        json_object_set_new(
            props, key,
            json_pack("{s:s,s:s,s:i}", "type", "string", "pattern", re, "maxLength", 50 + i));
        if (i < 20)
            json_object_set_new(patterns, re, json_pack("{s:i}", "minimum", i));
        json_array_append_new(
            list, json_pack("{s:[{s:s},{s:i}]}", "anyOf", "pattern", re, "minLength", i));
        json_object_set_new(dependent, key, json_pack("[s]", "other"));
        json_array_append_new(values, json_string(key));
    }
    int code = try(json_pack("{s:s,s:o}", "type", "object", "properties", props));
    assert_int_equal(code, ERR_LIMIT);
    code = try(json_pack("{s:s,s:o}", "type", "object", "patternProperties", patterns));
    assert_int_equal(code, ERR_LIMIT);
    code = try(json_pack("{s:s,s:o}", "type", "string", "allOf", list));
    assert_true(code == ERR_LIMIT || code == ERR_UNSUPPORTED);
    code = try(json_pack("{s:s,s:o}", "type", "object", "dependentRequired", dependent));
    assert_true(code == ERR_LIMIT || code == ERR_UNSUPPORTED);
    assert_int_equal(try(json_pack("{s:o,s:s}", "enum", values, "pattern", "^p[0-9]*7$")), 0);
    json_t *o = json_pack("{s:s}", "type", "integer"), *both = NULL;
    for (int i = 0; i < 60; i++)
        o = json_pack("{s:o}", "not", o);
    code = try(o);
    assert_true(code == 0 || code == ERR_LIMIT);
    o = json_pack("{s:s}", "type", "integer");
    for (int i = 0; i < 20; i++) { /* 2^20 when written out */
        both = json_pack("{s:O,s:O,s:O}", "if", o, "then", o, "else", o);
        json_decref(o);
        o = both;
    }
    code = try(o);
    assert_true(code == 0 || code == ERR_LIMIT || code == ERR_UNSUPPORTED);
    assert_int_equal(try(parse("{\"type\":\"array\",\"contains\":{\"const\":1},\"minContains\":"
                               "1000000,\"maxItems\":1000000}")),
                     ERR_LIMIT);
    assert_int_equal(try(parse("{\"type\":\"number\",\"multipleOf\":0.0019,\"minimum\":0.0001,"
                               "\"maximum\":123456.789}")),
                     0);
    assert_int_equal(try(parse("{\"minProperties\":1000000000}")), ERR_FORMAT);
    assert_true(clock_seconds() - begin < 120);
}

/* A list that must nest for ever is cut off before the stack is: every state has a way out. */
static void deep_texts_can_still_end(void **state)
{
    struct grammar *g = compile(
        "{\"type\":\"array\",\"minItems\":1,\"maxItems\":1,\"items\":{\"anyOf\":[{\"$ref\":\"#\"},{"
        "\"type\":\"null\"}]}}");
    struct err e = {0};
    struct grammar_state *s;
    int32_t open = -1;
    for (int32_t i = 0; (size_t)i < tokenizer_count(small.tok); i++) {
        size_t k;
        const char *p = tokenizer_bytes(small.tok, i, &k);
        open = k == 1 && *p == '[' ? i : open;
    }
    assert_int_equal(grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_NONE, &e), 0);
    int depth = 0;
    const uint32_t *bits;
    while (!grammar_state_mask(s, &bits, &e) && mask_has(bits, open)) {
        assert_int_equal(grammar_state_accept(s, open, &e), 0);
        depth++;
    }
    assert_in_range(depth, 60, 1000);
    bool any = false;
    for (int32_t i = 0; (size_t)i < tokenizer_count(small.tok); i++)
        any |= mask_has(bits, i) && !tokenizer_is_end(small.tok, i);
    assert_true(any);
    grammar_state_free(s);
    grammar_unref(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_end_in_valid_texts),
        cmocka_unit_test(texts_in_the_expected_form_are_taken),
        cmocka_unit_test(ranges_are_exact),
        cmocka_unit_test(refusals_name_keyword_and_place),
        cmocka_unit_test(hostile_schemas_end_soon),
        cmocka_unit_test(hostile_conditions_end_soon),
        cmocka_unit_test(deep_texts_can_still_end),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
