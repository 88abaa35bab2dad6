/* gemm.cu - matrix products by cuBLASLt.
 *
 * Must do: 2 m n k operations, which is what bounds it at the shapes of this project; and move
 * (m k + k n) elements of A and B and m n of C.
 *
 * A plan is made once for a shape: the library's heuristic picks an algorithm then, and a product
 * only sets addresses and runs it. cuBLASLt thinks in columns: a row-major (m, n) is its (n, m), so
 * the plan computes C' = op(B)' op(A)' with B on the left, and nothing is copied or transposed. The
 * bias runs along n, the rows of C', as the library's epilogue wants it.
 *
 * The order of a sum. Split-k would let the place of a row decide how its sum is cut, and adds with
 * atomics in some kernels, so only algorithms that reduce nothing across blocks are asked for.
 * Products of f32 are f32's (CUBLAS_COMPUTE_32F takes no TF32).
 *
 * bf16 results with a bias. The library documents a bias of the type of C alone, and a bias rounded
 * to bf16 is off by 2^-8 of itself, in every row by the same. So it is given in two terms: rows of
 * the first lie in C before the product, which adds them (beta 1), and what is left is the
 * epilogue's bias; all three are summed in f32. That costs 4 m n bytes, of which the half is read
 * by a kernel that waits for its tensor cores. A product to f32 and a pass that adds and rounds
 * cost 10, and as much memory again; a bias in more columns of A and B costs less than a hundredth
 * of the product, but then A, B and all who read them have rows of another length.
 *
 * Packing. The tensor cores read both layouts at full speed, so a packed B is a copy of B, and
 * whoever packs for one product only should not.
 */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/pack.cuh"

#include <stdlib.h>

enum { GEMM_WORKSPACE_MOST = 32 << 20, GEMM_ALIGNMENT = 16, ROWS_BLOCK = 256 };

struct kernels_gemm {
    struct kernels_device *device;
    struct kernels_gemm_shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t left, right, result; /* B, A and C, by columns */
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
    size_t workspace_bytes;
    bool two_terms; /* of the bias: rows of the first are laid into C */
};

static bool succeeded(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_SUCCESS;
}

static bool set_transposed(const struct kernels_gemm *gemm, cublasLtMatmulDescAttributes_t side,
                           bool transposed)
{
    const struct cublaslt *lt = &gemm->device->library;
    cublasOperation_t value = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    return succeeded(lt->MatmulDescSetAttribute(gemm->operation, side, &value, sizeof value));
}

static bool set_epilogue(const struct kernels_gemm *gemm)
{
    const struct cublaslt *lt = &gemm->device->library;
    bool bias = gemm->shape.bias, relu = gemm->shape.relu;
    cublasLtEpilogue_t epilogue = bias && relu ? CUBLASLT_EPILOGUE_RELU_BIAS
                                  : bias       ? CUBLASLT_EPILOGUE_BIAS
                                  : relu       ? CUBLASLT_EPILOGUE_RELU
                                               : CUBLASLT_EPILOGUE_DEFAULT;
    /* The heuristic looks at the alignment of the address. */
    const void *somewhere = reinterpret_cast<const void *>((uintptr_t)GEMM_ALIGNMENT);
    return succeeded(lt->MatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_EPILOGUE,
                                                &epilogue, sizeof epilogue)) &&
           (!bias ||
            succeeded(lt->MatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                                 &somewhere, sizeof somewhere)));
}

static cudaDataType_t library_type(enum dtype type)
{
    return type == DTYPE_F32 ? CUDA_R_32F : CUDA_R_16BF;
}

/* A row-major (rows, columns) matrix, or its transpose as it is stored. */
static bool create_layout(const struct cublaslt *lt, cublasLtMatrixLayout_t *layout,
                          enum dtype type, int64_t rows, int64_t columns, bool transposed)
{
    int64_t along = transposed ? rows : columns, across = transposed ? columns : rows;
    return succeeded(lt->MatrixLayoutCreate(layout, library_type(type), (uint64_t)along,
                                            (uint64_t)across, along));
}

