/*
 * The grammar of a job's answer: a format that was asked for, or the calls that tools allow. Which
 * form calls have is the model's: its template shows it, or its vocabulary.
 *
 * With tool_choice "auto" the text is free until a call begins, which then has to be one of the
 * tools' with arguments that fit; a schema that cannot be enforced is not: the model still sees it.
 * When both a format and tools are given, the format rules.
 */
#include "base/num.h"
#include "server/job_impl.h"
#include "text/grammar.h"

#include <stdlib.h>
#include <string.h>

enum { TOOLS_MAX = 1024, TOOL_NAME_MAX = 256 };

bool job_tool_name(const json_t *name)
{
    const char *s = json_string_value(name);
    size_t n = json_string_length(name);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == 0x7f || strchr("\"\\<>", s[i]))
            return false;
    return n && n <= TOOL_NAME_MAX;
}

static enum grammar_call_form call_form(const struct engine *g)
{
    static const struct {
        const char *sign;
        enum grammar_call_form form;
    } signs[] = {
        {"function<｜tool▁sep｜>", GRAMMAR_CALL_DEEPSEEK},
        {"<｜tool▁sep｜>", GRAMMAR_CALL_DEEPSEEK_V31},
        {"<tool_call>", GRAMMAR_CALL_HERMES},
        {"<|start_header_id|>", GRAMMAR_CALL_LLAMA},
    };
    size_t n;
    const char *text = chat_template_text(engine_chat(g), &n);
    /* DeepSeek's own template writes the type and the mark apart. */
    if (memmem(text, n, "<｜tool▁sep｜>", strlen("<｜tool▁sep｜>")) &&
        memmem(text, n, "```json", 7))
        return GRAMMAR_CALL_DEEPSEEK;
    for (size_t i = 0; i < NUM_COUNT(signs); i++)
        if (memmem(text, n, signs[i].sign, strlen(signs[i].sign)))
            return signs[i].form;
    return GRAMMAR_CALL_HERMES;
}

static int tools(struct job *j, struct grammar **out, struct err *e)
{
    const struct job_spec *s = j->spec;
    struct grammar_tool *row = calloc(json_array_size(s->tools), sizeof *row);
    struct grammar_tools t = {.form = call_form(j->use.engine),
                              .tool = row,
                              .required = s->choice != JOB_TOOL_AUTO,
                              .parallel = s->parallel && s->choice != JOB_TOOL_NAMED};
    size_t i;
    json_t *tool;
    if (!row)
        return err_nomem(e, 0, "tools");
    json_array_foreach(s->tools, i, tool)
    {
        const json_t *f = json_object_get(tool, "function");
        const char *name = json_string_value(json_object_get(f, "name"));
        if (!name || (s->choice == JOB_TOOL_NAMED && strcmp(name, s->choice_name) != 0))
            continue;
        const json_t *parameters = json_object_get(f, "parameters");
        row[t.n++] = (struct grammar_tool){name, json_is_object(parameters) ? parameters : NULL};
    }
    int rc = grammar_new_tools(out, &t, e);
    free(row);
    return rc;
}

static int choice(const json_t *array, struct grammar **out, struct err *e)
{
    size_t n = json_array_size(array);
    const char **text = calloc(n ? n : 1, sizeof *text);
    if (!text)
        return err_nomem(e, n * sizeof *text, "choices");
    for (size_t i = 0; i < n; i++)
        text[i] = json_string_value(json_array_get(array, i));
    int rc = grammar_new_choice(out, text, n, e);
    free(text);
    return rc;
}

int job_grammar(struct job *j, struct grammar **out, struct err *e)
{
    const struct job_spec *s = j->spec;
    *out = NULL;
    if (job_shows_tools(s) && json_array_size(s->tools) > TOOLS_MAX)
        return err_set(e, ERR_USAGE, "tools: more than %d", TOOLS_MAX);
    if (job_shows_tools(s) && s->choice != JOB_TOOL_AUTO)
        return tools(j, out, e);
    switch (s->format) {
    case JOB_JSON:
        return grammar_new_json(out, e);
    case JOB_SCHEMA:
        return grammar_new_schema(out, s->schema, e);
    case JOB_REGEX:
        return grammar_new_regex(out, s->grammar, strlen(s->grammar), e);
    case JOB_GBNF:
        return grammar_new_gbnf(out, s->grammar, strlen(s->grammar), e);
    case JOB_CHOICE:
        return choice(s->schema, out, e);
    case JOB_FREE:
        break;
    }
    if (!job_shows_tools(s))
        return 0;
    struct err lost = {0};
    int rc = tools(j, out, &lost);
    if (rc == ERR_NOMEM) {
        *e = lost;
        return rc;
    }
    return 0;
}
