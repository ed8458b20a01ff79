/*
 * The checkasm program (what it is for: checkasm.h):
 *
 *     ponder-checkasm [--seed N] [--isa NAME] [--bench] [pattern]
 *
 * For each level that the machine has it fills a table with kern_init and runs all checks; levels
 * that it does not have are reported as skipped. Output is TAP. A crash is caught, named and
 * counted as a failure of the point that ran.
 */
#include "checkasm.h"

#include "base/clock.h"
#include "base/num.h"
#include "base/rng.h"

#include <errno.h>
#include <float.h>
#include <fnmatch.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A check and the fields of struct kern that it covers. */
static const struct check_row {
    const char *name;
    void (*run)(struct checkasm *c);
    size_t offset, bytes;
} rows[] = {
#define FIELDS(first, last)                                                                        \
    offsetof(struct kern, first), offsetof(struct kern, last) + sizeof(((struct kern *)0)->last) - \
                                      offsetof(struct kern, first)
#define FIELD(name) FIELDS(name, name)
    // clang-format off
    {"mul", check_mul, FIELD(mul)},
    {"pack", check_pack, FIELD(mul)},
    {"quantize", check_quantize, FIELDS(quantize_q32, quantize_bf16)},
    {"tile", check_tile, FIELD(tile)},
    {"dots", check_dots, FIELD(dots)},
    {"to_i8", check_to_i8, FIELD(to_i8)},
    {"page_scores", check_page_scores, FIELD(page_scores)},
    {"page_weights", check_page_weights, FIELD(page_weights)},
    {"page_values", check_page_values, FIELD(page_values)},
    {"rmsnorm", check_rmsnorm, FIELD(rmsnorm)},
    {"rope", check_rope, FIELD(rope)},
    {"softmax", check_softmax, FIELDS(softmax_part, softmax)},
    {"swiglu", check_swiglu, FIELD(swiglu)},
    {"add", check_add, FIELD(add)},
    {"merge", check_merge, FIELD(merge)},
    {"axpy", check_axpy, FIELD(axpy)},
    {"convert", check_convert, FIELDS(f32_to_f16, e4m3_to_f16)},
    {"exp", check_exp, FIELD(exp)},
    {"gemm", check_gemm, FIELDS(gemm, gemm_pairs)},
    {"transpose", check_transpose, FIELD(transpose)},
    {"pairs", check_bf16_pairs, FIELD(pairs)},
    {"sums", check_sums, FIELDS(dot, squares)},
    {"adamw", check_adamw, FIELD(adamw)},
    {"rmsnorm_back", check_rmsnorm_back, FIELDS(rmsnorm_back, scaled)},
    {"swiglu_back", check_swiglu_back, FIELD(swiglu_back)},
    {"softmax_back", check_softmax_back, FIELD(softmax_back)},
// clang-format on
#undef FIELD
#undef FIELDS
};

enum { MAX_BUFS = 4096, MAX_MESSAGES = 3 };

struct check_state {
    const char *pattern;
    struct rng rng;
    char name[96]; /* of the running point; empty = none */
    int failed;    /* messages of the running point */
    int points, bad;
    struct {
        void *base;
        size_t bytes;
    } bufs[MAX_BUFS];
    size_t buf_count;
};

static sigjmp_buf on_crash;
static volatile sig_atomic_t crash_armed;

static void crashed(int sig)
{
    if (!crash_armed)
        _exit(128 + sig);
    crash_armed = 0;
    siglongjmp(on_crash, sig);
}

static void finish_point(struct check_state *s)
{
    if (!s->name[0])
        return;
    s->points++;
    s->bad += s->failed > 0;
    printf("%sok %d - %s\n", s->failed ? "not " : "", s->points, s->name);
    s->name[0] = 0;
    s->failed = 0;
}

bool check_func(struct checkasm *c, bool is_new, const char *fmt, ...)
{
    struct check_state *s = c->state;
    va_list ap;
    char name[64];
    finish_point(s);
    if (!is_new)
        return false;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (s->pattern && fnmatch(s->pattern, name, 0) != 0)
        return false;
    snprintf(s->name, sizeof s->name, "%s [%s]", name, cpu_isa_name(c->isa));
    return true;
}

