/*
 * The loop over a session, a tokenizer and a parser that are defined here: the session says what
 * the test's script says, the tokenizer has a small vocabulary, the parser knows <think> alone.
 */
#include "engine/generate.h"

#include "base/num.h"
#include "support/fail_alloc.h"
#include "text/grammar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- stand-ins ------------------------------------------------------------------------------- */

enum { VOCAB = 300, SPECIAL = 256, END = 256, CONTROL, THINK, THINK_END, CTX = 600 };

/* Ids below 256 are bytes; above come control tokens and whatever a test defines. */
struct tokenizer {
    const char *text[VOCAB - SPECIAL];
    size_t count; /* 0 = VOCAB */
};

struct engine {
    struct engine_info info;
    struct tokenizer tok;
};

struct session {
    struct engine *g;
    int32_t ids[CTX];
    size_t n, prompt, reused;
    const int32_t *script; /* what the model wants to say */
    size_t n_script;
    size_t append_fails_at; /* this many tokens after the prompt; 0 = never */
    float logits[VOCAB];
};

struct engine *session_engine(const struct session *s)
{
    return s->g;
}

const struct engine_info *engine_info(const struct engine *g)
{
    return &g->info;
}

const struct tokenizer *engine_tokenizer(const struct engine *g)
{
    return &g->tok;
}

int session_feed(struct session *s, const int32_t *ids, size_t n,
                 bool (*progress)(void *arg, size_t done, size_t total), void *arg, struct err *e)
{
    if (n < 1 || n > CTX)
        return err_set(e, ERR_LIMIT, "the prompt is too long");
    for (size_t i = 0; i < n; i++) {
        s->ids[i] = ids[i];
        s->n = i + 1;
        if (i + 1 < n && progress && !progress(arg, i + 1, n))
            return err_set(e, ERR_CANCELLED, "stopped");
    }
    s->prompt = n;
    return 0;
}

int session_append(struct session *s, const int32_t *ids, size_t n, struct err *e)
{
    assert_int_equal(n, 1);
    assert_true(s->n < CTX);
    if (s->append_fails_at && s->n - s->prompt + 1 == s->append_fails_at)
        return err_set(e, ERR_NOMEM, "no memory for the cache");
    s->ids[s->n++] = ids[0];
    return 0;
}

const float *session_logits(const struct session *s)
{
    float *l = ((struct session *)(uintptr_t)s)->logits;
    size_t at = s->n - s->prompt;
    for (size_t i = 0; i < VOCAB; i++)
        l[i] = 0;
    l[at < s->n_script ? s->script[at] : END] = 10;
    return l;
}

size_t session_len(const struct session *s)
{
    return s->n;
}

size_t session_reused(const struct session *s)
{
    return s->reused;
}

const char *tokenizer_bytes(const struct tokenizer *t, int32_t id, size_t *n)
{
    static const char bytes[] = {
#define B4(x) (char)(x), (char)(x + 1), (char)(x + 2), (char)(x + 3)
#define B16(x) B4(x), B4(x + 4), B4(x + 8), B4(x + 12)
#define B64(x) B16(x), B16(x + 16), B16(x + 32), B16(x + 48)
        B64(0), B64(64), B64(128), B64(192)};
    if (id >= 0 && id < SPECIAL) {
        *n = 1;
        return &bytes[id];
    }
    const char *s = id >= SPECIAL && id < VOCAB ? t->text[id - SPECIAL] : NULL;
    *n = s ? strlen(s) : 0;
    return s ? s : "";
}

size_t tokenizer_count(const struct tokenizer *t)
{
    return t->count ? t->count : VOCAB;
}

bool tokenizer_is_special(const struct tokenizer *t, int32_t id)
{
    return id >= END && id <= THINK_END;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id == END;
}

/* Bytes, and </think> as one token. */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, unsigned flags,
                     const uint8_t *trusted, struct ids *out, struct err *e)
{
    assert_int_equal(flags, TOKENIZER_SPECIAL);
    for (size_t i = 0; i < n;) {
        bool tag = n - i >= 8 && memcmp(text + i, "</think>", 8) == 0;
        int rc = ids_push(out, tag ? THINK_END : (unsigned char)text[i], e);
        if (rc)
            return rc;
        i += tag ? 8 : 1;
    }
    return 0;
}

/* A grammar of one text, of bytes; a thought may come first. */
struct grammar {
    const char *text;
};

