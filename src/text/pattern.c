/*
 * Pattern translation: tokenizer.json's patterns are written for Oniguruma with Ruby's syntax; here
 * they run in PCRE2. For most patterns the two agree. Where they do not, the pattern is either
 * rewritten to mean the same or refused with words, never silently different:
 *
 *     \s \S     Unicode's White_Space (PCRE2 adds U+180E)
 *     \w \W     letters, marks, decimal digits and letter numbers, connectors
 *     \h \H     a hexadecimal digit (PCRE2: horizontal space)
 *     \uHHHH    a character by number
 *     (?m)      the dot matches newlines (PCRE2: s); ^ and $ always work at every line
 *     X{n,m}+   a repeated repetition (PCRE2: possessive): refused
 *     [a[b]] [a&&b]   sets in sets: refused
 *     (*…)      only PCRE2 knows these: refused
 *
 * Also here: patterns that occur in real files and take quadratic time on hostile text, with an
 * equal one that does not.
 */
#include "text/pretok.h"

#include "base/num.h"

#include <string.h>

#define SPACE                                                                                    \
    "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}" \
    "\\x{3000}"
#define NOT_SPACE                                                                                \
    "\\x00-\\x08\\x0e-\\x1f\\x21-\\x84\\x86-\\x9f\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-" \
    "\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORD "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}"

struct class_escape {
    char c;
    const char *outside; /* as an atom */
    const char *inside;  /* as part of a set; NULL: cannot be written */
};

static const struct class_escape escapes[] = {
    {'s', "[" SPACE "]", SPACE}, {'S', "[^" SPACE "]", NOT_SPACE},  {'w', "[" WORD "]", WORD},
    {'W', "[^" WORD "]", NULL},  {'h', "[0-9a-fA-F]", "0-9a-fA-F"}, {'H', "[^0-9a-fA-F]", NULL},
};

/*
 * A run of spaces that does not end at $ would be tried again from each of its spaces. Only the
 * first one can succeed: all later starts reach the same ends.
 */
static const struct {
    const char *slow, *fast;
} equals[] = {
    {"\\s+$", "(?<!\\s)\\s+$"},
    {"\\s+\\z", "(?<!\\s)\\s+\\z"},
};

struct translation {
    struct buf *out;
    const char *s;
    size_t n, at;
    bool set; /* inside [] */
};

static int refuse(const struct translation *t, const char *what, struct err *e)
{
    return err_set(e, ERR_UNSUPPORTED, "the pattern '%.*s' uses %s, which is not supported",
                   (int)num_min(t->n, 200), t->s, what);
}

static int put(struct translation *t, size_t n, struct err *e)
{
    t->at += n;
    return buf_append(t->out, t->s + t->at - n, n, e);
}

static int translate_escape(struct translation *t, struct err *e)
{
    char c = t->at + 1 < t->n ? t->s[t->at + 1] : 0;
    for (size_t i = 0; i < NUM_COUNT(escapes); i++) {
        if (escapes[i].c != c)
            continue;
        const char *to = t->set ? escapes[i].inside : escapes[i].outside;
        if (!to)
            return refuse(t, "a negated escape in a set", e);
        t->at += 2;
        return buf_puts(t->out, to, e);
    }
    if (c == 'u') {
        if (t->n - t->at < 6)
            return refuse(t, "an incomplete \\u", e);
        int rc = buf_printf(t->out, e, "\\x{%.4s}", t->s + t->at + 2);
        t->at += 6;
        return rc;
    }
    return put(t, num_min(2, t->n - t->at), e);
}

/* "(": flags of a group. */
static int translate_group(struct translation *t, struct err *e)
{
    if (t->at + 1 < t->n && t->s[t->at + 1] == '*')
        return refuse(t, "a verb (*…)", e);
    if (t->at + 2 >= t->n || t->s[t->at + 1] != '?')
        return put(t, 1, e);
    int rc = put(t, 2, e);
    while (!rc && t->at < t->n && strchr("imx-", t->s[t->at])) {
        if (t->s[t->at] == 'm') {
            t->at++;
            rc = buf_putc(t->out, 's', e);
        } else {
            rc = put(t, 1, e);
        }
    }
    return rc;
}

/* "{": a repetition keeps its meaning unless a plus follows. */
static int translate_repeat(struct translation *t, struct err *e)
{
    size_t k = t->at + 1;
    while (k < t->n && ((t->s[k] >= '0' && t->s[k] <= '9') || t->s[k] == ','))
        k++;
    if (k > t->at + 1 && k + 1 < t->n && t->s[k] == '}' && t->s[k + 1] == '+')
        return refuse(t, "a plus after a counted repetition", e);
    return put(t, 1, e);
}

static int translate_set(struct translation *t, struct err *e)
{
    char c = t->s[t->at], next = t->at + 1 < t->n ? t->s[t->at + 1] : 0;
    if (c == '[') {
        const char *end;
        if (next != ':' || !(end = memchr(t->s + t->at, ']', t->n - t->at)))
            return refuse(t, "a set in a set", e);
        return put(t, (size_t)(end - (t->s + t->at)) + 1, e); /* [:alpha:] */
    }
    if (c == '&' && next == '&')
        return refuse(t, "an intersection of sets", e);
    if (c == ']')
        t->set = false;
    return put(t, 1, e);
}

int pattern_translate(struct buf *out, const char *s, size_t n, struct err *e)
{
    for (size_t i = 0; i < NUM_COUNT(equals); i++)
        if (strlen(equals[i].slow) == n && memcmp(equals[i].slow, s, n) == 0) {
            s = equals[i].fast;
            n = strlen(s);
            break;
        }
    struct translation t = {.out = out, .s = s, .n = n};
    int rc = 0;
    while (!rc && t.at < n) {
        char c = s[t.at];
        if (c == '\\') {
            rc = translate_escape(&t, e);
        } else if (t.set) {
            rc = translate_set(&t, e);
        } else if (c == '[') {
            t.set = true;
            rc = put(&t, 1, e);
            if (!rc && t.at < n && s[t.at] == '^')
                rc = put(&t, 1, e);
            if (!rc && t.at < n && s[t.at] == ']') /* in front it is a character of the set */
                rc = put(&t, 1, e);
        } else if (c == '(') {
            rc = translate_group(&t, e);
        } else if (c == '{') {
            rc = translate_repeat(&t, e);
        } else {
            rc = put(&t, 1, e);
        }
    }
    return rc;
}
