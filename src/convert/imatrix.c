/*
 * Reading importance: see imatrix.h.
 *
 * The .dat layout, little-endian: int32 count; per entry int32 length and name, int32 calls, int32
 * n, n floats (sums over `calls` chunks); then int32 chunks, int32 length and name of the text.
 */
#include "convert/imatrix.h"

#include "base/arena.h"
#include "base/file.h"
#include "base/num.h"
#include "format/insums.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IMATRIX_MAX = 1 << 30, IMATRIX_ENTRIES = 1 << 18, IMATRIX_NAME = 1024 };

struct imatrix_entry {
    const char *name;
    const float *v;
    size_t n;
};

struct imatrix {
    struct arena arena;
    struct imatrix_entry *entry; /* by name */
    size_t n;
    const char *dataset;
    int64_t chunks;
};

static int by_name(const void *a, const void *b)
{
    const struct imatrix_entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

const float *imatrix_find(const struct imatrix *m, const char *tensor, size_t *n)
{
    struct imatrix_entry key = {.name = tensor};
    const struct imatrix_entry *x = bsearch(&key, m->entry, m->n, sizeof key, by_name);
    if (x)
        *n = x->n;
    return x ? x->v : NULL;
}

size_t imatrix_count(const struct imatrix *m)
{
    return m->n;
}

const char *imatrix_dataset(const struct imatrix *m)
{
    return m->dataset;
}

int64_t imatrix_chunks(const struct imatrix *m)
{
    return m->chunks;
}

/* Room for n values of a new entry. */
static float *imatrix_add(struct imatrix *m, const char *name, size_t len, size_t n, struct err *e)
{
    char *copy = arena_strndup(&m->arena, name, len, e);
    float *v = copy ? arena_array(&m->arena, n, sizeof *v, e) : NULL;
    if (v)
        m->entry[m->n++] = (struct imatrix_entry){copy, v, n};
    return v;
}

static int imatrix_check(const struct imatrix_entry *x, struct err *e)
{
    for (size_t i = 0; i < x->n; i++)
        if (!(x->v[i] >= 0) || isinf(x->v[i]))
            return err_set(e, ERR_FORMAT, "\"%.80s\": value %zu is %g, must not be negative",
                           x->name, i, (double)x->v[i]);
    return 0;
}

/* ---- .dat -------------------------------------------------------------------------------------
 */

struct reader {
    const uint8_t *p;
    size_t n, at;
};

static bool take(struct reader *r, void *out, size_t n)
{
    if (n > r->n - r->at)
        return false;
    memcpy(out, r->p + r->at, n);
    r->at += n;
    return true;
}

static int truncated(struct err *e)
{
    return err_set(e, ERR_FORMAT, "not an imatrix file, or it is truncated");
}

static int dat_entry(struct imatrix *m, struct reader *r, struct err *e)
{
    int32_t len, calls, n;
    if (!take(r, &len, sizeof len) || len <= 0 || len > IMATRIX_NAME || (size_t)len > r->n - r->at)
        return truncated(e);
    const char *name = (const char *)r->p + r->at;
    r->at += (size_t)len;
    if (!take(r, &calls, sizeof calls) || !take(r, &n, sizeof n) || n <= 0 ||
        (size_t)n > (r->n - r->at) / sizeof(float))
        return truncated(e);
    float *v = imatrix_add(m, name, (size_t)len, (size_t)n, e);
    if (!v)
        return ERR_NOMEM;
    take(r, v, (size_t)n * sizeof *v);
    for (int32_t i = 0; calls > 0 && i < n; i++)
        v[i] /= (float)calls;
    return imatrix_check(&m->entry[m->n - 1], e);
}

static int read_dat(struct imatrix *m, const struct file_map *map, struct err *e)
{
    struct reader r = {map->data, map->size, 0};
    int32_t count, chunks, len;
    if (!take(&r, &count, sizeof count) || count <= 0 || count > IMATRIX_ENTRIES)
        return truncated(e);
    m->entry = arena_array(&m->arena, (size_t)count, sizeof *m->entry, e);
    int rc = m->entry ? 0 : ERR_NOMEM;
    for (int32_t i = 0; !rc && i < count; i++)
        rc = dat_entry(m, &r, e);
    if (!rc && take(&r, &chunks, sizeof chunks)) {
        m->chunks = chunks;
        if (take(&r, &len, sizeof len) && len > 0 && (size_t)len <= r.n - r.at) {
            m->dataset = arena_strndup(&m->arena, (const char *)r.p + r.at, (size_t)len, e);
            rc = m->dataset ? 0 : ERR_NOMEM;
        }
    }
    return rc;
}

/* ---- GGUF -------------------------------------------------------------------------------------
 */

/* Means: sums over how often each matrix was used; 1 where it never was. */
static int gguf_entry(struct imatrix *m, const struct insums_entry *x, struct err *e)
{
    float *v = imatrix_add(m, x->name, strlen(x->name), x->mats * x->cols, e);
    if (!v)
        return ERR_NOMEM;
    for (size_t i = 0; i < x->mats; i++)
        for (size_t k = 0; k < x->cols; k++)
            v[i * x->cols + k] =
                x->counts[i] > 0 ? (float)(x->sum2[i * x->cols + k] / x->counts[i]) : 1;
    return imatrix_check(&m->entry[m->n - 1], e);
}

static int read_gguf(struct imatrix *m, const char *path, struct err *e)
{
    struct insums s;
    insums_init(&s);
    int rc = insums_read(&s, path, e);
    if (!rc && !s.n)
        rc = err_set(e, ERR_FORMAT, "no importance is in this file");
    if (!rc && !(m->entry = arena_array(&m->arena, s.n, sizeof *m->entry, e)))
        rc = ERR_NOMEM;
    for (size_t i = 0; !rc && i < s.n; i++)
        rc = gguf_entry(m, &s.entries[i], e);
    m->chunks = s.chunks && s.chunks < INT64_MAX ? (int64_t)s.chunks : -1;
    if (!rc && s.n_datasets) {
        m->dataset = arena_strndup(&m->arena, s.datasets[0], strlen(s.datasets[0]), e);
        rc = m->dataset ? 0 : ERR_NOMEM;
    }
    insums_release(&s);
    return rc;
}

int imatrix_open(struct imatrix **out, const char *path, struct err *e)
{
    struct file_map map = {0};
    struct imatrix *m = calloc(1, sizeof *m);
    *out = NULL;
    if (!m)
        return err_nomem(e, sizeof *m, "the imatrix");
    arena_init(&m->arena, IMATRIX_MAX);
    m->dataset = "";
    m->chunks = -1;
    int rc = file_map(&map, path, e);
    if (!rc) {
        rc = map.size >= 4 && memcmp(map.data, "GGUF", 4) == 0 ? read_gguf(m, path, e)
                                                               : read_dat(m, &map, e);
        if (rc && strncmp(e->text, path, strlen(path)) != 0)
            err_ctx(e, "%.200s", path);
    }
    file_map_release(&map);
    if (rc) {
        imatrix_free(m);
        return rc;
    }
    if (m->n)
        qsort(m->entry, m->n, sizeof *m->entry, by_name);
    *out = m;
    return 0;
}

void imatrix_free(struct imatrix *m)
{
    if (!m)
        return;
    arena_release(&m->arena);
    free(m);
}
