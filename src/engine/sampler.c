/*
 * Sampling: from a row of logits to a token id.
 *
 * The steps, in their order ("temp_last", the default order of llama.cpp), on logits l:
 *   mask              l[t] = −inf where the mask forbids the token
 *   logit bias        l[t] += b; −inf forbids the token
 *   penalties         for a token that occurred n > 0 times: l = l·r if l ≤ 0 else l/r (r the
 *                     repetition penalty, CTRL, Keskar et al. 2019), then l −= n·frequency +
 *                     presence (as the OpenAI API defines them)
 *   top-k             the k largest logits
 *   typical-p         p = softmax of what is left, H its entropy: tokens by growing |−ln p − H|
 *                     until their sum is over typical_p (Meister et al. 2022)
 *   top-p             tokens by falling p until their sum is at least top_p (Holtzman et al. 2020)
 *   min-p             p ≥ min_p · max p (Nguyen et al. 2024)
 *   temperature       p = softmax(l / temperature) of what is left
 *   draw              one uniform number against the running sum, in order of ids
 * At ties the lowest id is first everywhere.
 *
 * Cost. A vocabulary has 150,000 tokens, of which a few hundred matter. One pass in virtual lanes
 * checks the row and finds the maximum of each block of 64 logits; from then on a step visits only
 * blocks whose maximum reaches a threshold. For top-k that is the k-th largest of the block maxima:
 * each of those k blocks holds a logit that large, so the k best are all at or above it. For top-p
 * the sum over the whole row is needed (a second pass with a short polynomial for exp), then the
 * threshold is lowered until the mass above it suffices. What passes the threshold becomes a
 * list of candidates in order of ids, and each truncation is a radix select over 32-bit keys, by
 * count or by mass (find_cut): linear in the worst case, and nothing is ever sorted. With no
 * truncation at all the draw goes over the sums of blocks, then into one block.
 *
 * The operations and their order depend on the row and the parameters alone, so equal logits give
 * equal tokens on every machine.
 */
#include "engine/sampler.h"

#include "base/cpu.h"
#include "base/num.h"
#include "base/rng.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 64, /* logits that share a maximum and a sum */
    WIDTH = 4,  /* lanes of a vector */
    VECS = 4,   /* vectors side by side in a pass over a block */
    LANES = WIDTH * VECS,
    LAST_MAX = 1 << 24,
};

/* Keeps the draws apart from other uses of the same seed. */
static const uint64_t rng_stream = 0x73616d706c65; /* "sample" */

struct cand {
    float l;      /* logit after bias and penalties */
    float p;      /* not normalised: exp of the logit less some maximum */
    int32_t id;   /* ascending over the list */
    uint32_t key; /* what find_cut selects by: larger is better */
};

/* Token counts over a window of the last tokens (or all of them). */
struct history {
    int32_t *count;              /* [n_vocab] */
    int32_t *place;              /* [n_vocab] index in ids, valid where count > 0 */
    int32_t *ids;                /* [n_vocab] the n_ids distinct tokens */
    int32_t *ring;               /* [window] or NULL when all tokens count */
    size_t n_ids, window, n, at; /* n tokens in the ring, next one goes to at */
};

/* Of BLOCK logits. */
typedef double mass_fn(const float *l, float max, float scale);

struct sampler {
    mass_fn *mass_of;          /* for this machine */
    struct sampler_params par; /* bias is our copy */
    size_t n_vocab, n_blocks;
    float *work;       /* [n_vocab] the row after bias and penalties */
    float *top;        /* [n_blocks] block maxima */
    double *mass;      /* [n_blocks] block sums of exp */
    struct cand *cand; /* [n_vocab] */
    struct history hist;
    const int32_t *forbid; /* [n_forbid] borrowed */
    size_t n_forbid;
    uint64_t drawn;
    const uint32_t *mask; /* the caller's; NULL: all tokens may be drawn */
};

/* ---- parameters ---------------------------------------------------------------------------- */

