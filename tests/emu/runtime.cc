/* runtime.cc - devices, streams, events and errors of the emulation.
 *
 * What is put into a stream runs when the host waits: for a stream, an event or the device. Until
 * then the streams advance one operation at a time, the next stream drawn at random among those
 * whose first operation need not wait for an event. So an operation that relies on another stream
 * without an event, or on host memory that has changed since, gives wrong results sooner or later.
 *
 * An error of a kernel stays, as on the device: every later call returns it.
 */
#include "tests/emu/emu.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <deque>
#include <vector>

emu_mutex emu_lock;

void emu_mutex::lock(void)
{
    mutex.lock();
    depth++;
}

void emu_mutex::unlock(void)
{
    depth--;
    mutex.unlock();
}

void emu_mutex::pause(void)
{
    const struct timespec millisecond = {0, 1000000};
    unsigned held = depth;
    for (unsigned i = 0; i < held; i++)
        unlock();
    (void)nanosleep(&millisecond, NULL);
    for (unsigned i = 0; i < held; i++)
        lock();
}

typedef std::lock_guard<emu_mutex> emu_guard;

enum { DEVICES = 2, THREADS_MOST = 1024, GRID_YZ_MOST = 65535 };

struct emu_event {
    uint64_t recorded, done; /* how often */
};

struct operation {
    struct emu_event *waits_for; /* with `number`, or NULL: it may run at once */
    uint64_t number;
    std::function<cudaError_t()> body;
    std::function<bool()> done; /* of what waits for another process; else empty */
};

struct emu_stream {
    std::deque<struct operation> operations;
};

static std::vector<struct emu_stream *> streams;
static cudaError_t sticky = cudaSuccess;                  /* of a kernel: the context is lost */
static thread_local cudaError_t last_error = cudaSuccess; /* what cudaGetLastError() tells once */
static uint64_t random_state = 1;

/* ---- order */
enum emu_direction emu_order(void)
{
    static int direction = -1;
    if (direction >= 0)
        return (enum emu_direction)direction;
    const char *named = getenv("EMU_ORDER");
    if (named == NULL || strcmp(named, "forward") == 0) {
        direction = EMU_FORWARD;
    } else if (strcmp(named, "backward") == 0) {
        direction = EMU_BACKWARD;
    } else if (strncmp(named, "random:", 7) == 0) {
        direction = EMU_RANDOM;
        random_state = strtoull(named + 7, NULL, 10);
    } else {
        fprintf(stderr, "emu: EMU_ORDER is '%s', not forward, backward or random:SEED\n", named);
        abort();
    }
    return (enum emu_direction)direction;
}

unsigned emu_random(unsigned n)
{
    (void)emu_order();
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (unsigned)((z ^ (z >> 31)) % n);
}

/* ---- errors and devices */
cudaError_t cudaGetLastError(void)
{
    emu_guard guard(emu_lock);
    cudaError_t error = sticky != cudaSuccess ? sticky : last_error;
    last_error = cudaSuccess;
    return error;
}

static const struct {
    cudaError_t error;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration",
     "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorDeviceUninitialized, "cudaErrorDeviceUninitialized", "invalid device context"},
    {cudaErrorMapBufferObjectFailed, "cudaErrorMapBufferObjectFailed",
     "mapping of buffer object failed"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
};

const char *cudaGetErrorName(cudaError_t error)
{
    for (const auto &entry : errors)
        if (entry.error == error)
            return entry.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error)
{
    for (const auto &entry : errors)
        if (entry.error == error)
            return entry.text;
    return "unrecognized error code";
}

/* EMU_DRIVER is the version of the driver: 0 none, below the runtime's too old. */
cudaError_t cudaDriverGetVersion(int *version)
{
    const char *named = getenv("EMU_DRIVER");
    *version = named != NULL ? (int)strtol(named, NULL, 10) : 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

/* EMU_DEVICES is how many there are. */
cudaError_t cudaGetDeviceCount(int *count)
{
    int driver = 0, runtime = 0;
    *count = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver < runtime)
        return cudaErrorInsufficientDriver;
    const char *named = getenv("EMU_DEVICES");
    *count = named != NULL ? (int)strtol(named, NULL, 10) : DEVICES;
    return *count > 0 ? cudaSuccess : cudaErrorNoDevice;
}

/* EMU_CAPABILITY: 80, 90, ... */
static int capability(void)
{
    const char *named = getenv("EMU_CAPABILITY");
    return named != NULL ? (int)strtol(named, NULL, 10) : 90;
}

/* Of a block, by the programming guide's table. */
static size_t shared_most(void)
{
    int number = capability();
    return (size_t)(number == 80 ? 163 : number < 90 ? 99 : 227) << 10;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess)
        return error;
    if (device < 0 || device >= count)
        return cudaErrorInvalidDevice;
    size_t free_bytes = 0;
    memset(properties, 0, sizeof *properties);
    snprintf(properties->name, sizeof properties->name, "emulated device");
    /* A device has one name in all processes. */
    snprintf(properties->uuid.bytes, sizeof properties->uuid.bytes, "emulated %hu",
             (unsigned short)device);
    properties->major = capability() / 10;
    properties->minor = capability() % 10;
    properties->multiProcessorCount = 4;
    properties->sharedMemPerBlockOptin = shared_most();
    return cudaMemGetInfo(&free_bytes, &properties->totalGlobalMem);
}

