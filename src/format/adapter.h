/*
 * LoRA adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021): for some
 * matrices W of a model, A (r, in) and B (out, r) such that the adapted one is W + scale × B A.
 *
 * Read from PEFT folders (adapter_config.json beside adapter_model.safetensors; tensors
 * "base_model.model.NAME.lora_A.weight") and from GGUF adapters ("NAME.weight.lora_a"). Modules
 * keep the names of their file. Left out, and refused by name: DoRA's magnitudes, embeddings,
 * biases, and modules that an adapter replaces whole, but for one: a reward model's head
 * "base_model.model.score.weight" (1, d_model), which PEFT's modules_to_save names.
 */
#ifndef PONDER_FORMAT_ADAPTER_H
#define PONDER_FORMAT_ADAPTER_H

#include "format/source.h"

#include <jansson.h>

struct adapter;

struct adapter_module {
    const char *name;              /* "model.layers.0.self_attn.q_proj" or "blk.0.attn_q" */
    const struct source_tensor *a; /* (r, in) */
    const struct source_tensor *b; /* (out, r) */
    double scale;                  /* alpha / r, or alpha / sqrt(r) */
};

/* Opens a PEFT folder or a GGUF file. Errors name the file and what is wrong. */
int adapter_open(struct adapter **out, const char *path, struct err *e);
void adapter_free(struct adapter *a);

const char *adapter_path(const struct adapter *a);
bool adapter_is_gguf(const struct adapter *a);         /* how modules are called */
const json_t *adapter_config(const struct adapter *a); /* adapter_config.json; NULL of GGUF */
/* "score.weight", which takes the place of the base's; NULL: it has none. */
const struct source_tensor *adapter_score(const struct adapter *a);
size_t adapter_count(const struct adapter *a);
const struct adapter_module *adapter_at(const struct adapter *a, size_t i);
const struct adapter_module *adapter_find(const struct adapter *a, const char *name);

#endif
