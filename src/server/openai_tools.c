/* OpenAI's API: tools, and formats of answers. */
#include "base/num.h"
#include "server/http_parse.h"
#include "server/openai.h"

#include <string.h>

enum { TOOLS_MAX = 1024, GRAMMAR_MAX = 1 << 20, CHOICES_MAX = 100000 };

static const char *tool_name(const json_t *tool)
{
    return json_string_value(json_object_get(json_object_get(tool, "function"), "name"));
}

static void check_tools(struct fields *f, const json_t *tools)
{
    size_t i;
    json_t *t;
    json_array_foreach(tools, i, t)
    {
        const char *type = json_string_value(json_object_get(t, "type"));
        json_t *parameters = json_object_get(json_object_get(t, "function"), "parameters");
        if (type && strcmp(type, "function") != 0)
            field_fail(f, "tools", "may hold only tools of type \"function\"");
        else if (!json_is_object(json_object_get(t, "function")))
            field_fail(f, "tools", "must hold objects with a \"function\"");
        else if (!job_tool_name(json_object_get(json_object_get(t, "function"), "name")))
            field_fail(f, "tools",
                       "must have function names without blanks, quotes and control characters");
        else if (parameters && !json_is_null(parameters) && !json_is_object(parameters))
            field_fail(f, "tools", "must have \"parameters\" that are a schema");
    }
}

static void read_choice(struct fields *f, struct openai_request *r)
{
    static const char *const words[] = {"none", "auto", "required"};
    static const enum job_choice choices[] = {JOB_TOOL_NONE, JOB_TOOL_AUTO, JOB_TOOL_REQUIRED};
    json_t *v = field(f, "tool_choice");
    int word = -1;
    if (!v)
        return;
    if (json_is_string(v)) {
        field_word(f, "tool_choice", &word, words, NUM_COUNT(words));
        if (word >= 0)
            r->spec.choice = choices[word];
    } else if (!tool_name(v)) {
        field_fail(f, "tool_choice", "must be \"none\", \"auto\", \"required\" or name a function");
    } else {
        r->spec.choice = JOB_TOOL_NAMED;
        r->spec.choice_name = tool_name(v);
    }
    size_t i;
    json_t *t;
    bool known = false;
    json_array_foreach(r->spec.tools, i, t)
    {
        known |= r->spec.choice_name && !strcmp(tool_name(t), r->spec.choice_name);
    }
    if (f->code)
        return;
    if (!json_array_size(r->spec.tools) && r->spec.choice >= JOB_TOOL_REQUIRED)
        field_fail(f, "tool_choice", "needs tools");
    else if (r->spec.choice == JOB_TOOL_NAMED && !known)
        field_fail(f, "tool_choice", "names a function that is not among the tools");
}

void openai_read_tools(struct fields *f, struct openai_request *r)
{
    json_t *tools = NULL;
    field_array(f, "tools", &tools, TOOLS_MAX);
    if (f->code)
        return;
    check_tools(f, tools);
    if (json_array_size(tools))
        r->spec.tools = tools;
    if (!f->code)
        read_choice(f, r);
    field_bool(f, "parallel_tool_calls", &r->spec.parallel);
}

/* ---- formats -------------------------------------------------------------------------------- */

static void set_format(struct fields *f, struct openai_request *r, const char *key,
                       struct grammar_form format)
{
    if (r->spec.format.kind != GRAMMAR_FREE)
        field_fail(f, key, "is the second format that is asked for: only one can be had");
    if (f->code)
        return;
    r->spec.format = format;
    snprintf(r->spec.format_field, sizeof r->spec.format_field, "%s%s", f->prefix, key);
}

/* What is a value, or (as vLLM takes it too) its text. */
static json_t *value_or_text(struct openai_request *r, json_t *v)
{
    const char *s = json_string_value(v);
    size_t n = json_string_length(v);
    struct err ignored;
    if (!s)
        return v;
    json_decref(r->format_given);
    r->format_given = http_json_bounds(s, n, &ignored) ? NULL : json_loadb(s, n, 0, NULL);
    return r->format_given;
}

