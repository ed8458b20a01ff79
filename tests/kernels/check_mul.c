/*
 * Matrix products of every weight type: equal bits at all levels over odd sizes, real shapes,
 * column windows and special values; and, for the definition itself, agreement with the decoder of
 * quant/ within the rounding of the chain, which also holds pack to the file's meaning.
 */
#include "checkasm.h"

#include "base/num.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What random weights look like. */
enum kind {
    KIND_PLAIN,   /* any quants, scales of usual size */
    KIND_EXTREME, /* quants and activations at their ends */
    KIND_SPECIAL, /* scales any 16 bits (NaN, infinities, subnormals), activation scales too */
    KIND_ZERO,    /* activations all zero */
    KIND_TINY,    /* BF16: products and sums around the least normal number */
    KIND_COUNT,
};

/* Offsets of the fp16 fields of a block. */
static const struct {
    enum quant_id id;
    uint8_t count, at[2];
} halves[] = {
    {QUANT_Q8_0, 1, {0}},      {QUANT_Q4_0, 1, {0}},    {QUANT_Q5_0, 1, {0}},
    {QUANT_Q4_1, 2, {0, 2}},   {QUANT_Q5_1, 2, {0, 2}}, {QUANT_IQ4_NL, 1, {0}},
    {QUANT_Q4Z, 2, {0, 2}},    {QUANT_Q8Z, 2, {0, 2}},  {QUANT_Q4_K, 2, {0, 2}},
    {QUANT_Q5_K, 2, {0, 2}},   {QUANT_Q6_K, 1, {208}},  {QUANT_TQ2_0, 1, {64}},
    {QUANT_TQ1_0, 1, {52}},    {QUANT_IQ2_XXS, 1, {0}}, {QUANT_IQ3_XXS, 1, {0}},
    {QUANT_IQ2_XS, 1, {0}},    {QUANT_IQ2_S, 1, {0}},   {QUANT_IQ3_S, 1, {0}},
    {QUANT_IQ1_S, 1, {0}},     {QUANT_IQ4_XS, 1, {0}},  {QUANT_Q3_K, 1, {108}},
    {QUANT_Q2_K, 2, {80, 82}},
};

static void put_half(uint8_t *p, uint16_t h)
{
    memcpy(p, &h, 2);
}

/* About 2^-8 .. 2^-4, either sign. */
static uint16_t plain_half(struct checkasm *c)
{
    return (uint16_t)(0x1c00 + check_u32(c) % 0x1000 + (check_u32(c) & 1) * 0x8000);
}

/* 2^(low − 127) to 2^(high − 127), either sign. */
static uint16_t tiny_bf16(struct checkasm *c, size_t low, size_t high)
{
    return (uint16_t)((check_u32(c) & 0x807f) | check_range(c, low, high) << 7);
}

/* Codes of floats begin with a float scale. */
static bool has_float_scale(const struct quant_type *t)
{
    return t->id == QUANT_FP8 || t->id == QUANT_I8 || t->id == QUANT_NF4 || t->id == QUANT_FP4;
}

static void plain_float_scale(struct checkasm *c, const struct quant_type *t, uint8_t *block)
{
    float d = (1.5f + check_float(c)) / 128;
    memcpy(block, &d, sizeof d);
    for (size_t i = 4; i < t->bytes && t->id == QUANT_FP8; i++)
        if ((block[i] & 0x7F) == 0x7F) /* NaN; loaders refuse it */
            block[i] ^= 1;
}

/* Zero points are integers. */
static void plain_zero(struct checkasm *c, const struct quant_type *t, uint8_t *block)
{
    bool nibble = t->id == QUANT_Q4Z;
    if (nibble || t->id == QUANT_Q8Z)
        put_half(block + 2, quant_f32_to_f16(nibble ? (float)check_range(c, 0, 15)
                                                    : (float)check_range(c, 0, 255) - 128));
}

