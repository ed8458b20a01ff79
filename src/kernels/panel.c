/*
 * Packing rows of a weight matrix into panels of 16 rows, and back (layouts: panel.h).
 *
 * The idea: a panel is the file's blocks of 16 rows, transposed in units of four bytes (or two, for
 * scales), so a layout is a table of pieces of a block: where it lies in the file's block, where
 * its 16-lane vectors lie in the panel, how many units it has. One pair of loops serves every
 * table. The transpose of dwords works on 4 × 4 tiles in 16-byte vectors of the compiler, which
 * every 64-bit processor has; that of bytes is four rounds of interleaving.
 *
 * Rows that are missing (the last panel) and the missing second block of a pair are read from a
 * block of zero bytes.
 */
#include "kernels/panel.h"

#include "base/num.h"
#include "kernels/kern_internal.h"

#include <string.h>

// clang-format off
const struct kern_type kern_types[] = {
    {QUANT_F32,    KERN_ACT_F32,  &panel_f32},
    {QUANT_F16,    KERN_ACT_F32,  &panel_f16},
    {QUANT_BF16,   KERN_ACT_BF16, &panel_bf16},
    {QUANT_Q8_0,   KERN_ACT_Q32,  &panel_q8_0},
    {QUANT_Q4_0,   KERN_ACT_Q32,  &panel_q4_0},
    {QUANT_Q4_1,   KERN_ACT_Q32,  &panel_q4_1},
    {QUANT_Q5_0,   KERN_ACT_Q32,  &panel_q5_0},
    {QUANT_Q5_1,   KERN_ACT_Q32,  &panel_q5_1},
    {QUANT_IQ4_NL, KERN_ACT_Q32,  &panel_q4_0},
    {QUANT_MXFP4,  KERN_ACT_Q32,  &panel_mxfp4},
    {QUANT_Q4_K,   KERN_ACT_Q256, &panel_q4_k},
    {QUANT_Q5_K,   KERN_ACT_Q256, &panel_q5_k},
    {QUANT_Q6_K,   KERN_ACT_Q256, &panel_q6_k},
    {QUANT_IQ4_XS, KERN_ACT_Q256, &panel_iq4_xs},
    {QUANT_Q3_K,   KERN_ACT_Q256, &panel_q3_k},
    {QUANT_Q2_K,   KERN_ACT_Q256, &panel_q2_k},
    {QUANT_TQ2_0,  KERN_ACT_Q256, &panel_tq2_0},
    {QUANT_TQ1_0,  KERN_ACT_Q256, &panel_tq1_0},
    {QUANT_IQ2_XXS, KERN_ACT_Q256, &panel_iq2_xxs},
    {QUANT_IQ3_XXS, KERN_ACT_Q256, &panel_iq3_xxs},
    {QUANT_IQ2_XS, KERN_ACT_Q256, &panel_iq2_xs},
    {QUANT_IQ2_S,  KERN_ACT_Q256, &panel_iq2_s},
    {QUANT_IQ3_S,  KERN_ACT_Q256, &panel_iq3_s},
    {QUANT_IQ1_S,  KERN_ACT_Q256, &panel_iq1_s},
    {QUANT_IQ1_M,  KERN_ACT_Q256, &panel_iq1_m},
    {QUANT_FP8,    KERN_ACT_BF16, &panel_code8},
    {QUANT_I8,     KERN_ACT_F32,  &panel_code8},
    {QUANT_NF4,    KERN_ACT_F32,  &panel_code4},
    {QUANT_FP4,    KERN_ACT_F32,  &panel_code4},
    {QUANT_Q4Z,    KERN_ACT_Q32,  &panel_q4_1},
    {QUANT_Q8Z,    KERN_ACT_Q32,  &panel_q8z},
};
// clang-format on
const size_t kern_type_count = NUM_COUNT(kern_types);

typedef uint32_t v4u __attribute__((vector_size(16)));
typedef uint16_t v8h __attribute__((vector_size(16)));
typedef uint8_t v16b __attribute__((vector_size(16)));
typedef uint8_t v8b __attribute__((vector_size(8)));

enum unit {
    UNIT_E8M0,  /* a byte: one vector of 16 bytes */
    UNIT_ZERO,  /* nothing in the file, n zero bytes in the panel */
    UNIT_HALF,  /* fp16: one vector of 32 bytes */
    UNIT_FLOAT, /* float: one vector of 64 bytes */
    UNIT_BYTE,  /* n bytes: n vectors of 16 bytes */
    UNIT_PAIR,  /* n bytes: n/2 vectors of 16 pairs of bytes; n a multiple of 32 */
    UNIT_DWORD, /* n dwords: n vectors of 64 bytes */
    UNIT_FEW,   /* the same, n any number */
    UNIT_WORD,  /* n bytes: 2 n words of 64 bits, the low nibbles of 16 rows, then the high ones */
    UNIT_FIFTH, /* the 32 fifth bits of Q5_0 and Q5_1, permuted: one vector of 64 bytes */
};

