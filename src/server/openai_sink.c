/*
 * OpenAI's API: from the events of a job to chunks of a stream or to one object.
 *
 * A stream is, for each choice: a chunk with the role, chunks with one piece each, a chunk with an
 * empty delta and the finish_reason; then, where asked for, a chunk without choices and with the
 * usage; then [DONE]. A delta holds what there is and nothing else: clients print null, and take an
 * empty delta for the end of a thought.
 */
#include "base/num.h"
#include "server/openai.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const size_t answer_max = (size_t)64 << 20;

json_t *openai_usage(const struct request_stats *s)
{
    size_t hit = num_min(s->cached_tokens, s->prompt_tokens);
    return json_pack("{sI sI sI s{sI} s{sI} sI sI}", "prompt_tokens", (json_int_t)s->prompt_tokens,
                     "completion_tokens", (json_int_t)s->answer_tokens, "total_tokens",
                     (json_int_t)(s->prompt_tokens + s->answer_tokens), "prompt_tokens_details",
                     "cached_tokens", (json_int_t)hit, "completion_tokens_details",
                     "reasoning_tokens", (json_int_t)s->thought_tokens, "prompt_cache_hit_tokens",
                     (json_int_t)hit, "prompt_cache_miss_tokens",
                     (json_int_t)(s->prompt_tokens - hit));
}

int openai_quote(struct buf *out, const char *s, size_t n, struct err *e)
{
    static const char names[] = "\bb\tt\nn\ff\rr\"\"\\\\";
    int rc = buf_putc(out, '"', e);
    size_t from = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= ' ' && c != '"' && c != '\\')
            continue;
        rc = buf_append(out, s + from, i - from, e);
        from = i + 1;
        const char *name = c ? strchr(names, c) : NULL;
        if (!rc)
            rc = name ? buf_printf(out, e, "\\%c", name[1]) : buf_printf(out, e, "\\u%04x", c);
    }
    if (!rc)
        rc = buf_append(out, s + from, n - from, e);
    return rc ? rc : buf_putc(out, '"', e);
}

void openai_free(struct openai_request *r)
{
    if (!r)
        return;
    for (size_t i = 0; r->choice && i < r->n_choice; i++) {
        struct openai_choice *c = &r->choice[i];
        buf_release(&c->text);
        buf_release(&c->thought);
        buf_release(&c->name);
        buf_release(&c->call);
        json_decref(c->calls);
        json_decref(c->probs);
        json_decref(c->thought_probs);
        json_decref(c->ids);
        json_decref(c->prompt_probs);
        free(c->stop);
    }
    free(r->choice);
    json_decref(r->messages);
    json_decref(r->vectors);
    json_decref(r->vars);
    json_decref(r->format_given);
    json_decref(r->body);
    free(r->stop_ids);
    free(r->bias);
    free(r->input);
    free(r->input_ids);
    buf_release(&r->out);
    http_drop(r->x);
    free(r);
}

static const struct tokenizer *vocabulary(const struct job *j)
{
    return engine_tokenizer(job_use(j)->engine);
}

/* ---- chunks --------------------------------------------------------------------------------- */

static int chunk_head(struct openai_request *r, const struct job *j, struct err *e)
{
    const char *name = job_name(j);
    buf_clear(&r->out);
    int rc = buf_printf(
        &r->out, e, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", r->id,
        r->chat ? "chat.completion.chunk" : "text_completion", (long long)job_created(j));
    if (!rc)
        rc = openai_quote(&r->out, name, strlen(name), e);
    return rc ? rc
              : buf_printf(&r->out, e, ",\"system_fingerprint\":\"%s\",\"choices\":[",
                           r->fingerprint);
}

static int put_json(struct buf *out, const char *key, json_t *v, struct err *e)
{
    char *text = v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    int rc = text ? buf_printf(out, e, ",\"%s\":", key) : err_nomem(e, 0, "an answer");
    if (!rc)
        rc = buf_puts(out, text, e);
    free(text);
    json_decref(v);
    return rc;
}

