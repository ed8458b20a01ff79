/*
 * Hugging Face folders to GGUF and back: the model computes the same bits (llama's rotated rows lie
 * in another order there, so attention adds up in another order), drafts too, and text is cut the
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
#include <dirent.h>
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

/* Removes a folder of plain files. */
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

/* The tensors of a folder that came back have the values they had. */
static void same_values(const char *a, const char *b)
{
    struct source *x, *y;
    struct err e = {0};
    good(source_open(&x, a, &e), &e);
    good(source_open(&y, b, &e), &e);
    assert_int_equal(source_tensor_count(x), source_tensor_count(y));
    for (size_t i = 0; i < source_tensor_count(x); i++) {
        const struct source_tensor *t = source_tensor_at(x, i), *u = source_tensor(y, t->name);
        if (!u)
            fail_msg("%s is missing", t->name);
        assert_int_equal(t->dims, u->dims);
        assert_memory_equal(t->shape, u->shape, sizeof t->shape);
        size_t cols = (size_t)t->shape[t->dims - 1];
        uint8_t *row = malloc(source_row_bytes(t) + source_row_bytes(u));
        float *v = malloc(2 * cols * sizeof *v);
        assert_true(row && v);
        for (uint64_t r = 0; r < source_row_count(t); r++) {
            source_rows(t, r, 1, row, source_row_bytes(t));
            t->type->decode(v, row, cols);
            source_rows(u, r, 1, row, source_row_bytes(u));
            u->type->decode(v + cols, row, cols);
            assert_memory_equal(v, v + cols, cols * sizeof *v);
        }
        free(row);
        free(v);
    }
    source_free(x);
    source_free(y);
}

/* To GGUF and back: the values, the numbers and the tokenizer are what they were. */
static void test_back(void **state)
{
    const struct golden_model *m = *state;
    char in[512], out[160], back[160];
    snprintf(in, sizeof in, "%s/models/%s", GOLDEN_DIR, m->name);
    snprintf(out, sizeof out, "%s/m.gguf", dir);
    snprintf(back, sizeof back, "%s/back", dir);
    convert(in, out, CONVERT_GGUF, m->type);
    convert(out, back, CONVERT_HF, NULL);
    same_values(in, back);
    same_logits(in, back, m->type ? 1e-4f : 0, m->name);
    if (m->tokenizer)
        same_tokenizer(in, back);
    unlink(out);
    remove_folder(back);
}

/* From folder to folder: another type, the other files come along. */
static void test_folder(void **state)
{
    char in[512], out[160], text[600];
    snprintf(in, sizeof in, "%s/models/qwen2_tied", GOLDEN_DIR);
    snprintf(out, sizeof out, "%s/folder/", dir);
    convert(in, out, CONVERT_HF, "F32");
    same_values(in, out);
    same_logits(in, out, 0, "F32");
    same_tokenizer(in, out);
    snprintf(text, sizeof text, "%s/generation_config.json", out);
    assert_int_equal(file_kind(text), FILE_REGULAR);
    struct convert_options o = {.format = CONVERT_HF, .force = true};
    struct err e = {0};
    struct source *src;
    struct convert_plan *p;
    good(source_open(&src, in, &e), &e);
    good(convert_plan_new(&p, src, &o, &e), &e);
    assert_int_equal(convert_write(p, out, NULL, NULL, NULL, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "never replaced"));
    convert_plan_free(p);
    source_free(src);
    remove_folder(out);
}

/* An adapter is in the weights afterwards, in a folder and in a GGUF file; one that does not belong
 * is refused. */
