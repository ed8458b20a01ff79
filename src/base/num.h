/* Small checked arithmetic for sizes that come from files, and common macros. */
#ifndef PONDER_BASE_NUM_H
#define PONDER_BASE_NUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NUM_COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* *out = a × b or a + b; false when it does not fit. */
static inline bool num_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool num_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}

/* x rounded up to a multiple of m (m > 0); the caller knows that it fits. */
static inline size_t num_round_up(size_t x, size_t m)
{
    return (x + m - 1) / m * m;
}

static inline size_t num_min(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t num_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

#endif
