/*
 * See talk.h.
 *
 * Thinking on request: a template with a variable for it is given that variable. A model that
 * always thinks is kept from it by an empty, closed block of thought in front of its answer (the
 * practice for R1), and may not open another.
 */
#include "cli/talk.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/progress.h"
#include "base/quota.h"
#include "cli/lines.h"
#include "cli/machine.h"
#include "format/meta_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TALK_ANSWER_MAX = 1 << 28 };

int talk_init(struct talk *t, struct cli *c, struct engine *g, struct err *e)
{
    memset(t, 0, sizeof *t);
    t->cli = c;
    t->engine = g;
    t->think = -1;
    t->think_budget = OPT_UNSET;
    t->wrap = true;
    t->messages = json_array();
    if (!t->messages)
        return err_nomem(e, 0, "a conversation");
    return session_new(&t->session, g, e);
}

void talk_release(struct talk *t)
{
    session_free(t->session);
    json_decref(t->messages);
    free(t->system);
    memset(t, 0, sizeof *t);
}

void talk_clear(struct talk *t)
{
    json_array_clear(t->messages);
}

int talk_system(struct talk *t, const char *text, struct err *e)
{
    char *s = NULL;
    if (text && *text && !(s = strdup(text)))
        return err_nomem(e, strlen(text), "the system message");
    free(t->system);
    t->system = s;
    return 0;
}

void talk_answer_init(struct talk_answer *a)
{
    memset(a, 0, sizeof *a);
    buf_init(&a->content, TALK_ANSWER_MAX);
    buf_init(&a->reasoning, TALK_ANSWER_MAX);
}

void talk_answer_release(struct talk_answer *a)
{
    buf_release(&a->content);
    buf_release(&a->reasoning);
    json_decref(a->tool_calls);
    talk_answer_init(a);
}

/* ---- the prompt
 * ---------------------------------------------------------------------------------- */

/* {"role": role, "content": text, key: more}; `more` (NULL = none) is text too. */
static json_t *talk_message(const char *role, const char *text, size_t n, const char *key,
                            const struct buf *more)
{
    json_t *m = json_object();
    int bad = json_object_set_new(m, "role", json_string(role)) ||
              json_object_set_new(m, "content", meta_json_string(text, n));
    if (!bad && more && more->len)
        bad = json_object_set_new(m, key, meta_json_string(more->data, more->len));
    if (!bad)
        return m;
    json_decref(m);
    return NULL;
}

static json_t *talk_request(const struct talk *t)
{
    json_t *r = json_object(), *all = json_array();
    bool bad = !r || !all;
    if (!bad && t->system)
        bad = json_array_append_new(
                  all, talk_message("system", t->system, strlen(t->system), NULL, NULL)) != 0;
    if (!bad)
        bad = json_array_extend(all, t->messages) || json_object_set(r, "messages", all);
    const char *variable = chat_thinking_variable(engine_chat(t->engine));
    if (!bad && variable && t->think >= 0)
        bad = json_object_set_new(r, variable, json_boolean(t->think)) != 0;
    json_decref(all);
    if (!bad)
        return r;
    json_decref(r);
    return NULL;
}

static bool talk_forbids_thinking(const struct talk *t)
{
    return t->think == 0 && chat_thinking(engine_chat(t->engine)) == CHAT_THINK_ALWAYS;
}

int talk_encode(const struct talk *t, struct ids *ids, bool *open, struct err *e)
{
    json_t *request = talk_request(t);
    if (!request)
        return err_nomem(e, 0, "a prompt");
    int rc = chat_encode(engine_chat(t->engine), request, ids, open, e);
    json_decref(request);
    if (!rc && talk_forbids_thinking(t)) {
        rc = chat_close_thought(engine_chat(t->engine), ids, *open, e);
        *open = false;
    }
    return rc;
}

