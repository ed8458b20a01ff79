/*
 * The source: what all readers fill and everybody else reads. Opening finds out what a path is (by
 * its first bytes, then by its name) and hands over to the reader of that format; the rest is
 * bookkeeping: files, values and tensors in growing arrays whose sizes the readers have checked
 * against the bytes of the file, two tables of names, and the texts of a folder.
 */
#include "format/source.h"

#include "base/num.h"
#include "format/gguf_priv.h"
#include "format/parts.h"
#include "format/priv.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- building -----------------------------------------------------------------------------------
 */

/* Room for `more` further items in a growing array. */
static int grow(void **array, size_t *cap, size_t used, size_t more, size_t size, struct err *e)
{
    size_t want, bytes;
    void *p;

    if (!num_add(&want, used, more))
        return err_set(e, ERR_LIMIT, "too many parts (%zu)", more);
    if (want <= *cap)
        return 0;
    want = num_max(want, *cap * 2);
    if (!num_mul(&bytes, want, size))
        return err_set(e, ERR_LIMIT, "too many parts (%zu)", want);
    p = realloc(*array, bytes);
    if (!p)
        return err_nomem(e, bytes, "the table of a model file");
    *array = p;
    *cap = want;
    return 0;
}

int source_reserve_entries(struct source *s, size_t more, struct err *e)
{
    if (more > SOURCE_MAX_KEYS - s->n_entries)
        return err_set(e, ERR_LIMIT, "more than %d metadata keys", SOURCE_MAX_KEYS);
    return grow((void **)&s->entries, &s->cap_entries, s->n_entries, more, sizeof *s->entries, e);
}

int source_reserve_tensors(struct source *s, size_t more, struct err *e)
{
    if (more > SOURCE_MAX_TENSORS - s->n_tensors)
        return err_set(e, ERR_LIMIT, "more than %d tensors", SOURCE_MAX_TENSORS);
    return grow((void **)&s->tensors, &s->cap_tensors, s->n_tensors, more, sizeof *s->tensors, e);
}

static int add_map(struct source *s, const char *path, const struct file_map *map, struct err *e)
{
    struct source_file *f;
    int rc = grow((void **)&s->files, &s->cap_files, s->n_files, 1, sizeof *s->files, e);

    if (rc)
        return rc;
    f = &s->files[s->n_files];
    memset(f, 0, sizeof *f);
    f->path = strdup(path);
    if (!f->path)
        return err_nomem(e, strlen(path) + 1, "a path");
    if (map) {
        f->map = *map;
        f->borrowed = true;
    } else {
        rc = file_map(&f->map, path, e);
        if (rc) {
            free(f->path);
            return rc;
        }
    }
    s->n_files++;
    return 0;
}

int source_add_file(struct source *s, const char *path, struct err *e)
{
    if (s->n_files >= SOURCE_MAX_FILES)
        return err_set(e, ERR_LIMIT, "%s: more than %d files", path, SOURCE_MAX_FILES);
    return add_map(s, path, NULL, e);
}

const char *source_name(struct source *s, const char *p, size_t n, struct err *e)
{
    return arena_strndup(&s->arena, p, n, e);
}

const char *source_where(const struct source *s, const struct source_tensor *t)
{
    return s->files[t->file].path;
}

static int index_values(struct source *s, struct err *e)
{
    int rc = names_init(&s->keys, s->n_entries, e);

    for (size_t i = 0; !rc && i < s->n_entries; i++) {
        const char *key = s->entries[i].key;
        if (!names_add(&s->keys, key, strlen(key), i))
            rc = err_set(e, ERR_FORMAT, "%s: metadata key '%s' is given twice", s->path,
                         name_show(key, strlen(key)).text);
    }
    return rc;
}

static int index_tensors(struct source *s, struct err *e)
{
    int rc;

    names_release(&s->names);
    rc = names_init(&s->names, s->n_tensors, e);
    if (rc)
        return rc;
    s->bytes = 0;
    for (size_t i = 0; i < s->n_tensors; i++) {
        const struct source_tensor *t = &s->tensors[i];
        const char *name = t->name;
        size_t n = strlen(name);
        if (!names_add(&s->names, name, n, i)) {
            const struct source_tensor *first = &s->tensors[names_find(&s->names, name, n)];
            if (first->file == t->file)
                return err_set(e, ERR_FORMAT, "%s: tensor '%s' is given twice", source_where(s, t),
                               name_show(name, n).text);
            return err_set(e, ERR_FORMAT, "tensor '%s' is in two files, %s and %s",
                           name_show(name, n).text, source_where(s, first), source_where(s, t));
        }
        s->bytes += t->bytes;
    }
    return 0;
}

