/*
 * Constrained output: random walks through the masks end in texts that other code accepts; states
 * copy and replay; expressions, GBNF and choices take what they should and nothing else.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "base/utf8.h"
#include "support/fail_alloc.h"
#include "support/golden.h"
#include "text/grammar_walk.h"
#include "text/parse.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab small; /* every byte and a few merges */
static struct vocab
    large; /* with tokens that straddle characters and symbols, and control tokens */

/* ---- a vocabulary --------------------------------------------------------------------------- */

/* Adds a token of these bytes, written in the byte alphabet. */
static void add_token(json_t *vocab, const char *bytes, size_t n)
{
    char out[256];
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        uint32_t cp = c, next = 0x100;
        for (unsigned k = 0; k <= c; k++) { /* those without a sign of their own are numbered */
            bool own = (k >= 33 && k <= 126) || (k >= 161 && k <= 172) || k >= 174;
            if (k == c && !own)
                cp = next;
            next += !own;
        }
        w += utf8_put(out + w, cp);
    }
    out[w] = 0;
    if (!json_object_get(vocab, out))
        json_object_set_new(vocab, out, json_integer((json_int_t)json_object_size(vocab)));
}

static void add_control(json_t *list, const char *text, size_t id)
{
    json_array_append_new(list, json_pack("{s:I,s:s,s:b,s:b,s:b,s:b,s:b}", "id", (json_int_t)id,
                                          "content", text, "special", 1, "single_word", 0, "lstrip",
                                          0, "rstrip", 0, "normalized", 0));
}

static struct vocab make_large(void)
{
    static const char *const parts[] = {
        "\"",       "\",",          "\"}",  "\":",      "\": ", "{",        "}",      "},",
        "\n",       "\n  ",         "[",    "]",        "]}",   ", ",       ": ",     "\\",
        "\\n",      "\\u",          "00",   "true",     "null", "abc",      "e",      "12",
        "-",        ".5",           "\xc3", "\xc3\xa9", "\xa9", "\xe4\xb8", "\xad",   "\xf0\x9f",
        "\x98\x80", "\xe4\xb8\xad", " ",    "  ",       "name", "<tool",    "_call>", "</",
        "think>",   "function",     "```",  "json",     "<",    "yes"};
    enum { N = sizeof parts / sizeof *parts };
    static const char *const controls[] = {"<tool_call>",
                                           "</tool_call>",
                                           "<think>",
                                           "</think>",
                                           "<｜tool▁calls▁begin｜>",
                                           "<｜tool▁calls▁end｜>",
                                           "<｜tool▁call▁begin｜>",
                                           "<｜tool▁call▁end｜>",
                                           "<｜tool▁sep｜>",
                                           "<|user|>"};
    struct err e = {0};
    json_error_t je;
    json_t *o = json_load_file(GOLDEN_DIR "/models/qwen2_tied/tokenizer.json", 0, &je);
    assert_non_null(o);
    json_t *model = json_object_get(o, "model"), *added = json_object_get(o, "added_tokens"), *v;
    /* ids behind the added ones have to stay apart from the vocabulary's */
    json_t *vocab = json_object_get(model, "vocab");
    size_t i;
    json_t *ends = json_array();
    json_array_foreach(added, i, v) json_array_append(ends, v);
    for (size_t k = 0; k < N; k++)
        add_token(vocab, parts[k], strlen(parts[k]));
    for (uint64_t k = 0; k < 3000; k++) {
        uint32_t r[4];
        char text[128] = "";
        rng_block(11, 3, k, r);
        for (uint32_t j = 0; j < 2 + r[0] % 3; j++)
            strncat(text, parts[r[1 + j % 3] / (j + 1) % N], sizeof text - strlen(text) - 1);
        add_token(vocab, text, strlen(text));
    }
    size_t next = json_object_size(vocab) + 100;
    json_array_foreach(ends, i, v) json_object_set_new(v, "id", json_integer((json_int_t)next++));
    for (size_t k = 0; k < sizeof controls / sizeof *controls; k++)
        add_control(ends, controls[k], next++);
    json_object_set_new(o, "added_tokens", ends);
    char *text = json_dumps(o, 0);
    struct vocab out;
    if (tokenizer_new_json(&out.tok, text, strlen(text), &e) ||
        grammar_vocab_new(&out.v, out.tok, &e))
        fail_msg("%s", e.text);
    free(text);
    json_decref(o);
    return out;
}

