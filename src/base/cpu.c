#include "base/cpu.h"

#include "base/num.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#if defined __x86_64__
#include <cpuid.h>
#endif

static const char *const isa_names[CPU_ISA_COUNT] = {
    [CPU_SCALAR] = "scalar",
    [CPU_AVX2] = "avx2",
    [CPU_AVX512] = "avx512",
    [CPU_AVX512VNNI] = "avx512vnni",
};

#if defined __x86_64__
/* F16C is no name that every compiler's __builtin_cpu_supports knows. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* The builtins also ask whether the operating system saves the registers (XGETBV). */
enum cpu_isa cpu_best(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return CPU_SCALAR;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return CPU_AVX2;
    return __builtin_cpu_supports("avx512vnni") ? CPU_AVX512VNNI : CPU_AVX512;
}

bool cpu_bf16(void)
{
    return cpu_best() == CPU_AVX512VNNI && __builtin_cpu_supports("avx512bf16");
}

static bool model_from_cpu(char out[49])
{
    unsigned max = __get_cpuid_max(0x80000000u, NULL);
    if (max < 0x80000004u)
        return false;
    for (unsigned i = 0; i < 3; i++) {
        unsigned r[4];
        __cpuid(0x80000002u + i, r[0], r[1], r[2], r[3]);
        memcpy(out + 16 * i, r, 16);
    }
    out[48] = 0;
    return out[0];
}
#else
enum cpu_isa cpu_best(void)
{
    return CPU_SCALAR;
}

bool cpu_bf16(void)
{
    return false;
}

static bool model_from_cpu(char out[49])
{
    out[0] = 0;
    return false;
}
#endif

const char *cpu_isa_name(enum cpu_isa isa)
{
    return (unsigned)isa < CPU_ISA_COUNT ? isa_names[isa] : "unknown";
}

int cpu_isa_parse(enum cpu_isa *out, const char *name, struct err *e)
{
    enum cpu_isa best = cpu_best();
    if (strcmp(name, "auto") == 0) {
        *out = best;
        return 0;
    }
    for (int i = 0; i < CPU_ISA_COUNT; i++) {
        if (strcmp(name, isa_names[i]) != 0)
            continue;
        if (i > (int)best)
            return err_set(e, ERR_USAGE,
                           "this processor has no %s: the best instruction set here is %s", name,
                           isa_names[best]);
        *out = (enum cpu_isa)i;
        return 0;
    }
    return err_set(e, ERR_USAGE,
                   "unknown instruction set '%s': use auto, scalar, avx2, avx512 or avx512vnni",
                   name);
}

/* Copies without outer blanks and with single inner ones. */
static void copy_squeezed(char *out, size_t cap, const char *s)
{
    size_t n = 0;
    for (; *s && n + 1 < cap; s++) {
        bool blank = (unsigned char)*s <= ' ';
        if (blank && (n == 0 || out[n - 1] == ' '))
            continue;
        out[n++] = blank ? ' ' : *s;
    }
    while (n && out[n - 1] == ' ')
        n--;
    out[n] = 0;
}

void cpu_model_name(char *out, size_t cap)
{
    if (!cap)
        return;
    char brand[49];
    if (model_from_cpu(brand)) {
        copy_squeezed(out, cap, brand);
        return;
    }
    copy_squeezed(out, cap, "unknown processor");
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f)
        return;
    static const char *const keys[] = {"model name", "Model", "cpu model", "uarch"};
    char line[256];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (!colon)
            continue;
        for (size_t i = 0; i < NUM_COUNT(keys); i++)
            if (strncmp(line, keys[i], strlen(keys[i])) == 0) {
                copy_squeezed(out, cap, colon + 1);
                goto done;
            }
    }
done:
    fclose(f);
}

size_t cpu_cache_bytes(void)
{
    long most = 0;
#ifdef _SC_LEVEL4_CACHE_SIZE
    static const int names[] = {_SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE,
                                _SC_LEVEL4_CACHE_SIZE};
    for (size_t i = 0; i < NUM_COUNT(names); i++)
        most = sysconf(names[i]) > most ? sysconf(names[i]) : most;
#endif
    return (size_t)most;
}
