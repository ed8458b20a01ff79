/*
 * Composed tensors: the bits of their rows against goldens, and every size and index of their parts
 * set wrong once.
 */
#include "build.h"

#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* Adds a golden tensor under a name. */
static void add_golden(struct st *f, const struct golden *g, const char *from, const char *name)
{
    struct golden_tensor t = golden_get(g, "%s", from);
    uint64_t shape[SOURCE_DIMS];

    for (size_t i = 0; i < t.rank; i++)
        shape[i] = t.dim[i];
    st_add(f, name, t.dtype, (int)t.rank, shape, t.data, t.bytes);
}

/* Rows in all partitions give what `want` has, bit for bit (`eps`: or relative to it). */
static void assert_rows(const struct source_tensor *t, const float *want, double eps)
{
    size_t rows = (size_t)source_row_count(t), cols = (size_t)t->shape[t->dims - 1];
    size_t bytes = source_row_bytes(t), stride = bytes + 3;
    uint8_t *p = malloc(stride * rows + 1);
    float *got = malloc(cols * sizeof *got);

    assert_int_equal(t->bytes, bytes * rows);
    for (size_t step = 1; step <= rows; step = step * 3 + 1) {
        memset(p, 0xA5, stride * rows + 1);
        for (size_t r = 0; r < rows; r += step)
            source_rows(t, r, rows - r < step ? rows - r : step, p + 1 + r * stride, stride);
        for (size_t r = 0; r < rows; r++) {
            t->type->decode(got, p + 1 + r * stride, cols);
            for (size_t c = 0; c < cols; c++) {
                float w = want[r * cols + c];
                if (eps == 0 ? memcmp(&got[c], &w, 4) != 0 : fabs((double)got[c] - (double)w) > eps)
                    fail_msg("%s (%s): row %zu, column %zu is %.9g, not %.9g", t->name,
                             t->type->name, r, c, (double)got[c], (double)w);
            }
            if (r + 1 < rows)
                assert_memory_equal(p + 1 + r * stride + bytes, "\xA5\xA5\xA5", 3);
        }
    }
    free(got);
    free(p);
}

static const struct source_tensor *the_weight(const struct source *s, const char *type)
{
    const struct source_tensor *t = source_tensor(s, "x.weight");

    assert_non_null(t);
    assert_non_null(t->parts);
    assert_null(t->data);
    assert_string_equal(t->type->name, type);
    return t;
}

/* ---- FP8 and int8 -------------------------------------------------------------------------------
 */

static void test_fp8_golden(void **state)
{
    static const char *const cases[] = {"kv_a", "down"};
    struct golden *g = golden_load("quant/fp8.safetensors");

    for (size_t i = 0; i < 2; i++) {
        struct st f = {0};
        struct source *s;
        char name[64];
        snprintf(name, sizeof name, "%s.weight", cases[i]);
        add_golden(&f, g, name, "x.weight");
        snprintf(name, sizeof name, "%s.weight_scale_inv", cases[i]);
        add_golden(&f, g, name, "x.weight_scale_inv");
        s = open_ok(st_write(&f, &tmp, "m.safetensors"));
        assert_int_equal(source_tensor_count(s), 1);
        assert_rows(the_weight(s, "FP8"), golden_get(g, "%s.expected", cases[i]).f32, 0);
        source_tensor_drop(s, the_weight(s, "FP8"));
        assert_rows(the_weight(s, "FP8"), golden_get(g, "%s.expected", cases[i]).f32, 0);
        source_free(s);
    }
    golden_free(g);
}

/* Values a 2 × 300 weight of one byte has, and its scales for each test below. */
enum { R = 2, C = 300 };

static uint8_t codes[R * C];

static void fill_codes(void)
{
    for (size_t i = 0; i < sizeof codes; i++)
        codes[i] = (uint8_t)(i * 7 % 251 % 0x7F); /* no NaN */
}

