/*
 * Chat templates at work: which one a model has, the variables it sees, and what comes of it.
 *
 * The tokenizer's own tokens (bos_token, …) are given to the template as trusted text, everything
 * in the request as untrusted; tokenizer_encode then lets only trusted bytes form control tokens.
 *
 * continue_final_message: a sentinel is appended to the last message, and the text is cut where the
 * sentinel comes out (Hugging Face's technique, so that both give the same prompt). In what is
 * continued, "<think>" and "</think>" count as trusted: a caller who opens the answer for the model
 * may open or close its thought.
 *
 * How a model thinks is found by rendering a probe with each known switch on and off. A template
 * that does not know of thoughts says that its model has none, whatever the vocabulary holds.
 */
#include "text/chat.h"

#include "base/num.h"
#include "base/utf8.h"
#include "text/jinja_vm.h"

#include <stdlib.h>
#include <string.h>

enum chat_use { USE_PLAIN, USE_TOOLS, USES };

struct chat {
    struct jinja *jinja[USES]; /* USE_TOOLS may be NULL: the plain one serves */
    char *text;                /* of the plain one */
    size_t n;
    const char *origin;
    const struct tokenizer *tok; /* may be NULL */
    json_t *globals;
    enum chat_thinking thinking;
    const char *variable;
    struct err broken; /* code != 0: the model's template does not parse; rendering says so */
};

static const size_t prompt_max = (size_t)64 << 20;

// clang-format off
static const struct builtin {
    const char *origin, *token, *text;
} builtins[] = {
#define CHAT_BUILTIN(name, token, text) {"built-in " name, token, text},
#include "text/chat_builtin.def"
#undef CHAT_BUILTIN
};
// clang-format on

/* ---- variables ---------------------------------------------------------------------------------
 */

static int set_text(json_t *object, const char *key, const char *s, size_t n, struct err *e)
{
    json_t *v = json_stringn(s, n);
    if (!v && n) /* not UTF-8: such a token has no text */
        return 0;
    if (!v || json_object_set_new(object, key, v))
        return err_nomem(e, n, "template variables");
    return 0;
}

static int set_token(struct chat *c, const char *key, int32_t id, struct err *e)
{
    size_t n;
    const char *s = id >= 0 ? tokenizer_bytes(c->tok, id, &n) : NULL;
    return s ? set_text(c->globals, key, s, n, e) : 0;
}

static int set_globals(struct chat *c, struct err *e)
{
    static const char think[] = "<think>\n";
    c->globals = json_object();
    if (!c->globals)
        return err_nomem(e, 0, "template variables");
    int code = 0;
    const char *bos = "";
    size_t n = 0;
    if (c->tok) {
        if ((code = set_token(c, "bos_token", tokenizer_bos(c->tok), e)) ||
            (code = set_token(c, "eos_token", tokenizer_eos(c->tok), e)) ||
            (code = set_token(c, "pad_token", tokenizer_pad(c->tok), e)))
            return code;
        if (tokenizer_adds_bos(c->tok) && tokenizer_bos(c->tok) >= 0)
            bos = tokenizer_bytes(c->tok, tokenizer_bos(c->tok), &n);
    }
    if (strncmp(c->origin, "built-in", 8))
        return 0;
    bool thinks = c->tok && tokenizer_find(c->tok, "<think>") >= 0;
    code = set_text(c->globals, "own_bos", bos, n, e);
    return code ? code : set_text(c->globals, "own_think", think, thinks ? strlen(think) : 0, e);
}

/* ---- where templates come from -----------------------------------------------------------------
 */

static int set_template(struct chat *c, enum chat_use use, const char *s, size_t n, struct err *e)
{
    if (use == USE_PLAIN) {
        c->text = malloc(n + 1);
        if (!c->text)
            return err_nomem(e, n + 1, "a chat template");
        if (n)
            memcpy(c->text, s, n);
        c->text[n] = 0;
        c->n = n;
    }
    return jinja_new(&c->jinja[use], s, n, e);
}

/* A template of the model's files. One that does not parse is no reason not to load the model. */
static int take_template(struct chat *c, enum chat_use use, const char *s, size_t n, struct err *e)
{
    struct err bad;
    int code = set_template(c, use, s, n, &bad);
    if (!code)
        return 0;
    if (code == ERR_NOMEM || use != USE_PLAIN) {
        if (code == ERR_NOMEM && e)
            *e = bad;
        return code == ERR_NOMEM ? code : 0;
    }
    c->broken = bad;
    err_ctx(&c->broken, "the model's chat template cannot be used; another can be given with "
                        "--template");
    return 0;
}

