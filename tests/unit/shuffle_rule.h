/* shuffle_rule.h - the rolling block shuffle on a plain array of row numbers, step by step as the
 * rule is stated, against which the ring and shufbuf are compared.
 */
#ifndef CCPIPE_TESTS_SHUFFLE_RULE_H
#define CCPIPE_TESTS_SHUFFLE_RULE_H

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "common/perm.h"

#define SHUFFLE_RULE_EMPTY UINT64_MAX

/* The rows 0 .. count-1 in the order they are served, n slots; the caller frees it. */
static inline uint64_t *shuffle_rule(uint64_t n, uint64_t seed, uint64_t count)
{
    uint64_t *slots = (uint64_t *)malloc((size_t)n * sizeof *slots);
    uint64_t *order = (uint64_t *)malloc((size_t)(count + 1) * sizeof *order);
    if (slots == NULL || order == NULL)
        abort();
    uint64_t arrived = 0, served = 0;
    for (uint64_t s = 0; s < n; s++)
        slots[s] = arrived < count ? arrived++ : SHUFFLE_RULE_EMPTY;
    struct perm perm;
    for (uint64_t draw = 0; served < count; draw++) {
        if (draw % n == 0)
            perm_init(&perm, n, seed, draw / n);
        uint64_t slot = perm_at(&perm, draw % n);
        if (slots[slot] != SHUFFLE_RULE_EMPTY) {
            assert(slots[slot] / n == draw / n);
            order[served++] = slots[slot];
        }
        slots[slot] = arrived < count ? arrived++ : SHUFFLE_RULE_EMPTY;
    }
    free(slots);
    return order;
}

/* How many draws come before the first one whose row is not among rows 0 .. count-1. */
static inline uint64_t shuffle_rule_cut(uint64_t n, uint64_t seed, uint64_t count)
{
    /* Row (k+1)N + i goes to the slot that draw kN + i frees, so draw kN + j of the next block has
     * it. */
    struct perm before, perm;
    perm_init(&perm, n, seed, 0);
    before = perm;
    for (uint64_t draw = 0;; draw++) {
        if (draw > 0 && draw % n == 0) {
            before = perm;
            perm_init(&perm, n, seed, draw / n);
        }
        uint64_t slot = perm_at(&perm, draw % n);
        uint64_t row = draw < n ? slot : draw / n * n + perm_inverse(&before, slot);
        if (row >= count)
            return draw;
    }
}

#endif
