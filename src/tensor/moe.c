/*
 * Mixture of experts: op_moe.
 *
 * Tokens are sorted by expert (a stable counting sort): a *slot* is one token at one of its
 * experts, and the slots of an expert, a *group*, lie together. So each expert is one product of
 * its weights with all of its columns, and its weights are read from memory once however many
 * tokens came to it. Two regions of the team, of two stages each:
 *   input     each slot's row in the forms that products read
 *   gate|up   a chunk is some rows of one expert: both products, then SwiGLU, into the slot's row
 *   hidden    each slot's d_ff values in the forms that products read
 *   down      a chunk is some rows of the result: walks all groups in ascending order of experts
 *             and adds weight × product to the rows of their tokens. No slot's result is ever
 *             stored, and the order of the sum is that of the experts.
 *
 * Every group has a prepared input of its own (a kern_x of its columns): in one of all slots a
 * column's blocks would lie a power of two apart, and a few of them would fill a set of the cache.
 * A single token is prepared once for all of its experts.
 *
 * Memory: at most MOE_SLOTS slots at a time (or one token); more tokens go in pieces of equal size.
 * Pieces, chunks and threads decide nothing about a token's bits: each output is one chain over K,
 * then one over experts. Sizes depend on shapes and types, never on where tokens were sent.
 *
 * The shared expert, which every token takes, is an op_swiglu and an op_linear of the model's.
 */
#include "base/num.h"
#include "tensor/linear_impl.h"

#include <string.h>

enum {
    MOE_SLOTS = 4096,    /* slots of a piece */
    MOE_COLS = 96,       /* columns of one product: what goes between two kernels stays in cache */
    MOE_FEW = 8,         /* tokens up to which memory is the limit: larger chunks */
    MOE_GATE_ROWS = 32,  /* of gate and of up: a chunk */
    MOE_GATE_MOST = 128, /* the same with few tokens, at most */
    MOE_DOWN_LEAST = 64, /* of down: a chunk, which begins anew with each expert, */
    MOE_DOWN_ROWS = 128, /* and at most */
    MOE_TOGETHER = 8,    /* columns that are quantized together: they share cache lines */
    MOE_SERIAL = 16384,  /* fewer values than this are prepared by the caller */
};

/* The slots of one expert, and their columns as products read them. */
struct moe_group {
    size_t expert, slot, n;
    unsigned x_forms, h_forms; /* that its products read */
    float *gather; /* the columns of x as floats; NULL when nobody reads them or they lie so */
    struct linear_x x, h;
};

struct moe_job {
    const struct kern *kern;
    const struct weight *gate, *up, *down;
    size_t n_expert, d, d_ff;
    unsigned x_forms, h_forms; /* that any of the experts reads */

    /* the piece */
    struct tensor x;
    float *y;
    size_t slots, n_groups;
    struct moe_group *groups;
    uint32_t *first;      /* (n_expert + 1) counts, then first slots */
    uint32_t *slot_token; /* by slot: its row of the piece */
    uint32_t *slot_group;
    float *slot_weight;
    float *h; /* (slots, d_ff) */
    float *keep_gate,
        *keep_up;    /* the products too, (slots, d_ff), for a tape that keeps; or NULL */
    uint32_t *place; /* by slot: of its weight in the routing; or NULL */
    uint8_t *x_mem, *h_mem;

    bool floats;                     /* as in linear_x */
    bool hidden;                     /* which side is being prepared */
    size_t prepare_n, prepare_per;   /* slots in all, and of a chunk */
    size_t gate_rows, gate_chunks;   /* rows of a chunk; chunks of one expert */
    size_t down_rows;                /* rows of a chunk */
    float *scratch;                  /* per worker: products, then what linear_rows takes */
    size_t scratch_floats, products; /* of one worker; where its second part begins */
};

/* ---- slots ----------------------------------------------------------------------------------- */

/* The piece's tokens [t0, t0 + tokens) sorted by expert. */
static void moe_sort(struct moe_job *j, const struct routing *r, size_t t0)
{
    const uint32_t *expert = r->expert + t0 * r->n_used;
    const float *weight = r->weight + t0 * r->n_used;
    j->slots = j->x.rows * r->n_used;
    j->n_groups = 0;
    memset(j->first, 0, (j->n_expert + 1) * sizeof *j->first);
    for (size_t i = 0; i < j->slots; i++)
        j->first[expert[i] + 1]++;
    for (size_t e = 0; e < j->n_expert; e++) {
        size_t n = j->first[e + 1];
        j->first[e + 1] += j->first[e];
        if (!n)
            continue;
        struct moe_group *g = &j->groups[j->n_groups];
        *g = (struct moe_group){.expert = e,
                                .slot = j->first[e],
                                .n = n,
                                .x_forms = linear_form(j->kern, &j->gate[e], j->floats) |
                                           linear_form(j->kern, &j->up[e], j->floats),
                                .h_forms = linear_form(j->kern, &j->down[e], j->floats),
                                .x.floats = j->floats,
                                .h.floats = j->floats};
        if (j->x.rows == 1) /* prepared once for all */
            g->x_forms = j->x_forms;
        for (size_t s = g->slot; s < g->slot + n; s++)
            j->slot_group[s] = (uint32_t)j->n_groups;
        j->n_groups++;
    }
    for (size_t t = 0, i = 0; t < j->x.rows; t++)
        for (size_t k = 0; k < r->n_used; k++, i++) {
            size_t s = j->first[expert[i]]++;
            j->slot_token[s] = (uint32_t)t;
            j->slot_weight[s] = weight[i];
            if (j->place)
                j->place[s] = (uint32_t)i;
        }
}