void sampler_params_init(struct sampler_params *p)
{
    *p = (struct sampler_params){
        .temperature = 1,
        .top_p = 1,
        .typical_p = 1,
        .repetition_penalty = 1,
        .penalty_last = -1,
    };
}

struct range {
    const char *name;
    size_t offset; /* of a float in sampler_params */
    float lo, hi;
};

#define RANGE(field, lo, hi)                                   \
    {                                                          \
#field, offsetof(struct sampler_params, field), lo, hi \
    }
static const struct range ranges[] = {
    RANGE(temperature, 0, 100),
    RANGE(top_p, 0, 1),
    RANGE(min_p, 0, 1),
    RANGE(typical_p, 0, 1),
    RANGE(repetition_penalty, 1e-3f, 100),
    RANGE(frequency_penalty, -100, 100),
    RANGE(presence_penalty, -100, 100),
};

int sampler_params_check(const struct sampler_params *p, struct err *e)
{
    for (size_t i = 0; i < NUM_COUNT(ranges); i++) {
        const struct range *r = &ranges[i];
        float x;
        memcpy(&x, (const char *)p + r->offset, sizeof x);
        if (!(x >= r->lo && x <= r->hi)) /* also refuses NaN */
            return err_set(e, ERR_USAGE, "%s is %g: it has to be from %g to %g", r->name, (double)x,
                           (double)r->lo, (double)r->hi);
    }
    if (p->top_k < 0)
        return err_set(e, ERR_USAGE, "top_k is %d: it has to be 0 (off) or more", p->top_k);
    if (p->penalty_last < -1 || p->penalty_last > LAST_MAX)
        return err_set(e, ERR_USAGE,
                       "penalty_last is %d: it has to be -1 (all), 0 (none) or up to %d",
                       p->penalty_last, LAST_MAX);
    for (size_t i = 0; i < p->n_bias; i++)
        if (p->bias[i].id < 0 || !(p->bias[i].bias < INFINITY))
            return err_set(e, ERR_USAGE,
                           "logit bias of token %d is %g: it has to be a number or -inf",
                           (int)p->bias[i].id, (double)p->bias[i].bias);
    return 0;
}

static mass_fn *mass_best(void);

static bool has_penalties(const struct sampler_params *p)
{
    return p->penalty_last != 0 &&
           (p->repetition_penalty != 1 || p->frequency_penalty != 0 || p->presence_penalty != 0);
}

static bool truncates(const struct sampler *s)
{
    const struct sampler_params *p = &s->par;
    return (p->top_k > 0 && (size_t)p->top_k < s->n_vocab) || p->typical_p < 1 || p->top_p < 1 ||
           p->min_p > 0;
}

/* ---- life ---------------------------------------------------------------------------------- */

static int history_init(struct history *h, const struct sampler_params *p, size_t n_vocab,
                        struct err *e)
{
    if (!has_penalties(p))
        return 0;
    h->count = calloc(n_vocab, sizeof *h->count);
    h->place = calloc(n_vocab, sizeof *h->place);
    h->ids = calloc(n_vocab, sizeof *h->ids);
    h->window = p->penalty_last > 0 ? (size_t)p->penalty_last : 0;
    if (h->window)
        h->ring = calloc(h->window, sizeof *h->ring);
    if (!h->count || !h->place || !h->ids || (h->window && !h->ring))
        return err_nomem(e, 3 * n_vocab * sizeof *h->ids + h->window * sizeof *h->ring,
                         "token counts");
    return 0;
}

