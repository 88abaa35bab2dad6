/* parquet_rle.h - Parquet's hybrid of run lengths and bit packing, in which levels and dictionary
 * indices are written.
 *
 * Runs follow each other: a varint header h, then either h>>1 times one value (in whole bytes), or,
 * with bit 0 of h set, (h>>1)*8 values of `width` bits each, lowest bits first.
 */
#ifndef TOKSTREAM_PARQUET_RLE_H
#define TOKSTREAM_PARQUET_RLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct parquet_rle {
    const uint8_t *next, *end; /* behind `end` 8 more bytes may be read */
    unsigned width;            /* 0 to 32 */
    uint64_t left;             /* values of the run at hand */
    bool packed;
    uint32_t value;           /* of a run of one value */
    const uint8_t *packed_at; /* of a packed one, and how many values of it are read */
    uint64_t packed_index;
};

void parquet_rle_init(struct parquet_rle *rle, const uint8_t *bytes, size_t size, unsigned width);

/* Reads as many equal values as come next, at most `most` (>= 1): their number, or 0 where the
 * bytes end or are no runs. */
uint64_t parquet_rle_run(struct parquet_rle *rle, uint64_t most, uint32_t *value);

/* Reads `count` values; false where the bytes end before or are no runs. */
bool parquet_rle_values(struct parquet_rle *rle, uint32_t *to, size_t count);

#endif
