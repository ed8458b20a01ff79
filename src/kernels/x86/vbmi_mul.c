/*
 * Products of the codebook types with AVX-512 VNNI and VBMI (Ice Lake, Zen 4): vnni_low.h with the
 * lookups of vbmi_grid.h. Processors that have VNNI alone use those of AVX2.
 */
#include "kernels/kern_internal.h"
#include "kernels/x86/vnni_low.h"

LOW_MUL(IQ2_XXS, panel_iq2_xxs)
LOW_MUL(IQ3_XXS, panel_iq3_xxs)
LOW_MUL(IQ2_XS, panel_iq2_xs)
LOW_MUL(IQ2_S, panel_iq2_s)
LOW_MUL(IQ3_S, panel_iq3_s)
LOW_MUL(IQ1_S, panel_iq1_s)
LOW_MUL(IQ1_M, panel_iq1_m)

void kern_init_vbmi_mul(struct kern *k)
{
    k->mul[QUANT_IQ2_XXS].mul = mul_LOW_IQ2_XXS;
    k->mul[QUANT_IQ3_XXS].mul = mul_LOW_IQ3_XXS;
    k->mul[QUANT_IQ2_XS].mul = mul_LOW_IQ2_XS;
    k->mul[QUANT_IQ2_S].mul = mul_LOW_IQ2_S;
    k->mul[QUANT_IQ3_S].mul = mul_LOW_IQ3_S;
    k->mul[QUANT_IQ1_S].mul = mul_LOW_IQ1_S;
    k->mul[QUANT_IQ1_M].mul = mul_LOW_IQ1_M;
}
