/*
 * JSON (RFC 8259) as expressions.
 *
 * What is allowed is less than JSON, so that a model can neither leave what it knows nor run on:
 *   white space: none, one space, or a line break with up to 32 spaces or tabs, behind "{", "[",
 *   ",", and before "}" and "]"; none or a space behind ":"; so compact and indented texts both
 * are; numbers: 18 digits for integers (they fit 64 bits), 16 before and 16 behind the point and an
 *   exponent of two digits for others (they fit a double);
 *   strings: valid UTF-8 without control characters, all escapes but that of NUL, surrogates only
 *   in pairs.
 */
#include "base/utf8.h"
#include "text/grammar_impl.h"

#include <string.h>

enum { INDENT_MAX = 32 };

static uint32_t rule_of(struct gjson *j, uint32_t *slot, const char *name)
{
    if (!*slot)
        *slot = gbuild_rule(j->b, name, strlen(name)) + 1;
    return *slot - 1;
}

struct gx *gjson_space(struct gjson *j)
{
    struct gbuild *b = j->b;
    struct gx *indent = gx_rep(b, gx_chars(b, "  \t\t"), 0, INDENT_MAX);
    return gx_opt(b, GX_ALT(b, gx_text(b, " "), GX_SEQ(b, gx_text(b, "\n"), indent)));
}

struct gx *gjson_colon(struct gjson *j)
{
    struct gbuild *b = j->b;
    return GX_SEQ(b, gx_text(b, ":"), gx_opt(b, gx_text(b, " ")));
}

/* ---- strings -------------------------------------------------------------------------------- */

/* Characters that stand for themselves in a string. */
static void plain_chars(struct gbuild *b, struct gset *set)
{
    gset_add(b, set, 0x20, 0x21);
    gset_add(b, set, 0x23, 0x5b);
    gset_add(b, set, 0x5d, 0x10ffff);
}

static struct gx *escape(struct gbuild *b)
{
    struct gx *hex = gx_chars(b, "09AFaf");
    struct gx *some = gx_chars(b, "19AFaf"), *zero = gx_text(b, "0");
    struct gx *unit = /* no surrogate, and not 0: many programs take no NUL */
        GX_ALT(b, GX_SEQ(b, gx_chars(b, "19ACEFacef"), hex, hex, hex),
               GX_SEQ(b, gx_chars(b, "DDdd"), gx_chars(b, "07"), hex, hex),
               GX_SEQ(b, zero,
                      GX_ALT(b, GX_SEQ(b, some, hex, hex), GX_SEQ(b, zero, some, hex),
                             GX_SEQ(b, zero, zero, some))));
    struct gx *high = GX_SEQ(b, gx_chars(b, "DDdd"), gx_chars(b, "89ABab"), hex, hex);
    struct gx *low = GX_SEQ(b, gx_chars(b, "DDdd"), gx_chars(b, "CFcf"), hex, hex);
    struct gx *after =
        GX_ALT(b, gx_chars(b, "\"\"\\\\//bbffnnrrtt"), GX_SEQ(b, gx_text(b, "u"), unit),
               GX_SEQ(b, gx_text(b, "u"), high, gx_text(b, "\\u"), low));
    return GX_SEQ(b, gx_text(b, "\\"), after);
}

/* Written out wherever it is needed: a call would put a frame under each character. */
struct gx *gjson_char(struct gjson *j)
{
    struct gset plain = {.n = 0};
    plain_chars(j->b, &plain);
    return GX_ALT(j->b, gx_class(j->b, &plain), escape(j->b));
}

struct gx *gjson_string(struct gjson *j)
{
    struct gbuild *b = j->b;
    bool made = j->string != 0;
    uint32_t rule = rule_of(j, &j->string, "string");
    if (!made)
        gbuild_define(b, rule,
                      GX_SEQ(b, gx_text(b, "\""), gx_rep(b, gjson_char(j), 0, GRAMMAR_INF),
                             gx_text(b, "\"")));
    return gx_call(b, rule);
}

/* The shortest way to write c in a string, where it cannot stand for itself; 0: it can. */
static size_t escaped(uint32_t c, char out[8])
{
    static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    static const char hex[] = "0123456789abcdef";
    for (const char *p = named; *p; p += 2)
        if ((uint32_t)(unsigned char)p[0] == c) {
            out[0] = '\\';
            out[1] = p[1];
            return 2;
        }
    if (c >= 0x20)
        return 0;
    memcpy(out, "\\u00", 4);
    out[4] = hex[c >> 4];
    out[5] = hex[c & 15];
    return 6;
}

struct gword gjson_quoted(struct gbuild *b, const char *s, size_t n)
{
    char *out = gbuild_alloc(b, 6 * n + 3, 1);
    size_t w = 0;
    if (!out)
        return (struct gword){"", 0};
    out[w++] = '"';
    for (size_t i = 0; i < n; i++) {
        size_t k = (unsigned char)s[i] < 0x80 ? escaped((unsigned char)s[i], out + w) : 0;
        if (!k)
            out[w] = s[i];
        w += k ? k : 1;
    }
    out[w++] = '"';
    return (struct gword){out, w};
}

