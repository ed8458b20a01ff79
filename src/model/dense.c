/*
 * Dense decoders: llama, qwen2, qwen3.
 *
 * Pre-norm blocks with grouped-query attention and SwiGLU (Touvron et al., "Llama 2", 2023; Qwen2
 * and Qwen3 technical reports). qwen2 adds biases to q, k, v; qwen3 normalizes each head of q and k
 * before the rotation. What a file has is what is used: a bias that is there is added.
 * DeepSeek-LLM, -Math and -Coder are llama, DeepSeek-R1-Distill are llama, qwen2 and qwen3.
 */
#include "model/arch.h"

#define ARCH(id) extern const struct model_arch id;
#include "model/arch.def"
#undef ARCH

#define DENSE(id, gguf, half)                                              \
    const struct model_arch id = {                                         \
        .name = gguf,                                                      \
        .hf = {gguf},                                                      \
        .groups = {&model_norm_group, &model_gqa_group, &model_ffn_group}, \
        .gguf_rope_half = half,                                            \
        .attention = model_gqa}

DENSE(arch_llama, "llama", false);
DENSE(arch_qwen2, "qwen2", true);
DENSE(arch_qwen3, "qwen3", true);
