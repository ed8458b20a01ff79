/* The table of routes, and the handlers of those that belong to no API. */
#include "server/route.h"

#include "base/num.h"
#include "server/anthropic.h"
#include "server/ollama.h"
#include "server/openai.h"
#include "server/openapi.h"
#include "server/responses.h"

enum { METRICS_TEXT_MAX = 16 << 20 };

static void route_health(void *arg, struct http_exchange *x)
{
    http_send_json(x, 200, json_pack("{ss}", "status", "ok"));
}

static void route_version(void *arg, struct http_exchange *x)
{
    http_send_json(x, 200, json_pack("{ss}", "version", PONDER_VERSION));
}

/* Requests that are being answered, without this one. */
static void route_load(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    size_t n = http_active(s->http);
    http_send_json(x, 200, json_pack("{sI}", "server_load", (json_int_t)(n ? n - 1 : 0)));
}

static void route_metrics(void *arg, struct http_exchange *x)
{
    struct buf text;
    struct err e = {0};
    buf_init(&text, METRICS_TEXT_MAX);
    if (metrics_write(arg, &text, &e))
        http_error_from(x, &e);
    else
        http_send(x, 200, "text/plain; version=0.0.4; charset=utf-8", text.data, text.len);
    buf_release(&text);
}

static void route_no_pull(void *arg, struct http_exchange *x)
{
    http_error(x, 501, NULL, NULL, NULL,
               "this server does not download models: put the file into its folder of models and "
               "start it again");
}

static void route_no_push(void *arg, struct http_exchange *x)
{
    http_error(x, 501, NULL, NULL, NULL, "this server does not upload models");
}

static void route_no_store(void *arg, struct http_exchange *x)
{
    http_error(x, 501, NULL, NULL, NULL,
               "this server does not create, copy or delete models: its folder of models is "
               "changed by hand");
}

static const struct http_route rows[] = {
#define ROUTE(method, path, kind, api, open, body, fn) {method, path, kind, api, open, body, fn},
#include "server/route.def"
#undef ROUTE
};

const struct http_route *route_all(size_t *n)
{
    *n = NUM_COUNT(rows);
    return rows;
}
