/* Schemas of one type: numbers, strings, arrays, objects. See grammar_schema.c. */
#include "text/grammar_schema.h"

#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_MAX = 1000, DECIMAL_MAX = 400 };

/* A count; `other` when the keyword is missing. */
static uint32_t count(struct schema *s, const json_t *o, const char *key, uint32_t other)
{
    const json_t *v = json_object_get(o, key);
    double x = json_number_value(v);
    if (!v)
        return other;
    if (!json_is_number(v) || x < 0 || floor(x) != x) {
        schema_fail(s, ERR_FORMAT, key, "has to be a whole number that is not negative");
        return other;
    }
    return x >= (double)(GRAMMAR_INF - 1) ? GRAMMAR_INF - 1 : (uint32_t)x;
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* A number in decimal digits without exponent. false: too many of them. */
static bool decimal(const json_t *v, char out[DECIMAL_MAX])
{
    if (json_is_integer(v)) {
        snprintf(out, DECIMAL_MAX, "%lld", (long long)json_integer_value(v));
        return true;
    }
    double x = json_real_value(v), back = 0;
    char short_form[40], *digits = short_form;
    for (int precision = 1; precision <= 17 && back != x; precision++) {
        snprintf(short_form, sizeof short_form, "%.*e", precision - 1, x);
        back = strtod(short_form, NULL);
    }
    /* "-d.ddde±dd" */
    long exponent = strtol(strchr(short_form, 'e') + 1, NULL, 10);
    *strchr(short_form, 'e') = 0;
    if (exponent > 18 || exponent < -16)
        return false;
    size_t w = 0, n = 0;
    char all[40];
    if (*digits == '-') {
        out[w++] = '-';
        digits++;
    }
    for (; *digits; digits++)
        if (*digits != '.')
            all[n++] = *digits;
    if (exponent < 0) {
        out[w++] = '0';
        out[w++] = '.';
        for (long i = -1; i > exponent; i--)
            out[w++] = '0';
    }
    for (size_t i = 0; i < n || (long)i <= exponent; i++) {
        out[w++] = i < n ? all[i] : '0';
        if ((long)i == exponent)
            out[w++] = '.';
    }
    out[w] = 0;
    return true;
}

/* The tighter of `least` and `open`; NULL when there is neither. */
static const json_t *bound(struct schema *s, const json_t *o, const char *closed, const char *open,
                           int sign, bool *is_open)
{
    const json_t *c = json_object_get(o, closed), *x = json_object_get(o, open);
    *is_open = false;
    if ((c && !json_is_number(c)) || (x && !json_is_number(x))) {
        schema_fail(s, ERR_FORMAT, c && !json_is_number(c) ? closed : open, "has to be a number");
        return NULL;
    }
    *is_open = x && (!c || sign * json_number_value(x) >= sign * json_number_value(c));
    return *is_open ? x : c;
}

struct gx *schema_number(struct schema *s, const json_t *o, bool real)
{
    char lo[DECIMAL_MAX], hi[DECIMAL_MAX];
    bool lo_open, hi_open;
    const json_t *a = bound(s, o, "minimum", "exclusiveMinimum", 1, &lo_open);
    const json_t *b = bound(s, o, "maximum", "exclusiveMaximum", -1, &hi_open);
    /* bounds beyond what a text can say are none */
    if (a && json_number_value(a) <= -1e18)
        a = NULL;
    if (b && json_number_value(b) >= 1e18)
        b = NULL;
    if (s->b->code)
        return NULL;
    if (!a && !b)
        return real ? gjson_number(s->j) : gjson_integer(s->j);
    if ((a && !decimal(a, lo)) || (b && !decimal(b, hi)))
        return schema_fail(
            s, ERR_UNSUPPORTED, a ? "minimum" : "maximum",
            "numbers with more than 18 digits before or 16 behind the point are not supported");
    return gnumber_range(s->j, a ? lo : NULL, lo_open, b ? hi : NULL, hi_open, real);
}

/* ---- strings -------------------------------------------------------------------------------- */

static struct gx *quoted(struct schema *s, struct gx *x)
{
    return GX_SEQ(s->b, gx_text(s->b, "\""), x, gx_text(s->b, "\""));
}

/* A pattern's faults name the place. */
static struct gx *pattern(struct schema *s, const json_t *v)
{
    if (!json_is_string(v))
        return schema_fail(s, ERR_FORMAT, "pattern", "has to be a string");
    bool before = s->b->code;
    struct gx *x = gregex(s->b, json_string_value(v), json_string_length(v), s->j, false);
    if (s->b->code && !before)
        err_ctx(&s->b->err, "#%.150s/pattern", s->path.data);
    return x;
}

struct gx *schema_string(struct schema *s, const json_t *o)
{
    const json_t *re = json_object_get(o, "pattern"), *format = json_object_get(o, "format");
    uint32_t min = count(s, o, "minLength", 0), max = count(s, o, "maxLength", GRAMMAR_INF);
    bool counted = min > 0 || max != GRAMMAR_INF;
    if ((re || format) && counted)
        return schema_fail(s, ERR_UNSUPPORTED, re ? "pattern" : "format",
                           "is not supported beside minLength and maxLength");
    if (re && format)
        return schema_fail(s, ERR_UNSUPPORTED, "pattern", "is not supported beside format");
    if (re)
        return quoted(s, pattern(s, re));
    if (format) {
        struct gx *x = json_is_string(format) ? gformat(s->j, json_string_value(format)) : NULL;
        if (!x && !s->b->code)
            return schema_fail(
                s, ERR_UNSUPPORTED, "format",
                "is none of date, time, date-time, duration, uuid, email, hostname, ipv4, "
                "ipv6, uri");
        return quoted(s, x);
    }
    if (!counted)
        return gjson_string(s->j);
    return quoted(s, gx_rep(s->b, gjson_char(s->j), min, max));
}

/* ---- arrays --------------------------------------------------------------------------------- */

static uint32_t one_less(uint32_t max)
{
    return max == GRAMMAR_INF ? max : max - 1;
}

struct gx *schema_array(struct schema *s, const json_t *o)
{
    struct gbuild *b = s->b;
    const json_t *items = json_object_get(o, "items"), *prefix = json_object_get(o, "prefixItems");
    uint32_t min = count(s, o, "minItems", 0), max = count(s, o, "maxItems", GRAMMAR_INF);
    uint32_t k = (uint32_t)json_array_size(prefix);
    if (json_is_true(json_object_get(o, "uniqueItems")) && max > 1)
        return schema_fail(s, ERR_UNSUPPORTED, "uniqueItems",
                           "that items differ cannot be assured");
    if (k > PREFIX_MAX)
        return schema_fail(s, ERR_LIMIT, "prefixItems", "has more than %d items", PREFIX_MAX);
    if (!items && !k && !min && max == GRAMMAR_INF)
        return gjson_array(s->j);
    struct gx *space = gjson_space(s->j), *comma = GX_SEQ(b, gx_text(b, ","), space), *tail = NULL;
    size_t before = schema_enter(s, "items");
    struct gx *item = items ? schema_compile(s, items) : k ? gx_never(b) : gjson_value(s->j);
    schema_leave(s, before);
    uint32_t low = min > k ? min - k : 0, high = max == GRAMMAR_INF ? max : max > k ? max - k : 0;
    if (k) { /* behind them, each with its comma; from the last to the first */
        tail = gx_rep(b, GX_SEQ(b, comma, item), low, high);
        for (uint32_t i = k; i > 0 && !b->code; i--) {
            char number[16];
            if (i > max) {
                tail = gx_empty(b);
                continue;
            }
            snprintf(number, sizeof number, "%u", i - 1);
            before = schema_enter(s, "prefixItems");
            schema_enter(s, number);
            struct gx *one = schema_compile(s, json_array_get(prefix, i - 1));
            schema_leave(s, before);
            tail = i > 1 ? GX_SEQ(b, comma, one, tail) : GX_SEQ(b, one, tail, space);
            tail = i > min ? gx_opt(b, tail) : tail;
        }
    } else if (max == 0) {
        tail = min ? gx_never(b) : gx_empty(b);
    } else { /* the item stands here twice: as a rule it is there once */
        uint32_t rule = gbuild_rule(b, "items", 5);
        gbuild_define(b, rule, item);
        item = gx_call(b, rule);
        struct gx *more = gx_rep(b, GX_SEQ(b, comma, item), min ? min - 1 : 0, one_less(max));
        tail = GX_SEQ(b, item, more, space);
        tail = min ? tail : gx_opt(b, tail);
    }
    return GX_SEQ(b, gx_text(b, "["), space, tail, gx_text(b, "]"));
}

/* ---- objects -------------------------------------------------------------------------------- */

static struct gx *any_chars(struct schema *s)
{
    return gx_rep(s->b, gjson_char(s->j), 0, GRAMMAR_INF);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Texts of a string that is none of key[0..n), which are in order and share their first `at` bytes.
   Along the keys each character has one way of writing, so none can come in by an escape. */
static struct gx *no_key(struct schema *s, const char *const *key, size_t n, size_t at,
                         struct gx *chars, int depth)
{
    struct gbuild *b = s->b;
    struct gxs l = {.n = 0};
    struct gset other = {.n = 0};
    size_t i = 0;
    if (depth > 1000)
        return schema_fail(s, ERR_LIMIT, "properties", "has names of more than 1,000 characters");
    if (key[0][at])
        gxs_add(b, &l, gx_empty(b));
    else
        i = 1;
    while (i < n && !b->code) {
        uint32_t cp;
        size_t last = i, used = utf8_next(key[i] + at, strlen(key[i] + at), &cp, NULL);
        while (last < n && !strncmp(key[last] + at, key[i] + at, used))
            last++;
        struct gset one = {.n = 0};
        gset_add(b, &one, cp, cp);
        gset_add(b, &other, cp, cp);
        gxs_add(b, &l,
                GX_SEQ(b, gjson_class(s->j, &one),
                       no_key(s, key + i, last - i, at + used, chars, depth + 1)));
        i = last;
    }
    gset_invert(b, &other);
    gxs_add(b, &l, GX_SEQ(b, gjson_class(s->j, &other), chars));
    return gx_alt(b, l.v, l.n);
}

/* The name of a member that is not listed, with quotes. */
static struct gx *other_name(struct schema *s, const json_t *o, const char **key, size_t n)
{
    const json_t *names = json_object_get(o, "propertyNames");
    if (names) {
        size_t before = schema_enter(s, "propertyNames");
        json_t *string = json_pack("{s:s}", "type", "string"),
               *both = schema_merge(s, names, string);
        const json_t *type = json_object_get(names, "type");
        bool plain = json_is_true(names) || json_object_size(names) == (type != NULL);
        struct gx *x = both && !plain ? schema_compile(s, both) : NULL;
        if (!plain && n)
            schema_fail(s, ERR_UNSUPPORTED, NULL, "is not supported beside properties");
        json_decref(string);
        json_decref(both);
        schema_leave(s, before);
        if (!plain)
            return x;
    }
    if (!n)
        return gjson_string(s->j);
    qsort(key, n, sizeof *key, by_text);
    uint32_t rule = gbuild_rule(s->b, "characters", 10);
    gbuild_define(s->b, rule, any_chars(s));
    return quoted(s, no_key(s, key, n, 0, gx_call(s->b, rule), 0));
}

static struct gx *member(struct schema *s, const char *key, struct gx *value)
{
    json_t *name = json_string(key);
    struct gx *literal = gjson_literal(s->b, name);
    json_decref(name);
    return GX_SEQ(s->b, literal, gjson_colon(s->j), value);
}

struct members {
    struct gmember *m;
    const char **key;
    size_t n;
};

/* Those of "properties" in their order, then those that are only required. */
static bool list_members(struct schema *s, const json_t *o, struct members *l)
{
    const json_t *props = json_object_get(o, "properties"),
                 *required = json_object_get(o, "required");
    const json_t *more = json_object_get(o, "additionalProperties"), *name;
    size_t most = json_object_size(props) + json_array_size(required), i;
    json_t *must = json_object();
    const char *key;
    json_t *v;
    l->m = gbuild_alloc(s->b, most + 1, sizeof *l->m);
    l->key = gbuild_alloc(s->b, most + 1, sizeof *l->key);
    json_array_foreach(required, i, name)
    {
        if (!json_is_string(name))
            schema_fail(s, ERR_FORMAT, "required", "has to be a list of names");
        else if (json_object_set_new(must, json_string_value(name), json_true()))
            gbuild_fail(s->b, ERR_NOMEM, "no memory for a schema");
    }
    size_t before = schema_enter(s, "properties");
    json_object_foreach((json_t *)(uintptr_t)props, key, v)
    {
        if (s->b->code)
            break;
        size_t here = schema_enter(s, key);
        bool needed = json_object_del(must, key) == 0;
        l->key[l->n] = key;
        l->m[l->n++] = (struct gmember){member(s, key, schema_compile(s, v)), needed};
        schema_leave(s, here);
    }
    schema_leave(s, before);
    json_array_foreach(required, i, name) /* in the order of the list, each once */
    {
        if (s->b->code || json_object_del(must, json_string_value(name)) != 0)
            continue;
        key = json_string_value(name);
        before = schema_enter(s, "additionalProperties");
        struct gx *value = more ? schema_compile(s, more) : gjson_value(s->j);
        schema_leave(s, before);
        l->key[l->n] = key;
        l->m[l->n++] = (struct gmember){member(s, key, value), true};
    }
    json_decref(must);
    return !s->b->code;
}

struct gx *schema_object(struct schema *s, const json_t *o)
{
    struct gbuild *b = s->b;
    const json_t *more = json_object_get(o, "additionalProperties");
    struct members l = {.n = 0};
    struct gx *others = NULL;
    if (!list_members(s, o, &l))
        return NULL;
    if (!l.n && !more && !json_object_get(o, "propertyNames"))
        return gjson_object(s->j);
    if (more ? !json_is_false(more) : !l.n) {
        struct gx *name = other_name(s, o, l.key, l.n);
        size_t before = schema_enter(s, "additionalProperties");
        struct gx *value = more ? schema_compile(s, more) : gjson_value(s->j);
        schema_leave(s, before);
        others = GX_SEQ(b, name, gjson_colon(s->j), value);
        if (!others)
            return NULL;
    }
    struct gx *space = gjson_space(s->j), *comma = GX_SEQ(b, gx_text(b, ","), space);
    return gx_members(b, l.m, l.n, others, comma, space);
}
