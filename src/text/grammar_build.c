/*
 * Compiling: from trees of expressions to the nodes of the automaton (grammar_impl.h).
 *
 * Emission goes backwards: an expression is emitted with the node that follows it, so nothing needs
 * patching but loops, whose head exists before their body. Choices between branches that begin with
 * different bytes become one node. A repetition with bounds is one LOOP node whose count lives on
 * the stack of whoever matches, so "between 0 and a milliard times" costs no more than "once".
 *
 * Everything is counted: memory of the trees (an arena with a maximum), nodes, edges, rules.
 */
#include "base/num.h"
#include "text/grammar_match.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t arena_most = (size_t)256 << 20;

enum kind {
    X_EMPTY,
    X_NEVER,
    X_BYTES,
    X_MARK,
    X_CLASS,
    X_OTHER,
    X_SEQ,
    X_ALT,
    X_REP,
    X_CALL,
    X_CONTROL,
    X_WORDS,
    X_UNTIL,
    X_MEMBERS,
    X_DFA
};

enum { UNTIL_BYTES_MAX = 4096 }; /* of all words of one */

struct gmembers {
    struct gmember *m;
    size_t n;
    struct gx *more, *comma, *space; /* more: NULL = no others */
};

struct gx {
    enum kind kind;
    uint32_t a, b; /* REP: min, max; CALL: rule; UNTIL: may end */
    size_t n;
    union {
        const char *s;    /* BYTES, MARK, CONTROL, OTHER: n bytes */
        struct gx **list; /* SEQ, ALT */
        struct gset *set; /* CLASS */
        struct gword *w;  /* WORDS, in order, no two the same */
        struct gx *x;     /* REP */
        struct gmembers *members;
        struct gstop *stop; /* UNTIL */
        struct gends *ends; /* DFA */
    };
};

struct gends {
    const struct gdfa *d;
    const uint32_t *what;
    struct gx *const *then;
    size_t n;
};

/* ---- the build ------------------------------------------------------------------------------ */

int gbuild_init(struct gbuild *b, struct err *e)
{
    memset(b, 0, sizeof *b);
    arena_init(&b->arena, arena_most);
    b->g = calloc(1, sizeof *b->g);
    if (!b->g)
        return err_nomem(e, sizeof *b->g, "a grammar");
    atomic_init(&b->g->refs, 1);
    if (pthread_mutex_init(&b->g->lock, NULL)) {
        free(b->g);
        b->g = NULL;
        return err_nomem(e, 0, "a lock");
    }
    gnode_add(b, GOP_RET, 0, 0, 0);
    return 0;
}

void gbuild_release(struct gbuild *b)
{
    arena_release(&b->arena);
    grammar_unref(b->g);
    free(b->rule);
    memset(b, 0, sizeof *b);
}

struct gx *gbuild_fail(struct gbuild *b, int code, const char *fmt, ...)
{
    if (b->code)
        return NULL;
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    b->code = err_set(&b->err, code, "%s", text);
    return NULL;
}

void *gbuild_alloc(struct gbuild *b, size_t count, size_t size)
{
    if (b->code)
        return NULL;
    if (size && (count > arena_most / size || b->arena.used + count * size > arena_most))
        return gbuild_fail(b, ERR_LIMIT, "the grammar is too large: it needs more than %zu MB",
                           arena_most >> 20);
    void *p = arena_array(&b->arena, count, size, &b->err);
    if (!p)
        b->code = b->err.code;
    return p;
}

/* Room for more of an array (the address of a pointer) of at most `max`. */
static bool room(struct gbuild *b, void *array, size_t n, size_t more, size_t *cap, size_t max,
                 size_t size, const char *what)
{
    void *at;
    if (b->code)
        return false;
    if (n + more <= *cap)
        return true;
    if (more > max || n > max - more) {
        gbuild_fail(b, ERR_LIMIT, "the grammar is too large: it needs more than %zu %s", max, what);
        return false;
    }
    size_t want = num_max(*cap ? 2 * *cap : 64, n + more);
    memcpy(&at, array, sizeof at);
    void *p = realloc(at, want * size);
    if (!p) {
        gbuild_fail(b, ERR_NOMEM, "no memory for a grammar (%zu bytes)", want * size);
        return false;
    }
    memcpy(array, &p, sizeof p);
    *cap = want;
    return true;
}

