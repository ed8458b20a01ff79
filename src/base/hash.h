/* Hashing of byte strings, for tables in memory and as checksums. Not cryptographic. */
#ifndef PONDER_BASE_HASH_H
#define PONDER_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* 64-bit mix of the bytes. Give tables that hold outside data a random seed (rng_os_seed). */
uint64_t hash_bytes(const void *p, size_t n, uint64_t seed);

/* The finalizer of splitmix64. */
static inline uint64_t hash_u64(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

/*
 * FNV-1a, 64 bits (Fowler, Noll, Vo): for what is stored, since it is the same everywhere and for
 * ever. Begin with h = HASH_FNV1A; the result of one piece is the beginning of the next. Any one
 * changed byte changes it.
 */
#define HASH_FNV1A 0xcbf29ce484222325u
uint64_t hash_fnv1a(const void *p, size_t n, uint64_t h);

/* XXH64 (Collet): for large things that are stored; it reads about as fast as memory does. Any
   change within eight aligned bytes changes it. */
uint64_t hash_xxh64(const void *p, size_t n, uint64_t seed);

#endif
