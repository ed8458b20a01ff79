/*
 * Tokenizers against the ids of the "tokenizers" library (tests/golden/tokenizer), from
 * tokenizer.json and from GGUF; control tokens in untrusted text; roles of tokens; decoding.
 */
#include "base/file.h"
#include "format/gguf.h"
#include "support/golden.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char qwen2[] = GOLDEN_DIR "/models/qwen2_tied";
static const char llama3[] = GOLDEN_DIR "/models/llama_rope_llama3";

static struct tokenizer *open_path(const char *path)
{
    struct err e = {0};
    struct source *s;
    struct tokenizer *t = NULL;
    if (source_open(&s, path, &e) || tokenizer_new(&t, s, &e))
        fail_msg("%s", e.text);
    source_free(s); /* a tokenizer keeps nothing of its source */
    return t;
}

static json_t *base_json(const char *folder)
{
    char path[4096];
    json_error_t je;
    snprintf(path, sizeof path, GOLDEN_DIR "/models/%s/tokenizer.json", folder);
    json_t *o = json_load_file(path, 0, &je);
    if (!o)
        fail_msg("%s: %s", path, je.text);
    return o;
}

static struct tokenizer *from_json(const json_t *o)
{
    struct err e = {0};
    struct tokenizer *t;
    char *text = json_dumps(o, 0);
    assert_non_null(text);
    if (tokenizer_new_json(&t, text, strlen(text), &e))
        fail_msg("%s", e.text);
    free(text);
    return t;
}

/* Encodes and compares; the ids as text make failures readable. */
static void assert_ids(const struct tokenizer *t, const char *s, size_t n, unsigned flags,
                       const uint8_t *trust, const json_t *want, const char *what)
{
    struct err e = {0};
    struct ids got;
    json_t *have = json_array();
    ids_init(&got, 100000);
    if (tokenizer_encode(t, s, n, flags, trust, &got, &e))
        fail_msg("%s: %s", what, e.text);
    for (size_t i = 0; i < got.n; i++)
        json_array_append_new(have, json_integer(got.v[i]));
    if (!json_equal(have, want)) {
        json_t *text = json_stringn(s, n);
        fail_msg("%s: %s gives %s, not %s", what, json_dumps(text, JSON_ENCODE_ANY),
                 json_dumps(have, 0), json_dumps(want, 0));
    }
    json_decref(have);
    ids_release(&got);
}

static void expect(const struct tokenizer *t, const char *s, unsigned flags, const char *ids)
{
    json_t *want = json_loads(ids, 0, NULL);
    assert_non_null(want);
    assert_ids(t, s, strlen(s), flags, NULL, want, "text");
    json_decref(want);
}

/* ---- goldens -------------------------------------------------------------------------------- */

static void apply(json_t *base, const json_t *patch)
{
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)patch, key, v)
    {
        if (strcmp(key, "model") == 0) /* a patch of the model's members */
            json_object_update(json_object_get(base, "model"), v);
        else
            json_object_set(base, key, v);
    }
}

