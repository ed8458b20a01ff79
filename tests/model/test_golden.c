/*
 * The architectures against float32 references: logits of every prompt, the greedy
 * continuation token by token, and (through a tape, which also shows that an attached tape keeps
 * every intermediate alive) the inside of the forward pass.
 */
#include "model/model.h"
#include "support/golden.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 512 };

struct loaded {
    struct kern kern;
    struct team *team;
    struct op_ctx ops;
    struct source *src;
    struct model *model;
    struct kv_pool *kv;
    struct kv_seq seq;
};

static void die(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static void load_with(struct loaded *l, const char *name, int threads, enum model_place place,
                      bool expanded)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    char path[512];
    memset(l, 0, sizeof *l);
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    kern_init(&l->kern, cpu_best());
    kern_float(&l->kern); /* the references' activations are not rounded */
    die(team_new(&l->team, threads, &e), &e);
    op_ctx_init(&l->ops, &l->kern, l->team);
    die(source_open(&l->src, path, &e), &e);
    die(model_check(l->src, &cfg, &e), &e);
    struct model_load_opts o = {.place = place, .mla_expanded = expanded, .mtp = cfg.n_mtp != 0};
    die(model_load(&l->model, l->src, &cfg, &l->ops, &o, &e), &e);
    model_kv_shape(l->model, &shape);
    shape.type = QUANT_F32;
    die(kv_pool_new(&l->kv, &shape, MAX_TOKENS / KV_PAGE, &e), &e);
    die(kv_seq_init(&l->seq, l->kv, MAX_TOKENS, &e), &e);
    die(op_ctx_reserve(&l->ops, 64 << 20, &e), &e);
}

static void load(struct loaded *l, const char *name)
{
    load_with(l, name, 2, MODEL_PACKED, false);
}

static void unload(struct loaded *l)
{
    kv_seq_release(&l->seq);
    kv_pool_free(l->kv);
    model_free(l->model);
    source_free(l->src);
    op_ctx_release(&l->ops);
    team_free(l->team);
}

static struct tensor forward(struct loaded *l, const int32_t *ids, size_t at, size_t n)
{
    struct err e = {0};
    uint32_t pos[MAX_TOKENS], want[MAX_TOKENS];
    die(kv_seq_reserve(&l->seq, at, at, at + n, &e), &e);
    for (size_t i = 0; i < n; i++) {
        pos[i] = (uint32_t)(at + i);
        want[i] = (uint32_t)i;
    }
    struct batch_run run = {.seq = &l->seq, .n = n, .pos = at};
    struct batch b = {
        .n = n, .ids = ids, .pos = pos, .want = want, .n_want = n, .runs = &run, .n_runs = 1};
    l->ops.used = 0;
    return model_forward(l->model, &l->ops, &b);
}

static void near(struct golden_tensor want, const float *got, const char *what)
{
    for (size_t i = 0; i < want.count; i++)
        if (!(fabsf(got[i] - want.f32[i]) <= 1e-3f + 1e-3f * fabsf(want.f32[i])))
            fail_msg("%s: value %zu is %g, want %g", what, i, (double)got[i], (double)want.f32[i]);
}

static size_t read_ids(int32_t *ids, const json_t *a)
{
    size_t n = json_array_size(a);
    assert_in_range(n, 1, MAX_TOKENS);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(a, i));
    return n;
}

