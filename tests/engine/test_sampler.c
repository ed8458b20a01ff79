#include "engine/sampler.h"

#include "base/num.h"
#include "base/rng.h"
#include "support/fail_alloc.h"
#include "support/golden.h"

#include <float.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A new sampler or a failed test. */
static struct sampler *make(const struct sampler_params *p, size_t n_vocab)
{
    struct sampler *s;
    struct err e = {0};
    if (sampler_new(&s, p, n_vocab, &e))
        fail_msg("%s", e.text);
    return s;
}

/* ---- goldens --------------------------------------------------------------------------------- */

static float number(const json_t *c, const char *key)
{
    return (float)json_number_value(json_object_get(c, key));
}

static struct sampler *from_case(const json_t *c)
{
    struct sampler_params p;
    struct sampler_bias bias[64];
    sampler_params_init(&p);
    p.temperature = number(c, "temperature");
    p.top_k = (int)number(c, "top_k");
    p.top_p = number(c, "top_p");
    p.min_p = number(c, "min_p");
    p.typical_p = number(c, "typical_p");
    p.repetition_penalty = number(c, "repetition_penalty");
    p.frequency_penalty = number(c, "frequency_penalty");
    p.presence_penalty = number(c, "presence_penalty");
    const char *id;
    json_t *v;
    json_object_foreach(json_object_get(c, "logit_bias"), id, v)
    {
        assert_in_range(p.n_bias, 0, NUM_COUNT(bias) - 1);
        float b = json_is_string(v) ? -INFINITY : (float)json_number_value(v);
        bias[p.n_bias++] = (struct sampler_bias){.id = atoi(id), .bias = b};
    }
    p.bias = bias;
    struct sampler *s = make(&p, 512);
    memset(bias, 0xff, sizeof bias); /* it was copied */
    size_t i;
    json_array_foreach(json_object_get(c, "history"), i, v)
        assert_int_equal(sampler_accept(s, (int32_t)json_integer_value(v), NULL), 0);
    return s;
}

static json_t *golden_json(const char *path)
{
    size_t bytes;
    char *text = golden_file(path, &bytes);
    json_t *j = json_loadb(text, bytes, 0, NULL);
    free(text);
    assert_non_null(j);
    return j;
}

static void goldens_agree(void **state)
{
    json_t *cases = golden_json("sampling/cases.json");
    struct golden *gl = golden_load("sampling/logits.safetensors");
    struct golden *ge = golden_load("sampling/expected.safetensors");
    struct golden_tensor logits = golden_get(gl, "logits"), want = golden_get(ge, "temp_last");
    assert_int_equal(json_array_size(cases), 141);
    assert_int_equal(want.count, 141 * 512);
    size_t n;
    json_t *c;
    json_array_foreach(cases, n, c)
    {
        struct sampler *s = from_case(c);
        const float *row = logits.f32 + 512 * json_integer_value(json_object_get(c, "logits"));
        float p[512];
        size_t kept = sampler_probs(s, row, p);
        for (size_t i = 0; i < 512; i++) {
            float w = want.f32[512 * n + i];
            if ((p[i] > 0) != (w > 0) || !(fabsf(p[i] - w) <= 1e-5f))
                fail_msg("case %zu token %zu: %.9g, expected %.9g", n, i, (double)p[i], (double)w);
            kept -= w > 0;
        }
        assert_int_equal(kept, 0);
        for (int k = 0; k < 50; k++) { /* what is drawn is among them */
            int32_t id;
            assert_int_equal(sampler_next(s, row, &id, NULL), 0);
            assert_in_range(id, 0, 511);
            assert_true(p[id] > 0);
        }
        sampler_free(s);
    }
    json_decref(cases);
    golden_free(gl);
    golden_free(ge);
}