/* What was gathered of log-probabilities and ids since the last chunk goes with this one. */
static int put_gathered(struct openai_request *r, struct openai_choice *c, struct err *e)
{
    int rc = 0;
    if (r->chat && (c->probs || c->thought_probs)) {
        json_t *o = json_pack("{so}", "content", c->probs ? c->probs : json_array());
        if (o && c->thought_probs)
            json_object_set_new(o, "reasoning_content", c->thought_probs);
        c->probs = c->thought_probs = NULL;
        rc = put_json(&r->out, "logprobs", o, e);
    } else if (c->probs) {
        rc = put_json(&r->out, "logprobs", c->probs, e);
        c->probs = NULL;
    }
    if (!rc && c->ids) {
        rc = put_json(&r->out, "token_ids", c->ids, e);
        c->ids = NULL;
    }
    return rc;
}

/* The chunk whose delta is in r->out, from its open brace on, is completed and sent. */
static int chunk_end(struct openai_request *r, struct openai_choice *c, bool last, struct err *e)
{
    int rc = put_gathered(r, c, e);
    if (!rc && !last)
        rc = buf_puts(&r->out, ",\"finish_reason\":null}]", e);
    else if (!rc)
        rc = buf_printf(&r->out, e, ",\"finish_reason\":\"%s\"", c->finish);
    if (!rc && last && c->stop) {
        rc = buf_puts(&r->out, ",\"stop_reason\":", e);
        rc = rc ? rc : openai_quote(&r->out, c->stop, strlen(c->stop), e);
    } else if (!rc && last && c->stop_id >= 0) {
        rc = buf_printf(&r->out, e, ",\"stop_reason\":%d", c->stop_id);
    }
    if (!rc && last)
        rc = buf_puts(&r->out, "}]", e);
    if (!rc && ((last && !r->usage && r->n_choice == 1) || r->continuous))
        rc = put_json(&r->out, "usage", openai_usage(&r->stats), e);
    if (!rc)
        rc = buf_putc(&r->out, '}', e);
    return rc ? rc : http_write(r->x, r->out.data, r->out.len, e);
}

static int chunk_begin(struct openai_request *r, const struct job *j, size_t k, struct err *e)
{
    int rc = chunk_head(r, j, e);
    return rc ? rc : buf_printf(&r->out, e, "{\"index\":%zu,%s", k, r->chat ? "\"delta\":{" : "");
}

/* A chunk with one text: "content", "reasoning_content", or the text of a completion. */
static int chunk_text(struct openai_request *r, const struct job *j, size_t k, const char *key,
                      const char *key2, const char *s, size_t n, struct err *e)
{
    int rc = chunk_begin(r, j, k, e);
    if (!rc)
        rc = buf_printf(&r->out, e, "\"%s\":", key);
    if (!rc)
        rc = openai_quote(&r->out, s, n, e);
    if (!rc && key2) {
        rc = buf_printf(&r->out, e, ",\"%s\":", key2);
        rc = rc ? rc : openai_quote(&r->out, s, n, e);
    }
    if (!rc && r->chat)
        rc = buf_putc(&r->out, '}', e);
    return rc ? rc : chunk_end(r, &r->choice[k], false, e);
}