/* The d of IQ1_M is spread over the top nibbles of four halves. */
static void plain_iq1_m(struct checkasm *c, uint8_t *block)
{
    unsigned half = plain_half(c);
    for (size_t i = 0; i < 4; i++) {
        uint8_t *top = block + 48 + 2 * i + 1;
        *top = (uint8_t)((*top & 15) | (half >> 4 * i & 15) << 4);
    }
}

static void random_blocks(struct checkasm *c, const struct quant_type *t, uint8_t *p, size_t bytes,
                          enum kind kind)
{
    if (kind == KIND_EXTREME)
        for (size_t i = 0; i < bytes; i++)
            p[i] = (uint8_t[]){0x00, 0xFF, 0x80, 0x7F}[check_u32(c) % 4];
    else
        check_bytes(c, p, bytes);
    if (kind == KIND_SPECIAL)
        return;
    for (size_t b = 0; has_float_scale(t) && b + t->bytes <= bytes; b += t->bytes)
        plain_float_scale(c, t, p + b);
    for (size_t b = 0; t->id == QUANT_MXFP4 && b + t->bytes <= bytes; b += t->bytes)
        p[b] = (uint8_t)check_range(c, 115, 125); /* 2^-12 .. 2^-2 */
    for (size_t b = 0; t->id == QUANT_IQ1_M && b + t->bytes <= bytes; b += t->bytes)
        plain_iq1_m(c, p + b);
    for (size_t h = 0; h < NUM_COUNT(halves); h++)
        if (halves[h].id == t->id)
            for (size_t b = 0; b + t->bytes <= bytes; b += t->bytes) {
                for (size_t i = 0; i < halves[h].count; i++)
                    put_half(p + b + halves[h].at[i], plain_half(c));
                plain_zero(c, t, p + b);
            }
}

/* Rows of a type in file order. */
static void random_weights(struct checkasm *c, const struct quant_type *t, uint8_t *p, size_t bytes,
                           enum kind kind)
{
    if (t->id == QUANT_BF16 && kind == KIND_TINY) {
        for (size_t i = 0; i < bytes; i += 2)
            put_half(p + i, tiny_bf16(c, 50, 70));
        return;
    }
    if (t->block > 1 || kind == KIND_SPECIAL) {
        random_blocks(c, t, p, bytes, kind);
        return;
    }
    for (size_t i = 0; i < bytes / t->bytes; i++) {
        float f = check_float(c);
        uint16_t h = t->id == QUANT_F16 ? quant_f32_to_f16(f) : quant_f32_to_bf16(f);
        memcpy(p + i * t->bytes, t->id == QUANT_F32 ? (void *)&f : (void *)&h, t->bytes);
    }
}

static float random_scale(struct checkasm *c, enum kind kind)
{
    static const float special[] = {0, 1e-45f, 1e-38f, FLT_MAX, INFINITY, NAN, 1};
    if (kind == KIND_SPECIAL)
        return special[check_u32(c) % NUM_COUNT(special)];
    return (1.5f + check_float(c)) / 127;
}

static int8_t random_q(struct checkasm *c, enum kind kind)
{
    if (kind == KIND_ZERO)
        return 0;
    if (kind == KIND_EXTREME)
        return check_u32(c) & 1 ? 127 : -127;
    return (int8_t)((int)(check_u32(c) % 255) - 127);
}

static void random_bf16(struct checkasm *c, struct kern_x *x, const struct quant_type *t,
                        enum kind kind)
{
    size_t n = num_round_up(x->k, 32) * x->cols;
    x->h = check_buf(c, n * sizeof *x->h);
    for (size_t i = 0; i < n; i++) {
        bool fp8 = t->id == QUANT_FP8;
        uint16_t h = kind == KIND_TINY ? tiny_bf16(c, fp8 ? 0 : 50, fp8 ? 40 : 70)
                     : kind == KIND_SPECIAL && check_u32(c) % 64 == 0
                         ? (uint16_t)check_u32(c)
                         : quant_f32_to_bf16(check_float(c));
        bool beyond = i / 32 / x->cols * 32 + i % 32 >= x->k;
        x->h[i] = kind == KIND_ZERO || beyond ? 0 : h;
    }
}

