/*
 * Fuzzing what the HTTP server parses itself. The first byte chooses: a target, a host, a pattern
 * against an origin, a line of a file of keys, bounds of JSON, where to cut an answer.
 */
#include "base/utf8.h"
#include "server/http_parse.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
    if (!ok)
        abort();
}

/* What comes out has no way up, no control characters, and is a fixed point. */
static void target(char *text)
{
    struct http_target t, again;
    if (!http_target_parse(&t, text) || !strcmp(t.path, "*"))
        return;
    must(t.path[0] == '/' && !strstr(t.path, "//") && utf8_valid(t.path, strlen(t.path)));
    must(!strstr(t.path, "/../") && !strstr(t.path, "/./"));
    size_t n = strlen(t.path);
    must(n < 3 || strcmp(t.path + n - 3, "/..") != 0);
    must(n == 1 || t.path[n - 1] != '/');
    for (const char *s = t.path; *s; s++)
        must((unsigned char)*s >= 0x20 && *s != 0x7f);
    must(t.n_param <= HTTP_PARAMS_MAX);
    for (size_t i = 0; i < t.n_param; i++)
        must(utf8_valid(t.param[i].name, strlen(t.param[i].name)) &&
             utf8_valid(t.param[i].value, strlen(t.param[i].value)));
    if (strpbrk(t.path, "%?#")) /* these would be read again */
        return;
    char *copy = strdup(t.path);
    must(copy && http_target_parse(&again, copy) && !strcmp(again.path, t.path));
    free(copy);
}

static void host(const char *text)
{
    char out[HTTP_HOST_MAX];
    if (!http_host_parse(text, out))
        return;
    must(strlen(out) < sizeof out);
    http_host_is_local(out, "machine");
}

static void cut(const char *s, size_t n)
{
    struct err e;
    if (n < 10)
        return;
    size_t max = 8 + (unsigned char)s[0] % (n - 9), at = http_cut(s + 1, n - 1, max);
    must(at > 0 && at <= max);
    if (utf8_valid(s + 1, n - 1))
        must(utf8_valid(s + 1, at) && utf8_valid(s + 1 + at, n - 1 - at));
    http_json_bounds(s, n, &e);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t hash[32];
    if (!size)
        return 0;
    size_t n = size - 1;
    char *text = malloc(n + 1);
    must(text != NULL);
    memcpy(text, data + 1, n);
    text[n] = 0;
    switch (data[0] % 5) {
    case 0:
        target(text);
        break;
    case 1:
        host(text);
        must(!http_bearer(text) || *http_bearer(text));
        break;
    case 2: {
        char *bar = strchr(text, '|');
        if (bar && n < 200) {
            *bar = 0;
            must(!http_match(text, bar + 1) || strlen(text) <= n);
            must(http_match(bar + 1, bar + 1) || strchr(bar + 1, '*'));
            must(http_match("*", bar + 1));
        }
        break;
    }
    case 3:
        http_key_line(text, n, hash);
        http_is_token(text, n);
        http_is_value(text, n);
        break;
    default:
        cut(text, n);
    }
    free(text);
    return 0;
}
