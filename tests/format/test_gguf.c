/* Reading GGUF: values, tensors, hostile files, split sets. */
#include "build.h"

#include "format/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct spec spec;
static struct bytes file;
static struct temp tmp;

static int setup(void **state)
{
    spec_base(&spec);
    temp_new(&tmp);
    return 0;
}

static int teardown(void **state)
{
    temp_free(&tmp);
    return 0;
}

static const struct source_value *value(const struct source *s, const char *key,
                                        enum source_type type)
{
    const struct source_value *v = source_value(s, key);

    assert_non_null(v);
    assert_int_equal(v->type, type);
    return v;
}

static void assert_element(const struct source *s, const char *key, uint64_t i, const char *text)
{
    struct source_value v;
    struct err e = {0};

    assert_int_equal(source_array_get(s, value(s, key, SOURCE_ARRAY), i, &v, &e), 0);
    assert_int_equal(v.type, SOURCE_STRING);
    assert_int_equal(v.s.n, strlen(text));
    assert_memory_equal(v.s.p, text, v.s.n);
}

static void check_base(const struct source *s)
{
    const struct source_value *v;
    const struct source_tensor *t;
    struct source_value item;
    struct err e = {0};

    assert_int_equal(source_kind(s), SOURCE_GGUF);
    assert_int_equal(source_value_count(s), 14 + spec.n_extra);
    assert_string_equal(source_value_at(s, 0, &v), "general.architecture");
    assert_int_equal(v->type, SOURCE_STRING);
    assert_int_equal(v->s.n, 5);
    assert_memory_equal(v->s.p, "llama", 5);
    assert_null(source_value_at(s, source_value_count(s), &v));
    assert_int_equal(value(s, "x.u8", SOURCE_UINT)->u, 200);
    assert_int_equal(value(s, "x.i8", SOURCE_INT)->i, -100);
    assert_int_equal(value(s, "x.u16", SOURCE_UINT)->u, 60000);
    assert_int_equal(value(s, "x.i16", SOURCE_INT)->i, -30000);
    assert_int_equal(value(s, "x.u32", SOURCE_UINT)->u, 4000000000);
    assert_int_equal(value(s, "x.i32", SOURCE_INT)->i, -2000000000);
    assert_int_equal(value(s, "x.u64", SOURCE_UINT)->u, INT64_MAX);
    assert_int_equal(value(s, "x.i64", SOURCE_INT)->i, INT64_MIN);
    assert_true(value(s, "x.bool", SOURCE_BOOL)->b);
    assert_true(value(s, "x.f32", SOURCE_FLOAT)->f == (double)1e-5f);
    assert_true(value(s, "x.f64", SOURCE_FLOAT)->f == 0.1);
    assert_int_equal(value(s, "x.tokens", SOURCE_ARRAY)->count, 3);
    assert_int_equal(value(s, "x.tokens", SOURCE_ARRAY)->item, SOURCE_STRING);
    assert_element(s, "x.tokens", 2, "\xc4\xa0hello");
    assert_element(s, "x.tokens", 0, "<s>");
    assert_element(s, "x.tokens", 1, "");
    v = value(s, "x.ints", SOURCE_ARRAY);
    assert_int_equal(v->item, SOURCE_INT);
    assert_int_equal(source_array_get(s, v, 1, &item, &e), 0);
    assert_int_equal(item.i, -1);
    assert_int_equal(source_array_get(s, v, 3, &item, &e), ERR_USAGE);
    assert_int_equal(source_array_get(s, value(s, "x.u8", SOURCE_UINT), 0, &item, &e), ERR_USAGE);
    assert_null(source_value(s, "x.none"));
    assert_null(source_value(s, ""));

    assert_int_equal(source_tensor_count(s), 3);
    assert_int_equal(source_bytes(s), 128 + 32 + 136);
    t = source_tensor(s, "a");
    assert_ptr_equal(t, source_tensor_at(s, 0));
    assert_int_equal(t->type->id, QUANT_F32);
    assert_int_equal(t->dims, 2);
    assert_int_equal(t->shape[0], 4); /* outermost first */
    assert_int_equal(t->shape[1], 8);
    assert_int_equal(t->shape[2], 1);
    assert_int_equal(t->bytes, 128);
    t = source_tensor(s, "c");
    assert_string_equal(t->dtype, "Q8_0");
    assert_int_equal(t->bytes, 136);
    for (size_t i = 0; i < t->bytes; i++)
        assert_int_equal(t->data[i], (160 + i) % 251);
    assert_null(source_tensor(s, "d"));
    assert_null(source_tensor_at(s, 3));
    source_tensor_drop(s, t);
    assert_int_equal(t->data[1], 161);
}

