/* gemm.c - matrix products by oneDNN.
 *
 * A plan is made once for a shape: oneDNN chooses and generates its kernel then, and a product only
 * sets addresses and runs it. This direct way reads A and B and writes C as they are stored, with
 * f32 sums. It is taken for f32 with AVX-512 and for bf16 on processors that multiply bf16 (AMX,
 * AVX512_BF16); everything else goes by blocks of rows (gemm_rows.c).
 *
 * Packing. oneDNN multiplies faster by a B in a layout of its own choice; gemm_pack() makes that
 * once for weights that stay. By rows, B is packed by widening it to f32.
 *
 * A row of C must depend on its row of A alone, not on its place among the m rows. oneDNN promises
 * nothing of the kind, but the kernels of the direct way add over k in one order for all rows of a
 * call; the parity tests permute rows at many shapes.
 */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>

struct kernels_gemm {
    struct kernels_device *device;
    struct kernels_gemm_shape shape;
    bool direct; /* else by rows, and what follows the bytes is NULL */
    int threads;
    size_t packed_bytes; /* 0: B is not packed */
    dnnl_primitive_t product, reorder;
    dnnl_memory_t a, b, bias, c, scratch;    /* arguments of product */
    dnnl_memory_t from, to, reorder_scratch; /* arguments of reorder */
    void *scratch_work, *reorder_work;
};

static dnnl_data_type_t dnnl_type(enum dtype type)
{
    return type == DTYPE_F32 ? dnnl_f32 : dnnl_bf16;
}

/* A (rows, columns) matrix; transposed: stored (columns, rows). */
static dnnl_status_t describe_matrix(dnnl_memory_desc_t *description, int64_t rows, int64_t columns,
                                     enum dtype type, bool transposed)
{
    dnnl_dims_t sizes = {rows, columns};
    dnnl_dims_t strides = {transposed ? 1 : columns, transposed ? rows : 1};
    return dnnl_memory_desc_init_by_strides(description, 2, sizes, dnnl_type(type), strides);
}

static int create_memory(const struct kernels_gemm *gemm, dnnl_memory_t *memory,
                         const dnnl_memory_desc_t *description, void *address)
{
    if (dnnl_memory_create(memory, description, gemm->device->engine, address) != dnnl_success)
        return device_fail(gemm->device, ERR_DEVICE, "oneDNN cannot describe a matrix");
    return 0;
}

/* The workspace that a primitive asks for. */
static int create_scratch(const struct kernels_gemm *gemm, const_dnnl_primitive_desc_t description,
                          dnnl_memory_t *memory, void **address)
{
    const dnnl_memory_desc_t *wanted =
        dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(wanted);
    int code = cpu_alloc(gemm->device, address, bytes);
    return code < 0 ? code : create_memory(gemm, memory, wanted, *address);
}

static dnnl_status_t create_attributes(dnnl_primitive_attr_t *attributes, bool relu)
{
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (status != dnnl_success || !relu)
        return status;
    dnnl_post_ops_t after = NULL;
    status = dnnl_post_ops_create(&after);
    if (status == dnnl_success)
        status = dnnl_post_ops_append_eltwise(after, 1.0f, dnnl_eltwise_relu, 0.0f, 0.0f);
    if (status == dnnl_success)
        status = dnnl_primitive_attr_set_post_ops(*attributes, after);
    dnnl_post_ops_destroy(after);
    return status;
}

