/*
 * A source: what a model is made of, whatever files it came from.
 *
 * GGUF files (also split ones), Hugging Face folders and tokenizer-only folders all open into the
 * same thing: named metadata, named tensors that point into mapped memory, and the texts a
 * tokenizer and a chat template are built from. Names and keys stay those of the file ("naming"
 * says which kind); model/ knows both spellings.
 *
 * Weights that a Hugging Face checkpoint holds in several tensors (FP8 with scales, GPTQ, AWQ,
 * bitsandbytes) appear as one logical tensor under the name of the weight, "X.weight"; the tensors
 * it is composed of are not listed.
 *
 * A source owns its mappings; tensors and strings point into it and live as long as it does.
 * Opening reads headers only. All sizes are checked here: a tensor's bytes are inside the file.
 */
#ifndef PONDER_FORMAT_SOURCE_H
#define PONDER_FORMAT_SOURCE_H

#include "base/arena.h"
#include "base/err.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stdint.h>

enum source_kind_id {
    SOURCE_GGUF,
    SOURCE_HF,        /* folder with config.json and safetensors, or one .safetensors file */
    SOURCE_TOKENIZER, /* only tokenizer files: a folder, or a tokenizer.json itself */
};

enum { SOURCE_DIMS = 4 };

/*
 * A tensor of rows of whole blocks (row forms of composed tensors may end in a partial one). In a
 * GGUF file no dimension is 0 and `data` is aligned to 8 bytes at
 * least; in safetensors a dimension may be 0 (then bytes = 0) and `data` may have any alignment.
 */
struct source_tensor {
    const char *name;              /* no control characters, valid UTF-8 */
    const struct quant_type *type; /* NULL: integers and others that quant/ has no row for */
    const char *dtype;             /* how the file calls the type: "Q4_K", "BF16", "F8_E4M3"; of a
                                      composed tensor, the scheme: "FP8", "GPTQ-4" */
    int dims;                      /* 0 for a scalar */
    uint64_t shape[SOURCE_DIMS]; /* outermost first: (rows, cols) for a matrix; unused ones are 1 */
    const uint8_t *data;         /* in the mapping, row-major, `bytes` long; NULL when composed or
                                    packed */
    const uint8_t *panels;       /* packed: in the mapping (format/packed.h); else NULL */
    size_t bytes;                /* of all rows in the row form of `type` */
    size_t panel_bytes;          /* of all panels; 0 for a tensor that is not packed */
    int file;                    /* index of the file it (or the main one of its parts) lies in */
    uint64_t offset;             /* of data in that file */
    const struct source_parts *parts; /* what it is composed of; NULL for a plain tensor */
};

/*
 * A metadata value. Keys of HF configs are dotted paths: "rope_scaling.factor" (an object itself
 * has no value, only what is in it). A lone .safetensors file has its "__metadata__.KEY" strings.
 * `item` of an HF array is the type that all elements have; FLOAT for integers among floats; NULL
 * for an empty or mixed one (each element then tells its own).
 */
enum source_type {
    SOURCE_INT,
    SOURCE_UINT,
    SOURCE_FLOAT,
    SOURCE_BOOL,
    SOURCE_STRING,
    SOURCE_ARRAY,
    SOURCE_NULL
};

struct source_value {
    enum source_type type;
    enum source_type item; /* element type of an array (SOURCE_ARRAY = nested: not readable) */
    union {
        int64_t i;
        uint64_t u;
        double f;
        bool b;
        struct {
            const char *p; /* not terminated */
            size_t n;
        } s;
    };
    uint64_t count;    /* elements of an array */
    const void *raw;   /* private to format/ */
    uint32_t raw_type; /* private to format/ */
};

struct source;

/*
 * Opens a .gguf file (any shard of a split set finds the others), a .safetensors file, a folder, or
 * a tokenizer.json. What a file is, its first bytes say; names decide only where those cannot. A
 * folder holds, in this order of preference: config.json with safetensors; one .gguf model;
 * tokenizer files. Errors name the file and what is wrong with it. On failure *out is NULL.
 */
int source_open(struct source **out, const char *path, struct err *e);

/* A whole GGUF (no split set) or safetensors file in memory, aligned to 8 bytes, that outlives the
 * source. */
int source_open_memory(struct source **out, const uint8_t *p, size_t n, struct err *e);
/* A config.json alone: metadata and no tensors, for making a new model; source_text gives the file
   as "config.json". */
