/*
 * What the bits of a page of the KV cache depend on, as one number.
 *
 * The bits are a function of the tokens, the weights, the hyperparameters and how products are
 * computed; not of threads, batches or the instruction set. Weights are too many to be read for
 * this: the fingerprint has a sample of each tensor, and the size and modification time of every
 * file stand for the rest. A file that is moved keeps its pages, one that is written again loses
 * them.
 */
#include "engine/engine_private.h"
#include "engine/head.h"

#include "base/hash.h"
#include "base/num.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum {
    IDENTITY_VERSION = 1, /* goes up when the numerics or the layout of pages change; a test sees it
                             (tests/engine/test_prefix_disk.c) */
    IDENTITY_ARRAY = 65536, /* elements of a metadata array that are looked at */
};

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    return hash_xxh64(p, n, h);
}

static uint64_t mix_u64(uint64_t h, uint64_t x)
{
    return mix(h, &x, sizeof x);
}

static uint64_t mix_value(uint64_t h, const struct source *src, const struct source_value *v)
{
    h = mix_u64(h, v->type);
    switch (v->type) {
    case SOURCE_INT:
    case SOURCE_UINT:
        return mix_u64(h, v->u);
    case SOURCE_FLOAT:
        return mix(h, &v->f, sizeof v->f);
    case SOURCE_BOOL:
        return mix_u64(h, v->b);
    case SOURCE_STRING:
        return mix(h, v->s.p, v->s.n);
    case SOURCE_ARRAY:
        h = mix_u64(h, v->count);
        for (uint64_t i = 0; v->item != SOURCE_ARRAY && i < v->count && i < IDENTITY_ARRAY; i++) {
            struct source_value x;
            if (!source_array_get(src, v, i, &x, NULL) && x.type != SOURCE_ARRAY)
                h = mix_value(h, src, &x);
        }
        return h;
    default:
        return h;
    }
}

static uint64_t mix_stamp(uint64_t h, const uint64_t stamp[3])
{
    return mix_u64(mix_u64(mix_u64(h, stamp[0]), stamp[1]), stamp[2]);
}

static uint64_t mix_file(uint64_t h, const char *path)
{
    struct stat st;
    if (stat(path, &st))
        return h;
    const uint64_t stamp[3] = {(uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec,
                               (uint64_t)st.st_mtim.tv_nsec};
    return mix_stamp(h, stamp);
}

/* A file, or those of a folder in any order. */
static uint64_t mix_path(uint64_t h, const char *path)
{
    DIR *d = opendir(path);
    uint64_t sum = 0;
    char file[4096];
    if (!d)
        return mix_file(h, path);
    for (const struct dirent *t; (t = readdir(d));)
        if (*t->d_name != '.' && snprintf(file, sizeof file, "%s/%s", path, t->d_name) > 0)
            sum += mix_file(mix(0, t->d_name, strlen(t->d_name)), file);
    closedir(d);
    return mix_u64(h, sum);
}

static uint64_t identity(const struct engine *g, uint64_t h)
{
    const struct kv_shape *s = kv_pool_shape(g->kv);
    uint64_t how[] = {IDENTITY_VERSION,
                      engine_fingerprint(g),
                      s->n_layer,
                      s->n_kv_head,
                      s->d_k,
                      s->d_v,
                      s->type,
                      s->latent,
                      g->mtp,
                      g->ops.fine,
                      g->act == ENGINE_ACT_F32,
                      model_config(g->model)->mla_expanded,
                      g->adapter != NULL,
                      g->adapter_merge};
    const struct source_value *v;
    h = mix(h, PONDER_VERSION, sizeof PONDER_VERSION);
    h = mix(h, how, sizeof how);
    for (size_t i = 0; i < source_value_count(g->src); i++) {
        const char *key = source_value_at(g->src, i, &v);
        /* Tokens are given by their ids. */
        if (!strncmp(key, "tokenizer.", 10))
            continue;
        h = mix(h, key, strlen(key));
        h = mix_value(h, g->src, v);
    }
    for (size_t i = 0; i < source_file_count(g->src); i++) {
        uint64_t stamp[3];
        source_file_stamp(g->src, i, stamp);
        h = mix_stamp(h, stamp);
    }
    return g->adapter ? mix_u64(h, g->adapter_stamp) : h;
}

uint64_t engine_path_identity(const char *path)
{
    return mix_path(1, path);
}

void engine_identity(const struct engine *g, uint64_t out[2])
{
    out[0] = identity(g, 1);
    out[1] = identity(g, 2);
}
