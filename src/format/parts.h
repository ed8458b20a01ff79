/*
 * Composed tensors, inside format/: one logical tensor out of several of a file.
 *
 * Composing happens once, when all headers have been read and the names are indexed. A table of
 * suffixes says which tensors are the mark of a scheme (compose.c); the scheme's function then
 * looks up the other parts, checks every size, and puts the logical tensor in the place of the main
 * part. Nothing is converted at opening: `rows` does that, for the rows that are asked for.
 */
#ifndef PONDER_FORMAT_PARTS_H
#define PONDER_FORMAT_PARTS_H

#include "format/priv.h"

enum { PARTS_MAX = 8 };

struct parts_scaled { /* FP8 and int8: a scale for each block of rows and columns */
    size_t block_rows, block_cols;
    size_t scale_cols; /* scales in a row of blocks */
    float divisor;     /* the scale that counts is the stored one divided by this */
    float (*value)(uint8_t code);
};

struct parts_packed { /* GPTQ and AWQ: integers in 32-bit words, scales and zeros of groups */
    int bits;
    bool awq;             /* words run along the outputs, not the inputs */
    int zero_shift;       /* the zero point is the stored one plus this */
    size_t group;         /* inputs of a group, where `index` is NULL */
    const uint8_t *index; /* I32 group of each input, or NULL: they are in order */
};

struct parts_levels { /* bitsandbytes, 4 bit: codes of levels in blocks of the flat tensor */
    size_t block, nested_block;
    float nested_offset;
};

struct source_parts {
    void (*rows)(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst, size_t stride);
    struct source_compact compact; /* type NULL: none */
    void (*compact_rows)(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                         size_t stride);
    const struct source_tensor *part[PARTS_MAX]; /* the main one first; NULL: no such part */
    union {
        struct parts_scaled scaled;
        struct parts_packed packed;
        struct parts_levels levels;
    };
};

/* Of packed tensors (packed.c): rows out of panels, and no parts. */
extern const struct source_parts packed_parts;

/* Bytes of panels before that of row r. */
uint64_t packed_bytes_before(const struct source_tensor *t, uint64_t r);

/* Work in progress. */
struct compose {
    struct source *s;
    struct source_tensor *out; /* of each tensor of the files: itself, or what is in its place */
    uint8_t *state;            /* of each of them: an enum in compose.c */
    char *name;                /* room for a name */
};

/* What is being composed: a mark, and the name of the weight without ".weight". */
struct stem {
    const struct source_tensor *mark;
    size_t n;
};

/* Composes what is there to be composed: then s->raw is set, and the names have to be indexed. */
int compose(struct source *s, struct err *e);

/* The tensor STEM + suffix; NULL when there is none. */
const struct source_tensor *compose_part(struct compose *c, struct stem stem, const char *suffix);

/* The same; an error when there is none. */
int compose_need(const struct source_tensor **out, struct compose *c, struct stem stem,
                 const char *suffix, struct err *e);

/* Checks dtype and shape (of `dims` dimensions); `part` is named in the error. */
int compose_shape(const struct source_tensor *part, const char *dtype, int dims, uint64_t rows,
                  uint64_t cols, struct err *e);

/*
 * Puts the tensor "STEM.weight" in the place of parts->part[0]; the other parts (the list ends with
 * NULL) disappear. `bytes` is computed; `shape` has `dims` numbers. `dtype` lives forever.
 */
int compose_put(struct compose *c, struct stem stem, const struct source_parts *parts,
                const struct quant_type *type, const char *dtype, int dims, const uint64_t *shape,
                struct err *e);

/* Element i of a tensor of floats. */
float part_float(const struct source_tensor *t, size_t i);

/* Whole numbers and texts of "quantization_config"; false when absent. */
bool compose_config_int(const struct source *s, const char *key, int64_t *out);
bool compose_config_is(const struct source *s, const char *key, const char *text);

/* The schemes, one for each mark. */
int compose_scaled(struct compose *c, struct stem stem, struct err *e);
int compose_scb(struct compose *c, struct stem stem, struct err *e);
int compose_packed(struct compose *c, struct stem stem, struct err *e);
int compose_nf4(struct compose *c, struct stem stem, struct err *e);
int compose_fp4(struct compose *c, struct stem stem, struct err *e);

#endif