/* ---- prepared columns ------------------------------------------------------------------------ */

/* Bytes of one column in `forms`; as many times this is enough for any number in one kern_x. */
static size_t moe_column_bytes(unsigned forms, size_t k, bool gather)
{
    size_t n = 0;
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_BF16; form++)
        if (forms & 1u << form)
            n += kern_x_bytes((enum kern_act)form, k, 1);
    if (gather && forms & 1u << KERN_ACT_F32)
        n += num_round_up(k * sizeof(float), KERN_ALIGN);
    return n;
}

/* Gives the quantized forms of n columns their places at `mem`, and the floats theirs, which is
 * `f`. */
static uint8_t *moe_place(struct linear_x *x, unsigned forms, size_t k, size_t n, const float *f,
                          uint8_t *mem)
{
    x->form[KERN_ACT_F32 - 1] = (struct kern_x){.k = k, .cols = n, .f = f, .ldf = k};
    for (int form = KERN_ACT_Q32; form <= KERN_ACT_BF16; form++)
        if (forms & 1u << form) {
            kern_x_place(&x->form[form - 1], (enum kern_act)form, k, n, mem);
            mem += kern_x_bytes((enum kern_act)form, k, n);
        }
    return mem;
}

/* Columns [col, col + n) of x, column c at `at` + c × step. */
static void prepare_columns(const struct kern *k, struct linear_x *x, unsigned forms,
                            const float *at, size_t step, size_t col, size_t n)
{
    if (forms & 1u << KERN_ACT_Q32)
        k->quantize_q32(&x->form[KERN_ACT_Q32 - 1], at, step, col, n);
    if (forms & 1u << KERN_ACT_Q256)
        k->quantize_q256(&x->form[KERN_ACT_Q256 - 1], at, step, col, n);
    if (forms & 1u << KERN_ACT_BF16)
        k->quantize_bf16(&x->form[KERN_ACT_BF16 - 1], at, step, col, n);
}

static void prepare_chunk(void *arg, size_t chunk, int worker)
{
    (void)worker;
    const struct moe_job *j = arg;
    size_t end = num_min(j->prepare_n, (chunk + 1) * j->prepare_per), n;
    for (size_t s = chunk * j->prepare_per; s < end; s += n) {
        struct moe_group *g = &j->groups[j->slot_group[s]];
        size_t col = s - g->slot;
        if (j->hidden) { /* the columns of a group lie together */
            n = num_min(num_min(MOE_TOGETHER, end - s), g->n - col);
            prepare_columns(j->kern, &g->h, g->h_forms, j->h + g->slot * j->d_ff, j->d_ff, col, n);
            continue;
        }
        /* A step of 0 between columns: whatever its number, a column's values are at `row`. */
        const float *row = j->x.data + j->slot_token[s] * j->d;
        n = 1;
        prepare_columns(j->kern, &g->x, g->x_forms, row, 0, col, n);
        if (g->gather)
            memcpy(g->gather + col * j->d, row, j->d * sizeof *row);
    }
}

static struct team_work moe_prepare(struct op_ctx *c, struct moe_job *j, bool hidden)
{
    bool once = !hidden && j->x.rows == 1;
    uint8_t *mem = hidden ? j->h_mem : j->x_mem;
    for (size_t i = 0; i < j->n_groups; i++) {
        struct moe_group *g = &j->groups[i];
        if (hidden) {
            mem = moe_place(&g->h, g->h_forms, j->d_ff, g->n, j->h + g->slot * j->d_ff, mem);
        } else if (once && i) {
            g->x = j->groups[0].x;
        } else {
            if (!once && g->x_forms & 1u << KERN_ACT_F32) {
                g->gather = (float *)(void *)mem;
                mem += num_round_up(g->n * j->d * sizeof(float), KERN_ALIGN);
            }
            mem = moe_place(&g->x, g->x_forms, j->d, g->n, once ? j->x.data : g->gather, mem);
        }
    }
    j->hidden = hidden;
    j->prepare_n = once ? 1 : j->slots;
    j->prepare_per = j->prepare_n;
    if (j->prepare_n * (hidden ? j->d_ff : j->d) >= MOE_SERIAL)
        j->prepare_per = num_max(1, j->prepare_n / ((size_t)team_threads(c->team) * 4));
    return (struct team_work){prepare_chunk, j,
                              (j->prepare_n + j->prepare_per - 1) / j->prepare_per, false};
}