static int setup(void **state)
{
    small = vocab_open(GOLDEN_DIR "/models/qwen2_tied");
    large = make_large();
    return 0;
}

static int teardown(void **state)
{
    vocab_close(&small);
    vocab_close(&large);
    return 0;
}

/* ---- helpers -------------------------------------------------------------------------------- */

static struct grammar *regex(const char *s)
{
    struct grammar *g;
    struct err e = {0};
    if (grammar_new_regex(&g, s, strlen(s), &e))
        fail_msg("%s: %s", s, e.text);
    return g;
}

static struct grammar *gbnf(const char *s)
{
    struct grammar *g;
    struct err e = {0};
    if (grammar_new_gbnf(&g, s, strlen(s), &e))
        fail_msg("%s: %s", s, e.text);
    return g;
}

static struct grammar *json_mode(void)
{
    struct grammar *g;
    struct err e = {0};
    assert_int_equal(grammar_new_json(&g, &e), 0);
    return g;
}

static struct grammar_state *start(struct grammar *g, const struct vocab *v,
                                   enum grammar_thought thought)
{
    struct grammar_state *s;
    struct err e = {0};
    if (grammar_state_new(&s, g, v->v, thought, &e))
        fail_msg("%s", e.text);
    return s;
}

static void takes(struct grammar *g, const char *text, bool yes)
{
    if (grammar_takes(&large, g, text, strlen(text)) != yes)
        fail_msg("%s is %staken", text, yes ? "not " : "");
}

struct row {
    const char *grammar;
    const char *yes[8], *no[8];
};

static void check_rows(const struct row *rows, size_t n, struct grammar *(*make)(const char *))
{
    for (size_t i = 0; i < n; i++) {
        struct grammar *g = make(rows[i].grammar);
        for (int k = 0; k < 8 && rows[i].yes[k]; k++)
            takes(g, rows[i].yes[k], true);
        for (int k = 0; k < 8 && rows[i].no[k]; k++)
            takes(g, rows[i].no[k], false);
        grammar_unref(g);
    }
}

/* ---- masks ---------------------------------------------------------------------------------- */

static void json_mode_gives_objects(void **state)
{
    struct grammar *g = json_mode();
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct buf text;
        json_error_t je;
        buf_init(&text, 1 << 20);
        assert_true(grammar_walk(seed % 2 ? &small : &large, g, GRAMMAR_THOUGHT_NONE, seed, &text));
        json_t *o = json_loadb(text.data, text.len, JSON_ALLOW_NUL, &je);
        if (!json_is_object(o))
            fail_msg("%s: %s", text.data, je.text);
        json_decref(o);
        buf_release(&text);
    }
    grammar_unref(g);
}

/* Every bit says what accepting that token would say, all along random texts. */
static void masks_agree_with_accepting(void **state)
{
    static const char *const rules[] = {
        "root ::= \"{\" (\"\\\"\" [^\"\\\\\\x00-\\x1f]* \"\\\"\" \",\"?){1,40} \"}\"",
        "root ::= [^\\x00-\\x1f]{3,30} | .{2} \"\\n\"+ [a-z0-9 ]{0,200}",
        "root ::= (\"a\" | \"ab\" | \"é\" | \"abc\"){5,300} root | \"<tool_call>\"",
    };
    size_t count = tokenizer_count(large.tok);
    for (size_t i = 0; i <= sizeof rules / sizeof *rules; i++) {
        struct grammar *g = i ? gbnf(rules[i - 1]) : json_mode();
        struct grammar_state *s = start(g, &large, GRAMMAR_THOUGHT_MAYBE);
        for (uint64_t step = 0; step < 25; step++) {
            const uint32_t *bits;
            struct err e = {0};
            int32_t next = -1;
            uint32_t r[4], seen = 0;
            assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
            rng_block(5, i, step, r);
            for (int32_t id = 0; (size_t)id < count; id++) {
                struct grammar_state *copy;
                assert_int_equal(grammar_state_copy(&copy, s, &e), 0);
                bool fits = grammar_state_accept(copy, id, &e) == 0;
                grammar_state_free(copy);
                if (fits != mask_has(bits, id))
                    fail_msg("grammar %zu, step %d, token %d: mask %d, accepting %d", i, (int)step,
                             (int)id, mask_has(bits, id), fits);
                if (fits && !tokenizer_is_end(large.tok, id) && r[0] % ++seen == 0)
                    next = id;
            }
            if (next < 0)
                break;
            assert_int_equal(grammar_state_accept(s, next, &e), 0);
        }
        grammar_state_free(s);
        grammar_unref(g);
    }
}