int sampler_new(struct sampler **out, const struct sampler_params *p, size_t n_vocab, struct err *e)
{
    *out = NULL;
    int rc = sampler_params_check(p, e);
    if (rc)
        return rc;
    if (n_vocab < 1 || n_vocab > INT32_MAX)
        return err_set(e, ERR_USAGE, "a vocabulary of %zu tokens cannot be sampled", n_vocab);
    for (size_t i = 0; i < p->n_bias; i++)
        if ((size_t)p->bias[i].id >= n_vocab)
            return err_set(e, ERR_USAGE, "logit bias for token %d: the vocabulary has %zu tokens",
                           (int)p->bias[i].id, n_vocab);
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return err_nomem(e, sizeof *s, "a sampler");
    s->mass_of = mass_best();
    s->par = *p;
    s->par.bias = NULL;
    s->n_vocab = n_vocab;
    s->n_blocks = (n_vocab + BLOCK - 1) / BLOCK;
    s->work = malloc(n_vocab * sizeof *s->work);
    s->top = malloc(s->n_blocks * sizeof *s->top);
    s->mass = malloc(s->n_blocks * sizeof *s->mass);
    s->cand = malloc(n_vocab * sizeof *s->cand);
    if (!s->work || !s->top || !s->mass || !s->cand)
        rc = err_nomem(e, n_vocab * (sizeof *s->work + sizeof *s->cand), "a sampler");
    if (!rc && p->n_bias) {
        size_t bytes = p->n_bias * sizeof *p->bias;
        struct sampler_bias *copy = malloc(bytes);
        if (copy)
            memcpy(copy, p->bias, bytes);
        else
            rc = err_nomem(e, bytes, "logit biases");
        s->par.bias = copy;
    }
    if (!rc)
        rc = history_init(&s->hist, p, n_vocab, e);
    if (rc) {
        sampler_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->work);
    free(s->top);
    free(s->mass);
    free(s->cand);
    free((void *)(uintptr_t)s->par.bias);
    free(s->hist.count);
    free(s->hist.place);
    free(s->hist.ids);
    free(s->hist.ring);
    free(s);
}

/* ---- history ------------------------------------------------------------------------------- */

static void history_remove(struct history *h, int32_t id)
{
    if (--h->count[id])
        return;
    int32_t last = h->ids[--h->n_ids]; /* the last of the list takes the free place */
    h->ids[h->place[id]] = last;
    h->place[last] = h->place[id];
}

int sampler_accept(struct sampler *s, int32_t id, struct err *e)
{
    if (id < 0 || (size_t)id >= s->n_vocab)
        return err_set(e, ERR_USAGE, "token %d: the vocabulary has %zu tokens", (int)id,
                       s->n_vocab);
    struct history *h = &s->hist;
    if (!h->count)
        return 0;
    if (h->ring) {
        if (h->n == h->window)
            history_remove(h, h->ring[h->at]);
        else
            h->n++;
        h->ring[h->at] = id;
        h->at = h->at + 1 == h->window ? 0 : h->at + 1;
    }
    if (h->count[id] == 0) {
        h->place[id] = (int32_t)h->n_ids;
        h->ids[h->n_ids++] = id;
    }
    if (h->count[id] < INT32_MAX)
        h->count[id]++;
    return 0;
}

void sampler_mask(struct sampler *s, const uint32_t *bits)
{
    s->mask = bits;
}

void sampler_reset(struct sampler *s)
{
    struct history *h = &s->hist;
    for (size_t i = 0; i < h->n_ids; i++)
        h->count[h->ids[i]] = 0;
    h->n_ids = h->n = h->at = 0;
}

void sampler_forbid(struct sampler *s, const int32_t *ids, size_t n)
{
    s->forbid = ids;
    s->n_forbid = n;
}

/* ---- passes over the row ------------------------------------------------------------------- */

/* Four lanes as the compilers' portable vectors; SSE2 and NEON have them in any build. */
typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_int __attribute__((vector_size(16)));

static inline vec vec_all(float x)
{
    return (vec){x, x, x, x};
}

static inline vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* a > b ? a : b in each lane, so b where either is NaN. */
static inline vec vec_max(vec a, vec b)
{
    vec_int more = a > b;
    return (vec)((more & (vec_int)a) | (~more & (vec_int)b));
}

