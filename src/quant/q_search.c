/*
 * Search for the scales of quantized blocks.
 *
 * For fixed integers q the best scale is a least squares problem with a closed form; for a fixed
 * scale the best q is rounding. Neither alone finds the optimum, so: try a fan of scales around the
 * one that maps the largest value to the end of the range, round with each, and keep the q whose
 * least squares residual is smallest (what is kept is the scale: q follows from it).
 *
 * In a super-block the scales are integers l times a half d (and minima integers times another).
 * Rounding the scales one by one wastes what was gained, so the integers are searched too: with d
 * fixed, each sub-block takes the neighbour of its rounded scale with the smallest true error; with
 * the integers fixed, d is refitted over the whole super-block. Two or three rounds settle it. The
 * d that the error is measured with is always the rounded half that is written.
 *
 * Sums run over 8 lanes in a fixed order, so the same input gives the same bytes everywhere.
 */
#include "quant/q_search.h"
#include "quant/q_vec.h"

#include <float.h>
#include <math.h>

/* ---- blocks ---------------------------------------------------------------------------------- */

/* Weights with mean 1, or false when the importance is of no use. The floor keeps values whose
   importance is 0 from being given up altogether. */
static bool load_weights(float *w, const float *importance, int n)
{
    double sum = 0;
    for (int i = 0; importance && i < n; i++)
        sum += importance[i] > 0 ? importance[i] : 0;
    if (!(sum > 0 && sum <= DBL_MAX))
        return false;
    double scale = n / sum;
    for (int i = 0; i < n; i++)
        w[i] = 1e-4f + (importance[i] > 0 ? (float)(importance[i] * scale) : 0);
    return true;
}

void q_block_load(struct q_block *b, const float *src, const float *importance, int n)
{
    float most = 0;
    b->n = n;
    b->unit = 0;
    for (int i = 0; i < n; i++) {
        float x = src[i];
        if (!(fabsf(x) <= FLT_MAX))
            x = isnan(x) ? 0 : copysignf(FLT_MAX, x);
        b->x[i] = x;
        most = fabsf(x) > most ? fabsf(x) : most;
    }
    if (!(most > 0x1p-40f))
        return;
    int e;
    frexpf(most, &e);
    b->unit = ldexpf(1, e < 127 ? e : 127); /* 2^128 is no float; then x is below 2 */
    float inverse = 1 / b->unit;
    for (int i = 0; i < n; i++)
        b->x[i] *= inverse;
    if (!load_weights(b->w, importance, n))
        for (int i = 0; i < n; i++)
            b->w[i] = 1;
}

uint16_t q_half_finite(float f)
{
    uint16_t h = quant_f32_to_f16(f);
    return (h & 0x7FFF) >= 0x7C00 ? (uint16_t)((h & 0x8000) | 0x7BFF) : h;
}

float q_block_half(const struct q_block *b, float s, uint16_t *half)
{
    uint16_t h = q_half_finite(s * b->unit);
    if (s != 0 && !(h & 0x7FFF))
        h = s < 0 ? 0x8001 : 0x0001;
    if (half)
        *half = h;
    return quant_f16_to_f32(h) / b->unit;
}

/* ---- symmetric blocks ------------------------------------------------------------------------ */

struct q_sums q_sums_integers(const struct q_symmetric *g, const float *x, const float *w, int n,
                              float inverse)
{
    vec lo = vec_all(g->lo), hi = vec_all(g->hi), by = vec_all(inverse);
    vec xq[2] = {{0}, {0}}, qq[2] = {{0}, {0}};
    for (int i = 0; i < n; i += 8) {
        for (int k = 0; k < 2; k++) {
            vec v = vec_load(x + i + 4 * k), q = vec_round(v * by, lo, hi);
            vec wq = vec_load(w + i + 4 * k) * q;
            xq[k] += wq * v;
            qq[k] += wq * q;
        }
    }
    return (struct q_sums){vec_sum(xq[0], xq[1]), vec_sum(qq[0], qq[1])};
}

/* What remains of the error: Σ w x² is left off. */
static inline float sums_error(struct q_sums s, float scale)
{
    return scale * (scale * s.qq - 2 * s.xq);
}

float q_symmetric_scale(const struct q_symmetric *g, const float *x, const float *w)
{
    float most = 0;
    for (int i = 0; i < g->n; i++)
        most = fabsf(x[i]) > fabsf(most) ? x[i] : most;
    if (fabsf(most) < 0x1p-60f)
        return 0;
    float ends[2] = {g->lo, g->hi}, scale = 0, gain = 0;
    for (int e = 0; e < 2; e++) {
        for (int k = -g->steps; k <= g->steps; k++) {
            float inverse = (ends[e] + g->step * (float)k) / most;
            struct q_sums s = g->sums(g, x, w, g->n, inverse);
            if (s.qq > 0 && s.xq * s.xq > gain * s.qq) {
                gain = s.xq * s.xq / s.qq;
                scale = s.xq / s.qq;
            }
        }
    }
    return scale;
}

/* The integer scale near `wanted` with the smallest error, given d; *sums are those of the winner.
 */
