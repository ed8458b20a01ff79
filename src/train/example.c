#include "train/example.h"

#include "base/num.h"
#include "train/jsonl.h"
#include "train/record.h"

#include <ctype.h>
#include <string.h>

enum { EXAMPLE_TEXT = 4 * JSONL_LINE };

static const char think_open[] = "<think>", think_close[] = "</think>";

void example_init(struct example *x)
{
    *x = (struct example){0};
    for (int i = 0; i < 2; i++) {
        ids_init(&x->seq[i].ids, EXAMPLE_TEXT);
        buf_init(&x->seq[i].target, EXAMPLE_TEXT);
    }
    jinja_result_init(&x->text, EXAMPLE_TEXT);
    jinja_result_init(&x->probe, EXAMPLE_TEXT);
}

void example_release(struct example *x)
{
    for (int i = 0; i < 2; i++) {
        ids_release(&x->seq[i].ids);
        buf_release(&x->seq[i].target);
    }
    jinja_result_release(&x->text);
    jinja_result_release(&x->probe);
}

/* ---- parts ------------------------------------------------------------------------------------
 */

/* Gives the tokens that were added since the last call their mark. */
static int mark(struct example_seq *s, bool target, struct err *e)
{
    size_t more = s->ids.n - s->target.len;
    int rc = buf_reserve(&s->target, more, e);
    if (rc)
        return rc;
    memset(s->target.data + s->target.len, target, more);
    s->target.len += more;
    return 0;
}

/* Ends with a token that ends a turn, or there is none. */
static int push_end(const struct example_how *h, struct example_seq *s, struct err *e)
{
    int32_t eos = tokenizer_eos(h->tokenizer);
    if (eos < 0 || (s->ids.n && tokenizer_is_end(h->tokenizer, s->ids.v[s->ids.n - 1])))
        return 0;
    return ids_push(&s->ids, eos, e);
}

static int push_text(const struct example_how *h, struct example_seq *s, const json_t *text,
                     bool first, struct err *e)
{
    size_t at = s->ids.n;
    int rc = tokenizer_encode(h->tokenizer, json_string_value(text), json_string_length(text),
                              TOKENIZER_SPECIAL | (first ? TOKENIZER_BOS : 0), NULL, &s->ids, e);
    /* A text that begins with BOS itself has one, not two. */
    int32_t bos = tokenizer_bos(h->tokenizer);
    if (!rc && first && bos >= 0 && s->ids.n - at >= 2 && s->ids.v[at] == bos &&
        s->ids.v[at + 1] == bos) {
        memmove(s->ids.v + at, s->ids.v + at + 1, (s->ids.n - at - 1) * sizeof *s->ids.v);
        s->ids.n--;
    }
    return rc;
}

/* Bytes [from, to) of a rendered text. */
static int push_rendered(const struct example_how *h, struct example_seq *s,
                         const struct jinja_result *r, size_t from, size_t to, struct err *e)
{
    return tokenizer_encode(h->tokenizer, r->text.data + from, to - from, 0,
                            (const uint8_t *)r->trusted.data + from, &s->ids, e);
}

/* ---- rendering --------------------------------------------------------------------------------
 */

static int render(const struct example_how *h, const struct record *r, json_t *messages,
                  bool generation, struct jinja_result *out, struct err *e)
{
    json_t *request, *v;
    const char *key;
    if (!h->chat)
        return err_set(e, ERR_FORMAT, "has messages, but the model has no chat template");
    request = json_pack("{sO sb}", "messages", messages, "add_generation_prompt", generation);
    if (!request)
        return err_nomem(e, 0, "a conversation");
    if (r->tools && !json_is_null(r->tools))
        json_object_set(request, "tools", r->tools);
    json_object_foreach(r->variables, key, v)
    {
        if (!json_object_get(request, key))
            json_object_set(request, key, v);
    }
    buf_clear(&out->text);
    buf_clear(&out->trusted);
    int rc = chat_render(h->chat, request, out, e);
    json_decref(request);
    return rc;
}

/* ---- answers ----------------------------------------------------------------------------------
 */

static bool starts(const char *s, size_t n, const char *word)
{
    return n >= strlen(word) && memcmp(s, word, strlen(word)) == 0;
}

static size_t blanks(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && isspace((unsigned char)s[i]))
        i++;
    return i;
}

