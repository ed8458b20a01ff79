/*
 * Fuzzing the reader of safetensors. The input is the JSON header, a NUL byte, and the data; the
 * length in front of the header is added here, since a mutation of the text would make it wrong.
 */
#include "read_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, 0, size);
    uint64_t header = end ? (uint64_t)(end - data) : size;
    size_t rest = end ? size - (size_t)header - 1 : 0, n = 8 + (size_t)header + rest;
    struct source *s;
    struct err e = {0};
    uint8_t *file = malloc(n); /* of the exact size: a sanitizer sees what is read beyond */
    int rc;

    if (!file)
        return 0;
    memcpy(file, &header, sizeof header);
    memcpy(file + 8, data, (size_t)header);
    if (rest)
        memcpy(file + 8 + header, end + 1, rest);
    rc = source_open_memory(&s, file, n, &e);
    read_source(s, rc, &e);
    free(file);
    return 0;
}
