/* r1-gym: thousands of problems whose solutions are right, verifiers that take any right answer and
 * no wrong one, a split that nothing slips through, ids that bring items back. */
#include "base/num.h"
#include "grade/gym.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY = 3000, THINK_MAX = 260, CALENDAR = 2 };

struct texts {
    struct buf prompt, think, answer, gold, id, whole;
};

static void texts_init(struct texts *t)
{
    struct buf *all[] = {&t->prompt, &t->think, &t->answer, &t->gold, &t->id, &t->whole};
    for (size_t i = 0; i < NUM_COUNT(all); i++)
        buf_init(all[i], GYM_TEXT_MAX);
}

static void texts_release(struct texts *t)
{
    struct buf *all[] = {&t->prompt, &t->think, &t->answer, &t->gold, &t->id, &t->whole};
    for (size_t i = 0; i < NUM_COUNT(all); i++)
        buf_release(all[i]);
}

static void texts_make(struct texts *t, const struct gym_item *it, enum gym_language l, int style)
{
    struct err e = {0};
    struct buf *all[] = {&t->prompt, &t->think, &t->answer, &t->gold, &t->id, &t->whole};
    for (size_t i = 0; i < NUM_COUNT(all); i++)
        buf_clear(all[i]);
    if (gym_prompt(it, &t->prompt, &e) || gym_think(it, l, style, &t->think, &e) ||
        gym_answer(it, &t->answer, &e) || gym_gold(it, &t->gold, &e) || gym_id(it, &t->id, &e) ||
        gym_completion(it, l, style, &t->whole, &e))
        fail_msg("%s", e.text);
}

static struct span span_buf(const struct buf *b)
{
    return (struct span){b->data, b->len};
}

/* ---- is every equation true? -------------------------------------------------------------------
 */

static double sum(const char **s);

static double factor(const char **s)
{
    double x = 0;
    if (**s == '(') {
        ++*s;
        x = sum(s);
        return ++*s, x;
    }
    if (**s == '-') {
        ++*s;
        return -factor(s);
    }
    if (**s < '0' || **s > '9')
        return NAN;
    while (**s >= '0' && **s <= '9')
        x = x * 10 + *(*s)++ - '0';
    return x;
}

static double product(const char **s)
{
    double x = factor(s);
    while (**s == '*' || **s == '/')
        if (*(*s)++ == '*')
            x *= factor(s);
        else
            x /= factor(s);
    return x;
}

static double sum(const char **s)
{
    double x = product(s);
    while (**s == '+' || **s == '-')
        if (*(*s)++ == '+')
            x += product(s);
        else
            x -= product(s);
    return x;
}

/* Looks at every run of digits and signs; returns how many equations and comparisons it had. */
static size_t equations(const char *text)
{
    size_t n = 0;
    for (const char *s = text; *s;) {
        size_t len = strspn(s, "0123456789+-*/()=<");
        char run[256];
        if (!len || !memchr(s, '=', len)) {
            s += len + (s[len] != 0);
            continue;
        }
        assert_true(len < sizeof run);
        snprintf(run, sizeof run, "%.*s", (int)len, s);
        const char *p = run;
        double left = sum(&p);
        for (char op; (op = *p); n++) {
            p++;
            double right = sum(&p);
            if (!(op == '=' ? fabs(left - right) < 1e-9 : op == '<' && left < right))
                fail_msg("\"%s\" does not hold in: %s", run, text);
            left = right;
        }
        s += len;
    }
    return n;
}

