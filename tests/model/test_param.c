/*
 * Models loaded to be trained: they compute the bits of the same weights loaded as F32, every
 * weight is told once under its Hugging Face name with the values of that tensor, all of a tensor's
 * parts together fill it, and a changed value shows in the logits.
 */
#include "model/arch.h"
#include "support/golden.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40 };

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

struct loaded {
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct model *model;
    struct kv_pool *kv;
};

static void load_as(struct loaded *l, const char *name, bool train, bool bf16)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    char path[512];
    memset(l, 0, sizeof *l);
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    kern_init(&l->kern, cpu_best());
    if (!bf16)
        kern_float(&l->kern);
    die(team_new(&l->team, 2, &e), &e);
    op_ctx_init(&l->ops, &l->kern, l->team);
    die(source_open(&l->src, path, &e), &e);
    die(model_check(l->src, &cfg, &e), &e);
    struct model_load_opts o = {
        .place = MODEL_PACKED, .mtp = cfg.n_mtp != 0, .train = train, .bf16 = bf16};
    die(model_load(&l->model, l->src, &cfg, &l->ops, &o, &e), &e);
    model_kv_shape(l->model, &shape);
    shape.type = QUANT_F32;
    die(kv_pool_new(&l->kv, &shape, 1, &e), &e);
    die(op_ctx_reserve(&l->ops, 64 << 20, &e), &e);
}

static void load(struct loaded *l, const char *name, bool train)
{
    load_as(l, name, train, false);
}

static void unload(struct loaded *l)
{
    kv_pool_free(l->kv);
    model_free(l->model);
    source_free(l->src);
    op_ctx_release(&l->ops);
    team_free(l->team);
}

/* All logits of a few tokens; the caller frees them. */
static float *logits(struct loaded *l, size_t *bytes)
{
    struct err e = {0};
    struct kv_seq seq;
    int32_t ids[TOKENS];
    uint32_t pos[TOKENS];
    die(kv_seq_init(&seq, l->kv, KV_PAGE, &e), &e);
    die(kv_seq_reserve(&seq, 0, 0, TOKENS, &e), &e);
    for (size_t i = 0; i < TOKENS; i++) {
        ids[i] = (int32_t)(i * 7919 % model_config(l->model)->n_vocab);
        pos[i] = (uint32_t)i;
    }
    struct batch_run run = {.seq = &seq, .n = TOKENS};
    struct batch b = {.n = TOKENS,
                      .ids = ids,
                      .pos = pos,
                      .want = pos,
                      .n_want = TOKENS,
                      .runs = &run,
                      .n_runs = 1};
    l->ops.used = 0;
    struct tensor y = model_forward(l->model, &l->ops, &b);
    *bytes = y.rows * y.cols * sizeof(float);
    float *out = malloc(*bytes);
    assert_non_null(out);
    memcpy(out, y.data, *bytes);
    kv_seq_release(&seq);
    return out;
}

struct walk {
    const struct loaded *l;
    char name[160]; /* the tensor whose parts come now */
    float *tensor;  /* and what they have filled: NaN elsewhere */
    size_t n, params, tensors, shared;
};

/* The tensor is full, and holds what the file has. */
static void check_tensor(struct walk *w)
{
    const struct source_tensor *t = source_tensor(w->l->src, w->name);
    if (!w->n)
        return;
    if (!t)
        fail_msg("the file has no tensor %s", w->name);
    size_t cols = (size_t)t->shape[t->dims - 1];
    uint8_t *row = malloc(source_row_bytes(t));
    float *want = malloc(cols * sizeof *want);
    assert_non_null(row);
    assert_non_null(want);
    assert_int_equal(w->n % cols, 0);
    for (size_t r = 0; r < w->n / cols; r++) {
        source_rows(t, r, 1, row, source_row_bytes(t));
        t->type->decode(want, row, cols);
        if (memcmp(want, w->tensor + r * cols, cols * sizeof *want) != 0)
            fail_msg("%s: row %zu differs", w->name, r);
    }
    free(want);
    free(row);
    w->tensors++;
}

