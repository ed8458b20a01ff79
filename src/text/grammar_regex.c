/*
 * Regular expressions in the syntax of ECMAScript (which JSON Schema's "pattern" uses): characters,
 * ".", classes, \d \w \s and their negations, groups, "|", and * + ? {m,n} greedy or lazy (which
 * say the same about a whole text). What is no regular language or would need more than a set of
 * texts is refused by name: lookaround, back references, word boundaries.
 *
 * The syntax becomes expressions one to one, so no pattern takes longer than it is long; matching
 * follows all ways at once and never goes back.
 *
 * For a schema, a pattern speaks of the value of a string: its characters are then those of the
 * value, written in JSON's shortest way, and without anchors it may begin and end anywhere in the
 * string. As a constraint of its own it describes the whole text.
 */
#include "base/num.h"
#include "base/utf8.h"
#include "text/grammar_impl.h"

#include <string.h>

struct re {
    struct gbuild *b;
    struct gjson *json; /* NULL: plain text */
    const char *s;
    size_t n, at;
    int depth;
    bool whole; /* describes the whole text */
};

static struct gx *fail(struct re *r, const char *what)
{
    return gbuild_fail(r->b, ERR_FORMAT, "the expression at byte %zu: %s", r->at + 1, what);
}

static struct gx *refuse(struct re *r, const char *what)
{
    return gbuild_fail(r->b, ERR_UNSUPPORTED, "the expression at byte %zu: %s", r->at + 1, what);
}

static bool more(const struct re *r)
{
    return r->at < r->n && !r->b->code;
}

static bool take(struct re *r, char c)
{
    if (!more(r) || r->s[r->at] != c)
        return false;
    r->at++;
    return true;
}

static uint32_t next_char(struct re *r)
{
    uint32_t cp = 0;
    bool bad = false;
    if (r->at < r->n)
        r->at += utf8_next(r->s + r->at, r->n - r->at, &cp, &bad);
    if (bad)
        fail(r, "not valid UTF-8");
    return cp;
}

static struct gx *of_set(struct re *r, struct gset *set)
{
    return r->json ? gjson_class(r->json, set) : gx_class(r->b, set);
}

static struct gx *of_char(struct re *r, uint32_t cp)
{
    struct gset set = {.n = 0};
    gset_add(r->b, &set, cp, cp);
    return of_set(r, &set);
}

/* Any text at all, around a pattern that is not anchored. */
static struct gx *anything(struct re *r)
{
    return gx_rep(r->b, gjson_char(r->json), 0, GRAMMAR_INF);
}

/* ---- escapes and classes -------------------------------------------------------------------- */

static void add_all(struct gbuild *b, struct gset *set, const struct grange *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gset_add(b, set, v[i].lo, v[i].hi);
}

