/*
 * Ollama's API: /api/chat and /api/generate, from a job's events to NDJSON or one object.
 *
 * Thoughts go to "thinking" beside an empty content, as Ollama streams them; or into the content
 * between tags, for clients that stop at an empty content (--ollama-think-default inline).
 */
#include "server/ollama.h"
#include "server/reply.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const size_t answer_max = (size_t)64 << 20;

void ollama_free(struct ollama_request *r)
{
    if (!r)
        return;
    buf_release(&r->text);
    buf_release(&r->thought);
    ids_release(&r->ids);
    json_decref(r->calls);
    json_decref(r->probs);
    json_decref(r->messages);
    json_decref(r->body);
    free(r->context);
    if (r->x)
        http_drop(r->x);
    free(r);
}

static void free_sink(void *arg)
{
    ollama_free(arg);
}

/* {"model", "created_at", "done"} */
static json_t *head(const struct ollama_request *r, bool done)
{
    struct timespec now;
    char time[OLLAMA_TIME];
    clock_gettime(CLOCK_REALTIME, &now);
    ollama_time((double)now.tv_sec, time);
    /* doubles hold microseconds of today; the digits below are not worth having */
    snprintf(time + strlen("2026-01-31T23:59:59"), 16, ".%09ldZ", now.tv_nsec);
    return json_pack("{ss ss sb}", "model", r->spec.model, "created_at", time, "done", done);
}

/* Puts text and thought where the API has them. NULL: leave the member out. */
static void put_text(const struct ollama_request *r, json_t *o, json_t *content, json_t *thought,
                     json_t *calls)
{
    json_t *to = o;
    if (r->chat) {
        to = json_pack("{ss}", "role", "assistant");
        json_object_set_new(o, "message", to);
    }
    json_object_set_new(to, r->chat ? "content" : "response", content);
    if (thought)
        json_object_set_new(to, "thinking", thought);
    if (calls)
        json_object_set_new(to, "tool_calls", calls);
}

static int send(struct ollama_request *r, json_t *o, struct err *e)
{
    return reply_json(r->x, o, e);
}

/* ---- logprobs ------------------------------------------------------------------------------- */

static json_t *prob(const struct tokenizer *t, const struct token_prob *p)
{
    size_t n;
    const char *s = tokenizer_bytes(t, p->id, &n);
    json_t *bytes = json_array(), *text = json_stringn(s ? s : "", s ? n : 0);
    for (size_t i = 0; s && i < n; i++)
        json_array_append_new(bytes, json_integer((unsigned char)s[i]));
    /* part of a character has no text of its own */
    return json_pack("{so sf so}", "token", text ? text : json_string("\xef\xbf\xbd"), "logprob",
                     (double)p->logprob, "bytes", bytes);
}

