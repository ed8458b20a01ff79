/*
 * openapi.json: what the server answers to, made from its own table of routes (route.def) and from
 * what is known of their handlers (openapi.def), so that it cannot name a route that is not there.
 * Routes that only say that something is not done here (route_no_…) are not in it.
 */
#ifndef PONDER_SERVER_OPENAPI_H
#define PONDER_SERVER_OPENAPI_H

#include "server/http.h"

struct server;

/* The document; NULL: no memory. New reference. */
json_t *openapi_document(const struct server *s);
/* Whether a route is in it. */
bool openapi_has(const struct http_route *r);
void openapi_send(void *arg, struct http_exchange *x);

#endif