static int from_gguf(struct chat *c, struct source *src, bool *found, struct err *e)
{
    static const char *const keys[USES] = {"tokenizer.chat_template",
                                           "tokenizer.chat_template.tool_use"};
    for (int use = 0; use < USES; use++) {
        const struct source_value *v = source_value(src, keys[use]);
        if (!v || v->type != SOURCE_STRING)
            continue;
        int code = take_template(c, (enum chat_use)use, v->s.p, v->s.n, e);
        if (code)
            return code;
        *found |= use == USE_PLAIN;
    }
    return 0;
}

/* "chat_template": a string, or a list of {"name": …, "template": …}. */
static int from_config(struct chat *c, const json_t *t, bool *found, struct err *e)
{
    if (json_is_string(t)) {
        *found = true;
        return take_template(c, USE_PLAIN, json_string_value(t), json_string_length(t), e);
    }
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *row = json_array_get(t, i), *text = json_object_get(row, "template");
        const char *name = json_string_value(json_object_get(row, "name"));
        if (!name || !json_is_string(text))
            continue;
        bool plain = !strcmp(name, "default"), tools = !strcmp(name, "tool_use");
        if ((!plain && !tools) || (plain && *found) || (tools && c->jinja[USE_TOOLS]))
            continue;
        int code = take_template(c, plain ? USE_PLAIN : USE_TOOLS, json_string_value(text),
                                 json_string_length(text), e);
        if (code)
            return code;
        *found |= plain;
    }
    return 0;
}

static int from_files(struct chat *c, struct source *src, bool *found, struct err *e)
{
    const char *s;
    size_t n;
    int code = source_text(src, "chat_template.jinja", &s, &n, e);
    if (code)
        return code;
    if (s) {
        *found = true;
        return take_template(c, USE_PLAIN, s, n, e);
    }
    if ((code = source_text(src, "tokenizer_config.json", &s, &n, e)) || !s)
        return code;
    json_error_t je;
    json_t *config = json_loadb(s, n, JSON_ALLOW_NUL, &je);
    if (!config && !je.text[0]) /* no text: Jansson's allocation failed */
        return err_nomem(e, n, "tokenizer_config.json");
    if (!config)
        return err_set(e, ERR_FORMAT, "tokenizer_config.json: line %d: %s", je.line, je.text);
    code = from_config(c, json_object_get(config, "chat_template"), found, e);
    json_decref(config);
    return code;
}

static int use_builtin(struct chat *c, const char *arch, struct err *e)
{
    for (size_t i = 0; i < NUM_COUNT(builtins); i++) {
        const struct builtin *b = &builtins[i];
        if (b->token && (!c->tok || tokenizer_find(c->tok, b->token) < 0))
            continue;
        c->origin = b->origin;
        return set_template(c, USE_PLAIN, b->text, strlen(b->text), e);
    }
    return err_set(e, ERR_UNSUPPORTED, "no chat template fits the architecture %s",
                   arch ? arch : "of the model"); /* not reached: "plain" fits all */
}

/* ---- thinking ----------------------------------------------------------------------------------
 */

static bool mentions(const struct chat *c, const char *word)
{
    return c->n && memmem(c->text, c->n, word, strlen(word));
}

/* Renders the probe with `variable` set; false when the template refuses it. */
static bool probe(const struct chat *c, const char *variable, bool on, struct jinja_result *out)
{
    struct jinja_limits limits = {
        .steps = 1000000, .output = 1 << 20, .memory = 32 << 20, .globals = c->globals};
    struct err e;
    json_t *context =
        json_pack("{s:[{s:s,s:s}], s:b, s:n, s:n, s:b}", "messages", "role", "user", "content",
                  "hello", "add_generation_prompt", 1, "tools", "documents", variable, on);
    int code = context ? jinja_render(c->jinja[USE_PLAIN], context, &limits, out, &e) : ERR_NOMEM;
    json_decref(context);
    return !code;
}

