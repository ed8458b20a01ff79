/*
 * Sets of texts that can be joined and taken from each other: what schemas ask for with "and" and
 * "not". An expression in a build of its own becomes a grammar; its matcher, by steps, is a
 * deterministic automaton. Several of them walked together are one whose states tell which of them
 * have the text (the product construction; Rabin and Scott 1959). So any condition on membership is
 * an expression again.
 *
 * Only for sets that need no stack: they have finitely many states, and more than a bound are
 * refused. Bytes that no edge tells apart are walked once.
 */
#include "base/hash.h"
#include "text/grammar_match.h"

#include <stdlib.h>
#include <string.h>

enum { STATES_MAX = 4096, SLOTS = 4 * STATES_MAX };

/* ---- one set -------------------------------------------------------------------------------- */

/* A matcher wants a vocabulary; for steps by bytes an empty one does. */
static struct grammar_vocab *no_vocab(void)
{
    struct grammar_vocab *v = calloc(1, sizeof *v);
    if (v)
        atomic_init(&v->refs, 1);
    return v;
}

bool glang_make(struct gbuild *b, struct gbuild *own, struct gx *x, struct glang *out)
{
    struct err e = {0};
    *out = (struct glang){.g = NULL};
    int code = gbuild_finish(own, x, &out->g, &e);
    bool nothing = own->nothing;
    gbuild_release(own);
    if (code && nothing)
        return true;
    struct grammar_vocab *v = code ? NULL : no_vocab();
    if (!code && !v)
        code = err_nomem(&e, sizeof *v, "a set of texts");
    code = code ? code : gmatch_get(&out->m, out->g, v, &e);
    grammar_vocab_unref(v);
    if (code)
        gbuild_fail(b, code, "%s", e.text);
    return !code;
}

void glang_release(struct glang *l)
{
    grammar_unref(l->g);
    *l = (struct glang){.g = NULL};
}

static uint32_t start(struct gbuild *b, const struct glang *l)
{
    uint32_t config = GCONFIG_DEAD;
    struct err e = {0};
    if (!l->g)
        return config;
    l->m->spent = 0;
    if (gmatch_start(l->m, GRAMMAR_THOUGHT_NONE, &config, &e))
        gbuild_fail(b, e.code, "%s", e.text);
    return config;
}

static uint32_t step(struct gbuild *b, const struct glang *l, uint32_t config, uint8_t byte)
{
    struct err e = {0};
    uint32_t to = GCONFIG_DEAD;
    if (config == GCONFIG_DEAD || b->code)
        return GCONFIG_DEAD;
    if (gmatch_full(l->m))
        gbuild_fail(b, ERR_LIMIT, "patterns, lengths and names have too many states together");
    else if (gmatch_step(l->m, config, byte, &to, &e))
        gbuild_fail(b, e.code, "%s", e.text);
    return to;
}

static bool accepts(const struct glang *l, uint32_t config)
{
    return config != GCONFIG_DEAD && l->m->t.config[config].flags & GC_ACCEPT;
}

bool glang_has(struct gbuild *b, const struct glang *l, const char *s, size_t n)
{
    uint32_t config = start(b, l);
    for (size_t i = 0; i < n && config != GCONFIG_DEAD; i++)
        config = step(b, l, config, (uint8_t)s[i]);
    return !b->code && accepts(l, config);
}

/* ---- several -------------------------------------------------------------------------------- */

struct product {
    struct gbuild *b;
    const struct glang *lang;
    size_t n;
    struct gdfa *d;
    uint32_t *tuple; /* (states, n) where each of them is */
    uint32_t *slot;  /* state + 1 by hash */
};

/* Bytes between two bounds of edges behave the same. */
static void find_classes(struct product *p)
{
    bool bound[257] = {true};
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; p->lang[i].g && k < p->lang[i].g->n_edges; k++) {
            bound[p->lang[i].g->edge[k].lo] = true;
            bound[p->lang[i].g->edge[k].hi + 1] = true;
        }
    uint32_t c = 0;
    for (unsigned byte = 0; byte < 256; byte++) {
        c += byte && bound[byte];
        p->d->class[byte] = (uint8_t)c;
    }
    p->d->classes = c + 1;
}

static uint32_t state_of(struct product *p, const uint32_t *tuple)
{
    size_t bytes = p->n * sizeof *tuple;
    struct gdfa *d = p->d;
    size_t i = hash_bytes(tuple, bytes, 0) % SLOTS;
    for (; p->slot[i]; i = (i + 1) % SLOTS)
        if (!memcmp(p->tuple + (size_t)(p->slot[i] - 1) * p->n, tuple, bytes))
            return p->slot[i] - 1;
    if (d->n == STATES_MAX) {
        gbuild_fail(p->b, ERR_LIMIT,
                    "patterns, lengths and names have more than %d states together", STATES_MAX);
        return 0;
    }
    memcpy(p->tuple + (size_t)d->n * p->n, tuple, bytes);
    for (size_t k = 0; k < p->n; k++)
        d->label[d->n] |= accepts(&p->lang[k], tuple[k]) ? 1u << k : 0;
    p->slot[i] = ++d->n;
    return d->n - 1;
}

/* As much of an array as was needed, in the build's memory. */
static void *keep(struct gbuild *b, void *from, size_t bytes)
{
    void *to = gbuild_alloc(b, bytes, 1);
    if (to)
        memcpy(to, from, bytes);
    free(from);
    return to;
}

