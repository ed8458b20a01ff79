/*
 * Philox 4x32-10. Counter words 0-1 hold the block number, words 2-3 the stream; the key is the
 * seed. Ten rounds of two 32×32→64 bit products, the key stepped by Weyl constants between rounds.
 * Nothing is cached between draws: a block costs about 20 ns, and a plain triple of numbers is
 * easy to store in a checkpoint.
 */
#include "base/rng.h"

#include <math.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "base/hash.h"

void rng_init(struct rng *r, uint64_t seed, uint64_t stream)
{
    *r = (struct rng){.seed = seed, .stream = stream};
}

void rng_block(uint64_t seed, uint64_t stream, uint64_t block, uint32_t out[4])
{
    uint32_t c0 = (uint32_t)block, c1 = (uint32_t)(block >> 32), c2 = (uint32_t)stream,
             c3 = (uint32_t)(stream >> 32);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int i = 0; i < 10; i++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint32_t rng_u32(struct rng *r)
{
    uint32_t w[4];
    rng_block(r->seed, r->stream, r->index / 4, w);
    return w[r->index++ % 4];
}

double rng_uniform(struct rng *r)
{
    uint32_t w[4], hi, lo;
    if (r->index % 4 != 3) { /* both words in one block */
        rng_block(r->seed, r->stream, r->index / 4, w);
        hi = w[r->index % 4];
        lo = w[r->index % 4 + 1];
        r->index += 2;
    } else {
        hi = rng_u32(r);
        lo = rng_u32(r);
    }
    return (double)(((uint64_t)hi << 32 | lo) >> 11) * 0x1p-53;
}

double rng_normal(struct rng *r)
{
    double radius = sqrt(-2 * log(1 - rng_uniform(r))); /* 1 - u is never 0 */
    return radius * cos(6.283185307179586 * rng_uniform(r));
}

uint64_t rng_os_seed(void)
{
    uint64_t x;
    if (getrandom(&x, sizeof x, GRND_NONBLOCK) == (ssize_t)sizeof x)
        return x;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return hash_u64((uint64_t)t.tv_sec * 1000000007u ^ (uint64_t)t.tv_nsec << 20 ^
                    (uint64_t)getpid());
}
