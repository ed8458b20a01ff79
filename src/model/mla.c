/*
 * Multi-head latent attention (DeepSeek-AI, "DeepSeek-V2", 2024, section 2.1), in the absorbed
 * form.
 *
 * A token's keys and values are made from one latent of kv_lora values, c = norm(kv_a x), plus one
 * rotated key part of d_rope values that all heads share. Per head h
 *   score = (q_nope · K_h c + q_rope · k_rope) × scale,   out = Σ p V_h c
 * where K_h (d_nope, kv_lora) and V_h (d_v, kv_lora) are the rows of kv_b_proj. Since
 *   q_nope · K_h c = (K_hᵀ q_nope) · c      and      Σ p V_h c = V_h Σ p c,
 * the query is taken into the latent space once (k_b = K_hᵀ), attention runs over the cached
 * latents as if they were one key head of kv_lora + d_rope values whose front is the value too, and
 * V_h is applied to the result. The cache holds kv_lora + d_rope values a token and layer and
 * nothing else.
 *
 * The expanded form (keys and values of every head made from the latents; tensor/attention_mla.c)
 * takes 3.4 times fewer operations for a long chunk of R1's shape but rounds in other places: which
 * of the two ran would show in the bits. One form everywhere keeps a token's bits the same however
 * a prompt was cut, so that is the default; the other is a choice (mla_expanded), and then for
 * batches whose runs are all of MODEL_EXPAND tokens or more.
 */
#include "model/arch.h"

#include <stddef.h>

// clang-format off
static const struct model_tensor mla_rows[] = {
    {BLOCK(q),         "blk.%zu.attn_q.weight",         "model.layers.%zu.self_attn.q_proj.weight",             DIM_Q, DIM_MODEL, 0, WHEN_NO_Q_LORA},
    {BLOCK(q_a),       "blk.%zu.attn_q_a.weight",       "model.layers.%zu.self_attn.q_a_proj.weight",           DIM_Q_LORA, DIM_MODEL, 0, WHEN_Q_LORA},
    {BLOCK(q_a_norm),  "blk.%zu.attn_q_a_norm.weight",  "model.layers.%zu.self_attn.q_a_layernorm.weight",      DIM_ONE, DIM_Q_LORA, 0, WHEN_Q_LORA},
    {BLOCK(q_b),       "blk.%zu.attn_q_b.weight",       "model.layers.%zu.self_attn.q_b_proj.weight",           DIM_Q, DIM_Q_LORA, 0, WHEN_Q_LORA},
    {BLOCK(kv_a),      "blk.%zu.attn_kv_a_mqa.weight",  "model.layers.%zu.self_attn.kv_a_proj_with_mqa.weight", DIM_LATENT, DIM_MODEL, 0, 0},
    {BLOCK(kv_a_norm), "blk.%zu.attn_kv_a_norm.weight", "model.layers.%zu.self_attn.kv_a_layernorm.weight",     DIM_ONE, DIM_KV_LORA, 0, 0},
    {BLOCK(k_b),       "blk.%zu.attn_k_b.weight|blk.%zu.attn_kv_b.weight#k", "model.layers.%zu.self_attn.kv_b_proj.weight#k", DIM_KV_LORA, DIM_NOPE, TENSOR_HEADS, 0},
    {BLOCK(v_b),       "blk.%zu.attn_v_b.weight|blk.%zu.attn_kv_b.weight#v", "model.layers.%zu.self_attn.kv_b_proj.weight#v", DIM_V, DIM_KV_LORA, TENSOR_HEADS, 0},
    {BLOCK(k_up),      "blk.%zu.attn_k_b.weight#t|blk.%zu.attn_kv_b.weight#kt", "model.layers.%zu.self_attn.kv_b_proj.weight#kt", DIM_NOPE, DIM_KV_LORA, TENSOR_HEADS, WHEN_EXPANDED},
    {BLOCK(o),         "blk.%zu.attn_output.weight",    "model.layers.%zu.self_attn.o_proj.weight",             DIM_MODEL, DIM_O, 0, 0},
};
// clang-format on
const struct model_group model_mla_group = {mla_rows, sizeof mla_rows / sizeof *mla_rows};

static bool mla_expands(const struct model_config *f, const struct batch *b)
{
    for (size_t i = 0; i < b->n_runs; i++)
        if (b->runs[i].n < MODEL_EXPAND)
            return false;
    return f->mla_expanded;
}

struct tensor model_mla(const struct model *m, struct op_ctx *c, const struct model_block *l,
                        size_t layer, struct tensor x, struct tensor rope, const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    /* One region for what reads x: the query (or its bottleneck) and the latents. */
    const struct weight *w[] = {f->q_lora ? &l->q_a : &l->q, &l->kv_a};
    struct norm_input in = {x, &l->attn_norm, (float)f->rms_eps};
    struct tensor y[2];
    op_norm_linears(c, &in, false, 2, w, NULL, y);
    struct tensor q = y[0]; /* (n, n_head × (d_nope + d_rope)) */
    if (f->q_lora) {
        in = (struct norm_input){q, &l->q_a_norm, (float)f->rms_eps};
        op_norm_linears(c, &in, false, 1, (const struct weight *[]){&l->q_b}, NULL, &q);
    }
    if (mla_expands(f, b)) {
        q = op_rope(c, q, f->n_head, f->d_nope, rope, f->rope_half);
        /* (n, kv_lora + d_rope) */
        struct tensor latent =
            op_latent(c, y[1], &l->kv_a_norm, (float)f->rms_eps, rope, f->rope_half);
        struct mla_args form = {.layer = layer,
                                .n_head = f->n_head,
                                .d_nope = f->d_nope,
                                .d_rope = f->d_rope,
                                .d_v = f->d_v,
                                .kv_lora = f->kv_lora,
                                .scale = f->attn_scale,
                                .k_up = l->k_up,
                                .v_b = l->v_b};
        return op_linear_add(c, x, op_attention_expanded(c, q, latent, &form, b), &l->o, NULL);
    }
    /* (n, n_head × (kv_lora + d_rope)) */
    q = op_linear_heads(c, q, f->n_head, l->k_b, rope, f->rope_half);
    struct attention_args a = {.layer = layer,
                               .n_head = f->n_head,
                               .n_kv_head = 1,
                               .d_k = f->kv_lora + f->d_rope,
                               .d_v = f->kv_lora,
                               .scale = f->attn_scale,
                               .rope = rope,
                               .half = f->rope_half,
                               .eps = (float)f->rms_eps,
                               .latent_norm = &l->kv_a_norm};
    struct tensor none = {0}, o = op_attention(c, q, y[1], none, &a, b);
    o = op_linear_heads(c, o, f->n_head, l->v_b, none, false); /* (n, n_head × d_v) */
    return op_linear_add(c, x, o, &l->o, NULL);
}
