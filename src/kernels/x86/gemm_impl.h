/*
 * The float products of training, written once for all x86 instruction sets over `struct lanes`
 * (vec_impl.h).
 *
 * A register tile is P panels × C columns; a lane is a row and keeps one chain in ascending k. Deep
 * products are cut into chunks of k, so that the panels of a tile stay in the first cache while all
 * columns pass over them; the chain rests in y in between. Columns that lie side by side
 * (x_col = 1) are read at offsets from one pointer, so there can be many of them in a tile; columns
 * that lie apart have a register each.
 *
 * Needed before inclusion: struct lanes, lanes_load, lanes_load_n, lanes_store, lanes_store_n,
 * lanes_set; GEMM_NEAR(X) and GEMM_FAR(X), which list the shapes as X(P, C), P in 1, 2, 4, C from 1
 * on without a gap, so that those of a P end at GEMM_NEAR_COLS(P) and GEMM_FAR_COLS(P), and
 * GEMM_NEAR_PANELS, GEMM_FAR_PANELS, the largest P.
 */
#ifndef PONDER_KERNELS_X86_GEMM_IMPL_H
#define PONDER_KERNELS_X86_GEMM_IMPL_H

#include "base/num.h"

enum {
    GEMM_COLS_MAX = 12,
    GEMM_BYTES = 32 << 10, /* of the panels of a tile that stay in cache */
};

struct gemm_part {
    const float *w, *x; /* elements of 32 bits */
    float *y;
    size_t w_panel, x_col, x_step, y_panel, y_col;
    size_t last; /* rows of the last panel */
    size_t k;
    bool more;
};

/* One step of the chain. */
typedef struct lanes gemm_step(struct lanes w, struct lanes x, struct lanes acc);

KERN_INLINE void gemm_core(const struct gemm_part *t, gemm_step *step, bool near, size_t P,
                           size_t C)
{
    struct lanes acc[4][GEMM_COLS_MAX], w[4];
    const size_t last = t->last, x_step = near ? t->x_step : 1, x_col = near ? 1 : t->x_col;
#pragma GCC unroll 4
    for (size_t p = 0; p < P; p++)
#pragma GCC unroll 12
        for (size_t c = 0; c < C; c++) {
            const float *y = t->y + p * t->y_panel + c * t->y_col;
            if (!t->more)
                acc[p][c] = lanes_set(0.0f);
            else if (p + 1 < P || last == 16)
                acc[p][c] = lanes_load(y);
            else
                acc[p][c] = lanes_load_n(y, last);
        }
    const float *x = t->x, *wp = t->w;
    for (size_t k = t->k; k > 0; k--, wp += 16, x += x_step) {
#pragma GCC unroll 4
        for (size_t p = 0; p < P; p++)
            w[p] = lanes_load(wp + p * t->w_panel);
#pragma GCC unroll 12
        for (size_t c = 0; c < C; c++) {
            struct lanes v = lanes_set(x[c * x_col]);
#pragma GCC unroll 4
            for (size_t p = 0; p < P; p++)
                acc[p][c] = step(w[p], v, acc[p][c]);
        }
    }
#pragma GCC unroll 4
    for (size_t p = 0; p < P; p++)
#pragma GCC unroll 12
        for (size_t c = 0; c < C; c++) {
            float *y = t->y + p * t->y_panel + c * t->y_col;
            if (p + 1 < P || last == 16)
                lanes_store(y, acc[p][c]);
            else
                lanes_store_n(y, acc[p][c], last);
        }
}

/* One function for each step, side and shape. */
#define GEMM_FN(name, step, near, P, C)                     \
    static void name##_##P##x##C(const struct gemm_part *t) \
    {                                                       \
        gemm_core(t, step, near, P, C);                     \
    }
#define GEMM_ENTRY(name, P, C) [P / 2][C - 1] = name##_##P##x##C,

