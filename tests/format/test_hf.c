/* safetensors and Hugging Face folders: tensors, configs, shards, texts, hostile ones. */
#include "build.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static struct temp tmp;

static int setup(void **state)
{
    temp_new(&tmp);
    return 0;
}

static int teardown(void **state)
{
    temp_free(&tmp);
    return 0;
}

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define B "\"b\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]}"

/* ---- safetensors --------------------------------------------------------------------------------
 */

static void test_safetensors(void **state)
{
    struct source *s = open_ok(temp_safetensors(
        &tmp, "m",
        "{\"__metadata__\":{\"format\":\"pt\"}," B "," A ",\"f\":{\"dtype\":\"F8_E4M3\","
        "\"shape\":[3,1],\"data_offsets\":[32,35]},\"z\":{\"dtype\":\"F32\",\"shape\":"
        "[0,7],\"data_offsets\":[35,35]},\"x\":{\"dtype\":\"I64\",\"shape\":[],"
        "\"data_offsets\":[35,43]}}   ",
        43));
    const struct source_tensor *t = source_tensor(s, "b");

    assert_int_equal(source_kind(s), SOURCE_HF);
    assert_int_equal(source_tensor_count(s), 5);
    assert_string_equal(source_tensor_at(s, 0)->name, "a"); /* order of the data, not the header */
    assert_int_equal(t->type->id, QUANT_BF16);
    assert_int_equal(t->dims, 1);
    assert_int_equal(t->shape[0], 4);
    assert_int_equal(t->bytes, 8);
    assert_int_equal(t->data[0], 24);
    t = source_tensor(s, "f");
    assert_int_equal(t->type->id, QUANT_E4M3);
    assert_string_equal(t->dtype, "F8_E4M3");
    assert_int_equal(t->bytes, 3);
    assert_int_equal(source_tensor(s, "z")->bytes, 0);
    assert_int_equal(source_tensor(s, "z")->shape[0], 0);
    assert_int_equal(source_tensor(s, "x")->dims, 0);
    assert_int_equal(source_tensor(s, "x")->shape[0], 1);
    assert_int_equal(source_value(s, "__metadata__.format")->s.n, 2);
    assert_int_equal(source_bytes(s), 43);
    source_free(s);
}

static void test_safetensors_escapes(void **state)
{
    struct source *s = open_ok(temp_safetensors(
        &tmp, "m",
        "{\"__metadata__\":{\"k\\\"\\/\":\"\\n\\t\\\\\\u20AC\\u0041\"},"
        "\"\\u00e9\\ud83d\\uDE00\\\"\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
        2));

    assert_non_null(source_tensor(s, "\xc3\xa9\xf0\x9f\x98\x80\""));
    assert_memory_equal(source_value(s, "__metadata__.k\"/")->s.p,
                        "\n\t\\\xe2\x82\xac"
                        "A",
                        7);
    source_free(s);
}

