/*
 * GGUF to GGUF: what is kept is kept byte for byte, what is quantized is near, importance and rules
 * reach the encoder, and a run that fails or is stopped leaves nothing.
 */
#include "base/file.h"
#include "convert/convert.h"
#include "convert/imatrix.h"
#include "format/gguf.h"
#include "support/fail_alloc.h"
#include "support/tiny_model.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64], f32_path[128];
static struct team *team;
static int written; /* files of the last plan */

static char *at(char *out, const char *name)
{
    snprintf(out, 160, "%s/%s", dir, name);
    return out;
}

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static int setup(void **state)
{
    static const enum quant_id types[] = {QUANT_F32};
    struct tiny_model m;
    struct err e = {0};
    const char *base = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ponder-convert-XXXXXX",
             base && strlen(base) < 32 ? base : "/tmp");
    assert_non_null(mkdtemp(dir));
    at(f32_path, "f32.gguf");
    tiny_model_init(&m);
    m.types = types;
    m.n_types = 1;
    good(tiny_model_write(&m, f32_path, &e), &e);
    good(team_new(&team, 2, &e), &e);
    return 0;
}

/* How many files the folder has; removes all but the first model when `clear`. */
static int files(bool clear)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    char path[400];
    int n = 0;
    assert_non_null(d);
    while ((entry = readdir(d))) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "f32.gguf") == 0)
            continue;
        n++;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (clear)
            unlink(path);
    }
    closedir(d);
    return n;
}

static int teardown(void **state)
{
    files(true);
    unlink(f32_path);
    rmdir(dir);
    team_free(team);
    return 0;
}

static int run(const char *in, const char *out, const struct convert_options *o, struct err *e)
{
    struct source *src = NULL;
    struct convert_plan *p = NULL;
    int rc = source_open(&src, in, e);
    if (!rc)
        rc = convert_plan_new(&p, src, o, e);
    if (!rc)
        rc = convert_write(p, out, team, NULL, NULL, e);
    written = p ? convert_plan_files(p) : 0;
    convert_plan_free(p);
    source_free(src);
    return rc;
}

static struct source *opened(const char *path)
{
    struct source *s;
    struct err e = {0};
    good(source_open(&s, path, &e), &e);
    return s;
}

/* Both hold the same tensors, to the byte. */
static void same_tensors(const char *a, const char *b)
{
    struct source *x = opened(a), *y = opened(b);
    assert_int_equal(source_tensor_count(x), source_tensor_count(y));
    for (size_t i = 0; i < source_tensor_count(x); i++) {
        const struct source_tensor *t = source_tensor_at(x, i), *u = source_tensor(y, t->name);
        assert_non_null(u);
        assert_ptr_equal(t->type, u->type);
        assert_int_equal(t->dims, u->dims);
        assert_memory_equal(t->shape, u->shape, sizeof t->shape);
        assert_int_equal(t->bytes, u->bytes);
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    source_free(x);
    source_free(y);
}

static void test_keep(void **state)
{
    char out[160], split[160], joined[160];
    struct convert_options o = {.format = CONVERT_GGUF};
    struct err e = {0};
    good(run(f32_path, at(out, "keep.gguf"), &o, &e), &e);
    same_tensors(f32_path, out);
    struct source *x = opened(f32_path), *y = opened(out);
    for (size_t i = 0; i < source_value_count(x); i++)
        assert_non_null(source_value(y, source_value_at(x, i, NULL)));
    source_free(x);
    source_free(y);

    o.split = 1 << 20;
    good(run(f32_path, at(split, "split.gguf"), &o, &e), &e);
    assert_int_equal(file_kind(split), FILE_NONE);
    assert_in_range(written, 2, 20);
    char first[40];
    snprintf(first, sizeof first, "split-00001-of-%05d.gguf", written);
    at(split, first);
    same_tensors(f32_path, split);
    o.split = 0;
    good(run(split, at(joined, "joined.gguf"), &o, &e), &e);
    same_tensors(f32_path, joined);
    y = opened(joined);
    assert_null(source_value(y, "split.count"));
    source_free(y);
    files(true);
}

/* Root mean square of the difference over that of the values. */
static double distance(const struct source_tensor *a, const struct source_tensor *b)
{
    size_t n = a->bytes / a->type->bytes * a->type->block;
    float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    double d = 0, s = 0;
    assert_true(x && y);
    a->type->decode(x, a->data, n);
    b->type->decode(y, b->data, n);
    for (size_t i = 0; i < n; i++) {
        d += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)x[i] * (double)x[i];
    }
    free(x);
    free(y);
    return sqrt(d / s);
}

