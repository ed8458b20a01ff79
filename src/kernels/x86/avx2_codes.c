/*
 * Products of BF16 and of codes of floats (FP8, I8, NF4, FP4) on AVX2: a scale per block of up to
 * 128 values, activations in F32 or, of BF16 and FP8, also in BF16. The bits are those of
 * scalar/mul.c: within a block one chain of FMAs per row and column, which the scale then adds to
 * the output's chain; BF16 has no scales, its chain goes on from block to block. With BF16
 * activations the chain takes the second value of a pair first, and MXCSR makes numbers below the
 * normal ones zero.
 *
 * Codes become floats four values of K at a time, 16 rows in two vectors: FP8 by way of halves, the
 * levels of nibbles byte by byte from four shuffles, which interleaving puts together; that leaves
 * rows 0-3 and 8-11 in one vector and 4-7 and 12-15 in the other ("mixed"). One column takes them
 * straight from registers, PANELS panels side by side so that chains do not wait for each other.
 * Several columns: a block of a panel is unpacked once to at most 8 KiB of stack, and all columns
 * pass over it in register tiles of 16 rows × up to 6 columns. Outside of that, columns go in
 * chunks and K in parts, so that the activations of a part stay in the second cache; sums wait in y
 * between parts, which is exact.
 */
#include "base/num.h"
#include "kernels/x86/avx2_util.h"

#include <string.h>

enum {
    PANELS = 2,      /* side by side, for one column */
    TILE_COLS = 6,   /* 12 accumulators */
    FEW_COLS = 2,    /* at most: each by itself, which is faster than unpacking for all */
    CHUNK_COLS = 96, /* columns that share an unpacked block */
    PART = 512,      /* values of K of a part */
    BLOCK_MAX = 128, /* values */
    UNIT = 4,        /* values of K that are unpacked together */
};

/* One value of K of 16 rows. */
struct rows16 {
    __m256 v[2];
};

/* A type: values of a block, bytes of four values of 16 rows; whether it is multiplied by BF16. */
struct codes {
    enum quant_id id;
    size_t block, unit;
    bool pairs;
};

/* Bytes of the scales of a block. */
KERN_INLINE size_t head_bytes(struct codes t)
{
    return t.id == QUANT_BF16 ? 0 : 64;
}

KERN_INLINE size_t group_bytes(struct codes t)
{
    return head_bytes(t) + t.block / UNIT * t.unit;
}

/* 8 pairs of bytes to 8 first ones and 8 second ones. */
KERN_INLINE __m128i part_pairs(const uint8_t *p)
{
    return _mm_shuffle_epi8(_mm_load_si128((const __m128i *)p),
                            _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
}

/* Both values of 8 pairs of BF16. */
KERN_INLINE __m256 first_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
}

KERN_INLINE __m256 second_of(__m256i pairs)
{
    return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(-65536)));
}

/* e4m3 bits go to where a half has them; the sign, spread by the widening, must leave bit 14. They
   pass through memory, whence the conversion to float takes them without a shuffle. */
KERN_INLINE void fetch_fp8(const uint8_t *p, struct rows16 out[UNIT])
{
    _Alignas(32) uint16_t half[UNIT][16]; /* 2i + j: both values of pair i, rows 8j to 8j + 7 */
#pragma GCC unroll 4
    for (size_t i = 0; i < UNIT; i++) {
        __m256i h = _mm256_cvtepi8_epi16(part_pairs(p + 16 * i));
        h = _mm256_and_si256(_mm256_slli_epi16(h, 7), _mm256_set1_epi16((short)0xbf80));
        _mm256_store_si256((__m256i *)half[i], h);
    }
    __asm__("" : "+m"(half)); /* else gcc keeps them in registers and splits those */
#pragma GCC unroll 4
    for (size_t i = 0; i < UNIT; i++) {
        const uint16_t *h = half[i & ~(size_t)1] + 8 * (i & 1);
        out[i].v[0] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)h));
        out[i].v[1] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(h + 16)));
    }
}

