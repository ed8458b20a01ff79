/*
 * Vector kernels: equal bits at all levels over odd sizes, offsets and special values, nothing read
 * or written outside; and the plain C versions, which are the definition, against libm in double
 * precision with bounds that follow from the number of roundings.
 */
#include "checkasm.h"

#include "base/num.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Sizes around the vector widths, and those of real models. */
static const size_t sizes[] = {0,  1,   2,   3,   7,   8,   9,    15,   16,  17, 18,
                               30, 31,  32,  33,  47,  48,  49,   63,   64,  65, 66,
                               79, 100, 127, 128, 130, 576, 1000, 1536, 4864};

/* ---- activations ---- */

/* A kern_x whose arrays all end at unmapped pages. */
static void x_buffers(struct checkasm *c, struct kern_x *x, size_t k, size_t cols, bool q32)
{
    size_t block = q32 ? 32 : 256, n = num_round_up(k, q32 ? 64 : 256) / block * cols;
    memset(x, 0, sizeof *x);
    x->k = k;
    x->cols = cols;
    x->q = check_buf(c, n * block);
    x->d = check_buf(c, n * sizeof *x->d);
    if (q32) {
        x->s = check_buf(c, n * sizeof *x->s);
        x->sum = check_buf(c, n * sizeof *x->sum);
    } else {
        x->sum16 = check_buf(c, n * 16 * sizeof *x->sum16);
        x->sum32 = check_buf(c, n * 8 * sizeof *x->sum32);
    }
}

/* The definition: within half a step of the value, sums true, zero beyond k, never −128. */
static void quantize_meaning(struct checkasm *c, const struct kern_x *x, const float *f, size_t ldf,
                             bool q32, bool finite)
{
    size_t block = q32 ? 32 : 256, padded = num_round_up(x->k, q32 ? 64 : 256);
    for (size_t col = 0; col < x->cols; col++) {
        int sum = 0;
        for (size_t i = 0; i < padded; i++) {
            size_t b = i / block * x->cols + col;
            int q = x->q[(i / 32 * x->cols + col) * 32 + i % 32];
            sum = i % 32 ? sum + q : q;
            if (q == -128 || (i >= x->k && q != 0))
                check_fail(c, "k %zu: value %zu became %d", x->k, i, q);
            double got = (double)q * x->d[b];
            if (finite && i < x->k &&
                !(fabs(got - f[col * ldf + i]) <= 0.5001 * x->d[b] + 127 * FLT_TRUE_MIN + 1e-36))
                check_fail(c, "k %zu: %g became %g", x->k, f[col * ldf + i], got);
            if (i % 32 == 31 && q32 && x->sum[b] != sum)
                check_fail(c, "k %zu: sum %d, not %d", x->k, x->sum[b], sum);
            if (i % 32 == 31 && !q32 && x->sum32[b * 8 + i / 32 % 8] != sum)
                check_fail(c, "k %zu: sum32 is wrong", x->k);
            if (i % 32 == 31 && !q32 &&
                x->sum16[b * 16 + i / 16 % 16 - 1] + x->sum16[b * 16 + i / 16 % 16] != sum)
                check_fail(c, "k %zu: sum16 is wrong", x->k);
        }
    }
}

static void quantize_once(struct checkasm *c, size_t k, size_t cols, bool q32, enum check_kind kind)
{
    size_t ldx = k + check_u32(c) % 3, block = q32 ? 32 : 256;
    size_t n = num_round_up(k, q32 ? 64 : 256) / block * cols;
    float *f = check_values(c, (cols - 1) * ldx + k, kind);
    struct kern_x got, want;
    x_buffers(c, &got, k, cols, q32);
    x_buffers(c, &want, k, cols, q32);
    size_t cut = check_range(c, 0, cols), first = check_range(c, 0, cut);
    /* only some columns: the others keep their filling */
    (q32 ? c->ref->quantize_q32 : c->ref->quantize_q256)(&want, f, ldx, first, cut - first);
    (q32 ? c->k->quantize_q32 : c->k->quantize_q256)(&got, f, ldx, first, cut - first);
    for (int pass = 0; pass < 2; pass++) {
        check_same_bytes(c, got.q, want.q, n * block, "q");
        check_same(c, got.d, want.d, n, "d");
        if (q32) {
            check_same(c, got.s, want.s, n, "s");
            check_same_bytes(c, got.sum, want.sum, n * sizeof *got.sum, "sum");
        } else {
            check_same_bytes(c, got.sum16, want.sum16, n * 16 * sizeof *got.sum16, "sum16");
            check_same_bytes(c, got.sum32, want.sum32, n * 8 * sizeof *got.sum32, "sum32");
        }
        (q32 ? c->ref->quantize_q32 : c->ref->quantize_q256)(&want, f, ldx, 0, cols);
        (q32 ? c->k->quantize_q32 : c->k->quantize_q256)(&got, f, ldx, 0, cols);
    }
    quantize_meaning(c, &got, f, ldx, q32, kind == CHECK_PLAIN || kind == CHECK_ZERO);
    check_buf_reset(c);
}

