/*
 * A Hugging Face folder of a plan: weights (in shards with --split-size), config.json, the
 * tokenizer.
 *
 * Everything is written into a folder beside the wanted one, which gets its name at the end; so a
 * folder is whole or not there. A folder with something in it is never replaced.
 */
#include "base/file.h"
#include "base/num.h"
#include "convert/hf_files.h"
#include "convert/write.h"
#include "format/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HF_PATH = 4096 };

int hf_write_file(const char *dir, const char *name, const char *text, size_t n, struct err *e)
{
    char path[HF_PATH];
    struct file_out f;
    if (!file_join(path, sizeof path, dir, name))
        return err_set(e, ERR_USAGE, "%.80s…: the path is too long", dir);
    int rc = file_out_open(&f, path, e);
    if (!rc)
        rc = file_out_write(&f, text, n, e);
    if (!rc)
        return file_out_commit(&f, e);
    file_out_abort(&f);
    return rc;
}

int hf_write_json(const char *dir, const char *name, const json_t *v, struct err *e)
{
    char *text =
        v ? json_dumps(v, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(15)) : NULL;
    int rc = text ? 0 : err_nomem(e, 0, name);
    size_t n = text ? strlen(text) : 0;
    if (!rc) {
        text[n] = '\n'; /* in place of the end, which is not needed any more */
        rc = hf_write_file(dir, name, text, n + 1, e);
    }
    free(text);
    return rc;
}

/* ---- copying what another folder has ----------------------------------------------------------
 */

static int copy_texts(struct source *src, const char *dir, struct err *e)
{
    static const char *const names[] = {
        "generation_config.json",  "tokenizer.json",  "tokenizer_config.json",
        "special_tokens_map.json", "vocab.json",      "merges.txt",
        "added_tokens.json",       "tokenizer.model", "chat_template.jinja",
        "chat_template.json",
    };
    int rc = 0;
    for (size_t i = 0; !rc && i < NUM_COUNT(names); i++) {
        const char *text;
        size_t n;
        rc = source_text(src, names[i], &text, &n, e);
        if (!rc && text)
            rc = hf_write_file(dir, names[i], text, n, e);
    }
    return rc;
}

/* config.json with the dtype of the output, and nothing about how weights were composed. */
static int copy_config(struct convert_plan *p, const char *dir, struct err *e)
{
    const char *text;
    size_t n;
    json_error_t je;
    int rc = source_text(p->src, "config.json", &text, &n, e);
    if (rc || !text)
        return rc;
    json_t *o = json_loadb(text, n, 0, &je);
    if (!o)
        return je.text[0] ? err_set(e, ERR_FORMAT, "config.json: %s", je.text)
                          : err_nomem(e, n, "config.json");
    const char *key = json_object_get(o, "dtype") ? "dtype" : "torch_dtype";
    json_object_del(o, "quantization_config");
    rc = json_object_set_new(o, key, json_string(hf_dtype(p))) ? err_nomem(e, 0, "config.json") : 0;
    if (!rc && (!hf_quantization(p, o) || !hf_classifier(p, o)))
        rc = err_nomem(e, 0, "config.json");
    if (!rc)
        rc = hf_write_json(dir, "config.json", o, e);
    json_decref(o);
    return rc;
}

bool hf_classifier(const struct convert_plan *p, json_t *config)
{
    static const char causal[] = "ForCausalLM";
    if (!p->o.classifier)
        return true;
    const char *was =
        json_string_value(json_array_get(json_object_get(config, "architectures"), 0));
    const char *cut = was ? strstr(was, causal) : NULL;
    json_t *more = json_pack("{si s{ss} s{si}}", "num_labels", 1, "id2label", "0", "LABEL_0",
                             "label2id", "LABEL_0", 0);
    bool bad = !more || json_object_update(config, more);
    json_decref(more);
    return !bad && (!cut || !json_object_set_new(
                                config, "architectures",
                                json_pack("[o]", json_sprintf("%.*sForSequenceClassification",
                                                              (int)(cut - was), was))));
}

bool hf_quantization(const struct convert_plan *p, json_t *config)
{
    if (p->o.mix && p->o.mix->type == QUANT_NF4)
        return !json_object_set_new(
            config, "quantization_config",
            json_pack("{ss sb sb ss sb ss ss}", "quant_method", "bitsandbytes", "load_in_4bit", 1,
                      "load_in_8bit", 0, "bnb_4bit_quant_type", "nf4", "bnb_4bit_use_double_quant",
                      0, "bnb_4bit_quant_storage", "uint8", "bnb_4bit_compute_dtype", "bfloat16"));
    if (!p->o.mix || p->o.mix->type != QUANT_E4M3)
        return true;
    return !json_object_set_new(config, "quantization_config",
                                json_pack("{ss ss ss s[ii]}", "quant_method", "fp8", "fmt", "e4m3",
                                          "activation_scheme", "dynamic", "weight_block_size", 128,
                                          128));
}