struct grammar_state {
    const char *rest;
    bool thought;
    uint32_t bits[VOCAB / 32 + 1];
};

int grammar_state_new(struct grammar_state **out, struct grammar *g, struct grammar_vocab *v,
                      enum grammar_thought thought, struct err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return err_nomem(e, sizeof **out, "a state");
    (*out)->rest = g->text;
    (*out)->thought = thought == GRAMMAR_THOUGHT_OPEN;
    return 0;
}

void grammar_state_free(struct grammar_state *s)
{
    free(s);
}

int grammar_state_mask(struct grammar_state *s, const uint32_t **bits, struct err *e)
{
    memset(s->bits, s->thought ? 255 : 0, sizeof s->bits);
    s->bits[(unsigned char)*s->rest / 32] |= 1u << ((unsigned char)*s->rest % 32);
    *bits = s->bits;
    return 0;
}

int grammar_state_accept(struct grammar_state *s, int32_t id, struct err *e)
{
    if (s->thought)
        s->thought = id != THINK_END;
    else if (id != '\n')
        assert_int_equal(id, (unsigned char)*s->rest++);
    return 0;
}

int engine_grammar_vocab(struct engine *g, struct grammar_vocab **out, struct err *e)
{
    *out = NULL; /* the grammar of this test needs none */
    return 0;
}

bool grammar_has_calls(const struct grammar *g)
{
    return false;
}

bool grammar_state_complete(struct grammar_state *s)
{
    return !*s->rest;
}

struct parser {
    bool thinking;
};

int parser_new(struct parser **out, bool thinking_open, struct err *e)
{
    *out = malloc(sizeof **out);
    if (!*out)
        return err_nomem(e, sizeof **out, "a parser");
    (*out)->thinking = thinking_open;
    return 0;
}

void parser_free(struct parser *p)
{
    free(p);
}

/* Tags come as one token each, so nothing is held back here. */
int parser_feed(struct parser *p, const char *text, size_t n,
                int (*emit)(void *arg, enum parse_event ev, const char *s, size_t n), void *arg,
                struct err *e)
{
    if (n == 7 && memcmp(text, "<think>", 7) == 0)
        p->thinking = true;
    else if (n == 8 && memcmp(text, "</think>", 8) == 0)
        p->thinking = false;
    else
        return emit(arg, p->thinking ? PARSE_REASONING : PARSE_CONTENT, text, n);
    return 0;
}

int parser_finish(struct parser *p,
                  int (*emit)(void *arg, enum parse_event ev, const char *s, size_t n), void *arg,
                  struct err *e)
{
    return 0;
}

void parser_no_calls(struct parser *p)
{
    (void)p; /* nor this */
}

void parser_cut(struct parser *p)
{
    (void)p;
}

void parser_stream_calls(struct parser *p)
{
    (void)p; /* calls are not what this tests */
}

bool parser_thinking(const struct parser *p)
{
    return p->thinking;
}

/* ---- the test bench ----------------------------------------------------------------------------
 */

struct bench {
    struct engine g;
    struct session s;
    struct generate_params p;
    struct generate_stats st;
    struct err e;
    char content[800], reasoning[800];
    size_t after[CTX];                   /* characters of both after each token */
    size_t asked, stop_after, refuse_at; /* keep_going calls; emit calls */
    size_t emitted;
    int rc;
};

static int bench_emit(void *arg, enum parse_event ev, const char *s, size_t n)
{
    struct bench *b = arg;
    assert_true(n > 0);
    if (b->refuse_at && ++b->emitted == b->refuse_at)
        return ERR_IO;
    char *to = ev == PARSE_CONTENT ? b->content : b->reasoning;
    assert_int_not_equal(ev, PARSE_TOOL_CALL);
    assert_true(strlen(to) + n < sizeof b->content);
    strncat(to, s, n);
    return 0;
}

static bool bench_keep_going(void *arg)
{
    struct bench *b = arg;
    if (b->s.prompt && b->s.n >= b->s.prompt)
        b->after[b->s.n - b->s.prompt] = strlen(b->content) + strlen(b->reasoning);
    return ++b->asked != b->stop_after;
}

static const int32_t prompt[] = {'H', 'i', '!'};