KERN_INLINE bool nibbles(struct codes t)
{
    return t.id == QUANT_NF4 || t.id == QUANT_FP4;
}

/* Byte b of the 16 levels in each half of p[b]. */
struct levels {
    __m256i p[4];
};

KERN_INLINE struct levels levels_of(struct codes t)
{
    struct levels l;
    const uint8_t *level = (const uint8_t *)quant_levels(t.id);
    for (size_t b = 0; b < 4; b++) {
        uint8_t plane[16] = {0};
        for (size_t i = 0; i < 16 && nibbles(t); i++)
            plane[i] = level[4 * i + b];
        l.p[b] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)plane));
    }
    return l;
}

/* The levels of 32 indices, mixed: bytes 0-7 of both halves are a value, 8-15 another. */
KERN_INLINE void look_up(const struct levels *l, __m256i at, struct rows16 *a, struct rows16 *b)
{
    __m256i p0 = _mm256_shuffle_epi8(l->p[0], at), p1 = _mm256_shuffle_epi8(l->p[1], at);
    __m256i p2 = _mm256_shuffle_epi8(l->p[2], at), p3 = _mm256_shuffle_epi8(l->p[3], at);
    __m256i lo = _mm256_unpacklo_epi8(p0, p1), hi = _mm256_unpacklo_epi8(p2, p3);
    a->v[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(lo, hi));
    a->v[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(lo, hi));
    lo = _mm256_unpackhi_epi8(p0, p1);
    hi = _mm256_unpackhi_epi8(p2, p3);
    b->v[0] = _mm256_castsi256_ps(_mm256_unpacklo_epi16(lo, hi));
    b->v[1] = _mm256_castsi256_ps(_mm256_unpackhi_epi16(lo, hi));
}

KERN_INLINE void fetch_nibbles(const struct levels *l, const uint8_t *p, struct rows16 out[UNIT])
{
    const __m256i low = _mm256_set1_epi8(15);
    __m256i v = _mm256_permute4x64_epi64(_mm256_load_si256((const __m256i *)p), 0xd8);
    look_up(l, _mm256_and_si256(_mm256_srli_epi16(v, 4), low), &out[0], &out[2]);
    look_up(l, _mm256_and_si256(v, low), &out[1], &out[3]);
}

/* Rows in their order again, if the type's are mixed. */
KERN_INLINE struct rows16 in_order(struct codes t, struct rows16 r)
{
    if (!nibbles(t))
        return r;
    return (struct rows16){{_mm256_permute2f128_ps(r.v[0], r.v[1], 0x20),
                            _mm256_permute2f128_ps(r.v[0], r.v[1], 0x31)}};
}

/* Four values of K at p, of which the first n are there. */
KERN_INLINE void fetch(struct codes t, const struct levels *l, const uint8_t *p, size_t n,
                       struct rows16 out[UNIT])
{
    if (t.id == QUANT_BF16) {
#pragma GCC unroll 2
        for (size_t i = 0; i < UNIT; i += 2) {
            if (i >= n)
                break;
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m256i pairs = load(p + 32 * i + 32 * h);
                out[i].v[h] = first_of(pairs);
                out[i + 1].v[h] = second_of(pairs);
            }
        }
        return;
    }
    if (nibbles(t)) {
        fetch_nibbles(l, p, out);
        return;
    }
    if (t.id == QUANT_FP8) {
        fetch_fp8(p, out);
        return;
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < UNIT; i += 2)
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            __m128i b = part_pairs(p + 16 * i + 16 * h);
            out[i].v[h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
            out[i + 1].v[h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)));
        }
}

KERN_INLINE struct rows16 scale(struct codes t, const uint8_t *block)
{
    struct rows16 d;
#pragma GCC unroll 2
    for (size_t h = 0; h < 2; h++) {
        d.v[h] = _mm256_load_ps((const float *)(const void *)block + 8 * h);
        if (t.id == QUANT_FP8)
            d.v[h] = _mm256_mul_ps(d.v[h], _mm256_set1_ps(256));
    }
    return d;
}