static void find_thinking(struct chat *c)
{
    static const char *const variables[] = {"enable_thinking", "thinking"};
    const json_t *own = json_object_get(c->globals, "own_think"); /* of built-in templates */
    if (own ? !json_string_length(own) : !mentions(c, "<think>") && !mentions(c, "</think>"))
        return;
    c->thinking = CHAT_THINK_ALWAYS;
    for (size_t i = 0; i < NUM_COUNT(variables) && c->jinja[USE_PLAIN]; i++) {
        struct jinja_result on, off;
        if (!mentions(c, variables[i]))
            continue;
        jinja_result_init(&on, prompt_max);
        jinja_result_init(&off, prompt_max);
        bool differ =
            probe(c, variables[i], true, &on) && probe(c, variables[i], false, &off) &&
            (on.text.len != off.text.len || memcmp(on.text.data, off.text.data, on.text.len) != 0);
        jinja_result_release(&on);
        jinja_result_release(&off);
        if (differ) {
            c->thinking = CHAT_THINK_SWITCH;
            c->variable = variables[i];
            return;
        }
    }
}

enum chat_thinking chat_thinking(const struct chat *c)
{
    return c->thinking;
}

const char *chat_thinking_variable(const struct chat *c)
{
    return c->variable;
}

static size_t find_last(const char *s, size_t n, const char *word)
{
    size_t k = strlen(word);
    for (size_t i = n >= k ? n - k + 1 : 0; i-- > 0;)
        if (s[i] == word[0] && !memcmp(s + i, word, k))
            return i;
    return SIZE_MAX;
}

/* Where an unclosed "<think>" ends, or 0. */
static size_t open_thought(const char *s, size_t n)
{
    size_t open = find_last(s, n, "<think>"), close = find_last(s, n, "</think>");
    if (open == SIZE_MAX || (close != SIZE_MAX && close > open))
        return 0;
    return open + strlen("<think>");
}

bool chat_thinking_open(const char *text, size_t n)
{
    size_t at = open_thought(text, n);
    /* A marker of a new turn behind it: the "<think>" stood in an earlier message. */
    return at && !memmem(text + at, n - at, "<|", 2) && !memmem(text + at, n - at, "<｜", 4);
}

/* With provenance it is exact: the tag is a token, and nothing of the template but white space
   follows. */
static bool result_thinking_open(const struct jinja_result *r)
{
    const char *s = r->text.data;
    size_t at = open_thought(s, r->text.len);
    if (!at || !r->trusted.data[at - 1])
        return false;
    for (size_t i = at; i < r->text.len; i++)
        if (r->trusted.data[i] && !is_space((unsigned char)s[i]))
            return false;
    return true;
}

/* ---- making and freeing ------------------------------------------------------------------------
 */

static int chat_init(struct chat **out, const struct tokenizer *tok, struct err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, sizeof **out, "a chat template");
    (*out)->tok = tok;
    return 0;
}

static int chat_done(struct chat **out, int code, struct err *e)
{
    if (!code)
        code = set_globals(*out, e);
    if (!code) {
        find_thinking(*out);
        return 0;
    }
    chat_free(*out);
    *out = NULL;
    return code;
}

int chat_new(struct chat **out, struct source *src, const struct tokenizer *tok, const char *arch,
             struct err *e)
{
    bool found = false;
    int code = chat_init(out, tok, e);
    if (code)
        return code;
    (*out)->origin = "model file";
    code = from_gguf(*out, src, &found, e);
    if (!code && !found)
        code = from_files(*out, src, &found, e);
    if (!code && !found)
        code = use_builtin(*out, arch, e);
    return chat_done(out, code, e);
}

int chat_new_text(struct chat **out, const struct tokenizer *tok, const char *text, size_t n,
                  struct err *e)
{
    int code = chat_init(out, tok, e);
    if (code)
        return code;
    (*out)->origin = "given";
    code = set_template(*out, USE_PLAIN, text, n, e);
    return chat_done(out, code, e);
}

void chat_free(struct chat *c)
{
    if (!c)
        return;
    for (int i = 0; i < USES; i++)
        jinja_free(c->jinja[i]);
    free(c->text);
    json_decref(c->globals);
    free(c);
}

const char *chat_template_text(const struct chat *c, size_t *n)
{
    *n = c->n;
    return c->text;
}

const char *chat_template_origin(const struct chat *c)
{
    return c->origin;
}

/* ---- continuing the last message ----------------------------------------------------------------
 */

static const char sentinel[] = "CONTINUE_FINAL_MESSAGE_TAG ";
enum { SENTINEL_TRIMMED = sizeof sentinel - 2 }; /* without the blank and the NUL */

