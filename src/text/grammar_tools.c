/*
 * Grammars of tool calls: one of the tools, with arguments that fit its schema, in the form in
 * which the model writes calls.
 *
 *   DeepSeek V3, R1
 * <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\n{…}\n```
 *                     <｜tool▁call▁end｜> …<｜tool▁calls▁end｜>
 *   DeepSeek V3.1     the same with NAME<｜tool▁sep｜>{…} in a call
 *   Hermes, Qwen      <tool_call>\n{"name": NAME, "arguments": {…}}\n</tool_call> …
 *   Llama 3.1         {"name": NAME, "parameters": {…}}; …, perhaps behind <|python_tag|>
 *
 * "auto" is free text in which the opening tag arms the grammar; behind the calls only the end may
 * follow. Llama's calls have no tag: an answer that begins with {"name" or the python tag is calls.
 * Where answers have a form, an answer is either calls or that.
 */
#include "base/num.h"
#include "text/grammar_impl.h"

#include <string.h>

#define CALLS_BEGIN "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL_BEGIN "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"
#define SEP "<｜tool▁sep｜>"
#define PYTHON "<|python_tag|>"

enum { TOOLS_MAX = 1024 };

struct tools {
    const struct grammar_tools *t;
    struct gbuild *b;
    struct gjson j;
};

/* Where a name stands as it is, it must not look like what follows it. */
static bool plain_name(const char *s)
{
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p <= ' ' || strchr("`{<\x7f", *p))
            return false;
    return *s != 0;
}

static struct gx *name_in_json(struct tools *c, const char *s)
{
    json_t *name = json_string(s);
    struct gx *x = name ? gjson_literal(c->b, name)
                        : gbuild_fail(c->b, ERR_FORMAT, "the name of a tool is not valid UTF-8");
    json_decref(name);
    return x;
}

static struct gx *arguments(struct tools *c, const struct grammar_tool *t)
{
    if (c->b->code)
        return NULL;
    if (!t->parameters || (json_is_object(t->parameters) && !json_object_size(t->parameters)))
        return gjson_object(&c->j);
    struct gx *x = gschema(&c->j, t->parameters, true);
    if (c->b->code)
        err_ctx(&c->b->err, "tool \"%.64s\"", t->name);
    return x;
}

/* {"name": NAME, KEY: ARGUMENTS} */
static struct gx *json_call(struct tools *c, const struct grammar_tool *t, const char *key)
{
    struct gbuild *b = c->b;
    struct gjson *j = &c->j;
    struct gx *space = gjson_space(j);
    return GX_SEQ(b, gx_text(b, "{"), space, gx_text(b, "\"name\""), gjson_colon(j),
                  name_in_json(c, t->name), gx_text(b, ","), space, gx_text(b, key), gjson_colon(j),
                  arguments(c, t), space, gx_text(b, "}"));
}

static struct gx *call(struct tools *c, const struct grammar_tool *t)
{
    struct gbuild *b = c->b;
    switch (c->t->form) {
    case GRAMMAR_CALL_HERMES:
        return json_call(c, t, "\"arguments\"");
    case GRAMMAR_CALL_LLAMA:
        return json_call(c, t, "\"parameters\"");
    default:
        break;
    }
    if (!plain_name(t->name))
        return gbuild_fail(
            b, ERR_UNSUPPORTED,
            "a tool is called \"%.64s\": this model's calls have no way to write such a name",
            t->name);
    struct gx *name = gx_text(b, t->name), *sep = gx_control(b, SEP);
    if (c->t->form == GRAMMAR_CALL_DEEPSEEK_V31)
        return GX_SEQ(b, name, sep, arguments(c, t));
    return GX_SEQ(b, gx_text(b, "function"), sep, name, gx_text(b, "\n```json\n"), arguments(c, t),
                  gx_text(b, "\n```"));
}

