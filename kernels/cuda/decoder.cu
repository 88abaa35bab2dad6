/* decoder.cu - the decoder's norms, and Adam of the decoder with the L1 term's pull at them.
 *
 * All of it waits for memory. Bytes for each element of W_dec, which is half of all parameters:
 *
 *   decoder_norms    4   before the first step only
 *   decoder_square   8   g and W_dec
 *   decoder_adam    28   w, m, v and g read, w, m and v written; and the copy that products read
 *
 * The pull takes nothing but a latent's sum, its norm and its row of W_dec, so it is made where the
 * row is in registers anyway: a pass of its own would read W_dec and read and write the gradient
 * (12 bytes), and norms of the next step would read W_dec again (4). The gradient in memory stays
 * what the product wrote. Its square needs W_dec, as the exact norm of the whole gradient has the
 * product of g and W_dec in it, one for each source.
 *
 * A block has a latent. decoder_adam sums the squares of what it writes as decoder_norms sums those
 * of what it reads, by the same threads in the same order: a resumed run, which begins with
 * decoder_norms, has the same norms to the bit.
 */
#include "kernels/cuda/adam.cuh"
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.cuh"
#include "kernels/cuda/reduce.cuh"

/* What a kernel takes of struct kernels_decoder. */
struct decoder {
    float *norms, *weight;
    const float *sums;
    float factor;
    size_t width;
};

static struct decoder decoder_of(const struct kernels_decoder *from)
{
    struct decoder decoder = {from->d_norms, from->d_weight, from->d_sums, from->factor,
                              from->width};
    return decoder;
}

/* A block has a latent; weight may be NULL. */
template <int V>
static __global__ void decoder_norms_kernel(float *norms, float *weight, const float *w_dec,
                                            struct column_list columns, size_t width)
{
    const float *w = w_dec + blockIdx.x * width;
    float all = 0;
    for (size_t s = 0; s < columns.sources; s++) {
        size_t first = columns.at[s].first, end = first + columns.at[s].width;
        double squares = 0;
        for (size_t c = first + threadIdx.x * V; c < end; c += ROW_THREADS * V) {
            float values[V];
            pack_load(values, w + c);
#pragma unroll
            for (int j = 0; j < V; j++)
                squares += (double)values[j] * (double)values[j];
        }
        float norm = (float)sqrt(block_sum(squares));
        if (threadIdx.x == 0)
            norms[blockIdx.x * columns.sources + s] = norm;
        all += norm;
    }
    if (threadIdx.x == 0 && weight != NULL)
        weight[blockIdx.x] = all;
}

void cuda_decoder_norms(struct kernels_queue *queue, float *d_norms, float *d_weight,
                        const float *d_w_dec, const struct kernels_columns *columns, size_t sources,
                        size_t latents, size_t width)
{
    struct column_list list = column_list_of(columns, sources, width);
    BY_PACK(list.common, V,
            LAUNCH(queue, decoder_norms_kernel<V>, (unsigned)latents, ROW_THREADS, 0, d_norms,
                   d_weight, d_w_dec, list, width));
}

/* What W_dec of this block's latent is multiplied with, for a source. */
static __device__ __forceinline__ float pull_of(const struct decoder &decoder, float norm)
{
    return norm > 0 ? decoder.factor * decoder.sums[blockIdx.x] / norm : 0.0f;
}

/* parts (F). */
template <int V>
static __global__ void decoder_square_kernel(double *parts, const float *__restrict__ d_g,
                                             const float *__restrict__ w_dec,
                                             struct decoder decoder, struct column_list columns)
{
    size_t row = blockIdx.x * decoder.width;
    double sum = 0;
    for (size_t s = 0; s < columns.sources; s++) {
        size_t first = columns.at[s].first, end = first + columns.at[s].width;
        float pull = pull_of(decoder, decoder.norms[blockIdx.x * columns.sources + s]);
        for (size_t c = first + threadIdx.x * V; c < end; c += ROW_THREADS * V) {
            float g[V], w[V];
            pack_load(g, d_g + row + c);
            pack_load(w, w_dec + row + c);
#pragma unroll
            for (int j = 0; j < V; j++) {
                float all = g[j] + pull * w[j];
                sum += (double)all * (double)all;
            }
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0)
        parts[blockIdx.x] = sum;
}

void cuda_decoder_square(struct kernels_queue *queue, double *d_sum, const float *d_g,
                         const float *d_w_dec, const struct kernels_decoder *decoder)
{
    struct column_list list = column_list_of(decoder->columns, decoder->sources, decoder->width);
    double *d_parts =
        static_cast<double *>(queue_workspace(queue, decoder->latents * sizeof *d_parts));
    BY_PACK(list.common, V,
            LAUNCH(queue, decoder_square_kernel<V>, (unsigned)decoder->latents, ROW_THREADS, 0,
                   d_parts, d_g, d_w_dec, decoder_of(decoder), list));
    sum_parts(queue, d_sum, d_parts, decoder->latents);
}

/* copy may be NULL. A source's norm is read by all before block_sum, and written after it. */
template <class T, int V>
static __global__ void
decoder_adam_kernel(float *__restrict__ d_w, float *__restrict__ d_m, float *__restrict__ d_v,
                    T *__restrict__ d_copy, const float *__restrict__ d_g, const float *clip,
                    struct adam_factors by, struct decoder decoder, struct column_list columns)
{
    size_t row = blockIdx.x * decoder.width;
    float *norms = decoder.norms + blockIdx.x * columns.sources, weight = 0;
    for (size_t s = 0; s < columns.sources; s++) {
        size_t first = columns.at[s].first, end = first + columns.at[s].width;
        float pull = pull_of(decoder, norms[s]);
        double squares = 0;
        for (size_t c = first + threadIdx.x * V; c < end; c += ROW_THREADS * V) {
            float w[V], m[V], v[V], g[V];
            pack_load(w, d_w + row + c);
            pack_load(m, d_m + row + c);
            pack_load(v, d_v + row + c);
            pack_load(g, d_g + row + c);
#pragma unroll
            for (int j = 0; j < V; j++) {
                adam_update(&w[j], &m[j], &v[j], (g[j] + pull * w[j]) * *clip, by);
                squares += (double)w[j] * (double)w[j];
            }
            pack_store(d_w + row + c, w);
            pack_store(d_m + row + c, m);
            pack_store(d_v + row + c, v);
            if (d_copy != NULL)
                pack_store(d_copy + row + c, w);
        }
        float norm = (float)sqrt(block_sum(squares));
        if (threadIdx.x == 0)
            norms[s] = norm;
        weight += norm;
    }
    if (threadIdx.x == 0 && decoder.weight != NULL)
        decoder.weight[blockIdx.x] = weight;
}

void cuda_decoder_adam(struct kernels_queue *queue, float *d_w_dec, float *d_m, float *d_v,
                       void *d_copy, const float *d_g, const float *d_clip,
                       const struct kernels_adam *adam, const struct kernels_decoder *decoder)
{
    struct column_list list = column_list_of(decoder->columns, decoder->sources, decoder->width);
    struct adam_factors by = adam_factors_of(adam);
    BY_TYPE(queue->device->type, T,
            BY_PACK(list.common, V,
                    LAUNCH(queue, (decoder_adam_kernel<T, V>), (unsigned)decoder->latents,
                           ROW_THREADS, 0, d_w_dec, d_m, d_v, static_cast<T *>(d_copy), d_g, d_clip,
                           by, decoder_of(decoder), list)));
}
