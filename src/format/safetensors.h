/*
 * Writing safetensors (https://huggingface.co/docs/safetensors, "Format"): a JSON header, then the
 * data, streamed tensor by tensor so that memory stays small; in one file or in shards with the
 * index that Hugging Face folders have. Reading is behind source.h.
 */
#ifndef PONDER_FORMAT_SAFETENSORS_H
#define PONDER_FORMAT_SAFETENSORS_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* Bits of a value of a dtype and its name that lives forever; 0 when the format has none such. */
unsigned safetensors_bits(const char *dtype, const char **name);

struct safetensors_writer;

/*
 * Begins a file; nothing appears under `path` before safetensors_writer_commit. The order of calls
 * is: any of put_string and add_tensor; then the data; then commit. After an error the file can
 * only be given up (safetensors_writer_free): every further call fails, a commit too. ERR_USAGE: a
 * call out of order, a name or dtype that the format does not have. A tensor name given twice is
 * found when the data begin. One thread at a time.
 *
 * max_shard: most bytes of data in a file, 0 for no limit; a tensor is never cut. When one file is
 * not enough, "X.safetensors" becomes "X-00001-of-0000N.safetensors" …, and
 * "X.safetensors.index.json" says where each tensor is. What earlier writing left under other
 * numbers stays.
 */
int safetensors_writer_new(struct safetensors_writer **out, const char *path, uint64_t max_shard,
                           struct err *e);
void safetensors_writer_free(struct safetensors_writer *w); /* aborts when not committed; NULL is
                                                               fine */

/* A text in "__metadata__" of every file. "format" is "pt", as readers expect, unless it is set. */
int safetensors_put_string(struct safetensors_writer *w, const char *key, const char *s, size_t n,
                           struct err *e);

/*
 * Announces a tensor: a dtype of the format ("BF16", "F32", "F8_E4M3", "I32", …), 0 to 4
 * dimensions, outermost first, which may be 0.
 */
int safetensors_add_tensor(struct safetensors_writer *w, const char *name, const char *dtype,
                           int dims, const uint64_t *shape, struct err *e);
/* Data in the order of announcement, in as many pieces as the caller likes. */
int safetensors_write_data(struct safetensors_writer *w, const void *p, size_t n, struct err *e);
/* Checks that every tensor is whole, syncs and gives the files their names, the index last. */
int safetensors_writer_commit(struct safetensors_writer *w, struct err *e);

#endif
