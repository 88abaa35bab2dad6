/* mma.cuh - what needs PTX: products on the tensor cores, fragments from shared memory, copies that
 * go on beside the arithmetic.
 *
 * All 32 lanes of a warp call together. With g = lane / 4 and t = lane % 4, and two bf16 to a
 * register (the lower index in the lower half), the fragments of the one shape in use are
 *
 *   A (16, 16)  a[0]: row g, columns 2t 2t+1   a[1]: row g + 8   a[2], a[3]: the same at column + 8
 *   B (16, 8)   b[0]: rows 2t 2t+1, column g   b[1]: rows + 8
 *   C (16, 8)   c[0], c[1]: row g, columns 2t 2t+1   c[2], c[3]: row g + 8
 *
 * so that C of one product, rounded, is A of the next, and an 8 by 8 matrix of which lane 4g + t
 * has (g, 2t) and (g, 2t + 1) is one register of A, or of B transposed: what load_matrices()
 * delivers.
 *
 * The plain versions, for a host compiler, are in tests/emu/include/emu_ptx.h.
 */
#ifndef CCPIPE_KERNELS_CUDA_MMA_CUH
#define CCPIPE_KERNELS_CUDA_MMA_CUH

#include "kernels/cuda/cuda.h"

#ifdef CCPIPE_EMU
#include <emu_ptx.h>
#else

/* d = a b + c, products exact, sums in f32; d may be c. */
static __device__ __forceinline__ void mma_bf16_m16n8k16(float (&d)[4], const uint32_t (&a)[4],
                                                         const uint32_t (&b)[2],
                                                         const float (&c)[4])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]),
                   "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/* Four 8 by 8 matrices of 16-bit elements in shared memory to registers to[0..3]. Lane 8i + r gives
 * the address of row r of matrix i, on 16 bytes. */
static __device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void *row)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

/* The same, each matrix transposed. */
static __device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void *row)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

/* Begins to copy 16 bytes to shared memory, or 16 zero bytes where !valid: then `from` is not read.
 * Both on 16 bytes. */
static __device__ __forceinline__ void copy_begin(void *to, const void *from, bool valid)
{
    uint32_t address = (uint32_t)__cvta_generic_to_shared(to), bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(bytes)
                 : "memory");
}

/* Waits for all copies that this thread began. Others see them after a barrier. */
static __device__ __forceinline__ void copy_wait(void)
{
    asm volatile("cp.async.wait_all;" ::: "memory");
}

#endif

/* Two f32 rounded to bf16, the first in the lower half. */
static __device__ __forceinline__ uint32_t mma_pair(float low, float high)
{
    const __nv_bfloat16 pair[2] = {from_f32<__nv_bfloat16>(low), from_f32<__nv_bfloat16>(high)};
    uint32_t bits;
    memcpy(&bits, pair, sizeof bits);
    return bits;
}

#endif