struct piece {
    enum unit unit;
    uint16_t n;        /* dwords, a multiple of 4, or bytes, one of 16 or 8 (words); zero bytes */
    uint16_t file;     /* offset in the file's block */
    uint16_t panel[2]; /* offset in the panel's group, for its first and second block */
};

struct shape {
    uint16_t block;  /* bytes of a block in the file */
    uint16_t values; /* of a block; the last one of a row may be partly used */
    uint16_t blocks; /* of a group: 2 (a pair) or 1 */
    uint16_t group;  /* bytes of a group in a panel */
    uint16_t head;   /* offset of an fp16 that lies in front of all groups; 0 = none */
    uint16_t count;  /* of pieces */
    struct piece piece[4];
    /* Where bits change places within a block: from the file's order to the one whose offsets are
       in the pieces, and back. */
    void (*turn)(uint8_t *to, const uint8_t *from);
    void (*back)(uint8_t *to, const uint8_t *from);
};

/* ---- orders of bits in blocks of codebooks: codes, then what goes to words, then scales, then d
 * ------------------------------------------------------------------------------------------------
 */

/* Bit i of b to bit place[i], and back. */
static uint32_t bits_to(uint32_t b, const uint8_t *place, size_t n)
{
    uint32_t out = 0;
    for (size_t i = 0; i < n; i++)
        out |= (b >> i & 1) << place[i];
    return out;
}

static uint32_t bits_from(uint32_t b, const uint8_t *place, size_t n)
{
    uint32_t out = 0;
    for (size_t i = 0; i < n; i++)
        out |= (b >> place[i] & 1) << i;
    return out;
}

/* Four times seven signs and four bits of scale: each byte gets seven signs and a bit. */
static void turn_signs(uint8_t *to, const uint8_t *from)
{
    uint32_t v;
    memcpy(&v, from, 4);
    for (unsigned g = 0; g < 4; g++)
        to[g] = (uint8_t)((v >> 7 * g & 127) | (v >> (28 + g) & 1) << 7);
}

static void back_signs(uint8_t *to, const uint8_t *from)
{
    uint32_t v = 0;
    for (unsigned g = 0; g < 4; g++)
        v |= (from[g] & 127u) << 7 * g | (uint32_t)(from[g] >> 7) << (28 + g);
    memcpy(to, &v, 4);
}

static void turn_iq2_xxs(uint8_t *to, const uint8_t *from)
{
    for (size_t s = 0; s < 8; s++) {
        memcpy(to + 4 * s, from + 2 + 8 * s, 4);
        turn_signs(to + 32 + 4 * s, from + 6 + 8 * s);
    }
    memcpy(to + 64, from, 2);
}

static void back_iq2_xxs(uint8_t *to, const uint8_t *from)
{
    for (size_t s = 0; s < 8; s++) {
        memcpy(to + 2 + 8 * s, from + 4 * s, 4);
        back_signs(to + 6 + 8 * s, from + 32 + 4 * s);
    }
    memcpy(to, from + 64, 2);
}

static void turn_iq3_xxs(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from + 2, 64);
    for (size_t s = 0; s < 8; s++)
        turn_signs(to + 64 + 4 * s, from + 66 + 4 * s);
    memcpy(to + 96, from, 2);
}

static void back_iq3_xxs(uint8_t *to, const uint8_t *from)
{
    memcpy(to + 2, from, 64);
    for (size_t s = 0; s < 8; s++)
        back_signs(to + 66 + 4 * s, from + 64 + 4 * s);
    memcpy(to, from + 96, 2);
}

/* Codes of nine bits, then seven signs, in two bytes: the ninth bit goes above the signs. */
static void turn_iq2_xs(uint8_t *to, const uint8_t *from)
{
    for (size_t g = 0; g < 32; g++) {
        uint8_t high = from[3 + 2 * g];
        to[g] = from[2 + 2 * g];
        to[32 + g] = (uint8_t)(high >> 1 | high << 7);
    }
    memcpy(to + 64, from + 66, 8);
    memcpy(to + 72, from, 2);
}

static void back_iq2_xs(uint8_t *to, const uint8_t *from)
{
    for (size_t g = 0; g < 32; g++) {
        to[2 + 2 * g] = from[g];
        to[3 + 2 * g] = (uint8_t)(from[32 + g] << 1 | from[32 + g] >> 7);
    }
    memcpy(to + 66, from + 64, 8);
    memcpy(to, from + 72, 2);
}

/* Four pairs of bits: the first of each to the low nibble, the second to the high one. */
static const uint8_t pairs_place[8] = {0, 4, 1, 5, 2, 6, 3, 7};

static void turn_iq2_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from + 2, 64);
    for (size_t s = 0; s < 8; s++)
        to[64 + s] = (uint8_t)bits_to(from[66 + s], pairs_place, 8);
    memcpy(to + 72, from + 74, 8);
    memcpy(to + 80, from, 2);
}

