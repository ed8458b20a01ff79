/*
 * OpenAI's API as DeepSeek, vLLM and their clients speak it: what its files share. Private to
 * openai_*.c.
 *
 * One reader serves chat and completions: members that OpenAI does not know but vLLM, DeepSeek or
 * OpenRouter do (top_k, thinking, chat_template_kwargs, structured_outputs, …) mean what they mean
 * there. Unknown members are passed over; those that are known and cannot be honoured are refused.
 */
#ifndef PONDER_SERVER_OPENAI_H
#define PONDER_SERVER_OPENAI_H

#include "base/buf.h"
#include "engine/ban.h"
#include "server/fields.h"
#include "server/job.h"
#include "server/reply.h"
#include "server/server.h"

enum { OPENAI_STOPS = 16, OPENAI_SAMPLES = 4096, OPENAI_INPUTS = 2048 };

/* One sample as it grows. */
struct openai_choice {
    struct buf text, thought; /* not streamed */
    json_t *calls;            /* the same */
    size_t n_calls;
    bool call_open;        /* its name is there, more of it will come */
    struct buf name, call; /* not streamed: of the open call, with its arguments so far */
    json_t *probs;         /* of tokens that were not sent yet: content, or legacy rows */
    json_t *thought_probs; /* of the thought */
    json_t *ids;           /* return_token_ids */
    json_t *prompt_probs;
    size_t offset; /* legacy text_offset: characters so far */
    const char *finish;
    char *stop; /* the stop string that was met; owned */
    int32_t stop_id;
};

struct openai_request {
    struct server *server;
    struct http_exchange *x; /* kept */
    json_t *body;            /* owned: what spec points into */
    struct job_spec spec;
    bool base64; /* embeddings */
    bool chat, stream, usage, continuous, echo_only, hide_thoughts, token_ids;
    char id[REPLY_ID], fingerprint[16];
    json_t *messages, *vars, *format_given; /* owned; spec points to them */
    json_t *vectors;                        /* embeddings; owned */
    const char *stops[OPENAI_STOPS], *bans[BAN_WORDS_MAX];
    int32_t *stop_ids;         /* owned */
    struct sampler_bias *bias; /* owned */
    struct job_input *input;   /* owned */
    int32_t *input_ids;        /* owned: of all inputs, one after another */

    struct openai_choice *choice; /* (n_choice) owned */
    size_t n_choice;
    struct buf out; /* the event that is being written */
    struct request_stats stats;
};

/* Reads what a chat (or a completion) says. *param: the member that is wrong. */
int openai_read(struct openai_request *r, const char **param, struct err *e);
/* A string, token ids, or an array of either, as inputs of the job. */
void openai_read_inputs(struct fields *f, struct openai_request *r, const char *key);
/* openai_tools.c: tools, tool_choice, response_format and its kin. */
void openai_read_tools(struct fields *f, struct openai_request *r);
void openai_read_format(struct fields *f, struct openai_request *r);

/* openai_sink.c */
extern const struct job_sink openai_sink;
void openai_free(struct openai_request *r);

/* Replies of other handlers: the words of an error, with the code that clients look for. */
void openai_error(struct http_exchange *x, const char *param, const struct err *e);
json_t *openai_usage(const struct request_stats *s);

/* Appends s as a JSON string. `s` is UTF-8. */
int openai_quote(struct buf *out, const char *s, size_t n, struct err *e);

/* openai_probs.c: {"token", "logprob", "bytes", "top_logprobs"} for every token of an event, to
   `list`; the legacy form of completions; and vLLM's prompt_logprobs. */
int openai_probs(json_t *list, const struct tokenizer *t, const struct request_event *ev,
                 struct err *e);
int openai_probs_legacy(struct openai_choice *c, const struct tokenizer *t,
                        const struct request_event *ev, struct err *e);
int openai_probs_prompt(struct openai_choice *c, const struct tokenizer *t, const int32_t *prompt,
                        size_t n, const struct request_event *ev, struct err *e);
json_t *openai_legacy(void); /* an empty legacy object; NULL: no memory */

/* Handlers. */
void openai_chat(void *arg, struct http_exchange *x);
void openai_completions(void *arg, struct http_exchange *x);
void openai_embeddings(void *arg, struct http_exchange *x);
void openai_models(void *arg, struct http_exchange *x);
void openai_model(void *arg, struct http_exchange *x);
void openai_balance(void *arg, struct http_exchange *x);
void openai_tokenize(void *arg, struct http_exchange *x);
void openai_detokenize(void *arg, struct http_exchange *x);

#endif