/* One case: dtypes, shape of the scales, block size of the configuration, expected row form. */
static void scaled_case(const char *dtype, const char *scale_name, const char *scale_dtype,
                        int dims, uint64_t s0, uint64_t s1, size_t bn, size_t bk, const char *form)
{
    float value[R * C], want[R * C];
    uint8_t scales[4 * R * C];
    char text[256];
    size_t n = (size_t)(s0 * s1), w = strcmp(scale_dtype, "F32") ? 2 : 4;
    struct st f = {0};
    struct source *s;

    fill_codes();
    for (size_t i = 0; i < n; i++) {
        float v = 0.5f + (float)i / 64; /* exact in all types */
        uint16_t b = w == 2 ? quant_f32_to_bf16(v) : 0;
        memcpy(scales + w * i, w == 2 ? (void *)&b : (void *)&v, w);
    }
    for (size_t i = 0; i < R * C; i++) {
        size_t at = i / C / bn * ((C + bk - 1) / bk) + i % C / bk;
        value[i] = !strcmp(dtype, "I8")        ? (float)(int8_t)codes[i]
                   : !strcmp(dtype, "F8_E4M3") ? quant_e4m3_to_f32(codes[i])
                                               : quant_e5m2_to_f32(codes[i]);
        want[i] = value[i] * (0.5f + (float)at / 64);
        if (!strcmp(scale_name, "x.SCB"))
            want[i] = value[i] * ((0.5f + (float)at / 64) / 127);
    }
    st_add(&f, "x.weight", dtype, 2, (uint64_t[]){R, C}, codes, sizeof codes);
    st_add(&f, scale_name, scale_dtype, dims, (uint64_t[]){s0, s1}, scales, w * n);
    st_add(&f, "x.bias", "F32", 1, (uint64_t[]){2}, want, 8);
    snprintf(text, sizeof text,
             "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[%zu,%zu]}}",
             bn, bk);
    temp_text(&tmp, "hf/config.json", text);
    st_write(&f, &tmp, "hf/model.safetensors");
    s = open_ok(temp_path(&tmp, "hf"));
    assert_int_equal(source_tensor_count(s), 2);
    assert_rows(the_weight(s, form), want, 0);
    assert_null(source_tensor(s, "x.bias")->parts);
    source_free(s);
}

static void test_scaled(void **state)
{
    scaled_case("F8_E4M3", "x.weight_scale_inv", "F32", 2, 2, 3, 1, 128, "FP8");
    scaled_case("F8_E4M3", "x.weight_scale_inv", "BF16", 2, 1, 2, 16, 256, "FP8");
    scaled_case("F8_E4M3", "x.weight_scale_inv", "F32", 2, 1, 10, 2, 32, "F32");
    scaled_case("F8_E5M2", "x.weight_scale_inv", "F32", 2, 1, 3, 2, 128, "F32");
    scaled_case("F8_E4M3", "x.weight_scale", "F32", 1, 1, 1, 2, 512, "FP8");
    scaled_case("F8_E4M3", "x.weight_scale", "BF16", 0, 1, 1, 2, 512, "FP8");
    scaled_case("F8_E4M3", "x.weight_scale", "BF16", 2, 2, 1, 1, 512, "FP8");
    scaled_case("F8_E4M3", "x.weight_scale", "F32", 1, 2, 1, 1, 512, "FP8");
    scaled_case("I8", "x.weight_scale", "F32", 2, 2, 1, 1, 512, "I8S");
    scaled_case("I8", "x.SCB", "F32", 1, 2, 1, 1, 512, "I8S");
}

static void set_dtype(struct st_tensor *t, const char *dtype)
{
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
}

/* Applies a fault to a good model folder, which then has to be refused with a word. */
static void refuse(const struct st *f, const char *config, const char *word)
{
    struct source *s = NULL;
    struct err e = {0};

    temp_text(&tmp, "bad/config.json", config);
    st_write(f, &tmp, "bad/model.safetensors");
    if (source_open(&s, temp_path(&tmp, "bad"), &e) == 0)
        fail_msg("accepted, expected: %s", word);
    if (!strstr(e.text, word) || !strstr(e.text, "model.safetensors") || !strstr(e.text, "'x."))
        fail_msg("expected '%s' in: %s", word, e.text);
}

