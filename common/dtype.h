/* dtype.h - the element types of files, streams and device buffers, and conversions on the host. */
#ifndef CCPIPE_DTYPE_H
#define CCPIPE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_I8, DTYPE_COUNT };

/* Bytes of one element. */
size_t dtype_size(enum dtype type);

/* "f32", "bf16", "f16", "int8": the names of command lines and of BEGIN. */
const char *dtype_name(enum dtype type);

/* The type of a name, or -1. */
int dtype_parse(const char *name);

static inline float dtype_bf16_to_f32(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* Rounds to nearest, ties to even; NaN stays NaN (quiet). */
static inline uint16_t dtype_f32_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

/* IEEE half to float, exact, subnormals included. */
float dtype_f16_to_f32(uint16_t value);

/* n elements of F32, BF16 or F16 at `from` (little-endian, any alignment) to f32. */
void dtype_to_f32(float *to, const void *from, enum dtype type, size_t n);

/* n f32 to F32 or BF16 elements. */
void dtype_from_f32(void *to, enum dtype type, const float *from, size_t n);

#ifdef __cplusplus
}
#endif
#endif