int source_finish(struct source *s, struct err *e)
{
    int rc = index_values(s, e);

    if (!rc)
        rc = index_tensors(s, e);
    if (!rc && s->kind == SOURCE_HF)
        rc = compose(s, e);
    if (!rc && s->raw)
        rc = index_tensors(s, e);
    return rc;
}

int source_read_text(struct buf *out, const char *path, struct err *e)
{
    /* Opening a pipe would wait for a writer. */
    if (file_kind(path) == FILE_OTHER)
        return err_set(e, ERR_IO, "%s: is not a regular file", path);
    return file_read(out, path, e);
}

/* ---- opening ------------------------------------------------------------------------------------
 */

/* What files that are no model usually are, by their first bytes. */
static const struct {
    const char *bytes, *words;
} mistaken[] = {
    {"version https://git-lfs",
     "a Git LFS pointer, not the data it stands for: run \"git lfs pull\" "
     "or download the file itself"},
    {"<!DOCTYPE", "a web page: the download went wrong, get the file again"},
    {"<!doctype", "a web page: the download went wrong, get the file again"},
    {"<html", "a web page: the download went wrong, get the file again"},
    {"PK\003\004",
     "a zip archive, perhaps a PyTorch checkpoint: get the safetensors or GGUF version"},
    {"\x80\002",
     "a Python pickle, perhaps a PyTorch checkpoint: get the safetensors or GGUF version"},
    {"lmgg", "an old GGML file: get the GGUF version"},
    {"fmgg", "an old GGML file: get the GGUF version"},
    {"tjgg", "an old GGML file: get the GGUF version"},
};

static int not_a_model(const char *path, const struct file_map *m, struct err *e)
{
    const char *p = (const char *)m->data;

    if (m->size == 0)
        return err_set(e, ERR_FORMAT, "%s: the file is empty: download it again", path);
    for (size_t i = 0; i < NUM_COUNT(mistaken); i++) {
        size_t n = strlen(mistaken[i].bytes);
        if (m->size >= n && memcmp(p, mistaken[i].bytes, n) == 0)
            return err_set(e, ERR_FORMAT, "%s: no model: it is %s", path, mistaken[i].words);
    }
    if (m->size < 8)
        return err_set(
            e, ERR_FORMAT,
            "%s: only %zu bytes, too short for a model: it is truncated; download it again", path,
            m->size);
    return err_set(e, ERR_FORMAT,
                   "%s: neither a GGUF nor a safetensors file: it begins with \"%s\"", path,
                   name_show(p, 8).text);
}

static int open_json(struct source *s, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    const char *base = slash ? slash + 1 : path;

    s->kind = SOURCE_TOKENIZER;
    s->tokenizer = strdup(path);
    if (!s->tokenizer)
        return err_nomem(e, strlen(path) + 1, "a path");
    if (strcmp(base, "tokenizer.json") != 0)
        return 0;
    s->dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    return s->dir ? 0 : err_nomem(e, strlen(path) + 1, "a path");
}

static int open_index(struct source *s, const char *path, struct err *e)
{
    const char *slash = strrchr(path, '/');
    char *dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
    int rc;

    if (!dir)
        return err_nomem(e, strlen(path) + 1, "a path");
    rc = folder_open(s, dir, path, e);
    free(dir);
    return rc;
}

/* Reads files[0] as what its first bytes say it is; `name` decides where they do not. */
static int read_file(struct source *s, const char *name, struct err *e)
{
    const struct file_map *m = &s->files[0].map;

    if (m->size >= 4 && memcmp(m->data, "GGUF", 4) == 0) {
        s->kind = SOURCE_GGUF;
        return gguf_read(s, e);
    }
    if (m->size > 0 &&
        (safetensors_looks_like(m->data, m->size) || path_ends(name, ".safetensors"))) {
        s->kind = SOURCE_HF;
        return safetensors_read(s, 0, true, e);
    }
    return not_a_model(s->files[0].path, m, e);
}

static int open_file(struct source *s, const char *path, struct err *e)
{
    int rc;

    if (path_ends(path, ".safetensors.index.json"))
        return open_index(s, path, e);
    if (path_ends(path, ".json"))
        return open_json(s, path, e);
    rc = source_add_file(s, path, e);
    return rc ? rc : read_file(s, path, e);
}

static struct source *source_alloc(const char *path, struct err *e)
{
    struct source *s = calloc(1, sizeof *s);

