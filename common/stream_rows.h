/* stream_rows.h - the payload of a DATA record as rows or sequences, checked. Internal to the
 * stream modules and to the programs that verify and salvage files.
 */
#ifndef CCPIPE_STREAM_ROWS_H
#define CCPIPE_STREAM_ROWS_H

#include <stdbool.h>
#include <stddef.h>

#include "dtype.h"
#include "err.h"
#include "frame.h"
#include "rowsum.h"
#include "stream.h"

/* What BEGIN says of the rows. */
struct stream_layout {
    bool tokens;
    enum dtype dtype;
    size_t quanta;    /* f32 in front of an int8 row */
    size_t row_bytes; /* in DATA */
    uint64_t places;  /* rows of the data plane's window; 0: rows are inline */
};

struct stream_rows {
    struct stream_record record; /* points into the frame or into `joined` */
    struct rowsum sum;
    struct frame_buffer joined; /* rows with their planes undone */
};

/* Checks sizes against the header, undoes byte planes, refuses values that are not finite, and sums
 * the rows; of rows that travel by a data plane, checks their places and sums their hashes.
 * ERR_DATA, logged with `name`, offset and row unless name is NULL. `rows` is reused from call to
 * call. */
int stream_rows_open(struct stream_rows *rows, const struct stream_layout *layout,
                     const struct frame_record *record, const char *name,
                     int64_t offset) MUST_CHECK;
void stream_rows_free(struct stream_rows *rows);

#endif
