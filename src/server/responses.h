/* OpenAI's Responses API: what its files share. Private to responses_*.c. Nothing is kept between
   requests: previous_response_id is refused. */
#ifndef PONDER_SERVER_RESPONSES_H
#define PONDER_SERVER_RESPONSES_H

#include "base/buf.h"
#include "server/fields.h"
#include "server/job.h"
#include "server/server.h"

enum { RESPONSES_ID = 40 };

/* The item of an answer that is being written. */
enum responses_item { RESPONSES_NONE, RESPONSES_MESSAGE, RESPONSES_REASONING, RESPONSES_CALL };

struct responses_request {
    struct http_exchange *x; /* kept */
    json_t *body;            /* owned: what spec points into */
    struct job_spec spec;
    bool stream;
    char id[RESPONSES_ID];
    json_t *messages, *tools; /* owned; spec points to them */

    enum responses_item item;
    char item_id[RESPONSES_ID], call_id[RESPONSES_ID];
    char *name;      /* of the open call; owned */
    struct buf text; /* of the open item */
    json_t *output;  /* items that are complete */
    int64_t sequence;
    bool cut;
    struct request_stats stats;
    struct buf out;
};

/* *param: the member that is wrong. */
int responses_read(struct responses_request *r, const char **param, struct err *e);

void responses_create(void *arg, struct http_exchange *x);

#endif
