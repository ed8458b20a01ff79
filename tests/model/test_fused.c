/*
 * Fused ops: the logits have the same bits whether ops run fused, apart under a tape that watches,
 * or apart under one that keeps; tapes see every op; and a block of a dense model takes at most
 * five parallel regions.
 */
#include "model/model.h"
#include "support/tiny_model.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 130, CTX = 256, VOCAB = 320, KINDS = OP_BLOCK + 1 };

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

struct loaded {
    struct source *src;
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct model *model;
    struct kv_pool *kv;
};

static void load(struct loaded *l, const struct tiny_model *m, bool fine, enum model_place place)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    struct model_load_opts o = {.place = place, .memory = SIZE_MAX};
    char path[] = "/tmp/ponder-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    memset(l, 0, sizeof *l);
    die(tiny_model_write(m, path, &e), &e);
    die(source_open(&l->src, path, &e), &e);
    unlink(path);
    kern_init(&l->kern, cpu_best());
    die(team_new(&l->team, 2, &e), &e);
    op_ctx_init(&l->ops, &l->kern, l->team);
    l->ops.fine = fine;
    die(model_check(l->src, &cfg, &e), &e);
    die(model_load(&l->model, l->src, &cfg, &l->ops, &o, &e), &e);
    model_kv_shape(l->model, &shape);
    shape.type = QUANT_F16;
    die(kv_pool_new(&l->kv, &shape, CTX / KV_PAGE, &e), &e);
    die(op_ctx_reserve(&l->ops, 512 << 20, &e), &e);
}

static void unload(struct loaded *l)
{
    kv_pool_free(l->kv);
    model_free(l->model);
    op_ctx_release(&l->ops);
    team_free(l->team);
    source_free(l->src);
}

/* Feeds n tokens of a new sequence at once; all logits to `out` (may be NULL). */
static void score(struct loaded *l, size_t n, float *out)
{
    struct err e = {0};
    struct kv_seq seq;
    int32_t ids[TOKENS];
    uint32_t pos[TOKENS], want[TOKENS];
    die(kv_seq_init(&seq, l->kv, CTX, &e), &e);
    die(kv_seq_reserve(&seq, 0, 0, n, &e), &e);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int32_t)(i * 7919 % VOCAB);
        pos[i] = want[i] = (uint32_t)i;
    }
    struct batch_run run = {.seq = &seq, .n = n};
    struct batch b = {
        .n = n, .ids = ids, .pos = pos, .want = want, .n_want = n, .runs = &run, .n_runs = 1};
    /* What a dry run says must be enough, with a tape that watches too. */
    struct op_ctx dry = l->ops;
    if (!l->ops.tape || !l->ops.tape->keep) {
        dry.dry = true;
        dry.tape = NULL;
        dry.used = dry.peak = 0;
        model_forward(l->model, &dry, &b);
        l->ops.peak = 0;
    }
    l->ops.used = 0;
    struct tensor y = model_forward(l->model, &l->ops, &b);
    if (dry.dry)
        assert_true(l->ops.peak <= dry.peak);
    if (out)
        memcpy(out, y.data, n * VOCAB * sizeof *out);
    l->ops.used = 0;
    kv_seq_release(&seq);
}

static void count_kind(void *arg, const struct op_record *r)
{
    ((size_t *)arg)[r->kind]++;
}

/* A tape that keeps sees gate and up as products of their own. */
static void check_kinds(const size_t kinds[KINDS], size_t layers, bool norms, bool keep)
{
    assert_int_equal(kinds[OP_EMBED], 1);
    assert_int_equal(kinds[OP_RMSNORM], 2 * layers + 1);
    assert_int_equal(kinds[OP_HEAD_NORM], norms ? 2 * layers : 0);
    assert_int_equal(kinds[OP_LINEAR], (keep ? 7 : 5) * layers + 1);
    assert_int_equal(kinds[OP_ROPE], 2 * layers);
    assert_int_equal(kinds[OP_ATTENTION], layers);
    assert_int_equal(kinds[keep ? OP_GLU : OP_SWIGLU], layers);
    assert_int_equal(kinds[OP_ADD], 2 * layers);
}

static void check_bits(const char *arch, const enum quant_id *types, size_t n_types)
{
    static const size_t sizes[] = {1, 40, TOKENS};
    static float fused[TOKENS * VOCAB], apart[TOKENS * VOCAB];
    struct tiny_model m;
    tiny_model_init(&m);
    m.arch = arch;
    if (types) {
        m.types = types;
        m.n_types = n_types;
    }
    for (int how = 0; how < 3; how++) {
        struct loaded l;
        load(&l, &m, how == 1, how == 2 ? MODEL_MAPPED : MODEL_PACKED);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            size_t n = sizes[i], kinds[KINDS];
            score(&l, n, fused);
            for (int keep = 0; keep < 2; keep++) {
                struct op_tape tape = {.record = count_kind, .arg = kinds, .keep = keep};
                memset(kinds, 0, sizeof kinds);
                l.ops.tape = &tape;
                score(&l, n, apart);
                l.ops.tape = NULL;
                check_kinds(kinds, m.n_layer, !strcmp(arch, "qwen3"), keep);
                assert_memory_equal(fused, apart, n * VOCAB * sizeof *fused);
            }
        }
        unload(&l);
    }
}

static void fused_and_apart_have_the_same_bits(void **state)
{
    static const enum quant_id per32[] = {QUANT_Q4_0, QUANT_Q8_0}, per256[] = {QUANT_Q4_K},
                               floats[] = {QUANT_F16, QUANT_BF16}, none[] = {QUANT_NVFP4};
    check_bits("llama", NULL, 0);
    check_bits("qwen2", per32, 2);
    check_bits("qwen3", per256, 1);
    check_bits("llama", floats, 2);
    check_bits("llama", none, 1);
}

static uint64_t regions(size_t layers, size_t tokens, enum quant_id type)
{
    struct tiny_model m;
    struct loaded l;
    tiny_model_init(&m);
    m.n_layer = layers;
    m.types = &type;
    m.n_types = 1;
    load(&l, &m, false, MODEL_PACKED);
    uint64_t before = team_regions(l.team);
    score(&l, tokens, NULL);
    uint64_t n = team_regions(l.team) - before;
    unload(&l);
    return n;
}

static void a_block_takes_at_most_five_regions(void **state)
{
    static const enum quant_id types[] = {QUANT_Q4_0, QUANT_Q4_K, QUANT_BF16, QUANT_F32};
    static const size_t tokens[] = {1, 8, 40, TOKENS};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
            uint64_t two = regions(2, tokens[i], types[t]), six = regions(6, tokens[i], types[t]);
            assert_in_range(six - two, 4 * 4, 4 * 5); /* four is what products alone take */
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_and_apart_have_the_same_bits),
        cmocka_unit_test(a_block_takes_at_most_five_regions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
