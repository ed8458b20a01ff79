/*
 * checkasm: holds every kernel of every instruction set to its definition in plain C, bit for bit
 * (the manner of the checkasm programs of x264, FFmpeg and dav1d).
 *
 * A check is a function that tests one kind of kernel at the current level: it asks check_func
 * whether there is anything new to test, makes random inputs in buffers that end at an unmapped
 * page, calls c->k and c->ref, and compares. To add a check: write the function, declare it at the
 * end of this header, add one row to the table in checkasm.c. The row says which fields of struct
 * kern it covers; a field without a row fails the run.
 */
#ifndef PONDER_TESTS_KERNELS_CHECKASM_H
#define PONDER_TESTS_KERNELS_CHECKASM_H

#include "kernels/kern.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check_state; /* the program's own */

struct checkasm {
    const struct kern *k;     /* the level under test */
    const struct kern *below; /* the level below it; all zero for scalar */
    const struct kern *ref;   /* scalar: the definition */
    enum cpu_isa isa;         /* of k */
    bool bench;               /* --bench was given */
    bool any_zero;            /* -0 is as good as 0: under valgrind, whose FNMADD mixes them up */
    struct check_state *state;
};

/*
 * Begins a test point "name [isa]". False when there is nothing to do: is_new is false (the pointer
 * is that of the level below) or the name does not match the pattern of the command line. A point
 * that no check_fail touched is ok.
 */
bool check_func(struct checkasm *c, bool is_new, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The current point fails; the first few messages are printed. */
void check_fail(struct checkasm *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Memory whose last byte lies before an unmapped page; freed when the check returns. Aligned to 64
   if bytes is a multiple of 64, to 4 if one of 4. Filled with 0xA5. */
void *check_buf(struct checkasm *c, size_t bytes);

/* Gives back all buffers now, for checks with many rounds. */
void check_buf_reset(struct checkasm *c);

uint32_t check_u32(struct checkasm *c);                      /* any 32 bits */
size_t check_range(struct checkasm *c, size_t a, size_t b);  /* a..b */
float check_float(struct checkasm *c);                       /* (-1, 1) */
void check_floats(struct checkasm *c, float *p, size_t n);   /* (-1, 1) each */
void check_bytes(struct checkasm *c, void *p, size_t bytes); /* any bytes */

/* What random floats look like. */
enum check_kind {
    CHECK_PLAIN,   /* (-1, 1) times a size */
    CHECK_WIDE,    /* any finite bits */
    CHECK_SPECIAL, /* mostly plain, some zeros, subnormals, infinities, NaN, ends of ranges */
    CHECK_ZERO,
    CHECK_KINDS,
};

void check_fill(struct checkasm *c, float *p, size_t n, enum check_kind kind);
float *check_values(struct checkasm *c, size_t n, enum check_kind kind); /* a check_buf of them */
float *check_copy(struct checkasm *c, const float *p, size_t n);

/* Bytes of a row of k values in file order. */
size_t check_row_bytes(const struct quant_type *t, size_t k);

/* Same bits, where any NaN equals any NaN; fails the point and names the first difference. */
bool check_same(struct checkasm *c, const float *got, const float *want, size_t n,
                const char *what);
bool check_same_bytes(struct checkasm *c, const void *got, const void *want, size_t bytes,
                      const char *what);

/*
 * Times run(table, arg) for the level under test and for scalar (best of many) and prints ns, "x
 * over C" and, where bytes or ops (both per call) are not 0, GB/s and GOP/s. Does nothing without
 * --bench.
 */
void check_bench(struct checkasm *c, const char *what, void (*run)(const struct kern *k, void *arg),
                 void *arg, double bytes, double ops);

/* ---- checks, one row each in checkasm.c -------------------------------------------------------
 */

void check_mul(struct checkasm *c);
void check_pack(struct checkasm *c);
void check_quantize(struct checkasm *c);
void check_tile(struct checkasm *c);
void check_dots(struct checkasm *c);
void check_to_i8(struct checkasm *c);
void check_page_scores(struct checkasm *c);
void check_page_weights(struct checkasm *c);
void check_page_values(struct checkasm *c);
void check_rmsnorm(struct checkasm *c);
void check_rope(struct checkasm *c);
void check_softmax(struct checkasm *c);
void check_swiglu(struct checkasm *c);
void check_add(struct checkasm *c);
void check_merge(struct checkasm *c);
void check_axpy(struct checkasm *c);
void check_convert(struct checkasm *c);
void check_exp(struct checkasm *c);
void check_gemm(struct checkasm *c);
void check_transpose(struct checkasm *c);
void check_bf16_pairs(struct checkasm *c);
void check_sums(struct checkasm *c);
void check_adamw(struct checkasm *c);
void check_rmsnorm_back(struct checkasm *c);
void check_swiglu_back(struct checkasm *c);
void check_softmax_back(struct checkasm *c);

#endif
