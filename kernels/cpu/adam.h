/* adam.h - the update of a row of parameters, for the operations that have what surrounds it.
 */
#ifndef CCPIPE_KERNELS_CPU_ADAM_H
#define CCPIPE_KERNELS_CPU_ADAM_H

#include "kernels/cpu/cpu.h"

#include <math.h>

/* struct kernels_adam as f32 factors of the update, rounded once from doubles. */
struct adam_factors {
    float keep1, take1, keep2, take2; /* beta, 1 - beta */
    float rate, root, eps;            /* lr / correction1, 1 / sqrt(correction2) */
};

static inline struct adam_factors adam_factors_of(const struct kernels_adam *adam)
{
    return (struct adam_factors){
        .keep1 = (float)adam->beta1,
        .take1 = (float)(1.0 - adam->beta1),
        .keep2 = (float)adam->beta2,
        .take2 = (float)(1.0 - adam->beta2),
        .rate = (float)(adam->lr / adam->correction1),
        .root = (float)(1.0 / sqrt(adam->correction2)),
        .eps = (float)adam->eps,
    };
}

/* n parameters by (gradient + pull w) clip; no two arrays overlap. */
void adam_update(float *w, float *m, float *v, const float *gradient, float pull, float clip,
                 struct adam_factors by, size_t n);

/* n <= TILE weights to element `at` of d_copy, which may be NULL. */
static inline void adam_copy(void *d_copy, enum dtype type, size_t at, const float *w, size_t n)
{
    if (d_copy != NULL && type == DTYPE_F32)
        memcpy(element(d_copy, type, at), w, n * sizeof *w);
    else if (d_copy != NULL)
        tile_done(w, d_copy, type, at, n);
}

#endif
