/* Writing GGUF: what is written is read back, and what cannot be written is refused. */
#include "build.h"

#include "base/file.h"
#include "format/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

enum { STRINGS = 5000 };

static const uint64_t shape_a[] = {3, 5}, shape_b[] = {2, 4, 64}, shape_c[] = {1};

static void byte_pattern(uint8_t *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 7 + seed);
}

/* One file with a value of each kind and three tensors; data in pieces of `piece` bytes. */
static void write_all(const char *path, size_t piece, uint32_t align)
{
    static uint8_t data[60 + 544 + 4];
    char text[STRINGS][8];
    const char *s[STRINGS];
    size_t n[STRINGS];
    int32_t ints[] = {-1, 0, 1};
    double reals[] = {0.25, -1e300};
    struct gguf_writer *w;

    for (size_t i = 0; i < STRINGS; i++) {
        snprintf(text[i], sizeof text[i], "t%zu", i);
        s[i] = text[i];
        n[i] = i % 10 ? strlen(text[i]) : 0;
    }
    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    assert_int_equal(gguf_put_string(w, "general.architecture", "llama", 5, &e), 0);
    assert_int_equal(gguf_put_u16(w, "k.u16", 65535, &e), 0);
    assert_int_equal(gguf_put_u32(w, "k.u32", UINT32_MAX, &e), 0);
    assert_int_equal(gguf_put_u64(w, "k.u64", UINT64_MAX, &e), 0);
    assert_int_equal(gguf_put_i32(w, "k.i32", INT32_MIN, &e), 0);
    assert_int_equal(gguf_put_f32(w, "k.f32", 0.1f, &e), 0);
    assert_int_equal(gguf_put_bool(w, "k.bool", true, &e), 0);
    assert_int_equal(gguf_put_strings(w, "k.strings", s, n, STRINGS, &e), 0);
    assert_int_equal(gguf_put_array(w, "k.ints", GGUF_I32, ints, 3, &e), 0);
    assert_int_equal(gguf_put_array(w, "k.reals", GGUF_F64, reals, 2, &e), 0);
    assert_int_equal(gguf_put_array(w, "k.none", GGUF_F32, NULL, 0, &e), 0);
    if (align != 32)
        assert_int_equal(gguf_put_u32(w, "general.alignment", align, &e), 0);
    assert_int_equal(gguf_add_tensor(w, "a", quant_by_id(QUANT_F32), 2, shape_a, &e), 0);
    assert_int_equal(gguf_add_tensor(w, "b", quant_by_id(QUANT_Q8_0), 3, shape_b, &e), 0);
    assert_int_equal(gguf_add_tensor(w, "c", quant_by_id(QUANT_F32), 1, shape_c, &e), 0);
    byte_pattern(data, sizeof data, 1);
    for (size_t at = 0; at < sizeof data; at += piece) {
        size_t left = sizeof data - at;
        assert_int_equal(gguf_write_data(w, data + at, left < piece ? left : piece, &e), 0);
    }
    assert_int_equal(file_kind(path), FILE_NONE); /* not before the commit */
    assert_int_equal(gguf_writer_commit(w, &e), 0);
    gguf_writer_free(w);
}

static void check_all(const char *path, uint32_t align)
{
    struct source *s = open_ok(path);
    uint8_t want[60 + 544 + 4];
    const char *names[] = {"a", "b", "c"};
    size_t at = 0;
    struct source_value v;

    assert_int_equal(source_value_count(s), align == 32 ? 11 : 12);
    assert_string_equal(source_value_at(s, 0, NULL), "general.architecture");
    assert_int_equal(source_value(s, "k.u16")->u, 65535);
    assert_int_equal(source_value(s, "k.u32")->u, UINT32_MAX);
    assert_int_equal(source_value(s, "k.u64")->u, UINT64_MAX);
    assert_int_equal(source_value(s, "k.i32")->i, INT32_MIN);
    assert_true(source_value(s, "k.f32")->f == (double)0.1f);
    assert_true(source_value(s, "k.bool")->b);
    assert_int_equal(source_value(s, "k.none")->count, 0);
    for (uint64_t i = STRINGS; i-- > 0;) {
        char text[8];
        snprintf(text, sizeof text, "t%d", (int)i);
        assert_int_equal(source_array_get(s, source_value(s, "k.strings"), i, &v, &e), 0);
        assert_int_equal(v.s.n, i % 10 ? strlen(text) : 0);
        assert_memory_equal(v.s.p, text, v.s.n);
    }
    assert_int_equal(source_array_get(s, source_value(s, "k.reals"), 1, &v, &e), 0);
    assert_true(v.f == -1e300);

    byte_pattern(want, sizeof want, 1);
    assert_int_equal(source_tensor_count(s), 3);
    for (int i = 0; i < 3; i++) {
        const struct source_tensor *t = source_tensor_at(s, (size_t)i);
        assert_string_equal(t->name, names[i]);
        assert_int_equal(t->offset % align, 0);
        assert_memory_equal(t->data, want + at, t->bytes);
        at += t->bytes;
    }
    assert_int_equal(at, sizeof want);
    assert_int_equal(source_tensor(s, "b")->dims, 3);
    assert_memory_equal(source_tensor(s, "b")->shape, shape_b, sizeof shape_b);
    source_free(s);
}