static thread_local int current_device;

cudaError_t cudaSetDevice(int device)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess)
        return error;
    if (device < 0 || device >= count)
        return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}

int emu_device(void)
{
    return current_device;
}

/* ---- running */
static bool ready(const struct emu_stream *stream)
{
    if (stream->operations.empty())
        return false;
    const struct operation &first = stream->operations.front();
    if (sticky != cudaSuccess) /* nothing runs any more, and nothing is waited for */
        return true;
    if (first.done)
        return first.done();
    return first.waits_for == NULL || first.waits_for->done >= first.number;
}

/* One operation of one stream; false if no stream has one that may run. */
static bool advance(void)
{
    std::vector<struct emu_stream *> able;
    for (struct emu_stream *stream : streams)
        if (ready(stream))
            able.push_back(stream);
    if (able.empty())
        return false;
    struct emu_stream *stream = able[emu_random((unsigned)able.size())];
    struct operation operation = std::move(stream->operations.front());
    stream->operations.pop_front();
    if (sticky == cudaSuccess && operation.body)
        sticky = operation.body();
    return true;
}

/* Something in a stream waits, or will, for another process. */
static bool has_links(void)
{
    for (struct emu_stream *stream : streams)
        for (const struct operation &operation : stream->operations)
            if (operation.done)
                return true;
    return false;
}

void emu_advance_links(void)
{
    if (has_links())
        (void)advance();
}

static void run_while(const std::function<bool()> &wanted)
{
    while (wanted()) {
        if (advance())
            continue;
        if (has_links()) {
            emu_lock.pause();
        } else {
            fprintf(stderr, "emu: the streams wait for each other\n");
            abort();
        }
    }
    if (sticky == cudaSuccess && !emu_memory_intact())
        sticky = cudaErrorIllegalAddress;
}

static bool is_stream(cudaStream_t stream)
{
    for (struct emu_stream *known : streams)
        if (known == stream)
            return true;
    return false;
}

cudaError_t emu_enqueue(cudaStream_t stream, std::function<cudaError_t()> body)
{
    if (!is_stream(stream))
        return cudaErrorInvalidResourceHandle;
    if (sticky == cudaSuccess)
        stream->operations.push_back({NULL, 0, std::move(body), nullptr});
    return sticky;
}

cudaError_t emu_enqueue_waiting(cudaStream_t stream, std::function<bool()> done)
{
    if (!is_stream(stream))
        return cudaErrorInvalidResourceHandle;
    if (sticky == cudaSuccess)
        stream->operations.push_back({NULL, 0, nullptr, std::move(done)});
    return sticky;
}

cudaError_t cudaDeviceSynchronize(void)
{
    emu_guard guard(emu_lock);
    run_while([] {
        for (struct emu_stream *stream : streams)
            if (!stream->operations.empty())
                return true;
        return false;
    });
    return sticky;
}

/* ---- memory: memory.cc has the pieces. Letting go of memory waits for nothing: cudaFree() only
 * may wait for the device, and of cudaIpcCloseMemHandle() it is not said. */
cudaError_t emu_allocate(void **memory, size_t bytes);
cudaError_t emu_release(void *memory, bool mapped);

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    emu_guard guard(emu_lock);
    cudaError_t error = sticky != cudaSuccess ? sticky : emu_allocate(memory, bytes);
    if (error != cudaSuccess)
        last_error = error;
    return error;
}

cudaError_t cudaFree(void *memory)
{
    emu_guard guard(emu_lock);
    if (memory == NULL)
        return sticky;
    cudaError_t error = emu_release(memory, false);
    return sticky != cudaSuccess ? sticky : error;
}

cudaError_t cudaIpcCloseMemHandle(void *memory)
{
    emu_guard guard(emu_lock);
    cudaError_t error = emu_release(memory, true);
    return sticky != cudaSuccess ? sticky : error;
}

/* To host memory that is not page-locked the host waits until it is done. */
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    if (bytes == 0)
        return sticky;
    bool to_device = kind != cudaMemcpyDeviceToHost, from_device = kind != cudaMemcpyHostToDevice;
    if (emu_is_device(to, bytes) != to_device || emu_is_device(from, bytes) != from_device)
        return cudaErrorInvalidValue;
    cudaError_t error = emu_enqueue(stream, [=] {
        memmove(to, from, bytes);
        return cudaSuccess;
    });
    bool waits = !to_device && !emu_is_locked(to, bytes);
    return error == cudaSuccess && waits ? cudaStreamSynchronize(stream) : error;
}

