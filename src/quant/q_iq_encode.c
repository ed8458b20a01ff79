/*
 * The IQ types of one to three bits, encoding (layouts: q_iq.c).
 *
 * For a given scale, every group of eight values takes the rows of the codebook that are nearest
 * (q_book.c); for given rows, the best scale is a least squares problem. Nearest rows are dear, so
 * each sub-block first gets a scale as though its values could be rounded one by one: the best of a
 * fan, as in q_search.c. That gives the half of the super-block and integers to start from. Then in
 * turns each integer walks downhill with the error of the nearest rows, and the half is refitted;
 * the error is always measured with the scales that are written.
 *
 * With so few bits, the least squared error is that of values which are too small: at IQ2_XS it
 * keeps 0.91 of x̂·x / x·x. So errors are weighed by importance times √(2 σ² + x²), σ² the mean
 * square of the super-block, which costs 1 to 3 % of the squared error's root and keeps 0.94. With
 * the down projections of SmolLM2-135M as IQ2_XS, over 1,530 tokens of one text, KL to the file's
 * own output was 0.24 this way and 0.26 by importance alone; without importance 1.16 and 1.53.
 */
#include "quant/q_book.h"
#include "quant/q_search.h"
#include "quant/q_vec.h"

#include <math.h>

enum { FAN = 8, ROUNDS = 2 };

enum shifts { SHIFT_NONE, SHIFT_SUB, SHIFT_GROUP };

/* How one of the types is put together. */
struct form {
    const struct q_book *book;
    int n, subs;  /* values of a sub-block, sub-blocks */
    int scale_hi; /* scales are (2 l + 1) × d × unit, l = 0..scale_hi */
    float unit;
    bool even;              /* the number of minus signs in eight values is even */
    enum shifts shift;      /* IQ1: values are signed, levels are shifted by ±1/8 per … */
    float level, step, top; /* the levels, about: level + k × step, k = 0..top */
};

/* A super-block with its signs apart, and the weights of errors. */
struct signed_block {
    float x[Q_SUPER]; /* magnitudes (IQ1: values) */
    float w[Q_SUPER];
    uint8_t signs[Q_SUPER / 8];
};

static void split_signs(const struct form *f, const struct q_block *b, struct signed_block *s)
{
    float square = 0;
    for (int i = 0; i < Q_SUPER; i++)
        square += b->x[i] * b->x[i];
    for (int i = 0; i < Q_SUPER; i++)
        s->w[i] = b->w[i] * sqrtf(2 * square / Q_SUPER + b->x[i] * b->x[i]);
    for (int g = 0; g < Q_SUPER / 8; g++) {
        s->signs[g] = 0;
        for (int i = 0; i < 8; i++) {
            float x = b->x[8 * g + i];
            s->signs[g] |= (uint8_t)((x < 0) << i);
            s->x[8 * g + i] = f->shift == SHIFT_NONE ? fabsf(x) : x;
        }
    }
}

/* Sums with the nearest rows of one group. */
static struct q_sums group_sums(const struct form *f, const struct signed_block *s, int g,
                                float inverse, float shift, struct q_pick *pick)
{
    const float *x = s->x + 8 * g, *w = s->w + 8 * g;
    float value[8];
    q_book_nearest(f->book, x, w, inverse, shift, f->even && __builtin_parity(s->signs[g]), pick,
                   value);
    vec v[2] = {vec_load(value), vec_load(value + 4)};
    vec wv[2] = {vec_load(w) * v[0], vec_load(w + 4) * v[1]};
    return (struct q_sums){vec_sum(wv[0] * vec_load(x), wv[1] * vec_load(x + 4)),
                           vec_sum(wv[0] * v[0], wv[1] * v[1])};
}

static inline void sums_add(struct q_sums *to, struct q_sums s)
{
    to->xq += s.xq;
    to->qq += s.qq;
}

/* What is left of the error with a scale of 1/inverse, in its square; Σ w x² is left off. */
static inline float sums_left(struct q_sums s, float inverse)
{
    return s.qq - 2 * inverse * s.xq;
}