static void test_adapter(void **state)
{
    char in[600], out[160], adapter[512];
    struct err e = {0};
    struct source *src, *merged, *ab;
    struct convert_plan *p;
    (void)state;
    snprintf(in, sizeof in, "%s/lora/dsv3", GOLDEN_DIR);
    snprintf(out, sizeof out, "%s/merged", dir);
    snprintf(adapter, sizeof adapter, "%s/lora/dsv3/adapter", GOLDEN_DIR);
    struct team *team;
    good(team_new(&team, 2, &e), &e);
    good(source_open(&src, in, &e), &e);
    struct convert_options o = {.format = CONVERT_HF, .adapter = adapter};
    good(convert_plan_new(&p, src, &o, &e), &e);
    good(convert_write(p, out, team, NULL, NULL, &e), &e);
    convert_plan_free(p);
    good(source_open(&merged, out, &e), &e);
    snprintf(in, sizeof in, "%s/adapter_model.safetensors", adapter);
    good(source_open(&ab, in, &e), &e);
    const char *name = "model.layers.1.self_attn.kv_b_proj";
    char full[128];
    snprintf(full, sizeof full, "%s.weight", name);
    const struct source_tensor *w = source_tensor(src, full), *m = source_tensor(merged, full);
    snprintf(full, sizeof full, "base_model.model.%s.lora_A.weight", name);
    const struct source_tensor *a = source_tensor(ab, full);
    snprintf(full, sizeof full, "base_model.model.%s.lora_B.weight", name);
    const struct source_tensor *b = source_tensor(ab, full);
    assert_true(w && m && a && b);
    const float *wf = (const void *)w->data, *mf = (const void *)m->data;
    const float *af = (const void *)a->data, *bf = (const void *)b->data;
    size_t rank = (size_t)a->shape[0], cols = (size_t)a->shape[1];
    for (size_t r = 0; r < w->shape[0]; r++)
        for (size_t c = 0; c < cols; c++) {
            double want = wf[r * cols + c];
            for (size_t k = 0; k < rank; k++)
                want += 2.0 * bf[r * rank + k] * af[k * cols + c]; /* alpha 8, rank 4 */
            assert_true(fabs(mf[r * cols + c] - want) <= 1e-6);
        }
    source_free(ab);
    source_free(merged);
    source_free(src);
    remove_folder(out);
    snprintf(in, sizeof in, "%s/models/qwen2_tied", GOLDEN_DIR);
    good(source_open(&src, in, &e), &e);
    assert_int_not_equal(convert_plan_new(&p, src, &o, &e), 0);
    assert_non_null(strstr(e.text, "module '"));
    source_free(src);
    team_free(team);
}

/* NF4 and again: the second time nothing is lost; rows of no whole blocks stay what they were. */
static void test_nf4(void **state)
{
    char in[512], out[160], again[160];
    struct source *x, *y;
    struct err e = {0};
    (void)state;
    snprintf(in, sizeof in, "%s/models/qwen2_tied", GOLDEN_DIR);
    snprintf(out, sizeof out, "%s/nf4", dir);
    snprintf(again, sizeof again, "%s/nf4-again", dir);
    convert(in, out, CONVERT_HF, "NF4");
    good(source_open(&x, in, &e), &e);
    good(source_open(&y, out, &e), &e);
    const struct source_tensor *t = source_tensor(x, "model.layers.0.mlp.up_proj.weight"),
                               *u = source_tensor(y, t->name);
    assert_non_null(u);
    assert_string_equal(u->type->name, "NF4");
    assert_int_equal(u->shape[0], t->shape[0]);
    assert_int_equal(u->shape[1], t->shape[1]);
    /* 152 values a row are no whole blocks. */
    assert_string_equal(source_tensor(y, "model.layers.0.mlp.down_proj.weight")->type->name,
                        "BF16");
    double diff = 0, size = 0;
    for (uint64_t r = 0; r < t->shape[0]; r++) {
        uint8_t row[2048];
        float a[512], b[512];
        source_rows(t, r, 1, row, source_row_bytes(t));
        t->type->decode(a, row, (size_t)t->shape[1]);
        source_rows(u, r, 1, row, source_row_bytes(u));
        u->type->decode(b, row, (size_t)t->shape[1]);
        for (size_t i = 0; i < t->shape[1]; i++) {
            diff += (double)(a[i] - b[i]) * (a[i] - b[i]);
            size += (double)a[i] * a[i];
        }
    }
    assert_true(diff < 0.012 * size); /* NF4 of normal values: 0.0093 or so */
    source_free(x);
    source_free(y);
    convert(out, again, CONVERT_HF, "NF4");
    same_values(out, again);
    remove_folder(again);
    remove_folder(out);
}

