/*
 * The vector kernels in plain C: activation quantization, the strided float product of attention,
 * norms, rotary embedding, softmax, SwiGLU and conversions.
 *
 * This file is the definition: what it computes, in which order and with which roundings, is what
 * every other version must give bit for bit. So each function is a fixed sequence of IEEE
 * operations, FMAs are written as fmaf, and reductions run over 16 virtual lanes (kern.h). Built
 * without contraction and without reassociation, any compiler gives these bits.
 *
 * Speed is not its business beyond being usable where there is no vector unit.
 */
#include "base/num.h"
#include "kernels/kern_internal.h"
#include "kernels/scalar/kern_math.h"

#include <float.h>
#include <math.h>

enum { LANES = KERN_ROWS }; /* virtual lanes of a reduction */

/* ---- activations to int8 ---- */

/*
 * Scale of n values: max|x| / 127 is returned, *inv is what to multiply by. Magnitudes are compared
 * as integers, where NaN is above infinity: a block with a NaN gets a NaN scale, one with an
 * infinity an infinite one, so neither can go unnoticed. Where 127 / max overflows, all becomes 0.
 */
static float block_scale(const float *x, size_t n, float *inv)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t a = kern_bits(x[i]) & 0x7fffffff;
        max = a > max ? a : max;
    }
    float m = kern_float_of(max), v = 127.0f / m;
    *inv = v <= FLT_MAX ? v : 0.0f;
    return m / 127.0f;
}

/* Nearest even; the product is within ±127 but for infinities and NaN, which the bound catches. */
static int8_t quantize_one(float x, float inv)
{
    float v = x * inv;
    v = v > -127.0f ? v : -127.0f;
    v = v < 127.0f ? v : 127.0f;
    return (int8_t)(v + KERN_EXP_MAGIC - KERN_EXP_MAGIC);
}

/* n ≤ 32 values to 32 bytes, zeros behind; returns the sum. */
static int32_t quantize_32(int8_t *q, const float *x, size_t n, float inv)
{
    int32_t sum = 0;
    for (size_t i = 0; i < 32; i++) {
        q[i] = i < n ? quantize_one(x[i], inv) : 0;
        sum += q[i];
    }
    return sum;
}

static void quantize_q32(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    size_t blocks = num_round_up(out->k, 64) / 32;
    for (size_t c = col0; c < col0 + cols; c++)
        for (size_t b = 0; b < blocks; b++) {
            size_t at = b * out->cols + c, k0 = num_min(b * 32, out->k);
            size_t n = num_min(out->k - k0, 32);
            const float *p = x + c * ldx + k0;
            float inv, d = block_scale(p, n, &inv);
            int32_t sum = quantize_32(out->q + at * 32, p, n, inv);
            out->d[at] = d;
            out->sum[at] = sum;
            out->s[at] = d * (float)sum;
        }
}

static void quantize_q256(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    size_t blocks = num_round_up(out->k, 256) / 256;
    for (size_t c = col0; c < col0 + cols; c++)
        for (size_t b = 0; b < blocks; b++) {
            size_t at = b * out->cols + c, n = num_min(out->k - b * 256, 256);
            const float *p = x + c * ldx + b * 256;
            float inv;
            out->d[at] = block_scale(p, n, &inv);
            for (size_t i = 0; i < 8; i++) {
                int8_t *q = out->q + ((b * 8 + i) * out->cols + c) * 32;
                size_t done = num_min(i * 32, n);
                int32_t sum = quantize_32(q, p + done, num_min(n - done, 32), inv), low = 0;
                for (size_t j = 0; j < 16; j++)
                    low += q[j];
                out->sum16[at * 16 + 2 * i] = (int16_t)low;
                out->sum16[at * 16 + 2 * i + 1] = (int16_t)(sum - low);
                out->sum32[at * 8 + i] = (int16_t)sum;
            }
        }
}

static void quantize_bf16(struct kern_x *out, const float *x, size_t ldx, size_t col0, size_t cols)
{
    for (size_t c = col0; c < col0 + cols; c++)
        for (size_t i = 0; i < num_round_up(out->k, 32); i++)
            out->h[(i / 32 * out->cols + c) * 32 + i % 32] =
                i < out->k ? quant_f32_to_bf16(x[c * ldx + i]) : 0;
}

/* ---- strided float product ---- */

static float load_f32(const void *w, size_t i)
{
    return ((const float *)w)[i];
}

static float load_f16(const void *w, size_t i)
{
    return quant_f16_to_f32(((const uint16_t *)w)[i]);
}

static float load_bf16(const void *w, size_t i)
{
    return kern_float_of((uint32_t)((const uint16_t *)w)[i] << 16);
}

static inline void tile(const struct kern_tile *t, float (*load)(const void *, size_t))
{
    for (size_t c = 0; c < t->cols; c++)
        for (size_t r = 0; r < t->rows; r++) {
            size_t at = r / KERN_ROWS * t->panel_step + r % KERN_ROWS;
            float f = 0;
            for (size_t k = 0; k < t->k; k++)
                f = fmaf(load(t->w, at + k * t->k_step), t->x[c * t->ldx + k], f);
            t->y[c * t->ldy + r] = f;
        }
}

