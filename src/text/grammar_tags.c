/*
 * Structural tags: texts of which parts have a form, as vLLM and SGLang take them in
 * response_format (the notation is XGrammar's, in both of its versions).
 *
 *   {"structures": [{"begin", "schema", "end"}, …], "triggers": [text, …]}        the first one
 *   {"format": FORMAT}, where a FORMAT has a type:
 *     const_string    value                             json_schema  json_schema
 *     regex           pattern                           grammar      grammar (GBNF)
 *     any_text        excludes                          sequence     elements, one after another
 *     or              elements, one of them             optional, plus, star, repeat   content
 *     tag             begin, content, end (one, or one of several)
 *     triggered_tags  triggers, tags, excludes: free text in which a trigger begins a tag;
 *                     at_least_one: begins with a tag; stop_after_first: ends behind the first
 *     tags_with_separator  tags, separator, at_least_one, stop_after_first
 *
 * Free text inside of a tag ends where one of the tag's ends begins: FORMATs that end in free text
 * are therefore built together with what ends them.
 */
#include "text/grammar_impl.h"

#include <string.h>

enum { TAGS_DEPTH = 64, TAGS_MAX = 1024, STOPS_MAX = 256, REPEAT_MAX = 1 << 20 };

struct tags {
    struct gbuild *b;
    struct gjson *j;
    int depth;
    const char *kind; /* of the format that is being built, for messages */
};

/* What ends a text: one of these words; n = 0: its own end. */
struct ends {
    struct gword w[STOPS_MAX];
    size_t n;
};

static struct gx *format(struct tags *t, const json_t *v, const struct ends *ends);

static struct gx *fail(struct tags *t, const char *key, const char *what)
{
    return gbuild_fail(t->b, ERR_FORMAT, "a structural tag's %s: \"%s\" %s", t->kind, key, what);
}

/* The words of a list of strings, or of one string. `empty`: may be "". */
static bool words(struct tags *t, const json_t *v, const char *key, bool empty, struct ends *out)
{
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > STOPS_MAX)
        fail(t, key, "has too many members");
    for (size_t i = 0; i < n && !t->b->code; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s) || (!empty && !json_string_length(s)))
            fail(t, key, "must be texts");
        else
            out->w[out->n++] = (struct gword){json_string_value(s), json_string_length(s)};
    }
    return !t->b->code;
}

static bool flag(const json_t *v, const char *key)
{
    return json_is_true(json_object_get(v, key));
}

/* One of the ends. */
static struct gx *end_of(struct tags *t, const struct ends *ends)
{
    struct gxs l = {.n = 0};
    if (!ends->n)
        return gx_empty(t->b);
    for (size_t i = 0; i < ends->n; i++)
        gxs_add(t->b, &l, gx_mark(t->b, ends->w[i].s, ends->w[i].n));
    return gx_alt(t->b, l.v, l.n);
}

static struct gx *ended(struct tags *t, struct gx *x, const struct ends *ends)
{
    return ends->n ? GX_SEQ(t->b, x, end_of(t, ends)) : x;
}

/* ---- free text ------------------------------------------------------------------------------ */

/* The stops of free text: ends, which end it, and words that may not come. */
static size_t text_stops(struct tags *t, const json_t *v, const struct ends *ends,
                         struct gstop *stop)
{
    size_t n = 0;
    struct ends never;
    never.n = 0;
    const json_t *excludes = json_object_get(v, "excludes");
    if (excludes && !words(t, excludes, "excludes", false, &never))
        return 0;
    for (size_t i = 0; i < ends->n; i++) {
        if (!ends->w[i].n)
            fail(t, "end", "must not be empty behind free text");
        stop[n++] = (struct gstop){ends->w[i].s, ends->w[i].n, gx_empty(t->b)};
    }
    for (size_t i = 0; i < never.n; i++)
        stop[n++] = (struct gstop){never.w[i].s, never.w[i].n, NULL};
    return n;
}

static struct gx *any_text(struct tags *t, const json_t *v, const struct ends *ends)
{
    struct gstop *stop = gbuild_alloc(t->b, 2 * STOPS_MAX, sizeof *stop);
    size_t n = stop ? text_stops(t, v, ends, stop) : 0;
    return t->b->code ? NULL : gx_until_any(t->b, stop, n, !ends->n);
}

/* ---- tags ----------------------------------------------------------------------------------- */

/* {"begin", "content", "end"}, whose first `skip` bytes were read. */
static struct gx *tag(struct tags *t, const json_t *v, size_t skip)
{
    const json_t *begin = json_object_get(v, "begin"), *end = json_object_get(v, "end");
    const json_t *content = json_object_get(v, "content"), *type = json_object_get(v, "type");
    struct ends *own = gbuild_alloc(t->b, 1, sizeof *own);
    t->kind = "tag";
    if (!own)
        return NULL;
    if (!json_is_object(v) ||
        (type && strcmp(json_string_value(type) ? json_string_value(type) : "", "tag") != 0))
        return fail(t, "tags", "must be objects of type \"tag\"");
    if (!json_is_string(begin))
        return fail(t, "begin", "must be a text");
    if (!words(t, end, "end", true, own))
        return NULL;
    struct gx *open =
        gx_mark(t->b, json_string_value(begin) + skip, json_string_length(begin) - skip);
    const json_t *schema = json_object_get(v, "schema"); /* of the first version */
    if (!content && schema)
        return GX_SEQ(
            t->b, open,
            ended(t, gform(t->j, &(struct grammar_form){.kind = GRAMMAR_SCHEMA, .json = schema}),
                  own));
    return GX_SEQ(t->b, open, format(t, content, own));
}