static void copies_and_replays_are_equal(void **state)
{
    struct grammar *g = json_mode();
    struct grammar_state *s = start(g, &large, GRAMMAR_THOUGHT_NONE), *copy, *again;
    size_t bytes = grammar_vocab_words(large.v) * 4, count = tokenizer_count(large.tok), n = 0;
    int32_t ids[100];
    const uint32_t *a, *b;
    struct err e = {0};
    for (uint64_t step = 0; step < 100; step++) {
        uint32_t r[4];
        assert_int_equal(grammar_state_mask(s, &a, &e), 0);
        rng_block(9, 1, step, r);
        int32_t id = (int32_t)(r[0] % count);
        while (!mask_has(a, id))
            id = (id + 1) % (int32_t)count;
        if (tokenizer_is_end(large.tok, id))
            break;
        ids[n++] = id;
        assert_int_equal(grammar_state_accept(s, id, &e), 0);
    }
    assert_true(n > 10);
    assert_int_equal(grammar_state_copy(&copy, s, &e), 0);
    again = start(g, &large, GRAMMAR_THOUGHT_NONE);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(grammar_state_accept(again, ids[i], &e), 0);
    assert_int_equal(grammar_state_mask(s, &a, &e), 0);
    assert_int_equal(grammar_state_mask(copy, &b, &e), 0);
    assert_memory_equal(a, b, bytes);
    assert_int_equal(grammar_state_mask(again, &b, &e), 0);
    assert_memory_equal(a, b, bytes);
    grammar_state_free(s); /* in any order */
    grammar_unref(g);
    assert_int_equal(grammar_state_mask(copy, &b, &e), 0);
    grammar_state_free(again);
    grammar_state_free(copy);
}

/* A refused token changes nothing; behind the end there is only the end. */
static void refusal_and_end(void **state)
{
    struct grammar *g;
    struct err e = {0};
    const uint32_t *bits;
    json_t *words = json_pack("[sss]", "yes", "no", "yes!");
    const struct grammar_form form = {.kind = GRAMMAR_CHOICE, .json = words};
    assert_int_equal(grammar_new(&g, &form, &e), 0);
    json_decref(words);
    takes(g, "yes", true);
    takes(g, "yes!", true);
    takes(g, "no", true);
    takes(g, "n", false);
    takes(g, "yess", false);
    struct grammar_state *s = start(g, &small, GRAMMAR_THOUGHT_NONE);
    assert_int_equal(grammar_state_accept(s, -1, &e), ERR_USAGE);
    assert_int_equal(grammar_state_accept(s, 1 << 30, &e), ERR_USAGE);
    int32_t n = -1, end = -1;
    for (int32_t i = 0; (size_t)i < tokenizer_count(small.tok); i++) {
        size_t k;
        const char *p = tokenizer_bytes(small.tok, i, &k);
        n = k == 1 && *p == 'n' ? i : n;
        end = tokenizer_is_end(small.tok, i) ? i : end;
    }
    assert_int_equal(grammar_state_accept(s, end, &e), ERR_FORMAT);
    assert_int_equal(grammar_state_accept(s, n, &e), 0);
    assert_int_equal(grammar_state_accept(s, n, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "does not fit"));
    assert_false(grammar_state_complete(s));
    int32_t o = -1;
    for (int32_t i = 0; (size_t)i < tokenizer_count(small.tok); i++) {
        size_t k;
        const char *p = tokenizer_bytes(small.tok, i, &k);
        o = k == 1 && *p == 'o' ? i : o;
    }
    assert_int_equal(grammar_state_accept(s, o, &e), 0);
    assert_true(grammar_state_complete(s));
    for (int round = 0; round < 2; round++) { /* before the end token and behind it */
        assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
        for (int32_t i = 0; (size_t)i < tokenizer_count(small.tok); i++)
            assert_int_equal(mask_has(bits, i), tokenizer_is_end(small.tok, i));
        assert_int_equal(grammar_state_accept(s, end, &e), 0);
    }
    grammar_state_free(s);
    grammar_unref(g);
}

