/* Grouped-query attention with rotary positions: llama, qwen2, qwen3, deepseek (V1). */
#include "model/arch.h"

#include <stddef.h>

// clang-format off
static const struct model_tensor gqa_rows[] = {
    {BLOCK(q),      "blk.%zu.attn_q.weight",      "model.layers.%zu.self_attn.q_proj.weight", DIM_Q, DIM_MODEL, 0, 0},
    {BLOCK(k),      "blk.%zu.attn_k.weight",      "model.layers.%zu.self_attn.k_proj.weight", DIM_KV, DIM_MODEL, 0, 0},
    {BLOCK(v),      "blk.%zu.attn_v.weight",      "model.layers.%zu.self_attn.v_proj.weight", DIM_KV, DIM_MODEL, 0, 0},
    {BLOCK(o),      "blk.%zu.attn_output.weight", "model.layers.%zu.self_attn.o_proj.weight", DIM_MODEL, DIM_O, 0, 0},
    {BLOCK(q_bias), "blk.%zu.attn_q.bias",        "model.layers.%zu.self_attn.q_proj.bias",   DIM_ONE, DIM_Q, TENSOR_OPTIONAL, 0},
    {BLOCK(k_bias), "blk.%zu.attn_k.bias",        "model.layers.%zu.self_attn.k_proj.bias",   DIM_ONE, DIM_KV, TENSOR_OPTIONAL, 0},
    {BLOCK(v_bias), "blk.%zu.attn_v.bias",        "model.layers.%zu.self_attn.v_proj.bias",   DIM_ONE, DIM_KV, TENSOR_OPTIONAL, 0},
    {BLOCK(o_bias), "blk.%zu.attn_output.bias",   "model.layers.%zu.self_attn.o_proj.bias",   DIM_ONE, DIM_MODEL, TENSOR_OPTIONAL, 0},
    {BLOCK(q_norm), "blk.%zu.attn_q_norm.weight", "model.layers.%zu.self_attn.q_norm.weight", DIM_ONE, DIM_HEAD, TENSOR_OPTIONAL, 0},
    {BLOCK(k_norm), "blk.%zu.attn_k_norm.weight", "model.layers.%zu.self_attn.k_norm.weight", DIM_ONE, DIM_HEAD, TENSOR_OPTIONAL, 0},
};
// clang-format on
const struct model_group model_gqa_group = {gqa_rows, sizeof gqa_rows / sizeof *gqa_rows};

static const struct weight *given(const struct weight *w)
{
    return w->cols ? w : NULL;
}

struct tensor model_gqa(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, struct tensor rope, const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    const struct weight *w[] = {&l->q, &l->k, &l->v};
    const struct weight *bias[] = {given(&l->q_bias), given(&l->k_bias), given(&l->v_bias)};
    struct norm_input in = {x, &l->attn_norm, (float)f->rms_eps};
    struct tensor y[3]; /* q (n, n_head × d_head), k and v (n, n_kv_head × d_head) */
    op_norm_linears(c, &in, false, 3, w, bias, y);
    struct attention_args a = {.layer = layer,
                               .n_head = f->n_head,
                               .n_kv_head = f->n_kv_head,
                               .d_k = f->d_head,
                               .d_v = f->d_v,
                               .scale = f->attn_scale,
                               .rope = rope,
                               .half = f->rope_half,
                               .eps = (float)f->rms_eps,
                               .q_norm = given(&l->q_norm),
                               .k_norm = given(&l->k_norm)};
    return op_attention_add(c, x, y[0], y[1], y[2], &a, b, &l->o, given(&l->o_bias));
}
