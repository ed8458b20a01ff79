/*
 * Tensors and coarse ops: what the forward pass of a model is written in.
 *
 * An op takes tensors and weights and gives a new tensor from the context's scratch memory;
 * blocking, threads and the preparation of activations are inside. The same calls serve three uses:
 *   dry      nothing is computed, only memory is counted: how a run is planned
 *   plain    inference: memory of a scope is used again, some ops work in place
 *   taped    a tape is attached: every op reports itself (op_record). A tape that keeps has nothing
 *            reused or changed in place, so that a backward pass can walk the record; one that does
 *            not keep only watches, and memory is used as in inference
 * Callers do not know which: they always go on with the tensor that an op returned.
 *
 * Numerics: every op's result for a token depends on that token (and its sequence) alone, never on
 * what else is in the batch, how it was cut, or the number of threads.
 *
 * Activations are F32, (rows, cols) with rows = tokens. Ops cannot fail: shapes are checked when a
 * model is bound, memory is planned by a dry run.
 */
#ifndef PONDER_TENSOR_OPS_H
#define PONDER_TENSOR_OPS_H

#include "base/err.h"
#include "base/team.h"
#include "kernels/kern.h"
#include "tensor/kv.h"
#include "tensor/weight.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tensor {
    float *data; /* (rows, cols), row-major, aligned to 64; NULL in a dry run */
    size_t rows, cols;
};

enum op_kind {
    OP_EMBED,
    OP_RMSNORM,
    OP_HEAD_NORM,
    OP_LINEAR,
    OP_LINEAR_HEADS,
    OP_LORA,
    OP_DROPOUT, /* before w[0]'s adapter */
    OP_ROPE,
    OP_LATENT,
    OP_CONCAT,
    OP_ATTENTION,
    OP_ATTENTION_EXPANDED,
    OP_SWIGLU,
    OP_GLU, /* silu(in[0]) ⊙ in[1] */
    OP_ROUTE,
    OP_EXPERT,
    OP_MOE,
    OP_ADD,
    OP_ROWS,
    OP_BLOCK, /* of a tape that recomputes: what op_block was asked */
};

enum router_score { ROUTER_SOFTMAX, ROUTER_SIGMOID };

/* How tokens choose their experts; router_check says whether the values fit together. */
struct router_args {
    size_t n_expert, n_used;      /* E, k */
    size_t n_group, n_group_used; /* groups of E / n_group experts; n_group ≤ 1: none */
    enum router_score score;
    bool group_top2;           /* a group's score: the sum of its two best (V3) or its best (V2) */
    bool norm;                 /* weights over their sum + 1e-20 */
    float scale;               /* then times this */
    const struct weight *bias; /* (E), added to the scores for the choice alone; NULL: none */
    const struct batch *batch; /* whose tokens they are, for the balance of a sequence; or NULL */
};

/* The experts of each token. Scratch of the context. */
struct routing {
    size_t n, n_used;
    uint32_t *expert; /* (n, n_used), ascending within a token; NULL in a dry run */
    float *weight;    /* (n, n_used) */
};

/* Slots of a mixture: a token at one of its experts; those of an expert lie together, in the order
 * of tokens. Only with `keep`. */
struct op_slots {
    const uint32_t *end;    /* (n_expert) one behind the last slot of each; the first begins at 0 */
    const uint32_t *token;  /* (slots) */
    const uint32_t *place;  /* (slots) of the slot's weight in routing.weight */
    const float *gate, *up; /* (slots, d_ff) the two products */
};

/*
 * What an op tells a tape. With `keep` the memory of tensors stays valid while the tape's run
 * lasts, without it during the call only (and where the op works in place, `in` already holds the
 * result). What pointers to arguments show is valid during the call.
 */
