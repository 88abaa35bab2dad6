/* decoder.c - the decoder's norms, and Adam of the decoder with the L1 term's pull at them.
 *
 * The pull is made of a latent's row of W_dec as the row is read anyway, and the norms of the next
 * step while the row is in the cache, so that the L1 term costs memory no pass of its own: the
 * square of the gradient reads 8 bytes an element, Adam moves 28 and the copy for the products.
 *
 * Threads have whole latents; a latent's sums are in index order, and latents are added in theirs.
 */
#include "kernels/cpu/adam.h"
#include "kernels/cpu/cpu.h"

#include <math.h>

/* Not in line: the same code, and so the same order, whoever calls. */
__attribute__((noinline)) static float norm_of(const float *w, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)w[i] * (double)w[i];
    return (float)sqrt(sum);
}

void cpu_decoder_norms(struct kernels_queue *queue, float *d_norms, float *d_weight,
                       const float *d_w_dec, const struct kernels_columns *columns, size_t sources,
                       size_t latents, size_t width)
{
#pragma omp parallel for num_threads(device_threads(queue->device, latents *width))
    for (size_t j = 0; j < latents; j++) {
        float weight = 0;
        for (size_t s = 0; s < sources; s++) {
            float norm = norm_of(d_w_dec + j * width + columns[s].first, columns[s].width);
            d_norms[j * sources + s] = norm;
            weight += norm;
        }
        if (d_weight != NULL)
            d_weight[j] = weight;
    }
}

/* What W_dec[j, source s] is multiplied with. */
static float pull_of(const struct kernels_decoder *decoder, size_t j, size_t s)
{
    float norm = decoder->d_norms[j * decoder->sources + s];
    return norm > 0 ? decoder->factor * decoder->d_sums[j] / norm : 0.0f;
}

static double square_of(const float *g, const float *w, float pull, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        float all = g[i] + pull * w[i];
        sum += (double)all * (double)all;
    }
    return sum;
}

void cpu_decoder_square(struct kernels_queue *queue, double *d_sum, const float *d_g,
                        const float *d_w_dec, const struct kernels_decoder *decoder)
{
    size_t latents = decoder->latents, width = decoder->width;
    double *parts = queue_workspace(queue, latents * sizeof *parts), sum = 0;
    if (parts == NULL && latents > 0)
        return;
#pragma omp parallel for num_threads(device_threads(queue->device, latents *width))
    for (size_t j = 0; j < latents; j++) {
        parts[j] = 0;
        for (size_t s = 0; s < decoder->sources; s++) {
            size_t at = j * width + decoder->columns[s].first;
            parts[j] += square_of(d_g + at, d_w_dec + at, pull_of(decoder, j, s),
                                  decoder->columns[s].width);
        }
    }
    for (size_t j = 0; j < latents; j++)
        sum += parts[j];
    *d_sum = sum;
}

void cpu_decoder_adam(struct kernels_queue *queue, float *d_w_dec, float *d_m, float *d_v,
                      void *d_copy, const float *d_g, const float *d_clip,
                      const struct kernels_adam *adam, const struct kernels_decoder *decoder)
{
    enum dtype type = queue->device->type;
    const struct adam_factors by = adam_factors_of(adam);
    size_t latents = decoder->latents, width = decoder->width, sources = decoder->sources;
#pragma omp parallel for num_threads(device_threads(queue->device, latents *width))
    for (size_t j = 0; j < latents; j++) {
        float weight = 0;
        for (size_t s = 0; s < sources; s++) {
            const struct kernels_columns *columns = &decoder->columns[s];
            float pull = pull_of(decoder, j, s);
            for (size_t from = 0; from < columns->width; from += TILE) {
                size_t at = j * width + columns->first + from;
                size_t count = size_min(TILE, columns->width - from);
                adam_update(d_w_dec + at, d_m + at, d_v + at, d_g + at, pull, *d_clip, by, count);
                adam_copy(d_copy, type, at, d_w_dec + at, count);
            }
            float norm = norm_of(d_w_dec + j * width + columns->first, columns->width);
            decoder->d_norms[j * sources + s] = norm;
            weight += norm;
        }
        if (decoder->d_weight != NULL)
            decoder->d_weight[j] = weight;
    }
}