static int chunk_call(struct openai_request *r, const struct job *j, size_t k, const char *name,
                      size_t n_name, const char *args, size_t n, struct err *e)
{
    struct openai_choice *c = &r->choice[k];
    char id[REPLY_ID];
    int rc = chunk_begin(r, j, k, e);
    if (!rc)
        rc = buf_printf(&r->out, e, "\"tool_calls\":[{\"index\":%zu,", c->n_calls);
    if (!rc && name) {
        reply_id(id, "call_");
        rc = buf_printf(&r->out, e,
                        "\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":", id);
        rc = rc ? rc : openai_quote(&r->out, name, n_name, e);
        rc = rc ? rc : buf_puts(&r->out, ",\"arguments\":", e);
    } else if (!rc) {
        rc = buf_puts(&r->out, "\"function\":{\"arguments\":", e);
    }
    if (!rc)
        rc = openai_quote(&r->out, args, n, e);
    if (!rc)
        rc = buf_puts(&r->out, "}}]}", e);
    return rc ? rc : chunk_end(r, c, false, e);
}

/* ---- calls ---------------------------------------------------------------------------------- */

static int stream_call(struct openai_request *r, const struct job *j, size_t k,
                       const struct request_event *ev, struct err *e)
{
    struct openai_choice *c = &r->choice[k];
    if (c->call_open) { /* it has gone out in pieces */
        c->call_open = false;
        c->n_calls++;
        return 0;
    }
    char *name, *args;
    int rc = job_call(ev->text, ev->n, &name, &args, e);
    if (!rc)
        rc = chunk_call(r, j, k, name, strlen(name), args, strlen(args), e);
    c->n_calls++;
    free(name);
    free(args);
    return rc;
}

static int put_call(struct openai_choice *c, const char *name, const char *args, struct err *e)
{
    char id[REPLY_ID];
    reply_id(id, "call_");
    if (!c->calls)
        c->calls = json_array();
    c->n_calls++;
    return json_array_append_new(c->calls,
                                 json_pack("{ss ss s{ss ss}}", "id", id, "type", "function",
                                           "function", "name", name, "arguments", args))
               ? err_nomem(e, 0, "a call")
               : 0;
}

/* A call that was cut off, or cannot be read: as far as it came. */
static int keep_open_call(struct openai_choice *c, struct err *e)
{
    c->call_open = false;
    return put_call(c, c->name.data, c->call.data, e);
}

static int keep_call(struct openai_choice *c, const struct request_event *ev, struct err *e)
{
    char *name, *args;
    if (!ev->n)
        return keep_open_call(c, e);
    int rc = job_call(ev->text, ev->n, &name, &args, e);
    if (rc)
        return rc;
    c->call_open = false;
    rc = put_call(c, name, args, e);
    free(name);
    free(args);
    return rc;
}

/* ---- pieces --------------------------------------------------------------------------------- */

/* Log-probabilities and ids are gathered with the choice until a chunk takes them. */
static int gather(struct openai_request *r, const struct job *j, size_t k,
                  const struct request_event *ev, struct err *e)
{
    struct openai_choice *c = &r->choice[k];
    int rc = 0;
    if (r->token_ids && ev->ids) {
        if (!c->ids)
            c->ids = json_array();
        for (size_t i = 0; i < ev->n_info; i++)
            if (json_array_append_new(c->ids, json_integer(ev->ids[i])))
                return err_nomem(e, 0, "an answer");
    }
    if (!ev->info || !ev->n_info || r->spec.logprobs < 0 || r->echo_only)
        return 0;
    if (!r->chat)
        return openai_probs_legacy(c, vocabulary(j), ev, e);
    json_t **list = ev->piece == PARSE_REASONING ? &c->thought_probs : &c->probs;
    if (!*list && !(*list = json_array()))
        rc = err_nomem(e, 0, "an answer");
    return rc ? rc : openai_probs(*list, vocabulary(j), ev, e);
}

static int stream_piece(struct openai_request *r, const struct job *j,
                        const struct request_event *ev, struct err *e)
{
    static const char *const keys[][2] = {
        [SERVER_REASONING_CONTENT] = {"reasoning_content", NULL},
        [SERVER_REASONING] = {"reasoning", NULL},
        [SERVER_REASONING_BOTH] = {"reasoning_content", "reasoning"},
    };
    const char *const *key = keys[r->server->o.reasoning];
    size_t k = ev->sample;
    struct openai_choice *c = &r->choice[k];
    if (ev->piece == PARSE_CALL_NAME) {
        c->call_open = true;
        return chunk_call(r, j, k, ev->text, ev->n, "", 0, e);
    }
    if (ev->piece == PARSE_TOOL_CALL)
        return stream_call(r, j, k, ev, e);
    if (!ev->n)
        return 0; /* its log-probabilities go with the next text */
    if (ev->piece == PARSE_CALL_ARGUMENTS)
        return chunk_call(r, j, k, NULL, 0, ev->text, ev->n, e);
    if (ev->piece == PARSE_REASONING)
        return r->hide_thoughts ? 0 : chunk_text(r, j, k, key[0], key[1], ev->text, ev->n, e);
    return chunk_text(r, j, k, r->chat ? "content" : "text", NULL, ev->text, ev->n, e);
}

static int keep_piece(struct openai_request *r, const struct request_event *ev, struct err *e)
{
    struct openai_choice *c = &r->choice[ev->sample];
    if (ev->piece == PARSE_CALL_NAME) {
        c->call_open = true;
        buf_clear(&c->name);
        buf_clear(&c->call);
        return buf_append(&c->name, ev->text, ev->n, e);
    }
    if (ev->piece == PARSE_CALL_ARGUMENTS)
        return buf_append(&c->call, ev->text, ev->n, e);
    if (ev->piece == PARSE_TOOL_CALL)
        return keep_call(c, ev, e);
    if (ev->piece == PARSE_REASONING)
        return r->hide_thoughts ? 0 : buf_append(&c->thought, ev->text, ev->n, e);
    return buf_append(&c->text, ev->text, ev->n, e);
}

/* The prompt as text, where it is to come first. */
static int echo_text(struct openai_request *r, const struct job *j, size_t input, struct buf *out,
                     struct err *e)
{
    const struct job_input *in = r->spec.n_input ? &r->spec.input[input] : NULL;
    if (r->chat) {
        const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
        const json_t *c = r->spec.go_on ? json_object_get(last, "content") : NULL;
        return buf_append(out, c ? json_string_value(c) : "", json_string_length(c), e);
    }
    if (in && !in->ids)
        return buf_append(out, in->text, in->n, e);
    struct detok d;
    size_t n;
    const int32_t *ids = job_prompt_ids(j, input, &n);
    detok_init(&d);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = detok_push(&d, vocabulary(j), ids[i], out, e);
    return rc ? rc : detok_flush(&d, out, e);
}

static int echo(struct openai_request *r, const struct job *j, size_t k, struct err *e)
{
    struct buf text;
    struct openai_choice *c = &r->choice[k];
    size_t n = r->spec.n ? r->spec.n : 1;
    buf_init(&text, answer_max);
    int rc = echo_text(r, j, k / n, &text, e);
    if (!rc && r->stream && text.len)
        rc = chunk_text(r, j, k, r->chat ? "content" : "text", NULL, text.data, text.len, e);
    else if (!rc)
        rc = buf_append(&c->text, text.data, text.len, e);
    /* Rows of the prompt are counted by its tokens when they come. */
    if (!r->chat && r->spec.prompt_logprobs < 0)
        c->offset = text.len;
    buf_release(&text);
    return rc;
}

/* ---- the end -------------------------------------------------------------------------------- */

static void sample_end(struct openai_choice *c, const struct request_event *ev)
{
    c->finish = ev->end != REQUEST_STOP ? "length" : c->n_calls ? "tool_calls" : "stop";
    c->stop = ev->stop ? strdup(ev->stop) : NULL;
    c->stop_id = ev->stop ? -1 : ev->stop_id;
}

static int stream_end(struct openai_request *r, const struct job *j, size_t k, struct err *e)
{
    int rc = chunk_begin(r, j, k, e);
    if (!rc)
        rc = buf_puts(&r->out, r->chat ? "}" : "\"text\":\"\"", e);
    return rc ? rc : chunk_end(r, &r->choice[k], true, e);
}

static int set(json_t *o, const char *key, json_t *v)
{
    return json_object_set_new(o, key, v);
}

static json_t *message(struct openai_request *r, struct openai_choice *c)
{
    json_t *m = json_pack("{ss}", "role", "assistant");
    json_t *text = c->calls && !c->text.len ? json_null() : json_stringn(c->text.data, c->text.len);
    enum server_reasoning where = r->server->o.reasoning;
    int bad = set(m, "content", text);
    if (c->thought.len && where != SERVER_REASONING)
        bad |= set(m, "reasoning_content", json_stringn(c->thought.data, c->thought.len));
    if (c->thought.len && where != SERVER_REASONING_CONTENT)
        bad |= set(m, "reasoning", json_stringn(c->thought.data, c->thought.len));
    if (c->calls)
        bad |= json_object_set(m, "tool_calls", c->calls);
    if (!bad)
        return m;
    json_decref(m);
    return NULL;
}

static json_t *whole_choice(struct openai_request *r, const struct job *j, size_t k)
{
    struct openai_choice *c = &r->choice[k];
    json_t *probs = json_null(), *o = json_pack("{sI}", "index", (json_int_t)k);
    int bad = r->chat ? set(o, "message", message(r, c))
                      : set(o, "text", json_stringn(c->text.data, c->text.len));
    if (r->chat && r->spec.logprobs >= 0) {
        probs = json_pack("{so}", "content", c->probs ? json_incref(c->probs) : json_array());
        if (c->thought_probs)
            bad |= json_object_set(probs, "reasoning_content", c->thought_probs);
    } else if (c->probs) {
        probs = json_incref(c->probs);
    }
    bad |= set(o, "logprobs", probs);
    bad |= set(o, "finish_reason", json_string(c->finish ? c->finish : "stop"));
    if (c->stop || c->stop_id >= 0)
        bad |= set(o, "stop_reason", c->stop ? json_string(c->stop) : json_integer(c->stop_id));
    if (c->ids)
        bad |= json_object_set(o, "token_ids", c->ids);
    if (c->prompt_probs && !r->chat)
        bad |= json_object_set(o, "prompt_logprobs", c->prompt_probs);
    (void)j;
    if (!bad)
        return o;
    json_decref(o);
    return NULL;
}

static int whole(struct openai_request *r, const struct job *j, struct err *e)
{
    json_t *all = json_array();
    int bad = !all;
    for (size_t k = 0; k < r->n_choice; k++)
        bad |= json_array_append_new(all, whole_choice(r, j, k));
    json_t *o = json_pack("{ss ss sI ss ss so so}", "id", r->id, "object",
                          r->chat ? "chat.completion" : "text_completion", "created",
                          (json_int_t)job_created(j), "model", job_name(j), "system_fingerprint",
                          r->fingerprint, "choices", all, "usage", openai_usage(&r->stats));
    if (o && r->token_ids) {
        size_t n;
        const int32_t *ids = job_prompt_ids(j, 0, &n);
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++)
            bad |= json_array_append_new(list, json_integer(ids[i]));
        bad |= set(o, "prompt_token_ids", list);
    }
    if (o && r->chat && r->choice[0].prompt_probs)
        bad |= json_object_set(o, "prompt_logprobs", r->choice[0].prompt_probs);
    if (bad) {
        json_decref(o);
        o = NULL;
    }
    int rc = reply_json(r->x, o, e);
    http_end(r->x);
    return rc;
}

