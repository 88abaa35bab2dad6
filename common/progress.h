/* progress.h - the progress line of a tool, stall lines, and metrics as JSON lines.
 *
 * A thread wakes twice a second and reads the atomic counters; the working threads never wait for
 * it. On a terminal one line is redrawn (by the last tool of a pipe alone, as they share the
 * terminal), elsewhere a line is printed each 30 s; both give rows, rows/s, the shares of time
 * spent waiting for input and for output, and the time left where the total is known. A wait of 60
 * s prints a line each minute that says which side is waited for.
 */
#ifndef CCPIPE_PROGRESS_H
#define CCPIPE_PROGRESS_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

#include "err.h"
#include "io.h"

struct progress;

struct progress_setup {
    const char *unit;               /* "rows", "sequences", "steps" */
    uint64_t total;                 /* 0: not known */
    uint64_t first;                 /* units done before the start (a resumed run) */
    const struct io_file *in, *out; /* whose waiting is shown; may be NULL */
    const char *metrics;            /* path of the JSON lines, or NULL */
};

/* Starts the thread. With -q it prints stall lines alone. */
int progress_start(struct progress **progress, const struct progress_setup *setup) MUST_CHECK;

/* The number of units done so far; any thread. */
void progress_set(struct progress *progress, uint64_t done);

/* A line for the metrics file: takes the reference. 0, also where no metrics file was asked for or
 * a line could not be written: work goes on without it, and progress_stop() tells. ERR_MEMORY.
 * Where no line was handed over until the stop, one with the figures of the progress line is
 * written. */
int progress_metric(struct progress *progress, json_t *line) MUST_CHECK;

/* Units per second since the start, and the share of the time since then spent waiting for input.
 */
double progress_rate(const struct progress *progress);
double progress_wait_fraction(const struct progress *progress);

/* Stops the thread, clears the line, closes the metrics. NULL is legal. ERR_IO if metrics were
 * lost. */
int progress_stop(struct progress *progress);

#endif
