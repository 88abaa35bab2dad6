/* pack.cuh - neighbouring elements read and written by one instruction.
 *
 * A thread that takes V = 4 elements at a time moves 16 bytes of f32 or 8 of bf16, so that fewer
 * instructions and addresses are in the way of the memory bus. V is 1 where a row's length is not a
 * multiple of 4: then rows do not begin on such a boundary. Only the row's length decides, so that
 * the order of a row's sums is the same wherever it stands; that d_ pointers themselves lie on 16
 * bytes is for their owner to see to.
 */
#ifndef CCPIPE_KERNELS_CUDA_PACK_CUH
#define CCPIPE_KERNELS_CUDA_PACK_CUH

#include "kernels/cuda/cuda.h"

enum { PACK = 4 };

template <class T, int V> struct alignas(V * sizeof(T)) pack {
    T at[V];
};

template <class T, int V>
static __device__ __forceinline__ void pack_load(float (&values)[V], const T *from)
{
    const pack<T, V> elements = *reinterpret_cast<const pack<T, V> *>(from);
#pragma unroll
    for (int i = 0; i < V; i++)
        values[i] = to_f32(elements.at[i]);
}

template <class T, int V>
static __device__ __forceinline__ void pack_store(T *to, const float (&values)[V])
{
    pack<T, V> elements;
#pragma unroll
    for (int i = 0; i < V; i++)
        elements.at[i] = from_f32<T>(values[i]);
    *reinterpret_cast<pack<T, V> *>(to) = elements;
}

/* statement with V = PACK where rows of `length` elements allow it, else 1. */
#define BY_PACK(length, V, ...)     \
    do {                            \
        if ((length) % PACK == 0) { \
            constexpr int V = PACK; \
            __VA_ARGS__;            \
        } else {                    \
            constexpr int V = 1;    \
            __VA_ARGS__;            \
        }                           \
    } while (0)

#endif
