/* reduce.cuh - sums and maxima over the threads of a block.
 *
 * Every thread of the block calls, and every thread gets the result, the same to the bit: lanes
 * are paired by a butterfly of shuffles (a + b and b + a are the same number), then each thread
 * adds the totals of the warps one by one. The order depends on the number of threads alone, so a
 * launcher that always asks for the same number gives the same bytes whatever the grid.
 *
 * Blocks are one-dimensional, of whole warps.
 */
#ifndef CCPIPE_KERNELS_CUDA_REDUCE_CUH
#define CCPIPE_KERNELS_CUDA_REDUCE_CUH

#include "kernels/cuda/cuda.h"

enum { REDUCE_MOST_WARPS = 32 }; /* of a block */

template <class T, class OP> static __device__ __forceinline__ T warp_reduce(T value, OP op)
{
    for (int mask = WARP / 2; mask > 0; mask /= 2)
        value = op(value, __shfl_xor_sync(0xffffffffu, value, mask));
    return value;
}

template <class T, class OP> static __device__ __forceinline__ T block_reduce(T value, OP op)
{
    __shared__ T of_warp[REDUCE_MOST_WARPS];
    value = warp_reduce(value, op);
    if (threadIdx.x % WARP == 0)
        of_warp[threadIdx.x / WARP] = value;
    __syncthreads();
    value = of_warp[0];
    for (unsigned warp = 1; warp < blockDim.x / WARP; warp++)
        value = op(value, of_warp[warp]);
    __syncthreads(); /* all have read: the next call may write */
    return value;
}

template <class T> static __device__ __forceinline__ T block_sum(T value)
{
    return block_reduce(value, [](T a, T b) { return a + b; });
}

/* A NaN loses against a number. */
static __device__ __forceinline__ float block_max(float value)
{
    return block_reduce(value, [](float a, float b) { return fmaxf(a, b); });
}

#endif