/* Sums with the nearest rows of sub-block j; picks (if any): what they are. */
static struct q_sums sub_sums(const struct form *f, const struct signed_block *s, int j,
                              float inverse, struct q_pick *picks)
{
    int groups = f->n / 8;
    struct q_sums sum[2] = {{0, 0}, {0, 0}};
    struct q_pick pick[2][4];
    for (int g = 0; g < groups; g++) {
        if (f->shift == SHIFT_NONE) {
            sums_add(&sum[0], group_sums(f, s, j * groups + g, inverse, 0, &pick[0][g]));
            continue;
        }
        struct q_sums t[2];
        for (int k = 0; k < 2; k++) {
            t[k] = group_sums(f, s, j * groups + g, inverse, k ? -0.125f : 0.125f, &pick[k][g]);
            pick[k][g].shift = (uint8_t)k;
        }
        if (f->shift == SHIFT_SUB) {
            sums_add(&sum[0], t[0]);
            sums_add(&sum[1], t[1]);
        } else {
            int k = sums_left(t[1], inverse) < sums_left(t[0], inverse);
            sums_add(&sum[0], t[k]);
            pick[0][g] = pick[k][g];
        }
    }
    int k = f->shift == SHIFT_SUB && sums_left(sum[1], inverse) < sums_left(sum[0], inverse);
    if (picks)
        memcpy(picks, pick[k], sizeof(*picks) * (size_t)groups);
    return sum[k];
}

/* Sums with levels chosen value by value, as though the codebook had every row. The levels are
   taken to be evenly spaced, which they almost are. */
static struct q_sums free_sums(const struct form *f, const float *x, const float *w, float inverse,
                               float shift)
{
    vec lo = vec_all(f->level + shift), step = vec_all(f->step), by = vec_all(inverse / f->step);
    vec zero = vec_all(0), top = vec_all(f->top), at = vec_all((f->level + shift) / f->step);
    vec xq[2] = {zero, zero}, qq[2] = {zero, zero};
    for (int i = 0; i < f->n; i += 8)
        for (int k = 0; k < 2; k++) {
            vec v = vec_load(x + i + 4 * k);
            vec q = lo + step * vec_round(v * by - at, zero, top);
            vec wq = vec_load(w + i + 4 * k) * q;
            xq[k] += wq * v;
            qq[k] += wq * q;
        }
    return (struct q_sums){vec_sum(xq[0], xq[1]), vec_sum(qq[0], qq[1])};
}