/* `to` as a float, with overflow of a finite logit held inside the range. */
static float moved(float from, double to)
{
    if (!(fabsf(from) <= FLT_MAX) || to == -INFINITY)
        return from + (float)to; /* −inf stays forbidden, NaN and +inf stay wrong */
    return to > FLT_MAX ? FLT_MAX : to < -FLT_MAX ? -FLT_MAX : (float)to;
}

/* Logits where the mask is set, −inf elsewhere; NaN and +inf stay wrong. */
static void copy_masked(float *to, const float *l, size_t n, const uint32_t *mask)
{
    for (size_t i = 0; i < n; i += 32) {
        uint32_t word = mask[i / 32];
        size_t k = num_min(n - i, 32);
        for (size_t j = 0; j < k; j++)
            to[i + j] = (word >> j & 1) | !(l[i + j] <= FLT_MAX) ? l[i + j] : -INFINITY;
    }
}

/* The row with mask, bias and penalties; the row itself when there are none. */
static const float *adjusted(struct sampler *s, const float *logits)
{
    const struct sampler_params *p = &s->par;
    const struct history *h = &s->hist;
    if (!p->n_bias && !h->n_ids && !s->mask && !s->n_forbid)
        return logits;
    if (s->mask)
        copy_masked(s->work, logits, s->n_vocab, s->mask);
    else
        memcpy(s->work, logits, s->n_vocab * sizeof *logits);
    for (size_t i = 0; i < p->n_bias; i++) {
        float *l = &s->work[p->bias[i].id];
        *l = moved(*l, (double)*l + (double)p->bias[i].bias);
    }
    for (size_t i = 0; i < h->n_ids; i++) {
        float *at = &s->work[h->ids[i]];
        double l = (double)*at, r = (double)p->repetition_penalty;
        l = l <= 0 ? l * r : l / r;
        l -= h->count[h->ids[i]] * (double)p->frequency_penalty + (double)p->presence_penalty;
        *at = moved(*at, l);
    }
    for (size_t i = 0; i < s->n_forbid; i++)
        s->work[s->forbid[i]] = -INFINITY;
    return s->work;
}

/* Does a block hold NaN or +inf? Its maximum goes to *max. */
static bool block_scan(const float *l, size_t n, float *max)
{
    vec m[VECS];
    vec_int bad = {0};
    for (int j = 0; j < VECS; j++)
        m[j] = vec_all(-INFINITY);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
#pragma GCC unroll 4
        for (int j = 0; j < VECS; j++) {
            vec x = vec_load(l + i + j * WIDTH);
            m[j] = vec_max(x, m[j]);
            bad |= ~(x <= vec_all(FLT_MAX));
        }
    bool wrong = bad[0] | bad[1] | bad[2] | bad[3];
    m[0] = vec_max(vec_max(m[0], m[1]), vec_max(m[2], m[3]));
    float top = -INFINITY;
    for (int j = 0; j < WIDTH; j++)
        top = m[0][j] > top ? m[0][j] : top;
    for (; i < n; i++) {
        top = l[i] > top ? l[i] : top;
        wrong |= !(l[i] <= FLT_MAX);
    }
    *max = top;
    return wrong;
}

static size_t block_size(const struct sampler *s, size_t block)
{
    return num_min(BLOCK, s->n_vocab - block * BLOCK);
}

/* Checks the row and fills top; the maximum goes to *max. */
static int scan(struct sampler *s, const float *l, float *max, struct err *e)
{
    bool bad = false;
    float m = -INFINITY;
    for (size_t b = 0; b < s->n_blocks; b++) {
        bad |= block_scan(l + b * BLOCK, block_size(s, b), &s->top[b]);
        m = s->top[b] > m ? s->top[b] : m;
    }
    if (bad)
        return err_set(e, ERR_FORMAT,
                       "the logits hold NaN or infinity: the weights may be damaged");
    if (m == -INFINITY)
        return err_set(e, ERR_FORMAT, "no token is left to choose: all %zu are forbidden",
                       s->n_vocab);
    *max = m;
    return 0;
}