struct gdfa *gdfa_join(struct gbuild *b, const struct glang *lang, size_t n)
{
    struct gdfa *d = gbuild_alloc(b, 1, sizeof *d);
    struct product p = {.b = b, .lang = lang, .n = n, .d = d};
    if (n > GDFA_SETS_MAX)
        return (void *)gbuild_fail(b, ERR_LIMIT, "more than %d patterns meet", GDFA_SETS_MAX);
    if (!d)
        return NULL;
    find_classes(&p);
    d->label = calloc(STATES_MAX, sizeof *d->label);
    d->to = calloc((size_t)STATES_MAX * d->classes, sizeof *d->to);
    p.tuple = malloc((STATES_MAX + 1) * n * sizeof *p.tuple);
    p.slot = calloc(SLOTS, sizeof *p.slot);
    if (!p.tuple || !p.slot || !d->label || !d->to)
        gbuild_fail(b, ERR_NOMEM, "no memory for a grammar");
    uint32_t next[GDFA_SETS_MAX] = {0};
    if (!b->code) {
        state_of(&p, next); /* 0: nowhere */
        for (size_t k = 0; k < n; k++)
            next[k] = start(b, &lang[k]);
        state_of(&p, next);
    }
    for (uint32_t q = 1; !b->code && q < d->n; q++)
        for (unsigned byte = 0; byte < 256 && !b->code; byte++) {
            if (byte && d->class[byte] == d->class[byte - 1])
                continue;
            for (size_t k = 0; k < n; k++)
                next[k] = step(b, &lang[k], p.tuple[(size_t)q * n + k], (uint8_t)byte);
            bool dead = next[0] == GCONFIG_DEAD; /* the first holds them all */
            d->to[(size_t)q * d->classes + d->class[byte]] = dead ? 0 : state_of(&p, next);
        }
    free(p.tuple);
    free(p.slot);
    d->label = keep(b, d->label, d->n * sizeof *d->label);
    d->to = keep(b, d->to, (size_t)d->n * d->classes * sizeof *d->to);
    return b->code ? NULL : d;
}

/* ---- fewer states --------------------------------------------------------------------------- */

struct parts {
    const struct gdfa *d;
    uint32_t *part, *next; /* of each state */
    uint32_t *slot;        /* state + 1 by hash */
    size_t slots;
};

static bool same_part(const struct parts *p, uint32_t a, uint32_t b)
{
    const struct gdfa *d = p->d;
    bool same = p->part[a] == p->part[b];
    for (uint32_t c = 0; c < d->classes && same; c++)
        same = p->part[d->to[(size_t)a * d->classes + c]] ==
               p->part[d->to[(size_t)b * d->classes + c]];
    return same;
}

/* Parts by where bytes lead: states of one part that go to other parts come apart. */
static uint32_t refine(struct parts *p)
{
    const struct gdfa *d = p->d;
    uint32_t n = 0;
    memset(p->slot, 0, p->slots * sizeof *p->slot);
    for (uint32_t q = 0; q < d->n; q++) {
        uint64_t h = hash_u64(p->part[q] + 1);
        for (uint32_t c = 0; c < d->classes; c++)
            h = hash_u64(h + p->part[d->to[(size_t)q * d->classes + c]]);
        size_t i = h % p->slots;
        while (p->slot[i] && !same_part(p, p->slot[i] - 1, q))
            i = (i + 1) % p->slots;
        p->next[q] = p->slot[i] ? p->next[p->slot[i] - 1] : n++;
        p->slot[i] = p->slot[i] ? p->slot[i] : q + 1;
    }
    uint32_t *was = p->part;
    p->part = p->next;
    p->next = was;
    return n;
}

/* One state for each part, in the order of their first states, so that none moves upward. Nowhere
   stays 0, and the start 1, also when no text fits and they are one part. */
static void shrink(struct gdfa *d, uint32_t *what, const uint32_t *part, uint32_t n, uint32_t *at)
{
    uint32_t used = 0;
    for (uint32_t i = 0; i < n; i++)
        at[i] = UINT32_MAX;
    for (uint32_t q = 0; q < d->n; q++) {
        if (at[part[q]] != UINT32_MAX && q != 1)
            continue;
        if (at[part[q]] == UINT32_MAX)
            at[part[q]] = used;
        what[used] = what[q];
        memmove(d->to + (size_t)used * d->classes, d->to + (size_t)q * d->classes,
                d->classes * sizeof *d->to);
        used++;
    }
    d->n = used;
    for (size_t i = 0; i < (size_t)used * d->classes; i++)
        d->to[i] = at[part[d->to[i]]];
}

void gdfa_minimize(struct gbuild *b, struct gdfa *d, uint32_t *what)
{
    struct parts p = {.d = d, .slots = 2 * (size_t)d->n + 1};
    uint32_t n = 0, more;
    p.part = gbuild_alloc(b, d->n, sizeof *p.part);
    p.next = gbuild_alloc(b, d->n, sizeof *p.next);
    p.slot = gbuild_alloc(b, p.slots, sizeof *p.slot);
    if (b->code)
        return;
    memcpy(p.part, what, d->n * sizeof *what);
    while ((more = refine(&p)) != n)
        n = more;
    shrink(d, what, p.part, n, p.next);
}
