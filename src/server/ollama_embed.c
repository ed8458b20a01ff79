/* Ollama's API: /api/embed, and /api/embeddings of older clients. */
#include "server/ollama.h"
#include "server/reply.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { INPUTS_MAX = 2048, BYTES_MAX = 32 << 20 };

struct embed {
    struct http_exchange *x; /* kept */
    json_t *body;            /* owned */
    struct job_spec spec;
    struct job_input *input; /* owned; spec points to it */
    json_t *vectors;         /* one for each input, null until it is there */
    bool old;                /* /api/embeddings: one, and nothing else */
};

static void embed_free(void *arg)
{
    struct embed *m = arg;
    json_decref(m->vectors);
    json_decref(m->body);
    free(m->input);
    http_drop(m->x);
    free(m);
}

static int embed_begin(void *arg, struct job *j, struct err *e)
{
    struct embed *m = arg;
    (void)j;
    return http_stream(m->x, HTTP_WHOLE, e);
}

static int embed_finish(struct embed *m, struct job *j, const struct request_event *ev,
                        struct err *e)
{
    json_t *o = m->old ? json_pack("{sO}", "embedding", json_array_get(m->vectors, 0))
                       : json_pack("{ss sO sI sI sI}", "model", job_name(j), "embeddings",
                                   m->vectors, "total_duration",
                                   (json_int_t)((clock_seconds() - http_started(m->x)) * 1e9),
                                   "load_duration", (json_int_t)(job_use(j)->load_seconds * 1e9),
                                   "prompt_eval_count", (json_int_t)ev->stats->prompt_tokens);
    int rc = reply_json(m->x, o, e);
    http_end(m->x);
    return rc;
}

static int embed_event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct embed *m = arg;
    if (ev->kind == REQUEST_DONE)
        return embed_finish(m, j, ev, e);
    if (ev->kind != REQUEST_EMBEDDED)
        return 0;
    json_t *v = json_array();
    for (size_t i = 0; v && i < ev->n_vector; i++)
        json_array_append_new(v, json_real((double)ev->vector[i]));
    return !v || json_array_set_new(m->vectors, ev->sample, v) ? err_nomem(e, 0, "an embedding")
                                                               : 0;
}

static void embed_fail(void *arg, struct job *j, const struct err *e)
{
    struct embed *m = arg;
    (void)j;
    http_error_from(m->x, e);
}

static const struct job_sink embed_sink = {embed_begin, embed_event, embed_fail, embed_free};

static void read_inputs(struct fields *f, struct embed *m, const char *key)
{
    json_t *in = field(f, key);
    size_t n = json_is_array(in) ? json_array_size(in) : in != NULL;
    if (n > INPUTS_MAX)
        field_fail(f, key, "has too many elements");
    m->input = calloc(n ? n : 1, sizeof *m->input);
    if (!m->input && !f->code)
        f->code = err_nomem(f->e, n * sizeof *m->input, "a list of inputs");
    for (size_t i = 0; i < n && !f->code; i++) {
        json_t *s = json_is_array(in) ? json_array_get(in, i) : in;
        if (!json_is_string(s) || json_string_length(s) > BYTES_MAX)
            field_fail(f, key, "must be a string or an array of strings");
        else
            m->input[i] =
                (struct job_input){.text = json_string_value(s), .n = json_string_length(s)};
        json_array_append_new(m->vectors, json_null());
    }
    m->spec.input = m->input;
    m->spec.n_input = n;
}

static int embed_read(struct embed *m, struct err *e)
{
    struct fields f = fields_of(m->body, "", e);
    const char *stops[OLLAMA_STOPS];
    int64_t dimensions = 0;
    job_spec_init(&m->spec);
    m->spec.embed = true;
    m->spec.prompt = JOB_TEXT;
    m->spec.keep_alive = NAN;
    m->spec.truncate = true; /* as Ollama does unless told otherwise */
    field_string(&f, "model", &m->spec.model, NULL, 512);
    if (!m->spec.model || !*m->spec.model)
        field_fail(&f, "model", "is missing");
    field_bool(&f, "truncate", &m->spec.truncate);
    field_int(&f, "dimensions", &dimensions, 0, INT32_MAX);
    if (dimensions)
        field_fail(&f, "dimensions", "can't be chosen: this model's vectors have one length");
    ollama_keep_alive(&f, &m->spec.keep_alive);
    ollama_options(&f, &m->spec, stops, OLLAMA_STOPS);
    m->spec.stop = NULL; /* nothing is written that could stop */
    m->spec.n_stop = 0;
    read_inputs(&f, m, m->old ? "prompt" : "input");
    return f.code;
}

/* Without an input the model is only loaded, and the answer is empty. */
static void embed_nothing(struct embed *m)
{
    http_send_json(m->x, 200,
                   m->old ? json_pack("{s[]}", "embedding")
                          : json_pack("{ss s[]}", "model", m->spec.model, "embeddings"));
    embed_free(m);
}

static void embed(struct server *s, struct http_exchange *x, bool old)
{
    struct err e = {0};
    json_t *body;
    struct embed *m = reply_begin(x, sizeof *m, &body);
    if (!m)
        return;
    m->x = x;
    m->body = body;
    m->old = old;
    m->vectors = json_array();
    if (embed_read(m, &e)) {
        http_error_from(x, &e);
        embed_free(m);
    } else if (!m->spec.n_input) {
        embed_nothing(m);
    } else {
        job_run(s, x, &m->spec, &embed_sink, m);
    }
}

void ollama_embed(void *arg, struct http_exchange *x)
{
    embed(arg, x, false);
}

void ollama_embeddings(void *arg, struct http_exchange *x)
{
    embed(arg, x, true);
}
