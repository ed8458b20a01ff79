/* Tokenizer files that are wrong: each is refused with words that name the fault; memory that runs
 * out. */
#include "base/buf.h"
#include "support/fail_alloc.h"
#include "support/golden.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A good file in parts; a row replaces one of them. */
struct file {
    const char *added, *normalizer, *pre, *decoder, *model, *vocab, *merges, *end;
};

static const struct file good = {
    .added = "[{\"id\":3,\"content\":\"<s>\",\"special\":true}]",
    .normalizer = "null",
    .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
    .decoder = "{\"type\":\"ByteLevel\"}",
    .model = "\"type\":\"BPE\"",
    .vocab = "{\"a\":0,\"b\":1,\"ab\":2}",
    .merges = "[\"a b\"]",
    .end = "",
};

#define OR(part) (f->part ? f->part : good.part)

static int open_file(const struct file *f, struct err *e)
{
    struct buf b;
    struct tokenizer *t;
    *e = (struct err){0};
    buf_init(&b, 1 << 20);
    buf_printf(&b, e,
               "{\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,\"decoder\":%s,"
               "\"model\":{%s,\"vocab\":%s,\"merges\":%s}}%s",
               OR(added), OR(normalizer), OR(pre), OR(decoder), OR(model), OR(vocab), OR(merges),
               OR(end));
    int rc = tokenizer_new_json(&t, b.data, b.len, e);
    assert_true((rc == 0) == (t != NULL));
    tokenizer_free(t);
    buf_release(&b);
    return rc;
}

#define SPLIT(p)                                                                                \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" p \
    "\"},\"behavior\":\"Isolated\"},{\"type\":\"ByteLevel\",\"use_regex\":false}]}"

static const struct {
    struct file f;
    const char *words; /* NULL: it loads */
} rows[] = {
    {{0}, NULL},
    {{.added = "null"}, NULL},
    {{.added = "[]"}, NULL},
    {{.decoder = "null"}, NULL},
    {{.merges = "[[\"a\",\"b\"]]"}, NULL},
    {{.merges = "[\"#version: 0.2\",\"a b\"]"}, NULL},
    {{.merges = "[]"}, NULL},
    {{.vocab = "{\"\\u0061\":0,\"b\":1,\"ab\":2,\"\\ud83d\\ude00\":9}"}, NULL},
    {{.model = "\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"a\",\"fuse_unk\":true,\"byte_"
               "fallback\":false"},
     NULL},
    {{.pre = SPLIT("\\\\s+$")}, NULL},
    {{.added = "{}"}, "\"added_tokens\" is not an array"},
    {{.added = "[1]"}, "without \"content\" or \"id\""},
    {{.added = "[{\"id\":-1,\"content\":\"x\"}]"}, "out of bounds"},
    {{.added = "[{\"id\":1e3,\"content\":\"x\"}]"}, "without \"content\""},
    {{.added = "[{\"id\":1,\"content\":\"x\"}]"}, "the id 1 of another token"},
    {{.added = "[{\"id\":7,\"content\":\"x\"},{\"id\":7,\"content\":\"y\"}]"},
     "id 7 is both 'x' and 'y'"},
    {{.added = "[{\"id\":1000000,\"content\":\"x\"}]"}, "only 4 tokens"},
    {{.normalizer = "{\"type\":\"Lowercase\"}"}, "normalizer of type 'Lowercase'"},
    {{.normalizer = "{\"type\":\"Sequence\"}"}, "Sequence without a list"},
    {{.normalizer = "7"}, "(no type)"},
    {{.pre = "null"}, "not a byte-level tokenizer"},
    {{.pre = "{\"type\":\"Metaspace\"}"}, "pre_tokenizer of type 'Metaspace'"},
    {{.pre = "{\"type\":\"Sequence\",\"pretokenizers\":[]}"}, "not a byte-level tokenizer"},
    {{.pre = "{\"type\":\"Split\",\"pattern\":{},\"behavior\":\"Isolated\"}"}, "without pattern"},
    {{.pre = "{\"type\":\"Split\",\"pattern\":{\"String\":\"a\"},\"behavior\":\"Odd\"}"}, "'Odd'"},
    {{.pre = SPLIT("(a")}, "invalid pattern '(a'"},
    {{.pre = SPLIT("[a[b]]")}, "a set in a set"},
    {{.pre = SPLIT("[a&&b]")}, "an intersection of sets"},
    {{.pre = SPLIT("(*ANY)a")}, "a verb"},
    {{.pre = SPLIT("a{1,2}+")}, "a plus after a counted repetition"},
    {{.pre = SPLIT("[\\\\W]")}, "a negated escape in a set"},
    {{.pre = SPLIT("\\\\C")}, "invalid pattern"},
    {{.decoder = "{\"type\":\"WordPiece\"}"}, "decoder of type 'WordPiece'"},
    {{.model = "\"type\":\"Unigram\""}, "only \"BPE\" is supported"},
    {{.model = "\"dropout\":0.1"}, "dropout 0.1 is not supported"},
    {{.model = "\"end_of_word_suffix\":\"</w>\""}, "end_of_word_suffix"},
    {{.model = "\"unk_token\":\"nowhere\""}, "unk_token is not in the vocabulary"},
    {{.vocab = "{\"a\":0,\"b\":0}"}, "two tokens have the id 0"},
    {{.vocab = "{\"a\":-1}"}, "'a' has id -1"},
    {{.vocab = "{\"a\":99999999999999999999}"}, "too large"},
    {{.vocab = "{\"a\":1.5}"}, "whole number"},
    {{.vocab = "{\"a\":0,}"}, "a string is needed"},
    {{.vocab = "{\"\\ud800\":0}"}, "surrogate"},
    {{.vocab = "{\"a\xff\":0}"}, "not UTF-8"},
    {{.vocab = "{}"}, "is missing or empty"},
    {{.merges = "[\"ab\"]"}, "merge 0 is 'ab'"},
    {{.merges = "[\"a b c\"]"}, "two tokens and a space"},
    {{.merges = "[\"a b\",\"a z\"]"}, "merge 1 joins 'z'"},
    {{.merges = "[\"b a\"]"}, "merge 0 makes 'ba'"},
    {{.merges = "[[\"a\"]]"}, "two tokens"},
    {{.merges = "[[\"a\",\"b\",\"b\"]]"}, "two tokens"},
    {{.merges = "[7]"}, "an array is needed"},
    {{.end = "x"}, "something follows"},
};

