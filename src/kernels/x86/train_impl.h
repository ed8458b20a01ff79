/*
 * The elementwise kernels of training and their sums, written once for all x86 instruction sets
 * over `struct lanes` (vec_impl.h); scalar/train.c is the definition.
 *
 * Needed beyond what vec_impl.h names: lanes_sqrt; struct doubles (16 of them) with doubles_zero,
 * doubles_square(sum, v) and doubles_sum, the tree.
 */
#ifndef PONDER_KERNELS_X86_TRAIN_IMPL_H
#define PONDER_KERNELS_X86_TRAIN_IMPL_H

#include "kernels/x86/exp_impl.h"

enum { LANES = KERN_ROWS };

/* a's first n lanes: all of them for n ≥ 16. */
KERN_INLINE struct lanes some(const float *p, size_t n)
{
    return n >= LANES ? lanes_load(p) : lanes_load_n(p, n);
}

KERN_INLINE void put(float *p, struct lanes v, size_t n)
{
    if (n >= LANES)
        lanes_store(p, v);
    else
        lanes_store_n(p, v, n);
}

/* Full vectors and the rest with one body: `n` is how many lanes count. */
#define EACH(i, left, total) \
    for (size_t i = 0, left = (total); left > 0; i += LANES, left -= left < LANES ? left : LANES)

static void pairs(uint32_t *y, const float *a, const float *b, size_t n)
{
    EACH(i, left, n)
    {
        __m256i lo = lanes_to_bf16(some(a + i, left)), hi = _mm256_setzero_si256();
        if (b)
            hi = lanes_to_bf16(some(b + i, left));
        __m256i even = _mm256_unpacklo_epi16(lo, hi), odd = _mm256_unpackhi_epi16(lo, hi);
        __m256i first = _mm256_permute2x128_si256(even, odd, 0x20);
        __m256i second = _mm256_permute2x128_si256(even, odd, 0x31);
        uint32_t rest[LANES], *to = left >= LANES ? y + i : rest;
        _mm256_storeu_si256((__m256i *)to, first);
        _mm256_storeu_si256((__m256i *)(to + 8), second);
        if (left < LANES)
            memcpy(y + i, rest, left * sizeof *y);
    }
}

/* l += a b, of n lanes; the others stay as they are, since +0 added to −0 would change it. */
KERN_INLINE struct lanes sum_of(struct lanes l, struct lanes a, struct lanes b, size_t n)
{
    struct lanes s = lanes_fma(a, b, l);
    return n >= LANES ? s : lanes_first(s, l, n);
}

static float dot(const float *a, const float *b, size_t n)
{
    struct lanes l = lanes_set(0.0f);
    EACH(i, left, n)
    l = sum_of(l, some(a + i, left), some(b + i, left), left);
    return lanes_sum(l);
}

static double squares(const float *x, size_t n)
{
    struct doubles l = doubles_zero();
    EACH(i, left, n)
    l = doubles_square(l, some(x + i, left)); /* + 0 × 0: sums are never −0 */
    return doubles_sum(l);
}

static void adamw(float *p, float *m, float *v, const float *g, size_t n,
                  const struct kern_adamw *a)
{
    const struct lanes new1 = lanes_set(a->new1), new2 = lanes_set(a->new2);
    const struct lanes scale = lanes_set(a->scale), b2 = lanes_set(a->b2);
    const struct lanes rate = lanes_set(a->rate), root = lanes_set(a->root);
    const struct lanes eps = lanes_set(a->eps), keep = lanes_set(a->keep);
    EACH(i, left, n)
    {
        struct lanes s = lanes_mul(some(g + i, left), scale), f = some(m + i, left);
        f = lanes_fma(new1, lanes_sub(s, f), f);
        put(m + i, f, left);
        struct lanes q = lanes_mul(some(v + i, left), b2);
        q = lanes_fma(lanes_mul(new2, s), s, q);
        put(v + i, q, left);
        struct lanes step = lanes_div(f, lanes_fma(lanes_sqrt(q), root, eps));
        put(p + i, lanes_fnma(rate, step, lanes_mul(some(p + i, left), keep)), left);
    }
}

static float rmsnorm_back(float *dx, const float *dy, const float *x, const float *w, size_t n,
                          float eps)
{
    struct lanes l = lanes_set(0.0f), sq = l;
    EACH(i, left, n)
    {
        struct lanes v = some(x + i, left), t = lanes_mul(some(dy + i, left), some(w + i, left));
        l = sum_of(l, t, v, left);
        sq = sum_of(sq, v, v, left);
    }
    float s = 1.0f / sqrtf(lanes_sum(sq) / (float)n + eps);
    float c = (s * s) * (s * (lanes_sum(l) / (float)n));
    const struct lanes vs = lanes_set(s), vc = lanes_set(c);
    EACH(i, left, n)
    {
        struct lanes t = lanes_mul(some(dy + i, left), some(w + i, left));
        struct lanes d = lanes_fma(t, vs, lanes_neg(lanes_mul(some(x + i, left), vc)));
        put(dx + i, lanes_add(some(dx + i, left), d), left);
    }
    return s;
}

static void scaled(float *y, const float *a, const float *x, float s, size_t n)
{
    const struct lanes vs = lanes_set(s);
    EACH(i, left, n)
    put(y + i, lanes_fma(some(a + i, left), lanes_mul(some(x + i, left), vs), some(y + i, left)),
        left);
}

static void swiglu_back(float *dgate, float *dup, const float *dy, const float *gate,
                        const float *up, size_t n)
{
    const struct lanes one = lanes_set(1.0f);
    EACH(i, left, n)
    {
        struct lanes g = some(gate + i, left), d = some(dy + i, left);
        struct lanes r = lanes_div(one, lanes_add(one, lanes_exp(lanes_neg(g))));
        struct lanes h = lanes_mul(g, r), t = lanes_mul(d, some(up + i, left));
        put(dup + i, lanes_mul(d, h), left);
        put(dgate + i, lanes_mul(t, lanes_fma(h, lanes_sub(one, r), r)), left);
    }
}

static void softmax_back(float *d, const float *p, size_t n, float sum, float scale)
{
    const struct lanes s = lanes_set(sum), f = lanes_set(scale);
    EACH(i, left, n)
    {
        struct lanes t = lanes_sub(some(d + i, left), s);
        put(d + i, lanes_mul(lanes_mul(some(p + i, left), t), f), left);
    }
}

KERN_INLINE void train_init(struct kern *k)
{
    k->transpose = transpose;
    k->pairs = pairs;
    k->dot = dot;
    k->squares = squares;
    k->adamw = adamw;
    k->rmsnorm_back = rmsnorm_back;
    k->scaled = scaled;
    k->swiglu_back = swiglu_back;
    k->softmax_back = softmax_back;
}

#endif
