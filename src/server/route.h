/* What the server answers to: route.def as a table. */
#ifndef PONDER_SERVER_ROUTE_H
#define PONDER_SERVER_ROUTE_H

#include "server/http.h"

const struct http_route *route_all(size_t *n);

#endif
