/*
 * Several columns: tiles of 2 panels (32 rows) × up to 6 columns whose 12 accumulators stay in
 * registers; the loops around are those of avx512_blocks.h.
 *
 * K goes in steps of 256 values. A step of a pair of panels is unpacked once to bytes, with its
 * scales in the form the tile wants them, in a scratch that stays in the first cache; then all
 * columns of the block run over it in groups of equal size.
 *
 * Integer scales of sub-blocks (K-quants) enter in one of two ways. In full: vpmulld and vpaddd,
 * which suits AMD, where dots and multiplications share two ports and additions have two others; a
 * tile of Q4_K is 5% faster. Else by vpdpwssd, one instruction instead of the three that Intel has
 * for those two. It needs dots that fit into 16 bits: weights are centred (the accumulator starts
 * at −offset × Σa instead of 0) and a piece has 32 values for Q4_K (8 × 127 × 32), 16 for Q5_K (16
 * × 127 × 16) and 8 for Q6_K (32 × 127 × 8 = 32512). What centring took from Q4_K and Q5_K is given
 * back by four vpdpwssd of scales × sums.
 */
#ifndef PONDER_KERNELS_X86_VNNI_GEMM_H
#define PONDER_KERNELS_X86_VNNI_GEMM_H

#include "kernels/x86/vnni_unpack.h"

enum { PART_STEPS = 8 }; /* activations of NB columns of a part of K: 192 KiB */

/* A step of 256 values of two panels, ready for the tile. [..][2] is the panel. */
struct step {
    __m512i w[64][2];
    __m512i sc[16][2];  /* K-quants: scales as words (scale, 0), in full as dwords */
    __m512i back[4][2]; /* Q4_K, Q5_K: scales as pairs of words, for giving back the centring */
    __m512i minw[4][2]; /* Q4_K, Q5_K: minima as pairs of words */
    __m512 d[8][2];     /* blocks of 32: scale of each; K-quants: [0] d, [1] dmin */
    __m512 m[8][2];     /* blocks of 32: minimum of each */
};

/* Added to the kind of a K-quant: scales enter in full. */
enum { FULL = 64 };

/* ---- unpacking a step
 * ------------------------------------------------------------------------------ */

KERN_INLINE void step_q32(enum kind t, struct step *s, const uint8_t *w, int g, size_t blocks)
{
    for (size_t b = 0; b < blocks; b++) {
        const uint8_t *p = w + b / 2 * unit_bytes(t);
        __m512i v[8];
        unpack32(t, p, b % 2, v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            s->w[8 * b + i][g] = v[i];
        s->d[b][g] = scale32(t, p, b % 2);
        if (has_min(t))
            s->m[b][g] = min32(t, p, b % 2);
    }
}

/* `head` is where Q6_K has its d. */
KERN_INLINE void step_q256(enum kind t, bool full, struct step *s, const uint8_t *w,
                           const uint8_t *head, int g)
{
#pragma GCC unroll 8
    for (unsigned u = 0; u < 8; u++) {
        __m512i v[8];
        unpack_sub(t, w, u, v);
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++)
            s->w[8 * u + (unsigned)i][g] = v[i];
    }
    if (t == Q6_K) {
        const __m512i part = _mm512_set1_epi32(full ? -1 : 0xffff);
#pragma GCC unroll 16
        for (unsigned i = 0; i < 16; i++)
            s->sc[i][g] =
                _mm512_and_si512(signed_byte_of(load(w + 3072 + i / 4 * 64), i % 4), part);
        s->d[0][g] = half16(head);
        return;
    }
    __m512i sc[2], mn[2], heads = load(w);
    k_scales(w, sc, mn);
#pragma GCC unroll 8
    for (unsigned i = 0; i < 8; i++)
        s->sc[i][g] = k_scale(w, i);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        /* Q5_K gives back 16 × sums, of which 8 are in the sums (they must fit into 16 bits) */
        __m512i pair = byte_pair(sc[i / 2], i % 2);
        s->back[i][g] = t == Q5_K ? _mm512_slli_epi16(pair, 1) : pair;
        s->minw[i][g] = byte_pair(mn[i / 2], i % 2);
    }
    s->d[0][g] = half_of(heads, 0);
    s->d[1][g] = half_of(heads, 1);
}

/* ---- tiles
 * ----------------------------------------------------------------------------------------- */