static void test_logits(void **state)
{
    const char *name = *state;
    struct loaded l;
    char path[128], what[160];
    size_t bytes;
    load(&l, name);
    snprintf(path, sizeof path, "models/%s/expected.json", name);
    char *text = golden_file(path, &bytes);
    json_t *root = json_loads(text, 0, NULL), *prompts = json_object_get(root, "prompts");
    snprintf(path, sizeof path, "models/%s/logits.safetensors", name);
    struct golden *g = golden_load(path);
    assert_true(json_array_size(prompts) > 0);
    for (size_t p = 0; p < json_array_size(prompts); p++) {
        int32_t ids[MAX_TOKENS], greedy[MAX_TOKENS];
        const json_t *prompt = json_array_get(prompts, p);
        size_t n = read_ids(ids, json_object_get(prompt, "ids"));
        size_t steps = read_ids(greedy, json_object_get(prompt, "greedy"));
        kv_seq_truncate(&l.seq, 0);
        struct tensor y = forward(&l, ids, 0, n);
        snprintf(what, sizeof what, "%s, logits of prompt %zu", name, p);
        near(golden_get(g, "logits.%zu", p), y.data, what);
        for (size_t s = 0; s < steps; s++) {
            const float *row = y.data + (y.rows - 1) * y.cols;
            int32_t best = 0;
            for (size_t i = 1; i < y.cols; i++)
                if (row[i] > row[best])
                    best = (int32_t)i;
            assert_int_equal(best, greedy[s]);
            y = forward(&l, &best, n + s, 1);
        }
    }
    golden_free(g);
    json_decref(root);
    free(text);
    unload(&l);
}

struct trace {
    struct op_record r[1024];
    size_t n;
};

static void trace_record(void *arg, const struct op_record *r)
{
    struct trace *t = arg;
    assert_in_range(t->n, 0, 1023);
    t->r[t->n++] = *r;
}

static void test_trace(void **state)
{
    const char *name = *state;
    struct loaded l;
    static struct trace t;
    size_t bytes;
    char path[128];
    load(&l, name);
    snprintf(path, sizeof path, "models/%s/expected.json", name);
    char *text = golden_file(path, &bytes);
    json_t *root = json_loads(text, 0, NULL);
    snprintf(path, sizeof path, "models/%s/trace.safetensors", name);
    struct golden *g = golden_load(path);
    int32_t ids[MAX_TOKENS];
    size_t n =
        read_ids(ids, json_object_get(json_array_get(json_object_get(root, "prompts"), 1), "ids"));
    struct op_tape tape = {trace_record, &t, true};
    memset(&t, 0, sizeof t);
    l.ops.tape = &tape;
    forward(&l, ids, 0, n);
    /* Looked at only now: without reuse, all of it is still there. */
    size_t adds = 0;
    const float *x = NULL, *norm = NULL; /* the residual stream; the last norm */
    for (size_t i = 0; i < t.n; i++) {
        const struct op_record *r = &t.r[i];
        if (r->kind == OP_EMBED) {
            x = r->out.data;
            near(golden_get(g, "embed"), x, "embed");
        }
        if (r->kind == OP_RMSNORM)
            norm = r->out.data;
        if (r->kind != OP_ADD || r->in[0].data != x)
            continue;
        x = r->out.data;
        size_t layer = adds / 2;
        near(golden_get(g, adds % 2 ? "layer.%zu.mlp_out" : "layer.%zu.attn_out", layer),
             r->in[1].data, adds % 2 ? "mlp_out" : "attn_out");
        if (adds % 2)
            near(golden_get(g, "layer.%zu.hidden", layer), x, "hidden");
        adds++;
    }
    near(golden_get(g, "final_norm"), norm, "final_norm");
    assert_int_equal(adds, 2 * model_config(l.model)->n_layer);
    golden_free(g);
    json_decref(root);
    free(text);
    unload(&l);
}

