/*
 * Kernels of training: equal bits at all levels over odd sizes and special values, nothing read or
 * written outside; and the plain C versions, which are the definition, against sums in double and
 * against differences of the forward pass, within what their roundings allow.
 */
#include "checkasm.h"

#include "base/num.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const size_t sizes[] = {0,  1,  2,  3,  7,  8,  9,   15,  16,  17,   31,  32,
                               33, 47, 48, 49, 63, 64, 100, 130, 576, 1000, 1536};

/* ---- products ---- */

static float element(const void *p, size_t i, bool pairs, int high)
{
    float f;
    uint32_t u;
    memcpy(&u, (const char *)p + 4 * i, 4);
    u = !pairs ? u : high ? u & 0xffff0000u : u << 16;
    memcpy(&f, &u, 4);
    return f;
}

/* The meaning: each value is the sum of its products, and of what y held. */
static void gemm_meaning(struct checkasm *c, const struct kern_gemm *g, bool pairs,
                         const float *before, const char *what)
{
    for (size_t i = 0; i < g->cols * g->rows; i++) {
        size_t col = i / g->rows, r = i % g->rows;
        size_t at = r / 16 * g->y_panel + col * g->y_col + r % 16;
        double sum = g->more ? before[at] : 0, size = fabs(sum);
        for (size_t j = 0; j < g->k; j++)
            for (int h = 0; h <= pairs; h++) {
                double v = element(g->w, r / 16 * g->w_panel + j * 16 + r % 16, pairs, h);
                v *= element(g->x, col * g->x_col + j * g->x_step, pairs, h);
                sum += v;
                size += fabs(v);
            }
        double n = (double)(g->k * (pairs ? 2 : 1) + 1);
        if (!(fabs(g->y[at] - sum) <= n * FLT_EPSILON / 2 * size + FLT_MIN * n))
            check_fail(c, "%s: row %zu column %zu is %g, not %g", what, r, col, g->y[at], sum);
    }
}

/* n elements; of pairs the plain ones are such values, and zeros make way for products around the
   least normal number. */
static void *elements(struct checkasm *c, size_t n, bool pairs, enum check_kind kind)
{
    float *p = check_values(c, n, kind);
    for (size_t i = 0; pairs && (kind == CHECK_PLAIN || kind == CHECK_ZERO) && i < n; i++) {
        uint32_t u = 0;
        for (int h = 0; h < 2; h++) {
            uint32_t tiny = (check_u32(c) & 0x807f) | (uint32_t)check_range(c, 50, 70) << 7;
            u = u << 16 | (kind == CHECK_ZERO ? tiny : quant_f32_to_bf16(check_float(c)));
        }
        memcpy(p + i, &u, sizeof u);
    }
    return p;
}

static void gemm_once(struct checkasm *c, bool pairs, bool near, size_t rows, size_t k, size_t cols,
                      enum check_kind kind)
{
    char what[128];
    size_t panels = (rows + 15) / 16;
    struct kern_gemm g = {.rows = rows, .k = k, .cols = cols, .more = check_u32(c) & 1};
    g.w_panel = k * 16 + check_u32(c) % 3 * 16;
    g.x_col = near ? 1 : k + check_u32(c) % 3;
    g.x_step = near ? cols + check_u32(c) % 3 : 1;
    bool across = check_u32(c) & 1; /* panels side by side, or each with all columns */
    g.y_panel = across ? 16 : cols * 16 + check_u32(c) % 3;
    g.y_col = across ? rows + check_u32(c) % 3 : 16;
    size_t ylen = (panels - 1) * g.y_panel + (cols - 1) * g.y_col + (rows - 1) % 16 + 1;
    if (across)
        ylen = (cols - 1) * g.y_col + rows;
    g.w = elements(c, (panels - 1) * g.w_panel + k * 16, pairs, kind);
    g.x = elements(c, k ? (cols - 1) * g.x_col + (k - 1) * g.x_step + 1 : 0, pairs, kind);
    float *before = check_values(c, ylen, kind);
    float *want = g.y = check_copy(c, before, ylen);
    (pairs ? c->ref->gemm_pairs : c->ref->gemm)(&g);
    snprintf(what, sizeof what, "rows %zu k %zu cols %zu kind %d %s%s", rows, k, cols, kind,
             near ? "near" : "far", g.more ? " more" : "");
    if (kind == CHECK_PLAIN && c->isa == CPU_SCALAR)
        gemm_meaning(c, &g, pairs, before, what);
    g.y = check_copy(c, before, ylen);
    (pairs ? c->k->gemm_pairs : c->k->gemm)(&g);
    check_same(c, g.y, want, ylen, what);
    check_buf_reset(c);
}