/* Activations as quantize_* would leave them: sums that agree, zeros beyond k. */
static void random_x(struct checkasm *c, struct kern_x *x, const struct quant_type *t,
                     enum kern_act act, size_t k, size_t cols, enum kind kind)
{
    memset(x, 0, sizeof *x);
    x->k = k;
    x->cols = cols;
    if (act == KERN_ACT_F32) {
        x->ldf = k + check_u32(c) % 3;
        float *f = check_buf(c, ((cols - 1) * x->ldf + k) * sizeof *f);
        for (size_t i = 0; i < cols; i++)
            for (size_t j = 0; j < k; j++)
                f[i * x->ldf + j] = kind == KIND_ZERO ? 0
                                    : kind == KIND_SPECIAL && check_u32(c) % 64 == 0
                                        ? random_scale(c, kind)
                                        : check_float(c);
        x->f = f;
        return;
    }
    if (act == KERN_ACT_BF16) {
        random_bf16(c, x, t, kind);
        return;
    }
    bool q32 = act == KERN_ACT_Q32;
    size_t block = q32 ? 32 : 256, n = num_round_up(k, q32 ? 64 : 256) / block;
    x->q = check_buf(c, n * cols * block);
    x->d = check_buf(c, n * cols * sizeof *x->d);
    if (q32) {
        x->s = check_buf(c, n * cols * sizeof *x->s);
        x->sum = check_buf(c, n * cols * sizeof *x->sum);
    } else {
        x->sum16 = check_buf(c, n * cols * 16 * sizeof *x->sum16);
        x->sum32 = check_buf(c, n * cols * 8 * sizeof *x->sum32);
    }
    for (size_t b = 0; b < n; b++)
        for (size_t i = 0; i < cols; i++) {
            size_t at = b * cols + i;
            int total = 0, sum16 = 0;
            x->d[at] = b * block < k && kind != KIND_ZERO ? random_scale(c, kind) : 0;
            for (size_t j = 0; j < block; j++) {
                size_t v = b * block + j;
                int8_t *q = &x->q[(v / 32 * cols + i) * 32 + v % 32];
                *q = v < k ? random_q(c, kind) : 0;
                total += *q;
                sum16 += *q;
                if (!q32 && j % 16 == 15) {
                    x->sum16[at * 16 + j / 16] = (int16_t)sum16;
                    sum16 = 0;
                }
                if (!q32 && j % 32 == 31) {
                    x->sum32[at * 8 + j / 32] = (int16_t)total;
                    total = 0;
                }
            }
            if (q32) {
                x->sum[at] = total;
                x->s[at] = x->d[at] * (float)total;
            }
        }
}

/* Value i of column col, as the product means it. */
static double x_value(const struct kern_x *x, enum kern_act act, size_t i, size_t col)
{
    if (act == KERN_ACT_F32)
        return x->f[col * x->ldf + i];
    if (act == KERN_ACT_BF16)
        return quant_bf16_to_f32(x->h[(i / 32 * x->cols + col) * 32 + i % 32]);
    size_t block = act == KERN_ACT_Q32 ? 32 : 256;
    return (double)x->q[(i / 32 * x->cols + col) * 32 + i % 32] * x->d[i / block * x->cols + col];
}

/* One product of random data. */
struct problem {
    const struct quant_type *t;
    bool f32;             /* mul_f32 instead of mul */
    size_t rows, k, cols; /* columns asked for */
    size_t col0, ldy, ylen;
    struct kern_x x;
    uint8_t *file, *panels;
    float *y;
};

static enum kern_act problem_act(const struct checkasm *c, const struct problem *p)
{
    return p->f32 ? KERN_ACT_F32 : c->ref->mul[p->t->id].act;
}

