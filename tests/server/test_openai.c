#include "fake_http.h"
#include "models.h"
#include "server/openai.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

static char *folder;
static struct server *server;

#define TOKENS_BEFORE "<tool_call>", "</tool_call>", "<think>"
#define HOLES "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"

static int setup(void **state)
{
    (void)state;
    folder = models_folder();
    models_add(folder, "always", "qwen2_tied", models_always);
    models_add(folder, "plain", "qwen2_tied", models_plain);
    models_add(folder, "with-holes", "qwen2_tied", models_plain);
    models_rename_tokens(folder, "with-holes", (const char *const[]){TOKENS_BEFORE},
                         (const char *const[]){HOLES}, 3);
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

/* ---- asking --------------------------------------------------------------------------------- */

#define HELLO "\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]"

/* The value at a path like "choices.0.message.content"; NULL when there is none. */
static json_t *at(json_t *v, const char *path)
{
    char part[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof part, "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, (size_t)strtol(part, NULL, 10))
                             : json_object_get(v, part);
        path += n + (path[n] == '.');
    }
    return v;
}

static const char *text_at(json_t *v, const char *path)
{
    const char *s = json_string_value(at(v, path));
    if (!s) {
        char *all = json_dumps(v, 0);
        fail_msg("no text %s in %s", path, all);
    }
    return s;
}

static json_int_t int_at(json_t *v, const char *path)
{
    if (!json_is_integer(at(v, path))) {
        char *all = json_dumps(v, 0);
        fail_msg("no number %s in %s", path, all);
    }
    return json_integer_value(at(v, path));
}

static json_t *ok(void (*fn)(void *arg, struct http_exchange *x), const char *body)
{
    int status;
    json_t *o = fake_ask(server, fn, &status, "%s", body);
    if (status != 200 || at(o, "error")) {
        char *all = json_dumps(o, 0);
        fail_msg("%d %s to %s", status, all, body);
    }
    return o;
}

static json_t *chat(const char *members)
{
    char body[4000];
    snprintf(body, sizeof body, "{%s}", members);
    return ok(openai_chat, body);
}

/* Events of a stream as an array; the last must be [DONE]. */
static json_t *stream(void (*fn)(void *arg, struct http_exchange *x), const char *members)
{
    struct http_exchange *x = fake_send(server, fn, "{%s,\"stream\":true}", members);
    json_t *all = json_array();
    fake_wait(x);
    char *p = x->out.data;
    bool done = false;
    while (*p) {
        assert_memory_equal(p, "data: ", 6);
        char *end = strstr(p, "\n\n");
        assert_non_null(end);
        assert_false(done);
        *end = 0;
        done = !strcmp(p + 6, "[DONE]");
        json_t *v = done ? NULL : json_loads(p + 6, JSON_ALLOW_NUL, NULL);
        if (!done && !v)
            fail_msg("no JSON: %s", p);
        if (v)
            json_array_append_new(all, v);
        p = end + 2;
    }
    assert_true(done);
    fake_free(x);
    return all;
}

/* All deltas of a choice, joined; what every stream must keep is checked on the way. */
struct joined {
    char text[4000], thought[4000], args[4000], name[100], id[60];
    const char *finish;
    size_t chunks, calls;
};

static void join(json_t *events, json_int_t index, struct joined *j)
{
    size_t i;
    json_t *ev;
    bool role = false, ended = false;
    memset(j, 0, sizeof *j);
    json_array_foreach(events, i, ev)
    {
        const json_t *c = at(ev, "choices.0"), *d = at(ev, "choices.0.delta");
        if (!c || int_at(ev, "choices.0.index") != index)
            continue;
        j->chunks++;
        assert_false(ended);
        assert_non_null(d);
        const char *key;
        json_t *v;
        json_object_foreach((json_t *)(uintptr_t)d, key, v)
        {
            assert_false(json_is_null(v));
        }
        if (json_object_get(d, "role")) {
            assert_false(role);
            role = true;
            assert_string_equal(text_at(ev, "choices.0.delta.content"), "");
            continue;
        }
        assert_true(role);
        if (json_is_string(json_object_get(c, "finish_reason"))) {
            ended = true;
            j->finish = json_string_value(json_object_get(c, "finish_reason"));
            assert_int_equal(json_object_size(d), 0);
            continue;
        }
        assert_int_equal(json_object_size(d), 1); /* one thing, and never nothing */
        if (json_object_get(d, "content"))
            strcat(j->text, text_at(ev, "choices.0.delta.content"));
        if (json_object_get(d, "reasoning_content"))
            strcat(j->thought, text_at(ev, "choices.0.delta.reasoning_content"));
        json_t *call = at(ev, "choices.0.delta.tool_calls.0");
        if (!call)
            continue;
        if (json_object_get(call, "id")) {
            j->calls++;
            snprintf(j->id, sizeof j->id, "%s", text_at(call, "id"));
            snprintf(j->name, sizeof j->name, "%s", text_at(call, "function.name"));
            assert_string_equal(text_at(call, "type"), "function");
        } else {
            assert_null(at(call, "type"));
            assert_null(at(call, "function.name"));
        }
        assert_int_equal(int_at(call, "index") + 1, j->calls);
        strcat(j->args, text_at(call, "function.arguments"));
    }
    assert_true(role && ended);
}

static void refused(void (*fn)(void *arg, struct http_exchange *x), const char *members, int want,
                    const char *words)
{
    int status;
    json_t *o = fake_ask(server, fn, &status, "{%s}", members);
    const char *text = text_at(o, "error.message");
    if (status != want || !strstr(text, words))
        fail_msg("%s: %d %s; should be %d %s", members, status, text, want, words);
    json_decref(o);
}

/* ---- chats ---------------------------------------------------------------------------------- */

static void a_chat_has_the_shape(void **state)
{
    (void)state;
    json_t *o = chat("\"model\":\"plain:latest\",\"max_tokens\":5,\"ignore_eos\":true,"
                     "\"temperature\":0," HELLO);
    assert_string_equal(text_at(o, "object"), "chat.completion");
    assert_string_equal(text_at(o, "model"), "plain:latest"); /* as it was asked for */
    assert_int_equal(strncmp(text_at(o, "id"), "chatcmpl-", 9), 0);
    assert_int_equal(strncmp(text_at(o, "system_fingerprint"), "fp_", 3), 0);
    assert_true(int_at(o, "created") > 1700000000);
    assert_string_equal(text_at(o, "choices.0.message.role"), "assistant");
    text_at(o, "choices.0.message.content");
    assert_null(at(o, "choices.0.message.tool_calls"));
    assert_null(at(o, "choices.0.message.reasoning_content"));
    assert_true(json_is_null(at(o, "choices.0.logprobs")));
    assert_string_equal(text_at(o, "choices.0.finish_reason"), "length");
    json_int_t prompt = int_at(o, "usage.prompt_tokens");
    assert_int_equal(int_at(o, "usage.completion_tokens"), 5);
    assert_int_equal(int_at(o, "usage.total_tokens"), prompt + 5);
    assert_int_equal(int_at(o, "usage.completion_tokens_details.reasoning_tokens"), 0);
    assert_int_equal(int_at(o, "usage.prompt_cache_hit_tokens") +
                         int_at(o, "usage.prompt_cache_miss_tokens"),
                     prompt);
    assert_int_equal(int_at(o, "usage.prompt_tokens_details.cached_tokens"),
                     int_at(o, "usage.prompt_cache_hit_tokens"));
    json_decref(o);
}

static void a_stream_is_the_same_in_pieces(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":40,\"temperature\":0,"
                                  "\"ignore_eos\":true," HELLO;
    struct joined j;
    char more[600];
    (void)state;
    json_t *o = chat(members), *events = stream(openai_chat, members);
    join(events, 0, &j);
    assert_string_equal(j.text, text_at(o, "choices.0.message.content"));
    assert_string_equal(j.finish, "length");
    assert_true(j.chunks > 10);
    json_t *first = json_array_get(events, 0);
    assert_string_equal(text_at(first, "object"), "chat.completion.chunk");
    assert_true(json_is_null(at(first, "choices.0.finish_reason")));
    json_t *last = json_array_get(events, json_array_size(events) - 1);
    assert_string_equal(text_at(last, "id"), text_at(first, "id"));
    assert_int_equal(int_at(last, "usage.completion_tokens"), 40);
    json_decref(events);
    snprintf(more, sizeof more, "%s,\"stream_options\":{\"include_usage\":true}", members);
    events = stream(openai_chat, more);
    last = json_array_get(events, json_array_size(events) - 1);
    assert_int_equal(json_array_size(at(last, "choices")), 0);
    assert_int_equal(int_at(last, "usage.completion_tokens"), 40);
    last = json_array_get(events, json_array_size(events) - 2);
    assert_null(at(last, "usage"));
    json_decref(events);
    json_decref(o);
}

static void several_answers_have_their_numbers(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":8,\"temperature\":1,"
                                  "\"seed\":-3,\"n\":3,\"ignore_eos\":true," HELLO;
    struct joined j;
    (void)state;
    json_t *o = chat(members), *events = stream(openai_chat, members);
    assert_int_equal(json_array_size(at(o, "choices")), 3);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 24);
    for (json_int_t k = 0; k < 3; k++) {
        char path[60];
        join(events, k, &j);
        snprintf(path, sizeof path, "choices.%d.message.content", (int)k);
        assert_string_equal(j.text, text_at(o, path)); /* by the same seed */
        snprintf(path, sizeof path, "choices.%d.index", (int)k);
        assert_int_equal(int_at(o, path), k);
    }
    json_decref(events);
    json_decref(o);
}