/* object[key] = object[key] + sentinel; *was gets the text before it (a reference). */
static int append_sentinel(json_t *object, const char *key, json_t **was, struct err *e)
{
    json_t *old = json_object_get(object, key), *new;
    size_t n = json_string_length(old), total;
    if (!json_is_string(old))
        return err_set(e, ERR_FORMAT,
                       "continue_final_message: the content of the last message is not text");
    if (!num_add(&total, n, sizeof sentinel))
        return err_nomem(e, n, "a message");
    char *s = malloc(total);
    if (!s)
        return err_nomem(e, total, "a message");
    memcpy(s, json_string_value(old), n);
    memcpy(s + n, sentinel, sizeof sentinel);
    new = json_stringn_nocheck(s, total - 1);
    free(s);
    json_incref(old);
    if (!new || json_object_set_new(object, key, new)) {
        json_decref(old);
        return err_nomem(e, total, "a message");
    }
    *was = old;
    return 0;
}

/* The last part of a list of parts that has a text. */
static int sentinel_in_parts(json_t *message, const json_t *parts, json_t **was, struct err *e)
{
    for (size_t i = json_array_size(parts); i-- > 0;) {
        if (!json_object_get(json_array_get(parts, i), "text"))
            continue;
        json_t *copy = json_deep_copy(parts);
        if (!copy || json_object_set_new(message, "content", copy))
            return err_nomem(e, 0, "a message");
        return append_sentinel(json_array_get(copy, i), "text", was, e);
    }
    return err_set(e, ERR_FORMAT, "continue_final_message: the last message has no text");
}

/* Replaces context["messages"] by a copy whose last message ends with the sentinel. */
static int add_sentinel(json_t *context, json_t **was, struct err *e)
{
    json_t *all = json_object_get(context, "messages");
    size_t n = json_array_size(all);
    if (!n || !json_is_object(json_array_get(all, n - 1)))
        return err_set(e, ERR_FORMAT, "continue_final_message: there is no last message");
    json_t *copy = json_copy(all), *last = json_copy(json_array_get(all, n - 1));
    if (!copy || !last || json_array_set_new(copy, n - 1, json_incref(last)) ||
        json_object_set_new(context, "messages", json_incref(copy))) {
        json_decref(copy);
        json_decref(last);
        return err_nomem(e, 0, "messages");
    }
    const json_t *content = json_object_get(last, "content");
    int code = json_is_array(content) ? sentinel_in_parts(last, content, was, e)
                                      : append_sentinel(last, "content", was, e);
    json_decref(copy);
    json_decref(last);
    return code;
}

static size_t space_at_start(const char *s, size_t n)
{
    uint32_t cp;
    size_t k = n ? utf8_next(s, n, &cp, NULL) : 0;
    return k && is_space(cp) ? k : 0;
}

static size_t space_at_end(const char *s, size_t n)
{
    size_t k = 1;
    while (k < n && k < 4 && ((unsigned char)s[n - k] & 0xc0) == 0x80)
        k++;
    return n && space_at_start(s + n - k, k) == k ? k : 0;
}

/* Cuts the result at the sentinel. `message` is the text of the last message as given. */
static int cut_sentinel(struct jinja_result *r, const json_t *message, struct err *e)
{
    const char *s = json_string_value(message);
    size_t n = json_string_length(message), at = SIZE_MAX, len = r->text.len;
    for (size_t k; (k = space_at_start(s, n)); s += k)
        n -= k;
    for (size_t k; (k = space_at_end(s, n));)
        n -= k;
    char *text = r->text.data;
    if (!n || memmem(text, len, s, n))
        for (size_t i = len >= SENTINEL_TRIMMED ? len - SENTINEL_TRIMMED + 1 : 0; i-- > 0;)
            if (!memcmp(text + i, sentinel, SENTINEL_TRIMMED)) {
                at = i;
                break;
            }
    if (at == SIZE_MAX)
        return err_set(e, ERR_FORMAT,
                       "continue_final_message: the template does not show the last message as it "
                       "is, so it cannot be continued");
    bool kept = at + SENTINEL_TRIMMED < len && text[at + SENTINEL_TRIMMED] == ' ';
    for (size_t k; !kept && at && (k = space_at_end(text, at));)
        at -= k;
    r->text.len = r->trusted.len = at;
    text[at] = 0;
    r->trusted.data[at] = 0;
    /* What the caller wrote for the model may open and close a thought. */
    size_t from = at > json_string_length(message) ? at - json_string_length(message) : 0;
    static const char *const tags[] = {"<think>", "</think>"};
    for (size_t t = 0; t < NUM_COUNT(tags); t++) {
        size_t k = strlen(tags[t]);
        for (size_t i = from; i + k <= at; i++)
            if (text[i] == '<' && !memcmp(text + i, tags[t], k))
                memset(r->trusted.data + i, 1, k);
    }
    return 0;
}