static void test_quantize(void **state)
{
    static const struct {
        const char *mix;
        double most;
    } rows[] = {{"BF16", 0.003},  {"Q8_0", 0.01},  {"Q6_K", 0.03}, {"Q4_K_M", 0.11}, {"Q4_0", 0.13},
                {"IQ4_XS", 0.11}, {"Q3_K_M", 0.2}, {"Q2_K", 0.4},  {"MXFP4", 0.02}};
    char out[160];
    struct err e = {0};
    at(out, "q.gguf");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct convert_options o = {
            .format = CONVERT_GGUF, .mix = mix_find(rows[i].mix), .force = true};
        good(run(f32_path, out, &o, &e), &e);
        struct source *x = opened(f32_path), *y = opened(out);
        for (size_t k = 0; k < source_tensor_count(x); k++) {
            const struct source_tensor *t = source_tensor_at(x, k), *u = source_tensor(y, t->name);
            assert_non_null(u);
            if (t->dims < 2)
                assert_ptr_equal(t->type, u->type);
            double d = distance(t, u);
            if (!(d <= rows[i].most))
                fail_msg("%s: %s as %s is %g away", rows[i].mix, t->name, u->type->name, d);
        }
        const struct source_value *v = source_value(y, "general.file_type");
        assert_int_equal(v->u, mix_find(rows[i].mix)->ftype);
        source_free(x);
        source_free(y);
    }
    files(true);
}

static void test_rules(void **state)
{
    static const char *const rules[] = {"blk\\.0\\.attn_[qk]=q8_0", "ffn_up=BF16"};
    static const char *const bad[] = {"x", "=Q8_0", "x=", "x=Q9", "x(=Q8_0"};
    char out[160];
    struct convert_options o = {.format = CONVERT_GGUF,
                                .mix = mix_find("Q4_0"),
                                .pure = true,
                                .rules = rules,
                                .n_rules = 2};
    struct err e = {0};
    good(run(f32_path, at(out, "r.gguf"), &o, &e), &e);
    struct source *s = opened(out);
    assert_int_equal(source_tensor(s, "blk.0.attn_q.weight")->type->id, QUANT_Q8_0);
    assert_int_equal(source_tensor(s, "blk.1.attn_q.weight")->type->id, QUANT_Q4_0);
    assert_int_equal(source_tensor(s, "blk.1.ffn_up.weight")->type->id, QUANT_BF16);
    assert_int_equal(source_tensor(s, "token_embd.weight")->type->id, QUANT_Q4_0);
    assert_int_equal(source_tensor(s, "blk.1.attn_norm.weight")->type->id, QUANT_F32);
    source_free(s);
    files(true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        o.rules = &bad[i];
        o.n_rules = 1;
        assert_int_equal(run(f32_path, out, &o, &e), ERR_USAGE);
        assert_non_null(strstr(e.text, "--tensor-type"));
    }
    assert_int_equal(files(false), 0);
}

/* ---- importance -------------------------------------------------------------------------------
 */