static void logprobs_agree(void **state)
{
    json_t *rows = golden_json("sampling/logprobs.json");
    struct golden *g = golden_load("sampling/logits.safetensors");
    struct golden_tensor logits = golden_get(g, "logits");
    size_t n, k;
    json_t *row, *pair;
    json_array_foreach(rows, n, row) json_array_foreach(row, k, pair)
    {
        int32_t id = (int32_t)json_integer_value(json_array_get(pair, 0));
        double want = json_number_value(json_array_get(pair, 1));
        assert_true(fabs(sampler_logprob(logits.f32 + 512 * n, 512, id) - want) < 1e-9);
    }
    json_decref(rows);
    golden_free(g);
}

/* ---- against the definition --------------------------------------------------------------------
 */

/* One token of the plain version below: sorted by hand, summed in double. */
struct item {
    double l, p, order;
    int id;
};

static int by_order(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->order != y->order)
        return x->order > y->order ? -1 : 1;
    return x->id - y->id;
}

static double softmax(struct item *v, size_t n, double temperature)
{
    double max = -INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        max = v[i].l > max ? v[i].l : max;
    for (size_t i = 0; i < n; i++)
        sum += v[i].p = exp((v[i].l - max) / temperature);
    for (size_t i = 0; i < n; i++)
        v[i].p /= sum;
    return sum;
}

/* Number of items (in order) until the sum is at least (over: more than) share; *close is set when
   rounding could decide. */
static size_t prefix(struct item *v, size_t n, double share, bool over, bool *close)
{
    qsort(v, n, sizeof *v, by_order);
    double sum = 0;
    size_t i = 0;
    while (i < n) {
        sum += v[i++].p;
        *close |= fabs(sum - share) < 1e-5;
        if (over ? sum > share : sum >= share)
            break;
    }
    return i;
}

static size_t plain(const struct sampler_params *q, const float *logits, size_t n, float *out,
                    bool *close)
{
    struct item *v = calloc(n, sizeof *v);
    assert_non_null(v);
    size_t m = 0;
    for (size_t i = 0; i < n; i++)
        if (logits[i] > -INFINITY)
            v[m++] = (struct item){.l = (double)logits[i], .id = (int)i};
    for (size_t i = 0; i < m; i++)
        v[i].order = v[i].l;
    qsort(v, m, sizeof *v, by_order);
    if (q->top_k && (size_t)q->top_k < m)
        m = (size_t)q->top_k;
    if (q->typical_p < 1) {
        softmax(v, m, 1);
        double entropy = 0;
        for (size_t i = 0; i < m; i++)
            entropy -= v[i].p > 0 ? v[i].p * log(v[i].p) : 0;
        for (size_t i = 0; i < m; i++)
            v[i].order = -fabs(-log(v[i].p) - entropy);
        size_t k = prefix(v, m, (double)q->typical_p, true, close);
        if (k < m)
            *close |= fabs(v[k].order - v[k - 1].order) < 1e-4;
        m = k;
    }
    softmax(v, m, 1);
    for (size_t i = 0; i < m; i++)
        v[i].order = v[i].l;
    if (q->top_p < 1) {
        m = prefix(v, m, (double)q->top_p, false, close);
        softmax(v, m, 1);
    }
    if (q->min_p > 0) {
        qsort(v, m, sizeof *v, by_order);
        double least = (double)q->min_p * v[0].p;
        size_t k = 0;
        for (size_t i = 0; i < m; i++) {
            *close |= fabs(v[i].p / least - 1) < 1e-4;
            k += v[i].p >= least;
        }
        m = k;
    }
    softmax(v, m, (double)q->temperature);
    memset(out, 0, n * sizeof *out);
    for (size_t i = 0; i < m; i++)
        out[v[i].id] = (float)v[i].p;
    free(v);
    return m;
}

/* Rows of every kind: smooth, peaked, with many ties, with forbidden tokens, of odd lengths. */
static void fill(float *l, size_t n, int kind, struct rng *r)
{
    for (size_t i = 0; i < n; i++) {
        double x = rng_normal(r);
        l[i] = (float)(kind == 0   ? x
                       : kind == 1 ? 3 * x
                       : kind == 2 ? round(2 * x)
                       : kind == 3 ? (rng_uniform(r) < 0.01 ? 12 + 2 * x : -3 + x)
                       : kind == 4 ? (rng_uniform(r) < 0.5 ? -INFINITY : x)
                                   : (rng_uniform(r) < 0.5 ? 0.0 : -0.0));
    }
    l[rng_u32(r) % n] = 4; /* never all forbidden */
}