static bool tag_list(struct tags *t, const json_t *list)
{
    if (!json_is_array(list) || !json_array_size(list) || json_array_size(list) > TAGS_MAX)
        fail(t, "tags", "must be a list of tags");
    return !t->b->code;
}

/* The tags, whole. */
static struct gx *any_tag(struct tags *t, const json_t *list)
{
    struct gxs l = {.n = 0};
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v) gxs_add(t->b, &l, tag(t, v, 0));
    return gx_alt(t->b, l.v, l.n);
}

/* Those that begin with the trigger, which was read. */
static struct gx *triggered(struct tags *t, const json_t *list, struct gword trigger)
{
    struct gxs l = {.n = 0};
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        const json_t *begin = json_object_get(v, "begin");
        if (json_string_length(begin) >= trigger.n &&
            !memcmp(json_string_value(begin), trigger.s, trigger.n))
            gxs_add(t->b, &l, tag(t, v, trigger.n));
    }
    return l.n ? gx_alt(t->b, l.v, l.n) : fail(t, "triggers", "has one with which no tag begins");
}

/* Does each tag begin with a trigger? */
static bool all_triggered(struct tags *t, const json_t *list, const struct ends *triggers)
{
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        const json_t *begin = json_object_get(v, "begin");
        size_t n = 0;
        for (size_t k = 0; k < triggers->n && json_is_string(begin); k++)
            n += json_string_length(begin) >= triggers->w[k].n &&
                 !memcmp(json_string_value(begin), triggers->w[k].s, triggers->w[k].n);
        if (n != 1)
            fail(t, "tags", "must have tags that begin with exactly one of the triggers");
    }
    return !t->b->code;
}

static struct gx *triggered_tags(struct tags *t, const json_t *v, const json_t *list,
                                 const struct ends *ends)
{
    bool once = flag(v, "stop_after_first"), least = flag(v, "at_least_one");
    struct ends *triggers = gbuild_alloc(t->b, 1, sizeof *triggers);
    struct gstop *stop = gbuild_alloc(t->b, 3 * STOPS_MAX, sizeof *stop);
    if (!triggers || !stop || !tag_list(t, list) ||
        !words(t, json_object_get(v, "triggers"), "triggers", false, triggers) ||
        !all_triggered(t, list, triggers))
        return NULL;
    if (once && least)
        return ended(t, any_tag(t, list), ends);
    size_t n = text_stops(t, v, ends, stop);
    uint32_t rule = gbuild_rule(t->b, "text and tags", 13); /* to its end, with what ends it */
    for (size_t i = 0; i < triggers->n && !t->b->code; i++) {
        struct gx *rest = triggered(t, list, triggers->w[i]);
        t->kind = "triggered_tags";
        stop[n++] =
            (struct gstop){triggers->w[i].s, triggers->w[i].n,
                           once ? ended(t, rest, ends) : GX_SEQ(t->b, rest, gx_call(t->b, rule))};
    }
    if (t->b->code)
        return NULL;
    gbuild_define(t->b, rule, gx_until_any(t->b, stop, n, !ends->n));
    return least ? GX_SEQ(t->b, any_tag(t, list), gx_call(t->b, rule)) : gx_call(t->b, rule);
}

static struct gx *separated_tags(struct tags *t, const json_t *v, const json_t *list,
                                 const struct ends *ends)
{
    bool once = flag(v, "stop_after_first"), least = flag(v, "at_least_one");
    const json_t *separator = json_object_get(v, "separator");
    if (!tag_list(t, list))
        return NULL;
    if (!json_is_string(separator))
        return fail(t, "separator", "must be a text");
    uint32_t rule = gbuild_rule(t->b, "tag", 3);
    gbuild_define(t->b, rule, any_tag(t, list));
    struct gx *one = gx_call(t->b, rule);
    struct gx *more =
        GX_SEQ(t->b, gx_mark(t->b, json_string_value(separator), json_string_length(separator)),
               gx_call(t->b, rule));
    struct gx *all = once ? one : GX_SEQ(t->b, one, gx_rep(t->b, more, 0, GRAMMAR_INF));
    return ended(t, least ? all : gx_opt(t->b, all), ends);
}

/* ---- formats -------------------------------------------------------------------------------- */

