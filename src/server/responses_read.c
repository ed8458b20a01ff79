/*
 * OpenAI's Responses API: from its JSON to a job. Items of the input become messages: calls and
 * thoughts belong to the assistant's message before or after them, results are messages of role
 * "tool".
 */
#include "base/num.h"
#include "server/responses.h"

#include <string.h>

enum { ITEMS_MAX = 1 << 16, TOOLS_MAX = 1024 };

static json_t *last_assistant(json_t *all)
{
    json_t *m = json_array_get(all, json_array_size(all) - 1);
    const char *role = json_string_value(json_object_get(m, "role"));
    return role && !strcmp(role, "assistant") ? m : NULL;
}

/* The assistant's message at the end, made when there is none. */
static json_t *assistant(json_t *all)
{
    json_t *m = json_array_size(all) ? last_assistant(all) : NULL;
    if (!m && !json_array_append_new(all, json_pack("{ss sn}", "role", "assistant", "content")))
        m = json_array_get(all, json_array_size(all) - 1);
    return m;
}

static int add_call(struct fields *f, json_t *all, const json_t *item)
{
    json_t *name = json_object_get(item, "name"), *args = json_object_get(item, "arguments");
    json_t *id = json_object_get(item, "call_id"), *m = assistant(all);
    if (!json_is_string(name) || !json_is_string(id))
        return field_fail(f, "input", "holds a function_call without call_id and name");
    if (m && !json_object_get(m, "tool_calls"))
        json_object_set_new(m, "tool_calls", json_array());
    json_t *call = json_pack("{sO ss s{sO sO?}}", "id", id, "type", "function", "function", "name",
                             name, "arguments", args);
    return json_array_append_new(json_object_get(m, "tool_calls"), call)
               ? err_nomem(f->e, 0, "messages")
               : 0;
}

static int add_result(struct fields *f, json_t *all, const json_t *item)
{
    json_t *id = json_object_get(item, "call_id"), *output = json_object_get(item, "output");
    if (!json_is_string(id) || !output)
        return field_fail(f, "input", "holds a function_call_output without call_id and output");
    json_t *m = json_pack("{ss sO sO}", "role", "tool", "tool_call_id", id, "content", output);
    return json_array_append_new(all, m) ? err_nomem(f->e, 0, "messages") : 0;
}

/* Thoughts come before the message they belong to. */
static int add_reasoning(struct fields *f, json_t *all, const json_t *item)
{
    const json_t *parts = json_object_get(item, "content");
    const char *s = json_string_value(json_object_get(json_array_get(parts, 0), "text"));
    if (!s)
        return 0;
    json_t *m = json_pack("{ss sn ss}", "role", "assistant", "content", "reasoning_content", s);
    return json_array_append_new(all, m) ? err_nomem(f->e, 0, "messages") : 0;
}

static int add_message(struct fields *f, json_t *all, const json_t *item)
{
    json_t *role = json_object_get(item, "role"), *content = json_object_get(item, "content");
    const char *s = json_string_value(role);
    if (!s || !content)
        return field_fail(f, "input", "holds a message without role and content");
    json_t *before = !strcmp(s, "assistant") && json_array_size(all) ? last_assistant(all) : NULL;
    if (before && json_is_null(json_object_get(before, "content")) &&
        !json_object_get(before, "tool_calls"))
        return json_object_set(before, "content", content) ? err_nomem(f->e, 0, "messages") : 0;
    json_t *m = json_pack("{sO sO}", "role", role, "content", content);
    return json_array_append_new(all, m) ? err_nomem(f->e, 0, "messages") : 0;
}

static int add_item(struct fields *f, json_t *all, const json_t *item)
{
    const char *type = json_string_value(json_object_get(item, "type"));
    if (!json_is_object(item))
        return field_fail(f, "input", "must hold objects");
    if (!type || !strcmp(type, "message"))
        return add_message(f, all, item);
    if (!strcmp(type, "function_call"))
        return add_call(f, all, item);
    if (!strcmp(type, "function_call_output"))
        return add_result(f, all, item);
    if (!strcmp(type, "reasoning"))
        return add_reasoning(f, all, item);
    return field_fail(f, "input", "holds an item of a type that is not known here");
}

static void read_input(struct fields *f, struct responses_request *r)
{
    json_t *in = field(f, "input"), *item, *all = json_array();
    const char *instructions = NULL;
    size_t i;
    field_string(f, "instructions", &instructions, NULL, 32 << 20);
    if (instructions && *instructions)
        json_array_append_new(all, json_pack("{ss ss}", "role", "system", "content", instructions));
    if (json_is_string(in))
        json_array_append_new(all, json_pack("{ss sO}", "role", "user", "content", in));
    else if (!json_is_array(in) || json_array_size(in) > ITEMS_MAX)
        field_fail(f, "input", in ? "must be a string or an array of items" : "is missing");
    json_array_foreach(in, i, item)
    {
        int rc = f->code ? 0 : add_item(f, all, item);
        f->code = f->code ? f->code : rc;
    }
    if (!f->code && (f->code = job_messages(all, &r->messages, f->e)))
        f->param = "input";
    json_decref(all);
    r->spec.messages = r->messages;
}

