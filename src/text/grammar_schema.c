/*
 * JSON schemas (2020-12, and what of earlier drafts says the same) as expressions.
 *
 * What a schema leaves open is decided so that every text fits it and models stay with what they
 * know: members come in the order of "properties"; members that are not listed only where
 * additionalProperties says so or nothing is listed; elements behind prefixItems only where "items"
 * says so; a schema without a type has the types that its keywords speak of.
 *
 * allOf, and keywords beside $ref, anyOf and oneOf, become one schema (grammar_merge.c). oneOf is
 * anyOf whose branches are shown to exclude each other. A $ref is a rule, so it may be recursive.
 *
 * Every keyword is compiled, or known to say nothing about values, or refused with its place. Work
 * is counted, and nesting bounded; referenced schemas wait in a list instead of nesting.
 */
#include "text/grammar_schema.h"

#include "base/num.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 1 << 16, REFS_IN_A_ROW = 64, LANGUAGE_WORK = 256, STATE_WORK = 16 };

/* ---- faults and places ---------------------------------------------------------------------- */

struct gx *schema_fail(struct schema *s, int code, const char *key, const char *fmt, ...)
{
    char text[320];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return gbuild_fail(s->b, code, "#%.150s%s%.60s: %s", s->path.data, key ? "/" : "",
                       key ? key : "", text);
}

size_t schema_enter(struct schema *s, const char *key)
{
    size_t before = s->path.len;
    struct err lost;
    buf_putc(&s->path, '/', &lost);
    for (; *key; key++)
        if (*key == '~' || *key == '/')
            buf_puts(&s->path, *key == '~' ? "~0" : "~1", &lost);
        else
            buf_putc(&s->path, *key, &lost);
    return before;
}

void schema_leave(struct schema *s, size_t before)
{
    s->path.len = before;
    if (before < s->path.cap)
        s->path.data[before] = 0;
}

static size_t enter_index(struct schema *s, const char *key, size_t i)
{
    char number[32];
    size_t before = schema_enter(s, key);
    snprintf(number, sizeof number, "%zu", i);
    schema_enter(s, number);
    return before;
}

/* ---- keywords ------------------------------------------------------------------------------- */

enum use { NOTE, SPEAKS, REFUSED };

static const struct {
    const char *name;
    enum use use;
    unsigned types; /* those that the keyword speaks of */
} keywords[] = {
    {"type", SPEAKS, 0},
    {"enum", SPEAKS, 0},
    {"const", SPEAKS, 0},
    {"anyOf", SPEAKS, 0},
    {"oneOf", SPEAKS, 0},
    {"allOf", SPEAKS, 0},
    {"$ref", SPEAKS, 0},
    {"nullable", SPEAKS, 0},
    {"properties", SPEAKS, SCHEMA_OBJECT},
    {"required", SPEAKS, SCHEMA_OBJECT},
    {"additionalProperties", SPEAKS, SCHEMA_OBJECT},
    {"propertyNames", SPEAKS, SCHEMA_OBJECT},
    {"items", SPEAKS, SCHEMA_ARRAY},
    {"prefixItems", SPEAKS, SCHEMA_ARRAY},
    {"minItems", SPEAKS, SCHEMA_ARRAY},
    {"maxItems", SPEAKS, SCHEMA_ARRAY},
    {"uniqueItems", SPEAKS, SCHEMA_ARRAY},
    {"contains", SPEAKS, SCHEMA_ARRAY},
    {"minContains", SPEAKS, SCHEMA_ARRAY},
    {"maxContains", SPEAKS, SCHEMA_ARRAY},
    {"additionalItems", SPEAKS, SCHEMA_ARRAY},
    {"patternProperties", SPEAKS, SCHEMA_OBJECT},
    {"minProperties", SPEAKS, SCHEMA_OBJECT},
    {"maxProperties", SPEAKS, SCHEMA_OBJECT},
    {"dependentRequired", SPEAKS, SCHEMA_OBJECT},
    {"dependentSchemas", SPEAKS, SCHEMA_OBJECT},
    {"dependencies", SPEAKS, SCHEMA_OBJECT},
    {"multipleOf", SPEAKS, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"not", SPEAKS, 0},
    {"if", SPEAKS, 0},
    {"then", SPEAKS, 0},
    {"else", SPEAKS, 0},
    {SCHEMA_ALSO, SPEAKS, SCHEMA_STRING},
    {SCHEMA_UNLIKE, SPEAKS, SCHEMA_STRING},
    {SCHEMA_EXCEPT, SPEAKS, 0},
    {"minLength", SPEAKS, SCHEMA_STRING},
    {"maxLength", SPEAKS, SCHEMA_STRING},
    {"pattern", SPEAKS, SCHEMA_STRING},
    {"format", SPEAKS, SCHEMA_STRING},
    {"minimum", SPEAKS, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"maximum", SPEAKS, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"exclusiveMinimum", SPEAKS, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"exclusiveMaximum", SPEAKS, SCHEMA_NUMBER | SCHEMA_INTEGER},
    {"title", NOTE, 0},
    {"description", NOTE, 0},
    {"default", NOTE, 0},
    {"example", NOTE, 0},
    {"examples", NOTE, 0},
    {"deprecated", NOTE, 0},
    {"readOnly", NOTE, 0},
    {"writeOnly", NOTE, 0},
    {"discriminator", NOTE, 0},
    {"contentEncoding", NOTE, 0},
    {"contentMediaType", NOTE, 0},
    {"contentSchema", NOTE, 0},
    {"$comment", NOTE, 0},
    {"$schema", NOTE, 0},
    {"$id", NOTE, 0},
    {"$anchor", NOTE, 0},
    {"$defs", NOTE, 0},
    {"definitions", NOTE, 0},
};

