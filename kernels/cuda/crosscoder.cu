/* crosscoder.cu - what a training step does beside the products and Adam.
 *
 * All of it waits for memory. What each operation must move, t bytes an element of T:
 *
 *   load_rows          B D (wire + t)
 *   relu_backward      3 B F t           (f and dpre read, dpre written)
 *   recon              B D (4 + 2 t)     (x̂ in f32, x; g written)
 *   column_sums, column_means   B D t
 *
 * Sums down the columns: a block has ROW_CHUNK rows of 32 packs, a warp reads the packs of one row,
 * and the warps have rows WARPS apart; a second kernel adds the chunks. With 4096 rows there are 16
 * chunks, which fills the device even at 4608 columns, and the parts are a thirtieth of what is
 * read in bf16. Sums along a row: one block has the row. Either way the order depends on the shape
 * alone, and there are no atomics.
 *
 * Rows of int8 begin at any address and
 * are a small part of a step: their bytes are read one by one. f64 sums are cheap where the chip
 * has f64 units (A100, H100); on others they would take longer than memory does.
 */
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    ROW_CHUNK = 256, /* rows whose sums are one part */
    GROUP = 4,       /* rows that a thread reads at a time */
};

/* ---- rows off the wire */

/* A block has a row: S quanta, then D bytes, at any address. */
template <class T>
static __global__ void load_rows_kernel(T *x, const uint8_t *rows, struct column_list columns,
                                        size_t width)
{
    const uint8_t *row = rows + blockIdx.x * (4 * columns.sources + width);
    const int8_t *values = reinterpret_cast<const int8_t *>(row) + 4 * columns.sources;
    for (size_t s = 0; s < columns.sources; s++) {
        float quantum;
        memcpy(&quantum, row + 4 * s, sizeof quantum);
        size_t first = columns.at[s].first, end = first + columns.at[s].width;
        for (size_t c = first + threadIdx.x; c < end; c += ROW_THREADS)
            x[blockIdx.x * width + c] = from_f32<T>(quantum * (float)values[c]);
    }
}

void cuda_load_rows(struct kernels_queue *queue, void *d_x, const uint8_t *d_rows, enum dtype type,
                    const struct kernels_columns *columns, size_t sources, size_t rows,
                    size_t width)
{
    enum dtype to = queue->device->type;
    if (type != DTYPE_I8) {
        cuda_cast(queue, d_x, to, d_rows, type, rows * width);
        return;
    }
    struct column_list list = column_list_of(columns, sources, width);
    BY_TYPE(to, T,
            LAUNCH(queue, load_rows_kernel<T>, (unsigned)rows, ROW_THREADS, 0,
                   static_cast<T *>(d_x), d_rows, list, width));
}

/* ---- sums down the columns */

/* Of one column and one chunk of rows: the sums of N things. */
template <int N> struct column_part {
    double sum[N];
};

/* Adds what the warps have of the same columns, warp by warp; to: where the first of this thread's
 * goes, if it has any. */
template <int V, int N>
static __device__ __forceinline__ void add_warps(struct column_part<N> *to,
                                                 struct column_part<N> (&part)[V], bool any)
{
    __shared__ struct column_part<N> of_warp[WARPS][V][WARP];
    unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (int j = 0; j < V; j++)
        of_warp[warp][j][lane] = part[j];
    __syncthreads();
    for (int j = 0; j < V && warp == 0 && any; j++) {
        for (unsigned i = 1; i < WARPS; i++)
            for (int k = 0; k < N; k++)
                part[j].sum[k] += of_warp[i][j][lane].sum[k];
        to[j] = part[j];
    }
}

/* Sums down the block's columns over its chunk of rows; parts (chunks, columns). load(values,
 * index) gives the N things of V neighbours of a row, store(index, values) gets the first of them
 * back. The loads of GROUP rows are under way together. */
template <int V, int N, class Load, class Store>
static __device__ __forceinline__ void sum_chunk(struct column_part<N> *parts, size_t rows,
                                                 size_t columns, Load load, Store store)
{
    size_t column = ((size_t)blockIdx.x * WARP + threadIdx.x % WARP) * V;
    size_t first = (size_t)blockIdx.y * ROW_CHUNK;
    size_t end = rows - first < ROW_CHUNK ? rows : first + ROW_CHUNK;
    struct column_part<N> part[V] = {
    };
    for (size_t row = first + threadIdx.x / WARP; row < end && column < columns;
         row += WARPS * GROUP) {
        float values[GROUP][N][V];
#pragma unroll
        for (size_t i = 0; i < GROUP; i++)
            if (row + i * WARPS < end)
                load(values[i], (row + i * WARPS) * columns + column);
#pragma unroll
        for (size_t i = 0; i < GROUP; i++) {
            if (row + i * WARPS >= end)
                continue;
            store((row + i * WARPS) * columns + column, values[i][0]);
#pragma unroll
            for (int j = 0; j < V; j++)
#pragma unroll
                for (int k = 0; k < N; k++)
                    part[j].sum[k] += (double)values[i][k][j];
        }
    }
    add_warps(parts + blockIdx.y * columns + column, part, column < columns);
}

