/* Heads of models: what lists of models show, without loading. */
#include "engine/engine.h"
#include "engine/head.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <string.h>

static const char *model(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/models/%s", GOLDEN_DIR, name);
    return path;
}

static void test_same_as_engine(void **state)
{
    (void)state;
    static const char *const names[] = {"llama_rope_llama3", "qwen2_tied", "dsv3_qlora_yarn_mtp"};
    for (size_t i = 0; i < 3; i++) {
        struct engine_head h;
        struct engine_opts o;
        struct engine *g;
        struct err e = {0};
        if (engine_head_read(&h, model(names[i]), NULL, &e))
            fail_msg("%s", e.text);
        engine_opts_init(&o);
        o.threads = 1;
        if (engine_open(&g, model(names[i]), &o, &e))
            fail_msg("%s", e.text);
        const struct engine_info *info = engine_info(g);
        assert_string_equal(h.name, info->name);
        assert_string_equal(h.arch, info->arch);
        assert_string_equal(h.file_type, info->file_type);
        assert_string_equal(h.format, "safetensors");
        assert_int_equal(h.ctx_train, info->ctx_train);
        assert_int_equal(h.vocab, info->vocab);
        assert_int_equal(h.layers, info->layers);
        assert_true(h.identity == engine_fingerprint(g));
        assert_non_null(h.template_text);
        engine_free(g);
        engine_head_release(&h);
    }
}

/* With --chat-template a model does what that template lets it. */
static void test_other_template(void **state)
{
    (void)state;
    static const char text[] = "{{ messages[0].content }}<think>\n";
    struct engine_head h;
    struct err e = {0};
    assert_int_equal(engine_head_read(&h, model("qwen2_tied"), NULL, &e), 0);
    assert_false(h.thinks);
    engine_head_release(&h);
    assert_int_equal(engine_head_read(&h, model("qwen2_tied"), text, &e), 0);
    assert_true(h.thinks);
    assert_string_equal(h.template_text, text);
    engine_head_release(&h);
}

static void test_no_model(void **state)
{
    (void)state;
    struct engine_head h;
    struct err e = {0};
    assert_int_not_equal(engine_head_read(&h, "/nowhere/x.gguf", NULL, &e), 0);
    assert_non_null(strstr(e.text, "/nowhere/x.gguf"));
    assert_null(h.template_text);
}

static void test_metadata(void **state)
{
    (void)state;
    json_t *o, *t;
    struct err e = {0};
    if (engine_head_metadata(model("qwen2_tied"), false, &o, &e))
        fail_msg("%s", e.text);
    assert_string_equal(json_string_value(json_object_get(o, "general.architecture")), "qwen2");
    assert_true(json_integer_value(json_object_get(o, "general.parameter_count")) > 1000);
    assert_true(json_integer_value(json_object_get(o, "qwen2.context_length")) > 0);
    assert_true(json_integer_value(json_object_get(o, "qwen2.embedding_length")) > 0);
    json_decref(o);
    if (engine_head_tensors(model("qwen2_tied"), &t, &e))
        fail_msg("%s", e.text);
    assert_true(json_array_size(t) > 5);
    json_t *row = json_array_get(t, 0);
    assert_non_null(json_string_value(json_object_get(row, "name")));
    assert_non_null(json_string_value(json_object_get(row, "type")));
    assert_true(json_array_size(json_object_get(row, "shape")) > 0);
    json_decref(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_as_engine),
        cmocka_unit_test(test_other_template),
        cmocka_unit_test(test_no_model),
        cmocka_unit_test(test_metadata),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