/* The prompt must leave room for at least one token of an answer. */
static int talk_check_length(const struct talk *t, size_t n, struct err *e)
{
    const struct engine_info *i = engine_info(t->engine);
    char a[32], b[32], more[32], avail[32], room[64] = "";
    if (n < i->ctx)
        return 0;
    size_t want = 1024;
    while (want <= n)
        want *= 2;
    size_t have = quota_memory("");
    progress_bytes(more, sizeof more, (double)(want - i->ctx) * (double)i->kv_token_bytes);
    if (have != SIZE_MAX)
        snprintf(room, sizeof room, "; %s are free",
                 progress_bytes(avail, sizeof avail, (double)have));
    bool chat = t->interactive && json_array_size(t->messages) > 1;
    return err_set(
        e, ERR_LIMIT, "the %s has %s tokens and the context is %s: %s --ctx %zu (needs %s more%s)",
        chat ? "chat" : "prompt", term_group(a, sizeof a, n), term_group(b, sizeof b, i->ctx),
        chat             ? "/clear begins a new one, or restart with"
        : t->interactive ? "shorten it, or restart with"
                         : "shorten it, or give",
        want, more, room);
}

/* ---- the answer
 * ---------------------------------------------------------------------------------- */

/* What the callbacks of one generation need. */
struct talk_run {
    struct talk *t;
    struct view *v;
    struct talk_answer *a;
    size_t prompt; /* tokens; a thought is counted from there */
    double think_began;
    bool thinking;
    bool interrupted;
    struct err err;
};

static void talk_think_end(struct talk_run *r, bool cut_off)
{
    if (!r->thinking)
        return;
    r->thinking = false;
    r->a->think_seconds = clock_seconds() - r->think_began;
    r->a->think_tokens = session_len(r->t->session) - r->prompt;
    if (r->v)
        view_think_end(r->v, r->a->think_seconds, r->a->think_tokens, cut_off);
}

static int talk_tool_call(struct talk_run *r, const char *s, size_t n)
{
    json_t *call = json_loadb(s, n, JSON_ALLOW_NUL, NULL);
    if (!r->a->tool_calls)
        r->a->tool_calls = json_array();
    if (json_array_append_new(r->a->tool_calls, call ? call : meta_json_string(s, n)))
        return err_nomem(&r->err, n, "a tool call");
    if (!r->v)
        return 0;
    int rc = view_text(r->v, "tool call ", 10, &r->err);
    if (!rc)
        rc = view_text(r->v, s, n, &r->err);
    return rc ? rc : view_text(r->v, "\n", 1, &r->err);
}

static int talk_emit(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct talk_run *r = arg;
    if (ev == PARSE_REASONING) {
        if (!r->thinking) {
            r->thinking = true;
            r->think_began = clock_seconds();
            if (r->v)
                view_think_begin(r->v);
        }
        int rc = buf_append(&r->a->reasoning, s, n, &r->err);
        if (rc || !r->v || r->v->hide_thinking)
            return rc;
        return view_text(r->v, s, n, &r->err);
    }
    talk_think_end(r, false);
    if (ev == PARSE_TOOL_CALL)
        return talk_tool_call(r, s, n);
    int rc = buf_append(&r->a->content, s, n, &r->err);
    return rc || !r->v ? rc : view_text(r->v, s, n, &r->err);
}

static bool talk_keep_going(void *arg)
{
    struct talk_run *r = arg;
    if (interrupt_pending(r->t->cli->interrupt) &&
        (interrupt_take(r->t->cli->interrupt) & INTERRUPT_STOP))
        r->interrupted = true;
    return !r->interrupted;
}

