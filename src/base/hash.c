/*
 * Multiply-and-fold hashing: 16 bytes enter one 64×64→128 bit product whose halves are combined, in
 * the manner of wyhash. Fast for the short keys of token tables; the caller's seed keeps outside
 * data from choosing collisions.
 */
#include "base/hash.h"

#include <string.h>

static const uint64_t key0 = 0x9e3779b97f4a7c15u, key1 = 0xd6e8feb86659fd93u,
                      key2 = 0xa0761d6478bd642fu;

static uint64_t fold(uint64_t a, uint64_t b)
{
    unsigned __int128 m = (unsigned __int128)a * b;
    return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t load(const unsigned char *p, size_t n)
{
    uint64_t x = 0;
    memcpy(&x, p, n);
    return x;
}

uint64_t hash_bytes(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = seed ^ key0;
    size_t left = n;
    for (; left > 16; p += 16, left -= 16)
        h = fold(load(p, 8) ^ key1, load(p + 8, 8) ^ h);
    uint64_t a = 0, b = 0;
    if (left > 8) {
        a = load(p, 8);
        b = load(p + 8, left - 8);
    } else if (left) {
        a = load(p, left);
    }
    return fold(fold(a ^ key1, b ^ h) ^ key2, (uint64_t)n ^ key0);
}

uint64_t hash_u64(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t hash_fnv1a(const void *data, size_t n, uint64_t h)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
