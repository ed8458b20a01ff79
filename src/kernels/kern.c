/*
 * Filling the table of kernels, and the memory of quantized activations.
 *
 * Levels are applied weakest first, so that a stronger one replaces only what it does better and a
 * field that nobody sped up keeps its definition in plain C.
 */
#include "kernels/kern.h"

#include "base/num.h"
#include "kernels/kern_internal.h"

#include <string.h>

static const struct {
    enum cpu_isa isa;
    void (*init)(struct kern *k);
} parts[] = {
    {CPU_SCALAR, kern_init_scalar_mul},    {CPU_SCALAR, kern_init_scalar_vec},
    {CPU_SCALAR, kern_init_scalar_page},   {CPU_SCALAR, kern_init_scalar_train},
#ifdef __x86_64__
    {CPU_AVX2, kern_init_avx2_mul},        {CPU_AVX2, kern_init_avx2_codes},
    {CPU_AVX2, kern_init_avx2_low},        {CPU_AVX2, kern_init_avx2_vec},
    {CPU_AVX2, kern_init_avx2_page},       {CPU_AVX2, kern_init_avx2_train},
    {CPU_AVX512, kern_init_avx512_mul},    {CPU_AVX512, kern_init_avx512_vec},
    {CPU_AVX512, kern_init_avx512_train},  {CPU_AVX512VNNI, kern_init_vnni_mul},
    {CPU_AVX512VNNI, kern_init_vnni_page},
#endif
};

void kern_init(struct kern *k, enum cpu_isa isa)
{
    memset(k, 0, sizeof *k);
    k->isa = isa;
    for (size_t i = 0; i < kern_type_count; i++) {
        struct kern_mul *m = &k->mul[kern_types[i].id];
        m->act = kern_types[i].act;
        m->panel_bytes = kern_types[i].panel->bytes;
        m->pack = kern_types[i].panel->pack;
        m->unpack_row = kern_types[i].panel->unpack_row;
    }
    for (size_t i = 0; i < NUM_COUNT(parts); i++)
        if (parts[i].isa <= isa)
            parts[i].init(k);
#ifdef __x86_64__
    if (isa >= CPU_AVX512VNNI && __builtin_cpu_supports("avx512vbmi"))
        kern_init_vbmi_mul(k);
    if (isa >= CPU_AVX512VNNI && cpu_bf16()) {
        kern_init_bf16_mul(k);
        kern_init_bf16_train(k);
    }
#endif
}

void kern_float(struct kern *k)
{
    for (size_t i = 0; i < kern_type_count; i++) {
        struct kern_mul *m = &k->mul[kern_types[i].id];
        if (m->act == KERN_ACT_F32)
            continue;
        m->act = m->mul_f32 ? KERN_ACT_F32 : KERN_ACT_NONE;
        m->mul = m->mul_f32 ? m->mul_f32 : m->mul;
        m->mul_f32 = NULL;
    }
}

/* The arrays of a form in the order they lie in memory; 0 bytes for those it does not have. */
struct x_sizes {
    size_t q, d, s, sum, sum16, sum32, h;
};

static struct x_sizes x_sizes(enum kern_act act, size_t k, size_t cols)
{
    struct x_sizes z = {0};
    if (act == KERN_ACT_Q32) {
        size_t blocks = num_round_up(k, 64) / 32 * cols;
        z.q = blocks * 32;
        z.d = z.s = z.sum = blocks * 4;
    } else if (act == KERN_ACT_Q256) {
        size_t blocks = num_round_up(k, 256) / 256 * cols;
        z.q = blocks * 256;
        z.d = blocks * 4;
        z.sum16 = blocks * 16 * 2;
        z.sum32 = blocks * 8 * 2;
    } else if (act == KERN_ACT_BF16) {
        z.h = num_round_up(k, 32) * cols * 2; /* a multiple of KERN_ALIGN */
    }
    z.q = num_round_up(z.q, KERN_ALIGN);
    z.d = num_round_up(z.d, KERN_ALIGN);
    z.s = num_round_up(z.s, KERN_ALIGN);
    z.sum = num_round_up(z.sum, KERN_ALIGN);
    z.sum16 = num_round_up(z.sum16, KERN_ALIGN);
    z.sum32 = num_round_up(z.sum32, KERN_ALIGN);
    return z;
}

size_t kern_x_bytes(enum kern_act act, size_t k, size_t cols)
{
    size_t n;
    if (!num_add(&n, k, 256) || !num_mul(&n, n, cols) || !num_mul(&n, n, 4))
        return SIZE_MAX; /* no allocation of this size succeeds */
    struct x_sizes z = x_sizes(act, k, cols);
    return z.q + z.d + z.s + z.sum + z.sum16 + z.sum32 + z.h;
}

/* The next `bytes` of *mem, or NULL when the form has no such array. */
static void *place(char **mem, size_t bytes)
{
    char *p = *mem;
    *mem += bytes;
    return bytes ? p : NULL;
}

void kern_x_place(struct kern_x *x, enum kern_act act, size_t k, size_t cols, void *mem)
{
    struct x_sizes z = x_sizes(act, k, cols);
    char *p = mem;
    *x = (struct kern_x){.k = k, .cols = cols};
    x->q = place(&p, z.q);
    x->d = place(&p, z.d);
    x->s = place(&p, z.s);
    x->sum = place(&p, z.sum);
    x->sum16 = place(&p, z.sum16);
    x->sum32 = place(&p, z.sum32);
    x->h = place(&p, z.h);
}
