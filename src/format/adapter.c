/* LoRA adapters: see adapter.h. The tensors are a source of their own; the configuration says how
 * strong they are. */
#include "format/adapter.h"

#include "base/file.h"
#include "base/num.h"
#include "format/jsonin.h"
#include "format/priv.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ADAPTER_MAX_CONFIG = 1 << 20,
    ADAPTER_MAX_RANK = 65536,
};

struct adapter {
    struct source *src;
    struct arena arena;
    struct adapter_module *module;
    size_t n;
    struct names names;
    json_t *config; /* NULL for GGUF */
    const struct source_tensor *score;
};

/* ---- how strong -------------------------------------------------------------------------------
 */

/* True when a pattern of PEFT (a module name or the end of one) means this module. */
static bool pattern_means(const char *pattern, const char *name)
{
    size_t n = strlen(name), k = strlen(pattern);
    return n >= k && !strcmp(name + n - k, pattern) && (n == k || name[n - k - 1] == '.');
}

/* A number of the configuration, or what a pattern table says for this module. */
static double config_for(const json_t *config, const char *key, const char *table, const char *name)
{
    const char *pattern;
    json_t *v;
    json_object_foreach(json_object_get(config, table), pattern, v)
    {
        if (json_is_number(v) && pattern_means(pattern, name))
            return json_number_value(v);
    }
    v = json_object_get(config, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static int module_scale(const struct adapter *a, struct adapter_module *m, struct err *e)
{
    double rank = (double)m->a->shape[0], alpha;
    bool root = false;
    if (a->config) {
        alpha = config_for(a->config, "lora_alpha", "alpha_pattern", m->name);
        double r = config_for(a->config, "r", "rank_pattern", m->name);
        root = json_is_true(json_object_get(a->config, "use_rslora"));
        if (!isnan(r) && r != rank)
            return err_set(e, ERR_FORMAT,
                           "adapter_config.json says rank %g for '%s', its tensors have %g", r,
                           name_show(m->name, strlen(m->name)).text, rank);
    } else {
        const struct source_value *v = source_value(a->src, "adapter.lora.alpha");
        alpha = v && v->type == SOURCE_FLOAT ? v->f : NAN;
    }
    if (!(alpha >= 0 && alpha <= 1e6))
        return err_set(e, ERR_FORMAT, "lora_alpha is missing, or not between 0 and 1e6");
    m->scale = alpha / (root ? sqrt(rank) : rank);
    return 0;
}

/* ---- modules ----------------------------------------------------------------------------------
 */

enum adapter_side { SIDE_A, SIDE_B, SIDE_NONE };

/* Cuts a tensor's name into module and side. */
static enum adapter_side side_of(const char *name, bool gguf, const char **module, size_t *n)
{
    static const char *const prefixes[] = {"base_model.model.", "base_model."};
    static const struct {
        const char *suffix;
        bool gguf;
        enum adapter_side side;
    } sides[] = {
        {".lora_A.weight", false, SIDE_A},         {".lora_B.weight", false, SIDE_B},
        {".lora_A.default.weight", false, SIDE_A}, {".lora_B.default.weight", false, SIDE_B},
        {".weight.lora_a", true, SIDE_A},          {".weight.lora_b", true, SIDE_B}};
    *module = name;
    for (size_t i = 0; !gguf && i < NUM_COUNT(prefixes); i++)
        if (*module == name && !strncmp(name, prefixes[i], strlen(prefixes[i])))
            *module += strlen(prefixes[i]);
    for (size_t i = 0; i < NUM_COUNT(sides); i++)
        if (sides[i].gguf == gguf && path_ends(*module, sides[i].suffix)) {
            *n = strlen(*module) - strlen(sides[i].suffix);
            return *n ? sides[i].side : SIDE_NONE;
        }
    return SIDE_NONE;
}

static int module_add(struct adapter *a, const struct source_tensor *t, struct err *e)
{
    const char *p;
    size_t n;
    enum adapter_side side = side_of(t->name, adapter_is_gguf(a), &p, &n);
    struct shown shown = name_show(t->name, strlen(t->name));
    if (!adapter_is_gguf(a) && side == SIDE_NONE && !strcmp(p, "score.weight")) {
        a->score = t;
        return 0;
    }
    if (side == SIDE_NONE)
        return err_set(e, ERR_UNSUPPORTED,
                       "tensor '%s': only LoRA matrices of linear layers are supported (no DoRA, "
                       "embeddings, biases or replaced modules)",
                       shown.text);
    if (!t->type || t->dims != 2 || !t->shape[0] || !t->shape[1])
        return err_set(e, ERR_FORMAT, "tensor '%s' is not a matrix of floats", shown.text);
    size_t i = names_find(&a->names, p, n);
    if (i == SIZE_MAX) {
        i = a->n++;
        char *name = arena_strndup(&a->arena, p, n, e);
        if (!name)
            return ERR_NOMEM;
        a->module[i] = (struct adapter_module){.name = name};
        names_add(&a->names, name, n, i);
    }
    const struct source_tensor **slot = side == SIDE_A ? &a->module[i].a : &a->module[i].b;
    if (*slot)
        return err_set(e, ERR_FORMAT, "tensor '%s' is there twice", shown.text);
    *slot = t;
    return 0;
}

static int module_check(const struct adapter *a, struct adapter_module *m, struct err *e)
{
    struct shown shown = name_show(m->name, strlen(m->name));
    if (!m->a || !m->b)
        return err_set(e, ERR_FORMAT, "module '%s' lacks its lora_%s", shown.text,
                       m->a ? "B" : "A");
    if (m->a->shape[0] != m->b->shape[1] || m->a->shape[0] > ADAPTER_MAX_RANK)
        return err_set(e, ERR_FORMAT,
                       "module '%s': lora_A has rank %llu, lora_B %llu; must be equal, at most %d",
                       shown.text, (unsigned long long)m->a->shape[0],
                       (unsigned long long)m->b->shape[1], ADAPTER_MAX_RANK);
    return module_scale(a, m, e);
}

/* ---- files ------------------------------------------------------------------------------------
 */

/* Refuses what the configuration asks for and is not done. */
static int config_check(const json_t *c, struct err *e)
{
    const char *kind = json_string_value(json_object_get(c, "peft_type"));
    const char *bias = json_string_value(json_object_get(c, "bias"));
    if (!kind || strcmp(kind, "LORA") != 0)
        return err_set(e, ERR_UNSUPPORTED, "adapter_config.json: peft_type must be \"LORA\"");
    if (json_is_true(json_object_get(c, "use_dora")))
        return err_set(e, ERR_UNSUPPORTED, "adapter_config.json: use_dora is not supported");
    if (json_is_true(json_object_get(c, "fan_in_fan_out")))
        return err_set(e, ERR_UNSUPPORTED, "adapter_config.json: fan_in_fan_out is not supported");
    if (bias && strcmp(bias, "none") != 0)
        return err_set(e, ERR_UNSUPPORTED, "adapter_config.json: bias must be \"none\"");
    return 0;
}

static int read_config(struct adapter *a, const char *dir, struct err *e)
{
    static const struct jsonin_limits limits = {16, 65536, 1 << 20};
    char path[4096];
    struct buf text;
    buf_init(&text, ADAPTER_MAX_CONFIG);
    int rc = 0;
    if (!file_join(path, sizeof path, dir, "adapter_config.json"))
        rc = err_set(e, ERR_LIMIT, "%s: the path is too long", dir);
    if (!rc)
        rc = source_read_text(&text, path, e);
    if (!rc && (rc = jsonin_object(&a->config, text.data, text.len, &limits, false, e)))
        err_ctx(e, "adapter_config.json");
    if (!rc)
        rc = config_check(a->config, e);
    buf_release(&text);
    return rc;
}

static int open_files(struct adapter *a, const char *path, struct err *e)
{
    char file[4096];
    if (file_kind(path) != FILE_DIR) {
        int rc = source_open(&a->src, path, e);
        if (!rc && source_kind(a->src) != SOURCE_GGUF)
            rc = err_set(e, ERR_USAGE, "give the adapter's folder, or a GGUF adapter");
        return rc;
    }
    int rc = read_config(a, path, e);
    if (!rc && !file_join(file, sizeof file, path, "adapter_model.safetensors"))
        rc = err_set(e, ERR_LIMIT, "the path is too long");
    if (!rc && file_kind(file) == FILE_NONE)
        rc = err_set(e, ERR_FORMAT, "adapter_model.safetensors is missing: download it too");
    return rc ? rc : source_open(&a->src, file, e);
}

int adapter_open(struct adapter **out, const char *path, struct err *e)
{
    *out = NULL;
    struct adapter *a = calloc(1, sizeof *a);
    if (!a)
        return err_nomem(e, sizeof *a, "an adapter");
    arena_init(&a->arena, 64 << 20);
    int rc = file_kind(path) == FILE_NONE ? err_set(e, ERR_IO, "no such file or folder")
                                          : open_files(a, path, e);
    if (rc)
        goto out;
    size_t n = source_tensor_count(a->src);
    if (n == 0) {
        rc = err_set(e, ERR_FORMAT, "the adapter has no tensors");
        goto out;
    }
    a->module = arena_array(&a->arena, n, sizeof *a->module, e);
    rc = a->module ? names_init(&a->names, n, e) : ERR_NOMEM;
    for (size_t i = 0; i < n && !rc; i++)
        rc = module_add(a, source_tensor_at(a->src, i), e);
    for (size_t i = 0; i < a->n && !rc; i++)
        rc = module_check(a, &a->module[i], e);
out:
    if (rc) {
        adapter_free(a);
        return err_ctx(e, "%s", path);
    }
    *out = a;
    return 0;
}

void adapter_free(struct adapter *a)
{
    if (!a)
        return;
    source_free(a->src);
    names_release(&a->names);
    arena_release(&a->arena);
    json_decref(a->config);
    free(a);
}

const char *adapter_path(const struct adapter *a)
{
    return source_path(a->src);
}

bool adapter_is_gguf(const struct adapter *a)
{
    return source_kind(a->src) == SOURCE_GGUF;
}

const json_t *adapter_config(const struct adapter *a)
{
    return a->config;
}

const struct source_tensor *adapter_score(const struct adapter *a)
{
    return a->score;
}

size_t adapter_count(const struct adapter *a)
{
    return a->n;
}

const struct adapter_module *adapter_at(const struct adapter *a, size_t i)
{
    return &a->module[i];
}

const struct adapter_module *adapter_find(const struct adapter *a, const char *name)
{
    size_t i = names_find(&a->names, name, strlen(name));
    return i == SIZE_MAX ? NULL : &a->module[i];
}