static void test_safetensors_refused(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *word, *word2;
    } rows[] = {
        {"", 0, "empty", NULL},
        {"hello world", 0, "JSON", NULL},
        {"[1,2,3]", 0, "an array", NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_off", 24, "JSON", NULL},
        {"{" A "}xyz", 24, "JSON", "xyz"},
        {"{\"a\xff\":1}", 0, "JSON", NULL},
        {"{" A "," A "}", 24, "duplicate", "\"a\""},
        {"{" A "," B "}", 30, "'b'", "truncated"},
        {"{" A "," B "}", 37, "37 bytes of data", NULL},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[24,0]}}", 24, "'a'", "ends"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[1000,1024]}}", 24, "'a'",
         "1024"},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[20,28]}}", 28, "'b'",
         "shares"},
        {"{" A ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[26,34]}}", 34, "'b'",
         "hole"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[8],\"data_offsets\":[0,24]}}", 24, "'a'",
         "32 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[-24,0]}}", 24, "'a'",
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,12,24]}}", 24, "'a'",
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[\"0\",24]}}", 24, "'a'",
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0.5,24]}}", 24, "'a'",
         "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6],\"data_offsets\":[0,18446744073709551640]}}", 24,
         "JSON", "18446744073709551640"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[6]}}", 24, "'a'", "data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2,-3],\"data_offsets\":[0,24]}}", 24, "'a'",
         "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.5,3],\"data_offsets\":[0,24]}}", 24, "'a'",
         "dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,[3]],\"data_offsets\":[0,24]}}", 24, "'a'",
         "dimension 1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,24]}}",
         24, "'a'", "overflow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,6],\"data_offsets\":[0,24]}}",
         24, "'a'", "overflow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,24]}}", 24,
         "'a'", "overflow"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,6],\"data_offsets\":[0,24]}}", 24, "'a'",
         "5 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,24]}}", 24, "'a'", "'shape'"},
        {"{\"a\":{\"dtype\":\"F33\",\"shape\":[6],\"data_offsets\":[0,24]}}", 24, "'a'", "F33"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "'a'",
         "whole number of bytes"},
        {"{\"a\":{\"dtype\":4,\"shape\":[6],\"data_offsets\":[0,24]}}", 24, "'a'", "'dtype'"},
        {"{\"a\":{\"shape\":[6],\"data_offsets\":[0,24]}}", 24, "'a'", "missing"},
        {"{\"a\":5}", 0, "'a'", "an integer"},
        {"{\"\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "name", "empty"},
        {"{\"a\\u001b\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1, "name",
         "control"},
        {"{\"__metadata__\":[1]," A "}", 24, "__metadata__", "an array"},
        {"{\"__metadata__\":{\"n\":5}," A "}", 24, "'n'", "an integer"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *path = temp_safetensors(&tmp, "bad.safetensors", rows[i].header, rows[i].data);
        assert_refused(path, rows[i].word, rows[i].word2);
        assert_refused(path, "bad.safetensors", NULL);
    }
}

static void test_safetensors_lengths(void **state)
{
    struct bytes *b = calloc(1, sizeof *b);

    assert_non_null(b);
    put_u64(b, 0);
    assert_refused(temp_write(&tmp, "m.safetensors", b->p, 0), "empty", NULL);
    assert_refused(temp_write(&tmp, "m.safetensors", b->p, 7), "7 bytes", NULL);
    assert_refused(temp_write(&tmp, "m.safetensors", b->p, 8), "empty", NULL);
    b->n = 0;
    put_u64(b, UINT64_MAX);
    put(b, "{}", 2);
    assert_refused(temp_write(&tmp, "m.safetensors", b->p, b->n), "18446744073709551615", NULL);
    b->n = 0;
    put_u64(b, 100000);
    for (int i = 0; i < 100000; i++)
        put(b, "[", 1);
    assert_refused(temp_write(&tmp, "m.safetensors", b->p, b->n), "nested", NULL);
    free(b);
}

/* ---- folders ------------------------------------------------------------------------------------
 */

static const char config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"neg\":-3,\"eps\":1e-5,\"tied\":false,\"none\":"
    "null,"
    "\"rope_scaling\":{\"factor\":8.0,\"deep\":{\"er\":\"x\"}},\"empty\":{},\"eos\":[1,2],"
    "\"mixed\":[1,\"a\"],\"reals\":[1,2.5],\"nested\":[[7]],\"objects\":[{}]}";

