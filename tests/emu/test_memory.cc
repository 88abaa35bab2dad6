/* test_memory.cc - the emulation finds what is wrong with memory. */
#include "tests/emu/cases.h"

/* With the sanitizer, which has bytes of its own between static variables, those are not filled,
 * and what a fault says is left to it. */
#ifdef __SANITIZE_ADDRESS__
static constexpr bool STATIC_IS_FILLED = false;
static const char fault_text[] = "";
#else
static constexpr bool STATIC_IS_FILLED = true;
static const char fault_text[] = "write_kernel: thread (0, 0, 0) of block (0, 0, 0) touches memory";
#endif

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

/* The kernel runs when somebody waits; by then its memory is gone. */
template <bool wait> static int freed_case(void)
{
    struct bench bench = make_bench();
    emu_launch("write_kernel", write_kernel, 1, 1, 0, bench.stream,
               reinterpret_cast<unsigned char *>(bench.d_values), 0);
    if (wait)
        (void)cudaDeviceSynchronize();
    (void)cudaFree(bench.d_values);
    return cudaStreamSynchronize(bench.stream) & 0xff;
}

static void freeing_waits_for_nobody(void **state)
{
    (void)state;
    expect(freed_case<true>, cudaSuccess, "");
    expect(freed_case<false>, 128 + SIGSEGV, fault_text);
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
        cmocka_unit_test(memory_is_filled_with_nan),
        cmocka_unit_test(writes_beside_a_piece_of_memory_are_found),
        cmocka_unit_test(copies_are_checked_and_memory_is_bounded),
        cmocka_unit_test(freeing_waits_for_nobody),
        cmocka_unit_test(two_processes_may_have_the_same_memory),
    };
    return cmocka_run_group_tests_name("emulated memory", tests, NULL, NULL);
}
