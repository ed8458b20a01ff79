/*
 * Hugging Face folders: config.json, safetensors in one file or many, tokenizer files.
 *
 * The config becomes metadata under dotted keys ("rope_scaling.factor"); its JSON tree stays alive
 * for the arrays in it. Shards are those that model.safetensors.index.json names; every tensor of
 * its "weight_map" has to be in the file it says. A shard's name may not lead out of the folder.
 */
#include "format/jsonin.h"
#include "format/priv.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct jsonin_limits config_limits = {
    .depth = 32, .containers = 50000, .values = 200000};
static const struct jsonin_limits index_limits = {
    .depth = 8, .containers = 1000, .values = SOURCE_MAX_TENSORS + 1000};

enum { PATH_CAP = 4096 };

static int join(char *out, const char *dir, const char *name, struct err *e)
{
    if (file_join(out, PATH_CAP, dir, name))
        return 0;
    return err_set(e, ERR_LIMIT, "%s: the path is too long", dir);
}

static bool has(const char *dir, const char *name)
{
    char path[PATH_CAP];

    return file_join(path, sizeof path, dir, name) && file_kind(path) != FILE_NONE;
}

/* ---- config -------------------------------------------------------------------------------------
 */

/* Parses a file that holds one JSON object. */
static int load_json(json_t **out, const char *path, size_t max, const struct jsonin_limits *limits,
                     struct err *e)
{
    struct buf text;
    int rc;

    buf_init(&text, max);
    rc = source_read_text(&text, path, e);
    if (!rc) {
        rc = jsonin_object(out, text.data, text.len, limits, false, e);
        if (rc)
            err_ctx(e, "%s", path);
    }
    buf_release(&text);
    return rc;
}

/* False for an object, which is no value. */
static bool json_value(struct source_value *out, const json_t *v);

/* The type all elements have; FLOAT for a mix of numbers; NULL for any other mix. */
static enum source_type common_type(const json_t *array)
{
    enum source_type common = SOURCE_NULL;

    for (size_t i = 0; i < json_array_size(array); i++) {
        struct source_value v;
        const json_t *item = json_array_get(array, i);
        if (json_is_array(item))
            v.type = SOURCE_ARRAY;
        else if (!json_value(&v, item))
            return SOURCE_NULL;
        if (i == 0)
            common = v.type;
        else if ((common == SOURCE_FLOAT && v.type == SOURCE_INT) ||
                 (common == SOURCE_INT && v.type == SOURCE_FLOAT))
            common = SOURCE_FLOAT;
        else if (v.type != common)
            return SOURCE_NULL;
    }
    return common;
}

static bool json_value(struct source_value *out, const json_t *v)
{
    memset(out, 0, sizeof *out);
    out->raw_type = RAW_JSON;
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return false;
    case JSON_ARRAY:
        out->type = SOURCE_ARRAY;
        out->item = common_type(v);
        out->count = json_array_size(v);
        out->raw = v;
        return true;
    case JSON_STRING:
        out->type = SOURCE_STRING;
        out->s.p = json_string_value(v);
        out->s.n = json_string_length(v);
        return true;
    case JSON_INTEGER:
        out->type = SOURCE_INT;
        out->i = json_integer_value(v);
        return true;
    case JSON_REAL:
        out->type = SOURCE_FLOAT;
        out->f = json_real_value(v);
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        out->type = SOURCE_BOOL;
        out->b = json_is_true(v);
        return true;
    case JSON_NULL:
        break;
    }
    out->type = SOURCE_NULL;
    return true;
}

int hf_array_get(const struct source_value *a, uint64_t i, struct source_value *out, struct err *e)
{
    if (json_value(out, json_array_get(a->raw, (size_t)i)))
        return 0;
    return err_set(e, ERR_UNSUPPORTED, "element %llu of an array in config.json is an object",
                   (unsigned long long)i);
}

