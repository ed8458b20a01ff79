/* See insums.h. Sums are kept in double and stored as F32, as other programs read them. */
#include "format/insums.h"

#include "base/num.h"
#include "format/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    INSUMS_ENTRIES = 1 << 20,
    INSUMS_DATASETS = 4096,
    INSUMS_NAME = 64, /* of a tensor in a GGUF file, with its NUL */
};

static const char sums_ending[] = ".in_sum2", counts_ending[] = ".counts";

void insums_init(struct insums *m)
{
    memset(m, 0, sizeof *m);
}

void insums_release(struct insums *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].name);
        free(m->entries[i].sum2);
        free(m->entries[i].counts);
    }
    free(m->entries);
    for (size_t i = 0; i < m->n_datasets; i++)
        free(m->datasets[i]);
    free(m->datasets);
    memset(m, 0, sizeof *m);
}

/* Names come in the same order again and again, so the one after the last is looked at first. */
static size_t insums_index(const struct insums *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++) {
        size_t k = (m->at + i) % m->n;
        if (!strcmp(m->entries[k].name, name))
            return k;
    }
    return m->n;
}

const struct insums_entry *insums_find(const struct insums *m, const char *name)
{
    size_t i = insums_index(m, name);
    return i < m->n ? &m->entries[i] : NULL;
}

static int insums_add(struct insums *m, const char *name, size_t mats, size_t cols, struct err *e)
{
    size_t n = strlen(name), values;
    if (n == 0 || n + sizeof sums_ending > INSUMS_NAME)
        return err_set(e, ERR_FORMAT, "\"%.80s\" is no name that an imatrix can have", name);
    if (mats == 0 || cols == 0 || !num_mul(&values, mats, cols) || m->n >= INSUMS_ENTRIES)
        return err_set(e, ERR_LIMIT, "%s: %zu x %zu inputs are too many", name, mats, cols);
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 64;
        struct insums_entry *p = realloc(m->entries, cap * sizeof *p);
        if (!p)
            return err_nomem(e, cap * sizeof *p, "the importance matrix");
        m->entries = p;
        m->cap = cap;
    }
    struct insums_entry x = {.name = strdup(name), .mats = mats, .cols = cols};
    x.sum2 = calloc(values, sizeof *x.sum2);
    x.counts = calloc(mats, sizeof *x.counts);
    if (!x.name || !x.sum2 || !x.counts) {
        free(x.name);
        free(x.sum2);
        free(x.counts);
        return err_nomem(e, values * sizeof *x.sum2, "the importance matrix");
    }
    m->entries[m->n++] = x;
    return 0;
}

int insums_entry(struct insums_entry **out, struct insums *m, const char *name, size_t mats,
                 size_t cols, struct err *e)
{
    size_t i = insums_index(m, name);
    int rc = 0;
    if (i == m->n)
        rc = insums_add(m, name, mats, cols, e);
    else if (m->entries[i].mats != mats || m->entries[i].cols != cols)
        rc = err_set(e, ERR_FORMAT,
                     "%s has %zu x %zu inputs here and %zu x %zu in the importance matrix: it is "
                     "of another model",
                     name, mats, cols, m->entries[i].mats, m->entries[i].cols);
    if (rc)
        return rc;
    m->at = i + 1 < m->n ? i + 1 : 0;
    *out = &m->entries[i];
    return 0;
}

