/*
 * Tool calls in the forms that models write them:
 *
 *   DeepSeek R1, V3   function<｜tool▁sep｜>NAME\n```json\n{…}\n```
 *   DeepSeek V3.1     NAME<｜tool▁sep｜>{…}
 *   Hermes, Qwen      {"name": …, "arguments": {…}} between <tool_call> tags
 *   Llama 3.1         {"name": …, "parameters": {…}} as the whole answer
 *
 * The arguments are checked as JSON and passed on as they are, not through a tree of values: so
 * numbers keep their digits and keys their order.
 */
#include "text/parse_call.h"

#include "base/num.h"
#include "text/jsonscan.h"

#include <string.h>

static const char sep[] = "<｜tool▁sep｜>";

struct call_text {
    struct buf name;      /* empty: none was found */
    struct buf arguments; /* JSON text; empty: none */
    bool is_object;       /* the arguments are an object */
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void trim(const char **s, size_t *n)
{
    while (*n && is_blank(**s)) {
        (*s)++;
        (*n)--;
    }
    while (*n && is_blank((*s)[*n - 1]))
        (*n)--;
}

/* Takes a "```json" fence off. */
static void unfence(const char **s, size_t *n)
{
    trim(s, n);
    if (*n < 3 || memcmp(*s, "```", 3) != 0)
        return;
    *s += 3;
    *n -= 3;
    while (*n && ((**s >= 'a' && **s <= 'z') || (**s >= 'A' && **s <= 'Z'))) {
        (*s)++;
        (*n)--;
    }
    trim(s, n);
    if (*n >= 3 && !memcmp(*s + *n - 3, "```", 3))
        *n -= 3;
    trim(s, n);
}

static bool fatal(int code)
{
    return code == ERR_NOMEM || code == ERR_LIMIT;
}

/* Is all of s one JSON object? */
static bool is_object(const char *s, size_t n)
{
    struct jscan j;
    struct err ignored;
    jscan_init(&j, s, n);
    bool ok = jscan_peek(&j) == '{' && !jscan_skip(&j, NULL, &ignored) && !jscan_end(&j, &ignored);
    jscan_release(&j);
    return ok;
}

/* A JSON string literal of s. */
static int put_string(struct buf *out, const char *s, size_t n, struct err *e)
{
    int code = buf_putc(out, '"', e);
    for (size_t i = 0; i < n && !code; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\')
            code = buf_printf(out, e, "\\%c", c);
        else if (c < 0x20)
            code = buf_printf(out, e, "\\u%04x", c);
        else
            code = buf_putc(out, (char)c, e);
    }
    return code ? code : buf_putc(out, '"', e);
}

/* The value of "arguments": an object as it is, or a string. */
static int read_arguments(struct jscan *j, struct call_text *c, struct err *e)
{
    struct jstr s;
    int code;
    buf_clear(&c->arguments);
    if (jscan_peek(j) != '"') {
        if ((code = jscan_skip(j, &s, e)))
            return code;
        c->is_object = s.n && s.p[0] == '{';
        return buf_append(&c->arguments, s.p, s.n, e);
    }
    if ((code = jscan_string(j, &s, e)))
        return code;
    trim(&s.p, &s.n);
    c->is_object = is_object(s.p, s.n);
    return c->is_object ? buf_append(&c->arguments, s.p, s.n, e)
                        : put_string(&c->arguments, s.p, s.n, e);
}

static bool is(const struct jstr *s, const char *word)
{
    return s->n == strlen(word) && !memcmp(s->p, word, s->n);
}

/* Members of a call object; `outer` allows one level of {"function": {…}}. */
static int read_object(struct jscan *j, bool outer, struct call_text *c, struct err *e)
{
    struct jstr key;
    bool first = true, more;
    int code = jscan_enter(j, '{', e);
    while (!code && !(code = jscan_more(j, '}', &first, &more, e)) && more) {
        if ((code = jscan_key(j, &key, e)))
            break;
        if (is(&key, "name") && jscan_peek(j) == '"') {
            if (!(code = jscan_string(j, &key, e))) {
                buf_clear(&c->name);
                code = buf_append(&c->name, key.p, key.n, e);
            }
        } else if (is(&key, "arguments") || is(&key, "parameters")) {
            code = read_arguments(j, c, e);
        } else if (outer && is(&key, "function") && jscan_peek(j) == '{') {
            code = read_object(j, false, c, e);
        } else {
            code = jscan_skip(j, NULL, e);
        }
    }
    return code;
}

static int write_call(struct buf *out, const char *name, size_t n, const char *arguments, size_t k,
                      struct err *e)
{
    size_t before = out->len;
    int code = buf_puts(out, "{\"name\":", e);
    if (!code)
        code = put_string(out, name, n, e);
    if (!code)
        code = buf_puts(out, ",\"arguments\":", e);
    if (!code)
        code = buf_append(out, arguments, k, e);
    if (!code)
        code = buf_putc(out, '}', e);
    if (code)
        out->len = before;
    return code;
}

/* An object at the start of s. `strict`: it must have an object of arguments. */
static int read_call(struct buf *out, const char *s, size_t n, bool strict, size_t *used, bool *ok,
                     struct err *e)
{
    struct call_text c = {.is_object = false};
    struct jscan j;
    struct err bad;
    size_t max = out->max;
    buf_init(&c.name, max);
    buf_init(&c.arguments, max);
    jscan_init(&j, s, n);
    int code = jscan_peek(&j) == '{' ? read_object(&j, true, &c, &bad) : ERR_FORMAT;
    *ok = !code && c.name.len &&
          (c.is_object || (!strict && (!c.arguments.len || *c.arguments.data == '"')));
    *used = j.at;
    if (fatal(code) && e)
        *e = bad;
    code = fatal(code) ? code : 0;
    if (*ok)
        code = write_call(out, c.name.data, c.name.len, c.arguments.len ? c.arguments.data : "{}",
                          c.arguments.len ? c.arguments.len : 2, e);
    jscan_release(&j);
    buf_release(&c.name);
    buf_release(&c.arguments);
    return code;
}

int call_bare(struct buf *out, const char *s, size_t n, size_t *used, bool *ok, struct err *e)
{
    return read_call(out, s, n, true, used, ok, e);
}

int call_tagged(struct buf *out, const char *s, size_t n, bool *ok, struct err *e)
{
    size_t used, before = out->len;
    unfence(&s, &n);
    int code = read_call(out, s, n, false, &used, ok, e);
    if (*ok && used < n) { /* something follows the object */
        out->len = before;
        *ok = false;
    }
    return code;
}

int call_deepseek(struct buf *out, const char *s, size_t n, bool *ok, struct err *e)
{
    const char *at = memmem(s, n, sep, strlen(sep));
    *ok = false;
    if (!at)
        return 0;
    const char *name = s, *rest = at + strlen(sep);
    size_t k = (size_t)(at - s), left = n - k - strlen(sep);
    trim(&name, &k);
    trim(&rest, &left);
    if (left && *rest != '{') {
        /* "function" stood before the separator: the name comes after it, in a line of its own or
           directly before the fence */
        const char *line = rest;
        size_t len = 0;
        while (len < left && rest[len] != '\n' && rest[len] != '`' && rest[len] != '{')
            len++;
        name = line;
        k = len;
        rest += len;
        left -= len;
        trim(&name, &k);
    }
    unfence(&rest, &left);
    if (!k || !is_object(rest, left))
        return 0;
    *ok = true;
    return write_call(out, name, k, rest, left, e);
}

/* ---- calls that are still being written ------------------------------------------------------ */

struct cursor {
    const char *s;
    size_t n, i;
};

/* The next byte that is no white space; 0 at the end. */
static char next(struct cursor *c)
{
    while (c->i < c->n && is_blank(c->s[c->i]))
        c->i++;
    return c->i < c->n ? c->s[c->i] : 0;
}

/* A string without escapes: 1 with its place, 0 when it is not complete, -1 when it is none. */
static int plain_string(struct cursor *c, struct jstr *out)
{
    char q = next(c);
    if (q != '"')
        return q ? -1 : 0;
    size_t from = c->i + 1;
    for (size_t i = from; i < c->n; i++) {
        if (c->s[i] == '\\' || (unsigned char)c->s[i] < 0x20)
            return -1;
        if (c->s[i] == '"') {
            *out = (struct jstr){.p = c->s + from, .n = i - from};
            c->i = i + 1;
            return 1;
        }
    }
    return 0;
}

/* A byte that must come next: 1, 0 at the end, -1 for another. */
static int expect(struct cursor *c, char what)
{
    char b = next(c);
    c->i += b == what;
    return b == what ? 1 : b ? -1 : 0;
}

/* Skips "```json"; 0 when more of it may come. */
static int skip_fence(struct cursor *c)
{
    static const char fence[] = "```";
    next(c);
    for (size_t i = 0; i < 3; i++) {
        if (c->i + i == c->n)
            return 0;
        if (c->s[c->i + i] != fence[i])
            return 1;
    }
    c->i += 3;
    while (c->i < c->n && c->s[c->i] >= 'a' && c->s[c->i] <= 'z')
        c->i++;
    return c->i < c->n;
}

/* Members of {"name": …, "arguments": {…}}, maybe inside {"function": …}. */
static int tagged_begins(struct cursor *c, struct jstr *name)
{
    int got = skip_fence(c);
    got = got > 0 ? expect(c, '{') : got;
    for (bool inside = false; got > 0;) {
        struct jstr key, value;
        got = plain_string(c, &key);
        got = got > 0 ? expect(c, ':') : got;
        if (got <= 0)
            break;
        if (is(&key, "arguments") || is(&key, "parameters"))
            return !next(c) ? 0 : name->n && next(c) == '{' ? 1 : -1;
        if (!inside && is(&key, "function") && next(c) == '{') {
            inside = true;
            got = expect(c, '{');
            continue;
        }
        got = plain_string(c, &value);
        if (got > 0 && is(&key, "name"))
            *name = value;
        got = got > 0 ? expect(c, ',') : got;
    }
    return got;
}

static int deepseek_begins(struct cursor *c, struct jstr *name)
{
    const char *at = memmem(c->s, c->n, sep, strlen(sep));
    if (!at)
        return 0;
    size_t k = (size_t)(at - c->s);
    const char *s = c->s;
    c->i = k + strlen(sep);
    if (next(c) == '{') {
        trim(&s, &k);
        *name = (struct jstr){.p = s, .n = k};
        return k ? 1 : -1;
    }
    size_t from = c->i;
    while (c->i < c->n && c->s[c->i] != '\n' && c->s[c->i] != '`' && c->s[c->i] != '{')
        c->i++;
    if (c->i == c->n)
        return 0;
    s = c->s + from;
    k = c->i - from;
    trim(&s, &k);
    *name = (struct jstr){.p = s, .n = k};
    int got = skip_fence(c);
    if (got <= 0)
        return got;
    return !next(c) ? 0 : k && next(c) == '{' ? 1 : -1;
}

int call_begins(const char *s, size_t n, bool deepseek, struct buf *name, size_t *at, int *code,
                struct err *e)
{
    struct cursor c = {.s = s, .n = n};
    struct jstr found = {.n = 0};
    int got = deepseek ? deepseek_begins(&c, &found) : tagged_begins(&c, &found);
    *code = got > 0 ? buf_append(name, found.p, found.n, e) : 0;
    *at = c.i;
    return got;
}
