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
 * to bf16 is not what the shape says. So the product goes to f32 first and finish_kernel adds, cuts
 * at zero and rounds: 10 m n bytes more. A relu without bias is left to the library, in which as in
 * finish_kernel NaN becomes 0.
 *
 * Packing. The tensor cores read both layouts at full speed, so a packed B is a copy of B.
 */
#include "kernels/cuda/cuda.h"

#include <stdlib.h>

enum { GEMM_WORKSPACE_MOST = 32 << 20, GEMM_ALIGNMENT = 16, FINISH_BLOCK = 256 };

struct kernels_gemm {
    struct kernels_device *device;
    struct kernels_gemm_shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t left, right, result; /* B, A and C, by columns */
    cublasLtMatmulAlgo_t algorithm;
    void *workspace;
    size_t workspace_bytes;
    float *d_sums; /* (m, n) f32 before finish_kernel, or NULL: the library writes C */
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
    bool bias = gemm->shape.bias && gemm->d_sums == NULL;
    bool relu = gemm->shape.relu && gemm->d_sums == NULL;
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
    enum dtype c = gemm->d_sums != NULL ? DTYPE_F32 : shape->c;
    return succeeded(lt->MatmulDescCreate(&gemm->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F)) &&
           set_transposed(gemm, CUBLASLT_MATMUL_DESC_TRANSA, shape->trans_b) &&
           set_transposed(gemm, CUBLASLT_MATMUL_DESC_TRANSB, shape->trans_a) &&
           set_epilogue(gemm) &&
           create_layout(lt, &gemm->left, shape->b, shape->k, shape->n, shape->trans_b) &&
           create_layout(lt, &gemm->right, shape->a, shape->m, shape->k, shape->trans_a) &&
           create_layout(lt, &gemm->result, c, shape->m, shape->n, false);
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
    const struct kernels_gemm_shape *shape = &gemm->shape;
    int code = device_enter(gemm->device);
    if (code == 0 && shape->bias && shape->c == DTYPE_BF16) {
        void *d_sums = NULL;
        code = device_allocate(gemm->device, &d_sums,
                               (size_t)shape->m * (size_t)shape->n * sizeof *gemm->d_sums);
        gemm->d_sums = static_cast<float *>(d_sums);
    }
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
    device_release(gemm->device, gemm->d_sums);
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

/* c (m, n) = act(sums + bias), in bf16: a block takes FINISH_BLOCK columns, blocks stride over
 * rows. */
static __global__ void finish_kernel(__nv_bfloat16 *d_c, const float *d_sums, const float *d_bias,
                                     bool relu, size_t m, size_t n)
{
    size_t column = grid_thread();
    if (column >= n)
        return;
    float bias = d_bias[column];
    for (size_t row = blockIdx.y; row < m; row += gridDim.y) {
        float value = d_sums[row * n + column] + bias;
        if (relu)
            value = value > 0 ? value : 0.0f;
        d_c[row * n + column] = __float2bfloat16_rn(value);
    }
}

static void finish(struct kernels_queue *queue, const struct kernels_gemm *gemm, void *d_c,
                   const float *d_bias)
{
    size_t m = (size_t)gemm->shape.m, n = (size_t)gemm->shape.n;
    dim3 grid((unsigned)chunk_count(n, FINISH_BLOCK),
              (unsigned)(m < GRID_Y_MOST ? m : GRID_Y_MOST));
    LAUNCH(queue, finish_kernel, grid, FINISH_BLOCK, 0, static_cast<__nv_bfloat16 *>(d_c),
           gemm->d_sums, d_bias, gemm->shape.relu, m, n);
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
    const float one = 1, zero = 0;
    void *d_result = gemm->d_sums != NULL ? gemm->d_sums : d_c;
    cublasStatus_t status = CUBLAS_STATUS_SUCCESS;
    if (gemm->shape.bias && gemm->d_sums == NULL)
        status = lt->MatmulDescSetAttribute(gemm->operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER,
                                            &d_bias, sizeof d_bias);
    if (succeeded(status))
        status =
            lt->Matmul(queue->device->products, gemm->operation, &one, d_b, gemm->left, d_a,
                       gemm->right, &zero, d_result, gemm->result, d_result, gemm->result,
                       &gemm->algorithm, gemm->workspace, gemm->workspace_bytes, queue->stream);
    if (!succeeded(status))
        queue_fail(queue, ERR_DEVICE, "cuda:%d: a matrix product failed: %s", queue->device->index,
                   lt->GetStatusString(status));
    if (gemm->d_sums != NULL)
        finish(queue, gemm, d_c, d_bias);
}