struct train_bench {
    struct kern_gemm g;
    struct kern_adamw step;
    float *a, *b, *c, *d, *e;
    size_t n;
};

static void bench_gemm(const struct kern *k, void *arg)
{
    k->gemm(&((struct train_bench *)arg)->g);
}

static void bench_pairs(const struct kern *k, void *arg)
{
    k->gemm_pairs(&((struct train_bench *)arg)->g);
}

static void bench_shapes(struct checkasm *c, bool pairs, bool near)
{
    static const size_t shapes[][3] = {{64, 256, 128}, {64, 256, 256}, {256, 256, 96},
                                       {256, 512, 96}, {96, 88, 96},   {32, 256, 12}};
    for (size_t i = 0; i < NUM_COUNT(shapes); i++) {
        char what[64];
        size_t rows = shapes[i][0], k = shapes[i][1], cols = shapes[i][2];
        struct train_bench b = {0};
        b.g = (struct kern_gemm){.rows = rows, .k = k, .cols = cols, .more = true};
        b.g.w_panel = 16 * k;
        b.g.x_col = near ? 1 : k;
        b.g.x_step = near ? cols : 1;
        b.g.y_panel = near ? 16 * cols : 16;
        b.g.y_col = near ? 16 : rows;
        b.g.w = check_values(c, rows * k, CHECK_ZERO);
        b.g.x = check_values(c, cols * k, CHECK_ZERO);
        b.g.y = check_values(c, cols * rows, CHECK_ZERO);
        snprintf(what, sizeof what, "%s %zu x %zu x %zu", near ? "near" : "far", rows, k, cols);
        check_bench(c, what, pairs ? bench_pairs : bench_gemm, &b, 0,
                    (pairs ? 4.0 : 2.0) * (double)(rows * k * cols));
        check_buf_reset(c);
    }
}

void check_gemm(struct checkasm *c)
{
    for (int pairs = 0; pairs < 2; pairs++) {
        bool fresh =
            pairs ? c->k->gemm_pairs != c->below->gemm_pairs : c->k->gemm != c->below->gemm;
        if (!check_func(c, fresh, pairs ? "gemm_pairs" : "gemm"))
            continue;
        for (int near = 0; near < 2; near++) {
            for (size_t cols = 1; cols <= 27; cols++)
                gemm_once(c, pairs, near, check_range(c, 1, 140), check_range(c, 0, 40), cols,
                          CHECK_PLAIN);
            for (size_t rows = 1; rows <= 70; rows++)
                gemm_once(c, pairs, near, rows, check_range(c, 0, 40), check_range(c, 1, 30),
                          CHECK_PLAIN);
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                for (int i = 0; i < 10; i++)
                    gemm_once(c, pairs, near, check_range(c, 1, 80), check_range(c, 1, 700),
                              check_range(c, 1, 30), (enum check_kind)kind);
            if (c->bench)
                bench_shapes(c, pairs, near);
        }
    }
}

void check_transpose(struct checkasm *c)
{
    if (!check_func(c, c->k->transpose != c->below->transpose, "transpose"))
        return;
    for (size_t i = 0; i < 20; i++) {
        size_t ldx = 16 + i % 5, ldy = 16 + i % 3, nx = 15 * ldx + 16, ny = 15 * ldy + 16;
        float *x = check_values(c, nx, CHECK_WIDE), *y = check_values(c, ny, CHECK_PLAIN);
        float *want = check_copy(c, y, ny);
        for (size_t r = 0; r < 256; r++)
            want[r / 16 * ldy + r % 16] = x[r % 16 * ldx + r / 16];
        c->k->transpose(y, ldy, x, ldx);
        check_same_bytes(c, y, want, ny * sizeof *y, "16 x 16");
        check_buf_reset(c);
    }
}