/* Adds the members of an object, those of objects in it under dotted keys. Depth is bounded. */
static int flatten(struct source *s, json_t *object, const char *prefix, struct err *e)
{
    const char *key;
    json_t *v;
    int rc = source_reserve_entries(s, json_object_size(object), e);

    if (rc)
        return rc;
    json_object_foreach(object, key, v)
    {
        size_t m = strlen(prefix), n = strlen(key);
        const char *fault = n ? name_fault(key, n) : NULL;
        char *name;
        if (fault)
            return err_set(e, ERR_FORMAT, "key '%s' %s", name_show(key, n).text, fault);
        name = arena_alloc(&s->arena, m + n + 2, e);
        if (!name)
            return ERR_NOMEM;
        snprintf(name, m + n + 2, "%s%s%s", prefix, key, json_is_object(v) ? "." : "");
        if (json_is_object(v)) {
            rc = flatten(s, v, name, e);
        } else {
            struct source_entry *entry;
            rc = source_reserve_entries(s, 1, e);
            if (rc)
                return rc;
            entry = &s->entries[s->n_entries++];
            memset(entry, 0, sizeof *entry);
            entry->key = name;
            json_value(&entry->value, v);
        }
        if (rc)
            return rc;
    }
    return 0;
}

/*
 * The quantization of older GPTQ checkpoints is in a file of its own; it is the
 * "quantization_config" of a config.json that has none.
 */
static int read_quantize_config(struct source *s, const char *dir, struct err *e)
{
    char path[PATH_CAP];
    json_t *own = json_object_get(s->config, "quantization_config"), *q = NULL;
    int rc;

    if ((own && !json_is_null(own)) || !has(dir, "quantize_config.json"))
        return 0;
    rc = join(path, dir, "quantize_config.json", e);
    if (!rc)
        rc = load_json(&q, path, SOURCE_MAX_CONFIG, &config_limits, e);
    if (rc)
        return rc;
    if ((!json_object_get(q, "quant_method") &&
         json_object_set_new(q, "quant_method", json_string("gptq"))) ||
        json_object_set(s->config, "quantization_config", q))
        rc = err_nomem(e, 0, "quantize_config.json");
    json_decref(q);
    return rc;
}

/* `dir`: where the older checkpoints' other file is, or NULL. */
static int read_config_file(struct source *s, const char *path, const char *dir, struct err *e)
{
    int rc = load_json(&s->config, path, SOURCE_MAX_CONFIG, &config_limits, e);

    if (!rc && dir)
        rc = read_quantize_config(s, dir, e);
    if (!rc) {
        rc = flatten(s, s->config, "", e);
        if (rc)
            err_ctx(e, "%s", path);
    }
    return rc;
}

static int read_config(struct source *s, const char *dir, struct err *e)
{
    char path[PATH_CAP];
    int rc = join(path, dir, "config.json", e);

    if (!rc && file_kind(path) == FILE_NONE)
        rc = err_set(e, ERR_FORMAT, "%s: config.json is missing: download it too", dir);
    return rc ? rc : read_config_file(s, path, dir, e);
}

int config_open(struct source *s, struct err *e)
{
    s->kind = SOURCE_HF;
    return read_config_file(s, s->path, NULL, e);
}

/* ---- shards -------------------------------------------------------------------------------------
 */

/* A path that stays inside the folder: relative, and no component is "..". */
static bool stays_inside(const char *name)
{
    if (*name == '\0' || *name == '/')
        return false;
    for (const char *p = name; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || p[2] == '\0'))
            return false;
    }
    return true;
}

/* Opens each file of the weight_map once; files[] of the source, in order of appearance. */
static int open_shards(struct source *s, const char *dir, json_t *map, struct names *shards,
                       struct err *e)
{
    char path[PATH_CAP];
    const char *tensor;
    json_t *v;
    int rc = names_init(shards, SOURCE_MAX_FILES, e);