/* One register with AVX-512, four elsewhere. */
typedef float wide __attribute__((vector_size(4 * LANES)));
typedef int32_t wide_int __attribute__((vector_size(4 * LANES)));

/*
 * x = exp(x) for x ≤ 0, to about 1e-7: x = n·ln 2 + r with |r| ≤ ln 2 / 2 (Cody and Waite),
 * Taylor's polynomial of degree 7 for e^r, and 2^n in two factors so that results may be subnormal.
 * Without FMA and branches: one sequence of operations, and the same bits, for every machine.
 */
static inline __attribute__((always_inline)) void wide_exp_neg(wide *at)
{
    wide x = *at, low = (wide){0} - 104.0f, magic = (wide){0} + 0x1.8p23f;
    wide_int more = x > low; /* e^-104 rounds to 0 */
    x = (wide)((more & (wide_int)x) | (~more & (wide_int)low));
    wide t = x * 1.44269504f + magic, n = t - magic; /* rounds to an integer */
    wide r = x - n * 0x1.62e4p-1f;
    r = r - n * 0x1.7f7d1cp-20f;
    wide q = r * (1.0f / 5040) + 1.0f / 720;
    q = q * r + 1.0f / 120;
    q = q * r + 1.0f / 24;
    q = q * r + 1.0f / 6;
    q = q * r + 0.5f;
    q = q * r + 1.0f;
    q = q * r + 1.0f;
    wide_int i = (wide_int)t - (wide_int)magic, half = i >> 1;
    *at = q * (wide)((half + 127) << 23) * (wide)((i - half + 127) << 23);
}

/* Σ exp((l − max)·scale) of a whole block, in lanes. */
static inline __attribute__((always_inline)) double mass_of(const float *l, float max, float scale)
{
    wide sum = {0};
    for (int i = 0; i < BLOCK; i += LANES) {
        wide x;
        memcpy(&x, l + i, sizeof x);
        x = (x - max) * scale;
        wide_exp_neg(&x);
        sum += x;
    }
    float s[LANES], all[WIDTH];
    memcpy(s, &sum, sizeof s);
    for (int j = 0; j < WIDTH; j++)
        all[j] = (s[j] + s[WIDTH + j]) + (s[2 * WIDTH + j] + s[3 * WIDTH + j]);
    return (double)((all[0] + all[1]) + (all[2] + all[3]));
}

static double mass_plain(const float *l, float max, float scale)
{
    return mass_of(l, max, scale);
}

#if defined __x86_64__
__attribute__((target("avx512f"))) static double mass_avx512(const float *l, float max, float scale)
{
    return mass_of(l, max, scale);
}
#endif

static mass_fn *mass_best(void)
{
#if defined __x86_64__
    if (cpu_best() >= CPU_AVX512) /* AVX2 gained nothing over the plain form */
        return mass_avx512;
#endif
    return mass_plain;
}

static double block_mass(const struct sampler *s, const float *l, size_t block, float max,
                         float scale)
{
    float padded[BLOCK];
    size_t n = block_size(s, block);
    l += block * BLOCK;
    if (n < BLOCK) {
        memcpy(padded, l, n * sizeof *l);
        for (size_t i = n; i < BLOCK; i++)
            padded[i] = -INFINITY;
        l = padded;
    }
    return s->mass_of(l, max, scale);
}

/* Fills mass; returns its sum. Blocks that are 0 in float arithmetic are not visited. */
static double row_mass(struct sampler *s, const float *l, float max, float scale)
{
    double total = 0;
    for (size_t b = 0; b < s->n_blocks; b++) {
        bool none = (s->top[b] - max) * scale <= -104.0f;
        s->mass[b] = none ? 0 : block_mass(s, l, b, max, scale);
        total += s->mass[b];
    }
    return total;
}

/* ---- selection ----------------------------------------------------------------------------- */

/* Order-preserving: a < b as floats if and only if as keys; −0 counts as +0. */
static uint32_t key_of(float f)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = f + 0.0f};
    return x.u & 0x80000000u ? ~x.u : x.u | 0x80000000u;
}