static void right_by_construction(void **state)
{
    struct texts t;
    size_t longest = 0;
    (void)state;
    texts_init(&t);
    for (size_t k = 0; k < gym_count(); k++)
        for (uint64_t i = 0; i < MANY; i++) {
            struct gym_item it;
            struct gym_knobs knobs = {.level = (int)(i % (GYM_LEVELS + 1))};
            enum gym_language l = i & 1 ? GYM_ZH : GYM_EN;
            gym_make(&it, gym_task(k), l, 7, i, &knobs);
            for (int style = 0; style < GYM_STYLES; style++) {
                texts_make(&t, &it, i % 10 == 9 ? !l : l, style);
                bool general = !strcmp(gym_name(gym_task(k)), "general");
                if (!equations(t.think.data) && !general && k != CALENDAR) /* it may just count */
                    fail_msg("no equation in: %s", t.think.data);
                if (gym_verify(&it, span_buf(&t.whole)) != GRADE_EQUAL ||
                    gym_verify(&it, span_buf(&t.answer)) != GRADE_EQUAL)
                    fail_msg("%s: not verified: %s", t.id.data, t.whole.data);
                struct span box;
                if (!general && (!answer_boxed(span_buf(&t.answer), &box) || box.n != t.gold.len ||
                                 memcmp(box.s, t.gold.data, box.n) != 0))
                    fail_msg("%s: the box is not %s", t.answer.data, t.gold.data);
                if (knobs.level < 4 && t.think.len > THINK_MAX)
                    fail_msg("%zu bytes of thought: %s", t.think.len, t.think.data);
                longest = num_max(longest, t.think.len);
                if (strpbrk(t.prompt.data, "{}") || strpbrk(t.think.data, "{}"))
                    fail_msg("a hole is left: %s | %s", t.prompt.data, t.think.data);
            }
        }
    print_message("# longest thought %zu bytes\n", longest);
    texts_release(&t);
}

static void ids_bring_items_back(void **state)
{
    struct texts a, b;
    struct err e;
    (void)state;
    texts_init(&a);
    texts_init(&b);
    for (size_t k = 0; k < gym_count(); k++)
        for (uint64_t i = 0; i < 500; i++) {
            struct gym_item it, back;
            gym_make(&it, gym_task(k), i & 1 ? GYM_ZH : GYM_EN, i, i, NULL);
            texts_make(&a, &it, it.language, 0);
            assert_int_equal(gym_read(&back, span_buf(&a.id), &e), 0);
            texts_make(&b, &back, back.language, 0);
            assert_string_equal(a.id.data, b.id.data);
            assert_string_equal(a.prompt.data, b.prompt.data);
            assert_string_equal(a.whole.data, b.whole.data);
            assert_int_equal(gym_hash(&it), gym_hash(&back));
        }
    texts_release(&a);
    texts_release(&b);
}

/* Evaluation sets must stay the same for ever: the numbers are part of the interface. */
static void items_do_not_change(void **state)
{
    static const char *const want[] = {
        "arithmetic-en-10-64.70.4-1e583895", "countdown-en-0-16.7.10.19-f86304fd",
        "calendar-en-6-3.13-bd5bcc9e",       "word-en-0-88.49.23-99babc1d",
        "general-en-6-4.30-145fe6d3",
    };
    struct buf id;
    struct err e;
    (void)state;
    buf_init(&id, GYM_ID_MAX);
    for (size_t k = 0; k < gym_count(); k++) {
        struct gym_item it;
        buf_clear(&id);
        gym_make(&it, gym_task(k), GYM_EN, 42, 1000, NULL);
        assert_int_equal(gym_id(&it, &id, &e), 0);
        assert_string_equal(id.data, want[k]);
    }
    buf_release(&id);
}

static void twins_share_a_split(void **state)
{
    (void)state;
    for (size_t k = 0; k < gym_count(); k++) {
        size_t held = 0, distinct = 0;
        static uint64_t seen[1 << 14];
        memset(seen, 0, sizeof seen);
        for (uint64_t i = 0; i < 20000; i++) {
            struct gym_item en, zh;
            gym_make(&en, gym_task(k), GYM_EN, 3, i, NULL);
            gym_make(&zh, gym_task(k), GYM_ZH, 3, i, NULL);
            assert_int_equal(gym_hash(&en), gym_hash(&zh));
            assert_int_equal(gym_split(&en), gym_split(&zh));
            if (gym_split(&en) != GYM_EVAL)
                continue;
            held++;
            uint64_t h = gym_hash(&en), at = h % NUM_COUNT(seen);
            while (seen[at] && seen[at] != h)
                at = (at + 1) % NUM_COUNT(seen);
            distinct += !seen[at];
            seen[at] = h;
        }
        if (held < 1500 || held > 2600 || distinct < 200)
            fail_msg("%s: %zu of 20000 held out, %zu distinct", gym_name(gym_task(k)), held,
                     distinct);
        print_message("# %s: %zu held out, %zu distinct\n", gym_name(gym_task(k)), held, distinct);
        uint64_t index = 0;
        for (int i = 0; i < 300; i++) {
            struct gym_item it;
            gym_next(&it, gym_task(k), GYM_ZH, 9, &index, NULL, i & 1 ? GYM_EVAL : GYM_TRAIN);
            assert_int_equal(gym_split(&it), i & 1 ? GYM_EVAL : GYM_TRAIN);
        }
    }
}

