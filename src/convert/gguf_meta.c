/*
 * Metadata of a GGUF file. From a GGUF source every key is copied byte for byte, but for those that
 * speak of the types, of the split, and of the importance that was used. From Hugging Face files
 * the numbers of the configuration get their GGUF keys (model_config_keys); what the two kinds
 * express differently is done here, as llama.cpp's converter does it.
 */
#include "base/num.h"
#include "convert/imatrix.h"
#include "convert/write.h"
#include "format/gguf.h"
#include "format/packed.h"
#include "kernels/panel.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { QUANTIZATION_VERSION = 2, FTYPE_GUESSED = 1024 };

static int put_text(struct gguf_writer *w, const char *key, const char *s, struct err *e)
{
    return gguf_put_string(w, key, s, strlen(s), e);
}

/* Keys that are written anew. */
static bool own_key(const struct convert_plan *p, const char *key)
{
    static const char *const keys[] = {
        "general.file_type", "general.quantization_version", "split.no",
        "split.count",       "split.tensors.count",          PACKED_KEY};
    for (size_t i = 0; i < NUM_COUNT(keys); i++)
        if (strcmp(key, keys[i]) == 0)
            return true;
    if ((p->o.packed || source_value(p->src, PACKED_KEY)) && strcmp(key, "general.alignment") == 0)
        return true;
    return (p->imatrix && strncmp(key, "quantize.imatrix.", 17) == 0) ||
           (p->o.name && strcmp(key, "general.name") == 0);
}

static int copy_keys(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; !rc && i < source_value_count(p->src); i++) {
        const char *key = source_value_at(p->src, i, NULL);
        if (!own_key(p, key))
            rc = gguf_copy(w, p->src, key, e);
    }
    return rc;
}

/* The number for the type that most of the weights have, where no mix says it. */
static uint32_t guess_ftype(const struct convert_plan *p)
{
    uint64_t bytes[QUANT_ID_MAX] = {0};
    unsigned best = 0;
    size_t n;
    const struct mix *m = mix_all(&n);
    for (size_t i = 0; i < p->n; i++) {
        unsigned id = p->tensors[i].type->id;
        bytes[id] += p->tensors[i].bytes;
        if (p->tensors[i].dims > 1 && bytes[id] > bytes[best])
            best = id;
    }
    for (size_t i = 0; i < n; i++)
        if (m[i].type == best)
            return m[i].ftype;
    return FTYPE_GUESSED;
}

static int put_imatrix(const struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    const char *slash = strrchr(p->o.imatrix, '/');
    int rc = put_text(w, "quantize.imatrix.file", slash ? slash + 1 : p->o.imatrix, e);
    if (!rc && *imatrix_dataset(p->imatrix))
        rc = put_text(w, "quantize.imatrix.dataset", imatrix_dataset(p->imatrix), e);
    if (!rc)
        rc = gguf_put_i32(w, "quantize.imatrix.entries_count", (int32_t)imatrix_count(p->imatrix),
                          e);
    if (!rc && imatrix_chunks(p->imatrix) >= 0 && imatrix_chunks(p->imatrix) <= INT32_MAX)
        rc = gguf_put_i32(w, "quantize.imatrix.chunks_count", (int32_t)imatrix_chunks(p->imatrix),
                          e);
    return rc;
}

/* ---- from a configuration ---------------------------------------------------------------------
 */

static int put_number(struct gguf_writer *w, const char *arch, const char *key, bool real,
                      double value, struct err *e)
{
    char name[160];
    snprintf(name, sizeof name, "%s.%s", arch, key);
    return real ? gguf_put_f32(w, name, (float)value, e)
                : gguf_put_u32(w, name, (uint32_t)value, e);
}

/* Keys that only say "there is none", or that are written in another way. */
static bool leaves_out(const struct model_config *f, const struct model_key *k)
{
    static const char *const when_set[] = {"attention.q_lora_rank", "nextn_predict_layers"};
    static const char *const groups[] = {"expert_group_count", "expert_group_used_count"};
    bool drop = false;
    for (size_t i = 0; i < NUM_COUNT(when_set); i++)
        drop |= k->value == 0 && strcmp(k->gguf, when_set[i]) == 0;
    for (size_t i = 0; i < NUM_COUNT(groups); i++)
        drop |= f->n_group == 1 && strcmp(k->gguf, groups[i]) == 0;
    return drop || strncmp(k->gguf, "rope.scaling.", 13) == 0;
}

/* What a latent attention's files say instead: one key head, as the cache has it. */
static double own_value(const struct model_config *f, const struct model_key *k)
{
    if (strcmp(k->gguf, "block_count") == 0)
        return (double)(f->n_layer + f->n_mtp);
    if (f->arch->mla && strcmp(k->gguf, "attention.head_count_kv") == 0)
        return 1;
    if (f->arch->mla && strcmp(k->gguf, "attention.key_length") == 0)
        return (double)(f->kv_lora + f->d_rope);
    return k->value;
}

