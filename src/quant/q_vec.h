/*
 * Inside quant/: four lanes of floats. Written out as vectors because compilers make something slow
 * of the equivalent loops.
 */
#ifndef PONDER_QUANT_Q_VEC_H
#define PONDER_QUANT_Q_VEC_H

#include <stdint.h>
#include <string.h>

typedef float vec __attribute__((vector_size(16)));
typedef int32_t vec_mask __attribute__((vector_size(16)));

static inline vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof(v));
    return v;
}

static inline void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof(v));
}

static inline vec vec_all(float f)
{
    return (vec){f, f, f, f};
}

static inline vec vec_choose(vec_mask m, vec a, vec b)
{
    return (vec)((m & (vec_mask)a) | (~m & (vec_mask)b));
}

/* q_round of each lane. */
static inline vec vec_round(vec t, vec lo, vec hi)
{
    t = vec_choose(t > lo, t, lo);
    t = vec_choose(t < hi, t, hi);
    return (t + vec_all(0x1.8p23f)) - vec_all(0x1.8p23f);
}

static inline float vec_sum(vec a, vec b)
{
    a += b;
    return (a[0] + a[2]) + (a[1] + a[3]);
}

#endif