/* ---- products -------------------------------------------------------------------------------- */

static void gate_chunk(void *arg, size_t chunk, int worker)
{
    const struct moe_job *j = arg;
    const struct moe_group *g = &j->groups[chunk / j->gate_chunks];
    size_t per = j->gate_rows, r0 = chunk % j->gate_chunks * per;
    size_t r1 = num_min(j->d_ff, r0 + per);
    float *a = j->scratch + (size_t)worker * j->scratch_floats;
    float *b = a + MOE_COLS * MOE_GATE_ROWS, *tmp = a + j->products;
    for (size_t c0 = 0, n; c0 < g->n; c0 += n) {
        n = num_min(MOE_COLS, g->n - c0);
        linear_rows(j->kern, &g->x, c0, n, &j->gate[g->expert], r0, r1, a, per, tmp);
        linear_rows(j->kern, &g->x, c0, n, &j->up[g->expert], r0, r1, b, per, tmp);
        for (size_t c = 0; c < n; c++) {
            size_t at = (g->slot + c0 + c) * j->d_ff + r0;
            if (j->keep_gate) {
                memcpy(j->keep_gate + at, a + c * per, (r1 - r0) * sizeof *a);
                memcpy(j->keep_up + at, b + c * per, (r1 - r0) * sizeof *b);
            }
            j->kern->swiglu(j->h + at, a + c * per, b + c * per, r1 - r0);
        }
    }
}

static void down_chunk(void *arg, size_t chunk, int worker)
{
    const struct moe_job *j = arg;
    size_t r0 = chunk * j->down_rows, rows = num_min(j->down_rows, j->d - r0);
    float *a = j->scratch + (size_t)worker * j->scratch_floats, *tmp = a + j->products;
    for (size_t t = 0; t < j->x.rows; t++)
        memset(j->y + t * j->d + r0, 0, rows * sizeof *j->y);
    for (size_t i = 0; i < j->n_groups; i++) {
        const struct moe_group *g = &j->groups[i];
        for (size_t c0 = 0, n; c0 < g->n; c0 += n) {
            n = num_min(MOE_COLS, g->n - c0);
            linear_rows(j->kern, &g->h, c0, n, &j->down[g->expert], r0, r0 + rows, a, MOE_DOWN_ROWS,
                        tmp);
            for (size_t c = 0; c < n; c++) {
                size_t s = g->slot + c0 + c;
                j->kern->axpy(j->y + j->slot_token[s] * j->d + r0, j->slot_weight[s],
                              a + c * MOE_DOWN_ROWS, rows);
            }
        }
    }
}

/* For who watches: the inputs of each expert's products. */
static void moe_watch(struct op_ctx *c, const struct moe_job *j)
{
    for (size_t i = 0; i < j->n_groups; i++) {
        const struct moe_group *g = &j->groups[i];
        op_record(c, &(struct op_record){
                         .kind = OP_EXPERT,
                         .in = {j->x, {j->h + g->slot * j->d_ff, g->n, j->d_ff}},
                         .w = {&j->gate[g->expert], &j->up[g->expert], &j->down[g->expert]},
                         .expert = g->expert,
                         .n_expert = j->n_expert,
                         .rows = j->slot_token + g->slot});
    }
}

static void moe_piece(struct op_ctx *c, struct moe_job *j)
{
    struct team_work input = moe_prepare(c, j, false);
    struct team_work gate = {gate_chunk, j, j->n_groups * j->gate_chunks, true};
    team_run_after(c->team, &input, &gate);
    if (c->tape && !c->tape->keep)
        moe_watch(c, j);
    struct team_work hidden = moe_prepare(c, j, true);
    struct team_work down = {down_chunk, j, (j->d + j->down_rows - 1) / j->down_rows, true};
    team_run_after(c->team, &hidden, &down);
}

static bool moe_keeps(const struct op_ctx *c)
{
    return c->tape && c->tape->keep;
}

/* What stays for a tape: all slots are one piece then. */
static void moe_keep(struct op_ctx *c, struct moe_job *j, size_t slots)
{
    j->first = op_alloc(c, (j->n_expert + 1) * sizeof *j->first);
    j->slot_token = op_alloc(c, slots * sizeof *j->slot_token);
    j->place = op_alloc(c, slots * sizeof *j->place);
    j->keep_gate = op_alloc(c, slots * j->d_ff * sizeof *j->keep_gate);
    j->keep_up = op_alloc(c, slots * j->d_ff * sizeof *j->keep_up);
}