void check_bf16_pairs(struct checkasm *c)
{
    if (!check_func(c, c->k->pairs != c->below->pairs, "pairs"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes) * 6; i++) {
        size_t n = sizes[i / 6];
        enum check_kind kind = (enum check_kind)(i % 3);
        float *a = check_values(c, n, kind), *b = i % 6 < 3 ? check_values(c, n, kind) : NULL;
        uint32_t *y = check_buf(c, n * 4);
        c->k->pairs(y, a, b, n);
        for (size_t j = 0; j < n; j++)
            for (int high = 0; high < 2; high++) {
                float v = high ? (b ? b[j] : 0) : a[j];
                uint16_t got = (uint16_t)(y[j] >> (high ? 16 : 0)), want = quant_f32_to_bf16(v);
                if (isnan(v) ? !isnan(quant_bf16_to_f32(got)) : got != want)
                    check_fail(c, "%a became %04x, not %04x", v, got, want);
            }
        check_buf_reset(c);
    }
}

/* ---- sums ---- */

static void dot_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *a = check_values(c, n, kind), *b = check_values(c, n, kind);
    float got = c->k->dot(a, b, n), want = c->ref->dot(a, b, n);
    check_same(c, &got, &want, 1, "dot");
    double sum = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)a[i] * b[i];
        size += fabs((double)a[i] * b[i]);
    }
    if (kind == CHECK_PLAIN && !(fabs(want - sum) <= (double)(n / 16 + 5) * FLT_EPSILON / 2 * size))
        check_fail(c, "dot of %zu is %g, not %g", n, want, sum);
    check_buf_reset(c);
}

static void squares_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *a = check_values(c, n, kind);
    double got = c->k->squares(a, n), want = c->ref->squares(a, n), sum = 0;
    if (memcmp(&got, &want, sizeof got) != 0 && !(isnan(got) && isnan(want)))
        check_fail(c, "squares of %zu: %.17g, not %.17g", n, got, want);
    for (size_t i = 0; i < n; i++)
        sum += (double)a[i] * a[i];
    if (kind == CHECK_PLAIN && !(fabs(want - sum) <= (double)n * DBL_EPSILON * sum))
        check_fail(c, "squares of %zu: %.17g, not %.17g", n, want, sum);
    check_buf_reset(c);
}

void check_sums(struct checkasm *c)
{
    if (check_func(c, c->k->dot != c->below->dot, "dot"))
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                dot_once(c, sizes[i], (enum check_kind)kind);
    if (check_func(c, c->k->squares != c->below->squares, "squares"))
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                squares_once(c, sizes[i], (enum check_kind)kind);
}

/* ---- the optimizer ---- */

static struct kern_adamw adamw_step(struct checkasm *c, double t)
{
    const double b1 = 0.9, b2 = 0.95, lr = 1e-3;
    return (struct kern_adamw){.scale = 0.5f + check_float(c) / 4,
                               .new1 = (float)(1 - b1),
                               .b2 = (float)b2,
                               .new2 = (float)(1 - b2),
                               .rate = (float)(lr / (1 - pow(b1, t))),
                               .root = (float)(1 / sqrt(1 - pow(b2, t))),
                               .eps = 1e-8f,
                               .keep = (float)(1 - lr * 0.1)};
}

/* PyTorch's step in double. */
static void adamw_meaning(struct checkasm *c, const struct kern_adamw *a, const float p0[3],
                          float g, const float p1[3])
{
    double s = (double)g * a->scale, m = p0[1] + (double)a->new1 * (s - p0[1]);
    double v = (double)a->b2 * p0[2] + (double)a->new2 * s * s;
    double p = (double)a->keep * p0[0] - a->rate * m / (sqrt(v) * a->root + a->eps);
    double size = fabs(p0[0]) + fabs(a->rate * m / (sqrt(v) * a->root + a->eps));
    if (!(fabs(p - p1[0]) <= 16 * FLT_EPSILON * size) || !(fabs(v - p1[2]) <= 8 * FLT_EPSILON * v))
        check_fail(c, "p %.9g m %.9g v %.9g g %.9g: %.9g, not %.9g", p0[0], p0[1], p0[2], g, p1[0],
                   p);
}

