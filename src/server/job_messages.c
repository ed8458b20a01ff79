/*
 * Messages of all APIs in one shape: see job.h. Written for what clients send (the AI SDK, Dify,
 * LangChain, Open WebUI, Ollama's libraries), not for what documents allow.
 */
#include "base/buf.h"
#include "base/num.h"
#include "server/http_parse.h"
#include "server/job.h"

#include <stdlib.h>
#include <string.h>

enum { MESSAGES_MAX = 1 << 16 };
static const size_t content_max = (size_t)64 << 20;

/* A part of a content: its text, or NULL when it is of another kind. */
static json_t *part_text(const json_t *part)
{
    if (json_is_string(part))
        return (json_t *)(uintptr_t)part; /* jansson hands out what it takes const */
    const char *type = json_string_value(json_object_get(part, "type"));
    static const char *const texts[] = {"text", "input_text", "output_text", "refusal", "thinking"};
    json_t *t = json_object_get(part, "text");
    for (size_t i = 0; i < NUM_COUNT(texts); i++)
        if (!type || !strcmp(type, texts[i]))
            return json_is_string(t) ? t : NULL;
    return NULL;
}

/* Content as one string; new reference. */
static int content(const json_t *c, size_t at, json_t **out, struct err *e)
{
    struct buf text;
    size_t i;
    json_t *part;
    *out = NULL;
    if (!c || json_is_null(c)) {
        *out = json_string("");
        return *out ? 0 : err_nomem(e, 0, "a message");
    }
    if (json_is_string(c)) {
        *out = json_incref((json_t *)(uintptr_t)c);
        return 0;
    }
    if (!json_is_array(c))
        return err_set(e, ERR_USAGE,
                       "messages[%zu].content must be a string, an array of parts or null", at);
    buf_init(&text, content_max);
    int rc = 0;
    json_array_foreach(c, i, part)
    {
        const json_t *t = part_text(part);
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!t)
            rc = err_set(e, ERR_USAGE,
                         "messages[%zu].content[%zu]: only parts of type \"text\" can be read by "
                         "this model, not \"%.40s\"",
                         at, i, type ? type : "?");
        else
            rc = buf_append(&text, json_string_value(t), json_string_length(t), e);
        if (rc)
            break;
    }
    if (!rc && !(*out = json_stringn(text.data, text.len)))
        rc = err_nomem(e, text.len, "a message");
    buf_release(&text);
    return rc;
}

/* Arguments as an object; text that is no object, or more of one than a body may hold, stays what
   the model wrote. New reference. */
static json_t *arguments(json_t *args)
{
    struct err ignored;
    if (!args || json_is_null(args))
        return json_object();
    if (!json_is_string(args))
        return json_incref(args);
    const char *s = json_string_value(args);
    size_t n = json_string_length(args);
    if (!n)
        return json_object();
    json_t *v = http_json_bounds(s, n, &ignored) ? NULL : json_loadb(s, n, JSON_ALLOW_NUL, NULL);
    if (json_is_object(v))
        return v;
    json_decref(v);
    return json_incref(args);
}

/* Messages that are being made. */
struct made {
    json_t *all;
    json_t
        *names; /* of the calls so far, by their ids: templates ask for it beside a result's id */
};

/* {"id", "type": "function", "function": {"name", "arguments"}} */
static int calls(struct made *made, const json_t *in, size_t at, json_t **out, struct err *e)
{
    size_t i;
    json_t *c;
    json_t *all = json_array();
    if (!all)
        return err_nomem(e, 0, "calls");
    json_array_foreach(in, i, c)
    {
        json_t *f = json_object_get(c, "function");
        if (!json_is_object(f))
            f = c;
        json_t *name = json_object_get(f, "name"), *id = json_object_get(c, "id");
        if (!json_is_string(name)) {
            json_decref(all);
            return err_set(e, ERR_USAGE,
                           "messages[%zu].tool_calls[%zu].function.name must be a string", at, i);
        }
        json_t *o = json_pack("{ss s{sO so}}", "type", "function", "function", "name", name,
                              "arguments", arguments(json_object_get(f, "arguments")));
        int bad = !o || (json_is_string(id) &&
                         (json_object_set(o, "id", id) ||
                          json_object_set(made->names, json_string_value(id), name)));
        if (json_array_append_new(all, bad ? NULL : o)) {
            if (bad)
                json_decref(o);
            json_decref(all);
            return err_nomem(e, 0, "calls");
        }
    }
    *out = all;
    return 0;
}

