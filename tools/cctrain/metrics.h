/* metrics.h - JSON lines of training figures, in the run folder and where the user wants them.
 *
 * A line is written whole or not at all. A resumed run cuts its files back to the checkpoint's step
 * and goes on behind it, so that the lines read as those of one run.
 */
#ifndef CCTRAIN_METRICS_H
#define CCTRAIN_METRICS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/io.h"

#define METRICS_FILE "metrics.jsonl" /* in the run folder */

struct metrics_file {
    struct io_file file;
    int64_t good; /* end of the last whole line */
    bool lost;    /* a line could not be written */
};

/* Opens for writing, replacing what is there; with `resumed`, lines from step `step` on, and what
 * does not read as such a line, are cut off, and the rest is kept. */
int metrics_open(struct metrics_file *metrics, const char *path, bool resumed,
                 uint64_t step) MUST_CHECK;

/* Writes a line (borrowed). 0, also where it could not be written: training goes on, a warning is
 * given once, and metrics_close() tells. ERR_MEMORY. */
int metrics_write(struct metrics_file *metrics, const json_t *line) MUST_CHECK;

/* Brings what was written to the disk, as far as it is a file; failures count as lost lines. */
void metrics_sync(struct metrics_file *metrics);

/* ERR_IO if lines were lost. Legal on a zeroed struct. */
int metrics_close(struct metrics_file *metrics);

#endif
