/* describe.h - what a file or folder is, as JSON: the members that `ccanalyze info` prints. */
#ifndef CCANALYZE_DESCRIBE_H
#define CCANALYZE_DESCRIBE_H

#include <jansson.h>

#include "common/err.h"

/* *object gets "file", "type", and what there is to say of that type; the caller owns it. A stream
 * is described from its BEGIN, its index or the sizes of its frames; no row is decoded. What cannot
 * be known (rows of a cut file) is null. */
int describe_path(json_t **object, const char *path) MUST_CHECK;

#endif