static const char fp8_config[] = "{\"quantization_config\":{\"quant_method\":\"fp8\"}}";

static void test_scaled_refused(void **state)
{
    static const float scales[8];
    struct st good = {0}, f;

    fill_codes();
    st_add(&good, "x.weight", "F8_E4M3", 2, (uint64_t[]){R, C}, codes, sizeof codes);
    st_add(&good, "x.weight_scale_inv", "F32", 2, (uint64_t[]){1, 3}, scales, 12);
    temp_text(&tmp, "ok/config.json", fp8_config);
    st_write(&good, &tmp, "ok/model.safetensors");
    source_free(open_ok(temp_path(&tmp, "ok")));

    f = good;
    f.t[1].shape[1] = 2, f.t[1].bytes = 8;
    refuse(&f, fp8_config, "ask for 1 × 3");
    f.t[1].shape[0] = 3, f.t[1].shape[1] = 1, f.t[1].bytes = 12;
    refuse(&f, fp8_config, "ask for 1 × 3");
    f.t[1].shape[0] = 1, f.t[1].shape[1] = 0, f.t[1].bytes = 0;
    refuse(&f, fp8_config, "ask for 1 × 3");
    f = good;
    f.t[1].dims = 1, f.t[1].shape[0] = 3;
    refuse(&f, fp8_config, "ask for 2 × 1");
    f = good;
    f.t[1].dims = 3, f.t[1].shape[2] = 1;
    refuse(&f, fp8_config, "3 dimensions");
    f = good;
    set_dtype(&f.t[1], "I32");
    refuse(&f, fp8_config, "I32");
    f = good;
    set_dtype(&f.t[0], "U8");
    refuse(&f, fp8_config, "U8");
    f = good;
    f.t[0].dims = 1, f.t[0].shape[0] = R * C, f.t[0].shape[1] = 0;
    refuse(&f, fp8_config, "dimensions");
    f = good;
    f.n = 1;
    refuse(&f, fp8_config, "missing");
    f = good;
    st_add(&f, "x.weight_scale", "F32", 1, (uint64_t[]){1}, scales, 4);
    refuse(&f, fp8_config, "two weights");
    f = good;
    st_add(&f, "x.weight_zero_point", "I8", 1, (uint64_t[]){1}, scales, 1);
    refuse(&f, fp8_config, "zero points");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":[0,128]}}", "weight_block_size");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":[128]}}", "weight_block_size");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":[128,-1]}}",
           "weight_block_size");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":[1e99,1]}}",
           "weight_block_size");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":\"x\"}}", "weight_block_size");
    refuse(&good, "{\"quantization_config\":{\"weight_block_size\":[[1],1]}}", "weight_block_size");

    f = (struct st){0};
    st_add(&f, "x.weight", "I8", 2, (uint64_t[]){R, C}, codes, sizeof codes);
    st_add(&f, "x.SCB", "F32", 1, (uint64_t[]){3}, scales, 12);
    refuse(&f, "{}", "ask for 2");
    f.t[1].shape[0] = 2, f.t[1].bytes = 8;
    st_add(&f, "x.weight_format", "U8", 0, NULL, "\1", 1);
    refuse(&f, "{}", "row by row");
    f.n = 2;
    set_dtype(&f.t[0], "U8");
    refuse(&f, "{}", "I8");
}

/* A mark without its weight is a tensor like others. */
static void test_orphans(void **state)
{
    static const char *const marks[] = {"x.weight_scale_inv",
                                        "x.weight_scale",
                                        "x.SCB",
                                        "x.qweight",
                                        "x.weight.quant_state.bitsandbytes__nf4",
                                        ".SCB"};
    struct st f = {0};
    struct source *s;

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        st_add(&f, marks[i], "U8", 1, (uint64_t[]){1}, "", 1);
    s = open_ok(st_write(&f, &tmp, "m.safetensors"));
    assert_int_equal(source_tensor_count(s), f.n);
    source_free(s);
}

