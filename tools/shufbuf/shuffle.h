/* shuffle.h - a stream of rows in, the same rows in the order of the rolling block shuffle out. */
#ifndef CCPIPE_SHUFFLE_H
#define CCPIPE_SHUFFLE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stream.h"

struct shuffle_setup {
    char *const *paths; /* none: standard input */
    size_t path_count;
    uint64_t rows, seed; /* N and the seed of common/ring.h's rule */
    uint64_t epochs;     /* how often the input is read; above 1 regular files alone */
    uint64_t skip_draws; /* the output begins at this draw */
    const char *output;  /* NULL: standard output */
    enum stream_codec codec;
    unsigned threads;
    const char *metrics;  /* or NULL */
    const json_t *recipe; /* for BEGIN's options; borrowed */
};

/* Copies the whole stream. 0, or a negative code; logged. Where input is cut or damaged, the draws
 * before the first one whose row is missing are served, then ABORT. Runs in the main thread, as
 * signals reach no other. */
int shuffle_run(const struct shuffle_setup *setup) MUST_CHECK;

/* Prints what memory and how many rows that would take: lines of name, tab, number. */
int shuffle_plan(const struct shuffle_setup *setup) MUST_CHECK;

#endif
