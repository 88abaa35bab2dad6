/* json.h - jansson with the project's limits: size and depth bounded, no duplicate keys, and typed
 * look-ups that say which file and key is wrong.
 */
#ifndef CCPIPE_JSON_H
#define CCPIPE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "err.h"

#define JSON_MAX_DEPTH 64

/* Parses `size` bytes of UTF-8. On failure NULL, logged as ERR_DATA with `name` and the position
 * (not logged where `name` is NULL). The caller owns the reference. Depth above JSON_MAX_DEPTH,
 * duplicate keys and what follows the value are refused. */
json_t *json_parse(const char *text, size_t size, const char *name) MUST_CHECK;

/* Reads and parses a file of at most `limit` bytes. 0 or a negative code (logged). */
int json_read_file(json_t **value, const char *path, size_t limit) MUST_CHECK;

/* Canonical text: keys sorted, no white space, reals with 17 digits. free() it. NULL: no memory. */
char *json_text(const json_t *value) MUST_CHECK;

/* Writes json_text() or, indented, a readable form and a newline to `path` (replaced). */
int json_write_file(const json_t *value, const char *path) MUST_CHECK;

/* Typed members of an object: 0; ERR_DATA (logged with `name` and the key) where it is missing or
 * of another type. Integers are accepted as reals. Strings belong to the object. */
int json_get_string(const json_t *object, const char *key, const char *name,
                    const char **value) MUST_CHECK;
int json_get_count(const json_t *object, const char *key, const char *name,
                   uint64_t *value) MUST_CHECK;
int json_get_real(const json_t *object, const char *key, const char *name,
                  double *value) MUST_CHECK;

/* Counts by name: whether that is an object of integers of 0 or more. */
bool json_is_counts(const json_t *json);

/* Adds counts to others, by name; a sum that is no integer of JSON any more stays at the largest
 * that is. 0 or ERR_MEMORY (logged). */
int json_add_counts(json_t *sums, const json_t *counts) MUST_CHECK;

#endif
