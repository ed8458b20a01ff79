/*
 * Weights: matrices and vectors as the kernels read them.
 *
 * A matrix (rows = outputs, cols = inputs) comes from rows in its type's form: bytes in the mapped
 * file, or a function that makes them (tensors that a checkpoint stores in parts). It is
 *   packed   into panels of 16 rows (kernels/panel.h) when its type has a kernel: the fast way
 *   lazy     left where it is; a product packs 16 rows at a time into a worker's scratch and runs
 *            the same kernel over them: the same bits, no memory. For models larger than memory,
 *            whose experts are read when they are routed to.
 * Types without a kernel stay in the file and are decoded row by row when used. Vectors (norms,
 * biases) become F32. Memory for all weights of a model is one region (struct weight_store), in
 * 2 MiB pages where the system gives them.
 */
#ifndef PONDER_TENSOR_WEIGHT_H
#define PONDER_TENSOR_WEIGHT_H

#include "base/err.h"
#include "base/team.h"
#include "kernels/kern.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where rows come from: `at`, rows of quant_size bytes one after another, or `make`. */
struct weight_rows {
    const uint8_t *at; /* in the mapping; NULL: make them */
    /* Writes rows [row0 + r, row0 + r + n), `stride` bytes apart. Pure, any thread. */
    void (*make)(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride);
    const void *arg; /* outlives the weight */
    uint64_t row0;   /* added to r: a slice of a larger tensor */
};

struct weight_lora;

struct weight {
    const char *name; /* as in the file; for errors and tapes */
    const struct quant_type *type;
    size_t rows, cols; /* a vector has rows = 1 */
    struct weight_rows from;
    size_t row_bytes;               /* of a row in its type's form */
    const uint8_t *panels;          /* packed, or NULL: then products read `from` */
    size_t panel_bytes;             /* of one panel */
    const float *vec;               /* vectors: F32 values */
    const uint32_t *order;          /* column j belongs to input order[j]; NULL: to input j */
    const struct weight_lora *lora; /* what an adapter adds to products; NULL: nothing */
};

/* The product of an adapted weight is w x + scale × b (a x). */
struct weight_lora {
    struct weight a, b; /* (rank, cols), (rows, rank), F32 */
    float scale;
};

struct weight_store {
    uint8_t *mem;
    size_t cap, used;
};

int weight_store_init(struct weight_store *s, size_t bytes, struct err *e);
void weight_store_release(struct weight_store *s);

/* Bytes a matrix or vector takes from a store. */
size_t weight_matrix_bytes(const struct kern *k, const struct quant_type *t, size_t rows,
                           size_t cols);
size_t weight_vector_bytes(size_t n);

/* True when products of the type have a kernel, so that packing pays. */
bool weight_has_kernel(const struct kern *k, const struct quant_type *t);

/*
 * Fills `w` from rows × cols values. With `store` it is packed with the whole team (when its type
 * has a kernel), and ERR_FORMAT says when values that can be checked cheaply (scales, floats) are
 * NaN or infinite. Without a store it stays lazy and is not looked at.
 */
int weight_matrix(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const struct weight_rows *from, const struct kern *k,
                  struct team *team, struct weight_store *store, struct err *e);
int weight_vector(struct weight *w, const char *name, const struct quant_type *t, size_t n,
                  const struct weight_rows *from, struct weight_store *store, struct err *e);

/* Rows [r, r + n) in the type's form: where they lie (then *stride is set), or made into `dst`,
 * which has room for n × w->row_bytes. */
const uint8_t *weight_rows_at(const struct weight *w, size_t r, size_t n, uint8_t *dst,
                              size_t *stride);

/* One row as F32: (cols). `row` < rows. `tmp`: w->row_bytes, used when rows are made. */
void weight_row(const struct weight *w, size_t row, float *out, uint8_t *tmp);

#endif