/* Done on return: what the device does is waited for. */
cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    emu_guard guard(emu_lock);
    cudaError_t error = cudaDeviceSynchronize();
    if (error != cudaSuccess || bytes == 0)
        return error;
    if (!emu_is_device(to, bytes))
        return cudaErrorInvalidValue;
    memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    if (bytes == 0)
        return sticky;
    if (!emu_is_device(to, bytes))
        return cudaErrorInvalidValue;
    return emu_enqueue(stream, [=] {
        memset(to, value, bytes);
        return cudaSuccess;
    });
}

/* ---- streams and events */
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    emu_guard guard(emu_lock);
    (void)flags;
    if (sticky != cudaSuccess)
        return sticky;
    streams.push_back(*stream = new emu_stream());
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    if (!is_stream(stream))
        return cudaErrorInvalidResourceHandle;
    run_while([stream] { return !stream->operations.empty(); });
    return sticky;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    cudaError_t error = cudaStreamSynchronize(stream);
    if (error == cudaErrorInvalidResourceHandle)
        return error;
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream)
            streams.erase(streams.begin() + (ptrdiff_t)i);
    delete stream;
    return error;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    emu_guard guard(emu_lock);
    (void)flags;
    if (sticky != cudaSuccess)
        return sticky;
    *event = new emu_event();
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    emu_guard guard(emu_lock);
    uint64_t number = ++event->recorded;
    return emu_enqueue(stream, [event, number] {
        event->done = number;
        return cudaSuccess;
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    emu_guard guard(emu_lock);
    (void)flags;
    if (!is_stream(stream))
        return cudaErrorInvalidResourceHandle;
    if (sticky == cudaSuccess)
        stream->operations.push_back({event, event->recorded, nullptr, nullptr});
    return sticky;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    emu_guard guard(emu_lock);
    uint64_t number = event->recorded;
    run_while([event, number] { return sticky == cudaSuccess && event->done < number; });
    return sticky;
}

/* Who asks and asks again sees the device get on: each question lets it take a step. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    emu_guard guard(emu_lock);
    if (sticky == cudaSuccess && event->done < event->recorded) {
        bool stepped = false;
        run_while([&stepped] { return !stepped && (stepped = true); });
        if (sticky == cudaSuccess && event->done < event->recorded)
            return last_error = cudaErrorNotReady;
    }
    return sticky;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    emu_guard guard(emu_lock);
    (void)cudaDeviceSynchronize();
    delete event;
    return sticky;
}

/* ---- launches */
enum { SHARED_PLAIN = 48 << 10 };
static std::vector<const void *> with_more_shared; /* kernels that asked for it */

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value)
{
    emu_guard guard(emu_lock);
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 ||
        (size_t)value > shared_most())
        return cudaErrorInvalidValue;
    with_more_shared.push_back(kernel);
    return cudaSuccess;
}

static bool may_have(const struct emu_shape &shape)
{
    if (shape.shared_bytes <= SHARED_PLAIN)
        return true;
    for (const void *kernel : with_more_shared)
        if (kernel == shape.kernel)
            return shape.shared_bytes <= shared_most();
    return false;
}

static bool within_limits(const struct emu_shape &shape)
{
    const dim3 &grid = shape.grid, &block = shape.block;
    uint64_t threads = (uint64_t)block.x * block.y * block.z;
    return threads > 0 && threads <= THREADS_MOST && block.x <= THREADS_MOST &&
           block.y <= THREADS_MOST && block.z <= 64 && grid.x > 0 && grid.y > 0 && grid.z > 0 &&
           grid.x <= 0x7fffffffu && grid.y <= GRID_YZ_MOST && grid.z <= GRID_YZ_MOST &&
           may_have(shape);
}

/* EMU_FAIL=N: the process's N-th kernel is lost, and the context with it. */
static bool is_lost(void)
{
    static unsigned long kernels;
    const char *named = getenv("EMU_FAIL");
    return named != NULL && ++kernels == strtoul(named, NULL, 10);
}

void emu_enqueue_kernel(const struct emu_shape &shape, cudaStream_t stream,
                        std::function<void()> thread)
{
    emu_guard guard(emu_lock);
    if (!within_limits(shape)) {
        fprintf(stderr, "emu: %s: grid (%u, %u, %u), block (%u, %u, %u), %zu bytes shared\n",
                shape.name, shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x, shape.block.y,
                shape.block.z, shape.shared_bytes);
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    cudaError_t error = emu_enqueue(stream, [shape, thread] {
        return is_lost() ? cudaErrorLaunchFailure : emu_run_kernel(shape, thread);
    });
    if (error != cudaSuccess)
        last_error = error;
}