static void add_probs(json_t *list, const struct tokenizer *t, const struct request_event *ev)
{
    for (size_t i = 0; i < ev->n_info && ev->info; i++) {
        json_t *o = prob(t, &ev->info[i].self), *top = json_array();
        for (size_t k = 0; k < ev->info[i].n_top; k++)
            json_array_append_new(top, prob(t, &ev->info[i].top[k]));
        if (json_array_size(top))
            json_object_set(o, "top_logprobs", top);
        json_decref(top);
        json_array_append_new(list, o);
    }
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* A call in Ollama's shape: arguments are an object. */
static json_t *call(struct ollama_request *r, const char *s, size_t n)
{
    json_t *c = json_loadb(s, n, JSON_ALLOW_NUL, NULL);
    json_t *args = json_object_get(c, "arguments"), *parsed = NULL;
    if (json_is_string(args))
        parsed = json_loads(json_string_value(args), 0, NULL);
    if (!json_is_object(args))
        args = parsed;
    char id[REPLY_ID];
    reply_id(id, "call_");
    json_t *o = json_pack("{ss s{si sO so}}", "id", id, "function", "index", (int)r->n_calls++,
                          "name", json_object_get(c, "name"), "arguments",
                          json_is_object(args) ? json_incref(args) : json_object());
    json_decref(parsed);
    json_decref(c);
    return o;
}

/* The piece as content and thought; inline thoughts come between tags. */
static int split(struct ollama_request *r, const struct request_event *ev, struct buf *content,
                 struct buf *thought, struct err *e)
{
    bool thinks = ev->piece == PARSE_REASONING;
    int rc = 0;
    if (r->thoughts == OLLAMA_INLINE && thinks != r->thinking) {
        rc = buf_puts(content, thinks ? "<think>\n" : "\n</think>\n\n", e);
        r->thinking = thinks;
    }
    if (rc || ev->piece == PARSE_TOOL_CALL)
        return rc;
    if (thinks && r->thoughts == OLLAMA_HIDDEN)
        return 0;
    return buf_append(thinks && r->thoughts == OLLAMA_FIELD ? thought : content, ev->text, ev->n,
                      e);
}

static int stream_piece(struct ollama_request *r, struct job *j, const struct request_event *ev,
                        struct err *e)
{
    struct buf content, thought;
    json_t *calls = NULL;
    buf_init(&content, answer_max);
    buf_init(&thought, answer_max);
    int rc = split(r, ev, &content, &thought, e);
    if (!rc && ev->piece == PARSE_TOOL_CALL && r->chat)
        calls = json_pack("[o]", call(r, ev->text, ev->n));
    else if (!rc && ev->piece == PARSE_TOOL_CALL)
        rc = buf_append(&content, ev->text, ev->n, e);
    if (!rc && (content.len || thought.len || calls || (ev->info && ev->n_info))) {
        json_t *o = head(r, false);
        put_text(r, o, json_stringn(content.len ? content.data : "", content.len),
                 thought.len ? json_stringn(thought.data, thought.len) : NULL, calls);
        if (ev->info) {
            json_t *list = json_array();
            add_probs(list, engine_tokenizer(job_use(j)->engine), ev);
            json_object_set_new(o, "logprobs", list);
        }
        rc = send(r, o, e);
    } else {
        json_decref(calls);
    }
    buf_release(&content);
    buf_release(&thought);
    return rc;
}

static int keep_piece(struct ollama_request *r, struct job *j, const struct request_event *ev,
                      struct err *e)
{
    int rc = split(r, ev, &r->text, &r->thought, e);
    if (!rc && ev->piece == PARSE_TOOL_CALL && r->chat)
        json_array_append_new(r->calls, call(r, ev->text, ev->n));
    else if (!rc && ev->piece == PARSE_TOOL_CALL)
        rc = buf_append(&r->text, ev->text, ev->n, e);
    add_probs(r->probs, engine_tokenizer(job_use(j)->engine), ev);
    return rc;
}

/* ---- the end -------------------------------------------------------------------------------- */

static json_int_t nanos(double seconds)
{
    return (json_int_t)(fmax(seconds, 0) * 1e9);
}

static json_t *context(const struct ollama_request *r, const struct job *j)
{
    json_t *a = json_array();
    size_t n;
    const int32_t *prompt = job_prompt_ids(j, 0, &n);
    for (size_t i = 0; i < n; i++)
        json_array_append_new(a, json_integer(prompt[i]));
    for (size_t i = 0; i < r->ids.n; i++)
        json_array_append_new(a, json_integer(r->ids.v[i]));
    return a;
}

static int finish(struct ollama_request *r, struct job *j, const struct request_event *ev,
                  struct err *e)
{
    const struct request_stats *st = ev->stats;
    json_t *o = head(r, true);
    int rc = 0;
    if (r->stream && r->thinking) /* a thought that did not end */
        put_text(r, o, json_string("\n</think>\n\n"), NULL, NULL);
    else if (r->stream)
        put_text(r, o, json_string(""), NULL, NULL);
    else if (!(r->thinking && (rc = buf_puts(&r->text, "\n</think>\n\n", e))))
        put_text(r, o, json_stringn(r->text.len ? r->text.data : "", r->text.len),
                 r->thought.len ? json_stringn(r->thought.data, r->thought.len) : NULL,
                 json_array_size(r->calls) ? json_incref(r->calls) : NULL);
    if (!r->stream && r->spec.logprobs >= 0)
        json_object_set(o, "logprobs", r->probs);
    if (!r->chat && !r->spec.raw)
        json_object_set_new(o, "context", context(r, j));
    json_object_set_new(o, "done_reason", json_string(r->done_reason));
    json_object_set_new(o, "total_duration",
                        json_integer(nanos(clock_seconds() - http_started(r->x))));
    json_object_set_new(o, "load_duration", json_integer(nanos(job_use(j)->load_seconds)));
    json_object_set_new(o, "prompt_eval_count", json_integer((json_int_t)st->prompt_tokens));
    json_object_set_new(o, "prompt_eval_duration", json_integer(nanos(st->prompt_seconds)));
    json_object_set_new(o, "eval_count", json_integer((json_int_t)st->answer_tokens));
    json_object_set_new(o, "eval_duration", json_integer(nanos(st->answer_seconds)));
    if (rc)
        json_decref(o);
    else
        rc = send(r, o, e);
    http_end(r->x);
    return rc;
}

/* ---- the sink ------------------------------------------------------------------------------- */

static int begin(void *arg, struct job *j, struct err *e)
{
    struct ollama_request *r = arg;
    (void)j;
    return http_stream(r->x, r->spec.answer, e);
}

static int event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct ollama_request *r = arg;
    int rc = 0;
    switch (ev->kind) {
    case REQUEST_PIECE:
        for (size_t i = 0; ev->ids && i < ev->n_info && !rc && !r->chat; i++)
            rc = ids_push(&r->ids, ev->ids[i], e);
        if (rc)
            return rc;
        return r->stream ? stream_piece(r, j, ev, e) : keep_piece(r, j, ev, e);
    case REQUEST_SAMPLE:
        r->done_reason = ev->end == REQUEST_STOP ? "stop" : "length";
        return 0;
    case REQUEST_DONE:
        return finish(r, j, ev, e);
    default:
        return 0;
    }
}

