/*
 * Writing safetensors. The header has to say where each tensor's data lie, so tensors are announced
 * first; how they fall into shards is decided when the first data come, since the names of the
 * files say how many there are. Each file then is written under a temporary name, its header first,
 * and all get their names together at the end: a reader finds the whole model or what was there
 * before.
 *
 * Data are one after another without holes, as the format asks; the header is filled up with spaces
 * so that they begin at a multiple of 8 bytes.
 */
#include "format/safetensors.h"

#include "base/num.h"
#include "base/utf8.h"
#include "format/priv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_NAMES = 256 << 20, MAX_META = 1 << 20, ALIGNMENT = 8 };

static const char suffix[] = ".safetensors";

struct pending {
    size_t name, name_n; /* where its name lies in `names` */
    const char *dtype;
    int dims;
    uint64_t shape[SOURCE_DIMS];
    size_t bytes, shard;
};

struct safetensors_writer {
    char *path;
    uint64_t max_shard;
    struct buf names;
    struct buf meta; /* members of "__metadata__" as JSON */
    bool has_format;
    struct pending *tensors;
    size_t n_tensors, cap_tensors;
    struct file_out *outs; /* the files, one per shard; the index at the end */
    size_t n_shards;
    size_t current, done; /* tensor that is being written, and its bytes so far */
    bool started, committed;
    int failed; /* code of the first error */
};

int safetensors_writer_new(struct safetensors_writer **out, const char *path, uint64_t max_shard,
                           struct err *e)
{
    struct safetensors_writer *w;
    int rc = 0;

    *out = NULL;
    if (!path_ends(path, suffix))
        return err_set(e, ERR_USAGE, "%s: the name of the file has to end in %s", path, suffix);
    w = calloc(1, sizeof *w);
    if (!w)
        return err_nomem(e, sizeof *w, "a safetensors writer");
    w->max_shard = max_shard;
    buf_init(&w->names, MAX_NAMES);
    buf_init(&w->meta, MAX_META);
    w->path = strdup(path);
    if (!w->path)
        rc = err_nomem(e, strlen(path) + 1, "a path");
    if (rc) {
        safetensors_writer_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void safetensors_writer_free(struct safetensors_writer *w)
{
    if (!w)
        return;
    for (size_t i = 0; w->outs && i <= w->n_shards; i++)
        file_out_abort(&w->outs[i]);
    buf_release(&w->names);
    buf_release(&w->meta);
    free(w->outs);
    free(w->tensors);
    free(w->path);
    free(w);
}

/* Keeps the first failure: what was written before it is not to be trusted. */
static int keep(struct safetensors_writer *w, int rc)
{
    if (rc && !w->failed)
        w->failed = rc;
    return rc;
}

static int ready(const struct safetensors_writer *w, bool header, struct err *e)
{
    if (w->failed)
        return err_set(e, w->failed, "%s: writing has failed before; the file is given up",
                       w->path);
    if (w->committed || (header && w->started))
        return err_set(e, ERR_USAGE, "%s: metadata and tensors come before the data", w->path);
    return 0;
}

/* ---- header -------------------------------------------------------------------------------------
 */

/* UTF-8 as a JSON string. */
static int put_text(struct buf *b, const char *s, size_t n, struct err *e)
{
    int rc = buf_putc(b, '"', e);

    for (size_t i = 0; !rc && i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < 0x20)
            rc = buf_printf(b, e, "\\u%04x", c);
        else if (c == '"' || c == '\\')
            rc = buf_printf(b, e, "\\%c", c);
        else
            rc = buf_putc(b, s[i], e);
    }
    return rc ? rc : buf_putc(b, '"', e);
}

int safetensors_put_string(struct safetensors_writer *w, const char *key, const char *s, size_t n,
                           struct err *e)
{
    const char *fault = name_fault(key, strlen(key));
    int rc = ready(w, true, e);

