/*
 * A parser by recursive descent over the text. What TOML forbids about tables (defining one twice,
 * adding to an inline one, …) depends on how a table came to be, which its JSON object does not
 * tell: `marks`, a hash table by the objects' addresses, does.
 */
#include "train/toml.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum mark {
    MARK_NONE,
    MARK_IMPLICIT, /* a table that only was on the way of a header */
    MARK_HEADER,   /* [x], or an element of [[x]] */
    MARK_DOTTED,   /* made by a.b = …: only such keys of the same section add to it */
    MARK_TABLES,   /* the array of [[x]]; arrays and inline tables as values have no mark */
};

struct parser {
    const char *at, *begin, *end;
    struct buf text; /* of the string that is being read */
    struct err *e;
    struct slot {
        const json_t *v;
        enum mark mark;
    } * slots;
    size_t n_slots, used;
};

/* ---- errors ---------------------------------------------------------------------------------- */

static int fail_at(struct parser *p, const char *at, const char *what)
{
    size_t line = 1;
    const char *from = p->begin;
    for (const char *s = p->begin; s < at; s++)
        if (*s == '\n') {
            line++;
            from = s + 1;
        }
    size_t column = 1;
    while (from < at) {
        uint32_t cp;
        from += utf8_next(from, (size_t)(p->end - from), &cp, NULL);
        column++;
    }
    return err_set(p->e, ERR_FORMAT, "line %zu, column %zu: %s", line, column, what);
}

static int fail(struct parser *p, const char *what)
{
    return fail_at(p, p->at, what);
}

static int no_memory(struct parser *p)
{
    return err_nomem(p->e, 0, "a TOML text");
}

/* ---- marks ----------------------------------------------------------------------------------- */

static struct slot *slot_of(const struct parser *p, const json_t *v)
{
    size_t mask = p->n_slots - 1;
    size_t i = (size_t)hash_u64((uint64_t)(uintptr_t)v) & mask;
    while (p->slots[i].v && p->slots[i].v != v)
        i = (i + 1) & mask;
    return &p->slots[i];
}

static enum mark mark_of(const struct parser *p, const json_t *v)
{
    return p->n_slots ? slot_of(p, v)->mark : MARK_NONE;
}

static int set_mark(struct parser *p, const json_t *v, enum mark mark)
{
    if (2 * p->used >= p->n_slots) {
        struct parser old = *p;
        size_t n = p->n_slots ? 2 * p->n_slots : 64;
        struct slot *s = calloc(n, sizeof *s);
        if (!s)
            return no_memory(p);
        p->slots = s;
        p->n_slots = n;
        for (size_t i = 0; i < old.n_slots; i++)
            if (old.slots[i].v)
                *slot_of(p, old.slots[i].v) = old.slots[i];
        free(old.slots);
    }
    struct slot *s = slot_of(p, v);
    p->used += !s->v;
    *s = (struct slot){v, mark};
    return 0;
}

/* ---- characters ------------------------------------------------------------------------------ */

/* The character here, '\0' at the end (and for a NUL, which is nowhere allowed). */
static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static bool ahead(const struct parser *p, const char *s)
{
    size_t n = strlen(s);
    return (size_t)(p->end - p->at) >= n && !memcmp(p->at, s, n);
}

static void skip_blanks(struct parser *p)
{
    while (peek(p) == ' ' || peek(p) == '\t')
        p->at++;
}

/* A line's end here: its length, 0 when there is none. */
static size_t newline(const struct parser *p)
{
    return peek(p) == '\n' ? 1 : ahead(p, "\r\n") ? 2 : 0;
}

static bool is_control(char c)
{
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f;
}

static int skip_comment(struct parser *p)
{
    if (peek(p) != '#')
        return 0;
    while (p->at < p->end && !newline(p)) {
        if (is_control(*p->at))
            return fail(p, "a control character in a comment");
        p->at++;
    }
    return 0;
}

/* Blanks, comments and ends of lines: inside arrays, and between statements. */
static int skip_all(struct parser *p)
{
    for (;;) {
        skip_blanks(p);
        int rc = skip_comment(p);
        size_t n = newline(p);
        if (rc || !n)
            return rc;
        p->at += n;
    }
}