/* The thought that a message has beside its content, or NULL. */
static const json_t *thought_of(const json_t *message)
{
    static const char *const keys[] = {"reasoning_content", "reasoning", "thinking"};
    for (size_t i = 0; i < NUM_COUNT(keys); i++) {
        const json_t *v = json_object_get(message, keys[i]);
        if (json_is_string(v) && json_string_length(v))
            return v;
    }
    return NULL;
}

/* Thought and content as the model writes them. */
static int write_answer(const json_t *message, const json_t *content, struct buf *out,
                        struct err *e)
{
    const json_t *thought = thought_of(message);
    const char *s = json_string_value(content);
    size_t n = json_string_length(content);
    int rc = 0;
    if (thought) {
        const char *t = json_string_value(thought);
        size_t k = json_string_length(thought), skip = blanks(t, k);
        for (t += skip, k -= skip; k && isspace((unsigned char)t[k - 1]);)
            k--;
        skip = blanks(s, n);
        s += skip;
        n -= skip;
        rc = buf_puts(out, "<think>\n", e);
        if (!rc)
            rc = buf_append(out, t, k, e);
        if (!rc)
            rc = buf_puts(out, "\n</think>\n\n", e);
    }
    return rc ? rc : buf_append(out, s, n, e);
}

/*
 * The answer after a prompt that opens a thought with "<think>" and `tail` (white space): without
 * what is there already, or with an empty thought when it has none.
 */
static int continue_thought(struct buf *answer, const char *tail, size_t n_tail, struct err *e)
{
    const char *s = answer->data;
    size_t n = answer->len, skip = blanks(s, n);
    struct buf out;
    int rc = 0;
    buf_init(&out, answer->max);
    if (starts(s + skip, n - skip, think_open)) {
        skip += strlen(think_open);
        for (size_t i = 0; i < n_tail && skip < n && s[skip] == tail[i]; i++)
            skip++;
    } else {
        skip = 0;
        if (!memmem(s, n, think_close, strlen(think_close)))
            rc = buf_puts(&out, "\n</think>\n\n", e);
    }
    if (!rc)
        rc = buf_append(&out, s + skip, n - skip, e);
    if (rc) {
        buf_release(&out);
        return rc;
    }
    buf_release(answer);
    *answer = out;
    return 0;
}

/* The tags of thoughts in an answer become tokens, nothing else does. */
static int push_answer(const struct example_how *h, struct example_seq *s, const struct buf *answer,
                       struct err *e)
{
    static const char *const tags[] = {think_open, think_close};
    struct buf trusted;
    buf_init(&trusted, answer->max);
    int rc = buf_reserve(&trusted, answer->len, e);
    if (!rc) {
        memset(trusted.data, 0, answer->len);
        for (size_t i = 0; i < answer->len; i++)
            for (size_t t = 0; answer->data[i] == '<' && t < NUM_COUNT(tags); t++)
                if (starts(answer->data + i, answer->len - i, tags[t]))
                    memset(trusted.data + i, 1, strlen(tags[t]));
        rc = tokenizer_encode(h->tokenizer, answer->data, answer->len, 0,
                              (const uint8_t *)trusted.data, &s->ids, e);
    }
    if (!rc)
        rc = ids_append(&s->ids, h->turn_end.v, h->turn_end.n, e);
    buf_release(&trusted);
    return rc;
}

static bool plain_assistant(const json_t *m)
{
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && strcmp(role, "assistant") == 0 &&
           !json_array_size(json_object_get(m, "tool_calls"));
}

/* The one message of an assistant after the prompt that x->text holds. */
static int push_message(const struct example_how *h, struct example *x, struct example_seq *s,
                        const json_t *message, struct err *e)
{
    const struct jinja_result *r = &x->text;
    struct buf answer;
    json_t *content = record_content(message);
    if (!content)
        return err_set(e, ERR_FORMAT, "the last message has content that is no text");
    buf_init(&answer, EXAMPLE_TEXT);
    int rc = write_answer(message, content, &answer, e);
    if (!rc && x->thinking) {
        size_t n = r->text.len;
        while (n && isspace((unsigned char)r->text.data[n - 1]))
            n--;
        rc = continue_thought(&answer, r->text.data + n, r->text.len - n, e);
    }
    if (!rc)
        rc = push_answer(h, s, &answer, e);
    buf_release(&answer);
    json_decref(content);
    return rc;
}