static void problem_init(struct checkasm *c, struct problem *p, const struct quant_type *t,
                         bool f32, size_t rows, size_t k, size_t cols, enum kind kind)
{
    const struct kern_mul *m = &c->ref->mul[t->id];
    size_t row = check_row_bytes(t, k), panel = m->panel_bytes(k), n = (rows + 15) / 16;
    *p = (struct problem){.t = t, .f32 = f32, .rows = rows, .k = k, .cols = cols};
    p->col0 = check_u32(c) % 3;
    p->ldy = rows + check_u32(c) % 3;
    p->ylen = (cols - 1) * p->ldy + rows;
    random_x(c, &p->x, t, problem_act(c, p), k, p->col0 + cols + check_u32(c) % 2, kind);
    p->file = check_buf(c, row * rows);
    random_weights(c, t, p->file, rows * row, kind);
    p->panels = check_buf(c, panel * n);
    for (size_t i = 0; i < n; i++)
        m->pack(p->panels + i * panel, p->file + i * 16 * row, row, num_min(16, rows - 16 * i), k);
    p->y = check_buf(c, p->ylen * sizeof *p->y);
}

static void problem_run(const struct kern *k, struct problem *p, float *y)
{
    const struct kern_mul *m = &k->mul[p->t->id];
    (p->f32 ? m->mul_f32 : m->mul)(y, p->ldy, p->panels, p->rows, p->k, &p->x, p->col0, p->cols);
}

/* Of types with a zero point (a code's value is d × (code − z)) products add d × code × x and
   −d × z × x, which may cancel: what a row is with all codes 0. Of other types, zeros. */
static void row_minima(struct checkasm *c, const struct quant_type *t, const uint8_t *file,
                       size_t bytes, size_t k, float *out)
{
    enum { HEAD = 4 }; /* d and z, as halves */
    memset(out, 0, k * sizeof *out);
    if (t->id != QUANT_Q4Z && t->id != QUANT_Q8Z)
        return;
    uint8_t *row = check_buf(c, bytes);
    memcpy(row, file, bytes);
    for (size_t at = 0; at + t->bytes <= bytes; at += t->bytes)
        memset(row + at + HEAD, 0, t->bytes - HEAD);
    t->decode(out, row, k);
}

/* The chain of n rounded steps stays within about n eps of the sum of magnitudes. */
static void against_decoder(struct checkasm *c, struct problem *p)
{
    enum kern_act act = problem_act(c, p);
    size_t row = check_row_bytes(p->t, p->k);
    float *w = check_buf(c, p->k * sizeof *w), *least = check_buf(c, p->k * sizeof *least);
    for (size_t r = 0; r < p->rows; r++) {
        p->t->decode(w, p->file + r * row, p->k);
        row_minima(c, p->t, p->file + r * row, row, p->k, least);
        for (size_t i = 0; i < p->cols; i++) {
            double sum = 0, size = 0;
            for (size_t j = 0; j < p->k; j++) {
                double v = w[j] * x_value(&p->x, act, j, p->col0 + i);
                sum += v;
                size += fabs(v) + fabs(least[j] * x_value(&p->x, act, j, p->col0 + i));
            }
            double got = p->y[i * p->ldy + r];
            size_t steps = p->k / p->t->block + 64;
            /* minima enter apart from the quants: a sum of two parts that may cancel */
            if (!(fabs(got - sum) <= 16 * (double)steps * FLT_EPSILON * size + 1e-30)) {
                check_fail(c, "rows %zu k %zu cols %zu: row %zu column %zu is %g, decoded %g",
                           p->rows, p->k, p->cols, r, i, got, sum);
                return;
            }
        }
    }
}

static void check_problem(struct checkasm *c, const struct quant_type *t, bool f32, size_t rows,
                          size_t k, size_t cols, enum kind kind)
{
    struct problem p;
    char what[96];
    if (c->any_zero && kind >= KIND_SPECIAL && c->ref->mul[t->id].act == KERN_ACT_BF16 && !f32)
        kind = KIND_PLAIN; /* valgrind does not flush */
    problem_init(c, &p, t, f32, rows, k, cols, kind);
    float *want = check_buf(c, p.ylen * sizeof *want);
    snprintf(what, sizeof what, "rows %zu k %zu cols %zu of %zu at %zu, kind %d", rows, k, cols,
             p.x.cols, p.col0, kind);
    problem_run(c->ref, &p, want);
    problem_run(c->k, &p, p.y);
    check_same(c, p.y, want, p.ylen, what); /* gaps between columns keep their filling */
    problem_run(c->k, &p, want);
    check_same(c, p.y, want, p.ylen, "second call");
    if (!f32 && c->k->mul[t->id].mul_other) {
        c->k->mul[t->id].mul_other(want, p.ldy, p.panels, p.rows, p.k, &p.x, p.col0, p.cols);
        check_same(c, want, p.y, p.ylen, "the form of other processors");
    }
    if (c->isa == CPU_SCALAR && kind == KIND_PLAIN && rows * k * cols < 4000000)
        against_decoder(c, &p);
    check_buf_reset(c);
}

