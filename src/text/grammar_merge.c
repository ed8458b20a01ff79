/*
 * The conjunction of two schemas as one schema: what allOf, and keywords beside $ref, anyOf and
 * oneOf, come down to. Keywords are joined one by one; where two cannot be (two patterns, two
 * anyOf), the schema is refused with their name.
 *
 * additionalProperties speaks of the properties beside it. So a property that only one side lists
 * has to fit the other side's additionalProperties as well.
 */
#include "base/num.h"
#include "text/grammar_schema.h"

#include <string.h>

enum { ANY_MAX = 256 }; /* branches of two anyOf together */

static const json_t *get(const json_t *o, const char *key)
{
    return json_object_get(o, key);
}

static bool is_false(const json_t *v)
{
    return json_is_false(v) ||
           (json_is_object(v) && json_is_object(get(v, "not")) && !json_object_size(get(v, "not")));
}

static bool is_true(const json_t *v)
{
    return !v || json_is_true(v) || (json_is_object(v) && !json_object_size(v));
}

static int put(struct schema *s, json_t *o, const char *key, json_t *v)
{
    if (json_object_set_new_nocheck(o, key, v))
        gbuild_fail(s->b, ERR_NOMEM, "no memory for a schema");
    return s->b->code;
}

static json_t *copy_of(const json_t *v)
{
    return json_incref((json_t *)(uintptr_t)v);
}

/* ---- types ---------------------------------------------------------------------------------- */

static const char *const type_names[] = {"null",   "boolean", "integer", "number",
                                         "string", "array",   "object"};

unsigned schema_types(const json_t *o)
{
    const json_t *t = get(o, "type"), *v;
    unsigned set = 0;
    size_t i;
    for (size_t k = 0; k < NUM_COUNT(type_names); k++) {
        if (json_is_string(t) && !strcmp(json_string_value(t), type_names[k]))
            set |= 1u << k;
        json_array_foreach(t, i, v) if (json_is_string(v) && !strcmp(json_string_value(v),
                                                                     type_names[k])) set |= 1u << k;
    }
    if (!t)
        set = SCHEMA_ALL;
    return set & SCHEMA_NUMBER ? set | SCHEMA_INTEGER : set;
}

static json_t *types_json(unsigned set)
{
    json_t *a = json_array();
    if (set & SCHEMA_NUMBER)
        set &= ~SCHEMA_INTEGER;
    for (size_t k = 0; k < NUM_COUNT(type_names); k++)
        if (set >> k & 1)
            json_array_append_new(a, json_string(type_names[k]));
    return a;
}

/* ---- keyword by keyword --------------------------------------------------------------------- */

static double number(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : 0;
}

static const json_t *additional(const json_t *o)
{
    return get(o, "additionalProperties");
}

static json_t *both(struct schema *s, const json_t *a, const json_t *b)
{
    if (is_false(a) || is_false(b))
        return json_false();
    if (is_true(a))
        return b ? copy_of(b) : json_true();
    return is_true(b) ? copy_of(a) : schema_merge(s, a, b);
}

static json_t *properties(struct schema *s, const json_t *a, const json_t *b)
{
    json_t *out = json_object();
    const char *key;
    json_t *v;
    for (int side = 0; side < 2; side++) {
        const json_t *mine = side ? b : a, *other = side ? a : b;
        json_object_foreach((json_t *)(uintptr_t)get(mine, "properties"), key, v)
        {
            const json_t *there = get(get(other, "properties"), key);
            if (s->b->code || (side && there))
                continue;
            put(s, out, key, both(s, v, there ? there : additional(other)));
        }
    }
    return out;
}

static json_t *required(const json_t *a, const json_t *b)
{
    json_t *out = json_deep_copy(a), *v;
    size_t i, k;
    json_t *have;
    json_array_foreach((json_t *)(uintptr_t)b, i, v)
    {
        bool found = false;
        json_array_foreach(out, k, have) found |= json_equal(have, v) != 0;
        if (!found)
            json_array_append(out, v);
    }
    return out;
}

static json_t *enumeration(const json_t *a, const json_t *b)
{
    json_t *out = json_array(), *v, *w;
    size_t i, k;
    json_array_foreach((json_t *)(uintptr_t)a, i, v)
    {
        bool found = false;
        json_array_foreach((json_t *)(uintptr_t)b, k, w) found |= json_equal(v, w) != 0;
        if (found)
            json_array_append(out, v);
    }
    return out;
}

static bool among(const char *key, const char *const *list)
{
    for (; *list; list++)
        if (!strcmp(key, *list))
            return true;
    return false;
}

/* One of a and one of b. */
static json_t *any_of(struct schema *s, const json_t *a, const json_t *b)
{
    json_t *out, *v, *w;
    size_t i, k;
    if (json_array_size(a) * json_array_size(b) > ANY_MAX)
        return NULL;
    s->work += json_array_size(a) * json_array_size(b);
    out = json_array();
    json_array_foreach((json_t *)(uintptr_t)a, i, v)
        json_array_foreach((json_t *)(uintptr_t)b, k, w)
            json_array_append_new(out, json_pack("{s:[O,O]}", "allOf", v, w));
    return out;
}

