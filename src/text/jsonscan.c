/*
 * See jsonscan.h. Values are checked against the grammar of RFC 8259 while they are passed over;
 * nesting is bounded, numbers only need to be read when they are integers.
 */
#include "text/jsonscan.h"

#include "base/utf8.h"

#include <string.h>

enum { DEPTH_MAX = 64 };

void jscan_init(struct jscan *j, const char *s, size_t n)
{
    *j = (struct jscan){.s = s, .n = n};
    buf_init(&j->scratch, n);
}

void jscan_release(struct jscan *j)
{
    buf_release(&j->scratch);
}

int jscan_fail(const struct jscan *j, struct err *e, const char *words)
{
    size_t line = 1;
    for (size_t i = 0; i < j->at && i < j->n; i++)
        line += j->s[i] == '\n';
    if (j->at >= j->n)
        return err_set(e, ERR_FORMAT, "the JSON text ends early, in line %zu", line);
    return err_set(e, ERR_FORMAT, "line %zu, byte %zu: %s", line, j->at, words);
}

char jscan_peek(struct jscan *j)
{
    while (j->at < j->n) {
        char c = j->s[j->at];
        if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            return c;
        j->at++;
    }
    return 0;
}

int jscan_enter(struct jscan *j, char open, struct err *e)
{
    if (jscan_peek(j) != open || j->at >= j->n)
        return jscan_fail(j, e,
                          open == '{' ? "an object is needed here" : "an array is needed here");
    j->at++;
    return 0;
}

int jscan_more(struct jscan *j, char close, bool *first, bool *more, struct err *e)
{
    char c = jscan_peek(j);
    *more = false;
    if (j->at < j->n && c == close) {
        j->at++;
        return 0;
    }
    if (!*first) {
        if (c != ',')
            return jscan_fail(j, e, "a comma or the closing bracket is missing");
        j->at++;
    }
    *first = false;
    *more = true;
    return 0;
}

static int hex4(struct jscan *j, uint32_t *out, struct err *e)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++, j->at++) {
        char c = j->at < j->n ? j->s[j->at] : 0;
        uint32_t d;
        if (c >= '0' && c <= '9')
            d = (uint32_t)(c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            d = (uint32_t)((c | 32) - 'a' + 10);
        else
            return jscan_fail(j, e, "\\u needs four hexadecimal digits");
        v = v << 4 | d;
    }
    *out = v;
    return 0;
}

/* j->at is behind the backslash. */
static int escape(struct jscan *j, struct err *e)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = j->at < j->n ? j->s[j->at] : 0;
    const char *k = c ? strchr(from, c) : NULL;
    if (k) {
        j->at++;
        return buf_putc(&j->scratch, to[k - from], e);
    }
    if (c != 'u')
        return jscan_fail(j, e, "unknown escape in a string");
    j->at++;
    uint32_t cp = 0, low = 0;
    int rc = hex4(j, &cp, e);
    if (rc)
        return rc;
    if (cp >= 0xd800 && cp < 0xdc00) {
        if (j->n - j->at < 2 || j->s[j->at] != '\\' || j->s[j->at + 1] != 'u')
            return jscan_fail(j, e, "half of a surrogate pair");
        j->at += 2;
        rc = hex4(j, &low, e);
        if (rc)
            return rc;
        if (low < 0xdc00 || low > 0xdfff)
            return jscan_fail(j, e, "half of a surrogate pair");
        cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
    } else if (cp >= 0xdc00 && cp < 0xe000) {
        return jscan_fail(j, e, "half of a surrogate pair");
    }
    char u[4];
    return buf_append(&j->scratch, u, utf8_put(u, cp), e);
}

int jscan_string(struct jscan *j, struct jstr *out, struct err *e)
{
    if (jscan_peek(j) != '"')
        return jscan_fail(j, e, "a string is needed here");
    size_t start = ++j->at;
    bool plain = true;
    unsigned char high = 0;
    buf_clear(&j->scratch);
    for (;;) {
        size_t from = j->at;
        unsigned char c = 0;
        while (j->at < j->n) {
            c = (unsigned char)j->s[j->at];
            if (c == '"' || c == '\\' || c < 0x20)
                break;
            high |= c;
            j->at++;
        }
        if (j->at >= j->n || c < 0x20)
            return jscan_fail(j, e, "control character in a string");
        if (c == '"' && plain)
            break;
        int rc = buf_append(&j->scratch, j->s + from, j->at - from, e);
        if (rc)
            return rc;
        if (c == '"')
            break;
        plain = false;
        j->at++;
        rc = escape(j, e);
        if (rc)
            return rc;
    }
    if (high & 0x80 && !utf8_valid(j->s + start, j->at - start))
        return jscan_fail(j, e, "a string that is not UTF-8");
    out->p = plain ? j->s + start : j->scratch.data;
    out->n = plain ? j->at - start : j->scratch.len;
    j->at++;
    return 0;
}