/* What a converter writes of a tokenizer.json. */
static void write_gguf(const char *path, const json_t *o, const char *pre)
{
    enum { MAX = 1024 };
    const char *tokens[MAX], *merges[MAX];
    size_t lengths[MAX], merge_lengths[MAX], count = 0, m = 0, i;
    int32_t types[MAX];
    const json_t *model = json_object_get(o, "model"), *v;
    struct gguf_writer *w;
    struct err e = {0};
    const char *key;
    for (i = 0; i < MAX; i++) {
        tokens[i] = "[unused]";
        types[i] = 5;
    }
    json_object_foreach(json_object_get(model, "vocab"), key, v)
    {
        i = (size_t)json_integer_value(v);
        assert_true(i < MAX);
        tokens[i] = key;
        types[i] = 1;
        count = i >= count ? i + 1 : count;
    }
    json_array_foreach(json_object_get(o, "added_tokens"), i, v)
    {
        size_t id = (size_t)json_integer_value(json_object_get(v, "id"));
        assert_true(id < MAX);
        tokens[id] = json_string_value(json_object_get(v, "content"));
        types[id] = json_is_true(json_object_get(v, "special")) ? 3 : 4;
        count = id >= count ? id + 1 : count;
    }
    for (i = 0; i < count; i++)
        lengths[i] = strlen(tokens[i]);
    json_array_foreach(json_object_get(model, "merges"), i, v)
    {
        char line[256];
        snprintf(line, sizeof line, "%s %s", json_string_value(json_array_get(v, 0)),
                 json_string_value(json_array_get(v, 1)));
        merges[m] = strdup(line);
        merge_lengths[m++] = strlen(line);
    }
    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    gguf_put_string(w, "general.architecture", "qwen2", 5, &e);
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2", 4, &e);
    gguf_put_string(w, "tokenizer.ggml.pre", pre, strlen(pre), &e);
    gguf_put_strings(w, "tokenizer.ggml.tokens", tokens, lengths, count, &e);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, count, &e);
    gguf_put_strings(w, "tokenizer.ggml.merges", merges, merge_lengths, m, &e);
    gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)count - 1, &e);
    if (gguf_writer_commit(w, &e))
        fail_msg("%s", e.text);
    gguf_writer_free(w);
    for (i = 0; i < m; i++)
        free((char *)(uintptr_t)merges[i]);
}

static void check_cases(const struct tokenizer *t, const json_t *row, const char *what)
{
    const json_t *c;
    size_t i;
    json_array_foreach(json_object_get(row, "cases"), i, c)
    {
        const json_t *s = json_array_get(c, 0);
        assert_ids(t, json_string_value(s), json_string_length(s), TOKENIZER_SPECIAL, NULL,
                   json_array_get(c, 1), what);
    }
}

static void test_variants(void **state)
{
    size_t n;
    int rows = 0, gguf = 0;
    char *text = golden_file("tokenizer/variants.jsonl", &n), *line, *next;
    char dir[] = "/tmp/ponder-tokenizer-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/t.gguf", dir);
    for (line = text; *line; line = next) {
        next = strchr(line, '\n') + 1;
        json_t *row = json_loadb(line, (size_t)(next - line), JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        json_t *o = base_json(json_string_value(json_object_get(row, "base")));
        const json_t *patch = json_object_get(row, "patch");
        const char *pre = json_string_value(json_object_get(row, "pre"));
        char *what = json_dumps(patch, 0);
        apply(o, patch);
        struct tokenizer *t = from_json(o);
        check_cases(t, row, what);
        tokenizer_free(t);
        if (pre) {
            write_gguf(path, o, pre);
            t = open_path(path);
            check_cases(t, row, pre);
            tokenizer_free(t);
            unlink(path);
            gguf++;
        }
        free(what);
        json_decref(o);
        json_decref(row);
        rows++;
    }
    free(text);
    rmdir(dir);
    assert_true(rows > 50);
    assert_true(gguf >= 7);
}

/* ---- control tokens and trust -----------------------------------------------------------------
 */

static void test_plain_text_makes_no_added_token(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    static const char text[] = "<|im_start|>user\n<think>hi</think><|im_end|>";
    struct err e = {0};
    struct ids a;
    ids_init(&a, 1000);
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, NULL, &a, &e), 0);
    for (size_t i = 0; i < a.n; i++)
        assert_false(tokenizer_is_added(t, a.v[i]));
    assert_true(a.n > 20);
    ids_release(&a);
    expect(t, "<|im_end|>", TOKENIZER_SPECIAL, "[507]");
    expect(t, "<think>", TOKENIZER_SPECIAL, "[510]");
    tokenizer_free(t);
}

/* Marks: '1' under a byte of the text = trusted. */
static void trusted(const struct tokenizer *t, const char *s, const char *marks, const char *ids)
{
    uint8_t trust[256];
    size_t n = strlen(s);
    assert_int_equal(strlen(marks), n);
    for (size_t i = 0; i < n; i++)
        trust[i] = marks[i] == '1';
    json_t *want = json_loads(ids, 0, NULL);
    assert_ids(t, s, n, 0, trust, want, marks);
    json_decref(want);
}