    if (s) {
        arena_init(&s->arena, SOURCE_MAX_ARENA);
        s->path = strdup(path);
    }
    if (!s || !s->path) {
        err_nomem(e, sizeof *s + strlen(path), "a model source");
        source_free(s);
        return NULL;
    }
    return s;
}

/* The end of opening: gives the source that was read, or frees it. */
static int source_opened(struct source **out, struct source *s, int rc, struct err *e)
{
    if (!rc)
        rc = source_finish(s, e);
    if (rc)
        source_free(s);
    else
        *out = s;
    return rc;
}

int source_open(struct source **out, const char *path, struct err *e)
{
    struct source *s;
    int rc;

    *out = NULL;
    s = source_alloc(path, e);
    if (!s)
        return ERR_NOMEM;
    switch (file_kind(path)) {
    case FILE_DIR:
        rc = folder_open(s, path, NULL, e);
        break;
    case FILE_NONE:
        rc = err_set(e, ERR_IO, "%s: no such file or folder", path);
        break;
    default:
        rc = open_file(s, path, e);
        break;
    }
    return source_opened(out, s, rc, e);
}

int source_open_memory(struct source **out, const uint8_t *p, size_t n, struct err *e)
{
    struct file_map map = {.data = p, .size = n};
    struct source *s;
    int rc;

    *out = NULL;
    s = source_alloc("memory", e);
    if (!s)
        return ERR_NOMEM;
    rc = add_map(s, s->path, &map, e);
    if (!rc)
        rc = read_file(s, "", e);
    return source_opened(out, s, rc, e);
}

int source_open_config(struct source **out, const char *path, struct err *e)
{
    struct source *s;

    *out = NULL;
    s = source_alloc(path, e);
    if (!s)
        return ERR_NOMEM;
    return source_opened(out, s, config_open(s, e), e);
}

void source_free(struct source *s)
{
    if (!s)
        return;
    while (s->texts) {
        struct source_text *t = s->texts;
        s->texts = t->next;
        buf_release(&t->text);
        free(t->name);
        free(t);
    }
    for (size_t i = 0; i < s->n_files; i++) {
        if (!s->files[i].borrowed)
            file_map_release(&s->files[i].map);
        free(s->files[i].path);
    }
    json_decref(s->config);
    names_release(&s->keys);
    names_release(&s->names);
    arena_release(&s->arena);
    free(s->files);
    free(s->entries);
    free(s->tensors);
    free(s->raw);
    free(s->tokenizer);
    free(s->dir);
    free(s->path);
    free(s);
}

/* ---- reading ------------------------------------------------------------------------------------
 */

enum source_kind_id source_kind(const struct source *s)
{
    return s->kind;
}

const char *source_path(const struct source *s)
{
    return s->path;
}

uint64_t source_bytes(const struct source *s)
{
    return s->bytes;
}

size_t source_file_count(const struct source *s)
{
    return s->n_files;
}

const char *source_file_path(const struct source *s, size_t i)
{
    return i < s->n_files ? s->files[i].path : NULL;
}

void source_file_stamp(const struct source *s, size_t i, uint64_t out[3])
{
    const struct file_map *m = &s->files[i].map;
    out[0] = m->size;
    out[1] = (uint64_t)m->written[0];
    out[2] = (uint64_t)m->written[1];
}

size_t source_value_count(const struct source *s)
{
    return s->n_entries;
}

const char *source_value_at(const struct source *s, size_t i, const struct source_value **v)
{
    if (i >= s->n_entries)
        return NULL;
    if (v)
        *v = &s->entries[i].value;
    return s->entries[i].key;
}

const struct source_value *source_value(const struct source *s, const char *key)
{
    size_t i = names_find(&s->keys, key, strlen(key));

    return i == SIZE_MAX ? NULL : &s->entries[i].value;
}

int source_array_get(const struct source *s, const struct source_value *a, uint64_t i,
                     struct source_value *out, struct err *e)
{
    memset(out, 0, sizeof *out);
    if (a->type != SOURCE_ARRAY)
        return err_set(e, ERR_USAGE, "%s: a metadata value that should be an array is none",
                       s->path);
    if (i >= a->count)
        return err_set(e, ERR_USAGE, "%s: element %llu of an array of %llu", s->path,
                       (unsigned long long)i, (unsigned long long)a->count);
    return a->raw_type == RAW_JSON ? hf_array_get(a, i, out, e) : gguf_array_get(a, i, out, e);
}

size_t source_tensor_count(const struct source *s)
{
    return s->n_tensors;
}

const struct source_tensor *source_tensor_at(const struct source *s, size_t i)
{
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}