void check_fail(struct checkasm *c, const char *fmt, ...)
{
    struct check_state *s = c->state;
    va_list ap;
    if (++s->failed > MAX_MESSAGES)
        return;
    printf("# %s: ", s->name);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void *check_buf(struct checkasm *c, size_t bytes)
{
    struct check_state *s = c->state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = num_round_up(bytes, page);
    if (s->buf_count == MAX_BUFS) {
        fprintf(stderr, "checkasm: too many buffers; call check_buf_reset\n");
        exit(2);
    }
    char *p = mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + size, page, PROT_NONE) != 0) {
        fprintf(stderr, "checkasm: mmap of %zu bytes: %s\n", size, strerror(errno));
        exit(2);
    }
    s->bufs[s->buf_count].base = p;
    s->bufs[s->buf_count++].bytes = size + page;
    memset(p, 0xA5, size);
    return p + size - bytes;
}

void check_buf_reset(struct checkasm *c)
{
    struct check_state *s = c->state;
    while (s->buf_count) {
        s->buf_count--;
        munmap(s->bufs[s->buf_count].base, s->bufs[s->buf_count].bytes);
    }
}

uint32_t check_u32(struct checkasm *c)
{
    return rng_u32(&c->state->rng);
}

size_t check_range(struct checkasm *c, size_t a, size_t b)
{
    return a + check_u32(c) % (b - a + 1);
}

float check_float(struct checkasm *c)
{
    return (float)((int32_t)check_u32(c) >> 7) / (float)(1 << 24);
}

void check_floats(struct checkasm *c, float *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = check_float(c);
}

void check_bytes(struct checkasm *c, void *p, size_t bytes)
{
    uint8_t *b = p;
    for (size_t i = 0; i < bytes; i += 4) {
        uint32_t v = check_u32(c);
        memcpy(b + i, &v, num_min(4, bytes - i));
    }
}

void check_fill(struct checkasm *c, float *p, size_t n, enum check_kind kind)
{
    static const float specials[] = {0.0f,     -0.0f,    1e-45f,   -1e-45f,  1e-39f,    FLT_MIN,
                                     -FLT_MIN, FLT_MAX,  -FLT_MAX, INFINITY, -INFINITY, NAN,
                                     1.0f,     -1.0f,    88.7228f, -103.9f,  -104.1f,   127.5f,
                                     65504.0f, 65520.0f, 3e-8f};
    float size = (float[]){1, 0.01f, 30, 1000}[check_u32(c) % 4];
    for (size_t i = 0; i < n; i++) {
        uint32_t u = check_u32(c);
        p[i] = kind == CHECK_ZERO ? 0 : check_float(c) * size;
        if (kind == CHECK_WIDE && (u & 0x7f800000) != 0x7f800000)
            memcpy(p + i, &u, 4);
        if (kind == CHECK_SPECIAL && u % 8 == 0)
            p[i] = specials[check_u32(c) % NUM_COUNT(specials)];
    }
}

float *check_values(struct checkasm *c, size_t n, enum check_kind kind)
{
    float *p = check_buf(c, n * sizeof *p);
    check_fill(c, p, n, kind);
    return p;
}

float *check_copy(struct checkasm *c, const float *p, size_t n)
{
    float *q = check_buf(c, n * sizeof *q);
    memcpy(q, p, n * sizeof *q);
    return q;
}

size_t check_row_bytes(const struct quant_type *t, size_t k)
{
    size_t bytes = 0;
    (void)quant_size(t, k, &bytes);
    return bytes;
}

bool check_same(struct checkasm *c, const float *got, const float *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t a, b;
        memcpy(&a, got + i, 4);
        memcpy(&b, want + i, 4);
        bool both_nan = (a & 0x7fffffff) > 0x7f800000 && (b & 0x7fffffff) > 0x7f800000;
        bool zeros = c->any_zero && !((a | b) & 0x7fffffff);
        if (a != b && !both_nan && !zeros) {
            check_fail(c, "%s: element %zu is %.9g (%08x), not %.9g (%08x)", what, i, got[i], a,
                       want[i], b);
            return false;
        }
    }
    return true;
}

bool check_same_bytes(struct checkasm *c, const void *got, const void *want, size_t bytes,
                      const char *what)
{
    const uint8_t *a = got, *b = want;
    for (size_t i = 0; i < bytes; i++)
        if (a[i] != b[i]) {
            check_fail(c, "%s: byte %zu is %02x, not %02x", what, i, a[i], b[i]);
            return false;
        }
    return true;
}

/* Best time of a call in seconds, over about `budget` seconds; short calls are timed in groups. */
static double best_time(const struct kern *k, void (*run)(const struct kern *k, void *arg),
                        void *arg, double budget)
{
    double start = clock_seconds(), best = 1e30;
    size_t calls = 1;
    do {
        double t = clock_seconds();
        for (size_t i = 0; i < calls; i++)
            run(k, arg);
        t = clock_seconds() - t;
        if (t / (double)calls < best)
            best = t / (double)calls;
        if (t < 20e-6)
            calls *= 2;
    } while (clock_seconds() - start < budget);
    return best;
}

