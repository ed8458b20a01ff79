/*
 * The fast ways of the tokenizer against slow ones that are plainly right: merging of long pieces,
 * normal forms; and hostile texts of a quarter megabyte, which must take time in proportion to
 * their length.
 */
#include "base/clock.h"
#include "support/golden.h"
#include "text/bpe.h"
#include "text/normalize.h"
#include "text/pretok.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include <cmocka.h>

static uint32_t next(uint32_t *x)
{
    *x = *x * 1664525 + 1013904223;
    return *x >> 8;
}

/* ---- merging ----------------------------------------------------------------------------------
 */

enum { LETTERS = 3, TOKENS = 600, LIST = 900, PIECE = 300 };

/* A random vocabulary over a, b, c, and merges in any order (not as training makes them). */
struct toy {
    struct arena arena;
    struct vocab v;
    struct bpe b;
    int32_t left[LIST], right[LIST], result[LIST];
    int merges;
};

static void toy_new(struct toy *y, uint32_t seed)
{
    struct err e;
    char text[TOKENS][40];
    int n = LETTERS;
    arena_init(&y->arena, 1 << 24);
    assert_int_equal(vocab_init(&y->v, &y->arena, TOKENS, &e), 0);
    for (int i = 0; i < LETTERS; i++) {
        text[i][0] = (char)('a' + i);
        text[i][1] = 0;
    }
    y->merges = 0;
    while (n < TOKENS && y->merges < LIST) {
        int l = (int)(next(&seed) % (uint32_t)n), r = (int)(next(&seed) % (uint32_t)n), k;
        char joined[80];
        strcpy(joined, text[l]);
        strcat(joined, text[r]);
        if (strlen(joined) > 12)
            continue;
        for (k = 0; k < n && strcmp(text[k], joined) != 0; k++)
            ;
        if (k == n)
            strcpy(text[n++], joined);
        for (int i = 0; i < y->merges; i++)
            if (y->left[i] == l && y->right[i] == r)
                k = -1;
        if (k < 0)
            continue;
        y->left[y->merges] = l;
        y->right[y->merges] = r;
        y->result[y->merges++] = k;
    }
    for (int i = 0; i < n; i++)
        assert_int_equal(vocab_set_level(&y->v, i, text[i], strlen(text[i]), &e), 0);
    vocab_index(&y->v);
    assert_int_equal(bpe_init(&y->b, &y->v, &y->arena, (size_t)y->merges, &e), 0);
    for (int i = y->merges - 1; i > 0; i--) { /* shuffled */
        int k = (int)(next(&seed) % (uint32_t)(i + 1)), t;
        t = y->left[i], y->left[i] = y->left[k], y->left[k] = t;
        t = y->right[i], y->right[i] = y->right[k], y->right[k] = t;
        t = y->result[i], y->result[i] = y->result[k], y->result[k] = t;
    }
    for (int i = 0; i < y->merges; i++) {
        const char *l = text[y->left[i]], *r = text[y->right[i]];
        assert_int_equal(bpe_merge(&y->b, l, strlen(l), r, strlen(r), &e), 0);
    }
    assert_int_equal(bpe_finish(&y->b, &e), 0);
}

/* The definition: again and again the lowest rank, leftmost. */
static size_t slow(const struct toy *y, const char *s, size_t n, int32_t *id)
{
    for (size_t i = 0; i < n; i++)
        id[i] = s[i] - 'a';
    for (;;) {
        int best = y->merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++)
            for (int m = 0; m < best; m++)
                if (y->left[m] == id[i] && y->right[m] == id[i + 1]) {
                    best = m;
                    at = i;
                }
        if (best == y->merges)
            return n;
        id[at] = y->result[best];
        memmove(id + at + 1, id + at + 2, (n - at - 2) * sizeof *id);
        n--;
    }
}

static void test_merging_is_by_the_definition(void **state)
{
    struct toy *y = malloc(sizeof *y);
    for (uint32_t seed = 1; seed <= 6; seed++) {
        struct bpe_work w = {0};
        uint32_t x = seed * 77;
        toy_new(y, seed);
        for (size_t n = 1; n < PIECE; n += 1 + n / 16) {
            char s[PIECE];
            int32_t want[PIECE];
            struct ids got;
            struct err e;
            for (size_t i = 0; i < n; i++)
                s[i] = (char)('a' + next(&x) % (n % 3 ? LETTERS : 1 + n % 2));
            size_t k = slow(y, s, n, want);
            ids_init(&got, PIECE);
            assert_int_equal(bpe_encode(&y->b, &w, s, n, &got, &e), 0);
            assert_int_equal(got.n, k);
            assert_memory_equal(got.v, want, k * sizeof *want);
            ids_release(&got);
        }
        bpe_work_release(&w);
        arena_release(&y->arena);
    }
    free(y);
}