/* acc[g][c] += w · a over n dword vectors of two panels and C columns, 32 bytes apart. */
KERN_INLINE void tile_dot(int C, __m512i acc[2][TILE_COLS], const __m512i (*w)[2], const int8_t *a,
                          int n)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        __m512i w0 = load(&w[i][0]), w1 = load(&w[i][1]);
#pragma GCC unroll 6
        for (int c = 0; c < C; c++) {
            __m512i v = spread(a + 32 * c + 4 * i);
            acc[0][c] = _mm512_dpbusd_epi32(acc[0][c], w0, v);
            acc[1][c] = _mm512_dpbusd_epi32(acc[1][c], w1, v);
        }
    }
}

/* `blocks` blocks of 32 of C columns from `col` on; block0 is the number of the first. off: weights
   are too large by `offset`; min: they have minima. */
KERN_INLINE void tile_q32(bool off, bool min, int C, int offset, float f[][2][16],
                          const struct step *s, size_t blocks, const struct kern_x *x,
                          size_t block0, size_t col)
{
    __m512 acc[2][TILE_COLS];
    int32_t start[8][8]; /* -offset × Σ a, [block][column] */
    for (size_t b = 0; b < blocks && off; b++) {
        const int32_t *sum = x->sum + (block0 + b) * x->cols + col;
        __m256i v = _mm256_maskz_loadu_epi32((__mmask8)((1 << C) - 1), sum);
        _mm256_storeu_si256((void *)start[b], _mm256_mullo_epi32(v, _mm256_set1_epi32(-offset)));
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        acc[0][c] = _mm512_load_ps(f[c][0]);
        acc[1][c] = _mm512_load_ps(f[c][1]);
    }
#pragma GCC unroll 1
    for (size_t b = 0; b < blocks; b++) {
        size_t at = (block0 + b) * x->cols + col;
        __m512i t[2][TILE_COLS];
#pragma GCC unroll 6
        for (int c = 0; c < C; c++)
            t[0][c] = t[1][c] = off ? _mm512_set1_epi32(start[b][c]) : _mm512_setzero_si512();
        tile_dot(C, t, s->w + 8 * b, x->q + at * 32, 8);
#pragma GCC unroll 6
        for (int c = 0; c < C; c++) {
            __m512 xd = _mm512_set1_ps(x->d[at + (size_t)c]);
#pragma GCC unroll 2
            for (int g = 0; g < 2; g++) {
                __m512 d = _mm512_mul_ps(s->d[b][g], xd);
                acc[g][c] = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(t[g][c]), acc[g][c]);
                if (min)
                    acc[g][c] = _mm512_fmadd_ps(s->m[b][g], _mm512_set1_ps(x->s[at + (size_t)c]),
                                                acc[g][c]);
            }
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        _mm512_store_ps(f[c][0], acc[0][c]);
        _mm512_store_ps(f[c][1], acc[1][c]);
    }
}

/* Sums of a column's block of 256 as the tile needs them. */
struct centre {
    int32_t start[64]; /* −offset × Σ of each piece; Q6_K: in the even places */
    int16_t back[32];  /* 8 × Σ of each sub-block of 32 (8 of them) */
};

KERN_INLINE void centre(enum kind t, struct centre *o, const struct kern_x *x, size_t block,
                        size_t col)
{
    size_t at = block * x->cols + col;
    if (t == Q6_K) {
        /* −32 × sums of 4, then of 8 in the even places */
        const int8_t *a = x->q + (8 * block * x->cols + col) * 32;
        size_t step = x->cols * 32;
#pragma GCC unroll 4
        for (size_t u = 0; u < 4; u++) {
            __m512i v = _mm512_inserti64x4(
                _mm512_castsi256_si512(_mm256_load_si256((const void *)(a + 2 * u * step))),
                _mm256_load_si256((const void *)(a + (2 * u + 1) * step)), 1);
            __m512i four = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones8(32), v);
            __m512i eight = _mm512_add_epi32(four, _mm512_srli_epi64(four, 32));
            _mm512_store_si512(o->start + 16 * u, _mm512_sub_epi32(_mm512_setzero_si512(), eight));
        }
        return;
    }
    __m128i sum32 = _mm_load_si128((const void *)(x->sum32 + at * 8));
    _mm_store_si128((void *)o->back, _mm_slli_epi16(sum32, 3));
    if (t == Q4_K) {
        __m256i v = _mm256_slli_epi32(_mm256_cvtepi16_epi32(sum32), 3);
        _mm256_store_si256((void *)o->start, _mm256_sub_epi32(_mm256_setzero_si256(), v));
    } else {
        __m256i sum16 = _mm256_load_si256((const void *)(x->sum16 + at * 16));
        __m512i v = _mm512_slli_epi32(_mm512_cvtepi16_epi32(sum16), 4);
        _mm512_store_si512(o->start, _mm512_sub_epi32(_mm512_setzero_si512(), v));
    }
}

