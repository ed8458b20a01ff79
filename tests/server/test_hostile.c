/*
 * Bodies that nobody sends by accident, to a whole server with small models: broken JSON, numbers
 * at the ends of their types, conversations and schemas made to be expensive, names of files. Each
 * is answered with the right status in the words of its API, and the next request as if nothing had
 * been. (What is wrong with HTTP itself: test_http_hostile.c.)
 */
#include "base/buf.h"
#include "base/utf8.h"
#include "server/bench.h"
#include "server/route.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

static struct bench bench;

static int setup(void **state)
{
    (void)state;
    bench_begin(&bench, NULL, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    bench_end(&bench);
    return 0;
}

/* ---- asking --------------------------------------------------------------------------------- */

#define CHAT "/v1/chat/completions"
#define TEXT "/v1/completions"
#define OLLAMA "/api/chat"
#define MESSAGES "/v1/messages"
#define RESPONSES "/v1/responses"
#define HI "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define PLAIN "\"model\":\"plain\",\"max_tokens\":3,"

/* An error in the shape of the path's API. */
static bool is_error(const char *path, json_t *o)
{
    json_t *e = json_object_get(o, "error");
    if (!strncmp(path, "/api/", 5))
        return json_string_length(e) > 0;
    bool anthropic = !strncmp(path, MESSAGES, strlen(MESSAGES));
    return json_string_length(json_object_get(e, "message")) && json_object_get(e, "type") &&
           (anthropic || (json_object_get(e, "code") && json_object_get(e, "param")));
}

/* The answer, which must have that status; errors their shape. New reference. */
static json_t *answer(const char *path, const char *body, int status)
{
    struct reply r;
    bench_ask(&bench, "POST", path, "", body, &r);
    json_t *o = json_loads(r.body ? r.body : "", JSON_ALLOW_NUL, NULL);
    if (r.status != status || !r.complete || !o || (status >= 400) != is_error(path, o))
        fail_msg("%s %.300s: %d %.400s", path, body, r.status, r.body ? r.body : "");
    reply_free(&r);
    return o;
}

static void expect(const char *path, const char *body, int status)
{
    json_decref(answer(path, body, status));
}

/* `head`, n times `fill` with `between` between them, `tail`. */
static char *made(const char *head, const char *fill, const char *between, size_t n,
                  const char *tail)
{
    struct buf b;
    buf_init(&b, (size_t)64 << 20);
    int rc = buf_puts(&b, head, NULL);
    for (size_t i = 0; i < n && !rc; i++) {
        rc = i ? buf_puts(&b, between, NULL) : 0;
        rc = rc ? rc : buf_puts(&b, fill, NULL);
    }
    rc = rc ? rc : buf_append(&b, tail, strlen(tail) + 1, NULL);
    assert_int_equal(rc, 0);
    return b.data;
}

static void expect_made(const char *path, const char *head, const char *fill, const char *between,
                        size_t n, const char *tail, int status)
{
    char *body = made(head, fill, between, n, tail);
    expect(path, body, status);
    free(body);
}

static void still_serves(void)
{
    expect(CHAT, "{" PLAIN HI "}", 200);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

/* To every route that reads a body. */
static void what_is_no_json_object_is_refused(void **state)
{
    static const char *const bodies[] = {
        "",
        "42",
        "null",
        "[]",
        "\"x\"",
        "true",
        "{",
        "{}x",
        "{}{}",
        "{\"model\":\"plain\",}",
        "{\"model\":'plain'}",
        "{\"model\":NaN}",
        "{\"model\":1e999}",
        "{\"model\":\"\\ud800\"}",
        "{\"model\":\"\\udc00\\ud800\"}",
        "{\"model\":\"\xff\xfe\"}",
        "{\"model\":\"\xc0\xaf\"}",
        "{\"model\":\"\xed\xa0\x80\"}",
        "{\"model\":\"a\nb\"}",
    };
    size_t n;
    (void)state;
    const struct http_route *rows = route_all(&n);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < sizeof bodies / sizeof *bodies; k++)
            if (rows[i].kind == HTTP_WORK)
                expect(rows[i].path, bodies[k], 400);
    expect_made(CHAT, "{\"a\":", "[", "", 100000, "", 400);
    expect_made(CHAT, "{\"a\":", "{\"a\":", "", 100000, "", 400);
    expect_made(OLLAMA, "{\"a\":[", "[]", ",", 200000, "]}", 400);
    expect_made(RESPONSES, "{\"a\":[", "0", ",", 1100000, "]}", 400);
    still_serves();
}

/* The last one of a name counts. */
static void names_may_come_twice(void **state)
{
    (void)state;
    expect(CHAT, "{\"model\":\"none\"," PLAIN HI "}", 200);
    expect(CHAT, "{" PLAIN HI ",\"model\":\"none\"}", 404);
}

/* ---- numbers -------------------------------------------------------------------------------- */

static void numbers_have_their_bounds(void **state)
{
    static const struct {
        const char *member;
        int status;
    } rows[] = {
        {"\"temperature\":-0.0", 200},
        {"\"temperature\":-1", 400},
        {"\"temperature\":1e308", 400},
        {"\"temperature\":1e-320", 200},
        {"\"temperature\":[1]", 400},
        {"\"top_p\":1", 200},
        {"\"top_p\":-0.1", 400},
        {"\"top_p\":1.0001", 400},
        {"\"top_k\":-1", 200},
        {"\"top_k\":-5", 400},
        {"\"top_k\":2147483647", 200},
        {"\"top_k\":2147483648", 400},
        {"\"top_k\":0.1", 400},
        {"\"top_k\":3.0", 200},
        {"\"n\":0", 400},
        {"\"n\":1000000000", 400},
        {"\"n\":18446744073709551617", 400},
        {"\"max_tokens\":0", 400},
        {"\"max_tokens\":-1", 400},
        {"\"max_tokens\":9223372036854775808", 400},
        {"\"max_tokens\":1e30", 400},
        {"\"max_tokens\":2,\"min_tokens\":3", 400},
        {"\"min_tokens\":-1", 400},
        {"\"seed\":-9223372036854775808", 200},
        {"\"seed\":9223372036854775807", 200},
        {"\"seed\":9223372036854775808", 400},
        {"\"seed\":0.5", 400},
        {"\"frequency_penalty\":2.1", 400},
        {"\"repetition_penalty\":0", 400},
        {"\"logit_bias\":{\"abc\":1}", 400},
        {"\"logit_bias\":{\"-1\":1}", 400},
        {"\"logit_bias\":{\"5x\":1}", 400},
        {"\"logit_bias\":{\"4294967301\":1}", 400},
        {"\"logit_bias\":{\"2147483647\":1}", 400},
        {"\"logit_bias\":{\"5\":1e300}", 400},
        {"\"logit_bias\":{\"5\":\"1\"}", 400},
        {"\"logit_bias\":{\"5\":-100,\"05\":100}", 200},
        {"\"logit_bias\":[5]", 400},
        {"\"logprobs\":true,\"top_logprobs\":20", 200},
        {"\"logprobs\":true,\"top_logprobs\":21", 400},
        {"\"logprobs\":true,\"top_logprobs\":-1", 400},
        {"\"prompt_logprobs\":21", 400},
        {"\"priority\":2147483647", 200},
        {"\"priority\":2147483648", 400},
        {"\"truncate_prompt_tokens\":-2", 400},
        {"\"truncate_prompt_tokens\":1", 200},
        {"\"thinking_budget\":0", 200},
        {"\"thinking_budget\":9223372036854775807", 200},
        {"\"thinking_token_budget\":1.5", 400},
        {"\"stop\":[]", 200},
        {"\"stop\":\"\"", 400},
        {"\"stop\":[\"a\",\"\"]", 400},
        {"\"stop\":[\"a\\u0000b\"]", 400},
        {"\"stop\":[7]", 400},
        {"\"stop_token_ids\":[-1]", 400},
        {"\"stop_token_ids\":[1e10]", 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[400];
        snprintf(body, sizeof body, "{" PLAIN HI ",%s}", rows[i].member);
        expect(CHAT, body, rows[i].status);
    }
    expect_made(CHAT, "{" PLAIN HI ",\"stop\":[", "\"a\"", ",", 10000, "]}", 400);
    expect_made(CHAT, "{" PLAIN HI ",\"stop\":[\"", "a", "", 1 << 20, "\"]}", 400);
    expect_made(CHAT, "{" PLAIN HI ",\"logit_bias\":{\"1\":1", ",\"1\":1", "", 100000, "}}", 200);
    still_serves();
}

/* ---- conversations --------------------------------------------------------------------------- */

static void conversations_are_checked(void **state)
{
    static const struct {
        const char *messages;
        int status;
    } rows[] = {
        {"[]", 400},
        {"{}", 400},
        {"42", 400},
        {"null", 400},
        {"[42]", 400},
        {"[null]", 400},
        {"[{}]", 400},
        {"[{\"role\":\"user\"}]", 200},
        {"[{\"role\":\"\",\"content\":\"\"}]", 400},
        {"[{\"role\":\"root\",\"content\":\"\"}]", 400},
        {"[{\"role\":7,\"content\":\"\"}]", 400},
        {"[{\"role\":\"user\",\"content\":{}}]", 400},
        {"[{\"role\":\"user\",\"content\":7}]", 400},
        {"[{\"role\":\"user\",\"content\":[7]}]", 400},
        {"[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
         "\"http://169.254.169.254/\"}}]}]",
         400},
        {"[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]", 200},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{}]}]", 400},
        {"[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":"
         "\"{\"}}]}]",
         200},
        {"[{\"role\":\"tool\",\"tool_call_id\":\"none\",\"content\":\"x\"}]", 200},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[600];
        snprintf(body, sizeof body, "{" PLAIN "\"messages\":%s}", rows[i].messages);
        expect(CHAT, body, rows[i].status);
    }
    still_serves();
}

