/* Curves: axes that end at round numbers, smoothing, which panels there are, following a run that
 * grows and one that was cut back, pictures. */
#include "base/file.h"
#include "base/num.h"
#include "support/fail_io.h"
#include "support/scratch.h"
#include "train/plot_impl.h"
#include "train/run.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct place {
    char dir[64], a[96], b[96];
};

static int setup(void **state)
{
    static struct place p;
    if (!scratch_make(p.dir, sizeof p.dir, "plot"))
        return -1;
    snprintf(p.a, sizeof p.a, "%s/runs/first", p.dir);
    snprintf(p.b, sizeof p.b, "%s/runs/second", p.dir);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    scratch_remove(p->dir);
    return 0;
}

static struct run *open_run(const char *dir)
{
    struct run *r;
    struct err e = {0};
    json_t *c = json_pack("{s:s, s:i}", "stage", "grpo", "total_steps", 200);
    if (run_open(&r, dir, RUN_RESUME, c, &e))
        fail_msg("%s", e.text);
    json_decref(c);
    return r;
}

static void log_steps(struct run *r, int64_t from, int64_t to)
{
    struct err e = {0};
    for (int64_t i = from; i <= to; i++) {
        double t = (double)i;
        struct run_value v[] = {
            {"loss", 4 / (1 + 0.1 * t)}, {"odd/thing", sin(t)}, {"rewards/accuracy/mean", t / 200},
            {"rewards/format/mean", 1},  {"reward_std", 0.5},   {"reward", t / 200 + 1},
            {"learning_rate", 1e-5},     {"nan", NAN}};
        struct run_value s[] = {{"step_time", 2}};
        assert_int_equal(run_log(r, i, v, NUM_COUNT(v), &e), 0);
        assert_int_equal(run_timing(r, i, s, 1, &e), 0);
    }
}

static struct plot *plot_of(const char *a, const char *b)
{
    struct plot *p;
    struct err e = {0};
    assert_int_equal(plot_new(&p, &e), 0);
    if (plot_add(p, a, &e) || (b && plot_add(p, b, &e)))
        fail_msg("%s", e.text);
    return p;
}

/* ---- axes ------------------------------------------------------------------------------------ */

static void assert_labels(double lo, double hi, const char *unit, const char *want)
{
    struct plot_axis a;
    double ticks[PLOT_TICKS_MAX];
    char label[PLOT_LABEL_MAX], got[512] = "";
    plot_axis_init(&a, lo, hi, 5, true);
    assert_true(a.lo <= lo + 1e-5 * a.step && a.hi >= hi - 1e-5 * a.step);
    size_t n = plot_axis_ticks(&a, ticks);
    for (size_t i = 0, at = 0; i < n; i++) {
        plot_axis_label(&a, ticks[i], label);
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%s", i ? " " : "", label);
    }
    assert_string_equal(got, want);
    plot_axis_unit(&a, label);
    assert_string_equal(label, unit);
}

static void test_axes(void **state)
{
    assert_labels(0, 1, "", "0.00 0.25 0.50 0.75 1.00");
    assert_labels(0.83, 3.9, "", "0 1 2 3 4");
    assert_labels(-0.05, 0.04, "", "−0.050 −0.025 0.000 0.025 0.050");
    assert_labels(1.61, 2.39, "", "1.6 1.8 2.0 2.2 2.4");
    assert_labels(0, 3e-5, "×10⁻⁵", "0 1 2 3");
    assert_labels(0, 120000, "", "0 50k 100k 150k");
    assert_labels(0, 7.9e6, "", "0 2M 4M 6M 8M");
    assert_labels(5, 5, "", "4.50 4.75 5.00 5.25 5.50");
    assert_labels(0, 0, "", "−1.0 −0.5 0.0 0.5 1.0");
    /* anything gives some ticks */
    static const double odd[][2] = {{-1e100, 1e100}, {1e-300, 2e-300}, {1e15, 1e15 + 1}};
    for (size_t i = 0; i < NUM_COUNT(odd); i++) {
        struct plot_axis a;
        double ticks[PLOT_TICKS_MAX];
        plot_axis_init(&a, odd[i][0], odd[i][1], 5, true);
        assert_in_range(plot_axis_ticks(&a, ticks), 2, PLOT_TICKS_MAX);
        assert_true(a.hi > a.lo);
    }
}

