/* libponder as other programs use it: this file sees no header of ponder but the public one. */
#include <ponder.h>

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 1 << 16 };

struct heard {
    char text[3][TEXT]; /* by enum ponder_piece */
    int calls, stop_after;
};

static int hear(void *arg, enum ponder_piece kind, const char *s, size_t n)
{
    struct heard *h = arg;
    assert_true(strlen(h->text[kind]) + n < TEXT);
    strncat(h->text[kind], s, n);
    return ++h->calls == h->stop_after;
}

static struct ponder_model *open_model(const char *name)
{
    struct ponder_model_options o = PONDER_MODEL_OPTIONS;
    struct ponder_model *m = NULL;
    struct ponder_error e;
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    o.threads = 2;
    o.context = 256;
    if (ponder_model_open(&m, path, &o, &e))
        fail_msg("%s", e.text);
    return m;
}

static struct ponder_session *new_session(struct ponder_model *m)
{
    struct ponder_session *s = NULL;
    struct ponder_error e;
    if (ponder_session_new(&s, m, &e))
        fail_msg("%s", e.text);
    return s;
}

static struct ponder_generation how(struct heard *h)
{
    struct ponder_generation g = PONDER_GENERATION;
    memset(h, 0, sizeof *h);
    g.temperature = 0;
    g.max_tokens = 12;
    g.emit = hear;
    g.arg = h;
    return g;
}

static void test_models(void **state)
{
    (void)state;
    struct ponder_model *m = open_model("qwen2_tied");
    struct ponder_model_info i = PONDER_MODEL_INFO;
    struct ponder_error e;
    assert_int_equal(ponder_api_version(), PONDER_API_VERSION);
    assert_non_null(strchr(ponder_version(), '.'));
    assert_int_equal(ponder_model_info(m, &i, &e), 0);
    assert_string_equal(i.arch, "qwen2");
    assert_int_equal(i.vocabulary, 512);
    assert_int_equal(i.context, 256);
    assert_int_equal(i.threads, 2);
    i.size = 0;
    assert_int_equal(ponder_model_info(m, &i, &e), PONDER_USAGE);
    ponder_model_close(m);
    ponder_model_close(NULL);
    assert_int_not_equal(ponder_model_open(&m, "/nowhere/model.gguf", NULL, &e), 0);
    assert_null(m);
    assert_non_null(strstr(e.text, "/nowhere/model.gguf"));
    assert_int_not_equal(ponder_model_open(&m, "/nowhere/model.gguf", NULL, NULL), 0);
    struct ponder_model_options o = PONDER_MODEL_OPTIONS;
    o.kv_type = "q3";
    assert_int_equal(ponder_model_open(&m, "/nowhere", &o, &e), PONDER_USAGE);
    assert_non_null(strstr(e.text, "q3"));
    /* A caller that knows only the first fields: the rest is not read. */
    struct {
        size_t size;
        int threads;
        int end;
        unsigned char poison[256];
    } old = {offsetof(struct ponder_model_options, context), 1, 0, {0}};
    memset(old.poison, 0xee, sizeof old.poison);
    assert_int_equal(ponder_model_open(&m, GOLDEN_DIR "/models/qwen2_tied",
                                       (const struct ponder_model_options *)(const void *)&old, &e),
                     0);
    ponder_model_close(m);
}

static void test_tokens(void **state)
{
    (void)state;
    struct ponder_model_options o = PONDER_MODEL_OPTIONS;
    struct ponder_model *m;
    struct ponder_session *s;
    struct ponder_error e;
    const char *text = "Hello, <|im_end|> w\xc3\xb6rld";
    int32_t ids[64];
    char back[64];
    size_t n, again;
    o.tokenizer_only = 1;
    assert_int_equal(ponder_model_open(&m, GOLDEN_DIR "/models/qwen2_tied", &o, &e), 0);
    assert_int_equal(ponder_tokenize(m, text, strlen(text), 0, ids, 64, &n, &e), 0);
    assert_int_equal(ponder_detokenize(m, ids, n, back, sizeof back, &again, &e), 0);
    assert_int_equal(again, strlen(text));
    assert_string_equal(back, text);
    assert_int_equal(ponder_tokenize(m, text, strlen(text), PONDER_SPECIAL, ids, 64, &again, &e),
                     0);
    assert_true(again < n); /* the control token is one */
    assert_int_equal(ponder_tokenize(m, text, strlen(text), 0, NULL, 0, &again, &e), PONDER_LIMIT);
    assert_int_equal(again, n);
    assert_int_equal(ponder_tokenize(m, text, strlen(text), 0, ids, n, &n, &e), 0);
    assert_int_equal(ponder_detokenize(m, ids, n, back, strlen(text), &again, &e), PONDER_LIMIT);
    assert_int_equal(again, strlen(text));
    assert_int_equal(ponder_tokenize(m, text, 3, 64, ids, 64, &n, NULL), PONDER_USAGE);
    ids[0] = 99999;
    assert_int_equal(ponder_detokenize(m, ids, 1, back, sizeof back, &n, &e), PONDER_USAGE);
    assert_int_equal(ponder_session_new(&s, m, &e), PONDER_USAGE);
    assert_null(s);
    ponder_model_close(m);
}

