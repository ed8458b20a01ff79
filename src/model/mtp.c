/*
 * Multi-token prediction (DeepSeek-V3, section 2.2): one block behind the main ones that guesses
 * the token after the next.
 *
 * For position i, from the main model's state h_i after its last norm and the embedding of token
 * i + 1:
 *   x_i = mtp_proj [ norm(embedding of t_{i+1}) ; norm(h_i) ]        the embedding half first
 * then an ordinary block with keys and values of its own (rotary position i), a norm, and the head.
 * The result at i predicts t_{i+2}. Checkpoints hold copies of the embedding and the head; where a
 * file leaves them out, the main ones serve.
 */
#include "model/arch.h"

#include <stddef.h>
#include <string.h>

// clang-format off
static const struct model_tensor mtp_rows[] = {
    {BLOCK(mtp_proj),        "blk.%zu.nextn.eh_proj.weight",          "model.layers.%zu.eh_proj.weight",           DIM_MODEL, DIM_TWICE, 0, WHEN_MTP},
    {BLOCK(mtp_embed_norm),  "blk.%zu.nextn.enorm.weight",            "model.layers.%zu.enorm.weight",             DIM_ONE, DIM_MODEL, 0, WHEN_MTP},
    {BLOCK(mtp_hidden_norm), "blk.%zu.nextn.hnorm.weight",            "model.layers.%zu.hnorm.weight",             DIM_ONE, DIM_MODEL, 0, WHEN_MTP},
    {BLOCK(mtp_embed),       "blk.%zu.nextn.embed_tokens.weight",     "model.layers.%zu.embed_tokens.weight",      DIM_VOCAB, DIM_MODEL, TENSOR_LOOKUP | TENSOR_OPTIONAL, WHEN_MTP},
    {BLOCK(mtp_norm),        "blk.%zu.nextn.shared_head_norm.weight", "model.layers.%zu.shared_head.norm.weight",  DIM_ONE, DIM_MODEL, TENSOR_OPTIONAL, WHEN_MTP},
    {BLOCK(mtp_head),        "blk.%zu.nextn.shared_head_head.weight", "model.layers.%zu.shared_head.head.weight",  DIM_VOCAB, DIM_MODEL, TENSOR_OPTIONAL, WHEN_MTP},
};
// clang-format on
const struct model_group model_mtp_group = {mtp_rows, sizeof mtp_rows / sizeof *mtp_rows};

static const struct weight *or_main(const struct weight *w, const struct weight *main)
{
    return w->cols ? w : main;
}

struct tensor model_states_mtp(struct model *m, struct op_ctx *c, const struct batch *b,
                               struct tensor hidden)
{
    const struct model_config *f = &m->cfg;
    size_t layer = f->n_layer;
    const struct model_block *l = &m->block[layer];
    float eps = (float)f->rms_eps;
    struct tensor x = op_embed(c, or_main(&l->mtp_embed, &m->top.embed), b->ids, b->n);
    x = op_rmsnorm(c, x, &l->mtp_embed_norm, eps);
    struct tensor h = op_rmsnorm(c, hidden, &l->mtp_hidden_norm, eps);
    x = op_linear(c, op_concat(c, x, h), &l->mtp_proj, NULL);
    struct tensor rope =
        op_rope_table(c, b->pos, b->n, m->rope, f->d_rope, (float)f->rope_attn_factor);
    x = model_block_forward(m, c, layer, x, rope, b);
    x = op_rows(c, x, b->want, b->n_want);
    return op_rmsnorm(c, x, or_main(&l->mtp_norm, &m->top.norm), eps);
}

const struct weight *model_head_mtp(const struct model *m)
{
    return or_main(&m->block[m->cfg.n_layer].mtp_head, &m->top.head);
}

struct tensor model_forward_mtp(struct model *m, struct op_ctx *c, const struct batch *b,
                                const float *hidden)
{
    struct tensor h = op_tensor(c, b->n, m->cfg.d_model);
    if (!c->dry)
        memcpy(h.data, hidden, b->n * m->cfg.d_model * sizeof *hidden);
    return op_linear(c, model_states_mtp(m, c, b, h), model_head_mtp(m), NULL);
}
