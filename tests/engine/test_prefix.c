/*
 * The prefix cache: what is found has the bits of what would be computed, other salts find nothing,
 * ends go before beginnings, what is in use stays, and no page is lost.
 */
#include "base/num.h"
#include "base/rng.h"
#include "engine/prefix.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CTX = 512, PAGES = 20, LEN = 400 };

static const uint64_t salt[2] = {1, 2}, other_salt[2] = {1, 3};

static struct engine *open_model(const char *name, enum quant_id kv, bool mtp, size_t pages)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    o.cache = pages * 64;
    o.kv_type = kv;
    o.mtp = mtp;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

static struct prefix *new_prefix(struct engine *g)
{
    struct prefix *p = NULL;
    struct err e = {0};
    if (prefix_new(&p, g, NULL, &e))
        fail_msg("%s", e.text);
    return p;
}

static struct session *new_session(struct engine *g)
{
    struct session *s = NULL;
    struct err e = {0};
    if (session_new(&s, g, &e))
        fail_msg("%s", e.text);
    return s;
}

static void some_ids(int32_t *ids, size_t n, size_t which)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + which * 31 + 3) % 500);
}

static void append(struct session *s, const int32_t *ids, size_t n)
{
    struct err e = {0};
    if (session_append(s, ids + session_len(s), n - session_len(s), &e))
        fail_msg("%s", e.text);
}

/* Computes ids[0..n), with what the cache has, and leaves its pages there. Returns what it had. */
static size_t compute(struct prefix *p, struct engine *g, const uint64_t s[2], const int32_t *ids,
                      size_t n)
{
    struct session *x = new_session(g);
    size_t had = prefix_attach(p, x, s, ids, n);
    assert_int_equal(session_len(x), had);
    append(x, ids, n - 1);
    append(x, ids, n); /* the prediction layer is a step behind */
    prefix_note(p, x, s, 0);
    session_free(x);
    return had;
}

static size_t pages_of(struct prefix *p)
{
    struct prefix_stats st;
    prefix_stats(p, &st);
    return st.pages;
}

static void check_bits(const char *name, enum quant_id kv, bool mtp)
{
    struct engine *g = open_model(name, kv, mtp, PAGES);
    struct prefix *p = new_prefix(g);
    size_t vocab = engine_info(g)->vocab;
    struct session *alone = new_session(g);
    int32_t ids[LEN];
    struct err e = {0};
    float *all = malloc(LEN * vocab * sizeof *all);
    assert_non_null(all);
    for (size_t i = 0; i < LEN; i++)
        ids[i] = (int32_t)((i * 7919 + 3) % vocab);
    assert_int_equal(session_append_all(alone, ids, LEN, all, &e), 0);
    prefix_note(p, alone, salt, 0);
    session_free(alone);
    for (size_t n = 63; n <= LEN; n += n < 66 ? 1 : 61) {
        struct session *s = new_session(g);
        size_t had = prefix_attach(p, s, salt, ids, n);
        assert_int_equal(had, (n - 1) / 64 * 64);
        assert_memory_equal(session_ids(s), ids, had * sizeof *ids);
        assert_null(session_logits(s));
        append(s, ids, n);
        assert_memory_equal(session_logits(s), all + (n - 1) * vocab, vocab * sizeof *all);
        /* Cut back into what the cache has and go another way: the cache sees nothing of it. */
        int32_t way[LEN];
        memcpy(way, ids, sizeof way);
        way[n / 2] = 7;
        session_truncate(s, n / 2);
        append(s, way, n);
        prefix_note(p, s, salt, 0);
        session_truncate(s, n / 2);
        for (size_t i = n / 2; i < n; i++) {
            assert_int_equal(session_append(s, ids + i, 1, &e), 0);
            assert_memory_equal(session_logits(s), all + i * vocab, vocab * sizeof *all);
        }
        session_free(s);
        assert_int_equal(prefix_find(p, salt, ids, LEN), LEN / 64 * 64);
        assert_int_equal(prefix_evict(p, PAGES), PAGES);
        compute(p, g, salt, ids, LEN);
    }
    free(all);
    prefix_free(p);
    assert_int_equal(engine_pages_unused(g), PAGES);
    engine_free(g);
}

static void test_bits(void **state)
{
    (void)state;
    check_bits("llama_rope_llama3", QUANT_F16, false);
    check_bits("qwen2_tied", QUANT_Q8_0, false);
    check_bits("dsv3_qlora_yarn_mtp", QUANT_F16, false);
    check_bits("dsv3_qlora_yarn_mtp", QUANT_Q8_0, true);
}