/* A prefix (by falling key, then rising id) ends with the candidate that fulfils its rule. */
struct rule {
    size_t count; /* so many candidates; SIZE_MAX when that does not matter */
    double mass;  /* or this sum of p; INFINITY when that does not matter */
    bool over;    /* the sum has to be over `mass`, not only reach it */
};

struct cut {
    uint32_t key; /* candidates with a larger key are in */
    size_t ties;  /* and so many with this key, lowest ids first */
};

static bool fulfils(const struct rule *r, size_t count, double mass)
{
    return count >= r->count || (r->over ? mass > r->mass : mass >= r->mass);
}

/* Where the prefix ends: the key's bytes from the top, a histogram for each. */
static struct cut find_cut(const struct cand *c, size_t n, const struct rule *rule)
{
    uint32_t prefix = 0, mask = 0;
    size_t taken = 0;
    double mass = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t counts[256] = {0};
        double masses[256] = {0};
        for (size_t i = 0; i < n; i++)
            if ((c[i].key & mask) == prefix) {
                unsigned b = c[i].key >> shift & 255;
                counts[b]++;
                masses[b] += (double)c[i].p;
            }
        int b = 255, last = -1;
        for (; b >= 0; b--) {
            if (!counts[b])
                continue;
            if (fulfils(rule, taken + counts[b], mass + masses[b]))
                break;
            taken += counts[b];
            mass += masses[b];
            last = b;
        }
        if (b < 0) {
            if (!mask)
                return (struct cut){0, n}; /* not even all of them: all stay */
            /* Sums in another order may fall short by a rounding: the end is then the last one. */
            b = last;
            taken -= counts[b];
            mass -= masses[b];
        }
        prefix |= (uint32_t)b << shift;
        mask |= 255u << shift;
    }
    size_t ties = 0;
    for (size_t i = 0; i < n; i++)
        if (c[i].key == prefix) {
            ties++;
            mass += (double)c[i].p;
            if (fulfils(rule, taken + ties, mass))
                break;
        }
    return (struct cut){prefix, ties};
}

/* Keeps the prefix that the rule describes; the order stays. Returns how many are left. */
static size_t keep_prefix(struct cand *c, size_t n, struct rule rule)
{
    struct cut cut = find_cut(c, n, &rule);
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        if (c[i].key < cut.key || (c[i].key == cut.key && !cut.ties))
            continue;
        if (c[i].key == cut.key)
            cut.ties--;
        c[w++] = c[i];
    }
    return w;
}

/* All tokens with a logit of at least `least` (and not forbidden) become candidates. */
static size_t gather(struct sampler *s, const float *l, float least)
{
    size_t n = 0;
    if (!(least > -FLT_MAX))
        least = -FLT_MAX; /* −inf stays out */
    for (size_t b = 0; b < s->n_blocks; b++) {
        if (!(s->top[b] >= least))
            continue;
        size_t end = b * BLOCK + block_size(s, b);
        for (size_t i = b * BLOCK; i < end; i++)
            if (l[i] >= least)
                s->cand[n++] = (struct cand){.l = l[i], .id = (int32_t)i, .key = key_of(l[i])};
    }
    return n;
}

static float max_logit(const struct cand *c, size_t n)
{
    float m = -INFINITY;
    for (size_t i = 0; i < n; i++)
        m = c[i].l > m ? c[i].l : m;
    return m;
}

/* p = exp((l − max)·scale); returns their sum. */
static double weigh(struct cand *c, size_t n, float max, float scale)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += LANES) {
        size_t k = num_min(n - i, LANES);
        wide p = {0};
        for (size_t j = 0; j < k; j++)
            p[j] = (c[i + j].l - max) * scale;
        wide_exp_neg(&p);
        for (size_t j = 0; j < k; j++) {
            c[i + j].p = p[j];
            sum += (double)p[j];
        }
    }
    return sum;
}

/* ---- the truncations ----------------------------------------------------------------------- */