static void bench_init(struct bench *b)
{
    memset(b, 0, sizeof *b);
    b->g.info.vocab = VOCAB;
    b->g.info.ctx = CTX;
    b->g.tok.text[END - SPECIAL] = "<|end|>";
    b->g.tok.text[CONTROL - SPECIAL] = "<|control|>";
    b->g.tok.text[THINK - SPECIAL] = "<think>";
    b->g.tok.text[THINK_END - SPECIAL] = "</think>";
    b->s.g = &b->g;
    sampler_params_init(&b->p.sampling);
    answer_params_init(&b->p.answer);
    b->p.sampling.temperature = 0;
    b->p.emit = bench_emit;
    b->p.keep_going = bench_keep_going;
    b->p.arg = b;
}

/* The model says these ids, then the end token. */
static void bench_run(struct bench *b, const int32_t *script, size_t n)
{
    b->s.script = script;
    b->s.n_script = n;
    b->rc = generate(&b->s, prompt, NUM_COUNT(prompt), &b->p, &b->st, &b->e);
}

/* The model says the bytes of a text. */
static void bench_say(struct bench *b, const char *text)
{
    static int32_t script[400];
    size_t n = strlen(text);
    assert_true(n < NUM_COUNT(script));
    for (size_t i = 0; i < n; i++)
        script[i] = (unsigned char)text[i];
    bench_run(b, script, n);
}

/* ---- tests
 * --------------------------------------------------------------------------------------- */

static void an_answer_arrives_token_by_token(void **state)
{
    struct bench b;
    bench_init(&b);
    b.s.reused = 2;
    bench_say(&b, "Hello");
    assert_int_equal(b.rc, 0);
    assert_string_equal(b.content, "Hello");
    assert_string_equal(b.reasoning, "");
    assert_int_equal(b.st.stop, GENERATE_END);
    assert_int_equal(b.st.prompt_tokens, 3);
    assert_int_equal(b.st.reused_tokens, 2);
    assert_int_equal(b.st.answer_tokens, 5);
    assert_int_equal(b.st.reasoning_tokens, 0);
    assert_true(b.st.first_token_seconds > 0 && b.st.first_token_seconds < 60);
    assert_true(b.st.first_token_seconds >= b.st.prompt_seconds);
    for (size_t i = 1; i <= 5; i++)
        assert_int_equal(b.after[i], i); /* nothing waits without a reason */
    /* The timeline is prompt and answer, without the end token. */
    static const int32_t want[] = {'H', 'i', '!', 'H', 'e', 'l', 'l', 'o'};
    assert_int_equal(b.s.n, NUM_COUNT(want));
    assert_memory_equal(b.s.ids, want, sizeof want);
}

static void thoughts_are_told_apart_and_counted(void **state)
{
    static const int32_t script[] = {THINK, 'a', 'b', THINK_END, 'c'};
    struct bench b;
    bench_init(&b);
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.reasoning, "ab");
    assert_string_equal(b.content, "c");
    assert_int_equal(b.st.answer_tokens, 5);
    assert_int_equal(b.st.reasoning_tokens, 4); /* with its tags */

    bench_init(&b);
    b.p.answer.thinking_open = true;
    bench_run(&b, script + 1, 4);
    assert_string_equal(b.reasoning, "ab");
    assert_string_equal(b.content, "c");
    assert_int_equal(b.st.reasoning_tokens, 3);

    bench_init(&b); /* cut off inside the thought */
    b.p.answer.max_tokens = 2;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.reasoning, "a");
    assert_int_equal(b.st.reasoning_tokens, 2);
    assert_int_equal(b.st.stop, GENERATE_LENGTH);
}

static void characters_arrive_whole(void **state)
{
    struct bench b;
    bench_init(&b);
    bench_say(&b, "x\xe2\x82\xac\xf0\x9f\x98\x80y");
    assert_string_equal(b.content, "x\xe2\x82\xac\xf0\x9f\x98\x80y");
    static const size_t want[] = {0, 1, 1, 1, 4, 4, 4, 4, 8, 9};
    for (size_t i = 1; i < NUM_COUNT(want); i++)
        assert_int_equal(b.after[i], want[i]);
    bench_init(&b);
    bench_say(&b, "x\xe2\x82"); /* the model stops inside one */
    assert_string_equal(b.content, "x\xef\xbf\xbd");
}

/* Does s end with the first k bytes of t? */
static bool ends_with(const char *s, size_t n, const char *t, size_t k)
{
    return k <= n && memcmp(s + n - k, t, k) == 0;
}

