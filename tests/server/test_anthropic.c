#include "fake_http.h"
#include "models.h"
#include "server/anthropic.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *folder;
static struct server *server;

static int setup(void **state)
{
    (void)state;
    folder = models_folder();
    models_add(folder, "always", "qwen2_tied", models_always);
    models_add(folder, "plain", "qwen2_tied", models_plain);
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
#define TOOLS                                                                             \
    "\"tools\":[{\"name\":\"get_weather\",\"description\":\"?\",\"input_schema\":"        \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\"]}},\"required\":" \
    "[\"city\"],\"additionalProperties\":false}}]"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    if (!s) {
        char *all = json_dumps(o, 0);
        fail_msg("no text %s in %s", key, all);
    }
    return s;
}

static json_t *ask(const char *members)
{
    int status;
    json_t *o = fake_ask(server, anthropic_messages, &status, "{%s}", members);
    if (status != 200) {
        char *all = json_dumps(o, 0);
        fail_msg("%d %s to %s", status, all, members);
    }
    return o;
}

static const json_t *block(const json_t *o, size_t i)
{
    return json_array_get(json_object_get(o, "content"), i);
}

/* A stream put together as Anthropic's libraries do it: the message that it makes. */
static json_t *stream(const char *members)
{
    struct http_exchange *x =
        fake_send(server, anthropic_messages, "{%s,\"stream\":true}", members);
    json_t *message = NULL, *content = json_array();
    bool open = false, stopped = false;
    char part[8000] = "";
    fake_wait(x);
    for (char *p = x->out.data, *end; *p; p = end + 2) {
        assert_memory_equal(p, "event: ", 7);
        assert_false(stopped);
        end = strstr(p, "\n\n");
        assert_non_null(end);
        *end = 0;
        char *line = strstr(p, "\ndata: ");
        assert_non_null(line);
        json_t *o = json_loads(line + 7, JSON_ALLOW_NUL, NULL);
        const char *type = text_of(o, "type");
        assert_int_equal(strncmp(p + 7, type, strlen(type)), 0);
        json_t *index = json_object_get(o, "index"), *delta = json_object_get(o, "delta");
        if (index)
            assert_int_equal(json_integer_value(index), json_array_size(content) - open);
        if (!strcmp(type, "message_start")) {
            assert_null(message);
            message = json_deep_copy(json_object_get(o, "message"));
            assert_int_equal(json_array_size(json_object_get(message, "content")), 0);
        } else if (!strcmp(type, "content_block_start")) {
            assert_false(open);
            open = true;
            part[0] = 0;
            json_array_append_new(content, json_deep_copy(json_object_get(o, "content_block")));
        } else if (!strcmp(type, "content_block_delta")) {
            static const char *const keys[] = {"text", "thinking", "partial_json"};
            assert_true(open);
            for (size_t k = 0; k < 3; k++)
                if (json_object_get(delta, keys[k]))
                    strcat(part, text_of(delta, keys[k]));
        } else if (!strcmp(type, "content_block_stop")) {
            json_t *b = json_array_get(content, json_array_size(content) - 1);
            const char *kind = text_of(b, "type");
            assert_true(open);
            open = false;
            if (!strcmp(kind, "tool_use"))
                json_object_set_new(b, "input", json_loads(part, 0, NULL));
            else
                json_object_set_new(b, kind, json_string(part));
        } else if (!strcmp(type, "message_delta")) {
            json_object_update(message, delta);
            json_object_set(message, "usage", json_object_get(o, "usage"));
        } else {
            assert_string_equal(type, "message_stop");
            stopped = true;
        }
        json_decref(o);
    }
    assert_true(stopped && !open);
    json_object_set_new(message, "content", content);
    fake_free(x);
    return message;
}

/* Equal but for what each answer has of its own. */
static void same(json_t *a, json_t *b)
{
    json_object_del(a, "id");
    json_object_del(b, "id");
    json_object_del(json_object_get(a, "usage"), "cache_read_input_tokens");
    json_object_del(json_object_get(b, "usage"), "cache_read_input_tokens");
    json_object_del(json_object_get(a, "usage"), "input_tokens");
    json_object_del(json_object_get(b, "usage"), "input_tokens");
    for (size_t i = 0; i < json_array_size(json_object_get(a, "content")); i++) {
        json_object_del(json_array_get(json_object_get(a, "content"), i), "id");
        json_object_del(json_array_get(json_object_get(b, "content"), i), "id");
    }
    if (!json_equal(a, b)) {
        char *x = json_dumps(a, 0), *y = json_dumps(b, 0);
        fail_msg("%s\nand\n%s", x, y);
    }
    json_decref(a);
    json_decref(b);
}

