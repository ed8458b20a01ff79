/*
 * The grammar of a job's answer: a format that was asked for, or the calls that tools allow. Which
 * form calls have is the model's: its template shows it, or its vocabulary.
 *
 * With tool_choice "auto" the text is free until a call begins, which then has to be one of the
 * tools' with arguments that fit; where schemas cannot be enforced any object may be: the model
 * still sees them. With a format too, an answer is either calls or has the format.
 *
 * Grammars are found again by what they are made of (text/grammar_cache.h).
 */
#include "base/buf.h"
#include "base/num.h"
#include "server/job_impl.h"
#include "text/grammar_cache.h"

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

/* ---- what a grammar is made of, as a key ---------------------------------------------------- */

enum { KEY_MAX = 256 << 20 };

static int key_json(struct buf *b, const json_t *v, struct err *e)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY;
    size_t n = v ? json_dumpb(v, NULL, 0, flags) : 0;
    int rc = buf_printf(b, e, "%zu:", n);
    rc = rc ? rc : buf_reserve(b, n, e);
    if (!rc && n) {
        json_dumpb(v, b->data + b->len, n, flags);
        b->len += n;
    }
    return rc;
}

static int key_form(struct buf *b, const struct grammar_form *f, struct err *e)
{
    int rc = buf_printf(b, e, "%d:%zu:", (int)f->kind, f->n);
    rc = rc ? rc : buf_append(b, f->text ? f->text : "", f->n, e);
    return rc ? rc : key_json(b, f->json, e);
}

static int key_tools(struct buf *b, const struct grammar_tools *t, struct err *e)
{
    int rc = buf_printf(b, e, "calls:%d:%d:%d:%d:", (int)t->form, t->required, t->parallel,
                        t->answer != NULL);
    for (size_t i = 0; i < t->n && !rc; i++) {
        rc = buf_printf(b, e, "%zu:%s:", strlen(t->tool[i].name), t->tool[i].name);
        rc = rc ? rc : key_json(b, t->tool[i].parameters, e);
    }
    return rc || !t->answer ? rc : key_form(b, t->answer, e);
}

/* ---- making --------------------------------------------------------------------------------- */

/* The grammar of tools, or (t NULL) of a form; from the cache when it is there. */
static int make(struct job *j, const struct grammar_tools *t, const struct grammar_form *f,
                struct grammar **out, struct err *e)
{
    struct grammar_cache *cache = engine_grammars(j->use.engine);
    struct grammar_key key;
    struct buf b;
    buf_init(&b, KEY_MAX);
    int rc = t ? key_tools(&b, t, e) : key_form(&b, f, e);
    sha256_of(b.data, b.len, key.sum);
    buf_release(&b);
    if (rc)
        return rc;
    *out = cache ? grammar_cache_find(cache, &key) : NULL;
    if (*out)
        return 0;
    rc = t ? grammar_new_tools(out, t, e) : grammar_new(out, f, e);
    if (!rc && cache)
        *out = grammar_cache_add(cache, &key, *out);
    return rc;
}

static int tools(struct job *j, struct grammar **out, struct err *e)
{
    const struct job_spec *s = j->spec;
    struct grammar_tool *row = calloc(json_array_size(s->tools), sizeof *row);
    struct grammar_tools t = {.form = call_form(j->use.engine),
                              .tool = row,
                              .required = s->choice != JOB_TOOL_AUTO,
                              .answer = s->format.kind == GRAMMAR_FREE ? NULL : &s->format,
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
    int rc = make(j, &t, NULL, out, e);
    if (rc && rc != ERR_NOMEM && s->choice == JOB_TOOL_AUTO) { /* arguments that can't be held */
        for (i = 0; i < t.n; i++)
            row[i].parameters = NULL;
        rc = make(j, &t, NULL, out, e);
    }
    free(row);
    return rc;
}

int job_grammar(struct job *j, struct grammar **out, struct err *e)
{
    const struct job_spec *s = j->spec;
    bool calls = job_shows_tools(s), form = s->format.kind != GRAMMAR_FREE;
    *out = NULL;
    if (calls && json_array_size(s->tools) > TOOLS_MAX)
        return err_set(e, ERR_USAGE, "tools: more than %d", TOOLS_MAX);
    if (calls)
        return tools(j, out, e);
    return form && make(j, NULL, &s->format, out, e) ? err_ctx(e, "%s", s->format_field) : 0;
}
