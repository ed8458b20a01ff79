/*
 * config.json from the hyperparameters of a GGUF file: the numbers by their keys
 * (model_config_keys), and what the two kinds of files say differently.
 */
#include "convert/hf_files.h"

#include "base/num.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* GGUF keeps float32: the shortest decimal that is the same float is what was meant. */
static json_t *number(double v, bool real)
{
    char text[40];
    if (!real)
        return json_integer((json_int_t)v);
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if ((float)strtod(text, NULL) == (float)v)
            break;
    }
    return json_real(strtod(text, NULL));
}

/* A number that was computed from some: what six digits say. */
static json_t *derived(double v)
{
    char text[40];
    snprintf(text, sizeof text, "%.6g", v);
    return json_real(strtod(text, NULL));
}

static const char *model_type(const struct model_config *f)
{
    /* Where one architecture of GGUF is two there: the sigmoid router is the newer one's. */
    size_t i = f->arch->hf[1] && f->arch->moe && !f->router_sigmoid ? 1 : 0;
    return f->arch->hf[i];
}

/* deepseek_v3 → DeepseekV3ForCausalLM */
static void class_name(char *out, size_t cap, const char *type)
{
    size_t at = 0;
    bool first = true;
    for (; *type && at + 1 < cap; type++) {
        if (*type != '_')
            out[at++] = first ? (char)toupper((unsigned char)*type) : *type;
        first = *type == '_';
    }
    snprintf(out + at, cap - at, "ForCausalLM");
}

/* ---- the rotation's scaling -------------------------------------------------------------------
 */

/* True when llama 3's rule with these numbers gives the file's frequencies. */
static bool llama3_is(const struct convert_plan *p, double factor, double low, double high,
                      double ctx, const double *want)
{
    struct model_config f = p->cfg;
    double got[2048];
    f.rope_scaling = ROPE_LLAMA3;
    f.rope_factor = factor;
    f.rope_low = low;
    f.rope_high = high;
    f.rope_ctx = ctx;
    for (size_t i = 0; i < f.d_rope / 2; i++) {
        double freq = pow(f.rope_theta, -2.0 * (double)i / (double)f.d_rope);
        double wave = 2 * M_PI / freq, t = (ctx / wave - low) / (high - low);
        t = fmin(1, fmax(0, t));
        got[i] = (1 - t) * freq / factor + t * freq;
        if (fabs(got[i] / want[i] - 1) > 1e-5)
            return false;
    }
    return true;
}

/*
 * GGUF has the factors by which frequencies are divided; config.json wants the rule. The largest
 * factor is the rule's; in the ramp, 1/factor_i is linear in 1/wavelength: two points give the
 * line, whose numbers are a family of which the member with a low factor of 1 is written.
 */
