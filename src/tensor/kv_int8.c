/*
 * An int8 KV cache: attention's two products as integer products.
 *
 * Absorbed latent attention is bound by arithmetic, not by memory: all heads meet the same latents,
 * so a position takes 2 · heads · (d_k + d_v) operations for d_k values that are read. Integer
 * products do four times as many a cycle as float ones. DeepSeek serves these latents in FP8 with a
 * scale per 128 values (FlashMLA); int8 takes as much memory and rounds a quarter as coarsely. So
 * latents are int8 with a scale per 128, where the rotated part has blocks of its own; queries are
 * rounded the same way. Keys of heads have a scale per 32 (those of some models have values that
 * are far larger than the rest, which should spoil few others), their values per 128.
 *
 * Weights of a page are integers from 0 to 127 of their largest. Where few positions carry a page
 * (Σ p < 16, p = 1 the largest) the others would lose too much by that: then what the rounding left
 * is a second column of integers, 127 times finer. Which of the two happens depends on the query
 * and the page alone.
 */
#include "tensor/kv_int8.h"

#include "base/num.h"

#include <string.h>

#define KV_INT8_SPREAD 16.0f /* sum of weights from which on one integer each is enough */

struct kern_page_shape kv_int8_k(const struct kv_shape *s)
{
    return (struct kern_page_shape){s->d_k, s->latent ? s->d_v : s->d_k,
                                    s->latent ? KERN_PAGE_BLOCK : 32};
}

struct kern_page_shape kv_int8_v(const struct kv_shape *s)
{
    return (struct kern_page_shape){s->latent ? s->d_k : s->d_v, s->d_v, KERN_PAGE_BLOCK};
}

bool kv_int8_bytes(const struct kern_page_shape *s, size_t *bytes)
{
    if (s->d % 4 || s->front % 4 || s->front > s->d || s->d > 1 << 16)
        return false;
    *bytes = KERN_PAGE_ROWS * (s->d + kern_page_blocks(s) * sizeof(float));
    return true;
}

static const float *kv_int8_scales(const struct kern_page_shape *s, const uint8_t *page)
{
    return (const float *)(const void *)(page + s->d * KERN_PAGE_ROWS);
}

void kv_int8_store(const struct kern *kern, const struct kern_page_shape *s, uint8_t *page,
                   size_t at, const float *x)
{
    float *scale = (float *)(void *)(page + s->d * KERN_PAGE_ROWS);
    for (size_t b = 0, d = 0, end; d < s->d; b++, d = end) {
        int8_t q[KERN_PAGE_BLOCK];
        int32_t sum;
        end = kern_page_end(s, d);
        scale[b * KERN_PAGE_ROWS + at] = kern->to_i8(q, x + d, end - d, &sum);
        for (size_t i = d; i < end; i += 4)
            memcpy(page + (i / 4 * KERN_PAGE_ROWS + at) * 4, q + i - d, 4);
    }
}

void kv_int8_load(const struct kern_page_shape *s, const uint8_t *page, size_t at, float *x)
{
    const float *scale = kv_int8_scales(s, page);
    for (size_t b = 0, d = 0, end; d < s->d; b++, d = end) {
        end = kern_page_end(s, d);
        for (size_t i = d; i < end; i++)
            x[i] = scale[b * KERN_PAGE_ROWS + at] *
                   (int8_t)page[(i / 4 * KERN_PAGE_ROWS + at) * 4 + i % 4];
    }
}

size_t kv_int8_floats(size_t d_k, size_t cols)
{
    size_t blocks = d_k / 32 + 2;
    return cols * (d_k / 4 + 1 + 2 * blocks + 2 * KERN_PAGE_ROWS / 4 + 4);
}

void kv_int8_place(struct kv_int8_cols *l, const struct kv_shape *s, size_t cols, float *mem)
{
    *l = (struct kv_int8_cols){.k = kv_int8_k(s), .v = kv_int8_v(s), .cols = cols};
    size_t blocks = kern_page_blocks(&l->k);
    l->qd = mem;
    l->qsum = (int32_t *)(void *)(l->qd + cols * blocks);
    l->pd = mem + 2 * cols * blocks;
    l->to = (uint32_t *)(void *)(l->pd + 2 * cols);
    l->q = (int8_t *)(l->to + 2 * cols);
    l->p = (uint8_t *)l->q + cols * l->k.d;
}

void kv_int8_query(const struct kern *kern, struct kv_int8_cols *l, size_t c, const float *x)
{
    size_t blocks = kern_page_blocks(&l->k);
    for (size_t b = 0, d = 0, end; d < l->k.d; b++, d = end) {
        size_t i = c * blocks + b;
        end = kern_page_end(&l->k, d);
        l->qd[i] = kern->to_i8(l->q + c * l->k.d + d, x + d, end - d, &l->qsum[i]);
    }
}

void kv_int8_scores(const struct kern *kern, const struct kv_int8_cols *l, const uint8_t *page,
                    const uint8_t *ahead, float *s)
{
    kern->page_scores(&(struct kern_page_scores){.k = (const int8_t *)page,
                                                 .scale = kv_int8_scales(&l->k, page),
                                                 .ahead = ahead ? ahead : page,
                                                 .shape = l->k,
                                                 .cols = l->cols,
                                                 .q = l->q,
                                                 .qd = l->qd,
                                                 .qsum = l->qsum,
                                                 .s = s});
}

void kv_int8_values(const struct kern *kern, const struct kv_int8_cols *l, const uint8_t *page,
                    const uint8_t *ahead, const float *p, const float *sum, float *o)
{
    const float *scale = kv_int8_scales(&l->v, page);
    struct kern_page_values t = {
        .k = (const int8_t *)page, .q = l->p, .d = l->pd, .to = l->to, .o = o, .ldo = l->v.front};
    for (size_t b = 0; t.at < l->v.front; b++, t.at += t.n) {
        t.n = kern_page_end(&l->v, t.at) - t.at;
        t.cols = 0;
        t.ahead = ahead ? (const char *)ahead + t.at * KERN_PAGE_ROWS : NULL;
        for (size_t c = 0; c < l->cols; c++) {
            bool two = !(sum[c] >= KV_INT8_SPREAD);
            kern->page_weights(l->p + t.cols * KERN_PAGE_ROWS, l->pd + t.cols,
                               p + c * KERN_PAGE_ROWS, scale + b * KERN_PAGE_ROWS, two);
            l->to[t.cols++] = (uint32_t)c;
            if (two)
                l->to[t.cols++] = (uint32_t)c;
        }
        kern->page_values(&t);
    }
}
