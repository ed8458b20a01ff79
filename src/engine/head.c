/* The head of a model: see head.h. */
#include "engine/head.h"

#include "base/hash.h"
#include "base/num.h"
#include "format/meta_json.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/fim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* general.file_type of GGUF files: the name of a mix, by llama.cpp's numbering. */
static const struct {
    uint32_t id;
    const char *name;
} file_types[] = {
    {0, "F32"},      {1, "F16"},      {2, "Q4_0"},    {3, "Q4_1"},    {7, "Q8_0"},
    {8, "Q5_0"},     {9, "Q5_1"},     {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},
    {13, "Q3_K_L"},  {14, "Q4_K_S"},  {15, "Q4_K_M"}, {16, "Q5_K_S"}, {17, "Q5_K_M"},
    {18, "Q6_K"},    {19, "IQ2_XXS"}, {20, "IQ2_XS"}, {21, "Q2_K_S"}, {22, "IQ3_XS"},
    {23, "IQ3_XXS"}, {24, "IQ1_S"},   {25, "IQ4_NL"}, {26, "IQ3_S"},  {27, "IQ3_M"},
    {28, "IQ2_S"},   {29, "IQ2_M"},   {30, "IQ4_XS"}, {31, "IQ1_M"},  {32, "BF16"},
    {36, "TQ1_0"},   {37, "TQ2_0"},   {38, "MXFP4"},
};

/* The mix that a file names, else the type that holds most of its bytes. */
const char *head_file_type(const struct source *src)
{
    const struct source_value *v = source_value(src, "general.file_type");
    if (v && (v->type == SOURCE_UINT || v->type == SOURCE_INT))
        for (size_t i = 0; i < NUM_COUNT(file_types); i++)
            if (file_types[i].id == v->u)
                return file_types[i].name;
    uint64_t bytes[QUANT_ID_MAX] = {0};
    const struct quant_type *best = NULL;
    for (size_t i = 0; i < source_tensor_count(src); i++) {
        const struct source_tensor *t = source_tensor_at(src, i);
        if (!t->type)
            continue;
        bytes[t->type->id] += t->bytes;
        if (!best || bytes[t->type->id] > bytes[best->id])
            best = t->type;
    }
    return best ? best->name : "?";
}

void head_name(const struct source *src, char *out, size_t size)
{
    const struct source_value *v = source_value(src, "general.name");
    if (v && v->type == SOURCE_STRING && v->s.n) {
        snprintf(out, size, "%.*s", (int)num_min(v->s.n, size - 1), v->s.p);
        return;
    }
    char path[1024];
    snprintf(path, sizeof path, "%s", source_path(src));
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        path[--n] = 0;
    const char *base = strrchr(path, '/');
    snprintf(out, size, "%s", base ? base + 1 : path);
    char *dot = strrchr(out, '.');
    if (dot && !strcmp(dot, ".gguf"))
        *dot = 0;
}

uint64_t head_identity(const struct source *src)
{
    enum { SAMPLE = 64 }; /* bytes of each tensor's beginning */
    uint64_t h = HASH_FNV1A;
    for (size_t i = 0; i < source_tensor_count(src); i++) {
        const struct source_tensor *t = source_tensor_at(src, i);
        h = hash_fnv1a(t->name, strlen(t->name) + 1, h);
        h = hash_fnv1a(t->dtype, strlen(t->dtype) + 1, h);
        h = hash_fnv1a(t->shape, sizeof t->shape, h);
        if (t->data)
            h = hash_fnv1a(t->data, num_min(t->bytes, SAMPLE), h);
    }
    return h;
}

/* Whether the vocabulary has tokens that stand for a hole in the text. */
static bool head_fim(struct source *src)
{
    const struct source_value *tokens = source_value(src, "tokenizer.ggml.tokens");
    struct source_value t;
    const char *text = NULL;
    size_t n = 0;
    for (uint64_t i = 0; tokens && i < tokens->count; i++)
        for (size_t k = 0; k < FIM_FORMS; k++) {
            const char *hole = fim_forms[k].hole;
            if (!source_array_get(src, tokens, i, &t, NULL) && t.type == SOURCE_STRING &&
                t.s.n == strlen(hole) && !memcmp(t.s.p, hole, t.s.n))
                return true;
        }
    if (tokens || source_text(src, "tokenizer.json", &text, &n, NULL) || !text)
        return false;
    for (size_t k = 0; k < FIM_FORMS; k++)
        if (memmem(text, n, fim_forms[k].hole, strlen(fim_forms[k].hole)))
            return true;
    return false;
}

/* What the chat template tells. A model that cannot chat has none. */
static int head_chat(struct engine_head *h, struct source *src, const char *template_text,
                     struct err *e)
{
    struct chat *chat;
    size_t n;
    int rc = template_text ? chat_new_text(&chat, NULL, template_text, strlen(template_text), e)
                           : chat_new(&chat, src, NULL, h->arch, e);
    if (rc)
        return rc;
    const char *text = chat_template_text(chat, &n);
    h->thinks = chat_thinking(chat) != CHAT_THINK_NONE;
    h->tools = memmem(text, n, "tools", 5) != NULL;
    h->template_text = malloc(n + 1);
    if (h->template_text) {
        memcpy(h->template_text, text, n);
        h->template_text[n] = 0;
    }
    chat_free(chat);
    return h->template_text ? 0 : err_nomem(e, n + 1, "a chat template");
}