static void any_row_and_setting_follow_the_definition(void **state)
{
    static const size_t sizes[] = {1, 2, 15, 63, 64, 65, 130, 777, 4096, 9001};
    enum { N = 9001 };
    float *l = malloc(N * sizeof *l), *p = malloc(N * sizeof *p), *want = malloc(N * sizeof *want);
    struct rng r;
    rng_init(&r, 11, 0);
    unsigned compared = 0;
    for (unsigned round = 0; round < 900; round++) {
        size_t n = sizes[rng_u32(&r) % NUM_COUNT(sizes)];
        fill(l, n, (int)(round % 6), &r);
        struct sampler_params q;
        sampler_params_init(&q);
        unsigned on = rng_u32(&r);
        q.temperature = 0.3f + 1.5f * (float)rng_uniform(&r);
        q.top_k = on & 1 ? (int)(rng_u32(&r) % (on & 16 ? 50 : 2000)) : 0;
        q.top_p = on & 2 ? (float)rng_uniform(&r) : 1;
        q.min_p = on & 4 ? (float)pow(rng_uniform(&r), 3) : 0;
        q.typical_p = on & 8 ? (float)rng_uniform(&r) : 1;
        bool close = false;
        size_t m = plain(&q, l, n, want, &close);
        if (close)
            continue;
        compared++;
        struct sampler *s = make(&q, n);
        size_t kept = sampler_probs(s, l, p);
        if (kept != m)
            fail_msg("round %u: %zu of %zu tokens are left, should be %zu", round, kept, n, m);
        for (size_t i = 0; i < n; i++)
            if ((p[i] > 0) != (want[i] > 0) || !(fabsf(p[i] - want[i]) <= 2e-6f))
                fail_msg("round %u token %zu: %.9g, expected %.9g", round, i, (double)p[i],
                         (double)want[i]);
        sampler_free(s);
    }
    assert_true(compared > 400);
    free(l);
    free(p);
    free(want);
}

static void ties_go_to_the_lowest_id(void **state)
{
    enum { N = 1000 };
    float l[N], p[N];
    for (size_t i = 0; i < N; i++)
        l[i] = i % 3 == 2 ? 1 : 0;
    struct sampler_params q;
    sampler_params_init(&q);
    q.temperature = 0;
    struct sampler *s = make(&q, N);
    int32_t id;
    assert_int_equal(sampler_next(s, l, &id, NULL), 0);
    assert_int_equal(id, 2);
    sampler_free(s);
    q.temperature = 1;
    q.top_k = 4;
    s = make(&q, N);
    assert_int_equal(sampler_probs(s, l, p), 4);
    assert_true(p[2] > 0 && p[5] > 0 && p[8] > 0 && p[11] > 0);
    sampler_free(s);
    q.top_k = 335; /* the 333 larger ones and two of the others */
    s = make(&q, N);
    assert_int_equal(sampler_probs(s, l, p), 335);
    assert_true(p[0] > 0 && p[1] > 0 && p[998] > 0 && p[3] == 0);
    sampler_free(s);
    for (size_t i = 0; i < N; i++)
        l[i] = 7; /* all equal: top-p counts */
    q.top_k = 0;
    q.top_p = 0.0995f;
    s = make(&q, N);
    assert_int_equal(sampler_probs(s, l, p), 100);
    assert_true(p[99] > 0 && p[100] == 0);
    sampler_free(s);
}

/* ---- draws -------------------------------------------------------------------------------------
 */

/* χ² of draws against sampler_probs; few outcomes are pooled so that each bin expects 10 or more.
 */