    if (rc)
        return rc;
    json_object_foreach(map, tensor, v)
    {
        const char *file = json_string_value(v);
        struct shown shown = name_show(tensor, strlen(tensor));
        if (!file)
            return err_set(e, ERR_FORMAT, "weight_map: '%s' has to name a file, it is %s",
                           shown.text, jsonin_kind(v));
        if (names_find(shards, file, strlen(file)) != SIZE_MAX)
            continue;
        if (!stays_inside(file))
            return err_set(e, ERR_FORMAT,
                           "weight_map: '%s' names '%s', which is not inside the model folder",
                           shown.text, name_show(file, strlen(file)).text);
        rc = join(path, dir, file, e);
        if (rc)
            return rc;
        if (file_kind(path) == FILE_NONE)
            return err_set(e, ERR_IO,
                           "weight_map: '%s' is in %s, which is missing: download it too",
                           shown.text, name_show(file, strlen(file)).text);
        rc = source_add_file(s, path, e);
        if (!rc)
            rc = safetensors_read(s, s->n_files - 1, false, e);
        if (rc)
            return rc;
        names_add(shards, file, strlen(file), s->n_files - 1);
    }
    return 0;
}

/* Every tensor of the map is in the file it names. */
static int check_map(struct source *s, json_t *map, const struct names *shards, struct err *e)
{
    struct names found;
    const char *name;
    json_t *v;
    int rc = names_init(&found, s->n_tensors, e);

    if (rc)
        return rc;
    for (size_t i = 0; i < s->n_tensors; i++) /* a name twice: source_finish finds it */
        names_add(&found, s->tensors[i].name, strlen(s->tensors[i].name),
                  (size_t)s->tensors[i].file);
    json_object_foreach(map, name, v)
    {
        const char *file = json_string_value(v);
        if (names_find(&found, name, strlen(name)) == names_find(shards, file, strlen(file)))
            continue;
        rc =
            err_set(e, ERR_FORMAT, "weight_map: tensor '%s' is not in %s: download that file again",
                    name_show(name, strlen(name)).text, name_show(file, strlen(file)).text);
        break;
    }
    names_release(&found);
    return rc;
}

static int read_index(struct source *s, const char *dir, const char *path, struct err *e)
{
    struct names shards = {0};
    json_t *index = NULL, *map;
    int rc = load_json(&index, path, SOURCE_MAX_INDEX, &index_limits, e);

    if (rc)
        return rc;
    map = json_object_get(index, "weight_map");
    if (!json_is_object(map))
        rc = err_set(e, ERR_FORMAT, "'weight_map' has to be an object, it is %s", jsonin_kind(map));
    else if (json_object_size(map) == 0)
        rc = err_set(e, ERR_FORMAT, "'weight_map' is empty");
    if (!rc)
        rc = open_shards(s, dir, map, &shards, e);
    if (!rc)
        rc = check_map(s, map, &shards, e);
    names_release(&shards);
    json_decref(index);
    return rc ? err_ctx(e, "%s", path) : 0;
}

/* ---- folders ------------------------------------------------------------------------------------
 */

/* What lies in a folder. Names are the first in the order of the alphabet. */
struct listing {
    size_t ggufs, safetensors; /* models; of a split one only the first shard counts */
    char gguf[256], safetensor[256];
    bool pickles;
};

static void first_name(char out[256], const char *name)
{
    size_t n = strlen(name);

    if (n < 256 && (!out[0] || strcmp(name, out) < 0))
        memcpy(out, name, n + 1);
}

/* True for the second and later shards of a split model. */
static bool later_shard(const char *name)
{
    size_t n = strlen(name);
    const char *p = name + n - 20;

    return n > 20 && p[0] == '-' && memcmp(p + 6, "-of-", 4) == 0 && memcmp(p + 1, "00001", 5) != 0;
}

