/*
 * Weights: matrices and vectors as the kernels read them.
 *
 * A matrix (rows = outputs, cols = inputs) comes from rows in its type's form: bytes in the mapped
 * file, or a function that makes them (tensors that a checkpoint stores in parts). It is
 *   packed   into panels of 16 rows (kernels/panel.h) when its type has a kernel: the fast way
 *   lazy     left where it is; a product packs 16 rows at a time into a worker's scratch and runs
 *            the same kernel over them: the same bits, no memory. For models larger than memory,
 *            whose experts are read when they are routed to.
 *   pending  lazy at first, packed by and by: it has its place in the store, and the products that
 *            read it anyway leave panels there, as far as the pass may (weight_store_pass). So the
 *            first token waits for no packing, and rows are in cache when they are packed.
 *   mapped   the file holds panels (format/packed.h): products read them there. Pending too, but
 *            only until all scales have been looked at.
 * Types without a kernel stay in the file and are decoded row by row when used. Vectors (norms,
 * biases) become F32. Memory for all weights of a model is one region (struct weight_store), in
 * 2 MiB pages where the system gives them.
 */
#ifndef PONDER_TENSOR_WEIGHT_H
#define PONDER_TENSOR_WEIGHT_H

#include "base/arena.h"
#include "base/err.h"
#include "base/team.h"
#include "kernels/kern.h"
#include "quant/quant.h"

#include <stdatomic.h>
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
struct weight_pending;

/*
 * What training knows of a weight: `n` values and as many of their gradient, both as F32 panels
 * (rows that fill up the last one are zero) or as a vector. `value` is the weight's `own`.
 */
struct weight_param {
    float *value, *grad;
    size_t n;
};

struct weight {
    const char *name; /* as in the file; for errors and tapes */
    const struct quant_type *type;
    size_t rows, cols; /* a vector has rows = 1 */
    struct weight_rows from;
    size_t row_bytes;               /* of a row in its type's form */
    const uint8_t *panels;          /* packed, or NULL: then products read `pending` or `from` */
    struct weight_pending *pending; /* being packed by and by; NULL: packed or lazy */
    size_t panel_bytes;             /* of one panel */
    const float *vec;               /* vectors: F32 values */
    float *own; /* F32 values in the store, to be changed: `vec`, or panels, which are `panels`
                   unless those are BF16 copies (weight_halve); else NULL */
    struct weight_param *param;     /* trained; NULL: fixed */
    const uint32_t *order;          /* column j belongs to input order[j]; NULL: to input j */
    const struct weight_lora *lora; /* what an adapter adds to products; NULL: nothing */
};

/* The product of an adapted weight is w x + scale × b (a x). */
struct weight_lora {
    struct weight a, b; /* (rank, cols), (rows, rank), F32 */
    float scale;
    uint32_t module; /* its number among those that are trained; of what is dropped out */
};

/* Whom to tell that all rows of a weight are in panels: its file is not read any more. From any
 * thread of the team. */
struct weight_done {
    void (*fn)(const void *arg);
    const void *arg;
};

/* Of each panel of a pending weight. */
enum weight_state {
    WEIGHT_NEW,     /* never read */
    WEIGHT_SEEN,    /* values were looked at */
    WEIGHT_CLAIMED, /* somebody is packing it */
    WEIGHT_PACKED,
};

struct weight_pending {
    struct weight_store *store;
    const struct weight *w;
    struct weight_pending *next; /* all of the store */
    uint8_t *panels;             /* their place; NULL: the type has no kernel, only to be seen */
    const uint8_t *mapped;       /* panels of the file, instead: only to be seen */
    _Atomic uint8_t *state;      /* by panel */
    _Atomic size_t left;         /* panels that are not packed */
    struct weight_done done;
};

/* Matrices lie at its beginning, vectors at its end: those are touched at load, all others when
 * they are packed. */
struct weight_store {
    uint8_t *mem;
    size_t cap, used, top; /* bytes; taken from the beginning, and from the end */

