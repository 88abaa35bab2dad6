/* table.h - what the verbs print: a table as TSV with a header line, or as JSON.
 *
 * Both forms come from the same calls, so that they cannot differ:
 *     TSV    a header line, then a line per row; a missing value is an empty field
 *     JSON   {"latents":[{"index":0,...},...],"rows":N}; a missing value is null
 * Reals have nine digits, which give every f32 back.
 */
#ifndef CCANALYZE_TABLE_H
#define CCANALYZE_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct table;

/* Where and in which form: members of every verb's options. */
struct table_form {
    const char *output; /* NULL or "-": standard output */
    bool json;
};

/* Opens the output, so that one that cannot be written is met before the work is done, and writes
 * the header line. `list` is the key of the rows in JSON; NULL where the JSON form is no list: it
 * is then what table_end() is given, alone. The columns' names are borrowed until table_free(). */
int table_open(struct table **table, const struct table_form *form, const char *list,
               const char *const *columns, size_t column_count) MUST_CHECK;

/* The next value of the row, one call per column. A real that is not finite is a missing value.
 * Text is UTF-8; in TSV tab, newline, carriage return and backslash are written \t, \n, \r and \\,
 * other control characters \x1b and alike, so that a line is a row and no terminal is played
 * tricks. */
void table_count(struct table *table, uint64_t value);
void table_real(struct table *table, double value);
void table_text(struct table *table, const char *value);

/* Ends the row: 0, ERR_CLOSED, ERR_IO (logged), ERR_MEMORY (logged). */
int table_row(struct table *table) MUST_CHECK;

/* JSON alone, instead of a row: an element of any form. Takes the reference; NULL is ERR_MEMORY. */
int table_element(struct table *table, json_t *element) MUST_CHECK;

/* Ends the table and closes the output. In JSON the members of `extra` follow the list; NULL: none.
 * Takes the reference. */
int table_end(struct table *table, json_t *extra) MUST_CHECK;

/* Legal on NULL and at any time. Without table_end() the output stays incomplete. */
void table_free(struct table *table);

/* Writes a value as indented JSON, on its own. Takes the reference; NULL is ERR_MEMORY. */
int table_json(const char *output, json_t *value) MUST_CHECK;

/* A real for JSON: null where it is not finite. */
json_t *table_json_real(double value);

#endif
