/*
 * Short floating point codes: every code widens to the right value, narrowing rounds to nearest
 * even and agrees with the golden conversions, ties and specials included.
 */
#include "quant/quant.h"

#include "support/golden.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof(u));
    return isnan(f) ? 0x7FC00000 : u;
}

/* FNV-1a over the little-endian bytes of all 65536 values, NaNs made equal. */
static uint64_t table_hash(float (*widen)(uint16_t))
{
    uint64_t h = 0xcbf29ce484222325;
    for (uint32_t c = 0; c < 65536; c++) {
        uint32_t u = bits_of(widen((uint16_t)c));
        for (int i = 0; i < 4; i++)
            h = (h ^ (u >> 8 * i & 255)) * 0x100000001b3;
    }
    return h;
}

static void every_16_bit_code_widens(void **state)
{
    /* hashes of numpy's conversions of the same codes */
    assert_true(table_hash(quant_f16_to_f32) == 0x1f87f165810ea7c5);
    assert_true(table_hash(quant_bf16_to_f32) == 0xcf8e09175d8f5ba5);
}

static void every_8_bit_code_widens(void **state)
{
    struct golden *g = golden_load("quant/float_codes.safetensors");
    const struct {
        const char *name;
        float (*widen)(uint8_t);
    } formats[] = {
        {"e4m3", quant_e4m3_to_f32}, {"e5m2", quant_e5m2_to_f32}, {"e8m0", quant_e8m0_to_f32}};
    for (size_t f = 0; f < 3; f++) {
        struct golden_tensor want = golden_get(g, "%s.values", formats[f].name);
        assert_int_equal(want.count, 256);
        for (unsigned c = 0; c < 256; c++)
            if (bits_of(formats[f].widen((uint8_t)c)) != bits_of(want.f32[c]))
                fail_msg("%s %02x: %g, not %g", formats[f].name, c,
                         (double)formats[f].widen((uint8_t)c), (double)want.f32[c]);
    }
    golden_free(g);
}

static void codes_survive_a_round_trip(void **state)
{
    for (uint32_t c = 0; c < 65536; c++) {
        float f = quant_f16_to_f32((uint16_t)c), b = quant_bf16_to_f32((uint16_t)c);
        if (isnan(f))
            assert_true(isnan(quant_f16_to_f32(quant_f32_to_f16(f))));
        else
            assert_int_equal(quant_f32_to_f16(f), c);
        if (isnan(b))
            assert_true(isnan(quant_bf16_to_f32(quant_f32_to_bf16(b))));
        else
            assert_int_equal(quant_f32_to_bf16(b), c);
    }
    for (uint32_t c = 0; c < 256; c++) {
        float e4 = quant_e4m3_to_f32((uint8_t)c), e5 = quant_e5m2_to_f32((uint8_t)c);
        if (isnan(e4))
            assert_int_equal(quant_f32_to_e4m3(e4) & 0x7F, 0x7F);
        else
            assert_int_equal(quant_f32_to_e4m3(e4), c);
        if (isnan(e5))
            assert_true(isnan(quant_e5m2_to_f32(quant_f32_to_e5m2(e5))));
        else
            assert_int_equal(quant_f32_to_e5m2(e5), c);
    }
}

static void golden_values_narrow(void **state)
{
    struct golden *g = golden_load("quant/float_codes.safetensors");
    struct golden_tensor in = golden_get(g, "encode.input");
    struct golden_tensor e4 = golden_get(g, "encode.e4m3"), e5 = golden_get(g, "encode.e5m2");
    struct golden_tensor f16 = golden_get(g, "encode.f16"), bf = golden_get(g, "encode.bf16");
    for (size_t i = 0; i < in.count; i++) {
        float x = in.f32[i];
        if (isnan(x)) { /* sign and payload are free */
            assert_true(isnan(quant_e4m3_to_f32(quant_f32_to_e4m3(x))));
            assert_true(isnan(quant_e5m2_to_f32(quant_f32_to_e5m2(x))));
            assert_true(isnan(quant_f16_to_f32(quant_f32_to_f16(x))));
            assert_true(isnan(quant_bf16_to_f32(quant_f32_to_bf16(x))));
            continue;
        }
        if (quant_f32_to_e4m3(x) != e4.u8[i] || quant_f32_to_e5m2(x) != e5.u8[i] ||
            quant_f32_to_f16(x) != f16.u16[i] || quant_f32_to_bf16(x) != bf.u16[i])
            fail_msg("%.9g: e4m3 %02x (%02x) e5m2 %02x (%02x) f16 %04x (%04x) bf16 %04x (%04x)",
                     (double)x, quant_f32_to_e4m3(x), e4.u8[i], quant_f32_to_e5m2(x), e5.u8[i],
                     quant_f32_to_f16(x), f16.u16[i], quant_f32_to_bf16(x), bf.u16[i]);
    }
    golden_free(g);
}

/* |x − code| for a 16-bit code; a code beyond the largest finite counts as the next power of two.
 */
static double distance(double x, float (*widen)(uint16_t), uint16_t code, double beyond)
{
    double v = (double)widen(code);
    return isinf(v) ? fabs(beyond - x) : fabs(v - x);
}

static void narrowing_takes_the_nearest(void **state)
{
    uint64_t s = 42;
    for (int i = 0; i < 1000000; i++) {
        s = s * 6364136223846793005u + 1442695040888963407u;
        uint32_t u = (uint32_t)(s >> 33); /* positive */
        float x;
        memcpy(&x, &u, sizeof(x));
        if (!isfinite(x))
            continue;
        uint16_t b = quant_f32_to_bf16(x), h = quant_f32_to_f16(x);
        double at = distance((double)x, quant_bf16_to_f32, b, 0x1p128);
        assert_true(at <= distance((double)x, quant_bf16_to_f32, (uint16_t)(b + 1), 0x1p128) ||
                    b == 0x7F80);
        assert_true(b == 0 ||
                    at <= distance((double)x, quant_bf16_to_f32, (uint16_t)(b - 1), 0x1p128));
        if (x >= 65520)
            assert_int_equal(h, 0x7C00);
        else {
            at = distance((double)x, quant_f16_to_f32, h, 65536);
            assert_true(at <= distance((double)x, quant_f16_to_f32, (uint16_t)(h + 1), 65536));
            assert_true(h == 0 ||
                        at <= distance((double)x, quant_f16_to_f32, (uint16_t)(h - 1), 65536));
        }
        assert_int_equal(quant_f32_to_f16(-x), h | 0x8000);
        assert_int_equal(quant_f32_to_bf16(-x), b | 0x8000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_16_bit_code_widens),    cmocka_unit_test(every_8_bit_code_widens),
        cmocka_unit_test(codes_survive_a_round_trip),  cmocka_unit_test(golden_values_narrow),
        cmocka_unit_test(narrowing_takes_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
