/* crosscoder.c - what a training step does beside the products and Adam.
 *
 * All of it waits for memory: each operation reads its matrix once. Sums down the columns are taken
 * by column blocks: a thread has a block of columns for all rows, adds row by row in f64, and so
 * the result is one fixed order whatever the number of threads. Sums over rows (recon) go over
 * chunks of ROW_CHUNK rows whose f64 parts are added in order.
 */
#include "kernels/cpu/cpu.h"

#include <math.h>

enum {
    ROW_CHUNK = 64, /* rows whose sums are one part */
    COLUMNS = 512,  /* of a block, at most */
    GROUP = 4,      /* rows that are added in one pass over the totals */
};

/* Columns of a block, less where threads would be left without. */
static size_t block_columns(const struct kernels_device *device, size_t columns)
{
    size_t fair = chunk_count(columns, device->threads);
    return size_min(COLUMNS, size_min(columns, chunk_count(fair, 16) * 16));
}

/* The value of one source from the wire: rows need not be aligned. */
static void load_int8(float *x, const uint8_t *row, const struct kernels_columns *columns,
                      size_t sources)
{
    const int8_t *values = (const int8_t *)row + 4 * sources;
    for (size_t s = 0; s < sources; s++) {
        float quantum;
        memcpy(&quantum, row + 4 * s, sizeof quantum);
        size_t first = columns[s].first, end = first + columns[s].width;
#pragma omp simd
        for (size_t c = first; c < end; c++)
            x[c] = quantum * (float)values[c];
    }
}

static void load_int8_halves(uint16_t *x, const uint8_t *row, const struct kernels_columns *columns,
                             size_t sources)
{
    const int8_t *values = (const int8_t *)row + 4 * sources;
    for (size_t s = 0; s < sources; s++) {
        float quantum;
        memcpy(&quantum, row + 4 * s, sizeof quantum);
        size_t first = columns[s].first, end = first + columns[s].width;
#pragma omp simd
        for (size_t c = first; c < end; c++)
            x[c] = dtype_f32_to_bf16(quantum * (float)values[c]);
    }
}

void cpu_load_rows(struct kernels_queue *queue, void *d_x, const uint8_t *d_rows, enum dtype type,
                   const struct kernels_columns *columns, size_t sources, size_t rows, size_t width)
{
    enum dtype to = queue->device->type;
    if (type != DTYPE_I8) {
        cpu_cast(queue, d_x, to, d_rows, type, rows * width);
        return;
    }
    size_t row_bytes = 4 * sources + width;
#pragma omp parallel for num_threads(device_threads(queue->device, rows *width))
    for (size_t r = 0; r < rows; r++) {
        if (to == DTYPE_F32)
            load_int8(element(d_x, to, r * width), d_rows + r * row_bytes, columns, sources);
        else
            load_int8_halves(element(d_x, to, r * width), d_rows + r * row_bytes, columns, sources);
    }
}

/* Adds GROUP rows to the totals, one after the other, in one pass over them. */
static void add_rows(double *restrict total, uint32_t *restrict positive,
                     const float *const x[GROUP], size_t count, bool counted)
{
    const float *a = x[0], *b = x[1], *c = x[2], *d = x[3];
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        total[i] = total[i] + (double)a[i] + (double)b[i] + (double)c[i] + (double)d[i];
    if (!counted)
        return;
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        positive[i] += (a[i] > 0 ? 1u : 0u) + (b[i] > 0 ? 1u : 0u) + (c[i] > 0 ? 1u : 0u) +
                       (d[i] > 0 ? 1u : 0u);
}

/* sums[c] = factor * Σ_rows x[row][c] for `count` <= COLUMNS from `first`; counts as well. */
static void sum_block(float *sums, uint32_t *counts, const void *d_x, enum dtype type,
                      double factor, size_t rows, size_t columns, size_t first, size_t count)
{
    static const float zeros[COLUMNS];
    double total[COLUMNS] = {0};
    uint32_t positive[COLUMNS] = {0};
    float tiles[GROUP][TILE];
    for (size_t row = 0; row < rows; row += GROUP) {
        const float *x[GROUP];
        for (size_t r = 0; r < GROUP; r++)
            x[r] = row + r < rows ? tile_in(tiles[r], d_x, type, (row + r) * columns + first, count)
                                  : zeros;
        add_rows(total, positive, x, count, counts != NULL);
    }
    for (size_t i = 0; i < count; i++)
        sums[first + i] = (float)(factor * total[i]);
    for (size_t i = 0; counts != NULL && i < count; i++)
        counts[first + i] = positive[i];
}

static void sum_columns(struct kernels_queue *queue, float *d_sums, uint32_t *d_counts,
                        const void *d_x, double factor, size_t rows, size_t columns)
{
    enum dtype type = queue->device->type;
    size_t width = block_columns(queue->device, columns), blocks = chunk_count(columns, width);
#pragma omp parallel for num_threads(device_threads(queue->device, rows *columns))
    for (size_t block = 0; block < blocks; block++)
        sum_block(d_sums, d_counts, d_x, type, factor, rows, columns, block * width,
                  size_min(width, columns - block * width));
}