static void test_round_trip(void **state)
{
    static const size_t pieces[] = {1, 7, 60, 64, 1000};

    for (size_t i = 0; i < 5; i++) {
        const char *path = temp_path(&tmp, "out.gguf");
        write_all(path, pieces[i], 32);
        check_all(path, 32);
        remove(path);
        write_all(path, pieces[i], 8192);
        check_all(path, 8192);
        remove(path);
    }
}

/* Metadata of another file, copied byte for byte: all value types of a foreign writer. */
static void test_copy(void **state)
{
    const char *path = temp_path(&tmp, "copy.gguf");
    struct source *from = open_ok(GOLDEN_DIR "/format/gguf_py.gguf"), *to;
    struct gguf_writer *w;
    const char *key;

    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    for (size_t i = 0; (key = source_value_at(from, i, NULL)); i++)
        assert_int_equal(gguf_copy(w, from, key, &e), 0);
    for (size_t i = 0; i < source_tensor_count(from); i++) {
        const struct source_tensor *t = source_tensor_at(from, i);
        assert_int_equal(gguf_add_tensor(w, t->name, t->type, t->dims, t->shape, &e), 0);
    }
    for (size_t i = 0; i < source_tensor_count(from); i++) {
        const struct source_tensor *t = source_tensor_at(from, i);
        assert_int_equal(gguf_write_data(w, t->data, t->bytes, &e), 0);
    }
    assert_int_equal(gguf_writer_commit(w, &e), 0);
    gguf_writer_free(w);

    to = open_ok(path);
    assert_int_equal(source_value_count(to), source_value_count(from));
    for (size_t i = 0; (key = source_value_at(from, i, NULL)); i++) {
        const struct source_value *x = source_value(from, key), *y = source_value(to, key);
        assert_int_equal(x->type, y->type);
        assert_int_equal(x->raw_type, y->raw_type);
        if (x->type != SOURCE_ARRAY && x->type != SOURCE_STRING)
            assert_int_equal(x->u, y->u);
        assert_int_equal(x->count, y->count);
        for (uint64_t k = 0; k < x->count; k++) {
            struct source_value p, q;
            assert_int_equal(source_array_get(from, x, k, &p, &e), 0);
            assert_int_equal(source_array_get(to, y, k, &q, &e), 0);
            if (p.type == SOURCE_STRING) {
                assert_int_equal(p.s.n, q.s.n);
                assert_memory_equal(p.s.p, q.s.p, p.s.n);
            } else {
                assert_int_equal(p.u, q.u);
            }
        }
    }
    source_free(to);
    source_free(from);
}

static void test_empty(void **state)
{
    const char *path = temp_path(&tmp, "empty.gguf");
    struct gguf_writer *w;
    struct source *s;

    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    assert_int_equal(gguf_writer_commit(w, &e), 0);
    gguf_writer_free(w);
    s = open_ok(path);
    assert_int_equal(source_value_count(s), 0);
    assert_int_equal(source_tensor_count(s), 0);
    source_free(s);
}

/* Without a commit nothing is left, neither the file nor the part. */
static void test_abort(void **state)
{
    const char *path = temp_path(&tmp, "sub/out.gguf");
    struct gguf_writer *w;

    temp_text(&tmp, "sub/old", "");
    assert_int_equal(gguf_writer_new(&w, path, &e), 0);
    assert_int_equal(gguf_add_tensor(w, "a", quant_by_id(QUANT_F32), 1, (uint64_t[]){4}, &e), 0);
    assert_int_equal(gguf_write_data(w, "12345678", 8, &e), 0);
    assert_int_equal(gguf_writer_commit(w, &e), ERR_USAGE); /* half a tensor */
    assert_non_null(strstr(e.text, "'a' has 8 of its 16 bytes"));
    assert_int_equal(gguf_writer_commit(w, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "failed before"));
    gguf_writer_free(w);
    remove(temp_path(&tmp, "sub/old"));
    assert_int_equal(remove(temp_path(&tmp, "sub")), 0); /* the folder is empty */
    assert_int_equal(gguf_writer_new(&w, temp_path(&tmp, "none/out.gguf"), &e), ERR_IO);
    assert_null(w);
    gguf_writer_free(NULL);
}

