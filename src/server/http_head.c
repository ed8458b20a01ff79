/*
 * What is checked when the head of a request is there, before its body is read: framing, encoding,
 * Host, origin, route, key, size.
 *
 * libmicrohttpd 0.9.75 has parsed the head by then, more tolerantly than is good behind a proxy
 * that reads it otherwise (request smuggling): it appends a folded value to the name of its field,
 * takes a line that begins with a colon for the end of the head, a lone LF for the end of a line,
 * and cuts values at NUL. All of that shows in its buffer, in which fields that are as they should
 * be follow each other without gaps up to the end of the head (head_scan); what does not is
 * refused. So are several Content-Length or Transfer-Encoding, both together, encodings other than
 * chunked, names that are no tokens, control characters in values.
 */
#include "server/http_private.h"

#include "base/num.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

struct head_scan {
    size_t n, bytes;
    const char
        *next; /* where the next field must begin; NULL: this release lays it out otherwise */
    const char *bad;
};

/* The two bytes of a line's end, which the library overwrites. */
static bool line_ends(const char *s)
{
    return !s[0] && !s[1];
}

static enum MHD_Result head_measure(void *cls, enum MHD_ValueKind kind, const char *name,
                                    size_t name_n, const char *value, size_t value_n)
{
    struct head_scan *s = cls;
    if (!value)
        value_n = 0;
    s->n++;
    s->bytes += name_n + value_n + 2;
    if (!http_is_token(name, name_n) || !http_is_value(value ? value : "", value_n))
        s->bad = "a header field is malformed";
    if (!s->next || s->bad)
        return MHD_YES;
    const char *v = name + name_n + 1; /* after the colon */
    v += name == s->next ? strspn(v, " \t") : 0;
    if (name != s->next || value != v || !line_ends(v + value_n))
        s->bad = "a header field is folded, or its line does not end in CRLF";
    s->next = v + value_n + 2;
    return MHD_YES;
}

struct head_copy {
    struct http_exchange *x;
    char *at;
};

static enum MHD_Result head_take(void *cls, enum MHD_ValueKind kind, const char *name,
                                 size_t name_n, const char *value, size_t value_n)
{
    struct head_copy *c = cls;
    struct http_field *f = &c->x->field[c->x->n_field++];
    f->name = c->at;
    memcpy(c->at, name, name_n);
    c->at[name_n] = 0;
    c->at += name_n + 1;
    if (!value)
        value_n = 0;
    while (value_n && (value[value_n - 1] == ' ' || value[value_n - 1] == '\t'))
        value_n--;
    f->value = c->at;
    if (value_n)
        memcpy(c->at, value, value_n);
    c->at[value_n] = 0;
    c->at += value_n + 1;
    return MHD_YES;
}

static void refuse(struct http_exchange *x, int status, const char *text)
{
    if (!x->whole)
        http_error(x, status, NULL, NULL, NULL, text);
}

/* Copies the fields: the connection's memory does not outlive it, a handler may. */
static bool head_fields(struct http_exchange *x, const char *method, const char *version)
{
    struct head_scan s = {0};
    const union MHD_ConnectionInfo *i =
        MHD_get_connection_info(x->c, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    size_t size = i ? i->header_size : 0;
    /* From 1.0 on the library is strict itself. */
    if (MHD_get_version()[0] == '0' && size) {
        s.next = version + strlen(version) + 2;
        if (!line_ends(s.next - 2))
            s.bad = "the first line does not end in CRLF";
    }
    MHD_get_connection_values_n(x->c, MHD_HEADER_KIND, head_measure, &s);
    if (s.next && !s.bad && (s.next + 2 != method + size || !line_ends(s.next)))
        s.bad = "the head does not end as it should";
    if (s.n > HTTP_FIELDS_MAX || size > HTTP_HEAD_MAX) {
        refuse(x, 431, "the head of the request is too large: at most 100 fields and 64 KiB");
        return false;
    }
    if (s.bad) {
        refuse(x, 400, s.bad);
        return false;
    }
    x->field = calloc(s.n + 1, sizeof *x->field);
    x->text = malloc(s.bytes + 1);
    if (!x->field || !x->text) {
        refuse(x, 503, "no memory for the request");
        return false;
    }
    MHD_get_connection_values_n(x->c, MHD_HEADER_KIND, head_take, &(struct head_copy){x, x->text});
    return true;
}

static size_t head_count(const struct http_exchange *x, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < x->n_field; i++)
        n += !strcasecmp(x->field[i].name, name);
    return n;
}

static void head_id(struct http_exchange *x)
{
    const char *id = http_header(x, "X-Request-Id");
    size_t n = id ? strlen(id) : 0;
    if (n && n < sizeof x->id && http_is_token(id, n)) {
        memcpy(x->id, id, n + 1);
        return;
    }
    unsigned char r[16];
    if (getrandom(r, sizeof r, GRND_NONBLOCK) != sizeof r)
        for (size_t k = 0; k < sizeof r; k++)
            r[k] = (unsigned char)(rng_os_seed() >> 16);
    memcpy(x->id, "req-", 5);
    for (size_t k = 0; k < sizeof r; k++)
        snprintf(x->id + 4 + 2 * k, 3, "%02x", r[k]);
}

