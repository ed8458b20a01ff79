/* Ollama's API: what its handlers answer to what clients send, streamed and whole. */
#include "fake_http.h"
#include "models.h"
#include "server/ollama.h"

// clang-format off
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *folder;
static struct server *server;

static int setup(void **state)
{
    (void)state;
    folder = models_folder();
    models_add(folder, "always", "qwen2_tied", models_always);
    models_add(folder, "plain", "qwen2_tied", models_plain);
    models_add(folder, "switch", "qwen2_tied", models_switch);
    server = fake_server(folder, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_stop(server);
    models_drop(folder);
    return 0;
}

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"
#define FEW ",\"options\":{\"num_predict\":6,\"temperature\":0}"

static json_t *ok(void (*fn)(void *arg, struct http_exchange *x), const char *members)
{
    int status;
    json_t *o = fake_ask(server, fn, &status, "{%s}", members);
    if (status != 200 || json_object_get(o, "error"))
        fail_msg("%d %s", status, json_dumps(o, 0));
    return o;
}

static void refused(void (*fn)(void *arg, struct http_exchange *x), int want, const char *words,
                    const char *members)
{
    int status;
    json_t *o = fake_ask(server, fn, &status, "{%s}", members);
    json_t *error = json_object_get(o, "error");
    const char *text = json_string_value(json_object_get(error, "message"));
    if (status != want || !text || !strstr(text, words))
        fail_msg("%d %s to %s", status, json_dumps(o, 0), members);
    json_decref(o);
}

static const char *text_of(json_t *o, const char *a, const char *b)
{
    json_t *v = json_object_get(o, a);
    return json_string_value(b ? json_object_get(v, b) : v);
}

/* Lines of a stream; exactly one newline each, and nothing else. */
static json_t *lines(void (*fn)(void *arg, struct http_exchange *x), const char *members)
{
    struct http_exchange *x = fake_send(server, fn, "{%s}", members);
    json_t *all = json_array();
    fake_wait(x);
    assert_int_equal(x->kind, HTTP_LINES);
    for (char *p = x->out.data; *p;) {
        char *end = strchr(p, '\n');
        assert_non_null(end);
        *end = 0;
        json_t *v = json_loads(p, 0, NULL);
        if (!v)
            fail_msg("no JSON: \"%s\"", p);
        json_array_append_new(all, v);
        p = end + 1;
    }
    fake_free(x);
    return all;
}

static void test_chat(void **state)
{
    (void)state;
    json_t *o = ok(ollama_chat, "\"model\":\"plain\",\"stream\":false," HELLO FEW);
    assert_string_equal(text_of(o, "model", NULL), "plain");
    assert_string_equal(text_of(o, "message", "role"), "assistant");
    assert_non_null(text_of(o, "message", "content"));
    assert_true(json_is_true(json_object_get(o, "done")));
    assert_int_equal(json_integer_value(json_object_get(o, "eval_count")), 6);
    assert_string_equal(text_of(o, "done_reason", NULL), "length");
    json_int_t total = json_integer_value(json_object_get(o, "total_duration"));
    json_int_t eval = json_integer_value(json_object_get(o, "eval_duration"));
    assert_true(total > 0 && eval >= 0 && total >= eval);
    assert_true(json_integer_value(json_object_get(o, "prompt_eval_count")) > 3);
    json_decref(o);
}

static void test_stream_is_the_same(void **state)
{
    (void)state;
    json_t *whole = ok(ollama_chat, "\"model\":\"plain:latest\",\"stream\":false," HELLO FEW);
    json_t *all = lines(ollama_chat, "\"model\":\"plain:latest\"," HELLO FEW), *one;
    char text[1000] = "";
    size_t i, n = json_array_size(all);
    assert_true(n > 1);
    json_array_foreach(all, i, one)
    {
        const char *s = text_of(one, "message", "content");
        assert_non_null(s);
        assert_int_equal(json_is_true(json_object_get(one, "done")), i + 1 == n);
        if (i + 1 < n)
            assert_true(*s); /* older clients stop at an empty content */
        strncat(text, s, sizeof text - strlen(text) - 1);
    }
    assert_string_equal(text, text_of(whole, "message", "content"));
    json_decref(all);
    json_decref(whole);
}

static void test_thoughts(void **state)
{
    (void)state;
    json_t *all = lines(ollama_chat, "\"model\":\"always\"," HELLO FEW), *one;
    size_t i, thoughts = 0;
    json_array_foreach(all, i, one)
    {
        thoughts += text_of(one, "message", "thinking") != NULL;
        assert_string_equal(text_of(one, "message", "content"), "");
    }
    assert_true(thoughts > 0);
    json_decref(all);
    static const char *const off[] = {"always", "switch"};
    for (i = 0; i < 2; i++) {
        char members[300];
        snprintf(members, sizeof members,
                 "\"model\":\"%s\",\"stream\":false,\"think\":false," HELLO FEW, off[i]);
        json_t *o = ok(ollama_chat, members);
        assert_null(text_of(o, "message", "thinking"));
        assert_true(*text_of(o, "message", "content"));
        json_decref(o);
    }
    refused(ollama_chat, 400, "does not support thinking",
            "\"model\":\"plain\",\"think\":true," HELLO);
    json_decref(
        ok(ollama_chat, "\"model\":\"always\",\"stream\":false,\"think\":\"low\"," HELLO FEW));
}

static void test_inline_thoughts(void **state)
{
    (void)state;
    server->o.ollama_think = SERVER_THINK_INLINE;
    json_t *all = lines(ollama_chat, "\"model\":\"always\"," HELLO FEW), *one;
    char text[1000] = "";
    size_t i;
    json_array_foreach(all, i, one)
    {
        const char *s = text_of(one, "message", "content");
        assert_true(*s); /* never empty: what this form is for */
        assert_null(text_of(one, "message", "thinking"));
        strncat(text, s, sizeof text - strlen(text) - 1);
    }
    server->o.ollama_think = SERVER_THINK_AUTO;
    assert_memory_equal(text, "<think>\n", 8);
    assert_non_null(strstr(text, "</think>"));
    json_decref(all);
}

static void test_generate_and_context(void **state)
{
    (void)state;
    json_t *o =
        ok(ollama_generate, "\"model\":\"plain\",\"prompt\":\"Hello\",\"stream\":false" FEW);
    json_t *context = json_object_get(o, "context");
    json_int_t first = json_integer_value(json_object_get(o, "prompt_eval_count"));
    assert_non_null(text_of(o, "response", NULL));
    assert_true(json_array_size(context) >= (size_t)first + 5);
    char *ids = json_dumps(context, 0), members[4000];
    snprintf(members, sizeof members,
             "\"model\":\"plain\",\"prompt\":\"More\",\"stream\":false,\"context\":%s" FEW, ids);
    json_t *more = ok(ollama_generate, members);
    assert_true(json_integer_value(json_object_get(more, "prompt_eval_count")) >
                first + 5); /* what was said before is in the prompt */
    json_decref(more);
    more = ok(ollama_generate,
              "\"model\":\"plain\",\"prompt\":\"Hello\",\"raw\":true,\"stream\":false" FEW);
    assert_true(json_integer_value(json_object_get(more, "prompt_eval_count")) < first);
    assert_null(json_object_get(more, "context"));
    json_decref(more);
    free(ids);
    json_decref(o);
    refused(ollama_generate, 400, "out of vocabulary",
            "\"model\":\"plain\",\"prompt\":\"x\",\"context\":[-1]");
}

static void test_load_and_unload(void **state)
{
    (void)state;
    json_t *o = ok(ollama_generate, "\"model\":\"plain\"");
    assert_string_equal(text_of(o, "done_reason", NULL), "load");
    json_decref(o);
    int status;
    json_t *ps = fake_ask(server, ollama_ps, &status, "{}"), *row;
    size_t i, seen = 0;
    json_array_foreach(json_object_get(ps, "models"), i, row) seen +=
        !strcmp(text_of(row, "name", NULL), "plain:latest") && text_of(row, "expires_at", NULL);
    assert_int_equal(seen, 1);
    json_decref(ps);
    o = ok(ollama_chat, "\"model\":\"plain\",\"messages\":[],\"keep_alive\":0");
    assert_string_equal(text_of(o, "done_reason", NULL), "unload");
    json_decref(o);
}

static void test_formats(void **state)
{
    (void)state;
#define SCHEMA                                                                        \
    "{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":0," \
    "\"maximum\":9}},\"required\":[\"n\"],\"additionalProperties\":false}"
    static const char *const models[] = {"\"plain\"", "\"switch\",\"think\":false"};
    for (size_t i = 0; i < 2; i++) {
        char members[500];
        snprintf(members, sizeof members,
                 "\"model\":%s,\"stream\":false,\"format\":" SCHEMA
                 ",\"options\":{\"num_predict\":200}," HELLO,
                 models[i]);
        json_t *o = ok(ollama_chat, members);
        json_t *v = json_loads(text_of(o, "message", "content"), 0, NULL);
        json_t *n = json_object_get(v, "n");
        assert_true(json_is_integer(n) && json_integer_value(n) >= 0 && json_integer_value(n) <= 9);
        json_decref(v);
        json_decref(o);
    }
    refused(ollama_chat, 400, "format", "\"model\":\"plain\",\"format\":\"xml\"," HELLO);
}

static void test_embed(void **state)
{
    (void)state;
    json_t *o =
        ok(ollama_embed, "\"model\":\"plain\",\"input\":[\"one\",\"two\"],\"truncate\":true,"
                         "\"options\":{\"use_mmap\":true}");
    json_t *all = json_object_get(o, "embeddings"), *x;
    assert_int_equal(json_array_size(all), 2);
    double sum = 0;
    size_t i;
    json_array_foreach(json_array_get(all, 0), i, x) sum += json_real_value(x) * json_real_value(x);
    assert_true(fabs(sum - 1) < 1e-4);
    json_t *old = ok(ollama_embeddings, "\"model\":\"plain\",\"prompt\":\"one\"");
    assert_true(json_equal(json_object_get(old, "embedding"), json_array_get(all, 0)));
    json_decref(old);
    json_decref(o);
    refused(ollama_embed, 400, "input", "\"model\":\"plain\",\"input\":[1]");
    refused(ollama_embed, 400, "dimensions",
            "\"model\":\"plain\",\"input\":\"x\",\"dimensions\":3");
}

static void test_lists(void **state)
{
    (void)state;
    int status;
    json_t *o = fake_ask(server, ollama_tags, &status, "{}"), *row;
    size_t i;
    assert_int_equal(json_array_size(json_object_get(o, "models")), 3);
    json_array_foreach(json_object_get(o, "models"), i, row)
    {
        static const char *const keys[] = {"name", "model", "modified_at", "digest"};
        for (size_t k = 0; k < 4; k++)
            assert_non_null(text_of(row, keys[k], NULL));
        assert_int_equal(strlen(text_of(row, "digest", NULL)), 64);
        assert_true(json_integer_value(json_object_get(row, "size")) > 1000);
        assert_non_null(text_of(row, "details", "quantization_level"));
    }
    json_decref(o);
    o = ok(ollama_show, "\"model\":\"always\",\"verbose\":true");
    assert_string_equal(text_of(o, "model_info", "general.architecture"), "qwen2");
    assert_non_null(strstr(text_of(o, "template", NULL), "think"));
    assert_true(json_array_size(json_object_get(o, "tensors")) > 5);
    bool thinks = false;
    json_array_foreach(json_object_get(o, "capabilities"), i, row) thinks |=
        !strcmp(json_string_value(row), "thinking");
    assert_true(thinks);
    json_decref(o);
    refused(ollama_show, 404, "nobody", "\"model\":\"nobody\"");
}

static void test_wrong_requests(void **state)
{
    (void)state;
    static const struct {
        int status;
        const char *words, *members;
    } rows[] = {
        {400, "model", HELLO},
        {404, "nobody", "\"model\":\"nobody\"," HELLO},
        {400, "options.temperature", "\"model\":\"plain\",\"options\":{\"temperature\":-1}," HELLO},
        {400, "options.temperature",
         "\"model\":\"plain\",\"options\":{\"temperature\":\"hot\"}," HELLO},
        {400, "options.num_ctx", "\"model\":\"plain\",\"options\":{\"num_ctx\":2147483648}," HELLO},
        {400, "options.top_k", "\"model\":\"plain\",\"options\":{\"top_k\":-5}," HELLO},
        {400, "options.stop", "\"model\":\"plain\",\"options\":{\"stop\":[\"\"]}," HELLO},
        {400, "keep_alive", "\"model\":\"plain\",\"keep_alive\":\"abc\"," HELLO},
        {400, "keep_alive", "\"model\":\"plain\",\"keep_alive\":{}," HELLO},
        {400, "think", "\"model\":\"always\",\"think\":\"very\"," HELLO},
        {400, "template", "\"model\":\"plain\",\"template\":\"{{ .Prompt }}\"," HELLO},
        {400, "messages", "\"model\":\"plain\",\"messages\":{}"},
        {400, "messages", "\"model\":\"plain\",\"messages\":[{}]"},
        {400, "messages",
         "\"model\":\"plain\",\"messages\":[{\"role\":\"god\",\"content\":\"x\"}]"},
        {400, "image",
         "\"model\":\"plain\",\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"images\":["
         "\"AAAA\"]}]"},
        {400, "top_logprobs", "\"model\":\"plain\",\"logprobs\":true,\"top_logprobs\":21," HELLO},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refused(ollama_chat, rows[i].status, rows[i].words, rows[i].members);
    /* what looks strange and is right */
    static const char *const good[] = {
        "\"keep_alive\":\"99999999h\"",
        "\"keep_alive\":-1",
        "\"keep_alive\":\"1h30m\"",
        "\"keep_alive\":\"5m0s\"",
        "\"keep_alive\":null",
        "\"tools\":[]",
        "\"format\":\"\"",
        "\"unknown\":[1]",
        "\"think\":null",
        "\"stream\":null,\"truncate\":true",
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char members[400];
        snprintf(members, sizeof members, "\"model\":\"plain\",%s," HELLO FEW, good[i]);
        json_decref(lines(ollama_chat, members));
    }
}

static void test_logprobs(void **state)
{
    (void)state;
    json_t *o = ok(ollama_chat, "\"model\":\"plain\",\"stream\":false,\"logprobs\":true,"
                                "\"top_logprobs\":2," HELLO FEW);
    json_t *probs = json_object_get(o, "logprobs"), *one = json_array_get(probs, 0);
    assert_int_equal(json_array_size(probs), 6);
    assert_int_equal(json_array_size(json_object_get(one, "top_logprobs")), 2);
    assert_true(json_real_value(json_object_get(one, "logprob")) <= 0);
    assert_non_null(text_of(one, "token", NULL));
    json_decref(o);
}

static void test_client_that_leaves(void **state)
{
    (void)state;
    struct http_exchange *x = fake_send(
        server, ollama_chat, "{\"model\":\"plain\"," HELLO ",\"options\":{\"num_predict\":900}}");
    fake_leave(x);
    fake_wait(x);
    fake_free(x);
    json_decref(ok(ollama_chat, "\"model\":\"plain\",\"stream\":false," HELLO FEW));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat),
        cmocka_unit_test(test_stream_is_the_same),
        cmocka_unit_test(test_thoughts),
        cmocka_unit_test(test_inline_thoughts),
        cmocka_unit_test(test_generate_and_context),
        cmocka_unit_test(test_load_and_unload),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_wrong_requests),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_client_that_leaves),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
