/*
 * Batch invariance: the logits of a token have the same bits whatever else is in the batch, however
 * the prompt was cut, however many threads run, and at every instruction set. Held on a small model
 * that has most weight types with a kernel, for each type of KV cache, and on one with the types of
 * few bits and one without a kernel.
 */
#include "model/model.h"
#include "support/tiny_model.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 150, VOCAB = 320, CTX = 256 };

struct fixture {
    char path[2][64];
    struct source *src, *few; /* few bits */
};

struct loaded {
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct model *model;
    struct kv_pool *kv;
};

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static void load(struct loaded *l, const struct source *src, int threads, enum cpu_isa isa,
                 enum quant_id kv, const struct model_load_opts *o)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    memset(l, 0, sizeof *l);
    kern_init(&l->kern, isa);
    die(team_new(&l->team, threads, &e), &e);
    op_ctx_init(&l->ops, &l->kern, l->team);
    die(model_check(src, &cfg, &e), &e);
    die(model_load(&l->model, src, &cfg, &l->ops, o, &e), &e);
    model_kv_shape(l->model, &shape);
    shape.type = kv;
    die(kv_pool_new(&l->kv, &shape, 4 * CTX / KV_PAGE, &e), &e);
    die(op_ctx_reserve(&l->ops, 64 << 20, &e), &e);
}

static void unload(struct loaded *l)
{
    kv_pool_free(l->kv);
    model_free(l->model);
    op_ctx_release(&l->ops);
    team_free(l->team);
}

/* A part of a sequence to compute in one batch. */
struct part {
    struct kv_seq *seq;
    const int32_t *ids;
    size_t pos, n;
    float *out; /* (n, VOCAB) or NULL */
};

static void run(struct loaded *l, const struct part *p, size_t n_parts)
{
    struct err e = {0};
    int32_t ids[4 * TOKENS];
    uint32_t pos[4 * TOKENS], want[4 * TOKENS];
    struct batch_run runs[4];
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        die(kv_seq_reserve(p[i].seq, p[i].pos, p[i].pos, p[i].pos + p[i].n, &e), &e);
        runs[i] = (struct batch_run){.seq = p[i].seq, .row = n, .n = p[i].n, .pos = p[i].pos};
        for (size_t t = 0; t < p[i].n; t++, n++) {
            ids[n] = p[i].ids[p[i].pos + t];
            pos[n] = (uint32_t)(p[i].pos + t);
            want[n] = (uint32_t)n;
        }
    }
    struct batch b = {
        .n = n, .ids = ids, .pos = pos, .want = want, .n_want = n, .runs = runs, .n_runs = n_parts};
    l->ops.used = 0;
    model_pass(l->model, n);
    struct tensor y = model_forward(l->model, &l->ops, &b);
    die(model_sound(l->model, &e), &e);
    assert_int_equal(y.rows, n);
    assert_int_equal(y.cols, VOCAB);
    for (size_t i = 0; i < n_parts; i++)
        if (p[i].out)
            memcpy(p[i].out, y.data + runs[i].row * VOCAB, p[i].n * VOCAB * sizeof(float));
    l->ops.used = 0;
}

static void make_ids(int32_t *ids, unsigned seed)
{
    for (size_t i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)((seed += 2654435761u * (unsigned)(i + 1)) >> 8) % VOCAB;
}

/* Logits of all tokens, fed in chunks of `chunk`, with a company of other sequences or none. */
static void score_loaded(const struct source *src, int threads, enum cpu_isa isa, enum quant_id kv,
                         size_t chunk, bool company, const struct model_load_opts *o, float *out)
{
    struct err e = {0};
    struct loaded l;
    struct kv_seq seq[3];
    int32_t ids[3][TOKENS];
    load(&l, src, threads, isa, kv, o);
    for (int i = 0; i < 3; i++) {
        make_ids(ids[i], 77u + (unsigned)i);
        die(kv_seq_init(&seq[i], l.kv, CTX, &e), &e);
    }
    size_t other[3] = {0, 0, 0};
    for (size_t at = 0; at < TOKENS; at += chunk) {
        struct part p[3];
        size_t n = 0;
        /* One companion decodes, one is in its prompt; the sequence under test is in the middle. */
        if (company && other[1] < TOKENS)
            p[n++] = (struct part){&seq[1], ids[1], other[1], 1, NULL}, other[1]++;
        size_t k = chunk < TOKENS - at ? chunk : TOKENS - at;
        p[n++] = (struct part){&seq[0], ids[0], at, k, out + at * VOCAB};
        if (company && other[2] + 9 <= TOKENS)
            p[n++] = (struct part){&seq[2], ids[2], other[2], 9, NULL}, other[2] += 9;
        run(&l, p, n);
    }
    for (int i = 0; i < 3; i++)
        kv_seq_release(&seq[i]);
    unload(&l);
}

static void score(const struct source *src, int threads, enum cpu_isa isa, enum quant_id kv,
                  size_t chunk, bool company, float *out)
{
    score_loaded(src, threads, isa, kv, chunk, company, NULL, out);
}

static void same(const float *a, const float *b, const char *what)
{
    for (size_t i = 0; i < (size_t)TOKENS * VOCAB; i++)
        if (memcmp(a + i, b + i, sizeof *a))
            fail_msg("%s: token %zu, logit %zu: %.9g, alone and at once %.9g", what, i / VOCAB,
                     i % VOCAB, (double)b[i], (double)a[i]);
}

static void open_model(const struct tiny_model *m, int which, char path[64], struct source **src)
{
    struct err e = {0};
    snprintf(path, 64, "/tmp/ponder-tiny-%d-%d.gguf", (int)getpid(), which);
    die(tiny_model_write(m, path, &e), &e);
    die(source_open(src, path, &e), &e);
}

