/* feed.h - batches of rows out of a stream, counted and summed.
 *
 * Knows at which row of the stream the next batch begins, and the sum (rowsum.h) of all rows that
 * were handed out in full batches: both belong into a checkpoint.
 */
#ifndef CCTRAIN_FEED_H
#define CCTRAIN_FEED_H

#include <stdbool.h>
#include <stdint.h>

#include "common/rowsum.h"
#include "common/stream.h"
#include "plane_feed.h"

struct feed_setup {
    char *const *paths; /* none: standard input */
    size_t path_count;
    unsigned threads;
    bool has_shuffle; /* one of the two was given */
    uint64_t shuffle_rows, shuffle_seed;
};

struct feed {
    struct feed_setup setup;
    struct stream_reader *reader;
    struct plane_feed *plane;  /* where rows travel by a data plane, once attached */
    struct begin shuffled;     /* what shufbuf would say of them; empty where rows are inline */
    const struct begin *begin; /* of the rows that are trained on: the reader's, or `shuffled` */
    size_t row_bytes;
    uint64_t next;      /* number of the row that the next batch begins with */
    struct rowsum sum;  /* of the rows before it, as far as they were read or restored */
    uint64_t left_over; /* rows at the end, too few for a batch */
    int64_t waited_ns;  /* spent waiting for records */
    struct stream_record record;
    uint32_t used; /* rows of the record that are gone */
    bool ended;
};

/* Opens the files and reads BEGIN. ERR_USAGE where a shuffle was asked for, and rows are inline. */
int feed_open(struct feed *feed, const struct feed_setup *setup) MUST_CHECK;
void feed_close(struct feed *feed);

/* Of rows that travel by a data plane, for batches of `batch`: reaches the generator; bytes of the
 * device's memory that feed_start() takes; lets rows come. Nothing where rows are inline. */
int feed_attach(struct feed *feed, const struct kernels *kernels, struct kernels_device *device,
                uint64_t batch) MUST_CHECK;
uint64_t feed_bytes(const struct feed *feed, uint64_t batch);
int feed_start(struct feed *feed) MUST_CHECK;

/* Passes over the rows before `row` and adds them to the sum. ERR_TRUNCATED (logged) where the
 * stream ends before. */
int feed_skip_to(struct feed *feed, uint64_t row) MUST_CHECK;

/* Fills `to` with the next `rows` rows as they came: 1; 0 where the stream ended before, with the
 * rows short of a batch counted; or a negative code. Nothing of a batch that was not filled is in
 * `next` and `sum`. */
int feed_fill(struct feed *feed, uint8_t *to, size_t rows) MUST_CHECK;

/* The same from a data plane, into batch t of the step. */
int feed_gather(struct feed *feed, struct step *step, uint64_t t) MUST_CHECK;

/* Reads on to END, at most `most` rows, and counts them as left over: 0, also where there are more;
 * or a negative code. */
int feed_drain(struct feed *feed, uint64_t most) MUST_CHECK;

#endif
