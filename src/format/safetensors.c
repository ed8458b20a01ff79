/*
 * Reading safetensors (https://huggingface.co/docs/safetensors, "Format"): a 64-bit length, a JSON
 * header
 * {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …} with an optional
 * "__metadata__" object of strings, then the data, which the tensors cover without hole or overlap.
 *
 * Stricter than some readers: a tensor or key given twice, metadata that are no strings, more than
 * four dimensions, and names with control characters are refused. A header may have 32 MiB (the
 * format says 100 MB; 90,000 tensors of an unstacked mixture of experts take 11).
 *
 * Types that quant/ has a row for come with it; others (integers) are kept by name only. Weights in
 * several tensors are put together afterwards (compose.c).
 */
#include "base/num.h"
#include "format/jsonin.h"
#include "format/priv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* About 300 bytes of tree per container and 100 per value: some 150 MB at worst. */
static const struct jsonin_limits header_limits = {
    .depth = 16, .containers = 300000, .values = 1000000};

static const struct {
    const char *name;
    unsigned bits;
} dtypes[] = {
    {"F32", 32},        {"BF16", 16},       {"F16", 16},    {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F64", 64},        {"I32", 32},        {"U8", 8},      {"I8", 8},      {"I64", 64},
    {"U32", 32},        {"U16", 16},        {"I16", 16},    {"U64", 64},    {"BOOL", 8},
    {"F8_E8M0", 8},     {"F4", 4},          {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"C64", 64},
    {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
};

unsigned safetensors_bits(const char *dtype, const char **name)
{
    for (size_t i = 0; dtype && i < NUM_COUNT(dtypes); i++)
        if (strcmp(dtypes[i].name, dtype) == 0) {
            *name = dtypes[i].name;
            return dtypes[i].bits;
        }
    return 0;
}

bool safetensors_looks_like(const uint8_t *p, size_t n)
{
    uint64_t len;

    if (n < 10 || p[8] != '{')
        return false;
    memcpy(&len, p, sizeof len);
    return len >= 2 && len <= n - 8;
}

/* A JSON integer ≥ 0. */
static bool get_size(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}

static int get_shape(struct source_tensor *t, const json_t *shape, struct err *e)
{
    size_t n = json_array_size(shape);

    if (!json_is_array(shape))
        return err_set(e, ERR_FORMAT, "'shape' has to be an array, it is %s", jsonin_kind(shape));
    if (n > SOURCE_DIMS)
        return err_set(e, ERR_UNSUPPORTED, "%zu dimensions, at most %d are possible", n,
                       SOURCE_DIMS);
    t->dims = (int)n;
    for (size_t i = 0; i < SOURCE_DIMS; i++) {
        t->shape[i] = 1;
        if (i < n && !get_size(json_array_get(shape, i), &t->shape[i]))
            return err_set(e, ERR_FORMAT,
                           "dimension %zu has to be a whole number that is not negative (it is %s)",
                           i, jsonin_kind(json_array_get(shape, i)));
    }
    return 0;
}

/* Type and shape, and the bytes they need. */
static int get_size_of(struct source_tensor *t, const json_t *entry, struct err *e)
{
    const json_t *dtype = json_object_get(entry, "dtype");
    size_t bits = 0, count = 1;
    int rc;

    if (!json_is_string(dtype))
        return err_set(e, ERR_FORMAT, "'dtype' has to be a string, it is %s", jsonin_kind(dtype));
    bits = safetensors_bits(json_string_value(dtype), &t->dtype);
    if (!bits)
        return err_set(e, ERR_UNSUPPORTED, "unknown dtype '%s'",
                       name_show(json_string_value(dtype), json_string_length(dtype)).text);
    t->type = quant_by_safetensors(t->dtype);
    rc = get_shape(t, json_object_get(entry, "shape"), e);
    if (rc)
        return rc;
    for (int i = 0; i < t->dims; i++)
        if (!num_mul(&count, count, t->shape[i]))
            return err_set(e, ERR_FORMAT, "the product of its dimensions overflows");
    if (!num_mul(&bits, count, bits))
        return err_set(e, ERR_FORMAT, "its size overflows (%zu values)", count);
    if (bits % 8)
        return err_set(e, ERR_FORMAT, "%zu values of %s are no whole number of bytes", count,
                       t->dtype);
    t->bytes = bits / 8;
    return 0;
}

static int read_entry(struct source_tensor *t, const json_t *entry, uint64_t room, struct err *e)
{
    const json_t *offsets;
    uint64_t begin, end;
    int rc;

    if (!json_is_object(entry))
        return err_set(e, ERR_FORMAT, "its entry has to be an object, it is %s",
                       jsonin_kind(entry));
    rc = get_size_of(t, entry, e);
    if (rc)
        return rc;
    offsets = json_object_get(entry, "data_offsets");
    if (json_array_size(offsets) != 2 || !get_size(json_array_get(offsets, 0), &begin) ||
        !get_size(json_array_get(offsets, 1), &end))
        return err_set(e, ERR_FORMAT,
                       "'data_offsets' have to be two whole numbers that are not negative");
    if (begin > end)
        return err_set(e, ERR_FORMAT, "its data ends (%llu) before it begins (%llu)",
                       (unsigned long long)end, (unsigned long long)begin);
    if (end > room)
        return err_set(
            e, ERR_FORMAT,
            "its data ends at byte %llu of %llu: the file is truncated; download it again",
            (unsigned long long)end, (unsigned long long)room);
    if (end - begin != t->bytes)
        return err_set(e, ERR_FORMAT, "its shape needs %zu bytes of %s, its offsets give %llu",
                       t->bytes, t->dtype, (unsigned long long)(end - begin));
    t->offset = begin;
    return 0;
}

static int read_metadata(struct source *s, json_t *meta, bool keep, struct err *e)
{
    static const char prefix[] = "__metadata__.";
    const char *key;
    json_t *v;
    int rc;

    if (!json_is_object(meta))
        return err_set(e, ERR_FORMAT, "'__metadata__' has to be an object, it is %s",
                       jsonin_kind(meta));
    rc = source_reserve_entries(s, keep ? json_object_size(meta) : 0, e);
    json_object_foreach(meta, key, v)
    {
        size_t n = strlen(key), m = sizeof prefix - 1;
        struct source_entry *entry;
        char *name, *text;
        const char *fault = n ? name_fault(key, n) : NULL;
        if (rc)
            return rc;
        if (fault)
            return err_set(e, ERR_FORMAT, "metadata key '%s' %s", name_show(key, n).text, fault);
        if (!json_is_string(v))
            return err_set(e, ERR_FORMAT, "'__metadata__': '%s' has to be a string, it is %s",
                           name_show(key, n).text, jsonin_kind(v));
        if (!keep)
            continue;
        name = arena_alloc(&s->arena, m + n + 1, e);
        text =
            name ? arena_strndup(&s->arena, json_string_value(v), json_string_length(v), e) : NULL;
        if (!text)
            return ERR_NOMEM;
        snprintf(name, m + n + 1, "%s%s", prefix, key);
        entry = &s->entries[s->n_entries++];
        memset(entry, 0, sizeof *entry);
        entry->key = name;
        entry->value.type = SOURCE_STRING;
        entry->value.raw_type = RAW_JSON;
        entry->value.s.p = text;
        entry->value.s.n = json_string_length(v);
    }
    return rc;
}

static int by_offset(const void *a, const void *b)
{
    const struct source_tensor *x = a, *y = b;

    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Sorts the tensors by place and checks that they cover the data exactly. */
static int place_tensors(struct source *s, size_t file, size_t first, size_t start, struct err *e)
{
    const struct file_map *m = &s->files[file].map;
    uint64_t at = 0, room = m->size - start;

    if (s->n_tensors > first)
        qsort(s->tensors + first, s->n_tensors - first, sizeof *s->tensors, by_offset);
    for (size_t i = first; i < s->n_tensors; i++) {
        struct source_tensor *t = &s->tensors[i];
        if (t->offset != at)
            return err_set(e, ERR_FORMAT, "tensor '%s': %s (byte %llu, expected %llu)",
                           name_show(t->name, strlen(t->name)).text,
                           t->offset < at ? "shares bytes with the tensor before it"
                                          : "there is a hole before its data",
                           (unsigned long long)t->offset, (unsigned long long)at);
        at += t->bytes;
        t->file = (int)file;
        t->offset += start;
        t->data = m->data + t->offset;
    }
    if (at != room)
        return err_set(e, ERR_FORMAT, "%llu bytes of data, but the tensors need %llu",
                       (unsigned long long)room, (unsigned long long)at);
    return 0;
}

static int read_header(struct source *s, size_t file, json_t *header, size_t start, bool metadata,
                       struct err *e)
{
    uint64_t room = s->files[file].map.size - start;
    size_t first = s->n_tensors;
    const char *key;
    json_t *entry;
    int rc = source_reserve_tensors(s, json_object_size(header), e);

    if (rc)
        return rc;
    json_object_foreach(header, key, entry)
    {
        struct source_tensor *t = &s->tensors[s->n_tensors];
        size_t n = strlen(key);
        const char *fault = name_fault(key, n);
        if (strcmp(key, "__metadata__") == 0) {
            rc = read_metadata(s, entry, metadata, e);
            if (rc)
                return rc;
            continue;
        }
        if (fault)
            return err_set(e, ERR_FORMAT, "tensor name '%s' %s", name_show(key, n).text, fault);
        memset(t, 0, sizeof *t);
        rc = read_entry(t, entry, room, e);
        if (rc)
            return err_ctx(e, "tensor '%s'", name_show(key, n).text);
        t->name = source_name(s, key, n, e);
        if (!t->name)
            return ERR_NOMEM;
        s->n_tensors++;
    }
    return place_tensors(s, file, first, start, e);
}

int safetensors_read(struct source *s, size_t file, bool metadata, struct err *e)
{
    const struct file_map *m = &s->files[file].map;
    json_t *header = NULL;
    uint64_t len;
    int rc;

    if (m->size < 8) {
        rc =
            err_set(e, ERR_FORMAT,
                    "a safetensors file of %zu bytes: it is truncated; download it again", m->size);
        goto done;
    }
    memcpy(&len, m->data, sizeof len);
    if (len > m->size - 8) {
        rc = err_set(e, ERR_FORMAT,
                     "a header of %llu bytes is announced, but only %zu bytes follow: the file is "
                     "truncated, or not a safetensors file; download it again",
                     (unsigned long long)len, m->size - 8);
        goto done;
    }
    if (len > SAFETENSORS_MAX_HEADER) {
        rc = err_set(e, ERR_LIMIT, "a header of %llu bytes, at most %d are possible",
                     (unsigned long long)len, SAFETENSORS_MAX_HEADER);
        goto done;
    }
    rc = jsonin_object(&header, (const char *)m->data + 8, (size_t)len, &header_limits, true, e);
    if (rc)
        err_ctx(e, "the header");
    else
        rc = read_header(s, file, header, 8 + (size_t)len, metadata, e);
done:
    json_decref(header);
    return rc ? err_ctx(e, "%s", s->files[file].path) : 0;
}