static void tile_f32(const struct kern_tile *t)
{
    tile(t, load_f32);
}

static void tile_f16(const struct kern_tile *t)
{
    tile(t, load_f16);
}

static void tile_bf16(const struct kern_tile *t)
{
    tile(t, load_bf16);
}

/* ---- dot products of rows ---- */

static inline void dots(const struct kern_dots *t, float (*load)(const void *, size_t))
{
    for (size_t c = 0; c < t->cols; c++)
        for (size_t r = 0; r < t->rows; r++) {
            float l[LANES] = {0};
            for (size_t k = 0; k < num_round_up(t->k, LANES); k++) {
                float w = k < t->k ? load(t->w, r * t->step + k) : 0;
                l[k % LANES] = fmaf(w, k < t->k ? t->x[c * t->ldx + k] : 0, l[k % LANES]);
            }
            t->y[c * t->ldy + r] = kern_lanes_sum(l);
        }
}

static void dots_f32(const struct kern_dots *t)
{
    dots(t, load_f32);
}

static void dots_f16(const struct kern_dots *t)
{
    dots(t, load_f16);
}

static void dots_bf16(const struct kern_dots *t)
{
    dots(t, load_bf16);
}

/* ---- rows ---- */

static void rmsnorm(float *y, const float *x, const float *w, size_t n, float eps)
{
    float l[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        l[i % LANES] = fmaf(x[i], x[i], l[i % LANES]);
    float scale = 1.0f / sqrtf(kern_lanes_sum(l) / (float)n + eps);
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * scale * w[i];
}

static void rope(float *x, const float *cs, size_t n, int half)
{
    size_t pairs = n / 2, step = half ? 1 : 2, apart = half ? pairs : 1;
    for (size_t i = 0; i < pairs; i++) {
        float a = x[i * step], b = x[i * step + apart], c = cs[2 * i], s = cs[2 * i + 1];
        x[i * step] = fmaf(a, c, -(b * s));
        x[i * step + apart] = fmaf(a, s, b * c);
    }
}

/*
 * A comparison with NaN is false, so the maximum is that of the numbers, and a NaN shows in the
 * sum. Adding 0 turns a maximum of −0 into +0: which of the two zeros came first must not matter.
 * A row of −inf is shifted by 0 instead of −inf, which would give NaN.
 */
static float softmax_part(float *p, size_t n, float scale, float *sum)
{
    float m = -INFINITY, l[LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        float t = p[i] * scale;
        m = t > m ? t : m;
    }
    m += 0.0f;
    float shift = m == -INFINITY ? 0.0f : m;
    for (size_t i = 0; i < n; i++) {
        p[i] = kern_exp(p[i] * scale - shift);
        l[i % LANES] += p[i];
    }
    *sum = kern_lanes_sum(l);
    return m;
}

static void softmax(float *p, size_t n)
{
    float sum;
    softmax_part(p, n, 1.0f, &sum);
    float inv = 1.0f / sum;
    for (size_t i = 0; i < n; i++)
        p[i] *= inv;
}

static void swiglu(float *y, const float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = kern_silu(gate[i]) * up[i];
}

static void add(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void merge(float *y, float a, const float *x, float b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(y[i], a, x[i] * b);
}

static void axpy(float *y, float a, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(a, x[i], y[i]);
}

static void f32_to_f16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = quant_f32_to_f16(x[i]);
}

static void f32_to_bf16(uint16_t *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = quant_f32_to_bf16(x[i]);
}

static void e4m3_to_f16(uint16_t *y, const uint8_t *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned v = x[i], nan = (v & 0x7f) == 0x7f ? 0x7e00 : 0;
        y[i] = (uint16_t)((v & 0x80) << 8 | (v & 0x7f) << 7 | nan);
    }
}

static void exp_all(float *y, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = kern_exp(x[i]);
}

void kern_init_scalar_vec(struct kern *k)
{
    k->quantize_q32 = quantize_q32;
    k->quantize_q256 = quantize_q256;
    k->quantize_bf16 = quantize_bf16;
    k->tile[KERN_F32] = tile_f32;
    k->tile[KERN_F16] = tile_f16;
    k->tile[KERN_BF16] = tile_bf16;
    k->dots[KERN_F32] = dots_f32;
    k->dots[KERN_F16] = dots_f16;
    k->dots[KERN_BF16] = dots_bf16;
    k->rmsnorm = rmsnorm;
    k->rope = rope;
    k->softmax_part = softmax_part;
    k->softmax = softmax;
    k->swiglu = swiglu;
    k->add = add;
    k->merge = merge;
    k->axpy = axpy;
    k->f32_to_f16 = f32_to_f16;
    k->f32_to_bf16 = f32_to_bf16;
    k->e4m3_to_f16 = e4m3_to_f16;
    k->exp = exp_all;
}