static void check_draws(const struct sampler_params *q, const float *l, size_t n)
{
    enum { DRAWS = 8000 };
    struct sampler *s = make(q, n);
    float *p = malloc(n * sizeof *p);
    unsigned *count = calloc(n, sizeof *count);
    size_t kept = sampler_probs(s, l, p);
    assert_true(kept >= 1);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)p[i];
    assert_true(fabs(sum - 1) < 1e-5);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id;
        assert_int_equal(sampler_next(s, l, &id, NULL), 0);
        assert_true(id >= 0 && (size_t)id < n && p[id] > 0);
        count[id]++;
    }
    double chi = 0, expect = 0, seen = 0;
    int bins = 0;
    for (size_t i = 0; i < n; i++) {
        expect += DRAWS * (double)p[i];
        seen += count[i];
        if (expect >= 10) {
            chi += (seen - expect) * (seen - expect) / expect;
            bins++;
            expect = seen = 0;
        }
    }
    if (bins > 1) { /* mean bins − 1, variance twice that; five standard deviations */
        double mean = bins - 1;
        if (chi > mean + 5 * sqrt(2 * mean) || chi < mean - 5 * sqrt(2 * mean))
            fail_msg("chi-square %.1f with %d bins", chi, bins);
    }
    sampler_free(s);
    free(p);
    free(count);
}

static void draws_have_the_probabilities(void **state)
{
    enum { N = 1000 };
    float l[N];
    struct rng r;
    rng_init(&r, 5, 0);
    for (int kind = 0; kind < 5; kind++) {
        struct sampler_params q;
        sampler_params_init(&q);
        fill(l, N, kind, &r);
        q.seed = (uint64_t)kind;
        check_draws(&q, l, N); /* the whole row */
        check_draws(&q, l, 63);
        check_draws(&q, l, 65);
        q.temperature = 0.6f;
        q.top_p = 0.95f;
        check_draws(&q, l, N);
        q.top_p = 1;
        q.temperature = 1.7f;
        check_draws(&q, l, N);
        q.top_k = 40;
        q.min_p = 0.02f;
        check_draws(&q, l, N);
    }
}

static void a_run_repeats_exactly(void **state)
{
    enum { N = 500, TOKENS = 60 };
    float l[N];
    struct rng r;
    rng_init(&r, 8, 0);
    fill(l, N, 0, &r);
    struct sampler_params q;
    sampler_params_init(&q);
    int32_t first[TOKENS], again[TOKENS];
    for (int way = 0; way < 2; way++) {
        q.top_k = way ? 100 : 0;
        q.seed = 1;
        struct sampler *a = make(&q, N), *b = make(&q, N), *other;
        q.seed = 2;
        other = make(&q, N);
        int differ = 0, repeat = 0;
        for (int i = 0; i < TOKENS; i++) {
            int32_t x;
            float p[N];
            assert_int_equal(sampler_next(a, l, &first[i], NULL), 0);
            sampler_probs(b, l, p); /* looking does not draw */
            assert_int_equal(sampler_next(b, l, &again[i], NULL), 0);
            assert_int_equal(sampler_next(other, l, &x, NULL), 0);
            assert_int_equal(first[i], again[i]);
            differ += x != first[i];
            repeat += i && first[i] == first[i - 1];
            sampler_reset(b); /* the counter goes on */
        }
        assert_true(differ > TOKENS / 2);
        assert_true(repeat < TOKENS / 2);
        sampler_free(a);
        sampler_free(b);
        sampler_free(other);
    }
}

/* ---- penalties
 * ----------------------------------------------------------------------------------- */

/* After a long history the logits that a window of w tokens gives: by probabilities at equal
 * logits. */
