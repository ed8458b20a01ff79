#include "support/tiny_model.h"

#include "base/num.h"
#include "base/rng.h"
#include "format/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum quant_id tiny_types[] = {
    QUANT_Q4_0,   QUANT_Q4_1,   QUANT_Q5_0, QUANT_Q5_1,  QUANT_Q8_0, QUANT_Q4_K,
    QUANT_Q5_K,   QUANT_Q6_K,   QUANT_F16,  QUANT_BF16,  QUANT_F32,  QUANT_Q2_K,
    QUANT_IQ4_NL, QUANT_IQ4_XS, QUANT_Q3_K, QUANT_IQ3_S,
};

void tiny_model_init(struct tiny_model *m)
{
    *m = (struct tiny_model){.arch = "llama",
                             .n_layer = 2,
                             .d_model = 256,
                             .n_head = 4,
                             .n_kv_head = 2,
                             .d_head = 64,
                             .d_ff = 512,
                             .n_vocab = 320,
                             .ctx = 512,
                             .types = tiny_types,
                             .n_types = NUM_COUNT(tiny_types),
                             .seed = 1};
}

struct tiny_tensor {
    char name[64];
    size_t rows, cols; /* rows = 0: a vector of cols */
    const struct quant_type *type;
};

enum { TINY_MAX = 256 };

struct tiny_list {
    struct tiny_tensor t[TINY_MAX];
    size_t n, turn;
};

static void tiny_add(struct tiny_list *l, const struct tiny_model *m, const char *name,
                     size_t layer, size_t rows, size_t cols)
{
    struct tiny_tensor *t = &l->t[l->n++];
    if (layer == SIZE_MAX)
        snprintf(t->name, sizeof t->name, "%s", name);
    else
        snprintf(t->name, sizeof t->name, "blk.%zu.%s", layer, name);
    t->rows = rows;
    t->cols = cols;
    t->type = quant_by_id(rows ? m->types[l->turn++ % m->n_types] : QUANT_F32);
    if (cols % t->type->block)
        t->type = quant_by_id(QUANT_Q8_0);
}

static void tiny_list(struct tiny_list *l, const struct tiny_model *m)
{
    size_t q = m->n_head * m->d_head, kv = m->n_kv_head * m->d_head;
    memset(l, 0, sizeof *l);
    tiny_add(l, m, "token_embd.weight", SIZE_MAX, m->n_vocab, m->d_model);
    tiny_add(l, m, "output_norm.weight", SIZE_MAX, 0, m->d_model);
    tiny_add(l, m, "output.weight", SIZE_MAX, m->n_vocab, m->d_model);
    for (size_t i = 0; i < m->n_layer; i++) {
        tiny_add(l, m, "attn_norm.weight", i, 0, m->d_model);
        tiny_add(l, m, "attn_q.weight", i, q, m->d_model);
        tiny_add(l, m, "attn_k.weight", i, kv, m->d_model);
        tiny_add(l, m, "attn_v.weight", i, kv, m->d_model);
        tiny_add(l, m, "attn_output.weight", i, m->d_model, q);
        tiny_add(l, m, "ffn_norm.weight", i, 0, m->d_model);
        tiny_add(l, m, "ffn_gate.weight", i, m->d_ff, m->d_model);
        tiny_add(l, m, "ffn_up.weight", i, m->d_ff, m->d_model);
        tiny_add(l, m, "ffn_down.weight", i, m->d_model, m->d_ff);
        if (!strcmp(m->arch, "qwen2")) {
            tiny_add(l, m, "attn_q.bias", i, 0, q);
            tiny_add(l, m, "attn_k.bias", i, 0, kv);
            tiny_add(l, m, "attn_v.bias", i, 0, kv);
        }
        if (!strcmp(m->arch, "qwen3")) {
            tiny_add(l, m, "attn_q_norm.weight", i, 0, m->d_head);
            tiny_add(l, m, "attn_k_norm.weight", i, 0, m->d_head);
        }
    }
}

static int tiny_data(struct gguf_writer *w, const struct tiny_tensor *t, uint64_t seed, uint64_t n,
                     struct err *e)
{
    size_t count = (t->rows ? t->rows : 1) * t->cols, bytes;
    float *v = malloc(count * sizeof *v);
    void *out = quant_size(t->type, count, &bytes) ? malloc(bytes) : NULL;
    int rc = v && out ? 0 : err_nomem(e, count, t->name);
    struct rng r;
    rng_init(&r, seed, n);
    for (size_t i = 0; i < count && !rc; i++)
        v[i] = t->rows ? (float)(rng_normal(&r) / sqrt((double)t->cols) * 1.5)
                       : 1 + (float)rng_normal(&r) * 0.1f;
    if (!rc) {
        t->type->encode(out, v, count, NULL);
        rc = gguf_write_data(w, out, bytes, e);
    }
    free(v);
    free(out);
    return rc;
}

int tiny_model_write(const struct tiny_model *m, const char *path, struct err *e)
{
    struct gguf_writer *w = NULL;
    struct tiny_list *l = malloc(sizeof *l);
    if (!l)
        return err_nomem(e, sizeof *l, path);
    tiny_list(l, m);
    int rc = gguf_writer_new(&w, path, e);
    if (!rc)
        rc = gguf_put_string(w, "general.architecture", m->arch, strlen(m->arch), e);
    const struct {
        const char *key;
        size_t v;
    } keys[] = {{"block_count", m->n_layer},         {"embedding_length", m->d_model},
                {"attention.head_count", m->n_head}, {"attention.head_count_kv", m->n_kv_head},
                {"attention.key_length", m->d_head}, {"attention.value_length", m->d_head},
                {"feed_forward_length", m->d_ff},    {"context_length", m->ctx}};
    for (size_t i = 0; i < NUM_COUNT(keys) && !rc; i++) {
        char key[64];
        snprintf(key, sizeof key, "%s.%s", m->arch, keys[i].key);
        rc = gguf_put_u32(w, key, (uint32_t)keys[i].v, e);
    }
    for (size_t i = 0; i < l->n && !rc; i++) {
        uint64_t shape[2] = {l->t[i].rows, l->t[i].cols};
        rc = l->t[i].rows ? gguf_add_tensor(w, l->t[i].name, l->t[i].type, 2, shape, e)
                          : gguf_add_tensor(w, l->t[i].name, l->t[i].type, 1, shape + 1, e);
    }
    for (size_t i = 0; i < l->n && !rc; i++)
        rc = tiny_data(w, &l->t[i], m->seed, i, e);
    if (!rc)
        rc = gguf_writer_commit(w, e);
    gguf_writer_free(w);
    free(l);
    return rc;
}
