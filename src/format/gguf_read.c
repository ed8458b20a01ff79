/*
 * Reading GGUF, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 *   "GGUF" u32 version  u64 tensors  u64 keys
 *   keys:    string key, u32 type, value          (string: u64 length, bytes; array: u32 type, u64
 * count) tensors: string name, u32 dims, u64 dims×size (innermost first), u32 type, u64 offset
 *   padding to general.alignment, then the data; offsets count from here
 *
 * A cursor walks the mapped header once and checks every length against the bytes that are left
 * before anything is allocated for it. Numbers and strings stay where they are; only names are
 * copied (to terminate them), and each string array gets a table of 32-bit offsets, since strings
 * have to be walked over anyway: element i is then one lookup.
 *
 * Split models: each shard is a whole GGUF file NAME-%05d-of-%05d.gguf with split.no, split.count
 * and split.tensors.count; the metadata is that of the first, the tensors are those of all.
 *
 * Stricter than the format: a key or tensor given twice, names that are not UTF-8 or have control
 * characters, and tensors that share bytes are refused; they come from damage or from an attack.
 * Left out: version 1 (32-bit lengths, a few weeks of 2023) and big-endian files; both are named in
 * the error.
 */
#include "base/num.h"
#include "format/gguf_priv.h"
#include "format/packed.h"
#include "format/parts.h"
#include "kernels/panel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF files are little-endian and are read as they lie"
#endif

// clang-format off
static const struct gguf_type_row rows[] = {
    [GGUF_U8]     = {"u8",     1, SOURCE_UINT},
    [GGUF_I8]     = {"i8",     1, SOURCE_INT},
    [GGUF_U16]    = {"u16",    2, SOURCE_UINT},
    [GGUF_I16]    = {"i16",    2, SOURCE_INT},
    [GGUF_U32]    = {"u32",    4, SOURCE_UINT},
    [GGUF_I32]    = {"i32",    4, SOURCE_INT},
    [GGUF_F32]    = {"f32",    4, SOURCE_FLOAT},
    [GGUF_BOOL]   = {"bool",   1, SOURCE_BOOL},
    [GGUF_STRING] = {"string", 0, SOURCE_STRING},
    [GGUF_ARRAY]  = {"array",  0, SOURCE_ARRAY},
    [GGUF_U64]    = {"u64",    8, SOURCE_UINT},
    [GGUF_I64]    = {"i64",    8, SOURCE_INT},
    [GGUF_F64]    = {"f64",    8, SOURCE_FLOAT},
};

/* Tensor types that are no weights, so quant/ has no row: plain integers. */
static const struct {
    uint32_t id, bytes;
    const char *name;
} plain[] = {{24, 1, "I8"}, {25, 2, "I16"}, {26, 4, "I32"}, {27, 8, "I64"}};
// clang-format on

const struct gguf_type_row *gguf_type_row(uint32_t type)
{
    return type < NUM_COUNT(rows) ? &rows[type] : NULL;
}

bool gguf_alignment_ok(uint64_t a)
{
    return a >= 8 && a <= (uint64_t)1 << 30 && (a & (a - 1)) == 0;
}

/* ---- the cursor ---------------------------------------------------------------------------------
 */

struct cursor {
    const uint8_t *p;
    size_t n, at;
};

static int ends(const struct cursor *c, const char *what, struct err *e)
{
    return err_set(e, ERR_FORMAT,
                   "the file ends after %zu bytes, inside %s: it is truncated; download it again",
                   c->n, what);
}

/* The next n bytes; NULL when the file has fewer. */
static const uint8_t *take(struct cursor *c, uint64_t n)
{
    const uint8_t *p = c->p + c->at;

    if (n > c->n - c->at)
        return NULL;
    c->at += (size_t)n;
    return p;
}

static bool take_u32(struct cursor *c, uint32_t *v)
{
    const uint8_t *p = take(c, sizeof *v);

    if (p)
        memcpy(v, p, sizeof *v);
    return p;
}

static bool take_u64(struct cursor *c, uint64_t *v)
{
    const uint8_t *p = take(c, sizeof *v);

    if (p)
        memcpy(v, p, sizeof *v);
    return p;
}

static bool take_string(struct cursor *c, const char **s, uint64_t *n)
{
    if (!take_u64(c, n))
        return false;
    *s = (const char *)take(c, *n);
    return *s;
}

