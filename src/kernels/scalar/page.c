/*
 * Attention over int8 pages: the definition of kern.page_scores, page_weights and
 * page_values in plain C (kern.h has the layouts). Products are integers, so their order is free;
 * everything around them is a fixed sequence of IEEE operations.
 */
#include "base/num.h"
#include "kernels/kern_internal.h"
#include "kernels/scalar/kern_math.h"

#include <float.h>

enum { POSITIONS = KERN_PAGE_ROWS };

static float nearest(float v)
{
    return v + KERN_EXP_MAGIC - KERN_EXP_MAGIC;
}

static float to_i8(int8_t *q, const float *x, size_t n, int32_t *sum)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = kern_bits(x[i]) & 0x7fffffff;
        max = a > max ? a : max;
    }
    float m = kern_float_of(max), inv = 127.0f / m;
    inv = inv <= FLT_MAX ? inv : 0.0f;
    *sum = 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * inv;
        v = v > -127.0f ? v : -127.0f;
        v = v < 127.0f ? v : 127.0f;
        q[i] = (int8_t)nearest(v);
        *sum += q[i];
    }
    return m / 127.0f;
}

static void page_scores(const struct kern_page_scores *t)
{
    size_t blocks = kern_page_blocks(&t->shape);
    for (size_t c = 0; c < t->cols; c++)
        for (size_t r = 0; r < POSITIONS; r++) {
            float f = 0;
            for (size_t b = 0, at = 0, end; b < blocks; b++, at = end) {
                int32_t sum = 0;
                end = kern_page_end(&t->shape, at);
                for (size_t d = at; d < end; d++)
                    sum += t->k[(d / 4 * POSITIONS + r) * 4 + d % 4] * t->q[c * t->shape.d + d];
                f = fmaf(t->scale[b * POSITIONS + r] * t->qd[c * blocks + b], (float)sum, f);
            }
            t->s[c * POSITIONS + r] = f;
        }
}

static void page_weights(uint8_t *q, float *d, const float *p, const float *scale, bool two)
{
    float w[POSITIONS], m = 0;
    for (size_t r = 0; r < POSITIONS; r++) {
        w[r] = p[r] * scale[r];
        m = w[r] > m ? w[r] : m;
    }
    float inv = 127.0f / m;
    inv = inv <= FLT_MAX ? inv : 0.0f;
    d[0] = m / 127.0f;
    if (two)
        d[1] = d[0] / 127.0f;
    for (size_t r = 0; r < POSITIONS; r++) {
        float v = w[r] * inv;
        v = v > 0.0f ? v : 0.0f;
        v = v < 127.0f ? v : 127.0f;
        float first = nearest(two ? v - 0.5f : v);
        q[r] = (uint8_t)first;
        if (two)
            q[POSITIONS + r] = (uint8_t)nearest((v - first) * 127.0f);
    }
}

static void page_values(const struct kern_page_values *t)
{
    for (size_t c = 0; c < t->cols; c++)
        for (size_t i = 0; i < t->n; i++) {
            size_t d = t->at + i;
            int32_t sum = 0;
            for (size_t r = 0; r < POSITIONS; r++)
                sum += t->q[c * POSITIONS + r] * t->k[(d / 4 * POSITIONS + r) * 4 + d % 4];
            float *o = t->o + t->to[c] * t->ldo + d;
            *o = fmaf(t->d[c], (float)sum, c > 0 && t->to[c] == t->to[c - 1] ? *o : 0.0f);
        }
}

void kern_init_scalar_page(struct kern *k)
{
    k->to_i8 = to_i8;
    k->page_scores = page_scores;
    k->page_weights = page_weights;
    k->page_values = page_values;
}
