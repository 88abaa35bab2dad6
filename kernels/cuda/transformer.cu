/* transformer.cu - the forward pass but for products and attention.
 *
 * All of it waits for memory; a block has a row, and each byte comes from and goes to device memory
 * once. What a row must move, t bytes an element of T:
 *
 *   embed      d (table's t + 4)         rms_norm   d (4 + t)
 *   post_norm  d (12 + t), branch 4 d    geglu      3 I t
 *   rope       2 t heads head_dim        row_norms  4 d
 *   emit_rows  d (4 + wire)
 *
 * post_norm is all that happens between two products: norm of what the first left, sum with the
 * residual stream, norm for the second. Where a row is read twice, for its sum of squares and for
 * its values, the second time it comes from the L1 cache (9 KB at width 2304); what a thread reads
 * again is what it wrote or read itself, so there is no barrier but those of the sums.
 *
 * Sums of squares are f64 over f32 values: exact to f32 rounding whatever the width, and at no cost
 * where the chip has f64 units (A100, H100). Arithmetic counts in geglu alone, some ten operations
 * for six bytes, so its constants are folded for exp2 and it divides by the fast instruction.
 *
 * THREADS is a divisor of common widths in packs: 2304 and 9216 leave no thread idle.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

#include <float.h>

enum { THREADS = 192 };

/* ---- norms */

