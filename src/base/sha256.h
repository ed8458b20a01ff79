/*
 * SHA-256 (FIPS 180-4), by OpenSSL's libcrypto: for identities that must not collide even on
 * purpose: digests of model files, hashes of keys.
 */
#ifndef PONDER_BASE_SHA256_H
#define PONDER_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32, SHA256_HEX = 65 };

void sha256_of(const void *p, size_t n, uint8_t out[SHA256_BYTES]);
/* Of several things together: the sum of their sums. What is where cannot be confused. */
struct sha256_part {
    const void *p;
    size_t n;
};
void sha256_of_parts(const struct sha256_part *part, size_t n, uint8_t out[SHA256_BYTES]);
/* 64 lower-case digits and a NUL. */
void sha256_hex(const uint8_t sum[SHA256_BYTES], char out[SHA256_HEX]);

#endif