/* The set of \d, \w, \s or their negation; false: c names no set. */
static bool named_set(struct re *r, uint32_t c, struct gset *out)
{
    static const struct grange d[] = {{'0', '9'}};
    static const struct grange w[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
    static const struct grange s[] = {
        {9, 13},          {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
        {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    struct gset set = {.n = 0};
    switch (c | 0x20) {
    case 'd':
        add_all(r->b, &set, d, NUM_COUNT(d));
        break;
    case 'w':
        add_all(r->b, &set, w, NUM_COUNT(w));
        break;
    case 's':
        add_all(r->b, &set, s, NUM_COUNT(s));
        break;
    default:
        return false;
    }
    if (!(c & 0x20))
        gset_invert(r->b, &set);
    add_all(r->b, out, set.v, set.n);
    return true;
}

static uint32_t hex(struct re *r, int digits)
{
    uint32_t x = 0;
    for (int i = 0; i < digits; i++) {
        char c = more(r) ? r->s[r->at++] : 0;
        uint32_t v = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a' + 10)
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A' + 10)
                                            : 16;
        if (v > 15) {
            fail(r, "hexadecimal digits are missing");
            return 0;
        }
        x = x << 4 | v;
    }
    return x;
}

/* \u: four digits, a pair of surrogates, or {…}. */
static uint32_t unicode(struct re *r)
{
    uint32_t x = 0;
    if (take(r, '{')) {
        int digits = 0;
        for (; more(r) && r->s[r->at] != '}' && digits < 7; digits++)
            x = x << 4 | hex(r, 1);
        if (!take(r, '}') || !digits || x > 0x10ffff)
            fail(r, "\\u{…} is wrong");
        return x;
    }
    x = hex(r, 4);
    if (x >= 0xd800 && x < 0xdc00 && r->n - r->at >= 6 && r->s[r->at] == '\\' &&
        r->s[r->at + 1] == 'u') {
        r->at += 2;
        uint32_t low = hex(r, 4);
        x = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((x - 0xd800) << 10) + (low - 0xdc00)
                                          : 0xd800;
    }
    if (x >= 0xd800 && x < 0xe000)
        fail(r, "half of a surrogate pair is no character");
    return x;
}

/* What follows a backslash. Either *set grows (true) or *cp is one character (false). */
static bool escape(struct re *r, struct gset *set, uint32_t *cp)
{
    static const char named[] = "t\tn\nr\rv\vf\f";
    uint32_t c = next_char(r);
    *cp = c;
    if (c < 128 && named_set(r, c, set))
        return true;
    for (const char *p = named; *p; p += 2)
        if (c == (unsigned char)p[0]) {
            *cp = (unsigned char)p[1];
            return false;
        }
    if (c == 'x')
        *cp = hex(r, 2);
    else if (c == 'u')
        *cp = unicode(r);
    else if (c == '0')
        *cp = 0;
    else if (c == 'c' && more(r) && ((r->s[r->at] | 0x20) >= 'a' && (r->s[r->at] | 0x20) <= 'z'))
        *cp = (uint32_t)r->s[r->at++] & 31;
    else if (c >= '1' && c <= '9')
        refuse(r, "back references are not supported");
    else if (c == 'b' || c == 'B')
        refuse(r, "word boundaries are not supported");
    else if (c == 'p' || c == 'P')
        refuse(r, "\\p{…} is not supported");
    else if (c == 'k')
        refuse(r, "back references are not supported");
    else if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || !c)
        fail(r, "unknown escape");
    return false;
}

/* One character of a class, or a named set (true). */
static bool class_item(struct re *r, struct gset *set, uint32_t *cp)
{
    if (!take(r, '\\')) {
        *cp = next_char(r);
        return false;
    }
    if (take(r, 'b')) {
        *cp = 8;
        return false;
    }
    return escape(r, set, cp);
}

static struct gx *class(struct re *r)
{
    struct gset set = {.n = 0};
    bool negated = take(r, '^');
    while (more(r) && r->s[r->at] != ']') {
        uint32_t lo, hi;
        if (class_item(r, &set, &lo))
            continue;
        if (r->at + 1 < r->n && r->s[r->at] == '-' && r->s[r->at + 1] != ']') {
            r->at++;
            if (class_item(r, &set, &hi)) { /* [a-\d]: the hyphen is one */
                gset_add(r->b, &set, lo, lo);
                gset_add(r->b, &set, '-', '-');
                continue;
            }
            if (hi < lo)
                return fail(r, "a range of a class ends before it begins");
            gset_add(r->b, &set, lo, hi);
        } else {
            gset_add(r->b, &set, lo, lo);
        }
    }
    if (!take(r, ']'))
        return fail(r, "\"[\" has no \"]\"");
    if (negated)
        gset_invert(r->b, &set);
    return of_set(r, &set);
}

/* ---- syntax --------------------------------------------------------------------------------- */

static struct gx *alternatives(struct re *r, bool top);

static struct gx *group(struct re *r)
{
    if (take(r, '?')) {
        if (take(r, '<')) {
            if (more(r) && (r->s[r->at] == '=' || r->s[r->at] == '!'))
                return refuse(r, "lookbehind is not supported");
            while (more(r) && r->s[r->at] != '>')
                r->at++;
            if (!take(r, '>'))
                return fail(r, "the name of a group has no \">\"");
        } else if (!take(r, ':')) {
            return more(r) && (r->s[r->at] == '=' || r->s[r->at] == '!')
                       ? refuse(r, "lookahead is not supported")
                       : refuse(r, "this kind of group is not supported");
        }
    }
    if (++r->depth > GRAMMAR_NEST_MAX)
        return gbuild_fail(r->b, ERR_LIMIT, "the expression nests more than %d groups",
                           GRAMMAR_NEST_MAX);
    struct gx *x = alternatives(r, false);
    r->depth--;
    return take(r, ')') ? x : fail(r, "\"(\" has no \")\"");
}

static struct gx *atom(struct re *r)
{
    struct gset set = {.n = 0};
    uint32_t cp;
    char c = r->s[r->at];
    switch (c) {
    case '(':
        r->at++;
        return group(r);
    case '[':
        r->at++;
        return class(r);
    case '.':
        r->at++;
        gset_add(r->b, &set, '\n', '\n');
        gset_add(r->b, &set, '\r', '\r');
        gset_add(r->b, &set, 0x2028, 0x2029);
        gset_invert(r->b, &set);
        return of_set(r, &set);
    case '\\':
        r->at++;
        return escape(r, &set, &cp) ? of_set(r, &set) : of_char(r, cp);
    case '*':
    case '+':
    case '?':
        return fail(r, "there is nothing to repeat");
    case '^':
        return refuse(r, "\"^\" is supported only at the beginning");
    case '$':
        return refuse(r, "\"$\" is supported only at the end");
    default:
        cp = next_char(r);
        return of_char(r, cp);
    }
}

static bool number(struct re *r, uint32_t *out)
{
    size_t from = r->at;
    uint32_t x = 0;
    for (; r->at < r->n && r->s[r->at] >= '0' && r->s[r->at] <= '9'; r->at++) {
        if (r->at - from >= 9) {
            fail(r, "the count of a repetition has more than nine digits");
            return false;
        }
        x = x * 10 + (uint32_t)(r->s[r->at] - '0');
    }
    *out = x;
    return r->at > from;
}

/* {m}, {m,} or {m,n}; anything else is no repetition, but text. */
static bool braces(struct re *r, uint32_t *min, uint32_t *max)
{
    size_t from = r->at;
    if (take(r, '{') && number(r, min)) {
        *max = *min;
        if (take(r, ',') && !number(r, max))
            *max = GRAMMAR_INF;
        if (take(r, '}'))
            return true;
    }
    r->at = from;
    return false;
}

static struct gx *repeated(struct re *r)
{
    uint32_t min = 1, max = 1;
    struct gx *x = atom(r);
    if (take(r, '*'))
        min = 0, max = GRAMMAR_INF;
    else if (take(r, '+'))
        max = GRAMMAR_INF;
    else if (take(r, '?'))
        min = 0;
    else if (!braces(r, &min, &max))
        return x;
    if (max < min)
        return fail(r, "the bounds of a repetition are the wrong way round");
    take(r, '?');
    if (more(r) && (r->s[r->at] == '*' || r->s[r->at] == '+' || r->s[r->at] == '?'))
        return fail(r, "a repetition cannot be repeated");
    return gx_rep(r->b, x, min, max);
}

/* One alternative up to "|", ")" or the end. Anchors count at the top only. */
static struct gx *sequence(struct re *r, bool top)
{
    struct gxs l = {.n = 0};
    bool begins = top && take(r, '^'), ends = false;
    if (top && !r->whole && !begins)
        gxs_add(r->b, &l, anything(r));
    while (more(r) && r->s[r->at] != '|' && r->s[r->at] != ')') {
        if (top && r->s[r->at] == '$' && (r->at + 1 == r->n || r->s[r->at + 1] == '|')) {
            r->at++;
            ends = true;
            break;
        }
        gxs_add(r->b, &l, repeated(r));
    }
    if (top && !r->whole && !ends)
        gxs_add(r->b, &l, anything(r));
    return gx_seq(r->b, l.v, l.n);
}

static struct gx *alternatives(struct re *r, bool top)
{
    struct gxs l = {.n = 0};
    do
        gxs_add(r->b, &l, sequence(r, top));
    while (take(r, '|'));
    return gx_alt(r->b, l.v, l.n);
}

struct gx *gregex(struct gbuild *b, const char *s, size_t n, struct gjson *json, bool whole)
{
    struct re r = {.b = b, .json = json, .s = s, .n = n, .whole = whole};
    struct gx *x = alternatives(&r, true);
    return r.at < r.n ? fail(&r, "\")\" without \"(\"") : x;
}