static enum use use_of(const char *key, unsigned *types)
{
    *types = 0;
    for (size_t i = 0; i < NUM_COUNT(keywords); i++)
        if (!strcmp(key, keywords[i].name)) {
            *types = keywords[i].types;
            return keywords[i].use;
        }
    return !strncmp(key, "x-", 2) ? NOTE : REFUSED;
}

bool schema_is_annotation(const char *key)
{
    unsigned types;
    return use_of(key, &types) == NOTE;
}

static bool check_type(struct schema *s, const json_t *t)
{
    static const char *const names[] = {"null",   "boolean", "integer", "number",
                                        "string", "array",   "object"};
    bool ok = false;
    for (size_t i = 0; i < NUM_COUNT(names) && json_is_string(t); i++)
        ok |= !strcmp(json_string_value(t), names[i]);
    if (!ok)
        schema_fail(
            s, ERR_FORMAT, "type",
            "has to be null, boolean, integer, number, string, array, object, or a list of these");
    return ok;
}

bool schema_check(struct schema *s, const json_t *o, unsigned *types)
{
    static const struct {
        const char *name;
        bool array;
    } containers[] = {{"properties", false}, {"patternProperties", false},
                      {"required", true},    {"enum", true},
                      {"anyOf", true},       {"oneOf", true},
                      {"prefixItems", true}, {"allOf", true}};
    const char *key;
    json_t *v;
    size_t i;
    *types = 0;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        unsigned set;
        if (use_of(key, &set) == REFUSED) {
            schema_fail(s, ERR_UNSUPPORTED, key, "this keyword is not supported");
            return false;
        }
        *types |= set;
        for (i = 0; i < NUM_COUNT(containers); i++)
            if (!strcmp(key, containers[i].name) &&
                (containers[i].array ? !json_is_array(v) : !json_is_object(v))) {
                schema_fail(s, ERR_FORMAT, key, "has to be %s",
                            containers[i].array ? "a list" : "an object");
                return false;
            }
    }
    const json_t *t = json_object_get(o, "type"), *one;
    if (json_is_array(t)) {
        json_array_foreach(t, i, one) if (!check_type(s, one)) return false;
    } else if (t && !check_type(s, t)) {
        return false;
    }
    return true;
}

/* ---- references ----------------------------------------------------------------------------- */

static int from_hex(char c)
{
    return c >= '0' && c <= '9'                     ? c - '0'
           : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10
                                                    : -1;
}

