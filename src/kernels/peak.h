/*
 * What the machine can do: loops that do nothing but read memory, or multiply in registers, at the
 * rate that the kernels of a level could reach at best. `ponder bench` times them over the thread
 * team and prints measured speeds as shares of these.
 *
 * Each call is one thread's work, a pure function of its arguments; call it from all threads at
 * once for the machine's figure, with work of at least some 100 us, and take the best of several.
 */
#ifndef PONDER_KERNELS_PEAK_H
#define PONDER_KERNELS_PEAK_H

#include "base/cpu.h"

#include <stddef.h>
#include <stdint.h>

enum peak_kind {
    PEAK_READ, /* bytes from memory (or from the cache that holds the buffer) */
    PEAK_INT8, /* int8 multiply-adds: vpdpbusd, or vpmaddubsw + vpaddw without VNNI */
    PEAK_BF16, /* BF16 dot products (vdpbf16ps); without them what PEAK_F32 is */
    PEAK_F32,  /* float32 fused multiply-adds */
    PEAK_KIND_COUNT,
};

/* "read", "int8", "bf16", "f32". */
const char *peak_name(enum peak_kind kind);

/*
 * Runs one loop with the widest vectors of `isa`, which must not exceed cpu_best(), and returns
 * what it did: bytes for PEAK_READ, else operations, two (a multiplication and an addition) per
 * multiply-add. So work / seconds / 1e9 is GB/s or GOP/s.
 *
 * PEAK_READ reads buf[0..n) once, in ascending order, whole 256-byte groups only; buf is aligned to
 * 64. The others make n rounds and ignore buf.
 */
uint64_t peak_run(enum peak_kind kind, enum cpu_isa isa, const void *buf, size_t n);

#endif
