/* plane_feed.h - batches out of rows that travel by a data plane, in the order of a shuffle.
 *
 * The shuffle buffer is in the device's memory, N slots of a row; common/ring.h's rule says which
 * row goes where and which is drawn next, as in shufbuf, so that the rows come in the order of
 * `actgen | shufbuf | cctrain` with the same N and seed.
 */
#ifndef CCTRAIN_PLANE_FEED_H
#define CCTRAIN_PLANE_FEED_H

#include <stdint.h>

#include "common/rowsum.h"
#include "common/stream.h"
#include "step.h"

struct plane_feed;

struct plane_feed_setup {
    const struct kernels *kernels;
    struct kernels_device *device;
    struct stream_reader *reader; /* behind BEGIN; borrowed */
    uint64_t rows, seed;          /* of the shuffle: N, and of the order */
    uint64_t batch;
};

/* Bytes of the device's memory that plane_feed_start() takes. `begin` is the stream's. */
uint64_t plane_feed_bytes(const struct plane_feed_setup *setup, const struct begin *begin);

/* Attaches to the generator, which waits for that no longer than a minute. ERR_USAGE where this
 * device cannot take part, or is not the one that the plane wants. */
int plane_feed_attach(struct plane_feed **feed, const struct plane_feed_setup *setup) MUST_CHECK;

/* Takes memory; rows begin to come. */
int plane_feed_start(struct plane_feed *feed) MUST_CHECK;

/* NULL is legal. */
void plane_feed_close(struct plane_feed *feed);

/* Passes over rows: 1 after `rows`; 0 where the stream ended before, with *done of them; or a code.
 * Adds them to *sum. */
int plane_feed_pass_over(struct plane_feed *feed, uint64_t rows, uint64_t *done,
                         struct rowsum *sum) MUST_CHECK;

/* Gathers the rows of batch t on the step's queue of copies: 1, 0 and codes as above. *sum is of
 * the rows that were drawn. The rows of batch t - STEP_DEPTH have been taken (step_rows_taken()).
 */
int plane_feed_gather(struct plane_feed *feed, struct step *step, uint64_t t, uint64_t *done,
                      struct rowsum *sum) MUST_CHECK;

/* Nanoseconds spent waiting for rows. */
int64_t plane_feed_waited(const struct plane_feed *feed);

#endif
