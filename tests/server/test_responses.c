#include "fake_http.h"
#include "models.h"
#include "server/responses.h"

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

#define TOOLS                                                                             \
    "\"tools\":[{\"type\":\"function\",\"name\":\"get_weather\",\"parameters\":"          \
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
    json_t *o = fake_ask(server, responses_create, &status, "{%s}", members);
    if (status != 200) {
        char *all = json_dumps(o, 0);
        fail_msg("%d %s to %s", status, all, members);
    }
    return o;
}

static const json_t *output(const json_t *o, size_t i)
{
    return json_array_get(json_object_get(o, "output"), i);
}

static const char *output_text(const json_t *o, size_t i)
{
    return text_of(json_array_get(json_object_get(output(o, i), "content"), 0), "text");
}

/* A stream: its last response, after every event was held against the ones before it. */
static json_t *stream(const char *members)
{
    struct http_exchange *x = fake_send(server, responses_create, "{%s,\"stream\":true}", members);
    json_t *last = NULL, *items = json_array();
    json_int_t number = 0;
    char part[8000] = "";
    fake_wait(x);
    for (char *p = x->out.data, *end; *p; p = end + 2) {
        assert_memory_equal(p, "event: ", 7);
        assert_null(last);
        end = strstr(p, "\n\n");
        assert_non_null(end);
        *end = 0;
        json_t *o = json_loads(strstr(p, "\ndata: ") + 7, JSON_ALLOW_NUL, NULL);
        const char *type = text_of(o, "type");
        assert_int_equal(strncmp(p + 7, type, strlen(type)), 0);
        assert_int_equal(json_integer_value(json_object_get(o, "sequence_number")), number++);
        if (!strcmp(type, "response.output_item.added")) {
            part[0] = 0;
            assert_string_equal(text_of(json_object_get(o, "item"), "status"), "in_progress");
        } else if (strstr(type, ".delta")) {
            strcat(part, text_of(o, "delta"));
        } else if (!strcmp(type, "response.output_text.done") ||
                   !strcmp(type, "response.reasoning_text.done")) {
            assert_string_equal(text_of(o, "text"), part);
        } else if (!strcmp(type, "response.function_call_arguments.done")) {
            assert_string_equal(text_of(o, "arguments"), part);
        } else if (!strcmp(type, "response.output_item.done")) {
            json_array_append(items, json_object_get(o, "item"));
        } else if (!strcmp(type, "response.completed") || !strcmp(type, "response.incomplete")) {
            last = json_incref(json_object_get(o, "response"));
        }
        json_decref(o);
    }
    assert_non_null(last);
    assert_true(json_equal(items, json_object_get(last, "output")));
    json_decref(items);
    fake_free(x);
    return last;
}

static void a_response_has_the_shape(void **state)
{
    static const char members[] =
        "\"model\":\"plain\",\"max_output_tokens\":20,\"temperature\":0,\"input\":\"hello\"";
    (void)state;
    json_t *o = ask(members), *s = stream(members);
    assert_string_equal(text_of(o, "object"), "response");
    assert_string_equal(text_of(o, "status"), "incomplete");
    assert_string_equal(text_of(json_object_get(o, "incomplete_details"), "reason"),
                        "max_output_tokens");
    assert_int_equal(strncmp(text_of(o, "id"), "resp_", 5), 0);
    assert_string_equal(text_of(output(o, 0), "type"), "message");
    assert_string_equal(text_of(output(o, 0), "role"), "assistant");
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(o, "usage"), "output_tokens")), 20);
    assert_string_equal(output_text(o, 0), output_text(s, 0));
    json_decref(o);
    json_decref(s);
}