template <class T, int V>
static __global__ void column_parts_kernel(struct column_part<1> *parts, const T *__restrict__ x,
                                           size_t rows, size_t columns)
{
    sum_chunk<V>(
        parts, rows, columns,
        [=](float(&values)[1][V], size_t at) { pack_load(values[0], x + at); },
        [](size_t, const float(&)[V]) {});
}

/* dpre, f, and whether f is above 0. */
enum { RELU_SUMS = 3 };

template <class T, int V>
static __global__ void relu_backward_kernel(struct column_part<RELU_SUMS> *parts, T *dpre,
                                            const T *f, const float *bias, size_t rows,
                                            size_t columns)
{
    float added[V] = {};
    size_t column = ((size_t)blockIdx.x * WARP + threadIdx.x % WARP) * V;
    if (column < columns)
        pack_load(added, bias + column);
    sum_chunk<V>(
        parts, rows, columns,
        [=](float(&values)[RELU_SUMS][V], size_t at) {
            pack_load(values[0], dpre + at);
            pack_load(values[1], f + at);
#pragma unroll
            for (int j = 0; j < V; j++) {
                bool on = values[1][j] > 0;
                values[0][j] = on ? to_f32(from_f32<T>(values[0][j] + added[j])) : 0.0f;
                values[2][j] = on ? 1.0f : 0.0f;
            }
        },
        [=](size_t at, const float(&values)[V]) { pack_store(dpre + at, values); });
}

template <int N>
static __device__ __forceinline__ struct column_part<N>
add_chunks(const struct column_part<N> *parts, size_t chunks, size_t columns, size_t column) {
    struct column_part<N> total = {
    };
    for (size_t chunk = 0; chunk < chunks; chunk++)
        for (int k = 0; k < N; k++)
            total.sum[k] += parts[chunk * columns + column].sum[k];
    return total;
}

/* sums = Σ parts / divisor, a thread per column. */
static __global__ void
column_totals_kernel(float *sums, const struct column_part<1> *parts, double divisor, size_t chunks,
                     size_t columns)
{
    size_t column = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (column < columns)
        sums[column] = (float)(add_chunks(parts, chunks, columns, column).sum[0] / divisor);
}

static __global__ void relu_totals_kernel(float *sums, float *latent_sums, uint32_t *counts,
                                          const struct column_part<RELU_SUMS> *parts, size_t chunks,
                                          size_t columns)
{
    size_t column = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (column >= columns)
        return;
    struct column_part<RELU_SUMS> total = add_chunks(parts, chunks, columns, column);
    sums[column] = (float)total.sum[0];
    latent_sums[column] = (float)total.sum[1];
    counts[column] = (uint32_t)total.sum[2];
}

template <int N>
static struct column_part<N> *take_parts(struct kernels_queue *queue, size_t rows, size_t columns) {
    size_t count = chunk_count(rows, ROW_CHUNK) * columns;
    return static_cast<struct column_part<N> *>(
        queue_workspace(queue, count * sizeof(struct column_part<N>)));
}

static dim3
parts_grid(size_t rows, size_t columns, size_t pack)
{
    size_t chunks = chunk_count(rows, ROW_CHUNK);
    assert(chunks <= GRID_Y_MOST);
    return dim3((unsigned)chunk_count(columns, WARP * pack), (unsigned)chunks);
}

static void sum_columns(struct kernels_queue *queue, float *d_sums, const void *d_x, double divisor,
                        size_t rows, size_t columns)
{
    struct column_part<1> *d_parts = take_parts<1>(queue, rows, columns);
    BY_TYPE(queue->device->type, T,
            BY_PACK(columns, V,
                    LAUNCH(queue, (column_parts_kernel<T, V>), parts_grid(rows, columns, V),
                           THREADS, 0, d_parts, static_cast<const T *>(d_x), rows, columns)));
    LAUNCH(queue, column_totals_kernel, (unsigned)chunk_count(columns, THREADS), THREADS, 0, d_sums,
           d_parts, divisor, chunk_count(rows, ROW_CHUNK), columns);
}

void cuda_column_sums(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                      size_t width)
{
    sum_columns(queue, d_sums, d_g, 1, rows, width);
}