static int rope_llama3(const struct convert_plan *p, json_t *scaling, struct err *e)
{
    const struct model_config *f = &p->cfg;
    size_t n = f->d_rope / 2, ramp = 0;
    double freqs[2048], x[2] = {0}, y[2] = {0}, factor = 1, high = 4, ctx = 8192;
    if (n > NUM_COUNT(freqs))
        return err_set(e, ERR_LIMIT, "%zu rotated values in a head", 2 * n);
    int rc = model_rope_freqs(freqs, f, p->src, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        factor = fmax(factor, pow(f->rope_theta, -2.0 * (double)i / (double)f->d_rope) / freqs[i]);
    factor = round(factor * 1000) / 1000;
    for (size_t i = 0; i < n; i++) {
        double plain = pow(f->rope_theta, -2.0 * (double)i / (double)f->d_rope);
        double t = (freqs[i] / plain - 1 / factor) / (1 - 1 / factor); /* place in the ramp */
        if (t > 1e-4 && t < 1 - 1e-4) {
            x[ramp > 0] = plain / (2 * M_PI);
            y[ramp > 0] = t;
            ramp++;
        }
    }
    if (ramp >= 2) { /* t = x ctx / (high - low) - low / (high - low) */
        double slope = (y[1] - y[0]) / (x[1] - x[0]), span = -1 / (y[0] - slope * x[0]);
        high = round((1 + span) * 100) / 100;
        ctx = round(slope * span);
    }
    if (ramp == 1) /* with the usual high factor of 4 */
        ctx = round((3 * y[0] + 1) / x[0]);
    if (!llama3_is(p, factor, 1, high, ctx, freqs))
        return err_set(
            e, ERR_UNSUPPORTED,
            "rope_freqs.weight: these factors are no scaling that config.json has a name "
            "for");
    bool bad = json_object_set_new(scaling, "factor", json_real(factor)) ||
               json_object_set_new(scaling, "low_freq_factor", json_real(1)) ||
               json_object_set_new(scaling, "high_freq_factor", json_real(high)) ||
               json_object_set_new(scaling, "original_max_position_embeddings",
                                   json_integer((json_int_t)ctx));
    return bad ? err_nomem(e, 0, "config.json") : 0;
}

static bool yarn_bad(const struct model_config *f, json_t *s)
{
    double own = f->rope_factor > 1 ? 0.1 * log(f->rope_factor) + 1 : 1;
    bool bad = json_object_set_new(s, "original_max_position_embeddings",
                                   json_integer((json_int_t)f->rope_ctx)) ||
               json_object_set_new(s, "beta_fast", number(f->rope_beta_fast, true)) ||
               json_object_set_new(s, "beta_slow", number(f->rope_beta_slow, true));
    if (f->arch->mla) {
        /* The correction on cos and sin is the quotient of 1 + 0.1 m ln(factor) for the two m. */
        double all = 10 * f->rope_log_mul, step = 0.1 * log(f->rope_factor);
        double m = step > 0 ? (f->rope_attn_factor * (step * all + 1) - 1) / step : all;
        return bad || json_object_set_new(s, "mscale", derived(m)) ||
               json_object_set_new(s, "mscale_all_dim", derived(all));
    }
    if (fabs(f->rope_attn_factor / own - 1) > 1e-6)
        bad |= json_object_set_new(s, "attention_factor", derived(f->rope_attn_factor)) != 0;
    return bad;
}

static int rope_scaling(const struct convert_plan *p, json_t *o, struct err *e)
{
    const struct model_config *f = &p->cfg;
    bool factors = source_tensor(p->src, "rope_freqs.weight") != NULL;
    if (f->rope_scaling == ROPE_NONE && !factors)
        return json_object_set_new(o, "rope_scaling", json_null()) ? err_nomem(e, 0, "config.json")
                                                                   : 0;
    const char *name = model_rope_scaling_name(factors ? ROPE_LLAMA3 : f->rope_scaling);
    json_t *s = json_pack("{ss ss}", "type", name, "rope_type", name);
    int rc = s ? 0 : err_nomem(e, 0, "config.json");
    if (!rc && factors)
        rc = rope_llama3(p, s, e);
    else if (!rc && (json_object_set_new(s, "factor", number(f->rope_factor, true)) ||
                     (f->rope_scaling == ROPE_YARN && yarn_bad(f, s))))
        rc = err_nomem(e, 0, "config.json");
    if (!rc && json_object_set(o, "rope_scaling", s))
        rc = err_nomem(e, 0, "config.json");
    json_decref(s);
    return rc;
}

/* ---- the rest ---------------------------------------------------------------------------------
 */

/* Numbers by their keys; those of the rotation have an object of their own. */
static bool numbers_bad(const struct model_config *f, json_t *o)
{
    struct model_key keys[MODEL_KEYS];
    size_t n = model_config_keys(f, keys);
    bool bad = false;
    for (size_t i = 0; i < n; i++) {
        const struct model_key *k = &keys[i];
        if (!k->hf || strncmp(k->hf, "rope_scaling.", 13) == 0 ||
            (f->arch->mla && strcmp(k->hf, "head_dim") == 0))
            continue;
        bool none = strcmp(k->hf, "q_lora_rank") == 0 && k->value == 0;
        bad |= json_object_set_new(o, k->hf, none ? json_null() : number(k->value, k->real)) != 0;
    }
    return bad;
}

static bool experts_bad(const struct model_config *f, json_t *o)
{
    const char *method = f->router_bias   ? "noaux_tc"
                         : f->n_group > 1 ? "group_limited_greedy"
                                          : "greedy";
    return json_object_set_new(o, "scoring_func",
                               json_string(f->router_sigmoid ? "sigmoid" : "softmax")) ||
           json_object_set_new(o, "topk_method", json_string(method)) ||
           json_object_set_new(o, "norm_topk_prob", json_boolean(f->expert_norm)) ||
           json_object_set_new(o, "moe_layer_freq", json_integer(1));
}

/* Ids of tokens that both config.json and generation_config.json name. */
static bool roles_bad(const struct source *src, json_t *o)
{
    static const struct {
        const char *gguf, *hf;
    } rows[] = {{"tokenizer.ggml.bos_token_id", "bos_token_id"},
                {"tokenizer.ggml.eos_token_id", "eos_token_id"}};
    bool bad = false;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        const struct source_value *v = source_value(src, rows[i].gguf);
        if (v && v->type == SOURCE_UINT && v->u < INT32_MAX)
            bad |= json_object_set_new(o, rows[i].hf, json_integer((json_int_t)v->u)) != 0;
    }
    return bad;
}

int hf_config(struct convert_plan *p, const char *dir, struct err *e)
{
    const struct model_config *f = &p->cfg;
    char class[80];
    class_name(class, sizeof class, model_type(f));
    bool bias = source_tensor(p->src, "blk.0.attn_q.bias") != NULL;
    json_t *o = json_pack("{s[s] ss ss ss sI sb sf sb sb}", "architectures", class, "model_type",
                          model_type(f), "torch_dtype", hf_dtype(p), "hidden_act", "silu",
                          "vocab_size", (json_int_t)f->n_vocab, "tie_word_embeddings", f->tied,
                          "initializer_range", 0.02, "use_cache", true, "attention_bias", bias);
    bool bad = !o || numbers_bad(f, o) || (f->arch->moe && experts_bad(f, o)) ||
               roles_bad(p->src, o) || !hf_quantization(p, o) || !hf_classifier(p, o);
    int rc = bad ? err_nomem(e, 0, "config.json") : rope_scaling(p, o, e);
    if (!rc)
        rc = hf_write_json(dir, "config.json", o, e);
    json_decref(o);
    return rc;
}
