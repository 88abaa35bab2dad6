/* opt_value.h - one option's value: from text, checked, and to JSON. Internal to opt.c and
 * opt_help.c.
 */
#ifndef CCPIPE_OPT_VALUE_H
#define CCPIPE_OPT_VALUE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "err.h"
#include "opt.h"

/* Stores `text` as the value of `opt` in the tool's struct `values`; a list gets one item more.
 * `text` must live as long as the values. ERR_USAGE, logged with `from` ("--batch",
 * "CCPIPE_BATCH", "'conf.json', actgen.batch") where the text is no such value. */
int opt_value_set(const struct opt *opt, void *values, const char *text,
                  const char *from) MUST_CHECK;

/* The value as JSON; `known` false gives null for a value that was neither given nor has a default.
 * NULL where memory is short. */
json_t *opt_value_json(const struct opt *opt, const void *values, bool known) MUST_CHECK;

/* A JSON string of any bytes: those that are no UTF-8 become '?'. NULL where memory is short. */
json_t *opt_value_string(const char *text) MUST_CHECK;

/* Frees what opt_value_set() allocated. */
void opt_value_free(const struct opt *opt, void *values);

/* What values are allowed, for help and messages: "1 to 4096", "0 or more", "lz4, zstd"; "" where
 * there is nothing to say. Cut to `size`. */
void opt_value_range(const struct opt *opt, char *text, size_t size);

#endif
