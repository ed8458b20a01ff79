/* The tables of stages: complete, and with the defaults that TRL's users know. */
#include "train/stage.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <string.h>

static void every_row_has_a_name_and_a_word(void **state)
{
    (void)state;
    for (size_t i = 0; i < train_stage_count(); i++) {
        const struct train_stage *s = train_stage_at(i);
        for (size_t g = 0; g < s->spec.n; g++)
            for (size_t r = 0; r < s->spec.groups[g].n; r++) {
                const struct opt *o = &s->spec.groups[g].rows[r];
                assert_non_null(o->name);
                assert_non_null(o->help);
                size_t base;
                assert_ptr_equal(opt_find(&s->spec, o->name, strlen(o->name), &base), o);
            }
    }
}

static void stages_have_defaults_of_their_own(void **state)
{
    (void)state;
    struct err e = {0};
    struct train_options o = {0};
    const struct train_stage *sft = train_stage_find("sft"), *pre = train_stage_find("pretrain");
    assert_int_equal(opt_defaults(&sft->spec, &o, &e), 0);
    assert_int_equal(opt_assign(&sft->spec, &o, "warmup_ratio", "0.25", &e), 0);
    assert_int_equal(train_stage_fill(sft, &o, &e), 0);
    assert_true(o.lr == 2e-5 && o.epochs == 3 && o.beta2 == 0.999 && o.batch == 8);
    assert_true(o.warmup_ratio == 0.25); /* what was given stays */
    assert_string_equal(o.scheduler, "linear");
    memset(&o, 0, sizeof o);
    assert_int_equal(opt_defaults(&pre->spec, &o, &e), 0);
    assert_int_equal(train_stage_fill(pre, &o, &e), 0);
    assert_true(o.lr == 1e-3 && o.epochs == 1 && o.beta2 == 0.95 && o.weight_decay == 0.1);
    assert_string_equal(o.packing, "wrapped");
    assert_null(train_stage_find("nonsense"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_has_a_name_and_a_word),
        cmocka_unit_test(stages_have_defaults_of_their_own),
    };
    return cmocka_run_group_tests_name("train/options", tests, NULL, NULL);
}