/* Pieces that differ in one byte or in their length are told apart, however many came before. */
static void test_known_pieces_are_told_apart(void **state)
{
    struct toy *y = malloc(sizeof *y);
    struct bpe_work w = {0};
    uint32_t x = 5;
    char s[48] = "";
    size_t n = 20;
    toy_new(y, 3);
    for (int round = 0; round < 30000; round++) {
        struct bpe_work fresh = {0};
        struct ids got, want;
        struct err e;
        n = next(&x) % 8 ? n : 1 + next(&x) % sizeof s;
        for (size_t i = 0; i < sizeof s; i++)
            if (!s[i] || next(&x) % 64 == 0)
                s[i] = (char)('a' + next(&x) % LETTERS);
        ids_init(&got, sizeof s);
        ids_init(&want, sizeof s);
        assert_int_equal(bpe_encode(&y->b, &fresh, s, n, &want, &e), 0);
        for (int again = 0; again < 2; again++) {
            got.n = 0;
            assert_int_equal(bpe_encode(&y->b, &w, s, n, &got, &e), 0);
            assert_int_equal(got.n, want.n);
            assert_memory_equal(got.v, want.v, got.n * sizeof *got.v);
        }
        ids_release(&got);
        ids_release(&want);
        bpe_work_release(&fresh);
    }
    bpe_work_release(&w);
    arena_release(&y->arena);
    free(y);
}

/* ---- normal forms -------------------------------------------------------------------------------
 */

static const struct {
    enum normal_form form;
    utf8proc_option_t options;
} forms[] = {
    {NORMAL_NFC, UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {NORMAL_NFD, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {NORMAL_NFKC, UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {NORMAL_NFKD, UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

static void check_form(size_t f, const char *s, size_t n)
{
    struct normalizer z = {0};
    struct buf text, marks;
    struct err e;
    uint8_t *trust = malloc(n + 1);
    utf8proc_uint8_t *want;
    utf8proc_ssize_t k =
        utf8proc_map((const utf8proc_uint8_t *)s, (utf8proc_ssize_t)n, &want, forms[f].options);
    assert_true(k >= 0);
    memset(trust, 1, n + 1);
    buf_init(&text, 1 << 24);
    buf_init(&marks, 1 << 24);
    assert_int_equal(normalizer_add(&z, forms[f].form, &e), 0);
    assert_int_equal(normalize_text(&z, s, n, trust, &text, &marks, &e), 0);
    assert_int_equal(text.len, k);
    assert_int_equal(marks.len, k);
    assert_memory_equal(text.data, want, (size_t)k);
    if (normalize_same(&z, s, n))
        assert_memory_equal(text.data, s, n);
    buf_release(&text);
    buf_release(&marks);
    free(trust);
    free(want);
}

static size_t put(char *s, uint32_t c)
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)s);
}

/* Every character alone, and every one behind a base and in front of a mark: what is said to stay
 * does. */
static void test_every_character(void **state)
{
    for (uint32_t c = 0x80; c < 0x110000; c++) {
        char s[16];
        if (c >= 0xd800 && c < 0xe000)
            continue;
        if (c == 0x30000)
            c = 0xe0000;
        for (size_t f = 0; f < 4; f += 1 + (c > 0x3400)) {
            size_t n = put(s, c);
            check_form(f, s, n);
            n = 0;
            s[n++] = 'a';
            n += put(s + n, 0x1100);
            n += put(s + n, c);
            n += put(s + n, 0x301);
            check_form(f, s, n);
        }
    }
}

static void test_random_marks(void **state)
{
    uint32_t x = 5;
    char s[2000];
    for (int round = 0; round < 300; round++) {
        size_t n = 0, count = next(&x) % 120;
        for (size_t i = 0; i < count; i++) {
            uint32_t kind = next(&x) % 8, r = next(&x);
            n += put(s + n, kind < 4   ? 0x300 + r % 0x70
                            : kind < 5 ? 'a' + r % 26
                            : kind < 6 ? 0x591 + r % 0x2d
                            : kind < 7 ? 0x1100 + r % 0x100
                                       : 0xac00 + r % 11172);
        }
        for (size_t f = 0; f < 4; f++)
            check_form(f, s, n);
    }
}

/* ---- hostile text -------------------------------------------------------------------------------
 */

static int count_piece(void *arg, const char *s, size_t n, struct err *e)
{
    size_t *bytes = arg;
    *bytes += n;
    return n ? 0 : err_set(e, ERR_FORMAT, "empty piece");
}

static const char *const units[] = {"a",
                                    " ",
                                    "\n",
                                    "!",
                                    "7",
                                    "'",
                                    "ab",
                                    " \n",
                                    "\t x",
                                    "<|",
                                    "\r",
                                    "中",
                                    "😀",
                                    "\xcc\x81\xcc\xa3",
                                    "                中",
                                    "a1"};

/* No pre-tokenizer of ours is slow on any text; together the pieces are the text. */
static void test_pretokenizers_on_hostile_text(void **state)
{
    static const char *const names[] = {"llama-bpe", "qwen2",  "deepseek-v3", "deepseek-llm",
                                        "gpt-2",     "smollm", "default",     "deepseek-coder"};
    enum { SIZE = 1 << 18 };
    if (getenv("PONDER_VALGRIND")) /* patterns have a limit of time */
        skip();
    char *text = malloc(SIZE);
    double begin = clock_seconds();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct pretok p = {0};
        struct pretok_work *w;
        struct err e = {0};
        unsigned flags;
        assert_int_equal(pretok_add_named(&p, names[i], strlen(names[i]), &flags, &e), 0);
        for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
            size_t k = strlen(units[u]), n = 0, bytes = 0;
            for (; n + k <= SIZE; n += k)
                memcpy(text + n, units[u], k);
            assert_int_equal(pretok_work_new(&w, &p, &e), 0);
            pretok_work_begin(w, n);
            if (pretok_run(&p, w, text, n, count_piece, &bytes, &e))
                fail_msg("%s on '%s': %s", names[i], units[u], e.text);
            assert_int_equal(bytes, n);
            pretok_work_free(w);
        }
        pretok_release(&p);
    }
    assert_true(clock_seconds() - begin < 60);
    free(text);
}

