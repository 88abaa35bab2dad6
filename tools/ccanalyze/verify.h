/* verify.h - every checksum of a stream, a cache with its index, a checkpoint. */
#ifndef CCANALYZE_VERIFY_H
#define CCANALYZE_VERIFY_H

#include <stddef.h>

#include "common/err.h"

#define VERIFY_TEXT_BYTES 512

struct verify_report {
    const char *type;             /* "activations", "tokens", "run", "checkpoint", ... */
    char text[VERIFY_TEXT_BYTES]; /* what was checked, in words */
};

/* Checks all of what `path` names; threads decode a stream. ERR_DATA and ERR_TRUNCATED are logged
 * with the place; the report is valid after 0. */
int verify_path(struct verify_report *report, const char *path, unsigned threads) MUST_CHECK;

#endif
