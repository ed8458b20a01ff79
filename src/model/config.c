/*
 * Hyperparameters: one table row per number, with its key in GGUF ("llama.block_count") and in
 * config.json ("num_hidden_layers"), its range and its default. What is read from a file is checked
 * here, before anything is sized by it.
 */
#include "model/arch.h"

#include "base/num.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define ARCH(id) extern const struct model_arch id;
#include "model/arch.def"
#undef ARCH

static const struct model_arch *const arch_rows[] = {
#define ARCH(id) &id,
#include "model/arch.def"
#undef ARCH
};

const char *model_arch_name(const struct model_arch *a)
{
    return a->name;
}

/* ---- reading values ----------------------------------------------------------------------------
 */

/* A key is "ARCH." + suffix in GGUF files; keys with a dot in front are used without the prefix. */
static const struct source_value *config_value(const struct source *src, const char *arch,
                                               const char *gguf, const char *hf, const char **key)
{
    static const char *const none = "";
    *key = none;
    if (source_kind(src) != SOURCE_GGUF) {
        *key = hf ? hf : none;
        return hf ? source_value(src, hf) : NULL;
    }
    if (!gguf)
        return NULL;
    char name[160];
    snprintf(name, sizeof name, "%s.%s", arch, gguf);
    *key = gguf;
    return source_value(src, name);
}

struct config_row {
    size_t offset; /* of a size_t or a double in struct model_config */
    bool real;     /* double, else size_t */
    const char *gguf, *hf;
    double min, max;
    double fallback; /* NAN: the value is required */
};

#define SIZE(f) offsetof(struct model_config, f), false
#define REAL(f) offsetof(struct model_config, f), true

/* Bounds are far beyond any model and far below what could overflow. A fallback of 0 means: derived
   afterwards. */
// clang-format off
static const struct config_row config_rows[] = {
    {SIZE(n_layer),   "block_count",             "num_hidden_layers",       1, 4096, NAN},
    {SIZE(d_model),   "embedding_length",        "hidden_size",             1, 1 << 20, NAN},
    {SIZE(n_head),    "attention.head_count",    "num_attention_heads",     1, 4096, NAN},
    {SIZE(n_kv_head), "attention.head_count_kv", "num_key_value_heads",     1, 4096, 0},
    {SIZE(d_head),    "attention.key_length",    "head_dim",                1, 4096, 0},
    {SIZE(d_ff),      "feed_forward_length",     "intermediate_size",       1, 1 << 24, NAN},
    {SIZE(ctx_train), "context_length",          "max_position_embeddings", 1, 1 << 28, 2048},
    {SIZE(d_rope),    "rope.dimension_count",    NULL,                      2, 4096, 0},
    {REAL(rms_eps),   "attention.layer_norm_rms_epsilon", "rms_norm_eps",   0, 1, 1e-6},
    {REAL(rope_theta), "rope.freq_base",         "rope_theta",              1, 1e12, 10000},
};

static const struct config_row config_rope_rows[] = {
    {REAL(rope_factor), "rope.scaling.factor",                  "rope_scaling.factor",               1e-3, 1e6, 0},
    {REAL(rope_ctx),    "rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings", 1, 1 << 28, 0},
    {REAL(rope_low),    NULL,                                   "rope_scaling.low_freq_factor",      1e-3, 1e6, 1},
    {REAL(rope_high),   NULL,                                   "rope_scaling.high_freq_factor",     1e-3, 1e6, 4},
    {REAL(rope_beta_fast), "rope.scaling.yarn_beta_fast",       "rope_scaling.beta_fast",            1e-3, 1e6, 32},
    {REAL(rope_beta_slow), "rope.scaling.yarn_beta_slow",       "rope_scaling.beta_slow",            1e-3, 1e6, 1},
    {REAL(rope_attn_factor), "rope.scaling.attn_factor",        "rope_scaling.attention_factor",     1e-3, 1e3, 0},
};
// clang-format on

/* The value as a double; integers must be integers, and nothing else passes. */
static int config_number(const struct source_value *v, const char *key, bool real, double *out,
                         struct err *e)
{
    switch (v->type) {
    case SOURCE_INT:
        *out = (double)v->i;
        return 0;
    case SOURCE_UINT:
        *out = (double)v->u;
        return 0;
    case SOURCE_FLOAT:
        if (!real)
            return err_set(e, ERR_FORMAT, "%s is %g, must be a whole number", key, v->f);
        *out = v->f;
        return 0;
    default:
        return err_set(e, ERR_FORMAT, "%s is not a number", key);
    }
}