/* Work grows with what is sent, not with its square. */
static void long_conversations_are_read_in_time(void **state)
{
    (void)state;
    /* Results of calls that nobody made; each is looked for. */
    expect_made(CHAT, "{" PLAIN "\"messages\":[",
                "{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":\"\"}", ",", 65536, "]}",
                400);
    /* One more than there may be. */
    expect_made(CHAT, "{" PLAIN "\"messages\":[", "{\"role\":\"user\"}", ",", 65537, "]}", 400);
    /* A template that wants turns: all become one message. */
    expect_made(CHAT, "{\"model\":\"strict\",\"max_tokens\":1,\"messages\":[",
                "{\"role\":\"user\",\"content\":\"0123456789 0123456789 0123456789\"}", ",", 65536,
                "]}", 400);
    /* One message of so many parts. */
    expect_made(CHAT, "{" PLAIN "\"messages\":[{\"role\":\"user\",\"content\":[",
                "{\"type\":\"text\",\"text\":\"0123456789 0123456789\"}", ",", 120000, "]}]}", 400);
    expect_made(MESSAGES, "{" PLAIN "\"messages\":[{\"role\":\"user\",\"content\":[",
                "{\"type\":\"text\",\"text\":\"0123456789 0123456789\"}", ",", 120000, "]}]}", 400);
    expect_made(RESPONSES, "{\"model\":\"plain\",\"input\":[",
                "{\"type\":\"function_call_output\",\"call_id\":\"x\",\"output\":\"\"}", ",", 65536,
                "]}", 400);
    /* Ollama's API drops the oldest until it fits. */
    expect_made(OLLAMA,
                "{\"model\":\"plain\",\"stream\":false,\"truncate\":true,"
                "\"options\":{\"num_predict\":1},\"messages\":[",
                "{\"role\":\"user\",\"content\":\"0123456789\"}", ",", 20000, "]}", 200);
    still_serves();
}

