/*
 * The prompts of a job.
 *
 * Templates differ in what they accept, and tell by raising. So a conversation is rendered as it
 * came first; when the template refuses it, the same with what such templates stumble over put
 * another way: arguments of calls as text (DeepSeek-R1's own template joins them to strings), and
 * messages of one role in a row as one (templates that insist on turns). The first error is the one
 * that is told.
 */
#include "base/buf.h"
#include "base/num.h"
#include "server/job_impl.h"
#include "text/fim.h"

#include <stdlib.h>
#include <string.h>

static const size_t prompt_max = (size_t)1 << 26; /* tokens: above any context */

bool job_shows_tools(const struct job_spec *s)
{
    return json_array_size(s->tools) && s->choice != JOB_TOOL_NONE;
}

bool job_forbids_thinking(const struct job *j)
{
    bool off = j->think == JOB_THINK_OFF || (j->spec->think_max == 0 && j->think != JOB_THINK_ON);
    return off && j->spec->prompt == JOB_CHAT &&
           chat_thinking(engine_chat(j->use.engine)) == CHAT_THINK_ALWAYS;
}

/* ---- conversations -------------------------------------------------------------------------- */

enum { SHAPE_TEXT_ARGUMENTS = 1, SHAPE_MERGED = 2, SHAPES = 4 };

/* Arguments of calls as JSON text. */
static int as_text(json_t *message)
{
    size_t i;
    json_t *call;
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *f = json_object_get(call, "function");
        json_t *args = json_object_get(f, "arguments");
        if (!args || json_is_string(args))
            continue;
        char *text = json_dumps(args, JSON_COMPACT | JSON_ENCODE_ANY);
        json_t *s = text ? json_string(text) : NULL;
        free(text);
        if (!s || json_object_set_new(f, "arguments", s))
            return ERR_NOMEM;
    }
    return 0;
}

static bool mergeable(const json_t *a, const json_t *b)
{
    const char *x = json_string_value(json_object_get(a, "role"));
    const char *y = json_string_value(json_object_get(b, "role"));
    return x && y && !strcmp(x, y) && strcmp(x, "tool") != 0 &&
           json_is_string(json_object_get(a, "content")) &&
           json_is_string(json_object_get(b, "content")) && !json_object_get(a, "tool_calls") &&
           !json_object_get(b, "tool_calls");
}

/* Messages i to end of `all`, of one role each, as one with their texts. New reference. */
static json_t *joined(const json_t *all, size_t i, size_t end)
{
    struct buf text;
    int rc = 0;
    buf_init(&text, SIZE_MAX / 4);
    for (size_t k = i; k < end && !rc; k++) {
        const json_t *s = json_object_get(json_array_get(all, k), "content");
        if (k > i)
            rc = buf_puts(&text, "\n\n", NULL);
        rc = rc ? rc : buf_append(&text, json_string_value(s), json_string_length(s), NULL);
    }
    json_t *m = rc ? NULL : json_copy(json_array_get(all, i));
    if (m && json_object_set_new(m, "content", json_stringn(text.data, text.len))) {
        json_decref(m);
        m = NULL;
    }
    buf_release(&text);
    return m;
}

/* The messages, those of one role in a row as one. New reference. */
static json_t *merged(const json_t *messages)
{
    size_t n = json_array_size(messages), end;
    json_t *all = json_array();
    for (size_t i = 0; i < n && all; i = end) {
        for (end = i + 1;
             end < n && mergeable(json_array_get(messages, end - 1), json_array_get(messages, end));
             end++)
            ;
        json_t *m =
            end == i + 1 ? json_incref(json_array_get(messages, i)) : joined(messages, i, end);
        if (json_array_append_new(all, m)) {
            json_decref(all);
            all = NULL;
        }
    }
    return all;
}

/* The messages in another shape; new reference, NULL: no memory. */
static json_t *reshape(const json_t *messages, int shape)
{
    json_t *all =
        shape & SHAPE_MERGED ? merged(messages) : json_copy((json_t *)(uintptr_t)messages);
    json_t *own = shape & SHAPE_TEXT_ARGUMENTS ? json_deep_copy(all) : json_incref(all);
    int rc = own ? 0 : ERR_NOMEM;
    for (size_t i = 0; i < json_array_size(own) && shape & SHAPE_TEXT_ARGUMENTS && !rc; i++)
        rc = as_text(json_array_get(own, i));
    json_decref(all);
    if (!rc)
        return own;
    json_decref(own);
    return NULL;
}

