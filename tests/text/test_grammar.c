/*
 * Constrained output: random walks through the masks end in texts that other code accepts; states
 * copy and replay; expressions, GBNF and choices take what they should and nothing else.
 */
#include "base/rng.h"
#include "support/golden.h"
#include "text/grammar_walk.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct vocab small; /* every byte and a few merges */

static int setup(void **state)
{
    small = vocab_open(GOLDEN_DIR "/models/qwen2_tied");
    return 0;
}

static int teardown(void **state)
{
    vocab_close(&small);
    return 0;
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
        assert_true(grammar_walk(&small, g, GRAMMAR_THOUGHT_NONE, seed, &text));
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
