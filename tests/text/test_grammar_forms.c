/*
 * Grammars of several parts: structural tags, answers that are calls or have a format. And the
 * cache: the same recipe is the same grammar, within bounds, whoever asks.
 */
#include "base/sha256.h"
#include "support/golden.h"
#include "text/grammar_cache.h"
#include "text/grammar_walk.h"

#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab small; /* with <tool_call> and </tool_call> as tokens */

static int setup(void **state)
{
    small = vocab_open(GOLDEN_DIR "/models/qwen2_tied");
    return 0;
}

static int teardown(void **state)
{
    vocab_close(&small);
    return 0;
}

static struct grammar *made(enum grammar_kind kind, const char *json)
{
    json_error_t je;
    json_t *v = json_loads(json, JSON_DECODE_ANY, &je);
    if (!v)
        fail_msg("%s: %s", json, je.text);
    const struct grammar_form f = {.kind = kind, .json = v};
    struct grammar *g;
    struct err e = {0};
    if (grammar_new(&g, &f, &e))
        fail_msg("%s: %s", json, e.text);
    json_decref(v);
    return g;
}

static void check(struct grammar *g, const char *text, bool want)
{
    if (grammar_takes(&small, g, text, strlen(text)) != want)
        fail_msg("%s should%s be taken", text, want ? "" : " not");
}

/* ---- structural tags ------------------------------------------------------------------------ */

#define N_SCHEMA                                                          \
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}}," \
    "\"required\":[\"n\"],\"additionalProperties\":false}"
#define TAG(begin, content, end) \
    "{\"type\":\"tag\",\"begin\":\"" begin "\",\"content\":" content ",\"end\":" end "}"
#define JSON_N "{\"type\":\"json_schema\",\"json_schema\":" N_SCHEMA "}"
#define ANY "{\"type\":\"any_text\"}"
#define FORMAT(f) "{\"type\":\"structural_tag\",\"format\":" f "}"

static void tags_of_the_first_version(void **state)
{
    (void)state;
    struct grammar *g =
        made(GRAMMAR_TAGS,
             "{\"structures\":[{\"begin\":\"<function=get>\",\"schema\":" N_SCHEMA
             ",\"end\":\"</function>\"},{\"begin\":\"<function=put>\",\"schema\":{\"type\":"
             "\"string\"},\"end\":\"</function>\"}],\"triggers\":[\"<function=\"]}");
    check(g, "", true);
    check(g, "just words, 1 < 2 <func", true);
    check(g, "so: <function=get>{\"n\": 4}</function> and then", true);
    check(g, "<function=get>{\"n\":4}</function><function=put>\"x\"</function>", true);
    check(g, "<function=", false);
    check(g, "<function=other>{}</function>", false);
    check(g, "<function=get>{\"m\":4}</function>", false);
    check(g, "<function=put>{\"n\":4}</function>", false);
    check(g, "<function=get>{\"n\":4}", false);
    grammar_unref(g);
}

