/*
 * The table of compute kernels.
 *
 * Each field has a plain C version (scalar/) that *is* its definition, and faster ones per
 * instruction set that give the same bits. The table is filled once by kern_init, weakest first, so
 * a file for an instruction set overwrites only what it does better.
 *
 * How the same bits come about everywhere:
 *  - Weights lie in panels of 16 rows, a lane a row, so that no kernel ever sums across lanes for a
 *    matrix product: each output is one chain of fused multiply-adds in ascending K.
 *  - Quantized products are exact integers inside a block; then one or two float FMAs per block in
 *    ascending K. How rows, columns, K and threads are cut therefore never shows in the result.
 *  - Reductions over a row (rmsnorm, softmax) run over 16 virtual lanes: lane i takes the elements
 *    with index % 16 == i in ascending order; then lanes are added as a tree: l[i] += l[i + 8],
 *    then + 4, + 2, + 1.
 *  - exp is one fixed sequence of IEEE operations (scalar/kern_math.h).
 *
 * Panels: 16 rows of a weight matrix, interleaved so that one 64-byte load holds the same piece of
 * all 16 rows. The size is that of the file's rows, rounded up (layouts: panel.h). The last panel
 * of a matrix whose rows are no multiple of 16 is filled with zero rows.
 *
 * BF16 products (KERN_ACT_BF16) are dot products of pairs of values as vdpbf16ps computes them: the
 * chain takes the second value of a pair, then the first; numbers below the normal ones are read
 * and written as zero (of their sign), where "below" is decided after rounding. That is an FMA with
 * DAZ and FTZ set in MXCSR.
 *
 * Activations of quantized products are int8 in [-127, 127], quantized per 32 values (types with
 * blocks of 32) or per 256 (K-quants); quantize_* below define the rounding.
 *
 * Threads: all kernels are pure functions of their arguments.
 */
#ifndef PONDER_KERNELS_KERN_H
#define PONDER_KERNELS_KERN_H

#include "base/cpu.h"
#include "quant/quant.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    KERN_ROWS = 16,  /* rows of a panel */
    KERN_ALIGN = 64, /* alignment of panels and of kern_x arrays */
};

/* What a product reads on the activation side. */
enum kern_act {
    KERN_ACT_NONE, /* no kernel for this type: decode it to F32 first */
    KERN_ACT_F32,
    KERN_ACT_Q32,  /* int8, a scale per 32 values */
    KERN_ACT_Q256, /* int8, a scale per 256 values, sums per 16 and per 32 */
    KERN_ACT_BF16, /* rounded to BF16, in pairs */
};

/*
 * Activations of `cols` columns (tokens) of k values each, in the forms that are needed. Arrays are
 * block-major: all columns of a block lie together. kb = k rounded up to a multiple of 64 (Q32), so
 * that blocks come in pairs, of 256 (Q256) or of 32 (BF16); what is beyond k is zero.
 */
struct kern_x {
    size_t k, cols;
    const float *f; /* F32: column c at f + c * ldf */
    size_t ldf;
    int8_t *q;      /* Q32 and Q256: (kb/32, cols, 32) */
    float *d;       /* Q32: scale (kb/32, cols); Q256: (kb/256, cols) */
    float *s;       /* Q32: d × sum of the 32 int8 values (kb/32, cols) */
    int32_t *sum;   /* Q32: sum of the 32 int8 values (kb/32, cols) */
    int16_t *sum16; /* Q256: sums of 16 values (kb/256, cols, 16) */
    int16_t *sum32; /* Q256: sums of 32 values (kb/256, cols, 8) */
    uint16_t *h;    /* BF16: (kb/32, cols, 32) */
};

/* Matrix product of one weight type. */
struct kern_mul {
    enum kern_act act;

    /* Bytes of one panel of 16 rows of k values; a multiple of 64. */
    size_t (*panel_bytes)(size_t k);

    /*
     * Interleaves `rows` (1..16) rows of k values, `stride` bytes apart in file order, into one
     * panel; missing rows become zero. dst is aligned to KERN_ALIGN.
     */
    void (*pack)(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, size_t k);

    /* Row r of a panel back in file order: the inverse of pack for one row. */
    void (*unpack_row)(uint8_t *dst, const uint8_t *panel, size_t r, size_t k);

