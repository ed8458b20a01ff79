/*
 * Four-bit floats with shared scales. A code is e2m1 of the OCP microscaling specification: ±0,
 * 0.5, 1, 1.5, 2, 3, 4, 6. The tables hold twice these values, the scales half, so that all factors
 * are integers times a scale.
 *
 *   MXFP4  scale e8m0 1 | 16 bytes: value j in the low, j + 16 in the high nibble (32 values)
 *   NVFP4  4 scales e4m3 (without sign) | 4 × 8 bytes, as above within 16 values (64 values)
 */
#include "quant/q_impl.h"
#include "quant/q_search.h"
#include "quant/q_vec.h"

#include <float.h>
#include <math.h>

static const int8_t e2m1_doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Half of 2^(e − 127). 255 has no special meaning here: it is 2^127. */
static inline float half_e8m0(uint8_t e)
{
    uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof(f));
    return f;
}

/* Half of an e4m3 scale; the sign bit is ignored, and 0x7F (NaN in e4m3) is 0. */
static inline float half_ue4m3(uint8_t v)
{
    int e = v >> 3 & 15, m = v & 7;
    if (v == 0x7F)
        return 0;
    float raw = e ? (1.0f + (float)m / 8) * (float)(1 << e) * 0x1p-7f : (float)m * 0x1p-9f;
    return raw * 0.5f;
}

void q_mxfp4_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 32; n -= 32, p += 17, dst += 32) {
        float d = half_e8m0(p[0]);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)e2m1_doubled[p[1 + i] & 15];
            dst[i + 16] = d * (float)e2m1_doubled[p[1 + i] >> 4];
        }
    }
}

void q_nvfp4_decode(float *dst, const void *src, size_t n)
{
    const uint8_t *p = src;
    for (; n >= 64; n -= 64, p += 36) {
        for (int s = 0; s < 4; s++, dst += 16) {
            float d = half_ue4m3(p[s]);
            const uint8_t *q = p + 4 + 8 * s;
            for (int i = 0; i < 8; i++) {
                dst[i] = d * (float)e2m1_doubled[q[i] & 15];
                dst[i + 8] = d * (float)e2m1_doubled[q[i] >> 4];
            }
        }
    }
}

/* ---- encoding -------------------------------------------------------------------------------- */

/* The code nearest to x, which is in units of half the scale; a tie goes to the smaller magnitude.
 */
static inline uint8_t nearest_e2m1(float x)
{
    float a = fabsf(x);
    uint8_t c =
        (uint8_t)((a > 0.5f) + (a > 1.5f) + (a > 2.5f) + (a > 3.5f) + (a > 5) + (a > 7) + (a > 10));
    return x < 0 && c ? c | 8 : c;
}

/* c in the lanes where a is above t, else 0. */
static inline vec above(vec a, float t, float c)
{
    return (vec)((vec_mask)vec_all(c) & (a > vec_all(t)));
}

/* Σ w (x − x̂)² of n values (a multiple of 8) with scale 2 d, as nearest_e2m1 rounds. */
static float e2m1_error(const float *x, const float *w, int n, float d)
{
    vec inverse = vec_all(q_inverse(d)), error[2] = {vec_all(0), vec_all(0)};
    for (int i = 0; i < n; i += 8)
        for (int k = 0; k < 2; k++) {
            vec v = vec_load(x + i + 4 * k), a = v * inverse;
            a = vec_choose(a < vec_all(0), -a, a);
            v = vec_choose(v < vec_all(0), -v, v);
            vec q = above(a, 0.5f, 1) + above(a, 1.5f, 1) + above(a, 2.5f, 1) + above(a, 3.5f, 1) +
                    above(a, 5, 2) + above(a, 7, 2) + above(a, 10, 4);
            vec e = vec_all(d) * q - v;
            error[k] += vec_load(w + i + 4 * k) * e * e;
        }
    return vec_sum(error[0], error[1]);
}

/*
 * Without importance: the scale of the OCP specification, which maps the largest magnitude to 4..8
 * (what is beyond 6 saturates). With importance: the best of that and its neighbours.
 */
static int mxfp4_exponent(const float *src, const float *importance)
{
    float most = 0;
    for (int i = 0; i < 32; i++)
        most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
    if (!(most > 0))
        return 0;
    int e;
    frexpf(most < FLT_MAX ? most : FLT_MAX, &e);
    e = e - 1 - 2 + 127;
    e = e > 0 ? e : 0;
    struct q_block b;
    if (importance)
        q_block_load(&b, src, importance, 32);
    if (!importance || b.unit == 0)
        return e;
    int best = e;
    float error = INFINITY;
    for (int k = e - 1; k <= e + 1 && k <= 252; k++) { /* beyond, 6 × scale is infinite */
        if (k < 0)
            continue;
        float t = e2m1_error(b.x, b.w, 32, half_e8m0((uint8_t)k) / b.unit);
        if (t < error) {
            error = t;
            best = k;
        }
    }
    return best;
}

void q_mxfp4_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i + 32 <= n; i += 32, p += 17) {
        int e = mxfp4_exponent(src + i, importance ? importance + i : NULL);
        float d = half_e8m0((uint8_t)e);
        p[0] = (uint8_t)e;
        for (int k = 0; k < 16;
             k++) /* dividing by a power of two is exact, and cannot overflow it */
            p[1 + k] =
                (uint8_t)(nearest_e2m1(src[i + k] / d) | nearest_e2m1(src[i + k + 16] / d) << 4);
    }
}

/*
 * The scale of 16 values: of those that map the largest magnitude to some more than 6 down to 3.5,
 * the one with the least error (at 4 the wide gap between 4 and 6 is not used). Scales end at 448
 * and have no exponent below 2^-6: values under some hundredths lose precision, those under 2^-11
 * vanish.
 */
static uint8_t nvfp4_scale(const float *src, const float *importance)
{
    struct q_block b;
    q_block_load(&b, src, importance, 16);
    float most = 0;
    for (int i = 0; i < 16; i++)
        most = fabsf(src[i]) > most ? fabsf(src[i]) : most;
    int middle = most < 6 * 448.0f ? quant_f32_to_e4m3(most / 6) : 0x7E, best = 0;
    float error = INFINITY;
    for (int k = middle - 1; k <= middle + 5 && k <= 0x7E && b.unit != 0; k++) {
        if (k < 0)
            continue;
        float t = e2m1_error(b.x, b.w, 16, half_ue4m3((uint8_t)k) / b.unit);
        if (t < error) {
            error = t;
            best = k;
        }
    }
    return (uint8_t)best;
}

void q_nvfp4_encode(void *dst, const float *src, size_t n, const float *importance)
{
    uint8_t *p = dst;
    for (size_t i = 0; i + 64 <= n; i += 64, p += 36)
        for (int s = 0; s < 4; s++) {
            const float *x = src + i + 16 * s;
            p[s] = nvfp4_scale(x, importance ? importance + i + 16 * s : NULL);
            float inverse = q_inverse(half_ue4m3(p[s]));
            for (int k = 0; k < 8; k++)
                p[4 + 8 * s + k] =
                    (uint8_t)(nearest_e2m1(x[k] * inverse) | nearest_e2m1(x[k + 8] * inverse) << 4);
        }
}
