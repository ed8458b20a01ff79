/*
 * Matrix products of all weight types with a native product, in plain C: the definition of the bits
 * that every instruction set must give.
 *
 * An output is one chain of fused multiply-adds in ascending K. With quantized weights a link of
 * the chain is a block: its integer dot product is exact in any order, is turned to float once
 * (nearest even) and enters by one FMA whose factor, weight scale × activation scale, was rounded
 * once to float. Per row and column, f starts at 0:
 *
 *   Q8_0 Q4_0 Q5_0 IQ4_NL  per 32:  f = fma(d × xd, Σ q·a, f), q signed (q − 8, q − 16, …);
 *   MXFP4                           MXFP4: q doubled, d halved
 *   Q4_1 Q5_1 Q4Z Q8Z      per 32:  the same, then f = fma(m, xs, f), xs = xd × Σ a;
 *                                   Q4Z and Q8Z: m = −(d × z), exact for halves
 *   Q4_K Q5_K              per 256: f = fma(d × xd, Σ_b sc_b (q·a)_b, f), 8 sub-blocks b of 32;
 *                                   f = fma(−(dmin × xd), Σ_b m_b (Σ a)_b, f)
 *   Q6_K Q3_K              per 256: f = fma(d × xd, Σ_b sc_b ((q − 32)·a)_b, f), 16 of 16; Q3_K:
 *                                   q − 4
 *   Q2_K                   per 256: as Q4_K, with 16 sub-blocks of 16
 *   IQ4_XS                 per 256: f = fma(d × xd, Σ_b sc_b (q·a)_b, f), 8 of 32; the largest sum
 * of all types: 8 × 32 × 32 × 127 × 127 < 2^27
 *   F32 F16                per value: f = fma(w, x, f)
 *   BF16                   per pair: f = fma(w1, x1, f), then f = fma(w0, x0, f), flushed (kern.h);
 *                                   by float activations as F32
 *   FP8 I8 NF4 FP4         per block: f = fma(s, d, f), where s starts at 0 and is, per value,
 *                                   s = fma(value of the code, x, s); FP8: 2^-8 of the value, d ×
 * 2^8; by BF16 activations FP8's s is a chain of pairs as BF16's, and all flushed
 *
 * Blocks of 32 come in pairs; the second block of an incomplete pair is zero on both sides and
 * takes part. The meaning of the blocks is that of quant/'s decoders, their place in a panel that
 * of panel.h. A block of 16 rows is unpacked once for a few columns, so that this file is a usable
 * fallback too.
 */
#include "kernels/kern_internal.h"
#include "kernels/scalar/block.h"
#include "kernels/scalar/grid.h"
#include "kernels/scalar/kern_math.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { COLS = 8 }; /* columns of a block that share one unpacking */

/* ---- reading panels ----------------------------------------------------------------------------
 */

/* 32 values of 16 rows with their scales and, for types that have one, minimum. */
struct block32 {
    int8_t q[32][16];
    float d[16], m[16];
};

/* Nibble block: values i and 16 + i from byte i; `fifth` (or NULL) holds the fifth bits. */
static void nibbles(struct block32 *b, const uint8_t *q, const uint8_t *fifth,
                    const int8_t table[16], int offset)
{
    for (size_t i = 0; i < 4; i++)
        for (size_t r = 0; r < 16; r++)
            for (size_t j = 0; j < 4; j++) {
                uint8_t v = byte_at(q, i, r, j), h = fifth ? byte_at(fifth, 0, r, j) : 0;
                int lo = (v & 15) | (h >> i & 1) << 4, hi = v >> 4 | (h >> (4 + i) & 1) << 4;
                b->q[4 * i + j][r] = (int8_t)(table ? table[lo] : lo - offset);
                b->q[16 + 4 * i + j][r] = (int8_t)(table ? table[hi] : hi - offset);
            }
}

static void bytes(struct block32 *b, const uint8_t *q)
{
    for (size_t i = 0; i < 8; i++)
        for (size_t r = 0; r < 16; r++)
            for (size_t j = 0; j < 4; j++)
                b->q[4 * i + j][r] = (int8_t)byte_at(q, i, r, j);
}

/* Block `half` (0, 1) of a pair at w. */
static void unpack_q8_0(struct block32 *b, const uint8_t *w, size_t half)
{
    halves(b->d, w + 32 * half);
    bytes(b, w + 64 + 512 * half);
}

