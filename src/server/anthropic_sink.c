/*
 * Anthropic's Messages API: from the events of a job to named events, or to one message.
 *
 * An answer is a list of blocks: thought, text, calls. A stream opens a block, adds to it and
 * closes it before the next. Thoughts carry an empty signature: nothing here checks it.
 */
#include "base/num.h"
#include "server/anthropic.h"
#include "server/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t answer_max = (size_t)64 << 20;

static void anthropic_free(struct anthropic_request *r)
{
    json_decref(r->body);
    json_decref(r->messages);
    json_decref(r->tools);
    json_decref(r->content);
    buf_release(&r->text);
    buf_release(&r->out);
    free(r->name);
    free(r->stop);
    http_drop(r->x);
    free(r);
}

/* ---- events --------------------------------------------------------------------------------- */

/* Sends o (taken), whose "type" is the event's name. */
static int send(struct anthropic_request *r, json_t *o, struct err *e)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    return reply_named(r->x, type, o, &r->out, e);
}

static json_t *usage(const struct request_stats *s)
{
    size_t hit = num_min(s->cached_tokens, s->prompt_tokens);
    return json_pack("{sI sI sI sI}", "input_tokens", (json_int_t)(s->prompt_tokens - hit),
                     "cache_creation_input_tokens", (json_int_t)0, "cache_read_input_tokens",
                     (json_int_t)hit, "output_tokens", (json_int_t)s->answer_tokens);
}

static json_t *whole(const struct anthropic_request *r, const struct job *j, json_t *content,
                     const struct request_stats *s)
{
    return json_pack("{ss ss ss ss so ss? ss? so}", "id", r->id, "type", "message", "role",
                     "assistant", "model", job_name(j), "content", content, "stop_reason",
                     r->stop_reason, "stop_sequence", r->stop, "usage", usage(s));
}

/* ---- blocks --------------------------------------------------------------------------------- */

static json_t *block_json(struct anthropic_request *r, const char *text, size_t n, json_t *input)
{
    switch (r->block) {
    case ANTHROPIC_THINKING:
        return json_pack("{ss so ss}", "type", "thinking", "thinking", json_stringn(text, n),
                         "signature", "");
    case ANTHROPIC_TOOL:
        return json_pack("{ss ss ss so}", "type", "tool_use", "id", r->tool, "name",
                         r->name ? r->name : "", "input", input);
    default:
        return json_pack("{ss so}", "type", "text", "text", json_stringn(text, n));
    }
}

static int close_block(struct anthropic_request *r, struct err *e)
{
    int rc = 0;
    if (r->block == ANTHROPIC_NO_BLOCK)
        return 0;
    if (r->stream) {
        rc = send(r,
                  json_pack("{ss sI}", "type", "content_block_stop", "index", (json_int_t)r->index),
                  e);
    } else {
        json_t *input = r->block == ANTHROPIC_TOOL
                            ? json_loadb(r->text.data, r->text.len, JSON_ALLOW_NUL, NULL)
                            : NULL;
        if (r->block == ANTHROPIC_TOOL && !json_is_object(input)) {
            json_decref(input);
            input = json_object();
        }
        if (json_array_append_new(r->content, block_json(r, r->text.data, r->text.len, input)))
            rc = err_nomem(e, 0, "an answer");
    }
    buf_clear(&r->text);
    r->block = ANTHROPIC_NO_BLOCK;
    r->index++;
    return rc;
}

static int open_block(struct anthropic_request *r, enum anthropic_block kind, struct err *e)
{
    bool tool = kind == ANTHROPIC_TOOL;
    int rc = close_block(r, e);
    r->block = kind;
    if (rc || !r->stream)
        return rc;
    return send(r,
                json_pack("{ss sI so}", "type", "content_block_start", "index",
                          (json_int_t)r->index, "content_block",
                          block_json(r, "", 0, tool ? json_object() : NULL)),
                e);
}

static int add(struct anthropic_request *r, const char *s, size_t n, struct err *e)
{
    static const char *const names[][2] = {
        [ANTHROPIC_TEXT] = {"text_delta", "text"},
        [ANTHROPIC_THINKING] = {"thinking_delta", "thinking"},
        [ANTHROPIC_TOOL] = {"input_json_delta", "partial_json"},
    };
    if (!n)
        return 0;
    if (!r->stream)
        return buf_append(&r->text, s, n, e);
    return send(r,
                json_pack("{ss sI s{ss so}}", "type", "content_block_delta", "index",
                          (json_int_t)r->index, "delta", "type", names[r->block][0],
                          names[r->block][1], json_stringn(s, n)),
                e);
}

