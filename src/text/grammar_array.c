/*
 * Lists whose items know of each other: uniqueItems where the values are listed, and contains. Both
 * are rules for what a list has had so far: which of the values, or how many items that count.
 */
#include "text/grammar_schema.h"

#include "base/num.h"

enum { UNIQUE_MAX = 10, STATES_MAX = 20000 };

static struct gx *brackets(struct schema *s, uint32_t first)
{
    struct gx *space = gjson_space(s->j);
    return GX_SEQ(s->b, gx_text(s->b, "["), space, gx_call(s->b, first), space, gx_text(s->b, "]"));
}

static struct gx *comma(struct schema *s)
{
    return GX_SEQ(s->b, gx_text(s->b, ","), gjson_space(s->j));
}

/* The schema of items with `more` (taken); new reference. */
static json_t *items_with(struct schema *s, const json_t *items, json_t *more)
{
    json_t *flat = schema_flat(s, items), *out = flat ? schema_merge(s, flat, more) : NULL;
    json_decref(flat);
    json_decref(more);
    return out ? out : json_false();
}

static uint32_t item_rule(struct schema *s, json_t *schema)
{
    uint32_t rule = gbuild_rule(s->b, "item", 4);
    gbuild_define(s->b, rule, schema_compile(s, schema));
    json_decref(schema);
    return rule;
}

/* The values that items have, each once; NULL: they are not listed. */
static json_t *listed_values(struct schema *s, const json_t *items)
{
    json_t *flat = schema_flat(s, items), *list = NULL, *v, *w;
    const json_t *one = json_object_get(flat, "const"), *all = json_object_get(flat, "enum");
    size_t i, k;
    if (one) {
        list = json_pack("[O]", one);
    } else if (json_is_array(all)) {
        list = json_array();
        json_array_foreach((json_t *)(uintptr_t)all, i, v)
        {
            bool have = false;
            json_array_foreach(list, k, w) have |= json_equal(v, w) != 0;
            if (!have && json_array_size(list) <= UNIQUE_MAX)
                json_array_append(list, v);
        }
    } else if (json_is_object(flat) && schema_types(flat) == SCHEMA_BOOLEAN) {
        list = json_pack("[b,b]", 1, 0);
    }
    json_decref(flat);
    return list;
}

struct gx *schema_unique(struct schema *s, const json_t *items, uint32_t min, uint32_t max)
{
    struct gbuild *b = s->b;
    json_t *list = items ? listed_values(s, items) : NULL, *v;
    size_t n = json_array_size(list), i;
    uint32_t one[UNIQUE_MAX];
    if (!list || n > UNIQUE_MAX) {
        json_decref(list);
        return schema_fail(s, ERR_UNSUPPORTED, "uniqueItems",
                           "is supported only where items are at most %d listed values",
                           UNIQUE_MAX);
    }
    json_array_foreach(list, i, v) one[i] =
        item_rule(s, items_with(s, items, json_pack("{s:[O]}", "enum", v)));
    json_decref(list);
    uint32_t *had = gbuild_alloc(b, (size_t)1 << n, sizeof *had); /* by the set of values */
    for (uint32_t set = 1u << n; set-- > 0 && !b->code;) {
        uint32_t size = (uint32_t)__builtin_popcount(set);
        struct gxs to = {.n = 0};
        had[set] = gbuild_rule(b, "unique items", 12);
        if (size >= min)
            gxs_add(b, &to, gx_empty(b));
        for (i = 0; i < n && size < max; i++)
            if (!(set >> i & 1))
                gxs_add(b, &to,
                        GX_SEQ(b, set ? comma(s) : gx_empty(b), gx_call(b, one[i]),
                               gx_call(b, had[set | 1u << i])));
        gbuild_define(b, had[set], gx_alt(b, to.v, to.n));
    }
    return b->code ? NULL : brackets(s, had[0]);
}

struct gx *schema_contains(struct schema *s, const json_t *items, const json_t *contains,
                           struct grange found, struct grange size)
{
    struct gbuild *b = s->b;
    bool exact = found.hi != GRAMMAR_INF; /* then items that count may not come as others */
    uint32_t most = exact ? found.hi : found.lo;
    uint32_t last = size.hi != GRAMMAR_INF ? size.hi : size.lo;
    last = last ? last : 1; /* so 0 is the list without items */
    if ((uint64_t)(most + 1ull) * (last + 1ull) > STATES_MAX)
        return schema_fail(s, ERR_LIMIT, "contains", "with such counts is not supported");
    json_t *any = items ? json_incref((json_t *)(uintptr_t)items) : json_true();
    uint32_t counts = item_rule(s, items_with(s, any, json_incref((json_t *)(uintptr_t)contains)));
    uint32_t other = item_rule(s, exact ? items_with(s, any, json_pack("{s:O}", "not", contains))
                                        : json_incref(any));
    json_decref(any);
    uint32_t *at = gbuild_alloc(b, (size_t)(most + 1) * (last + 1), sizeof *at);
    for (size_t i = 0; at && i < (size_t)(most + 1) * (last + 1); i++)
        at[i] = gbuild_rule(b, "items", 5);
    for (uint32_t f = 0; f <= most && !b->code; f++)
        for (uint32_t n = 0; n <= last && !b->code; n++) {
            struct gxs to = {.n = 0};
            struct gx *before = n ? comma(s) : gx_empty(b);
            uint32_t next = n < last ? n + 1 : last;
            if (f >= found.lo && n >= size.lo)
                gxs_add(b, &to, gx_empty(b));
            if ((size.hi == GRAMMAR_INF || n < size.hi) && (!exact || f < most))
                gxs_add(b, &to,
                        GX_SEQ(b, before, gx_call(b, counts),
                               gx_call(b, at[(f < most ? f + 1 : f) * (last + 1) + next])));
            if (size.hi == GRAMMAR_INF || n < size.hi)
                gxs_add(
                    b, &to,
                    GX_SEQ(b, before, gx_call(b, other), gx_call(b, at[f * (last + 1) + next])));
            gbuild_define(b, at[f * (last + 1) + n], gx_alt(b, to.v, to.n));
        }
    return b->code ? NULL : brackets(s, at[0]);
}
