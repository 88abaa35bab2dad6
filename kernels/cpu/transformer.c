/* transformer.c - the forward pass but for products and attention: one pass over memory each.
 *
 * A row is handled by one thread. Sums of squares are f64 over f32 values: at no cost, as these
 * loops wait for memory, and exact to f32 rounding, whatever the width.
 *
 * Bytes a row (T of 2 or 4 bytes t): rms_norm d (4 + t); post_norm d (4 + 8 + t, branch 4 more),
 * which is the whole of post-norm, residual sum and next pre-norm; geglu 3 I t; rope 2 t heads
 * head_dim.
 */
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/vmath.h"

#include <float.h>
#include <math.h>

static double sum_squares(const float *x, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static float rms_factor(const float *x, size_t d, float eps)
{
    return (float)(1.0 / sqrt(sum_squares(x, d) / (double)d + (double)eps));
}

void cpu_embed(struct kernels_queue *queue, float *d_x, const uint32_t *d_ids, const void *d_table,
               enum dtype type, float factor, size_t n, size_t d)
{
#pragma omp parallel for num_threads(device_threads(queue->device, n *d))
    for (size_t row = 0; row < n; row++) {
        float *x = d_x + row * d;
        tile_from_stored(x, element_const(d_table, type, d_ids[row] * d), type, d);
        for (size_t i = 0; i < d; i++)
            x[i] *= factor;
    }
}

/* h[row] = x * factor * (1 + w). */
static void write_normed(void *d_h, enum dtype type, size_t row, const float *x, const float *d_w,
                         float factor, size_t d)
{
    float tile[TILE];
    for (size_t at = 0; at < d; at += TILE) {
        size_t count = size_min(TILE, d - at);
        float *h = tile_out(tile, d_h, type, row * d + at);
#pragma omp simd
        for (size_t i = 0; i < count; i++)
            h[i] = x[at + i] * factor * (1.0f + d_w[at + i]);
        tile_done(h, d_h, type, row * d + at, count);
    }
}

void cpu_rms_norm(struct kernels_queue *queue, void *d_h, const float *d_x, const float *d_w,
                  float eps, size_t n, size_t d)
{
    enum dtype type = queue->device->type;
#pragma omp parallel for num_threads(device_threads(queue->device, n *d))
    for (size_t row = 0; row < n; row++) {
        const float *x = d_x + row * d;
        write_normed(d_h, type, row, x, d_w, rms_factor(x, d, eps), d);
    }
}

void cpu_post_norm(struct kernels_queue *queue, float *d_x, float *d_branch, void *d_h,
                   const float *d_y, const float *d_w_post, const float *d_w_next, float eps,
                   size_t n, size_t d)
{
    enum dtype type = queue->device->type;
#pragma omp parallel for num_threads(device_threads(queue->device, n *d))
    for (size_t row = 0; row < n; row++) {
        float *x = d_x + row * d;
        const float *y = d_y + row * d;
        float factor = rms_factor(y, d, eps);
        if (d_branch != NULL) {
            float *branch = d_branch + row * d;
            for (size_t i = 0; i < d; i++) {
                branch[i] = y[i] * factor * (1.0f + d_w_post[i]);
                x[i] += branch[i];
            }
        } else {
#pragma omp simd
            for (size_t i = 0; i < d; i++)
                x[i] += y[i] * factor * (1.0f + d_w_post[i]);
        }
        if (d_h != NULL)
            write_normed(d_h, type, row, x, d_w_next, rms_factor(x, d, eps), d);
    }
}

/* One head in f32: (a, b) at (i, i + half) turned by its angle. */
static void rotate_head(float *head, const float *angles, size_t half)
{
#pragma omp simd
    for (size_t i = 0; i < half; i++) {
        float a = head[i], b = head[half + i];
        head[i] = a * angles[i] - b * angles[half + i];
        head[half + i] = b * angles[i] + a * angles[half + i];
    }
}

void cpu_rope(struct kernels_queue *queue, void *d_qkv, const uint32_t *d_positions,
              const float *d_angles, size_t n, size_t heads, size_t head_dim, size_t stride)
{
    enum dtype type = queue->device->type;
    assert(head_dim <= TILE && head_dim % 2 == 0);
#pragma omp parallel for num_threads(device_threads(queue->device, n *heads *head_dim))
    for (size_t row = 0; row < n; row++) {
        const float *angles = d_angles + d_positions[row] * head_dim;
        for (size_t head = 0; head < heads; head++) {
            float tile[TILE];
            size_t at = row * stride + head * head_dim;
            float *values = tile_out(tile, d_qkv, type, at);
            tile_in(tile, d_qkv, type, at, head_dim);
            rotate_head(values, angles, head_dim / 2);
            tile_done(values, d_qkv, type, at, head_dim);
        }
    }
}

void cpu_geglu(struct kernels_queue *queue, void *d_out, const void *d_gate_up, size_t n,
               size_t inner)
{
    enum dtype type = queue->device->type;
    size_t tiles = chunk_count(inner, TILE);
#pragma omp parallel for collapse(2) num_threads(device_threads(queue->device, n *inner))
    for (size_t row = 0; row < n; row++) {
        for (size_t i_tile = 0; i_tile < tiles; i_tile++) {
            float gate_tile[TILE], up_tile[TILE], out_tile[TILE];
            size_t at = i_tile * TILE, count = size_min(TILE, inner - at);
            const float *gate = tile_in(gate_tile, d_gate_up, type, 2 * row * inner + at, count);
            const float *up = tile_in(up_tile, d_gate_up, type, (2 * row + 1) * inner + at, count);
            float *out = tile_out(out_tile, d_out, type, row * inner + at);
#pragma omp simd
            for (size_t i = 0; i < count; i++)
                out[i] = vmath_gelu(gate[i]) * up[i];
            tile_done(out, d_out, type, row * inner + at, count);
        }
    }
}

void cpu_row_norms(struct kernels_queue *queue, float *d_norms, const float *d_x, size_t n,
                   size_t d)
{
#pragma omp parallel for num_threads(device_threads(queue->device, n *d))
    for (size_t row = 0; row < n; row++) {
        double norm = sqrt(sum_squares(d_x + row * d, d));
        /* A finite row has a finite norm, even where f32 ends. */
        d_norms[row] = isfinite(norm) ? (float)fmin(norm, (double)FLT_MAX) : (float)norm;
    }
}

static float largest_magnitude(const float *x, size_t n)
{
    float largest = 0;
#pragma omp simd reduction(max : largest)
    for (size_t i = 0; i < n; i++) {
        float magnitude = fabsf(x[i]);
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
}

/* values[i] = round(scale x / quantum), ties to even; a quotient may round to just above 127, and
 * that of values that are not finite is no number that an integer could hold. */
static void quantise(int8_t *values, const float *x, float scale, float quantum, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        float steps = quantum > 0 ? scale * x[i] / quantum : 0.0f;
        steps = steps > -127.0f ? steps : -127.0f;
        steps = steps < 127.0f ? steps : 127.0f;
        values[i] = (int8_t)(int32_t)rintf(steps);
    }
}

static void emit_int8(uint8_t *row, const float *x, float scale, size_t at, size_t quantum_at,
                      size_t d)
{
    float quantum = largest_magnitude(x, d) * fabsf(scale) / 127.0f;
    memcpy(row + quantum_at, &quantum, sizeof quantum);
    quantise((int8_t *)row + at, x, scale, quantum, d);
}

void cpu_emit_rows(struct kernels_queue *queue, uint8_t *d_rows, const float *d_x,
                   const uint32_t *d_index, float scale, enum dtype type, size_t rows,
                   size_t row_bytes, size_t at, size_t quantum_at, size_t d)
{
#pragma omp parallel for num_threads(device_threads(queue->device, rows *d))
    for (size_t r = 0; r < rows; r++) {
        const float *x = d_x + (size_t)d_index[r] * d;
        uint8_t *row = d_rows + r * row_bytes;
        if (type == DTYPE_I8) {
            emit_int8(row, x, scale, at, quantum_at, d);
            continue;
        }
        /* Rows need not be aligned. */
        for (size_t from = 0; from < d; from += TILE) {
            float tile[TILE];
            uint16_t halves[TILE];
            size_t count = size_min(TILE, d - from);
            for (size_t i = 0; i < count; i++)
                tile[i] = scale * x[from + i];
            if (type == DTYPE_F32) {
                memcpy(row + at + from * 4, tile, count * sizeof *tile);
            } else {
                tile_done(tile, halves, DTYPE_BF16, 0, count);
                memcpy(row + at + from * 2, halves, count * sizeof *halves);
            }
        }
    }
}
