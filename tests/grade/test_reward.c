/* Rewards by the rules of open-r1 and TRL: values worked out by hand. */
#include "base/num.h"
#include "grade/reward.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct reward_options options(void)
{
    struct reward_options o;
    reward_options_init(&o);
    return o;
}

/* Reward `name` of texts[0..n), for the gold answer "7". */
static void rewards(const char *name, const struct reward_problem *p, const char *const *texts,
                    const size_t *tokens, size_t n, float *out, struct reward_why *why)
{
    struct reward_sample s[8] = {0};
    struct reward_options o = options();
    struct err e = {0};
    const struct reward *r = reward_find(span_of(name));
    assert_non_null(r);
    for (size_t i = 0; i < n; i++)
        s[i] = (struct reward_sample){.text = span_of(texts[i]), .tokens = tokens ? tokens[i] : 0};
    o.max_completion_len = 100;
    o.soft_punish_cache = 20;
    if (reward_group(r, &o, p, s, n, out, why, &e))
        fail_msg("%s", e.text);
}

static float one(const char *name, const char *text, bool open)
{
    struct reward_problem p = {.gold = span_of("7"), .language = -1, .thinking_open = open};
    float x;
    rewards(name, &p, &text, NULL, 1, &x, NULL);
    return x;
}

static void forms(void **state)
{
    static const struct {
        const char *name, *text;
        float want;
        bool open;
    } rows[] = {
        {"format", "<think>\na\n</think>\n\n7", 1, false},
        {"format", "<think></think>7", 1, false},
        {"format", "a\n</think>\n\n7", 1, true},
        {"format", "a\n</think>\n\n7", 0, false},
        {"format", "<think>\na\n</think>\n\n", 0, false},
        {"format", "<think>\na\n7", 0, false},
        {"format", " <think>a</think>7", 0, false},
        {"format", "<think>a<think>b</think>7", 0, false},
        {"format", "<think>a</think>7</think>", 0, false},
        {"format", "<think>a</think>7", 0, true},
        {"think_format", "<think>\na\n</think>\n7", 1, false},
        {"think_format", "<think>a</think>", 1, false},
        {"think_format", "<think>a</think></think>", 1, false},
        {"think_format", "<think>a</think><think>", 0, false},
        {"think_format", "x<think>a</think>", 0, false},
        {"think_format", "<think>a", 0, false},
        {"format_answer", "<think>\na\n</think>\n<answer>\n7\n</answer>", 1, false},
        {"format_answer", "<think>\na\n</think>\n<answer>\n7\n</answer>\nmore", 1, false},
        {"format_answer", "<think>\n\n</think>\n<answer>\n\n</answer>", 1, false},
        {"format_answer", "a\n</think>\n<answer>\n7\n</answer>", 1, true},
        {"format_answer", "<think>\na\n</think>\n<answer>\n7\n</answer>more", 0, false},
        {"format_answer", "<think>\na\n</think>\n<answer>\n7\n</answer>x\n</answer>", 1, false},
        {"format_answer", "<think>\n</think>\n<answer>\n7\n</answer>", 0, false},
        {"format_answer", "<think>a\n</think>\n<answer>\n7\n</answer>", 0, false},
        {"format_answer", "<think>\na\n</think>\n\n<answer>\n7\n</answer>", 0, false},
        {"format_answer", "<think>\na\n</think>\n<answer>7</answer>", 0, false},
        {"tag_count", "<think>\na\n</think>\n<answer>\n7\n</answer>", 1, false},
        {"tag_count", "<think>\na\n</think>\n\n7", 0.5, false},
        {"tag_count", "<think>\n<think>\na\n</think>\n\n7", 0.25, false},
        {"tag_count", "7", 0, false},
        {"reasoning_steps", "Step 1: a\nStep 22: b", 2.0f / 3, false},
        {"reasoning_steps", "1. a\n2. b", 1.0f / 3, false}, /* ^ is the beginning of the text */
        {"reasoning_steps", "First, Second, Next, Finally,", 1, false},
        {"reasoning_steps", "\n- a\n* b\n-c", 1, false},
        {"reasoning_steps", "Step: first, next", 0, false},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        float x = one(rows[i].name, rows[i].text, rows[i].open);
        if (fabsf(x - rows[i].want) > 1e-6f)
            fail_msg("%s: %g, not %g: %s", rows[i].name, (double)x, (double)rows[i].want,
                     rows[i].text);
    }
}

