/* See lora.h. */
#include "train/lora.h"

#include "base/file.h"
#include "base/num.h"
#include "format/adapter.h"
#include "format/safetensors.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- which modules --------------------------------------------------------------------------- */

static bool lora_chosen(void *arg, const char *module)
{
    struct lora_targets *t = arg;
    size_t n = strlen(module);
    bool found = false;
    for (size_t i = 0; i < t->n; i++) {
        size_t k = t->len[i];
        if (n < k || memcmp(module + n - k, t->name[i], k) != 0 ||
            (n > k && module[n - k - 1] != '.'))
            continue;
        t->used[i] = found = true;
    }
    return found;
}

static int lora_cut(struct lora_targets *t, const char *list, struct err *e)
{
    while (*list) {
        size_t n = strcspn(list, ", ");
        if (n && t->n == LORA_TARGETS)
            return err_set(e, ERR_LIMIT, "--lora-target-modules: at most %d names", LORA_TARGETS);
        if (n) {
            t->name[t->n] = list;
            t->len[t->n++] = n;
        }
        list += n + (list[n] != 0);
    }
    return t->n ? 0 : err_set(e, ERR_USAGE, "--lora-target-modules is empty");
}

/* An adapter is gone on with as it is: what was given beside it must not say otherwise. */
static int lora_from(json_t **config, const struct train_options *o, struct err *e)
{
    struct adapter *a;
    int rc = adapter_open(&a, o->lora, e);
    if (rc)
        return rc;
    json_t *c = json_incref((json_t *)(uintptr_t)adapter_config(a));
    double r = json_number_value(json_object_get(c, "r")),
           alpha = json_number_value(json_object_get(c, "lora_alpha"));
    if (!c)
        rc = err_set(e, ERR_UNSUPPORTED,
                     "--lora %s: an adapter in GGUF cannot be gone on with; give its folder in "
                     "PEFT's layout",
                     o->lora);
    else if (o->lora_targets)
        rc = err_set(e, ERR_USAGE,
                     "--lora-target-modules: %s has layers of its own; leave it out, or leave "
                     "--lora out for a new adapter",
                     o->lora);
    else if (o->lora_r != OPT_UNSET && (double)o->lora_r != r)
        rc = err_set(e, ERR_USAGE, "--lora-r %lld: the rank of %s is %g; leave it out",
                     (long long)o->lora_r, o->lora, r);
    else if (!isnan(o->lora_alpha) && o->lora_alpha != alpha)
        rc = err_set(e, ERR_USAGE, "--lora-alpha %g: that of %s is %g; leave it out", o->lora_alpha,
                     o->lora, alpha);
    else if (o->lora_rs && !json_is_true(json_object_get(c, "use_rslora")))
        rc =
            err_set(e, ERR_USAGE, "--use-rslora: %s is scaled by alpha / r; leave it out", o->lora);
    adapter_free(a);
    if (rc)
        json_decref(c);
    else
        *config = c;
    return rc;
}

int lora_options(struct model_adapt *out, struct lora_targets *t, json_t **config,
                 const struct train_options *o, struct err *e)
{
    *t = (struct lora_targets){.n = 0};
    *config = NULL;
    *out = (struct model_adapt){.rank = o->lora ? 0 : (size_t)o->lora_r,
                                .alpha = o->lora_alpha,
                                .rs = o->lora_rs,
                                .seed = (uint64_t)o->seed};
    if (o->mtp_weight > 0 || o->router_rate > 0)
        return err_set(e, ERR_USAGE,
                       "--use-peft trains no prediction layer and moves no router's bias: leave "
                       "--mtp-weight and --router-bias-rate at 0");
    if (o->lora)
        return lora_from(config, o, e);
    if (!strcmp(o->lora_targets, "all-linear"))
        return 0;
    out->choose = lora_chosen;
    out->arg = t;
    return lora_cut(t, o->lora_targets, e);
}

int lora_targets_check(const struct lora_targets *t, struct err *e)
{
    for (size_t i = 0; i < t->n; i++)
        if (!t->used[i])
            return err_set(e, ERR_USAGE,
                           "--lora-target-modules: the model has no linear layer '%.*s' that could "
                           "be adapted",
                           (int)t->len[i], t->name[i]);
    return 0;
}

/* ---- the result ------------------------------------------------------------------------------ */

/* The module of a matrix: what stands between PEFT's prefix and ".lora_A.weight". */
static const char *lora_module(const char *name, size_t *n)
{
    static const char prefix[] = "base_model.model.";
    const char *module = name + sizeof prefix - 1;
    *n = strlen(module) - strlen(".lora_A.weight");
    return module;
}

/* Names that mean these modules and no others: of a list the list; of all linear layers the last
 * parts of their names, or, where experts have the same ones, whole names. */