/* Texts, stop strings and cuts into tokens of one to three bytes. */
static void stop_strings_may_span_tokens(void **state)
{
    static const struct {
        const char *text, *stop[3];
    } cases[] = {
        {"hello STOP world", {"STOP"}},
        {"hello STO", {"STOP"}},
        {"a STOSTOP b", {"STOP"}},
        {"aabaabaac", {"aabaac"}},
        {"aaaaaaab", {"aaab", "zz"}},
        {"one\n\ntwo", {"\n\n", "two"}},
        {"User: x", {"User:", "Us"}},
        {"xyz", {"x"}},
        {"xyz", {"z"}},
        {"xyz", {"xyzw", "yw"}},
        {"na\xc3\xafve \xe2\x82\xac caf\xc3\xa9!", {"\xe2\x82\xac"}},
    };
    for (size_t c = 0; c < NUM_COUNT(cases); c++)
        for (unsigned cut = 0; cut < 40; cut++) {
            struct bench b;
            bench_init(&b);
            const char *text = cases[c].text;
            char pieces[CTX][4];
            int32_t script[CTX];
            size_t ends[CTX] = {0}, n = 0, len = strlen(text), pos = 0;
            for (unsigned x = cut; pos < len; x = x * 7 + 3) {
                size_t k = num_min(1 + x % 3, len - pos);
                memcpy(pieces[n], text + pos, k);
                pieces[n][k] = 0;
                b.g.tok.text[4 + n] = pieces[n];
                script[n] = (int32_t)(SPECIAL + 4 + n);
                pos += k;
                ends[++n] = pos;
            }
            b.p.answer.stop = cases[c].stop;
            const char *first = NULL;
            for (; b.p.answer.n_stop < 3 && cases[c].stop[b.p.answer.n_stop]; b.p.answer.n_stop++) {
                const char *at = strstr(text, cases[c].stop[b.p.answer.n_stop]);
                first = at && (!first || at < first) ? at : first;
            }
            bench_run(&b, script, n);
            assert_int_equal(b.rc, 0);
            assert_int_equal(b.st.stop, first ? GENERATE_STRING : GENERATE_END);
            size_t want = first ? (size_t)(first - text) : len;
            /* a later stop string that ends in an earlier token comes first in time */
            if (strlen(b.content) != want)
                assert_true(b.p.answer.n_stop > 1 && strlen(b.content) > want);
            else
                assert_int_equal(memcmp(b.content, text, want), 0);
            /* After each token only a beginning of a stop string is held back (or part of a
               character, which no case but the last has). */
            for (size_t i = 1; i <= b.s.n - b.s.prompt && c + 1 < NUM_COUNT(cases); i++) {
                size_t held = 0;
                for (size_t k = 0; k < b.p.answer.n_stop; k++)
                    for (size_t m = 1; m < strlen(cases[c].stop[k]); m++)
                        if (m > held && ends_with(text, ends[i], cases[c].stop[k], m))
                            held = m;
                assert_int_equal(b.after[i], ends[i] - held);
            }
        }
}

static void stop_strings_reach_into_thoughts_and_control_tokens(void **state)
{
    static const int32_t script[] = {THINK, 'a', 'b', 'c', THINK_END, 'd', CONTROL, 'e'};
    struct bench b;
    const char *stop = "bc";
    bench_init(&b);
    b.p.answer.stop = &stop;
    b.p.answer.n_stop = 1;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.reasoning, "a");
    assert_int_equal(b.st.stop, GENERATE_STRING);
    assert_int_equal(b.st.answer_tokens, 4);

    bench_init(&b);
    stop = "<|control|>";
    b.p.answer.stop = &stop;
    b.p.answer.n_stop = 1;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.content, "d");
    assert_int_equal(b.st.stop, GENERATE_STRING);

    bench_init(&b); /* hidden otherwise */
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.content, "de");

    bench_init(&b); /* raw: everything is shown */
    b.p.answer.raw = b.p.answer.special = true;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.content, "<think>abc</think>d<|control|>e");
    assert_int_equal(b.st.reasoning_tokens, 0);

    bench_init(&b);
    static const char *const empty[] = {"x", ""};
    b.p.answer.stop = empty;
    b.p.answer.n_stop = 2;
    bench_run(&b, script, NUM_COUNT(script));
    assert_int_equal(b.rc, ERR_USAGE);
    assert_non_null(strstr(b.e.text, "2"));
}