struct op_record {
    enum op_kind kind;
    struct tensor out, in[3]; /* a tensor is known by its data pointer */
    const struct weight *w[3];
    size_t heads;       /* OP_LINEAR_HEADS: matrices at w[0]. OP_HEAD_NORM, OP_ROPE: of the input */
    size_t at;          /* OP_ROPE: first rotated value of a head */
    bool half;          /* OP_ROPE, OP_LATENT */
    float eps;          /* OP_RMSNORM, OP_HEAD_NORM, OP_LATENT */
    const int32_t *ids; /* OP_EMBED: (out.rows) */
    const struct attention_args *attention; /* OP_ATTENTION, and */
    const struct batch *batch;
    struct op_slots slots;      /* OP_MOE */
    const struct op_body *body; /* OP_BLOCK */
    /* OP_ROUTE: what was asked, and the answer, whose weights are `out`. OP_MOE: the answer that
       was followed, its weights are in[1]; w: gate, up, down, each an array of n_expert. */
    struct router_args router;
    struct routing routing;
    size_t n_expert;
    /* OP_EXPERT, inside of OP_MOE and before it, only without `keep`: what went into one expert's
       products. Rows in[0][rows[i]] into gate w[0] and up w[1], in[1][i] into down w[2], for i <
       in[1].rows. */
    size_t expert;
    const uint32_t *rows; /* OP_ROWS too: (out.rows) */
};

/* A tape is attached to a context while op_ctx.tape points to it. */
struct op_tape {
    void (*record)(void *arg, const struct op_record *r);
    void *arg;
    bool keep;
    bool recompute; /* with `keep`: op_block keeps its input alone */
};

/* Tokens of one sequence that lie together in a batch. */
struct batch_run {
    struct kv_seq *seq; /* has pages for pos + n tokens (op_attention writes them) */
    size_t row, n;      /* rows [row, row + n) of the batch */
    size_t pos;         /* position of the first one */
};

struct batch {
    size_t n;             /* tokens */
    const int32_t *ids;   /* (n) */
    const uint32_t *pos;  /* (n) */
    const uint32_t *want; /* (n_want) rows whose logits are wanted, ascending */
    size_t n_want;
    float *
        hidden; /* (n, d_model) when not NULL: takes the state of every token after the last norm */
    const struct batch_run *runs;
    size_t n_runs;
};

/* While adapters are trained: values of their inputs are dropped with probability p. */
struct op_dropout {
    float p;             /* below 1 */
    uint64_t seed;       /* of the step */
    const uint64_t *row; /* (rows) a key for each row of the batch, until the way back is done */
    size_t rows;
};

struct op_ctx {
    const struct kern *kern;
    struct team *team;
    struct op_tape *tape;             /* NULL: inference */
    const struct op_dropout *dropout; /* NULL: none */
    bool dry;
    bool fine;    /* int8 activations twice: the value, then what rounding left of it */
    uint8_t *mem; /* scratch: `cap` bytes at a 64-byte boundary */
    size_t cap, used, peak;
};

/* Starts without scratch; op_ctx_reserve gives it. kern and team must outlive the context. */
void op_ctx_init(struct op_ctx *c, const struct kern *kern, struct team *team);
void op_ctx_release(struct op_ctx *c);
/* Grows the scratch to `bytes`, the peak of a dry run. Nothing may be in use. */
int op_ctx_reserve(struct op_ctx *c, size_t bytes, struct err *e);

/* What is taken between begin and end is given back at end (unless a tape keeps it). */
size_t op_begin(struct op_ctx *c);
void op_end(struct op_ctx *c, size_t mark);

/* `bytes` of scratch, aligned to 64; NULL in a dry run. */
void *op_alloc(struct op_ctx *c, size_t bytes);
struct tensor op_tensor(struct op_ctx *c, size_t rows, size_t cols);

/* (n) ids → (n, cols of w): rows of the embedding matrix. */
struct tensor op_embed(struct op_ctx *c, const struct weight *w, const int32_t *ids, size_t n);

/* Each row over its root mean square, times w (a vector of x->cols). */
struct tensor op_rmsnorm(struct op_ctx *c, struct tensor x, const struct weight *w, float eps);

/* The same over each head: x (n, heads × d), w (d). In place unless a tape keeps. */
struct tensor op_head_norm(struct op_ctx *c, struct tensor x, size_t heads, const struct weight *w,
                           float eps);