static void thoughts_and_calls_are_items(void **state)
{
    static const char members[] =
        "\"model\":\"always\",\"max_output_tokens\":800,\"temperature\":0,\"seed\":1,"
        "\"tool_choice\":{\"type\":\"function\",\"name\":\"get_weather\"}," TOOLS
        ",\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"hello\"}]}"
        "]";
    (void)state;
    server->o.think_max = 6;
    json_t *o = ask(members), *s = stream(members);
    server->o.think_max = -1;
    assert_string_equal(text_of(output(o, 0), "type"), "reasoning");
    assert_string_equal(text_of(output(o, 1), "type"), "function_call");
    assert_string_equal(text_of(output(o, 1), "name"), "get_weather");
    assert_int_equal(strncmp(text_of(output(o, 1), "call_id"), "call_", 5), 0);
    json_t *args = json_loads(text_of(output(o, 1), "arguments"), 0, NULL);
    assert_string_equal(text_of(args, "city"), "Paris");
    json_decref(args);
    assert_string_equal(text_of(o, "status"), "completed");
    assert_string_equal(output_text(o, 0), output_text(s, 0));
    assert_string_equal(text_of(output(o, 1), "arguments"), text_of(output(s, 1), "arguments"));
    json_decref(o);
    json_decref(s);
}

static void formats_and_history(void **state)
{
    (void)state;
    json_t *o = ask("\"model\":\"plain\",\"max_output_tokens\":200,\"text\":{\"format\":{\"type\":"
                    "\"json_schema\",\"name\":\"x\",\"schema\":{\"enum\":[\"yes\"]}}},"
                    "\"input\":\"hello\"");
    assert_string_equal(output_text(o, 0), "\"yes\"");
    json_decref(o);
    o = ask("\"model\":\"plain\",\"max_output_tokens\":4,\"instructions\":\"be brief\"," TOOLS
            ",\"input\":[{\"role\":\"user\",\"content\":\"a\"},{\"type\":\"reasoning\",\"content\":"
            "[{\"type\":\"reasoning_text\",\"text\":\"hm\"}]},{\"type\":\"message\",\"role\":"
            "\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"b\"}]},{\"type\":"
            "\"function_call\",\"call_id\":\"c\",\"name\":\"get_weather\",\"arguments\":\"{}\"},"
            "{\"type\":\"function_call_output\",\"call_id\":\"c\",\"output\":\"rain\"}]");
    assert_string_equal(text_of(o, "instructions"), "be brief");
    json_decref(o);
}

static void bad_requests_are_told_why(void **state)
{
    static const char *const rows[][2] = {
        {"\"input\":\"a\"", "model is missing"},
        {"\"model\":\"plain\"", "input is missing"},
        {"\"model\":\"plain\",\"input\":7", "input must be"},
        {"\"model\":\"plain\",\"input\":[]", "is empty"},
        {"\"model\":\"plain\",\"input\":[7]", "input must hold objects"},
        {"\"model\":\"plain\",\"input\":[{\"type\":\"item_reference\"}]", "type"},
        {"\"model\":\"plain\",\"input\":[{\"type\":\"function_call\"}]", "call_id"},
        {"\"model\":\"plain\",\"input\":\"a\",\"previous_response_id\":\"r\"", "not kept"},
        {"\"model\":\"plain\",\"input\":\"a\",\"tools\":[{\"type\":\"web_search\"}]", "functions"},
        {"\"model\":\"plain\",\"input\":\"a\",\"text\":{\"format\":{\"type\":\"json_schema\"}}",
         "schema"},
        {"\"model\":\"plain\",\"input\":\"a\",\"max_output_tokens\":0", "max_output_tokens"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int status;
        json_t *o = fake_ask(server, responses_create, &status, "{%s}", rows[i][0]);
        const char *text = text_of(json_object_get(o, "error"), "message");
        if (status != 400 || !strstr(text, rows[i][1]))
            fail_msg("%s: %d %s", rows[i][0], status, text);
        json_decref(o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_response_has_the_shape),
        cmocka_unit_test(thoughts_and_calls_are_items),
        cmocka_unit_test(formats_and_history),
        cmocka_unit_test(bad_requests_are_told_why),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