    if (!rc && fault)
        rc = err_set(e, ERR_USAGE, "%s: metadata key '%s' %s", w->path,
                     name_show(key, strlen(key)).text, fault);
    if (!rc && !utf8_valid(s, n))
        rc = err_set(e, ERR_USAGE, "%s: metadata key '%s': a string that is not UTF-8", w->path,
                     name_show(key, strlen(key)).text);
    if (!rc && w->meta.len)
        rc = buf_putc(&w->meta, ',', e);
    if (!rc)
        rc = put_text(&w->meta, key, strlen(key), e);
    if (!rc)
        rc = buf_putc(&w->meta, ':', e);
    if (!rc)
        rc = put_text(&w->meta, s, n, e);
    w->has_format |= strcmp(key, "format") == 0;
    return keep(w, rc);
}

/* Name, dtype and shape are what the format has; how many bytes they take. */
static int check_tensor(struct pending *t, const char *name, const char *dtype, int dims,
                        const uint64_t *shape, struct err *e)
{
    const char *fault = name_fault(name, strlen(name));
    unsigned bits = safetensors_bits(dtype, &t->dtype);
    size_t count = 1;

    if (fault)
        return err_set(e, ERR_USAGE, "its name %s", fault);
    if (strcmp(name, "__metadata__") == 0)
        return err_set(e, ERR_USAGE, "the name stands for something else in the format");
    if (!bits)
        return err_set(e, ERR_USAGE, "'%s' is no dtype of safetensors",
                       dtype ? name_show(dtype, strlen(dtype)).text : "NULL");
    if (dims < 0 || dims > SOURCE_DIMS)
        return err_set(e, ERR_USAGE, "%d dimensions, 0 to %d are possible", dims, SOURCE_DIMS);
    t->dims = dims;
    for (int i = 0; i < dims; i++) {
        t->shape[i] = shape[i];
        if (shape[i] > INT64_MAX || !num_mul(&count, count, (size_t)shape[i]))
            return err_set(e, ERR_USAGE, "the product of its dimensions overflows");
    }
    if (!num_mul(&t->bytes, count, bits) || t->bytes % 8)
        return err_set(e, ERR_USAGE, "%zu values of %s are no whole number of bytes that fits",
                       count, dtype);
    t->bytes /= 8;
    return 0;
}

int safetensors_add_tensor(struct safetensors_writer *w, const char *name, const char *dtype,
                           int dims, const uint64_t *shape, struct err *e)
{
    struct pending t = {.name = w->names.len, .name_n = strlen(name)};
    int rc = ready(w, true, e);

    if (!rc)
        rc = check_tensor(&t, name, dtype, dims, shape, e);
    if (!rc && w->n_tensors == SOURCE_MAX_TENSORS)
        rc = err_set(e, ERR_LIMIT, "more than %d tensors", SOURCE_MAX_TENSORS);
    if (!rc && w->n_tensors == w->cap_tensors) {
        size_t cap = w->cap_tensors ? 2 * w->cap_tensors : 64;
        struct pending *p = realloc(w->tensors, cap * sizeof *p);
        if (p) {
            w->tensors = p;
            w->cap_tensors = cap;
        } else {
            rc = err_nomem(e, cap * sizeof *p, "the list of tensors");
        }
    }
    if (!rc)
        rc = buf_append(&w->names, name, t.name_n, e);
    if (!rc)
        w->tensors[w->n_tensors++] = t;
    else
        err_ctx(e, "%s: tensor '%s'", w->path, name_show(name, strlen(name)).text);
    return keep(w, rc);
}

/* ---- shards -------------------------------------------------------------------------------------
 */

/* Which shard each tensor is in. */
static void plan_shards(struct safetensors_writer *w)
{
    uint64_t used = 0;
    size_t shard = 0;

    for (size_t i = 0; i < w->n_tensors; i++) {
        struct pending *t = &w->tensors[i];
        if (w->max_shard && used && t->bytes &&
            (used > w->max_shard || t->bytes > w->max_shard - used)) {
            shard++;
            used = 0;
        }
        used += t->bytes;
        t->shard = shard;
    }
    w->n_shards = shard + 1;
}

/* The file of a shard (behind the last: the index); with the folder, or as the index names it. */
static void shard_name(const struct safetensors_writer *w, size_t shard, bool folder,
                       char out[SOURCE_MAX_NAME])
{
    const char *slash = strrchr(w->path, '/'), *from = folder || !slash ? w->path : slash + 1;

    if (shard == w->n_shards)
        snprintf(out, SOURCE_MAX_NAME, "%s.index.json", from);
    else if (w->n_shards == 1)
        snprintf(out, SOURCE_MAX_NAME, "%s", from);
    else
        snprintf(out, SOURCE_MAX_NAME, "%.*s-%05zu-of-%05zu%s",
                 (int)(strlen(from) - strlen(suffix)), from, shard + 1, w->n_shards, suffix);
}

/* The header of a shard, its length in front. */
static int put_header(const struct safetensors_writer *w, size_t shard, struct buf *b,
                      struct err *e)
{
    uint64_t at = 0, n = 0;
    int rc = buf_append(b, &n, sizeof n, e);