/* ---- values -------------------------------------------------------------------------------------
 */

/* A string array: where each string lies. */
struct strings {
    const uint8_t *base; /* of the first string's length */
    const uint32_t *off; /* of each string's length, from base */
};

static void scalar(struct source_value *v, uint32_t type, const uint8_t *p)
{
    union {
        uint64_t u;
        int8_t i8;
        int16_t i16;
        int32_t i32;
        float f32;
        double f64;
    } x = {0};

    memcpy(&x, p, rows[type].size);
    v->type = rows[type].type;
    switch (v->type) {
    case SOURCE_UINT:
        v->u = x.u;
        break;
    case SOURCE_BOOL:
        v->b = x.u != 0;
        break;
    case SOURCE_FLOAT:
        v->f = type == GGUF_F32 ? (double)x.f32 : x.f64;
        break;
    default:
        v->i = type == GGUF_I8    ? x.i8
               : type == GGUF_I16 ? x.i16
               : type == GGUF_I32 ? x.i32
                                  : (int64_t)x.u;
        break;
    }
}

int gguf_array_get(const struct source_value *a, uint64_t i, struct source_value *out,
                   struct err *e)
{
    const struct gguf_type_row *row = &rows[a->raw_type];

    out->raw_type = a->raw_type;
    if (a->raw_type == GGUF_STRING) {
        const struct strings *t = a->raw;
        const uint8_t *p = t->base + t->off[i];
        uint64_t n;
        memcpy(&n, p, sizeof n);
        out->type = SOURCE_STRING;
        out->s.p = (const char *)p + sizeof n;
        out->s.n = (size_t)n;
        return 0;
    }
    if (!row->size)
        return err_set(e, ERR_UNSUPPORTED, "arrays of arrays in GGUF metadata are not read");
    scalar(out, a->raw_type, (const uint8_t *)a->raw + i * row->size);
    return 0;
}

/* Counts elements that have to be walked over one by one. */
static int spend(struct source *s, uint64_t n, struct err *e)
{
    if (n > SOURCE_MAX_STRINGS - s->strings)
        return err_set(e, ERR_LIMIT, "arrays of more than %d strings in all", SOURCE_MAX_STRINGS);
    s->strings += (size_t)n;
    return 0;
}

static int array_head(struct cursor *c, uint32_t *type, uint64_t *count, struct err *e)
{
    const struct gguf_type_row *row;
    uint64_t each;

    if (!take_u32(c, type) || !take_u64(c, count))
        return ends(c, "an array", e);
    row = gguf_type_row(*type);
    if (!row)
        return err_set(e, ERR_FORMAT, "array elements of unknown type %u", *type);
    /* The fewest bytes an element can have. */
    each = row->size ? row->size : *type == GGUF_STRING ? 8 : 12;
    if (*count > (c->n - c->at) / each)
        return err_set(
            e, ERR_FORMAT,
            "an array of %llu %s values does not fit into the %zu bytes that are left: the "
            "file is truncated or damaged; download it again",
            (unsigned long long)*count, row->name, c->n - c->at);
    return 0;
}

/* Steps over arrays of arrays: checked, not kept. */
static int skip_nested(struct source *s, struct cursor *c, uint64_t count, int depth, struct err *e)
{
    int rc = spend(s, count, e);

    if (depth > 8)
        return err_set(e, ERR_FORMAT, "arrays nested more than 8 deep");
    for (uint64_t i = 0; !rc && i < count; i++) {
        uint32_t type = 0;
        uint64_t inner = 0;
        rc = array_head(c, &type, &inner, e);
        if (rc)
            return rc;
        if (type == GGUF_ARRAY) {
            rc = skip_nested(s, c, inner, depth + 1, e);
        } else if (type == GGUF_STRING) {
            rc = spend(s, inner, e);
            for (uint64_t k = 0; !rc && k < inner; k++) {
                const char *p;
                uint64_t n;
                if (!take_string(c, &p, &n))
                    return ends(c, "a string of an array", e);
            }
        } else {
            take(c, inner * rows[type].size);
        }
    }
    return rc;
}

