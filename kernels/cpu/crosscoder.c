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

/* A row from the wire, where it need not be aligned, to element `at` and on of d_x. */
static void load_int8(void *d_x, enum dtype to, size_t at, const uint8_t *row,
                      const struct kernels_columns *columns, size_t sources)
{
    const int8_t *values = (const int8_t *)row + 4 * sources;
    float tile[TILE];
    for (size_t s = 0; s < sources; s++) {
        float quantum;
        memcpy(&quantum, row + 4 * s, sizeof quantum);
        size_t first = columns[s].first, end = first + columns[s].width;
        for (size_t c = first; c < end; c += TILE) {
            size_t n = size_min(TILE, end - c);
            float *x = tile_out(tile, d_x, to, at + c);
#pragma omp simd
            for (size_t i = 0; i < n; i++)
                x[i] = quantum * (float)values[c + i];
            tile_done(x, d_x, to, at + c, n);
        }
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
    for (size_t r = 0; r < rows; r++)
        load_int8(d_x, to, r * width, d_rows + r * row_bytes, columns, sources);
}

/* Adds GROUP rows to the totals, one after the other, in one pass over them. */
static void add_rows(double *restrict total, const float *const x[GROUP], size_t count)
{
    const float *a = x[0], *b = x[1], *c = x[2], *d = x[3];
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        total[i] = total[i] + (double)a[i] + (double)b[i] + (double)c[i] + (double)d[i];
}

/* sums[c] = factor * Σ_rows x[row][c] for `count` <= COLUMNS from `first`. */
static void sum_block(float *sums, const void *d_x, enum dtype type, double factor, size_t rows,
                      size_t columns, size_t first, size_t count)
{
    static const float zeros[COLUMNS];
    double total[COLUMNS] = {0};
    float tiles[GROUP][TILE];
    for (size_t row = 0; row < rows; row += GROUP) {
        const float *x[GROUP];
        for (size_t r = 0; r < GROUP; r++)
            x[r] = row + r < rows ? tile_in(tiles[r], d_x, type, (row + r) * columns + first, count)
                                  : zeros;
        add_rows(total, x, count);
    }
    for (size_t i = 0; i < count; i++)
        sums[first + i] = (float)(factor * total[i]);
}

static void sum_columns(struct kernels_queue *queue, float *d_sums, const void *d_x, double factor,
                        size_t rows, size_t columns)
{
    enum dtype type = queue->device->type;
    size_t width = block_columns(queue->device, columns), blocks = chunk_count(columns, width);
#pragma omp parallel for num_threads(device_threads(queue->device, rows *columns))
    for (size_t block = 0; block < blocks; block++)
        sum_block(d_sums, d_x, type, factor, rows, columns, block * width,
                  size_min(width, columns - block * width));
}

void cpu_column_sums(struct kernels_queue *queue, float *d_sums, const void *d_g, size_t rows,
                     size_t width)
{
    sum_columns(queue, d_sums, d_g, 1.0, rows, width);
}

void cpu_column_means(struct kernels_queue *queue, float *d_means, const void *d_x, size_t rows,
                      size_t width)
{
    sum_columns(queue, d_means, d_x, 1.0 / (double)rows, rows, width);
}

/* Sums down a block of columns. */
struct relu_sums {
    double dpre[COLUMNS], f[COLUMNS];
    uint32_t positive[COLUMNS];
};

static void relu_row(float *restrict g, const float *restrict f, const float *restrict bias,
                     size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++)
        g[i] = f[i] > 0 ? g[i] + bias[i] : 0.0f;
}

static void relu_add(struct relu_sums *restrict sums, const float *g, const float *f, size_t count)
{
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        sums->dpre[i] += (double)g[i];
        sums->f[i] += (double)f[i];
        sums->positive[i] += f[i] > 0 ? 1u : 0u;
    }
}

/* The sums of `count` <= COLUMNS columns from `first`. */
static void relu_block(struct relu_sums *sums, void *d_dpre, const void *d_f, const float *bias,
                       enum dtype type, size_t rows, size_t columns, size_t first, size_t count)
{
    float f_tile[TILE], g_tile[TILE];
    memset(sums, 0, sizeof *sums);
    for (size_t row = 0; row < rows; row++) {
        size_t at = row * columns + first;
        const float *f = tile_in(f_tile, d_f, type, at, count);
        float *g = tile_out(g_tile, d_dpre, type, at);
        tile_in(g_tile, d_dpre, type, at, count);
        relu_row(g, f, bias + first, count);
        tile_done(g, d_dpre, type, at, count);
        relu_add(sums, tile_in(g_tile, d_dpre, type, at, count), f, count); /* as it is stored */
    }
}

void cpu_relu_backward(struct kernels_queue *queue, void *d_dpre, float *d_sums,
                       float *d_latent_sums, uint32_t *d_counts, const void *d_f,
                       const float *d_bias, size_t rows, size_t latents)
{
    enum dtype type = queue->device->type;
    size_t width = block_columns(queue->device, latents), blocks = chunk_count(latents, width);
#pragma omp parallel for num_threads(device_threads(queue->device, rows *latents))
    for (size_t block = 0; block < blocks; block++) {
        struct relu_sums sums;
        size_t first = block * width, count = size_min(width, latents - first);
        relu_block(&sums, d_dpre, d_f, d_bias, type, rows, latents, first, count);
        for (size_t i = 0; i < count; i++) {
            d_sums[first + i] = (float)sums.dpre[i];
            d_latent_sums[first + i] = (float)sums.f[i];
            d_counts[first + i] = sums.positive[i];
        }
    }
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