/* Patterns of a hostile file: an error after bounded time, never a hang. */
static void test_slow_patterns_end(void **state)
{
    static const char *const patterns[] = {"(a|aa)+$", "(a*)*b", "(?:a+)+[bc]", "((a+)b?)+c"};
    char text[5000];
    memset(text, 'a', sizeof text);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct pretok p = {0};
        struct pretok_work *w;
        struct err e = {0};
        size_t bytes = 0;
        double begin = clock_seconds();
        assert_int_equal(
            pretok_add(&p, patterns[i], strlen(patterns[i]), false, PRETOK_ISOLATED, false, &e), 0);
        assert_int_equal(pretok_work_new(&w, &p, &e), 0);
        pretok_work_begin(w, sizeof text);
        int rc = pretok_run(&p, w, text, sizeof text, count_piece, &bytes, &e);
        if (rc)
            assert_int_equal(rc, ERR_LIMIT);
        else
            assert_int_equal(bytes, sizeof text);
        assert_true(clock_seconds() - begin < 30);
        pretok_work_free(w);
        pretok_release(&p);
    }
}

static void test_unknown_name_lists_the_known(void **state)
{
    struct pretok p = {0};
    struct err e;
    unsigned flags;
    assert_int_equal(pretok_add_named(&p, "gpt-9", 5, &flags, &e), ERR_UNSUPPORTED);
    assert_non_null(strstr(e.text, "'gpt-9'"));
    assert_non_null(strstr(e.text, "deepseek-v3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merging_is_by_the_definition),
        cmocka_unit_test(test_known_pieces_are_told_apart),
        cmocka_unit_test(test_every_character),
        cmocka_unit_test(test_random_marks),
        cmocka_unit_test(test_pretokenizers_on_hostile_text),
        cmocka_unit_test(test_slow_patterns_end),
        cmocka_unit_test(test_unknown_name_lists_the_known),
    };
    return cmocka_run_group_tests_name("tokenizer: long and odd", tests, NULL, NULL);
}