/* The worst that byte pairs can be asked: one character, blanks, what looks like tags. */
static void long_texts_are_split_in_time(void **state)
{
    static const char *const fills[] = {"a",    " ",       "\\n",     "1",
                                        "\\\"", "<think>", "\\u4e2d", "<|im_start|>"};
    (void)state;
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++) {
        size_t n = ((size_t)1 << 20) / strlen(fills[i]);
        expect_made(CHAT, "{" PLAIN "\"messages\":[{\"role\":\"user\",\"content\":\"", fills[i], "",
                    n, "\"}]}", 400);
        expect_made(TEXT, "{" PLAIN "\"prompt\":\"", fills[i], "", n, "\"}", 400);
    }
    expect_made(CHAT, "{" PLAIN "\"messages\":[{\"role\":\"user\",\"content\":\"", "a", "", 9 << 20,
                "\"}]}", 413);
    still_serves();
}

/* JSON inside of strings has no other bounds than JSON outside. */
static void json_in_strings_is_bounded(void **state)
{
    char *deep = made("", "[", "", 1900, ""), body[6000];
    size_t n = strlen(deep);
    (void)state;
    for (int closed = 0; closed < 2; closed++) {
        char *end = closed ? made("", "]", "", n, "") : made("", "", "", 0, "");
        snprintf(body, sizeof body,
                 "{" PLAIN "\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"function\":"
                 "{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":%s%s}\"}}]},"
                 "{\"role\":\"user\",\"content\":\"a\"}]}",
                 deep, end);
        /* Arguments that can't be read are shown to the model as the text that they are: too long a
           one for this context. */
        expect(CHAT, body, 400);
        snprintf(body, sizeof body, "{" PLAIN HI ",\"guided_json\":\"%s%s\"}", deep, end);
        expect(CHAT, body, 400);
        free(end);
    }
    free(deep);
    expect_made(CHAT, "{" PLAIN HI ",\"guided_json\":\"{\\\"enum\\\":[", "[]", ",", 1000000,
                "]}\"}", 400);
    still_serves();
}

