/*
 * The kernels of training in plain C, which are their definition (kern.h): the products of the way
 * back and their packing, the optimizer's step, and the way back through norms, softmax and SwiGLU.
 */
#include "kernels/kern_internal.h"
#include "kernels/scalar/kern_math.h"

#include <float.h>
#include <math.h>

enum { LANES = KERN_ROWS };

/* ---- products ---- */

static float value(const void *p, size_t i)
{
    return ((const float *)p)[i];
}

/* The value of half `high` of pair i; below the normal numbers: zero. */
static float half(const void *p, size_t i, int high)
{
    uint32_t u = ((const uint32_t *)p)[i];
    return kern_flush(kern_float_of(high ? u & 0xffff0000u : u << 16));
}

static float step(const void *w, size_t at, const void *x, size_t of, float f)
{
    return fmaf(value(w, at), value(x, of), f);
}

static float step_pair(const void *w, size_t at, const void *x, size_t of, float f)
{
    for (int high = 1; high >= 0; high--)
        f = kern_step_flushed(half(w, at, high), half(x, of, high), f);
    return f;
}

static inline void product(const struct kern_gemm *g,
                           float (*add)(const void *, size_t, const void *, size_t, float))
{
    for (size_t c = 0; c < g->cols; c++)
        for (size_t r = 0; r < g->rows; r++) {
            size_t p = r / KERN_ROWS, i = r % KERN_ROWS;
            float *y = g->y + p * g->y_panel + c * g->y_col + i, f = g->more ? *y : 0;
            for (size_t k = 0; k < g->k; k++)
                f = add(g->w, p * g->w_panel + k * KERN_ROWS + i, g->x,
                        c * g->x_col + k * g->x_step, f);
            *y = f;
        }
}

static void gemm(const struct kern_gemm *g)
{
    product(g, step);
}

static void gemm_pairs(const struct kern_gemm *g)
{
    product(g, step_pair);
}

static void transpose(float *y, size_t ldy, const float *x, size_t ldx)
{
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 16; j++)
            y[i * ldy + j] = x[j * ldx + i];
}

static void pairs(uint32_t *y, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = quant_f32_to_bf16(a[i]) | (b ? (uint32_t)quant_f32_to_bf16(b[i]) << 16 : 0);
}

/* ---- sums ---- */

static float dot(const float *a, const float *b, size_t n)
{
    float l[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        l[i % LANES] = fmaf(a[i], b[i], l[i % LANES]);
    return kern_lanes_sum(l);
}

static double squares(const float *x, size_t n)
{
    double l[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        l[i % LANES] = fma(x[i], x[i], l[i % LANES]);
    for (size_t s = LANES / 2; s > 0; s /= 2)
        for (size_t i = 0; i < s; i++)
            l[i] += l[i + s];
    return l[0];
}

/* ---- elements ---- */

static void adamw(float *p, float *m, float *v, const float *g, size_t n,
                  const struct kern_adamw *a)
{
    for (size_t i = 0; i < n; i++) {
        float s = g[i] * a->scale;
        m[i] = fmaf(a->new1, s - m[i], m[i]);
        v[i] = fmaf(a->new2 * s, s, v[i] * a->b2);
        p[i] = fmaf(-a->rate, m[i] / fmaf(sqrtf(v[i]), a->root, a->eps), p[i] * a->keep);
    }
}

static float rmsnorm_back(float *dx, const float *dy, const float *x, const float *w, size_t n,
                          float eps)
{
    float l[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        l[i % LANES] = fmaf(dy[i] * w[i], x[i], l[i % LANES]);
    float s = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    float c = (s * s) * (s * (kern_lanes_sum(l) / (float)n));
    for (size_t i = 0; i < n; i++)
        dx[i] += fmaf(dy[i] * w[i], s, -(x[i] * c));
    return s;
}

static void scaled(float *y, const float *a, const float *x, float s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(a[i], x[i] * s, y[i]);
}

static void swiglu_back(float *dgate, float *dup, const float *dy, const float *gate,
                        const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float r = 1.0f / (1.0f + kern_exp(-gate[i])), h = gate[i] * r;
        float d = dy[i] * up[i];
        dup[i] = dy[i] * h;
        dgate[i] = d * fmaf(h, 1.0f - r, r);
    }
}

static void softmax_back(float *d, const float *p, size_t n, float sum, float scale)
{
    for (size_t i = 0; i < n; i++)
        d[i] = p[i] * (d[i] - sum) * scale;
}

void kern_init_scalar_train(struct kern *k)
{
    k->gemm = gemm;
    k->gemm_pairs = gemm_pairs;
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