static int read_strings(struct source *s, struct cursor *c, struct source_value *v, struct err *e)
{
    struct strings *t;
    uint32_t *off;
    int rc = spend(s, v->count, e);

    if (rc)
        return rc;
    t = arena_alloc(&s->arena, sizeof *t, e);
    off = t ? arena_array(&s->arena, (size_t)v->count, sizeof *off, e) : NULL;
    if (!off)
        return ERR_NOMEM;
    t->base = c->p + c->at;
    t->off = off;
    for (uint64_t i = 0; i < v->count; i++) {
        size_t at = (size_t)(c->p + c->at - t->base);
        const char *p;
        uint64_t n;
        if (at > UINT32_MAX)
            return err_set(e, ERR_LIMIT, "an array of strings of more than 4 GiB");
        off[i] = (uint32_t)at;
        if (!take_string(c, &p, &n))
            return ends(c, "a string of an array", e);
    }
    v->raw = t;
    return 0;
}

static int read_array(struct source *s, struct cursor *c, struct source_value *v, struct err *e)
{
    uint32_t type = 0;
    int rc = array_head(c, &type, &v->count, e);

    if (rc)
        return rc;
    v->type = SOURCE_ARRAY;
    v->item = rows[type].type;
    v->raw_type = type;
    if (type == GGUF_STRING)
        return read_strings(s, c, v, e);
    if (type == GGUF_ARRAY)
        return skip_nested(s, c, v->count, 1, e);
    v->raw = take(c, v->count * rows[type].size);
    return 0;
}

static int read_value(struct source *s, struct cursor *c, struct source_value *v, struct err *e)
{
    const struct gguf_type_row *row;
    const uint8_t *p;
    uint32_t type;
    uint64_t n;

    if (!take_u32(c, &type))
        return ends(c, "the type of a value", e);
    row = gguf_type_row(type);
    if (!row)
        return err_set(e, ERR_FORMAT, "unknown value type %u", type);
    if (type == GGUF_ARRAY)
        return read_array(s, c, v, e);
    v->raw_type = type;
    if (type == GGUF_STRING) {
        v->type = SOURCE_STRING;
        if (!take_string(c, &v->s.p, &n))
            return ends(c, "a string", e);
        v->s.n = (size_t)n;
        return 0;
    }
    p = take(c, row->size);
    if (!p)
        return ends(c, "a value", e);
    scalar(v, type, p);
    return 0;
}

static int read_name(struct source *s, struct cursor *c, const char **name, struct err *e)
{
    const char *p, *fault;
    uint64_t n;

    if (!take_u64(c, &n))
        return ends(c, "its name", e);
    if (n > c->n - c->at)
        return err_set(
            e, ERR_FORMAT,
            "a name of %llu bytes does not fit into the %zu bytes that are left: the file "
            "is truncated or damaged; download it again",
            (unsigned long long)n, c->n - c->at);
    p = (const char *)take(c, n);
    fault = name_fault(p, (size_t)n);
    if (fault)
        return err_set(e, ERR_FORMAT, "its name '%s' %s: the file is damaged; download it again",
                       name_show(p, (size_t)n).text, fault);
    *name = source_name(s, p, (size_t)n, e);
    return *name ? 0 : ERR_NOMEM;
}

/* ---- tensors ------------------------------------------------------------------------------------
 */

static int size_packed(struct source_tensor *t, const struct quant_type *type, size_t count,
                       struct err *e)
{
    size_t cols = (size_t)t->shape[t->dims - 1], row;

    if (!quant_size(type, cols, &row))
        return err_set(e, ERR_FORMAT, "a row of %zu values is no multiple of %s's block of %u",
                       cols, type->name, type->block);
    if (!num_mul(&t->bytes, row, count / cols) ||
        !packed_size(type, t->dims, t->shape, &t->panel_bytes))
        return err_set(e, ERR_FORMAT, "its size overflows (%zu values)", count);
    t->type = type;
    t->dtype = type->name;
    t->parts = &packed_parts;
    return 0;
}

