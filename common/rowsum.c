/* rowsum.c - XXH3-128 per row, summed by halves. A short row is put behind its tag on the stack and
 * hashed in one call: setting up the streaming state costs as much as hashing some hundred bytes.
 */
#define XXH_STATIC_LINKING_ONLY /* XXH3_state_t on the stack */
#include "rowsum.h"

#include <string.h>
#include <xxhash.h>

#define ROWSUM_ONE_SHOT 2048

static void rowsum_add_hash(struct rowsum *sum, XXH128_hash_t hash)
{
    sum->low += hash.low64;
    sum->high += hash.high64;
}

void rowsum_add(struct rowsum *sum, const void *row, size_t size)
{
    rowsum_add_hash(sum, XXH3_128bits(row, size));
}

void rowsum_add_tagged(struct rowsum *sum, const void *tag16, const void *row, size_t size)
{
    if (size <= ROWSUM_ONE_SHOT) {
        uint8_t joined[16 + ROWSUM_ONE_SHOT];
        memcpy(joined, tag16, 16);
        memcpy(joined + 16, row, size);
        rowsum_add(sum, joined, 16 + size);
        return;
    }
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, tag16, 16);
    XXH3_128bits_update(&state, row, size);
    rowsum_add_hash(sum, XXH3_128bits_digest(&state));
}

void rowsum_merge(struct rowsum *sum, const struct rowsum *other)
{
    sum->low += other->low;
    sum->high += other->high;
}
