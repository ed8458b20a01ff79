/*
 * Vector kernels and float products for AVX2 with FMA and F16C: 16 lanes are two ymm registers.
 * The kernels themselves are in vec_impl.h and tile_impl.h; here is what a lane operation is.
 */
#include "kernels/x86/avx2_lanes.h"

/* 16 registers: sums of 8 to 12, two weights a panel, one value. */
#define TILE_SHAPES(X, name, type) \
    X(name, type, 1, 1)            \
    X(name, type, 1, 2)            \
    X(name, type, 1, 3)            \
    X(name, type, 1, 4)            \
    X(name, type, 1, 5)            \
    X(name, type, 1, 6)            \
    X(name, type, 2, 1)            \
    X(name, type, 2, 2)            \
    X(name, type, 2, 3)            \
    X(name, type, 4, 1)

enum { DOTS_ROWS = 2 };
#define DOTS_COLS 2

#include "kernels/x86/dots_impl.h"
#include "kernels/x86/page_impl.h"
#include "kernels/x86/tile_impl.h"
#include "kernels/x86/vec_impl.h"

void kern_init_avx2_vec(struct kern *k)
{
    vec_init(k);
    tile_init(k);
    dots_init(k);
    page_init(k);
    tile_mul_init(k);
}