/* Type and size of a tensor whose shape is known. */
static int size_tensor(struct source_tensor *t, uint32_t type, struct err *e)
{
    uint64_t row = t->dims ? t->shape[t->dims - 1] : 1;
    size_t count = 1;

    for (int i = 0; i < t->dims; i++)
        if (!num_mul(&count, count, t->shape[i]))
            return err_set(e, ERR_FORMAT, "the product of its dimensions overflows");
    if (type >= PACKED_TYPE && packed_takes(quant_by_id(type - PACKED_TYPE), t->dims))
        return size_packed(t, quant_by_id(type - PACKED_TYPE), count, e);
    t->type = type < QUANT_INNER ? quant_by_id(type) : NULL;
    if (t->type) {
        t->dtype = t->type->name;
        if (row % t->type->block)
            return err_set(e, ERR_FORMAT, "a row of %llu values is no multiple of %s's block of %u",
                           (unsigned long long)row, t->type->name, t->type->block);
        if (!quant_size(t->type, count, &t->bytes))
            return err_set(e, ERR_FORMAT, "its size overflows (%zu values)", count);
        return 0;
    }
    for (size_t i = 0; i < NUM_COUNT(plain); i++) {
        if (plain[i].id != type)
            continue;
        t->dtype = plain[i].name;
        if (!num_mul(&t->bytes, count, plain[i].bytes))
            return err_set(e, ERR_FORMAT, "its size overflows (%zu values)", count);
        return 0;
    }
    return err_set(e, ERR_UNSUPPORTED,
                   "tensor type %u is not known here: the file is damaged, or of a type that was "
                   "withdrawn or is newer than this program",
                   type);
}

/* Reads one description; `offset` counts from the data section, whose place is not known yet. */
static int read_tensor(struct source *s, struct cursor *c, struct source_tensor *t, struct err *e)
{
    uint32_t dims, type = 0;
    uint64_t size;
    int rc = read_name(s, c, &t->name, e);

    if (rc)
        return rc;
    if (!take_u32(c, &dims)) {
        rc = ends(c, "its description", e);
    } else if (dims > SOURCE_DIMS) {
        rc = err_set(e, ERR_FORMAT, "%u dimensions, at most %d are possible", dims, SOURCE_DIMS);
    } else {
        t->dims = (int)dims;
        for (int i = 0; i < SOURCE_DIMS; i++)
            t->shape[i] = 1;
        for (int i = t->dims - 1; !rc && i >= 0; i--) {
            if (!take_u64(c, &size))
                rc = ends(c, "its description", e);
            else if (size == 0 || size > INT64_MAX)
                rc = err_set(e, ERR_FORMAT, "dimension %d is %lld", t->dims - 1 - i,
                             (long long)size);
            else
                t->shape[i] = size;
        }
        if (!rc && (!take_u32(c, &type) || !take_u64(c, &t->offset)))
            rc = ends(c, "its description", e);
        if (!rc)
            rc = size_tensor(t, type, e);
    }
    if (rc)
        err_ctx(e, "tensor '%s'", name_show(t->name, strlen(t->name)).text);
    return rc;
}

struct extent {
    uint64_t begin, end;
    const char *name;
};

static int by_begin(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    return (x->begin > y->begin) - (x->begin < y->begin);
}

static int overlap(const struct extent *x, const struct extent *y, struct err *e)
{
    if (strcmp(x->name, y->name) == 0)
        return err_set(e, ERR_FORMAT, "tensor '%s' is given twice",
                       name_show(x->name, strlen(x->name)).text);
    return err_set(e, ERR_FORMAT, "tensors '%s' and '%s' share bytes (from offset %llu)",
                   name_show(x->name, strlen(x->name)).text,
                   name_show(y->name, strlen(y->name)).text, (unsigned long long)y->begin);
}

/* What it takes in the file. */
static size_t file_bytes(const struct source_tensor *t)
{
    return t->parts ? t->panel_bytes : t->bytes;
}

/* No byte belongs to two tensors. Writers store them in order: then there is nothing to sort. */
static int check_overlap(const struct source_tensor *t, size_t n, struct err *e)
{
    struct extent *order;
    size_t i;
    int rc = 0;

    for (i = 1; i < n && t[i].offset >= t[i - 1].offset + file_bytes(&t[i - 1]); i++)
        ;
    if (i >= n)
        return 0;
    order = calloc(n, sizeof *order);
    if (!order)
        return err_nomem(e, n * sizeof *order, "the order of tensors");
    for (i = 0; i < n; i++)
        order[i] = (struct extent){t[i].offset, t[i].offset + file_bytes(&t[i]), t[i].name};
    qsort(order, n, sizeof *order, by_begin);
    for (i = 1; i < n && !rc; i++)
        if (order[i].begin < order[i - 1].end)
            rc = overlap(&order[i - 1], &order[i], e);
    free(order);
    return rc;
}