/* Whether the body's length is said once and in a way that everybody understands alike. */
static bool head_framing(struct http_exchange *x, const char *version, bool *chunked,
                         uint64_t *length)
{
    size_t cl = head_count(x, "Content-Length"), te = head_count(x, "Transfer-Encoding");
    const char *te_value = http_header(x, "Transfer-Encoding");
    const char *cl_value = http_header(x, "Content-Length");
    *chunked = te > 0;
    *length = cl_value ? strtoull(cl_value, NULL, 10) : 0;
    if (cl > 1 || te > 1 || (cl && te))
        refuse(x, 400, "the length of the body is given in more than one way");
    else if (cl && (!*cl_value || strspn(cl_value, "0123456789") != strlen(cl_value)))
        refuse(x, 400, "Content-Length is not a number");
    else if (te && !strcmp(version, "HTTP/1.0"))
        refuse(x, 400, "HTTP/1.0 has no Transfer-Encoding");
    else if (te && strcasecmp(te_value, "chunked") != 0)
        refuse(x, 501, "of transfer encodings only \"chunked\" is understood");
    else if (head_count(x, "Host") > 1)
        refuse(x, 400, "more than one Host");
    return !x->whole;
}

/* ---- routes ---------------------------------------------------------------------------------- */

/* The shape of errors for a path that is no route, or before one is known. */
static enum http_api path_api(const char *path)
{
    static const struct {
        const char *prefix;
        enum http_api api;
    } rows[] = {
        {"/api/", HTTP_OLLAMA},        {"/v1/messages", HTTP_ANTHROPIC}, {"/v1", HTTP_OPENAI},
        {"/beta", HTTP_OPENAI},        {"/chat/", HTTP_OPENAI},          {"/models", HTTP_OPENAI},
        {"/completions", HTTP_OPENAI}, {"/embeddings", HTTP_OPENAI},
    };
    for (size_t i = 0; i < NUM_COUNT(rows); i++)
        if (!strncmp(path, rows[i].prefix, strlen(rows[i].prefix)))
            return rows[i].api;
    return HTTP_PLAIN;
}

static bool route_has_path(const struct http_route *r, const char *path, const char **rest)
{
    size_t n = strlen(r->path);
    *rest = NULL;
    if (n < 2 || r->path[n - 1] != '*' || r->path[n - 2] != '/')
        return !strcmp(r->path, path);
    if (strncmp(r->path, path, n - 1) != 0 || !path[n - 1])
        return false;
    *rest = path + n - 1;
    return true;
}

/* "GET, HEAD, OPTIONS": the methods of a path; empty when there is no such path. */
static void route_allow(const struct http *h, const char *path, char allow[64])
{
    const char *rest;
    *allow = 0;
    for (size_t i = 0; i < h->o.n_route; i++) {
        const struct http_route *r = &h->o.route[i];
        size_t n = strlen(allow);
        if (route_has_path(r, path, &rest) && !strstr(allow, r->method))
            snprintf(allow + n, 64 - n, "%s%s%s", n ? ", " : "", r->method,
                     strcmp(r->method, "GET") ? "" : ", HEAD");
    }
    size_t n = strlen(allow);
    if (n)
        snprintf(allow + n, 64 - n, ", OPTIONS");
}

/* Sets the route, or refuses: 404, or 405 with the methods that there are. */
static bool head_route(struct http_exchange *x, const char *method)
{
    const struct http *h = x->h;
    const char *rest;
    char allow[64];
    x->head = !strcmp(method, "HEAD");
    for (size_t i = 0; i < h->o.n_route; i++) {
        const struct http_route *r = &h->o.route[i];
        if (!route_has_path(r, x->path, &rest))
            continue;
        if (!strcmp(r->method, x->head ? "GET" : method)) {
            x->route = r;
            x->api = r->api;
            x->method = r->method;
            x->rest = rest;
            return true;
        }
        x->api = r->api;
    }
    route_allow(h, x->path, allow);
    if (*allow) {
        http_set(x, "Allow", allow);
        refuse(x, 405, "this path does not have that method");
        return false;
    }
    char text[300];
    snprintf(text, sizeof text, "there is no \"%.200s\" here", x->path);
    refuse(x, 404, text);
    return false;
}

/* ---- who asks -------------------------------------------------------------------------------- */

static bool is_token_list(const char *s)
{
    return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ") ==
           strlen(s);
}