KERN_INLINE void add(struct rows16 *s, const struct rows16 *w, __m256 x)
{
    s->v[0] = _mm256_fmadd_ps(w->v[0], x, s->v[0]);
    s->v[1] = _mm256_fmadd_ps(w->v[1], x, s->v[1]);
}

/* Columns of activations from value `at` of K on: floats, or blocks of 32 BF16. */
struct input {
    const float *f;
    const uint16_t *h;
    size_t ldx, block; /* from column to column, from block to block */
};

KERN_INLINE struct input input_at(struct codes t, const struct kern_x *x, size_t col, size_t at)
{
    if (t.pairs)
        return (struct input){NULL, x->h + (at / 32 * x->cols + col) * 32, 32, x->cols * 32};
    return (struct input){x->f + col * x->ldf + at, NULL, x->ldf, 0};
}

/* s += the first n values of four, from value i of the input's block on, in the order of the
   chain. */
KERN_INLINE void add_unit(struct codes t, struct rows16 *s, const struct rows16 v[UNIT],
                          const struct input *x, size_t i, size_t n)
{
    if (!t.pairs) {
#pragma GCC unroll 4
        for (size_t j = 0; j < UNIT; j++)
            if (j < n)
                add(s, &v[j], _mm256_broadcast_ss(x->f + i + j));
        return;
    }
    const uint16_t *h = x->h + i / 32 * x->block + i % 32;
#pragma GCC unroll 2
    for (size_t j = 0; j < UNIT; j += 2) {
        if (j >= n)
            break;
        __m256i pair = splat(h + j);
        add(s, &v[j + 1], second_of(pair));
        add(s, &v[j], first_of(pair));
    }
}

/* ---- one column ---- */

/* f (P × 16 sums) = product of P panels, `panel` bytes apart, and a column. */
KERN_INLINE void gemv(struct codes t, float *f, const uint8_t *w, size_t panel, size_t k,
                      const struct kern_x *x, size_t col, size_t P)
{
    const size_t head = head_bytes(t);
    struct rows16 y[PANELS], s[PANELS], v[UNIT];
    const struct levels l = levels_of(t);
#pragma GCC unroll 2
    for (size_t p = 0; p < P; p++)
        y[p].v[0] = y[p].v[1] = _mm256_setzero_ps();
    const uint8_t *far = w + panel;
    for (size_t at = 0; at < k; at += t.block, w += group_bytes(t)) {
        const struct input in = input_at(t, x, col, at);
        size_t n = num_min(t.block, k - at), i = 0;
        /* Every line, scales too; behind the end of these panels go the next P. */
        size_t ahead = w + AHEAD < far ? AHEAD : AHEAD + (P - 1) * panel;
#pragma GCC unroll 2
        for (size_t p = 0; p < P && head; p++)
            _mm_prefetch((const char *)w + p * panel + ahead, _MM_HINT_T0);
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++)
            s[p].v[0] = s[p].v[1] = _mm256_setzero_ps();
#pragma GCC unroll 2
        for (size_t p = 0; p < P && !head; p++)
            s[p] = y[p];
        for (; i + UNIT <= n; i += UNIT)
#pragma GCC unroll 2
            for (size_t p = 0; p < P; p++) {
                const uint8_t *c = w + p * panel + head + i / UNIT * t.unit;
#pragma GCC unroll 2
                for (size_t b = 0; b < t.unit; b += 64)
                    _mm_prefetch((const char *)c + ahead + b, _MM_HINT_T0);
                fetch(t, &l, c, UNIT, v);
                add_unit(t, &s[p], v, &in, i, UNIT);
            }
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++) {
            if (i < n) {
                fetch(t, &l, w + p * panel + head + i / UNIT * t.unit, n - i, v);
                add_unit(t, &s[p], v, &in, i, n - i);
            }
            if (!head) {
                y[p] = s[p];
                continue;
            }
            struct rows16 d = scale(t, w + p * panel), sum = in_order(t, s[p]);
            y[p].v[0] = _mm256_fmadd_ps(sum.v[0], d.v[0], y[p].v[0]);
            y[p].v[1] = _mm256_fmadd_ps(sum.v[1], d.v[1], y[p].v[1]);
        }
    }
