/*
 * Ollama's API: from the JSON of /api/chat and /api/generate to a job.
 *
 * What Ollama would do in silence is not done in silence here: a prompt that does not fit is cut
 * only where the request says "truncate": true; templates of a request, images and unknown formats
 * are refused with a sentence.
 */
#include "server/ollama.h"

#include "base/num.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_MAX = 32 << 20, STOP_BYTES = 1024, CONTEXT_MAX = 1 << 22, MESSAGES_MAX = 1 << 16 };

/* ---- members of both ------------------------------------------------------------------------ */

void ollama_keep_alive(struct fields *f, double *seconds)
{
    json_t *v = field(f, "keep_alive");
    if (!v)
        return;
    if (json_is_string(v)) {
        if (!fields_duration(json_string_value(v), seconds))
            field_fail(f, "keep_alive", "is no duration: write \"5m\", \"1h30m\", 300 or -1");
    } else {
        field_double(f, "keep_alive", seconds, -1e300, 1e300);
    }
}

/* A whole number whose negative values mean "none": *v becomes `none` for them. */
static void option_count(struct fields *f, const char *key, size_t *v, size_t none)
{
    int64_t n = INT64_MIN;
    field_int(f, key, &n, INT32_MIN, INT32_MAX);
    if (n != INT64_MIN)
        *v = n < 0 ? none : (size_t)n;
}

static void option_int(struct fields *f, const char *key, int *v, int min)
{
    int64_t n = INT64_MIN;
    field_int(f, key, &n, min, INT32_MAX);
    if (n != INT64_MIN)
        *v = (int)n;
}

void ollama_options(struct fields *f, struct job_spec *spec, const char **stops, size_t max_stops)
{
    json_t *o = NULL;
    field_object(f, "options", &o);
    if (!o)
        return;
    struct fields g = fields_of(o, "options.", f->e);
    struct sampler_params *p = &spec->sampling;
    field_float(&g, "temperature", &p->temperature, 0, 100);
    field_float(&g, "top_p", &p->top_p, 0, 1);
    field_float(&g, "min_p", &p->min_p, 0, 1);
    field_float(&g, "typical_p", &p->typical_p, 0, 1);
    field_float(&g, "repeat_penalty", &p->repetition_penalty, 0, 100);
    field_float(&g, "presence_penalty", &p->presence_penalty, -100, 100);
    field_float(&g, "frequency_penalty", &p->frequency_penalty, -100, 100);
    option_int(&g, "top_k", &p->top_k, -1);
    option_int(&g, "repeat_last_n", &p->penalty_last, -1);
    if (p->top_k == -1)
        p->top_k = 0;
    int64_t seed = -1;
    field_int(&g, "seed", &seed, INT64_MIN, INT64_MAX);
    if (seed >= 0) {
        p->seed = (uint64_t)seed;
        spec->seed_given = true;
    }
    option_count(&g, "num_predict", &spec->max_tokens, 0);
    option_count(&g, "num_ctx", &spec->ctx, 0);
    field_strings(&g, "stop", stops, &spec->n_stop, max_stops, STOP_BYTES);
    spec->stop = stops;
    if (g.code) {
        f->code = g.code;
        f->param = "options";
    }
}

/* "think": true, false or a level. */
static void read_think(struct fields *f, struct server *s, struct ollama_request *r)
{
    json_t *v = field(f, "think");
    enum server_think by_default = s->o.ollama_think;
    if (!v) {
        r->thoughts = by_default == SERVER_THINK_INLINE ? OLLAMA_INLINE : OLLAMA_FIELD;
        r->spec.think = by_default == SERVER_THINK_OFF ? JOB_THINK_OFF : JOB_THINK_DEFAULT;
        return;
    }
    static const char *const levels[] = {"none", "minimal", "low", "medium",
                                         "high", "xhigh",   "max"};
    int level = -1;
    r->think_given = true;
    if (json_is_string(v))
        field_word(f, "think", &level, levels, NUM_COUNT(levels));
    else if (!json_is_boolean(v))
        field_fail(f, "think", "must be true, false, \"low\", \"medium\" or \"high\"");
    bool on = json_is_true(v) || level > 0;
    r->spec.think = on ? JOB_THINK_ON : JOB_THINK_OFF;
    r->thoughts = on ? OLLAMA_FIELD : OLLAMA_HIDDEN;
}

/* "format": "", "json", or a JSON schema. */
static void read_format(struct fields *f, struct job_spec *spec)
{
    json_t *v = field(f, "format");
    snprintf(spec->format_field, sizeof spec->format_field, "format");
    if (!v || (json_is_string(v) && !json_string_length(v)))
        return;
    if (json_is_object(v)) {
        spec->format = (struct grammar_form){.kind = GRAMMAR_SCHEMA, .json = v};
    } else if (json_is_string(v) && !strcmp(json_string_value(v), "json")) {
        spec->format.kind = GRAMMAR_JSON;
    } else {
        field_fail(f, "format", "must be \"json\" or a JSON schema");
    }
}

