/*
 * Latents of MLA in int8: attention's two products as integer products.
 *
 * Absorbed attention is bound by arithmetic, not by memory: all heads meet the same latents, so a
 * position takes 2 · heads · (d_k + d_v) operations for d_k values that are read. Integer products
 * do four times as many a cycle as float ones. DeepSeek stores these latents in FP8 with a scale
 * per 128 values (FlashMLA); int8 takes as much memory and rounds a quarter as coarsely. So keys
 * have int8 values with a scale per 128; queries are rounded the same way. Where a page ends a
 * block (its scales) is defined by the position of the value, so the rotated part has its own.
 *
 * Weights of a page are integers from 0 to 127 of their largest. Where few positions carry a page
 * (Σ p < 16, p = 1 the largest) the others would lose too much by that: then what the rounding left
 * is a second column of integers, 127 times finer. Which of the two happens depends on the query
 * and the page alone.
 */
#include "tensor/latent.h"

#include "base/num.h"

#include <string.h>

#define LATENT_SPREAD 16.0f /* sum of weights from which on one integer each is enough */

static const float *latent_scales(const uint8_t *page, size_t d_k)
{
    return (const float *)(const void *)(page + d_k * KERN_LATENT_ROWS);
}

bool latent_page_bytes(size_t d_k, size_t d_v, size_t *bytes)
{
    if (d_k % 4 || d_v % 4 || d_v > d_k || d_k > 1 << 16)
        return false;
    *bytes = KERN_LATENT_ROWS * (d_k + kern_latent_blocks(d_k, d_v) * sizeof(float));
    return true;
}

void latent_store(const struct kern *kern, uint8_t *page, size_t at, const float *x, size_t d_k,
                  size_t d_v)
{
    float *scale = (float *)(void *)(page + d_k * KERN_LATENT_ROWS);
    for (size_t b = 0, d = 0, end; d < d_k; b++, d = end) {
        int8_t q[KERN_LATENT_BLOCK];
        int32_t sum;
        end = kern_latent_end(d_k, d_v, d);
        scale[b * KERN_LATENT_ROWS + at] = kern->to_i8(q, x + d, end - d, &sum);
        for (size_t i = d; i < end; i += 4)
            memcpy(page + (i / 4 * KERN_LATENT_ROWS + at) * 4, q + i - d, 4);
    }
}

void latent_load(const uint8_t *page, size_t at, float *x, size_t d_k, size_t d_v)
{
    const float *scale = latent_scales(page, d_k);
    for (size_t b = 0, d = 0, end; d < d_k; b++, d = end) {
        end = kern_latent_end(d_k, d_v, d);
        for (size_t i = d; i < end; i++)
            x[i] = scale[b * KERN_LATENT_ROWS + at] *
                   (int8_t)page[(i / 4 * KERN_LATENT_ROWS + at) * 4 + i % 4];
    }
}

size_t latent_cols_floats(size_t d_k, size_t d_v, size_t cols)
{
    size_t blocks = kern_latent_blocks(d_k, d_v);
    return cols * (d_k / 4 + 2 * blocks + 2 * KERN_LATENT_ROWS / 4 + 4);
}

void latent_cols_place(struct latent_cols *l, size_t d_k, size_t d_v, size_t cols, float *mem)
{
    size_t blocks = kern_latent_blocks(d_k, d_v);
    *l = (struct latent_cols){.d_k = d_k, .d_v = d_v, .cols = cols};
    l->qd = mem;
    l->qsum = (int32_t *)(void *)(l->qd + cols * blocks);
    l->pd = mem + 2 * cols * blocks;
    l->to = (uint32_t *)(void *)(l->pd + 2 * cols);
    l->q = (int8_t *)(l->to + 2 * cols);
    l->p = (uint8_t *)l->q + cols * d_k;
}

void latent_query(const struct kern *kern, struct latent_cols *l, size_t c, const float *x)
{
    size_t blocks = kern_latent_blocks(l->d_k, l->d_v);
    for (size_t b = 0, d = 0, end; d < l->d_k; b++, d = end) {
        end = kern_latent_end(l->d_k, l->d_v, d);
        l->qd[c * blocks + b] =
            kern->to_i8(l->q + c * l->d_k + d, x + d, end - d, &l->qsum[c * blocks + b]);
    }
}

void latent_page_scores(const struct kern *kern, const struct latent_cols *l, const uint8_t *page,
                        const uint8_t *ahead, float *s)
{
    kern->latent_scores(&(struct kern_latent){.k = (const int8_t *)page,
                                              .scale = latent_scales(page, l->d_k),
                                              .ahead = ahead ? ahead : page,
                                              .d_k = l->d_k,
                                              .d_v = l->d_v,
                                              .cols = l->cols,
                                              .q = l->q,
                                              .qd = l->qd,
                                              .qsum = l->qsum,
                                              .s = s});
}

void latent_page_values(const struct kern *kern, const struct latent_cols *l, const uint8_t *page,
                        const float *p, const float *sum, float *o)
{
    const float *scale = latent_scales(page, l->d_k);
    struct kern_latent_values t = {
        .k = (const int8_t *)page, .q = l->p, .d = l->pd, .to = l->to, .o = o, .ldo = l->d_v};
    for (size_t b = 0; t.at < l->d_v; b++, t.at += t.n) {
        t.n = kern_latent_end(l->d_k, l->d_v, t.at) - t.at;
        t.cols = 0;
        for (size_t c = 0; c < l->cols; c++) {
            bool two = !(sum[c] >= LATENT_SPREAD);
            kern->latent_weights(l->p + t.cols * KERN_LATENT_ROWS, l->pd + t.cols,
                                 p + c * KERN_LATENT_ROWS, scale + b * KERN_LATENT_ROWS, two);
            l->to[t.cols++] = (uint32_t)c;
            if (two)
                l->to[t.cols++] = (uint32_t)c;
        }
        kern->latent_values(&t);
    }
}