uint32_t gbuild_rule(struct gbuild *b, const char *name, size_t n)
{
    char *copy = b->code ? NULL : arena_strndup(&b->arena, name, n, &b->err);
    if (!copy || !room(b, &b->rule, b->n_rules, 1, &b->cap_rules, GRAMMAR_RULES_MAX,
                       sizeof *b->rule, "rules"))
        return 0;
    b->rule[b->n_rules] = (struct grule){.name = copy};
    return (uint32_t)b->n_rules++;
}

void gbuild_define(struct gbuild *b, uint32_t rule, struct gx *x)
{
    if (!b->code)
        b->rule[rule].x = x;
}

/* ---- expressions -------------------------------------------------------------------------------
 */

static struct gx *make(struct gbuild *b, enum kind kind)
{
    struct gx *x = gbuild_alloc(b, 1, sizeof *x);
    if (x)
        x->kind = kind;
    return x;
}

struct gx *gx_empty(struct gbuild *b)
{
    return make(b, X_EMPTY);
}

struct gx *gx_never(struct gbuild *b)
{
    return make(b, X_NEVER);
}

static struct gx *make_bytes(struct gbuild *b, enum kind kind, const char *s, size_t n)
{
    struct gx *x = make(b, kind);
    char *copy = x ? gbuild_alloc(b, n + 1, 1) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, s, n);
    x->s = copy;
    x->n = n;
    return x;
}

struct gx *gx_bytes(struct gbuild *b, const char *s, size_t n)
{
    return make_bytes(b, X_BYTES, s, n);
}

struct gx *gx_text(struct gbuild *b, const char *s)
{
    return gx_bytes(b, s, strlen(s));
}

struct gx *gx_mark(struct gbuild *b, const char *s, size_t n)
{
    return make_bytes(b, X_MARK, s, n);
}

struct gx *gx_control(struct gbuild *b, const char *s)
{
    return make_bytes(b, X_CONTROL, s, strlen(s));
}

struct gx *gx_class(struct gbuild *b, struct gset *set)
{
    struct gx *x = make(b, X_CLASS);
    struct gset *copy = x ? gbuild_alloc(b, 1, sizeof *copy) : NULL;
    if (!copy)
        return NULL;
    gset_sort(set);
    *copy = *set;
    x->set = copy;
    return x;
}

struct gx *gx_chars(struct gbuild *b, const char *ranges)
{
    struct gset set = {.n = 0};
    for (; ranges[0] && ranges[1]; ranges += 2)
        gset_add(b, &set, (unsigned char)ranges[0], (unsigned char)ranges[1]);
    return gx_class(b, &set);
}

struct gx *gx_other_byte(struct gbuild *b, const char *but, size_t n)
{
    return make_bytes(b, X_OTHER, but, n);
}

static struct gx *make_list(struct gbuild *b, enum kind kind, struct gx *const *list, size_t n)
{
    struct gx *x = make(b, kind);
    struct gx **copy = x ? gbuild_alloc(b, n + 1, sizeof(struct gx *)) : NULL;
    if (!copy)
        return NULL;
    for (size_t i = 0; i < n; i++) {
        if (!list[i])
            return NULL;
        copy[i] = list[i];
    }
    x->list = copy;
    x->n = n;
    return x;
}

struct gx *gx_seq(struct gbuild *b, struct gx *const *x, size_t n)
{
    return n == 1 ? x[0] : make_list(b, X_SEQ, x, n);
}

struct gx *gx_alt(struct gbuild *b, struct gx *const *x, size_t n)
{
    return n == 1 ? x[0] : n ? make_list(b, X_ALT, x, n) : gx_never(b);
}

struct gx *gx_rep(struct gbuild *b, struct gx *of, uint32_t min, uint32_t max)
{
    if (!of)
        return NULL;
    if (min == 1 && max == 1)
        return of;
    struct gx *x = make(b, max < min ? X_NEVER : max == 0 ? X_EMPTY : X_REP);
    if (!x)
        return NULL;
    x->x = of;
    x->a = min;
    x->b = max;
    return x;
}

