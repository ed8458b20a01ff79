/* Attention over int8 pages: to_i8, page_scores, page_weights, page_values. */
#include "checkasm.h"

#include "base/num.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = KERN_PAGE_ROWS };

static float value(struct checkasm *c)
{
    float v = 0;
    for (int i = 0; i < 4; i++)
        v += (float)(check_u32(c) >> 8) * 0x1p-24f - 0.5f;
    return v * 2;
}

/* Of n floats, now and then one that is not a plain number. */
static float *row(struct checkasm *c, size_t n, bool odd)
{
    static const float special[] = {0, -0.0f, INFINITY, -INFINITY, NAN, 1e-42f, 3e38f};
    float *x = check_buf(c, n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] =
            odd && check_u32(c) % 16 == 0 ? special[check_u32(c) % NUM_COUNT(special)] : value(c);
    return x;
}

static int8_t *codes(struct checkasm *c, size_t n)
{
    int8_t *q = check_buf(c, n);
    for (size_t i = 0; i < n; i++)
        q[i] = (int8_t)((int)(check_u32(c) % 255) - 127);
    if (check_u32(c) % 4 == 0)
        memset(q, check_u32(c) & 1 ? 127 : -127, n);
    return q;
}

void check_to_i8(struct checkasm *c)
{
    if (!check_func(c, c->k->to_i8 != c->below->to_i8, "to_i8"))
        return;
    for (size_t n = 1; n <= 130; n++)
        for (int odd = 0; odd < 2; odd++) {
            float *x = row(c, n, odd);
            int8_t *want = check_buf(c, n), *got = check_buf(c, n);
            int32_t sum[2];
            float d[2] = {c->ref->to_i8(want, x, n, &sum[0]), c->k->to_i8(got, x, n, &sum[1])};
            check_same_bytes(c, got, want, n, "values");
            check_same(c, &d[1], &d[0], 1, "scale");
            if (sum[0] != sum[1])
                check_fail(c, "n %zu: sum %d, not %d", n, sum[1], sum[0]);
            for (size_t i = 0; !odd && i < n; i++)
                if (!(fabsf((float)want[i] * d[0] - x[i]) <= 0.5001f * d[0]))
                    check_fail(c, "n %zu: %g became %g", n, x[i], (float)want[i] * d[0]);
            check_buf_reset(c);
        }
}

struct page_bench {
    struct kern_page_scores s;
    struct kern_page_values v;
};

static void bench_scores(const struct kern *k, void *arg)
{
    k->page_scores(&((struct page_bench *)arg)->s);
}

static void bench_values(const struct kern *k, void *arg)
{
    k->page_values(&((struct page_bench *)arg)->v);
}

static struct kern_page_scores scores_of(struct checkasm *c, struct kern_page_shape shape,
                                         size_t cols, bool odd)
{
    size_t blocks = kern_page_blocks(&shape), d_k = shape.d;
    struct kern_page_scores t = {.shape = shape, .cols = cols};
    int8_t *q = codes(c, cols * d_k);
    int32_t *sum = check_buf(c, cols * blocks * sizeof *sum);
    t.k = codes(c, d_k * ROWS);
    t.ahead = t.k;
    t.scale = row(c, blocks * ROWS, odd);
    t.qd = row(c, cols * blocks, odd);
    for (size_t i = 0; i < cols; i++)
        for (size_t b = 0, at = 0, end; b < blocks; b++, at = end) {
            end = kern_page_end(&shape, at);
            sum[i * blocks + b] = 0;
            for (size_t d = at; d < end; d++)
                sum[i * blocks + b] += q[i * d_k + d];
        }
    t.q = q;
    t.qsum = sum;
    t.s = check_buf(c, cols * ROWS * sizeof *t.s);
    return t;
}

static void scores_once(struct checkasm *c, struct kern_page_shape shape, size_t cols, bool odd)
{
    struct kern_page_scores t = scores_of(c, shape, cols, odd);
    size_t d_k = shape.d;
    float *want = t.s;
    char what[96];
    c->ref->page_scores(&t);
    t.s = check_buf(c, cols * ROWS * sizeof *t.s);
    c->k->page_scores(&t);
    snprintf(what, sizeof what, "d %zu front %zu block %zu cols %zu", d_k, shape.front, shape.block,
             cols);
    check_same(c, t.s, want, cols * ROWS, what);
    for (size_t i = 0; !odd && i < cols * ROWS; i++) {
        size_t blocks = kern_page_blocks(&shape), col = i / ROWS, r = i % ROWS;
        double sum = 0, size = 0;
        for (size_t d = 0, b = 0, end; d < d_k; d = end, b++) {
            double s = 0;
            end = kern_page_end(&shape, d);
            for (size_t j = d; j < end; j++)
                s += t.q[col * d_k + j] * t.k[(j / 4 * ROWS + r) * 4 + j % 4];
            s *= (double)t.scale[b * ROWS + r] * t.qd[col * blocks + b];
            sum += s;
            size += fabs(s);
        }
        if (!(fabs(want[i] - sum) <= 8 * FLT_EPSILON * size))
            check_fail(c, "%s: %g, not %g", what, want[i], sum);
    }
    check_buf_reset(c);
}