/* Elements: the last one ends with all of them. */
static struct gx *elements(struct tags *t, const json_t *v, bool sequence, const struct ends *ends)
{
    static const struct ends none;
    const json_t *list = json_object_get(v, "elements"), *one;
    struct gxs l = {.n = 0};
    size_t i, n = json_array_size(list);
    if (!n || n > TAGS_MAX)
        return fail(t, "elements", "must be a list of formats");
    json_array_foreach(list, i, one)
    {
        gxs_add(t->b, &l, format(t, one, sequence && i + 1 < n ? &none : ends));
        if (t->b->code)
            return NULL;
    }
    return sequence ? gx_seq(t->b, l.v, l.n) : gx_alt(t->b, l.v, l.n);
}

static struct gx *repeated(struct tags *t, const json_t *v, uint32_t min, uint32_t max)
{
    static const struct ends none;
    uint32_t rule = gbuild_rule(t->b, "content", 7);
    gbuild_define(t->b, rule, format(t, json_object_get(v, "content"), &none));
    return gx_rep(t->b, gx_call(t->b, rule), min, max);
}

static struct gx *repeat(struct tags *t, const json_t *v)
{
    const json_t *min = json_object_get(v, "min"), *max = json_object_get(v, "max");
    json_int_t lo = json_integer_value(min), hi = max ? json_integer_value(max) : -1;
    if ((min && !json_is_integer(min)) || (max && !json_is_integer(max)) || lo < 0 ||
        lo > REPEAT_MAX || hi > REPEAT_MAX || (hi >= 0 && hi < lo))
        return fail(t, "min", "and max must be whole numbers, in order");
    return repeated(t, v, (uint32_t)lo, hi < 0 ? GRAMMAR_INF : (uint32_t)hi);
}

/* Formats that have nothing to do with what ends them. */
static struct gx *closed(struct tags *t, const char *type, const json_t *v)
{
    const json_t *text = json_object_get(v, !strcmp(type, "const_string") ? "value"
                                            : !strcmp(type, "regex")      ? "pattern"
                                                                          : "grammar");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    const json_t *style = json_object_get(v, "style");
    if (!strcmp(type, "json_schema")) {
        const char *how = json_string_value(style);
        if (style && (!how || strcmp(how, "json") != 0))
            return fail(t, "style", "is supported only as \"json\"");
        const json_t *schema = json_object_get(v, "json_schema");
        return schema ? gform(t->j, &(struct grammar_form){.kind = GRAMMAR_SCHEMA, .json = schema})
                      : fail(t, "json_schema", "is missing");
    }
    if (!strcmp(type, "tag"))
        return tag(t, v, 0);
    if (!strcmp(type, "optional"))
        return repeated(t, v, 0, 1);
    if (!strcmp(type, "plus"))
        return repeated(t, v, 1, GRAMMAR_INF);
    if (!strcmp(type, "star"))
        return repeated(t, v, 0, GRAMMAR_INF);
    if (!strcmp(type, "repeat"))
        return repeat(t, v);
    bool constant = !strcmp(type, "const_string"), regex = !strcmp(type, "regex");
    if (!constant && !regex && strcmp(type, "grammar") != 0)
        return gbuild_fail(t->b, ERR_UNSUPPORTED,
                           "a structural tag's format of type \"%.60s\" is not supported", type);
    if (!s)
        return fail(t, constant ? "value" : regex ? "pattern" : "grammar", "must be a text");
    return constant ? gx_mark(t->b, s, n)
           : regex  ? gregex(t->b, s, n, NULL, true)
                    : ggbnf(t->b, s, n);
}

static struct gx *open_format(struct tags *t, const char *type, const json_t *v,
                              const struct ends *ends)
{
    if (!strcmp(type, "any_text"))
        return any_text(t, v, ends);
    if (!strcmp(type, "sequence") || !strcmp(type, "or"))
        return elements(t, v, *type == 's', ends);
    if (!strcmp(type, "triggered_tags"))
        return triggered_tags(t, v, json_object_get(v, "tags"), ends);
    if (!strcmp(type, "tags_with_separator"))
        return separated_tags(t, v, json_object_get(v, "tags"), ends);
    return ended(t, closed(t, type, v), ends);
}

/* With what ends it. */
static struct gx *format(struct tags *t, const json_t *v, const struct ends *ends)
{
    const char *type = json_string_value(json_object_get(v, "type"));
    if (t->b->code)
        return NULL;
    if (!type)
        return fail(t, "type", "is missing");
    if (++t->depth > TAGS_DEPTH)
        return gbuild_fail(t->b, ERR_LIMIT, "a structural tag nests deeper than %d levels",
                           TAGS_DEPTH);
    t->kind = type;
    struct gx *x = open_format(t, type, v, ends);
    t->depth--;
    return x;
}

struct gx *gtags(struct gjson *j, const json_t *v)
{
    static const struct ends none;
    struct tags t = {.b = j->b, .j = j, .kind = "format"};
    const json_t *structures = json_object_get(v, "structures");
    if (!json_is_object(v))
        return gbuild_fail(j->b, ERR_FORMAT, "a structural tag must be an object");
    if (structures)
        return triggered_tags(&t, v, structures, &none);
    return json_object_get(v, "format") ? format(&t, json_object_get(v, "format"), &none)
                                        : fail(&t, "format", "is missing");
}
