/* scan.h - one pass over a stream of rows through a crosscoder, in blocks.
 *
 * The reader, the check that stream and checkpoint belong together, the device and the progress
 * line, in one place; what is made of the blocks is the caller's affair (stats.h, evaluate.h,
 * top.h), and several of these may share one pass:
 *
 *     while ((status = scan_next(scan, &block)) == 1)
 *         stats_add(&stats, &block);
 */
#ifndef CCANALYZE_SCAN_H
#define CCANALYZE_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/crosscoder.h"
#include "common/err.h"
#include "common/stream.h"

struct scan;

struct scan_setup {
    const struct crosscoder *cc; /* must outlive the scan */
    char *const *paths;          /* as for stream_reader_open(): none is standard input */
    size_t path_count;
    const char *device; /* as for kernels_open() */
    enum dtype dtype;
    unsigned threads;
    bool decode;         /* blocks have xhat */
    const char *metrics; /* of --metrics, or NULL */
};

/* Some rows with their latents, valid until the next call. */
struct scan_block {
    uint64_t first_row;            /* place of the first one in the input, from 0 */
    size_t rows;                   /* at least 1 */
    const struct stream_tag *tags; /* (rows) */
    const float *x;                /* (rows, D) scaled as in the stream */
    const float *f;                /* (rows, F) */
    const float *xhat;             /* (rows, D), or NULL */
};

int scan_open(struct scan **scan, const struct scan_setup *setup) MUST_CHECK;

/* 1: a block; 0: all rows have been read and END agrees with them; or a negative code. */
int scan_next(struct scan *scan, struct scan_block *block) MUST_CHECK;

/* 0, or ERR_IO where the metrics could not be written. NULL is legal. */
int scan_close(struct scan *scan);

/* The stream's BEGIN. */
const struct begin *scan_begin(const struct scan *scan);

/* Bytes of memory that a scan takes beside the checkpoint as it was read. */
uint64_t scan_bytes(const struct scan_setup *setup);

#endif