struct gx *gx_opt(struct gbuild *b, struct gx *x)
{
    return gx_rep(b, x, 0, 1);
}

struct gx *gx_call(struct gbuild *b, uint32_t rule)
{
    struct gx *x = make(b, X_CALL);
    if (x)
        x->a = rule;
    return x;
}

static int by_bytes(const void *a, const void *b)
{
    const struct gword *x = a, *y = b;
    int c = memcmp(x->s, y->s, num_min(x->n, y->n));
    return c ? c : x->n < y->n ? -1 : x->n > y->n;
}

struct gx *gx_words(struct gbuild *b, struct gword *w, size_t n)
{
    if (!n)
        return gx_never(b);
    struct gx *x = make(b, X_WORDS);
    struct gword *copy = x ? gbuild_alloc(b, n, sizeof *copy) : NULL;
    if (!copy)
        return NULL;
    memcpy(copy, w, n * sizeof *w);
    qsort(copy, n, sizeof *copy, by_bytes);
    size_t k = 0;
    for (size_t i = 0; i < n; i++)
        if (!k || by_bytes(&copy[k - 1], &copy[i]) != 0)
            copy[k++] = copy[i];
    x->w = copy;
    x->n = k;
    return x;
}

struct gx *gx_until_any(struct gbuild *b, const struct gstop *stop, size_t n, bool may_end)
{
    struct gx *x = make(b, X_UNTIL);
    struct gstop *copy = x ? gbuild_alloc(b, n + 1, sizeof *copy) : NULL;
    size_t total = 0;
    for (size_t i = 0; i < n && copy; i++) {
        char *s = gbuild_alloc(b, stop[i].n + 1, 1);
        if (!s)
            return NULL;
        memcpy(s, stop[i].s, stop[i].n);
        copy[i] = (struct gstop){s, stop[i].n, stop[i].then};
        total += stop[i].n;
    }
    if (total > UNTIL_BYTES_MAX)
        return gbuild_fail(b, ERR_LIMIT, "what free text may not hold has more than %d bytes",
                           UNTIL_BYTES_MAX);
    if (!copy)
        return NULL;
    x->stop = copy;
    x->n = n;
    x->a = may_end;
    return x;
}

struct gx *gx_until(struct gbuild *b, const char *s, struct gx *then, bool may_end)
{
    struct gstop stop = {s, strlen(s), then ? then : gx_empty(b)};
    return gx_until_any(b, &stop, *s != 0, may_end);
}

struct gx *gx_members(struct gbuild *b, const struct gmember *m, size_t n, struct gx *more,
                      struct gx *comma, struct gx *space)
{
    struct gx *x = make(b, X_MEMBERS);
    struct gmembers *l = x ? gbuild_alloc(b, 1, sizeof *l) : NULL;
    struct gmember *copy = l ? gbuild_alloc(b, n + 1, sizeof *copy) : NULL;
    if (!copy)
        return NULL;
    if (n)
        memcpy(copy, m, n * sizeof *m);
    *l = (struct gmembers){copy, n, more, comma, space};
    x->members = l;
    return x;
}

struct gx *gx_dfa(struct gbuild *b, const struct gdfa *d, const uint32_t *what,
                  struct gx *const *then, size_t n)
{
    struct gx *x = make(b, X_DFA);
    struct gends *ends = x ? gbuild_alloc(b, 1, sizeof *ends) : NULL;
    if (!ends)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (!then[i])
            return NULL;
    *ends = (struct gends){d, what, then, n};
    x->ends = ends;
    return x;
}

void gxs_add(struct gbuild *b, struct gxs *l, struct gx *x)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        struct gx **v = gbuild_alloc(b, cap, sizeof(struct gx *));
        if (!v)
            return;
        if (l->n)
            memcpy(v, l->v, l->n * sizeof(struct gx *));
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = x;
}

/* ---- nodes ---------------------------------------------------------------------------------- */

uint32_t gnode_add(struct gbuild *b, enum gop op, uint32_t x, uint32_t y, uint32_t z)
{
    struct grammar *g = b->g;
    if (!room(b, &g->node, g->n_nodes, 1, &b->cap_nodes, GRAMMAR_NODES_MAX, sizeof *g->node,
              "states"))
        return 0;
    g->node[g->n_nodes] = (struct gnode){.op = (uint8_t)op, .a = x, .b = y, .c = z};
    return (uint32_t)g->n_nodes++;
}