static json_t *lora_names(const struct params *p, const struct train_options *o)
{
    struct lora_targets t = {.n = 0};
    struct err e = {0};
    bool all = !strcmp(o->lora_targets, "all-linear"), whole = false;
    json_t *set = json_object(), *out = json_array();
    const char *key;
    json_t *v;
    for (size_t i = 0; all && i < p->n; i++)
        whole = whole || strstr(p->p[i].info.name, "shared_expert");
    for (size_t i = 0; all && i < p->n; i++) {
        size_t n;
        if (!p->p[i].info.row) /* the scalar head */
            continue;
        const char *m = lora_module(p->p[i].info.name, &n), *last = m;
        for (size_t k = 0; !whole && k < n; k++)
            last = m[k] == '.' ? m + k + 1 : last;
        json_object_setn_new(set, last, n - (size_t)(last - m), json_true());
    }
    if (!all && !lora_cut(&t, o->lora_targets, &e))
        for (size_t i = 0; i < t.n; i++)
            json_object_setn_new(set, t.name[i], t.len[i], json_true());
    json_object_foreach(set, key, v) json_array_append_new(out, json_string(key));
    json_decref(set);
    return out;
}

/* Of a new adapter. */
static json_t *lora_fresh(const struct params *p, const struct train_options *o)
{
    bool whole = o->lora_alpha == floor(o->lora_alpha);
    json_t *alpha = whole ? json_integer((json_int_t)o->lora_alpha) : json_real(o->lora_alpha);
    return json_pack(
        "{s:{},s:n,s:s,s:s,s:b,s:b,s:b,s:n,s:n,s:n,s:o,s:f,s:n,s:s,s:I,s:{},s:n,s:o,s:s,s:b,s:b}",
        "alpha_pattern", "auto_mapping", "base_model_name_or_path", o->model, "bias", "none",
        "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "layer_replication",
        "layers_pattern", "layers_to_transform", "lora_alpha", alpha, "lora_dropout",
        o->lora_dropout, "modules_to_save", "peft_type", "LORA", "r", (json_int_t)o->lora_r,
        "rank_pattern", "revision", "target_modules", lora_names(p, o), "task_type", "CAUSAL_LM",
        "use_dora", 0, "use_rslora", o->lora_rs != 0);
}

static int lora_config(const char *path, const struct params *p, const json_t *config,
                       const struct train_options *o, struct err *e)
{
    json_t *c = config ? json_deep_copy(config) : lora_fresh(p, o);
    json_object_set_new(c, "base_model_name_or_path", json_string(o->model));
    json_object_set_new(c, "lora_dropout", json_real(o->lora_dropout));
    json_object_set_new(c, "inference_mode", json_true());
    for (size_t i = 0; i < p->n; i++)
        if (!p->p[i].info.row) {
            json_object_set_new(c, "task_type", json_string("SEQ_CLS"));
            json_object_set_new(c, "modules_to_save", json_pack("[s]", "score"));
        }
    char *text = c ? json_dumps(c, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    struct file_out f;
    json_decref(c);
    if (!text)
        return err_nomem(e, 4096, "adapter_config.json");
    int rc = file_out_open(&f, path, e);
    if (!rc) {
        rc = file_out_write(&f, text, strlen(text), e);
        rc = rc ? rc : file_out_write(&f, "\n", 1, e);
        rc = rc ? rc : file_out_commit(&f, e);
        file_out_abort(&f);
    }
    free(text);
    return rc;
}

/* The scalar head is a row. */
static size_t lora_rows(const struct param *p)
{
    return p->info.row ? p->info.rows : 1;
}

static int lora_matrix(struct safetensors_writer *w, const struct param *p,
                       const struct quant_type *type, struct err *e)
{
    size_t n = lora_rows(p) * p->info.cols, bytes = n * type->bytes;
    float *rows = calloc(n, sizeof *rows);
    uint8_t *coded = rows ? malloc(bytes) : NULL;
    int rc = coded ? 0 : err_nomem(e, n * sizeof *rows, "the adapter");
    if (!rc) {
        if (p->info.row)
            model_param_to_rows(&p->info, p->own.value, rows);
        else
            memcpy(rows, p->own.value, n * sizeof *rows);
        type->encode(coded, rows, n, NULL);
        rc = safetensors_write_data(w, coded, bytes, e);
    }
    free(coded);
    free(rows);
    return rc;
}

static int lora_matrices(const char *path, const struct params *p, const struct train_options *o,
                         struct err *e)
{
    char name[sizeof p->p->info.name + 32];
    const struct quant_type *type = quant_by_name(o->save_type);
    struct safetensors_writer *w = NULL;
    int rc = safetensors_writer_new(&w, path, 0, e);
    for (size_t i = 0; !rc && i < p->n; i++) {
        const struct model_param *m = &p->p[i].info;
        snprintf(name, sizeof name, "%s%s", m->row ? "" : "base_model.model.", m->name);
        rc = safetensors_add_tensor(w, name, type->safetensors, 2,
                                    (const uint64_t[]){lora_rows(&p->p[i]), m->cols}, e);
    }
    for (size_t i = 0; !rc && i < p->n; i++)
        rc = lora_matrix(w, &p->p[i], type, e);
    rc = rc ? rc : safetensors_writer_commit(w, e);
    safetensors_writer_free(w);
    return rc;
}

int lora_write(const char *folder, const struct params *p, const json_t *config,
               const struct train_options *o, struct err *e)
{
    char path[4096];
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return err_errno(e, "cannot make the folder");
    if (!file_join(path, sizeof path, folder, "adapter_model.safetensors"))
        return err_set(e, ERR_LIMIT, "the path is too long");
    int rc = lora_matrices(path, p, o, e);
    if (!rc && !file_join(path, sizeof path, folder, "adapter_config.json"))
        rc = err_set(e, ERR_LIMIT, "the path is too long");
    return rc ? rc : lora_config(path, p, config, o, e);
}
