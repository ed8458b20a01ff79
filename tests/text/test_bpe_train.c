/*
 * Making vocabularies: merges are those of the plain algorithm that counts everything anew each
 * time, the order of texts does not matter, and the tokenizer that comes out cuts the texts exactly
 * as the trainer had them.
 */
#include "base/rng.h"
#include "support/fail_alloc.h"
#include "text/bpe_train.h"
#include "text/tokenizer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct bpe_special special[] = {{"<s>", 1}, {"<think>", 0}};

static struct bpe_train_options options(size_t vocab)
{
    return (struct bpe_train_options){.pretok = "smollm",
                                      .special = special,
                                      .n_special = 2,
                                      .vocab_size = vocab,
                                      .min_count = 2};
}

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static struct bpe_trainer *trained(const struct bpe_train_options *o, const char *const *texts,
                                   size_t n)
{
    struct bpe_trainer *t;
    struct err e = {0};
    good(bpe_trainer_new(&t, o, &e), &e);
    for (size_t i = 0; i < n; i++)
        good(bpe_trainer_add(t, texts[i], strlen(texts[i]), &e), &e);
    good(bpe_trainer_run(t, &e), &e);
    return t;
}

static char *json_of(const struct bpe_trainer *t)
{
    json_t *o;
    struct err e = {0};
    good(bpe_trainer_json(t, "<s>", &o, &e), &e);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

/* ---- the plain algorithm ------------------------------------------------------------------------
 */

enum { WORDS = 400, LETTERS = 9 };

/* Words of a few letters, one blank in front of each. */
static void make_words(char word[WORDS][LETTERS + 2], uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed, 0);
    for (int i = 0; i < WORDS; i++) {
        int n = 1 + (int)(rng_u32(&r) % LETTERS);
        word[i][0] = ' ';
        for (int k = 1; k <= n; k++)
            word[i][k] = (char)('a' + (rng_u32(&r) % 7) * (rng_u32(&r) % 7) / 9);
        word[i][n + 1] = 0;
    }
}

/* Merges of the words into key[0..max), by counting all pairs for each. */
static size_t plain_merges(char word[WORDS][LETTERS + 2], int first, size_t max, uint64_t *key)
{
    static int v[WORDS][LETTERS + 1];
    static int count[600][600];
    int n[WORDS];
    size_t made = 0;
    for (int i = 0; i < WORDS; i++) {
        n[i] = (int)strlen(word[i]);
        for (int k = 0; k < n[i]; k++)
            v[i][k] = first + (unsigned char)word[i][k];
    }
    for (; made < max; made++) {
        int best = 1, a = -1, b = -1, to = first + 256 + (int)made;
        memset(count, 0, sizeof count);
        for (int i = 0; i < WORDS; i++)
            for (int k = 0; k + 1 < n[i]; k++)
                count[v[i][k]][v[i][k + 1]]++;
        for (int i = 0; i < to; i++)
            for (int k = 0; k < to; k++)
                if (count[i][k] > best)
                    best = count[i][k], a = i, b = k;
        if (a < 0)
            break;
        key[made] = (uint64_t)a << 32 | (uint64_t)b;
        for (int i = 0; i < WORDS; i++) {
            int out = 0;
            for (int k = 0; k < n[i]; k++)
                if (k + 1 < n[i] && v[i][k] == a && v[i][k + 1] == b) {
                    v[i][out++] = to;
                    k++;
                } else {
                    v[i][out++] = v[i][k];
                }
            n[i] = out;
        }
    }
    return made;
}

static void test_plain(void **state)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        static char word[WORDS][LETTERS + 2];
        const char *texts[WORDS];
        uint64_t key[300];
        make_words(word, seed);
        for (int i = 0; i < WORDS; i++)
            texts[i] = word[i];
        size_t n = plain_merges(word, 2, 300, key);
        assert_true(n > 100);
        struct bpe_train_options o = options(2 + 256 + 300);
        struct bpe_trainer *t = trained(&o, texts, WORDS);
        assert_int_equal(bpe_trainer_vocab(t), 2 + 256 + n);
        struct err e = {0};
        json_t *file, *merges, *vocab;
        good(bpe_trainer_json(t, NULL, &file, &e), &e);
        merges = json_object_get(json_object_get(file, "model"), "merges");
        vocab = json_object_get(json_object_get(file, "model"), "vocab");
        assert_int_equal(json_array_size(merges), n);
        for (size_t i = 0; i < n; i++) {
            char line[64];
            snprintf(line, sizeof line, "%s", json_string_value(json_array_get(merges, i)));
            char *right = strchr(line, ' ');
            assert_non_null(right);
            *right++ = 0;
            assert_int_equal(json_integer_value(json_object_get(vocab, line)), key[i] >> 32);
            assert_int_equal(json_integer_value(json_object_get(vocab, right)), (uint32_t)key[i]);
        }
        json_decref(file);
        bpe_trainer_free(t);
    }
}

/* ---- what comes out -----------------------------------------------------------------------------
 */

static const char *const texts[] = {
    "Tom has 12 apples and buys 345 apples. He eats 12 apples.",
    "<think>\n12+345=357\n</think> 小明有十二个苹果，又买了三个苹果。小明有几个苹果？",
    "The apples, the apples; THE APPLES!  the\tapples\n\n\nhe said he'd said it's 12345",
    "星期二之后第十七天是星期五。星期三之后第七天是星期三。",
};
enum { TEXTS = sizeof texts / sizeof *texts };