static int end_of_line(struct parser *p)
{
    skip_blanks(p);
    int rc = skip_comment(p);
    if (rc)
        return rc;
    if (p->at < p->end && !newline(p))
        return fail(p, "something follows; a new line is needed here");
    p->at += newline(p);
    return 0;
}

/* ---- strings --------------------------------------------------------------------------------- */

static int put(struct parser *p, const char *s, size_t n)
{
    return buf_append(&p->text, s, n, p->e);
}

static int hex_escape(struct parser *p, int digits)
{
    uint32_t cp = 0;
    char out[4];
    for (int i = 0; i < digits; i++, p->at++) {
        char c = peek(p);
        int v = c >= '0' && c <= '9'                 ? c - '0'
                : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                     : -1;
        if (v < 0)
            return fail(p, digits == 4 ? "\\u needs four hexadecimal digits"
                                       : "\\U needs eight hexadecimal digits");
        cp = cp << 4 | (uint32_t)v;
    }
    if (cp == 0 || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        return fail(p, "no character that a text can have");
    return put(p, out, utf8_put(out, cp));
}

/* Behind a backslash. */
static int escape(struct parser *p)
{
    static const char from[] = "btnfr\"\\", to[] = "\b\t\n\f\r\"\\";
    char c = peek(p);
    const char *x = c ? strchr(from, c) : NULL;
    if (c == 'u' || c == 'U') {
        p->at++;
        return hex_escape(p, c == 'u' ? 4 : 8);
    }
    if (!x)
        return fail(p, "no such escape; a backslash itself is written \\\\");
    p->at++;
    return put(p, &to[x - from], 1);
}

/* A backslash at the end of a line of a """ string: it and all blank that follows go. */
static bool line_break(struct parser *p)
{
    const char *was = p->at;
    skip_blanks(p);
    if (!newline(p)) {
        p->at = was;
        return false;
    }
    for (size_t n; (n = newline(p)) || peek(p) == ' ' || peek(p) == '\t';)
        p->at += n ? n : 1;
    return true;
}

/* """…""" or '''…''', behind the opening quotes. Up to two quotes may stand before the closing
   ones. */
static int long_string(struct parser *p, char quote, const char *open)
{
    const char three[] = {quote, quote, quote, '\0'};
    p->at += newline(p);
    for (int rc; p->at < p->end;) {
        if (ahead(p, three)) {
            size_t n = 3;
            while (n < 5 && p->at + n < p->end && p->at[n] == quote)
                n++;
            rc = put(p, p->at, n - 3);
            p->at += n;
            return rc;
        }
        char c = *p->at;
        size_t end = newline(p);
        if (end) {
            rc = put(p, "\n", 1);
            p->at += end;
        } else if (is_control(c)) {
            return fail(p, "a control character in a text; write it as an escape");
        } else if (c == '\\' && quote == '"') {
            p->at++;
            rc = line_break(p) ? 0 : escape(p);
        } else {
            rc = put(p, p->at++, 1);
        }
        if (rc)
            return rc;
    }
    return fail_at(p, open, "this text is never closed");
}

static int short_string(struct parser *p, char quote, const char *open)
{
    for (int rc; p->at < p->end && !newline(p);) {
        char c = *p->at;
        if (c == quote) {
            p->at++;
            return 0;
        }
        if (is_control(c))
            return fail(p, "a control character in a text; write it as an escape");
        p->at++;
        rc = c == '\\' && quote == '"' ? escape(p) : put(p, &c, 1);
        if (rc)
            return rc;
    }
    return fail_at(p, open, "this text is not closed on its line");
}

/* Any of the four; the text is in p->text. */
static int read_string(struct parser *p, bool key)
{
    const char *open = p->at;
    char quote = *p->at;
    buf_clear(&p->text);
    bool is_long = ahead(p, quote == '"' ? "\"\"\"" : "'''");
    if (is_long && key)
        return fail(p, "a key cannot be a text of several lines");
    p->at += is_long ? 3 : 1;
    return is_long ? long_string(p, quote, open) : short_string(p, quote, open);
}

/* ---- numbers and words ----------------------------------------------------------------------- */

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '_' || c == '-' ||
           c == '+' || c == '.' || c == ':';
}

