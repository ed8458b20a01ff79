/*
 * SHA-256 (FIPS 180-4): for identities that must not collide even on purpose: digests of model
 * files, hashes of keys. Plain C, some hundred megabytes a second.
 */
#ifndef PONDER_BASE_SHA256_H
#define PONDER_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_HEX = 65 };

struct sha256 {
    uint32_t h[8];
    uint64_t len; /* bytes so far */
    uint8_t block[64];
};

void sha256_init(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *p, size_t n);
void sha256_end(struct sha256 *s, uint8_t out[SHA256_BYTES]);
void sha256_of(const void *p, size_t n, uint8_t out[SHA256_BYTES]);
/* 64 lower-case digits and a NUL. */
void sha256_hex(const uint8_t sum[SHA256_BYTES], char out[SHA256_HEX]);

#endif
