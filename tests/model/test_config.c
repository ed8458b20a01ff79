/* Configurations that are rare or odd: what they are taken for, or the words they are refused with.
 */
#include "model/arch.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A config.json of a small DeepSeek model with `more` at its end. */
static int read_config(struct model_config *cfg, const char *type, const char *more, struct err *e)
{
    char path[] = "/tmp/ponder-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    assert_non_null(f);
    fprintf(f,
            "{\"model_type\": \"%s\", \"hidden_act\": \"silu\", \"vocab_size\": 300, "
            "\"hidden_size\": 64, \"intermediate_size\": 96, \"num_hidden_layers\": 3, "
            "\"num_attention_heads\": 4, \"rms_norm_eps\": 1e-6, \"tie_word_embeddings\": false, "
            "\"kv_lora_rank\": 32, \"q_lora_rank\": null, \"qk_nope_head_dim\": 16, "
            "\"qk_rope_head_dim\": 8, \"v_head_dim\": 16%s}",
            type, more);
    fclose(f);
    struct source *src;
    int rc = source_open_config(&src, path, e);
    if (!rc)
        rc = model_config_check(src, cfg, e);
    source_free(src);
    unlink(path);
    return rc;
}

#define EXPERTS                                                                        \
    ", \"n_routed_experts\": 8, \"num_experts_per_tok\": 2, \"n_shared_experts\": 1, " \
    "\"moe_intermediate_size\": 32"

static void test_dense(void **state)
{
    static const char *const none[] = {"", ", \"n_routed_experts\": null",
                                       ", \"num_nextn_predict_layers\": 1"};
    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct model_config cfg;
        struct err e = {0};
        if (read_config(&cfg, "deepseek_v3", none[i], &e))
            fail_msg("%s", e.text);
        assert_int_equal(cfg.n_dense, 3);
        assert_int_equal(cfg.n_expert, 0);
        assert_int_equal(cfg.n_mtp, 0);
        assert_int_equal(cfg.kv_lora, 32);
    }
}

/* Only an architecture that has the tensors of a prediction layer has one. */
static void test_prediction(void **state)
{
    (void)state;
    struct model_config cfg;
    struct err e = {0};
    assert_int_equal(
        read_config(&cfg, "deepseek_v3", EXPERTS ", \"num_nextn_predict_layers\": 1", &e), 0);
    assert_int_equal(cfg.n_mtp, 1);
    assert_int_equal(read_config(&cfg, "deepseek", EXPERTS ", \"num_nextn_predict_layers\": 1", &e),
                     0);
    assert_int_equal(cfg.n_mtp, 0);
}

static void test_refused(void **state)
{
    static const struct {
        const char *more, *word;
    } rows[] = {
        {", \"n_routed_experts\": 8", "num_experts_per_tok"},
        {EXPERTS ", \"n_group\": 3", "groups"},
        {EXPERTS ", \"n_group\": 4, \"topk_group\": 5", "5 of 4 groups"},
        {EXPERTS ", \"n_group\": 8, \"topk_group\": 1", "fewer"},
        {EXPERTS ", \"moe_layer_freq\": 2", "moe_layer_freq"},
        {EXPERTS ", \"first_k_dense_replace\": 4", "4 dense layers"},
        {EXPERTS ", \"num_nextn_predict_layers\": 65", "num_nextn_predict_layers"},
        {EXPERTS ", \"scoring_func\": \"relu\"", "softmax or sigmoid"},
        {EXPERTS ", \"attention_bias\": true", "attention_bias"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct model_config cfg;
        struct err e = {0};
        assert_int_not_equal(read_config(&cfg, "deepseek_v3", rows[i].more, &e), 0);
        if (!strstr(e.text, rows[i].word))
            fail_msg("\"%s\" does not say \"%s\"", e.text, rows[i].word);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_prediction),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests_name("model/config", tests, NULL, NULL);
}