/* Calls in their tags. The opening one, when it is `opened`, was read. */
static struct gx *calls(struct tools *c, bool opened)
{
    struct gbuild *b = c->b;
    struct gxs l = {.n = 0};
    uint32_t more = c->t->parallel ? GRAMMAR_INF : 0;
    for (size_t i = 0; i < c->t->n && !b->code; i++)
        gxs_add(b, &l, call(c, &c->t->tool[i]));
    uint32_t rule = gbuild_rule(b, "call", 4);
    gbuild_define(b, rule, gx_alt(b, l.v, l.n));
    struct gx *one = gx_call(b, rule), *line = gx_text(b, "\n");
    switch (c->t->form) {
    case GRAMMAR_CALL_LLAMA:
        return GX_SEQ(
            b, gx_opt(b, gx_control(b, PYTHON)), one,
            gx_rep(b, GX_SEQ(b, gx_text(b, ";"), gx_opt(b, gx_text(b, " ")), one), 0, more));
    case GRAMMAR_CALL_HERMES: {
        struct gx *open = gx_control(b, "<tool_call>");
        struct gx *rest =
            GX_SEQ(b, gx_opt(b, line), one, gx_opt(b, line), gx_control(b, "</tool_call>"));
        return GX_SEQ(b, opened ? gx_empty(b) : open, rest,
                      gx_rep(b, GX_SEQ(b, gx_opt(b, line), open, rest), 0, more));
    }
    default: {
        struct gx *tagged = GX_SEQ(b, gx_control(b, CALL_BEGIN), one, gx_control(b, CALL_END));
        return GX_SEQ(b, opened ? gx_empty(b) : gx_control(b, CALLS_BEGIN), tagged,
                      gx_rep(b, GX_SEQ(b, gx_opt(b, line), tagged), 0, more),
                      gx_control(b, CALLS_END));
    }
    }
}

/* Free text that does not begin with any of w[0..n), which share their first `at` bytes. */
static struct gx *not_beginning(struct gbuild *b, const char *const *w, size_t n, size_t at)
{
    struct gx *all = gx_until(b, "", NULL, true);
    struct gxs l = {.n = 0};
    char first[8];
    size_t k = 0;
    gxs_add(b, &l, gx_empty(b));
    for (size_t i = 0; i < n && !b->code; i++) {
        char c = w[i][at];
        if (memchr(first, c, k))
            continue;
        first[k++] = c;
        if (!w[i][at + 1]) /* the whole word: no such text */
            continue;
        const char *same[8];
        size_t m = 0;
        for (size_t p = i; p < n; p++)
            if (w[p][at] == c)
                same[m++] = w[p];
        gxs_add(b, &l, GX_SEQ(b, gx_bytes(b, &c, 1), not_beginning(b, same, m, at + 1)));
    }
    gxs_add(b, &l, GX_SEQ(b, gx_other_byte(b, first, k), all));
    return gx_alt(b, l.v, l.n);
}

static struct gx *tools_root(struct tools *c)
{
    static const char *const bare[] = {"{\"name\"", "{ \"name\"", "{\n  \"name\"",
                                       "{\n    \"name\"", PYTHON};
    struct gbuild *b = c->b;
    if (c->t->required)
        return calls(c, false);
    if (c->t->answer)
        return GX_ALT(b, calls(c, false), gform(&c->j, c->t->answer));
    switch (c->t->form) {
    case GRAMMAR_CALL_LLAMA:
        return GX_ALT(b, calls(c, false), not_beginning(b, bare, NUM_COUNT(bare), 0));
    case GRAMMAR_CALL_HERMES:
        return gx_until(b, "<tool_call>", calls(c, true), true);
    default:
        return gx_until(b, CALLS_BEGIN, calls(c, true), true);
    }
}

int grammar_new_tools(struct grammar **out, const struct grammar_tools *t, struct err *e)
{
    struct gbuild b;
    *out = NULL;
    if (!t->n)
        return err_set(e, ERR_FORMAT, "there is no tool to call");
    if (t->n > TOOLS_MAX)
        return err_set(e, ERR_LIMIT, "there are more than %d tools", TOOLS_MAX);
    int code = gbuild_init(&b, e);
    struct tools c = {.t = t, .b = &b, .j = {.b = &b}};
    code = code ? code : gbuild_finish(&b, tools_root(&c), out, e);
    if (!code)
        (*out)->calls = true;
    gbuild_release(&b);
    return code;
}