/* ---- GPTQ and AWQ -------------------------------------------------------------------------------
 */

/* The tensors of one golden case under "x". */
static void add_case(struct st *f, const struct golden *g, const char *name,
                     const char *const *parts)
{
    for (size_t i = 0; parts[i]; i++) {
        struct golden_tensor t;
        char from[128], to[128];
        snprintf(from, sizeof from, "%s.%s", name, parts[i]);
        snprintf(to, sizeof to, "x.%s", parts[i]);
        if (golden_find(g, from, &t))
            add_golden(f, g, from, to);
    }
}

/* The compact form, when there is one, has the values of the rows, in the order it says. */
static bool check_compact(const struct source_tensor *t, const float *want)
{
    const struct source_compact *c = source_compact(t);
    size_t cols = (size_t)t->shape[1], bytes;
    if (!c)
        return false;
    assert_true(quant_size(c->type, cols, &bytes));
    uint8_t *row = malloc(bytes);
    float *value = malloc(cols * sizeof *value);
    assert_true(row && value);
    for (size_t r = 0; r < t->shape[0]; r++) {
        source_compact_rows(t, r, 1, row, bytes);
        c->type->decode(value, row, cols);
        for (size_t i = 0; i < cols; i++)
            assert_true(value[i] == want[r * cols + c->order[i]]);
    }
    free(row);
    free(value);
    return true;
}

static const char *const gptq_parts[] = {"qweight", "qzeros", "scales", "g_idx", NULL};

static const char *gptq_config(char out[256], int bits, int group, const char *format)
{
    snprintf(out, 256,
             "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":%d,\"group_size\":%d,"
             "\"checkpoint_format\":\"%s\"}}",
             bits, group, format);
    return out;
}

static void test_gptq_golden(void **state)
{
    static const struct {
        const char *name;
        int bits;
        const char *format, *form;
    } cases[] = {
        {"gptq4.nodesc.sym.gptq.320x24", 4, "gptq", "Q4Z"},
        {"gptq4.desc.sym.gptq.320x24", 4, "gptq", "F32"},
        {"gptq4.nodesc.asym.gptq.320x24", 4, "gptq", "Q4Z"},
        {"gptq4.desc.asym.gptq.320x24", 4, "gptq", "F32"},
        {"gptq4.nodesc.asym.gptq_v2.320x24", 4, "gptq_v2", "Q4Z"},
        {"gptq8.nodesc.sym.gptq.320x24", 8, "gptq", "Q8Z"},
    };
    struct golden *g = golden_load("quant/gptq.safetensors");

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const float *want = golden_get(g, "%s.expected", cases[i].name).f32;
        struct st f = {0};
        struct source *s;
        char config[256];
        add_case(&f, g, cases[i].name, gptq_parts);
        assert_int_equal(f.n, 4);
        temp_text(&tmp, "hf/config.json", gptq_config(config, cases[i].bits, 128, cases[i].format));
        st_write(&f, &tmp, "hf/model.safetensors");
        s = open_ok(temp_path(&tmp, "hf"));
        assert_int_equal(source_tensor_count(s), 1);
        assert_rows(the_weight(s, cases[i].form), want, 0);
        assert_int_equal(check_compact(the_weight(s, cases[i].form), want),
                         strcmp(cases[i].form, "F32") == 0);
        source_free(s);
        /* No index: as without desc_act. */
        st_find(&f, "x.g_idx")->shape[0] = 0;
        st_find(&f, "x.g_idx")->bytes = 0;
        st_write(&f, &tmp, "hf/model.safetensors");
        s = open_ok(temp_path(&tmp, "hf"));
        if (strcmp(cases[i].form, "F32"))
            assert_rows(the_weight(s, cases[i].form), want, 0);
        source_free(s);
        /* The configuration in a file of its own. */
        temp_text(&tmp, "old/config.json", "{}");
        snprintf(config, sizeof config, "{\"bits\":%d,\"group_size\":128}", cases[i].bits);
        temp_text(&tmp, "old/quantize_config.json", config);
        st_write(&f, &tmp, "old/model.safetensors");
        s = open_ok(temp_path(&tmp, "old"));
        assert_int_equal(source_quant_check(s, NULL), 0);
        if (strcmp(cases[i].form, "F32") && !strcmp(cases[i].format, "gptq"))
            assert_rows(the_weight(s, cases[i].form), want, 0);
        source_free(s);
        /* Without any: parts, that are no weight. */
        s = open_ok(st_write(&f, &tmp, "m.safetensors"));
        assert_null(source_tensor(s, "x.weight"));
        source_free(s);
    }
    golden_free(g);
}

