/* Ollama's API: version, and what models there are (tags, ps, show). */
#include "server/ollama.h"

#include "base/num.h"
#include "engine/head.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void ollama_time(double t, char out[OLLAMA_TIME])
{
    time_t whole = (time_t)t;
    struct tm tm;
    char day[32];
    if (!(t >= 0 && t < 2.5e11) || !gmtime_r(&whole, &tm)) {
        snprintf(out, OLLAMA_TIME, "9999-12-31T23:59:59Z"); /* for ever */
        return;
    }
    strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm);
    unsigned nanos = (unsigned)((t - (double)whole) * 1e9) % 1000000000u;
    snprintf(out, OLLAMA_TIME, "%.19s.%09uZ", day, nanos);
}

void ollama_root(void *arg, struct http_exchange *x)
{
    (void)arg;
    static const char text[] = "Ollama is running"; /* what clients look for */
    http_send(x, 200, "text/plain; charset=utf-8", text, sizeof text - 1);
}

void ollama_version(void *arg, struct http_exchange *x)
{
    (void)arg;
    /* Clients refuse servers below the version whose API they need: so this is the version of
       Ollama's API that is spoken here. */
    http_send_json(x, 200,
                   json_pack("{ss ss}", "version", OLLAMA_API, "server", "ponder/" PONDER_VERSION));
}

/* 494032768 → "494.03M", as Ollama writes sizes of models. */
static void ollama_size(uint64_t n, char out[32])
{
    static const struct {
        double unit;
        char letter;
    } units[] = {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}};
    for (size_t i = 0; i < NUM_COUNT(units); i++)
        if ((double)n >= units[i].unit) {
            double v = (double)n / units[i].unit;
            snprintf(out, 32, v >= 10 || units[i].letter != 'B' ? "%.2f%c" : "%.1f%c", v,
                     units[i].letter);
            return;
        }
    snprintf(out, 32, "%" PRIu64, n);
}

json_t *ollama_details(const struct hub_info *i)
{
    char size[32];
    ollama_size(i->params, size);
    return json_pack("{ss ss ss s[s] ss ss sI sI}", "parent_model", i->parent ? i->parent : "",
                     "format", "gguf", "family", i->arch, "families", i->arch, "parameter_size",
                     size, "quantization_level", i->file_type, "context_length",
                     (json_int_t)i->ctx_train, "embedding_length", (json_int_t)i->d_model);
}

static json_t *ollama_capabilities(const struct hub_info *i)
{
    json_t *a = json_pack("[s]", "completion");
    if (i->tools)
        json_array_append_new(a, json_string("tools"));
    if (i->fim)
        json_array_append_new(a, json_string("insert"));
    if (i->thinks)
        json_array_append_new(a, json_string("thinking"));
    return a;
}

/* Names are shown with a tag, as Ollama does; they are understood without one too. */
static json_t *ollama_name(const char *name)
{
    return strchr(name, ':') ? json_string(name) : json_sprintf("%s:latest", name);
}

void ollama_tags(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    json_t *all = json_array();
    for (size_t k = 0; k < hub_count(s->hub); k++) {
        const struct hub_info *i = hub_info(hub_model(s->hub, k));
        char time[OLLAMA_TIME];
        ollama_time(i->modified, time);
        json_array_append_new(all,
                              json_pack("{so so ss sI ss so so}", "name", ollama_name(i->name),
                                        "model", ollama_name(i->name), "modified_at", time, "size",
                                        (json_int_t)i->bytes, "digest", i->digest, "details",
                                        ollama_details(i), "capabilities", ollama_capabilities(i)));
    }
    http_send_json(x, 200, json_pack("{so}", "models", all));
}

static void ollama_ps_row(void *arg, const struct hub_info *i, const struct engine_info *ei,
                          const struct sched_stats *st, double expires, uint64_t bytes)
{
    (void)st;
    char time[OLLAMA_TIME];
    ollama_time(expires, time);
    json_array_append_new(arg,
                          json_pack("{so so sI ss so ss si sI}", "name", ollama_name(i->name),
                                    "model", ollama_name(i->name), "size", (json_int_t)bytes,
                                    "digest", i->digest, "details", ollama_details(i), "expires_at",
                                    time, "size_vram", 0, "context_length", (json_int_t)ei->ctx));
}

void ollama_ps(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    json_t *all = json_array();
    hub_loaded(s->hub, ollama_ps_row, all);
    http_send_json(x, 200, json_pack("{so}", "models", all));
}

static void append_parameter(struct buf *b, const char *name, double v, bool given)
{
    if (given)
        (void)buf_printf(b, NULL, "%s%-30s %g", b->len ? "\n" : "", name, v);
}

/* What a Modelfile of this model would say. */
static json_t *ollama_modelfile(const struct hub_info *i, const char *template_text,
                                const char *parameters)
{
    return json_sprintf("# made by ponder\nFROM %s\nTEMPLATE \"\"\"%s\"\"\"\n%s%s", i->path,
                        template_text, *parameters ? "# PARAMETER " : "", parameters);
}

static void show_model(const struct server *s, struct http_exchange *x, const struct hub_model *m,
                       bool verbose)
{
    const struct hub_info *i = hub_info(m);
    struct err e = {0};
    struct engine_head h;
    json_t *meta = NULL, *tensors = NULL;
    struct buf parameters;
    buf_init(&parameters, 4096);
    int rc = engine_head_read(&h, i->path, s->o.hub.engine.template_text, &e);
    if (!rc && !(rc = engine_head_metadata(i->path, verbose, &meta, &e)) && verbose)
        rc = engine_head_tensors(i->path, &tensors, &e);
    if (rc) {
        hub_fault(m, &e);
        http_error_from(x, &e);
    } else {
        char time[OLLAMA_TIME];
        ollama_time(i->modified, time);
        json_t *t = json_object_get(meta, "general.sampling.temp");
        append_parameter(&parameters, "temperature", json_number_value(t), json_is_number(t));
        t = json_object_get(meta, "general.sampling.top_p");
        append_parameter(&parameters, "top_p", json_number_value(t), json_is_number(t));
        const char *p = parameters.len ? parameters.data : "";
        json_t *license = json_object_get(meta, "general.license");
        json_t *o = json_pack("{so ss ss so sO ss so}", "details", ollama_details(i), "template",
                              h.template_text, "parameters", p, "modelfile",
                              ollama_modelfile(i, h.template_text, p), "model_info", meta,
                              "modified_at", time, "capabilities", ollama_capabilities(i));
        if (json_is_string(license))
            json_object_set(o, "license", license);
        if (verbose)
            json_object_set(o, "tensors", tensors);
        http_send_json(x, 200, o);
        engine_head_release(&h);
    }
    buf_release(&parameters);
    json_decref(meta);
    json_decref(tensors);
}

void ollama_show(void *arg, struct http_exchange *x)
{
    struct server *s = arg;
    json_t *body = http_json(x);
    if (!body)
        return;
    struct err e = {0};
    struct fields f = fields_of(body, "", &e);
    const char *name = "";
    bool verbose = false;
    struct hub_model *m;
    int think;
    field_string(&f, "name", &name, NULL, 512); /* older clients */
    field_string(&f, "model", &name, NULL, 512);
    field_bool(&f, "verbose", &verbose);
    if (f.code || hub_find(s->hub, name, &m, &think, &e))
        http_error_from(x, &e);
    else
        show_model(s, x, m, verbose);
    json_decref(body);
}