/* {"type": "function", "name", "parameters"}: in Chat's shape one level deeper. */
static void read_tools(struct fields *f, struct responses_request *r)
{
    static const char *const words[] = {"none", "auto", "required"};
    static const enum job_choice choices[] = {JOB_TOOL_NONE, JOB_TOOL_AUTO, JOB_TOOL_REQUIRED};
    json_t *in = NULL, *t, *v = field(f, "tool_choice");
    size_t i;
    int word = -1;
    bool known = false;
    field_array(f, "tools", &in, TOOLS_MAX);
    field_bool(f, "parallel_tool_calls", &r->spec.parallel);
    if (f->code)
        return;
    r->tools = json_array();
    if (json_is_string(v)) {
        field_word(f, "tool_choice", &word, words, NUM_COUNT(words));
        r->spec.choice = word >= 0 ? choices[word] : JOB_TOOL_AUTO;
    } else if (v) {
        r->spec.choice_name = json_string_value(json_object_get(v, "name"));
        r->spec.choice = JOB_TOOL_NAMED;
    }
    json_array_foreach(in, i, t)
    {
        json_t *name = json_object_get(t, "name"), *schema = json_object_get(t, "parameters");
        json_t *about = json_object_get(t, "description");
        const char *type = json_string_value(json_object_get(t, "type"));
        const char *s = json_string_value(name);
        if (!type || strcmp(type, "function") != 0 || !job_tool_name(name)) {
            field_fail(f, "tools",
                       "may hold only functions, whose names have no blanks and quotes");
            return;
        }
        known |= r->spec.choice_name && !strcmp(s, r->spec.choice_name);
        json_t *o = json_pack("{ss s{sO}}", "type", "function", "function", "name", name);
        if (json_is_object(schema))
            json_object_set(json_object_get(o, "function"), "parameters", schema);
        if (json_is_string(about))
            json_object_set(json_object_get(o, "function"), "description", about);
        if (json_array_append_new(r->tools, o))
            f->code = err_nomem(f->e, 0, "tools");
    }
    if (r->spec.choice == JOB_TOOL_NAMED && !known)
        field_fail(f, "tool_choice", "names a function that is not among the tools");
    if (r->spec.choice == JOB_TOOL_REQUIRED && !json_array_size(r->tools))
        field_fail(f, "tool_choice", "needs tools");
    if (json_array_size(r->tools))
        r->spec.tools = r->tools;
}

/* {"text": {"format": {"type", "schema"}}} */
static void read_format(struct fields *f, struct responses_request *r)
{
    static const char *const types[] = {"text", "json_object", "json_schema"};
    static const enum grammar_kind kinds[] = {GRAMMAR_FREE, GRAMMAR_JSON, GRAMMAR_SCHEMA};
    json_t *text = NULL, *format = NULL, *schema = NULL;
    int type = 0;
    field_object(f, "text", &text);
    if (f->code || !text)
        return;
    struct fields g = fields_of(text, "text.", f->e);
    field_object(&g, "format", &format);
    struct fields k = fields_of(format, "text.format.", f->e);
    if (format) {
        field_word(&k, "type", &type, types, NUM_COUNT(types));
        field_object(&k, "schema", &schema);
        if (type == 2 && !schema)
            field_fail(&k, "schema", "is missing");
    }
    if (g.code || k.code) {
        f->code = g.code ? g.code : k.code;
        f->param = "text";
    }
    r->spec.format = (struct grammar_form){.kind = kinds[type], .json = schema};
    snprintf(r->spec.format_field, sizeof r->spec.format_field, "text.format.schema");
}

static void read_reasoning(struct fields *f, struct responses_request *r)
{
    static const char *const words[] = {"none", "minimal", "low", "medium", "high", "xhigh", "max"};
    json_t *o = NULL;
    int effort = -1;
    field_object(f, "reasoning", &o);
    if (!o)
        return;
    struct fields g = fields_of(o, "reasoning.", f->e);
    field_word(&g, "effort", &effort, words, NUM_COUNT(words));
    if (effort >= 0)
        r->spec.think = effort ? JOB_THINK_ON : JOB_THINK_OFF;
    if (g.code) {
        f->code = g.code;
        f->param = "reasoning";
    }
}

int responses_read(struct responses_request *r, const char **param, struct err *e)
{
    static const char *const truncations[] = {"disabled", "auto"};
    struct fields f = fields_of(r->body, "", e);
    struct job_spec *s = &r->spec;
    int truncation = 0;
    job_spec_init(s);
    s->prompt = JOB_CHAT;
    field_string(&f, "model", &s->model, NULL, 512);
    if (!s->model && !f.code)
        field_fail(&f, "model", "is missing");
    if (field(&f, "previous_response_id"))
        field_fail(&f, "previous_response_id",
                   "is not known: answers are not kept here, send the whole input");
    read_input(&f, r);
    field_size(&f, "max_output_tokens", &s->max_tokens, 1, INT64_MAX);
    field_float(&f, "temperature", &s->sampling.temperature, 0, 2);
    field_float(&f, "top_p", &s->sampling.top_p, 0, 1);
    field_bool(&f, "stream", &r->stream);
    field_word(&f, "truncation", &truncation, truncations, NUM_COUNT(truncations));
    s->truncate = truncation == 1;
    read_tools(&f, r);
    read_format(&f, r);
    read_reasoning(&f, r);
    s->stream_calls = true; /* one that is cut off is told as far as it came */
    *param = f.param;
    return f.code;
}