static void test_values(void **state)
{
    static const struct {
        double v;
        const char *want;
    } cases[] = {{0.7423, "0.742"},      {12.345, "12.35"},  {0, "0.0000"},    {-1.5, "−1.500"},
                 {2.18e-5, "2.18×10⁻⁵"}, {123456, "123.5k"}, {3.2e6, "3.20M"}, {NAN, "–"}};
    char out[PLOT_LABEL_MAX];
    for (size_t i = 0; i < NUM_COUNT(cases); i++) {
        plot_value(cases[i].v, out);
        assert_string_equal(out, cases[i].want);
    }
}

/* ---- smoothing ------------------------------------------------------------------------------- */

static void test_smoothing(void **state)
{
    enum { N = 500 };
    static double x[N], y[N];
    struct plot_curve *c = malloc(sizeof *c);
    struct plot_series s = {.x = x, .y = y, .n = N};
    for (size_t i = 0; i < N; i++) {
        x[i] = (double)i;
        y[i] = 3 - 0.002 * x[i] + (i % 2 ? 0.05 : -0.05);
    }
    y[250] = 1000; /* one outlier bends nothing, and sets no range */
    plot_curve_init(c, &s, PLOT_BINS, -1);
    assert_int_equal(c->n, N);
    assert_true(c->smoothed);
    for (size_t i = 0; i < N; i++) /* a straight line stays, up to its ends */
        assert_true(fabs(c->smooth[i] - (3 - 0.002 * x[i])) < 0.01);
    plot_curve_init(c, &s, PLOT_BINS, 40);
    for (size_t i = 0; i < N; i++)
        assert_true(fabs(c->smooth[i] - (3 - 0.002 * x[i])) < 0.02);
    plot_curve_init(c, &s, PLOT_BINS, 0);
    assert_false(c->smoothed);
    assert_memory_equal(c->smooth, y, sizeof y);
    plot_curve_init(c, &s, 100, 0); /* fewer points: means of five, and what they reach */
    assert_int_equal(c->n, 100);
    assert_true(fabs(c->x[0] - 2) < 1e-12);
    assert_true(c->greatest[50] > 900 && c->least[50] < 3);
    free(c);
}

/* ---- panels ---------------------------------------------------------------------------------- */

static void assert_panels(const struct plot *p, const char *metrics, const char *want)
{
    struct plot_panel panels[PLOT_PANELS_MAX];
    struct plot_options o;
    struct err e = {0};
    char got[512] = "";
    size_t n;
    plot_options_init(&o);
    o.metrics = metrics;
    if (plot_panels(p, &o, panels, &n, &e))
        fail_msg("%s", e.text);
    for (size_t i = 0, at = 0; i < n; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%s", i ? "; " : "", panels[i].title);
    assert_string_equal(got, want);
}

static void test_panels(void **state)
{
    struct place *at = *state;
    struct plot_panel panels[PLOT_PANELS_MAX];
    struct plot_options o;
    struct err e = {0};
    size_t n;
    struct run *r = open_run(at->a);
    log_steps(r, 1, 30);
    struct plot *p = plot_of(at->a, NULL);
    assert_panels(p, NULL, "Loss; Reward; Reward: accuracy; Reward: format; Learning rate");
    assert_panels(p, "odd/thing,reward*,loss",
                  "odd/thing; Reward: accuracy; Reward: format; Reward within groups, std; Reward; "
                  "Loss");
    assert_panels(p, "loss loss, step_time", "Loss; Seconds a step");
    plot_options_init(&o);
    o.metrics = "loss,accuracy";
    assert_int_equal(plot_panels(p, &o, panels, &n, &e), ERR_USAGE);
    assert_non_null(strstr(e.text, "\"accuracy\""));
    assert_non_null(strstr(e.text, "odd/thing")); /* what there is */
    plot_free(p);
    run_free(r);
    assert_int_equal(plot_new(&p, &e), 0);
    assert_int_equal(plot_add(p, at->dir, &e), ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "no folder of a training run"));
    plot_free(p);
}

