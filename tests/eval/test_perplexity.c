/* Perplexity against the logits themselves, the divergence against its definition, and the file of
 * saved logits: whole, damaged and hostile. */
#include "base/hash.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "eval/perplexity.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 150, CTX = 32, VOCAB = 512 };

struct place {
    char dir[64], file[96];
};

static int setup(void **state)
{
    static struct place p;
    snprintf(p.dir, sizeof p.dir, "/tmp/ponder-eval.XXXXXX");
    if (!mkdtemp(p.dir))
        return -1;
    snprintf(p.file, sizeof p.file, "%s/ref.logits", p.dir);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    unlink(p->file);
    return rmdir(p->dir);
}

static struct engine *open_model(const char *name, enum quant_id kv, int threads, size_t batch,
                                 size_t want)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = threads;
    o.ctx = CTX;
    o.batch = batch;
    o.want = want;
    o.kv_type = kv;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

static void some_ids(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + 3) % VOCAB);
}

static struct perplexity run(struct engine *g, const struct perplexity_params *p)
{
    struct perplexity x;
    struct err e = {0};
    if (perplexity_run(&x, g, p, &e))
        fail_msg("%s", e.text);
    return x;
}

/* ---- windows --------------------------------------------------------------------------------- */

static void test_windows(void **state)
{
    struct err e = {0};
    size_t n;
    struct eval_cut chunks = {.ctx = 512};
    (void)state;
    assert_int_equal(eval_windows(&n, &chunks, 1023, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "1023"));
    assert_int_equal(eval_windows(&n, &chunks, 1600, &e), 0);
    assert_int_equal(n, 3);
    struct eval_window w = eval_window_at(&chunks, 1600, 2);
    assert_int_equal(w.start, 1024);
    assert_int_equal(w.n, 512);
    assert_int_equal(w.from, 256);
    assert_int_equal(eval_window_rows(&chunks, 1600, 3), 3 * 255);
    chunks.limit = 2;
    assert_int_equal(eval_windows(&n, &chunks, 1600, &e), 0);
    assert_int_equal(n, 2);
    struct eval_cut bad = {.ctx = 16, .stride = 17};
    assert_int_equal(eval_windows(&n, &bad, 100, &e), ERR_USAGE);
    /* Every token but the first is scored once, whatever the stride (the full window's own first
       tokens aside, which have nothing before them). */
    for (size_t ctx = 2; ctx < 9; ctx++)
        for (size_t stride = 1; stride < ctx; stride++)
            for (size_t text = 2; text < 40; text++) {
                struct eval_cut c = {.ctx = ctx, .stride = stride};
                size_t seen[40] = {0};
                assert_int_equal(eval_windows(&n, &c, text, &e), 0);
                for (size_t i = 0; i < n; i++) {
                    w = eval_window_at(&c, text, i);
                    assert_true(w.start + w.n <= text && w.n <= ctx);
                    for (size_t k = w.from; k + 1 < w.n; k++)
                        seen[w.start + k + 1]++;
                    if (i) /* and never with less before it than the stride leaves */
                        assert_true(w.from + 1 >= ctx - stride);
                }
                for (size_t i = 0; i < text; i++)
                    assert_int_equal(seen[i], i > 0);
                assert_int_equal(eval_window_rows(&c, text, n), text - 1);
            }
}

/* ---- perplexity ------------------------------------------------------------------------------ */

/* The plain way: all logits of each window, then the definition. */
static double plain_nll(struct engine *g, const struct eval_cut *cut, const int32_t *ids,
                        int32_t bos, size_t *scored)
{
    static float all[CTX * VOCAB];
    struct session *s;
    struct err e = {0};
    double sum = 0;
    size_t n;
    *scored = 0;
    assert_int_equal(eval_windows(&n, cut, N, &e), 0);
    assert_int_equal(session_new(&s, g, &e), 0);
    for (size_t i = 0; i < n; i++) {
        struct eval_window w = eval_window_at(cut, N, i);
        int32_t v[CTX];
        memcpy(v, ids + w.start, w.n * sizeof *v);
        if (bos >= 0)
            v[0] = bos;
        session_truncate(s, 0);
        assert_int_equal(session_append_all(s, v, w.n, all, &e), 0);
        for (size_t k = w.from; k + 1 < w.n; k++, ++*scored)
            sum -= sampler_logprob(all + k * VOCAB, VOCAB, v[k + 1]);
    }
    session_free(s);
    return sum / (double)*scored;
}