static int f_late_key(struct gguf_writer *w)
{
    gguf_add_tensor(w, "a", quant_by_id(QUANT_F32), 1, (uint64_t[]){4}, &e);
    gguf_write_data(w, "1234", 4, &e);
    return gguf_put_u32(w, "late", 1, &e);
}
static int f_key_twice(struct gguf_writer *w)
{
    gguf_put_u32(w, "key", 1, &e);
    gguf_put_bool(w, "key", true, &e);
    return gguf_writer_commit(w, &e);
}
static int f_tensor_twice(struct gguf_writer *w)
{
    gguf_add_tensor(w, "tensor", quant_by_id(QUANT_F32), 1, (uint64_t[]){4}, &e);
    gguf_add_tensor(w, "tensor", quant_by_id(QUANT_F32), 1, (uint64_t[]){4}, &e);
    return gguf_write_data(w, "1234", 4, &e);
}
static int f_empty_key(struct gguf_writer *w)
{
    return gguf_put_u32(w, "", 1, &e);
}
static int f_utf8(struct gguf_writer *w)
{
    return gguf_put_string(w, "key", "\xff", 1, &e);
}
static int f_array_of_strings(struct gguf_writer *w)
{
    return gguf_put_array(w, "key", GGUF_STRING, "", 1, &e);
}
static int f_alignment(struct gguf_writer *w)
{
    return gguf_put_u32(w, "general.alignment", 24, &e);
}
static int f_block(struct gguf_writer *w)
{
    return gguf_add_tensor(w, "q", quant_by_id(QUANT_Q4_K), 2, (uint64_t[]){256, 100}, &e);
}
static int f_zero(struct gguf_writer *w)
{
    return gguf_add_tensor(w, "z", quant_by_id(QUANT_F32), 2, (uint64_t[]){0, 4}, &e);
}
static int f_scalar(struct gguf_writer *w)
{
    return gguf_add_tensor(w, "z", quant_by_id(QUANT_F32), 0, NULL, &e);
}
static int f_huge(struct gguf_writer *w)
{
    return gguf_add_tensor(w, "h", quant_by_id(QUANT_F32), 2, (uint64_t[]){1ull << 33, 1ull << 33},
                           &e);
}
static int f_no_type(struct gguf_writer *w)
{
    return gguf_add_tensor(w, "n", NULL, 1, (uint64_t[]){4}, &e);
}
static int f_long_name(struct gguf_writer *w)
{
    char name[65];

    memset(name, 'n', 64);
    name[64] = '\0';
    return gguf_add_tensor(w, name, quant_by_id(QUANT_F32), 1, (uint64_t[]){4}, &e);
}
static int f_too_much(struct gguf_writer *w)
{
    gguf_add_tensor(w, "a", quant_by_id(QUANT_F32), 1, (uint64_t[]){1}, &e);
    return gguf_write_data(w, "12345", 5, &e);
}

static void test_refused(void **state)
{
    static const struct {
        int (*f)(struct gguf_writer *w);
        const char *word;
    } rows[] = {
        {f_late_key, "before the data"},
        {f_key_twice, "'key' is given twice"},
        {f_tensor_twice, "'tensor' is given twice"},
        {f_empty_key, "empty"},
        {f_utf8, "not UTF-8"},
        {f_array_of_strings, "'key'"},
        {f_alignment, "24"},
        {f_block, "'q': a row of 100"},
        {f_zero, "'z': dimension 0 is 0"},
        {f_scalar, "0 dimensions"},
        {f_huge, "'h'"},
        {f_no_type, "'n'"},
        {f_long_name, "63 bytes"},
        {f_too_much, "1 bytes of data more"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *path = temp_path(&tmp, "out.gguf");
        struct gguf_writer *w;
        assert_int_equal(gguf_writer_new(&w, path, &e), 0);
        assert_int_equal(rows[i].f(w), ERR_USAGE);
        if (!strstr(e.text, rows[i].word) || !strstr(e.text, "out.gguf"))
            fail_msg("expected '%s' in: %s", rows[i].word, e.text);
        assert_int_equal(gguf_writer_commit(w, &e), ERR_USAGE);
        gguf_writer_free(w);
        assert_int_equal(file_kind(path), FILE_NONE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_abort, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };

    return cmocka_run_group_tests_name("format/write", tests, NULL, NULL);
}
