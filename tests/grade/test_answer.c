/* Finding the answer in an output, and telling equal from different from unreadable. */
#include "base/num.h"
#include "grade/answer.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdlib.h>
#include <string.h>

static void boxes(void **state)
{
    static const struct {
        const char *text, *box; /* NULL: there is none */
    } rows[] = {
        {"<think>\nis it \\boxed{5}? no\n</think>\n\nThe answer is $\\boxed{4}$.", "4"},
        {"<think>a</think>First \\boxed{1}, then \\boxed{2}", "2"},
        {"\\boxed{\\sqrt{\\frac{3}{4}}}", "\\sqrt{\\frac{3}{4}}"},
        {"<think>it goes on \\boxed{9}", NULL},
        {"<think>t</think>a \\boxed{1} <think>and on", NULL},
        {"</think>\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"},
        {"\\boxed{open", NULL},
        {"\\boxed{3} and then \\boxed{open", "3"},
        {"\\boxed{open and \\boxed{7}", "7"},
        {"\\boxed {8}", "8"},
        {"\\fbox{5}", "5"},
        {"\\boxed{x = \\boxed{3}}", "3"},
        {"<think>1</think>\\boxed{1}<think>2</think>\\boxed{2}", "2"},
        {"\\boxed{}", ""},
        {"} \\boxed{6} }", "6"},
        {"\\boxed 5", NULL},
        {"\\boxedx{5}", NULL},
        {"\\boxed", NULL},
        {"\\", NULL},
        {"", NULL},
        {"答案是 \\boxed{42}。", "42"},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        struct span out;
        bool found = answer_boxed(span_of(rows[i].text), &out);
        if (found != (rows[i].box != NULL) || (found && !span_is(out, rows[i].box)))
            fail_msg("%s: %.*s", rows[i].text, found ? (int)out.n : 7, found ? out.s : "nothing");
    }
}

static void values(void **state)
{
    static const struct {
        const char *gold, *answer;
        enum grade want;
    } rows[] = {
        {"42", "42", GRADE_EQUAL},
        {"42", "43", GRADE_DIFFERENT},
        {"42", "42.0", GRADE_EQUAL},
        {"42", "42.", GRADE_EQUAL},
        {"-7", "7", GRADE_DIFFERENT},
        {"0", "-0", GRADE_EQUAL},
        {"007", "7", GRADE_EQUAL},
        {"1234", "1,234", GRADE_EQUAL},
        {"1{,}000{,}000", "1000000", GRADE_EQUAL},
        {"100", "1,00", GRADE_UNPARSED},
        {"1000", "1,00,0", GRADE_UNPARSED},
        {"12", "1 2", GRADE_UNPARSED},
        {"123456789012345678901234567890", "123456789012345678901234567891", GRADE_DIFFERENT},
        {"123456789012345678901234567890", "+123456789012345678901234567890.0", GRADE_EQUAL},
        {"\\frac{1}{2}", "\\tfrac12", GRADE_EQUAL},
        {"\\frac{1}{2}", "0.5", GRADE_EQUAL},
        {"\\frac{1}{2}", ".5", GRADE_EQUAL},
        {"\\frac{2}{4}", "1/2", GRADE_EQUAL},
        {"\\frac{1}{2}", "2/1", GRADE_DIFFERENT},
        {"-\\frac{3}{4}", "\\frac{3}{-4}", GRADE_EQUAL},
        {"\\frac{-1}{-2}", "\\frac {1} {2}", GRADE_EQUAL},
        {"\\frac{1}{3}", "0.3333333333", GRADE_DIFFERENT},
        {"\\frac{7}{3}", "2\\frac{1}{3}", GRADE_EQUAL},
        {"-1.5", "-1\\frac{1}{2}", GRADE_EQUAL},
        {"1/0", "1/0", GRADE_EQUAL}, /* written alike */
        {"1", "1/0", GRADE_UNPARSED},
        {"\\left(\\frac{1}{2}\\right)", "$\\dfrac{1}{2}$", GRADE_EQUAL},
        {"{1}/{2}", "\\( 0.50 \\)", GRADE_EQUAL},
        {"\xe2\x88\x92"
         "5",
         "-5", GRADE_EQUAL},
        {"5", "\\$5", GRADE_EQUAL},
        {"5", "--5", GRADE_UNPARSED},
        {"5", "five", GRADE_UNPARSED},
        {"Monday", "Monday", GRADE_EQUAL},
        {"x+1", "x + 1", GRADE_EQUAL},
        {"x+1", "x+2", GRADE_UNPARSED},
        {"5", "", GRADE_UNPARSED},
        {"", "", GRADE_UNPARSED},
        {"1.2.3", "1.2.3", GRADE_EQUAL},
        {"1", "1.2.3", GRADE_UNPARSED},
        {"(1,2)", "(2,1)", GRADE_UNPARSED},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        enum grade g = answer_equal(span_of(rows[i].gold), span_of(rows[i].answer));
        enum grade back = answer_equal(span_of(rows[i].answer), span_of(rows[i].gold));
        if (g != rows[i].want || back != rows[i].want)
            fail_msg("%s ~ %s: %s, backwards %s", rows[i].gold, rows[i].answer, grade_name(g),
                     grade_name(back));
    }
}

