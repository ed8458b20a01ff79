/*
 * Sessions that hold pages together: after a fork, each is to the bit what it would be alone,
 * whoever writes first, wherever it was cut, and no page is lost.
 */
#include "base/num.h"
#include "engine/engine.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 256, SHARED = 150, LEN = 200 };

static struct engine *open_model(const char *name, enum quant_id kv, bool mtp, size_t cache)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    o.cache = cache;
    o.batch = 48;
    o.kv_type = kv;
    o.mtp = mtp;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

static struct session *new_session(struct engine *g)
{
    struct session *s = NULL;
    struct err e = {0};
    if (session_new(&s, g, &e))
        fail_msg("%s", e.text);
    return s;
}

/* Timelines that part at SHARED. */
static void some_ids(int32_t *ids, size_t which, size_t vocab)
{
    for (size_t i = 0; i < LEN; i++)
        ids[i] = (int32_t)((i * 7919 + (i < SHARED ? 3 : 5 + which * 11)) % vocab);
}

/* The logits of every token of timeline `which`. */
static float *all_alone(struct engine *g, size_t which)
{
    struct session *s = new_session(g);
    struct err e = {0};
    int32_t ids[LEN];
    float *all = malloc(LEN * engine_info(g)->vocab * sizeof *all);
    assert_non_null(all);
    some_ids(ids, which, engine_info(g)->vocab);
    if (session_append_all(s, ids, LEN, all, &e))
        fail_msg("%s", e.text);
    session_free(s);
    return all;
}

static void go_on(struct session *s, const int32_t *ids, size_t n, const float *all)
{
    struct err e = {0};
    size_t vocab = engine_info(session_engine(s))->vocab;
    while (n--) {
        size_t at = session_len(s);
        if (session_append(s, ids + at, 1, &e))
            fail_msg("%s", e.text);
        assert_memory_equal(session_logits(s), all + at * vocab, vocab * sizeof *all);
    }
}

static void check_fork(const char *name, enum quant_id kv, bool mtp)
{
    enum { N = 3 };
    struct engine *g = open_model(name, kv, mtp, 5 * CTX);
    size_t vocab = engine_info(g)->vocab, pages = engine_pages_unused(g);
    struct err e = {0};
    float *all[N];
    int32_t ids[N][LEN];
    for (size_t i = 0; i < N; i++) {
        all[i] = all_alone(g, i);
        some_ids(ids[i], i, vocab);
    }
    assert_int_equal(engine_pages_unused(g), pages);
    /* Forks in the middle of a page, at its end, one token after that, and where they part. */
    static const size_t points[] = {1, 63, 64, 65, 100, 128, SHARED};
    for (size_t i = 0; i < NUM_COUNT(points); i++) {
        struct session *s[N];
        s[0] = new_session(g);
        assert_int_equal(session_append(s[0], ids[0], points[i], &e), 0);
        size_t unused = engine_pages_unused(g);
        for (size_t k = 1; k < N; k++) {
            assert_int_equal(session_fork(&s[k], s[k - 1], &e), 0);
            assert_int_equal(session_len(s[k]), points[i]);
            assert_memory_equal(session_ids(s[k]), ids[0], points[i] * sizeof(int32_t));
            assert_memory_equal(session_logits(s[k]), all[0] + (points[i] - 1) * vocab,
                                vocab * sizeof(float));
        }
        assert_int_equal(engine_pages_unused(g), unused);
        /* Some write first, the others find their page as it was. */
        for (size_t k = 0; k < N; k++)
            go_on(s[(k + i) % N], ids[(k + i) % N], 3, all[(k + i) % N]);
        while (session_len(s[0]) < LEN) {
            struct session_part p[N];
            for (size_t k = 0; k < N; k++)
                p[k] = (struct session_part){
                    .s = s[k], .ids = ids[k] + session_len(s[k]), .n = 1, .want = 1};
            assert_int_equal(engine_step(g, p, N, &e), 0);
            for (size_t k = 0; k < N; k++)
                assert_memory_equal(p[k].logits, all[k] + (session_len(s[k]) - 1) * vocab,
                                    vocab * sizeof(float));
        }
        /* Cut back into what they hold together, and on with another's timeline. */
        size_t cut = num_max(points[i], 2) - 1;
        session_truncate(s[1], cut);
        session_truncate(s[2], cut);
        go_on(s[1], ids[1], LEN - cut, all[1]);
        go_on(s[2], ids[0], LEN - cut, all[0]);
        session_truncate(s[0], cut);
        go_on(s[0], ids[0], LEN - cut, all[0]);
        for (size_t k = 0; k < N; k++)
            session_free(s[k]);
        assert_int_equal(engine_pages_unused(g), pages);
    }
    for (size_t i = 0; i < N; i++)
        free(all[i]);
    engine_free(g);
}

