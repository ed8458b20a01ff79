/*
 * Safetensors: 8 bytes of header length, a JSON object {name: {dtype, shape, data_offsets}}, data.
 * Each tensor is copied to memory of its own, since the file aligns to nothing and sanitizers
 * notice.
 */
#include "golden.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct golden {
    json_t *header;
    char path[512];
    void **data; /* by position in the header */
    size_t count;
};

void *golden_file(const char *path, size_t *bytes)
{
    char full[1024];
    snprintf(full, sizeof(full), "%s/%s", path[0] == '/' ? "" : GOLDEN_DIR, path);
    FILE *f = fopen(full, "rb");
    if (!f)
        fail_msg("%s: cannot open", full);
    fseek(f, 0, SEEK_END);
    long size = ftell(f);
    rewind(f);
    char *p = malloc((size_t)size + 1);
    if (!p || fread(p, 1, (size_t)size, f) != (size_t)size)
        fail_msg("%s: cannot read", full);
    fclose(f);
    p[size] = 0;
    *bytes = (size_t)size;
    return p;
}

struct golden *golden_load(const char *path)
{
    size_t size;
    uint8_t *file = golden_file(path, &size);
    struct golden *g = calloc(1, sizeof(*g));
    if (!g || size < 8)
        fail_msg("%s: no safetensors file", path);
    snprintf(g->path, sizeof(g->path), "%s", path);
    uint64_t length;
    memcpy(&length, file, 8);
    if (length > size - 8)
        fail_msg("%s: header of %llu bytes is longer than the file", path,
                 (unsigned long long)length);
    json_error_t error;
    g->header = json_loadb((char *)file + 8, length, 0, &error);
    if (!g->header)
        fail_msg("%s: %s", path, error.text);
    g->count = json_object_size(g->header);
    g->data = calloc(g->count + 1, sizeof(*g->data));
    const uint8_t *data = file + 8 + length;
    size_t left = size - 8 - length, i = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(g->header, name, entry)
    {
        json_t *at = json_object_get(entry, "data_offsets");
        size_t begin = (size_t)json_integer_value(json_array_get(at, 0));
        size_t end = (size_t)json_integer_value(json_array_get(at, 1));
        if (begin > end || end > left)
            fail_msg("%s: %s lies outside of the file", path, name);
        g->data[i] = malloc(end - begin + 1);
        if (!g->data[i])
            fail_msg("%s: no memory", path);
        memcpy(g->data[i++], data + begin, end - begin);
    }
    free(file);
    return g;
}

void golden_free(struct golden *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->count; i++)
        free(g->data[i]);
    free(g->data);
    json_decref(g->header);
    free(g);
}

int golden_find(const struct golden *g, const char *wanted, struct golden_tensor *t)
{
    size_t i = 0;
    const char *name;
    json_t *entry;
    json_object_foreach(g->header, name, entry)
    {
        if (strcmp(name, wanted) || !strcmp(name, "__metadata__")) {
            i++;
            continue;
        }
        json_t *shape = json_object_get(entry, "shape"),
               *at = json_object_get(entry, "data_offsets");
        memset(t, 0, sizeof(*t));
        snprintf(t->dtype, sizeof(t->dtype), "%s",
                 json_string_value(json_object_get(entry, "dtype")));
        t->rank = json_array_size(shape);
        if (t->rank > GOLDEN_DIMS)
            fail_msg("%s: %s has %zu dims", g->path, wanted, t->rank);
        t->count = 1;
        for (size_t k = 0; k < t->rank; k++) {
            t->dim[k] = (size_t)json_integer_value(json_array_get(shape, k));
            t->count *= t->dim[k];
        }
        t->bytes = (size_t)(json_integer_value(json_array_get(at, 1)) -
                            json_integer_value(json_array_get(at, 0)));
        t->data = g->data[i];
        return 1;
    }
    return 0;
}

struct golden_tensor golden_get(const struct golden *g, const char *name, ...)
{
    char full[512];
    va_list ap;
    va_start(ap, name);
    vsnprintf(full, sizeof(full), name, ap);
    va_end(ap);
    struct golden_tensor t = {0};
    if (!golden_find(g, full, &t))
        fail_msg("%s: no tensor %s", g->path, full);
    return t;
}

const char *golden_meta(const struct golden *g, const char *key)
{
    return json_string_value(json_object_get(json_object_get(g->header, "__metadata__"), key));
}
