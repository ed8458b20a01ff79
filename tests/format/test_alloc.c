/* Every allocation of opening, reading and writing fails once: an error, no leak, nothing left. */
#include "build.h"

#include "base/file.h"
#include "format/gguf.h"
#include "format/safetensors.h"
#include "support/fail_alloc.h"
#include "support/golden.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct temp tmp;

/* Jansson's allocations are to fail too: they go through malloc of this file, which is wrapped. */
static void *counted_malloc(size_t n)
{
    return malloc(n);
}

static void counted_free(void *p)
{
    free(p);
}

static int setup(void **state)
{
    temp_new(&tmp);
    json_set_alloc_funcs(counted_malloc, counted_free);
    return 0;
}

static int teardown(void **state)
{
    temp_free(&tmp);
    return 0;
}

static int open_once(const char *path, const char *text)
{
    struct err e = {0};
    struct source *s;
    const char *p;
    size_t n;
    int rc = source_open(&s, path, &e);

    if (!rc && text)
        rc = source_text(s, text, &p, &n, &e);
    source_free(s);
    if (rc) {
        /* Jansson takes no memory inside a token for a wrong token. */
        if (rc != ERR_NOMEM && !strstr(e.text, "not valid JSON"))
            fail_msg("%s", e.text);
        assert_true(strlen(e.text) > 10);
    }
    return rc;
}

static void every_allocation(const char *path, const char *text)
{
    size_t n;

    assert_int_equal(open_once(path, text), 0);
    for (n = 1;; n++) {
        int rc;
        fail_alloc_at(n);
        rc = open_once(path, text);
        if (!fail_alloc_stop())
            break;
        assert_int_not_equal(rc, 0);
    }
    assert_true(n > 3);
}

static void test_open_gguf(void **state)
{
    every_allocation(GOLDEN_DIR "/format/gguf_py.gguf", NULL);
}

static void test_open_split(void **state)
{
    static const char *const names[] = {"m-00001-of-00002.gguf", "m-00002-of-00002.gguf"};
    static struct spec spec;
    static struct bytes file;

    for (uint32_t i = 0; i < 2; i++) {
        struct spec_tensor t;
        spec_base(&spec);
        t = spec.t[i];
        t.offset = 0;
        spec.t[0] = t;
        spec.n_t = 1;
        spec_key_u32(&spec, "split.no", i);
        spec_key_u32(&spec, "split.count", 2);
        spec_write(&spec, &file);
        temp_write(&tmp, names[i], file.p, file.n);
    }
    every_allocation(temp_path(&tmp, names[1]), NULL);
}

static void test_open_unordered(void **state)
{
    static struct spec spec;
    static struct bytes file;
    struct spec_tensor t;

    spec_base(&spec);
    t = spec.t[0];
    spec.t[0] = spec.t[2];
    spec.t[2] = t;
    spec_write(&spec, &file);
    every_allocation(temp_write(&tmp, "m.gguf", file.p, file.n), NULL);
}

static void test_open_folder(void **state)
{
    temp_text(&tmp, "hf/config.json", "{\"a\":1,\"b\":{\"c\":[1,2,{}],\"d\":\"text\"}}");
    temp_text(&tmp, "hf/tokenizer.json", "{}");
    temp_safetensors(&tmp, "hf/1.safetensors",
                     "{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"F32\",\"shape\":[6],"
                     "\"data_offsets\":[0,24]}}",
                     24);
    temp_text(&tmp, "hf/model.safetensors.index.json",
              "{\"weight_map\":{\"a\":\"1.safetensors\"}}");
    every_allocation(temp_path(&tmp, "hf"), "tokenizer.json");
    every_allocation(temp_path(&tmp, "hf/model.safetensors.index.json"), NULL);
    every_allocation(temp_path(&tmp, "hf/1.safetensors"), NULL);
    every_allocation(temp_path(&tmp, "hf/tokenizer.json"), "tokenizer.json");
}

static void put_composed(const char *dir)
{
    static const char *const files[] = {"quant/gptq.safetensors", "quant/bnb_4bit.safetensors",
                                        "quant/fp8.safetensors"};
    static const char *const cases[] = {"gptq4.desc.sym.gptq.320x24.", "nf4.nested.b64.6x128.",
                                        "down."};
    static const char *const parts[] = {"qweight",
                                        "qzeros",
                                        "scales",
                                        "g_idx",
                                        "weight",
                                        "weight.absmax",
                                        "weight.quant_map",
                                        "weight.nested_absmax",
                                        "weight.nested_quant_map",
                                        "weight.quant_state.bitsandbytes__nf4",
                                        "weight_scale_inv"};
    struct golden *g[3];
    struct st f = {0};
    char name[128];

    for (size_t i = 0; i < 3; i++) {
        g[i] = golden_load(files[i]);
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            struct golden_tensor t;
            uint64_t shape[SOURCE_DIMS];
            snprintf(name, sizeof name, "%s%s", cases[i], parts[k]);
            if (!golden_find(g[i], name, &t))
                continue;
            for (size_t d = 0; d < t.rank; d++)
                shape[d] = t.dim[d];
            snprintf(name, sizeof name, "%zu.%s", i, parts[k]);
            st_add(&f, name, t.dtype, (int)t.rank, shape, t.data, t.bytes);
        }
    }
    assert_int_equal(f.n, 12);
    snprintf(name, sizeof name, "%s/model.safetensors", dir);
    st_write(&f, &tmp, name);
    for (size_t i = 0; i < 3; i++)
        golden_free(g[i]);
}