static bool describe_product(struct kernels_gemm *gemm)
{
    const struct kernels_gemm_shape *shape = &gemm->shape;
    const struct cublaslt *lt = &gemm->device->library;
    return succeeded(lt->MatmulDescCreate(&gemm->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           set_transposed(gemm, CUBLASLT_MATMUL_DESC_TRANSA, shape->trans_b) &&
           set_transposed(gemm, CUBLASLT_MATMUL_DESC_TRANSB, shape->trans_a) &&
           set_epilogue(gemm) &&
           create_layout(lt, &gemm->left, shape->b, shape->k, shape->n, shape->trans_b) &&
           create_layout(lt, &gemm->right, shape->a, shape->m, shape->k, shape->trans_a) &&
           create_layout(lt, &gemm->result, shape->c, shape->m, shape->n, false);
}

static bool set_preferences(const struct cublaslt *lt, cublasLtMatmulPreference_t preference)
{
    static const cublasLtMatmulPreferenceAttributes_t sides[] = {
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
    uint64_t workspace = GEMM_WORKSPACE_MOST;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_NONE, alignment = GEMM_ALIGNMENT;
    bool good =
        succeeded(lt->MatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace)) &&
        succeeded(lt->MatmulPreferenceSetAttribute(
            preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof reduction));
    for (cublasLtMatmulPreferenceAttributes_t side : sides)
        good = good && succeeded(lt->MatmulPreferenceSetAttribute(preference, side, &alignment,
                                                                  sizeof alignment));
    return good;
}

/* The algorithm that the library thinks best. */
static int choose_algorithm(struct kernels_gemm *gemm)
{
    const struct kernels_gemm_shape *shape = &gemm->shape;
    const struct cublaslt *lt = &gemm->device->library;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int count = 0;
    cublasStatus_t status = lt->MatmulPreferenceCreate(&preference);
    if (succeeded(status) && !set_preferences(lt, preference))
        status = CUBLAS_STATUS_INVALID_VALUE;
    if (succeeded(status))
        status = lt->MatmulAlgoGetHeuristic(gemm->device->products, gemm->operation, gemm->left,
                                            gemm->right, gemm->result, gemm->result, preference, 1,
                                            &found, &count);
    if (preference != NULL)
        (void)lt->MatmulPreferenceDestroy(preference);
    if (succeeded(status) && count > 0)
        status = found.state;
    if (!succeeded(status) || count == 0)
        return device_fail(gemm->device, ERR_DEVICE,
                           "cuBLASLt has no product (%lld, %lld) x (%lld, %lld) %s to %s: %s",
                           (long long)shape->m, (long long)shape->k, (long long)shape->k,
                           (long long)shape->n, shape->a == DTYPE_F32 ? "f32" : "bf16",
                           shape->c == DTYPE_F32 ? "f32" : "bf16", lt->GetStatusString(status));
    gemm->algorithm = found.algo;
    gemm->workspace_bytes = found.workspaceSize;
    return 0;
}

static int set_up(struct kernels_gemm *gemm)
{
    int code = device_enter(gemm->device);
    if (code == 0 && !describe_product(gemm))
        code = device_fail(gemm->device, ERR_DEVICE, "cuBLASLt cannot describe a matrix product");
    if (code == 0)
        code = choose_algorithm(gemm);
    if (code == 0 && gemm->workspace_bytes > 0)
        code = device_allocate(gemm->device, &gemm->workspace, gemm->workspace_bytes);
    return code;
}

int cuda_gemm_create(struct kernels_device *device, struct kernels_gemm **created,
                     const struct kernels_gemm_shape *shape)
{
    assert(shape->m > 0 && shape->n > 0 && shape->k > 0);
    assert(shape->a == shape->b && shape->a != DTYPE_F16 && shape->a != DTYPE_I8);
    struct kernels_gemm *gemm = static_cast<struct kernels_gemm *>(calloc(1, sizeof *gemm));
    if (gemm == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for a matrix product");
    gemm->device = device;
    gemm->shape = *shape;
    gemm->two_terms = shape->bias && shape->c == DTYPE_BF16;
    int code = set_up(gemm);
    if (code < 0)
        cuda_gemm_free(gemm);
    else
        *created = gemm;
    return code;
}

void cuda_gemm_free(struct kernels_gemm *gemm)
{
    if (gemm == NULL)
        return;
    const struct cublaslt *lt = &gemm->device->library;
    if (gemm->operation != NULL)
        (void)lt->MatmulDescDestroy(gemm->operation);
    cublasLtMatrixLayout_t layouts[] = {gemm->left, gemm->right, gemm->result};
    for (cublasLtMatrixLayout_t layout : layouts)
        if (layout != NULL)
            (void)lt->MatrixLayoutDestroy(layout);
    device_release(gemm->device, gemm->workspace);
    free(gemm);
}

size_t cuda_gemm_packed_bytes(const struct kernels_gemm *gemm)
{
    return (size_t)gemm->shape.k * (size_t)gemm->shape.n * (gemm->shape.b == DTYPE_F32 ? 4 : 2);
}

void cuda_gemm_pack(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_packed,
                    const void *d_b)
{
    CUDA_CHECK(queue, cudaMemcpyAsync(d_packed, d_b, cuda_gemm_packed_bytes(gemm),
                                      cudaMemcpyDeviceToDevice, queue->stream));
}

/* Each row of c (m, n) = the bias rounded, rest (n) = what that leaves, rounded: a block takes
 * ROWS_BLOCK packs of columns, blocks stride over rows. */
template <int V>
static __global__ void bias_rows_kernel(__nv_bfloat16 *c, __nv_bfloat16 *rest, const float *bias,
                                        size_t m, size_t n)
{
    size_t column = grid_thread() * V;
    if (column >= n)
        return;
    float values[V], left[V];
    pack_load(values, bias + column);
    for (size_t row = blockIdx.y; row < m; row += gridDim.y)
        pack_store(c + row * n + column, values);
    if (blockIdx.y > 0)
        return;
#pragma unroll
    for (int i = 0; i < V; i++) {
        float first = __bfloat162float(__float2bfloat16_rn(values[i]));
        left[i] = isfinite(first) ? values[i] - first : 0.0f; /* not inf - inf */
    }
    pack_store(rest + column, left);
}

/* Lays the bias's first term into C; the second, of the queue's workspace. */
static const void *lay_bias(struct kernels_queue *queue, const struct kernels_gemm *gemm, void *d_c,
                            const float *d_bias)
{
    enum { ROWS = 16 }; /* of a thread, or more: it has the bias but once */
    size_t m = (size_t)gemm->shape.m, n = (size_t)gemm->shape.n, across = chunk_count(m, ROWS);
    __nv_bfloat16 *d_rest =
        static_cast<__nv_bfloat16 *>(queue_workspace(queue, n * sizeof *d_rest));
    BY_PACK(n, V,
            LAUNCH(queue, bias_rows_kernel<V>,
                   dim3((unsigned)chunk_count(n, ROWS_BLOCK * V),
                        (unsigned)(across < GRID_Y_MOST ? across : GRID_Y_MOST)),
                   ROWS_BLOCK, 0, static_cast<__nv_bfloat16 *>(d_c), d_rest, d_bias, m, n));
    return d_rest;
}

static bool aligned(const void *address)
{
    return (uintptr_t)address % GEMM_ALIGNMENT == 0;
}

void cuda_gemm(struct kernels_queue *queue, struct kernels_gemm *gemm, void *d_c, const void *d_a,
               const void *d_b, const float *d_bias)
{
    assert(aligned(d_a) && aligned(d_b) && aligned(d_c) && aligned(d_bias));
    if (!queue_enter(queue))
        return;
    const struct cublaslt *lt = &queue->device->library;
    const float one = 1, kept = gemm->two_terms ? 1 : 0;
    const void *d_added = gemm->two_terms ? lay_bias(queue, gemm, d_c, d_bias) : d_bias;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (!queue_enter(queue))
        return;
    if (gemm->shape.bias)
        status = lt->MatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                            &d_added, sizeof d_added);
    if (succeeded(status))
        status =
            lt->Matmul(queue->device->products, gemm->operation, &one, d_b, gemm->left, d_a,
                       gemm->right, &kept, d_c, gemm->result, d_c, gemm->result, &gemm->algorithm,
                       gemm->workspace, gemm->workspace_bytes, queue->stream);
    if (!succeeded(status))
        queue_fail(queue, ERR_DEVICE, "cuda:%d: a matrix product failed: %s", queue->device->index,
                   lt->GetStatusString(status));
}