static void answers_end_at_limits(void **state)
{
    struct bench b;
    bench_init(&b);
    b.p.answer.max_tokens = 3;
    bench_say(&b, "abcdef");
    assert_string_equal(b.content, "abc");
    assert_int_equal(b.st.stop, GENERATE_LENGTH);
    assert_int_equal(b.st.answer_tokens, 3);
    assert_int_equal(b.s.n, 6);

    bench_init(&b);
    b.g.info.ctx = 10;
    bench_say(&b, "abcdefghijkl");
    assert_int_equal(b.rc, 0);
    assert_string_equal(b.content, "abcdefg");
    assert_int_equal(b.st.stop, GENERATE_CONTEXT);
    assert_int_equal(b.s.n, 10);

    bench_init(&b);
    b.g.info.ctx = 3; /* the prompt fills it */
    bench_say(&b, "abc");
    assert_int_equal(b.rc, 0);
    assert_string_equal(b.content, "");
    assert_int_equal(b.st.stop, GENERATE_CONTEXT);

    assert_string_equal(generate_stop_name(GENERATE_END), "stop");
    assert_string_equal(generate_stop_name(GENERATE_STRING), "stop");
    assert_string_equal(generate_stop_name(GENERATE_LENGTH), "length");
    assert_string_equal(generate_stop_name(GENERATE_CONTEXT), "context");
    assert_string_equal(generate_stop_name(GENERATE_CANCELLED), "cancelled");
}

static void the_caller_can_stop_at_any_moment(void **state)
{
    for (size_t at = 1; at < 12; at++) {
        struct bench b;
        bench_init(&b);
        b.stop_after = at;
        bench_say(&b, "abcdef");
        if (at > 9) { /* never asked so often: two in the prompt, one after it, six tokens */
            assert_int_equal(b.rc, 0);
            continue;
        }
        assert_int_equal(b.rc, ERR_CANCELLED);
        assert_int_equal(b.st.stop, GENERATE_CANCELLED);
        size_t tokens = at <= 3 ? 0 : at - 3;
        assert_int_equal(b.st.answer_tokens, tokens);
        assert_int_equal(strlen(b.content), tokens);       /* what was generated was shown … */
        assert_int_equal(b.s.n, at < 3 ? at : 3 + tokens); /* … and stays */
    }
    struct bench b;
    bench_init(&b); /* what is held back is shown as well */
    const char *stop = "bcx";
    b.p.answer.stop = &stop;
    b.p.answer.n_stop = 1;
    b.stop_after = 6;
    bench_say(&b, "abcdef");
    assert_string_equal(b.content, "abc");
}

static void a_receiver_that_fails_stops_it(void **state)
{
    for (size_t at = 1; at <= 5; at++) {
        struct bench b;
        bench_init(&b);
        b.refuse_at = at;
        bench_say(&b, "abcd");
        assert_int_equal(b.rc, at <= 4 ? ERR_IO : 0);
        assert_int_equal(strlen(b.content), num_min(at - 1, 4));
        if (b.rc)
            assert_true(b.emitted == at); /* not called again */
    }
}

static void faults_of_the_session_keep_the_text(void **state)
{
    struct bench b;
    bench_init(&b);
    b.s.append_fails_at = 3;
    const char *stop = "cd";
    b.p.answer.stop = &stop;
    b.p.answer.n_stop = 1;
    bench_say(&b, "abcx");
    assert_int_equal(b.rc, ERR_NOMEM);
    assert_string_equal(b.e.text, "no memory for the cache");
    assert_string_equal(b.content, "abc"); /* with what was held back */

    bench_init(&b);
    int32_t big[CTX + 1] = {0};
    b.rc = generate(&b.s, big, CTX + 1, &b.p, &b.st, &b.e);
    assert_int_equal(b.rc, ERR_LIMIT);

    bench_init(&b);
    b.p.sampling.top_p = 3;
    bench_say(&b, "abc");
    assert_int_equal(b.rc, ERR_USAGE);
    assert_int_equal(b.s.n, 0); /* refused before any work */
}

static void penalties_see_prompt_and_answer(void **state)
{
    struct bench b;
    bench_init(&b);
    b.p.sampling.presence_penalty = 50; /* more than the script's 10 */
    b.p.answer.max_tokens = 3;
    bench_say(&b, "Haa");
    /* 'H' is in the prompt, the second 'a' in the answer: other tokens (byte 0, byte 1) win. */
    assert_int_equal(b.s.ids[3], 0);
    assert_int_equal(b.s.ids[4], 'a');
    assert_int_equal(b.s.ids[5], 1);
}