/* The next part of a JSON pointer in a URI; NULL without memory. */
static const char *pointer_part(struct schema *s, const char **at)
{
    size_t n = strcspn(*at, "/"), w = 0;
    char *out = gbuild_alloc(s->b, n + 1, 1);
    for (size_t i = 0; i < n && out; i++) {
        char c = (*at)[i];
        if (c == '%' && i + 2 < n && from_hex((*at)[i + 1]) >= 0 && from_hex((*at)[i + 2]) >= 0) {
            c = (char)(from_hex((*at)[i + 1]) << 4 | from_hex((*at)[i + 2]));
            i += 2;
        }
        if (c == '~' && i + 1 < n && ((*at)[i + 1] == '0' || (*at)[i + 1] == '1'))
            c = (*at)[++i] == '0' ? '~' : '/';
        out[w++] = c;
    }
    *at += n;
    return out;
}

static const json_t *find_ref(struct schema *s, const char *ref)
{
    const json_t *v = s->root;
    if (*ref != '#' || (ref[1] && ref[1] != '/')) {
        schema_fail(s, ERR_UNSUPPORTED, "$ref",
                    "\"%.80s\": only places in this schema (#/…) are supported", ref);
        return NULL;
    }
    for (const char *at = ref + 1; *at == '/' && v;) {
        at++;
        const char *part = pointer_part(s, &at);
        if (!part)
            return NULL;
        v = json_is_array(v) ? json_array_get(v, strtoul(part, NULL, 10))
                             : json_object_get(v, part);
    }
    if (!v)
        schema_fail(s, ERR_FORMAT, "$ref", "\"%.80s\": there is no such place", ref);
    return v;
}

const json_t *schema_resolve(struct schema *s, const char *ref)
{
    const json_t *v = find_ref(s, ref);
    for (int i = 0; v && !s->b->code; i++) {
        const json_t *next = json_object_get(v, "$ref");
        if (!json_is_string(next) || json_object_size(v) > 1)
            return v;
        if (i >= REFS_IN_A_ROW) {
            schema_fail(s, ERR_FORMAT, "$ref", "\"%.80s\" leads to itself", ref);
            return NULL;
        }
        v = find_ref(s, json_string_value(next));
    }
    return v;
}

/* The rule of a reference; its schema waits for its turn. */
static struct gx *reference(struct schema *s, const char *ref)
{
    const json_t *have = json_object_get(s->known, ref), *v;
    if (have)
        return gx_call(s->b, s->ref[json_integer_value(have)].rule);
    if (!(v = find_ref(s, ref)))
        return NULL;
    if (s->n_refs == s->cap_refs) {
        size_t cap = s->cap_refs ? 2 * s->cap_refs : 16;
        struct schema_ref *more = gbuild_alloc(s->b, cap, sizeof *more);
        if (!more)
            return NULL;
        if (s->n_refs)
            memcpy(more, s->ref, s->n_refs * sizeof *more);
        s->ref = more;
        s->cap_refs = cap;
    }
    uint32_t rule = gbuild_rule(s->b, ref, strlen(ref));
    if (s->b->code || json_object_set_new(s->known, ref, json_integer((json_int_t)s->n_refs)))
        return gbuild_fail(s->b, ERR_NOMEM, "no memory for a schema");
    s->ref[s->n_refs++] = (struct schema_ref){s->b->rule[rule].name, v, rule};
    return gx_call(s->b, rule);
}

/* ---- combinations --------------------------------------------------------------------------- */

static json_t *without(const json_t *o, const char *key)
{
    json_t *out = json_copy((json_t *)(uintptr_t)o);
    json_object_del(out, key);
    return out;
}

/* Does anything but annotations stand in it? */
static bool says_something(const json_t *o)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) if (!schema_is_annotation(key)) return true;
    return false;
}

json_t *schema_flat(struct schema *s, const json_t *v)
{
    const json_t *ref = json_object_get(v, "$ref");
    json_t *out = NULL;
    if (!json_is_string(ref))
        return schema_is_high(v) ? schema_lower(s, v) : json_incref((json_t *)(uintptr_t)v);
    const json_t *target = schema_resolve(s, json_string_value(ref));
    if (!target)
        return NULL;
    json_t *rest = without(v, "$ref");
    json_t *x =
        schema_is_high(target) ? schema_lower(s, target) : json_incref((json_t *)(uintptr_t)target);
    json_t *y = schema_is_high(rest) ? schema_lower(s, rest) : json_incref(rest);
    if (!s->b->code)
        out = schema_merge(s, x, y);
    json_decref(rest);
    json_decref(x);
    json_decref(y);
    return out;
}

