/*
 * Golden data for tests: a small reader of safetensors files, and tensors by name.
 *
 * Test support: a file that is missing or wrong fails the running test (cmocka's fail_msg), so
 * callers check nothing.
 */
#ifndef PONDER_TESTS_GOLDEN_H
#define PONDER_TESTS_GOLDEN_H

#include <stddef.h>
#include <stdint.h>

enum { GOLDEN_DIMS = 4 };

struct golden; /* one loaded file */

struct golden_tensor {
    char dtype[16]; /* as in the file: "F32", "F16", "BF16", "U8", "I8", "I16", "I32", "I64", … */
    size_t rank, dim[GOLDEN_DIMS], count; /* count: product of the dims, 1 for a scalar */
    size_t bytes;
    union {
        const void *data; /* owned by the golden, aligned for its type */
        const float *f32;
        const uint8_t *u8;
        const int8_t *i8;
        const uint16_t *u16; /* also the bits of F16 and BF16 */
        const int16_t *i16;
        const int32_t *i32;
        const int64_t *i64;
    };
};

/* The file at a path relative to tests/golden ("quant/x.safetensors"), or absolute. Free with
 * golden_free. */
struct golden *golden_load(const char *path);
void golden_free(struct golden *g);

/* The tensor called by the printf-like name; fails the test when it is not there. */
struct golden_tensor golden_get(const struct golden *g, const char *name, ...)
    __attribute__((format(printf, 2, 3)));

/* The same; returns 0 when the name is missing, leaving *t alone. */
int golden_find(const struct golden *g, const char *name, struct golden_tensor *t);

/* The value of a key of the file's __metadata__, or NULL. */
const char *golden_meta(const struct golden *g, const char *key);

/* A whole file relative to tests/golden; a 0 byte follows the last. Free with free. */
void *golden_file(const char *path, size_t *bytes);

#endif
