/* See http_parse.h. */
#include "server/http_parse.h"

#include "base/utf8.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <string.h>
#include <strings.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Decodes s in place; false for a bad escape or a control character. */
static bool unescape(char *s, bool plus)
{
    char *out = s;
    for (; *s; s++) {
        int c = (unsigned char)*s;
        if (c == '%') {
            int hi = hex_digit(s[1]), lo = hi < 0 ? -1 : hex_digit(s[2]);
            if (lo < 0)
                return false;
            c = hi * 16 + lo;
            s += 2;
        } else if (plus && c == '+') {
            c = ' ';
        }
        if (!c || (c < 0x20 && !plus) || c == 0x7f)
            return false;
        *out++ = (char)c;
    }
    *out = 0;
    return true;
}

/* Resolves "//", "." and ".." of a decoded path that begins with a slash. */
static void normalize(char *path)
{
    char *out = path, *s = path;
    while (*s) {
        while (*s == '/')
            s++;
        size_t n = strcspn(s, "/");
        if (n == 2 && s[0] == '.' && s[1] == '.') {
            while (out > path && *--out != '/')
                ;
        } else if (n && !(n == 1 && s[0] == '.')) {
            *out++ = '/';
            memmove(out, s, n);
            out += n;
        }
        s += n;
    }
    if (out == path)
        *out++ = '/';
    *out = 0;
}

static bool query_parse(struct http_target *t, char *q)
{
    for (char *next; q; q = next) {
        next = strchr(q, '&');
        if (next)
            *next++ = 0;
        if (!*q)
            continue;
        if (t->n_param == HTTP_PARAMS_MAX)
            return false;
        char *value = strchr(q, '=');
        if (value)
            *value++ = 0;
        else
            value = q + strlen(q);
        if (!unescape(q, true) || !unescape(value, true) || !utf8_valid(q, strlen(q)) ||
            !utf8_valid(value, strlen(value)))
            return false;
        t->param[t->n_param++] = (struct http_field){q, value};
    }
    return true;
}

bool http_target_parse(struct http_target *t, char *text)
{
    *t = (struct http_target){0};
    char *fragment = strchr(text, '#');
    if (fragment)
        return false;
    if (!strncasecmp(text, "http://", 7) || !strncasecmp(text, "https://", 8)) {
        char *host = strstr(text, "://") + 3;
        text = host + strcspn(host, "/?");
        if (*text != '/') /* over the last byte before it, which nobody needs */
            *--text = '/';
    }
    char *query = strchr(text, '?');
    if (query)
        *query++ = 0;
    t->path = text;
    if (!strcmp(text, "*"))
        return !query;
    if (*text != '/' || !unescape(text, false) || !utf8_valid(text, strlen(text)))
        return false;
    normalize(text);
    return query_parse(t, query);
}

bool http_host_parse(const char *text, char host[HTTP_HOST_MAX])
{
    size_t n;
    if (*text == '[') {
        text++;
        n = strcspn(text, "]");
        if (text[n] != ']')
            return false;
    } else {
        n = strcspn(text, ":");
    }
    const char *port = text + n + (text[n] == ']');
    if (n >= HTTP_HOST_MAX || (*port && *port != ':'))
        return false;
    if (*port && strspn(port + 1, "0123456789") != strlen(port + 1))
        return false;
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)text[i] <= ' ' || strchr("/@\\?#\"<>", text[i]))
            return false;
        host[i] = (char)tolower((unsigned char)text[i]);
    }
    /* A name may end in a dot: the same name. */
    if (n > 1 && host[n - 1] == '.')
        n--;
    host[n] = 0;
    return true;
}

