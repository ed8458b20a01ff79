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

static uint64_t load8(const unsigned char *p)
{
    uint64_t x;
    memcpy(&x, p, 8);
    return x;
}

static uint64_t load4(const unsigned char *p)
{
    uint32_t x;
    memcpy(&x, p, 4);
    return x;
}

uint64_t hash_bytes(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data;
    uint64_t h = seed ^ key0;
    size_t left = n;
    for (; left > 16; p += 16, left -= 16)
        h = fold(load8(p) ^ key1, load8(p + 8) ^ h);
    uint64_t a = 0, b = 0; /* the rest in loads of fixed size that may overlap */
    if (left >= 8) {
        a = load8(p);
        b = load8(p + left - 8);
    } else if (left >= 4) {
        a = load4(p) | load4(p + left - 4) << 32;
    } else if (left) {
        a = p[0] | (uint64_t)p[left / 2] << 8 | (uint64_t)p[left - 1] << 16;
    }
    return fold(fold(a ^ key1, b ^ h) ^ key2, (uint64_t)n ^ key0);
}

uint64_t hash_fnv1a(const void *data, size_t n, uint64_t h)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
