/*
 * Schemas with not, if, dependentRequired, dependentSchemas and old tuples, said by allOf and
 * anyOf:
 *
 *   if C then A else B        anyOf [allOf [C, A], allOf [not C, B]]
 *   dependentRequired {a: b}  anyOf [a is not there, a and b are]
 *   not S                     anyOf over what S says, each turned round
 *
 * A keyword that speaks of one type is turned round within that type: "not minimum 5" are the
 * numbers below 5. What has no such form is refused by name.
 */
#include "text/grammar_schema.h"

#include "base/num.h"

#include <string.h>

enum { NOT_DEPTH = 32, LOWER_WORK = 64 };

static json_t *negate(struct schema *s, const json_t *o, int depth);

static const json_t *get(const json_t *o, const char *key)
{
    return json_object_get(o, key);
}

static json_t *copy_of(const json_t *v)
{
    return json_incref((json_t *)(uintptr_t)v);
}

void schema_push(struct schema *s, json_t *o, const char *key, json_t *v)
{
    json_t *list = json_object_get(o, key) ? json_copy(json_object_get(o, key)) : json_array();
    if (json_array_append_new(list, v) || json_object_set_new_nocheck(o, key, list))
        gbuild_fail(s->b, ERR_NOMEM, "no memory for a schema");
}

static json_t *refuse(struct schema *s, const char *key)
{
    schema_fail(s, ERR_UNSUPPORTED, "not", "is not supported over \"%.60s\"", key);
    return json_false();
}

/* {"type": type, key: value (taken)} */
static json_t *of_type(const char *type, const char *key, json_t *value)
{
    json_t *o = json_pack("{s:s}", "type", type);
    json_object_set_new_nocheck(o, key, value);
    return o;
}

/* ---- not ------------------------------------------------------------------------------------ */

/* All types but those; where whole numbers may not be, no number may. */
static json_t *other_types(const json_t *o)
{
    static const char *const names[] = {"null",   "boolean", "",      "number",
                                        "string", "array",   "object"};
    unsigned have = schema_types(o);
    json_t *list = json_array();
    have |= have & SCHEMA_INTEGER ? SCHEMA_NUMBER : 0;
    for (unsigned i = 0; i < 7; i++)
        if (*names[i] && !(have >> i & 1))
            json_array_append_new(list, json_string(names[i]));
    return json_pack("{s:o}", "type", list);
}

/* A count: at least n becomes at most n - 1, at most n at least n + 1. */
static json_t *other_count(const char *type, const char *key, const json_t *v)
{
    static const char *const pairs[][2] = {
        {"minLength", "maxLength"}, {"minItems", "maxItems"}, {"minProperties", "maxProperties"}};
    double n = json_number_value(v);
    for (size_t i = 0; i < NUM_COUNT(pairs); i++)
        if (!strcmp(key, pairs[i][0]))
            return n < 1 ? json_false() : of_type(type, pairs[i][1], json_real(n - 1));
        else if (!strcmp(key, pairs[i][1]))
            return of_type(type, pairs[i][0], json_real(n + 1));
    return json_false();
}

static void absent(json_t *list, const json_t *names)
{
    const json_t *v;
    size_t i;
    json_array_foreach(names, i, v) if (json_is_string(v)) json_array_append_new(
        list, json_pack("{s:s,s:{s:b}}", "type", "object", "properties", json_string_value(v), 0));
}

/* What does not fit this keyword, put into the list of alternatives. */
static void negate_keyword(struct schema *s, json_t *list, const json_t *o, const char *key,
                           const json_t *v, int depth)
{
    static const struct {
        const char *key, *type, *other;
    } rows[] = {
        {"minimum", "number", "exclusiveMaximum"},
        {"maximum", "number", "exclusiveMinimum"},
        {"exclusiveMinimum", "number", "maximum"},
        {"exclusiveMaximum", "number", "minimum"},
        {"minLength", "string", NULL},
        {"maxLength", "string", NULL},
        {"minItems", "array", NULL},
        {"maxItems", "array", NULL},
        {"minProperties", "object", NULL},
        {"maxProperties", "object", NULL},
    };
    const char *name;
    json_t *one, *all;
    size_t i;
    for (i = 0; i < NUM_COUNT(rows); i++)
        if (!strcmp(key, rows[i].key)) {
            json_array_append_new(list, rows[i].other
                                            ? of_type(rows[i].type, rows[i].other, copy_of(v))
                                            : other_count(rows[i].type, key, v));
            return;
        }
    if (!strcmp(key, "type")) {
        json_array_append_new(list, other_types(o));
    } else if (!strcmp(key, "enum") || !strcmp(key, "const")) {
        one = json_object();
        json_object_set_new_nocheck(one, SCHEMA_EXCEPT,
                                    *key == 'e' ? copy_of(v) : json_pack("[O]", v));
        json_array_append_new(list, one);
    } else if (!strcmp(key, "pattern") || !strcmp(key, "format")) {
        json_array_append_new(list, of_type("string", SCHEMA_UNLIKE, json_pack("[{s:O}]", key, v)));
    } else if (!strcmp(key, "required")) {
        absent(list, v);
    } else if (!strcmp(key, "properties")) {
        json_object_foreach((json_t *)(uintptr_t)v, name, one) json_array_append_new(
            list, json_pack("{s:s,s:[s],s:{s:o}}", "type", "object", "required", name, "properties",
                            name, negate(s, one, depth + 1)));
    } else if (!strcmp(key, "not")) {
        json_array_append(list, (json_t *)(uintptr_t)v);
    } else if (!strcmp(key, "anyOf") || (!strcmp(key, "oneOf") && json_array_size(v) == 1)) {
        all = json_array();
        json_array_foreach((json_t *)(uintptr_t)v, i, one)
            json_array_append_new(all, negate(s, one, depth + 1));
        json_array_append_new(list, json_pack("{s:o}", "allOf", all));
    } else if (!strcmp(key, "allOf")) {
        json_array_foreach((json_t *)(uintptr_t)v, i, one)
            json_array_append_new(list, negate(s, one, depth + 1));
    } else if (!strcmp(key, SCHEMA_EXCEPT)) {
        json_array_append_new(list, json_pack("{s:O}", "enum", v));
    } else if (!schema_is_annotation(key)) {
        json_array_append_new(list, refuse(s, *key == '\xff' ? "pattern" : key));
    }
}