/* y = x Wᵀ + b: x (n, w->cols) → (n, w->rows); b may be NULL. */
struct tensor op_linear(struct op_ctx *c, struct tensor x, const struct weight *w,
                        const struct weight *b);

/* Up to OP_LINEARS of them with the same input as one parallel region. */
enum { OP_LINEARS = 4 };
void op_linears(struct op_ctx *c, struct tensor x, size_t count, const struct weight *const w[],
                const struct weight *const b[], struct tensor y[]);

/*
 * Fused ops: what some of the others do one after the other, bit by bit, in fewer regions and fewer
 * passes over activations. With a tape they are those others, so that it sees each.
 */

/* Rows of x, each over its root mean square, times `norm`. */
struct norm_input {
    struct tensor x;
    const struct weight *norm;
    float eps;
};

/* op_rmsnorm and op_linears. Returns the norms; without `keep` they may have no data. */
struct tensor op_norm_linears(struct op_ctx *c, const struct norm_input *in, bool keep,
                              size_t count, const struct weight *const w[],
                              const struct weight *const b[], struct tensor y[]);

/* op_add of `sum` and op_linear of x. */
struct tensor op_linear_add(struct op_ctx *c, struct tensor sum, struct tensor x,
                            const struct weight *w, const struct weight *b);

/* op_add of `total` and that. */
struct tensor op_linear_add_both(struct op_ctx *c, struct tensor total, struct tensor sum,
                                 struct tensor x, const struct weight *w);

/* The feed-forward part: x + down (silu(gate h) ⊙ up h), h = norm of x. */
struct tensor op_ffn(struct op_ctx *c, const struct norm_input *in, const struct weight *gate,
                     const struct weight *up, const struct weight *down);

/*
 * A matrix of its own for each head, over the first w->cols values of the head; what the head has
 * beyond them is carried over behind the product. x (n, heads × (w->cols + more)), w: `heads`
 * weights of one shape → (n, heads × (w->rows + more)). With a table `rope` (of `more` values) what
 * is carried over is rotated, as by op_rope; without (cols = 0) it is not.
 */
struct tensor op_linear_heads(struct op_ctx *c, struct tensor x, size_t heads,
                              const struct weight *w, struct tensor rope, bool half);

/* Matrices of many heads with one input: x (n, w->cols) → (n, heads × w->rows). Inside of other
 * ops: no tape sees it. */
struct tensor op_linear_each(struct op_ctx *c, struct tensor x, size_t heads,
                             const struct weight *w);

/* silu(x Wgᵀ) ⊙ (x Wuᵀ): (n, d) → (n, d_ff), one region. */
struct tensor op_swiglu(struct op_ctx *c, struct tensor x, const struct weight *gate,
                        const struct weight *up);

/* ERR_FORMAT when the values do not fit together, so that a router of them cannot be. */
int router_check(const struct router_args *a, struct err *e);

/*
 * Chooses experts (DeepSeek-V2 and V3): logits (n, E) → scores, by softmax over a row or sigmoid;
 * to choose by, the bias is added; groups other than the n_group_used best are left out; the n_used
 * best remain, the lower index first among equals (NaN counts as −inf). Their weights are the
 * scores without bias, over their sum in ascending order of experts when `norm`, times `scale`.
 */
struct routing op_route(struct op_ctx *c, struct tensor logits, const struct router_args *a);

/*
 * Mixture of experts: y = Σ weight_e × down_e(silu(gate_e x) ⊙ up_e x) over the token's experts, a
 * chain of FMAs from 0 in ascending order of experts. gate, up (d_ff, d) and down (d, d_ff): arrays
 * of n_expert weights of one shape, of any types. x (n, d) → (n, d).
 */
struct tensor op_moe(struct op_ctx *c, struct tensor x, const struct routing *r,
                     const struct weight *gate, const struct weight *up, const struct weight *down,
                     size_t n_expert);

