/*
 * Reading panels in plain C: pieces of vectors, and a block of 256 values as the products of mul.c
 * take it.
 */
#ifndef PONDER_KERNELS_SCALAR_BLOCK_H
#define PONDER_KERNELS_SCALAR_BLOCK_H

#include "kernels/kern_internal.h"

#include <string.h>

static inline void halves(float out[16], const uint8_t *p)
{
    for (size_t r = 0; r < 16; r++) {
        uint16_t h;
        memcpy(&h, p + 2 * r, 2);
        out[r] = quant_f16_to_f32(h);
    }
}

/* Bytes of dword vector `v` of row r: p[64 v + 4 r + 0..3]. */
static inline uint8_t byte_at(const uint8_t *p, size_t v, size_t r, size_t b)
{
    return p[64 * v + 4 * r + b];
}

/* 256 values of 16 rows: sub-blocks of `sub` values with integer scales and minima. */
struct block256 {
    int8_t q[256][16];
    int sc[16][16], m[16][16]; /* [sub-block][row] */
    float d[16], dmin[16];
};

#endif