static void penalties_look_at_the_window(void **state)
{
    enum { N = 20 };
    static const int windows[] = {-1, 1, 2, 7, 64, 1000};
    for (size_t w = 0; w < NUM_COUNT(windows); w++) {
        struct sampler_params q;
        sampler_params_init(&q);
        q.penalty_last = windows[w];
        q.frequency_penalty = 0.01f;
        q.presence_penalty = 0.5f;
        struct sampler *s = make(&q, N);
        struct rng r;
        rng_init(&r, w, 0);
        int32_t past[700];
        for (int i = 0; i < 700; i++) {
            past[i] = (int32_t)(rng_u32(&r) % (N - 3) * (i < 650 ? 1 : 0) + rng_u32(&r) % 3);
            assert_int_equal(sampler_accept(s, past[i], NULL), 0);
            if (i % 37 && i != 699)
                continue;
            int from = windows[w] < 0 || windows[w] > i ? 0 : i + 1 - windows[w], count[N] = {0};
            for (int k = from; k <= i; k++)
                count[past[k]]++;
            float l[N] = {0}, p[N];
            double want[N], sum = 0;
            for (int k = 0; k < N; k++)
                sum += want[k] = exp(count[k] ? -0.01 * count[k] - 0.5 : 0);
            sampler_probs(s, l, p);
            for (int k = 0; k < N; k++)
                assert_true(fabs((double)p[k] - want[k] / sum) < 1e-6);
        }
        sampler_reset(s);
        float l[N] = {0}, p[N];
        sampler_probs(s, l, p);
        for (int k = 0; k < N; k++)
            assert_true(fabsf(p[k] - 1.0f / N) < 1e-6f);
        sampler_free(s);
    }
}

static void no_window_means_no_penalty(void **state)
{
    struct sampler_params q;
    sampler_params_init(&q);
    q.penalty_last = 0;
    q.repetition_penalty = 2;
    struct sampler *s = make(&q, 3);
    assert_int_equal(sampler_accept(s, 1, NULL), 0);
    float l[3] = {1, 1, 1}, p[3];
    sampler_probs(s, l, p);
    assert_true(p[0] == p[1]);
    sampler_free(s);
}

/* ---- what is refused
 * ------------------------------------------------------------------------------- */

static void damaged_logits_are_an_error(void **state)
{
    static const float bad[] = {NAN, -NAN, INFINITY};
    enum { N = 200 };
    float l[N], p[N];
    for (int way = 0; way < 4; way++) {
        struct sampler_params q;
        sampler_params_init(&q);
        q.temperature = way == 0 ? 0 : 1;
        q.top_k = way == 1 ? 5 : 0;
        q.top_p = way == 2 ? 0.5f : 1;
        struct sampler *s = make(&q, N);
        for (size_t at = 0; at < N; at++)
            for (size_t k = 0; k < NUM_COUNT(bad); k++) {
                struct err e = {0};
                int32_t id = -5;
                for (size_t i = 0; i < N; i++)
                    l[i] = (float)i;
                l[at] = bad[k];
                assert_int_equal(sampler_next(s, l, &id, &e), ERR_FORMAT);
                assert_non_null(strstr(e.text, "NaN"));
                assert_int_equal(sampler_probs(s, l, p), 0);
            }
        struct err e = {0};
        int32_t id;
        for (size_t i = 0; i < N; i++)
            l[i] = -INFINITY;
        assert_int_equal(sampler_next(s, l, &id, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, "forbidden"));
        l[150] = -1000; /* one is left */
        assert_int_equal(sampler_next(s, l, &id, &e), 0);
        assert_int_equal(id, 150);
        sampler_free(s);
    }
}

static void forbidding_everything_is_an_error(void **state)
{
    struct sampler_bias bias[] = {{0, -INFINITY}, {1, -INFINITY}, {2, 5}};
    struct sampler_params q;
    sampler_params_init(&q);
    q.bias = bias;
    q.n_bias = 3;
    struct sampler *s = make(&q, 3);
    float l[3] = {100, 100, -100};
    int32_t id;
    assert_int_equal(sampler_next(s, l, &id, NULL), 0);
    assert_int_equal(id, 2);
    sampler_free(s);
    bias[2].bias = -INFINITY;
    s = make(&q, 3);
    assert_int_equal(sampler_next(s, l, &id, NULL), ERR_FORMAT);
    sampler_free(s);
}