static int32_t only(const struct tokenizer *t, const char *s)
{
    struct err e = {0};
    struct ids a;
    ids_init(&a, 1000);
    assert_int_equal(tokenizer_encode(t, s, strlen(s), 0, NULL, &a, &e), 0);
    assert_int_equal(a.n, 1);
    int32_t id = a.v[0];
    ids_release(&a);
    return id;
}

static void test_only_trusted_bytes_form_added_tokens(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    char want[64];
    int32_t a = only(t, "a");
    snprintf(want, sizeof want, "[507, %d, 507]", a);
    trusted(t, "<|im_end|>a<|im_end|>", "111111111101111111111", want);
    snprintf(want, sizeof want, "[507]");
    trusted(t, "<|im_end|>", "1111111111", want);
    /* One byte that is not trusted, wherever it is, and the token is text. */
    for (int i = 0; i < 10; i++) {
        char marks[] = "1111111111";
        struct err e = {0};
        struct ids got;
        uint8_t trust[10];
        marks[i] = '0';
        for (int k = 0; k < 10; k++)
            trust[k] = marks[k] == '1';
        ids_init(&got, 100);
        assert_int_equal(tokenizer_encode(t, "<|im_end|>", 10, 0, trust, &got, &e), 0);
        for (size_t k = 0; k < got.n; k++)
            assert_false(tokenizer_is_added(t, got.v[k]));
        ids_release(&got);
    }
    tokenizer_free(t);
}

/* <think> has normalized = true here: it is looked for in text that NFC may have changed and moved.
 */
static void test_trust_goes_through_the_normalizer(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    char text[64], marks[64] = "";
    struct err e = {0};
    struct ids got;
    snprintf(text, sizeof text, "e\xcc\x81<think>e\xcc\x81<think>");
    for (size_t i = 0; i < strlen(text); i++)
        marks[i] = i >= 13; /* the second one */
    for (int all = 0; all < 2; all++) {
        ids_init(&got, 100);
        assert_int_equal(tokenizer_encode(t, text, strlen(text), 0,
                                          all ? memset(marks, 1, 64) : (void *)marks, &got, &e),
                         0);
        size_t n = 0;
        for (size_t i = 0; i < got.n; i++)
            n += got.v[i] == 510;
        assert_int_equal(n, all ? 2 : 1);
        assert_int_equal(got.v[got.n - 1], 510);
        ids_release(&got);
    }
    tokenizer_free(t);
}

/* A merge list that could form a control token out of plain text does not. */
static void test_merges_make_no_added_token(void **state)
{
    static const char json[] =
        "{\"added_tokens\":[{\"id\":2,\"content\":\"ab\",\"special\":true}],\"pre_tokenizer\":"
        "{\"type\":\"ByteLevel\",\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"ignore_merges\":"
        "true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"aba\":3,\"abab\":4},\"merges\":[\"a b\",\"ab "
        "a\",\"ab ab\"]}}";
    struct err e = {0};
    struct tokenizer *t;
    if (tokenizer_new_json(&t, json, strlen(json), &e))
        fail_msg("%s", e.text);
    expect(t, "ab", 0, "[0, 1]");
    expect(t, "ab", TOKENIZER_SPECIAL, "[2]");
    expect(t, "bab", 0, "[1, 0, 1]");
    tokenizer_free(t);
}

/* ---- roles ------------------------------------------------------------------------------------
 */

static void test_roles(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    assert_int_equal(tokenizer_count(t), 512);
    assert_int_equal(tokenizer_bos(t), -1);
    assert_int_equal(tokenizer_eos(t), 507);
    assert_int_equal(tokenizer_pad(t), 505);
    assert_false(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, 507));
    assert_false(tokenizer_is_end(t, 1));
    assert_int_equal(tokenizer_find(t, "<think>"), 510);
    assert_int_equal(tokenizer_find(t, "<thinK>"), -1);
    assert_int_equal(tokenizer_find(t, ""), -1);
    assert_true(tokenizer_is_added(t, 510));
    assert_false(tokenizer_is_special(t, 510));
    assert_true(tokenizer_is_special(t, 507));
    assert_false(tokenizer_is_added(t, 0));
    assert_false(tokenizer_is_special(t, -1));
    assert_false(tokenizer_is_added(t, 512));
    tokenizer_free(t);

    t = open_path(llama3);
    assert_int_equal(tokenizer_bos(t), 503);
    assert_true(tokenizer_adds_bos(t));
    assert_true(tokenizer_is_end(t, 508)); /* both of generation_config.json */
    assert_true(tokenizer_is_end(t, 504));
    expect(t, "", TOKENIZER_BOS, "[503]");
    expect(t, "", 0, "[]");
    tokenizer_free(t);
}

