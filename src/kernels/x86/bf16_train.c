/*
 * The product of BF16 pairs with the dot products of AVX-512 BF16 (vdpbf16ps), which compute the
 * chain that kern.h defines. The product itself is in gemm_impl.h.
 */
#include "kernels/x86/avx512_gemm.h"

KERN_INLINE struct lanes gemm_step_pairs(struct lanes w, struct lanes x, struct lanes acc)
{
    return (struct lanes){_mm512_dpbf16_ps(acc.v, (__m512bh)w.v, (__m512bh)x.v)};
}

GEMM_KERNEL(gemm_pairs, PAIRS)

void kern_init_bf16_train(struct kern *k)
{
    k->gemm_pairs = gemm_pairs;
}