/* Values that overflow or vanish on the way must not become NaN. */
static void extreme_values_stay_sound(void **state)
{
    struct sampler_bias bias[] = {{0, FLT_MAX}, {0, FLT_MAX}, {1, -FLT_MAX}, {1, -FLT_MAX}};
    struct sampler_params q;
    float l[200], p[200];
    int32_t id;
    for (int i = 0; i < 200; i++)
        l[i] = i % 2 ? FLT_MAX : -FLT_MAX;
    static const float temperatures[] = {0, FLT_MIN, 1e-40f, 1e-6f, 1, 100};
    for (size_t t = 0; t < NUM_COUNT(temperatures); t++)
        for (unsigned on = 0; on < 32; on++) {
            sampler_params_init(&q);
            q.temperature = temperatures[t];
            q.top_k = on & 1 ? 3 : 0;
            q.top_p = on & 2 ? (on & 16 ? 0 : 0.9f) : 1;
            q.min_p = on & 4 ? (on & 16 ? 1 : 1e-45f) : 0;
            q.typical_p = on & 8 ? (on & 16 ? 0 : 0.9f) : 1;
            q.repetition_penalty = 100;
            q.presence_penalty = -100;
            q.bias = bias;
            q.n_bias = NUM_COUNT(bias);
            struct sampler *s = make(&q, 200);
            for (int32_t i = 0; i < 50; i++)
                sampler_accept(s, i, NULL);
            size_t kept = sampler_probs(s, l, p);
            assert_true(kept >= 1);
            double sum = 0;
            for (int i = 0; i < 200; i++)
                sum += (double)p[i];
            assert_true(fabs(sum - 1) < 1e-5);
            assert_int_equal(sampler_next(s, l, &id, NULL), 0);
            assert_true(p[id] > 0);
            sampler_free(s);
        }
}

static void wrong_parameters_are_named(void **state)
{
    static const struct {
        const char *name;
        size_t offset;
        float value;
    } cases[] = {
#define WRONG(f, x) {#f, offsetof(struct sampler_params, f), x}
        WRONG(temperature, -0.1f),
        WRONG(temperature, NAN),
        WRONG(temperature, INFINITY),
        WRONG(top_p, 1.1f),
        WRONG(top_p, -1),
        WRONG(min_p, 2),
        WRONG(min_p, NAN),
        WRONG(typical_p, -0.5f),
        WRONG(repetition_penalty, 0),
        WRONG(repetition_penalty, -1),
        WRONG(frequency_penalty, 1e9f),
        WRONG(presence_penalty, -INFINITY),
    };
    struct sampler_params q;
    struct err e;
    struct sampler *s;
    for (size_t i = 0; i < NUM_COUNT(cases); i++) {
        sampler_params_init(&q);
        assert_int_equal(sampler_params_check(&q, &e), 0);
        memcpy((char *)&q + cases[i].offset, &cases[i].value, sizeof(float));
        assert_int_equal(sampler_params_check(&q, &e), ERR_USAGE);
        assert_int_equal(strncmp(e.text, cases[i].name, strlen(cases[i].name)), 0);
        assert_int_equal(sampler_new(&s, &q, 10, &e), ERR_USAGE);
        assert_null(s);
    }
    sampler_params_init(&q);
    q.top_k = -1;
    assert_int_equal(sampler_params_check(&q, &e), ERR_USAGE);
    sampler_params_init(&q);
    q.penalty_last = -2;
    assert_int_equal(sampler_params_check(&q, &e), ERR_USAGE);
    struct sampler_bias bias = {10, 1};
    sampler_params_init(&q);
    q.bias = &bias;
    q.n_bias = 1;
    assert_int_equal(sampler_new(&s, &q, 10, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "token 10"));
    bias = (struct sampler_bias){1, INFINITY};
    assert_int_equal(sampler_new(&s, &q, 10, &e), ERR_USAGE);
    bias = (struct sampler_bias){-1, 0};
    assert_int_equal(sampler_new(&s, &q, 10, &e), ERR_USAGE);
    sampler_params_init(&q);
    assert_int_equal(sampler_new(&s, &q, 0, &e), ERR_USAGE);
    assert_int_equal(sampler_new(&s, &q, SIZE_MAX, &e), ERR_USAGE);
    s = make(&q, 10);
    assert_int_equal(sampler_accept(s, 10, &e), ERR_USAGE);
    assert_int_equal(sampler_accept(s, -1, &e), ERR_USAGE);
    sampler_free(s);
    sampler_free(NULL);
}