/* The primitive and its arguments. *packed: the layout that it wants of B. */
static int create_product(struct kernels_gemm *gemm, dnnl_memory_desc_t *packed)
{
    const struct kernels_gemm_shape *shape = &gemm->shape;
    dnnl_dims_t b_sizes = {shape->k, shape->n}, bias_sizes = {1, shape->n};
    dnnl_memory_desc_t a, b, bias, c;
    dnnl_matmul_desc_t matmul;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;

    dnnl_status_t status = describe_matrix(&a, shape->m, shape->k, shape->a, shape->trans_a);
    if (status == dnnl_success)
        status = shape->packed_b
                     ? dnnl_memory_desc_init_by_tag(&b, 2, b_sizes, dnnl_type(shape->b),
                                                    dnnl_format_tag_any)
                     : describe_matrix(&b, shape->k, shape->n, shape->b, shape->trans_b);
    if (status == dnnl_success)
        status = describe_matrix(&c, shape->m, shape->n, shape->c, false);
    if (status == dnnl_success)
        status = dnnl_memory_desc_init_by_tag(&bias, 2, bias_sizes, dnnl_f32, dnnl_ab);
    if (status == dnnl_success)
        status = dnnl_matmul_desc_init(&matmul, &a, &b, shape->bias ? &bias : NULL, &c);
    if (status == dnnl_success)
        status = create_attributes(&attributes, shape->relu);
    if (status == dnnl_success)
        status = dnnl_primitive_desc_create(&description, &matmul, attributes, gemm->device->engine,
                                            NULL);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&gemm->product, description);
    int code = status == dnnl_success
                   ? 0
                   : device_fail(gemm->device, ERR_DEVICE,
                                 "oneDNN has no product of m %lld, n %lld, k %lld",
                                 (long long)shape->m, (long long)shape->n, (long long)shape->k);
    if (code == 0) {
        *packed = *dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0);
        code = create_scratch(gemm, description, &gemm->scratch, &gemm->scratch_work);
    }
    if (code == 0)
        code = create_memory(gemm, &gemm->a, &a, DNNL_MEMORY_NONE);
    if (code == 0)
        code = create_memory(gemm, &gemm->b, packed, DNNL_MEMORY_NONE);
    if (code == 0)
        code = create_memory(gemm, &gemm->c, &c, DNNL_MEMORY_NONE);
    if (code == 0 && shape->bias)
        code = create_memory(gemm, &gemm->bias, &bias, DNNL_MEMORY_NONE);
    dnnl_primitive_desc_destroy(description);
    dnnl_primitive_attr_destroy(attributes);
    return code;
}

/* B as stored -> packed. */
static int create_reorder(struct kernels_gemm *gemm, const dnnl_memory_desc_t *packed)
{
    const struct kernels_gemm_shape *shape = &gemm->shape;
    dnnl_memory_desc_t plain;
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    dnnl_engine_t engine = gemm->device->engine;

    dnnl_status_t status = describe_matrix(&plain, shape->k, shape->n, shape->b, shape->trans_b);
    if (status == dnnl_success)
        status = create_attributes(&attributes, false);
    if (status == dnnl_success)
        status = dnnl_reorder_primitive_desc_create(&description, &plain, engine, packed, engine,
                                                    attributes);
    if (status == dnnl_success)
        status = dnnl_primitive_create(&gemm->reorder, description);
    int code = status == dnnl_success
                   ? 0
                   : device_fail(gemm->device, ERR_DEVICE, "oneDNN cannot pack %lld by %lld",
                                 (long long)shape->k, (long long)shape->n);
    if (code == 0)
        code = create_scratch(gemm, description, &gemm->reorder_scratch, &gemm->reorder_work);
    if (code == 0)
        code = create_memory(gemm, &gemm->from, &plain, DNNL_MEMORY_NONE);
    if (code == 0)
        code = create_memory(gemm, &gemm->to, packed, DNNL_MEMORY_NONE);
    gemm->packed_bytes = dnnl_memory_desc_get_size(packed);
    dnnl_primitive_desc_destroy(description);
    dnnl_primitive_attr_destroy(attributes);
    return code;
}

