/* gemm_rows.c - matrix products by blocks of rows, where oneDNN's own division of a product would
 * make a row depend on its place.
 *
 * Without AVX-512 oneDNN multiplies f32 by a driver that splits k between threads and gives the
 * last rows of each thread's part to narrower kernels that add over k in another order: a row's
 * bits then depend on where it stands. Inside one call by one thread, of a multiple of ROW_STEP
 * rows, all rows pass through one kernel. So a product is cut into blocks of equally many rows,
 * each a call of its own by one thread; the last block is filled up with zeros in a workspace.
 *
 * This is also how bf16 is multiplied where the processor has no instructions for it (oneDNN would
 * emulate them, slowly): bf16 is then the form of storage, a block of A is widened to f32 into the
 * workspace, B is widened when it is packed or before the product, and C is narrowed block by
 * block.
 *
 * Each call copies B into oneDNN's own layout once more, so blocks are as high as the workspace
 * and a fair share for each thread allow.
 */
#include "kernels/cpu/cpu.h"

enum {
    ROW_STEP = 24,              /* a multiple of the rows of each kernel: 4, 6, 8 */
    ROWS_MOST = 16 * ROW_STEP,  /* more gain nothing */
    WORKSPACE_LIMIT = 32 << 20, /* bytes of a thread for blocks of A and C */
};

/* A product under way. */
struct blocks {
    const struct kernels_gemm_shape *shape;
    int64_t rows;   /* of each block */
    bool gather_a;  /* all blocks of A go through the workspace; else only one that is cut off */
    bool through_c; /* the same for C */
};

static int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

/* Equally many blocks for each thread, as high as may be. */
static int64_t block_rows(const struct kernels_gemm_shape *shape, int threads)
{
    int64_t most = WORKSPACE_LIMIT / (4 * (shape->k + shape->n)) / ROW_STEP * ROW_STEP;
    most = most < ROW_STEP ? ROW_STEP : most > ROWS_MOST ? ROWS_MOST : most;
    int64_t blocks = divide_up(divide_up(shape->m, most), threads) * threads;
    return divide_up(divide_up(shape->m, blocks), ROW_STEP) * ROW_STEP;
}

/* Rows first .. first + count - 1 of A (transposed: columns) as f32 in the same order, zeros up to
 * a whole block. */
static void gather_block(float *to, const struct blocks *blocks, const void *d_a, int64_t first,
                         int64_t count)
{
    const struct kernels_gemm_shape *shape = blocks->shape;
    bool trans = shape->trans_a;
    size_t lines = (size_t)(trans ? shape->k : count), width = (size_t)(trans ? count : shape->k);
    size_t stride = (size_t)(trans ? shape->m : shape->k),
           at = (size_t)first * (trans ? 1 : stride);
    size_t to_stride = (size_t)(trans ? blocks->rows : shape->k);
    for (size_t line = 0; line < lines; line++) {
        float *out = to + line * to_stride;
        tile_from_stored(out, element_const(d_a, shape->a, at + line * stride), shape->a, width);
        memset(out + width, 0, (to_stride - width) * sizeof *out);
    }
    if (!trans)
        memset(to + lines * to_stride, 0, (size_t)(blocks->rows - count) * to_stride * sizeof *to);
}

/* Bias and relu on rows of f32 sums, and their way into C where they are not there already. */
static void finish_block(void *d_c, float *sums, const struct kernels_gemm_shape *shape,
                         const float *d_bias, int64_t first, int64_t count)
{
    size_t n = (size_t)shape->n;
    for (size_t row = 0; row < (size_t)count; row++) {
        float *c = sums + row * n;
        void *to = element(d_c, shape->c, ((size_t)first + row) * n);
        if (shape->bias)
            for (size_t i = 0; i < n; i++)
                c[i] += d_bias[i];
        if (shape->relu)
            for (size_t i = 0; i < n; i++)
                c[i] = c[i] > 0 ? c[i] : 0.0f;
        if (shape->c == DTYPE_F32 && to != c)
            memcpy(to, c, n * sizeof *c);
        else
            tile_done(c, to, shape->c, 0, n);
    }
}

static bool multiply_block(const struct blocks *blocks, void *d_c, const void *d_a, const float *b,
                           const float *d_bias, float *a_work, float *c_work, int64_t first)
{
    const struct kernels_gemm_shape *shape = blocks->shape;
    int64_t rows = blocks->rows, m = shape->m, n = shape->n, k = shape->k;
    int64_t count = first + rows <= m ? rows : m - first;
    const float *a = a_work;
    int64_t a_stride = shape->trans_a ? rows : k;
    if (blocks->gather_a || count < rows) {
        gather_block(a_work, blocks, d_a, first, count);
    } else {
        a = (const float *)d_a + first * (shape->trans_a ? 1 : k);
        a_stride = shape->trans_a ? m : k;
    }
    float *c = blocks->through_c || count < rows ? c_work : (float *)d_c + first * n;
    dnnl_status_t status =
        dnnl_sgemm(shape->trans_a ? 'T' : 'N', shape->trans_b ? 'T' : 'N', rows, n, k, 1.0f, a,
                   a_stride, b, shape->trans_b ? k : n, 0.0f, c, n);
    finish_block(d_c, c, shape, d_bias, first, count);
    return status == dnnl_success;
}

void gemm_rows(struct kernels_queue *queue, const struct kernels_gemm_shape *shape, int threads,
               void *d_c, const void *d_a, const void *d_b, const float *d_bias)
{
    struct blocks blocks = {.shape = shape,
                            .rows = block_rows(shape, threads),
                            .gather_a = shape->a != DTYPE_F32,
                            .through_c = shape->c != DTYPE_F32};
    bool cut = shape->m % blocks.rows != 0, widen_b = shape->b != DTYPE_F32 && !shape->packed_b;
    size_t b_floats = widen_b ? (size_t)(shape->k * shape->n) : 0;
    size_t a_floats = blocks.gather_a || cut ? (size_t)(blocks.rows * shape->k) : 0;
    size_t c_floats = blocks.through_c || cut ? (size_t)(blocks.rows * shape->n) : 0;
    size_t floats = b_floats + (size_t)threads * (a_floats + c_floats);
    float *work = queue_workspace(queue, floats * sizeof *work);
    if (work == NULL && floats > 0)
        return;
    const float *b = d_b;
    if (widen_b) {
        cpu_cast(queue, work, DTYPE_F32, d_b, shape->b, b_floats);
        b = work;
    }
    int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed)
    {
        omp_set_num_threads(1); /* this thread's calls are its own alone */
        float *a_work = NULL, *c_work = NULL;
        if (a_floats + c_floats > 0) {
            a_work = work + b_floats + (size_t)omp_get_thread_num() * (a_floats + c_floats);
            c_work = a_work + a_floats;
        }
#pragma omp for
        for (int64_t first = 0; first < shape->m; first += blocks.rows)
            if (!multiply_block(&blocks, d_c, d_a, b, d_bias, a_work, c_work, first))
                failed = 1;
    }
    if (failed)
        queue_fail(queue, ERR_DEVICE, "oneDNN failed to multiply");
}