static size_t top_k(struct sampler *s, const float *l, size_t k)
{
    float least = -INFINITY;
    if (k < s->n_blocks) {
        for (size_t b = 0; b < s->n_blocks; b++)
            s->cand[b] = (struct cand){.l = s->top[b], .id = (int32_t)b, .key = key_of(s->top[b])};
        struct rule rule = {.count = k, .mass = INFINITY};
        size_t n = keep_prefix(s->cand, s->n_blocks, rule);
        least = INFINITY;
        for (size_t i = 0; i < n; i++)
            least = s->cand[i].l < least ? s->cand[i].l : least;
    }
    size_t n = gather(s, l, least);
    return keep_prefix(s->cand, n, (struct rule){.count = k, .mass = INFINITY});
}

/* At least the mass of the logits from `least` on: that of all blocks which hold one. A thousandth
   more than their sums, which are rounded. */
static double mass_bound(const struct sampler *s, float least)
{
    double sum = 0;
    for (size_t b = 0; b < s->n_blocks; b++)
        sum += s->top[b] >= least ? s->mass[b] : 0;
    return sum * 1.001;
}

/* Candidates that hold at least `share` of the mass of the whole row, which goes to *total. */
static size_t gather_mass(struct sampler *s, const float *l, float max, float share, double *total)
{
    static const float depth[] = {2, 4, 8, 12, 16, 24, INFINITY};
    *total = row_mass(s, l, max, 1);
    for (size_t i = 0;; i++) {
        bool last = i + 1 == NUM_COUNT(depth);
        double want = (double)share * *total;
        if (!last && mass_bound(s, max - depth[i]) < want)
            continue;
        size_t n = gather(s, l, max - depth[i]);
        if (weigh(s->cand, n, max, 1) >= want || last)
            return n;
    }
}

static size_t typical_p(struct cand *c, size_t n, float share)
{
    float max = max_logit(c, n);
    double total = weigh(c, n, max, 1), log_total = log(total), entropy = 0;
    for (size_t i = 0; i < n; i++)
        entropy += (double)c[i].p / total * (log_total - ((double)c[i].l - (double)max));
    for (size_t i = 0; i < n; i++) {
        double surprise = log_total - ((double)c[i].l - (double)max);
        c[i].key = key_of((float)-fabs(surprise - entropy));
    }
    n = keep_prefix(c, n,
                    (struct rule){.count = SIZE_MAX, .mass = (double)share * total, .over = true});
    for (size_t i = 0; i < n; i++)
        c[i].key = key_of(c[i].l);
    return n;
}

static size_t min_p(struct cand *c, size_t n, float share)
{
    size_t w = 0;
    weigh(c, n, max_logit(c, n), 1);
    for (size_t i = 0; i < n; i++)
        if (c[i].p >= share)
            c[w++] = c[i];
    return w;
}

/* Runs the truncations that are on; at least one is. Returns how many candidates are left (≥ 1). */
static size_t truncate_row(struct sampler *s, const float *l, float max)
{
    const struct sampler_params *p = &s->par;
    double total = 0; /* of the row, when top-p comes first */
    size_t n;
    if (p->top_k > 0 && (size_t)p->top_k < s->n_vocab)
        n = top_k(s, l, (size_t)p->top_k);
    else if (p->typical_p < 1)
        n = gather(s, l, -INFINITY);
    else if (p->top_p < 1)
        n = gather_mass(s, l, max, p->top_p, &total);
    else /* a little slack: min_p decides by the quotient itself */
        n = gather(s, l, max + logf(p->min_p) - 0.001f);
    if (p->typical_p < 1)
        n = typical_p(s->cand, n, p->typical_p);
    if (p->top_p < 1) {
        if (total == 0)
            total = weigh(s->cand, n, max_logit(s->cand, n), 1);
        n = keep_prefix(s->cand, n,
                        (struct rule){.count = SIZE_MAX, .mass = (double)p->top_p * total});
    }
    if (p->min_p > 0)
        n = min_p(s->cand, n, p->min_p);
    return n;
}