static void bench_run(const struct kern *k, void *arg)
{
    struct problem *p = arg;
    problem_run(k, p, p->y);
}

static void bench_type(struct checkasm *c, const struct quant_type *t, bool f32)
{
    static const size_t shapes[][2] = {{1536, 8960}, {8960, 1536}, {576, 1536}};
    static const size_t columns[] = {1, 4, 32, 512};
    for (size_t s = 0; s < NUM_COUNT(shapes); s++)
        for (size_t i = 0; i < NUM_COUNT(columns); i++) {
            struct problem p;
            char what[64];
            size_t rows = shapes[s][0], k = shapes[s][1], cols = columns[i];
            if (c->isa == CPU_SCALAR && cols > 1)
                continue;
            problem_init(c, &p, t, f32, rows, k, cols, KIND_PLAIN);
            snprintf(what, sizeof what, "%zux%zu N=%zu", rows, k, cols);
            check_bench(c, what, bench_run, &p, (double)(rows * check_row_bytes(t, k)),
                        2.0 * (double)(rows * k * cols));
            check_buf_reset(c);
        }
}

void check_mul(struct checkasm *c)
{
    static const size_t real[][3] = {{576, 1536, 1}, {896, 4864, 2}, {1536, 8960, 1}};
    size_t count;
    const struct quant_type *const *all = quant_all(&count);
    for (size_t i = 0; i < 2 * count; i++) {
        const struct quant_type *t = all[i / 2];
        const struct kern_mul *m = &c->k->mul[t->id], *below = &c->below->mul[t->id];
        bool f32 = i % 2;
        size_t unit = num_max(t->block, 1);
        if (m->act == KERN_ACT_NONE || (f32 && !m->mul_f32))
            continue;
        if (!check_func(c, f32 ? m->mul_f32 != below->mul_f32 : m->mul != below->mul, "mul%s.%s",
                        f32 ? "_f32" : "", t->name))
            continue;
        for (size_t cols = 1; cols <= 33; cols++)
            check_problem(c, t, f32, check_range(c, 1, 50),
                          unit * check_range(c, 1, unit > 32 ? 3 : 12), cols, KIND_PLAIN);
        for (size_t rows = 1; rows <= 50; rows++)
            check_problem(c, t, f32, rows, unit * check_range(c, 1, unit > 32 ? 3 : 12),
                          check_range(c, 1, 9), KIND_PLAIN);
        for (int kind = 0; kind < KIND_COUNT; kind++)
            for (size_t n = 0; n < 8; n++)
                check_problem(c, t, f32, check_range(c, 1, 50), unit * check_range(c, 1, 5),
                              check_range(c, 1, 14), (enum kind)kind);
        for (size_t n = 0; n < NUM_COUNT(real) && c->isa > CPU_SCALAR; n++)
            check_problem(c, t, f32, real[n][0], real[n][1], real[n][2], KIND_PLAIN);
        check_problem(c, t, f32, 40, 1536, 131, KIND_PLAIN);
        for (size_t n = 0; n < 40 && t->partial; n++) /* rows that end within a block */
            check_problem(c, t, f32, check_range(c, 1, 50), check_range(c, 1, 300),
                          check_range(c, 0, 2) ? check_range(c, 1, 14) : 1,
                          (enum kind)(n % KIND_COUNT));
        if (c->bench)
            bench_type(c, t, f32);
    }
}