void cuda_column_means(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                       size_t width)
{
    sum_columns(queue, d_means, d_x, (double)rows, rows, width);
}

void cuda_relu_backward(struct kernels_queue *queue, void *d_dpre, float *d_sums,
                        float *d_latent_sums, uint32_t *d_counts, const void *d_f,
                        const float *d_bias, size_t rows, size_t latents)
{
    struct column_part<RELU_SUMS> *d_parts = take_parts<RELU_SUMS>(queue, rows, latents);
    BY_TYPE(queue->device->type, T,
            BY_PACK(latents, V,
                    LAUNCH(queue, (relu_backward_kernel<T, V>), parts_grid(rows, latents, V),
                           THREADS, 0, d_parts, static_cast<T *>(d_dpre),
                           static_cast<const T *>(d_f), d_bias, rows, latents)));
    LAUNCH(queue, relu_totals_kernel, (unsigned)chunk_count(latents, THREADS), THREADS, 0, d_sums,
           d_latent_sums, d_counts, d_parts, chunk_count(rows, ROW_CHUNK), latents);
}

/* ---- the reconstruction */

static __device__ __forceinline__ struct kernels_recon_sums recon_sums_of(double error,
                                                                          double variance)
{
    struct kernels_recon_sums sums = {error, variance, variance > 0 ? 1 - error / variance : 0};
    return sums;
}

/* A block has a row; row_sums (B, S + 1), g may be NULL. */
template <class T, int V>
static __global__ void recon_kernel(T *__restrict__ g, struct kernels_recon_sums *row_sums,
                                    const float *__restrict__ xhat, const T *__restrict__ x,
                                    const float *__restrict__ means, struct column_list columns,
                                    float factor, size_t width)
{
    size_t row = blockIdx.x * width;
    struct kernels_recon_sums *sums = row_sums + blockIdx.x * (columns.sources + 1);
    double error_all = 0, variance_all = 0;
    for (size_t s = 0; s < columns.sources; s++) {
        size_t first = columns.at[s].first, end = first + columns.at[s].width;
        double error = 0, variance = 0;
        for (size_t c = first + threadIdx.x * V; c < end; c += ROW_THREADS * V) {
            float values[V], e[V], mean[V];
            pack_load(values, x + row + c);
            pack_load(e, xhat + row + c);
            pack_load(mean, means + c);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float spread = values[j] - mean[j];
                e[j] -= values[j];
                error += (double)e[j] * (double)e[j];
                variance += (double)spread * (double)spread;
                e[j] *= factor;
            }
            if (g != NULL)
                pack_store(g + row + c, e);
        }
        error = block_sum(error);
        variance = block_sum(variance);
        if (threadIdx.x == 0)
            sums[s] = recon_sums_of(error, variance);
        error_all += error;
        variance_all += variance;
    }
    if (threadIdx.x == 0)
        sums[columns.sources] = recon_sums_of(error_all, variance_all);
}

/* Adds the rows, a block for each of the S + 1 sums. */
static __global__ void recon_totals_kernel(struct kernels_recon_sums *sums,
                                           const struct kernels_recon_sums *row_sums, size_t rows)
{
    struct kernels_recon_sums total = {0, 0, 0};
    for (size_t row = threadIdx.x; row < rows; row += THREADS) {
        const struct kernels_recon_sums *add = &row_sums[row * gridDim.x + blockIdx.x];
        total.error += add->error;
        total.variance += add->variance;
        total.explained += add->explained;
    }
    total.error = block_sum(total.error);
    total.variance = block_sum(total.variance);
    total.explained = block_sum(total.explained);
    if (threadIdx.x == 0)
        sums[blockIdx.x] = total;
}

void cuda_recon(struct kernels_queue *queue, void *d_g, struct kernels_recon_sums *d_sums,
                const float *d_xhat, const void *d_x, const float *d_means,
                const struct kernels_columns *columns, size_t sources, float factor, size_t rows,
                size_t width)
{
    struct column_list list = column_list_of(columns, sources, width);
    size_t count = rows * (sources + 1);
    struct kernels_recon_sums *d_rows =
        static_cast<struct kernels_recon_sums *>(queue_workspace(queue, count * sizeof *d_rows));
    BY_TYPE(queue->device->type, T,
            BY_PACK(list.common, V,
                    LAUNCH(queue, (recon_kernel<T, V>), (unsigned)rows, ROW_THREADS, 0,
                           static_cast<T *>(d_g), d_rows, d_xhat, static_cast<const T *>(d_x),
                           d_means, list, factor, width)));
    LAUNCH(queue, recon_totals_kernel, (unsigned)(sources + 1), THREADS, 0, d_sums, d_rows, rows);
}