static void rows_without_a_token_are_never_chosen(void **state)
{
    static const int32_t script[] = {'a', 280, 'b'}; /* the model prefers 280 as second */
    struct bench b;
    bench_init(&b);
    b.g.tok.count = 270;
    b.p.answer.max_tokens = 3;
    bench_run(&b, script, NUM_COUNT(script));
    assert_int_equal(b.rc, 0);
    assert_int_equal(b.s.ids[3], 'a');
    assert_int_equal(b.s.ids[4], 0);
    assert_int_equal(b.s.ids[5], 'b');
}

/* The ids behind the prompt are these. */
static void assert_answer(const struct bench *b, const int32_t *ids, size_t n)
{
    assert_int_equal(b->s.n - b->s.prompt, n);
    assert_memory_equal(b->s.ids + b->s.prompt, ids, n * sizeof *ids);
}

static void a_budget_closes_the_thought(void **state)
{
    /* The model wants to think for long; where the budget forces tokens, its script goes on. */
    static const int32_t script[] = {THINK, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
    struct bench b;
    bench_init(&b);
    b.p.answer.think_max = 2;
    bench_run(&b, script, NUM_COUNT(script));
    static const int32_t two[] = {THINK, 'a', 'b', '\n', THINK_END, '\n', '\n', 'g', 'h'};
    assert_int_equal(b.rc, 0);
    assert_answer(&b, two, NUM_COUNT(two));
    assert_true(b.st.thought_cut);
    assert_int_equal(b.st.answer_tokens, 9);
    assert_int_equal(b.st.reasoning_tokens, 5);
    assert_int_equal(b.st.stop, GENERATE_END);

    bench_init(&b); /* none at all, and the prompt opened it */
    b.p.answer.think_max = 0;
    b.p.answer.thinking_open = true;
    bench_run(&b, script + 1, 6);
    static const int32_t none[] = {'\n', THINK_END, '\n', '\n', 'e', 'f'};
    assert_answer(&b, none, NUM_COUNT(none));
    assert_true(b.st.thought_cut);

    bench_init(&b); /* none, and the model opens it itself */
    b.p.answer.think_max = 0;
    bench_run(&b, script, 7);
    static const int32_t own[] = {THINK, '\n', THINK_END, '\n', '\n', 'e', 'f'};
    assert_answer(&b, own, NUM_COUNT(own));

    bench_init(&b); /* a thought that ends in time is left alone */
    static const int32_t brief[] = {THINK, 'a', 'b', THINK_END, 'c', 'd', 'e'};
    b.p.answer.think_max = 3;
    bench_run(&b, brief, NUM_COUNT(brief));
    assert_answer(&b, brief, NUM_COUNT(brief));
    assert_false(b.st.thought_cut);
    assert_string_equal(b.content, "cde");

    bench_init(&b); /* the limit of the answer holds for forced tokens too */
    b.p.answer.think_max = 1;
    b.p.answer.max_tokens = 3;
    bench_run(&b, script, NUM_COUNT(script));
    static const int32_t three[] = {THINK, 'a', '\n'};
    assert_answer(&b, three, NUM_COUNT(three));
    assert_int_equal(b.st.stop, GENERATE_LENGTH);

    bench_init(&b); /* without parsing there are no thoughts */
    b.p.answer.think_max = 1;
    b.p.answer.raw = true;
    bench_run(&b, script, NUM_COUNT(script));
    assert_answer(&b, script, NUM_COUNT(script));
}

static void a_loop_closes_the_thought(void **state)
{
    static int32_t script[CTX - 20] = {THINK};
    for (size_t i = 1; i < NUM_COUNT(script); i++)
        script[i] = i % 2 ? 'h' : 'm';
    struct bench b;
    bench_init(&b);
    b.p.answer.think_loops = true;
    bench_run(&b, script, NUM_COUNT(script));
    assert_int_equal(b.rc, 0);
    assert_true(b.st.thought_cut);
    assert_in_range(strlen(b.reasoning), 384, 390);
    assert_int_equal(strspn(b.reasoning, "hm"), strlen(b.reasoning) - 1); /* "\n" */
    assert_true(strlen(b.content) > 100);                                 /* the answer may do so */

    bench_init(&b);
    bench_run(&b, script, NUM_COUNT(script));
    assert_false(b.st.thought_cut);
    assert_string_equal(b.content, "");
}

static void a_grammar_rules_behind_the_thought(void **state)
{
    struct grammar g = {"{}"};
    struct bench b;
    bench_init(&b);
    b.p.answer.grammar = &g;
    bench_say(&b, "Sure! Here is it");
    assert_int_equal(b.rc, 0);
    assert_string_equal(b.content, "{}"); /* and no word more */
    assert_int_equal(b.st.stop, GENERATE_END);
    assert_int_equal(b.st.answer_tokens, 2);

    static const int32_t script[] = {'a', 'b', THINK_END, 'S', 'u', 'r', 'e'};
    bench_init(&b);
    b.p.answer.grammar = &g;
    b.p.answer.thinking_open = true;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.reasoning, "ab");
    assert_string_equal(b.content, "{}");

    bench_init(&b); /* closed by the budget */
    b.p.answer.grammar = &g;
    b.p.answer.thinking_open = true;
    b.p.answer.think_max = 1;
    bench_run(&b, script, NUM_COUNT(script));
    static const int32_t want[] = {'a', '\n', THINK_END, '\n', '\n', '{', '}'};
    assert_answer(&b, want, NUM_COUNT(want));

    bench_init(&b);
    b.p.answer.grammar = &g;
    b.p.answer.max_tokens = 1;
    bench_say(&b, "x");
    assert_int_equal(b.st.stop, GENERATE_LENGTH);
}

