/* Writing safetensors: what is written is read back, and what cannot be written is refused. */
#include "build.h"

#include "base/file.h"
#include "format/safetensors.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct temp tmp;
static struct err e;

static int setup(void **state)
{
    temp_new(&tmp);
    memset(&e, 0, sizeof e);
    return 0;
}

static int teardown(void **state)
{
    temp_free(&tmp);
    return 0;
}

static const struct {
    const char *name, *dtype;
    int dims;
    uint64_t shape[SOURCE_DIMS];
    size_t bytes;
} tensors[] = {
    {"model.a \"quoted\\\xc3\xa9\"", "F32", 2, {3, 5}, 60},
    {"b", "BF16", 1, {10}, 20},
    {"scalar", "I64", 0, {0}, 8},
    {"none", "F16", 2, {0, 4}, 0},
    {"fp8", "F8_E4M3", 4, {1, 2, 3, 4}, 24},
    {"four", "F4", 1, {6}, 3},
    {"last", "F32", 1, {0}, 0},
};

enum { COUNT = sizeof tensors / sizeof *tensors, BYTES = 60 + 20 + 8 + 24 + 3 };

static void write_all(const char *path, uint64_t max_shard, size_t piece)
{
    struct safetensors_writer *w;
    uint8_t data[BYTES];

    assert_int_equal(safetensors_writer_new(&w, path, max_shard, &e), 0);
    assert_int_equal(safetensors_put_string(w, "k", "v\n\"\\\x01", 5, &e), 0);
    for (size_t i = 0; i < COUNT; i++)
        if (safetensors_add_tensor(w, tensors[i].name, tensors[i].dtype, tensors[i].dims,
                                   tensors[i].shape, &e))
            fail_msg("%s", e.text);
    for (size_t i = 0; i < BYTES; i++)
        data[i] = (uint8_t)(i * 7 + 1);
    for (size_t at = 0; at < BYTES; at += piece)
        assert_int_equal(
            safetensors_write_data(w, data + at, BYTES - at < piece ? BYTES - at : piece, &e), 0);
    assert_int_equal(file_kind(path), FILE_NONE); /* not before the commit */
    if (safetensors_writer_commit(w, &e))
        fail_msg("%s", e.text);
    safetensors_writer_free(w);
}

static void check_all(const char *path, size_t files)
{
    struct source *s = open_ok(path);
    size_t at = 0;

    assert_int_equal(source_tensor_count(s), COUNT);
    assert_int_equal(source_file_count(s), files);
    for (size_t i = 0; i < COUNT; i++) {
        const struct source_tensor *t = source_tensor(s, tensors[i].name);
        assert_non_null(t);
        assert_string_equal(t->dtype, tensors[i].dtype);
        assert_int_equal(t->dims, tensors[i].dims);
        for (int d = 0; d < t->dims; d++)
            assert_int_equal(t->shape[d], tensors[i].shape[d]);
        assert_int_equal(t->bytes, tensors[i].bytes);
        for (size_t k = 0; k < t->bytes; k++)
            assert_int_equal(t->data[k], (uint8_t)((at + k) * 7 + 1));
        at += t->bytes;
    }
    assert_int_equal(at, BYTES);
    source_free(s);
}

static size_t files_in(const char *dir)
{
    size_t n = 0;
    DIR *d = opendir(dir);

    assert_non_null(d);
    for (struct dirent *entry; (entry = readdir(d));)
        n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static void test_one_file(void **state)
{
    static const size_t pieces[] = {1, 7, 60, 1000};

    for (size_t i = 0; i < 4; i++) {
        const char *path = temp_path(&tmp, "m.safetensors");
        struct source *s;
        write_all(path, i ? 0 : BYTES, pieces[i]);
        check_all(path, 1);
        s = open_ok(path);
        assert_int_equal(source_tensor_at(s, 0)->offset % 8, 0);
        assert_memory_equal(source_value(s, "__metadata__.format")->s.p, "pt", 2);
        assert_memory_equal(source_value(s, "__metadata__.k")->s.p, "v\n\"\\\x01", 5);
        source_free(s);
        assert_int_equal(files_in(tmp.dir), 1);
        remove(path);
    }
}

static void test_shards(void **state)
{
    static const struct {
        uint64_t max;
        size_t files;
    } rows[] = {{1, 5}, {60, 2}, {80, 2}, {87, 2}, {88, 2}, {114, 2}};

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char dir[32], name[96];
        struct stat st;
        snprintf(dir, sizeof dir, "hf%zu", i);
        snprintf(name, sizeof name, "%s/config.json", dir);
        temp_text(&tmp, name, "{}");
        snprintf(name, sizeof name, "%s/model.safetensors", dir);
        write_all(temp_path(&tmp, name), rows[i].max, 9);
        check_all(temp_path(&tmp, dir), rows[i].files);
        assert_int_equal(files_in(temp_path(&tmp, dir)), rows[i].files + 2);
        snprintf(name, sizeof name, "%s/model-00001-of-%05zu.safetensors", dir, rows[i].files);
        assert_int_equal(stat(temp_path(&tmp, name), &st), 0);
    }
}

