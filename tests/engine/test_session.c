/* Opening models and the timeline of a session: reuse, cutting back, limits, errors with words. */
#include "base/num.h"
#include "engine/engine.h"
#include "support/fail_alloc.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N = 100, CTX = 256 };

static struct engine *open_model(const char *name, enum quant_id kv)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = CTX;
    o.batch = 24;
    o.kv_type = kv;
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

static void some_ids(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + 3) % 500);
}

static void test_facts(void **state)
{
    (void)state;
    struct engine *g = open_model("llama_rope_llama3", QUANT_F16);
    const struct engine_info *i = engine_info(g);
    assert_string_equal(i->arch, "llama");
    assert_string_equal(i->name, "llama_rope_llama3");
    assert_string_equal(i->file_type, "BF16");
    assert_int_equal(i->vocab, 512);
    assert_int_equal(i->ctx, CTX);
    assert_int_equal(i->ctx_train, 512);
    assert_int_equal(i->layers, 3);
    assert_int_equal(i->kv_token_bytes, 3 * 1 * (16 + 16) * 2);
    assert_true(i->params > 100000 && i->params < 400000);
    assert_non_null(engine_tokenizer(g));
    assert_non_null(engine_chat(g));
    engine_free(g);
    /* A folder without a tokenizer computes logits all the same. */
    g = open_model("qwen2_untied", QUANT_F32);
    assert_null(engine_tokenizer(g));
    engine_free(g);
}