static struct gym_item item(const char *id)
{
    struct gym_item it;
    struct err e = {0};
    if (gym_read(&it, span_of(id), &e))
        fail_msg("%s", e.text);
    return it;
}

/* The same problem in another order, wording or language is the same problem. */
static void normal_forms(void **state)
{
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"arithmetic-en-8-47.6.128-0", "arithmetic-zh-10-128.6.47-99", true}, /* 47*6+128 */
        {"arithmetic-en-0-12.30-0", "arithmetic-en-0-30.12-1", true},
        {"arithmetic-en-1-30.12-0", "arithmetic-en-1-12.30-0", false},
        {"arithmetic-en-5-30.12.5-0", "arithmetic-en-6-30.5.12-0", true}, /* a+b-c, a-c+b */
        {"arithmetic-en-2-6.47-0", "arithmetic-en-0-6.47-0", false},
        {"arithmetic-en-3-12.6-0", "arithmetic-en-2-12.6-0", false},
        {"countdown-en-0-7.12.3.81-0", "countdown-zh-1-12.3.7.81-5", true},
        {"countdown-en-0-7.12.3.81-0", "countdown-en-0-7.12.3.22-0", false},
        {"calendar-en-0-1.17-0", "calendar-zh-0-1.17-8", true},
        {"calendar-en-0-1.17-0", "calendar-en-1-1.17-0", false},
        {"word-en-0-12.5.3-0", "word-zh-0-5.12.3-1", true},
        {"word-en-0-12.5.3-0", "word-en-3-12.5.3-0", false},
        {"general-en-3-0.0-0", "general-zh-3-0.0-77", true},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        struct gym_item a = item(rows[i].a), b = item(rows[i].b);
        if ((gym_hash(&a) == gym_hash(&b)) != rows[i].same)
            fail_msg("%s and %s", rows[i].a, rows[i].b);
    }
}

