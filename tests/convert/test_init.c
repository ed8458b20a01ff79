/*
 * New models: every golden configuration gives a folder that opens as a model; the same seed gives
 * the same bytes for any number of threads, another seed others; the values are what was asked for.
 */
#include "base/file.h"
#include "convert/convert.h"
#include "model/model.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static int setup(void **state)
{
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ponder-init-XXXXXX", base && strlen(base) < 32 ? base : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    return rmdir(dir);
}

static void remove_folder(const char *path)
{
    char file[600];
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *x; (x = readdir(d));) {
        snprintf(file, sizeof file, "%s/%.200s", path, x->d_name);
        if (x->d_name[0] != '.')
            unlink(file);
    }
    closedir(d);
    assert_int_equal(rmdir(path), 0);
}

static int make(const char *model, const char *out, uint64_t seed, int threads, const char *type,
                struct err *e)
{
    char path[512];
    struct convert_init o = {.seed = seed, .mix = type ? mix_find(type) : NULL};
    struct source *config = NULL;
    struct convert_plan *p = NULL;
    struct team *team = NULL;
    snprintf(path, sizeof path, "%s/models/%s/config.json", GOLDEN_DIR, model);
    int rc = source_open_config(&config, path, e);
    if (!rc)
        rc = convert_init_new(&p, config, NULL, &o, e);
    if (!rc)
        rc = team_new(&team, threads, e);
    if (!rc)
        rc = convert_write(p, out, team, NULL, NULL, e);
    team_free(team);
    convert_plan_free(p);
    source_free(config);
    return rc;
}

static struct source *opened(const char *path)
{
    struct source *s;
    struct err e = {0};
    good(source_open(&s, path, &e), &e);
    return s;
}

static void test_all(void **state)
{
    static const char *const names[] = {"llama_linear_headdim_fp16",
                                        "llama_rope_llama3",
                                        "qwen2_tied",
                                        "qwen2_untied",
                                        "qwen3",
                                        "dsv2_group_limited",
                                        "dsv2_lite_greedy",
                                        "dsv3_qlora_yarn_mtp"};
    char a[160], b[160];
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct err e = {0};
        struct model_config cfg;
        good(make(names[i], a, 7, 1, NULL, &e), &e);
        good(make(names[i], b, 7, 3, NULL, &e), &e);
        struct source *x = opened(a), *y = opened(b);
        good(model_check(x, &cfg, &e), &e);
        assert_int_equal(source_tensor_count(x), source_tensor_count(y));
        for (size_t k = 0; k < source_tensor_count(x); k++) {
            const struct source_tensor *t = source_tensor_at(x, k), *u = source_tensor(y, t->name);
            assert_non_null(u);
            assert_memory_equal(t->data, u->data, t->bytes);
        }
        source_free(x);
        source_free(y);
        remove_folder(a);
        remove_folder(b);
    }
}

static void test_values(void **state)
{
    char a[160], b[160];
    struct err e = {0};
    snprintf(a, sizeof a, "%s/a", dir);
    snprintf(b, sizeof b, "%s/b", dir);
    good(make("llama_rope_llama3", a, 1, 2, "F32", &e), &e);
    good(make("llama_rope_llama3", b, 2, 2, "F32", &e), &e);
    struct source *x = opened(a), *y = opened(b);
    const struct source_tensor *t = source_tensor(x, "model.embed_tokens.weight"),
                               *u = source_tensor(y, "model.embed_tokens.weight"),
                               *norm = source_tensor(x, "model.norm.weight"),
                               *k = source_tensor(x, "model.layers.0.self_attn.q_proj.weight"),
                               *l = source_tensor(x, "model.layers.1.self_attn.q_proj.weight");
    assert_true(t && u && norm && k && l);
    assert_int_not_equal(memcmp(t->data, u->data, t->bytes), 0);
    assert_int_not_equal(memcmp(k->data, l->data, k->bytes), 0);
    double sum = 0, squares = 0;
    size_t n = t->bytes / 4;
    for (size_t i = 0; i < n; i++) {
        float v;
        memcpy(&v, t->data + 4 * i, 4);
        sum += (double)v;
        squares += (double)v * (double)v;
    }
    /* 32,768 draws: five standard errors */
    assert_true(fabs(sum / (double)n) < 5 * 0.02 / sqrt((double)n));
    assert_true(fabs(sqrt(squares / (double)n) / 0.02 - 1) < 5 / sqrt(2.0 * (double)n));
    for (size_t i = 0; i < norm->bytes / 4; i++) {
        float v;
        memcpy(&v, norm->data + 4 * i, 4);
        assert_true(v == 1.0f);
    }
    source_free(x);
    source_free(y);
    remove_folder(a);
    remove_folder(b);
    assert_int_equal(make("llama_rope_llama3", a, 1, 2, "Q8_0", &e), ERR_USAGE);
    assert_int_not_equal(make("none", a, 1, 2, NULL, &e), 0);
    assert_int_equal(file_kind(a), FILE_NONE);
}

static void test_alloc(void **state)
{
    char a[160];
    snprintf(a, sizeof a, "%s/a", dir);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        fail_alloc_at(n);
        int rc = make("dsv2_lite_greedy", a, 1, 1, NULL, &e);
        bool failed = fail_alloc_stop();
        assert_int_equal(file_kind(a) == FILE_NONE, rc != 0);
        if (!rc)
            remove_folder(a);
        if (!failed) {
            good(rc, &e);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_alloc),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
