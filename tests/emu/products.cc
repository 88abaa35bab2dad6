/* products.cc - the calls of cuBLASLt, by their documentation.
 *
 * Matrices lie by columns: element (i, j) of a layout is at i + j leading. D (m, n) = op(A) op(B),
 * sums in f32 over k in order, of bf16 by steps of the tensor cores (emu_ptx.h), then the epilogue:
 * a bias of D's type along the rows, broadcast over the columns; relu, in which NaN becomes 0. With
 * beta 1 what lies in C is added before the epilogue, and C may be D. What the documentation does
 * not offer is refused: types other than f32 or bf16 for A and B alike, f32 from those or bf16 from
 * bf16; sizes that do not match; addresses below the alignment that was promised, or outside of
 * device memory; a workspace smaller than the algorithm asked for. That workspace is overwritten.
 */
#include <cublasLt.h>
#include <emu_ptx.h>

#include "common/dtype.h"
#include "tests/emu/emu.h"

#include <vector>

enum { ALIGNMENT_DEFAULT = 256, WORKSPACE_WANTED = 1000 };

struct cublasLtContext {
    int products;
};

struct emu_operation {
    cublasOperation_t trans_a, trans_b;
    cublasLtEpilogue_t epilogue;
    const void *bias;
};

struct emu_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t leading;
};

struct emu_preference {
    uint64_t workspace;
    uint32_t reduction, alignment[4];
};

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = new cublasLtContext();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    delete handle;
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    switch (status) {
    case CUBLAS_STATUS_SUCCESS:
        return "the operation completed successfully";
    case CUBLAS_STATUS_INVALID_VALUE:
        return "an unsupported value or parameter was passed to the function";
    case CUBLAS_STATUS_NOT_SUPPORTED:
        return "the functionality requested is not supported";
    default:
        return "the program failed to execute on the GPU";
    }
}

