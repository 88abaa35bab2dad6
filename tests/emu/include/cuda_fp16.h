/* cuda_fp16.h - stands in for CUDA's header of this name: halves are read, never written. */
#ifndef CCPIPE_EMU_CUDA_FP16_H
#define CCPIPE_EMU_CUDA_FP16_H

#include <cuda_runtime.h>

struct __half {
    uint16_t bits;
};
typedef __half half; /* so that a variable of the name is found to hide it here too */

/* By the definition: sign, exponent and fraction of IEEE's binary16. */
static inline float __half2float(__half value)
{
    int exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
    float magnitude = exponent == 31  ? (fraction != 0 ? NAN : INFINITY)
                      : exponent == 0 ? ldexpf((float)fraction, -24)
                                      : ldexpf((float)(1024 + fraction), exponent - 25);
    return value.bits >> 15 ? -magnitude : magnitude;
}
static inline unsigned short __half_as_ushort(__half value)
{
    return value.bits;
}

#endif