static int done(struct openai_request *r, const struct job *j, struct err *e)
{
    int rc = 0;
    if (!r->stream)
        return whole(r, j, e);
    if (r->usage) {
        rc = chunk_head(r, j, e);
        rc = rc ? rc : buf_putc(&r->out, ']', e);
        rc = rc ? rc : put_json(&r->out, "usage", openai_usage(&r->stats), e);
        rc = rc ? rc : buf_putc(&r->out, '}', e);
        rc = rc ? rc : http_write(r->x, r->out.data, r->out.len, e);
    }
    if (!rc)
        rc = http_write(r->x, "[DONE]", 6, e);
    http_end(r->x);
    return rc;
}

/* ---- the sink ------------------------------------------------------------------------------- */

static int begin(void *arg, struct job *j, struct err *e)
{
    struct openai_request *r = arg;
    r->stats.prompt_tokens = job_prompt_tokens(j);
    snprintf(r->fingerprint, sizeof r->fingerprint, "fp_%.10s", job_model(j)->digest);
    int rc = http_stream(r->x, r->spec.answer, e);
    for (size_t k = 0; k < r->n_choice && !rc; k++) {
        struct openai_choice *c = &r->choice[k];
        c->stop_id = -1;
        buf_init(&c->text, answer_max);
        buf_init(&c->thought, answer_max);
        buf_init(&c->name, answer_max);
        buf_init(&c->call, answer_max);
        if (r->stream && r->chat) {
            rc = chunk_begin(r, j, k, e);
            rc = rc ? rc : buf_puts(&r->out, "\"role\":\"assistant\",\"content\":\"\"}", e);
            rc = rc ? rc : chunk_end(r, c, false, e);
        }
        if (!rc && r->spec.echo)
            rc = echo(r, j, k, e);
        if (!rc && !r->chat && r->spec.echo && r->spec.logprobs >= 0 &&
            !(c->probs = openai_legacy()))
            rc = err_nomem(e, 0, "log-probabilities");
    }
    return rc;
}