static void test_definition(void **state)
{
    static const size_t strides[] = {0, 32, 8, 1};
    struct engine *g = open_model("llama_rope_llama3", QUANT_F16, 2, 24, 5);
    int32_t ids[N];
    (void)state;
    some_ids(ids, N);
    for (size_t i = 0; i < NUM_COUNT(strides); i++)
        for (int32_t bos = -1; bos < 2; bos++) {
            struct perplexity_params p = {
                .cut = {.ctx = CTX, .stride = strides[i]}, .ids = ids, .n = N, .bos = bos};
            if (strides[i] && bos >= 0)
                continue;
            size_t scored;
            double nll = plain_nll(g, &p.cut, ids, bos, &scored);
            struct perplexity x = run(g, &p);
            assert_int_equal(x.scored, scored);
            assert_true(fabs(x.nll.value - nll) < 1e-6);
            assert_true(fabs(x.ppl.value - exp(nll)) < 1e-6 * exp(nll));
            assert_true(x.nll.error > 0 && x.nll.error < 1);
            assert_int_equal(x.unused, strides[i] ? 0 : N % CTX);
        }
    engine_free(g);
}

/* The same bits for any number of threads, tokens a batch and rows of logits. */
static void test_invariance(void **state)
{
    static const struct {
        int threads;
        size_t batch, want;
    } ways[] = {{1, 0, 0}, {2, 7, 3}, {3, 64, 64}, {2, 1, 1}};
    double nll[NUM_COUNT(ways)];
    int32_t ids[N];
    (void)state;
    some_ids(ids, N);
    for (size_t i = 0; i < NUM_COUNT(ways); i++) {
        struct engine *g =
            open_model("qwen2_tied", QUANT_F16, ways[i].threads, ways[i].batch, ways[i].want);
        struct perplexity_params p = {.cut = {.ctx = CTX}, .ids = ids, .n = N, .bos = -1};
        nll[i] = run(g, &p).nll.value;
        assert_memory_equal(&nll[i], &nll[0], sizeof nll[0]);
        engine_free(g);
    }
}

static bool stop_at_two(void *arg, size_t done, size_t total)
{
    (void)arg;
    assert_true(done <= total);
    return done < 2;
}

static void test_refused(void **state)
{
    struct place *at = *state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, 1, 0, 0);
    struct perplexity x;
    struct err e = {0};
    int32_t ids[N];
    some_ids(ids, N);
    struct perplexity_params p = {.cut = {.ctx = CTX}, .ids = ids, .n = 2 * CTX - 1, .bos = -1};
    assert_int_equal(perplexity_run(&x, g, &p, &e), ERR_LIMIT);
    p.n = N;
    ids[N - 1] = VOCAB; /* only ever the right answer, never an input */
    p.cut.stride = CTX;
    assert_int_equal(perplexity_run(&x, g, &p, &e), ERR_FORMAT);
    p.cut.stride = 0;
    ids[N - 1] = 0;
    p.cut.ctx = CTX + 1;
    assert_int_equal(perplexity_run(&x, g, &p, &e), ERR_USAGE);
    p.cut.ctx = CTX;
    p.save = "/nowhere/ref.logits";
    assert_int_equal(perplexity_run(&x, g, &p, &e), ERR_IO);
    assert_non_null(strstr(e.text, "/nowhere"));
    /* Stopped: what was computed is told, no file appears. */
    p.save = at->file;
    p.progress = stop_at_two;
    assert_int_equal(perplexity_run(&x, g, &p, &e), ERR_CANCELLED);
    assert_int_equal(x.windows, 2);
    assert_true(x.ppl.value > 1);
    assert_int_equal(file_kind(at->file), FILE_NONE);
    engine_free(g);
}

/* ---- divergence ------------------------------------------------------------------------------ */

static void noise(float *x, uint64_t seed, double scale)
{
    struct rng r;
    rng_init(&r, seed, 0);
    for (size_t i = 0; i < VOCAB; i++)
        x[i] = (float)(rng_normal(&r) * scale);
}

static double full_kl(const float *a, const float *b)
{
    double kl = 0;
    for (size_t i = 0; i < VOCAB; i++) {
        double p = sampler_logprob(a, VOCAB, (int32_t)i), q = sampler_logprob(b, VOCAB, (int32_t)i);
        kl += exp(p) * (p - q);
    }
    return kl;
}