/* A person's text stays text, wherever it stands. */
static void control_tokens_of_others_are_text(void **state)
{
    static const char *const rows[] = {
        "{\"role\":\"user\",\"content\":\"%s\"}",
        "{\"role\":\"tool\",\"tool_call_id\":\"%s\",\"content\":\"%s\"}",
        "{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":[{\"id\":\"%s\",\"function\":"
        "{\"name\":\"%s\",\"arguments\":\"{\\\"%s\\\": \\\"%s\\\"}\"}}]}",
        "{\"role\":\"assistant\",\"content\":\"%s\",\"reasoning_content\":\"%s\"}",
    };
    static const char mark[] = "<|im_end|>";
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char message[600], body[800];
        size_t seen = 0, k;
        json_t *t;
        snprintf(message, sizeof message, rows[i], mark, mark, mark, mark);
        snprintf(body, sizeof body,
                 "{\"model\":\"plain\",\"return_token_strs\":true,\"messages\":[%s]}", message);
        json_t *o = answer("/tokenize", body, 200);
        json_array_foreach(json_object_get(o, "token_strs"), k, t)
        {
            seen += !strcmp(json_string_value(t), mark);
        }
        if (seen != 1) /* the template's own */
            fail_msg("%zu in %s", seen, message);
        json_decref(o);
    }
}

/* ---- tools and formats ----------------------------------------------------------------------- */

#define TOOL(name, schema)                                                                         \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":" schema \
    "}}]"

static void schemas_of_tools_are_bounded(void **state)
{
    static const struct {
        const char *schema;
        int free, forced; /* status with tool_choice "auto" and "required" */
    } rows[] = {
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"$ref\":\"#\"}}}", 200, 200},
        {"{\"$ref\":\"#\"}", 200, 400},
        {"{\"$ref\":\"http://169.254.169.254/x\"}", 200, 400},
        {"{\"$ref\":\"#/$defs/none\"}", 200, 400},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":"
         "\"(a+)+$\"}}}",
         200, 200},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(\"}},"
         "\"required\":[\"a\"]}",
         200, 400},
        {"{\"type\":\"something\"}", 200, 400},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"array\",\"minItems\":"
         "1000000000}},\"required\":[\"a\"]}",
         200, 200},
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":"
         "4000000000}}}",
         200, 200},
        {"{\"type\":7}", 200, 400},
        {"{\"properties\":[]}", 200, 400},
    };
    char body[1000];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int forced = 0; forced < 2; forced++) {
            snprintf(body, sizeof body,
                     "{" PLAIN HI ",\"tool_choice\":\"%s\",\"tools\":[{\"type\":\"function\","
                     "\"function\":{\"name\":\"f\",\"parameters\":%s}}]}",
                     forced ? "required" : "auto", rows[i].schema);
            expect(CHAT, body, forced ? rows[i].forced : rows[i].free);
        }
    still_serves();
}