/* Calls of tools, or several messages: what the template adds to the prompt for them. */
static int push_difference(const struct example_how *h, const struct record *r, struct example *x,
                           struct example_seq *s, const json_t *next, struct err *e)
{
    json_t *all = json_copy(r->prompt);
    if (!all || json_array_extend(all, (json_t *)(uintptr_t)next)) {
        json_decref(all);
        return err_nomem(e, 0, "messages");
    }
    int rc = render(h, r, all, false, &x->probe, e);
    json_decref(all);
    size_t n = x->text.text.len;
    if (rc)
        return rc;
    if (x->probe.text.len < n || memcmp(x->probe.text.data, x->text.text.data, n) != 0)
        return err_set(e, ERR_FORMAT,
                       "the chat template writes the prompt differently when the completion "
                       "follows, so that they cannot be told apart");
    return push_rendered(h, s, &x->probe, n, x->probe.text.len, e);
}

/* ---- forms ------------------------------------------------------------------------------------
 */

static int make_text(const struct example_how *h, const struct record *r, const json_t *next,
                     struct example_seq *s, struct err *e)
{
    int rc = r->prompt ? push_text(h, s, r->prompt, true, e) : 0;
    s->prompt = s->ids.n;
    if (!rc)
        rc = mark(s, h->whole, e);
    if (rc || !next)
        return rc;
    rc = push_text(h, s, next, !r->prompt, e);
    if (!rc)
        rc = push_end(h, s, e);
    return rc ? rc : mark(s, true, e);
}

static int make_chat(const struct example_how *h, const struct record *r, const json_t *next,
                     struct example *x, struct example_seq *s, struct err *e)
{
    int rc = render(h, r, r->prompt, true, &x->text, e);
    if (!rc)
        rc = push_rendered(h, s, &x->text, 0, x->text.text.len, e);
    if (rc)
        return rc;
    x->thinking = chat_thinking_open(x->text.text.data, x->text.text.len);
    s->prompt = s->ids.n;
    rc = mark(s, h->whole, e);
    if (rc || !next)
        return rc;
    bool one = json_array_size(next) == 1 && plain_assistant(json_array_get(next, 0));
    rc = one ? push_message(h, x, s, json_array_get(next, 0), e)
             : push_difference(h, r, x, s, next, e);
    return rc ? rc : mark(s, true, e);
}

/* list[0, n) rendered into x->probe. */
static int render_part(const struct example_how *h, const struct record *r, struct example *x,
                       size_t n, bool generation, struct err *e)
{
    json_t *part = json_array();
    int rc = part ? 0 : err_nomem(e, 0, "messages");
    for (size_t i = 0; !rc && i < n; i++)
        if (json_array_append(part, json_array_get(r->prompt, i)))
            rc = err_nomem(e, 0, "messages");
    if (!rc)
        rc = render(h, r, part, generation, &x->probe, e);
    json_decref(part);
    return rc;
}

/* Whether x->text begins with x->probe. */
static bool probe_fits(const struct example *x)
{
    return x->probe.text.len <= x->text.text.len &&
           memcmp(x->probe.text.data, x->text.text.data, x->probe.text.len) == 0;
}

/*
 * A conversation of which only what the assistant says is learned. x->text holds `n` messages (and
 * what opens the last answer). A turn is a target when the prompt in front of it and the
 * conversation with it are both how x->text begins: then it is what the model would have had to
 * say. A template that takes thoughts out of earlier turns makes others of them.
 */
static int push_turns(const struct example_how *h, const struct record *r, struct example *x,
                      size_t n, struct example_seq *s, struct err *e)
{
    size_t at = 0;
    int rc = 0;
    for (size_t i = 1; !rc && i < n; i++) {
        const char *role = json_string_value(json_object_get(json_array_get(r->prompt, i), "role"));
        if (strcmp(role, "assistant") != 0)
            continue;
        rc = render_part(h, r, x, i, true, e);
        size_t from = x->probe.text.len;
        bool fits = !rc && from >= at && probe_fits(x);
        if (fits)
            rc = render_part(h, r, x, i + 1, false, e);
        if (rc)
            return rc;
        size_t to = x->probe.text.len;
        if (!fits || to < from || !probe_fits(x)) {
            x->turns_left++;
            continue;
        }
        rc = push_rendered(h, s, &x->text, at, from, e);
        if (!rc)
            rc = mark(s, false, e);
        if (!rc)
            rc = push_rendered(h, s, &x->text, from, to, e);
        if (!rc)
            rc = mark(s, true, e);
        at = to;
    }
    if (!rc)
        rc = push_rendered(h, s, &x->text, at, x->text.text.len, e);
    return rc ? rc : mark(s, false, e);
}

