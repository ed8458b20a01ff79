/*
 * Vector kernels and float products for AVX-512 (F, BW, DQ, VL): 16 lanes are one zmm register.
 * The kernels themselves are in vec_impl.h and tile_impl.h; here is what a lane operation is.
 */
#include "kernels/x86/avx512_lanes.h"

/* 32 registers: up to 24 sums, 4 weights, one value. */
#define TILE_SHAPES_P(X, name, type, P) \
    X(name, type, P, 1)                 \
    X(name, type, P, 2)                 \
    X(name, type, P, 3)                 \
    X(name, type, P, 4)                 \
    X(name, type, P, 5)                 \
    X(name, type, P, 6)
#define TILE_SHAPES(X, name, type)  \
    TILE_SHAPES_P(X, name, type, 1) \
    TILE_SHAPES_P(X, name, type, 2) \
    TILE_SHAPES_P(X, name, type, 4)

enum { DOTS_ROWS = 4 };
#define DOTS_COLS 4

#include "kernels/x86/dots_impl.h"
#include "kernels/x86/page_impl.h"
#include "kernels/x86/tile_impl.h"
#include "kernels/x86/vec_impl.h"

void kern_init_avx512_vec(struct kern *k)
{
    vec_init(k);
    tile_init(k);
    dots_init(k);
    page_init(k);
}