/* Puts edges into their array; their place goes to *at. */
static bool edges_put(struct gbuild *b, const struct gedge *e, size_t n, uint32_t *at)
{
    struct grammar *g = b->g;
    if (!room(b, &g->edge, g->n_edges, n, &b->cap_edges, GRAMMAR_EDGES_MAX, sizeof *e, "edges"))
        return false;
    *at = (uint32_t)g->n_edges;
    if (n)
        memcpy(g->edge + g->n_edges, e, n * sizeof *e);
    g->n_edges += n;
    return true;
}

uint32_t gedges_add(struct gbuild *b, const struct gedge *e, size_t n)
{
    uint32_t at = 0;
    return edges_put(b, e, n, &at) ? gnode_add(b, GOP_EDGES, at, (uint32_t)n, 0) : 0;
}

static int by_byte(const void *a, const void *b)
{
    const struct gedge *x = a, *y = b;
    return (int)x->lo - (int)y->lo;
}

/* Branches that all take a byte, no two the same one, become the edges of one node. */
static bool merge(struct gbuild *b, const uint32_t *to, size_t n, struct gnode *out)
{
    const struct grammar *g = b->g;
    bool taken[256] = {false};
    struct gedge e[256];
    size_t k = 0;
    if (n > 256)
        return false;
    for (size_t i = 0; i < n; i++) {
        const struct gnode *x = &g->node[to[i]];
        if (x->op != GOP_EDGES || x->flags != g->node[to[0]].flags)
            return false;
        for (uint32_t j = 0; j < x->b; j++) {
            const struct gedge *from = &g->edge[x->a + j];
            for (unsigned c = from->lo; c <= from->hi; c++) {
                if (taken[c])
                    return false;
                taken[c] = true;
            }
            e[k++] = *from;
        }
    }
    if (k)
        qsort(e, k, sizeof *e, by_byte);
    uint8_t flags = g->node[to[0]].flags;
    uint32_t at = 0;
    if (!edges_put(b, e, k, &at))
        return false;
    *out = (struct gnode){.op = GOP_EDGES, .flags = flags, .a = at, .b = (uint32_t)k};
    return true;
}

/* Makes node `at` go on at any of the nodes. */
static void branch_at(struct gbuild *b, uint32_t at, const uint32_t *to, size_t n)
{
    struct grammar *g = b->g;
    struct gnode x;
    if (b->code)
        return;
    if (!n || !merge(b, to, n, &x)) {
        if (!room(b, &g->target, g->n_targets, n, &b->cap_targets, GRAMMAR_EDGES_MAX, sizeof *to,
                  "branches"))
            return;
        x = (struct gnode){.op = GOP_SPLIT, .a = (uint32_t)g->n_targets, .b = (uint32_t)n};
        if (n)
            memcpy(g->target + g->n_targets, to, n * sizeof *to);
        g->n_targets += n;
    }
    g->node[at] = x;
}

static uint32_t branch(struct gbuild *b, const uint32_t *to, size_t n)
{
    if (n == 1)
        return to[0];
    uint32_t at = gnode_add(b, GOP_SPLIT, 0, 0, 0);
    branch_at(b, at, to, n);
    return at;
}

/* ---- emission ------------------------------------------------------------------------------- */

static uint32_t emit(struct gbuild *b, const struct gx *x, uint32_t next);

static uint32_t emit_flagged(struct gbuild *b, const char *s, size_t n, uint32_t next,
                             uint8_t flags)
{
    for (size_t i = n; i > 0 && !b->code; i--) {
        struct gedge e = {(uint8_t)s[i - 1], (uint8_t)s[i - 1], next};
        next = gedges_add(b, &e, 1);
        b->g->node[next].flags |= b->code ? 0 : flags;
    }
    return next;
}

static uint32_t emit_bytes(struct gbuild *b, const char *s, size_t n, uint32_t next)
{
    return emit_flagged(b, s, n, next, 0);
}