static void unpack_q4_0(struct block32 *b, const uint8_t *w, size_t half)
{
    halves(b->d, w + 32 * half);
    nibbles(b, w + 64 + 256 * half, NULL, NULL, 8);
}

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

static void unpack_iq4_nl(struct block32 *b, const uint8_t *w, size_t half)
{
    halves(b->d, w + 32 * half);
    nibbles(b, w + 64 + 256 * half, NULL, iq4_levels, 0);
}

/* Half of 2^(e - 127), subnormal for e < 2. */
static float half_e8m0(unsigned e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (e - 1) << 23;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void unpack_mxfp4(struct block32 *b, const uint8_t *w, size_t half)
{
    static const int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (size_t r = 0; r < 16; r++)
        b->d[r] = half_e8m0(w[16 * half + r]);
    nibbles(b, w + 64 + 256 * half, NULL, table, 0);
}

static void unpack_q5_0(struct block32 *b, const uint8_t *w, size_t half)
{
    halves(b->d, w + 32 * half);
    nibbles(b, w + 128 + 320 * half, w + 64 + 320 * half, NULL, 16);
}

static void unpack_q4_1(struct block32 *b, const uint8_t *w, size_t half)
{
    w += 320 * half;
    halves(b->d, w);
    halves(b->m, w + 32);
    nibbles(b, w + 64, NULL, NULL, 0);
}

/* The minimum that a zero point means. */
static void zeros_to_minima(struct block32 *b)
{
    for (size_t r = 0; r < 16; r++)
        b->m[r] = -(b->d[r] * b->m[r]);
}

static void unpack_q4z(struct block32 *b, const uint8_t *w, size_t half)
{
    unpack_q4_1(b, w, half);
    zeros_to_minima(b);
}

static void unpack_q8z(struct block32 *b, const uint8_t *w, size_t half)
{
    w += 576 * half;
    halves(b->d, w);
    halves(b->m, w + 32);
    bytes(b, w + 64);
    zeros_to_minima(b);
}

static void unpack_q5_1(struct block32 *b, const uint8_t *w, size_t half)
{
    w += 384 * half;
    halves(b->d, w);
    halves(b->m, w + 32);
    nibbles(b, w + 128, w + 64, NULL, 0);
}

/* The two halves of the dwords at w. */
static void half_pair(float lo[16], float hi[16], const uint8_t *w)
{
    for (size_t r = 0; r < 16; r++) {
        uint16_t h[2];
        memcpy(h, w + 4 * r, 4);
        lo[r] = quant_f16_to_f32(h[0]);
        hi[r] = quant_f16_to_f32(h[1]);
    }
}

/* d, dmin and the 6-bit scales and minima of Q4_K and Q5_K (packed as quant/q_k.c says). */
static void k_head(struct block256 *b, const uint8_t *w)
{
    half_pair(b->d, b->dmin, w);
    for (size_t r = 0; r < 16; r++) {
        for (size_t j = 0; j < 4; j++) {
            int s = byte_at(w, 1, r, j), m = byte_at(w, 2, r, j), x = byte_at(w, 3, r, j);
            b->sc[j][r] = s & 63;
            b->m[j][r] = m & 63;
            b->sc[4 + j][r] = (x & 15) | s >> 6 << 4;
            b->m[4 + j][r] = x >> 4 | m >> 6 << 4;
        }
    }
}

static void unpack_k45(struct block256 *b, const uint8_t *qs, const uint8_t *qh)
{
    for (size_t j = 0; j < 4; j++)
        for (size_t i = 0; i < 8; i++)
            for (size_t r = 0; r < 16; r++)
                for (size_t l = 0; l < 4; l++) {
                    int v = byte_at(qs, 8 * j + i, r, l), h = qh ? byte_at(qh, i, r, l) : 0;
                    b->q[64 * j + 4 * i + l][r] = (int8_t)((v & 15) | (h >> 2 * j & 1) << 4);
                    b->q[64 * j + 32 + 4 * i + l][r] =
                        (int8_t)(v >> 4 | (h >> (2 * j + 1) & 1) << 4);
                }
}

static void unpack_q4_k(struct block256 *b, const uint8_t *w, size_t i, size_t n)
{
    (void)n;
    w += 2304 * i;
    k_head(b, w);
    unpack_k45(b, w + 256, NULL);
}

static void unpack_q5_k(struct block256 *b, const uint8_t *w, size_t i, size_t n)
{
    (void)n;
    w += 2816 * i;
    k_head(b, w);
    unpack_k45(b, w + 768, w + 256);
}

static void unpack_q6_k(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    halves(b->d, w + 32 * block);
    w += (32 * n + 63) / 64 * 64 + 3328 * block;
    for (size_t h = 0; h < 2; h++)
        for (size_t i = 0; i < 8; i++)
            for (size_t r = 0; r < 16; r++)
                for (size_t l = 0; l < 4; l++) {
                    int lo = byte_at(w, 16 * h + i, r, l), hi = byte_at(w, 16 * h + 8 + i, r, l);
                    int top = byte_at(w + 2048, 8 * h + i, r, l);
                    int8_t(*q)[16] = &b->q[128 * h + 4 * i + l];
                    q[0][r] = (int8_t)(((lo & 15) | (top & 3) << 4) - 32);
                    q[32][r] = (int8_t)(((hi & 15) | (top >> 2 & 3) << 4) - 32);
                    q[64][r] = (int8_t)((lo >> 4 | (top >> 4 & 3) << 4) - 32);
                    q[96][r] = (int8_t)((hi >> 4 | (top >> 6) << 4) - 32);
                }
    for (size_t s = 0; s < 16; s++)
        for (size_t r = 0; r < 16; r++)
            b->sc[s][r] = (int8_t)byte_at(w + 3072, s / 4, r, s % 4);
}

static void unpack_iq4_xs(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    (void)n;
    w += 2176 * block;
    for (size_t r = 0; r < 16; r++) {
        uint16_t h[2];
        memcpy(h, w + 4 * r, 4);
        b->d[r] = quant_f16_to_f32(h[0]);
        for (size_t s = 0; s < 8; s++) {
            int low = byte_at(w, 1, r, s / 2) >> 4 * (s % 2) & 15;
            b->sc[s][r] = (low | (h[1] >> 2 * s & 3) << 4) - 32;
        }
        for (size_t s = 0; s < 8; s++)
            for (size_t j = 0; j < 16; j++) {
                uint8_t v = byte_at(w, 2 + 4 * s + j / 4, r, j % 4);
                b->q[32 * s + j][r] = iq4_levels[v & 15];
                b->q[32 * s + 16 + j][r] = iq4_levels[v >> 4];
            }
    }
}

/* The two low bits of Q2_K and Q3_K: 128 values in 32 bytes, value 32 s + j in bits 2 s of byte j.
 */
static int two_bits(const uint8_t *q, size_t r, size_t value)
{
    size_t j = value % 32;
    return byte_at(q, value / 128 * 8 + j / 4, r, j % 4) >> 2 * (value / 32 % 4) & 3;
}

static void unpack_q3_k(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    halves(b->d, w + 32 * block);
    w += (32 * n + 63) / 64 * 64 + 1728 * block;
    const uint8_t *scales = w + 64 * 24;
    for (size_t r = 0; r < 16; r++) {
        for (size_t i = 0; i < 256; i++) {
            int high = byte_at(w, i % 32 / 4, r, i % 4) >> i / 32 & 1;
            b->q[i][r] = (int8_t)(two_bits(w + 512, r, i) + 4 * high - 4);
        }
        for (size_t s = 0; s < 16; s++) { /* as q3_k_scale in quant/q_k.c */
            int low = byte_at(scales, s % 8 / 4, r, s % 4) >> 4 * (s / 8) & 15;
            int high = byte_at(scales, 2, r, s % 4) >> 2 * (s / 4) & 3;
            b->sc[s][r] = (low | high << 4) - 32;
        }
    }
}

static void unpack_q2_k(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    (void)n;
    w += 1344 * block;
    half_pair(b->d, b->dmin, w + 64 * 20);
    for (size_t r = 0; r < 16; r++) {
        for (size_t i = 0; i < 256; i++)
            b->q[i][r] = (int8_t)two_bits(w + 256, r, i);
        for (size_t s = 0; s < 16; s++) {
            b->sc[s][r] = byte_at(w, s / 4, r, s % 4) & 15;
            b->m[s][r] = byte_at(w, s / 4, r, s % 4) >> 4;
        }
    }
}

/* Ternary digits, as quant/q_tq.c has them. */
static void unpack_tq2_0(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    halves(b->d, w + 32 * block);
    w += (32 * n + 63) / 64 * 64 + 1024 * block;
    for (size_t r = 0; r < 16; r++) {
        for (size_t i = 0; i < 256; i++)
            b->q[i][r] = (int8_t)(two_bits(w, r, i) - 1);
        b->sc[0][r] = 1;
    }
}

static void unpack_tq1_0(struct block256 *b, const uint8_t *w, size_t block, size_t n)
{
    static const uint8_t power[5] = {1, 3, 9, 27, 81};
    halves(b->d, w + 32 * block);
    w += (32 * n + 63) / 64 * 64 + 832 * block;
    for (size_t r = 0; r < 16; r++) {
        for (size_t i = 0; i < 256; i++) {
            size_t run = i < 160 ? 32 : i < 240 ? 16 : 4, first = i < 160 ? 0 : i < 240 ? 160 : 240;
            size_t byte = (i < 160 ? 0 : i < 240 ? 32 : 48) + (i - first) % run;
            uint8_t rest = (uint8_t)(byte_at(w, byte / 4, r, byte % 4) * power[(i - first) / run]);
            b->q[i][r] = (int8_t)((rest * 3 >> 8) - 1);
        }
        b->sc[0][r] = 1;
    }
}

/* ---- products
 * ------------------------------------------------------------------------------------ */

/* t[r] = Σ q[i][r] × a[i] over n values. */
static void dot16(int32_t t[16], const int8_t (*q)[16], const int8_t *a, size_t n)
{
    memset(t, 0, 16 * sizeof *t);
    for (size_t i = 0; i < n; i++)
        for (size_t r = 0; r < 16; r++)
            t[r] += q[i][r] * a[i];
}

/* A type of blocks of 32: its pair's size and how to read it; min says that it has minima. */
struct type32 {
    size_t pair;
    void (*unpack)(struct block32 *b, const uint8_t *w, size_t half);
    bool min;
};

static void tile_q32(const struct type32 *t, float f[COLS][16], const uint8_t *w, size_t k,
                     const struct kern_x *x, size_t col, size_t cols)
{
    struct block32 b;
    int32_t sum[16];
    for (size_t i = 0; i < (k + 63) / 64 * 2; i++) {
        t->unpack(&b, w + i / 2 * t->pair, i % 2);
        for (size_t c = 0; c < cols; c++) {
            size_t at = i * x->cols + col + c;
            dot16(sum, b.q, x->q + at * 32, 32);
            for (size_t r = 0; r < 16; r++) {
                float scale = b.d[r] * x->d[at];
                f[c][r] = fmaf(scale, (float)sum[r], f[c][r]);
                if (t->min)
                    f[c][r] = fmaf(b.m[r], x->s[at], f[c][r]);
            }
        }
    }
}

/* A type of blocks of 256 with sub-blocks of `sub` values. */
struct type256 {
    size_t sub;
    void (*unpack)(struct block256 *b, const uint8_t *w, size_t i, size_t n);
    bool min;
};

/* Values [v, v + n) of block i of column col. */
static void dot_part(int32_t t[16], const struct block256 *b, const struct kern_x *x, size_t i,
                     size_t col, size_t v, size_t n)
{
    int32_t part[16];
    memset(t, 0, 16 * sizeof *t);
    for (size_t end = v + n; v < end; v += 16) { /* x->q is in blocks of 32 */
        dot16(part, b->q + v, x->q + ((8 * i + v / 32) * x->cols + col) * 32 + v % 32, 16);
        for (size_t r = 0; r < 16; r++)
            t[r] += part[r];
    }
}

/* One column of one block of 256. */
static void block_q256(const struct type256 *t, float f[16], const struct block256 *b,
                       const struct kern_x *x, size_t i, size_t col)
{
    size_t n = 256 / t->sub, at = i * x->cols + col;
    int32_t dot[16] = {0}, mins[16] = {0}, sum[16];
    for (size_t s = 0; s < n; s++) {
        dot_part(sum, b, x, i, col, s * t->sub, t->sub);
        for (size_t r = 0; r < 16; r++) {
            dot[r] += b->sc[s][r] * sum[r];
            if (t->min)
                mins[r] += b->m[s][r] * (n == 16 ? x->sum16[at * 16 + s] : x->sum32[at * 8 + s]);
        }
    }
    for (size_t r = 0; r < 16; r++) {
        float scale = b->d[r] * x->d[at];
        f[r] = fmaf(scale, (float)dot[r], f[r]);
        if (t->min) {
            float down = b->dmin[r] * x->d[at];
            f[r] = fmaf(-down, (float)mins[r], f[r]);
        }
    }
}

static void tile_q256(const struct type256 *t, float f[COLS][16], const uint8_t *w, size_t k,
                      const struct kern_x *x, size_t col, size_t cols)
{
    struct block256 b;
    for (size_t i = 0; i < k / 256; i++) {
        t->unpack(&b, w, i, k / 256);
        for (size_t c = 0; c < cols; c++)
            block_q256(t, f[c], &b, x, i, col + c);
    }
}

static void row_f32(float out[16], const uint8_t *w, size_t i)
{
    memcpy(out, w + 64 * i, 64);
}

static void row_f16(float out[16], const uint8_t *w, size_t i)
{
    halves(out, w + 32 * i);
}

static void row_bf16(float out[16], const uint8_t *w, size_t i)
{
    for (size_t r = 0; r < 16; r++) {
        uint16_t h;
        memcpy(&h, w + 64 * (i / 2) + 4 * r + 2 * (i % 2), 2);
        out[r] = quant_bf16_to_f32(h);
    }
}

static void tile_float(void (*row)(float out[16], const uint8_t *w, size_t i), float f[COLS][16],
                       const uint8_t *w, size_t k, const struct kern_x *x, size_t col, size_t cols)
{
    float v[16];
    for (size_t i = 0; i < k; i++) {
        row(v, w, i);
        for (size_t c = 0; c < cols; c++)
            for (size_t r = 0; r < 16; r++)
                f[c][r] = fmaf(v[r], x->f[(col + c) * x->ldf + i], f[c][r]);
    }
}

/* Codes of floats: values of a block, bytes of a block of 16 rows, value i of the rows. d × unit is
   the scale. */
struct codes {
    size_t block, group;
    void (*row)(float out[16], const uint8_t *codes, size_t i);
    float unit;
};

/* e4m3 bits moved to where a half has them: 2^-8 of the value, subnormals too. NaN codes, which a
   loader refuses, count as 1.875 × 2^8. */
static void row_fp8(float out[16], const uint8_t *codes, size_t i)
{
    for (size_t r = 0; r < 16; r++) {
        unsigned v = codes[32 * (i / 2) + 2 * r + i % 2];
        out[r] = quant_f16_to_f32((uint16_t)((v & 0x80) << 8 | (v & 0x7f) << 7));
    }
}

static void row_i8(float out[16], const uint8_t *codes, size_t i)
{
    for (size_t r = 0; r < 16; r++)
        out[r] = (float)(int8_t)codes[32 * (i / 2) + 2 * r + i % 2];
}

static void row_levels(float out[16], const float *levels, const uint8_t *codes, size_t i)
{
    for (size_t r = 0; r < 16; r++)
        out[r] = levels[codes[i / 2 * 16 + r] >> (i % 2 ? 0 : 4) & 15];
}

static void row_nf4(float out[16], const uint8_t *codes, size_t i)
{
    row_levels(out, quant_levels(QUANT_NF4), codes, i);
}

static void row_fp4(float out[16], const uint8_t *codes, size_t i)
{
    row_levels(out, quant_levels(QUANT_FP4), codes, i);
}

static void tile_codes(const struct codes *t, float f[COLS][16], const uint8_t *w, size_t k,
                       const struct kern_x *x, size_t col, size_t cols)
{
    for (size_t at = 0; at < k; at += t->block, w += t->group) {
        float s[COLS][16] = {0}, v[16], d[16];
        memcpy(d, w, sizeof d);
        for (size_t i = 0; i < t->block && at + i < k; i++) {
            t->row(v, w + 64, i);
            for (size_t c = 0; c < cols; c++)
                for (size_t r = 0; r < 16; r++)
                    s[c][r] = fmaf(v[r], x->f[(col + c) * x->ldf + at + i], s[c][r]);
        }
        for (size_t c = 0; c < cols; c++)
            for (size_t r = 0; r < 16; r++)
                f[c][r] = fmaf(s[c][r], d[r] * t->unit, f[c][r]);
    }
}

/* ---- BF16 activations ---- */

/* unit 0: no scales; the chain goes through all blocks. */
static void tile_pairs(const struct codes *t, float f[COLS][16], const uint8_t *w, size_t k,
                       const struct kern_x *x, size_t col, size_t cols)
{
    bool scaled = t->unit != 0;
    for (size_t at = 0; at < k; at += t->block, w += t->group) {
        float s[COLS][16] = {0}, v[16], d[16] = {0};
        if (scaled)
            memcpy(d, w, sizeof d);
        else
            memcpy(s, f, sizeof s);
        for (size_t n = 0; n < t->block && at + (n & ~(size_t)1) < k; n++) {
            size_t i = n ^ 1; /* the second value of a pair first; both, though k is odd */
            size_t j = (at + i) / 32 * x->cols * 32 + (at + i) % 32;
            t->row(v, w + (scaled ? 64 : 0), i);
            for (size_t c = 0; c < cols; c++)
                for (size_t r = 0; r < 16; r++)
                    s[c][r] = kern_step_flushed(
                        kern_flush(v[r]), kern_flush(quant_bf16_to_f32(x->h[j + (col + c) * 32])),
                        s[c][r]);
        }
        for (size_t c = 0; c < cols; c++)
            for (size_t r = 0; r < 16; r++)
                f[c][r] = scaled ? kern_step_flushed(
                                       s[c][r], kern_flush(kern_flush(d[r]) * t->unit), f[c][r])
                                 : s[c][r];
    }
}

/* The outer loops of all types; TILE adds a panel's product with up to COLS columns to f. */
#define MUL(name, layout, TILE, ...)                                                      \
    static void mul_##name(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        size_t bytes = layout.bytes(k);                                                   \
        for (size_t p = 0; p * 16 < rows; p++)                                            \
            for (size_t c = 0; c < cols; c += COLS) {                                     \
                size_t n = cols - c < COLS ? cols - c : COLS;                             \
                size_t valid = rows - p * 16 < 16 ? rows - p * 16 : 16;                   \
                float f[COLS][16] = {0};                                                  \
                TILE(__VA_ARGS__, f, w + p * bytes, k, x, col0 + c, n);                   \
                for (size_t i = 0; i < n; i++)                                            \
                    memcpy(y + (c + i) * ldy + p * 16, f[i], valid * sizeof(float));      \
            }                                                                             \
    }