struct vec_bench {
    struct kern_x x;
    struct kern_tile t;
    struct kern_dots dots;
    float *a, *b, *c;
    uint16_t *h;
    size_t n;
    int type;
};

static void bench_q32(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->quantize_q32(&v->x, v->a, v->n, 0, 1);
}

static void bench_q256(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->quantize_q256(&v->x, v->a, v->n, 0, 1);
}

/* BF16: as f32_to_bf16 of each value, zeros beyond k, nothing outside of the columns. */
static void quantize_bf16_once(struct checkasm *c, size_t k, size_t cols, enum check_kind kind)
{
    size_t ldx = k + check_u32(c) % 3, n = num_round_up(k, 32) * cols;
    size_t cut = check_range(c, 1, cols), first = check_range(c, 0, cut - 1);
    float *f = check_values(c, (cols - 1) * ldx + k, kind);
    struct kern_x x = {.k = k, .cols = cols, .h = check_buf(c, n * 2)};
    uint16_t *want = check_buf(c, n * 2);
    c->k->quantize_bf16(&x, f, ldx, first, cut - first);
    for (size_t i = 0; i < n; i++) {
        size_t col = i / 32 % cols, at = i / 32 / cols * 32 + i % 32;
        if (col >= first && col < cut)
            want[i] = at < k ? quant_f32_to_bf16(f[col * ldx + at]) : 0;
    }
    check_same_bytes(c, x.h, want, n * 2, "h");
    check_buf_reset(c);
}

