/*
 * Packed files: a model computes the same bits from panels in the file as from rows, at every
 * instruction set and whatever its products read; rows come back as they were; what was made
 * elsewhere, or damaged, is refused with words.
 */
#include "base/file.h"
#include "convert/convert.h"
#include "engine/engine.h"
#include "format/packed.h"
#include "kernels/panel.h"
#include "model/model.h"
#include "support/tiny_model.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS = 20 };

static char dir[64], plain[96], packed[96], again[96];

static void good(int rc, const struct err *e)
{
    if (rc)
        fail_msg("%s", e->text);
}

static int setup(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(dir, sizeof dir, "%s/ponder-packed-XXXXXX", base && strlen(base) < 32 ? base : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    snprintf(plain, sizeof plain, "%s/plain.gguf", dir);
    snprintf(packed, sizeof packed, "%s/packed.gguf", dir);
    snprintf(again, sizeof again, "%s/again.gguf", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(plain);
    unlink(packed);
    unlink(again);
    return rmdir(dir);
}

static void convert(const char *in, const char *out, bool pack)
{
    struct err e = {0};
    struct source *src;
    struct convert_plan *p;
    struct team *team;
    struct convert_options o = {.format = CONVERT_GGUF, .packed = pack, .force = true};
    good(team_new(&team, 2, &e), &e);
    good(source_open(&src, in, &e), &e);
    good(convert_plan_new(&p, src, &o, &e), &e);
    good(convert_write(p, out, team, NULL, NULL, &e), &e);
    convert_plan_free(p);
    source_free(src);
    team_free(team);
}

/* Logits of all tokens; where there is a prediction layer, its own follow. */
static float *logits(const char *path, const struct engine_opts *o, size_t *n)
{
    struct engine *g = NULL;
    struct session *s = NULL;
    struct err e = {0};
    int32_t ids[TOKENS];
    good(engine_open(&g, path, o, &e), &e);
    size_t vocab = engine_info(g)->vocab;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (i * 7919 + 3) % (int)vocab;
    good(session_new(&s, g, &e), &e);
    *n = TOKENS * vocab;
    float *y = calloc(2 * *n, sizeof *y);
    assert_non_null(y);
    /* The first pass looks at panels, the second does not any more. */
    good(session_append_all(s, ids, TOKENS / 2, y, &e), &e);
    good(session_append_all(s, ids + TOKENS / 2, TOKENS / 2, y + TOKENS / 2 * vocab, &e), &e);
    if (o->mtp) {
        session_truncate(s, 0);
        good(session_mtp_all(s, ids, TOKENS, TOKENS, y + *n, &e), &e);
        *n *= 2;
    }
    session_free(s);
    engine_free(g);
    return y;
}

static void same_logits(const char *a, const char *b, const struct engine_opts *o)
{
    size_t n, m;
    float *x = logits(a, o, &n), *y = logits(b, o, &m);
    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        if (memcmp(&x[i], &y[i], sizeof *x) != 0)
            fail_msg("%s, %s: logit %zu is %a, want %a", a, cpu_isa_name(o->isa), i, (double)y[i],
                     (double)x[i]);
    free(x);
    free(y);
}

static void options(struct engine_opts *o)
{
    engine_opts_init(o);
    o->threads = 2;
    o->ctx = 128;
    o->act = ENGINE_ACT_INT8;
}

/* All types with kernels, every instruction set, every kind of input, packed ahead or not. */
static void test_types(void **state)
{
    struct tiny_model m;
    struct engine_opts o;
    struct err e = {0};
    (void)state;
    tiny_model_init(&m);
    good(tiny_model_write(&m, plain, &e), &e);
    convert(plain, packed, true);
    options(&o);
    for (int isa = 0; isa <= (int)cpu_best(); isa++) {
        o.isa = (enum cpu_isa)isa;
        same_logits(plain, packed, &o);
    }
    o.act = ENGINE_ACT_INT16;
    same_logits(plain, packed, &o);
    o.place = ENGINE_PACKED;
    same_logits(plain, packed, &o);
    o.act = ENGINE_ACT_F32;
    same_logits(plain, packed, &o);
    o.place = ENGINE_MAPPED;
    same_logits(plain, packed, &o);
}

/* Latent attention, experts, the prediction layer, tied and untied heads; FP8 keeps its bytes. */
static void test_models(void **state)
{
    static const char *const names[] = {"dsv3_qlora_yarn_mtp", "dsv2_lite_greedy", "dsv3_fp8_mtp",
                                        "qwen2_tied",          "qwen2_untied",     "qwen3"};
    char in[512];
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct engine_opts o;
        struct source *src;
        struct err e = {0};
        bool fp8 = strstr(names[i], "fp8") != NULL;
        snprintf(in, sizeof in, "%s/models/%s", GOLDEN_DIR, names[i]);
        convert(in, packed, true);
        if (!fp8)
            convert(in, plain, false);
        options(&o);
        o.mtp = strstr(names[i], "mtp") != NULL;
        if (fp8) /* routers become F32, which products with BF16 inputs would notice */
            o.act = ENGINE_ACT_F32;
        same_logits(fp8 ? in : plain, packed, &o);
        good(source_open(&src, packed, &e), &e);
        size_t n = 0;
        for (size_t k = 0; k < source_tensor_count(src); k++) {
            const struct source_tensor *t = source_tensor_at(src, k);
            n += t->panels && (!fp8 || t->type->id == QUANT_FP8);
        }
        assert_true(n >= 10);
        source_free(src);
    }
}

static void read_whole(const char *path, struct buf *b)
{
    struct err e = {0};
    buf_init(b, 64 << 20);
    good(file_read(b, path, &e), &e);
}

/* Packed and unpacked again, a file is what it was, to the byte. */
static void test_back(void **state)
{
    struct tiny_model m;
    struct err e = {0};
    struct buf a, b;
    (void)state;
    tiny_model_init(&m);
    good(tiny_model_write(&m, again, &e), &e);
    convert(again, plain, false);
    convert(plain, packed, true);
    convert(packed, again, false);
    read_whole(plain, &a);
    read_whole(again, &b);
    assert_int_equal(a.len, b.len);
    assert_memory_equal(a.data, b.data, a.len);
    buf_release(&a);
    buf_release(&b);
}

/* The place behind a string of the header. */
static char *behind(struct buf *b, const char *s)
{
    char *p = memmem(b->data, b->len, s, strlen(s));
    assert_non_null(p);
    return p + strlen(s);
}

static void refused(const struct buf *b, size_t n, int code, const char *words)
{
    struct source *src;
    struct err e = {0};
    uint8_t *p = aligned_alloc(64, (n + 63) / 64 * 64);
    assert_non_null(p);
    memcpy(p, b->data, n);
    assert_int_equal(source_open_memory(&src, p, n, &e), code);
    if (!strstr(e.text, words))
        fail_msg("\"%s\" says nothing of \"%s\"", e.text, words);
    free(p);
}

static void put_u32(char *at, uint32_t v)
{
    memcpy(at, &v, sizeof v);
}

static void test_refuse(void **state)
{
    struct tiny_model m;
    struct err e = {0};
    struct buf b;
    (void)state;
    tiny_model_init(&m);
    good(tiny_model_write(&m, plain, &e), &e);
    convert(plain, packed, true);
    read_whole(packed, &b);
    char *layout = behind(&b, PACKED_KEY) + 4, *align = behind(&b, "general.alignment") + 4;
    /* Behind a name: dimensions, their sizes, the type. */
    char *type = behind(&b, "blk.0.attn_q.weight") + 4 + 16;
    char *vector = behind(&b, "blk.0.attn_norm.weight") + 4 + 8, *rows = type - 8;
    uint32_t was;
    memcpy(&was, type, sizeof was);
    assert_true(was >= PACKED_TYPE);

    put_u32(layout, PANEL_LAYOUTS + 1);
    refused(&b, b.len, ERR_UNSUPPORTED, "pack the original again");
    put_u32(layout, 0);
    refused(&b, b.len, ERR_FORMAT, "does not say how");
    put_u32(layout, PANEL_LAYOUTS);
    put_u32(align, 32);
    refused(&b, b.len, ERR_FORMAT, "alignment of 64");
    put_u32(align, 64);
    put_u32(type, PACKED_TYPE + QUANT_NVFP4);
    refused(&b, b.len, ERR_UNSUPPORTED, "is not known");
    put_u32(type, was);
    put_u32(vector, PACKED_TYPE);
    refused(&b, b.len, ERR_UNSUPPORTED, "is not known");
    put_u32(vector, 0);
    put_u32(rows + 4, 1u << 30);
    refused(&b, b.len, ERR_FORMAT, "overflows");
    put_u32(rows + 4, 0);
    rows[1] = 16; /* 4,096 rows more than there are */
    refused(&b, b.len, ERR_FORMAT, "attn_q");
    rows[1] = 1;
    refused(&b, b.len - 4096, ERR_FORMAT, "truncated");
    buf_release(&b);
}

/* A scale that is NaN is found by the first pass, by name and row. */
static void test_damaged(void **state)
{
    static const enum quant_id types[] = {QUANT_Q4_K};
    struct tiny_model m;
    struct engine_opts o;
    struct source *src;
    struct engine *g;
    struct session *s;
    struct err e = {0};
    int32_t id = 1;
    (void)state;
    tiny_model_init(&m);
    m.types = types;
    m.n_types = 1;
    good(tiny_model_write(&m, plain, &e), &e);
    convert(plain, packed, true);
    good(source_open(&src, packed, &e), &e);
    const struct source_tensor *t = source_tensor(src, "blk.1.attn_output.weight");
    assert_non_null(t);
    /* Of panel 1: the scale of row 16 + 3 in the first block. */
    long at = (long)(t->offset + t->panel_bytes / (t->shape[0] / 16)) + 4 * 3;
    source_free(src);
    FILE *f = fopen(packed, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite("\x00\x7e", 1, 2, f), 2);
    fclose(f);
    options(&o);
    good(engine_open(&g, packed, &o, &e), &e);
    good(session_new(&s, g, &e), &e);
    assert_int_equal(session_append(s, &id, 1, &e), ERR_FORMAT);
    assert_non_null(strstr(e.text, "\"blk.1.attn_output.weight\", row 19:"));
    session_free(s);
    engine_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),  cmocka_unit_test(test_models),  cmocka_unit_test(test_back),
        cmocka_unit_test(test_refuse), cmocka_unit_test(test_damaged),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
