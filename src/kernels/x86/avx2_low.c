/*
 * Products of the types with few bits and blocks of 256 on AVX2: IQ4_XS, Q3_K and Q2_K. The bits
 * are those of scalar/mul.c, the way of exact integers is that of avx2_mul.c: weights become
 * unsigned bytes so small that sums of vpmaddubsw results fit into int16, and vpmaddwd multiplies
 * those by the scale of the sub-block.
 *
 *   Q2_K 0..3, Q3_K 0..7   8 products a lane: 8 · 7 · 127 = 7112, one vpmaddwd per 16 values
 *   IQ4_XS                 two planes of 4 bits, w + 128 = 16·hi + lo, 16 products a lane:
 *                          16 · 15 · 127 = 30480; the upper plane's scale is 16 times the lower's
 *
 * 256 values of a panel are unpacked once, into at most 8 KiB of stack, and all columns pass over
 * them in register tiles of 16 rows × 1..4 columns. Sums of up to 64 columns wait on the stack.
 */
#include "kernels/x86/avx2_util.h"

#include "base/num.h"

#include <string.h>

enum {
    TILE_COLS = 4,
    CHUNK_COLS = 64, /* columns that share an unpacked block */
};

/* ---- types: constants that fold away ---- */

/* log2 of what weights are too large by; 0 where they are right. */
KERN_INLINE int offset_bits(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 7 : t == QUANT_Q3_K ? 2 : 0;
}

KERN_INLINE int planes(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 2 : 1;
}

/* Values that share a scale. */
KERN_INLINE size_t sub_of(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 32 : 16;
}

/* How many vpmaddubsw results an int16 lane holds; those of a sub-block at most. */
KERN_INLINE int chain_of(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 8 : 4;
}

KERN_INLINE size_t block_bytes(enum quant_id t)
{
    return t == QUANT_IQ4_XS ? 2176 : t == QUANT_Q3_K ? 1728 : 1344;
}

/* ---- unpacking ---- */

/* A block of 256 of 16 rows; the last index is the half of the rows. */
struct block {
    _Alignas(64) uint8_t q[2][8][512]; /* plane, sub-block of 32 */
    __m256i scale[2][16][2];           /* plane, sub-block: int16, twice in each dword */
    __m256i pair[8][2]; /* scales (for the offset) or minima of two sub-blocks in a dword */
    __m256 d[2], dmin[2];
};

/* Sub-blocks 4 v .. 4 v + 3: their scales (signed bytes) and what meets the sums of activations. */
KERN_INLINE void put_scales(struct block *o, enum quant_id t, size_t v, size_t h, __m256i sc,
                            __m256i met)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < 4; i++) {
        __m256i s = twice_signed(sc, i);
        o->scale[0][4 * v + i][h] = s;
        if (planes(t) == 2)
            o->scale[1][4 * v + i][h] = _mm256_slli_epi16(s, 4);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < 2; i++)
        o->pair[2 * v + i][h] = couple_signed(met, 2 * i);
}

KERN_INLINE __m256i or_bits(__m256i v, __m256i bits, __m256i mask)
{
    return _mm256_or_si256(v, _mm256_and_si256(bits, mask));
}

KERN_INLINE void unpack_iq4_xs(struct block *o, const uint8_t *w)
{
    const __m256i levels = _mm256_xor_si256(
        _mm256_set1_epi8(-128),
        _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13,
                                                  25, 38, 53, 69, 89, 113)));
    const __m256i low = nibble(levels, 0), high = nibble(levels, 1);
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
    for (size_t h = 0; h < 2; h++) {
        __m256i head = load(w + 32 * h), nibbles = load(w + 64 + 32 * h);
        o->d[h] = low_halves(head);
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            __m256i n = _mm256_shuffle_epi8(_mm256_srli_epi32(nibbles, 16 * v), spread);
            __m256i pairs = _mm256_srli_epi32(head, 16 + 8 * v);
            n = nibble(_mm256_or_si256(n, _mm256_slli_epi32(n, 4)), 0);
#pragma GCC unroll 4
            for (int b = 0; b < 4; b++)
                n = or_bits(n, _mm256_slli_epi32(pairs, 4 + 6 * b),
                            _mm256_set1_epi32(0x30 << 8 * b));
            n = _mm256_sub_epi8(n, _mm256_set1_epi8(32));
            put_scales(o, QUANT_IQ4_XS, (size_t)v, h, n, n);
        }
    }
    for (size_t s = 0; s < 8; s++)
