/*
 * Weights: matrices and vectors as the kernels read them.
 *
 * A matrix (rows = outputs, cols = inputs) is packed into panels of 16 rows (kernels/panel.h) when
 * its type has a kernel; other types stay as they lie in the file and are decoded row by row when
 * used. Vectors (norms, biases) become F32. Memory for all weights of a model is one region (struct
 * weight_store), in 2 MiB pages where the system gives them.
 */
#ifndef PONDER_TENSOR_WEIGHT_H
#define PONDER_TENSOR_WEIGHT_H

#include "base/err.h"
#include "base/team.h"
#include "kernels/kern.h"
#include "quant/quant.h"

#include <stddef.h>
#include <stdint.h>

struct weight {
    const char *name; /* as in the file; for errors and tapes */
    const struct quant_type *type;
    size_t rows, cols;     /* a vector has rows = 1 */
    const uint8_t *raw;    /* file order, in the mapping; NULL for weights made in memory */
    size_t raw_stride;     /* bytes of a row */
    const uint8_t *panels; /* packed, or NULL: then products decode `raw` */
    size_t panel_bytes;    /* of one panel */
    const float *vec;      /* vectors: F32 values */
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

/*
 * Fills `w` from rows × cols values in file order at `data` (which must stay mapped). Packs with
 * the whole team. ERR_FORMAT when values that can be checked cheaply (scales, floats) are NaN or
 * infinite.
 */
int weight_matrix(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const uint8_t *data, const struct kern *k, struct team *team,
                  struct weight_store *store, struct err *e);
int weight_vector(struct weight *w, const char *name, const struct quant_type *t, size_t n,
                  const uint8_t *data, struct weight_store *store, struct err *e);

/* One row as F32: (cols). `row` < rows. */
void weight_row(const struct weight *w, size_t row, float *out);

#endif