static int setup(void **state)
{
    static const enum quant_id few[] = {
        QUANT_IQ2_XXS, QUANT_IQ3_XXS, QUANT_IQ2_XS, QUANT_IQ2_S, QUANT_IQ3_S, QUANT_IQ1_S,
        QUANT_IQ1_M,   QUANT_TQ1_0,   QUANT_TQ2_0,  QUANT_NVFP4, QUANT_Q3_K,
    };
    struct fixture *f = calloc(1, sizeof *f);
    struct tiny_model m;
    tiny_model_init(&m);
    open_model(&m, 0, f->path[0], &f->src);
    m.types = few;
    m.n_types = sizeof few / sizeof *few;
    open_model(&m, 1, f->path[1], &f->few);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    source_free(f->src);
    source_free(f->few);
    unlink(f->path[0]);
    unlink(f->path[1]);
    free(f);
    return 0;
}

static void check_kv(const struct source *src, enum quant_id kv)
{
    float *ref = calloc((size_t)TOKENS * VOCAB, sizeof *ref),
          *got = calloc((size_t)TOKENS * VOCAB, sizeof *got);
    score(src, 1, cpu_best(), kv, TOKENS, false, ref);
    static const struct {
        int threads;
        size_t chunk;
        bool company;
    } ways[] = {{1, 1, false},  {2, 1, false}, {5, 1, true},       {1, 7, false},    {2, 7, true},
                {5, 64, false}, {2, 64, true}, {5, TOKENS, false}, {2, TOKENS, true}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char what[80];
        snprintf(what, sizeof what, "kv %s, %d threads, chunks of %zu%s", quant_by_id(kv)->name,
                 ways[i].threads, ways[i].chunk, ways[i].company ? ", with others" : "");
        score(src, ways[i].threads, cpu_best(), kv, ways[i].chunk, ways[i].company, got);
        same(ref, got, what);
    }
    free(ref);
    free(got);
}

/* Where the weights are does not show: read in the file, or packed by the passes that read them
 * (the first one packs nothing, later ones all). */
static void test_places(void **state)
{
    const struct source *src = ((struct fixture *)*state)->src;
    static const struct model_load_opts places[] = {{.place = MODEL_MAPPED},
                                                    {.place = MODEL_PACKED, .later = true}};
    float *ref = calloc((size_t)TOKENS * VOCAB, sizeof *ref),
          *got = calloc((size_t)TOKENS * VOCAB, sizeof *got);
    score(src, 1, cpu_best(), QUANT_F16, TOKENS, false, ref);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int threads = 1; threads <= 5; threads += 2) {
            char what[80];
            snprintf(what, sizeof what, "place %zu, %d threads", i, threads);
            score_loaded(src, threads, cpu_best(), QUANT_F16, 40, true, &places[i], got);
            same(ref, got, what);
        }
    free(ref);
    free(got);
}

static void test_f16(void **state)
{
    check_kv(((struct fixture *)*state)->src, QUANT_F16);
}

static void test_f32(void **state)
{
    check_kv(((struct fixture *)*state)->src, QUANT_F32);
}

static void test_bf16(void **state)
{
    check_kv(((struct fixture *)*state)->src, QUANT_BF16);
}

static void test_q8_0(void **state)
{
    check_kv(((struct fixture *)*state)->src, QUANT_Q8_0);
}

static void test_fp8(void **state)
{
    check_kv(((struct fixture *)*state)->src, QUANT_E4M3);
    check_kv(((struct fixture *)*state)->src, QUANT_E5M2);
}

static void test_few_bits(void **state)
{
    check_kv(((struct fixture *)*state)->few, QUANT_F16);
}

static void check_isa(const struct source *src)
{
    float *ref = calloc((size_t)TOKENS * VOCAB, sizeof *ref),
          *got = calloc((size_t)TOKENS * VOCAB, sizeof *got);
    score(src, 2, CPU_SCALAR, QUANT_F16, TOKENS, false, ref);
    for (int isa = CPU_SCALAR + 1; isa <= (int)cpu_best(); isa++) {
        score(src, 2, (enum cpu_isa)isa, QUANT_F16, 64, false, got);
        same(ref, got, cpu_isa_name((enum cpu_isa)isa));
    }
    free(ref);
    free(got);
}

static void test_isa(void **state)
{
    check_isa(((struct fixture *)*state)->src);
    check_isa(((struct fixture *)*state)->few);
}

static void test_finite_and_different(void **state)
{
    float *ref = calloc((size_t)TOKENS * VOCAB, sizeof *ref);
    score(((struct fixture *)*state)->src, 2, cpu_best(), QUANT_F16, TOKENS, false, ref);
    double sum = 0, sq = 0;
    for (size_t i = 0; i < (size_t)TOKENS * VOCAB; i++) {
        sum += ref[i];
        sq += (double)ref[i] * ref[i];
    }
    double mean = sum / (TOKENS * VOCAB), var = sq / (TOKENS * VOCAB) - mean * mean;
    assert_true(var > 1e-2 && var < 1e4);
    assert_true(memcmp(ref, ref + VOCAB, VOCAB * sizeof *ref) != 0);
    free(ref);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_finite_and_different),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_f16),
        cmocka_unit_test(test_f32),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_q8_0),
        cmocka_unit_test(test_fp8),
        cmocka_unit_test(test_few_bits),
        cmocka_unit_test(test_isa),
    };
    return cmocka_run_group_tests_name("model/invariance", tests, setup, teardown);
}
