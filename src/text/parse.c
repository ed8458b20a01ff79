/*
 * The output parser: a state machine over text that arrives in pieces.
 *
 * Text is held only while it may still turn out to be something else: a tag that has begun, white
 * space that a tag may follow, a tool call until its end. What is decided is emitted at once, and
 * every byte either is emitted or belongs to a tag or to the white space around one. Decisions
 * depend on the text alone and not on how it was cut, so any chunking gives the same pieces.
 *
 *     START ── <think> ──▶ LEAD ▶ REASON ── </think> ──▶ ANSWER ▶ CONTENT ⇄ SECTION, CALL, AFTER
 *                                                          └─ "{" ─▶ JSON (a bare call?)
 *
 * In a call, an end tag inside a JSON string does not count. A call that cannot be read stays
 * content, tags and all. A bare JSON object is held back only as long as its keys are those of a
 * call; so is one in a fence (```json), in which models that were trained on little else than code
 * write calls.
 */
#include "text/parse.h"

#include "base/num.h"
#include "format/meta_json.h"
#include "text/parse_call.h"

#include <stdlib.h>
#include <string.h>

enum state {
    START,   /* nothing yet; "<think>" may come */
    LEAD,    /* white space at the start of a thought */
    REASON,  /* in a thought */
    ANSWER,  /* white space before the answer */
    BEGIN,   /* at the start of the answer: is it a bare JSON call? */
    CONTENT, /* in the answer */
    SECTION, /* behind <｜tool▁calls▁begin｜>, which is held */
    CALL,    /* in a call; its opening tag is held */
    AFTER,   /* behind a call */
    JSON,    /* an answer that may be one or more bare calls, all held */
};

enum form { FORM_DEEPSEEK, FORM_HERMES };

enum { TAG_SURE = 5 }; /* bytes of a tag that are hardly anything else */

#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define PYTHON "<|python_tag|>"

/* How far a string literal is understood, so that tags in it are told from real ones. */
struct quotes {
    bool in, escaped, object; /* object: the first "{" was seen */
};

/* The top-level keys of bare JSON. */
struct keys {
    int depth;
    bool want_key, in_key;
    char key[16];
    size_t n;
};

/* A call that comes in pieces (parser_stream_calls). */
struct streamed {
    enum {
        CALL_WAITS,
        CALL_RUNS,
        CALL_WHOLE
    } state;   /* WHOLE: it can't come in pieces, or is over */
    size_t at; /* of hold: emitted up to here */
    int depth;
    struct quotes quotes;
    bool begun; /* its name was emitted */
};

struct parser {
    enum state state;
    enum form form;
    struct buf hold; /* not decided yet */
    size_t scanned;  /* of hold: looked at */
    size_t solid;    /* end of the last character before `scanned` that is no white space */
    size_t body;     /* CALL: where the body begins; JSON: where the objects begin */
    struct quotes quotes;
    struct keys keys;
    bool any_content;
    bool repeat_open; /* the prompt opened the thought: a second <think> is dropped */
    bool stream;      /* calls come in pieces too */
    bool no_calls;    /* all of the answer is content */
    bool cut;         /* the text was cut off */
    bool fenced;      /* JSON: in a fence, which ends it */
    struct streamed call;
};

typedef int emit_fn(void *arg, enum parse_event ev, const char *s, size_t n);

struct sink {
    emit_fn *emit;
    void *arg;
    struct err *e;
    bool final; /* no more text will come */
};

static const size_t hold_max = (size_t)64 << 20;

int parser_new(struct parser **out, bool thinking_open, struct err *e)
{
    struct parser *p = calloc(1, sizeof *p);
    *out = p;
    if (!p)
        return err_nomem(e, sizeof *p, "a parser");
    buf_init(&p->hold, hold_max);
    p->state = thinking_open ? LEAD : START;
    p->repeat_open = thinking_open;
    return 0;
}

void parser_free(struct parser *p)
{
    if (!p)
        return;
    buf_release(&p->hold);
    free(p);
}

void parser_stream_calls(struct parser *p)
{
    p->stream = true;
}

void parser_no_calls(struct parser *p)
{
    p->no_calls = true;
}

void parser_cut(struct parser *p)
{
    p->cut = true;
}

bool parser_thinking(const struct parser *p)
{
    return p->state == LEAD || p->state == REASON;
}

/* ---- helpers ------------------------------------------------------------------------------- */