/* The prediction layer, from the states of the main pass. */
static void test_mtp(void **state)
{
    const char *name = *state;
    struct loaded l;
    char path[128], what[160];
    size_t bytes;
    load(&l, name);
    snprintf(path, sizeof path, "models/%s/expected.json", name);
    char *text = golden_file(path, &bytes);
    json_t *root = json_loads(text, 0, NULL), *prompts = json_object_get(root, "prompts");
    snprintf(path, sizeof path, "models/%s/mtp.safetensors", name);
    struct golden *g = golden_load(path);
    size_t d = model_config(l.model)->d_model;
    for (size_t p = 1; p <= 2; p++) {
        int32_t ids[MAX_TOKENS];
        uint32_t pos[MAX_TOKENS];
        size_t n = read_ids(ids, json_object_get(json_array_get(prompts, p), "ids"));
        float *hidden = malloc(n * d * sizeof *hidden);
        struct err e = {0};
        assert_non_null(hidden);
        kv_seq_truncate(&l.seq, 0);
        die(kv_seq_reserve(&l.seq, 0, 0, n, &e), &e);
        for (size_t i = 0; i < n; i++)
            pos[i] = (uint32_t)i;
        struct batch_run run = {.seq = &l.seq, .n = n};
        struct batch b = {
            .n = n, .ids = ids, .pos = pos, .hidden = hidden, .runs = &run, .n_runs = 1};
        l.ops.used = 0;
        model_forward(l.model, &l.ops, &b);
        run.n = n - 1;
        b = (struct batch){.n = n - 1,
                           .ids = ids + 1,
                           .pos = pos,
                           .want = pos,
                           .n_want = n - 1,
                           .runs = &run,
                           .n_runs = 1};
        l.ops.used = 0;
        struct tensor y = model_forward_mtp(l.model, &l.ops, &b, hidden);
        snprintf(what, sizeof what, "%s, prediction layer, prompt %zu", name, p);
        near(golden_get(g, "mtp_logits.%zu", p), y.data, what);
        free(hidden);
    }
    golden_free(g);
    json_decref(root);
    free(text);
    unload(&l);
}

/* One pass, token by token, cut in odd pieces, other threads, weights left in the file: equal bits.
 */
static void test_cuts(void **state)
{
    static const struct {
        size_t cut;
        int threads;
        enum model_place place;
    } ways[] = {
        {1, 2, MODEL_PACKED}, {7, 1, MODEL_PACKED}, {64, 3, MODEL_MAPPED}, {150, 2, MODEL_MAPPED}};
    enum { N = 150 };
    struct loaded l;
    int32_t ids[N];
    load(&l, *state);
    for (size_t i = 0; i < N; i++)
        ids[i] = (int32_t)((i * 2654435761u) % model_config(l.model)->n_vocab);
    struct tensor y = forward(&l, ids, 0, N);
    size_t row = y.cols * sizeof(float);
    float *want = malloc(N * row);
    assert_non_null(want);
    memcpy(want, y.data, N * row);
    unload(&l);
    for (size_t k = 0; k < sizeof ways / sizeof *ways; k++) {
        load_with(&l, *state, ways[k].threads, ways[k].place, false);
        for (size_t at = 0; at < N;) {
            size_t n = N - at < ways[k].cut ? N - at : ways[k].cut;
            y = forward(&l, ids + at, at, n);
            if (memcmp(y.data, (const char *)want + at * row, n * row) != 0)
                fail_msg("%s: bits differ at token %zu, cut %zu", (const char *)*state, at,
                         ways[k].cut);
            at += n;
        }
        unload(&l);
    }
    free(want);
}

/* The expanded form of latent attention: the longest prompt at once, and in two long pieces of
 * which the second sees several blocks of the first. */
