/* The products of gemm_impl.h with 32 registers of 16 lanes: their shapes. */
#ifndef PONDER_KERNELS_X86_AVX512_GEMM_H
#define PONDER_KERNELS_X86_AVX512_GEMM_H

#include "kernels/x86/avx512_lanes.h"

/* Up to 24 sums, 2 or 4 panels, one value. */
#define GEMM_6(X, P) \
    X(P, 1)          \
    X(P, 2)          \
    X(P, 3)          \
    X(P, 4)          \
    X(P, 5)          \
    X(P, 6)
#define GEMM_12(X, P) \
    GEMM_6(X, P)      \
    X(P, 7)           \
    X(P, 8)           \
    X(P, 9)           \
    X(P, 10)          \
    X(P, 11)          \
    X(P, 12)
#define GEMM_NEAR(X) \
    GEMM_12(X, 1)    \
    GEMM_12(X, 2)
#define GEMM_FAR(X) \
    GEMM_6(X, 1)    \
    GEMM_6(X, 2)    \
    GEMM_6(X, 4)
#define GEMM_NEAR_COLS(P) 12
#define GEMM_FAR_COLS(P) 6
enum { GEMM_NEAR_PANELS = 2, GEMM_FAR_PANELS = 4 };

#include "kernels/x86/gemm_impl.h"

#endif