struct gx *gjson_class(struct gjson *j, struct gset *set)
{
    struct gbuild *b = j->b;
    struct gset plain = {.n = 0}, cut = {.n = 0};
    struct gword word[0x22];
    size_t n = 0;
    gset_sort(set);
    for (uint32_t c = 0; c <= '\\'; c++) {
        char out[8], *copy;
        size_t len = gset_has(set, c) ? escaped(c, out) : 0;
        if (!len)
            continue;
        if (!(copy = gbuild_alloc(b, len, 1)))
            return NULL;
        memcpy(copy, out, len);
        word[n++] = (struct gword){copy, len};
    }
    /* what is left: the set without those */
    plain_chars(b, &plain);
    gset_sort(&plain);
    for (size_t i = 0, k = 0; i < set->n && k < plain.n;) {
        uint32_t lo = set->v[i].lo > plain.v[k].lo ? set->v[i].lo : plain.v[k].lo;
        uint32_t hi = set->v[i].hi < plain.v[k].hi ? set->v[i].hi : plain.v[k].hi;
        if (lo <= hi)
            gset_add(b, &cut, lo, hi);
        if (set->v[i].hi < plain.v[k].hi)
            i++;
        else
            k++;
    }
    struct gx *raw = gx_class(b, &cut);
    return n ? GX_ALT(b, raw, gx_words(b, word, n)) : raw;
}

/* ---- numbers -------------------------------------------------------------------------------- */

static struct gx *digits(struct gbuild *b, uint32_t min, uint32_t max)
{
    return gx_rep(b, gx_chars(b, "09"), min, max);
}

static struct gx *whole(struct gbuild *b, uint32_t most)
{
    return GX_SEQ(b, gx_opt(b, gx_text(b, "-")),
                  GX_ALT(b, gx_text(b, "0"), GX_SEQ(b, gx_chars(b, "19"), digits(b, 0, most - 1))));
}

struct gx *gjson_integer(struct gjson *j)
{
    return whole(j->b, 18);
}

struct gx *gjson_number(struct gjson *j)
{
    struct gbuild *b = j->b;
    struct gx *fraction = GX_SEQ(b, gx_text(b, "."), digits(b, 1, 16));
    struct gx *exponent =
        GX_SEQ(b, gx_chars(b, "EEee"), gx_opt(b, gx_chars(b, "++--")), digits(b, 1, 2));
    return GX_SEQ(b, whole(b, 16), gx_opt(b, fraction), gx_opt(b, exponent));
}

/* ---- values --------------------------------------------------------------------------------- */

/* open (item ("," item)*)? close, with white space. */
static struct gx *list(struct gjson *j, const char *open, struct gx *item, const char *close)
{
    struct gbuild *b = j->b;
    struct gx *space = gjson_space(j);
    struct gx *more = GX_SEQ(b, gx_text(b, ","), space, item);
    struct gx *items = GX_SEQ(b, item, gx_rep(b, more, 0, GRAMMAR_INF), space);
    return GX_SEQ(b, gx_text(b, open), space, gx_opt(b, items), gx_text(b, close));
}

struct gx *gjson_object(struct gjson *j)
{
    struct gbuild *b = j->b;
    bool made = j->object != 0;
    uint32_t rule = rule_of(j, &j->object, "object");
    if (!made)
        gbuild_define(
            b, rule, list(j, "{", GX_SEQ(b, gjson_string(j), gjson_colon(j), gjson_value(j)), "}"));
    return gx_call(b, rule);
}

struct gx *gjson_array(struct gjson *j)
{
    bool made = j->array != 0;
    uint32_t rule = rule_of(j, &j->array, "array");
    if (!made)
        gbuild_define(j->b, rule, list(j, "[", gjson_value(j), "]"));
    return gx_call(j->b, rule);
}

struct gx *gjson_value(struct gjson *j)
{
    struct gbuild *b = j->b;
    bool made = j->value != 0;
    uint32_t rule = rule_of(j, &j->value, "value");
    if (!made)
        gbuild_define(b, rule,
                      GX_ALT(b, gjson_object(j), gjson_array(j), gjson_string(j), gjson_number(j),
                             gx_text(b, "true"), gx_text(b, "false"), gx_text(b, "null")));
    return gx_call(b, rule);
}

struct gword gjson_word(struct gbuild *b, const json_t *v)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    size_t n = json_dumpb(v, NULL, 0, flags);
    char *out = n ? gbuild_alloc(b, n, 1) : NULL;
    if (!out) {
        gbuild_fail(b, ERR_NOMEM, "no memory for a value");
        return (struct gword){"", 0};
    }
    json_dumpb(v, out, n, flags);
    return (struct gword){out, n};
}

struct gx *gjson_literal(struct gbuild *b, const json_t *v)
{
    struct gword w = gjson_word(b, v);
    return gx_bytes(b, w.s, w.n);
}