int cpu_gemm_create(struct kernels_device *device, struct kernels_gemm **created,
                    const struct kernels_gemm_shape *shape)
{
    assert(shape->m > 0 && shape->n > 0 && shape->k > 0 && shape->a == shape->b);
    struct kernels_gemm *gemm = calloc(1, sizeof *gemm);
    if (gemm == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for a product");
    gemm->device = device;
    gemm->shape = *shape;
    gemm->direct = shape->a == DTYPE_F32 ? device->avx512 : device->native_bf16;
    assert(shape->a == DTYPE_BF16 || shape->c == DTYPE_F32);
    /* About 10 us of one core: less is not worth waking others for. */
    double operations = 2.0 * (double)shape->m * (double)shape->n * (double)shape->k;
    gemm->threads = operations < 1e6 ? 1 : (int)device->threads;
    if (shape->packed_b && !gemm->direct)
        gemm->packed_bytes = (size_t)(shape->k * shape->n) * sizeof(float);
    int code = 0;
    if (gemm->direct) {
        omp_set_num_threads(gemm->threads);
        dnnl_memory_desc_t packed;
        code = create_product(gemm, &packed);
        if (code == 0 && shape->packed_b)
            code = create_reorder(gemm, &packed);
    }
    if (code < 0) {
        cpu_gemm_free(gemm);
        return code;
    }
    *created = gemm;
    return 0;
}

void cpu_gemm_free(struct kernels_gemm *gemm)
{
    if (gemm == NULL)
        return;
    dnnl_primitive_destroy(gemm->product);
    dnnl_primitive_destroy(gemm->reorder);
    dnnl_memory_t memories[] = {gemm->a,       gemm->b,    gemm->bias, gemm->c,
                                gemm->scratch, gemm->from, gemm->to,   gemm->reorder_scratch};
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        dnnl_memory_destroy(memories[i]);
    cpu_free(gemm->device, gemm->scratch_work);
    cpu_free(gemm->device, gemm->reorder_work);
    free(gemm);
}

size_t cpu_gemm_packed_bytes(const struct kernels_gemm *gemm)
{
    return gemm->packed_bytes;
}

/* oneDNN takes addresses without const, also of what it only reads. */
static bool point(dnnl_memory_t memory, const void *address)
{
    return dnnl_memory_set_data_handle(memory, (void *)(uintptr_t)address) == dnnl_success;
}

void cpu_gemm_pack(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_packed,
                   const void *d_b)
{
    if (!gemm->direct) {
        cpu_cast(queue, d_packed, DTYPE_F32, d_b, gemm->shape.b,
                 (size_t)(gemm->shape.k * gemm->shape.n));
        return;
    }
    omp_set_num_threads(gemm->threads); /* the scratch memory is for so many */
    dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_FROM, gemm->from},
        {DNNL_ARG_TO, gemm->to},
        {DNNL_ARG_SCRATCHPAD, gemm->reorder_scratch},
    };
    if (!point(gemm->from, d_b) || !point(gemm->to, d_packed) ||
        dnnl_primitive_execute(gemm->reorder, queue->stream, 3, arguments) != dnnl_success)
        queue_fail(queue, ERR_DEVICE, "oneDNN failed to pack a matrix");
}

void cpu_gemm(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
              const void *d_b, const float *d_bias)
{
    const struct kernels_gemm_shape *shape = &gemm->shape;
    if (!gemm->direct) {
        gemm_rows(queue, shape, gemm->threads, d_c, d_a, d_b, d_bias);
        return;
    }
    omp_set_num_threads(gemm->threads);
    dnnl_exec_arg_t arguments[] = {
        {DNNL_ARG_SRC, gemm->a},     {DNNL_ARG_WEIGHTS, gemm->b},
        {DNNL_ARG_DST, gemm->c},     {DNNL_ARG_SCRATCHPAD, gemm->scratch},
        {DNNL_ARG_BIAS, gemm->bias},
    };
    if (!point(gemm->a, d_a) || !point(gemm->b, d_b) || !point(gemm->c, d_c) ||
        (shape->bias && !point(gemm->bias, d_bias)) ||
        dnnl_primitive_execute(gemm->product, queue->stream, shape->bias ? 5 : 4, arguments) !=
            dnnl_success)
        queue_fail(queue, ERR_DEVICE, "oneDNN failed to multiply");
}
