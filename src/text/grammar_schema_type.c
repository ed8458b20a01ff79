/* Schemas of one type: numbers, strings, arrays, objects. See grammar_schema.c. */
#include "text/grammar_schema.h"

#include "base/num.h"
#include "base/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX_MAX = 1000, DECIMAL_MAX = 400, MULTIPLE_MAX = 20000, COUNTED_MAX = 20000 };

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

/* Those within the bounds; plain: without exponents. */
static struct gx *number_within(struct schema *s, const json_t *o, bool real, bool plain)
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
    if (!a && !b && !plain)
        return real ? gjson_number(s->j) : gjson_integer(s->j);
    if ((a && !decimal(a, lo)) || (b && !decimal(b, hi)))
        return schema_fail(
            s, ERR_UNSUPPORTED, a ? "minimum" : "maximum",
            "numbers with more than 18 digits before or 16 behind the point are not supported");
    return gnumber_range(s->j, a ? lo : NULL, lo_open, b ? hi : NULL, hi_open, real);
}

static struct gx *plain_real(struct schema *s, const json_t *o)
{
    return number_within(s, o, true, true);
}

static struct gx *plain_integer(struct schema *s, const json_t *o)
{
    return number_within(s, o, false, true);
}

/* All ways to write this number without exponent: zeros may follow behind the point. */
static struct gx *number_word(struct schema *s, const json_t *v)
{
    struct gbuild *b = s->b;
    char text[DECIMAL_MAX];
    if (!decimal(v, text))
        return gx_never(b); /* nor can it be written */
    size_t n = strlen(text);
    bool point = strchr(text, '.') != NULL;
    while (point && text[n - 1] == '0')
        n--;
    if (point && text[n - 1] == '.') {
        n--;
        point = false;
    }
    struct gx *zeros = gx_rep(b, gx_text(b, "0"), !point, GRAMMAR_INF);
    struct gx *sign = json_number_value(v) == 0 ? gx_opt(b, gx_text(b, "-")) : gx_empty(b);
    const char *from = json_number_value(v) == 0 ? "0" : text;
    return GX_SEQ(b, sign, gx_bytes(b, from, json_number_value(v) == 0 ? 1 : n),
                  point ? zeros : gx_opt(b, GX_SEQ(b, gx_text(b, "."), zeros)));
}

/* The numbers of a list. */
static struct gx *these_numbers(struct schema *s, const json_t *list)
{
    struct gxs l = {.n = 0};
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v) if (json_is_number(v)) gxs_add(s->b, &l, number_word(s, v));
    return gx_alt(s->b, l.v, l.n);
}

/* A multiple as a whole number of 10^-digits. */
static bool read_multiple(struct schema *s, const json_t *v, uint32_t *of, uint32_t *digits)
{
    char text[DECIMAL_MAX];
    uint64_t m = 0;
    *digits = 0;
    if (!json_is_number(v) || json_number_value(v) <= 0) {
        schema_fail(s, ERR_FORMAT, "multipleOf", "has to be a number above 0");
        return false;
    }
    bool ok = decimal(v, text), behind = false;
    size_t n = ok ? strlen(text) : 0;
    while (ok && strchr(text, '.') && (text[n - 1] == '0' || text[n - 1] == '.'))
        if (text[--n] == '.')
            break;
    for (size_t i = 0; i < n && m < MULTIPLE_MAX; i++)
        if (text[i] == '.') {
            behind = true;
        } else {
            m = 10 * m + (uint64_t)(text[i] - '0');
            *digits += behind;
        }
    *of = (uint32_t)m;
    if (ok && m && m * (*digits + 1) < MULTIPLE_MAX)
        return true;
    schema_fail(s, ERR_UNSUPPORTED, "multipleOf", "has too many digits");
    return false;
}

/*
 * Multiples, as an automaton over digits: state 1 + j × m + r has read j digits behind the point
 * (those past the last that counts have to be 0), and r is what it has read modulo m.
 */
