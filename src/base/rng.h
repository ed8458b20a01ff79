/*
 * Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as
 * 1, 2, 3", SC 2011). A number is a pure function of (seed, stream, index), so any thread or rank
 * can draw the n-th number without the ones before it, and runs repeat exactly.
 */
#ifndef PONDER_BASE_RNG_H
#define PONDER_BASE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t seed, stream, index; /* index = how many numbers were drawn */
};

void rng_init(struct rng *r, uint64_t seed, uint64_t stream);

/* The four 32-bit words of block `block` of a stream (known-answer tests use this). */
void rng_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4]);

uint32_t rng_u32(struct rng *r);
double rng_uniform(struct rng *r); /* [0, 1), 53 bits, two draws */
double rng_normal(struct rng *r);  /* mean 0, variance 1 (Box-Muller, four draws, one value) */

/* A seed from the operating system for when the user gave none. */
uint64_t rng_os_seed(void);

#endif
