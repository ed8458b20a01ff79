/* Hashing of byte strings for in-memory tables. Not cryptographic. */
#ifndef PONDER_BASE_HASH_H
#define PONDER_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* 64-bit mix of the bytes. Give tables that hold outside data a random seed (rng_os_seed). */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);
uint64_t hash_u64(uint64_t x); /* finalizer of splitmix64 */

#endif
