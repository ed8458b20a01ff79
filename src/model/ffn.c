/*
 * The feed-forward part of a block: dense SwiGLU, or a mixture of experts with shared ones
 * (Dai et al., "DeepSeekMoE", 2024; DeepSeek-V2 section 2.2, DeepSeek-V3 section 2.1.2).
 *
 *   y = shared(x) + Σ over the chosen experts e, ascending:  weight_e × expert_e(x)
 *
 * The router's scores are softmax (V2) or sigmoid (V3) of router x. V2 may keep the groups with the
 * best expert; V3 keeps the groups with the best sum of two, and adds a bias that only steers the
 * choice. Weights are the plain scores of the chosen, over their sum where the model says so, times
 * a factor. Router and bias are float in every file.
 */
#include "model/arch.h"

#include <stddef.h>

// clang-format off
static const struct model_tensor ffn_rows[] = {
    {BLOCK(gate), "blk.%zu.ffn_gate.weight", "model.layers.%zu.mlp.gate_proj.weight", DIM_FF, DIM_MODEL, 0, WHEN_DENSE},
    {BLOCK(up),   "blk.%zu.ffn_up.weight",   "model.layers.%zu.mlp.up_proj.weight",   DIM_FF, DIM_MODEL, 0, WHEN_DENSE},
    {BLOCK(down), "blk.%zu.ffn_down.weight", "model.layers.%zu.mlp.down_proj.weight", DIM_MODEL, DIM_FF, 0, WHEN_DENSE},
};

static const struct model_tensor moe_rows[] = {
    {BLOCK(router),      "blk.%zu.ffn_gate_inp.weight", "model.layers.%zu.mlp.gate.weight", DIM_EXPERTS, DIM_MODEL, 0, WHEN_EXPERTS},
    {BLOCK(router_bias), "blk.%zu.exp_probs_b.bias",    "model.layers.%zu.mlp.gate.e_score_correction_bias", DIM_ONE, DIM_EXPERTS, 0, WHEN_BIAS},
    {BLOCK(gate_exps),   "blk.%zu.ffn_gate_exps.weight|blk.%zu.ffn_gate_up_exps.weight#0/2|blk.%zu.ffn_gate.%zu.weight",
                         "model.layers.%zu.mlp.experts.%zu.gate_proj.weight|model.layers.%zu.mlp.experts.gate_up_proj#0/2", DIM_FF_EXPERT, DIM_MODEL, TENSOR_EXPERTS, WHEN_EXPERTS},
    {BLOCK(up_exps),     "blk.%zu.ffn_up_exps.weight|blk.%zu.ffn_gate_up_exps.weight#1/2|blk.%zu.ffn_up.%zu.weight",
                         "model.layers.%zu.mlp.experts.%zu.up_proj.weight|model.layers.%zu.mlp.experts.gate_up_proj#1/2", DIM_FF_EXPERT, DIM_MODEL, TENSOR_EXPERTS, WHEN_EXPERTS},
    {BLOCK(down_exps),   "blk.%zu.ffn_down_exps.weight|blk.%zu.ffn_down.%zu.weight",
                         "model.layers.%zu.mlp.experts.%zu.down_proj.weight|model.layers.%zu.mlp.experts.down_proj", DIM_MODEL, DIM_FF_EXPERT, TENSOR_EXPERTS, WHEN_EXPERTS},
    {BLOCK(gate_shared), "blk.%zu.ffn_gate_shexp.weight", "model.layers.%zu.mlp.shared_experts.gate_proj.weight", DIM_FF_SHARED, DIM_MODEL, 0, WHEN_SHARED},
    {BLOCK(up_shared),   "blk.%zu.ffn_up_shexp.weight",   "model.layers.%zu.mlp.shared_experts.up_proj.weight",   DIM_FF_SHARED, DIM_MODEL, 0, WHEN_SHARED},
    {BLOCK(down_shared), "blk.%zu.ffn_down_shexp.weight", "model.layers.%zu.mlp.shared_experts.down_proj.weight", DIM_MODEL, DIM_FF_SHARED, 0, WHEN_SHARED},
};
// clang-format on
const struct model_group model_ffn_group = {ffn_rows, sizeof ffn_rows / sizeof *ffn_rows};
const struct model_group model_moe_group = {moe_rows, sizeof moe_rows / sizeof *moe_rows};

static struct tensor ffn_experts(const struct model *m, struct op_ctx *c,
                                 const struct model_block *l, struct tensor x,
                                 const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    struct router_args a = {.n_expert = f->n_expert,
                            .n_used = f->n_expert_used,
                            .n_group = f->n_group,
                            .n_group_used = f->n_group_used,
                            .score = f->router_sigmoid ? ROUTER_SIGMOID : ROUTER_SOFTMAX,
                            .group_top2 = f->router_sigmoid,
                            .norm = f->expert_norm,
                            .scale = (float)f->expert_scale,
                            .bias = f->router_bias ? &l->router_bias : NULL,
                            .batch = b};
    struct norm_input in = {x, &l->ffn_norm, (float)f->rms_eps};
    const struct weight *router = &l->router;
    struct tensor logits, h = op_norm_linears(c, &in, true, 1, &router, NULL, &logits);
    struct routing r = op_route(c, logits, &a);
    struct tensor y = op_moe(c, h, &r, l->gate_exps, l->up_exps, l->down_exps, f->n_expert);
    if (!f->n_shared)
        return op_add(c, x, y);
    struct tensor shared = op_swiglu(c, h, &l->gate_shared, &l->up_shared);
    return op_linear_add_both(c, x, y, shared, &l->down_shared);
}

struct tensor model_ffn(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, const struct batch *b)
{
    if (layer >= m->cfg.n_dense)
        return ffn_experts(m, c, l, x, b);
    struct norm_input in = {x, &l->ffn_norm, (float)m->cfg.rms_eps};
    return op_ffn(c, &in, &l->gate, &l->up, &l->down);
}
