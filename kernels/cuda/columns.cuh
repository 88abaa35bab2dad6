/* columns.cuh - the sources of a row, for kernels of which a block has a row.
 *
 * Packs are used where every source begins and ends at one.
 */
#ifndef CCPIPE_KERNELS_CUDA_COLUMNS_CUH
#define CCPIPE_KERNELS_CUDA_COLUMNS_CUH

#include "kernels/cuda/cuda.h"

enum {
    ROW_THREADS = 192,  /* for a row: leaves none idle at source widths of 2304 */
    MOST_SOURCES = 256, /* of a stream: 2 of the 4 KB that a kernel's arguments may have */
};

/* A kernel's own copy of the columns, which are host memory. */
struct column_list {
    size_t sources;
    size_t common; /* packs divide it iff they divide where sources begin, and so where they end */
    struct kernels_columns at[MOST_SOURCES];
};

static inline struct column_list column_list_of(const struct kernels_columns *columns,
                                                size_t sources, size_t width)
{
    struct column_list list = {};
    assert(sources <= MOST_SOURCES);
    list.sources = sources;
    list.common = width;
    for (size_t s = 0; s < sources; s++) {
        list.at[s] = columns[s];
        list.common |= columns[s].first; /* PACK is a power of 2 */
    }
    return list;
}

#endif