static int see(void *arg, const struct model_param *p)
{
    struct walk *w = arg;
    const struct weight *v = p->weight;
    assert_non_null(v->own);
    w->params++;
    if (p->same) {
        assert_ptr_equal(p->same->own, v->own);
        w->shared++;
        return 0;
    }
    if (strcmp(w->name, p->name) != 0) {
        check_tensor(w);
        memcpy(w->name, p->name, sizeof w->name);
        w->n = (p->rows ? p->rows : 1) * p->cols;
        w->tensor = realloc(w->tensor, w->n * sizeof(float));
        assert_non_null(w->tensor);
        memset(w->tensor, 0xff, w->n * sizeof(float));
    }
    model_param_to_rows(p, v->own, w->tensor);
    size_t n = weight_values(v);
    float *back = calloc(n, sizeof *back);
    assert_non_null(back);
    model_param_from_rows(p, w->tensor, back);
    assert_memory_equal(back, v->own, n * sizeof *back);
    free(back);
    return 0;
}

static void test_params(void **state)
{
    struct loaded plain, l;
    size_t bytes, again;
    load(&plain, *state, false);
    load(&l, *state, true);
    float *want = logits(&plain, &bytes), *got = logits(&l, &again);
    assert_int_equal(bytes, again);
    assert_memory_equal(want, got, bytes);
    struct walk w = {.l = &l};
    assert_int_equal(model_params_each(l.model, see, &w), 0);
    check_tensor(&w);
    assert_true(w.params > 10 && w.tensors > 10);
    assert_int_equal(w.shared > 0, model_config(l.model)->tied || model_config(l.model)->n_mtp);
    free(got);
    struct weight *embed = &l.model->top.embed;
    for (size_t i = 0; i < embed->cols * KERN_ROWS; i++) /* rows 0 to 15: token 0 is there */
        embed->own[i] += 0.25f;
    got = logits(&l, &bytes);
    assert_memory_not_equal(want, got, bytes);
    free(got);
    free(want);
    free(w.tensor);
    unload(&l);
    unload(&plain);
}

/* Copies in BF16: the logits move by roundings, follow the values when these are rounded anew and
 * not before. */
static void test_bf16(void **state)
{
    struct loaded plain, l;
    size_t bytes;
    load(&plain, *state, true);
    load_as(&l, *state, true, true);
    float *want = logits(&plain, &bytes), *got = logits(&l, &bytes);
    double off = 0, all = 0;
    for (size_t i = 0; i < bytes / sizeof *got; i++) {
        double d = (double)got[i] - (double)want[i];
        off += d * d;
        all += (double)want[i] * (double)want[i];
    }
    assert_true(off > 0);
    if (!(off <= 0.05 * 0.05 * all)) /* some layers of products, each within 2^-9 of its terms */
        fail_msg("%s: logits are off by %g of their size", (const char *)*state, sqrt(off / all));
    struct weight *head = &l.model->top.head;
    head->own[5] += 0.5f;
    float *same = logits(&l, &bytes);
    assert_memory_equal(same, got, bytes);
    model_refresh(l.model, &l.ops);
    float *moved = logits(&l, &bytes);
    assert_memory_not_equal(moved, got, bytes);
    free(moved);
    free(same);
    free(got);
    free(want);
    unload(&l);
    unload(&plain);
}

#define BF16(name) cmocka_unit_test_prestate(test_bf16, (void *)(uintptr_t)(name))
#define PARAMS(name) cmocka_unit_test_prestate(test_params, (void *)(uintptr_t)(name))

int main(void)
{
    const struct CMUnitTest tests[] = {
        PARAMS("llama_rope_llama3"),
        PARAMS("qwen2_tied"),
        PARAMS("qwen3"),
        PARAMS("deepseek"),
        PARAMS("dsv2_lite_greedy"),
        PARAMS("dsv3_noqlora_fp32_sharded"),
        PARAMS("dsv3_qlora_yarn_mtp"),
        BF16("llama_rope_llama3"),
        BF16("qwen2_tied"),
        BF16("dsv2_lite_greedy"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
