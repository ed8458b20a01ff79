/* What sinks share: see reply.h. */
#include "server/reply.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *reply_begin(struct http_exchange *x, size_t size, json_t **body)
{
    *body = http_json(x);
    if (!*body)
        return NULL;
    void *r = calloc(1, size);
    if (!r) {
        json_decref(*body);
        http_error(x, 503, NULL, NULL, NULL, "no memory for a request");
        return NULL;
    }
    http_keep(x);
    return r;
}

void reply_id(char out[REPLY_ID], const char *prefix)
{
    uint32_t w[4];
    rng_block(rng_os_seed(), 0, 0, w);
    snprintf(out, REPLY_ID, "%s%08x%08x%08x", prefix, w[0], w[1], w[2]);
}

int reply_json(struct http_exchange *x, json_t *o, struct err *e)
{
    char *text = http_dump(x, o);
    int rc = text ? http_write(x, text, strlen(text), e) : err_nomem(e, 0, "an answer");
    free(text);
    json_decref(o);
    return rc;
}

int reply_named(struct http_exchange *x, const char *type, json_t *o, struct buf *line,
                struct err *e)
{
    char *text = http_dump(x, o);
    int rc = text ? 0 : err_nomem(e, 0, "an answer");
    buf_clear(line);
    if (!rc)
        rc = buf_printf(line, e, "%s\n", type);
    if (!rc)
        rc = buf_puts(line, text, e);
    if (!rc)
        rc = http_write(x, line->data, line->len, e);
    free(text);
    json_decref(o);
    return rc;
}

/* A whole call; one that has come in pieces is there already. */
static int reply_call(const struct reply_blocks *b, void *arg, int now,
                      const struct request_event *ev, struct err *e)
{
    if (now == b->call)
        return b->close(arg, e);
    char *name, *args;
    int rc = job_call(ev->text, ev->n, &name, &args, e);
    rc = rc ? rc : b->open_call(arg, name, strlen(name), e);
    rc = rc ? rc : b->add(arg, args, strlen(args), e);
    rc = rc ? rc : b->close(arg, e);
    free(name);
    free(args);
    return rc;
}

int reply_piece(const struct reply_blocks *b, void *arg, int now, const struct request_event *ev,
                struct err *e)
{
    if (ev->piece == PARSE_TOOL_CALL)
        return reply_call(b, arg, now, ev, e);
    if (ev->piece == PARSE_CALL_NAME)
        return b->open_call(arg, ev->text, ev->n, e);
    int kind = ev->piece == PARSE_REASONING ? b->thought : b->text, rc = 0;
    if (ev->piece != PARSE_CALL_ARGUMENTS && ev->n && now != kind)
        rc = b->open(arg, kind, e);
    return rc ? rc : b->add(arg, ev->text, ev->n, e);
}
