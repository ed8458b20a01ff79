/*
 * Dense decoders: llama, qwen2, qwen3.
 *
 * Pre-norm blocks with grouped-query attention and SwiGLU (Touvron et al., "Llama 2", 2023; Qwen2
 * and Qwen3 technical reports). qwen2 adds biases to q, k, v; qwen3 normalizes each head of q and k
 * before the rotation. What a file has is what is used: a bias that is there is added.
 */
#include "model/arch.h"

#include <stddef.h>

struct dense_layer {
    struct weight attn_norm;  /* (d_model) */
    struct weight q, k, v, o; /* (heads × d_head, d_model); o: (d_model, heads × d_head) */
    struct weight q_bias, k_bias, v_bias, o_bias;
    struct weight q_norm, k_norm; /* (d_head) */
    struct weight ffn_norm;       /* (d_model) */
    struct weight gate, up, down; /* (d_ff, d_model); down: (d_model, d_ff) */
};

#define AT(field) offsetof(struct dense_layer, field)

// clang-format off
static const struct model_tensor dense_tensors[] = {
    {AT(attn_norm), "blk.%zu.attn_norm.weight",   "model.layers.%zu.input_layernorm.weight",          DIM_ONE, DIM_MODEL, 0},
    {AT(q),         "blk.%zu.attn_q.weight",      "model.layers.%zu.self_attn.q_proj.weight",         DIM_Q, DIM_MODEL, 0},
    {AT(k),         "blk.%zu.attn_k.weight",      "model.layers.%zu.self_attn.k_proj.weight",         DIM_KV, DIM_MODEL, 0},
    {AT(v),         "blk.%zu.attn_v.weight",      "model.layers.%zu.self_attn.v_proj.weight",         DIM_KV, DIM_MODEL, 0},
    {AT(o),         "blk.%zu.attn_output.weight", "model.layers.%zu.self_attn.o_proj.weight",         DIM_MODEL, DIM_Q, 0},
    {AT(q_bias),    "blk.%zu.attn_q.bias",        "model.layers.%zu.self_attn.q_proj.bias",           DIM_ONE, DIM_Q, TENSOR_OPTIONAL},
    {AT(k_bias),    "blk.%zu.attn_k.bias",        "model.layers.%zu.self_attn.k_proj.bias",           DIM_ONE, DIM_KV, TENSOR_OPTIONAL},
    {AT(v_bias),    "blk.%zu.attn_v.bias",        "model.layers.%zu.self_attn.v_proj.bias",           DIM_ONE, DIM_KV, TENSOR_OPTIONAL},
    {AT(o_bias),    "blk.%zu.attn_output.bias",   "model.layers.%zu.self_attn.o_proj.bias",           DIM_ONE, DIM_MODEL, TENSOR_OPTIONAL},
    {AT(q_norm),    "blk.%zu.attn_q_norm.weight", "model.layers.%zu.self_attn.q_norm.weight",         DIM_ONE, DIM_HEAD, TENSOR_OPTIONAL},
    {AT(k_norm),    "blk.%zu.attn_k_norm.weight", "model.layers.%zu.self_attn.k_norm.weight",         DIM_ONE, DIM_HEAD, TENSOR_OPTIONAL},
    {AT(ffn_norm),  "blk.%zu.ffn_norm.weight",    "model.layers.%zu.post_attention_layernorm.weight", DIM_ONE, DIM_MODEL, 0},
    {AT(gate),      "blk.%zu.ffn_gate.weight",    "model.layers.%zu.mlp.gate_proj.weight",            DIM_FF, DIM_MODEL, 0},
    {AT(up),        "blk.%zu.ffn_up.weight",      "model.layers.%zu.mlp.up_proj.weight",              DIM_FF, DIM_MODEL, 0},
    {AT(down),      "blk.%zu.ffn_down.weight",    "model.layers.%zu.mlp.down_proj.weight",            DIM_MODEL, DIM_FF, 0},
};
// clang-format on

static const struct weight *given(const struct weight *w)
{
    return w->cols ? w : NULL;
}

static struct tensor dense_attention(struct model *m, struct op_ctx *c, const struct dense_layer *l,
                                     size_t layer, struct tensor x, struct tensor rope,
                                     const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    const struct weight *w[] = {&l->q, &l->k, &l->v};
    const struct weight *bias[] = {given(&l->q_bias), given(&l->k_bias), given(&l->v_bias)};
    struct tensor y[3]; /* q (n, n_head × d_head), k and v (n, n_kv_head × d_head) */
    op_linears(c, x, 3, w, bias, y);
    if (given(&l->q_norm))
        y[0] = op_head_norm(c, y[0], f->n_head, &l->q_norm, (float)f->rms_eps);
    if (given(&l->k_norm))
        y[1] = op_head_norm(c, y[1], f->n_kv_head, &l->k_norm, (float)f->rms_eps);
    y[0] = op_rope(c, y[0], f->n_head, rope, f->rope_half);
    y[1] = op_rope(c, y[1], f->n_kv_head, rope, f->rope_half);
    struct attention_args a = {.layer = layer,
                               .n_head = f->n_head,
                               .n_kv_head = f->n_kv_head,
                               .d_k = f->d_head,
                               .d_v = f->d_head,
                               .scale = f->attn_scale};
    struct tensor o = op_attention(c, y[0], y[1], y[2], &a, b);
    return op_linear(c, o, &l->o, given(&l->o_bias));
}

static struct tensor dense_forward(struct model *m, struct op_ctx *c, const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    struct tensor x = op_embed(c, &m->top.embed, b->ids, b->n); /* (n, d_model) */
    struct tensor rope =
        op_rope_table(c, b->pos, b->n, m->rope, f->d_rope, (float)f->rope_attn_factor);
    for (size_t i = 0; i < f->n_layer; i++) {
        const struct dense_layer *l = (const struct dense_layer *)(m->layers + i * sizeof *l);
        size_t scope = op_begin(c);
        struct tensor h = op_rmsnorm(c, x, &l->attn_norm, (float)f->rms_eps);
        x = op_add(c, x, dense_attention(m, c, l, i, h, rope, b));
        h = op_rmsnorm(c, x, &l->ffn_norm, (float)f->rms_eps);
        h = op_swiglu(c, h, &l->gate, &l->up);
        x = op_add(c, x, op_linear(c, h, &l->down, NULL));
        op_end(c, scope);
    }
    x = op_rows(c, x, b->want, b->n_want);
    x = op_rmsnorm(c, x, &m->top.norm, (float)f->rms_eps);
    return op_linear(c, x, &m->top.head, NULL); /* (n_want, n_vocab) */
}

#define DENSE(id, gguf, half)                                                                      \
    const struct model_arch id = {.name = gguf,                                                    \
                                  .hf = gguf,                                                      \
                                  .layer = dense_tensors,                                          \
                                  .n_layer_tensors = sizeof dense_tensors / sizeof *dense_tensors, \
                                  .layer_size = sizeof(struct dense_layer),                        \
                                  .gguf_rope_half = half,                                          \
                                  .forward = dense_forward}

#define ARCH(id) extern const struct model_arch id;
#include "model/arch.def"
#undef ARCH

DENSE(arch_llama, "llama", false);
DENSE(arch_qwen2, "qwen2", true);
DENSE(arch_qwen3, "qwen3", true);
