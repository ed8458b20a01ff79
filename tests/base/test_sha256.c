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

/* What lies where counts, not only the bytes in a row. */
static void parts_have_their_places(void **state)
{
    uint8_t a[SHA256_BYTES], b[SHA256_BYTES], c[SHA256_BYTES];
    const struct sha256_part ab[] = {{"ab", 2}, {"c", 1}}, bc[] = {{"a", 1}, {"bc", 2}},
                             more[] = {{"ab", 2}, {"c", 1}, {"", 0}};
    sha256_of_parts(ab, 2, a);
    sha256_of_parts(bc, 2, b);
    sha256_of_parts(more, 3, c);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
    sha256_of_parts(ab, 2, b);
    assert_memory_equal(a, b, sizeof a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_the_standard),
        cmocka_unit_test(parts_have_their_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