static int config_read_rows(struct model_config *cfg, const struct source *src, const char *arch,
                            const struct config_row *rows, size_t n, struct err *e)
{
    for (size_t i = 0; i < n; i++) {
        const struct config_row *r = &rows[i];
        const char *key;
        double d = r->fallback;
        const struct source_value *v = config_value(src, arch, r->gguf, r->hf, &key);
        /* Newer config.json files keep the rotation's numbers in "rope_parameters". */
        if (!v && source_kind(src) == SOURCE_HF && r->hf && !strncmp(r->hf, "rope_", 5)) {
            char name[120];
            const char *dot = strchr(r->hf, '.');
            snprintf(name, sizeof name, "rope_parameters.%s", dot ? dot + 1 : r->hf);
            v = source_value(src, name);
        }
        if (v && !(v->type == SOURCE_NULL && !isnan(r->fallback))) {
            int rc = config_number(v, key, r->real, &d, e);
            if (rc)
                return rc;
            if (!(d >= r->min && d <= r->max))
                return err_set(e, ERR_FORMAT, "%s is %g, must be between %g and %g", key, d, r->min,
                               r->max);
        } else if (isnan(d)) {
            return err_set(e, ERR_FORMAT, "%s%s%s is missing",
                           source_kind(src) == SOURCE_GGUF ? arch : "config.json: ",
                           source_kind(src) == SOURCE_GGUF ? "." : "",
                           source_kind(src) == SOURCE_GGUF ? r->gguf : r->hf);
        }
        if (r->real)
            *(double *)(void *)((char *)cfg + r->offset) = d;
        else
            *(size_t *)(void *)((char *)cfg + r->offset) = (size_t)d;
    }
    return 0;
}

static bool config_text_is(const struct source_value *v, const char *s)
{
    return v && v->type == SOURCE_STRING && v->s.n == strlen(s) && !memcmp(v->s.p, s, v->s.n);
}

const struct model_arch *model_arch_find(const struct source *src, struct err *e)
{
    bool gguf = source_kind(src) == SOURCE_GGUF;
    const char *key = gguf ? "general.architecture" : "model_type";
    const struct source_value *v = source_value(src, key);
    if (source_kind(src) == SOURCE_TOKENIZER) {
        err_set(e, ERR_FORMAT, "only a tokenizer, no weights");
        return NULL;
    }
    if (!v) {
        err_set(e, ERR_FORMAT, "%s is missing", key);
        return NULL;
    }
    if (v->type != SOURCE_STRING) {
        err_set(e, ERR_FORMAT, "%s is not a text", key);
        return NULL;
    }
    for (size_t i = 0; i < NUM_COUNT(arch_rows); i++)
        if (config_text_is(v, gguf ? arch_rows[i]->name : arch_rows[i]->hf))
            return arch_rows[i];
    char known[160] = "";
    for (size_t i = 0, at = 0; i < NUM_COUNT(arch_rows); i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                               arch_rows[i]->name);
    err_set(e, ERR_UNSUPPORTED, "unknown architecture \"%.*s\" (known: %s)",
            (int)num_min(v->s.n, 60), v->s.p, known);
    return NULL;
}

/* ---- rope scaling
 * -------------------------------------------------------------------------------- */

static int config_rope(struct model_config *cfg, const struct source *src, const char *arch,
                       struct err *e)
{
    static const struct {
        const char *name;
        enum model_rope_scaling id;
    } kinds[] = {{"none", ROPE_NONE},
                 {"default", ROPE_NONE},
                 {"linear", ROPE_LINEAR},
                 {"llama3", ROPE_LLAMA3},
                 {"yarn", ROPE_YARN}};
    const char *key;
    int rc = config_read_rows(cfg, src, arch, config_rope_rows, NUM_COUNT(config_rope_rows), e);
    if (rc)
        return rc;
    const struct source_value *v =
        config_value(src, arch, "rope.scaling.type", "rope_scaling.rope_type", &key);
    if (!v && source_kind(src) == SOURCE_HF)
        v = source_value(src, "rope_scaling.type");
    if (!v && source_kind(src) == SOURCE_HF)
        v = source_value(src, "rope_parameters.rope_type");
    cfg->rope_scaling = ROPE_NONE;
    if (v) {
        size_t i = 0;
        while (i < NUM_COUNT(kinds) && !config_text_is(v, kinds[i].name))
            i++;
        if (i == NUM_COUNT(kinds))
            return err_set(e, ERR_UNSUPPORTED,
                           "rope scaling of an unknown kind (known: linear, llama3, yarn)");
        cfg->rope_scaling = kinds[i].id;
    }
    if (cfg->rope_scaling != ROPE_NONE && cfg->rope_factor == 0)
        return err_set(e, ERR_FORMAT, "the rope scaling has no factor");
    if (cfg->rope_ctx == 0)
        cfg->rope_ctx = (double)cfg->ctx_train;
    if (cfg->rope_scaling == ROPE_LLAMA3 && cfg->rope_high <= cfg->rope_low)
        return err_set(e, ERR_FORMAT,
                       "rope_scaling: high_freq_factor %g must be above low_freq_factor %g",
                       cfg->rope_high, cfg->rope_low);
    if (cfg->rope_scaling == ROPE_YARN) {
        /* GGUF's factor multiplies YaRN's own correction; config.json's replaces it. */
        double own = cfg->rope_factor > 1 ? 0.1 * log(cfg->rope_factor) + 1 : 1;
        if (cfg->rope_attn_factor == 0)
            cfg->rope_attn_factor = own;
        else if (source_kind(src) == SOURCE_GGUF)
            cfg->rope_attn_factor *= own;
    } else {
        cfg->rope_attn_factor = 1;
    }
    return 0;
}