/* w[0..n) share their first `at` bytes, which were read. */
static uint32_t emit_words(struct gbuild *b, const struct gword *w, size_t n, size_t at,
                           uint32_t next, int depth)
{
    if (b->code)
        return 0;
    if (depth > 1000) {
        gbuild_fail(b, ERR_LIMIT, "more than 1,000 choices are each the beginning of the next");
        return 0;
    }
    size_t same = at;
    if (n == 1)
        return emit_bytes(b, w->s + at, w->n - at, next);
    while (same < w[0].n && same < w[n - 1].n && w[0].s[same] == w[n - 1].s[same])
        same++; /* in order: what first and last share, all share */
    bool ends = w[0].n == same;
    struct gedge *e = gbuild_alloc(b, 256, sizeof *e);
    size_t k = 0;
    for (size_t i = ends; i < n && e;) {
        uint8_t c = (uint8_t)w[i].s[same];
        size_t last = i;
        while (last < n && (uint8_t)w[last].s[same] == c)
            last++;
        uint32_t to = emit_words(b, w + i, last - i, same + 1, next, depth + 1);
        e[k++] = (struct gedge){c, c, to};
        i = last;
    }
    uint32_t node = gedges_add(b, e, e ? k : 0);
    if (ends)
        node = branch(b, (uint32_t[]){node, next}, 2);
    return emit_bytes(b, w[0].s + at, same - at, node);
}

/* The words of free text's stops as a trie, and where each of its states goes by each byte. */
struct stops {
    uint32_t (*to)[256]; /* 0: back to the start */
    uint32_t *fail;      /* the state of the longest end that begins a word too */
    uint32_t *word;      /* that ends there: 1 + its number; 0: none */
    uint32_t *queue, n;
};

static bool stops_init(struct gbuild *b, const struct gx *x, struct stops *t)
{
    size_t most = 1;
    for (size_t i = 0; i < x->n; i++)
        most += x->stop[i].n;
    t->to = gbuild_alloc(b, most, sizeof *t->to);
    t->fail = gbuild_alloc(b, most, sizeof *t->fail);
    t->word = gbuild_alloc(b, most, sizeof *t->word);
    t->queue = gbuild_alloc(b, most, sizeof *t->queue);
    t->n = 1;
    if (b->code)
        return false;
    for (size_t i = 0; i < x->n; i++) {
        uint32_t at = 0;
        for (size_t k = 0; k < x->stop[i].n; k++) {
            uint32_t *next = &t->to[at][(uint8_t)x->stop[i].s[k]];
            at = *next ? *next : (*next = t->n++);
        }
        t->word[at] = t->word[at] ? t->word[at] : (uint32_t)i + 1;
    }
    return true;
}

/* From the shortest on: a state's missing steps are those of its end. */
static void stops_link(const struct gx *x, struct stops *t)
{
    uint32_t first = 0, last = 0;
    t->queue[last++] = 0;
    while (first < last) {
        uint32_t q = t->queue[first++], f = t->fail[q];
        uint32_t own = t->word[q], end = t->word[f];
        if (end && (!own || !x->stop[end - 1].then)) /* what is forbidden is so in any word */
            t->word[q] = end;
        for (unsigned c = 0; c < 256; c++) {
            uint32_t r = t->to[q][c], other = q ? t->to[f][c] : 0;
            if (r) {
                t->fail[r] = other;
                t->queue[last++] = r;
            } else {
                t->to[q][c] = other;
            }
        }
    }
}

/* The automaton of Aho and Corasick: a state has read text whose longest end that begins a word is
   the state's path in the trie. */