/* What the template sees beside the messages. go_on: the last one is the answer's beginning. */
static json_t *request(const struct job *j, bool go_on)
{
    static const char *const own[] = {"messages", "tools", "add_generation_prompt",
                                      "continue_final_message"};
    const struct job_spec *s = j->spec;
    const char *variable = chat_thinking_variable(engine_chat(j->use.engine));
    json_t *r = s->template_vars ? json_copy(s->template_vars) : json_object();
    for (size_t i = 0; i < NUM_COUNT(own); i++)
        json_object_del(r, own[i]);
    int bad = 0;
    if (job_shows_tools(s))
        bad |= json_object_set(r, "tools", s->tools);
    if (variable && j->think != JOB_THINK_DEFAULT)
        bad |= json_object_set_new(r, variable, json_boolean(j->think == JOB_THINK_ON));
    else if (variable && s->think_max == 0)
        bad |= json_object_set_new(r, variable, json_false());
    bad |= json_object_set_new(r, "add_generation_prompt", json_boolean(!go_on));
    bad |= json_object_set_new(r, "continue_final_message", json_boolean(go_on));
    if (!bad && r)
        return r;
    json_decref(r);
    return NULL;
}

/* One rendering, in whatever shape the template takes. */
static int encode(const struct job *j, json_t *r, const json_t *messages, struct ids *ids,
                  bool *open, struct err *e)
{
    struct err first = {0}, next;
    for (int shape = 0; shape < SHAPES; shape++) {
        json_t *all = reshape(messages, shape);
        if (!all || json_object_set_new(r, "messages", all))
            return err_nomem(e, 0, "a conversation");
        ids->n = 0;
        int rc = chat_encode(engine_chat(j->use.engine), r, ids, open, &next);
        if (!rc)
            return 0;
        if (!first.code)
            first = next;
        if (rc != ERR_FORMAT)
            break;
    }
    *e = first;
    return first.code;
}

/* Without the oldest `drop` messages that are not system ones; a result whose call went is not
   kept either. New reference. */
static json_t *shorter(const json_t *messages, size_t drop)
{
    json_t *all = json_array();
    size_t i, gone = 0;
    json_t *m;
    json_array_foreach(messages, i, m)
    {
        const char *role = json_string_value(json_object_get(m, "role"));
        bool system = role && !strcmp(role, "system"), tool = role && !strcmp(role, "tool");
        bool last = i + 1 == json_array_size(messages);
        if (!system && !last && (gone < drop || (tool && gone == drop && drop))) {
            gone += gone < drop;
            continue;
        }
        if (!system && gone == drop)
            gone++; /* from here on everything stays */
        if (json_array_append(all, m)) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}

/* The fewest messages dropped with which the prompt fits; found by halving. */
static int encode_truncated(const struct job *j, json_t *r, struct ids *ids, bool *open,
                            struct err *e)
{
    size_t n = json_array_size(j->spec->messages), lo = 1, hi = n ? n - 1 : 0;
    size_t ctx = engine_info(j->use.engine)->ctx, best = 0;
    int rc = 0;
    while (lo <= hi && hi && !rc) {
        size_t mid = lo + (hi - lo) / 2;
        json_t *all = shorter(j->spec->messages, mid);
        rc = all ? encode(j, r, all, ids, open, e) : err_nomem(e, 0, "a conversation");
        json_decref(all);
        if (ids->n < ctx) {
            best = mid;
            hi = mid - 1;
        } else {
            lo = mid + 1;
        }
    }
    if (rc)
        return rc;
    json_t *all = shorter(j->spec->messages, best ? best : n);
    rc = all ? encode(j, r, all, ids, open, e) : err_nomem(e, 0, "a conversation");
    json_decref(all);
    return rc;
}

static int prompt_ids(struct job *j, struct job_part *p, const int32_t *ids, size_t n,
                      struct err *e)
{
    size_t vocab = engine_info(j->use.engine)->vocab;
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (size_t)ids[i] >= vocab)
            return err_set(e, ERR_USAGE, "token id %d is out of vocabulary: ids go from 0 to %zu",
                           ids[i], vocab - 1);
    return ids_append(&p->prompt, ids, n, e);
}

