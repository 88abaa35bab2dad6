/* cuda_runtime.h - stands in for CUDA's header of this name: what kernels/cuda uses of it, on the
 * emulation (../emu.h says how that works).
 *
 * Only full-warp masks are accepted. A static __shared__ variable is a static variable, filled with
 * NaN before each block (../shared.ld); one block runs at a time.
 */
#ifndef CCPIPE_EMU_CUDA_RUNTIME_H
#define CCPIPE_EMU_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <tuple>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __constant__
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

/* ---- vectors */
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};
#define EMU_VECTORS(type, name, size)                                    \
    struct alignas(2 * size) name##2                                     \
    {                                                                    \
        type x, y;                                                       \
    };                                                                   \
    struct alignas(4 * size) name##4                                     \
    {                                                                    \
        type x, y, z, w;                                                 \
    };                                                                   \
    static inline name##2 make_##name##2(type x, type y)                 \
    {                                                                    \
        return name##2 {x, y};                                           \
    }                                                                    \
    static inline name##4 make_##name##4(type x, type y, type z, type w) \
    {                                                                    \
        return name##4 {x, y, z, w};                                     \
    }
EMU_VECTORS(float, float, 4)
EMU_VECTORS(int, int, 4)
EMU_VECTORS(unsigned, uint, 4)
EMU_VECTORS(short, short, 2)
EMU_VECTORS(unsigned short, ushort, 2)
EMU_VECTORS(signed char, char, 1)
EMU_VECTORS(unsigned char, uchar, 1)
#undef EMU_VECTORS
struct alignas(16) double2 {
    double x, y;
};
static inline double2 make_double2(double x, double y)
{
    return double2{x, y};
}

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* ---- collectives. A barrier tells where it is called, so that threads that wait at different ones
 * are found. */
void emu_block_barrier(const char *file, int line);
/* Gives the others `bytes` (at most EMU_LANE_BYTES) of this lane and returns those of all 32, a row
 * of EMU_LANE_BYTES each, valid until this lane's next but one collective. */
enum { EMU_LANE_BYTES = 64 };
const unsigned char *emu_warp_exchange(const void *mine, size_t bytes, unsigned mask,
                                       const char *what);
/* Bit l: lane l is there and has not returned. */
unsigned emu_warp_live(void);
void *emu_dynamic_shared(void);
unsigned emu_lane(void);
[[noreturn]] void emu_kernel_fault(const char *what);

static inline void __syncthreads(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    emu_block_barrier(file, line);
}

static inline void __syncwarp(unsigned mask = 0xffffffffu)
{
    emu_warp_exchange(nullptr, 0, mask, "__syncwarp");
}

template <class T>
static inline T emu_shuffle(T value, unsigned mask, int source, int width, const char *what)
{
    static_assert(sizeof(T) <= 8, "what a shuffle moves");
    const unsigned char *all = emu_warp_exchange(&value, sizeof value, mask, what);
    int lane = (int)emu_lane(), first = lane / width * width;
    T got = value; /* a lane outside of the segment gives this lane's own */
    if (source >= first && source < first + width) {
        if (!(emu_warp_live() >> source & 1))
            emu_kernel_fault("a shuffle reads a lane that is not there");
        memcpy(&got, all + (size_t)source * EMU_LANE_BYTES, sizeof got);
    }
    return got;
}

template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32)
{
    int lane = (int)emu_lane();
    return emu_shuffle(value, mask, lane / width * width + (source & (width - 1)), width, "shfl");
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32)
{
    int lane = (int)emu_lane(), from = lane ^ lanes;
    /* As the hardware has it: a lower segment may be read, a higher one not. */
    return from / width <= lane / width ? emu_shuffle(value, mask, from, 32, "shfl_xor")
                                        : emu_shuffle(value, mask, lane, 32, "shfl_xor");
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32)
{
    return emu_shuffle(value, mask, (int)emu_lane() + (int)lanes, width, "shfl_down");
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32)
{
    return emu_shuffle(value, mask, (int)emu_lane() - (int)lanes, width, "shfl_up");
}

static inline unsigned __ballot_sync(unsigned mask, int predicate)
{
    unsigned char mine = predicate != 0;
    const unsigned char *all = emu_warp_exchange(&mine, 1, mask, "ballot");
    unsigned live = emu_warp_live(), votes = 0;
    for (unsigned lane = 0; lane < 32; lane++)
        if (live >> lane & 1 && all[lane * EMU_LANE_BYTES])
            votes |= 1u << lane;
    return votes;
}
static inline int __any_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate)
{
    return __ballot_sync(mask, !predicate) == 0;
}