static uint32_t emit_until(struct gbuild *b, const struct gx *x, uint32_t next)
{
    struct stops t;
    if (!stops_init(b, x, &t))
        return 0;
    stops_link(x, &t);
    uint32_t *at = gbuild_alloc(b, t.n, sizeof *at), *read = gbuild_alloc(b, t.n, sizeof *read);
    uint32_t *found = gbuild_alloc(b, x->n + 1, sizeof *found);
    for (size_t i = 0; i < x->n && !b->code; i++)
        found[i] = x->stop[i].then ? emit(b, x->stop[i].then, next) : 0;
    for (uint32_t q = 0; q < t.n && !b->code; q++) {
        read[q] = gnode_add(b, GOP_SPLIT, 0, 0, 0); /* its edges come below */
        at[q] = x->a ? branch(b, (uint32_t[]){read[q], next}, 2) : read[q];
    }
    for (uint32_t q = 0; q < t.n && !b->code; q++) {
        struct gedge e[256];
        size_t k = 0;
        if (t.word[q])
            continue; /* nothing stays here */
        for (unsigned c = 0; c < 256; c++) {
            uint32_t p = t.to[q][c], word = t.word[p];
            if (word && !x->stop[word - 1].then)
                continue;
            uint32_t to = word ? found[word - 1] : at[p];
            if (k && e[k - 1].to == to && e[k - 1].hi + 1u == c)
                e[k - 1].hi = (uint8_t)c;
            else
                e[k++] = (struct gedge){(uint8_t)c, (uint8_t)c, to};
        }
        uint32_t place = 0;
        if (edges_put(b, e, k, &place))
            b->g->node[read[q]] =
                (struct gnode){.op = GOP_EDGES, .flags = GF_FREE, .a = place, .b = (uint32_t)k};
    }
    return b->code ? 0 : at[0];
}

static uint32_t emit_other(struct gbuild *b, const struct gx *x, uint32_t next)
{
    struct gedge e[256];
    size_t k = 0;
    for (unsigned c = 0; c < 256; c++) {
        if (memchr(x->s, (int)c, x->n))
            continue;
        if (k && e[k - 1].hi + 1u == c)
            e[k - 1].hi = (uint8_t)c;
        else
            e[k++] = (struct gedge){(uint8_t)c, (uint8_t)c, next};
    }
    uint32_t node = gedges_add(b, e, k);
    if (node)
        b->g->node[node].flags = GF_FREE;
    return node;
}

static uint32_t emit_rep(struct gbuild *b, const struct gx *x, uint32_t next)
{
    if (x->a == 0 && x->b == 1)
        return branch(b, (uint32_t[]){emit(b, x->x, next), next}, 2);
    if (x->a <= 1 && x->b == GRAMMAR_INF) {
        uint32_t head = gnode_add(b, GOP_SPLIT, 0, 0, 0), body = emit(b, x->x, head);
        branch_at(b, head, (uint32_t[]){body, next}, 2);
        return x->a ? body : head;
    }
    struct grammar *g = b->g;
    uint32_t body = emit(b, x->x, 0);
    if (!room(b, &g->loop, g->n_loops, 1, &b->cap_loops, GRAMMAR_NODES_MAX, sizeof *g->loop,
              "loops"))
        return 0;
    g->loop[g->n_loops] = (struct gloop){x->a, x->b};
    return gnode_add(b, GOP_LOOP, body, next, (uint32_t)g->n_loops++);
}

/*
 * From the last member to the first: `key` is where a member from i on may begin, `after` is behind
 * member i - 1. Each member is emitted once, so the size is linear, however many may be left out.
 */
static uint32_t emit_members(struct gbuild *b, const struct gmembers *l, uint32_t next)
{
    uint32_t close = emit_bytes(b, "}", 1, next), key, after, after_more = 0;
    bool required = false; /* is one of those that follow? */
    if (l->more) {
        after_more = gnode_add(b, GOP_SPLIT, 0, 0, 0);
        key = emit(b, l->more, after_more);
        uint32_t again = emit(b, l->comma, key), end = emit(b, l->space, close);
        branch_at(b, after_more, (uint32_t[]){again, end}, 2);
    } else {
        key = gedges_add(b, NULL, 0);
    }
    for (size_t i = l->n; i > 0 && !b->code; i--) {
        uint32_t to[2];
        size_t n = 0;
        if (i == l->n && after_more) {
            after = after_more;
        } else {
            if (i < l->n || l->more)
                to[n++] = emit(b, l->comma, key);
            if (!required)
                to[n++] = emit(b, l->space, close);
            after = branch(b, to, n);
        }
        uint32_t one = emit(b, l->m[i - 1].x, after);
        key = l->m[i - 1].required || (i == l->n && !l->more)
                  ? one
                  : branch(b, (uint32_t[]){one, key}, 2);
        required |= l->m[i - 1].required;
    }
    uint32_t first = key;
    if (!required)
        first = l->n || l->more ? branch(b, (uint32_t[]){key, close}, 2) : close;
    return emit_bytes(b, "{", 1, emit(b, l->space, first));
}