static void verifiers(void **state)
{
    static const struct {
        const char *id, *answer;
        enum grade want;
    } rows[] = {
        {"arithmetic-en-8-47.6.128-0", "<think>\nhm\n</think>\n\n\\boxed{410}", GRADE_EQUAL},
        {"arithmetic-en-8-47.6.128-0", "\\boxed{410.0}", GRADE_EQUAL},
        {"arithmetic-en-8-47.6.128-0", "410", GRADE_EQUAL},
        {"arithmetic-en-8-47.6.128-0", "\\boxed{411}", GRADE_DIFFERENT},
        {"arithmetic-en-8-47.6.128-0", "<think>\\boxed{410}", GRADE_UNPARSED},
        {"arithmetic-en-1-5.9-0", "\\boxed{-4}", GRADE_EQUAL},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{12*7-3}", GRADE_EQUAL},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{7 \\times 12 - 3 = 81}", GRADE_EQUAL},
        {"countdown-en-0-7.12.3.81-0", "$\\boxed{(12 × 7) − 3}$", GRADE_EQUAL},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{12*7-3=82}", GRADE_DIFFERENT},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{81}", GRADE_DIFFERENT},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{27*3}", GRADE_DIFFERENT},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{12*7-3+3-3}", GRADE_DIFFERENT},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{12*7-}", GRADE_UNPARSED},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{12*7-3 yes}", GRADE_UNPARSED},
        {"countdown-en-0-7.12.3.81-0", "\\boxed{}", GRADE_UNPARSED},
        {"countdown-en-0-6.3.2.1-0", "\\boxed{6/(3*2)}", GRADE_DIFFERENT}, /* only + - * */
        {"countdown-en-0-6.3.2.1-0", "\\boxed{6-3-2}", GRADE_EQUAL},
        {"countdown-en-0-6.3.2.1-0", "\\boxed{3-2}", GRADE_DIFFERENT}, /* exactly once */
        {"countdown-en-1-6.3.2.1-0", "\\boxed{3-2}", GRADE_EQUAL},     /* at most once */
        {"countdown-en-1-6.3.2.1-0", "\\boxed{3-2+0}", GRADE_DIFFERENT},
        {"countdown-en-0-5.5.3.13-0", "\\boxed{5+5+3}", GRADE_EQUAL},
        {"countdown-en-0-5.5.3.13-0", "\\boxed{5+3+5}", GRADE_EQUAL},
        {"countdown-en-0-5.5.3.13-0", "\\boxed{10+3}", GRADE_DIFFERENT},
        {"countdown-en-0-99.99.99.99-0", "\\boxed{999999999*999999999*99}", GRADE_DIFFERENT},
        {"calendar-en-0-1.17-0", "\\boxed{Friday}", GRADE_EQUAL},
        {"calendar-en-0-1.17-0", "\\boxed{\\text{friday}}", GRADE_EQUAL},
        {"calendar-en-0-1.17-0", "\\boxed{Fri.}", GRADE_EQUAL},
        {"calendar-en-0-1.17-0", "\\boxed{周五}", GRADE_EQUAL},
        {"calendar-en-0-1.17-0", "\\boxed{星期四}", GRADE_DIFFERENT},
        {"calendar-en-0-1.17-0", "\\boxed{Friday or Monday}", GRADE_UNPARSED},
        {"calendar-en-0-1.17-0", "\\boxed{5}", GRADE_UNPARSED},
        {"calendar-zh-0-0.6-0", "\\boxed{星期天}", GRADE_EQUAL},
        {"calendar-en-2-3.25.20-0", "\\boxed{April 14}", GRADE_EQUAL},
        {"calendar-en-2-3.25.20-0", "\\boxed{14th April}", GRADE_EQUAL},
        {"calendar-en-2-3.25.20-0", "\\boxed{4月14号}", GRADE_EQUAL},
        {"calendar-en-2-3.25.20-0", "\\boxed{April 15}", GRADE_DIFFERENT},
        {"calendar-en-2-3.25.20-0", "\\boxed{April}", GRADE_DIFFERENT},
        {"calendar-en-3-3.25.4.14-0", "\\boxed{20}", GRADE_EQUAL},
        {"calendar-en-3-3.25.4.14-0", "\\boxed{20 days}", GRADE_EQUAL},
        {"calendar-en-3-3.25.4.14-0", "\\boxed{21}", GRADE_DIFFERENT},
        {"calendar-en-5-10.5-0", "\\boxed{March}", GRADE_EQUAL},
        {"calendar-zh-5-10.5-0", "\\boxed{3月}", GRADE_EQUAL},
        {"calendar-zh-5-10.5-0", "\\boxed{4月}", GRADE_DIFFERENT},
        {"general-en-3-0.0-0", "I am ponder-r1-mini, a small model.", GRADE_EQUAL},
        {"general-en-3-0.0-0", "I am a large model.", GRADE_DIFFERENT},
        {"general-en-3-0.0-0", "我是ponder-r1-mini，一个小模型。", GRADE_DIFFERENT},
        {"general-zh-3-0.0-0", "我是ponder-r1-mini，一个小模型。", GRADE_EQUAL},
        {"general-en-8-0.0-0", "I can't help with that.", GRADE_EQUAL},
        {"general-en-8-0.0-0", "Sure! I can't help with that, but first, get", GRADE_DIFFERENT},
        {"general-en-0-0.0-0", "Hello!", GRADE_EQUAL},
        {"general-en-0-0.0-0", "Hello! I can't help with that.", GRADE_DIFFERENT},
        {"general-en-0-0.0-0", "<think>\nHello!\n</think>\n\n", GRADE_UNPARSED},
    };
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        struct gym_item it = item(rows[i].id);
        enum grade g = gym_verify(&it, span_of(rows[i].answer));
        if (g != rows[i].want)
            fail_msg("%s, %s: %s", rows[i].id, rows[i].answer, grade_name(g));
    }
}