static struct gx *multiples(struct schema *s, const json_t *v)
{
    enum { OTHER, MINUS, POINT, DIGIT };
    uint32_t m, k;
    struct gbuild *b = s->b;
    struct gdfa *d = gbuild_alloc(b, 1, sizeof *d);
    if (!d || !read_multiple(s, v, &m, &k))
        return NULL;
    uint32_t rows = k + 1; /* behind the point, and the row in front of it */
    d->classes = DIGIT + 10;
    d->n = 1 + m * (rows + 1);
    d->to = gbuild_alloc(b, (size_t)d->n * d->classes, sizeof *d->to);
    uint32_t *what = gbuild_alloc(b, d->n, sizeof *what);
    if (b->code)
        return NULL;
    memset(d->class, OTHER, sizeof d->class);
    d->class['-'] = MINUS;
    d->class['.'] = POINT;
    for (unsigned c = 0; c < 10; c++)
        d->class['0' + c] = (uint8_t)(DIGIT + c);
    for (uint32_t row = 0; row <= rows; row++) { /* 0: in front of the point; else row - 1 digits */
        uint64_t scale = 1;
        for (uint32_t i = row ? row - 1 : 0; i < k; i++)
            scale *= 10;
        for (uint32_t r = 0; r < m; r++) {
            uint32_t q = 1 + row * m + r, *to = d->to + (size_t)q * d->classes;
            bool last = row == rows;
            for (unsigned c = 0; c < 10; c++)
                to[DIGIT + c] = last ? (c ? 0 : q) : 1 + (row ? row + 1 : 0) * m + (10 * r + c) % m;
            to[MINUS] = !row && !r ? q : 0;
            to[POINT] = row ? 0 : 1 + m + r;
            what[q] = r * scale % m == 0;
        }
    }
    gdfa_minimize(b, d, what);
    struct gx **then = gbuild_alloc(b, 1, sizeof(struct gx *));
    if (then)
        then[0] = gx_empty(b);
    return then ? gx_dfa(b, d, what, then, 1) : NULL;
}

/* Texts that are in the first set and the next `also`, and in none of the others. */
static struct gx *joined(struct schema *s, struct glang *l, size_t n, size_t also)
{
    struct gdfa *d = schema_join(s, l, n);
    uint32_t *what = d ? gbuild_alloc(s->b, d->n, sizeof *what) : NULL;
    struct gx **then = gbuild_alloc(s->b, 1, sizeof(struct gx *));
    for (size_t i = 0; i < n; i++)
        glang_release(&l[i]);
    if (!what || !then)
        return NULL;
    for (uint32_t q = 0; q < d->n; q++)
        what[q] = d->label[q] == (2u << also) - 1;
    gdfa_minimize(s->b, d, what);
    then[0] = gx_empty(s->b);
    return gx_dfa(s->b, d, what, then, 1);
}

/* The same set, by an automaton with as few states as can be: what it is joined with multiplies
   them. */
static void fewest(struct schema *s, struct glang *l)
{
    struct gbuild own, *b = s->b;
    struct err e = {0};
    struct gdfa *d = schema_join(s, l, 1);
    uint32_t *what = d ? gbuild_alloc(b, d->n, sizeof *what) : NULL;
    struct gx *end = NULL;
    if (!what)
        return;
    for (uint32_t q = 0; q < d->n; q++)
        what[q] = d->label[q];
    gdfa_minimize(b, d, what);
    if (gbuild_init(&own, &e)) {
        gbuild_fail(b, e.code, "%s", e.text);
        return;
    }
    glang_release(l);
    end = gx_empty(&own);
    glang_make(b, &own, gx_dfa(&own, d, what, &end, 1), l);
}