static void test_wrong_files(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e;
        int rc = open_file(&rows[i].f, &e);
        if (!rows[i].words && rc)
            fail_msg("row %zu: %s", i, e.text);
        if (rows[i].words && (!rc || !strstr(e.text, rows[i].words)))
            fail_msg("row %zu: \"%s\" does not say \"%s\"", i, rc ? e.text : "(loads)",
                     rows[i].words);
    }
}

static void test_cut_files(void **state)
{
    size_t n;
    char *text = golden_file("models/qwen2_tied/tokenizer.json", &n);
    for (size_t cut = 0; cut < n; cut += cut < 2000 ? 1 : 37) {
        struct err e = {0};
        struct tokenizer *t;
        char *copy = malloc(cut + 1); /* the exact size, for sanitizers */
        memcpy(copy, text, cut);
        if (tokenizer_new_json(&t, copy, cut, &e) == 0)
            fail_msg("cut at %zu loads", cut);
        assert_true(strlen(e.text) > 10);
        free(copy);
    }
    free(text);
}

static void test_deep_files(void **state)
{
    char *text = malloc(200001);
    struct err e = {0};
    struct tokenizer *t;
    memset(text, '[', 200000);
    memcpy(text, "{\"x\":", 5);
    assert_int_equal(tokenizer_new_json(&t, text, 200000, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "nested too deeply"));
    free(text);
}

/* Jansson's memory is to fail too; its calls go through this file, where malloc is wrapped. */
static void *counted(size_t n)
{
    return malloc(n);
}

static void freed(void *p)
{
    free(p);
}

static int setup(void **state)
{
    json_set_alloc_funcs(counted, freed);
    return 0;
}

static void test_allocations_of_opening(void **state)
{
    size_t n;
    char *text = golden_file("models/qwen2_tied/tokenizer.json", &n);
    for (size_t k = 1;; k++) {
        struct err e = {0};
        struct tokenizer *t;
        fail_alloc_at(k);
        int rc = tokenizer_new_json(&t, text, n, &e);
        if (!fail_alloc_stop()) {
            assert_int_equal(rc, 0);
            tokenizer_free(t);
            assert_true(k > 10);
            break;
        }
        /* PCRE2 works without machine code, so not every failure is one. */
        if (rc == 0)
            tokenizer_free(t);
        else
            assert_true(rc == ERR_NOMEM || rc == ERR_FORMAT);
    }
    free(text);
}

static void test_allocations_of_encoding(void **state)
{
    size_t n;
    char *json = golden_file("models/qwen2_tied/tokenizer.json", &n), text[400];
    struct err e = {0};
    struct tokenizer *t;
    assert_int_equal(tokenizer_new_json(&t, json, n, &e), 0);
    /* A long word, marks out of order for NFC (more than a few), a byte that is not UTF-8. */
    memset(text, 'e', 200);
    for (int i = 0; i < 199; i += 2)
        memcpy(text + 200 + i, i % 4 ? "\xcc\x81" : "\xcc\xa3", 2);
    text[50] = '\xff';
    uint8_t trust[400];
    memset(trust, 1, sizeof trust);
    for (size_t k = 1;; k++) {
        struct ids out;
        ids_init(&out, 10000);
        fail_alloc_at(k);
        int rc = tokenizer_encode(t, text, sizeof text, 0, trust, &out, &e);
        bool failed = fail_alloc_stop();
        assert_int_equal(rc, failed ? ERR_NOMEM : 0);
        if (failed)
            assert_int_equal(out.n, 0);
        ids_release(&out);
        if (!failed) {
            assert_true(k > 10);
            break;
        }
    }
    tokenizer_free(t);
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_deep_files),
        cmocka_unit_test(test_allocations_of_opening),
        cmocka_unit_test(test_allocations_of_encoding),
    };
    return cmocka_run_group_tests_name("tokenizer files", tests, setup, NULL);
}