/* Rows of x and y side by side: (n, x.cols + y.cols). */
struct tensor op_concat(struct op_ctx *c, struct tensor x, struct tensor y);

/* x + y. Unless a tape keeps, the sum takes x's place. */
struct tensor op_add(struct op_ctx *c, struct tensor x, struct tensor y);

/*
 * cos and sin of each token's angles: (n, d) with cos, sin of pos × freq[i] × for i < d/2,
 * times `scale`. freq: d/2 angles per position, in double.
 */
struct tensor op_rope_table(struct op_ctx *c, const uint32_t *pos, size_t n, const double *freq,
                            size_t d, float scale);

/* Rotates table->cols values of each head, from value `at` on: x (n, heads × d_head). In place
 * unless a tape keeps. */
struct tensor op_rope(struct op_ctx *c, struct tensor x, size_t heads, size_t at,
                      struct tensor table, bool half);

/*
 * The latents of MLA: the first w->cols values of each row over their root mean square, times w;
 * the rest (table->cols values, the key part that all heads share) rotated. In place unless a tape
 * keeps.
 */
struct tensor op_latent(struct op_ctx *c, struct tensor x, const struct weight *w, float eps,
                        struct tensor table, bool half);

struct attention_args {
    size_t layer, n_head, n_kv_head, d_k, d_v;
    float scale; /* of the scores, 1/sqrt(d_k) as a rule */

    /* What becomes of q and k first, when `rope` has columns: op_head_norm of both where there are
       weights, op_rope of both from value 0 on; or, with `latent_norm`, op_latent of k alone. */
    struct tensor rope;
    bool half;
    float eps;
    const struct weight *q_norm, *k_norm, *latent_norm;
};

/*
 * Causal attention of the batch over its sequences: q (n, n_head × d_k), k (n, n_kv_head × d_k),
 * v (n, n_kv_head × d_v) → (n, n_head × d_v). Writes k and v into the sequences' pages first. For a
 * latent cache v is empty: the value is the first d_v values of k.
 */
struct tensor op_attention(struct op_ctx *c, struct tensor q, struct tensor k, struct tensor v,
                           const struct attention_args *a, const struct batch *b);

/* Fused: op_add of x and op_linear of what op_attention gives. */
struct tensor op_attention_add(struct op_ctx *c, struct tensor x, struct tensor q, struct tensor k,
                               struct tensor v, const struct attention_args *a,
                               const struct batch *b, const struct weight *w,
                               const struct weight *bias);

struct mla_args {
    size_t layer, n_head, d_nope, d_rope, d_v, kv_lora;
    float scale;
    const struct weight *k_up, *v_b; /* n_head × (d_nope, kv_lora), n_head × (d_v, kv_lora) */
};

/*
 * Causal attention over latents whose keys and values are expanded for every head:
 * q (n, n_head × (d_nope + d_rope)), latent (n, kv_lora + d_rope), which are written into the
 * sequences' pages first → (n, n_head × d_v). For long chunks.
 */
struct tensor op_attention_expanded(struct op_ctx *c, struct tensor q, struct tensor latent,
                                    const struct mla_args *a, const struct batch *b);

/* Rows of x: (n_rows, cols). */
struct tensor op_rows(struct op_ctx *c, struct tensor x, const uint32_t *rows, size_t n);

/*
 * A piece of a forward pass, x (n, d) → (n, d), that a tape may compute twice (Chen et al.,
 * "Training Deep Nets with Sublinear Memory Cost", 2016): a tape with `recompute` sees x and the
 * result alone, and calls `fn` again on the way back. `arg`, `bytes` of plain values, is copied;
 * what it points to must be valid, and as it was, until then. Without such a tape: fn(arg, c, x).
 */
struct op_body {
    struct tensor (*fn)(const void *arg, struct op_ctx *c, struct tensor x);
    const void *arg;
    size_t bytes;
};
struct tensor op_block(struct op_ctx *c, struct tensor x, const struct op_body *body);

/* Private to tensor/: reports an op to the tape, when there is one. */
void op_record(struct op_ctx *c, const struct op_record *r);

#endif
