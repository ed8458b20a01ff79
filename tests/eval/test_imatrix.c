/* Importance matrices: sums against a golden trace and against plain sums, the file and its
 * merging, whatever is wrong with one. */
#include "base/file.h"
#include "base/num.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "eval/imatrix_run.h"
#include "format/gguf.h"
#include "support/fail_alloc.h"
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
#include <unistd.h>

enum { N = 100, CTX = 32 };

struct place {
    char dir[64], file[96];
};

static int setup(void **state)
{
    static struct place p;
    snprintf(p.dir, sizeof p.dir, "/tmp/ponder-imatrix.XXXXXX");
    if (!mkdtemp(p.dir))
        return -1;
    snprintf(p.file, sizeof p.file, "%s/im.gguf", p.dir);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    unlink(p->file);
    return rmdir(p->dir);
}

static struct engine *open_model(const char *name, int threads, size_t batch, enum quant_id kv)
{
    struct engine_opts o;
    struct engine *g = NULL;
    struct err e = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    engine_opts_init(&o);
    o.threads = threads;
    o.ctx = CTX;
    o.batch = batch;
    o.kv_type = kv;
    if (engine_open(&g, path, &o, &e))
        fail_msg("%s", e.text);
    return g;
}

static void some_ids(int32_t *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)((i * 7919 + 3) % 500);
}

static void collect_from(struct insums *m, struct engine *g, const struct imatrix_params *p)
{
    struct err e = {0};
    if (imatrix_run(m, g, p, &e))
        fail_msg("%s", e.text);
}

static const struct insums_entry *entry(const struct insums *m, const char *name)
{
    const struct insums_entry *x = insums_find(m, name);
    if (!x)
        fail_msg("no entry \"%s\"", name);
    return x;
}

/* The head's input is the golden trace's final norm; a tied head is called as the embedding. */
static void test_golden(void **state)
{
    static const char *const models[][2] = {{"qwen2_tied", "token_embd.weight"},
                                            {"qwen2_untied", "output.weight"},
                                            {"llama_rope_llama3", "output.weight"}};
    (void)state;
    for (size_t k = 0; k < NUM_COUNT(models); k++) {
        char path[128];
        size_t bytes;
        int32_t ids[64];
        snprintf(path, sizeof path, "models/%s/expected.json", models[k][0]);
        char *text = golden_file(path, &bytes);
        json_t *root = json_loads(text, 0, NULL);
        const json_t *v =
            json_object_get(json_array_get(json_object_get(root, "prompts"), 1), "ids");
        size_t n = json_array_size(v);
        for (size_t i = 0; i < n; i++)
            ids[i] = (int32_t)json_integer_value(json_array_get(v, i));
        snprintf(path, sizeof path, "models/%s/trace.safetensors", models[k][0]);
        struct golden *gold = golden_load(path);
        struct golden_tensor t = golden_get(gold, "final_norm");
        struct engine *g = open_model(models[k][0], 2, 0, QUANT_F32);
        struct insums m;
        insums_init(&m);
        struct imatrix_params p = {.ctx = n, .ids = ids, .n = n, .bos = -1, .head = true};
        collect_from(&m, g, &p);
        const struct insums_entry *x = insums_find(&m, models[k][1]);
        if (!x) /* a model that says it is tied */
            x = entry(&m, "token_embd.weight");
        assert_int_equal(x->mats, 1);
        assert_int_equal(x->counts[0], n);
        assert_int_equal(x->cols * n, t.count);
        for (size_t i = 0; i < x->cols; i++) {
            double sum = 0;
            for (size_t r = 0; r < n; r++)
                sum += (double)t.f32[r * x->cols + i] * t.f32[r * x->cols + i];
            assert_true(fabs(sum - x->sum2[i]) <= 1e-3 * (sum + 1e-3));
        }
        insums_release(&m);
        engine_free(g);
        golden_free(gold);
        json_decref(root);
        free(text);
    }
}