/* Turns offsets into places in the file, once the end of the header is known. */
static int place_tensors(struct source *s, size_t file, size_t first, size_t header, uint64_t align,
                         struct err *e)
{
    const struct file_map *m = &s->files[file].map;
    size_t start = num_round_up(header, (size_t)align);
    uint64_t room = start <= m->size ? m->size - start : 0;

    for (size_t i = first; i < s->n_tensors; i++) {
        struct source_tensor *t = &s->tensors[i];
        if (t->offset % align)
            return err_set(e, ERR_FORMAT,
                           "tensor '%s': offset %llu is no multiple of the alignment %llu",
                           name_show(t->name, strlen(t->name)).text, (unsigned long long)t->offset,
                           (unsigned long long)align);
        if (t->parts && align % PACKED_ALIGNMENT)
            return err_set(e, ERR_FORMAT,
                           "tensor '%s' is packed, which takes an alignment of %d, but "
                           "general.alignment is %llu",
                           name_show(t->name, strlen(t->name)).text, PACKED_ALIGNMENT,
                           (unsigned long long)align);
        if (t->offset > room || file_bytes(t) > room - t->offset)
            return err_set(
                e, ERR_FORMAT,
                "tensor '%s': its %zu bytes at offset %llu lie beyond the end of the data "
                "(%llu bytes): the file is truncated; download it again",
                name_show(t->name, strlen(t->name)).text, file_bytes(t),
                (unsigned long long)t->offset, (unsigned long long)room);
        t->file = (int)file;
        t->offset += start;
        *(t->parts ? &t->panels : &t->data) = m->data + t->offset;
    }
    return s->n_tensors > first ? check_overlap(s->tensors + first, s->n_tensors - first, e) : 0;
}

/* ---- a file -------------------------------------------------------------------------------------
 */

static int check_version(uint32_t version, struct err *e)
{
    if (version == 2 || version == 3)
        return 0;
    if (version == 1)
        return err_set(e, ERR_UNSUPPORTED, "GGUF version 1: convert it again, to version 3");
    if (__builtin_bswap32(version) <= GGUF_VERSION && version)
        return err_set(e, ERR_UNSUPPORTED,
                       "a big-endian GGUF file: get the little-endian one, or convert it");
    return err_set(e, ERR_FORMAT, "GGUF version %u: only 2 and 3 are known here", version);
}

/*
 * A metadata value of the entries from `first` on, which has to be a whole number ≥ 0; `missing`
 * where there is none.
 */
static int get_count(const struct source *s, size_t first, const char *key, uint64_t missing,
                     uint64_t *out, struct err *e)
{
    *out = missing;
    for (size_t i = first; i < s->n_entries; i++) {
        const struct source_value *v = &s->entries[i].value;
        if (strcmp(s->entries[i].key, key) != 0)
            continue;
        if (v->type == SOURCE_UINT || (v->type == SOURCE_INT && v->i >= 0)) {
            *out = v->u;
            return 0;
        }
        return err_set(e, ERR_FORMAT, "metadata key '%s' has to be a whole number, not %s", key,
                       v->type == SOURCE_ARRAY ? "an array"
                       : v->type == SOURCE_INT ? "a negative one"
                                               : rows[v->raw_type].name);
    }
    return 0;
}

/* Panels of another layout would be nonsense to the kernels. files[0] has the key. */
static int check_panels(const struct source *s, size_t first_tensor, struct err *e)
{
    uint64_t layout;
    size_t i = first_tensor;
    int rc;

    while (i < s->n_tensors && !s->tensors[i].parts)
        i++;
    if (i == s->n_tensors)
        return 0;
    rc = get_count(s, 0, PACKED_KEY, 0, &layout, e);
    if (rc || layout == PANEL_LAYOUTS)
        return rc;
    if (!layout)
        return err_set(e, ERR_FORMAT,
                       "tensor '%s' is packed, but the key '" PACKED_KEY
                       "' does not say how: the file is damaged",
                       name_show(s->tensors[i].name, strlen(s->tensors[i].name)).text);
    return err_set(e, ERR_UNSUPPORTED,
                   "its weights are packed in layout %llu, this program has layout %d: pack the "
                   "original again with ponder convert --packed",
                   (unsigned long long)layout, PANEL_LAYOUTS);
}

/* What the split.* keys of a shard say. */
struct split {
    uint64_t no, count, tensors;
};

