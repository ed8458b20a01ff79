/*
 * Writing GGUF v3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): metadata first, then
 * tensor descriptions, then aligned data, streamed tensor by tensor so that memory stays small.
 * Reading is behind source.h.
 */
#ifndef PONDER_FORMAT_GGUF_H
#define PONDER_FORMAT_GGUF_H

#include "format/source.h"
#include "quant/quant.h"

/* Value types of the file format. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
};

struct gguf_writer;

/*
 * Begins a file; nothing appears under `path` before gguf_writer_commit. The order of calls is: any
 * of put, copy and add_tensor; then the data; then commit. After an error the file can only be
 * given up (gguf_writer_free): every further call fails, a commit too. ERR_USAGE: a call out of
 * order, a name or value that the format does not have. A key or a tensor name given twice is found
 * when the data begin. One thread at a time.
 */
int gguf_writer_new(struct gguf_writer **out, const char *path, struct err *e);
void gguf_writer_free(struct gguf_writer *w); /* aborts when not committed; NULL is fine */

/*
 * Keys are UTF-8 without control characters, strings are UTF-8. "general.alignment" (a power of
 * two, at least 8) also sets the alignment of this file; it is 32 otherwise.
 */
int gguf_put_u16(struct gguf_writer *w, const char *key, uint16_t v, struct err *e);
int gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct err *e);
int gguf_put_u64(struct gguf_writer *w, const char *key, uint64_t v, struct err *e);
int gguf_put_i32(struct gguf_writer *w, const char *key, int32_t v, struct err *e);
int gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct err *e);
int gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct err *e);
int gguf_put_string(struct gguf_writer *w, const char *key, const char *s, size_t n, struct err *e);
/* Arrays of `count` plain values of `type` (not string, not array), or of strings. */
int gguf_put_array(struct gguf_writer *w, const char *key, enum gguf_type type, const void *v,
                   size_t count, struct err *e);
int gguf_put_strings(struct gguf_writer *w, const char *key, const char *const *s, const size_t *n,
                     size_t count, struct err *e);
/* A value of an open GGUF source, byte for byte, whatever its type. The key has to be there. */
int gguf_copy(struct gguf_writer *w, const struct source *from, const char *key, struct err *e);

/*
 * Announces a tensor: 1 to 4 dimensions ≥ 1, outermost first, rows of whole blocks, a name of at
 * most 63 bytes (what other programs read).
 */
int gguf_add_tensor(struct gguf_writer *w, const char *name, const struct quant_type *type,
                    int dims, const uint64_t *shape, struct err *e);
/* The same of a packed tensor (format/packed.h), 2 dimensions or more; its data are panels. The
 * file needs the key PACKED_KEY and an alignment of PACKED_ALIGNMENT. */
int gguf_add_packed(struct gguf_writer *w, const char *name, const struct quant_type *type,
                    int dims, const uint64_t *shape, struct err *e);
/* Data in the order of announcement, in as many pieces as the caller likes; padding is added. */
int gguf_write_data(struct gguf_writer *w, const void *p, size_t n, struct err *e);
/* Checks that every tensor is whole, syncs and gives the file its name. */
int gguf_writer_commit(struct gguf_writer *w, struct err *e);

#endif
