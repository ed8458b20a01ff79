#include "base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* s with what is not UTF-8 replaced, "." instead of U+FFFD so that the table below is readable. */
static void lossy(const char *s, size_t n, char *out)
{
    size_t w = 0;
    while (n) {
        uint32_t cp;
        bool bad;
        size_t used = utf8_next(s, n, &cp, &bad);
        assert_in_range(used, 1, n);
        if (bad) {
            assert_int_equal(cp, 0xfffd);
            out[w++] = '.';
        } else {
            assert_true(utf8_valid(s, used));
            memcpy(out + w, s, used);
            w += used;
        }
        s += used;
        n -= used;
    }
    out[w] = 0;
}

#define CASE(in, out)          \
    {                          \
        in, sizeof in - 1, out \
    }
static const struct {
    const char *in;
    size_t n;
    const char *out;
} cases[] = {
    CASE("", ""),
    CASE("a\0b", "a"), /* NUL is a character; strings end for the comparison */
    CASE("h\xc3\xa9!", "h\xc3\xa9!"),
    CASE("\xff", "."),
    CASE("\x80", "."),
    CASE("\xbf\xbf", ".."),
    CASE("\xc0\x80", ".."), /* overlong NUL */
    CASE("\xc1\xbf", ".."), /* overlong */
    CASE("\xc2", "."),      /* cut off */
    CASE("\xc2x", ".x"),    /* the next character survives */
    CASE("\xc2\xc2\xa0", ".\xc2\xa0"),
    CASE("\xe0\x80\x80", "..."), /* overlong: the second byte is already impossible */
    CASE("\xe0\x9f\xbf", "..."),
    CASE("\xe0\xa0\x80", "\xe0\xa0\x80"), /* U+0800 */
    CASE("\xe0\xa0", "."),                /* a maximal subpart of two bytes */
    CASE("\xe2\x82x", ".x"),
    CASE("\xed\x9f\xbf", "\xed\x9f\xbf"), /* U+D7FF */
    CASE("\xed\xa0\x80", "..."),          /* surrogates */
    CASE("\xed\xbf\xbf", "..."),
    CASE("\xee\x80\x80", "\xee\x80\x80"),         /* U+E000 */
    CASE("\xef\xbf\xbf", "\xef\xbf\xbf"),         /* noncharacters are characters here */
    CASE("\xf0\x8f\xbf\xbf", "...."),             /* overlong */
    CASE("\xf0\x90\x80\x80", "\xf0\x90\x80\x80"), /* U+10000 */
    CASE("\xf0\x9f\x98", "."),
    CASE("\xf0\x9f\x98z", ".z"),
    CASE("\xf0\x9f\xf0\x9f\x98\x80", ".\xf0\x9f\x98\x80"),
    CASE("\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"), /* U+10FFFF */
    CASE("\xf4\x90\x80\x80", "...."),             /* one more */
    CASE("\xf5\x80\x80\x80", "...."),
    CASE("\xf8\x88\x80\x80\x80", "....."),
    CASE("\xfe\xff", ".."),
    /* the example of the Unicode standard, table 3-8 */
    CASE("a\xf1\x80\x80\xe1\x80\xc2"
         "b\x80"
         "c\x80\xbf"
         "d",
         "a...b.c..d"),
};

static void bad_bytes_are_replaced_by_maximal_subparts(void **state)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        /* an exact copy on the heap: a read beyond it is seen by AddressSanitizer */
        char *in = malloc(cases[i].n ? cases[i].n : 1), out[32];
        assert_non_null(in);
        memcpy(in, cases[i].in, cases[i].n);
        lossy(in, cases[i].n, out);
        assert_string_equal(out, cases[i].out);
        assert_int_equal(utf8_valid(in, cases[i].n), strchr(cases[i].out, '.') == NULL);
        free(in);
    }
}

static void every_character_survives_a_round_trip(void **state)
{
    for (uint32_t cp = 0; cp <= 0x110010; cp++) {
        char s[4];
        uint32_t back = 0;
        bool bad = true;
        size_t n = utf8_put(s, cp);
        bool replaced = cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000);
        if (utf8_next(s, n, &back, &bad) != n || bad || back != (replaced ? 0xfffd : cp))
            fail_msg("U+%04X comes back as U+%04X", cp, back);
        for (size_t k = 1; k < n; k++) /* every cut of it is incomplete, and as long as it is */
            if (utf8_incomplete(s, k) != k || utf8_next(s, k, &back, &bad) != k || !bad)
                fail_msg("U+%04X cut to %zu bytes", cp, k);
        if (utf8_incomplete(s, n) != 0)
            fail_msg("U+%04X is whole", cp);
    }
}

/* Against the definition: a tail is incomplete if some continuation makes it valid. */
static bool can_be_completed(const char *s, size_t n)
{
    static const char next[] = {(char)0x80, (char)0x90, (char)0xa0, (char)0xbf};
    char t[8];
    memcpy(t, s, n);
    for (unsigned i = 0; i < 64; i++) {
        t[n] = next[i % 4];
        t[n + 1] = next[i / 4 % 4];
        t[n + 2] = next[i / 16];
        for (size_t more = 1; more <= 3; more++) {
            uint32_t cp;
            bool bad;
            if (utf8_next(t, n + more, &cp, &bad) == n + more && !bad)
                return true;
        }
    }
    return false;
}

static void incomplete_tails_are_those_that_can_be_completed(void **state)
{
    static const unsigned char bytes[] = {0x00, 'a',  0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                          0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                          0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
    enum { N = sizeof bytes };
    for (size_t i = 0; i < N * N * N; i++) {
        char s[3] = {(char)bytes[i % N], (char)bytes[i / N % N], (char)bytes[i / N / N]};
        size_t want = 0;
        for (size_t k = 3; k >= 1 && !want; k--)
            want = can_be_completed(s + 3 - k, k) ? k : 0;
        assert_int_equal(utf8_incomplete(s, 3), want);
    }
    assert_int_equal(utf8_incomplete("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_bytes_are_replaced_by_maximal_subparts),
        cmocka_unit_test(every_character_survives_a_round_trip),
        cmocka_unit_test(incomplete_tails_are_those_that_can_be_completed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