/* Puts the tokens of an earlier conversation in front; a BOS of the new part goes. */
static int continue_ids(struct job *j, struct job_part *p, struct err *e)
{
    const struct job_spec *s = j->spec;
    const struct tokenizer *t = engine_tokenizer(j->use.engine);
    size_t own = p->prompt.n, skip = own && p->prompt.v[0] == tokenizer_bos(t);
    int rc = prompt_ids(j, p, s->ids, s->n_ids, e);
    if (rc)
        return rc;
    int32_t *v = p->prompt.v;
    memmove(v + s->n_ids, v + skip, (own - skip) * sizeof *v);
    memcpy(v, s->ids, s->n_ids * sizeof *v);
    p->prompt.n = s->n_ids + own - skip;
    return 0;
}

/* The thought that the answer's beginning has; NULL: none. */
static const json_t *begun_thought(const struct job *j)
{
    const json_t *all = j->spec->messages;
    const json_t *last = json_array_get(all, json_array_size(all) - 1);
    const json_t *thought = json_object_get(last, "reasoning_content");
    return j->spec->go_on && json_string_length(thought) ? thought : NULL;
}

struct marked {
    struct buf text, trusted;
};

static int mark(struct marked *m, const char *s, size_t n, bool trusted, struct err *e)
{
    int rc = buf_append(&m->text, s, n, e);
    for (size_t i = 0; i < n && !rc; i++)
        rc = buf_putc(&m->trusted, trusted, e);
    return rc;
}

/*
 * An answer whose thought has begun, or is there with the beginning of the text behind it.
 * Templates drop thoughts of earlier answers, so what is there stands behind the prompt for a new
 * answer, as the model would have written it.
 */
static int prompt_thought(struct job *j, struct job_part *p, const json_t *thought, struct err *e)
{
    static const char opening[] = "<think>\n", closing[] = "\n</think>\n\n";
    size_t n = json_array_size(j->spec->messages);
    json_t *r = request(j, false), *before = json_copy(j->spec->messages);
    const json_t *text = json_object_get(json_array_get(j->spec->messages, n - 1), "content");
    struct marked m;
    buf_init(&m.text, SIZE_MAX / 4);
    buf_init(&m.trusted, SIZE_MAX / 4);
    int rc = r && before && !json_array_remove(before, n - 1)
                 ? encode(j, r, before, &p->prompt, &p->thinking_open, e)
                 : err_nomem(e, 0, "a conversation");
    if (!rc && !p->thinking_open)
        rc = mark(&m, opening, sizeof opening - 1, true, e);
    if (!rc)
        rc = mark(&m, json_string_value(thought), json_string_length(thought), false, e);
    p->thinking_open = !json_string_length(text);
    if (!rc && !p->thinking_open)
        rc = mark(&m, closing, sizeof closing - 1, true, e);
    if (!rc && !p->thinking_open)
        rc = mark(&m, json_string_value(text), json_string_length(text), false, e);
    if (!rc)
        rc = tokenizer_encode(engine_tokenizer(j->use.engine), m.text.data, m.text.len, 0,
                              (const uint8_t *)m.trusted.data, &p->prompt, e);
    buf_release(&m.text);
    buf_release(&m.trusted);
    json_decref(before);
    json_decref(r);
    return rc;
}

static int prompt_chat(struct job *j, struct job_part *p, struct err *e)
{
    const json_t *thought = begun_thought(j);
    if (thought)
        return prompt_thought(j, p, thought, e);
    json_t *r = request(j, j->spec->go_on);
    if (!r)
        return err_nomem(e, 0, "a conversation");
    int rc = encode(j, r, j->spec->messages, &p->prompt, &p->thinking_open, e);
    if (!rc && j->spec->truncate && p->prompt.n >= engine_info(j->use.engine)->ctx)
        rc = encode_truncated(j, r, &p->prompt, &p->thinking_open, e);
    json_decref(r);
    if (!rc && job_forbids_thinking(j) && !j->spec->go_on) {
        rc = chat_close_thought(engine_chat(j->use.engine), &p->prompt, p->thinking_open, e);
        p->thinking_open = false;
    }
    return rc || !j->spec->n_ids ? rc : continue_ids(j, p, e);
}

