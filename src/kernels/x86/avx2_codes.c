/*
 * Products of codes of floats (FP8, I8) on AVX2: a scale per block of up to 128 values, activations
 * in F32. The bits are those of scalar/mul.c: within a block one chain of FMAs per row and column,
 * which the scale then adds to the output's chain.
 *
 * Codes become floats four values of K at a time, 16 rows in two vectors. One column takes them
 * straight from registers, PANELS panels side by side so that chains do not wait for each other.
 * Several columns: a block of a panel is unpacked once to at most 8 KiB of stack, and all columns
 * pass over it in register tiles of 16 rows × up to 6 columns. Outside of that, columns go in
 * chunks and K in parts, so that the activations of a part stay in the second cache; sums wait in y
 * between parts, which is exact.
 */
#include "kernels/kern_internal.h"

#include "base/num.h"

#include <immintrin.h>
#include <string.h>

enum {
    PANELS = 2,      /* side by side, for one column */
    TILE_COLS = 6,   /* 12 accumulators */
    CHUNK_COLS = 96, /* columns that share an unpacked block */
    PART = 512,      /* values of K of a part */
    BLOCK_MAX = 128, /* values */
    UNIT = 4,        /* values of K that are unpacked together */
    AHEAD = 2304,    /* bytes */
};

/* One value of K of 16 rows. */
struct rows16 {
    __m256 v[2];
};

/* A type: values of a block, bytes of four values of 16 rows. */
struct codes {
    enum quant_id id;
    size_t block, unit;
};

KERN_INLINE size_t group_bytes(struct codes t)
{
    return 64 + t.block / UNIT * t.unit;
}

KERN_INLINE void fetch(struct codes t, const uint8_t *p, struct rows16 out[UNIT])
{
#pragma GCC unroll 4
    for (size_t i = 0; i < UNIT; i++, p += 16) {
        if (t.id == QUANT_FP8) { /* bits to where a half has them; the sign must leave bit 14 */
            __m256i h = _mm256_cvtepi8_epi16(_mm_load_si128((const __m128i *)p));
            h = _mm256_and_si256(_mm256_slli_epi16(h, 7), _mm256_set1_epi16((short)0xbf80));
            out[i].v[0] = _mm256_cvtph_ps(_mm256_castsi256_si128(h));
            out[i].v[1] = _mm256_cvtph_ps(_mm256_extracti128_si256(h, 1));
        } else {
#pragma GCC unroll 2
            for (size_t h = 0; h < 2; h++) {
                __m128i b = _mm_loadl_epi64((const __m128i *)(p + 8 * h));
                out[i].v[h] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));
            }
        }
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

KERN_INLINE void add(struct rows16 *s, const struct rows16 *w, const float *x)
{
    __m256 v = _mm256_broadcast_ss(x);
    s->v[0] = _mm256_fmadd_ps(w->v[0], v, s->v[0]);
    s->v[1] = _mm256_fmadd_ps(w->v[1], v, s->v[1]);
}

/* ---- one column ---- */