static void test_open_composed(void **state)
{
    struct source *s;

    temp_text(&tmp, "q/config.json", "{\"a\":1}");
    temp_text(&tmp, "q/quantize_config.json", "{\"bits\":4,\"group_size\":128}");
    put_composed("q");
    s = open_ok(temp_path(&tmp, "q"));
    assert_int_equal(source_tensor_count(s), 3);
    source_free(s);
    every_allocation(temp_path(&tmp, "q"), NULL);
    every_allocation(temp_path(&tmp, "q/model.safetensors"), NULL);
}

static int write_once(const char *path)
{
    static const char *const strings[] = {"one", "two"};
    static const size_t lengths[] = {3, 3};
    static const char data[64];
    struct err e = {0};
    struct gguf_writer *w;
    int rc = gguf_writer_new(&w, path, &e);

    if (!rc)
        rc = gguf_put_u32(w, "a", 1, &e);
    if (!rc)
        rc = gguf_put_strings(w, "b", strings, lengths, 2, &e);
    if (!rc)
        rc = gguf_add_tensor(w, "t", quant_by_id(QUANT_F32), 1, (uint64_t[]){16}, &e);
    if (!rc)
        rc = gguf_write_data(w, data, sizeof data, &e);
    if (!rc)
        rc = gguf_writer_commit(w, &e);
    gguf_writer_free(w);
    return rc;
}

static int write_shards(const char *path)
{
    static const char data[64];
    struct err e = {0};
    struct safetensors_writer *w;
    int rc = safetensors_writer_new(&w, path, 64, &e);

    if (!rc)
        rc = safetensors_put_string(w, "k", "v", 1, &e);
    if (!rc)
        rc = safetensors_add_tensor(w, "a", "F32", 1, (uint64_t[]){16}, &e);
    if (!rc)
        rc = safetensors_add_tensor(w, "b", "F32", 1, (uint64_t[]){16}, &e);
    for (int i = 0; !rc && i < 2; i++)
        rc = safetensors_write_data(w, data, sizeof data, &e);
    if (!rc)
        rc = safetensors_writer_commit(w, &e);
    safetensors_writer_free(w);
    return rc;
}

static void test_write_shards(void **state)
{
    static const char *const names[] = {"st/m-00001-of-00002.safetensors",
                                        "st/m-00002-of-00002.safetensors",
                                        "st/m.safetensors.index.json"};
    char path[256];

    temp_text(&tmp, "st/config.json", "{}");
    snprintf(path, sizeof path, "%s", temp_path(&tmp, "st/m.safetensors"));
    for (size_t n = 1;; n++) {
        int rc;
        fail_alloc_at(n);
        rc = write_shards(path);
        if (!fail_alloc_stop()) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, ERR_NOMEM);
        for (int i = 0; i < 3; i++) /* no shard without the others */
            assert_int_not_equal(remove(temp_path(&tmp, names[i])), 0);
    }
    source_free(open_ok(temp_path(&tmp, names[2])));
    for (int i = 0; i < 3; i++)
        assert_int_equal(remove(temp_path(&tmp, names[i])), 0);
    remove(temp_path(&tmp, "st/config.json"));
    assert_int_equal(remove(temp_path(&tmp, "st")), 0); /* no part is left */
}

static void test_write(void **state)
{
    const char *path = temp_path(&tmp, "out/m.gguf");

    temp_text(&tmp, "out/other", "");
    for (size_t n = 1;; n++) {
        int rc;
        fail_alloc_at(n);
        rc = write_once(path);
        if (!fail_alloc_stop()) {
            assert_int_equal(rc, 0);
            break;
        }
        assert_int_equal(rc, ERR_NOMEM);
        remove(
            path); /* there only when the last step, syncing the folder, was the one that failed */
    }
    source_free(open_ok(path));
    remove(path);
    remove(temp_path(&tmp, "out/other"));
    assert_int_equal(remove(temp_path(&tmp, "out")), 0); /* no part is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_open_gguf, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_unordered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_composed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_write_shards, setup, teardown),
    };

    return cmocka_run_group_tests_name("format/alloc", tests, NULL, NULL);
}
