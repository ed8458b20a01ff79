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

/* ---- XXH64, after its published specification: four lanes of 8 bytes, then the rest -----------
 */

static const uint64_t xxh1 = 0x9e3779b185ebca87u, xxh2 = 0xc2b2ae3d27d4eb4fu,
                      xxh3 = 0x165667b19e3779f9u, xxh4 = 0x85ebca77c2b2ae63u,
                      xxh5 = 0x27d4eb2f165667c5u;

static uint64_t rotate(uint64_t x, int n)
{
    return x << n | x >> (64 - n);
}

static uint64_t xxh_round(uint64_t lane, uint64_t x)
{
    return rotate(lane + x * xxh2, 31) * xxh1;
}

uint64_t hash_xxh64(const void *data, size_t n, uint64_t seed)
{
    const unsigned char *p = data, *end = p + n;
    uint64_t h = seed + xxh5;
    if (n >= 32) {
        uint64_t a = seed + xxh1 + xxh2, b = seed + xxh2, c = seed, d = seed - xxh1;
        for (; end - p >= 32; p += 32) {
            a = xxh_round(a, load8(p));
            b = xxh_round(b, load8(p + 8));
            c = xxh_round(c, load8(p + 16));
            d = xxh_round(d, load8(p + 24));
        }
        uint64_t lane[4] = {a, b, c, d};
        h = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
        for (int i = 0; i < 4; i++)
            h = (h ^ xxh_round(0, lane[i])) * xxh1 + xxh4;
    }
    h += n;
    for (; end - p >= 8; p += 8)
        h = rotate(h ^ xxh_round(0, load8(p)), 27) * xxh1 + xxh4;
    if (end - p >= 4) {
        h = rotate(h ^ load4(p) * xxh1, 23) * xxh2 + xxh3;
        p += 4;
    }
    for (; p < end; p++)
        h = rotate(h ^ *p * xxh5, 11) * xxh1;
    h = (h ^ h >> 33) * xxh2;
    h = (h ^ h >> 29) * xxh3;
    return h ^ h >> 32;
}

uint64_t hash_fnv1a(const void *data, size_t n, uint64_t h)
{
    const unsigned char *p = data;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}