static void read_common(struct fields *f, struct server *s, struct ollama_request *r)
{
    struct job_spec *spec = &r->spec;
    bool probs = false;
    int64_t top = 0;
    field_string(f, "model", &spec->model, NULL, 512);
    if (!spec->model || !*spec->model)
        field_fail(f, "model", "is missing");
    field_bool(f, "stream", &r->stream);
    ollama_options(f, spec, r->stops, NUM_COUNT(r->stops));
    ollama_keep_alive(f, &spec->keep_alive);
    read_think(f, s, r);
    read_format(f, spec);
    field_bool(f, "truncate", &spec->truncate);
    field_bool(f, "logprobs", &probs);
    field_int(f, "top_logprobs", &top, 0, 20);
    spec->logprobs = probs ? (int)top : -1;
    if (field(f, "template") && json_string_length(field(f, "template")))
        field_fail(f, "template",
                   "can't be given with a request: use \"raw\": true with a finished prompt, or "
                   "start the server with --chat-template");
    if (json_array_size(field(f, "images")))
        field_fail(f, "images", "can't be read: this model sees text only");
}

/* ---- /api/chat ------------------------------------------------------------------------------ */

static void read_chat(struct fields *f, struct ollama_request *r)
{
    json_t *all = NULL;
    field_array(f, "messages", &all, MESSAGES_MAX);
    field_array(f, "tools", &r->spec.tools, 1024);
    if (!json_array_size(r->spec.tools))
        r->spec.tools = NULL;
    r->spec.choice = r->spec.tools ? JOB_TOOL_AUTO : JOB_TOOL_NONE;
    r->spec.parallel = true;
    r->load_only = !json_array_size(all);
    r->spec.prompt = JOB_CHAT;
    json_t *one;
    size_t i;
    json_array_foreach(r->spec.tools, i, one)
    {
        if (!job_tool_name(json_object_get(json_object_get(one, "function"), "name")))
            field_fail(f, "tools",
                       "must hold functions, whose names have no blanks, quotes and control "
                       "characters");
    }
    json_array_foreach(all, i, one)
    {
        if (json_array_size(json_object_get(one, "images")))
            field_fail(f, "messages",
                       "hold images, which this model can't see: it reads text only");
    }
    if (f->code || r->load_only)
        return;
    f->code = job_messages(all, &r->messages, f->e);
    /* An answer that was begun is gone on with. */
    json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    r->spec.go_on = role && !strcmp(role, "assistant") && !json_object_get(last, "tool_calls");
    r->spec.messages = r->messages;
}

/* ---- /api/generate -------------------------------------------------------------------------- */

static void read_generate(struct fields *f, struct ollama_request *r)
{
    struct job_spec *p = &r->spec;
    const char *system = NULL;
    size_t n_system = 0;
    p->text = "";
    field_string(f, "prompt", &p->text, &p->n_text, TEXT_MAX);
    field_string(f, "suffix", &p->suffix, &p->n_suffix, TEXT_MAX);
    field_string(f, "system", &system, &n_system, TEXT_MAX);
    field_bool(f, "raw", &p->raw);
    field_ids(f, "context", &r->context, &p->n_ids, CONTEXT_MAX, INT32_MAX);
    p->ids = r->context;
    r->load_only = !p->n_text && !(p->suffix && *p->suffix);
    if (p->suffix && *p->suffix) {
        p->prompt = JOB_FIM;
        p->raw = true;
    } else if (p->raw) {
        p->prompt = JOB_TEXT;
    } else {
        p->prompt = JOB_CHAT;
        r->messages = json_array();
        if (n_system)
            json_array_append_new(r->messages, json_pack("{ss so}", "role", "system", "content",
                                                         json_stringn(system, n_system)));
        json_array_append_new(r->messages, json_pack("{ss so}", "role", "user", "content",
                                                     json_stringn(p->text, p->n_text)));
        p->messages = r->messages;
    }
}

int ollama_read(struct server *s, struct ollama_request *r, struct err *e)
{
    struct fields f = fields_of(r->body, "", e);
    job_spec_init(&r->spec);
    r->stream = true;
    r->spec.keep_alive = NAN;
    read_common(&f, s, r);
    if (r->chat)
        read_chat(&f, r);
    else
        read_generate(&f, r);
    if (f.code)
        return f.code;
    int think;
    int rc = hub_find(s->hub, r->spec.model, &r->model, &think, e);
    if (rc)
        return rc;
    if (think >= 0 && !r->think_given)
        r->spec.think = think ? JOB_THINK_ON : JOB_THINK_OFF;
    if (r->think_given && r->spec.think == JOB_THINK_ON && !hub_info(r->model)->thinks)
        return err_set(e, ERR_USAGE, "\"%s\" does not support thinking", r->spec.model);
    return 0;
}