/* Drafts after a hit: as good as without, once the first token is computed. */
static void test_drafts(void **state)
{
    (void)state;
    struct engine *g = open_model("dsv3_qlora_yarn_mtp", QUANT_F16, true, PAGES);
    struct prefix *p = new_prefix(g);
    uint64_t drafted[2], right[2];
    int32_t ids[LEN];
    struct err e = {0};
    some_ids(ids, LEN, 0);
    for (size_t i = 0; i < LEN; i++)
        ids[i] %= (int32_t)engine_info(g)->vocab;
    for (int k = 0; k < 2; k++) {
        struct session *s = new_session(g);
        assert_int_equal(prefix_attach(p, s, salt, ids, 200), k ? 192 : 0);
        append(s, ids, 200);
        for (size_t i = 200; i < LEN; i++)
            assert_int_equal(session_append(s, ids + i, 1, &e), 0);
        session_drafts(s, &drafted[k], &right[k]);
        prefix_note(p, s, salt, 0);
        session_free(s);
    }
    assert_true(drafted[0] > 100);
    assert_int_equal(drafted[0], drafted[1]);
    assert_int_equal(right[0], right[1]);
    prefix_free(p);
    engine_free(g);
}

static void test_who_finds_what(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    struct prefix *p = new_prefix(g);
    struct prefix_stats st;
    int32_t a[LEN], b[LEN];
    some_ids(a, LEN, 0);
    memcpy(b, a, sizeof b);
    b[130] ^= 1;
    assert_int_equal(compute(p, g, salt, a, 300), 0);
    assert_int_equal(prefix_find(p, salt, a, 300), 256);
    assert_int_equal(prefix_find(p, salt, a, LEN), 256);
    assert_int_equal(prefix_find(p, salt, a, 257), 256);
    assert_int_equal(prefix_find(p, salt, a, 256), 192); /* the last token is for computing */
    assert_int_equal(prefix_find(p, salt, a, 64), 0);
    assert_int_equal(prefix_find(p, salt, a, 1), 0);
    assert_int_equal(prefix_find(p, salt, a, 0), 0);
    assert_int_equal(prefix_find(p, salt, b, LEN), 128);
    /* The same page in another place is another page. */
    assert_int_equal(prefix_find(p, salt, a + 64, LEN - 64), 0);
    assert_int_equal(prefix_find(p, other_salt, a, LEN), 0);
    assert_int_equal(compute(p, g, other_salt, a, 300), 0);
    assert_int_equal(pages_of(p), 8);
    assert_int_equal(compute(p, g, salt, b, 300), 128);
    assert_int_equal(pages_of(p), 10);
    assert_int_equal(prefix_find(p, salt, a, LEN), 256);
    assert_int_equal(prefix_find(p, salt, b, LEN), 256);
    prefix_stats(p, &st);
    assert_int_equal(st.asked, 900);
    assert_int_equal(st.hit, 128);
    assert_int_equal(st.idle, 10);
    assert_int_equal(prefix_room(p), PAGES);
    /* A session that has tokens takes nothing over. */
    struct session *s = new_session(g);
    append(s, a, 1);
    assert_int_equal(prefix_attach(p, s, salt, a, LEN), 0);
    assert_int_equal(session_len(s), 1);
    session_free(s);
    prefix_free(p);
    assert_int_equal(engine_pages_unused(g), PAGES);
    engine_free(g);
}

/* Two compute the same at the same time: in the end they hold the same pages. */
static void test_twice(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    struct prefix *p = new_prefix(g);
    struct session *s[2] = {new_session(g), new_session(g)};
    int32_t ids[LEN];
    some_ids(ids, LEN, 0);
    for (size_t n = 50; n <= 300; n += 50)
        for (int k = 0; k < 2; k++) {
            append(s[k], ids, n);
            prefix_note(p, s[k], salt, 0);
            prefix_note(p, s[k], salt, 0);
        }
    assert_int_equal(pages_of(p), 4);
    assert_int_equal(engine_pages_unused(g), PAGES - 4 - 2);
    /* In use: nothing to be had from the cache, until they are through. */
    assert_int_equal(prefix_room(p), PAGES - 6);
    assert_int_equal(prefix_evict(p, PAGES), PAGES - 6);
    session_free(s[0]);
    assert_int_equal(prefix_evict(p, PAGES), PAGES - 5);
    assert_int_equal(pages_of(p), 4);
    append(s[1], ids, LEN);
    session_free(s[1]);
    assert_int_equal(prefix_room(p), PAGES);
    assert_int_equal(prefix_find(p, salt, ids, LEN), 256);
    assert_int_equal(prefix_evict(p, PAGES), PAGES);
    assert_int_equal(pages_of(p), 0);
    prefix_free(p);
    engine_free(g);
}

