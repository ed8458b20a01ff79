/* Reading and writing of references; the format is in reference.h. */
#include "eval/reference.h"

#include "base/hash.h"
#include "base/num.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "references are little-endian");

enum { REFERENCE_VERSION = 1 };
static const char reference_magic[8] = "ponderLP";

/* The head as it lies in the file. */
struct reference_disk {
    char magic[8];
    uint32_t version, vocab, top, ctx, stride;
    int32_t bos;
    uint64_t n_ids, windows, rows;
    uint64_t tokenizer, model, text; /* text: FNV-1a of the ids */
    char name[REFERENCE_NAME], type[REFERENCE_TYPE];
    uint8_t unused[48]; /* 0 */
};
_Static_assert(sizeof(struct reference_disk) == 256, "the head has 256 bytes");

uint64_t reference_tokenizer(const struct tokenizer *t)
{
    uint64_t h = HASH_FNV1A;
    if (!t)
        return 0;
    for (size_t i = 0; i < tokenizer_count(t); i++) {
        size_t n;
        const char *p = tokenizer_bytes(t, (int32_t)i, &n);
        uint64_t size = n;
        h = hash_fnv1a(&size, sizeof size, h);
        h = hash_fnv1a(p, n, h);
    }
    return h;
}

size_t reference_row_bytes(size_t top)
{
    return top * (sizeof(uint32_t) + sizeof(float)) + 2 * sizeof(float);
}

struct cells reference_cells(uint8_t *row, size_t top)
{
    struct cells c;
    float last[2];
    c.ids = (uint32_t *)(void *)row;
    c.lp = (float *)(void *)(row + top * sizeof *c.ids);
    memcpy(last, c.lp + top, sizeof last);
    c.right = last[0];
    c.rest = last[1];
    return c;
}

void reference_cells_put(uint8_t *row, size_t top, const struct cells *c)
{
    float last[2] = {c->right, c->rest};
    memcpy(row + top * (sizeof *c->ids + sizeof *c->lp), last, sizeof last);
}

/* ---- writing --------------------------------------------------------------------------------- */

static int reference_put(struct reference_writer *w, const void *p, size_t n, struct err *e)
{
    w->sum = hash_fnv1a(p, n, w->sum);
    return file_out_write(&w->file, p, n, e);
}

int reference_writer_open(struct reference_writer *w, const char *path,
                          const struct reference_head *h, const int32_t *ids, struct err *e)
{
    struct reference_disk d = {.version = REFERENCE_VERSION,
                               .vocab = (uint32_t)h->vocab,
                               .top = (uint32_t)h->top,
                               .ctx = (uint32_t)h->cut.ctx,
                               .stride = (uint32_t)h->cut.stride,
                               .bos = h->bos,
                               .n_ids = h->n_ids,
                               .windows = h->windows,
                               .rows = h->rows,
                               .tokenizer = h->tokenizer,
                               .model = h->model};
    memcpy(d.magic, reference_magic, sizeof d.magic);
    memcpy(d.name, h->name, strnlen(h->name, sizeof d.name - 1));
    memcpy(d.type, h->type, strnlen(h->type, sizeof d.type - 1));
    d.text = hash_fnv1a(ids, h->n_ids * sizeof *ids, HASH_FNV1A);
    *w = (struct reference_writer){.file = {.fd = -1},
                                   .sum = HASH_FNV1A,
                                   .row_bytes = reference_row_bytes(h->top),
                                   .rows_left = h->rows};
    int rc = file_out_open(&w->file, path, e);
    if (!rc)
        rc = reference_put(w, &d, sizeof d, e);
    if (!rc)
        rc = reference_put(w, ids, h->n_ids * sizeof *ids, e);
    if (rc)
        reference_writer_abort(w);
    return rc;
}

int reference_writer_rows(struct reference_writer *w, const uint8_t *rows, size_t n, struct err *e)
{
    if (n > w->rows_left)
        return err_set(e, ERR_USAGE, "more rows than were announced");
    w->rows_left -= n;
    return reference_put(w, rows, n * w->row_bytes, e);
}

int reference_writer_commit(struct reference_writer *w, struct err *e)
{
    uint64_t sum = w->sum;
    int rc = w->rows_left ? err_set(e, ERR_USAGE, "fewer rows than were announced")
                          : file_out_write(&w->file, &sum, sizeof sum, e);
    if (rc) {
        reference_writer_abort(w);
        return rc;
    }
    return file_out_commit(&w->file, e);
}