static int one(struct made *made, const json_t *m, size_t at, struct err *e)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    static const char *const thoughts[] = {"reasoning_content", "reasoning", "thinking"};
    const char *role = json_string_value(json_object_get(m, "role"));
    json_t *text = NULL, *list = NULL;
    if (!json_is_object(m))
        return err_set(e, ERR_USAGE, "messages[%zu] must be an object", at);
    if (!role)
        return err_set(e, ERR_USAGE, "messages[%zu].role must be a string", at);
    role = !strcmp(role, "developer") ? "system" : !strcmp(role, "function") ? "tool" : role;
    bool known = false;
    for (size_t i = 0; i < NUM_COUNT(roles); i++)
        known |= !strcmp(role, roles[i]);
    if (!known)
        return err_set(
            e, ERR_USAGE,
            "messages[%zu].role is \"%.40s\": it must be system, user, assistant or tool", at,
            role);
    int rc = content(json_object_get(m, "content"), at, &text, e);
    json_t *given = json_object_get(m, "tool_calls");
    if (!rc && json_array_size(given) && !strcmp(role, "assistant"))
        rc = calls(made, given, at, &list, e);
    if (rc) {
        json_decref(text);
        return rc;
    }
    json_t *o = json_pack("{ss so}", "role", role, "content", text);
    int bad = !o;
    if (list)
        bad |= json_object_set_new(o, "tool_calls", list);
    for (size_t i = 0; i < NUM_COUNT(thoughts) && !bad; i++) {
        json_t *t = json_object_get(m, thoughts[i]);
        if (json_string_length(t) && !json_object_get(o, "reasoning_content"))
            bad |= json_object_set(o, "reasoning_content", t);
    }
    json_t *id = json_object_get(m, "tool_call_id"), *name = json_object_get(m, "name");
    if (!json_is_string(name))
        name = json_object_get(m, "tool_name");
    if (!json_is_string(name) && json_is_string(id))
        name = json_object_get(made->names, json_string_value(id));
    if (json_is_string(id))
        bad |= json_object_set(o, "tool_call_id", id);
    if (json_is_string(name))
        bad |= json_object_set(o, "name", name);
    if (json_is_true(json_object_get(m, "prefix")))
        bad |= json_object_set(o, "prefix", json_true());
    if (bad || json_array_append(made->all, o))
        rc = err_nomem(e, 0, "messages");
    json_decref(o);
    return rc;
}

int job_messages(const json_t *in, json_t **out, struct err *e)
{
    size_t i;
    json_t *m;
    *out = NULL;
    if (!json_is_array(in))
        return err_set(e, ERR_USAGE, "messages must be an array");
    if (!json_array_size(in))
        return err_set(e, ERR_USAGE, "messages is empty: at least one message is needed");
    if (json_array_size(in) > MESSAGES_MAX)
        return err_set(e, ERR_USAGE, "messages: more than %d", MESSAGES_MAX);
    struct made made = {json_array(), json_object()};
    int rc = made.all && made.names ? 0 : err_nomem(e, 0, "messages");
    json_array_foreach(in, i, m)
    {
        if (!rc)
            rc = one(&made, m, i, e);
    }
    json_decref(made.names);
    if (rc)
        json_decref(made.all);
    else
        *out = made.all;
    return rc;
}

/* ---- calls that a model made ---------------------------------------------------------------- */

int job_call(const char *s, size_t n, char **name, char **args, struct err *e)
{
    static const char head[] = "{\"name\":", middle[] = ",\"arguments\":";
    size_t at = sizeof head - 1, gap = sizeof middle - 1;
    json_error_t je = {0};
    *name = *args = NULL;
    /* The parser of outputs writes calls in this form, and no other. */
    json_t *text = n > at
                       ? json_loadb(s + at, n - at,
                                    JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &je)
                       : NULL;
    at += (size_t)je.position;
    if (json_is_string(text) && n > at + gap && !memcmp(s + at, middle, gap) && s[n - 1] == '}') {
        at += gap;
        json_t *v = s[at] == '"'
                        ? json_loadb(s + at, n - at - 1, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL)
                        : NULL;
        *name = strdup(json_string_value(text));
        *args = v ? strdup(json_string_value(v)) : strndup(s + at, n - at - 1);
        json_decref(v);
    }
    json_decref(text);
    if (*name && *args)
        return 0;
    free(*name);
    free(*args);
    *name = *args = NULL;
    return err_nomem(e, n, "a call");
}