/* Layouts that have no golden: what the words say, taken apart here once more. */
static void gptq_case(int bits, size_t ins, size_t outs, int group, bool mixed, float base,
                      const char *scale_dtype, const char *form)
{
    size_t per = 32 / (size_t)bits, g = group < 0 ? ins : (size_t)group, groups = (ins + g - 1) / g;
    size_t wide = strcmp(scale_dtype, "F32") ? 2 : 4;
    uint32_t *words = malloc(4 * ins / per * outs), *zeros = malloc(4 * groups * outs / per);
    float *want = malloc(4 * ins * outs);
    uint8_t *scales = malloc(wide * groups * outs);
    struct st f = {0};
    struct source *s;
    char config[256];
    uint32_t *index = malloc(4 * ins);
    uint64_t x = 5;

    for (size_t i = 0; i < ins; i++)
        index[i] = (uint32_t)(mixed ? i * 7919 % groups : i / g);

    for (size_t i = 0; i < ins / per * outs; i++)
        words[i] = (uint32_t)((x = x * 6364136223846793005u + 1442695040888963407u) >> 32);
    for (size_t i = 0; i < groups * outs / per; i++)
        zeros[i] = (uint32_t)((x = x * 6364136223846793005u + 1442695040888963407u) >> 32);
    for (size_t i = 0; i < groups * outs; i++) {
        float v = base * (float)(i % 13 + 1);
        uint16_t h = strcmp(scale_dtype, "F16") ? quant_f32_to_bf16(v) : quant_f32_to_f16(v);
        memcpy(scales + wide * i, wide == 2 ? (void *)&h : (void *)&v, wide);
    }
    for (size_t o = 0; o < outs; o++)
        for (size_t i = 0; i < ins; i++) {
            uint32_t mask = (1u << bits) - 1, sh = (uint32_t)bits;
            uint32_t q = words[i / per * outs + o] >> (sh * (i % per)) & mask;
            uint32_t z = zeros[(index[i] * outs + o) / per] >> (sh * (o % per)) & mask;
            want[o * ins + i] =
                base * (float)((index[i] * outs + o) % 13 + 1) * ((float)q - (float)(z + 1));
        }
    st_add(&f, "x.qweight", "I32", 2, (uint64_t[]){ins / per, outs}, words, 4 * ins / per * outs);
    st_add(&f, "x.qzeros", "I32", 2, (uint64_t[]){groups, outs / per}, zeros,
           4 * groups * outs / per);
    st_add(&f, "x.scales", scale_dtype, 2, (uint64_t[]){groups, outs}, scales,
           wide * groups * outs);
    if (mixed)
        st_add(&f, "x.g_idx", "I32", 1, (uint64_t[]){ins}, index, 4 * ins);
    temp_text(&tmp, "hf/config.json", gptq_config(config, bits, group, "gptq"));
    st_write(&f, &tmp, "hf/model.safetensors");
    s = open_ok(temp_path(&tmp, "hf"));
    assert_rows(the_weight(s, form), want, 0);
    check_compact(the_weight(s, form), want);
    source_free(s);
    free(words);
    free(zeros);
    free(scales);
    free(want);
    free(index);
}

