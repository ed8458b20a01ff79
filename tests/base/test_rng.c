#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* The known-answer vectors that the authors of Philox publish for 4x32 with 10 rounds. */
static void known_answers(void **state)
{
    static const struct {
        uint64_t seed, stream, block;
        uint32_t out[4];
    } cases[] = {
        {0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX, UINT64_MAX, UINT64_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         0x0370734413198a2e,
         0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t out[4];
        rng_block(cases[i].seed, cases[i].stream, cases[i].block, out);
        assert_memory_equal(out, cases[i].out, sizeof out);
    }
}

static void numbers_follow_from_seed_stream_and_index(void **state)
{
    struct rng r;
    rng_init(&r, 7, 3);
    for (uint64_t i = 0; i < 20; i++) {
        uint32_t w[4];
        rng_block(7, 3, i / 4, w);
        assert_int_equal(r.index, i);
        assert_int_equal(rng_u32(&r), w[i % 4]);
    }
    struct rng other = {.seed = 7, .stream = 3, .index = 11}; /* jumping */
    rng_init(&r, 7, 3);
    for (int i = 0; i < 11; i++)
        rng_u32(&r);
    assert_int_equal(rng_u32(&r), rng_u32(&other));
}

static void uniform_takes_two_words_at_any_index(void **state)
{
    for (uint64_t at = 0; at < 9; at++) {
        struct rng a = {.seed = 1, .stream = 2, .index = at}, b = a;
        double x = rng_uniform(&a);
        uint64_t hi = rng_u32(&b), lo = rng_u32(&b);
        assert_true(x == ldexp((double)((hi << 32 | lo) >> 11), -53));
        assert_int_equal(a.index, at + 2);
        rng_normal(&b);
        assert_int_equal(b.index, at + 6);
    }
}

static void moments_are_right(void **state)
{
    enum { N = 400000 };
    struct rng r;
    rng_init(&r, 42, 0);
    double sum = 0, squares = 0, low = 1, high = 0;
    for (int i = 0; i < N; i++) {
        double x = rng_uniform(&r);
        low = x < low ? x : low;
        high = x > high ? x : high;
        sum += x;
        squares += x * x;
    }
    assert_true(low >= 0 && high < 1);
    assert_true(fabs(sum / N - 0.5) < 5 * sqrt(1.0 / 12 / N));
    assert_true(fabs(squares / N - 1.0 / 3) < 5 * sqrt(4.0 / 45 / N));
    double m1 = 0, m2 = 0, m4 = 0;
    for (int i = 0; i < N; i++) {
        double x = rng_normal(&r);
        assert_true(isfinite(x));
        m1 += x;
        m2 += x * x;
        m4 += x * x * x * x;
    }
    assert_true(fabs(m1 / N) < 5 * sqrt(1.0 / N));
    assert_true(fabs(m2 / N - 1) < 5 * sqrt(2.0 / N));
    assert_true(fabs(m4 / N - 3) < 5 * sqrt(96.0 / N));
}

static void os_seeds_differ(void **state)
{
    assert_int_not_equal(rng_os_seed(), rng_os_seed());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(numbers_follow_from_seed_stream_and_index),
        cmocka_unit_test(uniform_takes_two_words_at_any_index),
        cmocka_unit_test(moments_are_right),
        cmocka_unit_test(os_seeds_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
