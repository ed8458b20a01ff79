/* Peak loops report exactly the work that they were asked for, at every level of this machine. */
#include "kernels/peak.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void counts_bytes(void **state)
{
    char *buf = aligned_alloc(64, 4096);
    assert_non_null(buf);
    memset(buf, 1, 4096);
    for (int isa = 0; isa <= (int)cpu_best(); isa++) {
        assert_int_equal(peak_run(PEAK_READ, (enum cpu_isa)isa, buf, 4096), 4096);
        assert_int_equal(peak_run(PEAK_READ, (enum cpu_isa)isa, buf, 1000), 768);
        assert_int_equal(peak_run(PEAK_READ, (enum cpu_isa)isa, buf, 0), 0);
    }
    free(buf);
}

static void counts_operations(void **state)
{
    for (int isa = 0; isa <= (int)cpu_best(); isa++)
        for (int kind = PEAK_INT8; kind < PEAK_KIND_COUNT; kind++) {
            uint64_t one = peak_run((enum peak_kind)kind, (enum cpu_isa)isa, NULL, 1);
            assert_true(one > 0);
            assert_int_equal(peak_run((enum peak_kind)kind, (enum cpu_isa)isa, NULL, 1000),
                             1000 * one);
            assert_int_equal(peak_run((enum peak_kind)kind, (enum cpu_isa)isa, NULL, 0), 0);
        }
}

static void has_names(void **state)
{
    for (int kind = 0; kind < PEAK_KIND_COUNT; kind++)
        assert_true(strlen(peak_name((enum peak_kind)kind)) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_bytes),
        cmocka_unit_test(counts_operations),
        cmocka_unit_test(has_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