void cpu_latent_sums(struct kernels_queue *queue, float *d_sums, uint32_t *d_counts,
                     const void *d_f, size_t rows, size_t latents)
{
    sum_columns(queue, d_sums, d_counts, d_f, 1.0, rows, latents);
}

void cpu_column_sums(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                     size_t width)
{
    sum_columns(queue, d_sums, NULL, d_g, 1.0, rows, width);
}

void cpu_column_means(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                      size_t width)
{
    sum_columns(queue, d_means, NULL, d_x, 1.0 / (double)rows, rows, width);
}

static void relu_block(void *d_dpre, float *sums, const void *d_f, enum dtype type, size_t rows,
                       size_t columns, size_t first, size_t count)
{
    double total[COLUMNS] = {0};
    float f_tile[TILE], g_tile[TILE];
    for (size_t row = 0; row < rows; row++) {
        size_t at = row * columns + first;
        const float *f = tile_in(f_tile, d_f, type, at, count);
        float *g = tile_out(g_tile, d_dpre, type, at);
        tile_in(g_tile, d_dpre, type, at, count);
        for (size_t i = 0; i < count; i++) {
            g[i] = f[i] > 0 ? g[i] : 0.0f;
            total[i] += (double)g[i];
        }
        tile_done(g, d_dpre, type, at, count);
    }
    for (size_t i = 0; i < count; i++)
        sums[first + i] = (float)total[i];
}

void cpu_relu_backward(struct kernels_queue *queue, void *d_dpre, float *d_sums, const void *d_f,
                       size_t rows, size_t latents)
{
    enum dtype type = queue->device->type;
    size_t width = block_columns(queue->device, latents), blocks = chunk_count(latents, width);
#pragma omp parallel for num_threads(device_threads(queue->device, rows *latents))
    for (size_t block = 0; block < blocks; block++)
        relu_block(d_dpre, d_sums, d_f, type, rows, latents, block * width,
                   size_min(width, latents - block * width));
}

/* One source of one row: g, and Σ e², Σ (x - mean)² added. */
static void recon_source(void *d_g, double *error, double *variance, const float *xhat,
                         const void *d_x, const float *means, enum dtype type, size_t at,
                         size_t width, float factor)
{
    float x_tile[TILE], g_tile[TILE];
    double error_sum = 0, variance_sum = 0;
    for (size_t from = 0; from < width; from += TILE) {
        size_t count = size_min(TILE, width - from);
        const float *x = tile_in(x_tile, d_x, type, at + from, count);
        float *g = d_g != NULL ? tile_out(g_tile, d_g, type, at + from) : g_tile;
#pragma omp simd reduction(+ : error_sum, variance_sum)
        for (size_t i = 0; i < count; i++) {
            float e = xhat[from + i] - x[i];
            float spread = x[i] - means[from + i];
            g[i] = factor * e;
            error_sum += (double)e * (double)e;
            variance_sum += (double)spread * (double)spread;
        }
        if (d_g != NULL)
            tile_done(g, d_g, type, at + from, count);
    }
    *error = error_sum;
    *variance = variance_sum;
}

static void add_row(struct kernels_recon_sums *sums, double error, double variance)
{
    sums->error += error;
    sums->variance += variance;
    if (variance > 0)
        sums->explained += 1 - error / variance;
}

void cpu_recon(struct kernels_queue *queue, void *d_g, struct kernels_recon_sums *d_sums,
               const float *d_xhat, const void *d_x, const float *d_means,
               const struct kernels_columns *columns, size_t sources, float factor, size_t rows,
               size_t width)
{
    enum dtype type = queue->device->type;
    size_t chunks = chunk_count(rows, ROW_CHUNK);
    struct kernels_recon_sums *parts =
        queue_workspace(queue, chunks * (sources + 1) * sizeof *parts);
    if (parts == NULL && chunks > 0)
        return;
#pragma omp parallel for num_threads(device_threads(queue->device, rows *width))
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        struct kernels_recon_sums *part = parts + chunk * (sources + 1);
        memset(part, 0, (sources + 1) * sizeof *part);
        size_t end = size_min(rows, (chunk + 1) * ROW_CHUNK);
        for (size_t row = chunk * ROW_CHUNK; row < end; row++) {
            double error_all = 0, variance_all = 0;
            for (size_t s = 0; s < sources; s++) {
                double error, variance;
                size_t first = columns[s].first, at = row * width + first;
                recon_source(d_g, &error, &variance, d_xhat + at, d_x, d_means + first, type, at,
                             columns[s].width, factor);
                add_row(&part[s], error, variance);
                error_all += error;
                variance_all += variance;
            }
            add_row(&part[sources], error_all, variance_all);
        }
    }
    memset(d_sums, 0, (sources + 1) * sizeof *d_sums);
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        for (size_t s = 0; s <= sources; s++) {
            d_sums[s].error += parts[chunk * (sources + 1) + s].error;
            d_sums[s].variance += parts[chunk * (sources + 1) + s].variance;
            d_sums[s].explained += parts[chunk * (sources + 1) + s].explained;
        }
    }
}