/* Digits with single underscores between them are copied without; whether they are such. */
static bool digits(const char **s, const char *set, char *out, size_t *n, size_t cap)
{
    const char *p = *s;
    size_t was = *n;
    for (;; p++) {
        if (*p && strchr(set, *p) && *n + 1 < cap)
            out[(*n)++] = *p;
        else if (!(*p == '_' && *n > was && p[-1] != '_' && p[1] && strchr(set, p[1])))
            break;
    }
    *s = p;
    return *n > was;
}

static json_t *integer(const char *digit, int base, bool minus)
{
    errno = 0;
    unsigned long long v = strtoull(digit, NULL, base);
    if (errno || v > (unsigned long long)INT64_MAX + minus)
        return NULL;
    return json_integer(minus ? (json_int_t)(0 - v) : (json_int_t)v);
}

/* 0x1F, 0o17, 0b1 */
static json_t *prefixed(const char *s)
{
    char out[80];
    size_t n = 0;
    int base = s[1] == 'x' ? 16 : s[1] == 'o' ? 8 : 2;
    const char *set = base == 16 ? "0123456789abcdefABCDEF" : base == 8 ? "01234567" : "01";
    s += 2;
    if (!digits(&s, set, out, &n, sizeof out) || *s)
        return NULL;
    out[n] = '\0';
    return integer(out, base, false);
}

static json_t *number(const char *s)
{
    char out[128];
    size_t n = 0;
    bool minus = *s == '-', real = false;
    const char *first;
    if (s[0] == '0' && s[1] && strchr("xob", s[1]))
        return prefixed(s);
    if (*s == '-' || *s == '+')
        s++;
    if (minus)
        out[n++] = '-';
    first = s;
    if (!digits(&s, "0123456789", out, &n, 64) || (*first == '0' && s > first + 1))
        return NULL;
    if (*s == '.') {
        real = true;
        s++;
        out[n++] = '.';
        if (!digits(&s, "0123456789", out, &n, 112))
            return NULL;
    }
    if (*s == 'e' || *s == 'E') {
        real = true;
        s++;
        out[n++] = 'e';
        if (*s == '-' || *s == '+')
            out[n++] = *s++;
        if (!digits(&s, "0123456789", out, &n, sizeof out))
            return NULL;
    }
    out[n] = '\0';
    if (*s)
        return NULL;
    if (!real)
        return integer(out + minus, 10, minus);
    double v = strtod(out, NULL);
    return isfinite(v) ? json_real(v) : NULL;
}