/* ---- following ------------------------------------------------------------------------------- */

static size_t points(const struct plot *p, const char *name)
{
    const struct plot_series *s = plot_series_of(&p->runs[0], name);
    return s ? s->n : 0;
}

static void test_follow(void **state)
{
    struct place *at = *state;
    struct err e = {0};
    bool changed;
    struct run *r = open_run(at->a);
    struct plot *p = plot_of(at->a, NULL);
    assert_int_equal(plot_last_step(p, 0), -1);
    log_steps(r, 1, 50);
    assert_int_equal(plot_update(p, &changed, &e), 0);
    assert_true(changed);
    assert_int_equal(points(p, "loss"), 50);
    assert_int_equal(points(p, "nan"), 0);
    assert_int_equal(plot_update(p, &changed, &e), 0);
    assert_false(changed);
    /* killed in the middle of a line: only whole ones count */
    char path[160];
    snprintf(path, sizeof path, "%s/log.jsonl", at->a);
    FILE *f = fopen(path, "a");
    fputs("{\"step\":51,\"loss\":", f);
    fclose(f);
    assert_int_equal(plot_update(p, &changed, &e), 0);
    assert_int_equal(plot_last_step(p, 0), 50);
    run_free(r);
    /* resumed from step 20, before we look and then further than where it was */
    r = open_run(at->a);
    assert_int_equal(run_rewind(r, 20, NULL, &e), 0);
    log_steps(r, 21, 24);
    assert_int_equal(plot_update(p, &changed, &e), 0);
    assert_true(changed);
    assert_int_equal(plot_last_step(p, 0), 24);
    assert_int_equal(points(p, "loss"), 24);
    assert_int_equal(points(p, "step_time"), 24);
    log_steps(r, 25, 90);
    assert_int_equal(plot_update(p, &changed, &e), 0);
    assert_int_equal(points(p, "loss"), 90);
    assert_true(run_active(at->a));
    run_free(r);
    assert_false(run_active(at->a));
    assert_false(run_active(at->dir));
    plot_free(p);
}

/* ---- text ------------------------------------------------------------------------------------ */

static size_t widest(const char *s)
{
    size_t most = 0, n = 0;
    for (; *s; s++) {
        n = *s == '\n' ? 0 : n + (((unsigned char)*s & 0xc0) != 0x80);
        most = n > most ? n : most;
    }
    return most;
}

static size_t lines(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += *s == '\n';
    return n;
}

static void test_text(void **state)
{
    struct place *at = *state;
    struct plot_options o;
    struct buf b;
    struct err e = {0};
    struct run *r = open_run(at->a), *r2 = open_run(at->b);
    log_steps(r, 1, 100);
    log_steps(r2, 1, 60);
    struct plot *p = plot_of(at->a, NULL);
    plot_options_init(&o);
    buf_init(&b, 1 << 20);
    for (int columns = 24; columns < 300; columns += 23)
        for (int rows = 8; rows < 60; rows += 17) {
            struct plot_screen s = {columns, rows, false};
            buf_clear(&b);
            assert_int_equal(plot_text(p, &o, &s, &b, &e), 0);
            assert_true(widest(b.data) <= (size_t)columns);
            assert_true(lines(b.data) <= (size_t)rows);
            assert_null(strchr(b.data, '\033'));
        }
    struct plot_screen s = {100, 0, false};
    buf_clear(&b);
    assert_int_equal(plot_text(p, &o, &s, &b, &e), 0);
    assert_non_null(strstr(b.data, "grpo · step 100/200 · 2.0 s/step · 3 min left\n"));
    assert_non_null(strstr(b.data, "Reward: accuracy"));
    assert_non_null(strstr(b.data, "Learning rate"));
    assert_non_null(strstr(b.data, "┤"));
    buf_clear(&b);
    assert_int_equal(plot_line(p, 0, &b, &e), 0);
    assert_non_null(strstr(b.data, "step 100/200"));
    assert_non_null(strstr(b.data, "loss 0.364  reward 1.500"));
    assert_int_equal(lines(b.data), 1);
    plot_free(p);

    p = plot_of(at->a, at->b); /* names without what they have in common, in colours */
    s.colour = true;
    buf_clear(&b);
    assert_int_equal(plot_text(p, &o, &s, &b, &e), 0);
    assert_non_null(strstr(b.data, "\033[36m━━\033[0m first · grpo · step 100/200"));
    assert_non_null(strstr(b.data, "\033[33m━━\033[0m second · grpo · step 60/200"));
    plot_free(p);
    buf_release(&b);
    run_free(r);
    run_free(r2);
}