    /*
     * y[(c - col0) * ldy + r] = dot(row r, column c) for r < rows and col0 ≤ c < col0 + cols, where
     * w points to ceil(rows/16) consecutive panels. Does not write beyond `rows`.
     */
    void (*mul)(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                const struct kern_x *x, size_t col0, size_t cols);

    /* The same over the same panels with activations in F32, of types whose act is
       KERN_ACT_BF16; else NULL. */
    void (*mul_f32)(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols);

    /* The same for one column, where the mul of a weaker level reads memory faster; NULL: mul. */
    void (*mul_one)(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                    const struct kern_x *x, size_t col0, size_t cols);

    /* Where processors of a level take different forms of mul, the one that is not taken here, so
       that tests reach both on any machine; else NULL. */
    void (*mul_other)(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k,
                      const struct kern_x *x, size_t col0, size_t cols);
};

/* Element types of the strided float product. */
enum kern_float { KERN_F32, KERN_F16, KERN_BF16, KERN_FLOAT_COUNT };

/*
 * Strided float product, for attention. Element (k, r) of panel p of w is at
 * w[p * panel_step + k * k_step + r], counted in elements; steps are any number ≥ 16 or, for
 * panel_step, any; w needs only the alignment of its elements.
 * y[c * ldy + r] = chain over k ascending of fma(w, x[c * ldx + k], y), starting at 0.
 *
 * ahead, when not NULL, is what will be read next: as many bytes as w has are prefetched from
 * there.
 */
struct kern_tile {
    const void *w, *ahead;
    size_t panel_step, k_step;
    size_t rows, k; /* output rows (padded reads up to 16 must be valid memory), depth */
    const float *x;
    size_t ldx, cols;
    float *y;
    size_t ldy;
};

/*
 * Dot products of rows with columns, for attention: value k of row r at w[r * step + k], counted in
 * elements. y[c * ldy + r] over 16 virtual lanes of FMAs, k filled up with zeros to a multiple of
 * 16.
 */
struct kern_dots {
    const void *w, *ahead; /* as in kern_tile */
    size_t step, rows, k;
    const float *x;
    size_t ldx, cols;
    float *y;
    size_t ldy;
};

/*
 * A page of keys, values or latents in int8, for attention: 64 positions of d values each. Values
 * are cut into blocks of at most 128, those from `front` on into their own; a position has a scale
 * for each block. front ≤ d; d, front and block are multiples of 4.
 *   k      (d / 4, 64, 4), in [-127, 127]
 *   scale  (blocks, 64)
 */
enum { KERN_PAGE_ROWS = 64, KERN_PAGE_BLOCK = 128 };

struct kern_page_shape {
    size_t d, front, block;
};

static inline size_t kern_page_blocks(const struct kern_page_shape *s)
{
    return (s->front + s->block - 1) / s->block + (s->d - s->front + s->block - 1) / s->block;
}

/* End of the block that begins with value `at`. */
static inline size_t kern_page_end(const struct kern_page_shape *s, size_t at)
{
    size_t end = at + s->block, most = at < s->front ? s->front : s->d;
    return end < most ? end : most;
}

/* Scores of columns (queries) with a page: s[c * 64 + r] = chain over blocks ascending of
   fma(scale × qd, k · q, s), starting at 0, for all 64 positions. */
struct kern_page_scores {
    const int8_t *k;
    const float *scale;
    const void *ahead; /* the page that will be read next (prefetched), or k */
    struct kern_page_shape shape;
    size_t cols;
    const int8_t *q;     /* (cols, d) by to_i8, block by block */
    const float *qd;     /* (cols, blocks) */
    const int32_t *qsum; /* (cols, blocks) */
    float *s;
};

/*
 * Values [at, at + n) of a page, one block, by integer weights q (cols, 64) in [0, 127] with a
 * factor d: o[to[c] * ldo + at + i] = fma(d[c], Σ q k, f), where f is 0, or that o when to[c] is
 * to[c − 1]. The page is read up to 12 values further.
 */
struct kern_page_values {
    const int8_t *k;
    const char *ahead; /* n × 64 bytes to prefetch, or NULL */
    size_t at, n, cols;
    const uint8_t *q;
    const float *d;
    const uint32_t *to;
    float *o;
    size_t ldo;
};