static void accuracy(void **state)
{
    static const char *const texts[] = {"<think>\n1\n</think>\n\n\\boxed{7}", "\\boxed{8}",
                                        "I do not know", "<think>\\boxed{7}"};
    struct reward_problem p = {.gold = span_of("7"), .language = -1};
    struct reward_why why[4];
    struct gym_item it;
    struct err e;
    float x[4];
    (void)state;
    rewards("accuracy", &p, texts, NULL, 4, x, why);
    for (int i = 0; i < 4; i++)
        assert_true(x[i] == (i == 0 ? 1.0f : 0.0f));
    assert_string_equal(why[0].text, "\\boxed{7}: equal");
    assert_string_equal(why[1].text, "\\boxed{8}: different");
    assert_string_equal(why[2].text, "no \\boxed{} in the answer");
    assert_string_equal(why[3].text, "the thought does not end");
    /* what cannot be judged is not wrong */
    p.gold = span_of("x^2+1");
    rewards("accuracy", &p, texts, NULL, 1, x, why);
    assert_true(isnan(x[0]));
    p.gold.s = NULL;
    rewards("accuracy", &p, texts, NULL, 1, x, why);
    assert_true(isnan(x[0]));
    rewards("cosine", &p, texts, NULL, 1, x, why);
    assert_true(isnan(x[0]));
    /* a problem of r1-gym has its own verifier */
    static const char *const ways[] = {"\\boxed{7*12-3}", "\\boxed{81}", "\\boxed{?}"};
    assert_int_equal(gym_read(&it, span_of("countdown-en-0-7.12.3.81-0"), &e), 0);
    p.item = &it;
    rewards("accuracy", &p, ways, NULL, 3, x, NULL);
    assert_true(x[0] == 1 && x[1] == 0 && x[2] == 0);
}

static void by_length(void **state)
{
    static const char *const texts[] = {"\\boxed{7}", "\\boxed{7}", "\\boxed{8}", "\\boxed{8}"};
    static const size_t tokens[] = {10, 30, 10, 20};
    struct reward_problem p = {.gold = span_of("7"), .language = -1};
    float x[4];
    (void)state;
    rewards("length", &p, texts, tokens, 4, x, NULL);
    assert_true(x[0] == 0.5f && x[1] == -0.5f && x[2] == 0 && x[3] == 0);
    rewards("length", &p, texts, tokens, 1, x, NULL); /* alone: nobody to compare with */
    assert_true(x[0] == 0);
    static const size_t far[] = {0, 1000, 500, 1000};
    rewards("cosine", &p, texts, far, 4, x, NULL); /* 0 tokens: 9 characters */
    assert_true(fabs((double)x[0] - (0.75 + 0.25 * cos(0.009 * M_PI))) < 1e-6);
    assert_true(fabsf(x[1] - 0.5f) < 1e-6f);  /* right and as long as can be */
    assert_true(fabsf(x[2] + 0.25f) < 1e-6f); /* half the way from 0 ... */
    assert_true(fabsf(x[3] + 0.5f) < 1e-6f);
    static const size_t near[] = {80, 90, 100, 101};
    rewards("soft_overlong", &p, texts, near, 4, x, NULL);
    assert_true(x[0] == 0 && x[1] == -0.5f && x[2] == -1 && x[3] == -1);
}