static uint32_t emit_control(struct gbuild *b, const struct gx *x, uint32_t next)
{
    struct grammar *g = b->g;
    size_t i = 0;
    while (i < g->n_texts && (g->text[i].n != x->n || memcmp(g->text[i].s, x->s, x->n) != 0))
        i++;
    if (i == g->n_texts) {
        if (!room(b, &g->text, i, 1, &b->cap_texts, GRAMMAR_RULES_MAX, sizeof *g->text,
                  "control tokens"))
            return 0;
        char *copy = malloc(x->n + 1);
        if (!copy) {
            gbuild_fail(b, ERR_NOMEM, "no memory for a grammar (%zu bytes)", x->n);
            return 0;
        }
        memcpy(copy, x->s, x->n);
        copy[x->n] = 0;
        g->text[g->n_texts++] = (struct gtext){copy, x->n};
    }
    uint32_t spelled = emit_bytes(b, x->s, x->n, next);
    return gnode_add(b, GOP_CTRL, (uint32_t)i, next, spelled);
}

/* From where something leads to an end. */
static void find_alive(const struct gends *x, bool *alive)
{
    const struct gdfa *d = x->d;
    for (bool more = true; more;) {
        more = false;
        for (uint32_t q = d->n; q-- > 1;) {
            bool is = x->what[q] != 0;
            for (uint32_t c = 0; c < d->classes && !is; c++)
                is = alive[d->to[(size_t)q * d->classes + c]];
            more |= is && !alive[q];
            alive[q] = is;
        }
    }
}

static uint32_t emit_dfa(struct gbuild *b, const struct gends *x, uint32_t next)
{
    const struct gdfa *d = x->d;
    bool *alive = gbuild_alloc(b, d->n, 1);
    uint32_t *read = gbuild_alloc(b, d->n, sizeof *read), *at = gbuild_alloc(b, d->n, sizeof *at);
    uint32_t *ends = gbuild_alloc(b, x->n + 1, sizeof *ends);
    if (b->code)
        return 0;
    find_alive(x, alive);
    for (size_t i = 0; i < x->n && !b->code; i++)
        ends[i] = emit(b, x->then[i], next);
    for (uint32_t q = 1; q < d->n && !b->code; q++)
        if (alive[q]) {
            read[q] = gnode_add(b, GOP_SPLIT, 0, 0, 0); /* its edges come below */
            at[q] =
                x->what[q] ? branch(b, (uint32_t[]){read[q], ends[x->what[q] - 1]}, 2) : read[q];
        }
    for (uint32_t q = 1; q < d->n && !b->code; q++) {
        struct gedge e[256];
        size_t k = 0;
        for (unsigned c = 0; c < 256 && alive[q]; c++) {
            uint32_t to = d->to[(size_t)q * d->classes + d->class[c]];
            if (!alive[to])
                continue;
            if (k && e[k - 1].to == at[to] && e[k - 1].hi + 1u == c)
                e[k - 1].hi = (uint8_t)c;
            else
                e[k++] = (struct gedge){(uint8_t)c, (uint8_t)c, at[to]};
        }
        uint32_t place = 0;
        if (alive[q] && edges_put(b, e, k, &place))
            b->g->node[read[q]] = (struct gnode){.op = GOP_EDGES, .a = place, .b = (uint32_t)k};
    }
    return b->code ? 0 : alive[1] ? at[1] : gedges_add(b, NULL, 0);
}

static uint32_t emit_alt(struct gbuild *b, const struct gx *x, uint32_t next)
{
    uint32_t *to = gbuild_alloc(b, x->n, sizeof *to);
    for (size_t i = 0; i < x->n && to; i++)
        to[i] = emit(b, x->list[i], next);
    return to ? branch(b, to, x->n) : 0;
}

