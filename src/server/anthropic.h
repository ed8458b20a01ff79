/* Anthropic's Messages API: what its files share. Private to anthropic_*.c. */
#ifndef PONDER_SERVER_ANTHROPIC_H
#define PONDER_SERVER_ANTHROPIC_H

#include "base/buf.h"
#include "server/fields.h"
#include "server/job.h"
#include "server/server.h"

enum { ANTHROPIC_STOPS = 16, ANTHROPIC_ID = 40 };

/* The block of an answer that is being written. */
enum anthropic_block { ANTHROPIC_NO_BLOCK, ANTHROPIC_TEXT, ANTHROPIC_THINKING, ANTHROPIC_TOOL };

struct anthropic_request {
    struct http_exchange *x; /* kept */
    json_t *body;            /* owned: what spec points into */
    struct job_spec spec;
    bool stream, count; /* count: only how many tokens the prompt has */
    char id[ANTHROPIC_ID];
    json_t *messages, *tools; /* owned; spec points to them */
    const char *stops[ANTHROPIC_STOPS];

    enum anthropic_block block;
    size_t index;    /* of the block that is open, or of the next one */
    json_t *content; /* finished blocks, when not streamed */
    struct buf text; /* of the open block */
    char tool[ANTHROPIC_ID];
    char *name; /* of the open call; owned */
    bool called;
    const char *stop_reason;
    char *stop; /* the stop string that was met; owned */
    struct buf out;
};

/* *param: the member that is wrong. */
int anthropic_read(struct anthropic_request *r, const char **param, struct err *e);

void anthropic_messages(void *arg, struct http_exchange *x);
void anthropic_count_tokens(void *arg, struct http_exchange *x);

#endif
