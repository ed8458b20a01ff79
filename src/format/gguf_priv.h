/* What the GGUF reader and writer share: the value types of the file format. */
#ifndef PONDER_FORMAT_GGUF_PRIV_H
#define PONDER_FORMAT_GGUF_PRIV_H

#include "format/gguf.h"
#include "format/priv.h"

enum { GGUF_VERSION = 3, GGUF_ALIGNMENT = 32, GGUF_TYPES = GGUF_F64 + 1 };

struct gguf_type_row {
    const char *name;
    size_t size; /* bytes of a value; 0 for strings and arrays, whose size lies in the file */
    enum source_type type;
};

/* The row of a type number; NULL for one that the format does not have. */
const struct gguf_type_row *gguf_type_row(uint32_t type);

/* A power of two, a multiple of 8 as the format asks, and no more than 1 GiB. */
bool gguf_alignment_ok(uint64_t a);

int gguf_array_get(const struct source_value *a, uint64_t i, struct source_value *out,
                   struct err *e);

#endif