int jscan_key(struct jscan *j, struct jstr *out, struct err *e)
{
    int rc = jscan_string(j, out, e);
    if (rc)
        return rc;
    if (jscan_peek(j) != ':')
        return jscan_fail(j, e, "a colon is missing");
    j->at++;
    return 0;
}

static bool digit(const struct jscan *j)
{
    return j->at < j->n && j->s[j->at] >= '0' && j->s[j->at] <= '9';
}

/* *whole: no fraction and no exponent. */
static int number(struct jscan *j, bool *whole, struct err *e)
{
    *whole = true;
    if (j->at < j->n && j->s[j->at] == '-')
        j->at++;
    if (!digit(j))
        return jscan_fail(j, e, "a value is needed here");
    if (j->s[j->at] == '0')
        j->at++;
    else
        while (digit(j))
            j->at++;
    if (j->at < j->n && j->s[j->at] == '.') {
        *whole = false;
        j->at++;
        if (!digit(j))
            return jscan_fail(j, e, "a number without digits behind the point");
        while (digit(j))
            j->at++;
    }
    if (j->at < j->n && (j->s[j->at] | 32) == 'e') {
        *whole = false;
        j->at++;
        if (j->at < j->n && (j->s[j->at] == '+' || j->s[j->at] == '-'))
            j->at++;
        if (!digit(j))
            return jscan_fail(j, e, "a number without digits in its exponent");
        while (digit(j))
            j->at++;
    }
    return 0;
}

int jscan_int(struct jscan *j, int64_t *out, struct err *e)
{
    jscan_peek(j);
    size_t start = j->at;
    bool whole;
    int rc = number(j, &whole, e);
    if (rc) {
        j->at = start;
        return jscan_fail(j, e, "a whole number is needed here");
    }
    if (!whole)
        return jscan_fail(j, e, "a whole number is needed here");
    bool minus = j->s[start] == '-';
    int64_t v = 0;
    for (size_t i = start + minus; i < j->at; i++) {
        int64_t d = j->s[i] - '0';
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, d, &v))
            return jscan_fail(j, e, "a number that is too large");
    }
    if (!minus && __builtin_sub_overflow((int64_t)0, v, &v))
        return jscan_fail(j, e, "a number that is too large");
    *out = v;
    return 0;
}

static int literal(struct jscan *j, const char *word, struct err *e)
{
    size_t n = strlen(word);
    if (j->n - j->at < n || memcmp(j->s + j->at, word, n) != 0)
        return jscan_fail(j, e, "a value is needed here");
    j->at += n;
    return 0;
}

static int skip_scalar(struct jscan *j, char c, struct err *e)
{
    struct jstr s;
    bool whole;
    switch (c) {
    case '"':
        return jscan_string(j, &s, e);
    case 't':
        return literal(j, "true", e);
    case 'f':
        return literal(j, "false", e);
    case 'n':
        return literal(j, "null", e);
    default:
        return number(j, &whole, e);
    }
}

int jscan_skip(struct jscan *j, struct jstr *out, struct err *e)
{
    char close[DEPTH_MAX];
    bool first[DEPTH_MAX];
    int depth = 0, rc;
    jscan_peek(j);
    size_t start = j->at;
    do {
        char c = jscan_peek(j);
        if (c == '{' || c == '[') {
            if (depth == DEPTH_MAX)
                return jscan_fail(j, e, "nested too deeply");
            close[depth] = c == '{' ? '}' : ']';
            first[depth++] = true;
            j->at++;
        } else {
            rc = skip_scalar(j, c, e);
            if (rc)
                return rc;
        }
        while (depth > 0) { /* to the next value, out of all that end here */
            bool more;
            rc = jscan_more(j, close[depth - 1], &first[depth - 1], &more, e);
            if (rc)
                return rc;
            if (more)
                break;
            depth--;
        }
        if (depth > 0 && close[depth - 1] == '}') {
            struct jstr key;
            rc = jscan_key(j, &key, e);
            if (rc)
                return rc;
        }
    } while (depth > 0);
    if (out) {
        out->p = j->s + start;
        out->n = j->at - start;
    }
    return 0;
}

int jscan_end(struct jscan *j, struct err *e)
{
    jscan_peek(j);
    return j->at < j->n ? jscan_fail(j, e, "something follows the end of the value") : 0;
}
