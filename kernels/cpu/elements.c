/* elements.c - conversions.
 *
 * Limits: memory traffic. cast reads and writes each element once.
 */
#include "kernels/cpu/cpu.h"

/* IEEE half to float: exponent and fraction shifted into place are the value times 2^-112, for
 * subnormals too; infinity and NaN keep an exponent of all ones. */
static inline float half_to_f32(uint16_t half)
{
    uint32_t magnitude = (uint32_t)(half & 0x7fffu) << 13;
    float value;
    memcpy(&value, &magnitude, sizeof value);
    value *= 0x1p112f;
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000u : bits;
    bits |= (uint32_t)(half & 0x8000u) << 16;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void tile_from_stored(float *tile, const void *from, enum dtype type, size_t n)
{
    const uint16_t *halves = from;
    switch (type) {
    case DTYPE_F32:
        memcpy(tile, from, n * sizeof *tile);
        return;
    case DTYPE_BF16:
        for (size_t i = 0; i < n; i++)
            tile[i] = dtype_bf16_to_f32(halves[i]);
        return;
    case DTYPE_F16:
        for (size_t i = 0; i < n; i++)
            tile[i] = half_to_f32(halves[i]);
        return;
    default:
        assert(!"a floating type");
    }
}

void cpu_cast(struct kernels_queue *queue, void *d_to, enum dtype to, const void *d_from,
              enum dtype from, size_t n)
{
    size_t chunks = chunk_count(n, TILE);
#pragma omp parallel for num_threads(device_threads(queue->device, n))
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        float tile[TILE];
        size_t at = chunk * TILE, count = size_min(TILE, n - at);
        float *out = tile_out(tile, d_to, to, at);
        tile_from_stored(out, element_const(d_from, from, at), from, count);
        tile_done(out, d_to, to, at, count);
    }
}