#define TYPE32(...) (&(const struct type32){__VA_ARGS__})
#define TYPE256(...) (&(const struct type256){__VA_ARGS__})
#define CODES(...) (&(const struct codes){__VA_ARGS__})

MUL(q8_0, panel_q8_0, tile_q32, TYPE32(1088, unpack_q8_0, false))
MUL(q4_0, panel_q4_0, tile_q32, TYPE32(576, unpack_q4_0, false))
MUL(q5_0, panel_q5_0, tile_q32, TYPE32(704, unpack_q5_0, false))
MUL(q4_1, panel_q4_1, tile_q32, TYPE32(640, unpack_q4_1, true))
MUL(q5_1, panel_q5_1, tile_q32, TYPE32(768, unpack_q5_1, true))
MUL(mxfp4, panel_mxfp4, tile_q32, TYPE32(576, unpack_mxfp4, false))
MUL(q4z, panel_q4_1, tile_q32, TYPE32(640, unpack_q4z, true))
MUL(q8z, panel_q8z, tile_q32, TYPE32(1152, unpack_q8z, true))
MUL(iq4_nl, panel_q4_0, tile_q32, TYPE32(576, unpack_iq4_nl, false))
MUL(q4_k, panel_q4_k, tile_q256, TYPE256(32, unpack_q4_k, true))
MUL(q5_k, panel_q5_k, tile_q256, TYPE256(32, unpack_q5_k, true))
MUL(q6_k, panel_q6_k, tile_q256, TYPE256(16, unpack_q6_k, false))
MUL(iq4_xs, panel_iq4_xs, tile_q256, TYPE256(32, unpack_iq4_xs, false))
MUL(q3_k, panel_q3_k, tile_q256, TYPE256(16, unpack_q3_k, false))
MUL(q2_k, panel_q2_k, tile_q256, TYPE256(16, unpack_q2_k, true))
MUL(tq2_0, panel_tq2_0, tile_q256, TYPE256(256, unpack_tq2_0, false))
MUL(tq1_0, panel_tq1_0, tile_q256, TYPE256(256, unpack_tq1_0, false))
MUL(iq2_xxs, panel_iq2_xxs, tile_q256, TYPE256(32, grid_iq2_xxs, false))
MUL(iq3_xxs, panel_iq3_xxs, tile_q256, TYPE256(32, grid_iq3_xxs, false))
MUL(iq2_xs, panel_iq2_xs, tile_q256, TYPE256(16, grid_iq2_xs, false))
MUL(iq2_s, panel_iq2_s, tile_q256, TYPE256(16, grid_iq2_s, false))
MUL(iq3_s, panel_iq3_s, tile_q256, TYPE256(32, grid_iq3_s, false))
MUL(iq1_s, panel_iq1_s, tile_q256, TYPE256(32, grid_iq1_s, false))
MUL(iq1_m, panel_iq1_m, tile_q256, TYPE256(16, grid_iq1_m, false))
MUL(f32, panel_f32, tile_float, row_f32)
MUL(f16, panel_f16, tile_float, row_f16)
MUL(bf16, panel_bf16, tile_pairs, CODES(128, 4096, row_bf16, 0))
MUL(bf16_f32, panel_bf16, tile_float, row_bf16)
MUL(fp8, panel_code8, tile_pairs, CODES(128, 2112, row_fp8, 256))
MUL(fp8_f32, panel_code8, tile_codes, CODES(128, 2112, row_fp8, 256))
MUL(i8, panel_code8, tile_codes, CODES(128, 2112, row_i8, 1))
MUL(nf4, panel_code4, tile_codes, CODES(64, 576, row_nf4, 1))
MUL(fp4, panel_code4, tile_codes, CODES(64, 576, row_fp4, 1))

