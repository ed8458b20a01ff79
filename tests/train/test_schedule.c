/* Learning rates: Hugging Face's own numbers where there are some, its formulas where not. */
#include "support/golden.h"
#include "train/schedule.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void near(double got, double want)
{
    if (!(fabs(got - want) <= 4e-16 * fabs(want) + 1e-22))
        fail_msg("%.17g, wanted %.17g", got, want);
}

static void test_golden(void **state)
{
    size_t n, rows = 0;
    char *text = golden_file("train/lr_schedules.json", &n);
    json_t *all = json_loadb(text, n, 0, NULL);
    json_t *row, *v;
    size_t i, k;
    assert_non_null(all);
    json_array_foreach(all, i, row)
    {
        struct schedule s;
        struct err e = {0};
        json_t *args = json_object();
        if (json_object_get(row, "min_lr_rate"))
            json_object_set(args, "min_lr_rate", json_object_get(row, "min_lr_rate"));
        int rc = schedule_init(&s, json_string_value(json_object_get(row, "name")),
                               json_number_value(json_object_get(row, "base_lr")),
                               json_integer_value(json_object_get(row, "warmup_steps")),
                               json_integer_value(json_object_get(row, "total_steps")), args, &e);
        assert_string_equal(e.text, "");
        assert_int_equal(rc, 0);
        json_array_foreach(json_object_get(row, "lr_used_at_step"), k, v)
        {
            near(schedule_lr(&s, (int64_t)k), json_number_value(v));
            rows++;
        }
        json_decref(args);
    }
    assert_int_equal(rows, 160);
    json_decref(all);
    free(text);
}

static struct schedule make(const char *name, int64_t warmup, int64_t total, const char *args)
{
    struct schedule s;
    struct err e = {0};
    json_t *a = json_loads(args, 0, NULL);
    assert_non_null(a);
    if (schedule_init(&s, name, 0.01, warmup, total, a, &e))
        fail_msg("%s", e.text);
    json_decref(a);
    return s;
}

static void test_others(void **state)
{
    struct schedule s = make("constant", 5, 20, "{}");
    near(schedule_lr(&s, 0), 0.01); /* it has no warm-up */

    s = make("polynomial", 10, 110, "{\"power\": 2, \"lr_end\": 0.001}");
    near(schedule_lr(&s, 5), 0.005);
    near(schedule_lr(&s, 60), 0.009 * 0.25 + 0.001);
    near(schedule_lr(&s, 110), 0.001);
    near(schedule_lr(&s, 500), 0.001);

    s = make("inverse_sqrt", 100, 1000, "{}");
    near(schedule_lr(&s, 100), 0.01);
    near(schedule_lr(&s, 400), 0.005);
    s = make("inverse_sqrt", 0, 1000, "{\"timescale\": 10}");
    near(schedule_lr(&s, 30), 0.005);

    s = make("cosine_with_restarts", 0, 100, "{\"num_cycles\": 4}");
    near(schedule_lr(&s, 0), 0.01);
    near(schedule_lr(&s, 25), 0.01);
    assert_true(schedule_lr(&s, 24) < 0.0001);
    near(schedule_lr(&s, 100), 0);

    s = make("cosine_with_min_lr", 0, 100, "{\"min_lr\": 0.002}");
    near(schedule_lr(&s, 100), 0.002);

    s = make("cosine_warmup_with_min_lr", 4, 100, "{\"min_lr_rate\": 0.1}");
    near(schedule_lr(&s, 0), 0.0025);
    near(schedule_lr(&s, 3), 0.01);
    near(schedule_lr(&s, 99), 0.001);
    s = make("cosine_warmup_with_min_lr", 5, 100,
             "{\"min_lr_rate\": 0.1, \"warmup_lr_rate\": 0.2}");
    near(schedule_lr(&s, 0), 0.002);
    near(schedule_lr(&s, 4), 0.01);
}