static void test_timeline(void **state)
{
    (void)state;
    struct engine *g = open_model("llama_rope_llama3", QUANT_F16);
    struct session *a = new_session(g), *b = new_session(g);
    struct err e = {0};
    int32_t ids[N];
    float *all = malloc(N * 512 * sizeof *all);
    some_ids(ids, N);
    assert_null(session_logits(a));
    assert_int_equal(session_append_all(b, ids, N, all, &e), 0);
    /* Prefill in chunks, then a longer prompt with the same beginning. */
    assert_int_equal(session_feed(a, ids, 60, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(a), 0);
    assert_memory_equal(session_logits(a), all + 59 * 512, 512 * sizeof *all);
    assert_int_equal(session_feed(a, ids, N, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(a), 60);
    assert_memory_equal(session_logits(a), all + 99 * 512, 512 * sizeof *all);
    /* The same prompt again costs nothing, and has its logits. */
    assert_int_equal(session_feed(a, ids, N, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(a), N);
    /* Another ending: the common part stays. */
    int32_t other[80];
    memcpy(other, ids, sizeof other);
    other[70] = 1;
    assert_int_equal(session_feed(a, other, 80, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(a), 70);
    /* Cut back and go on token by token: the bits of the first time. */
    assert_int_equal(session_feed(a, ids, 70, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(a), 69);
    for (size_t i = 70; i < N; i++) {
        assert_int_equal(session_append(a, ids + i, 1, &e), 0);
        assert_memory_equal(session_logits(a), all + i * 512, 512 * sizeof *all);
    }
    assert_int_equal(session_len(a), N);
    assert_memory_equal(session_ids(a), ids, sizeof ids);
    session_truncate(a, 10);
    assert_int_equal(session_len(a), 10);
    assert_null(session_logits(a));
    free(all);
    session_free(a);
    session_free(b);
    engine_free(g);
}

static void test_limits(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16);
    struct session *s = new_session(g);
    struct err e = {0};
    int32_t ids[CTX + 1] = {0};
    assert_int_equal(session_feed(s, ids, 0, NULL, NULL, &e), ERR_USAGE);
    assert_int_equal(session_feed(s, ids, CTX + 1, NULL, NULL, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "257"));
    assert_non_null(strstr(e.text, "--ctx"));
    assert_int_equal(session_feed(s, ids, CTX, NULL, NULL, &e), 0);
    assert_int_equal(session_append(s, ids, 1, &e), ERR_LIMIT);
    assert_int_equal(session_len(s), CTX);
    ids[3] = 100000;
    assert_int_equal(session_feed(s, ids, 10, NULL, NULL, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "100000"));
    ids[3] = -1;
    assert_int_equal(session_feed(s, ids, 10, NULL, NULL, &e), ERR_FORMAT);
    /* After an error the timeline still works. */
    ids[3] = 0;
    assert_int_equal(session_feed(s, ids, 10, NULL, NULL, &e), 0);
    session_free(s);
    engine_free(g);
}

struct scored {
    float rows[N * 512];
    size_t seen[N];
    int workers;
};

static void score_row(void *arg, size_t i, const float *logits, int worker)
{
    struct scored *s = arg;
    assert_true(worker >= 0 && worker < s->workers);
    s->seen[i]++;
    memcpy(s->rows + i * 512, logits, 512 * sizeof *logits);
}

/* Scoring gives the same bits, each wanted row once, whatever the groups. */
static void test_score(void **state)
{
    (void)state;
    static struct scored got;
    struct engine *g = open_model("llama_rope_llama3", QUANT_F16);
    struct session *s = new_session(g);
    struct err e = {0};
    int32_t ids[N];
    float *all = malloc(N * 512 * sizeof *all);
    some_ids(ids, N);
    assert_int_equal(session_append_all(s, ids, N, all, &e), 0);
    for (size_t from = 0; from <= N; from += 50) {
        memset(&got, 0, sizeof got);
        got.workers = engine_info(g)->threads;
        session_truncate(s, 0);
        assert_int_equal(session_score(s, ids, N, from, score_row, &got, &e), 0);
        assert_int_equal(session_len(s), N);
        for (size_t i = 0; i < N; i++)
            assert_int_equal(got.seen[i], i >= from);
        assert_memory_equal(got.rows + from * 512, all + from * 512,
                            (N - from) * 512 * sizeof *all);
    }
    ids[N - 1] = 512;
    session_truncate(s, 0);
    assert_int_equal(session_score(s, ids, N, 0, score_row, &got, &e), ERR_FORMAT);
    free(all);
    session_free(s);
    engine_free(g);
}

struct seen_input {
    size_t q, gate, up, down, head, rows;
    float first[64];
};

static void see_input(void *arg, const struct engine_input *in)
{
    struct seen_input *s = arg;
    assert_int_equal(in->mats, 1);
    assert_int_equal(in->mat, 0);
    s->q += !strcmp(in->name, "blk.2.attn_q.weight");
    s->gate += !strcmp(in->name, "blk.0.ffn_gate.weight");
    s->up += !strcmp(in->name, "blk.0.ffn_up.weight");
    s->down += !strcmp(in->name, "blk.1.ffn_down.weight");
    s->head += !strcmp(in->name, "token_embd.weight") || !strcmp(in->name, "output.weight");
    if (!strcmp(in->name, "blk.0.attn_q.weight")) {
        s->rows += in->rows;
        memcpy(s->first, in->x, num_min(in->cols, 64) * sizeof(float));
    }
}

static void test_observe(void **state)
{
    static const char *const models[] = {"llama_rope_llama3", "qwen2_tied", "qwen2_untied"};
    (void)state;
    for (size_t m = 0; m < NUM_COUNT(models); m++) {
        struct engine *g = open_model(models[m], QUANT_F16);
        struct session *s = new_session(g);
        struct seen_input seen = {0};
        struct err e = {0};
        int32_t ids[N];
        some_ids(ids, N);
        float plain[512];
        assert_int_equal(session_append(s, ids, N, &e), 0);
        memcpy(plain, session_logits(s), sizeof plain);
        session_truncate(s, 0);
        engine_observe(g, see_input, &seen);
        assert_int_equal(session_append(s, ids, N, &e), 0);
        assert_memory_equal(session_logits(s), plain, sizeof plain);
        engine_observe(g, NULL, NULL);
        session_truncate(s, 0);
        assert_int_equal(session_append(s, ids, N, &e), 0);
        size_t batches = (N + 23) / 24;
        assert_int_equal(seen.rows, N);
        assert_int_equal(seen.gate, batches);
        assert_int_equal(seen.up, batches);
        assert_int_equal(seen.down, batches);
        assert_int_equal(seen.head, 1); /* only where logits were wanted */
        assert_true(seen.first[0] != 0);
        session_free(s);
        engine_free(g);
    }
}

struct seen_names {
    size_t calls, odd;
};

static void see_name(void *arg, const struct engine_input *in)
{
    struct seen_names *s = arg;
    s->calls++;
    s->odd += strncmp(in->name, "blk.", 4) != 0 && strcmp(in->name, "output.weight") != 0;
}

/* Who watches sees the model's matrices, not those of an adapter beside them. */
static void test_observe_adapter(void **state)
{
    (void)state;
    struct seen_names seen[2] = {{0}};
    for (int i = 0; i < 2; i++) {
        struct engine_opts o;
        struct engine *g;
        struct err e = {0};
        int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
        engine_opts_init(&o);
        o.threads = 2;
        o.ctx = 64;
        o.adapter = i ? GOLDEN_DIR "/lora/llama/adapter" : NULL;
        if (engine_open(&g, GOLDEN_DIR "/lora/llama", &o, &e))
            fail_msg("%s", e.text);
        struct session *s = new_session(g);
        engine_observe(g, see_name, &seen[i]);
        assert_int_equal(session_append(s, ids, 8, &e), 0);
        session_free(s);
        engine_free(g);
    }
    assert_true(seen[0].calls > 0);
    assert_int_equal(seen[0].calls, seen[1].calls);
    assert_int_equal(seen[1].odd, 0);
}

/* The two forms of latent attention need different memory: short last chunks have theirs too. */
static void test_mixed_forms(void **state)
{
    (void)state;
    for (int threads = 1; threads <= 16; threads += 15) {
        struct engine_opts o;
        struct engine *g;
        struct err e = {0};
        int32_t ids[127];
        engine_opts_init(&o);
        o.threads = threads;
        o.ctx = 128;
        o.batch = 64;
        o.mla_expanded = true;
        if (engine_open(&g, GOLDEN_DIR "/models/dsv2_lite_greedy", &o, &e))
            fail_msg("%s", e.text);
        struct session *s = new_session(g);
        for (size_t i = 0; i < 127; i++)
            ids[i] = (int32_t)i;
        for (size_t n = 65; n <= 127; n++) {
            session_truncate(s, 0);
            if (session_append(s, ids, n, &e))
                fail_msg("%s", e.text);
        }
        session_free(s);
        engine_free(g);
    }
}

static void test_fingerprint(void **state)
{
    (void)state;
    struct engine *a = open_model("qwen2_tied", QUANT_F16),
                  *b = open_model("qwen2_tied", QUANT_F32),
                  *c = open_model("qwen2_untied", QUANT_F16);
    assert_true(engine_fingerprint(a) == engine_fingerprint(b));
    assert_true(engine_fingerprint(a) != engine_fingerprint(c));
    engine_free(a);
    engine_free(b);
    engine_free(c);
}

static bool stop_early(void *arg, size_t done, size_t total)
{
    assert_true(done < total);
    return ++*(int *)arg < 2;
}

static struct session *open_golden(struct engine **g, bool mtp)
{
    struct engine_opts o;
    struct err e = {0};
    struct session *s;
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = 256;
    o.mtp = mtp;
    if (engine_open(g, GOLDEN_DIR "/models/dsv3_qlora_yarn_mtp", &o, &e) || session_new(&s, *g, &e))
        fail_msg("%s", e.text);
    return s;
}

static size_t best_of(const float *row, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (row[i] > row[best])
            best = i;
    return best;
}

/* An engine for several sessions of a short context. */
static struct engine *open_shared(const char *name, bool mtp, size_t cache)
{
    struct engine_opts o;
    struct engine *g;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = 2;
    o.ctx = 128;
    o.batch = 24;
    o.want = 5;
    o.cache = cache;
    o.mtp = mtp;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

/*
 * Sessions that step together have the logits of sessions that run alone: some decode, one is in
 * its prompt, one checks guesses, and none cares in which order they stand.
 */
static void check_steps(const char *name, bool mtp)
{
    enum { SESSIONS = 5, STEPS = 30 };
    struct engine *g = open_shared(name, mtp, SESSIONS * 128), *alone_g = open_shared(name, mtp, 0);
    struct session *s[SESSIONS], *alone = new_session(alone_g);
    struct err e = {0};
    size_t vocab = engine_info(g)->vocab, at[SESSIONS];
    int32_t ids[SESSIONS][128];
    float *row = malloc(SESSIONS * 128 * vocab * sizeof *row);
    assert_non_null(row);
    for (size_t q = 0; q < SESSIONS; q++) {
        for (size_t i = 0; i < 128; i++)
            ids[q][i] = (int32_t)((i * (q + 3) * 7919 + q) % vocab);
        session_truncate(alone, 0);
        assert_int_equal(session_append_all(alone, ids[q], 128, row + q * 128 * vocab, &e), 0);
        s[q] = new_session(g);
        at[q] = 40 * q / (SESSIONS - 1); /* 0 to 40 */
        assert_int_equal(session_append(s[q], ids[q], at[q], &e), 0);
    }
    for (size_t step = 0; step < STEPS; step++) {
        struct session_part p[SESSIONS];
        size_t n = 0, who[SESSIONS];
        for (size_t k = 0; k < SESSIONS; k++) {
            size_t q = (k + step) % SESSIONS, len = q == 1 ? 3 : q == 2 && step < 10 ? 7 : 1;
            if (at[q] + len > 128 || (q == 4 && step % 3 == 0))
                continue;
            who[n] = q;
            p[n++] = (struct session_part){.s = s[q],
                                           .ids = ids[q] + at[q],
                                           .n = len,
                                           .want = q == 1 ? 2 : q != 2 || step > 8};
            at[q] += len;
        }
        /* The five rows of logits that the engine has are enough for one session less. */
        if (n == SESSIONS) {
            n--;
            at[who[n]] -= p[n].n;
        }
        assert_int_equal(engine_step(g, p, n, &e), 0);
        for (size_t k = 0; k < n; k++) {
            const float *want = row + (who[k] * 128 + at[who[k]] - p[k].want) * vocab;
            assert_int_equal(session_len(p[k].s), at[who[k]]);
            if (!p[k].want) {
                assert_null(p[k].logits);
                assert_null(session_logits(p[k].s));
                continue;
            }
            assert_memory_equal(p[k].logits, want, p[k].want * vocab * sizeof *row);
            assert_memory_equal(session_logits(p[k].s), want + (p[k].want - 1) * vocab,
                                vocab * sizeof *row);
        }
        /* One goes on alone in between, drafting where it can. */
        assert_int_equal(session_append(s[0], ids[0] + at[0], 1, &e), 0);
        assert_memory_equal(session_logits(s[0]), row + at[0] * vocab, vocab * sizeof *row);
        at[0]++;
        /* Those that others computed after keep theirs. */
        for (size_t q = 0; q < SESSIONS; q++)
            if (session_logits(s[q]))
                assert_memory_equal(session_logits(s[q]), row + (q * 128 + at[q] - 1) * vocab,
                                    vocab * sizeof *row);
    }
    assert_non_null(session_logits(s[3]));
    for (size_t q = 0; q < SESSIONS; q++)
        session_free(s[q]);
    session_free(alone);
    free(row);
    engine_free(g);
    engine_free(alone_g);
}

static void test_step(void **state)
{
    (void)state;
    check_steps("llama_rope_llama3", false);
    check_steps("dsv3_qlora_yarn_mtp", false);
    check_steps("dsv3_qlora_yarn_mtp", true);
}

/* What is impossible is refused in words, and changes no session. */
static void test_step_refused(void **state)
{
    (void)state;
    struct engine *g = open_shared("qwen2_tied", false, 192),
                  *other = open_shared("qwen2_tied", false, 0);
    struct session *a = new_session(g), *b = new_session(g), *c = new_session(g);
    struct session *far = new_session(other);
    struct err e = {0};
    int32_t ids[128] = {0}, bad[2] = {0, 100000};
    assert_int_equal(engine_info(g)->want, 5);
    assert_int_equal(engine_info(g)->step, 24);
    assert_int_equal(engine_info(g)->cache, 192);
    assert_int_equal(engine_step(g, NULL, 0, &e), ERR_USAGE);
    struct session_part p[6] = {{.s = a, .ids = ids, .n = 1, .want = 1},
                                {.s = a, .ids = ids, .n = 1, .want = 1}};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_USAGE); /* the same session twice */
    p[1].s = far;
    assert_int_equal(engine_step(g, p, 2, &e), ERR_USAGE);
    p[1] = (struct session_part){.s = b, .ids = ids, .n = 0};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_USAGE);
    p[1] = (struct session_part){.s = b, .ids = ids, .n = 2, .want = 3};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_USAGE);
    p[1] = (struct session_part){.s = b, .ids = ids, .n = 24, .want = 1};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_LIMIT); /* 25 tokens */
    assert_non_null(strstr(e.text, "24"));
    p[1] = (struct session_part){.s = b, .ids = ids, .n = 5, .want = 5};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_LIMIT); /* 6 rows */
    p[1] = (struct session_part){.s = b, .ids = bad, .n = 2, .want = 1};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_FORMAT);
    assert_int_equal(session_len(a), 0);
    /* Three pages: with a at 64 and b at 128 there is room for neither, so for none of both. */
    assert_int_equal(session_append(a, ids, 64, &e), 0);
    assert_int_equal(session_append(b, ids, 128, &e), 0);
    p[1] = (struct session_part){.s = c, .ids = ids, .n = 1, .want = 1};
    assert_int_equal(engine_step(g, p, 2, &e), ERR_LIMIT);
    assert_int_equal(session_len(a), 64);
    assert_non_null(session_logits(a));
    session_truncate(b, 64);
    assert_int_equal(engine_step(g, p, 2, &e), ERR_LIMIT); /* one page, two want it */
    assert_int_equal(engine_step(g, p, 1, &e), 0);
    assert_int_equal(session_len(a), 65);
    session_free(a);
    session_free(b);
    session_free(c);
    session_free(far);
    engine_free(g);
    engine_free(other);
}

