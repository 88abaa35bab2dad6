/* cuda.h - what the files of the CUDA backend share.
 *
 * The backend is a shared object that exports kernels_entry and links with the CUDA runtime
 * alone, statically; cuBLASLt is loaded when a device is opened. The same sources compile with a
 * host compiler against the emulation of the execution model in tests/emu (CCPIPE_EMU), on which
 * they are tested where there is no GPU; so what differs between the two is in this header, and a
 * kernel uses nothing that it does not offer:
 *
 *   launch            LAUNCH(queue, kernel, grid, block, shared_bytes, arguments...), nothing else
 *   dynamic shared    DYNAMIC_SHARED(type, name); static: __shared__ float tile[32];
 *   collectives       __syncthreads, __syncwarp, __shfl_*_sync, __ballot/any/all_sync, all lanes
 *   tensor cores      mma.cuh
 *   other PTX         only beside a plain version, by CCPIPE_EMU
 *
 * Errors. The first failure of a queue is logged and kept, and comes back from wait(); what is
 * launched on that queue afterwards is dropped. An error of CUDA is ERR_DEVICE, memory that is not
 * there ERR_MEMORY.
 *
 * Types. A kernel is a template over the types that it reads and writes (float, __nv_bfloat16, and
 * __half where files are read), computes in f32 or f64, and is chosen by BY_TYPE once per launch.
 *
 * Determinism. No float atomics. A sum goes over fixed chunks in a fixed order, whatever the grid;
 * a row of an output depends on that row's input alone.
 */
#ifndef CCPIPE_KERNELS_CUDA_H
#define CCPIPE_KERNELS_CUDA_H

#include "kernels/cuda/cublaslt.h"
#include "kernels/cuda/link.h"
#include "kernels/kernels.h"

#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

static constexpr unsigned WARP = 32, GRID_Y_MOST = 65535;
static constexpr size_t DYNAMIC_SHARED_PLAIN = 48 << 10; /* more has to be asked for, per kernel */

struct kernels_device {
    const struct kernels_host *host;
    int index;
    enum dtype type;    /* T */
    int processors;     /* multiprocessors */
    size_t shared_most; /* bytes of shared memory that a block may ask for */
    struct cublaslt library;
    cublasLtHandle_t products;
#ifdef LINK_HAS_NCCL
    struct nccl nccl; /* all NULL until a link is asked for */
#endif
    uint8_t uuid[16];
    char description[256];
    mutable cudaError_t told; /* the last failure that was logged, but for memory */
};

struct kernels_queue {
    struct kernels_device *device;
    cudaStream_t stream;
    int error;       /* the first failure, 0: none; comes back from wait() */
    void *workspace; /* grows to what an operation asks for, then stays */
    size_t workspace_bytes;
};