/* FP8 weights that become FP8 again find the same scales; others are near. */
static void test_fp8(void **state)
{
    char in[512], out[160], back[160];
    snprintf(in, sizeof in, "%s/models/dsv3_fp8_mtp", GOLDEN_DIR);
    snprintf(out, sizeof out, "%s/fp8", dir);
    snprintf(back, sizeof back, "%s/m.gguf", dir);
    convert(in, out, CONVERT_HF, "FP8");
    same_values(in, out);
    same_logits(in, out, 0, "FP8");
    remove_folder(out);
    convert(in, back, CONVERT_GGUF, "F32"); /* kv_b_proj from its transposed parts */
    convert(back, out, CONVERT_HF, "FP8");
    same_values(in, out);
    remove_folder(out);
    unlink(back);
    snprintf(in, sizeof in, "%s/models/qwen2_untied", GOLDEN_DIR);
    convert(in, out, CONVERT_HF, "FP8");
    struct source *x, *y;
    struct err e = {0};
    good(source_open(&x, in, &e), &e);
    good(source_open(&y, out, &e), &e);
    const struct source_tensor *t = source_tensor(x, "model.layers.0.mlp.up_proj.weight"),
                               *u = source_tensor(y, t->name);
    size_t cols = (size_t)t->shape[1];
    uint8_t row[4096];
    float a[512], b[512];
    assert_true(cols <= 512 && source_row_bytes(u) <= sizeof row);
    for (uint64_t r = 0; r < source_row_count(t); r++) {
        source_rows(t, r, 1, row, source_row_bytes(t));
        t->type->decode(a, row, cols);
        source_rows(u, r, 1, row, source_row_bytes(u));
        u->type->decode(b, row, cols);
        for (size_t i = 0; i < cols; i++) /* three bits behind the point, subnormals below */
            assert_true(fabsf(a[i] - b[i]) <= fabsf(a[i]) / 16 + 2e-4f);
    }
    source_free(x);
    source_free(y);
    remove_folder(out);
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

static bool stop(void *arg, uint64_t done, uint64_t total, size_t tensors)
{
    return false;
}

/* A folder that is stopped, or whose allocations fail, is not there. */
static void test_folder_stop(void **state)
{
    char in[512], gguf[160], out[160];
    struct convert_options o = {.format = CONVERT_HF};
    struct team *team;
    struct err e = {0};
    snprintf(in, sizeof in, "%s/models/llama_rope_llama3", GOLDEN_DIR);
    snprintf(gguf, sizeof gguf, "%s/m.gguf", dir);
    snprintf(out, sizeof out, "%s/folder", dir);
    convert(in, gguf, CONVERT_GGUF, NULL);
    good(team_new(&team, 1, &e), &e);
    for (size_t n = 0;; n += 1 + n / 40) {
        struct source *src = NULL;
        struct convert_plan *p = NULL;
        good(source_open(&src, gguf, &e), &e);
        if (n)
            fail_alloc_at(n);
        int rc = convert_plan_new(&p, src, &o, &e);
        if (!rc)
            rc = convert_write(p, out, team, n ? NULL : stop, NULL, &e);
        bool failed = n ? fail_alloc_stop() : true;
        convert_plan_free(p);
        source_free(src);
        assert_int_equal(n || rc == ERR_CANCELLED, 1);
        assert_int_equal(file_kind(out) == FILE_NONE, rc != 0);
        if (!rc)
            remove_folder(out);
        if (!failed)
            break;
    }
    team_free(team);
    unlink(gguf);
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
    struct CMUnitTest tests[2 * N + 6];
    for (size_t i = 0; i < N; i++) {
        tests[N + i] = (struct CMUnitTest){models[i].name, test_back, NULL, NULL,
                                           (void *)(uintptr_t)&models[i]};
        tests[i] = (struct CMUnitTest){models[i].name, test_gguf, NULL, NULL,
                                       (void *)(uintptr_t)&models[i]};
    }
    tests[2 * N] = (struct CMUnitTest)cmocka_unit_test(test_folder);
    tests[2 * N + 1] = (struct CMUnitTest)cmocka_unit_test(test_folder_stop);
    tests[2 * N + 3] = (struct CMUnitTest)cmocka_unit_test(test_fp8);
    tests[2 * N + 2] = (struct CMUnitTest)cmocka_unit_test(test_alloc);
    tests[2 * N + 4] = (struct CMUnitTest)cmocka_unit_test(test_nf4);
    tests[2 * N + 5] = (struct CMUnitTest)cmocka_unit_test(test_adapter);
    return cmocka_run_group_tests(tests, setup, teardown);
}