/* Large ones: the model could not see them all, but they are compiled first, in time. */
static void large_schemas_are_compiled_in_time(void **state)
{
    struct buf b;
    (void)state;
    buf_init(&b, (size_t)8 << 20);
    buf_puts(&b, "{" PLAIN HI ",\"guided_json\":{\"type\":\"object\",\"properties\":{", NULL);
    for (int i = 0; i < 10000; i++)
        buf_printf(&b, NULL, "%s\"p%d\":{\"type\":\"string\"}", i ? "," : "", i);
    buf_append(&b, "}}}", 4, NULL);
    json_t *o = json_loads(b.data, 0, NULL);
    assert_non_null(o);
    json_decref(o);
    struct reply r;
    bench_ask(&bench, "POST", CHAT, "", b.data, &r);
    assert_true(r.complete && (r.status == 200 || r.status == 400));
    reply_free(&r);
    buf_clear(&b);
    buf_puts(&b, "{" PLAIN HI ",\"guided_json\":{\"enum\":[", NULL);
    for (int i = 0; i < 100000; i++)
        buf_printf(&b, NULL, "%s\"value %d\"", i ? "," : "", i);
    buf_append(&b, "]}}", 4, NULL);
    bench_ask(&bench, "POST", CHAT, "", b.data, &r);
    assert_true(r.complete && (r.status == 200 || r.status == 400));
    reply_free(&r);
    buf_release(&b);
    still_serves();
}

static void names_of_tools_are_checked(void **state)
{
    static const char *const names[] = {"",          "a b",        "a\\\"b", "a\\nb",
                                        "a\\u0000b", "<|im_end|>", "a\\\\b"};
    char body[600];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(body, sizeof body,
                 "{" PLAIN HI
                 ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"%s\"}}]}",
                 names[i]);
        expect(CHAT, body, 400);
        snprintf(body, sizeof body,
                 "{" PLAIN HI ",\"tools\":[{\"name\":\"%s\",\"input_schema\":{}}]}", names[i]);
        expect(MESSAGES, body, 400);
        snprintf(body, sizeof body,
                 "{\"model\":\"plain\",\"input\":\"a\",\"tools\":[{\"type\":\"function\","
                 "\"name\":\"%s\"}]}",
                 names[i]);
        expect(RESPONSES, body, 400);
        snprintf(body, sizeof body,
                 "{\"model\":\"plain\",\"stream\":false," HI
                 ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"%s\"}}]}",
                 names[i]);
        expect(OLLAMA, body, 400);
    }
    expect(CHAT,
           "{" PLAIN HI "," TOOL(
               "f", "{}") ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}}",
           400);
    expect(CHAT, "{" PLAIN HI "," TOOL("f", "{}") ",\"tool_choice\":{}}", 400);
    expect(OLLAMA, "{\"model\":\"plain\",\"stream\":false," HI ",\"tools\":[7]}", 400);
    expect(OLLAMA, "{\"model\":\"plain\",\"stream\":false," HI ",\"tools\":{}}", 400);
    still_serves();
}