static int list(struct listing *l, const char *dir, struct err *e)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    memset(l, 0, sizeof *l);
    if (!d)
        return err_errno(e, "%s", dir);
    while ((entry = readdir(d))) {
        const char *name = entry->d_name;
        if (name[0] == '.')
            continue;
        if (path_ends(name, ".gguf") && !later_shard(name)) {
            l->ggufs++;
            first_name(l->gguf, name);
        } else if (path_ends(name, ".safetensors")) {
            l->safetensors++;
            first_name(l->safetensor, name);
        } else if (path_ends(name, ".bin") || path_ends(name, ".pt") || path_ends(name, ".pth")) {
            l->pickles = true;
        }
    }
    closedir(d);
    return 0;
}

static int open_hf(struct source *s, const char *dir, const char *index, const char *weights,
                   struct err *e)
{
    char path[PATH_CAP];
    int rc;

    s->kind = SOURCE_HF;
    rc = read_config(s, dir, e);
    if (rc)
        return rc;
    if (!weights)
        return read_index(s, dir, index, e);
    rc = join(path, dir, weights, e);
    if (!rc)
        rc = source_add_file(s, path, e);
    return rc ? rc : safetensors_read(s, 0, false, e);
}

static int open_gguf(struct source *s, const char *dir, const char *name, struct err *e)
{
    char path[PATH_CAP];
    int rc = join(path, dir, name, e);

    s->kind = SOURCE_GGUF;
    if (!rc)
        rc = source_add_file(s, path, e);
    if (!rc && (s->files[0].map.size < 4 || memcmp(s->files[0].map.data, "GGUF", 4) != 0))
        rc = err_set(e, ERR_FORMAT, "%s: not a GGUF file: download it again", path);
    return rc ? rc : gguf_read(s, e);
}

static int set_dir(struct source *s, const char *dir, struct err *e)
{
    s->dir = strdup(dir);
    return s->dir ? 0 : err_nomem(e, strlen(dir) + 1, "a path");
}

int folder_open(struct source *s, const char *dir, const char *index, struct err *e)
{
    static const char index_name[] = "model.safetensors.index.json";
    char path[PATH_CAP];
    struct listing l;
    const char *weights = NULL;
    int rc = list(&l, dir, e);

    if (!rc)
        rc = join(path, dir, index_name, e);
    if (rc)
        return rc;
    if (!index && has(dir, "model.safetensors"))
        weights = "model.safetensors";
    else if (!index && file_kind(path) != FILE_NONE)
        index = path;
    else if (!index && l.safetensors == 1 && l.safetensor[0])
        weights = l.safetensor;

    if ((weights || index) && (has(dir, "config.json") || l.ggufs == 0)) {
        rc = set_dir(s, dir, e);
        return rc ? rc : open_hf(s, dir, index, weights, e);
    }
    if (l.ggufs == 1 && l.gguf[0])
        return open_gguf(s, dir, l.gguf, e);
    if (l.ggufs > 1)
        return err_set(e, ERR_USAGE, "%s: %zu models are here (%s, …): name one of the files", dir,
                       l.ggufs, name_show(l.gguf, strlen(l.gguf)).text);
    if (l.safetensors > 1)
        return err_set(e, ERR_FORMAT, "%s: %zu .safetensors files, but no %s: download it too", dir,
                       l.safetensors, index_name);
    if (has(dir, "tokenizer.json") || has(dir, "tokenizer_config.json") ||
        has(dir, "chat_template.jinja")) {
        s->kind = SOURCE_TOKENIZER;
        return set_dir(s, dir, e);
    }
    if (has(dir, "config.json"))
        return err_set(e, ERR_FORMAT,
                       "%s: config.json, but no weights: expected model.safetensors or %s%s", dir,
                       index_name, l.pickles ? " (PyTorch's pickled weights are not read)" : "");
    return err_set(e, ERR_FORMAT,
                   "%s: no model here: expected a .gguf file, or config.json with .safetensors",
                   dir);
}
