/*
 * The report of `ponder bench`: a table to read, one to paste, or JSON.
 *
 * Shares. Reading: bytes a second over what the machine reads. Arithmetic: the time that the
 * operations would take at the machine's peaks, over the time they took; so a model whose weights
 * need different arithmetic (int8 and float, say) has one honest figure. int16 activations take two
 * int8 products for one, and their peak is half.
 */
#include "cli/bench_report.h"

#include "cli/lines.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double bench_median(const struct bench_result *r)
{
    size_t n = r->samples;
    return n % 2 ? r->rate[n / 2] : (r->rate[n / 2 - 1] + r->rate[n / 2]) / 2;
}

void bench_results_release(struct bench_results *all)
{
    for (size_t i = 0; i < all->n; i++)
        free(all->row[i].rate);
    free(all->row);
    all->row = NULL;
    all->n = 0;
}

/* Passes a second at the median. */
static double bench_passes(const struct bench_result *r)
{
    return bench_median(r) / ((double)r->tokens * (double)r->sequences);
}

static double bench_peak(const struct bench_result *r, enum engine_math m)
{
    switch (m) {
    case ENGINE_MATH_INT8:
        return r->limit[PEAK_INT8];
    case ENGINE_MATH_INT16:
        return r->limit[PEAK_INT8] / 2;
    case ENGINE_MATH_BF16:
        return r->limit[PEAK_BF16];
    default:
        return r->limit[PEAK_F32];
    }
}

static double bench_ops(const struct bench_result *r)
{
    double sum = 0;
    for (int m = 0; m < ENGINE_MATH_COUNT; m++)
        sum += r->ops[m];
    return sum * bench_passes(r);
}

/* Share of the arithmetic's limit; 0 when that is not known. */
static double bench_ops_share(const struct bench_result *r)
{
    double at_least = 0;
    for (int m = 0; m < ENGINE_MATH_COUNT; m++) {
        double peak = bench_peak(r, (enum engine_math)m);
        if (r->ops[m] > 0 && peak <= 0)
            return 0;
        at_least += r->ops[m] > 0 ? r->ops[m] / peak : 0;
    }
    return at_least * bench_passes(r);
}

static double bench_read_share(const struct bench_result *r)
{
    double limit = r->limit[PEAK_READ];
    return limit > 0 ? r->bytes * bench_passes(r) / limit : 0;
}

/* The arithmetic of most operations. */
static const char *bench_math(const struct bench_result *r)
{
    static const char *const names[] = {"int8", "int16", "bf16", "f32"};
    int most = 0;
    for (int m = 1; m < ENGINE_MATH_COUNT; m++)
        most = r->ops[m] > r->ops[most] ? m : most;
    return names[most];
}

/* "25.1" and "88%", or "-" each where there is nothing to tell. */
static void bench_cells(char value[16], char share[16], double v, double of)
{
    snprintf(value, 16, v > 0 ? "%.1f" : "-", v / 1e9);
    snprintf(share, 16, v > 0 && of > 0 ? "%.0f%%" : "-", 100 * of);
}

/* The limits beside which the rows of one number of threads were measured: lowest and highest. */
static void bench_limits(const struct bench_result *r, size_t n)
{
    double low[PEAK_KIND_COUNT], high[PEAK_KIND_COUNT];
    for (int k = 0; k < PEAK_KIND_COUNT; k++) {
        low[k] = high[k] = r->limit[k];
        for (size_t i = 1; i < n; i++) {
            low[k] = r[i].limit[k] < low[k] ? r[i].limit[k] : low[k];
            high[k] = r[i].limit[k] > high[k] ? r[i].limit[k] : high[k];
        }
    }
    printf("limits of this machine with %d thread%s: ", r->threads, r->threads == 1 ? "" : "s");
    if (high[PEAK_READ] > 0)
        printf("reads %.1f to %.1f GB/s; ", low[PEAK_READ] / 1e9, high[PEAK_READ] / 1e9);
    printf("int8 %.0f, bf16 %.0f, f32 %.0f GOP/s\n", high[PEAK_INT8] / 1e9, high[PEAK_BF16] / 1e9,
           high[PEAK_F32] / 1e9);
}

