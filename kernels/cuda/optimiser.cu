/* optimiser.cu - the global gradient norm, the clip and Adam.
 *
 * All of it waits for memory. scale moves 8 bytes an element, dot 8 (4 where both sides are one),
 * adam 28 (reads w, m, v, g, writes w, m, v) and 2 or 4 more for the copy of the weights that the
 * products read. Adam's square root and division take a quarter of the time that its bytes do on an
 * H100. The gradient is scaled by the clip as it is read, and the clip is read from device memory:
 * clipping costs neither a pass nor a wait of the host.
 *
 * Threads stride over the elements, neighbours by neighbours, in packs where n allows. Indices are
 * size_t: an encoder of 4608 x 2^20 has more than 2^32 elements. dot adds in f64 over chunks of
 * DOT_CHUNK elements by one block each, then one block adds the chunks: an order that n alone
 * decides.
 */
#include "kernels/cuda/adam.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

enum { THREADS = 256, DOT_CHUNK = 64 * THREADS };

static __global__ void scale_kernel(float *y, const float *x, float alpha, size_t n)
{
    for (size_t i = grid_thread(); i < n; i += grid_threads())
        y[i] = alpha * x[i];
}

void cuda_scale(struct kernels_queue *queue, float *d_y, const float *d_x, float alpha, size_t n)
{
    LAUNCH(queue, scale_kernel, grid_for(queue, n, THREADS), THREADS, 0, d_y, d_x, alpha, n);
}

/* parts[chunk] = Σ of a chunk. */
template <int V>
static __global__ void dot_kernel(double *parts, const float *a, const float *b, size_t n)
{
    size_t first = (size_t)blockIdx.x * DOT_CHUNK, last = first + DOT_CHUNK;
    double sum = 0;
    for (size_t i = first + threadIdx.x * V; i < n && i < last; i += THREADS * V) {
        float left[V], right[V];
        pack_load(left, a + i);
        pack_load(right, b + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            sum += (double)left[j] * (double)right[j];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

/* One block. */
static __global__ void sum_parts_kernel(double *total, const double *parts, size_t count)
{
    double sum = 0;
    for (size_t i = threadIdx.x; i < count; i += THREADS)
        sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        *total = sum;
}

void sum_parts(struct kernels_queue *queue, double *d_sum, const double *d_parts, size_t count)
{
    LAUNCH(queue, sum_parts_kernel, 1, THREADS, 0, d_sum, d_parts, count);
}

void cuda_dot(struct kernels_queue *queue, double *d_sum, const float *d_a, const float *d_b,
              size_t n)
{
    size_t chunks = chunk_count(n, DOT_CHUNK);
    double *d_parts = static_cast<double *>(queue_workspace(queue, chunks * sizeof *d_parts));
    BY_PACK(n, V, LAUNCH(queue, dot_kernel<V>, (unsigned)chunks, THREADS, 0, d_parts, d_a, d_b, n));
    sum_parts(queue, d_sum, d_parts, chunks);
}

/* One thread: there are four parts, and what a launch costs is all that this costs. */
static __global__ void clip_factor_kernel(float *out, const double *parts, size_t count,
                                          float max_norm)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += parts[i];
    float norm = (float)sqrt(sum);
    float factor = max_norm > 0 ? max_norm / (norm + 1e-6f) : 1.0f;
    /* Written so that a NaN stays one. */
    out[0] = factor > 1.0f ? 1.0f : factor;
    out[1] = norm;
}

void cuda_clip_factor(struct kernels_queue *queue, float *d_out, const double *d_parts,
                      size_t parts, float max_norm)
{
    LAUNCH(queue, clip_factor_kernel, 1, 1, 0, d_out, d_parts, parts, max_norm);
}

/* copy may be NULL. */
template <class T, int V>
static __global__ void adam_kernel(float *__restrict__ d_w, float *__restrict__ d_m,
                                   float *__restrict__ d_v, T *__restrict__ d_copy,
                                   const float *__restrict__ d_g, const float *clip,
                                   struct adam_factors by, size_t n)
{
    for (size_t i = grid_thread() * V; i < n; i += grid_threads() * V) {
        float w[V], m[V], v[V], g[V];
        pack_load(w, d_w + i);
        pack_load(m, d_m + i);
        pack_load(v, d_v + i);
        pack_load(g, d_g + i);
#pragma unroll
        for (int j = 0; j < V; j++)
            adam_update(&w[j], &m[j], &v[j], g[j] * *clip, by);
        pack_store(d_w + i, w);
        pack_store(d_m + i, m);
        pack_store(d_v + i, v);
        if (d_copy != NULL)
            pack_store(d_copy + i, w);
    }
}

void cuda_adam(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
               const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n)
{
    struct adam_factors by = adam_factors_of(adam);
    BY_TYPE(queue->device->type, T,
            BY_PACK(n, V,
                    LAUNCH(queue, (adam_kernel<T, V>), grid_for(queue, n / V, THREADS), THREADS, 0,
                           d_w, d_m, d_v, static_cast<T *>(d_copy), d_g, d_clip, by, n)));
}