/* The least common multiple; NULL: too large, or not of positive numbers. */
static json_t *multiple(json_int_t a, json_int_t b)
{
    json_int_t x = a, y = b, product;
    if (a <= 0 || b <= 0)
        return NULL;
    while (y) {
        json_int_t r = x % y;
        x = y;
        y = r;
    }
    return __builtin_mul_overflow(a / x, b, &product) ? NULL : json_integer(product);
}

/* One keyword that both have, with different values. NULL: it cannot be joined, or no memory. */
static json_t *join(struct schema *s, const char *key, const json_t *x, const json_t *y)
{
    static const char *const least[] = {"minimum",  "exclusiveMinimum", "minLength",
                                        "minItems", "minProperties",    NULL};
    static const char *const most[] = {"maximum",  "exclusiveMaximum", "maxLength",
                                       "maxItems", "maxProperties",    NULL};
    if (among(key, least))
        return copy_of(number(x) > number(y) ? x : y);
    if (among(key, most))
        return copy_of(number(x) < number(y) ? x : y);
    if (!strcmp(key, "required") || !strcmp(key, "enum")) {
        s->work += json_array_size(x) * json_array_size(y) / 8;
        return s->work > SCHEMA_WORK_MAX ? NULL : *key == 'r' ? required(x, y) : enumeration(x, y);
    }
    if (!strcmp(key, "items"))
        return both(s, x, y);
    if (!strcmp(key, "anyOf"))
        return any_of(s, x, y);
    if (!strcmp(key, "multipleOf") && json_is_integer(x) && json_is_integer(y))
        return multiple(json_integer_value(x), json_integer_value(y));
    if (!strcmp(key, "not"))
        return json_pack("{s:[O,O]}", "anyOf", x, y);
    if (!strcmp(key, "uniqueItems"))
        return json_boolean(json_is_true(x) || json_is_true(y));
    if (!strcmp(key, "allOf") || !strcmp(key, SCHEMA_ALSO) || !strcmp(key, SCHEMA_UNLIKE) ||
        !strcmp(key, SCHEMA_EXCEPT)) {
        json_t *all = json_copy((json_t *)(uintptr_t)x);
        json_array_extend(all, (json_t *)(uintptr_t)y);
        return all;
    }
    return schema_is_annotation(key) ? copy_of(x) : NULL;
}

json_t *schema_merge(struct schema *s, const json_t *a, const json_t *b)
{
    const char *key;
    json_t *v, *out = NULL;
    unsigned types;
    if (json_is_false(a) || json_is_false(b))
        return json_false();
    if ((!json_is_object(a) && !json_is_true(a)) || (!json_is_object(b) && !json_is_true(b))) {
        schema_fail(s, ERR_FORMAT, NULL, "a schema has to be an object, true or false");
        return NULL;
    }
    if (!json_is_object(a) || !json_is_object(b))
        return copy_of(json_is_object(a) ? a : b);
    if (!schema_check(s, a, &types) || !schema_check(s, b, &types))
        return NULL;
    if (schema_is_high(a) || schema_is_high(b)) {
        json_t *x = schema_lower(s, a), *y = schema_lower(s, b);
        out = s->b->code ? NULL : schema_merge(s, x, y);
        json_decref(x);
        json_decref(y);
        return out;
    }
    s->work += 1 + json_object_size(a) + json_object_size(b) +
               json_object_size(get(a, "properties")) + json_object_size(get(b, "properties"));
    if (s->work > SCHEMA_WORK_MAX) {
        schema_fail(s, ERR_LIMIT, NULL, "allOf, anyOf and $ref combine into too many schemas");
        return NULL;
    }
    out = json_copy((json_t *)(uintptr_t)a);
    json_object_foreach((json_t *)(uintptr_t)b, key, v)
    {
        const json_t *have = get(a, key);
        if (s->b->code)
            break;
        if (!have)
            put(s, out, key, copy_of(v));
        else if (!json_equal(have, v) && strcmp(key, "properties") != 0 &&
                 strcmp(key, "type") != 0 && strcmp(key, "additionalProperties") != 0) {
            json_t *one = join(s, key, have, v);
            if (one)
                put(s, out, key, one);
            else if (!strcmp(key, "pattern") || !strcmp(key, "format"))
                schema_push(s, out, SCHEMA_ALSO, json_pack("{s:O}", key, v));
            else
                schema_fail(s, ERR_UNSUPPORTED, key, "two of these cannot be joined into one");
        }
    }
    if (!s->b->code && get(a, "type") && get(b, "type"))
        put(s, out, "type", types_json(schema_types(a) & schema_types(b)));
    if (!s->b->code && (get(a, "properties") || get(b, "properties")))
        put(s, out, "properties", properties(s, a, b));
    if (!s->b->code && (additional(a) || additional(b)))
        put(s, out, "additionalProperties", both(s, additional(a), additional(b)));
    if (s->b->code) {
        json_decref(out);
        return NULL;
    }
    return out;
}
