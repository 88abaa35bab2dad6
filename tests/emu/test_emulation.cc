/* test_emulation.cc - the emulation finds what it is there to find: barriers and collectives,
 * tensor cores, launches and streams.
 */
#include "kernels/cuda/mma.cuh"
#include "tests/emu/cases.h"

static int mirrored(int i)
{
    return i / THREADS * THREADS + THREADS - 1 - i % THREADS;
}

/* ---- barriers */

template <bool barrier> static __global__ void mirror_kernel(int *d_values)
{
    __shared__ int tile[THREADS];
    int thread = (int)threadIdx.x, first = (int)blockIdx.x * THREADS;
    tile[thread] = first + thread;
    if (barrier)
        __syncthreads();
    d_values[first + thread] = tile[THREADS - 1 - thread];
}

template <bool barrier> static int mirror_case(void)
{
    struct bench bench = make_bench();
    RUN(bench, mirror_kernel<barrier>, bench.d_values);
    return check(bench, mirrored);
}

/* What is read before a second barrier is overwritten behind it. */
template <bool barrier> static __global__ void shift_kernel(int *d_values)
{
    __shared__ int tile[THREADS];
    int thread = (int)threadIdx.x, first = (int)blockIdx.x * THREADS;
    tile[thread] = first + thread;
    for (int round = 0; round < 2; round++) {
        __syncthreads();
        int next = tile[(thread + 1) % THREADS];
        if (barrier)
            __syncthreads();
        tile[thread] = next;
    }
    d_values[first + thread] = tile[thread];
}

static int shifted(int i)
{
    return i / THREADS * THREADS + (i + 2) % THREADS;
}

template <bool barrier> static int shift_case(void)
{
    struct bench bench = make_bench();
    RUN(bench, shift_kernel<barrier>, bench.d_values);
    return check(bench, shifted);
}

static void a_missing_barrier_shows(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(mirror_case<true>), 0);
    assert_int_equal(wrong_orders(shift_case<true>), 0);
    assert_true(wrong_orders(mirror_case<false>) >= 4);
    assert_true(wrong_orders(shift_case<false>) >= 4);
}

enum divergence { RETURNED, TWO_BARRIERS, MISSING_LANE, PART_MASK, TWO_COLLECTIVES, NO_LANE };

template <enum divergence kind> static __global__ void diverging_kernel(int *d_values)
{
    int thread = (int)threadIdx.x, odd = thread % 2;
    d_values[thread] = 0;
    if (kind == RETURNED && thread == 40)
        return;
    if (kind == TWO_BARRIERS && odd) {
        __syncthreads();
        return;
    }
    if (kind == RETURNED || kind == TWO_BARRIERS)
        __syncthreads();
    if (kind == MISSING_LANE) {
        if (thread != 7)
            d_values[thread] = __shfl_xor_sync(0xffffffffu, thread, 1);
        __syncthreads();
    }
    if (kind == PART_MASK && thread < 16)
        d_values[thread] = __shfl_xor_sync(0xffffu, thread, 1);
    if (kind == TWO_COLLECTIVES)
        d_values[thread] =
            odd ? __any_sync(0xffffffffu, 1) : __shfl_xor_sync(0xffffffffu, thread, 1);
    if (kind == NO_LANE && thread != 5)
        d_values[thread] = __shfl_sync(0xffffffffu, thread, 5);
}

template <enum divergence kind> static int diverging_case(void)
{
    struct bench bench = make_bench();
    RUN(bench, diverging_kernel<kind>, bench.d_values);
    return cudaStreamSynchronize(bench.stream) & 0xff;
}

static void collectives_that_not_all_reach_are_faults(void **state)
{
    (void)state;
    expect(diverging_case<RETURNED>, cudaErrorLaunchFailure, "threads that have returned");
    expect(diverging_case<TWO_BARRIERS>, cudaErrorLaunchFailure, "barrier");
    expect(diverging_case<MISSING_LANE>, cudaErrorLaunchFailure, "deadlock");
    expect(diverging_case<PART_MASK>, cudaErrorLaunchFailure, "part of a warp");
    expect(diverging_case<TWO_COLLECTIVES>, cudaErrorLaunchFailure, "different collectives");
    expect(diverging_case<NO_LANE>, cudaErrorLaunchFailure, "a lane that is not there");
}

