/* Mixes: names, what is quantized, the order of tensors, stand-ins for short rows, and the types of
 * a few tensors whose rules differ. */
#include "convert/mix.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

static void test_names(void **state)
{
    struct err e = {0};
    size_t n;
    const struct mix *all = mix_all(&n);
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(mix_find(all[i].name), &all[i]);
        assert_non_null(quant_by_id(all[i].type));
        assert_non_null(all[i].about);
    }
    assert_string_equal(mix_find("q4_k")->name, "Q4_K_M");
    assert_string_equal(mix_find("q4_k_m")->name, "Q4_K_M");
    assert_string_equal(mix_find("mxfp4")->name, "MXFP4_MOE");
    assert_null(mix_find("Q4_K_X"));
    assert_int_equal(mix_unknown("Q4_K_X", &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "Q4_K_X"));
    assert_non_null(strstr(e.text, "Q4_K_M"));
}

static void test_quantizes(void **state)
{
    static const struct {
        const char *name;
        int dims;
        bool yes;
    } rows[] = {
        {"token_embd.weight", 2, true},        {"blk.0.attn_q.weight", 2, true},
        {"blk.0.ffn_up_exps.weight", 3, true}, {"blk.0.attn_norm.weight", 1, false},
        {"blk.0.attn_q.bias", 1, false},       {"blk.0.ffn_gate_inp.weight", 2, false},
        {"blk.0.odd_norm.weight", 2, false},   {"rope_freqs.weight", 1, false},
        {"blk.1.exp_probs_b.bias", 1, false},  {"x", 2, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mix_tensor t = {.name = rows[i].name, .dims = rows[i].dims, .cols = 256, .outer = 1};
        assert_int_equal(mix_quantizes(&t), rows[i].yes);
    }
}

static void test_order(void **state)
{
    assert_true(mix_order("output.weight", "blk.0.a") < 0);
    assert_true(mix_order("blk.2.a", "blk.10.a") < 0);
    assert_true(mix_order("blk.2.b", "blk.2.a") > 0);
    assert_int_equal(mix_order("blk.2.b", "blk.2.b"), 0);
}

static void test_fit(void **state)
{
    static const struct {
        enum quant_id from;
        unsigned cols;
        enum quant_id to;
    } rows[] = {
        {QUANT_Q4_K, 512, QUANT_Q4_K}, {QUANT_Q4_K, 576, QUANT_Q5_0},
        {QUANT_Q6_K, 96, QUANT_Q8_0},  {QUANT_IQ2_XXS, 288, QUANT_IQ4_NL},
        {QUANT_Q2_K, 96, QUANT_Q4_0},  {QUANT_Q4_K, 40, QUANT_F16},
        {QUANT_Q8_0, 40, QUANT_F16},   {QUANT_F32, 7, QUANT_F32},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_int_equal(mix_fit(quant_by_id(rows[i].from), rows[i].cols)->id, rows[i].to);
}

/* Types of the tensors of a model with 8 layers, as letters of llama.cpp's own choice. */
static void expect(const char *mix, const struct mix_model *m, const char *name, size_t outer,
                   enum quant_id want)
{
    struct mix_state s = {.mix = mix_find(mix), .model = *m};
    char filler[64];
    assert_non_null(s.mix);
    unsigned layer = 0;
    sscanf(name, "blk.%u.", &layer);
    for (unsigned i = 0; i < layer; i++) { /* what came before counts */
        snprintf(filler, sizeof filler, "blk.%u.attn_v.weight", i);
        mix_type(&s, &(struct mix_tensor){filler, 2, 256, 1});
        snprintf(filler, sizeof filler, "blk.%u.ffn_down.weight", i);
        mix_type(&s, &(struct mix_tensor){filler, 2, 256, 1});
    }
    const struct quant_type *t =
        mix_type(&s, &(struct mix_tensor){name, outer > 1 ? 3 : 2, 256, outer});
    if (t->id != want)
        fail_msg("%s %s: %s, want %s", mix, name, t->name, quant_by_id(want)->name);
}

static void test_types(void **state)
{
    const struct mix_model dense = {
        .has_output = true, .n_layer = 8, .n_head = 8, .n_kv_head = 4, .n_attn_v = 8};
    struct mix_model gqa = dense, tied = dense, moe = dense, imatrix = dense, wide = dense;
    gqa.n_kv_head = 2;
    tied.has_output = false;
    moe.n_expert = 256;
    imatrix.imatrix = true;
    wide.wide = true;
    expect("Q4_K_M", &dense, "blk.0.attn_v.weight", 1, QUANT_Q6_K);
    expect("Q4_K_M", &dense, "blk.1.attn_v.weight", 1, QUANT_Q4_K);
    expect("Q4_K_M", &dense, "blk.3.attn_v.weight", 1, QUANT_Q6_K);
    expect("Q4_K_M", &dense, "blk.7.ffn_down.weight", 1, QUANT_Q6_K);
    expect("Q4_K_M", &dense, "blk.2.ffn_down.weight", 1, QUANT_Q4_K);
    expect("Q4_K_M", &wide, "blk.1.attn_v.weight", 1, QUANT_Q5_K);
    expect("Q4_K_M", &dense, "output.weight", 1, QUANT_Q6_K);
    expect("Q4_K_M", &dense, "token_embd.weight", 1, QUANT_Q4_K);
    expect("Q4_K_M", &tied, "token_embd.weight", 1, QUANT_Q6_K);
    expect("Q8_0", &tied, "token_embd.weight", 1, QUANT_Q8_0);
    expect("Q2_K", &dense, "blk.1.attn_v.weight", 1, QUANT_Q3_K);
    expect("Q2_K", &gqa, "blk.1.attn_v.weight", 1, QUANT_Q4_K);
    expect("Q3_K_M", &dense, "blk.1.attn_v.weight", 1, QUANT_Q5_K);
    expect("Q3_K_M", &dense, "blk.2.attn_v.weight", 1, QUANT_Q4_K);
    expect("IQ4_XS", &dense, "blk.0.ffn_down.weight", 1, QUANT_Q5_K);
    expect("IQ4_XS", &imatrix, "blk.0.ffn_down.weight", 1, QUANT_IQ4_XS);
    expect("Q4_0", &imatrix, "blk.0.ffn_down.weight", 1, QUANT_Q4_1);
    expect("IQ2_M", &dense, "blk.4.ffn_up.weight", 1, QUANT_IQ2_S);
    expect("IQ1_S", &dense, "blk.4.attn_output.weight", 1, QUANT_IQ2_XXS);
    expect("IQ1_S", &dense, "output.weight", 1, QUANT_Q5_K);
    expect("IQ3_XS", &dense, "blk.4.ffn_gate.weight", 1, QUANT_IQ3_XXS);
    expect("IQ3_XS", &dense, "blk.0.ffn_gate.weight", 1, QUANT_IQ3_S);
    expect("MXFP4", &moe, "blk.4.ffn_up_exps.weight", 256, QUANT_MXFP4);
    expect("MXFP4", &moe, "blk.4.attn_q.weight", 1, QUANT_Q8_0);
    expect("r1-q2", &moe, "blk.4.ffn_up_exps.weight", 256, QUANT_Q2_K);
    expect("r1-q2", &moe, "blk.4.ffn_down_exps.weight", 256, QUANT_Q3_K);
    expect("r1-q2", &moe, "blk.4.ffn_down_shexp.weight", 1, QUANT_Q6_K);
    expect("r1-q2", &moe, "blk.4.attn_k_b.weight", 128, QUANT_Q8_0);
    expect("r1-q2", &moe, "blk.4.attn_q_b.weight", 1, QUANT_Q6_K);
    expect("r1-q2", &moe, "output.weight", 1, QUANT_Q6_K);
    expect("r1-iq1", &moe, "blk.4.ffn_gate_exps.weight", 256, QUANT_IQ1_S);
    expect("F16", &moe, "output.weight", 1, QUANT_F16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names), cmocka_unit_test(test_quantizes),
        cmocka_unit_test(test_order), cmocka_unit_test(test_fit),
        cmocka_unit_test(test_types),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