static void stop_strings_end_it(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":30,\"temperature\":0,"
                                  "\"ignore_eos\":true," HELLO;
    char more[600], quoted[40];
    (void)state;
    json_t *o = chat(members);
    const char *text = text_at(o, "choices.0.message.content");
    /* two characters of its middle, that JSON can hold as they are */
    size_t from = strlen(text) / 2;
    while (text[from] && (text[from] < '0' || text[from + 1] < '0' || text[from] == '\\' ||
                          text[from + 1] == '\\'))
        from++;
    assert_true(text[from] && text[from + 1]);
    snprintf(quoted, sizeof quoted, "%.2s", text + from);
    snprintf(more, sizeof more, "%s,\"stop\":[\"%s\"]", members, quoted);
    json_t *cut = chat(more);
    const char *stopped = text_at(cut, "choices.0.message.content");
    assert_string_equal(text_at(cut, "choices.0.finish_reason"), "stop");
    assert_string_equal(text_at(cut, "choices.0.stop_reason"), quoted);
    assert_int_equal(strlen(stopped), strstr(text, quoted) - text);
    json_decref(cut);
    snprintf(more, sizeof more, "%s,\"stop\":\"%s\",\"include_stop_str_in_output\":true", members,
             quoted);
    cut = chat(more);
    stopped = text_at(cut, "choices.0.message.content");
    assert_string_equal(stopped + strlen(stopped) - 2, quoted);
    json_decref(cut);
    json_decref(o);
}

static void logprobs_belong_to_the_tokens(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"max_tokens\":6,\"temperature\":0,"
                                  "\"ignore_eos\":true,\"logprobs\":true,\"top_logprobs\":3," HELLO;
    (void)state;
    json_t *o = chat(members), *events = stream(openai_chat, members), *ev, *row;
    json_t *content = at(o, "choices.0.logprobs.content");
    size_t i, k, n = 0;
    assert_int_equal(json_array_size(content), 6);
    json_array_foreach(content, i, row)
    {
        assert_int_equal(json_array_size(at(row, "top_logprobs")), 3);
        assert_true(json_real_value(at(row, "logprob")) <= 0);
        assert_true(json_array_size(at(row, "bytes")) > 0);
        /* greedy: the likeliest is the one */
        assert_true(json_equal(at(row, "token"), at(row, "top_logprobs.0.token")));
    }
    json_array_foreach(events, i, ev)
    {
        json_array_foreach(at(ev, "choices.0.logprobs.content"), k, row)
        {
            assert_true(json_equal(row, json_array_get(content, n++)));
        }
    }
    assert_int_equal(n, 6);
    json_decref(events);
    json_decref(o);
}

/* ---- thoughts ------------------------------------------------------------------------------- */