static void test_empty(void **state)
{
    const char *path = temp_path(&tmp, "m.safetensors");
    struct safetensors_writer *w;

    assert_int_equal(safetensors_writer_new(&w, path, 10, &e), 0);
    assert_int_equal(safetensors_put_string(w, "format", "np", 2, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), ERR_USAGE); /* once only */
    safetensors_writer_free(w);
    struct source *s = open_ok(path);
    assert_int_equal(source_tensor_count(s), 0);
    assert_memory_equal(source_value(s, "__metadata__.format")->s.p, "np", 2);
    source_free(s);
}

/* Each misuse on a fresh writer: the first error, and that all is refused after it. */
static void test_refused(void **state)
{
    static const uint64_t two[] = {2}, big[] = {1ull << 33, 1ull << 33}, huge[] = {UINT64_MAX};
    static const struct {
        const char *name, *dtype;
        int dims;
        const uint64_t *shape;
        const char *word;
    } rows[] = {
        {"", "F32", 1, two, "empty"},         {"a\x1b", "F32", 1, two, "control"},
        {"a\xff", "F32", 1, two, "UTF-8"},    {"__metadata__", "F32", 1, two, "format"},
        {"a", "Q4_K", 1, two, "Q4_K"},        {"a", NULL, 1, two, "NULL"},
        {"a", "F32", 5, two, "5 dimensions"}, {"a", "F32", -1, two, "dimensions"},
        {"a", "F32", 2, big, "overflow"},     {"a", "F32", 1, huge, "overflow"},
        {"a", "F6_E2M3", 1, two, "bytes"},
    };
    const char *path = temp_path(&tmp, "m.safetensors");
    struct safetensors_writer *w;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_int_equal(safetensors_writer_new(&w, path, 0, &e), 0);
        assert_int_equal(
            safetensors_add_tensor(w, rows[i].name, rows[i].dtype, rows[i].dims, rows[i].shape, &e),
            ERR_USAGE);
        if (!strstr(e.text, rows[i].word) || !strstr(e.text, "m.safetensors"))
            fail_msg("expected '%s' in: %s", rows[i].word, e.text);
        assert_int_equal(safetensors_add_tensor(w, "x", "F32", 1, two, &e), ERR_USAGE);
        assert_int_equal(safetensors_writer_commit(w, &e), ERR_USAGE);
        safetensors_writer_free(w);
    }
    assert_int_equal(safetensors_writer_new(&w, temp_path(&tmp, "m.bin"), 0, &e), ERR_USAGE);
    assert_null(w);
    for (int kind = 0; kind < 6; kind++) {
        int rc;
        assert_int_equal(safetensors_writer_new(&w, path, 4, &e), 0);
        assert_int_equal(safetensors_add_tensor(w, "a", "F32", 1, two, &e), 0);
        assert_int_equal(safetensors_add_tensor(w, kind ? "b" : "a", "F32", 1, two, &e), 0);
        rc = kind == 3   ? safetensors_put_string(w, "k", "\xff", 1, &e)
             : kind == 4 ? safetensors_put_string(w, "\n", "x", 1, &e)
                         : safetensors_write_data(w, "12345678abcdefghi", kind == 1 ? 17 : 12, &e);
        if (kind == 2)
            rc = safetensors_writer_commit(w, &e);
        if (kind == 5)
            rc = safetensors_add_tensor(w, "c", "F32", 1, two, &e);
        assert_int_equal(rc, ERR_USAGE);
        assert_int_equal(safetensors_writer_commit(w, &e), ERR_USAGE);
        safetensors_writer_free(w);
    }
    safetensors_writer_free(NULL);
    assert_int_equal(files_in(tmp.dir), 0); /* nothing is left, no part either */
    assert_int_equal(safetensors_writer_new(&w, temp_path(&tmp, "no/m.safetensors"), 0, &e), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), ERR_IO);
    safetensors_writer_free(w);
}

/* A shard that cannot get its name: none of the others keeps its. */
static void test_names_together(void **state)
{
    struct safetensors_writer *w;
    char path[256];

    snprintf(path, sizeof path, "%s", temp_path(&tmp, "m.safetensors"));
    assert_int_equal(safetensors_writer_new(&w, path, 1, &e), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            safetensors_add_tensor(w, (const char *[]){"a", "b", "c"}[i], "U8", 0, NULL, &e), 0);
    assert_int_equal(safetensors_write_data(w, "xyz", 3, &e), 0);
    assert_int_equal(mkdir(temp_path(&tmp, "m-00003-of-00003.safetensors"), 0755), 0);
    assert_int_equal(safetensors_writer_commit(w, &e), ERR_IO);
    safetensors_writer_free(w);
    assert_int_equal(files_in(tmp.dir), 1); /* the folder in the way */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shards, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_together, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