static void formats_that_admit_nothing_are_refused(void **state)
{
    static const char *const rows[] = {
        "\"guided_json\":false",
        "\"guided_json\":{\"enum\":[]}",
        "\"guided_json\":{\"not\":{}}",
        "\"guided_json\":{\"type\":\"string\",\"minLength\":5,\"maxLength\":2}",
        "\"guided_json\":{\"type\":\"integer\",\"minimum\":5,\"maximum\":2}",
        "\"guided_json\":{\"type\":\"object\",\"properties\":{\"a\":false},\"required\":[\"a\"]}",
        "\"guided_json\":{\"allOf\":[{\"type\":\"string\"},{\"type\":\"number\"}]}",
        "\"guided_choice\":[]",
        "\"guided_regex\":\"a{1000000000}\"",
        "\"guided_regex\":\"[b-a]\"",
        "\"guided_regex\":\"\\\\p{Nonsense}\"",
        "\"guided_regex\":\"(?=a)a\"",
        "\"guided_grammar\":\"\"",
        "\"guided_grammar\":\"root ::= none\"",
        "\"guided_grammar\":\"root ::= root\"",
        "\"guided_grammar\":\"root ::= \\\"a\\\" root\"",
    };
    char body[400];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(body, sizeof body, "{" PLAIN HI ",%s}", rows[i]);
        expect(CHAT, body, 400);
    }
    expect_made(CHAT, "{" PLAIN HI ",\"guided_regex\":\"", "(", "", 100000, "\"}", 400);
    expect_made(CHAT, "{" PLAIN HI ",\"guided_regex\":\"", "(a|b)*", "", 20000, "(\"}", 400);
    expect_made(CHAT, "{" PLAIN HI ",\"guided_grammar\":\"root ::= ", "(", "", 100000, "\"}", 400);
    expect_made(CHAT, "{" PLAIN HI ",\"guided_json\":{\"allOf\":[", "{\"type\":\"object\"}", ",",
                100000, "]}}", 200);
    still_serves();
}

/* ---- ends ----------------------------------------------------------------------------------- */