void bench_print(const struct bench_results *all, const char *head, enum bench_form form)
{
    printf("%s\n\n%s", head,
           form == BENCH_TABLE
               ? "test      threads   depth      tok/s       best      worst    GB/s   read     "
                 "GOP/s   peak\n"
               : "| test | threads | depth | tok/s | best | worst | GB/s | of reading | GOP/s | "
                 "of peak |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
    for (size_t i = 0; i < all->n; i++) {
        const struct bench_result *r = &all->row[i];
        char test[64], gb[16], read[16], gop[16], peak[16];
        int at = snprintf(test, sizeof test, "%c%zu", r->decode ? 'n' : 'p', r->tokens);
        if (r->sequences > 1)
            at += snprintf(test + at, sizeof test - (size_t)at, "x%zu", r->sequences);
        if (r->sched)
            snprintf(test + at, sizeof test - (size_t)at, "s");
        bench_cells(gb, read, r->bytes * bench_passes(r), bench_read_share(r));
        bench_cells(gop, peak, bench_ops(r), bench_ops_share(r));
        printf(form == BENCH_TABLE
                   ? "%-8s  %7d  %6zu  %9.2f  %9.2f  %9.2f  %6s  %5s  %8s  %5s %s\n"
                   : "| %s | %d | %zu | %.2f | %.2f | %.2f | %s | %s | %s | %s %s |\n",
               test, r->threads, r->depth, bench_median(r), r->rate[r->samples - 1], r->rate[0], gb,
               read, gop, peak, bench_math(r));
    }
    printf("\n");
    for (size_t i = 0, n; i < all->n; i += n) {
        for (n = 1; i + n < all->n && all->row[i + n].threads == all->row[i].threads;)
            n++;
        bench_limits(&all->row[i], n);
    }
}

/* A number, or null where it is not known. */
static json_t *bench_json_known(double v)
{
    return v > 0 ? json_real(v) : json_null();
}

static json_t *bench_json_row(const struct bench_result *r)
{
    json_t *samples = json_array();
    for (size_t i = 0; samples && i < r->samples; i++)
        json_array_append_new(samples, json_real(r->rate[i]));
    json_t *o = json_pack(
        "{ss sb sI sI sI si sf sf sf so so sf ss so so}", "test", r->decode ? "decode" : "prefill",
        "scheduler", r->sched, "tokens", (json_int_t)r->tokens, "depth", (json_int_t)r->depth,
        "sequences", (json_int_t)r->sequences, "threads", r->threads, "tokens_per_second",
        bench_median(r), "best_tokens_per_second", r->rate[r->samples - 1],
        "worst_tokens_per_second", r->rate[0], "samples", samples, "bytes_per_second",
        bench_json_known(r->bytes * bench_passes(r)), "ops_per_second", bench_ops(r), "arithmetic",
        bench_math(r), "read_share", bench_json_known(bench_read_share(r)), "ops_share",
        bench_json_known(bench_ops_share(r)));
    if (o)
        json_object_set_new(o, "regions", json_real(r->regions));
    for (int k = 0; o && k < PEAK_KIND_COUNT; k++) {
        char name[64];
        snprintf(name, sizeof name, "machine_%s_%s_per_second", peak_name((enum peak_kind)k),
                 k == PEAK_READ ? "bytes" : "ops");
        json_object_set_new(o, name, bench_json_known(r->limit[k]));
    }
    return o;
}

int bench_print_json(const struct bench_results *all, json_t *model, struct err *e)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < all->n; i++)
        json_array_append_new(rows, bench_json_row(&all->row[i]));
    json_t *o = json_pack("{sO so}", "model", model, "results", rows);
    int rc = o ? lines_print_json(o, true, e) : err_nomem(e, 0, "the report");
    json_decref(o);
    return rc;
}
