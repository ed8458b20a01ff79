/*
 * Peak loops: the choice by level, and the plain C ones. A compiler must neither drop nor merge the
 * work, so an empty asm takes each result.
 */
#include "kernels/peak.h"

#include "kernels/x86/peak_isa.h"

#include <math.h>

static uint64_t read_c(const void *buf, size_t n)
{
    const uint64_t *p = buf;
    for (size_t i = 0; i + 32 <= n / 8; i += 32)
        for (size_t j = 0; j < 32; j++) {
            uint64_t v = p[i + j];
            __asm__ volatile("" : : "r"(v));
        }
    return n / 256 * 256;
}

static uint64_t int8_c(size_t rounds)
{
    int32_t sum[PEAK_CHAINS] = {0};
    for (size_t n = 0; n < rounds; n++)
        for (int i = 0; i < PEAK_CHAINS; i++) {
            int8_t a = (int8_t)n, b = (int8_t)i;
            __asm__("" : "+r"(a), "+r"(b));
            sum[i] += a * b;
            __asm__ volatile("" : "+r"(sum[i]));
        }
    return (uint64_t)rounds * PEAK_CHAINS * 2;
}

static uint64_t f32_c(size_t rounds)
{
    float sum[PEAK_CHAINS] = {0};
    float a = 0.5f, b = 1.0f;
    for (size_t n = 0; n < rounds; n++)
        for (int i = 0; i < PEAK_CHAINS; i++) {
            sum[i] = fmaf(sum[i], a, b);
            __asm__ volatile("" : "+m"(sum[i]));
        }
    return (uint64_t)rounds * PEAK_CHAINS * 2;
}

static const struct peak_isa peak_c = {read_c, int8_c, f32_c, NULL};

/* Weakest first, as enum cpu_isa. */
static const struct peak_isa *const levels[CPU_ISA_COUNT] = {
    &peak_c,
#ifdef __x86_64__
    &peak_avx2,
    &peak_avx512,
    &peak_vnni,
#endif
};

const char *peak_name(enum peak_kind kind)
{
    static const char *const names[PEAK_KIND_COUNT] = {"read", "int8", "bf16", "f32"};
    return names[kind];
}

uint64_t peak_run(enum peak_kind kind, enum cpu_isa isa, const void *buf, size_t n)
{
    struct peak_isa p = peak_c;
    for (int i = 1; i <= (int)isa && i < CPU_ISA_COUNT; i++) {
        if (!levels[i])
            continue;
        p.read = levels[i]->read ? levels[i]->read : p.read;
        p.int8 = levels[i]->int8 ? levels[i]->int8 : p.int8;
        p.f32 = levels[i]->f32 ? levels[i]->f32 : p.f32;
        p.bf16 = levels[i]->bf16 ? levels[i]->bf16 : p.bf16;
    }
    switch (kind) {
    case PEAK_READ:
        return p.read(buf, n);
    case PEAK_INT8:
        return p.int8(n);
    case PEAK_BF16:
        if (p.bf16 && cpu_bf16())
            return p.bf16(n);
        break;
    default:
        break;
    }
    return p.f32(n);
}