/* However an answer ends, its content is there, is text, and is UTF-8. */
static void answers_end_well_wherever_they_end(void **state)
{
    char body[600];
    (void)state;
    for (int budget = 0; budget < 3; budget++)
        for (int max = 1; max < 12; max += 2) {
            snprintf(body, sizeof body,
                     "{\"model\":\"always\",\"max_tokens\":%d,\"seed\":%d,\"temperature\":2,"
                     "\"ignore_eos\":true,\"thinking_budget\":%d,"
                     "\"stop\":[\"</think>\\n\\n\",\"k>\\n\\n\"]," HI "}",
                     max, max, budget);
            json_t *o = answer(CHAT, body, 200);
            json_t *c = json_array_get(json_object_get(o, "choices"), 0);
            json_t *text = json_object_get(json_object_get(c, "message"), "content");
            assert_true(json_is_string(text));
            assert_true(utf8_valid(json_string_value(text), json_string_length(text)));
            const char *why = json_string_value(json_object_get(c, "finish_reason"));
            assert_true(why && (!strcmp(why, "length") || !strcmp(why, "stop")));
            json_decref(o);
        }
    /* Tokens of parts of characters, in pieces. */
    for (int seed = 0; seed < 8; seed++) {
        struct reply r;
        snprintf(body, sizeof body,
                 "{\"model\":\"plain\",\"stream\":true,\"max_tokens\":40,\"seed\":%d,"
                 "\"temperature\":2,\"ignore_eos\":true," HI "}",
                 seed);
        bench_ask(&bench, "POST", CHAT, "", body, &r);
        assert_true(r.status == 200 && r.complete && utf8_valid(r.body, r.n));
        for (char *s = r.body; *s; s = strstr(s, "\n\n") + 2) {
            assert_int_equal(strncmp(s, "data: ", 6), 0); /* nothing else, each with its end */
            assert_non_null(strstr(s, "\n\n"));
        }
        assert_true(r.n > 14 && !strcmp(r.body + r.n - 14, "data: [DONE]\n\n"));
        reply_free(&r);
    }
    /* A call that is cut off. */
    for (int max = 1; max < 20; max += 3) {
        snprintf(body, sizeof body,
                 "{\"model\":\"plain\",\"max_tokens\":%d,\"tool_choice\":\"required\"," HI
                 "," TOOL("f", "{\"type\":\"object\"}") "}",
                 max);
        expect(CHAT, body, 200);
    }
}

/* ---- Ollama, names of models ------------------------------------------------------------------
 */

static void names_of_models_are_no_paths(void **state)
{
    static const struct {
        const char *name;
        int status;
    } rows[] = {
        {"..", 404},
        {".", 404},
        {"/etc/passwd", 404},
        {"../../plain", 404},
        {"./plain", 404},
        {"plain/", 404},
        {"plain\\\\x", 404},
        {"CON", 404},
        {"plain:", 404},
        {":latest", 404},
        {"plain:latest:latest", 404},
        {"PLAIN:Latest", 200},
        {"plain\\u0000x", 400},
        {"", 400},
    };
    static const char *const paths[] = {CHAT, OLLAMA, "/api/show", MESSAGES};
    char body[400];
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t k = 0; k < sizeof paths / sizeof *paths; k++) {
            snprintf(body, sizeof body,
                     "{\"model\":\"%s\",\"max_tokens\":1,\"options\":{\"num_predict\":1},"
                     "\"stream\":false," HI "}",
                     rows[i].name);
            expect(paths[k], body, rows[i].status);
        }
    for (size_t k = 0; k < sizeof paths / sizeof *paths; k++)
        expect_made(paths[k], "{\"model\":\"", "a", "", 4096, "\",\"max_tokens\":1," HI "}", 400);
    assert_int_equal(bench_status(&bench, "GET", "/v1/models/..%2f..%2fplain", ""), 404);
    assert_int_equal(bench_status(&bench, "GET", "/v1/models/%2e%2e", ""), 404);
    still_serves();
}

#define FEW "\"options\":{\"num_predict\":3}"