static void same_sums(const struct insums *a, const struct insums *b)
{
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct insums_entry *x = &a->entries[i], *y = entry(b, x->name);
        assert_int_equal(x->mats, y->mats);
        assert_int_equal(x->cols, y->cols);
        assert_memory_equal(x->sum2, y->sum2, x->mats * x->cols * sizeof *x->sum2);
        assert_memory_equal(x->counts, y->counts, x->mats * sizeof *x->counts);
    }
}

/* Threads and batches change nothing; matrices with one input have the same sums; the head is left
 * out unless asked for. */
static void test_invariance(void **state)
{
    struct insums m[3];
    int32_t ids[N];
    (void)state;
    some_ids(ids, N);
    for (size_t i = 0; i < 3; i++) {
        struct engine *g = open_model("llama_rope_llama3", 1 + (int)i, i == 1 ? 5 : 0, QUANT_F16);
        struct imatrix_params p = {.ctx = CTX, .ids = ids, .n = N, .bos = 1};
        insums_init(&m[i]);
        collect_from(&m[i], g, &p);
        same_sums(&m[0], &m[i]);
        engine_free(g);
    }
    assert_int_equal(m[0].chunks, N / CTX);
    assert_int_equal(m[0].n, 3 * 7);
    const struct insums_entry *q = entry(&m[0], "blk.1.attn_q.weight"),
                              *v = entry(&m[0], "blk.1.attn_v.weight"),
                              *d = entry(&m[0], "blk.1.ffn_down.weight");
    assert_int_equal(q->counts[0], N / CTX * CTX);
    assert_memory_equal(q->sum2, v->sum2, q->cols * sizeof *q->sum2);
    assert_true(d->cols > q->cols);
    assert_null(insums_find(&m[0], "output.weight"));
    assert_null(insums_find(&m[0], "token_embd.weight"));
    for (size_t i = 0; i < 3; i++)
        insums_release(&m[i]);
}

/* Written, read, merged: a run in two halves has the sums of one run, but for F32 in the file. */
static void test_merge(void **state)
{
    struct place *at = *state;
    struct engine *g = open_model("qwen2_tied", 2, 0, QUANT_F16);
    struct insums whole, half, back;
    struct err e = {0};
    int32_t ids[N];
    some_ids(ids, N);
    insums_init(&whole);
    insums_init(&half);
    insums_init(&back);
    struct imatrix_params p = {.ctx = CTX, .ids = ids, .n = N, .bos = -1};
    collect_from(&whole, g, &p);
    p.limit = 1;
    collect_from(&half, g, &p);
    assert_int_equal(insums_dataset(&half, "a.txt", 5, &e), 0);
    assert_int_equal(insums_dataset(&half, "b.txt", 5, &e), 0);
    assert_int_equal(insums_dataset(&half, "a.txt", 5, &e), 0);
    assert_int_equal(half.n_datasets, 2);
    assert_int_equal(insums_write(&half, at->file, &e), 0);
    if (insums_read(&back, at->file, &e))
        fail_msg("%s", e.text);
    assert_int_equal(back.n_datasets, 2);
    assert_string_equal(back.datasets[1], "b.txt");
    assert_int_equal(back.chunks, 1);
    assert_int_equal(back.chunk_size, CTX);
    p.limit = 0;
    p.skip = 1;
    collect_from(&back, g, &p);
    assert_int_equal(back.chunks, whole.chunks);
    for (size_t i = 0; i < whole.n; i++) {
        const struct insums_entry *x = &whole.entries[i], *y = entry(&back, x->name);
        assert_true(x->counts[0] == y->counts[0]);
        for (size_t k = 0; k < x->cols; k++)
            assert_true(fabs(x->sum2[k] - y->sum2[k]) <= 1e-6 * x->sum2[k]);
    }
    /* Chunks of another size are not mixed, nor a text that is too short taken. */
    p.ctx = CTX / 2;
    assert_int_equal(imatrix_run(&back, g, &p, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "--ctx 32"));
    p.ctx = N + 1;
    assert_int_equal(imatrix_run(&whole, g, &p, &e), ERR_LIMIT);
    p.ctx = CTX;
    p.skip = 3;
    assert_int_equal(imatrix_run(&whole, g, &p, &e), ERR_USAGE);
    insums_release(&whole);
    insums_release(&half);
    insums_release(&back);
    engine_free(g);
}

