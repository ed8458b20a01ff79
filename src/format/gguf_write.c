/*
 * Writing GGUF version 3.
 *
 * The header has to say how many keys and tensors there are and where each tensor's data lie, so
 * keys and descriptions are encoded into two buffers, and the header goes out when the first data
 * come (or at the commit of a file without tensors). The data then stream through, with zeros up to
 * the alignment after each tensor: memory is what the header takes.
 */
#include "format/gguf.h"

#include "base/num.h"
#include "base/utf8.h"
#include "format/gguf_priv.h"
#include "format/packed.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_META = 1 << 30, MAX_INFOS = 256 << 20, MAX_TENSOR_NAME = 63, PAD_MAX = 4096 };

struct pending {
    size_t name; /* where its name lies in `infos` */
    size_t bytes;
};

struct gguf_writer {
    struct file_out out;
    char *path;
    struct buf meta, infos, keys; /* keys: size_t places of key strings in meta */
    struct pending *tensors;
    size_t n_keys, n_tensors, cap_tensors;
    uint64_t align, next; /* offset of the next announced tensor in the data section */
    size_t current, done; /* tensor that is being written, and its bytes so far */
    bool started, committed;
    int failed; /* code of the first error */
};

int gguf_writer_new(struct gguf_writer **out, const char *path, struct err *e)
{
    struct gguf_writer *w = calloc(1, sizeof *w);
    int rc;

    *out = NULL;
    if (!w)
        return err_nomem(e, sizeof *w, "a GGUF writer");
    w->out.fd = -1;
    w->align = GGUF_ALIGNMENT;
    buf_init(&w->meta, MAX_META);
    buf_init(&w->infos, MAX_INFOS);
    buf_init(&w->keys, SOURCE_MAX_KEYS * sizeof(size_t));
    w->path = strdup(path);
    rc = w->path ? file_out_open(&w->out, path, e) : err_nomem(e, strlen(path) + 1, "a path");
    if (rc) {
        gguf_writer_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

void gguf_writer_free(struct gguf_writer *w)
{
    if (!w)
        return;
    if (!w->committed)
        file_out_abort(&w->out);
    buf_release(&w->meta);
    buf_release(&w->infos);
    buf_release(&w->keys);
    free(w->tensors);
    free(w->path);
    free(w);
}

/* Keeps the first failure: what was written before it is not to be trusted. */
static int keep(struct gguf_writer *w, int rc)
{
    if (rc && !w->failed)
        w->failed = rc;
    return rc;
}

static int ready(const struct gguf_writer *w, bool header, struct err *e)
{
    if (w->failed)
        return err_set(e, w->failed, "%s: writing has failed before; the file is given up",
                       w->path);
    if (w->committed || (header && w->started))
        return err_set(e, ERR_USAGE, "%s: metadata and tensors come before the data", w->path);
    return 0;
}

/* ---- metadata -----------------------------------------------------------------------------------
 */

static int put_string(struct buf *b, const char *s, size_t n, struct err *e)
{
    uint64_t n64 = n;
    int rc = buf_append(b, &n64, sizeof n64, e);

    return rc ? rc : buf_append(b, s, n, e);
}

/* Begins a value: its key. */
static int put_key(struct gguf_writer *w, const char *key, struct err *e)
{
    size_t n = strlen(key), place = w->meta.len;
    const char *fault = name_fault(key, n);
    int rc = ready(w, true, e);

    if (!rc && fault)
        rc = err_set(e, ERR_USAGE, "%s: metadata key '%s' %s", w->path, name_show(key, n).text,
                     fault);
    if (!rc)
        rc = buf_append(&w->keys, &place, sizeof place, e);
    if (!rc)
        rc = put_string(&w->meta, key, n, e);
    if (!rc)
        w->n_keys++;
    return rc;
}

/* Key and type. */
static int put_head(struct gguf_writer *w, const char *key, enum gguf_type type, struct err *e)
{
    uint32_t t = type;
    int rc = put_key(w, key, e);

    return rc ? rc : buf_append(&w->meta, &t, sizeof t, e);
}

static int put_plain(struct gguf_writer *w, const char *key, enum gguf_type type, const void *v,
                     struct err *e)
{
    int rc = put_head(w, key, type, e);

    if (!rc)
        rc = buf_append(&w->meta, v, gguf_type_row(type)->size, e);
    return keep(w, rc);
}

int gguf_put_u16(struct gguf_writer *w, const char *key, uint16_t v, struct err *e)
{
    return put_plain(w, key, GGUF_U16, &v, e);
}

int gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct err *e)
{
    if (strcmp(key, "general.alignment") == 0) {
        if (!gguf_alignment_ok(v))
            return keep(w, err_set(e, ERR_USAGE,
                                   "%s: general.alignment has to be a power of two and at least 8, "
                                   "not %u",
                                   w->path, v));
        w->align = v;
    }
    return put_plain(w, key, GGUF_U32, &v, e);
}

int gguf_put_u64(struct gguf_writer *w, const char *key, uint64_t v, struct err *e)
{
    return put_plain(w, key, GGUF_U64, &v, e);
}

int gguf_put_i32(struct gguf_writer *w, const char *key, int32_t v, struct err *e)
{
    return put_plain(w, key, GGUF_I32, &v, e);
}

int gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct err *e)
{
    return put_plain(w, key, GGUF_F32, &v, e);
}

int gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct err *e)
{
    uint8_t b = v;

    return put_plain(w, key, GGUF_BOOL, &b, e);
}

static int put_text(struct gguf_writer *w, const char *key, const char *s, size_t n, struct err *e)
{
    if (!utf8_valid(s, n))
        return err_set(e, ERR_USAGE, "%s: metadata key '%s': a string that is not UTF-8", w->path,
                       name_show(key, strlen(key)).text);
    return put_string(&w->meta, s, n, e);
}

int gguf_put_string(struct gguf_writer *w, const char *key, const char *s, size_t n, struct err *e)
{
    int rc = put_head(w, key, GGUF_STRING, e);

    if (!rc)
        rc = put_text(w, key, s, n, e);
    return keep(w, rc);
}

static int put_array_head(struct gguf_writer *w, const char *key, enum gguf_type type, size_t count,
                          struct err *e)
{
    uint64_t n = count;
    uint32_t t = type;
    int rc = put_head(w, key, GGUF_ARRAY, e);

    if (!rc)
        rc = buf_append(&w->meta, &t, sizeof t, e);
    if (!rc)
        rc = buf_append(&w->meta, &n, sizeof n, e);
    return rc;
}

int gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type type, const void *v,
                   size_t count, struct err *e)
{
    const struct gguf_type_row *row = gguf_type_row(type);
    size_t bytes;
    int rc;

    if (!row || !row->size || !num_mul(&bytes, count, row->size))
        return keep(w, err_set(e, ERR_USAGE, "%s: metadata key '%s': no array of plain values",
                               w->path, name_show(key, strlen(key)).text));
    rc = put_array_head(w, key, type, count, e);
    if (!rc)
        rc = buf_append(&w->meta, v, bytes, e);
    return keep(w, rc);
}

int gguf_put_strings(struct gguf_writer *w, const char *key, const char *const *s, const size_t *n,
                     size_t count, struct err *e)
{
    int rc = put_array_head(w, key, GGUF_STRING, count, e);

    for (size_t i = 0; !rc && i < count; i++)
        rc = put_text(w, key, s[i], n[i], e);
    return keep(w, rc);
}

int gguf_copy(struct gguf_writer *w, const struct source *from, const char *key, struct err *e)
{
    size_t i = names_find(&from->keys, key, strlen(key));
    const struct source_entry *entry = i == SIZE_MAX ? NULL : &from->entries[i];
    int rc;

    if (!entry || !entry->coded)
        return keep(w, err_set(e, ERR_USAGE, "%s: no GGUF metadata key '%s' to copy", from->path,
                               name_show(key, strlen(key)).text));
    if (strcmp(key, "general.alignment") == 0)
        return gguf_put_u32(w, key, (uint32_t)entry->value.u, e);
    rc = put_key(w, key, e);
    if (!rc)
        rc = buf_append(&w->meta, entry->coded, entry->coded_n, e);
    return keep(w, rc);
}

/* ---- tensors ------------------------------------------------------------------------------------
 */

