/*
 * Hugging Face folders to GGUF: the model computes the same bits (llama's rotated rows lie in
 * another order there, so attention adds up in another order), drafts too, and text is cut the
 * same.
 */
#include "base/file.h"
#include "convert/convert.h"
#include "engine/engine.h"
#include "model/model.h"
#include "support/fail_alloc.h"
#include "text/tokenizer.h"

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

enum { TOKENS = 40 };

struct golden_model {
    const char *name, *type; /* --type, or NULL: as it is */
    float most;              /* largest difference of a logit */
    bool tokenizer;
};

static const struct golden_model models[] = {
    {"llama_linear_headdim_fp16", NULL, 1e-4f, false},
    {"llama_rope_llama3", NULL, 1e-4f, true},
    {"qwen2_tied", NULL, 0, true},
    {"qwen2_untied", NULL, 0, false},
    {"qwen3", NULL, 0, false},
    {"dsv2_group_limited", NULL, 0, false},
    {"dsv2_lite_greedy", NULL, 0, false},
    {"dsv3_noqlora_fp32_sharded", NULL, 0, false},
    {"dsv3_qlora_yarn_mtp", NULL, 0, false},
    {"dsv3_fp8_mtp", "F32", 1e-4f, false},
};

static char dir[64];

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static int setup(void **state)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ponder-convert-XXXXXX",
             base && strlen(base) < 32 ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    return rmdir(dir);
}

static void convert(const char *in, const char *out, enum convert_format format, const char *type)
{
    struct err e = {0};
    struct source *src;
    struct convert_plan *p;
    struct team *team;
    struct convert_options o = {.format = format, .mix = type ? mix_find(type) : NULL};
    good(team_new(&team, 2, &e), &e);
    good(source_open(&src, in, &e), &e);
    good(convert_plan_new(&p, src, &o, &e), &e);
    good(convert_write(p, out, team, NULL, NULL, &e), &e);
    convert_plan_free(p);
    source_free(src);
    team_free(team);
}

/* Logits of all tokens, then, where there is a prediction layer, its own. */
static float *logits(const char *path, size_t *n)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct session *s = NULL;
    struct err e = {0};
    struct source *src;
    struct model_config cfg;
    int32_t ids[TOKENS];
    good(source_open(&src, path, &e), &e);
    good(model_check(src, &cfg, &e), &e);
    source_free(src);
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 7919 + 3) % (int)cfg.n_vocab;
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = 128;
    o.kv_type = QUANT_F32;
    o.mtp = cfg.n_mtp != 0;
    good(engine_open(&g, path, &o, &e), &e);
    good(session_new(&s, g, &e), &e);
    *n = (size_t)TOKENS * cfg.n_vocab;
    float *y = calloc(2 * *n, sizeof *y);
    assert_non_null(y);
    good(session_append_all(s, ids, TOKENS, y, &e), &e);
    if (o.mtp) {
        session_truncate(s, 0);
        good(session_mtp_all(s, ids, TOKENS, TOKENS, y + *n, &e), &e);
        *n *= 2;
    }
    session_free(s);
    engine_free(g);
    return y;
}

static void same_logits(const char *a, const char *b, float most, const char *what)
{
    size_t n, m;
    float *x = logits(a, &n), *y = logits(b, &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i] - y[i]) <= most))
            fail_msg("%s: logit %zu is %g, want %g", what, i, (double)y[i], (double)x[i]);
    free(x);
    free(y);
}