static void tags_of_the_second_version(void **state)
{
    static const struct {
        const char *format;
        const char *takes[6], *not [6];
    } rows[] = {
        {"{\"type\":\"const_string\",\"value\":\"yes\"}", {"yes"}, {"", "ye", "yess"}},
        {"{\"type\":\"regex\",\"pattern\":\"[0-9]{2}\"}", {"42"}, {"4", "421"}},
        {"{\"type\":\"grammar\",\"grammar\":\"root ::= value\\nvalue ::= \\\"a\\\"+\"}",
         {"a", "aaa"},
         {"", "b"}},
        {JSON_N, {"{\"n\":1}"}, {"{}", "{\"n\":\"\"}"}},
        {"{\"type\":\"any_text\",\"excludes\":[\"cat\",\"at last\"]}",
         {"", "a car", "ca", "at las"},
         {"a cat", "concat", "at last", "cat"}},
        {TAG("<a>", JSON_N, "\"</a>\""), {"<a>{\"n\":1}</a>"}, {"<a>{\"n\":1}", "{\"n\":1}</a>"}},
        {TAG("<a>", ANY, "[\"</a>\",\"</b>\"]"),
         {"<a></a>", "<a>x < y </ a> <a></b>"},
         {"<a>x", "<a>x</a>y</b>", "<a>x</a></b>"}},
        {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"const_string\",\"value\":\"I \"}," TAG(
             "<a>", ANY, "\"</a>\"") "," ANY "]}",
         {"I <a>b</a>", "I <a>b</a>c</a>"},
         {"I ", "<a></a>"}},
        {TAG("[", "{\"type\":\"or\",\"elements\":[" JSON_N "," ANY "]}", "\"]\""),
         {"[{\"n\":1}]", "[ab]", "[]"},
         {"[a]b]", "[a"}},
        {"{\"type\":\"triggered_tags\",\"triggers\":[\"<a\",\"<b\"],\"tags\":[" TAG(
             "<a>", JSON_N,
             "\"</a>\"") "," TAG("<b1>", ANY,
                                 "\"</b>\"") "," TAG("<b2>", ANY,
                                                     "\"\\n\"") "],"
                                                                "\"excludes\":[\"<c\"]}",
         {"", "x <a>{\"n\":1}</a> y <b1>z<a</b>", "<b2>z\n<b1></b><b2>\nend <", "<",
          "<<a>{\"n\":0}</a>"},
         {"<a", "<c", "x<b3>", "<a>{}</a>", "<b2>z", "<b1></b><c"}},
        {"{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"at_least_one\":true,\"tags\":[" TAG(
             "<a>", ANY, "\"</a>\"") "]}",
         {"<a></a>", "<a></a> and <a>b</a>"},
         {"", "so <a></a>", "<a>"}},
        {"{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"stop_after_first\":true,\"tags\":"
         "[" TAG("<a>", ANY, "\"</a>\"") "]}",
         {"", "so", "so <a></a>"},
         {"<a></a> ", "<a></a><a></a>"}},
        {TAG("{",
             "{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"tags\":[" TAG("<a>", ANY,
                                                                                "\"</a>\"") "]}",
             "\"}\""),
         {"{}", "{x<a>}</a>y}", "{<a></a><a></a>}"},
         {"{x", "{x}y", "{<a>}", "{<a></a>"}},
        {"{\"type\":\"tags_with_separator\",\"separator\":\", \",\"tags\":[" TAG(
             "(", ANY, "\")\"") "," TAG("<", JSON_N, "\">\"") "]}",
         {"", "(a)", "(a), <{\"n\":2}>, (b)"},
         {"(a), ", "(a)(b)", "(a),(b)", "a"}},
        {"{\"type\":\"tags_with_separator\",\"separator\":\",\",\"at_least_one\":true,"
         "\"stop_after_first\":true,\"tags\":[" TAG("(", ANY, "\")\"") "]}",
         {"(a)", "()"},
         {"", "(a),(b)"}},
        {"{\"type\":\"repeat\",\"min\":1,\"max\":2,\"content\":{\"type\":\"regex\",\"pattern\":"
         "\"[ab]\"}}",
         {"a", "bb"},
         {"", "aba"}},
        {"{\"type\":\"sequence\",\"elements\":[{\"type\":\"optional\",\"content\":{\"type\":"
         "\"const_string\",\"value\":\"x\"}},{\"type\":\"plus\",\"content\":{\"type\":"
         "\"const_string\",\"value\":\"y\"}},{\"type\":\"star\",\"content\":{\"type\":"
         "\"const_string\",\"value\":\"z\"}}]}",
         {"y", "xyyzz", "yz"},
         {"x", "xxy", "z"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[4000];
        snprintf(text, sizeof text, FORMAT("%s"), rows[i].format);
        struct grammar *g = made(GRAMMAR_TAGS, text);
        for (size_t k = 0; k < 6; k++) {
            if (rows[i].takes[k])
                check(g, rows[i].takes[k], true);
            if (rows[i].not [k])
                check(g, rows[i].not [k], false);
        }
        grammar_unref(g);
    }
}

/* Where a mark is one token of the vocabulary it may come as that token. */
static void marks_may_be_control_tokens(void **state)
{
    static const char *const words[] = {"<tool_call>", "12", "</tool_call>"};
    (void)state;
    struct grammar *g =
        made(GRAMMAR_TAGS,
             FORMAT("{\"type\":\"triggered_tags\",\"triggers\":[\"<tool_\"],"
                    "\"tags\":[" TAG("<tool_call>", "{\"type\":\"regex\",\"pattern\":\"[0-9]+\"}",
                                     "\"</tool_call>\"") "]}"));
    struct grammar_state *s;
    struct err e = {0};
    assert_int_equal(grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_NONE, &e), 0);
    for (size_t i = 0; i < 3; i++) {
        int32_t id = tokenizer_find(small.tok, words[i]);
        const uint32_t *bits;
        if (id >= 0) {
            assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
            assert_true(mask_has(bits, id));
            assert_int_equal(grammar_state_accept(s, id, &e), 0);
            continue;
        }
        struct ids ids;
        ids_init(&ids, 16);
        assert_int_equal(tokenizer_encode(small.tok, words[i], strlen(words[i]), 0, NULL, &ids, &e),
                         0);
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(grammar_state_accept(s, ids.v[k], &e), 0);
        ids_release(&ids);
        assert_int_equal(i, 1); /* the marks are tokens */
    }
    grammar_state_free(s);
    grammar_unref(g);
}

static void tags_that_cannot_be(void **state)
{
    static const struct {
        const char *tag;
        int code;
        const char *words;
    } rows[] = {
        {"{}", ERR_FORMAT, "\"format\" is missing"},
        {"7", ERR_FORMAT, "object"},
        {FORMAT("{}"), ERR_FORMAT, "\"type\" is missing"},
        {FORMAT("{\"type\":\"token\",\"token\":7}"), ERR_UNSUPPORTED, "\"token\""},
        {FORMAT("{\"type\":\"const_string\"}"), ERR_FORMAT, "\"value\""},
        {FORMAT("{\"type\":\"regex\",\"pattern\":\"(\"}"), ERR_FORMAT, "("},
        {FORMAT("{\"type\":\"json_schema\",\"json_schema\":{\"type\":\"so\"}}"), ERR_FORMAT,
         "the schema: #/type"},
        {FORMAT("{\"type\":\"json_schema\",\"style\":\"qwen_xml\",\"json_schema\":{}}"), ERR_FORMAT,
         "style"},
        {FORMAT(TAG("<a>", ANY, "\"\"")), ERR_FORMAT, "\"end\""},
        {FORMAT(TAG("<a>", ANY, "7")), ERR_FORMAT, "\"end\""},
        {FORMAT("{\"type\":\"sequence\",\"elements\":[]}"), ERR_FORMAT, "\"elements\""},
        {FORMAT("{\"type\":\"repeat\",\"min\":3,\"max\":2,\"content\":" ANY "}"), ERR_FORMAT,
         "min"},
        {FORMAT("{\"type\":\"triggered_tags\",\"triggers\":[\"<\"],\"tags\":[]}"), ERR_FORMAT,
         "\"tags\""},
        {FORMAT("{\"type\":\"triggered_tags\",\"triggers\":[\"<\",\"<a\"],\"tags\":[" TAG(
             "<a>", ANY, "\"b\"") "]}"),
         ERR_FORMAT, "exactly one of the triggers"},
        {FORMAT("{\"type\":\"triggered_tags\",\"triggers\":[\"(\"],\"tags\":[" TAG("<a>", ANY,
                                                                                   "\"b\"") "]}"),
         ERR_FORMAT, "exactly one of the triggers"},
        {"{\"structures\":[{\"begin\":\"a\",\"end\":\"b\"}],\"triggers\":[\"a\"]}", ERR_FORMAT,
         "\"type\" is missing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        json_t *v = json_loads(rows[i].tag, JSON_DECODE_ANY, NULL);
        const struct grammar_form f = {.kind = GRAMMAR_TAGS, .json = v};
        struct grammar *g;
        struct err e = {0};
        int code = grammar_new(&g, &f, &e);
        if (code != rows[i].code || !strstr(e.text, rows[i].words))
            fail_msg("%s: %d, %s", rows[i].tag, code, e.text);
        json_decref(v);
    }
    enum { DEEP = 3000 }; /* nested without an end */
    char *text = malloc(DEEP * 64), *p = text;
    p += sprintf(p, "{\"format\":");
    for (int i = 0; i < DEEP / 2; i++)
        p += sprintf(p, "{\"type\":\"star\",\"content\":");
    p += sprintf(p, ANY);
    for (int i = 0; i < DEEP / 2; i++)
        p += sprintf(p, "}");
    sprintf(p, "}");
    json_t *v = json_loads(text, 0, NULL);
    assert_non_null(v);
    const struct grammar_form f = {.kind = GRAMMAR_TAGS, .json = v};
    struct grammar *g;
    struct err e = {0};
    assert_int_equal(grammar_new(&g, &f, &e), ERR_LIMIT);
    json_decref(v);
    free(text);
}

/* ---- calls, or an answer in a format -------------------------------------------------------- */

/* As tokens, the marks of calls among them. */
static void check_tokens(struct grammar *g, const char *text, bool want)
{
    struct grammar_state *s;
    struct ids ids;
    struct err e = {0};
    const uint32_t *bits;
    ids_init(&ids, 1000);
    assert_int_equal(
        tokenizer_encode(small.tok, text, strlen(text), TOKENIZER_SPECIAL, NULL, &ids, &e), 0);
    assert_int_equal(grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_NONE, &e), 0);
    bool taken = true;
    for (size_t i = 0; i < ids.n && taken; i++)
        taken = !grammar_state_accept(s, ids.v[i], &e);
    assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
    for (int32_t id = 0; taken && (size_t)id < tokenizer_count(small.tok); id++)
        taken = !tokenizer_is_end(small.tok, id) || mask_has(bits, id);
    if (taken != want)
        fail_msg("%s should%s be taken", text, want ? "" : " not");
    grammar_state_free(s);
    ids_release(&ids);
}

static void an_answer_is_calls_or_has_the_format(void **state)
{
    static const struct {
        enum grammar_call_form form;
        const char *call;
    } forms[] = {
        {GRAMMAR_CALL_HERMES, "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>"},
        {GRAMMAR_CALL_LLAMA, "{\"name\": \"now\", \"parameters\": {}}"},
        {GRAMMAR_CALL_DEEPSEEK,
         "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"
         "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
    };
    (void)state;
    json_t *schema = json_loads(N_SCHEMA, 0, NULL);
    const struct grammar_form answer = {.kind = GRAMMAR_SCHEMA, .json = schema};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const struct grammar_tool list[] = {{"now", NULL}};
        const struct grammar_tools t = {
            .form = forms[i].form, .tool = list, .n = 1, .parallel = true, .answer = &answer};
        char both[1000];
        struct grammar *g;
        struct err e = {0};
        assert_int_equal(grammar_new_tools(&g, &t, &e), 0);
        assert_true(grammar_has_calls(g));
        check_tokens(g, forms[i].call, true);
        check_tokens(g, "{\"n\": 3}", true);
        check_tokens(g, "", false);
        check_tokens(g, "words", false);
        check_tokens(g, "{\"m\": 3}", false);
        snprintf(both, sizeof both, "{\"n\": 3}%s", forms[i].call);
        check_tokens(g, both, false);
        snprintf(both, sizeof both, "%s{\"n\": 3}", forms[i].call);
        check_tokens(g, both, false);
        grammar_unref(g);
    }
    json_decref(schema);
}

/* ---- the cache ------------------------------------------------------------------------------ */

static struct grammar_key key_of(unsigned n)
{
    struct grammar_key k;
    sha256_of(&n, sizeof n, k.sum);
    return k;
}

static struct grammar *number(unsigned n)
{
    char s[32];
    struct grammar *g;
    struct err e = {0};
    snprintf(s, sizeof s, "%u", n);
    assert_int_equal(grammar_new_regex(&g, s, strlen(s), &e), 0);
    return g;
}

static void what_was_used_last_is_kept(void **state)
{
    struct grammar_cache *c;
    struct err e = {0};
    (void)state;
    assert_int_equal(grammar_cache_new(&c, 3, SIZE_MAX, &e), 0);
    struct grammar *first = NULL;
    for (unsigned i = 0; i < 4; i++) {
        struct grammar_key k = key_of(i), zero = key_of(0);
        assert_null(grammar_cache_find(c, &k));
        struct grammar *g = grammar_cache_add(c, &k, number(i));
        first = i ? first : grammar_ref(g);
        grammar_unref(g);
        g = grammar_cache_find(c, &zero); /* so 1 is the one that goes */
        assert_ptr_equal(g, first);
        grammar_unref(g);
    }
    for (unsigned i = 0; i < 4; i++) {
        struct grammar_key k = key_of(i);
        struct grammar *g = grammar_cache_find(c, &k);
        assert_int_equal(g != NULL, i != 1);
        if (g) {
            char s[8];
            snprintf(s, sizeof s, "%u", i);
            check(g, s, true);
        }
        grammar_unref(g);
    }
    struct grammar_key k = key_of(0);
    struct grammar *again = grammar_cache_add(c, &k, number(7)); /* somebody was first */
    assert_ptr_equal(again, first);
    grammar_unref(again);
    struct grammar_cache_stats s = grammar_cache_stats(c);
    assert_int_equal(s.grammars, 3);
    assert_int_equal(s.misses, 5);
    assert_int_equal(s.hits, 7);
    grammar_cache_free(c);
    check(first, "0", true); /* whoever holds it has it */
    grammar_unref(first);
}

/* Matchers grow as texts need them: what they hold counts. */
static void memory_is_bounded(void **state)
{
    enum { BYTES = 300000 };
    struct grammar_cache *c;
    struct err e = {0};
    (void)state;
    assert_int_equal(grammar_cache_new(&c, 64, BYTES, &e), 0);
    for (unsigned i = 0; i < 20; i++) {
        struct grammar_key k = key_of(i);
        struct grammar *g = grammar_cache_add(c, &k, made(GRAMMAR_SCHEMA, N_SCHEMA));
        struct grammar_state *s;
        const uint32_t *bits;
        assert_int_equal(grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_NONE, &e), 0);
        assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
        grammar_state_free(s);
        grammar_unref(g);
        g = grammar_cache_find(c, &k); /* measured anew */
        assert_non_null(g);
        grammar_unref(g);
        assert_true(grammar_cache_stats(c).bytes <= BYTES);
    }
    assert_in_range(grammar_cache_stats(c).grammars, 1, 19);
    grammar_cache_free(c);
}