/* A guess never takes room that is not there: pages of another session, the context's end. */
static void test_drafts_full(void **state)
{
    (void)state;
    struct engine *g;
    struct session *other, *s = open_golden(&g, true);
    struct err e = {0};
    int32_t ids[CTX];
    size_t vocab = engine_info(g)->vocab;
    for (size_t i = 0; i < CTX; i++)
        ids[i] = (int32_t)(7 * i % vocab);
    assert_int_equal(session_new(&other, g, &e), 0);
    assert_int_equal(session_append(other, ids, CTX - 64, &e), 0);
    assert_int_equal(session_append(s, ids, 50, &e), 0);
    for (size_t n = 50; n < 64; n++) /* one page is left */
        if (session_append(s, ids + n, 1, &e))
            fail_msg("%zu: %s", n, e.text);
    assert_int_equal(session_append(s, ids + 64, 1, &e), ERR_LIMIT);
    session_free(other);
    for (size_t n = 64; n < CTX; n++)
        if (session_append(s, ids + n, 1, &e))
            fail_msg("%zu: %s", n, e.text);
    assert_int_equal(session_append(s, ids, 1, &e), ERR_LIMIT);
    session_free(s);
    engine_free(g);
}

/*
 * A session that drafts has the logits of one that does not, whether drafts are right or wrong.
 * Right ones are had by appending what the prediction layer says.
 */
