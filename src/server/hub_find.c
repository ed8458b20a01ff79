/*
 * Which models there are, and by what names. A model's name is that of its file without ".gguf" and
 * without the number of its part, or that of its folder; characters that do not belong into a name
 * become "-". Of several models with one name the later ones get "-2", "-3", ….
 */
#include "base/file.h"
#include "base/hash.h"
#include "base/num.h"
#include "base/utf8.h"
#include "server/hub_impl.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n > m && !strcasecmp(s + n - m, end);
}

/* "…-00002-of-00005.gguf": *part gets 2; the length of the name before that, or 0. */
static size_t part_of(const char *name, int *part)
{
    size_t n = strlen(name);
    int of = 0, used = 0;
    if (n < 20 || sscanf(name + n - 20, "-%5d-of-%5d.gguf%n", part, &of, &used) != 2 || used != 20)
        return 0;
    return n - 20;
}

/* ---- names ---------------------------------------------------------------------------------- */

static bool same_name(const char *a, size_t n, const char *b, size_t m)
{
    return n == m && !strncasecmp(a, b, n);
}

/* A name without ":latest". */
static size_t bare_length(const char *name)
{
    size_t n = strlen(name);
    return n > 7 && !strcasecmp(name + n - 7, ":latest") ? n - 7 : n;
}

static struct hub_model *by_name(const struct hub *h, const char *name, size_t n)
{
    for (size_t i = 0; i < h->n; i++)
        for (size_t k = 0; k < h->model[i]->n_name; k++)
            if (same_name(h->model[i]->name[k], bare_length(h->model[i]->name[k]), name, n))
                return h->model[i];
    return NULL;
}

static int unknown(const struct hub *h, const char *name, struct err *e)
{
    char have[300] = "";
    size_t len = 0;
    for (size_t i = 0; i < h->n; i++) {
        const char *s = hub_info(h->model[i])->name;
        if (len + strlen(s) + 8 > sizeof have) {
            len += (size_t)snprintf(have + len, sizeof have - len, ", …");
            break;
        }
        len += (size_t)snprintf(have + len, sizeof have - len, "%s%s", i ? ", " : "", s);
    }
    return err_set(e, ERR_NOTFOUND, "model \"%.100s\" not found: there %s %s", name,
                   h->n == 1 ? "is" : "are", h->n ? have : "none");
}

int hub_find(const struct hub *h, const char *name, struct hub_model **out, int *think,
             struct err *e)
{
    *out = NULL;
    *think = -1;
    if (!name || !*name)
        return err_set(e, ERR_USAGE, "model is required");
    size_t n = bare_length(name);
    *out = by_name(h, name, n);
    if (*out)
        return 0;
    bool reasoner = same_name(name, n, "deepseek-reasoner", 17);
    if (!h->n || (!reasoner && !same_name(name, n, "deepseek-chat", 13)))
        return unknown(h, name, e);
    *out = h->model[0];
    for (size_t i = 0; i < h->n; i++)
        if (hub_info(h->model[i])->thinks) {
            *out = h->model[i];
            *think = reasoner;
            break;
        }
    return 0;
}

size_t hub_count(const struct hub *h)
{
    return h->n;
}

const struct hub_info *hub_info(const struct hub_model *m)
{
    return &atomic_load(&m->facts)->info;
}

struct hub_model *hub_model(const struct hub *h, size_t i)
{
    return h->model[i];
}

const char *hub_name(const struct hub_model *m, size_t i)
{
    return i < m->n_name ? m->name[i] : NULL;
}

/* ---- models --------------------------------------------------------------------------------- */

void hub_model_free(struct hub_model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_name; i++)
        free(m->name[i]);
    free(m->path);
    free(m->adapter);
    engine_head_release(&m->head);
    for (struct hub_facts *f = atomic_load(&m->facts), *older; f; f = older) {
        older = f->older;
        free(f);
    }
    pthread_rwlock_destroy(&m->door);
    free(m);
}

