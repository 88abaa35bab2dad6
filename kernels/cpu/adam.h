/* adam.h - the update of a row of parameters, for the operations that have what surrounds it.
 */
#ifndef CCPIPE_KERNELS_CPU_ADAM_H
#define CCPIPE_KERNELS_CPU_ADAM_H

#include "kernels/adam.h"
#include "kernels/cpu/cpu.h"

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
