/*
 * Products of the quantized types with AVX-512 VNNI: vpdpbusd multiplies four unsigned by four
 * signed bytes in each of 16 lanes and adds them up, which is why panels hold dwords of 16 rows.
 *
 * Few columns go straight from the packed bytes (vnni_gemv.h), more go through an unpacked step
 * (vnni_gemm.h). Both give the bits of scalar/mul.c.
 */
#include "kernels/kern_internal.h"
#include "kernels/x86/vnni_gemm.h"
#include "kernels/x86/vnni_gemv.h"
#include "kernels/x86/vnni_low.h"

#define MUL_FORM(name, t, form, layout)                                                   \
    static void mul_##name(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t k, \
                           const struct kern_x *x, size_t col0, size_t cols)              \
    {                                                                                     \
        struct mul_args m = {y, ldy, w, layout.bytes(k), rows, k, x, col0, cols};         \
        if (thin_suits(&m, t < Q4_K ? 2 * THIN : 6))                                      \
            thin_rows(t, gemv, &m);                                                       \
        else                                                                              \
            gemm_blocks((t) | (form), gemm_pair, &m, (k + 255) / 256, PART_STEPS);        \
    }
#define MUL(t, layout) MUL_FORM(t, t, 0, layout)

MUL(Q8_0, panel_q8_0)
MUL(Q4_0, panel_q4_0)
MUL(Q4_1, panel_q4_1)
MUL(Q5_0, panel_q5_0)
MUL(Q5_1, panel_q5_1)
MUL(IQ4_NL, panel_q4_0)
MUL(MXFP4, panel_mxfp4)
MUL(Q4Z, panel_q4_1)
MUL(Q8Z, panel_q8z)
MUL(Q4_K, panel_q4_k)
MUL(Q5_K, panel_q5_k)
MUL(Q6_K, panel_q6_k)
MUL_FORM(Q4_K_full, Q4_K, FULL, panel_q4_k)
MUL_FORM(Q5_K_full, Q5_K, FULL, panel_q5_k)
MUL_FORM(Q6_K_full, Q6_K, FULL, panel_q6_k)
LOW_MUL(IQ4_XS, panel_iq4_xs)
LOW_MUL(Q3_K, panel_q3_k)
LOW_MUL(Q2_K, panel_q2_k)
LOW_MUL(TQ2_0, panel_tq2_0)
LOW_MUL(TQ1_0, panel_tq1_0)

typedef void mul_fn(float *y, size_t ldy, const uint8_t *w, size_t rows, size_t n,
                    const struct kern_x *x, size_t col0, size_t cols);

/* Q8_0 … Q6_K. Processors of AMD read memory faster with the kernels of AVX2 when there is one
   column: Zen 5, one thread, 8960 × 1536: Q4_K 32 / 36 GB/s, Q6_K 30 / 34, Q8_0 31 / 36. */
static void put(struct kern *k, enum quant_id id, mul_fn *mul)
{
    if (__builtin_cpu_is("amd"))
        k->mul[id].mul_one = k->mul[id].mul;
    k->mul[id].mul = mul;
}

/* A K-quant, whose better form depends on the processor. */
static void put_form(struct kern *k, enum quant_id id, mul_fn *mul, mul_fn *full)
{
    bool amd = __builtin_cpu_is("amd");
    put(k, id, amd ? full : mul);
    k->mul[id].mul_other = amd ? mul : full;
}

void kern_init_vnni_mul(struct kern *k)
{
    put(k, QUANT_Q8_0, mul_Q8_0);
    put(k, QUANT_Q4_0, mul_Q4_0);
    put(k, QUANT_Q4_1, mul_Q4_1);
    put(k, QUANT_Q5_0, mul_Q5_0);
    put(k, QUANT_Q5_1, mul_Q5_1);
    put(k, QUANT_IQ4_NL, mul_IQ4_NL);
    put(k, QUANT_MXFP4, mul_MXFP4);
    put(k, QUANT_Q4Z, mul_Q4Z);
    put(k, QUANT_Q8Z, mul_Q8Z);
    put_form(k, QUANT_Q4_K, mul_Q4_K, mul_Q4_K_full);
    put_form(k, QUANT_Q5_K, mul_Q5_K, mul_Q5_K_full);
    put_form(k, QUANT_Q6_K, mul_Q6_K, mul_Q6_K_full);
    k->mul[QUANT_IQ4_XS].mul = mul_LOW_IQ4_XS;
    k->mul[QUANT_Q3_K].mul = mul_LOW_Q3_K;
    k->mul[QUANT_Q2_K].mul = mul_LOW_Q2_K;
    k->mul[QUANT_TQ2_0].mul = mul_LOW_TQ2_0;
    k->mul[QUANT_TQ1_0].mul = mul_LOW_TQ1_0;
}