/* Logs, and returns code. */
int device_fail(const struct kernels_device *device, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 0, or the code of a failure that has been logged; what: the call or kernel. */
int device_check(const struct kernels_device *device, cudaError_t status, const char *what);
/* The device becomes that of the calling thread. */
int device_enter(const struct kernels_device *device);

/* Device memory, 256-byte aligned, not initialised; ERR_MEMORY with what was asked and what is
 * free. Releasing waits for the device, and may be given NULL. */
int device_allocate(struct kernels_device *device, void **d_memory, size_t bytes);
void device_release(struct kernels_device *device, void *d_memory);

/* Keeps the first failure of the queue. */
void queue_fail(struct kernels_queue *queue, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void queue_check(struct kernels_queue *queue, cudaError_t status, const char *what);
/* False if the queue has failed; else its device is the calling thread's. */
bool queue_enter(struct kernels_queue *queue);
/* Lets a kernel have that much dynamic shared memory. */
bool queue_allow_shared(struct kernels_queue *queue, const void *kernel, size_t bytes,
                        const char *what);
/* `bytes` of the queue's own device memory, 256-byte aligned, not initialised, the operation's
 * until it returns (operations of a queue run in order); NULL with the error kept. Growing waits
 * for the device, so it happens in the first step only. */
void *queue_workspace(struct kernels_queue *queue, size_t bytes);

/* One CUDA call of an operation. */
#define CUDA_CHECK(queue, call)                  \
    do {                                         \
        if (queue_enter(queue))                  \
            queue_check((queue), (call), #call); \
    } while (0)

/* LAUNCH(queue, scale_kernel, blocks, threads, 0, d_y, d_x); a template's name in parentheses:
 * LAUNCH(queue, (cast_kernel<float, __nv_bfloat16>), ...). A grid of no blocks is not launched: an
 * operation on nothing is done. */
#define LAUNCH(queue, kernel, grid, block, shared_bytes, ...)                               \
    do {                                                                                    \
        const dim3 launch_grid(grid);                                                       \
        if (launch_grid.x != 0 && launch_grid.y != 0 && launch_grid.z != 0 &&               \
            queue_enter(queue) &&                                                           \
            queue_allow_shared((queue), (const void *)(kernel), (shared_bytes), #kernel)) { \
            LAUNCH_KERNEL(kernel, launch_grid, (block), (shared_bytes), (queue)->stream,    \
                          __VA_ARGS__);                                                     \
            queue_check((queue), cudaGetLastError(), #kernel);                              \
        }                                                                                   \
    } while (0)

#ifdef CCPIPE_EMU
#define LAUNCH_KERNEL(kernel, grid, block, shared_bytes, stream, ...) \
    emu_launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)
#define DYNAMIC_SHARED(type, name) type *name = static_cast<type *>(emu_dynamic_shared())
#else
#define LAUNCH_KERNEL(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)
/* One array for all kernels: the linker sees one name. */
extern __shared__ __align__(16) unsigned char dynamic_shared[];
#define DYNAMIC_SHARED(type, name) type *name = reinterpret_cast<type *>(dynamic_shared)
#endif

/* statement with T = float or __nv_bfloat16. */
#define BY_TYPE(type, T, ...)             \
    do {                                  \
        if ((type) == DTYPE_F32) {        \
            using T = float;              \
            __VA_ARGS__;                  \
        } else {                          \
            assert((type) == DTYPE_BF16); \
            using T = __nv_bfloat16;      \
            __VA_ARGS__;                  \
        }                                 \
    } while (0)

/* The same for what files hold: F16 too. */
#define BY_STORED_TYPE(type, T, ...)       \
    do {                                   \
        if ((type) == DTYPE_F16) {         \
            using T = __half;              \
            __VA_ARGS__;                   \
        } else {                           \
            BY_TYPE(type, T, __VA_ARGS__); \
        }                                  \
    } while (0)

static __device__ __forceinline__ float to_f32(float value)
{
    return value;
}

static __device__ __forceinline__ float to_f32(__nv_bfloat16 value)
{
    return __bfloat162float(value);
}

static __device__ __forceinline__ float to_f32(__half value)
{
    return __half2float(value);
}

/* from_f32<T>(value): rounded to nearest even. */
template <class T> static __device__ __forceinline__ T from_f32(float value);

template <> __device__ __forceinline__ float from_f32<float>(float value)
{
    return value;
}

template <> __device__ __forceinline__ __nv_bfloat16 from_f32<__nv_bfloat16>(float value)
{
    return __float2bfloat16_rn(value);
}

/* This thread's number in a grid of one dimension, and how many there are: with them a kernel
 * strides over n elements. */
static __device__ __forceinline__ size_t grid_thread(void)
{
    return (size_t)blockIdx.x * blockDim.x + threadIdx.x;
}

static __device__ __forceinline__ size_t grid_threads(void)
{
    return (size_t)gridDim.x * blockDim.x;
}

static inline size_t chunk_count(size_t n, size_t chunk)
{
    return (n + chunk - 1) / chunk;
}

/* Blocks for a kernel that strides over n elements: enough to fill the device, not one each. */
static inline unsigned grid_for(const struct kernels_queue *queue, size_t n, unsigned block)
{
    size_t blocks = chunk_count(n, block), most = (size_t)queue->device->processors * 16;
    return (unsigned)(blocks < most ? blocks : most);
}

/* *d_sum = Σ parts in a fixed order, 0 where there are none. */
void sum_parts(struct kernels_queue *queue, double *d_sum, const double *d_parts, size_t count);

/* The table's entries; kernels.h says what they do. */
int cuda_gemm_create(struct kernels_device *device, struct kernels_gemm **gemm,
                     const struct kernels_gemm_shape *shape);
void cuda_gemm_free(struct kernels_gemm *gemm);
size_t cuda_gemm_packed_bytes(const struct kernels_gemm *gemm);
void cuda_gemm_pack(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_packed,
                    const void *d_b);
void cuda_gemm(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
               const void *d_b, const float *d_bias);

void cuda_cast(struct kernels_queue *queue, void *d_to, enum dtype to, const void *d_from,
               enum dtype from, size_t n);

void cuda_embed(struct kernels_queue *queue, float *d_x, const uint32_t *d_ids, const void *d_table,
                enum dtype type, float factor, size_t n, size_t d);
void cuda_rms_norm(struct kernels_queue *queue, void *d_h, const float *d_x, const float *d_w,
                   float eps, size_t n, size_t d);
void cuda_post_norm(struct kernels_queue *queue, float *d_x, float *d_branch, void *d_h,
                    const float *d_y, const float *d_w_post, const float *d_w_next, float eps,
                    size_t n, size_t d);
void cuda_rope(struct kernels_queue *queue, void *d_qkv, const uint32_t *d_positions,
               const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride);
void cuda_attention(struct kernels_queue *queue, void *d_out, const void *d_qkv,
                    const struct kernels_attention *attention, const struct kernels_span *spans,
                    size_t span_count);
void cuda_geglu(struct kernels_queue *queue, void *d_out, const void *d_gate_up, size_t n,
                size_t inner);
void cuda_row_norms(struct kernels_queue *queue, float *d_norms, const float *d_x, size_t n,
                    size_t d);
void cuda_emit_rows(struct kernels_queue *queue, uint8_t *d_rows, const float *d_x,
                    const uint32_t *d_index, float scale, enum dtype type, size_t rows,
                    size_t row_bytes, size_t at, size_t quantum_at, size_t d);

void cuda_load_rows(struct kernels_queue *queue, void *d_x, const uint8_t *d_rows, enum dtype type,
                    const struct kernels_columns *columns, size_t sources, size_t rows,
                    size_t width);
void cuda_column_means(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                       size_t width);
void cuda_recon(struct kernels_queue *queue, void *d_g, struct kernels_recon_sums *d_sums,
                const float *d_xhat, const void *d_x, const float *d_means,
                const struct kernels_columns *columns, size_t sources, float factor, size_t rows,
                size_t width);
void cuda_relu_backward(struct kernels_queue *queue, void *d_dpre, float *d_sums,
                        float *d_latent_sums, uint32_t *d_counts, const void *d_f,
                        const float *d_bias, size_t rows, size_t latents);
void cuda_column_sums(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                      size_t width);
void cuda_decoder_norms(struct kernels_queue *queue, float *d_norms, float *d_weight,
                        const float *d_w_dec, const struct kernels_columns *columns, size_t sources,
                        size_t latents, size_t width);
void cuda_decoder_square(struct kernels_queue *queue, double *d_sum, const float *d_g,
                         const float *d_w_dec, const struct kernels_decoder *decoder);
void cuda_decoder_adam(struct kernels_queue *queue, float *d_w_dec, float *d_m, float *d_v,
                       void *d_copy, const float *d_g, const float *d_clip,
                       const struct kernels_adam *adam, const struct kernels_decoder *decoder);
void cuda_scale(struct kernels_queue *queue, float *d_y, const float *d_x, float alpha, size_t n);
void cuda_dot(struct kernels_queue *queue, double *d_sum, const float *d_a, const float *d_b,
              size_t n);
void cuda_clip_factor(struct kernels_queue *queue, float *d_out, const double *d_parts,
                      size_t parts, float max_norm);
void cuda_adam(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
               const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n);

void cuda_move_rows(struct kernels_queue *queue, uint8_t *d_to, const uint32_t *d_to_index,
                    const uint8_t *d_from, const uint32_t *d_from_index, size_t rows,
                    size_t row_bytes);
void cuda_hash_rows(struct kernels_queue *queue, uint64_t *d_hashes, const uint8_t *d_tags,
                    const uint8_t *d_rows, const uint32_t *d_index, size_t rows, size_t row_bytes);

#endif
