/* generate.h - a token stream in, a stream of activation rows out. */
#ifndef CCPIPE_GENERATE_H
#define CCPIPE_GENERATE_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/stream.h"
#include "pass.h"
#include "sources.h"

struct generate_setup {
    const struct sources *sources;
    const char *device; /* "auto", "cpu", "cuda", "cuda:N" */
    unsigned threads;
    enum dtype type, row_type;
    uint64_t batch; /* sequences of a pass, 0: as many as the device likes */
    struct pass_rule rule;
    const char *norm; /* "estimate", "none" or a file */
    uint64_t norm_sequences;
    const char *norm_out; /* or NULL */
    char *const *paths;   /* none: standard input */
    size_t path_count;
    const char *output; /* NULL: standard output */
    enum stream_codec codec;
    enum begin_plane plane; /* how rows travel */
    const char *metrics;    /* or NULL */
    const json_t *recipe;   /* options that change the rows, for BEGIN; borrowed */
};

/* Runs the whole stream. 0, or a negative code; logged. In the main thread, as signals reach no
 * other. */
int generate_run(const struct generate_setup *setup) MUST_CHECK;

/* Prints what memory, disk and how many rows that would take: lines of name, tab, number. Standard
 * input is not read; sequences are then taken to be GENERATE_LENGTH long. */
int generate_plan(const struct generate_setup *setup) MUST_CHECK;

/* Tokens that a sequence is taken to have where BEGIN does not say; longer ones are run as well. */
enum { GENERATE_LENGTH = 1024 };

#endif
