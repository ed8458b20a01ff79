/* SHA-256: see sha256.h. */
#include "base/sha256.h"

#include <openssl/sha.h>
#include <string.h>

void sha256_of(const void *p, size_t n, uint8_t out[SHA256_BYTES])
{
    SHA256(p, n, out);
}

void sha256_of_parts(const struct sha256_part *part, size_t n, uint8_t out[SHA256_BYTES])
{
    uint8_t pair[2 * SHA256_BYTES] = {0}; /* the sum so far, the next part's */
    for (size_t i = 0; i < n; i++) {
        sha256_of(part[i].p, part[i].n, pair + SHA256_BYTES);
        sha256_of(pair, sizeof pair, out);
        memcpy(pair, out, SHA256_BYTES);
    }
}

void sha256_hex(const uint8_t sum[SHA256_BYTES], char out[SHA256_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        out[2 * i] = digits[sum[i] >> 4];
        out[2 * i + 1] = digits[sum[i] & 15];
    }
    out[2 * SHA256_BYTES] = 0;
}