static void test_eviction(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    struct prefix *p = new_prefix(g);
    int32_t a[LEN], b[LEN], c[LEN];
    some_ids(a, LEN, 0);
    some_ids(b, LEN, 1);
    memcpy(c, a, sizeof c);
    c[70] ^= 1; /* shares one page with a */
    compute(p, g, salt, a, 320);
    compute(p, g, salt, b, 320);
    compute(p, g, salt, c, 256);
    assert_int_equal(engine_pages_unused(g), PAGES - 13);
    assert_int_equal(prefix_evict(p, PAGES - 13), PAGES - 13);
    /* The oldest path from its end; what c shares with it is young. */
    assert_int_equal(prefix_evict(p, PAGES - 12), PAGES - 12);
    assert_int_equal(prefix_find(p, salt, a, LEN), 256);
    prefix_evict(p, PAGES - 9);
    assert_int_equal(prefix_find(p, salt, a, LEN), 64);
    assert_int_equal(prefix_find(p, salt, b, LEN), 320);
    assert_int_equal(prefix_find(p, salt, c, LEN), 256);
    prefix_evict(p, PAGES - 8);
    assert_int_equal(prefix_find(p, salt, b, LEN), 256);
    /* Use makes young: now c goes first, but not while a session is on it. */
    struct session *s = new_session(g), *t = new_session(g);
    assert_int_equal(prefix_attach(p, s, salt, c, 140), 128);
    assert_int_equal(prefix_attach(p, t, salt, b, 256), 192);
    session_free(t);
    prefix_evict(p, PAGES - 5);
    assert_int_equal(prefix_find(p, salt, c, LEN), 128);
    assert_int_equal(prefix_find(p, salt, b, LEN), 192);
    assert_int_equal(prefix_evict(p, PAGES), PAGES - 2);
    assert_int_equal(prefix_find(p, salt, c, LEN), 128);
    assert_int_equal(prefix_find(p, salt, b, LEN), 0);
    session_free(s);
    prefix_free(p);
    assert_int_equal(engine_pages_unused(g), PAGES);
    engine_free(g);
}

/* Many prompts of a few beginnings in a small cache, cut back and forked: always the bits of a
   session alone. */
static void test_crowd(void **state)
{
    enum { SESSIONS = 4, ROUNDS = 400, LONG = 200 };
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    struct engine *alone_g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    struct prefix *p = new_prefix(g);
    struct session *s[SESSIONS] = {0}, *alone = new_session(alone_g);
    size_t vocab = engine_info(g)->vocab, hits = 0;
    struct rng r;
    rng_init(&r, 5, 0);
    for (size_t round = 0; round < ROUNDS; round++) {
        struct err e = {0};
        size_t q = rng_u32(&r) % SESSIONS, n = 1 + rng_u32(&r) % LONG;
        int32_t ids[LONG];
        const uint64_t who[2] = {rng_u32(&r) % 2, 9};
        for (size_t i = 0; i < LONG; i++)
            ids[i] = (int32_t)(i * 7919 % 500);
        ids[0] = (int32_t)who[0];
        for (size_t i = 0; i < 3; i++) /* ways to part at some pages */
            ids[i * 60 + 5] = rng_u32(&r) % 8 == 0;
        session_free(s[q]);
        s[q] = new_session(g);
        hits += prefix_attach(p, s[q], who, ids, n) != 0;
        assert_true(prefix_room(p) >= session_need(s[q], n - session_len(s[q])));
        assert_true(prefix_evict(p, session_need(s[q], n - session_len(s[q]))) >=
                    session_need(s[q], n - session_len(s[q])));
        append(s[q], ids, n);
        prefix_note(p, s[q], who, 0);
        if (rng_u32(&r) % 4 == 0) {
            size_t cut = rng_u32(&r) % n;
            session_truncate(s[q], cut);
            for (size_t i = cut; i < n; i++)
                ids[i] = (int32_t)(rng_u32(&r) % 2);
            prefix_evict(p, session_need(s[q], n - cut));
            append(s[q], ids, n);
            prefix_note(p, s[q], who, 0);
        }
        if (session_feed(alone, ids, n, NULL, NULL, &e))
            fail_msg("%s", e.text);
        assert_memory_equal(session_logits(s[q]), session_logits(alone), vocab * sizeof(float));
        if (rng_u32(&r) % 4 == 0) {
            size_t k = (q + 1) % SESSIONS;
            session_free(s[k]);
            assert_int_equal(session_fork(&s[k], s[q], &e), 0);
        }
    }
    assert_true(hits > ROUNDS / 4);
    for (size_t q = 0; q < SESSIONS; q++)
        session_free(s[q]);
    session_free(alone);
    prefix_free(p);
    assert_int_equal(engine_pages_unused(g), PAGES);
    engine_free(g);
    engine_free(alone_g);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16, false, PAGES);
    for (size_t n = 1;; n++) {
        struct err e = {0};
        struct prefix *p = NULL;
        fail_alloc_at(n);
        int rc = prefix_new(&p, g, NULL, &e);
        bool failed = fail_alloc_stop();
        prefix_free(p);
        if (!failed)
            break;
        assert_int_equal(rc, ERR_NOMEM);
        assert_true(n < 20);
    }
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits),           cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_who_finds_what), cmocka_unit_test(test_twice),
        cmocka_unit_test(test_eviction),       cmocka_unit_test(test_crowd),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("engine/prefix", tests, NULL, NULL);
}
