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
    {SIZE(d_head),    "attention.key_length",    "head_dim",                1, 16384, 0},
    {SIZE(d_ff),      "feed_forward_length",     "intermediate_size",       1, 1 << 24, NAN},
    {SIZE(ctx_train), "context_length",          "max_position_embeddings", 1, 1 << 28, 2048},
    {SIZE(d_rope),    "rope.dimension_count",    NULL,                      2, 4096, 0},
    {REAL(rms_eps),   "attention.layer_norm_rms_epsilon", "rms_norm_eps",   0, 1, 1e-6},
    {REAL(rope_theta), "rope.freq_base",         "rope_theta",              1, 1e12, 10000},
};

/* Models with latent attention: these replace what was read for d_head and d_rope. */
static const struct config_row config_mla_rows[] = {
    {SIZE(q_lora),    "attention.q_lora_rank",   "q_lora_rank",             0, 1 << 20, 0},
    {SIZE(kv_lora),   "attention.kv_lora_rank",  "kv_lora_rank",            1, 8192, NAN},
    {SIZE(d_nope),    NULL,                      "qk_nope_head_dim",        1, 4096, 0},
    {SIZE(d_rope),    "rope.dimension_count",    "qk_rope_head_dim",        2, 4096, NAN},
    {SIZE(d_v),       "attention.value_length_mla", "v_head_dim",           1, 4096, 0},
};

/* Models with experts. */
static const struct config_row config_moe_rows[] = {
    {SIZE(n_dense),      "leading_dense_block_count",  "first_k_dense_replace",    0, 4096, 0},
    {SIZE(n_expert),     "expert_count",               "n_routed_experts",         1, 65536, NAN},
    {SIZE(n_expert_used), "expert_used_count",         "num_experts_per_tok",      1, 256, NAN},
    {SIZE(n_shared),     "expert_shared_count",        "n_shared_experts",         0, 4096, 0},
    {SIZE(d_ff_expert),  "expert_feed_forward_length", "moe_intermediate_size",    1, 1 << 24, NAN},
    {SIZE(n_group),      "expert_group_count",         "n_group",                  0, 65536, 1},
    {SIZE(n_group_used), "expert_group_used_count",    "topk_group",               0, 65536, 1},
    {REAL(expert_scale), "expert_weights_scale",       "routed_scaling_factor",    0, 1e6, 1},
    {SIZE(n_mtp),        "nextn_predict_layers",       "num_nextn_predict_layers", 0, 64, 0},
};

static const struct config_row config_rope_rows[] = {
    {REAL(rope_factor), "rope.scaling.factor",                  "rope_scaling.factor",               1e-3, 1e6, 0},
    {REAL(rope_ctx),    "rope.scaling.original_context_length", "rope_scaling.original_max_position_embeddings", 1, 1 << 28, 0},
    {REAL(rope_low),    NULL,                                   "rope_scaling.low_freq_factor",      1e-3, 1e6, 1},
    {REAL(rope_high),   NULL,                                   "rope_scaling.high_freq_factor",     1e-3, 1e6, 4},
    {REAL(rope_beta_fast), "rope.scaling.yarn_beta_fast",       "rope_scaling.beta_fast",            1e-3, 1e6, 32},
    {REAL(rope_beta_slow), "rope.scaling.yarn_beta_slow",       "rope_scaling.beta_slow",            1e-3, 1e6, 1},
    {REAL(rope_attn_factor), "rope.scaling.attn_factor",        "rope_scaling.attention_factor",     1e-3, 1e3, 0},
    {REAL(rope_mscale), NULL,                                   "rope_scaling.mscale",               0, 1e3, 0},
    {REAL(rope_mscale_all), NULL,                               "rope_scaling.mscale_all_dim",       0, 1e3, 0},
    {REAL(rope_log_mul), "rope.scaling.yarn_log_multiplier",    NULL,                                0, 1e2, 0},
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
    for (size_t i = 0; i < NUM_COUNT(arch_rows); i++) {
        const struct model_arch *a = arch_rows[i];
        if (gguf && config_text_is(v, a->name))
            return a;
        for (size_t k = 0; !gguf && k < NUM_COUNT(a->hf) && a->hf[k]; k++)
            if (config_text_is(v, a->hf[k]))
                return a;
    }
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

/* YaRN's magnitude: 1 + 0.1 m ln(factor). */
static double config_mscale(const struct model_config *cfg, double m)
{
    return cfg->rope_factor > 1 ? 0.1 * m * log(cfg->rope_factor) + 1 : 1;
}

/*
 * The correction on cos and sin. config.json gives it, or two magnitudes whose quotient it is, or
 * leaves it to YaRN's own. GGUF's factor multiplies YaRN's own, except for latent attention, where
 * files keep the correction out of the rotation altogether.
 */
static void config_yarn(struct model_config *cfg, bool gguf)
{
    double given = cfg->rope_attn_factor, own = config_mscale(cfg, 1);
    if (gguf)
        cfg->rope_attn_factor = (given ? given : 1) * (cfg->arch->mla ? 1 : own);
    else if (!given)
        cfg->rope_attn_factor =
            cfg->rope_mscale != 0 && cfg->rope_mscale_all != 0
                ? config_mscale(cfg, cfg->rope_mscale) / config_mscale(cfg, cfg->rope_mscale_all)
                : own;
}

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
    if (cfg->rope_scaling == ROPE_YARN)
        config_yarn(cfg, source_kind(src) == SOURCE_GGUF);
    else
        cfg->rope_attn_factor = 1;
    return 0;
}