static void set_schema(struct fields *f, struct openai_request *r, const char *key, json_t *schema)
{
    if (!json_is_object(schema) && !json_is_boolean(schema)) {
        field_fail(f, key, "must be a JSON schema");
        return;
    }
    set_format(f, r, key, (struct grammar_form){.kind = GRAMMAR_SCHEMA, .json = schema});
}

static void set_tags(struct fields *f, struct openai_request *r, const char *key, json_t *tag)
{
    if (json_is_object(tag))
        set_format(f, r, key, (struct grammar_form){.kind = GRAMMAR_TAGS, .json = tag});
    else
        field_fail(f, key, "must be a structural tag: an object, or its text");
}

static void set_choices(struct fields *f, struct openai_request *r, const char *key, json_t *v)
{
    size_t i, n = json_array_size(v);
    json_t *s;
    if (!n || n > CHOICES_MAX)
        field_fail(f, key, "must be an array of strings");
    json_array_foreach(v, i, s)
    {
        if (!json_is_string(s))
            field_fail(f, key, "must be an array of strings");
    }
    set_format(f, r, key, (struct grammar_form){.kind = GRAMMAR_CHOICE, .json = v});
}

static void set_text(struct fields *f, struct openai_request *r, const char *key,
                     enum grammar_kind kind)
{
    struct grammar_form form = {.kind = kind};
    field_string(f, key, &form.text, &form.n, GRAMMAR_MAX);
    if (field(f, key))
        set_format(f, r, key, form);
}

/* vLLM's members: directly with the prefix "guided_", or inside "structured_outputs". */
static void read_guided(struct fields *f, struct openai_request *r, const char *const keys[4],
                        const char *object)
{
    json_t *schema = field(f, keys[0]), *choices = field(f, keys[2]);
    if (schema)
        set_schema(f, r, keys[0], value_or_text(r, schema));
    set_text(f, r, keys[1], GRAMMAR_REGEX);
    if (choices)
        set_choices(f, r, keys[2], choices);
    set_text(f, r, keys[3], GRAMMAR_GBNF);
    bool any = false;
    if (object)
        field_bool(f, object, &any);
    if (any)
        set_format(f, r, object, (struct grammar_form){.kind = GRAMMAR_JSON});
}

static void read_response_format(struct fields *f, struct openai_request *r)
{
    static const char *const types[] = {"text", "json_object", "json_schema", "structural_tag"};
    json_t *o = NULL;
    int type = -1;
    field_object(f, "response_format", &o);
    if (f->code || !o)
        return;
    struct fields g = fields_of(o, "response_format.", f->e);
    field_word(&g, "type", &type, types, NUM_COUNT(types));
    json_t *given = field(&g, "json_schema"), *tag = field(&g, "structural_tag"),
           *schema = json_object_get(given, "schema");
    if (type < 0)
        field_fail(&g, "type", "is missing");
    else if (type == 1)
        set_format(&g, r, "type", (struct grammar_form){.kind = GRAMMAR_JSON});
    else if (type == 2 && !given)
        field_fail(&g, "json_schema", "is missing");
    else if (type == 2) /* a wrapper with name and schema, or the schema itself (Dify) */
        set_schema(&g, r, "json_schema",
                   json_is_object(schema) || json_is_boolean(schema) ? schema
                                                                     : value_or_text(r, given));
    else if (type == 3) /* in the object itself (vLLM), or in a member of it, as text too */
        set_tags(&g, r, "structural_tag", tag ? value_or_text(r, tag) : o);
    if (g.code) {
        f->code = g.code;
        f->param = "response_format";
    }
}

void openai_read_format(struct fields *f, struct openai_request *r)
{
    static const char *const guided[4] = {"guided_json", "guided_regex", "guided_choice",
                                          "guided_grammar"};
    static const char *const inside[4] = {"json", "regex", "choice", "grammar"};
    json_t *o = NULL;
    read_response_format(f, r);
    read_guided(f, r, guided, NULL);
    field_object(f, "structured_outputs", &o);
    if (f->code || !o)
        return;
    struct fields g = fields_of(o, "structured_outputs.", f->e);
    read_guided(&g, r, inside, "json_object");
    if (field(&g, "structural_tag"))
        set_tags(&g, r, "structural_tag", value_or_text(r, field(&g, "structural_tag")));
    if (g.code) {
        f->code = g.code;
        f->param = "structured_outputs";
    }
}
