/* r1-gym as rows of JSON: every form has its columns, rows come back as the problems they were, and
 * nothing that is held out is in a row for training. */
#include "base/num.h"
#include "grade/gym_data.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdlib.h>
#include <string.h>

static json_t *row_of(const struct gym_data *d, uint64_t i)
{
    json_t *row;
    struct err e = {0};
    if (gym_data_row(d, i, &row, &e))
        fail_msg("%s", e.text);
    return row;
}

static struct gym_data wanted(size_t task, enum gym_language l, enum gym_form form)
{
    return (struct gym_data){.task = gym_task(task), .language = l, .form = form, .style = -1};
}

/* The text of a member that is a list of one message of that role. */
static struct span message(const json_t *row, const char *key, const char *role)
{
    const json_t *list = json_object_get(row, key), *m = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 1);
    assert_string_equal(json_string_value(json_object_get(m, "role")), role);
    const json_t *text = json_object_get(m, "content");
    assert_true(json_is_string(text));
    return (struct span){json_string_value(text), json_string_length(text)};
}

static void rows_come_back(void **state)
{
    (void)state;
    for (size_t t = 0; t < gym_count(); t++)
        for (uint64_t i = 0; i < 400; i++) {
            struct gym_data d = wanted(t, i & 1 ? GYM_ZH : GYM_EN, GYM_SFT);
            struct reward_source from;
            struct reward_problem p;
            struct gym_item it;
            struct err e = {0};
            d.split = i & 2 ? GYM_EVAL : GYM_TRAIN;
            json_t *row = row_of(&d, i), *again = row_of(&d, i);
            assert_true(json_equal(row, again));
            assert_int_equal(reward_problem_read(&p, &from, row, &e), 0);
            assert_non_null(p.item);
            assert_int_equal(p.language, d.language);
            assert_int_equal(gym_split(p.item), d.split);
            assert_int_equal(gym_verify(p.item, message(row, "completion", "assistant")),
                             GRADE_EQUAL);
            assert_int_equal(gym_data_item(&d, i, &it, &e), 0);
            assert_int_equal(gym_hash(&it), gym_hash(p.item));
            assert_true(message(row, "prompt", "user").n > 0);
            json_decref(row);
            json_decref(again);
        }
}

/* Held-out problems are twins; training rows of the languages are different problems. */
static void languages_and_splits(void **state)
{
    size_t same = 0;
    (void)state;
    for (uint64_t i = 0; i < 200; i++) {
        struct gym_data en = wanted(0, GYM_EN, GYM_PROMPT), zh = wanted(0, GYM_ZH, GYM_PROMPT);
        struct gym_item a, b;
        struct err e;
        en.split = zh.split = GYM_EVAL;
        assert_int_equal(gym_data_item(&en, i, &a, &e) | gym_data_item(&zh, i, &b, &e), 0);
        assert_int_equal(gym_hash(&a), gym_hash(&b));
        en.split = zh.split = GYM_TRAIN;
        assert_int_equal(gym_data_item(&en, i, &a, &e) | gym_data_item(&zh, i, &b, &e), 0);
        same += gym_hash(&a) == gym_hash(&b);
    }
    assert_true(same < 10);
}

static void preferences(void **state)
{
    (void)state;
    for (size_t t = 0; t < gym_count(); t++)
        for (uint64_t i = 0; i < 400; i++) {
            struct gym_data d = wanted(t, i & 1 ? GYM_ZH : GYM_EN, GYM_PREFERENCE);
            struct reward_source from;
            struct reward_problem p;
            struct err e;
            json_t *row = row_of(&d, i);
            assert_int_equal(reward_problem_read(&p, &from, row, &e), 0);
            struct span good = message(row, "chosen", "assistant");
            struct span bad = message(row, "rejected", "assistant");
            assert_int_equal(gym_verify(p.item, good), GRADE_EQUAL);
            assert_false(good.n == bad.n && !memcmp(good.s, bad.s, bad.n));
            const char *kind = json_string_value(json_object_get(row, "kind"));
            assert_string_equal(kind, gym_unsafe(p.item) ? "safety" : "helpful");
            if (gym_unsafe(p.item))
                assert_int_equal(gym_verify(p.item, bad), GRADE_DIFFERENT);
            json_decref(row);
            d.form = GYM_SAFETY;
            row = row_of(&d, i);
            assert_int_equal(reward_problem_read(&p, &from, row, &e), 0);
            struct span out = message(row, "completion", "assistant");
            bool safe = json_is_true(json_object_get(row, "label"));
            assert_int_equal(safe, !(gym_has_unsafe(d.task) && (i & 1)));
            assert_true(span_find(out, "<think>\n", 0) == 0);
            if (!safe || gym_unsafe(p.item))
                assert_int_equal(gym_verify(p.item, out), safe ? GRADE_EQUAL : GRADE_DIFFERENT);
            if (!safe)
                assert_true(gym_unsafe(p.item));
            json_decref(row);
        }
}

