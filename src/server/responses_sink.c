/*
 * OpenAI's Responses API: from the events of a job to named events, or to one response.
 *
 * An answer is a list of items: reasoning, messages, function calls. A stream announces an item,
 * adds to it, and repeats it whole when it is complete; its last event repeats the whole response.
 */
#include "base/num.h"
#include "server/openai.h"
#include "server/reply.h"
#include "server/responses.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t answer_max = (size_t)64 << 20;

static void responses_free(struct responses_request *r)
{
    json_decref(r->body);
    json_decref(r->messages);
    json_decref(r->tools);
    json_decref(r->output);
    buf_release(&r->text);
    buf_release(&r->out);
    free(r->name);
    http_drop(r->x);
    free(r);
}

/* ---- objects -------------------------------------------------------------------------------- */

/* What was asked for, as the response repeats it. */
static void repeat(const struct responses_request *r, json_t *o)
{
    static const struct {
        const char *key, *otherwise;
    } rows[] = {
        {"instructions", "null"},
        {"max_output_tokens", "null"},
        {"temperature", "1.0"},
        {"top_p", "1.0"},
        {"tools", "[]"},
        {"tool_choice", "\"auto\""},
        {"parallel_tool_calls", "true"},
        {"reasoning", "{\"effort\":null,\"summary\":null}"},
        {"truncation", "\"disabled\""},
        {"text", "{\"format\":{\"type\":\"text\"}}"},
        {"metadata", "{}"},
        {"user", "null"},
    };
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        json_t *given = json_object_get(r->body, rows[i].key);
        if (given && !json_is_null(given))
            json_object_set(o, rows[i].key, given);
        else
            json_object_set_new(o, rows[i].key,
                                json_loads(rows[i].otherwise, JSON_DECODE_ANY, NULL));
    }
}

static json_t *usage(const struct request_stats *s)
{
    return json_pack("{sI s{sI} sI s{sI} sI}", "input_tokens", (json_int_t)s->prompt_tokens,
                     "input_tokens_details", "cached_tokens",
                     (json_int_t)num_min(s->cached_tokens, s->prompt_tokens), "output_tokens",
                     (json_int_t)s->answer_tokens, "output_tokens_details", "reasoning_tokens",
                     (json_int_t)s->thought_tokens, "total_tokens",
                     (json_int_t)(s->prompt_tokens + s->answer_tokens));
}

static json_t *response(const struct responses_request *r, const struct job *j, const char *status)
{
    bool ended = strcmp(status, "in_progress") != 0;
    json_t *o =
        json_pack("{ss ss sI ss sn sO ss sn sb}", "id", r->id, "object", "response", "created_at",
                  (json_int_t)job_created(j), "status", status, "error", "output", r->output,
                  "model", job_name(j), "previous_response_id", "store", 0);
    if (!o)
        return NULL;
    json_object_set_new(o, "incomplete_details",
                        r->cut && ended ? json_pack("{ss}", "reason", "max_output_tokens")
                                        : json_null());
    json_object_set_new(o, "usage", ended ? usage(&r->stats) : json_null());
    repeat(r, o);
    return o;
}

static json_t *part(const struct responses_request *r, const char *text, size_t n)
{
    return r->item == RESPONSES_REASONING
               ? json_pack("{ss so}", "type", "reasoning_text", "text", json_stringn(text, n))
               : json_pack("{ss so s[] s[]}", "type", "output_text", "text", json_stringn(text, n),
                           "annotations", "logprobs");
}

static json_t *item(const struct responses_request *r, bool done)
{
    const char *status = !done ? "in_progress" : r->cut ? "incomplete" : "completed";
    const char *text = done ? r->text.data : "";
    size_t n = done ? r->text.len : 0;
    json_t *parts = json_array();
    if (done && r->item != RESPONSES_CALL)
        json_array_append_new(parts, part(r, text, n));
    switch (r->item) {
    case RESPONSES_CALL:
        json_decref(parts);
        return json_pack("{ss ss ss ss so ss}", "type", "function_call", "id", r->item_id,
                         "call_id", r->call_id, "name", r->name ? r->name : "", "arguments",
                         json_stringn(text, n), "status", status);
    case RESPONSES_REASONING:
        return json_pack("{ss ss s[] so ss}", "type", "reasoning", "id", r->item_id, "summary",
                         "content", parts, "status", status);
    default:
        return json_pack("{ss ss ss so ss}", "type", "message", "id", r->item_id, "role",
                         "assistant", "content", parts, "status", status);
    }
}

/* ---- events --------------------------------------------------------------------------------- */

/* Sends o (taken) as event `type`. */
static int send(struct responses_request *r, const char *type, json_t *o, struct err *e)
{
    if (!o || json_object_set_new(o, "type", json_string(type)) ||
        json_object_set_new(o, "sequence_number", json_integer(r->sequence++))) {
        json_decref(o);
        return err_nomem(e, 0, "an answer");
    }
    return reply_named(r->x, type, o, &r->out, e);
}

static json_int_t index_of(const struct responses_request *r)
{
    return (json_int_t)json_array_size(r->output);
}

/* An event about the open item, with one more member (taken). */
static json_t *about(const struct responses_request *r, const char *key, json_t *v)
{
    json_t *o = json_pack("{ss sI so}", "item_id", r->item_id, "output_index", index_of(r), key, v);
    if (o && r->item != RESPONSES_CALL)
        json_object_set_new(o, "content_index", json_integer(0));
    return o;
}

static const char *const delta_names[] = {
    [RESPONSES_MESSAGE] = "response.output_text.delta",
    [RESPONSES_REASONING] = "response.reasoning_text.delta",
    [RESPONSES_CALL] = "response.function_call_arguments.delta",
};
static const char *const done_names[] = {
    [RESPONSES_MESSAGE] = "response.output_text.done",
    [RESPONSES_REASONING] = "response.reasoning_text.done",
    [RESPONSES_CALL] = "response.function_call_arguments.done",
};