static void test_fork(void **state)
{
    (void)state;
    check_fork("llama_rope_llama3", QUANT_F16, false);
    check_fork("qwen2_tied", QUANT_Q8_0, false);
    check_fork("llama_rope_llama3", QUANT_E4M3, false);
    check_fork("dsv3_qlora_yarn_mtp", QUANT_F32, false);
}

static void test_fork_latents(void **state)
{
    (void)state;
    check_fork("dsv3_qlora_yarn_mtp", QUANT_Q8_0, true);
    check_fork("dsv3_qlora_yarn_mtp", QUANT_F16, true);
}

/* Forks draft on from where they are: as many guesses are right as without the fork. */
static void test_fork_drafts(void **state)
{
    (void)state;
    struct engine *g = open_model("dsv3_qlora_yarn_mtp", QUANT_F16, true, 4 * CTX);
    struct err e = {0};
    int32_t ids[LEN];
    some_ids(ids, 0, engine_info(g)->vocab);
    for (size_t n = 60; n < 70; n++) {
        struct session *a = new_session(g), *b;
        uint64_t drafts[2][2], right[2][2];
        assert_int_equal(session_append(a, ids, n, &e), 0);
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(session_append(a, ids + n + i, 1, &e), 0);
        session_drafts(a, &drafts[0][0], &right[0][0]);
        assert_int_equal(session_fork(&b, a, &e), 0);
        session_drafts(b, &drafts[1][0], &right[1][0]);
        for (size_t i = 0; i < 100; i++) {
            size_t vocab = engine_info(g)->vocab;
            const float *row = session_logits(a);
            int32_t best = 0;
            for (size_t v = 1; v < vocab; v++)
                if (row[v] > row[best])
                    best = (int32_t)v;
            assert_memory_equal(row, session_logits(b), vocab * sizeof *row);
            assert_int_equal(session_append(a, &best, 1, &e), 0);
            assert_int_equal(session_append(b, &best, 1, &e), 0);
        }
        session_drafts(a, &drafts[0][1], &right[0][1]);
        session_drafts(b, &drafts[1][1], &right[1][1]);
        assert_true(drafts[0][1] > drafts[0][0]);
        assert_int_equal(drafts[0][1] - drafts[0][0], drafts[1][1] - drafts[1][0]);
        assert_int_equal(right[0][1] - right[0][0], right[1][1] - right[1][0]);
        session_free(a);
        session_free(b);
    }
    engine_free(g);
}

/* Copies need pages too: what a session would take is known before, and refused without harm. */
static void test_fork_full(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, 5 * 64);
    struct session *a = new_session(g), *b;
    struct err e = {0};
    int32_t ids[LEN];
    some_ids(ids, 0, engine_info(g)->vocab);
    assert_int_equal(session_need(a, 65), 2);
    assert_int_equal(session_append(a, ids, 100, &e), 0);
    assert_int_equal(session_need(a, 28), 0);
    assert_int_equal(session_need(a, 29), 1);
    assert_int_equal(session_fork(&b, a, &e), 0);
    assert_int_equal(session_need(a, 28), 1);
    assert_int_equal(session_need(b, 29), 2);
    assert_int_equal(session_append(a, ids + 100, 92, &e), 0); /* the copy and one more */
    assert_int_equal(engine_pages_unused(g), 1);
    assert_int_equal(session_need(b, 29), 1); /* its last page is its own by now */
    assert_int_equal(session_append(b, ids + 100, 100, &e), ERR_LIMIT);
    session_truncate(b, 100);
    assert_int_equal(engine_pages_unused(g), 1);
    struct session *c;
    assert_int_equal(session_fork(&c, b, &e), 0);
    assert_int_equal(session_append(c, ids + 100, 1, &e), 0);
    assert_int_equal(session_append(b, ids + 100, 28, &e), 0);
    assert_int_equal(session_append(b, ids + 128, 1, &e), ERR_LIMIT);
    assert_int_equal(session_len(b), 128);
    session_free(c);
    assert_int_equal(session_append(b, ids + 128, 1, &e), 0);
    session_free(a);
    session_free(b);
    assert_int_equal(engine_pages_unused(g), 5);
    /* A fork of nothing is nothing, and a fork keeps the logits it was born with. */
    a = new_session(g);
    assert_int_equal(session_fork(&b, a, &e), 0);
    assert_null(session_logits(b));
    assert_int_equal(session_append(b, ids, 10, &e), 0);
    assert_int_equal(session_len(a), 0);
    session_free(a);
    session_free(b);
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fork),
        cmocka_unit_test(test_fork_latents),
        cmocka_unit_test(test_fork_drafts),
        cmocka_unit_test(test_fork_full),
    };
    return cmocka_run_group_tests_name("engine/fork", tests, NULL, NULL);
}