static void test_tokenizer(void **state)
{
    struct bpe_train_options o = options(340);
    struct bpe_trainer *t = trained(&o, texts, TEXTS);
    struct tokenizer *tok;
    struct err e = {0};
    char *text = json_of(t);
    uint64_t tokens = 0;
    good(tokenizer_new_json(&tok, text, strlen(text), &e), &e);
    assert_int_equal(tokenizer_count(tok), bpe_trainer_vocab(t));
    for (size_t i = 0; i < TEXTS; i++) {
        struct ids ids;
        struct buf back;
        ids_init(&ids, 1 << 16);
        buf_init(&back, 1 << 16);
        good(tokenizer_encode(tok, texts[i], strlen(texts[i]), TOKENIZER_SPECIAL, NULL, &ids, &e),
             &e);
        for (size_t k = 0; k < ids.n; k++) {
            size_t n;
            const char *s = tokenizer_bytes(tok, ids.v[k], &n);
            assert_int_equal(buf_append(&back, s, n, NULL), 0);
            tokens += ids.v[k] > 1; /* special tokens are not counted */
            int digits = 0;
            for (size_t j = 0; j < n; j++)
                digits += s[j] >= '0' && s[j] <= '9';
            assert_true(digits == 0 || n == 1); /* each digit is a token of its own */
        }
        assert_string_equal(back.data, texts[i]);
        ids_release(&ids);
        buf_release(&back);
    }
    assert_int_equal(tokens, bpe_trainer_tokens(t));
    assert_int_equal(tokenizer_find(tok, "<s>"), 0);
    assert_int_equal(tokenizer_find(tok, "<think>"), 1);
    assert_true(tokenizer_is_special(tok, 0) && !tokenizer_is_special(tok, 1));
    const char *name;
    good(tokenizer_gguf_name(tok, &name, &e), &e);
    assert_string_equal(name, "smollm");
    tokenizer_free(tok);
    free(text);
    bpe_trainer_free(t);
}

static void test_order(void **state)
{
    const char *back[TEXTS];
    for (size_t i = 0; i < TEXTS; i++)
        back[i] = texts[TEXTS - 1 - i];
    struct bpe_train_options o = options(300);
    struct bpe_trainer *a = trained(&o, texts, TEXTS), *b = trained(&o, back, TEXTS);
    char *x = json_of(a), *y = json_of(b);
    assert_string_equal(x, y);
    assert_int_equal(bpe_trainer_vocab(a), 300);
    free(x);
    free(y);
    bpe_trainer_free(a);
    bpe_trainer_free(b);
}

static void test_bounds(void **state)
{
    struct bpe_train_options o = options(100);
    struct bpe_trainer *t;
    struct err e = {0};
    assert_int_equal(bpe_trainer_new(&t, &o, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "258"));
    o = options(300);
    o.pretok = "no-such-name";
    assert_int_not_equal(bpe_trainer_new(&t, &o, &e), 0);
    static const struct bpe_special twice[] = {{"<s>", 1}, {"<s>", 1}}, letter[] = {{"s", 1}};
    o = options(300);
    o.special = twice;
    assert_int_equal(bpe_trainer_new(&t, &o, &e), ERR_USAGE);
    o.special = letter;
    o.n_special = 1;
    assert_int_equal(bpe_trainer_new(&t, &o, &e), ERR_USAGE);

    /* no token is longer than it may be, and nothing is left over from what was too rare */
    o = options(400);
    o.max_token = 3;
    o.min_count = 3;
    t = trained(&o, texts, TEXTS);
    json_t *file, *vocab, *id;
    const char *key;
    good(bpe_trainer_json(t, NULL, &file, &e), &e);
    vocab = json_object_get(json_object_get(file, "model"), "vocab");
    json_object_foreach(vocab, key, id)
    {
        size_t letters = 0;
        for (const char *s = key; *s; s++)
            letters += ((unsigned char)*s & 0xc0) != 0x80;
        assert_true(json_integer_value(id) < 2 || letters <= 3);
    }
    assert_true(bpe_trainer_vocab(t) < 400);
    json_decref(file);
    assert_int_equal(bpe_trainer_run(t, &e), ERR_USAGE);
    bpe_trainer_free(t);

    /* one letter a megabyte long, and what is no text */
    o = options(300);
    good(bpe_trainer_new(&t, &o, &e), &e);
    char *long_one = malloc(1 << 20);
    memset(long_one, 'a', 1 << 20);
    good(bpe_trainer_add(t, long_one, 1 << 20, &e), &e);
    free(long_one);
    assert_int_equal(bpe_trainer_add(t, "\xff\xfe", 2, &e), ERR_FORMAT);
    good(bpe_trainer_add(t, "", 0, &e), &e);
    good(bpe_trainer_run(t, &e), &e);
    assert_true(bpe_trainer_tokens(t) <= (1 << 20) / 1024);
    bpe_trainer_free(t);
}

static void test_alloc(void **state)
{
    struct bpe_train_options o = options(300);
    for (size_t n = 1;; n++) {
        struct bpe_trainer *t;
        struct err e = {0};
        fail_alloc_at(n);
        int rc = bpe_trainer_new(&t, &o, &e);
        for (size_t i = 0; !rc && i < TEXTS; i++)
            rc = bpe_trainer_add(t, texts[i], strlen(texts[i]), &e);
        if (!rc)
            rc = bpe_trainer_run(t, &e);
        json_t *file = NULL;
        if (!rc)
            rc = bpe_trainer_json(t, "<s>", &file, &e);
        json_decref(file);
        bpe_trainer_free(t);
        if (!fail_alloc_stop()) {
            good(rc, &e);
            break;
        }
        assert_true(rc == 0 || e.text[0] != 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain), cmocka_unit_test(test_tokenizer),
        cmocka_unit_test(test_order), cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_alloc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
