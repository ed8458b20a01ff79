/*
 * Inside the kernels layer: the parts of kern_init and the list of weight types that have a native
 * product.
 *
 * Each file of an instruction set is compiled with that set's flags, so it may define nothing that
 * other code could pick up: everything in it is static but its one init function, which overwrites
 * the fields of the table that it does better.
 */
#ifndef PONDER_KERNELS_KERN_INTERNAL_H
#define PONDER_KERNELS_KERN_INTERNAL_H

#include "kernels/kern.h"
#include "kernels/panel.h"

#define KERN_INLINE static inline __attribute__((always_inline))

/* A weight type with a native product: its activations and its panels. One row per type. */
struct kern_type {
    enum quant_id id;
    enum kern_act act;
    const struct panel_layout *panel;
};

extern const struct kern_type kern_types[];
extern const size_t kern_type_count;

void kern_init_scalar_mul(struct kern *k);
void kern_init_scalar_vec(struct kern *k);
void kern_init_scalar_page(struct kern *k);
void kern_init_scalar_train(struct kern *k);

#ifdef __x86_64__
void kern_init_avx2_mul(struct kern *k);
void kern_init_avx2_codes(struct kern *k);
void kern_init_avx2_low(struct kern *k); /* quantized types of few bits */
void kern_init_avx2_vec(struct kern *k);
void kern_init_avx2_page(struct kern *k);
void kern_init_avx2_train(struct kern *k);
void kern_init_avx512_mul(struct kern *k); /* float types and codes of floats */
void kern_init_avx512_vec(struct kern *k);
void kern_init_avx512_train(struct kern *k);
void kern_init_vnni_mul(struct kern *k); /* quantized types */
void kern_init_vnni_page(struct kern *k);
void kern_init_bf16_mul(struct kern *k);   /* BF16 and FP8; call it where the processor has BF16 */
void kern_init_bf16_train(struct kern *k); /* gemm_pairs, as above */
void kern_init_vbmi_mul(struct kern *k);   /* codebooks; call it where the processor has VBMI */
#endif

#endif
