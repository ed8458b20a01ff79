/* LoRA adapters against PEFT's logits, added to products and merged; and adapters that do not fit.
 */
#include "base/file.h"
#include "model/model.h"
#include "support/golden.h"

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

enum { TOKENS = 24, CTX = 64 };

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

/* Logits of the tokens with the adapter, compared where the tokens are no padding. */
static void check(const char *name, bool merge, enum model_place place)
{
    struct err e = {0};
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct model_config cfg;
    struct model *m;
    struct adapter *a;
    struct kv_pool *kv;
    struct kv_seq seq;
    struct kv_shape shape;
    char path[512];
    kern_init(&kern, cpu_best());
    die(team_new(&team, 2, &e), &e);
    op_ctx_init(&ops, &kern, team);
    die(op_ctx_reserve(&ops, 16 << 20, &e), &e);
    snprintf(path, sizeof path, "%s/lora/%s", GOLDEN_DIR, name);
    die(source_open(&src, path, &e), &e);
    snprintf(path, sizeof path, "%s/lora/%s/adapter", GOLDEN_DIR, name);
    die(adapter_open(&a, path, &e), &e);
    die(model_check(src, &cfg, &e), &e);
    struct model_load_opts o = {.place = place, .adapter = a, .merge = merge};
    die(model_load(&m, src, &cfg, &ops, &o, &e), &e);
    adapter_free(a);
    model_kv_shape(m, &shape);
    shape.type = QUANT_F32;
    die(kv_pool_new(&kv, &shape, 1, &e), &e);
    die(kv_seq_init(&seq, kv, CTX, &e), &e);
    die(kv_seq_reserve(&seq, 0, 0, TOKENS, &e), &e);

    snprintf(path, sizeof path, "lora/%s/batches.safetensors", name);
    struct golden *in = golden_load(path);
    snprintf(path, sizeof path, "lora/%s/lora_logits.safetensors", name);
    struct golden *out = golden_load(path);
    uint32_t pos[TOKENS];
    for (size_t i = 0; i < TOKENS; i++)
        pos[i] = (uint32_t)i;
    struct batch_run run = {.seq = &seq, .n = TOKENS};
    struct batch b = {.n = TOKENS,
                      .ids = golden_get(in, "b0.input_ids").i32,
                      .pos = pos,
                      .want = pos,
                      .n_want = TOKENS,
                      .runs = &run,
                      .n_runs = 1};
    struct tensor y = model_forward(m, &ops, &b);
    struct golden_tensor want = golden_get(out, "logits");
    size_t compared = 0;
    for (size_t t = 0; t < TOKENS && golden_get(in, "b0.attention_mask").i32[t]; t++)
        for (size_t i = 0; i < y.cols; i++, compared++) {
            float w = want.f32[t * y.cols + i], g = y.data[t * y.cols + i];
            if (!(fabsf(g - w) <= 1e-3f + 1e-3f * fabsf(w)))
                fail_msg("%s: token %zu, logit %zu: %g, want %g", name, t, i, (double)g, (double)w);
        }
    assert_in_range(compared, 10 * y.cols, TOKENS * y.cols);
    golden_free(in);
    golden_free(out);
    kv_seq_release(&seq);
    kv_pool_free(kv);
    model_free(m);
    source_free(src);
    op_ctx_release(&ops);
    team_free(team);
}

static void test_added(void **state)
{
    check(*state, false, MODEL_PACKED);
    check(*state, false, MODEL_MAPPED);
}

static void test_merged(void **state)
{
    check(*state, true, MODEL_PACKED);
    check(*state, true, MODEL_MAPPED);
}

/* A copy of the adapter with another configuration (or none) is refused with words about it. */
static void refuse(const char *config, const char *word)
{
    struct err e = {0};
    struct adapter *a;
    char dir[] = "/tmp/ponder-lora-XXXXXX", path[512], from[512];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    if (config) {
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fputs(config, f);
        fclose(f);
    }
    snprintf(from, sizeof from, "%s/lora/llama/adapter/adapter_model.safetensors", GOLDEN_DIR);
    char file[512];
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", dir);
    assert_int_equal(symlink(from, file), 0);
    assert_int_not_equal(adapter_open(&a, dir, &e), 0);
    assert_null(a);
    if (!strstr(e.text, word))
        fail_msg("\"%s\" does not say \"%s\"", e.text, word);
    unlink(path);
    unlink(file);
    rmdir(dir);
}

static void test_refused(void **state)
{
    (void)state;
    refuse(NULL, "adapter_config.json");
    refuse("[", "adapter_config.json");
    refuse("{}", "peft_type");
    refuse("{\"peft_type\": \"LORA\", \"r\": 4}", "lora_alpha");
    refuse("{\"peft_type\": \"LORA\", \"r\": 5, \"lora_alpha\": 8}", "rank 5");
    refuse("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 1e300}", "lora_alpha");
    refuse("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"use_dora\": true}",
           "use_dora");
    refuse("{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 8, \"bias\": \"all\"}", "bias");
}

/* An adapter of another model. */
static void test_foreign(void **state)
{
    (void)state;
    struct err e = {0};
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct model_config cfg;
    struct model *m;
    struct adapter *a;
    kern_init(&kern, cpu_best());
    die(team_new(&team, 1, &e), &e);
    op_ctx_init(&ops, &kern, team);
    die(source_open(&src, GOLDEN_DIR "/lora/llama", &e), &e);
    die(model_check(src, &cfg, &e), &e);
    die(adapter_open(&a, GOLDEN_DIR "/lora/dsv3/adapter", &e), &e);
    struct model_load_opts o = {.adapter = a};
    assert_int_not_equal(model_load(&m, src, &cfg, &ops, &o, &e), 0);
    assert_null(m);
    assert_non_null(strstr(e.text, "module '"));
    adapter_free(a);
    source_free(src);
    op_ctx_release(&ops);
    team_free(team);
}

#define MODEL(fn, name)                                       \
    {                                                         \
#fn " " name, fn, NULL, NULL, (void *)(uintptr_t)name \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        MODEL(test_added, "llama"), MODEL(test_added, "dsv3"),      MODEL(test_merged, "llama"),
        MODEL(test_merged, "dsv3"), cmocka_unit_test(test_refused), cmocka_unit_test(test_foreign),
    };
    return cmocka_run_group_tests_name("model/lora", tests, NULL, NULL);
}