int source_open_config(struct source **out, const char *path, struct err *e);
void source_free(struct source *s);

enum source_kind_id source_kind(const struct source *s);
const char *source_path(const struct source *s); /* as given to source_open */
uint64_t source_bytes(const struct source *s);   /* of all tensors */

/* The files that hold the tensors (`file` of a tensor is an index), as they were opened. */
size_t source_file_count(const struct source *s);
const char *source_file_path(const struct source *s, size_t i);
/* Size, and seconds and nanoseconds of the modification time, of the file that was opened: the path
   may name another one by now. */
void source_file_stamp(const struct source *s, size_t i, uint64_t out[3]);

/* Metadata: in file order by index, or by key; NULL when absent. */
size_t source_value_count(const struct source *s);
const char *source_value_at(const struct source *s, size_t i, const struct source_value **v);
const struct source_value *source_value(const struct source *s, const char *key);

/*
 * Element i of an array value (numbers, bools and strings; strings are O(1) too). Elements of HF
 * arrays may also be arrays. Pure: any number of threads may read one source.
 */
int source_array_get(const struct source *s, const struct source_value *a, uint64_t i,
                     struct source_value *out, struct err *e);

/* Tensors: in file order by index, or by name; NULL when absent. */
size_t source_tensor_count(const struct source *s);
const struct source_tensor *source_tensor_at(const struct source *s, size_t i);
const struct source_tensor *source_tensor(const struct source *s, const char *name);

/* Rows of a tensor (the product of all dimensions but the last, 1 without dimensions), and bytes of
 * one in the row form of its type. */
uint64_t source_row_count(const struct source_tensor *t);
size_t source_row_bytes(const struct source_tensor *t);

/* Bytes that a tensor takes in the files: with its scales and codes where it is composed. */
uint64_t source_stored_bytes(const struct source_tensor *t);

/*
 * Writes rows [r0, r0 + n) in the row form of the tensor's type, row i at dst + i * stride. Rows of
 * a tensor of more than two dimensions are counted through: (e, r) of [E, rows, cols] is e * rows +
 * r. The rows must exist and stride be at least source_row_bytes. Everything was checked at
 * opening: it cannot fail. What the rows decode to is the scheme's definition in float32, bit for
 * bit. Pure: any number of threads. Composed tensors that a file holds transposed (GPTQ, AWQ) are
 * read best by 16 rows or more at once.
 */
void source_rows(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst, size_t stride);

/*
 * The panels of rows [r0, r0 + n) of a packed tensor, for the kernels; they are counted as in
 * source_rows. NULL: it is not packed, or the rows are no part of one matrix that begins with a
 * panel.
 */
const uint8_t *source_panels(const struct source_tensor *t, uint64_t r0, uint64_t n);

/*
 * A smaller exact form of a tensor, for readers that can take its columns in another order: column
 * j of the rows that source_compact_rows writes, in the row form of `type`, is column order[j] of
 * the tensor. GPTQ with "desc_act" has one, an eighth of its rows as F32. NULL: none.
 */
struct source_compact {
    const struct quant_type *type;
    const uint32_t *order; /* shape[1] numbers */
};
const struct source_compact *source_compact(const struct source_tensor *t);
void source_compact_rows(const struct source_tensor *t, uint64_t r0, size_t n, uint8_t *dst,
                         size_t stride);

/*
 * 0 when the tensors of a checkpoint that says "quantization_config" can be read; else
 * ERR_UNSUPPORTED, with what can be.
 */
int source_quant_check(const struct source *s, struct err *e);

/* Lets the kernel forget the pages of a tensor that was copied elsewhere. */
void source_tensor_drop(const struct source *s, const struct source_tensor *t);
/* The same for the rows [r0, r0 + n) of a plain tensor. */
void source_rows_drop(const struct source *s, const struct source_tensor *t, uint64_t r0,
                      uint64_t n);

/*
 * Text files of an HF model or tokenizer folder, read on first use and kept: tokenizer.json,
 * tokenizer_config.json, chat_template.jinja, generation_config.json. At most 256 MiB each,
 * terminated by a NUL beyond *n; any bytes may be inside. *text is NULL when there is no such file.
 * For a source opened from one .json file "tokenizer.json" is that file; the other names are looked
 * up beside it only if it is called tokenizer.json. Not thread-safe (it fills a cache).
 */
int source_text(struct source *s, const char *name, const char **text, size_t *n, struct err *e);

#endif