static void end_tokens_wait_for_min_tokens(void **state)
{
    struct bench b;
    bench_init(&b);
    b.p.answer.min_tokens = 4;
    bench_say(&b, "ab"); /* then it wants to end: token 0 is the next best */
    static const int32_t want[] = {'a', 'b', 0, 0};
    assert_answer(&b, want, NUM_COUNT(want));
    assert_int_equal(b.st.stop, GENERATE_END);

    static const char *const stop[] = {"b"};
    bench_init(&b); /* stop strings wait as well */
    b.p.answer.min_tokens = 3;
    b.p.answer.stop = stop;
    b.p.answer.n_stop = 1;
    bench_say(&b, "abcdbe");
    assert_string_equal(b.content, "abcd");
    assert_int_equal(b.st.stop, GENERATE_STRING);

    static const int32_t stop_id[] = {'b'};
    bench_init(&b);
    b.p.answer.min_tokens = 2;
    b.p.answer.stop_id = stop_id;
    b.p.answer.n_stop_id = 1;
    bench_say(&b, "bbb");
    static const int32_t masked[] = {0, 0};
    assert_answer(&b, masked, NUM_COUNT(masked));
}

/* Forbidden words, however tokens cut them; the next best token is 0. */
static void forbidden_words_do_not_come(void **state)
{
    enum { CAT = THINK_END + 1, BLANK_CAT, CONCAT, AT, CA };
    static const char *const ban[] = {" cat", "dog!"};
    static const int32_t says[][6] = {{'a', ' ', 'c', 'a', 't', 's'},
                                      {CAT, 's', CAT},
                                      {'x', BLANK_CAT},
                                      {CONCAT, 's'},
                                      {'c', AT, 'e'},
                                      {CA, 't'},
                                      {'d', 'o', 'g'},
                                      {'d', 'o', 'g', '!', 'x'},
                                      {'c', 'c', AT},
                                      {'c', 0, AT},
                                      {'c', CONTROL, AT}};
    static const int32_t want[][6] = {{'a', ' ', 'c', 'a', 0, 's'},
                                      {0, 's', 0},
                                      {'x', 0},
                                      {CONCAT, 's'},
                                      {'c', 0, 'e'},
                                      {CA, 0},
                                      {'d', 'o', 'g'},
                                      {'d', 'o', 'g', 0, 'x'},
                                      {'c', 'c', 0},
                                      {'c', 0, AT},
                                      {'c', CONTROL, AT}};
    static const size_t n[] = {6, 3, 2, 2, 3, 2, 3, 5, 3, 3, 3};
    for (int min = 0; min < 2; min++)
        for (size_t i = 0; i < NUM_COUNT(n); i++) {
            struct bench b;
            bench_init(&b);
            b.g.tok.text[CAT - SPECIAL] = "cat";
            b.g.tok.text[BLANK_CAT - SPECIAL] = " cat";
            b.g.tok.text[CONCAT - SPECIAL] = "concat";
            b.g.tok.text[AT - SPECIAL] = "at";
            b.g.tok.text[CA - SPECIAL] = "ca";
            b.p.answer.ban = ban;
            b.p.answer.n_ban = 2;
            b.p.answer.min_tokens = min ? n[i] + 1 : 0; /* the end may not come either */
            b.p.answer.max_tokens = min ? n[i] + 1 : 0;
            bench_run(&b, says[i], n[i]);
            assert_int_equal(b.rc, 0);
            assert_int_equal(b.st.stop, min ? GENERATE_LENGTH : GENERATE_END);
            int32_t ids[7] = {0};
            memcpy(ids, want[i], n[i] * sizeof *ids);
            assert_answer(&b, ids, n[i] + (size_t)min);
        }
    static const char *const bad[] = {"a", "  "};
    struct bench b;
    bench_init(&b);
    b.p.answer.ban = bad;
    b.p.answer.n_ban = 2;
    bench_say(&b, "x");
    assert_int_equal(b.rc, ERR_USAGE);
    assert_non_null(strstr(b.e.text, "word 2"));
}