void kern_init_scalar_mul(struct kern *k)
{
    k->mul[QUANT_Q8_0].mul = mul_q8_0;
    k->mul[QUANT_Q4_0].mul = mul_q4_0;
    k->mul[QUANT_Q5_0].mul = mul_q5_0;
    k->mul[QUANT_Q4_1].mul = mul_q4_1;
    k->mul[QUANT_Q5_1].mul = mul_q5_1;
    k->mul[QUANT_MXFP4].mul = mul_mxfp4;
    k->mul[QUANT_Q4Z].mul = mul_q4z;
    k->mul[QUANT_Q8Z].mul = mul_q8z;
    k->mul[QUANT_IQ4_NL].mul = mul_iq4_nl;
    k->mul[QUANT_Q4_K].mul = mul_q4_k;
    k->mul[QUANT_Q5_K].mul = mul_q5_k;
    k->mul[QUANT_Q6_K].mul = mul_q6_k;
    k->mul[QUANT_IQ4_XS].mul = mul_iq4_xs;
    k->mul[QUANT_Q3_K].mul = mul_q3_k;
    k->mul[QUANT_Q2_K].mul = mul_q2_k;
    k->mul[QUANT_TQ2_0].mul = mul_tq2_0;
    k->mul[QUANT_TQ1_0].mul = mul_tq1_0;
    k->mul[QUANT_IQ2_XXS].mul = mul_iq2_xxs;
    k->mul[QUANT_IQ3_XXS].mul = mul_iq3_xxs;
    k->mul[QUANT_IQ2_XS].mul = mul_iq2_xs;
    k->mul[QUANT_IQ2_S].mul = mul_iq2_s;
    k->mul[QUANT_IQ3_S].mul = mul_iq3_s;
    k->mul[QUANT_IQ1_S].mul = mul_iq1_s;
    k->mul[QUANT_IQ1_M].mul = mul_iq1_m;
    k->mul[QUANT_F32].mul = mul_f32;
    k->mul[QUANT_F16].mul = mul_f16;
    k->mul[QUANT_BF16].mul = mul_bf16;
    k->mul[QUANT_BF16].mul_f32 = mul_bf16_f32;
    k->mul[QUANT_FP8].mul = mul_fp8;
    k->mul[QUANT_FP8].mul_f32 = mul_fp8_f32;
    k->mul[QUANT_I8].mul = mul_i8;
    k->mul[QUANT_NF4].mul = mul_nf4;
    k->mul[QUANT_FP4].mul = mul_fp4;
}