static void adamw_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    struct kern_adamw a = adamw_step(c, (double)check_range(c, 1, 1000));
    float *p[3], *got[3], *want[3], *g = check_values(c, n, kind);
    for (size_t i = 0; i < 3; i++) {
        p[i] = check_values(c, n, kind);
        for (size_t j = 0; i == 2 && j < n; j++)
            p[i][j] = fabsf(p[i][j]);
        got[i] = check_copy(c, p[i], n);
        want[i] = check_copy(c, p[i], n);
    }
    c->ref->adamw(want[0], want[1], want[2], g, n, &a);
    c->k->adamw(got[0], got[1], got[2], g, n, &a);
    for (size_t i = 0; i < 3; i++)
        check_same(c, got[i], want[i], n, (const char *[]){"p", "m", "v"}[i]);
    for (size_t j = 0; kind == CHECK_PLAIN && j < n; j++)
        adamw_meaning(c, &a, (float[]){p[0][j], p[1][j], p[2][j]}, g[j],
                      (float[]){want[0][j], want[1][j], want[2][j]});
    check_buf_reset(c);
}

static void bench_adamw(const struct kern *k, void *arg)
{
    struct train_bench *b = arg;
    k->adamw(b->a, b->b, b->c, b->d, b->n, &b->step);
}

void check_adamw(struct checkasm *c)
{
    if (!check_func(c, c->k->adamw != c->below->adamw, "adamw"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++)
            adamw_once(c, sizes[i], (enum check_kind)kind);
    if (!c->bench)
        return;
    size_t n = 4096;
    struct train_bench b = {.n = n, .step = adamw_step(c, 10)};
    b.a = check_values(c, n, CHECK_PLAIN);
    b.b = check_values(c, n, CHECK_PLAIN);
    b.c = check_values(c, n, CHECK_ZERO);
    b.d = check_values(c, n, CHECK_PLAIN);
    check_bench(c, "4096", bench_adamw, &b, 28.0 * (double)n, 0);
}

/* ---- the way back ---- */

/* Σ dy y of a norm, in double. */
static double norm_loss(const float *dy, const double *x, const float *w, size_t n, double eps)
{
    double sq = 0, loss = 0;
    for (size_t i = 0; i < n; i++)
        sq += x[i] * x[i];
    double s = 1 / sqrt(sq / (double)n + eps);
    for (size_t i = 0; i < n; i++)
        loss += dy[i] * w[i] * x[i] * s;
    return loss;
}

static void norm_meaning(struct checkasm *c, const float *dy, const float *x, const float *w,
                         size_t n, float eps, const float *dx)
{
    double at[1024], most = 0, h = 1e-4;
    for (size_t i = 0; i < n; i++) {
        at[i] = x[i];
        most = fmax(most, fabs(dx[i]));
    }
    for (size_t i = 0; i < n; i++) {
        at[i] = x[i] + h;
        double up = norm_loss(dy, at, w, n, eps);
        at[i] = x[i] - h;
        double slope = (up - norm_loss(dy, at, w, n, eps)) / (2 * h);
        at[i] = x[i];
        if (!(fabs(slope - dx[i]) <= 1e-4 * most + 1e-5))
            check_fail(c, "dx[%zu] of %zu is %g, not %g", i, n, dx[i], slope);
    }
}

static void norm_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *dy = check_values(c, n, kind), *x = check_values(c, n, kind);
    float *w = check_values(c, n, kind), *dx = check_values(c, n, kind);
    float eps = kind == CHECK_PLAIN ? 1e-3f : 1e-6f;
    if (kind == CHECK_PLAIN)
        memset(dx, 0, n * sizeof *dx);
    float *want = check_copy(c, dx, n), *got = check_copy(c, dx, n);
    float sw = c->ref->rmsnorm_back(want, dy, x, w, n, eps);
    float sg = c->k->rmsnorm_back(got, dy, x, w, n, eps);
    check_same(c, &sg, &sw, 1, "scale");
    check_same(c, got, want, n, "dx");
    bool small = n > 1 && n <= 100; /* differences of a large loss are too coarse */
    for (size_t i = 0; i < n; i++)
        small = small && fabsf(x[i]) <= 1 && fabsf(dy[i]) <= 1 && fabsf(w[i]) <= 1;
    if (kind == CHECK_PLAIN && c->isa == CPU_SCALAR && small)
        norm_meaning(c, dy, x, w, n, eps, want);
    check_buf_reset(c);
}

