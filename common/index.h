/* index.h - the advisory index behind END of a cached stream: where each record lies.
 *
 * It travels in a skippable frame (magic 0x184D2A5C), which LZ4 and zstd programs pass over. All
 * integers are little-endian; offsets count from the first byte of the part's BEGIN frame: "CCPX",
 * u32 version 1, u64 bytes of this whole payload, u64 entries per record: u64 offset, u64 first
 * row, u32 rows, u32 stored bytes u64 XXH3-64 of all before footer: u64 bytes of the part up to
 * this frame, u64 bytes of this payload, "CCPXEND\n" A reader never needs it. Whoever uses it
 * checks its sum first.
 */
#ifndef CCPIPE_INDEX_H
#define CCPIPE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"
#include "frame.h"
#include "io.h"

struct index_entry {
    uint64_t offset, first_row;
    uint32_t rows, stored_bytes;
};

struct index {
    struct index_entry *entries; /* (count): BEGIN, DATA..., END */
    size_t count, capacity;
    uint64_t part_bytes; /* from BEGIN's first byte to the index frame's first byte */
    int64_t part_start;  /* where BEGIN lies in the file */
};

int index_add(struct index *index, const struct index_entry *entry) MUST_CHECK;
void index_free(struct index *index);

/* The whole skippable frame into `out`. */
int index_encode(struct frame_buffer *out, const struct index *index) MUST_CHECK;

/* Whether a skippable frame is an index as far as its size says: one of the two sizes that it holds
 * agrees with the frame's. A frame that is none is damage (or not ours). */
bool index_recognise(const struct frame *frame);

/* NULL where the frame is a whole and consistent index, else what is wrong, a static string. */
const char *index_check(const struct frame *frame);

/* Reads the index of the part that ends at byte `end` of a regular file. 0; 1 where none ends there
 * or it does not check; or a negative code. */
int index_read(struct index *index, const struct io_file *file, int64_t end) MUST_CHECK;

#endif