/* f (P × 16 sums) = product of P panels, `panel` bytes apart. */
KERN_INLINE void gemv(struct codes t, float *f, const uint8_t *w, size_t panel, size_t k,
                      const float *x, size_t P)
{
    struct rows16 y[PANELS], s[PANELS], v[UNIT];
#pragma GCC unroll 2
    for (size_t p = 0; p < P; p++)
        y[p].v[0] = y[p].v[1] = _mm256_setzero_ps();
    for (size_t at = 0; at < k; at += t.block, x += t.block, w += group_bytes(t)) {
        size_t n = num_min(t.block, k - at), i = 0;
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++)
            s[p].v[0] = s[p].v[1] = _mm256_setzero_ps();
        for (; i + UNIT <= n; i += UNIT)
#pragma GCC unroll 2
            for (size_t p = 0; p < P; p++) {
                const uint8_t *c = w + p * panel + 64 + i / UNIT * t.unit;
                _mm_prefetch((const char *)c + AHEAD, _MM_HINT_T0);
                fetch(t, c, v);
#pragma GCC unroll 4
                for (size_t j = 0; j < UNIT; j++)
                    add(&s[p], &v[j], x + i + j);
            }
#pragma GCC unroll 2
        for (size_t p = 0; p < P; p++) {
            if (i < n) {
                fetch(t, w + p * panel + 64 + i / UNIT * t.unit, v);
#pragma GCC unroll 3
                for (size_t j = 0; j < UNIT - 1; j++)
                    if (i + j < n)
                        add(&s[p], &v[j], x + i + j);
            }
            struct rows16 d = scale(t, w + p * panel);
            y[p].v[0] = _mm256_fmadd_ps(s[p].v[0], d.v[0], y[p].v[0]);
            y[p].v[1] = _mm256_fmadd_ps(s[p].v[1], d.v[1], y[p].v[1]);
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

KERN_INLINE void unpack(struct codes t, struct wide *o, const uint8_t *block, size_t n)
{
    for (size_t i = 0; i < n; i += UNIT)
        fetch(t, block + 64 + i / UNIT * t.unit, o->w + i);
    o->d = scale(t, block);
}

/* Adds n values of C columns, ldx apart, to f (C × 16). */
KERN_INLINE void tile(float *f, const struct wide *w, size_t n, const float *x, size_t ldx,
                      size_t C)
{
    struct rows16 s[TILE_COLS];
#pragma GCC unroll 6
    for (size_t c = 0; c < C; c++)
        s[c].v[0] = s[c].v[1] = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i++) {
        struct rows16 v = w->w[i];
#pragma GCC unroll 6
        for (size_t c = 0; c < C; c++)
            add(&s[c], &v, x + c * ldx + i);
    }
#pragma GCC unroll 6
    for (size_t c = 0; c < C; c++)
#pragma GCC unroll 2
        for (size_t h = 0; h < 2; h++) {
            float *y = f + 16 * c + 8 * h;
            _mm256_store_ps(y, _mm256_fmadd_ps(s[c].v[h], w->d.v[h], _mm256_load_ps(y)));
        }
}

#define TILE(C)                                                                                \
    static void tile_##C(float *f, const struct wide *w, size_t n, const float *x, size_t ldx) \
    {                                                                                          \
        tile(f, w, n, x, ldx, C);                                                              \
    }
TILE(1)
TILE(2)
TILE(3)
TILE(4)
TILE(5)
TILE(6)

static void (*const tiles[])(float *f, const struct wide *w, size_t n, const float *x,
                             size_t ldx) = {tile_1, tile_2, tile_3, tile_4, tile_5, tile_6};

/* Adds values [k0, k1) of a panel and `cols` columns at x to f; k0 is a multiple of the block. */
KERN_INLINE void gemm(struct codes t, float *f, const uint8_t *panel, size_t k0, size_t k1,
                      const float *x, size_t ldx, size_t cols)
{
    struct wide w;
    for (size_t k = k0; k < k1; k += t.block) {
        size_t n = num_min(t.block, k1 - k), groups = (cols + TILE_COLS - 1) / TILE_COLS;
        unpack(t, &w, panel + k / t.block * group_bytes(t), n);
        for (size_t c = 0, m; groups; c += m, groups--) {
            m = (cols - c + groups - 1) / groups; /* even, so that none is ragged */
            tiles[m - 1](f + 16 * c, &w, n, x + c * ldx + k, ldx);
        }
    }
}

/* ---- the types ---- */

struct kernels {
    const struct panel_layout *layout;
    void (*gemv[PANELS])(float *f, const uint8_t *w, size_t panel, size_t k, const float *x);
    void (*gemm)(float *f, const uint8_t *panel, size_t k0, size_t k1, const float *x, size_t ldx,
                 size_t cols);
};

static void mul_one(const struct kernels *kn, float *y, const uint8_t *w, size_t rows, size_t k,
                    const float *x)
{
    _Alignas(32) float f[PANELS * 16];
    size_t panel = kn->layout->bytes(k);
    for (size_t r = 0, n; r < rows; r += n) {
        n = num_min(PANELS, (rows - r + 15) / 16);
        kn->gemv[n - 1](f, w + r / 16 * panel, panel, k, x);
        n *= 16;
        memcpy(y + r, f, num_min(n, rows - r) * sizeof *f);
    }
}

static void mul_many(const struct kernels *kn, float *y, size_t ldy, const uint8_t *w, size_t rows,
                     size_t k, const float *x, size_t ldx, size_t cols)
{
    _Alignas(32) float f[CHUNK_COLS * 16];
    size_t panel = kn->layout->bytes(k);
    for (size_t c = 0; c < cols; c += CHUNK_COLS, x += CHUNK_COLS * ldx, y += CHUNK_COLS * ldy) {
        size_t m = num_min(CHUNK_COLS, cols - c);
        for (size_t k0 = 0; k0 < k; k0 += PART)
            for (size_t r = 0; r < rows; r += 16) {
                size_t n = num_min(16, rows - r) * sizeof *f;
                memset(f, 0, m * 16 * sizeof *f);
                for (size_t i = 0; i < m && k0; i++)
                    memcpy(f + 16 * i, y + i * ldy + r, n);
                kn->gemm(f, w + r / 16 * panel, k0, num_min(k, k0 + PART), x, ldx, m);
                for (size_t i = 0; i < m; i++)
                    memcpy(y + i * ldy + r, f + 16 * i, n);
            }
    }
}

#define TYPE(name, layout, ...)                                                                   \
    static void name##_gemv_1(float *f, const uint8_t *w, size_t panel, size_t k, const float *x) \
    {                                                                                             \
        gemv((struct codes){__VA_ARGS__}, f, w, panel, k, x, 1);                                  \
    }                                                                                             \
    static void name##_gemv_2(float *f, const uint8_t *w, size_t panel, size_t k, const float *x) \
    {                                                                                             \
        gemv((struct codes){__VA_ARGS__}, f, w, panel, k, x, 2);                                  \
    }                                                                                             \
    static void name##_gemm(float *f, const uint8_t *panel, size_t k0, size_t k1, const float *x, \
                            size_t ldx, size_t cols)                                              \
    {                                                                                             \
        gemm((struct codes){__VA_ARGS__}, f, panel, k0, k1, x, ldx, cols);                        \
    }                                                                                             \
    static void name##_mul(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,         \
                           const struct kern_x *x, size_t col0, size_t cols)                      \
    {                                                                                             \
        static const struct kernels kn = {&layout, {name##_gemv_1, name##_gemv_2}, name##_gemm};  \
        const float *first = x->f + col0 * x->ldf;                                                \
        if (cols == 1)                                                                            \
            mul_one(&kn, y, w, rows, k, first);                                                   \
        else                                                                                      \
            mul_many(&kn, y, ldy, w, rows, k, first, x->ldf, cols);                               \
    }

TYPE(fp8, panel_code8, QUANT_FP8, 128, 64)
TYPE(i8, panel_code8, QUANT_I8, 128, 64)

void kern_init_avx2_codes(struct kern *k)
{
    k->mul[QUANT_FP8].mul = fp8_mul;
    k->mul[QUANT_I8].mul = i8_mul;
}