/* ---- what the collectives give, by CUDA's description of them */

static __global__ void collectives_kernel(int *d_values)
{
    int lane = (int)threadIdx.x % 32, value = 100 + lane, wrong = 0;
    wrong |= __shfl_sync(~0u, value, 9) != 109;
    wrong |= __shfl_sync(~0u, value, 9, 8) != 100 + lane / 8 * 8 + 1;
    wrong |= __shfl_xor_sync(~0u, value, 5) != 100 + (lane ^ 5);
    wrong |= __shfl_up_sync(~0u, value, 3) != (lane < 3 ? value : value - 3);
    wrong |= __shfl_up_sync(~0u, value, 3, 16) != (lane % 16 < 3 ? value : value - 3);
    wrong |= __shfl_down_sync(~0u, value, 3) != (lane > 28 ? value : value + 3);
    wrong |= __shfl_down_sync(~0u, value, 3, 4) != (lane % 4 > 0 ? value : value + 3);
    wrong |= __shfl_sync(~0u, 0.5 * value, 31) != 65.5;
    wrong |= __ballot_sync(~0u, lane % 3 == 0) != 0x49249249u;
    wrong |= __any_sync(~0u, lane == 17) != 1 || __any_sync(~0u, 0) != 0;
    wrong |= __all_sync(~0u, lane != 17) != 0 || __all_sync(~0u, lane < 32) != 1;
    d_values[grid_thread()] = wrong;
}

static int collectives_case(void)
{
    struct bench bench = make_bench();
    RUN(bench, collectives_kernel, bench.d_values);
    return check(bench, nothing);
}

static void collectives_give_what_cuda_says(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(collectives_case), 0);
}

/* ---- tensor cores */

/* Each element is 1 + left * right. */
static __global__ void step_kernel(float *d_sums, float left, float right)
{
    const uint32_t a_pair = threadIdx.x % 4 == 0 ? mma_pair(left, 0) : 0; /* column 0 of A */
    const uint32_t b_pair = threadIdx.x % 4 == 0 ? mma_pair(right, 0) : 0;
    const uint32_t a[4] = {a_pair, a_pair, 0, 0}, b[2] = {b_pair, 0};
    float sums[4] = {1, 1, 1, 1};
    mma_bf16_m16n8k16(sums, a, b, sums);
    for (unsigned i = 0; i < 4; i++)
        d_sums[threadIdx.x * 4 + i] = sums[i];
}

/* What hangs over the last bit of the largest term, 2^-23 here, is cut off: of 2^-24 all, of 3
 * 2^-24 a third. A sum of f32 would round to 1 - 2^-24 and 1 + 2^-22. Numbers near the least, and
 * such as are none, come through. */
static int step_case(void)
{
    static const float factors[][3] = {{-0x1p-12f, 0x1p-12f, 1},
                                       {0x1.8p-11f, 0x1p-12f, 1 + 0x1p-23f},
                                       {-3, 5, -14},
                                       {0x1p100f, 0x1p20f, 0x1p120f},
                                       {INFINITY, 1, INFINITY}};
    struct bench bench = make_bench();
    float *d_sums = reinterpret_cast<float *>(bench.d_values), sums[4 * WARP];
    for (const float(&factor)[3] : factors) {
        emu_launch("step_kernel", step_kernel, 1, WARP, 0, bench.stream, d_sums, factor[0],
                   factor[1]);
        (void)cudaMemcpyAsync(sums, d_sums, sizeof sums, cudaMemcpyDeviceToHost, bench.stream);
        for (float sum : sums)
            if (sum != factor[2])
                return 1;
    }
    const float least[EMU_TENSOR_TERMS] = {0x1p-149f, 0x1.8p-140f};
    const float carried[EMU_TENSOR_TERMS] = {1 + 0x1p-23f, 1 + 0x1p-22f};
    return emu_tensor_sum(least) == 0x1p-149f + 0x1.8p-140f &&
                   emu_tensor_sum(carried) == 2 + 0x1p-22f
               ? 0
               : 1;
}

static void tensor_cores_cut_off(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(step_case), 0);
}

