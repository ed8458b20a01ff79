#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void a_hash_is_a_function_of_bytes_length_and_seed(void **state)
{
    /* Same bytes at any alignment, exactly n of them read. */
    char text[80], moved[100];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 37);
    for (size_t n = 0; n <= sizeof text; n++) {
        uint64_t h = hash_bytes(text, n, 5);
        for (size_t off = 0; off < 9; off++) {
            memset(moved, (int)off, sizeof moved);
            memcpy(moved + off, text, n);
            assert_int_equal(hash_bytes(moved + off, n, 5), h);
        }
        assert_int_not_equal(hash_bytes(text, n, 6), h);
        if (n)
            assert_int_not_equal(hash_bytes(text, n - 1, 5), h);
    }
    static const char zeros[64];
    for (size_t n = 1; n < sizeof zeros; n++) /* lengths differ although all bytes are 0 */
        assert_int_not_equal(hash_bytes(zeros, n, 0), hash_bytes(zeros, n - 1, 0));
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* 2^17 short keys: no collision of 64 bits, and buckets by the low bits fill evenly. */
static void short_keys_spread(void **state)
{
    enum { N = 1 << 17, BUCKETS = 1 << 12 };
    uint64_t *h = malloc(N * sizeof *h);
    unsigned *count = calloc(BUCKETS, sizeof *count);
    assert_non_null(h);
    assert_non_null(count);
    for (unsigned i = 0; i < N; i++) {
        char key[16];
        int n = snprintf(key, sizeof key, "tok%u", i);
        h[i] = hash_bytes(key, (size_t)n, 0);
        count[h[i] % BUCKETS]++;
    }
    double chi = 0, mean = (double)N / BUCKETS;
    for (unsigned i = 0; i < BUCKETS; i++)
        chi += (count[i] - mean) * (count[i] - mean) / mean;
    /* chi-square with 4095 degrees: standard deviation 90; five of them */
    assert_true(chi > BUCKETS - 450 && chi < BUCKETS + 450);
    qsort(h, N, sizeof *h, compare);
    for (unsigned i = 1; i < N; i++)
        assert_int_not_equal(h[i], h[i - 1]);
    free(h);
    free(count);
}

static void every_input_bit_matters(void **state)
{
    unsigned char key[40] = {0};
    for (size_t n = 1; n <= sizeof key; n++)
        for (size_t bit = 0; bit < 8 * n; bit++) {
            uint64_t a = hash_bytes(key, n, 1);
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
            uint64_t b = hash_bytes(key, n, 1);
            key[bit / 8] ^= (unsigned char)(1u << bit % 8);
            int flips = __builtin_popcountll(a ^ b);
            assert_true(flips > 8 && flips < 56);
        }
    for (unsigned bit = 0; bit < 64; bit++)
        assert_int_not_equal(hash_u64(0), hash_u64((uint64_t)1 << bit));
}

/* Known values of the published function: it is stored in files. */
static void fnv1a_is_the_published_one(void **state)
{
    (void)state;
    assert_true(hash_fnv1a("", 0, HASH_FNV1A) == 0xcbf29ce484222325u);
    assert_true(hash_fnv1a("a", 1, HASH_FNV1A) == 0xaf63dc4c8601ec8cu);
    assert_true(hash_fnv1a("foobar", 6, HASH_FNV1A) == 0x85944171f73967e8u);
    uint64_t h = hash_fnv1a("foo", 3, HASH_FNV1A);
    assert_true(hash_fnv1a("bar", 3, h) == 0x85944171f73967e8u);
}

/* XXH64 as its authors' library computes it. */
static void xxh64_is_the_published_one(void **state)
{
    static const struct {
        size_t n;
        uint64_t plain, seeded;
    } want[] = {
        {0, 0xef46db3751d8e999, 0x51e24c0e9077a48c},
        {1, 0x1f25c8d0bc1f4bb6, 0x20f9f4e3fba1be06},
        {3, 0x31d2363f52e564c9, 0x076b77199119d7dd},
        {4, 0x9bb64b7d66ee9fda, 0x27a7e5587a8a5c2e},
        {7, 0x9a7b149959ce60d8, 0xcff13e1a810bec27},
        {8, 0xdab99d95c6f90092, 0x841e06da64a07ce8},
        {12, 0xd52e407833af5133, 0xbffccf3339b09e6a},
        {31, 0xa2aa5f33cc4a6119, 0x6ba872e910fbce5c},
        {32, 0x23c3c17ef790fd97, 0x25cc07da699894a9},
        {33, 0x50a7cfc7ba588784, 0xbf84912d4dea9670},
        {64, 0x0eb64b3ef6eeb01f, 0xfded24eb11992703},
        {100, 0xa61f8d4c170fe531, 0xfe1fce732c97c212},
        {199, 0xf7efd3430a01de39, 0xc4903c6ce2648306},
    };
    unsigned char bytes[208];
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++)
        for (size_t off = 0; off < 8; off++) {
            for (size_t k = 0; k < want[i].n; k++)
                bytes[off + k] = (unsigned char)(k * 7 + 3);
            assert_true(hash_xxh64(bytes + off, want[i].n, 0) == want[i].plain);
            assert_true(hash_xxh64(bytes + off, want[i].n, 0x123456789abcdef) == want[i].seeded);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hash_is_a_function_of_bytes_length_and_seed),
        cmocka_unit_test(short_keys_spread),
        cmocka_unit_test(every_input_bit_matters),
        cmocka_unit_test(fnv1a_is_the_published_one),
        cmocka_unit_test(xxh64_is_the_published_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