static int make_whole(const struct example_how *h, const struct record *r, struct example *x,
                      struct example_seq *s, struct err *e)
{
    size_t n = json_array_size(r->prompt);
    const json_t *last = json_array_get(r->prompt, n - 1);
    bool answer = n > 1 && plain_assistant(last);
    int rc = render_part(h, r, x, answer ? n - 1 : n, answer, e);
    struct jinja_result swap = x->text;
    x->text = x->probe;
    x->probe = swap;
    if (rc)
        return rc;
    x->thinking = answer && chat_thinking_open(x->text.text.data, x->text.text.len);
    if (h->assistant_only)
        rc = push_turns(h, r, x, answer ? n - 1 : n, s, e);
    else if (!(rc = push_rendered(h, s, &x->text, 0, x->text.text.len, e)))
        rc = mark(s, true, e);
    s->prompt = answer ? s->ids.n : 0;
    if (!rc && answer && !(rc = push_message(h, x, s, last, e)))
        rc = mark(s, true, e);
    return rc;
}

static int make_seq(const struct example_how *h, const struct record *r, const json_t *next,
                    struct example *x, struct example_seq *s, struct err *e)
{
    s->ids.n = 0;
    s->prompt = 0;
    buf_clear(&s->target);
    int rc = r->form == RECORD_TEXT   ? make_text(h, r, next, s, e)
             : r->form == RECORD_CHAT ? make_chat(h, r, next, x, s, e)
                                      : make_whole(h, r, x, s, e);
    if (!rc && s->target.len)
        s->target.data[0] = 0; /* nothing is before it */
    return rc;
}

int example_make(const struct example_how *h, const json_t *row, struct example *x, struct err *e)
{
    struct record r;
    int rc = record_read(&r, row, h->use, h->text, h->system, e);
    x->n = h->use == DATA_PAIRS ? 2 : 1;
    x->thinking = false;
    x->turns_left = 0;
    x->weight = r.weight;
    x->label = r.label;
    x->margin = r.margin;
    if (!rc)
        rc = make_seq(h, &r, r.next, x, &x->seq[0], e);
    if (!rc && x->n == 2)
        rc = make_seq(h, &r, r.rejected, x, &x->seq[1], e);
    if (!rc && h->use == DATA_PROMPTS && r.form == RECORD_TEXT)
        x->thinking = chat_thinking_open(json_string_value(r.prompt), json_string_length(r.prompt));
    record_release(&r);
    return rc;
}

/* ---- how turns end ----------------------------------------------------------------------------
 */

/* The tokens of r[from…) up to the first that ends a turn. */
static int cut_at_end(struct example_how *h, const struct jinja_result *r, size_t from,
                      struct err *e)
{
    int rc = tokenizer_encode(h->tokenizer, r->text.data + from, r->text.len - from, 0,
                              (const uint8_t *)r->trusted.data + from, &h->turn_end, e);
    for (size_t i = 0; !rc && i < h->turn_end.n; i++)
        if (tokenizer_is_end(h->tokenizer, h->turn_end.v[i])) {
            h->turn_end.n = i + 1;
            return 0;
        }
    if (!rc && tokenizer_eos(h->tokenizer) >= 0)
        rc = ids_push(&h->turn_end, tokenizer_eos(h->tokenizer), e);
    return rc;
}

int example_how_init(struct example_how *h, const struct data_options *o, struct err *e)
{
    static const char answer[] = "wqzx answer xzqw";
    struct jinja_result r;
    struct err bad;
    *h = (struct example_how){.tokenizer = o->tokenizer,
                              .chat = o->chat,
                              .use = o->use,
                              .whole = o->whole,
                              .assistant_only = o->assistant_only,
                              .text = o->text,
                              .system = o->system};
    ids_init(&h->turn_end, 1 << 16);
    if (!o->chat)
        return 0;
    json_t *messages = json_pack("[{ssss}{ssss}]", "role", "user", "content", "question", "role",
                                 "assistant", "content", answer);
    if (!messages)
        return err_nomem(e, 0, "a conversation");
    jinja_result_init(&r, 1 << 20);
    struct record record = {0};
    int rc = render(h, &record, messages, false, &r, &bad);
    json_decref(messages);
    if (rc) /* rendering the data will say what is wrong with the template */
        buf_clear(&r.text), buf_clear(&r.trusted);
    const char *at = memmem(r.text.data, r.text.len, answer, strlen(answer));
    rc = cut_at_end(h, &r, at ? (size_t)(at - r.text.data) + strlen(answer) : r.text.len, e);
    jinja_result_release(&r);
    return rc;
}

void example_how_release(struct example_how *h)
{
    ids_release(&h->turn_end);
}