/*
 * Float product of training, over panels that lie as its packing leaves them. Element (k, i) of
 * panel p of w is at w[p * w_panel + k * 16 + i], (k, c) of x at x[c * x_col + k * x_step], where
 * one of the two steps is 1, and (p, c, i) of y at y[p * y_panel + c * y_col + i].
 * y = chain over k ascending of fma(w, x, y), going on from y with `more`, else starting at 0.
 * Panels hold all 16 rows; of y only the first `rows` are read and written.
 *
 * gemm_pairs: elements of w and x are pairs of BF16 values in 32 bits, the first in the low half;
 * the chain of a BF16 product (above).
 */
struct kern_gemm {
    const void *w, *x;
    size_t w_panel;
    size_t x_col, x_step;
    float *y;
    size_t y_panel, y_col;
    size_t rows, k, cols;
    bool more;
};

/*
 * A step of AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019) in the
 * order of PyTorch: g' = g × scale; m = fma(new1, g' − m, m); v = fma(new2 × g', g', v × b2);
 * p = fma(−rate, m / fma(sqrt v, root, eps), p × keep).
 */
struct kern_adamw {
    float scale; /* of gradients: clipping */
    float new1;  /* 1 − β1 */
    float b2;    /* β2 */
    float new2;  /* 1 − β2, of which 1 − b2 would keep few digits */
    float rate;  /* learning rate / (1 − β1^t) */
    float root;  /* 1 / sqrt(1 − β2^t) */
    float eps;
    float keep; /* 1 − learning rate × weight decay */
};

struct kern {
    enum cpu_isa isa;
    struct kern_mul mul[QUANT_ID_MAX]; /* by quant_id; act = KERN_ACT_NONE where there is none */

    /* Columns [col0, col0 + cols) of x (column c at x + c * ldx) into q, d, s, sum of `out`.
       Per block: d = max|x| / 127; q = round-to-nearest-even(x × (127 / max|x|)), zeros when
       max is 0. The rest of the last pair of blocks is zeroed. */
    void (*quantize_q32)(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols);
    /* The same per 256 values into q, d, sum16, sum32. */
    void (*quantize_q256)(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols);
    /* The same rounded to BF16 into h, as f32_to_bf16 does it; zeros beyond k. */
    void (*quantize_bf16)(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols);

    void (*tile[KERN_FLOAT_COUNT])(const struct kern_tile *t);
    void (*dots[KERN_FLOAT_COUNT])(const struct kern_dots *t);

    /* n values to int8 with one scale, which is returned: the rounding of quantize_q32. *sum: of
       the int8 values. */
    float (*to_i8)(int8_t *q, const float *x, size_t n, int32_t *sum);
    void (*page_scores)(const struct kern_page_scores *t);
    /* Weights p of 64 positions times the scales of a block, as 7-bit integers of a common factor:
       w = p × scale; v = w × (127 / max w) in [0, 127]; q = nearest(v), d[0] = max w / 127. With
       `two`, q = nearest(v − 1/2), and what that leaves is kept in q[64…] = nearest((v − q) × 127),
       d[1] = d[0] / 127. */
    void (*page_weights)(uint8_t *q, float *d, const float *p, const float *scale, bool two);
    void (*page_values)(const struct kern_page_values *t);

