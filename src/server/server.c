/*
 * The server: HTTP, models and metrics put together.
 *
 * It ends from the outside in: connections first, whose handlers are told that their clients have
 * left, then the models, whose requests then end, then what these were counted in.
 */
#include "server/server.h"

#include "server/job.h"
#include "server/route.h"

#include <stdlib.h>
#include <string.h>

void server_opts_init(struct server_opts *o)
{
    memset(o, 0, sizeof *o);
    o->http.host = "127.0.0.1";
    o->http.port = 11434;
    o->http.fd = -1;
    o->http.access_log = true;
    hub_opts_init(&o->hub);
    o->think_max = -1;
    o->think_loops = true;
    o->n_max = 16;
}

int server_new(struct server **out, const struct server_opts *o, struct err *e)
{
    *out = NULL;
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, sizeof *s, "the server");
    s->o = *o;
    s->o.http.route = route_all(&s->o.http.n_route);
    s->o.http.arg = s;
    int rc = metrics_new(&s->metrics, e);
    s->o.hub.step = metrics_step;
    s->o.hub.step_arg = s->metrics;
    if (!rc)
        rc = job_desk_new(&s->desk, e);
    if (!rc)
        rc = hub_new(&s->hub, &s->o.hub, e);
    /* Last: from here on requests come. */
    if (!rc)
        rc = http_new(&s->http, &s->o.http, e);
    if (rc)
        server_free(s);
    else
        *out = s;
    return rc;
}

void server_drain(struct server *s, bool (*now)(void *arg), void *arg)
{
    http_drain(s->http);
    while (!now(arg) && !http_wait(s->http, 0.2))
        ;
}

void server_free(struct server *s)
{
    if (!s)
        return;
    http_free(s->http);
    hub_free(s->hub);
    job_desk_free(s->desk);
    metrics_free(s->metrics);
    free(s);
}