const struct source_tensor *source_tensor(const struct source *s, const char *name)
{
    size_t i = names_find(&s->names, name, strlen(name));

    return i == SIZE_MAX ? NULL : &s->tensors[i];
}

uint64_t source_row_count(const struct source_tensor *t)
{
    uint64_t n = 1;

    for (int i = 0; i + 1 < t->dims; i++)
        n *= t->shape[i]; /* fits: at opening the bytes of all rows did */
    return n;
}

size_t source_row_bytes(const struct source_tensor *t)
{
    uint64_t rows = source_row_count(t);

    return rows ? (size_t)(t->bytes / rows) : 0;
}

uint64_t source_stored_bytes(const struct source_tensor *t)
{
    uint64_t n = 0;

    if (!t->parts || t->panels)
        return t->panels ? t->panel_bytes : t->bytes;
    for (size_t i = 0; i < PARTS_MAX && t->parts->part[i]; i++)
        n += t->parts->part[i]->bytes; /* fits: all lie in files */
    return n;
}

const struct source_compact *source_compact(const struct source_tensor *t)
{
    return t->parts && t->parts->compact.type ? &t->parts->compact : NULL;
}

void source_compact_rows(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                         size_t stride)
{
    t->parts->compact_rows(t, r0, n, dst, stride);
}

void source_rows(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst, size_t stride)
{
    size_t bytes = source_row_bytes(t);

    if (t->parts) {
        t->parts->rows(t, r0, n, dst, stride);
        return;
    }
    for (size_t i = 0; i < n && bytes; i++)
        memcpy(dst + i * stride, t->data + (size_t)(r0 + i) * bytes, bytes);
}

void source_tensor_drop(const struct source *s, const struct source_tensor *t)
{
    const struct source_file *f = &s->files[t->file];

    for (size_t i = 0; t->parts && i < PARTS_MAX && t->parts->part[i]; i++)
        source_tensor_drop(s, t->parts->part[i]);
    if (t->panels && !f->borrowed)
        file_map_drop(&f->map, (size_t)t->offset, t->panel_bytes);
    else if (!t->parts && !f->borrowed && t->bytes)
        file_map_drop(&f->map, (size_t)t->offset, t->bytes);
}

void source_rows_drop(const struct source *s, const struct source_tensor *t, uint64_t r0,
                      uint64_t n)
{
    const struct source_file *f = &s->files[t->file];
    size_t row = source_row_bytes(t);

    if (t->panels && !f->borrowed && n) {
        uint64_t at = packed_bytes_before(t, r0), end = packed_bytes_before(t, r0 + n - 1);
        file_map_drop(&f->map, (size_t)(t->offset + at), (size_t)(end - at));
    } else if (!t->parts && !f->borrowed && n)
        file_map_drop(&f->map, (size_t)(t->offset + r0 * row), (size_t)n * row);
}

/* ---- texts --------------------------------------------------------------------------------------
 */

/* Where a text is (perhaps in buf); NULL: the source has no such file. */
static const char *text_path(const struct source *s, const char *name, char *buf, size_t cap)
{
    const char *path = NULL;

    if (s->tokenizer && strcmp(name, "tokenizer.json") == 0)
        path = s->tokenizer;
    else if (s->kind == SOURCE_HF && !s->n_files && strcmp(name, "config.json") == 0)
        path = s->path; /* source_open_config */
    else if (s->dir && !strchr(name, '/') && name[0] != '.' && file_join(buf, cap, s->dir, name))
        path = buf;
    return path && file_kind(path) != FILE_NONE ? path : NULL;
}

int source_text(struct source *s, const char *name, const char **text, size_t *n, struct err *e)
{
    char joined[4096];
    const char *path;
    struct source_text *t;
    int rc;

    *text = NULL;
    *n = 0;
    for (t = s->texts; t; t = t->next)
        if (strcmp(t->name, name) == 0)
            goto found;
    t = calloc(1, sizeof *t);
    if (!t)
        return err_nomem(e, sizeof *t, "a text");
    buf_init(&t->text, SOURCE_MAX_TEXT);
    t->name = strdup(name);
    if (!t->name) {
        rc = err_nomem(e, strlen(name) + 1, "a name");
        goto fail;
    }
    path = text_path(s, name, joined, sizeof joined);
    if (path) {
        t->found = true;
        rc = source_read_text(&t->text, path, e);
        if (rc)
            goto fail;
    }
    t->next = s->texts;
    s->texts = t;
found:
    if (t->found) {
        *text = t->text.data;
        *n = t->text.len;
    }
    return 0;
fail:
    buf_release(&t->text);
    free(t->name);
    free(t);
    return rc;
}