static void test_generate(void **state)
{
    (void)state;
    struct ponder_model *m = open_model("qwen2_tied");
    struct ponder_session *s = new_session(m);
    struct heard *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    struct ponder_generation g = how(a);
    struct ponder_result r = PONDER_RESULT;
    struct ponder_error e;
    int32_t ids[] = {5, 6, 7, 8, 9}, none = 512;
    assert_int_equal(ponder_generate(s, ids, 5, &g, &r, &e), 0);
    assert_int_equal(r.prompt_tokens, 5);
    assert_int_equal(r.stop, PONDER_STOP_LENGTH);
    assert_int_equal(r.answer_tokens, 12);
    assert_true(strlen(a->text[PONDER_ANSWER]) > 0);
    /* The same again, from the cache. */
    g = how(b);
    assert_int_equal(ponder_generate(s, ids, 5, &g, &r, &e), 0);
    assert_string_equal(a->text[PONDER_ANSWER], b->text[PONDER_ANSWER]);
    assert_true(r.reused_tokens > 0);
    /* A seed is a promise; without callbacks and result it works as well. */
    g = how(a);
    g.temperature = 1;
    g.seed = 7;
    assert_int_equal(ponder_generate(s, ids, 5, &g, NULL, NULL), 0);
    g = how(b);
    g.temperature = 1;
    g.seed = 7;
    assert_int_equal(ponder_generate(s, ids, 5, &g, NULL, NULL), 0);
    assert_string_equal(a->text[PONDER_ANSWER], b->text[PONDER_ANSWER]);
    /* Stopped from inside. */
    g = how(b);
    b->stop_after = 1;
    assert_int_equal(ponder_generate(s, ids, 5, &g, &r, &e), PONDER_CANCELLED);
    assert_int_equal(r.stop, PONDER_STOP_CANCELLED);
    assert_int_equal(b->calls, 1);
    assert_int_equal(ponder_generate(s, &none, 1, &g, &r, &e), PONDER_USAGE);
    assert_int_equal(ponder_generate(s, ids, 0, &g, &r, &e), PONDER_USAGE);
    g.size = 1;
    assert_int_equal(ponder_generate(s, ids, 5, &g, &r, &e), PONDER_USAGE);
    g = how(b);
    g.temperature = 1000;
    assert_int_equal(ponder_generate(s, ids, 5, &g, &r, &e), PONDER_USAGE);
    assert_non_null(strstr(e.text, "temperature"));
    ponder_session_free(s);
    ponder_session_free(NULL);
    ponder_model_close(m);
    free(a);
    free(b);
}

static void test_chat(void **state)
{
    (void)state;
    struct ponder_model *m = open_model("qwen2_tied");
    struct ponder_session *s = new_session(m);
    struct heard *a = malloc(sizeof *a), *b = malloc(sizeof *b);
    struct ponder_generation g = how(a);
    struct ponder_result r = PONDER_RESULT, r2 = PONDER_RESULT;
    struct ponder_error e;
    assert_int_equal(ponder_chat_message(s, "system", "Be brief.", 9, &e), 0);
    assert_int_equal(ponder_chat(s, "Hello", 5, &g, &r, &e), 0);
    assert_int_equal(ponder_chat(s, "Again", 5, &g, &r2, &e), 0);
    assert_true(r2.prompt_tokens > r.prompt_tokens + 5); /* the conversation grows */
    assert_true(r2.reused_tokens > 0);
    /* A new conversation knows nothing of the old one. */
    assert_int_equal(ponder_chat_clear(s, &e), 0);
    g = how(a);
    assert_int_equal(ponder_chat(s, "Hello", 5, &g, &r, &e), 0);
    assert_int_equal(ponder_chat_clear(s, NULL), 0);
    g = how(b);
    assert_int_equal(ponder_chat(s, "Hello", 5, &g, &r2, &e), 0);
    assert_int_equal(r.prompt_tokens, r2.prompt_tokens);
    assert_string_equal(a->text[PONDER_ANSWER], b->text[PONDER_ANSWER]);
    /* What goes wrong leaves the conversation as it was. */
    assert_int_equal(ponder_chat(s, "\xff", 1, &g, &r, &e), PONDER_USAGE);
    char *big = malloc(TEXT);
    memset(big, 'x', TEXT);
    assert_int_equal(ponder_chat(s, big, TEXT, &g, &r, &e), PONDER_LIMIT);
    assert_non_null(strstr(e.text, "context"));
    free(big);
    size_t before = r2.prompt_tokens + r2.answer_tokens;
    g = how(b);
    assert_int_equal(ponder_chat(s, "x", 1, &g, &r, &e), 0);
    assert_true(r.prompt_tokens > before && r.prompt_tokens < before + 40);
    ponder_session_free(s);
    ponder_model_close(m);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_models),
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_generate),
        cmocka_unit_test(test_chat),
    };
    return cmocka_run_group_tests_name("api", tests, NULL, NULL);
}
