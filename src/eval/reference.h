/*
 * Files of a reference model's log-probabilities over a text ("--save-logits"), to hold other
 * models or other quantizations against ("--kl").
 *
 * Little-endian, in this order:
 *   head      256 bytes, see struct reference_disk in reference.c: "ponderLP", version, what was
 * cut how, hashes of the tokenizer, of the text's tokens and of the model, its name and type ids
 * (n_ids) int32: the tokens of the text rows      (rows) of: top × uint32 ids, top × float32
 * log-probabilities, the right token's float32, the rest's float32 (eval/cells.h), in the order of
 * scoring checksum  uint64: FNV-1a of everything before it
 *
 * All sizes follow from the head, so a file that is too short or too long is found before anything
 * is read; the checksum and the ranges of all values are looked at when the file is opened.
 */
#ifndef PONDER_EVAL_REFERENCE_H
#define PONDER_EVAL_REFERENCE_H

#include "base/file.h"
#include "eval/cells.h"
#include "eval/windows.h"

enum { REFERENCE_NAME = 96, REFERENCE_TYPE = 32 };

struct reference_head {
    size_t vocab, top;
    struct eval_cut cut; /* cut.limit = windows */
    size_t windows, rows, n_ids;
    int32_t bos;        /* what stands at the beginning of each chunk; -1 = nothing */
    uint64_t tokenizer; /* reference_tokenizer */
    uint64_t model;     /* engine_fingerprint */
    char name[REFERENCE_NAME], type[REFERENCE_TYPE];
};

/* A number that tells vocabularies apart: made of all tokens' bytes. 0 without a tokenizer. */
uint64_t reference_tokenizer(const struct tokenizer *t);

/* Bytes of a row with `top` tokens. */
size_t reference_row_bytes(size_t top);
/* The cells of a row in memory, 4-aligned; right and rest are copied. */
struct cells reference_cells(uint8_t *row, size_t top);
/* Stores right and rest of such cells in their row. */
void reference_cells_put(uint8_t *row, size_t top, const struct cells *c);

struct reference_writer {
    struct file_out file;
    uint64_t sum;
    size_t row_bytes, rows_left;
};

/* Nothing appears under `path` before the commit. */
int reference_writer_open(struct reference_writer *w, const char *path,
                          const struct reference_head *h, const int32_t *ids, struct err *e);
int reference_writer_rows(struct reference_writer *w, const uint8_t *rows, size_t n, struct err *e);
int reference_writer_commit(struct reference_writer *w, struct err *e);
void reference_writer_abort(
    struct reference_writer *w); /* safe after commit, or zeroed with fd -1 */

struct reference {
    struct reference_head head;
    const int32_t *ids;  /* (n_ids) in the mapping */
    const uint8_t *rows; /* (rows) of row_bytes, 4-aligned */
    size_t row_bytes;
    struct file_map map; /* empty when the file is somebody else's memory */
};

/* Opens and checks the whole file; errors name it and what is wrong. */
int reference_open(struct reference *r, const char *path, struct err *e);
/* The same for a file in memory, aligned to 4 bytes, that outlives the reference. */
int reference_open_memory(struct reference *r, const uint8_t *p, size_t n, struct err *e);
void reference_release(struct reference *r);

#endif