static struct gx *compile_merged(struct schema *s, const json_t *a, const json_t *b)
{
    json_t *x = schema_flat(s, a), *y = x ? schema_flat(s, b) : NULL,
           *both = y ? schema_merge(s, x, y) : NULL;
    struct gx *out = both ? schema_compile(s, both) : NULL;
    json_decref(x);
    json_decref(y);
    json_decref(both);
    return out;
}

static struct gx *all_of(struct schema *s, const json_t *o)
{
    const json_t *list = json_object_get(o, "allOf"), *v;
    json_t *sum = without(o, "allOf");
    size_t i;
    json_array_foreach(list, i, v)
    {
        size_t before = enter_index(s, "allOf", i);
        json_t *x = sum ? schema_flat(s, v) : NULL, *y = x ? schema_flat(s, sum) : NULL;
        json_t *more = y ? schema_merge(s, y, x) : NULL;
        json_decref(x);
        json_decref(y);
        json_decref(sum);
        sum = more;
        schema_leave(s, before);
    }
    struct gx *out = sum ? schema_compile(s, sum) : NULL;
    json_decref(sum);
    return out;
}

/* Values that a member may have, when it lists them. */
static bool lists(const json_t *o, json_t **out)
{
    json_t *one = json_object_get(o, "const"), *list = json_object_get(o, "enum");
    *out = one ? json_pack("[O]", one) : json_is_array(list) ? json_incref(list) : NULL;
    return *out != NULL;
}

static bool lists_apart(const json_t *a, const json_t *b)
{
    json_t *x = NULL, *y = NULL, *v, *w;
    size_t i, k;
    bool apart = lists(a, &x) & lists(b, &y);
    if (apart && json_array_size(x) * json_array_size(y) > 1 << 16)
        apart = false;
    if (apart)
        json_array_foreach(x, i, v) json_array_foreach(y, k, w) apart &= !json_equal(v, w);
    json_decref(x);
    json_decref(y);
    return apart;
}

static bool requires(const json_t *o, const char *key)
{
    const json_t *v;
    size_t i;
    json_array_foreach(json_object_get(o, "required"), i,
                       v) if (json_is_string(v) && !strcmp(json_string_value(v), key)) return true;
    return false;
}

/* No text of a is a value of b, because b requires what a's texts do not have. */
static bool lacks(const json_t *a, const json_t *b)
{
    const json_t *props = json_object_get(a, "properties"),
                 *more = json_object_get(a, "additionalProperties");
    const json_t *v;
    size_t i;
    if (!json_object_size(props) || (more && !json_is_false(more)))
        return false;
    json_array_foreach(json_object_get(b, "required"), i,
                       v) if (json_is_string(v) && !json_object_get(props, json_string_value(v)) &&
                              !requires(a, json_string_value(v))) return true;
    return false;
}

/* No text of a is a value of b, because a requires what b forbids. */
static bool forbids(const json_t *a, const json_t *b)
{
    const json_t *v;
    size_t i;
    if (!json_is_false(json_object_get(b, "additionalProperties")))
        return false;
    json_array_foreach(json_object_get(a, "required"), i,
                       v) if (json_is_string(v) &&
                              !json_object_get(json_object_get(b, "properties"),
                                               json_string_value(v))) return true;
    return false;
}

/* Can it be seen that no text of one is a value of the other? */
static bool exclusive(struct schema *s, const json_t *a, const json_t *b)
{
    unsigned x, y;
    const char *key;
    json_t *v;
    s->work += 16;
    if (!schema_check(s, a, &x) || !schema_check(s, b, &y))
        return true; /* the fault is on record */
    x = json_object_get(a, "type") || !x ? schema_types(a) : x;
    y = json_object_get(b, "type") || !y ? schema_types(b) : y;
    if (!(x & y) || lists_apart(a, b))
        return true;
    if ((x & y) != SCHEMA_OBJECT)
        return false;
    json_object_foreach(json_object_get(a, "properties"), key, v)
    {
        const json_t *other = json_object_get(json_object_get(b, "properties"), key);
        if (other && requires(a, key) && requires(b, key) && lists_apart(v, other))
            return true;
    }
    return (lacks(a, b) || forbids(a, b)) && (lacks(b, a) || forbids(b, a));
}

