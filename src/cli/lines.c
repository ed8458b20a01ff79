/* See lines.h. */
#include "cli/lines.h"

#include "base/num.h"
#include "base/utf8.h"
#include "cli/term.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LINES_CHUNK = 1 << 16 };

void lines_init(struct lines *l, int fd)
{
    memset(l, 0, sizeof *l);
    l->fd = fd;
}

void lines_release(struct lines *l)
{
    free(l->data);
    lines_init(l, l->fd);
}

/* Reads more behind what is there. */
static int lines_fill(struct lines *l, struct err *e)
{
    struct err lost;
    if (l->at && l->data) {
        memmove(l->data, l->data + l->at, l->len - l->at);
        l->len -= l->at;
        l->at = 0;
    }
    if (l->len > LINES_MAX)
        return err_set(e, ERR_LIMIT, "line %zu is longer than %d bytes", l->number + 1, LINES_MAX);
    if (l->cap - l->len < LINES_CHUNK) {
        size_t cap = num_max(l->cap * 2, 2 * LINES_CHUNK);
        char *p = realloc(l->data, cap);
        if (!p)
            return err_nomem(e, cap, "a line of input");
        l->data = p;
        l->cap = cap;
    }
    if (term_flush(&lost)) {
        *e = lost;
        return lost.code;
    }
    ssize_t n;
    do
        n = read(l->fd, l->data + l->len, l->cap - l->len);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(e, "cannot read the input");
    l->end = n == 0;
    l->len += (size_t)n;
    return 0;
}

static bool lines_blank(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (s[i] != ' ' && s[i] != '\t' && s[i] != '\r')
            return false;
    return true;
}

int lines_next(struct lines *l, const char **s, size_t *n, struct err *e)
{
    size_t from = 0; /* bytes after `at` that hold no newline */
    for (;;) {
        const char *begin = l->data ? l->data + l->at : "";
        size_t have = l->len - l->at;
        const char *nl = have > from ? memchr(begin + from, '\n', have - from) : NULL;
        if (nl || (l->end && have)) {
            *s = begin;
            *n = nl ? (size_t)(nl - begin) : have;
            l->at += *n + (nl != NULL);
            l->number++;
            from = 0;
            if (lines_blank(*s, *n))
                continue;
            return 0;
        }
        *s = NULL;
        *n = 0;
        if (l->end)
            return 0;
        from = have;
        int rc = lines_fill(l, e);
        if (rc)
            return rc;
    }
}

int lines_json(struct lines *l, json_t **out, struct err *e)
{
    const char *s;
    size_t n;
    *out = NULL;
    int rc = lines_next(l, &s, &n, e);
    return rc || !s ? rc : lines_parse(s, n, l->number, out, e);
}

int lines_parse(const char *s, size_t n, size_t number, json_t **out, struct err *e)
{
    json_error_t je;
    *out = json_loadb(s, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (*out)
        return 0;
    if (!je.text[0]) /* no text: Jansson's allocation failed */
        return err_nomem(e, n, "a line of JSON");
    return err_set(e, ERR_FORMAT, "line %zu is not JSON: %s (byte %d)", number, je.text,
                   je.position);
}

int lines_read_all(struct buf *out, int fd, struct err *e)
{
    char chunk[16384];
    for (;;) {
        ssize_t n = read(fd, chunk, sizeof chunk);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(e, "cannot read the input");
        if (!n)
            return 0;
        int rc = buf_append(out, chunk, (size_t)n, e);
        if (rc)
            return err_ctx(e, "input");
    }
}

/* One character of a JSON string that needs an escape. */
static int lines_escape(struct buf *out, unsigned char c, struct err *e)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *p = c ? strchr(from, c) : NULL;
    return p ? buf_printf(out, e, "\\%c", to[p - from]) : buf_printf(out, e, "\\u%04x", c);
}

int lines_put_string(struct buf *out, const char *s, size_t n, struct err *e)
{
    int rc = buf_putc(out, '"', e);
    for (size_t i = 0; !rc && i < n;) {
        size_t plain = i;
        while (plain < n && (unsigned char)s[plain] >= 0x20 && s[plain] != '"' &&
               s[plain] != '\\' && (unsigned char)s[plain] < 0x7f)
            plain++;
        if (plain > i) {
            rc = buf_append(out, s + i, plain - i, e);
            i = plain;
            continue;
        }
        if ((unsigned char)s[i] < 0x80) {
            rc = s[i] == 0x7f ? buf_putc(out, s[i], e) : lines_escape(out, (unsigned char)s[i], e);
            i++;
            continue;
        }
        uint32_t cp;
        char c[4];
        i += utf8_next(s + i, n - i, &cp, NULL);
        rc = buf_append(out, c, utf8_put(c, cp), e);
    }
    return rc ? rc : buf_putc(out, '"', e);
}

int lines_print(struct buf *b, struct err *e)
{
    int rc = buf_putc(b, '\n', e);
    if (rc)
        return rc;
    if (fwrite(b->data, 1, b->len, stdout) != b->len)
        return err_errno(e, "cannot write the output");
    buf_clear(b);
    return 0;
}

int lines_print_json(const json_t *v, bool indent, struct err *e)
{
    if (json_dumpf(v, stdout,
                   JSON_ENCODE_ANY | (indent ? JSON_INDENT(2) : JSON_COMPACT) |
                       JSON_REAL_PRECISION(15)))
        return ferror(stdout) ? err_errno(e, "cannot write the output")
                              : err_nomem(e, 0, "the output");
    return putchar('\n') == EOF ? err_errno(e, "cannot write the output") : 0;
}