/* ---- bytes and decoding ------------------------------------------------------------------------
 */

static void test_invalid_utf8_is_replaced(void **state)
{
    static const struct {
        const char *bytes, *same;
    } rows[] = {
        {"a\xff"
         "b",
         "a\xef\xbf\xbd"
         "b"},
        {"\xe4\xbd"
         "A",
         "\xef\xbf\xbd"
         "A"},
        {"\xf0\x9f\x98", "\xef\xbf\xbd"},
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
        {"\xc0\x80", "\xef\xbf\xbd\xef\xbf\xbd"},
    };
    struct tokenizer *t = open_path(llama3);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e = {0};
        struct ids a, b;
        ids_init(&a, 100);
        ids_init(&b, 100);
        assert_int_equal(tokenizer_encode(t, rows[i].bytes, strlen(rows[i].bytes), 0, NULL, &a, &e),
                         0);
        assert_int_equal(tokenizer_encode(t, rows[i].same, strlen(rows[i].same), 0, NULL, &b, &e),
                         0);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.v, b.v, a.n * sizeof *a.v);
        ids_release(&a);
        ids_release(&b);
    }
    tokenizer_free(t);
}

/* Pushes the ids of single bytes; compares what comes out after each, joined by '|'. */
static void stream(const struct tokenizer *t, const char *bytes, const char *want)
{
    struct detok d;
    struct err e = {0};
    struct buf out;
    detok_init(&d);
    buf_init(&out, 1000);
    for (const char *p = bytes; *p; p++) {
        int32_t id = -1;
        for (size_t i = 0; i < tokenizer_count(t) && id < 0; i++) {
            size_t n;
            const char *s = tokenizer_bytes(t, (int32_t)i, &n);
            if (n == 1 && *s == *p)
                id = (int32_t)i;
        }
        assert_true(id >= 0);
        assert_int_equal(detok_push(&d, t, id, &out, &e), 0);
        buf_putc(&out, '|', &e);
    }
    assert_int_equal(detok_flush(&d, &out, &e), 0);
    assert_string_equal(out.data, want);
    buf_release(&out);
}

static void test_streaming(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    stream(t, "ab", "a|b|");
    stream(t, "\xc3\xa9x", "|\xc3\xa9|x|");
    stream(t, "\xf0\x9f\x98\x80", "|||\xf0\x9f\x98\x80|");
    stream(t, "\xf0\x9f\x98", "|||\xef\xbf\xbd"); /* left over at the end: one character */
    stream(t,
           "\xf0\x9f"
           "a",
           "||\xef\xbf\xbd"
           "a|");
    stream(t, "\xff\xc3\xc3\xa9", "\xef\xbf\xbd||\xef\xbf\xbd|\xc3\xa9|");
    stream(t, "\xe0\x80", "|\xef\xbf\xbd\xef\xbf\xbd|");
    struct detok d;
    struct err e = {0};
    struct buf out;
    detok_init(&d);
    buf_init(&out, 1000);
    assert_int_equal(detok_push(&d, t, 512, &out, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "512"));
    assert_int_equal(detok_push(&d, t, -1, &out, &e), ERR_USAGE);
    assert_int_equal(detok_push(&d, t, 507, &out, &e), 0);
    assert_string_equal(out.data, "<|im_end|>");
    buf_release(&out);
    tokenizer_free(t);
}

