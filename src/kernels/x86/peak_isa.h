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
};

#ifdef __x86_64__
extern const struct peak_isa peak_avx2, peak_avx512, peak_vnni;
#endif

#endif