/* Memory for pieces of up to `tokens` tokens. All counts depend on shapes and types alone. */
static void moe_reserve(struct op_ctx *c, struct moe_job *j, size_t tokens, size_t n_used)
{
    size_t slots = tokens * n_used, lazy = 0;
    for (size_t e = 0; e < j->n_expert; e++) {
        const struct weight *w[] = {&j->gate[e], &j->up[e], &j->down[e]};
        j->x_forms |= linear_form(c->kern, w[0], c->fine) | linear_form(c->kern, w[1], c->fine);
        j->h_forms |= linear_form(c->kern, w[2], c->fine);
        for (size_t i = 0; i < NUM_COUNT(w); i++)
            lazy = num_max(lazy, linear_scratch(c->kern, w[i]));
    }
    j->groups = op_alloc(c, num_min(slots, j->n_expert) * sizeof *j->groups);
    if (!moe_keeps(c)) {
        j->first = op_alloc(c, (j->n_expert + 1) * sizeof *j->first);
        j->slot_token = op_alloc(c, slots * sizeof *j->slot_token);
    }
    j->slot_group = op_alloc(c, slots * sizeof *j->slot_group);
    j->slot_weight = op_alloc(c, slots * sizeof *j->slot_weight);
    j->h = op_alloc(c, slots * j->d_ff * sizeof *j->h);
    j->x_mem =
        op_alloc(c, (tokens == 1 ? 1 : slots) * moe_column_bytes(j->x_forms, j->d, tokens != 1));
    j->h_mem = op_alloc(c, slots * moe_column_bytes(j->h_forms, j->d_ff, false));
    j->products = (size_t)MOE_COLS * num_max(2 * MOE_GATE_ROWS, MOE_DOWN_ROWS);
    j->scratch_floats = num_round_up(j->products + lazy, KERN_ALIGN / sizeof(float));
    j->scratch = op_alloc(c, j->scratch_floats * sizeof(float) * (size_t)team_threads(c->team));
}

/* Rows of a chunk of down, which walks all experts. Where it has few of each, the beginnings, which
   nobody fetches ahead, weigh more. Chunks stay enough for threads to finish together. */
static size_t moe_down_rows(const struct op_ctx *c, size_t rows, size_t tokens)
{
    size_t per = linear_rows_chunk(c, rows, tokens);
    if (per < MOE_DOWN_LEAST && rows / MOE_DOWN_LEAST >= 4 * (size_t)team_threads(c->team))
        per = MOE_DOWN_LEAST;
    return num_min(per, MOE_DOWN_ROWS);
}

struct tensor op_moe(struct op_ctx *c, struct tensor x, const struct routing *r,
                     const struct weight *gate, const struct weight *up, const struct weight *down,
                     size_t n_expert)
{
    struct moe_job j = {.kern = c->kern,
                        .floats = c->fine,
                        .gate = gate,
                        .up = up,
                        .down = down,
                        .n_expert = n_expert,
                        .d = x.cols,
                        .d_ff = gate->rows,
                        .gate_rows = MOE_GATE_ROWS,
                        .down_rows = moe_down_rows(c, x.cols, x.rows)};
    struct tensor y = op_tensor(c, x.rows, x.cols);
    if (!x.rows)
        return y;
    if (x.rows <= MOE_FEW)
        j.gate_rows = num_min(linear_rows_chunk(c, r->n_used * j.d_ff, x.rows), MOE_GATE_MOST);
    j.gate_chunks = (j.d_ff + j.gate_rows - 1) / j.gate_rows;
    size_t most = num_min(x.rows, num_max(1, MOE_SLOTS / r->n_used));
    if (moe_keeps(c)) {
        most = x.rows;
        moe_keep(c, &j, most * r->n_used);
    }
    size_t mark = c->used;
    size_t pieces = (x.rows + most - 1) / most;
    moe_reserve(c, &j, most, r->n_used);
    for (size_t i = 0, t0 = 0; i < pieces && !c->dry; i++, t0 += j.x.rows) {
        j.x = (struct tensor){x.data + t0 * j.d, (x.rows - t0) / (pieces - i), j.d};
        j.y = y.data + t0 * j.d;
        moe_sort(&j, r, t0);
        moe_piece(c, &j);
    }
    c->used = mark;
    if (!c->dry)
        op_record(c, &(struct op_record){
                         .kind = OP_MOE,
                         .out = y,
                         .in = {x, {r->weight, r->n, r->n_used}},
                         .w = {gate, up, down},
                         .n_expert = n_expert,
                         .routing = *r,
                         .slots = {j.first, j.slot_token, j.place, j.keep_gate, j.keep_up}});
    return y;
}
