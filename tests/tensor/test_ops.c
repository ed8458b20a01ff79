/* The products of ops: every weight type, with and without a kernel, against decoded weights in
 * double. */
#include "base/rng.h"
#include "tensor/ops.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 50, COLS = 512, TOKENS = 9 };

struct fixture {
    struct kern kern;
    struct team *team;
    struct op_ctx c;
    struct weight_store store;
    float x[TOKENS * COLS];
};

static void setup(struct fixture *f)
{
    struct err e = {0};
    struct rng r;
    memset(f, 0, sizeof *f);
    kern_init(&f->kern, cpu_best());
    assert_int_equal(team_new(&f->team, 2, &e), 0);
    op_ctx_init(&f->c, &f->kern, f->team);
    assert_int_equal(op_ctx_reserve(&f->c, 16 << 20, &e), 0);
    assert_int_equal(weight_store_init(&f->store, 8 << 20, &e), 0);
    rng_init(&r, 9, 0);
    for (size_t i = 0; i < TOKENS * COLS; i++)
        f->x[i] = (float)rng_normal(&r);
}

static void teardown(struct fixture *f)
{
    weight_store_release(&f->store);
    op_ctx_release(&f->c);
    team_free(f->team);
}

/* A random matrix of a type; *raw is freed by the caller after use. */
static void matrix(struct fixture *f, struct weight *w, const struct quant_type *t, uint64_t stream,
                   uint8_t **raw)
{
    struct err e = {0};
    struct rng r;
    size_t bytes;
    float *v = malloc(sizeof *v * ROWS * COLS);
    assert_true(quant_size(t, (size_t)ROWS * COLS, &bytes));
    *raw = malloc(bytes);
    assert_true(v && *raw);
    rng_init(&r, 11, stream);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        v[i] = (float)rng_normal(&r);
    t->encode(*raw, v, (size_t)ROWS * COLS, NULL);
    free(v);
    assert_int_equal(weight_matrix(w, "w", t, ROWS, COLS, &(struct weight_rows){.at = *raw},
                                   &f->kern, f->team, &f->store, &e),
                     0);
}

/* Bound: a quantized input is off by half a step, at most max|x| / 254 a value (about 4 / 254
   here); the errors of COLS products add like a random walk, six deviations are allowed. Float
   types: K · eps. */
static double bound(const struct fixture *f, const struct quant_type *t, const float *row)
{
    double sq = 0, sum = 0;
    for (size_t i = 0; i < COLS; i++) {
        sq += (double)row[i] * row[i];
        sum += fabs((double)row[i]) * 4;
    }
    bool quantized =
        f->kern.mul[t->id].act == KERN_ACT_Q32 || f->kern.mul[t->id].act == KERN_ACT_Q256;
    double step = quantized ? 4.0 / 254 : f->kern.mul[t->id].act == KERN_ACT_BF16 ? 4.0 / 512 : 0;
    return sum * COLS * 1.2e-7 + 6 * sqrt(sq) * step / sqrt(3);
}

static double product(const float *row, const float *x)
{
    double s = 0;
    for (size_t i = 0; i < COLS; i++)
        s += (double)row[i] * x[i];
    return s;
}

static void test_linear(void **state)
{
    (void)state;
    struct fixture f;
    size_t n;
    const struct quant_type *const *all = quant_all(&n);
    setup(&f);
    for (size_t i = 0; i < n; i++) {
        struct weight w;
        uint8_t *raw;
        float row[COLS];
        if (!all[i]->encode)
            continue;
        f.store.used = 0;
        matrix(&f, &w, all[i], i, &raw);
        struct tensor y = op_linear(&f.c, (struct tensor){f.x, TOKENS, COLS}, &w, NULL);
        assert_int_equal(y.cols, ROWS);
        for (size_t r = 0; r < ROWS; r++) {
            weight_row(&w, r, row, NULL);
            for (size_t t = 0; t < TOKENS; t++) {
                double want = product(row, f.x + t * COLS), got = y.data[t * ROWS + r];
                if (!(fabs(got - want) <= bound(&f, all[i], row)))
                    fail_msg("%s, row %zu, token %zu: %g, want %g", all[i]->name, r, t, got, want);
            }
        }
        f.c.used = 0;
        /* Activations of two bytes: what rounding left is there too, at a 127th of the bound. */
        f.c.fine = true;
        y = op_linear(&f.c, (struct tensor){f.x, TOKENS, COLS}, &w, NULL);
        f.c.fine = false;
        for (size_t r = 0; r < ROWS; r++) {
            weight_row(&w, r, row, NULL);
            for (size_t t = 0; t < TOKENS; t++) {
                double want = product(row, f.x + t * COLS), got = y.data[t * ROWS + r];
                double most = bound(&f, all[i], row) / 100 + 2e-5 + 1e-5 * fabs(want);
                if (f.kern.mul[all[i]->id].act >= KERN_ACT_Q32 && !(fabs(got - want) <= most))
                    fail_msg("%s, two bytes, row %zu, token %zu: %g, want %g", all[i]->name, r, t,
                             got, want);
            }
        }
        f.c.used = 0;
        free(raw);
    }
    teardown(&f);
}

