/* Where to listen, as people and OLLAMA_HOST write it. */
#include "base/num.h"
#include "cli/serve_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void addresses_in_all_spellings(void **state)
{
    static const struct {
        const char *text, *host;
        int port; /* 11434: left alone */
    } rows[] = {
        {"0.0.0.0", "0.0.0.0", 11434},
        {"localhost:8080", "localhost", 8080},
        {":8080", "127.0.0.1", 8080},
        {"http://10.0.0.1:80/", "10.0.0.1", 80},
        {"https://example.com/path", "example.com", 11434},
        {"::1", "::1", 11434},
        {"::", "::", 11434},
        {"[::1]", "::1", 11434},
        {"[::1]:99", "::1", 99},
        {"http://[fe80::1]:65535", "fe80::1", 65535},
        {"host:", "host", 11434},
        {"/run/ponder.sock", "/run/ponder.sock", 11434},
        {"/tmp/a:80", "/tmp/a:80", 11434},
    };
    for (size_t i = 0; i < NUM_COUNT(rows); i++) {
        char host[SERVE_HOST_MAX];
        int port = 11434;
        struct err e = {0};
        if (serve_host(rows[i].text, host, &port, &e))
            fail_msg("%s: %s", rows[i].text, e.text);
        assert_string_equal(host, rows[i].host);
        assert_int_equal(port, rows[i].port);
    }
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = {"host:x", "host:70000", "host:-1",  "host:+1",
                                      "[::1",   "ftp://host", "host:80x", "[::1]:80x"};
    for (size_t i = 0; i < NUM_COUNT(bad); i++) {
        char host[SERVE_HOST_MAX];
        int port = 1;
        struct err e = {0};
        assert_int_equal(serve_host(bad[i], host, &port, &e), ERR_USAGE);
        assert_non_null(strstr(e.text, "--host"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_in_all_spellings),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
