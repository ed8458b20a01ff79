/*
 * Constrained output: random walks through the masks of real and made vocabularies end in texts
 * that other code accepts; texts of a grammar are reachable whatever tokens spell them; states copy
 * and replay; what cannot be compiled says why.
 */
#include "base/file.h"
#include "base/rng.h"
#include "format/source.h"
#include "support/golden.h"
#include "text/grammar.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct vocab {
    struct tokenizer *tok;
    struct grammar_vocab *v;
};

static struct vocab small; /* tests/golden/models/qwen2_tied: every byte and a few merges */

static struct vocab open_vocab(const char *path)
{
    struct err e = {0};
    struct source *s;
    struct vocab v;
    if (source_open(&s, path, &e) || tokenizer_new(&v.tok, s, &e) ||
        grammar_vocab_new(&v.v, v.tok, &e))
        fail_msg("%s", e.text);
    source_free(s);
    return v;
}

static int setup(void **state)
{
    small = open_vocab(GOLDEN_DIR "/models/qwen2_tied");
    return 0;
}

static int teardown(void **state)
{
    grammar_vocab_unref(small.v);
    tokenizer_free(small.tok);
    return 0;
}

static bool has(const uint32_t *bits, int32_t id)
{
    return bits[id / 32] >> (id % 32) & 1;
}

/* Of the tokens that may come one that leads to the end of JSON, else `other`. */
static int32_t closing(const struct vocab *v, const int32_t *may, size_t n, int32_t other)
{
    static const char wanted[] = "\"}]";
    size_t best = strlen(wanted), k;
    for (size_t i = 0; i < n; i++) {
        if (tokenizer_is_end(v->tok, may[i]))
            return may[i];
        const char *p = tokenizer_bytes(v->tok, may[i], &k);
        const char *at = k == 1 ? strchr(wanted, *p) : NULL;
        if (at && *at && (size_t)(at - wanted) < best) {
            best = (size_t)(at - wanted);
            other = may[i];
        }
    }
    return other;
}

/* One text by random tokens; after a while mostly by those that end it. */
static void walk(const struct vocab *v, struct grammar *g, uint64_t seed, struct buf *out)
{
    struct err e = {0};
    struct grammar_state *s;
    size_t count = tokenizer_count(v->tok);
    int32_t *may = malloc(count * sizeof *may);
    if (grammar_state_new(&s, g, v->v, GRAMMAR_THOUGHT_NONE, &e))
        fail_msg("%s", e.text);
    for (uint64_t step = 0; step < 100000; step++) {
        const uint32_t *bits;
        size_t n = 0;
        uint32_t r[4];
        if (grammar_state_mask(s, &bits, &e))
            fail_msg("%s", e.text);
        for (size_t i = 0; i < count; i++)
            if (has(bits, (int32_t)i))
                may[n++] = (int32_t)i;
        assert_true(n > 0);
        rng_block(seed, 7, step, r);
        int32_t id = may[r[0] % n];
        if (step > 60 && r[1] % 4)
            id = closing(v, may, n, id);
        if (grammar_state_accept(s, id, &e))
            fail_msg("%s", e.text);
        if (tokenizer_is_end(v->tok, id))
            break;
        size_t k;
        const char *p = tokenizer_bytes(v->tok, id, &k);
        assert_int_equal(buf_append(out, p, k, &e), 0);
    }
    grammar_state_free(s);
    free(may);
}

static void test_json_mode(void **state)
{
    struct err e = {0};
    struct grammar *g;
    if (grammar_new_json(&g, &e))
        fail_msg("%s", e.text);
    for (uint64_t seed = 0; seed < 200; seed++) {
        struct buf text;
        json_error_t je;
        buf_init(&text, 1 << 20);
        walk(&small, g, seed, &text);
        json_t *o = json_loadb(text.data, text.len, JSON_ALLOW_NUL, &je);
        if (!json_is_object(o))
            fail_msg("%s: %s", text.data, je.text);
        json_decref(o);
        buf_release(&text);
    }
    grammar_unref(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_mode),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
