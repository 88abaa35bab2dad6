/* adam.h - the factors of Adam's update, the same numbers for every backend.
 */
#ifndef CCPIPE_KERNELS_ADAM_H
#define CCPIPE_KERNELS_ADAM_H

#include "kernels/kernels.h"

#include <math.h>

/* struct kernels_adam as f32 factors of the update, rounded once from doubles. */
struct adam_factors {
    float keep1, take1, keep2, take2; /* beta, 1 - beta */
    float rate, root, eps;            /* lr / correction1, 1 / sqrt(correction2) */
};

static inline struct adam_factors adam_factors_of(const struct kernels_adam *adam)
{
    struct adam_factors factors;
    factors.keep1 = (float)adam->beta1;
    factors.take1 = (float)(1.0 - adam->beta1);
    factors.keep2 = (float)adam->beta2;
    factors.take2 = (float)(1.0 - adam->beta2);
    factors.rate = (float)(adam->lr / adam->correction1);
    factors.root = (float)(1.0 / sqrt(adam->correction2));
    factors.eps = (float)adam->eps;
    return factors;
}

#endif
