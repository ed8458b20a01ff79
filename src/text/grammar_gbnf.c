/*
 * GBNF, llama.cpp's notation for grammars:
 *
 *     root  ::= item ("," item)*      # comments to the end of the line
 *     item  ::= [a-z]{2,5} | "\x41" | [^\n\u00e9] | .
 *
 * A rule ends at the end of its line, unless a bracket is open or a "|" or "::=" came last. Text
 * and classes know the escapes \n \r \t \\ \" \[ \] \- \^ \xHH \uHHHH \UHHHHHHHH. Each rule has one
 * definition. Left recursion is refused (grammar_link.c); token references (<…>) are not supported.
 */
#include "base/num.h"
#include "base/utf8.h"
#include "text/grammar_impl.h"

#include <string.h>

struct gbnf {
    struct gbuild *b;
    const char *s;
    size_t n, at;
    size_t first; /* its first rule in the build */
    int depth;
};

static struct gx *fail(struct gbnf *p, const char *what)
{
    size_t line = 1;
    for (size_t i = 0; i < p->at && i < p->n; i++)
        line += p->s[i] == '\n';
    return gbuild_fail(p->b, ERR_FORMAT, "the grammar at line %zu: %s", line, what);
}

static bool more(const struct gbnf *p)
{
    return p->at < p->n && !p->b->code;
}

static char peek(const struct gbnf *p)
{
    return more(p) ? p->s[p->at] : 0;
}

static bool take(struct gbnf *p, char c)
{
    if (!c || peek(p) != c)
        return false;
    p->at++;
    return true;
}

/* White space and comments; line breaks only where they end nothing. */
static void space(struct gbnf *p, bool lines)
{
    while (more(p)) {
        char c = peek(p);
        if (c == '#') {
            while (more(p) && peek(p) != '\n' && peek(p) != '\r')
                p->at++;
        } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
            p->at++;
        } else {
            return;
        }
    }
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_';
}

static struct gword name(struct gbnf *p)
{
    size_t from = p->at;
    while (more(p) && is_name(peek(p)))
        p->at++;
    if (p->at == from)
        fail(p, "the name of a rule is missing");
    return (struct gword){p->s + from, p->at - from};
}

/* The rule of that name, made when it is new. A grammar has few; those of hostile size are bounded
   by the limit of rules. */
static uint32_t rule_named(struct gbnf *p, struct gword w)
{
    for (size_t i = p->first; i < p->b->n_rules; i++)
        if (strlen(p->b->rule[i].name) == w.n && !memcmp(p->b->rule[i].name, w.s, w.n))
            return (uint32_t)i;
    if (p->b->n_rules - p->first >= 4096) {
        gbuild_fail(p->b, ERR_LIMIT, "the grammar has more than 4,096 rules");
        return 0;
    }
    return gbuild_rule(p->b, w.s, w.n);
}

/* ---- characters ----------------------------------------------------------------------------- */

static uint32_t hex(struct gbnf *p, int digits)
{
    uint32_t x = 0;
    for (int i = 0; i < digits; i++) {
        char c = peek(p);
        if (c >= '0' && c <= '9')
            x = x << 4 | (uint32_t)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            x = x << 4 | (uint32_t)((c | 0x20) - 'a' + 10);
        else
            fail(p, "hexadecimal digits are missing");
        p->at += c != 0;
    }
    if (x > 0x10ffff || (x >= 0xd800 && x < 0xe000))
        fail(p, "this number is no character");
    return x;
}

static uint32_t character(struct gbnf *p)
{
    uint32_t cp = 0;
    bool bad = false;
    if (!take(p, '\\')) {
        p->at += utf8_next(p->s + p->at, p->n - p->at, &cp, &bad);
        if (bad)
            fail(p, "not valid UTF-8");
        return cp;
    }
    char c = peek(p);
    p->at += c != 0;
    switch (c) {
    case 'x':
        return hex(p, 2);
    case 'u':
        return hex(p, 4);
    case 'U':
        return hex(p, 8);
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case '\\':
    case '"':
    case '[':
    case ']':
    case '-':
    case '^':
        return (unsigned char)c;
    default:
        fail(p, "unknown escape");
        return 0;
    }
}

static struct gx *text(struct gbnf *p)
{
    size_t end = p->at, n = 0;
    while (end < p->n && p->s[end] != '"')
        end += 1 + (p->s[end] == '\\');
    if (end >= p->n)
        return fail(p, "a text has no closing quote");
    /* no character takes more bytes than what writes it */
    char *out = gbuild_alloc(p->b, end - p->at + 4, 1);
    while (out && more(p) && p->at < end)
        n += utf8_put(out + n, character(p));
    if (!take(p, '"'))
        return fail(p, "a text has no closing quote");
    return gx_bytes(p->b, out, n);
}

static struct gx *class(struct gbnf *p)
{
    struct gset set = {.n = 0};
    bool negated = take(p, '^');
    while (more(p) && peek(p) != ']') {
        uint32_t lo = character(p), hi = lo;
        if (peek(p) == '-' && p->at + 1 < p->n && p->s[p->at + 1] != ']') {
            p->at++;
            hi = character(p);
            if (hi < lo)
                return fail(p, "a range of a class ends before it begins");
        }
        gset_add(p->b, &set, lo, hi);
    }
    if (!take(p, ']'))
        return fail(p, "\"[\" has no \"]\"");
    if (negated)
        gset_invert(p->b, &set);
    return gx_class(p->b, &set);
}