/* A mixture of experts: every token went to n_used of them, with the input that the shared expert
 * had too; latent attention has a matrix for each head. */
static void test_moe(void **state)
{
    struct engine *g = open_model("dsv3_qlora_yarn_mtp", 2, 0, QUANT_F32);
    struct imatrix_params p = {.ctx = CTX, .n = N, .bos = -1};
    struct insums m;
    int32_t ids[N];
    char name[64];
    size_t layers = engine_info(g)->layers, seen = 0;
    (void)state;
    some_ids(ids, N);
    for (size_t i = 0; i < N; i++)
        ids[i] %= (int32_t)engine_info(g)->vocab;
    p.ids = ids;
    insums_init(&m);
    collect_from(&m, g, &p);
    for (size_t l = 0; l < layers; l++) {
        snprintf(name, sizeof name, "blk.%zu.attn_k_b.weight", l);
        const struct insums_entry *heads = entry(&m, name);
        assert_true(heads->mats > 1);
        for (size_t h = 0; h < heads->mats; h++)
            assert_true(heads->counts[h] == N / CTX * CTX);
        snprintf(name, sizeof name, "blk.%zu.ffn_gate_exps.weight", l);
        const struct insums_entry *gate = insums_find(&m, name), *up, *down, *shared;
        if (!gate)
            continue; /* a dense layer */
        seen++;
        snprintf(name, sizeof name, "blk.%zu.ffn_up_exps.weight", l);
        up = entry(&m, name);
        snprintf(name, sizeof name, "blk.%zu.ffn_down_exps.weight", l);
        down = entry(&m, name);
        snprintf(name, sizeof name, "blk.%zu.ffn_gate_shexp.weight", l);
        shared = entry(&m, name);
        assert_true(gate->mats > 1 && gate->mats == up->mats && gate->mats == down->mats);
        assert_memory_equal(gate->sum2, up->sum2, gate->mats * gate->cols * sizeof *gate->sum2);
        double count = 0, some = 0;
        for (size_t k = 0; k < gate->mats; k++) {
            assert_true(gate->counts[k] == down->counts[k]);
            count += gate->counts[k];
        }
        double used = count / shared->counts[0];
        assert_true(used >= 1 && used == (double)(size_t)used);
        for (size_t i = 0; i < gate->cols; i++) {
            double sum = 0;
            for (size_t k = 0; k < gate->mats; k++)
                sum += gate->sum2[k * gate->cols + i];
            assert_true(fabs(sum - used * shared->sum2[i]) <= 1e-9 * sum);
        }
        for (size_t i = 0; i < down->mats * down->cols; i++)
            some += down->sum2[i];
        assert_true(some > 0);
    }
    assert_true(seen > 0);
    insums_release(&m);
    engine_free(g);
}

/* Stacks of experts: sums and counts of each. */
static void test_experts(void **state)
{
    struct place *at = *state;
    struct insums m, back;
    struct insums_entry *x;
    struct err e = {0};
    insums_init(&m);
    insums_init(&back);
    assert_int_equal(insums_entry(&x, &m, "blk.0.ffn_up_exps.weight", 3, 4, &e), 0);
    for (size_t i = 0; i < 12; i++)
        x->sum2[i] = (double)i;
    x->counts[0] = 5;
    x->counts[2] = 7;
    assert_int_equal(insums_write(&m, at->file, &e), 0);
    assert_int_equal(insums_read(&back, at->file, &e), 0);
    same_sums(&m, &back);
    assert_int_equal(insums_read(&back, at->file, &e), 0);
    assert_true(entry(&back, "blk.0.ffn_up_exps.weight")->counts[2] == 14);
    assert_int_equal(insums_entry(&x, &m, "blk.0.ffn_up_exps.weight", 3, 5, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "another model"));
    insums_release(&m);
    insums_release(&back);
}

/* ---- what is wrong with a file --------------------------------------------------------------- */