static void thoughts_have_their_field(void **state)
{
    static const char members[] = "\"model\":\"always\",\"max_tokens\":30,\"temperature\":0,"
                                  "\"ignore_eos\":true,\"thinking_token_budget\":6," HELLO;
    struct joined j;
    char more[600];
    (void)state;
    json_t *o = chat(members), *events = stream(openai_chat, members);
    join(events, 0, &j);
    assert_true(strlen(j.thought) > 0 && strlen(j.text) > 0);
    assert_string_equal(j.thought, text_at(o, "choices.0.message.reasoning_content"));
    assert_string_equal(j.text, text_at(o, "choices.0.message.content"));
    assert_in_range(int_at(o, "usage.completion_tokens_details.reasoning_tokens"), 6, 14);
    json_decref(o);
    json_decref(events);
    /* Still thinking at the end: the content is there, and empty. */
    o = chat("\"model\":\"always\",\"max_tokens\":5,\"ignore_eos\":true," HELLO);
    assert_string_equal(text_at(o, "choices.0.message.content"), "");
    text_at(o, "choices.0.message.reasoning_content");
    assert_string_equal(text_at(o, "choices.0.finish_reason"), "length");
    json_decref(o);
    snprintf(more, sizeof more, "%s,\"include_reasoning\":false", members);
    o = chat(more);
    assert_null(at(o, "choices.0.message.reasoning_content"));
    json_decref(o);
    server->o.reasoning = SERVER_REASONING_BOTH;
    o = chat(members);
    assert_string_equal(text_at(o, "choices.0.message.reasoning_content"),
                        text_at(o, "choices.0.message.reasoning"));
    json_decref(o);
    server->o.reasoning = SERVER_REASONING;
    o = chat(members);
    assert_null(at(o, "choices.0.message.reasoning_content"));
    text_at(o, "choices.0.message.reasoning");
    json_decref(o);
    server->o.reasoning = SERVER_REASONING_CONTENT;
}

static void there_are_many_words_for_not_thinking(void **state)
{
    static const char *const words[] = {
        "\"thinking\":{\"type\":\"disabled\"}",
        "\"thinking\":false",
        "\"enable_thinking\":false",
        "\"reasoning_effort\":\"none\"",
        "\"reasoning\":{\"enabled\":false}",
        "\"reasoning\":{\"effort\":\"none\"}",
        "\"chat_template_kwargs\":{\"thinking\":false}",
        "\"chat_template_kwargs\":{\"enable_thinking\":false}",
        "\"thinking_token_budget\":0",
    };
    static const char *const models[] = {"always", "switch"};
    (void)state;
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            char body[600];
            snprintf(body, sizeof body, "\"model\":\"%s\",\"max_tokens\":8,%s," HELLO, models[m],
                     words[i]);
            json_t *o = chat(body);
            if (at(o, "choices.0.message.reasoning_content"))
                fail_msg("%s thinks with %s", models[m], words[i]);
            json_decref(o);
        }
    json_t *o = chat("\"model\":\"deepseek-chat\",\"max_tokens\":8," HELLO);
    assert_null(at(o, "choices.0.message.reasoning_content"));
    json_decref(o);
    o = chat("\"model\":\"deepseek-reasoner\",\"max_tokens\":8,\"ignore_eos\":true," HELLO);
    text_at(o, "choices.0.message.reasoning_content");
    json_decref(o);
}

/* ---- formats and tools ---------------------------------------------------------------------- */

#define SCHEMA                                                                             \
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\",\"maxLength\":8}," \
    "\"age\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":99}},\"required\":[\"name\"," \
    "\"age\"],\"additionalProperties\":false}"
#define TOOLS                                                                                  \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"parameters\":" \
    "{\"type\":\"object\",\"properties\":{\"city\":{\"enum\":[\"Paris\",\"北京\"]},"         \
    "\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"city\","     \
    "\"days\"],\"additionalProperties\":false}}},{\"type\":\"function\",\"function\":"         \
    "{\"name\":\"nothing\",\"parameters\":{\"type\":\"object\",\"properties\":{},"             \
    "\"additionalProperties\":false}}}]"

static json_t *content_json(json_t *o)
{
    assert_string_equal(text_at(o, "choices.0.finish_reason"), "stop");
    json_t *v = json_loads(text_at(o, "choices.0.message.content"), JSON_ALLOW_NUL, NULL);
    if (!v)
        fail_msg("no JSON: %s", text_at(o, "choices.0.message.content"));
    return v;
}

static void answers_take_the_format_asked_for(void **state)
{
    static const char *const ways[] = {
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"p\","
        "\"strict\":true,\"schema\":" SCHEMA "}}",
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":" SCHEMA "}",
        "\"guided_json\":" SCHEMA,
        "\"structured_outputs\":{\"json\":" SCHEMA "}",
    };
    static const char *const models[] = {"plain", "always"};
    char body[2000];
    (void)state;
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
            snprintf(body, sizeof body,
                     "\"model\":\"%s\",\"max_tokens\":300,\"thinking_token_budget\":5,%s," HELLO,
                     models[m], ways[i]);
            json_t *o = chat(body), *v = content_json(o);
            assert_int_equal(json_object_size(v), 2);
            assert_in_range(int_at(v, "age"), 0, 99);
            assert_true(json_string_length(at(v, "name")) <= 8 * 4);
            json_decref(v);
            json_decref(o);
        }
    json_t *o = chat("\"model\":\"plain\",\"guided_choice\":[\"yes\",\"no\"]," HELLO);
    const char *s = text_at(o, "choices.0.message.content");
    assert_true(!strcmp(s, "yes") || !strcmp(s, "no"));
    json_decref(o);
    o = chat("\"model\":\"plain\",\"guided_regex\":\"[0-9]{3}-[a-f]{2}\"," HELLO);
    assert_int_equal(strlen(text_at(o, "choices.0.message.content")), 6);
    json_decref(o);
    o = chat("\"model\":\"plain\",\"guided_grammar\":\"root ::= \\\"ab\\\" [0-9]\"," HELLO);
    assert_int_equal(strncmp(text_at(o, "choices.0.message.content"), "ab", 2), 0);
    json_decref(o);
    o = chat("\"model\":\"plain\",\"max_tokens\":60,\"response_format\":"
             "{\"type\":\"json_object\"}," HELLO);
    assert_int_equal(text_at(o, "choices.0.message.content")[0], '{');
    json_decref(o);
}

