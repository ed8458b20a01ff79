/*
 * Blocks of the codebook types (IQ1, IQ2, IQ3) in plain C: quants, integer scales and d' such that
 * a value is d' × sc × q. Layouts: panel.h; meaning: quant/q_iq.c.
 *
 *            q                      sc                 d'
 *   IQ2_*    ± 8, 25, 43            2 × scale + 1      d / 8
 *   IQ3_XXS  ± 4, 12, .. 52, 62     2 × scale + 1      d / 4
 *   IQ3_S    ± 1, 3, .. 15          2 × scale + 1      d
 *   IQ1_*    8 × (−1, 0, 1) ± 1     2 × scale + 1      d / 8
 */
#ifndef PONDER_KERNELS_SCALAR_GRID_H
#define PONDER_KERNELS_SCALAR_GRID_H

#include "kernels/scalar/block.h"
#include "quant/q_iq_tables.h"

/* Nibble r of word i. */
static inline unsigned nibble_of(const uint8_t *words, size_t i, size_t r)
{
    return words[8 * i + r / 2] >> 4 * (r % 2) & 15u;
}

/* The d in front of the blocks of a panel, times `unit`; returns where block `block` of n lies. */
static inline const uint8_t *grid_open(struct block256 *b, const uint8_t *w, size_t bytes,
                                       size_t block, size_t n, float unit)
{
    halves(b->d, w + 32 * block);
    for (size_t r = 0; r < 16; r++)
        b->d[r] *= unit;
    return w + (32 * n + 63) / 64 * 64 + bytes * block;
}

/* n (4 or 8) values of a codebook row from value v on, with the signs of the low bits of `signs`.
 */
static inline void grid_row(struct block256 *b, size_t r, size_t v, uint64_t row, unsigned signs,
                            size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int q = (uint8_t)(row >> 8 * i);
        b->q[v + i][r] = (int8_t)(signs >> i & 1 ? -q : q);
    }
}

/* Signs of values 8 g .. 8 g + 7. */
static inline unsigned all_signs(const uint8_t *words, size_t g, size_t r)
{
    return nibble_of(words, 2 * g, r) | nibble_of(words, 2 * g + 1, r) << 4;
}

/* The same from seven, whose number is made even by the eighth; what stands there goes to *bit. */
static inline unsigned even_signs(const uint8_t *words, size_t g, size_t r, unsigned *bit)
{
    unsigned v = all_signs(words, g, r);
    *bit = v >> 7;
    v &= 127;
    return v | (unsigned)__builtin_parity(v) << 7;
}

static inline void grid_iq2_xxs(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 1024, block, n, 0.125f);
    for (size_t r = 0; r < 16; r++)
        for (size_t s = 0; s < 8; s++) {
            unsigned scale = 0, bit;
            for (size_t g = 0; g < 4; g++) {
                unsigned signs = even_signs(w + 512, 4 * s + g, r, &bit);
                scale |= bit << g;
                grid_row(b, r, 32 * s + 8 * g, q_iq2_xxs_grid[byte_at(w, s, r, g)], signs, 8);
            }
            b->sc[s][r] = (int)(2 * scale + 1);
        }
}

static inline void grid_iq3_xxs(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 1536, block, n, 0.25f);
    for (size_t r = 0; r < 16; r++)
        for (size_t s = 0; s < 8; s++) {
            unsigned scale = 0, bit;
            for (size_t g = 0; g < 4; g++) {
                unsigned signs = even_signs(w + 1024, 4 * s + g, r, &bit);
                size_t v = 32 * s + 8 * g, at = 2 * s + g / 2, j = 2 * (g % 2);
                scale |= bit << g;
                grid_row(b, r, v, q_iq3_xxs_grid[byte_at(w, at, r, j)], signs, 4);
                grid_row(b, r, v + 4, q_iq3_xxs_grid[byte_at(w, at, r, j + 1)], signs >> 4, 4);
            }
            b->sc[s][r] = (int)(2 * scale + 1);
        }
}