template <int V> static __device__ double square_sum(const float *x, size_t d)
{
    double sum = 0;
    for (size_t i = threadIdx.x * V; i < d; i += THREADS * V) {
        float values[V];
        pack_load(values, x + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += (double)values[j] * (double)values[j];
    }
    return block_sum(sum);
}

template <int V> static __device__ float rms_factor(const float *x, float eps, size_t d)
{
    return (float)(1.0 / sqrt(square_sum<V>(x, d) / (double)d + (double)eps));
}

/* h = x * factor * (1 + w); x may have been written by this thread. */
template <class T, int V>
static __device__ void write_normed(T *h, const float *x, const float *w, float factor, size_t d)
{
    for (size_t i = threadIdx.x * V; i < d; i += THREADS * V) {
        float values[V], weights[V];
        pack_load(values, x + i);
        pack_load(weights, w + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            values[j] = values[j] * factor * (1.0f + weights[j]);
        pack_store(h + i, values);
    }
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    rms_norm_kernel(T *__restrict__ d_h, const float *__restrict__ d_x,
                    const float *__restrict__ d_w, float eps, size_t d)
{
    const float *x = d_x + blockIdx.x * d;
    write_normed<T, V>(d_h + blockIdx.x * d, x, d_w, rms_factor<V>(x, eps, d), d);
}

void cuda_rms_norm(struct kernels_queue *queue, void *d_h, const float *d_x, const float *d_w,
                   float eps, size_t n, size_t d)
{
    BY_TYPE(queue->device->type, T,
            BY_PACK(d, V,
                    LAUNCH(queue, (rms_norm_kernel<T, V>), (unsigned)n, THREADS, 0,
                           static_cast<T *>(d_h), d_x, d_w, eps, d)));
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    post_norm_kernel(float *d_x, float *__restrict__ d_branch, T *__restrict__ d_h,
                     const float *__restrict__ d_y, const float *__restrict__ d_w_post,
                     const float *__restrict__ d_w_next, float eps, size_t d)
{
    const size_t row = blockIdx.x * d;
    const float factor = rms_factor<V>(d_y + row, eps, d);
    for (size_t i = threadIdx.x * V; i < d; i += THREADS * V) {
        float x[V], branch[V], weights[V];
        pack_load(x, d_x + row + i);
        pack_load(branch, d_y + row + i);
        pack_load(weights, d_w_post + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            branch[j] = branch[j] * factor * (1.0f + weights[j]);
            x[j] += branch[j];
        }
        if (d_branch != nullptr)
            pack_store(d_branch + row + i, branch);
        pack_store(d_x + row + i, x);
    }
    if (d_h != nullptr)
        write_normed<T, V>(d_h + row, d_x + row, d_w_next, rms_factor<V>(d_x + row, eps, d), d);
}

void cuda_post_norm(struct kernels_queue *queue, float *d_x, float *d_branch, void *d_h,
                    const float *d_y, const float *d_w_post, const float *d_w_next, float eps,
                    size_t n, size_t d)
{
    BY_TYPE(queue->device->type, T,
            BY_PACK(d, V,
                    LAUNCH(queue, (post_norm_kernel<T, V>), (unsigned)n, THREADS, 0, d_x, d_branch,
                           static_cast<T *>(d_h), d_y, d_w_post, d_w_next, eps, d)));
}

/* A finite row has a finite norm, even where f32 ends. */
template <int V>
static __global__ void __launch_bounds__(THREADS)
    row_norms_kernel(float *d_norms, const float *__restrict__ d_x, size_t d)
{
    double norm = sqrt(square_sum<V>(d_x + blockIdx.x * d, d));
    if (threadIdx.x == 0)
        d_norms[blockIdx.x] = isfinite(norm) ? (float)fmin(norm, (double)FLT_MAX) : (float)norm;
}

void cuda_row_norms(struct kernels_queue *queue, float *d_norms, const float *d_x, size_t n,
                    size_t d)
{
    BY_PACK(d, V, LAUNCH(queue, row_norms_kernel<V>, (unsigned)n, THREADS, 0, d_norms, d_x, d));
}

/* ---- elements of a row */

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    embed_kernel(float *__restrict__ d_x, const uint32_t *__restrict__ d_ids,
                 const T *__restrict__ d_table, float factor, size_t d)
{
    const T *from = d_table + d_ids[blockIdx.x] * d;
    for (size_t i = threadIdx.x * V; i < d; i += THREADS * V) {
        float values[V];
        pack_load(values, from + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            values[j] *= factor;
        pack_store(d_x + blockIdx.x * d + i, values);
    }
}

void cuda_embed(struct kernels_queue *queue, float *d_x, const uint32_t *d_ids, const void *d_table,
                enum dtype type, float factor, size_t n, size_t d)
{
    BY_STORED_TYPE(type, T,
                   BY_PACK(d, V,
                           LAUNCH(queue, (embed_kernel<T, V>), (unsigned)n, THREADS, 0, d_x, d_ids,
                                  static_cast<const T *>(d_table), factor, d)));
}

/* (a, b) at (i, i + half_dim) of each head turned by the angle of the row's position. */
template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    rope_kernel(T *__restrict__ d_qkv, const uint32_t *__restrict__ d_positions,
                const float *__restrict__ d_angles, size_t heads, size_t half_dim, size_t stride)
{
    const float *angles = d_angles + d_positions[blockIdx.x] * 2 * half_dim;
    for (size_t pair = threadIdx.x * V; pair < heads * half_dim; pair += THREADS * V) {
        size_t head = pair / half_dim, i = pair % half_dim;
        T *to = d_qkv + blockIdx.x * stride + head * 2 * half_dim + i;
        float a[V], b[V], cosine[V], sine[V];
        pack_load(a, to);
        pack_load(b, to + half_dim);
        pack_load(cosine, angles + i);
        pack_load(sine, angles + half_dim + i);
#pragma unroll
        for (int j = 0; j < V; j++) {
            float turned = a[j] * cosine[j] - b[j] * sine[j];
            b[j] = b[j] * cosine[j] + a[j] * sine[j];
            a[j] = turned;
        }
        pack_store(to, a);
        pack_store(to + half_dim, b);
    }
}

void cuda_rope(struct kernels_queue *queue, void *d_qkv, const uint32_t *d_positions,
               const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride)
{
    assert(head_dim % 2 == 0 && heads * head_dim <= stride);
    size_t half_dim = head_dim / 2;
    /* Packs must lie in one half of one head of any row: `stride` and `half_dim` must both allow
     * it. */
    BY_TYPE(
        queue->device->type, T,
        BY_PACK(half_dim | stride, V,
                LAUNCH(queue, (rope_kernel<T, V>), (unsigned)n, THREADS, 0, static_cast<T *>(d_qkv),
                       d_positions, d_angles, heads, half_dim, stride)));
}

/* gelu_tanh(x) = x / (1 + exp(-2 s)), s = sqrt(2 / pi) (x + 0.044715 x^3), which does not cancel
 * where s is far below 0; exp(-2 s) = exp2(x (LINEAR + CUBIC x^2)). */
static __device__ __forceinline__ float gelu(float x)
{
    constexpr float LINEAR = -2.3022081985f, CUBIC = -0.1029432397f;
    return __fdividef(x, 1.0f + exp2f(x * (LINEAR + CUBIC * (x * x))));
}

template <class T, int V>
static __global__ void __launch_bounds__(THREADS)
    geglu_kernel(T *__restrict__ d_out, const T *__restrict__ d_gate_up, size_t inner)
{
    const T *from = d_gate_up + blockIdx.x * 2 * inner;
    for (size_t i = threadIdx.x * V; i < inner; i += THREADS * V) {
        float gate[V], up[V];
        pack_load(gate, from + i);
        pack_load(up, from + inner + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            gate[j] = gelu(gate[j]) * up[j];
        pack_store(d_out + blockIdx.x * inner + i, gate);
    }
}

void cuda_geglu(struct kernels_queue *queue, void *d_out, const void *d_gate_up, size_t n,
                size_t inner)
{
    BY_TYPE(queue->device->type, T,
            BY_PACK(inner, V,
                    LAUNCH(queue, (geglu_kernel<T, V>), (unsigned)n, THREADS, 0,
                           static_cast<T *>(d_out), static_cast<const T *>(d_gate_up), inner)));
}

/* ---- rows for the wire */

/* scale * x as T at any address: by packs where both sides lie on such a boundary, which a stream
 * of common widths does, else byte by byte. */
template <class T>
static __device__ void write_scaled(uint8_t *to, const float *x, float scale, size_t d)
{
    bool packed = d % PACK == 0 && reinterpret_cast<uintptr_t>(to) % (PACK * sizeof(T)) == 0;
    for (size_t i = threadIdx.x * PACK; packed && i < d; i += THREADS * PACK) {
        float values[PACK];
        pack_load(values, x + i);
#pragma unroll
        for (int j = 0; j < PACK; j++)
            values[j] *= scale;
        pack_store(reinterpret_cast<T *>(to) + i, values);
    }
    for (size_t i = threadIdx.x; !packed && i < d; i += THREADS) {
        T value = from_f32<T>(scale * x[i]);
        memcpy(to + i * sizeof value, &value, sizeof value);
    }
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    emit_rows_kernel(uint8_t *__restrict__ d_rows, const float *__restrict__ d_x,
                     const uint32_t *__restrict__ d_index, float scale, size_t row_bytes, size_t at,
                     size_t d)
{
    write_scaled<T>(d_rows + blockIdx.x * row_bytes + at, d_x + d_index[blockIdx.x] * d, scale, d);
}

/* A quotient may round to just above 127, and that of values that are not finite is no number that
 * an integer could hold. */
static __global__ void __launch_bounds__(THREADS)
    emit_int8_kernel(uint8_t *__restrict__ d_rows, const float *__restrict__ d_x,
                     const uint32_t *__restrict__ d_index, float scale, size_t row_bytes, size_t at,
                     size_t quantum_at, size_t d)
{
    uint8_t *row = d_rows + blockIdx.x * row_bytes;
    const float *x = d_x + d_index[blockIdx.x] * d;
    float largest = 0;
    for (size_t i = threadIdx.x; i < d; i += THREADS)
        largest = fmaxf(largest, fabsf(x[i]));
    const float quantum = block_max(largest) * fabsf(scale) / 127.0f;
    if (threadIdx.x == 0)
        memcpy(row + quantum_at, &quantum, sizeof quantum);
    for (size_t i = threadIdx.x; i < d; i += THREADS) {
        float steps = quantum > 0 ? scale * x[i] / quantum : 0.0f;
        steps = steps > -127.0f ? steps : -127.0f;
        steps = steps < 127.0f ? steps : 127.0f;
        row[at + i] = (uint8_t)(int8_t)rintf(steps);
    }
}

void cuda_emit_rows(struct kernels_queue *queue, uint8_t *d_rows, const float *d_x,
                    const uint32_t *d_index, float scale, enum dtype type, size_t rows,
                    size_t row_bytes, size_t at, size_t quantum_at, size_t d)
{
    if (type == DTYPE_I8)
        LAUNCH(queue, emit_int8_kernel, (unsigned)rows, THREADS, 0, d_rows, d_x, d_index, scale,
               row_bytes, at, quantum_at, d);
    else
        BY_TYPE(type, T,
                LAUNCH(queue, emit_rows_kernel<T>, (unsigned)rows, THREADS, 0, d_rows, d_x, d_index,
                       scale, row_bytes, at, d));
}
