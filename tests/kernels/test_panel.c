/* Looking at panels: a scale or float that is NaN or infinite is found, with its row, and nothing
 * else is. */
#include "kernels/panel.h"

// clang-format off
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>
// clang-format on
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COLS = 512, ROWS = 13, ROW = 7 };

/* Whether a row has such values. Scales of these two are not looked at: any bytes are a scale of
 * MXFP4, and those of IQ1_M lie in nibbles. */
static bool sound(const struct quant_type *t, const uint8_t *row)
{
    float v[COLS];
    t->decode(v, row, COLS);
    for (size_t i = 0; i < COLS; i++)
        if (!isfinite(v[i]) && t->id != QUANT_MXFP4 && t->id != QUANT_IQ1_M)
            return false;
    return true;
}

static void test_bad_rows(void **state)
{
    static const uint16_t values[] = {0x7e00, 0xfc00, 0x7fc0, 0xff80, 0x007f, 0x1234};
    size_t count, found = 0;
    const struct quant_type *const *all = quant_all(&count);
    (void)state;
    for (size_t i = 0; i < count; i++) {
        const struct quant_type *t = all[i];
        const struct panel_layout *p = panel_find(t->id);
        size_t n;
        if (!p)
            continue;
        assert_true(quant_size(t, COLS, &n));
        uint8_t *rows = calloc(ROWS, n), *panel = aligned_alloc(64, p->bytes(COLS));
        assert_true(rows && panel);
        for (size_t at = 0; at + 2 <= n; at += 2)
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                memcpy(rows + ROW * n + at, &values[v], 2);
                p->pack(panel, rows, n, ROWS, COLS);
                bool ok = sound(t, rows + ROW * n);
                unsigned want = ok ? 0 : 1u << ROW, got = panel_bad_rows(t->id, panel, COLS);
                if (got != want)
                    fail_msg("%s: 0x%04x at byte %zu: rows 0x%x, want 0x%x", t->name, values[v], at,
                             got, want);
                found += !ok;
                memset(rows + ROW * n + at, 0, 2);
            }
        free(rows);
        free(panel);
    }
    assert_true(found > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bad_rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