static void test_decoding_gives_the_text_back(void **state)
{
    struct tokenizer *t = open_path(llama3);
    char text[700];
    uint32_t x = 12345;
    for (int round = 0; round < 300; round++) {
        struct err e = {0};
        struct ids a;
        struct buf out;
        struct detok d;
        size_t n = 0;
        for (int i = 0; i < round; i++) { /* any characters, valid UTF-8 */
            static const char *const parts[] = {"a",  " ", "the", "\n", "é",
                                                "中", "😀", "7",   "'",  "\t"};
            x = x * 1664525 + 1013904223;
            const char *p = parts[(x >> 16) % 10];
            if (n + 4 < sizeof text)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s", p);
        }
        ids_init(&a, 1000);
        buf_init(&out, 1000);
        detok_init(&d);
        assert_int_equal(tokenizer_encode(t, text, n, 0, NULL, &a, &e), 0);
        for (size_t i = 0; i < a.n; i++)
            assert_int_equal(detok_push(&d, t, a.v[i], &out, &e), 0);
        assert_int_equal(detok_flush(&d, &out, &e), 0);
        assert_int_equal(out.len, n);
        assert_memory_equal(out.data, text, n);
        ids_release(&a);
        buf_release(&out);
    }
    tokenizer_free(t);
}

static void test_limit_of_ids(void **state)
{
    struct tokenizer *t = open_path(qwen2);
    struct err e = {0};
    struct ids a;
    ids_init(&a, 3);
    assert_int_equal(ids_push(&a, 9, &e), 0);
    assert_int_equal(tokenizer_encode(t, "one two three", 13, 0, NULL, &a, &e), ERR_LIMIT);
    assert_string_equal(e.text, "more than 3 tokens");
    assert_int_equal(a.n, 1); /* what was there stays */
    assert_int_equal(a.v[0], 9);
    ids_release(&a);
    tokenizer_free(t);
}

struct reader {
    const struct tokenizer *t;
    const char *text;
    size_t n;
    struct ids want;
    bool same;
};

static void *read_often(void *arg)
{
    struct reader *r = arg;
    struct ids got;
    r->same = true;
    ids_init(&got, 100000);
    for (int i = 0; i < 50; i++) {
        got.n = 0;
        size_t from = (size_t)i % 3; /* other texts in between */
        r->same &= !tokenizer_encode(r->t, r->text + from, r->n - from, 0, NULL, &got, NULL);
        got.n = 0;
        r->same &= !tokenizer_encode(r->t, r->text, r->n, 0, NULL, &got, NULL) &&
                   got.n == r->want.n && memcmp(got.v, r->want.v, got.n * sizeof *got.v) == 0;
    }
    ids_release(&got);
    return NULL;
}

/* One tokenizer, more threads than it keeps working memory for, words and long pieces. */
static void test_threads_share_a_tokenizer(void **state)
{
    enum { THREADS = 6, SIZE = 4000 };
    struct tokenizer *t = open_path(qwen2);
    struct reader r[THREADS];
    pthread_t thread[THREADS];
    char text[SIZE];
    struct err e;
    for (size_t i = 0; i < SIZE; i++)
        text[i] = i < 300 || i * i % 11 ? (char)('a' + i * i % 26) : ' ';
    for (int i = 0; i < THREADS; i++) {
        r[i] = (struct reader){.t = t, .text = text + i, .n = SIZE - (size_t)i};
        ids_init(&r[i].want, SIZE);
        assert_int_equal(tokenizer_encode(t, r[i].text, r[i].n, 0, NULL, &r[i].want, &e), 0);
        assert_true(r[i].want.n > 100);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, read_often, &r[i]), 0);
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_true(r[i].same);
        ids_release(&r[i].want);
    }
    tokenizer_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variants),
        cmocka_unit_test(test_plain_text_makes_no_added_token),
        cmocka_unit_test(test_only_trusted_bytes_form_added_tokens),
        cmocka_unit_test(test_trust_goes_through_the_normalizer),
        cmocka_unit_test(test_merges_make_no_added_token),
        cmocka_unit_test(test_roles),
        cmocka_unit_test(test_invalid_utf8_is_replaced),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_decoding_gives_the_text_back),
        cmocka_unit_test(test_limit_of_ids),
        cmocka_unit_test(test_threads_share_a_tokenizer),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
