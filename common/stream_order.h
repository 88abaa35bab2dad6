/* stream_order.h - what must hold from record to record: BEGIN first, one run id, sequence and row
 * numbers without a gap, END with the right counts and sum, then the end of input or another BEGIN
 * of a compatible stream. Internal to the stream modules and to the programs that verify and
 * salvage.
 */
#ifndef CCPIPE_STREAM_ORDER_H
#define CCPIPE_STREAM_ORDER_H

#include <stdbool.h>
#include <stdint.h>

#include "begin.h"
#include "err.h"
#include "frame.h"
#include "rowsum.h"
#include "stream.h"
#include "stream_rows.h"

/* The part now being read: what its records must agree with. */
struct stream_order_part {
    uint8_t run[RECORD_RUN_BYTES];
    uint64_t sequence;       /* of the record expected next */
    uint64_t row, first_row; /* expected next, and BEGIN's, as in the headers */
    uint64_t records, rows;
    struct rowsum sum;
    bool partial; /* entered by a seek: its sum and counts cannot be checked */
};

struct stream_order {
    struct begin begin; /* of the first part */
    json_t *begin_json;
    char *begin_name; /* the file it came from */
    struct stream_layout layout;
    bool between; /* behind an END */
    struct stream_order_part part;
    uint64_t rows_before;  /* number of the part's first row in the whole input */
    struct stream_end end; /* sums over the parts that have ended; skipped is owned */
};

/* Takes the first record of all, which must be a BEGIN. ERR_USAGE where rows travel by a data plane
 * and not `via`. stream_order_free() is legal on a zeroed struct. */
int stream_order_begin(struct stream_order *order, const struct frame_record *record, bool via,
                       const char *name, int64_t offset) MUST_CHECK;
void stream_order_free(struct stream_order *order);

/* Takes the next frame: `record` and `rows` (for DATA) as decoded, nothing where the frame is
 * skippable. 1: DATA, *first_row is the number of its first row in the whole input; 0: go on;
 * negative codes are logged. */
int stream_order_take(struct stream_order *order, const struct frame *frame,
                      const struct frame_record *record, const struct stream_rows *rows,
                      const char *name, uint64_t *first_row) MUST_CHECK;

/* The end of input: 0, or ERR_TRUNCATED where that is not behind END. */
int stream_order_finish(const struct stream_order *order, const char *name) MUST_CHECK;

/* Starts over with the part whose BEGIN `record` is; `rows_before` as above. */
void stream_order_restart(struct stream_order *order, const struct frame_record *record,
                          uint64_t rows_before);

#endif
