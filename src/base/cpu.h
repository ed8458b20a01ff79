/*
 * What the processor can do, found once at start, and the instruction-set levels that kernels are
 * written for. `--isa` pretends to be an older CPU; asking for more than there is, is an error.
 */
#ifndef PONDER_BASE_CPU_H
#define PONDER_BASE_CPU_H

#include "base/err.h"

#include <stdbool.h>

/* Each level includes the ones before it. */
enum cpu_isa {
    CPU_SCALAR,     /* plain C: the reference, and the only level outside x86-64 */
    CPU_AVX2,       /* AVX2, FMA, F16C (Haswell, Zen) */
    CPU_AVX512,     /* AVX-512 F, BW, DQ, VL (Skylake-X) */
    CPU_AVX512VNNI, /* and VNNI (Cascade Lake, Zen 4) */
    CPU_ISA_COUNT,
};

enum cpu_isa cpu_best(void);
/* BF16 dot products (Cooper Lake, Zen 4): beside CPU_AVX512VNNI or not at all. */
bool cpu_bf16(void);

const char *cpu_isa_name(enum cpu_isa isa); /* "scalar", "avx2", "avx512", "avx512vnni" */

/* Parses a name; refuses unknown ones and levels above cpu_best(). "auto" gives cpu_best(). */
int cpu_isa_parse(enum cpu_isa *out, const char *name, struct err *e);

/* Bytes of the largest cache that the system tells of, 0 when it tells of none. */
size_t cpu_cache_bytes(void);

/* The model name from the processor, e.g. "AMD EPYC 9354"; writes at most cap bytes. */
void cpu_model_name(char *out, size_t cap);

#endif