static bool is_blank(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static void drop(struct parser *p, size_t n)
{
    p->hold.len -= n;
    if (p->hold.len)
        memmove(p->hold.data, p->hold.data + n, p->hold.len);
    p->scanned -= num_min(p->scanned, n);
    p->solid -= num_min(p->solid, n);
}

/* Emits the first n held bytes and drops them. */
static int put(struct parser *p, struct sink *k, enum parse_event ev, size_t n)
{
    if (!n)
        return 0;
    p->any_content |= ev == PARSE_CONTENT;
    int code = k->emit(k->arg, ev, p->hold.data, n);
    drop(p, n);
    return code;
}

static void enter(struct parser *p, enum state s)
{
    p->state = s;
    p->scanned = p->solid = 0;
    p->call = (struct streamed){.state = CALL_WAITS};
}

/* Compares the held text at `at` with a tag: 1 = it is there, 0 = it is not, -1 = it may become. */
static int match(const struct parser *p, size_t at, const char *tag, bool final)
{
    size_t n = strlen(tag), have = p->hold.len - at, k = num_min(n, have);
    if (memcmp(p->hold.data + at, tag, k) != 0)
        return 0;
    return k == n ? 1 : final ? 0 : -1;
}

/*
 * Looks for one of the tags (NULL-terminated) from `scanned` on. Returns its index with *at set, -1
 * when there is none, or none yet. `solid` follows the text in front of `scanned`.
 */
static int find_tag(struct parser *p, const char *const *tags, bool final, size_t *at)
{
    for (; p->scanned < p->hold.len; p->scanned++) {
        char c = p->hold.data[p->scanned];
        if (c == '<') {
            bool wait = false;
            for (int i = 0; tags[i]; i++) {
                int m = match(p, p->scanned, tags[i], final);
                *at = p->scanned;
                if (m > 0)
                    return i;
                wait |= m < 0;
            }
            if (wait)
                return -1;
        }
        if (!is_blank(c))
            p->solid = p->scanned + 1;
    }
    return -1;
}

/* Bytes of white space at the start; false when more may come. */
static bool skip_blank(struct parser *p, bool final, size_t *n)
{
    while (p->scanned < p->hold.len && is_blank(p->hold.data[p->scanned]))
        p->scanned++;
    *n = p->scanned;
    return *n < p->hold.len || final;
}

/* ---- thoughts ------------------------------------------------------------------------------ */

static int step_start(struct parser *p, struct sink *k, bool *wait)
{
    size_t n;
    if (!skip_blank(p, k->final, &n)) {
        *wait = true;
        return 0;
    }
    int m = n < p->hold.len ? match(p, n, "<think>", k->final) : 0;
    *wait = m < 0;
    if (m > 0)
        drop(p, n + strlen("<think>"));
    if (m >= 0)
        enter(p, m ? LEAD : BEGIN);
    return 0;
}

static int step_lead(struct parser *p, struct sink *k, bool *wait)
{
    size_t n;
    bool known = skip_blank(p, k->final, &n);
    drop(p, n);
    p->scanned = 0;
    *wait = !known || !p->hold.len;
    if (*wait)
        return 0;
    int m = p->repeat_open ? match(p, 0, "<think>", k->final) : 0;
    if (m < 0) {
        *wait = true;
        return 0;
    }
    p->repeat_open = false;
    if (m > 0)
        drop(p, strlen("<think>"));
    else
        enter(p, REASON);
    return 0;
}

static int step_reason(struct parser *p, struct sink *k, bool *wait)
{
    static const char *const tags[] = {"</think>", CALLS_BEGIN, NULL};
    size_t at;
    int tag = find_tag(p, tags, k->final, &at);
    size_t gap = tag >= 0 ? at - p->solid : 0;
    int code = put(p, k, PARSE_REASONING, tag < 0 && k->final ? p->hold.len : p->solid);
    *wait = tag < 0;
    if (tag < 0)
        return code;
    /* A call section ends a thought that the model forgot to close. */
    drop(p, gap + (tag == 0 ? strlen(tags[0]) : 0));
    enter(p, ANSWER);
    return code;
}

/* ---- the answer ---------------------------------------------------------------------------- */

static int step_answer(struct parser *p, struct sink *k, bool *wait)
{
    size_t n;
    bool known = skip_blank(p, k->final, &n);
    drop(p, n);
    p->scanned = 0;
    *wait = !known || !p->hold.len;
    if (!*wait)
        enter(p, BEGIN);
    return 0;
}

/* Is there an object at byte n, perhaps in a fence? 1: from *at on; 0: no; -1: not known yet. */
static int opens_object(const struct parser *p, size_t n, bool final, size_t *at)
{
    static const char *const fences[] = {"```json", "```"};
    size_t i = 0, end = p->hold.len;
    int m = 0;
    *at = n;
    if (n == end || p->no_calls)
        return 0;
    while (i < NUM_COUNT(fences) && !(m = match(p, n, fences[i], final)))
        i++;
    if (m < 0)
        return -1;
    if (m > 0)
        for (n += strlen(fences[i]); n < end && is_blank(p->hold.data[n]);)
            n++;
    *at = n;
    return n < end ? p->hold.data[n] == '{' : final ? 0 : -1;
}

static int step_begin(struct parser *p, struct sink *k, bool *wait)
{
    size_t n, at = 0;
    *wait = !skip_blank(p, k->final, &n);
    int json = *wait ? 0 : opens_object(p, n, k->final, &at);
    *wait |= json < 0;
    if (*wait)
        return 0;
    enter(p, json ? JSON : CONTENT);
    p->fenced = json && at > n;
    p->body = p->scanned = json ? at : 0;
    p->keys = (struct keys){.depth = 0};
    p->quotes = (struct quotes){.in = false};
    return 0;
}

/* A text that was cut off loses the beginning of a tag at its end. */
static void drop_begun_tag(struct parser *p, const char *const *tags)
{
    size_t n = p->hold.len;
    for (int i = 0; tags[i]; i++)
        for (size_t k = num_min(strlen(tags[i]) - 1, n); k >= TAG_SURE; k--)
            if (!memcmp(p->hold.data + n - k, tags[i], k)) {
                p->hold.len = n - k;
                return;
            }
}

static int step_content(struct parser *p, struct sink *k, bool *wait)
{
    static const char *const tags[] = {CALLS_BEGIN, CALL_BEGIN, "<tool_call>", PYTHON, NULL};
    size_t at;
    if (k->final && p->cut && !p->no_calls)
        drop_begun_tag(p, tags);
    if (p->no_calls) {
        *wait = true;
        return put(p, k, PARSE_CONTENT, p->hold.len);
    }
    int tag = find_tag(p, tags, k->final, &at);
    size_t solid = p->solid;
    int code = put(p, k, PARSE_CONTENT, tag < 0 && k->final ? p->hold.len : solid);
    *wait = tag < 0;
    if (tag < 0)
        return code;
    at -= solid; /* white space in front of the tag is held with it */
    p->body = at + strlen(tags[tag]);
    p->quotes = (struct quotes){.in = false};
    p->keys = (struct keys){.depth = 0};
    p->form = tag == 2 ? FORM_HERMES : FORM_DEEPSEEK;
    p->fenced = false;
    enter(p, tag == 0 ? SECTION : tag == 3 ? JSON : CALL);
    p->scanned = p->body;
    return code;
}

/* What was held turns out to be text. */
static int release(struct parser *p, struct sink *k, size_t n)
{
    int code = put(p, k, PARSE_CONTENT, n);
    enter(p, CONTENT);
    return code;
}

static int step_section(struct parser *p, struct sink *k, bool *wait)
{
    size_t n;
    *wait = !skip_blank(p, k->final, &n);
    if (*wait)
        return 0;
    int m = n < p->hold.len ? match(p, n, CALL_BEGIN, k->final) : 0;
    *wait = m < 0;
    if (m < 0)
        return 0;
    if (!m && k->final && p->cut && p->hold.len < n + strlen(CALL_BEGIN)) {
        drop(p, p->hold.len);
        return 0;
    }
    if (!m)
        return release(p, k, p->body);
    enter(p, CALL);
    p->body = p->scanned = n + strlen(CALL_BEGIN);
    p->form = FORM_DEEPSEEK;
    return 0;
}

/* ---- calls --------------------------------------------------------------------------------- */

static void follow_quotes(struct quotes *q, char c)
{
    if (q->in) {
        if (q->escaped)
            q->escaped = false;
        else if (c == '\\')
            q->escaped = true;
        else if (c == '"')
            q->in = false;
    } else if (c == '{') {
        q->object = true;
    } else if (c == '"' && q->object) {
        q->in = true;
    }
}

/* Tags that end a call; those behind the first are left for what follows. */
static const char *const call_ends[][4] = {
    [FORM_DEEPSEEK] = {CALL_END, CALLS_END, CALL_BEGIN, NULL},
    [FORM_HERMES] = {"</tool_call>", "<tool_call>", NULL, NULL},
};

/* The body of the call ends at byte `end` of hold, its tag (if it has one) at `rest`. */
static int end_call(struct parser *p, struct sink *k, size_t end, size_t rest)
{
    struct buf call;
    bool ok;
    buf_init(&call, hold_max);
    const char *body = p->hold.data + p->body;
    bool begun = p->call.begun;
    int code = p->form == FORM_HERMES ? call_tagged(&call, body, end - p->body, &ok, k->e)
                                      : call_deepseek(&call, body, end - p->body, &ok, k->e);
    if (!code && ok) {
        drop(p, rest);
        enter(p, AFTER);
        code = k->emit(k->arg, PARSE_TOOL_CALL, call.data, call.len);
    } else if (!code && p->cut && end == p->hold.len) {
        drop(p, rest);
        enter(p, AFTER);
    } else if (!code && begun) { /* it has been shown as a call: it can't become text any more */
        drop(p, rest);
        enter(p, AFTER);
        code = k->emit(k->arg, PARSE_TOOL_CALL, "", 0);
    } else if (!code) {
        code = release(p, k, rest);
    }
    buf_release(&call);
    return code;
}

/* What is certain of a call in front of `scanned`. */
static int stream_call(struct parser *p, struct sink *k)
{
    struct streamed *c = &p->call;
    int code = 0;
    if (p->stream && c->state == CALL_WAITS) {
        struct buf name;
        buf_init(&name, hold_max);
        int got = call_begins(p->hold.data + p->body, p->scanned - p->body,
                              p->form == FORM_DEEPSEEK, &name, &c->at, &code, k->e);
        c->at += p->body;
        bool strange = p->scanned - p->body > 4096; /* so long a beginning is not read again */
        c->state = got > 0 ? CALL_RUNS : got < 0 || strange ? CALL_WHOLE : CALL_WAITS;
        if (got > 0 && !code) {
            c->begun = true;
            code = k->emit(k->arg, PARSE_CALL_NAME, name.data, name.len);
        }
        buf_release(&name);
    }
    if (code || !p->stream || c->state != CALL_RUNS)
        return code;
    size_t from = c->at;
    for (; c->at < p->scanned && c->state == CALL_RUNS; c->at++) {
        char b = p->hold.data[c->at];
        bool was_in = c->quotes.in;
        follow_quotes(&c->quotes, b);
        if (!was_in)
            c->depth += b == '{' || b == '[' ? 1 : b == '}' || b == ']' ? -1 : 0;
        if (!c->depth)
            c->state = CALL_WHOLE;
    }
    return c->at > from ? k->emit(k->arg, PARSE_CALL_ARGUMENTS, p->hold.data + from, c->at - from)
                        : 0;
}

static int step_call(struct parser *p, struct sink *k, bool *wait)
{
    const char *const *ends = call_ends[p->form];
    int code;
    for (; p->scanned < p->hold.len; p->scanned++) {
        char c = p->hold.data[p->scanned];
        for (int i = 0; c == '<' && !p->quotes.in && ends[i]; i++) {
            int m = match(p, p->scanned, ends[i], k->final);
            if (m < 0) {
                *wait = true;
                return stream_call(p, k);
            }
            if (m > 0) {
                code = stream_call(p, k);
                return code ? code
                            : end_call(p, k, p->scanned, p->scanned + (i ? 0 : strlen(ends[0])));
            }
        }
        follow_quotes(&p->quotes, c);
    }
    *wait = !k->final;
    code = stream_call(p, k);
    return code || !k->final ? code : end_call(p, k, p->hold.len, p->hold.len);
}

static int step_after(struct parser *p, struct sink *k, bool *wait)
{
    size_t n;
    *wait = !skip_blank(p, k->final, &n);
    if (*wait)
        return 0;
    int m = n < p->hold.len && p->form == FORM_DEEPSEEK ? match(p, n, CALLS_END, k->final) : 0;
    if (m < 0) {
        *wait = true;
    } else if (m > 0) {
        drop(p, n + strlen(CALLS_END));
        enter(p, AFTER);
    } else {
        if (n == p->hold.len || !p->any_content)
            drop(p, n);
        enter(p, CONTENT);
    }
    return 0;
}

/* ---- bare JSON ----------------------------------------------------------------------------- */

static bool known_key(const struct keys *j)
{
    static const char *const known[] = {"name", "parameters", "arguments",
                                        "type", "function",   "id"};
    for (size_t i = 0; i < NUM_COUNT(known); i++)
        if (j->n == strlen(known[i]) && !memcmp(j->key, known[i], j->n))
            return true;
    return false;
}

/* Follows one character; false when this is not a sequence of call objects. */
static bool follow_keys(struct keys *j, struct quotes *q, char c)
{
    bool was_in = q->in;
    follow_quotes(q, c);
    if (was_in && j->in_key) {
        if (q->in) {
            if (j->n < sizeof j->key)
                j->key[j->n++] = c;
            return true;
        }
        j->in_key = false;
        return known_key(j);
    }
    if (was_in)
        return true;
    if (q->in) { /* a string begins */
        j->in_key = j->depth == 1 && j->want_key;
        j->want_key = false;
        j->n = 0;
        return j->depth > 0;
    }
    if (c == '{' || c == '[') {
        j->depth++;
        j->want_key = j->depth == 1;
        return j->depth > 1 || c == '{';
    }
    if (c == '}' || c == ']')
        return j->depth-- > 0;
    if (c == ',' && j->depth == 1)
        j->want_key = true;
    return j->depth > 0 || is_blank(c) || c == ';' || c == ',';
}

/* The text held in front of `end` is calls: emits them, and drops what is in front of `rest`.
 *ok = false: it is not, nothing was emitted. */
static int emit_bare(struct parser *p, struct sink *k, size_t end, size_t rest, bool *ok)
{
    struct buf calls;
    size_t at = p->body, used;
    int code = 0;
    buf_init(&calls, hold_max);
    *ok = true;
    while (!code && *ok) {
        const char *s = p->hold.data;
        while (at < end && (is_blank(s[at]) || (calls.len && (s[at] == ';' || s[at] == ','))))
            at++;
        if (at == end)
            break;
        code = call_bare(&calls, s + at, end - at, &used, ok, k->e);
        if (!code && *ok)
            code = buf_putc(&calls, '\0', k->e); /* calls are apart by NULs, which JSON has not */
        at += used;
    }
    *ok = *ok && calls.len;
    if (!code && *ok) {
        drop(p, rest);
        p->form = FORM_HERMES; /* nothing closes these calls together */
        enter(p, AFTER);
    }
    for (size_t i = 0; !code && *ok && i < calls.len; i += strlen(calls.data + i) + 1)
        code = k->emit(k->arg, PARSE_TOOL_CALL, calls.data + i, strlen(calls.data + i));
    buf_release(&calls);
    return code;
}

/* Does the held text from the body on begin as a call does: with its name? */
static bool begins_call(const struct parser *p)
{
    static const char key[] = "\"name\"";
    const char *s = p->hold.data + p->body;
    size_t n = p->hold.len - p->body, i = 0;
    while (i < n && (is_blank(s[i]) || s[i] == '{'))
        i++;
    size_t k = num_min(n - i, sizeof key - 1);
    return k && !memcmp(s + i, key, k);
}

/* Bare calls of which the last was cut off: those in front of it, if there are any. */
static int cut_json(struct parser *p, struct sink *k)
{
    struct buf call;
    size_t used;
    size_t tag = strlen(PYTHON); /* behind which nothing but calls stands */
    bool ok = true, any = p->body >= tag && !memcmp(p->hold.data + p->body - tag, PYTHON, tag);
    int code = 0;
    buf_init(&call, hold_max);
    while (!code && ok) {
        size_t at = p->body, n = p->hold.len;
        while (at < n && strchr(" \n\r\t;,", p->hold.data[at]))
            at++;
        buf_clear(&call);
        code = call_bare(&call, p->hold.data + at, n - at, &used, &ok, k->e);
        if (!code && ok) {
            any = true;
            p->body = at + used;
            code = k->emit(k->arg, PARSE_TOOL_CALL, call.data, call.len);
        }
    }
    buf_release(&call);
    if (code)
        return code;
    if (!any && !begins_call(p))
        return release(p, k, p->body);
    drop(p, p->hold.len);
    return 0;
}

static int step_json(struct parser *p, struct sink *k, bool *wait)
{
    bool ok = true;
    int close = 0; /* of the fence */
    while (ok && p->scanned < p->hold.len) {
        bool between = p->fenced && !p->keys.depth;
        close = between ? match(p, p->scanned, "```", k->final) : 0;
        if (close)
            break;
        ok = follow_keys(&p->keys, &p->quotes, p->hold.data[p->scanned++]);
    }
    *wait = close < 0 || (ok && !close && !k->final);
    if (*wait)
        return 0;
    if (ok && !close && p->cut && (p->keys.depth || p->quotes.in))
        return cut_json(p, k);
    size_t end = close ? p->scanned : p->hold.len;
    int code = ok ? emit_bare(p, k, end, end + (close ? 3 : 0), &ok) : 0;
    /* behind a <|python_tag|> the tag itself is text too, and must not be found again */
    return code || ok ? code : release(p, k, p->body);
}

/* ---- driving ------------------------------------------------------------------------------- */

static int run(struct parser *p, struct sink *k)
{
    static int (*const steps[])(struct parser *, struct sink *, bool *) = {
        [START] = step_start,     [LEAD] = step_lead,   [REASON] = step_reason,
        [ANSWER] = step_answer,   [BEGIN] = step_begin, [CONTENT] = step_content,
        [SECTION] = step_section, [CALL] = step_call,   [AFTER] = step_after,
        [JSON] = step_json,
    };
    bool wait = false;
    int code = 0;
    while (!code && !wait && p->hold.len)
        code = steps[p->state](p, k, &wait);
    return code;
}

int parser_feed(struct parser *p, const char *text, size_t n, emit_fn *emit, void *arg,
                struct err *e)
{
    struct sink k = {emit, arg, e, false};
    int code = buf_append(&p->hold, text, n, e);
    return code ? code : run(p, &k);
}

int parser_finish(struct parser *p, emit_fn *emit, void *arg, struct err *e)
{
    struct sink k = {emit, arg, e, true};
    return run(p, &k);
}

/* ---- a whole output ------------------------------------------------------------------------ */

struct collect {
    struct buf text[2]; /* by PARSE_REASONING, PARSE_CONTENT */
    json_t *calls;
    struct err *e;
};

static int collect_event(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct collect *c = arg;
    if (ev != PARSE_TOOL_CALL)
        return buf_append(&c->text[ev], s, n, c->e);
    json_error_t je;
    json_t *call = json_loadb(s, n, JSON_ALLOW_NUL, &je);
    if (!call || json_array_append_new(c->calls, call))
        return call || !je.text[0] /* no text: Jansson's allocation failed */
                   ? err_nomem(c->e, n, "a tool call")
                   : err_set(c->e, ERR_FORMAT, "a tool call: %s", je.text);
    return 0;
}

int parse_output(json_t **out, const char *text, size_t n, bool thinking_open, struct err *e)
{
    struct parser *p;
    struct collect c = {.calls = json_array(), .e = e};
    *out = NULL;
    buf_init(&c.text[PARSE_REASONING], SIZE_MAX / 4);
    buf_init(&c.text[PARSE_CONTENT], SIZE_MAX / 4);
    int code = parser_new(&p, thinking_open, e);
    if (!code && !c.calls)
        code = err_nomem(e, 0, "tool calls");
    if (!code)
        code = parser_feed(p, text, n, collect_event, &c, e);
    if (!code)
        code = parser_finish(p, collect_event, &c, e);
    if (!code) {
        const struct buf *thought = &c.text[PARSE_REASONING];
        json_t *o = json_object();
        if (!o ||
            json_object_set_new(o, "reasoning",
                                thought->len ? meta_json_string(thought->data, thought->len)
                                             : json_null()) ||
            json_object_set_new(
                o, "content",
                meta_json_string(c.text[PARSE_CONTENT].data, c.text[PARSE_CONTENT].len)) ||
            json_object_set(o, "tool_calls", c.calls)) {
            json_decref(o);
            code = err_nomem(e, n, "a parsed output");
        } else {
            *out = o;
        }
    }
    parser_free(p);
    json_decref(c.calls);
    buf_release(&c.text[PARSE_REASONING]);
    buf_release(&c.text[PARSE_CONTENT]);
    return code;
}
