/*
 * The DeepSeek family: mixtures of experts.
 *
 *   deepseek   DeepSeekMoE 16B (Dai et al., "DeepSeekMoE", 2024): grouped-query attention, softmax
 *              router, shared experts
 *   deepseek2  V2, V2-Lite, V2.5, Coder-V2 (DeepSeek-AI, "DeepSeek-V2", 2024) and V3, R1, R1-Zero
 *              ("DeepSeek-V3", 2024): multi-head latent attention (mla.c), routers of groups
 *              (ffn.c), and V3's multi-token prediction layer (mtp.c). What tells V2 from V3 is in
 *              the configuration: score function, bias, groups.
 *
 * docs/deepseek.md explains the architecture with the names used here.
 */
#include "model/arch.h"

#define ARCH(id) extern const struct model_arch id;
#include "model/arch.def"
#undef ARCH

const struct model_arch arch_deepseek = {
    .name = "deepseek",
    .hf = {"deepseek"},
    .groups = {&model_norm_group, &model_gqa_group, &model_ffn_group, &model_moe_group},
    .moe = true,
    .attention = model_gqa};

const struct model_arch arch_deepseek2 = {.name = "deepseek2",
                                          .hf = {"deepseek_v3", "deepseek_v2"},
                                          .groups = {&model_norm_group, &model_mla_group,
                                                     &model_ffn_group, &model_moe_group,
                                                     &model_mtp_group},
                                          .mla = true,
                                          .moe = true,
                                          .mtp = true,
                                          .hf_rope_pairs = true,
                                          .attention = model_mla};