/* ---- latent attention and experts
 * --------------------------------------------------------------- */

/* A switch that may be missing. */
static int config_bool(const struct source *src, const char *arch, const char *gguf, const char *hf,
                       bool *out, struct err *e)
{
    const char *key;
    const struct source_value *v = config_value(src, arch, gguf, hf, &key);
    if (!v || v->type == SOURCE_NULL)
        return 0;
    if (v->type != SOURCE_BOOL)
        return err_set(e, ERR_FORMAT, "%s is not true or false", key);
    *out = v->b;
    return 0;
}

static int config_mla(struct model_config *cfg, const struct source *src, const char *arch,
                      struct err *e)
{
    bool gguf = source_kind(src) == SOURCE_GGUF, pairs = true, bias = false;
    size_t legacy = cfg->d_head; /* key_length of files from before the latent layout */
    int rc = config_read_rows(cfg, src, arch, config_mla_rows, NUM_COUNT(config_mla_rows), e);
    if (!rc)
        rc = config_bool(src, arch, NULL, "rope_interleave", &pairs, e);
    if (!rc)
        rc = config_bool(src, arch, NULL, "attention_bias", &bias, e);
    if (rc)
        return rc;
    if (bias)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: attention_bias is not supported with latent attention");
    if (gguf) {
        static const struct config_row length[] = {
            {SIZE(d_head), "attention.key_length_mla", NULL, 1, 8192, 0}};
        static const struct config_row value[] = {
            {SIZE(d_v), "attention.value_length", NULL, 1, 4096, NAN}};
        rc = config_read_rows(cfg, src, arch, length, 1, e);
        if (!rc && cfg->d_head == 0)
            cfg->d_head = legacy;
        if (!rc && cfg->d_v == 0)
            rc = config_read_rows(cfg, src, arch, value, 1, e);
        if (rc)
            return rc;
        if (cfg->d_head <= cfg->d_rope)
            return err_set(e, ERR_FORMAT,
                           "attention.key_length of %zu has no room for %zu rotated values",
                           cfg->d_head, cfg->d_rope);
        cfg->d_nope = cfg->d_head - cfg->d_rope;
    } else if (cfg->d_nope == 0 || cfg->d_v == 0) {
        return err_set(e, ERR_FORMAT, "config.json: %s is missing",
                       cfg->d_nope ? "v_head_dim" : "qk_nope_head_dim");
    }
    cfg->d_head = cfg->d_nope + cfg->d_rope;
    cfg->n_kv_head = cfg->n_head; /* before compression every head has a key of its own */
    cfg->rope_half = !pairs;
    return 0;
}

