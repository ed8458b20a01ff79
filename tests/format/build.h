/* Test support of format/: byte strings, small GGUF files with wanted faults, temporary folders. */
#ifndef PONDER_TESTS_FORMAT_BUILD_H
#define PONDER_TESTS_FORMAT_BUILD_H

#include "format/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- bytes --------------------------------------------------------------------------------------
 */

enum { BYTES_MAX = 1 << 17 };

struct bytes {
    size_t n;
    uint8_t p[BYTES_MAX];
};

void put(struct bytes *b, const void *p, size_t n);
void put_u32(struct bytes *b, uint32_t v);
void put_u64(struct bytes *b, uint64_t v);
void put_str(struct bytes *b, const char *s); /* u64 length, bytes */

/* ---- a small GGUF file --------------------------------------------------------------------------
 */

enum { SPEC_TENSORS = 4, SPEC_EXTRA = 4 };

struct spec_tensor {
    const char *name;
    uint64_t name_n; /* announced length when not 0 */
    uint32_t dims, announced;
    uint64_t dim[5]; /* innermost first */
    uint32_t type;
    uint64_t offset;
};

/* What spec_base sets, tests change one thing of. */
struct spec {
    const char *magic;
    uint32_t version;
    uint64_t keys, tensors;         /* announced; UINT64_MAX: as many as there are */
    uint64_t first_key;             /* announced length of the first key; 0: right */
    struct bytes extra[SPEC_EXTRA]; /* further keys, whole */
    size_t n_extra;
    struct spec_tensor t[SPEC_TENSORS];
    size_t n_t;
    size_t align, data; /* bytes in the data section; byte i is i % 251 */
    size_t cut;         /* length of the file; SIZE_MAX: whole */
    size_t header;      /* set by spec_write: where the header ends */
};

/*
 * Keys: general.architecture "llama", one of each type under "x.TYPE", arrays "x.tokens", "x.ints".
 * Tensors: "a" F32 4×8 at 0, "b" F32 8 at 128, "c" Q8_0 2×64 at 160; 320 bytes of data.
 */
void spec_base(struct spec *s);
/* A further key: its name and value type are written, the value is the caller's to add. */
struct bytes *spec_key(struct spec *s, const char *key, uint32_t type);
void spec_key_u32(struct spec *s, const char *key, uint32_t v);
void spec_write(struct spec *s, struct bytes *out);

/* ---- files --------------------------------------------------------------------------------------
 */

/* A fresh folder under the temporary one; removed, with what is in it, by temp_free. */
struct temp {
    char dir[64];
    char path[4][256]; /* ring of results of temp_path */
    unsigned at;
};

void temp_new(struct temp *t);
void temp_free(struct temp *t);
const char *temp_path(struct temp *t, const char *name);
/* Writes a file (folders on the way are made) and returns its path. */
const char *temp_write(struct temp *t, const char *name, const void *p, size_t n);
const char *temp_text(struct temp *t, const char *name, const char *text);

/* A safetensors file: the header's length, the header, `data` bytes 0, 1, 2, …. */
const char *temp_safetensors(struct temp *t, const char *name, const char *header, size_t data);

/* A safetensors file that is put together tensor by tensor. */
enum { ST_TENSORS = 12 };

struct st {
    size_t n;
    struct st_tensor {
        char name[128];
        char dtype[16];
        int dims;
        uint64_t shape[SOURCE_DIMS];
        const void *data; /* of the caller */
        size_t bytes;
    } t[ST_TENSORS];
};

/* A further tensor; returns it, to be changed. */
struct st_tensor *st_add(struct st *f, const char *name, const char *dtype, int dims,
                         const uint64_t *shape, const void *data, size_t bytes);
struct st_tensor *st_find(struct st *f, const char *name); /* fails the test when absent */
const char *st_write(const struct st *f, struct temp *t, const char *name);

/* source_open fails, *out is NULL, and the error has each of the two words (NULL: any). */
void assert_refused(const char *path, const char *word, const char *word2);
struct source *open_ok(const char *path);

#endif