/* Host and Origin; answers preflights. */
static bool head_origin(struct http_exchange *x, const char *method)
{
    const char *host = http_header(x, "Host"), *origin = http_header(x, "Origin");
    const char *want = http_header(x, "Access-Control-Request-Headers");
    if (host && !http_rules_host(x->h, host)) {
        refuse(x, 403,
               "this server listens on this machine only, and the name in Host is not one of this "
               "machine: pages of other sites may not use it");
        return false;
    }
    if (origin) {
        http_set(x, "Vary", "Origin");
        if (!http_rules_origin(x->h, origin, host)) {
            refuse(x, 403,
                   "pages of this origin may not use this server; --allow-origin allows them");
            return false;
        }
        http_set(x, "Access-Control-Allow-Origin", http_rules_any_origin(x->h) ? "*" : origin);
        http_set(x, "Access-Control-Expose-Headers", "X-Request-Id, Retry-After");
    }
    if (strcmp(method, "OPTIONS") != 0)
        return true;
    if (origin) {
        http_set(x, "Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
        http_set(x, "Access-Control-Allow-Headers",
                 want && is_token_list(want) ? want : "Authorization, Content-Type");
        http_set(x, "Access-Control-Max-Age", "43200");
    } else {
        char allow[64];
        route_allow(x->h, x->path, allow);
        http_set(x, "Allow", *allow ? allow : "OPTIONS");
    }
    http_send(x, 204, NULL, "", 0);
    return false;
}

static bool head_key(struct http_exchange *x)
{
    /* Anthropic's clients say X-Api-Key, Azure's Api-Key; who says several means the first. */
    static const char *const names[] = {"Authorization", "X-Api-Key", "Api-Key"};
    const char *key = NULL;
    char text[200];
    if (!x->h->n_key || (x->route && x->route->open))
        return true;
    for (size_t i = NUM_COUNT(names); i-- > 0;) {
        const char *value = http_header(x, names[i]);
        if (head_count(x, names[i]) > 1) {
            refuse(x, 401, "more than one key");
            return false;
        }
        if (value)
            key = i ? value : http_bearer(value);
    }
    x->owner = key ? http_rules_key(x->h, key) : 0;
    if (x->owner)
        return true;
    size_t n = key ? strlen(key) : 0;
    if (key)
        snprintf(text, sizeof text, "the API key ****%s is not valid", n > 8 ? key + n - 4 : "");
    else
        snprintf(text, sizeof text,
                 "an API key is needed, in a header \"Authorization: Bearer KEY\"");
    http_set(x, "WWW-Authenticate", "Bearer");
    refuse(x, 401, text);
    return false;
}

/* ---- the body to come ------------------------------------------------------------------------ */

static bool head_body(struct http_exchange *x, bool chunked, uint64_t length)
{
    const char *encoding = http_header(x, "Content-Encoding");
    const char *expect = http_header(x, "Expect");
    char text[100];
    if (encoding && *encoding && strcasecmp(encoding, "identity") != 0) {
        refuse(x, 415, "bodies must come as they are, without Content-Encoding");
        return false;
    }
    if (expect && strcasecmp(expect, "100-continue") != 0) {
        refuse(x, 417, "of expectations only \"100-continue\" is understood");
        return false;
    }
    /* A small body where none belongs is read and ignored. */
    x->body_max = x->route->body_max;
    x->discard = !x->body_max && (chunked || length);
    if (x->discard)
        x->body_max = HTTP_DISCARD_MAX;
    x->body.max = x->body_max;
    if (!chunked && length > x->body_max) {
        snprintf(text, sizeof text, "the body has more than the %zu bytes that this path takes",
                 x->body_max);
        refuse(x, 413, text);
        return false;
    }
    return true;
}

void http_head(struct http_exchange *x, const char *method, const char *version)
{
    static const char *const methods[] = {"GET",    "HEAD",    "POST",  "PUT",    "PATCH",
                                          "DELETE", "OPTIONS", "TRACE", "CONNECT"};
    bool chunked = false;
    uint64_t length = 0;
    x->method = "?";
    for (size_t i = 0; i < NUM_COUNT(methods); i++)
        if (!strcmp(methods[i], method))
            x->method = methods[i];
    x->path = "?";
    x->head = !strcmp(method, "HEAD");
    x->chunked = strcmp(version, "HTTP/1.0") != 0;
    bool fields = head_fields(x, method, version);
    head_id(x);
    if (!fields) {
        x->close = true;
        return;
    }
    bool target = x->target_text && strlen(x->target_text) <= HTTP_TARGET_MAX &&
                  http_target_parse(&x->target, x->target_text);
    if (target)
        x->path = x->target.path;
    if (x->target_text) /* a malformed one has a beginning too */
        x->api = path_api(target ? x->path : x->target_text);
    if (!head_framing(x, version, &chunked, &length)) {
        x->close = true;
        return;
    }
    if (!target)
        refuse(x, x->target_text && strlen(x->target_text) > HTTP_TARGET_MAX ? 414 : 400,
               "the target of the request is malformed or longer than 8 KiB");
    else if (head_origin(x, method) && head_route(x, method) && head_key(x))
        head_body(x, chunked, length);
    if (x->whole) {
        /* A small body is read, so that the connection can go on; for a large one nobody waits. */
        const char *expect = http_header(x, "Expect");
        x->discard = true;
        x->close = chunked || length > HTTP_DISCARD_MAX || (expect && length);
    }
}