#pragma GCC unroll 8
        for (size_t i = 0; i < 8; i++) {
            __m256i x = load(w + 128 + 256 * s + 32 * i);
            __m256i lo = nibble(x, 0), hi = nibble(x, 1);
            _mm256_store_si256((__m256i *)(o->q[0][s] + 32 * i), _mm256_shuffle_epi8(low, lo));
            _mm256_store_si256((__m256i *)(o->q[1][s] + 32 * i), _mm256_shuffle_epi8(high, lo));
            _mm256_store_si256((__m256i *)(o->q[0][s] + 256 + 32 * i),
                               _mm256_shuffle_epi8(low, hi));
            _mm256_store_si256((__m256i *)(o->q[1][s] + 256 + 32 * i),
                               _mm256_shuffle_epi8(high, hi));
        }
}

/* Two bits of each value at q and, where `high` is not NULL, a third one. */
KERN_INLINE void unpack_bits(struct block *o, const uint8_t *q, const uint8_t *high)
{
    const __m256i two = _mm256_set1_epi8(3), third = _mm256_set1_epi8(4);
    for (size_t i = 0; i < 16; i++) { /* half vectors of 32 values */
        __m256i h = high ? load(high + 32 * i) : two;
#pragma GCC unroll 2
        for (size_t half = 0; half < 2; half++) {
            __m256i x = load(q + 512 * half + 32 * i);
#pragma GCC unroll 4
            for (int s = 0; s < 4; s++) {
                __m256i v = _mm256_and_si256(_mm256_srli_epi16(x, 2 * s), two);
                int bit = 4 * (int)half + s;
                if (high)
                    v = or_bits(
                        v, bit < 2 ? _mm256_slli_epi16(h, 2 - bit) : _mm256_srli_epi16(h, bit - 2),
                        third);
                _mm256_store_si256((__m256i *)(o->q[0][bit] + 32 * i), v);
            }
        }
    }
}

KERN_INLINE void unpack_q3_k(struct block *o, const uint8_t *w, const uint8_t *head)
{
    const __m256i top = _mm256_set1_epi8(0x30);
    for (size_t h = 0; h < 2; h++) {
        __m256i low[2] = {load(w + 1536 + 32 * h), load(w + 1600 + 32 * h)};
        __m256i high = load(w + 1664 + 32 * h);
        o->d[h] = halves(head + 16 * h);
#pragma GCC unroll 4
        for (int v = 0; v < 4; v++) {
            __m256i u =
                v < 2 ? _mm256_slli_epi16(high, 4 - 2 * v) : _mm256_srli_epi16(high, 2 * v - 4);
            __m256i s = or_bits(nibble(low[v % 2], (size_t)v / 2), u, top);
            s = _mm256_sub_epi8(s, _mm256_set1_epi8(32));
            put_scales(o, QUANT_Q3_K, (size_t)v, h, s, s);
        }
    }
    unpack_bits(o, w + 512, w);
}

KERN_INLINE void unpack_q2_k(struct block *o, const uint8_t *w)
{
    for (size_t h = 0; h < 2; h++) {
        __m256i dd = load(w + 1280 + 32 * h);
        o->d[h] = low_halves(dd);
        o->dmin[h] = low_halves(_mm256_srli_epi32(dd, 16));
        for (size_t v = 0; v < 4; v++) {
            __m256i s = load(w + 64 * v + 32 * h);
            put_scales(o, QUANT_Q2_K, v, h, nibble(s, 0), nibble(s, 1));
        }
    }
    unpack_bits(o, w + 256, NULL);
}

