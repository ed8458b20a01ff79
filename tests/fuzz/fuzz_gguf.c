/*
 * Fuzzing the readers of model files: GGUF, and safetensors by its first bytes.
 */
#include "read_source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *s;
    struct err e = {0};

    int rc = source_open_memory(&s, data, size, &e);

    read_source(s, rc, &e);
    return 0;
}
