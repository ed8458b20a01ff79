/*
 * Weight types: one row per storage format of a tensor, everything the rest of ponder knows about
 * it.
 *
 * A type is a block of `block` values in `bytes` bytes; a row of a tensor is a whole number of
 * blocks, except that `partial` types may end in a part of one. The rows are listed in quant.def,
 * one file per family (q_legacy.c, q_k.c, q_iq.c, …). `decode` is the meaning of a format; compute
 * kernels for the fast types live in kernels/ and are tested against it. Ids are those of GGUF
 * (ggml_type) where GGUF has the type.
 *
 * Types from QUANT_INNER on are ponder's own row forms of weights that safetensors files hold in
 * several tensors (FP8 with scales, GPTQ, AWQ, bitsandbytes), and bare FP8; no GGUF file has them.
 *
 * Left out: how those parts are put together: that is format/'s work.
 */
#ifndef PONDER_QUANT_QUANT_H
#define PONDER_QUANT_QUANT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* GGUF's ids; the enum names every type that has a row. */
enum quant_id {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_IQ2_XXS = 16,
    QUANT_IQ2_XS = 17,
    QUANT_IQ3_XXS = 18,
    QUANT_IQ1_S = 19,
    QUANT_IQ4_NL = 20,
    QUANT_IQ3_S = 21,
    QUANT_IQ2_S = 22,
    QUANT_IQ4_XS = 23,
    QUANT_F64 = 28,
    QUANT_IQ1_M = 29,
    QUANT_BF16 = 30,
    QUANT_TQ1_0 = 34,
    QUANT_TQ2_0 = 35,
    QUANT_MXFP4 = 39,
    QUANT_NVFP4 = 40,
    QUANT_INNER = 56, /* ids from here on are in no GGUF file, but packed ones (format/packed.h) */
    QUANT_E4M3 = QUANT_INNER,
    QUANT_E5M2,
    QUANT_FP8,
    QUANT_I8,
    QUANT_Q4Z,
    QUANT_Q8Z,
    QUANT_NF4,
    QUANT_FP4,
    QUANT_ID_MAX = 64, /* every id is below this */
};

struct quant_type {
    enum quant_id id;
    const char *name;        /* "Q4_K", as GGUF tools print it */
    const char *safetensors; /* dtype name in safetensors ("BF16"), or NULL */
    uint32_t block, bytes;   /* values and bytes of a block */
    bool partial; /* n may be any number: the last block is then filled with zero bytes */

    /*
     * n values (a multiple of block, or any number when partial) from src (any alignment) to dst.
     * Total: any bytes decode.
     */
    void (*decode)(float *dst, const void *src, size_t n);

    /*
     * n values to dst. `importance` (n values ≥ 0, or NULL) weighs the squared error of each value
     * where the format searches for its scales. NULL when the type cannot be written yet.
     * Inputs must be finite. Pure: same input, same bytes.
     */
    void (*encode)(void *dst, const float *src, size_t n, const float *importance);
};

/* The row of an id or a name (case-insensitive); NULL when unknown. */
const struct quant_type *quant_by_id(uint32_t id);
const struct quant_type *quant_by_name(const char *name);
const struct quant_type *quant_by_safetensors(const char *dtype);

/* All rows in the order of quant.def; *count says how many. */
const struct quant_type *const *quant_all(size_t *count);

/*
 * Bytes of n values in one row, whole blocks; false when n is no multiple of the block of a type
 * that is not partial, or the size does not fit. The rows of a matrix are counted one by one.
 */
bool quant_size(const struct quant_type *t, size_t n, size_t *bytes);

/* The 16 levels of NF4 and FP4, by code; NULL for other types. */
const float *quant_levels(enum quant_id id);

/* Single-value conversions, exact (encode: round to nearest even; NaN stays NaN). */
float quant_f16_to_f32(uint16_t h);
uint16_t quant_f32_to_f16(float f);
float quant_bf16_to_f32(uint16_t b);
uint16_t quant_f32_to_bf16(float f);
float quant_e4m3_to_f32(uint8_t v); /* e4m3fn: no infinity, 0x7F/0xFF NaN */
uint8_t quant_f32_to_e4m3(float f); /* > 464 gives NaN 0x7F, as torch does */
float quant_e5m2_to_f32(uint8_t v);
uint8_t quant_f32_to_e5m2(float f); /* overflow gives infinity */
float quant_e8m0_to_f32(uint8_t v); /* 2^(v-127), 255 = NaN */

#endif
