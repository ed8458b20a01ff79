/*
 * Converting: from a source (format/source.h) to new files, with other types, names and order.
 *
 * What is read and what is written are independent: GGUF files and Hugging Face folders both ways,
 * each tensor in the type that a mix and the user's rules give it. A plan is made first, from
 * headers alone: every output tensor with its name, type, shape and size, and the rows of the
 * source it is made of. Writing then streams: a block of rows is decoded, put into the output's
 * order and encoded by the whole team, and written; memory is that of a few blocks. Output appears
 * under its name only when all of it is written.
 */
#ifndef PONDER_CONVERT_CONVERT_H
#define PONDER_CONVERT_CONVERT_H

#include "base/team.h"
#include "convert/mix.h"
#include "format/source.h"

enum convert_format { CONVERT_GGUF, CONVERT_HF };

struct convert_options {
    enum convert_format format;
    const struct mix *mix;    /* NULL: every tensor keeps its type, as far as the format has it */
    bool pure;                /* the mix's default type for all matrices, no rules of the mix */
    const char *const *rules; /* "REGEX=TYPE" (PCRE2, found anywhere in the output's name) */
    size_t n_rules;
    const char *imatrix; /* file with importance, or NULL */
    const char *adapter; /* LoRA adapter to merge into the weights, or NULL */
    const char *name;    /* general.name, or NULL: what the source says, or its file's name */
    uint64_t split;      /* most bytes of tensors in a file; 0 = one file */
    bool packed;         /* matrices as panels, for ponder alone (format/packed.h) */
    bool force;          /* replace what is there */
    bool classifier; /* of a folder: config.json calls it a sequence classifier with one label */
};

/* Tensors of FP8 folders: codes, and next to them a scale for every 128 x 128 block. */
enum convert_scheme {
    SCHEME_NONE,
    SCHEME_FP8_CODES,
    SCHEME_FP8_SCALES,
    SCHEME_NF4_CODES, /* bitsandbytes: two codes a byte, a scale for 64 */
    SCHEME_NF4_ABSMAX,
};

struct convert_tensor {
    const char *name;              /* in the output */
    const struct quant_type *type; /* in the output */
    const char *from;              /* type in the source, in words */
    int dims;
    uint64_t shape[SOURCE_DIMS]; /* outermost first */
    size_t bytes;                /* in the output */
    bool packed;                 /* written as panels */
    bool fallback;               /* its rows are too short for the type that was meant */
    bool poor;                   /* a type that wants importance, and there is none */
    /* private to convert/ */
    struct convert_run *runs;
    size_t n_runs;
    const float *values;    /* the tensor's values themselves, when there are no runs */
    double mean, deviation; /* of random values, when there are neither */
    uint64_t stream;
    const float *importance; /* (outer or 1, cols), or NULL */
    size_t importance_outer; /* rows of importance */
    int file;                /* of the output */
    enum convert_scheme scheme;
    const uint8_t *raw; /* the tensor's bytes themselves, or NULL */
    uint64_t of[2];     /* of scales: rows and columns of the weight */
};

struct convert_plan;

/* `src` must outlive the plan. Reads headers, the tokenizer and the imatrix. */
int convert_plan_new(struct convert_plan **out, struct source *src, const struct convert_options *o,
                     struct err *e);
/* A new model with random weights. */
struct convert_init {
    uint64_t seed;         /* the same seed gives the same bytes, whatever the number of threads */
    double deviation;      /* of matrices; 0: initializer_range of the configuration, or 0.02 */
    const struct mix *mix; /* F32, F16 or BF16; NULL: BF16 */
    uint64_t split;
};

/*
 * Plans a Hugging Face folder of the architecture that `config` (source_open_config) describes:
 * matrices normally distributed, norms 1, biases 0. `tokenizer` gives its files, or is NULL. Both
 * must outlive the plan.
 */
int convert_init_new(struct convert_plan **out, struct source *config, struct source *tokenizer,
                     const struct convert_init *o, struct err *e);
void convert_plan_free(struct convert_plan *p); /* NULL is fine */

size_t convert_plan_count(const struct convert_plan *p);
const struct convert_tensor *convert_plan_tensor(const struct convert_plan *p, size_t i);
uint64_t convert_plan_bytes(const struct convert_plan *p);  /* of all tensors in the output */
uint64_t convert_plan_values(const struct convert_plan *p); /* weights in all tensors */
int convert_plan_files(const struct convert_plan *p);       /* how many files of weights */
/* What a person should know, one sentence each; NULL after the last. */
const char *convert_plan_note(const struct convert_plan *p, size_t i);

/* Index of the output tensor called `name`; SIZE_MAX: none. */
size_t convert_plan_find(const struct convert_plan *p, const char *name);
/* Tensor i takes these values (n, row by row) instead of the source's; they outlive the plan. */
int convert_plan_replace(struct convert_plan *p, size_t i, const float *values, size_t n,
                         struct err *e);

/* A further matrix of these F32 values (rows × cols, which outlive the plan), in place of one that
   is called alike. For folders. */
int convert_plan_add(struct convert_plan *p, const char *name, size_t rows, size_t cols,
                     const float *values, struct err *e);

/* Called after each block with bytes of the output; false stops the work (ERR_CANCELLED). */
typedef bool convert_progress(void *arg, uint64_t done, uint64_t total, size_t tensors);

/*
 * Writes the plan to `path`: a file (of a split: PATH-00001-of-0000N.gguf, a given ".gguf" goes
 * before the numbers) or a folder. On any failure nothing is left. ERR_USAGE: something is there
 * and `force` is not set, or it is the source itself.
 */
int convert_write(struct convert_plan *p, const char *path, struct team *team,
                  convert_progress *progress, void *arg, struct err *e);

/* Removes what convert_write wrote to `path`: a file, or a folder of files. */
void convert_remove(const char *path);

#endif