static int open_tool(struct anthropic_request *r, const char *name, size_t n, struct err *e)
{
    int rc = close_block(r, e);
    free(r->name);
    r->name = strndup(name, n);
    r->called = true;
    reply_id(r->tool, "toolu_");
    return rc ? rc : open_block(r, ANTHROPIC_TOOL, e);
}

static int blocks_open(void *arg, int kind, struct err *e)
{
    return open_block(arg, (enum anthropic_block)kind, e);
}

static int blocks_open_call(void *arg, const char *name, size_t n, struct err *e)
{
    return open_tool(arg, name, n, e);
}

static int blocks_add(void *arg, const char *s, size_t n, struct err *e)
{
    return add(arg, s, n, e);
}

static int blocks_close(void *arg, struct err *e)
{
    return close_block(arg, e);
}

static const struct reply_blocks blocks = {
    ANTHROPIC_THINKING, ANTHROPIC_TEXT, ANTHROPIC_TOOL, blocks_open,
    blocks_open_call,   blocks_add,     blocks_close,
};

/* ---- the sink ------------------------------------------------------------------------------- */

static int begin(void *arg, struct job *j, struct err *e)
{
    struct anthropic_request *r = arg;
    struct request_stats s = {.prompt_tokens = job_prompt_tokens(j)};
    int rc = http_stream(r->x, r->spec.answer, e);
    if (rc || !r->stream)
        return rc;
    return send(
        r, json_pack("{ss so}", "type", "message_start", "message", whole(r, j, json_array(), &s)),
        e);
}

static int finish(struct anthropic_request *r, const struct job *j, const struct request_event *ev,
                  struct err *e)
{
    int rc = close_block(r, e);
    if (!rc && r->stream) {
        rc = send(r,
                  json_pack("{ss s{ss ss?} so}", "type", "message_delta", "delta", "stop_reason",
                            r->stop_reason, "stop_sequence", r->stop, "usage", usage(ev->stats)),
                  e);
        rc = rc ? rc : send(r, json_pack("{ss}", "type", "message_stop"), e);
    } else if (!rc) {
        json_t *o = r->count
                        ? json_pack("{sI}", "input_tokens", (json_int_t)ev->stats->prompt_tokens)
                        : whole(r, j, json_incref(r->content), ev->stats);
        rc = reply_json(r->x, o, e);
    }
    http_end(r->x);
    return rc;
}

static int event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct anthropic_request *r = arg;
    switch (ev->kind) {
    case REQUEST_PIECE:
        return reply_piece(&blocks, r, (int)r->block, ev, e);
    case REQUEST_SAMPLE:
        r->stop_reason = ev->end != REQUEST_STOP ? "max_tokens"
                         : ev->stop              ? "stop_sequence"
                         : r->called             ? "tool_use"
                                                 : "end_turn";
        r->stop = ev->stop ? strdup(ev->stop) : NULL;
        return 0;
    case REQUEST_DONE:
        return finish(r, j, ev, e);
    default:
        return 0;
    }
}

static void fail(void *arg, struct job *j, const struct err *e)
{
    struct anthropic_request *r = arg;
    (void)j;
    http_error_from(r->x, e);
}

static void release(void *arg)
{
    anthropic_free(arg);
}

static const struct job_sink sink = {begin, event, fail, release};

static void answer(struct server *s, struct http_exchange *x, bool count)
{
    const char *param = NULL;
    struct err e = {0};
    json_t *body;
    struct anthropic_request *r = reply_begin(x, sizeof *r, &body);
    if (!r)
        return;
    r->x = x;
    r->body = body;
    r->count = count;
    r->content = json_array();
    buf_init(&r->text, answer_max);
    buf_init(&r->out, answer_max);
    reply_id(r->id, "msg_");
    if (anthropic_read(r, &param, &e)) {
        http_error_from(x, &e);
        anthropic_free(r);
    } else {
        r->spec.answer = r->stream ? HTTP_NAMED : HTTP_WHOLE;
        job_run(s, x, &r->spec, &sink, r);
    }
}

void anthropic_messages(void *arg, struct http_exchange *x)
{
    answer(arg, x, false);
}

void anthropic_count_tokens(void *arg, struct http_exchange *x)
{
    answer(arg, x, true);
}