static void test_drafts(void **state)
{
    (void)state;
    enum { PROMPT = 20, STEPS = 40 };
    struct engine *plain_g, *draft_g;
    struct session *plain = open_golden(&plain_g, false), *draft = open_golden(&draft_g, true);
    struct session *look;
    struct err e = {0};
    int32_t ids[PROMPT + STEPS];
    size_t vocab = engine_info(plain_g)->vocab;
    uint64_t drafted, accepted;
    float *rows = malloc((PROMPT + STEPS) * vocab * sizeof *rows);
    assert_non_null(rows);
    for (size_t i = 0; i < PROMPT; i++)
        ids[i] = (int32_t)(7 * i % vocab);
    assert_int_equal(session_feed(plain, ids, PROMPT, NULL, NULL, &e), 0);
    assert_int_equal(session_feed(draft, ids, PROMPT, NULL, NULL, &e), 0);
    for (size_t n = PROMPT; n < PROMPT + STEPS; n++) {
        assert_int_equal(session_new(&look, draft_g, &e), 0);
        assert_int_equal(session_mtp_all(look, ids, n, 64, rows, &e), 0);
        session_free(look);
        /* Every third token is another one than the layer says. */
        ids[n] = (int32_t)best_of(rows + (n - 2) * vocab, vocab);
        if (n % 3 == 0)
            ids[n] = (int32_t)(((size_t)ids[n] + 1) % vocab);
        assert_int_equal(session_append(plain, ids + n, 1, &e), 0);
        assert_int_equal(session_append(draft, ids + n, 1, &e), 0);
        assert_memory_equal(session_logits(plain), session_logits(draft), vocab * sizeof *rows);
        if (n == PROMPT + STEPS / 2) { /* going back and on, as a new turn does */
            assert_int_equal(session_feed(plain, ids, n - 3, NULL, NULL, &e), 0);
            assert_int_equal(session_feed(draft, ids, n - 3, NULL, NULL, &e), 0);
            assert_int_equal(session_feed(plain, ids, n + 1, NULL, NULL, &e), 0);
            assert_int_equal(session_feed(draft, ids, n + 1, NULL, NULL, &e), 0);
            assert_memory_equal(session_logits(plain), session_logits(draft), vocab * sizeof *rows);
        }
    }
    session_drafts(draft, &drafted, &accepted);
    assert_in_range(accepted, 8, STEPS / 2);
    assert_in_range(drafted, accepted, STEPS);
    free(rows);
    session_free(plain);
    session_free(draft);
    engine_free(plain_g);
    engine_free(draft_g);
}

