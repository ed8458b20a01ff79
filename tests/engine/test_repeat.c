/* Loops are found, and soon; tables, boards, matrices and lists are not taken for loops. */
#include "engine/repeat.h"

#include "base/num.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Tokens are made of a text: each word with the blank before it, each digit, each other byte. */
static size_t token_end(const char *s, size_t n, size_t i)
{
    size_t k = i + (s[i] == ' ');
    size_t from = k;
    while (k < n && (((s[k] | 32) >= 'a' && (s[k] | 32) <= 'z') || (s[k] & 0x80)))
        k++;
    return k > from ? k : i + 1;
}

/* How many tokens of the text were read when the loop was found; 0: none was. */
static size_t feed(struct repeat *r, const char *s, size_t *tokens)
{
    size_t n = strlen(s);
    for (size_t i = 0; i < n;) {
        size_t k = token_end(s, n, i);
        int32_t id = 0;
        for (size_t j = i; j < k; j++)
            id = (id * 31 + (unsigned char)s[j]) & 0xffffff;
        ++*tokens;
        if (repeat_next(r, id, s + i, k - i))
            return *tokens;
        i = k;
    }
    return 0;
}

/* The text `times` times, then `last`. */
static size_t feed_times(const char *text, size_t times, const char *last)
{
    struct repeat r;
    size_t tokens = 0, at = 0;
    repeat_init(&r);
    for (size_t i = 0; i < times && !at; i++)
        at = feed(&r, text, &tokens);
    return at ? at : feed(&r, last, &tokens);
}

static const char paragraph[] =
    "Wait, let me check that again. The train leaves at nine and arrives at noon, so it travels "
    "for three hours. Its speed is sixty miles an hour, so the distance is one hundred and eighty "
    "miles. But the problem says that it stops on the way for half an hour, hmm. So I have to take "
    "that away: two hours and a half, which makes one hundred and fifty miles. Is that right? ";

static void loops_are_found(void **state)
{
    static const char *const loops[] = {
        "wait ",
        "Wait, no. ",
        "\xe7\xad\x89\xe4\xb8\x80\xe4\xb8\x8b ", /* Chinese */
        "So the answer is 4. But wait, is it 4? ",
        paragraph,
    };
    for (size_t i = 0; i < NUM_COUNT(loops); i++) {
        struct repeat r;
        size_t period = 0;
        repeat_init(&r);
        feed(&r, loops[i], &period);
        size_t at = feed_times(loops[i], 10000, "");
        assert_true(at > 0);
        /* as soon as there are four copies and enough of them */
        size_t want = period + num_max(REPEAT_WORDS, 3 * period);
        assert_in_range(at, want - 4, want + 4);
    }
    /* Signs alone: later, but they are found. */
    assert_in_range(feed_times("!", 100000, ""), REPEAT_SIGNS, REPEAT_SIGNS + 2);
    assert_true(feed_times("| 0 | 0 | 0 |\n", 100000, "") > REPEAT_SIGNS);
}

static void a_loop_is_found_behind_other_text(void **state)
{
    struct repeat r;
    char line[64];
    size_t tokens = 0;
    repeat_init(&r);
    for (int i = 0; i < 2000; i++) {
        snprintf(line, sizeof line, "Case %d gives %d. ", i, i * 7919 % 1000);
        assert_int_equal(feed(&r, line, &tokens), 0);
    }
    size_t before = tokens, at = 0;
    for (int i = 0; i < 1000 && !at; i++)
        at = feed(&r, "Hmm, so what now? ", &tokens);
    assert_in_range(at - before, REPEAT_WORDS, REPEAT_WORDS + 40);
}

static void honest_repetition_is_left_alone(void **state)
{
    assert_int_equal(feed_times("-", 200, " end"), 0);
    assert_int_equal(feed_times("|---|---|---|---|\n", 3, "| a | b |"), 0);
    assert_int_equal(feed_times("| . | . | . | . | . | . | . | . | . |\n", 9, ""), 0);
    assert_int_equal(feed_times("0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n", 20, ""), 0);
    assert_int_equal(feed_times("| yes | no | yes |\n", 20, ""), 0);
    assert_int_equal(feed_times("True, ", 100, ""), 0);
    assert_int_equal(feed_times(paragraph, 3, "And so on."), 0);
    /* frames of tables are signs */
    assert_int_equal(feed_times("\xe2\x94\x80", 1000, ""), 0);

    struct repeat r;
    char line[64];
    size_t tokens = 0;
    repeat_init(&r);
    for (int i = 0; i < 3000; i++) { /* a list that counts */
        snprintf(line, sizeof line, "%d, ", i);
        assert_int_equal(feed(&r, line, &tokens), 0);
    }
    repeat_init(&r);
    for (int i = 0; i < 3000; i++) { /* steps of the same form */
        snprintf(line, sizeof line, "Step %d: add %d to the sum, which is now %d.\n", i, i,
                 i * (i + 1) / 2);
        assert_int_equal(feed(&r, line, &tokens), 0);
    }
}

/* The counters against their definition, for random texts of few different tokens. */
static void counters_are_what_they_say(void **state)
{
    enum { N = 3000 };
    static int32_t id[N];
    static struct repeat r;
    struct rng rng;
    rng_init(&rng, 5, 0);
    repeat_init(&r);
    for (size_t i = 0; i < N; i++) {
        id[i] = i % 700 > 350 && i >= 37 ? id[i - 37] : (int32_t)(rng_u32(&rng) % 3);
        repeat_next(&r, id[i], " ", 1);
        for (size_t p = 1; i % 61 == 0 && p <= REPEAT_PERIOD; p++) {
            size_t same = 0;
            while (same + p <= i && id[i - same] == id[i - same - p])
                same++;
            assert_int_equal(r.same[REPEAT_PERIOD - p], same);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loops_are_found),
        cmocka_unit_test(a_loop_is_found_behind_other_text),
        cmocka_unit_test(honest_repetition_is_left_alone),
        cmocka_unit_test(counters_are_what_they_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