int insums_dataset(struct insums *m, const char *name, size_t n, struct err *e)
{
    for (size_t i = 0; i < m->n_datasets; i++)
        if (strlen(m->datasets[i]) == n && !memcmp(m->datasets[i], name, n))
            return 0;
    if (m->n_datasets == INSUMS_DATASETS)
        return err_set(e, ERR_LIMIT, "an importance matrix of more than %d texts", INSUMS_DATASETS);
    char **p = realloc(m->datasets, (m->n_datasets + 1) * sizeof *p);
    if (!p)
        return err_nomem(e, sizeof *p, "the importance matrix");
    m->datasets = p;
    p[m->n_datasets] = strndup(name, n);
    if (!p[m->n_datasets])
        return err_nomem(e, n, "the importance matrix");
    m->n_datasets++;
    return 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static int read_number(const struct source *s, const char *key, uint32_t *out, struct err *e)
{
    const struct source_value *v = source_value(s, key);
    if (!v || (v->type != SOURCE_UINT && v->type != SOURCE_INT) || v->u > UINT32_MAX)
        return err_set(e, ERR_FORMAT, "%s is missing or no number", key);
    *out = (uint32_t)v->u;
    return 0;
}

static int read_facts(struct insums *m, const struct source *s, struct err *e)
{
    uint32_t chunks = 0, size = 0;
    const struct source_value *v = source_value(s, "general.type");
    if (!v || v->type != SOURCE_STRING || v->s.n != 7 || memcmp(v->s.p, "imatrix", 7))
        return err_set(e, ERR_FORMAT, "is no importance matrix (general.type is not \"imatrix\")");
    int rc = read_number(s, "imatrix.chunk_count", &chunks, e);
    if (!rc && source_value(s, "imatrix.chunk_size")) /* only merging wants to know it */
        rc = read_number(s, "imatrix.chunk_size", &size, e);
    if (rc)
        return rc;
    m->chunks += chunks;
    if (!m->chunk_size)
        m->chunk_size = size;
    v = source_value(s, "imatrix.datasets");
    if (!v || v->type != SOURCE_ARRAY || v->item != SOURCE_STRING)
        return 0; /* empty, or unnamed texts */
    for (uint64_t i = 0; i < v->count && !rc; i++) {
        struct source_value x;
        rc = source_array_get(s, v, i, &x, e);
        if (!rc)
            rc = insums_dataset(m, x.s.p, x.s.n, e);
    }
    return rc;
}

static bool read_shape_ok(const struct source_tensor *t)
{
    return t && t->type && t->type->id == QUANT_F32 && t->dims >= 1 && t->dims <= 2 && t->bytes;
}

static int read_tensor(struct insums *m, const struct source *s, const struct source_tensor *t,
                       struct err *e)
{
    char name[INSUMS_NAME], other[2 * INSUMS_NAME];
    size_t n = strlen(t->name), cut = sizeof sums_ending - 1;
    if (n < cut || strcmp(t->name + n - cut, sums_ending))
        return 0;
    if (n - cut >= sizeof name)
        return err_set(e, ERR_FORMAT, "\"%.80s\": the name is too long", t->name);
    snprintf(name, sizeof name, "%.*s", (int)(n - cut), t->name);
    snprintf(other, sizeof other, "%s%s", name, counts_ending);
    const struct source_tensor *c = source_tensor(s, other);
    /* Readers show one-row tensors with or without their outer dimension. */
    size_t cols = t->dims ? (size_t)t->shape[t->dims - 1] : 0;
    if (!read_shape_ok(t) || !read_shape_ok(c) ||
        t->bytes / sizeof(float) / cols != c->bytes / sizeof(float))
        return err_set(e, ERR_FORMAT, "%s has no sums and counts that fit together", name);
    size_t mats = c->bytes / sizeof(float);
    struct insums_entry *x;
    int rc = insums_entry(&x, m, name, mats, cols, e);
    if (rc)
        return rc;
    for (size_t i = 0; i < mats * cols + mats; i++) {
        float v;
        bool count = i >= mats * cols;
        memcpy(&v, count ? c->data + (i - mats * cols) * sizeof v : t->data + i * sizeof v,
               sizeof v);
        if (!(v >= 0) || isinf(v))
            return err_set(e, ERR_FORMAT, "%s holds a sum or a count that is no number from 0 on",
                           name);
        *(count ? &x->counts[i - mats * cols] : &x->sum2[i]) += v;
    }
    return 0;
}

int insums_read(struct insums *m, const char *path, struct err *e)
{
    struct source *s;
    int rc = source_open(&s, path, e);
    if (rc)
        return rc;
    rc = read_facts(m, s, e);
    for (size_t i = 0; i < source_tensor_count(s) && !rc; i++)
        rc = read_tensor(m, s, source_tensor_at(s, i), e);
    if (rc)
        err_ctx(e, "%.300s", path);
    source_free(s);
    return rc;
}

/* ---- writing --------------------------------------------------------------------------------- */

static int write_head(const struct insums *m, struct gguf_writer *w, struct err *e)
{
    const struct quant_type *f32 = quant_by_id(QUANT_F32);
    char name[2 * INSUMS_NAME];
    int rc = gguf_put_string(w, "general.type", "imatrix", 7, e);
    size_t *n = calloc(m->n_datasets + 1, sizeof *n);
    if (!n)
        return err_nomem(e, m->n_datasets * sizeof *n, "the importance matrix");
    for (size_t i = 0; i < m->n_datasets; i++)
        n[i] = strlen(m->datasets[i]);
    if (!rc)
        rc = gguf_put_strings(w, "imatrix.datasets", (const char *const *)m->datasets, n,
                              m->n_datasets, e);
    free(n);
    if (!rc)
        rc = gguf_put_u32(w, "imatrix.chunk_count",
                          m->chunks < UINT32_MAX ? (uint32_t)m->chunks : UINT32_MAX, e);
    if (!rc)
        rc = gguf_put_u32(w, "imatrix.chunk_size", m->chunk_size, e);
    for (size_t i = 0; i < m->n && !rc; i++) {
        const struct insums_entry *x = &m->entries[i];
        uint64_t sums[2] = {x->mats, x->cols}, counts[2] = {x->mats, 1};
        snprintf(name, sizeof name, "%s%s", x->name, sums_ending);
        rc = gguf_add_tensor(w, name, f32, 2, sums, e);
        snprintf(name, sizeof name, "%s%s", x->name, counts_ending);
        if (!rc)
            rc = gguf_add_tensor(w, name, f32, 2, counts, e);
    }
    return rc;
}

static int write_floats(struct gguf_writer *w, const double *v, size_t n, struct err *e)
{
    float piece[1024];
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i += NUM_COUNT(piece)) {
        size_t k = num_min(NUM_COUNT(piece), n - i);
        for (size_t j = 0; j < k; j++)
            piece[j] = (float)v[i + j];
        rc = gguf_write_data(w, piece, k * sizeof *piece, e);
    }
    return rc;
}

int insums_write(const struct insums *m, const char *path, struct err *e)
{
    struct gguf_writer *w;
    int rc = gguf_writer_new(&w, path, e);
    if (rc)
        return rc;
    rc = write_head(m, w, e);
    for (size_t i = 0; i < m->n && !rc; i++) {
        const struct insums_entry *x = &m->entries[i];
        rc = write_floats(w, x->sum2, x->mats * x->cols, e);
        if (!rc)
            rc = write_floats(w, x->counts, x->mats, e);
    }
    if (!rc)
        rc = gguf_writer_commit(w, e);
    gguf_writer_free(w);
    return rc;
}
