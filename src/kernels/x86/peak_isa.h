/* The loops of peak.h per instruction set. The shape of a loop (chains of independent registers,
   enough to hide the latency of the instruction) is the same everywhere: PEAK_CHAINS. */
#ifndef PONDER_KERNELS_X86_PEAK_ISA_H
#define PONDER_KERNELS_X86_PEAK_ISA_H

#include <stddef.h>
#include <stdint.h>

enum { PEAK_CHAINS = 12 };

/* A field that is NULL is that of the level below. */
struct peak_isa {
    uint64_t (*read)(const void *buf, size_t n);
    uint64_t (*int8)(size_t rounds);
    uint64_t (*f32)(size_t rounds);
    uint64_t (*bf16)(size_t rounds); /* only where cpu_bf16() */
};

// clang-format off
/* Loads alone of whole 256-byte groups: a prefetch ahead of them gained nothing. */
#define PEAK_LOADS(name, vec, reg, load)                    \
    static uint64_t name(const void *buf, size_t n)         \
    {                                                       \
        const char *p = buf;                                \
        for (size_t i = 0; i + 256 <= n; i += 256)          \
            _Pragma("GCC unroll 8")                         \
            for (size_t j = 0; j < 256; j += sizeof(vec)) { \
                vec v = load((const void *)(p + i + j));    \
                __asm__ volatile("" : : reg(v));            \
            }                                               \
        return n / 256 * 256;                               \
    }

/* sum[i] = step, with registers a and b at hand; ops is what one step does. The compiler must not
   see that a stays what it is: it would take products of a and b out of the loop. */
#define PEAK_STEPS(name, vec, reg, a0, b0, step, ops)       \
    static uint64_t name(size_t rounds)                     \
    {                                                       \
        vec sum[PEAK_CHAINS], a = a0, b = b0;               \
        _Pragma("GCC unroll 16")                            \
        for (int i = 0; i < PEAK_CHAINS; i++)               \
            sum[i] = b;                                     \
        for (size_t n = 0; n < rounds; n++)                 \
            _Pragma("GCC unroll 16")                        \
            for (int i = 0; i < PEAK_CHAINS; i++) {         \
                __asm__("" : "+" reg(a));                   \
                vec t = step;                               \
                __asm__ volatile("" : "+" reg(t));          \
                sum[i] = t;                                 \
            }                                               \
        return (uint64_t)rounds * PEAK_CHAINS * (ops);      \
    }
// clang-format on

#ifdef __x86_64__
extern const struct peak_isa peak_avx2, peak_avx512, peak_vnni;
uint64_t peak_bf16(size_t rounds);
#endif

#endif
