/* device.c - the CPU as a device: memory, queues, copies, and the table of operations.
 *
 * A queue executes at once: when an operation returns, it is done, so events have nothing to
 * record. What can fail inside an operation (oneDNN, a workspace) is logged there and kept in the
 * queue.
 *
 * oneDNN and OpenMP take their number of threads from a per-thread setting (omp_set_num_threads);
 * operations therefore give it with each parallel region, and the products set it before each call,
 * whichever thread of the tool calls.
 */
#include "kernels/cpu/cpu.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { ALIGNMENT = 64, HUGE_PAGE = 2 << 20 };

/* The compiler's idea of the level that this object was built for, and what oneDNN may use there:
 * CCPIPE_CPU_LEVEL shall give the results of a lesser processor. */
#if defined(__AVX512F__)
static const char device_level[] = "x86-64-v4";
static const dnnl_cpu_isa_t device_isa = dnnl_cpu_isa_all;
#elif defined(__AVX2__)
static const char device_level[] = "x86-64-v3";
static const dnnl_cpu_isa_t device_isa = dnnl_cpu_isa_avx2;
#else
static const char device_level[] = "x86-64-v2";
static const dnnl_cpu_isa_t device_isa = dnnl_cpu_isa_sse41;
#endif

int device_fail(const struct kernels_device *device, int code, const char *format, ...)
{
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    return device->host->fail(code, message);
}

static void describe(struct kernels_device *device)
{
    const char *products = device->type == DTYPE_F32 ? "f32"
                           : device->native_bf16     ? "bf16, f32 sums"
                                                     : "bf16 storage, f32 products";
    const dnnl_version_t *version = dnnl_version();
    snprintf(device->description, sizeof device->description,
             "cpu: %s, %u thread%s, %s, oneDNN %d.%d.%d", device_level, device->threads,
             device->threads == 1 ? "" : "s", products, version->major, version->minor,
             version->patch);
}

static int cpu_open(struct kernels_device **opened, unsigned index, unsigned threads,
                    enum dtype type, const struct kernels_host *host)
{
    assert(index == 0 && threads >= 1 && (type == DTYPE_F32 || type == DTYPE_BF16));
    (void)index;
    struct kernels_device *device = calloc(1, sizeof *device);
    if (device == NULL)
        return host->fail(ERR_MEMORY, "not enough memory to open the device");
    device->host = host;
    device->threads = threads;
    device->type = type;
    /* Refused after the first product of the process, when the answer is settled anyway. */
    if (device_isa != dnnl_cpu_isa_all)
        (void)dnnl_set_max_cpu_isa(device_isa);
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    bool all = device_isa == dnnl_cpu_isa_all;
    device->avx512 = all && (isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
    device->native_bf16 =
        all && (isa & dnnl_cpu_isa_avx512_core_bf16) == dnnl_cpu_isa_avx512_core_bf16;
    dnnl_status_t status = dnnl_engine_create(&device->engine, dnnl_cpu, 0);
    if (status != dnnl_success) {
        free(device);
        return host->fail(ERR_DEVICE, "oneDNN cannot use this processor");
    }
    describe(device);
    if (type == DTYPE_BF16 && !device->native_bf16)
        host->note("the processor has no bf16 instructions: bf16 storage, f32 products");
    *opened = device;
    return 0;
}

static void cpu_close(struct kernels_device *device)
{
    if (device == NULL)
        return;
    dnnl_engine_destroy(device->engine);
    free(device);
}

static const char *cpu_description(const struct kernels_device *device)
{
    return device->description;
}

static uint64_t cpu_memory_free(const struct kernels_device *device)
{
    return device->host->memory_free();
}

static int cpu_host_alloc(struct kernels_device *device, void **memory, size_t bytes)
{
    uint64_t available = device->host->memory_free();
    if (bytes > available)
        return device_fail(device, ERR_MEMORY, "not enough memory: %zu bytes asked, %llu free",
                           bytes, (unsigned long long)available);
    void *taken = NULL;
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes > SIZE_MAX - HUGE_PAGE ||
        posix_memalign(&taken, alignment, bytes == 0 ? ALIGNMENT : bytes) != 0)
        return device_fail(device, ERR_MEMORY, "not enough memory: %zu bytes asked", bytes);
    *memory = taken;
    return 0;
}