static int put_rope(const struct model_config *f, struct gguf_writer *w, struct err *e)
{
    const char *arch = f->arch->name, *name = model_rope_scaling_name(f->rope_scaling);
    char key[160];
    if (f->rope_scaling == ROPE_NONE || f->rope_scaling == ROPE_LLAMA3)
        return 0; /* llama 3's is the tensor rope_freqs */
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    int rc = put_text(w, key, name, e);
    if (!rc)
        rc = put_number(w, arch, "rope.scaling.factor", true, f->rope_factor, e);
    if (rc || f->rope_scaling != ROPE_YARN)
        return rc;
    rc = put_number(w, arch, "rope.scaling.original_context_length", false, f->rope_ctx, e);
    if (!rc && f->rope_beta_fast != 32)
        rc = put_number(w, arch, "rope.scaling.yarn_beta_fast", true, f->rope_beta_fast, e);
    if (!rc && f->rope_beta_slow != 1)
        rc = put_number(w, arch, "rope.scaling.yarn_beta_slow", true, f->rope_beta_slow, e);
    if (!rc && f->arch->mla)
        rc = put_number(w, arch, "rope.scaling.yarn_log_multiplier", true, 0.1 * f->rope_mscale_all,
                        e);
    double own = f->arch->mla || f->rope_factor <= 1 ? 1 : 0.1 * log(f->rope_factor) + 1;
    if (!rc && fabs(f->rope_attn_factor / own - 1) > 1e-6)
        rc = put_number(w, arch, "rope.scaling.attn_factor", true, f->rope_attn_factor / own, e);
    return rc;
}

static int put_special(const struct model_config *f, struct gguf_writer *w, struct err *e)
{
    const char *arch = f->arch->name;
    char key[160];
    int rc = put_number(w, arch, "vocab_size", false, (double)f->n_vocab, e);
    if (!rc)
        rc = put_number(w, arch, "attention.value_length", false,
                        (double)(f->arch->mla ? f->kv_lora : f->d_v), e);
    if (!rc && f->arch->mla)
        rc = put_number(w, arch, "attention.key_length_mla", false, (double)f->d_head, e);
    if (!rc && f->arch->moe)
        rc = put_number(w, arch, "expert_gating_func", false, f->router_sigmoid ? 2 : 1, e);
    snprintf(key, sizeof key, "%s.expert_weights_norm", arch);
    if (!rc && f->arch->moe)
        rc = gguf_put_bool(w, key, f->expert_norm, e);
    return rc ? rc : put_rope(f, w, e);
}

/* The last part of a path. */
static int put_name(const struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    const char *path = source_path(p->src), *end = path + strlen(path);
    const struct source_value *v = source_value(p->src, "_name_or_path");
    if (v && v->type == SOURCE_STRING && v->s.n) {
        path = v->s.p;
        end = path + v->s.n;
    }
    while (end > path + 1 && end[-1] == '/')
        end--;
    const char *start = end;
    while (start > path && start[-1] != '/')
        start--;
    return gguf_put_string(w, "general.name", start, (size_t)(end - start), e);
}

static int config_keys(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    struct model_key keys[MODEL_KEYS];
    const char *arch = p->cfg.arch->name;
    size_t n = model_config_keys(&p->cfg, keys);
    int rc = put_text(w, "general.architecture", arch, e);
    if (!rc)
        rc = put_text(w, "general.type", "model", e);
    if (!rc && !p->o.name)
        rc = put_name(p, w, e);
    for (size_t i = 0; !rc && i < n; i++)
        if (keys[i].gguf && !leaves_out(&p->cfg, &keys[i]))
            rc = put_number(w, arch, keys[i].gguf, keys[i].real, own_value(&p->cfg, &keys[i]), e);
    if (!rc)
        rc = put_special(&p->cfg, w, e);
    return rc ? rc : convert_gguf_vocab(p, w, e);
}

int convert_gguf_meta(struct convert_plan *p, struct gguf_writer *w, struct err *e)
{
    int rc = p->is_model ? config_keys(p, w, e) : copy_keys(p, w, e);
    if (!rc && p->o.name)
        rc = put_text(w, "general.name", p->o.name, e);
    if (!rc)
        rc = gguf_put_u32(w, "general.file_type", p->o.mix ? p->o.mix->ftype : guess_ftype(p), e);
    if (!rc)
        rc = gguf_put_u32(w, "general.quantization_version", QUANTIZATION_VERSION, e);
    if (!rc && p->o.packed)
        rc = gguf_put_u32(w, PACKED_KEY, PANEL_LAYOUTS, e);
    if (!rc && p->imatrix)
        rc = put_imatrix(p, w, e);
    return rc;
}
