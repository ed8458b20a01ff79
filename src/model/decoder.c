/*
 * The decoder that all architectures share: embedding, blocks, last norm, head.
 *
 *   x = embed(ids)
 *   each block:  x += attention(norm x);  x += ffn(norm x)
 *   logits = head(norm x)            for the rows whose logits are wanted
 */
#include "model/arch.h"

#include <stddef.h>
#include <string.h>

// clang-format off
static const struct model_tensor top_rows[] = {
    {offsetof(struct model_top, embed), "token_embd.weight",  "model.embed_tokens.weight", DIM_VOCAB, DIM_MODEL, TENSOR_LOOKUP, 0},
    {offsetof(struct model_top, norm),  "output_norm.weight", "model.norm.weight",         DIM_ONE, DIM_MODEL, 0, 0},
    {offsetof(struct model_top, head),  "output.weight",      "lm_head.weight",            DIM_VOCAB, DIM_MODEL, TENSOR_HEAD, 0},
};

static const struct model_tensor norm_rows[] = {
    {BLOCK(attn_norm), "blk.%zu.attn_norm.weight", "model.layers.%zu.input_layernorm.weight",          DIM_ONE, DIM_MODEL, 0, 0},
    {BLOCK(ffn_norm),  "blk.%zu.ffn_norm.weight",  "model.layers.%zu.post_attention_layernorm.weight", DIM_ONE, DIM_MODEL, 0, 0},
};
// clang-format on
const struct model_group model_top_group = {top_rows, sizeof top_rows / sizeof *top_rows};
const struct model_group model_norm_group = {norm_rows, sizeof norm_rows / sizeof *norm_rows};

/* What a block is asked, as plain values: a tape may ask it again. */
struct block_args {
    const struct model *m;
    size_t layer;
    struct tensor rope;
    struct batch batch;
};

static struct tensor block_run(const void *arg, struct op_ctx *c, struct tensor x)
{
    const struct block_args *a = arg;
    const struct model_block *l = &a->m->block[a->layer];
    size_t scope = op_begin(c);
    x = a->m->cfg.arch->attention(a->m, c, l, a->layer, x, a->rope, &a->batch);
    x = model_ffn(a->m, c, l, a->layer, x, &a->batch);
    op_end(c, scope);
    return x;
}

struct tensor model_block_forward(const struct model *m, struct op_ctx *c, size_t layer,
                                  struct tensor x, struct tensor rope, const struct batch *b)
{
    struct block_args a = {m, layer, rope, *b};
    return op_block(c, x, &(struct op_body){block_run, &a, sizeof a});
}

struct tensor model_states(struct model *m, struct op_ctx *c, const struct batch *b)
{
    const struct model_config *f = &m->cfg;
    float eps = (float)f->rms_eps;
    struct tensor x = op_embed(c, &m->top.embed, b->ids, b->n); /* (n, d_model) */
    struct tensor rope =
        op_rope_table(c, b->pos, b->n, m->rope, f->d_rope, (float)f->rope_attn_factor);
    for (size_t i = 0; i < f->n_layer; i++)
        x = model_block_forward(m, c, i, x, rope, b);
    if (b->hidden) {
        x = op_rmsnorm(c, x, &m->top.norm, eps);
        if (!c->dry)
            memcpy(b->hidden, x.data, b->n * f->d_model * sizeof *b->hidden);
        return op_rows(c, x, b->want, b->n_want);
    }
    x = op_rows(c, x, b->want, b->n_want);
    return op_rmsnorm(c, x, &m->top.norm, eps);
}

const struct weight *model_head(const struct model *m)
{
    return &m->top.head;
}

struct tensor model_forward(struct model *m, struct op_ctx *c, const struct batch *b)
{
    return op_linear(c, model_states(m, c, b), &m->top.head, NULL); /* (n_want, n_vocab) */
}