static bool all_exclusive(struct schema *s, const json_t *list)
{
    size_t n = json_array_size(list);
    bool ok = true;
    for (size_t i = 0; i < n && ok && !s->b->code; i++)
        for (size_t k = i + 1; k < n && ok && !s->b->code && s->work < SCHEMA_WORK_MAX; k++) {
            json_t *a = schema_flat(s, json_array_get(list, i)),
                   *b = a ? schema_flat(s, json_array_get(list, k)) : NULL;
            ok = !b || exclusive(s, a, b);
            json_decref(a);
            json_decref(b);
        }
    return ok;
}

static struct gx *one_or_any(struct schema *s, const json_t *o, const char *key)
{
    const json_t *list = json_object_get(o, key), *v;
    json_t *rest = without(o, key);
    struct gxs l = {.n = 0};
    size_t i;
    if (!strcmp(key, "oneOf") && !all_exclusive(s, list))
        schema_fail(s, ERR_UNSUPPORTED, key,
                    "a value could fit two branches: anyOf says that this is allowed");
    json_array_foreach(list, i, v)
    {
        if (s->b->code)
            break;
        size_t before = enter_index(s, key, i);
        gxs_add(s->b, &l, says_something(rest) ? compile_merged(s, rest, v) : schema_compile(s, v));
        schema_leave(s, before);
    }
    json_decref(rest);
    return gx_alt(s->b, l.v, l.n);
}

/* ---- values
 * ----------------------------------------------------------------------------------------------------
 */

static unsigned type_of(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_NULL:
        return SCHEMA_NULL;
    case JSON_TRUE:
    case JSON_FALSE:
        return SCHEMA_BOOLEAN;
    case JSON_INTEGER:
        return SCHEMA_INTEGER;
    case JSON_REAL:
        return SCHEMA_NUMBER;
    case JSON_STRING:
        return SCHEMA_STRING;
    case JSON_ARRAY:
        return SCHEMA_ARRAY;
    default:
        return SCHEMA_OBJECT;
    }
}

/* Texts of the value as they are written here. */
static struct gword written(struct gbuild *b, const json_t *v)
{
    return json_is_string(v) ? gjson_quoted(b, json_string_value(v), json_string_length(v))
                             : gjson_word(b, v);
}

/* What stands beside enum or const, as sets of texts: one for each type, made when it is needed. */
struct beside {
    struct glang text[5];
    bool made[5];
};

static bool fits_beside(struct schema *s, const json_t *o, const json_t *v, struct beside *l)
{
    static const char *const names[] = {"null", "boolean", "number", "number", "string"};
    const char *key;
    json_t *unused;
    unsigned type = type_of(v), speaks, i = 0;
    bool spoken = false;
    json_object_foreach((json_t *)(uintptr_t)o, key, unused)
    {
        spoken |= use_of(key, &speaks) == SPEAKS &&
                  (speaks & type || (type == SCHEMA_INTEGER && speaks & SCHEMA_NUMBER));
    }
    if (!spoken)
        return true;
    if (type & (SCHEMA_ARRAY | SCHEMA_OBJECT)) {
        schema_fail(s, ERR_UNSUPPORTED, "enum",
                    "has lists or objects, beside keywords that speak of these");
        return false;
    }
    while (type != 1u << i)
        i++;
    if (!l->made[i]) {
        json_t *rest = without(o, "enum");
        json_object_del(rest, "const");
        json_object_del(rest, SCHEMA_EXCEPT);
        json_object_set_new(rest, "type", json_string(names[i]));
        l->made[i] = schema_language(s, rest, schema_compile, &l->text[i]);
        json_decref(rest);
    }
    struct gword w = written(s->b, v);
    return l->made[i] && glang_has(s->b, &l->text[i], w.s, w.n);
}

static bool is_among(const json_t *list, const json_t *v)
{
    json_t *x;
    size_t i;
    json_array_foreach(list, i, x) if (json_equal(x, v) ||
                                       (json_is_number(x) && json_is_number(v) &&
                                        json_number_value(x) == json_number_value(v))) return true;
    return false;
}