/* ---- results ------------------------------------------------------------------------------- */

static float inverse_temperature(const struct sampler *s)
{
    float inv = 1 / s->par.temperature;
    return inv < FLT_MAX ? inv : FLT_MAX; /* 0 × inf would be NaN */
}

static int32_t first_of_max(const struct sampler *s, const float *l, float max)
{
    size_t i = 0;
    while (!(s->top[i / BLOCK] >= max))
        i += BLOCK;
    while (l[i] != max)
        i++;
    return (int32_t)i;
}

size_t sampler_probs(struct sampler *s, const float *logits, float *p)
{
    memset(p, 0, s->n_vocab * sizeof *p);
    const float *l = adjusted(s, logits);
    float max;
    if (scan(s, l, &max, NULL))
        return 0;
    if (s->par.temperature == 0) {
        p[first_of_max(s, l, max)] = 1;
        return 1;
    }
    size_t n = truncates(s) ? truncate_row(s, l, max) : gather(s, l, -INFINITY), kept = 0;
    double total = weigh(s->cand, n, max_logit(s->cand, n), inverse_temperature(s));
    for (size_t i = 0; i < n; i++) {
        float x = (float)((double)s->cand[i].p / total);
        p[s->cand[i].id] = x;
        kept += x > 0;
    }
    return kept;
}

/* The first index whose running sum is over r; the last positive one when rounding hides it. */
static size_t pick(const struct cand *c, size_t n, double r)
{
    size_t last = 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(c[i].p > 0))
            continue;
        last = i;
        sum += (double)c[i].p;
        if (sum > r)
            break;
    }
    return last;
}

static int32_t draw_row(struct sampler *s, const float *l, float max, double u)
{
    float scale = inverse_temperature(s);
    double r = u * row_mass(s, l, max, scale), sum = 0;
    size_t last = 0, b = 0;
    for (; b < s->n_blocks; b++) {
        if (!(s->mass[b] > 0))
            continue;
        last = b;
        if (sum + s->mass[b] > r)
            break;
        sum += s->mass[b];
    }
    if (b == s->n_blocks)
        sum -= s->mass[last];
    size_t first = last * BLOCK, n = block_size(s, last);
    for (size_t i = 0; i < n; i++)
        s->cand[i] = (struct cand){.l = l[first + i]};
    weigh(s->cand, n, max, scale);
    return (int32_t)(first + pick(s->cand, n, r - sum));
}

int sampler_next(struct sampler *s, const float *logits, int32_t *id, struct err *e)
{
    const float *l = adjusted(s, logits);
    float max = -INFINITY;
    int rc = scan(s, l, &max, e);
    if (rc)
        return rc;
    uint32_t w[4];
    rng_block(s->par.seed, rng_stream, s->drawn, w);
    double u = (double)(((uint64_t)w[0] << 32 | w[1]) >> 11) * 0x1p-53;
    if (s->par.temperature == 0) {
        *id = first_of_max(s, l, max);
    } else if (!truncates(s)) {
        *id = draw_row(s, l, max, u);
    } else {
        size_t n = truncate_row(s, l, max);
        double total = weigh(s->cand, n, max_logit(s->cand, n), inverse_temperature(s));
        *id = s->cand[pick(s->cand, n, u * total)].id;
    }
    s->drawn++;
    return 0;
}

double sampler_logsum(const float *logits, size_t n_vocab)
{
    float max = -INFINITY;
    for (size_t i = 0; i < n_vocab; i++)
        max = logits[i] > max ? logits[i] : max;
    if (!(max > -INFINITY))
        return NAN;
    double sum = 0;
    for (size_t i = 0; i < n_vocab; i++)
        sum += exp((double)logits[i] - (double)max);
    return (double)max + log(sum);
}

double sampler_logprob(const float *logits, size_t n_vocab, int32_t id)
{
    return (double)logits[id] - sampler_logsum(logits, n_vocab);
}