static void the_caller_names_what_ends_it(void **state)
{
    static const int32_t stop_id[] = {'x', 'c'};
    struct bench b;
    bench_init(&b);
    b.p.answer.stop_id = stop_id;
    b.p.answer.n_stop_id = 2;
    bench_say(&b, "abcd");
    assert_string_equal(b.content, "ab");
    assert_int_equal(b.st.stop, GENERATE_END);
    assert_int_equal(b.st.answer_tokens, 2);

    bench_init(&b);
    b.p.answer.stop_id = stop_id;
    b.p.answer.n_stop_id = 2;
    b.p.answer.stop_shown = true;
    bench_say(&b, "abcd");
    assert_string_equal(b.content, "abc");

    static const char *const stop[] = {"cd"};
    bench_init(&b);
    b.p.answer.stop = stop;
    b.p.answer.n_stop = 1;
    b.p.answer.stop_shown = true;
    bench_say(&b, "abcde");
    assert_string_equal(b.content, "abcd");
    assert_int_equal(b.st.stop, GENERATE_STRING);

    static const int32_t script[] = {'a', END, 'b'};
    bench_init(&b);
    b.p.answer.ignore_end = true;
    b.p.answer.max_tokens = 3;
    bench_run(&b, script, NUM_COUNT(script));
    assert_string_equal(b.content, "ab"); /* hidden like every control token */
    assert_answer(&b, script, NUM_COUNT(script));
}

static void every_allocation_may_fail(void **state)
{
    for (size_t n = 1;; n++) {
        struct bench b;
        bench_init(&b);
        static const char *const stop[] = {"zzz"};
        static const int32_t stop_id[] = {7};
        b.p.sampling.presence_penalty = 0.1f;
        b.p.answer.stop = stop;
        b.p.answer.stop_id = stop_id;
        b.p.answer.n_stop = b.p.answer.n_stop_id = 1;
        b.p.answer.think_max = 9;
        b.p.answer.think_loops = true;
        b.p.answer.min_tokens = 2;
        struct grammar g = {"some text that is long enough for a buffer to grow"};
        b.p.answer.grammar = &g;
        fail_alloc_at(n);
        bench_say(&b, "some text that is long enough for a buffer to grow");
        bool failed = fail_alloc_stop();
        assert_int_equal(b.rc, failed ? ERR_NOMEM : 0);
        if (!failed)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_arrives_token_by_token),
        cmocka_unit_test(thoughts_are_told_apart_and_counted),
        cmocka_unit_test(characters_arrive_whole),
        cmocka_unit_test(stop_strings_may_span_tokens),
        cmocka_unit_test(stop_strings_reach_into_thoughts_and_control_tokens),
        cmocka_unit_test(answers_end_at_limits),
        cmocka_unit_test(the_caller_can_stop_at_any_moment),
        cmocka_unit_test(a_receiver_that_fails_stops_it),
        cmocka_unit_test(faults_of_the_session_keep_the_text),
        cmocka_unit_test(penalties_see_prompt_and_answer),
        cmocka_unit_test(rows_without_a_token_are_never_chosen),
        cmocka_unit_test(a_budget_closes_the_thought),
        cmocka_unit_test(a_loop_closes_the_thought),
        cmocka_unit_test(a_grammar_rules_behind_the_thought),
        cmocka_unit_test(end_tokens_wait_for_min_tokens),
        cmocka_unit_test(forbidden_words_do_not_come),
        cmocka_unit_test(the_caller_names_what_ends_it),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