static void repetition(void **state)
{
    static const char *const texts[] = {
        "a b c d e",
        "a b c a b c a b c", /* 7 trigrams, 3 of them different */
        "A b c a B C",       /* 4, 3 */
        "a b",
        "今天今天今天", /* 4 trigrams of characters, 2 different */
        "今天是星期五，好。",
        "",
    };
    static const float want[] = {0, -4.0f / 7, -0.25f, 0, -0.5f, 0, 0};
    struct reward_problem p = {.language = -1};
    struct reward_options o = options();
    float x[7];
    (void)state;
    rewards("repetition", &p, texts, NULL, 7, x, NULL);
    for (int i = 0; i < 7; i++)
        if (fabsf(x[i] - want[i]) > 1e-6f)
            fail_msg("%s: %g", texts[i], (double)x[i]);
    rewards("repetition_tokens", &p, texts, NULL, 1, x, NULL);
    assert_true(isnan(x[0])); /* no ids */
    static const int32_t ids[] = {5, 5, 5, 5, 5};
    struct reward_sample s = {.text = span_of("x"), .tokens = 5, .ids = ids};
    struct err e;
    o.repetition_n_grams = 2;
    assert_int_equal(
        reward_group(reward_find(span_of("repetition_tokens")), &o, &p, &s, 1, x, NULL, &e), 0);
    assert_true(fabsf(x[0] + 0.75f) < 1e-6f);
}

static void languages(void **state)
{
    static const struct {
        const char *text;
        double en, zh;
    } rows[] = {
        {"47*6=282. So it is 282.", 1, 0},
        {"所以是282。", 0, 1},
        {"so 所以", 1.0 / 3, 2.0 / 3},
        {"x=3, y=4", 1, 1}, /* names of numbers */
        {"1+1=2", 1, 1},
        {"\\frac{1}{2} and \\boxed{Friday}", 1, 0},
        {"所以是\\boxed{Friday}。", 0, 1},
        {"ответ 7", 0, 0},
        {"", 1, 1},
        {"caf\xc3\xa9 \xff", 1, 0},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        double en = reward_language_share(span_of(rows[i].text), GYM_EN);
        double zh = reward_language_share(span_of(rows[i].text), GYM_ZH);
        if (fabs(en - rows[i].en) > 1e-9 || fabs(zh - rows[i].zh) > 1e-9)
            fail_msg("%s: %g %g", rows[i].text, en, zh);
    }
    /* of the thought alone */
    static const char *const text[] = {"<think>\n所以\n</think>\n\nSo it is."};
    struct reward_problem p = {.language = GYM_ZH};
    float x;
    rewards("language", &p, text, NULL, 1, &x, NULL);
    assert_true(x == 1);
    p.language = -1;
    rewards("language", &p, text, NULL, 1, &x, NULL);
    assert_true(isnan(x));
}

/* What the worked solutions of r1-gym earn: all that a trainer would give for them. */
static void solutions_are_rewarded(void **state)
{
    static const char *const full[] = {"accuracy", "format", "think_format", "language"};
    struct buf text;
    struct err e;
    (void)state;
    buf_init(&text, GYM_TEXT_MAX);
    for (size_t k = 0; k < gym_count(); k++)
        for (uint64_t i = 0; i < 300; i++) {
            struct gym_item it;
            enum gym_language l = i & 1 ? GYM_ZH : GYM_EN;
            gym_make(&it, gym_task(k), l, 11, i, NULL);
            buf_clear(&text);
            assert_int_equal(gym_completion(&it, l, (int)(i % GYM_STYLES), &text, &e), 0);
            struct reward_problem p = {.item = &it, .language = (int)l};
            const char *const texts[] = {text.data};
            for (size_t r = 0; r < NUM_COUNT(full); r++) {
                struct reward_why why;
                float x;
                rewards(full[r], &p, texts, NULL, 1, &x, &why);
                if (x != 1)
                    fail_msg("%s %g (%s): %s", full[r], (double)x, why.text, text.data);
            }
        }
    buf_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms),     cmocka_unit_test(accuracy),
        cmocka_unit_test(by_length), cmocka_unit_test(repetition),
        cmocka_unit_test(languages), cmocka_unit_test(solutions_are_rewarded),
    };
    return cmocka_run_group_tests_name("grade/reward", tests, NULL, NULL);
}