/* ---- rendering ----------------------------------------------------------------------------- */

static int set_default(json_t *context, const char *key, json_t *value, struct err *e)
{
    bool has = json_object_get(context, key) != NULL;
    if (!value || (has ? 0 : json_object_set(context, key, value))) {
        json_decref(value);
        return err_nomem(e, 0, "template variables");
    }
    json_decref(value);
    return 0;
}

/* The request as a context: defaults set, what only chat_render reads taken out. */
static int make_context(const struct chat *c, const json_t *request, json_t **out, struct err *e)
{
    json_t *x = json_copy((json_t *)(uintptr_t)request); /* jansson's copy takes no const */
    if (!x)
        return err_nomem(e, 0, "template variables");
    bool going_on = json_is_true(json_object_get(x, "continue_final_message"));
    json_object_del(x, "continue_final_message");
    int code = set_default(x, "add_generation_prompt", json_boolean(!going_on), e);
    if (!code)
        code = set_default(x, "tools", json_null(), e);
    if (!code)
        code = set_default(x, "documents", json_null(), e);
    /* A token that the request repeats stays the tokenizer's own. */
    const char *key;
    json_t *own;
    json_object_foreach(c->globals, key, own)
    {
        const json_t *given = json_object_get(x, key);
        if (given && json_equal(given, own))
            json_object_del(x, key);
    }
    if (code) {
        json_decref(x);
        return code;
    }
    *out = x;
    return 0;
}

int chat_render(const struct chat *c, const json_t *request, struct jinja_result *out,
                struct err *e)
{
    json_t *context = NULL, *last = NULL;
    struct jinja_limits limits = {.globals = c->globals};
    if (c->broken.code) {
        if (e)
            *e = c->broken;
        return c->broken.code;
    }
    if (!json_is_object(request) || !json_is_array(json_object_get(request, "messages")))
        return err_set(e, ERR_FORMAT, "a conversation needs \"messages\", an array");
    int code = make_context(c, request, &context, e);
    if (code)
        return code;
    bool going_on = json_is_true(json_object_get(request, "continue_final_message"));
    if (going_on)
        code = add_sentinel(context, &last, e);
    const json_t *tools = json_object_get(context, "tools");
    bool use_tools = c->jinja[USE_TOOLS] && json_array_size(tools) > 0;
    if (!code)
        code = jinja_render(c->jinja[use_tools ? USE_TOOLS : USE_PLAIN], context, &limits, out, e);
    if (!code && going_on)
        code = cut_sentinel(out, last, e);
    json_decref(context);
    json_decref(last);
    return code;
}

int chat_encode(const struct chat *c, const json_t *request, struct ids *out, bool *thinking_open,
                struct err *e)
{
    struct jinja_result r;
    if (!c->tok)
        return err_set(e, ERR_USAGE, "a prompt cannot be encoded without a tokenizer");
    jinja_result_init(&r, prompt_max);
    int code = chat_render(c, request, &r, e);
    if (!code)
        code = tokenizer_encode(c->tok, r.text.data, r.text.len, 0, (const uint8_t *)r.trusted.data,
                                out, e);
    if (!code && thinking_open)
        *thinking_open = result_thinking_open(&r);
    jinja_result_release(&r);
    return code;
}

int chat_close_thought(const struct chat *c, struct ids *ids, bool open, struct err *e)
{
    const char *text = open ? "\n</think>\n\n" : "<think>\n\n</think>\n\n";
    int32_t think = tokenizer_find(c->tok, "<think>");
    for (size_t i = ids->n; open && think >= 0 && i-- > 0 && i + 4 > ids->n;)
        if (ids->v[i] == think) {
            ids->n = i + 1;
            text = "\n\n</think>\n\n";
            break;
        }
    return tokenizer_encode(c->tok, text, strlen(text), TOKENIZER_SPECIAL, NULL, ids, e);
}