/* ---- descriptions */

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *operation,
                                        cublasComputeType_t compute, cudaDataType_t scale)
{
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F)
        return CUBLAS_STATUS_NOT_SUPPORTED;
    *operation = new emu_operation{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr};
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t set(void *field, size_t size, const void *value, size_t bytes)
{
    if (size != bytes)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(field, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t operation,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&operation->trans_a, sizeof operation->trans_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&operation->trans_b, sizeof operation->trans_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(&operation->epilogue, sizeof operation->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        return set(&operation->bias, sizeof operation->bias, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t operation)
{
    delete operation;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type,
                                          uint64_t rows, uint64_t columns, int64_t leading)
{
    *layout = new emu_layout{type, rows, columns, leading};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout)
{
    delete layout;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference)
{
    *preference = new emu_preference{
        0, 0x7, {ALIGNMENT_DEFAULT, ALIGNMENT_DEFAULT, ALIGNMENT_DEFAULT, ALIGNMENT_DEFAULT}};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES:
        return set(&preference->workspace, sizeof preference->workspace, value, bytes);
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK:
        return set(&preference->reduction, sizeof preference->reduction, value, bytes);
    default:
        return set(&preference->alignment[attribute - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES],
                   sizeof *preference->alignment, value, bytes);
    }
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference)
{
    delete preference;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- what a product is made of */

struct product {
    struct emu_operation operation;
    struct emu_layout a, b, d;
    const void *a_data, *b_data;
    void *d_data;
    uint64_t m, n, k;
    bool adds; /* beta is 1 */
};

static size_t element_bytes(cudaDataType_t type)
{
    return type == CUDA_R_32F ? 4 : 2;
}

static size_t layout_bytes(const struct emu_layout *layout)
{
    return ((layout->columns - 1) * (uint64_t)layout->leading + layout->rows) *
           element_bytes(layout->type);
}

static cublasStatus_t make_product(struct product *p, const struct emu_operation *operation,
                                   const struct emu_layout *a, const struct emu_layout *b,
                                   const struct emu_layout *c, const struct emu_layout *d)
{
    bool ta = operation->trans_a == CUBLAS_OP_T, tb = operation->trans_b == CUBLAS_OP_T;
    *p = {*operation, *a, *b, *d, nullptr, nullptr, nullptr, 0, 0, 0, false};
    p->m = ta ? a->columns : a->rows;
    p->k = ta ? a->rows : a->columns;
    p->n = tb ? b->rows : b->columns;
    for (const struct emu_layout *layout : {a, b, c, d})
        if (layout->rows == 0 || layout->columns == 0 || layout->leading < (int64_t)layout->rows)
            return CUBLAS_STATUS_INVALID_VALUE;
    if ((tb ? b->columns : b->rows) != p->k || d->rows != p->m || d->columns != p->n ||
        c->rows != d->rows || c->columns != d->columns || c->type != d->type)
        return CUBLAS_STATUS_INVALID_VALUE;
    bool types = a->type == b->type && (d->type == CUDA_R_32F || d->type == a->type);
    return types ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* The algorithm keeps the alignments that it counts on, and its workspace. */
enum { ALGORITHM_WORKSPACE = 4, ALGORITHM_MARK, ALGORITHM_MARK_VALUE = 0x656d75 };

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle,
                                              cublasLtMatmulDesc_t operation,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t *results, int *count)
{
    struct product p;
    (void)handle;
    *count = 0;
    cublasStatus_t status = make_product(&p, operation, a, b, c, d);
    if (status != CUBLAS_STATUS_SUCCESS || most < 1)
        return status != CUBLAS_STATUS_SUCCESS ? status : CUBLAS_STATUS_INVALID_VALUE;
    *results = cublasLtMatmulHeuristicResult_t();
    for (size_t i = 0; i < 4; i++)
        results->algo.data[i] = preference->alignment[i];
    results->workspaceSize = preference->workspace < WORKSPACE_WANTED ? 0 : WORKSPACE_WANTED;
    results->algo.data[ALGORITHM_WORKSPACE] = results->workspaceSize;
    results->algo.data[ALGORITHM_MARK] = ALGORITHM_MARK_VALUE;
    *count = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- running */

static float element(const void *data, cudaDataType_t type, uint64_t at)
{
    return type == CUDA_R_32F ? static_cast<const float *>(data)[at]
                              : dtype_bf16_to_f32(static_cast<const uint16_t *>(data)[at]);
}

/* op(matrix) as f32 by rows, or its transpose by rows. */
static std::vector<float> unpack(const void *data, const struct emu_layout &layout, bool by_columns)
{
    std::vector<float> values(layout.rows * layout.columns);
    for (uint64_t j = 0; j < layout.columns; j++)
        for (uint64_t i = 0; i < layout.rows; i++)
            values[by_columns ? j * layout.rows + i : i * layout.columns + j] =
                element(data, layout.type, j * (uint64_t)layout.leading + i);
    return values;
}

static void finish_column(const struct product &p, uint64_t j, const std::vector<float> &sums)
{
    bool bias = p.operation.epilogue & CUBLASLT_EPILOGUE_BIAS;
    bool relu = p.operation.epilogue & CUBLASLT_EPILOGUE_RELU;
    for (uint64_t i = 0; i < p.m; i++) {
        float value = sums[i];
        uint64_t at = j * (uint64_t)p.d.leading + i;
        if (p.adds)
            value += element(p.d_data, p.d.type, at);
        if (bias)
            value += element(p.operation.bias, p.d.type, i);
        if (relu)
            value = value > 0 ? value : 0.0f;
        if (p.d.type == CUDA_R_32F)
            static_cast<float *>(p.d_data)[at] = value;
        else
            static_cast<uint16_t *>(p.d_data)[at] = dtype_f32_to_bf16(value);
    }
}

/* One element's sum over k of rows of op(A) and of op(B) transposed, in steps of the tensor cores.
 */
static float add_steps(const float *left, const float *right, uint64_t k)
{
    enum { STEP = 16 };
    float sum = 0;
    for (uint64_t first = 0; first < k; first += STEP) {
        float terms[EMU_TENSOR_TERMS] = {};
        uint64_t count = std::min<uint64_t>(STEP, k - first);
        for (uint64_t l = 0; l < count; l++)
            terms[l] = left[first + l] * right[first + l];
        terms[STEP] = sum;
        sum = emu_tensor_sum(terms);
    }
    return sum;
}

/* Column j of D: the sum over k of column k of op(A), times an element of op(B). */
static void multiply(const struct product &p)
{
    bool ta = p.operation.trans_a == CUBLAS_OP_T, tb = p.operation.trans_b == CUBLAS_OP_T;
    bool tensor = p.a.type == CUDA_R_16BF;
    std::vector<float> a = unpack(p.a_data, p.a, ta == tensor); /* tensor: (m, k), else (k, m) */
    std::vector<float> b = unpack(p.b_data, p.b, !tb);          /* (n, k) */
    std::vector<float> sums(p.m);
    for (uint64_t j = 0; j < p.n; j++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (uint64_t i = 0; i < p.m && tensor; i++)
            sums[i] = add_steps(&a[i * p.k], &b[j * p.k], p.k);
        for (uint64_t l = 0; l < p.k && !tensor; l++) {
            const float *column = &a[l * p.m], factor = b[j * p.k + l];
            for (uint64_t i = 0; i < p.m; i++)
                sums[i] += factor * column[i];
        }
        finish_column(p, j, sums);
    }
}

static bool addressed(const void *address, size_t bytes, uint64_t alignment)
{
    return (uintptr_t)address % alignment == 0 && emu_is_device(address, bytes);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t operation,
                              const void *alpha, const void *a, cublasLtMatrixLayout_t a_layout,
                              const void *b, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c, cublasLtMatrixLayout_t c_layout, void *d,
                              cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    std::lock_guard<emu_mutex> guard(emu_lock);
    struct product p;
    handle->products++;
    cublasStatus_t status = make_product(&p, operation, a_layout, b_layout, c_layout, d_layout);
    if (status != CUBLAS_STATUS_SUCCESS)
        return status;
    const uint64_t *promised = algorithm->data;
    bool bias = p.operation.epilogue & CUBLASLT_EPILOGUE_BIAS;
    size_t wanted = (size_t)promised[ALGORITHM_WORKSPACE];
    float one = *static_cast<const float *>(alpha), kept = *static_cast<const float *>(beta);
    if (promised[ALGORITHM_MARK] != ALGORITHM_MARK_VALUE || one != 1 || (kept != 0 && kept != 1) ||
        c != d || !addressed(a, layout_bytes(a_layout), promised[0]) ||
        !addressed(b, layout_bytes(b_layout), promised[1]) ||
        !addressed(d, layout_bytes(d_layout), promised[3]) || workspace_bytes < wanted ||
        (wanted > 0 && !addressed(workspace, wanted, 16)) ||
        (bias && !addressed(p.operation.bias, p.m * element_bytes(p.d.type), 16)))
        return CUBLAS_STATUS_INVALID_VALUE;
    p.a_data = a;
    p.b_data = b;
    p.d_data = d;
    p.adds = kept == 1;
    cudaError_t error = emu_enqueue(stream, [p, workspace, wanted] {
        if (wanted > 0)
            memset(workspace, 0xee, wanted);
        multiply(p);
        return cudaSuccess;
    });
    return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}