/* In all places in which clients put structural tags, as objects and as their texts. */
static void answers_have_tags(void **state)
{
#define TAG_FORMAT                                                                                 \
    "{\"type\":\"sequence\",\"elements\":[{\"type\":\"const_string\",\"value\":\"so: "             \
    "\"},{\"type\":"                                                                               \
    "\"tag\",\"begin\":\"<n>\",\"content\":{\"type\":\"regex\",\"pattern\":\"[0-9]{3}\"},\"end\":" \
    "\"</n>\"}]}"
    static const char *const ways[] = {
        "\"response_format\":{\"type\":\"structural_tag\",\"format\":" TAG_FORMAT "}",
        "\"response_format\":{\"type\":\"structural_tag\",\"structural_tag\":{"
        "\"format\":" TAG_FORMAT "}}",
        "\"structured_outputs\":{\"structural_tag\":{\"format\":" TAG_FORMAT "}}",
        "\"structured_outputs\":{\"structural_tag\":\"{\\\"format\\\":{\\\"type\\\":\\\"regex\\\","
        "\\\"pattern\\\":\\\"so: <n>[0-9]{3}</n>\\\"}}\"}",
    };
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char body[2000];
        snprintf(body, sizeof body, "\"model\":\"%s\",\"thinking_token_budget\":3,%s," HELLO,
                 i & 1 ? "always" : "plain", ways[i]);
        json_t *o = chat(body);
        const char *s = text_at(o, "choices.0.message.content");
        assert_string_equal(text_at(o, "choices.0.finish_reason"), "stop");
        assert_int_equal(strlen(s), 14);
        assert_int_equal(strncmp(s, "so: <n>", 7), 0);
        assert_string_equal(s + 10, "</n>");
        json_decref(o);
    }
}

/* With tools and a format the answer is a call or has the format; a bias on <tool_call>
   says which. */
static void an_answer_with_tools_keeps_its_format(void **state)
{
    size_t calls = 0, answers = 0;
    (void)state;
    for (int seed = 0; seed < 6; seed++) {
        char body[3000];
        struct joined j;
        snprintf(body, sizeof body,
                 "\"model\":\"plain\",\"max_tokens\":300,\"seed\":%d,\"logit_bias\":{\"508\":%d},"
                 "\"parallel_tool_calls\":false,"
                 "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"schema\":" SCHEMA
                 "}}," TOOLS "," HELLO,
                 seed, seed & 1 ? 100 : -100);
        json_t *o = chat(body), *events = stream(openai_chat, body);
        join(events, 0, &j);
        assert_string_equal(text_at(o, "choices.0.finish_reason"), j.finish);
        if (at(o, "choices.0.message.tool_calls")) {
            const char *args = text_at(o, "choices.0.message.tool_calls.0.function.arguments");
            assert_true(json_is_null(at(o, "choices.0.message.content")));
            json_t *v = json_loads(args, 0, NULL);
            assert_true(json_is_object(v));
            json_decref(v);
            assert_string_equal(j.finish, "tool_calls");
            calls++;
        } else {
            json_t *v = content_json(o);
            assert_int_equal(json_object_size(v), 2);
            assert_in_range(int_at(v, "age"), 0, 99);
            assert_string_equal(j.text, text_at(o, "choices.0.message.content"));
            json_decref(v);
            answers++;
        }
        json_decref(events);
        json_decref(o);
    }
    assert_true(calls == 3 && answers == 3);
}

/* The first words of answers do not come again once they are forbidden. */
static void words_may_be_forbidden(void **state)
{
    size_t tried = 0;
    (void)state;
    for (int seed = 0; seed < 100 && tried < 5; seed++) {
        static const char ask[] = "\"model\":\"plain\",\"seed\":%d,\"max_tokens\":1,"
                                  "\"logprobs\":true,\"bad_words\":[%s]," HELLO;
        char body[1000], word[40], quoted[60];
        snprintf(body, sizeof body, ask, seed, "");
        json_t *o = chat(body);
        const char *first = text_at(o, "choices.0.logprobs.content.0.token");
        size_t n = strspn(first, "abcdefghijklmnopqrstuvwxyz");
        bool is_word = n && !first[n];
        snprintf(word, sizeof word, "%s", first);
        json_decref(o);
        if (!is_word)
            continue;
        snprintf(quoted, sizeof quoted, "\"never\",\"%s\"", word);
        snprintf(body, sizeof body, ask, seed, quoted);
        o = chat(body);
        assert_string_not_equal(text_at(o, "choices.0.logprobs.content.0.token"), word);
        json_decref(o);
        tried++;
    }
    assert_int_equal(tried, 5);
    json_t *o =
        chat("\"model\":\"plain\",\"bad_words\":[\"yes\"],\"guided_choice\":[\"yes\"]," HELLO);
    assert_string_equal(text_at(o, "choices.0.message.content"), "yes"); /* nothing else fits */
    json_decref(o);
}

static void calls_are_forced_and_streamed(void **state)
{
    static const char *const choices[] = {
        "\"required\"", "{\"type\":\"function\",\"function\":{\"name\":\"get_weather\"}}"};
    static const char *const models[] = {"plain", "always"};
    char body[2000];
    (void)state;
    for (size_t m = 0; m < 2; m++)
        for (size_t i = 0; i < 2; i++) {
            struct joined j;
            snprintf(body, sizeof body,
                     "\"model\":\"%s\",\"max_tokens\":300,\"temperature\":0,"
                     "\"thinking_token_budget\":5,\"parallel_tool_calls\":false,"
                     "\"tool_choice\":%s," TOOLS "," HELLO,
                     models[m], choices[i]);
            json_t *o = chat(body), *events = stream(openai_chat, body);
            const char *name = text_at(o, "choices.0.message.tool_calls.0.function.name");
            const char *args = text_at(o, "choices.0.message.tool_calls.0.function.arguments");
            assert_string_equal(text_at(o, "choices.0.finish_reason"), "tool_calls");
            assert_true(json_is_null(at(o, "choices.0.message.content")));
            assert_int_equal(strncmp(text_at(o, "choices.0.message.tool_calls.0.id"), "call_", 5),
                             0);
            if (i)
                assert_string_equal(name, "get_weather");
            json_t *v = json_loads(args, 0, NULL);
            assert_true(json_is_object(v));
            if (!strcmp(name, "get_weather"))
                assert_in_range(int_at(v, "days"), 1, 9);
            join(events, 0, &j);
            assert_string_equal(j.finish, "tool_calls");
            assert_int_equal(j.calls, 1);
            assert_string_equal(j.name, name);
            assert_string_equal(j.text, "");
            json_t *w = json_loads(j.args, 0, NULL);
            assert_true(json_equal(v, w));
            json_decref(v);
            json_decref(w);
            json_decref(events);
            json_decref(o);
        }
}