/* The same where scales enter in full: −32 × Σ of each sub-block of Q6_K; the others need nothing.
 */
KERN_INLINE void centre_full(struct centre *o, const struct kern_x *x, size_t at)
{
    __m256i sum16 = _mm256_load_si256((const void *)(x->sum16 + at * 16));
    __m512i v = _mm512_slli_epi32(_mm512_cvtepi16_epi32(sum16), 5);
    _mm512_store_si512(o->start, _mm512_sub_epi32(_mm512_setzero_si512(), v));
}

KERN_INLINE void tile_q256(enum kind t, bool full, int C, float f[][2][16], const struct step *s,
                           const struct kern_x *x, size_t block, size_t col)
{
    const int pieces = full        ? 1 + (t == Q6_K)
                       : t == Q4_K ? 1
                       : t == Q5_K ? 2
                                   : 4;         /* of 32 values */
    const int gap = t == Q6_K && !full ? 2 : 1; /* places of start a piece */
    const bool centred = t == Q6_K || !full;
    size_t at = block * x->cols + col;
    const int8_t *a = x->q + (8 * block * x->cols + col) * 32;
    _Alignas(64) struct centre z[TILE_COLS];
    __m512i acc[2][TILE_COLS];
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        if (!full)
            centre(t, &z[c], x, block, col + (size_t)c);
        else if (centred)
            centre_full(&z[c], x, at + (size_t)c);
        acc[0][c] = acc[1][c] = _mm512_setzero_si512();
        if (t == Q6_K || full)
            continue;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m512i sum = spread(z[c].back + 2 * i);
            acc[0][c] = _mm512_dpwssd_epi32(acc[0][c], s->back[i][0], sum);
            acc[1][c] = _mm512_dpwssd_epi32(acc[1][c], s->back[i][1], sum);
        }
    }
#pragma GCC unroll 1
    for (int b = 0; b < 8; b++, a += x->cols * 32) {
#pragma GCC unroll 4
        for (int p = 0; p < pieces; p++) {
            __m512i sum[2][TILE_COLS];
            int n = 8 / pieces, sub = t == Q6_K ? 2 * b + p * 2 / pieces : b;
#pragma GCC unroll 6
            for (int c = 0; c < C; c++)
                sum[0][c] = sum[1][c] = centred
                                            ? _mm512_set1_epi32(z[c].start[(b * pieces + p) * gap])
                                            : _mm512_setzero_si512();
            tile_dot(C, sum, s->w + 8 * b + n * p, a + 4 * n * p, n);
#pragma GCC unroll 6
            for (int c = 0; c < C; c++)
#pragma GCC unroll 2
                for (int g = 0; g < 2; g++)
                    acc[g][c] = full ? _mm512_add_epi32(
                                           acc[g][c], _mm512_mullo_epi32(sum[g][c], s->sc[sub][g]))
                                     : _mm512_dpwssd_epi32(acc[g][c], sum[g][c], s->sc[sub][g]);
        }
    }
#pragma GCC unroll 6
    for (int c = 0; c < C; c++) {
        __m512 xd = _mm512_set1_ps(x->d[at + (size_t)c]);
#pragma GCC unroll 2
        for (int g = 0; g < 2; g++) {
            __m512 v = _mm512_load_ps(f[c][g]);
            v = _mm512_fmadd_ps(_mm512_mul_ps(s->d[0][g], xd), _mm512_cvtepi32_ps(acc[g][c]), v);
            if (t != Q6_K) {
                __m512i mins = _mm512_setzero_si512();
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++)
                    mins = _mm512_dpwssd_epi32(mins, s->minw[i][g],
                                               spread(x->sum32 + (at + (size_t)c) * 8 + 2 * i));
                v = _mm512_fnmadd_ps(_mm512_mul_ps(s->d[1][g], xd), _mm512_cvtepi32_ps(mins), v);
            }
            _mm512_store_ps(f[c][g], v);
        }
    }
}

/* One tile: C columns from `col` on of the step whose first block (of 32 or 256) is `block`. */
struct tile_args {
    float (*f)[2][16];
    const struct step *s;
    const struct kern_x *x;
    size_t block, blocks, col; /* blocks: of 32 values in this step */
    int offset;
};