int engine_head_read(struct engine_head *h, const char *path, const char *template_text,
                     struct err *e)
{
    struct source *src = NULL;
    struct model_config cfg;
    memset(h, 0, sizeof *h);
    int rc = source_open(&src, path, e);
    if (rc)
        return rc;
    rc = model_check(src, &cfg, e);
    if (!rc) {
        head_name(src, h->name, sizeof h->name);
        h->arch = model_arch_name(cfg.arch);
        h->file_type = head_file_type(src);
        h->format = source_kind(src) == SOURCE_GGUF ? "gguf" : "safetensors";
        h->bytes = source_bytes(src);
        for (size_t i = 0; i < source_tensor_count(src); i++) {
            const struct source_tensor *t = source_tensor_at(src, i);
            h->params += source_row_count(t) * (t->dims ? t->shape[t->dims - 1] : 1);
        }
        h->ctx_train = cfg.ctx_train;
        h->d_model = cfg.d_model;
        h->layers = cfg.n_layer;
        h->vocab = cfg.n_vocab;
        h->heads = cfg.n_head;
        h->kv_heads = cfg.n_kv_head;
        size_t values =
            cfg.kv_lora ? cfg.kv_lora + cfg.d_rope : cfg.n_kv_head * (cfg.d_head + cfg.d_v);
        h->kv_token_bytes = (uint64_t)cfg.n_layer * values * 2;
        h->fim = head_fim(src);
        h->identity = head_identity(src);
        rc = head_chat(h, src, template_text, e);
    }
    source_free(src);
    if (rc) {
        engine_head_release(h);
        return err_ctx(e, "%s", path);
    }
    return 0;
}

void engine_head_release(struct engine_head *h)
{
    free(h->template_text);
    h->template_text = NULL;
}

/* The keys that readers of GGUF metadata look for, for models that came from other files. */
static int head_known(json_t *o, const struct source *src, struct err *e)
{
    struct model_config cfg;
    char name[128];
    int rc = model_check(src, &cfg, e);
    if (rc)
        return rc;
    head_name(src, name, sizeof name);
    const char *arch = model_arch_name(cfg.arch);
    uint64_t params = 0;
    for (size_t i = 0; i < source_tensor_count(src); i++) {
        const struct source_tensor *t = source_tensor_at(src, i);
        params += source_row_count(t) * (t->dims ? t->shape[t->dims - 1] : 1);
    }
    const struct {
        const char *key;
        size_t n;
    } rows[] = {
        {"block_count", cfg.n_layer},         {"context_length", cfg.ctx_train},
        {"embedding_length", cfg.d_model},    {"feed_forward_length", cfg.d_ff},
        {"attention.head_count", cfg.n_head}, {"attention.head_count_kv", cfg.n_kv_head},
        {"vocab_size", cfg.n_vocab},
    };
    bool bad =
        json_object_set_new(o, "general.architecture", json_string(arch)) ||
        json_object_set_new(o, "general.parameter_count", json_integer((json_int_t)params)) ||
        json_object_set_new(o, "general.name", meta_json_string(name, strlen(name)));
    for (size_t i = 0; i < NUM_COUNT(rows) && !bad; i++) {
        char key[96];
        snprintf(key, sizeof key, "%s.%s", arch, rows[i].key);
        if (rows[i].n && !json_object_get(o, key))
            bad = json_object_set_new(o, key, json_integer((json_int_t)rows[i].n));
    }
    return bad ? err_nomem(e, 0, "metadata") : 0;
}

int engine_head_metadata(const char *path, bool arrays, json_t **out, struct err *e)
{
    enum { SHORT = 64 };
    struct source *src = NULL;
    *out = NULL;
    int rc = source_open(&src, path, e);
    json_t *o = json_object();
    if (!rc && !o)
        rc = err_nomem(e, 0, "metadata");
    for (size_t i = 0; !rc && i < source_value_count(src); i++) {
        const struct source_value *v;
        const char *key = source_value_at(src, i, &v);
        bool hidden = v->type == SOURCE_ARRAY && !arrays && v->count > SHORT;
        json_t *x = hidden ? json_null() : meta_json(src, v, UINT64_MAX, 0);
        if (!x || json_object_set_new_nocheck(o, key, x))
            rc = err_nomem(e, 0, "metadata");
    }
    rc = rc ? rc : head_known(o, src, e);
    source_free(src);
    if (rc)
        json_decref(o);
    else
        *out = o;
    return rc ? err_ctx(e, "%s", path) : 0;
}

int engine_head_tensors(const char *path, json_t **out, struct err *e)
{
    struct source *src = NULL;
    *out = NULL;
    int rc = source_open(&src, path, e);
    json_t *all = json_array();
    for (size_t i = 0; !rc && i < source_tensor_count(src); i++) {
        const struct source_tensor *t = source_tensor_at(src, i);
        json_t *shape = json_array();
        /* Innermost first, as GGUF files and those who read them count. */
        for (int d = t->dims; d-- > 0;)
            json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
        json_t *row = json_pack("{so ss so}", "name", meta_json_string(t->name, strlen(t->name)),
                                "type", t->dtype, "shape", shape);
        if (!row || json_array_append_new(all, row))
            rc = err_nomem(e, 0, "a list of tensors");
    }
    source_free(src);
    if (rc)
        json_decref(all);
    else
        *out = all;
    return rc ? err_ctx(e, "%s", path) : 0;
}
