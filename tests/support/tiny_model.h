/*
 * Small random GGUF models for tests: the same seed gives the same bytes. Weights are drawn from
 * the counter-based RNG, scaled as a fresh model's, and written in any mix of types.
 */
#ifndef PONDER_TESTS_TINY_MODEL_H
#define PONDER_TESTS_TINY_MODEL_H

#include "base/err.h"
#include "quant/quant.h"

#include <stddef.h>
#include <stdint.h>

struct tiny_model {
    const char *arch; /* "llama", "qwen2", "qwen3" */
    size_t n_layer, d_model, n_head, n_kv_head, d_head, d_ff, n_vocab, ctx;
    const enum quant_id *types; /* matrices take them in turn */
    size_t n_types;
    uint64_t seed;
};

/* llama, 2 layers of 256, 4 heads and 2 KV heads of 64, ff 512, 320 tokens, all types with kernels.
 */
void tiny_model_init(struct tiny_model *m);

int tiny_model_write(const struct tiny_model *m, const char *path, struct err *e);

#endif
