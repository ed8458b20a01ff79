/* Latents of MLA in an int8 cache (kern.h: struct kern_latent). Private to tensor/. */
#ifndef PONDER_TENSOR_LATENT_H
#define PONDER_TENSOR_LATENT_H

#include "kernels/kern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a page of one layer; false when the shape cannot be. */
bool latent_page_bytes(size_t d_k, size_t d_v, size_t *bytes);

/* Position `at` of a page: d_k values into it, and back. */
void latent_store(const struct kern *kern, uint8_t *page, size_t at, const float *x, size_t d_k,
                  size_t d_v);
void latent_load(const uint8_t *page, size_t at, float *x, size_t d_k, size_t d_v);

/* Columns of queries and their weights on the way over the pages; memory of the caller. */
struct latent_cols {
    size_t d_k, d_v, cols;
    int8_t *q;     /* (cols, d_k) */
    float *qd;     /* (cols, blocks) */
    int32_t *qsum; /* (cols, blocks) */
    uint8_t *p;    /* (2 × cols, 64) */
    float *pd;     /* (2 × cols) */
    uint32_t *to;  /* (2 × cols) */
};

size_t latent_cols_floats(size_t d_k, size_t d_v, size_t cols);
void latent_cols_place(struct latent_cols *l, size_t d_k, size_t d_v, size_t cols, float *mem);

/* Column c from floats. */
void latent_query(const struct kern *kern, struct latent_cols *l, size_t c, const float *x);

/* s (cols, 64); ahead: the next page or NULL. */
void latent_page_scores(const struct kern *kern, const struct latent_cols *l, const uint8_t *page,
                        const uint8_t *ahead, float *s);

/* o (cols, d_v) by the weights p (cols, 64), whose sums are `sum`. */
void latent_page_values(const struct kern *kern, const struct latent_cols *l, const uint8_t *page,
                        const float *p, const float *sum, float *o);

#endif