/* enum and const: the values that the rest allows. */
static struct gx *listed(struct schema *s, const json_t *o)
{
    json_t *values = json_object_get(o, "enum"), *one = json_object_get(o, "const"), *v;
    const json_t *except = json_object_get(o, SCHEMA_EXCEPT);
    unsigned types = schema_types(o);
    size_t n = 0, i;
    if (json_array_size(values) > GRAMMAR_NODES_MAX / 2)
        return schema_fail(s, ERR_LIMIT, "enum", "has more than %d values", GRAMMAR_NODES_MAX / 2);
    struct gword *w = gbuild_alloc(s->b, json_array_size(values) + 1, sizeof *w);
    json_t *all = values ? json_incref(values) : json_pack("[O]", one);
    struct beside beside = {.made = {false}};
    json_array_foreach(all, i, v)
    {
        s->work++;
        if (!s->b->code && types & type_of(v) && (!one || json_equal(one, v)) &&
            !is_among(except, v) && fits_beside(s, o, v, &beside))
            w[n++] = gjson_word(s->b, v);
    }
    for (i = 0; i < NUM_COUNT(beside.text); i++)
        glang_release(&beside.text[i]);
    json_decref(all);
    return s->b->code ? NULL : gx_words(s->b, w, n);
}

/* Without the types that SCHEMA_EXCEPT leaves nothing of; lists and objects cannot be excepted. */
static unsigned without_excepted(struct schema *s, const json_t *o, unsigned types)
{
    const json_t *v, *except = json_object_get(o, SCHEMA_EXCEPT);
    size_t i;
    json_array_foreach(except, i, v)
    {
        types &= json_is_null(v) ? ~(unsigned)SCHEMA_NULL : SCHEMA_ALL;
        if (types & type_of(v) & (SCHEMA_ARRAY | SCHEMA_OBJECT))
            schema_fail(s, ERR_UNSUPPORTED, "not", "lists and objects cannot be excepted");
    }
    return types;
}

static struct gx *boolean(struct schema *s, const json_t *o)
{
    const json_t *except = json_object_get(o, SCHEMA_EXCEPT);
    struct gxs l = {.n = 0};
    if (!is_among(except, json_true()))
        gxs_add(s->b, &l, gx_text(s->b, "true"));
    if (!is_among(except, json_false()))
        gxs_add(s->b, &l, gx_text(s->b, "false"));
    return gx_alt(s->b, l.v, l.n);
}

static struct gx *typed(struct schema *s, const json_t *o, unsigned types)
{
    struct gxs l = {.n = 0};
    types = without_excepted(s, o, types);
    if (types & SCHEMA_OBJECT)
        gxs_add(s->b, &l, schema_object(s, o));
    if (types & SCHEMA_ARRAY)
        gxs_add(s->b, &l, schema_array(s, o));
    if (types & SCHEMA_STRING)
        gxs_add(s->b, &l, schema_string(s, o));
    if (types & (SCHEMA_NUMBER | SCHEMA_INTEGER))
        gxs_add(s->b, &l, schema_number(s, o, types & SCHEMA_NUMBER));
    if (types & SCHEMA_BOOLEAN)
        gxs_add(s->b, &l, boolean(s, o));
    if (types & SCHEMA_NULL)
        gxs_add(s->b, &l, gx_text(s->b, "null"));
    return gx_alt(s->b, l.v, l.n);
}

