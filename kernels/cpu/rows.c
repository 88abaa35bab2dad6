/* rows.c - rows of bytes, as a data plane hands them on: moved by index, and hashed.
 *
 * Limits: memory traffic, once the rows are beyond the cache. The hash is libxxhash's, compiled
 * into this object so that it is vectorised for its level, and so that the backend links with
 * nothing more; a row is hashed behind its tag as one stream, and is not copied to it.
 */
#define XXH_INLINE_ALL
#include "kernels/cpu/cpu.h"

#include <string.h>
#include <xxhash.h>

enum { TAG = 16 };

static inline size_t row_at(const uint32_t *d_index, size_t i)
{
    return d_index != NULL ? d_index[i] : i;
}

void cpu_move_rows(struct kernels_queue *queue, uint8_t *d_to, const uint32_t *d_to_index,
                   const uint8_t *d_from, const uint32_t *d_from_index, size_t rows,
                   size_t row_bytes)
{
#pragma omp parallel for num_threads(device_threads(queue->device, rows *row_bytes / 16))
    for (size_t i = 0; i < rows; i++)
        memcpy(d_to + row_at(d_to_index, i) * row_bytes,
               d_from + row_at(d_from_index, i) * row_bytes, row_bytes);
}

void cpu_hash_rows(struct kernels_queue *queue, uint64_t *d_hashes, const uint8_t *d_tags,
                   const uint8_t *d_rows, const uint32_t *d_index, size_t rows, size_t row_bytes)
{
#pragma omp parallel for num_threads(device_threads(queue->device, rows *row_bytes / 16))
    for (size_t i = 0; i < rows; i++) {
        XXH3_state_t state;
        XXH3_INITSTATE(&state);
        XXH3_128bits_reset(&state);
        XXH3_128bits_update(&state, d_tags + i * TAG, TAG);
        XXH3_128bits_update(&state, d_rows + row_at(d_index, i) * row_bytes, row_bytes);
        XXH128_hash_t hash = XXH3_128bits_digest(&state);
        d_hashes[2 * i] = hash.low64;
        d_hashes[2 * i + 1] = hash.high64;
    }
}
