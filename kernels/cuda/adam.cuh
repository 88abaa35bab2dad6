/* adam.cuh - the update of one parameter, for the kernels that have what surrounds it.
 */
#ifndef CCPIPE_KERNELS_CUDA_ADAM_CUH
#define CCPIPE_KERNELS_CUDA_ADAM_CUH

#include "kernels/adam.h"
#include "kernels/cuda/cuda.h"

static __device__ __forceinline__ void adam_update(float *w, float *m, float *v, float g,
                                                   const struct adam_factors &by)
{
    *m = by.keep1 * *m + by.take1 * g;
    *v = by.keep2 * *v + by.take2 * g * g;
    *w -= by.rate * *m / (sqrtf(*v) * by.root + by.eps);
}

#endif
