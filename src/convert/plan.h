/* What the files of convert/ share: the insides of a plan. */
#ifndef PONDER_CONVERT_PLAN_H
#define PONDER_CONVERT_PLAN_H

#include "base/arena.h"
#include "convert/convert.h"
#include "model/arch.h"

/* How the rows of a run follow from the source's. */
enum convert_how {
    RUN_PLAIN,
    RUN_TO_PAIRS,   /* heads of `group` rows: rotated halves become neighbours */
    RUN_TO_HALVES,  /* and back */
    RUN_TRANSPOSED, /* `group` rows of the source become columns */
};

/* `rows` rows of the output that come from one tensor of the source, from its row `row0` on. */
struct convert_run {
    const struct source_tensor *t;
    size_t row0, rows;
    enum convert_how how;
    size_t group; /* rows of a head (pairs, halves), or source rows that are transposed */
};

/* The input row that is row r of the output, for heads of d rows. */
size_t plan_row_order(enum convert_how how, size_t d, size_t r);

struct imatrix;

enum { PLAN_NOTES = 16, PLAN_MAX = 256 << 20 };

struct convert_plan {
    struct arena arena;
    struct source *src;
    struct convert_options o;
    bool is_model;           /* cfg is filled: names can be translated */
    struct model_config cfg; /* of the source */
    struct convert_tensor *tensors;
    size_t n, cap;
    uint64_t bytes, values;
    int files;
    const char *notes[PLAN_NOTES];
    size_t n_notes;
    struct imatrix *imatrix;
    struct plan_lora *lora; /* NULL: no adapter */
    /* a new model */
    bool init;
    uint64_t seed;
    struct source *tokenizer; /* whose files are copied, or NULL */
};

/* Adds a sentence; a full list or memory drops it. */
void plan_note(struct convert_plan *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* An empty tensor at the end of the list; NULL when there is no memory. Its name is copied. */
struct convert_tensor *plan_add(struct convert_plan *p, const char *name, struct err *e);
struct convert_run *plan_runs(struct convert_plan *p, size_t n, struct err *e);

/* Fills the list of tensors, their shapes and runs; types come later (names.c). */
int plan_tensors(struct convert_plan *p, struct err *e);
/* Adapters (lora.c). plan_adapt: adds what belongs to rows [r, r + n) of a tensor of the source. */
int plan_lora_open(struct convert_plan *p, const char *path, struct err *e);
/* The scalar head that an adapter of a reward model has becomes a tensor of the plan. */
int plan_lora_score(struct convert_plan *p, struct err *e);
void plan_lora_free(struct convert_plan *p);
bool plan_adapted(const struct convert_plan *p, const struct source_tensor *t);
void plan_adapt(const struct convert_plan *p, const struct source_tensor *t, uint64_t r, size_t n,
                float *rows, size_t cols);

/* FP8 folders (fp8.c): the tensors that get codes and scales; rows [r0, r0 + n) of the scales, and
   the codes of n rows that begin at a block. */
int fp8_tensors(struct convert_plan *p, struct err *e);
bool fp8_takes(const struct convert_tensor *t);
size_t fp8_scratch(const struct convert_tensor *t);
void fp8_scales(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
                float *out, float *scratch);
void fp8_codes(uint8_t *out, const float *v, size_t rows, size_t cols);

/* NF4 folders (nf4.c), alike. convert_dtype: how the file calls a tensor's type, and its shape
 * there. */
int nf4_tensors(struct convert_plan *p, struct err *e);
bool nf4_takes(const struct convert_tensor *t);
size_t nf4_scratch(const struct convert_tensor *t);
void nf4_absmax(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
                float *out, float *scratch);
void nf4_codes(uint8_t *out, const float *v, size_t n);
const char *convert_dtype(const struct convert_tensor *t, int *dims, uint64_t shape[SOURCE_DIMS]);

/* Sizes and files, when all types are known. */
int plan_sizes(struct convert_plan *p, struct err *e);
/* The type of every tensor (types.c). */
int plan_types(struct convert_plan *p, struct err *e);

/* Decodes rows [r0, r0 + n) of the output tensor to floats (rows.c). `scratch`: plan_scratch. */
void plan_rows(const struct convert_plan *p, const struct convert_tensor *t, size_t r0, size_t n,
               float *out, float *scratch);
size_t plan_scratch(const struct convert_tensor *t); /* floats */
/* True when rows become columns somewhere: then a whole matrix is made at once. */
bool plan_turns(const struct convert_tensor *t);
/* True when rows keep their bytes; then plan_copy gives them. */
bool plan_copies(const struct convert_plan *p, const struct convert_tensor *t);
void plan_copy(const struct convert_tensor *t, size_t r0, size_t n, uint8_t *out);
size_t plan_cols(const struct convert_tensor *t);
size_t plan_height(const struct convert_tensor *t); /* rows of all matrices together */

#endif