static int check_tensor(const char *name, const struct quant_type *type, bool packed, int dims,
                        const uint64_t *shape, size_t *bytes, struct err *e)
{
    size_t n = strlen(name), count = 1;
    const char *fault = name_fault(name, n);

    if (fault)
        return err_set(e, ERR_USAGE, "its name %s", fault);
    if (n > MAX_TENSOR_NAME)
        return err_set(e, ERR_USAGE, "a tensor name has at most %d bytes", MAX_TENSOR_NAME);
    if (!type || (packed ? !packed_takes(type, dims) : type->id >= QUANT_INNER))
        return err_set(e, ERR_USAGE, "a type that GGUF does not have");
    if (dims < 1 || dims > SOURCE_DIMS)
        return err_set(e, ERR_USAGE, "%d dimensions, 1 to %d are possible", dims, SOURCE_DIMS);
    for (int i = 0; i < dims; i++)
        if (shape[i] == 0 || !num_mul(&count, count, shape[i]))
            return err_set(e, ERR_USAGE, "dimension %d is %llu", i, (unsigned long long)shape[i]);
    if (packed && packed_size(type, dims, shape, bytes))
        return 0;
    if (shape[dims - 1] % type->block)
        return err_set(e, ERR_USAGE, "a row of %llu values is no multiple of %s's block of %u",
                       (unsigned long long)shape[dims - 1], type->name, type->block);
    if (packed || !quant_size(type, count, bytes))
        return err_set(e, ERR_USAGE, "its size overflows (%zu values)", count);
    return 0;
}

static int add_pending(struct gguf_writer *w, size_t name, size_t bytes, struct err *e)
{
    if (w->n_tensors == SOURCE_MAX_TENSORS)
        return err_set(e, ERR_LIMIT, "more than %d tensors", SOURCE_MAX_TENSORS);
    if (w->n_tensors == w->cap_tensors) {
        size_t cap = w->cap_tensors ? 2 * w->cap_tensors : 64;
        struct pending *p = realloc(w->tensors, cap * sizeof *p);
        if (!p)
            return err_nomem(e, cap * sizeof *p, "the list of tensors");
        w->tensors = p;
        w->cap_tensors = cap;
    }
    w->tensors[w->n_tensors++] = (struct pending){.name = name, .bytes = bytes};
    return 0;
}

static int add_tensor(struct gguf_writer *w, const char *name, const struct quant_type *type,
                      bool packed, int dims, const uint64_t *shape, struct err *e)
{
    size_t bytes = 0, place = w->infos.len;
    uint32_t n = (uint32_t)dims;
    uint64_t offset = 0; /* set when the header is written: the alignment may still change */
    int rc = ready(w, true, e);

    if (!rc)
        rc = check_tensor(name, type, packed, dims, shape, &bytes, e);
    if (!rc)
        rc = add_pending(w, place, bytes, e);
    if (!rc)
        rc = put_string(&w->infos, name, strlen(name), e);
    if (!rc)
        rc = buf_append(&w->infos, &n, sizeof n, e);
    for (int i = dims - 1; !rc && i >= 0; i--)
        rc = buf_append(&w->infos, &shape[i], sizeof shape[i], e);
    if (!rc) {
        uint32_t id = (uint32_t)type->id + (packed ? (uint32_t)PACKED_TYPE : 0);
        rc = buf_append(&w->infos, &id, sizeof id, e);
    }
    if (!rc)
        rc = buf_append(&w->infos, &offset, sizeof offset, e);
    if (rc)
        err_ctx(e, "%s: tensor '%s'", w->path, name_show(name, strlen(name)).text);
    return keep(w, rc);
}

int gguf_add_tensor(struct gguf_writer *w, const char *name, const struct quant_type *type,
                    int dims, const uint64_t *shape, struct err *e)
{
    return add_tensor(w, name, type, false, dims, shape, e);
}

int gguf_add_packed(struct gguf_writer *w, const char *name, const struct quant_type *type,
                    int dims, const uint64_t *shape, struct err *e)
{
    return add_tensor(w, name, type, true, dims, shape, e);
}

/* The string that is encoded at `place` of a buffer. */
static const char *string_at(const struct buf *b, size_t place, size_t *n)
{
    uint64_t len;

    memcpy(&len, b->data + place, sizeof len);
    *n = (size_t)len;
    return b->data + place + sizeof len;
}