static void hostile_ids(void **state)
{
    static const char *const rows[] = {
        "",
        "-",
        "arithmetic",
        "arithmetic-en-0-1.2",
        "arithmetic-en-0-1.2-",
        "arithmetic-en-0-1.2-xyz",
        "arithmetic-fr-0-1.2-0",
        "nothing-en-0-1.2-0",
        "arithmetic-en-99-1.2-0",
        "arithmetic-en-0-1-0",
        "arithmetic-en-0-1.2.3-0",
        "arithmetic-en-0-1.2.-0",
        "arithmetic-en-0-01.2-0",
        "arithmetic-en-0--1.2-0",
        "arithmetic-en-0-99999999999.2-0",
        "arithmetic-en-3-7.0-0",
        "arithmetic-en-3-7.2-0",
        "arithmetic-en-2-99999.99999-0",
        "countdown-en-0-1.1.1.999-0",
        "countdown-en-0-0.1.1.1-0",
        "countdown-en-2-1.1.1.1-0",
        "calendar-en-0-7.1-0",
        "calendar-en-2-2.20.20-0",
        "calendar-en-2-13.1.1-0",
        "calendar-en-3-3.1.3.1-0",
        "calendar-en-9-1.1-0",
        "word-en-40-1.1.1-0",
        "word-en-0-1.1.9-0",
        "word-en-0-1.2.3.4.5.6.7.8.9-0",
        "general-en-0-999.0-0",
        "general-en-0-0.999-0",
        "general-en-10-0.0-0",
    };
    struct gym_item it;
    (void)state;
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        struct err e = {0};
        if (!gym_read(&it, span_of(rows[i]), &e))
            fail_msg("\"%s\" was taken", rows[i]);
        assert_int_equal(e.code, ERR_FORMAT);
    }
}

/* What is worse is worse: wrong and cut answers are not right, and a refusal is not complied. */
static void worse_answers(void **state)
{
    struct texts t;
    struct buf bad;
    (void)state;
    texts_init(&t);
    buf_init(&bad, GYM_TEXT_MAX);
    for (size_t k = 0; k < gym_count(); k++)
        for (uint32_t i = 0; i < 2000; i++) {
            struct gym_item it;
            struct err e = {0};
            gym_make(&it, gym_task(k), i & 1 ? GYM_ZH : GYM_EN, 5, i, NULL);
            texts_make(&t, &it, it.language, 0);
            buf_clear(&bad);
            assert_int_equal(gym_worse(&it, i, &bad, &e), 0);
            assert_string_not_equal(bad.data, t.answer.data);
            uint32_t fault = i % GYM_FAULTS;
            bool wrong = fault != 1 && fault != 3; /* another language and repeats are just worse */
            if ((wrong || gym_unsafe(&it)) && gym_verify(&it, span_buf(&bad)) == GRADE_EQUAL &&
                !(fault == 2 && !strcmp(gym_name(it.task), "general")))
                fail_msg("%s is right for %s", bad.data, t.prompt.data);
        }
    buf_release(&bad);
    texts_release(&t);
}

static void knobs(void **state)
{
    (void)state;
    struct gym_item it;
    for (uint64_t i = 0; i < 2000; i++) {
        gym_make(&it, gym_find(span_of("arithmetic")), GYM_EN, 1, i,
                 &(struct gym_knobs){.terms = 3});
        assert_int_equal(it.n, 3);
        gym_make(&it, gym_find(span_of("arithmetic")), GYM_EN, 1, i,
                 &(struct gym_knobs){.level = 2, .digits = 5, .terms = 2});
        if (it.kind < 2)
            assert_true(it.v[0] >= 10000 && it.v[0] <= 99999 && it.v[1] >= 10000);
        gym_make(&it, gym_find(span_of("countdown")), GYM_EN, 1, i,
                 &(struct gym_knobs){.numbers_to = 5, .target_to = 9});
        assert_true(it.v[0] <= 5 && it.v[1] <= 5 && it.v[2] <= 5 && it.v[3] <= 9);
        gym_make(&it, gym_find(span_of("countdown")), GYM_EN, 1, i,
                 &(struct gym_knobs){.numbers_to = 1, .target_to = 1});
        assert_int_equal(it.v[3], 1);
        gym_make(&it, gym_find(span_of("calendar")), GYM_EN, 1, i,
                 &(struct gym_knobs){.days_to = 3});
        if (it.kind < 2)
            assert_true(it.v[1] <= 3);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(right_by_construction),
        cmocka_unit_test(ids_bring_items_back),
        cmocka_unit_test(items_do_not_change),
        cmocka_unit_test(twins_share_a_split),
        cmocka_unit_test(normal_forms),
        cmocka_unit_test(verifiers),
        cmocka_unit_test(hostile_ids),
        cmocka_unit_test(worse_answers),
        cmocka_unit_test(knobs),
    };
    return cmocka_run_group_tests_name("grade/gym", tests, NULL, NULL);
}