static void open_and_check(const char *name)
{
    const char *text, *path;
    struct source *s;
    struct err e;
    size_t n;

    spec_write(&spec, &file);
    path = temp_write(&tmp, name, file.p, file.n);
    s = open_ok(path);
    check_base(s);
    assert_string_equal(source_path(s), path);
    assert_int_equal(source_file_count(s), 1);
    assert_string_equal(source_file_path(s, 0), path);
    assert_int_equal(source_text(s, "tokenizer.json", &text, &n, &e), 0);
    assert_null(text);
    source_free(s);
}

static void test_version_3(void **state)
{
    open_and_check("m.gguf");
}

static void test_version_2(void **state)
{
    spec.version = 2;
    open_and_check("m.gguf");
}

static void test_any_name(void **state)
{
    open_and_check("sha256-0123");
}

static void test_memory(void **state)
{
    struct err e;
    struct source *s;

    spec_write(&spec, &file);
    assert_int_equal(source_open_memory(&s, file.p, file.n, &e), 0);
    check_base(s);
    source_free(s);
    assert_int_equal(source_open_memory(&s, file.p, 3, &e), ERR_FORMAT);
    assert_null(s);
    source_free(NULL);
}

static void test_alignments(void **state)
{
    spec_key_u32(&spec, "general.alignment", 8);
    spec.align = 8;
    open_and_check("m.gguf");
    spec_base(&spec);
    put_u64(spec_key(&spec, "general.alignment", GGUF_U64), 32); /* any integer type */
    open_and_check("m.gguf");
}

/* Arrays in arrays are stepped over: what follows them is found. */
static void test_nested_array(void **state)
{
    struct bytes *b = spec_key(&spec, "x.nested", GGUF_ARRAY);
    struct source *s;
    struct source_value v;
    struct err e;

    put_u32(b, GGUF_ARRAY);
    put_u64(b, 2);
    put_u32(b, GGUF_STRING);
    put_u64(b, 1);
    put_str(b, "in");
    put_u32(b, GGUF_U16);
    put_u64(b, 2);
    put_u32(b, 7);
    spec_key_u32(&spec, "x.after", 9);
    open_and_check("m.gguf");
    s = open_ok(temp_path(&tmp, "m.gguf"));
    assert_int_equal(value(s, "x.after", SOURCE_UINT)->u, 9);
    assert_int_equal(value(s, "x.nested", SOURCE_ARRAY)->count, 2);
    assert_int_equal(source_array_get(s, value(s, "x.nested", SOURCE_ARRAY), 0, &v, &e),
                     ERR_UNSUPPORTED);
    source_free(s);
}

/* Integer tensors open, without a weight type: whoever needs weights refuses them. */
static void test_integer_tensor(void **state)
{
    struct source *s;

    spec.t[0].type = 26;
    spec_write(&spec, &file);
    s = open_ok(temp_write(&tmp, "m.gguf", file.p, file.n));
    assert_null(source_tensor(s, "a")->type);
    assert_string_equal(source_tensor(s, "a")->dtype, "I32");
    assert_int_equal(source_tensor(s, "a")->bytes, 128);
    source_free(s);
}

/* Tensors may lie in any order. */
static void test_unordered(void **state)
{
    struct spec_tensor t = spec.t[0];

    spec.t[0] = spec.t[2];
    spec.t[2] = t;
    spec_write(&spec, &file);
    source_free(open_ok(temp_write(&tmp, "m.gguf", file.p, file.n)));
}

