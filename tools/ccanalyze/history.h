/* history.h - what a run wrote into its metrics.jsonl, by key.
 *
 * Each line is an object; the lines that have "step" are the history, and their steps rise. Every
 * member that is a number is a column. Lines without a step (a tool's last figures) are passed
 * over, and so is a last line without its newline: a run may be writing it.
 */
#ifndef CCANALYZE_HISTORY_H
#define CCANALYZE_HISTORY_H

#include <stddef.h>

#include "common/err.h"

#define HISTORY_MOST_COLUMNS 1024
#define HISTORY_MOST_BYTES ((size_t)1 << 30)

struct history_column {
    char *key;
    double *values; /* (rows), NaN where a line lacks it */
};

struct history {
    size_t rows, capacity;
    double *steps; /* (rows) */
    size_t column_count;
    struct history_column *columns;
};

/* ERR_DATA (logged with `name` and the line) for what is no such file; none of it has to have a
 * step. A zeroed struct is empty. */
int history_parse(struct history *history, const char *text, size_t size,
                  const char *name) MUST_CHECK;
int history_read(struct history *history, const char *path) MUST_CHECK;
void history_free(struct history *history);

/* The values of a key (rows), or NULL where no line has it. */
const double *history_find(const struct history *history, const char *key);

/* The last value of a key that is there, or NaN. */
double history_last(const struct history *history, const char *key);

#endif