#pragma GCC unroll 2
    for (size_t p = 0; p < P; p++) {
        _mm256_store_ps(f + 16 * p, y[p].v[0]);
        _mm256_store_ps(f + 16 * p + 8, y[p].v[1]);
    }
}

/* ---- several columns ---- */

/* One block of a panel as floats. */
struct wide {
    struct rows16 w[BLOCK_MAX], d;
};

KERN_INLINE void unpack(struct codes t, const struct levels *l, struct wide *o,
                        const uint8_t *block, size_t ahead, size_t n)
{
    for (size_t i = 0; i < group_bytes(t); i += 64)
        _mm_prefetch((const char *)block + ahead + i, _MM_HINT_T0);
    for (size_t i = 0; i < n; i += UNIT) {
        fetch(t, l, block + head_bytes(t) + i / UNIT * t.unit, n - i, o->w + i);
#pragma GCC unroll 4
        for (size_t j = 0; j < UNIT; j++)
            o->w[i + j] = in_order(t, o->w[i + j]);
    }
    if (head_bytes(t))
        o->d = scale(t, block);
}

/* s += n values of C columns by BF16. */
KERN_INLINE void tile_pairs(struct rows16 s[TILE_COLS], const struct wide *w, size_t n,
                            const struct input *x, size_t C)
{
    const uint16_t *h = x->h;
    for (size_t at = 0; at < n; at += 32, h += x->block)
        for (size_t i = 0; i < 32 && at + i < n; i += 2) {
            struct rows16 v = w->w[at + i + 1];
#pragma GCC unroll 6
            for (size_t c = 0; c < C; c++)
                add(&s[c], &v, second_of(splat(h + c * 32 + i)));
            __asm__("" : "+r"(h)); /* else gcc keeps all columns' pairs, and spills them */
            v = w->w[at + i];
#pragma GCC unroll 6
            for (size_t c = 0; c < C; c++)
                add(&s[c], &v, first_of(splat(h + c * 32 + i)));
        }
}

/* Adds n values of C columns to f (C × 16). */
KERN_INLINE void tile(struct codes t, float *f, const struct wide *w, size_t n,
                      const struct input *x, size_t C)
{
    struct rows16 s[TILE_COLS];
#pragma GCC unroll 6
    for (size_t c = 0; c < C; c++) {
        s[c].v[0] = head_bytes(t) ? _mm256_setzero_ps() : _mm256_load_ps(f + 16 * c);
        s[c].v[1] = head_bytes(t) ? _mm256_setzero_ps() : _mm256_load_ps(f + 16 * c + 8);
    }
    if (t.pairs)
        tile_pairs(s, w, n, x, C);
    for (size_t i = 0; i < n && !t.pairs; i++) {
        struct rows16 v = w->w[i];
#pragma GCC unroll 6
        for (size_t c = 0; c < C; c++)
            add(&s[c], &v, _mm256_broadcast_ss(x->f + c * x->ldx + i));
    }
#pragma GCC unroll 6
    for (size_t c = 0; c < C; c++)
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            float *y = f + 16 * c + 8 * h;
            if (head_bytes(t))
                s[c].v[h] = _mm256_fmadd_ps(s[c].v[h], w->d.v[h], _mm256_load_ps(y));
            _mm256_store_ps(y, s[c].v[h]);
        }
}

