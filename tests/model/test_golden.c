/*
 * The dense architectures against float32 references: logits of every prompt, the greedy
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

static void load(struct loaded *l, const char *name)
{
    struct err e = {0};
    struct kv_shape shape;
    struct model_config cfg;
    char path[512];
    memset(l, 0, sizeof *l);
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    kern_init(&l->kern, cpu_best());
    die(team_new(&l->team, 2, &e), &e);
    op_ctx_init(&l->ops, &l->kern, l->team);
    die(source_open(&l->src, path, &e), &e);
    die(model_check(l->src, &cfg, &e), &e);
    die(model_load(&l->model, l->src, &cfg, &l->ops, NULL, &e), &e);
    model_kv_shape(l->model, &shape);
    shape.type = QUANT_F32;
    die(kv_pool_new(&l->kv, &shape, MAX_TOKENS / KV_PAGE, &e), &e);
    die(kv_seq_init(&l->seq, l->kv, MAX_TOKENS, &e), &e);
    die(op_ctx_reserve(&l->ops, 64 << 20, &e), &e);
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
    die(kv_seq_reserve(&l->seq, at + n, &e), &e);
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
    size_t adds = 0, norms = 0;
    for (size_t i = 0; i < t.n; i++) {
        const struct op_record *r = &t.r[i];
        if (r->kind == OP_EMBED)
            near(golden_get(g, "embed"), r->out.data, "embed");
        if (r->kind == OP_RMSNORM && ++norms == 2 * model_config(l.model)->n_layer + 1)
            near(golden_get(g, "final_norm"), r->out.data, "final_norm");
        if (r->kind != OP_ADD)
            continue;
        size_t layer = adds / 2;
        near(golden_get(g, adds % 2 ? "layer.%zu.mlp_out" : "layer.%zu.attn_out", layer),
             r->in[1].data, adds % 2 ? "mlp_out" : "attn_out");
        if (adds % 2)
            near(golden_get(g, "layer.%zu.hidden", layer), r->out.data, "hidden");
        adds++;
    }
    assert_int_equal(adds, 2 * model_config(l.model)->n_layer);
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
        MODEL(test_trace, "llama_rope_llama3"),
        MODEL(test_trace, "llama_linear_headdim_fp16"),
        MODEL(test_trace, "qwen2_tied"),
        MODEL(test_trace, "qwen2_untied"),
        MODEL(test_trace, "qwen3"),
    };
    return cmocka_run_group_tests_name("model/golden", tests, NULL, NULL);
}