/*
 * Reads files[file] and appends its entries and tensors. The entries of later shards are read and
 * checked, and then forgotten.
 */
static int read_shard(struct source *s, size_t file, struct split *split, struct err *e)
{
    struct cursor c = {.p = s->files[file].map.data, .n = s->files[file].map.size, .at = 4};
    size_t first_entry = s->n_entries, first_tensor = s->n_tensors;
    uint64_t tensors, keys, align;
    uint32_t version;
    int rc;

    if (!take_u32(&c, &version))
        return ends(&c, "the version", e);
    rc = check_version(version, e);
    if (rc)
        return rc;
    if (!take_u64(&c, &tensors) || !take_u64(&c, &keys))
        return ends(&c, "the counts of keys and tensors", e);
    /* A key takes at least 14 bytes, a tensor at least 25. */
    if (keys > (c.n - c.at) / 14 || tensors > (c.n - c.at) / 25)
        return err_set(
            e, ERR_FORMAT,
            "%llu metadata keys and %llu tensors are announced, but only %zu bytes follow: "
            "the file is truncated or damaged; download it again",
            (unsigned long long)keys, (unsigned long long)tensors, c.n - c.at);
    rc = source_reserve_entries(s, (size_t)keys, e);
    if (!rc)
        rc = source_reserve_tensors(s, (size_t)tensors, e);
    for (uint64_t i = 0; !rc && i < keys; i++) {
        struct source_entry *entry = &s->entries[s->n_entries];
        memset(entry, 0, sizeof *entry);
        rc = read_name(s, &c, &entry->key, e);
        if (rc)
            return err_ctx(e, "metadata key %llu of %llu", (unsigned long long)i + 1,
                           (unsigned long long)keys);
        entry->coded = c.p + c.at;
        rc = read_value(s, &c, &entry->value, e);
        if (rc)
            return err_ctx(e, "metadata key '%s'", name_show(entry->key, strlen(entry->key)).text);
        entry->coded_n = (size_t)(c.p + c.at - entry->coded);
        s->n_entries++;
    }
    for (uint64_t i = 0; !rc && i < tensors; i++) {
        struct source_tensor *t = &s->tensors[s->n_tensors];
        memset(t, 0, sizeof *t);
        rc = read_tensor(s, &c, t, e);
        if (rc)
            return err_ctx(e, "tensor %llu of %llu", (unsigned long long)i + 1,
                           (unsigned long long)tensors);
        s->n_tensors++;
    }
    if (rc)
        return rc;
    rc = get_count(s, first_entry, "general.alignment", GGUF_ALIGNMENT, &align, e);
    if (!rc && !gguf_alignment_ok(align))
        rc = err_set(e, ERR_FORMAT,
                     "general.alignment is %llu, it has to be a power of two and at least 8",
                     (unsigned long long)align);
    if (!rc)
        rc = get_count(s, first_entry, "split.no", 0, &split->no, e);
    if (!rc)
        rc = get_count(s, first_entry, "split.count", 0, &split->count, e);
    if (!rc)
        rc = get_count(s, first_entry, "split.tensors.count", UINT64_MAX, &split->tensors, e);
    if (!rc)
        rc = place_tensors(s, file, first_tensor, c.at, align, e);
    if (!rc)
        rc = check_panels(s, first_tensor, e);
    if (file > 0)
        s->n_entries = first_entry;
    return rc;
}

/* ---- split sets ---------------------------------------------------------------------------------
 */

enum { SHARD_TAIL = 20 }; /* "-00001-of-00004.gguf" */

/* Reads the numbers at the end of a shard's name; false when it is not named like one. */
static bool shard_name(const char *path, unsigned *no, unsigned *count)
{
    size_t n = strlen(path);
    unsigned v[2] = {0, 0};
    const char *p = path + n - SHARD_TAIL;

    if (n < SHARD_TAIL || p[0] != '-' || memcmp(p + 6, "-of-", 4) != 0 ||
        memcmp(p + 15, ".gguf", 5) != 0)
        return false;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 5; i++) {
            char d = p[1 + 9 * k + i];
            if (d < '0' || d > '9')
                return false;
            v[k] = v[k] * 10 + (unsigned)(d - '0');
        }
    *no = v[0];
    *count = v[1];
    return v[0] >= 1 && v[0] <= v[1];
}

