#include "base/cpu.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void names_parse_up_to_the_best(void **state)
{
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        struct err e = {0};
        enum cpu_isa got = CPU_ISA_COUNT;
        int rc = cpu_isa_parse(&got, cpu_isa_name((enum cpu_isa)i), &e);
        if (i <= (int)cpu_best()) {
            assert_int_equal(rc, 0);
            assert_int_equal(got, i);
        } else {
            assert_int_equal(rc, ERR_USAGE);
            assert_non_null(strstr(e.text, cpu_isa_name(cpu_best()))); /* says what there is */
        }
    }
    enum cpu_isa got;
    assert_int_equal(cpu_isa_parse(&got, "auto", NULL), 0);
    assert_int_equal(got, cpu_best());
}

static void unknown_names_are_usage_errors(void **state)
{
    static const char *const bad[] = {"", "AVX2", "avx", "avx5120", "neon", "auto "};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {0};
        enum cpu_isa got;
        assert_int_equal(cpu_isa_parse(&got, bad[i], &e), ERR_USAGE);
        assert_non_null(strstr(e.text, "avx512vnni"));
    }
    assert_string_equal(cpu_isa_name((enum cpu_isa)99), "unknown");
}

static void the_model_name_fits(void **state)
{
    char name[128], small[8];
    cpu_model_name(name, sizeof name);
    assert_true(strlen(name) > 0);
    assert_true(name[0] != ' ' && name[strlen(name) - 1] != ' ');
    memset(small, 'x', sizeof small);
    cpu_model_name(small, 5);
    assert_true(strlen(small) <= 4);
    assert_int_equal(small[5], 'x');
    cpu_model_name(small, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_parse_up_to_the_best),
        cmocka_unit_test(unknown_names_are_usage_errors),
        cmocka_unit_test(the_model_name_fits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
