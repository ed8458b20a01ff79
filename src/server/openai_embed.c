/* OpenAI's API: embeddings, as numbers or as the bytes of float32, little-endian, in base64. */
#include "base/num.h"
#include "server/openai.h"

#include <stdlib.h>
#include <string.h>

static json_t *base64(const float *v, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = (const uint8_t *)v;
    size_t bytes = n * sizeof *v, at = 0;
    char *out = malloc(bytes / 3 * 4 + 5);
    if (!out)
        return NULL;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t left = bytes - i;
        uint32_t w = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) |
                     (left > 2 ? p[i + 2] : 0);
        out[at++] = digits[w >> 18];
        out[at++] = digits[w >> 12 & 63];
        out[at++] = left > 1 ? digits[w >> 6 & 63] : '=';
        out[at++] = left > 2 ? digits[w & 63] : '=';
    }
    json_t *s = json_stringn(out, at);
    free(out);
    return s;
}

static int embedded(struct openai_request *r, const struct request_event *ev, struct err *e)
{
    json_t *v = r->base64 ? base64(ev->vector, ev->n_vector) : json_array();
    int bad = !v;
    for (size_t i = 0; i < ev->n_vector && !r->base64 && !bad; i++)
        bad = json_array_append_new(v, json_real((double)ev->vector[i]));
    json_t *o = bad ? NULL
                    : json_pack("{ss sI so}", "object", "embedding", "index",
                                (json_int_t)ev->sample, "embedding", v);
    return !o || json_array_set_new(r->vectors, ev->sample, o) ? err_nomem(e, 0, "an embedding")
                                                               : 0;
}

static int finish(struct openai_request *r, struct job *j, const struct request_event *ev,
                  struct err *e)
{
    json_int_t n = (json_int_t)ev->stats->prompt_tokens;
    json_t *o = json_pack("{ss sO ss s{sI sI}}", "object", "list", "data", r->vectors, "model",
                          job_name(j), "usage", "prompt_tokens", n, "total_tokens", n);
    int rc = reply_json(r->x, o, e);
    http_end(r->x);
    return rc;
}

static int begin(void *arg, struct job *j, struct err *e)
{
    struct openai_request *r = arg;
    (void)j;
    return http_stream(r->x, HTTP_WHOLE, e);
}

static int event(void *arg, struct job *j, const struct request_event *ev, struct err *e)
{
    struct openai_request *r = arg;
    if (ev->kind == REQUEST_EMBEDDED)
        return embedded(r, ev, e);
    return ev->kind == REQUEST_DONE ? finish(r, j, ev, e) : 0;
}

static void fail(void *arg, struct job *j, const struct err *e)
{
    struct openai_request *r = arg;
    (void)j;
    openai_error(r->x, NULL, e);
}

static void release(void *arg)
{
    openai_free(arg);
}

static const struct job_sink embed_sink = {begin, event, fail, release};

static int read_request(struct openai_request *r, const char **param, struct err *e)
{
    static const char *const formats[] = {"float", "base64"};
    struct fields f = fields_of(r->body, "", e);
    struct hub_model *m = NULL;
    int64_t dimensions = 0, cut = 0;
    int format = 0, think;
    job_spec_init(&r->spec);
    r->spec.embed = true;
    field_string(&f, "model", &r->spec.model, NULL, 512);
    if (!r->spec.model && !f.code)
        field_fail(&f, "model", "is missing");
    openai_read_inputs(&f, r, "input");
    field_word(&f, "encoding_format", &format, formats, NUM_COUNT(formats));
    r->base64 = format == 1;
    field_int(&f, "truncate_prompt_tokens", &cut, -1, INT32_MAX);
    r->spec.truncate = cut != 0;
    r->spec.prompt_max = cut > 0 ? (size_t)cut : 0;
    field_int(&f, "dimensions", &dimensions, 1, INT32_MAX);
    if (!f.code && dimensions && !hub_find(r->server->hub, r->spec.model, &m, &think, e) &&
        (size_t)dimensions != hub_info(m)->d_model)
        field_fail(&f, "dimensions", "can't be chosen: this model's vectors have one length");
    r->vectors = json_array();
    for (size_t i = 0; i < r->spec.n_input && !f.code; i++)
        if (json_array_append_new(r->vectors, json_null()))
            f.code = err_nomem(e, 0, "embeddings");
    *param = f.param;
    return f.code;
}

void openai_embeddings(void *arg, struct http_exchange *x)
{
    const char *param = NULL;
    struct err e = {0};
    json_t *body;
    struct openai_request *r = reply_begin(x, sizeof *r, &body);
    if (!r)
        return;
    r->server = arg;
    r->x = x;
    r->body = body;
    if (read_request(r, &param, &e)) {
        openai_error(x, param, &e);
        openai_free(r);
    } else {
        job_run(r->server, x, &r->spec, &embed_sink, r);
    }
}