static float best_integer(const struct q_symmetric *g, const float *x, const float *w, float d,
                          float wanted, int *scale, struct q_sums *sums)
{
    int middle = (int)q_round(wanted, (float)g->scale_lo, (float)g->scale_hi);
    float best = 0;
    *scale = 0;
    *sums = (struct q_sums){0, 0};
    for (int l = middle - 2; l <= middle + 2; l++) {
        if (l < g->scale_lo || l > g->scale_hi || l == 0)
            continue;
        float s = d * (float)l;
        struct q_sums t = g->sums(g, x, w, g->n, q_inverse(s));
        float e = sums_error(t, s);
        if (e < best) {
            best = e;
            *scale = l;
            *sums = t;
        }
    }
    return best;
}

float q_symmetric_super(const struct q_symmetric *g, const struct q_block *b, int scale[Q_SUBS_MAX],
                        uint16_t *half)
{
    float wanted[Q_SUBS_MAX] = {0}, most = 0;
    for (int j = 0; j < g->subs; j++) {
        wanted[j] = q_symmetric_scale(g, b->x + j * g->n, b->w + j * g->n);
        most = fabsf(wanted[j]) > fabsf(most) ? wanted[j] : most;
    }
    memset(scale, 0, sizeof(*scale) * Q_SUBS_MAX);
    *half = 0;
    float best = 0, best_d = 0, next = most / (float)g->scale_lo;
    for (int round = 0; round < 3 && next != 0; round++) {
        int l[Q_SUBS_MAX];
        uint16_t h;
        float d = q_block_half(b, next, &h), inverse = q_inverse(d);
        float error = 0, xq = 0, qq = 0;
        for (int j = 0; j < g->subs; j++) {
            struct q_sums s;
            error += best_integer(g, b->x + j * g->n, b->w + j * g->n, d, wanted[j] * inverse,
                                  &l[j], &s);
            xq += (float)l[j] * s.xq;
            qq += (float)(l[j] * l[j]) * s.qq;
        }
        if (error < best) {
            best = error;
            best_d = d;
            *half = h;
            memcpy(scale, l, sizeof(*scale) * (size_t)g->subs);
        }
        next = qq > 0 ? xq / qq : 0;
        if (q_block_half(b, next, NULL) == d)
            break;
    }
    return best_d;
}

/* ---- affine blocks --------------------------------------------------------------------------- */

/* Sums over a sub-block with q nearest to x × inverse + offset. */
struct sums3 {
    float q, qq, xq; /* Σ w q, Σ w q², Σ w x q */
};

static struct sums3 affine_sums(const float *x, const float *w, int n, float hi, float inverse,
                                float offset)
{
    vec lo = vec_all(0), top = vec_all(hi), by = vec_all(inverse), shift = vec_all(offset);
    vec sq[2] = {{0}, {0}}, qq[2] = {{0}, {0}}, xq[2] = {{0}, {0}};
    for (int i = 0; i < n; i += 8) {
        for (int k = 0; k < 2; k++) {
            vec v = vec_load(x + i + 4 * k), q = vec_round(v * by + shift, lo, top);
            vec wq = vec_load(w + i + 4 * k) * q;
            sq[k] += wq;
            qq[k] += wq * q;
            xq[k] += wq * v;
        }
    }
    return (struct sums3){vec_sum(sq[0], sq[1]), vec_sum(qq[0], qq[1]), vec_sum(xq[0], xq[1])};
}

/* Σ w, Σ w x of a sub-block. */
static void plain_sums(const float *x, const float *w, int n, float *sw, float *sx)
{
    vec a[2] = {{0}, {0}}, b[2] = {{0}, {0}};
    for (int i = 0; i < n; i += 8) {
        for (int k = 0; k < 2; k++) {
            vec v = vec_load(w + i + 4 * k);
            a[k] += v;
            b[k] += v * vec_load(x + i + 4 * k);
        }
    }
    *sw = vec_sum(a[0], a[1]);
    *sx = vec_sum(b[0], b[1]);
}

/* Σ w (x − s q + m)² without Σ w x². */
static inline float affine_error(struct sums3 t, float sw, float sx, float s, float m)
{
    return s * (s * t.qq - 2 * t.xq - 2 * m * t.q) + m * (m * sw + 2 * sx);
}

/* Least squares scale and minimum for the q behind t; false when there is none. */
static bool affine_solve(const struct q_affine *g, struct sums3 t, float sw, float sx, float *s,
                         float *m)
{
    float det = sw * t.qq - t.q * t.q;
    if (det > 1e-7f * sw * t.qq) {
        *s = (sw * t.xq - sx * t.q) / det;
        *m = (t.q * t.xq - t.qq * sx) / det;
        if (*s > 0 && (*m >= 0 || g->any_min))
            return true;
    }
    *m = 0;
    *s = t.qq > 0 ? t.xq / t.qq : 0;
    return *s > 0;
}