void check_page_scores(struct checkasm *c)
{
    if (!check_func(c, c->k->page_scores != c->below->page_scores, "page_scores"))
        return;
    static const struct kern_page_shape shapes[] = {
        {4, 4, 128},     {36, 24, 128},   {128, 128, 128}, {132, 128, 128}, {260, 132, 128},
        {192, 128, 128}, {576, 512, 128}, {64, 64, 32},    {84, 84, 32}};
    for (size_t i = 0; i < NUM_COUNT(shapes); i++)
        for (size_t cols = 1; cols <= 9; cols++)
            scores_once(c, shapes[i], cols, cols == 5);
    for (size_t cols = 8; c->bench && cols <= 64; cols *= 8) {
        struct page_bench b = {
            .s = scores_of(c, (struct kern_page_shape){576, 512, 128}, cols, false)};
        char what[32];
        snprintf(what, sizeof what, "cols=%zu", cols);
        check_bench(c, what, bench_scores, &b, 64.0 * 576, 2.0 * 64 * 576 * (double)cols);
        check_buf_reset(c);
    }
}

/* The integers give the weight back within half a step. */
void check_page_weights(struct checkasm *c)
{
    if (!check_func(c, c->k->page_weights != c->below->page_weights, "page_weights"))
        return;
    for (int i = 0; i < 200; i++) {
        bool two = i & 1, odd = i % 8 == 7;
        float *p = row(c, ROWS, odd), *scale = row(c, ROWS, odd), d[2][2] = {{0}}, most = 0;
        uint8_t *want = check_buf(c, two ? 2 * ROWS : ROWS);
        uint8_t *got = check_buf(c, two ? 2 * ROWS : ROWS);
        for (size_t r = 0; r < ROWS; r++) {
            p[r] = i % 16 < 2 ? 0 : fabsf(p[r]); /* also a page that nobody sees */
            scale[r] = fabsf(scale[r]);
            most = fmaxf(most, p[r] * scale[r]);
        }
        c->ref->page_weights(want, d[0], p, scale, two);
        c->k->page_weights(got, d[1], p, scale, two);
        check_same_bytes(c, got, want, two ? 2 * ROWS : ROWS, "integers");
        check_same(c, d[1], d[0], 2, "factors");
        for (size_t r = 0; !odd && r < ROWS; r++) {
            double w = want[r] * (double)d[0][0] + (two ? want[ROWS + r] * (double)d[0][1] : 0);
            double step = two ? most / 127 / 127 : most / 127;
            if (want[r] > 127 || (two && want[ROWS + r] > 127) ||
                !(fabs(w - (double)p[r] * scale[r]) <= 0.51 * step))
                check_fail(c, "%g became %g", (double)p[r] * scale[r], w);
        }
        check_buf_reset(c);
    }
}

static struct kern_page_values values_of(struct checkasm *c, size_t at, size_t n, size_t cols)
{
    struct kern_page_values t = {.at = at, .n = n, .cols = cols, .ldo = at + n + 3};
    uint8_t *q = check_buf(c, cols * ROWS);
    uint32_t *to = check_buf(c, cols * sizeof *to);
    float *d = check_buf(c, cols * sizeof *d);
    t.k = codes(c, (at + n + 12) * ROWS);
    for (size_t i = 0; i < cols * ROWS; i++)
        q[i] = check_u32(c) % 8 ? (uint8_t)(check_u32(c) % 128) : 127;
    for (size_t i = 0; i < cols; i++) {
        to[i] = i == 0 ? 0 : to[i - 1] + (check_u32(c) & 1);
        d[i] = value(c);
    }
    t.q = q;
    t.to = to;
    t.d = d;
    t.o = check_buf(c, ((size_t)to[cols - 1] * t.ldo + at + n) * sizeof *t.o);
    return t;
}

void check_page_values(struct checkasm *c)
{
    if (!check_func(c, c->k->page_values != c->below->page_values, "page_values"))
        return;
    for (size_t cols = 1; cols <= 9; cols++)
        for (size_t n = 4; n <= 128; n += n < 40 ? 4 : 44) {
            struct kern_page_values t = values_of(c, check_u32(c) % 3 * 128, n, cols);
            size_t size = (size_t)t.to[cols - 1] * t.ldo + t.at + n;
            float *want = t.o;
            for (size_t i = 0; i < size; i++)
                want[i] = 7;
            c->ref->page_values(&t);
            t.o = check_buf(c, size * sizeof *t.o);
            for (size_t i = 0; i < size; i++)
                t.o[i] = 7; /* what is not written stays */
            c->k->page_values(&t);
            check_same(c, t.o, want, size, "values");
            check_buf_reset(c);
        }
    for (size_t cols = 8; c->bench && cols <= 64; cols *= 8) {
        struct page_bench b = {.v = values_of(c, 0, 128, cols)};
        char what[32];
        snprintf(what, sizeof what, "n=128 cols=%zu", cols);
        check_bench(c, what, bench_values, &b, 64.0 * 128, 2.0 * 64 * 128 * (double)cols);
        check_buf_reset(c);
    }
}
