/* dtype.c - conversions; loops that a compiler vectorises, no intrinsics. */
#include "dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t size;
} dtype_table[DTYPE_COUNT] = {
    [DTYPE_F32] = {"f32", 4},
    [DTYPE_BF16] = {"bf16", 2},
    [DTYPE_F16] = {"f16", 2},
    [DTYPE_I8] = {"int8", 1},
};

size_t dtype_size(enum dtype type)
{
    return dtype_table[type].size;
}

const char *dtype_name(enum dtype type)
{
    return dtype_table[type].name;
}

int dtype_parse(const char *name)
{
    for (int i = 0; i < DTYPE_COUNT; i++)
        if (strcmp(name, dtype_table[i].name) == 0)
            return i;
    return -1;
}

float dtype_f16_to_f32(uint16_t value)
{
    uint32_t sign = (uint32_t)(value & 0x8000u) << 16;
    uint32_t exponent = (value >> 10) & 0x1fu;
    uint32_t fraction = value & 0x3ffu;
    uint32_t bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000u | fraction << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        /* Zero and subnormals: fraction units of 2^-24. */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign != 0 ? -magnitude : magnitude;
    }
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

void dtype_to_f32(float *to, const void *from, enum dtype type, size_t n)
{
    const uint8_t *bytes = from;
    uint16_t half;
    switch (type) {
    case DTYPE_F32:
        memcpy(to, from, n * sizeof *to);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            to[i] = dtype_bf16_to_f32(half);
        }
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            to[i] = dtype_f16_to_f32(half);
        }
        return;
    default:
        assert(!"a floating type");
    }
}

void dtype_from_f32(void *to, enum dtype type, const float *from, size_t n)
{
    uint8_t *bytes = to;
    if (type == DTYPE_F32) {
        memcpy(to, from, n * sizeof *from);
        return;
    }
    assert(type == DTYPE_BF16);
    for (size_t i = 0; i < n; i++) {
        uint16_t half = dtype_f32_to_bf16(from[i]);
        memcpy(bytes + 2 * i, &half, sizeof half);
    }
}