static void options_of_ollama_have_their_bounds(void **state)
{
    static const struct {
        const char *path, *members;
        int status;
    } rows[] = {
        {OLLAMA, FEW ",\"keep_alive\":\"\"", 400},
        {OLLAMA, FEW ",\"keep_alive\":\"5\"", 200},
        {OLLAMA, FEW ",\"keep_alive\":\"1e999h\"", 400},
        {OLLAMA, FEW ",\"keep_alive\":1e300", 200},
        {OLLAMA, FEW ",\"keep_alive\":\"-1m\"", 200},
        {OLLAMA, "\"options\":[]", 400},
        {OLLAMA, "\"options\":{\"num_predict\":3,\"num_ctx\":2147483647}", 200},
        {OLLAMA, "\"options\":{\"num_predict\":3,\"num_ctx\":-1}", 200},
        {OLLAMA, "\"options\":{\"num_ctx\":4294967296}", 400},
        {OLLAMA, "\"options\":{\"num_predict\":-99,\"stop\":[\"e\"],\"seed\":-1}", 200},
        {OLLAMA, "\"options\":{\"num_predict\":1e10}", 400},
        {OLLAMA, "\"options\":{\"repeat_last_n\":16777217}", 400},
        {OLLAMA, "\"options\":{\"repeat_last_n\":-2}", 400},
        {OLLAMA, "\"options\":{\"temperature\":1e300}", 400},
        {OLLAMA, "\"format\":7", 400},
        {OLLAMA, "\"format\":\"xml\"", 400},
        {OLLAMA, "\"format\":{\"type\":\"something\"}", 400},
        {OLLAMA, "\"stream\":0", 400},
        {"/api/generate", "\"prompt\":7", 400},
        {"/api/generate", "\"prompt\":\"a\",\"context\":[-1]", 400},
        {"/api/generate", "\"prompt\":\"a\",\"context\":[2147483647]", 400},
        {"/api/generate", "\"prompt\":\"a\",\"context\":[1.5]", 400},
        {"/api/generate", "\"prompt\":\"a\",\"context\":\"x\"", 400},
        {"/api/generate", "\"prompt\":\"a\",\"images\":[\"not base64\"]", 400},
        {"/api/generate", "\"prompt\":\"a\",\"suffix\":\"b\"", 400},
        {"/api/embed", "\"input\":[]", 200},
        {"/api/embed", "\"input\":{}", 400},
        {"/api/embed", "\"input\":[[]]", 400},
        {"/api/embed", "\"input\":\"\"", 400},
        {"/api/embed", "\"input\":\"a\",\"options\":{\"stop\":[\"a\",\"b\"],\"use_mmap\":true}",
         200},
        {"/api/embed", "\"input\":\"a\",\"dimensions\":-1", 400},
        {"/v1/embeddings", "\"input\":[[1,99999]]", 400},
        {"/v1/embeddings", "\"input\":[1,\"a\"]", 400},
        {"/v1/embeddings", "\"input\":\"a\",\"encoding_format\":\"hex\"", 400},
        {"/v1/embeddings", "\"input\":\"a\",\"dimensions\":1000000000", 400},
        {"/tokenize", "\"prompt\":7", 400},
        {"/detokenize", "\"tokens\":[-1]", 400},
        {"/detokenize", "\"tokens\":[99999]", 400},
        {"/detokenize", "\"tokens\":7", 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char body[500];
        snprintf(body, sizeof body, "{\"model\":\"plain\",\"stream\":false,%s%s}",
                 !strcmp(rows[i].path, OLLAMA) ? HI "," : "", rows[i].members);
        expect(rows[i].path, body, rows[i].status);
    }
    expect_made("/api/generate", "{\"model\":\"plain\",\"prompt\":\"a\",\"context\":[", "5", ",",
                1000000, "]}", 400);
    expect_made("/api/embed", "{\"model\":\"plain\",\"input\":[", "\"a\"", ",", 2049, "]}", 400);
    still_serves();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_json_object_is_refused),
        cmocka_unit_test(names_may_come_twice),
        cmocka_unit_test(numbers_have_their_bounds),
        cmocka_unit_test(conversations_are_checked),
        cmocka_unit_test(long_conversations_are_read_in_time),
        cmocka_unit_test(long_texts_are_split_in_time),
        cmocka_unit_test(json_in_strings_is_bounded),
        cmocka_unit_test(control_tokens_of_others_are_text),
        cmocka_unit_test(schemas_of_tools_are_bounded),
        cmocka_unit_test(large_schemas_are_compiled_in_time),
        cmocka_unit_test(names_of_tools_are_checked),
        cmocka_unit_test(formats_that_admit_nothing_are_refused),
        cmocka_unit_test(answers_end_well_wherever_they_end),
        cmocka_unit_test(names_of_models_are_no_paths),
        cmocka_unit_test(options_of_ollama_have_their_bounds),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