/* Block b of a panel of n blocks. */
KERN_INLINE void unpack(struct block *o, enum quant_id t, const uint8_t *panel, size_t n, size_t b)
{
    const uint8_t *w = panel + (t == QUANT_Q3_K ? num_round_up(32 * n, KERN_ALIGN) : 0);
    w += b * block_bytes(t);
    if (t == QUANT_IQ4_XS)
        unpack_iq4_xs(o, w);
    else if (t == QUANT_Q3_K)
        unpack_q3_k(o, w, panel + 32 * b);
    else
        unpack_q2_k(o, w);
}

/* ---- products ---- */

/* acc[h][c] += Σ over 32 values of scale · quant · activation of a plane; scale: that of the first
   16 or of all. */
KERN_INLINE void dot_32(__m256i acc[2][TILE_COLS], enum quant_id t, const uint8_t *w,
                        const __m256i (*scale)[2], const int8_t *x, size_t C)
{
    const int chain = chain_of(t);
    __m256i sum[2][TILE_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m256i v[2] = {load(w + 64 * i), load(w + 64 * i + 32)};
#pragma GCC unroll 4
        for (size_t c = 0; c < C; c++) {
            __m256i a = splat(x + 32 * c + 4 * i);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i p = _mm256_maddubs_epi16(v[h], a);
                sum[h][c] = keep(i % chain ? _mm256_add_epi16(sum[h][c], p) : p);
            }
        }
        if (i % chain == chain - 1)
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i s = scale[sub_of(t) == 16 ? i / 4 : 0][h];
#pragma GCC unroll 4
                for (size_t c = 0; c < C; c++)
                    acc[h][c] = keep(_mm256_add_epi32(acc[h][c], _mm256_madd_epi16(sum[h][c], s)));
            }
    }
}

/* f (C × 16 sums) over the block whose first column is at `at` in x->d. */
KERN_INLINE void finish(float *f, enum quant_id t, const __m256i acc[2][TILE_COLS],
                        const struct block *o, const struct kern_x *x, size_t at, size_t C)
{
    const size_t pairs = 128 / sub_of(t);
    const int16_t *sums = sub_of(t) == 16 ? x->sum16 + at * 16 : x->sum32 + at * 8;
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++, sums += 2 * pairs) {
        __m256 xd = _mm256_set1_ps(x->d[at + c]);
        __m256i met[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
#pragma GCC unroll 8
        for (size_t i = 0; i < pairs; i++) {
            __m256i s = splat(sums + 2 * i);
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++)
                met[h] = _mm256_add_epi32(met[h], _mm256_madd_epi16(o->pair[i][h], s));
        }
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m256 y = _mm256_load_ps(f + 16 * c + 8 * h);
            __m256i dot = acc[h][c];
            if (offset_bits(t))
                dot = _mm256_sub_epi32(dot, _mm256_slli_epi32(met[h], offset_bits(t)));
            y = _mm256_fmadd_ps(_mm256_mul_ps(o->d[h], xd), _mm256_cvtepi32_ps(dot), y);
            if (t == QUANT_Q2_K)
                y = _mm256_fnmadd_ps(_mm256_mul_ps(o->dmin[h], xd), _mm256_cvtepi32_ps(met[h]), y);
            _mm256_store_ps(f + 16 * c + 8 * h, y);
        }
    }
}

/* Block b over C columns from `col` on. */
KERN_INLINE void tile(float *f, enum quant_id t, const struct block *o, size_t b,
                      const struct kern_x *x, size_t col, size_t C)
{
    const int8_t *xq = x->q + (b * 8 * x->cols + col) * 32;
    __m256i acc[2][TILE_COLS];
#pragma GCC unroll 4
    for (size_t c = 0; c < C; c++)
        acc[0][c] = acc[1][c] = _mm256_setzero_si256();
#pragma GCC unroll 1
    for (size_t s = 0; s < 8; s++, xq += x->cols * 32) {
        size_t first = s * 32 / sub_of(t);
        dot_32(acc, t, o->q[0][s], o->scale[0] + first, xq, C);
        if (planes(t) == 2) {
            const int8_t *again = xq;
            __asm__("" : "+r"(again)); /* else gcc saves the broadcasts of the first plane */
            dot_32(acc, t, o->q[1][s], o->scale[1] + first, again, C);
        }
    }
    finish(f, t, (const __m256i(*)[TILE_COLS])acc, o, x, b * x->cols + col, C);
}