static void test_folder(void **state)
{
    const struct source_value *v;
    struct source_value x, y;
    struct source *s;
    struct err e;

    temp_text(&tmp, "hf/config.json", config);
    temp_safetensors(&tmp, "hf/model.safetensors", "{" A "," B "}", 32);
    s = open_ok(temp_path(&tmp, "hf"));
    assert_int_equal(source_kind(s), SOURCE_HF);
    assert_int_equal(source_tensor_count(s), 2);
    assert_int_equal(source_value(s, "hidden_size")->type, SOURCE_INT);
    assert_int_equal(source_value(s, "hidden_size")->i, 16);
    assert_int_equal(source_value(s, "neg")->i, -3);
    assert_true(source_value(s, "eps")->f == 1e-5);
    assert_int_equal(source_value(s, "tied")->type, SOURCE_BOOL);
    assert_int_equal(source_value(s, "none")->type, SOURCE_NULL);
    assert_true(source_value(s, "rope_scaling.factor")->f == 8.0);
    assert_memory_equal(source_value(s, "rope_scaling.deep.er")->s.p, "x", 1);
    assert_null(source_value(s, "rope_scaling"));
    assert_null(source_value(s, "empty"));
    v = source_value(s, "eos");
    assert_int_equal(v->type, SOURCE_ARRAY);
    assert_int_equal(v->item, SOURCE_INT);
    assert_int_equal(v->count, 2);
    assert_int_equal(source_array_get(s, v, 1, &x, &e), 0);
    assert_int_equal(x.i, 2);
    assert_int_equal(source_array_get(s, v, 2, &x, &e), ERR_USAGE);
    assert_int_equal(source_value(s, "mixed")->item, SOURCE_NULL);
    assert_int_equal(source_array_get(s, source_value(s, "mixed"), 1, &x, &e), 0);
    assert_int_equal(x.type, SOURCE_STRING);
    assert_int_equal(source_value(s, "reals")->item, SOURCE_FLOAT);
    assert_int_equal(source_array_get(s, source_value(s, "nested"), 0, &x, &e), 0);
    assert_int_equal(x.type, SOURCE_ARRAY);
    assert_int_equal(source_array_get(s, &x, 0, &y, &e), 0);
    assert_int_equal(y.i, 7);
    assert_int_equal(source_array_get(s, source_value(s, "objects"), 0, &x, &e), ERR_UNSUPPORTED);
    source_free(s);
}

static const char *bad_config(const char *text)
{
    temp_text(&tmp, "hf/config.json", text);
    return temp_path(&tmp, "hf");
}

static void test_config_refused(void **state)
{
    char *big;

    temp_safetensors(&tmp, "hf/model.safetensors", "{" A "," B "}", 32);
    assert_refused(temp_path(&tmp, "hf"), "config.json is missing", NULL);
    assert_refused(bad_config(""), "config.json", "empty");
    assert_refused(bad_config("[1]"), "config.json", "an array");
    assert_refused(bad_config("{\"a\":"), "config.json", "JSON");
    assert_refused(bad_config("{\"a\":\"\xff\"}"), "config.json", "JSON");
    assert_refused(bad_config("{\"a.b\":1,\"a\":{\"b\":2}}"), "'a.b'", "twice");
    assert_refused(bad_config("{\"a\\n\":1}"), "config.json", "control");
    big = calloc(1, 40 * 6 + 1);
    assert_non_null(big);
    for (int i = 0; i < 40; i++)
        strcat(big, "{\"a\":");
    assert_refused(bad_config(big), "config.json", "nested");
    free(big);
    /* Two million empty arrays would take 200 MB as a tree. */
    big = malloc(6000002);
    assert_non_null(big);
    memcpy(big, "{\"a\":[", 6);
    for (size_t i = 6; i < 6000000; i += 3)
        memcpy(big + i, "[],", 3);
    big[5999999] = '\0';
    assert_refused(bad_config(big), "config.json", "more than");
    free(big);
    remove(temp_path(&tmp, "hf/config.json"));
    assert_int_equal(mkfifo(temp_path(&tmp, "hf/config.json"), 0600), 0);
    assert_refused(temp_path(&tmp, "hf"), "config.json", "regular");
}

static void write_shards(const char *index)
{
    temp_text(&tmp, "hf/config.json", config);
    temp_safetensors(&tmp, "hf/s-1.safetensors", "{" A "}", 24);
    temp_safetensors(&tmp, "hf/sub/s-2.safetensors",
                     "{\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", 4);
    temp_text(&tmp, "hf/model.safetensors.index.json", index);
}

static void test_shards(void **state)
{
    struct source *s;

    write_shards("{\"metadata\":{},\"weight_map\":{\"b\":\"sub/s-2.safetensors\","
                 "\"a\":\"s-1.safetensors\"}}");
    for (int k = 0; k < 2; k++) { /* the folder, or the index in it */
        s = open_ok(temp_path(&tmp, k ? "hf/model.safetensors.index.json" : "hf"));
        assert_int_equal(source_kind(s), SOURCE_HF);
        assert_int_equal(source_file_count(s), 2);
        assert_int_equal(source_tensor_count(s), 2);
        assert_non_null(
            strstr(source_file_path(s, (size_t)source_tensor(s, "a")->file), "s-1.safe"));
        assert_int_equal(source_tensor(s, "b")->data[3], 3);
        assert_non_null(source_value(s, "hidden_size"));
        source_free(s);
    }
}