void check_quantize(struct checkasm *c)
{
    if (check_func(c, c->k->quantize_bf16 != c->below->quantize_bf16, "quantize_bf16"))
        for (size_t i = 1; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                quantize_bf16_once(c, sizes[i], check_range(c, 1, 3), (enum check_kind)kind);
    for (int q32 = 0; q32 < 2; q32++) {
        bool fresh = q32 ? c->k->quantize_q32 != c->below->quantize_q32
                         : c->k->quantize_q256 != c->below->quantize_q256;
        if (!check_func(c, fresh, q32 ? "quantize_q32" : "quantize_q256"))
            continue;
        for (size_t i = 1; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                quantize_once(c, sizes[i], check_range(c, 1, 3), q32, (enum check_kind)kind);
        for (size_t n = 576; c->bench && n <= 4864; n = n == 576    ? 1536
                                                        : n == 1536 ? 4864
                                                                    : n + 1) {
            struct vec_bench v = {.n = n};
            char what[32];
            x_buffers(c, &v.x, n, 1, q32);
            v.a = check_values(c, n, CHECK_PLAIN);
            snprintf(what, sizeof what, "n=%zu", n);
            check_bench(c, what, q32 ? bench_q32 : bench_q256, &v, 0, 0);
        }
    }
}

/* ---- strided float product ---- */

static void *tile_weights(struct checkasm *c, int type, size_t n, enum check_kind kind)
{
    float *f = check_values(c, n, kind);
    if (type == KERN_F32)
        return f;
    uint16_t *h = check_buf(c, n * sizeof *h);
    for (size_t i = 0; i < n; i++)
        h[i] = type == KERN_F16 ? quant_f32_to_f16(f[i]) : quant_f32_to_bf16(f[i]);
    return h;
}

static void tile_once(struct checkasm *c, int type, size_t rows, size_t k, size_t cols,
                      enum check_kind kind)
{
    char what[96];
    size_t panels = (rows + 15) / 16;
    struct kern_tile t = {.rows = rows, .k = k, .cols = cols};
    t.k_step = 16 + check_u32(c) % 3 * 5;
    t.panel_step = check_u32(c) & 1 ? t.k_step * k + check_u32(c) % 3 : 16;
    if (t.panel_step == 16)
        t.k_step = panels * 16; /* rows next to each other, as a row-major transpose has them */
    t.ldx = k + check_u32(c) % 3;
    t.ldy = rows + check_u32(c) % 3;
    size_t end = (panels - 1) * t.panel_step + (k ? (k - 1) * t.k_step + 16 : 0);
    size_t ylen = (cols - 1) * t.ldy + rows;
    t.w = tile_weights(c, type, end, kind);
    t.x = check_values(c, (cols - 1) * t.ldx + k, kind);
    float *want = t.y = check_buf(c, ylen * sizeof *t.y);
    c->ref->tile[type](&t);
    t.y = check_buf(c, ylen * sizeof *t.y);
    c->k->tile[type](&t);
    snprintf(what, sizeof what, "rows %zu k %zu cols %zu kind %d", rows, k, cols, kind);
    check_same(c, t.y, want, ylen, what);
    if (type == KERN_F32 && kind == CHECK_PLAIN)
        for (size_t i = 0; i < cols * rows; i++) {
            size_t col = i / rows, r = i % rows, at = r / 16 * t.panel_step + r % 16;
            double sum = 0, size = 0;
            for (size_t j = 0; j < k; j++) {
                double v = (double)((const float *)t.w)[at + j * t.k_step] * t.x[col * t.ldx + j];
                sum += v;
                size += fabs(v);
            }
            if (!(fabs(want[col * t.ldy + r] - sum) <= (double)k * FLT_EPSILON / 2 * size))
                check_fail(c, "%s: row %zu column %zu is %g, not %g", what, r, col,
                           want[col * t.ldy + r], sum);
        }
    check_buf_reset(c);
}

static void bench_tile_run(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->tile[v->type](&v->t);
}

static void bench_tile(struct checkasm *c, int type)
{
    static const size_t shapes[][3] = {{64, 128, 1}, {64, 128, 3}, {64, 128, 6}, {64, 128, 96},
                                       {128, 64, 1}, {128, 64, 6}, {128, 64, 96}};
    for (size_t i = 0; i < NUM_COUNT(shapes); i++) {
        size_t rows = shapes[i][0], k = shapes[i][1], cols = shapes[i][2];
        struct vec_bench v = {.type = type};
        char what[48];
        v.t = (struct kern_tile){.rows = rows,
                                 .k = k,
                                 .cols = cols,
                                 .panel_step = 16 * k,
                                 .k_step = 16,
                                 .ldx = k,
                                 .ldy = rows};
        v.t.w = tile_weights(c, type, rows * k, CHECK_PLAIN);
        v.t.x = check_values(c, k * cols, CHECK_PLAIN);
        v.t.y = check_buf(c, rows * cols * sizeof *v.t.y);
        snprintf(what, sizeof what, "rows=%zu k=%zu cols=%zu", rows, k, cols);
        check_bench(c, what, bench_tile_run, &v, (double)(rows * k * (type == KERN_F32 ? 4 : 2)),
                    2.0 * (double)(rows * k * cols));
        check_buf_reset(c);
    }
}

void check_tile(struct checkasm *c)
{
    static const char *const names[] = {"f32", "f16", "bf16"};
    static const size_t real[][3] = {{64, 128, 1},  {64, 128, 7}, {128, 64, 12}, {64, 192, 40},
                                     {16, 256, 96}, {512, 64, 3}, {64, 64, 128}};
    for (int type = 0; type < KERN_FLOAT_COUNT; type++) {
        if (!check_func(c, c->k->tile[type] != c->below->tile[type], "tile.%s", names[type]))
            continue;
        for (size_t cols = 1; cols <= 26; cols++)
            tile_once(c, type, check_range(c, 1, 140), check_range(c, 0, 40), cols, CHECK_PLAIN);
        for (size_t rows = 1; rows <= 70; rows++)
            tile_once(c, type, rows, check_range(c, 0, 40), check_range(c, 1, 9), CHECK_PLAIN);
        for (int kind = 0; kind < CHECK_KINDS; kind++)
            for (int i = 0; i < 10; i++)
                tile_once(c, type, check_range(c, 1, 80), check_range(c, 1, 600),
                          check_range(c, 1, 20), (enum check_kind)kind);
        for (size_t i = 0; i < NUM_COUNT(real); i++)
            tile_once(c, type, real[i][0], real[i][1], real[i][2], CHECK_PLAIN);
        if (c->bench)
            bench_tile(c, type);
    }
}

/* ---- dot products of rows ---- */

static void dots_once(struct checkasm *c, int type, size_t rows, size_t k, size_t cols,
                      enum check_kind kind)
{
    char what[96];
    struct kern_dots t = {.rows = rows, .k = k, .cols = cols};
    t.step = k + check_u32(c) % 3 * 5;
    t.ldx = k + check_u32(c) % 3;
    t.ldy = rows + check_u32(c) % 3;
    size_t ylen = (cols - 1) * t.ldy + rows;
    t.w = tile_weights(c, type, (rows - 1) * t.step + k, kind);
    t.x = check_values(c, (cols - 1) * t.ldx + k, kind);
    float *want = t.y = check_buf(c, ylen * sizeof *t.y);
    c->ref->dots[type](&t);
    t.y = check_buf(c, ylen * sizeof *t.y);
    c->k->dots[type](&t);
    snprintf(what, sizeof what, "rows %zu k %zu cols %zu kind %d", rows, k, cols, kind);
    check_same(c, t.y, want, ylen, what);
    for (size_t i = 0; type == KERN_F32 && kind == CHECK_PLAIN && i < cols * rows; i++) {
        size_t col = i / rows, r = i % rows;
        double sum = 0, size = 0;
        for (size_t j = 0; j < k; j++) {
            double v = (double)((const float *)t.w)[r * t.step + j] * t.x[col * t.ldx + j];
            sum += v;
            size += fabs(v);
        }
        if (!(fabs(want[col * t.ldy + r] - sum) <= (double)k * FLT_EPSILON / 2 * size))
            check_fail(c, "%s: row %zu column %zu is %g, not %g", what, r, col,
                       want[col * t.ldy + r], sum);
    }
    check_buf_reset(c);
}

static void bench_dots_run(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->dots[v->type](&v->dots);
}

void check_dots(struct checkasm *c)
{
    static const char *const names[] = {"f32", "f16", "bf16"};
    for (int type = 0; type < KERN_FLOAT_COUNT; type++) {
        if (!check_func(c, c->k->dots[type] != c->below->dots[type], "dots.%s", names[type]))
            continue;
        for (size_t cols = 1; cols <= 9; cols++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                dots_once(c, type, check_range(c, 1, 70), check_range(c, 1, 100), cols,
                          (enum check_kind)kind);
        dots_once(c, type, 64, 576, 16, CHECK_PLAIN);
        for (size_t cols = 8; c->bench && cols <= 64; cols *= 8) {
            struct vec_bench v = {.type = type};
            char what[48];
            v.dots = (struct kern_dots){
                .rows = 64, .k = 576, .step = 576, .cols = cols, .ldx = 576, .ldy = 64};
            v.dots.w = tile_weights(c, type, 64 * 576, CHECK_PLAIN);
            v.dots.x = check_values(c, 576 * cols, CHECK_PLAIN);
            v.dots.y = check_buf(c, 64 * cols * sizeof(float));
            snprintf(what, sizeof what, "rows=64 k=576 cols=%zu", cols);
            check_bench(c, what, bench_dots_run, &v, 64.0 * 576 * (type == KERN_F32 ? 4 : 2),
                        2.0 * 64 * 576 * (double)cols);
            check_buf_reset(c);
        }
    }
}

/* ---- rows ---- */

/* Times `run` at the sizes of real models. */
static void bench_rows(struct checkasm *c, void (*run)(const struct kern *k, void *arg),
                       const size_t *n, size_t count)
{
    for (size_t i = 0; c->bench && i < count; i++) {
        struct vec_bench v = {.n = n[i]};
        char what[32];
        v.a = check_values(c, 2 * n[i], CHECK_PLAIN);
        v.b = check_values(c, 2 * n[i], CHECK_PLAIN);
        for (size_t j = 0; j < 2 * n[i]; j++)
            v.b[j] = j % 2 ? 0.6f : 0.8f; /* a rotation: repeated, it neither grows nor fades */
        v.c = check_values(c, 2 * n[i], CHECK_PLAIN);
        v.h = check_buf(c, n[i] * sizeof *v.h);
        snprintf(what, sizeof what, "n=%zu", n[i]);
        check_bench(c, what, run, &v, 0, 0);
        check_buf_reset(c);
    }
}

static const size_t widths[] = {576, 1536, 4864};

static void bench_rmsnorm(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->rmsnorm(v->c, v->a, v->b, v->n, 1e-6f);
}

void check_rmsnorm(struct checkasm *c)
{
    if (!check_func(c, c->k->rmsnorm != c->below->rmsnorm, "rmsnorm"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float *x = check_values(c, n, (enum check_kind)kind),
                  *w = check_values(c, n, CHECK_PLAIN);
            float *want = check_buf(c, n * sizeof *x), *got = check_buf(c, n * sizeof *x);
            float eps = kind == CHECK_ZERO ? 1e-6f : 1e-5f;
            c->ref->rmsnorm(want, x, w, n, eps);
            c->k->rmsnorm(got, x, w, n, eps);
            check_same(c, got, want, n, "rmsnorm");
            double sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += (double)x[j] * x[j];
            double scale = n ? 1 / sqrt(sum / (double)n + eps) : 0;
            /* n/16 + 4 additions and 6 more roundings; the root halves what the sum lost */
            for (size_t j = 0; kind == CHECK_PLAIN && j < n; j++)
                if (!(fabs(want[j] - x[j] * scale * w[j]) <=
                      fabs(x[j] * scale * w[j]) * FLT_EPSILON * ((double)n / 64 + 6) + 1e-44))
                    check_fail(c, "n %zu: %g, not %g", n, want[j], x[j] * scale * w[j]);
            c->k->rmsnorm(x, x, w, n, eps);
            check_same(c, x, want, n, "rmsnorm in place");
            check_buf_reset(c);
        }
    bench_rows(c, bench_rmsnorm, widths, NUM_COUNT(widths));
}

static void bench_rope_half(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->rope(v->a, v->b, v->n, 1);
}

static void bench_rope_pairs(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->rope(v->a, v->b, v->n, 0);
}

void check_rope(struct checkasm *c)
{
    static const size_t heads[] = {64, 128};
    for (int half = 0; half < 2; half++) {
        if (!check_func(c, c->k->rope != c->below->rope, half ? "rope.half" : "rope.pairs"))
            continue;
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++) {
                size_t n = sizes[i] / 2 * 2;
                float *cs = check_values(c, n, CHECK_PLAIN),
                      *x = check_values(c, n, (enum check_kind)kind);
                float *want = check_copy(c, x, n), *got = check_copy(c, x, n);
                c->ref->rope(want, cs, n, half);
                c->k->rope(got, cs, n, half);
                check_same(c, got, want, n, "rope");
                for (size_t j = 0; kind == CHECK_PLAIN && j < n / 2; j++) {
                    size_t at = half ? j : 2 * j, to = half ? j + n / 2 : 2 * j + 1;
                    double a = x[at], b = x[to], s = cs[2 * j + 1], co = cs[2 * j];
                    double size = (fabs(a) + fabs(b)) * FLT_EPSILON * (fabs(s) + fabs(co));
                    if (!(fabs(want[at] - (a * co - b * s)) <= size &&
                          fabs(want[to] - (a * s + b * co)) <= size))
                        check_fail(c, "n %zu: pair %zu is wrong", n, j);
                }
                check_buf_reset(c);
            }
        bench_rows(c, half ? bench_rope_half : bench_rope_pairs, heads, NUM_COUNT(heads));
    }
}

/* Softmax restores its input first, as repeated softmax would flatten it. */
static void bench_part(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    float sum;
    memcpy(v->c, v->a, v->n * sizeof *v->a);
    k->softmax_part(v->c, v->n, 0.125f, &sum);
}

static void bench_softmax(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    memcpy(v->c, v->a, v->n * sizeof *v->a);
    k->softmax(v->c, v->n);
}

static void softmax_meaning(struct checkasm *c, const float *x, const float *p, size_t n,
                            float scale, float m, float sum)
{
    double max = -INFINITY, total = 0;
    for (size_t i = 0; i < n; i++)
        max = fmax(max, (double)(x[i] * scale));
    if (n && m != (float)max)
        check_fail(c, "n %zu: maximum %g, not %g", n, m, max);
    for (size_t i = 0; i < n; i++) {
        double t = (double)(x[i] * scale) - max, e = exp(t);
        total += e;
        /* half an ulp of the difference, times e, and 1.5 ulp of exp */
        double bound = e > 0 ? e * FLT_EPSILON * (fabs(t) / 2 + 1.5) + FLT_TRUE_MIN : 0;
        if (!(fabs(p[i] - e) <= bound))
            check_fail(c, "n %zu: exp(%g) is %.9g, not %.9g", n, t, p[i], e);
    }
    if (!(fabs(sum - total) <= total * FLT_EPSILON * ((double)n / 16 + 64)))
        check_fail(c, "n %zu: sum %.9g, not %.9g", n, sum, total);
}

void check_softmax(struct checkasm *c)
{
    static const size_t n_bench[] = {64, 151936};
    if (check_func(c, c->k->softmax_part != c->below->softmax_part, "softmax_part")) {
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind <= CHECK_KINDS; kind++) {
                size_t n = sizes[i];
                float *x =
                    check_values(c, n, kind == CHECK_KINDS ? CHECK_ZERO : (enum check_kind)kind);
                float scale = kind == CHECK_PLAIN ? 1.5f + check_float(c) : 1.0f, s0, s1;
                for (size_t j = 0; j < n; j++)
                    if (kind == CHECK_KINDS || (kind == CHECK_PLAIN && check_u32(c) % 16 == 0))
                        x[j] = -INFINITY;
                float *want = check_copy(c, x, n), *got = check_copy(c, x, n);
                float m0 = c->ref->softmax_part(want, n, scale, &s0);
                float m1 = c->k->softmax_part(got, n, scale, &s1);
                check_same(c, got, want, n, "p");
                check_same(c, &m1, &m0, 1, "maximum");
                check_same(c, &s1, &s0, 1, "sum");
                bool all_inf = true, nan = false;
                for (size_t j = 0; j < n; j++) {
                    all_inf &= x[j] == -INFINITY;
                    nan |= isnan(x[j]);
                    if (x[j] == -INFINITY && want[j] != 0 && !isnan(want[j]))
                        check_fail(c, "n %zu: exp(-inf) is %g", n, want[j]);
                }
                if (all_inf && !(m1 == -INFINITY && s1 == 0))
                    check_fail(c, "n %zu of -inf: m %g sum %g", n, m1, s1);
                if (nan && !isnan(s1))
                    check_fail(c, "n %zu: a NaN was lost", n);
                if (kind == CHECK_PLAIN && !all_inf)
                    softmax_meaning(c, x, got, n, scale, m1, s1);
                check_buf_reset(c);
            }
        bench_rows(c, bench_part, n_bench, NUM_COUNT(n_bench));
    }
    if (check_func(c, c->k->softmax != c->below->softmax, "softmax")) {
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++) {
                size_t n = sizes[i];
                float *want = check_values(c, n, (enum check_kind)kind),
                      *got = check_copy(c, want, n);
                c->ref->softmax(want, n);
                c->k->softmax(got, n);
                check_same(c, got, want, n, "softmax");
                double total = 0;
                for (size_t j = 0; j < n; j++)
                    total += got[j];
                if (n && kind == CHECK_PLAIN &&
                    !(fabs(total - 1) <= FLT_EPSILON * ((double)n / 16 + 8)))
                    check_fail(c, "n %zu: probabilities sum to %.9g", n, total);
                check_buf_reset(c);
            }
        bench_rows(c, bench_softmax, n_bench, NUM_COUNT(n_bench));
    }
}

static void bench_swiglu(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->swiglu(v->c, v->a, v->b, v->n);
}

static void bench_add(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->add(v->c, v->a, v->n);
}

static void bench_merge(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->merge(v->c, 0.5f, v->a, 0.5f, v->n);
}

void check_swiglu(struct checkasm *c)
{
    if (!check_func(c, c->k->swiglu != c->below->swiglu, "swiglu"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float *g = check_values(c, n, (enum check_kind)kind),
                  *u = check_values(c, n, (enum check_kind)kind);
            float *want = check_buf(c, n * sizeof *g), *got = check_buf(c, n * sizeof *g);
            c->ref->swiglu(want, g, u, n);
            c->k->swiglu(got, g, u, n);
            check_same(c, got, want, n, "swiglu");
            for (size_t j = 0; kind == CHECK_PLAIN && j < n; j++) {
                double e = g[j] / (1 + exp(-(double)g[j])) * u[j];
                /* beyond e^88 the divisor overflows: what is left is below 1e-36 */
                if (!(fabs(want[j] - e) <= fabs(e) * FLT_EPSILON * 4 + fabs(u[j]) * 1e-36))
                    check_fail(c, "silu(%g) * %g is %.9g, not %.9g", g[j], u[j], want[j], e);
            }
            float *g2 = check_copy(c, g, n);
            c->k->swiglu(g2, g2, u, n);
            check_same(c, g2, want, n, "swiglu over gate");
            c->k->swiglu(u, g, u, n);
            check_same(c, u, want, n, "swiglu over up");
            check_buf_reset(c);
        }
    bench_rows(c, bench_swiglu, widths, NUM_COUNT(widths));
}

void check_add(struct checkasm *c)
{
    if (!check_func(c, c->k->add != c->below->add, "add"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float *x = check_values(c, n, (enum check_kind)kind),
                  *y = check_values(c, n, (enum check_kind)kind);
            float *got = check_copy(c, y, n);
            c->k->add(got, x, n);
            for (size_t j = 0; j < n; j++)
                y[j] += x[j];
            check_same(c, got, y, n, "add");
            check_buf_reset(c);
        }
    bench_rows(c, bench_add, widths, NUM_COUNT(widths));
}

void check_merge(struct checkasm *c)
{
    static const size_t heads[] = {64, 128};
    if (!check_func(c, c->k->merge != c->below->merge, "merge"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float a = kind == CHECK_ZERO ? 0 : check_float(c), b = check_float(c);
            float *x = check_values(c, n, (enum check_kind)kind),
                  *y = check_values(c, n, (enum check_kind)kind);
            float *got = check_copy(c, y, n);
            c->k->merge(got, a, x, b, n);
            for (size_t j = 0; j < n; j++)
                y[j] = fmaf(y[j], a, x[j] * b);
            check_same(c, got, y, n, "merge");
            check_buf_reset(c);
        }
    bench_rows(c, bench_merge, heads, NUM_COUNT(heads));
}

static void bench_axpy(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->axpy(v->c, 0.5f, v->a, v->n);
}

void check_axpy(struct checkasm *c)
{
    if (!check_func(c, c->k->axpy != c->below->axpy, "axpy"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float a = kind == CHECK_ZERO ? 0 : check_float(c);
            float *x = check_values(c, n, (enum check_kind)kind),
                  *y = check_values(c, n, (enum check_kind)kind);
            float *got = check_copy(c, y, n);
            c->k->axpy(got, a, x, n);
            for (size_t j = 0; j < n; j++)
                y[j] = fmaf(a, x[j], y[j]);
            check_same(c, got, y, n, "axpy");
            check_buf_reset(c);
        }
    bench_rows(c, bench_axpy, widths, NUM_COUNT(widths));
}

static void bench_f16(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->f32_to_f16(v->h, v->a, v->n);
}

static void bench_bf16(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->f32_to_bf16(v->h, v->a, v->n);
}

void check_convert(struct checkasm *c)
{
    for (int bf = 0; bf < 2; bf++) {
        bool fresh = bf ? c->k->f32_to_bf16 != c->below->f32_to_bf16
                        : c->k->f32_to_f16 != c->below->f32_to_f16;
        if (!check_func(c, fresh, bf ? "f32_to_bf16" : "f32_to_f16"))
            continue;
        for (size_t i = 0; i < 4 * NUM_COUNT(sizes); i++) {
            size_t n = sizes[i / 4];
            float *x = check_values(c, n, (enum check_kind)(i % 4));
            uint16_t *want = check_buf(c, n * 2), *got = check_buf(c, n * 2);
            (bf ? c->ref->f32_to_bf16 : c->ref->f32_to_f16)(want, x, n);
            (bf ? c->k->f32_to_bf16 : c->k->f32_to_f16)(got, x, n);
            for (size_t j = 0; j < n; j++) {
                float a = bf ? quant_bf16_to_f32(got[j]) : quant_f16_to_f32(got[j]);
                if (got[j] != want[j] && !(isnan(a) && isnan(x[j])))
                    check_fail(c, "%a became %04x, not %04x", x[j], got[j], want[j]);
                if (isnan(a) != isnan(x[j]))
                    check_fail(c, "%a became %04x", x[j], got[j]);
            }
            check_buf_reset(c);
        }
        bench_rows(c, bf ? bench_bf16 : bench_f16, widths, NUM_COUNT(widths));
    }
    if (!check_func(c, c->k->e4m3_to_f16 != c->below->e4m3_to_f16, "e4m3_to_f16"))
        return;
    for (size_t n = 1; n < 300; n += n < 40 ? 1 : 37) {
        uint8_t *x = check_buf(c, n);
        uint16_t *want = check_buf(c, n * 2), *got = check_buf(c, n * 2);
        uint8_t first = (uint8_t)check_u32(c);
        for (size_t i = 0; i < n; i++)
            x[i] = (uint8_t)(first + i);
        c->ref->e4m3_to_f16(want, x, n);
        c->k->e4m3_to_f16(got, x, n);
        check_same_bytes(c, got, want, n * 2, "halves");
        for (size_t i = 0; i < n; i++) {
            float h = quant_f16_to_f32(want[i]) * 256, v = quant_e4m3_to_f32(x[i]);
            if (h != v && !(isnan(h) && isnan(v)))
                check_fail(c, "code %02x became %g, not %g", x[i], h, v);
        }
        check_buf_reset(c);
    }
}

/* ---- exp ---- */

static float exp_of(const struct kern *k, float x)
{
    float p[17] = {0}, y[17];
    p[1] = p[16] = x; /* a lane of a full vector, and one of the rest */
    k->exp(y, p, 17);
    return !memcmp(&y[1], &y[16], sizeof *y) || isnan(x) ? y[1] : NAN;
}

static void bench_exp(const struct kern *k, void *arg)
{
    struct vec_bench *v = arg;
    k->exp(v->c, v->a, v->n);
}

/* The exact value rounded to float lies within 1 ulp, subnormals included. */
static void exp_near(struct checkasm *c, float x, float got)
{
    double want = exp((double)x);
    int e;
    frexp(want, &e);
    double ulp = ldexp(1, (e < -125 ? -125 : e) - 24);
    if (want > (double)FLT_MAX + ulp / 2 ? got != INFINITY : !(fabs(got - want) <= ulp))
        check_fail(c, "exp(%a) is %a, not %a", x, got, want);
}

void check_exp(struct checkasm *c)
{
    if (!check_func(c, c->k->exp != c->below->exp, "exp"))
        return;
    for (float x = 90; x > -110; x -= 0.0137f) {
        float got = exp_of(c->k, x), want = exp_of(c->ref, x);
        check_same(c, &got, &want, 1, "exp");
    }
    for (int i = 0; i < 1000000 && c->isa == CPU_SCALAR; i++) {
        float x = check_float(c) * (i % 2 ? 110.0f : 1.0f);
        exp_near(c, x, exp_of(c->k, x));
    }
    static const struct {
        float x, y;
    } exact[] = {{0, 1},     {-0.0f, 1},  {-INFINITY, 0},    {INFINITY, INFINITY},
                 {-104, 0},  {-3e38f, 0}, {3e38f, INFINITY}, {88.73f, INFINITY},
                 {1e-45f, 1}};
    for (size_t i = 0; i < NUM_COUNT(exact); i++)
        if (exp_of(c->k, exact[i].x) != exact[i].y)
            check_fail(c, "exp(%g) is %g", exact[i].x, exp_of(c->k, exact[i].x));
    if (!isnan(exp_of(c->k, NAN)))
        check_fail(c, "exp(NaN) is %g", exp_of(c->k, NAN));
    bench_rows(c, bench_exp, widths, NUM_COUNT(widths));
}
