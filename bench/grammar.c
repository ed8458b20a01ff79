/*
 * What constrained output costs: compiling, masks when a place is new and when it is known, and
 * following a token.
 *
 *   bench-grammar FOLDER…        folders with a tokenizer.json
 *
 * Random walks of up to 80 tokens through each grammar; processor time of this thread, so that
 * neighbours count little. "new": the first walks after compiling, in which masks are found; the
 * mean over all of their tokens and the dearest one. "known": the same walks again.
 */
#include "text/grammar.h"
#include "base/num.h"
#include "base/rng.h"
#include "format/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WALKS = 20, TOKENS = 80 };

struct cost {
    double masks, worst, accepts; /* seconds */
    size_t n;
};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const struct err *e)
{
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static void walk(struct grammar *g, struct grammar_vocab *v, const struct tokenizer *tok,
                 uint64_t seed, int32_t *may, struct cost *c)
{
    struct grammar_state *s;
    struct err e;
    if (grammar_state_new(&s, g, v, GRAMMAR_THOUGHT_NONE, &e))
        die(&e);
    for (uint64_t step = 0; step < TOKENS; step++) {
        const uint32_t *bits;
        uint32_t r[4];
        size_t n = 0;
        double start = now();
        if (grammar_state_mask(s, &bits, &e))
            die(&e);
        double took = now() - start;
        c->masks += took;
        c->worst = took > c->worst ? took : c->worst;
        c->n++;
        for (int32_t i = 0; (size_t)i < tokenizer_count(tok); i++)
            if (bits[i / 32] >> (i % 32) & 1)
                may[n++] = i;
        rng_block(seed, 1, step, r);
        int32_t id = may[r[0] % n];
        if (tokenizer_is_end(tok, id))
            break;
        start = now();
        if (grammar_state_accept(s, id, &e))
            die(&e);
        c->accepts += now() - start;
    }
    grammar_state_free(s);
}

static int compile(struct grammar **g, int kind, struct err *e)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"tags\":{\"type\":"
        "\"array\",\"items\":{\"type\":\"string\"}},\"n\":{\"type\":\"integer\"},\"text\":{"
        "\"type\":"
        "\"string\",\"maxLength\":200}},\"required\":[\"name\",\"tags\",\"n\",\"text\"]}";
    static const char regex[] = "[a-z]{3,40}(, [A-Z][^;]*)+;";
    if (kind == 0)
        return grammar_new_json(g, e);
    if (kind == 1) {
        json_t *o = json_loads(schema, 0, NULL);
        int code = grammar_new_schema(g, o, e);
        json_decref(o);
        return code;
    }
    if (kind == 2)
        return grammar_new_regex(g, regex, strlen(regex), e);
    const struct grammar_tool tool = {"lookup", NULL};
    const struct grammar_tools tools = {
        .form = GRAMMAR_CALL_HERMES, .tool = &tool, .n = 1, .parallel = true};
    return grammar_new_tools(g, &tools, e);
}

static void measure(const char *path)
{
    static const char *const names[] = {"JSON mode", "JSON schema", "expression", "tools, auto"};
    struct source *src;
    struct tokenizer *tok;
    struct grammar_vocab *v;
    struct err e;
    if (source_open(&src, path, &e) || tokenizer_new(&tok, src, &e))
        die(&e);
    double start = now();
    if (grammar_vocab_new(&v, tok, &e))
        die(&e);
    printf("%s: %zu tokens, trie in %.0f ms\n", path, tokenizer_count(tok), 1e3 * (now() - start));
    int32_t *may = malloc(tokenizer_count(tok) * sizeof *may);
    for (int kind = 0; may && kind < (int)NUM_COUNT(names); kind++) {
        struct grammar *g;
        struct cost c[2] = {{0}, {0}};
        start = now();
        if (compile(&g, kind, &e))
            die(&e);
        double compiled = now() - start;
        for (int pass = 0; pass < 2; pass++)
            for (uint64_t seed = 0; seed < WALKS; seed++)
                walk(g, v, tok, seed, may, &c[pass]);
        printf(
            "  %-12s compiled in %5.0f us; masks new %6.2f us, at most %5.0f us, known %5.2f us; "
            "a token %5.2f us\n",
            names[kind], 1e6 * compiled, 1e6 * c[0].masks / (double)c[0].n, 1e6 * c[0].worst,
            1e6 * c[1].masks / (double)c[1].n, 1e6 * c[1].accepts / (double)c[1].n);
        grammar_unref(g);
    }
    free(may);
    grammar_vocab_unref(v);
    tokenizer_free(tok);
    source_free(src);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        measure(argv[i]);
    return 0;
}