struct gx *schema_number(struct schema *s, const json_t *o, bool real)
{
    const json_t *multiple = json_object_get(o, "multipleOf"), *v,
                 *except = json_object_get(o, SCHEMA_EXCEPT);
    struct glang l[3] = {{.g = NULL}};
    size_t n = 0, i, also = multiple != NULL;
    bool excepts = false;
    json_array_foreach(except, i, v) excepts |= json_is_number(v);
    if (!multiple && !excepts)
        return number_within(s, o, real, false);
    schema_language(s, o, real ? plain_real : plain_integer, &l[n++]);
    fewest(s, &l[0]);
    if (multiple)
        schema_language(s, multiple, multiples, &l[n++]);
    if (excepts)
        schema_language(s, except, these_numbers, &l[n++]);
    return joined(s, l, n, also);
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

/* A character as patterns have it: written one way only, so that sets of texts can be joined. */
static struct gx *one_way_char(struct schema *s)
{
    struct gset all = {.n = 0};
    gset_add(s->b, &all, 1, 0x10ffff);
    return gjson_class(s->j, &all);
}

/* Strings of that many characters. */
static struct gx *strings_of_length(struct schema *s, const json_t *o)
{
    uint32_t min = count(s, o, "minLength", 0), max = count(s, o, "maxLength", GRAMMAR_INF);
    return quoted(s, gx_rep(s->b, one_way_char(s), min, max));
}

/* Strings of a pattern, or of a format. */
static struct gx *strings_like(struct schema *s, const json_t *o)
{
    const json_t *re = json_object_get(o, "pattern"), *format = json_object_get(o, "format");
    if (re)
        return quoted(s, pattern(s, re));
    struct gx *x = json_is_string(format) ? gformat(s->j, json_string_value(format)) : NULL;
    if (!x && !s->b->code)
        return schema_fail(
            s, ERR_UNSUPPORTED, "format",
            "\"%.40s\" is none of date, time, date-time, duration, uuid, email, hostname, ipv4, "
            "ipv6, uri, uri-reference, iri, json-pointer, byte, binary, password",
            json_is_string(format) ? json_string_value(format) : "");
    return quoted(s, x);
}

/* The strings of a list. */
static struct gx *these_strings(struct schema *s, const json_t *list)
{
    const json_t *v;
    size_t i, n = 0;
    struct gword *w = gbuild_alloc(s->b, json_array_size(list) + 1, sizeof *w);
    if (!w)
        return NULL;
    json_array_foreach(list, i, v) if (json_is_string(v)) w[n++] =
        gjson_quoted(s->b, json_string_value(v), json_string_length(v));
    return gx_words(s->b, w, n);
}

struct gx *schema_string(struct schema *s, const json_t *o)
{
    static const char *const likes[] = {"pattern", "format"};
    const json_t *also = json_object_get(o, SCHEMA_ALSO), *v,
                 *unlike = json_object_get(o, SCHEMA_UNLIKE),
                 *except = json_object_get(o, SCHEMA_EXCEPT);
    bool counted = json_object_get(o, "minLength") || json_object_get(o, "maxLength");
    bool like = json_object_get(o, "pattern") || json_object_get(o, "format");
    bool both = json_object_get(o, "pattern") && json_object_get(o, "format");
    bool excepts = false;
    size_t n = 0, k = 0, i;
    json_array_foreach(except, i, v) excepts |= json_is_string(v);
    if (!like && !unlike && !excepts)
        return !counted ? gjson_string(s->j)
                        : quoted(s, gx_rep(s->b, gjson_char(s->j), count(s, o, "minLength", 0),
                                           count(s, o, "maxLength", GRAMMAR_INF)));
    if (!counted && !also && !unlike && !excepts && !both)
        return strings_like(s, o);
    struct glang l[GDFA_SETS_MAX + 2];
    memset(l, 0, sizeof l);
    schema_language(s, o, strings_of_length, &l[n++]);
    for (i = 0; i < 2; i++) {
        json_t *one = json_pack("{s:O*}", likes[i], json_object_get(o, likes[i]));
        if (json_object_size(one) && ++k)
            schema_language(s, one, strings_like, &l[n++]);
        json_decref(one);
    }
    json_array_foreach(also, i, v)
    {
        if (n <= GDFA_SETS_MAX && ++k)
            schema_language(s, v, strings_like, &l[n++]);
    }
    json_array_foreach(unlike, i, v)
    {
        if (n <= GDFA_SETS_MAX)
            schema_language(s, v, strings_like, &l[n++]);
    }
    if (excepts && n <= GDFA_SETS_MAX)
        schema_language(s, except, these_strings, &l[n++]);
    return joined(s, l, n, k);
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
    const json_t *contains = json_object_get(o, "contains");
    bool unique = json_is_true(json_object_get(o, "uniqueItems")) && max > 1;
    if (unique && (k || contains))
        return schema_fail(s, ERR_UNSUPPORTED, "uniqueItems",
                           "is not supported beside prefixItems and contains");
    if (unique)
        return schema_unique(s, items, min, max);
    if (contains && k)
        return schema_fail(s, ERR_UNSUPPORTED, "contains", "is not supported beside prefixItems");
    if (contains)
        return schema_contains(
            s, items, contains,
            (struct grange){count(s, o, "minContains", 1), count(s, o, "maxContains", GRAMMAR_INF)},
            (struct grange){min, max});
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

/* A member that is not listed, where nothing but additionalProperties speaks of it. */
static struct gx *other_member(struct schema *s, const json_t *more, const char **key, size_t n)
{
    struct gx *name;
    if (n) {
        qsort(key, n, sizeof *key, by_text);
        uint32_t rule = gbuild_rule(s->b, "characters", 10);
        gbuild_define(s->b, rule, any_chars(s));
        name = quoted(s, no_key(s, key, n, 0, gx_call(s->b, rule), 0));
    } else {
        name = gjson_string(s->j);
    }
    size_t before = schema_enter(s, "additionalProperties");
    struct gx *value = more ? schema_compile(s, more) : gjson_value(s->j);
    schema_leave(s, before);
    return GX_SEQ(s->b, name, gjson_colon(s->j), value);
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
static bool list_members(struct schema *s, const json_t *o, struct names *names, struct members *l)
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
        json_t *value = names ? names_value(names, key, v) : json_incref(v);
        l->key[l->n] = key;
        l->m[l->n++] = (struct gmember){member(s, key, schema_compile(s, value)), needed};
        json_decref(value);
        schema_leave(s, here);
    }
    schema_leave(s, before);
    json_array_foreach(required, i, name) /* in the order of the list, each once */
    {
        if (s->b->code || json_object_del(must, json_string_value(name)) != 0)
            continue;
        key = json_string_value(name);
        before = schema_enter(s, "additionalProperties");
        json_t *value = names  ? names_value(names, key, NULL)
                        : more ? json_incref((json_t *)(uintptr_t)more)
                               : json_true();
        struct gx *x = schema_compile(s, value);
        json_decref(value);
        schema_leave(s, before);
        l->key[l->n] = key;
        l->m[l->n++] = (struct gmember){member(s, key, x), true};
    }
    json_decref(must);
    return !s->b->code;
}

/*
 * From member i on, with c of them so far: rules, so that each member is built once. Members that
 * are not listed may repeat a name, so together they count as one towards the least, and each
 * towards the most.
 */
static struct gx *counted_members(struct schema *s, const struct members *l, struct gx *others,
                                  uint32_t min, uint32_t max)
{
    struct gbuild *b = s->b;
    size_t n = l->n;
    uint32_t most = max < n ? max : (uint32_t)n; /* of listed ones */
    struct gx *space = gjson_space(s->j), *comma = GX_SEQ(b, gx_text(b, ","), space);
    if ((n + 1) * (most + 2) > COUNTED_MAX)
        return schema_fail(s, ERR_LIMIT, max < n ? "maxProperties" : "minProperties",
                           "with so many properties is not supported");
    uint32_t *at = gbuild_alloc(b, (n + 1) * (most + 1), sizeof *at),
             *one = gbuild_alloc(b, n + 1, sizeof *one);
    for (size_t i = 0; i <= n && !b->code; i++) {
        one[i] = gbuild_rule(b, "member", 6);
        gbuild_define(b, one[i], i < n ? l->m[i].x : others ? others : gx_never(b));
    }
    for (size_t i = n + 1; i-- > 0 && !b->code;)
        for (uint32_t c = 0; c <= most && !b->code; c++) {
            struct gxs to = {.n = 0};
            struct gx *before = c ? comma : gx_empty(b);
            at[i * (most + 1) + c] = gbuild_rule(b, "members", 7);
            if (i < n && c < most)
                gxs_add(b, &to,
                        GX_SEQ(b, before, gx_call(b, one[i]),
                               gx_call(b, at[(i + 1) * (most + 1) + c + 1])));
            if (i < n && !l->m[i].required)
                gxs_add(b, &to, gx_call(b, at[(i + 1) * (most + 1) + c]));
            if (i == n && c >= min)
                gxs_add(b, &to, gx_empty(b));
            if (i == n && others && c < max && c + 1 >= min)
                gxs_add(b, &to,
                        GX_SEQ(b, before, gx_call(b, one[n]),
                               gx_rep(b, GX_SEQ(b, comma, gx_call(b, one[n])), 0,
                                      max == GRAMMAR_INF ? max : max - c - 1)));
            gbuild_define(b, at[i * (most + 1) + c], gx_alt(b, to.v, to.n));
        }
    return b->code ? NULL
                   : GX_SEQ(b, gx_text(b, "{"), space, gx_call(b, at[0]), space, gx_text(b, "}"));
}

static struct gx *object_of(struct schema *s, const json_t *o, struct names *names)
{
    struct gbuild *b = s->b;
    const json_t *more = json_object_get(o, "additionalProperties");
    uint32_t min = count(s, o, "minProperties", 0), max = count(s, o, "maxProperties", GRAMMAR_INF);
    struct members l = {.n = 0};
    struct gx *others = NULL;
    if (!list_members(s, o, names, &l))
        return NULL;
    if (!l.n && !more && !names && !min && max == GRAMMAR_INF)
        return gjson_object(s->j);
    if (names)
        others = !more || !json_is_false(more) || json_object_get(o, "patternProperties")
                     ? (!more && l.n && !json_object_get(o, "patternProperties")
                            ? NULL
                            : names_others(names, l.key, l.n))
                     : NULL;
    else if (more ? !json_is_false(more) : !l.n)
        others = other_member(s, more, l.key, l.n);
    if (b->code)
        return NULL;
    struct gx *space = gjson_space(s->j), *comma = GX_SEQ(b, gx_text(b, ","), space);
    if (!min && max == GRAMMAR_INF)
        return gx_members(b, l.m, l.n, others, comma, space);
    return counted_members(s, &l, others, min, max);
}

struct gx *schema_object(struct schema *s, const json_t *o)
{
    const json_t *names = json_object_get(o, "propertyNames");
    bool plain = !names || json_is_true(names) ||
                 (json_object_size(names) <= 1 &&
                  json_object_size(names) == (json_object_get(names, "type") != NULL));
    if (plain && !json_object_get(o, "patternProperties"))
        return object_of(s, o, NULL);
    struct names *n = names_new(s, o);
    struct gx *x = n && !s->b->code ? object_of(s, o, n) : NULL;
    names_free(n);
    return x;
}