    if (!rc)
        rc = buf_printf(b, e, "{\"__metadata__\":{%s%s", w->has_format ? "" : "\"format\":\"pt\"",
                        !w->has_format && w->meta.len ? "," : "");
    if (!rc)
        rc = buf_append(b, w->meta.data, w->meta.len, e);
    if (!rc)
        rc = buf_putc(b, '}', e);
    for (size_t i = 0; !rc && i < w->n_tensors; i++) {
        const struct pending *t = &w->tensors[i];
        if (t->shard != shard)
            continue;
        rc = buf_putc(b, ',', e);
        if (!rc)
            rc = put_text(b, w->names.data + t->name, t->name_n, e);
        if (!rc)
            rc = buf_printf(b, e, ":{\"dtype\":\"%s\",\"shape\":[", t->dtype);
        for (int d = 0; !rc && d < t->dims; d++)
            rc = buf_printf(b, e, "%s%" PRIu64, d ? "," : "", t->shape[d]);
        if (!rc)
            rc = buf_printf(b, e, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at,
                            at + t->bytes);
        at += t->bytes;
    }
    if (!rc)
        rc = buf_putc(b, '}', e);
    while (!rc && b->len % ALIGNMENT)
        rc = buf_putc(b, ' ', e);
    if (!rc) {
        n = b->len - sizeof n;
        memcpy(b->data, &n, sizeof n);
    }
    return rc;
}

/* Begins the file of a shard. */
static int open_shard(struct safetensors_writer *w, size_t shard, struct err *e)
{
    struct buf name, header;
    int rc;

    buf_init(&name, SOURCE_MAX_NAME);
    buf_init(&header, SAFETENSORS_MAX_HEADER + sizeof(uint64_t));
    rc = buf_reserve(&name, SOURCE_MAX_NAME - 1, e);
    if (!rc) {
        shard_name(w, shard, true, name.data);
        rc = file_out_open(&w->outs[shard], name.data, e);
    }
    if (!rc)
        rc = put_header(w, shard, &header, e);
    if (!rc)
        rc = file_out_write(&w->outs[shard], header.data, header.len, e);
    buf_release(&name);
    buf_release(&header);
    return rc;
}

static int check_twice(struct safetensors_writer *w, struct err *e)
{
    struct names seen;
    int rc = names_init(&seen, w->n_tensors, e);

    for (size_t i = 0; !rc && i < w->n_tensors; i++) {
        const char *s = w->names.data + w->tensors[i].name;
        size_t n = w->tensors[i].name_n;
        if (!names_add(&seen, s, n, i))
            rc = err_set(e, ERR_USAGE, "%s: tensor '%s' is given twice", w->path,
                         name_show(s, n).text);
    }
    names_release(&seen);
    return rc;
}

/* From here on the headers are fixed. */
static int start(struct safetensors_writer *w, struct err *e)
{
    int rc = check_twice(w, e);

    if (rc)
        return rc;
    plan_shards(w);
    if (w->n_shards > SOURCE_MAX_FILES)
        return err_set(e, ERR_LIMIT, "%s: %zu files, at most %d are possible: allow larger ones",
                       w->path, w->n_shards, SOURCE_MAX_FILES);
    if (strlen(w->path) > SOURCE_MAX_NAME - 64)
        return err_set(e, ERR_LIMIT, "%s: the path is too long",
                       name_show(w->path, strlen(w->path)).text);
    if (w->n_shards > 1 && !utf8_valid(w->path, strlen(w->path)))
        return err_set(e, ERR_USAGE, "%s: an index needs file names in UTF-8",
                       name_show(w->path, strlen(w->path)).text);
    w->outs = calloc(w->n_shards + 1, sizeof *w->outs);
    if (!w->outs)
        return err_nomem(e, (w->n_shards + 1) * sizeof *w->outs, "the list of files");
    for (size_t i = 0; i <= w->n_shards; i++)
        w->outs[i].fd = -1;
    w->started = true;
    return open_shard(w, 0, e);
}

/* Goes on to the next tensor that lacks data, perhaps in the next file. */
static int settle(struct safetensors_writer *w, struct err *e)
{
    int rc = 0;

    while (!rc && w->current < w->n_tensors && w->done == w->tensors[w->current].bytes) {
        size_t shard = w->tensors[w->current].shard;
        w->current++;
        w->done = 0;
        if (w->current == w->n_tensors || w->tensors[w->current].shard == shard)
            continue;
        rc = file_out_sync(&w->outs[shard], e);
        if (!rc)
            rc = open_shard(w, shard + 1, e);
    }
    return rc;
}

int safetensors_write_data(struct safetensors_writer *w, const void *p, size_t n, struct err *e)
{
    const char *bytes = p;
    int rc = ready(w, false, e);

    if (!rc && !w->started)
        rc = start(w, e);
    if (!rc)
        rc = settle(w, e);
    while (!rc && n) {
        const struct pending *t;
        size_t take;
        if (w->current == w->n_tensors) {
            rc = err_set(e, ERR_USAGE, "%s: %zu bytes of data more than the tensors take", w->path,
                         n);
            break;
        }
        t = &w->tensors[w->current];
        take = num_min(n, t->bytes - w->done);
        rc = file_out_write(&w->outs[t->shard], bytes, take, e);
        bytes += take;
        n -= take;
        w->done += take;
        if (!rc)
            rc = settle(w, e);
    }
    return keep(w, rc);
}

/* ---- the end ------------------------------------------------------------------------------------
 */

/* The index, in outs[n_shards]. */
static int put_index(struct safetensors_writer *w, struct err *e)
{
    struct file_out *out = &w->outs[w->n_shards];
    struct buf b, name;
    uint64_t total = 0;
    int rc;

    buf_init(&b, SOURCE_MAX_INDEX);
    buf_init(&name, SOURCE_MAX_NAME);
    for (size_t i = 0; i < w->n_tensors; i++)
        total += w->tensors[i].bytes;
    rc = buf_reserve(&name, SOURCE_MAX_NAME - 1, e);
    if (!rc)
        rc =
            buf_printf(&b, e, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    for (size_t i = 0; !rc && i < w->n_tensors; i++) {
        const struct pending *t = &w->tensors[i];
        rc = buf_puts(&b, i ? ",\n" : "\n", e);
        if (!rc)
            rc = put_text(&b, w->names.data + t->name, t->name_n, e);
        if (!rc)
            rc = buf_putc(&b, ':', e);
        shard_name(w, t->shard, false, name.data);
        if (!rc)
            rc = put_text(&b, name.data, strlen(name.data), e);
    }
    if (!rc)
        rc = buf_puts(&b, "\n}}\n", e);
    if (!rc) {
        shard_name(w, w->n_shards, true, name.data);
        rc = file_out_open(out, name.data, e);
    }
    if (!rc)
        rc = file_out_write(out, b.data, b.len, e);
    if (!rc)
        rc = file_out_sync(out, e);
    buf_release(&name);
    buf_release(&b);
    return rc;
}

/* Names for all files, or for none. */
static int name_all(struct safetensors_writer *w, struct err *e)
{
    size_t files = w->n_shards + (w->n_shards > 1), named = 0;
    int rc = 0;

    for (; !rc && named < files; named++)
        rc = file_out_commit(&w->outs[named], e);
    for (size_t i = 0; rc && i < named && files > 1; i++) {
        char name[SOURCE_MAX_NAME];
        shard_name(w, i, true, name);
        unlink(name);
    }
    return rc;
}

int safetensors_writer_commit(struct safetensors_writer *w, struct err *e)
{
    int rc = ready(w, false, e);

    if (!rc && !w->started)
        rc = start(w, e);
    if (!rc)
        rc = settle(w, e);
    if (!rc && w->current < w->n_tensors) {
        const struct pending *t = &w->tensors[w->current];
        rc = err_set(e, ERR_USAGE, "%s: tensor '%s' has %zu of its %zu bytes", w->path,
                     name_show(w->names.data + t->name, t->name_n).text, w->done, t->bytes);
    }
    if (!rc)
        rc = file_out_sync(&w->outs[w->n_shards - 1], e);
    if (!rc && w->n_shards > 1)
        rc = put_index(w, e);
    if (!rc)
        rc = name_all(w, e);
    w->committed = !rc;
    return keep(w, rc);
}