void q_affine_scale(const struct q_affine *g, const float *x, const float *w, float *scale,
                    float *min)
{
    float lo = x[0], hi = x[0], sw, sx;
    for (int i = 1; i < g->n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (lo > 0 && !g->any_min)
        lo = 0;
    *scale = 0;
    *min = lo < 0 || g->any_min ? -lo : 0;
    float range = hi - lo;
    if (!(range > 0x1p-60f))
        return;
    plain_sums(x, w, g->n, &sw, &sx);
    float best = INFINITY;
    for (int o = 0; o < g->shifts; o++) {
        float shift = 0.25f * (float)o;
        for (int k = -g->steps; k <= g->steps; k++) {
            float inverse = (g->hi + g->step * (float)k + shift) / range;
            struct sums3 t = affine_sums(x, w, g->n, g->hi, inverse, -lo * inverse - shift);
            float s, m;
            if (!affine_solve(g, t, sw, sx, &s, &m))
                continue;
            float e = affine_error(t, sw, sx, s, m);
            if (e < best) {
                best = e;
                *scale = s;
                *min = m;
            }
        }
    }
    /* round with what was found, and fit once more */
    for (int k = 0; k < 2 && *scale > 0; k++) {
        float s, m, inverse = q_inverse(*scale);
        struct sums3 t = affine_sums(x, w, g->n, g->hi, inverse, *min * inverse);
        if (!affine_solve(g, t, sw, sx, &s, &m))
            break;
        float e = affine_error(t, sw, sx, s, m);
        if (!(e < best))
            break;
        best = e;
        *scale = s;
        *min = m;
    }
}

/* Integers for scale and minimum of one sub-block near those wanted, given d and dmin. */
struct pick {
    int scale, min;
    float error;
    struct sums3 sums;
};

static struct pick best_integers(const struct q_affine *g, const float *x, const float *w, float sw,
                                 float sx, float d, float dmin, float scale, float min)
{
    int l0 = (int)q_round(scale * q_inverse(d), 0, (float)g->scale_hi);
    int m0 = (int)q_round(min * q_inverse(dmin), 0, (float)g->scale_hi);
    struct pick best = {0, 0, INFINITY, {0, 0, 0}};
    for (int l = l0 - 1; l <= l0 + 1; l++) {
        if (l < 0 || l > g->scale_hi)
            continue;
        for (int m = m0 - 1; m <= m0 + 1; m++) {
            if (m < 0 || m > g->scale_hi)
                continue;
            float s = d * (float)l, o = dmin * (float)m, inverse = q_inverse(s);
            struct sums3 t = affine_sums(x, w, g->n, g->hi, inverse, o * inverse);
            float e = affine_error(t, sw, sx, s, o);
            if (e < best.error)
                best = (struct pick){l, m, e, t};
        }
    }
    return best;
}

void q_affine_super(const struct q_affine *g, const struct q_block *b, struct q_affine_fit *fit)
{
    float scale[Q_SUBS_MAX] = {0}, min[Q_SUBS_MAX] = {0}, sw[Q_SUBS_MAX] = {0},
          sx[Q_SUBS_MAX] = {0};
    float most = 0, most_min = 0;
    memset(fit, 0, sizeof(*fit));
    for (int j = 0; j < g->subs; j++) {
        const float *x = b->x + j * g->n, *w = b->w + j * g->n;
        q_affine_scale(g, x, w, &scale[j], &min[j]);
        plain_sums(x, w, g->n, &sw[j], &sx[j]);
        most = scale[j] > most ? scale[j] : most;
        most_min = min[j] > most_min ? min[j] : most_min;
    }
    float best = INFINITY, d = most / (float)g->scale_hi, dmin = most_min / (float)g->scale_hi;
    for (int round = 0; round < 3; round++) {
        struct q_affine_fit f;
        float error = 0, a = 0, bb = 0, c = 0, p = 0, q = 0;
        f.d = q_block_half(b, d, &f.d_half);
        f.dmin = q_block_half(b, dmin, &f.dmin_half);
        for (int j = 0; j < g->subs; j++) {
            struct pick k = best_integers(g, b->x + j * g->n, b->w + j * g->n, sw[j], sx[j], f.d,
                                          f.dmin, scale[j], min[j]);
            float l = (float)k.scale, m = (float)k.min;
            f.scale[j] = k.scale;
            f.min[j] = k.min;
            error += k.error;
            a += l * l * k.sums.qq;
            bb += l * m * k.sums.q;
            c += m * m * sw[j];
            p += l * k.sums.xq;
            q += m * sx[j];
        }
        if (error < best) {
            best = error;
            *fit = f;
        }
        /* normal equations of x ≈ d·(l q) − dmin·m over the super-block */
        float det = a * c - bb * bb;
        if (det > 1e-7f * a * c) {
            d = (p * c - q * bb) / det;
            dmin = (p * bb - q * a) / det;
        } else if (a > 0) {
            d = p / a;
            dmin = 0;
        } else {
            break;
        }
        if (!(d > 0) || dmin < 0)
            break;
        if (q_block_half(b, d, NULL) == f.d && q_block_half(b, dmin, NULL) == f.dmin)
            break;
    }
}