/* Those of the prompt go to all samples of its input. */
static int prompt_probs(struct openai_request *r, const struct job *j,
                        const struct request_event *ev, struct err *e)
{
    size_t n = r->spec.n ? r->spec.n : 1, first = ev->sample / n * n, count;
    const int32_t *ids = job_prompt_ids(j, ev->sample / n, &count);
    int rc = 0;
    for (size_t k = first; k < first + n && ev->info && !rc; k++)
        rc = openai_probs_prompt(&r->choice[k], vocabulary(j), ids, count, ev, e);
    return rc;
}

static int event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct openai_request *r = arg;
    int rc = 0;
    switch (ev->kind) {
    case REQUEST_PROMPT:
        return r->spec.prompt_logprobs >= 0 ? prompt_probs(r, j, ev, e) : 0;
    case REQUEST_PIECE:
        if (r->continuous)
            r->stats.answer_tokens += ev->n_info;
        rc = gather(r, j, ev->sample, ev, e);
        if (rc || r->echo_only)
            return rc;
        return r->stream ? stream_piece(r, j, ev, e) : keep_piece(r, ev, e);
    case REQUEST_SAMPLE:
        if (r->n_choice == 1)
            r->stats = *ev->stats;
        if (r->choice[ev->sample].call_open && !r->stream) { /* cut off in the middle */
            rc = keep_open_call(&r->choice[ev->sample], e);
        } else if (r->choice[ev->sample].call_open) {
            r->choice[ev->sample].call_open = false;
            r->choice[ev->sample].n_calls++;
        }
        sample_end(&r->choice[ev->sample], ev);
        if (rc)
            return rc;
        return r->stream ? stream_end(r, j, ev->sample, e) : 0;
    case REQUEST_DONE:
        r->stats = *ev->stats;
        if (r->echo_only)
            r->stats.answer_tokens = 0;
        return done(r, j, e);
    default:
        return 0;
    }
}

