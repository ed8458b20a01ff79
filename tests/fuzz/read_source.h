/*
 * What fuzz targets of format/ do with a source that has opened: everything in it is read, as
 * inspect and the model layer would, and what must hold is checked.
 */
#ifndef PONDER_TESTS_FUZZ_READ_SOURCE_H
#define PONDER_TESTS_FUZZ_READ_SOURCE_H

#include "format/source.h"

#include <stdlib.h>
#include <string.h>

/* Things that must hold for whatever opens; a crash is how a fuzzer learns of a broken one. */
static inline void must(bool ok)
{
    if (!ok)
        abort();
}

static inline unsigned touch(const void *p, size_t n)
{
    const uint8_t *b = p;
    unsigned sum = 0;

    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + b[i];
    return sum;
}

static inline unsigned read_values(const struct source *s)
{
    unsigned sum = 0;

    for (size_t i = 0; i < source_value_count(s); i++) {
        const struct source_value *v;
        const char *key = source_value_at(s, i, &v);
        must(key && (*key || source_kind(s) == SOURCE_HF) && source_value(s, key) == v);
        if (v->type == SOURCE_STRING)
            sum += touch(v->s.p, v->s.n);
        for (uint64_t k = 0; v->type == SOURCE_ARRAY && k < v->count && k < 10000; k++) {
            struct source_value item;
            struct err e;
            if (source_array_get(s, v, k, &item, &e))
                break;
            must(item.type == v->item);
            if (item.type == SOURCE_STRING)
                sum += touch(item.s.p, item.s.n);
        }
    }
    return sum;
}

static inline unsigned read_tensors(const struct source *s)
{
    unsigned sum = 0;

    for (size_t i = 0; i < source_tensor_count(s); i++) {
        const struct source_tensor *t = source_tensor_at(s, i);
        size_t bytes, cols = t->dims ? (size_t)t->shape[t->dims - 1] : 1;
        uint64_t rows = source_row_count(t);
        uint8_t *row;
        must(source_tensor(s, t->name) == t && t->dtype);
        if (t->type) {
            must(quant_size(t->type, cols, &bytes));
            must(bytes * rows == t->bytes && (!rows || bytes == source_row_bytes(t)));
        }
        if (!t->parts) {
            sum += touch(t->data, t->bytes);
            continue;
        }
        must(t->type && !t->data);
        row = malloc(bytes + 1);
        for (uint64_t r = 0; row && r < rows && r < 1000; r++) {
            source_rows(t, r, 1, row, bytes);
            sum += touch(row, bytes);
        }
        free(row);
    }
    return sum;
}

/* Whatever opened, or the error that says why nothing did. Frees the source. */
static inline void read_source(struct source *s, int rc, const struct err *e)
{
    volatile unsigned sum;

    if (rc) {
        must(!s && rc == e->code && e->text[0]);
        return;
    }
    sum = read_values(s) + read_tensors(s);
    (void)sum;
    source_free(s);
}

#endif