/* ---- rules ---------------------------------------------------------------------------------- */

static struct gx *alternates(struct gbnf *p, bool nested);

static struct gx *atom(struct gbnf *p, bool nested)
{
    if (take(p, '"'))
        return text(p);
    if (take(p, '['))
        return class(p);
    if (take(p, '.')) {
        struct gset all = {.n = 0};
        gset_add(p->b, &all, 0, 0x10ffff);
        return gx_class(p->b, &all);
    }
    if (take(p, '(')) {
        if (++p->depth > GRAMMAR_NEST_MAX)
            return gbuild_fail(p->b, ERR_LIMIT, "the grammar nests more than %d brackets",
                               GRAMMAR_NEST_MAX);
        space(p, true);
        struct gx *x = alternates(p, true);
        p->depth--;
        return take(p, ')') ? x : fail(p, "\"(\" has no \")\"");
    }
    if (peek(p) == '<' || peek(p) == '!')
        return gbuild_fail(p->b, ERR_UNSUPPORTED, "token references (<…>) are not supported");
    return gx_call(p->b, rule_named(p, name(p)));
}

static uint32_t count(struct gbnf *p)
{
    size_t from = p->at;
    uint32_t x = 0;
    for (; peek(p) >= '0' && peek(p) <= '9' && p->at - from < 9; p->at++)
        x = x * 10 + (uint32_t)(peek(p) - '0');
    if (p->at == from || (peek(p) >= '0' && peek(p) <= '9'))
        fail(p, "a count of one to nine digits is expected");
    return x;
}

/* An item with all its repetitions: a?* is allowed. */
static struct gx *item(struct gbnf *p, bool nested)
{
    struct gx *x = atom(p, nested);
    int times = 0;
    for (space(p, nested);; space(p, nested)) {
        uint32_t min = 0, max = GRAMMAR_INF;
        if (take(p, '+')) {
            min = 1;
        } else if (take(p, '?')) {
            max = 1;
        } else if (take(p, '{')) {
            space(p, nested);
            min = max = count(p);
            space(p, nested);
            if (take(p, ',')) {
                space(p, nested);
                max = peek(p) == '}' ? GRAMMAR_INF : count(p);
                space(p, nested);
            }
            if (!take(p, '}'))
                return fail(p, "\"{\" has no \"}\"");
            if (max < min)
                return fail(p, "the bounds of a repetition are the wrong way round");
        } else if (!take(p, '*')) {
            return x;
        }
        if (++times > 8)
            return fail(p, "one item is repeated more than eight times over");
        x = gx_rep(p->b, x, min, max);
    }
}

static struct gx *sequence(struct gbnf *p, bool nested)
{
    struct gxs l = {.n = 0};
    while (more(p) && !strchr("|)\r\n", peek(p)))
        gxs_add(p->b, &l, item(p, nested));
    return gx_seq(p->b, l.v, l.n);
}

static struct gx *alternates(struct gbnf *p, bool nested)
{
    struct gxs l = {.n = 0};
    gxs_add(p->b, &l, sequence(p, nested));
    while (take(p, '|')) {
        space(p, true);
        gxs_add(p->b, &l, sequence(p, nested));
    }
    return gx_alt(p->b, l.v, l.n);
}

static void rule(struct gbnf *p)
{
    uint32_t r = rule_named(p, name(p));
    space(p, false);
    if (p->b->code)
        return;
    if (p->n - p->at < 3 || memcmp(p->s + p->at, "::=", 3) != 0) {
        fail(p, "\"::=\" is expected behind the name of a rule");
        return;
    }
    p->at += 3;
    if (p->b->rule[r].x) {
        gbuild_fail(p->b, ERR_FORMAT, "rule \"%.100s\" is defined twice", p->b->rule[r].name);
        return;
    }
    space(p, true);
    gbuild_define(p->b, r, alternates(p, false));
    if (more(p) && peek(p) != '\n' && peek(p) != '\r')
        fail(p, "the end of the line is expected here");
    space(p, true);
}

static struct gx *grammar(struct gbnf *p)
{
    uint32_t root = rule_named(p, (struct gword){"root", 4});
    space(p, true);
    while (more(p))
        rule(p);
    for (size_t i = p->first; i < p->b->n_rules && !p->b->code; i++)
        if (!p->b->rule[i].x)
            gbuild_fail(p->b, ERR_FORMAT, "rule \"%.100s\" is not defined", p->b->rule[i].name);
    return gx_call(p->b, root);
}

struct gx *ggbnf(struct gbuild *b, const char *s, size_t n)
{
    struct gbnf p = {.b = b, .s = s, .n = n, .first = b->n_rules};
    if (n > GRAMMAR_TEXT_MAX)
        return gbuild_fail(b, ERR_LIMIT, "the grammar has more than %d MB", GRAMMAR_TEXT_MAX >> 20);
    return grammar(&p);
}
