/* device.cu - a CUDA device: memory, queues, events, copies.
 *
 * A queue is a stream, and every call returns before its work is done; wait() and event_sync() are
 * the only ones that wait for the device. The current device is a setting of each host thread, so
 * whoever works on a queue enters its device first.
 *
 * Failures of a kernel come back from whatever call happens to be next. They are logged by the
 * first that sees one, with its own name: the fault may lie earlier in the queue.
 */
#include "kernels/cuda/cuda.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPABILITY_LEAST = 8 };

/* Of kernels.h. The emulation computes every row of a chunk, and its inputs are short. */
#ifdef CCPIPE_EMU
enum { CHUNK_TOKENS = 64 };
#else
enum { CHUNK_TOKENS = 16384 };
#endif

int device_fail(const struct kernels_device *device, int code, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return device->host->fail(code, message);
}

int device_check(const struct kernels_device *device, cudaError_t status, const char *what)
{
    if (status == cudaSuccess)
        return 0;
    if (status == device->told) /* a lost device fails each of its queues */
        return ERR_DEVICE;
    if (status != cudaErrorMemoryAllocation)
        device->told = status;
    return device_fail(device, status == cudaErrorMemoryAllocation ? ERR_MEMORY : ERR_DEVICE,
                       "cuda:%d failed at or before %s: %s (%s)", device->index, what,
                       cudaGetErrorString(status), cudaGetErrorName(status));
}

int device_enter(const struct kernels_device *device)
{
    return device_check(device, cudaSetDevice(device->index), "cudaSetDevice");
}

void queue_fail(struct kernels_queue *queue, int code, const char *format, ...)
{
    if (queue->error != 0)
        return;
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    queue->error = queue->device->host->fail(code, message);
}

void queue_check(struct kernels_queue *queue, cudaError_t status, const char *what)
{
    if (queue->error == 0)
        queue->error = device_check(queue->device, status, what);
}

bool queue_enter(struct kernels_queue *queue)
{
    if (queue->error == 0)
        queue->error = device_enter(queue->device);
    return queue->error == 0;
}

bool queue_allow_shared(struct kernels_queue *queue, const void *kernel, size_t bytes,
                        const char *what)
{
    if (bytes > DYNAMIC_SHARED_PLAIN)
        queue_check(
            queue,
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            what);
    return queue->error == 0;
}

/* ---- opening */