/* Rows of a made weight: `arg` is the weight in file order, shifted by the slice's first row. */
static void make_rows(const void *arg, uint64_t r, size_t n, uint8_t *dst, size_t stride)
{
    const struct weight *w = arg;
    assert_true(r >= 7);
    for (size_t i = 0; i < n; i++)
        memcpy(dst + i * stride, w->from.at + (r - 7 + i) * w->row_bytes, w->row_bytes);
}

/* Packed at load, packed when used, and from rows that are made: the same bits, for every type. */
static void test_lazy(void **state)
{
    (void)state;
    struct fixture f;
    struct err e = {0};
    size_t n;
    const struct quant_type *const *all = quant_all(&n);
    setup(&f);
    for (size_t i = 0; i < n; i++) {
        struct weight w, lazy, made, packed;
        uint8_t *raw;
        if (!all[i]->encode)
            continue;
        f.store.used = 0;
        matrix(&f, &w, all[i], i, &raw);
        struct weight_rows slice = {.make = make_rows, .arg = &w, .row0 = 7};
        assert_int_equal(
            weight_matrix(&lazy, "w", all[i], ROWS, COLS, &w.from, &f.kern, f.team, NULL, &e), 0);
        assert_int_equal(
            weight_matrix(&made, "w", all[i], ROWS, COLS, &slice, &f.kern, f.team, NULL, &e), 0);
        assert_int_equal(
            weight_matrix(&packed, "w", all[i], ROWS, COLS, &slice, &f.kern, f.team, &f.store, &e),
            0);
        struct tensor x = {f.x, TOKENS, COLS}, y = op_linear(&f.c, x, &w, NULL);
        const struct weight *other[] = {&lazy, &made, &packed};
        for (size_t k = 0; k < 3; k++) {
            struct tensor z = op_linear(&f.c, x, other[k], NULL);
            if (memcmp(y.data, z.data, TOKENS * ROWS * sizeof(float)) != 0)
                fail_msg("%s: the bits depend on where the rows lie (%zu)", all[i]->name, k);
        }
        f.c.used = 0;
        free(raw);
    }
    teardown(&f);
}

static void count_done(const void *arg)
{
    ++*(int *)(uintptr_t)arg;
}

/* Pending weights: read where they lie, packed in part, packed: the same bits. Once packed, the
 * rows are read no more, which is told once. */