static void test_spark(void **state)
{
    static const double v[] = {1, 2, 3, 4, 5, 6, 7, 8}, flat[] = {2, 2};
    struct buf b;
    struct err e;
    buf_init(&b, 100);
    assert_int_equal(plot_spark(&b, v, 8, 8, &e), 0);
    assert_string_equal(b.data, "▁▂▃▄▅▆▇█");
    buf_clear(&b);
    assert_int_equal(plot_spark(&b, v, 8, 2, &e), 0);
    assert_string_equal(b.data, "▁█");
    buf_clear(&b);
    assert_int_equal(plot_spark(&b, flat, 2, 9, &e), 0);
    assert_string_equal(b.data, "▅▅");
    buf_clear(&b);
    assert_int_equal(plot_spark(&b, NULL, 0, 9, &e), 0);
    assert_string_equal(b.data, "");
    buf_release(&b);
}

/* ---- pictures -------------------------------------------------------------------------------- */

static void test_pictures(void **state)
{
    struct place *at = *state;
    char path[160];
    struct plot_options o;
    struct buf b;
    struct err e = {0};
    struct run *r = open_run(at->a), *r2 = open_run(at->b);
    struct plot *p = plot_of(at->a, NULL);
    plot_options_init(&o);
    buf_init(&b, 16 << 20);
    snprintf(path, sizeof path, "%s/x.svg", at->dir);
    if (!plot_has_cairo()) {
        assert_int_equal(plot_save(p, &o, path, &e), ERR_UNSUPPORTED);
        assert_non_null(strstr(e.text, "libcairo2-dev"));
    } else {
        assert_int_equal(plot_save(p, &o, path, &e), ERR_NOTFOUND); /* nothing logged */
        log_steps(r, 1, 100);
        log_steps(r2, 1, 60);
        plot_free(p);
        p = plot_of(at->a, at->b);
        assert_int_equal(plot_save(p, &o, path, &e), 0);
        assert_int_equal(file_read(&b, path, &e), 0);
        assert_memory_equal(b.data, "<?xml", 5);
        assert_non_null(strstr(b.data, "</svg>"));
        size_t size = b.len;
        buf_clear(&b);
        fail_io_from(3, ENOSPC); /* a full disk: what was there stays, whole */
        assert_int_equal(plot_save(p, &o, path, &e), ERR_IO);
        assert_true(fail_io_stop());
        assert_int_equal(file_read(&b, path, &e), 0);
        assert_int_equal(b.len, size);
        buf_clear(&b);
        snprintf(path, sizeof path, "%s/x.png", at->dir);
        o.scale = 1;
        o.metrics = "loss";
        assert_int_equal(plot_save(p, &o, path, &e), 0);
        assert_int_equal(file_read(&b, path, &e), 0);
        assert_memory_equal(b.data, "\x89PNG", 4);
        assert_int_equal((uint8_t)b.data[18] << 8 | (uint8_t)b.data[19], 390); /* one panel wide */
        o.scale = 1;
        o.title = "no \xff UTF-8";
        assert_int_equal(plot_save(p, &o, path, &e), 0);
        o.scale = 1000;
        assert_int_equal(plot_save(p, &o, path, &e), ERR_USAGE);
        o.scale = 1;
        snprintf(path, sizeof path, "%s/x.gif", at->dir);
        assert_int_equal(plot_save(p, &o, path, &e), ERR_USAGE);
        assert_non_null(strstr(e.text, ".svg or .png"));
    }
    plot_free(p);
    buf_release(&b);
    run_free(r);
    run_free(r2);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_axes),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_smoothing),
        CASE(test_panels),
        CASE(test_follow),
        CASE(test_text),
        cmocka_unit_test(test_spark),
        CASE(test_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
