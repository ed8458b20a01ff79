/* The pieces of HTTP that this server parses itself: pure functions over hostile text. */
#ifndef PONDER_SERVER_HTTP_PARSE_H
#define PONDER_SERVER_HTTP_PARSE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_field {
    const char *name, *value;
};

enum {
    HTTP_TARGET_MAX = 8 << 10, /* bytes of a request's target */
    HTTP_PARAMS_MAX = 64,      /* of a query */
    HTTP_HOST_MAX = 256,
    HTTP_JSON_DEPTH = 64,
    HTTP_JSON_VALUES = 1 << 20,     /* of a body: what a byte can cost in memory is bounded */
    HTTP_JSON_CONTAINERS = 1 << 17, /* arrays and objects among them */
};

/*
 * Takes a request's target apart, in place. The path is decoded, with "//", "/./" and "/../"
 * resolved and without a slash at its end; query parameters are decoded ("+" is a space). Absolute
 * targets lose scheme and host. False: not a target (a bad escape, a NUL or control character, not
 * UTF-8, too many parameters).
 */
struct http_target {
    const char *path;
    struct http_field param[HTTP_PARAMS_MAX];
    size_t n_param;
};
bool http_target_parse(struct http_target *t, char *text);

/* "host:port", "[v6]:port" or an origin's part after "://" into the host in lower case. */
bool http_host_parse(const char *text, char host[HTTP_HOST_MAX]);

/* Whether a pattern with any number of '*' (each any text) is the whole of `s`; letters' case does
   not matter. */
bool http_match(const char *pattern, const char *s);

/* Whether a Host header names this machine, so that a page elsewhere cannot have made a browser
   believe that this server is its own (DNS rebinding). `machine`: its name, or NULL. */
bool http_host_is_local(const char *host, const char *machine);

/* The key in an Authorization header: "Bearer KEY", in any case; NULL: another scheme or none. */
const char *http_bearer(const char *value);

bool http_is_token(const char *s, size_t n); /* a header's name, a method */
bool http_is_value(const char *s, size_t n); /* no control characters but tabs */

/* A line of a file of keys, "sha256hex [name]": 1; empty or a comment: 0; else -1. */
int http_key_line(const char *line, size_t n, uint8_t hash[32]);

/* Whether a text can be parsed as JSON within bounds: depth, values, containers. Errors are those
   for clients. (That it is JSON is not checked.) */
int http_json_bounds(const char *s, size_t n, struct err *e);

/* The longest beginning of s[0..n) of at most `max` bytes that does not end inside of a character,
   at the end of an event or line if there is one. n > max ≥ 8. */
size_t http_cut(const char *s, size_t n, size_t max);

#endif