static void test_gptq_layouts(void **state)
{
    gptq_case(4, 128, 16, 32, false, 0x1p-7f, "F16", "Q4Z");
    gptq_case(4, 72, 8, -1, false, 0x1p-7f, "F16", "Q4Z");
    gptq_case(4, 128, 8, 16, false, 0x1p-7f, "F16", "F32");
    gptq_case(4, 96, 8, 64, false, 0x1p-7f, "BF16", "Q4Z");
    gptq_case(4, 96, 8, 64, false, 0x1p-26f, "BF16", "F32");
    gptq_case(4, 96, 8, 64, false, 0x1p-7f, "F32", "Q4Z");
    gptq_case(4, 96, 8, 64, false, 0.01f, "F32", "F32");
    gptq_case(8, 96, 8, 64, false, 0x1p-9f, "BF16", "Q8Z");
    gptq_case(8, 100, 4, 64, false, 0x1p-7f, "F16", "Q8Z");
    gptq_case(8, 100, 4, 10, false, 0x1p-7f, "F16", "F32");
    gptq_case(2, 112, 16, 64, false, 0x1p-7f, "F16", "Q4Z");
    gptq_case(8, 5200, 4, 4, false, 0x1p-7f, "F16", "F32"); /* many groups */
    gptq_case(8, 5200, 4, 4, true, 0x1p-7f, "F16", "F32");
    gptq_case(4, 128, 8, 32, true, 0x1p-7f, "BF16", "F32");
}

static void test_gptq_refused(void **state)
{
    static const char *const configs[][2] = {
        {"{\"quant_method\":\"gptq\",\"group_size\":128}", "'bits'"},
        {"{\"quant_method\":\"gptq\",\"bits\":\"4\",\"group_size\":128}", "'bits'"},
        {"{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128}", "3 bits"},
        {"{\"quant_method\":\"gptq\",\"bits\":0,\"group_size\":128}", "0 bits"},
        {"{\"quant_method\":\"gptq\",\"bits\":4294967300,\"group_size\":128}", "bits"},
        {"{\"quant_method\":\"gptq\",\"bits\":4}", "group_size"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0}", "group_size"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-2}", "group_size"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":99999999999}", "group_size"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64}", "ask for 5 × 3"},
        {"{\"quant_method\":\"gptq\",\"bits\":8,\"group_size\":128}", "ask for 2 × 6"},
        {"{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":128,\"checkpoint_format\":"
         "\"marlin\"}",
         "checkpoint_format"},
        {"{\"quant_method\":\"awq\",\"bits\":8,\"group_size\":128}", "8 bits"},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"version\":\"gemv\"}",
         "version"},
        {"{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128,\"version\":7}", "version"},
    };
    struct golden *g = golden_load("quant/gptq.safetensors");
    struct st good = {0}, f;
    char config[256], text[512];
    uint32_t index[320];
    float weight[1] = {0};

    add_case(&good, g, "gptq4.nodesc.sym.gptq.320x24", gptq_parts);
    memcpy(index, st_find(&good, "x.g_idx")->data, sizeof index);
    gptq_config(config, 4, 128, "gptq");
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        snprintf(text, sizeof text, "{\"quantization_config\":%s}", configs[i][0]);
        refuse(&good, text, configs[i][1]);
    }
    for (size_t i = 0; i < 3; i++) { /* each part is needed */
        f = good;
        strcpy(f.t[i].name, "y");
        if (i)
            refuse(&f, config, "is missing");
        f = good;
        f.t[i].shape[1]--;
        f.t[i].bytes -= f.t[i].bytes / (f.t[i].shape[1] + 1);
        refuse(&f, config, i ? "ask for" : "multiple");
        f = good;
        f.t[i].shape[0] = 0, f.t[i].bytes = 0;
        refuse(&f, config, "ask for");
        f = good;
        f.t[i].dims = 1, f.t[i].shape[0] *= f.t[i].shape[1];
        refuse(&f, config, "dimensions");
        f = good;
        set_dtype(&f.t[i], i == 2 ? "I16" : "F32");
        refuse(&f, config, i == 2 ? "I16" : "F32");
    }
    for (size_t i = 0; i < 2; i++) {
        f = good;
        index[7] = i ? UINT32_MAX : 3;
        st_find(&f, "x.g_idx")->data = index;
        refuse(&f, config, i ? "group -1" : "group 3");
    }
    f = good;
    st_find(&f, "x.g_idx")->shape[0] = 319;
    st_find(&f, "x.g_idx")->bytes -= 4;
    refuse(&f, config, "ask for 320");
    f = good;
    st_add(&f, "x.weight", "F32", 1, (uint64_t[]){1}, weight, 4);
    refuse(&f, config, "twice");
    golden_free(g);
}

