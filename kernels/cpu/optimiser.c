/* optimiser.c - the global gradient norm, the clip and Adam.
 *
 * Adam moves 28 bytes a parameter (reads w, m, v, g, writes w, m, v) and 2 more for a bf16 copy of
 * the weights; the gradient is scaled by the clip as it is read, so clipping costs no pass. Square
 * root and divisions stay hidden behind memory.
 */
#include "kernels/cpu/adam.h"
#include "kernels/cpu/cpu.h"

#include <math.h>

enum { DOT_CHUNK = 16384 };

void cpu_scale(struct kernels_queue *queue, float *d_y, const float *d_x, float alpha, size_t n)
{
#pragma omp parallel for simd num_threads(device_threads(queue->device, n))
    for (size_t i = 0; i < n; i++)
        d_y[i] = alpha * d_x[i];
}

void cpu_dot(struct kernels_queue *queue, double *d_sum, const float *d_a, const float *d_b,
             size_t n)
{
    size_t chunks = chunk_count(n, DOT_CHUNK);
    double *parts = queue_workspace(queue, chunks * sizeof *parts);
    if (parts == NULL && chunks > 0)
        return;
#pragma omp parallel for num_threads(device_threads(queue->device, n))
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t end = size_min(n, (chunk + 1) * DOT_CHUNK);
        double sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = chunk * DOT_CHUNK; i < end; i++)
            sum += (double)d_a[i] * (double)d_b[i];
        parts[chunk] = sum;
    }
    double sum = 0;
    for (size_t chunk = 0; chunk < chunks; chunk++)
        sum += parts[chunk];
    *d_sum = sum;
}

void cpu_clip_factor(struct kernels_queue *queue, float *d_out, const double *d_parts, size_t parts,
                     float max_norm)
{
    (void)queue;
    double sum = 0;
    for (size_t i = 0; i < parts; i++)
        sum += d_parts[i];
    float norm = (float)sqrt(sum);
    float factor = max_norm > 0 ? max_norm / (norm + 1e-6f) : 1.0f;
    /* Written so that a NaN stays one. */
    d_out[0] = factor > 1.0f ? 1.0f : factor;
    d_out[1] = norm;
}

void adam_update(float *restrict w, float *restrict m, float *restrict v,
                 const float *restrict gradient, float pull, float clip, struct adam_factors by,
                 size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float g = (gradient[i] + pull * w[i]) * clip;
        m[i] = by.keep1 * m[i] + by.take1 * g;
        v[i] = by.keep2 * v[i] + by.take2 * g * g;
        w[i] -= by.rate * m[i] / (sqrtf(v[i]) * by.root + by.eps);
    }
}

void cpu_adam(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
              const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n)
{
    enum dtype type = queue->device->type;
    const struct adam_factors by = adam_factors_of(adam);
    size_t chunks = chunk_count(n, TILE);
#pragma omp parallel for num_threads(device_threads(queue->device, n))
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = chunk * TILE, count = size_min(TILE, n - at);
        adam_update(d_w + at, d_m + at, d_v + at, d_g + at, 0, *d_clip, by, count);
        adam_copy(d_copy, type, at, d_w + at, count);
    }
}