/* Wherever max_tokens cuts a call: never text, the reason is told, and what is there of the call is
   the same in a stream. */
static void calls_that_are_cut_are_no_text(void **state)
{
    size_t begun = 0;
    (void)state;
    for (int max = 1; max < 90; max += 2) {
        char body[2000];
        struct joined j;
        snprintf(
            body, sizeof body,
            "\"model\":\"plain\",\"max_tokens\":%d,\"temperature\":0,\"parallel_tool_calls\":"
            "false,\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"get_weather\""
            "}}," TOOLS "," HELLO,
            max);
        json_t *o = chat(body), *events = stream(openai_chat, body);
        json_t *calls = at(o, "choices.0.message.tool_calls");
        const char *reason = text_at(o, "choices.0.finish_reason");
        join(events, 0, &j);
        assert_string_equal(j.text, "");
        assert_string_equal(j.finish, reason);
        assert_int_equal(json_array_size(calls), j.calls);
        if (calls) {
            assert_true(json_is_null(at(o, "choices.0.message.content")));
            assert_string_equal(text_at(o, "choices.0.message.tool_calls.0.function.arguments"),
                                j.args);
            assert_string_equal(text_at(o, "choices.0.message.tool_calls.0.function.name"),
                                "get_weather");
        } else {
            assert_string_equal(text_at(o, "choices.0.message.content"), "");
        }
        if (strcmp(reason, "tool_calls") != 0)
            assert_string_equal(reason, "length");
        begun += calls && !strcmp(reason, "length");
        json_decref(events);
        json_decref(o);
    }
    assert_true(begun > 2);
}

static void calls_may_be_forbidden(void **state)
{
    (void)state;
    json_t *o =
        chat("\"model\":\"plain\",\"max_tokens\":5,\"tool_choice\":\"none\"," TOOLS "," HELLO);
    json_t *none = chat("\"model\":\"plain\",\"max_tokens\":5," HELLO);
    assert_int_equal(int_at(o, "usage.prompt_tokens"), int_at(none, "usage.prompt_tokens"));
    json_decref(none);
    json_decref(o);
    o = chat("\"model\":\"plain\",\"max_tokens\":5,\"tools\":[]," HELLO); /* what ollama sends */
    json_decref(o);
}

/* The text of an answer's prompt. */
static void assert_prompt(json_t *o, const char *model, const char *end)
{
    json_t *ids = at(o, "prompt_token_ids");
    char *list = json_dumps(ids, JSON_COMPACT), body[4000];
    snprintf(body, sizeof body, "{\"model\":\"%s\",\"tokens\":%s}", model, list);
    json_t *d = ok(openai_detokenize, body);
    const char *text = text_at(d, "prompt");
    size_t n = strlen(text), k = strlen(end);
    if (n < k || strcmp(text + n - k, end) != 0)
        fail_msg("%s should end %s", text, end);
    json_decref(d);
    free(list);
}

/* A hole's prompt as it should be; the answer is text alone, the same in a stream, and ends where
   the model writes a token of holes. */
static void holes_are_filled(void **state)
{
#define HOLE                                                                         \
    "\"model\":\"with-holes\",\"prompt\":\"int f(<|fim_middle|>\",\"suffix\":\") { " \
    "}\\n\",\"max_tokens\":9,"                                                       \
    "\"temperature\":0,\"return_token_ids\":true"
    char text[2000] = "";
    size_t i;
    json_t *ev;
    (void)state;
    json_t *o = ok(openai_completions, "{" HOLE ",\"logit_bias\":{\"507\":-100,\"508\":-100,"
                                       "\"509\":-100,\"510\":-100}}");
    assert_prompt(o, "with-holes",
                  "<|fim_prefix|>int f(<|fim_middle|><|fim_suffix|>) { }\n<|fim_middle|>");
    json_t *ids = at(o, "prompt_token_ids");
    size_t controls = 0; /* what a person wrote is none */
    json_array_foreach(ids, i, ev) controls += json_integer_value(ev) >= 505;
    assert_int_equal(controls, 3);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 9);
    assert_string_equal(text_at(o, "choices.0.finish_reason"), "length");
    json_t *events =
        stream(openai_completions, HOLE ",\"logit_bias\":{\"507\":-100,\"508\":-100,\"509\":-100,"
                                        "\"510\":-100}");
    json_array_foreach(events, i, ev)
    {
        if (at(ev, "choices.0.text"))
            strcat(text, text_at(ev, "choices.0.text"));
    }
    assert_string_equal(text, text_at(o, "choices.0.text"));
    json_decref(events);
    json_decref(o);
    for (int id = 508; id <= 510; id++) {
        char body[500];
        snprintf(body, sizeof body, "{" HOLE ",\"logit_bias\":{\"%d\":100}}", id);
        o = ok(openai_completions, body);
        assert_string_equal(text_at(o, "choices.0.finish_reason"), "stop");
        assert_string_equal(text_at(o, "choices.0.text"), "");
        json_decref(o);
    }
    /* several prompts have the suffix in common */
    o = ok(openai_completions,
           "{\"model\":\"with-holes\",\"prompt\":[\"a\",\"b\"],\"suffix\":\"c\","
           "\"max_tokens\":2}");
    assert_int_equal(json_array_size(at(o, "choices")), 2);
    json_decref(o);
    refused(openai_completions, HOLE ",\"echo\":true", 400, "suffix and echo exclude");
    refused(openai_completions, "\"model\":\"with-holes\",\"prompt\":[5,6],\"suffix\":\"b\"", 400,
            "suffix needs a prompt of text");
}