/* 16 scales in the nibbles of two dwords. */
static inline void grid_scales(struct block256 *b, const uint8_t *w)
{
    for (size_t r = 0; r < 16; r++)
        for (size_t s = 0; s < 16; s++)
            b->sc[s][r] = 2 * (byte_at(w, s / 8, r, s / 2 % 4) >> 4 * (s % 2) & 15) + 1;
}

static inline void grid_iq2_xs(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 1152, block, n, 0.125f);
    for (size_t r = 0; r < 16; r++)
        for (size_t g = 0; g < 32; g++) {
            unsigned bit, signs = even_signs(w + 512, g, r, &bit);
            grid_row(b, r, 8 * g, q_iq2_xs_grid[byte_at(w, g / 4, r, g % 4) | bit << 8], signs, 8);
        }
    grid_scales(b, w + 1024);
}

static inline void grid_iq2_s(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 1280, block, n, 0.125f);
    const uint8_t *high = w + 1024;
    for (size_t r = 0; r < 16; r++)
        for (size_t g = 0; g < 32; g++) {
            unsigned code = byte_at(w, g / 4, r, g % 4);
            code |= (nibble_of(high, g / 4 * 2, r) >> g % 4 & 1) << 8;
            code |= (nibble_of(high, g / 4 * 2 + 1, r) >> g % 4 & 1) << 9;
            grid_row(b, r, 8 * g, q_iq2_s_grid[code], all_signs(w + 512, g, r), 8);
        }
    grid_scales(b, w + 1152);
}

static inline void grid_iq3_s(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 1728, block, n, 1);
    for (size_t r = 0; r < 16; r++) {
        for (size_t g = 0; g < 64; g++) {
            unsigned code = byte_at(w, g / 4, r, g % 4);
            code |= (nibble_of(w + 1536, g / 4, r) >> g % 4 & 1) << 8;
            grid_row(b, r, 4 * g, q_iq3_s_grid[code], nibble_of(w + 1024, g, r), 4);
        }
        for (size_t s = 0; s < 8; s++)
            b->sc[s][r] = 2 * (byte_at(w + 1664, 0, r, s / 2) >> 4 * (s % 2) & 15) + 1;
    }
}

/* Eight values of IQ1 and their shift of an eighth. */
static inline void grid_shifted(struct block256 *b, size_t r, const uint8_t *w, size_t g, int shift)
{
    unsigned code = byte_at(w, g / 4, r, g % 4);
    for (size_t e = 0; e < 3; e++)
        code |= (nibble_of(w + 512, g / 4 * 4 + e, r) >> g % 4 & 1) << (8 + e);
    for (size_t i = 0; i < 8; i++)
        b->q[8 * g + i][r] = (int8_t)(8 * (int8_t)(q_iq1_grid[code] >> 8 * i) + shift);
}

static inline void grid_iq1_s(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    w = grid_open(b, w, 768, block, n, 0.125f);
    for (size_t r = 0; r < 16; r++)
        for (size_t s = 0; s < 8; s++) {
            unsigned top = nibble_of(w + 512, 4 * s + 3, r);
            for (size_t g = 0; g < 4; g++)
                grid_shifted(b, r, w, 4 * s + g, top & 8 ? -1 : 1);
            b->sc[s][r] = (int)(2 * (top & 7) + 1);
        }
}

static inline void grid_iq1_m(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    (void)n;
    w += 896 * block;
    for (size_t r = 0; r < 16; r++) {
        unsigned half = 0;
        for (size_t i = 0; i < 4; i++) { /* halves: four scales of 3 bits, 4 bits of d */
            const uint8_t *p = w + 768 + 64 * (i / 2) + 4 * r + 2 * (i % 2);
            unsigned v = p[0] | (unsigned)p[1] << 8;
            half |= v >> 12 << 4 * i;
            for (size_t s = 0; s < 4; s++)
                b->sc[4 * i + s][r] = (int)(2 * (v >> 3 * s & 7) + 1);
        }
        b->d[r] = quant_f16_to_f32((uint16_t)half) * 0.125f;
        for (size_t g = 0; g < 32; g++) {
            unsigned shift = nibble_of(w + 512, g / 4 * 4 + 3, r) >> g % 4 & 1;
            grid_shifted(b, r, w, g, shift ? -1 : 1);
        }
    }
}

#endif