/* ---- hostile files ------------------------------------------------------------------------------
 */

static void m_magic(void)
{
    spec.magic = "GGML";
}
static void m_version_0(void)
{
    spec.version = 0;
}
static void m_version_1(void)
{
    spec.version = 1;
}
static void m_version_99(void)
{
    spec.version = 99;
}
static void m_big_endian(void)
{
    spec.version = 3u << 24;
}
static void m_tensors_huge(void)
{
    spec.tensors = (uint64_t)1 << 63;
}
static void m_tensors_many(void)
{
    spec.tensors = 1000000;
}
static void m_tensors_one_more(void)
{
    spec.tensors = 4;
    spec.data = 0;
    spec.n_t = 3;
}
static void m_keys_huge(void)
{
    spec.keys = UINT64_MAX - 1;
}
static void m_key_long(void)
{
    spec.first_key = INT64_MAX;
}
static void m_key_past_end(void)
{
    spec.first_key = 5000;
}
static void m_key_empty(void)
{
    spec_key_u32(&spec, "", 1);
}
static void m_key_utf8(void)
{
    spec_key_u32(&spec, "llama.\xff\xfe", 1);
}
static void m_key_control(void)
{
    spec_key_u32(&spec, "llama.\x1b[2J", 1);
}
static void m_key_nul(void)
{
    struct bytes *b = &spec.extra[spec.n_extra++];

    put_u64(b, 6);
    put(b, "x.u32\0", 6);
    put_u32(b, GGUF_U32);
    put_u32(b, 1);
}
static void m_key_twice(void)
{
    spec_key_u32(&spec, "x.u32", 1);
}
static void m_value_type(void)
{
    spec_key(&spec, "x.bad", 99);
}
static void m_string_long(void)
{
    put_u64(spec_key(&spec, "x.bad", GGUF_STRING), (uint64_t)1 << 40);
}
static void array(uint32_t type, uint64_t count)
{
    struct bytes *b = spec_key(&spec, "x.bad", GGUF_ARRAY);

    put_u32(b, type);
    put_u64(b, count);
}
static void m_array_type(void)
{
    array(99, 2);
}
static void m_array_long(void)
{
    array(GGUF_U32, (uint64_t)1 << 60);
}
static void m_array_overflow(void)
{
    array(GGUF_F64, ((uint64_t)1 << 61) + 1);
}
static void m_array_strings(void)
{
    array(GGUF_STRING, (uint64_t)1 << 50);
}
static void m_array_string_cut(void)
{
    array(GGUF_STRING, 1);
    put_u64(&spec.extra[0], 1 << 20);
}
static void m_array_arrays(void)
{
    array(GGUF_ARRAY, (uint64_t)1 << 50);
}
static void m_array_deep(void)
{
    array(GGUF_ARRAY, 1);
    for (int i = 0; i < 5000; i++) {
        put_u32(&spec.extra[0], GGUF_ARRAY);
        put_u64(&spec.extra[0], 1);
    }
}
static void m_align_0(void)
{
    spec_key_u32(&spec, "general.alignment", 0);
}
static void m_align_24(void)
{
    spec_key_u32(&spec, "general.alignment", 24);
}
static void m_align_4(void)
{
    spec_key_u32(&spec, "general.alignment", 4);
}
static void m_align_string(void)
{
    put_str(spec_key(&spec, "general.alignment", GGUF_STRING), "32");
}
static void m_align_negative(void)
{
    put_u32(spec_key(&spec, "general.alignment", GGUF_I32), (uint32_t)-32);
}
static void m_align_huge(void)
{
    put_u64(spec_key(&spec, "general.alignment", GGUF_U64), (uint64_t)1 << 63);
}
static void m_name_twice(void)
{
    spec.t[1].name = "a";
}
static void m_same_twice(void)
{
    spec.t[1] = spec.t[0];
}
static void m_name_long(void)
{
    spec.t[1].name_n = 1000000000;
}
static void m_name_empty(void)
{
    spec.t[1].name = "";
}
static void m_overlap(void)
{
    spec.t[1].offset = 96;
}
static void m_unaligned(void)
{
    spec.t[1].offset += 4;
}
static void m_past_end(void)
{
    spec.t[1].offset = (uint64_t)1 << 40;
}
static void m_wrap(void)
{
    spec.t[1].offset = -(uint64_t)32;
}
static void m_dims_5(void)
{
    spec.t[0].announced = 5;
}
static void m_dims_huge(void)
{
    spec.t[0].announced = 1u << 31;
}
static void m_dim_negative(void)
{
    spec.t[0].dim[0] = UINT64_MAX;
}
static void m_dim_zero(void)
{
    spec.t[0].dim[1] = 0;
}
static void m_dim_overflow(void)
{
    spec.t[0].dim[0] = spec.t[0].dim[1] = (uint64_t)1 << 33;
}
static void m_size_overflow(void)
{
    spec.t[0].dim[0] = spec.t[0].dim[1] = (uint64_t)1 << 31;
}
static void m_dim_big(void)
{
    spec.t[0].dim[0] = 1 << 20;
}
static void m_type_4(void)
{
    spec.t[0].type = 4;
}
static void m_type_200(void)
{
    spec.t[0].type = 200;
}
static void m_type_max(void)
{
    spec.t[0].type = UINT32_MAX;
}
static void m_row(void)
{
    spec.t[0].type = QUANT_Q4_K;
}
static void m_data_cut(void)
{
    spec.data -= 30;
}
static void m_split_alone(void)
{
    spec_key_u32(&spec, "split.no", 0);
    spec_key_u32(&spec, "split.count", 2);
}
static void m_split_no(void)
{
    spec_key_u32(&spec, "split.no", 7);
    spec_key_u32(&spec, "split.count", 2);
}
static void m_split_huge(void)
{
    spec_key_u32(&spec, "split.no", 0);
    spec_key_u32(&spec, "split.count", UINT32_MAX);
}