static void test_shards_refused(void **state)
{
    static const struct {
        const char *index, *word, *word2;
    } rows[] = {
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "../x.safetensors", "not inside"},
        {"{\"weight_map\":{\"a\":\"sub/../../x\"}}", "sub/../../x", "not inside"},
        {"{\"weight_map\":{\"a\":\"sub/..\"}}", "sub/..", "not inside"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "/etc/passwd", "not inside"},
        {"{\"weight_map\":{\"a\":\"\"}}", "'a'", "not inside"},
        {"{\"weight_map\":{\"a\":\"s-3.safetensors\"}}", "s-3.safetensors", "missing"},
        {"{\"weight_map\":{\"a\":5}}", "'a'", "an integer"},
        {"{\"weight_map\":[1]}", "'weight_map'", "an array"},
        {"{\"weight_map\":{}}", "'weight_map'", "empty"},
        {"{\"metadata\":{}}", "'weight_map'", "missing"},
        {"{\"weight_map\":{\"a\":\"s-1", "index.json", "JSON"},
        {"", "index.json", "empty"},
        {"{\"weight_map\":{\"a\":\"model.safetensors.index.json\"}}", "index.json", "truncated"},
        {"{\"weight_map\":{\"a\":\"s-1.safetensors\",\"q\":\"s-1.safetensors\"}}", "'q'",
         "s-1.safetensors"},
        {"{\"weight_map\":{\"a\":\"sub/s-2.safetensors\"}}", "'a'", "sub/s-2.safetensors"},
        {"{\"weight_map\":{\"a\":\"sub\"}}", "sub", "directory"},
        {"{\"weight_map\":{\"a\":\"config.json\"}}", "config.json", NULL},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_shards(rows[i].index);
        assert_refused(temp_path(&tmp, "hf"), rows[i].word, rows[i].word2);
    }
    /* One tensor in two shards. */
    write_shards("{\"weight_map\":{\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\"}}");
    temp_safetensors(&tmp, "hf/s-2.safetensors", "{" A "," B "}", 32);
    assert_refused(temp_path(&tmp, "hf"), "'a'", "two files");
}

static void test_what_is_it(void **state)
{
    struct source *s;

    mkdir(temp_path(&tmp, "d"), 0755);
    assert_refused(temp_path(&tmp, "d"), "no model here", "config.json with .safetensors");
    temp_text(&tmp, "d/config.json", config);
    assert_refused(temp_path(&tmp, "d"), "no weights", "model.safetensors");
    temp_text(&tmp, "d/pytorch_model.bin", "x");
    assert_refused(temp_path(&tmp, "d"), "no weights", "PyTorch");
    temp_safetensors(&tmp, "d/odd.safetensors", "{" A "," B "}", 32);
    source_free(open_ok(temp_path(&tmp, "d"))); /* the only weights there are */
    temp_safetensors(&tmp, "d/odd2.safetensors", "{" A "," B "}", 32);
    assert_refused(temp_path(&tmp, "d"), "2 .safetensors files", "index.json");
    temp_text(&tmp, "d/m.gguf", "no");
    assert_refused(temp_path(&tmp, "d"), "m.gguf", "not a GGUF file");
    temp_text(&tmp, "d/n.gguf", "no");
    assert_refused(temp_path(&tmp, "d"), "2 models", "m.gguf");

    assert_refused(temp_path(&tmp, "none"), "none", "no such file");
    assert_refused(temp_text(&tmp, "f.gguf", "version https://git-lfs.github.com/spec/v1\noid"),
                   "git lfs pull", NULL);
    assert_refused(temp_text(&tmp, "f.gguf", "<!DOCTYPE html><html>"), "web page", NULL);
    assert_refused(temp_text(&tmp, "f.bin", "PK\003\004abcdefgh"), "PyTorch", NULL);
    assert_refused(temp_text(&tmp, "f.txt", "# Some text\n"), "f.txt", "\"# Some t\"");
    assert_refused(temp_text(&tmp, "f.txt", ""), "empty", NULL);
    assert_refused("/dev/null", "/dev/null", "regular");
    assert_int_equal(mkfifo(temp_path(&tmp, "fifo"), 0600), 0);
    assert_refused(temp_path(&tmp, "fifo"), "fifo", "regular");

    /* A folder with a GGUF file that lacks safetensors is that GGUF file, config.json or not. */
    temp_text(&tmp, "g/config.json", config);
    assert_int_equal(symlink(GOLDEN_DIR "/format/gguf_py.gguf", temp_path(&tmp, "g/m.gguf")), 0);
    s = open_ok(temp_path(&tmp, "g"));
    assert_int_equal(source_kind(s), SOURCE_GGUF);
    assert_string_equal(source_path(s) + strlen(source_path(s)) - 2, "/g");
    source_free(s);
}