static void test_pending(void **state)
{
    (void)state;
    struct fixture f;
    struct err e = {0};
    size_t n;
    const struct quant_type *const *all = quant_all(&n);
    setup(&f);
    for (size_t i = 0; i < n; i++) {
        struct weight w, later;
        uint8_t *raw;
        int told = 0;
        if (!all[i]->encode)
            continue;
        f.store.used = 0;
        f.store.passes = 0;
        matrix(&f, &w, all[i], i, &raw);
        assert_int_equal(weight_later(&later, "w", all[i], ROWS, COLS, &w.from, &f.kern, &f.store,
                                      (struct weight_done){count_done, &told}, &e),
                         0);
        bool packs = weight_has_kernel(&f.kern, all[i]);
        struct tensor x = {f.x, TOKENS, COLS}, y = op_linear(&f.c, x, &w, NULL);
        size_t mark = f.c.used;
        for (int pass = 0; pass < 4; pass++) {
            if (pass == 1) /* room for one more panel, perhaps for one of each thread */
                atomic_store(&f.store.budget, 1);
            else
                weight_store_pass(&f.store, 1);
            if (pass == 3 && packs)
                memset(raw, 0xff, later.row_bytes * ROWS);
            struct tensor z = op_linear(&f.c, x, &later, NULL);
            assert_int_equal(weight_store_check(&f.store, &e), 0);
            if (memcmp(y.data, z.data, TOKENS * ROWS * sizeof(float)) != 0)
                fail_msg("%s: the bits of pass %d differ", all[i]->name, pass);
            assert_int_equal(told, packs && pass >= 2);
            assert_int_equal(weight_panels(&later) != NULL, packs && pass >= 2);
            f.c.used = mark;
        }
        f.c.used = 0;
        free(raw);
    }
    teardown(&f);
}

/* All at once, after some of it was packed by a pass. */
static void test_settle(void **state)
{
    (void)state;
    struct fixture f;
    struct err e = {0};
    struct weight w, later[2];
    uint8_t *raw;
    int told = 0;
    setup(&f);
    matrix(&f, &w, quant_by_id(QUANT_Q4_K), 3, &raw);
    for (int i = 0; i < 2; i++)
        assert_int_equal(weight_later(&later[i], "w", w.type, ROWS, COLS, &w.from, &f.kern,
                                      &f.store, (struct weight_done){count_done, &told}, &e),
                         0);
    struct tensor x = {f.x, TOKENS, COLS}, y = op_linear(&f.c, x, &w, NULL);
    atomic_store(&f.store.budget, 1);
    op_linear(&f.c, x, &later[1], NULL);
    assert_int_equal(weight_store_settle(&f.store, &f.kern, f.team, NULL, NULL, &e), 0);
    assert_int_equal(told, 2);
    memset(raw, 0xff, w.row_bytes * ROWS);
    for (int i = 0; i < 2; i++) {
        struct tensor z = op_linear(&f.c, x, &later[i], NULL);
        assert_memory_equal(y.data, z.data, TOKENS * ROWS * sizeof(float));
    }
    free(raw);
    teardown(&f);
}

/* Columns in another order: the products of the same matrix with its columns in place, but for the
 * order of sums. */
static void test_order(void **state)
{
    (void)state;
    struct fixture f;
    struct err e = {0};
    const struct quant_type *t = quant_by_id(QUANT_F32);
    uint32_t order[COLS];
    float *plain = malloc(sizeof *plain * ROWS * COLS),
          *moved = malloc(sizeof *moved * ROWS * COLS);
    assert_true(plain && moved);
    setup(&f);
    for (size_t i = 0; i < COLS; i++)
        order[i] = (uint32_t)(i * 37 % COLS);
    for (size_t i = 0; i < (size_t)ROWS * COLS; i++)
        plain[i] = (float)((i * 7919) % 1000) / 500 - 1;
    for (size_t r = 0; r < ROWS; r++)
        for (size_t i = 0; i < COLS; i++)
            moved[r * COLS + i] = plain[r * COLS + order[i]];
    struct weight a, b;
    struct weight_rows ra = {.at = (uint8_t *)plain}, rb = {.at = (uint8_t *)moved};
    assert_int_equal(weight_matrix(&a, "a", t, ROWS, COLS, &ra, &f.kern, f.team, &f.store, &e), 0);
    assert_int_equal(weight_matrix(&b, "b", t, ROWS, COLS, &rb, &f.kern, f.team, &f.store, &e), 0);
    b.order = order;
    struct tensor x = {f.x, TOKENS, COLS}, y[2];
    op_linears(&f.c, x, 2, (const struct weight *[]){&a, &b}, NULL, y);
    struct tensor g = op_swiglu(&f.c, x, &a, &b), h = op_swiglu(&f.c, x, &a, &a);
    for (size_t i = 0; i < TOKENS * ROWS; i++) {
        assert_true(fabsf(y[0].data[i] - y[1].data[i]) <= 1e-3f);
        assert_true(fabsf(g.data[i] - h.data[i]) <= 1e-2f + 1e-3f * fabsf(h.data[i]));
    }
    free(plain);
    free(moved);
    teardown(&f);
}