static void test_stable_decay(void **state)
{
    struct schedule s = make("warmup_stable_decay", 10, 100,
                             "{\"num_decay_steps\": 20, \"decay_type\": \"linear\", "
                             "\"min_lr_ratio\": 0.1}");
    near(schedule_lr(&s, 0), 0.001);
    near(schedule_lr(&s, 5), 0.0055);
    near(schedule_lr(&s, 10), 0.01);
    near(schedule_lr(&s, 79), 0.01);
    near(schedule_lr(&s, 90), 0.0055);
    near(schedule_lr(&s, 100), 0.001);
    near(schedule_lr(&s, 1000), 0.001);
    s = make("warmup_stable_decay", 10, 100,
             "{\"num_decay_steps\": 20, \"decay_type\": \"1-sqrt\", \"warmup_type\": \"cosine\"}");
    near(schedule_lr(&s, 5), 0.01 * 0.5 * (1 - cos(M_PI * 0.5)));
    near(schedule_lr(&s, 85), 0.005);
    s = make("warmup_stable_decay", 0, 100, "{\"num_decay_steps\": 20, \"num_stable_steps\": 30}");
    near(schedule_lr(&s, 29), 0.01);
    near(schedule_lr(&s, 40), 0.005);
}

static void refused(const char *name, double lr, const char *args, const char *word)
{
    struct schedule s;
    struct err e = {0};
    json_t *a = args ? json_loads(args, JSON_DECODE_ANY, NULL) : NULL;
    assert_int_equal(schedule_init(&s, name, lr, 10, 100, a, &e), ERR_USAGE);
    if (!strstr(e.text, word))
        fail_msg("\"%s\" does not say \"%s\"", e.text, word);
    json_decref(a);
}

static void test_errors(void **state)
{
    refused("cosines", 0.1, NULL, "cosine_with_min_lr");
    refused("cosine", 0.1, "{\"powr\": 1}", "\"powr\"");
    refused("cosine", 0.1, "{\"power\": 1}", "num_cycles");
    refused("cosine", 0.1, "{\"num_cycles\": \"a\"}", "must be a number");
    refused("cosine", 0.1, "[1]", "object");
    refused("cosine", -1, NULL, "0 or more");
    refused("cosine", NAN, NULL, "0 or more");
    refused("cosine_with_min_lr", 0.1, NULL, "needs one of min_lr and min_lr_rate");
    refused("cosine_with_min_lr", 0.1, "{\"min_lr\": 0.01, \"min_lr_rate\": 0.1}", "only one");
    refused("cosine_with_min_lr", 0.1, "{\"min_lr\": 1}", "above the learning rate");
    refused("polynomial", 1e-8, NULL, "lr_end");
    refused("warmup_stable_decay", 0.1, NULL, "num_decay_steps");
    refused("warmup_stable_decay", 0.1, "{\"num_decay_steps\": 91}", "the run has 100");
    refused("warmup_stable_decay", 0.1, "{\"num_decay_steps\": 1, \"decay_type\": \"x\"}",
            "1-sqrt");
    refused("warmup_stable_decay", 0.1, "{\"num_decay_steps\": 1.5}", "whole number");
}

static void test_warmup(void **state)
{
    assert_int_equal(schedule_warmup(7, 0.5, 100), 7);
    assert_int_equal(schedule_warmup(0, 0.03, 100), 3);
    assert_int_equal(schedule_warmup(0, 0.03, 101), 4);
    assert_int_equal(schedule_warmup(0, 0, 100), 0);
    /* no schedule has a rate that is not finite, whatever the step */
    struct buf names;
    struct err e;
    buf_init(&names, SCHEDULE_CHOICES_MAX);
    assert_int_equal(schedule_names(&names, &e), 0);
    char *save, *name = strtok_r(names.data, "|", &save);
    size_t n = 0;
    for (; name; name = strtok_r(NULL, "|", &save), n++) {
        const char *args = strstr(name, "min_lr")   ? "{\"min_lr_rate\": 0.1}"
                           : strstr(name, "stable") ? "{\"num_decay_steps\": 0}"
                                                    : "{}";
        static const int64_t runs[][2] = {{0, 0}, {0, 1}, {3, 3}, {10, 3}, {1, 100}};
        for (size_t i = 0; i < 5; i++) {
            if (strstr(name, "stable") && runs[i][0] > runs[i][1])
                continue;
            struct schedule s = make(name, runs[i][0], runs[i][1], args);
            for (int64_t step = 0; step < 120; step++) {
                double lr = schedule_lr(&s, step);
                assert_true(lr >= 0 && lr <= 0.01 * (1 + 1e-12));
            }
        }
    }
    assert_int_equal(n, 10);
    buf_release(&names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),       cmocka_unit_test(test_others),
        cmocka_unit_test(test_stable_decay), cmocka_unit_test(test_errors),
        cmocka_unit_test(test_warmup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