static void back_iq2_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to + 2, from, 64);
    for (size_t s = 0; s < 8; s++)
        to[66 + s] = (uint8_t)bits_from(from[64 + s], pairs_place, 8);
    memcpy(to + 74, from + 72, 8);
    memcpy(to, from + 80, 2);
}

static void turn_iq3_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from + 2, 64);
    memcpy(to + 64, from + 74, 32);
    memcpy(to + 96, from + 66, 8);
    memcpy(to + 104, from + 106, 4);
    memcpy(to + 108, from, 2);
}

static void back_iq3_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to + 2, from, 64);
    memcpy(to + 74, from + 64, 32);
    memcpy(to + 66, from + 96, 8);
    memcpy(to + 106, from + 104, 4);
    memcpy(to, from + 108, 2);
}

/* Four times three bits, then four: nibble e gets bit e of each three, nibble 3 the four. */
static const uint8_t threes_place[16] = {0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, 12, 13, 14, 15};
/* Four times four bits: nibble e gets bit e of each. */
static const uint8_t fours_place[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};

static void turn_halves(uint8_t *to, const uint8_t *from, const uint8_t *place)
{
    for (size_t s = 0; s < 8; s++) {
        uint16_t v;
        memcpy(&v, from + 2 * s, 2);
        v = (uint16_t)bits_to(v, place, 16);
        memcpy(to + 2 * s, &v, 2);
    }
}

static void back_halves(uint8_t *to, const uint8_t *from, const uint8_t *place)
{
    for (size_t s = 0; s < 8; s++) {
        uint16_t v;
        memcpy(&v, from + 2 * s, 2);
        v = (uint16_t)bits_from(v, place, 16);
        memcpy(to + 2 * s, &v, 2);
    }
}

static void turn_iq1_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from + 2, 32);
    turn_halves(to + 32, from + 34, threes_place);
    memcpy(to + 48, from, 2);
}

static void back_iq1_s(uint8_t *to, const uint8_t *from)
{
    memcpy(to + 2, from, 32);
    back_halves(to + 34, from + 32, threes_place);
    memcpy(to, from + 48, 2);
}

static void turn_iq1_m(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from, 32);
    turn_halves(to + 32, from + 32, fours_place);
    memcpy(to + 48, from + 48, 8);
}

static void back_iq1_m(uint8_t *to, const uint8_t *from)
{
    memcpy(to, from, 32);
    back_halves(to + 32, from + 32, fours_place);
    memcpy(to + 48, from + 48, 8);
}

// clang-format off
static const struct shape shape_q8_0 = {34, 32, 2, 1088, 0, 2, {
    {UNIT_HALF,  1, 0, {0, 32}},
    {UNIT_DWORD, 8, 2, {64, 576}}}};
static const struct shape shape_q4_0 = {18, 32, 2, 576, 0, 2, {
    {UNIT_HALF,  1, 0, {0, 32}},
    {UNIT_DWORD, 4, 2, {64, 320}}}};
static const struct shape shape_mxfp4 = {17, 32, 2, 576, 0, 3, {
    {UNIT_E8M0,  1, 0, {0, 16}},
    {UNIT_ZERO, 32, 0, {32, 32}},
    {UNIT_DWORD, 4, 1, {64, 320}}}};
static const struct shape shape_q5_0 = {22, 32, 2, 704, 0, 3, {
    {UNIT_HALF,  1, 0, {0, 32}},
    {UNIT_FIFTH, 1, 2, {64, 384}},
    {UNIT_DWORD, 4, 6, {128, 448}}}};
static const struct shape shape_q4_1 = {20, 32, 2, 640, 0, 3, {
    {UNIT_HALF,  1, 0, {0, 320}},
    {UNIT_HALF,  1, 2, {32, 352}},
    {UNIT_DWORD, 4, 4, {64, 384}}}};
static const struct shape shape_q5_1 = {24, 32, 2, 768, 0, 4, {
    {UNIT_HALF,  1, 0, {0, 384}},
    {UNIT_HALF,  1, 2, {32, 416}},
    {UNIT_FIFTH, 1, 4, {64, 448}},
    {UNIT_DWORD, 4, 8, {128, 512}}}};
static const struct shape shape_q8z = {36, 32, 2, 1152, 0, 3, {
    {UNIT_HALF,  1, 0, {0, 576}},
    {UNIT_HALF,  1, 2, {32, 608}},
    {UNIT_DWORD, 8, 4, {64, 640}}}};
static const struct shape shape_code8 = {132, 128, 1, 2112, 0, 2, {
    {UNIT_FLOAT,  1, 0, {0}},
    {UNIT_PAIR, 128, 4, {64}}}};
static const struct shape shape_code4 = {36, 64, 1, 576, 0, 2, {
    {UNIT_FLOAT, 1, 0, {0}},
    {UNIT_BYTE, 32, 4, {64}}}};
static const struct shape shape_q4_k = {144, 256, 1, 2304, 0, 1, {
    {UNIT_DWORD, 36, 0, {0}}}};