/* ---- launches */

static __global__ void idle_kernel(int *d_values)
{
    (void)d_values;
}

static cudaError_t launch_error(dim3 grid, dim3 block, size_t shared)
{
    struct bench bench = make_bench();
    emu_launch("idle_kernel", idle_kernel, grid, block, shared, bench.stream, bench.d_values);
    cudaError_t error = cudaGetLastError();
    return error != cudaSuccess ? error : cudaStreamSynchronize(bench.stream);
}

static int limits_case(void)
{
    const void *kernel = reinterpret_cast<const void *>(&idle_kernel);
    const cudaFuncAttribute most = cudaFuncAttributeMaxDynamicSharedMemorySize;
    bool good = launch_error(1, 1024, 48 << 10) == cudaSuccess &&
                launch_error(1, 1025, 0) == cudaErrorInvalidConfiguration &&
                launch_error(1, dim3(1, 1, 65), 0) == cudaErrorInvalidConfiguration &&
                launch_error(0, 32, 0) == cudaErrorInvalidConfiguration &&
                launch_error(dim3(1, 65536), 32, 0) == cudaErrorInvalidConfiguration &&
                launch_error(1, 32, (48 << 10) + 1) == cudaErrorInvalidConfiguration &&
                cudaFuncSetAttribute(kernel, most, (227 << 10) + 1) == cudaErrorInvalidValue &&
                cudaFuncSetAttribute(kernel, most, 227 << 10) == cudaSuccess &&
                launch_error(1, 32, 227 << 10) == cudaSuccess;
    return good ? 0 : 1;
}

static int lost_case(void)
{
    struct bench bench = make_bench();
    void *memory = NULL;
    RUN(bench, diverging_kernel<RETURNED>, bench.d_values);
    bool good = cudaStreamSynchronize(bench.stream) == cudaErrorLaunchFailure &&
                cudaGetLastError() == cudaErrorLaunchFailure &&
                cudaGetLastError() == cudaErrorLaunchFailure &&
                cudaMalloc(&memory, 8) == cudaErrorLaunchFailure;
    return good ? 0 : 1;
}

static void launches_have_limits_and_a_fault_stays(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(limits_case), 0);
    assert_int_equal(wrong_orders(lost_case), 0);
}

/* ---- streams */

static __global__ void count_kernel(int *d_values)
{
    d_values[grid_thread()] += (int)grid_thread();
}

/* One stream clears, another counts: with the event the one before the other. */
template <bool event> static int streams_case(void)
{
    struct bench bench = make_bench();
    cudaStream_t other = NULL;
    cudaEvent_t cleared = NULL;
    if (cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking) != cudaSuccess ||
        cudaEventCreateWithFlags(&cleared, cudaEventDisableTiming) != cudaSuccess)
        return 99;
    for (int i = 0; i < 3; i++)
        (void)cudaMemsetAsync(bench.d_values, 0, COUNT * sizeof(int), other);
    (void)cudaEventRecord(cleared, other);
    if (event)
        (void)cudaStreamWaitEvent(bench.stream, cleared, 0);
    RUN(bench, count_kernel, bench.d_values);
    return check(bench, itself);
}

/* The host's memory is read when the stream gets there. */
static int late_case(void)
{
    struct bench bench = make_bench();
    int host[COUNT] = {};
    (void)cudaMemcpyAsync(bench.d_values, host, sizeof host, cudaMemcpyHostToDevice, bench.stream);
    for (int i = 0; i < COUNT; i++)
        host[i] = i;
    return check(bench, itself);
}

static void a_missing_wait_shows(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(streams_case<true>), 0);
    assert_true(wrong_orders(streams_case<false>) >= 2);
    assert_int_equal(wrong_orders(late_case), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_shows),
        cmocka_unit_test(collectives_that_not_all_reach_are_faults),
        cmocka_unit_test(collectives_give_what_cuda_says),
        cmocka_unit_test(tensor_cores_cut_off),
        cmocka_unit_test(launches_have_limits_and_a_fault_stays),
        cmocka_unit_test(a_missing_wait_shows),
    };
    return cmocka_run_group_tests_name("emulation", tests, NULL, NULL);
}