typedef void (*const gemm_table[3][GEMM_COLS_MAX])(const struct gemm_part *);

/* All columns over `panels` panels from `panel` on and one chunk of k, in groups of even size. */
KERN_INLINE void gemm_columns(const struct kern_gemm *g, gemm_table *fn, size_t most, size_t panels,
                              struct gemm_part *t)
{
    size_t groups = (g->cols + most - 1) / most;
    for (size_t c = 0, n; c < g->cols; c += n, groups--) {
        struct gemm_part part = *t;
        n = (g->cols - c + groups - 1) / groups;
        part.x += c * g->x_col;
        part.y += c * g->y_col;
        (*fn)[panels / 2][n - 1](&part);
    }
}

KERN_INLINE void gemm_run(const struct kern_gemm *g, gemm_table *near, gemm_table *far)
{
    bool side = g->x_col == 1;
    size_t total = (g->rows + 15) / 16, most_panels = side ? GEMM_NEAR_PANELS : GEMM_FAR_PANELS;
    for (size_t p = 0, n; p < total; p += n) {
        for (n = most_panels; n > total - p; n /= 2)
            ;
        size_t most = side ? GEMM_NEAR_COLS(n) : GEMM_FAR_COLS(n);
        size_t depth = GEMM_BYTES / (64 * n), chunks = (g->k + depth - 1) / depth;
        struct gemm_part t = {.w_panel = g->w_panel,
                              .x_col = g->x_col,
                              .x_step = g->x_step,
                              .y = g->y + p * g->y_panel,
                              .y_panel = g->y_panel,
                              .y_col = g->y_col,
                              .last = num_min(16, g->rows - (p + n - 1) * 16),
                              .more = g->more};
        size_t k = 0;
        do { /* once though k is 0 */
            t.k = chunks ? (g->k - k + chunks - 1) / chunks : 0;
            t.w = (const float *)g->w + p * g->w_panel + k * 16;
            t.x = (const float *)g->x + k * g->x_step;
            gemm_columns(g, side ? near : far, most, n, &t);
            t.more = true;
            k += t.k;
            chunks -= chunks > 0;
        } while (k < g->k);
    }
}

/* Defines the kernel `name` by a step. */
#define GEMM_NEAR_FN_F32(P, C) GEMM_FN(gemm_near_f32, gemm_step_f32, true, P, C)
#define GEMM_FAR_FN_F32(P, C) GEMM_FN(gemm_far_f32, gemm_step_f32, false, P, C)
#define GEMM_NEAR_ENTRY_F32(P, C) GEMM_ENTRY(gemm_near_f32, P, C)
#define GEMM_FAR_ENTRY_F32(P, C) GEMM_ENTRY(gemm_far_f32, P, C)
#define GEMM_NEAR_FN_PAIRS(P, C) GEMM_FN(gemm_near_pairs, gemm_step_pairs, true, P, C)
#define GEMM_FAR_FN_PAIRS(P, C) GEMM_FN(gemm_far_pairs, gemm_step_pairs, false, P, C)
#define GEMM_NEAR_ENTRY_PAIRS(P, C) GEMM_ENTRY(gemm_near_pairs, P, C)
#define GEMM_FAR_ENTRY_PAIRS(P, C) GEMM_ENTRY(gemm_far_pairs, P, C)

#define GEMM_KERNEL(name, KIND)                                           \
    GEMM_NEAR(GEMM_NEAR_FN_##KIND)                                        \
    GEMM_FAR(GEMM_FAR_FN_##KIND)                                          \
    static gemm_table name##_near = {GEMM_NEAR(GEMM_NEAR_ENTRY_##KIND)};  \
    static gemm_table name##_far = {GEMM_FAR(GEMM_FAR_ENTRY_##KIND)};     \
    static __attribute__((noinline)) void name(const struct kern_gemm *g) \
    {                                                                     \
        gemm_run(g, &name##_near, &name##_far);                           \
    }

#endif