static int add_name(struct hub_model *m, const char *s, size_t n, struct err *e)
{
    char *name = m->n_name < HUB_NAMES ? strndup(s, n) : NULL;
    if (!name)
        return err_nomem(e, n, "a model's name");
    for (char *p = name; *p; p++)
        if ((unsigned char)*p < 0x80 && !isalnum((unsigned char)*p) && !strchr("._-:/@+", *p))
            *p = '-';
    for (char *p = name; !utf8_valid(name, strlen(name)) && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '-';
    m->name[m->n_name++] = name;
    return 0;
}

/* The name that the files give. */
static int own_name(const struct hub *h, struct hub_model *m, struct err *e)
{
    char *real = realpath(m->path, NULL), text[HUB_NAME_MAX];
    if (!real)
        return err_errno(e, "%s", m->path);
    const char *base = strrchr(real, '/');
    base = base ? base + 1 : real;
    int part;
    size_t n = part_of(base, &part);
    if (!n)
        n = strlen(base) - (ends(base, ".gguf") ? 5 : 0);
    snprintf(text, sizeof text, "%.*s", (int)num_min(n, 200), *base ? base : "model");
    free(real);
    n = strlen(text);
    for (int k = 2; by_name(h, text, strlen(text)); k++)
        snprintf(text + n, sizeof text - n, "-%d", k);
    return add_name(m, text, strlen(text), e);
}

static void size_label(char out[16], uint64_t params)
{
    double p = (double)params;
    if (p >= 1e9)
        snprintf(out, 16, "%.1fB", p / 1e9);
    else if (p >= 1e6)
        snprintf(out, 16, "%.2fM", p / 1e6);
    else
        snprintf(out, 16, "%.2fK", p / 1e3);
}

static int names(struct hub *h, struct hub_model *m, struct err *e)
{
    int rc = 0;
    if (h->n || !h->o.n_served)
        return own_name(h, m, e);
    for (size_t i = 0; i < h->o.n_served && !rc; i++)
        rc = add_name(m, h->o.served[i], strlen(h->o.served[i]), e);
    return rc;
}

static int adapter_name(const struct hub *h, struct hub_model *m, const struct hub_adapter *a,
                        struct err *e)
{
    if (!*a->name || strlen(a->name) >= HUB_NAME_MAX)
        return err_set(e, ERR_USAGE, "the adapter %.200s needs a short name", a->path);
    if (by_name(h, a->name, bare_length(a->name)))
        return err_set(e, ERR_USAGE, "there are two models called \"%s\"", a->name);
    if (file_kind(a->path) == FILE_NONE)
        return err_set(e, ERR_NOTFOUND, "%.300s: there is no adapter", a->path);
    m->adapter = strdup(a->path);
    return m->adapter ? add_name(m, a->name, strlen(a->name), e)
                      : err_nomem(e, strlen(a->path), "an adapter's name");
}

/* An adapter's is that of its model and of its own files. */
static void digest(const struct hub_model *m, const struct engine_head *head, uint64_t stamp,
                   char out[SHA256_HEX])
{
    const uint64_t facts[4] = {head->identity, head->bytes, head->params, m->base ? stamp : 0};
    const char *text = m->base ? hub_info(m->base)->digest : head->template_text;
    const struct sha256_part parts[] = {{facts, sizeof facts}, {text, strlen(text)}};
    uint8_t sum[SHA256_BYTES];
    sha256_of_parts(parts, NUM_COUNT(parts), sum);
    sha256_hex(sum, out);
}

static double modified(const char *path)
{
    struct stat st;
    return stat(path, &st) ? 0 : (double)st.st_mtim.tv_sec + (double)st.st_mtim.tv_nsec * 1e-9;
}

/* Changes when a file is written or replaced. */
static uint64_t stamp_of(const struct hub_model *m)
{
    const uint64_t both[2] = {m->base ? m->base->stamp : 0,
                              engine_path_identity(m->adapter ? m->adapter : m->path)};
    return hash_xxh64(both, sizeof both, 0);
}

/* What the files say; an adapter's model has said it. */
static int look(const struct hub_model *m, struct engine_head *head, struct err *e)
{
    if (!m->base)
        return engine_head_read(head, m->path, m->hub->o.engine.template_text, e);
    *head = m->base->head;
    return 0;
}

static struct hub_facts *facts_new(const struct hub_model *m, const struct engine_head *head,
                                   uint64_t stamp)
{
    struct hub_facts *f = calloc(1, sizeof *f);
    if (!f)
        return NULL;
    size_label(f->size_label, head->params);
    digest(m, head, stamp, f->digest);
    f->info = (struct hub_info){
        .name = m->name[0],
        .path = m->path,
        .digest = f->digest,
        .arch = head->arch,
        .file_type = head->file_type,
        .size_label = f->size_label,
        .bytes = head->bytes,
        .params = head->params,
        .modified = modified(m->adapter ? m->adapter : m->path),
        .ctx_train = head->ctx_train,
        .d_model = head->d_model,
        .vocab = head->vocab,
        .thinks = head->thinks,
        .tools = head->tools,
        .fim = head->fim,
        .adapter = m->adapter,
        .parent = m->base ? m->base->name[0] : NULL,
    };
    return f;
}

/* The head becomes the model's. */
static int know(struct hub_model *m, struct engine_head *head, uint64_t stamp, struct err *e)
{
    struct hub_facts *f = facts_new(m, head, stamp);
    engine_head_release(head); /* the template was needed for the digest */
    if (!f)
        return err_nomem(e, sizeof *f, "a model");
    m->head = *head;
    m->stamp = stamp;
    f->older = atomic_load(&m->facts);
    atomic_store(&m->facts, f);
    return 0;
}

static bool gone(const struct hub_model *m, const char *path, struct err *e)
{
    if (file_kind(path) != FILE_NONE)
        return false;
    err_set(e, ERR_NOTFOUND, "model \"%.100s\": %.300s is no longer there", m->name[0], path);
    return true;
}

void hub_fault(const struct hub_model *m, struct err *e)
{
    if (!gone(m, m->path, e) && !(m->adapter && gone(m, m->adapter, e)) && e->code != ERR_NOMEM &&
        e->code != ERR_BUSY)
        e->code = ERR_IO;
}

int hub_renew(struct hub_model *m, struct err *e)
{
    struct engine_head head;
    uint64_t was = m->stamp;
    pthread_mutex_unlock(&m->hub->lock);
    uint64_t stamp = stamp_of(m);
    int rc = stamp == was ? 0 : look(m, &head, e);
    pthread_mutex_lock(&m->hub->lock);
    return rc || stamp == was ? rc : know(m, &head, stamp, e);
}

/* With `a` the model at the path (`base`) with that adapter. */
static int add_model(struct hub *h, const char *path, const struct hub_adapter *a,
                     struct hub_model *base, struct err *e)
{
    struct engine_head head = {0};
    if (h->n == HUB_MODELS)
        return err_set(e, ERR_LIMIT, "more than %d models", HUB_MODELS);
    struct hub_model *m = calloc(1, sizeof *m);
    if (!m || !(m->path = strdup(path)) || pthread_rwlock_init(&m->door, NULL)) {
        if (m)
            free(m->path);
        free(m);
        return err_nomem(e, sizeof *m, "a model");
    }
    m->hub = h;
    m->base = base;
    m->last = &m->first;
    int rc = a ? adapter_name(h, m, a, e) : 0;
    uint64_t stamp = rc ? 0 : stamp_of(m);
    if (!rc)
        rc = look(m, &head, e);
    if (!rc && !a)
        rc = names(h, m, e);
    if (rc) {
        engine_head_release(&head);
        hub_model_free(m);
        return rc;
    }
    if ((rc = know(m, &head, stamp, e))) {
        hub_model_free(m);
        return rc;
    }
    h->model[h->n++] = m;
    return 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The entries of a folder that may be models, sorted. */
static int list(const char *dir, char **out, size_t *n, struct err *e)
{
    DIR *d = opendir(dir);
    if (!d)
        return err_errno(e, "%s", dir);
    struct dirent *x;
    int rc = 0;
    while (!rc && (x = readdir(d))) {
        char path[4096], config[4096];
        int part = 1;
        if (x->d_name[0] == '.' || !file_join(path, sizeof path, dir, x->d_name))
            continue;
        part_of(x->d_name, &part);
        bool gguf = ends(x->d_name, ".gguf") && part == 1 && file_kind(path) == FILE_REGULAR;
        bool folder = file_kind(path) == FILE_DIR &&
                      file_join(config, sizeof config, path, "config.json") &&
                      file_kind(config) == FILE_REGULAR;
        if (!gguf && !folder)
            continue;
        if (*n == HUB_MODELS)
            rc = err_set(e, ERR_LIMIT, "%s: more than %d models", dir, HUB_MODELS);
        else if (!(out[*n] = strdup(path)))
            rc = err_nomem(e, strlen(path), "a list of models");
        else
            ++*n;
    }
    closedir(d);
    qsort(out, *n, sizeof *out, by_text);
    return rc;
}

static int scan_dir(struct hub *h, struct err *e)
{
    size_t n = 0;
    char **path = calloc(HUB_MODELS, sizeof *path);
    int rc = path ? list(h->o.dir, path, &n, e) : err_nomem(e, 0, "a list of models");
    for (size_t i = 0; i < n && !rc; i++) {
        struct err bad;
        bool known = false;
        for (size_t k = 0; k < h->n; k++)
            known |= !strcmp(h->model[k]->path, path[i]);
        rc = known ? 0 : add_model(h, path[i], NULL, NULL, &bad);
        if (rc == ERR_NOMEM || rc == ERR_LIMIT) {
            if (e)
                *e = bad;
        } else if (rc) {
            log_line(h->o.log, LOG_WARN, "left out: %s", bad.text);
            rc = 0;
        }
    }
    for (size_t i = 0; i < n; i++)
        free(path[i]);
    free(path);
    return rc;
}

int hub_scan(struct hub *h, struct err *e)
{
    int rc = 0;
    h->model = calloc(HUB_MODELS, sizeof(struct hub_model *));
    if (!h->model)
        return err_nomem(e, 0, "a list of models");
    for (size_t i = 0; i < h->o.n_path && !rc; i++)
        rc = add_model(h, h->o.path[i], NULL, NULL, e);
    if (!rc && h->o.dir)
        rc = scan_dir(h, e);
    if (!rc && h->o.n_adapter && !h->n)
        rc = err_set(e, ERR_USAGE, "adapters need the model that they are for");
    for (size_t i = 0; i < h->o.n_adapter && !rc; i++)
        rc = add_model(h, h->model[0]->path, &h->o.adapter[i], h->model[0], e);
    return rc;
}