/* ---- all
 * ------------------------------------------------------------------------------------------- */

/* Switches of config.json that change the arithmetic in a way that is not built. */
static int config_refuse(const struct source *src, struct err *e)
{
    if (source_kind(src) != SOURCE_HF)
        return 0;
    const struct source_value *v = source_value(src, "hidden_act");
    if (v && !config_text_is(v, "silu") && !config_text_is(v, "swish"))
        return err_set(e, ERR_UNSUPPORTED, "config.json: hidden_act must be \"silu\"");
    v = source_value(src, "rope_scaling");
    if (v && v->type != SOURCE_NULL)
        return err_set(e, ERR_FORMAT, "config.json: rope_scaling is not an object");
    int rc = source_quant_check(src, e);
    if (rc)
        return rc;
    v = source_value(src, "use_sliding_window");
    if (v && v->type == SOURCE_BOOL && v->b)
        return err_set(e, ERR_UNSUPPORTED, "config.json: use_sliding_window is not supported");
    return 0;
}

/* The embedding says how many tokens there are; vocab_size of a config must agree with it. */
static int config_vocab(struct model_config *cfg, const struct source *src, struct err *e)
{
    const struct model_tensor *row = &model_top_tensors[0];
    const char *name = source_kind(src) == SOURCE_GGUF ? row->gguf : row->hf;
    const struct source_tensor *t = source_tensor(src, name);
    if (!t)
        return err_set(e, ERR_FORMAT, "tensor \"%s\" is missing", name);
    if (t->dims != 2 || t->shape[0] == 0 || t->shape[0] > INT32_MAX)
        return err_set(e, ERR_FORMAT, "tensor \"%s\": want a matrix of tokens × embedding", name);
    cfg->n_vocab = (size_t)t->shape[0];
    const struct source_value *v =
        source_kind(src) == SOURCE_HF ? source_value(src, "vocab_size") : NULL;
    double want = 0;
    if (v && config_number(v, "vocab_size", false, &want, e))
        return e->code;
    if (v && want != (double)cfg->n_vocab)
        return err_set(e, ERR_FORMAT, "vocab_size is %g but tensor \"%s\" has %zu rows", want, name,
                       cfg->n_vocab);
    return 0;
}

int model_config_read(struct model_config *cfg, const struct source *src, struct err *e)
{
    memset(cfg, 0, sizeof *cfg);
    cfg->arch = model_arch_find(src, e);
    if (!cfg->arch)
        return e ? e->code : ERR_FORMAT;
    const char *arch = cfg->arch->name;
    int rc = config_read_rows(cfg, src, arch, config_rows, NUM_COUNT(config_rows), e);
    if (!rc)
        rc = config_refuse(src, e);
    if (!rc)
        rc = config_rope(cfg, src, arch, e);
    if (!rc)
        rc = config_vocab(cfg, src, e);
    if (rc)
        return rc;
    if (cfg->n_kv_head == 0)
        cfg->n_kv_head = cfg->n_head;
    if (cfg->d_head == 0) {
        if (cfg->d_model % cfg->n_head)
            return err_set(e, ERR_FORMAT, "embedding length %zu is not divisible by %zu heads",
                           cfg->d_model, cfg->n_head);
        cfg->d_head = cfg->d_model / cfg->n_head;
    }
    if (cfg->n_head % cfg->n_kv_head)
        return err_set(e, ERR_FORMAT, "%zu heads are not divisible by %zu KV heads", cfg->n_head,
                       cfg->n_kv_head);
    if (cfg->d_rope == 0)
        cfg->d_rope = cfg->d_head;
    if (cfg->d_rope > cfg->d_head || cfg->d_rope % 2)
        return err_set(e, ERR_FORMAT,
                       "%zu rotated values do not fit a head of %zu: must be even and not larger",
                       cfg->d_rope, cfg->d_head);
    if (!(cfg->rms_eps > 0))
        return err_set(e, ERR_FORMAT, "the epsilon of the norms is 0, must be positive");
    cfg->rope_half = source_kind(src) == SOURCE_HF || cfg->arch->gguf_rope_half;
    cfg->attn_scale = 1 / sqrtf((float)cfg->d_head);
    return 0;
}