/* ---- notations ------------------------------------------------------------------------------ */

static void expressions_take_what_they_say(void **state)
{
    static const struct row rows[] = {
        {"a|bc*", {"a", "b", "bccc"}, {"", "ab", "c"}},
        {"^[A-F\\d]{2,3}$", {"A1", "123"}, {"A", "1234", "G1"}},
        {"(a+)+$", {"a", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, {"", "aab"}},
        {"(?:x|(?<n>y)){2}\\.", {"xy.", "yy."}, {"x.", "xyz"}},
        {".", {"é", "中", "😀", "\""}, {"\n", "", "ab", "\xc3"}},
        {"[^a-z\\s]+", {"É1", "中"}, {"a", " ", "\n"}},
        {"\\u00e9\\x41\\u{1F600}\\ud83d\\ude00", {"éA😀😀"}, {"eA"}},
        {"a{0}b{2,}", {"bb", "bbbb"}, {"abb", "b"}},
        {"(a?){3}(b*)*c", {"c", "aabbbc", "aaac"}, {"aaaac"}},
        {"a{2", {"a{2"}, {"aa"}},
        {"[a-c-]x", {"-x", "bx"}, {"dx"}},
        {"(a|ab){2,1000}!", {"aab!", "abab!"}, {"a!"}},
        {"((a{0,1000}){0,1000}){0,1000}", {"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}, {"b"}},
        {"", {""}, {"a"}},
    };
    check_rows(rows, sizeof rows / sizeof *rows, regex);
}

static void gbnf_takes_what_it_says(void **state)
{
    static const struct row rows[] = {
        {"root ::= \"a\" b*  # comment\nb ::= [x-z] |\n  \"\\n\"\n",
         {"a", "axz\n"},
         {"", "ab", "x"}},
        {"root ::= (\n \"(\" root \")\" # nested\n)?", {"", "((()))"}, {"(", "(()"}},
        {"root ::= x{2} x{0,1} x{1,}\nx ::= [0-9]", {"123", "1234567"}, {"12"}},
        {"root ::= [^\\u00e9\\]a-c] \"\\x41\\U0001F600\"", {"dA😀", "中A😀"}, {"éA😀", "]A😀", "bA😀"}},
        {"root ::= .\"\\\"\" ", {"é\"", "\n\""}, {"\""}},
        {"root::=a-b\r\na-b::=\"x\"|\"\"", {"x", ""}, {"xx"}},
        {"root ::= expr\nexpr ::= term (\"+\" term)*\nterm ::= [0-9]+ | \"(\" expr \")\"",
         {"1+(2+34)"},
         {"1+", "()"}},
        {"root ::= \"a\"?* \"b\"", {"b", "aaab"}, {"ba"}},
    };
    check_rows(rows, sizeof rows / sizeof *rows, gbnf);
}

struct fault {
    const char *text;
    int code;
    const char *words;
};

static void faults_are_named(void **state)
{
    static const struct fault regexes[] = {
        {"a)", ERR_FORMAT, "byte 2"},
        {"(a", ERR_FORMAT, "has no"},
        {"[a", ERR_FORMAT, "has no"},
        {"*a", ERR_FORMAT, "nothing to repeat"},
        {"a**", ERR_FORMAT, "cannot be repeated"},
        {"a{3,2}", ERR_FORMAT, "wrong way round"},
        {"[z-a]", ERR_FORMAT, "before it begins"},
        {"(?=a)", ERR_UNSUPPORTED, "lookahead"},
        {"(?<!a)b", ERR_UNSUPPORTED, "lookbehind"},
        {"(a)\\1", ERR_UNSUPPORTED, "back references"},
        {"\\bword", ERR_UNSUPPORTED, "word boundaries"},
        {"\\p{L}", ERR_UNSUPPORTED, "\\p"},
        {"a^b", ERR_UNSUPPORTED, "beginning"},
        {"a$b", ERR_UNSUPPORTED, "end"},
        {"\\ud800", ERR_FORMAT, "surrogate"},
        {"\xff", ERR_FORMAT, "UTF-8"},
        {"[]", ERR_FORMAT, "no text at all"},
        {"a{9999999999}", ERR_FORMAT, "nine digits"},
        {"\\q", ERR_FORMAT, "unknown escape"},
        {"(?i)a", ERR_UNSUPPORTED, "kind of group"},
    };
    static const struct fault grammars[] = {
        {"", ERR_FORMAT, "\"root\" is not defined"},
        {"root ::= a", ERR_FORMAT, "\"a\" is not defined"},
        {"root ::= root \"a\" | \"b\"", ERR_UNSUPPORTED, "\"root\" begins with itself"},
        {"root ::= a b\na ::= \"x\"?\nb ::= a root", ERR_UNSUPPORTED, "begins with itself"},
        {"root ::= \"a\"\nroot ::= \"b\"", ERR_FORMAT, "defined twice"},
        {"root ::= \"a", ERR_FORMAT, "closing quote"},
        {"root ::= (\"a\"", ERR_FORMAT, "has no"},
        {"x\nroot = \"a\"", ERR_FORMAT, "line 1"},
        {"root ::= \"a\"{2,1}", ERR_FORMAT, "wrong way round"},
        {"root ::= \"a\" root", ERR_FORMAT, "no text at all"},
        {"root ::= <think>", ERR_UNSUPPORTED, "token references"},
        {"root ::= \"\\q\"", ERR_FORMAT, "unknown escape"},
        {"root ::= [\\ud800]", ERR_FORMAT, "no character"},
        {"root ::= \"a\" )", ERR_FORMAT, "end of the line"},
    };
    struct grammar *g;
    for (size_t i = 0; i < sizeof regexes / sizeof *regexes; i++) {
        struct err e = {0};
        int code = grammar_new_regex(&g, regexes[i].text, strlen(regexes[i].text), &e);
        if (code != regexes[i].code || !strstr(e.text, regexes[i].words))
            fail_msg("%s: %d, %s", regexes[i].text, code, e.text);
    }
    for (size_t i = 0; i < sizeof grammars / sizeof *grammars; i++) {
        struct err e = {0};
        int code = grammar_new_gbnf(&g, grammars[i].text, strlen(grammars[i].text), &e);
        if (code != grammars[i].code || !strstr(e.text, grammars[i].words))
            fail_msg("%s: %d, %s", grammars[i].text, code, e.text);
    }
    struct err e = {0};
    const struct grammar_form none = {.kind = GRAMMAR_CHOICE};
    assert_int_equal(grammar_new(&g, &none, &e), ERR_FORMAT);
}

/* Nothing hangs and nothing eats the memory: seconds would be a fault, not a slow machine. */
static void hostile_notations_end_soon(void **state)
{
    enum { N = 1 << 20 };
    double begin = clock_seconds();
    char *s = malloc(N + 64);
    struct grammar *g;
    struct err e = {0};
    memset(s, '(', N);
    assert_int_equal(grammar_new_regex(&g, s, N, &e), ERR_LIMIT);
    memset(s, 'a', N); /* a million states and one */
    assert_int_equal(grammar_new_regex(&g, s, N, &e), ERR_LIMIT);
    for (size_t i = 0; i < N; i++)
        s[i] = "a|"[i % 2];
    int code = grammar_new_regex(&g, s, N - 1, &e);
    assert_true(code == 0 || code == ERR_LIMIT);
    if (!code)
        grammar_unref(g);
    strcpy(s, "root ::= ");
    memset(s + 9, '(', N - 9);
    assert_int_equal(grammar_new_gbnf(&g, s, N, &e), ERR_LIMIT);
    size_t n = 0;
    for (int i = 0; i < 3000; i++) /* a chain of rules, and one that grows */
        n += (size_t)sprintf(s + n, "r%d ::= r%d r%d | \"x\"\n", i, i + 1, i + 1);
    n += (size_t)sprintf(s + n, "r3000 ::= \"y\"\nroot ::= r0\n");
    code = grammar_new_gbnf(&g, s, n, &e);
    if (code)
        fail_msg("%s", e.text);
    grammar_unref(g);
    free(s);
    assert_true(clock_seconds() - begin < 60);
}

/* ---- thoughts and calls --------------------------------------------------------------------- */

/* Feeds a text by its control tokens and bytes; how much of it was taken. */
static size_t feed(const struct vocab *v, struct grammar_state *s, const char *text)
{
    size_t at = 0, n = strlen(text);
    while (at < n) {
        int32_t best = -1;
        size_t longest = 0;
        struct err e;
        for (int32_t i = 0; (size_t)i < tokenizer_count(v->tok); i++) {
            size_t k;
            const char *p = tokenizer_bytes(v->tok, i, &k);
            if (k <= n - at && k > longest && !memcmp(p, text + at, k) &&
                (k == 1 || tokenizer_is_added(v->tok, i))) {
                best = i;
                longest = k;
            }
        }
        assert_true(best >= 0);
        if (grammar_state_accept(s, best, &e))
            break;
        at += longest;
    }
    return at;
}

static bool may_end(const struct vocab *v, struct grammar_state *s)
{
    const uint32_t *bits;
    struct err e = {0};
    assert_int_equal(grammar_state_mask(s, &bits, &e), 0);
    for (int32_t i = 0; (size_t)i < tokenizer_count(v->tok); i++)
        if (tokenizer_is_end(v->tok, i))
            return mask_has(bits, i);
    return false;
}

struct passage {
    const char *text;
    size_t taken; /* SIZE_MAX: all */
    bool end;     /* may it end there? */
};

static void check_passages(struct grammar *g, enum grammar_thought thought, const struct passage *p,
                           size_t n)
{
    for (int big = 0; big < 2; big++) /* with control tokens, and spelled */
        for (size_t i = 0; i < n; i++) {
            const struct vocab *v = big ? &large : &small;
            struct grammar_state *s = start(g, v, thought);
            size_t taken = feed(v, s, p[i].text),
                   want = p[i].taken == SIZE_MAX ? strlen(p[i].text) : p[i].taken;
            if (taken != want || may_end(v, s) != p[i].end)
                fail_msg("\"%s\": %zu of %zu bytes taken, may %send", p[i].text, taken, want,
                         p[i].end ? "not " : "");
            grammar_state_free(s);
        }
}

static void thoughts_come_first(void **state)
{
    static const struct passage open[] = {
        {"hm {\"a\" 1} é</think>\n\n{\"a\":1}", SIZE_MAX, true},
        {"<|user|> hm</thin</think>{}", SIZE_MAX, true},
        {"hm", SIZE_MAX, false},
        {"hm</think>\n\n\n{}", 12, false},
        {"hm</think>\nSure", 11, false},
    };
    static const struct passage maybe[] = {
        {"<think>hm</think>\n\n{}", SIZE_MAX, true},
        {"{\"x\": []}", SIZE_MAX, true},
        {"hm", 0, false},
        {"<think>hm", SIZE_MAX, false},
    };
    static const struct passage none[] = {{"{}", SIZE_MAX, true}, {"<think>", 0, false}};
    struct grammar *g = json_mode();
    check_passages(g, GRAMMAR_THOUGHT_OPEN, open, sizeof open / sizeof *open);
    check_passages(g, GRAMMAR_THOUGHT_MAYBE, maybe, sizeof maybe / sizeof *maybe);
    check_passages(g, GRAMMAR_THOUGHT_NONE, none, sizeof none / sizeof *none);
    assert_false(grammar_has_calls(g));
    grammar_unref(g);
}

static struct grammar *tools(enum grammar_call_form form, bool required, bool parallel)
{
    static const char weather[] =
        "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":["
        "\"city\"],\"additionalProperties\":false}";
    json_t *schema = json_loads(weather, 0, NULL);
    const struct grammar_tool list[] = {{"weather", schema}, {"now", NULL}};
    const struct grammar_tools t = {
        .form = form, .tool = list, .n = 2, .required = required, .parallel = parallel};
    struct grammar *g;
    struct err e = {0};
    if (grammar_new_tools(&g, &t, &e))
        fail_msg("%s", e.text);
    json_decref(schema);
    assert_true(grammar_has_calls(g));
    return g;
}

#define DS(text) "<｜tool▁calls▁begin｜>" text "<｜tool▁calls▁end｜>"
#define DS_CALL(name, args)                                                        \
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>" name "\n```json\n" args "\n```<" \
    "｜tool▁call▁end｜>"
#define V31_CALL(name, args) \
    "<｜tool▁call▁begin｜>" name "<｜tool▁sep｜>" args "<｜tool▁call▁end｜>"
#define HERMES(name, args) \
    "<tool_call>\n{\"name\": \"" name "\", \"arguments\": " args "}\n</tool_call>"
#define LLAMA(name, args) "{\"name\": \"" name "\", \"parameters\": " args "}"
#define CITY "{\"city\": \"Köln\"}"

static void tools_have_forms_of_calls(void **state)
{
    static const struct passage deepseek[] = {
        {DS(DS_CALL("weather", CITY)), SIZE_MAX, true},
        {DS(DS_CALL("weather", CITY) "\n" DS_CALL("now", "{}")), SIZE_MAX, true},
        {"Let me <see>. " DS(DS_CALL("now", "{\"z\":[1]}")), SIZE_MAX, true},
        {"Just words, {\"name\": 1}.", SIZE_MAX, true},
        {DS(DS_CALL("other", "{}")),
         sizeof "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>" - 1, false},
    };
    static const struct passage v31[] = {
        {DS(V31_CALL("weather", CITY) V31_CALL("now", "{}")), SIZE_MAX, true}};
    static const struct passage hermes[] = {
        {HERMES("weather", CITY), SIZE_MAX, true},
        {"ok\n" HERMES("weather", CITY) "\n" HERMES("now", "{}"), SIZE_MAX, true},
        {HERMES("weather", "{\"town\":"),
         sizeof "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"" - 1, false},
        {"a < b and <tool_cal", SIZE_MAX, true},
    };
    static const struct passage llama[] = {
        {LLAMA("weather", CITY), SIZE_MAX, true},
        {LLAMA("weather", CITY) "; " LLAMA("now", "{}"), SIZE_MAX, true},
        {"{\"nice\": 1} is JSON", SIZE_MAX, true},
        {"{\"name\": \"Bob\"", sizeof "{\"name\": \"" - 1, false},
    };
    static const struct {
        enum grammar_call_form form;
        const struct passage *p;
        size_t n;
    } forms[] = {{GRAMMAR_CALL_DEEPSEEK, deepseek, sizeof deepseek / sizeof *deepseek},
                 {GRAMMAR_CALL_DEEPSEEK_V31, v31, sizeof v31 / sizeof *v31},
                 {GRAMMAR_CALL_HERMES, hermes, sizeof hermes / sizeof *hermes},
                 {GRAMMAR_CALL_LLAMA, llama, sizeof llama / sizeof *llama}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct grammar *g = tools(forms[i].form, false, true);
        check_passages(g, GRAMMAR_THOUGHT_NONE, forms[i].p, forms[i].n);
        grammar_unref(g);
    }
    static const struct passage required[] = {
        {HERMES("now", "{}"), SIZE_MAX, true},
        {"No.", 0, false},
        {HERMES("now", "{}") "\n", sizeof HERMES("now", "{}") - 1, true}};
    struct grammar *g = tools(GRAMMAR_CALL_HERMES, true, false);
    check_passages(g, GRAMMAR_THOUGHT_NONE, required, 3);
    grammar_unref(g);
}

/* What the grammar leads to, the parser of outputs reads as calls. */
static void the_parser_reads_the_calls(void **state)
{
    static const enum grammar_call_form forms[] = {GRAMMAR_CALL_DEEPSEEK, GRAMMAR_CALL_DEEPSEEK_V31,
                                                   GRAMMAR_CALL_HERMES, GRAMMAR_CALL_LLAMA};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        struct grammar *g = tools(forms[i], true, false);
        size_t ended = 0;
        for (uint64_t seed = 0; seed < 40; seed++) {
            struct buf text;
            struct err e = {0};
            json_t *o = NULL;
            buf_init(&text, 1 << 20);
            if (grammar_walk(&large, g, GRAMMAR_THOUGHT_NONE, seed, &text)) {
                ended++;
                assert_int_equal(parse_output(&o, text.data, text.len, false, &e), 0);
                const json_t *calls = json_object_get(o, "tool_calls");
                if (json_array_size(calls) != 1 ||
                    !json_is_object(json_object_get(json_array_get(calls, 0), "arguments")))
                    fail_msg("%s", text.data);
            }
            json_decref(o);
            buf_release(&text);
        }
        assert_true(ended > 30);
        grammar_unref(g);
    }
}

static void tools_that_cannot_be(void **state)
{
    json_t *text = json_loads("{\"type\":\"string\"}", 0, NULL),
           *odd = json_loads("{\"type\":\"something\"}", 0, NULL);
    const struct grammar_tool list[] = {
        {"a\nb", NULL}, {"s", text}, {"o", odd}, {"q\"`", NULL}, {"\xff", NULL}};
    struct grammar *g;
    struct err e = {0};
    struct grammar_tools t = {
        .form = GRAMMAR_CALL_DEEPSEEK, .tool = list, .n = 1, .required = true, .parallel = true};
    assert_int_equal(grammar_new_tools(&g, &t, &e), ERR_UNSUPPORTED);
    t.form = GRAMMAR_CALL_HERMES; /* in JSON any name can be written */
    assert_int_equal(grammar_new_tools(&g, &t, &e), 0);
    grammar_unref(g);
    t.tool = list + 1;
    assert_int_equal(grammar_new_tools(&g, &t, &e), ERR_FORMAT);
    t.tool = list + 2;
    assert_int_equal(grammar_new_tools(&g, &t, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "\"o\""));
    t.tool = list + 4;
    assert_int_equal(grammar_new_tools(&g, &t, &e), ERR_FORMAT);
    t.n = 0;
    assert_int_equal(grammar_new_tools(&g, &t, &e), ERR_FORMAT);
    json_decref(text);
    json_decref(odd);
}

/* ---- memory --------------------------------------------------------------------------------- */

static void every_allocation_may_fail(void **state)
{
    const char *const rules = "root ::= (\"a\" | \"é\" b){2,9} [^x]*\nb ::= \"<\" root \">\"";
    for (size_t n = 1;; n++) {
        struct grammar *g = NULL;
        struct grammar_state *s = NULL, *copy = NULL;
        const uint32_t *bits;
        struct err e = {0};
        fail_alloc_at(n);
        int code = grammar_new_gbnf(&g, rules, strlen(rules), &e);
        code = code ? code : grammar_state_new(&s, g, small.v, GRAMMAR_THOUGHT_MAYBE, &e);
        code = code ? code : grammar_state_mask(s, &bits, &e);
        code = code ? code : grammar_state_copy(&copy, s, &e);
        for (int32_t id = 0; !code && id < 300; id++)
            if (mask_has(bits, id)) {
                code = grammar_state_accept(copy, id, &e);
                break;
            }
        code = code ? code : grammar_state_mask(copy, &bits, &e);
        bool failed = fail_alloc_stop();
        /* arrays that could not be made smaller stay as they are */
        assert_true(code == ERR_NOMEM ? failed : !code);
        grammar_state_free(copy);
        grammar_state_free(s);
        grammar_unref(g);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_mode_gives_objects),
        cmocka_unit_test(masks_agree_with_accepting),
        cmocka_unit_test(copies_and_replays_are_equal),
        cmocka_unit_test(refusal_and_end),
        cmocka_unit_test(expressions_take_what_they_say),
        cmocka_unit_test(gbnf_takes_what_it_says),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(hostile_notations_end_soon),
        cmocka_unit_test(thoughts_come_first),
        cmocka_unit_test(tools_have_forms_of_calls),
        cmocka_unit_test(the_parser_reads_the_calls),
        cmocka_unit_test(tools_that_cannot_be),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
