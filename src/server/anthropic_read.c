/*
 * Anthropic's Messages API: from its JSON to a job.
 *
 * Contents are lists of blocks. Calls and thoughts of the assistant become members of its message,
 * results of calls, which come in a user's message, messages of role "tool". Images and documents
 * cannot be read by the models that run here, and are refused.
 */
#include "base/num.h"
#include "server/anthropic.h"

#include <string.h>

enum { MESSAGES_MAX = 1 << 16, TOOLS_MAX = 1024, STOP_BYTES = 1024 };

/* The text of a content: a string, or blocks of type "text", joined. New reference, NULL: not. */
static json_t *plain(const json_t *c)
{
    struct buf text;
    size_t i;
    json_t *block, *out;
    bool good = json_is_array(c) || json_is_null(c) || !c;
    if (json_is_string(c))
        return json_incref((json_t *)(uintptr_t)c); /* jansson hands out what it takes const */
    buf_init(&text, (size_t)64 << 20);
    json_array_foreach(c, i, block)
    {
        json_t *t = json_object_get(block, "text");
        good = good && json_is_string(t) &&
               !buf_append(&text, json_string_value(t), json_string_length(t), NULL);
    }
    out = good ? json_stringn(text.data, text.len) : NULL;
    buf_release(&text);
    return out;
}

static int append(json_t *all, const char *role, json_t *content)
{
    json_t *m = content ? json_pack("{ss so}", "role", role, "content", content) : NULL;
    return json_array_append_new(all, m);
}

/* {"type": "tool_result", "tool_use_id", "content"} */
static int tool_result(struct fields *f, json_t *all, const json_t *b)
{
    json_t *text = plain(json_object_get(b, "content")), *id = json_object_get(b, "tool_use_id");
    if (!text || !json_is_string(id)) {
        json_decref(text);
        return field_fail(f, "messages", "hold a tool_result without tool_use_id and text");
    }
    json_t *m = json_pack("{ss so sO}", "role", "tool", "content", text, "tool_call_id", id);
    return json_array_append_new(all, m) ? err_nomem(f->e, 0, "messages") : 0;
}

static int tool_use(struct fields *f, json_t *message, const json_t *b)
{
    json_t *name = json_object_get(b, "name"), *input = json_object_get(b, "input");
    json_t *id = json_object_get(b, "id"), *calls = json_object_get(message, "tool_calls");
    if (!json_is_string(name) || !json_is_string(id))
        return field_fail(f, "messages", "hold a tool_use without id and name");
    if (!calls) {
        calls = json_array();
        json_object_set_new(message, "tool_calls", calls);
    }
    json_t *call = json_pack("{sO ss s{sO so}}", "id", id, "type", "function", "function", "name",
                             name, "arguments", input ? json_incref(input) : json_object());
    return json_array_append_new(calls, call) ? err_nomem(f->e, 0, "messages") : 0;
}

/* A message that is being made, with what its blocks say. */
struct blocks {
    json_t *message;
    struct buf text, thought;
};

static int block(struct fields *f, json_t *all, struct blocks *to, const json_t *b)
{
    const char *type = json_string_value(json_object_get(b, "type"));
    json_t *text = json_object_get(b, "text"), *thought = json_object_get(b, "thinking");
    if (!type)
        return field_fail(f, "messages", "hold a block without a type");
    if (!strcmp(type, "text") && json_is_string(text))
        return buf_append(&to->text, json_string_value(text), json_string_length(text), f->e);
    if (!strcmp(type, "thinking") && json_is_string(thought))
        return buf_append(&to->thought, json_string_value(thought), json_string_length(thought),
                          f->e);
    if (!strcmp(type, "redacted_thinking"))
        return 0;
    if (!strcmp(type, "tool_use"))
        return tool_use(f, to->message, b);
    if (!strcmp(type, "tool_result"))
        return tool_result(f, all, b);
    return field_fail(f, "messages", "hold a block that this model can't read: only text can be");
}

/* A message whose content is a list of blocks. One of results only needs no message of its own. */
static int blocks(struct fields *f, json_t *all, const char *role, const json_t *content)
{
    struct blocks to = {.message = json_pack("{ss}", "role", role)};
    size_t i, before = json_array_size(all);
    json_t *b;
    int rc = to.message ? 0 : err_nomem(f->e, 0, "messages");
    buf_init(&to.text, (size_t)64 << 20);
    buf_init(&to.thought, (size_t)64 << 20);
    json_array_foreach(content, i, b)
    {
        if (!rc)
            rc = block(f, all, &to, b);
    }
    if (!rc && (to.text.len || json_array_size(all) == before)) {
        int bad = json_object_set_new(to.message, "content",
                                      json_stringn(to.text.len ? to.text.data : "", to.text.len));
        if (to.thought.len)
            bad |= json_object_set_new(to.message, "reasoning_content",
                                       json_stringn(to.thought.data, to.thought.len));
        if (bad || json_array_append(all, to.message))
            rc = err_nomem(f->e, 0, "messages");
    }
    json_decref(to.message);
    buf_release(&to.text);
    buf_release(&to.thought);
    return rc;
}

static int message(struct fields *f, json_t *all, const json_t *m)
{
    const char *role = json_string_value(json_object_get(m, "role"));
    const json_t *content = json_object_get(m, "content");
    if (!role || (strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0 &&
                  strcmp(role, "system") != 0))
        return field_fail(f, "messages", "must have the role \"user\" or \"assistant\"");
    if (json_is_string(content))
        return append(all, role, plain(content)) ? err_nomem(f->e, 0, "messages") : 0;
    if (!json_is_array(content))
        return field_fail(f, "messages", "must have a content: a string or a list of blocks");
    return blocks(f, all, role, content);
}

