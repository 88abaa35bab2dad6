/* optimiser.c - the global gradient norm, the clip and Adam.
 *
 * Adam moves 28 bytes a parameter (reads w, m, v, g, writes w, m, v) and 2 more for a bf16 copy of
 * the weights; the gradient is scaled by the clip as it is read, so clipping costs no pass. Square
 * root and divisions stay hidden behind memory.
 */
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

void cpu_adam(struct kernels_queue *queue, float *d_w, float *d_m, float *d_v, void *d_copy,
              const float *d_g, const float *d_clip, const struct kernels_adam *adam, size_t n)
{
    enum dtype type = queue->device->type;
    const float clip = *d_clip, rate = (float)(adam->lr / adam->correction1);
    const float root = (float)(1.0 / sqrt(adam->correction2)), eps = (float)adam->eps;
    const float keep1 = (float)adam->beta1, take1 = (float)(1.0 - adam->beta1);
    const float keep2 = (float)adam->beta2, take2 = (float)(1.0 - adam->beta2);
    size_t chunks = chunk_count(n, TILE);
#pragma omp parallel for num_threads(device_threads(queue->device, n))
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        size_t at = chunk * TILE, count = size_min(TILE, n - at);
        float *w = d_w + at, *m = d_m + at, *v = d_v + at;
        const float *gradient = d_g + at;
#pragma omp simd
        for (size_t i = 0; i < count; i++) {
            float g = gradient[i] * clip;
            m[i] = keep1 * m[i] + take1 * g;
            v[i] = keep2 * v[i] + take2 * g * g;
            w[i] -= rate * m[i] / (sqrtf(v[i]) * root + eps);
        }
        if (d_copy != NULL && type == DTYPE_F32)
            memcpy(element(d_copy, type, at), w, count * sizeof *w);
        else if (d_copy != NULL)
            tile_done(w, d_copy, type, at, count);
    }
}