/* The best scale found for sub-block j by itself; 0 when nothing beats zeros. */
static float sub_scale(const struct form *f, const struct signed_block *s, int j)
{
    const float *x = s->x + j * f->n, *w = s->w + j * f->n;
    float most = 0, gain = 0, scale = 0;
    for (int i = 0; i < f->n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    if (most < 0x1p-60f)
        return 0;
    float shift = f->shift == SHIFT_NONE ? 0 : 0.125f;
    float highest = f->level + f->step * f->top;
    for (int k = -1; k < FAN; k++) {
        /* the largest magnitude is mapped to the lowest level (blocks of ±c, where all fit, are
           best there: the codebooks are rich in low levels), or to 1..2 times the highest */
        float to = k < 0 ? fabsf(f->level) : highest * (2 - 0.14f * (float)k);
        for (int sign = -1; sign <= (f->shift == SHIFT_NONE ? -1 : 1); sign += 2) {
            struct q_sums t = free_sums(f, x, w, to / most, shift * (float)sign);
            if (t.xq > 0 && t.xq * t.xq > 1.00001f * gain * t.qq) {
                gain = t.xq * t.xq / t.qq;
                scale = t.xq / t.qq;
            }
        }
    }
    return scale;
}

/* A scale of sub-block j and what comes of it. */
struct trial {
    float left; /* what remains of the error */
    struct q_sums sums;
    struct q_pick pick[4];
};

static struct trial try_scale(const struct form *f, const struct signed_block *s, int j, float d,
                              int l)
{
    struct trial t;
    float scale = d * (float)(2 * l + 1);
    t.sums = sub_sums(f, s, j, q_inverse(scale), t.pick);
    t.left = scale * (scale * t.sums.qq - 2 * t.sums.xq);
    return t;
}

/* Walks from scale *l to where the error is least. The slope of the error tells which way: for a
   small step the rows stay the same. */
static struct trial best_trial(const struct form *f, const struct signed_block *s, int j, float d,
                               int *l)
{
    struct trial best = try_scale(f, s, j, d, *l);
    float scale = d * (float)(2 * *l + 1);
    int step = best.sums.xq > scale * best.sums.qq ? 1 : -1;
    for (int k = *l + step; k >= 0 && k <= f->scale_hi; k += step) {
        struct trial t = try_scale(f, s, j, d, k);
        if (!(t.left < best.left))
            break;
        best = t;
        *l = k;
    }
    return best;
}

struct fit {
    int scale[Q_SUBS_MAX];
    uint16_t half;
    struct q_pick pick[Q_SUPER / 8];
    uint8_t signs[Q_SUPER / 8];
};

/* Everything about a super-block; false when it is written as zeros. */
static bool fit_super(const struct form *f, const float *src, const float *importance,
                      struct fit *fit)
{
    struct q_block b;
    struct signed_block s;
    q_block_load(&b, src, importance, Q_SUPER);
    if (b.unit == 0)
        return false;
    split_signs(f, &b, &s);
    float wanted[Q_SUBS_MAX], most = 0, best = 0;
    for (int j = 0; j < f->subs; j++) {
        wanted[j] = sub_scale(f, &s, j);
        most = wanted[j] > most ? wanted[j] : most;
    }
    int l[Q_SUBS_MAX];
    float next = most / (float)(2 * f->scale_hi + 1) / f->unit;
    for (int j = 0; j < f->subs && next > 0; j++)
        l[j] = (int)q_round((wanted[j] / (next * f->unit) - 1) / 2, 0, (float)f->scale_hi);
    for (int round = 0; round < ROUNDS && next > 0; round++) {
        struct fit t;
        float d = q_block_half(&b, next, &t.half) * f->unit, left = 0, xq = 0, qq = 0;
        for (int j = 0; j < f->subs; j++) {
            struct trial k = best_trial(f, &s, j, d, &l[j]);
            float m = (float)(2 * l[j] + 1);
            memcpy(t.pick + j * f->n / 8, k.pick, sizeof(*k.pick) * (size_t)(f->n / 8));
            left += k.left;
            xq += m * k.sums.xq;
            qq += m * m * k.sums.qq;
        }
        if (left < best) {
            best = left;
            memcpy(t.scale, l, sizeof(l));
            memcpy(t.signs, s.signs, sizeof(t.signs));
            *fit = t;
        }
        next = qq > 0 ? xq / qq / f->unit : 0;
        if (q_block_half(&b, next, NULL) * f->unit == d)
            break;
    }
    return best < 0;
}

/* Signs of group g as they are written. */
static inline unsigned signs_of(const struct fit *fit, int g)
{
    int flipped = fit->pick[g].flipped;
    return fit->signs[g] ^ (flipped >= 0 ? 1u << flipped : 0);
}

/* Next importance pointer: NULL stays NULL. */
static inline const float *advance(const float *importance)
{
    return importance ? importance + Q_SUPER : NULL;
}

/* ---- the types ------------------------------------------------------------------------------- */

static const struct form iq2_xxs = {.book = &q_iq2_xxs_book,
                                    .n = 32,
                                    .subs = 8,
                                    .scale_hi = 15,
                                    .unit = 0.125f,
                                    .even = true,
                                    .level = 8,
                                    .step = 17.5f,
                                    .top = 2};
static const struct form iq2_xs = {.book = &q_iq2_xs_book,
                                   .n = 16,
                                   .subs = 16,
                                   .scale_hi = 15,
                                   .unit = 0.125f,
                                   .even = true,
                                   .level = 8,
                                   .step = 17.5f,
                                   .top = 2};
static const struct form iq2_s = {.book = &q_iq2_s_book,
                                  .n = 16,
                                  .subs = 16,
                                  .scale_hi = 15,
                                  .unit = 0.125f,
                                  .level = 8,
                                  .step = 17.5f,
                                  .top = 2};
static const struct form iq3_xxs = {.book = &q_iq3_xxs_book,
                                    .n = 32,
                                    .subs = 8,
                                    .scale_hi = 15,
                                    .unit = 0.25f,
                                    .even = true,
                                    .level = 4,
                                    .step = 8,
                                    .top = 7};
static const struct form iq3_s = {.book = &q_iq3_s_book,
                                  .n = 32,
                                  .subs = 8,
                                  .scale_hi = 15,
                                  .unit = 1,
                                  .level = 1,
                                  .step = 2,
                                  .top = 7};
static const struct form iq1_s = {.book = &q_iq1_book,
                                  .n = 32,
                                  .subs = 8,
                                  .scale_hi = 7,
                                  .unit = 1,
                                  .shift = SHIFT_SUB,
                                  .level = -1,
                                  .step = 1,
                                  .top = 2};
static const struct form iq1_m = {.book = &q_iq1_book,
                                  .n = 16,
                                  .subs = 16,
                                  .scale_hi = 7,
                                  .unit = 1,
                                  .shift = SHIFT_GROUP,
                                  .level = -1,
                                  .step = 1,
                                  .top = 2};

/* Fits each super-block and has it packed into zeroed bytes. */
static void encode(const struct form *f, size_t bytes, uint8_t *p, const float *src, size_t n,
                   const float *importance,
                   void (*pack)(uint8_t *p, const struct form *f, const struct fit *fit))
{
    for (; n >= Q_SUPER;
         n -= Q_SUPER, p += bytes, src += Q_SUPER, importance = advance(importance)) {
        struct fit fit;
        memset(p, 0, bytes);
        if (fit_super(f, src, importance, &fit))
            pack(p, f, &fit);
    }
}

static void pack_iq2_xxs(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int s = 0; s < 8; s++) {
        uint8_t *codes = p + 2 + 8 * s;
        uint32_t aux = (uint32_t)fit->scale[s] << 28;
        for (int k = 0; k < 4; k++) {
            int g = 4 * s + k;
            codes[k] = (uint8_t)q_book_code(f->book, fit->pick[g].option);
            aux |= (signs_of(fit, g) & 127) << 7 * k;
        }
        q_put32(codes + 4, aux);
    }
}