/* How the router scores and chooses. */
static int config_router(struct model_config *cfg, const struct source *src, const char *arch,
                         struct err *e)
{
    bool gguf = source_kind(src) == SOURCE_GGUF;
    const char *key;
    const struct source_value *v =
        config_value(src, arch, "expert_gating_func", "scoring_func", &key);
    if (!v)
        cfg->router_sigmoid =
            !gguf && config_text_is(source_value(src, "model_type"), "deepseek_v3");
    else if (gguf ? v->type == SOURCE_UINT && (v->u == 1 || v->u == 2)
                  : config_text_is(v, "softmax") || config_text_is(v, "sigmoid"))
        cfg->router_sigmoid = gguf ? v->u == 2 : config_text_is(v, "sigmoid");
    else
        return err_set(e, ERR_UNSUPPORTED, "%s: scores must be softmax or sigmoid", key);
    v = gguf ? NULL : source_value(src, "topk_method");
    if (v && v->type != SOURCE_NULL && !config_text_is(v, "greedy") &&
        !config_text_is(v, "group_limited_greedy") && !config_text_is(v, "noaux_tc"))
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: topk_method must be greedy, group_limited_greedy or noaux_tc");
    if (v && config_text_is(v, "greedy"))
        cfg->n_group = cfg->n_group_used = 1;
    if (v && config_text_is(v, "noaux_tc") && !cfg->router_sigmoid)
        return err_set(e, ERR_UNSUPPORTED,
                       "config.json: topk_method noaux_tc needs scoring_func sigmoid");
    char name[80];
    snprintf(name, sizeof name,
             gguf ? "blk.%zu.exp_probs_b.bias"
                  : "model.layers.%zu.mlp.gate.e_score_correction_bias",
             cfg->n_dense);
    bool no_tensors = !source_tensor_count(src) && !v && cfg->router_sigmoid;
    cfg->router_bias =
        (v && config_text_is(v, "noaux_tc")) || source_tensor(src, name) != NULL || no_tensors;
    return 0;
}

/* Where the prediction layers are, and whether there is one that can be used. */
static int config_mtp(struct model_config *cfg, const struct source *src, struct err *e)
{
    bool gguf = source_kind(src) == SOURCE_GGUF;
    /* GGUF counts the prediction layers among the blocks. */
    if (gguf && cfg->n_mtp >= cfg->n_layer)
        return err_set(e, ERR_FORMAT, "%zu prediction layers among %zu blocks", cfg->n_mtp,
                       cfg->n_layer);
    if (gguf)
        cfg->n_layer -= cfg->n_mtp;
    /* Files that dropped the prediction layer often keep its count. One layer is used at most. */
    char name[80];
    snprintf(name, sizeof name,
             gguf ? "blk.%zu.nextn.eh_proj.weight" : "model.layers.%zu.eh_proj.weight",
             cfg->n_layer);
    bool there = !source_tensor_count(src) || source_tensor(src, name);
    cfg->n_mtp = cfg->arch->mtp && cfg->n_mtp && there ? 1 : 0;
    return 0;
}

