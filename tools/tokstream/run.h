/* run.h - what tokstream does: write the selected sequences, describe the input, or plan. */
#ifndef TOKSTREAM_RUN_H
#define TOKSTREAM_RUN_H

#include <jansson.h>

#include "common/err.h"
#include "emit.h"
#include "select.h"

struct run_setup {
    struct select_setup select;
    enum emit_format format;
    const char *output; /* NULL: standard output */
    enum stream_codec codec;
    unsigned threads;
    const char *metrics;  /* or NULL */
    const json_t *recipe; /* the options that change what is written */
};

int run_stream(const struct run_setup *setup) MUST_CHECK;

/* Both print lines of a word, a tab and a value to standard output. */
int run_info(const struct run_setup *setup) MUST_CHECK;
int run_plan(const struct run_setup *setup) MUST_CHECK;

#endif