static int check_twice(struct gguf_writer *w, const struct buf *b, bool keys, struct err *e)
{
    size_t count = keys ? w->n_keys : w->n_tensors;
    struct names seen;
    int rc = names_init(&seen, count, e);

    if (rc)
        return rc;
    for (size_t i = 0; i < count && !rc; i++) {
        size_t place = 0, n;
        const char *s;
        if (keys)
            memcpy(&place, w->keys.data + i * sizeof place, sizeof place);
        else
            place = w->tensors[i].name;
        s = string_at(b, place, &n);
        if (!names_add(&seen, s, n, i))
            rc = err_set(e, ERR_USAGE, "%s: %s '%s' is given twice", w->path,
                         keys ? "metadata key" : "tensor", name_show(s, n).text);
    }
    names_release(&seen);
    return rc;
}

static int pad(struct gguf_writer *w, uint64_t written, struct err *e)
{
    static const char zeros[PAD_MAX];
    uint64_t n = (w->align - written % w->align) % w->align;
    int rc = 0;

    for (; !rc && n; n -= num_min(n, PAD_MAX))
        rc = file_out_write(&w->out, zeros, num_min(n, PAD_MAX), e);
    return rc;
}

/* Writes all before the data; from here on the header is fixed. */
static int start(struct gguf_writer *w, struct err *e)
{
    struct {
        char magic[4];
        uint32_t version;
        uint64_t tensors, keys;
    } head = {{'G', 'G', 'U', 'F'}, GGUF_VERSION, w->n_tensors, w->n_keys};
    uint64_t offset = 0;
    int rc = check_twice(w, &w->meta, true, e);

    if (!rc)
        rc = check_twice(w, &w->infos, false, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < w->n_tensors; i++) {
        /* The offset is the last thing of a description. */
        size_t end = i + 1 < w->n_tensors ? w->tensors[i + 1].name : w->infos.len;
        memcpy(w->infos.data + end - sizeof offset, &offset, sizeof offset);
        if (offset > INT64_MAX - w->tensors[i].bytes - w->align)
            return err_set(e, ERR_LIMIT, "%s: a file of more than 2^63 bytes", w->path);
        offset = num_round_up(offset + w->tensors[i].bytes, w->align);
    }
    rc = file_out_write(&w->out, &head, sizeof head, e);
    if (!rc)
        rc = file_out_write(&w->out, w->meta.data, w->meta.len, e);
    if (!rc)
        rc = file_out_write(&w->out, w->infos.data, w->infos.len, e);
    if (!rc)
        rc = pad(w, w->out.offset, e);
    w->started = true;
    return rc;
}

int gguf_write_data(struct gguf_writer *w, const void *p, size_t n, struct err *e)
{
    const char *bytes = p;
    int rc = ready(w, false, e);

    if (!rc && !w->started)
        rc = start(w, e);
    while (!rc && n) {
        size_t take;
        if (w->current == w->n_tensors) {
            rc = err_set(e, ERR_USAGE, "%s: %zu bytes of data more than the tensors take", w->path,
                         n);
            break;
        }
        take = num_min(n, w->tensors[w->current].bytes - w->done);
        rc = file_out_write(&w->out, bytes, take, e);
        bytes += take;
        n -= take;
        w->done += take;
        if (!rc && w->done == w->tensors[w->current].bytes) {
            rc = pad(w, w->done, e);
            w->current++;
            w->done = 0;
            if (!rc && w->current == w->n_tensors) /* of many shards only one holds memory */
                rc = file_out_sync(&w->out, e);
        }
    }
    return keep(w, rc);
}

int gguf_writer_commit(struct gguf_writer *w, struct err *e)
{
    int rc = ready(w, false, e);

    if (!rc && !w->started)
        rc = start(w, e);
    if (!rc && w->current < w->n_tensors) {
        size_t n;
        const char *name = string_at(&w->infos, w->tensors[w->current].name, &n);
        rc = err_set(e, ERR_USAGE, "%s: tensor '%s' has %zu of its %zu bytes", w->path,
                     name_show(name, n).text, w->done, w->tensors[w->current].bytes);
    }
    if (!rc) {
        rc = file_out_commit(&w->out, e);
        w->committed = !rc;
    }
    return keep(w, rc);
}