static void test_cancel(void **state)
{
    (void)state;
    struct engine *g = open_model("qwen2_tied", QUANT_F16);
    struct session *s = new_session(g);
    struct err e = {0};
    int32_t ids[N];
    int calls = 0;
    some_ids(ids, N);
    assert_int_equal(session_feed(s, ids, N, stop_early, &calls, &e), ERR_CANCELLED);
    assert_int_equal(calls, 2);
    assert_int_equal(session_len(s), 48);
    assert_int_equal(session_feed(s, ids, N, NULL, NULL, &e), 0);
    assert_int_equal(session_reused(s), 48);
    session_free(s);
    engine_free(g);
}

static void refuse(const char *path, const char *kv, const char *word)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    engine_opts_init(&o);
    if (kv)
        o.kv_type = quant_by_name(kv)->id;
    assert_int_not_equal(engine_open(&g, path, &o, &e), 0);
    assert_null(g);
    if (!strstr(e.text, word))
        fail_msg("\"%s\" does not say \"%s\"", e.text, word);
}

static void test_refused(void **state)
{
    (void)state;
    refuse("/nowhere/model.gguf", NULL, "/nowhere/model.gguf");
    refuse("/", NULL, "no model");
    refuse("/dev/null", NULL, "/dev/null");
    refuse(GOLDEN_DIR "/models/qwen2_tied", "Q4_0", "q8_0");
}

