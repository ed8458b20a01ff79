/*
 * Panels: how 16 rows of a weight matrix lie in memory for the kernels.
 *
 * Lanes are rows: one 64-byte vector holds the same four bytes (a "dword") of all 16 rows, one
 * 32-byte vector the same fp16 of all 16 rows. A panel holds exactly the bits of the file's rows,
 * moved; only single bits of a block (qh of Q5_0 and Q5_1, signs and upper bits of codes)
 * change places in it. All vectors are 64-byte
 * aligned. "v[16]" below means one value per row, row 0 first.
 *
 * Blocks of 32 values come in pairs; a missing second block (odd count) is all zero bytes.
 * Dword i of a nibble block holds, low nibbles, the values 4i..4i+3, high nibbles, 16+4i..16+4i+3 —
 * just as in the file.
 *
 *   Q8_0  pair, 1088 B   fp16 d[2][16]; int8x4 q[2][8][16]
 *   Q4_0  pair,  576 B   fp16 d[2][16]; nibbles q[2][4][16]
 *   MXFP4 pair,  576 B   e8m0 d[2][16]; zero [32]; nibbles q[2][4][16]
 *   Q5_0  pair,  704 B   fp16 d[2][16]; { dword qh[16]; nibbles q[4][16] }[2]
 *   Q4_1  pair,  640 B   { fp16 d[16]; fp16 m[16]; nibbles q[4][16] }[2]
 *   Q5_1  pair,  768 B   { fp16 d[16]; fp16 m[16]; dword qh[16]; nibbles q[4][16] }[2]
 *   Q8Z   pair, 1152 B   { fp16 d[16]; fp16 z[16]; int8x4 q[8][16] }[2]
 *   IQ4_NL as Q4_0 (nibbles are indices into its table); Q4Z as Q4_1 (z in the place of m)
 *
 *   qh of a panel: bit 8b + i of the dword is the fifth bit of value 4i + b, bit 8b + 4 + i that of
 *   value 16 + 4i + b (i, b in 0..3). So the bits of low-nibble vector i are (qh << (4 - i)) &
 *   0x10101010 and of high-nibble vector i (qh >> i) & 0x10101010.
 *
 * Blocks of 256 values:
 *   Q4_K  2304 B   dwords of the file's block in order: d|dmin [16]; scales [3][16]; qs [32][16]
 *   Q5_K  2816 B   d|dmin [16]; scales [3][16]; qh [8][16]; qs [32][16]
 *   Q6_K  3328 B   ql [32][16]; qh [16][16]; scales (int8x4) [4][16]
 *                  in front of all blocks of a panel, once: fp16 d[number of blocks][16], padded to
 *                  a multiple of 64 bytes ("head")
 *   IQ4_XS 2176 B  dwords of the file's block in order: d|high scale bits [16]; scales [16];
 *                  nibbles [32][16]
 *   Q3_K  1728 B   high bits [8][16]; q2 [16][16]; scales [3][16]; d in the head
 *   Q2_K  1344 B   scales [4][16]; q2 [16][16]; d|dmin [16]
 *
 *   TQ2_0 1024 B   q2 [16][16]; d in the head
 *   TQ1_0  832 B   the dwords of the file's block [13][16]; d in the head
 *
 * Blocks of 256 values of codebooks. "sign[64]" are words of 64 bits, one for each dword of values:
 * bit 4r + b of word i is that of value 4i + b of row r. d in the head, but for IQ1_M.
 *   IQ2_XXS 1024 B  codes [8][16]; sign[64]
 *   IQ3_XXS 1536 B  codes [16][16]; sign[64]. In both, signs are seven for eight values; in place
 * of the sign of value 8i + 7 stands bit i % 4 of the scale of sub-block i / 4 IQ2_XS  1152 B  low
 * bytes of codes [8][16]; sign[64], in place of the sign of value 8i + 7 the ninth bit of code i;
 * scales [2][16] IQ2_S   1280 B  low bytes of codes [8][16]; sign[64]; high[8][2], bit 4r + g of
 * word [i][e] is bit 8 + e of code 4i + g of row r; scales [2][16] IQ3_S   1728 B  low bytes of
 * codes [16][16]; sign[64]; high[16], bit 4r + g of word i is bit 8 of code 4i + g of row r; scales
 * [16] IQ1_S    768 B  low bytes of codes [8][16]; high[8][4], as of IQ2_S for e < 3; nibble r of
 * word [i][3] is the scale and, on top, the shift's sign of sub-block i IQ1_M    896 B  low bytes
 * of codes [8][16]; high[8][4], [i][3] has the shifts' signs; scales [2][16]
 *
 * Codes of floats with a scale per block, which the last of a row need not fill:
 *   FP8, I8   128 values, 2112 B   float d[16]; codes [64][16][2], a byte each: pairs of values
 *   NF4, FP4   64 values,  576 B   float d[16]; codes [32][16], two a byte, the first in the high
 *                                  nibble
 *
 * Float types, k values: F32 and F16 [k][16] elements (64, 32 bytes per k), the whole rounded up to
 * 64; BF16 [k/2][16][2], pairs of values, the second of the last one zero if k is odd.
 */
#ifndef PONDER_KERNELS_PANEL_H
#define PONDER_KERNELS_PANEL_H

#include "kernels/kern.h"

/* One pair of functions serves all instruction sets: packing is a load-time cost. */
extern const struct panel_layout {
    size_t (*bytes)(size_t k);
    void (*pack)(uint8_t *dst, const uint8_t *src, size_t stride, size_t rows, size_t k);
    void (*unpack_row)(uint8_t *dst, const uint8_t *panel, size_t r, size_t k);
} panel_q8_0, panel_q4_0, panel_mxfp4, panel_q4_1, panel_q5_0, panel_q5_1, panel_q4_k, panel_q5_k,
    panel_q6_k, panel_iq4_xs, panel_q3_k, panel_q2_k, panel_tq2_0, panel_tq1_0, panel_iq2_xxs,
    panel_iq3_xxs, panel_iq2_xs, panel_iq2_s, panel_iq3_s, panel_iq1_s, panel_iq1_m, panel_q8z,
    panel_code8, panel_code4, panel_f32, panel_f16, panel_bf16;

/*
 * Files hold panels too (format/packed.h). Whoever changes a layout or the number of a type makes
 * this number one larger: then files of the other layouts are refused with words.
 */
enum { PANEL_LAYOUTS = 1 };

/* The layout of a type's panels; NULL: it has none. */
const struct panel_layout *panel_find(enum quant_id id);

/* The rows of a panel that have a NaN or infinity among their floats and scales, as bits: what can
 * be seen without decoding. */
unsigned panel_bad_rows(enum quant_id id, const uint8_t *panel, size_t k);

#endif
