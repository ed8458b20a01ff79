/* exp of 16 lanes: the operations of scalar/kern_math.h, over `struct lanes` (vec_impl.h). */
#ifndef PONDER_KERNELS_X86_EXP_IMPL_H
#define PONDER_KERNELS_X86_EXP_IMPL_H

KERN_INLINE struct lanes lanes_exp(struct lanes x)
{
    const struct lanes magic = lanes_set(KERN_EXP_MAGIC), one = lanes_set(1.0f);
    x = lanes_max(lanes_set(KERN_EXP_MIN), x);
    x = lanes_min(lanes_set(KERN_EXP_MAX), x);
    struct lanes t = lanes_fma(x, lanes_set(KERN_EXP_LOG2E), magic);
    struct lanes n = lanes_sub(t, magic);
    struct lanes r = lanes_fnma(n, lanes_set(KERN_EXP_LN2_HI), x);
    r = lanes_fnma(n, lanes_set(KERN_EXP_LN2_LO), r);
    struct lanes q = lanes_fma(lanes_set(KERN_EXP_C6), r, lanes_set(KERN_EXP_C5));
    q = lanes_fma(q, r, lanes_set(KERN_EXP_C4));
    q = lanes_fma(q, r, lanes_set(KERN_EXP_C3));
    q = lanes_fma(q, r, lanes_set(KERN_EXP_C2));
    q = lanes_fma(q, r, one);
    q = lanes_fma(q, r, one);
    return lanes_scale(q, t, n);
}

#endif