void check_bench(struct checkasm *c, const char *what, void (*run)(const struct kern *k, void *arg),
                 void *arg, double bytes, double ops)
{
    if (!c->bench)
        return;
    double ref = best_time(c->ref, run, arg, 0.05);
    double t = c->isa == CPU_SCALAR ? ref : best_time(c->k, run, arg, 0.3);
    printf("# bench %s %s: %.0f ns, %.1fx over C", c->state->name, what, t * 1e9, ref / t);
    if (bytes > 0)
        printf(", %.1f GB/s", bytes / t / 1e9);
    if (ops > 0)
        printf(", %.1f GOP/s", ops / t / 1e9);
    printf("\n");
    fflush(stdout);
}

static void run_level(struct check_state *s, enum cpu_isa isa, uint64_t seed, bool bench)
{
    static struct kern k, below, ref; /* static: a crash must not lose them */
    kern_init(&ref, CPU_SCALAR);
    kern_init(&k, isa);
    memset(&below, 0, sizeof below);
    if (isa > CPU_SCALAR)
        kern_init(&below, isa - 1);
    struct checkasm c = {&k, &below, &ref, isa, bench, getenv("PONDER_VALGRIND") != NULL, s};
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        rng_init(&s->rng, seed, i); /* a check gets the same numbers whatever ran before it */
        int sig = sigsetjmp(on_crash, 1);
        crash_armed = 1;
        if (sig == 0) {
            rows[i].run(&c);
        } else {
            if (!s->name[0])
                snprintf(s->name, sizeof s->name, "%s [%s]", rows[i].name, cpu_isa_name(isa));
            check_fail(&c, "crashed: %s", strsignal(sig));
        }
        crash_armed = 0;
        finish_point(s);
        check_buf_reset(&c);
    }
}

/* Every pointer of struct kern belongs to a row (isa aside). */
static void check_coverage(struct check_state *s)
{
    static uint8_t covered[sizeof(struct kern)];
    size_t missing = 0;
    memset(covered, 0, sizeof covered);
    memset(covered, 1, offsetof(struct kern, mul));
    for (size_t i = 0; i < NUM_COUNT(rows); i++)
        memset(covered + rows[i].offset, 1, rows[i].bytes);
    for (size_t i = 0; i < sizeof covered; i += sizeof(void *))
        if (!covered[i]) {
            printf("# no check covers the field at offset %zu of struct kern\n", i);
            missing++;
        }
    snprintf(s->name, sizeof s->name, "every field of struct kern has a check");
    s->failed = missing > 0;
    finish_point(s);
}

int main(int argc, char **argv)
{
    static struct check_state s;
    uint64_t seed = rng_os_seed() % 1000000;
    int only = -1;
    bool bench = false;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seed") && i + 1 < argc) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (!strcmp(argv[i], "--isa") && i + 1 < argc) {
            enum cpu_isa isa;
            struct err e = {0};
            if (cpu_isa_parse(&isa, argv[++i], &e)) {
                fprintf(stderr, "checkasm: %s\n", e.text);
                return 2;
            }
            only = (int)isa;
        } else if (!strcmp(argv[i], "--bench")) {
            bench = true;
        } else if (argv[i][0] == '-') {
            fprintf(stderr, "usage: %s [--seed N] [--isa NAME] [--bench] [pattern]\n", argv[0]);
            return 2;
        } else {
            s.pattern = argv[i];
        }
    }
    printf("# seed %llu\n", (unsigned long long)seed);
    struct sigaction sa = {.sa_handler = crashed, .sa_flags = SA_NODEFER};
    const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    for (size_t i = 0; i < NUM_COUNT(signals); i++)
        sigaction(signals[i], &sa, NULL);
    for (int isa = 0; isa < CPU_ISA_COUNT; isa++) {
        if (only >= 0 && isa != only)
            continue;
        if (isa > (int)cpu_best())
            printf("ok %d - %s # SKIP the processor lacks it\n", ++s.points,
                   cpu_isa_name((enum cpu_isa)isa));
        else
            run_level(&s, (enum cpu_isa)isa, seed, bench);
        fflush(stdout);
    }
    check_coverage(&s);
    printf("1..%d\n", s.points);
    if (s.bad)
        printf("# %d of %d failed; repeat with --seed %llu\n", s.bad, s.points,
               (unsigned long long)seed);
    return s.bad != 0;
}