static inline void __threadfence(void)
{
}
static inline void __threadfence_block(void)
{
}

template <class T> static inline T emu_atomic_add(T *address, T value)
{
    T old = *address;
    *address = old + value;
    return old;
}
static inline int atomicAdd(int *address, int value)
{
    return emu_atomic_add(address, value);
}
static inline unsigned atomicAdd(unsigned *address, unsigned value)
{
    return emu_atomic_add(address, value);
}
static inline unsigned long long atomicAdd(unsigned long long *address, unsigned long long value)
{
    return emu_atomic_add(address, value);
}

/* ---- arithmetic */
#define __expf(value) expf(value) /* glibc has a function of the name */
template <class T> static inline T __ldg(const T *address)
{
    return *address;
}
#define EMU_BITS(name, to, from)            \
    static inline to name(from value)       \
    {                                       \
        to bits;                            \
        memcpy(&bits, &value, sizeof bits); \
        return bits;                        \
    }
EMU_BITS(__float_as_uint, unsigned, float)
EMU_BITS(__float_as_int, int, float)
EMU_BITS(__uint_as_float, float, unsigned)
EMU_BITS(__int_as_float, float, int)
EMU_BITS(__double_as_longlong, long long, double)
EMU_BITS(__longlong_as_double, double, long long)
#undef EMU_BITS

static inline int __float2int_rn(float value)
{
    return (int)nearbyintf(value);
}
static inline float __double2float_rn(double value)
{
    return (float)value;
}
static inline float __fadd_rn(float a, float b)
{
    return a + b;
}
static inline float __fsub_rn(float a, float b)
{
    return a - b;
}
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}
static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}
static inline float __fmaf_rn(float a, float b, float c)
{
    return fmaf(a, b, c);
}
static inline double __dadd_rn(double a, double b)
{
    return a + b;
}
static inline double __dmul_rn(double a, double b)
{
    return a * b;
}
static inline float rsqrtf(float value)
{
    return 1.0f / sqrtf(value);
}
static inline double rsqrt(double value)
{
    return 1.0 / sqrt(value);
}
static inline float __fdividef(float a, float b)
{
    return a / b;
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline int __popc(unsigned value)
{
    return __builtin_popcount(value);
}
static inline int __clz(int value)
{
    return value == 0 ? 32 : __builtin_clz((unsigned)value);
}
static inline int __ffs(int value)
{
    return __builtin_ffs(value);
}
#define EMU_MIN_MAX(type)                  \
    static inline type min(type a, type b) \
    {                                      \
        return b < a ? b : a;              \
    }                                      \
    static inline type max(type a, type b) \
    {                                      \
        return a < b ? b : a;              \
    }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX

/* ---- the runtime */
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorDeviceUninitialized = 201,
    cudaErrorMapBufferObjectFailed = 205,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchFailure = 719
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };

struct emu_stream;
struct emu_event;
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
struct cudaIpcMemHandle_t {
    char reserved[64];
};
enum { cudaIpcMemLazyEnablePeerAccess = 1 };
struct cudaUUID_t {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
    size_t sharedMemPerBlockOptin;
};

cudaError_t cudaGetLastError(void);
const char *cudaGetErrorName(cudaError_t error);
const char *cudaGetErrorString(cudaError_t error);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total);
cudaError_t cudaMalloc(void **memory, size_t bytes);
cudaError_t cudaFree(void *memory);
cudaError_t cudaIpcGetMemHandle(cudaIpcMemHandle_t *handle, void *memory);
cudaError_t cudaIpcOpenMemHandle(void **memory, cudaIpcMemHandle_t handle, unsigned flags);
cudaError_t cudaIpcCloseMemHandle(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemset(void *to, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute attribute, int value);

/* ---- launches */
struct emu_shape {
    const char *name; /* of the kernel */
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
};
void emu_enqueue_kernel(const struct emu_shape &shape, cudaStream_t stream,
                        std::function<void()> thread);

template <class... Parameters, class... Arguments>
static inline void emu_launch(const char *name, void (*kernel)(Parameters...), dim3 grid,
                              dim3 block, size_t shared_bytes, cudaStream_t stream,
                              Arguments &&...arguments)
{
    std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
    emu_enqueue_kernel({name, (const void *)kernel, grid, block, shared_bytes}, stream,
                       [kernel, values] { std::apply(kernel, values); });
}

#endif
