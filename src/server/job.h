/*
 * A job: one request of whatever API, in the server's own words, and its way through a model.
 *
 *   JSON ─ an API's reader ─ struct job ─ job_run ─ events ─ the API's sink ─ bytes
 *
 * An API (openai_chat.c, ollama_chat.c, …) is a file with a reader and a sink. job.c does what all
 * of them share: find and load the model, render the template, tokenize, set defaults, make the
 * grammar (formats, forced tools), submit, count for /metrics and the access log, cancel when the
 * client leaves.
 *
 * A job may have several inputs (a list of prompts, texts to embed): then each is a request of its
 * own to the scheduler, and sample i of input k is number k * n + i in all events.
 */
#ifndef PONDER_SERVER_JOB_H
#define PONDER_SERVER_JOB_H

#include "engine/sched.h"
#include "server/http.h"
#include "server/hub.h"
#include "text/grammar.h"

struct job;
struct server; /* server.h: hub, http, metrics, options */

enum job_prompt {
    JOB_CHAT, /* messages through the template */
    JOB_TEXT, /* text as it is, BOS where the model wants one */
    JOB_IDS,  /* token ids */
    JOB_FIM,  /* prefix and suffix through the model's hole tokens */
};

/* One of several inputs: text, or ids when `ids` is set. */
struct job_input {
    const char *text;
    size_t n;
    const int32_t *ids;
    size_t n_ids;
};

enum job_think { JOB_THINK_DEFAULT, JOB_THINK_ON, JOB_THINK_OFF };
enum job_choice { JOB_TOOL_NONE, JOB_TOOL_AUTO, JOB_TOOL_REQUIRED, JOB_TOOL_NAMED };

struct job_spec {
    const char *model;
    enum job_prompt prompt;
    json_t *messages; /* JOB_CHAT: in the template's words (role, content string, reasoning_content,
                         tool_calls with arguments as objects, tool_call_id, name) */
    json_t *tools;    /* OpenAI's shape, or NULL */
    json_t *template_vars;     /* chat_template_kwargs */
    bool go_on;                /* the last message is the beginning of the answer */
    const char *text, *suffix; /* suffix: JOB_FIM */
    size_t n_text, n_suffix;
    const int32_t *ids; /* JOB_IDS; JOB_CHAT: tokens that stand in front (Ollama's "context") */
    size_t n_ids;
    const struct job_input *input; /* JOB_TEXT, JOB_IDS: several instead of `text` or `ids` */
    size_t n_input;
    enum job_think think;
    struct grammar_form format; /* of the answer, behind the thought */
    char format_field[40];      /* as the request calls it: "response_format.json_schema" */
    enum job_choice choice;
    const char *choice_name;
    bool parallel;     /* several calls may come */
    bool stream_calls; /* calls come in pieces too (parser_stream_calls) */
    bool raw;          /* no parsing of thoughts and calls */
    bool truncate;     /* too long a prompt: oldest messages go (Ollama); else an error */
    bool echo;         /* completions: the prompt's text comes first */
    struct sampler_params
        sampling; /* NAN, or INT_MIN, where the request says nothing: the model's */
    bool seed_given;
    size_t n, max_tokens, min_tokens, ctx;
    size_t
        prompt_max; /* with `truncate`: no more tokens of the prompt than these, the last ones; 0 */
    int64_t think_max; /* -1: the server's default; -2: none */
    const char *const *stop;
    size_t n_stop;
    const int32_t *stop_id;
    size_t n_stop_id;
    const char *const *ban; /* words that may not come (engine/ban.h) */
    size_t n_ban;
    bool ignore_end, stop_shown, special, embed;
    bool count; /* nothing is computed: REQUEST_DONE tells how many tokens the prompt has */
    int logprobs, prompt_logprobs, priority;
    const char *salt;
    double keep_alive;       /* NAN: default */
    double deadline;         /* seconds from now; 0 none */
    enum http_stream answer; /* what the sink will begin */
};

void job_spec_init(struct job_spec *s);

/* What an API does with what comes. Calls come one after another, from compute threads: no waiting.
   A job has one sink for all its samples. An error of begin or event ends the job. */
struct job_sink {
    /* The prompt is accepted and the model is there: the first bytes may go out. */
    int (*begin)(void *arg, struct job *j, struct err *e);
    /* The scheduler's events, but REQUEST_FAILED; REQUEST_DONE once, after all inputs. */
    int (*event)(void *arg, struct job *j, const struct request_event *ev, struct err *e);
    void (*fail)(void *arg, struct job *j, const struct err *e); /* instead of REQUEST_DONE */
    void (*free)(void *arg);                                     /* always the last */
};

/* Takes everything over: `spec` and what it points to must live until sink->free. Returns at once;
   what goes wrong comes to sink->fail. */
void job_run(struct server *s, struct http_exchange *x, const struct job_spec *spec,
             const struct job_sink *sink, void *arg);

struct http_exchange *job_exchange(const struct job *j);
/* From here on: NULL before the model is there (begin, and later). */
const struct hub_use *job_use(const struct job *j);
const struct hub_info *job_model(const struct job *j); /* NULL when the name is unknown */
const char *job_name(const struct job *j);             /* as the client wrote it */
double job_created(const struct job *j);               /* seconds since 1970 */
size_t job_prompt_tokens(const struct job *j);         /* of all inputs */
const int32_t *job_prompt_ids(const struct job *j, size_t input, size_t *n);
bool job_thinking_open(const struct job *j); /* the prompt ends inside <think> */

/* ---- for readers of APIs -------------------------------------------------------------------- */

/*
 * Messages as clients of any API write them, in the template's words: content a string (parts are
 * joined, null is ""), arguments of calls as objects, "reasoning" and "thinking" as
 * "reasoning_content", "developer" as "system", names of calls beside the results that answer them.
 * New reference. ERR_USAGE names what is wrong and where.
 */
int job_messages(const json_t *in, json_t **out, struct err *e);

/* Whether a tool may be called that. Names go into prompts and grammars: no blanks, quotes,
   brackets of tags or control characters. NULL: no. */
bool job_tool_name(const json_t *name);

/*
 * What a PARSE_TOOL_CALL holds: the name, and the text of the arguments as the model wrote it, so
 * that numbers keep their digits. Both terminated and the caller's (free).
 */
int job_call(const char *s, size_t n, char **name, char **args, struct err *e);

/* ---- who has how many jobs ------------------------------------------------------------------ */

struct job_desk;
int job_desk_new(struct job_desk **out, struct err *e);
void job_desk_free(struct job_desk *d);

#endif