static const struct shape shape_q5_k = {176, 256, 1, 2816, 0, 1, {
    {UNIT_DWORD, 44, 0, {0}}}};
static const struct shape shape_q6_k = {210, 256, 1, 3328, 208, 1, {
    {UNIT_DWORD, 52, 0, {0}}}};
/* dwords in the file's order; pieces overlap where their number is no multiple of 4 */
static const struct shape shape_iq4_xs = {136, 256, 1, 2176, 0, 2, {
    {UNIT_DWORD,  4, 0, {0}},
    {UNIT_DWORD, 32, 8, {128}}}};
static const struct shape shape_q3_k = {110, 256, 1, 1728, 108, 2, {
    {UNIT_DWORD, 24,  0, {0}},
    {UNIT_DWORD,  4, 92, {1472}}}};
static const struct shape shape_q2_k = {84, 256, 1, 1344, 0, 2, {
    {UNIT_DWORD, 20,  0, {0}},
    {UNIT_DWORD,  4, 68, {1088}}}};
static const struct shape shape_tq2_0 = {66, 256, 1, 1024, 64, 1, {
    {UNIT_DWORD, 16,  0, {0}}}};
static const struct shape shape_tq1_0 = {54, 256, 1, 832, 52, 2, {
    {UNIT_DWORD, 12,  0, {0}},
    {UNIT_DWORD,  4, 36, {576}}}};
/* offsets are those of the turned block */
static const struct shape shape_iq2_xxs = {66, 256, 1, 1024, 64, 2, {
    {UNIT_DWORD,  8,  0, {0}},
    {UNIT_WORD,  32, 32, {512}}}, turn_iq2_xxs, back_iq2_xxs};
static const struct shape shape_iq3_xxs = {98, 256, 1, 1536, 96, 2, {
    {UNIT_DWORD, 16,  0, {0}},
    {UNIT_WORD,  32, 64, {1024}}}, turn_iq3_xxs, back_iq3_xxs};
static const struct shape shape_iq2_xs = {74, 256, 1, 1152, 72, 3, {
    {UNIT_DWORD,  8,  0, {0}},
    {UNIT_WORD,  32, 32, {512}},
    {UNIT_FEW,    2, 64, {1024}}}, turn_iq2_xs, back_iq2_xs};
static const struct shape shape_iq2_s = {82, 256, 1, 1280, 80, 3, {
    {UNIT_DWORD,  8,  0, {0}},
    {UNIT_WORD,  40, 32, {512}},
    {UNIT_FEW,    2, 72, {1152}}}, turn_iq2_s, back_iq2_s};
static const struct shape shape_iq3_s = {110, 256, 1, 1728, 108, 3, {
    {UNIT_DWORD, 16,   0, {0}},
    {UNIT_WORD,  40,  64, {1024}},
    {UNIT_FEW,    1, 104, {1664}}}, turn_iq3_s, back_iq3_s};
static const struct shape shape_iq1_s = {50, 256, 1, 768, 48, 2, {
    {UNIT_DWORD,  8,  0, {0}},
    {UNIT_WORD,  16, 32, {512}}}, turn_iq1_s, back_iq1_s};
static const struct shape shape_iq1_m = {56, 256, 1, 896, 0, 3, {
    {UNIT_DWORD,  8,  0, {0}},
    {UNIT_WORD,  16, 32, {512}},
    {UNIT_FEW,    2, 48, {768}}}, turn_iq1_m, back_iq1_m};
// clang-format on

/* What a missing row or block reads; as long as the longest block. */
static const uint8_t zeros[256];

KERN_INLINE v4u load4(const uint8_t *p)
{
    v4u v;
    memcpy(&v, p, 16);
    return v;
}

