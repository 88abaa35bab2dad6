/* test_emulation.cc - the emulation finds what it is there to find.
 *
 * Each case is a process of its own, as faults of a kernel stay, and is one kernel with a mistake
 * or its correct twin. What it says on standard error comes back through a pipe.
 */
#include "kernels/cuda/cuda.h"
#include "tests/emu/emu.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

extern "C" { /* not all of it says so itself */
#include <cmocka.h>
}

enum { THREADS = 96, BLOCKS = 3, COUNT = THREADS * BLOCKS };
static const char *const orders[] = {"forward", "backward", "random:1", "random:2", "random:3"};

/* With the sanitizer, which has bytes of its own between static variables, those are not filled,
 * and what a fault says is left to it. */
#ifdef __SANITIZE_ADDRESS__
static constexpr bool STATIC_IS_FILLED = false;
static const char fault_text[] = "";
#else
static constexpr bool STATIC_IS_FILLED = true;
static const char fault_text[] = "write_kernel: thread (0, 0, 0) of block (0, 0, 0) touches memory";
#endif

/* ---- cases */

struct outcome {
    int status; /* exit status, or 128 + the signal */
    char said[2048];
};

/* Runs body under that order in a child. */
static struct outcome in_child(int (*body)(void), const char *order)
{
    struct outcome outcome = {};
    int ends[2], status = 0;
    size_t length = 0;
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60);
        signal(SIGSEGV, SIG_DFL); /* cmocka's handler would go on with its tests */
        setenv("EMU_ORDER", order, 1);
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        _exit(body());
    }
    close(ends[1]);
    for (ssize_t got;
         (got = read(ends[0], outcome.said + length, sizeof outcome.said - 1 - length)) > 0;)
        length += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return outcome;
}

/* Under every order the case ends with that status (a cudaError_t's low byte, or 1) and says that.
 */
static void expect(int (*body)(void), int status, const char *text)
{
    for (const char *order : orders) {
        struct outcome outcome = in_child(body, order);
        if (outcome.status != (status & 0xff) || strstr(outcome.said, text) == NULL)
            fail_msg("%s: status %d, not %d; it said: %s (not: %s)", order, outcome.status,
                     status & 0xff, outcome.said, text);
    }
}

/* How many of the orders end with status 1: a wrong result. */
static unsigned wrong_orders(int (*body)(void))
{
    unsigned wrong = 0;
    for (const char *order : orders) {
        struct outcome outcome = in_child(body, order);
        if (outcome.status > 1)
            fail_msg("%s: status %d; it said: %s", order, outcome.status, outcome.said);
        wrong += outcome.status == 1;
    }
    return wrong;
}

/* A stream and memory of COUNT ints, as every case wants them. */
struct bench {
    cudaStream_t stream;
    int *d_values;
};