static void *many(void *arg)
{
    struct grammar_cache *c = arg;
    struct err e = {0};
    for (unsigned i = 0; i < 300; i++) {
        unsigned n = i * 7 % 12;
        struct grammar_key k = key_of(n);
        struct grammar *g = grammar_cache_find(c, &k);
        char s[8];
        if (!g)
            g = grammar_cache_add(c, &k, number(n));
        struct grammar_state *st;
        const uint32_t *bits;
        int code = grammar_state_new(&st, g, small.v, GRAMMAR_THOUGHT_NONE, &e);
        code = code ? code : grammar_state_mask(st, &bits, &e);
        grammar_state_free(st);
        snprintf(s, sizeof s, "%u", n);
        bool ok = !code && grammar_takes(&small, g, s, strlen(s));
        grammar_unref(g);
        if (!ok)
            return arg;
    }
    return NULL;
}

static void threads_share_it(void **state)
{
    struct grammar_cache *c;
    struct err e = {0};
    pthread_t t[4];
    (void)state;
    assert_int_equal(grammar_cache_new(&c, 8, SIZE_MAX, &e), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, many, c), 0);
    for (size_t i = 0; i < 4; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(grammar_cache_stats(c).grammars, 8);
    grammar_cache_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tags_of_the_first_version),
        cmocka_unit_test(tags_of_the_second_version),
        cmocka_unit_test(marks_may_be_control_tokens),
        cmocka_unit_test(tags_that_cannot_be),
        cmocka_unit_test(an_answer_is_calls_or_has_the_format),
        cmocka_unit_test(what_was_used_last_is_kept),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(threads_share_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