static void write_file(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

enum { COLS = 256, NAME_N = 19 };
static const char tensor[] = "blk.0.attn_q.weight";

static size_t make_dat(uint8_t *out, int32_t n)
{
    int32_t head[] = {1, NAME_N}, mid[] = {2, n}, tail[] = {7, 4};
    size_t at = 0;
    memcpy(out, head, 8);
    memcpy(out + 8, tensor, NAME_N);
    at = 8 + NAME_N;
    memcpy(out + at, mid, 8);
    at += 8;
    for (int32_t i = 0; i < n; i++, at += 4) {
        float v = 2 * (i % 16 == 0 ? 100.0f : 0.01f);
        memcpy(out + at, &v, 4);
    }
    memcpy(out + at, tail, 8);
    memcpy(out + at + 8, "text", 4);
    return at + 12;
}

static void make_gguf(const char *path)
{
    struct gguf_writer *w;
    struct err e = {0};
    float sums[COLS], count = 4;
    const uint64_t shape[] = {1, COLS}, one[] = {1, 1};
    const char *const sets[] = {"text"};
    const size_t lens[] = {4};
    for (int i = 0; i < COLS; i++)
        sums[i] = count * (i % 16 == 0 ? 100.0f : 0.01f);
    good(gguf_writer_new(&w, path, &e), &e);
    good(gguf_put_string(w, "general.type", "imatrix", 7, &e), &e);
    good(gguf_put_strings(w, "imatrix.datasets", sets, lens, 1, &e), &e);
    good(gguf_put_u32(w, "imatrix.chunk_count", 7, &e), &e);
    good(gguf_add_tensor(w, "blk.0.attn_q.weight.in_sum2", quant_by_id(QUANT_F32), 2, shape, &e),
         &e);
    good(gguf_add_tensor(w, "blk.0.attn_q.weight.counts", quant_by_id(QUANT_F32), 2, one, &e), &e);
    good(gguf_write_data(w, sums, sizeof sums, &e), &e);
    good(gguf_write_data(w, &count, sizeof count, &e), &e);
    good(gguf_writer_commit(w, &e), &e);
    gguf_writer_free(w);
}

static void test_imatrix(void **state)
{
    static uint8_t bytes[4096];
    char dat[160], gguf[160], out[160], other[160];
    struct convert_options o = {
        .format = CONVERT_GGUF, .mix = mix_find("Q4_K_S"), .imatrix = at(dat, "i.dat")};
    struct err e = {0};
    size_t n = make_dat(bytes, COLS);
    write_file(dat, bytes, n);
    make_gguf(at(gguf, "i.gguf"));
    good(run(f32_path, at(out, "a.gguf"), &o, &e), &e);
    o.imatrix = gguf;
    good(run(f32_path, at(other, "b.gguf"), &o, &e), &e);
    same_tensors(out, other);
    struct source *s = opened(out);
    assert_int_equal(source_value(s, "quantize.imatrix.entries_count")->i, 1);
    assert_int_equal(source_value(s, "quantize.imatrix.chunks_count")->i, 7);
    source_free(s);

    o.imatrix = NULL; /* it made a difference, in that tensor only */
    good(run(f32_path, at(other, "c.gguf"), &o, &e), &e);
    s = opened(out);
    struct source *plain = opened(other);
    for (size_t i = 0; i < source_tensor_count(s); i++) {
        const struct source_tensor *t = source_tensor_at(s, i), *u = source_tensor(plain, t->name);
        bool differ = memcmp(t->data, u->data, t->bytes) != 0;
        assert_int_equal(differ, strcmp(t->name, tensor) == 0);
    }
    source_free(s);
    source_free(plain);

    o.imatrix = dat; /* for a model with other widths */
    n = make_dat(bytes, COLS / 2);
    write_file(dat, bytes, n);
    assert_int_equal(run(f32_path, at(out, "d.gguf"), &o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "another model"));
    for (size_t cut = 0; cut + 12 < n; cut++) { /* truncated anywhere */
        struct imatrix *m;
        write_file(dat, bytes, cut);
        assert_int_not_equal(imatrix_open(&m, dat, &e), 0);
        assert_null(m);
    }
    files(true);
}

/* ---- what goes wrong --------------------------------------------------------------------------
 */

static void test_refuse(void **state)
{
    char out[160];
    struct convert_options o = {.format = CONVERT_GGUF, .mix = mix_find("Q8_0")};
    struct err e = {0};
    assert_int_equal(run(f32_path, f32_path, &o, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "source itself"));
    write_file(at(out, "x.gguf"), "x", 1);
    assert_int_equal(run(f32_path, out, &o, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "--force"));
    assert_int_equal(files(false), 1);
    o.force = true;
    good(run(f32_path, out, &o, &e), &e);
    assert_int_not_equal(run(f32_path, at(out, "no/such/folder.gguf"), &o, &e), 0);
    o.format = CONVERT_HF;
    assert_int_equal(run(f32_path, at(out, "folder"), &o, &e), ERR_USAGE);
    assert_int_equal(files(true), 1);
}

static bool stop_later(void *arg, uint64_t done, uint64_t total, size_t tensors)
{
    int *left = arg;
    (void)tensors;
    assert_true(done <= total);
    return (*left)-- > 0;
}

static void test_stop(void **state)
{
    char out[160];
    struct convert_options o = {.format = CONVERT_GGUF, .mix = mix_find("Q8_0"), .split = 300000};
    struct err e = {0};
    struct source *src = opened(f32_path);
    for (int after = 0; after < 12; after += 3) {
        struct convert_plan *p;
        int left = after;
        good(convert_plan_new(&p, src, &o, &e), &e);
        assert_int_equal(convert_write(p, at(out, "s.gguf"), team, stop_later, &left, &e),
                         ERR_CANCELLED);
        assert_int_equal(files(false), 0);
        convert_plan_free(p);
    }
    source_free(src);
}

/* Values that cannot be written are found, and named. */
static void test_values(void **state)
{
    char in[160], out[160];
    struct gguf_writer *w;
    struct err e = {0};
    float v[64] = {1, 2, 70000};
    const uint64_t shape[] = {2, 32};
    good(gguf_writer_new(&w, at(in, "v.gguf"), &e), &e);
    good(gguf_put_string(w, "general.architecture", "llama", 5, &e), &e);
    good(gguf_add_tensor(w, "a.weight", quant_by_id(QUANT_F32), 2, shape, &e), &e);
    good(gguf_add_tensor(w, "b.weight", quant_by_id(QUANT_F32), 2, shape, &e), &e);
    good(gguf_write_data(w, v, sizeof v, &e), &e);
    v[2] = NAN;
    good(gguf_write_data(w, v, sizeof v, &e), &e);
    good(gguf_writer_commit(w, &e), &e);
    gguf_writer_free(w);
    struct convert_options o = {.format = CONVERT_GGUF, .mix = mix_find("F16")};
    assert_int_equal(run(in, at(out, "o.gguf"), &o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "a.weight"));
    assert_non_null(strstr(e.text, "BF16"));
    o.mix = mix_find("BF16");
    assert_int_equal(run(in, out, &o, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "b.weight"));
    assert_int_equal(files(true), 1);
}

static void test_alloc(void **state)
{
    static uint8_t bytes[4096];
    static const char *const rules[] = {"attn_v=Q8_0"};
    char out[160], dat[160];
    write_file(at(dat, "i.dat"), bytes, make_dat(bytes, COLS));
    struct convert_options o = {.format = CONVERT_GGUF,
                                .mix = mix_find("Q8_0"),
                                .rules = rules,
                                .n_rules = 1,
                                .imatrix = dat,
                                .split = 300000};
    at(out, "f.gguf");
    for (size_t n = 1;; n++) {
        struct err e = {0};
        fail_alloc_at(n);
        int rc = run(f32_path, out, &o, &e);
        if (!fail_alloc_stop()) {
            good(rc, &e);
            break;
        }
        if (rc != ERR_NOMEM && strlen(e.text) < 10)
            fail_msg("allocation %zu: %d %s", n, rc, e.text);
        assert_int_not_equal(rc, 0);
        assert_int_equal(files(false), 1);
    }
    files(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep),   cmocka_unit_test(test_quantize),
        cmocka_unit_test(test_rules),  cmocka_unit_test(test_imatrix),
        cmocka_unit_test(test_refuse), cmocka_unit_test(test_stop),
        cmocka_unit_test(test_values), cmocka_unit_test(test_alloc),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