/* Maps shard `no` (from 0) of the set that `path` belongs to. */
static int add_shard(struct source *s, const char *path, unsigned no, unsigned count, struct err *e)
{
    int stem = (int)(strlen(path) - SHARD_TAIL);
    size_t cap = (size_t)stem + 64;
    char *shard = malloc(cap);
    int rc;

    if (!shard)
        return err_nomem(e, cap, "a path");
    snprintf(shard, cap, "%.*s-%05u-of-%05u.gguf", stem, path, no + 1, count);
    if (file_kind(shard) == FILE_NONE) {
        rc = err_set(e, ERR_IO, "%s is missing: shard %u of a model in %u files; download it too",
                     shard, no + 1, count);
    } else {
        rc = source_add_file(s, shard, e);
        if (!rc) {
            const struct file_map *m = &s->files[s->n_files - 1].map;
            if (m->size < 4 || memcmp(m->data, "GGUF", 4) != 0)
                rc = err_set(e, ERR_FORMAT, "%s: not a GGUF file: download it again", shard);
        }
    }
    free(shard);
    return rc;
}

/* Reads files[file] and holds it to its place in the set. */
static int read_member(struct source *s, size_t file, uint64_t count, struct split *split,
                       struct err *e)
{
    int rc = read_shard(s, file, split, e);

    if (!rc && (split->count != count || split->no != file))
        rc = err_set(
            e, ERR_FORMAT,
            "its name says shard %zu of %llu, its metadata say shard %llu of %llu: files of "
            "different models are mixed, or one was renamed",
            file + 1, (unsigned long long)count, (unsigned long long)split->no + 1,
            (unsigned long long)split->count);
    return rc ? err_ctx(e, "%s", s->files[file].path) : 0;
}

static int read_split(struct source *s, unsigned no, unsigned count, struct err *e)
{
    char *path = strdup(s->files[0].path);
    struct split split = {0}, first = {0};
    int rc = 0;

    if (!path)
        return err_nomem(e, strlen(s->path) + 1, "a path");

    /* The given file becomes a member like the others: files[i] is shard i. */
    if (no != 1) {
        file_map_release(&s->files[0].map);
        free(s->files[0].path);
        s->n_files = 0;
        rc = add_shard(s, path, 0, count, e);
    }
    for (unsigned i = 0; !rc && i < count; i++) {
        if (i > 0)
            rc = add_shard(s, path, i, count, e);
        if (!rc)
            rc = read_member(s, i, count, i ? &split : &first, e);
    }
    if (!rc && first.tensors != UINT64_MAX && first.tensors != s->n_tensors)
        rc = err_set(
            e, ERR_FORMAT,
            "%s: split.tensors.count is %llu, but the %u files hold %zu tensors: a file was "
            "replaced; download the model again",
            path, (unsigned long long)first.tensors, count, s->n_tensors);
    free(path);
    return rc;
}

/* Forgets what was read of files[0], to start again with the whole set. */
static void forget(struct source *s)
{
    s->n_entries = s->n_tensors = s->strings = 0;
    arena_release(&s->arena);
}

int gguf_read(struct source *s, struct err *e)
{
    const char *path = s->files[0].path;
    struct split split = {0};
    unsigned no, count;
    int rc = read_shard(s, 0, &split, e);

    if (rc)
        return err_ctx(e, "%s", path);
    if (split.count <= 1 && split.no == 0)
        return 0;
    if (split.no >= split.count)
        return err_set(e, ERR_FORMAT, "%s: split.no is %llu, but split.count %llu", path,
                       (unsigned long long)split.no, (unsigned long long)split.count);
    if (split.count > SOURCE_MAX_FILES)
        return err_set(e, ERR_LIMIT, "%s: a model in %llu files, at most %d are possible", path,
                       (unsigned long long)split.count, SOURCE_MAX_FILES);
    if (s->files[0].borrowed || !shard_name(path, &no, &count) || count != split.count ||
        no != split.no + 1)
        return err_set(
            e, ERR_FORMAT,
            "%s: shard %llu of a model in %llu files, so it has to be called "
            "NAME-%05llu-of-%05llu.gguf and to lie beside the others: give all their names back",
            path, (unsigned long long)split.no + 1, (unsigned long long)split.count,
            (unsigned long long)split.no + 1, (unsigned long long)split.count);
    forget(s);
    return read_split(s, no, count, e);
}