static void test_cells(void **state)
{
    static const size_t tops[] = {1, 4, 32, 511, VOCAB};
    struct engine *g = open_model("qwen2_tied", QUANT_F16, 1, 0, 0);
    float a[VOCAB], b[VOCAB], tmp[VOCAB], lp[VOCAB];
    uint32_t ids[VOCAB];
    struct cells_work w = {g, VOCAB, tmp};
    struct cells c = {.ids = ids, .lp = lp};
    struct cells_diff d;
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        noise(a, seed, 2);
        noise(b, seed + 100, 0.3);
        for (size_t i = 0; i < VOCAB; i++)
            b[i] += a[i];
        a[7] = a[9] = 11; /* a tie at the top: the lower id first */
        uint32_t right = (uint32_t)(seed * 37 % VOCAB);
        double kl = full_kl(a, b), last = -1;
        for (size_t t = 0; t < NUM_COUNT(tops); t++) {
            double nll = cells_make(&w, a, right, tops[t], &c);
            assert_true(fabs(nll + sampler_logprob(a, VOCAB, (int32_t)right)) < 1e-5);
            double mass = isinf(c.rest) ? 0 : exp(c.rest);
            bool among = false;
            for (size_t i = 0; i < tops[t]; i++) {
                mass += exp(lp[i]);
                among |= ids[i] == right;
                assert_true(!i || lp[i] <= lp[i - 1]);
            }
            mass += among ? 0 : exp(c.right);
            assert_true(fabs(mass - 1) < 1e-5);
            assert_int_equal(ids[0], 7);
            if (tops[t] > 1)
                assert_int_equal(ids[1], 9);
            cells_compare(&w, a, right, tops[t], &c, &d);
            assert_true(d.kl == 0 && d.dp == 0 && d.same && d.nll == nll);
            cells_compare(&w, b, right, tops[t], &c, &d);
            assert_true(d.kl >= last - 1e-6 && d.kl <= kl + 1e-6); /* finer cells, closer */
            last = d.kl;
            double dp = exp(sampler_logprob(b, VOCAB, (int32_t)right)) -
                        exp(sampler_logprob(a, VOCAB, (int32_t)right));
            assert_true(fabs(d.dp - dp) < 1e-6);
        }
        assert_true(fabs(last - kl) < 1e-5 * (1 + kl));
    }
    a[3] = NAN;
    a[0] = INFINITY;
    assert_true(isnan(cells_nll(&w, a, 5)));
    engine_free(g);
}

static void test_reference(void **state)
{
    struct place *at = *state;
    struct engine *f = open_model("qwen2_tied", QUANT_F32, 2, 0, 0),
                  *b = open_model("qwen2_tied", QUANT_BF16, 2, 0, 0),
                  *other = open_model("llama_rope_llama3", QUANT_F16, 1, 0, 0);
    struct reference r;
    struct perplexity x, y;
    struct err e = {0};
    int32_t ids[N];
    double last = 0;
    some_ids(ids, N);
    for (size_t top = 2; top <= VOCAB; top *= 4) {
        struct perplexity_params p = {
            .cut = {.ctx = CTX}, .ids = ids, .n = N, .bos = 1, .save = at->file, .top = top};
        struct perplexity saved = run(f, &p);
        if (reference_open(&r, at->file, &e))
            fail_msg("%s", e.text);
        assert_string_equal(r.head.name, "qwen2_tied");
        assert_int_equal(r.head.n_ids, N);
        assert_memory_equal(r.ids, ids, sizeof ids);
        assert_true(r.head.model == engine_fingerprint(f));
        /* The model against itself. */
        p.save = NULL;
        p.reference = &r;
        x = run(f, &p);
        assert_true(x.kl.value == 0 && x.kl_max == 0 && x.dp_rms == 0 && x.same.value == 1);
        assert_true(x.ratio.value == 1 && x.ppl.value == saved.ppl.value);
        assert_true(x.reference_ppl.value == saved.ppl.value);
        /* Another form of it: a small divergence, larger the finer the cells. */
        y = run(b, &p);
        assert_true(y.kl.value > 0 && y.kl.value < 0.01 && y.kl.value >= last - 1e-7);
        assert_true(y.kl_median <= y.kl_p90 && y.kl_p90 <= y.kl_p99 && y.kl_p99 <= y.kl_max);
        assert_true(fabs(y.ratio.value - y.ppl.value / saved.ppl.value) < 1e-6);
        last = y.kl.value;
        /* Fewer windows are fine; another text, cut or vocabulary is not. */
        p.cut.limit = 2;
        assert_int_equal(run(b, &p).windows, 2);
        p.cut.limit = 0;
        p.n = N - 1;
        assert_int_equal(perplexity_run(&y, b, &p, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, "another text"));
        p.n = N;
        p.bos = 2;
        assert_int_equal(perplexity_run(&y, b, &p, &e), ERR_USAGE);
        p.bos = 1;
        assert_int_equal(perplexity_run(&y, other, &p, &e), ERR_FORMAT);
        assert_non_null(strstr(e.text, "vocabulary"));
        reference_release(&r);
    }
    engine_free(f);
    engine_free(b);
    engine_free(other);
}