static int read_word(struct parser *p, json_t **out)
{
    char word[128];
    size_t n = 0;
    while (p->at + n < p->end && n < sizeof word - 1 && is_word(p->at[n]))
        n++;
    memcpy(word, p->at, n);
    word[n] = '\0';
    if (!n)
        return fail(p, "a value is missing");
    const char *digit = word + (*word == '-' || *word == '+');
    if (!strcmp(word, "true") || !strcmp(word, "false")) {
        *out = json_boolean(*word == 't');
    } else if (!strcmp(digit, "inf") || !strcmp(digit, "nan")) {
        return fail(p, "inf and nan are not numbers that can be used here");
    } else if (*digit < '0' || *digit > '9') {
        return fail(p, "not a value; texts stand in quotes");
    } else if (strchr(word, ':') || (n >= 10 && word[4] == '-' && word[7] == '-')) {
        return fail(p, "dates and times are not understood; put them in quotes");
    } else if (!(*out = number(word))) {
        return fail(p, "not a number, or one that is too large; texts stand in quotes");
    }
    p->at += n;
    return 0;
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* One part of a key into p->text. */
static int read_key(struct parser *p)
{
    if (peek(p) == '"' || peek(p) == '\'')
        return read_string(p, true);
    buf_clear(&p->text);
    const char *from = p->at;
    while (p->at < p->end && is_word(*p->at) && !strchr("+.:", *p->at))
        p->at++;
    if (p->at == from)
        return fail(p, "a key is missing (letters, digits, _ and -, or in quotes)");
    return put(p, from, (size_t)(p->at - from));
}

/* Whether the key goes on: the dot and the blanks around it are skipped. */
static bool key_goes_on(struct parser *p)
{
    skip_blanks(p);
    if (peek(p) != '.')
        return false;
    p->at++;
    skip_blanks(p);
    return true;
}

/* Puts a new value under p->text; takes the reference. */
static int add(struct parser *p, json_t *table, json_t *v)
{
    if (!v)
        return no_memory(p);
    return json_object_set_new_nocheck(table, p->text.data, v) ? no_memory(p) : 0;
}

static int new_table(struct parser *p, json_t **table, enum mark mark)
{
    json_t *t = json_object();
    int rc = add(p, *table, t);
    if (!rc)
        rc = set_mark(p, t, mark);
    *table = t;
    return rc;
}

static int read_value(struct parser *p, json_t **out, int depth);

/* KEY = VALUE in a table at `depth`. */
static int read_pair(struct parser *p, json_t *table, int depth)
{
    const char *from = p->at;
    json_t *v = NULL, *old;
    int rc = read_key(p);
    while (!rc && key_goes_on(p)) {
        old = json_object_get(table, p->text.data);
        if (++depth >= TOML_DEPTH)
            return fail_at(p, from, "nested too deep");
        if (old && (!json_is_object(old) || mark_of(p, old) != MARK_DOTTED))
            return fail_at(p, from, "this key goes through something that was defined before");
        if (old)
            table = old;
        else
            rc = new_table(p, &table, MARK_DOTTED);
        if (!rc)
            rc = read_key(p);
    }
    if (rc)
        return rc;
    if (json_object_get(table, p->text.data))
        return fail_at(p, from, "this key was given before");
    char *key = strdup(p->text.data);
    if (!key)
        return no_memory(p);
    skip_blanks(p);
    if (peek(p) != '=')
        rc = fail(p, "a key needs '=' and a value");
    if (!rc) {
        p->at++;
        skip_blanks(p);
        rc = read_value(p, &v, depth + 1);
    }
    if (!rc && json_object_set_new_nocheck(table, key, v))
        rc = no_memory(p);
    free(key);
    return rc;
}

/* ---- values ---------------------------------------------------------------------------------- */

static int read_array(struct parser *p, json_t *array, int depth)
{
    const char *open = p->at++;
    for (int rc;;) {
        json_t *v;
        if ((rc = skip_all(p)))
            return rc;
        if (peek(p) == ']')
            break;
        if (p->at == p->end)
            return fail_at(p, open, "this array is never closed");
        if ((rc = read_value(p, &v, depth)))
            return rc;
        if (json_array_append_new(array, v))
            return no_memory(p);
        if ((rc = skip_all(p)))
            return rc;
        if (peek(p) == ',')
            p->at++;
        else if (peek(p) != ']')
            return p->at == p->end ? fail_at(p, open, "this array is never closed")
                                   : fail(p, "',' or ']' is needed here");
    }
    p->at++;
    return 0;
}

static int read_inline(struct parser *p, json_t *table, int depth)
{
    p->at++;
    skip_blanks(p);
    if (peek(p) == '}') {
        p->at++;
        return 0;
    }
    for (;;) {
        skip_blanks(p);
        int rc = read_pair(p, table, depth);
        if (rc)
            return rc;
        skip_blanks(p);
        char c = peek(p);
        if (c != ',' && c != '}')
            return fail(p, "',' or '}' is needed here, on the same line");
        p->at++;
        if (c == '}')
            return 0;
    }
}

/* `depth`: of the value, 1 for those of the outermost table. */
static int read_value(struct parser *p, json_t **out, int depth)
{
    char c = peek(p);
    int rc;
    *out = NULL;
    if (depth > TOML_DEPTH)
        return fail(p, "nested too deep");
    if (c == '"' || c == '\'') {
        rc = read_string(p, false);
        if (!rc && !(*out = json_stringn_nocheck(p->text.data, p->text.len)))
            rc = no_memory(p);
    } else if (c == '[' || c == '{') {
        *out = c == '[' ? json_array() : json_object();
        rc = !*out      ? no_memory(p)
             : c == '[' ? read_array(p, *out, depth + 1)
                        : read_inline(p, *out, depth);
    } else {
        rc = read_word(p, out);
    }
    if (rc) {
        json_decref(*out);
        *out = NULL;
    }
    return rc;
}

/* ---- headers --------------------------------------------------------------------------------- */

/* Goes down a part of a header that is not its last. */
static int step_into(struct parser *p, json_t **table, int *depth, const char *from)
{
    json_t *v = json_object_get(*table, p->text.data);
    if (++*depth >= TOML_DEPTH)
        return fail_at(p, from, "nested too deep");
    if (!v)
        return new_table(p, table, MARK_IMPLICIT);
    enum mark mark = mark_of(p, v);
    if (mark == MARK_TABLES) {
        v = json_array_get(v, json_array_size(v) - 1);
        ++*depth;
    } else if (mark == MARK_NONE) {
        return fail_at(p, from, "this table lies in something that is a value already");
    }
    *table = v;
    return 0;
}

static int open_table(struct parser *p, json_t **table, const char *from)
{
    json_t *v = json_object_get(*table, p->text.data);
    if (!v)
        return new_table(p, table, MARK_HEADER);
    if (mark_of(p, v) != MARK_IMPLICIT)
        return fail_at(p, from, "this table was defined before");
    *table = v;
    return set_mark(p, v, MARK_HEADER);
}

static int open_element(struct parser *p, json_t **table, const char *from)
{
    json_t *v = json_object_get(*table, p->text.data), *t;
    int rc = 0;
    if (!v) {
        v = json_array();
        rc = add(p, *table, v);
        if (!rc)
            rc = set_mark(p, v, MARK_TABLES);
    } else if (mark_of(p, v) != MARK_TABLES) {
        return fail_at(p, from, "this was defined before, and not as an array of tables");
    }
    if (rc)
        return rc;
    t = json_object();
    if (!t || json_array_append_new(v, t))
        return no_memory(p);
    *table = t;
    return set_mark(p, t, MARK_HEADER);
}

static int read_header(struct parser *p, json_t *root, json_t **table, int *depth)
{
    const char *from = p->at;
    bool element = ahead(p, "[[");
    *table = root;
    *depth = 0;
    p->at += element ? 2 : 1;
    skip_blanks(p);
    int rc = read_key(p);
    while (!rc && key_goes_on(p)) {
        rc = step_into(p, table, depth, from);
        if (!rc)
            rc = read_key(p);
    }
    if (rc)
        return rc;
    if (!ahead(p, element ? "]]" : "]"))
        return fail(p, element ? "']]' is needed here" : "']' is needed here");
    *depth += element ? 2 : 1;
    if (*depth >= TOML_DEPTH)
        return fail_at(p, from, "nested too deep");
    rc = element ? open_element(p, table, from) : open_table(p, table, from);
    p->at += element ? 2 : 1;
    return rc ? rc : end_of_line(p);
}

static int read_all(struct parser *p, json_t *root)
{
    json_t *table = root;
    int depth = 0;
    for (;;) {
        int rc = skip_all(p);
        if (rc)
            return rc;
        if (p->at == p->end)
            return 0;
        if (peek(p) == '[') {
            rc = read_header(p, root, &table, &depth);
        } else {
            rc = read_pair(p, table, depth);
            if (!rc)
                rc = end_of_line(p);
        }
        if (rc)
            return rc;
    }
}

/* The first byte that is no UTF-8; NULL when there is none. */
static const char *bad_byte(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool bad = false;
        size_t k = utf8_next(s + i, n - i, &cp, &bad);
        if (bad)
            return s + i;
        i += k;
    }
    return NULL;
}

int toml_parse(json_t **out, const char *text, size_t n, struct err *e)
{
    struct parser p = {.at = text, .begin = text, .end = text + n, .e = e};
    const char *bad = bad_byte(text, n);
    *out = NULL;
    buf_init(&p.text, n + 8);
    if (bad)
        return fail_at(&p, bad, "not UTF-8");
    if (ahead(&p, "\xef\xbb\xbf"))
        p.at += 3;
    json_t *root = json_object();
    int rc = root ? read_all(&p, root) : no_memory(&p);
    buf_release(&p.text);
    free(p.slots);
    if (rc)
        json_decref(root);
    else
        *out = root;
    return rc;
}
