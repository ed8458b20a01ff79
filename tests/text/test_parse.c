/*
 * The output parser: thoughts and tool calls of the model families, whole and in pieces. Whatever
 * the cuts, the same comes out.
 */
#include "support/fail_alloc.h"
#include "text/parse.h"

#include "base/rng.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SEP "<｜tool▁sep｜>"
#define CALLS "<｜tool▁calls▁begin｜>"
#define CALLS_END "<｜tool▁calls▁end｜>"
#define CALL "<｜tool▁call▁begin｜>"
#define CALL_END "<｜tool▁call▁end｜>"

struct row {
    const char *text;
    bool open;
    const char *reasoning; /* NULL: null */
    const char *content;
    const char *calls; /* JSON */
};

static const struct row rows[] = {
    {"", false, NULL, "", "[]"},
    {"Hello", false, NULL, "Hello", "[]"},
    {"  Hello \n", false, NULL, "  Hello \n", "[]"},
    {"<think>\nhm\n</think>\n\nHello", false, "hm", "Hello", "[]"},
    {"\n<think>hm</think>Hello", false, "hm", "Hello", "[]"},
    {"<think>\n\n</think>\n\nHello", false, NULL, "Hello", "[]"},
    {"<think>hm", false, "hm", "", "[]"},
    {"<think>", false, NULL, "", "[]"},
    {"<thin", false, NULL, "<thin", "[]"},
    {"hm\n\n  more\n</think>\n\nHello\n", true, "hm\n\n  more", "Hello\n", "[]"},
    {"<think>\nhm\n</think>Hello", true, "hm", "Hello", "[]"},
    {"no end", true, "no end", "", "[]"},
    {"a < b </thin k></think>c", true, "a < b </thin k>", "c", "[]"},
    {"</think>Hello", true, NULL, "Hello", "[]"},
    {"a</think>b</think>c", true, "a", "b</think>c", "[]"},
    {"Hi <think>not at the start</think>", false, NULL, "Hi <think>not at the start</think>", "[]"},
    /* Hermes, Qwen */
    {"<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{\"a\":1}}]"},
    {"Let me look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n"
     "{\"arguments\": {\"x\": [1, {\"y\": null}]}, \"name\": \"g\"}\n</tool_call>\n",
     false, NULL, "Let me look.",
     "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{\"x\":[1,{\"y\":null}]}}]"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call> "
     "<tool_call>\\\"\"}}</tool_call>",
     false, NULL, "", "[{\"name\":\"f\",\"arguments\":{\"s\":\"</tool_call> <tool_call>\\\"\"}}]"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{\"a\":1}}]"},
    {"<tool_call>{\"name\": \"f\", \"arguments\": \"plain\"}</tool_call>", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":\"plain\"}]"},
    {"<tool_call>{\"name\": \"f\"}</tool_call> and more", false, NULL, "and more",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"<tool_call>```json\n{\"name\": \"f\", \"arguments\": {}}\n```</tool_call>", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": "
     "{}}}</tool_call>",
     false, NULL, "", "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"a <tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}", false, NULL, "a",
     "[{\"name\":\"f\",\"arguments\":{\"a\":1}}]"}, /* cut off behind the object */
    {"<tool_call>{\"name\":\"f\"}<tool_call>{\"name\":\"g\"}</tool_call>", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]"},
    {"<think>\nhm\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
     false, "hm", "", "[{\"name\":\"f\",\"arguments\":{}}]"},
    /* what is no call stays text */
    {"x <tool_call>oops</tool_call> y", false, NULL, "x <tool_call>oops</tool_call> y", "[]"},
    {"<tool_call>{\"name\": 5}</tool_call>", false, NULL, "<tool_call>{\"name\": 5}</tool_call>",
     "[]"},
    {"<tool_call>{\"name\": \"f\"} x</tool_call>", false, NULL,
     "<tool_call>{\"name\": \"f\"} x</tool_call>", "[]"},
    {"<tool_call>{\"name\": \"f\", \"argu", false, NULL, "<tool_call>{\"name\": \"f\", \"argu",
     "[]"},
    {"<tool_cal", false, NULL, "<tool_cal", "[]"},
    {"<tool_call>[1]</tool_call><tool_call>{\"name\":\"f\"}</tool_call>", false, NULL,
     "<tool_call>[1]</tool_call>", "[{\"name\":\"f\",\"arguments\":{}}]"},
    /* DeepSeek */
    {CALLS CALL "function" SEP
                "f\n```json\n{\"a\": \"1\\n2\",\n \"b\": true}\n```" CALL_END CALLS_END,
     false, NULL, "", "[{\"name\":\"f\",\"arguments\":{\"a\":\"1\\n2\",\"b\":true}}]"},
    {"ok\n\n" CALLS CALL "function" SEP "f\n```json\n{}\n```" CALL_END "\n" CALL "function" SEP
     "g\n```json\n{\"n\": 12.50}\n```" CALL_END CALLS_END,
     false, NULL, "ok",
     "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{\"n\":12.5}}]"},
    {CALLS CALL "f" SEP "{\"a\": {}}" CALL_END CALL "g" SEP "{}" CALL_END CALLS_END, false, NULL,
     "", "[{\"name\":\"f\",\"arguments\":{\"a\":{}}},{\"name\":\"g\",\"arguments\":{}}]"},
    {CALL "function" SEP "f\n```json\n{}\n```" CALL_END, false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"thinking " CALLS CALL "f" SEP "{}" CALL_END CALLS_END "after", true, "thinking", "after",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {CALLS CALL "f" SEP "{}" CALLS_END, false, NULL, "", "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"a" CALLS CALL "f{}" CALL_END CALLS_END, false, NULL, "a" CALLS CALL "f{}" CALL_END CALLS_END,
     "[]"},
    {CALLS " nothing", false, NULL, CALLS " nothing", "[]"},
    {CALLS, false, NULL, CALLS, "[]"},
    {CALLS CALL "f" SEP "{\"a\":", false, NULL, CALLS CALL "f" SEP "{\"a\":", "[]"},
    /* Llama 3.1 */
    {"{\"name\": \"f\", \"parameters\": {\"a\": \"x\"}}", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{\"a\":\"x\"}}]"},
    {"\n{\"type\": \"function\", \"name\": \"f\", \"parameters\": {}}\n", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g\", \"parameters\": {}}", false, NULL,
     "", "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]"},
    {"<|python_tag|>{\"name\": \"f\", \"parameters\": {}}", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"<|python_tag|>print(1)", false, NULL, "<|python_tag|>print(1)", "[]"},
    {"{\"name\": \"Ann\", \"age\": 31}", false, NULL, "{\"name\": \"Ann\", \"age\": 31}", "[]"},
    {"{\"name\": \"Ann\"}", false, NULL, "{\"name\": \"Ann\"}", "[]"},
    {"{\"answer\": {\"name\": \"f\", \"parameters\": {}}}", false, NULL,
     "{\"answer\": {\"name\": \"f\", \"parameters\": {}}}", "[]"},
    {"{\"name\": \"f\", \"parameters\": {}} done", false, NULL,
     "{\"name\": \"f\", \"parameters\": {}} done", "[]"},
    {"{\"name\": \"f\", \"param", false, NULL, "{\"name\": \"f\", \"param", "[]"},
    {"{", false, NULL, "{", "[]"},
    {"{}}{{", false, NULL, "{}}{{", "[]"},
    {"{x} <tool_call>{\"name\":\"f\"}</tool_call>", false, NULL, "{x}",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    /* bare ones in a fence */
    {"```json\n{\n  \"name\": \"f\",\n  \"arguments\": {\"a\": \"```\"}\n}\n```", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{\"a\":\"```\"}}]"},
    {"<think>hm</think>\n\n```\n{\"name\": \"f\", \"parameters\": {}}\n```\n", false, "hm", "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"```json\n{\"name\": \"f\", \"arguments\": {}}\n{\"name\": \"g\", \"arguments\": "
     "{}}```\n\nDone.",
     false, NULL, "Done.", "[{\"name\":\"f\",\"arguments\":{}},{\"name\":\"g\",\"arguments\":{}}]"},
    {"```json\n{\"name\": \"f\", \"arguments\": {}}", false, NULL, "",
     "[{\"name\":\"f\",\"arguments\":{}}]"},
    {"```json\n{\"name\": \"Ann\", \"age\": 31}\n```", false, NULL,
     "```json\n{\"name\": \"Ann\", \"age\": 31}\n```", "[]"},
    {"```json\n{\"name\": \"f\"}\n```", false, NULL, "```json\n{\"name\": \"f\"}\n```", "[]"},
    {"```json\n{\"name\": \"f\", \"arguments\": {}}\n``", false, NULL,
     "```json\n{\"name\": \"f\", \"arguments\": {}}\n``", "[]"},
    {"```c\n{\"name\": \"f\", \"arguments\": {}}\n```", false, NULL,
     "```c\n{\"name\": \"f\", \"arguments\": {}}\n```", "[]"},
    {"```json\n", false, NULL, "```json\n", "[]"},
    {"So:\n```json\n{\"name\": \"f\", \"arguments\": {}}\n```", false, NULL,
     "So:\n```json\n{\"name\": \"f\", \"arguments\": {}}\n```", "[]"},
    {"{\"name\": \"\\\"},{\", \"parameters\": {\"}\": \"{\"}}", false, NULL, "",
     "[{\"name\":\"\\\"},{\",\"arguments\":{\"}\":\"{\"}}]"},
};

static void outputs_are_taken_apart(void **state)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *w = &rows[i];
        struct err e;
        json_t *out, *calls = json_loads(w->calls, 0, NULL);
        assert_int_equal(parse_output(&out, w->text, strlen(w->text), w->open, &e), 0);
        const char *thought = json_string_value(json_object_get(out, "reasoning"));
        if (!thought != !w->reasoning || (thought && strcmp(thought, w->reasoning) != 0))
            fail_msg("%s: reasoning is %s", w->text, thought);
        const char *content = json_string_value(json_object_get(out, "content"));
        if (!content || strcmp(content, w->content) != 0)
            fail_msg("%s: content is %s", w->text, content);
        assert_non_null(calls);
        if (!json_equal(calls, json_object_get(out, "tool_calls")))
            fail_msg("%s: calls are %s", w->text,
                     json_dumps(json_object_get(out, "tool_calls"), JSON_COMPACT));
        json_decref(out);
        json_decref(calls);
    }
}

/* ---- streams ------------------------------------------------------------------------------------
 */

/* Events written as one text: neighbours of the same kind run together. */
struct log {
    char s[8192];
    size_t n;
    int last;
};

static int log_event(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct log *l = arg;
    assert_true(n > 0);
    if (l->last != (int)ev || ev == PARSE_TOOL_CALL)
        l->s[l->n++] = (char)('A' + (int)ev);
    l->last = (int)ev;
    assert_true(l->n + n < sizeof l->s - 1);
    memcpy(l->s + l->n, s, n);
    l->n += n;
    l->s[l->n] = 0;
    return 0;
}

/* Feeds text in pieces whose lengths `rng` draws from 1 to max. */
static void stream(struct log *l, const char *text, size_t n, bool open, struct rng *rng,
                   size_t max)
{
    struct parser *p;
    struct err e;
    *l = (struct log){.last = -1};
    assert_int_equal(parser_new(&p, open, &e), 0);
    for (size_t at = 0; at < n;) {
        size_t k = max == 1 ? 1 : 1 + rng_u32(rng) % max;
        if (k > n - at)
            k = n - at;
        assert_int_equal(parser_feed(p, text + at, k, log_event, l, &e), 0);
        at += k;
    }
    assert_int_equal(parser_finish(p, log_event, l, &e), 0);
    parser_free(p);
}

static void any_cuts_give_the_same(void **state)
{
    struct rng rng;
    struct log whole, cut;
    rng_init(&rng, 1, 0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t n = strlen(rows[i].text);
        for (int open = 0; open < 2; open++) {
            stream(&whole, rows[i].text, n, open, &rng, n ? n : 1);
            for (int k = 0; k < 20; k++) {
                stream(&cut, rows[i].text, n, open, &rng, k ? 1 + (size_t)k * 2 : 1);
                assert_string_equal(cut.s, whole.s);
            }
        }
    }
}

/* Sequences of tags and their parts, in any order. */
static void any_cuts_of_any_text_give_the_same(void **state)
{
    static const char *const parts[] = {
        "<think>",
        "</think>",
        CALLS,
        CALLS_END,
        CALL,
        CALL_END,
        SEP,
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "{\"name\":\"f\",\"arguments\":{}}",
        "{\"name\":\"f\",\"parameters\":{\"a\":\"b\"}}",
        "f",
        "\n",
        " ",
        "<",
        "text",
        "\"",
        "{",
        "}",
        "{}",
        "```json\n",
        "```",
        "function",
        ";",
        "\\",
        "name",
    };
    struct rng rng;
    struct log whole, cut;
    rng_init(&rng, 2, 0);
    for (int round = 0; round < 6000; round++) {
        char text[1024] = "";
        size_t n = 0;
        for (uint32_t k = rng_u32(&rng) % 12; k > 0; k--) {
            const char *part = parts[rng_u32(&rng) % (sizeof parts / sizeof *parts)];
            n += (size_t)sprintf(text + n, "%s", part);
        }
        bool open = rng_u32(&rng) % 2;
        stream(&whole, text, n, open, &rng, n ? n : 1);
        stream(&cut, text, n, open, &rng, 1);
        assert_string_equal(cut.s, whole.s);
        stream(&cut, text, n, open, &rng, 9);
        assert_string_equal(cut.s, whole.s);
    }
}

static void text_comes_as_early_as_it_is_certain(void **state)
{
    static const struct {
        const char *piece, *log;
    } steps[] = {
        {"<thi", ""},
        {"nk>", ""},
        {"\n", ""},
        {"hm", "Ahm"},
        {" so\n", "Ahm so"},
        {"</", "Ahm so"},
        {"think>", "Ahm so"},
        {"\n\nHi", "Ahm soBHi"},
        {" <", "Ahm soBHi"},
        {"b", "Ahm soBHi <b"},
        {"<tool_call>{\"name\"", "Ahm soBHi <b"},
        {":\"f\"}</tool_call>", "Ahm soBHi <bC{\"name\":\"f\",\"arguments\":{}}"},
    };
    struct parser *p;
    struct err e;
    struct log l = {.last = -1};
    assert_int_equal(parser_new(&p, false, &e), 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(parser_feed(p, steps[i].piece, strlen(steps[i].piece), log_event, &l, &e),
                         0);
        assert_string_equal(l.s, steps[i].log);
        assert_int_equal(parser_thinking(p), i >= 1 && i <= 5);
    }
    parser_free(p);
    /* JSON whose first key is not that of a call is not held back */
    l = (struct log){.last = -1};
    assert_int_equal(parser_new(&p, false, &e), 0);
    assert_int_equal(parser_feed(p, "{\"answer\":", 10, log_event, &l, &e), 0);
    assert_string_equal(l.s, "B{\"answer\":");
    parser_free(p);
}

/* The model's digits and order of keys survive in the event. */
static void arguments_keep_their_text(void **state)
{
    static const char text[] =
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"b\": 0.10, \"a\": 1e400, "
        "\"n\": 123456789012345678901234567890}}</tool_call>";
    struct rng rng;
    struct log l;
    rng_init(&rng, 3, 0);
    stream(&l, text, strlen(text), false, &rng, 7);
    assert_string_equal(l.s, "C{\"name\":\"f\",\"arguments\":{\"b\": 0.10, \"a\": 1e400, "
                             "\"n\": 123456789012345678901234567890}}");
}

static int refuse(void *arg, enum parse_event ev, const char *s, size_t n)
{
    return ERR_CANCELLED;
}

static void the_listener_may_stop(void **state)
{
    struct parser *p;
    struct err e;
    assert_int_equal(parser_new(&p, false, &e), 0);
    assert_int_equal(parser_feed(p, "Hello", 5, refuse, NULL, &e), ERR_CANCELLED);
    parser_free(p);
}

static void megabytes_of_tags_are_no_trouble(void **state)
{
    static const char *const units[] = {
        "<think>", "<", "\n", "<tool_call>", "{\"name\":", "</tool_call>", "{", "\"", CALLS, CALL};
    enum { TIMES = 20000 };
    for (size_t u = 0; u < sizeof units / sizeof *units; u++) {
        size_t k = strlen(units[u]);
        struct parser *p;
        struct err e;
        struct buf out;
        json_t *whole;
        buf_init(&out, (size_t)64 << 20);
        assert_int_equal(parser_new(&p, false, &e), 0);
        for (int i = 0; i < TIMES; i++)
            assert_int_equal(buf_append(&out, units[u], k, &e), 0);
        assert_int_equal(parse_output(&whole, out.data, out.len, false, &e), 0);
        json_decref(whole);
        parser_free(p);
        buf_release(&out);
    }
}

static void bytes_that_are_not_text_are_replaced(void **state)
{
    struct err e;
    json_t *out;
    assert_int_equal(parse_output(&out, "a\xff\xe4\xbd", 4, false, &e), 0);
    assert_string_equal(json_string_value(json_object_get(out, "content")),
                        "a\xef\xbf\xbd\xef\xbf\xbd");
    json_decref(out);
}

static void every_allocation_may_fail(void **state)
{
    static const char text[] = "<think>\nhm\n</think>\n\nHi <tool_call>{\"name\": \"f\\u0041\", "
                               "\"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>" CALLS CALL "f" SEP
                               "{\"a\": 2}" CALL_END CALLS_END;
    for (size_t n = 1;; n++) {
        struct err e = {0};
        json_t *out;
        fail_alloc_at(n);
        int code = parse_output(&out, text, strlen(text), false, &e);
        bool failed = fail_alloc_stop();
        json_decref(out);
        if (!failed) {
            assert_int_equal(code, 0);
            assert_true(n > 5);
            break;
        }
        assert_int_equal(code, ERR_NOMEM);
    }
}

/* ---- calls in pieces ----------------------------------------------------------------------- */

struct pieces {
    char name[64], args[512];
    size_t n_args, fragments, calls, broken;
};

static int piece(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct pieces *p = arg;
    if (ev == PARSE_CALL_NAME) {
        assert_int_equal(p->n_args, 0);
        snprintf(p->name, sizeof p->name, "%.*s", (int)n, s);
    } else if (ev == PARSE_CALL_ARGUMENTS) {
        assert_true(*p->name && n && p->n_args + n < sizeof p->args);
        memcpy(p->args + p->n_args, s, n);
        p->n_args += n;
        p->fragments++;
    } else if (ev == PARSE_TOOL_CALL && !n) {
        assert_true(*p->name); /* only of what had begun */
        p->broken++;
        p->name[0] = 0;
    } else if (ev == PARSE_TOOL_CALL) {
        /* what came in pieces is what comes whole */
        json_t *call = json_loadb(s, n, 0, NULL), *args = json_object_get(call, "arguments");
        assert_non_null(args);
        if (*p->name) {
            json_t *mine = json_loadb(p->args, p->n_args, 0, NULL);
            assert_string_equal(json_string_value(json_object_get(call, "name")), p->name);
            assert_true(json_equal(args, mine));
            json_decref(mine);
        }
        json_decref(call);
        p->calls++;
        p->name[0] = 0;
        p->n_args = 0;
    }
    return 0;
}

static void feed_pieces(const char *text, size_t step, struct pieces *p)
{
    struct parser *parser;
    struct err e;
    *p = (struct pieces){.calls = 0};
    assert_int_equal(parser_new(&parser, false, &e), 0);
    parser_stream_calls(parser);
    for (size_t i = 0, n = strlen(text); i < n; i += step)
        assert_int_equal(parser_feed(parser, text + i, i + step < n ? step : n - i, piece, p, &e),
                         0);
    assert_int_equal(parser_finish(parser, piece, p, &e), 0);
    parser_free(parser);
}

static void calls_come_in_pieces(void **state)
{
    static const char *const texts[] = {
        "Hi <tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"</tool_call> } \\\" {\", "
        "\"n\": [1, {}]}}\n</tool_call>",
        "<tool_call>```json\n{\"name\":\"f\",\"parameters\":{\"a\":{\"b\":[]}}}\n```</tool_call>",
        "<tool_call>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"arguments\": "
        "{\"a\": 12345}}}</tool_call>",
        CALLS CALL "function" SEP
                   "f\n```json\n{\"city\": \"Paris\",\n \"x\": {}}\n```" CALL_END CALLS_END,
        CALLS CALL "f" SEP "{\"city\": \"Paris\"}" CALL_END "\n" CALL "g" SEP
                   "{\"a\": 1}" CALL_END CALLS_END,
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (size_t step = 1; step < 40; step++) {
            struct pieces p;
            feed_pieces(texts[i], step, &p);
            assert_int_equal(p.calls, i == 4 ? 2 : 1);
            if (step == 1)
                assert_true(p.fragments > 4);
        }
}

static void other_calls_come_whole(void **state)
{
    (void)state;
    struct pieces p;
    feed_pieces("<tool_call>{\"arguments\": {\"a\": 1}, \"name\": \"f\"}</tool_call>", 1, &p);
    assert_true(p.calls == 1 && p.fragments == 0);
    feed_pieces("<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"a\\\": 1}\"}</tool_call>", 1,
                &p);
    assert_true(p.calls == 1 && p.fragments == 0);
    /* cut off in the middle: what was certain, and an end without text */
    feed_pieces("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, 2", 3, &p);
    assert_true(p.calls == 0 && p.broken == 1);
    assert_string_equal(p.args, "{\"a\": [1, 2");
    /* what had begun as a call and can't be read ends before the next one */
    feed_pieces("<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1 2}}</tool_call>", 1, &p);
    assert_true(p.calls == 0 && p.broken == 1);
}

/* A call that was cut off is no text; what is no call is not lost. */
static void cut_calls_are_no_content(void **state)
{
    static const struct {
        const char *text, *content;
        size_t calls;
    } cuts[] = {
        {"<tool_call>", "", 0},
        {"<tool_call>\n{\"name\": \"f\", \"arg", "", 0},
        {"Let me see. <tool_call>{\"name\": \"f\", \"arguments\": {\"a", "Let me see.", 0},
        {"Let me see. <tool_c", "Let me see. ", 0},
        {"1 < 2 and <t", "1 < 2 and <t", 0},
        {"<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"na", "", 1},
        {"<｜tool▁calls▁begin｜>", "", 0},
        {"<｜tool▁calls▁begin｜><｜tool▁call▁beg", "", 0},
        {"a<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"", "a",
         0},
        {"<｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\":1}", "", 1}, /* only its end is missing */
        {"{\"name\": \"f\", \"parameters\": {\"a\": ", "", 0},
        {"{\"na", "", 0},
        {"{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g", "", 1},
        {"{\"name\": \"f\", \"parameters\": {}}", "", 1},
        {"```json\n{\"name\": \"f\", \"arguments\": {\"b\"", "", 0},
        {"<|python_tag|>{\"type\": \"function\", \"na", "", 0},
        {"{\"type\": \"fu", "{\"type\": \"fu", 0},
        {"{", "{", 0},
        {"{\"title\": \"x", "{\"title\": \"x", 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
        for (size_t piece = 1; piece < 60; piece += 29) {
            char want[256];
            struct parser *p;
            struct err e;
            struct log l = {.last = -1};
            size_t n = strlen(cuts[i].text), calls = 0;
            assert_int_equal(parser_new(&p, false, &e), 0);
            for (size_t at = 0; at < n; at += piece)
                assert_int_equal(parser_feed(p, cuts[i].text + at, n - at < piece ? n - at : piece,
                                             log_event, &l, &e),
                                 0);
            parser_cut(p);
            assert_int_equal(parser_finish(p, log_event, &l, &e), 0);
            parser_free(p);
            l.s[l.n] = 0;
            for (const char *s = l.s; (s = strchr(s, 'A' + PARSE_TOOL_CALL)); s++)
                calls++;
            snprintf(want, sizeof want, "%c%s", 'A' + PARSE_CONTENT, cuts[i].content);
            bool same = cuts[i].calls           ? strncmp(l.s, want, 1) != 0
                        : *cuts[i].content != 0 ? !strcmp(l.s, want)
                                                : !*l.s;
            if (calls != cuts[i].calls || !same)
                fail_msg("%s: %s", cuts[i].text, l.s);
        }
}

/* In pieces it stays as far as it came, without an end. */
static void cut_calls_stay_without_an_end(void **state)
{
    static const char text[] = "<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": [1, 2";
    struct pieces pieces = {0};
    struct parser *p;
    struct err e;
    (void)state;
    assert_int_equal(parser_new(&p, false, &e), 0);
    parser_stream_calls(p);
    assert_int_equal(parser_feed(p, text, sizeof text - 1, piece, &pieces, &e), 0);
    parser_cut(p);
    assert_int_equal(parser_finish(p, piece, &pieces, &e), 0);
    parser_free(p);
    assert_true(pieces.calls == 0 && pieces.broken == 0);
    assert_string_equal(pieces.args, "{\"a\": [1, 2");
}

/* Where there are no calls, what looks like one is the answer; thoughts are still told apart. */
static void without_calls_all_is_content(void **state)
{
    static const char *const answers[] = {
        "{\"name\": \"f\", \"arguments\": {}}",
        "{\"x\": \"<tool_call>{\\\"name\\\": 1}</tool_call>\"}",
        "a <｜tool▁calls▁begin｜> b <|python_tag|>",
    };
    (void)state;
    for (size_t i = 0; i < sizeof answers / sizeof *answers; i++)
        for (size_t piece = 1; piece < 9; piece += 7) {
            char text[256], want[256];
            struct parser *p;
            struct err e;
            struct log l = {.last = -1};
            int n = snprintf(text, sizeof text, "hm</think>\n\n%s", answers[i]);
            snprintf(want, sizeof want, "%chm%c%s", 'A' + PARSE_REASONING, 'A' + PARSE_CONTENT,
                     answers[i]);
            assert_int_equal(parser_new(&p, true, &e), 0);
            parser_no_calls(p);
            for (int at = 0; at < n; at += (int)piece)
                assert_int_equal(parser_feed(p, text + at,
                                             (size_t)(n - at) < piece ? (size_t)(n - at) : piece,
                                             log_event, &l, &e),
                                 0);
            assert_int_equal(parser_finish(p, log_event, &l, &e), 0);
            parser_free(p);
            l.s[l.n] = 0;
            assert_string_equal(l.s, want);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_taken_apart),
        cmocka_unit_test(any_cuts_give_the_same),
        cmocka_unit_test(any_cuts_of_any_text_give_the_same),
        cmocka_unit_test(text_comes_as_early_as_it_is_certain),
        cmocka_unit_test(arguments_keep_their_text),
        cmocka_unit_test(the_listener_may_stop),
        cmocka_unit_test(megabytes_of_tags_are_no_trouble),
        cmocka_unit_test(bytes_that_are_not_text_are_replaced),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(calls_come_in_pieces),
        cmocka_unit_test(other_calls_come_whole),
        cmocka_unit_test(cut_calls_are_no_content),
        cmocka_unit_test(cut_calls_stay_without_an_end),
        cmocka_unit_test(without_calls_all_is_content),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