static int close_item(struct responses_request *r, struct err *e)
{
    int rc = 0;
    if (r->item == RESPONSES_NONE)
        return 0;
    json_t *whole = item(r, true);
    if (r->stream) {
        bool call = r->item == RESPONSES_CALL;
        json_t *text = json_stringn(r->text.data, r->text.len);
        json_t *o = about(r, call ? "arguments" : "text", text);
        if (o && call)
            json_object_set_new(o, "name", json_string(r->name ? r->name : ""));
        rc = send(r, done_names[r->item], o, e);
        if (!rc && !call)
            rc = send(r, "response.content_part.done",
                      about(r, "part", part(r, r->text.data, r->text.len)), e);
        if (!rc)
            rc = send(r, "response.output_item.done",
                      json_pack("{sI sO}", "output_index", index_of(r), "item", whole), e);
    }
    if (json_array_append_new(r->output, whole) && !rc)
        rc = err_nomem(e, 0, "an answer");
    buf_clear(&r->text);
    r->item = RESPONSES_NONE;
    return rc;
}

static int open_item(struct responses_request *r, enum responses_item kind, struct err *e)
{
    static const char *const prefixes[] = {"", "msg_", "rs_", "fc_"};
    int rc = close_item(r, e);
    r->item = kind;
    reply_id(r->item_id, prefixes[kind]);
    if (rc || !r->stream)
        return rc;
    rc = send(r, "response.output_item.added",
              json_pack("{sI so}", "output_index", index_of(r), "item", item(r, false)), e);
    if (!rc && kind != RESPONSES_CALL)
        rc = send(r, "response.content_part.added", about(r, "part", part(r, "", 0)), e);
    return rc;
}

static int add(struct responses_request *r, const char *s, size_t n, struct err *e)
{
    if (!n)
        return 0;
    int rc = buf_append(&r->text, s, n, e);
    if (rc || !r->stream)
        return rc;
    json_t *o = about(r, "delta", json_stringn(s, n));
    if (o && r->item == RESPONSES_MESSAGE)
        json_object_set_new(o, "logprobs", json_array());
    return send(r, delta_names[r->item], o, e);
}

static int open_call(struct responses_request *r, const char *name, size_t n, struct err *e)
{
    int rc = close_item(r, e);
    free(r->name);
    r->name = strndup(name, n);
    reply_id(r->call_id, "call_");
    return rc ? rc : open_item(r, RESPONSES_CALL, e);
}

static int blocks_open(void *arg, int kind, struct err *e)
{
    return open_item(arg, (enum responses_item)kind, e);
}

static int blocks_open_call(void *arg, const char *name, size_t n, struct err *e)
{
    return open_call(arg, name, n, e);
}

static int blocks_add(void *arg, const char *s, size_t n, struct err *e)
{
    return add(arg, s, n, e);
}

static int blocks_close(void *arg, struct err *e)
{
    return close_item(arg, e);
}

static const struct reply_blocks blocks = {
    RESPONSES_REASONING, RESPONSES_MESSAGE, RESPONSES_CALL, blocks_open,
    blocks_open_call,    blocks_add,        blocks_close,
};

/* ---- the sink ------------------------------------------------------------------------------- */

static int begin(void *arg, struct job *j, struct err *e)
{
    struct responses_request *r = arg;
    int rc = http_stream(r->x, r->spec.answer, e);
    if (rc || !r->stream)
        return rc;
    rc = send(r, "response.created", json_pack("{so}", "response", response(r, j, "in_progress")),
              e);
    return rc ? rc
              : send(r, "response.in_progress",
                     json_pack("{so}", "response", response(r, j, "in_progress")), e);
}

static int finish(struct responses_request *r, const struct job *j, struct err *e)
{
    const char *status = r->cut ? "incomplete" : "completed";
    int rc = close_item(r, e);
    json_t *o = rc ? NULL : response(r, j, status);
    if (!rc && r->stream) {
        rc = send(r, r->cut ? "response.incomplete" : "response.completed",
                  json_pack("{so}", "response", o), e);
    } else if (!rc) {
        rc = reply_json(r->x, o, e);
    }
    http_end(r->x);
    return rc;
}

static int event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct responses_request *r = arg;
    switch (ev->kind) {
    case REQUEST_PIECE:
        return reply_piece(&blocks, r, (int)r->item, ev, e);
    case REQUEST_SAMPLE:
        r->cut = ev->end != REQUEST_STOP;
        return 0;
    case REQUEST_DONE:
        r->stats = *ev->stats;
        return finish(r, j, e);
    default:
        return 0;
    }
}

static void fail(void *arg, struct job *j, const struct err *e)
{
    struct responses_request *r = arg;
    (void)j;
    openai_error(r->x, NULL, e);
}

static void release(void *arg)
{
    responses_free(arg);
}

static const struct job_sink sink = {begin, event, fail, release};

void responses_create(void *arg, struct http_exchange *x)
{
    const char *param = NULL;
    struct err e = {0};
    json_t *body;
    struct responses_request *r = reply_begin(x, sizeof *r, &body);
    if (!r)
        return;
    r->x = x;
    r->body = body;
    r->output = json_array();
    buf_init(&r->text, answer_max);
    buf_init(&r->out, answer_max);
    reply_id(r->id, "resp_");
    if (responses_read(r, &param, &e)) {
        openai_error(x, param, &e);
        responses_free(r);
    } else {
        r->spec.answer = r->stream ? HTTP_NAMED : HTTP_WHOLE;
        job_run(arg, x, &r->spec, &sink, r);
    }
}
