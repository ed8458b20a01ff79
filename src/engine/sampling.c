/*
 * Sampling that suits a model, where its files say so: general.sampling.* of a GGUF file, or
 * generation_config.json of a Hugging Face folder. Advice that cannot be read or makes no sense is
 * passed over with a line in the log: it is no reason to refuse a model that computes.
 */
#include "engine/engine_private.h"

#include "format/jsonin.h"

#include <limits.h>
#include <math.h>

void sampling_default(struct sampler_params *p)
{
    sampler_params_init(p);
    p->penalty_last = 64;
    p->temperature = 0.8f;
    p->top_k = 40;
    p->top_p = 0.9f;
}

/* Numbers far outside any range stay outside it: the check that follows names them. */
static int whole(double v)
{
    return v >= INT_MAX ? INT_MAX : v <= -INT_MAX || isnan(v) ? -INT_MAX : (int)v;
}

static double json_or(const json_t *o, const char *key, double fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

/* What a key leaves out has transformers' default. */
static int sampling_from_config(struct source *src, struct sampler_params *p, bool *has,
                                struct err *e)
{
    static const struct jsonin_limits limits = {32, 10000, 100000};
    const char *text = NULL;
    size_t n = 0;
    json_t *o = NULL;
    int rc = source_text(src, "generation_config.json", &text, &n, e);
    if (rc || !text || (rc = jsonin_object(&o, text, n, &limits, false, e)))
        return rc;
    *has = json_is_number(json_object_get(o, "temperature")) ||
           json_is_number(json_object_get(o, "top_p"));
    p->temperature = (float)json_or(o, "temperature", 1);
    p->top_p = (float)json_or(o, "top_p", 1);
    p->top_k = whole(json_or(o, "top_k", 50));
    p->repetition_penalty = (float)json_or(o, "repetition_penalty", 1);
    json_decref(o);
    return 0;
}

static double gguf_or(const struct source *src, const char *key, double fallback)
{
    const struct source_value *v = source_value(src, key);
    if (!v)
        return fallback;
    return v->type == SOURCE_FLOAT  ? v->f
           : v->type == SOURCE_INT  ? (double)v->i
           : v->type == SOURCE_UINT ? (double)v->u
                                    : fallback;
}

static bool sampling_from_gguf(const struct source *src, struct sampler_params *p)
{
    p->temperature = (float)gguf_or(src, "general.sampling.temp", (double)p->temperature);
    p->top_k = whole(gguf_or(src, "general.sampling.top_k", p->top_k));
    p->top_p = (float)gguf_or(src, "general.sampling.top_p", (double)p->top_p);
    p->min_p = (float)gguf_or(src, "general.sampling.min_p", (double)p->min_p);
    return source_value(src, "general.sampling.temp") ||
           source_value(src, "general.sampling.top_p");
}

int sampling_read(struct sampler_params *out, struct source *src, bool r1_family,
                  const struct log *log, struct err *e)
{
    bool gguf = source_kind(src) == SOURCE_GGUF, has = false;
    struct sampler_params p;
    struct err bad;
    int rc = 0;
    sampling_default(out);
    p = *out;
    if (gguf)
        has = sampling_from_gguf(src, &p);
    else
        rc = sampling_from_config(src, &p, &has, &bad);
    if (rc == ERR_NOMEM)
        return err_set(e, rc, "%s", bad.text);
    if (!rc && has && !(rc = sampler_params_check(&p, &bad))) {
        *out = p;
        return 0;
    }
    if (rc)
        log_line(log, LOG_WARN, "recommended sampling in %s is passed over: %s",
                 gguf ? "general.sampling.*" : "generation_config.json", bad.text);
    if (r1_family) {
        out->temperature = 0.6f;
        out->top_p = 0.95f;
        out->top_k = 0;
    }
    return 0;
}