const char *hf_dtype(const struct convert_plan *p)
{
    static const struct {
        enum quant_id id;
        const char *name;
    } names[] = {{QUANT_BF16, "bfloat16"}, {QUANT_F16, "float16"}, {QUANT_F32, "float32"}};
    uint64_t bytes[NUM_COUNT(names)] = {0};
    size_t best = 0;
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < NUM_COUNT(names); k++)
            bytes[k] += p->tensors[i].type->id == names[k].id ? p->tensors[i].bytes : 0;
    for (size_t k = 1; k < NUM_COUNT(names); k++)
        best = bytes[k] > bytes[best] ? k : best;
    return names[best].name;
}

/* ---- the folder -------------------------------------------------------------------------------
 */

static int hf_check(const char *path, struct err *e)
{
    enum file_kind_id kind = file_kind(path);
    if (kind == FILE_NONE)
        return 0;
    if (kind != FILE_DIR)
        return err_set(e, ERR_USAGE, "%.300s: is there already and no folder; give another name",
                       path);
    DIR *d = opendir(path);
    if (!d)
        return err_errno(e, "%.300s", path);
    int n = 0;
    for (struct dirent *x; (x = readdir(d));)
        n += strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0;
    closedir(d);
    return n ? err_set(e, ERR_USAGE,
                       "%.300s: is a folder with something in it, which is never replaced; give "
                       "another name",
                       path)
             : 0;
}

void convert_remove(const char *path)
{
    char file[HF_PATH];
    DIR *d = file_kind(path) == FILE_DIR ? opendir(path) : NULL;
    if (!d) {
        unlink(path);
        return;
    }
    for (struct dirent *x; (x = readdir(d));)
        if (strcmp(x->d_name, ".") != 0 && strcmp(x->d_name, "..") != 0 &&
            file_join(file, sizeof file, path, x->d_name))
            unlink(file);
    closedir(d);
    rmdir(path);
}

static int hf_data(void *state, const struct convert_tensor *t, const void *p, size_t n,
                   struct err *e)
{
    (void)t;
    return safetensors_write_data(state, p, n, e);
}

static int hf_weights(struct convert_plan *p, const char *dir, struct team *team,
                      convert_progress *progress, void *arg, struct err *e)
{
    char path[HF_PATH];
    struct safetensors_writer *w = NULL;
    struct convert_sink sink = {.data = hf_data};
    if (!file_join(path, sizeof path, dir, "model.safetensors"))
        return err_set(e, ERR_USAGE, "%.80s…: the path is too long", dir);
    int rc = safetensors_writer_new(&w, path, p->o.split, e);
    for (size_t i = 0; !rc && i < p->n; i++) {
        const struct convert_tensor *t = &p->tensors[i];
        uint64_t shape[SOURCE_DIMS];
        int dims;
        const char *dtype = convert_dtype(t, &dims, shape);
        rc = safetensors_add_tensor(w, t->name, dtype, dims, shape, e);
    }
    sink.state = w;
    if (!rc)
        rc = convert_stream(p, &sink, team, progress, arg, e);
    if (!rc)
        rc = safetensors_writer_commit(w, e);
    safetensors_writer_free(w);
    return rc;
}

static int hf_texts(struct convert_plan *p, const char *dir, struct err *e)
{
    int rc = p->is_model && !p->init ? hf_config(p, dir, e) : copy_config(p, dir, e);
    if (rc)
        return rc;
    if (p->init)
        return p->tokenizer ? copy_texts(p->tokenizer, dir, e) : 0;
    return p->is_model ? hf_vocab(p, dir, e) : copy_texts(p->src, dir, e);
}

int convert_write_hf(struct convert_plan *p, const char *path, struct team *team,
                     convert_progress *progress, void *arg, struct err *e)
{
    char final[HF_PATH], part[HF_PATH + 40];
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (!n || n >= sizeof final)
        return err_set(e, ERR_USAGE, "the name of the output folder is empty or too long");
    memcpy(final, path, n);
    final[n] = 0;
    snprintf(part, sizeof part, "%s.part-%ld", final, (long)getpid());
    int rc = hf_check(final, e);
    if (rc)
        return rc;
    if (mkdir(part, 0777) != 0)
        return err_errno(e, "%.300s: cannot be made", part);
    rc = hf_texts(p, part, e);
    if (!rc)
        rc = hf_weights(p, part, team, progress, arg, e);
    if (!rc && rename(part, final) != 0)
        rc = err_errno(e, "%.300s: cannot be given its name", final);
    if (rc)
        convert_remove(part);
    return rc;
}