static void fail(void *arg, struct job *j, const struct err *e)
{
    struct ollama_request *r = arg;
    (void)j;
    http_error_from(r->x, e);
}

static const struct job_sink ollama_sink = {begin, event, fail, free_sink};

/* ---- handlers ------------------------------------------------------------------------------- */

/* An empty prompt loads the model; with "keep_alive": 0 it unloads it. */
static void loaded(void *arg, const struct hub_use *u, const struct err *e)
{
    struct ollama_request *r = arg;
    if (!u) {
        http_error_from(r->x, e);
    } else {
        json_t *o = head(r, true);
        put_text(r, o, json_string(""), NULL, NULL);
        json_object_set_new(o, "done_reason", json_string("load"));
        http_send_json(r->x, 200, o);
        hub_put(u, r->spec.keep_alive);
    }
    ollama_free(r);
}

static void load_or_unload(struct server *s, struct ollama_request *r)
{
    if (r->spec.keep_alive != 0) {
        hub_get(s->hub, r->model, r->spec.ctx, loaded, r);
        return;
    }
    hub_unload(s->hub, r->model);
    json_t *o = head(r, true);
    put_text(r, o, json_string(""), NULL, NULL);
    json_object_set_new(o, "done_reason", json_string("unload"));
    http_send_json(r->x, 200, o);
    ollama_free(r);
}

void ollama_run(struct server *s, struct ollama_request *r)
{
    r->spec.answer = r->stream ? HTTP_LINES : HTTP_WHOLE;
    if (r->load_only)
        load_or_unload(s, r);
    else
        job_run(s, r->x, &r->spec, &ollama_sink, r);
}

static void answer(struct server *s, struct http_exchange *x, bool chat)
{
    struct err e = {0};
    json_t *body;
    struct ollama_request *r = reply_begin(x, sizeof *r, &body);
    if (!r)
        return;
    r->x = x;
    r->body = body;
    r->chat = chat;
    r->done_reason = "stop";
    r->calls = json_array();
    r->probs = json_array();
    buf_init(&r->text, answer_max);
    buf_init(&r->thought, answer_max);
    ids_init(&r->ids, 1 << 24);
    if (ollama_read(s, r, &e)) {
        http_error_from(x, &e);
        ollama_free(r);
    } else {
        ollama_run(s, r);
    }
}

void ollama_chat(void *arg, struct http_exchange *x)
{
    answer(arg, x, true);
}

void ollama_generate(void *arg, struct http_exchange *x)
{
    answer(arg, x, false);
}
