/* rowsum.h - the order-free sum of a stream's rows, which END carries.
 *
 * For each row, XXH3-128 of its 16-byte tag followed by its bytes (scales included, byte planes
 * undone); the low and the high 64-bit halves are summed separately modulo 2^64. Order does not
 * matter, and a duplicate row cannot cancel another. For a token stream the "row" is one sequence
 * as in its record: u64 index, u32 length, ids.
 */
#ifndef CCPIPE_ROWSUM_H
#define CCPIPE_ROWSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct rowsum {
    uint64_t low, high;
};

/* One contiguous row, or a row whose tag lies apart from its bytes. */
void rowsum_add(struct rowsum *sum, const void *row, size_t size);
void rowsum_add_tagged(struct rowsum *sum, const void *tag16, const void *row, size_t size);
void rowsum_merge(struct rowsum *sum, const struct rowsum *other);
static inline bool rowsum_equal(const struct rowsum *a, const struct rowsum *b)
{
    return a->low == b->low && a->high == b->high;
}

#ifdef __cplusplus
}
#endif
#endif