void openai_error(struct http_exchange *x, const char *param, const struct err *e)
{
    if (e->code == ERR_LIMIT && strstr(e->text, "maximum context length"))
        http_error(x, 400, "invalid_request_error", "context_length_exceeded", param, e->text);
    else if (e->code == ERR_NOTFOUND)
        http_error(x, 404, "invalid_request_error", "model_not_found", "model", e->text);
    else if (e->code == ERR_USAGE || e->code == ERR_FORMAT || e->code == ERR_LIMIT ||
             e->code == ERR_UNSUPPORTED)
        http_error(x, 400, "invalid_request_error", NULL, param, e->text);
    else
        http_error_from(x, e);
}

static void fail(void *arg, struct job *j, const struct err *e)
{
    struct openai_request *r = arg;
    const char *field = r->spec.format_field;
    char param[sizeof r->spec.format_field];
    (void)j;
    snprintf(param, sizeof param, "%.*s", (int)strcspn(field, "."), field);
    bool named = *field && !strncmp(e->text, field, strlen(field));
    openai_error(r->x, named ? param : NULL, e);
}

static void release(void *arg)
{
    openai_free(arg);
}

const struct job_sink openai_sink = {begin, event, fail, release};

/* ---- handlers ------------------------------------------------------------------------------- */

static void answer(struct server *s, struct http_exchange *x, bool chat)
{
    const char *param = NULL;
    struct err e = {0};
    json_t *body;
    struct openai_request *r = reply_begin(x, sizeof *r, &body);
    if (!r)
        return;
    r->server = s;
    r->x = x;
    r->body = body;
    r->chat = chat;
    buf_init(&r->out, answer_max);
    reply_id(r->id, chat ? "chatcmpl-" : "cmpl-");
    if (openai_read(r, &param, &e)) {
        openai_error(x, param, &e);
        openai_free(r);
    } else {
        r->spec.answer = r->stream ? HTTP_EVENTS : HTTP_WHOLE;
        job_run(s, x, &r->spec, &openai_sink, r);
    }
}

void openai_chat(void *arg, struct http_exchange *x)
{
    answer(arg, x, true);
}

void openai_completions(void *arg, struct http_exchange *x)
{
    answer(arg, x, false);
}