static int talk_generate(struct talk_run *r, const struct ids *ids, bool open, struct err *e)
{
    struct talk *t = r->t;
    struct sampler_bias bias[OPT_LIST_MAX + 1];
    struct generate_params p = {.keep_going = talk_keep_going, .emit = talk_emit, .arg = r};
    answer_params_init(&p.answer);
    p.answer.stop = t->sampling.stop.v;
    p.answer.n_stop = t->sampling.stop.n;
    p.answer.thinking_open = open;
    p.answer.think_max = t->think_budget == OPT_UNSET ? -1 : t->think_budget;
    p.answer.think_loops = true;
    p.answer.grammar = t->grammar;
    p.answer.thinking_may =
        t->think != 0 && chat_thinking(engine_chat(t->engine)) != CHAT_THINK_NONE;
    int rc = options_sampling_params(&t->sampling, t->engine, &p.sampling, bias, e);
    if (rc)
        return rc;
    int32_t think = tokenizer_find(engine_tokenizer(t->engine), "<think>");
    if (talk_forbids_thinking(t) && think >= 0)
        bias[p.sampling.n_bias++] = (struct sampler_bias){think, -INFINITY};
    if (t->sampling.max_tokens != OPT_UNSET && t->sampling.max_tokens > 0)
        p.answer.max_tokens = (size_t)t->sampling.max_tokens;
    r->a->seed = p.sampling.seed;
    interrupt_watch(t->cli->interrupt);
    rc = generate(t->session, ids->v, ids->n, &p, &r->a->stats, e);
    interrupt_unwatch(t->cli->interrupt);
    if (rc && r->err.code) /* the words of what went wrong in a callback */
        *e = r->err;
    talk_think_end(r, rc != 0 || r->a->stats.stop != GENERATE_END);
    if (!rc && (r->interrupted || r->a->stats.stop == GENERATE_CANCELLED))
        rc = err_set(e, ERR_CANCELLED, "interrupted");
    return rc;
}

static int talk_keep_answer(struct talk *t, const struct talk_answer *a, struct err *e)
{
    json_t *m = talk_message("assistant", a->content.data, a->content.len, "reasoning_content",
                             &a->reasoning);
    if (m && a->tool_calls && json_object_set(m, "tool_calls", a->tool_calls)) {
        json_decref(m);
        m = NULL;
    }
    return json_array_append_new(t->messages, m) ? err_nomem(e, 0, "the conversation") : 0;
}

int talk_ask(struct talk *t, const char *prompt, size_t n, struct view *v, struct talk_answer *a,
             struct err *e)
{
    struct talk_run r = {.t = t, .v = v, .a = a};
    struct ids ids;
    bool open = false;
    size_t before = json_array_size(t->messages);
    ids_init(&ids, (size_t)1 << 28);
    int rc = 0;
    if (json_array_append_new(t->messages, talk_message("user", prompt, n, NULL, NULL)))
        rc = err_nomem(e, n, "the conversation");
    if (!rc)
        rc = talk_encode(t, &ids, &open, e);
    if (!rc)
        rc = talk_check_length(t, ids.n, e);
    if (!rc) {
        r.prompt = ids.n;
        rc = talk_generate(&r, &ids, open, e);
        struct err lost = {0};
        if (v && view_finish(v, &lost) && !rc) {
            *e = lost;
            rc = lost.code;
        }
    }
    if (!rc || rc == ERR_CANCELLED) {
        struct err lost = {0};
        if (talk_keep_answer(t, a, &lost)) {
            *e = lost;
            rc = lost.code;
        }
    }
    while (rc && rc != ERR_CANCELLED && json_array_size(t->messages) > before)
        json_array_remove(t->messages, before);
    ids_release(&ids);
    return rc;
}

void talk_note_loop(const struct talk *t, const struct talk_answer *a)
{
    bool budget = t->think_budget != OPT_UNSET && a->think_tokens >= (size_t)t->think_budget;
    if (a->stats.thought_cut && !budget)
        fprintf(stderr, "ponder: note: the thought repeated itself and was closed\n");
}

/* ---- what it cost
 * -------------------------------------------------------------------------------- */

static double talk_rate(size_t tokens, double seconds)
{
    return seconds > 0 ? (double)tokens / seconds : 0;
}

/* Bytes that decoding the answer read: the weights once a token, and the cache before it. */
static double talk_bytes(const struct talk *t, const struct generate_stats *s)
{
    const struct engine_info *i = engine_info(t->engine);
    size_t steps =
        s->answer_tokens ? s->answer_tokens - 1 : 0; /* the first comes from the prompt */
    double mid = (double)s->prompt_tokens + (double)s->answer_tokens / 2;
    return (double)steps * ((double)i->token_bytes + mid * (double)i->kv_token_bytes);
}