/* A schema of what does not fit; new reference. */
static json_t *negate(struct schema *s, const json_t *o, int depth)
{
    const char *key;
    json_t *v, *list = json_array(), *flat = NULL;
    unsigned types;
    s->work += LOWER_WORK;
    if (json_is_boolean(o) || s->b->code)
        goto boolean;
    if (!json_is_object(o)) {
        schema_fail(s, ERR_FORMAT, "not", "a schema has to be an object, true or false");
        goto boolean;
    }
    if (depth > NOT_DEPTH || s->work > SCHEMA_WORK_MAX) {
        schema_fail(s, ERR_LIMIT, "not", "nests too deeply");
        goto boolean;
    }
    if (json_is_string(get(o, "$ref")) && !(flat = schema_flat(s, o)))
        goto boolean;
    o = flat ? flat : o;
    if (json_is_boolean(o))
        goto boolean;
    if (!schema_check(s, o, &types))
        goto boolean;
    if (get(o, "nullable") || get(o, "if"))
        refuse(s, get(o, "if") ? "if" : "nullable");
    json_object_foreach((json_t *)(uintptr_t)o, key, v) negate_keyword(s, list, o, key, v, depth);
    json_decref(flat);
    return json_pack("{s:o}", "anyOf", list);
boolean:
    json_decref(list);
    list = json_boolean(!json_is_true(o));
    json_decref(flat);
    return list;
}

/* ---- all ------------------------------------------------------------------------------------ */

static const char *const high[] = {"not",
                                   "if",
                                   "then",
                                   "else",
                                   "dependentRequired",
                                   "dependentSchemas",
                                   "dependencies",
                                   "additionalItems"};

bool schema_is_high(const json_t *o)
{
    for (size_t i = 0; i < NUM_COUNT(high); i++)
        if (get(o, high[i]))
            return true;
    return json_is_array(get(o, "items"));
}

static const json_t *or_true(const json_t *v)
{
    return v ? v : json_true();
}

static void lower_if(struct schema *s, const json_t *o, json_t *list)
{
    const json_t *c = get(o, "if"), *then = get(o, "then"), *other = get(o, "else");
    if (!c || (!then && !other))
        return; /* each without the others says nothing */
    json_t *no = negate(s, c, 0);
    json_array_append_new(list, json_pack("{s:[{s:[O,O]},{s:[o,O]}]}", "anyOf", "allOf", c,
                                          or_true(then), "allOf", no, or_true(other)));
}

/* Names, or schemas, that are asked for where another name is. */
static void lower_dependent(struct schema *s, const json_t *o, const char *key, json_t *list)
{
    const char *name;
    json_t *v;
    if (get(o, key) && !json_is_object(get(o, key)))
        schema_fail(s, ERR_FORMAT, key, "has to be an object");
    json_object_foreach((json_t *)(uintptr_t)get(o, key), name, v)
    {
        json_t *there = json_pack("{s:[s]}", "required", name);
        if (json_is_array(v))
            json_array_extend(json_object_get(there, "required"), v);
        else
            there = json_pack("{s:[o,O]}", "allOf", there, v);
        json_array_append_new(
            list, json_pack("{s:[{s:{s:b}},o]}", "anyOf", "properties", name, 0, there));
    }
}

/* "items" as a list, with additionalItems: prefixItems and items. */
static void lower_tuple(json_t *o)
{
    json_t *items = json_object_get(o, "items"), *more = json_object_get(o, "additionalItems");
    json_incref(more);
    if (json_is_array(items)) {
        json_object_set(o, "prefixItems", items);
        json_object_del(o, "items");
        json_object_set(o, "items", more ? more : json_true());
    }
    json_object_del(o, "additionalItems");
    json_decref(more);
}

json_t *schema_lower(struct schema *s, const json_t *o)
{
    json_t *out = json_copy((json_t *)(uintptr_t)o);
    json_t *list = get(o, "allOf") ? json_copy((json_t *)(uintptr_t)get(o, "allOf")) : json_array();
    s->work += LOWER_WORK;
    if (s->work > SCHEMA_WORK_MAX)
        schema_fail(s, ERR_LIMIT, NULL, "not, if and what depends combine into too many schemas");
    if (get(o, "not"))
        json_array_append_new(list, negate(s, get(o, "not"), 0));
    lower_if(s, o, list);
    lower_dependent(s, o, "dependentRequired", list);
    lower_dependent(s, o, "dependentSchemas", list);
    lower_dependent(s, o, "dependencies", list);
    lower_tuple(out);
    for (size_t i = 0; i < NUM_COUNT(high); i++)
        json_object_del(out, high[i]);
    if (json_array_size(list))
        json_object_set(out, "allOf", list);
    json_decref(list);
    return out;
}