static void whole_outputs(void **state)
{
    struct span a;
    (void)state;
    assert_int_equal(
        answer_grade(span_of("8"), span_of("<think>\n7\n</think>\n\nSo \\boxed{8}."), &a),
        GRADE_EQUAL);
    assert_true(span_is(a, "8"));
    assert_int_equal(answer_grade(span_of("\\boxed{8}"), span_of(" 8 "), &a), GRADE_EQUAL);
    assert_true(span_is(a, "8"));
    assert_int_equal(answer_grade(span_of("8"), span_of("<think> 8"), &a), GRADE_UNPARSED);
    assert_null(a.s);
    assert_int_equal(answer_grade(span_of("8"), span_of("it is 8"), &a), GRADE_UNPARSED);
    assert_true(span_is(a, "it is 8"));
}

/* Numbers as long as can be read are exact; longer ones are unreadable, not wrong. */
static void long_numbers(void **state)
{
    char a[2 * ANSWER_DIGITS + 16], b[2 * ANSWER_DIGITS + 16], deep[20000];
    (void)state;
    memset(a, '7', ANSWER_DIGITS);
    a[ANSWER_DIGITS] = '/';
    memset(a + ANSWER_DIGITS + 1, '3', ANSWER_DIGITS);
    a[2 * ANSWER_DIGITS + 1] = 0;
    assert_int_equal(answer_equal(span_of(a), span_of("7/3")), GRADE_EQUAL);
    memcpy(b, a, sizeof a);
    b[2 * ANSWER_DIGITS] = '4';
    assert_int_equal(answer_equal(span_of(a), span_of(b)), GRADE_DIFFERENT);
    memset(a, '7', ANSWER_DIGITS + 1);
    a[ANSWER_DIGITS + 1] = 0;
    assert_int_equal(answer_equal(span_of(a), span_of("7")), GRADE_UNPARSED);
    memset(deep, '{', sizeof deep - 1);
    deep[sizeof deep - 1] = 0;
    struct span out;
    assert_false(answer_boxed(span_of(deep), &out));
    memcpy(deep + 10000, "\\boxed{1}", 9); /* too deep to be followed is no box */
    assert_false(answer_boxed(span_of(deep), &out));
    memset(deep, '}', 10000);
    assert_true(answer_boxed(span_of(deep), &out));
    assert_true(span_is(out, "1"));
}

static void integers(void **state)
{
    long long x = 0;
    (void)state;
    assert_true(answer_int(span_of(" -1,234 "), &x));
    assert_int_equal(x, -1234);
    assert_false(answer_int(span_of("1.5"), &x));
    assert_false(answer_int(span_of("12345678901234567890"), &x));
    assert_false(answer_int(span_of(""), &x));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boxes),        cmocka_unit_test(values),   cmocka_unit_test(whole_outputs),
        cmocka_unit_test(long_numbers), cmocka_unit_test(integers),
    };
    return cmocka_run_group_tests_name("grade/answer", tests, NULL, NULL);
}