/* A matrix for each head gives what that many products give; the rest of a head follows. */
static void test_heads(void **state)
{
    (void)state;
    struct fixture f;
    struct weight w[3];
    uint8_t *raw[3];
    enum { MORE = 24, WIDE = COLS + MORE, OUT = ROWS + MORE };
    setup(&f);
    const enum quant_id types[] = {QUANT_Q4_K, QUANT_Q8_0, QUANT_BF16};
    for (size_t i = 0; i < 3; i++)
        matrix(&f, &w[i], quant_by_id(types[i]), i, &raw[i]);
    struct tensor x = op_tensor(&f.c, TOKENS, 3 * WIDE);
    for (size_t i = 0; i < TOKENS * 3 * WIDE; i++)
        x.data[i] = (float)((i * 7919) % 1000) / 500 - 1;
    struct tensor y = op_linear_heads(&f.c, x, 3, w, (struct tensor){0}, false);
    assert_int_equal(y.cols, 3 * OUT);
    for (size_t h = 0; h < 3; h++) {
        struct tensor one = op_tensor(&f.c, TOKENS, COLS);
        for (size_t t = 0; t < TOKENS; t++)
            memcpy(one.data + t * COLS, x.data + t * x.cols + h * WIDE, COLS * sizeof(float));
        struct tensor z = op_linear(&f.c, one, &w[h], NULL);
        for (size_t t = 0; t < TOKENS; t++)
            assert_memory_equal(y.data + t * y.cols + h * OUT, z.data + t * ROWS,
                                ROWS * sizeof(float));
        for (size_t t = 0; t < TOKENS; t++)
            assert_memory_equal(y.data + t * y.cols + h * OUT + ROWS,
                                x.data + t * x.cols + h * WIDE + COLS, MORE * sizeof(float));
        free(raw[h]);
    }
    teardown(&f);
}

static void test_together(void **state)
{
    (void)state;
    struct fixture f;
    struct weight w[3];
    uint8_t *raw[3];
    setup(&f);
    const enum quant_id types[] = {QUANT_Q4_K, QUANT_Q8_0, QUANT_F32};
    for (size_t i = 0; i < 3; i++)
        matrix(&f, &w[i], quant_by_id(types[i]), i, &raw[i]);
    float bias[ROWS];
    for (size_t i = 0; i < ROWS; i++)
        bias[i] = (float)i;
    struct weight b = {.name = "b", .rows = 1, .cols = ROWS, .vec = bias};
    struct tensor x = {f.x, TOKENS, COLS}, y[3];
    const struct weight *ws[] = {&w[0], &w[1], &w[2]}, *bs[] = {NULL, &b, NULL};
    op_linears(&f.c, x, 3, ws, bs, y);
    for (size_t i = 0; i < 3; i++) {
        struct tensor one = op_linear(&f.c, x, &w[i], bs[i]);
        assert_memory_equal(one.data, y[i].data, sizeof(float) * TOKENS * ROWS);
    }
    struct tensor plain = op_linear(&f.c, x, &w[1], NULL);
    assert_true(fabsf(y[1].data[7] - plain.data[7] - 7) < 1e-4f);
    /* silu(gate) × up from its parts */
    struct tensor s = op_swiglu(&f.c, x, &w[0], &w[1]);
    for (size_t i = 0; i < (size_t)TOKENS * ROWS; i++) {
        double g = y[0].data[i], want = g / (1 + exp(-g)) * plain.data[i];
        assert_true(fabs(s.data[i] - want) <= 1e-5 + 1e-5 * fabs(want));
    }
    for (size_t i = 0; i < 3; i++)
        free(raw[i]);
    teardown(&f);
}