struct odd {
    const char *type, *sums, *counts; /* names; NULL: left out */
    uint64_t sums_shape[2], counts_shape[2];
    float value;
    bool no_chunks;
    const char *word; /* of the error */
};

static void write_odd(const char *path, const struct odd *o)
{
    struct gguf_writer *w;
    struct err e = {0};
    const struct quant_type *f32 = quant_by_id(QUANT_F32);
    float v[64];
    for (size_t i = 0; i < NUM_COUNT(v); i++)
        v[i] = o->value;
    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    assert_int_equal(gguf_put_string(w, "general.type", o->type, strlen(o->type), &e), 0);
    if (!o->no_chunks)
        assert_int_equal(gguf_put_u32(w, "imatrix.chunk_count", 1, &e), 0);
    assert_int_equal(gguf_put_u32(w, "imatrix.chunk_size", 8, &e), 0);
    assert_int_equal(gguf_add_tensor(w, o->sums, f32, 2, o->sums_shape, &e), 0);
    if (o->counts)
        assert_int_equal(gguf_add_tensor(w, o->counts, f32, 2, o->counts_shape, &e), 0);
    assert_int_equal(gguf_write_data(w, v, o->sums_shape[0] * o->sums_shape[1] * 4, &e), 0);
    if (o->counts)
        assert_int_equal(gguf_write_data(w, v, o->counts_shape[0] * o->counts_shape[1] * 4, &e), 0);
    assert_int_equal(gguf_writer_commit(w, &e), 0);
    gguf_writer_free(w);
}

static void test_odd(void **state)
{
    struct place *at = *state;
    static const struct odd odd[] = {
        {"imatrix", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, 1, false, NULL},
        {"model", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, 1, false, "general.type"},
        {"imatrix", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, 1, true, "chunk_count"},
        {"imatrix", "x.in_sum2", NULL, {1, 8}, {1, 1}, 1, false, "fit together"},
        {"imatrix", "x.in_sum2", "x.counts", {2, 8}, {3, 1}, 1, false, "fit together"},
        {"imatrix", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, -1, false, "no number"},
        {"imatrix", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, NAN, false, "no number"},
        {"imatrix", "x.in_sum2", "x.counts", {1, 8}, {1, 1}, INFINITY, false, "no number"},
        {"imatrix", ".in_sum2", ".counts", {1, 8}, {1, 1}, 1, false, "no name"},
    };
    for (size_t i = 0; i < NUM_COUNT(odd); i++) {
        struct insums m;
        struct err e = {0};
        insums_init(&m);
        write_odd(at->file, &odd[i]);
        int rc = insums_read(&m, at->file, &e);
        if (odd[i].word && !strstr(e.text, odd[i].word))
            fail_msg("\"%s\" does not say \"%s\"", e.text, odd[i].word);
        if (odd[i].word)
            assert_int_equal(rc, ERR_FORMAT);
        else
            assert_true(rc == 0 && m.n == 1);
        insums_release(&m);
    }
}

static void test_no_memory(void **state)
{
    struct place *at = *state;
    for (size_t n = 1;; n++) {
        struct insums m, back;
        struct insums_entry *x;
        struct err e = {0};
        insums_init(&m);
        insums_init(&back);
        fail_alloc_at(n);
        int rc = insums_entry(&x, &m, "blk.0.attn_q.weight", 2, 8, &e);
        if (!rc)
            rc = insums_dataset(&m, "text", 4, &e);
        if (!rc)
            rc = insums_write(&m, at->file, &e);
        if (!rc)
            rc = insums_read(&back, at->file, &e);
        bool failed = fail_alloc_stop();
        if (!failed)
            same_sums(&m, &back);
        insums_release(&m);
        insums_release(&back);
        if (!failed)
            break;
        if (rc)
            assert_true(strlen(e.text) > 0);
        assert_true(n < 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),    cmocka_unit_test(test_invariance),
        cmocka_unit_test(test_moe),       cmocka_unit_test(test_merge),
        cmocka_unit_test(test_experts),   cmocka_unit_test(test_odd),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests_name("eval/imatrix", tests, setup, teardown);
}
