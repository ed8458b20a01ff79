/*
 * Ollama's API: what its files share. Private to ollama_*.c.
 *
 * Shapes after Ollama's own documentation and clients: NDJSON unless "stream": false, times in
 * nanoseconds, errors {"error": "text"}. Members that Ollama's runner knows and this one has no use
 * for (num_gpu, use_mmap, …) are accepted.
 */
#ifndef PONDER_SERVER_OLLAMA_H
#define PONDER_SERVER_OLLAMA_H

#include "base/buf.h"
#include "server/fields.h"
#include "server/job.h"
#include "server/server.h"

#define OLLAMA_API "0.33.0" /* whose API this is */

enum { OLLAMA_STOPS = 16 }; /* of a request */

/* Where thoughts go in an answer. */
enum ollama_thoughts {
    OLLAMA_FIELD,  /* message.thinking, or thinking */
    OLLAMA_INLINE, /* <think>…</think> in the content: for clients that know no thoughts */
    OLLAMA_HIDDEN, /* not shown */
};

/* One request to /api/chat or /api/generate. */
struct ollama_request {
    struct http_exchange *x; /* kept */
    json_t *body;            /* owned: what spec points into */
    struct job_spec spec;
    struct hub_model *model;
    bool chat, stream, load_only;
    bool think_given;
    enum ollama_thoughts thoughts;
    const char *stops[OLLAMA_STOPS];
    json_t *messages; /* owned */
    int32_t *context; /* owned: ids of earlier turns (/api/generate) */

    /* The answer as it comes. */
    json_t *calls;            /* so far, when not streamed */
    struct buf text, thought; /* the same */
    json_t *probs;
    struct ids ids; /* of the answer, for "context" */
    bool thinking;  /* inline: <think> was opened */
    size_t n_calls; /* streamed so far */
    const char *done_reason;
};

void ollama_free(struct ollama_request *r);

/* The members of a request that both have, and those of /api/chat or /api/generate. */
int ollama_read(struct server *s, struct ollama_request *r, struct err *e);

/* Runs what was read; takes `r`. */
void ollama_run(struct server *s, struct ollama_request *r);

/* "2026-01-31T23:59:58.123456789Z"; seconds since 1970. */
enum { OLLAMA_TIME = 40 };
void ollama_time(double t, char out[OLLAMA_TIME]);

/* Seconds from a number, or a Go duration ("5m", "1h30m", "-1"): negative = for ever. NAN when
   absent. */
void ollama_keep_alive(struct fields *f, double *seconds);

/* "options": sampling, and the context asked for. */
void ollama_options(struct fields *f, struct job_spec *spec, const char **stops, size_t max_stops);

/* {"format", "family", …} of a model. New reference. */
json_t *ollama_details(const struct hub_info *i);

/* Handlers of route.def. */
void ollama_root(void *arg, struct http_exchange *x);
void ollama_version(void *arg, struct http_exchange *x);
void ollama_tags(void *arg, struct http_exchange *x);
void ollama_ps(void *arg, struct http_exchange *x);
void ollama_show(void *arg, struct http_exchange *x);
void ollama_chat(void *arg, struct http_exchange *x);
void ollama_generate(void *arg, struct http_exchange *x);
void ollama_embed(void *arg, struct http_exchange *x);
void ollama_embeddings(void *arg, struct http_exchange *x);

#endif