/* ---- texts --------------------------------------------------------------------------------------
 */

static void assert_text(struct source *s, const char *name, const char *want)
{
    const char *text = "unset";
    struct err e;
    size_t n;

    for (int k = 0; k < 2; k++) { /* the second time it is kept */
        assert_int_equal(source_text(s, name, &text, &n, &e), 0);
        if (!want) {
            assert_null(text);
        } else {
            assert_int_equal(n, strlen(want));
            assert_string_equal(text, want);
        }
    }
}

static void test_texts(void **state)
{
    const char *text;
    struct source *s;
    struct err e;
    size_t n;

    temp_text(&tmp, "t/tokenizer.json", "{\"tok\":1}");
    temp_text(&tmp, "t/chat_template.jinja", "");
    temp_text(&tmp, "secret", "x");
    s = open_ok(temp_path(&tmp, "t"));
    assert_int_equal(source_kind(s), SOURCE_TOKENIZER);
    assert_int_equal(source_tensor_count(s), 0);
    assert_null(source_tensor(s, "a"));
    assert_null(source_value(s, "a"));
    assert_text(s, "tokenizer.json", "{\"tok\":1}");
    assert_text(s, "chat_template.jinja", "");
    assert_text(s, "tokenizer_config.json", NULL);
    assert_text(s, "../secret", NULL);
    mkdir(temp_path(&tmp, "t/generation_config.json"), 0755);
    assert_int_equal(source_text(s, "generation_config.json", &text, &n, &e), ERR_IO);
    assert_null(text);
    source_free(s);

    /* The file itself: its neighbours count when it has the usual name. */
    s = open_ok(temp_path(&tmp, "t/tokenizer.json"));
    assert_int_equal(source_kind(s), SOURCE_TOKENIZER);
    assert_text(s, "tokenizer.json", "{\"tok\":1}");
    assert_text(s, "chat_template.jinja", "");
    source_free(s);
    temp_text(&tmp, "t/other.json", "{\"tok\":2}");
    s = open_ok(temp_path(&tmp, "t/other.json"));
    assert_text(s, "tokenizer.json", "{\"tok\":2}");
    assert_text(s, "chat_template.jinja", NULL);
    source_free(s);

    /* A config without weights still serves for its tokenizer. */
    temp_text(&tmp, "t/config.json", "{}");
    s = open_ok(temp_path(&tmp, "t"));
    assert_int_equal(source_kind(s), SOURCE_TOKENIZER);
    source_free(s);
    temp_safetensors(&tmp, "t/model.safetensors", "{" A "," B "}", 32);
    s = open_ok(temp_path(&tmp, "t"));
    assert_int_equal(source_kind(s), SOURCE_HF);
    assert_text(s, "tokenizer.json", "{\"tok\":1}");
    source_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_safetensors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_safetensors_escapes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_safetensors_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_safetensors_lengths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_folder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_texts, setup, teardown),
    };

    return cmocka_run_group_tests_name("format/hf", tests, NULL, NULL);
}
