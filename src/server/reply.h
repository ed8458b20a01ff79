/* What the sinks of all APIs do alike: names of things, objects as text, and answers that are a
   list of blocks, of which one is open at a time. */
#ifndef PONDER_SERVER_REPLY_H
#define PONDER_SERVER_REPLY_H

#include "server/job.h"

/* How a handler begins that takes JSON: the body, a hold on the exchange, and `size` bytes of zeros
   for what it knows of the request; all are the caller's. NULL: an error has been sent. */
void *reply_begin(struct http_exchange *x, size_t size, json_t **body);

/* PREFIX and 24 random digits: no two answers share one. */
enum { REPLY_ID = 40 };
void reply_id(char out[REPLY_ID], const char *prefix);

/* Writes o (taken; NULL: there was no memory) as one piece of the answer. */
int reply_json(struct http_exchange *x, json_t *o, struct err *e);

/* The same as a named event: `type`, then o. `line` is working memory. */
int reply_named(struct http_exchange *x, const char *type, json_t *o, struct buf *line,
                struct err *e);

/* How an API writes blocks. `arg` is its request. */
struct reply_blocks {
    int thought, text, call;                         /* its names for the kinds of blocks */
    int (*open)(void *arg, int kind, struct err *e); /* closes the one before */
    int (*open_call)(void *arg, const char *name, size_t n, struct err *e);
    int (*add)(void *arg, const char *s, size_t n, struct err *e);
    int (*close)(void *arg, struct err *e);
};

/* A piece of text, thought or call into the block it belongs to; `now` is the kind that is open. */
int reply_piece(const struct reply_blocks *b, void *arg, int now, const struct request_event *ev,
                struct err *e);

#endif