/* DeepSeek's "prefix" with a thought: the model goes on thinking, or writing behind it. */
static void a_thought_is_continued(void **state)
{
    static const char *const models[] = {"always", "switch", "plain"};
    (void)state;
    for (size_t m = 0; m < 3; m++) {
        char body[1000];
        snprintf(body, sizeof body,
                 "\"model\":\"%s\",\"thinking_token_budget\":4,\"return_token_ids\":true,"
                 "\"guided_choice\":[\"yes\"],\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                 "{\"role\":\"assistant\",\"content\":\"\",\"reasoning_content\":\"Hm, </think>\","
                 "\"prefix\":true}]",
                 models[m]);
        json_t *o = chat(body);
        assert_prompt(o, models[m], "<|im_start|>assistant\n<think>\nHm, </think>");
        assert_string_equal(text_at(o, "choices.0.message.content"), "yes");
        assert_true(int_at(o, "usage.completion_tokens_details.reasoning_tokens") >= 4);
        json_decref(o);
        snprintf(body, sizeof body,
                 "\"model\":\"%s\",\"return_token_ids\":true,\"guided_choice\":[\"yes\"],"
                 "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
                 "\"content\":\"I say \",\"reasoning_content\":\"Hm.\",\"prefix\":true}]",
                 models[m]);
        o = chat(body);
        assert_prompt(o, models[m], "<|im_start|>assistant\n<think>\nHm.\n</think>\n\nI say ");
        assert_string_equal(text_at(o, "choices.0.message.content"), "yes");
        assert_null(at(o, "choices.0.message.reasoning_content"));
        json_decref(o);
    }
}

/* ---- prefix, completions -------------------------------------------------------------------- */

static void a_beginning_is_continued(void **state)
{
    (void)state;
    json_t *o = chat("\"model\":\"plain\",\"max_tokens\":5,\"temperature\":0,\"ignore_eos\":true,"
                     "\"return_token_ids\":true,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}"
                     ",{\"role\":\"assistant\",\"content\":\"It is\",\"prefix\":true}]");
    json_t *v = chat("\"model\":\"plain\",\"max_tokens\":5,\"temperature\":0,\"ignore_eos\":true,"
                     "\"return_token_ids\":true,\"continue_final_message\":true,"
                     "\"add_generation_prompt\":false,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"It is\"}]");
    assert_true(json_equal(at(o, "choices.0.token_ids"), at(v, "choices.0.token_ids")));
    assert_true(json_equal(at(o, "prompt_token_ids"), at(v, "prompt_token_ids")));
    assert_int_equal(json_array_size(at(o, "choices.0.token_ids")), 5);
    json_decref(o);
    json_decref(v);
}

static void completions_have_the_old_shape(void **state)
{
    (void)state;
    json_t *o = ok(openai_completions,
                   "{\"model\":\"plain\",\"prompt\":\"Once upon\",\"max_tokens\":6,\"logprobs\":2,"
                   "\"echo\":true,\"temperature\":0,\"ignore_eos\":true}");
    assert_string_equal(text_at(o, "object"), "text_completion");
    assert_int_equal(strncmp(text_at(o, "choices.0.text"), "Once upon", 9), 0);
    size_t n = (size_t)int_at(o, "usage.total_tokens");
    json_t *p = at(o, "choices.0.logprobs");
    assert_int_equal(json_array_size(at(p, "tokens")), n);
    assert_int_equal(json_array_size(at(p, "token_logprobs")), n);
    assert_int_equal(json_array_size(at(p, "top_logprobs")), n);
    assert_int_equal(json_array_size(at(p, "text_offset")), n);
    assert_true(json_is_null(at(p, "token_logprobs.0")));
    assert_true(json_is_real(at(p, "token_logprobs.1")));
    assert_int_equal(int_at(p, "text_offset.0"), 0);
    json_decref(o);
    o = ok(openai_completions,
           "{\"model\":\"plain\",\"prompt\":[\"a b\",\"c d\"],\"max_tokens\":3,\"n\":2}");
    assert_int_equal(json_array_size(at(o, "choices")), 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(
            json_integer_value(json_object_get(json_array_get(at(o, "choices"), i), "index")), i);
    json_decref(o);
    json_t *ids =
        ok(openai_completions, "{\"model\":\"plain\",\"prompt\":[5,6,7],\"max_tokens\":3}");
    assert_int_equal(int_at(ids, "usage.prompt_tokens"), 3);
    json_decref(ids);
    /* The prompt's own log-probabilities, and nothing new. */
    o = ok(openai_completions, "{\"model\":\"plain\",\"prompt\":[5,6,7],\"max_tokens\":0,"
                               "\"echo\":true,\"logprobs\":0}");
    assert_int_equal(json_array_size(at(o, "choices.0.logprobs.tokens")), 3);
    assert_int_equal(int_at(o, "usage.completion_tokens"), 0);
    json_decref(o);
}

static void completions_stream(void **state)
{
    static const char members[] = "\"model\":\"plain\",\"prompt\":\"x\",\"max_tokens\":12,"
                                  "\"temperature\":0,\"ignore_eos\":true";
    char body[400], text[2000] = "";
    size_t i;
    json_t *ev;
    (void)state;
    snprintf(body, sizeof body, "{%s}", members);
    json_t *o = ok(openai_completions, body), *events = stream(openai_completions, members);
    json_array_foreach(events, i, ev)
    {
        strcat(text, text_at(ev, "choices.0.text"));
        assert_string_equal(text_at(ev, "object"), "text_completion");
    }
    assert_string_equal(text, text_at(o, "choices.0.text"));
    assert_string_equal(
        text_at(json_array_get(events, json_array_size(events) - 1), "choices.0.finish_reason"),
        "length");
    json_decref(events);
    json_decref(o);
}

/* ---- others --------------------------------------------------------------------------------- */

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
                                  : 63;
}

static void embeddings_come_as_numbers_or_bytes(void **state)
{
    (void)state;
    json_t *a = ok(openai_embeddings, "{\"model\":\"plain\",\"input\":[\"one\",\"two\"]}");
    json_t *b = ok(openai_embeddings,
                   "{\"model\":\"plain\",\"input\":\"two\",\"encoding_format\":\"base64\"}");
    assert_int_equal(json_array_size(at(a, "data")), 2);
    assert_int_equal(int_at(a, "data.1.index"), 1);
    assert_int_equal(json_array_size(at(a, "data.1.embedding")), 64);
    const char *s = text_at(b, "data.0.embedding");
    assert_int_equal(strlen(s), (64 * 4 + 2) / 3 * 4);
    uint8_t bytes[260];
    float v[64];
    for (size_t i = 0; i < strlen(s) / 4; i++) {
        uint32_t w = 0;
        for (int k = 0; k < 4; k++)
            w = w << 6 |
                (uint32_t)(s[4 * i + (size_t)k] == '=' ? 0 : base64_value(s[4 * i + (size_t)k]));
        for (size_t k = 0; k < 3 && 3 * i + k < sizeof bytes; k++)
            bytes[3 * i + k] = (uint8_t)(w >> (16 - 8 * k));
    }
    memcpy(v, bytes, sizeof v);
    double length = 0;
    for (size_t i = 0; i < 64; i++) {
        char path[40];
        snprintf(path, sizeof path, "data.1.embedding.%zu", i);
        assert_true(fabs(json_real_value(at(a, path)) - (double)v[i]) < 1e-9);
        length += (double)v[i] * (double)v[i];
    }
    assert_true(fabs(length - 1) < 1e-4);
    assert_true(int_at(a, "usage.prompt_tokens") > 0);
    json_decref(a);
    json_decref(b);
    a = ok(openai_embeddings, "{\"model\":\"plain\",\"input\":[[5,6],[7]],\"dimensions\":64}");
    assert_int_equal(int_at(a, "usage.prompt_tokens"), 3);
    json_decref(a);
    refused(openai_embeddings, "\"model\":\"plain\",\"input\":\"x\",\"dimensions\":32", 400,
            "dimensions");
    refused(openai_embeddings, "\"model\":\"plain\",\"input\":[]", 400, "input is empty");
    refused(openai_embeddings, "\"model\":\"plain\"", 400, "input is missing");
}

static void models_are_listed(void **state)
{
    (void)state;
    int status;
    json_t *o = fake_ask(server, openai_models, &status, "{}");
    assert_string_equal(text_at(o, "object"), "list");
    assert_int_equal(json_array_size(at(o, "data")), 4);
    assert_string_equal(text_at(o, "data.1.id"), "plain");
    assert_string_equal(text_at(o, "data.1.object"), "model");
    assert_int_equal(int_at(o, "data.1.context_length"), 1024);
    json_decref(o);
    o = fake_ask(server, openai_balance, &status, "{}");
    assert_true(json_is_true(at(o, "is_available")));
    json_decref(o);
}

static void tokens_go_there_and_back(void **state)
{
    (void)state;
    json_t *o = ok(openai_tokenize, "{\"model\":\"plain\",\"prompt\":\"hello world\","
                                    "\"return_token_strs\":true}");
    assert_int_equal(int_at(o, "count"), json_array_size(at(o, "tokens")));
    assert_int_equal(json_array_size(at(o, "token_strs")), json_array_size(at(o, "tokens")));
    assert_int_equal(int_at(o, "max_model_len"), 1024);
    json_t *body = json_pack("{ss sO}", "model", "plain", "tokens", at(o, "tokens"));
    char *text = json_dumps(body, 0);
    json_t *back = ok(openai_detokenize, text);
    assert_string_equal(text_at(back, "prompt"), "hello world");
    json_decref(back);
    free(text);
    json_decref(body);
    json_decref(o);
    o = ok(openai_tokenize, "{\"model\":\"plain\"," HELLO "}");
    json_t *c = chat("\"model\":\"plain\",\"max_tokens\":1," HELLO);
    assert_int_equal(int_at(o, "count"), int_at(c, "usage.prompt_tokens"));
    json_decref(c);
    json_decref(o);
    refused(openai_detokenize, "\"model\":\"plain\",\"tokens\":[99999]", 400, "out of vocabulary");
    refused(openai_tokenize, "\"model\":\"nobody\",\"prompt\":\"x\"", 404, "nobody");
}

/* ---- errors --------------------------------------------------------------------------------- */

static void bad_requests_are_told_why(void **state)
{
    static const char *const rows[][2] = {
        {HELLO, "model is missing"},
        {"\"model\":7," HELLO, "model must be a string"},
        {"\"model\":\"plain\"", "messages is missing"},
        {"\"model\":\"plain\",\"messages\":[]", "messages is empty"},
        {"\"model\":\"plain\",\"messages\":{}", "messages must be an array"},
        {"\"model\":\"plain\",\"messages\":[{\"role\":\"x\",\"content\":\"\"}]", "role"},
        {"\"model\":\"plain\",\"temperature\":-1," HELLO, "temperature"},
        {"\"model\":\"plain\",\"temperature\":1e308," HELLO, "temperature"},
        {"\"model\":\"plain\",\"temperature\":\"hot\"," HELLO, "temperature"},
        {"\"model\":\"plain\",\"top_p\":1.5," HELLO, "top_p"},
        {"\"model\":\"plain\",\"top_k\":-5," HELLO, "top_k"},
        {"\"model\":\"plain\",\"n\":0," HELLO, "n is"},
        {"\"model\":\"plain\",\"n\":1000000000," HELLO, "n is"},
        {"\"model\":\"plain\",\"n\":17," HELLO, "n is"},
        {"\"model\":\"plain\",\"max_tokens\":0," HELLO, "max_tokens"},
        {"\"model\":\"plain\",\"max_tokens\":-1," HELLO, "max_tokens"},
        {"\"model\":\"plain\",\"max_tokens\":1.5," HELLO, "max_tokens"},
        {"\"model\":\"plain\",\"seed\":0.1," HELLO, "seed"},
        {"\"model\":\"plain\",\"logit_bias\":{\"abc\":1}," HELLO, "logit_bias"},
        {"\"model\":\"plain\",\"logit_bias\":{\"99999\":1}," HELLO, "out of vocabulary"},
        {"\"model\":\"plain\",\"logit_bias\":{\"5\":1000}," HELLO, "logit_bias"},
        {"\"model\":\"plain\",\"stop\":[\"\"]," HELLO, "stop holds an empty string"},
        {"\"model\":\"plain\",\"stop\":7," HELLO, "stop"},
        {"\"model\":\"plain\",\"top_logprobs\":3," HELLO, "top_logprobs"},
        {"\"model\":\"plain\",\"logprobs\":true,\"top_logprobs\":21," HELLO, "top_logprobs"},
        {"\"model\":\"plain\",\"prompt_logprobs\":1,\"stream\":true," HELLO, "prompt_logprobs"},
        {"\"model\":\"plain\",\"cache_salt\":\"\"," HELLO, "cache_salt is empty"},
        {"\"model\":\"plain\",\"tool_choice\":\"required\"," HELLO, "tool_choice needs tools"},
        {"\"model\":\"plain\",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
         "\"nobody\"}}," TOOLS "," HELLO,
         "tool_choice names"},
        {"\"model\":\"plain\",\"tool_choice\":\"perhaps\"," TOOLS "," HELLO, "tool_choice must be"},
        {"\"model\":\"plain\",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a \\\"b\"}"
         "}]," HELLO,
         "function names"},
        {"\"model\":\"plain\",\"tools\":[7]," HELLO, "tools"},
        {"\"model\":\"plain\",\"response_format\":{\"type\":\"yaml\"}," HELLO, "json_object"},
        {"\"model\":\"plain\",\"response_format\":{\"type\":\"json_schema\"}," HELLO,
         "json_schema"},
        {"\"model\":\"plain\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":"
         "{\"schema\":{\"type\":\"something\"}}}," HELLO,
         "#/type"},
        {"\"model\":\"plain\",\"guided_regex\":\"(\"," HELLO, ""},
        {"\"model\":\"plain\",\"guided_choice\":[\"a\"],\"guided_regex\":\"a\"," HELLO, "format"},
        {"\"model\":\"plain\",\"chat_template\":\"{{ 1 }}\"," HELLO, "chat_template"},
        {"\"model\":\"plain\",\"continue_final_message\":true,\"add_generation_prompt\":true,"
         "\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]",
         "exclude"},
        {"\"model\":\"plain\",\"continue_final_message\":true," HELLO, "assistant"},
        {"\"model\":\"plain\",\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"prefix\":true}]",
         "prefix"},
        {"\"model\":\"plain\",\"reasoning_effort\":\"huge\"," HELLO, "reasoning_effort"},
        {"\"model\":\"plain\",\"best_of\":3," HELLO, "best_of"},
        {"\"model\":\"plain\",\"bad_words\":[\"\"]," HELLO, "bad_words holds an empty string"},
        {"\"model\":\"plain\",\"bad_words\":[7]," HELLO, "bad_words"},
        {"\"model\":\"plain\",\"response_format\":{\"type\":\"structural_tag\"}," HELLO,
         "\"format\" is missing"},
        {"\"model\":\"plain\",\"structured_outputs\":{\"structural_tag\":\"{\"}," HELLO,
         "structural_tag must be"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        refused(openai_chat, rows[i][0], 400, rows[i][1]);
    refused(openai_chat, "\"model\":\"no-such\"," HELLO, 404, "no-such");
    refused(openai_completions, "\"model\":\"plain\"", 400, "prompt is missing");
    refused(openai_completions, "\"model\":\"plain\",\"prompt\":\"\"", 400, "empty");
    refused(openai_completions, "\"model\":\"plain\",\"prompt\":[5,99999]", 400,
            "out of vocabulary");
    refused(openai_completions, "\"model\":\"plain\",\"prompt\":{}", 400, "prompt must be");
    refused(openai_completions, "\"model\":\"plain\",\"prompt\":\"a\",\"suffix\":\"b\"", 400,
            "fill in the middle");
}

static void null_is_as_good_as_absent(void **state)
{
    (void)state;
    json_t *o = chat("\"model\":\"plain\",\"max_tokens\":2,\"temperature\":null,\"top_p\":null,"
                     "\"n\":null,\"stop\":null,\"tools\":null,\"tool_choice\":null,"
                     "\"response_format\":null,\"seed\":null,\"stream\":null,"
                     "\"stream_options\":null,\"logit_bias\":null,\"logprobs\":null,"
                     "\"top_logprobs\":null,\"user\":null,\"thinking\":null,\"unknown\":{\"a\":1},"
                     "\"reasoning_effort\":null,\"chat_template_kwargs\":null," HELLO);
    json_decref(o);
}

static void too_long_a_prompt_has_its_own_code(void **state)
{
    char *words = malloc(8000);
    int status;
    (void)state;
    assert_non_null(words);
    memset(words, 0, 8000);
    for (int i = 0; i < 1500; i++)
        strcat(words, "word ");
    json_t *o = fake_ask(server, openai_chat, &status,
                         "{\"model\":\"plain\",\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}"
                         "],\"stream\":true}",
                         words);
    assert_int_equal(status, 400); /* before a stream begins */
    assert_string_equal(text_at(o, "error.code"), "context_length_exceeded");
    assert_non_null(strstr(text_at(o, "error.message"), "maximum context length is 1024"));
    json_decref(o);
    free(words);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_has_the_shape),
        cmocka_unit_test(a_stream_is_the_same_in_pieces),
        cmocka_unit_test(several_answers_have_their_numbers),
        cmocka_unit_test(stop_strings_end_it),
        cmocka_unit_test(logprobs_belong_to_the_tokens),
        cmocka_unit_test(thoughts_have_their_field),
        cmocka_unit_test(there_are_many_words_for_not_thinking),
        cmocka_unit_test(answers_take_the_format_asked_for),
        cmocka_unit_test(answers_have_tags),
        cmocka_unit_test(an_answer_with_tools_keeps_its_format),
        cmocka_unit_test(words_may_be_forbidden),
        cmocka_unit_test(calls_are_forced_and_streamed),
        cmocka_unit_test(calls_that_are_cut_are_no_text),
        cmocka_unit_test(calls_may_be_forbidden),
        cmocka_unit_test(a_beginning_is_continued),
        cmocka_unit_test(a_thought_is_continued),
        cmocka_unit_test(holes_are_filled),
        cmocka_unit_test(completions_have_the_old_shape),
        cmocka_unit_test(completions_stream),
        cmocka_unit_test(embeddings_come_as_numbers_or_bytes),
        cmocka_unit_test(models_are_listed),
        cmocka_unit_test(tokens_go_there_and_back),
        cmocka_unit_test(bad_requests_are_told_why),
        cmocka_unit_test(null_is_as_good_as_absent),
        cmocka_unit_test(too_long_a_prompt_has_its_own_code),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
