#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const void *p, size_t n, const char *hex)
{
    uint8_t sum[SHA256_BYTES];
    char text[SHA256_HEX];
    sha256_of(p, n, sum);
    sha256_hex(sum, text);
    assert_string_equal(text, hex);
}

/* FIPS 180-4's examples. */
static void sums_are_those_of_the_standard(void **state)
{
    expect("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    enum { MILLION = 1000000 };
    char *a = malloc(MILLION);
    assert_non_null(a);
    memset(a, 'a', MILLION);
    expect(a, MILLION, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(a);
}

/* Every length around the block's, in two pieces cut anywhere, equals the sum of the whole. */
static void pieces_add_up(void **state)
{
    uint8_t data[200], whole[SHA256_BYTES], parts[SHA256_BYTES], before[SHA256_BYTES] = {0};
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * 31 + 7);
    for (size_t n = 0; n <= sizeof data; n++) {
        sha256_of(data, n, whole);
        assert_memory_not_equal(whole, before, sizeof whole);
        memcpy(before, whole, sizeof before);
        for (size_t cut = 0; cut <= n; cut += 13) {
            struct sha256 s;
            sha256_init(&s);
            sha256_add(&s, data, cut);
            sha256_add(&s, data + cut, n - cut);
            sha256_end(&s, parts);
            assert_memory_equal(whole, parts, sizeof whole);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_standard),
        cmocka_unit_test(pieces_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