/* Every text gives the same ids, with BOS and with added tokens, and the same ids end an answer. */
static void same_tokenizer(const char *a, const char *b)
{
    static const char text[] = "Hello, world! I'm 12345 x_y 中文字符。ünï <|im_end|> <think>\n\n"
                               "<｜User｜>  <|eot_id|> русский\t1.5e-3 'LL …";
    struct source *sa, *sb;
    struct tokenizer *x, *y;
    struct err e = {0};
    good(source_open(&sa, a, &e), &e);
    good(source_open(&sb, b, &e), &e);
    good(tokenizer_new(&x, sa, &e), &e);
    good(tokenizer_new(&y, sb, &e), &e);
    for (unsigned flags = 0; flags < 4; flags++) {
        struct ids i, k;
        ids_init(&i, 1000);
        ids_init(&k, 1000);
        good(tokenizer_encode(x, text, sizeof text - 1, flags, NULL, &i, &e), &e);
        good(tokenizer_encode(y, text, sizeof text - 1, flags, NULL, &k, &e), &e);
        assert_int_equal(i.n, k.n);
        assert_memory_equal(i.v, k.v, i.n * sizeof *i.v);
        ids_release(&i);
        ids_release(&k);
    }
    assert_int_equal(tokenizer_bos(x), tokenizer_bos(y));
    assert_int_equal(tokenizer_eos(x), tokenizer_eos(y));
    assert_int_equal(tokenizer_pad(x), tokenizer_pad(y));
    assert_int_equal(tokenizer_adds_bos(x), tokenizer_adds_bos(y));
    for (int32_t i = 0; (size_t)i < tokenizer_count(x); i++) {
        size_t n, m;
        const char *p = tokenizer_bytes(x, i, &n), *q = tokenizer_bytes(y, i, &m);
        assert_int_equal(n, m);
        assert_memory_equal(p, q, n);
        if (tokenizer_is_end(x, i))
            assert_true(tokenizer_is_end(y, i));
    }
    tokenizer_free(x);
    tokenizer_free(y);
    source_free(sa);
    source_free(sb);
}

static void test_gguf(void **state)
{
    const struct golden_model *m = *state;
    char in[512], out[160];
    snprintf(in, sizeof in, "%s/models/%s", GOLDEN_DIR, m->name);
    snprintf(out, sizeof out, "%s/m.gguf", dir);
    convert(in, out, CONVERT_GGUF, m->type);
    same_logits(in, out, m->most, m->name);
    if (m->tokenizer)
        same_tokenizer(in, out);
    unlink(out);
}

/* Allocations that fail while names, metadata and vocabulary are translated. */
static void test_alloc(void **state)
{
    static const char *const names[] = {"llama_rope_llama3", "dsv3_fp8_mtp"};
    char in[512], out[160];
    snprintf(out, sizeof out, "%s/m.gguf", dir);
    for (size_t k = 0; k < 2; k++) {
        struct convert_options o = {.format = CONVERT_GGUF};
        struct team *team;
        struct err e = {0};
        snprintf(in, sizeof in, "%s/models/%s", GOLDEN_DIR, names[k]);
        good(team_new(&team, 1, &e), &e);
        for (size_t n = 1;; n += 1 + n / 40) {
            struct source *src = NULL;
            struct convert_plan *p = NULL;
            good(source_open(&src, in, &e), &e);
            fail_alloc_at(n);
            int rc = convert_plan_new(&p, src, &o, &e);
            if (!rc)
                rc = convert_write(p, out, team, NULL, NULL, &e);
            bool failed = fail_alloc_stop();
            convert_plan_free(p);
            source_free(src);
            assert_int_equal(file_kind(out) == FILE_NONE, rc != 0);
            unlink(out);
            if (!failed) {
                good(rc, &e);
                break;
            }
        }
        team_free(team);
    }
}

int main(void)
{
    enum { N = sizeof models / sizeof *models };
    struct CMUnitTest tests[N + 1];
    for (size_t i = 0; i < N; i++)
        tests[i] = (struct CMUnitTest){models[i].name, test_gguf, NULL, NULL,
                                       (void *)(uintptr_t)&models[i]};
    tests[N] = (struct CMUnitTest)cmocka_unit_test(test_alloc);
    return cmocka_run_group_tests(tests, setup, teardown);
}
