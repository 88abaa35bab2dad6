/* cuda_bf16.h - stands in for CUDA's header of this name. A value converts by the named functions
 * alone, so that what compiles here does not lean on CUDA's implicit conversions. */
#ifndef CCPIPE_EMU_CUDA_BF16_H
#define CCPIPE_EMU_CUDA_BF16_H

#include "common/dtype.h"

#include <cuda_runtime.h>

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 value)
{
    return dtype_bf16_to_f32(value.bits);
}
static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    return __nv_bfloat16{dtype_f32_to_bf16(value)};
}
static inline __nv_bfloat16 __float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value)
{
    return value.bits;
}
static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return __nv_bfloat16{bits};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return __nv_bfloat162{__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 value)
{
    return __floats2bfloat162_rn(value.x, value.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 value)
{
    return make_float2(__bfloat162float(value.x), __bfloat162float(value.y));
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y)
{
    return __nv_bfloat162{x, y};
}

#endif