/* A tenth of the texts has a thought in tags, a tenth none at all; the language can be mixed. */
static void texts(void **state)
{
    size_t tagged = 0, boxed = 0, other = 0, n = 3000;
    (void)state;
    for (uint64_t i = 0; i < n; i++) {
        struct gym_data d = wanted(0, GYM_EN, GYM_PRETRAIN);
        json_t *row = row_of(&d, i);
        assert_int_equal(json_object_size(row), 1);
        const char *text = json_string_value(json_object_get(row, "text"));
        tagged += strstr(text, "<think>\n") != NULL;
        boxed += strstr(text, "\\boxed{") != NULL;
        json_decref(row);
        d.form = GYM_SFT;
        d.style = 0;
        d.mixed = 0.25;
        d.task = gym_task(3); /* its thoughts have words */
        row = row_of(&d, i);
        struct span all = message(row, "completion", "assistant");
        size_t end = span_find(all, "</think>", 0);
        other += reward_language_share((struct span){all.s, end}, GYM_ZH) > 0.5;
        json_decref(row);
    }
    assert_in_range(tagged, n / 10 - 80, n / 10 + 80);
    assert_in_range(n - boxed, n / 10 - 80, n / 10 + 80);
    assert_in_range(other, n / 4 - 100, n / 4 + 100);
}

/* What other files say. */
static void other_records(void **state)
{
    static const struct {
        const char *json, *gold;
    } rows[] = {
        {"{\"gold\": \"7\"}", "7"},
        {"{\"question\": \"?\", \"answer\": \"3*4=12\\n#### 12\"}", "12"},
        {"{\"answer\": 5}", "5"},
        {"{\"target\": -2.5}", "-2.5"},
        {"{\"solution\": \"\\\\boxed{9}\"}", "\\boxed{9}"},
        {"{\"task\": \"other\", \"id\": \"x\", \"gold\": \"1\"}", "1"},
        {"{\"prompt\": \"x\"}", NULL},
    };
    struct reward_source from;
    struct reward_problem p;
    struct err e;
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        json_t *j = json_loads(rows[i].json, 0, NULL);
        assert_non_null(j);
        assert_int_equal(reward_problem_read(&p, &from, j, &e), 0);
        assert_null(p.item);
        assert_int_equal(p.language, -1);
        assert_int_equal(p.gold.s != NULL, rows[i].gold != NULL);
        if (rows[i].gold)
            assert_true(span_is(p.gold, rows[i].gold));
        json_decref(j);
    }
    json_t *alone = json_pack("{ss}", "id", "arithmetic-zh-0-1.2-0");
    assert_int_equal(reward_problem_read(&p, &from, alone, &e), 0);
    assert_ptr_equal(p.item, &from.item);
    assert_int_equal(p.language, GYM_ZH);
    json_decref(alone);
    json_t *j = json_pack("{ss ss}", "task", "arithmetic", "id", "arithmetic-en-0-1-0");
    assert_int_equal(reward_problem_read(&p, &from, j, &e), ERR_FORMAT);
    json_decref(j);
}

static void without_memory(void **state)
{
    static const enum gym_form forms[] = {GYM_SFT, GYM_PRETRAIN, GYM_PREFERENCE, GYM_SAFETY};
    (void)state;
    for (size_t f = 0; f < NUM_COUNT(forms); f++)
        for (size_t n = 1;; n++) {
            struct gym_data d = wanted(3, GYM_ZH, forms[f]);
            struct err e = {0};
            json_t *row;
            fail_alloc_at(n);
            int rc = gym_data_row(&d, 3, &row, &e);
            if (!fail_alloc_stop()) {
                assert_int_equal(rc, 0);
                json_decref(row);
                break;
            }
            assert_int_equal(rc, ERR_NOMEM);
            assert_null(row);
        }
}

/* Knobs that leave no problem on one side end with words, not in a circle. */
static void no_problem_left(void **state)
{
    struct gym_data d = wanted(1, GYM_EN, GYM_PROMPT);
    struct gym_item it;
    struct err e = {0};
    int failed = 0;
    (void)state;
    d.knobs.numbers_to = d.knobs.target_to = 1;
    for (int side = 0; side < 2; side++) {
        d.split = side ? GYM_EVAL : GYM_TRAIN;
        failed += gym_data_item(&d, 0, &it, &e) == ERR_LIMIT;
    }
    assert_int_equal(failed, 1);
    assert_non_null(strstr(e.text, "countdown: with these knobs no problem is "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_come_back),  cmocka_unit_test(languages_and_splits),
        cmocka_unit_test(preferences),     cmocka_unit_test(texts),
        cmocka_unit_test(other_records),   cmocka_unit_test(without_memory),
        cmocka_unit_test(no_problem_left),
    };
    return cmocka_run_group_tests_name("grade/gym_data", tests, NULL, NULL);
}