bool http_match(const char *pattern, const char *s)
{
    const char *star = NULL, *back = NULL;
    while (*s) {
        if (*pattern == '*') {
            star = pattern++;
            back = s;
        } else if (tolower((unsigned char)*pattern) == tolower((unsigned char)*s)) {
            pattern++;
            s++;
        } else if (star) {
            pattern = star + 1;
            s = ++back;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return !*pattern;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcmp(s + n - m, end);
}

/* 4 bytes of an address nobody outside can have: this machine, private networks. */
static bool is_private4(const uint8_t a[4])
{
    return a[0] == 127 || a[0] == 10 || (a[0] == 172 && (a[1] & 0xf0) == 16) ||
           (a[0] == 192 && a[1] == 168) || (a[0] == 169 && a[1] == 254) ||
           !(a[0] | a[1] | a[2] | a[3]);
}

bool http_host_is_local(const char *host, const char *machine)
{
    uint8_t a[16];
    static const uint8_t one[16] = {[15] = 1}, none[16] = {0}, mapped[12] = {[10] = 255, 255};
    if (!*host || !strcmp(host, "localhost") || (machine && !strcasecmp(host, machine)))
        return true;
    if (inet_pton(AF_INET, host, a) == 1)
        return is_private4(a);
    if (inet_pton(AF_INET6, host, a) == 1)
        return !memcmp(a, one, 16) || !memcmp(a, none, 16) || (a[0] & 0xfe) == 0xfc ||
               (a[0] == 0xfe && (a[1] & 0xc0) == 0x80) ||
               (!memcmp(a, mapped, 12) && is_private4(a + 12));
    return ends_with(host, ".localhost") || ends_with(host, ".local") ||
           ends_with(host, ".internal");
}

const char *http_bearer(const char *value)
{
    if (strncasecmp(value, "bearer", 6) != 0 || (value[6] != ' ' && value[6] != '\t'))
        return NULL;
    value += 6;
    while (*value == ' ' || *value == '\t')
        value++;
    return *value ? value : NULL;
}

bool http_is_token(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && (!s[i] || !strchr("!#$%&'*+-.^_`|~", s[i])))
            return false;
    return n > 0;
}

bool http_is_value(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return false;
    return true;
}

int http_key_line(const char *line, size_t n, uint8_t hash[32])
{
    size_t i = 0;
    while (i < n && (line[i] == ' ' || line[i] == '\t'))
        i++;
    if (i == n || line[i] == '#' || line[i] == '\r')
        return 0;
    if (n - i < 64)
        return -1;
    for (size_t k = 0; k < 32; k++, i += 2) {
        int hi = hex_digit(line[i]), lo = hex_digit(line[i + 1]);
        if (hi < 0 || lo < 0)
            return -1;
        hash[k] = (uint8_t)(hi * 16 + lo);
    }
    return i == n || line[i] == ' ' || line[i] == '\t' || line[i] == '\r' ? 1 : -1;
}

int http_json_bounds(const char *s, size_t n, struct err *e)
{
    size_t depth = 0, values = 0, containers = 0;
    for (size_t i = 0; i < n; i++) {
        switch (s[i]) {
        case '"':
            for (i++; i < n && s[i] != '"'; i++)
                i += s[i] == '\\';
            break;
        case '[':
        case '{':
            values++;
            containers++;
            if (++depth > HTTP_JSON_DEPTH)
                return err_set(e, ERR_LIMIT, "the body is nested deeper than %d levels",
                               HTTP_JSON_DEPTH);
            break;
        case ']':
        case '}':
            depth -= depth > 0;
            break;
        case ',':
            values++;
            break;
        }
        if (values > HTTP_JSON_VALUES || containers > HTTP_JSON_CONTAINERS)
            return err_set(e, ERR_LIMIT,
                           "the body has more than %d values, or %d arrays and objects",
                           HTTP_JSON_VALUES, HTTP_JSON_CONTAINERS);
    }
    return 0;
}

size_t http_cut(const char *s, size_t n, size_t max)
{
    for (size_t i = max; i > 0; i--)
        if (s[i - 1] == '\n' && s[i] != '\n')
            return i;
    size_t open = utf8_incomplete(s, max);
    return open < max ? max - open : max;
}