static struct bench make_bench(void)
{
    struct bench bench = {};
    void *memory = NULL;
    if (cudaStreamCreateWithFlags(&bench.stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaMalloc(&memory, COUNT * sizeof(int)) != cudaSuccess)
        _exit(99);
    bench.d_values = static_cast<int *>(memory);
    return bench;
}

/* 0 if value i is want(i) for all, 1 if not, or the low byte of an error. */
static int check(const struct bench &bench, int (*want)(int i))
{
    int values[COUNT];
    (void)cudaMemcpyAsync(values, bench.d_values, sizeof values, cudaMemcpyDeviceToHost,
                          bench.stream);
    cudaError_t error = cudaStreamSynchronize(bench.stream);
    if (error != cudaSuccess)
        return error & 0xff;
    for (int i = 0; i < COUNT; i++)
        if (values[i] != want(i))
            return 1;
    return 0;
}

#define RUN(bench, kernel, ...) \
    emu_launch(#kernel, kernel, BLOCKS, THREADS, 0, (bench).stream, __VA_ARGS__)

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

static int nothing(int i)
{
    return 0 * i;
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

/* ---- memory */

/* Dynamic and static shared memory, new device memory: nobody finds zeros, or what another block
 * left. */
static __global__ void poison_kernel(int *d_values)
{
    __shared__ int tile[THREADS];
    DYNAMIC_SHARED(int, dynamic);
    int thread = (int)threadIdx.x, *d_value = &d_values[grid_thread()];
    bool filled = !STATIC_IS_FILLED || tile[thread] == -1;
    *d_value = *d_value == -1 && filled && dynamic[thread] == -1 ? 0 : 1;
    tile[thread] = dynamic[thread] = 7;
}

static int poison_case(void)
{
    struct bench bench = make_bench();
    emu_launch("poison_kernel", poison_kernel, BLOCKS, THREADS, THREADS * sizeof(int), bench.stream,
               bench.d_values);
    return check(bench, nothing);
}

static void memory_is_filled_with_nan(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(poison_case), 0);
}

static __global__ void write_kernel(unsigned char *d_bytes, ptrdiff_t at)
{
    d_bytes[at] = 1;
}

enum { ODD_BYTES = 1001 };

template <ptrdiff_t at> static int write_case(void)
{
    struct bench bench = make_bench();
    void *memory = NULL;
    if (cudaMalloc(&memory, ODD_BYTES) != cudaSuccess)
        return 99;
    emu_launch("write_kernel", write_kernel, 1, 1, 0, bench.stream,
               static_cast<unsigned char *>(memory), at);
    return cudaStreamSynchronize(bench.stream) & 0xff;
}

static void writes_beside_a_piece_of_memory_are_found(void **state)
{
    (void)state;
    expect(write_case<0>, cudaSuccess, "");
    expect(write_case<ODD_BYTES - 1>, cudaSuccess, "");
    expect(write_case<ODD_BYTES>, cudaErrorIllegalAddress, "wrote 1001 bytes behind");
    expect(write_case<-1>, cudaErrorIllegalAddress, "wrote -1 bytes behind");
    expect(write_case<ODD_BYTES + 16>, 128 + SIGSEGV, fault_text);
    expect(write_case<-4096>, 128 + SIGSEGV, fault_text); /* in the page before its own */
}

static int copy_case(void)
{
    struct bench bench = make_bench();
    int host[COUNT] = {};
    size_t bytes = sizeof host;
    /* Too long by one, and host memory where the device's is meant, and the other way about. */
    bool refused =
        cudaMemcpyAsync(bench.d_values, host, bytes + 1, cudaMemcpyHostToDevice, bench.stream) &&
        cudaMemcpyAsync(host, host, bytes, cudaMemcpyHostToDevice, bench.stream) &&
        cudaMemcpyAsync(bench.d_values, host, bytes, cudaMemcpyDeviceToDevice, bench.stream) &&
        cudaMemcpyAsync(bench.d_values, bench.d_values, bytes, cudaMemcpyDeviceToHost,
                        bench.stream) &&
        cudaMemsetAsync(bench.d_values + 1, 0, bytes, bench.stream);
    return refused ? 0 : 1;
}

static int memory_case(void)
{
    setenv("EMU_MEMORY", "100000", 1);
    void *first = NULL, *second = NULL, *third = NULL;
    size_t available = 0, total = 0;
    bool good = cudaMalloc(&first, 60000) == cudaSuccess &&
                cudaMalloc(&second, 50000) == cudaErrorMemoryAllocation &&
                cudaMemGetInfo(&available, &total) == cudaSuccess && available == 40000 &&
                cudaFree(first) == cudaSuccess && cudaFree(first) == cudaErrorInvalidValue &&
                cudaMalloc(&third, 100000) == cudaSuccess;
    return good ? 0 : 1;
}

static void copies_are_checked_and_memory_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(wrong_orders(copy_case), 0);
    assert_int_equal(wrong_orders(memory_case), 0);
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

static int itself(int i)
{
    return i;
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

/* ---- memory of another process */

static __global__ void next_kernel(int *d_values)
{
    d_values[grid_thread()] += 1;
}

/* The process that is given the handle: 0 if all is as it should be. It adds 1 to each value, then
 * writes a byte behind the end, as `beside` says. */
static int borrow(const cudaIpcMemHandle_t &handle, bool beside)
{
    struct bench bench = make_bench();
    cudaIpcMemHandle_t wrong = handle;
    wrong.reserved[0] ^= 1;
    void *memory = NULL;
    cudaIpcMemHandle_t again;
    if (cudaIpcOpenMemHandle(&memory, wrong, cudaIpcMemLazyEnablePeerAccess) !=
            cudaErrorInvalidResourceHandle ||
        cudaIpcOpenMemHandle(&memory, handle, 0) != cudaErrorInvalidValue ||
        cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess) != cudaSuccess ||
        cudaIpcGetMemHandle(&again, memory) != cudaErrorInvalidValue ||
        cudaFree(memory) != cudaErrorInvalidValue)
        return 2;
    int *d_values = static_cast<int *>(memory);
    RUN(bench, next_kernel, d_values);
    if (cudaStreamSynchronize(bench.stream) != cudaSuccess)
        return 3;
    if (beside) {
        emu_launch("write_kernel", write_kernel, 1, 1, 0, bench.stream,
                   static_cast<unsigned char *>(memory), (ptrdiff_t)(COUNT * sizeof(int) + 1));
        return cudaStreamSynchronize(bench.stream) == cudaErrorIllegalAddress ? 0 : 4;
    }
    return cudaIpcCloseMemHandle(memory) == cudaSuccess &&
                   cudaIpcCloseMemHandle(memory) == cudaErrorInvalidValue
               ? 0
               : 5;
}

/* One more byte than COUNT ints, so that there are bytes around which nobody may write. */
template <bool beside> static int sharing_case(void)
{
    int ends[2], status = 0, host[COUNT];
    cudaIpcMemHandle_t handle;
    if (pipe(ends) != 0)
        return 99;
    pid_t child = fork();
    if (child == 0) {
        bool got = read(ends[0], &handle, sizeof handle) == (ssize_t)sizeof handle;
        _exit(got ? borrow(handle, beside) : 99);
    }
    struct bench bench = make_bench();
    void *memory = NULL;
    (void)cudaMalloc(&memory, sizeof host + 1);
    for (int i = 0; i < COUNT; i++)
        host[i] = i - 1;
    (void)cudaMemcpyAsync(memory, host, sizeof host, cudaMemcpyHostToDevice, bench.stream);
    bool good =
        cudaStreamSynchronize(bench.stream) == cudaSuccess &&
        cudaIpcGetMemHandle(&handle, static_cast<int *>(memory) + 1) == cudaErrorInvalidValue &&
        cudaIpcGetMemHandle(&handle, host) == cudaErrorInvalidValue &&
        cudaIpcGetMemHandle(&handle, memory) == cudaSuccess;
    void *own = NULL;
    good = good && cudaIpcCloseMemHandle(memory) == cudaErrorInvalidValue &&
           cudaIpcOpenMemHandle(&own, handle, cudaIpcMemLazyEnablePeerAccess) ==
               cudaErrorDeviceUninitialized &&
           write(ends[1], &handle, sizeof handle) == (ssize_t)sizeof handle;
    (void)close(ends[1]);
    good = waitpid(child, &status, 0) == child && status == 0 && good;
    if (!good)
        fprintf(stderr, "the other process: status %x\n", (unsigned)status);
    bench.d_values = static_cast<int *>(memory);
    cudaError_t error = beside ? cudaStreamSynchronize(bench.stream) : cudaSuccess;
    if (!good || beside)
        return good ? error & 0xff : 98;
    return check(bench, itself);
}

/* Its owner has ended before the other one asks for it. */
static int orphan_case(void)
{
    int ends[2];
    cudaIpcMemHandle_t handle;
    if (pipe(ends) != 0)
        return 99;
    pid_t child = fork();
    if (child == 0) {
        void *memory = NULL;
        bool made = cudaMalloc(&memory, 1) == cudaSuccess &&
                    cudaIpcGetMemHandle(&handle, memory) == cudaSuccess &&
                    write(ends[1], &handle, sizeof handle) == (ssize_t)sizeof handle;
        _exit(made ? 0 : 1);
    }
    int status = 0;
    void *memory = NULL;
    if (waitpid(child, &status, 0) != child || status != 0 ||
        read(ends[0], &handle, sizeof handle) != (ssize_t)sizeof handle)
        return 99;
    return cudaIpcOpenMemHandle(&memory, handle, cudaIpcMemLazyEnablePeerAccess) & 0xff;
}

static void two_processes_may_have_the_same_memory(void **state)
{
    (void)state;
    expect(sharing_case<false>, cudaSuccess, "");
    expect(sharing_case<true>, cudaErrorIllegalAddress, "behind the start of a piece of 1153");
    expect(orphan_case, cudaErrorMapBufferObjectFailed, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_barrier_shows),
        cmocka_unit_test(collectives_that_not_all_reach_are_faults),
        cmocka_unit_test(collectives_give_what_cuda_says),
        cmocka_unit_test(memory_is_filled_with_nan),
        cmocka_unit_test(writes_beside_a_piece_of_memory_are_found),
        cmocka_unit_test(copies_are_checked_and_memory_is_bounded),
        cmocka_unit_test(launches_have_limits_and_a_fault_stays),
        cmocka_unit_test(a_missing_wait_shows),
        cmocka_unit_test(two_processes_may_have_the_same_memory),
    };
    return cmocka_run_group_tests_name("emulation", tests, NULL, NULL);
}