/* ---- damage ---------------------------------------------------------------------------------- */

static uint8_t *slurp(const char *path, size_t *n)
{
    struct buf b;
    struct err e = {0};
    buf_init(&b, 1 << 24);
    assert_int_equal(file_read(&b, path, &e), 0);
    uint8_t *p = malloc(b.len);
    memcpy(p, b.data, b.len);
    *n = b.len;
    buf_release(&b);
    return p;
}

/* In memory of exactly that size, so that reading beyond it is seen. */
static int open_bytes(const uint8_t *p, size_t n, struct err *e)
{
    struct reference r;
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, p, n);
    memset(e, 0, sizeof *e);
    int rc = reference_open_memory(&r, copy, n, e);
    if (rc)
        assert_true(strlen(e->text) > 0);
    else
        reference_release(&r);
    free(copy);
    return rc;
}

static void test_damaged(void **state)
{
    struct place *at = *state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, 1, 0, 0);
    struct err e;
    int32_t ids[N];
    size_t n;
    some_ids(ids, N);
    struct perplexity_params p = {
        .cut = {.ctx = 8, .limit = 2}, .ids = ids, .n = 40, .bos = -1, .save = at->file, .top = 3};
    run(g, &p);
    engine_free(g);
    uint8_t *good = slurp(at->file, &n), *bad = malloc(n);
    assert_int_equal(n, 256 + 40 * 4 + 2 * 3 * (3 * 8 + 8) + 8);
    assert_int_equal(open_bytes(good, n, &e), 0);
    /* Any one byte changed, any length cut off. */
    for (size_t i = 0; i < n; i++) {
        memcpy(bad, good, n);
        bad[i] ^= (uint8_t)(1u << i % 8);
        assert_int_not_equal(open_bytes(bad, n, &e), 0);
        assert_int_not_equal(open_bytes(good, i, &e), 0);
    }
    /* From a file: the error names it. */
    struct reference ref;
    FILE *f = fopen(at->file, "wb");
    assert_int_equal(fwrite(good, n - 1, 1, f), 1);
    fclose(f);
    assert_int_equal(reference_open(&ref, at->file, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "ref.logits"));
    assert_non_null(strstr(e.text, "truncated"));
    /* A made-up file whose checksum is right: refused, or harmless. */
    struct rng r;
    rng_init(&r, 1, 0);
    size_t refused = 0;
    for (size_t i = 0; i < 2000; i++) {
        memcpy(bad, good, n);
        for (size_t k = 0; k <= i % 3; k++) {
            uint32_t v = i % 2 ? rng_u32(&r) : UINT32_MAX >> rng_u32(&r) % 32;
            memcpy(bad + rng_u32(&r) % (i % 4 ? 80 : n - 12), &v, sizeof v);
        }
        uint64_t sum = hash_fnv1a(bad, n - 8, HASH_FNV1A);
        memcpy(bad + n - 8, &sum, sizeof sum);
        refused += open_bytes(bad, n, &e) != 0;
    }
    assert_true(refused > 500);
    free(good);
    free(bad);
}

static void test_no_memory(void **state)
{
    struct place *at = *state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, 1, 0, 0);
    int32_t ids[N];
    some_ids(ids, N);
    unlink(at->file);
    for (size_t n = 1;; n++) {
        struct perplexity_params p = {
            .cut = {.ctx = 8}, .ids = ids, .n = 20, .bos = -1, .save = at->file};
        struct perplexity x;
        struct reference r = {0};
        struct err e = {0};
        fail_alloc_at(n);
        int rc = perplexity_run(&x, g, &p, &e);
        if (!rc)
            rc = reference_open(&r, at->file, &e);
        p.save = NULL;
        p.reference = &r;
        if (!rc)
            rc = perplexity_run(&x, g, &p, &e);
        bool failed = fail_alloc_stop();
        reference_release(&r);
        if (!failed)
            break;
        if (rc)
            assert_true(strlen(e.text) > 0);
        assert_true(n < 1000);
    }
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows),    cmocka_unit_test(test_definition),
        cmocka_unit_test(test_invariance), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cells),      cmocka_unit_test(test_reference),
        cmocka_unit_test(test_damaged),    cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("eval/perplexity", tests, setup, teardown);
}
