#include "models.h"
#include "server/client.h"
#include "server/openapi.h"
#include "server/route.h"
#include "server/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ctype.h>
#include <jansson.h>

/* The server as a whole, over HTTP. */
static char *folder;
static struct server *server;
static int port;

static int setup(void **state)
{
    struct server_opts o;
    struct err e;
    (void)state;
    folder = models_folder();
    models_add(folder, "plain", "qwen2_tied", models_plain);
    server_opts_init(&o);
    o.http.port = 0;
    o.http.access_log = false;
    o.hub.dir = folder;
    o.hub.engine.threads = 1;
    if (server_new(&server, &o, &e))
        fail_msg("%s", e.text);
    port = http_port(server->http);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    server_free(server);
    models_drop(folder);
    return 0;
}

static json_t *fetch(const char *path, int want)
{
    char request[2000];
    struct reply r;
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", path);
    client_ask(port, request, &r);
    assert_int_equal(r.status, want);
    json_t *v = json_loadb(r.body, r.n, 0, NULL);
    reply_free(&r);
    return v;
}

/* Every $ref leads somewhere. */
static void check_refs(const json_t *all, const json_t *v)
{
    const char *key;
    json_t *x;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)v, key, x)
    {
        static const char base[] = "#/components/schemas/";
        if (!strcmp(key, "$ref")) {
            assert_int_equal(strncmp(json_string_value(x), base, strlen(base)), 0);
            if (!json_object_get(all, json_string_value(x) + strlen(base)))
                fail_msg("nothing is called %s", json_string_value(x));
        }
        check_refs(all, x);
    }
    json_array_foreach(v, i, x)
    {
        check_refs(all, x);
    }
}

static void all_public_routes_are_documented(void **state)
{
    size_t n, documented = 0;
    const struct http_route *r = route_all(&n);
    (void)state;
    json_t *o = fetch("/openapi.json", 200);
    assert_string_equal(json_string_value(json_object_get(o, "openapi")), "3.1.0");
    json_t *paths = json_object_get(o, "paths");
    json_t *schemas = json_object_get(json_object_get(o, "components"), "schemas");
    for (size_t i = 0; i < n; i++) {
        char path[128], method[8] = "";
        snprintf(path, sizeof path, "%s", r[i].path);
        if (strchr(path, '*'))
            snprintf(strchr(path, '*'), 10, "{model}");
        for (size_t k = 0; r[i].method[k]; k++)
            method[k] = (char)tolower((unsigned char)r[i].method[k]);
        json_t *op = json_object_get(json_object_get(paths, path), method);
        /* Those that are for later (pull, push, create, …) are not, and say so. */
        bool later = !strcmp(path, "/api/pull") || !strcmp(path, "/api/push");
        later |= !strcmp(path, "/api/create") || !strcmp(path, "/api/copy") ||
                 !strcmp(path, "/api/delete") || !strncmp(path, "/api/blobs/", 11);
        if (!op != later)
            fail_msg("%s %s", r[i].method, r[i].path);
        assert_int_equal(openapi_has(&r[i]), op != NULL);
        if (!op)
            continue;
        documented++;
        assert_true(json_string_length(json_object_get(op, "summary")) > 0);
        assert_non_null(json_object_get(json_object_get(op, "responses"), "200"));
        /* What takes a body says which. */
        if (r[i].body_max && strcmp(path, "/ping") != 0)
            assert_non_null(json_object_get(op, "requestBody"));
    }
    assert_true(documented > 40);
    check_refs(schemas, o);
    assert_null(json_object_get(o, "security")); /* no keys are asked for here */
    json_t *model = json_object_get(schemas, "ModelName");
    json_t *names = json_object_get(json_array_get(json_object_get(model, "anyOf"), 0), "enum");
    assert_string_equal(json_string_value(json_array_get(names, 0)), "plain");
    json_decref(o);
}

/* Through all layers: the same chat by each of the bases that clients are given. */
static void all_bases_lead_to_the_same(void **state)
{
    static const char *const bases[] = {"", "/v1", "/beta", "/beta/v1"};
    static const char body[] =
        "{\"model\":\"plain\",\"max_tokens\":8,\"temperature\":0,\"stream\":true,\"messages\":"
        "[{\"role\":\"user\",\"content\":\"hello\"}]}";
    char request[1000];
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct reply r;
        char type[64];
        snprintf(request, sizeof request,
                 "POST %s/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %zu\r\n"
                 "Authorization: Bearer anything\r\n\r\n%s",
                 bases[i], strlen(body), body);
        client_ask(port, request, &r);
        assert_int_equal(r.status, 200);
        assert_true(r.complete);
        assert_string_equal(reply_header(&r, "Content-Type", type, sizeof type),
                            "text/event-stream");
        assert_int_equal(strncmp(r.body, "data: {", 7), 0);
        assert_string_equal(r.body + r.n - 14, "data: [DONE]\n\n");
        reply_free(&r);
        snprintf(request, sizeof request, "%s/models", bases[i]);
        json_t *o = fetch(request, 200);
        assert_int_equal(json_array_size(json_object_get(o, "data")), 1);
        json_decref(o);
        snprintf(request, sizeof request, "%s/models/plain:latest", bases[i]);
        json_decref(fetch(request, 200));
        snprintf(request, sizeof request, "%s/models/no/such", bases[i]);
        o = fetch(request, 404);
        assert_non_null(json_object_get(json_object_get(o, "error"), "message"));
        json_decref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_public_routes_are_documented),
        cmocka_unit_test(all_bases_lead_to_the_same),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