/* Recursion is as deep as the trees are, which the front ends bound. */
static uint32_t emit(struct gbuild *b, const struct gx *x, uint32_t next)
{
    if (b->code)
        return 0;
    switch (x->kind) {
    case X_EMPTY:
        return next;
    case X_NEVER:
        return gedges_add(b, NULL, 0);
    case X_BYTES:
        return emit_bytes(b, x->s, x->n, next);
    case X_MARK:
        return emit_flagged(b, x->s, x->n, next, GF_FREE);
    case X_CLASS:
        return gclass_emit(b, x->set, next);
    case X_OTHER:
        return emit_other(b, x, next);
    case X_SEQ:
        for (size_t i = x->n; i > 0; i--)
            next = emit(b, x->list[i - 1], next);
        return next;
    case X_ALT:
        return emit_alt(b, x, next);
    case X_REP:
        return emit_rep(b, x, next);
    case X_CALL: {
        uint32_t node = gnode_add(b, GOP_CALL, x->a, next, 0);
        if (node && !next)
            b->g->node[node].flags = GF_TAIL;
        return node;
    }
    case X_CONTROL:
        return emit_control(b, x, next);
    case X_WORDS:
        return emit_words(b, x->w, x->n, 0, next, 0);
    case X_UNTIL:
        return emit_until(b, x, next);
    case X_MEMBERS:
        return emit_members(b, x->members, next);
    case X_DFA:
        return emit_dfa(b, x->ends, next);
    }
    return 0;
}

/* What may stand in front of the root: see enum grammar_thought. */
static void emit_starts(struct gbuild *b, uint32_t root)
{
    struct gx *gap = gx_rep(b, gx_text(b, "\n"), 0, 2);
    struct gx *thought = gx_until(b, "</think>", gap, false);
    struct gx *opened = GX_SEQ(b, gx_control(b, "<think>"), thought);
    if (b->code)
        return;
    b->g->start[GRAMMAR_THOUGHT_NONE] = root;
    b->g->start[GRAMMAR_THOUGHT_OPEN] = emit(b, thought, root);
    b->g->start[GRAMMAR_THOUGHT_MAYBE] = branch(b, (uint32_t[]){emit(b, opened, root), root}, 2);
}

static void shrink(void *array, size_t n, size_t size)
{
    void *at;
    memcpy(&at, array, sizeof at);
    void *p = realloc(at, num_max(n, 1) * size);
    if (p)
        memcpy(array, &p, sizeof p);
}

int gbuild_finish(struct gbuild *b, struct gx *x, struct grammar **out, struct err *e)
{
    struct grammar *g = b->g;
    *out = NULL;
    if (x && !b->code) {
        for (size_t i = 0; i < b->n_rules && !b->code; i++)
            if (b->rule[i].x)
                b->rule[i].entry = emit(b, b->rule[i].x, 0);
        emit_starts(b, emit(b, x, 0));
    }
    for (size_t i = 0; i < g->n_nodes && !b->code; i++)
        if (g->node[i].op == GOP_CALL)
            g->node[i].c = g->node[i].a; /* the rule, for messages */
    for (size_t i = 0; i < g->n_nodes && !b->code; i++)
        if (g->node[i].op == GOP_CALL)
            g->node[i].a = b->rule[g->node[i].c].entry;
    if (!b->code)
        ganalyse(b);
    if (b->code) {
        if (e)
            *e = b->err;
        return b->code;
    }
    shrink(&g->node, g->n_nodes, sizeof *g->node);
    shrink(&g->edge, g->n_edges, sizeof *g->edge);
    shrink(&g->target, g->n_targets, sizeof *g->target);
    *out = g;
    b->g = NULL;
    return 0;
}

/* ---- life ----------------------------------------------------------------------------------- */

bool grammar_has_calls(const struct grammar *g)
{
    return g->calls;
}

struct grammar *grammar_ref(struct grammar *g)
{
    atomic_fetch_add(&g->refs, 1);
    return g;
}

void grammar_unref(struct grammar *g)
{
    if (!g || atomic_fetch_sub(&g->refs, 1) > 1)
        return;
    gmatch_free(g->match);
    for (size_t i = 0; i < g->n_texts; i++)
        free(g->text[i].s);
    free(g->node);
    free(g->edge);
    free(g->target);
    free(g->loop);
    free(g->text);
    free(g->need);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