void reference_writer_abort(struct reference_writer *w)
{
    if (w->file.fd >= 0)
        file_out_abort(&w->file);
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool reference_text_ok(const char *s, size_t cap)
{
    size_t n = strnlen(s, cap);
    return n < cap;
}

/* The head's numbers agree with each other and with the size of the file. */
static int reference_head_check(struct reference *r, const struct reference_disk *d,
                                const uint8_t *data, size_t have, struct err *e)
{
    struct reference_head *h = &r->head;
    size_t ids, rows, size, windows;
    struct err why;
    if (memcmp(d->magic, reference_magic, sizeof d->magic))
        return err_set(e, ERR_FORMAT, "is no file of saved logits: make one with --save-logits");
    if (d->version != REFERENCE_VERSION)
        return err_set(e, ERR_UNSUPPORTED,
                       "has version %" PRIu32 " of the format, this program "
                       "reads %d: save the logits again",
                       d->version, REFERENCE_VERSION);
    *h = (struct reference_head){.vocab = d->vocab,
                                 .top = d->top,
                                 .cut = {d->ctx, d->stride, 0},
                                 .windows = d->windows,
                                 .rows = d->rows,
                                 .n_ids = d->n_ids,
                                 .bos = d->bos,
                                 .tokenizer = d->tokenizer,
                                 .model = d->model};
    r->row_bytes = reference_row_bytes(h->top);
    if (h->vocab < 1 || h->vocab > INT32_MAX || h->top < 1 || h->top > h->vocab || h->bos < -1 ||
        (h->bos >= 0 && (size_t)h->bos >= h->vocab) ||
        !reference_text_ok(d->name, sizeof d->name) || !reference_text_ok(d->type, sizeof d->type))
        return err_set(e, ERR_FORMAT, "has a head that makes no sense: save the logits again");
    memcpy(h->name, d->name, sizeof h->name);
    memcpy(h->type, d->type, sizeof h->type);
    if (!num_mul(&ids, h->n_ids, sizeof(int32_t)) || !num_mul(&rows, h->rows, r->row_bytes) ||
        !num_add(&size, ids, rows) || !num_add(&size, size, sizeof *d + sizeof(uint64_t)) ||
        size != have)
        return err_set(e, ERR_FORMAT,
                       "has %zu bytes and its head says otherwise: it is truncated "
                       "or damaged; save the logits again",
                       have);
    if (eval_windows(&windows, &h->cut, h->n_ids, &why) || h->windows < 1 || h->windows > windows ||
        eval_window_rows(&h->cut, h->n_ids, h->windows) != h->rows)
        return err_set(e, ERR_FORMAT,
                       "has a head whose counts do not agree: save the logits again");
    h->cut.limit = h->windows;
    r->ids = (const int32_t *)(const void *)(data + sizeof *d);
    r->rows = data + sizeof *d + ids;
    return 0;
}

static bool reference_lp_ok(float lp)
{
    return lp <= 0.001f; /* also not NaN; -inf is fine for the rest only, see the callers */
}

static bool reference_row_ok(const struct reference *r, size_t i)
{
    const uint8_t *row = r->rows + i * r->row_bytes;
    const uint32_t *ids = (const uint32_t *)(const void *)row;
    const float *lp = (const float *)(const void *)(row + r->head.top * sizeof *ids);
    for (size_t k = 0; k < r->head.top; k++)
        if (ids[k] >= r->head.vocab || !reference_lp_ok(lp[k]) || isinf(lp[k]))
            return false;
    const float *last = lp + r->head.top;
    return reference_lp_ok(last[0]) && !isinf(last[0]) && reference_lp_ok(last[1]);
}

int reference_open_memory(struct reference *r, const uint8_t *p, size_t n, struct err *e)
{
    struct reference_disk d;
    uint64_t sum;
    memset(r, 0, sizeof *r);
    if (n < sizeof d)
        return err_set(e, ERR_FORMAT, "is no file of saved logits: make one with --save-logits");
    memcpy(&d, p, sizeof d);
    int rc = reference_head_check(r, &d, p, n, e);
    if (rc)
        return rc;
    size_t body = n - sizeof sum;
    memcpy(&sum, p + body, sizeof sum);
    if (hash_fnv1a(p, body, HASH_FNV1A) != sum)
        return err_set(e, ERR_FORMAT, "is damaged (its checksum differs): save the logits again");
    for (size_t i = 0; i < r->head.n_ids; i++)
        if (r->ids[i] < 0 || (size_t)r->ids[i] >= r->head.vocab)
            return err_set(e, ERR_FORMAT,
                           "token %zu is outside the vocabulary: save the logits "
                           "again",
                           i);
    for (size_t i = 0; i < r->head.rows; i++)
        if (!reference_row_ok(r, i))
            return err_set(e, ERR_FORMAT,
                           "row %zu holds what is no probability: save the logits "
                           "again",
                           i);
    return 0;
}

int reference_open(struct reference *r, const char *path, struct err *e)
{
    struct file_map map;
    memset(r, 0, sizeof *r);
    int rc = file_map(&map, path, e);
    if (rc)
        return rc;
    rc = reference_open_memory(r, map.data, map.size, e);
    if (rc) {
        file_map_release(&map);
        return err_ctx(e, "%.300s", path);
    }
    r->map = map;
    return 0;
}

void reference_release(struct reference *r)
{
    file_map_release(&r->map);
    memset(r, 0, sizeof *r);
}