/* ---- loops ---- */

struct kernels {
    void (*unpack)(struct block *o, const uint8_t *panel, size_t n, size_t b);
    /* index C − 1 for the number of columns */
    void (*tile[TILE_COLS])(float *f, const struct block *o, size_t b, const struct kern_x *x,
                            size_t col);
    const struct panel_layout *layout;
};

static void panel_columns(const struct kernels *kn, float *f, const uint8_t *panel,
                          const struct kern_x *x, size_t blocks, size_t col, size_t cols)
{
    struct block o;
    size_t bytes = kn->layout->bytes(256), all = (cols + TILE_COLS - 1) / TILE_COLS;
    memset(f, 0, cols * 16 * sizeof *f);
    for (size_t b = 0; b < blocks; b++) {
        size_t tiles = all;
        kn->unpack(&o, panel, blocks, b);
        for (size_t c = 0; c < cols; tiles--) {
            size_t width = (cols - c + tiles - 1) / tiles; /* even, so that none is ragged */
            prefetch(panel + b * bytes, bytes, all - tiles, all);
            kn->tile[width - 1](f + 16 * c, &o, b, x, col + c);
            c += width;
        }
    }
}

static void mul(const struct kernels *kn, float *y, size_t ldy, const uint8_t *w, size_t rows,
                size_t k, const struct kern_x *x, size_t col0, size_t cols)
{
    _Alignas(64) float f[CHUNK_COLS * 16];
    size_t panel = kn->layout->bytes(k), chunks = (cols + CHUNK_COLS - 1) / CHUNK_COLS;
    for (size_t c = 0, m; c < cols; c += m, chunks--) {
        m = (cols - c + chunks - 1) / chunks;
        for (size_t r = 0; r < rows; r += 16) {
            panel_columns(kn, f, w + r / 16 * panel, x, k / 256, col0 + c, m);
            store_sums(y + c * ldy + r, ldy, f, num_min(16, rows - r), m);
        }
    }
}

#define COLUMNS(name, id, C)                                                                       \
    static void name##_tile_##C(float *f, const struct block *o, size_t b, const struct kern_x *x, \
                                size_t col)                                                        \
    {                                                                                              \
        tile(f, id, o, b, x, col, C);                                                              \
    }
#define TYPE(name, id)                                                                    \
    COLUMNS(name, id, 1)                                                                  \
    COLUMNS(name, id, 2)                                                                  \
    COLUMNS(name, id, 3)                                                                  \
    COLUMNS(name, id, 4)                                                                  \
    static void name##_unpack(struct block *o, const uint8_t *panel, size_t n, size_t b)  \
    {                                                                                     \
        unpack(o, id, panel, n, b);                                                       \
    }                                                                                     \
    static const struct kernels name##_kernels = {                                        \
        name##_unpack,                                                                    \
        {name##_tile_1, name##_tile_2, name##_tile_3, name##_tile_4},                     \
        &panel_##name};                                                                   \
    static void name##_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        mul(&name##_kernels, y, ldy, w, rows, k, x, col0, cols);                          \
    }

TYPE(iq4_xs, QUANT_IQ4_XS)
TYPE(q3_k, QUANT_Q3_K)
TYPE(q2_k, QUANT_Q2_K)

void kern_init_avx2_low(struct kern *k)
{
    k->mul[QUANT_IQ4_XS].mul = iq4_xs_mul;
    k->mul[QUANT_Q3_K].mul = q3_k_mul;
    k->mul[QUANT_Q2_K].mul = q2_k_mul;
}