static void test_awq_golden(void **state)
{
    static const char *const parts[] = {"qweight", "qzeros", "scales", NULL};
    struct golden *g = golden_load("quant/awq.safetensors");

    for (int group = 64; group <= 128; group *= 2) {
        char name[64], config[256];
        struct st f = {0};
        struct source *s;
        snprintf(name, sizeof name, "awq4.g%d.256x64", group);
        add_case(&f, g, name, parts);
        snprintf(config, sizeof config,
                 "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":%d,"
                 "\"version\":\"GEMM\",\"zero_point\":true}}",
                 group);
        temp_text(&tmp, "hf/config.json", config);
        st_write(&f, &tmp, "hf/model.safetensors");
        s = open_ok(temp_path(&tmp, "hf"));
        assert_rows(the_weight(s, "Q4Z"), golden_get(g, "%s.expected", name).f32, 0);
        source_free(s);
    }
    golden_free(g);
}

/* ---- bitsandbytes -------------------------------------------------------------------------------
 */

static const char *const bnb_parts[] = {"weight",
                                        "weight.absmax",
                                        "weight.quant_map",
                                        "weight.nested_absmax",
                                        "weight.nested_quant_map",
                                        "weight.quant_state.bitsandbytes__nf4",
                                        "weight.quant_state.bitsandbytes__fp4",
                                        NULL};

static void test_bnb_golden(void **state)
{
    struct golden *g = golden_load("quant/bnb_4bit.safetensors");

    for (int i = 0; i < 16; i++) {
        const char *type = i & 1 ? "fp4" : "nf4", *shape = i & 8 ? "5x96" : "6x128";
        struct golden_tensor want, original;
        const struct source_tensor *t;
        struct source *s;
        struct st f = {0};
        char name[64];
        snprintf(name, sizeof name, "%s.%s.b%d.%s", type, i & 2 ? "nested" : "plain",
                 i & 4 ? 128 : 64, shape);
        want = golden_get(g, "%s.expected", name);
        original = golden_get(g, "%s.original", name);
        add_case(&f, g, name, bnb_parts);
        assert_int_equal(f.n, i & 2 ? 6 : 4);
        s = open_ok(st_write(&f, &tmp, "m.safetensors"));
        assert_int_equal(source_tensor_count(s), 1);
        t = the_weight(s, i & 8 ? "F32" : i & 1 ? "FP4" : "NF4");
        assert_rows(t, want.f32, 1e-30); /* the sign of FP4's second zero is not theirs */
        if (!(i & 14)) {                 /* what our encoder makes of the same values */
            uint8_t *ours = malloc(t->bytes);
            t->type->encode(ours, original.f32, original.count, NULL);
            float *back = malloc(want.bytes);
            t->type->decode(back, ours, original.count);
            for (size_t n = 0; n < want.count; n++)
                assert_true(back[n] == want.f32[n]);
            free(back);
            free(ours);
        }
        source_free(s);
    }
    golden_free(g);
}