static int config_moe(struct model_config *cfg, const struct source *src, const char *arch,
                      struct err *e)
{
    /* Small models with latent attention have no experts, and GGUF files of them this architecture:
       then every layer is dense. */
    static const struct config_row count[] = {
        {SIZE(n_expert), "expert_count", "n_routed_experts", 0, 65536, 0}};
    int rc = config_read_rows(cfg, src, arch, count, 1, e);
    if (rc || !cfg->n_expert)
        return rc;
    rc = config_read_rows(cfg, src, arch, config_moe_rows, NUM_COUNT(config_moe_rows), e);
    if (!rc)
        rc = config_bool(src, arch, "expert_weights_norm", "norm_topk_prob", &cfg->expert_norm, e);
    if (!rc)
        rc = config_router(cfg, src, arch, e);
    if (rc)
        return rc;
    const struct source_value *v =
        source_kind(src) == SOURCE_HF ? source_value(src, "moe_layer_freq") : NULL;
    if (v && !(v->type == SOURCE_INT && v->i == 1))
        return err_set(e, ERR_UNSUPPORTED, "config.json: moe_layer_freq must be 1");
    cfg->n_group = num_max(cfg->n_group, 1);
    cfg->n_group_used = num_max(cfg->n_group_used, 1);
    if (cfg->expert_scale == 0)
        cfg->expert_scale = 1;
    struct router_args router = {.n_expert = cfg->n_expert,
                                 .n_used = cfg->n_expert_used,
                                 .n_group = cfg->n_group,
                                 .n_group_used = cfg->n_group_used,
                                 .scale = (float)cfg->expert_scale};
    if ((rc = router_check(&router, e)) || (rc = config_mtp(cfg, src, e)))
        return rc;
    if (cfg->n_dense > cfg->n_layer)
        return err_set(e, ERR_FORMAT, "%zu dense layers among %zu", cfg->n_dense, cfg->n_layer);
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
    const struct model_tensor *row = &model_top_group.row[MODEL_TOP_EMBED];
    const char *name = source_kind(src) == SOURCE_GGUF ? row->gguf : row->hf;
    const struct source_tensor *t = source_tensor(src, name);
    if (!t && !source_tensor_count(src)) { /* a config alone (source_open_config) */
        static const struct config_row vocab[] = {
            {SIZE(n_vocab), NULL, "vocab_size", 1, INT32_MAX, NAN}};
        return config_read_rows(cfg, src, "", vocab, 1, e);
    }
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

/* What follows from the numbers that were read. */
static int config_derive(struct model_config *cfg, const struct source *src, struct err *e)
{
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
    if (cfg->d_v == 0)
        cfg->d_v = cfg->d_head;
    if (!(cfg->rms_eps > 0))
        return err_set(e, ERR_FORMAT, "the epsilon of the norms is 0, must be positive");
    cfg->attn_scale = 1 / sqrtf((float)cfg->d_head);
    if (cfg->arch->mla && cfg->rope_scaling == ROPE_YARN) {
        double m = source_kind(src) == SOURCE_GGUF
                       ? 1 + cfg->rope_log_mul * log(fmax(cfg->rope_factor, 1))
                       : config_mscale(cfg, cfg->rope_mscale_all);
        cfg->attn_scale = (float)(m * m / sqrt((double)cfg->d_head));
    }
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
    cfg->rope_half =
        source_kind(src) == SOURCE_HF ? !cfg->arch->hf_rope_pairs : cfg->arch->gguf_rope_half;
    cfg->n_dense = cfg->n_layer;
    cfg->n_group = cfg->n_group_used = 1;
    if (!rc)
        rc = config_refuse(src, e);
    if (!rc && cfg->arch->mla)
        rc = config_mla(cfg, src, arch, e);
    if (!rc && cfg->arch->moe)
        rc = config_moe(cfg, src, arch, e);
    if (!rc)
        rc = config_rope(cfg, src, arch, e);
    if (!rc)
        rc = config_vocab(cfg, src, e);
    return rc ? rc : config_derive(cfg, src, e);
}

/* ---- the other way -----------------------------------------------------------------------------
 */

static size_t config_keys_of(const struct model_config *cfg, const struct config_row *rows,
                             size_t count, struct model_key *out, size_t n)
{
    for (size_t i = 0; i < count; i++) {
        const struct config_row *r = &rows[i];
        const void *at = (const char *)cfg + r->offset;
        size_t k = 0;
        while (k < n && !(r->gguf && out[k].gguf && !strcmp(r->gguf, out[k].gguf)))
            k++;
        if (k == MODEL_KEYS)
            break;
        out[k] = (struct model_key){.gguf = r->gguf,
                                    .hf = r->hf,
                                    .real = r->real,
                                    .value = r->real ? *(const double *)at
                                                     : (double)*(const size_t *)at};
        n = k == n ? n + 1 : n;
    }
    return n;
}

size_t model_config_keys(const struct model_config *cfg, struct model_key out[MODEL_KEYS])
{
    size_t n = config_keys_of(cfg, config_rows, NUM_COUNT(config_rows), out, 0);
    if (cfg->arch->mla) /* a key that is there already gets this row's meaning */
        n = config_keys_of(cfg, config_mla_rows, NUM_COUNT(config_mla_rows), out, n);
    if (cfg->arch->moe)
        n = config_keys_of(cfg, config_moe_rows, NUM_COUNT(config_moe_rows), out, n);
    if (cfg->rope_scaling != ROPE_NONE)
        n = config_keys_of(cfg, config_rope_rows, NUM_COUNT(config_rope_rows), out, n);
    return n;
}

const char *model_rope_scaling_name(enum model_rope_scaling s)
{
    static const char *const names[] = {[ROPE_NONE] = "none",
                                        [ROPE_LINEAR] = "linear",
                                        [ROPE_LLAMA3] = "llama3",
                                        [ROPE_YARN] = "yarn"};
    return names[s];
}