/* Why there is no device: no driver, one that is too old for the runtime, or no GPU. */
static int no_device(const struct kernels_host *host, cudaError_t status)
{
    char message[256];
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        snprintf(message, sizeof message,
                 "there is no CUDA device: no NVIDIA driver is installed, or none that this "
                 "process may use");
    else if (status == cudaErrorInsufficientDriver)
        snprintf(message, sizeof message,
                 "the NVIDIA driver is too old: it knows CUDA %d.%d, this program needs %d.%d; "
                 "install a newer driver",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else
        snprintf(message, sizeof message, "there is no CUDA device: %s (%s)",
                 cudaGetErrorString(status), cudaGetErrorName(status));
    return host->fail(ERR_DEVICE, message);
}

/* Fills in what is known of the device, after it is known that there are any. */
static int describe(struct kernels_device *device, int count)
{
    if (device->index >= count)
        return device_fail(device, ERR_DEVICE, "there is no cuda:%d: %d device%s, from cuda:0",
                           device->index, count, count == 1 ? "" : "s");
    struct cudaDeviceProp found;
    int code = device_check(device, cudaGetDeviceProperties(&found, device->index),
                            "cudaGetDeviceProperties");
    if (code < 0)
        return code;
    if (found.major < CAPABILITY_LEAST)
        return device_fail(device, ERR_DEVICE,
                           "cuda:%d (%s) has compute capability %d.%d, at least %d.0 is needed",
                           device->index, found.name, found.major, found.minor, CAPABILITY_LEAST);
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    memcpy(device->uuid, &found.uuid, sizeof device->uuid);
    device->processors = found.multiProcessorCount;
    device->shared_most = found.sharedMemPerBlockOptin;
    snprintf(device->description, sizeof device->description,
             "cuda:%d: %.120s, %.1f GiB, sm_%d%d, %s, driver for CUDA %d.%d, runtime %d.%d",
             device->index, found.name, (double)found.totalGlobalMem / (1 << 30), found.major,
             found.minor, device->type == DTYPE_F32 ? "f32" : "bf16, f32 sums", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    return 0;
}

static int cuda_open(struct kernels_device **opened, unsigned index, unsigned threads,
                     enum dtype type, const struct kernels_host *host)
{
    assert(type == DTYPE_F32 || type == DTYPE_BF16);
    (void)threads;
    int count = 0;
    cudaError_t status = cudaGetDeviceCount(&count);
    if (status != cudaSuccess || count == 0)
        return no_device(host, status);
    struct kernels_device *device = static_cast<struct kernels_device *>(calloc(1, sizeof *device));
    if (device == NULL)
        return host->fail(ERR_MEMORY, "not enough memory to open the device");
    device->host = host;
    device->index = (int)index;
    device->type = type;
    int code = describe(device, count);
    if (code == 0)
        code = device_enter(device);
    if (code == 0)
        code = cublaslt_load(&device->library, host);
    if (code == 0 && device->library.Create(&device->products) != CUBLAS_STATUS_SUCCESS)
        code = device_fail(device, ERR_DEVICE, "cuBLASLt cannot use cuda:%u", index);
    if (code < 0) {
        free(device);
        return code;
    }
    *opened = device;
    return 0;
}

static void cuda_close(struct kernels_device *device)
{
    if (device == NULL)
        return;
    (void)device_enter(device); /* the library wants that */
    (void)device->library.Destroy(device->products);
    free(device);
}

static const char *cuda_description(const struct kernels_device *device)
{
    return device->description;
}

static uint64_t cuda_memory_free(const struct kernels_device *device)
{
    size_t available = 0, total = 0;
    if (device_enter(device) != 0 || cudaMemGetInfo(&available, &total) != cudaSuccess)
        return 0;
    return available;
}

/* ---- memory */

int device_allocate(struct kernels_device *device, void **d_memory, size_t bytes)
{
    void *memory = NULL;
    int code = device_enter(device);
    if (code < 0)
        return code;
    cudaError_t status = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError(); /* it is told, and is not the next launch's */
        return device_fail(device, ERR_MEMORY,
                           "not enough memory: %zu bytes asked, %llu free on cuda:%d", bytes,
                           (unsigned long long)cuda_memory_free(device), device->index);
    }
    code = device_check(device, status, "cudaMalloc");
    if (code == 0)
        *d_memory = memory;
    return code;
}

static int cuda_alloc(struct kernels_device *device, void **d_memory, size_t bytes)
{
    void *memory = NULL;
    int code = device_allocate(device, &memory, bytes);
    if (code < 0)
        return code;
    /* The device is waited for: the memory may next be used by any queue. */
    cudaError_t status = cudaMemset(memory, 0, bytes);
    if (status == cudaSuccess)
        status = cudaDeviceSynchronize();
    code = device_check(device, status, "cudaMemset");
    if (code < 0)
        (void)cudaFree(memory);
    else
        *d_memory = memory;
    return code;
}

/* cudaFree() may wait for the device, and cudaIpcCloseMemHandle() says nothing of it: so it is
 * waited for before either. An earlier failure is not told here: its queue has. */
void device_release(struct kernels_device *device, void *d_memory)
{
    if (d_memory == NULL || device_enter(device) != 0)
        return;
    (void)cudaDeviceSynchronize();
    (void)cudaFree(d_memory);
}

static int cuda_host_alloc(struct kernels_device *device, void **memory, size_t bytes)
{
    void *taken = NULL;
    int code = device_enter(device);
    if (code < 0)
        return code;
    cudaError_t status = cudaMallocHost(&taken, bytes > 0 ? bytes : 1);
    if (status == cudaErrorMemoryAllocation) {
        (void)cudaGetLastError();
        return device_fail(
            device, ERR_MEMORY,
            "not enough memory: %zu page-locked bytes of host memory asked, %llu free", bytes,
            (unsigned long long)device->host->memory_free());
    }
    code = device_check(device, status, "cudaMallocHost");
    if (code == 0)
        *memory = taken;
    return code;
}

static void cuda_host_free(struct kernels_device *device, void *memory)
{
    if (memory != NULL && device_enter(device) == 0)
        (void)cudaFreeHost(memory); /* an earlier failure: its queue has told */
}

void *queue_workspace(struct kernels_queue *queue, size_t bytes)
{
    if (!queue_enter(queue))
        return NULL;
    if (bytes <= queue->workspace_bytes)
        return queue->workspace;
    device_release(queue->device, queue->workspace);
    queue->workspace = NULL;
    queue->workspace_bytes = 0;
    queue->error = device_allocate(queue->device, &queue->workspace, bytes);
    if (queue->error == 0)
        queue->workspace_bytes = bytes;
    return queue->workspace;
}

/* ---- other processes' memory */

static void cuda_identity(const struct kernels_device *device, uint8_t uuid[16])
{
    memcpy(uuid, device->uuid, sizeof device->uuid);
}

/* A failure is told here, and is not the next launch's. */
static int check_sharing(const struct kernels_device *device, cudaError_t status, const char *what)
{
    if (status != cudaSuccess)
        (void)cudaGetLastError();
    return device_check(device, status, what);
}

static int cuda_share(struct kernels_device *device, void *d_memory, uint8_t handle[64])
{
    cudaIpcMemHandle_t made;
    static_assert(sizeof made == 64, "what another process is given");
    int code = device_enter(device);
    if (code == 0)
        code = check_sharing(device, cudaIpcGetMemHandle(&made, d_memory), "cudaIpcGetMemHandle");
    if (code == 0)
        memcpy(handle, &made, sizeof made);
    return code;
}

static int cuda_map(struct kernels_device *device, void **d_memory, const uint8_t handle[64])
{
    cudaIpcMemHandle_t given;
    memcpy(&given, handle, sizeof given);
    int code = device_enter(device);
    if (code == 0)
        code = check_sharing(device,
                             cudaIpcOpenMemHandle(d_memory, given, cudaIpcMemLazyEnablePeerAccess),
                             "cudaIpcOpenMemHandle");
    return code;
}

static void cuda_unmap(struct kernels_device *device, void *d_memory)
{
    if (d_memory == NULL || device_enter(device) != 0)
        return;
    (void)cudaDeviceSynchronize();
    (void)cudaIpcCloseMemHandle(d_memory);
}

/* ---- queues and events */

static int cuda_queue_create(struct kernels_device *device, struct kernels_queue **created)
{
    struct kernels_queue *queue = static_cast<struct kernels_queue *>(calloc(1, sizeof *queue));
    if (queue == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for a queue");
    queue->device = device;
    int code = device_enter(device);
    if (code == 0)
        code =
            device_check(device, cudaStreamCreateWithFlags(&queue->stream, cudaStreamNonBlocking),
                         "cudaStreamCreateWithFlags");
    if (code < 0) {
        free(queue);
        return code;
    }
    *created = queue;
    return 0;
}

static void cuda_queue_free(struct kernels_queue *queue)
{
    if (queue == NULL)
        return;
    if (device_enter(queue->device) == 0) {
        (void)cudaStreamSynchronize(queue->stream);
        (void)cudaStreamDestroy(queue->stream);
    }
    device_release(queue->device, queue->workspace);
    free(queue);
}

struct kernels_event {
    struct kernels_device *device;
    struct kernels_queue *queue; /* where it was recorded last, or NULL */
    cudaEvent_t event;
};

static int cuda_event_create(struct kernels_device *device, struct kernels_event **created)
{
    struct kernels_event *event = static_cast<struct kernels_event *>(calloc(1, sizeof *event));
    if (event == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for an event");
    event->device = device;
    int code = device_enter(device);
    if (code == 0)
        code = device_check(device, cudaEventCreateWithFlags(&event->event, cudaEventDisableTiming),
                            "cudaEventCreateWithFlags");
    if (code < 0) {
        free(event);
        return code;
    }
    *created = event;
    return 0;
}

static void cuda_event_free(struct kernels_event *event)
{
    if (event == NULL)
        return;
    if (device_enter(event->device) == 0)
        (void)cudaEventDestroy(event->event);
    free(event);
}

static void cuda_event_record(struct kernels_queue *queue, struct kernels_event *event)
{
    event->queue = queue;
    CUDA_CHECK(queue, cudaEventRecord(event->event, queue->stream));
}

static void cuda_event_wait(struct kernels_queue *queue, struct kernels_event *event)
{
    CUDA_CHECK(queue, cudaStreamWaitEvent(queue->stream, event->event, 0));
}

static int cuda_event_sync(struct kernels_event *event)
{
    if (event->queue == NULL)
        return 0;
    CUDA_CHECK(event->queue, cudaEventSynchronize(event->event));
    return event->queue->error;
}

static int cuda_event_poll(struct kernels_event *event)
{
    if (event->queue == NULL)
        return 1;
    if (queue_enter(event->queue)) {
        cudaError_t status = cudaEventQuery(event->event);
        if (status == cudaErrorNotReady) {
            (void)cudaGetLastError(); /* it is no failure, and is not the next launch's */
            return 0;
        }
        queue_check(event->queue, status, "cudaEventQuery");
    }
    return event->queue->error != 0 ? event->queue->error : 1;
}

static int cuda_wait(struct kernels_queue *queue)
{
    CUDA_CHECK(queue, cudaStreamSynchronize(queue->stream));
    return queue->error;
}

/* ---- copies */

static void cuda_upload(struct kernels_queue *queue, void *d_to, const void *from, size_t bytes)
{
    CUDA_CHECK(queue, cudaMemcpyAsync(d_to, from, bytes, cudaMemcpyHostToDevice, queue->stream));
}

static void cuda_download(struct kernels_queue *queue, void *to, const void *d_from, size_t bytes)
{
    CUDA_CHECK(queue, cudaMemcpyAsync(to, d_from, bytes, cudaMemcpyDeviceToHost, queue->stream));
}

static void cuda_copy(struct kernels_queue *queue, void *d_to, const void *d_from, size_t bytes)
{
    CUDA_CHECK(queue,
               cudaMemcpyAsync(d_to, d_from, bytes, cudaMemcpyDeviceToDevice, queue->stream));
}

static void cuda_clear(struct kernels_queue *queue, void *d_to, size_t bytes)
{
    CUDA_CHECK(queue, cudaMemsetAsync(d_to, 0, bytes, queue->stream));
}

/* ---- the table */

static const struct kernels cuda_kernels = {
    .abi = KERNELS_ABI,
    .name = "cuda",
    .at_once = false,
    .chunk_tokens = CHUNK_TOKENS,
    .packs = false,
    .open = cuda_open,
    .close = cuda_close,
    .description = cuda_description,
    .memory_free = cuda_memory_free,
    .alloc = cuda_alloc,
    .free = device_release,
    .host_alloc = cuda_host_alloc,
    .host_free = cuda_host_free,
    .queue_create = cuda_queue_create,
    .queue_free = cuda_queue_free,
    .event_create = cuda_event_create,
    .event_free = cuda_event_free,
    .event_record = cuda_event_record,
    .event_wait = cuda_event_wait,
    .event_sync = cuda_event_sync,
    .event_poll = cuda_event_poll,
    .wait = cuda_wait,
    .upload = cuda_upload,
    .download = cuda_download,
    .copy = cuda_copy,
    .clear = cuda_clear,
    .move_rows = cuda_move_rows,
    .hash_rows = cuda_hash_rows,
    .identity = cuda_identity,
    .share = cuda_share,
    .map = cuda_map,
    .unmap = cuda_unmap,
    .link_version = cuda_link_version,
    .link_id = cuda_link_id,
    .link_open = cuda_link_open,
    .link_send = cuda_link_send,
    .link_receive = cuda_link_receive,
    .link_poll = cuda_link_poll,
    .link_close = cuda_link_close,
    .gemm_create = cuda_gemm_create,
    .gemm_free = cuda_gemm_free,
    .gemm_packed_bytes = cuda_gemm_packed_bytes,
    .gemm_pack = cuda_gemm_pack,
    .gemm = cuda_gemm,
    .cast = cuda_cast,
    .embed = cuda_embed,
    .rms_norm = cuda_rms_norm,
    .post_norm = cuda_post_norm,
    .rope = cuda_rope,
    .attention = cuda_attention,
    .geglu = cuda_geglu,
    .row_norms = cuda_row_norms,
    .emit_rows = cuda_emit_rows,
    .load_rows = cuda_load_rows,
    .column_means = cuda_column_means,
    .recon = cuda_recon,
    .relu_backward = cuda_relu_backward,
    .column_sums = cuda_column_sums,
    .decoder_norms = cuda_decoder_norms,
    .decoder_square = cuda_decoder_square,
    .decoder_adam = cuda_decoder_adam,
    .scale = cuda_scale,
    .dot = cuda_dot,
    .clip_factor = cuda_clip_factor,
    .adam = cuda_adam,
};

extern "C" __attribute__((visibility("default"))) kernels_entry_function kernels_entry;

const struct kernels *kernels_entry(void)
{
    return &cuda_kernels;
}