static void read_messages(struct fields *f, struct anthropic_request *r)
{
    json_t *in = NULL, *system = field(f, "system"), *m, *all;
    size_t i;
    field_array(f, "messages", &in, MESSAGES_MAX);
    if (!json_array_size(in) && !f->code)
        field_fail(f, "messages", in ? "is empty" : "is missing");
    if (f->code)
        return;
    all = json_array();
    json_t *text = system ? plain(system) : NULL;
    if (system && !text)
        field_fail(f, "system", "must be a string or a list of text blocks");
    else if (text && append(all, "system", text))
        f->code = err_nomem(f->e, 0, "messages");
    json_array_foreach(in, i, m)
    {
        int rc = f->code ? 0 : message(f, all, m);
        f->code = f->code ? f->code : rc;
    }
    /* Names of calls go to their results there. */
    if (!f->code)
        f->code = job_messages(all, &r->messages, f->e);
    json_decref(all);
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    r->spec.go_on = role && !strcmp(role, "assistant") && !json_object_get(last, "tool_calls");
    r->spec.messages = r->messages;
}

static void read_tools(struct fields *f, struct anthropic_request *r)
{
    static const char *const words[] = {"auto", "any", "tool", "none"};
    static const enum job_choice choices[] = {JOB_TOOL_AUTO, JOB_TOOL_REQUIRED, JOB_TOOL_NAMED,
                                              JOB_TOOL_NONE};
    json_t *in = NULL, *t, *choice = NULL;
    size_t i;
    int word = 0;
    bool single = false, known = false;
    field_array(f, "tools", &in, TOOLS_MAX);
    field_object(f, "tool_choice", &choice);
    if (f->code)
        return;
    r->tools = json_array();
    if (choice) {
        struct fields g = fields_of(choice, "tool_choice.", f->e);
        field_word(&g, "type", &word, words, NUM_COUNT(words));
        field_string(&g, "name", &r->spec.choice_name, NULL, 256);
        field_bool(&g, "disable_parallel_tool_use", &single);
        f->code = g.code;
        f->param = g.code ? "tool_choice" : NULL;
    }
    r->spec.choice = choices[word];
    r->spec.parallel = !single;
    json_array_foreach(in, i, t)
    {
        json_t *name = json_object_get(t, "name"), *schema = json_object_get(t, "input_schema");
        json_t *about = json_object_get(t, "description");
        const char *s = json_string_value(name);
        if (!job_tool_name(name) || !json_is_object(schema)) {
            field_fail(f, "tools",
                       "must have a name without blanks and quotes and an input_schema");
            return;
        }
        known |= r->spec.choice_name && !strcmp(s, r->spec.choice_name);
        json_t *o = json_pack("{ss s{sO sO}}", "type", "function", "function", "name", name,
                              "parameters", schema);
        if (o && json_is_string(about))
            json_object_set(json_object_get(o, "function"), "description", about);
        if (json_array_append_new(r->tools, o))
            f->code = err_nomem(f->e, 0, "tools");
    }
    if (r->spec.choice == JOB_TOOL_NAMED && !known)
        field_fail(f, "tool_choice", "names a tool that is not there");
    if (r->spec.choice == JOB_TOOL_REQUIRED && !json_array_size(r->tools))
        field_fail(f, "tool_choice", "needs tools");
    if (json_array_size(r->tools))
        r->spec.tools = r->tools;
}

static void read_thinking(struct fields *f, struct anthropic_request *r)
{
    static const char *const types[] = {"disabled", "enabled", "adaptive"};
    json_t *o = NULL;
    int type = -1;
    int64_t budget = -1;
    field_object(f, "thinking", &o);
    if (!o)
        return;
    struct fields g = fields_of(o, "thinking.", f->e);
    field_word(&g, "type", &type, types, NUM_COUNT(types));
    field_int(&g, "budget_tokens", &budget, 1, INT64_MAX);
    if (type >= 0)
        r->spec.think = type ? JOB_THINK_ON : JOB_THINK_OFF;
    if (budget > 0)
        r->spec.think_max = budget;
    if (g.code) {
        f->code = g.code;
        f->param = "thinking";
    }
}

int anthropic_read(struct anthropic_request *r, const char **param, struct err *e)
{
    struct fields f = fields_of(r->body, "", e);
    struct job_spec *s = &r->spec;
    int64_t top_k = -1;
    job_spec_init(s);
    s->prompt = JOB_CHAT;
    s->count = r->count;
    field_string(&f, "model", &s->model, NULL, 512);
    if (!s->model && !f.code)
        field_fail(&f, "model", "is missing");
    read_messages(&f, r);
    field_size(&f, "max_tokens", &s->max_tokens, 1, INT64_MAX);
    if (!s->max_tokens && !r->count && !f.code)
        field_fail(&f, "max_tokens", "is missing");
    field_bool(&f, "stream", &r->stream);
    field_float(&f, "temperature", &s->sampling.temperature, 0, 2);
    field_float(&f, "top_p", &s->sampling.top_p, 0, 1);
    field_int(&f, "top_k", &top_k, 0, INT32_MAX);
    if (top_k >= 0)
        s->sampling.top_k = (int)top_k;
    field_strings(&f, "stop_sequences", r->stops, &s->n_stop, ANTHROPIC_STOPS, STOP_BYTES);
    s->stop = r->stops;
    read_thinking(&f, r);
    read_tools(&f, r);
    s->stream_calls = r->stream;
    *param = f.param;
    return f.code;
}