static void test_bnb_refused(void **state)
{
    static const char *const states[][2] = {
        {"{\"quant_type\":\"fp4\",\"blocksize\":64,\"shape\":[6,128]}", "quant_type"},
        {"{\"blocksize\":64,\"shape\":[6,128]}", "quant_type"},
        {"{\"quant_type\":\"nf4\",\"shape\":[6,128]}", "blocksize"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":0,\"shape\":[6,128]}", "blocksize"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64.5,\"shape\":[6,128]}", "blocksize"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":32,\"shape\":[6,128]}", "ask for 24"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64}", "shape"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[]}", "shape"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[6,-128]}", "negative"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[6,\"128\"]}", "a string"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[4294967296,4294967296]}", "overflow"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[6,126]}", "bytes of codes"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"shape\":[6,130]}", "ask for 13"},
        {"[]", "object"},
        {"{", "JSON"},
        {"", "empty"},
    };
    struct golden *g = golden_load("quant/bnb_4bit.safetensors");
    struct st good = {0}, nested = {0}, f;
    static const char state_name[] = "x.weight.quant_state.bitsandbytes__nf4";
    static const char no_offset[] =
        "{\"quant_type\":\"nf4\",\"blocksize\":64,\"nested_blocksize\":256,\"shape\":[6,128]}";

    add_case(&good, g, "nf4.plain.b64.6x128", bnb_parts);
    add_case(&nested, g, "nf4.nested.b64.6x128", bnb_parts);
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        struct st_tensor *t;
        f = good;
        t = st_find(&f, state_name);
        t->data = states[i][0];
        t->bytes = t->shape[0] = strlen(states[i][0]);
        refuse(&f, "{}", states[i][1]);
    }
    f = nested;
    st_find(&f, state_name)->data = no_offset;
    st_find(&f, state_name)->bytes = st_find(&f, state_name)->shape[0] = strlen(no_offset);
    refuse(&f, "{}", "nested_offset");
    for (size_t i = 1; i < 5; i++) { /* absmax, maps: gone, or one too short */
        bool both = i < 3;
        for (int k = 0; k < (both ? 2 : 1); k++) {
            struct st_tensor *t;
            f = both && k ? good : nested;
            t = &f.t[i];
            t->shape[0]--;
            t->bytes -= t->bytes / (t->shape[0] + 1);
            refuse(&f, "{}", "ask for");
            strcpy(t->name, "y");
            refuse(&f, "{}", i == 3 ? "U8" : "is missing");
        }
    }
    f = good;
    set_dtype(&f.t[1], "I32");
    refuse(&f, "{}", "I32");
    golden_free(g);
}

/* ---- configurations -----------------------------------------------------------------------------
 */

static void test_methods(void **state)
{
    static const struct {
        const char *config, *word; /* NULL: accepted */
    } rows[] = {
        {"{}", NULL},
        {"{\"quantization_config\":null}", NULL},
        {"{\"quantization_config\":{\"quant_method\":\"fp8\"},\"auto_map\":{\"A\":\"b.c\"}}", NULL},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
         "\"float-quantized\"}}",
         NULL},
        {"{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":"
         "\"pack-quantized\"}}",
         "float-quantized"},
        {"{\"quantization_config\":{\"quant_method\":\"hqq\"}}", "\"hqq\""},
        {"{\"quantization_config\":{\"quant_method\":7}}", "gptq, awq"},
    };
    struct st f = {0};

    st_add(&f, "x", "F32", 1, (uint64_t[]){1}, "\0\0\0", 4);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct source *s;
        struct err e = {0};
        int rc;
        temp_text(&tmp, "hf/config.json", rows[i].config);
        st_write(&f, &tmp, "hf/model.safetensors");
        s = open_ok(temp_path(&tmp, "hf"));
        rc = source_quant_check(s, &e);
        assert_int_equal(rc, rows[i].word ? ERR_UNSUPPORTED : 0);
        if (rows[i].word && !strstr(e.text, rows[i].word))
            fail_msg("expected '%s' in: %s", rows[i].word, e.text);
        source_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_fp8_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scaled, setup, teardown),
        cmocka_unit_test_setup_teardown(test_scaled_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orphans, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gptq_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gptq_layouts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gptq_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_awq_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bnb_golden, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bnb_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_methods, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