static struct gx *compile(struct schema *s, const json_t *o)
{
    unsigned spoken;
    if (json_is_true(o))
        return gjson_value(s->j);
    if (json_is_false(o))
        return gx_never(s->b);
    if (!json_is_object(o))
        return schema_fail(s, ERR_FORMAT, NULL, "a schema has to be an object, true or false");
    if (!schema_check(s, o, &spoken))
        return NULL;
    const json_t *ref = json_object_get(o, "$ref");
    if (ref && !json_is_string(ref))
        return schema_fail(s, ERR_FORMAT, "$ref", "has to be a string");
    if (ref) {
        json_t *rest = without(o, "$ref"), *whole = NULL;
        struct gx *x;
        if (says_something(rest))
            x = (whole = schema_flat(s, o)) ? schema_compile(s, whole) : NULL;
        else
            x = reference(s, json_string_value(ref));
        json_decref(rest);
        json_decref(whole);
        return x;
    }
    if (schema_is_high(o)) {
        json_t *low = schema_lower(s, o);
        struct gx *x = schema_compile(s, low);
        json_decref(low);
        return x;
    }
    if (json_is_true(json_object_get(o, "nullable"))) {
        json_t *rest = without(o, "nullable");
        struct gx *x = schema_compile(s, rest);
        json_decref(rest);
        return GX_ALT(s->b, x, gx_text(s->b, "null"));
    }
    if (json_object_get(o, "allOf"))
        return all_of(s, o);
    if (json_object_get(o, "anyOf"))
        return one_or_any(s, o, "anyOf");
    if (json_object_get(o, "oneOf"))
        return one_or_any(s, o, "oneOf");
    if (json_object_get(o, "enum") || json_object_get(o, "const"))
        return listed(s, o);
    if (!says_something(o))
        return gjson_value(s->j);
    return typed(s, o, json_object_get(o, "type") || !spoken ? schema_types(o) : spoken);
}

struct gx *schema_compile(struct schema *s, const json_t *v)
{
    if (s->b->code)
        return NULL;
    if (++s->depth > GRAMMAR_NEST_MAX)
        return schema_fail(s, ERR_LIMIT, NULL, "the schema nests deeper than %d levels",
                           GRAMMAR_NEST_MAX);
    if (++s->work > SCHEMA_WORK_MAX)
        return schema_fail(s, ERR_LIMIT, NULL, "the schema is too large");
    struct gx *x = compile(s, v);
    s->depth--;
    return x;
}

/* ---- all of it
 * ---------------------------------------------------------------------------------------------------
 */

/* The rules of $refs, whose schemas may ask for more. */
static void compile_refs(struct schema *s)
{
    for (size_t i = 0; i < s->n_refs && !s->b->code; i++) {
        struct err lost;
        buf_clear(&s->path);
        buf_puts(&s->path, s->ref[i].pointer + 1, &lost);
        gbuild_define(s->b, s->ref[i].rule, schema_compile(s, s->ref[i].schema));
    }
}

bool schema_language(struct schema *s, const json_t *o,
                     struct gx *(*make)(struct schema *own, const json_t *o), struct glang *out)
{
    struct gbuild b;
    struct err e = {0};
    *out = (struct glang){.g = NULL};
    if (s->work > SCHEMA_WORK_MAX)
        schema_fail(s, ERR_LIMIT, NULL, "the schema is too large");
    if (s->b->code)
        return false;
    if (gbuild_init(&b, &e)) {
        gbuild_fail(s->b, e.code, "%s", e.text);
        return false;
    }
    struct gjson j = {.b = &b};
    struct schema own = {.b = &b,
                         .j = &j,
                         .root = s->root,
                         .known = json_object(),
                         .work = s->work,
                         .depth = s->depth};
    buf_init(&own.path, PATH_MAX_BYTES);
    buf_puts(&own.path, s->path.data, &e);
    struct gx *x = make(&own, o);
    compile_refs(&own);
    s->work = own.work + LANGUAGE_WORK;
    json_decref(own.known);
    buf_release(&own.path);
    return glang_make(s->b, &b, x, out);
}

struct gdfa *schema_join(struct schema *s, const struct glang *lang, size_t n)
{
    struct gdfa *d = s->b->code ? NULL : gdfa_join(s->b, lang, n);
    s->work += d ? d->n * STATE_WORK : 0;
    return d;
}

struct gx *gschema(struct gjson *j, const json_t *schema, bool object)
{
    struct schema s = {.b = j->b, .j = j, .root = schema, .known = json_object()};
    buf_init(&s.path, PATH_MAX_BYTES);
    json_t *typed_object = object ? json_pack("{s:s}", "type", "object") : NULL;
    struct gx *x = object ? compile_merged(&s, schema, typed_object) : schema_compile(&s, schema);
    json_decref(typed_object);
    compile_refs(&s);
    json_decref(s.known);
    buf_release(&s.path);
    return x;
}