static const struct {
    void (*mutate)(void);
    const char *word, *word2; /* the error has them: what is wrong, and where */
} hostile[] = {
    {m_magic, "GGML", "neither"},
    {m_version_0, "version 0", NULL},
    {m_version_1, "version 1", "convert"},
    {m_version_99, "version 99", NULL},
    {m_big_endian, "big-endian", NULL},
    {m_tensors_huge, "9223372036854775808 tensors", "download it again"},
    {m_tensors_many, "1000000 tensors", NULL},
    {m_tensors_one_more, "tensor 4 of 4", "damaged"},
    {m_keys_huge, "18446744073709551614 metadata keys", NULL},
    {m_key_long, "metadata key 1 of 14", "9223372036854775807"},
    {m_key_past_end, "metadata key 1 of 14", "5000 bytes"},
    {m_key_empty, "metadata key 15 of 15", "empty"},
    {m_key_utf8, "llama.", "UTF-8"},
    {m_key_control, "llama.?[2J", "control"},
    {m_key_nul, "x.u32?", "control"},
    {m_key_twice, "x.u32", "twice"},
    {m_value_type, "x.bad", "type 99"},
    {m_string_long, "x.bad", "truncated"},
    {m_array_type, "x.bad", "type 99"},
    {m_array_long, "x.bad", "1152921504606846976 u32"},
    {m_array_overflow, "x.bad", "2305843009213693953 f64"},
    {m_array_strings, "x.bad", "1125899906842624 string"},
    {m_array_string_cut, "x.bad", "string of an array"},
    {m_array_arrays, "x.bad", "array values"},
    {m_array_deep, "x.bad", "nested"},
    {m_align_0, "general.alignment is 0", "power of two"},
    {m_align_24, "general.alignment is 24", "power of two"},
    {m_align_4, "general.alignment is 4", NULL},
    {m_align_string, "general.alignment", "string"},
    {m_align_negative, "general.alignment", "negative"},
    {m_align_huge, "general.alignment", "power of two"},
    {m_name_twice, "'a'", "twice"},
    {m_same_twice, "'a'", "twice"},
    {m_name_long, "tensor 2 of 3", "1000000000"},
    {m_name_empty, "tensor 2 of 3", "empty"},
    {m_overlap, "'a' and 'b'", "share bytes"},
    {m_unaligned, "'b'", "alignment 32"},
    {m_past_end, "'b'", "1099511627776"},
    {m_wrap, "'b'", "18446744073709551584"},
    {m_dims_5, "'a'", "5 dimensions"},
    {m_dims_huge, "'a'", "2147483648 dimensions"},
    {m_dim_negative, "'a'", "-1"},
    {m_dim_zero, "'a'", "dimension 1 is 0"},
    {m_dim_overflow, "'a'", "overflow"},
    {m_size_overflow, "'a'", "overflow"},
    {m_dim_big, "'a'", "16777216 bytes"},
    {m_type_4, "'a'", "type 4 "},
    {m_type_200, "'a'", "type 200 "},
    {m_type_max, "'a'", "type 4294967295 "},
    {m_row, "'a'", "Q4_K"},
    {m_data_cut, "'c'", "truncated"},
    {m_split_alone, "00001-of-00002", "names"},
    {m_split_no, "split.no is 7", "split.count 2"},
    {m_split_huge, "4294967295 files", NULL},
};

