/*
 * Names of an object's members, where patternProperties or propertyNames speak of them.
 *
 * Each pattern is a set of names, and so are those that propertyNames allows and those that are
 * listed. Together they part all names into kinds, by which of the sets have them: one automaton
 * reads a name and knows its kind at the closing quote, and with it the schema of the value: all
 * that the patterns of the kind ask for, or where no pattern has the name, additionalProperties.
 */
#include "text/grammar_schema.h"

#include "base/num.h"

#include <string.h>

enum { KINDS_MAX = 64, PATTERNS_MAX = 24 };

struct names {
    struct schema *s;
    const json_t *o;
    struct glang lang[PATTERNS_MAX];
    const json_t *value[PATTERNS_MAX];
    size_t n;
    bool has_allowed;
    struct glang allowed; /* by propertyNames */
};

static struct gx *pattern_names(struct schema *s, const json_t *o)
{
    return schema_string(s, o);
}

struct names *names_new(struct schema *s, const json_t *o)
{
    const json_t *patterns = json_object_get(o, "patternProperties"),
                 *allowed = json_object_get(o, "propertyNames");
    const char *key;
    json_t *v;
    struct names *n = gbuild_alloc(s->b, 1, sizeof *n);
    if (!n)
        return NULL;
    n->s = s;
    n->o = o;
    if (json_object_size(patterns) > PATTERNS_MAX) {
        schema_fail(s, ERR_LIMIT, "patternProperties", "has more than %d patterns", PATTERNS_MAX);
        return n;
    }
    size_t before = schema_enter(s, "patternProperties");
    json_object_foreach((json_t *)(uintptr_t)patterns, key, v)
    {
        json_t *like = json_pack("{s:s,s:s}", "type", "string", "pattern", key);
        n->value[n->n] = v;
        if (schema_language(s, like, pattern_names, &n->lang[n->n]))
            n->n++;
        json_decref(like);
    }
    schema_leave(s, before);
    if (allowed && !s->b->code) {
        json_t *string = json_pack("{s:s}", "type", "string");
        json_t *flat = schema_flat(s, allowed), *both = flat ? schema_merge(s, flat, string) : NULL;
        before = schema_enter(s, "propertyNames");
        n->has_allowed = true;
        if (both)
            schema_language(s, both, schema_compile, &n->allowed);
        schema_leave(s, before);
        json_decref(string);
        json_decref(flat);
        json_decref(both);
    }
    return n;
}

void names_free(struct names *n)
{
    for (size_t i = 0; n && i < n->n; i++)
        glang_release(&n->lang[i]);
    if (n)
        glang_release(&n->allowed);
}

static json_t *with(struct schema *s, json_t *sum, const json_t *more)
{
    json_t *x = sum ? schema_flat(s, sum) : NULL, *y = x ? schema_flat(s, more) : NULL;
    json_t *out = y ? schema_merge(s, x, y) : NULL;
    json_decref(sum);
    json_decref(x);
    json_decref(y);
    return out ? out : json_false();
}

/* Of a name that these patterns have. */
static json_t *value_of(struct names *n, uint32_t patterns, const json_t *own)
{
    const json_t *more = json_object_get(n->o, "additionalProperties");
    json_t *sum = own ? json_incref((json_t *)(uintptr_t)own) : NULL;
    if (!patterns && !own)
        return more ? json_incref((json_t *)(uintptr_t)more) : json_true();
    for (size_t i = 0; i < n->n; i++)
        if (patterns >> i & 1)
            sum =
                sum ? with(n->s, sum, n->value[i]) : json_incref((json_t *)(uintptr_t)n->value[i]);
    return sum;
}

json_t *names_value(struct names *n, const char *key, const json_t *own)
{
    struct gbuild *b = n->s->b;
    struct gword w = gjson_quoted(b, key, strlen(key));
    uint32_t patterns = 0;
    for (size_t i = 0; i < n->n; i++)
        patterns |= glang_has(b, &n->lang[i], w.s, w.n) ? 1u << i : 0;
    if (n->has_allowed && !glang_has(b, &n->allowed, w.s, w.n))
        return json_false();
    return value_of(n, patterns, own);
}

/* All names, and those that are listed. */
static struct gx *all_names(struct schema *s, const json_t *o)
{
    (void)o;
    json_t *any = json_pack("{s:s,s:s}", "type", "string", "pattern", "");
    struct gx *x = schema_string(s, any);
    json_decref(any);
    return x;
}

static struct gx *listed_names(struct schema *s, const json_t *list)
{
    const json_t *v;
    size_t i;
    struct gword *w = gbuild_alloc(s->b, json_array_size(list) + 1, sizeof *w);
    if (!w)
        return NULL;
    json_array_foreach(list, i, v) w[i] =
        gjson_quoted(s->b, json_string_value(v), json_string_length(v));
    return gx_words(s->b, w, json_array_size(list));
}

/* Colon and value behind names of each kind; what[q] becomes the kind + 1. */
static size_t find_kinds(struct names *n, const struct gdfa *d, uint32_t *what, struct gx **then)
{
    struct schema *s = n->s;
    uint32_t kind[KINDS_MAX], allowed = 1u << (n->n + 2);
    size_t kinds = 0;
    for (uint32_t q = 0; q < d->n && !s->b->code; q++) {
        uint32_t label = d->label[q], patterns = label >> 1 & ((1u << n->n) - 1);
        if (!(label & 1) || label >> (n->n + 1) & 1 || (n->has_allowed && !(label & allowed)))
            continue; /* no name, a listed one, one that may not be */
        if (!patterns && json_object_get(n->o, "patternProperties") &&
            !json_object_get(n->o, "additionalProperties"))
            continue; /* as with properties: what is not said is not there */
        size_t i = 0;
        while (i < kinds && kind[i] != patterns)
            i++;
        if (i == KINDS_MAX) {
            schema_fail(s, ERR_LIMIT, "patternProperties",
                        "has patterns that meet in more than %d ways", KINDS_MAX);
            return 0;
        }
        if (i == kinds) {
            json_t *value = value_of(n, patterns, NULL);
            size_t before =
                schema_enter(s, patterns ? "patternProperties" : "additionalProperties");
            kind[kinds] = patterns;
            then[kinds++] = GX_SEQ(s->b, gjson_colon(s->j), schema_compile(s, value));
            schema_leave(s, before);
            json_decref(value);
        }
        what[q] = (uint32_t)i + 1;
    }
    return kinds;
}

struct gx *names_others(struct names *n, const char **key, size_t n_key)
{
    struct gbuild *b = n->s->b;
    struct glang l[PATTERNS_MAX + 3];
    json_t *list = json_array();
    for (size_t i = 0; i < n_key; i++)
        json_array_append_new(list, json_string(key[i]));
    memset(l, 0, sizeof l);
    schema_language(n->s, list, all_names, &l[0]);
    memcpy(l + 1, n->lang, n->n * sizeof *l);
    schema_language(n->s, list, listed_names, &l[n->n + 1]);
    l[n->n + 2] = n->allowed;
    struct gdfa *d = schema_join(n->s, l, n->n + 3);
    uint32_t *what = d ? gbuild_alloc(b, d->n, sizeof *what) : NULL;
    struct gx **then = gbuild_alloc(b, KINDS_MAX, sizeof(struct gx *));
    size_t kinds = what && then ? find_kinds(n, d, what, then) : 0;
    glang_release(&l[0]);
    glang_release(&l[n->n + 1]);
    json_decref(list);
    return b->code ? NULL : kinds ? gx_dfa(b, d, what, then, kinds) : gx_never(b);
}