/* The memory is cleared here, by all threads, so that it is really there (a short machine fails
 * now and not in a step) and so that its pages lie near those who use them. */
int cpu_alloc(struct kernels_device *device, void **d_memory, size_t bytes)
{
    void *memory = NULL;
    int code = cpu_host_alloc(device, &memory, bytes);
    if (code < 0)
        return code;
    size_t chunks = chunk_count(bytes, HUGE_PAGE);
#pragma omp parallel for num_threads(device_threads(device, bytes))
    for (size_t chunk = 0; chunk < chunks; chunk++)
        memset((uint8_t *)memory + chunk * HUGE_PAGE, 0,
               size_min(HUGE_PAGE, bytes - chunk * HUGE_PAGE));
    *d_memory = memory;
    return 0;
}

void cpu_free(struct kernels_device *device, void *d_memory)
{
    (void)device;
    free(d_memory);
}

static int cpu_queue_create(struct kernels_device *device, struct kernels_queue **created)
{
    struct kernels_queue *queue = calloc(1, sizeof *queue);
    if (queue == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for a queue");
    queue->device = device;
    if (dnnl_stream_create(&queue->stream, device->engine, dnnl_stream_default_flags) !=
        dnnl_success) {
        free(queue);
        return device_fail(device, ERR_DEVICE, "oneDNN cannot create a stream");
    }
    *created = queue;
    return 0;
}

static void cpu_queue_free(struct kernels_queue *queue)
{
    if (queue == NULL)
        return;
    dnnl_stream_destroy(queue->stream);
    free(queue->workspace);
    free(queue);
}

void queue_fail(struct kernels_queue *queue, int code, const char *format, ...)
{
    if (queue->error != 0)
        return;
    char message[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
    queue->error = queue->device->host->fail(code, message);
}

void *queue_workspace(struct kernels_queue *queue, size_t bytes)
{
    if (bytes <= queue->workspace_bytes)
        return queue->workspace;
    free(queue->workspace);
    queue->workspace = NULL;
    queue->workspace_bytes = 0;
    int code = cpu_alloc(queue->device, &queue->workspace, bytes);
    if (code < 0) {
        if (queue->error == 0)
            queue->error = code;
        return NULL;
    }
    queue->workspace_bytes = bytes;
    return queue->workspace;
}

/* What an event stands for has happened; what is left to tell is whether its queue failed. */
struct kernels_event {
    const struct kernels_queue *queue; /* where it was recorded last, or NULL */
};

static int cpu_event_create(struct kernels_device *device, struct kernels_event **created)
{
    struct kernels_event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return device_fail(device, ERR_MEMORY, "not enough memory for an event");
    *created = event;
    return 0;
}

static void cpu_event_free(struct kernels_event *event)
{
    free(event);
}

static void cpu_event_record(struct kernels_queue *queue, struct kernels_event *event)
{
    event->queue = queue;
}

static void cpu_event_wait(struct kernels_queue *queue, struct kernels_event *event)
{
    (void)queue;
    (void)event;
}

static int cpu_event_sync(struct kernels_event *event)
{
    return event->queue != NULL ? event->queue->error : 0;
}

static int cpu_event_poll(struct kernels_event *event)
{
    int code = cpu_event_sync(event);
    return code < 0 ? code : 1;
}

static int cpu_wait(struct kernels_queue *queue)
{
    return queue->error;
}

static void copy_bytes(const struct kernels_queue *queue, void *to, const void *from, size_t bytes)
{
    size_t chunks = chunk_count(bytes, HUGE_PAGE);
#pragma omp parallel for num_threads(device_threads(queue->device, bytes / 16))
    for (size_t chunk = 0; chunk < chunks; chunk++)
        memcpy((uint8_t *)to + chunk * HUGE_PAGE, (const uint8_t *)from + chunk * HUGE_PAGE,
               size_min(HUGE_PAGE, bytes - chunk * HUGE_PAGE));
}

static void cpu_upload(struct kernels_queue *queue, void *d_to, const void *from, size_t bytes)
{
    copy_bytes(queue, d_to, from, bytes);
}

static void cpu_download(struct kernels_queue *queue, void *to, const void *d_from, size_t bytes)
{
    copy_bytes(queue, to, d_from, bytes);
}

static void cpu_copy(struct kernels_queue *queue, void *d_to, const void *d_from, size_t bytes)
{
    copy_bytes(queue, d_to, d_from, bytes);
}

static void cpu_clear(struct kernels_queue *queue, void *d_to, size_t bytes)
{
    size_t chunks = chunk_count(bytes, HUGE_PAGE);
#pragma omp parallel for num_threads(device_threads(queue->device, bytes / 16))
    for (size_t chunk = 0; chunk < chunks; chunk++)
        memset((uint8_t *)d_to + chunk * HUGE_PAGE, 0,
               size_min(HUGE_PAGE, bytes - chunk * HUGE_PAGE));
}

static void cpu_identity(const struct kernels_device *device, uint8_t uuid[16])
{
    (void)device;
    memset(uuid, 0, 16);
}

static const struct kernels cpu_kernels = {
    .abi = KERNELS_ABI,
    .name = "cpu",
    .at_once = true,
    .chunk_tokens = 512,
    .packs = true,
    .open = cpu_open,
    .close = cpu_close,
    .description = cpu_description,
    .memory_free = cpu_memory_free,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .host_alloc = cpu_host_alloc,
    .host_free = cpu_free,
    .queue_create = cpu_queue_create,
    .queue_free = cpu_queue_free,
    .event_create = cpu_event_create,
    .event_free = cpu_event_free,
    .event_record = cpu_event_record,
    .event_wait = cpu_event_wait,
    .event_sync = cpu_event_sync,
    .event_poll = cpu_event_poll,
    .wait = cpu_wait,
    .upload = cpu_upload,
    .download = cpu_download,
    .copy = cpu_copy,
    .clear = cpu_clear,
    .move_rows = cpu_move_rows,
    .hash_rows = cpu_hash_rows,
    .identity = cpu_identity,
    .gemm_create = cpu_gemm_create,
    .gemm_free = cpu_gemm_free,
    .gemm_packed_bytes = cpu_gemm_packed_bytes,
    .gemm_pack = cpu_gemm_pack,
    .gemm = cpu_gemm,
    .cast = cpu_cast,
    .embed = cpu_embed,
    .rms_norm = cpu_rms_norm,
    .post_norm = cpu_post_norm,
    .rope = cpu_rope,
    .attention = cpu_attention,
    .geglu = cpu_geglu,
    .row_norms = cpu_row_norms,
    .emit_rows = cpu_emit_rows,
    .load_rows = cpu_load_rows,
    .column_means = cpu_column_means,
    .recon = cpu_recon,
    .relu_backward = cpu_relu_backward,
    .column_sums = cpu_column_sums,
    .decoder_norms = cpu_decoder_norms,
    .decoder_square = cpu_decoder_square,
    .decoder_adam = cpu_decoder_adam,
    .scale = cpu_scale,
    .dot = cpu_dot,
    .clip_factor = cpu_clip_factor,
    .adam = cpu_adam,
};

__attribute__((visibility("default"))) kernels_entry_function kernels_entry;

const struct kernels *kernels_entry(void)
{
    return &cpu_kernels;
}