static void a_message_has_the_shape(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":20,\"temperature\":0," HELLO;
    (void)state;
    json_t *o = ask(members);
    assert_string_equal(text_of(o, "type"), "message");
    assert_string_equal(text_of(o, "role"), "assistant");
    assert_string_equal(text_of(o, "model"), "plain");
    assert_int_equal(strncmp(text_of(o, "id"), "msg_", 4), 0);
    assert_string_equal(text_of(block(o, 0), "type"), "text");
    assert_string_equal(text_of(o, "stop_reason"), "max_tokens");
    assert_true(json_is_null(json_object_get(o, "stop_sequence")));
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(o, "usage"), "output_tokens")), 20);
    same(o, stream(members));
}

static void thoughts_are_blocks(void **state)
{
    static const char members[] =
        "\"model\":\"always\",\"max_tokens\":40,\"temperature\":0,\"thinking\":"
        "{\"type\":\"enabled\",\"budget_tokens\":6}," HELLO;
    (void)state;
    json_t *o = ask(members);
    assert_string_equal(text_of(block(o, 0), "type"), "thinking");
    assert_string_equal(text_of(block(o, 0), "signature"), "");
    assert_string_equal(text_of(block(o, 1), "type"), "text");
    same(o, stream(members));
    o = ask("\"model\":\"always\",\"max_tokens\":10,\"thinking\":{\"type\":\"disabled\"}," HELLO);
    assert_string_equal(text_of(block(o, 0), "type"), "text");
    json_decref(o);
}

static void calls_are_blocks(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":200,\"temperature\":0,"
                                  "\"tool_choice\":{\"type\":\"tool\",\"name\":\"get_weather\","
                                  "\"disable_parallel_tool_use\":true}," TOOLS "," HELLO;
    (void)state;
    json_t *o = ask(members);
    const json_t *b = block(o, 0);
    assert_string_equal(text_of(b, "type"), "tool_use");
    assert_string_equal(text_of(b, "name"), "get_weather");
    assert_int_equal(strncmp(text_of(b, "id"), "toolu_", 6), 0);
    assert_string_equal(text_of(json_object_get(b, "input"), "city"), "Paris");
    assert_string_equal(text_of(o, "stop_reason"), "tool_use");
    same(o, stream(members));
}

static void results_and_blocks_come_back_as_history(void **state)
{
    int status;
    (void)state;
    json_t *o = fake_ask(
        server, anthropic_count_tokens, &status, "%s",
        "{\"model\":\"plain\",\"system\":[{\"type\":\"text\",\"text\":\"be brief\"}]," TOOLS
        ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
        "\"signature\":\"\"},{\"type\":\"text\",\"text\":\"b\"},{\"type\":\"tool_use\",\"id\":"
        "\"t1\",\"name\":\"get_weather\",\"input\":{\"city\":\"Paris\"}}]},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\","
        "\"content\":[{\"type\":\"text\",\"text\":\"rain\"}]},{\"type\":\"text\",\"text\":\"so?\"}"
        "]}]}");
    assert_int_equal(status, 200);
    json_int_t with = json_integer_value(json_object_get(o, "input_tokens"));
    assert_true(with > 50);
    assert_int_equal(json_object_size(o), 1);
    json_decref(o);
    /* The count is that of the answer's prompt. */
    o = fake_ask(server, anthropic_count_tokens, &status, "{\"model\":\"plain\"," HELLO "}");
    json_t *m = ask("\"model\":\"plain\",\"max_tokens\":1," HELLO);
    json_t *u = json_object_get(m, "usage");
    assert_int_equal(json_integer_value(json_object_get(o, "input_tokens")),
                     json_integer_value(json_object_get(u, "input_tokens")) +
                         json_integer_value(json_object_get(u, "cache_read_input_tokens")));
    json_decref(m);
    json_decref(o);
}

static void bad_requests_are_told_why(void **state)
{
    static const char *const rows[][2] = {
        {"\"model\":\"plain\"," HELLO, "max_tokens is missing"},
        {"\"max_tokens\":5," HELLO, "model is missing"},
        {"\"model\":\"plain\",\"max_tokens\":5", "messages is missing"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"messages\":[]", "messages is empty"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":"
         "[{\"type\":\"image\"}]}]",
         "only text"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":"
         "[{\"type\":\"tool_result\"}]}]",
         "tool_use_id"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"tool_choice\":{\"type\":\"any\"}," HELLO,
         "needs tools"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"tool_choice\":{\"type\":\"tool\",\"name\":\"x\"}"
         "," TOOLS "," HELLO,
         "not there"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"tools\":[{\"name\":\"a\"}]," HELLO,
         "input_schema"},
        {"\"model\":\"plain\",\"max_tokens\":5,\"system\":7," HELLO, "system"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status;
        json_t *o = fake_ask(server, anthropic_messages, &status, "{%s}", rows[i][0]);
        const char *text = text_of(json_object_get(o, "error"), "message");
        if (status != 400 || !strstr(text, rows[i][1]))
            fail_msg("%s: %d %s", rows[i][0], status, text);
        json_decref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_has_the_shape),
        cmocka_unit_test(thoughts_are_blocks),
        cmocka_unit_test(calls_are_blocks),
        cmocka_unit_test(results_and_blocks_come_back_as_history),
        cmocka_unit_test(bad_requests_are_told_why),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
