/*
 * Sets of characters, and the part of the automaton that reads one character of a set in UTF-8.
 *
 * A lead byte covers a span of code points. When the set has none of it there is no edge; when it
 * has all of it, the edge goes to a chain of "any continuation byte" that is shared; else the
 * second byte splits the span further. Only where a range of the set begins or ends inside a span
 * does a node of its own come to be, so a set costs nodes by its ranges, not by its characters.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <stdlib.h>
#include <string.h>

void gset_add(struct gbuild *b, struct gset *s, uint32_t lo, uint32_t hi)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 8;
        struct grange *v = gbuild_alloc(b, cap, sizeof *v);
        if (!v)
            return;
        if (s->n)
            memcpy(v, s->v, s->n * sizeof *v);
        s->v = v;
        s->cap = cap;
    }
    s->v[s->n++] = (struct grange){lo, hi};
}

static int by_start(const void *a, const void *b)
{
    const struct grange *x = a, *y = b;
    return x->lo < y->lo ? -1 : x->lo > y->lo;
}

/* Joins what touches. */
static void join(struct gset *s)
{
    size_t w = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct grange r = s->v[i];
        if (r.hi < r.lo)
            continue;
        if (w && r.lo <= s->v[w - 1].hi + 1)
            s->v[w - 1].hi = r.hi > s->v[w - 1].hi ? r.hi : s->v[w - 1].hi;
        else
            s->v[w++] = r;
    }
    s->n = w;
}

void gset_sort(struct gset *s)
{
    if (!s->n)
        return;
    qsort(s->v, s->n, sizeof *s->v, by_start);
    join(s);
}

void gset_invert(struct gbuild *b, struct gset *s)
{
    struct gset out = {.n = 0};
    uint32_t at = 0;
    gset_sort(s);
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].lo > at)
            gset_add(b, &out, at, s->v[i].lo - 1);
        at = s->v[i].hi + 1;
    }
    if (at <= 0x10ffff)
        gset_add(b, &out, at, 0x10ffff);
    *s = out;
}

bool gset_has(const struct gset *s, uint32_t cp)
{
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->v[mid].hi < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->v[lo].lo <= cp;
}

/* ---- UTF-8 ---------------------------------------------------------------------------------- */

struct class
{
    struct gbuild *b;
    const struct gset *set;
    uint32_t next;
    uint32_t any[4]; /* any[k]: reads k > 0 continuation bytes; 0: not made */
    uint32_t least;  /* the first character of this length: no overlong forms */
};

/* How much of lo…hi is in the set, surrogates not counted: 0 nothing, 2 all, 1 some. */
static int cover(const struct gset *s, uint32_t lo, uint32_t hi)
{
    size_t i = 0, end = s->n;
    while (i < end) {
        size_t mid = (i + end) / 2;
        if (s->v[mid].hi < lo)
            i = mid + 1;
        else
            end = mid;
    }
    if (i == s->n || s->v[i].lo > hi)
        return 0;
    return s->v[i].lo <= lo && s->v[i].hi >= hi ? 2 : 1;
}

static uint32_t any(struct class *c, int k)
{
    if (k == 0)
        return c->next;
    if (!c->any[k]) {
        struct gedge e = {0x80, 0xbf, any(c, k - 1)};
        c->any[k] = gedges_add(c->b, &e, 1);
    }
    return c->any[k];
}

static void edge_put(struct gedge *e, size_t *n, uint32_t byte, uint32_t to)
{
    if (*n && e[*n - 1].to == to && e[*n - 1].hi + 1u == byte)
        e[*n - 1].hi = (uint8_t)byte;
    else
        e[(*n)++] = (struct gedge){(uint8_t)byte, (uint8_t)byte, to};
}

/* Reads k continuation bytes of the characters base … base + 64^k - 1. */
static uint32_t rest(struct class *c, uint32_t base, int k)
{
    struct gedge e[64];
    size_t n = 0;
    if (k == 0)
        return c->next;
    uint32_t span = 1u << (6 * (k - 1));
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t lo = base + i * span, hi = lo + span - 1;
        if (lo < c->least || lo > 0x10ffff || (lo >= 0xd800 && lo <= 0xdfff))
            continue;
        int much = cover(c->set, lo, hi);
        if (much)
            edge_put(e, &n, 0x80 + i, much == 2 ? any(c, k - 1) : rest(c, lo, k - 1));
    }
    return gedges_add(c->b, e, n);
}

/* Is a span of a lead byte whole? Of those of E0, F0, ED and F4 a part is no character. */
static bool whole(uint32_t lead)
{
    return lead != 0xe0 && lead != 0xed && lead != 0xf0 && lead != 0xf4;
}

uint32_t gclass_emit(struct gbuild *b, const struct gset *set, uint32_t next)
{
    struct class c = {.b = b, .set = set, .next = next};
    struct gedge e[256];
    size_t n = 0;
    for (uint32_t i = 0; i < 0x80; i++)
        if (gset_has(set, i))
            edge_put(e, &n, i, next);
    static const struct {
        uint32_t first, last, base, least;
        int more;
    } leads[] = {
        {0xc2, 0xdf, 0x80, 0x80, 1}, {0xe0, 0xef, 0, 0x800, 2}, {0xf0, 0xf4, 0, 0x10000, 3}};
    for (size_t k = 0; k < NUM_COUNT(leads); k++)
        for (uint32_t i = leads[k].first; i <= leads[k].last; i++) {
            int more = leads[k].more;
            uint32_t span = 1u << (6 * more);
            uint32_t lo = leads[k].base + (i - leads[k].first) * span;
            uint32_t least = lo > leads[k].least ? lo : leads[k].least;
            int much = cover(set, least, lo + span - 1);
            c.least = leads[k].least;
            if (much)
                edge_put(e, &n, i, much == 2 && whole(i) ? any(&c, more) : rest(&c, lo, more));
        }
    return gedges_add(b, e, n);
}