static void test_hostile(void **state)
{
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        const char *path;
        spec_base(&spec);
        hostile[i].mutate();
        spec_write(&spec, &file);
        path = temp_write(&tmp, "bad.gguf", file.p, file.n);
        assert_refused(path, hostile[i].word, hostile[i].word2);
        assert_refused(path, "bad.gguf", NULL); /* which file */
    }
}

/* Cut anywhere, a file is refused, and never read beyond its end (sanitizers watch). */
static void test_truncated(void **state)
{
    struct err e;
    struct source *s;

    spec_write(&spec, &file);
    for (size_t n = 0; n < spec.header; n++) {
        uint8_t *copy = malloc(n + 1); /* exact size: an over-read is seen */
        assert_non_null(copy);
        memcpy(copy, file.p, n);
        assert_int_not_equal(source_open_memory(&s, copy, n, &e), 0);
        assert_null(s);
        if (n >= 8)
            assert_non_null(strstr(e.text, "download it again"));
        free(copy);
    }
}

/* ---- split sets ---------------------------------------------------------------------------------
 */

static const char *const shard_names[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                          "m-00003-of-00003.gguf"};

/* Shard i holds tensors "a", "b" or "c" of the base file; metadata only in the first. */
static void write_shard(unsigned i, uint32_t no, uint32_t count, uint32_t tensors)
{
    struct spec_tensor t;

    spec_base(&spec);
    t = spec.t[i];
    t.offset = 0;
    spec.t[0] = t;
    spec.n_t = 1;
    spec_key_u32(&spec, "split.no", no);
    spec_key_u32(&spec, "split.count", count);
    spec_key_u32(&spec, "split.tensors.count", tensors);
    spec_key_u32(&spec, i ? "later" : "first", i);
    spec_write(&spec, &file);
    temp_write(&tmp, shard_names[i], file.p, file.n);
}

static void write_set(void)
{
    for (unsigned i = 0; i < 3; i++)
        write_shard(i, i, 3, 3);
}

static void test_split(void **state)
{
    write_set();
    for (unsigned i = 0; i < 3; i++) {
        struct source *s = open_ok(temp_path(&tmp, shard_names[i]));
        assert_int_equal(source_file_count(s), 3);
        assert_int_equal(source_tensor_count(s), 3);
        assert_int_equal(source_tensor(s, "a")->file, 0);
        assert_int_equal(source_tensor(s, "c")->file, 2);
        assert_int_equal(source_tensor(s, "c")->data[5], 5);
        assert_non_null(source_value(s, "first"));
        assert_null(source_value(s, "later"));
        source_free(s);
    }
    /* A folder with one set in it is that model. */
    source_free(open_ok(tmp.dir));
}