/* A model folder of links to a golden one, with its own advice on sampling. */
static void advise(const char *dir, const char *advice)
{
    static const char *const names[] = {"config.json", "model.safetensors"};
    char path[600], target[600];
    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        snprintf(target, sizeof target, "%s/models/qwen2_untied/%s", GOLDEN_DIR, names[i]);
        unlink(path);
        if (advice)
            assert_int_equal(symlink(target, path), 0);
    }
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    unlink(path);
    if (!advice)
        return;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(advice, f);
    fclose(f);
}

/* What the folder advises; the line of the log, if any, is in `said`. */
static struct sampler_params advised(const char *dir, const char *advice, char *said, size_t cap)
{
    struct log log = {tmpfile(), LOG_WARN};
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    struct sampler_params p;
    engine_opts_init(&o);
    o.threads = 1;
    o.ctx = 64;
    o.log = &log;
    advise(dir, advice);
    if (engine_open(&g, dir, &o, &e))
        fail_msg("%s", e.text);
    engine_sampling(g, &p);
    engine_free(g);
    rewind(log.out);
    said[fread(said, 1, cap - 1, log.out)] = 0;
    fclose(log.out);
    return p;
}

static void test_sampling(void **state)
{
    (void)state;
    char dir[] = "/tmp/ponder-session.XXXXXX", said[512];
    assert_non_null(mkdtemp(dir));
    struct sampler_params p =
        advised(dir, "{\"temperature\": 0.25, \"top_p\": 0.5, \"top_k\": 7}", said, sizeof said);
    assert_string_equal(said, "");
    assert_true(p.temperature == 0.25f && p.top_p == 0.5f && p.top_k == 7);
    /* Silent files are no advice; nonsense is passed over, in words. */
    static const struct {
        const char *text, *word;
    } rows[] = {
        {"{\"do_sample\": true}", ""},
        {"{\"temperature\": 0.25", "not valid JSON"},
        {"[1]", "expected a JSON object"},
        {"{\"temperature\": -1}", "temperature is -1"},
        {"{\"temperature\": 1e300}", "temperature is inf"},
        {"{\"temperature\": 1, \"top_k\": -1e300}", "top_k is -2147483647"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        p = advised(dir, rows[i].text, said, sizeof said);
        assert_true(p.temperature == 0.8f && p.top_p == 0.9f && p.top_k == 40);
        if (!strstr(said, rows[i].word) || (!*rows[i].word && *said))
            fail_msg("%s: said \"%s\"", rows[i].text, said);
    }
    advise(dir, NULL);
    assert_int_equal(rmdir(dir), 0);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct engine_opts o;
    engine_opts_init(&o);
    o.threads = 1;
    o.ctx = 64;
    /* Every 7th is enough: the tokenizer alone takes hundreds. */
    for (size_t n = 1;; n += n < 50 ? 1 : 7) {
        struct engine *g = NULL;
        struct session *s = NULL;
        struct err e = {0};
        fail_alloc_at(n);
        int rc = engine_open(&g, GOLDEN_DIR "/models/qwen2_tied", &o, &e);
        if (!rc)
            rc = session_new(&s, g, &e);
        bool failed = fail_alloc_stop();
        session_free(s);
        engine_free(g);
        if (!failed)
            break;
        /* A failure may be harmless (a cache, advice), but never silent and wrong. */
        if (rc)
            assert_true(strlen(e.text) > 0);
        assert_true(n < 20000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_timeline),
        cmocka_unit_test(test_score),
        cmocka_unit_test(test_observe),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_observe_adapter),
        cmocka_unit_test(test_mixed_forms),
        cmocka_unit_test(test_drafts_full),
        cmocka_unit_test(test_drafts),
        cmocka_unit_test(test_step),
        cmocka_unit_test(test_step_refused),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_sampling),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("engine/session", tests, NULL, NULL);
}