    /* y = x × w / sqrt(mean(x²) + eps), n values; y may be x. The sum over 16 virtual lanes of
       FMAs; then scale = 1 / sqrtf(sum / n + eps); y = (x × scale) × w. */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);

    /* Rotates n (even) values in place; cs holds n/2 pairs cos, sin. `half`: pair i is
       (x[i], x[i + n/2]) (GPT-NeoX, Hugging Face), else (x[2i], x[2i+1]) (GGUF's llama).
       a' = a·cos − b·sin as fma(a, cos, −(b·sin)); b' = a·sin + b·cos as fma(a, sin, b·cos). */
    void (*rope)(float *x, const float *cs, size_t n, int half);

    /* p[i] = exp(p[i] × scale − m), m = max over i < n of p[i] × scale; returns m, *sum = Σ p over
       16 virtual lanes. n = 0 gives −inf and 0. An input of −inf gives exactly 0. All inputs −inf
       give zeros, m = −inf, sum 0. NaN anywhere gives NaN sum. */
    float (*softmax_part)(float *p, size_t n, float scale, float *sum);

    /* p = exp(p − max) / Σ (one division, then products by its result). In place. */
    void (*softmax)(float *p, size_t n);

    /* y = silu(gate) × up, silu(g) = g / (1 + exp(−g)). y may be gate or up. */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);

    void (*add)(float *y, const float *x, size_t n); /* y += x */
    /* y = fma(y, a, x × b): merging parts of an attention row. */
    void (*merge)(float *y, float a, const float *x, float b, size_t n);
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y = fma(a, x, y) */

    void (*f32_to_f16)(uint16_t *y, const float *x, size_t n);  /* nearest even */
    void (*f32_to_bf16)(uint16_t *y, const float *x, size_t n); /* nearest even, NaN stays NaN */

    /* Bytes of e4m3 as halves of 2^−8 of their value: the same fields, exact. NaN stays NaN. */
    void (*e4m3_to_f16)(uint16_t *y, const uint8_t *x, size_t n);

    /* y = exp(x), n values, by the exp of all of the above; y may be x. */
    void (*exp)(float *y, const float *x, size_t n);

    /* ---- training ---- */

    void (*gemm)(const struct kern_gemm *g);
    void (*gemm_pairs)(const struct kern_gemm *g);
    /* y[i * ldy + j] = x[j * ldx + i] for i, j < 16. */
    void (*transpose)(float *y, size_t ldy, const float *x, size_t ldx);
    /* y[i] = a[i] in the low half, b[i] in the high one, as f32_to_bf16 rounds; b NULL: zeros. */
    void (*pairs)(uint32_t *y, const float *a, const float *b, size_t n);

    /* Σ a b over 16 virtual lanes of FMAs. */
    float (*dot)(const float *a, const float *b, size_t n);
    /* Σ x² over 16 virtual lanes of FMAs in double. */
    double (*squares)(const float *x, size_t n);
    void (*adamw)(float *p, float *m, float *v, const float *g, size_t n,
                  const struct kern_adamw *a);

    /* The way back through rmsnorm: s = 1 / sqrtf(Σ x² / n + eps); t = dy × w;
       c = (s × s) × (s × (Σ t x / n)); dx = dx + fma(t, s, −(x × c)). Returns s. */
    float (*rmsnorm_back)(float *dx, const float *dy, const float *x, const float *w, size_t n,
                          float eps);
    /* y = fma(a, x × s, y): what a row gives the weight of its norm. */
    void (*scaled)(float *y, const float *a, const float *x, float s, size_t n);
    /* The way back through swiglu: r = 1 / (1 + exp(−gate)); h = gate × r; dup = dy × h;
       dgate = (dy × up) × fma(h, 1 − r, r). dgate may be gate and dup up. */
    void (*swiglu_back)(float *dgate, float *dup, const float *dy, const float *gate,
                        const float *up, size_t n);
    /* The way back through softmax: d = p × (d − sum) × scale. */
    void (*softmax_back)(float *d, const float *p, size_t n, float sum, float scale);
};

/* The product by whichever of the two suits `cols`. */
static inline void kern_product(const struct kern_mul *m, float *y, size_t ldy, const uint8_t *w,
                                size_t rows, size_t k, const struct kern_x *x, size_t col0,
                                size_t cols)
{
    (cols == 1 && m->mul_one ? m->mul_one : m->mul)(y, ldy, w, rows, k, x, col0, cols);
}

/* Fills the table for a level; isa must not exceed cpu_best(). */
void kern_init(struct kern *k, enum cpu_isa isa);

/* Takes away the products that read rounded activations. Types that have a product by float
   activations too get that; the weights of the others are decoded to float. */
void kern_float(struct kern *k);

/* Bytes of the arrays of a kern_x for k values and cols columns in form `act`, and their placing
   into memory at `mem` (aligned to KERN_ALIGN). kern_x_place sets k, cols and the pointers, those
   of arrays that the form lacks to NULL. SIZE_MAX bytes mean that the size does not fit. */
size_t kern_x_bytes(enum kern_act act, size_t k, size_t cols);
void kern_x_place(struct kern_x *x, enum kern_act act, size_t k, size_t cols, void *mem);

#endif