/* What tiles differ in: which activations are read, and where the chain begins. */
#define TILE(C)                                                                                    \
    static void tile_f32_##C(float *f, const struct wide *w, size_t n, const struct input *x)      \
    {                                                                                              \
        tile((struct codes){.id = QUANT_I8}, f, w, n, x, C);                                       \
    }                                                                                              \
    static void tile_bf16_f32_##C(float *f, const struct wide *w, size_t n, const struct input *x) \
    {                                                                                              \
        tile((struct codes){.id = QUANT_BF16}, f, w, n, x, C);                                     \
    }                                                                                              \
    static void tile_bf16_##C(float *f, const struct wide *w, size_t n, const struct input *x)     \
    {                                                                                              \
        tile((struct codes){.id = QUANT_BF16, .pairs = true}, f, w, n, x, C);                      \
    }                                                                                              \
    static void tile_fp8_##C(float *f, const struct wide *w, size_t n, const struct input *x)      \
    {                                                                                              \
        tile((struct codes){.id = QUANT_FP8, .pairs = true}, f, w, n, x, C);                       \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

/* By BF16 activations, by BF16 weights. */
static void (*const tiles[2][2][TILE_COLS])(float *f, const struct wide *w, size_t n,
                                            const struct input *x) = {
    {{tile_f32_1, tile_f32_2, tile_f32_3, tile_f32_4, tile_f32_5, tile_f32_6},
     {tile_bf16_f32_1, tile_bf16_f32_2, tile_bf16_f32_3, tile_bf16_f32_4, tile_bf16_f32_5,
      tile_bf16_f32_6}},
    {{tile_fp8_1, tile_fp8_2, tile_fp8_3, tile_fp8_4, tile_fp8_5, tile_fp8_6},
     {tile_bf16_1, tile_bf16_2, tile_bf16_3, tile_bf16_4, tile_bf16_5, tile_bf16_6}},
};

/* Adds values [k0, k1) of a panel and `cols` columns from col on to f; k0 is a multiple of the
   block. What is read next lies `ahead` behind. */
KERN_INLINE void gemm(struct codes t, float *f, const uint8_t *panel, size_t ahead, size_t k0,
                      size_t k1, const struct kern_x *x, size_t col, size_t cols)
{
    struct wide w;
    const struct levels l = levels_of(t);
    for (size_t k = k0; k < k1; k += t.block) {
        size_t n = num_min(t.block, k1 - k), groups = (cols + TILE_COLS - 1) / TILE_COLS;
        const uint8_t *block = panel + k / t.block * group_bytes(t);
        unpack(t, &l, &w, block, ahead, n);
        for (size_t g = 0, c = 0, m; g < groups; c += m, g++) {
            m = (cols - c + groups - g - 1) / (groups - g); /* even, so that none is ragged */
            struct input in = input_at(t, x, col + c, k);
            tiles[t.pairs][t.id == QUANT_BF16][m - 1](f + 16 * c, &w, n, &in);
        }
    }
}

/* ---- the types ---- */

struct kernels {
    const struct panel_layout *layout;
    void (*gemv[PANELS])(float *f, const uint8_t *w, size_t panel, size_t k, const struct kern_x *x,
                         size_t col);
    void (*gemm)(float *f, const uint8_t *panel, size_t ahead, size_t k0, size_t k1,
                 const struct kern_x *x, size_t col, size_t cols);
};

static void mul_one(const struct kernels *kn, float *y, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col)
{
    _Alignas(32) float f[PANELS * 16];
    size_t panel = kn->layout->bytes(k);
    for (size_t r = 0, n; r < rows; r += n) {
        n = num_min(PANELS, (rows - r + 15) / 16);
        kn->gemv[n - 1](f, w + r / 16 * panel, panel, k, x, col);
        n *= 16;
        memcpy(y + r, f, num_min(n, rows - r) * sizeof *f);
    }
}

static void mul_many(const struct kernels *kn, float *y, size_t ldy, const uint8_t *w, size_t rows,
                     size_t k, const struct kern_x *x, size_t col, size_t cols)
{
    _Alignas(32) float f[CHUNK_COLS * 16];
    size_t panel = kn->layout->bytes(k);
    for (size_t c = 0; c < cols; c += CHUNK_COLS, y += CHUNK_COLS * ldy) {
        size_t m = num_min(CHUNK_COLS, cols - c);
        size_t part = m * k <= PART * CHUNK_COLS ? k : PART, ahead = part < k ? panel : AHEAD;
        for (size_t k0 = 0; k0 < k; k0 += part)
            for (size_t r = 0; r < rows; r += 16) {
                size_t n = num_min(16, rows - r) * sizeof *f;
                memset(f, 0, m * 16 * sizeof *f);
                for (size_t i = 0; i < m && k0; i++)
                    memcpy(f + 16 * i, y + i * ldy + r, n);
                kn->gemm(f, w + r / 16 * panel, ahead, k0, num_min(k, k0 + part), x, col + c, m);
                for (size_t i = 0; i < m; i++)
                    memcpy(y + i * ldy + r, f + 16 * i, n);
            }
    }
}

/* Not inlined, as MXCSR changes around it. */
static __attribute__((noinline)) void mul_any(const struct kernels *kn, float *y, size_t ldy,
                                              const uint8_t *w, size_t rows, size_t k,
                                              const struct kern_x *x, size_t col, size_t cols)
{
    if (cols <= FEW_COLS)
        for (size_t c = 0; c < cols; c++)
            mul_one(kn, y + c * ldy, w, rows, k, x, col + c);
    else
        mul_many(kn, y, ldy, w, rows, k, x, col, cols);
}

enum { FLUSH = 0x8040 }; /* FTZ and DAZ of MXCSR */

#define TYPE(name, layout, ...)                                                                  \
    static void name##_gemv_1(float *f, const uint8_t *w, size_t panel, size_t k,                \
                              const struct kern_x *x, size_t col)                                \
    {                                                                                            \
        gemv((struct codes){__VA_ARGS__}, f, w, panel, k, x, col, 1);                            \
    }                                                                                            \
    static void name##_gemv_2(float *f, const uint8_t *w, size_t panel, size_t k,                \
                              const struct kern_x *x, size_t col)                                \
    {                                                                                            \
        gemv((struct codes){__VA_ARGS__}, f, w, panel, k, x, col, 2);                            \
    }                                                                                            \
    static void name##_gemm(float *f, const uint8_t *panel, size_t ahead, size_t k0, size_t k1,  \
                            const struct kern_x *x, size_t col, size_t cols)                     \
    {                                                                                            \
        gemm((struct codes){__VA_ARGS__}, f, panel, ahead, k0, k1, x, col, cols);                \
    }                                                                                            \
    static void name##_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,        \
                           const struct kern_x *x, size_t col0, size_t cols)                     \
    {                                                                                            \
        static const struct kernels kn = {&layout, {name##_gemv_1, name##_gemv_2}, name##_gemm}; \
        unsigned csr = _mm_getcsr();                                                             \
        if (((struct codes){__VA_ARGS__}).pairs)                                                 \
            _mm_setcsr(csr | FLUSH);                                                             \
        mul_any(&kn, y, ldy, w, rows, k, x, col0, cols);                                         \
        if (((struct codes){__VA_ARGS__}).pairs)                                                 \
            _mm_setcsr(csr);                                                                     \
    }

TYPE(bf16, panel_bf16, QUANT_BF16, 128, 128, true)
TYPE(bf16_f32, panel_bf16, QUANT_BF16, 128, 128, false)
TYPE(fp8, panel_code8, QUANT_FP8, 128, 64, true)
TYPE(fp8_f32, panel_code8, QUANT_FP8, 128, 64, false)
TYPE(i8, panel_code8, QUANT_I8, 128, 64, false)
TYPE(nf4, panel_code4, QUANT_NF4, 64, 32, false)
TYPE(fp4, panel_code4, QUANT_FP4, 64, 32, false)

void kern_init_avx2_codes(struct kern *k)
{
    k->mul[QUANT_BF16].mul = bf16_mul;
    k->mul[QUANT_BF16].mul_f32 = bf16_f32_mul;
    k->mul[QUANT_FP8].mul = fp8_mul;
    k->mul[QUANT_FP8].mul_f32 = fp8_f32_mul;
    k->mul[QUANT_I8].mul = i8_mul;
    k->mul[QUANT_NF4].mul = nf4_mul;
    k->mul[QUANT_FP4].mul = fp4_mul;
}