static void test_split_faults(void **state)
{
    write_set();
    remove(temp_path(&tmp, shard_names[1]));
    assert_refused(temp_path(&tmp, shard_names[0]), shard_names[1], "missing");
    assert_refused(temp_path(&tmp, shard_names[2]), shard_names[1], "missing");
    write_shard(1, 2, 3, 3);
    assert_refused(temp_path(&tmp, shard_names[0]), shard_names[1], "shard 3 of 3");
    write_shard(1, 1, 4, 3);
    assert_refused(temp_path(&tmp, shard_names[0]), shard_names[1], "shard 2 of 4");
    write_shard(1, 1, 3, 3);
    write_shard(0, 0, 3, 40);
    assert_refused(temp_path(&tmp, shard_names[2]), "split.tensors.count is 40", "3 tensors");
    write_set();
    temp_text(&tmp, shard_names[1], "not GGUF");
    assert_refused(temp_path(&tmp, shard_names[0]), shard_names[1], "not a GGUF file");
    temp_write(&tmp, shard_names[1], file.p, 10);
    assert_refused(temp_path(&tmp, shard_names[0]), shard_names[1], "truncated");
}

static void test_split_same_tensor(void **state)
{
    write_set();
    spec.t[0].name = "b";
    spec_write(&spec, &file);
    temp_write(&tmp, shard_names[2], file.p, file.n);
    assert_refused(temp_path(&tmp, shard_names[0]), "'b'", "two files");
}

/* A file written by another program (gguf-py): every value type, an array of each, three tensors.
 */
static void test_foreign(void **state)
{
    struct source *s = open_ok(GOLDEN_DIR "/format/gguf_py.gguf");
    struct source_value v;
    struct err e;

    assert_int_equal(value(s, "t.uint8", SOURCE_UINT)->u, 255);
    assert_int_equal(value(s, "t.int8", SOURCE_INT)->i, -128);
    assert_int_equal(value(s, "t.uint64", SOURCE_UINT)->u, UINT64_MAX);
    assert_int_equal(value(s, "t.int64", SOURCE_INT)->i, INT64_MIN);
    assert_true(value(s, "t.float64", SOURCE_FLOAT)->f == 1e300);
    assert_false(value(s, "t.bool", SOURCE_BOOL)->b);
    assert_int_equal(value(s, "t.ints", SOURCE_ARRAY)->count, 1000);
    assert_int_equal(source_array_get(s, value(s, "t.ints", SOURCE_ARRAY), 999, &v, &e), 0);
    assert_int_equal(v.i, 999 * 999 - 5);
    assert_int_equal(source_array_get(s, value(s, "t.bools", SOURCE_ARRAY), 1, &v, &e), 0);
    assert_int_equal(v.type, SOURCE_BOOL);
    assert_true(v.b);
    for (int i = 0; i < 500; i++) {
        char want[32];
        snprintf(want, sizeof want, "%.*s%d", i % 7, "tokens!", i);
        assert_element(s, "t.strings", (uint64_t)i, want);
    }
    assert_int_equal(source_tensor_count(s), 3);
    assert_int_equal(source_tensor(s, "w.q8")->type->id, QUANT_Q8_0);
    assert_int_equal(source_tensor(s, "w.q8")->shape[0], 3);
    assert_int_equal(source_tensor(s, "w.q8")->shape[1], 64);
    assert_int_equal(source_tensor(s, "w.f16")->dims, 3);
    assert_int_equal(source_tensor(s, "w.f16")->shape[2], 5);
    for (size_t i = 0; i < 6; i++) {
        float f;
        memcpy(&f, source_tensor(s, "w.f32")->data + 4 * i, 4);
        assert_true(f == (float)i + 0.5f);
    }
    source_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_version_3, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_2, setup, teardown),
        cmocka_unit_test_setup_teardown(test_any_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_alignments, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nested_array, setup, teardown),
        cmocka_unit_test_setup_teardown(test_integer_tensor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unordered, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_truncated, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_faults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_same_tensor, setup, teardown),
        cmocka_unit_test(test_foreign),
    };

    return cmocka_run_group_tests_name("format/gguf", tests, NULL, NULL);
}
