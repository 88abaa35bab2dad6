/* perm.c - a balanced Feistel network of six rounds over 2 x half_bits bits. Values at or above n
 * are sent through again until one falls below n (cycle walking): the network is a bijection of its
 * domain, so that walking along its cycles and passing over what is outside is one of 0 .. n-1. The
 * domain is less than 4n, hence fewer than 4 walks on average.
 *
 * Below 8 bits a Feistel network reaches few of the permutations, and unevenly (at 2 bits a round
 * has four functions to choose from), so a smaller n walks in 8 bits.
 *
 * The order of rows in every shuffled stream depends on each constant here: a change of any of
 * them is a change of what a seed means.
 */
#include "perm.h"

#include <assert.h>

#include "rng.h"

#define PERM_MIN_HALF_BITS 4
/* Keys are taken from far behind what others draw from the same (seed, stream). */
#define PERM_KEY_INDEX UINT64_C(0x7065726d00000000)

void perm_init(struct perm *perm, uint64_t n, uint64_t seed, uint64_t stream)
{
    assert(n >= 1);
    perm->n = n;
    perm->half_bits = PERM_MIN_HALF_BITS;
    while (perm->half_bits < 32 && (n - 1) >> (2 * perm->half_bits) != 0)
        perm->half_bits++;
    for (unsigned round = 0; round < PERM_ROUNDS; round++)
        perm->keys[round] = rng_u64(seed, stream, PERM_KEY_INDEX + round);
}

/* The round function: a 64-bit finaliser (Stafford's variant 13 of MurmurHash3's), its top
 * half_bits. */
static uint64_t perm_mix(const struct perm *perm, uint64_t half, unsigned round)
{
    uint64_t x = half ^ perm->keys[round];
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    x ^= x >> 31;
    return x >> (64 - perm->half_bits);
}

uint64_t perm_at(const struct perm *perm, uint64_t i)
{
    assert(i < perm->n);
    uint64_t mask = (UINT64_C(1) << perm->half_bits) - 1;
    do {
        uint64_t left = i >> perm->half_bits, right = i & mask;
        for (unsigned round = 0; round < PERM_ROUNDS; round++) {
            uint64_t next = left ^ perm_mix(perm, right, round);
            left = right;
            right = next;
        }
        i = left << perm->half_bits | right;
    } while (i >= perm->n);
    return i;
}

uint64_t perm_inverse(const struct perm *perm, uint64_t image)
{
    assert(image < perm->n);
    uint64_t mask = (UINT64_C(1) << perm->half_bits) - 1;
    do {
        uint64_t left = image >> perm->half_bits, right = image & mask;
        for (unsigned round = PERM_ROUNDS; round-- > 0;) {
            uint64_t before = right ^ perm_mix(perm, left, round);
            right = left;
            left = before;
        }
        image = left << perm->half_bits | right;
    } while (image >= perm->n);
    return image;
}