static void scaled_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *a = check_values(c, n, kind), *x = check_values(c, n, kind);
    float *y = check_values(c, n, kind), *got = check_copy(c, y, n), s = check_float(c);
    c->k->scaled(got, a, x, s, n);
    for (size_t i = 0; i < n; i++)
        y[i] = fmaf(a[i], x[i] * s, y[i]);
    check_same(c, got, y, n, "y");
    check_buf_reset(c);
}

void check_rmsnorm_back(struct checkasm *c)
{
    if (check_func(c, c->k->rmsnorm_back != c->below->rmsnorm_back, "rmsnorm_back"))
        for (size_t i = 1; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                norm_once(c, sizes[i], (enum check_kind)kind);
    if (check_func(c, c->k->scaled != c->below->scaled, "scaled"))
        for (size_t i = 0; i < NUM_COUNT(sizes); i++)
            for (int kind = 0; kind < CHECK_KINDS; kind++)
                scaled_once(c, sizes[i], (enum check_kind)kind);
}

/* dy × d(silu(g) u) / dg, in double. */
static double gate_slope(double g, double u, double dy)
{
    double r = 1 / (1 + exp(-g));
    return dy * u * r * (1 + g * (1 - r));
}

static void swiglu_once(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *dy = check_values(c, n, kind), *g = check_values(c, n, kind);
    float *u = check_values(c, n, kind);
    float *dg = check_values(c, n, kind), *du = check_values(c, n, kind);
    c->ref->swiglu_back(dg, du, dy, g, u, n);
    for (size_t i = 0; kind == CHECK_PLAIN && i < n; i++) {
        /* Where 1 + g (1 − r) is near 0, its parts are not; r is 0 where exp(−g) overflows. */
        double r = 1 / (1 + exp(-(double)g[i])), off = 8 * FLT_EPSILON * r + FLT_MIN;
        double slope = gate_slope(g[i], u[i], dy[i]), h = (double)dy[i] * g[i] * r;
        if (!(fabs(dg[i] - slope) <= off * fabs((double)dy[i] * u[i]) * (1 + fabs(g[i])) + FLT_MIN))
            check_fail(c, "dgate is %g, not %g", dg[i], slope);
        if (!(fabs(du[i] - h) <= off * fabs((double)dy[i] * g[i]) + FLT_MIN))
            check_fail(c, "dup is %g, not %g", du[i], h);
    }
    float *place_g = check_copy(c, g, n), *place_u = check_copy(c, u, n);
    c->k->swiglu_back(place_g, place_u, dy, place_g, place_u, n);
    check_same(c, place_g, dg, n, "dgate");
    check_same(c, place_u, du, n, "dup");
    check_buf_reset(c);
}

static void bench_swiglu(const struct kern *k, void *arg)
{
    struct train_bench *b = arg;
    k->swiglu_back(b->a, b->b, b->c, b->d, b->e, b->n);
}

void check_swiglu_back(struct checkasm *c)
{
    if (!check_func(c, c->k->swiglu_back != c->below->swiglu_back, "swiglu_back"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++)
            swiglu_once(c, sizes[i], (enum check_kind)kind);
    if (!c->bench)
        return;
    struct train_bench b = {.n = 688};
    float **p[] = {&b.a, &b.b, &b.c, &b.d, &b.e};
    for (size_t i = 0; i < NUM_COUNT(p); i++)
        *p[i] = check_values(c, b.n, CHECK_PLAIN);
    check_bench(c, "688", bench_swiglu, &b, 20.0 * (double)b.n, 0);
}

void check_softmax_back(struct checkasm *c)
{
    if (!check_func(c, c->k->softmax_back != c->below->softmax_back, "softmax_back"))
        return;
    for (size_t i = 0; i < NUM_COUNT(sizes); i++)
        for (int kind = 0; kind < CHECK_KINDS; kind++) {
            size_t n = sizes[i];
            float *p = check_values(c, n, (enum check_kind)kind);
            float *d = check_values(c, n, (enum check_kind)kind), *got = check_copy(c, d, n);
            float sum = check_float(c), scale = check_float(c);
            c->k->softmax_back(got, p, n, sum, scale);
            for (size_t j = 0; j < n; j++)
                d[j] = p[j] * (d[j] - sum) * scale;
            check_same(c, got, d, n, "d");
            check_buf_reset(c);
        }
}