static void test_expanded(void **state)
{
    const char *name = *state;
    struct loaded l;
    char path[128], what[160];
    size_t bytes;
    enum { LONG = 400, CUT = 330 };
    load_with(&l, name, 2, MODEL_PACKED, true);
    snprintf(path, sizeof path, "models/%s/expected.json", name);
    char *text = golden_file(path, &bytes);
    json_t *root = json_loads(text, 0, NULL), *prompts = json_object_get(root, "prompts");
    snprintf(path, sizeof path, "models/%s/logits.safetensors", name);
    struct golden *g = golden_load(path);
    size_t p = json_array_size(prompts) - 1;
    int32_t ids[MAX_TOKENS];
    size_t n = read_ids(ids, json_object_get(json_array_get(prompts, p), "ids"));
    assert_in_range(n, 64, MAX_TOKENS); /* long enough for the form */
    struct tensor y = forward(&l, ids, 0, n);
    snprintf(what, sizeof what, "%s, expanded, prompt %zu", name, p);
    near(golden_get(g, "logits.%zu", p), y.data, what);

    for (size_t i = 0; i < LONG; i++)
        ids[i] = (int32_t)((i * 2654435761u) % model_config(l.model)->n_vocab);
    size_t row = y.cols;
    float *want = malloc(LONG * row * sizeof *want);
    assert_non_null(want);
    kv_seq_truncate(&l.seq, 0);
    for (size_t i = 0; i < LONG; i++) /* token by token: the absorbed form */
        memcpy(want + i * row, forward(&l, ids + i, i, 1).data, row * sizeof *want);
    kv_seq_truncate(&l.seq, 0);
    forward(&l, ids, 0, CUT);
    y = forward(&l, ids + CUT, CUT, LONG - CUT);
    for (size_t i = 0; i < (LONG - CUT) * row; i++)
        if (!(fabsf(y.data[i] - want[CUT * row + i]) <= 1e-3f))
            fail_msg("%s: value %zu behind the cut is %g, absorbed %g", name, i, (double)y.data[i],
                     (double)want[CUT * row + i]);
    free(want);
    golden_free(g);
    json_decref(root);
    free(text);
    unload(&l);
}

/* A state is the name of the folder in tests/golden/models. */
#define MODEL(fn, name)                                       \
    {                                                         \
#fn " " name, fn, NULL, NULL, (void *)(uintptr_t)name \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        MODEL(test_logits, "llama_rope_llama3"),
        MODEL(test_logits, "llama_linear_headdim_fp16"),
        MODEL(test_logits, "qwen2_tied"),
        MODEL(test_logits, "qwen2_untied"),
        MODEL(test_logits, "qwen3"),
        MODEL(test_logits, "deepseek"),
        MODEL(test_logits, "dsv2_lite_greedy"),
        MODEL(test_logits, "dsv2_group_limited"),
        MODEL(test_logits, "dsv3_noqlora_fp32_sharded"),
        MODEL(test_logits, "dsv3_qlora_yarn_mtp"),
        MODEL(test_logits, "dsv3_fp8_mtp"),
        MODEL(test_trace, "llama_rope_llama3"),
        MODEL(test_trace, "llama_linear_headdim_fp16"),
        MODEL(test_trace, "qwen2_tied"),
        MODEL(test_trace, "qwen2_untied"),
        MODEL(test_trace, "qwen3"),
        MODEL(test_trace, "deepseek"),
        MODEL(test_trace, "dsv2_lite_greedy"),
        MODEL(test_trace, "dsv2_group_limited"),
        MODEL(test_trace, "dsv3_noqlora_fp32_sharded"),
        MODEL(test_trace, "dsv3_qlora_yarn_mtp"),
        MODEL(test_trace, "dsv3_fp8_mtp"),
        MODEL(test_cuts, "deepseek"),
        MODEL(test_cuts, "dsv2_lite_greedy"),
        MODEL(test_cuts, "dsv2_group_limited"),
        MODEL(test_cuts, "dsv3_noqlora_fp32_sharded"),
        MODEL(test_cuts, "dsv3_qlora_yarn_mtp"),
        MODEL(test_cuts, "dsv3_fp8_mtp"),
        MODEL(test_cuts, "llama_rope_llama3"),
        MODEL(test_expanded, "dsv2_lite_greedy"),
        MODEL(test_expanded, "dsv2_group_limited"),
        MODEL(test_expanded, "dsv3_qlora_yarn_mtp"),
        MODEL(test_expanded, "dsv3_fp8_mtp"),
        MODEL(test_mtp, "dsv3_qlora_yarn_mtp"),
        MODEL(test_mtp, "dsv3_fp8_mtp"),
    };
    return cmocka_run_group_tests_name("model/golden", tests, NULL, NULL);
}