/* A mask is the same as a bias of -inf on what it leaves out, before top-k and all the rest. */
static void a_mask_forbids_before_all_else(void **state)
{
    enum { N = 150 };
    static const int odd = 3;
    struct sampler_bias bias[N];
    struct sampler_params q[3];
    float l[N], p[N], want[N];
    uint32_t mask[(N + 31) / 32] = {0}, none[(N + 31) / 32] = {0};
    size_t n = 0;
    for (int i = 0; i < N; i++) {
        l[i] = (float)(i * 37 % N) / 10;
        if (i % odd == 1)
            mask[i / 32] |= 1u << (i % 32);
        else
            bias[n++] = (struct sampler_bias){i, -INFINITY};
    }
    for (size_t i = 0; i < NUM_COUNT(q); i++)
        sampler_params_init(&q[i]);
    q[0].top_k = 5;
    q[1].top_p = 0.7f;
    q[1].repetition_penalty = 1.5f;
    q[2].temperature = 0;
    for (size_t i = 0; i < NUM_COUNT(q); i++) {
        struct sampler *masked = make(&q[i], N);
        q[i].bias = bias;
        q[i].n_bias = n;
        struct sampler *biased = make(&q[i], N);
        sampler_mask(masked, mask);
        for (int k = 0; k < 20; k++) {
            int32_t a, b;
            struct err e;
            assert_int_equal(sampler_probs(masked, l, p), sampler_probs(biased, l, want));
            assert_memory_equal(p, want, sizeof p);
            assert_int_equal(sampler_next(masked, l, &a, &e), 0);
            assert_int_equal(sampler_next(biased, l, &b, &e), 0);
            assert_int_equal(a, b);
            assert_int_equal(a % odd, 1);
            sampler_accept(masked, a, &e);
            sampler_accept(biased, b, &e);
        }
        struct err e = {0};
        int32_t id;
        sampler_mask(masked, none);
        assert_int_equal(sampler_next(masked, l, &id, &e), ERR_FORMAT);
        sampler_mask(masked, NULL);
        assert_int_equal(sampler_probs(masked, l, p) > 0, 1);
        sampler_free(masked);
        sampler_free(biased);
    }
}

static void every_allocation_may_fail(void **state)
{
    struct sampler_bias bias = {1, 1};
    struct sampler_params q;
    sampler_params_init(&q);
    q.repetition_penalty = 1.1f;
    q.penalty_last = 10;
    q.bias = &bias;
    q.n_bias = 1;
    size_t n = 1;
    for (;; n++) {
        struct sampler *s;
        struct err e = {0};
        fail_alloc_at(n);
        int rc = sampler_new(&s, &q, 100, &e);
        bool failed = fail_alloc_stop();
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        if (!failed) {
            float l[100] = {0};
            int32_t id;
            fail_alloc_from(1); /* from here on nothing is allocated */
            for (int i = 0; i < 30; i++) {
                assert_int_equal(sampler_next(s, l, &id, &e), 0);
                assert_int_equal(sampler_accept(s, id, &e), 0);
            }
            assert_false(fail_alloc_stop());
            sampler_free(s);
            break;
        }
        assert_null(s);
    }
    assert_true(n > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_agree),
        cmocka_unit_test(logprobs_agree),
        cmocka_unit_test(any_row_and_setting_follow_the_definition),
        cmocka_unit_test(ties_go_to_the_lowest_id),
        cmocka_unit_test(draws_have_the_probabilities),
        cmocka_unit_test(a_run_repeats_exactly),
        cmocka_unit_test(penalties_look_at_the_window),
        cmocka_unit_test(no_window_means_no_penalty),
        cmocka_unit_test(damaged_logits_are_an_error),
        cmocka_unit_test(forbidding_everything_is_an_error),
        cmocka_unit_test(extreme_values_stay_sound),
        cmocka_unit_test(wrong_parameters_are_named),
        cmocka_unit_test(a_mask_forbids_before_all_else),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
