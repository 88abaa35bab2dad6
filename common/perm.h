/* perm.h - a keyed permutation of 0 .. n-1 in O(1) memory: a balanced Feistel network over the next
 * even number of bits (at least 8), with cycle walking. (seed, stream) choose the permutation.
 */
#ifndef CCPIPE_PERM_H
#define CCPIPE_PERM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PERM_ROUNDS 6

struct perm {
    uint64_t n;
    unsigned half_bits;
    uint64_t keys[PERM_ROUNDS];
};

/* n >= 1. */
void perm_init(struct perm *perm, uint64_t n, uint64_t seed, uint64_t stream);

/* The image of i < n, and its inverse: perm_inverse(p, perm_at(p, i)) == i. */
uint64_t perm_at(const struct perm *perm, uint64_t i);
uint64_t perm_inverse(const struct perm *perm, uint64_t image);

#ifdef __cplusplus
}
#endif
#endif
