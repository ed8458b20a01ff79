#include "base/arena.h"

#include "base/num.h"
#include "support/fail_alloc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void pieces_are_zeroed_aligned_and_apart(void **state)
{
    struct arena a;
    struct err e;
    arena_init(&a, SIZE_MAX);
    unsigned char *p[600];
    size_t size[600];
    for (size_t i = 0; i < 600; i++) {
        size[i] = i % 7 == 0 ? i * 97 : i % 50;
        p[i] = arena_alloc(&a, size[i], &e);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        for (size_t k = 0; k < size[i]; k++)
            assert_int_equal(p[i][k], 0);
        memset(p[i], (int)(i % 255 + 1), size[i]);
    }
    for (size_t i = 0; i < 600; i++)
        for (size_t k = 0; k < size[i]; k++)
            assert_int_equal(p[i][k], i % 255 + 1);
    arena_release(&a);
    assert_int_equal(a.used, 0);
    assert_non_null(arena_alloc(&a, 1, &e)); /* usable again */
    arena_release(&a);
}

static void the_maximum_holds(void **state)
{
    struct arena a;
    struct err e = {0};
    arena_init(&a, 1000);
    assert_non_null(arena_alloc(&a, 512, &e));
    assert_null(arena_alloc(&a, 512, &e));
    assert_int_equal(e.code, ERR_NOMEM);
    assert_non_null(strstr(e.text, "1000"));
    assert_non_null(arena_alloc(&a, 400, &e)); /* what fits still fits */
    assert_true(a.used <= a.max);
    arena_release(&a);
    assert_non_null(arena_alloc(&a, 900, &e)); /* the limit counts anew */
    arena_release(&a);

    arena_init(&a, 0);
    assert_null(arena_alloc(&a, 0, &e));
    assert_null(arena_alloc(&a, 1, &e));
    arena_release(&a);
}

static void sizes_that_overflow_are_refused(void **state)
{
    struct arena a;
    struct err e = {0};
    arena_init(&a, SIZE_MAX);
    static const size_t counts[][2] = {
        {SIZE_MAX, 2}, {SIZE_MAX / 2 + 1, 2}, {SIZE_MAX, 1}, {SIZE_MAX - 15, 1}, {SIZE_MAX - 64, 1},
    };
    for (size_t i = 0; i < NUM_COUNT(counts); i++) {
        e.code = 0;
        fail_alloc_from(1); /* the system is not asked for what may exist with overcommit */
        assert_null(arena_array(&a, counts[i][0], counts[i][1], &e));
        fail_alloc_stop();
        assert_int_equal(e.code, ERR_NOMEM);
    }
    assert_null(arena_strndup(&a, "x", SIZE_MAX, &e));
    assert_int_equal(a.used, 0);
    arena_release(&a);
}

static void strings_are_terminated(void **state)
{
    struct arena a;
    struct err e;
    arena_init(&a, 4096);
    char *s = arena_strndup(&a, "abcdef", 3, &e);
    assert_string_equal(s, "abc");
    assert_string_equal(arena_strndup(&a, NULL, 0, &e), "");
    int *v = arena_array(&a, 5, sizeof *v, &e);
    for (int i = 0; i < 5; i++)
        assert_int_equal(v[i], 0);
    arena_release(&a);
}

static void every_allocation_may_fail(void **state)
{
    for (size_t n = 1;; n++) {
        struct arena a;
        struct err e = {0};
        arena_init(&a, SIZE_MAX);
        fail_alloc_at(n);
        bool all = true;
        for (size_t i = 0; i < 100; i++) {
            void *p = arena_alloc(&a, i * 100, &e);
            if (p)
                memset(p, 1, i * 100);
            else
                all = false;
        }
        bool failed = fail_alloc_stop();
        arena_release(&a);
        assert_int_equal(all, !failed);
        assert_int_equal(e.code, failed ? ERR_NOMEM : 0);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_are_zeroed_aligned_and_apart),
        cmocka_unit_test(the_maximum_holds),
        cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(strings_are_terminated),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