static void pack_iq2_xs(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int g = 0; g < 32; g++) {
        unsigned code = q_book_code(f->book, fit->pick[g].option);
        q_put16(p + 2 + 2 * g, (uint16_t)(code | (signs_of(fit, g) & 127) << 9));
    }
    for (int s = 0; s < 16; s++)
        p[66 + s / 2] |= (uint8_t)(fit->scale[s] << 4 * (s & 1));
}

static void pack_iq2_s(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int g = 0; g < 32; g++) {
        unsigned code = q_book_code(f->book, fit->pick[g].option);
        p[2 + g] = (uint8_t)code;
        p[34 + g] = (uint8_t)signs_of(fit, g);
        p[66 + g / 4] |= (uint8_t)(code >> 8 << 2 * (g % 4));
    }
    for (int s = 0; s < 16; s++)
        p[74 + s / 2] |= (uint8_t)(fit->scale[s] << 4 * (s & 1));
}

static void pack_iq3_xxs(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int s = 0; s < 8; s++) {
        uint32_t aux = (uint32_t)fit->scale[s] << 28;
        for (int k = 0; k < 4; k++) {
            int g = 4 * s + k;
            p[2 + 2 * g] = (uint8_t)q_book_code(f->book, fit->pick[g].option);
            p[3 + 2 * g] = (uint8_t)q_book_code(f->book, fit->pick[g].option + 4);
            aux |= (signs_of(fit, g) & 127) << 7 * k;
        }
        q_put32(p + 66 + 4 * s, aux);
    }
}

static void pack_iq3_s(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int g = 0; g < 64; g++) {
        unsigned code = q_book_code(f->book, fit->pick[g / 2].option + 4 * (g & 1));
        p[2 + g] = (uint8_t)code;
        p[66 + g / 8] |= (uint8_t)(code >> 8 << g % 8);
    }
    for (int g = 0; g < 32; g++)
        p[74 + g] = (uint8_t)signs_of(fit, g);
    for (int s = 0; s < 8; s++)
        p[106 + s / 2] |= (uint8_t)(fit->scale[s] << 4 * (s & 1));
}

static void pack_iq1_s(uint8_t *p, const struct form *f, const struct fit *fit)
{
    q_put16(p, fit->half);
    for (int s = 0; s < 8; s++) {
        unsigned aux = (unsigned)fit->scale[s] << 12 | (unsigned)fit->pick[4 * s].shift << 15;
        for (int k = 0; k < 4; k++) {
            unsigned code = q_book_code(f->book, fit->pick[4 * s + k].option);
            p[2 + 4 * s + k] = (uint8_t)code;
            aux |= code >> 8 << 3 * k;
        }
        q_put16(p + 34 + 2 * s, (uint16_t)aux);
    }
}

static void pack_iq1_m(uint8_t *p, const struct form *f, const struct fit *fit)
{
    for (int g = 0; g < 32; g++) {
        unsigned code = q_book_code(f->book, fit->pick[g].option);
        p[g] = (uint8_t)code;
        p[32 + g / 2] |= (uint8_t)((code >> 8 | (unsigned)fit->pick[g].shift << 3) << 4 * (g & 1));
    }
    for (int k = 0; k < 4; k++) {
        unsigned v = (fit->half >> 4 * k & 15u) << 12;
        for (int i = 0; i < 4; i++)
            v |= (unsigned)fit->scale[4 * k + i] << 3 * i;
        q_put16(p + 48 + 2 * k, (uint16_t)v);
    }
}

void q_iq2_xxs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq2_xxs, 66, dst, src, n, importance, pack_iq2_xxs);
}

void q_iq2_xs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq2_xs, 74, dst, src, n, importance, pack_iq2_xs);
}

void q_iq2_s_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq2_s, 82, dst, src, n, importance, pack_iq2_s);
}

void q_iq3_xxs_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq3_xxs, 98, dst, src, n, importance, pack_iq3_xxs);
}

void q_iq3_s_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq3_s, 110, dst, src, n, importance, pack_iq3_s);
}

void q_iq1_s_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq1_s, 50, dst, src, n, importance, pack_iq1_s);
}

void q_iq1_m_encode(void *dst, const float *src, size_t n, const float *importance)
{
    encode(&iq1_m, 56, dst, src, n, importance, pack_iq1_m);
}