static void test_nan_is_found(void **state)
{
    (void)state;
    struct fixture f;
    struct err e = {0};
    setup(&f);
    static const enum quant_id types[] = {
        QUANT_Q4_0, QUANT_Q4_1, QUANT_Q8_0,   QUANT_Q6_K, QUANT_Q4_K, QUANT_F16,
        QUANT_BF16, QUANT_F32,  QUANT_IQ4_NL, QUANT_E4M3, QUANT_E5M2, QUANT_FP8,
        QUANT_I8,   QUANT_Q4Z,  QUANT_Q8Z,    QUANT_NF4,  QUANT_FP4};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct weight w;
        uint8_t *raw;
        const struct quant_type *t = quant_by_id(types[i]);
        f.store.used = 0;
        matrix(&f, &w, t, i, &raw);
        size_t at = 17 * w.row_bytes;
        if (types[i] == QUANT_FP8) /* one code is enough */
            raw[at + w.row_bytes - 1] = 0x7f;
        else
            memset(raw + at, 0xff, w.row_bytes);
        f.store.used = 0;
        assert_int_equal(weight_matrix(&w, "blk.0.x", t, ROWS, COLS,
                                       &(struct weight_rows){.at = raw}, &f.kern, f.team, &f.store,
                                       &e),
                         ERR_FORMAT);
        assert_non_null(strstr(e.text, "blk.0.x"));
        assert_non_null(strstr(e.text, "row 17"));
        /* Pending, it is found by the pass that reads it, or by packing. */
        struct tensor x = {f.x, TOKENS, COLS};
        for (int settle = 0; settle < 2; settle++) {
            weight_store_release(&f.store);
            assert_int_equal(weight_store_init(&f.store, 8 << 20, &e), 0);
            assert_int_equal(weight_later(&w, "blk.0.x", t, ROWS, COLS,
                                          &(struct weight_rows){.at = raw}, &f.kern, &f.store,
                                          (struct weight_done){0}, &e),
                             0);
            weight_store_pass(&f.store, TOKENS);
            assert_int_equal(weight_store_check(&f.store, &e), 0);
            int rc = 0;
            if (settle)
                rc = weight_store_settle(&f.store, &f.kern, f.team, NULL, NULL, &e);
            else
                op_linear(&f.c, x, &w, NULL);
            f.c.used = 0;
            assert_int_equal(settle ? rc : weight_store_check(&f.store, &e), ERR_FORMAT);
            assert_non_null(strstr(e.text, "blk.0.x"));
            assert_non_null(strstr(e.text, "row 17"));
        }
        weight_store_release(&f.store);
        assert_int_equal(weight_store_init(&f.store, 8 << 20, &e), 0);
        free(raw);
    }
    teardown(&f);
}

static void test_dry_run_is_enough(void **state)
{
    (void)state;
    struct fixture f;
    struct weight w;
    uint8_t *raw;
    setup(&f);
    matrix(&f, &w, quant_by_id(QUANT_IQ4_XS), 1, &raw);
    struct op_ctx dry = f.c;
    dry.dry = true;
    dry.peak = 0;
    op_swiglu(&dry, (struct tensor){NULL, TOKENS, COLS}, &w, &w);
    f.c.peak = 0;
    op_swiglu(&f.c, (struct tensor){f.x, TOKENS, COLS}, &w, &w);
    assert_int_equal(f.c.peak, dry.peak);
    free(raw);
    teardown(&f);
}

/* The head of a prompt's chunk whose logits nobody wants. */
static void test_no_rows(void **state)
{
    (void)state;
    struct fixture f;
    static const enum quant_id types[] = {QUANT_Q4_0, QUANT_Q4_K, QUANT_F32, QUANT_IQ4_XS};
    setup(&f);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct weight w;
        uint8_t *raw;
        f.store.used = 0;
        matrix(&f, &w, quant_by_id(types[i]), i, &raw);
        struct tensor x = {f.x, 0, COLS};
        assert_int_equal(op_linear(&f.c, x, &w, NULL).rows, 0);
        assert_int_equal(op_swiglu(&f.c, x, &w, &w).rows, 0);
        free(raw);
    }
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_lazy),
        cmocka_unit_test(test_pending),
        cmocka_unit_test(test_settle),
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_together),
        cmocka_unit_test(test_nan_is_found),
        cmocka_unit_test(test_dry_run_is_enough),
        cmocka_unit_test(test_no_rows),
    };
    return cmocka_run_group_tests_name("tensor/ops", tests, NULL, NULL);
}