KERN_INLINE void transpose4(v4u t[4])
{
    v4u a = __builtin_shufflevector(t[0], t[1], 0, 4, 1, 5);
    v4u b = __builtin_shufflevector(t[2], t[3], 0, 4, 1, 5);
    v4u c = __builtin_shufflevector(t[0], t[1], 2, 6, 3, 7);
    v4u d = __builtin_shufflevector(t[2], t[3], 2, 6, 3, 7);
    t[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
    t[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
    t[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
    t[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

/* n (a multiple of 4) dwords of 16 rows: dst[i][r] = dword i at p[r] + off. dst is aligned. */
KERN_INLINE void pack_dwords(uint8_t *dst, const uint8_t *const p[16], size_t off, size_t n)
{
    for (size_t i = 0; i < n; i += 4) {
        for (size_t g = 0; g < 16; g += 4) {
            v4u t[4];
            for (size_t r = 0; r < 4; r++)
                t[r] = load4(p[g + r] + off + 4 * i);
            transpose4(t);
            for (size_t j = 0; j < 4; j++)
                memcpy(dst + 64 * (i + j) + 4 * g, &t[j], 16);
        }
    }
}

/* n (a multiple of 16) bytes of 16 rows: dst[i][r] = byte i at p[r] + off. A round interleaves the
   upper with the lower eight vectors: the bits of a byte's place, vector and index, turn by one. */
KERN_INLINE void pack_bytes(uint8_t *dst, const uint8_t *const p[16], size_t off, size_t n)
{
    for (size_t i = 0; i < n; i += 16) {
        v16b t[2][16];
        for (size_t r = 0; r < 16; r++)
            memcpy(&t[0][r], p[r] + off + i, 16);
        for (size_t round = 0; round < 4; round++)
            for (size_t j = 0; j < 8; j++) {
                v16b a = t[round % 2][j], b = t[round % 2][j + 8];
                t[1 - round % 2][2 * j] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19,
                                                                  4, 20, 5, 21, 6, 22, 7, 23);
                t[1 - round % 2][2 * j + 1] = __builtin_shufflevector(
                    a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            }
        memcpy(dst + 16 * i, t[0], sizeof t[0]);
    }
}

/* 16 halves of 16 rows, dst[i][r] = half i at p[r] + off: dwords are pairs of values, which a
   transpose of dwords brings into lanes; then even and odd halves part. */
static void pack_halves(uint8_t *dst, const uint8_t *const p[16], size_t off)
{
    for (size_t half = 0; half < 2; half++)
        for (size_t g = 0; g < 16; g += 8) {
            v4u t[4], u[4];
            for (size_t r = 0; r < 4; r++) {
                t[r] = load4(p[g + r] + off + 16 * half);
                u[r] = load4(p[g + 4 + r] + off + 16 * half);
            }
            transpose4(t);
            transpose4(u);
            for (size_t j = 0; j < 4; j++) {
                v8h a = (v8h)t[j], b = (v8h)u[j];
                v8h even = __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
                v8h odd = __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
                uint8_t *o = dst + 32 * (8 * half + 2 * j) + 2 * g;
                memcpy(o, &even, 16);
                memcpy(o + 32, &odd, 16);
            }
        }
}

/* n (a multiple of 8) bytes of 16 rows: their low nibbles as words of 64 bits, then the high ones.
   Up to 15 bytes behind are read. */
KERN_INLINE void pack_words(uint8_t *dst, const uint8_t *const p[16], size_t off, size_t n)
{
    uint8_t t[16][16];
    for (size_t i = 0; i < n; i += 16) {
        pack_bytes(t[0], p, off + i, 16);
        for (size_t j = 0; j < 16 && i + j < n; j++, dst += 16) {
            v8h v;
            memcpy(&v, t[j], 16);
            v8h low = v & 0x0f0f, high = v >> 4 & 0x0f0f;
            v8b out[2] = {__builtin_convertvector((low | low >> 4) & 0xff, v8b),
                          __builtin_convertvector((high | high >> 4) & 0xff, v8b)};
            memcpy(dst, out, 16);
        }
    }
}

/* One field of `size` bytes of 16 rows. */
KERN_INLINE void pack_field(uint8_t *dst, const uint8_t *const p[16], size_t off, size_t size)
{
    for (size_t r = 0; r < 16; r++)
        memcpy(dst + size * r, p[r] + off, size);
}

/* Bits j (value j) of the file's dword to bits 8b + i and 8b + 4 + i (panel.h): within each half,
   the transpose of a 4 × 4 bit matrix, then the low half's nibbles and the high half's interleave.
 */
static uint32_t fifth_pack(uint32_t h)
{
    uint32_t out = 0;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned b = 0; b < 4; b++) {
            out |= (h >> (4 * i + b) & 1) << (8 * b + i);
            out |= (h >> (16 + 4 * i + b) & 1) << (8 * b + 4 + i);
        }
    return out;
}

static uint32_t fifth_unpack(uint32_t h)
{
    uint32_t out = 0;
    for (unsigned i = 0; i < 4; i++)
        for (unsigned b = 0; b < 4; b++) {
            out |= (h >> (8 * b + i) & 1) << (4 * i + b);
            out |= (h >> (8 * b + 4 + i) & 1) << (16 + 4 * i + b);
        }
    return out;
}

static void pack_fifths(uint8_t *dst, const uint8_t *const p[16], size_t off)
{
    for (size_t r = 0; r < 16; r++) {
        uint32_t h;
        memcpy(&h, p[r] + off, 4);
        h = fifth_pack(h);
        memcpy(dst + 4 * r, &h, 4);
    }
}

KERN_INLINE size_t shape_blocks(const struct shape *s, size_t k)
{
    return (k + s->values - 1) / s->values;
}

/* Bytes of the scales in front of the groups (Q6_K). */
KERN_INLINE size_t head_bytes(const struct shape *s, size_t k)
{
    return s->head ? num_round_up(shape_blocks(s, k) * 32, 64) : 0;
}

KERN_INLINE size_t shape_bytes(const struct shape *s, size_t k)
{
    size_t n = shape_blocks(s, k);
    return head_bytes(s, k) + (n + s->blocks - 1) / s->blocks * s->group;
}

KERN_INLINE void shape_pack(const struct shape *s, uint8_t *dst, const uint8_t *src, size_t stride,
                            size_t rows, size_t k)
{
    size_t n = shape_blocks(s, k), padded = num_round_up(n, s->blocks);
    uint8_t *body = dst + head_bytes(s, k);
    if (s->head && n % 2)
        memset(dst + 32 * n, 0, 32);
    for (size_t b = 0; b < padded; b++) {
        const uint8_t *p[16];
        uint8_t *group = body + b / s->blocks * s->group, turned[16][128];
        for (size_t r = 0; r < 16; r++)
            p[r] = r < rows && b < n ? src + r * stride + b * s->block : zeros;
        for (size_t r = 0; r < rows && s->turn; r++, p[r - 1] = turned[r - 1])
            s->turn(turned[r], p[r]);
        for (size_t i = 0; i < s->count; i++) {
            const struct piece *e = &s->piece[i];
            uint8_t *to = group + e->panel[b % s->blocks];
            if (e->unit == UNIT_DWORD)
                pack_dwords(to, p, e->file, e->n);
            else if (e->unit == UNIT_BYTE)
                pack_bytes(to, p, e->file, e->n);
            else if (e->unit == UNIT_PAIR)
                for (size_t j = 0; j < e->n; j += 32)
                    pack_halves(to + 16 * j, p, e->file + j);
            else if (e->unit == UNIT_E8M0)
                pack_field(to, p, e->file, 1);
            else if (e->unit == UNIT_WORD)
                pack_words(to, p, e->file, e->n);
            else if (e->unit == UNIT_FEW)
                for (size_t j = 0; j < e->n; j++)
                    pack_field(to + 64 * j, p, e->file + 4 * j, 4);
            else if (e->unit == UNIT_ZERO)
                memset(to, 0, e->n);
            else if (e->unit == UNIT_HALF)
                pack_field(to, p, e->file, 2);
            else if (e->unit == UNIT_FLOAT)
                pack_field(to, p, e->file, 4);
            else
                pack_fifths(to, p, e->file);
        }
        if (s->head)
            pack_field(dst + 32 * b, p, s->head, 2);
    }
}

KERN_INLINE void shape_unpack(const struct shape *s, uint8_t *dst, const uint8_t *panel, size_t r,
                              size_t k)
{
    const uint8_t *body = panel + head_bytes(s, k);
    uint8_t turned[128], *file = dst;
    for (size_t b = 0; b < shape_blocks(s, k); b++, file += s->block) {
        const uint8_t *group = body + b / s->blocks * s->group;
        dst = s->back ? turned : file;
        for (size_t i = 0; i < s->count; i++) {
            const struct piece *e = &s->piece[i];
            const uint8_t *from = group + e->panel[b % s->blocks];
            uint32_t h;
            if (e->unit == UNIT_DWORD || e->unit == UNIT_FEW) {
                for (size_t j = 0; j < e->n; j++)
                    memcpy(dst + e->file + 4 * j, from + 64 * j + 4 * r, 4);
            } else if (e->unit == UNIT_BYTE) {
                for (size_t j = 0; j < e->n; j++)
                    dst[e->file + j] = from[16 * j + r];
            } else if (e->unit == UNIT_PAIR) {
                for (size_t j = 0; j < e->n; j++)
                    dst[e->file + j] = from[32 * (j / 2) + 2 * r + j % 2];
            } else if (e->unit == UNIT_WORD) {
                for (size_t j = 0; j < e->n; j++) {
                    const uint8_t *v = from + 16 * j + r / 2;
                    dst[e->file + j] =
                        (uint8_t)((v[0] >> 4 * (r % 2) & 15) | (v[8] >> 4 * (r % 2) & 15) << 4);
                }
            } else if (e->unit == UNIT_E8M0) {
                dst[e->file] = from[r];
            } else if (e->unit == UNIT_HALF) {
                memcpy(dst + e->file, from + 2 * r, 2);
            } else if (e->unit == UNIT_FLOAT) {
                memcpy(dst + e->file, from + 4 * r, 4);
            } else if (e->unit == UNIT_FIFTH) {
                memcpy(&h, from + 4 * r, 4);
                h = fifth_unpack(h);
                memcpy(dst + e->file, &h, 4);
            }
        }
        if (s->head)
            memcpy(dst + s->head, panel + 32 * b + 2 * r, 2);
        if (s->back)
            s->back(file, turned);
    }
}

#define PANEL(name)                                                                       \
    static size_t bytes_##name(size_t k)                                                  \
    {                                                                                     \
        return shape_bytes(&shape_##name, k);                                             \
    }                                                                                     \
    static void pack_##name(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, \
                            size_t k)                                                     \
    {                                                                                     \
        shape_pack(&shape_##name, dst, src, stride, rows, k);                             \
    }                                                                                     \
    static void unpack_##name(uint8_t *dst, const uint8_t *panel, size_t r, size_t k)     \
    {                                                                                     \
        shape_unpack(&shape_##name, dst, panel, r, k);                                    \
    }                                                                                     \
    const struct panel_layout panel_##name = {bytes_##name, pack_##name, unpack_##name};

PANEL(q8_0)
PANEL(q4_0)
PANEL(mxfp4)
PANEL(q4_1)
PANEL(q5_0)
PANEL(q5_1)
PANEL(q4_k)
PANEL(q5_k)
PANEL(q6_k)
PANEL(iq4_xs)
PANEL(q3_k)
PANEL(q2_k)
PANEL(tq2_0)
PANEL(tq1_0)
PANEL(iq2_xxs)
PANEL(iq3_xxs)
PANEL(iq2_xs)
PANEL(iq2_s)
PANEL(iq3_s)
PANEL(iq1_s)
PANEL(iq1_m)
PANEL(q8z)
PANEL(code8)
PANEL(code4)

/* ---- float types: [k][16] elements ------------------------------------------------------------
 */

static size_t bytes_f32(size_t k)
{
    return k * 64;
}

/* Two bytes an element: the end of an odd k is padding. */
static size_t bytes_f16(size_t k)
{
    return num_round_up(k * 32, 64);
}

/* 16 row pointers at element offset `off` bytes; missing rows read zeros (at most 256 bytes). */
static void float_rows(const uint8_t *p[16], const uint8_t *src, size_t stride, size_t rows,
                       size_t off)
{
    for (size_t r = 0; r < 16; r++)
        p[r] = r < rows ? src + r * stride + off : zeros;
}

static void pack_f32(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, size_t k)
{
    const uint8_t *p[16];
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        float_rows(p, src, stride, rows, 4 * i);
        pack_dwords(dst + 64 * i, p, 0, 16);
    }
    for (; i < k; i++) {
        float_rows(p, src, stride, rows, 4 * i);
        for (size_t r = 0; r < 16; r++)
            memcpy(dst + 64 * i + 4 * r, p[r], 4);
    }
}

static void unpack_f32(uint8_t *dst, const uint8_t *panel, size_t r, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(dst + 4 * i, panel + 64 * i + 4 * r, 4);
}

static void pack_f16(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, size_t k)
{
    const uint8_t *p[16];
    size_t i = 0;
    for (; i + 16 <= k; i += 16) {
        float_rows(p, src, stride, rows, 2 * i);
        pack_halves(dst + 32 * i, p, 0);
    }
    for (; i < k; i++) {
        float_rows(p, src, stride, rows, 2 * i);
        pack_field(dst + 32 * i, p, 0, 2);
    }
    memset(dst + 32 * k, 0, bytes_f16(k) - 32 * k);
}

static void unpack_f16(uint8_t *dst, const uint8_t *panel, size_t r, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(dst + 2 * i, panel + 32 * i + 2 * r, 2);
}

const struct panel_layout panel_f32 = {bytes_f32, pack_f32, unpack_f32};
/* A pair is a dword. */
static void pack_bf16(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, size_t k)
{
    const uint8_t *p[16];
    size_t i = 0;
    for (; i + 8 <= k; i += 8) {
        float_rows(p, src, stride, rows, 2 * i);
        pack_dwords(dst + 32 * i, p, 0, 4);
    }
    for (; i < k; i += 2) {
        float_rows(p, src, stride, rows, 2 * i);
        for (size_t r = 0; r < 16; r++) {
            uint16_t pair[2] = {0};
            memcpy(pair, p[r], k - i > 1 ? 4 : 2);
            memcpy(dst + 32 * i + 4 * r, pair, 4);
        }
    }
}

static void unpack_bf16(uint8_t *dst, const uint8_t *panel, size_t r, size_t k)
{
    for (size_t i = 0; i < k; i++)
        memcpy(dst + 2 * i, panel + 64 * (i / 2) + 4 * r + 2 * (i % 2), 2);
}

const struct panel_layout panel_bf16 = {bytes_f16, pack_bf16, unpack_bf16};
const struct panel_layout panel_f16 = {bytes_f16, pack_f16, unpack_f16};

const struct panel_layout *panel_find(enum quant_id id)
{
    for (size_t i = 0; i < kern_type_count; i++)
        if (kern_types[i].id == id)
            return kern_types[i].panel;
    return NULL;
}

/* ---- looking at scales ------------------------------------------------------------------------
 */

typedef uint32_t v16u __attribute__((vector_size(64)));
typedef uint16_t v16h __attribute__((vector_size(32)));

/* Blocks whose scales are halves of a dword: its place in the group, and the bits of exponents. */
static const struct {
    enum quant_id id;
    uint16_t at;
    uint32_t low, high;
} scale_dwords[] = {
    {QUANT_Q2_K, 1280, 0x7c00, 0x7c000000},
    {QUANT_Q4_K, 0, 0x7c00, 0x7c000000},
    {QUANT_Q5_K, 0, 0x7c00, 0x7c000000},
    {QUANT_IQ4_XS, 0, 0x7c00, 0x7c00},
};

static const struct {
    enum quant_id id;
    const struct shape *shape;
} shapes[] = {
    {QUANT_Q8_0, &shape_q8_0},       {QUANT_Q4_0, &shape_q4_0},     {QUANT_Q4_1, &shape_q4_1},
    {QUANT_Q5_0, &shape_q5_0},       {QUANT_Q5_1, &shape_q5_1},     {QUANT_IQ4_NL, &shape_q4_0},
    {QUANT_Q4_K, &shape_q4_k},       {QUANT_Q5_K, &shape_q5_k},     {QUANT_Q6_K, &shape_q6_k},
    {QUANT_IQ4_XS, &shape_iq4_xs},   {QUANT_Q3_K, &shape_q3_k},     {QUANT_Q2_K, &shape_q2_k},
    {QUANT_TQ2_0, &shape_tq2_0},     {QUANT_TQ1_0, &shape_tq1_0},   {QUANT_IQ2_XXS, &shape_iq2_xxs},
    {QUANT_IQ3_XXS, &shape_iq3_xxs}, {QUANT_IQ2_XS, &shape_iq2_xs}, {QUANT_IQ2_S, &shape_iq2_s},
    {QUANT_IQ3_S, &shape_iq3_s},     {QUANT_IQ1_S, &shape_iq1_s},   {QUANT_FP8, &shape_code8},
    {QUANT_I8, &shape_code8},        {QUANT_NF4, &shape_code4},     {QUANT_FP4, &shape_code4},
    {QUANT_Q4Z, &shape_q4_1},        {QUANT_Q8Z, &shape_q8z},
};

/* `count` vectors of 16 dwords, `step` bytes apart: exponents are all ones under a mask. */
static void bad_dwords(v16u *bad, const uint8_t *p, size_t count, size_t step, uint32_t low,
                       uint32_t high)
{
    v16u sum = *bad;
    for (size_t i = 0; i < count; i++) {
        v16u v;
        memcpy(&v, p + i * step, sizeof v);
        sum |= (v16u)((v & low) == low) | (v16u)((v & high) == high);
    }
    *bad = sum;
}

/* The same of 16 halves. */
static void bad_halves(v16u *bad, const uint8_t *p, size_t count, size_t step)
{
    v16h sum = {0};
    for (size_t i = 0; i < count; i++) {
        v16h v;
        memcpy(&v, p + i * step, sizeof v);
        sum |= (v16h)((v & 0x7c00) == 0x7c00);
    }
    *bad |= __builtin_convertvector(sum, v16u);
}

/* Codes of FP8: pairs of bytes of 16 rows; 0x7f and 0xff are NaN. */
static void bad_codes(v16u *bad, const uint8_t *p, size_t count)
{
    v16h sum = {0};
    for (size_t i = 0; i < count; i++) {
        v16h v;
        memcpy(&v, p + 32 * i, sizeof v);
        sum |= (v16h)((v & 0x7f) == 0x7f) | (v16h)((v & 0x7f00) == 0x7f00);
    }
    *bad |= __builtin_convertvector(sum, v16u);
}

static void bad_blocks(v16u *bad, enum quant_id id, const struct shape *s, const uint8_t *panel,
                       size_t k)
{
    size_t n = shape_blocks(s, k), groups = (n + s->blocks - 1) / s->blocks;
    const uint8_t *body = panel + head_bytes(s, k);
    if (s->head)
        bad_halves(bad, panel, n, 32);
    for (size_t i = 0; i < s->count; i++)
        for (size_t b = 0; b < s->blocks; b++) {
            const uint8_t *at = body + s->piece[i].panel[b];
            if (s->piece[i].unit == UNIT_HALF)
                bad_halves(bad, at, groups, s->group);
            else if (s->piece[i].unit == UNIT_FLOAT)
                bad_dwords(bad, at, groups, s->group, 0x7f800000, 0x7f800000);
        }
    for (size_t i = 0; i < NUM_COUNT(scale_dwords); i++)
        if (scale_dwords[i].id == id)
            bad_dwords(bad, body + scale_dwords[i].at, groups, s->group, scale_dwords[i].low,
                       scale_dwords[i].high);
    for (size_t g = 0; g < groups && id == QUANT_FP8; g++)
        bad_codes(bad, body + g * s->group + 64, s->values / 2);
}

unsigned panel_bad_rows(enum quant_id id, const uint8_t *panel, size_t k)
{
    v16u bad = {0};
    unsigned rows = 0;
    if (id == QUANT_F32)
        bad_dwords(&bad, panel, k, 64, 0x7f800000, 0x7f800000);
    else if (id == QUANT_BF16)
        bad_dwords(&bad, panel, (k + 1) / 2, 64, 0x7f80, 0x7f800000);
    else if (id == QUANT_F16)
        bad_halves(&bad, panel, k, 32);
    for (size_t i = 0; i < NUM_COUNT(shapes); i++)
        if (shapes[i].id == id)
            bad_blocks(&bad, id, shapes[i].shape, panel, k);
    for (unsigned r = 0; r < 16; r++)
        rows |= (bad[r] != 0) << r;
    return rows;
}