    struct arena arena; /* of what is pending */
    struct weight_pending *pending, **tail;
    size_t passes;
    _Atomic int64_t budget; /* bytes of panels that the pass may still leave here */
    _Atomic(const struct weight *) bad;
    _Atomic size_t bad_row;
};

int weight_store_init(struct weight_store *s, size_t bytes, struct err *e);
void weight_store_release(struct weight_store *s);

/*
 * Before each forward pass over `tokens` tokens: how much of what is pending it may pack. The first
 * pass nothing, later ones an eighth of the store for each token, so that no token waits long.
 */
void weight_store_pass(struct weight_store *s, size_t tokens);

/* ERR_FORMAT when a pass read a pending weight that is NaN or infinite: its results are void. */
int weight_store_check(const struct weight_store *s, struct err *e);

/* Packs all that is pending, with the whole team, and checks it; `progress` (may be NULL) is told
 * the bytes of each weight. */
int weight_store_settle(struct weight_store *s, const struct kern *k, struct team *team,
                        void (*progress)(void *arg, uint64_t bytes), void *arg, struct err *e);

/* n floats of a store, zero at first; NULL when it is full. */
float *weight_store_floats(struct weight_store *s, size_t n);

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

/* The same, pending: `w` stays where it is. */
int weight_later(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                 size_t cols, const struct weight_rows *from, const struct kern *k,
                 struct weight_store *store, struct weight_done done, struct err *e);

/* The same of a type with a kernel, whose panels lie in the mapping already; `from` gives single
 * rows. */
int weight_mapped(struct weight *w, const char *name, const struct quant_type *t, size_t rows,
                  size_t cols, const struct weight_rows *from, const uint8_t *panels,
                  const struct kern *k, struct weight_store *store, struct err *e);

int weight_vector(struct weight *w, const char *name, const struct quant_type *t, size_t n,
                  const struct weight_rows *from, struct weight_store *store, struct err *e);

/*
 * For products in BF16 over weights that change: gives a matrix with `own` values panels of BF16
 * beside them, of as many bytes as weight_matrix_bytes says. weight_refresh rounds the values anew;
 * for other weights it does nothing.
 */
int weight_halve(struct weight *w, const struct kern *k, struct team *team,
                 struct weight_store *store, struct err *e);
void weight_refresh(struct weight *w, const struct kern *k, struct team *team);
bool weight_halved(const struct weight *w); /* has it such copies? */

/* How many values `own` has: those of whole panels, or of the vector. */
size_t weight_values(const struct weight *w);

/* Rows [r, r + n) in the type's form: where they lie (then *stride is set), or made into `dst`,
 * which has room for n × w->row_bytes. */
const uint8_t *weight_rows_at(const struct weight *w, size_t r, size_t n, uint8_t *dst,
                              size_t *stride);

/* All panels, once they are there; else NULL. */
const uint8_t *weight_panels(const struct weight *w);

/* Panels of which those of rows [r0, r1) may be read, r0 a multiple of 16; NULL: weight_panel makes
 * them. */
const uint8_t *weight_panels_of(const struct weight *w, size_t r0, size_t r1);

/*
 * The panel of rows [r, r + n), r a multiple of 16, of a weight that has not all of them: in the
 * store, or packed into `panel` (panel_bytes of the type). `made` is for weight_rows_at. `m`: the
 * type's row of the kernel table.
 */
const uint8_t *weight_panel(const struct weight *w, const struct kern_mul *m, size_t r, size_t n,
                            uint8_t *made, uint8_t *panel);

/* Before rows [r0, r1) are read for the first time: maps them at once, not page by page. */
void weight_prefault(const struct weight *w, size_t r0, size_t r1);

/* Looks at rows [r, r + n) of a pending weight, unless that was done; of a type without a kernel.
 */
void weight_see(const struct weight *w, size_t r, size_t n, uint8_t *made);

/* One row as F32: (cols). `row` < rows. `tmp`: w->row_bytes, used when rows are made. Of a matrix
 * with `own` values these. */
void weight_row(const struct weight *w, size_t row, float *out, uint8_t *tmp);

#endif
