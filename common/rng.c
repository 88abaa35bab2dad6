/* rng.c - Philox4x32-10: ten rounds of two 32 x 32 -> 64 bit products, whose high halves are mixed
 * with the key and whose low halves pass through. The key moves on by the golden ratio and by
 * sqrt(3) - 1 from round to round. No state, so that threads, restarts and seeks agree by
 * construction; a generator with state was rejected, as each checkpoint would have to carry it.
 */
#include "rng.h"

#include <math.h>

#define RNG_ROUNDS 10
#define RNG_PI 3.14159265358979323846

void rng_philox(uint32_t out[4], uint64_t key, uint64_t low, uint64_t high)
{
    uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32);
    uint32_t c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < RNG_ROUNDS; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

uint64_t rng_u64(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t out[4];
    rng_philox(out, seed, index, stream);
    return (uint64_t)out[1] << 32 | out[0];
}

double rng_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t out[4];
    rng_philox(out, seed, index, stream);
    /* The half keeps u away from 0: |z| <= sqrt(2 ln 2^33) = 6.8. */
    double u = (out[0] + 0.5) * 0x1p-32, v = (out[1] + 0.5) * 0x1p-32;
    return sqrt(-2.0 * log(u)) * cos(2.0 * RNG_PI * v);
}