void talk_report(struct talk *t, const struct talk_answer *a)
{
    const struct engine_info *i = engine_info(t->engine);
    const struct generate_stats *s = &a->stats;
    char x[32], y[32], z[32];
    size_t computed = s->prompt_tokens - num_min(s->reused_tokens, s->prompt_tokens);
    double bytes = talk_bytes(t, s), rate = s->answer_seconds > 0 ? bytes / s->answer_seconds : 0;
    if (rate > 0 && !t->bandwidth)
        t->bandwidth = machine_bandwidth(
            &(struct machine_spec){i->threads, i->topology, i->pin, cpu_best()}, 0.2);
    fprintf(stderr, "prompt   %6s tokens in %.2f s %7.4g tok/s",
            term_group(x, sizeof x, s->prompt_tokens), s->prompt_seconds,
            talk_rate(computed, s->prompt_seconds));
    if (s->reused_tokens)
        fprintf(stderr, "   %s of them still in the cache",
                term_group(x, sizeof x, s->reused_tokens));
    fprintf(stderr, "\nanswer   %6s tokens in %.2f s %7.4g tok/s",
            term_group(x, sizeof x, s->answer_tokens), s->answer_seconds,
            talk_rate(s->answer_tokens, s->answer_seconds));
    if (rate > 0)
        fprintf(stderr, "   %.1f GB/s", rate / 1e9);
    if (rate > 0 && t->bandwidth > 0)
        fprintf(stderr, ", %.0f%% of this machine's memory bandwidth", 100 * rate / t->bandwidth);
    fprintf(stderr, "\nmemory   %s weights, %s KV of %s tokens\n",
            progress_bytes(x, sizeof x, (double)i->weight_bytes),
            progress_bytes(y, sizeof y, (double)i->kv_token_bytes * (double)i->ctx),
            term_group(z, sizeof z, i->ctx));
    char where[160];
    topology_describe(i->topology, where, sizeof where);
    fprintf(stderr, "threads  %d on %s, %s\n", i->threads, where, team_pin_name(i->pin));
    if (i->mapped_bytes)
        fprintf(stderr, "mapped   %s of weights stay in the files and are read when used\n",
                progress_bytes(x, sizeof x, (double)i->mapped_bytes));
    uint64_t drafted, accepted;
    session_drafts(t->session, &drafted, &accepted);
    if (drafted)
        fprintf(stderr, "drafts   %s guessed in this chat, %.0f%% of them right\n",
                term_group(x, sizeof x, drafted), 100 * (double)accepted / (double)drafted);
}

json_t *talk_json(const struct talk *t, const struct talk_answer *a)
{
    const struct engine_info *i = engine_info(t->engine);
    const struct generate_stats *s = &a->stats;
    json_t *name = meta_json_string(i->name, strlen(i->name));
    json_t *content = meta_json_string(a->content.data, a->content.len);
    json_t *reasoning =
        a->reasoning.len ? meta_json_string(a->reasoning.data, a->reasoning.len) : json_null();
    json_t *calls = a->tool_calls ? json_incref(a->tool_calls) : json_array();
    uint64_t drafted, accepted;
    session_drafts(t->session, &drafted, &accepted);
    return json_pack(
        "{so so so so ss sb sI s{sI sI sI sI sf sf sf sf sf sI sI}}", "model", name, "answer",
        content, "reasoning", reasoning, "tool_calls", calls, "stop", generate_stop_name(s->stop),
        "thought_cut", s->thought_cut, "seed", (json_int_t)a->seed, "timings", "prompt_tokens",
        (json_int_t)s->prompt_tokens, "reused_tokens", (json_int_t)s->reused_tokens,
        "answer_tokens", (json_int_t)s->answer_tokens, "reasoning_tokens",
        (json_int_t)s->reasoning_tokens, "prompt_seconds", s->prompt_seconds, "first_token_seconds",
        s->first_token_seconds, "answer_seconds", s->answer_seconds, "prompt_tokens_per_second",
        talk_rate(s->prompt_tokens - num_min(s->reused_tokens, s->prompt_tokens),
                  s->prompt_seconds),
        "answer_tokens_per_second", talk_rate(s->answer_tokens, s->answer_seconds),
        "drafted_tokens", (json_int_t)drafted, "accepted_tokens", (json_int_t)accepted);
}