TILES(tile_off, tile_args,
      tile_q32(true, false, COLS, a->offset, a->f, a->s, a->blocks, a->x, a->block, a->col))
TILES(tile_min, tile_args,
      tile_q32(false, true, COLS, 0, a->f, a->s, a->blocks, a->x, a->block, a->col))
TILES(tile_both, tile_args,
      tile_q32(true, true, COLS, a->offset, a->f, a->s, a->blocks, a->x, a->block, a->col))
TILES(tile_q4k, tile_args, tile_q256(Q4_K, false, COLS, a->f, a->s, a->x, a->block, a->col))
TILES(full_q4k, tile_args, tile_q256(Q4_K, true, COLS, a->f, a->s, a->x, a->block, a->col))
TILES(tile_q5k, tile_args, tile_q256(Q5_K, false, COLS, a->f, a->s, a->x, a->block, a->col))
TILES(full_q5k, tile_args, tile_q256(Q5_K, true, COLS, a->f, a->s, a->x, a->block, a->col))
TILES(tile_q6k, tile_args, tile_q256(Q6_K, false, COLS, a->f, a->s, a->x, a->block, a->col))
TILES(full_q6k, tile_args, tile_q256(Q6_K, true, COLS, a->f, a->s, a->x, a->block, a->col))

/* ---- loops
 * ------------------------------------------------------------------------------------------ */

/* Unpacks step i of a panel, whose groups begin at `head`, into place g. */
KERN_INLINE void step_unpack(enum kind t, bool full, struct step *s, const uint8_t *panel,
                             size_t head, size_t i, size_t blocks, int g)
{
    if (t < Q4_K)
        step_q32(t, s, panel + 4 * i * unit_bytes(t), g, blocks);
    else if (t == Q6_K)
        step_q256(t, full, s, panel + head + i * unit_bytes(t), panel + 32 * i, g);
    else
        step_q256(t, full, s, panel + i * unit_bytes(t), NULL, g);
}

/* All columns of a block over one step, in groups of equal size. next0, next1: the `bytes` of
   the next step of both panels. */
KERN_INLINE void step_columns(enum kind t, bool full, struct tile_args *a, float (*f)[2][16],
                              size_t col, size_t cols, const uint8_t *next0, const uint8_t *next1,
                              size_t bytes)
{
    void (*const *tile)(const struct tile_args *) = t == Q4_K     ? full ? full_q4k : tile_q4k
                                                    : t == Q5_K   ? full ? full_q5k : tile_q5k
                                                    : t == Q6_K   ? full ? full_q6k : tile_q6k
                                                    : !has_min(t) ? tile_off
                                                    : unsign(t)   ? tile_both
                                                                  : tile_min;
    size_t groups = (cols + TILE_COLS - 1) / TILE_COLS;
    for (size_t i = 0, c = 0; i < groups; i++) {
        size_t n = (cols - c) / (groups - i);
        fetch_next(next0, next1, bytes, i, groups);
        a->f = f + c;
        a->col = col + c;
        tile[n - 1](a);
        c += n;
    }
}

/* The product of a pair of panels: a PAIR_FN. */
KERN_INLINE void gemm_pair(int type, float (*f)[2][16], const uint8_t *w0, const uint8_t *w1,
                           size_t k, size_t s0, size_t s1, const struct kern_x *x, size_t col,
                           size_t cols)
{
    const enum kind t = (enum kind)(type & (FULL - 1));
    const bool full = type & FULL;
    struct step s;
    size_t total = (k + 63) / 64 * 2; /* blocks of 32 */
    size_t head = t == Q6_K ? (k / 256 * 32 + 63) / 64 * 64 : 0;
    size_t step = unit_bytes(t) * (t < Q4_K ? 4 : 1);
    struct tile_args a = {.s = &s, .x = x, .offset = unsign(t)};
    for (size_t i = s0; i < s1; i++) {
        a.block = t < Q4_K ? 8 * i : i;
        a.blocks = total - 8 * i < 8 ? total - 8 * i : 8;
        step_unpack(t, full, &s, w0, head, i, a.blocks, 0);
        step_unpack(t, full, &s, w1, head, i, a.blocks, 1);
        size_t next = next_step(w0, w1, head, step, i, s0, s1);
        step_columns(t, full, &a, f, col, cols, w0 + next, w1 + next, step);
    }
}

#endif
