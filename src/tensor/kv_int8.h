/* Pages of the KV cache in int8 (kern.h: struct kern_page_shape). Private to tensor/. */
#ifndef PONDER_TENSOR_KV_INT8_H
#define PONDER_TENSOR_KV_INT8_H

#include "kernels/kern.h"
#include "tensor/kv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Keys of a head or latents; values of a head, or of latents, where they are the keys' front. */
struct kern_page_shape kv_int8_k(const struct kv_shape *s);
struct kern_page_shape kv_int8_v(const struct kv_shape *s);

/* Bytes of one head's page; false when the shape cannot be. */
bool kv_int8_bytes(const struct kern_page_shape *s, size_t *bytes);

/* Position `at` of a page: s->d values into it, and back. */
void kv_int8_store(const struct kern *kern, const struct kern_page_shape *s, uint8_t *page,
                   size_t at, const float *x);
void kv_int8_load(const struct kern_page_shape *s, const uint8_t *page, size_t at, float *x);

/* Columns of queries and their weights on the way over the pages; memory of the caller. */
struct kv_int8_cols {
    struct kern_page_shape k, v;
    size_t cols;
    int8_t *q;     /* (cols, k.d) */
    float *qd;     /* (cols, blocks) */
    int32_t *qsum; /* (cols, blocks) */
    uint8_t *p;    /* (2 × cols, 64) */
    float *pd;     /* (2 × cols) */
    uint32_t *to;  /* (2 × cols) */
};

size_t kv_int8_floats(size_t d_k, size_t cols); /* enough for any blocks */
void kv_int8_place(struct kv_int8_cols *l, const struct kv_shape *s, size_t cols, float *mem);

/* Column c from floats. */
void kv_int8_query(const struct kern *kern, struct kv_int8_cols *l, size_t c, const float *x);

/* s (cols, 64) with a page of keys; ahead: what is read next, or NULL. */
void kv_int8_scores(const struct kern *kern, const struct kv_int8_cols *l, const uint8_t *page,
                    const uint8_t *ahead, float *s);

/* o (cols, v.front) from a page of values by the weights p (cols, 64), whose sums are `sum`. */
void kv_int8_values(const struct kern *kern, const struct kv_int8_cols *l, const uint8_t *page,
                    const uint8_t *ahead, const float *p, const float *sum, float *o);

#endif