/* ---- others --------------------------------------------------------------------------------- */

/* Text whose author writes the control tokens; a BOS that is there already is not doubled. */
static int prompt_text(struct job *j, struct job_part *p, const char *text, size_t n, struct err *e)
{
    const struct tokenizer *t = engine_tokenizer(j->use.engine);
    int32_t bos = tokenizer_adds_bos(t) ? tokenizer_bos(t) : -1;
    int rc = bos >= 0 ? ids_push(&p->prompt, bos, e) : 0;
    if (!rc)
        rc = tokenizer_encode(t, text, n, j->spec->embed ? 0 : TOKENIZER_SPECIAL, NULL, &p->prompt,
                              e);
    if (!rc && bos >= 0 && p->prompt.n > 1 && p->prompt.v[1] == bos)
        memmove(p->prompt.v, p->prompt.v + 1, --p->prompt.n * sizeof *p->prompt.v);
    p->thinking_open = !j->spec->raw && chat_thinking_open(text, n);
    return rc;
}

static int prompt_part(struct job *j, struct job_part *p, struct err *e)
{
    const struct job_spec *s = j->spec;
    const struct job_input own = {s->text, s->n_text, s->prompt == JOB_IDS ? s->ids : NULL,
                                  s->n_ids};
    const struct job_input *in = s->n_input ? &s->input[p->index] : &own;
    if (s->prompt == JOB_CHAT)
        return prompt_chat(j, p, e);
    if (s->prompt == JOB_FIM)
        return fim_encode(engine_tokenizer(j->use.engine), in->text, in->n,
                          s->suffix ? s->suffix : "", s->n_suffix, &p->prompt, e);
    return in->ids ? prompt_ids(j, p, in->ids, in->n_ids, e)
                   : prompt_text(j, p, in->text ? in->text : "", in->n, e);
}

/* A prompt must be there, and leave room for one token of an answer. */
static int check(struct job *j, struct job_part *p, struct err *e)
{
    size_t ctx = engine_info(j->use.engine)->ctx, max = j->spec->max_tokens;
    size_t room = j->spec->embed ? 0 : 1, n = p->prompt.n, most = j->spec->prompt_max;
    if (!n)
        return err_set(e, ERR_USAGE, "the prompt is empty");
    if (most && n > most) {
        memmove(p->prompt.v, p->prompt.v + n - most, most * sizeof *p->prompt.v);
        p->prompt.n = n = most;
    }
    if (n + room <= ctx)
        return 0;
    if (j->spec->truncate && j->spec->prompt != JOB_CHAT) {
        /* The newest tokens stay, and of a text to embed the first ones. */
        size_t keep = ctx - room;
        if (!j->spec->embed)
            memmove(p->prompt.v, p->prompt.v + n - keep, keep * sizeof *p->prompt.v);
        p->prompt.n = keep;
        return 0;
    }
    if (j->spec->embed)
        return err_set(e, ERR_LIMIT,
                       "This model's maximum context length is %zu tokens. However, the input has "
                       "%zu tokens. Please reduce its length.",
                       ctx, n);
    return err_set(e, ERR_LIMIT,
                   "This model's maximum context length is %zu tokens. However, you requested %zu "
                   "tokens (%zu in the %s, %zu in the completion). Please reduce the length of the "
                   "%s or completion.",
                   ctx, n + num_max(max, 1), n, j->spec->prompt == JOB_CHAT ? "messages" : "prompt",
                   num_max(max, 1), j->spec->prompt == JOB_CHAT ? "messages" : "prompt");
}

int job_prompt(struct job *j, struct err *e)
{
    size_t n = j->spec->n_input ? j->spec->n_input : 1;
    j->part = calloc(n, sizeof *j->part);
    if (!j->part)
        return err_nomem(e, n * sizeof *j->part, "prompts");
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        struct job_part *p = &j->part[i];
        p->j = j;
        p->index = i;
        ids_init(&p->prompt, prompt_max);
        j->n_part = i + 1;
        rc = prompt_part(j, p, e);
        if (!rc)
            rc = check(j, p, e);
    }
    return rc;
}
